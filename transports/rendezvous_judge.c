/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds of questions: a rank waits for long, so all are asked how they stand. What comes of it:
 * who has called what the others have not, who waits for whom in a circle, who has not come. */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "transports/rendezvous.h"
#include "transports/rendezvous_server.h"

#define MS ((uint64_t)1000000)
enum { ROUND_MS = 500, REST_MS = 200, GROUPS = 3, CIRCLE = 3, LIST_TEXT = 60, CALL_SHOWN = 110 };

/* A rank, as it stands. The texts are lines of conn->standing. */
typedef struct view {
    uint32_t rank;
    const cinch_conn *conn;
    bool answered;
    cinch_standing at;
    const char *doing, *counts;
    char *past;  /* the lines of its last calls, "" at the end */
    size_t mark; /* 1 + the view from which the search for circles came here */
} view;

typedef struct views {
    view *at;
    size_t count;
} views;

/* One of the last calls of a rank. */
typedef struct past {
    uint64_t number;
    uint32_t rank;
    const char *text;
} past;

/* ---- reading ---- */

void cinch_ranks_list(const uint32_t *ranks, size_t count, char *text, size_t room) {
    size_t used = (size_t)snprintf(text, room, "rank%s ", count == 1 ? "" : "s");
    for (size_t i = 0, next; i < count && used < room; i = next) {
        next = i + 1;
        while (next < count && ranks[next] == ranks[next - 1] + 1) next++;
        if (next < i + 3) next = i + 1; /* two are no range */
        const char *comma = i ? "," : "";
        if (used + 20 > room) {
            snprintf(text + used, room - used, ",...");
            return;
        }
        used += (size_t)(next == i + 1 ? snprintf(text + used, room - used, "%s%u", comma, ranks[i])
                                       : snprintf(text + used, room - used, "%s%u-%u", comma,
                                                  ranks[i], ranks[next - 1]));
    }
}

/* Cuts a line off; "" where there is none. */
static char *take_line(char **rest) {
    char *line = *rest, *end = strchr(line, '\n');
    if (end) *end = '\0';
    *rest = end ? end + 1 : line + strlen(line);
    return line;
}

/* What a rank says may be anything: numbers that make no sense do no harm. */
static void read_standing(view *v, char *text) {
    char *numbers = take_line(&text);
    v->at.calls = strtoull(numbers, &numbers, 10);
    unsigned long inside = strtoul(numbers, &numbers, 10);
    long waits = strtol(numbers, &numbers, 10);
    v->at.inside = inside == 1   ? CINCH_STANDS_INSIDE
                   : inside == 2 ? CINCH_STANDS_IN_PAIRS
                                 : CINCH_STANDS_OUTSIDE;
    v->at.waits = waits >= 0 && waits < CINCH_RANKS_MAX ? (int)waits : -1;
    v->at.receives = strtoul(numbers, &numbers, 10) != 0;
    v->at.index = (uint32_t)strtoul(numbers, &numbers, 10);
    if (v->at.inside == CINCH_STANDS_INSIDE && !v->at.calls) v->at.inside = CINCH_STANDS_OUTSIDE;
    v->doing = take_line(&text);
    v->counts = take_line(&text);
    v->past = text;
    v->answered = true;
}

static int by_rank(const void *a, const void *b) {
    const view *one = a, *two = b;
    return (one->rank > two->rank) - (one->rank < two->rank);
}

static bool read_views(const cinch_server *server, views *all) {
    all->at = calloc((size_t)server->nranks + 1, sizeof *all->at);
    all->count = 0;
    if (!all->at) return false;
    for (cinch_conn *conn = server->conns; conn; conn = conn->next) {
        if (conn->state != CINCH_CONN_SEAT || all->count > (size_t)server->nranks) continue;
        view *v = &all->at[all->count++];
        v->rank = conn->hello.rank;
        v->conn = conn;
        v->at.waits = -1;
        v->doing = v->counts = "";
        v->past = (char *)(uintptr_t) "";
        if (conn->standing) read_standing(v, conn->standing);
    }
    qsort(all->at, all->count, sizeof *all->at, by_rank);
    return true;
}

static view *find_view(const views *all, uint32_t rank) {
    view key = {.rank = rank};
    return bsearch(&key, all->at, all->count, sizeof *all->at, by_rank);
}

/* How many messages v has posted to `rank`, or received from it. */
static uint64_t posted(const view *v, uint32_t rank, bool received) {
    char *at = (char *)(uintptr_t)v->counts, *end;
    unsigned long count = 0;
    for (uint32_t i = 0; i <= 2 * rank + received; i++, at = end) {
        count = strtoul(at, &end, 10);
        if (end == at) return 0; /* an empty line: none so far */
    }
    return count;
}

/* Whether v has begun the collective call of that number. */
static bool has_called(const view *v, uint64_t number) {
    return v->at.calls > number;
}

/* ---- who has called something else ---- */

static int by_number(const void *a, const void *b) {
    const past *one = a, *two = b;
    if (one->number != two->number) return one->number < two->number ? -1 : 1;
    return (one->rank > two->rank) - (one->rank < two->rank);
}

static past *list_past(const views *all, size_t *count) {
    size_t room = 0;
    for (size_t i = 0; i < all->count; i++)
        for (const char *c = all->at[i].past; *c; c++) room += *c == '\n';
    past *list = malloc((room + all->count + 1) * sizeof *list);
    *count = 0;
    if (!list) return NULL;
    for (size_t i = 0; i < all->count; i++)
        for (char *rest = all->at[i].past; *rest;) {
            char *line = take_line(&rest), *text;
            uint64_t number = strtoull(line, &text, 10);
            if (text != line && *text == ' ')
                list[(*count)++] = (past){number, all->at[i].rank, text + 1};
        }
    qsort(list, *count, sizeof *list, by_number);
    return list;
}

/* The calls of one number, by what they were. */
static void say_groups(const past *list, size_t count, uint32_t *ranks, char *text, size_t room) {
    const char *seen[GROUPS];
    char who[LIST_TEXT];
    int groups = 0;
    size_t used = (size_t)snprintf(text, room, "the ranks called different things as number %llu:",
                                   (unsigned long long)list[0].number);
    for (size_t i = 0; i < count && used < room; i++) {
        size_t many = 0;
        bool before = false;
        for (int g = 0; g < groups; g++) before |= !strcmp(seen[g], list[i].text);
        if (before) continue;
        if (groups == GROUPS) {
            snprintf(text + used, room - used, ", and others something else again");
            return;
        }
        for (size_t j = i; j < count; j++)
            if (!strcmp(list[j].text, list[i].text)) ranks[many++] = list[j].rank;
        seen[groups] = list[i].text;
        cinch_ranks_list(ranks, many, who, sizeof who);
        used += (size_t)snprintf(text + used, room - used, "%s %s %.*s", groups ? "," : "", who,
                                 CALL_SHOWN, list[i].text);
        groups++;
    }
}

/* The first number for which two ranks have called different things. */
static bool differ(const views *all, char why[CINCH_ERROR_TEXT]) {
    size_t count;
    bool found = false;
    past *list = list_past(all, &count);
    uint32_t *ranks = malloc((count + 1) * sizeof *ranks);
    for (size_t i = 0, next; list && ranks && i < count && !found; i = next) {
        for (next = i + 1; next < count && list[next].number == list[i].number; next++)
            found |= strcmp(list[next].text, list[i].text) != 0;
        if (found) say_groups(&list[i], next - i, ranks, why, CINCH_ERROR_TEXT);
    }
    free(list);
    free(ranks);
    return found;
}

/* ---- who waits for whom ---- */

/* Whom v waits for; sure: that rank cannot come before its own call is over, and that is none with
 * a part for v. NULL: nobody who waits as well. */
static view *next_of(const views *all, const view *v, bool *sure) {
    *sure = false;
    if (!v->answered || v->at.inside == CINCH_STANDS_OUTSIDE || v->at.waits < 0) return NULL;
    view *q = find_view(all, (uint32_t)v->at.waits);
    if (!q || !q->answered || q->at.inside == CINCH_STANDS_OUTSIDE) return NULL;
    if (v->at.inside == CINCH_STANDS_IN_PAIRS) {
        *sure = posted(q, v->rank, !v->at.receives) <= v->at.index;
        return *sure ? q : NULL;
    }
    *sure = !has_called(q, v->at.calls - 1);
    bool same = q->at.inside == CINCH_STANDS_INSIDE && q->at.calls == v->at.calls;
    return *sure || same ? q : NULL;
}

static void say_circle(const views *all, const view *first, char *text, size_t room) {
    bool sure;
    const view *v = first;
    size_t used = (size_t)snprintf(text, room,
                                   "the ranks called different things, and wait for "
                                   "each other:");
    for (int i = 0; i < CIRCLE && used < room; i++) {
        used += (size_t)snprintf(text + used, room - used, "%s rank %u %.*s", i ? ";" : "", v->rank,
                                 CALL_SHOWN + 40, v->doing);
        v = next_of(all, v, &sure);
        if (v == first) return;
    }
    if (used < room) snprintf(text + used, room - used, "; and so on");
}

/* A circle of ranks in which one can surely not go on, so that none can. */
static bool circle(const views *all, char why[CINCH_ERROR_TEXT]) {
    for (size_t i = 0; i < all->count; i++) {
        view *v = &all->at[i];
        bool sure, stuck = false;
        while (v && !v->mark) {
            v->mark = i + 1;
            v = next_of(all, v, &sure);
        }
        if (!v || v->mark != i + 1) continue; /* it ends, or was looked at before */
        const view *first = v;
        do {
            v = next_of(all, v, &sure);
            stuck |= sure;
        } while (v != first);
        if (!stuck) continue;
        say_circle(all, first, why, CINCH_ERROR_TEXT);
        return true;
    }
    return false;
}

/* ---- who has not come ---- */

/* Who waits inside a call that a rank can never make, because that has left. */
static bool left_early(const cinch_server *server, const views *all, char why[CINCH_ERROR_TEXT]) {
    for (size_t i = 0; i < all->count && server->left_at; i++) {
        const view *v = &all->at[i];
        if (!v->conn->question || v->at.inside != CINCH_STANDS_INSIDE) continue;
        for (int r = 0; r < server->nranks; r++) {
            if (!server->left_at[r] || server->left_at[r] > v->at.calls) continue;
            snprintf(why, CINCH_ERROR_TEXT,
                     "rank %d has left the communicator, after %llu calls, but rank %u %.*s", r,
                     (unsigned long long)server->left_at[r] - 1, v->rank, 2 * CALL_SHOWN, v->doing);
            return true;
        }
    }
    return false;
}

/* As an answer to v's question. */
static void say_missing(const views *all, const view *v, char *text, size_t room) {
    uint32_t *silent = calloc(2 * all->count + 2, sizeof *silent);
    uint32_t *missing = silent ? silent + all->count + 1 : NULL;
    size_t silents = 0, missings = 0, used = 0;
    const view *late = NULL,
               *peer = v->at.waits >= 0 ? find_view(all, (uint32_t)v->at.waits) : NULL;
    char who[LIST_TEXT];
    text[0] = '\0';
    for (size_t i = 0; i < all->count && silent; i++) {
        const view *q = &all->at[i];
        if (!q->answered) silent[silents++] = q->rank;
        if (!q->answered || v->at.inside != CINCH_STANDS_INSIDE) continue;
        if (has_called(q, v->at.calls - 1)) continue;
        if (!late) late = q;
        missing[missings++] = q->rank;
    }
    if (silents) {
        cinch_ranks_list(silent, silents, who, sizeof who);
        used =
            (size_t)snprintf(text, room, "%s do%s not answer: stopped, or %s hangs", who,
                             silents == 1 ? "es" : "", silents == 1 ? "its machine" : "a machine");
    }
    if (missings && used < room) {
        char first[24] = "it";
        if (missings > 1) snprintf(first, sizeof first, "rank %u", late->rank);
        cinch_ranks_list(missing, missings, who, sizeof who);
        snprintf(text + used, room - used, "%s%s ha%s not called it: %s %s", used ? "; " : "", who,
                 missings == 1 ? "s" : "ve", first, late->doing);
    } else if (!silents && peer && peer->answered && v->at.inside == CINCH_STANDS_IN_PAIRS) {
        snprintf(text, room, "it waits for rank %u, which %s", peer->rank, peer->doing);
    } else if (!silents) {
        used = (size_t)snprintf(text, room, "all ranks have called it");
        if (v->at.waits >= 0)
            snprintf(text + used, room - used,
                     "; it waits for rank %d, or for one that rank %d waits for", v->at.waits,
                     v->at.waits);
    }
    free(silent);
}

/* ---- rounds ---- */

static bool pending(const cinch_conn *conn) {
    return conn->state == CINCH_CONN_SEAT && conn->question;
}

static void forget_question(cinch_conn *conn) {
    conn->question = 0;
    free(conn->sentence);
    conn->sentence = NULL;
}

static void begin_round(cinch_server *server, uint64_t now) {
    cinch_packet *packet = cinch_packet_make(CINCH_FRAME_QUERY, sizeof(uint64_t));
    if (!packet) return; /* who asks will ask again */
    uint64_t round = htole64(++server->round);
    memcpy(packet->data + sizeof(cinch_frame), &round, sizeof round);
    server->round_ns = now + ROUND_MS * MS;
    for (cinch_conn *conn = server->conns; conn; conn = conn->next) {
        free(conn->standing);
        conn->standing = NULL;
        if (conn->state != CINCH_CONN_SEAT || conn->unanswered) continue;
        conn->unanswered = true;
        conn->queried = server->round;
        cinch_conn_send(conn, packet);
    }
    cinch_packet_drop(packet);
}

static void answer(cinch_conn *conn, const char *text) {
    size_t length = strlen(text);
    cinch_packet *packet = cinch_packet_make(CINCH_FRAME_ANSWER, length);
    if (!packet) return;
    memcpy(packet->data + sizeof(cinch_frame), text, length);
    cinch_conn_send(conn, packet);
    cinch_packet_drop(packet);
}

/* The finding or the timeout of which every rank hears; false: there is none. */
static bool judge_all(cinch_server *server, const views *all, char why[CINCH_ERROR_TEXT],
                      cinchResult_t *code) {
    *code = cinchInvalidUsage;
    if (differ(all, why) || circle(all, why) || left_early(server, all, why)) return true;
    if (server->quarrel) {
        snprintf(why, CINCH_ERROR_TEXT, "%s", server->quarrel);
        return true;
    }
    for (int kind = CINCH_ASK_DIFFERS; kind >= CINCH_ASK_TIMEOUT; kind--)
        for (size_t i = 0; i < all->count; i++) {
            const view *v = &all->at[i];
            char who[CINCH_ERROR_TEXT] = "";
            if (v->conn->question != kind || v->conn->asked > server->round) continue;
            const view *peer = v->conn->peer >= 0 ? find_view(all, (uint32_t)v->conn->peer) : NULL;
            if (kind == CINCH_ASK_TIMEOUT) {
                *code = cinchRemoteError;
                say_missing(all, v, who, sizeof who);
            } else if (peer && peer->answered) {
                snprintf(who, sizeof who, "rank %u %s", peer->rank, peer->doing);
            }
            snprintf(why, CINCH_ERROR_TEXT, "%.*s%s%.*s", CINCH_ERROR_TEXT / 2, v->conn->sentence,
                     who[0] ? ": " : "", CINCH_ERROR_TEXT / 2 - 8, who);
            return true;
        }
    return false;
}

static void end_round(cinch_server *server, uint64_t now) {
    char why[CINCH_ERROR_TEXT];
    cinchResult_t code;
    views all;
    server->round_ns = 0;
    server->rest_ns = now + REST_MS * MS;
    if (!read_views(server, &all)) return;
    if (judge_all(server, &all, why, &code)) {
        cinch_rules_fail(server, code, why);
    } else {
        for (size_t i = 0; i < all.count; i++) {
            cinch_conn *conn = (cinch_conn *)(uintptr_t)all.at[i].conn;
            if (!conn->question || conn->asked > server->round) continue;
            say_missing(&all, &all.at[i], why, sizeof why);
            answer(conn, why);
            forget_question(conn);
        }
    }
    free(all.at);
}

/* Ends a round that all have answered, and begins one that is wanted. */
void cinch_judge_time(cinch_server *server, uint64_t now) {
    if (server->state != CINCH_FORMED) return;
    bool wanted = server->quarrel != NULL, urgent = wanted, complete = true;
    for (const cinch_conn *conn = server->conns; conn; conn = conn->next) {
        wanted |= pending(conn);
        urgent |= pending(conn) && conn->question != CINCH_ASK_WAITS;
        /* Who was silent in the last round already is not waited for. */
        complete &=
            conn->state != CINCH_CONN_SEAT || !conn->unanswered || conn->queried != server->round;
    }
    if (server->round_ns && (complete || now >= server->round_ns)) {
        end_round(server, now);
        return cinch_judge_time(server, now);
    }
    if (!server->round_ns && wanted && (urgent || now >= server->rest_ns)) begin_round(server, now);
}

uint64_t cinch_judge_next(const cinch_server *server) {
    if (server->round_ns) return server->round_ns;
    for (const cinch_conn *conn = server->conns; conn; conn = conn->next)
        if (pending(conn)) return server->rest_ns;
    return 0;
}

void cinch_judge_ask(cinch_server *server, cinch_conn *conn) {
    cinch_ask ask;
    memcpy(&ask, conn->body, sizeof ask);
    int kind = (int)le32toh(ask.kind);
    if (kind < CINCH_ASK_WAITS || kind > CINCH_ASK_DIFFERS) return;
    free(conn->sentence);
    conn->sentence = strdup((const char *)conn->body + sizeof ask);
    conn->question = conn->sentence ? kind : 0;
    conn->peer = (int32_t)le32toh((uint32_t)ask.peer);
    /* What is under way may have asked too early. */
    conn->asked = server->round + 1;
    cinch_judge_time(server, cinch_now_ns());
}

void cinch_judge_standing(cinch_server *server, cinch_conn *conn) {
    uint64_t round;
    memcpy(&round, conn->body, sizeof round);
    conn->unanswered = false;
    if (le64toh(round) != server->round || !server->round_ns) return;
    free(conn->standing);
    conn->standing = strdup((const char *)conn->body + sizeof round);
    cinch_judge_time(server, cinch_now_ns());
}

void cinch_judge_differs(cinch_server *server, const char *sentence) {
    if (!server->quarrel) server->quarrel = strdup(sentence);
    if (!server->quarrel) cinch_rules_fail(server, cinchInvalidUsage, sentence);
}

void cinch_judge_left(cinch_server *server, const cinch_conn *conn) {
    if (!server->left_at) server->left_at = calloc((size_t)server->nranks, sizeof *server->left_at);
    if (!server->left_at || !conn->head.bytes) return;
    server->left_at[conn->hello.rank] =
        1 + strtoull((const char *)conn->body, NULL, 10) % (UINT64_MAX / 2);
}

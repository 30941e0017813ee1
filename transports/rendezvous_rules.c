/* SPDX-License-Identifier: Apache-2.0 */
/* What the server makes of the ranks' frames: who is missing, what differs, who has failed. */
#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/settings.h"
#include "transports/io.h"
#include "transports/rendezvous_server.h"

#define MS ((uint64_t)1000000)
enum { CLOSING_MS = 1000 };

bool cinch_frame_allowed(const cinch_conn *conn) {
    const cinch_frame *head = &conn->head;
    if (head->magic != CINCH_FRAME_MAGIC) return false;
    if (conn->state == CINCH_CONN_HELLO)
        return head->type == CINCH_FRAME_HELLO && head->bytes >= sizeof(cinch_hello) + 2 &&
               head->bytes <= CINCH_HELLO_MAX_BYTES;
    switch (head->type) {
    case CINCH_FRAME_GATHER:
        return head->bytes <= CINCH_GATHER_MAX_BYTES && !conn->part;
    case CINCH_FRAME_ABORT:
        return head->bytes < CINCH_ERROR_TEXT;
    case CINCH_FRAME_LEAVE:
        return head->bytes <= 32;
    case CINCH_FRAME_ASK:
        return head->bytes >= sizeof(cinch_ask) &&
               head->bytes < sizeof(cinch_ask) + CINCH_ERROR_TEXT;
    case CINCH_FRAME_STANDING:
        return head->bytes >= sizeof(uint64_t) && head->bytes <= CINCH_STANDING_MAX_BYTES;
    case CINCH_FRAME_GONE:
        return head->bytes == sizeof(uint32_t);
    default:
        return false;
    }
}

static cinch_packet *make_verdict(cinchResult_t code, const char *sentence) {
    size_t length = strlen(sentence);
    cinch_packet *packet = cinch_packet_make(CINCH_FRAME_FAILED, sizeof(uint32_t) + length);
    if (!packet) return NULL;
    uint32_t wire = htole32((uint32_t)code);
    memcpy(packet->data + sizeof(cinch_frame), &wire, sizeof wire);
    memcpy(packet->data + sizeof(cinch_frame) + sizeof wire, sentence, length);
    return packet;
}

static void send_verdict(cinch_conn *conn, cinch_packet *verdict) {
    if (verdict) cinch_conn_send(conn, verdict);
    conn->state = CINCH_CONN_CLOSING;
    conn->deadline_ns = cinch_now_ns() + CLOSING_MS * MS;
    if (!conn->out) { /* all is sent: the rank sees the end behind the verdict */
        shutdown(conn->fd, SHUT_WR);
        conn->write_closed = true;
    }
}

/* The ranks that said hello and are there, by rank. */
typedef struct seats {
    cinch_conn **at;
    uint32_t count;
} seats;

static int by_rank(const void *a, const void *b) {
    const cinch_conn *one = *(cinch_conn *const *)a, *two = *(cinch_conn *const *)b;
    return (one->hello.rank > two->hello.rank) - (one->hello.rank < two->hello.rank);
}

static bool list_seats(const cinch_server *server, seats *s) {
    s->count = 0;
    s->at = malloc(((size_t)server->hellos + 1) * sizeof *s->at);
    if (!s->at) return false;
    for (cinch_conn *conn = server->conns; conn; conn = conn->next)
        if (conn->state == CINCH_CONN_SEAT) s->at[s->count++] = conn;
    qsort(s->at, s->count, sizeof *s->at, by_rank);
    return true;
}

/* The next reunion will be at the same place. */
static void put_off(cinch_conn *conn) {
    cinch_packet *later = make_verdict(cinchInProgress, "another reunion is under way here");
    send_verdict(conn, later);
    if (later) cinch_packet_drop(later);
}

void cinch_rules_end(cinch_server *server) {
    for (cinch_conn *conn = server->conns; conn && server->left_out; conn = conn->next)
        if (conn->state == CINCH_CONN_HELLO) put_off(conn);
}

/* Who has heard of a reunion's failure and comes again means the next one. */
static void note_heard(cinch_server *server, const cinch_conn *conn) {
    uint32_t *grown = realloc(server->heard, (server->heards + 1) * sizeof *grown);
    if (!grown) return; /* it hears of the same failure once more */
    server->heard = grown;
    server->heard[server->heards++] = conn->hello.member;
}

/* Tells every rank; the first cause wins. Those of this process last: it may end when they know. */
static void fail_all(cinch_server *server, cinchResult_t code, const char *sentence) {
    if (server->state == CINCH_FAILED) return;
    seats s;
    bool excused = server->cancelled && server->why[0]; /* one rank will not come */
    bool expected = server->hellos || server->left_out || excused;
    if (server->state == CINCH_FORMING && expected && list_seats(server, &s)) {
        /* Those that are still on their way shall hear it too. */
        server->awaited = excused ? server->more : (int)server->most;
        for (uint32_t i = 0; i < s.count; i++)
            if (!i || s.at[i]->hello.rank != s.at[i - 1]->hello.rank) server->awaited--;
        server->linger_ns = cinch_now_ns() + cinch_rendezvous_tune.linger_ms * MS;
        free(s.at);
    }
    cinch_server_shut(server);
    server->state = CINCH_FAILED;
    server->verdict = make_verdict(code, sentence);
    for (int memory = 0; memory < 2; memory++)
        for (cinch_conn *conn = server->conns; conn; conn = conn->next)
            if (conn->state == CINCH_CONN_SEAT && conn->memory == (memory == 1)) {
                if (server->left_out) note_heard(server, conn);
                send_verdict(conn, server->verdict);
            }
}

void cinch_rules_fail(cinch_server *server, cinchResult_t code, const char *sentence) {
    fail_all(server, code, sentence);
}

static void __attribute__((format(printf, 3, 4)))
fail_with(cinch_server *server, cinchResult_t code, const char *format, ...) {
    char sentence[CINCH_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    fail_all(server, code, sentence);
}

/* "ranks 2,5-7 of 8", as much of it as there is room for. */
static void name_missing(const seats *s, uint32_t nranks, char *text, size_t room) {
    char list[CINCH_ERROR_TEXT / 2];
    size_t used = 0;
    uint32_t missing = 0, seat = 0;
    list[0] = 0;
    for (uint32_t rank = 0; rank < nranks; rank++) {
        while (seat < s->count && s->at[seat]->hello.rank < rank) seat++;
        if (seat < s->count && s->at[seat]->hello.rank == rank) continue;
        uint32_t next = seat < s->count ? s->at[seat]->hello.rank : nranks, last = next - 1;
        missing += next - rank;
        const char *comma = used ? "," : "";
        if (used + 32 > sizeof list) {
            if (used < sizeof list - 4) snprintf(list + used, 5, ",...");
            used = sizeof list;
        } else if (last > rank + 1) {
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%u-%u", comma, rank, last);
        } else if (last == rank + 1) {
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%u,%u", comma, rank, last);
        } else {
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%u", comma, rank);
        }
        rank = last;
    }
    snprintf(text, room, "rank%s %s of %u", missing == 1 ? "" : "s", list, nranks);
}

/* What else to say where ranks are missing. */
static void explain_missing(const cinch_server *server, char *text, size_t room) {
    char address[CINCH_ADDRESS_TEXT];
    text[0] = 0;
    if (server->note[0]) snprintf(text, room, " (%s)", server->note);
    for (int i = 0; i < server->listeners && server->unbound; i++)
        if (server->listen_fd[i] < 0) {
            snprintf(text, room, " (rank 0 cannot listen at %s: %s)",
                     cinch_address_format(&server->listen[i], address),
                     strerror(server->bind_error));
            return;
        }
}

/* Ranks that contradict each other. */
static bool contradiction(const seats *s, char why[CINCH_ERROR_TEXT]) {
    const cinch_hello *first = &s->at[0]->hello;
    for (uint32_t i = 1; i < s->count; i++) {
        const cinch_hello *other = &s->at[i]->hello;
        if (other->protocol == first->protocol &&
            !strncmp(other->release, first->release, sizeof first->release))
            continue;
        snprintf(why, CINCH_ERROR_TEXT,
                 "rank %u runs cinch %.16s (protocol %u), rank %u runs %.16s (protocol %u): all "
                 "ranks need the same release",
                 other->rank, other->release, other->protocol, first->rank, first->release,
                 first->protocol);
        return true;
    }
    for (uint32_t i = 1; i < s->count; i++) {
        const cinch_hello *other = &s->at[i]->hello;
        if (other->nranks == first->nranks) continue;
        snprintf(why, CINCH_ERROR_TEXT, "rank %u says there are %u ranks, rank %u says %u",
                 other->rank, other->nranks, first->rank, first->nranks);
        return true;
    }
    for (uint32_t i = 1; i < s->count; i++) {
        if (s->at[i]->hello.rank != s->at[i - 1]->hello.rank) continue;
        snprintf(why, CINCH_ERROR_TEXT, "rank %u of %u joined twice: every rank joins once",
                 s->at[i]->hello.rank, first->nranks);
        return true;
    }
    return false;
}

/* Ranks that cannot go on: the sentence as it is where all say the same. */
static bool refusal(const seats *s, char why[CINCH_ERROR_TEXT]) {
    const cinch_conn *first = NULL;
    bool all = s->count > 1;
    for (uint32_t i = 0; i < s->count; i++) {
        if (!first && s->at[i]->refusal[0]) first = s->at[i];
        all = all && !strcmp(s->at[i]->refusal, s->at[0]->refusal);
    }
    if (!first) return false;
    if (all || s->count == 1)
        snprintf(why, CINCH_ERROR_TEXT, "%s", first->refusal);
    else
        snprintf(why, CINCH_ERROR_TEXT, "rank %u: %s", first->hello.rank, first->refusal);
    return true;
}

static bool settings_differ(const seats *s, char why[CINCH_ERROR_TEXT]) {
    for (uint32_t i = 1; i < s->count; i++)
        if (!cinch_settings_compare(s->at[0]->settings, (int)s->at[0]->hello.rank,
                                    s->at[i]->settings, (int)s->at[i]->hello.rank, why))
            return true;
    return false;
}

/* Nobody else is waited for: either all start, or all get the same sentence. */
static void start(cinch_server *server, const seats *s) {
    cinch_go body = {.host_rank = (int32_t)htole32((uint32_t)-1)};
    for (uint32_t i = s->count; i-- > 0;)
        if (s->at[i]->memory) body.host_rank = (int32_t)htole32(s->at[i]->hello.rank);
    if (cinch_random(body.salt, sizeof body.salt) != cinchSuccess) {
        fail_with(server, cinchSystemError, "the meeting point has no random numbers");
        return;
    }
    cinch_packet *packet = cinch_packet_make(CINCH_FRAME_GO, sizeof body);
    if (!packet) {
        fail_with(server, cinchSystemError, "the meeting point has no memory left");
        return;
    }
    memcpy(packet->data + sizeof(cinch_frame), &body, sizeof body);
    cinch_server_close_listeners(server);
    cinch_server_shut(server);
    server->state = CINCH_FORMED;
    server->nranks = (int)s->count;
    server->parted = (int32_t)le32toh((uint32_t)body.host_rank) < 0;
    for (cinch_conn *conn = server->conns; conn; conn = conn->next)
        if (conn->state == CINCH_CONN_SEAT)
            cinch_conn_send(conn, packet);
        else if (server->left_out && conn->state == CINCH_CONN_HELLO)
            put_off(conn);
        else
            conn->state = CINCH_CONN_DEAD;
    cinch_packet_drop(packet);
}

static void decide(cinch_server *server) {
    char why[CINCH_ERROR_TEXT], more[CINCH_ERROR_TEXT / 2 + 64];
    seats s;
    if (!list_seats(server, &s)) {
        fail_with(server, cinchSystemError, "the meeting point has no memory left");
        return;
    }
    if (!s.count) {
        fail_with(server, cinchRemoteError, "no rank joined within %llu ms",
                  (unsigned long long)server->timeout_ms);
    } else if (contradiction(&s, why) || refusal(&s, why)) {
        fail_all(server, cinchInvalidUsage, why);
    } else if (s.count < s.at[0]->hello.nranks) {
        name_missing(&s, s.at[0]->hello.nranks, why, sizeof why);
        explain_missing(server, more, sizeof more);
        fail_with(server, cinchRemoteError, "%.*s did not join within %llu ms%s", 300, why,
                  (unsigned long long)server->timeout_ms, more);
    } else if (settings_differ(&s, why)) {
        fail_all(server, cinchInvalidUsage, why);
    } else {
        start(server, &s);
    }
    free(s.at);
}

/* An all-gather that some rank does not take part in. */
static void give_up_gather(cinch_server *server) {
    char who[CINCH_ERROR_TEXT];
    seats s;
    if (!list_seats(server, &s)) return;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s.count; i++)
        if (s.at[i]->part) s.at[kept++] = s.at[i];
    s.count = kept;
    name_missing(&s, (uint32_t)server->nranks, who, sizeof who);
    fail_with(server, cinchRemoteError, "%.*s did not take part in an all-gather within %llu ms",
              300, who, (unsigned long long)server->timeout_ms);
    free(s.at);
}

void cinch_rules_time(cinch_server *server, uint64_t now) {
    if (server->state == CINCH_FORMED && server->gathered && now >= server->gather_ns)
        give_up_gather(server);
    if (server->state == CINCH_FORMING && server->cancelled)
        fail_with(server, cinchRemoteError, "%s", /* `why` is as it is once that is seen */
                  server->why[0] ? server->why
                                 : "the meeting point was given up by the process that opened it");
    if (server->state == CINCH_FORMING && server->starved)
        fail_with(server, cinchSystemError, "the process where the ranks meet is out of memory");
    if (server->state == CINCH_FAILED && server->cancelled && server->left_out) {
        cinch_server_close_listeners(server);
        server->awaited = 0;
    }
    cinch_judge_time(server, now);
    if (server->state != CINCH_FORMING) return;
    if (server->hellos && (uint32_t)server->hellos >= server->fewest && !server->settled_ns)
        server->settled_ns = (uint32_t)server->hellos >= server->most
                                 ? now
                                 : now + cinch_rendezvous_tune.settle_ms * MS;
    if (now >= server->deadline_ns || (server->settled_ns && now >= server->settled_ns) ||
        (server->hellos && (uint32_t)server->hellos >= server->most))
        decide(server);
}

uint64_t cinch_rules_next(const cinch_server *server) {
    if (server->state == CINCH_FAILED) return server->linger_ns;
    if (server->state == CINCH_FORMED) {
        uint64_t gather = server->gathered ? server->gather_ns : 0,
                 judge = cinch_judge_next(server);
        return gather && (!judge || gather < judge) ? gather : judge;
    }
    return server->settled_ns && server->settled_ns < server->deadline_ns ? server->settled_ns
                                                                          : server->deadline_ns;
}

bool cinch_rules_done(const cinch_server *server, uint64_t now) {
    if (server->state == CINCH_FORMING) return false;
    for (const cinch_conn *conn = server->conns; conn; conn = conn->next)
        if (conn->state == CINCH_CONN_SEAT || conn->state == CINCH_CONN_CLOSING) return false;
    return server->state == CINCH_FORMED || server->awaited <= 0 || now >= server->linger_ns;
}

/* Takes the hello apart; false where it makes no sense. */
static bool read_hello(cinch_conn *conn) {
    cinch_hello *hello = &conn->hello;
    memcpy(hello, conn->body, sizeof *hello);
    hello->protocol = le32toh(hello->protocol);
    hello->rank = le32toh(hello->rank);
    hello->nranks = le32toh(hello->nranks);
    hello->member = le32toh(hello->member);
    hello->left_ms = le64toh(hello->left_ms);
    hello->timeout_ms = le64toh(hello->timeout_ms);
    hello->release[sizeof hello->release - 1] = 0;
    const char *text = (const char *)conn->body + sizeof *hello;
    size_t room = conn->head.bytes - sizeof *hello, first = strnlen(text, room);
    if (first >= room - 1 || text[room - 1]) return false;
    if (!hello->nranks || hello->nranks > CINCH_RANKS_MAX || hello->rank >= hello->nranks)
        return false;
    conn->hello_body = conn->body;
    conn->body = NULL;
    conn->settings = text;
    conn->refusal = text + first + 1;
    size_t second = first + 1 + strlen(conn->refusal);
    conn->left_out = second + 1 < room ? text + second + 1 : "";
    return true;
}

/* Whether "1,4-6" has the rank. */
static bool lists(const char *list, unsigned long rank) {
    while (*list) {
        char *end;
        unsigned long first = strtoul(list, &end, 10), last = first;
        if (*end == '-') last = strtoul(end + 1, &end, 10);
        if (rank >= first && rank <= last) return true;
        if (end == list || *end != ',') return false;
        list = end + 1;
    }
    return false;
}

/* A reunion's place may be used for one after the other, and not by the same ranks: who is early
 * for the next one comes again. Two ranks that are in both would have to agree on which is first.
 */
static bool belongs(cinch_server *server, cinch_conn *conn) {
    bool same = !strcmp(conn->left_out, server->left_out);
    bool again = server->state == CINCH_FORMED;
    for (size_t i = 0; i < server->heards; i++) again |= server->heard[i] == conn->hello.member;
    if (same && !again) return true;
    if (server->state == CINCH_FORMING && !lists(server->left_out, conn->hello.member)) {
        fail_with(server, cinchInvalidUsage,
                  "cinchCommShrink: rank %u excludes %.150s, rank %u excludes %.150s: all ranks "
                  "that are left give the same list",
                  server->member, server->left_out[0] ? server->left_out : "nobody",
                  conn->hello.member, conn->left_out[0] ? conn->left_out : "nobody");
        return false;
    }
    put_off(conn);
    return false;
}

static void on_hello(cinch_server *server, cinch_conn *conn) {
    if (!read_hello(conn)) {
        cinch_warn("the meeting point got a hello that makes no sense from %s", conn->from);
        conn->state = CINCH_CONN_DEAD;
        return;
    }
    conn->state = CINCH_CONN_SEAT;
    conn->deadline_ns = 0;
    if (server->left_out && !belongs(server, conn)) return;
    if (server->state == CINCH_FORMED) {
        cinch_packet *late = make_verdict(
            cinchInvalidUsage, "the unique id was used before: every communicator needs its own");
        send_verdict(conn, late);
        if (late) cinch_packet_drop(late);
        return;
    }
    const cinch_hello *hello = &conn->hello;
    if (!server->hellos || hello->nranks < server->fewest) server->fewest = hello->nranks;
    if (hello->nranks > server->most) server->most = hello->nranks;
    uint64_t left_ms = hello->left_ms < UINT64_MAX / MS / 2 ? hello->left_ms : UINT64_MAX / MS / 2;
    uint64_t deadline = cinch_now_ns() + left_ms * MS;
    if (!server->hellos || deadline < server->deadline_ns) {
        server->deadline_ns = deadline;
        server->timeout_ms =
            hello->timeout_ms < UINT64_MAX / MS / 2 ? hello->timeout_ms : UINT64_MAX / MS / 2;
    }
    server->hellos++;
    if (server->state == CINCH_FAILED) {
        server->awaited--;
        if (server->left_out) note_heard(server, conn);
        send_verdict(conn, server->verdict);
    }
}

/* All parts are here: the same bytes to every rank. */
static void finish_gather(cinch_server *server, uint64_t bytes) {
    cinch_packet *packet = cinch_packet_make(CINCH_FRAME_GATHERED, (size_t)server->nranks * bytes);
    if (!packet) {
        fail_with(server, cinchSystemError, "rank 0's process has no memory for an all-gather");
        return;
    }
    server->gathered = 0;
    for (cinch_conn *conn = server->conns; conn; conn = conn->next) {
        if (conn->state != CINCH_CONN_SEAT) continue;
        if (bytes)
            memcpy(packet->data + sizeof(cinch_frame) + conn->hello.rank * bytes, conn->part,
                   bytes);
        free(conn->part);
        conn->part = NULL;
    }
    for (cinch_conn *conn = server->conns; conn; conn = conn->next)
        if (conn->state == CINCH_CONN_SEAT) cinch_conn_send(conn, packet);
    cinch_packet_drop(packet);
}

/* They have called different things, and can say what. */
static void part_differs(cinch_server *server, const cinch_conn *one, const cinch_conn *two) {
    char why[CINCH_ERROR_TEXT];
    snprintf(why, sizeof why, "rank %u gives %llu bytes to an all-gather, rank %u gives %llu",
             one->hello.rank, (unsigned long long)one->part_bytes, two->hello.rank,
             (unsigned long long)two->part_bytes);
    cinch_judge_differs(server, why);
}

static void on_part(cinch_server *server, cinch_conn *conn) {
    const cinch_conn *other = NULL;
    for (const cinch_conn *at = server->conns; at; at = at->next)
        if (at->state == CINCH_CONN_SEAT && at->part) other = at;
    conn->part = conn->body;
    conn->part_bytes = conn->head.bytes;
    conn->body = NULL;
    if (server->gathered++ == 0) server->gather_ns = cinch_now_ns() + server->timeout_ms * MS;
    if (server->gone > 0)
        fail_with(server, cinchRemoteError,
                  "rank %d has left the communicator, but rank %u still exchanges data with it",
                  server->last_gone, conn->hello.rank);
    else if (other && other->part_bytes != conn->part_bytes)
        part_differs(server, conn, other);
    else if (server->gathered == server->nranks && !server->quarrel)
        finish_gather(server, conn->part_bytes);
}

/* The last rank of this process may end it: the others need not wonder about that. */
static void part(cinch_server *server) {
    for (const cinch_conn *conn = server->conns; conn; conn = conn->next)
        if (conn->state == CINCH_CONN_SEAT && conn->memory) return;
    cinch_packet *packet = cinch_packet_make(CINCH_FRAME_PARTING, 0);
    server->parted = packet != NULL;
    for (cinch_conn *conn = server->conns; conn && packet; conn = conn->next)
        if (conn->state == CINCH_CONN_SEAT) cinch_conn_send(conn, packet);
    if (packet) cinch_packet_drop(packet);
}

static void on_leave(cinch_server *server, cinch_conn *conn) {
    conn->state = CINCH_CONN_DEAD;
    cinch_judge_left(server, conn);
    server->gone++;
    server->last_gone = (int)conn->hello.rank;
    if (server->gathered > 0)
        fail_with(server, cinchRemoteError, "rank %d left while other ranks exchange data",
                  server->last_gone);
    else if (conn->memory && !server->parted)
        part(server);
}

void cinch_rules_lost(cinch_server *server, cinch_conn *conn) {
    fail_with(server, cinchRemoteError,
              "rank %u is gone: its process ended or its connection broke", conn->hello.rank);
}

/* A neighbour has seen the process end; a child of it may still hold its connection. */
static void on_gone(cinch_server *server, const cinch_conn *conn) {
    uint32_t rank;
    memcpy(&rank, conn->body, sizeof rank);
    for (cinch_conn *at = server->conns; at; at = at->next)
        if (at->state == CINCH_CONN_SEAT && at != conn && at->hello.rank == le32toh(rank)) {
            at->state = CINCH_CONN_DEAD;
            cinch_rules_lost(server, at);
            return;
        }
}

/* What a rank fails of may be another one's end, which it has seen earlier than this thread: that
 * is the first cause then. */
static void look_for_ends(cinch_server *server, const cinch_conn *from) {
    char byte;
    for (cinch_conn *conn = server->conns; conn; conn = conn->next)
        if (conn != from && conn->state == CINCH_CONN_SEAT &&
            recv(conn->fd, &byte, sizeof byte, MSG_PEEK | MSG_DONTWAIT) == 0) {
            conn->state = CINCH_CONN_DEAD;
            cinch_rules_lost(server, conn);
            return;
        }
}

void cinch_rules_frame(cinch_server *server, cinch_conn *conn) {
    if (conn->state == CINCH_CONN_HELLO) {
        on_hello(server, conn);
    } else if (conn->head.type == CINCH_FRAME_ABORT) {
        look_for_ends(server, conn);
        fail_with(server, cinchRemoteError, "rank %u failed: %s", conn->hello.rank,
                  (const char *)conn->body);
    } else if (server->state != CINCH_FORMED) {
        conn->state = CINCH_CONN_DEAD; /* gathers or leaves before it was let in */
        cinch_rules_lost(server, conn);
    } else if (conn->head.type == CINCH_FRAME_GATHER) {
        on_part(server, conn);
    } else if (conn->head.type == CINCH_FRAME_ASK) {
        cinch_judge_ask(server, conn);
    } else if (conn->head.type == CINCH_FRAME_STANDING) {
        cinch_judge_standing(server, conn);
    } else if (conn->head.type == CINCH_FRAME_GONE) {
        on_gone(server, conn);
    } else {
        on_leave(server, conn);
    }
}

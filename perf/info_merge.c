/* SPDX-License-Identifier: Apache-2.0 */
/* Who is to blame: the ranks' reports of a communicator against each other, and the page of that.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "perf/info_reports.h"
#include "perf/json.h"

/* A shorter wait is a call under way, not one that hangs. */
enum { HANGS_MS = 1000, NAMED = 16, NUMBERS = 256, VERDICT = 700 };

/* The reports of one communicator, the newest of each rank. */
typedef struct group {
    const cinch_rank_report *first, **of; /* of[ranks]: NULL: there is none */
    int ranks, count;
    bool failed;
    const char *cause;
    int culprit[NAMED], culprits;
    char verdict[VERDICT];
} group;

/* ---- who ---- */

static void blame(group *g, int rank) {
    if (g->culprits < NAMED) g->culprit[g->culprits++] = rank;
}

/* The call of that number that the rank has made, or NULL. */
static const cinch_report_past *call_of(const cinch_rank_report *r, int64_t number) {
    for (int i = 0; i < r->calls; i++)
        if (!r->past[i].pairs && r->past[i].number == number) return &r->past[i];
    return NULL;
}

/* The first call that ranks made differently: its number, or -1. */
static int64_t first_difference(const group *g) {
    struct {
        int64_t number;
        const char *call;
    } seen[NUMBERS];
    int count = 0;
    int64_t least = -1;
    for (int q = 0; q < g->ranks; q++) {
        const cinch_rank_report *r = g->of[q];
        for (int i = 0; r && i < r->calls; i++) {
            const cinch_report_past *p = &r->past[i];
            int at = 0;
            if (p->pairs) continue;
            while (at < count && seen[at].number != p->number) at++;
            if (at == count && count < NUMBERS) {
                seen[count].number = p->number;
                seen[count++].call = p->call;
            } else if (at < count && strcmp(seen[at].call, p->call) != 0 &&
                       (least < 0 || p->number < least)) {
                least = p->number;
            }
        }
    }
    return least;
}

/* How many ranks made the call of that number as `call` says. */
static int votes(const group *g, int64_t number, const char *call) {
    int count = 0;
    for (int q = 0; q < g->ranks; q++) {
        const cinch_report_past *p = g->of[q] ? call_of(g->of[q], number) : NULL;
        count += p && !strcmp(p->call, call);
    }
    return count;
}

/* Those who did what fewer did; of two ranks, both. */
static bool find_mismatch(group *g) {
    const int64_t number = first_difference(g);
    const cinch_report_past *most = NULL;
    int best = 0, distinct = 0;
    if (number < 0) return false;
    for (int q = 0; q < g->ranks && distinct < NUMBERS; q++) {
        const cinch_report_past *p = g->of[q] ? call_of(g->of[q], number) : NULL;
        if (!p || (most && !strcmp(p->call, most->call))) continue;
        const int count = votes(g, number, p->call);
        distinct++;
        if (count > best) {
            best = count;
            most = p;
        }
    }
    const cinch_report_past *other = NULL;
    for (int q = 0; q < g->ranks; q++) {
        const cinch_report_past *p = g->of[q] ? call_of(g->of[q], number) : NULL;
        if (!p || !strcmp(p->call, most->call)) continue;
        if (!other) other = p;
        blame(g, q);
    }
    if (g->culprits == 0) return false;
    snprintf(g->verdict, sizeof g->verdict,
             "in collective call number %" PRId64 " rank %d called %s, and %d rank%s %s: the order "
             "of calls differs, or their arguments",
             number, g->culprit[0], other->call, best, best == 1 ? "" : "s", most->call);
    return true;
}

static bool waits(const group *g, int rank) {
    const cinch_rank_report *r = g->of[rank];
    return r && r->peer >= 0 && (r->failed || (r->inside && r->wait_ms >= HANGS_MS));
}

/* From a rank along those that each waits for: the one that waits for nobody, or that is behind in
 * a ring of waiting ones; -1: a ring of ranks that are in the same call. */
static int root_from(const group *g, int rank) {
    int steps = 0, last = rank;
    while (waits(g, last) && steps++ <= g->ranks) last = g->of[last]->peer;
    if (!waits(g, last)) return last;
    int behind = last;
    bool differ = false;
    for (int q = g->of[last]->peer; q != last; q = g->of[q]->peer) {
        differ |= g->of[q]->collectives != g->of[behind]->collectives;
        if (g->of[q]->collectives < g->of[behind]->collectives) behind = q;
    }
    return differ ? behind : -1;
}

static void describe_root(group *g, int root, int waiters) {
    const cinch_rank_report *r = g->of[root];
    char who[48];
    snprintf(who, sizeof who, "%d rank%s wait%s", waiters, waiters == 1 ? "" : "s",
             waiters == 1 ? "s" : "");
    if (!r)
        snprintf(g->verdict, sizeof g->verdict,
                 "%s for rank %d, which left no report: its process has ended, is stopped, or "
                 "cannot write",
                 who, root);
    else
        snprintf(g->verdict, sizeof g->verdict, "%s for rank %d, which %s", who, root, r->doing);
}

/* The wait-for graph: each rank waits for one other at most, so every path ends at a root or in a
 * ring. The root that most ranks come to is the culprit. */
static bool find_root(group *g) {
    int best = -1, rings = 0;
    int *waiters = g->ranks > 0 ? calloc((size_t)g->ranks, sizeof *waiters) : NULL;
    if (!waiters) return false;
    for (int q = 0; q < g->ranks; q++) {
        if (!waits(g, q)) continue;
        const int root = root_from(g, q);
        if (root < 0) {
            rings++;
            continue;
        }
        waiters[root]++;
        if (best < 0 || waiters[root] > waiters[best]) best = root;
    }
    if (best >= 0) {
        blame(g, best);
        describe_root(g, best, waiters[best]);
    } else if (rings) {
        snprintf(g->verdict, sizeof g->verdict,
                 "%d ranks wait for each other in the same call: no single one is to blame", rings);
    }
    free(waiters);
    return best >= 0 || rings;
}

/* "1,4-6", of those without a report. */
static int list_missing(const group *g, char *text, size_t room) {
    size_t used = 0;
    int missing = 0;
    text[0] = '\0';
    for (int q = 0; q < g->ranks; q++) {
        int last = q;
        if (g->of[q]) continue;
        while (last + 1 < g->ranks && !g->of[last + 1]) last++;
        missing += last - q + 1;
        if (used + 32 < room)
            used += (size_t)snprintf(text + used, room - used, last > q ? "%s%d-%d" : "%s%d",
                                     used ? "," : "", q, last);
        q = last;
    }
    return missing;
}

/* The rank that the cause names first, or -1. */
static int named_by(const group *g) {
    const char *at = g->cause ? strstr(g->cause, "rank ") : NULL;
    int rank = -1;
    return at && sscanf(at + 5, "%6d", &rank) == 1 && rank >= 0 && rank < g->ranks ? rank : -1;
}

static void judge(group *g) {
    char missing[128];
    const int lacking = list_missing(g, missing, sizeof missing);
    const int named = g->failed ? named_by(g) : -1;
    if (find_mismatch(g)) return;
    /* Who failed is known better than who waits, where it left nothing. */
    if (named >= 0 && !g->of[named]) {
        blame(g, named);
        snprintf(g->verdict, sizeof g->verdict, "rank %d left no report, and the cause names it",
                 named);
        return;
    }
    if (find_root(g)) return;
    if (g->failed && named >= 0) {
        blame(g, named);
        snprintf(g->verdict, sizeof g->verdict, "the cause names rank %d, which %s", named,
                 g->of[named]->doing);
    } else if (g->failed && lacking) {
        for (int q = 0; q < g->ranks; q++)
            if (!g->of[q]) blame(g, q);
        snprintf(g->verdict, sizeof g->verdict, "it failed, and rank%s %s left no report",
                 lacking > 1 ? "s" : "", missing);
    } else if (g->failed) {
        snprintf(g->verdict, sizeof g->verdict, "it failed, and no rank waits for another");
    } else {
        snprintf(g->verdict, sizeof g->verdict,
                 "no culprit: nothing has failed, and nobody waits "
                 "for long");
        if (lacking)
            snprintf(g->verdict + strlen(g->verdict), sizeof g->verdict - strlen(g->verdict),
                     "; of rank%s %s there is no report", lacking > 1 ? "s" : "", missing);
    }
}

/* ---- the page ---- */

static void print_text(FILE *file, const group *g) {
    char missing[128];
    const int lacking = list_missing(g, missing, sizeof missing);
    fprintf(file, "communicator %s%s%s: %d ranks, reports of %d%s%s\n", g->first->comm,
            g->first->name[0] ? " " : "", g->first->name, g->ranks, g->count,
            lacking ? ", none of " : "", missing);
    fprintf(file, "  %s", g->culprits ? "culprit: rank" : "verdict:");
    if (g->culprits > 1) putc('s', file);
    for (int i = 0; i < g->culprits; i++) fprintf(file, "%s %d", i ? "," : "", g->culprit[i]);
    fprintf(file, "%s %s\n", g->culprits ? ":" : "", g->verdict);
    if (g->cause) fprintf(file, "  cause: %s\n", g->cause);
    for (int q = 0; q < g->ranks; q++) {
        const cinch_rank_report *r = g->of[q];
        if (!r) continue;
        fprintf(file, "  rank %d (%s, pid %" PRId64 ", %" PRIu64 " bytes sent) %s", q, r->host,
                r->pid, r->wire_bytes, r->doing);
        if (r->peer >= 0 && (r->inside || r->failed))
            fprintf(file, "; waits for rank %d%s%s, %" PRId64 " ms", r->peer,
                    r->wait_for[0] ? ": " : "", r->wait_for, r->wait_ms);
        if (r->items_open) fprintf(file, ", %d items open", r->items_open);
        putc('\n', file);
    }
}

static void print_json(cinch_json *j, const group *g) {
    cinch_json_open(j, NULL, '{');
    cinch_json_text(j, "comm", g->first->comm);
    cinch_json_text(j, "name", g->first->name);
    cinch_json_count(j, "ranks", (uint64_t)g->ranks);
    cinch_json_bool(j, "failed", g->failed);
    cinch_json_text(j, "cause", g->cause);
    cinch_json_text(j, "verdict", g->verdict);
    cinch_json_open(j, "culprits", '[');
    for (int i = 0; i < g->culprits; i++) cinch_json_count(j, NULL, (uint64_t)g->culprit[i]);
    cinch_json_close(j, ']');
    cinch_json_open(j, "missing", '[');
    for (int q = 0; q < g->ranks; q++)
        if (!g->of[q]) cinch_json_count(j, NULL, (uint64_t)q);
    cinch_json_close(j, ']');
    cinch_json_open(j, "reports", '[');
    for (int q = 0; q < g->ranks; q++) {
        const cinch_rank_report *r = g->of[q];
        if (!r) continue;
        cinch_json_open(j, NULL, '{');
        cinch_json_count(j, "rank", (uint64_t)q);
        cinch_json_text(j, "host", r->host);
        cinch_json_count(j, "pid", (uint64_t)r->pid);
        cinch_json_text(j, "reason", r->reason);
        cinch_json_text(j, "doing", r->doing);
        cinch_json_bool(j, "inside", r->inside);
        cinch_json_count(j, "collectives", (uint64_t)r->collectives);
        if (r->peer >= 0)
            cinch_json_count(j, "waits_for", (uint64_t)r->peer);
        else
            cinch_json_null(j, "waits_for");
        cinch_json_count(j, "wait_ms", (uint64_t)r->wait_ms);
        cinch_json_count(j, "items_open", (uint64_t)r->items_open);
        cinch_json_count(j, "wire_bytes", r->wire_bytes);
        cinch_json_close(j, '}');
    }
    cinch_json_close(j, ']');
    cinch_json_close(j, '}');
}

/* Communicators together; of each, the newest report of a rank last. */
static int in_order(const void *left, const void *right) {
    const cinch_rank_report *a = left, *b = right;
    const int by_comm = strcmp(a->comm, b->comm);
    if (by_comm) return by_comm;
    if (a->ranks != b->ranks) return a->ranks < b->ranks ? -1 : 1;
    if (a->rank != b->rank) return a->rank < b->rank ? -1 : 1;
    return (a->time_ms > b->time_ms) - (a->time_ms < b->time_ms);
}

static bool gather(const cinch_rank_report *from, int count, group *g) {
    int64_t first_ms = INT64_MAX;
    *g = (group){.first = from, .ranks = from->ranks};
    g->of = g->ranks > 0 ? calloc((size_t)g->ranks, sizeof *g->of) : NULL;
    if (!g->of) return false;
    for (int i = 0; i < count; i++) {
        g->count += !g->of[from[i].rank];
        g->of[from[i].rank] = &from[i];
    }
    for (int q = 0; q < g->ranks; q++) {
        const cinch_rank_report *r = g->of[q];
        if (!r || !r->failed) continue;
        g->failed = true;
        if (r->cause[0] && r->time_ms < first_ms) { /* who failed first knows best */
            first_ms = r->time_ms;
            g->cause = r->cause;
        }
    }
    return true;
}

bool cinch_reports_page(FILE *file, cinch_reports *reports, bool json) {
    const cinch_rank_report *all = reports->report;
    cinch_json j;
    bool good = true;
    if (reports->count)
        qsort(reports->report, (size_t)reports->count, sizeof *reports->report, in_order);
    if (json) {
        cinch_json_begin(&j, file);
        cinch_json_count(&j, "reports", (uint64_t)reports->count);
        cinch_json_count(&j, "left_out", (uint64_t)reports->left_out);
        cinch_json_open(&j, "communicators", '[');
    }
    for (int i = 0, end; i < reports->count && good; i = end) {
        group g;
        for (end = i + 1; end < reports->count && !strcmp(all[end].comm, all[i].comm) &&
                          all[end].ranks == all[i].ranks;)
            end++;
        good = gather(&all[i], end - i, &g);
        if (!good) break;
        judge(&g);
        if (json)
            print_json(&j, &g);
        else
            print_text(file, &g);
        free(g.of);
    }
    if (!json) return good && fflush(file) == 0;
    cinch_json_close(&j, ']');
    return cinch_json_end(&j) && good;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Levels: hosts and sites told apart by CINCH_HOSTID and CINCH_SITEID. Schedules of any hosts and
 * sites are proven, with codecs at any level; some run over real links. */
#include <math.h>

#include "coll/algo/hier.h"
#include "coll/verify.h"
#include "tests/levels.h"
#include "tests/one_call.h"

enum { MOST = 40 };

/* ---- schedules ---- */

typedef struct places {
    uint16_t host[MOST], site[MOST];
    char text[MOST * 8];
} places;

/* Deals ranks to hosts and these to sites at random, each of both at least one; numbered as a
 * communicator has them, by their first ranks and first hosts. */
static void deal(uint64_t *state, cinch_call *call, places *p) {
    int size[MOST] = {0}, number[MOST], sites[MOST], used = 0;
    bool even = random64(state) % 4 == 0;
    memset(number, -1, sizeof number);
    for (int q = 0; q < call->nranks; q++) {
        bool dealt = q < call->hosts || even;
        p->host[q] =
            (uint16_t)(dealt ? q % call->hosts : (int)(random64(state) % (uint64_t)call->hosts));
    }
    for (int q = call->nranks - 1; q > 0; q--) {
        int other = (int)(random64(state) % (uint64_t)(q + 1));
        uint16_t kept = p->host[q];
        p->host[q] = p->host[other];
        p->host[other] = kept;
    }
    char *text = p->text;
    for (int q = 0; q < call->nranks; q++) {
        if (number[p->host[q]] < 0) number[p->host[q]] = used++;
        p->host[q] = (uint16_t)number[p->host[q]];
        size[p->host[q]]++;
        text += sprintf(text, "%d,", p->host[q]);
    }
    call->per_host = size[0];
    for (int h = 1; h < call->hosts; h++)
        if (size[h] != size[0]) call->per_host = 0;
    memset(sites, -1, sizeof sites);
    text += sprintf(text, " at ");
    for (int h = used = 0; h < call->hosts; h++) {
        bool last = call->hosts - h <= call->sites - used; /* each has to have one */
        int s = last ? MOST - 1 - h : (int)(random64(state) % (uint64_t)call->sites);
        if (s < call->sites && sites[s] < 0 && used == call->sites) s = 0;
        int *named = &sites[s];
        if (*named < 0) *named = used < call->sites ? used++ : 0;
        p->site[h] = (uint16_t)*named;
        text += sprintf(text, "%d,", *named);
    }
    call->sites = used;
    call->host = p->host;
    call->site = p->site;
}

static cinch_call any_call(uint64_t *state, int most, places *p) {
    cinch_call call = {.nranks = 3 + (int)(random64(state) % (uint64_t)(most - 2)),
                       .bytes = 1 << 20};
    call.hosts = 2 + (int)(random64(state) % (uint64_t)(call.nranks - 1));
    call.sites = 1 + (int)(random64(state) % (uint64_t)(call.hosts < 4 ? call.hosts : 4));
    call.root = (int)(random64(state) % (uint64_t)call.nranks);
    deal(state, &call, p);
    return call;
}

/* What an ENCODE leaves behind has a place of its own. */
static bool residuals_apart(const cinch_schedule *s) {
    for (int i = 0; i < s->nitems; i++)
        for (int j = 0; j < i; j++) {
            if (s->item[i].op != CINCH_DO_ENCODE || s->item[j].op != CINCH_DO_ENCODE) continue;
            const cinch_ref *a = &s->refs[s->item[i].ref + 1u], *b = &s->refs[s->item[j].ref + 1u];
            bool same_kind = (s->item[i].flags & CINCH_OWNER) == (s->item[j].flags & CINCH_OWNER);
            if (same_kind && a->block == b->block && a->part == b->part) return false;
        }
    return true;
}

/* Codecs: 0 none, 1 between, 2 at both levels, 3 inside alone. */
static void set_codecs(cinch_call *call, int codecs) {
    call->encoded = codecs != 0;
    call->inside = codecs >= 2 && call->nranks > call->hosts;
    call->exact_between = codecs == 3;
}

static void prove(const cinch_algo *algo, cinch_call *call, const char *text, int codecs) {
    static cinch_schedule schedule[MOST];
    char why[CINCH_ERROR_TEXT];
    for (int r = 0; r < call->nranks; r++) {
        ck_assert_int_eq(cinch_algo_build(algo, r, call, &schedule[r]), cinchSuccess);
        ck_assert_int_eq(schedule[r].parts, algo->parts(call));
        ck_assert_msg(residuals_apart(&schedule[r]), "%s: hosts %s: residuals of rank %d collide",
                      cinch_shape_of(algo->collective)->name, text, r);
    }
    for (int in_place = 0; in_place < 2; in_place++)
        ck_assert_msg(cinch_verify(schedule, call->nranks, in_place, why),
                      "%s: hosts %s codecs %d root %d%s: %s",
                      cinch_shape_of(algo->collective)->name, text, codecs, call->root,
                      in_place ? " in place" : "", why);
    for (int r = 0; r < call->nranks; r++) cinch_schedule_free(&schedule[r]);
}

START_TEST(schedules_of_any_sites_are_right) {
    uint64_t state = 23;
    int proven[4] = {0}, three = 0;
    for (int trial = 0; trial < 120; trial++) {
        places p;
        cinch_call call = any_call(&state, trial < 100 ? 12 : trial < 117 ? 20 : MOST, &p);
        three += call.sites > 1 && call.hosts > call.sites && call.nranks > call.hosts;
        for (int i = 0; cinch_algo_at(i); i++)
            for (int codecs = 0; codecs < 4; codecs++) {
                const cinch_algo *algo = cinch_algo_at(i);
                if (strcmp(algo->name, "hier") != 0) continue;
                call.collective = algo->collective;
                set_codecs(&call, codecs);
                if (codecs >= 2 && !call.inside) continue;
                if (algo->supports(&call)) continue;
                prove(algo, &call, p.text, codecs);
                proven[codecs]++;
            }
    }
    ck_assert_msg(three > 40 && proven[0] > 400 && proven[1] > 200 && proven[2] > 200 &&
                      proven[3] > 200,
                  "%d with three levels; proven %d %d %d %d", three, proven[0], proven[1],
                  proven[2], proven[3]);
}
END_TEST

/* What sites send to and receive from others, of a message or block of one element. */
static void count_crossings(const cinch_algo *algo, const cinch_call *call, double *sent,
                            double *received) {
    for (int s = 0; s < call->sites; s++) sent[s] = received[s] = 0;
    for (int r = 0; r < call->nranks; r++) {
        cinch_schedule s;
        ck_assert_int_eq(cinch_algo_build(algo, r, call, &s), cinchSuccess);
        for (int i = 0; i < s.nitems; i++) {
            int from = call->site[call->host[r]], to = call->site[call->host[s.item[i].peer]];
            if (s.item[i].op != CINCH_DO_SEND || from == to) continue;
            sent[from] += (double)s.refs[s.item[i].ref].parts / s.parts;
            received[to] += (double)s.refs[s.item[i].ref].parts / s.parts;
        }
        cinch_schedule_free(&s);
    }
}

/* What a site is to send and receive, whatever its hosts: of an all-reduce each of S sites
 * 2(S-1)/S; a block once by or to each other site; with a root the message once out of its site, or
 * into it, and among the other sites all but the part that each has from there. */
static void expected(const cinch_call *call, int site, double *send, double *receive) {
    double sites = call->sites, here = 0, others = sites > 1 ? (sites - 2) / (sites - 1) : 0;
    for (int q = 0; q < call->nranks; q++) here += call->site[call->host[q]] == site;
    bool home = call->site[call->host[call->root]] == site;
    *send = *receive = 2 * (sites - 1) / sites;
    if (call->collective == CINCH_ALLGATHER || call->collective == CINCH_REDUCESCATTER) {
        *send = here * (sites - 1);
        *receive = call->nranks - here;
    } else if (call->collective != CINCH_ALLREDUCE) {
        *send = home ? 1 : others;
        *receive = home ? 0 : 1 / (sites - 1) + others;
    }
    if (call->collective == CINCH_REDUCESCATTER || call->collective == CINCH_REDUCE) {
        double out = *receive;
        *receive = *send;
        *send = out;
    }
}

START_TEST(each_byte_crosses_between_sites_once) {
    static const cinch_algo *const algos[] = {&cinch_algo_hier, &cinch_algo_reducescatter_hier,
                                              &cinch_algo_allgather_hier,
                                              &cinch_algo_broadcast_hier, &cinch_algo_reduce_hier};
    uint64_t state = 29;
    int counted = 0;
    for (int trial = 0; trial < 400; trial++) {
        places p;
        cinch_call call = any_call(&state, 30, &p);
        double sent[MOST], received[MOST], send, receive;
        if (call.sites < 2 || cinch_algo_hier.supports(&call)) continue;
        const cinch_algo *algo = algos[counted++ % 5];
        call.collective = algo->collective;
        count_crossings(algo, &call, sent, received);
        for (int s = 0; s < call.sites; s++) {
            expected(&call, s, &send, &receive);
            ck_assert_msg(fabs(sent[s] - send) < 1e-9 && fabs(received[s] - receive) < 1e-9,
                          "%s hosts %s root %d: site %d sends %g of %g and receives %g of %g",
                          cinch_shape_of(algo->collective)->name, p.text, call.root, s, sent[s],
                          send, received[s], receive);
        }
    }
    ck_assert_int_gt(counted, 150);
}
END_TEST

/* ---- real runs ---- */

static void exact(seat *me) {
    static const cinch_collective served[] = {CINCH_ALLREDUCE, CINCH_REDUCESCATTER, CINCH_ALLGATHER,
                                              CINCH_BROADCAST, CINCH_REDUCE};
    uint64_t state = 7;
    for (int i = 0; i < 16; i++) {
        uint64_t dice = random64(&state);
        one_call c = {.collective = i % 4 ? CINCH_ALLREDUCE : served[1 + i / 4],
                      .root = (int)(dice >> 41 & 255) % me->nranks,
                      .dtype = (cinchDataType_t)(dice % cinchNumTypes),
                      .op = (int)((dice >> 8) % EXACT_OPS),
                      .count = 1 + (dice >> 16) % (i < 3 ? 30000 : 2000),
                      .seed = dice,
                      .in_place = dice >> 40 & 1};
        if (!one_call_run(me, &c)) return;
    }
}

START_TEST(exact_results) {
    for (int m = 0; m < MAPS; m++) {
        job *j = board((job){.hosts = maps[m][0], .sites = maps[m][1]});
        run(j, exact, m % 2 ? "CINCH_ALGO=hier CINCH_CHUNK=1K" : "CINCH_ALGO=hier");
    }
}
END_TEST

/* ---- sites ---- */

static void sites_are_known(seat *me) {
    const job *j = me->shared;
    CHECK(me, me->comm->sites == 2 && me->comm->hosts == 3);
    for (int h = 0; h < 3; h++)
        CHECK(me, me->comm->site[h] == (j->sites[h] == j->sites[0] ? 0 : 1));
    cinchComm_t half = NULL; /* a communicator of one site has one */
    int color = j->sites[j->hosts[me->rank] - 'A'] == j->sites[0];
    CHECK_OK(me, cinchCommSplit(me->comm, color, me->rank, &half, NULL));
    CHECK(me, half->hosts == (color ? 2 : 0) && half->sites <= 1);
    CHECK_OK(me, cinchCommDestroy(half));
}

START_TEST(sites_are_numbered_by_their_first_hosts) {
    run(board((job){.hosts = "AABBC", .sites = "uvu"}), sites_are_known, NULL);
}
END_TEST

static void chooses_levels(seat *me) {
    char json[512];
    size_t len = sizeof json;
    CHECK_OK(me, cinchCommDescribePlan(me->comm, "allreduce", 64 << 20, cinchFloat, json, &len));
    CHECK(me, strstr(json, "\"algo\":\"hier\""), "%s", json);
}

/* Hosts of one rank have a level between them where they are at sites. */
START_TEST(sites_choose_levels) {
    run(board((job){.hosts = "ABCD", .sites = "xxyy"}), chooses_levels, NULL);
    run(board((job){.hosts = "AABBCC", .sites = "xxy"}), chooses_levels, NULL);
}
END_TEST

static void torn(seat *me) {
    CHECK(me, me->init == cinchInvalidUsage, "%d", me->init);
    CHECK(me,
          strstr(me->why, "ranks 0 and 2 share a host, and name two sites") &&
              strstr(me->why, "CINCH_SITEID=here and there"),
          "%s", me->why);
}

static void tear(seat *me) {
    setenv("CINCH_HOSTID", me->rank == 1 ? "B" : "A", 1);
    setenv("CINCH_SITEID", me->rank == 2 ? "there" : "here", 1);
}

START_TEST(a_host_at_two_sites_is_refused) {
    ranks_run(&(ranks_case){.nranks = 3,
                            .processes = true,
                            .env_of = tear,
                            .body = torn,
                            .may_fail = true,
                            .logs = "share a host, and name two sites"});
}
END_TEST

int main(void) {
    const TTest *const tests[] = {schedules_of_any_sites_are_right,
                                  each_byte_crosses_between_sites_once,
                                  exact_results,
                                  sites_are_numbered_by_their_first_hosts,
                                  sites_choose_levels,
                                  a_host_at_two_sites_is_refused};
    return run_tests("levels", tests, sizeof tests / sizeof *tests, 120);
}

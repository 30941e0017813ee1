/* SPDX-License-Identifier: Apache-2.0 */
/* Hierarchical collectives: hosts told apart by CINCH_HOSTID, exact inside, with a codec between.
 * Schedules of any hosts are proven, some run over real links. */
#include "coll/algo.h"
#include "coll/comm.h"
#include "coll/verify.h"
#include "tests/lossy.h"
#include "tests/one_call.h"

typedef struct job {
    int hosts, per_host;
    bool interleaved; /* ranks of a host are not neighbours */
    int nranks;       /* 0: hosts * per_host; else host h has ranks while there are any */
    const char *codec;
    cinch_collective collective;
    cinchDataType_t dtype;
    size_t count;
    /* results */
    double error[MOST_RANKS];
    uint64_t hash[MOST_RANKS], again[MOST_RANKS], wire_bytes[MOST_RANKS];
} job;

static job *board(job j) {
    static job *shared;
    if (!shared) shared = shared_memory(sizeof *shared);
    *shared = j;
    return shared;
}

/* Sizes of hosts that differ: rank 0 and 1 on host 0, then in turn, the more the larger. */
static int uneven_host(int rank, int hosts) {
    return rank < 2 ? 0 : (rank * rank / 3) % hosts;
}

static void host_of(seat *me) {
    const job *j = me->shared;
    char name[16];
    snprintf(name, sizeof name, "h%d",
             j->nranks        ? uneven_host(me->rank, j->hosts)
             : j->interleaved ? me->rank % j->hosts
                              : me->rank / j->per_host);
    setenv("CINCH_HOSTID", name, 1);
}

static void run(job *j, void (*body)(seat *me), const char *env) {
    ranks_run(&(ranks_case){.nranks = j->nranks ? j->nranks : j->hosts * j->per_host,
                            .processes = true,
                            .env = env,
                            .env_of = host_of,
                            .body = body,
                            .shared = j});
}

static const int shapes[][2] = {{2, 2}, {3, 2}, {2, 3}, {2, 4}};

/* ---- schedules ---- */

enum { MOST = 40 };

/* What an ENCODE of this rank's input or sum leaves behind has a place of its own. */
static bool residuals_apart(const cinch_schedule *s) {
    for (int i = 0; i < s->nitems; i++)
        for (int j = 0; j < i; j++) {
            if (s->item[i].op != CINCH_DO_ENCODE || s->item[j].op != CINCH_DO_ENCODE) continue;
            const cinch_ref *a = &s->refs[s->item[i].ref + 1u], *b = &s->refs[s->item[j].ref + 1u];
            bool same_kind = s->item[i].flags == s->item[j].flags;
            if (same_kind && a->block == b->block && a->part == b->part) return false;
        }
    return true;
}

static void prove(const cinch_algo *algo, cinch_call *call, const char *hosts) {
    static cinch_schedule schedule[MOST];
    char why[CINCH_ERROR_TEXT];
    for (int r = 0; r < call->nranks; r++) {
        ck_assert_int_eq(cinch_algo_build(algo, r, call, &schedule[r]), cinchSuccess);
        ck_assert_int_eq(schedule[r].parts, algo->parts(call));
        ck_assert_msg(residuals_apart(&schedule[r]), "%s: hosts %s: residuals of rank %d collide",
                      cinch_shape_of(algo->collective)->name, hosts, r);
    }
    for (int in_place = 0; in_place < 2; in_place++)
        ck_assert_msg(cinch_verify(schedule, call->nranks, in_place, why),
                      "%s: hosts %s root %d%s%s: %s", cinch_shape_of(algo->collective)->name, hosts,
                      call->root, call->encoded ? " encoded" : "", in_place ? " in place" : "",
                      why);
    for (int r = 0; r < call->nranks; r++) cinch_schedule_free(&schedule[r]);
}

/* Deals ranks to hosts at random, each host at least one; their numbers are in the order of their
 * first ranks, as a communicator has them. */
static void deal(uint64_t *state, cinch_call *call, uint16_t *host, char *text) {
    int size[MOST] = {0}, number[MOST], used = 0;
    bool even = random64(state) % 4 == 0;
    memset(number, -1, sizeof number);
    for (int q = 0; q < call->nranks; q++) {
        int h = q < call->hosts ? q : (int)(random64(state) % (uint64_t)call->hosts);
        if (even) h = q % call->hosts;
        host[q] = (uint16_t)h;
    }
    for (int q = call->nranks - 1; q > 0; q--) {
        int other = (int)(random64(state) % (uint64_t)(q + 1));
        uint16_t kept = host[q];
        host[q] = host[other];
        host[other] = kept;
    }
    for (int q = 0; q < call->nranks; q++) {
        if (number[host[q]] < 0) number[host[q]] = used++;
        host[q] = (uint16_t)number[host[q]];
        size[host[q]]++;
        text += sprintf(text, "%d,", host[q]);
    }
    call->host = host;
    call->per_host = size[0];
    for (int h = 1; h < call->hosts; h++)
        if (size[h] != size[0]) call->per_host = 0;
}

START_TEST(schedules_of_any_hosts_are_right) {
    uint64_t state = 11;
    int proven = 0;
    for (int trial = 0; trial < 260; trial++) {
        uint16_t host[MOST];
        char text[MOST * 4];
        int most = trial < 200 ? 12 : trial < 250 ? 20 : MOST;
        cinch_call call = {.nranks = 3 + (int)(random64(&state) % (uint64_t)(most - 2)),
                           .bytes = 1 << 20};
        call.hosts = 2 + (int)(random64(&state) % (uint64_t)(call.nranks - 2));
        call.root = (int)(random64(&state) % (uint64_t)call.nranks);
        deal(&state, &call, host, text);
        for (int i = 0; cinch_algo_at(i); i++)
            for (int encoded = 0; encoded < 2; encoded++) {
                const cinch_algo *algo = cinch_algo_at(i);
                if (strcmp(algo->name, "hier") != 0) continue;
                call.collective = algo->collective;
                call.encoded = encoded;
                if (algo->supports(&call)) continue;
                prove(algo, &call, text);
                proven++;
            }
    }
    ck_assert_int_eq(proven, 260 * 8); /* three rows of five take a codec */
}
END_TEST

/* What a host sends to others or receives from them at most, of a message or block of one element;
 * where hosts are alike, its ranks have as much of that each. */
static double crossing(const cinch_algo *algo, const cinch_call *call) {
    double sent[MOST] = {0}, received[MOST] = {0}, by_rank[MOST] = {0}, most = 0;
    for (int r = 0; r < call->nranks; r++) {
        cinch_schedule s;
        ck_assert_int_eq(cinch_algo_build(algo, r, call, &s), cinchSuccess);
        for (int i = 0; i < s.nitems; i++) {
            const cinch_ref *ref = &s.refs[s.item[i].ref];
            int from = call->host[r], to = call->host[s.item[i].peer];
            if (s.item[i].op != CINCH_DO_SEND || from == to) continue;
            by_rank[r] += (double)ref->parts / s.parts;
            sent[from] += (double)ref->parts / s.parts;
            received[to] += (double)ref->parts / s.parts;
        }
        cinch_schedule_free(&s);
    }
    for (int r = 0; r < call->nranks && call->per_host; r++)
        ck_assert_msg(fabs(by_rank[r] * call->per_host - sent[call->host[r]]) < 1e-9,
                      "%s: rank %d sends %g of %g", cinch_shape_of(algo->collective)->name, r,
                      by_rank[r], sent[call->host[r]]);
    for (int h = 0; h < call->hosts; h++) {
        if (sent[h] > most) most = sent[h];
        if (received[h] > most) most = received[h];
    }
    return most;
}

START_TEST(each_byte_crosses_once) {
    uint64_t state = 17;
    for (int trial = 0; trial < 200; trial++) {
        uint16_t host[MOST];
        char text[MOST * 4];
        cinch_call call = {.nranks = 3 + (int)(random64(&state) % 30), .bytes = 1};
        call.hosts = 2 + (int)(random64(&state) % (uint64_t)(call.nranks - 2));
        call.root = (int)(random64(&state) % (uint64_t)call.nranks);
        deal(&state, &call, host, text);
        double h = call.hosts, least = call.nranks, largest = 0;
        for (int i = 0; i < call.hosts; i++) {
            int size = 0;
            for (int q = 0; q < call.nranks; q++) size += host[q] == i;
            if (size < least) least = size;
            if (size > largest) largest = size;
        }
        /* A host takes in, or gives out, a sum for each block and pair of hosts. */
        double others = call.nranks - least, here = (h - 1) * largest;
        for (int i = 0; cinch_algo_at(i); i++) {
            const cinch_algo *algo = cinch_algo_at(i);
            if (strcmp(algo->name, "hier") != 0) continue;
            call.collective = algo->collective;
            double want = algo->collective == CINCH_ALLREDUCE ? 2 * (h - 1) / h
                          : cinch_shape_rooted(cinch_shape_of(algo->collective))
                              ? 1
                              : (others > here ? others : here);
            double got = crossing(algo, &call);
            ck_assert_msg(fabs(got - want) < 1e-9, "%s hosts %s root %d: %g in place of %g",
                          cinch_shape_of(algo->collective)->name, text, call.root, got, want);
        }
    }
}
END_TEST

/* ---- exact ---- */

static const cinch_collective served[] = {CINCH_ALLREDUCE, CINCH_REDUCESCATTER, CINCH_ALLGATHER,
                                          CINCH_BROADCAST, CINCH_REDUCE};

static void exact(seat *me) {
    uint64_t state = 7;
    for (int i = 0; i < 20; i++) {
        uint64_t dice = random64(&state);
        one_call c = {.collective = served[i % 5],
                      .root = (int)(dice >> 41 & 255) % me->nranks,
                      .dtype = (cinchDataType_t)(dice % cinchNumTypes),
                      .op = (int)((dice >> 8) % EXACT_OPS),
                      .count = 1 + (dice >> 16) % (i < 5 && me->nranks == 4 ? 100000 : 4000),
                      .seed = dice,
                      .in_place = dice >> 40 & 1};
        if (!one_call_run(me, &c)) return;
    }
}

START_TEST(exact_results) {
    for (int s = 0; s < 4; s++)
        for (int interleaved = 0; interleaved < 2; interleaved++) {
            job *j = board((job){.hosts = shapes[s][0], .per_host = shapes[s][1]});
            j->interleaved = interleaved;
            run(j, exact, interleaved ? "CINCH_ALGO=hier" : "CINCH_ALGO=hier CINCH_CHUNK=1K");
        }
    for (int n = 3; n < 8; n++) {
        job *j = board((job){.hosts = n < 5 ? 2 : 3, .nranks = n});
        run(j, exact, n % 2 ? "CINCH_ALGO=hier" : "CINCH_ALGO=hier CINCH_CHUNK=1K");
    }
}
END_TEST

/* ---- what is chosen ---- */

static void plans(seat *me) {
    const job *j = me->shared;
    char json[512];
    CHECK(me, me->comm->hosts == j->hosts && me->comm->per_host == j->per_host);
    for (int i = 0; i < 3; i++) {
        const char *op = cinch_shape_of(served[i])->name;
        size_t len = sizeof json;
        CHECK_OK(me, cinchCommDescribePlan(me->comm, op, 64 << 20, cinchFloat, json, &len));
        CHECK(me, strstr(json, "\"algo\":\"hier\""), "%s", json);
    }
    float x = 1;
    CHECK_OK(me, cinchAllReduce(&x, &x, 1, cinchFloat, cinchSum, me->comm, NULL));
    CHECK(me, x == (float)me->nranks);
}

START_TEST(large_messages_choose_it) {
    job *j = board((job){.hosts = 2, .per_host = 2});
    run(j, plans, NULL);
    run(j, plans, "CINCH_CODEC=int8"); /* a host's inside stays exact */
}
END_TEST

static void apart(seat *me) {
    float x = 1;
    CHECK_FAILS(me, cinchAllReduce(&x, &x, 1, cinchFloat, cinchSum, me->comm, NULL),
                cinchInvalidUsage, NULL, "one of them with two ranks or more");
}

START_TEST(hosts_of_one_rank_are_refused) {
    job *j = board((job){.hosts = 3, .per_host = 1});
    ranks_run(&(ranks_case){.nranks = 3,
                            .processes = true,
                            .env = "CINCH_ALGO=hier",
                            .env_of = host_of,
                            .body = apart,
                            .shared = j,
                            .logs = "one of them with two ranks or more"});
}
END_TEST

/* ---- with a codec between hosts ---- */

static uint64_t one_result(seat *me, const job *j, void *out) {
    size_t bytes = j->count * cinch_dtype_size(j->dtype);
    void *in = malloc(bytes);
    float *floats = malloc(j->count * sizeof *floats);
    gauss_fill(in, floats, j->dtype, 1, me->rank, j->count);
    cinchResult_t result = cinchAllReduce(in, out, j->count, j->dtype, cinchAvg, me->comm, NULL);
    free(in);
    free(floats);
    return result == cinchSuccess ? hash_bytes(1, out, bytes) : 0;
}

static void compressed(seat *me) {
    job *j = me->shared;
    void *out = malloc(j->count * cinch_dtype_size(j->dtype));
    float *floats = malloc(j->count * sizeof *floats);
    double *want = malloc(j->count * sizeof *want);
    cinchStats_t stats = {.size = sizeof stats};
    j->hash[me->rank] = one_result(me, j, out);
    cinch_widen(floats, out, j->dtype, j->count);
    gauss_sum(want, j->dtype, 1, me->nranks, j->count, 1.0 / me->nranks);
    j->error[me->rank] = relative_error(floats, want, j->count);
    CHECK_OK(me, cinchCommGetStats(me->comm, &stats));
    CHECK(me, stats.compressed_calls == 1 && stats.nonfinite == 0);
    uint64_t over_tcp = 0;
    for (int q = 0; q < me->nranks; q++) {
        const cinch_link *link = me->comm->net->link[q];
        if (link && strcmp(link->ops->name, "tcp") == 0) over_tcp += link->wire_bytes;
    }
    j->wire_bytes[me->rank] = over_tcp;
    CHECK_OK(me, cinchCommSetCodec(me->comm, NULL));
    j->again[me->rank] = one_result(me, j, out);
    free(out);
    free(floats);
    free(want);
}

START_TEST(a_codec_between_hosts) {
    static const char *const codecs[] = {"int8", "bf16", "topk:ratio=0.3,ef=0",
                                         "topk:ratio=0.3,select=global,ef=0"};
    static const cinchDataType_t types[] = {cinchFloat, cinchBfloat16, cinchFloat, cinchHalf};
    static const double most_error[] = {0.0075, 0.004, 1, 1};
    for (int s = 0; s < 4; s++)
        for (int c = 0; c < 4; c++) {
            char env[128];
            job *j = board((job){.hosts = shapes[s][0],
                                 .per_host = shapes[s][1],
                                 .interleaved = (s + c) % 2,
                                 .dtype = types[c],
                                 .count = s == 0 ? 400000 : 70001});
            snprintf(env, sizeof env, "CINCH_CODEC=%s CINCH_CODEC_MIN_BYTES=1K", codecs[c]);
            run(j, compressed, env);
            double bound = most_error[c] * (j->hosts == 2 ? 1 : 1.45); /* one or two roundings */
            double full = 2.0 * (j->hosts - 1) / j->hosts / j->per_host *
                          (double)(j->count * cinch_dtype_size(j->dtype));
            for (int r = 0; r < j->hosts * j->per_host; r++) {
                ck_assert_msg(j->hash[r] && j->hash[r] == j->hash[0], "%s rank %d", env, r);
                ck_assert_msg(j->again[r] == j->hash[r], "%s rank %d, again", env, r);
                ck_assert_msg(j->error[r] > 0 && j->error[r] <= bound, "%s hosts %d: error %g", env,
                              j->hosts, j->error[r]);
                if (c == 0 && s == 0)
                    ck_assert_msg((double)j->wire_bytes[r] <= 0.256 * full, "%g of the exact bytes",
                                  (double)j->wire_bytes[r] / full);
            }
        }
}
END_TEST

/* Reduce-scatter and all-gather with a codec: every rank's result is near, and what several ranks
 * get of the same block is the same. */
static void compressed_blocks(seat *me) {
    job *j = me->shared;
    size_t n = (size_t)me->nranks, blocks = j->collective == CINCH_REDUCESCATTER ? 1 : n;
    size_t esize = cinch_dtype_size(j->dtype), in_count = j->count * (blocks == 1 ? n : 1);
    void *in = malloc(in_count * esize), *out = malloc(j->count * blocks * esize);
    float *floats = malloc((in_count > j->count * blocks ? in_count : j->count * blocks) * 4);
    double *want = malloc(in_count * n * sizeof *want);
    gauss_fill(in, floats, j->dtype, 1, me->rank, in_count);
    if (blocks == 1) {
        CHECK_OK(me, cinchReduceScatter(in, out, j->count, j->dtype, cinchSum, me->comm, NULL));
        gauss_sum(want, j->dtype, 1, me->nranks, in_count, 1);
        memmove(want, want + (size_t)me->rank * j->count, j->count * sizeof *want);
    } else {
        CHECK_OK(me, cinchAllGather(in, out, j->count, j->dtype, me->comm, NULL));
        for (int q = 0; q < me->nranks; q++) {
            gauss_fill(in, floats, j->dtype, 1, q, j->count);
            for (size_t i = 0; i < j->count; i++) want[(size_t)q * j->count + i] = floats[i];
        }
    }
    cinch_widen(floats, out, j->dtype, j->count * blocks);
    j->error[me->rank] = relative_error(floats, want, j->count * blocks);
    j->hash[me->rank] = blocks == 1 ? 1 : hash_bytes(1, out, j->count * blocks * esize);
    cinchStats_t stats = {.size = sizeof stats};
    CHECK_OK(me, cinchCommGetStats(me->comm, &stats));
    CHECK(me, stats.compressed_calls == 1);
    free(in);
    free(out);
    free(floats);
    free(want);
}

START_TEST(blocks_with_a_codec_between_hosts) {
    for (int i = 0; i < 12; i++) {
        bool even = i % 3 != 2;
        job *j = board((job){.hosts = i % 3 ? 2 : 3,
                             .per_host = 2,
                             .interleaved = i / 3 % 2,
                             .nranks = even ? 0 : 5,
                             .collective = i < 6 ? CINCH_REDUCESCATTER : CINCH_ALLGATHER,
                             .dtype = i % 2 ? cinchFloat : cinchHalf,
                             .count = 30011});
        run(j, compressed_blocks,
            "CINCH_ALGO=hier CINCH_CODEC=int8 CINCH_CODEC_OPS=reducescatter,allgather "
            "CINCH_CODEC_MIN_BYTES=1K");
        int n = j->nranks ? j->nranks : j->hosts * j->per_host;
        for (int r = 0; r < n; r++) {
            ck_assert_msg(j->hash[r] && j->hash[r] == j->hash[0], "case %d rank %d", i, r);
            ck_assert_msg(j->error[r] > 0 && j->error[r] < 0.0085, "case %d rank %d: error %g", i,
                          r, j->error[r]);
        }
    }
}
END_TEST

/* With error feedback the mean of many results nears the exact sum, which it does only where every
 * block that a rank drives has residuals of its own. */
static void mean_of_many(seat *me) {
    enum { COUNT = 5000, CALLS = 24 };
    job *j = me->shared;
    size_t in_count = (size_t)COUNT * (size_t)me->nranks;
    float *in = malloc(in_count * sizeof *in), *out = malloc(COUNT * sizeof *out);
    double *mean = calloc(COUNT, sizeof *mean), *want = malloc(in_count * sizeof *want);
    gauss_fill(in, in, cinchFloat, 1, me->rank, in_count);
    gauss_sum(want, cinchFloat, 1, me->nranks, in_count, 1);
    CHECK_OK(me, cinchCommTag(me->comm, in, in_count * sizeof *in, 7));
    for (int c = 0; c < CALLS; c++) {
        CHECK_OK(me, cinchReduceScatter(in, out, COUNT, cinchFloat, cinchSum, me->comm, NULL));
        if (c == 0)
            j->wire_bytes[me->rank] =
                (uint64_t)(1e9 * relative_error(out, want + (size_t)me->rank * COUNT, COUNT));
        for (int i = 0; i < COUNT; i++) mean[i] += out[i] / (double)CALLS;
    }
    for (int i = 0; i < COUNT; i++) out[i] = (float)mean[i];
    j->error[me->rank] = relative_error(out, want + (size_t)me->rank * COUNT, COUNT);
    free(in);
    free(out);
    free(mean);
    free(want);
}

START_TEST(residuals_of_blocks_are_kept_apart) {
    job *j = board((job){.hosts = 3, .per_host = 2});
    run(j, mean_of_many, "CINCH_ALGO=hier CINCH_CODEC=int8:ef=1 CINCH_CODEC_MIN_BYTES=1K");
    for (int r = 0; r < 6; r++) {
        double first = (double)j->wire_bytes[r] / 1e9;
        ck_assert_msg(first > 1e-4 && j->error[r] < first / 10, "rank %d: %g after %g", r,
                      j->error[r], first);
    }
}
END_TEST

int main(void) {
    const TTest *const tests[] = {schedules_of_any_hosts_are_right,
                                  each_byte_crosses_once,
                                  exact_results,
                                  large_messages_choose_it,
                                  hosts_of_one_rank_are_refused,
                                  a_codec_between_hosts,
                                  blocks_with_a_codec_between_hosts,
                                  residuals_of_blocks_are_kept_apart};
    return run_tests("hier", tests, sizeof tests / sizeof *tests, 120);
}

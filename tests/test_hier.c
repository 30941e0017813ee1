/* SPDX-License-Identifier: Apache-2.0 */
/* Hierarchical all-reduce: hosts told apart by CINCH_HOSTID, exact inside, with a codec between. */
#include "coll/comm.h"
#include "tests/lossy.h"
#include "tests/one_call.h"

typedef struct job {
    int hosts, per_host;
    bool interleaved; /* ranks of a host are not neighbours */
    const char *codec;
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

static void host_of(seat *me) {
    const job *j = me->shared;
    char name[16];
    snprintf(name, sizeof name, "h%d",
             j->interleaved ? me->rank % j->hosts : me->rank / j->per_host);
    setenv("CINCH_HOSTID", name, 1);
}

static void run(job *j, void (*body)(seat *me), const char *env) {
    ranks_run(&(ranks_case){.nranks = j->hosts * j->per_host,
                            .processes = true,
                            .env = env,
                            .env_of = host_of,
                            .body = body,
                            .shared = j});
}

static const int shapes[][2] = {{2, 2}, {3, 2}, {2, 3}, {2, 4}};

/* ---- exact ---- */

static void exact(seat *me) {
    uint64_t state = 7;
    for (int i = 0; i < 12; i++) {
        uint64_t dice = random64(&state);
        one_call c = {.dtype = (cinchDataType_t)(dice % cinchNumTypes),
                      .op = (int)((dice >> 8) % EXACT_OPS),
                      .count = 1 + (dice >> 16) % (i % 3 ? 9000 : 300000),
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
}
END_TEST

/* ---- what is chosen ---- */

static void plans(seat *me) {
    const job *j = me->shared;
    char json[512];
    size_t len = sizeof json;
    CHECK(me, me->comm->hosts == j->hosts && me->comm->per_host == j->per_host);
    CHECK_OK(me, cinchCommDescribePlan(me->comm, "allreduce", 64 << 20, cinchFloat, json, &len));
    CHECK(me, strstr(json, "\"algo\":\"hier\""), "%s", json);
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

static void uneven(seat *me) {
    float x = 1;
    CHECK_FAILS(me, cinchAllReduce(&x, &x, 1, cinchFloat, cinchSum, me->comm, NULL),
                cinchInvalidUsage, NULL, "as many on all");
}

START_TEST(uneven_hosts_are_refused) {
    job *j = board((job){.hosts = 2, .per_host = 2});
    ranks_run(&(ranks_case){.nranks = 3,
                            .processes = true,
                            .env = "CINCH_ALGO=hier",
                            .env_of = host_of,
                            .body = uneven,
                            .shared = j,
                            .logs = "as many on all"});
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

int main(void) {
    const TTest *const tests[] = {exact_results, large_messages_choose_it, uneven_hosts_are_refused,
                                  a_codec_between_hosts};
    return run_tests("hier", tests, sizeof tests / sizeof *tests, 120);
}

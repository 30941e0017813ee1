/* SPDX-License-Identifier: Apache-2.0 */
/* Compressed all-reduces: the same bits on all ranks and again, errors and wire bytes as promised,
 * NaN and Inf, and random rounding. */
#include "tests/lossy.h"

typedef struct work {
    const char *codec;
    cinchDataType_t dtype;
    cinchRedOp_t op;
    size_t count;
    int calls;
    bool in_place;
    /* results */
    double most_error, wire_ratio; /* of the last call; against 2(n-1)/n of the message */
    uint64_t hash[MOST_RANKS];
    uint64_t nonfinite[MOST_RANKS];
} work;

static void run_work(seat *me) {
    work *w = me->shared;
    size_t bytes = w->count * cinch_dtype_size(w->dtype);
    void *in = malloc(bytes), *out = malloc(bytes);
    float *floats = malloc(w->count * sizeof *floats);
    cinchStats_t before = {.size = sizeof before}, after = {.size = sizeof after};
    uint64_t hash = 7;
    CHECK_OK(me, cinchCommSetCodec(me->comm, w->codec));
    for (int k = 0; k < w->calls; k++) {
        gauss_fill(in, floats, w->dtype, (uint64_t)k + 1, me->rank, w->count);
        uint64_t given = hash_bytes(0, in, bytes);
        if (w->in_place) memcpy(out, in, bytes);
        CHECK_OK(me, cinchCommGetStats(me->comm, &before));
        CHECK_OK(me, cinchAllReduce(w->in_place ? out : in, out, w->count, w->dtype, w->op,
                                    me->comm, NULL));
        CHECK_OK(me, cinchCommGetStats(me->comm, &after));
        CHECK(me, hash_bytes(0, in, bytes) == given, "sendbuff was changed");
        CHECK(me, after.compressed_calls == before.compressed_calls + 1);
        hash = hash_bytes(hash, out, bytes);
    }
    w->hash[me->rank] = hash;
    if (me->rank == 0) {
        double *sum = malloc(w->count * sizeof *sum);
        double factor = w->op == cinchAvg ? 1.0 / me->nranks : 1;
        gauss_sum(sum, w->dtype, (uint64_t)w->calls, me->nranks, w->count, factor);
        cinch_widen(floats, out, w->dtype, w->count);
        w->most_error = relative_error(floats, sum, w->count);
        w->wire_ratio = (double)(after.wire_bytes - before.wire_bytes) /
                        (2.0 * (me->nranks - 1) / me->nranks * (double)bytes);
        free(sum);
    }
    CHECK(me, after.nonfinite == 0 && after.codec_us > 0 && after.comm_us >= after.codec_us);
    free(in);
    free(out);
    free(floats);
}

static work run(work w, int n, const char *env) {
    char all[300];
    uint64_t hash = 0;
    snprintf(all, sizeof all, "CINCH_CODEC_MIN_BYTES=16 %s", env);
    for (int again = 0; again < 2; again++) { /* from a fresh state the bits are the same */
        ranks_run(&(ranks_case){.nranks = n, .env = all, .body = run_work, .shared = &w});
        if (!again) hash = w.hash[0];
        for (int r = 0; r < n; r++)
            ck_assert_msg(w.hash[r] == hash, "%s n=%d %s count %zu: rank %d%s", w.codec, n,
                          cinch_dtype_name(w.dtype), w.count, r, again ? ", second run" : "");
    }
    return w;
}

/* ---- identity, for many sizes ---- */

static const char *const codecs[] = {"int8",          "bf16",
                                     "topk",          "int8:ef=1",
                                     "int8:block=32", "int8:round=stochastic,seed=3",
                                     "topk:ef=0",     "topk:ratio=0.05,select=global"};
enum { CODECS = sizeof codecs / sizeof *codecs };

START_TEST(same_bits_on_all_ranks_and_again) {
    static const size_t counts[] = {8, 255, 257, 1000, 4096, 12345, 70001};
    static const cinchDataType_t types[] = {cinchFloat32, cinchHalf, cinchBfloat16};
    static const int jobs[] = {2, 3, 4, 7};
    int turn = 0;
    for (int c = 0; c < CODECS; c++)
        for (int j = 0; j < 4; j++, turn++)
            run((work){.codec = codecs[c],
                       .dtype = types[turn % 3],
                       .op = turn % 4 ? cinchSum : cinchAvg,
                       .count = counts[turn % 7],
                       .calls = 3,
                       .in_place = turn & 1},
                jobs[j],
                turn % 3 == 0   ? "CINCH_TRANSPORT=tcp"
                : turn % 3 == 1 ? "CINCH_CHUNK=1K"
                                : "");
}
END_TEST

/* ---- error and bytes ---- */

static void bounds(const char *codec, cinchDataType_t t, int n, double error, double ratio,
                   const char *env) {
    size_t count = ((size_t)4 << 20) / cinch_dtype_size(t);
    if (n == 4 && strcmp(codec, "topk") != 0) count /= 4;
    work w = {.codec = codec, .dtype = t, .op = cinchSum, .count = count, .calls = 1};
    char all[100];
    snprintf(all, sizeof all, "CINCH_CODEC_MIN_BYTES=16 %s", env);
    ranks_run(&(ranks_case){.nranks = n, .env = all, .body = run_work, .shared = &w});
    ck_assert_msg(w.most_error <= error, "%s n=%d %s: error %g", codec, n, cinch_dtype_name(t),
                  w.most_error);
    ck_assert_msg(w.wire_ratio <= ratio, "%s n=%d %s %s: %g of the exact bytes", codec, n,
                  cinch_dtype_name(t), env, w.wire_ratio);
}

START_TEST(errors_and_wire_bytes) {
    for (int n = 2; n <= 4; n++) {
        bounds("int8", cinchFloat32, n, n == 2 ? 0.0075 : 0.011, 0.256, "");
        bounds("int8", cinchFloat32, n, n == 2 ? 0.0075 : 0.011, 0.256, "CINCH_TRANSPORT=tcp");
        bounds("bf16", cinchFloat32, n, 0.0025, 0.502, "");
    }
    bounds("int8", cinchFloat32, 2, 0.011, 0.256, "CINCH_ALGO=twostep");
    bounds("int8", cinchBfloat16, 3, 0.0115, 0.512, "");
    bounds("int8", cinchHalf, 4, 0.0115, 0.512, "CINCH_TRANSPORT=tcp");
    bounds("topk", cinchFloat32, 4, 1, 0.05, "");
    bounds("topk", cinchFloat32, 4, 1, 0.05, "CINCH_TRANSPORT=tcp");
    bounds("topk:select=global", cinchFloat32, 4, 1, 0.05, "");
}
END_TEST

/* ---- NaN and Inf ---- */

enum { BLOCK = 256, BLOCKS = 12 };

static void with_nonfinite(seat *me) {
    enum { COUNT = BLOCK * BLOCKS + 100 };
    const char *codec = me->shared;
    bool whole_block = strncmp(codec, "int8", 4) == 0;
    float *in = malloc(COUNT * sizeof *in), *out = malloc(COUNT * sizeof *out);
    double *want = malloc(COUNT * sizeof *want);
    CHECK_OK(me, cinchCommSetCodec(me->comm, codec));
    for (int k = 0; k < 3; k++) {
        bool bad[BLOCKS + 1] = {false};
        bool bad_at[COUNT] = {false};
        gauss_fill(in, in, cinchFloat32, (uint64_t)k, me->rank, COUNT);
        gauss_sum(want, cinchFloat32, (uint64_t)k, me->nranks, COUNT, 1);
        for (int r = 0; r < me->nranks;
             r++) { /* two bad elements of each rank, one in its own part */
            size_t at[2] = {(size_t)((r * 5 + k) % BLOCKS * BLOCK + 17),
                            COUNT - 1 - (size_t)r * 300};
            for (int i = 0; i < 2 && (k || r == 1); i++) {
                bad[at[i] / BLOCK] = bad_at[at[i]] = true;
                if (r == me->rank) in[at[i]] = i ? -INFINITY : k == 1 ? NAN : INFINITY;
            }
        }
        CHECK_OK(me, cinchAllReduce(in, out, COUNT, cinchFloat32, cinchSum, me->comm, NULL));
        for (size_t i = 0; i < COUNT; i++) {
            if (whole_block ? bad[i / BLOCK] : bad_at[i])
                CHECK(me, whole_block ? isnan(out[i]) : !isfinite(out[i]), "call %d at %zu: %g", k,
                      i, (double)out[i]);
            else
                CHECK(me, fabs(out[i] - want[i]) < 0.06 * me->nranks, "call %d at %zu: %g, not %g",
                      k, i, (double)out[i], want[i]);
        }
    }
    cinchStats_t stats = {.size = sizeof stats};
    CHECK_OK(me, cinchCommGetStats(me->comm, &stats));
    CHECK(me, stats.nonfinite > 0);
    free(in);
    free(out);
    free(want);
}

START_TEST(nonfinite_blocks_reach_every_rank) {
    static const char *const kinds[] = {"int8", "int8:ef=1", "bf16", "int8:round=stochastic"};
    for (int c = 0; c < 4; c++)
        for (int n = 2; n <= 4; n++)
            ranks_run(&(ranks_case){.nranks = n,
                                    .env = "CINCH_CODEC_MIN_BYTES=1K",
                                    .body = with_nonfinite,
                                    .shared = (void *)(uintptr_t)kinds[c]});
}
END_TEST

static void refused_nonfinite(seat *me) {
    enum { COUNT = 3000 };
    const char *codec = me->shared;
    float *in = malloc(COUNT * sizeof *in), *out = malloc(COUNT * sizeof *out);
    CHECK_OK(me, cinchCommSetCodec(me->comm, codec));
    for (int k = 0; k < 4; k++) {
        gauss_fill(in, in, cinchFloat32, (uint64_t)k, me->rank, COUNT);
        bool bad = k % 2;
        if (bad && me->rank == me->nranks - 1) in[1234] = k == 1 ? NAN : -INFINITY;
        cinchResult_t result =
            cinchAllReduce(in, out, COUNT, cinchFloat32, cinchSum, me->comm, NULL);
        if (bad)
            CHECK(me,
                  result == cinchInvalidUsage && strstr(cinchGetLastError(NULL), "NONFINITE=error"),
                  "%d %s", result, cinchGetLastError(NULL));
        else
            CHECK_OK(me, result);
        cinchResult_t state = cinchInternalError;
        CHECK_OK(me, cinchCommGetAsyncError(me->comm, &state));
        CHECK(me, state == cinchSuccess);
    }
    /* Exact calls carry what they are given. */
    in[0] = NAN;
    CHECK_OK(me, cinchAllReduce(in, out, 9, cinchFloat32, cinchSum, me->comm, NULL));
    CHECK(me, isnan(out[0]));
    /* The failed calls left no residuals behind that hold something else than zero or numbers. */
    size_t len = 0;
    CHECK_OK(me, cinchCommExportState(me->comm, NULL, &len));
    free(in);
    free(out);
}

START_TEST(nonfinite_as_an_error) {
    static const char *const kinds[] = {"int8", "bf16", "topk", "int8:ef=1"};
    for (int c = 0; c < 4; c++)
        for (int n = 2; n <= 3; n++)
            ranks_run(
                &(ranks_case){.nranks = n,
                              .env = "CINCH_CODEC_MIN_BYTES=1K CINCH_NONFINITE=error",
                              .body = refused_nonfinite,
                              .shared = (void *)(uintptr_t)kinds[c],
                              .logs = c < 2 ? "NONFINITE=error" : "NONFINITE=error|was reset"});
}
END_TEST

/* ---- random rounding ---- */

typedef struct rounding {
    const char *codec;
    uint64_t hash;
    double bias; /* of the mean over many calls, in steps of the quantization */
} rounding;

static void round_randomly(seat *me) {
    enum { COUNT = 512, CALLS = 250 };
    rounding *r = me->shared;
    float in[COUNT], out[COUNT];
    double mean[COUNT] = {0};
    uint64_t hash = 3;
    CHECK_OK(me, cinchCommSetCodec(me->comm, r->codec));
    for (size_t i = 0; i < COUNT; i++) in[i] = (float)(i % 100) * 0.0137f + 0.003f;
    in[0] = in[256] = 12.7f; /* steps of 0.1 */
    for (int k = 0; k < CALLS; k++) {
        CHECK_OK(me, cinchAllReduce(in, out, COUNT, cinchFloat32, cinchAvg, me->comm, NULL));
        hash = hash_bytes(hash, out, sizeof out);
        for (size_t i = 0; i < COUNT; i++) mean[i] += out[i];
    }
    double bias = 0;
    for (size_t i = 0; i < COUNT; i++) bias = fmax(bias, fabs(mean[i] / CALLS - in[i]) / 0.1);
    if (me->rank == 0) r->hash = hash, r->bias = bias;
}

START_TEST(random_rounding) {
    for (int n = 2; n <= 3; n++) {
        rounding r[4] = {{.codec = "int8:round=stochastic,seed=1"},
                         {.codec = "int8:round=stochastic,seed=1"},
                         {.codec = "int8:round=stochastic,seed=2"},
                         {.codec = "int8"}};
        for (int i = 0; i < 4; i++)
            ranks_run(&(ranks_case){.nranks = n,
                                    .env = "CINCH_CODEC_MIN_BYTES=1K",
                                    .body = round_randomly,
                                    .shared = &r[i]});
        ck_assert_uint_eq(r[0].hash, r[1].hash);
        ck_assert_uint_ne(r[0].hash, r[2].hash);
        /* 250 roundings of standard deviation below 0.7 steps each: five deviations of their mean
         * are below 0.25. Nearest is off by up to half a step. */
        ck_assert_msg(r[0].bias < 0.25, "n=%d: off by %g steps", n, r[0].bias);
        ck_assert_msg(r[2].bias < 0.25, "n=%d: off by %g steps", n, r[2].bias);
        ck_assert_msg(r[3].bias > 0.4, "n=%d: nearest is off by only %g steps", n, r[3].bias);
    }
}
END_TEST

int main(void) {
    const TTest *const tests[] = {same_bits_on_all_ranks_and_again, errors_and_wire_bytes,
                                  nonfinite_blocks_reach_every_rank, nonfinite_as_an_error,
                                  random_rounding};
    return run_tests("codec-allreduce", tests, sizeof tests / sizeof *tests, 60);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Compressed reduce-scatters and all-gathers: one quantization, the bytes that were promised, the
 * same bits again, and for an all-gather on every rank, its owner included. */
#include "tests/lossy.h"

typedef struct work {
    cinchDataType_t dtype;
    const char *codec;
    size_t count; /* of a block */
    bool gather, in_place, avg, tagged;
    int calls; /* of the same input */
    /* results */
    bool compressed;
    double error[MOST_RANKS]; /* of the mean of the calls' results */
    double wire_ratio;        /* against (n-1)/n of all blocks */
    uint64_t hash[MOST_RANKS], ef_bytes;
} work;

/* What this rank ought to have, in fp64. */
static void reference(const seat *me, const work *w, double *want) {
    size_t all = w->count * (size_t)me->nranks;
    double *sum = malloc(all * sizeof *sum);
    float *floats = malloc(all * sizeof *floats);
    void *data = malloc(all * cinch_dtype_size(w->dtype));
    if (w->gather) {
        for (int r = 0; r < me->nranks; r++) {
            gauss_fill(data, floats, w->dtype, 1, r, w->count);
            for (size_t i = 0; i < w->count; i++) want[(size_t)r * w->count + i] = floats[i];
        }
    } else {
        gauss_sum(sum, w->dtype, 1, me->nranks, all, w->avg ? 1.0 / me->nranks : 1);
        memcpy(want, sum + (size_t)me->rank * w->count, w->count * sizeof *want);
    }
    free(sum);
    free(floats);
    free(data);
}

static cinchResult_t call(seat *me, const work *w, const void *in, void *out) {
    if (w->gather) return cinchAllGather(in, out, w->count, w->dtype, me->comm, NULL);
    return cinchReduceScatter(in, out, w->count, w->dtype, w->avg ? cinchAvg : cinchSum, me->comm,
                              NULL);
}

static void run_work(seat *me) {
    work *w = me->shared;
    size_t size = cinch_dtype_size(w->dtype), all = w->count * (size_t)me->nranks;
    size_t sent = w->gather ? w->count : all, got = w->gather ? all : w->count;
    unsigned char *in = malloc(all * size), *out = malloc(all * size);
    float *floats = malloc(all * sizeof *floats);
    double *want = malloc(all * sizeof *want), *mean = calloc(all, sizeof *mean);
    cinchStats_t before = {.size = sizeof before}, after = {.size = sizeof after};
    unsigned char *from = w->in_place && w->gather ? out + (size_t)me->rank * w->count * size : in;
    unsigned char *to = w->in_place && !w->gather ? in + (size_t)me->rank * w->count * size : out;
    CHECK(me, in && out && floats && want && mean);
    CHECK_OK(me, cinchCommSetCodec(me->comm, w->codec));
    if (w->tagged) CHECK_OK(me, cinchCommTag(me->comm, from, sent * size, 17));
    uint64_t hash = 3;
    for (int k = 0; k < w->calls; k++) {
        gauss_fill(from, floats, w->dtype, 1, me->rank, sent);
        CHECK_OK(me, cinchCommGetStats(me->comm, &before));
        CHECK_OK(me, call(me, w, from, to));
        CHECK_OK(me, cinchCommGetStats(me->comm, &after));
        hash = hash_bytes(hash, to, got * size);
        cinch_widen(floats, to, w->dtype, got);
        for (size_t i = 0; i < got; i++) mean[i] += (double)floats[i] / w->calls;
    }
    for (size_t i = 0; i < got; i++) floats[i] = (float)mean[i];
    reference(me, w, want);
    w->error[me->rank] = relative_error(floats, want, got);
    w->hash[me->rank] = hash;
    if (me->rank == 0) {
        w->compressed = after.compressed_calls == before.compressed_calls + 1;
        w->ef_bytes = after.ef_bytes;
        w->wire_ratio = (double)(after.wire_bytes - before.wire_bytes) /
                        ((double)(me->nranks - 1) * (double)(w->count * size));
    }
    free(in);
    free(out);
    free(floats);
    free(want);
    free(mean);
}

static work run(work w, int n, const char *env) {
    char all[300];
    uint64_t hash[MOST_RANKS];
    if (!w.calls) w.calls = 1;
    snprintf(all, sizeof all, "CINCH_CODEC_MIN_BYTES=16 CINCH_CODEC_OPS=reducescatter,allgather %s",
             env);
    for (int again = 0; again < 2; again++) { /* from a fresh state the bits are the same */
        ranks_run(&(ranks_case){.nranks = n, .env = all, .body = run_work, .shared = &w});
        for (int r = 0; r < n; r++) {
            if (again) ck_assert_msg(w.hash[r] == hash[r], "%s n=%d rank %d", w.codec, n, r);
            if (w.gather) ck_assert_msg(w.hash[r] == w.hash[0], "%s n=%d rank %d", w.codec, n, r);
            hash[r] = w.hash[r];
        }
    }
    return w;
}

static const char *const transports[] = {"", "CINCH_TRANSPORT=tcp"};

START_TEST(one_quantization) {
    static const int jobs[] = {2, 3, 4, 8};
    for (int j = 0; j < 4; j++)
        for (int gather = 0; gather < 2; gather++) {
            int n = jobs[j];
            work w = {.codec = "int8", .dtype = cinchFloat, .gather = gather, .count = 300000};
            w.avg = j % 2;
            w = run(w, n, transports[(j + gather) % 2]);
            ck_assert(w.compressed);
            ck_assert_msg(w.wire_ratio <= 0.256, "n=%d: %g of the exact bytes", n, w.wire_ratio);
            for (int r = 0; r < n; r++)
                ck_assert_msg(w.error[r] > 0 && w.error[r] <= 0.0075, "n=%d rank %d: error %g", n,
                              r, w.error[r]);
        }
}
END_TEST

START_TEST(every_codec_and_odd_counts) {
    static const char *const codecs[] = {"int8",
                                         "bf16",
                                         "topk",
                                         "int8:block=32",
                                         "int8:round=stochastic,seed=3",
                                         "topk:ratio=0.05,select=global"};
    static const cinchDataType_t types[] = {cinchFloat, cinchHalf, cinchBfloat16};
    static const size_t counts[] = {7, 255, 1000, 70001};
    for (int c = 0; c < 6; c++)
        for (int i = 0; i < 4; i++) {
            work w = {.codec = codecs[c],
                      .dtype = types[(c + i) % 3],
                      .count = counts[i],
                      .gather = (c + i) & 1};
            w = run(w, 2 + (c + i) % 3, i % 2 ? "CINCH_CHUNK=1K" : transports[c % 2]);
            ck_assert_msg(w.compressed, "%s count %zu", w.codec, w.count);
        }
}
END_TEST

/* In place an all-gather's own block would change: it stays exact unless that is asked for. */
START_TEST(in_place) {
    work w = {.codec = "int8", .dtype = cinchFloat, .gather = true, .in_place = true};
    w.count = 5000;
    w = run(w, 3, "");
    ck_assert(!w.compressed && w.error[0] == 0 && w.error[2] == 0);
    w.codec = "int8:inplace=1";
    w = run(w, 3, "");
    ck_assert(w.compressed && w.error[0] > 0 && w.error[0] < 0.0075);
    w.gather = false; /* a reduce-scatter gives its owner a sum of its own in any case */
    w.codec = "int8";
    w = run(w, 3, "");
    ck_assert(w.compressed && w.error[1] > 0 && w.error[1] < 0.0075);
}
END_TEST

/* Residuals only under a tag: another layer's gradient may have the same address. */
START_TEST(error_feedback_goes_by_tag) {
    for (int gather = 0; gather < 2; gather++) {
        work w = {.codec = "int8:ef=1", .dtype = cinchFloat, .count = 3000, .calls = 64};
        w.gather = gather;
        work loose = run(w, 3, "");
        w.tagged = true;
        work kept = run(w, 3, "");
        ck_assert_uint_eq(loose.ef_bytes, 0);
        ck_assert_uint_eq(kept.ef_bytes, (gather ? 1 : 3) * w.count * sizeof(float));
        for (int r = 0; r < 3; r++)
            ck_assert_msg(kept.error[r] * 8 < loose.error[r], "rank %d: %g and %g", r,
                          kept.error[r], loose.error[r]);
    }
}
END_TEST

/* By default a reduce-scatter may be compressed and an all-gather not; the others never are. */
static void defaults(seat *me) {
    enum { COUNT = 2048 };
    static _Thread_local float in[4 * COUNT], out[4 * COUNT];
    cinchStats_t stats = {.size = sizeof stats};
    CHECK_OK(me, cinchAllGather(in, out, COUNT, cinchFloat, me->comm, NULL));
    CHECK_OK(me, cinchAlltoAll(in, out, COUNT, cinchFloat, me->comm, NULL));
    CHECK_OK(me, cinchBcast(out, COUNT, cinchFloat, 0, me->comm, NULL));
    CHECK_OK(me, cinchReduce(in, out, COUNT, cinchFloat, cinchSum, 0, me->comm, NULL));
    CHECK_OK(me, cinchReduceScatter(in, out, COUNT, cinchFloat, cinchMax, me->comm, NULL));
    CHECK_OK(me, cinchReduceScatter(in, out, COUNT, cinchInt32, cinchSum, me->comm, NULL));
    CHECK_OK(me, cinchCommGetStats(me->comm, &stats));
    CHECK(me, stats.calls == 6 && stats.compressed_calls == 0);
    CHECK_OK(me, cinchReduceScatter(in, out, COUNT, cinchFloat, cinchAvg, me->comm, NULL));
    CHECK_OK(me, cinchCommGetStats(me->comm, &stats));
    CHECK(me, stats.compressed_calls == 1);
}

START_TEST(what_is_compressed_by_default) {
    ranks_run(&(ranks_case){.nranks = 3,
                            .env = "CINCH_CODEC=int8 CINCH_CODEC_INTRA=int8 "
                                   "CINCH_CODEC_MIN_BYTES=1K",
                            .body = defaults});
}
END_TEST

int main(void) {
    const TTest *const tests[] = {one_quantization, every_codec_and_odd_counts, in_place,
                                  error_feedback_goes_by_tag, what_is_compressed_by_default};
    return run_tests("codec_collectives", tests, sizeof tests / sizeof *tests, 120);
}

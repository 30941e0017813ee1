/* SPDX-License-Identifier: Apache-2.0 */
/* Compressed collectives on device memory, above an emulated GPU: the bits, the residuals and the
 * counts of the same calls on host memory. */
#include "tests/cuda_ranks.h"
#include "tests/lossy.h"

typedef struct work {
    const char *codec;
    cinch_collective collective;
    cinchDataType_t dtype;
    size_t count;
    bool tagged, nonfinite, in_place;
    size_t skew; /* elements by which the buffers are shifted */
    bool exact;  /* what is expected */
} work;

static cinchResult_t call(const seat *me, const work *w, const void *in, void *out,
                          cinchComm_t comm, cinchStream_t stream) {
    (void)me;
    if (w->collective == CINCH_ALLGATHER)
        return cinchAllGather(in, out, w->count, w->dtype, comm, stream);
    if (w->collective == CINCH_REDUCESCATTER)
        return cinchReduceScatter(in, out, w->count, w->dtype, cinchAvg, comm, stream);
    cinchRedOp_t op = w->tagged ? cinchAvg : cinchSum;
    return cinchAllReduce(in, out, w->count, w->dtype, op, comm, stream);
}

/* The same state, but for addresses. */
static bool same_state(seat *me, cinchComm_t a, cinchComm_t b) {
    size_t na = 0, nb = 0;
    TRY_CHECK(me, cinchCommExportState(a, NULL, &na) == cinchSuccess);
    TRY_CHECK(me, cinchCommExportState(b, NULL, &nb) == cinchSuccess);
    TRY_CHECK(me, na == nb, "%zu and %zu bytes", na, nb);
    unsigned char *one = malloc(na), *two = malloc(nb);
    TRY_CHECK(me, cinchCommExportState(a, one, &na) == cinchSuccess);
    TRY_CHECK(me, cinchCommExportState(b, two, &nb) == cinchSuccess);
    TRY_CHECK(me, memcmp(one, two, na) == 0, "the states of %zu bytes differ", na);
    /* Each goes on with what the other has said. */
    TRY_CHECK(me, cinchCommImportState(a, two, nb) == cinchSuccess);
    TRY_CHECK(me, cinchCommImportState(b, one, na) == cinchSuccess);
    free(one);
    free(two);
    return true;
}

static void spoil(float *floats, size_t count) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, -0.0f, 1e-42f};
    for (size_t i = 0; i < count; i += 1 + count / 7) floats[i] = odd[i % 5];
}

static void beside_the_host(seat *me) {
    work *w = me->shared;
    const cinch_shape *shape = cinch_shape_of(w->collective);
    size_t size = cinch_dtype_size(w->dtype), n = (size_t)me->nranks;
    size_t in = w->count * (shape->in_n ? n : 1), out = w->count * (shape->out_n ? n : 1);
    unsigned char *from = malloc(in * size), *to = malloc(out * size), *got = malloc(out * size);
    unsigned char *on_from = take((in + w->skew) * size, false);
    unsigned char *on_to = take((out + w->skew) * size, false);
    float *floats = malloc((in > out ? in : out) * sizeof *floats);
    cudaStream_t stream = open_stream();
    cinchComm_t host;
    cinchStats_t a = {.size = sizeof a}, b = a;
    CHECK(me, from && to && got && floats && on_from && on_to && stream);
    on_from += w->skew * size;
    on_to = w->in_place ? on_from : on_to + w->skew * size;
    if (w->in_place) {
        free(to);
        to = from;
    }
    CHECK_OK(me, cinchCommSplit(me->comm, 0, me->rank, &host, NULL));
    CHECK_OK(me, cinchCommSetCodec(me->comm, w->codec));
    CHECK_OK(me, cinchCommSetCodec(host, w->codec));
    if (w->tagged) {
        CHECK_OK(me, cinchCommTag(me->comm, on_from, in * size, 7));
        CHECK_OK(me, cinchCommTag(host, from, in * size, 7));
    }
    for (uint64_t k = 0; k < 4; k++) {
        gauss_fill(from, floats, w->dtype, k, me->rank, in);
        if (w->nonfinite && k == 1) {
            spoil(floats, in);
            cinch_narrow(from, w->dtype, floats, in);
        }
        CU(me, cudaMemcpyAsync(on_from, from, in * size, cudaMemcpyDefault, stream));
        CHECK_OK(me, call(me, w, on_from, on_to, me->comm, stream));
        CU(me, cudaMemcpyAsync(got, on_to, out * size, cudaMemcpyDefault, stream));
        CU(me, cudaStreamSynchronize(stream));
        CHECK_OK(me, call(me, w, from, to, host, NULL));
        CHECK(me, memcmp(got, to, out * size) == 0, "%s %s count %zu call %d", w->codec,
              shape->name, w->count, (int)k);
        if (!w->tagged) continue;
        if (!same_state(me, me->comm, host)) return;
        CHECK_OK(me, cinchCommScaleState(me->comm, 0.5));
        CHECK_OK(me, cinchCommScaleState(host, 0.5));
    }
    CHECK_OK(me, cinchCommGetStats(me->comm, &a));
    CHECK_OK(me, cinchCommGetStats(host, &b));
    CHECK(me, a.compressed_calls == (w->exact ? 0u : 4u), "%llu",
          (unsigned long long)a.compressed_calls);
    CHECK(me, w->exact || (b.compressed_calls == 4 && a.nonfinite == b.nonfinite &&
                           a.ef_bytes == b.ef_bytes && a.wire_bytes == b.wire_bytes));
    CHECK_OK(me, cinchCommDestroy(host));
    CU(me, cudaStreamDestroy(stream));
    if (to != from) free(to);
    free(from);
    free(got);
    free(floats);
}

#define LINKS                                                                                      \
    "CINCH_TRANSPORT=tcp CINCH_CODEC_MIN_BYTES=16 "                                                \
    "CINCH_CODEC_OPS=allreduce,reducescatter,allgather "

START_TEST(the_bits_of_the_host) {
    static const char *const codecs[] = {"int8",
                                         "bf16",
                                         "topk:ratio=0.05",
                                         "int8:block=64,round=stochastic,seed=3",
                                         "int8:ef=1",
                                         "topk:ratio=0.3,ef=0"};
    static const cinch_collective ops[] = {CINCH_ALLREDUCE, CINCH_REDUCESCATTER, CINCH_ALLGATHER};
    static const cinchDataType_t types[] = {cinchFloat, cinchHalf, cinchBfloat16};
    static const size_t counts[] = {7, 1000, 9001};
    for (int c = 0; c < 6; c++)
        for (int i = c % GPU_CASES_APART; i < 3; i += GPU_CASES_APART) {
            work w = {.codec = codecs[c],
                      .collective = ops[i],
                      .dtype = types[(c + i) % 3],
                      .count = counts[(c + 2 * i) % 3],
                      .tagged = (c + i) % 2,
                      .nonfinite = (c + i / 2) % 2};
            gpu_run(&(ranks_case){.nranks = 2 + (c + i) % 3,
                                  .env = i % 2 ? LINKS "CINCH_CHUNK=1K" : LINKS,
                                  .body = beside_the_host,
                                  .logs = "?imported error-feedback",
                                  .shared = &w},
                    (uint64_t)(10 * c + i));
        }
}
END_TEST

/* The largest of all: messages whose lengths depend on what is in them. Buffers of one segment and
 * of some, whose parts and blocks begin inside a segment or not. */
START_TEST(selected_from_the_whole) {
    static const char *const codecs[] = {"topk:ratio=0.05,select=global",
                                         "topk:ratio=0.002,select=global",
                                         "topk:ratio=0.7,select=global,ef=0"};
    static const cinch_collective ops[] = {CINCH_ALLREDUCE, CINCH_ALLREDUCE, CINCH_REDUCESCATTER,
                                           CINCH_ALLGATHER};
    static const cinchDataType_t types[] = {cinchFloat, cinchHalf, cinchBfloat16};
    static const size_t counts[] = {7, 70001, 9001, 3 * 65536 + 1};
    for (int k = 0; k < 24; k += GPU_CASES_APART) {
        bool sums = ops[k % 4] == CINCH_ALLREDUCE;
        work w = {.codec = codecs[k % 3],
                  .collective = ops[k % 4],
                  .dtype = types[k / 2 % 3],
                  .count = counts[sums ? k / 3 % 4 : k / 4 % 3],
                  .tagged = k % 5 < 3,
                  .nonfinite = k % 4 == 1,
                  .in_place = sums && k / 2 % 2,
                  .skew = (size_t)(k % 3)};
        gpu_run(&(ranks_case){.nranks = 2 + k / 2 % 3,
                              .env = k % 2 ? LINKS "CINCH_CHUNK=256K" : LINKS,
                              .body = beside_the_host,
                              .logs = "?imported error-feedback",
                              .shared = &w},
                (uint64_t)(500 + k));
    }
}
END_TEST

/* Two "hosts" of processes on this machine, each with a GPU of its own: exact inside and a codec
 * between them, or a codec for either. */
static void two_hosts(seat *me) {
    setenv("CINCH_HOSTID", me->rank < 2 ? "here" : "there", 1);
}

START_TEST(levels) {
    static const char *const codecs[] = {"int8:ef=1", "bf16", "topk:ratio=0.1,select=global"};
    for (int c = 0; c < 3; c++) {
        work w = {.codec = codecs[c], .dtype = cinchFloat, .count = 20000, .tagged = c == 0};
        ranks_run(&(ranks_case){.nranks = 4,
                                .processes = true,
                                .env = LINKS "CINCH_ALGO=hier CINCH_CHUNK=8K",
                                .env_of = two_hosts,
                                .body = beside_the_host,
                                .logs = "?imported error-feedback",
                                .shared = &w});
    }
}
END_TEST

static void meets_nan(seat *me) {
    enum { COUNT = 3000 };
    float host[COUNT], *at = take(sizeof host, false);
    cudaStream_t stream = open_stream();
    for (int i = 0; i < COUNT; i++) host[i] = i == 2999 && me->rank ? NAN : 1;
    CHECK(me, at && stream);
    CHECK_OK(me, cinchCommSetCodec(me->comm, "int8"));
    CU(me, cudaMemcpyAsync(at, host, sizeof host, cudaMemcpyDefault, stream));
    CHECK_OK(me, cinchAllReduce(at, at, COUNT, cinchFloat, cinchSum, me->comm, stream));
    CHECK_FAILS(me, cinchStreamSynchronize(stream), cinchInvalidUsage, NULL, "met NaN or Inf");
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(nan_as_an_error) {
    gpu_run(
        &(ranks_case){
            .nranks = 3, .env = LINKS "CINCH_NONFINITE=error", .body = meets_nan, .logs = "*"},
        1);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {the_bits_of_the_host, selected_from_the_whole, levels,
                                  nan_as_an_error};
    return run_tests("cuda_compressed", tests, sizeof tests / sizeof *tests, 300);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA graphs with collectives on device memory, above an emulated GPU: every operation has the
 * exact result at every launch; with codecs and error feedback launches have the bits of as many
 * calls. */
#include "tests/gpu_call.h"
#include "tests/lossy.h"

static bool instantiate(seat *me, cudaStream_t stream, cudaGraphExec_t *exec) {
    cudaGraph_t graph;
    TRY_CHECK(me, cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    TRY_CHECK(me, cudaGraphInstantiate(exec, graph, 0) == cudaSuccess);
    TRY_CHECK(me, cudaGraphDestroy(graph) == cudaSuccess);
    return true;
}

/* ---- every operation ---- */

/* Buffers as they were before the call. */
typedef struct pristine {
    unsigned char *send, *recv;
} pristine;

static bool keep(seat *me, const gpu_call *g, pristine *p) {
    p->send = take(g->on_send.room, false);
    p->recv = take(g->on_recv.room, false);
    TRY_CHECK(me, p->send && p->recv);
    TRY_CHECK(me, cudaMemcpyAsync(p->send, g->on_send.block, g->on_send.room, cudaMemcpyDefault,
                                  g->c.stream) == cudaSuccess);
    TRY_CHECK(me, cudaMemcpyAsync(p->recv, g->on_recv.block, g->on_recv.room, cudaMemcpyDefault,
                                  g->c.stream) == cudaSuccess);
    return true;
}

static bool rewind_call(seat *me, const gpu_call *g, const pristine *p) {
    TRY_CHECK(me, cudaMemcpyAsync(g->on_send.block, p->send, g->on_send.room, cudaMemcpyDefault,
                                  g->c.stream) == cudaSuccess);
    TRY_CHECK(me, cudaMemcpyAsync(g->on_recv.block, p->recv, g->on_recv.room, cudaMemcpyDefault,
                                  g->c.stream) == cudaSuccess);
    return true;
}

/* Both calls are captured; they are launched so often, with a call beside the graph in between. */
static bool replay(seat *me, gpu_call g[2], int launches, cudaStream_t stream) {
    cinchStats_t before = {.size = sizeof before}, after = before;
    pristine p[2];
    cudaGraphExec_t exec;
    for (int i = 0; i < 2; i++)
        if (!keep(me, &g[i], &p[i])) return false;
    TRY_CHECK(me, cudaStreamSynchronize(stream) == cudaSuccess);
    TRY_CHECK(me, cinchCommGetStats(me->comm, &before) == cinchSuccess);
    TRY_CHECK(me, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    for (int i = 0; i < 2; i++)
        if (!rewind_call(me, &g[i], &p[i]) || !gpu_call_start(me, &g[i])) return false;
    if (!instantiate(me, stream, &exec)) return false;
    for (int l = 0; l < launches; l++) {
        TRY_CHECK(me, cudaGraphLaunch(exec, stream) == cudaSuccess);
        if (l % 2 &&
            (!rewind_call(me, &g[l / 2 % 2], &p[l / 2 % 2]) || !gpu_call_start(me, &g[l / 2 % 2])))
            return false;
    }
    for (int i = 0; i < 2; i++)
        if (!gpu_call_end(me, &g[i])) return false;
    TRY_CHECK(me, cinchCommGetStats(me->comm, &after) == cinchSuccess);
    TRY_CHECK(me, after.calls - before.calls >= 2u * (unsigned)launches, "%llu calls",
              (unsigned long long)(after.calls - before.calls));
    TRY_CHECK(me, cudaGraphExecDestroy(exec) == cudaSuccess);
    return true;
}

static void all_calls(seat *me) {
    const uint64_t *seed = me->shared;
    uint64_t state = *seed;
    cudaStream_t stream = open_stream();
    CHECK(me, stream);
    for (int k = 0; k < CINCH_COLLECTIVES; k++) {
        gpu_call g[2];
        uint64_t dice = random64(&state);
        for (int i = 0; i < 2; i++) {
            one_call c = random_call(dice + 77 * (uint64_t)i, me->nranks,
                                     (cinch_collective)((k + i) % CINCH_COLLECTIVES), 900);
            c.stream = stream;
            if (!gpu_call_make(me, &g[i], &c)) return;
        }
        if (!replay(me, g, 1 + (int)(dice >> 50) % 5, stream)) return;
    }
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(every_operation_at_every_launch) {
    take_gates();
    static const char *const env[] = {"CINCH_CHUNK=256", "CINCH_TRANSPORT=tcp CINCH_CHUNK=4K", ""};
    for (uint64_t seed = 1; seed <= 8; seed += GPU_CASES_APART)
        gpu_run(&(ranks_case){.nranks = 1 + (int)(seed % 4),
                              .env = env[seed % 3],
                              .body = all_calls,
                              .shared = &seed},
                seed);
}
END_TEST

/* ---- codecs ---- */

typedef struct work {
    const char *codec;
    cinchDataType_t dtype;
    size_t count;
    bool scatters;
} work;

/* The input of the k-th use, which a host function makes in pinned memory. */
typedef struct source {
    const work *w;
    int rank;
    uint64_t uses;
    size_t in;
    unsigned char *pinned;
    float *floats;
} source;

static void next_input(void *arg) {
    source *s = arg;
    gauss_fill(s->pinned, s->floats, s->w->dtype, s->uses++, s->rank, s->in);
}

static cinchResult_t call(const work *w, const void *in, void *out, cinchComm_t comm,
                          cinchStream_t stream) {
    return w->scatters ? cinchReduceScatter(in, out, w->count, w->dtype, cinchAvg, comm, stream)
                       : cinchAllReduce(in, out, w->count, w->dtype, cinchSum, comm, stream);
}

/* Launches and calls in turn on the device, calls on the host. */
static void beside_the_host(seat *me) {
    work *w = me->shared;
    size_t size = cinch_dtype_size(w->dtype);
    size_t in = w->count * (w->scatters ? (size_t)me->nranks : 1), out = w->count;
    unsigned char *from = malloc(in * size), *to = malloc(out * size),
                  *got = take(out * size, true);
    unsigned char *on_from = take(in * size, false), *on_to = take(out * size, false);
    source s = {w, me->rank, 0, in, take(in * size, true), malloc(in * sizeof(float))};
    float *floats = malloc(in * sizeof *floats);
    cudaStream_t stream = open_stream();
    cudaGraphExec_t exec = NULL;
    cinchComm_t host;
    CHECK(me, from && to && got && on_from && on_to && s.pinned && s.floats && floats && stream);
    CHECK_OK(me, cinchCommSplit(me->comm, 0, me->rank, &host, NULL));
    CHECK_OK(me, cinchCommSetCodec(me->comm, w->codec));
    CHECK_OK(me, cinchCommSetCodec(host, w->codec));
    CHECK_OK(me, cinchCommTag(me->comm, on_from, in * size, 7));
    CHECK_OK(me, cinchCommTag(host, from, in * size, 7));
    for (uint64_t k = 0; k < 6; k++) {
        if (k == 1) CU(me, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        if (k < 2 || k == 4) { /* the first is none of the graph's, nor is the fifth */
            CU(me, cudaLaunchHostFunc(stream, next_input, &s));
            CU(me, cudaMemcpyAsync(on_from, s.pinned, in * size, cudaMemcpyDefault, stream));
            CHECK_OK(me, call(w, on_from, on_to, me->comm, stream));
            CU(me, cudaMemcpyAsync(got, on_to, out * size, cudaMemcpyDefault, stream));
        }
        if (k == 1 && !instantiate(me, stream, &exec)) return;
        if (k && k != 4) CU(me, cudaGraphLaunch(exec, stream));
        CU(me, cudaStreamSynchronize(stream));
        gauss_fill(from, floats, w->dtype, k, me->rank, in);
        CHECK_OK(me, call(w, from, to, host, NULL));
        CHECK(me, memcmp(got, to, out * size) == 0, "%s count %zu call %d", w->codec, w->count,
              (int)k);
    }
    cinchStats_t a = {.size = sizeof a}, b = a;
    CHECK_OK(me, cinchCommGetStats(me->comm, &a));
    CHECK_OK(me, cinchCommGetStats(host, &b));
    CHECK(me, a.compressed_calls == 6 && b.compressed_calls == 6 && a.ef_bytes == b.ef_bytes &&
                  a.wire_bytes == b.wire_bytes);
    CU(me, cudaGraphExecDestroy(exec));
    CHECK_OK(me, cinchCommDestroy(host));
    CU(me, cudaStreamDestroy(stream));
    free(from);
    free(to);
    free(s.floats);
    free(floats);
}

START_TEST(launches_have_the_bits_of_calls) {
    take_gates();
    static const char *const codecs[] = {"int8", "int8:ef=1", "topk:ratio=0.05",
                                         "int8:block=64,round=stochastic,seed=3,ef=1"};
    static const cinchDataType_t types[] = {cinchFloat, cinchBfloat16};
    for (int c = 0; c < 4; c++)
        for (int i = 0; i < 2; i++) {
            work w = {codecs[c], types[(c + i) % 2], i ? 5001 : 800, i};
            gpu_run(&(ranks_case){.nranks = 2 + (c + i) % 3,
                                  .env = "CINCH_TRANSPORT=tcp CINCH_CODEC_MIN_BYTES=16 "
                                         "CINCH_CHUNK=2K",
                                  .body = beside_the_host,
                                  .shared = &w},
                    (uint64_t)(10 * c + i));
        }
}
END_TEST

/* ---- failing ---- */

/* An operation of a launch fails where a call's argument would: the communicator has failed. */
static void meets_nan(seat *me) {
    enum { COUNT = 3000 };
    float host[COUNT], *at = take(sizeof host, false);
    cudaStream_t stream = open_stream();
    cudaGraphExec_t exec;
    cinchResult_t state = cinchSuccess;
    for (int i = 0; i < COUNT; i++) host[i] = i == 2999 && me->rank ? NAN : 1;
    CHECK(me, at && stream);
    CHECK_OK(me, cinchCommSetCodec(me->comm, "int8"));
    CU(me, cudaMemcpyAsync(at, host, sizeof host, cudaMemcpyDefault, stream));
    CU(me, cudaStreamSynchronize(stream));
    CU(me, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    CHECK_OK(me, cinchAllReduce(at, at, COUNT, cinchFloat, cinchSum, me->comm, stream));
    if (!instantiate(me, stream, &exec)) return;
    for (int l = 0; l < 2; l++) CU(me, cudaGraphLaunch(exec, stream));
    CU(me, cudaStreamSynchronize(stream));
    CHECK_OK(me, cinchCommGetAsyncError(me->comm, &state));
    CHECK(me, state != cinchSuccess && strstr(cinchGetLastError(me->comm), "met NaN or Inf"), "%d",
          state);
    CU(me, cudaGraphExecDestroy(exec));
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(a_launch_that_fails) {
    take_gates();
    gpu_run(&(ranks_case){.nranks = 3,
                          .env = "CINCH_TRANSPORT=tcp CINCH_CODEC_MIN_BYTES=16 "
                                 "CINCH_NONFINITE=error",
                          .body = meets_nan,
                          .logs = "*"},
            1);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {every_operation_at_every_launch, launches_have_the_bits_of_calls,
                                  a_launch_that_fails};
    return run_tests("cuda_replay", tests, sizeof tests / sizeof *tests, 200);
}

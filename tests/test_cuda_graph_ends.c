/* SPDX-License-Identifier: Apache-2.0 */
/* Collectives in CUDA graphs, above an emulated GPU: graphs and communicators end in every order;
 * captures that fail or are refused; peers that do not launch, aborts, a device that breaks. */
#include "tests/cuda_cell.h"

/* ---- who goes first ---- */

static void orders_of_ends(seat *me) {
    uint64_t seed = *(uint64_t *)me->shared;
    bool graph_first = seed & 1, flying = seed & 2, comm_first = seed & 4;
    single g;
    if (!single_make(me, &g, false)) return;
    if (graph_first) CU(me, cudaGraphDestroy(g.graph));
    CU(me, cudaGraphLaunch(g.exec[0], g.stream));
    if (flying && !single_wait(me, &g)) return;
    CU(me, cudaGraphLaunch(g.exec[1], g.stream));
    CU(me, cudaGraphExecDestroy(g.exec[1]));
    if (flying) sleep_ms(2);
    __atomic_store_n(g.gate, 1, __ATOMIC_RELEASE);
    if (comm_first) { /* it waits for what was launched */
        CHECK_OK(me, cinchCommDestroy(me->comm));
        me->gone = true;
    }
    CU(me, cudaStreamSynchronize(g.stream));
    CHECK(me, g.cell->right == 2 && !g.cell->wrong, "%d right, %d wrong", g.cell->right,
          g.cell->wrong);
    if (comm_first) { /* its calls do nothing any more, and hold nothing up */
        for (int i = 0; i < 2; i++) CU(me, cudaGraphLaunch(g.exec[0], g.stream));
        CU(me, cudaStreamSynchronize(g.stream));
        CHECK(me, g.cell->right == 2 && g.cell->wrong == 2);
    }
    CU(me, cudaGraphExecDestroy(g.exec[0]));
    if (!graph_first) CU(me, cudaGraphDestroy(g.graph));
    CU(me, cudaStreamDestroy(g.stream));
}

START_TEST(ends_in_every_order) {
    take_gates();
    for (uint64_t seed = 0; seed < 16; seed++)
        gpu_run(&(ranks_case){.nranks = 1 + (int)(seed / 4 % 3),
                              .body = orders_of_ends,
                              .logs = seed & 4 ? "a communicator that was destroyed" : NULL,
                              .shared = &seed},
                seed);
}
END_TEST

/* A group's graph goes on when one of its communicators is gone, whichever: it does nothing. */
static void half_is_gone(seat *me) {
    bool first = *(int *)me->shared;
    cudaStream_t stream[2] = {open_stream(), open_stream()};
    cinchComm_t comm[2] = {me->comm, NULL};
    cell *c[2] = {new_cell(me, 1), new_cell(me, 2)};
    cudaGraphExec_t exec;
    CHECK(me, c[0] && c[1] && stream[0] && stream[1]);
    CHECK_OK(me, cinchCommSplit(me->comm, 0, me->rank, &comm[1], NULL));
    CU(me, cudaStreamBeginCapture(stream[0], cudaStreamCaptureModeThreadLocal));
    if (!follow(me, stream[0], stream[1])) return;
    CHECK_OK(me, cinchGroupStart());
    for (int i = 0; i < 2; i++)
        if (!sum_cell(me, c[i], comm[i], stream[i])) return;
    CHECK_OK(me, cinchGroupEnd());
    if (!follow(me, stream[1], stream[0]) || !instantiate(me, stream[0], &exec)) return;
    CU(me, cudaGraphLaunch(exec, stream[1]));
    CU(me, cudaStreamSynchronize(stream[1]));
    CHECK_OK(me, cinchCommDestroy(comm[first ? 0 : 1]));
    for (int l = 0; l < 2; l++) CU(me, cudaGraphLaunch(exec, stream[0]));
    CU(me, cudaStreamSynchronize(stream[0]));
    cinchStats_t stats = {.size = sizeof stats};
    CHECK_OK(me, cinchCommGetStats(comm[first ? 1 : 0], &stats));
    CHECK(me, stats.calls == 1, "%llu calls", (unsigned long long)stats.calls);
    CHECK_OK(me, cinchCommDestroy(comm[first ? 1 : 0]));
    me->gone = true;
    CU(me, cudaGraphExecDestroy(exec));
    for (int i = 0; i < 2; i++) CU(me, cudaStreamDestroy(stream[i]));
}

START_TEST(half_a_group_is_gone) {
    take_gates();
    for (int first = 0; first < 2; first++)
        gpu_run(&(ranks_case){.nranks = 2,
                              .body = half_is_gone,
                              .shared = &first,
                              .logs = "a communicator that was destroyed"},
                1);
}
END_TEST

/* ---- captures that are none ---- */

static void wrong_captures(seat *me) {
    cudaStream_t stream[2] = {open_stream(), open_stream()}, blocking;
    cudaGraph_t graph;
    cell *c = new_cell(me, 1);
    void *held = NULL;
    CU(me, cudaStreamCreate(&blocking));
    CHECK(me, c && stream[0] && stream[1]);
    /* A group with one foot outside. */
    CU(me, cudaStreamBeginCapture(stream[0], cudaStreamCaptureModeThreadLocal));
    CHECK_OK(me, cinchGroupStart());
    for (int i = 0; i < 2; i++)
        CHECK_OK(me, cinchAllReduce(c->in, c->out, COUNT, cinchInt, cinchSum, me->comm, stream[i]));
    CHECK_FAILS(me, cinchGroupEnd(), cinchInvalidUsage, NULL, "all into one graph, or none");
    CU(me, cudaStreamEndCapture(stream[0], &graph)); /* as if nothing had been called */
    CU(me, cudaGraphDestroy(graph));
    /* The default stream, which waits for a stream that is captured. */
    CU(me, cudaStreamBeginCapture(blocking, cudaStreamCaptureModeThreadLocal));
    CHECK_FAILS(me, cinchAllReduce(c->in, c->out, COUNT, cinchInt, cinchSum, me->comm, NULL),
                cinchInvalidUsage, NULL, "legacy default stream");
    CU(me, cudaStreamEndCapture(blocking, &graph));
    CU(me, cudaGraphDestroy(graph));
    /* A capture that the caller has spoilt, before a call or after one. */
    for (int called = 0; called < 2; called++) {
        CU(me, cudaStreamBeginCapture(stream[0], cudaStreamCaptureModeThreadLocal));
        if (called && !sum_cell(me, c, me->comm, stream[0])) return;
        CHECK(me, cudaMalloc(&held, 64) != cudaSuccess);
        CHECK_FAILS(me,
                    cinchAllReduce(c->in, c->out, COUNT, cinchInt, cinchSum, me->comm, stream[0]),
                    cinchInvalidUsage, NULL, "failed before this call");
        CHECK(me, cudaStreamEndCapture(stream[0], &graph) != cudaSuccess && !graph);
    }
    cudaGetLastError();
    if (!sum_cell(me, c, me->comm, stream[0])) return; /* all goes on */
    CU(me, cudaStreamSynchronize(stream[0]));
    CHECK(me, c->right == 1 && !c->wrong);
    for (int i = 0; i < 2; i++) CU(me, cudaStreamDestroy(stream[i]));
    CU(me, cudaStreamDestroy(blocking));
}

START_TEST(what_cannot_be_captured) {
    take_gates();
    for (int n = 1; n <= 2; n++)
        gpu_run(&(ranks_case){.nranks = n, .body = wrong_captures, .logs = "*"}, (uint64_t)n);
}
END_TEST

static const enum cudaStreamCaptureMode modes[] = {
    cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed, cudaStreamCaptureModeGlobal};

/* A call that the library makes during a capture does not end it, whatever its mode; also its very
 * first. */
static void captured_first(seat *me) {
    int mode = *(int *)me->shared;
    cudaStream_t stream = open_stream();
    cudaGraphExec_t exec;
    cell *c = new_cell(me, 1);
    CHECK(me, c && stream);
    CU(me, cudaStreamBeginCapture(stream, modes[mode]));
    if (!sum_cell(me, c, me->comm, stream) || !instantiate(me, stream, &exec)) return;
    CU(me, cudaGraphLaunch(exec, stream));
    if (mode != 2) /* another thread may capture so */
        CU(me, cudaStreamSynchronize(stream));
    else
        for (int i = 0; i < 5000 && !c->right && !c->wrong; i++) sleep_ms(1);
    CHECK(me, c->right == 1 && !c->wrong);
    CU(me, cudaGraphExecDestroy(exec));
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(a_first_call_in_every_mode) {
    take_gates();
    for (int mode = 0; mode < 3; mode++)
        gpu_run(&(ranks_case){.nranks = 3, .body = captured_first, .shared = &mode},
                (uint64_t)mode);
}
END_TEST

/* ---- failing ---- */

/* A peer that does not launch: after the timeout the graph goes on, and so do later launches. */
static void one_does_not_launch(seat *me) {
    single g;
    cinchResult_t state = cinchSuccess;
    if (!single_make(me, &g, false)) return;
    if (me->rank == 0)
        for (int i = 0; i < 3; i++) CU(me, cudaGraphLaunch(g.exec[i % 2], g.stream));
    CU(me, cudaStreamSynchronize(g.stream));
    CHECK(me, wait_for_all(me->shared, me->nranks));
    CHECK_OK(me, cinchCommGetAsyncError(me->comm, &state));
    CHECK(me, me->rank || (state == cinchRemoteError && g.cell->wrong == 3));
    (void)single_end(me, &g, true);
}

START_TEST(a_peer_that_does_not_launch) {
    static meeting_point over;
    take_gates();
    gpu_run(&(ranks_case){.nranks = 2,
                          .env = "CINCH_TIMEOUT_MS=300",
                          .body = one_does_not_launch,
                          .shared = &over,
                          .logs = "*"},
            1);
}
END_TEST

/* An abort ends a launch that waits, and one that has not come to the call so far. */
static void abort_in_flight(seat *me) {
    bool held_up = *(int *)me->shared;
    single g;
    if (!single_make(me, &g, false)) return;
    if (me->rank == 0) {
        if (held_up && !single_wait(me, &g)) return;
        for (int i = 0; i < 3; i++) CU(me, cudaGraphLaunch(g.exec[i % 2], g.stream));
        if (!held_up && !sum_cell(me, g.cell, me->comm, g.stream)) return;
        sleep_ms(20);
    }
    CHECK_OK(me, cinchCommAbort(me->comm));
    me->gone = true;
    __atomic_store_n(g.gate, 1, __ATOMIC_RELEASE);
    CU(me, cudaStreamSynchronize(g.stream));
    CHECK(me, me->rank || (g.cell->wrong == 4 - held_up && !g.cell->right));
    (void)single_end(me, &g, true);
}

START_TEST(aborts_end_launches) {
    take_gates();
    for (int held_up = 0; held_up < 2; held_up++)
        gpu_run(
            &(ranks_case){.nranks = 2, .body = abort_in_flight, .shared = &held_up, .logs = "*"},
            1);
}
END_TEST

/* Each call of CUDA during the capture fails once: the communicator has failed, or the call was
 * refused, or all is well; and whatever graph there is ends. */
static void capture_fails(seat *me) {
    int *k = me->shared;
    cudaStream_t stream = open_stream();
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec;
    cell *c = new_cell(me, 1);
    CHECK(me, c && stream);
    CU(me, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    CU(me, cudaLaunchHostFunc(stream, fill_cell, c));
    cuda_fake_fail(*k, cudaErrorUnknown);
    uint64_t captured = cuda_fake_captured();
    cinchResult_t state = cinchSuccess;
    cinchResult_t called =
        cinchAllReduce(c->in, c->out, COUNT, cinchInt, cinchSum, me->comm, stream);
    cuda_fake_fail(0, cudaSuccess);
    if (called != cinchSuccess) CHECK(me, strlen(cinchGetLastError(me->comm)) > 10);
    CHECK_OK(me, cinchCommGetAsyncError(me->comm, &state));
    /* What has half of it in its graph would let the others wait for ever. */
    CHECK(me, called == cinchSuccess || state != cinchSuccess || cuda_fake_captured() == captured);
    CU(me, cudaLaunchHostFunc(stream, look_at_cell, c));
    if (cudaStreamEndCapture(stream, &graph) == cudaSuccess) {
        CU(me, cudaGraphInstantiate(&exec, graph, 0));
        for (int i = 0; i < 2; i++) CU(me, cudaGraphLaunch(exec, stream));
        CU(me, cudaStreamSynchronize(stream));
        CU(me, cudaGraphExecDestroy(exec));
        CU(me, cudaGraphDestroy(graph));
        CHECK(me, c->right == (called == cinchSuccess ? 2 : 0));
    }
    if (called == cinchSuccess) *k = -1;
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(a_call_of_cuda_fails_in_a_capture) {
    take_gates();
    int k = 1;
    for (int i = 1; k > 0; i++) {
        k = i;
        gpu_run(&(ranks_case){.nranks = 1, .body = capture_fails, .shared = &k, .logs = "*"},
                (uint64_t)i);
        ck_assert_int_lt(i, 100);
        if (k < 0) ck_assert_int_gt(i, 10);
    }
}
END_TEST

/* The device breaks while a launch is on its way: all ends. */
static void breaks(seat *me) {
    single g;
    if (!single_make(me, &g, false) || !single_wait(me, &g)) return;
    for (int i = 0; i < 3; i++) CU(me, cudaGraphLaunch(g.exec[i % 2], g.stream));
    cuda_fake_break(cudaErrorLaunchFailure);
    cinchStats_t stats = {.size = sizeof stats};
    CHECK_OK(me, cinchCommGetStats(me->comm, &stats)); /* waits for nothing any more */
    sleep_ms(10);
    cuda_fake_break(cudaSuccess); /* so that what there is can be given back */
    (void)single_end(me, &g, true);
}

START_TEST(a_device_that_breaks) {
    take_gates();
    gpu_run(&(ranks_case){.nranks = 1, .body = breaks, .logs = "*"}, 1);
}
END_TEST

/* Without them graphs have no collectives of this library. */
START_TEST(no_waits_for_values) {
    take_gates();
    cuda_fake_wait_values(false);
    int k = 0;
    gpu_run(&(ranks_case){.nranks = 1, .body = capture_fails, .shared = &k, .logs = "*"}, 1);
    ck_assert_int_eq(k, 0); /* it was not captured */
}
END_TEST

int main(void) {
    const TTest *const tests[] = {ends_in_every_order,
                                  half_a_group_is_gone,
                                  what_cannot_be_captured,
                                  a_first_call_in_every_mode,
                                  a_peer_that_does_not_launch,
                                  aborts_end_launches,
                                  a_call_of_cuda_fails_in_a_capture,
                                  a_device_that_breaks,
                                  no_waits_for_values};
    return run_tests("cuda_graph_ends", tests, sizeof tests / sizeof *tests, 60);
}

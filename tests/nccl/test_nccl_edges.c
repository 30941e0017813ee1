/* SPDX-License-Identifier: Apache-2.0 */
/* Forward mode with a codec: what stays exact, what goes wrong, communicators that come and go. */
#include "tests/nccl/gear.h"

static void others(seat *me) {
    gear g;
    bool ours;
    open_gear(me, &g);
    const spec exacts[] = {{.dtype = cinchFloat32, .count = 255},
                           {.dtype = cinchFloat32, .op = cinchMax, .count = 5000},
                           {.dtype = cinchFloat32, .op = cinchMin, .count = 5000},
                           {.dtype = cinchFloat32, .op = cinchProd, .count = 5000},
                           {.dtype = cinchInt32, .count = 5000},
                           {.dtype = cinchFloat64, .count = 5000},
                           {.dtype = cinchFloat16, .count = 5000},   /* not among the datatypes */
                           {.dtype = cinchFloat32, .count = 10000}}; /* excluded by its size */
    for (size_t i = 0; i < sizeof exacts / sizeof *exacts; i++) exact(&g, &exacts[i]);
    CHECK(me, compressed(&g) == 0);
    spec c = {.dtype = cinchFloat32, .count = 5000, .seed = 3};
    for (int i = 0; i < 2; i++) { /* the first that the warm-up does not hold back */
        give(&g, &c);
        CHECK_OK(me, forward_it(&g, &c, g.stream));
        CHECK(me, compressed(&g) == (uint64_t)i, "%d", (int)compressed(&g));
    }
    CHECK(me, cinch_forward_allreduce(g.forward, g.device[0], g.device[1], 5000, cinchFloat32,
                                      cinchSum, NULL, g.stream, &ours) == cinchInvalidArgument);
    CHECK(me, !ours);
    close_gear(&g);
}

static void captured(seat *me) {
    gear g;
    cudaGraph_t graph;
    open_gear(me, &g);
    const spec c = {.dtype = cinchFloat32, .count = 5000, .seed = 1};
    for (int first = 1; first >= 0; first--) { /* before and after the ranks know each other */
        moving_seen before = moving_look(g.comm);
        meet(&g);
        CUDA(cudaStreamBeginCapture(g.stream, cudaStreamCaptureModeRelaxed));
        for (int i = 0; i < 2; i++) CHECK_OK(me, forward_it(&g, &c, g.stream));
        CUDA(cudaStreamEndCapture(g.stream, &graph));
        CUDA(cudaGraphDestroy(graph));
        moving_seen after = moving_look(g.comm);
        CHECK(me, after.allreduces == before.allreduces + 2 && after.sends == before.sends);
        if (!same_as_host(&g, &c)) break;
    }
    CHECK(me, compressed(&g) == 2);
    close_gear(&g);
}

START_TEST(what_goes_on_as_it_is) {
    run_case(3,
             "CINCH_CODEC_INTRA=int8 CINCH_CODEC_MIN_BYTES=1K CINCH_CODEC_DTYPES=float,bfloat16 "
             "CINCH_CODEC_WARMUP=9 CINCH_CODEC_EXCLUDE=size=40000-40000",
             others, 1, NULL, NULL);
    run_case(3, "CINCH_CODEC=int8 CINCH_CODEC_MIN_BYTES=1K", alone_on_host, 1, NULL,
             "has nothing to compress: all 3 ranks share one host");
    run_case(1, "CINCH_CODEC=int8 CINCH_CODEC_MIN_BYTES=1K", alone_on_host, 1, NULL, NULL);
    run_case(2, HOST_TOO("int8"), captured, 1, NULL, "captured into a graph");
}
END_TEST

/* ---- what goes wrong ---- */

static void disagree(seat *me) {
    gear g;
    cinchResult_t state = cinchSuccess;
    open_gear(me, &g);
    const spec c = {.dtype = cinchFloat32, .count = 5000};
    for (int i = 0; i < 2; i++) {
        CHECK(me, forward_it(&g, &c, g.stream) == cinchInvalidUsage);
        const char *why = cinch_forward_why(g.forward, g.comm);
        CHECK(me, why && strstr(why, "CINCH_CODEC_MIN_BYTES") && strstr(why, "rank 2"), "%s", why);
        CHECK_OK(me, cinch_forward_async_error(g.forward, g.comm, &state));
        CHECK(me, state == cinchInvalidUsage);
    }
    close_gear(&g);
}

static void meets_nan(seat *me) {
    gear g;
    cinchResult_t state = cinchSuccess;
    float nan = __builtin_nanf("");
    open_gear(me, &g);
    spec c = {.dtype = cinchFloat32, .count = 5000, .seed = 2};
    give(&g, &c);
    CHECK_OK(me, forward_it(&g, &c, g.stream));
    CUDA(cudaStreamSynchronize(g.stream));
    CHECK_OK(me, cinch_forward_async_error(g.forward, g.comm, &state));
    CHECK(me, state == cinchSuccess);
    if (me->rank == 0) CUDA(cudaMemcpy(g.device[0], &nan, 4, cudaMemcpyDefault));
    CHECK_OK(me, forward_it(&g, &c, g.stream));
    CUDA(cudaStreamSynchronize(g.stream));
    CHECK_OK(me, cinch_forward_async_error(g.forward, g.comm, &state));
    CHECK(me, (state == cinchInvalidUsage) == (me->rank == 0), "%d", (int)state);
    if (me->rank == 0) {
        CHECK(me, forward_it(&g, &c, g.stream) == cinchInvalidUsage);
        CHECK(me, strstr(cinch_forward_why(g.forward, g.comm), "NaN or Inf"));
    }
    moving_break(g.comm, cinchRemoteError); /* what NCCL says of itself comes first */
    CHECK_OK(me, cinch_forward_async_error(g.forward, g.comm, &state));
    CHECK(me, state == cinchRemoteError);
    close_gear(&g);
}

START_TEST(failures) {
    static const char *const own[] = {NULL, NULL, "CINCH_CODEC_MIN_BYTES=2M", NULL};
    run_case(3, HOST_TOO("int8"), disagree, 1, own, "*");
    run_case(3, HOST_TOO("int8") " CINCH_NONFINITE=error", meets_nan, 2, NULL, "*");
}
END_TEST

/* ---- communicators come and go ---- */

static void comes_and_goes(seat *me) {
    static const int devices[RANKS] = {0, 1, 2, 3, 0, 1};
    gear g;
    open_gear(me, &g);
    for (int life = 0; life < 4; life++) {
        spec c = {.dtype = cinchFloat32, .count = 3000 + (size_t)life, .seed = (uint64_t)life};
        cinchComm_t before = g.comm;
        if (!same_as_host(&g, &c)) break;
        CHECK(me, compressed(&g) == 1, "%d", (int)compressed(&g)); /* nothing is left of the last */
        give(&g, &c); /* and one that is under way at the end */
        CHECK_OK(me, forward_it(&g, &c, g.stream));
        CHECK_OK(me, life % 2 ? cinch_forward_abort(g.forward, g.comm)
                              : cinch_forward_destroy(g.forward, g.comm));
        CUDA(cudaStreamSynchronize(g.stream));
        CHECK_OK(me, cinchAllReduce(g.host[0], g.host[1], 5, c.dtype, c.op, me->comm, NULL));
        meet(&g);
        if (me->rank == 0) moving_init(g.s->comm, me->nranks, devices);
        meet(&g);
        g.comm = g.s->comm[me->rank];
        CHECK(me, (before == g.comm) || me->nranks > 0);
    }
    close_gear(&g);
}

/* A communicator that does not block. */
static void dawdles(seat *me) {
    gear g;
    open_gear(me, &g);
    moving_dawdle(g.comm);
    for (uint64_t i = 0; i < 3; i++) {
        spec c = {.dtype = cinchFloat32, .count = 7001, .seed = i};
        if (!same_as_host(&g, &c)) break;
    }
    close_gear(&g);
}

START_TEST(communicators) {
    run_case(3, HOST_TOO("int8:ef=1"), comes_and_goes, 1, NULL, NULL);
    run_case(3, HOST_TOO("int8"), dawdles, 1, NULL, NULL);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {what_goes_on_as_it_is, failures, communicators};
    return run_tests("nccl_edges", tests, sizeof tests / sizeof *tests, 60);
}

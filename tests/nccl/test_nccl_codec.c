/* SPDX-License-Identifier: Apache-2.0 */
/* Forward mode with a codec: the bits of the same all-reduce on host memory, whatever order the
 * streams' work runs in. */
#include "compress/reduce.h"
#include "tests/nccl/gear.h"

static bool all_of_it; /* more cases, for when there is time */

static const size_t counts[] = {5, 6, 257, 1021, 4099, 16384, 16385, 40001, 70001, 131073};
enum { COUNTS = sizeof counts / sizeof *counts, SHORTER = COUNTS - 2 };

static spec draw(uint64_t *state, uint64_t seed) {
    static const cinchDataType_t dtypes[] = {cinchFloat32, cinchFloat16, cinchBfloat16};
    uint64_t dice = random64(state);
    return (spec){.dtype = dtypes[dice % 3],
                  .op = dice >> 8 & 1 ? cinchAvg : cinchSum,
                  .count = counts[(dice >> 16) % (all_of_it ? COUNTS : SHORTER)],
                  .offset = dice >> 32 & 1 ? dice >> 33 & 7 : 0,
                  .in_place = dice >> 40 & 1,
                  .seed = seed};
}

static void many_calls(seat *me) {
    gear g;
    uint64_t state = ((stand *)me->shared)->seed;
    cinch_forward_stats stats;
    open_gear(me, &g);
    bool good = true;
    for (int i = 0; i < 8 && good; i++) {
        spec c = draw(&state, (uint64_t)i);
        good = same_as_host(&g, &c);
    }
    if (good && me->nranks > 1) {
        CHECK(me, cinch_forward_look(g.forward, g.comm, &stats));
        CHECK(me, stats.calls == 8 && stats.compressed == 8, "%d", (int)stats.compressed);
        CHECK(me, moving_look(g.comm).allreduces == 0);
    }
    close_gear(&g);
}

START_TEST(bits_are_the_hosts) {
    static const char *const env[] = {HOST_TOO("int8"), HOST_TOO("bf16"),
                                      HOST_TOO("int8:round=stochastic,seed=5"),
                                      HOST_TOO("int8:ef=1,block=64"), HOST_TOO("topk:ratio=0.05")};
    for (int e = 0; e < 5; e++)
        for (int n = 1; n <= 4; n++)
            if (all_of_it || n == 2 + e % 3)
                run_case(n, env[e], many_calls, (uint64_t)(e * 10 + n), NULL, NULL);
}
END_TEST

/* The whole of it in one go: calls on several streams, of which none waits for another. */
enum { CALLS = 6, STREAMS = 3, PIECE = 30000 };

static void burst(gear *g, bool grouped, bool joined) {
    cudaStream_t stream[STREAMS];
    void *kept, *pinned;
    spec c[CALLS];
    uint64_t state = g->s->seed;
    bool ours;
    for (int i = 0; i < STREAMS; i++)
        CUDA(cudaStreamCreateWithFlags(&stream[i], cudaStreamNonBlocking));
    CUDA(cudaMalloc(&kept, ROOM * 4));
    CUDA(cudaHostAlloc(&pinned, sizeof(uint32_t), cudaHostAllocPortable));
    uint32_t *begin = pinned;
    *begin = 0;
    for (int i = 0; i < STREAMS; i++)
        ck_assert_int_eq(cuda_fake_wait_value(stream[i], (CUdeviceptr)(uintptr_t)begin, i ? 2 : 1,
                                              CU_STREAM_WAIT_VALUE_GEQ),
                         CUDA_SUCCESS);
    for (int i = 0; i < CALLS; i++) {
        c[i] = draw(&state, (uint64_t)i);
        c[i].count = c[i].count % PIECE + 5;
        c[i].offset = (size_t)(i * PIECE);
        c[i].dtype = cinchFloat32;
        give(g, &c[i]);
    }
    for (int i = 0; i < CALLS; i++) { /* inputs come by the streams themselves */
        char *at = g->device[c[i].in_place] + c[i].offset * 4,
             *copy = (char *)kept + c[i].offset * 4;
        CUDA(cudaMemcpy(copy, at, c[i].count * 4, cudaMemcpyDefault));
        CUDA(cudaMemset(at, 1, c[i].count * 4));
        CUDA(cudaMemcpyAsync(at, copy, c[i].count * 4, cudaMemcpyDefault, stream[i % STREAMS]));
    }
    if (grouped) ck_assert_int_eq(cinch_forward_group_start(g->forward), cinchSuccess);
    for (int i = 0; i < CALLS; i++)
        ck_assert_int_eq(forward_it(g, &c[i], stream[i % STREAMS]), cinchSuccess);
    if (grouped) ck_assert_int_eq(cinch_forward_group_end(g->forward, &ours), cinchSuccess);
    __atomic_store_n(begin, 1, __ATOMIC_RELEASE); /* nothing has waited for what streams hold */
    if (grouped) meet(g);
    if (grouped) sleep_ms(40); /* what waits for the first stream's inputs only would run now */
    __atomic_store_n(begin, 2, __ATOMIC_RELEASE);
    for (int i = joined ? STREAMS - 1 : 0; i < STREAMS; i++) CUDA(cudaStreamSynchronize(stream[i]));
    for (int i = 0; i < CALLS; i++) {
        size_t at = c[i].offset * 4;
        CHECK_OK(g->me, cinchAllReduce(g->host[c[i].in_place] + at, g->host[1] + at, c[i].count,
                                       c[i].dtype, c[i].op, g->me->comm, NULL));
        take(g, &c[i]);
        CHECK(g->me, memcmp(g->got, g->host[1] + at, c[i].count * 4) == 0, "call %d", i);
    }
    for (int i = 0; i < STREAMS; i++) CUDA(cudaStreamDestroy(stream[i]));
    CUDA(cudaFree(kept));
    CUDA(cudaFreeHost(pinned)); /* waits for all that the GPUs hold: not for what comes next */
    meet(g);
}

static void bursts(seat *me) {
    gear g;
    open_gear(me, &g);
    burst(&g, false, false); /* the first call is not alone in it */
    burst(&g, true, true);
    burst(&g, false, false);
    close_gear(&g);
}

static void grouped_first(seat *me) {
    gear g;
    open_gear(me, &g);
    burst(&g, true, false);
    spec c = {.dtype = cinchFloat32, .count = 999};
    uint64_t before = compressed(&g);
    CHECK_OK(me, cinch_forward_group_start(g.forward));
    CHECK_OK(me, forward_it(&g, &c, g.stream));
    CHECK_OK(me, cinch_forward_group_simulate(g.forward, NULL));
    CHECK(me, compressed(&g) == before);
    burst(&g, true, true);
    close_gear(&g);
}

START_TEST(streams_and_groups) {
    for (uint64_t seed = 0; seed < 4; seed++)
        for (int n = 2; n <= 4; n++) {
            if (!all_of_it && (seed || n == 4)) continue;
            run_case(n, SHORT("int8"), bursts, seed * 8 + (uint64_t)n, NULL, NULL);
            run_case(n, SHORT("int8:ef=1"), grouped_first, seed * 9 + (uint64_t)n, NULL, NULL);
        }
}
END_TEST

/* One thread calls for all ranks, in groups. */
static void one_thread(seat *me) {
    gear g;
    cinchComm_t mine;
    bool ours;
    open_gear(me, &g);
    mine = g.comm;
    for (int step = 0; step < 3; step++) {
        spec c = {.dtype = cinchFloat32, .op = cinchAvg, .count = 20001, .seed = (uint64_t)step};
        give(&g, &c);
        meet(&g);
        if (me->rank == 0) {
            CHECK_OK(me, cinch_forward_group_start(g.forward));
            for (int q = 0; q < me->nranks; q++) {
                const gear *other = g.s->gear[q];
                CHECK_OK(me, cinch_forward_allreduce(g.forward, other->device[0], other->device[1],
                                                     c.count, c.dtype, c.op, g.s->comm[q],
                                                     other->stream, &ours));
            }
            CHECK_OK(me, cinch_forward_group_end(g.forward, &ours));
        }
        meet(&g);
        CHECK_OK(me, cinchAllReduce(g.host[0], g.host[1], c.count, c.dtype, c.op, me->comm, NULL));
        take(&g, &c);
        CHECK(me, memcmp(g.got, g.host[1], c.count * 4) == 0, "step %d", step);
        meet(&g);
    }
    g.comm = NULL;
    if (me->rank == 0)
        for (int q = 0; q < me->nranks; q++)
            CHECK_OK(me, cinch_forward_destroy(g.forward, g.s->comm[q]));
    (void)mine;
    close_gear(&g);
}

START_TEST(one_thread_for_all_ranks) {
    for (int n = 2; n <= 4; n++) run_case(n, HOST_TOO("int8"), one_thread, (uint64_t)n, NULL, NULL);
}
END_TEST

/* Error feedback: many steps on the same buffers, beside others. */
static void steps(seat *me) {
    gear g;
    cinch_forward_stats stats;
    open_gear(me, &g);
    bool good = true;
    for (uint64_t i = 0; i < 12 && good; i++) {
        spec c = {.dtype = i % 3 == 2 ? cinchBfloat16 : cinchFloat32,
                  .count = i % 2 ? 9001 : 5000,
                  .offset = i % 2 ? 0 : 20000,
                  .seed = i};
        good = same_as_host(&g, &c);
    }
    CHECK(me, cinch_forward_look(g.forward, g.comm, &stats));
    CHECK(me, stats.ef_bytes > 0 && stats.ef_dropped == 0);
    close_gear(&g);
}

/* A cap below what all keys need: some are dropped, and calls go on. */
static void capped(seat *me) {
    gear g;
    cinch_forward_stats stats;
    open_gear(me, &g);
    for (uint64_t i = 0; i < 9; i++) {
        spec c = {.dtype = cinchFloat32,
                  .count = 5000 - 700 * (i % 3),
                  .offset = 20000 * (i % 3),
                  .seed = i};
        give(&g, &c);
        CHECK_OK(me, forward_it(&g, &c, g.stream));
        CUDA(cudaStreamSynchronize(g.stream));
    }
    CHECK(me, cinch_forward_look(g.forward, g.comm, &stats));
    CHECK(me, stats.ef_bytes <= 64 << 10 && stats.ef_dropped > 0, "%d kept, %d dropped",
          (int)stats.ef_bytes, (int)stats.ef_dropped);
    close_gear(&g);
}

START_TEST(error_feedback) {
    for (int n = 2; n <= (all_of_it ? 4 : 3); n++) {
        run_case(n, HOST_TOO("int8:ef=1"), steps, (uint64_t)n, NULL, NULL);
        run_case(n, HOST_TOO("topk:ratio=0.1"), steps, (uint64_t)n, NULL, NULL);
    }
    run_case(3, HOST_TOO("int8:ef=1") " CINCH_EF_MAX_BYTES=64K", capped, 5, NULL, NULL);
}
END_TEST

/* ---- hosts ---- */

/* This rank's host by its settings: "CINCH_HOSTID=a ...". */
static int host_of(const gear *g, int rank) {
    return g->s->env[rank][strlen("CINCH_HOSTID=")] - 'a';
}

/* What hosts of two ranks make of it: exact sums inside, the codec between ranks of the same place,
 * and the few elements that are no share as they are. */
static void expect_hosts(gear *g, const spec *c) {
    static _Thread_local float data[RANKS][ROOM];
    int n = g->me->nranks, mine = host_of(g, g->me->rank), place = 0, local[2] = {-1, -1};
    for (int q = 0; q < n; q++) {
        make_data(data[q], c->dtype, c->count, c->seed * 16 + (uint64_t)q);
        if (host_of(g, q) != mine) continue;
        local[local[0] < 0 ? 0 : 1] = q;
        place += q < g->me->rank;
    }
    size_t share = c->count / 2, at = (size_t)place * share, left = c->count - 2 * share;
    float *sum = (float *)(void *)g->host[0];
    for (size_t i = 0; i < share; i++) sum[i] = data[local[0]][at + i] + data[local[1]][at + i];
    cinchComm_t across;
    CHECK_OK(g->me, cinchCommSplit(g->me->comm, place, mine, &across, NULL));
    CHECK_OK(g->me, cinchAllReduce(sum, g->host[1], share, c->dtype, c->op, across, NULL));
    CHECK_OK(g->me, cinchCommDestroy(across));
    const float *got = (const float *)(const void *)g->host[1];
    for (size_t i = 0; i < share && mine == 0; i++)
        g->s->result[at + i] = got[i] * (c->op == cinchAvg ? 0.5f : 1.0f);
    void *rest = &g->s->result[2 * share];
    const void *src[RANKS];
    for (int q = 0; q < n; q++) src[q] = &data[q][2 * share];
    if (g->me->rank == 0 && left)
        cinch_reduce_kernel(c->dtype, cinchSum)(&rest, 1, src, n, left, c->op == cinchAvg ? n : 0,
                                                0);
}

/* With an odd seed above communicators that do not block. */
static void hosts_of_two(seat *me) {
    static const size_t some[] = {11, 14, 1000, 20001, 40001};
    gear g;
    open_gear(me, &g);
    if (g.s->seed % 2) moving_dawdle(g.comm);
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        spec c = {.dtype = cinchFloat32,
                  .op = i % 2 ? cinchSum : cinchAvg,
                  .count = some[i],
                  .in_place = i % 3 == 1,
                  .seed = i};
        expect_hosts(&g, &c);
        meet(&g);
        give(&g, &c);
        CHECK_OK(me, forward_it(&g, &c, g.stream));
        take(&g, &c);
        CHECK(me, memcmp(g.got, g.s->result, c.count * 4) == 0, "count %zu", c.count);
        meet(&g);
    }
    CHECK(me, compressed(&g) == 5, "%d", (int)compressed(&g));
    CHECK(me, moving_look(g.comm).sends == 0); /* they go by communicators of our own */
    close_gear(&g);
}

START_TEST(hosts) {
#define HOST(name) "CINCH_HOSTID=" name " CINCH_CODEC=int8 CINCH_CODEC_INTRA=none"
    static const char *const apart[] = {HOST("a"), HOST("b"), HOST("c"), HOST("d")};
    static const char *const pairs[] = {HOST("a"), HOST("a"), HOST("b"), HOST("b")};
    static const char *const mixed[] = {HOST("a"), HOST("b"), HOST("b"), HOST("a")};
    static const char *const three[] = {HOST("a"), HOST("b"), HOST("a"),
                                        HOST("c"), HOST("c"), HOST("b")};
    for (int n = 2; n <= (all_of_it ? 4 : 2); n++)
        run_case(n, HOST_TOO("int8"), many_calls, 100 + (uint64_t)n, apart, NULL);
    for (uint64_t seed = 0; seed < (all_of_it ? 3 : 1); seed++) {
        if (all_of_it) run_case(4, HOST_TOO("int8"), hosts_of_two, seed, pairs, NULL);
        run_case(4, HOST_TOO("int8"), hosts_of_two, seed, mixed, NULL);
        run_case(6, HOST_TOO("int8"), hosts_of_two, seed + 1, three, NULL);
    }
    run_case(3, HOST_TOO("int8"), alone_on_host, 1, pairs, "hosts have different numbers of ranks");
#define BOTH(name) "CINCH_HOSTID=" name " CINCH_CODEC=int8 CINCH_CODEC_INTRA=int8"
    static const char *const both[] = {BOTH("a"), BOTH("a"), BOTH("b")};
    run_case(3, HOST_TOO("int8"), many_calls, 1, both, NULL);
}
END_TEST

int main(int argc, char **argv) {
    const TTest *const tests[] = {bits_are_the_hosts, streams_and_groups, one_thread_for_all_ranks,
                                  error_feedback, hosts};
    all_of_it = argc > 1 && strcmp(argv[1], "long") == 0;
    return run_tests("nccl_codec", tests, sizeof tests / sizeof *tests, 300);
}

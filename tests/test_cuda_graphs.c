/* SPDX-License-Identifier: Apache-2.0 */
/* Collectives in CUDA graphs, above an emulated GPU whose streams and graphs run in random orders,
 * on pinned memory: every launch runs them again, among calls outside of graphs, in the same order
 * on all ranks; groups; what is destroyed when; what fails. */
#include <malloc.h>

#include "tests/cuda_cell.h"

/* ---- launches among calls ---- */

enum { PATHS = 2, PLANS = 3, STEPS = 24 };

/* A rank's streams, communicators and graphs. */
typedef struct kit {
    cudaStream_t stream[PATHS], side;
    cinchComm_t comm[2];
    cudaGraphExec_t exec[PLANS];
    cell *cell[PLANS][4];
    int launches[PLANS];
    cell *eager[STEPS][2];
} kit;

/* Plan 0: two calls, one after the other. 1: a group of two communicators on two streams, then one
 * of them alone. 2: branches of one communicator without anything between them. */
static bool capture_plan(seat *me, kit *k, int plan, enum cudaStreamCaptureMode mode) {
    cudaStream_t s = k->stream[0], t = k->side;
    cell **c = k->cell[plan];
    for (int i = 0; i < 4; i++) {
        c[i] = new_cell(me, 1000000 * (4 * plan + i + 1));
        TRY_CHECK(me, c[i]);
    }
    TRY_CHECK(me, cudaStreamBeginCapture(s, mode) == cudaSuccess);
    if (plan == 0) {
        if (!sum_cell(me, c[0], k->comm[0], s) || !sum_cell(me, c[1], k->comm[0], s)) return false;
    } else if (plan == 1) {
        if (!follow(me, s, t)) return false;
        TRY_CHECK(me, cudaLaunchHostFunc(s, fill_cell, c[0]) == cudaSuccess);
        TRY_CHECK(me, cudaLaunchHostFunc(t, fill_cell, c[1]) == cudaSuccess);
        TRY_CHECK(me, cinchGroupStart() == cinchSuccess);
        for (int i = 0; i < 2; i++)
            TRY_CHECK(me, cinchAllReduce(c[i]->in, c[i]->out, COUNT, cinchInt, cinchSum, k->comm[i],
                                         i ? t : s) == cinchSuccess);
        TRY_CHECK(me, cinchGroupEnd() == cinchSuccess);
        TRY_CHECK(me, cudaLaunchHostFunc(s, look_at_cell, c[0]) == cudaSuccess);
        TRY_CHECK(me, cudaLaunchHostFunc(t, look_at_cell, c[1]) == cudaSuccess);
        if (!sum_cell(me, c[2], k->comm[1], t) || !follow(me, t, s)) return false;
    } else {
        if (!follow(me, s, t)) return false;
        for (int i = 0; i < 4; i++)
            if (!sum_cell(me, c[i], k->comm[0], i % 2 ? t : s)) return false;
        if (!follow(me, t, s)) return false;
    }
    return instantiate(me, s, &k->exec[plan]);
}

static bool call_eager(seat *me, kit *k, int step, int kind) {
    cell **c = k->eager[step];
    c[0] = new_cell(me, 100000000 + 2000 * step);
    c[1] = new_cell(me, 100001000 + 2000 * step);
    TRY_CHECK(me, c[0] && c[1]);
    if (kind < 2) return sum_cell(me, c[0], k->comm[step % 2], k->stream[kind]);
    fill_cell(c[0]);
    fill_cell(c[1]);
    if (kind == 2) { /* memory that is not pinned: complete on return */
        int in[COUNT], out[COUNT];
        memcpy(in, c[0]->in, sizeof in);
        TRY_CHECK(me, cinchAllReduce(in, out, COUNT, cinchInt, cinchSum, k->comm[0], NULL) ==
                          cinchSuccess);
        memcpy(c[0]->out, out, sizeof out);
        look_at_cell(c[0]);
        return true;
    }
    TRY_CHECK(me, cinchGroupStart() == cinchSuccess);
    for (int i = 0; i < 2; i++)
        TRY_CHECK(me, cinchAllReduce(c[i]->in, c[i]->out, COUNT, cinchInt, cinchSum, k->comm[i],
                                     k->stream[i]) == cinchSuccess);
    TRY_CHECK(me, cinchGroupEnd() == cinchSuccess);
    for (int i = 0; i < 2; i++)
        TRY_CHECK(me, cudaLaunchHostFunc(k->stream[i], look_at_cell, c[i]) == cudaSuccess);
    return true;
}

static bool look_at_all(seat *me, kit *k) {
    static const int used[PLANS] = {2, 3, 4};
    for (int p = 0; p < PATHS; p++) {
        TRY_CHECK(me, cinchStreamSynchronize(k->stream[p]) == cinchSuccess);
        TRY_CHECK(me, cudaStreamSynchronize(k->stream[p]) == cudaSuccess);
    }
    for (int p = 0; p < PLANS; p++)
        for (int i = 0; i < used[p]; i++)
            TRY_CHECK(me, !k->cell[p][i]->wrong && k->cell[p][i]->right == k->launches[p],
                      "plan %d cell %d: %d wrong, %d right of %d", p, i, k->cell[p][i]->wrong,
                      k->cell[p][i]->right, k->launches[p]);
    for (int s = 0; s < STEPS; s++)
        for (int i = 0; i < 2; i++)
            TRY_CHECK(me, !k->eager[s][i] || !k->eager[s][i]->wrong, "step %d", s);
    return true;
}

/* ---- a group of one communicator on two streams ---- */

/* Launches of two executable graphs of one capture, beside each other: no gate of the one's is shut
 * by the other's before it has been passed. */
static void one_comm_two_streams(seat *me) {
    enum { LAUNCHES = 40 };
    uint64_t seed = *(uint64_t *)me->shared;
    cudaStream_t s = open_stream(), t = open_stream(), on[2] = {open_stream(), open_stream()};
    cell *c[2] = {new_cell(me, 1000000), new_cell(me, 2000000)};
    cudaGraphExec_t exec[2];
    cudaGraph_t graph;
    CHECK(me, c[0] && c[1]);
    CU(me, cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    if (!follow(me, s, t)) return;
    CHECK_OK(me, cinchGroupStart());
    for (int i = 0; i < 2; i++)
        CHECK_OK(me, cinchAllReduce(c[i]->in, c[i]->out, COUNT, cinchInt, cinchSum, me->comm,
                                    i ? t : s));
    CHECK_OK(me, cinchGroupEnd());
    if (!follow(me, t, s)) return;
    CU(me, cudaStreamEndCapture(s, &graph));
    for (int i = 0; i < 2; i++) CU(me, cudaGraphInstantiate(&exec[i], graph, 0));
    CU(me, cudaGraphDestroy(graph));
    for (int i = 0; i < 2; i++) fill_cell(c[i]);
    for (int l = 0; l < LAUNCHES; l++) CU(me, cudaGraphLaunch(exec[l % 2], on[(l + seed) % 2]));
    for (int i = 0; i < 2; i++) CU(me, cudaStreamSynchronize(on[i]));
    for (int i = 0; i < 2; i++) {
        look_at_cell(c[i]);
        CHECK(me, c[i]->right == 1);
        CU(me, cudaGraphExecDestroy(exec[i]));
        CU(me, cudaStreamDestroy(on[i]));
    }
    CU(me, cudaStreamDestroy(s));
    CU(me, cudaStreamDestroy(t));
}

START_TEST(two_graphs_of_a_group) {
    take_gates();
    for (uint64_t seed = 0; seed < 12; seed++)
        gpu_run(&(ranks_case){.nranks = 1 + (int)(seed % 2),
                              .body = one_comm_two_streams,
                              .shared = &seed},
                seed);
}
END_TEST

static void program(seat *me) {
    uint64_t state = *(uint64_t *)me->shared, mode = state;
    kit k = {.comm = {me->comm}, .side = open_stream()};
    for (int p = 0; p < PATHS; p++) k.stream[p] = open_stream();
    CHECK_OK(me, cinchCommSplit(me->comm, 0, me->rank, &k.comm[1], NULL));
    for (int p = 0; p < PLANS; p++)
        if (!capture_plan(me, &k, p,
                          (mode + (uint64_t)p) % 2 ? cudaStreamCaptureModeRelaxed
                                                   : cudaStreamCaptureModeThreadLocal))
            return;
    for (int s = 0; s < STEPS; s++) { /* nobody waits for anything but what streams wait for */
        int what = (int)(random64(&state) % 10), path = (int)(random64(&state) % PATHS);
        if (what < 6) {
            k.launches[what / 2]++;
            CU(me, cudaGraphLaunch(k.exec[what / 2], k.stream[path]));
        } else if (!call_eager(me, &k, s, what - 6)) {
            return;
        }
    }
    if (!look_at_all(me, &k)) return;
    for (int p = 0; p < PLANS; p++) CU(me, cudaGraphExecDestroy(k.exec[p]));
    for (int p = 0; p < PATHS; p++) CU(me, cudaStreamDestroy(k.stream[p]));
    CU(me, cudaStreamDestroy(k.side));
    CHECK_OK(me, cinchCommDestroy(k.comm[1]));
}

START_TEST(launches_among_calls) {
    take_gates();
    for (uint64_t seed = 0; seed < 12; seed++)
        gpu_run(&(ranks_case){.nranks = 1 + (int)(seed % 4),
                              .env = seed % 3 ? "" : "CINCH_TRANSPORT=tcp",
                              .body = program,
                              .shared = &seed},
                seed);
}
END_TEST

/* ---- one thread drives all ranks ---- */

enum { CREW = 3 };

static void check_crew(cinchComm_t *comm, cudaStream_t *stream, bool grouped) {
    seat me[CREW] = {{.rank = 0}};
    cell *c[CREW];
    cudaGraphExec_t exec;
    for (int r = 0; r < CREW; r++) {
        me[r].rank = r, me[r].nranks = CREW;
        c[r] = new_cell(&me[r], 50);
        ck_assert_ptr_nonnull(c[r]);
    }
    ck_assert(cudaStreamBeginCapture(stream[0], cudaStreamCaptureModeGlobal) == cudaSuccess);
    for (int r = 1; r < CREW; r++) ck_assert(follow(&me[r], stream[0], stream[r]));
    for (int r = 0; r < CREW; r++)
        ck_assert(cudaLaunchHostFunc(stream[r], fill_cell, c[r]) == cudaSuccess);
    if (grouped) ck_assert(cinchGroupStart() == cinchSuccess);
    for (int r = 0; r < CREW; r++)
        ck_assert(cinchAllReduce(c[r]->in, c[r]->out, COUNT, cinchInt, cinchSum, comm[r],
                                 stream[r]) == cinchSuccess);
    if (grouped) ck_assert(cinchGroupEnd() == cinchSuccess);
    for (int r = 0; r < CREW; r++)
        ck_assert(cudaLaunchHostFunc(stream[r], look_at_cell, c[r]) == cudaSuccess);
    for (int r = 1; r < CREW; r++) ck_assert(follow(&me[r], stream[r], stream[0]));
    ck_assert(instantiate(&me[0], stream[0], &exec));
    for (int k = 0; k < 10; k++) ck_assert(cudaGraphLaunch(exec, stream[k % CREW]) == cudaSuccess);
    for (int r = 0; r < CREW; r++) {
        ck_assert(cudaStreamSynchronize(stream[r]) == cudaSuccess);
        ck_assert_int_eq(c[r]->wrong, 0);
        ck_assert_int_eq(c[r]->right, 10);
    }
    ck_assert(cudaGraphExecDestroy(exec) == cudaSuccess);
}

START_TEST(one_thread_drives_all_ranks) {
    cinchComm_t comm[CREW];
    cudaStream_t stream[CREW];
    clean_environment();
    take_gates();
    ck_assert_int_eq(cinchCommInitAll(comm, CREW, NULL), cinchSuccess);
    for (int r = 0; r < CREW; r++) stream[r] = open_stream();
    for (uint64_t seed = 0; seed < 6; seed++) {
        cuda_fake_seed(seed);
        check_crew(comm, stream, seed % 2);
    }
    for (int r = 0; r < CREW; r++) ck_assert_int_eq(cinchCommDestroy(comm[r]), cinchSuccess);
    for (int r = 0; r < CREW; r++) ck_assert(cudaStreamDestroy(stream[r]) == cudaSuccess);
    free_taken();
    for (int i = 0; i < 1000 && cuda_fake_held() > 1; i++) sleep_ms(1);
    ck_assert_int_le(cuda_fake_held(), 2);
}
END_TEST

/* ---- graphs with one call ---- */

/* Two executable graphs of one, on two streams at once. */
static void both_at_once(seat *me) {
    enum { TIMES = 6 };
    cudaStream_t other = open_stream();
    single g;
    cinchStats_t before = {.size = sizeof before}, after = before;
    if (!single_make(me, &g, true)) return;
    CHECK_OK(me, cinchCommGetStats(me->comm, &before));
    for (int k = 0; k < TIMES; k++) {
        CU(me, cudaGraphLaunch(g.exec[0], g.stream));
        CU(me, cudaGraphLaunch(g.exec[1], other));
    }
    CU(me, cudaStreamSynchronize(g.stream));
    CU(me, cudaStreamSynchronize(other));
    look_at_cell(g.cell);
    CHECK_OK(me, cinchCommGetStats(me->comm, &after));
    CHECK(me, g.cell->right == 1);
    CHECK(me, after.calls - before.calls == 2 * TIMES, "%llu calls",
          (unsigned long long)(after.calls - before.calls));
    (void)single_end(me, &g, true);
    CU(me, cudaStreamDestroy(other));
}

START_TEST(two_of_one_graph) {
    take_gates();
    for (uint64_t seed = 0; seed < 8; seed++)
        gpu_run(&(ranks_case){.nranks = 2 + (int)(seed % 2), .body = both_at_once}, seed);
}
END_TEST

/* A call behind a launch returns at once, whatever the launch waits for. */
static void behind_a_launch(seat *me) {
    single g;
    cell *c = new_cell(me, 3);
    uint64_t began = now_ms();
    if (!single_make(me, &g, false) || !single_wait(me, &g)) return;
    CU(me, cudaGraphLaunch(g.exec[0], g.stream));
    if (!sum_cell(me, c, me->comm, g.stream)) return;
    CU(me, cudaGraphLaunch(g.exec[0], g.stream));
    CHECK(me, !g.cell->right && now_ms() - began < 10000);
    __atomic_store_n(g.gate, 1, __ATOMIC_RELEASE);
    CU(me, cudaStreamSynchronize(g.stream));
    CHECK(me, g.cell->right == 2 && c->right == 1 && !g.cell->wrong && !c->wrong);
    (void)single_end(me, &g, true);
}

START_TEST(a_call_behind_a_launch_waits_for_nothing) {
    take_gates();
    for (int n = 1; n <= 3; n++)
        gpu_run(&(ranks_case){.nranks = n, .body = behind_a_launch}, (uint64_t)n);
}
END_TEST

/* Nothing is taken by a launch that was not there after the first. */
static void many_launches(seat *me) {
    single g;
    int held[2];
    if (!single_make(me, &g, false)) return;
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 1 + 50 * k; i++) CU(me, cudaGraphLaunch(g.exec[0], g.stream));
        CU(me, cudaStreamSynchronize(g.stream));
        CHECK(me, wait_for_all((meeting_point *)me->shared + k, me->nranks));
        held[k] = cuda_fake_held();
        CHECK(me, wait_for_all((meeting_point *)me->shared + 2 + k, me->nranks));
    }
    CHECK(me, held[0] == held[1] && g.cell->right == 52 && !g.cell->wrong);
    (void)single_end(me, &g, true);
}

START_TEST(launches_take_nothing) {
    static meeting_point point[4];
    take_gates();
    gpu_run(&(ranks_case){.nranks = 2, .body = many_launches, .shared = point}, 3);
}
END_TEST

/* More captures than there are gates at a time: what they took is used again. */
static void many_captures(seat *me) {
    enum { WARM = 300, MANY = 4200 };
    int held = 0;
    size_t heap = 0;
    cudaStream_t stream = open_stream();
    cudaGraph_t graph;
    cell *c = new_cell(me, 1);
    CHECK(me, c && stream);
    for (int k = 0; k < WARM + MANY; k++) {
        CU(me, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        CHECK_OK(me, cinchAllReduce(c->in, c->out, COUNT, cinchInt, cinchSum, me->comm, stream));
        CU(me, cudaStreamEndCapture(stream, &graph));
        CU(me, cudaGraphDestroy(graph));
        if (k % 10 == 0) sleep_ms(1); /* what ends graphs has a thread of its own */
        if (k == WARM) held = cuda_fake_held(), heap = mallinfo2().uordblks;
    }
    CHECK(me, cuda_fake_held() <= held, "%d and %d are held", held, cuda_fake_held());
    size_t more = mallinfo2().uordblks;
    CHECK(me, more < heap + 64 * MANY, "%zu bytes, before %zu", more, heap);
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(captures_take_nothing) {
    take_gates();
    gpu_run(&(ranks_case){.nranks = 1, .body = many_captures}, 1);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {launches_among_calls,  one_thread_drives_all_ranks,
                                  two_of_one_graph,      a_call_behind_a_launch_waits_for_nothing,
                                  launches_take_nothing, captures_take_nothing,
                                  two_graphs_of_a_group};
    return run_tests("cuda_graphs", tests, sizeof tests / sizeof *tests, 60);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers in pinned memory whose every use by ranks shows, and graphs with them, above the emulated
 * GPU. */
#ifndef CINCH_TESTS_CUDA_CELL_H_
#define CINCH_TESTS_CUDA_CELL_H_

#include "tests/cuda_ranks.h"

enum { COUNT = 33 };

/* ---- buffers whose every use shows ---- */

/* An operation of the ranks: each puts in what tells the operation, and which use of it this is. */
typedef struct cell {
    int rank, nranks, base, uses;
    _Atomic int wrong, right;
    int in[COUNT], out[COUNT];
} cell;

static inline void fill_cell(void *arg) {
    cell *c = arg;
    int what = c->base + 1000 * c->uses++;
    for (int i = 0; i < COUNT; i++) c->in[i] = what + i + c->rank, c->out[i] = -1;
}

static inline void look_at_cell(void *arg) {
    cell *c = arg;
    int what = c->base + 1000 * (c->uses - 1), n = c->nranks;
    for (int i = 0; i < COUNT; i++)
        if (c->out[i] != n * (what + i) + n * (n - 1) / 2) {
            c->wrong++;
            return;
        }
    c->right++;
}

static inline cell *new_cell(const seat *me, int base) {
    cell *c = take(sizeof *c, true);
    if (c) memset(c, 0, sizeof *c);
    if (c) c->rank = me->rank, c->nranks = me->nranks, c->base = base;
    return c;
}

/* The cell is filled, the ranks' sum is taken, and looked at: all by the stream. */
static inline bool sum_cell(seat *me, cell *c, cinchComm_t comm, cudaStream_t stream) {
    TRY_CHECK(me, cudaLaunchHostFunc(stream, fill_cell, c) == cudaSuccess);
    TRY_CHECK(me, cinchAllReduce(c->in, c->out, COUNT, cinchInt, cinchSum, comm, stream) ==
                      cinchSuccess);
    TRY_CHECK(me, cudaLaunchHostFunc(stream, look_at_cell, c) == cudaSuccess);
    return true;
}

static inline bool instantiate(seat *me, cudaStream_t stream, cudaGraphExec_t *exec) {
    cudaGraph_t graph;
    TRY_CHECK(me, cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    TRY_CHECK(me, cudaGraphInstantiate(exec, graph, 0) == cudaSuccess);
    TRY_CHECK(me, cudaGraphDestroy(graph) == cudaSuccess);
    return true;
}

/* `to` goes on when `from` has come here. */
static inline bool follow(seat *me, cudaStream_t from, cudaStream_t to) {
    cudaEvent_t event;
    TRY_CHECK(me, cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
    TRY_CHECK(me, cudaEventRecord(event, from) == cudaSuccess);
    TRY_CHECK(me, cudaStreamWaitEvent(to, event, 0) == cudaSuccess);
    TRY_CHECK(me, cudaEventDestroy(event) == cudaSuccess);
    return true;
}

/* A graph with one call, of which the cell tells, but where it is bare. */
typedef struct single {
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec[2];
    cell *cell;
    uint32_t *gate;
} single;

static inline bool single_make(seat *me, single *g, bool bare) {
    g->stream = open_stream();
    g->cell = new_cell(me, 7);
    void *gate = take(sizeof *g->gate, true);
    TRY_CHECK(me, g->stream && g->cell && gate);
    g->gate = gate;
    *g->gate = 0;
    TRY_CHECK(me,
              cudaStreamBeginCapture(g->stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    if (bare) {
        fill_cell(g->cell);
        TRY_CHECK(me, cinchAllReduce(g->cell->in, g->cell->out, COUNT, cinchInt, cinchSum, me->comm,
                                     g->stream) == cinchSuccess);
    } else if (!sum_cell(me, g->cell, me->comm, g->stream)) {
        return false;
    }
    TRY_CHECK(me, cudaStreamEndCapture(g->stream, &g->graph) == cudaSuccess);
    for (int i = 0; i < 2; i++)
        TRY_CHECK(me, cudaGraphInstantiate(&g->exec[i], g->graph, 0) == cudaSuccess);
    return true;
}

static inline bool single_wait(seat *me, const single *g) {
    TRY_CHECK(me, !cuda_fake_wait_value(g->stream, (CUdeviceptr)(uintptr_t)g->gate, 1,
                                        CU_STREAM_WAIT_VALUE_GEQ));
    return true;
}

static inline bool single_end(seat *me, const single *g, bool graph) {
    for (int i = 0; i < 2; i++) TRY_CHECK(me, cudaGraphExecDestroy(g->exec[i]) == cudaSuccess);
    TRY_CHECK(me, !graph || cudaGraphDestroy(g->graph) == cudaSuccess);
    TRY_CHECK(me, cudaStreamDestroy(g->stream) == cudaSuccess);
    return true;
}

#endif

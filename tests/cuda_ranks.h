/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks as threads above an emulated GPU, and memory of it for them. */
#ifndef CINCH_TESTS_CUDA_RANKS_H_
#define CINCH_TESTS_CUDA_RANKS_H_

#include <pthread.h>

#include "base/device.h"
#include "tests/cuda/runtime/fake.h"
#include "tests/one_call.h"

#define CU(me, call) CHECK(me, (call) == cudaSuccess)

/* What the ranks have taken. It is freed when all are done: freeing waits for the whole device,
 * also for a collective that waits for the rank that frees. */
static struct {
    pthread_mutex_t lock;
    void *taken[20000];
    int count;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

static inline void *note_taken(void *p) {
    pthread_mutex_lock(&pool.lock);
    ck_assert_int_lt(pool.count, (int)(sizeof pool.taken / sizeof *pool.taken));
    pool.taken[pool.count++] = p;
    pthread_mutex_unlock(&pool.lock);
    return p;
}

static inline void *take(size_t bytes, bool pinned) {
    void *p = NULL;
    if ((pinned ? cudaMallocHost(&p, bytes) : cudaMalloc(&p, bytes)) != cudaSuccess) return NULL;
    return note_taken(p);
}

static inline void *take_pools(size_t bytes, cudaStream_t stream) {
    void *p = NULL;
    return cudaMallocAsync(&p, bytes, stream) == cudaSuccess ? note_taken(p) : NULL;
}

static inline void free_taken(void) {
    struct cudaPointerAttributes a;
    for (int i = 0; i < pool.count; i++) {
        bool pinned = cudaPointerGetAttributes(&a, pool.taken[i]) == cudaSuccess &&
                      a.type == cudaMemoryTypeHost;
        (void)(pinned ? cudaFreeHost(pool.taken[i]) : cudaFree(pool.taken[i]));
    }
    pool.count = 0;
}

/* Every how manieth case is run: the address sanitizer slows the emulated kernels down. */
#ifdef __SANITIZE_ADDRESS__
enum { GPU_CASES_APART = 3 };
#else
enum { GPU_CASES_APART = 1 };
#endif

/* Ranks as threads, above a GPU that has been used before; nothing of it is held afterwards. */
static inline void gpu_run(const ranks_case *c, uint64_t seed) {
    static bool warm;
    static int at_rest;
    cudaStream_t stream;
    void *p = NULL;
    if (!warm) at_rest = hold_now().threads;
    cuda_fake_seed(seed);
    if (!warm) {
        ck_assert(cudaMalloc(&p, 64) == cudaSuccess && cudaMemset(p, 0, 64) == cudaSuccess);
        ck_assert(cudaDeviceSynchronize() == cudaSuccess && cudaFree(p) == cudaSuccess);
        ck_assert(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
        ck_assert(cudaStreamDestroy(stream) == cudaSuccess);
    }
    for (int i = 0; i < 400 && hold_now().threads > at_rest; i++) sleep_ms(5); /* idle workers */
    int held = cuda_fake_held();
    ranks_run(c);
    free_taken();
    /* The first call takes a page of numbers for good; a stream's worker that knows of a failure
     * stays, with an event or two. */
    int most = !warm + (c->logs && strcmp(c->logs, "*") == 0 ? 2 * c->nranks : 0);
    int left = cuda_fake_held() - held;
    for (int i = 0; i < 400 && left > most; i++, left = cuda_fake_held() - held) sleep_ms(5);
    ck_assert_msg(left >= 0 && left <= most, "n=%d %s: %d left over", c->nranks,
                  c->env ? c->env : "", left);
    warm = true;
}

/* The pinned words that gates take for good are there before what is held is counted. */
static inline void free_gate(cinch_gate *gate) {
    free(gate);
}

static inline void take_gates(void) {
    const cinch_device_work *work = cinch_device_cuda.work;
    cinch_gate *gate = calloc(1, sizeof *gate);
    cudaStream_t stream;
    cudaGraph_t graph;
    uint64_t capture = 0;
    int threads = hold_now().threads;
    gate->reached = gate->gone = free_gate;
    ck_assert(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    ck_assert(work->capture(stream, &capture) == cinchSuccess && capture == 0);
    ck_assert(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
    ck_assert(work->capture(stream, &capture) == cinchSuccess && capture != 0);
    ck_assert(work->gate_hold(stream, gate) == cinchSuccess);
    ck_assert(work->gate_put(stream, gate) == cinchSuccess);
    ck_assert(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    ck_assert(cudaGraphDestroy(graph) == cudaSuccess); /* frees the gate */
    ck_assert(cudaStreamDestroy(stream) == cudaSuccess);
    for (int i = 0; i < 1000 && (cuda_fake_held() > 1 || hold_now().threads > threads); i++)
        sleep_ms(1);
    ck_assert_int_eq(cuda_fake_held(), 1);
}

/* An inside stream of the test's, which waits for no other. */
static inline cudaStream_t open_stream(void) {
    cudaStream_t stream = NULL;
    (void)cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    return stream;
}

#endif

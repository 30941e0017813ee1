/* SPDX-License-Identifier: Apache-2.0 */
/* The names of compress/cuda/device.cuh for a host compiler. Included before a kernel's source. */
#ifndef CINCH_TESTS_CUDA_EMULATE_CUH_
#define CINCH_TESTS_CUDA_EMULATE_CUH_

#define CINCH_EMULATE 1
#define __host__
#define __device__

#include "compress/cuda/shared.cuh"
#include "tests/cuda/emulate.h"

#define CINCH_DEVICE inline
#define CINCH_DEVICE_CALL inline
#define CINCH_KERNEL(threads) static void
#define CINCH_KERNEL_OF(threads, resident) static void
#define CINCH_SHARED static /* one block runs at a time */
#define CINCH_PARAMETER const

namespace cinch_cuda {

inline unsigned thread() { return cinch_emulate_thread(); }
inline unsigned threads() { return cinch_emulate_threads(); }
inline unsigned block() { return cinch_emulate_block(); }
inline unsigned blocks() { return cinch_emulate_blocks(); }

inline void sync() { cinch_emulate_sync("sync"); }
inline unsigned lane() { return thread() % 32; }
inline uint32_t lane_xor(uint32_t v, int mask) {
    return cinch_emulate_warp(v, "lane_xor")[lane() ^ (unsigned)mask];
}
inline uint32_t lane_up(uint32_t v, unsigned by) {
    const uint32_t *all = cinch_emulate_warp(v, "lane_up");
    return lane() >= by ? all[lane() - by] : v;
}
inline uint32_t lane_get(uint32_t v, int from) {
    return cinch_emulate_warp(v, "lane_get")[from % 32];
}
inline uint32_t vote(bool v) {
    const uint32_t *all = cinch_emulate_warp(v, "vote");
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++) bits |= (all[i] != 0 ? 1u : 0u) << i;
    return bits;
}
inline uint32_t warp_max(uint32_t v) {
    const uint32_t *all = cinch_emulate_warp(v, "warp_max");
    for (int i = 0; i < 32; i++) v = all[i] > v ? all[i] : v;
    return v;
}

/* Fibers do not interrupt each other. */
inline uint32_t atomic_add(uint32_t *at, uint32_t v) {
    uint32_t old = *at;
    *at += v;
    return old;
}
inline void atomic_count(unsigned long long *at, unsigned v) { *at += v; }
inline void fence() {}
inline uint32_t load_fresh(const uint32_t *at) { return *at; }
inline void atomic_or(uint32_t *at, uint32_t v) { *at |= v; }
inline int population(uint32_t v) { return __builtin_popcount(v); }
inline int lowest(uint32_t v) { return __builtin_ffs((int)v) - 1; }

/* A GPU refuses what is not aligned. */
template <class T> inline void must_be_aligned(const void *at) {
    if ((uintptr_t)at % sizeof(T))
        cinch_emulate_wrong("accesses %zu bytes at %p, which is not aligned", sizeof(T), at);
}
template <class T> inline T load(const void *at) {
    T v;
    must_be_aligned<T>(at);
    memcpy(&v, at, sizeof v);
    return v;
}
template <class T> inline void store(void *at, T v) {
    must_be_aligned<T>(at);
    memcpy(at, &v, sizeof v);
}

inline float half_to_float(uint16_t v) { return cinch_half_to_float(v); }
inline uint16_t half_from_float(float v) { return cinch_half_from_float(v); }
inline uint16_t bfloat16_from_float(float v) { return cinch_bfloat16_from_float(v); }

template <class T> struct same {
    typedef T type;
};

/* The body of all threads: the kernel with its one argument. */
template <class P> struct emulated {
    void (*kernel)(P);
    P argument;

    static void run(void *arg) {
        const emulated *self = (const emulated *)arg;
        self->kernel(self->argument);
    }
};

template <class P>
cinchResult_t launch(const char *name, void (*kernel)(P), unsigned count, unsigned width,
                     cinchStream_t stream, const typename same<P>::type &argument) {
    emulated<P> call = {kernel, argument};
    int err =
        cinch_emulate_launch(stream, count, width, emulated<P>::run, &call, sizeof call);
    if (err == 0) return cinchSuccess;
    return cinch_fail(cinchUnhandledCudaError, "the emulated kernel for %s: error %d", name, err);
}

} // namespace cinch_cuda

#endif

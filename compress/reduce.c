/* SPDX-License-Identifier: Apache-2.0 */
/* Chooses the kernels for this CPU. */
#include "compress/reduce.h"

#include <stdatomic.h>
#include <string.h>

#include "base/cpu.h"
#include "compress/dtype.h"
#include "compress/kernels.h"

const cinch_kernels *cinch_kernels_best(void) {
#if defined(__x86_64__)
    /* Threads that come here first at the same time all store the same pointer. */
    static _Atomic(const cinch_kernels *) chosen;
    const cinch_kernels *kernels = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (!kernels) {
        kernels = cinch_cpu_avx2() ? &cinch_kernels_avx2 : &cinch_kernels_reference;
        atomic_store_explicit(&chosen, kernels, memory_order_relaxed);
    }
    return kernels;
#else
    return &cinch_kernels_reference;
#endif
}

static cinch_reduce_fn lookup(const cinch_kernels *kernels, cinchDataType_t dtype,
                              cinchRedOp_t op) {
    if (!cinch_dtype_size(dtype) || (unsigned)op >= CINCH_REDUCE_OPS) return NULL;
    return kernels->reduce[dtype][op];
}

cinch_reduce_fn cinch_reduce_kernel(cinchDataType_t dtype, cinchRedOp_t op) {
    return lookup(cinch_kernels_best(), dtype, op);
}

cinch_reduce_fn cinch_reduce_reference(cinchDataType_t dtype, cinchRedOp_t op) {
    return lookup(&cinch_kernels_reference, dtype, op);
}

void cinch_premul(void *dst, const void *src, cinchDataType_t dtype, size_t count,
                  const void *scalar) {
    cinch_kernels_best()->premul[dtype](dst, src, count, scalar);
}

void cinch_copy(void *dst, const void *src, size_t bytes, unsigned flags) {
    if (dst == src || bytes == 0) return;
    if ((flags & CINCH_REDUCE_STREAM) && bytes >= CINCH_STREAM_MIN_BYTES)
        cinch_kernels_best()->copy_stream(dst, src, bytes);
    else
        memcpy(dst, src, bytes);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels behind dtype.h and reduce.h, for their dispatch and for tests that compare them. */
#ifndef CINCH_COMPRESS_KERNELS_H_
#define CINCH_COMPRESS_KERNELS_H_

#include <stdbool.h>
#include <stddef.h>

#include "compress/reduce.h"

#define CINCH_REDUCE_OPS 4 /* sum, prod, max, min: avg and PreMulSum are sums */

/* Below this the fence after non-temporal stores costs more than they save. */
#define CINCH_STREAM_MIN_BYTES 4096

typedef void (*cinch_premul_fn)(void *dst, const void *src, size_t count, const void *scalar);

typedef struct cinch_kernels {
    /* dtype as in cinch_widen, without float */
    void (*widen)(float *dst, const void *src, cinchDataType_t dtype, size_t count);
    void (*narrow)(void *dst, cinchDataType_t dtype, const float *src, size_t count);
    cinch_reduce_fn reduce[cinchNumTypes][CINCH_REDUCE_OPS];
    cinch_premul_fn premul[cinchNumTypes];
    /* Past the cache. */
    void (*copy_stream)(void *dst, const void *src, size_t bytes);
} cinch_kernels;

/* X(enumerator, the suffix of its kernels' names) for every type. */
#define CINCH_KERNEL_TYPES(X)                                                                      \
    X(cinchInt8, int8)                                                                             \
    X(cinchUint8, uint8)                                                                           \
    X(cinchInt32, int32)                                                                           \
    X(cinchUint32, uint32)                                                                         \
    X(cinchInt64, int64)                                                                           \
    X(cinchUint64, uint64)                                                                         \
    X(cinchFloat16, half)                                                                          \
    X(cinchFloat32, float)                                                                         \
    X(cinchFloat64, double)                                                                        \
    X(cinchBfloat16, bfloat16)                                                                     \
    X(cinchFloat8e4m3, f8e4m3)                                                                     \
    X(cinchFloat8e5m2, f8e5m2)

extern const cinch_kernels cinch_kernels_reference;

/* Those for this CPU. */
const cinch_kernels *cinch_kernels_best(void);

void cinch_widen_reference(float *dst, const void *src, cinchDataType_t dtype, size_t count);
void cinch_narrow_reference(void *dst, cinchDataType_t dtype, const float *src, size_t count);

#if defined(__x86_64__)
extern const cinch_kernels cinch_kernels_avx2;
void cinch_widen_avx2(float *dst, const void *src, cinchDataType_t dtype, size_t count);
void cinch_narrow_avx2(void *dst, cinchDataType_t dtype, const float *src, size_t count);
#endif

#endif

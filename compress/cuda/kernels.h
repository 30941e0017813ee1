/* SPDX-License-Identifier: Apache-2.0 */
/* Launches the CUDA kernels of reductions and codecs.
 *
 * Their results are the bits of compress/reduce.h and compress/codec.h. Every function queues on
 * the stream and returns: it allocates nothing and waits for nothing. All pointers are to memory
 * that the device can reach, of any alignment (16 bytes are fastest), counts are in elements, and a
 * count of 0 does nothing. Outputs overlap no input, except where a comment says so.
 *
 * UnhandledCudaError with a sentence: the launch failed. InvalidArgument: more sources than
 * CINCH_CUDA_TERMS, or a type that the function does not know. */
#ifndef CINCH_COMPRESS_CUDA_KERNELS_H_
#define CINCH_COMPRESS_CUDA_KERNELS_H_

#include <stddef.h>
#include <stdint.h>

#include "cinch/cinch.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CINCH_CUDA_TERMS 192 /* sources of one call: they travel as parameters of the kernel */
#define CINCH_CUDA_DESTINATIONS 8

/* Where a kernel runs. blocks: at most so many, that it leaves room beside it; 0: as many as there
 * is work for. The result does not depend on it. */
typedef struct cinch_cuda_where {
    cinchStream_t stream;
    unsigned blocks;
} cinch_cuda_where;

/* dst[0..ndst)[i] = finish(src[0][i] op ... op src[nsrc-1][i]), as cinch_reduce_fn does it: op is
 * sum, prod, max or min, avg_n is for sum. A destination is the same address as a source or
 * overlaps none. */
cinchResult_t cinch_cuda_reduce(const cinch_cuda_where *where, cinchDataType_t dtype,
                                cinchRedOp_t op, void *const *dst, int ndst, const void *const *src,
                                int nsrc, size_t count, int avg_n);

/* As cinch_premul. scalar: one element of dtype in device memory. dst may be src. */
cinchResult_t cinch_cuda_premul(const cinch_cuda_where *where, cinchDataType_t dtype, void *dst,
                                const void *src, size_t count, const void *scalar);

/* The terms of a sum, in its order: at[j] are elements where bit j % 64 of plain[j / 64] is set,
 * else an encoding of the call's count elements. */
typedef struct cinch_cuda_terms {
    const void *at[CINCH_CUDA_TERMS];
    uint64_t plain[CINCH_CUDA_TERMS / 64];
    int n;
} cinch_cuda_terms;

/* As cinch_int8_params; key: of the encode, by FORMAT.md, and index: the place of the first
 * element; both for random rounding only. */
typedef struct cinch_cuda_int8 {
    uint32_t block; /* a power of two from 32 to 4096 */
    uint32_t stochastic;
    uint64_t key, index;
} cinch_cuda_int8;

/* Element types below are half, bfloat16 or float. residual: NULL or count floats, for error
 * feedback. nonfinite: one counter in device memory, to which is added. */

/* src as one message at wire. */
cinchResult_t cinch_cuda_int8_encode(const cinch_cuda_where *where, const cinch_cuda_int8 *params,
                                     cinchDataType_t dtype, const void *src, float *residual,
                                     size_t count, void *wire, unsigned long long *nonfinite);
cinchResult_t cinch_cuda_bf16_encode(const cinch_cuda_where *where, cinchDataType_t dtype,
                                     const void *src, float *residual, size_t count, void *wire,
                                     unsigned long long *nonfinite);

/* dst = the sum of terms, as cinch_codec_sum makes it. dst may be one of the plain terms where both
 * have the same type. */
cinchResult_t cinch_cuda_int8_sum(const cinch_cuda_where *where, uint32_t block,
                                  const cinch_cuda_terms *terms, cinchDataType_t src_dtype,
                                  cinchDataType_t dst_dtype, void *dst, size_t count, int avg_n);
cinchResult_t cinch_cuda_bf16_sum(const cinch_cuda_where *where, const cinch_cuda_terms *terms,
                                  cinchDataType_t src_dtype, cinchDataType_t dst_dtype, void *dst,
                                  size_t count, int avg_n);

/* What an owner does with a chunk: the sum of terms in fp32, encoded at wire, and, where dst is not
 * NULL, decoded again there. One pass: neither the sum nor the message is read again. dst may be
 * one of the plain terms where both have the same type. */
cinchResult_t cinch_cuda_int8_sum_encode(const cinch_cuda_where *where,
                                         const cinch_cuda_int8 *params,
                                         const cinch_cuda_terms *terms, cinchDataType_t src_dtype,
                                         float *residual, size_t count, int avg_n, void *wire,
                                         cinchDataType_t dst_dtype, void *dst,
                                         unsigned long long *nonfinite);
cinchResult_t cinch_cuda_bf16_sum_encode(const cinch_cuda_where *where,
                                         const cinch_cuda_terms *terms, cinchDataType_t src_dtype,
                                         float *residual, size_t count, int avg_n, void *wire,
                                         cinchDataType_t dst_dtype, void *dst,
                                         unsigned long long *nonfinite);

/* topk, select=segment. The bytes of a message: the same as the codec's bound. */
size_t cinch_cuda_topk_bytes(double ratio, size_t count);
cinchResult_t cinch_cuda_topk_encode(const cinch_cuda_where *where, double ratio,
                                     cinchDataType_t dtype, const void *src, float *residual,
                                     size_t count, void *wire, unsigned long long *nonfinite);

/* topk, select=global. prepare sees the whole buffer, or a rank's share, which begins at `offset`,
 * and leaves in state, cinch_cuda_topk_state_bytes of device memory that is aligned to 16, what the
 * encodes of its segments need. Between the two src and residual stay as they are. At most 2^32 - 1
 * elements. */
size_t cinch_cuda_topk_state_bytes(double ratio, size_t count);
cinchResult_t cinch_cuda_topk_prepare(const cinch_cuda_where *where, double ratio, uint64_t offset,
                                      cinchDataType_t dtype, const void *src, const float *residual,
                                      size_t count, void *state);

/* For one encode, whose segments are none of those of prepare, which has left `whole`: its state,
 * in as much memory as prepare of so many elements wants. */
cinchResult_t cinch_cuda_topk_prepare_part(const cinch_cuda_where *where, const void *whole,
                                           uint64_t offset, cinchDataType_t dtype, const void *src,
                                           const float *residual, size_t count, void *state);

/* Segments of the state's: `offset` is a whole number of them behind the state's, and the last has
 * all of its elements. Messages have different lengths: measure leaves one's in *bytes, in memory
 * that the device reaches. */
cinchResult_t cinch_cuda_topk_encode_global(const cinch_cuda_where *where, const void *state,
                                            uint64_t offset, cinchDataType_t dtype, const void *src,
                                            float *residual, size_t count, void *wire,
                                            unsigned long long *nonfinite);
cinchResult_t cinch_cuda_topk_measure(const cinch_cuda_where *where, const void *wire, size_t count,
                                      unsigned long long *bytes);

/* As cinch_cuda_topk_sum; bytes[j]: the length of the message at terms->at[j]. */
cinchResult_t cinch_cuda_topk_sum_global(const cinch_cuda_where *where,
                                         const cinch_cuda_terms *terms, const size_t *bytes,
                                         cinchDataType_t src_dtype, cinchDataType_t dst_dtype,
                                         void *dst, size_t count, int avg_n, unsigned *bad);

/* As cinch_cuda_int8_sum. The messages come from peers: where one is malformed *bad, in device
 * memory, becomes 1, and dst is undefined; nothing is written outside dst. */
cinchResult_t cinch_cuda_topk_sum(const cinch_cuda_where *where, double ratio,
                                  const cinch_cuda_terms *terms, cinchDataType_t src_dtype,
                                  cinchDataType_t dst_dtype, void *dst, size_t count, int avg_n,
                                  unsigned *bad);

#ifdef __cplusplus
}
#endif

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The host's side of gpu_check: data, and what the kernels' results must be. */
#ifndef CINCH_PERF_GPU_CHECK_HOST_H_
#define CINCH_PERF_GPU_CHECK_HOST_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cinch/cinch.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Gaussian; with tails of 300 times and denormals; with NaN and Inf among any bits. */
enum { GPU_RANDOM, GPU_HEAVY, GPU_NONFINITE, GPU_KINDS };

/* out: aligned to 8. */
void gpu_host_fill(void *out, cinchDataType_t dtype, size_t count, int kind, uint64_t seed);

/* The same bits, or NaN on both sides. */
bool gpu_host_equal(const void *got, const void *want, cinchDataType_t dtype, size_t count);

void gpu_host_reduce(cinchDataType_t dtype, cinchRedOp_t op, void *dst, const void *const *src,
                     int nsrc, size_t count, int avg_n);
void gpu_host_premul(cinchDataType_t dtype, void *dst, const void *src, size_t count,
                     const void *scalar);

/* The key of an int8 encode with random rounding, at the place that gpu_host_encode encodes for:
 * element 0 of rank 0's input of call 0. */
uint64_t gpu_host_int8_key(uint64_t seed);

/* By the codec of a specification. false, after a message: something failed. */
bool gpu_host_encode(const char *spec, cinchDataType_t dtype, const void *src, float *residual,
                     size_t count, void *wire, uint64_t *nonfinite);
/* *bytes: of the message. */
bool gpu_host_encode_to(const char *spec, cinchDataType_t dtype, const void *src, float *residual,
                        size_t count, void *wire, uint64_t *nonfinite, size_t *bytes);
bool gpu_host_sum_of(const char *spec, const void *const *term, uint64_t plain, int n,
                     const size_t *bytes, cinchDataType_t src_dtype, cinchDataType_t dst_dtype,
                     void *dst, size_t count, int avg_n); /* bytes: of each message */
bool gpu_host_sum(const char *spec, const void *const *term, uint64_t plain, int n, size_t bytes,
                  cinchDataType_t src_dtype, cinchDataType_t dst_dtype, void *dst, size_t count,
                  int avg_n);

#ifdef __cplusplus
}
#endif

#endif

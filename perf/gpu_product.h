/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel to compute with beside communication. */
#ifndef CINCH_PERF_GPU_PRODUCT_H_
#define CINCH_PERF_GPU_PRODUCT_H_

#include "cinch/cinch.h"

/* c = a * b on the GPU's stream, in blocks of 64 times 64 elements, of which n is a multiple. The
 * device is selected. */
typedef cinchResult_t (*cinch_gpu_product_fn)(cinchStream_t stream, const float *a, const float *b,
                                              float *c, int n);

/* NULL in a build without CUDA. */
extern const cinch_gpu_product_fn cinch_gpu_product;

#endif

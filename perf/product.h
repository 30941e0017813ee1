/* SPDX-License-Identifier: Apache-2.0 */
/* A matrix product in fp32 to compute beside communication: on this thread's CPU, or on a stream of
 * its own of a GPU. */
#ifndef CINCH_PERF_PRODUCT_H_
#define CINCH_PERF_PRODUCT_H_

#include "perf/gpu.h"

typedef struct cinch_product {
    const cinch_device_work *work; /* NULL: on the CPU */
    int device;
    cinchStream_t stream;
    int n;        /* matrices are n times n */
    float *of[3]; /* c = a * b, where the product is made */
    float *scratch;
} cinch_product;

/* gpu->work NULL: on the CPU. After a failure too the product wants cinch_product_close. */
cinchResult_t cinch_product_open(cinch_product *product, const cinch_perf_gpu *gpu);
void cinch_product_close(cinch_product *product);

/* So many products, one after the other. On the CPU they are made on return; on a GPU they are
 * queued, and waited for by finish. */
cinchResult_t cinch_product_start(cinch_product *product, int repeats);
cinchResult_t cinch_product_finish(const cinch_product *product);

/* Whether the last one is right. Blocks. */
cinchResult_t cinch_product_check(const cinch_product *product, bool *right);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The product's matrices, and its work on the CPU. */
#include "perf/product.h"

#include <stdlib.h>
#include <string.h>

#include "perf/gpu_product.h"
#include "perf/model_gemm.h"

/* On the CPU some 0.2 ms on a core of 70 GFLOP/s. On a GPU 1024 blocks of the kernel, which are
 * more than any has resident at once, 0.5 to 2 ms; tests emulate a smaller one. */
enum { CPU_SIDE = 192 };
#ifndef CINCH_PRODUCT_GPU_SIDE
#define CINCH_PRODUCT_GPU_SIDE 2048
#endif

/* What the factors are filled with: every sum is exact. */
static const float factor[2] = {1, 2};

static size_t elements(const cinch_product *p) {
    return (size_t)p->n * (size_t)p->n;
}

static cinchResult_t take(cinch_product *p, float **memory) {
    size_t bytes = elements(p) * sizeof **memory;
    void *at = NULL;
    if (p->work)
        CINCH_TRY(p->work->alloc(p->device, bytes, &at));
    else
        at = aligned_alloc(64, (bytes + 63) / 64 * 64);
    *memory = at;
    return at ? cinchSuccess : cinch_fail(cinchSystemError, "out of memory: a matrix");
}

/* Between the product's memory and the host's. */
static cinchResult_t move(const cinch_product *p, float *to, const float *from) {
    if (!p->work) {
        memcpy(to, from, elements(p) * sizeof *to);
        return cinchSuccess;
    }
    CINCH_TRY(p->work->copy(p->device, p->stream, to, from, elements(p) * sizeof *to));
    return cinch_product_finish(p);
}

static cinchResult_t fill(cinch_product *p, float *to, float value) {
    float *host = malloc(elements(p) * sizeof *host);
    if (!host) return cinch_fail(cinchSystemError, "out of memory: a matrix");
    for (size_t i = 0; i < elements(p); i++) host[i] = value;
    cinchResult_t result = move(p, to, host);
    free(host);
    return result;
}

static cinchResult_t open_stream(void *stream) {
    return cinch_device_cuda.stream_create(stream);
}

cinchResult_t cinch_product_open(cinch_product *p, const cinch_perf_gpu *gpu) {
    *p = (cinch_product){.device = gpu->device, .n = CPU_SIDE};
    if (gpu->work) {
        if (!cinch_gpu_product)
            return cinch_fail(cinchInvalidUsage, "this build has no kernel to compute beside");
        CINCH_TRY(gpu->work->with(gpu->device, open_stream, &p->stream));
        p->work = gpu->work;
        p->n = CINCH_PRODUCT_GPU_SIDE;
    } else {
        size_t bytes = cinch_gemm_scratch() * sizeof *p->scratch;
        p->scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
        if (!p->scratch) return cinch_fail(cinchSystemError, "out of memory: a product");
    }
    for (int i = 0; i < 3; i++) CINCH_TRY(take(p, &p->of[i]));
    for (int i = 0; i < 2; i++) CINCH_TRY(fill(p, p->of[i], factor[i]));
    return fill(p, p->of[2], 0);
}

void cinch_product_close(cinch_product *p) {
    for (int i = 0; i < 3; i++)
        if (p->work && p->of[i])
            p->work->release(p->device, p->of[i]);
        else
            free(p->of[i]);
    if (p->work) p->work->stream_close(p->device, p->stream);
    free(p->scratch);
    *p = (cinch_product){0};
}

static cinchResult_t queue(void *arg) {
    const cinch_product *p = arg;
    return cinch_gpu_product(p->stream, p->of[0], p->of[1], p->of[2], p->n);
}

cinchResult_t cinch_product_start(cinch_product *p, int repeats) {
    cinch_matrix a = {p->of[0], p->n, 1}, b = {p->of[1], p->n, 1};
    for (int i = 0; i < repeats; i++)
        if (p->work)
            CINCH_TRY(p->work->with(p->device, queue, p));
        else
            cinch_gemm(p->of[2], p->n, a, b, p->n, p->n, p->n, false, p->scratch);
    return cinchSuccess;
}

cinchResult_t cinch_product_finish(const cinch_product *p) {
    return p->work ? cinchStreamSynchronize(p->stream) : cinchSuccess;
}

cinchResult_t cinch_product_check(const cinch_product *p, bool *right) {
    float *host = malloc(elements(p) * sizeof *host);
    *right = true;
    if (!host) return cinch_fail(cinchSystemError, "out of memory: a matrix");
    cinchResult_t result = move(p, host, p->of[2]);
    for (size_t i = 0; result == cinchSuccess && i < elements(p); i++)
        *right &= host[i] == factor[0] * factor[1] * (float)p->n;
    free(host);
    return result;
}

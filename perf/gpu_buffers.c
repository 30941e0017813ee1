/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers on a GPU, for --device cuda. */
#include "perf/gpu.h"

cinchResult_t cinch_perf_gpu_mirror(const cinch_perf_gpu *gpu, cinch_buffers *b) {
    for (int i = 0; i < 2 && gpu->work; i++) {
        void *memory = NULL;
        if (!b->pool[i].memory) continue;
        CINCH_TRY(gpu->work->alloc(gpu->device, cinch_buffers_size(b), &memory));
        b->pool[i].on_gpu = memory;
    }
    return cinchSuccess;
}

void cinch_perf_gpu_forget(const cinch_perf_gpu *gpu, cinch_buffers *b) {
    for (int i = 0; i < 2 && gpu->work; i++) {
        gpu->work->release(gpu->device, b->pool[i].on_gpu);
        b->pool[i].on_gpu = NULL;
    }
}

void *cinch_perf_gpu_at(const cinch_buffers *b, unsigned char *at) {
    for (int i = 0; i < 2; i++) {
        const cinch_pool *pool = &b->pool[i];
        if (at && pool->on_gpu && (size_t)(at - pool->memory) < cinch_buffers_size(b))
            return pool->on_gpu + (at - pool->memory);
    }
    return at;
}

static cinchResult_t copy_all(const cinch_perf_gpu *gpu, const cinch_buffers *b, bool to_gpu) {
    for (int i = 0; i < 2 && gpu->work; i++) {
        const cinch_pool *pool = &b->pool[i];
        if (!pool->on_gpu) continue;
        CINCH_TRY(gpu->work->copy(gpu->device, gpu->stream, to_gpu ? pool->on_gpu : pool->memory,
                                  to_gpu ? pool->memory : pool->on_gpu, cinch_buffers_size(b)));
    }
    return gpu->work ? cinchStreamSynchronize(gpu->stream) : cinchSuccess;
}

cinchResult_t cinch_perf_gpu_put(const cinch_perf_gpu *gpu, const cinch_buffers *b) {
    return copy_all(gpu, b, true);
}

cinchResult_t cinch_perf_gpu_get(const cinch_perf_gpu *gpu, const cinch_buffers *b) {
    return copy_all(gpu, b, false);
}

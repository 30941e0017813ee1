/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers on a GPU, for --device cuda. */
#include "perf/gpu.h"

#include <dlfcn.h>

bool cinch_perf_gpu_there(int *devices) {
    const cinch_device_work *work = cinch_device_cuda.work;
    *devices = 0;
    if (!work) {
        cinch_fail_quiet(cinchInvalidUsage, "this build has no CUDA");
    } else if (!dlopen("libcuda.so.1", RTLD_NOW) || !cinch_device_look()) {
        cinch_fail_quiet(cinchInvalidUsage, "CUDA's driver, libcuda.so.1, is not here");
    } else if (work->count(devices) == cinchSuccess && *devices < 1) {
        cinch_fail_quiet(cinchInvalidUsage, "CUDA's driver has no GPU");
    }
    return *devices > 0;
}

static cinchResult_t open_stream(void *stream) {
    return cinch_device_cuda.stream_create(stream);
}

cinchResult_t cinch_perf_gpu_open(cinch_perf_gpu *gpu, int rank) {
    int devices;
    if (!cinch_perf_gpu_there(&devices)) return cinchInvalidUsage;
    gpu->device = rank % devices;
    CINCH_TRY(cinch_device_cuda.work->with(gpu->device, open_stream, &gpu->stream));
    gpu->work = cinch_device_cuda.work;
    return cinchSuccess;
}

void cinch_perf_gpu_close(cinch_perf_gpu *gpu) {
    if (gpu->work) gpu->work->stream_close(gpu->device, gpu->stream);
    gpu->work = NULL;
}

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

cinchResult_t cinch_perf_gpu_finish(const cinch_perf_gpu *gpu, cinchComm_t comm) {
    cinchResult_t failed = cinchSuccess;
    if (!gpu->work) return cinchSuccess;
    CINCH_TRY(cinchStreamSynchronize(gpu->stream));
    CINCH_TRY(cinchCommGetAsyncError(comm, &failed));
    return failed == cinchSuccess ? failed
                                  : cinch_fail_quiet(failed, "%s", cinchGetLastError(comm));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The GPU of --device cuda, and the stream of the calls there. */
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

cinchResult_t cinch_perf_gpu_finish(const cinch_perf_gpu *gpu, cinchComm_t comm) {
    cinchResult_t failed = cinchSuccess;
    if (!gpu->work) return cinchSuccess;
    CINCH_TRY(cinchStreamSynchronize(gpu->stream));
    CINCH_TRY(cinchCommGetAsyncError(comm, &failed));
    return failed == cinchSuccess ? failed
                                  : cinch_fail_quiet(failed, "%s", cinchGetLastError(comm));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers on a GPU, for --device cuda: each is a mirror of one in host memory, where data are made
 * and results are checked. Without it, nothing here does anything. */
#ifndef CINCH_PERF_GPU_H_
#define CINCH_PERF_GPU_H_

#include "base/device.h"
#include "perf/buffers.h"

typedef struct cinch_perf_gpu {
    const cinch_device_work *work; /* NULL: buffers are in host memory */
    int device;
    cinchStream_t stream; /* of the calls */
} cinch_perf_gpu;

/* Loads the driver. false, with a sentence for cinchGetLastError: there is no GPU to use. */
bool cinch_perf_gpu_there(int *devices);

/* Ranks take the GPUs in turn. */
cinchResult_t cinch_perf_gpu_open(cinch_perf_gpu *gpu, int rank);
void cinch_perf_gpu_close(cinch_perf_gpu *gpu);

cinchResult_t cinch_perf_gpu_mirror(const cinch_perf_gpu *gpu, cinch_buffers *buffers);
void cinch_perf_gpu_forget(const cinch_perf_gpu *gpu, cinch_buffers *buffers);

/* What a call is to be given for an address in the buffers. */
void *cinch_perf_gpu_at(const cinch_buffers *buffers, unsigned char *at);

/* All of the buffers to the GPU, or from there. */
cinchResult_t cinch_perf_gpu_put(const cinch_perf_gpu *gpu, const cinch_buffers *buffers);
cinchResult_t cinch_perf_gpu_get(const cinch_perf_gpu *gpu, const cinch_buffers *buffers);

/* Waits for the calls so far: what became of them. */
cinchResult_t cinch_perf_gpu_finish(const cinch_perf_gpu *gpu, cinchComm_t comm);

#endif

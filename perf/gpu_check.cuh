/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of gpu_check share: memory, what was found, and codecs by name. */
#ifndef CINCH_PERF_GPU_CHECK_CUH_
#define CINCH_PERF_GPU_CHECK_CUH_

#include <cuda_runtime.h>

#include <stdio.h>
#include <stdlib.h>

#include "compress/cuda/kernels.h"

extern "C" {
#include "base/status.h"
}

/* Ends the program with a sentence where a call of CUDA or of ours fails. */
#define GPU_MUST(call) gpu_must((int)(call), #call, cudaGetErrorString(cudaGetLastError()))
#define CINCH_MUST(call) gpu_must((int)(call), #call, cinch_last_error())
static inline void gpu_must(int result, const char *call, const char *why) {
    if (result == 0) return;
    fprintf(stderr, "gpu_check: %s failed (%d): %s\n", call, result, why);
    exit(1);
}

enum { GPU_TERMS = 4 };

/* A codec, or none, and how its kernels are called. */
struct gpu_codec {
    const char *spec;
    double ratio; /* topk */
    cinch_cuda_int8 int8;
};

size_t gpu_wire_bytes(const gpu_codec *codec, size_t count);
cinchResult_t gpu_encode(const gpu_codec *codec, const cinch_cuda_where *where,
                         cinchDataType_t dtype, const void *src, float *residual, size_t count,
                         void *wire, unsigned long long *nonfinite);
cinchResult_t gpu_sum(const gpu_codec *codec, const cinch_cuda_where *where,
                      const cinch_cuda_terms *terms, cinchDataType_t dtype, void *dst,
                      size_t count, int avg_n, unsigned *bad);
/* Not for topk. */
cinchResult_t gpu_sum_encode(const gpu_codec *codec, const cinch_cuda_where *where,
                             const cinch_cuda_terms *terms, cinchDataType_t dtype,
                             float *residual, size_t count, int avg_n, void *wire, void *dst,
                             unsigned long long *nonfinite);

/* One line of the outcome. */
struct gpu_line {
    char kernel[64];
    double gbps, fraction, target; /* of bandwidth; 0: not measured */
    int cases, wrong;              /* of bits */
};

/* Compares all kernels with the host's on buffers of so many bytes; returns the lines written. */
int gpu_check_bits(size_t bytes, gpu_line *line, int room);

/* Times them with buffers of so many bytes; *copy: of a copy on the device, read and written. */
int gpu_check_speed(size_t bytes, double *copy, gpu_line *line, int room);

/* The same for topk with select=global. */
int gpu_check_global_bits(size_t bytes, gpu_line *line, int room);
int gpu_check_global_speed(size_t bytes, double copy, gpu_line *line, int room);

#endif

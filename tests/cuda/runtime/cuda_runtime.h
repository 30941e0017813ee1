/* SPDX-License-Identifier: Apache-2.0 */
/* What perf/gpu_check uses of CUDA's runtime, above host memory: everything is done when the call
 * returns. With emulated kernels, gpu_check itself can be tested. */
#ifndef CINCH_TESTS_CUDA_RUNTIME_CUDA_RUNTIME_H_
#define CINCH_TESTS_CUDA_RUNTIME_CUDA_RUNTIME_H_

#include <stdlib.h>
#include <string.h>

typedef enum { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 } cudaError_t;
typedef enum {
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice
} cudaMemcpyKind;
enum { cudaStreamNonBlocking = 1 };
typedef struct CUstream_st *cudaStream_t;
typedef int cudaEvent_t;
typedef struct cudaDeviceProp {
    char name[256];
    int major, minor;
} cudaDeviceProp;

static inline cudaError_t cudaGetDeviceCount(int *count) {
    *count = 1;
    return cudaSuccess;
}

static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
    (void)device;
    memset(p, 0, sizeof *p);
    strcpy(p->name, "emulated");
    return cudaSuccess;
}

static inline cudaError_t cudaGetLastError(void) {
    return cudaSuccess;
}

static inline const char *cudaGetErrorString(cudaError_t err) {
    return err == cudaSuccess ? "no error" : "out of memory";
}

/* As CUDA's, to 256 bytes. */
static inline cudaError_t cudaMalloc(void **p, size_t bytes) {
    *p = aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}

static inline cudaError_t cudaFree(void *p) {
    free(p);
    return cudaSuccess;
}

static inline cudaError_t cudaMemset(void *p, int value, size_t bytes) {
    memset(p, value, bytes);
    return cudaSuccess;
}

static inline cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes,
                                     cudaMemcpyKind kind) {
    (void)kind;
    memcpy(to, from, bytes);
    return cudaSuccess;
}

static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes,
                                          cudaMemcpyKind kind, cudaStream_t stream) {
    (void)stream;
    return cudaMemcpy(to, from, bytes, kind);
}

static inline cudaError_t cudaDeviceSynchronize(void) {
    return cudaSuccess;
}

static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    (void)flags;
    *stream = NULL;
    return cudaSuccess;
}

static inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    (void)stream;
    return cudaSuccess;
}

static inline cudaError_t cudaEventCreate(cudaEvent_t *event) {
    *event = 0;
    return cudaSuccess;
}

static inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
    (void)event;
    return cudaSuccess;
}

static inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    (void)event, (void)stream;
    return cudaSuccess;
}

static inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    (void)event;
    return cudaSuccess;
}

/* No clock is behind it: bandwidth means nothing here. */
static inline cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    *ms = (float)(1 + to - from);
    return cudaSuccess;
}

static inline cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = 0;
    return cudaSuccess;
}

static inline cudaError_t cudaDriverGetVersion(int *version) {
    *version = 0;
    return cudaSuccess;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The emulated driver: a library that base/cuda.c finds as it finds the real one. */
#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>
#include <string.h>

#include "tests/cuda/runtime/inside.h"

static atomic_bool is_loaded = true, has_wait_values = true, has_stream_ids = true;
static atomic_ullong loads = 1;

void cuda_fake_loaded(bool loaded) {
    atomic_store(&is_loaded, loaded);
    atomic_fetch_add(&loads, 1);
}

void cuda_fake_wait_values(bool there) {
    atomic_store(&has_wait_values, there);
}

void cuda_fake_stream_ids(bool there) {
    atomic_store(&has_stream_ids, there);
}

static CUresult end(cudaError_t err) {
    pthread_mutex_unlock(&fake_lock);
    return (CUresult)err;
}

static CUresult get_context(CUcontext *context) {
    cudaError_t err = fake_begin(false);
    *context = fake_context();
    return end(err);
}

static CUresult set_context(CUcontext context) {
    fake_select(context);
    return CUDA_SUCCESS;
}

static CUresult get_device(CUdevice *device) {
    if (!fake_context()) return CUDA_ERROR_INVALID_CONTEXT;
    *device = fake_device();
    return CUDA_SUCCESS;
}

/* Unknown memory is no error: its attributes are zero. */
static CUresult attributes(unsigned count, CUpointer_attribute *which, void **values,
                           CUdeviceptr at) {
    int device = -2; /* as CUDA has it for memory that it does not know */
    bool torn;
    cudaError_t err = fake_begin(false);
    fake_memory kind = fake_memory_of((const void *)(uintptr_t)at, 1, &device, &torn);
    for (unsigned i = 0; i < count && err == cudaSuccess; i++) {
        int value = device;
        if (which[i] == CU_POINTER_ATTRIBUTE_IS_MANAGED) value = kind == FAKE_MANAGED;
        if (which[i] == CU_POINTER_ATTRIBUTE_MEMORY_TYPE)
            value = kind == FAKE_NONE                              ? 0
                    : kind == FAKE_DEVICE || kind == FAKE_IMPORTED ? CU_MEMORYTYPE_DEVICE
                                                                   : CU_MEMORYTYPE_HOST;
        /* managed: where it was last */
        memcpy(values[i], &value, sizeof value);
    }
    return end(err);
}

static CUresult stream_context(CUstream stream, CUcontext *context) {
    cudaError_t err = fake_begin(false);
    cudaStream_t s = err == cudaSuccess ? fake_stream(stream) : NULL;
    if (err == cudaSuccess && !s) err = cudaErrorInvalidResourceHandle;
    if (err == cudaSuccess) *context = (CUcontext)(uintptr_t)(0x1000 + s->device);
    return end(err);
}

static CUresult stream_id(CUstream stream, unsigned long long *id) {
    cudaError_t err = fake_begin(false);
    cudaStream_t s = err == cudaSuccess ? fake_stream(stream) : NULL;
    if (err == cudaSuccess && !s) err = cudaErrorInvalidResourceHandle;
    if (err == cudaSuccess) *id = s->id;
    return end(err);
}

/* Not on managed or device memory, which this emulation does not look into from outside. */
CUresult cuda_fake_wait_value(CUstream stream, CUdeviceptr at, cuuint32_t value, unsigned flags) {
    void *word = (void *)(uintptr_t)at;
    int device;
    bool torn;
    cudaError_t err = fake_begin(false);
    fake_memory kind = fake_memory_of(word, sizeof value, &device, &torn);
    if (err == cudaSuccess && (flags != CU_STREAM_WAIT_VALUE_GEQ || torn || at % sizeof value ||
                               (kind != FAKE_PINNED && kind != FAKE_REGISTERED)))
        err = cudaErrorInvalidValue;
    if (err == cudaSuccess && !atomic_load(&has_wait_values)) err = cudaErrorNotSupported;
    fake_op op = {.kind = WAIT_VALUE, .to = word, .value = value};
    if (err == cudaSuccess) err = fake_queue(stream, &op, NULL);
    return end(err);
}

/* What the graph depends on is not asked for here. */
static CUresult capture_info(CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id,
                             CUgraph *graph, const CUgraphNode **after, size_t *nafter) {
    cudaError_t err = fake_begin(false);
    cudaStream_t s = err == cudaSuccess ? fake_stream(stream) : NULL;
    if (err == cudaSuccess && !s) err = cudaErrorInvalidResourceHandle;
    if (err == cudaSuccess && (after || nafter)) err = cudaErrorNotSupported;
    if (s && fake_captured_implicitly(s)) err = cudaErrorStreamCaptureImplicit;
    if (err == cudaSuccess) *status = (CUstreamCaptureStatus)s->capture;
    if (err == cudaSuccess && s->capture == cudaStreamCaptureStatusActive) {
        *id = fake_capture_id(s->graph);
        *graph = s->graph;
    }
    return end(err);
}

/* ---- the loader: base/cuda.c is compiled with these in place of its own ---- */

void *dlopen(const char *file, int mode) {
    if (strcmp(file, "libcuda.so.1") != 0) fake_wrong("%s is to be loaded", file);
    if (!(mode & RTLD_NOLOAD)) cuda_fake_loaded(true);
    return atomic_load(&is_loaded) ? &is_loaded : NULL;
}

void *dlsym(void *library, const char *name) {
    static const struct {
        const char *name;
        void (*at)(void);
    } symbols[] = {
        {"cuCtxGetCurrent", (void (*)(void))get_context},
        {"cuCtxSetCurrent", (void (*)(void))set_context},
        {"cuCtxGetDevice", (void (*)(void))get_device},
        {"cuPointerGetAttributes", (void (*)(void))attributes},
        {"cuStreamGetCtx", (void (*)(void))stream_context},
        {"cuStreamGetId", (void (*)(void))stream_id},
        {"cuStreamWaitValue32_v2", (void (*)(void))cuda_fake_wait_value},
        {"cuStreamGetCaptureInfo_v2", (void (*)(void))capture_info},
    };
    void *symbol = NULL;
    if (!strcmp(name, "cuStreamGetId") && !atomic_load(&has_stream_ids)) return NULL;
    for (size_t i = 0; library == &is_loaded && i < sizeof symbols / sizeof *symbols; i++)
        if (!strcmp(symbols[i].name, name)) memcpy(&symbol, &symbols[i].at, sizeof symbol);
    return symbol;
}

int dl_iterate_phdr(int (*call)(struct dl_phdr_info *info, size_t size, void *arg), void *arg) {
    struct dl_phdr_info info = {.dlpi_adds = atomic_load(&loads)};
    return call(&info, sizeof info, arg);
}

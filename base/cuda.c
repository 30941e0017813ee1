/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA as a device: whether it can be met in this process, whose a pointer is, streams. */
#include "base/cuda.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

/* ---- the driver ---- */

static cinch_cuda_driver driver; /* as it is from cinch_device_found on */

static bool resolve(void *library) {
    struct {
        void *at;
        const char *name;
        bool needed;
    } const wanted[] = {
        {&driver.context, "cuCtxGetCurrent", true},
        {&driver.select, "cuCtxSetCurrent", true},
        {&driver.device, "cuCtxGetDevice", true},
        {&driver.attributes, "cuPointerGetAttributes", true},
        {&driver.stream_context, "cuStreamGetCtx", true},
        {&driver.stream_id, "cuStreamGetId", false},
        {&driver.wait_value, "cuStreamWaitValue32_v2", false},      /* CUDA 11.7 */
        {&driver.capture_info, "cuStreamGetCaptureInfo_v2", false}, /* CUDA 11.3 */
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *symbol = dlsym(library, wanted[i].name);
        if (!symbol && wanted[i].needed) {
            cinch_log(CINCH_LOG_WARN, "CUDA is not used: its driver has no %s", wanted[i].name);
            return false;
        }
        memcpy(wanted[i].at, &symbol, sizeof symbol); /* as POSIX has it for functions */
    }
    return true;
}

/* How many objects were ever loaded: one look at the first in the list. */
static int count_loaded(struct dl_phdr_info *info, size_t size, void *count) {
    (void)size;
    *(unsigned long long *)count = info->dlpi_adds;
    return 1;
}

/* The application may load the driver at any time, most often by its first call of the runtime. */
bool cinch_device_look(void) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static _Atomic unsigned long long looked; /* at so many objects, the driver not among them */
    unsigned long long loaded = 0;
    if (atomic_load_explicit(&cinch_device_found, memory_order_acquire)) return true;
    dl_iterate_phdr(count_loaded, &loaded);
    if (loaded == atomic_load_explicit(&looked, memory_order_relaxed)) return false;
    pthread_mutex_lock(&lock);
    if (!atomic_load(&cinch_device_found)) {
        void *library = dlopen("libcuda.so.1", RTLD_NOLOAD | RTLD_LAZY); /* kept from here on */
        if (library && resolve(library)) atomic_store(&cinch_device_found, true);
        atomic_store(&looked, loaded);
    }
    pthread_mutex_unlock(&lock);
    return atomic_load(&cinch_device_found);
}

const cinch_cuda_driver *cinch_cuda_driver_found(void) {
    return cinch_device_look() ? &driver : NULL;
}

const char *cinch_device_cuda_text(char text[CINCH_DEVICE_TEXT]) {
    int version = 0, devices = 0;
    int used = snprintf(text, CINCH_DEVICE_TEXT, "built with %d.%d, ", CUDART_VERSION / 1000,
                        CUDART_VERSION % 1000 / 10);
    char *rest = text + used;
    size_t room = CINCH_DEVICE_TEXT - (size_t)used;
    cudaError_t err = cudaDriverGetVersion(&version);
    if (err == cudaSuccess && version) err = cudaGetDeviceCount(&devices);
    if (!version)
        snprintf(rest, room, "no driver here");
    else if (err != cudaSuccess)
        snprintf(rest, room, "no device is usable here: %s", cudaGetErrorString(err));
    else
        snprintf(rest, room, "driver for %d.%d, %d %s", version / 1000, version % 1000 / 10,
                 devices, devices == 1 ? "GPU" : "GPUs");
    if (err != cudaSuccess) cudaGetLastError();
    return text;
}

/* ---- what is selected ---- */

cinchResult_t cinch_cuda_fail(int err, const char *what) {
    cudaGetLastError(); /* it is told here and nowhere else */
    return cinch_fail(cinchUnhandledCudaError, "%s: %s", what,
                      cudaGetErrorString((cudaError_t)err));
}

static cinchResult_t begin(cinch_cuda_guard *guard) {
    const cinch_cuda_driver *d = cinch_cuda_driver_found();
    if (!d) return cinch_fail(cinchUnhandledCudaError, "CUDA's driver is not loaded");
    *guard = (cinch_cuda_guard){.mode = cudaStreamCaptureModeRelaxed};
    CUresult err = d->context(&guard->saved);
    if (err == CUDA_ERROR_NOT_INITIALIZED) guard->saved = NULL, err = CUDA_SUCCESS; /* so far */
    return err == CUDA_SUCCESS ? cinchSuccess
                               : cinch_cuda_fail((int)err, "the current CUDA context is not known");
}

static cinchResult_t entered(cinch_cuda_guard *guard, cudaError_t err, const char *what) {
    if (err == cudaSuccess) err = cudaThreadExchangeStreamCaptureMode(&guard->mode);
    if (err == cudaSuccess) return cinchSuccess;
    if (guard->switched) driver.select(guard->saved);
    return cinch_cuda_fail((int)err, what);
}

cinchResult_t cinch_cuda_enter(cinch_cuda_guard *guard, int device) {
    CUdevice current = -1;
    cudaError_t err = cudaSuccess;
    CINCH_TRY(begin(guard));
    if (guard->saved && driver.device(&current) != CUDA_SUCCESS) current = -1;
    if (!guard->saved && device < 0) err = cudaGetDevice(&device);
    if (err == cudaSuccess && device >= 0 && device != current) {
        guard->switched = true;
        err = cudaSetDevice(device);
    }
    return entered(guard, err, "a CUDA device cannot be selected");
}

cinchResult_t cinch_cuda_enter_stream(cinch_cuda_guard *guard, cinchStream_t stream) {
    CUcontext context = NULL;
    if (cinch_cuda_is_default(stream)) return cinch_cuda_enter(guard, -1);
    CINCH_TRY(begin(guard));
    CUresult err = driver.stream_context(stream, &context);
    if (err == CUDA_SUCCESS && context != guard->saved) {
        guard->switched = true;
        err = driver.select(context);
    }
    return entered(guard, (cudaError_t)err, "a CUDA stream's context cannot be selected");
}

void cinch_cuda_leave(const cinch_cuda_guard *guard) {
    enum cudaStreamCaptureMode mode = guard->mode;
    cudaThreadExchangeStreamCaptureMode(&mode);
    if (guard->switched) driver.select(guard->saved);
}

/* ---- pointers and streams ---- */

/* Asks the driver, which, unlike the runtime, makes no context for it. In a process that has not
 * begun with CUDA, or was forked from one that had, it knows nothing. */
static bool knows(const void *pointer, cinch_memory *memory) {
    const cinch_cuda_driver *d = cinch_cuda_driver_found();
    CUpointer_attribute which[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                   CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                   CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
    unsigned type = 0, managed = 0;
    int device = -1;
    void *values[] = {&type, &managed, &device};
    enum { BROKEN = 700 }; /* and above: what a context does not recover from */
    CUresult err = d ? d->attributes(3, which, values, (CUdeviceptr)pointer) : CUDA_SUCCESS;
    if ((int)err >= BROKEN) { /* it may well be the GPU's: the host must not touch it */
        *memory = (cinch_memory){CINCH_MEMORY_DEVICE, -1};
        return true;
    }
    if (err != CUDA_SUCCESS || (type == 0 && !managed)) return false;
    bool pinned = type == CU_MEMORYTYPE_HOST && !managed;
    *memory = (cinch_memory){pinned ? CINCH_MEMORY_PINNED : CINCH_MEMORY_DEVICE, device};
    return true;
}

/* A handle cannot be looked behind: what is no host stream is taken for one of CUDA's. The loader
 * is asked last, so that host streams cost no look. */
static bool owns_stream(cinchStream_t stream) {
    return stream && !cinch_device_host.owns_stream(stream) && cinch_device_look();
}

bool cinch_cuda_is_default(cinchStream_t stream) {
    return !stream || stream == cudaStreamLegacy || stream == cudaStreamPerThread;
}

/* A user's stream, of default priority: see stream_open in cuda_work.c. */
static cinchResult_t create(cinchStream_t *stream) {
    cinch_cuda_guard guard;
    CINCH_TRY(cinch_cuda_enter(&guard, -1));
    cudaError_t err = cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking);
    cinch_cuda_leave(&guard);
    return err == cudaSuccess ? cinchSuccess
                              : cinch_cuda_fail((int)err, "no CUDA stream could be made");
}

static cinchResult_t destroy(cinchStream_t stream) {
    cinch_cuda_guard guard;
    if (cinch_cuda_is_default(stream))
        return cinch_fail(cinchInvalidArgument, "a default stream of CUDA is not to be destroyed");
    CINCH_TRY(cinch_cuda_enter_stream(&guard, stream));
    cinchResult_t failed = cinch_cuda_jobs_failed(stream);
    cudaError_t err = cudaStreamDestroy(stream);
    cinch_cuda_leave(&guard);
    return err == cudaSuccess ? failed : cinch_cuda_fail((int)err, "a CUDA stream's end failed");
}

/* What CUDA says of the stream, then what the jobs on it said. */
static cinchResult_t state(cinchStream_t stream, cudaError_t (*ask)(cudaStream_t stream)) {
    cinch_cuda_guard guard;
    CINCH_TRY(cinch_cuda_enter_stream(&guard, stream));
    cudaError_t err = ask(stream);
    cinchResult_t result = cinchInProgress;
    if (err == cudaSuccess)
        result = cinch_cuda_jobs_failed(stream);
    else if (err == cudaErrorNotReady)
        cudaGetLastError();
    else
        result = cinch_cuda_fail((int)err, "a CUDA stream failed");
    cinch_cuda_leave(&guard);
    return result;
}

static cinchResult_t synchronize(cinchStream_t stream) {
    return state(stream, cudaStreamSynchronize);
}

static cinchResult_t query(cinchStream_t stream) {
    return state(stream, cudaStreamQuery);
}

const cinch_device_ops cinch_device_cuda = {
    .name = "cuda",
    .work = &cinch_cuda_work,
    .knows = knows,
    .owns_stream = owns_stream,
    .stream_create = create,
    .stream_destroy = destroy,
    .stream_synchronize = synchronize,
    .stream_query = query,
    .enqueue = cinch_cuda_enqueue,
};

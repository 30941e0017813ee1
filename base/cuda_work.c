/* SPDX-License-Identifier: Apache-2.0 */
/* What the engine does with CUDA: memory, internal streams, events, copies. */
#include <stdlib.h>
#include <string.h>

#include "base/cuda.h"

struct cinch_event {
    cudaEvent_t event;
    int device;
};

/* Enters, calls, leaves; a failure of CUDA becomes a sentence. */
#define ON(device, call, what)                                                                     \
    do {                                                                                           \
        cinch_cuda_guard guard_;                                                                   \
        CINCH_TRY(cinch_cuda_enter(&guard_, device));                                              \
        cudaError_t err_ = (call);                                                                 \
        cinch_cuda_leave(&guard_);                                                                 \
        if (err_ != cudaSuccess) return cinch_cuda_fail((int)err_, what);                          \
    } while (0)

static cinchResult_t count(int *devices) {
    cudaError_t err = cudaGetDeviceCount(devices);
    return err == cudaSuccess ? cinchSuccess : cinch_cuda_fail((int)err, "no GPU can be used");
}

static cinchResult_t identify(int device, unsigned char id[CINCH_DEVICE_ID]) {
    struct cudaDeviceProp p;
    cudaError_t err = device < 0 ? cudaGetDevice(&device) : cudaSuccess;
    if (err == cudaSuccess) err = cudaGetDeviceProperties(&p, device);
    if (err != cudaSuccess) return cinch_cuda_fail((int)err, "a GPU does not say which it is");
    memcpy(id, p.uuid.bytes, CINCH_DEVICE_ID);
    return cinchSuccess;
}

static cinchResult_t alloc(int device, size_t bytes, void **memory) {
    ON(device, cudaMalloc(memory, bytes), "no device memory for staging");
    return cinchSuccess;
}

/* Portable: every context of the process reaches it. */
static cinchResult_t alloc_pinned(int device, size_t bytes, void **memory) {
    ON(device, cudaHostAlloc(memory, bytes, cudaHostAllocPortable | cudaHostAllocMapped),
       "no pinned memory for staging");
    return cinchSuccess;
}

/* What is released cannot fail the caller any more: a broken context keeps nothing. */
static void release_by(int device, void *memory, cudaError_t (*by)(void *memory)) {
    cinch_cuda_guard guard;
    if (!memory || cinch_cuda_enter(&guard, device) != cinchSuccess) return;
    if (by(memory) != cudaSuccess) cudaGetLastError();
    cinch_cuda_leave(&guard);
}

static void release(int device, void *memory) {
    release_by(device, memory, cudaFree);
}

static void release_pinned(int device, void *memory) {
    release_by(device, memory, cudaFreeHost);
}

/* Streams of one priority share a few hardware queues, in which work behind a stream that waits for
 * a value waits too, although it has nothing to do with it. Ours are of the highest priority, so
 * that the queues of users' streams, which are mostly of the default one, are not theirs. A user's
 * stream of the highest priority may share a queue with them and hold them up for ever. */
static cudaError_t open_stream(cinchStream_t *stream) {
    int least = 0, greatest = 0;
    cudaError_t err = cudaDeviceGetStreamPriorityRange(&least, &greatest);
    if (err != cudaSuccess) return err;
    return cudaStreamCreateWithPriority(stream, cudaStreamNonBlocking, greatest);
}

static cinchResult_t stream_open(int device, cinchStream_t *stream) {
    ON(device, open_stream(stream), "no CUDA stream could be made");
    return cinchSuccess;
}

static void stream_close(int device, cinchStream_t stream) {
    cinch_cuda_guard guard;
    if (cinch_cuda_enter(&guard, device) != cinchSuccess) return;
    if (cudaStreamDestroy(stream) != cudaSuccess) cudaGetLastError();
    cinch_cuda_leave(&guard);
}

static cinchResult_t create_event(int device, cudaEvent_t *event) {
    ON(device, cudaEventCreateWithFlags(event, cudaEventDisableTiming),
       "no CUDA event could be made");
    return cinchSuccess;
}

static cinchResult_t event_open(int device, cinch_event **event) {
    cinch_event *e = calloc(1, sizeof *e);
    if (!e) return cinch_fail(cinchSystemError, "out of memory for an event");
    e->device = device;
    cinchResult_t result = create_event(device, &e->event);
    if (result == cinchSuccess)
        *event = e;
    else
        free(e);
    return result;
}

static void event_close(cinch_event *event) {
    cinch_cuda_guard guard;
    if (!event) return;
    if (cinch_cuda_enter(&guard, event->device) == cinchSuccess) {
        if (cudaEventDestroy(event->event) != cudaSuccess) cudaGetLastError();
        cinch_cuda_leave(&guard);
    }
    free(event);
}

static cinchResult_t record(cinch_event *event, cinchStream_t stream) {
    ON(event->device, cudaEventRecord(event->event, stream), "a CUDA event could not be recorded");
    return cinchSuccess;
}

static cinchResult_t wait(cinchStream_t stream, cinch_event *event) {
    ON(event->device, cudaStreamWaitEvent(stream, event->event, 0),
       "a CUDA stream cannot wait for an event");
    return cinchSuccess;
}

static cinchResult_t passed(cinch_event *event) {
    cinch_cuda_guard guard;
    CINCH_TRY(cinch_cuda_enter(&guard, event->device));
    cudaError_t err = cudaEventQuery(event->event);
    if (err == cudaErrorNotReady) cudaGetLastError();
    cinch_cuda_leave(&guard);
    if (err == cudaErrorNotReady) return cinchInProgress;
    return err == cudaSuccess ? cinchSuccess : cinch_cuda_fail((int)err, "work on a GPU failed");
}

static cinchResult_t event_open_by(cinchStream_t stream, cinch_event **event) {
    cinch_cuda_guard guard;
    int device = -1;
    CINCH_TRY(cinch_cuda_enter_stream(&guard, stream));
    cudaError_t err = cudaGetDevice(&device);
    cinch_cuda_leave(&guard);
    if (err != cudaSuccess) return cinch_cuda_fail((int)err, "a CUDA stream has no device");
    return event_open(device, event);
}

static cinchResult_t record_outside(cinch_event *event, cinchStream_t stream) {
    ON(event->device, cudaEventRecordWithFlags(event->event, stream, cudaEventRecordExternal),
       "a CUDA event could not be recorded by a graph");
    return cinchSuccess;
}

static cinchResult_t wait_outside(cinchStream_t stream, cinch_event *event) {
    ON(event->device, cudaStreamWaitEvent(stream, event->event, cudaEventWaitExternal),
       "a graph cannot wait for an event");
    return cinchSuccess;
}

static cinchResult_t copy(int device, cinchStream_t stream, void *to, const void *from,
                          size_t bytes) {
    ON(device, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream),
       "a CUDA copy could not be queued");
    return cinchSuccess;
}

/* Memory that only the kernels and copies of its own device reach as a rule, and which device that
 * is; -1: memory of another kind. */
static int home_of(const void *at) {
    struct cudaPointerAttributes a;
    if (cudaPointerGetAttributes(&a, at) == cudaSuccess)
        return a.type == cudaMemoryTypeDevice ? a.device : -1;
    cudaGetLastError();
    return -1;
}

/* What comes from a pool (cudaMallocAsync) or was mapped by the driver's calls another device does
 * not reach by cudaDeviceEnablePeerAccess ("Device Accessibility for Multi-GPU Support", CUDA C++
 * Programming Guide), but copies between two devices do. */
static cudaError_t copy_across(int device, cinchStream_t stream, void *to, const void *from,
                               size_t bytes) {
    int home = home_of(from);
    if (home < 0 || home == device || home_of(to) != device)
        return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream);
    return cudaMemcpyPeerAsync(to, device, from, home, bytes, stream);
}

static cinchResult_t copy_from(int device, cinchStream_t stream, void *to, const void *from,
                               size_t bytes) {
    ON(device, copy_across(device, stream, to, from, bytes),
       "a CUDA copy between GPUs could not be queued");
    return cinchSuccess;
}

static cinchResult_t fill(int device, cinchStream_t stream, void *to, int byte, size_t bytes) {
    ON(device, cudaMemsetAsync(to, byte, bytes, stream), "a CUDA fill could not be queued");
    return cinchSuccess;
}

static bool current(void) {
    const cinch_cuda_driver *d = cinch_cuda_driver_found();
    CUcontext context = NULL;
    return d && d->context(&context) == CUDA_SUCCESS && context;
}

static cinchResult_t with(int device, cinchResult_t (*run)(void *arg), void *arg) {
    cinch_cuda_guard guard;
    CINCH_TRY(cinch_cuda_enter(&guard, device));
    cinchResult_t result = run(arg);
    cinch_cuda_leave(&guard);
    return result;
}

/* The legacy stream is part of no graph, but what is queued there ends captures elsewhere. */
static cinchResult_t capturing(int device, cinchStream_t stream, bool *is) {
    cinch_cuda_guard guard;
    enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    CINCH_TRY(cinch_cuda_enter(&guard, device));
    cudaError_t err = cudaStreamIsCapturing(stream, &status);
    cinch_cuda_leave(&guard);
    *is = err == cudaErrorStreamCaptureImplicit || status != cudaStreamCaptureStatusNone;
    if (err == cudaSuccess) return cinchSuccess;
    if (!*is) return cinch_cuda_fail((int)err, "whether a CUDA stream is captured is not known");
    cudaGetLastError();
    return cinchSuccess;
}

const cinch_device_work cinch_cuda_work = {
    .alloc = alloc,
    .alloc_pinned = alloc_pinned,
    .release = release,
    .release_pinned = release_pinned,
    .stream_open = stream_open,
    .stream_close = stream_close,
    .event_open = event_open,
    .event_close = event_close,
    .record = record,
    .wait = wait,
    .passed = passed,
    .copy = copy,
    .copy_from = copy_from,
    .fill = fill,
    .share = cinch_cuda_share,
    .open_shared = cinch_cuda_open_shared,
    .close_shared = cinch_cuda_close_shared,
    .reaches = cinch_cuda_reaches,
    .count = count,
    .identify = identify,
    .current = current,
    .with = with,
    .capturing = capturing,
    .capture = cinch_cuda_capture,
    .gate_hold = cinch_cuda_gate_hold,
    .gate_put = cinch_cuda_gate_put,
    .gate_open = cinch_cuda_gate_open,
    .event_open_by = event_open_by,
    .record_outside = record_outside,
    .wait_outside = wait_outside,
};

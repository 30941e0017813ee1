/* SPDX-License-Identifier: Apache-2.0 */
/* Gates in CUDA graphs: at each launch a host function says that the graph has come there, and a
 * wait for a value in pinned memory holds it until the gate is opened. The host function also shuts
 * the gate again, so that nothing in the graph counts launches. CUDA tells by a user object when no
 * graph, no executable graph and no launch has the gate any more ("CUDA User Objects", CUDA C++
 * Programming Guide). */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/cuda.h"

enum { CHUNK = 4096 }; /* words of pinned memory that are taken at once, for the process's life */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint32_t **spare; /* room for all words there are */
static size_t nspare, nwords;

/* ---- words ---- */

/* Taken without the lock: the device may have to come to an end of something first, and that to
 * somebody who opens a gate. */
static cinchResult_t take_chunk(void) {
    void *memory = NULL;
    cudaError_t err =
        cudaHostAlloc(&memory, CHUNK * sizeof **spare, cudaHostAllocPortable | cudaHostAllocMapped);
    if (err != cudaSuccess) return cinch_cuda_fail((int)err, "no pinned memory");
    memset(memory, 0, CHUNK * sizeof **spare);
    pthread_mutex_lock(&lock);
    _Atomic uint32_t **list = realloc(spare, (nwords + CHUNK) * sizeof(*spare));
    if (list) {
        spare = list;
        nwords += CHUNK;
        for (size_t i = 0; i < CHUNK; i++) spare[nspare++] = (_Atomic uint32_t *)memory + i;
    }
    pthread_mutex_unlock(&lock);
    if (list) return cinchSuccess;
    cudaFreeHost(memory);
    return cinch_fail(cinchSystemError, "out of memory for a graph's gates");
}

static cinchResult_t take_word(_Atomic uint32_t **word) {
    for (*word = NULL;;) {
        pthread_mutex_lock(&lock);
        if (nspare) *word = spare[--nspare];
        pthread_mutex_unlock(&lock);
        if (*word) return cinchSuccess;
        CINCH_TRY(take_chunk());
    }
}

static void give_word(_Atomic uint32_t *word) {
    pthread_mutex_lock(&lock);
    spare[nspare++] = word;
    pthread_mutex_unlock(&lock);
}

/* ---- by the driver's threads ---- */

static void CUDART_CB reach(void *arg) {
    cinch_gate *gate = arg;
    atomic_store_explicit(gate->word, 0, memory_order_release);
    gate->reached(gate);
}

static void CUDART_CB let_go(void *arg) {
    cinch_gate *gate = arg;
    give_word(gate->word);
    gate->gone(gate);
}

/* ---- the capture ---- */

typedef struct capture {
    uint64_t id;
    CUgraph graph;
} capture;

/* id 0: none. */
static cinchResult_t look(cinchStream_t stream, capture *c) {
    const cinch_cuda_driver *d = cinch_cuda_driver_found();
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    cuuint64_t id = 0;
    bool captured = false;
    *c = (capture){0};
    /* A host function that waits, as in cuda_jobs.c, would hold up those that others wait for. */
    if (!d->capture_info || !d->wait_value) {
        CINCH_TRY(cinch_cuda_work.capturing(-1, stream, &captured));
        if (!captured) return cinchSuccess;
        return cinch_fail(cinchInvalidUsage,
                          "stream %p is being captured: collectives that this library runs itself "
                          "are accepted in CUDA graphs from a driver of CUDA 11.7 on",
                          (void *)stream);
    }
    CUresult err = d->capture_info(stream, &status, &id, &c->graph, NULL, NULL);
    if (err == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT)
        return cinch_fail(cinchInvalidUsage,
                          "a call on the legacy default stream while a stream that waits for it is "
                          "being captured: streams of their own are accepted there");
    if (err != CUDA_SUCCESS)
        return cinch_cuda_fail((int)err, "whether a CUDA stream is captured is not known");
    if (status == CU_STREAM_CAPTURE_STATUS_INVALIDATED)
        return cinch_fail(cinchInvalidUsage,
                          "stream %p is being captured, and that has failed before this call",
                          (void *)stream);
    if (status == CU_STREAM_CAPTURE_STATUS_ACTIVE) c->id = id;
    return cinchSuccess;
}

cinchResult_t cinch_cuda_capture(cinchStream_t stream, uint64_t *id) {
    cinch_cuda_guard guard;
    capture c;
    CINCH_TRY(cinch_cuda_enter_stream(&guard, stream));
    cinchResult_t result = look(stream, &c);
    cinch_cuda_leave(&guard);
    *id = c.id;
    return result;
}

/* The graph has the gate from here on. */
static cinchResult_t retain(const capture *c, cinch_gate *gate) {
    cudaUserObject_t object = NULL;
    cudaError_t err =
        cudaUserObjectCreate(&object, gate, let_go, 1, cudaUserObjectNoDestructorSync);
    if (err == cudaSuccess) {
        gate->held = true;
        err = cudaGraphRetainUserObject(c->graph, object, 1, cudaGraphUserObjectMove);
        if (err != cudaSuccess) cudaUserObjectRelease(object, 1);
    }
    return err == cudaSuccess ? cinchSuccess
                              : cinch_cuda_fail((int)err, "a CUDA graph cannot hold a collective");
}

static cinchResult_t queue(cinchStream_t stream, cinch_gate *gate) {
    const cinch_cuda_driver *d = cinch_cuda_driver_found();
    cudaError_t err = cudaLaunchHostFunc(stream, reach, gate);
    if (err == cudaSuccess)
        err = (cudaError_t)d->wait_value(stream, (CUdeviceptr)(void *)gate->word, 1,
                                         CU_STREAM_WAIT_VALUE_GEQ);
    return err == cudaSuccess
               ? cinchSuccess
               : cinch_cuda_fail((int)err, "a collective could not be captured into a CUDA graph");
}

cinchResult_t cinch_cuda_gate_hold(cinchStream_t stream, cinch_gate *gate) {
    cinch_cuda_guard guard;
    capture c;
    gate->held = false;
    CINCH_TRY(cinch_cuda_enter_stream(&guard, stream));
    cinchResult_t result = look(stream, &c);
    if (result == cinchSuccess && !c.id)
        result = cinch_fail(cinchInternalError, "a gate is given to a stream that is not captured");
    if (result == cinchSuccess) result = take_word(&gate->word);
    if (result == cinchSuccess) {
        result = retain(&c, gate);
        if (!gate->held) give_word(gate->word);
    }
    cinch_cuda_leave(&guard);
    return result;
}

cinchResult_t cinch_cuda_gate_put(cinchStream_t stream, cinch_gate *gate) {
    cinch_cuda_guard guard;
    CINCH_TRY(cinch_cuda_enter_stream(&guard, stream));
    cinchResult_t result = queue(stream, gate);
    cinch_cuda_leave(&guard);
    return result;
}

void cinch_cuda_gate_open(cinch_gate *gate) {
    atomic_store_explicit(gate->word, 1, memory_order_release);
}

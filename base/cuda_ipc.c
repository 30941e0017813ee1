/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory of other processes and of other GPUs. A process opens a handle once, however many
 * of its ranks ask for it: CUDA does not promise more ("Interprocess Communication", CUDA C++
 * Programming Guide). What is refused here the caller does in another way, so it makes no line in
 * the log. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cuda.h"

_Static_assert(sizeof(cudaIpcMemHandle_t) == sizeof(cinch_device_handle), "they are the same");

typedef struct opened {
    struct opened *next;
    cinch_device_handle handle;
    int device, users;
    bool opening; /* by one thread; others wait for it */
    void *memory;
} opened;

/* Of the list. Not held while CUDA is called, which may wait for all that the device has to do, and
 * so for calls of ranks that wait for this lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static opened *list;

static cinchResult_t refused(cudaError_t err, const char *what) {
    cudaGetLastError();
    return cinch_fail_quiet(cinchUnhandledCudaError, "%s: %s", what, cudaGetErrorString(err));
}

cinchResult_t cinch_cuda_share(int device, void *memory, cinch_device_handle *handle) {
    cinch_cuda_guard guard;
    cudaIpcMemHandle_t made;
    CINCH_TRY(cinch_cuda_enter(&guard, device));
    cudaError_t err = cudaIpcGetMemHandle(&made, memory);
    cinch_cuda_leave(&guard);
    if (err != cudaSuccess) return refused(err, "CUDA gives no handle for other processes");
    memcpy(handle, &made, sizeof *handle);
    return cinchSuccess;
}

static cinchResult_t open_by_cuda(int device, const cinch_device_handle *handle, void **memory) {
    cinch_cuda_guard guard;
    cudaIpcMemHandle_t given;
    memcpy(&given, handle, sizeof given);
    CINCH_TRY(cinch_cuda_enter(&guard, device));
    cudaError_t err = cudaIpcOpenMemHandle(memory, given, cudaIpcMemLazyEnablePeerAccess);
    cinch_cuda_leave(&guard);
    return err == cudaSuccess ? cinchSuccess
                              : refused(err, "CUDA does not open another process's memory");
}

/* The lock is held in these. */
static opened *find(int device, const cinch_device_handle *handle) {
    opened *o = list;
    while (o && (o->device != device || memcmp(&o->handle, handle, sizeof *handle) != 0))
        o = o->next;
    return o;
}

static opened *add(int device, const cinch_device_handle *handle) {
    opened *o = calloc(1, sizeof *o);
    if (!o) return NULL;
    *o = (opened){.next = list, .handle = *handle, .device = device, .opening = true};
    list = o;
    return o;
}

static void drop(opened *o) {
    opened **at = &list;
    while (*at != o) at = &(*at)->next;
    *at = o->next;
}

cinchResult_t cinch_cuda_open_shared(int device, const cinch_device_handle *handle, void **memory) {
    opened *o;
    cinchResult_t result = cinchSuccess;
    pthread_mutex_lock(&lock);
    while ((o = find(device, handle)) && o->opening) pthread_cond_wait(&changed, &lock);
    bool ours = !o;
    if (ours) o = add(device, handle);
    if (ours && o) {
        pthread_mutex_unlock(&lock);
        result = open_by_cuda(device, handle, memory);
        pthread_mutex_lock(&lock);
        o->memory = result == cinchSuccess ? *memory : NULL;
        o->opening = false;
        pthread_cond_broadcast(&changed);
    }
    if (!o) {
        result = cinch_fail_quiet(cinchSystemError, "out of memory for a handle");
    } else if (result == cinchSuccess) {
        o->users++;
        *memory = o->memory;
    } else {
        drop(o);
        free(o);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

/* Whoever opens the same handle meanwhile gets it from CUDA, which counts ("cudaIpcOpenMemHandle",
 * CUDA Runtime API). */
void cinch_cuda_close_shared(int device, void *memory) {
    cinch_cuda_guard guard;
    pthread_mutex_lock(&lock);
    opened *o = list;
    while (o && (o->memory != memory || o->device != device)) o = o->next;
    bool last = o && --o->users == 0;
    if (last) drop(o);
    pthread_mutex_unlock(&lock);
    if (!last) return;
    free(o);
    if (cinch_cuda_enter(&guard, device) != cinchSuccess) return;
    if (cudaIpcCloseMemHandle(memory) != cudaSuccess) cudaGetLastError();
    cinch_cuda_leave(&guard);
}

bool cinch_cuda_reaches(int device, int other) {
    cinch_cuda_guard guard;
    int can = 0;
    if (device == other) return true;
    if (cinch_cuda_enter(&guard, device) != cinchSuccess) return false;
    cudaError_t err = cudaDeviceCanAccessPeer(&can, device, other);
    if (err == cudaSuccess && can) err = cudaDeviceEnablePeerAccess(other, 0);
    if (err == cudaErrorPeerAccessAlreadyEnabled) {
        cudaGetLastError();
        err = cudaSuccess;
    }
    cinch_cuda_leave(&guard);
    if (err == cudaSuccess && can) return true;
    (void)refused(err, "a GPU does not reach another");
    return false;
}

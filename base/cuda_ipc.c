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
    void *memory;
} opened;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
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

/* The lock is held. */
static cinchResult_t open_new(int device, const cinch_device_handle *handle, opened **out) {
    cinch_cuda_guard guard;
    cudaIpcMemHandle_t given;
    opened *o = calloc(1, sizeof *o);
    if (!o) return cinch_fail_quiet(cinchSystemError, "out of memory for a handle");
    cinchResult_t entered = cinch_cuda_enter(&guard, device);
    if (entered != cinchSuccess) {
        free(o);
        return entered;
    }
    memcpy(&given, handle, sizeof given);
    cudaError_t err = cudaIpcOpenMemHandle(&o->memory, given, cudaIpcMemLazyEnablePeerAccess);
    cinch_cuda_leave(&guard);
    if (err != cudaSuccess) {
        free(o);
        return refused(err, "CUDA does not open another process's memory");
    }
    o->handle = *handle;
    o->device = device;
    o->next = list;
    list = *out = o;
    return cinchSuccess;
}

cinchResult_t cinch_cuda_open_shared(int device, const cinch_device_handle *handle, void **memory) {
    cinchResult_t result = cinchSuccess;
    pthread_mutex_lock(&lock);
    opened *o = list;
    while (o && (o->device != device || memcmp(&o->handle, handle, sizeof *handle) != 0))
        o = o->next;
    if (!o) result = open_new(device, handle, &o);
    if (result == cinchSuccess) {
        o->users++;
        *memory = o->memory;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

void cinch_cuda_close_shared(int device, void *memory) {
    cinch_cuda_guard guard;
    pthread_mutex_lock(&lock);
    opened **at = &list;
    while (*at && ((*at)->memory != memory || (*at)->device != device)) at = &(*at)->next;
    opened *o = *at;
    if (o && --o->users == 0) {
        *at = o->next;
        if (cinch_cuda_enter(&guard, device) == cinchSuccess) {
            if (cudaIpcCloseMemHandle(memory) != cudaSuccess) cudaGetLastError();
            cinch_cuda_leave(&guard);
        }
        free(o);
    }
    pthread_mutex_unlock(&lock);
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

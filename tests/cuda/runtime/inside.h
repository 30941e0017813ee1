/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the emulation share. */
#ifndef CINCH_TESTS_CUDA_RUNTIME_INSIDE_H_
#define CINCH_TESTS_CUDA_RUNTIME_INSIDE_H_

#include <pthread.h>
#include <stddef.h>

#include "tests/cuda/runtime/fake.h"

typedef enum {
    COPY,
    FILL,
    KERNEL,
    RECORD,
    WAIT_EVENT,
    WAIT_VALUE,
    HOST_FUNCTION,
    LAUNCH_OVER /* of a graph; `call` is called with the lock held */
} fake_kind;

struct CUevent_st {
    int device, users; /* users: queued work, and whoever has not destroyed it */
    bool destroyed;
    uint64_t recorded, reached;
    uint64_t capture; /* where it was recorded last; 0: on a stream that was not captured */
    int node;         /* of that capture, -1: it begins there */
};

typedef struct fake_op {
    struct fake_op *next;
    uint64_t number; /* in the order of calls */
    fake_kind kind;
    void *to; /* copy, fill; a kernel's or function's argument; a value's address */
    const void *from;
    size_t bytes;
    int byte;
    uint32_t value;
    bool across;  /* a copy that names both devices */
    bool outside; /* an event that graphs share with what is outside of them */
    cudaEvent_t event;
    uint64_t generation; /* of the event */
    void (*call)(void *arg);
    unsigned blocks, threads;
    bool begun, done; /* of functions, which run on a thread of their own */
} fake_op;

struct CUstream_st {
    struct CUstream_st *next;
    int device, priority;
    bool blocking, legacy, destroyed;
    unsigned long long id;
    pthread_t thread; /* of a per-thread stream */
    bool per_thread;
    fake_op *head, **tail;
    enum cudaStreamCaptureStatus capture;
    enum cudaStreamCaptureMode capture_mode;
    cudaGraph_t graph; /* it is captured into */
    int branch, node;  /* its part of that, and what it waits for there; -1: nothing */
};

/* Of everything. What changes is broadcast. */
extern pthread_mutex_t fake_lock;
extern pthread_cond_t fake_changed;
extern cudaStream_t fake_streams;
extern cudaError_t fake_broken;

/* ---- calls ---- */

/* The thread is one of the driver's, in a function of the user's: no call is allowed. */
extern _Thread_local bool fake_in_callback;

/* Begins a call that can fail, with the lock taken: the error that it ends with at once, or
 * success. `forbidden`: a capture does not bear it. */
cudaError_t fake_begin(bool forbidden);
/* Ends it: gives the lock back and notes the error for cudaGetLastError. */
cudaError_t fake_end(cudaError_t err);
int fake_device(void); /* the current one; it becomes so where none is */
CUcontext fake_context(void);
void fake_select(CUcontext context);

/* ---- streams; the lock is held ---- */

cudaStream_t fake_stream(cudaStream_t handle); /* NULL: there is none */
cudaStream_t fake_stream_add(int device);
cudaError_t fake_queue(cudaStream_t handle, const fake_op *op, fake_op **queued);
void fake_event_leave(cudaEvent_t event);
bool fake_captured_implicitly(const struct CUstream_st *s); /* what is queued there ends one */
void fake_detach(void *(*body)(void *arg), void *arg);
/* Wait until the stream (NULL: every one of the device, -1: of all) has nothing left. */
cudaError_t fake_drain(cudaStream_t stream, int device);

/* ---- captures and graphs; the lock is held ---- */

cudaError_t fake_capture(cudaStream_t s, const fake_op *op);
/* What a record or a wait on a captured stream, or for a captured event, does; *taken: all of it.
 */
cudaError_t fake_capture_event(cudaStream_t s, fake_op *op, bool *taken);
void fake_capture_fails(cudaGraph_t graph);
uint64_t fake_capture_id(cudaGraph_t graph);
int fake_graphs(void); /* and executable ones, and user objects: those that are held */

/* ---- memory; the lock is held ---- */

/* Device memory lies in one memfd at FAKE_ARENA's addresses, which need no memory until they are
 * used; behind it is a table for fake_ipc.c. */
#define FAKE_ARENA ((size_t)16 << 30)
#define FAKE_ARENA_TABLE ((size_t)16384)

typedef enum {
    FAKE_NONE,
    FAKE_DEVICE,
    FAKE_PINNED,
    FAKE_REGISTERED,
    FAKE_MANAGED,
    FAKE_IMPORTED /* another process's */
} fake_memory;
cudaError_t fake_take(fake_memory kind, int device, void *at, size_t bytes, void **memory);
cudaError_t fake_give(void *memory, fake_memory kind, fake_memory or_kind);
/* Of the allocation that holds all these bytes; FAKE_NONE, with *torn where it holds only some. */
fake_memory fake_memory_of(const void *at, size_t bytes, int *device, bool *torn);
void fake_pool(const void *at); /* it is a pool's, which its own device alone reaches */
bool fake_is_pools(const void *at);
void fake_open_memory(bool open); /* by the executing thread alone */
int fake_blocks(void);

/* ---- between processes; the lock is held ---- */

void fake_arena_begin(void); /* in a process that has not begun */
void *fake_arena_table(void);
/* Where an allocation of the device's memory lies in the memfd; false: it is none. */
bool fake_arena_place(const void *memory, uint64_t *offset, uint64_t *bytes, int *fd, int *device);
void fake_ipc_freed(uint64_t offset);
void fake_ipc_open(bool open); /* what belongs to other processes */

void fake_wrong(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs on the user's CUDA streams. Each stream in use has a worker thread: it waits until the
 * stream has come to a job, runs it, and raises a number in pinned memory, for which the stream
 * waits. That is one event and one wait for a value a job; no thread of the driver is held up, and
 * the caller waits for nothing. A driver without waits for values gets a host function that waits
 * instead: it may hold up the host functions of other streams, so that two ranks of one process,
 * each waiting for the other's, may wait for ever. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cuda.h"

#ifndef CINCH_CUDA_IDLE_MS
#define CINCH_CUDA_IDLE_MS 1000 /* how long a worker waits for another job before it ends */
#endif

enum { MOST_WORKERS = 4096 }; /* numbers in pinned memory, which is taken once */

typedef struct entry {
    struct entry *next;
    cinch_job *job;
    cudaEvent_t reached; /* by the stream: the job may run */
    uint32_t number;
} entry;

/* What tells streams apart. Handles are used again for new streams, ids are not; the default
 * streams have one for each context, or thread. */
typedef struct key {
    CUcontext context;
    cinchStream_t stream;
    unsigned long long id;
} key;

typedef struct worker {
    struct worker *next; /* in the registry */
    key key;
    int users;             /* of the registry's lock: calls and host functions that hold it */
    int slot;              /* of its number in pinned memory */
    pthread_mutex_t order; /* of calls, so that jobs are queued as the stream meets them */
    pthread_mutex_t lock;  /* of all below; nothing of CUDA is called with it held */
    pthread_cond_t changed;
    entry *head, **tail, *spare;
    uint32_t queued, done; /* numbers of the last job */
    bool runs;             /* it has a thread */
    cinchResult_t failed;  /* the first */
    char why[CINCH_ERROR_TEXT];
} worker;

/* A host function's place in a stream. */
typedef struct ticket {
    worker *worker;
    uint32_t number;
} ticket;

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static worker *registry;
static _Atomic uint32_t *words;        /* pinned; for the life of the process */
static uint32_t counted[MOST_WORKERS]; /* where a slot's next user goes on */
static bool slot_used[MOST_WORKERS];

/* ---- forks: a child has neither the threads nor the contexts ---- */

static bool forked; /* from a process that had them */

static void before_fork(void) {
    pthread_mutex_lock(&registry_lock);
}

static void in_parent(void) {
    pthread_mutex_unlock(&registry_lock);
}

static void in_child(void) {
    forked = true;
    registry = NULL;
    pthread_mutex_unlock(&registry_lock);
}

static void heed_forks(void) {
    pthread_atfork(before_fork, in_parent, in_child);
}

/* ---- workers ---- */

/* The lock of the registry is held in these. */
static worker *find(const key *k) {
    worker *w = registry;
    while (w && (w->key.context != k->context || w->key.stream != k->stream || w->key.id != k->id))
        w = w->next;
    return w;
}

static int free_slot(void) {
    int slot = 0;
    while (slot < MOST_WORKERS && slot_used[slot]) slot++;
    return slot;
}

static cinchResult_t add(const key *k, worker **made) {
    pthread_condattr_t attr;
    int slot = free_slot();
    if (slot == MOST_WORKERS)
        return cinch_fail(cinchSystemError,
                          "calls are under way on %d CUDA streams: so many at a "
                          "time are accepted",
                          MOST_WORKERS);
    if (!words) {
        void *memory = NULL;
        cudaError_t err = cudaHostAlloc(&memory, sizeof *words * MOST_WORKERS,
                                        cudaHostAllocPortable | cudaHostAllocMapped);
        if (err != cudaSuccess) return cinch_cuda_fail((int)err, "no pinned memory");
        memset(memory, 0, sizeof *words * MOST_WORKERS);
        words = memory;
    }
    worker *w = calloc(1, sizeof *w);
    if (!w) return cinch_fail(cinchSystemError, "out of memory for a stream's worker");
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&w->order, NULL);
    pthread_mutex_init(&w->lock, NULL);
    w->key = *k;
    w->slot = slot;
    w->queued = w->done = counted[slot];
    w->tail = &w->head;
    slot_used[slot] = true;
    w->next = registry;
    registry = w;
    *made = w;
    return cinchSuccess;
}

static void drop(worker *w) {
    worker **at = &registry;
    while (*at != w) at = &(*at)->next;
    *at = w->next;
    counted[w->slot] = w->done;
    slot_used[w->slot] = false;
}

static void destroy(worker *w) {
    while (w->spare) {
        entry *e = w->spare;
        w->spare = e->next;
        if (cudaEventDestroy(e->reached) != cudaSuccess) cudaGetLastError();
        free(e);
    }
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    pthread_mutex_destroy(&w->order);
    free(w);
}

static key key_of(cinchStream_t stream) {
    const cinch_cuda_driver *d = cinch_cuda_driver_found();
    key k = {.stream = stream ? stream : cudaStreamLegacy};
    d->context(&k.context);
    if (d->stream_id && d->stream_id(k.stream, &k.id) == CUDA_SUCCESS) return k;
    k.id = k.stream == cudaStreamPerThread ? (unsigned long long)pthread_self() : 0;
    return k;
}

static void give_back(worker *w) {
    pthread_mutex_lock(&registry_lock);
    w->users--;
    pthread_mutex_unlock(&registry_lock);
}

/* With no job left for a while: whether the thread ends. A worker that knows of a failure stays, to
 * tell it. */
static bool retire(worker *w) {
    pthread_mutex_lock(&registry_lock);
    pthread_mutex_lock(&w->lock);
    bool ends = !w->head && !w->users, goes = ends && w->failed == cinchSuccess;
    if (ends) w->runs = false;
    if (goes) drop(w);
    pthread_mutex_unlock(&w->lock);
    pthread_mutex_unlock(&registry_lock);
    if (goes) destroy(w);
    return ends;
}

/* ---- the thread ---- */

/* With the lock held: false after a while without a job. */
static bool await_job(worker *w) {
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += (long)(CINCH_CUDA_IDLE_MS % 1000) * 1000000;
    end.tv_sec += CINCH_CUDA_IDLE_MS / 1000 + end.tv_nsec / 1000000000;
    end.tv_nsec %= 1000000000;
    while (!w->head)
        if (pthread_cond_timedwait(&w->changed, &w->lock, &end) == ETIMEDOUT) return w->head;
    return true;
}

/* Where the stream has failed before the job, the job still runs: it owns memory, and peers wait
 * for what it says. */
static cinchResult_t run(const entry *e) {
    cudaError_t err = cudaEventSynchronize(e->reached);
    cinchResult_t result = e->job->run(e->job);
    if (err == cudaSuccess || result != cinchSuccess) return result;
    return cinch_cuda_fail((int)err, "work on a CUDA stream failed before a collective on it");
}

/* The lock is held. The failure is to be seen by whoever sees that the stream has gone on. */
static void finish(worker *w, cinchResult_t result) {
    entry *e = w->head;
    w->head = e->next;
    if (!w->head) w->tail = &w->head;
    e->next = w->spare;
    w->spare = e;
    if (w->failed == cinchSuccess && result != cinchSuccess) {
        w->failed = result;
        memcpy(w->why, cinch_last_error(), sizeof w->why);
    }
    w->done = e->number;
    atomic_store_explicit(&words[w->slot], e->number, memory_order_release);
    pthread_cond_broadcast(&w->changed);
}

static void *work(void *arg) {
    worker *w = arg;
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cinch_cuda_driver_found()->select(w->key.context);
    cudaThreadExchangeStreamCaptureMode(&mode);
    do {
        pthread_mutex_lock(&w->lock);
        while (await_job(w)) {
            entry *e = w->head;
            pthread_mutex_unlock(&w->lock);
            cinchResult_t result = run(e);
            pthread_mutex_lock(&w->lock);
            finish(w, result);
        }
        pthread_mutex_unlock(&w->lock);
    } while (!retire(w));
    return NULL;
}

static cinchResult_t start(worker *w) {
    pthread_t thread;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int err = w->runs ? 0 : pthread_create(&thread, &attr, work, w);
    pthread_attr_destroy(&attr);
    if (err != 0) return cinch_fail_errno(err, "cannot start a CUDA stream's worker thread");
    w->runs = true;
    return cinchSuccess;
}

/* The stream's worker, its thread at work. It stays until give_back. */
static cinchResult_t get(cinchStream_t stream, worker **out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    key k = key_of(stream);
    worker *w;
    cinchResult_t result = cinchSuccess;
    pthread_once(&once, heed_forks);
    pthread_mutex_lock(&registry_lock);
    w = find(&k);
    if (!w) result = add(&k, &w);
    if (result == cinchSuccess) {
        pthread_mutex_lock(&w->lock);
        result = start(w);
        pthread_mutex_unlock(&w->lock);
        if (result == cinchSuccess) {
            w->users++;
        } else if (!w->head && !w->users && w->failed == cinchSuccess) {
            drop(w);
            destroy(w);
        }
    }
    pthread_mutex_unlock(&registry_lock);
    *out = w;
    return result;
}

/* ---- the call ---- */

/* An event that blocks the waiting thread, not one that spins. */
static cinchResult_t get_entry(worker *w, entry **out) {
    pthread_mutex_lock(&w->lock);
    entry *e = w->spare;
    if (e) w->spare = e->next;
    pthread_mutex_unlock(&w->lock);
    if (!e) {
        e = calloc(1, sizeof *e);
        if (!e) return cinch_fail(cinchSystemError, "out of memory for a call on a stream");
        cudaError_t err =
            cudaEventCreateWithFlags(&e->reached, cudaEventDisableTiming | cudaEventBlockingSync);
        if (err != cudaSuccess) {
            free(e);
            return cinch_cuda_fail((int)err, "no CUDA event could be made");
        }
    }
    *out = e;
    return cinchSuccess;
}

static void CUDART_CB await_number(void *arg) {
    ticket t = *(ticket *)arg;
    free(arg);
    pthread_mutex_lock(&t.worker->lock);
    while ((int32_t)(t.worker->done - t.number) < 0)
        pthread_cond_wait(&t.worker->changed, &t.worker->lock);
    pthread_mutex_unlock(&t.worker->lock);
    give_back(t.worker);
}

/* The stream waits until the worker has come to that number. */
static cinchResult_t hold(worker *w, uint32_t number) {
    const cinch_cuda_driver *d = cinch_cuda_driver_found();
    CUresult refused = CUDA_ERROR_NOT_SUPPORTED;
    if (d->wait_value)
        refused = d->wait_value(w->key.stream, (CUdeviceptr)(void *)&words[w->slot], number,
                                CU_STREAM_WAIT_VALUE_GEQ);
    if (refused == CUDA_SUCCESS) return cinchSuccess;
    if (refused != CUDA_ERROR_NOT_SUPPORTED)
        return cinch_cuda_fail((int)refused, "a CUDA stream cannot wait for a collective");
    ticket *t = malloc(sizeof *t);
    if (!t) return cinch_fail(cinchSystemError, "out of memory for a call on a stream");
    *t = (ticket){w, number};
    pthread_mutex_lock(&registry_lock);
    w->users++;
    pthread_mutex_unlock(&registry_lock);
    cudaError_t err = cudaLaunchHostFunc(w->key.stream, await_number, t);
    if (err == cudaSuccess) return cinchSuccess;
    give_back(w);
    free(t);
    return cinch_cuda_fail((int)err, "a CUDA stream cannot wait for a collective");
}

static cinchResult_t put(worker *w, cinch_job *job) {
    entry *e = NULL;
    CINCH_TRY(get_entry(w, &e));
    uint32_t number = w->queued + 1;
    cudaError_t err = cudaEventRecord(e->reached, w->key.stream);
    cinchResult_t result = err == cudaSuccess
                               ? hold(w, number)
                               : cinch_cuda_fail((int)err, "a CUDA event could not be recorded");
    pthread_mutex_lock(&w->lock);
    if (result == cinchSuccess) {
        w->queued = e->number = number;
        e->job = job;
        e->next = NULL;
        *w->tail = e;
        w->tail = &e->next;
        pthread_cond_broadcast(&w->changed);
    } else {
        e->next = w->spare;
        w->spare = e;
    }
    pthread_mutex_unlock(&w->lock);
    return result;
}

static cinchResult_t check_capture(cinchStream_t stream) {
    bool captured = false;
    CINCH_TRY(cinch_cuda_work.capturing(-1, stream, &captured));
    if (!captured) return cinchSuccess;
    return cinch_fail(cinchInvalidUsage,
                      "stream %p is being captured: collectives that this library runs itself are "
                      "accepted outside CUDA graphs",
                      (void *)stream);
}

cinchResult_t cinch_cuda_enqueue(cinchStream_t stream, cinch_job *job) {
    cinch_cuda_guard guard;
    worker *w = NULL;
    if (forked)
        return cinch_fail(cinchInvalidUsage,
                          "this process was forked from one that uses CUDA, which "
                          "it cannot go on with");
    CINCH_TRY(cinch_cuda_enter_stream(&guard, stream));
    cinchResult_t result = check_capture(stream);
    if (result == cinchSuccess) result = get(stream, &w);
    if (result == cinchSuccess) {
        pthread_mutex_lock(&w->order);
        result = put(w, job);
        pthread_mutex_unlock(&w->order);
        give_back(w);
    }
    cinch_cuda_leave(&guard);
    return result;
}

cinchResult_t cinch_cuda_jobs_failed(cinchStream_t stream) {
    key k = key_of(stream);
    cinchResult_t failed = cinchSuccess;
    pthread_mutex_lock(&registry_lock);
    worker *w = find(&k);
    if (w) {
        pthread_mutex_lock(&w->lock);
        if (w->failed != cinchSuccess) failed = cinch_fail_quiet(w->failed, "%s", w->why);
        pthread_mutex_unlock(&w->lock);
    }
    pthread_mutex_unlock(&registry_lock);
    return failed;
}

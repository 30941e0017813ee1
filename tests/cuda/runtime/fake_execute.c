/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that executes what the streams hold. It ends when there has been nothing for a while,
 * and begins again, so that tests can count threads. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/cuda/emulate.h"
#include "tests/cuda/runtime/inside.h"

enum { IDLE_US = 20000, POLL_US = 50, CHOICES = 256 };

pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t fake_changed = PTHREAD_COND_INITIALIZER;
cudaStream_t fake_streams;
cudaError_t fake_broken;

static uint64_t state = 1, issued, executed, captured;
static int queues;
static bool runs, function_runs;

void cuda_fake_seed(uint64_t seed) {
    pthread_mutex_lock(&fake_lock);
    state = seed * 2 + 1;
    pthread_mutex_unlock(&fake_lock);
}

void cuda_fake_queues(int count) {
    pthread_mutex_lock(&fake_lock);
    queues = count;
    pthread_mutex_unlock(&fake_lock);
}

uint64_t cuda_fake_executed(void) {
    pthread_mutex_lock(&fake_lock);
    uint64_t count = executed;
    pthread_mutex_unlock(&fake_lock);
    return count;
}

uint64_t cuda_fake_captured(void) {
    pthread_mutex_lock(&fake_lock);
    uint64_t count = captured;
    pthread_mutex_unlock(&fake_lock);
    return count;
}

/* splitmix64, as in Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014). */
static uint64_t dice(void) {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* ---- what may run ---- */

static bool value_waits(const fake_op *op) {
    uint32_t now = __atomic_load_n((const uint32_t *)op->to, __ATOMIC_ACQUIRE);
    return (int32_t)(now - op->value) < 0;
}

/* The legacy stream and all others that are blocking ones wait for what was called before. */
static bool legacy_holds(const struct CUstream_st *s) {
    if (!s->blocking) return false;
    for (cudaStream_t t = fake_streams; t; t = t->next)
        if (t != s && t->device == s->device && t->head && t->head->number < s->head->number &&
            ((s->legacy && t->blocking) || t->legacy))
            return true;
    return false;
}

static bool queue_holds(const struct CUstream_st *s) {
    if (!queues) return false;
    for (cudaStream_t t = fake_streams; t; t = t->next)
        if (t != s && t->device == s->device && t->priority == s->priority &&
            t->id % (unsigned)queues == s->id % (unsigned)queues && t->head &&
            t->head->number < s->head->number && t->head->kind == WAIT_VALUE &&
            value_waits(t->head))
            return true;
    return false;
}

static bool may_run(const struct CUstream_st *s) {
    const fake_op *op = s->head;
    if (!op || legacy_holds(s) || queue_holds(s)) return false;
    if (op->kind == WAIT_EVENT) return op->event->reached >= op->generation;
    if (op->kind == WAIT_VALUE) return !value_waits(op) && dice() % 2; /* it looks now and then */
    return op->kind != HOST_FUNCTION || op->done || (!op->begun && !function_runs);
}

/* ---- running it ---- */

/* Host functions run one after another, beside what the device does. */
static void *run_function(void *arg) {
    fake_op *op = arg;
    fake_in_callback = true;
    op->call(op->to);
    fake_in_callback = false;
    pthread_mutex_lock(&fake_lock);
    op->done = true;
    function_runs = false;
    pthread_cond_broadcast(&fake_changed);
    pthread_mutex_unlock(&fake_lock);
    return NULL;
}

void fake_detach(void *(*body)(void *arg), void *arg) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, arg) != 0) fake_wrong("no thread can be started");
    pthread_detach(thread);
}

/* Without the lock, but for events. */
static void execute(fake_op *op) {
    if (op->kind == RECORD) {
        if (op->event->reached < op->generation) op->event->reached = op->generation;
        return;
    }
    if (op->kind == LAUNCH_OVER) op->call(op->to);
    if (op->kind != COPY && op->kind != FILL && op->kind != KERNEL) return;
    fake_open_memory(true);
    pthread_mutex_unlock(&fake_lock);
    if (op->kind == COPY)
        memmove(op->to, op->from, op->bytes);
    else if (op->kind == FILL)
        memset(op->to, op->byte, op->bytes);
    else
        cinch_emulate_run(op->blocks, op->threads, op->call, op->to);
    pthread_mutex_lock(&fake_lock);
    fake_open_memory(false);
}

void fake_event_leave(cudaEvent_t event) {
    if (--event->users == 0) free(event);
}

static void finish(cudaStream_t s) {
    fake_op *op = s->head;
    s->head = op->next;
    if (!s->head) s->tail = &s->head;
    if (op->event) fake_event_leave(op->event);
    if (op->kind == KERNEL) free(op->to);
    free(op);
    executed++;
    if (!s->head && s->destroyed) {
        cudaStream_t *at = &fake_streams;
        while (*at != s) at = &(*at)->next;
        *at = s->next;
        free(s);
    }
    pthread_cond_broadcast(&fake_changed);
}

/* Of what may run one piece; false: nothing may. */
static bool step(void) {
    cudaStream_t choice[CHOICES];
    unsigned count = 0;
    for (cudaStream_t s = fake_streams; s && count < CHOICES; s = s->next)
        if (fake_broken != cudaSuccess ? s->head && s->head->begun == s->head->done : may_run(s))
            choice[count++] = s;
    if (!count) return false;
    cudaStream_t s = choice[dice() % count];
    fake_op *op = s->head;
    if (fake_broken == cudaSuccess && op->kind == HOST_FUNCTION && !op->done) {
        function_runs = op->begun = true;
        fake_detach(run_function, op);
        return true;
    }
    if (fake_broken == cudaSuccess || op->kind == RECORD || op->kind == LAUNCH_OVER) execute(op);
    finish(s);
    return true;
}

static bool any_left(void) {
    for (cudaStream_t s = fake_streams; s; s = s->next)
        if (s->head) return true;
    return false;
}

/* The lock is held. false: nothing came in all that time. */
static bool pause_for(long us) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_nsec += us * 1000;
    end.tv_sec += end.tv_nsec / 1000000000;
    end.tv_nsec %= 1000000000;
    return pthread_cond_timedwait(&fake_changed, &fake_lock, &end) != ETIMEDOUT;
}

static void *work(void *arg) {
    (void)arg;
    pthread_mutex_lock(&fake_lock);
    for (;;) {
        if (dice() % 16 == 0) { /* a device that is late: more is there to choose from */
            useconds_t late = (useconds_t)(dice() % 200);
            pthread_mutex_unlock(&fake_lock);
            usleep(late);
            pthread_mutex_lock(&fake_lock);
        }
        if (step()) continue;
        if (any_left())
            pause_for(POLL_US);
        else if (!pause_for(IDLE_US) && !any_left())
            break;
    }
    runs = false;
    pthread_mutex_unlock(&fake_lock);
    return NULL;
}

/* ---- queueing ---- */

static void capture_broken(const struct CUstream_st *s) {
    for (cudaStream_t t = fake_streams; t; t = t->next)
        if (t->graph && (t == s || (s->legacy && t->blocking))) fake_capture_fails(t->graph);
}

bool fake_captured_implicitly(const struct CUstream_st *s) {
    for (cudaStream_t t = fake_streams; s->legacy && t; t = t->next)
        if (t->capture != cudaStreamCaptureStatusNone && t->blocking) return true;
    return false;
}

cudaError_t fake_queue(cudaStream_t handle, const fake_op *what, fake_op **queued) {
    cudaStream_t s = fake_stream(handle);
    if (queued) *queued = NULL;
    if (!s) return cudaErrorInvalidResourceHandle;
    if (fake_captured_implicitly(s)) {
        capture_broken(s);
        return cudaErrorStreamCaptureImplicit;
    }
    if (s->capture == cudaStreamCaptureStatusInvalidated) return cudaErrorStreamCaptureInvalidated;
    if (s->capture == cudaStreamCaptureStatusActive) {
        captured++;
        return fake_capture(s, what);
    }
    fake_op *op = malloc(sizeof *op);
    if (!op) return cudaErrorMemoryAllocation;
    *op = *what;
    op->next = NULL;
    op->number = ++issued;
    if (op->event) op->event->users++;
    *s->tail = op;
    s->tail = &op->next;
    if (queued) *queued = op;
    if (!runs) {
        runs = true;
        fake_detach(work, NULL);
    }
    pthread_cond_broadcast(&fake_changed);
    return cudaSuccess;
}

cudaError_t fake_drain(cudaStream_t stream, int device) {
    uint64_t until = issued; /* not for what others queue meanwhile */
    for (;;) {
        bool left = false;
        for (cudaStream_t s = fake_streams; s; s = s->next)
            if ((!stream || s == stream) && (device < 0 || s->device == device))
                left |= s->head && s->head->number <= until;
        if (!left) return fake_broken;
        pthread_cond_wait(&fake_changed, &fake_lock);
    }
}

/* ---- kernels, in tests that link tests/cuda/emulate.c ---- */

#pragma weak cinch_emulate_run
#pragma weak cinch_emulate_queue_by

static int queue_kernel(void *stream, unsigned blocks, unsigned threads, void (*body)(void *arg),
                        const void *arg, size_t bytes) {
    fake_op op = {.kind = KERNEL, .call = body, .blocks = blocks, .threads = threads};
    op.bytes = bytes;
    fake_op *queued = NULL;
    op.to = malloc(bytes);
    if (!op.to) fake_wrong("out of memory for a kernel");
    memcpy(op.to, arg, bytes);
    cudaError_t err = fake_begin(false);
    if (err == cudaSuccess) err = fake_queue(stream, &op, &queued);
    if (!queued) free(op.to);
    return (int)fake_end(err);
}

/* ---- forks: the executing thread stays behind ---- */

static void before_fork(void) {
    pthread_mutex_lock(&fake_lock);
}

static void after_fork(void) {
    pthread_mutex_unlock(&fake_lock);
}

static void in_child(void) {
    runs = false;
    pthread_cond_init(&fake_changed, NULL);
    fake_arena_begin();
    pthread_mutex_unlock(&fake_lock);
}

/* Programs that know nothing of the emulation are set by their environment. */
static void read_environment(void) {
    const char *seed = getenv("CUDA_FAKE_SEED"), *count = getenv("CUDA_FAKE_QUEUES");
    if (seed) cuda_fake_seed(strtoull(seed, NULL, 10));
    if (count) cuda_fake_queues(atoi(count));
}

__attribute__((constructor)) static void begin(void) {
    read_environment();
    fake_arena_begin();
    pthread_atfork(before_fork, after_fork, in_child);
    if (cinch_emulate_queue_by) cinch_emulate_queue_by(queue_kernel);
}

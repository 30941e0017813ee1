/* SPDX-License-Identifier: Apache-2.0 */
/* Host streams: in-order queues, each with a worker thread. A stream is known by its place in a
 * registry, never by looking behind the pointer. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/device.h"

typedef struct host_stream {
    struct host_stream *next; /* in the registry */
    pthread_t worker;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    cinch_job *head, **tail;
    bool busy, ending;
    cinchResult_t failed; /* the first */
    char why[CINCH_ERROR_TEXT];
} host_stream;

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static host_stream *registry;

static bool known(cinchStream_t stream) {
    pthread_mutex_lock(&registry_lock);
    const host_stream *s = registry;
    while (s && s != (const host_stream *)(void *)stream) s = s->next;
    pthread_mutex_unlock(&registry_lock);
    return s != NULL;
}

static void *work(void *arg) {
    host_stream *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->head && !s->ending) pthread_cond_wait(&s->changed, &s->lock);
        cinch_job *job = s->head;
        if (!job) break;
        s->head = job->next;
        if (!s->head) s->tail = &s->head;
        s->busy = true;
        pthread_mutex_unlock(&s->lock);
        cinchResult_t result = job->run(job);
        pthread_mutex_lock(&s->lock);
        s->busy = false;
        if (s->failed == cinchSuccess && result != cinchSuccess) {
            s->failed = result;
            memcpy(s->why, cinch_last_error(), sizeof s->why);
        }
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static cinchResult_t create(cinchStream_t *stream) {
    host_stream *s = calloc(1, sizeof *s);
    if (!s) return cinch_fail(cinchSystemError, "out of memory for a stream");
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->tail = &s->head;
    int err = pthread_create(&s->worker, NULL, work, s);
    if (err != 0) {
        free(s);
        return cinch_fail_errno(err, "cannot start a stream's worker thread");
    }
    pthread_mutex_lock(&registry_lock);
    s->next = registry;
    registry = s;
    pthread_mutex_unlock(&registry_lock);
    *stream = (cinchStream_t)(void *)s;
    return cinchSuccess;
}

/* The first failure, its sentence now the calling thread's. With the lock held. */
static cinchResult_t failure(const host_stream *s) {
    return s->failed == cinchSuccess ? cinchSuccess : cinch_fail_quiet(s->failed, "%s", s->why);
}

static cinchResult_t destroy(cinchStream_t stream) {
    host_stream *s = (host_stream *)(void *)stream;
    pthread_mutex_lock(&registry_lock);
    for (host_stream **at = &registry; *at; at = &(*at)->next)
        if (*at == s) {
            *at = s->next;
            break;
        }
    pthread_mutex_unlock(&registry_lock);
    pthread_mutex_lock(&s->lock);
    s->ending = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->worker, NULL);
    cinchResult_t failed = failure(s);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
    return failed;
}

static cinchResult_t synchronize(cinchStream_t stream) {
    host_stream *s = (host_stream *)(void *)stream;
    pthread_mutex_lock(&s->lock);
    while (s->head || s->busy) pthread_cond_wait(&s->changed, &s->lock);
    cinchResult_t failed = failure(s);
    pthread_mutex_unlock(&s->lock);
    return failed;
}

static cinchResult_t query(cinchStream_t stream) {
    host_stream *s = (host_stream *)(void *)stream;
    pthread_mutex_lock(&s->lock);
    cinchResult_t state = s->head || s->busy ? cinchInProgress : failure(s);
    pthread_mutex_unlock(&s->lock);
    return state;
}

static cinchResult_t enqueue(cinchStream_t stream, cinch_job *job) {
    host_stream *s = (host_stream *)(void *)stream;
    pthread_mutex_lock(&s->lock);
    job->next = NULL;
    *s->tail = job;
    s->tail = &job->next;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return cinchSuccess;
}

static bool any_memory(const void *pointer, cinch_memory *memory) {
    (void)pointer;
    *memory = (cinch_memory){CINCH_MEMORY_HOST, -1};
    return true;
}

const cinch_device_ops cinch_device_host = {
    .name = "host",
    .knows = any_memory,
    .owns_stream = known,
    .stream_create = create,
    .stream_destroy = destroy,
    .stream_synchronize = synchronize,
    .stream_query = query,
    .enqueue = enqueue,
};

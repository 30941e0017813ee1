/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs on CUDA streams, above an emulated GPU whose streams run in random orders: their places,
 * what waits for what and what does not, groups, failures. */
#include <pthread.h>

#include "tests/cuda/lanes.h"

START_TEST(jobs_keep_their_places_on_all_kinds_of_streams) {
    for (uint64_t seed = 0; seed < 12; seed++) lanes_run(seed, 20);
}
END_TEST

START_TEST(host_functions_serve_where_there_are_no_waits_for_values) {
    cuda_fake_wait_values(false);
    for (uint64_t seed = 0; seed < 12; seed++) lanes_run(seed, 20);
}
END_TEST

/* Each thread has a stream of its own behind the per-thread handle, and all share another one. */
typedef struct crew {
    cinchStream_t shared;
    _Atomic int ran, failed;
} crew;

typedef struct crew_job {
    cinch_job job;
    crew *crew;
} crew_job;

static cinchResult_t count_job(cinch_job *job) {
    ((crew_job *)(void *)job)->crew->ran++;
    free(job);
    return cinchSuccess;
}

enum { CREW = 4, CREW_STEPS = 40 };

static void *crew_main(void *arg) {
    crew *c = arg;
    lane own;
    lane_open(&own, cudaStreamPerThread);
    for (int i = 0; i < CREW_STEPS; i++) {
        crew_job *job = malloc(sizeof *job);
        *job = (crew_job){{NULL, count_job}, c};
        lane_advance(&own);
        c->failed += cinch_device_cuda.enqueue(c->shared, &job->job) != cinchSuccess;
    }
    lane_close(&own);
    return NULL;
}

START_TEST(threads_call_at_the_same_time) {
    crew c = {0};
    pthread_t thread[CREW];
    CU(cudaStreamCreate(&c.shared));
    for (int i = 0; i < CREW; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, crew_main, &c), 0);
    for (int i = 0; i < CREW; i++) pthread_join(thread[i], NULL);
    OK(cinchStreamSynchronize(c.shared));
    ck_assert_int_eq(c.ran, CREW * CREW_STEPS);
    ck_assert_int_eq(c.failed, 0);
    OK(cinchStreamDestroy(c.shared));
}
END_TEST

/* ---- what waits for what ---- */

START_TEST(a_call_waits_for_nothing) {
    lane l;
    cinchStream_t stream;
    CU(cudaStreamCreate(&stream));
    lane_open(&l, stream);
    uint32_t *gate = gate_close(stream);
    for (int i = 0; i < 5; i++) lane_advance(&l);
    sleep_ms(60);
    ck_assert_int_eq(l.ran, 0);
    ck_assert_int_eq(cinchStreamQuery(stream), cinchInProgress);
    gate_open(gate);
    lane_close(&l);
    CU(cudaFreeHost(gate));
    OK(cinchStreamDestroy(stream));
}
END_TEST

START_TEST(no_stream_is_the_legacy_one_where_there_is_a_device) {
    lane l;
    OK(cinchStreamSynchronize(NULL)); /* there is none so far */
    OK(cinchStreamQuery(NULL));
    ck_assert_int_eq(cuda_fake_selected(), -1);
    lane_open(&l, cudaStreamLegacy);
    uint32_t *gate = gate_close(cudaStreamLegacy);
    for (int i = 0; i < 5; i++) lane_advance(&l);
    ck_assert_int_eq(cinchStreamQuery(NULL), cinchInProgress);
    gate_open(gate);
    OK(cinchStreamSynchronize(NULL));
    ck_assert_int_eq(l.ran, 5);
    ck_assert_uint_eq(l.word[MARKS], 1004);
    OK(cinchStreamQuery(NULL));
    lane_close(&l);
    CU(cudaFreeHost(gate));
}
END_TEST

/* What one thread's stream waits for holds up no other thread's behind the same handle. */
static void *step_alone(void *arg) {
    lane *own = arg;
    for (int i = 0; i < 5; i++) lane_advance(own);
    own->wrong += cinchStreamSynchronize(own->stream) != cinchSuccess;
    return NULL;
}

static void keep_threads_apart(void) {
    lane own, theirs;
    pthread_t thread;
    lane_open(&own, cudaStreamPerThread);
    lane_open(&theirs, cudaStreamPerThread);
    uint32_t *gate = gate_close(cudaStreamPerThread);
    lane_advance(&own);
    ck_assert_int_eq(pthread_create(&thread, NULL, step_alone, &theirs), 0);
    pthread_join(thread, NULL);
    ck_assert_int_eq(own.ran, 0);
    gate_open(gate);
    lane_close(&own);
    lane_close(&theirs);
    CU(cudaFreeHost(gate));
}

START_TEST(per_thread_streams_are_apart) {
    keep_threads_apart();
}
END_TEST

START_TEST(per_thread_streams_are_apart_without_ids_too) {
    cuda_fake_stream_ids(false);
    keep_threads_apart();
}
END_TEST

/* A job that goes on when an internal stream has copied something: the stream that waits for the
 * job must not hold that up, be it in the same hardware queue as every other of its priority. */
typedef struct copying {
    cinch_job job;
    cinchStream_t inner;
    cinch_event *event;
    uint32_t *word;
} copying;

static cinchResult_t run_copying(cinch_job *job) {
    copying c = *(copying *)(void *)job;
    const cinch_device_work *work = cinch_device_cuda.work;
    cinchResult_t passed;
    free(job);
    CINCH_TRY(work->fill(0, c.inner, c.word, 7, sizeof *c.word));
    CINCH_TRY(work->record(c.event, c.inner));
    while ((passed = work->passed(c.event)) == cinchInProgress) sleep_ms(1);
    return passed;
}

START_TEST(internal_streams_go_on_while_users_streams_wait) {
    const cinch_device_work *work = cinch_device_cuda.work;
    cinchStream_t stream[2], inner;
    cinch_event *event;
    uint32_t *word;
    cuda_fake_queues(1);
    CU(cudaMallocHost((void **)&word, sizeof *word));
    OK(work->stream_open(0, &inner));
    OK(work->event_open(0, &event));
    for (int i = 0; i < 2; i++) {
        CU(cudaStreamCreate(&stream[i]));
        copying *c = malloc(sizeof *c);
        *c = (copying){{NULL, run_copying}, inner, event, word};
        OK(cinch_device_cuda.enqueue(stream[i], &c->job));
        OK(cinchStreamSynchronize(stream[i]));
        ck_assert_uint_eq(*word, 0x07070707);
        OK(cinchStreamDestroy(stream[i]));
    }
    work->event_close(event);
    work->stream_close(0, inner);
    CU(cudaFreeHost(word));
}
END_TEST

/* ---- communicators with CUDA streams ---- */

static cinchResult_t sum(int *value, cinchComm_t comm, cinchStream_t stream) {
    return cinchAllReduce(value, value, 1, cinchInt, cinchSum, comm, stream);
}

START_TEST(a_group_over_streams_is_one_point) {
    cinchComm_t a[2], b[2];
    cinchStream_t s, t, other[2];
    int va[2] = {1, 2}, vb[2] = {3, 4};
    clean_environment();
    OK(cinchCommInitAll(a, 2, NULL));
    OK(cinchCommInitAll(b, 2, NULL));
    CU(cudaStreamCreate(&s));
    CU(cudaStreamCreate(&t));
    OK(cinchStreamCreate(&other[0])); /* a host stream beside them */
    CU(cudaStreamCreate(&other[1]));
    uint32_t *gate = gate_close(t);
    OK(cinchGroupStart());
    OK(sum(&va[0], a[0], s));
    OK(sum(&vb[0], b[0], t));
    OK(cinchGroupEnd());
    OK(sum(&va[1], a[1], other[0]));
    OK(sum(&vb[1], b[1], other[1]));
    sleep_ms(60);
    ck_assert_int_eq(cinchStreamQuery(s), cinchInProgress);
    ck_assert_int_eq(cinchStreamQuery(other[0]), cinchInProgress); /* a has not begun */
    ck_assert_int_eq(va[0], 1);
    gate_open(gate);
    for (int i = 0; i < 2; i++) OK(cinchStreamSynchronize(other[i]));
    OK(cinchStreamSynchronize(s));
    OK(cinchStreamSynchronize(t));
    ck_assert(va[0] == 3 && va[1] == 3 && vb[0] == 7 && vb[1] == 7);
    for (int r = 0; r < 2; r++) {
        OK(cinchCommDestroy(a[r]));
        OK(cinchCommDestroy(b[r]));
        OK(cinchStreamDestroy(other[r]));
    }
    OK(cinchStreamDestroy(s));
    OK(cinchStreamDestroy(t));
    CU(cudaFreeHost(gate));
}
END_TEST

/* ---- failures ---- */

START_TEST(a_job_that_fails_lets_the_stream_go_on) {
    lane l;
    cinchStream_t stream;
    CU(cudaStreamCreate(&stream));
    lane_open(&l, stream);
    for (int at = 0; at < 3; at++) {
        CU(cudaMemsetAsync(&l.word[at], at, sizeof *l.word, stream));
        OK(cinch_device_cuda.enqueue(
            stream, lane_step(&l, at, at ? cinchRemoteError - at + 1 : cinchSuccess)));
    }
    CU(cudaStreamSynchronize(stream));
    ck_assert_int_eq(l.ran, 3);
    ck_assert_int_eq(l.wrong, 0);
    sleep_ms(100); /* the worker has ended meanwhile: what it knew is still told */
    ck_assert_int_eq(cinchStreamQuery(stream), cinchRemoteError);
    ck_assert_str_eq(cinchGetLastError(NULL), "step 1 is to fail");
    l.word[3] = 0x03030303;
    OK(cinch_device_cuda.enqueue(stream, lane_step(&l, 3, cinchSuccess)));
    ck_assert_int_eq(cinchStreamSynchronize(stream), cinchRemoteError);
    ck_assert(l.ran == 4 && l.wrong == 0);
    CU(cudaFreeHost(l.word));
    ck_assert_int_eq(cinchStreamDestroy(stream), cinchRemoteError);
    CU(cudaStreamCreate(&stream)); /* be it at the same address */
    OK(cinchStreamSynchronize(stream));
    OK(cinchStreamDestroy(stream));
}
END_TEST

int main(void) {
    const TTest *tests[] = {
        jobs_keep_their_places_on_all_kinds_of_streams,
        host_functions_serve_where_there_are_no_waits_for_values,
        threads_call_at_the_same_time,
        a_call_waits_for_nothing,
        no_stream_is_the_legacy_one_where_there_is_a_device,
        per_thread_streams_are_apart,
        per_thread_streams_are_apart_without_ids_too,
        internal_streams_go_on_while_users_streams_wait,
        a_group_over_streams_is_one_point,
        a_job_that_fails_lets_the_stream_go_on,
    };
    return run_tests("cuda_jobs", tests, sizeof tests / sizeof *tests, 60);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA side of base/device above an emulated GPU: pointers, every call failing once, captures,
 * what is selected, forks, and what is left over. Jobs: test_cuda_jobs.c. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cuda/lanes.h"

/* ---- pointers ---- */

static cinch_memory kind_of(const void *pointer, const cinch_device_ops *want) {
    cinch_memory memory;
    ck_assert_ptr_eq(cinch_device_of_pointer(pointer, &memory), want);
    return memory;
}

START_TEST(pointers_are_told_apart) {
    static char registered[5000];
    void *device, *second, *pinned, *managed;
    cuda_fake_devices(2);
    CU(cudaMalloc(&device, 1000));
    CU(cudaSetDevice(1));
    CU(cudaMalloc(&second, 1000));
    CU(cudaMallocHost(&pinned, 1000));
    CU(cudaHostRegister(registered, sizeof registered, 0));
    CU(cudaMallocManaged(&managed, 1000, cudaMemAttachGlobal));
    CU(cudaSetDevice(0));

    cinch_memory m = kind_of((char *)device + 999, &cinch_device_cuda);
    ck_assert(m.kind == CINCH_MEMORY_DEVICE && m.device == 0);
    m = kind_of(second, &cinch_device_cuda);
    ck_assert(m.kind == CINCH_MEMORY_DEVICE && m.device == 1);
    m = kind_of((char *)pinned + 5, &cinch_device_cuda);
    ck_assert_int_eq(m.kind, CINCH_MEMORY_PINNED);
    m = kind_of(registered + 4999, &cinch_device_cuda);
    ck_assert_int_eq(m.kind, CINCH_MEMORY_PINNED);
    m = kind_of(managed, &cinch_device_cuda);
    ck_assert_int_eq(m.kind, CINCH_MEMORY_DEVICE);
    m = kind_of(&m, &cinch_device_host);
    ck_assert_int_eq(m.kind, CINCH_MEMORY_HOST);
    kind_of((char *)device + 1000, &cinch_device_host); /* behind it */
    kind_of(NULL, &cinch_device_host);
    CU(cudaGetLastError());

    CU(cudaHostUnregister(registered));
    kind_of(registered, &cinch_device_host);
    CU(cudaFree(device));
    kind_of(device, &cinch_device_host);
    CU(cudaFree(second));
    CU(cudaFreeHost(pinned));
    CU(cudaFree(managed));
}
END_TEST

START_TEST(memory_is_the_devices_where_one_is_selected) {
    void *memory;
    char *host;
    cuda_fake_devices(2);
    OK(cinchMemAlloc((void **)&host, 1000));
    kind_of(host, &cinch_device_host);
    host[999] = 1;
    CU(cudaSetDevice(1));
    OK(cinchMemAlloc(&memory, 1000));
    cinch_memory m = kind_of(memory, &cinch_device_cuda);
    ck_assert(m.kind == CINCH_MEMORY_DEVICE && m.device == 1);
    CU(cudaMemset(memory, 5, 1000));
    CU(cudaMemcpy(host, memory, 1000, cudaMemcpyDefault));
    ck_assert_int_eq(host[999], 5);
    CU(cudaSetDevice(0));
    OK(cinchMemFree(memory));
    OK(cinchMemFree(host));
    ck_assert_int_eq(cuda_fake_selected(), 0);
    ck_assert_int_eq(cuda_fake_held(), 0);
}
END_TEST

/* ---- failures ---- */

START_TEST(each_call_of_cuda_may_fail) {
    int failures = 0;
    cinchStream_t stream;
    CU(cudaStreamCreate(&stream));
    for (int k = 1; k < 40; k++) {
        lane l;
        lane_open(&l, stream);
        CU(cudaMemsetAsync(l.word, 0, sizeof *l.word, stream));
        CU(cudaStreamSynchronize(stream));
        sleep_ms(k % 2 ? 60 : 0); /* with a new worker, and with the one of before */
        cinch_job *job = lane_step(&l, 0, cinchSuccess);
        cuda_fake_fail(k, cudaErrorUnknown);
        cinchResult_t result = cinch_device_cuda.enqueue(stream, job);
        cuda_fake_fail(0, cudaSuccess);
        CU(cudaGetLastError());
        CU(cudaStreamSynchronize(stream));
        if (result != cinchSuccess) {
            ck_assert_int_eq(result, cinchUnhandledCudaError);
            ck_assert(strstr(cinchGetLastError(NULL), "unknown error"));
            free(job); /* it was not taken */
            failures++;
        }
        ck_assert_int_eq(l.ran, result == cinchSuccess);
        CU(cudaFreeHost(l.word));
    }
    ck_assert_int_ge(failures, 5);
    CU(cudaStreamDestroy(stream));
    for (int i = 0; i < 500 && cuda_fake_held() > 1; i++) sleep_ms(2);
    ck_assert_int_le(cuda_fake_held(), 1 + 2); /* the words; workers that know of a failure */
}
END_TEST

/* Everything of the work table, each of its calls failing once: a code, a sentence, no leak. */
static cinchResult_t use_all(void) {
    const cinch_device_work *work = cinch_device_cuda.work;
    cinchResult_t result;
    cinchStream_t stream = NULL;
    cinch_event *event = NULL;
    void *device = NULL, *pinned = NULL;
    if ((result = work->alloc(0, 1000, &device)) == cinchSuccess &&
        (result = work->alloc_pinned(0, 1000, &pinned)) == cinchSuccess &&
        (result = work->stream_open(0, &stream)) == cinchSuccess &&
        (result = work->event_open(0, &event)) == cinchSuccess &&
        (result = work->fill(0, stream, device, 3, 1000)) == cinchSuccess &&
        (result = work->copy(0, stream, pinned, device, 1000)) == cinchSuccess &&
        (result = work->record(event, stream)) == cinchSuccess &&
        (result = work->wait(stream, event)) == cinchSuccess)
        while ((result = work->passed(event)) == cinchInProgress) sleep_ms(5); /* few calls */
    if (result == cinchSuccess) ck_assert_int_eq(((char *)pinned)[999], 3);
    cuda_fake_fail(0, cudaSuccess);
    work->event_close(event);
    if (stream) work->stream_close(0, stream);
    work->release(0, device);
    work->release_pinned(0, pinned);
    return result;
}

START_TEST(the_engines_work_may_fail) {
    bool failed = true;
    for (int k = 1; failed; k++) {
        cuda_fake_fail(k, cudaErrorUnknown);
        cinchResult_t result = use_all();
        failed = result != cinchSuccess;
        if (failed) ck_assert(strstr(cinchGetLastError(NULL), "unknown error"));
        ck_assert_int_lt(k, 200);
        ck_assert_int_eq(cuda_fake_held(), 0);
        CU(cudaGetLastError());
    }
}
END_TEST

START_TEST(a_broken_device_is_told_and_nothing_hangs) {
    lane l;
    cinchStream_t stream;
    CU(cudaStreamCreate(&stream));
    lane_open(&l, stream);
    gate_close(stream);
    for (int i = 0; i < 3; i++) lane_advance(&l);
    cuda_fake_break(cudaErrorLaunchFailure);
    for (int i = 0; i < 2000 && l.ran < 3; i++) sleep_ms(1);
    ck_assert_int_eq(l.ran, 3); /* they free what they hold */
    ck_assert_int_eq(cinchStreamQuery(stream), cinchUnhandledCudaError);
    ck_assert(strstr(cinchGetLastError(NULL), "unspecified launch failure"));
    cinch_job *job = lane_step(&l, 3, cinchSuccess);
    ck_assert_int_eq(cinch_device_cuda.enqueue(stream, job), cinchUnhandledCudaError);
    free(job);
}
END_TEST

/* ---- captures ---- */

static bool is_captured(cinchStream_t stream) {
    bool is = false;
    OK(cinch_device_cuda.work->capturing(0, stream, &is));
    return is;
}

START_TEST(a_capture_is_refused_and_stays_valid) {
    static const enum cudaStreamCaptureMode modes[] = {cudaStreamCaptureModeGlobal,
                                                       cudaStreamCaptureModeThreadLocal,
                                                       cudaStreamCaptureModeRelaxed};
    for (int m = 0; m < 3; m++) {
        lane l[2];
        cinchStream_t stream, other;
        cudaGraph_t graph;
        CU(cudaStreamCreate(&stream));
        CU(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
        lane_open(&l[0], stream);
        lane_open(&l[1], other);
        lane_advance(&l[0]); /* there is a worker already, or not */
        OK(cinchStreamSynchronize(stream));
        uint64_t captured = cuda_fake_captured();
        ck_assert(!is_captured(stream) && !is_captured(cudaStreamLegacy));
        CU(cudaStreamBeginCapture(stream, modes[m]));
        ck_assert(is_captured(stream) && is_captured(cudaStreamLegacy) && !is_captured(other));
        cinch_job *job = lane_step(&l[0], 1, cinchSuccess);
        cinchStream_t refused[] = {stream, cudaStreamLegacy, NULL};
        for (int i = 0; i < 3; i++) {
            ck_assert_int_eq(cinch_device_cuda.enqueue(refused[i], job), cinchInvalidUsage);
            ck_assert(strstr(cinchGetLastError(NULL), "captured"));
        }
        for (int i = 0; i < 5; i++) lane_advance(&l[1]); /* others go on, and do not harm it */
        OK(use_all());
        while (l[1].ran < 5) sleep_ms(1);
        CU(cudaStreamEndCapture(stream, &graph));
        CU(cudaGraphDestroy(graph));
        ck_assert_uint_eq(cuda_fake_captured(), captured);
        free(job);
        CU(cudaGetLastError());
        for (int i = 0; i < 2; i++) {
            lane_close(&l[i]);
            OK(cinchStreamDestroy(i ? other : stream));
        }
    }
}
END_TEST

/* ---- the process ---- */

START_TEST(the_driver_may_be_loaded_at_any_time) {
    void *device;
    cinchStream_t stream;
    clean_environment();
    setenv("CINCH_DEBUG", "none", 1);
    cuda_fake_loaded(false);
    CU(cudaMalloc(&device, 100));
    CU(cudaStreamCreate(&stream));
    kind_of(device, &cinch_device_host); /* nobody could have made it */
    ck_assert(!cinch_device_any() && !cinch_device_look());
    ck_assert_ptr_null(cinch_device_of_stream(stream));
    ck_assert(!cinch_device_may_hold(&device, &stream));
    cuda_fake_loaded(true);
    ck_assert(!cinch_device_any() && !cinch_device_may_hold(&device, &stream));
    ck_assert(cinch_device_may_hold(&device, device));
    kind_of(device, &cinch_device_cuda);
    ck_assert(cinch_device_any());
    ck_assert_ptr_eq(cinch_device_of_stream(stream), &cinch_device_cuda);
    OK(cinchStreamDestroy(stream));
    CU(cudaFree(device));
}
END_TEST

/* A thread that has chosen no device has none after our calls, and one that has keeps it. */
static void *look_from_aside(void *arg) {
    lane *l = arg;
    cinch_memory memory;
    cinch_device_of_pointer(l->word, &memory);
    l->wrong += cuda_fake_selected() != -1;
    l->wrong += cinch_device_cuda.enqueue(l->stream, lane_step(l, 0, cinchSuccess)) != cinchSuccess;
    l->wrong += cuda_fake_selected() != -1;
    l->wrong += cinchStreamQuery(l->stream) > cinchInProgress;
    l->wrong += use_all() != cinchSuccess;
    l->wrong += cuda_fake_selected() != -1;
    return NULL;
}

static cinchResult_t note_device(void *device) {
    *(int *)device = cuda_fake_selected();
    return cinchRemoteError;
}

START_TEST(a_threads_device_stays_as_it_was) {
    lane l;
    cinchStream_t stream;
    pthread_t thread;
    cuda_fake_devices(3);
    CU(cudaSetDevice(2));
    CU(cudaStreamCreate(&stream));
    lane_open(&l, stream);
    CU(cudaMemsetAsync(l.word, 0, sizeof *l.word, stream));
    CU(cudaSetDevice(1));
    l.next = 1;
    ck_assert_int_eq(pthread_create(&thread, NULL, look_from_aside, &l), 0);
    pthread_join(thread, NULL);
    lane_advance(&l);
    ck_assert_int_eq(cuda_fake_selected(), 1);
    OK(use_all()); /* on device 0 */
    int device = -1;
    ck_assert_int_eq(cinch_device_cuda.work->with(2, note_device, &device), cinchRemoteError);
    ck_assert_int_eq(device, 2);
    ck_assert_int_eq(cuda_fake_selected(), 1);
    lane_close(&l);
    ck_assert_int_eq(cuda_fake_selected(), 1);
    OK(cinchStreamDestroy(stream));
    ck_assert_int_eq(cuda_fake_selected(), 1);
}
END_TEST

START_TEST(default_streams_are_not_destroyed) {
    setenv("CINCH_DEBUG", "none", 1);
    ck_assert_int_eq(cinchStreamDestroy(cudaStreamLegacy), cinchInvalidArgument);
    ck_assert_int_eq(cinchStreamDestroy(cudaStreamPerThread), cinchInvalidArgument);
    ck_assert_int_eq(cinchStreamDestroy(NULL), cinchInvalidArgument);
    ck_assert(strstr(cinchGetLastError(NULL), "is not one"));
}
END_TEST

START_TEST(nothing_is_left_over) {
    char why[200];
    holdings before = hold_now();
    for (uint64_t seed = 0; seed < 3; seed++) lanes_run(seed, 5);
    ck_assert_msg(holdings_settle(&before, false, why, sizeof why), "%s", why);
    for (int i = 0; i < 500 && cuda_fake_held() > 1; i++) sleep_ms(2);
    ck_assert_int_eq(cuda_fake_held(), 1); /* the words, which stay */
}
END_TEST

/* A sanitizer's own locks do not survive a fork beside a thread that is at work. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED

START_TEST(a_forked_child_has_no_gpu_and_says_so) {
    lane l;
    cinchStream_t stream;
    int value = 5, status;
    setenv("CINCH_DEBUG", "none", 1);
    CU(cudaStreamCreate(&stream));
    lane_open(&l, stream);
    uint32_t *gate = gate_close(stream);
    for (int i = 0; i < 3; i++) lane_advance(&l); /* the worker waits */
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        cinch_memory memory;
        cinch_job *job = lane_step(&l, 3, cinchSuccess);
        bool host = cinch_device_of_pointer(&value, &memory) == &cinch_device_host;
        bool refused = cinch_device_cuda.enqueue(stream, job) == cinchInvalidUsage &&
                       strstr(cinchGetLastError(NULL), "forked");
        cinchComm_t comm[2]; /* what needs no GPU works */
        cinchStream_t own;
        bool works = cinchCommInitAll(comm, 2, NULL) == cinchSuccess &&
                     cinchStreamCreate(&own) == cinchSuccess &&
                     cinchStreamSynchronize(own) == cinchSuccess &&
                     cinchStreamDestroy(own) == cinchSuccess;
        _exit(host && refused && works ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    gate_open(gate);
    lane_close(&l);
    CU(cudaFreeHost(gate));
    OK(cinchStreamDestroy(stream));
}
END_TEST

#endif

int main(void) {
    const TTest *tests[] = {
        pointers_are_told_apart,
        memory_is_the_devices_where_one_is_selected,
        each_call_of_cuda_may_fail,
        the_engines_work_may_fail,
        a_broken_device_is_told_and_nothing_hangs,
        a_capture_is_refused_and_stays_valid,
        the_driver_may_be_loaded_at_any_time,
        a_threads_device_stays_as_it_was,
        default_streams_are_not_destroyed,
        nothing_is_left_over,
#ifndef SANITIZED
        a_forked_child_has_no_gpu_and_says_so,
#endif
    };
    return run_tests("cuda_device", tests, sizeof tests / sizeof *tests, 60);
}

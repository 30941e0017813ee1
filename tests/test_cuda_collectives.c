/* SPDX-License-Identifier: Apache-2.0 */
/* Collectives on device memory, above an emulated GPU whose streams run in random orders and whose
 * memory is closed to the host: every operation, datatype and operator has the exact result. */
#include "coll/algo.h"
#include "tests/family.h"
#include "tests/gpu_call.h"
#include "tests/gpu_group.h"

/* ---- everything, exact ---- */

static void all_calls(seat *me) {
    const uint64_t *seed = me->shared;
    uint64_t state = *seed;
    cudaStream_t stream;
    CU(me, cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (int k = 0; k < 2 * CINCH_COLLECTIVES; k++) {
        one_call c = random_call(random64(&state), me->nranks,
                                 (cinch_collective)(k % CINCH_COLLECTIVES), k < 9 ? 40 : 2000);
        c.stream = stream;
        if (!gpu_call_run(me, &c)) return;
    }
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(everything_is_exact) {
    static const char *const env[] = {"CINCH_CHUNK=256", "CINCH_TRANSPORT=tcp CINCH_CHUNK=4K", "",
                                      "CINCH_CHUNK=128 CINCH_CHECKSUM=1"};
    for (uint64_t seed = 1; seed <= 12; seed += GPU_CASES_APART)
        gpu_run(&(ranks_case){.nranks = 1 + (int)(seed % 4),
                              .env = env[(seed + seed / 4) % 4],
                              .body = all_calls,
                              .shared = &seed},
                seed);
}
END_TEST

/* ---- every algorithm ---- */

typedef struct plan {
    cinch_collective collective;
    uint64_t seed;
} plan;

static void many_rounds(seat *me) {
    const plan *p = me->shared;
    uint64_t state = p->seed;
    cudaStream_t stream;
    CU(me, cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (int k = 0; k < 4; k++) {
        one_call c = random_call(random64(&state), me->nranks, p->collective, 1200);
        c.stream = stream;
        if (!gpu_call_run(me, &c)) return;
    }
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(every_algorithm) {
    char env[100];
    for (int a = 0, n = 2; cinch_algo_at(a); a++, n = 2 + a % 4) {
        const cinch_algo *algo = cinch_algo_at(a);
        cinch_call call = {.collective = algo->collective, .nranks = n, .bytes = 1};
        plan p = {algo->collective, (uint64_t)a};
        if (algo->supports(&call) || a % GPU_CASES_APART) continue;
        snprintf(env, sizeof env, "CINCH_ALGO=%s:%s CINCH_CHUNK=%d",
                 cinch_shape_of(p.collective)->name, algo->name, a % 2 ? 64 : 512);
        gpu_run(&(ranks_case){.nranks = n, .env = env, .body = many_rounds, .shared = &p},
                (uint64_t)a + 1);
    }
}
END_TEST

/* ---- streams and groups ---- */

static bool fill_ints(seat *me, int *on, int *host, int value, size_t count, cudaStream_t stream) {
    for (size_t i = 0; i < count; i++) host[i] = value + (int)i;
    TRY_CHECK(me, cudaMemcpyAsync(on, host, count * sizeof *host, cudaMemcpyDefault, stream) ==
                      cudaSuccess);
    return true;
}

/* Each call reads what the one before has written, with work of the caller's in between. */
static void chains(seat *me) {
    enum { LINKS = 6, COUNT = 700 };
    cudaStream_t stream[2] = {open_stream(), open_stream()};
    double *at[2] = {take(COUNT * 8, false), take(COUNT * 8, false)}, host[COUNT];
    CHECK(me, stream[0] && stream[1] && at[0] && at[1]);
    for (int c = 0; c < 2; c++) {
        for (int i = 0; i < COUNT; i++) host[i] = c + 1;
        CU(me, cudaMemcpyAsync(at[c], host, sizeof host, cudaMemcpyDefault, stream[c]));
    }
    for (int l = 0; l < LINKS; l++) /* the two streams' calls are one after the other, in turn */
        for (int c = 0; c < 2; c++)
            CHECK_OK(me, cinchAllReduce(at[c], at[c], COUNT, cinchDouble, cinchSum, me->comm,
                                        stream[c]));
    for (int c = 0; c < 2; c++) {
        double want = c + 1;
        for (int l = 0; l < LINKS; l++) want *= me->nranks;
        CU(me, cudaMemcpyAsync(host, at[c], sizeof host, cudaMemcpyDefault, stream[c]));
        CU(me, cudaStreamSynchronize(stream[c]));
        for (int i = 0; i < COUNT; i++) CHECK(me, host[i] == want, "%g", host[i]);
        CU(me, cudaStreamDestroy(stream[c]));
    }
}

static void groups(seat *me) {
    (void)group_run(me, false, false);
}

START_TEST(streams_and_groups) {
    for (int n = 1; n <= 4; n++) {
        gpu_run(&(ranks_case){.nranks = n, .env = "CINCH_CHUNK=512", .body = chains}, (uint64_t)n);
        gpu_run(&(ranks_case){.nranks = n, .env = "CINCH_CHUNK=512", .body = groups}, (uint64_t)n);
    }
}
END_TEST

/* One thread drives all ranks, on the legacy default stream and without naming it. */
START_TEST(one_thread_and_the_default_stream) {
    enum { N = 3, COUNT = 500 };
    clean_environment();
    cinchComm_t comm[N];
    cinchUniqueId id;
    int *at[N], host[COUNT];
    ck_assert_int_eq(cinchGetUniqueId(&id), cinchSuccess);
    ck_assert_int_eq(cinchGroupStart(), cinchSuccess);
    for (int r = 0; r < N; r++) ck_assert(cinchCommInitRank(&comm[r], N, id, r) == cinchSuccess);
    ck_assert_int_eq(cinchGroupEnd(), cinchSuccess);
    for (int r = 0; r < N; r++) {
        at[r] = take(COUNT * 4, false);
        for (int i = 0; i < COUNT; i++) host[i] = r + i;
        ck_assert(cudaMemcpyAsync(at[r], host, sizeof host, cudaMemcpyDefault, NULL) ==
                  cudaSuccess);
    }
    for (int k = 0; k < 2; k++) {
        ck_assert_int_eq(cinchGroupStart(), cinchSuccess);
        for (int r = 0; r < N; r++)
            ck_assert(cinchAllReduce(at[r], at[r], COUNT, cinchInt, cinchSum, comm[r],
                                     k ? cudaStreamPerThread : NULL) == cinchSuccess);
        ck_assert_int_eq(cinchGroupEnd(), cinchSuccess);
        ck_assert_int_eq(cudaStreamSynchronize(cudaStreamPerThread), cudaSuccess);
    }
    for (int r = 0; r < N; r++) {
        ck_assert(cudaMemcpyAsync(host, at[r], sizeof host, cudaMemcpyDefault, NULL) ==
                  cudaSuccess);
        ck_assert_int_eq(cudaStreamSynchronize(NULL), cudaSuccess);
        for (int i = 0; i < COUNT; i++) ck_assert_int_eq(host[i], 3 * (3 + 3 * i));
    }
    for (int r = 0; r < N; r++) ck_assert_int_eq(cinchCommDestroy(comm[r]), cinchSuccess);
    free_taken();
}
END_TEST

/* ---- other memory, other communicators ---- */

/* Pinned and managed memory, also where no stream is named; a communicator that does not block. */
static void other_kinds(seat *me) {
    enum { COUNT = 3000 };
    int n = me->nranks, *pinned = take(COUNT * 4, true), host[COUNT];
    void *managed = NULL;
    cinchConfig_t config = CINCH_CONFIG_INITIALIZER;
    cinchComm_t comm;
    cudaStream_t stream = open_stream();
    config.blocking = 0;
    CHECK(me, pinned && stream);
    for (int i = 0; i < COUNT; i++) pinned[i] = me->rank + i;
    CHECK_OK(me, cinchAllReduce(pinned, pinned, COUNT, cinchInt, cinchSum, me->comm, stream));
    CU(me, cudaStreamSynchronize(stream));
    for (int i = 0; i < COUNT; i++) CHECK(me, pinned[i] == n * i + n * (n - 1) / 2);
    if (n == 1) { /* the default stream is one for all threads */
        CHECK_OK(me, cinchAllReduce(pinned, pinned, COUNT, cinchInt, cinchSum, me->comm, NULL));
        CU(me, cudaStreamSynchronize(NULL));
    }
    CU(me, cudaMallocManaged(&managed, COUNT * 4, cudaMemAttachGlobal));
    if (!fill_ints(me, managed, host, me->rank, COUNT, stream)) return;
    cinchResult_t state = cinchCommSplit(me->comm, 0, me->rank, &comm, &config);
    CHECK(me, (state == cinchInProgress || state == cinchSuccess) && settled(comm) == cinchSuccess);
    CHECK_OK(me, cinchAllReduce(managed, managed, COUNT, cinchInt, cinchSum, comm, stream));
    CU(me, cudaMemcpyAsync(host, managed, sizeof host, cudaMemcpyDefault, stream));
    CU(me, cudaStreamSynchronize(stream));
    for (int i = 0; i < COUNT; i++) CHECK(me, host[i] == n * i + n * (n - 1) / 2);
    CHECK_OK(me, cinchGroupStart()); /* to itself, between memory of two kinds */
    CHECK_OK(me, cinchSend(pinned, COUNT, cinchInt, me->rank, comm, stream));
    CHECK_OK(me, cinchRecv(managed, COUNT, cinchInt, me->rank, comm, stream));
    CHECK_OK(me, cinchGroupEnd());
    CU(me, cudaMemcpyAsync(host, managed, sizeof host, cudaMemcpyDefault, stream));
    CU(me, cudaStreamSynchronize(stream));
    for (int i = 0; i < COUNT; i++) CHECK(me, host[i] == pinned[i]);
    CHECK_OK(me, cinchCommDestroy(comm));
    pthread_mutex_lock(&pool.lock);
    pool.taken[pool.count++] = managed;
    pthread_mutex_unlock(&pool.lock);
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(other_memory) {
    for (int n = 1; n <= 3; n += 2)
        gpu_run(&(ranks_case){.nranks = n, .body = other_kinds}, (uint64_t)n);
}
END_TEST

static void wrong_calls(seat *me) {
    cudaStream_t stream = open_stream();
    cinchStream_t host;
    float plain[8] = {0}, *at = take(4096, false), *far = NULL;
    CHECK_OK(me, cinchStreamCreate(&host));
    CU(me, cudaSetDevice(1));
    far = take(4096, false);
    CU(me, cudaSetDevice(0));
    void *own = NULL;
    CHECK_OK(me, cinchMemAlloc(&own, 4096));
    struct cudaPointerAttributes a;
    CHECK(me, cudaPointerGetAttributes(&a, own) == cudaSuccess && a.type == cudaMemoryTypeDevice);
    CHECK_OK(me, cinchMemFree(own));
    CHECK_FAILS(me, cinchAllReduce(plain, at, 8, cinchFloat, cinchSum, me->comm, stream),
                cinchInvalidArgument, NULL, "sendbuff is pageable host memory");
    CHECK_FAILS(me, cinchAllReduce(at, plain, 8, cinchFloat, cinchSum, me->comm, NULL),
                cinchInvalidArgument, NULL, "recvbuff is pageable host memory");
    CHECK_FAILS(me, cinchAllReduce(at, far, 8, cinchFloat, cinchSum, me->comm, stream),
                cinchInvalidArgument, NULL, "sendbuff is on device 0, recvbuff on device 1");
    CHECK_FAILS(me, cinchAllReduce(at, at, 8, cinchFloat, cinchSum, me->comm, host),
                cinchInvalidArgument, NULL, "goes with a stream of its device");
    CHECK_OK(me, cinchAllReduce(at, at, 8, cinchFloat, cinchSum, me->comm, stream));
    CU(me, cudaStreamSynchronize(stream));
    CHECK_FAILS(me, cinchAllReduce(far, far, 8, cinchFloat, cinchSum, me->comm, stream),
                cinchInvalidUsage, NULL, "one device for each communicator");
    CHECK_OK(me, cinchStreamDestroy(host));
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(what_does_not_go_together) {
    cuda_fake_devices(2);
    gpu_run(&(ranks_case){.nranks = 1, .body = wrong_calls, .logs = "*"}, 1);
}
END_TEST

/* ---- failing ---- */

typedef struct failing {
    int k; /* the call of CUDA that fails; 0: the device breaks */
    cinch_collective collective;
    _Atomic int failed, ended;
    meeting_point ready;
} failing;

/* A call of CUDA fails somewhere on the way: both ranks come to an end, and can be aborted. */
static void one_fails(seat *me) {
    failing *f = me->shared;
    enum { COUNT = 4000 };
    cudaStream_t stream = open_stream();
    float *at = take(3 * COUNT * 4, false);
    CHECK(me, stream && at);
    CU(me, cudaMemsetAsync(at, 0, 3 * COUNT * 4, stream));
    CU(me, cudaStreamSynchronize(stream));
    one_call c = {.collective = f->collective, .count = COUNT, .dtype = cinchFloat, .op = cinchSum};
    c.stream = stream;
    /* The first time memory is made ready; sometimes that is what fails. */
    if (f->k % 2) CHECK_OK(me, one_call_do(me, &c, at, at + COUNT, cinchSum));
    CHECK_OK(me, cinchStreamSynchronize(stream));
    CHECK(me, wait_for_all(&f->ready, me->nranks));
    if (me->rank == 0 && f->k) cuda_fake_fail(f->k, cudaErrorLaunchFailure);
    cinchResult_t result = one_call_do(me, &c, at, at + COUNT, cinchSum), state = cinchSuccess;
    if (me->rank == 0 && !f->k) cuda_fake_break(cudaErrorLaunchFailure);
    cinchResult_t waited = cinchStreamSynchronize(stream);
    CHECK_OK(me, cinchCommGetAsyncError(me->comm, &state));
    if (result != cinchSuccess || waited != cinchSuccess || state != cinchSuccess) {
        atomic_fetch_add(&f->failed, 1);
        CHECK(me, strlen(cinchGetLastError(me->comm)) > 10);
    }
    atomic_fetch_add(&f->ended, 1);
    for (int i = 0; i < 10000 && atomic_load(&f->ended) < me->nranks; i++) sleep_ms(1);
    if (me->rank == 0) cuda_fake_fail(0, cudaSuccess);
    CHECK_OK(me, cinchCommAbort(me->comm));
    me->gone = true;
    (void)cudaStreamDestroy(stream);
}

START_TEST(a_call_of_cuda_fails) {
    static failing f;
    static const cinch_collective ops[] = {CINCH_ALLREDUCE, CINCH_ALLGATHER, CINCH_SENDRECV};
    int failed = 0, both = 0;
    for (int k = 1; k < 60; k += 1 + k / 8) {
        memset(&f, 0, sizeof f);
        f.k = k;
        f.collective = ops[k % 3];
        gpu_run(
            &(ranks_case){
                .nranks = 2, .env = "CINCH_CHUNK=1K", .body = one_fails, .shared = &f, .logs = "*"},
            (uint64_t)k);
        failed += f.failed > 0;
        both += f.failed == 2;
    }
    ck_assert_msg(failed >= 12 && both >= 8, "%d failed, %d of them on both ranks", failed, both);
}
END_TEST

/* A rank that never calls is aborted, or aborts itself: who waits for it ends, and its stream goes
 * on. */
static void aborted(seat *me) {
    int *who = me->shared;
    cudaStream_t stream = open_stream();
    float *at = take(40000, false);
    CHECK(me, stream && at);
    if (me->rank == 0)
        CHECK_OK(me, cinchAllReduce(at, at, 10000, cinchFloat, cinchSum, me->comm, stream));
    sleep_ms(30);
    if (me->rank == 1 - *who) {
        cinchResult_t waited = cinchStreamSynchronize(stream);
        CHECK(me, me->rank ? waited == cinchSuccess : waited != cinchSuccess);
    }
    CHECK_OK(me, cinchCommAbort(me->comm));
    me->gone = true;
    CU(me, cudaStreamSynchronize(stream));
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(aborts_end_what_waits) {
    for (int who = 0; who < 2; who++)
        gpu_run(&(ranks_case){.nranks = 2,
                              .env = "CINCH_TRANSPORT=^nccl", /* no first meeting */
                              .body = aborted,
                              .shared = &who,
                              .logs = "*"},
                1);
}
END_TEST

/* A peer that does not call. */
static void alone_in_a_call(seat *me) {
    cudaStream_t stream = open_stream();
    float *at = take(40000, false);
    cinchResult_t state = cinchSuccess;
    CHECK(me, stream && at);
    if (me->rank == 0) {
        CHECK_OK(me, cinchAllReduce(at, at, 10000, cinchFloat, cinchSum, me->comm, stream));
        CHECK_FAILS(me, cinchStreamSynchronize(stream), cinchRemoteError, NULL, "no progress");
    }
    CHECK(me, wait_for_all(me->shared, me->nranks));
    CHECK_OK(me, cinchCommGetAsyncError(me->comm, &state));
    CHECK(me, me->rank || state == cinchRemoteError);
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(a_peer_that_does_not_call) {
    static meeting_point over;
    gpu_run(&(ranks_case){.nranks = 2,
                          .env = "CINCH_TIMEOUT_MS=300 CINCH_TRANSPORT=^nccl",
                          .body = alone_in_a_call,
                          .shared = &over,
                          .logs = "*"},
            1);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {everything_is_exact,
                                  every_algorithm,
                                  streams_and_groups,
                                  one_thread_and_the_default_stream,
                                  other_memory,
                                  what_does_not_go_together,
                                  a_call_of_cuda_fails,
                                  aborts_end_what_waits,
                                  a_peer_that_does_not_call};
    return run_tests("cuda_collectives", tests, sizeof tests / sizeof *tests, 300);
}

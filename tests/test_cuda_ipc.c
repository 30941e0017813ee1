/* SPDX-License-Identifier: Apache-2.0 */
/* Device messages that go without the host, between ranks as threads and as processes, above
 * emulated GPUs: the same results as through the host's memory, the way that each message went,
 * and what happens where a rank cannot read another's memory, leaves early or dies. */
#include <signal.h>
#include <unistd.h>

#include "coll/gpu.h"
#include "tests/gpu_call.h"

/* Without the real NCCL, which takes calls of ranks with a GPU each where it is found. */
#define OWN "CINCH_TRANSPORT=shm,tcp "

typedef struct ways {
    uint64_t seed;
    bool (*goes)(int one, int other); /* whether the pair does without the host */
    meeting_point at[8];
    _Atomic int direct, held;
} ways;

static bool always(int one, int other) {
    (void)one, (void)other;
    return true;
}
static bool never(int one, int other) {
    (void)one, (void)other;
    return false;
}
static bool same_half(int one, int other) {
    return (one < 2) == (other < 2);
}
static bool not_rank_1(int one, int other) {
    return one != 1 && other != 1;
}
static bool same_parity(int one, int other) {
    return one % 2 == other % 2;
}

static ways *new_ways(uint64_t seed, bool (*goes)(int one, int other)) {
    static ways *w;
    if (!w) w = shared_memory(sizeof *w);
    memset(w, 0, sizeof *w);
    w->seed = seed;
    w->goes = goes;
    return w;
}

/* Every rank knows of every pair what is expected, and its messages went that way. */
static bool ways_are(seat *me, cinchComm_t comm, const ways *w) {
    const cinch_gpu_peers *p = comm->gpu_peers;
    bool any = false, all = true;
    for (int q = 0; q < me->nranks; q++) {
        if (q == me->rank) continue;
        bool goes = w->goes(me->rank, q);
        TRY_CHECK(me, cinch_gpu_direct(comm, q) == goes, "to rank %d: %d", q, goes);
        any |= goes;
        all &= goes;
    }
    if (!p) return true;
    TRY_CHECK(me, p->settled);
    TRY_CHECK(me, any == (p->direct_bytes > 0), "%llu", (unsigned long long)p->direct_bytes);
    TRY_CHECK(me, all == (p->link_bytes == 0), "%llu", (unsigned long long)p->link_bytes);
    return true;
}

static bool settle(seat *me, cudaStream_t stream) {
    int *at = take(4000, false);
    TRY_CHECK(me, at && cudaMemsetAsync(at, 1, 4000, stream) == cudaSuccess);
    TRY_CHECK(me,
              cinchAllReduce(at, at, 1000, cinchInt, cinchSum, me->comm, stream) == cinchSuccess);
    TRY_CHECK(me, cudaStreamSynchronize(stream) == cudaSuccess);
    return true;
}

static void all_operations(seat *me) {
    const ways *w = me->shared;
    uint64_t state = w->seed;
    cudaStream_t stream = open_stream();
    CHECK(me, stream);
    cuda_fake_seed(w->seed + (uint64_t)me->rank);
    if (!settle(me, stream)) return;
    for (int k = 0; k < 2 * CINCH_COLLECTIVES; k++) {
        one_call c = random_call(random64(&state), me->nranks,
                                 (cinch_collective)(k % CINCH_COLLECTIVES), k < 9 ? 60 : 5000);
        c.stream = stream;
        if (!gpu_call_run(me, &c)) return;
    }
    (void)ways_are(me, me->comm, w);
    CU(me, cudaStreamDestroy(stream));
}

static const char *const cuts[] = {OWN "CINCH_CHUNK=256", OWN, OWN "CINCH_CHUNK=2K"};

START_TEST(threads_read_each_other) {
    for (uint64_t seed = 1; seed <= 4; seed += GPU_CASES_APART)
        gpu_run(&(ranks_case){.nranks = 2 + (int)(seed % 3),
                              .env = cuts[seed % 3],
                              .body = all_operations,
                              .shared = new_ways(seed, always)},
                seed);
}
END_TEST

START_TEST(processes_read_each_other) {
    for (uint64_t seed = 1; seed <= 4; seed += GPU_CASES_APART)
        ranks_run(&(ranks_case){.nranks = 2 + (int)(seed % 3),
                                .processes = true,
                                .env = cuts[seed % 3],
                                .body = all_operations,
                                .shared = new_ways(seed, always)});
}
END_TEST

/* Two processes of two ranks each: a pair's memory is read as it is, or by a stage that both ranks
 * of the other process have open. */
static void *run_second(void *arg) {
    seat *me = arg;
    cinchResult_t result = cinchCommInitRank(&me->comm, me->nranks, me->id, me->rank);
    if (result != cinchSuccess) {
        rank_note(me, __FILE__, __LINE__, "init", " gave %d", (int)result);
        return NULL;
    }
    all_operations(me);
    if (me->failure[0])
        cinchCommAbort(me->comm);
    else if (cinchCommDestroy(me->comm) != cinchSuccess)
        rank_note(me, __FILE__, __LINE__, "destroy", " failed");
    return NULL;
}

static void two_ranks(seat *me) {
    seat twin[2];
    pthread_t thread[2];
    for (int t = 0; t < 2; t++) {
        twin[t] = *me;
        twin[t].rank = 2 * me->rank + t;
        twin[t].nranks = 2 * me->nranks;
        CHECK(me, pthread_create(&thread[t], NULL, run_second, &twin[t]) == 0);
    }
    for (int t = 0; t < 2; t++) pthread_join(thread[t], NULL);
    for (int t = 0; t < 2 && !me->failure[0]; t++)
        memcpy(me->failure, twin[t].failure, sizeof me->failure);
}

START_TEST(processes_of_threads) {
    for (uint64_t seed = 1; seed <= 2; seed++)
        ranks_run(&(ranks_case){.nranks = 2,
                                .processes = true,
                                .bare = true,
                                .env = cuts[seed % 3],
                                .body = two_ranks,
                                .shared = new_ways(seed, always)});
}
END_TEST

/* ---- where it cannot be ---- */

static void on_two_hosts(seat *me) {
    setenv("CINCH_HOSTID", me->rank < 2 ? "here" : "there", 1);
}
static void rank_1_opens_nothing(seat *me) {
    if (me->rank == 1) cuda_fake_ipc(CUDA_FAKE_IPC_NO_OPEN);
}
static void rank_1_shows_nothing(seat *me) {
    if (me->rank == 1) cuda_fake_ipc(CUDA_FAKE_IPC_NO_EXPORT);
}
static void rank_1_sees_others(seat *me) {
    if (me->rank == 1) cuda_fake_ipc(CUDA_FAKE_IPC_WRONG_MEMORY);
}

START_TEST(some_pairs_cannot) {
    const char *refusal = "their messages on the device go through the host's memory";
    static const struct {
        void (*env_of)(seat *me);
        const char *env;
        bool (*goes)(int one, int other);
        bool said;
    } cases[] = {
        {on_two_hosts, OWN "CINCH_CHUNK=512", same_half, false},
        {rank_1_opens_nothing, OWN "CINCH_CHUNK=512 CINCH_DEBUG=info", not_rank_1, true},
        {rank_1_shows_nothing, OWN "CINCH_DEBUG=info", not_rank_1, true},
        {rank_1_sees_others, OWN "CINCH_CHUNK=1K CINCH_DEBUG=info", not_rank_1, true},
        {NULL, "CINCH_TRANSPORT=tcp", never, false},
        {NULL, OWN "CINCH_CHECKSUM=1", never, false},
    };
    for (int c = 0; c < 6; c++)
        ranks_run(&(ranks_case){.nranks = 4,
                                .processes = true,
                                .env = cases[c].env,
                                .env_of = cases[c].env_of,
                                .body = all_operations,
                                .logs = cases[c].said ? refusal : NULL,
                                .shared = new_ways((uint64_t)c + 1, cases[c].goes)});
}
END_TEST

static void on_its_gpu(seat *me) {
    CU(me, cudaSetDevice(me->rank % 2));
    all_operations(me);
}

START_TEST(several_gpus) {
    cuda_fake_devices(2);
    for (int reach = 0; reach < 2; reach++) {
        cuda_fake_peers(reach);
        for (int n = 2; n <= 4; n++)
            gpu_run(&(ranks_case){.nranks = n,
                                  .env = OWN "CINCH_CHUNK=1K CINCH_DEBUG=info",
                                  .body = on_its_gpu,
                                  .logs = reach ? NULL : "their messages on the device",
                                  .shared = new_ways((uint64_t)n, reach ? always : same_parity)},
                    (uint64_t)n);
    }
}
END_TEST

/* Memory of pools, which only a copy that names both devices reaches: collectives, and a message
 * between a pair. */
static void on_pools(seat *me) {
    enum { COUNT = 3000 };
    const ways *w = me->shared;
    int *host = malloc(COUNT * sizeof *host), *at, *to, n = me->nranks;
    int next = (me->rank + 1) % n, last = (me->rank + n - 1) % n;
    CU(me, cudaSetDevice(me->rank % 2));
    cudaStream_t stream = open_stream();
    CHECK(me, host && (at = take_pools(COUNT * 4, stream)) && (to = take_pools(COUNT * 4, stream)));
    for (int turn = 0; turn < 4; turn++) {
        for (int i = 0; i < COUNT; i++) host[i] = turn * 100 + me->rank + i;
        CU(me, cudaMemcpyAsync(at, host, COUNT * 4, cudaMemcpyDefault, stream));
        CHECK_OK(me, cinchAllReduce(at, to, COUNT, cinchInt, cinchSum, me->comm, stream));
        CU(me, cudaMemcpyAsync(host, to, COUNT * 4, cudaMemcpyDefault, stream));
        CHECK_OK(me, cinchStreamSynchronize(stream));
        for (int i = 0; i < COUNT; i++)
            CHECK(me, host[i] == n * (turn * 100 + i) + n * (n - 1) / 2, "%d: %d", i, host[i]);
        CHECK_OK(me, cinchGroupStart());
        CHECK_OK(me, cinchSend(at, COUNT, cinchInt, next, me->comm, stream));
        CHECK_OK(me, cinchRecv(to, COUNT, cinchInt, last, me->comm, stream));
        CHECK_OK(me, cinchGroupEnd());
        CU(me, cudaMemcpyAsync(host, to, COUNT * 4, cudaMemcpyDefault, stream));
        CHECK_OK(me, cinchStreamSynchronize(stream));
        for (int i = 0; i < COUNT; i++) CHECK(me, host[i] == turn * 100 + last + i, "%d", host[i]);
    }
    (void)ways_are(me, me->comm, w);
    free(host);
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(pools_of_several_gpus) {
    cuda_fake_devices(2);
    for (int n = 2; n <= 4; n++)
        gpu_run(&(ranks_case){.nranks = n,
                              .env = OWN "CINCH_CHUNK=1K",
                              .body = on_pools,
                              .shared = new_ways((uint64_t)n, always)},
                (uint64_t)n);
}
END_TEST

/* ---- the same bits ---- */

static bool reduce_random(seat *me, cinchComm_t comm, int kind, cudaStream_t stream,
                          uint64_t *hash) {
    enum { COUNT = 6000 };
    int n = me->nranks;
    size_t in = COUNT * (size_t)(kind == 1 ? n : 1);
    float *host = malloc(in * sizeof *host), *at = take(in * 4, false), *to = take(in * 4, false);
    uint64_t state = 77 + (uint64_t)(me->rank * 3 + kind);
    for (size_t i = 0; i < in; i++)
        host[i] = (float)(int32_t)random64(&state) / (float)(1 + random64(&state) % 100000);
    TRY_CHECK(me, at && to && cudaMemcpy(at, host, in * 4, cudaMemcpyDefault) == cudaSuccess);
    TRY_CHECK(me, (kind == 1 ? cinchReduceScatter(at, to, COUNT, cinchFloat, cinchAvg, comm, stream)
                             : cinchAllReduce(at, to, COUNT, cinchFloat, cinchSum, comm, stream)) ==
                      cinchSuccess);
    TRY_CHECK(me, cinchStreamSynchronize(stream) == cinchSuccess);
    TRY_CHECK(me, cudaMemcpy(host, to, COUNT * 4, cudaMemcpyDefault) == cudaSuccess);
    *hash = hash_bytes(1, host, COUNT * 4);
    free(host);
    return true;
}

/* A communicator of the same ranks whose messages go through the host. */
static bool split_without(seat *me, ways *w, cinchComm_t *other) {
    TRY_CHECK(me, wait_for_all(&w->at[0], me->nranks));
    setenv("CINCH_TRANSPORT", "tcp", 1); /* threads: all the same */
    TRY_CHECK(me, wait_for_all(&w->at[1], me->nranks));
    TRY_CHECK(me, cinchCommSplit(me->comm, 0, me->rank, other, NULL) == cinchSuccess);
    return true;
}

static void beside_the_host(seat *me) {
    ways *w = me->shared;
    static const char *const codecs[] = {"none", "int8:ef=1", "topk:ratio=0.1"};
    cudaStream_t stream = open_stream();
    cinchComm_t other;
    uint64_t one, two;
    CHECK(me, stream);
    cuda_fake_seed(w->seed + (uint64_t)me->rank);
    if (!split_without(me, w, &other)) return;
    for (int c = (w->seed % 2) != 0; c < (w->seed % 2 ? 3 : 1); c++) {
        CHECK_OK(me, cinchCommSetCodec(me->comm, codecs[c]));
        CHECK_OK(me, cinchCommSetCodec(other, codecs[c]));
        for (int k = 0; k < 4; k++) {
            if (!reduce_random(me, me->comm, k % 2, stream, &one)) return;
            if (!reduce_random(me, other, k % 2, stream, &two)) return;
            CHECK(me, one == two, "%s %d", codecs[c], k);
        }
    }
    if (!ways_are(me, me->comm, w)) return;
    CHECK(me, !other->gpu_peers);
    CHECK_OK(me, cinchCommDestroy(other));
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(the_same_bits) {
    static const char *const env[] = {
        OWN "CINCH_ALGO=ring CINCH_CHUNK=1K",
        OWN
        "CINCH_ALGO=allreduce:twostep,reducescatter:direct CINCH_CHUNK=4K CINCH_CODEC_MIN_BYTES=16 "
        "CINCH_CODEC_OPS=allreduce,reducescatter",
        OWN "CINCH_ALGO=direct CINCH_CHUNK=4K",
    };
    for (int k = 0; k < 3; k++)
        ranks_run(&(ranks_case){.nranks = 3 + k % 2,
                                .processes = true,
                                .env = env[k],
                                .body = beside_the_host,
                                .shared = new_ways((uint64_t)k, always)});
}
END_TEST

START_TEST(the_same_bits_in_threads) {
    for (int k = 0; k < 2; k++)
        gpu_run(&(ranks_case){.nranks = 3,
                              .env = k ? OWN
                                         "CINCH_ALGO=allreduce:twostep,reducescatter:direct "
                                         "CINCH_CODEC_MIN_BYTES=16 "
                                         "CINCH_CODEC_OPS=allreduce,reducescatter CINCH_CHUNK=2K"
                                       : OWN "CINCH_ALGO=ring CINCH_CHUNK=2K",
                              .body = beside_the_host,
                              .shared = new_ways((uint64_t)k, always)},
                (uint64_t)k);
}
END_TEST

/* ---- messages between pairs ---- */

enum { BIG = 9000, SMALL = 5, PAIRS = 4 };

/* Two ranks find each other and exchange messages before the others have begun. */
static bool ahead(seat *me, int *from, int *to, cudaStream_t stream) {
    int q = 1 - me->rank;
    if (q < 0) sleep_ms(30);
    for (int k = 0; k < 5 && q >= 0; k++) {
        TRY_CHECK(me, cudaMemsetAsync(from, k, BIG * 4, stream) == cudaSuccess);
        TRY_CHECK(me, cinchGroupStart() == cinchSuccess);
        TRY_CHECK(me, cinchSend(from, BIG, cinchInt, q, me->comm, stream) == cinchSuccess);
        TRY_CHECK(me, cinchRecv(to, BIG, cinchInt, q, me->comm, stream) == cinchSuccess);
        TRY_CHECK(me, cinchGroupEnd() == cinchSuccess);
        TRY_CHECK(me, cinchStreamSynchronize(stream) == cinchSuccess);
    }
    return true;
}

/* Before anything is known of the peers and after; to device and host memory, from both; short
 * ones, which the links carry. */
static void pairs(seat *me) {
    const ways *w = me->shared;
    int n = me->nranks, next = (me->rank + 1) % n, last = (me->rank + n - 1) % n;
    cudaStream_t stream = open_stream();
    int *from[PAIRS], *to[PAIRS], got[BIG];
    static const int counts[PAIRS] = {BIG, SMALL, BIG, BIG};
    cuda_fake_seed(w->seed + (uint64_t)me->rank);
    for (int k = 0; k < PAIRS; k++) { /* 2: device to host; 3: host to device */
        from[k] = k == 3 ? malloc(BIG * 4) : take(BIG * 4, false);
        to[k] = k == 2 ? malloc(BIG * 4) : take(BIG * 4, false);
        CHECK(me, from[k] && to[k]);
    }
    if (!ahead(me, from[0], to[0], stream)) return;
    for (int turn = 0; turn < 6; turn++) {
        if (turn == 3 && !settle(me, stream)) return;
        for (int k = 0; k < PAIRS; k++) {
            for (int i = 0; i < BIG; i++) got[i] = 1000 * me->rank + 100 * turn + 10 * k + i;
            CU(me, cudaMemcpyAsync(from[k], got, sizeof got, cudaMemcpyDefault, stream));
        }
        CU(me, cudaStreamSynchronize(stream));
        CHECK_OK(me, cinchGroupStart());
        for (int k = 0; k < PAIRS; k++) {
            CHECK_OK(me, cinchSend(from[k], (size_t)counts[k], cinchInt, next, me->comm, stream));
            CHECK_OK(me, cinchRecv(to[k], (size_t)counts[k], cinchInt, last, me->comm, stream));
        }
        CHECK_OK(me, cinchGroupEnd());
        CHECK_OK(me, cinchStreamSynchronize(stream));
        for (int k = 0; k < PAIRS; k++) {
            CU(me, cudaMemcpy(got, to[k], sizeof got, cudaMemcpyDefault));
            for (int i = 0; i < counts[k]; i++)
                CHECK(me, got[i] == 1000 * last + 100 * turn + 10 * k + i, "turn %d, %d: %d", turn,
                      k, got[i]);
        }
        /* One rank has device memory, the other has none in the whole call. */
        if (me->rank == 0) CHECK_OK(me, cinchSend(from[0], BIG, cinchInt, 1, me->comm, stream));
        if (me->rank == 1) CHECK_OK(me, cinchRecv(got, BIG, cinchInt, 0, me->comm, NULL));
        for (int i = 0; i < BIG && me->rank == 1; i++)
            CHECK(me, got[i] == 100 * turn + i, "turn %d: %d", turn, got[i]);
        CHECK_OK(me, cinchStreamSynchronize(stream));
    }
    CHECK(me, cinch_gpu_direct(me->comm, next) && cinch_gpu_direct(me->comm, last));
    CHECK(me, me->comm->gpu_peers->direct_bytes >= 3 * 2 * sizeof got, "%llu",
          (unsigned long long)me->comm->gpu_peers->direct_bytes);
    free(from[3]);
    free(to[2]);
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(messages_between_pairs) {
    for (int n = 2; n <= 3; n++)
        ranks_run(&(ranks_case){.nranks = n,
                                .processes = true,
                                .env = OWN,
                                .body = pairs,
                                .shared = new_ways((uint64_t)n, always)});
}
END_TEST

START_TEST(messages_between_threads) {
    for (int n = 2; n <= 3; n++)
        gpu_run(
            &(ranks_case){
                .nranks = n, .env = OWN, .body = pairs, .shared = new_ways((uint64_t)n, always)},
            (uint64_t)n);
}
END_TEST

/* ---- memory ---- */

/* Larger and larger messages; a size that was there takes no more memory. */
static void growing(seat *me) {
    enum { MOST = 1500000 };
    const ways *w = me->shared;
    static const size_t counts[] = {2000, MOST / 3, MOST, 4000, MOST};
    cudaStream_t stream = open_stream();
    float *at = take(MOST * 4, false), *host = malloc(MOST * 4);
    int held = 0;
    CHECK(me, stream && at && host);
    for (int k = 0; k < 5; k++) {
        for (size_t i = 0; i < counts[k]; i++) host[i] = (float)(i % 1000);
        CU(me, cudaMemcpy(at, host, counts[k] * 4, cudaMemcpyDefault));
        if (k == 3) held = cuda_fake_allocations();
        CHECK_OK(me, cinchBroadcast(at, at, counts[k], cinchFloat, 0, me->comm, stream));
        CHECK_OK(me, cinchAllReduce(at, at, counts[k], cinchFloat, cinchSum, me->comm, stream));
        CU(me, cudaStreamSynchronize(stream));
        CU(me, cudaMemcpy(host, at, counts[k] * 4, cudaMemcpyDefault));
        for (size_t i = 0; i < counts[k]; i++)
            CHECK(me, host[i] == (float)(me->nranks * (int)(i % 1000)), "%zu", i);
    }
    CHECK(me, cuda_fake_allocations() == held, "%d, not %d", cuda_fake_allocations(), held);
    CHECK(me, atomic_load(&me->comm->gpu_peers->card->stages) > 1);
    (void)ways_are(me, me->comm, w);
    free(host);
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(stages_grow) {
    ranks_run(&(ranks_case){.nranks = 2,
                            .processes = true,
                            .env = OWN "CINCH_CHUNK=4M CINCH_ALGO=direct",
                            .body = growing,
                            .shared = new_ways(1, always)});
}
END_TEST

/* Who leaves first keeps what the others have open (freeing it is found out by the emulation),
 * until a communicator ends after they have left. */
static void leaving(seat *me) {
    ways *w = me->shared;
    cinchComm_t first, second;
    cudaStream_t stream = open_stream();
    int before = 0;
    CHECK(me, stream && settle(me, stream)); /* what a process takes once is there */
    free_taken();
    CHECK_OK(me, cinchCommSplit(me->comm, 0, me->rank, &second, NULL));
    for (int k = 0; k < 2; k++) {
        before = cuda_fake_allocations();
        CHECK_OK(me, cinchCommSplit(me->comm, 0, me->rank, &first, NULL));
        cinchComm_t kept = me->comm;
        me->comm = first;
        bool good = settle(me, stream);
        me->comm = kept;
        free_taken();
        if (!good) return;
        if (me->rank == k) CHECK_OK(me, cinchCommDestroy(first));
        CHECK(me, wait_for_all(&w->at[2 * k], me->nranks));
        int parked = cuda_fake_allocations() - before;
        CHECK(me, me->rank != k || parked == 1, "%d", parked); /* the stage */
        if (me->rank != k) CHECK_OK(me, cinchCommDestroy(first));
        CHECK(me, wait_for_all(&w->at[2 * k + 1], me->nranks));
    }
    CHECK_OK(me, cinchCommDestroy(second));
    CHECK(me, cuda_fake_allocations() <= before, "%d, not %d", cuda_fake_allocations(), before);
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(who_leaves_first) {
    ranks_run(&(ranks_case){.nranks = 2,
                            .processes = true,
                            .env = OWN,
                            .body = leaving,
                            .shared = new_ways(1, always)});
}
END_TEST

/* ---- a rank that is gone ---- */

static void dying(seat *me) {
    ways *w = me->shared;
    cudaStream_t stream = open_stream();
    float *at = take(4000000, false);
    CHECK(me, stream && at);
    if (!settle(me, stream)) return;
    CHECK(me, wait_for_all(&w->at[0], me->nranks));
    if (me->rank == 1) {
        if (w->seed % 2) {
            (void)cinchAllReduce(at, at, 1000000, cinchFloat, cinchSum, me->comm, stream);
            usleep((useconds_t)(w->seed * 300));
        }
        raise(SIGKILL);
    }
    uint64_t began = now_ms();
    CHECK_OK(me, cinchAllReduce(at, at, 1000000, cinchFloat, cinchSum, me->comm, stream));
    CHECK_FAILS(me, cinchStreamSynchronize(stream), cinchRemoteError, NULL, "rank 1");
    CU(me, cudaStreamSynchronize(stream));
    CHECK(me, now_ms() - began < 20000, "%d ms", (int)(now_ms() - began));
    CHECK_OK(me, cinchCommAbort(me->comm));
    me->gone = true;
    (void)cudaStreamDestroy(stream);
}

static void rank_1_dies(seat *me) {
    me->dies = me->rank == 1;
}

START_TEST(a_rank_dies) {
    for (uint64_t seed = 0; seed < 3; seed++)
        ranks_run(&(ranks_case){.nranks = 3,
                                .processes = true,
                                .env = OWN "CINCH_CHUNK=64K",
                                .env_of = rank_1_dies,
                                .body = dying,
                                .logs = "*",
                                .shared = new_ways(seed, always)});
}
END_TEST

int main(void) {
    const TTest *const tests[] = {threads_read_each_other,
                                  processes_read_each_other,
                                  processes_of_threads,
                                  some_pairs_cannot,
                                  several_gpus,
                                  pools_of_several_gpus,
                                  the_same_bits,
                                  the_same_bits_in_threads,
                                  messages_between_pairs,
                                  messages_between_threads,
                                  stages_grow,
                                  who_leaves_first,
                                  a_rank_dies};
    return run_tests("cuda_ipc", tests, sizeof tests / sizeof *tests, 300);
}

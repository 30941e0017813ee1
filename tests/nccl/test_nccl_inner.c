/* SPDX-License-Identifier: Apache-2.0 */
/* Communicators of libcinch's own whose calls on device memory go by the real NCCL, which a
 * stand-in is here: that they do, that nothing changes by it, and what happens where they cannot.
 */
#include "coll/comm.h"
#include "compress/dtype.h"
#include "tests/gpu_call.h"
#include "tests/gpu_group.h"
#include "tests/nccl/moving.h"

static meeting_point point[32]; /* of a case's ranks, each used once */

static bool by_nccl(const seat *me) {
    return me->comm->inner_state == CINCH_INNER_MADE;
}

static void inner_run(const ranks_case *c, uint64_t seed) {
    memset(point, 0, sizeof point);
    cuda_fake_devices(CUDA_FAKE_DEVICES);
    gpu_run(c, seed);
    ck_assert_int_eq(moving_held(), 0);
}

static moving_seen seen_by(const seat *me) {
    return moving_look_at(me->rank);
}

static cudaStream_t begin(const seat *me) {
    return cudaSetDevice(me->rank) == cudaSuccess ? open_stream() : NULL;
}

/* An all-reduce of a few integers has the right result. */
enum { FEW = 700 };
static bool sums(seat *me, cinchComm_t comm, int rank, int n, cudaStream_t stream) {
    int host[FEW], *at = take(sizeof host, false);
    for (int i = 0; i < FEW; i++) host[i] = rank + i;
    TRY_CHECK(me, at);
    TRY_CHECK(me, !cudaMemcpyAsync(at, host, sizeof host, cudaMemcpyDefault, stream));
    TRY_CHECK(me, cinchAllReduce(at, at, FEW, cinchInt, cinchSum, comm, stream) == cinchSuccess);
    TRY_CHECK(me, !cudaMemcpyAsync(host, at, sizeof host, cudaMemcpyDefault, stream));
    TRY_CHECK(me, !cudaStreamSynchronize(stream));
    for (int i = 0; i < FEW; i++)
        TRY_CHECK(me, host[i] == n * (n - 1) / 2 + n * i, "%d at %d", host[i], i);
    return true;
}

/* ---- exact ---- */

static void all_calls(seat *me) {
    const uint64_t *seed = me->shared;
    uint64_t state = *seed, before = 0;
    cudaStream_t stream = begin(me);
    CHECK(me, stream);
    for (int k = 0; k < 3 * CINCH_COLLECTIVES; k++) {
        one_call c = random_call(random64(&state), me->nranks,
                                 (cinch_collective)(k % CINCH_COLLECTIVES), k < 9 ? 40 : 2000);
        c.stream = stream;
        if (!gpu_call_run(me, &c)) return;
        if (k == 0) before = cinch_comm_wire_bytes(me->comm);
    }
    moving_seen s = seen_by(me);
    CHECK(me, by_nccl(me) && cinch_comm_wire_bytes(me->comm) == before);
    char plan[512];
    size_t length = sizeof plan;
    CHECK_OK(me, cinchCommDescribePlan(me->comm, "allreduce", 4096, cinchFloat, plan, &length));
    CHECK(me, strstr(plan, "\"algo\":\"nccl\"") && strstr(plan, "\"transport\":\"nccl\""), "%s",
          plan);
    CHECK(me, s.allreduces == 3 && s.reducescatters == 3 && s.allgathers == 3 &&
                  s.broadcasts == 3 && s.reduces == 3 && s.sends >= 6 && s.recvs >= 6);
    cinchStats_t stats = {.size = sizeof stats};
    CHECK_OK(me, cinchCommGetStats(me->comm, &stats));
    CHECK(me, stats.calls == 3 * (CINCH_COLLECTIVES - 1) + 6, "%d", (int)stats.calls);
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(everything_is_exact) {
    for (uint64_t seed = 1; seed <= 9; seed += GPU_CASES_APART) {
        moving_fine();
        int n = 2 + (int)(seed % 3);
        inner_run(&(ranks_case){.nranks = n, .body = all_calls, .shared = &seed}, seed);
        ck_assert_int_eq(moving_inits, n);
        ck_assert_int_eq(moving_aborts, 0);
    }
}
END_TEST

/* ---- compressed ---- */

static void like_the_host(seat *me) {
    enum { MOST = 70001, CALLS = 6 };
    static const cinchDataType_t types[] = {cinchFloat32, cinchFloat16, cinchBfloat16};
    static const size_t counts[] = {257, 4099, 16385, 40001, MOST};
    uint64_t state = *(const uint64_t *)me->shared;
    cudaStream_t stream = begin(me);
    char *in = malloc(MOST * 4), *out = malloc(MOST * 4), *got = malloc(MOST * 4);
    char *on_in = take(MOST * 4, false), *on_out = take(MOST * 4, false);
    CHECK(me, stream && in && out && got && on_in && on_out);
    for (int k = 0; k < CALLS; k++) {
        uint64_t dice = random64(&state);
        cinchDataType_t dtype = types[dice % 3];
        cinchRedOp_t op = dice >> 8 & 1 ? cinchAvg : cinchSum;
        size_t count = counts[(dice >> 16) % 5], size = cinch_dtype_size(dtype);
        uint64_t noise = dice + (uint64_t)me->rank;
        for (size_t i = 0; i < count; i++) {
            float f = (float)(int32_t)random64(&noise) * 0x1p-31f;
            cinch_narrow(in + i * size, dtype, &f, 1);
        }
        CU(me, cudaMemcpyAsync(on_in, in, count * size, cudaMemcpyDefault, stream));
        CHECK_OK(me, cinchAllReduce(on_in, on_out, count, dtype, op, me->comm, stream));
        CU(me, cudaMemcpyAsync(got, on_out, count * size, cudaMemcpyDefault, stream));
        CU(me, cudaStreamSynchronize(stream));
        CHECK_OK(me, cinchAllReduce(in, out, count, dtype, op, me->comm, NULL));
        CHECK(me, memcmp(got, out, count * size) == 0, "call %d: dtype %d op %d count %zu", k,
              (int)dtype, (int)op, count);
    }
    cinchStats_t stats = {.size = sizeof stats};
    CHECK_OK(me, cinchCommGetStats(me->comm, &stats));
    CHECK(me, stats.compressed_calls == 2 * CALLS && by_nccl(me), "%d",
          (int)stats.compressed_calls);
    CHECK(me, seen_by(me).allreduces == 0 && seen_by(me).sends + seen_by(me).allgathers >= CALLS);
    free(in);
    free(out);
    free(got);
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(compressed_bits_are_the_hosts) {
    static const char *const env[] = {"int8", "topk:ratio=0.05", "int8:ef=1,block=64", "bf16"};
    char text[200];
    for (int e = 0; e < 4; e++) {
        uint64_t seed = (uint64_t)e + 1;
        snprintf(text, sizeof text, "CINCH_CODEC_INTRA=%s CINCH_CODEC_MIN_BYTES=1 CINCH_CHUNK=32K",
                 env[e]);
        inner_run(
            &(ranks_case){.nranks = 2 + e % 3, .env = text, .body = like_the_host, .shared = &seed},
            seed);
    }
}
END_TEST

/* Another codec, and none, from a call on. */
static void changes(seat *me) {
    static const char *const specs[] = {"int8", "none", "topk:ratio=0.1", "int8:ef=1"};
    enum { COUNT = 9000 };
    cudaStream_t stream = begin(me);
    float *at = take(COUNT * 4, false), *to = take(COUNT * 4, false), host[COUNT];
    CHECK(me, stream && at && to);
    for (int i = 0; i < COUNT; i++) host[i] = (float)(i % 100);
    CU(me, cudaMemcpyAsync(at, host, sizeof host, cudaMemcpyDefault, stream));
    for (int s = 0; s < 4; s++) {
        uint64_t before = s ? seen_by(me).allreduces : 0;
        CHECK_OK(me, cinchCommSetCodec(me->comm, specs[s]));
        CHECK_OK(me, cinchAllReduce(at, to, COUNT, cinchFloat, cinchSum, me->comm, stream));
        CU(me, cudaStreamSynchronize(stream));
        CHECK(me, seen_by(me).allreduces - before == (s == 1), "%s", specs[s]);
    }
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(the_codec_changes) {
    inner_run(&(ranks_case){.nranks = 3, .env = "CINCH_CODEC_MIN_BYTES=1", .body = changes}, 1);
}
END_TEST

/* What one communicator exports another goes on with: the same bits as if there had been one. */
static void goes_on(seat *me) {
    enum { COUNT = 9000, ROOM = 1 << 18 };
    static const int calls[][2] = {{3, 0}, {2, 1}}; /* by the first, and by the second after it */
    cudaStream_t stream = begin(me);
    float host[COUNT], got[2][COUNT];
    float *to = take(sizeof host, false);
    float *from[2] = {take(sizeof host, false), take(sizeof host, false)}; /* of one tag */
    char *state = malloc(ROOM);
    CHECK(me, stream && from[0] && from[1] && to && state);
    uint64_t noise = (uint64_t)me->rank + 1;
    for (int i = 0; i < COUNT; i++) host[i] = (float)(int32_t)random64(&noise) * 0x1p-31f;
    for (int i = 0; i < 2; i++)
        CU(me, cudaMemcpyAsync(from[i], host, sizeof host, cudaMemcpyDefault, stream));
    for (int way = 0; way < 2; way++) {
        cinchComm_t comm[2] = {NULL, NULL};
        size_t length = ROOM;
        for (int c = 0; c < 2; c++) {
            CHECK_OK(me, cinchCommSplit(me->comm, 0, me->rank, &comm[c], NULL));
            CHECK_OK(me, cinchCommTag(comm[c], from[c], sizeof host, 77));
            if (c && way) {
                CHECK_OK(me, cinchCommExportState(comm[0], state, &length));
                CHECK_OK(me, cinchCommImportState(comm[1], state, length));
            }
            for (int k = 0; k < calls[way][c]; k++)
                CHECK_OK(me,
                         cinchAllReduce(from[c], to, COUNT, cinchFloat, cinchSum, comm[c], stream));
        }
        CU(me, cudaMemcpyAsync(got[way], to, sizeof host, cudaMemcpyDefault, stream));
        CU(me, cudaStreamSynchronize(stream));
        cinchStats_t stats = {.size = sizeof stats};
        CHECK_OK(me, cinchCommGetStats(comm[way], &stats));
        CHECK(me, stats.compressed_calls == (way ? 1 : 3) && stats.ef_bytes >= COUNT * 4);
        for (int c = 0; c < 2; c++) CHECK_OK(me, cinchCommDestroy(comm[c]));
    }
    CHECK(me, memcmp(got[0], got[1], sizeof host) == 0);
    free(state);
    CU(me, cudaStreamDestroy(stream));
}

/* Scaled to nothing, a second call is as the first was. */
static void forgets(seat *me) {
    enum { COUNT = 9000 };
    cudaStream_t stream = begin(me);
    float host[COUNT], got[3][COUNT];
    float *at = take(sizeof host, false), *to = take(sizeof host, false);
    CHECK(me, stream && at && to);
    uint64_t noise = (uint64_t)me->rank + 1;
    for (int i = 0; i < COUNT; i++) host[i] = (float)(int32_t)random64(&noise) * 0x1p-31f;
    CU(me, cudaMemcpyAsync(at, host, sizeof host, cudaMemcpyDefault, stream));
    for (int k = 0; k < 3; k++) {
        if (k == 2) CHECK_OK(me, cinchCommScaleState(me->comm, 0));
        CHECK_OK(me, cinchAllReduce(at, to, COUNT, cinchFloat, cinchSum, me->comm, stream));
        CU(me, cudaMemcpyAsync(got[k], to, sizeof host, cudaMemcpyDefault, stream));
        CU(me, cudaStreamSynchronize(stream));
    }
    CHECK(me, memcmp(got[0], got[1], sizeof host) && !memcmp(got[0], got[2], sizeof host));
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(error_feedback) {
    static const char env[] = "CINCH_CODEC_INTRA=int8:ef=1 CINCH_CODEC_MIN_BYTES=1";
    inner_run(&(ranks_case){.nranks = 3, .env = env, .body = goes_on}, 1);
    inner_run(&(ranks_case){.nranks = 2, .env = env, .body = forgets}, 2);
}
END_TEST

/* ---- streams and groups ---- */

static void groups(seat *me) {
    CU(me, cudaSetDevice(me->rank));
    if (sums(me, me->comm, me->rank, me->nranks, NULL)) (void)group_run(me, true, true);
}

START_TEST(streams_and_groups) {
    for (int n = 2; n <= 4; n++) {
        moving_fine();
        inner_run(&(ranks_case){.nranks = n, .body = groups}, (uint64_t)n);
        ck_assert_int_eq(moving_inits, 2 * n);
    }
}
END_TEST

START_TEST(one_thread_drives_all) {
    enum { N = 3, COUNT = 500, CALLS = 3 };
    clean_environment();
    set_environment("CINCH_CODEC_INTRA=int8 CINCH_CODEC_MIN_BYTES=4K");
    cuda_fake_devices(CUDA_FAKE_DEVICES);
    moving_fine();
    cinchComm_t comm[N];
    cudaStream_t stream[N];
    int *at[N], host[COUNT];
    float *large[N], floats[4 * COUNT];
    ck_assert_int_eq(cudaSetDevice(1), cudaSuccess); /* which says nothing of the ranks */
    ck_assert_int_eq(cinchCommInitAll(comm, N, NULL), cinchSuccess);
    for (int r = 0; r < N; r++) {
        ck_assert_int_eq(cudaSetDevice(r), cudaSuccess);
        ck_assert((stream[r] = open_stream()) && (at[r] = take(COUNT * 4, false)) &&
                  (large[r] = take(sizeof floats, false)));
        for (int i = 0; i < COUNT; i++) host[i] = r + i;
        for (int i = 0; i < 4 * COUNT; i++) floats[i] = 127;
        ck_assert(!cudaMemcpyAsync(at[r], host, sizeof host, cudaMemcpyDefault, stream[r]));
        ck_assert(!cudaMemcpyAsync(large[r], floats, sizeof floats, cudaMemcpyDefault, stream[r]));
    }
    for (int k = 0; k < CALLS; k++) {
        ck_assert_int_eq(cinchGroupStart(), cinchSuccess);
        for (int r = 0; r < N; r++) {
            ck_assert_int_eq(
                cinchAllReduce(at[r], at[r], COUNT, cinchInt, cinchMax, comm[r], stream[r]),
                cinchSuccess);
            ck_assert_int_eq(cinchAllReduce(large[r], large[r], 4 * COUNT, cinchFloat, cinchAvg,
                                            comm[r], stream[r]),
                             cinchSuccess);
        }
        ck_assert_int_eq(cinchGroupEnd(), cinchSuccess);
    }
    for (int r = 0; r < N; r++) {
        ck_assert(!cudaMemcpyAsync(host, at[r], sizeof host, cudaMemcpyDefault, stream[r]));
        ck_assert(!cudaMemcpyAsync(floats, large[r], sizeof floats, cudaMemcpyDefault, stream[r]));
        ck_assert(!cudaStreamSynchronize(stream[r]));
        for (int i = 0; i < COUNT; i++) ck_assert_int_eq(host[i], N - 1 + i);
        for (int i = 0; i < 4 * COUNT; i++) ck_assert(floats[i] == 127);
        ck_assert_int_eq((int)moving_look_at(r).allreduces, CALLS); /* not the compressed ones */
    }
    for (int r = 0; r < N; r++) ck_assert_int_eq(cinchCommDestroy(comm[r]), cinchSuccess);
    for (int r = 0; r < N; r++) ck_assert_int_eq(cudaStreamDestroy(stream[r]), cudaSuccess);
    ck_assert_int_eq(moving_inits, N);
    ck_assert_int_eq(moving_held(), 0);
    free_taken();
}
END_TEST

/* ---- where it cannot be ---- */

static void goes_its_own_way(seat *me) {
    int device = me->shared ? *(const int *)me->shared : -1;
    CU(me, cudaSetDevice(device >= 0 ? device : me->rank));
    cudaStream_t stream = open_stream();
    for (int k = 0; k < 2; k++)
        if (!sums(me, me->comm, me->rank, me->nranks, stream)) return;
    CHECK(me, me->comm->inner_state != CINCH_INNER_MADE);
    CU(me, cudaStreamDestroy(stream));
}

/* The calls go through libcinch, and the log says once why; NULL: it need not say anything. */
static void refused(const char *env, int *device, const char *why) {
    char text[200], line[160];
    snprintf(text, sizeof text, "CINCH_DEBUG=info %s", env);
    inner_run(&(ranks_case){.nranks = 3, .env = text, .body = goes_its_own_way, .shared = device},
              3);
    char *log = read_log();
    snprintf(line, sizeof line, "device memory does not go by NCCL: %s", why ? why : "");
    char *found = strstr(log, line);
    ck_assert_msg(!found == !why, "%s: %s", line, log);
    ck_assert_msg(!found || !strstr(found + strlen(line), "does not go by NCCL"), "said twice: %s",
                  log);
    free(log);
    moving_fine();
}

START_TEST(refusals) {
    int zero = 0;
    moving_fine();
    refused("", &zero, "ranks 0 and 1 are on one GPU");
    moving_library(1, -1);
    refused("", NULL, "rank 1: no library on device 1");
    moving_library(2, 23004);
    refused("", NULL, "rank 0 has NCCL 2.28.9, rank 2 has 2.30.4");
    moving_library(0, 21700);
    refused("", NULL, "rank 0: its NCCL is 2.17.0: 2.18 and newer are accepted");
    moving_refuse(-1, cinchInvalidUsage, true); /* as it says of a GPU that it finds twice */
    refused("", NULL, "rank 0: its init failed: NCCL says invalid usage, what the stand-in said");
    moving_refuse(1, cinchSystemError, true); /* the others have theirs already */
    refused("", NULL, "rank 1: its init failed: NCCL says");
    moving_refuse(1, cinchSystemError, false); /* the others would wait for ever */
    refused("CINCH_INIT_TIMEOUT_MS=2000", NULL, "rank 0: NCCL's init was not done in 1000 ms");
    refused("CINCH_TRANSPORT=^nccl", NULL, NULL);
    refused("CINCH_TRANSPORT=shm,tcp", NULL, NULL);
}
END_TEST

/* What is known when they join: GPUs that are selected then, and whether there is NCCL. */
typedef struct known {
    bool one_gpu, other_later; /* all on one; on their own from then on */
    bool goes;                 /* by NCCL */
} known;

/* A rank's call does not wait for the others', where it is known not to go by NCCL; and what is
 * split off knows it too. */
static void knows_early(seat *me) {
    const known *k = me->shared;
    cinchComm_t half;
    CU(me, cudaSetDevice(k->one_gpu ? 2 : me->rank));
    CHECK_OK(me, cinchCommInitRank(&me->comm, me->nranks, me->id, me->rank));
    if (k->other_later) CU(me, cudaSetDevice(me->rank));
    cudaStream_t stream = open_stream();
    int *at = take(400, false);
    CHECK(me, at && stream && me->comm->may_nccl == k->goes);
    CU(me, cudaMemsetAsync(at, 0, 400, stream));
    if (me->rank && !k->goes) CHECK(me, wait_for_all(&point[0], me->nranks));
    CHECK_OK(me, cinchAllReduce(at, at, 100, cinchInt, cinchSum, me->comm, stream));
    if (!me->rank && !k->goes) CHECK(me, wait_for_all(&point[0], me->nranks));
    if (!sums(me, me->comm, me->rank, me->nranks, stream)) return;
    CHECK(me, by_nccl(me) == k->goes);
    CHECK_OK(me, cinchCommSplit(me->comm, 0, me->rank, &half, NULL));
    CHECK(me, half->may_nccl == (k->goes || k->other_later));
    if (!sums(me, half, me->rank, me->nranks, stream)) return;
    CHECK_OK(me, cinchCommDestroy(half));
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(what_is_known_when_they_join) {
    static known cases[] = {
        {true, false, false}, {true, true, false}, {false, false, true}, {false, false, false}};
    for (int c = 0; c < 4; c++) {
        moving_fine();
        if (c == 3) moving_library(1, -1);
        inner_run(&(ranks_case){.nranks = 3,
                                .bare = true,
                                .env = "CINCH_DEBUG=info",
                                .body = knows_early,
                                .logs = c == 2   ? "device memory goes by NCCL"
                                        : c == 3 ? "rank 1 finds none"
                                                 : "ranks 0 and 1 are on one GPU",
                                .shared = &cases[c]},
                  1);
        ck_assert_int_eq(moving_inits > 0, c == 1 || c == 2);
    }
    moving_fine();
}
END_TEST

/* A split that nobody waits for goes on while the ranks meet for their first call. */
static void splits_beside(seat *me) {
    cinchConfig_t config = CINCH_CONFIG_INITIALIZER;
    cinchResult_t state = cinchInProgress;
    cudaStream_t stream = begin(me);
    cinchComm_t half;
    config.blocking = 0;
    cinchResult_t made = cinchCommSplit(me->comm, 0, me->rank, &half, &config);
    CHECK(me, made == cinchSuccess || made == cinchInProgress);
    if (!sums(me, me->comm, me->rank, me->nranks, stream)) return;
    CHECK(me, by_nccl(me));
    while (state == cinchInProgress) CHECK_OK(me, cinchCommGetAsyncError(half, &state));
    CHECK(me, state == cinchSuccess && sums(me, half, me->rank, me->nranks, stream));
    CHECK_OK(me, cinchCommDestroy(half));
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(a_split_beside_the_first_call) {
    for (uint64_t seed = 0; seed < 10; seed++) {
        moving_fine();
        inner_run(&(ranks_case){.nranks = 2 + (int)(seed % 3), .body = splits_beside}, seed);
    }
}
END_TEST

static void does_not_block(seat *me) {
    cinchConfig_t config = CINCH_CONFIG_INITIALIZER;
    cinchResult_t state = cinchInProgress;
    cudaStream_t stream = begin(me);
    config.blocking = me->rank != 1; /* one that does not is enough */
    cinchResult_t made = cinchCommInitRankConfig(&me->comm, me->nranks, me->id, me->rank, &config);
    CHECK(me, made == cinchSuccess || made == cinchInProgress);
    while (state == cinchInProgress) CHECK_OK(me, cinchCommGetAsyncError(me->comm, &state));
    CHECK(me, state == cinchSuccess && sums(me, me->comm, me->rank, me->nranks, stream));
    CHECK(me, !by_nccl(me) && moving_inits == 0);
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(one_that_does_not_block) {
    moving_fine();
    inner_run(&(ranks_case){.nranks = 3, .bare = true, .body = does_not_block}, 1);
}
END_TEST

/* ---- failing, and the end ---- */

static void async_errors(seat *me) {
    cudaStream_t stream = begin(me);
    cinchResult_t state = cinchInternalError;
    if (!sums(me, me->comm, me->rank, me->nranks, stream)) return;
    CHECK_OK(me, cinchCommGetAsyncError(me->comm, &state));
    CHECK(me, state == cinchSuccess);
    CHECK(me, wait_for_all(&point[0], me->nranks));
    if (me->rank == 1) moving_break(moving_newest(1), cinchSystemError);
    for (int i = 0; i < 2000 && state == cinchSuccess; i++) { /* the others hear of it */
        CHECK_OK(me, cinchCommGetAsyncError(me->comm, &state));
        sleep_ms(1);
    }
    CHECK(me, state == (me->rank == 1 ? cinchSystemError : cinchRemoteError), "%d", (int)state);
    CHECK(me, strstr(cinchGetLastError(me->comm), "what the stand-in said last"));
    int *at = take(400, false);
    CHECK(me, cinchAllReduce(at, at, 100, cinchInt, cinchSum, me->comm, stream) != cinchSuccess);
    CU(me, cudaStreamDestroy(stream));
}

/* Rank 0 never calls; the others' streams hang until the communicator is aborted. */
static void hangs(seat *me) {
    cudaStream_t stream = begin(me);
    int *at = take(FEW * 4, false);
    if (!sums(me, me->comm, me->rank, me->nranks, stream)) return;
    CHECK(me, wait_for_all(&point[0], me->nranks));
    if (me->rank) CHECK_OK(me, cinchAllReduce(at, at, FEW, cinchInt, cinchSum, me->comm, stream));
    CHECK(me, wait_for_all(&point[1], me->nranks));
    sleep_ms(20);
    if (me->rank) CHECK(me, cudaStreamQuery(stream) == cudaErrorNotReady);
    CHECK(me, wait_for_all(&point[2], me->nranks));
    CHECK_OK(me, cinchCommAbort(me->comm));
    me->gone = true;
    CU(me, cudaStreamSynchronize(stream));
    CU(me, cudaStreamDestroy(stream));
}

/* A rank aborts where the others come to their first call. */
static void aborts_first(seat *me) {
    cudaStream_t stream = begin(me);
    int *at = take(FEW * 4, false);
    if (me->rank == 2) {
        sleep_ms(20);
    } else {
        CHECK(me, cinchAllReduce(at, at, FEW, cinchInt, cinchSum, me->comm, stream) ==
                      cinchRemoteError);
        CHECK(me, strstr(cinchGetLastError(me->comm), "cinchCommAbort"), "%s",
              cinchGetLastError(me->comm));
    }
    CHECK_OK(me, cinchCommAbort(me->comm));
    me->gone = true;
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(failures) {
    moving_fine();
    inner_run(&(ranks_case){.nranks = 3, .body = async_errors, .logs = "*"}, 1);
    ck_assert_int_eq(moving_aborts, 3);
    inner_run(&(ranks_case){.nranks = 3, .body = hangs, .logs = "*"}, 2);
    ck_assert_int_eq(moving_aborts, 6);
    inner_run(&(ranks_case){.nranks = 3, .body = aborts_first, .logs = "*"}, 3);
}
END_TEST

/* What is split off, and what is left of a communicator whose calls hang, have their own. */
static void divides(seat *me) {
    cudaStream_t stream = begin(me);
    cinchComm_t half, rest;
    int *at = take(FEW * 4, false), none[] = {3};
    if (!sums(me, me->comm, me->rank, 4, stream)) return;
    CHECK_OK(me, cinchCommSplit(me->comm, me->rank % 2, me->rank, &half, NULL));
    CHECK(me, sums(me, half, me->rank / 2, 2, stream) && half->inner_state == CINCH_INNER_MADE);
    CHECK_OK(me, cinchCommDestroy(half));
    CHECK(me, wait_for_all(&point[2], 4)); /* freeing waits for what all devices do here */
    if (!sums(me, me->comm, me->rank, 4, stream)) return;
    CHECK(me, wait_for_all(&point[0], 4));
    if (me->rank < 3) {
        /* One that has shrunk already has ended the others' calls. */
        cinchResult_t late = cinchAllReduce(at, at, FEW, cinchInt, cinchSum, me->comm, stream);
        CHECK(me, late == cinchSuccess || late == cinchRemoteError, "%d", late);
        CHECK_OK(me, cinchCommShrink(me->comm, none, 1, &rest, NULL, CINCH_SHRINK_ABORT));
        CHECK(me, sums(me, rest, me->rank, 3, stream) && rest->inner_state == CINCH_INNER_MADE);
        CHECK_OK(me, cinchCommDestroy(rest));
    }
    CHECK(me, wait_for_all(&point[1], 4));
    CHECK_OK(me, cinchCommAbort(me->comm));
    me->gone = true;
    CU(me, cudaStreamDestroy(stream));
}

START_TEST(splits_and_shrinks) {
    moving_fine();
    inner_run(&(ranks_case){.nranks = 4, .body = divides, .logs = "*"}, 1);
    ck_assert_int_eq(moving_inits, 4 + 4 + 3);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {everything_is_exact,
                                  compressed_bits_are_the_hosts,
                                  the_codec_changes,
                                  error_feedback,
                                  streams_and_groups,
                                  one_thread_drives_all,
                                  refusals,
                                  what_is_known_when_they_join,
                                  a_split_beside_the_first_call,
                                  one_that_does_not_block,
                                  failures,
                                  splits_and_shrinks};
    return run_tests("nccl_inner", tests, sizeof tests / sizeof *tests, 60);
}

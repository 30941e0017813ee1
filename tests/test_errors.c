/* SPDX-License-Identifier: Apache-2.0 */
/* Failing well: whatever goes wrong on one rank, every rank hears of it soon, in one sentence. */
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "base/settings.h"
#include "tests/harness.h"
#include "tests/one_call.h"

/* What the ranks of a case tell each other beside the library. */
typedef struct board {
    meeting_point ready, done;
    _Atomic uint64_t when_ms; /* it happened */
    char why[MOST_RANKS][512];
    cinchResult_t code[MOST_RANKS];
} board;

static board *clear_board(void) {
    static board *b;
    if (!b) b = shared_memory(sizeof *b);
    memset(b, 0, sizeof *b);
    return b;
}

/* A rank that comes after the others have failed: a small call may still find all their inputs in
 * place, the next one fails with the cause. */
static void hear_late(seat *me, float *data, size_t count, const char *part) {
    cinchResult_t result = cinchAllReduce(data, data, count, cinchFloat, cinchSum, me->comm, NULL);
    if (result == cinchSuccess)
        result = cinchAllReduce(data, data, count, cinchFloat, cinchSum, me->comm, NULL);
    CHECK(me, result == cinchRemoteError, "%d", result);
    CHECK(me, strstr(cinchGetLastError(me->comm), part), "%s", cinchGetLastError(me->comm));
    CHECK(me, cinchAllReduce(data, data, count, cinchFloat, cinchSum, me->comm, NULL) == result);
}

/* ---- abort ---- */

static void *abort_soon(void *arg) {
    seat *me = arg;
    board *b = me->shared;
    sleep_ms(50);
    atomic_store(&b->when_ms, now_ms());
    b->code[me->rank] = cinchCommAbort(me->comm);
    return NULL;
}

/* Rank 0 is inside a call that waits for the last rank, which never comes; another of its threads
 * aborts. */
static void abort_while_waiting(seat *me) {
    board *b = me->shared;
    size_t count = me->nranks == 2 ? 5 : 40000;
    float *data = calloc(count, sizeof *data);
    if (me->rank == me->nranks - 1) {
        CHECK(me, wait_for_all(&b->done, me->nranks));
        hear_late(me, data, count, "cinchCommAbort");
    } else if (me->rank == 0) {
        pthread_t thread;
        CHECK(me, pthread_create(&thread, NULL, abort_soon, me) == 0);
        cinchResult_t result =
            cinchAllReduce(data, data, count, cinchFloat, cinchSum, me->comm, NULL);
        me->gone = true;
        pthread_join(thread, NULL);
        CHECK(me, result == cinchInvalidUsage && strstr(cinchGetLastError(NULL), "aborted"), "%d",
              result);
        CHECK(me, b->code[0] == cinchSuccess);
        CHECK(me, now_ms() - b->when_ms < 1000);
        CHECK(me, wait_for_all(&b->done, me->nranks));
    } else {
        cinchResult_t result =
            cinchAllReduce(data, data, count, cinchFloat, cinchSum, me->comm, NULL);
        CHECK(me, result == cinchRemoteError, "%d", result);
        CHECK(me, now_ms() - b->when_ms < 1500, "after %d ms", (int)(now_ms() - b->when_ms));
        const char *why = cinchGetLastError(me->comm);
        CHECK(me, strstr(why, "rank 0") && strstr(why, "cinchCommAbort"), "%s", why);
        CHECK(me, wait_for_all(&b->done, me->nranks));
    }
    free(data);
}

START_TEST(abort_from_another_thread) {
    static const char *const envs[] = {NULL, "CINCH_TRANSPORT=tcp"};
    for (int e = 0; e < 2; e++)
        for (int n = 2; n <= 4; n++)
            for (int p = 0; p < 2; p++)
                ranks_run(
                    &(ranks_case){.nranks = n,
                                  .processes = p,
                                  .env = envs[e],
                                  .body = abort_while_waiting,
                                  .shared = clear_board(),
                                  .logs = "?cinchCommAbort|?was aborted|?closed its connection"});
}
END_TEST

/* Abort with calls in a group that has not ended, and on streams. */
static void abort_with_work(seat *me) {
    board *b = me->shared;
    int value[4] = {0};
    cinchStream_t stream;
    CHECK_OK(me, cinchStreamCreate(&stream));
    if (me->rank == 0) {
        CHECK_OK(me, cinchAllReduce(&value[0], &value[0], 1, cinchInt, cinchSum, me->comm, stream));
        CHECK_OK(me, cinchGroupStart());
        CHECK_OK(me, cinchAllReduce(&value[1], &value[1], 1, cinchInt, cinchSum, me->comm, stream));
        CHECK_OK(me, cinchAllReduce(&value[2], &value[2], 1, cinchInt, cinchSum, me->comm, NULL));
        me->gone = true;
        CHECK_OK(me, cinchCommAbort(me->comm));
        CHECK_OK(me, cinchGroupEnd());
        CHECK(me, cinchStreamSynchronize(stream) == cinchInvalidUsage);
    }
    CHECK(me, wait_for_all(&b->done, me->nranks));
    CHECK(me, cinchStreamDestroy(stream) == (me->rank ? cinchSuccess : cinchInvalidUsage));
}

START_TEST(abort_drops_what_is_queued) {
    ranks_run(&(ranks_case){.nranks = 2,
                            .body = abort_with_work,
                            .shared = clear_board(),
                            .logs = "?cinchCommAbort|?was aborted|?closed its connection"});
}
END_TEST

/* ---- a rank dies ---- */

static size_t killed_count; /* elements of the calls */

static void killed_in_a_loop(seat *me) {
    board *b = me->shared;
    float *data = calloc(killed_count, sizeof *data);
    int victim = me->nranks - 1 - (int)atomic_load(&b->ready.arrived); /* see below */
    me->dies = me->rank == victim;
    for (int i = 0;; i++) {
        if (me->dies && i == 20) {
            atomic_store(&b->when_ms, now_ms());
            kill(getpid(), SIGKILL);
        }
        cinchResult_t result =
            cinchAllReduce(data, data, killed_count, cinchFloat, cinchSum, me->comm, NULL);
        if (result == cinchSuccess) continue;
        uint64_t late = now_ms() - atomic_load(&b->when_ms);
        char name[20];
        snprintf(name, sizeof name, "rank %d", victim);
        CHECK(me, result == cinchRemoteError, "%d", result);
        CHECK(me, late < 2000, "after %d ms", (int)late);
        CHECK(me, strstr(cinchGetLastError(me->comm), name), "victim %d: %s", victim,
              cinchGetLastError(me->comm));
        cinchResult_t state = cinchSuccess;
        CHECK_OK(me, cinchCommGetAsyncError(me->comm, &state));
        CHECK(me, state == cinchRemoteError);
        CHECK(me, cinchAllReduce(data, data, 1, cinchFloat, cinchSum, me->comm, NULL) ==
                      cinchRemoteError);
        break;
    }
    free(data);
}

static void kill_cases(const char *transport) {
    static const size_t sizes[] = {4, 200000};
    char env[60];
    snprintf(env, sizeof env, "CINCH_TRANSPORT=%s", transport);
    for (int s = 0; s < 2; s++)
        for (int victim = 0; victim < 3; victim++) {
            board *b = clear_board();
            killed_count = sizes[s];
            atomic_store(&b->ready.arrived, 2 - victim);
            ranks_run(&(ranks_case){.nranks = 3,
                                    .processes = true,
                                    .host_apart = victim == 1,
                                    .env = env,
                                    .body = killed_in_a_loop,
                                    .shared = b,
                                    .logs = "*"});
        }
}

START_TEST(killed_over_shm) {
    kill_cases("shm");
}
END_TEST

START_TEST(killed_over_tcp) {
    kill_cases("tcp");
}
END_TEST

/* ---- a rank never calls ---- */

static void one_never_calls(seat *me) {
    board *b = me->shared;
    size_t count = me->nranks == 2 ? 3 : 20000;
    float *data = calloc(count, sizeof *data);
    if (me->rank != 1) {
        uint64_t start = now_ms();
        cinchResult_t result =
            cinchAllReduce(data, data, count, cinchFloat, cinchSum, me->comm, NULL);
        uint64_t took = now_ms() - start;
        const char *why = cinchGetLastError(me->comm);
        CHECK(me, result == cinchRemoteError && took > 400 && took < 3000, "%d after %d ms", result,
              (int)took);
        CHECK(me, strstr(why, "CINCH_TIMEOUT_MS=500") && strstr(why, "allreduce number 0 ("), "%s",
              why);
        CHECK(me, strstr(why, "rank 1 has not called it: it is outside of any call"), "%s", why);
    }
    CHECK(me, wait_for_all(&b->done, me->nranks));
    if (me->rank == 1) hear_late(me, data, count, "CINCH_TIMEOUT_MS=500");
    free(data);
}

START_TEST(a_rank_that_never_calls) {
    static const char *const envs[] = {"CINCH_TIMEOUT_MS=500 CINCH_WARN_MS=200",
                                       "CINCH_TIMEOUT_MS=500 CINCH_TRANSPORT=tcp CINCH_ALGO=direct",
                                       "CINCH_TIMEOUT_MS=500 CINCH_ALGO=ring CINCH_TRANSPORT=shm"};
    for (int e = 0; e < 3; e++)
        for (int n = 2; n <= 3; n++)
            ranks_run(&(ranks_case){.nranks = n,
                                    .env = envs[e],
                                    .body = one_never_calls,
                                    .shared = clear_board(),
                                    .logs = e ? "made no progress|?closed its connection"
                                              : "made no progress|has waited"});
}
END_TEST

/* ---- ranks disagree about the call ---- */

static void differing_counts(seat *me) {
    board *b = me->shared;
    size_t count = 1000 + (me->rank == 0 ? 0 : 24);
    float *data = calloc(count, sizeof *data);
    cinchResult_t result = cinchSuccess;
    for (int i = 0; i < 3 && result == cinchSuccess; i++)
        result = cinchAllReduce(data, data, count, cinchFloat, cinchSum, me->comm, NULL);
    b->code[me->rank] = result;
    snprintf(b->why[me->rank], sizeof b->why[0], "%s", cinchGetLastError(me->comm));
    CHECK(me, result == cinchRemoteError || result == cinchInvalidUsage, "%d", result);
    free(data);
}

START_TEST(counts_that_differ_over_tcp) {
    static const char *const envs[] = {"CINCH_TRANSPORT=tcp CINCH_TIMEOUT_MS=4000",
                                       "CINCH_TRANSPORT=tcp CINCH_TIMEOUT_MS=4000 CINCH_ALGO=ring"};
    for (int e = 0; e < 2; e++)
        for (int n = 2; n <= 3; n++) {
            board *b = clear_board();
            ranks_run(&(ranks_case){
                .nranks = n, .env = envs[e], .body = differing_counts, .shared = b, .logs = "*"});
            for (int r = 0; r < n; r++)
                ck_assert_msg(b->code[r] == cinchInvalidUsage && strstr(b->why[r], "(1000 of") &&
                                  strstr(b->why[r], "(1024 of"),
                              "rank %d: %s", r, b->why[r]);
        }
}
END_TEST

/* The first call of rank 0 is another one than the others'; e->kind says in what. */
typedef struct disagreement {
    board b; /* first */
    int kind;
    size_t count;
} disagreement;

static void differing_calls(seat *me) {
    disagreement *e = me->shared;
    bool odd = me->rank == 0;
    size_t count = e->count + (odd && e->kind == 0);
    cinchDataType_t dtype = odd && e->kind == 1 ? cinchInt32 : cinchFloat;
    cinchRedOp_t op = odd && e->kind == 2 ? cinchMax : cinchSum;
    int *data = calloc(count, sizeof *data);
    cinchResult_t result = cinchSuccess;
    for (int i = 0; i < 2 && result == cinchSuccess; i++)
        result = cinchAllReduce(data, data, count, dtype, op, me->comm, NULL);
    e->b.code[me->rank] = result;
    snprintf(e->b.why[me->rank], sizeof e->b.why[0], "%s", cinchGetLastError(me->comm));
    free(data);
}

START_TEST(calls_that_differ_over_shm) {
    static const char *const envs[] = {NULL, "CINCH_ALGO=twoshot CINCH_CHUNK=4K"};
    disagreement *e = shared_memory(sizeof *e);
    for (int i = 0; i < 2 * 3 * 2; i++)
        for (int n = 2; n <= 3; n++) {
            memset(e, 0, sizeof *e);
            e->kind = i / 2 % 3;
            e->count = i / 6 ? 40000 : 10;
            ranks_run(&(ranks_case){.nranks = n,
                                    .env = envs[i % 2],
                                    .body = differing_calls,
                                    .shared = e,
                                    .logs = "*"});
            for (int r = 0; r < n; r++)
                ck_assert_msg(e->b.code[r] != cinchSuccess &&
                                  strstr(e->b.why[r], "called different things as number 0"),
                              "kind %d, %zu elements, n=%d, rank %d: %d \"%s\"", e->kind, e->count,
                              n, r, (int)e->b.code[r], e->b.why[r]);
        }
}
END_TEST

static void differing_codecs(seat *me) {
    int value = 1;
    CHECK_FAILS(me, cinchCommSetCodec(me->comm, me->rank == 1 ? "int8" : "bf16"), cinchInvalidUsage,
                NULL, "cinchCommSetCodec: rank 0 asks for \"bf16\", rank 1 for \"int8\"");
    CHECK_FAILS(me, cinchCommSetCodec(me->comm, me->rank == 1 ? "int9" : "bf16"), cinchInvalidUsage,
                NULL, "int9");
    CHECK_FAILS(me, cinchCommSetCodec(me->comm, me->rank == 0 ? NULL : "none"), cinchInvalidUsage,
                NULL, "the environment's");
    CHECK_OK(me, cinchCommSetCodec(me->comm, "int8"));
    CHECK_OK(me, cinchCommSetCodec(me->comm, NULL));
    CHECK_OK(me, cinchAllReduce(&value, &value, 1, cinchInt, cinchSum, me->comm, NULL));
    CHECK(me, value == me->nranks);
}

START_TEST(codecs_that_differ) {
    for (int n = 2; n <= 3; n++)
        ranks_run(&(ranks_case){.nranks = n,
                                .body = differing_codecs,
                                .logs = "rank 0 asks for|int9|the environment's"});
}
END_TEST

int main(void) {
    const TTest *const tests[] = {abort_from_another_thread,
                                  abort_drops_what_is_queued,
                                  killed_over_shm,
                                  killed_over_tcp,
                                  a_rank_that_never_calls,
                                  counts_that_differ_over_tcp,
                                  calls_that_differ_over_shm,
                                  codecs_that_differ};
    return run_tests("errors", tests, sizeof tests / sizeof *tests, 60);
}

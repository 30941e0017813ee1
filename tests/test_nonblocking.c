/* SPDX-License-Identifier: Apache-2.0 */
/* Communicators that do not block: what returns at once, what tells when it is complete, and that
 * everything can be given up at any time. */
#include <pthread.h>

#include "base/log.h"
#include "tests/family.h"
#include "transports/rendezvous_wire.h"

static void quiet(void) {
    clean_environment();
    setenv("CINCH_DEBUG", "none", 1);
    cinch_log_setup(CINCH_LOG_NONE, NULL);
}

static cinchConfig_t nonblocking(void) {
    cinchConfig_t config = CINCH_CONFIG_INITIALIZER;
    config.blocking = 0;
    return config;
}

/* The whole life: init, calls, split, shrink, finalize, destroy. */
static void whole_life(seat *me) {
    cinchConfig_t config = nonblocking();
    cinchComm_t comm = NULL, child = NULL, blocking = NULL;
    cinchStream_t stream;
    int last[] = {me->nranks - 1}, data[3][100], n = me->nranks;
    CHECK(me, cinchCommInitRankConfig(&comm, n, me->id, me->rank, &config) == cinchInProgress);
    CHECK(me, comm != NULL && is_rank(comm, me->rank, n)); /* known from the beginning */
    /* Calls are queued behind the init, on a stream of the user's as well. */
    CHECK_OK(me, cinchStreamCreate(&stream));
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 100; j++) data[i][j] = i + j;
        cinchResult_t result =
            cinchAllReduce(data[i], data[i], 100, cinchInt, cinchSum, comm, i == 1 ? stream : NULL);
        CHECK(me, result == (i == 1 ? cinchSuccess : cinchInProgress), "%d", (int)result);
    }
    CHECK(me, settled(comm) == cinchSuccess);
    CHECK_OK(me, cinchStreamDestroy(stream));
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 100; j++) CHECK(me, data[i][j] == n * (i + j));

    /* The parent's config is inherited; a child may have one of its own. */
    CHECK(me, cinchCommSplit(comm, 0, -me->rank, &child, NULL) == cinchInProgress);
    CHECK(me, child != NULL && settled(comm) == cinchSuccess && settled(child) == cinchSuccess);
    CHECK(me, is_rank(child, n - 1 - me->rank, n) && adds_up(child, 1, n));
    config.blocking = 1;
    CHECK_OK(me, cinchCommSplit(child, 3, me->rank, &blocking, &config));
    CHECK(me, adds_up(blocking, 1, n));
    config.blocking = 0;
    CHECK_OK(me, cinchCommDestroy(child));
    /* Without a color there is no child to ask: the parent tells. */
    bool none = me->rank == 0;
    CHECK(me,
          cinchCommSplit(comm, none ? CINCH_SPLIT_NOCOLOR : 1, 0, &child, NULL) == cinchInProgress);
    CHECK(me, settled(comm) == cinchSuccess && none == (child == NULL));
    if (!none) CHECK(me, settled(child) == cinchSuccess && adds_up(child, 1, n - 1));
    if (!none) CHECK_OK(me, cinchCommDestroy(child));
    if (me->rank != n - 1) {
        CHECK(me, cinchCommShrink(blocking, last, 1, &child, &config, CINCH_SHRINK_DEFAULT) ==
                      cinchInProgress);
        CHECK(me, is_rank(child, me->rank, n - 1));
        CHECK(me, settled(child) == cinchSuccess && adds_up(child, 1, n - 1));
        CHECK_OK(me, cinchCommDestroy(child));
    }
    CHECK(me, adds_up(blocking, 1, n));
    CHECK_OK(me, cinchCommDestroy(blocking));

    for (int j = 0; j < 100; j++) data[0][j] = j;
    CHECK(me,
          cinchAllReduce(data[0], data[0], 100, cinchInt, cinchSum, comm, NULL) == cinchInProgress);
    CHECK(me, cinchCommFinalize(comm) == cinchInProgress);
    CHECK_FAILS(me, cinchAllReduce(data[0], data[0], 1, cinchInt, cinchSum, comm, NULL),
                cinchInvalidUsage, NULL, "was finalized");
    CHECK(me, settled(comm) == cinchSuccess);
    for (int j = 0; j < 100; j++) CHECK(me, data[0][j] == n * j);
    CHECK_OK(me, cinchCommDestroy(comm));
}

START_TEST(nothing_blocks) {
    const char *const envs[] = {NULL, "CINCH_TRANSPORT=tcp"};
    for (int e = 0; e < 2; e++)
        for (int processes = 0; processes < 2; processes++)
            ranks_run(&(ranks_case){.nranks = 3,
                                    .processes = processes,
                                    .env = envs[e],
                                    .bare = true,
                                    .body = whole_life,
                                    .logs = "was finalized"});
}
END_TEST

/* One thread makes all ranks, without a group and in one. */
START_TEST(one_thread_makes_all_ranks) {
    enum { N = 3 };
    quiet();
    cinchConfig_t config = nonblocking();
    cinchComm_t comm[N], child[N];
    cinchUniqueId id;
    int data[N];
    for (int grouped = 0; grouped < 2; grouped++) {
        OK(cinchGetUniqueId(&id));
        if (grouped) OK(cinchGroupStart());
        for (int r = 0; r < N; r++)
            ck_assert_int_eq(cinchCommInitRankConfig(&comm[r], N, id, r, &config), cinchInProgress);
        if (grouped) ck_assert_int_eq(cinchGroupEnd(), cinchInProgress);
        for (int r = 0; r < N; r++) ck_assert_int_eq(settled(comm[r]), cinchSuccess);
        OK(cinchGroupStart());
        for (int r = 0; r < N; r++) {
            data[r] = r;
            OK(cinchAllReduce(&data[r], &data[r], 1, cinchInt, cinchSum, comm[r], NULL));
        }
        ck_assert_int_eq(cinchGroupEnd(), cinchInProgress);
        for (int r = 0; r < N; r++) {
            ck_assert_int_eq(settled(comm[r]), cinchSuccess);
            ck_assert_int_eq(data[r], 3);
            ck_assert_int_eq(cinchCommSplit(comm[r], 0, 0, &child[r], NULL), cinchInProgress);
        }
        for (int r = 0; r < N; r++) ck_assert_int_eq(settled(child[r]), cinchSuccess);
        for (int r = 0; r < N; r++) {
            OK(cinchCommDestroy(child[r]));
            OK(cinchCommDestroy(comm[r])); /* the others' finish without it */
        }
    }
}
END_TEST

/* ---- giving up ---- */

/* The peer never comes: the init can be aborted, and what is queued behind it goes with it. */
START_TEST(an_init_without_peers_is_aborted) {
    const char *const envs[] = {NULL, "CINCH_COMM_ID=127.0.0.1:0"};
    char why[200];
    cinch_rendezvous_tune.linger_ms = 50;
    for (int round = 0; round < 8; round++) {
        cinchConfig_t config = nonblocking();
        cinchComm_t comm = NULL;
        cinchUniqueId id;
        cinchResult_t state;
        int value = 1, rank = round / 2 % 2;
        quiet();
        set_environment(envs[round / 4]);
        holdings before = hold_now();
        OK(cinchGetUniqueId(&id));
        ck_assert_int_eq(cinchCommInitRankConfig(&comm, 2, id, rank, &config), cinchInProgress);
        ck_assert_int_eq(cinchAllReduce(&value, &value, 1, cinchInt, cinchSum, comm, NULL),
                         cinchInProgress);
        sleep_ms(round % 2 ? 100 : 0);
        OK(cinchCommGetAsyncError(comm, &state));
        ck_assert_int_eq(state, cinchInProgress);
        uint64_t start = now_ms();
        OK(cinchCommAbort(comm));
        ck_assert_uint_lt(now_ms() - start, 2000);
        if (round == 0) { /* the heap is made, the meeting point lingers to tell why it ended */
            for (int i = 0; i < 80 && hold_now().threads > 1; i++) sleep_ms(50);
            continue;
        }
        ck_assert_msg(holdings_settle(&before, false, why, sizeof why), "%s", why);
    }
}
END_TEST

/* One rank aborts its init; the other one, which waits for a third, hears of it. */
static void abort_while_joining(seat *me) {
    cinchConfig_t config = nonblocking();
    cinchComm_t comm = NULL;
    CHECK(me, cinchCommInitRankConfig(&comm, 3, me->id, me->rank, &config) == cinchInProgress);
    if (me->rank == 0) sleep_ms(100);
    if (me->rank == 1) {
        CHECK(me, settled(comm) == cinchRemoteError);
        CHECK(me, strstr(cinchGetLastError(comm), "cinchCommAbort"), "%s", cinchGetLastError(comm));
    }
    CHECK_OK(me, me->rank ? cinchCommDestroy(comm) : cinchCommAbort(comm));
}

START_TEST(the_others_hear_of_an_aborted_init) {
    for (int processes = 0; processes < 2; processes++)
        ranks_run(&(ranks_case){.nranks = 2,
                                .processes = processes,
                                .bare = true,
                                .body = abort_while_joining,
                                .logs = "cinchCommAbort"});
}
END_TEST

/* What goes wrong in the init is told by GetAsyncError, and the handle is freed as any other. */
static void a_bad_config(seat *me) {
    cinchConfig_t config = nonblocking();
    cinchComm_t comm = NULL, child = NULL;
    cinchResult_t state;
    int value = 1;
    if (me->rank == 1) setenv("CINCH_CODEC", "int8:block=3", 1);
    CHECK(me, cinchCommInitRankConfig(&comm, 2, me->id, me->rank, &config) == cinchInProgress);
    CHECK(me, settled(comm) == cinchInvalidUsage && strstr(cinchGetLastError(comm), "block=3"),
          "%s", cinchGetLastError(comm));
    cinchAllReduce(&value, &value, 1, cinchInt, cinchSum, comm, NULL);
    CHECK_FAILS(me, cinchCommSplit(comm, 0, 0, &child, NULL), cinchInvalidUsage, NULL,
                "has failed");
    CHECK_OK(me, cinchCommGetAsyncError(comm, &state));
    CHECK(me, state == cinchInvalidUsage);
    CHECK_OK(me, me->rank ? cinchCommDestroy(comm) : cinchCommAbort(comm));
}

START_TEST(a_failed_init_is_told_later) {
    ranks_run(&(ranks_case){
        .nranks = 2, .processes = true, .bare = true, .body = a_bad_config, .logs = "*"});
}
END_TEST

typedef struct board {
    meeting_point point[2];
} board;

/* Rank 1 stays away from a split: it stays under way, its child serves for nothing yet, and an
 * abort of either ends it. */
static void abort_a_split(seat *me) {
    board *b = me->shared;
    cinchConfig_t config = nonblocking();
    cinchComm_t comm = NULL, child = NULL;
    cinchResult_t state;
    int count;
    CHECK(me, cinchCommInitRankConfig(&comm, 2, me->id, me->rank, &config) == cinchInProgress);
    CHECK(me, settled(comm) == cinchSuccess);
    if (me->rank == 0) {
        CHECK(me, cinchCommSplit(comm, 0, 0, &child, NULL) == cinchInProgress);
        sleep_ms(50);
        CHECK_OK(me, cinchCommGetAsyncError(child, &state));
        CHECK(me, state == cinchInProgress);
        CHECK_OK(me, cinchCommGetAsyncError(comm, &state));
        CHECK(me, state == cinchInProgress);
        CHECK_FAILS(me, cinchCommCount(child, &count), cinchInvalidArgument, NULL,
                    "still being split off");
        if (b->point[1].arrived) CHECK_OK(me, cinchCommAbort(comm));
        CHECK_OK(me, cinchCommAbort(child));
        if (!b->point[1].arrived) {
            CHECK_OK(me, cinchCommGetAsyncError(comm, &state));
            CHECK(me, state == cinchInvalidUsage, "%d", (int)state);
            CHECK_OK(me, cinchCommAbort(comm));
        }
    }
    CHECK(me, wait_for_all(&b->point[0], 2));
    if (me->rank == 0) return;
    for (int i = 0; i < 100 && settled(comm) == cinchSuccess; i++) {
        cinchAllReduce(&count, &count, 1, cinchInt, cinchSum, comm, NULL);
        settled(comm);
    }
    CHECK(me, settled(comm) == cinchRemoteError, "%d", (int)settled(comm));
    CHECK_OK(me, cinchCommAbort(comm));
}

START_TEST(a_split_is_aborted) {
    static board *b;
    if (!b) b = shared_memory(sizeof *b);
    for (int parent = 0; parent < 2; parent++)
        for (int processes = 0; processes < 2; processes++) {
            memset(b, 0, sizeof *b);
            b->point[1].arrived = parent;
            ranks_run(&(ranks_case){.nranks = 2,
                                    .processes = processes,
                                    .bare = true,
                                    .body = abort_a_split,
                                    .shared = b,
                                    .logs = "*"});
        }
}
END_TEST

/* Aborts at any moment of a life that is busy. */
static void abort_anywhere(seat *me) {
    cinchConfig_t config = nonblocking();
    uint64_t dice = *(uint64_t *)me->shared + (uint64_t)me->rank;
    cinchComm_t comm = NULL, child = NULL, small = NULL;
    static float data[2][20000];
    int one[] = {1};
    CHECK(me, cinchCommInitRankConfig(&comm, 2, me->id, me->rank, &config) == cinchInProgress);
    cinchAllReduce(data[me->rank], data[me->rank], 20000, cinchFloat, cinchSum, comm, NULL);
    cinchCommSplit(comm, 0, 0, &child, NULL);
    if (me->rank == 0) cinchCommShrink(comm, one, 1, &small, NULL, CINCH_SHRINK_DEFAULT);
    if (child) cinchAllReduce(data[me->rank], data[me->rank], 1, cinchFloat, cinchSum, child, NULL);
    sleep_ms((unsigned)(random64(&dice) % 30));
    if (small) CHECK_OK(me, cinchCommAbort(small));
    bool first = random64(&dice) % 2;
    if (first) CHECK_OK(me, cinchCommAbort(comm));
    if (child) CHECK_OK(me, cinchCommAbort(child));
    if (!first) CHECK_OK(me, cinchCommAbort(comm));
}

START_TEST(aborts_at_any_time) {
    cinch_rendezvous_tune.linger_ms = 50; /* how long those that never come may still hear of it */
    for (uint64_t seed = 0; seed < 20; seed++)
        ranks_run(&(ranks_case){
            .nranks = 2, .bare = true, .body = abort_anywhere, .shared = &seed, .logs = "*"});
}
END_TEST

int main(void) {
    const TTest *const tests[] = {nothing_blocks,
                                  one_thread_makes_all_ranks,
                                  an_init_without_peers_is_aborted,
                                  the_others_hear_of_an_aborted_init,
                                  a_failed_init_is_told_later,
                                  a_split_is_aborted,
                                  aborts_at_any_time};
    return run_tests("nonblocking", tests, sizeof tests / sizeof *tests, 60);
}

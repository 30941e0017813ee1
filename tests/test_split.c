/* SPDX-License-Identifier: Apache-2.0 */
/* Splits: who is with whom and in which order, in threads, processes and groups; what is refused.
 */
#include "base/log.h"
#include "tests/family.h"

enum { RANKS = 6 };

static void quiet(void) {
    clean_environment();
    setenv("CINCH_DEBUG", "none", 1);
    cinch_log_setup(CINCH_LOG_NONE, NULL);
}

/* Colors 0 and 1 in reverse order, and one rank in none; then each half again, by key alone. */
static void colors_and_keys(seat *me) {
    cinchComm_t child = (cinchComm_t)(void *)me, grandchild = NULL;
    bool none = me->rank == 5;
    int color = none ? CINCH_SPLIT_NOCOLOR : me->rank % 2, half = color == 0 ? 3 : 2;
    CHECK_OK(me, cinchCommSplit(me->comm, color, -me->rank, &child, NULL));
    CHECK(me, adds_up(me->comm, 1 << me->rank, (1 << RANKS) - 1));
    if (none) {
        CHECK(me, child == NULL);
        return;
    }
    CHECK(me, is_rank(child, half - 1 - me->rank / 2, half));
    int members = color == 0 ? 1 | 4 | 16 : 2 | 8;
    CHECK(me, adds_up(child, 1 << me->rank, members));
    /* Keys that are alike: the order in the one that is split. */
    CHECK_OK(me, cinchCommSplit(child, 7, 0, &grandchild, NULL));
    CHECK(me, is_rank(grandchild, half - 1 - me->rank / 2, half));
    CHECK(me, adds_up(grandchild, 1 << me->rank, members));
    /* Children live on without their parents. */
    CHECK_OK(me, cinchCommDestroy(child));
    CHECK(me, adds_up(grandchild, 1 << me->rank, members));
    CHECK_OK(me, cinchCommSplit(grandchild, me->rank, 0, &child, NULL)); /* each alone */
    CHECK_OK(me, cinchCommDestroy(grandchild));
    CHECK(me, is_rank(child, 0, 1) && adds_up(child, me->rank, me->rank));
    CHECK_OK(me, cinchCommDestroy(child));
    CHECK(me, me->rank == 0 || cinchCommDestroy(me->comm) == cinchSuccess);
    me->gone = me->rank != 0;
}

START_TEST(split_by_color_and_key) {
    const char *const envs[] = {NULL, "CINCH_TRANSPORT=tcp", "CINCH_COMM_ID=127.0.0.1:0",
                                "CINCH_CODEC_INTRA=bf16 CINCH_CODEC_MIN_BYTES=0"};
    for (size_t e = 0; e < sizeof envs / sizeof *envs; e++)
        for (int processes = 0; processes < 2; processes++)
            ranks_run(&(ranks_case){
                .nranks = RANKS, .processes = processes, .env = envs[e], .body = colors_and_keys});
}
END_TEST

/* One thread has several ranks: their splits, and those of two parents, are a group. */
START_TEST(one_thread_splits_in_a_group) {
    enum { N = 4 };
    quiet();
    cinchComm_t parent[N], other[N], child[N], second[N];
    int data[N];
    OK(cinchCommInitAll(parent, N, NULL));
    OK(cinchCommInitAll(other, N, NULL));
    for (int round = 0; round < 3; round++) {
        OK(cinchGroupStart());
        for (int r = 0; r < N; r++) {
            OK(cinchCommSplit(parent[r], r / 2, -r, &child[r], NULL));
            OK(cinchCommSplit(other[r], r == 3 ? CINCH_SPLIT_NOCOLOR : 0, 0, &second[r], NULL));
        }
        for (int r = 0; r < N; r++) ck_assert_ptr_null(child[r]);
        OK(cinchGroupEnd());
        OK(cinchGroupStart());
        for (int r = 0; r < N; r++) {
            data[r] = r + 1;
            ck_assert(is_rank(child[r], 1 - r % 2, 2));
            OK(cinchAllReduce(&data[r], &data[r], 1, cinchInt, cinchSum, child[r], NULL));
        }
        OK(cinchGroupEnd());
        for (int r = 0; r < N; r++) ck_assert_int_eq(data[r], r < 2 ? 3 : 7);
        ck_assert_ptr_null(second[3]);
        for (int r = 0; r < N; r++) OK(cinchCommDestroy(child[r]));
        for (int r = 0; r < 3; r++) OK(cinchCommDestroy(second[r]));
    }
    /* What is queued can be aborted, and holds back a destroy. */
    OK(cinchGroupStart());
    OK(cinchCommSplit(parent[0], 0, 0, &child[0], NULL));
    FAILS(cinchCommDestroy(parent[0]), cinchInvalidUsage, NULL, "a group that has not ended");
    OK(cinchCommAbort(parent[0]));
    OK(cinchGroupEnd());
    for (int r = 1; r < N; r++) OK(cinchCommAbort(parent[r]));
    for (int r = 0; r < N; r++) OK(cinchCommDestroy(other[r]));
}
END_TEST

START_TEST(groups_do_not_mix) {
    quiet();
    cinchComm_t comm, child = NULL;
    int value = 1;
    OK(cinchCommInitAll(&comm, 1, NULL));
    OK(cinchGroupStart());
    OK(cinchCommSplit(comm, 0, 0, &child, NULL));
    FAILS(cinchAllReduce(&value, &value, 1, cinchInt, cinchSum, comm, NULL), cinchInvalidUsage,
          NULL, "not both");
    FAILS(cinchGroupEnd(), cinchInvalidUsage, NULL, "not both");
    ck_assert_ptr_null(child);
    OK(cinchGroupStart());
    OK(cinchAllReduce(&value, &value, 1, cinchInt, cinchSum, comm, NULL));
    FAILS(cinchCommSplit(comm, 0, 0, &child, NULL), cinchInvalidUsage, NULL, "not both");
    FAILS(cinchGroupEnd(), cinchInvalidUsage, NULL, "not both");
    OK(cinchGroupStart()); /* a wrong argument spoils the group */
    FAILS(cinchCommSplit(comm, -7, 0, &child, NULL), cinchInvalidArgument, NULL, "color -7");
    OK(cinchCommSplit(comm, 0, 0, &child, NULL));
    FAILS(cinchGroupEnd(), cinchInvalidArgument, NULL, "color -7");
    ck_assert_ptr_null(child);
    OK(cinchCommSplit(comm, 0, 0, &child, NULL));
    OK(cinchCommDestroy(child));
    OK(cinchCommDestroy(comm));
}
END_TEST

START_TEST(wrong_arguments) {
    quiet();
    cinchComm_t comm, child = NULL;
    cinchConfig_t config = CINCH_CONFIG_INITIALIZER, zero = {0};
    OK(cinchCommInitAll(&comm, 1, NULL));
    FAILS(cinchCommSplit(NULL, 0, 0, &child, NULL), cinchInvalidArgument, NULL, "comm is NULL");
    FAILS(cinchCommSplit(comm, 0, 0, NULL, NULL), cinchInvalidArgument, NULL, "newcomm is NULL");
    FAILS(cinchCommSplit(comm, -2, 0, &child, NULL), cinchInvalidArgument, NULL,
          "color -2: 0 and more, or CINCH_SPLIT_NOCOLOR");
    FAILS(cinchCommSplit(comm, 0, 0, &child, &zero), cinchInvalidArgument, NULL,
          "CINCH_CONFIG_INITIALIZER");
    ck_assert_ptr_null(child);
    config.blocking = 2;
    FAILS(cinchCommSplit(comm, 0, 0, &child, &config), cinchInvalidArgument, NULL,
          "config->blocking=2: 0 and 1 are accepted");
    OK(cinchCommFinalize(comm));
    FAILS(cinchCommSplit(comm, 0, 0, &child, NULL), cinchInvalidUsage, NULL, "was finalized");
    OK(cinchCommDestroy(comm));
}
END_TEST

/* One rank's bad config is told to those of its color; the parent is not disturbed. */
static void one_bad_config(seat *me) {
    cinchComm_t child = NULL;
    cinchConfig_t config = CINCH_CONFIG_INITIALIZER;
    config.blocking = me->rank == 2 ? 5 : 1;
    cinchResult_t result = cinchCommSplit(me->comm, me->rank % 2, 0, &child, &config);
    if (me->rank % 2) {
        CHECK_OK(me, result);
        CHECK_OK(me, cinchCommDestroy(child));
    } else {
        CHECK(me, child == NULL);
        CHECK(me, result == (me->rank == 2 ? cinchInvalidArgument : cinchInvalidUsage), "%d",
              (int)result);
        CHECK(me, strstr(cinchGetLastError(NULL), "config->blocking=5"));
    }
    CHECK(me, adds_up(me->comm, 1, me->nranks));
}

START_TEST(a_bad_config_is_told_to_its_color) {
    ranks_run(&(ranks_case){.nranks = 5, .body = one_bad_config, .logs = "config->blocking=5"});
}
END_TEST

/* One rank splits, the others set a codec. */
static void something_else(seat *me) {
    cinchComm_t child = NULL;
    cinchResult_t result = me->rank == 1 ? cinchCommSplit(me->comm, 0, 0, &child, NULL)
                                         : cinchCommSetCodec(me->comm, "none");
    CHECK(me, result != cinchSuccess && child == NULL);
    CHECK(me,
          strstr(cinchGetLastError(NULL), "ranks 0,2 cinchCommSetCodec, rank 1 cinchCommSplit"));
    CHECK_OK(me, cinchCommAbort(me->comm));
    me->gone = true;
}

START_TEST(ranks_that_call_something_else_are_told) {
    ranks_run(&(ranks_case){.nranks = 3, .body = something_else, .logs = "*"});
}
END_TEST

/* A rank that aborts the parent ends the splits that wait for it. */
static void abort_instead(seat *me) {
    cinchComm_t child = NULL;
    if (me->rank == 1) {
        sleep_ms(50);
        CHECK_OK(me, cinchCommAbort(me->comm));
        me->gone = true;
        return;
    }
    CHECK_FAILS(me, cinchCommSplit(me->comm, 0, 0, &child, NULL), cinchRemoteError, NULL,
                "cinchCommAbort");
    CHECK(me, child == NULL);
    CHECK_FAILS(me, cinchCommSplit(me->comm, 0, 0, &child, NULL), cinchRemoteError, NULL,
                "has failed");
}

START_TEST(an_abort_ends_a_split) {
    for (int processes = 0; processes < 2; processes++)
        ranks_run(&(ranks_case){
            .nranks = 3, .processes = processes, .body = abort_instead, .logs = "cinchCommAbort"});
}
END_TEST

/* ---- inits with several ids ---- */

typedef struct several {
    meeting_point made;
    cinchUniqueId id[3];
} several;

/* Three ranks make an id each, as in programs where every rank calls cinchGetUniqueId. */
static void scalable(seat *me) {
    several *s = me->shared;
    cinchComm_t comm = NULL;
    if (me->rank < 3) CHECK_OK(me, cinchGetUniqueId(&s->id[me->rank]));
    CHECK(me, wait_for_all(&s->made, me->nranks));
    CHECK_OK(me, cinchCommInitRankScalable(&comm, me->nranks, me->rank, 3, s->id, NULL));
    CHECK(me, is_rank(comm, me->rank, me->nranks) && adds_up(comm, 1, me->nranks));
    CHECK_OK(me, cinchCommDestroy(comm)); /* and no meeting point is left: the harness looks */
}

START_TEST(several_ids_make_one_communicator) {
    for (int processes = 0; processes < 2; processes++)
        ranks_run(&(ranks_case){.nranks = 4,
                                .processes = processes,
                                .no_id = true,
                                .bare = true,
                                .body = scalable,
                                .shared = shared_memory(sizeof(several))});
}
END_TEST

START_TEST(arguments_of_scalable_inits) {
    quiet();
    cinchUniqueId id[2];
    cinchComm_t comm = NULL;
    OK(cinchGetUniqueId(&id[0]));
    id[1] = id[0];
    FAILS(cinchCommInitRankScalable(NULL, 1, 0, 1, id, NULL), cinchInvalidArgument, NULL,
          "comm is NULL");
    FAILS(cinchCommInitRankScalable(&comm, 1, 0, 1, NULL, NULL), cinchInvalidArgument, NULL,
          "commIds is NULL");
    FAILS(cinchCommInitRankScalable(&comm, 1, 0, 0, id, NULL), cinchInvalidArgument, NULL, "nId 0");
    FAILS(cinchCommInitRankScalable(&comm, 1, 0, 2, id, NULL), cinchInvalidArgument, NULL, "nId 2");
    FAILS(cinchCommInitRankScalable(&comm, 1, 1, 1, id, NULL), cinchInvalidArgument, NULL,
          "rank 1 of 1");
    OK(cinchCommInitRankScalable(&comm, 1, 0, 1, id, NULL));
    OK(cinchCommDestroy(comm));
}
END_TEST

int main(void) {
    const TTest *const tests[] = {split_by_color_and_key,
                                  one_thread_splits_in_a_group,
                                  groups_do_not_mix,
                                  wrong_arguments,
                                  a_bad_config_is_told_to_its_color,
                                  ranks_that_call_something_else_are_told,
                                  an_abort_ends_a_split,
                                  several_ids_make_one_communicator,
                                  arguments_of_scalable_inits};
    return run_tests("split", tests, sizeof tests / sizeof *tests, 60);
}

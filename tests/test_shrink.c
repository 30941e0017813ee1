/* SPDX-License-Identifier: Apache-2.0 */
/* Shrinks of healthy and of broken communicators, and revocation: who meets again, and who is told
 * what. */
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/family.h"
#include "transports/rendezvous_wire.h"

static void quiet(void) {
    clean_environment();
    setenv("CINCH_DEBUG", "none", 1);
    cinch_log_setup(CINCH_LOG_NONE, NULL);
}

typedef struct board {
    meeting_point point[4];
    int victim; /* of those tests that kill */
} board;

static board *clear_board(void) {
    static board *b;
    if (!b) b = shared_memory(sizeof *b);
    memset(b, 0, sizeof *b);
    return b;
}

/* ---- healthy ---- */

/* Twice without rank 1, then without ranks 0 and 3, who are busy with something else. */
static void shrink_healthy(seat *me) {
    board *b = me->shared;
    cinchComm_t child = NULL, second = NULL;
    int one[] = {1}, others[] = {3, 0};
    for (int i = 0; i < 2 && me->rank != 1; i++) {
        CHECK_OK(me, cinchCommShrink(me->comm, one, 1, &child, NULL, CINCH_SHRINK_DEFAULT));
        CHECK(me, is_rank(child, me->rank ? me->rank - 1 : 0, me->nranks - 1));
        CHECK(me, adds_up(child, 1, me->nranks - 1));
        if (i == 0) CHECK_OK(me, cinchCommDestroy(child));
    }
    if (me->rank == 1 || me->rank == 2 || me->rank > 3) {
        CHECK_OK(me, cinchCommShrink(me->comm, others, 2, &second, NULL, CINCH_SHRINK_DEFAULT));
        CHECK(me, adds_up(second, 1, me->nranks - 2));
        CHECK_OK(me, cinchCommDestroy(second));
    }
    CHECK(me, wait_for_all(&b->point[0], me->nranks));
    CHECK(me, adds_up(me->comm, 1, me->nranks));
    if (me->rank != 1) { /* nobody at all; and shrinking what was shrunk */
        CHECK_OK(me, cinchCommShrink(child, NULL, 0, &second, NULL, CINCH_SHRINK_DEFAULT));
        CHECK(me, adds_up(second, 1, me->nranks - 1));
        CHECK_OK(me, cinchCommDestroy(child));
        CHECK_OK(me, cinchCommDestroy(second));
    }
}

START_TEST(a_healthy_communicator_shrinks) {
    const char *const envs[] = {NULL, "CINCH_TRANSPORT=tcp", "CINCH_COMM_ID=127.0.0.1:0",
                                "CINCH_HOSTID=one"};
    for (size_t e = 0; e < sizeof envs / sizeof *envs; e++)
        for (int processes = 0; processes < 2; processes++)
            ranks_run(&(ranks_case){.nranks = 5,
                                    .processes = processes,
                                    .env = envs[e],
                                    .body = shrink_healthy,
                                    .shared = clear_board()});
}
END_TEST

/* ---- after a death ---- */

/* The victim is killed inside a loop of all-reduces; the others go on without it, with nothing lost
 * but what was under way. */
static void lose_one(seat *me) {
    board *b = me->shared;
    cinchComm_t child = NULL;
    static float data[50000];
    cinchResult_t result = cinchSuccess;
    me->dies = me->rank == b->victim;
    for (int i = 0; result == cinchSuccess; i++) {
        if (me->dies && i == 20) kill(getpid(), SIGKILL);
        result = cinchAllReduce(data, data, 50000, cinchFloat, cinchSum, me->comm, NULL);
    }
    CHECK(me, result == cinchRemoteError, "%d", (int)result);
    CHECK_FAILS(me, cinchCommShrink(me->comm, &b->victim, 1, &child, NULL, CINCH_SHRINK_DEFAULT),
                cinchRemoteError, NULL, "has failed");
    CHECK_OK(me, cinchCommShrink(me->comm, &b->victim, 1, &child, NULL, CINCH_SHRINK_ABORT));
    CHECK(me, is_rank(child, me->rank - (me->rank > b->victim), me->nranks - 1));
    CHECK_OK(me, cinchCommDestroy(me->comm));
    me->comm = child;
    CHECK(me, adds_up(child, 1, me->nranks - 1));
}

static void own_host(seat *me) {
    char name[32];
    snprintf(name, sizeof name, "host-%d", me->rank / 2);
    setenv("CINCH_HOSTID", name, 1);
}

/* Rank 0's process has the meeting point: it can be the victim, too. */
START_TEST(survivors_of_a_death_shrink) {
    const char *const envs[] = {NULL, "CINCH_TRANSPORT=tcp"};
    for (size_t e = 0; e < 2; e++)
        for (int victim = 0; victim < 3; victim++) {
            board *b = clear_board();
            b->victim = victim;
            ranks_run(&(ranks_case){.nranks = 3 + (int)e,
                                    .processes = true,
                                    .env = envs[e],
                                    .env_of = e ? own_host : NULL,
                                    .body = lose_one,
                                    .shared = b,
                                    .logs = "*"});
        }
}
END_TEST

/* Ranks that no unix socket connects meet at the address that they have been listening at. */
static void lose_one_apart(seat *me) {
    cinch_rendezvous_tune.hide = 1;
    lose_one(me);
}

START_TEST(survivors_on_other_hosts_shrink) {
    if (!cinch_handshake_available()) return; /* without libsodium there are no other hosts */
    for (int victim = 0; victim < 4; victim += 3) {
        board *b = clear_board();
        b->victim = victim;
        ranks_run(&(ranks_case){.nranks = 4,
                                .processes = true,
                                .env = "CINCH_TRANSPORT=tcp",
                                .env_of = own_host,
                                .body = lose_one_apart,
                                .shared = b,
                                .logs = "*"});
    }
}
END_TEST

/* ---- stopping what runs ---- */

typedef struct call_thread {
    cinchComm_t comm;
    pthread_t thread;
    cinchResult_t result;
    char why[300];
} call_thread;

static void *waiting_call(void *arg) {
    call_thread *c = arg;
    static _Thread_local float data[64];
    c->result = cinchAllReduce(data, data, 64, cinchFloat, cinchSum, c->comm, NULL);
    snprintf(c->why, sizeof c->why, "%s", cinchGetLastError(NULL));
    return NULL;
}

/* Rank 0 waits for ranks that do not come: it stops that itself, in the same way as the other one
 * that stays, and the one that is left out hears of it. */
static void stop_and_shrink(seat *me) {
    board *b = me->shared;
    cinchComm_t child = NULL;
    int two[] = {2};
    float value = 1, values[64] = {1};
    call_thread call = {.comm = me->comm};
    if (me->rank == 0) {
        CHECK(me, pthread_create(&call.thread, NULL, waiting_call, &call) == 0);
        sleep_ms(30);
    }
    if (me->rank == 2) {
        CHECK(me, wait_for_all(&b->point[0], me->nranks));
        CHECK_FAILS(me, cinchAllReduce(values, values, 64, cinchFloat, cinchSum, me->comm, NULL),
                    cinchRemoteError, NULL, "CINCH_SHRINK_ABORT");
        return; /* it destroys its communicator as ever */
    }
    cinchResult_t result = cinchCommShrink(me->comm, two, 1, &child, NULL, CINCH_SHRINK_ABORT);
    if (me->rank == 0) pthread_join(call.thread, NULL);
    CHECK_OK(me, result);
    if (me->rank == 0)
        CHECK(me,
              (call.result == cinchInvalidUsage && strstr(call.why, "aborted")) ||
                  (call.result == cinchRemoteError && strstr(call.why, "CINCH_SHRINK_ABORT")),
              "%d %s", (int)call.result, call.why); /* its own, or the other's was first */
    CHECK(me,
          cinchAllReduce(&value, &value, 1, cinchFloat, cinchSum, me->comm, NULL) != cinchSuccess);
    CHECK(me, wait_for_all(&b->point[0], me->nranks));
    CHECK(me, adds_up(child, 1, 2));
    CHECK_OK(me, cinchCommDestroy(child));
}

START_TEST(a_shrink_stops_what_runs) {
    const char *const envs[] = {NULL, "CINCH_TRANSPORT=tcp"};
    for (int e = 0; e < 2; e++)
        for (int processes = 0; processes < 2; processes++)
            ranks_run(&(ranks_case){.nranks = 3,
                                    .processes = processes,
                                    .env = envs[e],
                                    .body = stop_and_shrink,
                                    .shared = clear_board(),
                                    .logs = "?CINCH_SHRINK_ABORT|?was aborted|?closed its"});
}
END_TEST

/* ---- lists that differ ---- */

/* Rank 3 has another list, the same length or not; then all have the right one. */
static void another_list(seat *me) {
    board *b = me->shared;
    cinchComm_t child = NULL;
    int list[2] = {1, 2}, count = b->victim ? 2 : 1;
    bool out = me->rank == 1 || (b->victim && me->rank == 2);
    if (me->rank == 3) { /* leaves out who should stay */
        list[0] = 2;
        count = 1;
    }
    if (!out || (!b->victim && me->rank == 2)) {
        if (me->rank == 2 && !b->victim) list[0] = 1;
        CHECK_FAILS(me, cinchCommShrink(me->comm, list, count, &child, NULL, CINCH_SHRINK_DEFAULT),
                    cinchInvalidUsage, NULL, "excludes");
        CHECK(me, child == NULL);
    }
    CHECK(me, wait_for_all(&b->point[0], me->nranks));
    if (me->rank == 1) return;
    list[0] = 1;
    CHECK_OK(me, cinchCommShrink(me->comm, list, 1, &child, NULL, CINCH_SHRINK_DEFAULT));
    CHECK(me, adds_up(child, 1, me->nranks - 1));
    CHECK_OK(me, cinchCommDestroy(child));
}

START_TEST(lists_that_differ_are_an_error_at_once) {
    for (int longer = 0; longer < 2; longer++)
        for (int processes = 0; processes < 2; processes++) {
            board *b = clear_board();
            b->victim = longer;
            ranks_run(&(ranks_case){.nranks = 4,
                                    .processes = processes,
                                    .body = another_list,
                                    .shared = b,
                                    .logs = "excludes"});
        }
}
END_TEST

/* A rank that is early for the second shrink is no part of the first one. */
static void early(seat *me) {
    cinchComm_t first = NULL, second = NULL;
    int two[] = {2};
    if (me->rank < 2) {
        sleep_ms(me->rank == 1 ? 150 : 0);
        CHECK_OK(me, cinchCommShrink(me->comm, two, 1, &first, NULL, CINCH_SHRINK_DEFAULT));
    } else {
        sleep_ms(30);
    }
    CHECK_OK(me, cinchCommShrink(me->comm, NULL, 0, &second, NULL, CINCH_SHRINK_DEFAULT));
    CHECK(me, adds_up(second, 1, 3));
    CHECK_OK(me, cinchCommDestroy(second));
    if (first) CHECK(me, adds_up(first, 1, 2));
    if (first) CHECK_OK(me, cinchCommDestroy(first));
}

START_TEST(who_is_early_waits) {
    for (int processes = 0; processes < 2; processes++)
        ranks_run(&(ranks_case){.nranks = 3, .processes = processes, .body = early});
}
END_TEST

/* A rank that should stay never comes: named after the time is over. Then without that one, too. */
static void one_stays_away(seat *me) {
    board *b = me->shared;
    cinchComm_t child = NULL;
    int list[] = {3, 2};
    if (me->rank < 2)
        CHECK_FAILS(me, cinchCommShrink(me->comm, list, 1, &child, NULL, CINCH_SHRINK_ABORT),
                    cinchRemoteError, NULL, "rank 2 of 3 did not join within 400 ms");
    CHECK(me, me->rank == 3 || wait_for_all(&b->point[0], 3));
    if (me->rank >= 2) return;
    CHECK_OK(me, cinchCommShrink(me->comm, list, 2, &child, NULL, CINCH_SHRINK_ABORT));
    CHECK(me, adds_up(child, 1, 2));
    CHECK_OK(me, cinchCommDestroy(child));
}

START_TEST(who_stays_away_is_named) {
    for (int processes = 0; processes < 2; processes++)
        ranks_run(&(ranks_case){.nranks = 4,
                                .processes = processes,
                                .env = "CINCH_INIT_TIMEOUT_MS=400",
                                .body = one_stays_away,
                                .shared = clear_board(),
                                .logs = "did not join|?CINCH_SHRINK_ABORT"});
}
END_TEST

START_TEST(wrong_arguments) {
    quiet();
    cinchComm_t comm[2], child = NULL;
    int zero[] = {0}, negative[] = {-1}, high[] = {2}, twice[] = {1, 1};
    OK(cinchCommInitAll(comm, 2, NULL));
    FAILS(cinchCommShrink(NULL, zero, 1, &child, NULL, 0), cinchInvalidArgument, NULL,
          "comm is NULL");
    FAILS(cinchCommShrink(comm[1], zero, 1, NULL, NULL, 0), cinchInvalidArgument, NULL,
          "newcomm is NULL");
    FAILS(cinchCommShrink(comm[1], NULL, 1, &child, NULL, 0), cinchInvalidArgument, NULL,
          "excludeRanksList is NULL");
    FAILS(cinchCommShrink(comm[1], zero, -1, &child, NULL, 0), cinchInvalidArgument, NULL,
          "excludeRanksCount -1");
    FAILS(cinchCommShrink(comm[1], negative, 1, &child, NULL, 0), cinchInvalidArgument, NULL,
          "has rank -1: 0 to 1 are accepted");
    FAILS(cinchCommShrink(comm[1], high, 1, &child, NULL, 0), cinchInvalidArgument, NULL,
          "has rank 2: 0 to 1 are accepted");
    FAILS(cinchCommShrink(comm[0], twice, 2, &child, NULL, 0), cinchInvalidArgument, NULL,
          "has rank 1 twice");
    FAILS(cinchCommShrink(comm[0], zero, 1, &child, NULL, 0), cinchInvalidArgument, NULL,
          "which is this one");
    FAILS(cinchCommShrink(comm[1], zero, 1, &child, NULL, 2), cinchInvalidArgument, NULL,
          "shrinkFlags 2");
    FAILS(cinchCommRevoke(NULL, 0), cinchInvalidArgument, NULL, "comm is NULL");
    FAILS(cinchCommRevoke(comm[0], 1), cinchInvalidArgument, NULL, "revokeFlags 1");
    OK(cinchCommShrink(comm[1], zero, 1, &child, NULL, 0)); /* all by itself */
    ck_assert(is_rank(child, 0, 1) && adds_up(child, 5, 5));
    OK(cinchCommDestroy(child));
    OK(cinchCommDestroy(comm[0]));
    OK(cinchCommDestroy(comm[1]));
}
END_TEST

/* ---- revoking ---- */

static void revoke_waiting(seat *me) {
    board *b = me->shared;
    cinchComm_t child = NULL;
    float value = 1;
    cinchResult_t state;
    call_thread call = {.comm = me->comm};
    if (me->rank == 0) {
        CHECK(me, pthread_create(&call.thread, NULL, waiting_call, &call) == 0);
        sleep_ms(30);
    }
    CHECK_OK(me, cinchCommRevoke(me->comm, CINCH_REVOKE_DEFAULT));
    if (me->rank == 0) {
        pthread_join(call.thread, NULL);
        CHECK(me, call.result == cinchInvalidUsage && strstr(call.why, "was revoked"), "%d %s",
              (int)call.result, call.why);
    }
    CHECK(me, wait_for_all(&b->point[0], me->nranks));
    CHECK_FAILS(me, cinchAllReduce(&value, &value, 1, cinchFloat, cinchSum, me->comm, NULL),
                cinchInvalidUsage, NULL, "the communicator was revoked");
    CHECK_FAILS(me, cinchCommFinalize(me->comm), cinchInvalidUsage, NULL, "was revoked");
    CHECK_OK(me, cinchCommGetAsyncError(me->comm, &state));
    CHECK(me, state == cinchSuccess);
    CHECK_OK(me, cinchCommRevoke(me->comm, CINCH_REVOKE_DEFAULT)); /* again is nothing */
    CHECK_OK(me, cinchCommSplit(me->comm, 0, -me->rank, &child, NULL));
    CHECK(me, is_rank(child, me->nranks - 1 - me->rank, me->nranks));
    CHECK(me, adds_up(child, 1, me->nranks));
    CHECK_OK(me, cinchCommDestroy(child));
    if (me->rank == 0) return;
    int zero[] = {0};
    CHECK_OK(me, cinchCommShrink(me->comm, zero, 1, &child, NULL, CINCH_SHRINK_ABORT));
    CHECK(me, adds_up(child, 1, me->nranks - 1));
    CHECK_OK(me, cinchCommDestroy(child));
}

START_TEST(revoking_stops_operations_and_leaves_the_rest) {
    const char *const envs[] = {NULL, "CINCH_TRANSPORT=tcp"};
    for (int e = 0; e < 2; e++)
        for (int processes = 0; processes < 2; processes++)
            ranks_run(&(ranks_case){.nranks = 3,
                                    .processes = processes,
                                    .env = envs[e],
                                    .body = revoke_waiting,
                                    .shared = clear_board(),
                                    .logs = "?CINCH_SHRINK_ABORT"});
}
END_TEST

int main(void) {
    const TTest *const tests[] = {a_healthy_communicator_shrinks,
                                  survivors_of_a_death_shrink,
                                  survivors_on_other_hosts_shrink,
                                  a_shrink_stops_what_runs,
                                  lists_that_differ_are_an_error_at_once,
                                  who_is_early_waits,
                                  who_stays_away_is_named,
                                  wrong_arguments,
                                  revoking_stops_operations_and_leaves_the_rest};
    return run_tests("shrink", tests, sizeof tests / sizeof *tests, 60);
}

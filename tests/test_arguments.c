/* SPDX-License-Identifier: Apache-2.0 */
/* What the collectives refuse, each with NCCL's code and a sentence, and what ranks that call
 * differently are told. */
#include "tests/harness.h"
#include "tests/one_call.h"

/* Every collective through the calls of one_call.h, by what it takes. */
static cinchResult_t do_call(seat *me, cinch_collective which, const void *send, void *recv,
                             size_t count, int dtype, int op, int root) {
    one_call c = {
        .collective = which, .root = root, .dtype = (cinchDataType_t)dtype, .count = count};
    return one_call_do(me, &c, send, recv, (cinchRedOp_t)op);
}

enum { COUNT = 8, FLOAT = cinchFloat, SUM = cinchSum };

static void refusals(seat *me) {
    static _Thread_local float in[64], out[64];
    for (int which = 0; which < CINCH_SENDRECV; which++) {
        cinch_collective c = (cinch_collective)which;
        const cinch_shape *shape = cinch_shape_of(c);
        bool sends = cinch_shape_sends(shape, me->rank, 0),
             gets = cinch_shape_gets(shape, me->rank, 0);
        if (sends)
            CHECK_FAILS(me, do_call(me, c, NULL, out, COUNT, FLOAT, SUM, 0), cinchInvalidArgument,
                        NULL, "sendbuff is NULL");
        if (gets)
            CHECK_FAILS(me, do_call(me, c, in, NULL, COUNT, FLOAT, SUM, 0), cinchInvalidArgument,
                        NULL, "recvbuff is NULL");
        CHECK_FAILS(me, do_call(me, c, in, out, COUNT, 12, SUM, 0), cinchInvalidArgument, NULL,
                    "datatype 12");
        CHECK_FAILS(me, do_call(me, c, in, out, SIZE_MAX / 4, FLOAT, SUM, 0), cinchInvalidArgument,
                    NULL, "count");
        if (sends && gets)
            CHECK_FAILS(me, do_call(me, c, in, in + 3, COUNT, FLOAT, SUM, 0), cinchInvalidArgument,
                        NULL, "overlap");
        if (shape->reduces)
            CHECK_FAILS(me, do_call(me, c, in, out, COUNT, FLOAT, 77, 0), cinchInvalidArgument,
                        NULL, "op 77");
        if (cinch_shape_rooted(shape)) {
            CHECK_FAILS(me, do_call(me, c, in, out, COUNT, FLOAT, SUM, me->nranks),
                        cinchInvalidArgument, NULL, "root 2: 0 to 1 are accepted");
            CHECK_FAILS(me, do_call(me, c, in, out, COUNT, FLOAT, SUM, -1), cinchInvalidArgument,
                        NULL, "root -1");
        }
        CHECK_OK(me, do_call(me, c, NULL, NULL, 0, FLOAT, SUM, 0)); /* nothing is nothing */
    }
    CHECK_FAILS(me, cinchAlltoAll(in, in, COUNT, cinchFloat, me->comm, NULL), cinchInvalidArgument,
                NULL, "alltoall: sendbuff and recvbuff overlap: apart is accepted");
    /* In place is at the rank's own block, and nowhere else. */
    CHECK_FAILS(me,
                cinchAllGather(in + (1 - me->rank) * COUNT, in, COUNT, cinchFloat, me->comm, NULL),
                cinchInvalidArgument, NULL, "overlap");
    CHECK_OK(me, cinchAllGather(in + me->rank * COUNT, in, COUNT, cinchFloat, me->comm, NULL));
    cinchResult_t state = cinchInternalError;
    CHECK_OK(me, cinchCommGetAsyncError(me->comm, &state)); /* none of it hurts */
    CHECK(me, state == cinchSuccess);
}

START_TEST(wrong_arguments) {
    ranks_run(&(ranks_case){.nranks = 2, .body = refusals, .logs = "*"});
}
END_TEST

START_TEST(no_communicator) {
    float x[4] = {0};
    static _Alignas(64) char other[512] = "no communicator, surely";
    empty_log();
    ck_assert_int_eq(cinchAllGather(x, x, 1, cinchFloat, NULL, NULL), cinchInvalidArgument);
    ck_assert_ptr_nonnull(strstr(cinchGetLastError(NULL), "comm is NULL"));
    for (int i = 0; i < 2; i++) /* one that is aligned as a communicator would be */
        ck_assert_int_eq(cinchSend(x, 1, cinchFloat, 0, (cinchComm_t)(void *)(other + i), NULL),
                         cinchInvalidArgument);
    cinchComm_t comm, stale;
    ck_assert_int_eq(cinchCommInitAll(&comm, 1, NULL), cinchSuccess);
    stale = comm;
    ck_assert_int_eq(cinchCommDestroy(comm), cinchSuccess);
    ck_assert_int_eq(cinchAllReduce(x, x, 1, cinchFloat, cinchSum, stale, NULL),
                     cinchInvalidArgument);
    ck_assert_ptr_nonnull(strstr(cinchGetLastError(stale), "comm is no communicator"));
    ck_assert_int_eq(cinchCommDestroy(stale), cinchInvalidArgument);
}
END_TEST

/* ---- ranks that call differently ---- */

typedef struct difference {
    cinch_collective first, other; /* of rank 0, and of the others */
    size_t count, other_count;
    int root;
} difference;

static void differing(seat *me) {
    const difference *d = me->shared;
    static _Thread_local float in[4096], out[4096];
    bool odd = me->rank != 0;
    cinchResult_t result = do_call(me, odd ? d->other : d->first, in, out,
                                   odd ? d->other_count : d->count, FLOAT, SUM, d->root);
    /* Who had nothing to wait for hears of it at the next call. */
    for (int i = 0; i < 200 && result == cinchSuccess; i++) {
        sleep_ms(10);
        result = cinchAllReduce(in, out, 1, cinchFloat, cinchSum, me->comm, NULL);
    }
    CHECK(me, result == cinchInvalidUsage || result == cinchRemoteError, "%d", result);
    CHECK(me,
          strstr(cinchGetLastError(me->comm), "different") ||
              strstr(cinchGetLastError(me->comm), "called something else"),
          "%s", cinchGetLastError(me->comm));
}

START_TEST(counts_that_differ) {
    static const char *const env[] = {"CINCH_TRANSPORT=shm", "CINCH_TRANSPORT=tcp"};
    for (int which = 0; which < CINCH_SENDRECV; which++)
        for (int i = 0; i < 2; i++)
            for (int less = 0; less < 2; less++) {
                difference d = {(cinch_collective)which, (cinch_collective)which, 300, 280, 0};
                if (less) d.count = 280, d.other_count = 300;
                ranks_run(&(ranks_case){.nranks = 2 + less,
                                        .env = env[i],
                                        .body = differing,
                                        .shared = &d,
                                        .logs = "*"});
            }
}
END_TEST

START_TEST(collectives_that_differ) {
    static const cinch_collective pairs[][2] = {{CINCH_ALLREDUCE, CINCH_ALLGATHER},
                                                {CINCH_ALLGATHER, CINCH_ALLTOALL},
                                                {CINCH_REDUCESCATTER, CINCH_ALLTOALL},
                                                {CINCH_REDUCE, CINCH_ALLREDUCE}};
    for (int p = 0; p < 4; p++)
        for (int tcp = 0; tcp < 2; tcp++) {
            difference d = {pairs[p][0], pairs[p][1], 64, 64, 0};
            ranks_run(&(ranks_case){.nranks = 2,
                                    .env = tcp ? "CINCH_TRANSPORT=tcp" : NULL,
                                    .body = differing,
                                    .shared = &d,
                                    .logs = "*"});
        }
}
END_TEST

/* ---- mixes that a group refuses ---- */

static void mixes(seat *me) {
    float x = 1;
    cinchComm_t other = NULL;
    CHECK_OK(me, cinchGroupStart());
    CHECK_OK(me, cinchAllReduce(&x, &x, 1, cinchFloat, cinchSum, me->comm, NULL));
    CHECK_FAILS(me, cinchCommSplit(me->comm, 0, 0, &other, NULL), cinchInvalidUsage, NULL,
                "not both");
    CHECK_FAILS(me, cinchGroupEnd(), cinchInvalidUsage, NULL, "not both");
    cinchConfig_t config = CINCH_CONFIG_INITIALIZER;
    config.blocking = 0;
    cinchResult_t result = cinchCommSplit(me->comm, 0, me->rank, &other, &config);
    CHECK(me, result == cinchSuccess || result == cinchInProgress, "%d", result);
    for (result = cinchInProgress; result == cinchInProgress; sleep_ms(1))
        CHECK_OK(me, cinchCommGetAsyncError(other, &result));
    CHECK(me, result == cinchSuccess);
    CHECK_OK(me, cinchGroupStart());
    CHECK_OK(me, cinchAllReduce(&x, &x, 1, cinchFloat, cinchSum, me->comm, NULL));
    CHECK_FAILS(me, cinchAllReduce(&x, &x, 1, cinchFloat, cinchSum, other, NULL),
                cinchInvalidArgument, NULL, "blocking");
    CHECK_FAILS(me, cinchGroupEnd(), cinchInvalidArgument, NULL, "blocking");
    CHECK(me, x == 1);
    CHECK_OK(me, cinchCommDestroy(other));
}

START_TEST(mixed_groups) {
    ranks_run(&(ranks_case){.nranks = 2, .body = mixes, .logs = "*"});
}
END_TEST

int main(void) {
    const TTest *const tests[] = {wrong_arguments, no_communicator, counts_that_differ,
                                  collectives_that_differ, mixed_groups};
    return run_tests("arguments", tests, sizeof tests / sizeof *tests, 120);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What calls owe to links: scratch that is freed is steady no longer, and links with messages of a
 * failed call are stopped, and no others. */
#include "coll/comm.h"
#include "coll/engine.h"
#include "tests/harness.h"
#include "transports/steady.h"

enum { COUNT = 50000 };

static bool is_steady(const seat *me, const void *data, size_t bytes) {
    cinch_steady found;
    return cinch_net_steady(me->comm->net, data, bytes, &found);
}

static void free_scratch(seat *me) {
    static float data[3][4 * COUNT];
    float *mine = data[me->rank];
    struct cinchComm *comm = me->comm;
    for (int i = 1; i <= 4; i++) { /* and where it has grown */
        CHECK_OK(me,
                 cinchAllReduce(mine, mine, (size_t)(i * COUNT), cinchFloat, cinchSum, comm, NULL));
        CHECK(me, comm->data.data && is_steady(me, comm->data.data, comm->data.bytes));
    }
    const void *before = comm->data.data;
    size_t bytes = comm->data.bytes;
    cinch_op_forget(comm);
    CHECK(me, !comm->data.data && !is_steady(me, before, 1) && !is_steady(me, before, bytes));
    CHECK_OK(me, cinchAllReduce(mine, mine, COUNT, cinchFloat, cinchSum, comm, NULL));
    CHECK(me, is_steady(me, comm->data.data, comm->data.bytes));
}

START_TEST(freed_scratch_is_not_steady) {
    ranks_run(&(ranks_case){.nranks = 3, .body = free_scratch, .env = "CINCH_TRANSPORT=tcp"});
}
END_TEST

static _Atomic int stops[3]; /* by the peer's rank */
static _Atomic bool failed;

static void count_stop(cinch_link *link) {
    atomic_fetch_add(&stops[link->peer], 1);
}

/* Rank 0 waits for rank 1 in vain, and has nothing to do with rank 2. */
static void fail_a_call(seat *me) {
    static cinch_link_ops ops[3];
    static float data[100];
    if (me->rank == 0) {
        for (int q = 1; q < 3; q++) {
            cinch_link *link = me->comm->net->link[q];
            ops[q] = *link->ops;
            ops[q].stop = count_stop;
            link->ops = &ops[q];
        }
        CHECK(me, cinchRecv(data, 100, cinchFloat, 9, me->comm, NULL) == cinchInvalidArgument);
        CHECK(me, stops[1] == 0 && stops[2] == 0, "nothing was posted");
        CHECK(me, cinchRecv(data, 100, cinchFloat, 1, me->comm, NULL) != cinchSuccess);
        atomic_store(&failed, true);
        CHECK(me, stops[1] == 1 && stops[2] == 0, "%d, %d", stops[1], stops[2]);
    }
    while (!atomic_load(&failed)) sleep_ms(5);
}

START_TEST(failed_calls_stop_their_links) {
    ranks_run(&(ranks_case){.nranks = 3,
                            .body = fail_a_call,
                            .env = "CINCH_TRANSPORT=tcp CINCH_TIMEOUT_MS=1000",
                            .logs = "*"});
}
END_TEST

int main(void) {
    const TTest *const tests[] = {freed_scratch_is_not_steady, failed_calls_stop_their_links};
    return run_tests("link_calls", tests, 2, 60);
}

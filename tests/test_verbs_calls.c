/* SPDX-License-Identifier: Apache-2.0 */
/* Collectives over verbs: registered buffers are registered once, and buffers that were freed and
 * mapped anew at the same address give right results. On the devices that CINCH_IB_HCA names. */
#include <sys/mman.h>

#include "tests/harness.h"
#include "transports/verbs.h"

/* Long enough that a quarter of it is placed directly. */
enum { COUNT = 40000, BYTES = COUNT * 4, BUFFERS = 50, CALLS = 1000 };

/* An all-reduce in place, of values that belong to this call. */
static bool adds(seat *me, int *data, int call) {
    for (int i = 0; i < COUNT; i++) data[i] = call + i + 1000 * me->rank;
    if (cinchAllReduce(data, data, COUNT, cinchInt32, cinchSum, me->comm, NULL) != cinchSuccess)
        return false;
    int n = me->nranks, ranks = 1000 * n * (n - 1) / 2;
    for (int i = 0; i < COUNT; i++)
        if (data[i] != n * (call + i) + ranks) return false;
    return true;
}

static meeting_point points[3];
static char verbs_env[200] = "CINCH_TRANSPORT=verbs"; /* and the devices */

static void on_many_buffers(seat *me) {
    int *all = malloc((size_t)(BUFFERS + 1) * BYTES);
    void *handle[BUFFERS + 1];
    for (int b = 0; b <= BUFFERS; b++)
        CHECK_OK(me, cinchCommRegister(me->comm, all + b * COUNT, BYTES, &handle[b]));
    CHECK(me, adds(me, all + BUFFERS * COUNT, 0)); /* with this the scratch is registered too */
    CHECK(me, wait_for_all(&points[0], me->nranks));
    uint64_t before = cinch_verbs_registrations();
    CHECK(me, wait_for_all(&points[1], me->nranks));
    for (int i = 0; i < CALLS; i++) CHECK(me, adds(me, all + i % BUFFERS * COUNT, i), "call %d", i);
    CHECK(me, wait_for_all(&points[2], me->nranks));
    uint64_t made = cinch_verbs_registrations() - before; /* of all ranks */
    CHECK(me, made == (uint64_t)(me->nranks * BUFFERS), "%d registrations", (int)made);
    for (int b = 0; b <= BUFFERS; b++) CHECK_OK(me, cinchCommDeregister(me->comm, handle[b]));
    free(all);
}

START_TEST(buffers_are_registered_once) {
    ranks_run(&(ranks_case){.nranks = 2, .body = on_many_buffers, .env = verbs_env});
}
END_TEST

static int *map_at(void *at) {
    int fixed = at ? MAP_FIXED : 0;
    void *data =
        mmap(at, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0);
    return data == MAP_FAILED ? NULL : data;
}

static void on_memory_that_changes(seat *me) {
    void *handle;
    int *data = map_at(NULL), *given = NULL;
    for (int i = 0; i < 10; i++) { /* registered on all ranks, then on some, on none, on all */
        CHECK(me, data && (i == 0 || map_at(data) == data));
        bool registered = i < 4 || i > 7 || (i < 7 && (i + me->rank) % 2 == 0);
        if (registered) CHECK_OK(me, cinchCommRegister(me->comm, data, BYTES, &handle));
        CHECK(me, adds(me, data, i), "mapped, %d", i);
        CHECK(me, adds(me, data, i + 50), "again, %d", i);
        if (registered) CHECK_OK(me, cinchCommDeregister(me->comm, handle));
        CHECK(me, munmap(data, BYTES) == 0);
    }
    for (int i = 0; i < 6; i++) {
        void *mine;
        CHECK_OK(me, cinchMemAlloc(&mine, BYTES));
        if (!given) given = mine;
        CHECK(me, mine == given);
        CHECK(me, adds(me, mine, i), "allocated, %d", i);
        CHECK_OK(me, cinchMemFree(mine));
    }
}

START_TEST(buffers_that_are_others_at_the_same_address) {
    ranks_run(&(ranks_case){
        .nranks = 4, .processes = true, .body = on_memory_that_changes, .env = verbs_env});
}
END_TEST

int main(void) {
    const char *hca = getenv("CINCH_IB_HCA"); /* the harness clears the environment */
    if (hca)
        snprintf(verbs_env, sizeof verbs_env, "CINCH_TRANSPORT=verbs CINCH_IB_HCA=%.100s", hca);
    if (cinch_verbs_unusable()) {
        printf("skipped: %s\n", cinch_verbs_unusable());
        return 77;
    }
    const TTest *const tests[] = {buffers_are_registered_once,
                                  buffers_that_are_others_at_the_same_address};
    return run_tests("verbs_calls", tests, 2, 120);
}

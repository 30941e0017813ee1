/* SPDX-License-Identifier: Apache-2.0 */
/* The collectives beside all-reduce, and messages between pairs: right for every datatype, root,
 * size, alignment and kind of memory, mixed with each other on one communicator. */
#include "tests/harness.h"
#include "tests/one_call.h"

static const int sizes_of_jobs[] = {1, 2, 3, 4, 5, 8, 11};
enum { JOBS = sizeof sizes_of_jobs / sizeof *sizes_of_jobs };

static const size_t counts[] = {1, 2, 3, 7, 16, 29, 64, 111, 113, 257, 1000, 1025, 4099, 8193};
enum { COUNTS = sizeof counts / sizeof *counts };

static void every_one_mixed(seat *me) {
    uint64_t state = 5; /* the same on all ranks */
    int calls = me->nranks < 8 ? 400 : 150;
    for (int i = 0; i < calls; i++) {
        uint64_t dice = random64(&state);
        one_call c = {.collective = (cinch_collective)(i % CINCH_COLLECTIVES),
                      .root = (int)(dice >> 4 & 255) % me->nranks,
                      .dtype = (cinchDataType_t)((dice >> 12) % cinchNumTypes),
                      .op = (int)((dice >> 20) % EXACT_OPS),
                      .count = counts[(dice >> 24) % COUNTS],
                      .seed = dice >> 8,
                      .offset = dice >> 32 & 1 ? dice >> 33 & 63 : 0,
                      .in_place = dice >> 40 & 1,
                      .grouped = (dice >> 41 & 7) == 0,
                      .mapped = dice >> 44 & 1,
                      .device_scalar = dice >> 45 & 1};
        if (!one_call_run(me, &c)) return;
    }
}

START_TEST(mixed_as_threads) {
    for (int i = 0; i < JOBS; i++)
        ranks_run(&(ranks_case){.nranks = sizes_of_jobs[i], .body = every_one_mixed});
}
END_TEST

START_TEST(mixed_as_processes) {
    ranks_run(&(ranks_case){.nranks = 2, .processes = true, .body = every_one_mixed});
    ranks_run(&(ranks_case){.nranks = 3, .processes = true, .body = every_one_mixed});
    ranks_run(&(ranks_case){.nranks = 4,
                            .processes = true,
                            .env = "CINCH_TRANSPORT=tcp CINCH_CHECKSUM=1",
                            .body = every_one_mixed});
}
END_TEST

/* Long enough for several rounds of every algorithm. */
static void large(seat *me) {
    uint64_t state = 9;
    for (int i = 0; i < 3 * CINCH_COLLECTIVES; i++) {
        uint64_t dice = random64(&state);
        one_call c = {.collective = (cinch_collective)(i % CINCH_COLLECTIVES),
                      .root = (int)(dice & 255) % me->nranks,
                      .dtype = dice >> 8 & 1 ? cinchFloat32 : cinchUint8,
                      .op = cinchSum,
                      .count = 100000 + (dice >> 16) % 300000,
                      .seed = dice,
                      .in_place = dice >> 40 & 1,
                      .mapped = dice >> 41 & 1};
        if (!one_call_run(me, &c)) return;
    }
}

START_TEST(large_messages) {
    ranks_run(&(ranks_case){.nranks = 2, .body = large});
    ranks_run(&(ranks_case){.nranks = 3, .processes = true, .body = large});
    ranks_run(&(ranks_case){.nranks = 3, .env = "CINCH_TRANSPORT=tcp", .body = large});
}
END_TEST

/* A rank's send buffer may be mapped where another's is not. */
static void half_mapped(seat *me) {
    uint64_t state = 13;
    for (int i = 0; i < 4 * CINCH_COLLECTIVES; i++) {
        uint64_t dice = random64(&state);
        one_call c = {.collective = (cinch_collective)(i % CINCH_COLLECTIVES),
                      .root = (int)(dice & 255) % me->nranks,
                      .dtype = cinchInt32,
                      .op = cinchMax,
                      .count = 5000 + (dice >> 16) % 9000,
                      .seed = dice,
                      .in_place = (dice >> 40 & 3) == (uint64_t)me->rank,
                      .mapped = i % 3 ? true : me->rank % 2 == 0};
        if (!one_call_run(me, &c)) return;
    }
}

START_TEST(how_a_rank_calls_is_its_own_affair) {
    ranks_run(&(ranks_case){.nranks = 4, .body = half_mapped});
    ranks_run(&(ranks_case){.nranks = 3, .processes = true, .body = half_mapped});
}
END_TEST

/* Bcast is Broadcast in place. */
static void bcast(seat *me) {
    for (int root = 0; root < me->nranks; root++) {
        int32_t data[1000];
        for (int i = 0; i < 1000; i++) data[i] = me->rank == root ? 7 * i + root : -1;
        CHECK_OK(me, cinchBcast(data, 1000, cinchInt32, root, me->comm, NULL));
        for (int i = 0; i < 1000; i++) CHECK(me, data[i] == 7 * i + root);
    }
}

START_TEST(bcast_is_in_place) {
    ranks_run(&(ranks_case){.nranks = 3, .body = bcast});
}
END_TEST

int main(void) {
    const TTest *const tests[] = {mixed_as_threads, mixed_as_processes, large_messages,
                                  how_a_rank_calls_is_its_own_affair, bcast_is_in_place};
    return run_tests("collectives", tests, sizeof tests / sizeof *tests, 240);
}

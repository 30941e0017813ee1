/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever allocation or system call of the library fails, on one rank of two, in init, collectives
 * and the end: that rank has an error with a sentence or did without, the other one is told,
 * nothing crashes, hangs or is left over, and no result is wrong.
 *
 * Each case is two new processes. TEST_FAULTS=all fails every call; else each kind's cases are
 * a few of them, spread evenly. */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/faults/faults.h"
#include "tests/harness.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#endif

enum { RANKS = 2, MANY = 300000, LIMIT_MS = 12000, CASES = 6 };

typedef struct outcome {
    _Atomic int id_state; /* 1: there, 2: could not be made */
    cinchUniqueId id;
    fault fault;
    int victim;
    cinchResult_t result[RANKS];
    char why[RANKS][400];
    uint64_t ms[RANKS];
} outcome;

static cinchResult_t sum(cinchComm_t comm, float *data, size_t count, bool exact, bool *wrong) {
    for (size_t i = 0; i < count; i++) data[i] = 1;
    cinchResult_t result = cinchAllReduce(data, data, count, cinchFloat32, cinchSum, comm, NULL);
    for (size_t i = 0; result == cinchSuccess && i < count; i++)
        *wrong |= exact ? data[i] != RANKS : !(data[i] > 1.9 && data[i] < 2.1);
    return result;
}

static cinchResult_t work(cinchComm_t comm, bool *wrong) {
    static float data[MANY];
    cinchResult_t result = sum(comm, data, 1, true, wrong);
    if (result == cinchSuccess) result = sum(comm, data, 1000, true, wrong);
    if (result == cinchSuccess) result = sum(comm, data, MANY, false, wrong);
    if (result == cinchSuccess) result = cinchGroupStart();
    if (result == cinchSuccess) {
        cinchResult_t a = cinchBroadcast(data, data, 10, cinchFloat32, 0, comm, NULL);
        cinchResult_t b = cinchAllReduce(data, data, 10, cinchFloat32, cinchMax, comm, NULL);
        result = cinchGroupEnd();
        if (result == cinchSuccess) result = a != cinchSuccess ? a : b;
    }
    return result;
}

static cinchResult_t get_id(outcome *o, int rank) {
    if (rank == 0) {
        cinchResult_t result = cinchGetUniqueId(&o->id);
        atomic_store(&o->id_state, result == cinchSuccess ? 1 : 2);
        return result;
    }
    while (!atomic_load(&o->id_state)) sleep_ms(1);
    return atomic_load(&o->id_state) == 1 ? cinchSuccess : cinchRemoteError;
}

static void body(seat *me) {
    outcome *o = me->shared;
    cinchComm_t comm = NULL;
    bool wrong = false;
    uint64_t begun = now_ms();
    if (me->rank == o->victim) fault_set(&o->fault);
    cinchResult_t result = get_id(o, me->rank);
    if (result == cinchSuccess) result = cinchCommInitRank(&comm, RANKS, o->id, me->rank);
    if (result == cinchSuccess) result = work(comm, &wrong);
    snprintf(o->why[me->rank], sizeof o->why[0], "%s", cinchGetLastError(comm));
    if (comm && result == cinchSuccess)
        result = cinchCommDestroy(comm);
    else if (comm)
        cinchCommAbort(comm);
    o->ms[me->rank] = now_ms() - begun;
    o->result[me->rank] = result;
    fault_set(NULL);
    if (me->rank == o->victim && getenv("TEST_FAULTS_SAY"))
        fprintf(stderr, "fault %d: %s at %p\n", o->fault.at, o->fault.name,
                (void *)atomic_load(&o->fault.where));
    CHECK(me, !wrong, "a sum is wrong");
#if defined(__SANITIZE_ADDRESS__)
    CHECK(me, !__lsan_do_recoverable_leak_check(), "memory is lost");
#endif
}

/* ---- one case ---- */

static void run_case(outcome *o, const char *env) {
    ranks_case c = {.nranks = RANKS,
                    .processes = true,
                    .bare = true,
                    .no_id = true,
                    .body = body,
                    .shared = o,
                    .logs = "*",
                    .env = env};
    ranks_run(&c);
}

static void judge(const outcome *o, const char *env) {
    int victim = o->victim, other = 1 - victim;
    char what[300];
    snprintf(what, sizeof what,
             "%s: rank %d's call %d of its kind, %s at %p: ranks have %d \"%.60s\" "
             "and %d \"%.60s\"",
             env, victim, o->fault.at, o->fault.name, (void *)atomic_load(&o->fault.where),
             o->result[0], o->why[0], o->result[1], o->why[1]);
    ck_assert_msg(o->result[victim] == cinchSuccess || o->why[victim][0], "%s: no sentence", what);
    /* The one whose call failed may see it after the other one's last collective. */
    ck_assert_msg(o->result[other] == cinchSuccess || o->why[other][0] ||
                      !atomic_load(&o->id_state) || atomic_load(&o->id_state) == 2,
                  "%s: no sentence", what);
    for (int r = 0; r < RANKS; r++)
        ck_assert_msg(o->ms[r] < LIMIT_MS, "%s: rank %d took %d ms", what, r, (int)o->ms[r]);
    if (getenv("TEST_FAULTS_SAY"))
        fprintf(stderr, "%5d ms %s\n", (int)(o->ms[0] > o->ms[1] ? o->ms[0] : o->ms[1]), what);
}

static void run_kind(fault_kind kind, const char *env, int cases) {
    outcome *o = shared_memory(sizeof *o);
    const char *asked = getenv("TEST_FAULTS");
    bool all = asked && !strcmp(asked, "all");
    for (int victim = 0; victim < RANKS; victim++) {
        memset(o, 0, sizeof *o);
        o->victim = victim;
        o->fault.kind = kind;
        run_case(o, env);
        ck_assert_msg(o->result[0] == cinchSuccess && o->result[1] == cinchSuccess, "%s %s",
                      o->why[0], o->why[1]);
        int calls = atomic_load(&o->fault.calls);
        ck_assert_int_gt(calls, 5);
        int step = all || calls <= cases ? 1 : calls / cases;
        for (int at = 1; at <= calls + step; at += step) {
            memset(o, 0, sizeof *o);
            o->victim = victim;
            o->fault.kind = kind;
            o->fault.at = at;
            run_case(o, env);
            judge(o, env);
        }
    }
}

#define LIMITS " CINCH_INIT_TIMEOUT_MS=3000 CINCH_TIMEOUT_MS=3000 CINCH_CODEC_INTRA=int8"
#define SHM "CINCH_TRANSPORT=shm" LIMITS
#define TCP "CINCH_TRANSPORT=tcp CINCH_CHECKSUM=1" LIMITS

START_TEST(memory_over_shm) {
    run_kind(FAULT_MEMORY, SHM, CASES);
}
END_TEST
START_TEST(memory_over_tcp) {
    run_kind(FAULT_MEMORY, TCP, CASES);
}
END_TEST
START_TEST(descriptors_over_shm) {
    run_kind(FAULT_DESCRIPTORS, SHM, CASES);
}
END_TEST
START_TEST(descriptors_over_tcp) {
    run_kind(FAULT_DESCRIPTORS, TCP, CASES);
}
END_TEST
START_TEST(sockets_over_shm) {
    run_kind(FAULT_SOCKETS, SHM, CASES);
}
END_TEST
START_TEST(sockets_over_tcp) {
    run_kind(FAULT_SOCKETS, TCP, CASES);
}
END_TEST

/* With names of tests as arguments: those only. */
int main(int argc, char **argv) {
    const TTest *const all[] = {memory_over_shm,      memory_over_tcp,  descriptors_over_shm,
                                descriptors_over_tcp, sockets_over_shm, sockets_over_tcp};
    enum { ALL = sizeof all / sizeof *all };
    const TTest *wanted[ALL];
    int count = 0;
    for (int i = 0; i < ALL; i++) {
        bool named = argc < 2;
        for (int j = 1; j < argc; j++) named |= strcmp(argv[j], all[i]->name) == 0;
        if (named) wanted[count++] = all[i];
    }
    return run_tests("faults", wanted, count, 1800);
}

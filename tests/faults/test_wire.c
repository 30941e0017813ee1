/* SPDX-License-Identifier: Apache-2.0 */
/* What is spoilt between two ranks, at whichever of their moves: no rank crashes or hangs, a late
 * message does no harm, and with CINCH_CHECKSUM=1 no wrong result comes back as a right one: a bit
 * that was flipped is an error on some rank, or on none where nobody needed the bytes any more.
 *
 * TEST_WIRE=all spoils every move; else each kind's moves are a few of them, spread evenly. */
#include <unistd.h>

#include "tests/faults/wire.h"
#include "tests/harness.h"

enum { COUNT = 30000, CALLS = 3, LIMIT_MS = 15000, MOST = 3 };

typedef struct job {
    wire wire;
    int victim, calls;
    const char *checked; /* its results are to be these, or NULL: nothing is known about them */
    uint64_t hash[MOST], want;
    cinchResult_t result[MOST];
    char why[MOST][300];
    meeting_point done;
} job;

/* A few all-reduces of sizes that make short and long messages; the hash of all results. */
static cinchResult_t work(cinchComm_t comm, int rank, uint64_t *hash) {
    static const size_t counts[CALLS] = {COUNT, 600, COUNT / 3};
    float *data = malloc(COUNT * sizeof *data);
    cinchResult_t result = cinchSuccess;
    *hash = 1;
    for (int call = 0; call < CALLS && result == cinchSuccess; call++) {
        for (size_t i = 0; i < counts[call]; i++)
            data[i] = (float)(((size_t)rank * 7919 + i * 31 + (size_t)call) % 1013) / 3;
        result = cinchAllReduce(data, data, counts[call], cinchFloat, cinchSum, comm, NULL);
        if (result == cinchSuccess) *hash = hash_bytes(*hash, data, counts[call] * sizeof *data);
    }
    free(data);
    return result;
}

static void body(seat *me) {
    job *j = me->shared;
    if (me->rank == j->victim) wire_set(&j->wire);
    j->result[me->rank] = work(me->comm, me->rank, &j->hash[me->rank]);
    wire_set(NULL);
    snprintf(j->why[me->rank], sizeof j->why[0], "%s", cinchGetLastError(me->comm));
    CHECK(me, j->result[me->rank] == cinchSuccess || j->why[me->rank][0], "no sentence");
    /* What was sent to those that have not looked yet stays. */
    CHECK(me, wait_for_all(&j->done, me->nranks));
    if (j->result[me->rank] == cinchSuccess) return;
    me->gone = true;
    CHECK_OK(me, cinchCommAbort(me->comm));
}

static void run_one(job *j, int nranks, const char *short_env) {
    char env[300];
    /* What never comes is waited for; what comes late or not spoilt has time. */
    bool lost = j->wire.kind != WIRE_FINE && j->wire.kind != WIRE_DELAY;
    snprintf(env, sizeof env, "%s CINCH_TIMEOUT_MS=%d", short_env, lost ? 250 : 10000);
    atomic_store(&j->done.arrived, 0);
    uint64_t begun = now_ms();
    ranks_run(&(ranks_case){.nranks = nranks, .env = env, .body = body, .shared = j, .logs = "*"});
    ck_assert_msg(now_ms() - begun < LIMIT_MS, "%s: it took %d ms", env, (int)(now_ms() - begun));
}

static void judge(const job *j, int nranks, const char *env, bool checksum) {
    static const char *const names[] = {"fine",      "corrupt", "drop", "truncate",
                                        "duplicate", "close",   "delay"};
    char what[200];
    int failed = 0;
    snprintf(what, sizeof what, "%s: %s at move %d of rank %d", env, names[j->wire.kind],
             j->wire.at, j->victim);
    for (int r = 0; r < nranks; r++) {
        failed += j->result[r] != cinchSuccess;
        if (j->wire.kind == WIRE_FINE || j->wire.kind == WIRE_DELAY)
            ck_assert_msg(j->result[r] == cinchSuccess, "%s: rank %d: %s", what, r, j->why[r]);
        if (j->result[r] == cinchSuccess && checksum)
            ck_assert_msg(j->hash[r] == j->want, "%s: rank %d has a wrong result", what, r);
    }
    if (j->wire.kind == WIRE_CORRUPT && checksum && atomic_load(&j->wire.spoilt))
        ck_assert_msg(failed > 0, "%s: nobody saw it", what);
}

/* Every kind at moves that are `step` apart, on rank 0 or 1 in turn. */
static void spoil(int nranks, const char *env, bool checksum, int cases) {
    const char *asked = getenv("TEST_WIRE");
    bool all = asked && strcmp(asked, "all") == 0;
    uint64_t random = 99;
    job clean = {.victim = 0}, j;
    run_one(&clean, nranks, env);
    for (int r = 1; r < nranks; r++) ck_assert_uint_eq(clean.hash[r], clean.hash[0]);
    clean.want = clean.hash[0];
    judge(&clean, nranks, env, true);
    int moves = atomic_load(&clean.wire.moves);
    ck_assert_int_gt(moves, 4);
    for (int kind = WIRE_CORRUPT; kind < WIRE_KINDS; kind++) {
        /* Bits are many and found at once; what is missing is waited for. */
        int wanted = kind == WIRE_CORRUPT ? cases : 1;
        int step = all || moves <= wanted ? 1 : moves / wanted;
        for (int at = 1 + (all ? 0 : kind * 7 % step); at <= moves; at += step) {
            j = (job){.victim = at % 2, .want = clean.want};
            j.wire = (wire){.kind = (wire_kind)kind, .at = at, .random = random64(&random)};
            run_one(&j, nranks, env);
            judge(&j, nranks, env, checksum);
        }
    }
}

#define LIMITS " CINCH_INIT_TIMEOUT_MS=20000 CINCH_CODEC_MIN_BYTES=1K"
#define CHECKED LIMITS " CINCH_CHECKSUM=1"
static const struct {
    int nranks, cases;
    bool checksum;
    const char *env;
} cases[] = {
    {2, 8, true, "CINCH_TRANSPORT=tcp" CHECKED},
    {2, 12, true, "CINCH_TRANSPORT=tcp CINCH_CODEC_INTRA=int8" CHECKED},
    {3, 8, true, "CINCH_TRANSPORT=tcp CINCH_CODEC_INTRA=bf16" CHECKED},
    {2, 12, true, "CINCH_TRANSPORT=tcp CINCH_CODEC_INTRA=topk:ratio=0.1" CHECKED},
    {2, 8, false, "CINCH_TRANSPORT=tcp CINCH_CODEC_INTRA=int8" LIMITS},
    {3, 8, false, "CINCH_TRANSPORT=tcp CINCH_CODEC_INTRA=topk:ratio=0.1" LIMITS},
    {2, 8, true, "CINCH_TRANSPORT=shm CINCH_ALGO=allreduce:direct" CHECKED},
    {2, 12, true, "CINCH_TRANSPORT=shm CINCH_CODEC_INTRA=int8" CHECKED},
    {3, 8, true, "CINCH_TRANSPORT=shm CINCH_CODEC_INTRA=bf16" CHECKED},
    {2, 12, true, "CINCH_TRANSPORT=shm CINCH_CODEC_INTRA=topk:ratio=0.1" CHECKED},
    {2, 8, false, "CINCH_TRANSPORT=shm CINCH_CODEC_INTRA=int8" LIMITS},
    {3, 8, false, "CINCH_TRANSPORT=shm CINCH_CODEC_INTRA=topk:ratio=0.1" LIMITS},
};
enum { CASES = sizeof cases / sizeof *cases };

START_TEST(spoilt_wire) {
    for (int i = _i; i < CASES; i += 2)
        spoil(cases[i].nranks, cases[i].env, cases[i].checksum, cases[i].cases);
}
END_TEST

START_TEST(more_spoilt_wire) {
    for (int i = 1; i < CASES; i += 2)
        spoil(cases[i].nranks, cases[i].env, cases[i].checksum, cases[i].cases);
}
END_TEST

int main(void) {
    const TTest *const all[] = {spoilt_wire, more_spoilt_wire};
    return run_tests("wire", all, 2, 1200);
}

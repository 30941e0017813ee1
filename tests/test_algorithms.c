/* SPDX-License-Identifier: Apache-2.0 */
/* Every algorithm by name, over every transport, cut into many rounds by small chunks. */
#include "coll/algo.h"
#include "tests/harness.h"
#include "tests/one_call.h"

static const int sizes_of_jobs[] = {2, 3, 4, 5, 7, 8, 11, 16};
enum { JOBS = sizeof sizes_of_jobs / sizeof *sizes_of_jobs };

typedef struct plan {
    cinch_collective collective;
    const char *algo;
    size_t chunk;
} plan;

/* Sizes at and around the boundaries of chunks, parts and rounds. */
static size_t pick_bytes(uint64_t dice, size_t chunk, int n) {
    size_t edge[] = {1, 64, chunk, chunk * (size_t)n, 3 * chunk * (size_t)n, 7 * chunk * (size_t)n};
    size_t at = edge[dice % 6], most = 40000;
    size_t bytes = at + (dice >> 8) % 17;
    bytes = bytes > 8 ? bytes - 8 : bytes;
    return bytes < most ? bytes : most - (dice >> 8) % 100;
}

static void many_rounds(seat *me) {
    const plan *p = me->shared;
    uint64_t state = 3;
    int calls = me->nranks < 4 ? 24 : me->nranks < 6 ? 12 : 6;
    for (int i = 0; i < calls; i++) {
        uint64_t dice = random64(&state);
        cinchDataType_t t = (cinchDataType_t)(dice % cinchNumTypes);
        size_t bytes = pick_bytes(dice >> 8, p->chunk, me->nranks);
        one_call c = {.collective = p->collective,
                      .root = (int)(dice >> 36 & 15) % me->nranks,
                      .dtype = t,
                      .op = (int)(dice >> 40) % EXACT_OPS,
                      .count = 1 + bytes / cinch_dtype_size(t),
                      .seed = dice,
                      .offset = dice >> 50 & 1 ? dice >> 51 & 31 : 0,
                      .in_place = dice >> 56 & 1,
                      .mapped = dice >> 57 & 1};
        if (c.op < 0) c.op = -c.op;
        if (!one_call_run(me, &c)) return;
    }
}

static bool serves(const cinch_algo *algo, int n, bool tcp) {
    cinch_call call = {.collective = algo->collective,
                       .nranks = n,
                       .bytes = 1,
                       .windows = !tcp,
                       .small_bytes = 32768};
    return !algo->supports(&call);
}

static void run_all(const char *transport, const size_t *chunks, int nchunks) {
    char env[200];
    for (int a = 0; cinch_algo_at(a); a++)
        for (int i = 0; i < JOBS; i++) {
            const cinch_algo *algo = cinch_algo_at(a);
            /* Of the larger jobs half; of collectives other than all-reduce every third. */
            if (algo->collective ? (a + i) % 3 != 0 : i > 3 && (a + i) % 2) continue;
            plan p = {algo->collective, algo->name, chunks[(a + i) % nchunks]};
            if (!serves(algo, sizes_of_jobs[i], strcmp(transport, "tcp") == 0)) continue;
            snprintf(env, sizeof env, "CINCH_ALGO=%s:%s CINCH_CHUNK=%zu CINCH_TRANSPORT=%s",
                     cinch_shape_of(p.collective)->name, p.algo, p.chunk, transport);
            ranks_run(&(ranks_case){
                .nranks = sizes_of_jobs[i], .env = env, .body = many_rounds, .shared = &p});
        }
}

static const size_t small_chunks[] = {64, 256, 4096};

START_TEST(all_over_shm) {
    run_all("shm", small_chunks, 3);
}
END_TEST

START_TEST(all_over_tcp) {
    run_all("tcp", small_chunks, 3);
}
END_TEST

START_TEST(natural_chunks) {
    static const size_t none[] = {0};
    run_all("shm", none, 1);
}
END_TEST

/* A last round that is shorter than the ones before: its parts must not lie where a peer still
 * reads others. */
static void short_last_round(seat *me) {
    for (int i = 0; i < 6; i++) {
        one_call c = {.dtype = cinchFloat32,
                      .op = cinchSum,
                      .count = (size_t)(150000 - 7000 * i),
                      .seed = (uint64_t)i};
        if (!one_call_run(me, &c)) return;
    }
}

START_TEST(short_last_rounds) {
    for (int n = 2; n <= 4; n++) {
        ranks_run(
            &(ranks_case){.nranks = n, .env = "CINCH_ALGO=twoshot", .body = short_last_round});
        ranks_run(&(ranks_case){.nranks = n, .env = "CINCH_ALGO=direct", .body = short_last_round});
    }
}
END_TEST

/* Ranks of two "hosts" on this machine: pairs over shm and tcp at once. */
static void two_hosts_env(seat *me) {
    setenv("CINCH_HOSTID", me->rank % 2 ? "odd" : "even", 1);
}

START_TEST(two_hosts) {
    static const char *const algos[] = {"auto", "ring", "tree", "halving", "direct"};
    plan p = {CINCH_ALLREDUCE, "", 4096};
    for (int a = 0; a < 5; a++) {
        char env[100];
        snprintf(env, sizeof env, "CINCH_ALGO=%s CINCH_CHUNK=4K", algos[a]);
        ranks_run(&(ranks_case){.nranks = 3 + a % 3,
                                .processes = true,
                                .env = env,
                                .env_of = two_hosts_env,
                                .body = many_rounds,
                                .shared = &p});
    }
}
END_TEST

int main(void) {
    const TTest *const tests[] = {all_over_shm, all_over_tcp, natural_chunks, short_last_rounds,
                                  two_hosts};
    return run_tests("algorithms", tests, sizeof tests / sizeof *tests, 240);
}

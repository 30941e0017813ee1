/* SPDX-License-Identifier: Apache-2.0 */
/* Codecs at levels: one for the inside of hosts, one between them, or both, over real links. */
#include "coll/algo/hier.h"
#include "tests/levels.h"
#include "tests/lossy.h"

static uint64_t reduce_once(seat *me, const job *j, void *out) {
    size_t bytes = j->count * cinch_dtype_size(j->dtype);
    void *in = malloc(bytes);
    float *floats = malloc(j->count * sizeof *floats);
    gauss_fill(in, floats, j->dtype, 1, me->rank, j->count);
    cinchResult_t result = cinchAllReduce(in, out, j->count, j->dtype, cinchAvg, me->comm, NULL);
    free(in);
    free(floats);
    return result == cinchSuccess ? hash_bytes(1, out, bytes) : 0;
}

static void count_bytes(seat *me, job *j) {
    for (int q = 0; q < me->nranks; q++) {
        const cinch_link *link = me->comm->net->link[q];
        if (!link) continue;
        uint64_t *bytes = strcmp(link->ops->name, "tcp") == 0 ? j->tcp_bytes : j->shm_bytes;
        bytes[me->rank] += link->wire_bytes;
    }
}

static void compressed(seat *me) {
    job *j = me->shared;
    void *out = malloc(j->count * cinch_dtype_size(j->dtype));
    float *floats = malloc(j->count * sizeof *floats);
    double *want = malloc(j->count * sizeof *want);
    cinchStats_t stats = {.size = sizeof stats};
    char json[1024];
    size_t len = sizeof json;
    j->hash[me->rank] = reduce_once(me, j, out);
    CHECK(me, j->hash[me->rank] != 0);
    count_bytes(me, j);
    cinch_widen(floats, out, j->dtype, j->count);
    gauss_sum(want, j->dtype, 1, me->nranks, j->count, 1.0 / me->nranks);
    j->error[me->rank] = relative_error(floats, want, j->count);
    CHECK_OK(me, cinchCommGetStats(me->comm, &stats));
    CHECK(me, stats.compressed_calls == 1 && stats.nonfinite == 0);
    CHECK_OK(me,
             cinchCommDescribePlan(me->comm, "allreduce", j->count * 4, cinchFloat, json, &len));
    CHECK(me, strstr(json, "\"algo\":\"hier\"") && strstr(json, j->want), "%s", json);
    CHECK_OK(me, cinchCommSetCodec(me->comm, "none"));
    CHECK_OK(me, cinchCommSetCodec(me->comm, NULL)); /* forgets residuals */
    j->again[me->rank] = reduce_once(me, j, out);
    free(out);
    free(floats);
    free(want);
}

/* Relative errors of one quantization of normally distributed values: int8 in blocks of 256, and
 * bf16 (uniform in a step of 2^-8 or 2^-7 relative). Independent ones add in quadrature. */
#define INT8 0.0075
#define BF16 0.0019

static const struct pairing {
    const char *intra, *inter, *want;
    double intra_error, inter_error, last_error; /* 1: any */
    bool random; /* another result each time, the same on all ranks */
} pairings[] = {
    {"int8", "int8", "\"codec\":\"int8\",\"codec_intra\":\"int8\"", INT8, INT8, INT8},
    {"bf16", "int8", "\"codec\":\"int8\",\"codec_intra\":\"bf16\"", BF16, INT8, INT8},
    {"int8", "bf16", "\"codec\":\"bf16\",\"codec_intra\":\"int8\"", INT8, BF16, BF16},
    {"int8", "none", "\"codec\":\"none\",\"codec_intra\":\"int8\"", INT8, 0, INT8},
    {"none", "int8", "\"codec\":\"int8\",\"codec_intra\":\"none\"", 0, INT8, INT8},
    {"int8:block=64", "topk:ratio=0.3", "\"codec\":\"topk\"", 1, 1, 1},
    {"topk:ratio=0.2,select=global", "bf16", "\"codec_intra\":\"topk\"", 1, 1, 1},
    {"topk:ratio=0.2", "topk:ratio=0.3,select=global", "\"codec\":\"topk\"", 1, 1, 1},
    {"int8:round=stochastic", "int8:round=stochastic,seed=3", "\"codec\":\"int8\"", 1, 1, 1, true},
};
enum { PAIRINGS = sizeof pairings / sizeof *pairings };

static void check_pairing(int index) {
    static const cinchDataType_t types[] = {cinchFloat, cinchBfloat16, cinchHalf};
    const struct pairing *c = &pairings[index];
    for (int m = 0; m < MAPS; m++) {
        if (strcmp(maps[m][0], "ABCD") == 0) continue; /* nothing inside */
        char env[256];
        job *j = board((job){.hosts = maps[m][0],
                             .sites = maps[m][1],
                             .dtype = types[(m + index) % 3],
                             .count = m == 0 ? 60000 : 20001,
                             .want = c->want});
        snprintf(env, sizeof env,
                 "CINCH_CODEC_INTRA=%s CINCH_CODEC_INTER=%s CINCH_CODEC_MIN_BYTES=1K", c->intra,
                 c->inter);
        run(j, compressed, env);
        /* inputs, sums of hosts, of sites, and of all; the last rounding is bfloat16's at most */
        double square = c->intra_error * c->intra_error + 2 * c->inter_error * c->inter_error +
                        c->last_error * c->last_error;
        double bound = 1.1 * sqrt(square) + (j->dtype == cinchFloat ? 0 : 0.003);
        for (int r = 0; r < (int)strlen(j->hosts); r++) {
            ck_assert_msg(j->hash[r] == j->hash[0], "%s: rank %d differs", env, r);
            ck_assert_msg(j->again[r] == j->hash[r] || c->random, "%s: rank %d, again", env, r);
            ck_assert_msg(j->error[r] > 0 && j->error[r] <= bound, "%s hosts %s: error %g of %g",
                          env, j->hosts, j->error[r], bound);
        }
    }
}

START_TEST(codecs_at_levels) {
    for (int i = 0; i < PAIRINGS; i++) check_pairing(i);
}
END_TEST

/* What a codec inside saves is seen on shared memory, and one between hosts on the network; the
 * owners' bytes go everywhere as they are. Of 2 hosts with 2 ranks each every rank gives half of
 * its input inside, and a quarter of the message between, and as much on the way back. */
START_TEST(bytes_of_each_level) {
    static const struct {
        const char *intra, *inter;
        double shm, tcp; /* of what exact sends; int8 is a bit more than a quarter */
    } cases[] = {{"int8", "int8", .26, .26},
                 {"int8", "none", .26, .63}, /* sums as they are, results encoded */
                 {"none", "int8", 1.01, .26},
                 {"bf16", "int8", .39, .26}};
    size_t count = 1 << 18;
    for (int c = 0; c < 4; c++) {
        char env[160];
        job *j = board((job){.hosts = "AABB", .count = count, .dtype = cinchFloat, .want = ""});
        snprintf(env, sizeof env,
                 "CINCH_CODEC_INTRA=%s CINCH_CODEC_INTER=%s CINCH_CODEC_MIN_BYTES=1K",
                 cases[c].intra, cases[c].inter);
        run(j, compressed, env);
        for (int r = 0; r < 4; r++) {
            double shm = (double)j->shm_bytes[r] / ((double)count * 4);
            double tcp = (double)j->tcp_bytes[r] / ((double)count * 4 / 2);
            ck_assert_msg(shm <= cases[c].shm && shm > .9 * cases[c].shm, "%s: shm %g", env, shm);
            ck_assert_msg(tcp <= cases[c].tcp && tcp > .9 * cases[c].tcp, "%s: tcp %g", env, tcp);
        }
    }
}
END_TEST

/* Reduce-scatter, then all-gather of what that gave. */
static void blocks(seat *me) {
    job *j = me->shared;
    size_t n = (size_t)me->nranks, esize = cinch_dtype_size(j->dtype), all = j->count * n;
    void *in = malloc(all * esize), *part = malloc(j->count * esize), *out = malloc(all * esize);
    float *floats = malloc(all * sizeof *floats);
    double *want = malloc(all * sizeof *want);
    cinchStats_t stats = {.size = sizeof stats};
    gauss_fill(in, floats, j->dtype, 1, me->rank, all);
    gauss_sum(want, j->dtype, 1, me->nranks, all, 1);
    CHECK_OK(me, cinchReduceScatter(in, part, j->count, j->dtype, cinchSum, me->comm, NULL));
    CHECK_OK(me, cinchAllGather(part, out, j->count, j->dtype, me->comm, NULL));
    CHECK_OK(me, cinchCommGetStats(me->comm, &stats));
    CHECK(me, stats.compressed_calls == 2);
    cinch_widen(floats, out, j->dtype, all);
    j->error[me->rank] = relative_error(floats, want, all);
    j->hash[me->rank] = hash_bytes(1, out, all * esize);
    free(in);
    free(part);
    free(out);
    free(floats);
    free(want);
}

START_TEST(blocks_with_codecs_at_levels) {
    for (int c = 0; c < 4; c++)
        for (int m = 0; m < MAPS; m++) {
            char env[256];
            job *j = board((job){.hosts = maps[m][0],
                                 .sites = maps[m][1],
                                 .dtype = m % 2 ? cinchFloat : cinchHalf,
                                 .count = 3011});
            if (strcmp(maps[m][0], "ABCD") == 0) continue;
            snprintf(env, sizeof env,
                     "CINCH_ALGO=hier CINCH_CODEC_INTRA=%s CINCH_CODEC_INTER=%s "
                     "CINCH_CODEC_OPS=reducescatter,allgather CINCH_CODEC_MIN_BYTES=1K",
                     pairings[c].intra, pairings[c].inter);
            run(j, blocks, env);
            for (int r = 0; r < (int)strlen(j->hosts); r++) {
                ck_assert_msg(j->hash[r] == j->hash[0], "%s hosts %s rank %d", env, j->hosts, r);
                ck_assert_msg(j->error[r] > 0 && j->error[r] < 1.1 * sqrt(4) * INT8,
                              "%s rank %d: error %g", env, r, j->error[r]);
            }
        }
}
END_TEST

/* ---- error feedback ---- */

enum { EF_COUNT = 12000, EF_CALLS = 8 };

typedef struct ledger { /* of all ranks, in memory that they share */
    job job;
    double held[MOST_RANKS][EF_COUNT];
    meeting_point met[4];
} ledger;

static ledger *ledgers;

/* This rank's residuals as if a call had one round: what it has not sent, by element. */
static void add_residuals(seat *me, double *held) {
    const cinch_ef *ef = me->comm->ef.used;
    if (!ef) return; /* it encodes nothing */
    CHECK(me, !ef->next && ef->nsender == EF_COUNT, "%p", (const void *)ef);
    cinch_call call = {.nranks = me->nranks,
                       .host = me->comm->host,
                       .hosts = me->comm->hosts,
                       .per_host = me->comm->per_host,
                       .site = me->comm->site,
                       .sites = me->comm->sites};
    cinch_hier_levels p = cinch_hier_levels_of(&call, me->rank);
    for (size_t i = 0; i < EF_COUNT; i++) held[i] += ef->sender[i];
    if (!ef->nowner) return;
    const cinch_hier_level *top = &p.at[p.count - 1];
    size_t share = ef->nowner, first = (size_t)(top->first + top->me) * share;
    for (size_t i = 0; i < share && first + i < EF_COUNT; i++) held[first + i] += ef->owner[i];
}

/* Everything put in is sent, or waits in a residual: of a rank's input, of a host's or site's sum,
 * of an owner's. */
static void conserves(seat *me) {
    ledger *all = me->shared;
    static float in[EF_COUNT], out[EF_COUNT];
    static double sent[EF_COUNT], want[EF_COUNT];
    double off = 0, whole = 0, left = 0;
    gauss_fill(in, in, cinchFloat, 1, me->rank, EF_COUNT);
    gauss_sum(want, cinchFloat, 1, me->nranks, EF_COUNT, EF_CALLS);
    for (int c = 0; c < EF_CALLS; c++) {
        CHECK_OK(me, cinchAllReduce(in, out, EF_COUNT, cinchFloat, cinchSum, me->comm, NULL));
        for (int i = 0; i < EF_COUNT; i++) sent[i] += out[i];
    }
    add_residuals(me, all->held[me->rank]);
    CHECK(me, wait_for_all(&all->met[0], me->nranks));
    for (int i = 0; i < EF_COUNT; i++) {
        double waits = 0;
        for (int q = 0; q < me->nranks; q++) waits += all->held[q][i];
        off += (sent[i] + waits - want[i]) * (sent[i] + waits - want[i]);
        left += waits * waits;
        whole += want[i] * want[i];
    }
    CHECK(me, sqrt(off / whole) < 2e-6, "%g is lost", sqrt(off / whole));
    CHECK(me, sqrt(left / whole) > 1e-4, "no residuals: %g", sqrt(left / whole));
    /* The state goes out and comes back, and the next call is as it was. */
    size_t len = 0;
    CHECK_OK(me, cinchCommExportState(me->comm, NULL, &len));
    void *state = malloc(len);
    CHECK_OK(me, cinchCommExportState(me->comm, state, &len));
    CHECK_OK(me, cinchAllReduce(in, out, EF_COUNT, cinchFloat, cinchSum, me->comm, NULL));
    uint64_t hash = hash_bytes(1, out, sizeof out);
    CHECK_OK(me, cinchAllReduce(in, out, EF_COUNT, cinchFloat, cinchSum, me->comm, NULL));
    CHECK(me, hash_bytes(1, out, sizeof out) != hash, "residuals make no difference");
    CHECK_OK(me, cinchCommImportState(me->comm, state, len));
    CHECK_OK(me, cinchAllReduce(in, out, EF_COUNT, cinchFloat, cinchSum, me->comm, NULL));
    CHECK(me, hash_bytes(1, out, sizeof out) == hash, "another result after the import");
    free(state);
}

START_TEST(error_feedback_loses_nothing) {
    static const char *const codecs[][2] = {{"int8:ef=1,block=64", "int8:ef=1,block=64"},
                                            {"int8:ef=1,block=64", "bf16:ef=1"},
                                            {"int8:ef=1,block=64", "none"},
                                            {"none", "int8:ef=1,block=64"},
                                            {"topk:ratio=0.4", "int8:ef=1"}};
    if (!ledgers) ledgers = shared_memory(sizeof *ledgers);
    for (int c = 0; c < 5; c++)
        for (int m = 0; m < MAPS; m++) {
            char env[256];
            if (strcmp(maps[m][0], "ABCD") == 0) continue;
            memset(ledgers, 0, sizeof *ledgers);
            ledgers->job.hosts = maps[m][0];
            ledgers->job.sites = maps[m][1];
            snprintf(env, sizeof env,
                     "CINCH_ALGO=hier CINCH_CODEC_INTRA=%s CINCH_CODEC_INTER=%s "
                     "CINCH_CHUNK=4M CINCH_CODEC_MIN_BYTES=1K",
                     codecs[c][0], codecs[c][1]);
            run(&ledgers->job, conserves, env);
        }
}
END_TEST

/* Codecs with error feedback and without: only what the one encodes leaves anything behind. Rank 0
 * of two hosts encodes the other half of its input inside, and its own half's sums between. */
static void one_keeps(seat *me) {
    const bool inside = ((job *)me->shared)->count;
    static float in[EF_COUNT], out[EF_COUNT];
    double left[2] = {0};
    gauss_fill(in, in, cinchFloat, 1, me->rank, EF_COUNT);
    CHECK_OK(me, cinchAllReduce(in, out, EF_COUNT, cinchFloat, cinchSum, me->comm, NULL));
    const cinch_ef *ef = me->comm->ef.used;
    CHECK(me, ef != NULL);
    size_t half = (EF_COUNT / 2 + 511) / 512 * 512; /* of one round: two slices of two parts */
    int own = me->rank % 2;
    for (size_t i = 0; i < EF_COUNT; i++) left[(i >= half) == own] += fabs(ef->sender[i]);
    CHECK(me, inside ? left[0] > 0 && left[1] == 0 : left[0] == 0 && left[1] > 0, "%g %g", left[0],
          left[1]);
    double by_owner = 0;
    for (size_t i = 0; i < ef->nowner; i++) by_owner += fabs(ef->owner[i]);
    CHECK(me, (by_owner > 0) == !inside, "%g", by_owner);
}

START_TEST(only_codecs_with_feedback_keep_residuals) {
    static const char env[] = "CINCH_ALGO=hier CINCH_CHUNK=4M CINCH_CODEC_MIN_BYTES=1K";
    char all[256];
    for (int inside = 0; inside < 2; inside++) {
        job *j = board((job){.hosts = "AABB", .count = (size_t)inside});
        snprintf(all, sizeof all, "%s CINCH_CODEC_INTRA=int8:ef=%d CINCH_CODEC_INTER=int8:ef=%d",
                 env, inside, !inside);
        run(j, one_keeps, all);
    }
}
END_TEST

/* Another codec inside hosts alone is another codec. */
static void forgets(seat *me) {
    static float in[EF_COUNT], out[EF_COUNT];
    gauss_fill(in, in, cinchFloat, 1, me->rank, EF_COUNT);
    CHECK_OK(me, cinchAllReduce(in, out, EF_COUNT, cinchFloat, cinchSum, me->comm, NULL));
    CHECK_OK(me, cinchCommSetCodec(me->comm, NULL));
    CHECK(me, me->comm->ef.used != NULL);
    CHECK_OK(me, cinchCommSetCodec(me->comm, "int8:ef=1"));
    CHECK(me, !me->comm->ef.used);
    CHECK(me, strcmp(me->comm->policy.inside.vt->name, "int8") == 0);
}

START_TEST(another_codec_forgets_residuals) {
    run(board((job){.hosts = "AABB"}), forgets,
        "CINCH_CODEC_INTRA=bf16:ef=1 CINCH_CODEC_INTER=int8:ef=1 CINCH_CODEC_MIN_BYTES=1K");
}
END_TEST

static void refused(seat *me) {
    CHECK(me, me->init == cinchInvalidUsage || me->init == cinchInvalidArgument, "%d", me->init);
    CHECK(me, strstr(me->why, "a common multiple"), "%s", me->why);
}

/* Segments of two codecs: pieces are whole ones of both, where such are not too long. */
START_TEST(segments_of_two_codecs) {
    static const char plugin[] = "CINCH_CODEC_PLUGIN=" CINCH_TEST_PLUGINS "/cinch_codec_sign.so "
                                 "CINCH_CODEC_MIN_BYTES=1K";
    char env[512];
    job *j = board((job){.hosts = "AABB", .count = 70001, .want = "\"codec_intra\":\"sign\""});
    j->dtype = cinchFloat;
    snprintf(env, sizeof env, "%s CINCH_CODEC_INTRA=sign:block=24 CINCH_CODEC_INTER=int8:block=64",
             plugin);
    run(j, compressed, env);
    for (int r = 0; r < 4; r++) ck_assert(j->hash[r] && j->hash[r] == j->hash[0]);
    snprintf(env, sizeof env, "%s CINCH_CODEC_INTRA=sign:block=65528 CINCH_CODEC_INTER=topk",
             plugin);
    run_logged(j, refused, env, "segments of 65528 and of 65536 elements");
}
END_TEST

/* ---- what is not for them ---- */

static void refuses_twostep(seat *me) {
    static float x[4096];
    CHECK_FAILS(me, cinchAllReduce(x, x, 4096, cinchFloat, cinchSum, me->comm, NULL),
                cinchInvalidUsage, NULL, "a codec is used between hosts too");
}

START_TEST(flat_algorithms_do_not_serve_the_inside_alone) {
    run_logged(board((job){.hosts = "AABB"}), refuses_twostep,
               "CINCH_ALGO=twostep CINCH_CODEC_INTRA=int8 CINCH_CODEC_MIN_BYTES=1K",
               "a codec is used between hosts too");
}
END_TEST

static void stays_exact(seat *me) {
    static float x[4096];
    cinchStats_t stats = {.size = sizeof stats};
    for (int i = 0; i < 4096; i++) x[i] = 1;
    CHECK_OK(me, cinchAllReduce(x, x, 4096, cinchFloat, cinchSum, me->comm, NULL));
    CHECK_OK(me, cinchCommGetStats(me->comm, &stats));
    CHECK(me, stats.compressed_calls == 0 && x[77] == (float)me->nranks);
}

START_TEST(hosts_of_one_rank_have_no_inside) {
    run(board((job){.hosts = "ABC"}), stays_exact,
        "CINCH_CODEC_INTRA=int8 CINCH_CODEC_MIN_BYTES=1K");
}
END_TEST

int main(void) {
    const TTest *const tests[] = {codecs_at_levels,
                                  bytes_of_each_level,
                                  blocks_with_codecs_at_levels,
                                  error_feedback_loses_nothing,
                                  only_codecs_with_feedback_keep_residuals,
                                  another_codec_forgets_residuals,
                                  segments_of_two_codecs,
                                  flat_algorithms_do_not_serve_the_inside_alone,
                                  hosts_of_one_rank_have_no_inside};
    return run_tests("level_codecs", tests, sizeof tests / sizeof *tests, 120);
}

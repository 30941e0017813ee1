/* SPDX-License-Identifier: Apache-2.0 */
/* Plan files in force, and CINCH_CODEC=auto: what made-up curves say is what is done; files of
 * others are refused; what is measured at init leaves no trace; the error budget. Hosts are told
 * apart by CINCH_HOSTID. */
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

#include "coll/engine.h"
#include "coll/planfile.h"
#include "tests/family.h"

/* What all ranks of a case share. */
typedef struct board {
    int hosts;
    char own[MOST_RANKS][96]; /* a rank's CINCH_PLAN_FILE; "": none */
    char why[MOST_RANKS][512];
    cinchResult_t code[MOST_RANKS];
    bool used[MOST_RANKS]; /* a table is in force */
    char plan[MOST_RANKS][512];
    /* calls to make */
    cinchDataType_t dtype;
    cinchRedOp_t op;
    size_t count;
    int calls, compressed[MOST_RANKS];
} board;

static board *b;
static char folder[] = "/tmp/cinch_auto_XXXXXX";

static void path_of(char path[96], const char *name) {
    snprintf(path, 96, "%s/%s", folder, name);
}

static void place(seat *me) {
    const board *shared = me->shared;
    char name[16];
    snprintf(name, sizeof name, "h%d", me->rank % (shared->hosts ? shared->hosts : 1));
    setenv("CINCH_HOSTID", name, 1);
    if (shared->own[me->rank][0]) setenv("CINCH_PLAN_FILE", shared->own[me->rank], 1);
}

static void run_logs(int nranks, const char *env, void (*body)(seat *me), const char *logs) {
    ranks_run(&(ranks_case){.nranks = nranks,
                            .processes = true,
                            .may_fail = true,
                            .env = env,
                            .env_of = place,
                            .body = body,
                            .shared = b,
                            .logs = logs});
}

static void run(int nranks, const char *env, void (*body)(seat *me)) {
    run_logs(nranks, env, body, NULL);
}

static void give(int nranks, const char *path) {
    for (int r = 0; r < MOST_RANKS; r++)
        snprintf(b->own[r], sizeof b->own[r], "%s", r < nranks ? path : "");
}

/* ---- made-up tables ---- */

static void do_nothing(seat *me) {
    CHECK_OK(me, me->init);
}

/* An empty table for so many ranks on so many hosts of this machine. */
static cinch_tuned table_of(int nranks, int hosts) {
    char env[160], path[96], why[160];
    size_t length;
    cinch_tuned t = {0};
    path_of(path, "dump.json");
    snprintf(env, sizeof env, "CINCH_PLAN_DUMP=%s", path);
    b->hosts = hosts;
    give(0, "");
    run(nranks, env, do_nothing);
    char *text = cinch_planfile_load(path, &length, why, sizeof why);
    ck_assert_msg(text != NULL, "%s", why);
    ck_assert_msg(cinch_planfile_parse(text, length, path, &t) == cinchSuccess, "%s",
                  cinch_last_error());
    ck_assert(t.ranks == nranks && t.hosts == hosts && t.machine[0]);
    free(text);
    return t;
}

/* us: at 1 KiB, 32 KiB, 1 MiB, 32 MiB */
static void add(cinch_tuned *t, cinch_collective collective, const char *algo, const char *codec,
                const double us[4]) {
    cinch_curve *c;
    ck_assert_int_eq(cinch_tuned_curve(t, collective, algo, codec, &c), cinchSuccess);
    c->points = 4;
    for (int i = 0; i < 4; i++) {
        c->point[i].bytes = (uint64_t)1024 << 5 * i;
        c->point[i].us = us[i];
    }
}

static void write_table(cinch_tuned *t, char path[96], const char *name) {
    path_of(path, name);
    ck_assert_msg(cinch_planfile_write(t, path) == cinchSuccess, "%s", cinch_last_error());
}

/* ---- the choice ---- */

/* tree to 1 KiB, halving at 32 KiB, direct at 1 MiB, ring at 32 MiB; broadcasts go directly */
static void add_choice(cinch_tuned *t) {
    static const double tree[] = {10, 300, 3000, 90000}, halving[] = {30, 100, 3000, 90000},
                        direct[] = {30, 300, 1000, 90000}, ring[] = {30, 300, 3000, 30000};
    add(t, CINCH_ALLREDUCE, "tree", "none", tree);
    add(t, CINCH_ALLREDUCE, "halving", "none", halving);
    add(t, CINCH_ALLREDUCE, "direct", "none", direct);
    add(t, CINCH_ALLREDUCE, "ring", "none", ring);
    add(t, CINCH_BROADCAST, "direct", "none", direct);
    add(t, CINCH_BROADCAST, "ring", "none", tree);
}

/* "KEY":VALUE of a plan, up to the comma. */
static const char *value_of(const char *json, const char *key) {
    static char value[64];
    char pattern[32];
    snprintf(pattern, sizeof pattern, "\"%s\":", key);
    const char *at = strstr(json, pattern);
    if (!at) return "(none)";
    at += strlen(pattern);
    at += *at == '"';
    snprintf(value, sizeof value, "%.*s", (int)strcspn(at, ",}\""), at);
    return value;
}

static const char *describe(seat *me, cinchComm_t comm, const char *op, size_t bytes,
                            cinchDataType_t dtype) {
    static char json[512];
    size_t room = sizeof json;
    if (cinchCommDescribePlan(comm, op, bytes, dtype, json, &room) != cinchSuccess)
        rank_note(me, __FILE__, __LINE__, op, " of %zu bytes", bytes);
    return json;
}

#define CHECK_PLAN(me, op, bytes, key, expected)                                                   \
    CHECK(me, strcmp(value_of(describe(me, me->comm, op, bytes, cinchFloat), key), expected) == 0, \
          "%s of %d bytes: %s", op, (int)(bytes), describe(me, me->comm, op, bytes, cinchFloat))

static void follows(seat *me) {
    CHECK_OK(me, me->init);
    CHECK_PLAN(me, "allreduce", 4, "algo", "tree");
    CHECK_PLAN(me, "allreduce", 1024, "algo", "tree");
    CHECK_PLAN(me, "allreduce", 32 << 10, "algo", "halving");
    CHECK_PLAN(me, "allreduce", 1 << 20, "algo", "direct");
    CHECK_PLAN(me, "allreduce", 32 << 20, "algo", "ring");
    CHECK_PLAN(me, "allreduce", 1 << 30, "algo", "ring");
    CHECK_PLAN(me, "broadcast", 1024, "algo", "ring");
    CHECK_PLAN(me, "broadcast", 1 << 20, "algo", "direct");
    CHECK_PLAN(me, "allreduce", 1024, "predicted_us", "10");
    CHECK_PLAN(me, "allreduce", 32 << 20, "predicted_us", "30000");
    CHECK_PLAN(me, "broadcast", 1 << 20, "predicted_us", "1000");
    CHECK_PLAN(me, "sendrecv", 1 << 20, "predicted_us", "null");
    double guess = cinch_op_predict(me->comm, CINCH_ALLTOALL, 1 << 20, false);
    CHECK(me, guess > 0 && isfinite(guess), "%g", guess); /* by the model */
    CHECK(me, isnan(cinch_op_predict(me->comm, CINCH_ALLREDUCE, 1 << 20, true)));
    CHECK(me, adds_up(me->comm, me->rank, me->nranks * (me->nranks - 1) / 2));
}

static void follows_not(seat *me) {
    CHECK_OK(me, me->init);
    CHECK_PLAN(me, "allreduce", 1 << 20, "algo", "ring");
    CHECK_PLAN(me, "allreduce", 1 << 20, "predicted_us", "3000");
    CHECK(me, adds_up(me->comm, me->rank, me->nranks * (me->nranks - 1) / 2));
}

START_TEST(selection_follows_the_table) {
    for (int hosts = 1; hosts <= 2; hosts++) {
        char path[96], copy[96];
        cinch_tuned t = table_of(4, hosts);
        add_choice(&t);
        write_table(&t, path, "plans.json");
        write_table(&t, copy, "copy.json");
        give(4, path);
        run(4, "", follows);
        run(4, "CINCH_ALGO=allreduce:ring", follows_not); /* a name wins */
        give(1, path);                                    /* rank 0's counts */
        run(4, "", follows);
        give(4, path); /* by what is in it, not by its name */
        snprintf(b->own[1], sizeof b->own[1], "%s", copy);
        snprintf(b->own[2], sizeof b->own[2], "/nonexistent/plans.json");
        run(4, "", follows);
        cinch_tuned_free(&t);
    }
}
END_TEST

/* The fast path goes as far as one-shot is within 3 % of the best, and no further. */
static void fast_path(seat *me) {
    CHECK_OK(me, me->init);
    CHECK(me, me->comm->oneshot_most == (size_t)me->comm->settings.warn_ms, "%zu",
          (size_t)me->comm->oneshot_most);
    CHECK(me, adds_up(me->comm, me->rank, me->nranks * (me->nranks - 1) / 2));
}

START_TEST(the_fast_path_ends_where_the_table_says) {
    /* in CINCH_WARN_MS: what is expected of the case */
    static const struct {
        double one[4];
        const char *env;
    } cases[] = {
        {{1, 1, 1, 1}, "CINCH_WARN_MS=262144"},  /* as far as it ever goes */
        {{1.02, 4, 4, 4}, "CINCH_WARN_MS=1151"}, /* to where the first class ends */
        {{1.02, 1.02, 4, 4}, "CINCH_WARN_MS=36863"},
        {{1.05, 1, 1, 1}, "CINCH_WARN_MS=0"}, /* never */
    };
    static const double tree[] = {1, 1, 1, 1};
    for (int i = 0; i < 4; i++) {
        char path[96];
        cinch_tuned t = table_of(3, 1);
        add(&t, CINCH_ALLREDUCE, "oneshot", "none", cases[i].one);
        add(&t, CINCH_ALLREDUCE, "tree", "none", tree);
        write_table(&t, path, "plans.json");
        give(3, path);
        run(3, cases[i].env, fast_path);
        cinch_tuned_free(&t);
    }
}
END_TEST

/* ---- refused ---- */

static void note(seat *me) {
    board *shared = me->shared;
    shared->code[me->rank] = me->init;
    snprintf(shared->why[me->rank], sizeof shared->why[0], "%s", me->why);
    shared->used[me->rank] = me->comm && me->comm->tuned;
}

static void refused(int nranks, const char *env, const char *says) {
    run_logs(nranks, env, note, "*");
    for (int r = 0; r < nranks; r++) {
        ck_assert_msg(b->code[r] == cinchInvalidUsage, "%s: rank %d: %d \"%s\"", says, r,
                      b->code[r], b->why[r]);
        ck_assert_msg(strstr(b->why[r], says) != NULL, "rank %d: \"%s\" has no \"%s\"", r,
                      b->why[r], says);
        ck_assert_str_eq(b->why[r], b->why[0]);
    }
}

static void write_text(char path[96], const char *name, const char *text) {
    path_of(path, name);
    FILE *to = fopen(path, "w");
    ck_assert(to && fputs(text, to) >= 0 && fclose(to) == 0);
}

START_TEST(files_of_others_are_refused) {
    char path[96], other[96];
    cinch_tuned t = table_of(4, 2);
    add_choice(&t);
    write_table(&t, path, "plans.json");
    t.curve[0].point[0].us += 1;
    write_table(&t, other, "other.json");
    t.curve[0].point[0].us -= 1;
    give(4, path);
    snprintf(b->own[2], sizeof b->own[2], "%s", other);
    refused(4, "", "the plan files of rank 0 and rank 2 differ");
    give(4, path);
    b->own[0][0] = '\0';
    refused(4, "", "rank 1 has a plan file and rank 0, whose counts, has none");
    give(4, "/nonexistent/plans.json");
    refused(4, "", "CINCH_PLAN_FILE=/nonexistent/plans.json: No such file or directory (rank 0)");
    give(4, folder);
    refused(4, "", "it is no regular file (rank 0)");
    give(3, path);
    refused(3, "", "CINCH_PLAN_FILE is for 4 ranks, and these are 3");
    give(4, path);
    b->hosts = 1;
    refused(4, "",
            "CINCH_PLAN_FILE is for another placement: rank 1 is on host 1 of 2 there, and "
            "on host 0 of 1 here");
    b->hosts = 2;
    refused(4, "CINCH_TRANSPORT=tcp", "for another machine: \"2 x 2 ranks on ");
    write_text(other, "other.json", "{\"cinch_plans\":1,\"ranks\":4,");
    give(4, other);
    refused(4, "", "CINCH_PLAN_FILE: line 1");
    write_text(other, "other.json", "{\"cinch_plans\":9}");
    give(1, other);
    refused(4, "", "\"cinch_plans\" is 9");
    strcpy(t.machine, "2 x 2 ranks on an abacus");
    write_table(&t, other, "other.json");
    give(4, other);
    refused(4, "", "CINCH_PLAN_FILE is for another machine: \"2 x 2 ranks on an abacus\" there, ");
    cinch_tuned_free(&t);
}
END_TEST

static void expect_part(seat *me) {
    CHECK_OK(me, me->init);
    CHECK(me, me->comm->tuned == NULL);
    CHECK(me, adds_up(me->comm, me->rank, me->nranks * (me->nranks - 1) / 2));
}

static void split_it(seat *me) {
    CHECK_OK(me, me->init);
    CHECK(me, me->comm->tuned != NULL);
    cinchComm_t half, all;
    CHECK_OK(me, cinchCommSplit(me->comm, me->rank / 2, 0, &half, NULL));
    CHECK(me, half->tuned == NULL && adds_up(half, 1, 2));
    CHECK_OK(me, cinchCommDestroy(half));
    CHECK_OK(me, cinchCommSplit(me->comm, 0, -me->rank, &all, NULL));
    CHECK(me, all->tuned == NULL && adds_up(all, 1, 4));
    CHECK_OK(me, cinchCommDestroy(all));
}

START_TEST(parts_of_a_job_do_without) {
    char path[96], text[128];
    cinch_tuned t = table_of(4, 2);
    add_choice(&t);
    write_table(&t, path, "plans.json");
    give(4, path);
    run(4, "", split_it);
    run(2, "CINCH_SIZE=4", expect_part);
    setenv("WORLD_SIZE", "4", 1);
    run(3, "", expect_part);
    setenv("WORLD_SIZE", "5", 1); /* the file is of another job */
    refused(3, "", "for 4 ranks, and these are 3");
    unsetenv("WORLD_SIZE");
    snprintf(text, sizeof text, "CINCH_SIZE=3");
    refused(3, text, "for 4 ranks, and these are 3");
    cinch_tuned_free(&t);
}
END_TEST

START_TEST(what_is_in_force_is_dumped) {
    char path[96], out[96], env[160], why[160], *in_force, *given;
    size_t a, c;
    cinch_tuned t = table_of(4, 2);
    add_choice(&t);
    write_table(&t, path, "plans.json");
    path_of(out, "out.json");
    give(4, path);
    snprintf(env, sizeof env, "CINCH_PLAN_DUMP=%s", out);
    run(4, env, do_nothing);
    given = cinch_planfile_load(path, &a, why, sizeof why);
    in_force = cinch_planfile_load(out, &c, why, sizeof why);
    ck_assert_str_eq(given, in_force);
    free(given);
    free(in_force);
    cinch_tuned_free(&t);
}
END_TEST

/* ---- auto ---- */

/* Calls like the board's; which were compressed. */
static void count_compressed(seat *me) {
    board *shared = me->shared;
    CHECK_OK(me, me->init);
    cinchStats_t stats = {.size = sizeof stats};
    float *data = calloc(shared->count + 1, 8);
    for (int i = 0; i < shared->calls; i++)
        CHECK_OK(me, cinchAllReduce(data, data, shared->count, shared->dtype, shared->op, me->comm,
                                    NULL));
    CHECK_OK(me, cinchCommGetStats(me->comm, &stats));
    shared->compressed[me->rank] = (int)stats.compressed_calls;
    snprintf(shared->plan[me->rank], sizeof shared->plan[0], "%s",
             describe(me, me->comm, "allreduce", shared->count * 4, cinchFloat));
    free(data);
}

static void expect_calls(const char *env, cinchDataType_t dtype, cinchRedOp_t op, size_t count,
                         const char *codec) {
    b->dtype = dtype;
    b->op = op;
    b->count = count;
    b->calls = 3;
    run(4, env, count_compressed);
    for (int r = 0; r < 4; r++) {
        ck_assert_msg(b->compressed[r] == (strcmp(codec, "none") ? 3 : 0), "%s: %zu of %d: %d", env,
                      count, (int)dtype, b->compressed[r]);
        if (dtype == cinchFloat && op == cinchSum)
            ck_assert_msg(strcmp(value_of(b->plan[r], "codec"), codec) == 0, "%s: %s", env,
                          b->plan[r]);
        ck_assert_str_eq(b->plan[r], b->plan[0]);
    }
}

/* A codec pays at 1 MiB, hardly at 32 KiB, not at 1 KiB; at 32 MiB less than 3 %. */
static void add_codecs(cinch_tuned *t) {
    static const double ring[] = {10, 100, 1000, 30000}, int8[] = {20, 95, 500, 29500},
                        bf16[] = {20, 120, 700, 40000};
    add(t, CINCH_ALLREDUCE, "ring", "none", ring);
    add(t, CINCH_ALLREDUCE, "twostep", "int8", int8);
    add(t, CINCH_ALLREDUCE, "twostep", "bf16", bf16);
}

#define AUTO "CINCH_CODEC=auto CINCH_CODEC_MIN_BYTES=0 "

START_TEST(auto_follows_the_table) {
    char path[96];
    enum { K = 256 }; /* floats of a KiB */
    cinch_tuned t = table_of(4, 2);
    add_codecs(&t);
    write_table(&t, path, "plans.json");
    give(4, path);
    expect_calls(AUTO, cinchFloat, cinchSum, K, "none");
    expect_calls(AUTO, cinchFloat, cinchSum, 32 * K, "int8");
    expect_calls(AUTO, cinchFloat, cinchSum, 1024 * K, "int8");
    expect_calls(AUTO, cinchFloat, cinchAvg, 1024 * K, "int8");
    expect_calls(AUTO, cinchHalf, cinchSum, 2048 * K, "int8");
    expect_calls(AUTO, cinchFloat, cinchSum, 32768 * K, "none");
    /* as for any codec: operators, types, least sizes, exclusions, warm-up */
    expect_calls(AUTO, cinchFloat, cinchMin, 1024 * K, "none");
    expect_calls(AUTO, cinchInt, cinchSum, 1024 * K, "none");
    expect_calls("CINCH_CODEC=auto", cinchFloat, cinchSum, 32 * K, "none");
    expect_calls("CINCH_CODEC=auto", cinchFloat, cinchSum, 1024 * K, "int8");
    expect_calls(AUTO "CINCH_CODEC_OPS=reducescatter", cinchFloat, cinchSum, 1024 * K, "none");
    expect_calls(AUTO "CINCH_CODEC_EXCLUDE=size=1M-2M", cinchFloat, cinchSum, 1024 * K, "none");
    /* the levels */
    expect_calls("CINCH_CODEC_INTER=auto", cinchFloat, cinchSum, 1024 * K, "int8");
    expect_calls("CINCH_CODEC_INTRA=auto", cinchFloat, cinchSum, 1024 * K, "none");
    expect_calls(AUTO "CINCH_CODEC_INTER=none", cinchFloat, cinchSum, 1024 * K, "none");
    /* an algorithm asked for by name stays what is used */
    expect_calls(AUTO "CINCH_ALGO=ring", cinchFloat, cinchSum, 1024 * K, "none");
    cinch_tuned_free(&t);
}
END_TEST

START_TEST(auto_stays_inside_the_budget) {
    char path[96];
    enum { MIB = 1 << 18 };
    cinch_tuned t = table_of(4, 2);
    add_codecs(&t);
    write_table(&t, path, "plans.json");
    give(4, path);
    expect_calls(AUTO "CINCH_MAX_REL_ERROR=0.02", cinchFloat, cinchSum, MIB, "int8");
    expect_calls(AUTO "CINCH_MAX_REL_ERROR=0.005", cinchFloat, cinchSum, MIB, "bf16");
    expect_calls(AUTO "CINCH_MAX_REL_ERROR=0.005", cinchFloat, cinchSum, MIB / 32, "none");
    expect_calls(AUTO "CINCH_MAX_REL_ERROR=1e-3", cinchFloat, cinchSum, MIB, "none");
    cinch_tuned_free(&t);
}
END_TEST

/* Where the table has no codec, or there is no table, `auto` measures. */
static void starts_at_zero(seat *me) {
    board *shared = me->shared;
    CHECK_OK(me, me->init);
    cinchStats_t s = {.size = sizeof s};
    CHECK_OK(me, cinchCommGetStats(me->comm, &s));
    CHECK(me, s.calls == 0 && s.bytes == 0 && s.wire_bytes == 0 && s.compressed_calls == 0,
          "%d calls, %d bytes on the wire", (int)s.calls, (int)s.wire_bytes);
    CHECK(me, me->comm->tuned && cinch_choice_knows(me->comm->choice, CINCH_ALLREDUCE, true));
    CHECK(me, me->comm->policy.automatic && me->comm->policy.codec.vt);
    CHECK(me, adds_up(me->comm, me->rank, me->nranks * (me->nranks - 1) / 2));
    snprintf(shared->plan[me->rank], sizeof shared->plan[0], "%s",
             describe(me, me->comm, "allreduce", 4 << 20, cinchFloat));
    /* long messages were measured, so short ones are chosen as ever, and are exact */
    cinch_call call = cinch_op_call(me->comm, CINCH_ALLREDUCE, 0, 4);
    if (!me->comm->settings.plan_file[0])
        CHECK_PLAN(me, "allreduce", 4, "algo", cinch_algo_choose(&call)->name);
    CHECK_PLAN(me, "allreduce", 64, "codec", "none");
}

static void check_same_plans(int nranks) {
    for (int r = 1; r < nranks; r++) ck_assert_str_eq(b->plan[r], b->plan[0]);
}

START_TEST(auto_measures_at_init) {
    char path[96];
    static const double ring[] = {10, 100, 1000, 30000};
    cinch_tuned t = table_of(2, 2);
    give(0, "");
    run(2, "CINCH_CODEC=auto CINCH_CODEC_MIN_BYTES=0", starts_at_zero);
    check_same_plans(2);
    add(&t, CINCH_ALLREDUCE, "ring", "none", ring);
    write_table(&t, path, "plans.json");
    give(2, path);
    run(2, "CINCH_CODEC=auto", starts_at_zero);
    check_same_plans(2);
    b->hosts = 1; /* one host without shared memory */
    give(0, "");
    run(2, "CINCH_CODEC_INTRA=auto CINCH_TRANSPORT=tcp", starts_at_zero);
    cinch_tuned_free(&t);
}
END_TEST

static void splits_and_sets(seat *me) {
    CHECK_OK(me, me->init);
    cinchConfig_t config = CINCH_CONFIG_INITIALIZER;
    cinchComm_t child = NULL;
    config.blocking = 0;
    cinchResult_t result = cinchCommSplit(me->comm, 0, 0, &child, &config);
    CHECK(me, (result == cinchSuccess || result == cinchInProgress) && child);
    CHECK_OK(me, settled(child));
    CHECK(me, adds_up(child, 1, me->nranks));
    CHECK(me, cinch_choice_knows(child->choice, CINCH_ALLREDUCE, true));
    CHECK_OK(me, cinchCommDestroy(child));
    /* set by call */
    CHECK_OK(me, cinchCommSetCodec(me->comm, "none"));
    CHECK(me, !me->comm->policy.automatic && !me->comm->policy.codec.vt);
    CHECK(me, adds_up(me->comm, 1, me->nranks));
    CHECK_OK(me, cinchCommSetCodec(me->comm, NULL));
    CHECK(me, me->comm->policy.automatic && me->comm->policy.codec.vt);
    CHECK_OK(me, cinchCommSetCodec(me->comm, "int8"));
    CHECK(me, !me->comm->policy.automatic);
    CHECK_OK(me, cinchCommSetCodec(me->comm, "auto"));
    CHECK(me, me->comm->policy.automatic);
    CHECK(me, adds_up(me->comm, 1, me->nranks));
}

static void sets_it_first(seat *me) {
    CHECK_OK(me, me->init);
    CHECK(me, !me->comm->tuned);
    CHECK(me, adds_up(me->comm, 1, me->nranks));
    CHECK_OK(me, cinchCommSetCodec(me->comm, "auto"));
    CHECK(me, cinch_choice_knows(me->comm->choice, CINCH_ALLREDUCE, true));
    CHECK(me, adds_up(me->comm, 1, me->nranks));
    CHECK_FAILS(me, cinchCommSetCodec(me->comm, "auto:x=1"), cinchInvalidUsage, NULL,
                "takes no parameters");
}

START_TEST(auto_in_children_and_by_call) {
    b->hosts = 2;
    give(0, "");
    run(2, "CINCH_CODEC=auto", splits_and_sets);
    run_logs(2, "", sets_it_first, "auto:x=1");
}
END_TEST

/* Memory is faster than codecs: nothing is measured, and nothing said. */
static void shares_memory(seat *me) {
    CHECK_OK(me, me->init);
    CHECK(me, !me->comm->tuned);
    CHECK_PLAN(me, "allreduce", 64 << 20, "codec", "none");
    CHECK_OK(me, cinchCommSetCodec(me->comm, "auto"));
    CHECK(me, !me->comm->tuned);
    CHECK(me, adds_up(me->comm, 1, me->nranks));
}

START_TEST(auto_is_exact_in_shared_memory) {
    b->hosts = 1;
    give(0, "");
    run(3, "CINCH_CODEC=auto CINCH_CODEC_INTRA=auto CINCH_CODEC_MIN_BYTES=0", shares_memory);
    run(3, "CINCH_CODEC=auto", shares_memory);
}
END_TEST

/* ---- the budget ---- */

static void gauss_calls(seat *me) {
    enum { COUNT = 1 << 18 };
    CHECK_OK(me, me->init);
    float *data = malloc(COUNT * sizeof *data), *sum = malloc(COUNT * sizeof *sum);
    uint64_t state = 77 + (uint64_t)me->rank;
    for (int i = 0; i < COUNT; i++) { /* a sum of twelve uniform numbers is nearly normal */
        data[i] = -6;
        for (int k = 0; k < 12; k++) data[i] += (float)(random64(&state) >> 40) / 16777216.f;
    }
    for (int i = 0; i < 70; i++) /* more than one look */
        CHECK_OK(me, cinchAllReduce(data, sum, COUNT, cinchFloat, cinchSum, me->comm, NULL));
    free(data);
    free(sum);
}

static int lines_with(const char *part) {
    int count = 0;
    char *text = read_log();
    for (const char *at = text; (at = strstr(at, part)); at++) count++;
    free(text);
    return count;
}

START_TEST(a_budget_that_is_passed) {
    static const char says[] = "CINCH_MAX_REL_ERROR=0.01 is passed: topk has an error of 0.9";
    b->hosts = 1;
    give(0, "");
    run(2, "CINCH_CODEC_INTRA=bf16 CINCH_MAX_REL_ERROR=0.01", gauss_calls);
    run(2, "CINCH_CODEC_INTRA=int8 CINCH_MAX_REL_ERROR=0.01", gauss_calls);
    run(2, "CINCH_CODEC_INTRA=topk", gauss_calls);
    empty_log();
    run_logs(2, "CINCH_CODEC_INTRA=topk CINCH_MAX_REL_ERROR=0.01", gauss_calls, says);
    ck_assert_int_eq(lines_with(says), 2); /* once on each rank */
    run_logs(2, "CINCH_CODEC_INTRA=topk:select=global CINCH_MAX_REL_ERROR=0.01", gauss_calls, says);
    run_logs(2, "CINCH_CODEC_INTRA=int8 CINCH_MAX_REL_ERROR=0.004", gauss_calls,
             "CINCH_MAX_REL_ERROR=0.004 is passed: int8 has an error of 0.00");
}
END_TEST

int main(void) {
    char line[64];
    b = mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (b == MAP_FAILED || !mkdtemp(folder)) return EXIT_FAILURE;
    const TTest *tests[] = {selection_follows_the_table,  the_fast_path_ends_where_the_table_says,
                            files_of_others_are_refused,  parts_of_a_job_do_without,
                            what_is_in_force_is_dumped,   auto_follows_the_table,
                            auto_stays_inside_the_budget, auto_measures_at_init,
                            auto_in_children_and_by_call, auto_is_exact_in_shared_memory,
                            a_budget_that_is_passed};
    int status = run_tests("auto", tests, sizeof tests / sizeof *tests, 60);
    snprintf(line, sizeof line, "rm -r %s", folder);
    return system(line) == 0 ? status : EXIT_FAILURE;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* CINCH_CODEC=auto: it follows the curves and stays inside the error budget; what is measured at
 * init leaves no trace, and goes on to children whom it fits. */
#include "tests/tables.h"

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
    add(t, CINCH_REDUCESCATTER, "ring", "none", ring);
    add(t, CINCH_REDUCESCATTER, "direct", "int8", bf16);
    add(t, CINCH_REDUCESCATTER, "direct", "bf16", bf16);
}

static void decides_by_collective(seat *me) {
    CHECK_OK(me, me->init);
    CHECK_PLAN(me, "allreduce", 48 << 10, "codec", "int8");
    CHECK_PLAN(me, "reducescatter", 48 << 10, "codec", "none");
    CHECK_PLAN(me, "reducescatter", 1 << 20, "codec", "int8");
    CHECK_PLAN(me, "reducescatter", 1 << 20, "predicted_us", "700");
    CHECK_PLAN(me, "reducescatter", 32 << 20, "codec", "none");
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
    run(4, AUTO, decides_by_collective);
    /* as for any codec: operators, types, least sizes, exclusions, warm-up */
    expect_calls(AUTO, cinchFloat, cinchMin, 1024 * K, "none");
    expect_calls(AUTO, cinchInt, cinchSum, 1024 * K, "none");
    expect_calls("CINCH_CODEC=auto", cinchFloat, cinchSum, 32 * K, "none");
    expect_calls("CINCH_CODEC=auto", cinchFloat, cinchSum, 1024 * K, "int8");
    expect_calls(AUTO "CINCH_CODEC_OPS=reducescatter", cinchFloat, cinchSum, 1024 * K, "none");
    expect_calls(AUTO "CINCH_CODEC_EXCLUDE=size=1M-2M", cinchFloat, cinchSum, 1024 * K, "none");
    /* the levels */
    expect_calls("CINCH_CODEC_INTER=auto", cinchFloat, cinchSum, 1024 * K, "int8");
    run_logs(4, "CINCH_CODEC_INTRA=auto", count_compressed,
             "CINCH_CODEC_INTRA=auto compresses nothing inside the 2 hosts");
    for (int r = 0; r < 4; r++) ck_assert_int_eq(b->compressed[r], 0);
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
    bool scatter_alone = strcmp(me->comm->settings.codec_ops, "reducescatter") == 0;
    CHECK(me, me->comm->tuned && cinch_choice_knows(me->comm->choice, CINCH_REDUCESCATTER, true));
    CHECK(me, cinch_choice_knows(me->comm->choice, CINCH_ALLREDUCE, true) != scatter_alone);
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

/* Curves of all-reduces serve reduce-scatters and all-gathers, and nothing is measured. */
static void lends(seat *me) {
    CHECK_OK(me, me->init);
    CHECK(me, me->comm->tuned && me->comm->tuned->curves == 3);
    CHECK_PLAN(me, "allreduce", 1 << 20, "codec", "int8");
    CHECK_PLAN(me, "reducescatter", 1 << 20, "codec", "int8");
    CHECK_PLAN(me, "reducescatter", 32 << 20, "codec", "none");
    CHECK_PLAN(me, "allgather", 1 << 20, "codec", "int8");
}

START_TEST(what_is_known_is_enough) {
    char path[96];
    cinch_tuned t = table_of(4, 2);
    add_codecs(&t);
    t.curves = 3; /* the all-reduce's */
    write_table(&t, path, "plans.json");
    give(4, path);
    run(4, AUTO "CINCH_CODEC_OPS=allreduce,reducescatter,allgather", lends);
    cinch_tuned_free(&t);
}
END_TEST

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
    run(2, "CINCH_CODEC=auto CINCH_CODEC_OPS=reducescatter", starts_at_zero);
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

/* Measured times differ: the same curves are the same measurement. */
static bool same_curves(const cinch_tuned *s, const cinch_tuned *t) {
    if (!s || !t || s->curves != t->curves) return false;
    for (int i = 0; i < s->curves; i++)
        for (int p = 0; p < s->curve[i].points; p++)
            if (s->curve[i].point[p].us != t->curve[i].point[p].us) return false;
    return true;
}

/* A child of this color and order, whose curves are the parent's or not. */
static void expect_child(seat *me, int color, int key, bool same) {
    cinchComm_t child;
    CHECK_OK(me, cinchCommSplit(me->comm, color, key, &child, NULL));
    if (!child) return;
    CHECK(me, child->tuned && cinch_choice_knows(child->choice, CINCH_ALLREDUCE, true));
    CHECK(me, cinch_choice_knows(child->choice, CINCH_REDUCESCATTER, true));
    CHECK(me, same_curves(child->tuned, me->comm->tuned) == same, "color %d, key %d", color, key);
    CHECK(me, adds_up(child, 1, child->nranks));
    if (same && child->nranks > 2) { /* and a child's child likewise */
        cinchComm_t next;
        CHECK_OK(me, cinchCommSplit(child, 0, 0, &next, NULL));
        CHECK(me, same_curves(next->tuned, me->comm->tuned) && adds_up(next, 1, next->nranks));
        CHECK_OK(me, cinchCommDestroy(next));
    }
    CHECK_OK(me, cinchCommDestroy(child));
}

/* Ranks 0 and 2 are on one host, 1 and 3 on another. */
static void has_children(seat *me) {
    CHECK_OK(me, me->init);
    expect_child(me, 0, 0, true);
    expect_child(me, 0, -me->rank, true);     /* 3 2 1 0: hosts in turn, too */
    expect_child(me, 0, me->rank % 2, false); /* 0 2 1 3 */
    expect_child(me, me->rank < 3 ? 0 : CINCH_SPLIT_NOCOLOR, 0, false); /* fewer */
    setenv("CINCH_TRANSPORT", "tcp", 1);
    expect_child(me, 0, 0, false);
}

START_TEST(children_inherit_what_fits) {
    b->hosts = 2;
    give(0, "");
    run(4, "CINCH_CODEC=auto CINCH_CODEC_MIN_BYTES=0", has_children);
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
    const TTest *const tests[] = {auto_follows_the_table,         auto_stays_inside_the_budget,
                                  what_is_known_is_enough,        auto_measures_at_init,
                                  auto_in_children_and_by_call,   children_inherit_what_fits,
                                  auto_is_exact_in_shared_memory, a_budget_that_is_passed};
    return run_table_tests("auto", tests, sizeof tests / sizeof *tests);
}

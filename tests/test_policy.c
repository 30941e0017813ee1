/* SPDX-License-Identifier: Apache-2.0 */
/* Settings as a user meets them: wrong values, ranks that differ, unknown names, and what the codec
 * rules do. */
#include <sys/wait.h>
#include <unistd.h>

#include "base/settings.h"
#include "tests/harness.h"

typedef struct board {
    char why[MOST_RANKS][512];
    cinchResult_t code[MOST_RANKS];
    uint32_t took_ms[MOST_RANKS];
    const char *assignment; /* NAME=value of rank 1 */
} board;

/* ---- wrong values ---- */

/* A value that is wrong for each variable, and what is said about it; NULL: any text is right. */
static const struct wrong {
    const char *name, *value, *says;
} wrong[] = {
    {"CODEC", "int9", "int9"},
    {"CODEC", "int8:block=7x", "block"},
    {"CODEC", "auto:ef=1", "auto takes no parameters"},
    {"CODEC", "topk:ratio=2", "ratio"},
    {"CODEC_INTRA", "topk:foo=1", "foo"},
    {"CODEC_INTER", "bf17", "bf17"},
    {"CODEC_MIN_BYTES", "1X", "a size such as"},
    {"CODEC_OPS", "alltoall", "allreduce, reducescatter and allgather are accepted"},
    {"CODEC_OPS", "allreduce,scan", "allgather are accepted"},
    {"CODEC_DTYPES", "double", "float, half and bfloat16"},
    {"CODEC_EXCLUDE", "size=9-2", "size=FROM-TO"},
    {"CODEC_EXCLUDE", "bytes=1-2", "size=FROM-TO"},
    {"CODEC_WARMUP", "-1", "a whole number"},
    {"CODEC_PLUGIN", "/nonexistent/plugin.so", "plugin.so"},
    {"EF_MAX_BYTES", "lots", "a size such as"},
    {"MAX_REL_ERROR", "-1", "off or a number above 0"},
    {"MAX_REL_ERROR", "none", "off or a number above 0"},
    {"MAX_REL_ERROR", "0", "off or a number above 0"},
    {"NONFINITE", "ignore", "propagate|error"},
    {"ALGO", "rings", "oneshot, twoshot, ring"},
    {"ALGO", "alltoall:ring", "oneshot, direct are accepted"},
    {"ALGO", "scan:ring", "a collective's name"},
    {"TRANSPORT", "udp", "udp"},
    {"TRANSPORT", "^shm,tcp,ucx,verbs", "TRANSPORT"},
    {"IB_DISABLE", "2", "0 or 1"},
    {"IB_HCA", NULL, NULL},       /* read where there is a device: test_verbs, in the guest */
    {"IB_GID_INDEX", NULL, NULL}, /* too */
    {"IB_ROCE_VERSION_NUM", "two", "a whole number"},
    {"IB_TIMEOUT", "-1", "a whole number"},
    {"IB_RETRY_CNT", "six", "a whole number"},
    {"IB_PKEY", "x", "a whole number"},
    {"IB_SL", "1.5", "a whole number"},
    {"IB_TC", "-", "a whole number"},
    {"CHUNK", "12Q", "a size such as"},
    {"TREES", "many", "a whole number"},
    {"TOPO_FILE", NULL, NULL},
    {"TOPO_DUMP", NULL, NULL},
    {"PLAN_FILE", NULL, NULL}, /* refused at the join: test_auto */
    {"PLAN_DUMP", "/nonexistent/plans.json", "a folder that can be written"},
    {"CHECKSUM", "yes", "0 or 1"},
    {"COMM_ID", "nowhere", "COMM_ID"},
    {"SECRET_FILE", NULL, NULL}, /* read only for a COMM_ID without a secret: test_rendezvous */
    {"ALLOW_UNAUTHENTICATED", "2", "0 or 1"},
    {"RANK", "first", "a whole number"},
    {"SIZE", "4.5", "a whole number"},
    {"HOSTID", NULL, NULL},
    {"SITEID", NULL, NULL}, /* compared at the join: test_levels */
    {"SOCKET_IFNAME", "nosuchif0", "nosuchif0"},
    {"SOCKET_FAMILY", "AF_UNIX", "any|AF_INET|AF_INET6"},
    {"INIT_TIMEOUT_MS", "5s", "a whole number"},
    {"TIMEOUT_MS", "1e3", "a whole number"},
    {"WARN_MS", "+5", "a whole number"},
    {"DEBUG", "loud", "none|error|warn|info|debug|trace"},
    {"DEBUG_FILE", "/nonexistent/log", "/nonexistent/log"},
    {"STATS_FILE", "/nonexistent/stats", "/nonexistent/stats"},
    {"REPORT_DIR", NULL, NULL}, /* told when a report is due: test_reports */
    {"NCCL_PATH", NULL, NULL},  /* read by the drop-in alone */
    {"NCCL_MODE", "both", "auto|forward|native"},
};
enum { WRONG = sizeof wrong / sizeof *wrong };

START_TEST(every_setting_has_a_wrong_value_here) {
    for (int i = 0; cinch_setting_at(i); i++) {
        bool found = false;
        for (int j = 0; j < WRONG; j++)
            found |= strcmp(cinch_setting_at(i)->name + 6, wrong[j].name) == 0;
        ck_assert_msg(found, "%s", cinch_setting_at(i)->name);
    }
}
END_TEST

static void note_init(seat *me) {
    board *b = me->shared;
    uint64_t start = now_ms();
    cinchUniqueId id;
    b->code[me->rank] = cinchSuccess;
    /* With CINCH_COMM_ID every rank asks for the id. */
    if (strncmp(b->assignment, "CINCH_COMM_ID", 13) == 0) b->code[me->rank] = cinchGetUniqueId(&id);
    if (b->code[me->rank] == cinchSuccess)
        b->code[me->rank] = cinchCommInitRank(&me->comm, me->nranks, me->id, me->rank);
    b->took_ms[me->rank] = (uint32_t)(now_ms() - start);
    snprintf(b->why[me->rank], sizeof b->why[0], "%s", cinchGetLastError(NULL));
}

static void wrong_on_rank_1(seat *me) {
    const board *b = me->shared;
    if (me->rank == 1) set_environment(b->assignment);
}

static void wrong_everywhere(seat *me) {
    set_environment(((const board *)me->shared)->assignment);
}

static board *run_wrong(const char *assignment, void (*env_of)(seat *)) {
    static board *b;
    if (!b) b = shared_memory(sizeof *b);
    memset(b, 0, sizeof *b);
    b->assignment = assignment;
    ranks_run(&(ranks_case){.nranks = 3,
                            .processes = true,
                            .host_apart = true,
                            .bare = true,
                            .env = "CINCH_INIT_TIMEOUT_MS=1500",
                            .env_of = env_of,
                            .body = note_init,
                            .shared = b,
                            .logs = "*"});
    return b;
}

static void check_wrong(const struct wrong *w, void (*env_of)(seat *)) {
    char assignment[200], name[100];
    snprintf(assignment, sizeof assignment, "CINCH_%s=%s", w->name, w->value);
    snprintf(name, sizeof name, "CINCH_%s", w->name);
    const board *b = run_wrong(assignment, env_of);
    bool here = strcmp(w->name, "COMM_ID") == 0; /* asked before anyone is met */
    for (int r = 0; r < 3; r++) {
        if (here && env_of == wrong_on_rank_1 && r != 1) {
            ck_assert_msg(b->code[r] != cinchSuccess && strstr(b->why[r], "rank 1 of 3"),
                          "%s: rank %d: %d \"%s\"", assignment, r, b->code[r], b->why[r]);
            continue;
        }
        ck_assert_msg(b->code[r] == cinchInvalidUsage, "%s%s: rank %d: %d \"%s\"", assignment,
                      env_of == wrong_everywhere ? " everywhere" : "", r, b->code[r], b->why[r]);
        ck_assert_msg(strstr(b->why[r], name) && strstr(b->why[r], w->says), "%s: rank %d: \"%s\"",
                      assignment, r, b->why[r]);
        ck_assert_msg(b->took_ms[r] < 2000, "%s: rank %d: %u ms", assignment, r, b->took_ms[r]);
        if (env_of == wrong_on_rank_1 && !here)
            ck_assert_msg(strcmp(b->why[r], b->why[0]) == 0, "%s:\n\"%s\"\n\"%s\"", assignment,
                          b->why[r], b->why[0]);
    }
}

START_TEST(a_wrong_value_on_one_rank) {
    for (int i = 0; i < WRONG; i++)
        if (wrong[i].value) check_wrong(&wrong[i], wrong_on_rank_1);
}
END_TEST

START_TEST(a_wrong_value_everywhere) {
    for (int i = 0; i < WRONG; i++)
        if (wrong[i].value) check_wrong(&wrong[i], wrong_everywhere);
}
END_TEST

/* ---- ranks that differ ---- */

START_TEST(settings_that_differ) {
    static const struct {
        const char *assignment, *says;
    } differ[] = {
        {"CINCH_ALGO=ring", "CINCH_ALGO=auto on rank 0, CINCH_ALGO=ring on rank 1"},
        {"CINCH_CODEC_MIN_BYTES=2K", "CINCH_CODEC_MIN_BYTES=1M on rank 0"},
        {"CINCH_CODEC=int8", "CINCH_CODEC=none on rank 0, CINCH_CODEC=int8 on rank 1"},
        {"CINCH_TRANSPORT=tcp", "CINCH_TRANSPORT=auto on rank 0"},
        {"CINCH_CHUNK=4K", "CINCH_CHUNK=0 on rank 0"},
        {"CINCH_NONFINITE=error", "CINCH_NONFINITE=propagate on rank 0"},
    };
    for (size_t i = 0; i < sizeof differ / sizeof *differ; i++) {
        const board *b = run_wrong(differ[i].assignment, wrong_on_rank_1);
        for (int r = 0; r < 3; r++)
            ck_assert_msg(b->code[r] == cinchInvalidUsage && strstr(b->why[r], differ[i].says),
                          "%s: rank %d: %d \"%s\"", differ[i].assignment, r, b->code[r], b->why[r]);
    }
}
END_TEST

/* The same value in another spelling is no difference. */
START_TEST(spellings_that_differ) {
    static const char *const same[] = {"CINCH_CODEC_MIN_BYTES=1024K",
                                       "CINCH_CODEC_MIN_BYTES=1048576", "CINCH_NONFINITE=PROPAGATE",
                                       "CINCH_CODEC_WARMUP=00", "CINCH_MAX_REL_ERROR=off"};
    for (int i = 0; i < 5; i++) {
        const board *b = run_wrong(same[i], wrong_on_rank_1);
        for (int r = 0; r < 3; r++)
            ck_assert_msg(b->code[r] == cinchSuccess, "%s: rank %d: %d \"%s\"", same[i], r,
                          b->code[r], b->why[r]);
    }
}
END_TEST

/* ---- names ---- */

static int lines_with(const char *text, const char *part) {
    int count = 0;
    for (const char *at = text; (at = strstr(at, part)); at++) count++;
    return count;
}

static void do_nothing(seat *me) {
    CHECK(me, me->comm != NULL);
}

START_TEST(unknown_names) {
    ranks_run(
        &(ranks_case){.nranks = 2,
                      .processes = true,
                      .body = do_nothing,
                      .env = "CINCH_TRANSPROT=shm CINCH_IB_AR_THRESHOLD=1 CINCH_MAX_REL_ERROR=0.1",
                      .logs = "CINCH_TRANSPROT is no setting: the nearest is CINCH_TRANSPORT|"
                              "CINCH_IB_AR_THRESHOLD is known, but not in this version"});
    char *text = read_log();
    ck_assert_int_eq(lines_with(text, "CINCH_TRANSPROT is no setting"), 2); /* once per process */
    ck_assert_int_eq(lines_with(text, "CINCH_IB_AR_THRESHOLD"), 2);
    free(text);
    /* NCCL's names are read where ours are not set; ours win. */
    setenv("NCCL_DEBUG", "loud", 1);
    ranks_run(&(ranks_case){
        .nranks = 2, .processes = true, .body = do_nothing, .env = "CINCH_DEBUG=warn"});
    unsetenv("NCCL_DEBUG");
}
END_TEST

/* ---- what is compressed ---- */

typedef struct rule {
    const char *env;
    cinchDataType_t dtype;
    cinchRedOp_t op; /* cinchNumOps: a PreMulSum */
    size_t count;
    int calls, compressed;
} rule;

static void count_compressed(seat *me) {
    const rule *r = me->shared;
    size_t bytes = r->count * 8;
    void *data = calloc(1, bytes);
    float one = 1;
    cinchRedOp_t op = r->op;
    cinchStats_t stats = {.size = sizeof stats};
    if (r->op == cinchNumOps)
        CHECK_OK(
            me, cinchRedOpCreatePreMulSum(&op, &one, r->dtype, cinchScalarHostImmediate, me->comm));
    for (int i = 0; i < r->calls; i++)
        CHECK_OK(me, cinchAllReduce(data, data, r->count, r->dtype, op, me->comm, NULL));
    CHECK_OK(me, cinchCommGetStats(me->comm, &stats));
    CHECK(me, stats.compressed_calls == (uint64_t)r->compressed, "%s: %d of %d calls were", r->env,
          (int)stats.compressed_calls, r->calls);
    free(data);
}

#define INT8 "CINCH_CODEC_INTRA=int8 CINCH_CODEC_MIN_BYTES=4K "
#define EVERY "CINCH_CODEC_INTRA=int8 CINCH_CODEC_MIN_BYTES=0"

START_TEST(rules_of_compression) {
    static const rule rules[] = {
        {INT8, cinchFloat, cinchSum, 1024, 2, 2},
        {INT8, cinchFloat, cinchAvg, 5000, 2, 2},
        {INT8, cinchFloat, cinchSum, 1023, 2, 0}, /* too small */
        {INT8, cinchHalf, cinchSum, 2048, 2, 2},
        {INT8, cinchHalf, cinchSum, 2047, 2, 0},
        {INT8, cinchBfloat16, cinchSum, 3000, 2, 2},
        {INT8, cinchDouble, cinchSum, 5000, 2, 0},
        {INT8, cinchInt32, cinchSum, 5000, 2, 0},
        {INT8, cinchFloat8e4m3, cinchSum, 50000, 1, 0},
        {INT8, cinchFloat, cinchMax, 5000, 2, 0},
        {INT8, cinchFloat, cinchProd, 5000, 1, 0},
        {INT8, cinchFloat, cinchNumOps, 5000, 2, 0},
        {EVERY, cinchFloat, cinchSum, 1, 2, 0}, /* trainers' barriers */
        {EVERY, cinchFloat, cinchSum, 4, 2, 0},
        {EVERY, cinchHalf, cinchAvg, 4, 2, 0},
        {EVERY, cinchFloat, cinchSum, 5, 2, 2},
        {INT8 "CINCH_CODEC_WARMUP=3", cinchFloat, cinchSum, 1024, 5, 2},
        {INT8 "CINCH_CODEC_DTYPES=half,bfloat16", cinchFloat, cinchSum, 1024, 2, 0},
        {INT8 "CINCH_CODEC_DTYPES=half,float", cinchFloat, cinchSum, 1024, 2, 2},
        {INT8 "CINCH_CODEC_DTYPES=", cinchFloat, cinchSum, 1024, 2, 0},
        {INT8 "CINCH_CODEC_OPS=", cinchFloat, cinchSum, 1024, 2, 0},
        {INT8 "CINCH_CODEC_EXCLUDE=size=4K-8K", cinchFloat, cinchSum, 2048, 2, 0},
        {INT8 "CINCH_CODEC_EXCLUDE=size=4K-8K", cinchFloat, cinchSum, 2049, 2, 2},
        {INT8 "CINCH_CODEC_EXCLUDE=size=9K-;call=1-2", cinchFloat, cinchSum, 1024, 5, 3},
        {INT8 "CINCH_CODEC_EXCLUDE=size=9K-", cinchFloat, cinchSum, 100000, 2, 0},
        {INT8 "CINCH_CODEC_EXCLUDE=comm=other", cinchFloat, cinchSum, 1024, 2, 2},
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        rule r = rules[i];
        ranks_run(&(ranks_case){
            .nranks = 2 + (int)(i % 2), .env = r.env, .body = count_compressed, .shared = &r});
    }
}
END_TEST

typedef struct named_board {
    cinchUniqueId second;
    meeting_point ready;
} named_board;

static void named(seat *me) {
    enum { COUNT = 2000 };
    static const char *const names[] = {"weights", "gradients"};
    named_board *b = me->shared;
    float *data = calloc(COUNT, sizeof *data);
    if (me->rank == 0) CHECK_OK(me, cinchGetUniqueId(&b->second));
    CHECK(me, wait_for_all(&b->ready, me->nranks));
    for (int i = 0; i < 2; i++) {
        cinchConfig_t config = CINCH_CONFIG_INITIALIZER;
        cinchStats_t stats = {.size = sizeof stats};
        config.commName = names[i];
        CHECK_OK(me, cinchCommInitRankConfig(&me->comm, me->nranks, i ? b->second : me->id,
                                             me->rank, &config));
        CHECK_OK(me, cinchAllReduce(data, data, COUNT, cinchFloat, cinchSum, me->comm, NULL));
        CHECK_OK(me, cinchCommGetStats(me->comm, &stats));
        CHECK(me, stats.compressed_calls == (uint64_t)i, "%s", names[i]);
        CHECK_OK(me, cinchCommDestroy(me->comm));
        me->comm = NULL;
    }
    free(data);
}

START_TEST(communicators_by_name) {
    named_board *b = shared_memory(sizeof *b);
    ranks_run(&(ranks_case){.nranks = 2,
                            .bare = true,
                            .env = INT8 "CINCH_CODEC_EXCLUDE=comm=weights",
                            .body = named,
                            .shared = b});
}
END_TEST

/* CINCH_CODEC alone is for what crosses hosts. */
static void odd_and_even(seat *me) {
    setenv("CINCH_HOSTID", me->rank % 2 ? "odd" : "even", 1);
}

START_TEST(levels) {
    rule r = {"", cinchFloat, cinchSum, 4096, 2, 0};
    const char *one_host = "has nothing to compress";
    ranks_run(&(ranks_case){.nranks = 2,
                            .env = "CINCH_CODEC=int8 CINCH_CODEC_MIN_BYTES=4K",
                            .body = count_compressed,
                            .shared = &r,
                            .logs = one_host});
    ranks_run(&(ranks_case){.nranks = 2,
                            .env = "CINCH_CODEC_INTER=bf16 CINCH_CODEC_MIN_BYTES=4K",
                            .body = count_compressed,
                            .shared = &r,
                            .logs = "CINCH_CODEC_INTER=bf16 has nothing to compress"});
    r.compressed = 2;
    ranks_run(&(ranks_case){.nranks = 3,
                            .processes = true,
                            .env = "CINCH_CODEC=int8 CINCH_CODEC_MIN_BYTES=4K",
                            .env_of = odd_and_even,
                            .body = count_compressed,
                            .shared = &r});
    r.compressed = 0;
    ranks_run(
        &(ranks_case){.nranks = 3,
                      .processes = true,
                      .env = "CINCH_CODEC=int8 CINCH_CODEC_INTER=none CINCH_CODEC_MIN_BYTES=4K",
                      .env_of = odd_and_even,
                      .body = count_compressed,
                      .shared = &r});
}
END_TEST

/* An algorithm that cannot serve a call is an error, never a fallback. */
static void refused_algorithm(seat *me) {
    enum { COUNT = 4096 };
    const char *part = me->shared;
    float *data = calloc(COUNT, sizeof *data);
    CHECK_FAILS(me, cinchAllReduce(data, data, COUNT, cinchFloat, cinchSum, me->comm, NULL),
                cinchInvalidUsage, NULL, part);
    CHECK(me, strstr(cinchGetLastError(NULL), "these can: "), "%s", cinchGetLastError(NULL));
    cinchResult_t state = cinchInternalError;
    CHECK_OK(me, cinchCommGetAsyncError(me->comm, &state));
    CHECK(me, state == cinchSuccess);
    free(data);
}

START_TEST(algorithms_that_cannot) {
    static const struct {
        const char *env, *part;
        int n;
    } cases[] = {
        {"CINCH_ALGO=exchange", "CINCH_ALGO=exchange cannot serve", 3},
        {"CINCH_ALGO=twostep", "it needs a codec", 2},
        {"CINCH_ALGO=oneshot CINCH_TRANSPORT=tcp", "it needs shared memory", 2},
        {"CINCH_ALGO=twoshot CINCH_TRANSPORT=tcp", "it needs shared memory", 3},
        {INT8 "CINCH_ALGO=ring", "twostep", 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ranks_run(&(ranks_case){.nranks = cases[i].n,
                                .env = cases[i].env,
                                .body = refused_algorithm,
                                .shared = (void *)(uintptr_t)cases[i].part,
                                .logs = "cannot serve"});
}
END_TEST

int main(void) {
    const TTest *const tests[] = {every_setting_has_a_wrong_value_here,
                                  a_wrong_value_on_one_rank,
                                  a_wrong_value_everywhere,
                                  settings_that_differ,
                                  spellings_that_differ,
                                  unknown_names,
                                  rules_of_compression,
                                  communicators_by_name,
                                  levels,
                                  algorithms_that_cannot};
    return run_tests("policy", tests, sizeof tests / sizeof *tests, 60);
}

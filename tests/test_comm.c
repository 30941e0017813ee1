/* SPDX-License-Identifier: Apache-2.0 */
/* Communicators and groups: what each function accepts and refuses, and that nothing stays behind.
 */
#include <unistd.h>

#include "base/log.h"
#include "tests/harness.h"
#include "tests/one_call.h"

#define FAILS(call, code, comm, part)                                                              \
    do {                                                                                           \
        cinchResult_t got_ = (call);                                                               \
        ck_assert_msg(got_ == (code), "%s gave %d, not %s", #call, got_, #code);                   \
        ck_assert_msg(strstr(cinchGetLastError(comm), part) != NULL, "%s: \"%s\" has no \"%s\"",   \
                      #call, cinchGetLastError(comm), part);                                       \
    } while (0)
#define OK(call)                                                                                   \
    do {                                                                                           \
        cinchResult_t got_ = (call);                                                               \
        ck_assert_msg(got_ == cinchSuccess, "%s gave %d: %s", #call, got_,                         \
                      cinchGetLastError(NULL));                                                    \
    } while (0)

/* For tests that need no harness: quiet, in a clean environment. */
static void quiet(void) {
    clean_environment();
    setenv("CINCH_DEBUG", "none", 1);
    cinch_log_setup(CINCH_LOG_NONE, NULL);
}

static cinchComm_t lone(void) {
    cinchComm_t comm = NULL;
    OK(cinchCommInitAll(&comm, 1, NULL));
    return comm;
}

/* ---- arguments ---- */

START_TEST(arguments_of_inits) {
    quiet();
    cinchUniqueId id;
    cinchComm_t comm = (cinchComm_t)(void *)&id, comms[2];
    cinchConfig_t config = CINCH_CONFIG_INITIALIZER, zero = {0}, older = CINCH_CONFIG_INITIALIZER;
    int version = 0;
    FAILS(cinchGetVersion(NULL), cinchInvalidArgument, NULL, "version is NULL");
    OK(cinchGetVersion(&version));
    ck_assert_int_eq(version, 22809);
    FAILS(cinchGetUniqueId(NULL), cinchInvalidArgument, NULL, "uniqueId is NULL");
    OK(cinchGetUniqueId(&id));
    FAILS(cinchCommInitRank(NULL, 1, id, 0), cinchInvalidArgument, NULL, "comm is NULL");
    FAILS(cinchCommInitRank(&comm, 1, id, 1), cinchInvalidArgument, NULL, "rank 1 of 1");
    ck_assert_ptr_null(comm);
    FAILS(cinchCommInitRank(&comm, 2, id, -1), cinchInvalidArgument, NULL, "rank -1 of 2");
    FAILS(cinchCommInitRank(&comm, 0, id, 0), cinchInvalidArgument, NULL, "rank 0 of 0");
    FAILS(cinchCommInitRank(&comm, -3, id, 0), cinchInvalidArgument, NULL, "rank 0 of -3");
    FAILS(cinchCommInitAll(NULL, 2, NULL), cinchInvalidArgument, NULL, "comms is NULL");
    FAILS(cinchCommInitAll(comms, 0, NULL), cinchInvalidArgument, NULL, "ndev 0");
    FAILS(cinchCommInitAll(comms, -1, NULL), cinchInvalidArgument, NULL, "ndev -1");
    FAILS(cinchCommInitRankConfig(&comm, 1, id, 0, &zero), cinchInvalidArgument, NULL,
          "CINCH_CONFIG_INITIALIZER");
    OK(cinchGetUniqueId(&id));
    config.blocking = 2;
    FAILS(cinchCommInitRankConfig(&comm, 1, id, 0, &config), cinchInvalidArgument, NULL,
          "config->blocking");
    OK(cinchGetUniqueId(&id)); /* that one was used to tell the others */
    config.blocking = 1;
    config.commName = "a communicator whose name is a good deal longer than sixty-four characters";
    OK(cinchCommInitRankConfig(&comm, 1, id, 0, &config));
    OK(cinchCommDestroy(comm));
    OK(cinchGetUniqueId(&id));
    OK(cinchCommInitRankConfig(&comm, 1, id, 0, NULL));
    OK(cinchCommDestroy(comm));
    older.size = offsetof(cinchConfig_t, blocking); /* what is beyond is not looked at */
    memset((char *)&older + older.size, 0x7f, sizeof older - older.size);
    OK(cinchGetUniqueId(&id));
    OK(cinchCommInitRankConfig(&comm, 1, id, 0, &older));
    OK(cinchCommDestroy(comm));
    OK(cinchGetUniqueId(&id));
    OK(cinchGroupStart());
    OK(cinchCommInitRankConfig(&comm, 1, id, 0, &older));
    OK(cinchGroupEnd());
    OK(cinchCommDestroy(comm));
    memset(&id, 7, sizeof id);
    FAILS(cinchCommInitRank(&comm, 1, id, 0), cinchInvalidArgument, NULL, "id");
}
END_TEST

START_TEST(arguments_of_calls) {
    quiet();
    cinchComm_t comm = lone();
    float a[8] = {1}, b[8] = {2};
    cinchStream_t unknown = (cinchStream_t)(void *)a;
    const cinchRedOp_t sum = cinchSum;
    FAILS(cinchAllReduce(a, b, 8, cinchFloat, sum, NULL, NULL), cinchInvalidArgument, NULL,
          "comm is NULL");
    FAILS(cinchAllReduce(NULL, b, 8, cinchFloat, sum, comm, NULL), cinchInvalidArgument, NULL,
          "sendbuff is NULL");
    FAILS(cinchAllReduce(a, NULL, 8, cinchFloat, sum, comm, NULL), cinchInvalidArgument, NULL,
          "recvbuff is NULL");
    FAILS(cinchAllReduce(a, b, 8, (cinchDataType_t)12, sum, comm, NULL), cinchInvalidArgument, NULL,
          "datatype 12");
    FAILS(cinchAllReduce(a, b, 8, (cinchDataType_t)-1, sum, comm, NULL), cinchInvalidArgument, NULL,
          "datatype -1");
    FAILS(cinchAllReduce(a, b, 8, cinchFloat, (cinchRedOp_t)5, comm, NULL), cinchInvalidArgument,
          NULL, "op 5");
    FAILS(cinchAllReduce(a, b, 8, cinchFloat, (cinchRedOp_t)-1, comm, NULL), cinchInvalidArgument,
          NULL, "op -1");
    FAILS(cinchAllReduce(a, b, 8, cinchFloat, (cinchRedOp_t)9999, comm, NULL), cinchInvalidArgument,
          NULL, "op 9999");
    FAILS(cinchAllReduce(a, a + 1, 4, cinchFloat, sum, comm, NULL), cinchInvalidArgument, NULL,
          "overlap");
    FAILS(cinchAllReduce(a + 3, a, 4, cinchFloat, sum, comm, NULL), cinchInvalidArgument, NULL,
          "overlap");
    OK(cinchAllReduce(a + 4, a, 4, cinchFloat, sum, comm, NULL));
    FAILS(cinchAllReduce(a, b, SIZE_MAX / 2, cinchFloat, sum, comm, NULL), cinchInvalidArgument,
          NULL, "count");
    FAILS(cinchAllReduce(a, b, 8, cinchFloat, sum, comm, unknown), cinchInvalidArgument, NULL,
          "stream");
    OK(cinchAllReduce(NULL, NULL, 0, cinchFloat, sum, comm, NULL));
    cinchResult_t state = cinchInternalError;
    OK(cinchCommGetAsyncError(comm, &state)); /* none of this hurts the communicator */
    ck_assert_int_eq(state, cinchSuccess);
    OK(cinchAllReduce(a, b, 8, cinchFloat, sum, comm, NULL));
    ck_assert(memcmp(a, b, sizeof a) == 0);
    OK(cinchCommDestroy(comm));
}
END_TEST

START_TEST(arguments_of_operators) {
    quiet();
    cinchComm_t comm = lone();
    float scalar = 3, a[4] = {1, 2, 3, 4}, b[4];
    cinchRedOp_t op, ops[64];
    const cinchScalarResidence_t host = cinchScalarHostImmediate;
    FAILS(cinchRedOpCreatePreMulSum(NULL, &scalar, cinchFloat, host, comm), cinchInvalidArgument,
          NULL, "op is NULL");
    FAILS(cinchRedOpCreatePreMulSum(&op, NULL, cinchFloat, host, comm), cinchInvalidArgument, NULL,
          "scalar is NULL");
    FAILS(cinchRedOpCreatePreMulSum(&op, &scalar, (cinchDataType_t)99, host, comm),
          cinchInvalidArgument, NULL, "datatype");
    FAILS(cinchRedOpCreatePreMulSum(&op, &scalar, cinchFloat, (cinchScalarResidence_t)7, comm),
          cinchInvalidArgument, NULL, "residence 7");
    FAILS(cinchRedOpCreatePreMulSum(&op, &scalar, cinchFloat, host, NULL), cinchInvalidArgument,
          NULL, "comm is NULL");
    OK(cinchRedOpCreatePreMulSum(&op, &scalar, cinchFloat, host, comm));
    FAILS(cinchAllReduce(a, b, 4, cinchHalf, op, comm, NULL), cinchInvalidArgument, NULL,
          "was made for float");
    OK(cinchAllReduce(a, b, 4, cinchFloat, op, comm, NULL));
    for (int i = 0; i < 4; i++) ck_assert_float_eq(b[i], 3 * a[i]);
    OK(cinchRedOpDestroy(op, comm));
    FAILS(cinchAllReduce(a, b, 4, cinchFloat, op, comm, NULL), cinchInvalidArgument, NULL, "op 5");
    FAILS(cinchRedOpDestroy(op, comm), cinchInvalidArgument, NULL, "op 5");
    FAILS(cinchRedOpDestroy(cinchSum, comm), cinchInvalidArgument, NULL, "op 0");
    for (int i = 0; i < 64; i++)
        OK(cinchRedOpCreatePreMulSum(&ops[i], &scalar, cinchFloat, host, comm));
    FAILS(cinchRedOpCreatePreMulSum(&op, &scalar, cinchFloat, host, comm), cinchInvalidUsage, NULL,
          "at most 64");
    OK(cinchCommDestroy(comm));
}
END_TEST

START_TEST(arguments_of_the_rest) {
    quiet();
    cinchComm_t comm = lone();
    cinchStats_t stats = {0};
    size_t len = 0;
    char text[8], state[64];
    int value = -1;
    void *p = NULL;
    FAILS(cinchCommCount(comm, NULL), cinchInvalidArgument, NULL, "count is NULL");
    FAILS(cinchCommCount(NULL, &value), cinchInvalidArgument, NULL, "comm is NULL");
    FAILS(cinchCommUserRank(comm, NULL), cinchInvalidArgument, NULL, "rank is NULL");
    FAILS(cinchCommGetAsyncError(comm, NULL), cinchInvalidArgument, NULL, "asyncError is NULL");
    FAILS(cinchCommGetStats(comm, NULL), cinchInvalidArgument, NULL, "stats is NULL");
    FAILS(cinchCommGetStats(comm, &stats), cinchInvalidArgument, NULL, "size");
    FAILS(cinchCommDescribePlan(comm, "scan", 4, cinchFloat, NULL, &len), cinchInvalidArgument,
          NULL, "an operation of");
    FAILS(cinchCommDescribePlan(comm, NULL, 4, cinchFloat, NULL, &len), cinchInvalidArgument, NULL,
          "an operation of");
    FAILS(cinchCommDescribePlan(comm, "allreduce", 4, cinchFloat, NULL, NULL), cinchInvalidArgument,
          NULL, "length");
    len = sizeof text;
    FAILS(cinchCommDescribePlan(comm, "allreduce", 4, cinchFloat, text, &len), cinchInvalidArgument,
          NULL, "needs");
    FAILS(cinchCommTag(comm, NULL, 4, 1), cinchInvalidArgument, NULL, "ptr is NULL");
    FAILS(cinchCommExportState(comm, state, NULL), cinchInvalidArgument, NULL, "len is NULL");
    len = 3;
    FAILS(cinchCommExportState(comm, state, &len), cinchInvalidArgument, NULL, "needs");
    FAILS(cinchCommImportState(comm, NULL, 9), cinchInvalidArgument, NULL, "buf is NULL");
    FAILS(cinchCommImportState(comm, "no state", 9), cinchInvalidArgument, NULL,
          "no exported state");
    FAILS(cinchCommSetCodec(comm, "int9"), cinchInvalidUsage, NULL, "int9");
    FAILS(cinchHostAlloc(NULL, 4), cinchInvalidArgument, NULL, "ptr is NULL");
    FAILS(cinchMemAlloc(NULL, 4), cinchInvalidArgument, NULL, "ptr is NULL");
    FAILS(cinchHostFree(text), cinchInvalidArgument, NULL, "was not allocated");
    OK(cinchHostAlloc(&p, 0));
    ck_assert_ptr_null(p);
    OK(cinchHostFree(NULL));
    OK(cinchMemAlloc(&p, 5000));
    for (int i = 0; i < 5000; i++) ck_assert_int_eq(((char *)p)[i], 0);
    FAILS(cinchMemFree((char *)p + 1), cinchInvalidArgument, NULL, "was not allocated");
    OK(cinchMemFree(p));
    FAILS(cinchMemFree(p), cinchInvalidArgument, NULL, "was not allocated");
    FAILS(cinchCommFinalize(NULL), cinchInvalidArgument, NULL, "comm is NULL");
    FAILS(cinchCommDestroy(NULL), cinchInvalidArgument, NULL, "comm is NULL");
    FAILS(cinchCommAbort(NULL), cinchInvalidArgument, NULL, "comm is NULL");
    FAILS(cinchStreamCreate(NULL), cinchInvalidArgument, NULL, "stream is NULL");
    OK(cinchCommDestroy(comm));
}
END_TEST

START_TEST(error_strings) {
    for (int i = -1; i <= cinchNumResults; i++) {
        const char *text = cinchGetErrorString((cinchResult_t)i);
        ck_assert(text && text[0]);
        for (int j = 0; j < i && i < cinchNumResults; j++)
            ck_assert_str_ne(text, cinchGetErrorString((cinchResult_t)j));
    }
    ck_assert_ptr_nonnull(cinchGetLastError(NULL));
}
END_TEST

/* Fields beyond the caller's size stay as they are. */
START_TEST(stats_of_an_older_caller) {
    quiet();
    cinchComm_t comm = lone();
    float a[2] = {1, 2};
    cinchStats_t stats;
    OK(cinchAllReduce(a, a, 2, cinchFloat, cinchSum, comm, NULL));
    memset(&stats, 0x5a, sizeof stats);
    stats.size = offsetof(cinchStats_t, bytes);
    OK(cinchCommGetStats(comm, &stats));
    ck_assert_uint_eq(stats.calls, 1);
    ck_assert_uint_eq(stats.bytes, 0x5a5a5a5a5a5a5a5au);
    ck_assert_uint_eq(stats.size, offsetof(cinchStats_t, bytes));
    stats.size = sizeof stats;
    OK(cinchCommGetStats(comm, &stats));
    ck_assert_uint_eq(stats.bytes, 8);
    OK(cinchCommDestroy(comm));
}
END_TEST

/* ---- life ---- */

static void counts_and_ranks(seat *me) {
    int value = -1;
    CHECK_OK(me, cinchCommCount(me->comm, &value));
    CHECK(me, value == me->nranks);
    CHECK_OK(me, cinchCommUserRank(me->comm, &value));
    CHECK(me, value == me->rank);
    one_call c = {.dtype = cinchInt32, .op = cinchSum, .count = 99, .seed = 1};
    if (!one_call_run(me, &c)) return;
    CHECK_OK(me, cinchCommFinalize(me->comm));
    CHECK_OK(me, cinchCommFinalize(me->comm));
    int a = 1;
    CHECK_FAILS(me, cinchAllReduce(&a, &a, 1, cinchInt, cinchSum, me->comm, NULL),
                cinchInvalidUsage, NULL, "cinchCommFinalize");
}

START_TEST(finalize_then_destroy) {
    for (int n = 1; n <= 3; n++)
        ranks_run(
            &(ranks_case){.nranks = n, .body = counts_and_ranks, .logs = "cinchCommFinalize"});
}
END_TEST

START_TEST(nothing_stays_behind) {
    char why[200];
    quiet();
    holdings before = {0};
    for (int i = 0; i < 200; i++) {
        cinchComm_t comms[2];
        float a = 1, b = 2;
        if (i == 20) before = hold_now(); /* the allocator has its pools by now */
        OK(cinchCommInitAll(comms, 2, NULL));
        OK(cinchGroupStart());
        OK(cinchAllReduce(&a, &a, 1, cinchFloat, cinchSum, comms[0], NULL));
        OK(cinchAllReduce(&b, &b, 1, cinchFloat, cinchSum, comms[1], NULL));
        OK(cinchGroupEnd());
        ck_assert_float_eq(a, 3);
        ck_assert_float_eq(b, 3);
        OK(cinchCommDestroy(comms[i & 1]));
        OK(cinchCommDestroy(comms[!(i & 1)]));
    }
    before.maps += 4; /* arenas of threads */
    ck_assert_msg(holdings_settle(&before, true, why, sizeof why), "%s", why);
}
END_TEST

static void several_by_comm_id(seat *me) {
    cinchComm_t comms[3];
    for (int i = 0; i < 3; i++) {
        cinchUniqueId id;
        CHECK_OK(me, cinchGetUniqueId(&id));
        CHECK_OK(me, cinchCommInitRank(&comms[i], me->nranks, id, me->rank));
    }
    for (int i = 2; i >= 0; i--) {
        int value = 1 + i;
        CHECK_OK(me, cinchAllReduce(&value, &value, 1, cinchInt, cinchSum, comms[i], NULL));
        CHECK(me, value == (1 + i) * me->nranks);
    }
    for (int i = 0; i < 3; i++) CHECK_OK(me, cinchCommDestroy(comms[i]));
}

START_TEST(comm_id_gives_several) {
    char env[200], path[100];
    snprintf(path, sizeof path, "/tmp/cinch-test-comm-id-%d", (int)getpid());
    snprintf(env, sizeof env, "CINCH_COMM_ID=file:%s CINCH_INIT_TIMEOUT_MS=20000", path);
    ranks_run(&(ranks_case){.nranks = 3,
                            .processes = true,
                            .bare = true,
                            .no_id = true,
                            .env = env,
                            .body = several_by_comm_id});
    for (int i = 0; i < 3; i++) {
        char one[120];
        snprintf(one, sizeof one, i ? "%s.%d" : "%s", path, i);
        ck_assert_msg(access(one, F_OK) != 0, "%s was left behind", one);
    }
    snprintf(env, sizeof env, "CINCH_COMM_ID=127.0.0.1:%d CINCH_INIT_TIMEOUT_MS=20000",
             20000 + (int)getpid() % 10000);
    ranks_run(&(ranks_case){.nranks = 3,
                            .processes = true,
                            .bare = true,
                            .no_id = true,
                            .env = env,
                            .body = several_by_comm_id});
}
END_TEST

/* ---- what a communicator tells ---- */

static void describes(seat *me) {
    char json[512], want[64];
    static const size_t sizes[] = {0, 4, 4096, 1 << 20, (size_t)1 << 30};
    for (int i = 0; i < 5; i++)
        for (int codec = 0; codec < 2; codec++) {
            size_t need = 0, room;
            CHECK_OK(me, cinchCommSetCodec(me->comm, codec ? "int8" : "none"));
            CHECK_OK(me, cinchCommDescribePlan(me->comm, "allreduce", sizes[i], cinchFloat, NULL,
                                               &need));
            room = need;
            CHECK_OK(me, cinchCommDescribePlan(me->comm, "allreduce", sizes[i], cinchFloat, json,
                                               &room));
            CHECK(me, room == need && strlen(json) + 1 == need, "%zu %zu %s", room, need, json);
            CHECK(me, json[0] == '{' && json[need - 2] == '}', "%s", json);
            snprintf(want, sizeof want, "\"bytes\":%zu,\"dtype\":\"float\"", sizes[i]);
            CHECK(me, strstr(json, want), "%s", json);
            bool encoded = codec && me->nranks > 1 && sizes[i] >= 1 << 20;
            CHECK(me, strstr(json, encoded ? "\"codec\":\"int8\"" : "\"codec\":\"none\""), "%s",
                  json);
            bool shm = me->nranks > 1;
            CHECK(me, strstr(json, shm ? "\"transport\":\"shm\"" : "\"transport\":\"none\""), "%s",
                  json);
            if (me->nranks == 3 && encoded)
                CHECK(me, strstr(json, "\"algo\":\"twostep\""), "%s", json);
        }
}

START_TEST(plans_are_described) {
    for (int n = 1; n <= 3; n++) ranks_run(&(ranks_case){.nranks = n, .body = describes});
}
END_TEST

static void named_calls(seat *me) {
    cinchConfig_t config = CINCH_CONFIG_INITIALIZER;
    int data[100] = {0};
    config.commName = "a \"quoted\"\tname";
    CHECK_OK(me, cinchCommInitRankConfig(&me->comm, me->nranks, me->id, me->rank, &config));
    for (int i = 0; i < 3; i++)
        CHECK_OK(me, cinchAllReduce(data, data, 100, cinchInt, cinchSum, me->comm, NULL));
}

START_TEST(a_line_of_statistics_each) {
    char path[100], env[150], line[1000];
    int lines = 0;
    snprintf(path, sizeof path, "/tmp/cinch-test-stats-%d", (int)getpid());
    snprintf(env, sizeof env, "CINCH_STATS_FILE=%s", path);
    ranks_run(&(ranks_case){.nranks = 3, .env = env, .bare = true, .body = named_calls});
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof line, file)) {
        lines++;
        ck_assert_msg(strstr(line, "{\"comm\":\"a \\\"quoted\\\"?name\",\"rank\":") == line, "%s",
                      line);
        ck_assert_msg(strstr(line, "\"ranks\":3,\"calls\":3,\"bytes\":1200,") != NULL, "%s", line);
        ck_assert_msg(line[strlen(line) - 2] == '}', "%s", line);
    }
    fclose(file);
    unlink(path);
    ck_assert_int_eq(lines, 3);
}
END_TEST

/* ---- groups ---- */

static void nested_groups(seat *me) {
    enum { MANY = 9 };
    int in[MANY], out[MANY];
    CHECK_OK(me, cinchGroupStart());
    for (int i = 0; i < MANY; i++) {
        in[i] = i * 10 + me->rank;
        out[i] = -1;
        if (i == 3) CHECK_OK(me, cinchGroupStart());
        CHECK_OK(me, cinchAllReduce(&in[i], &out[i], 1, cinchInt, i % 2 ? cinchMax : cinchSum,
                                    me->comm, NULL));
        if (i == 6) CHECK_OK(me, cinchGroupEnd());
    }
    for (int i = 0; i < MANY; i++) CHECK(me, out[i] == -1, "it ran before the end");
    CHECK_OK(me, cinchGroupEnd());
    int n = me->nranks;
    for (int i = 0; i < MANY; i++)
        CHECK(me, out[i] == (i % 2 ? i * 10 + n - 1 : i * 10 * n + n * (n - 1) / 2), "call %d", i);
    CHECK_FAILS(me, cinchGroupEnd(), cinchInvalidUsage, NULL, "without a cinchGroupStart");
    CHECK_OK(me, cinchGroupStart()); /* an empty one */
    CHECK_OK(me, cinchGroupEnd());
    /* A refused call is told at once and again at the end, and nothing of its group runs. */
    in[0] = 5;
    out[0] = -1;
    CHECK_OK(me, cinchGroupStart());
    CHECK_FAILS(me, cinchAllReduce(NULL, out, 1, cinchInt, cinchSum, me->comm, NULL),
                cinchInvalidArgument, NULL, "sendbuff is NULL");
    CHECK_OK(me, cinchAllReduce(in, out, 1, cinchInt, cinchSum, me->comm, NULL));
    CHECK_FAILS(me, cinchGroupEnd(), cinchInvalidArgument, NULL, "sendbuff is NULL");
    CHECK(me, out[0] == -1);
    CHECK_OK(me, cinchAllReduce(in, out, 1, cinchInt, cinchSum, me->comm, NULL));
    CHECK(me, out[0] == 5 * n);
}

START_TEST(groups_nest) {
    for (int n = 1; n <= 3; n++)
        ranks_run(&(ranks_case){.nranks = n,
                                .body = nested_groups,
                                .logs = "without a cinchGroupStart|sendbuff is NULL"});
}
END_TEST

/* What waits for queued calls cannot be called before they are launched: it is refused, and the
 * group goes on. */
static void questions_in_a_group(seat *me) {
    int value = 1;
    cinchStats_t stats = {.size = sizeof stats};
    size_t len = 0;
    CHECK_OK(me, cinchGroupStart());
    CHECK_OK(me, cinchAllReduce(&value, &value, 1, cinchInt, cinchSum, me->comm, NULL));
    static const char part[] = "a group that has not ended";
    CHECK_FAILS(me, cinchCommGetStats(me->comm, &stats), cinchInvalidUsage, NULL, part);
    CHECK_FAILS(me, cinchCommExportState(me->comm, NULL, &len), cinchInvalidUsage, NULL, part);
    CHECK_FAILS(me, cinchCommSetCodec(me->comm, "int8"), cinchInvalidUsage, NULL, part);
    CHECK_FAILS(me, cinchCommTag(me->comm, &value, 4, 1), cinchInvalidUsage, NULL, part);
    CHECK_FAILS(me, cinchCommScaleState(me->comm, 2), cinchInvalidUsage, NULL, part);
    CHECK_FAILS(me, cinchCommFinalize(me->comm), cinchInvalidUsage, NULL, part);
    CHECK_FAILS(me, cinchCommDestroy(me->comm), cinchInvalidUsage, NULL, part);
    CHECK_OK(me, cinchGroupEnd());
    CHECK(me, value == me->nranks);
    CHECK_OK(me, cinchCommGetStats(me->comm, &stats));
    CHECK(me, stats.calls == 1);
}

START_TEST(questions_wait_for_the_end_of_the_group) {
    ranks_run(&(ranks_case){
        .nranks = 2, .body = questions_in_a_group, .logs = "a group that has not ended"});
}
END_TEST

START_TEST(one_thread_drives_all_ranks) {
    quiet();
    for (int n = 1; n <= 8; n += n < 3 ? 1 : 5) {
        cinchComm_t comms[8];
        int counts[] = {1, 1000, 70000};
        OK(cinchCommInitAll(comms, n, NULL));
        for (int k = 0; k < 3; k++) {
            int *data = malloc((size_t)(n * counts[k]) * sizeof *data);
            for (int r = 0; r < n; r++)
                for (int i = 0; i < counts[k]; i++) data[r * counts[k] + i] = r + i;
            OK(cinchGroupStart());
            for (int r = 0; r < n; r++)
                OK(cinchAllReduce(data + r * counts[k], data + r * counts[k], (size_t)counts[k],
                                  cinchInt, cinchSum, comms[r], NULL));
            OK(cinchGroupEnd());
            for (int r = 0; r < n; r++)
                for (int i = 0; i < counts[k]; i++)
                    if (data[r * counts[k] + i] != n * i + n * (n - 1) / 2)
                        ck_abort_msg("n=%d count %d rank %d at %d", n, counts[k], r, i);
            free(data);
        }
        for (int r = 0; r < n; r++) OK(cinchCommDestroy(comms[r]));
    }
}
END_TEST

START_TEST(inits_in_a_group) {
    quiet();
    cinchUniqueId id;
    cinchComm_t comms[3], other = NULL;
    int value = 1;
    cinchConfig_t config = CINCH_CONFIG_INITIALIZER;
    char name[] = "copied";
    config.commName = name;
    OK(cinchGetUniqueId(&id));
    OK(cinchGroupStart());
    for (int r = 0; r < 3; r++) OK(cinchCommInitRankConfig(&comms[r], 3, id, r, &config));
    for (int r = 0; r < 3; r++) ck_assert_ptr_null(comms[r]);
    memset(name, 'x', sizeof name - 1);
    OK(cinchGroupEnd());
    for (int r = 0; r < 3; r++) ck_assert_ptr_nonnull(comms[r]);

    OK(cinchGroupStart());
    OK(cinchCommInitRank(&other, 1, id, 0));
    FAILS(cinchAllReduce(&value, &value, 1, cinchInt, cinchSum, comms[0], NULL), cinchInvalidUsage,
          NULL, "not both");
    memset(&id, 0, sizeof id);
    cinchGroupEnd(); /* the id was used: what comes of it is not the question */
    if (other) OK(cinchCommDestroy(other));

    OK(cinchGetUniqueId(&id));
    OK(cinchGroupStart());
    for (int r = 0; r < 3; r++)
        OK(cinchAllReduce(&value, &value, 1, cinchInt, cinchMax, comms[r], NULL));
    FAILS(cinchCommInitRank(&other, 1, id, 0), cinchInvalidUsage, NULL, "not both");
    FAILS(cinchGroupEnd(), cinchInvalidUsage, NULL, "not both");
    OK(cinchCommInitRank(&other, 1, id, 0));
    OK(cinchCommDestroy(other));
    for (int r = 0; r < 3; r++) OK(cinchCommDestroy(comms[r]));

    memset(&config, 0x7f, sizeof config); /* never begun: nothing in it is looked at */
    OK(cinchGetUniqueId(&id));
    OK(cinchGroupStart());
    OK(cinchCommInitRankConfig(&other, 1, id, 0, &config));
    FAILS(cinchGroupEnd(), cinchInvalidArgument, NULL, "CINCH_CONFIG_INITIALIZER");

    OK(cinchGetUniqueId(&id)); /* one bad rank: refused at once, and again at the end */
    OK(cinchGroupStart());
    FAILS(cinchCommInitRank(&comms[0], 2, id, 2), cinchInvalidArgument, NULL, "rank 2 of 2");
    OK(cinchCommInitRank(&comms[0], 1, id, 0));
    FAILS(cinchGroupEnd(), cinchInvalidArgument, NULL, "rank 2 of 2");
    OK(cinchCommInitRank(&comms[0], 1, id, 0));
    OK(cinchCommDestroy(comms[0]));
}
END_TEST

int main(void) {
    const TTest *const tests[] = {arguments_of_inits,
                                  arguments_of_calls,
                                  arguments_of_operators,
                                  arguments_of_the_rest,
                                  error_strings,
                                  stats_of_an_older_caller,
                                  finalize_then_destroy,
                                  nothing_stays_behind,
                                  comm_id_gives_several,
                                  plans_are_described,
                                  a_line_of_statistics_each,
                                  groups_nest,
                                  questions_wait_for_the_end_of_the_group,
                                  one_thread_drives_all_ranks,
                                  inits_in_a_group};
    return run_tests("comm", tests, sizeof tests / sizeof *tests, 30);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of measured tables in force share: tables made up for this machine, ranks on hosts
 * told apart by CINCH_HOSTID, and what a communicator says it would do. */
#ifndef CINCH_TESTS_TABLES_H_
#define CINCH_TESTS_TABLES_H_

#include <sys/mman.h>
#include <unistd.h>

#include "coll/engine.h"
#include "coll/planfile.h"
#include "tests/family.h"

/* What all ranks of a case share. */
typedef struct board {
    int hosts;
    bool apart;               /* each host is a site */
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

static inline void path_of(char path[96], const char *name) {
    snprintf(path, 96, "%s/%s", folder, name);
}

static inline void place(seat *me) {
    const board *shared = me->shared;
    char name[16];
    snprintf(name, sizeof name, "h%d", me->rank % (shared->hosts ? shared->hosts : 1));
    setenv("CINCH_HOSTID", name, 1);
    if (shared->apart) setenv("CINCH_SITEID", name, 1);
    if (shared->own[me->rank][0]) setenv("CINCH_PLAN_FILE", shared->own[me->rank], 1);
}

static inline void run_logs(int nranks, const char *env, void (*body)(seat *me), const char *logs) {
    ranks_run(&(ranks_case){.nranks = nranks,
                            .processes = true,
                            .may_fail = true,
                            .env = env,
                            .env_of = place,
                            .body = body,
                            .shared = b,
                            .logs = logs});
}

static inline void run(int nranks, const char *env, void (*body)(seat *me)) {
    run_logs(nranks, env, body, NULL);
}

static inline void give(int nranks, const char *path) {
    for (int r = 0; r < MOST_RANKS; r++)
        snprintf(b->own[r], sizeof b->own[r], "%s", r < nranks ? path : "");
}

/* ---- made-up tables ---- */

static inline void do_nothing(seat *me) {
    CHECK_OK(me, me->init);
}

/* An empty table for so many ranks on so many hosts of this machine. */
static inline cinch_tuned table_of(int nranks, int hosts) {
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
static inline void add(cinch_tuned *t, cinch_collective collective, const char *algo,
                       const char *codec, const double us[4]) {
    cinch_curve *c;
    ck_assert_int_eq(cinch_tuned_curve(t, collective, algo, codec, &c), cinchSuccess);
    c->points = 4;
    for (int i = 0; i < 4; i++) {
        c->point[i].bytes = (uint64_t)1024 << 5 * i;
        c->point[i].us = us[i];
    }
}

static inline void write_table(cinch_tuned *t, char path[96], const char *name) {
    path_of(path, name);
    ck_assert_msg(cinch_planfile_write(t, path) == cinchSuccess, "%s", cinch_last_error());
}

/* "KEY":VALUE of a plan, up to the comma. */
static inline const char *value_of(const char *json, const char *key) {
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

static inline const char *describe(seat *me, cinchComm_t comm, const char *op, size_t bytes,
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

/* Runs them with a folder of their own; EXIT_SUCCESS or EXIT_FAILURE. */
static inline int run_table_tests(const char *name, const TTest *const *tests, size_t count) {
    char line[64];
    b = mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (b == MAP_FAILED || !mkdtemp(folder)) return EXIT_FAILURE;
    int status = run_tests(name, tests, count, 60);
    snprintf(line, sizeof line, "rm -r %s", folder);
    return system(line) == 0 ? status : EXIT_FAILURE;
}

#endif

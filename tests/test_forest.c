/* SPDX-License-Identifier: Apache-2.0 */
/* Plans as schedules: right by the verifier on random machines, of the bandwidth that they promise,
 * and run over links. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "coll/algo.h"
#include "coll/atlas.h"
#include "coll/forest.h"
#include "coll/verify.h"
#include "tests/harness.h"
#include "tests/one_call.h"

enum { OPS = CINCH_PLAN_REDUCE + 1, MOST = 24, MACHINES = 60 };
#ifdef CINCH_SANITIZED
enum { NEXT_MACHINE = 5 };
#else
enum { NEXT_MACHINE = 1 };
#endif

static cinch_schedule schedule[MOST];

/* ---- machines ---- */

static uint64_t state;

static int below(int n) {
    return (int)(random64(&state) % (uint64_t)n);
}

static int add_node(cinch_graph *graph, cinch_node_kind kind, int number) {
    char name[16];
    int index = -1;
    snprintf(name, sizeof name, "%c%d", kind == CINCH_NODE_GPU ? 'g' : 's', number);
    ck_assert_int_eq(cinch_graph_add_node(graph, name, kind, CINCH_PART_OTHER, 0, &index),
                     cinchSuccess);
    return index;
}

/* GPUs and switches, all joined, and as many links again between any two. */
static void make_random(cinch_graph *graph, int gpus) {
    static const double widths[] = {1, 3.125, 10, 12.5, 25, 48.3, 100};
    int nodes = gpus + below(4);
    for (int i = 0; i < nodes; i++)
        add_node(graph, i < gpus ? CINCH_NODE_GPU : CINCH_NODE_SWITCH, i);
    for (int i = 1; i < 2 * nodes; i++) {
        int a = i < nodes ? i : below(nodes), b = i < nodes ? below(i) : below(nodes);
        double gbps = widths[below(7)], back = below(3) ? gbps : widths[below(7)];
        if (a == b) continue;
        ck_assert_int_eq(cinch_graph_add_link(graph, a, b, gbps, back, CINCH_LINK_OTHER),
                         cinchSuccess);
    }
}

/* ---- schedules ---- */

static void verify(const cinch_forest *f, int root, bool in_place) {
    char why[CINCH_ERROR_TEXT];
    const cinch_algo *algo = cinch_algo_find(f->collective, "forest");
    cinch_call call = {.collective = f->collective,
                       .nranks = f->ranks,
                       .root = root < 0 ? 0 : root,
                       .bytes = 1 << 20,
                       .forest = f};
    ck_assert_ptr_null(algo->supports(&call));
    for (int r = 0; r < f->ranks; r++)
        ck_assert_int_eq(cinch_algo_build(algo, r, &call, &schedule[r]), cinchSuccess);
    bool right = cinch_verify(schedule, f->ranks, in_place, why);
    ck_assert_msg(right, "%s, %d ranks, %d trees, %d parts%s: %s",
                  cinch_shape_of(f->collective)->name, f->ranks, f->trees, f->parts,
                  in_place ? ", in place" : "", why);
    for (int r = 0; r < f->ranks; r++) cinch_schedule_free(&schedule[r]);
}

/* Every part of a message, or of each block, belongs to one tree. */
static void assert_parted(const cinch_forest *f) {
    bool blocks = f->collective == CINCH_ALLGATHER || f->collective == CINCH_REDUCESCATTER;
    for (int root = 0; root < (blocks ? f->ranks : 1); root++) {
        int owners[1024] = {0};
        for (int t = 0; t < f->trees; t++)
            for (int i = 0; i < f->tree[t].parts; i++)
                if (!blocks || f->tree[t].root == root) owners[f->tree[t].first + i]++;
        for (int i = 0; i < f->parts; i++) ck_assert_int_eq(owners[i], 1);
    }
}

static void check_machine(int gpus, cinch_plan_kind kind) {
    cinch_graph graph = {0};
    make_random(&graph, gpus);
    for (int op = 0; op < OPS; op++) {
        if (kind != CINCH_PLAN_FOREST && op != CINCH_PLAN_ALLREDUCE) continue;
        bool rooted = op == CINCH_PLAN_BROADCAST || op == CINCH_PLAN_REDUCE;
        int root = rooted ? below(gpus) : -1;
        cinch_plan plan;
        cinch_forest forest;
        cinch_plan_options options = {.kind = kind};
        if (cinch_plan_make(&graph, (cinch_plan_op)op, root, &options, &plan) != cinchSuccess) {
            ck_assert_int_ne(kind, CINCH_PLAN_FOREST);
            continue;
        }
        ck_assert_int_eq(cinch_forest_make(&graph, &plan, &forest), cinchSuccess);
        ck_assert(kind != CINCH_PLAN_FOREST || forest.algbw <= plan.bound * (1 + 1e-6));
        ck_assert_msg(forest.algbw > 0.97 * plan.algbw, "%s: %g of %g GB/s with %d parts",
                      cinch_plan_op_name(plan.op), forest.algbw, plan.algbw, forest.parts);
        assert_parted(&forest);
        verify(&forest, root, false);
        verify(&forest, root, true);
        cinch_forest_free(&forest);
        cinch_plan_free(&plan);
    }
    cinch_graph_free(&graph);
}

START_TEST(every_plan_is_right) {
    for (int i = 0; i < MACHINES; i += NEXT_MACHINE) {
        state = 3 + (uint64_t)i;
        check_machine(2 + (i < 50 ? i % 8 : 8 + below(MOST - 9)), CINCH_PLAN_FOREST);
        check_machine(2 + i % 8, CINCH_PLAN_DOUBLE_TREE);
    }
}
END_TEST

START_TEST(rings_are_refused) {
    cinch_graph graph = {0};
    cinch_plan plan;
    cinch_forest forest;
    cinch_plan_options options = {.kind = CINCH_PLAN_RING};
    for (int i = 0; i < 3; i++) add_node(&graph, i ? CINCH_NODE_GPU : CINCH_NODE_SWITCH, i);
    for (int i = 1; i < 3; i++)
        ck_assert_int_eq(cinch_graph_add_link(&graph, 0, i, 1, 1, CINCH_LINK_OTHER), cinchSuccess);
    ck_assert_int_eq(cinch_plan_make(&graph, CINCH_PLAN_ALLREDUCE, -1, &options, &plan),
                     cinchSuccess);
    ck_assert_int_eq(cinch_forest_make(&graph, &plan, &forest), cinchInvalidArgument);
    ck_assert_ptr_nonnull(strstr(cinch_last_error(), "ring"));
    cinch_plan_free(&plan);
    cinch_graph_free(&graph);
}
END_TEST

/* ---- running ---- */

typedef struct job {
    int hosts; /* rank r is on host r % hosts */
    char file[64];
    const char *say; /* what every rank hears; NULL: it works */
    int trees;
} job;

static void host_of(seat *me) {
    const job *j = me->shared;
    char name[16];
    snprintf(name, sizeof name, "h%d", me->rank % j->hosts);
    if (j->hosts > 1) setenv("CINCH_HOSTID", name, 1);
    if (j->file[0]) setenv("CINCH_TOPO_FILE", j->file, 1);
}

static job *board(job j) {
    static job *shared;
    if (!shared) shared = shared_memory(sizeof *shared);
    *shared = j;
    return shared;
}

/* A file of a machine that is made here. */
static void write_file(job *j, const char *text) {
    const char *dir = getenv("TMPDIR");
    snprintf(j->file, sizeof j->file, "%.30s/cinch-forest-%d.graph", dir ? dir : "/tmp",
             (int)getpid());
    FILE *f = fopen(j->file, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_ge(fputs(text, f), 0);
    ck_assert_int_eq(fclose(f), 0);
}

static const char uneven_star[] = "gpu a\ngpu b\ngpu c\ngpu d\nswitch s\nlink a s 10\n"
                                  "link b s 10 4\nlink c s 2.5\nlink d s 5\n";

static void every_collective(seat *me) {
    static const cinch_collective served[] = {CINCH_ALLREDUCE, CINCH_REDUCESCATTER, CINCH_ALLGATHER,
                                              CINCH_BROADCAST, CINCH_REDUCE};
    uint64_t dice_state = 11;
    for (int i = 0; i < 60; i++) {
        uint64_t dice = random64(&dice_state);
        one_call c = {.collective = served[i % 5],
                      .root = (int)(dice & 255) % me->nranks,
                      .dtype = (cinchDataType_t)((dice >> 8) % cinchNumTypes),
                      .op = (int)((dice >> 16) % EXACT_OPS),
                      .count = 1 + (dice >> 24) % (i % 4 ? 3000 : 200000),
                      .seed = dice,
                      .in_place = dice >> 40 & 1};
        if (!one_call_run(me, &c)) return;
    }
    char json[512];
    size_t len = sizeof json;
    CHECK_OK(me, cinchCommDescribePlan(me->comm, "allreduce", 1 << 20, cinchFloat, json, &len));
    CHECK(me, strstr(json, "\"algo\":\"forest\""), "%s", json);
}

static void run(job *j, int nranks, const char *env, void (*body)(seat *me)) {
    ranks_run(&(ranks_case){.nranks = nranks,
                            .processes = true,
                            .env = env,
                            .env_of = host_of,
                            .body = body,
                            .shared = j});
}

START_TEST(runs_on_what_is_detected) {
    run(board((job){.hosts = 1}), 2, "CINCH_ALGO=forest", every_collective);
    run(board((job){.hosts = 1}), 5, "CINCH_ALGO=forest CINCH_TRANSPORT=tcp", every_collective);
    run(board((job){.hosts = 2}), 4, "CINCH_ALGO=forest CINCH_CHUNK=1K", every_collective);
}
END_TEST

START_TEST(runs_on_a_file) {
    job *j = board((job){.hosts = 1});
    write_file(j, uneven_star);
    run(j, 4, "CINCH_ALGO=forest", every_collective);
    run(j, 4, "CINCH_ALGO=forest CINCH_TRANSPORT=tcp CINCH_CHECKSUM=1", every_collective);
    j->hosts = 2; /* a GPU of the file for each rank of a host would do, but this is the job's */
    run(j, 4, "CINCH_ALGO=forest", every_collective);
    run(j, 8, "CINCH_ALGO=forest", every_collective); /* and this each host's */
    unlink(j->file);
}
END_TEST

static void is_refused(seat *me) {
    const job *j = me->shared;
    CHECK(me, me->init != cinchSuccess);
    CHECK(me, strstr(me->why, j->say), "%s", me->why);
}

static void refused(job *j, int nranks) {
    ranks_run(&(ranks_case){.nranks = nranks,
                            .processes = true,
                            .may_fail = true,
                            .env_of = host_of,
                            .body = is_refused,
                            .shared = j,
                            .logs = "*"});
}

START_TEST(other_files_are_refused) {
    job *j = board((job){.hosts = 1, .say = "4 GPUs: 6, one for each rank, or at least 6"});
    write_file(j, uneven_star);
    refused(j, 6);
    j->say = "none of the formats";
    write_file(j, "gpu\n");
    refused(j, 3);
    unlink(j->file);
    j->say = "cinch-forest";
    refused(j, 2);
}
END_TEST

static void writes_it(seat *me) {
    (void)me;
}

START_TEST(the_machine_is_written) {
    job *j = board((job){.hosts = 2});
    cinch_graph graph = {0};
    char dump[80], env[128], text[4096] = "";
    write_file(j, uneven_star);
    snprintf(dump, sizeof dump, "%s.out", j->file);
    snprintf(env, sizeof env, "CINCH_TOPO_DUMP=%s", dump);
    run(j, 4, env, writes_it);
    FILE *f = fopen(dump, "r");
    ck_assert_ptr_nonnull(f);
    size_t length = fread(text, 1, sizeof text, f);
    fclose(f);
    ck_assert_int_eq(cinch_graph_read(&graph, text, length, dump), cinchSuccess);
    ck_assert_int_eq(graph.gpus, 4);
    ck_assert_int_eq(graph.arcs, 8);
    cinch_graph_free(&graph);
    unlink(dump);
    unlink(j->file);
}
END_TEST

/* Four GPUs joined pair by pair: the best plan has a tree for each. */
static const char mesh[] = "gpu a\ngpu b\ngpu c\ngpu d\nlink a b 9\nlink a c 9\nlink a d 9\n"
                           "link b c 9\nlink b d 9\nlink c d 9\n";

static void has_trees(seat *me) {
    const job *j = me->shared;
    const cinch_forest *f = cinch_atlas_forest(me->comm, CINCH_ALLREDUCE, 0);
    CHECK(me, f && f->trees == j->trees, "%d", f ? f->trees : -1);
    CHECK(me, cinch_atlas_forest(me->comm, CINCH_ALLTOALL, 0) == NULL);
    double bound = cinch_atlas_bound(me->comm, CINCH_ALLREDUCE, 0);
    CHECK(me, (bound > 0) == (j->file[0] != 0), "%g", bound); /* what is detected is assumed */
}

START_TEST(no_more_trees_than_asked_for) {
    job *j = board((job){.hosts = 1, .trees = 4});
    write_file(j, mesh);
    run(j, 4, "CINCH_ALGO=forest", has_trees);
    j->trees = 1;
    run(j, 4, "CINCH_ALGO=forest CINCH_TREES=1", has_trees);
    unlink(j->file);
    j->file[0] = '\0';
    run(j, 4, "CINCH_ALGO=forest CINCH_TREES=1", has_trees);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {
        no_more_trees_than_asked_for, every_plan_is_right, rings_are_refused,
        runs_on_what_is_detected,     runs_on_a_file,      other_files_are_refused,
        the_machine_is_written};
    return run_tests("forest", tests, sizeof tests / sizeof *tests, 120);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Schedules on a virtual clock take what the formulas say: of latency where messages are short, of
 * bandwidth where they are long, and of a rank's own time; and plans what planning promised. */
#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coll/forest.h"
#include "coll/simulate.h"
#include "tests/topologies.h"

enum { OPS = CINCH_PLAN_REDUCE + 1, RANDOM_GRAPHS = 12 };
static const double ALPHA = 1; /* of a way over a star: two links without a class, 0.5 us each */
static const uint64_t GIB = (uint64_t)1 << 30;

/* ---- machines ---- */

static int add_node(cinch_graph *graph, cinch_node_kind kind, const char *what, int number) {
    char name[64];
    int index = -1;
    snprintf(name, sizeof name, "%s%d", what, number);
    ck_assert_int_eq(cinch_graph_add_node(graph, name, kind, CINCH_PART_OTHER, 0, &index),
                     cinchSuccess);
    return index;
}

static void add_link(cinch_graph *graph, int a, int b, double gbps) {
    ck_assert_int_eq(cinch_graph_add_link(graph, a, b, gbps, gbps, CINCH_LINK_OTHER), cinchSuccess);
}

static void make_star(cinch_graph *graph, int ranks, double gbps) {
    int middle = add_node(graph, CINCH_NODE_SWITCH, "switch", 0);
    for (int i = 0; i < ranks; i++)
        add_link(graph, add_node(graph, CINCH_NODE_GPU, "gpu", i), middle, gbps);
}

/* Rank i hangs from leaf i % leaves, at 10; leaves meet over links of `up`. */
static void make_leaves(cinch_graph *graph, int ranks, int leaves, double up) {
    int spine = add_node(graph, CINCH_NODE_SWITCH, "spine", 0), leaf[8];
    for (int i = 0; i < leaves; i++) {
        leaf[i] = add_node(graph, CINCH_NODE_SWITCH, "leaf", i);
        add_link(graph, leaf[i], spine, up);
    }
    for (int i = 0; i < ranks; i++)
        add_link(graph, add_node(graph, CINCH_NODE_GPU, "gpu", i), leaf[i % leaves], 10);
}

static uint64_t seed;

static int below(int n) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (int)(seed % (uint64_t)n);
}

/* Up to 8 GPUs and up to 5 switches, all joined, and as many links again between any two. */
static void make_random(cinch_graph *graph) {
    static const double widths[] = {3.125, 10, 12.5, 25, 48.3, 50, 100, 300};
    int gpus = 2 + below(7), nodes = gpus + below(6);
    for (int i = 0; i < nodes; i++)
        add_node(graph, i < gpus ? CINCH_NODE_GPU : CINCH_NODE_SWITCH, "n", i);
    for (int i = 1; i < 2 * nodes; i++) {
        int a = i < nodes ? i : below(nodes), b = i < nodes ? below(i) : below(nodes);
        if (a != b) add_link(graph, a, b, widths[below(8)]);
    }
}

/* ---- runs ---- */

static double run(const cinch_graph *graph, const char *algo, cinch_plan_op op, uint64_t bytes,
                  const cinch_simulate_options *options) {
    cinch_simulation out;
    ck_assert_msg(cinch_simulate_named(graph, algo, op, 0, bytes, options, &out) == cinchSuccess,
                  "%s: %s", algo, cinch_last_error());
    ck_assert_double_le(out.busy, 1 + 1e-9);
    return out.us;
}

static int log_of(int n) {
    int log = 0;
    while (n >>= 1) log++;
    return log;
}

static void near(double value, double expected, double part, const char *what, int n) {
    ck_assert_msg(fabs(value - expected) <= part * expected, "%s, %d ranks: %g in place of %g",
                  what, n, value, expected);
}

/* ---- formulas ---- */

START_TEST(short_messages_pay_latencies) {
    for (int n = 2; n <= 64; n++) {
        cinch_graph graph = {0};
        make_star(&graph, n, 10);
        near(run(&graph, "ring", CINCH_PLAN_ALLREDUCE, 8, NULL), 2 * (n - 1) * ALPHA, 0.05, "ring",
             n);
        near(run(&graph, "tree", CINCH_PLAN_ALLREDUCE, 8, NULL), 2 * log_of(n) * ALPHA, 0.05,
             "tree", n);
        if (n == 1 << log_of(n))
            near(run(&graph, "halving", CINCH_PLAN_ALLREDUCE, 8, NULL), 2 * log_of(n) * ALPHA, 0.05,
                 "halving", n);
        near(run(&graph, "direct", CINCH_PLAN_ALLREDUCE, 8, NULL), 2 * ALPHA, 0.06, "direct", n);
        near(run(&graph, "ring", CINCH_PLAN_BROADCAST, 8, NULL), (n - 1) * ALPHA, 0.05,
             "broadcast along a chain", n);
        near(run(&graph, "tree", CINCH_PLAN_REDUCE, 8, NULL), log_of(n) * ALPHA, 0.05,
             "reduce up a tree", n);
        cinch_graph_free(&graph);
    }
}
END_TEST

/* Beyond nine ranks a ring has more steps than lags, and waits a latency now and then. */
START_TEST(long_messages_pay_bandwidth) {
    static const struct {
        const char *algo;
        cinch_plan_op op;
        int once; /* the whole message goes over each link */
        double half;
    } cases[] = {{"ring", CINCH_PLAN_ALLREDUCE, 0, 2},   {"direct", CINCH_PLAN_ALLREDUCE, 0, 2},
                 {"ring", CINCH_PLAN_ALLGATHER, 0, 1},   {"ring", CINCH_PLAN_REDUCESCATTER, 0, 1},
                 {"direct", CINCH_PLAN_ALLGATHER, 0, 1}, {"ring", CINCH_PLAN_BROADCAST, 1, 1},
                 {"ring", CINCH_PLAN_REDUCE, 1, 1},      {"halving", CINCH_PLAN_ALLREDUCE, 0, 2}};
    static const int ranks[] = {2, 3, 8, 9};
    const uint64_t bytes = GIB / 4;
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        int n = ranks[i];
        cinch_graph graph = {0};
        make_star(&graph, n, 10);
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
            double share = cases[k].once ? 1 : cases[k].half * (n - 1) / n;
            if (!strcmp(cases[k].algo, "halving") && n != 1 << log_of(n)) continue;
            near(run(&graph, cases[k].algo, cases[k].op, bytes, NULL), share * (double)bytes / 10e3,
                 0.05, cases[k].algo, n);
        }
        cinch_graph_free(&graph);
    }
}
END_TEST

/* Eight ranks in turn below two leaves: every edge of the ring crosses, four each way. */
START_TEST(a_shared_uplink_is_shared) {
    for (int flows = 1; flows <= 4; flows++) {
        cinch_graph graph = {0};
        make_leaves(&graph, 8, 2, 40.0 / flows);
        double us = 2.0 * 7 / 8 * (double)(GIB / 8) / 10e3 * flows;
        near(run(&graph, "ring", CINCH_PLAN_ALLREDUCE, GIB / 8, NULL), us, 0.05, "shared uplink",
             flows);
        cinch_graph_free(&graph);
    }
}
END_TEST

/* A rank's own time adds up where messages wait for each other. */
START_TEST(ranks_take_their_time) {
    cinch_graph graph = {0};
    cinch_simulate_options o = cinch_simulate_defaults;
    int n = 9;
    double bytes = 4096, way = ALPHA + bytes / 10e3;
    make_star(&graph, n, 10);
    o.message_us = 0.25;
    near(run(&graph, "ring", CINCH_PLAN_BROADCAST, 4096, &o), (n - 1) * (way + 0.25), 1e-6,
         "time for messages", n);
    o.message_us = 0;
    o.memory_gbps = 2; /* every sum reads two */
    near(run(&graph, "ring", CINCH_PLAN_REDUCE, 4096, &o), (n - 1) * (way + 2 * bytes / 2e3), 1e-6,
         "time for sums", n);
    cinch_graph_free(&graph);
}
END_TEST

static double compressed(const cinch_graph *graph, uint64_t bytes,
                         const cinch_simulate_options *options) {
    const cinch_algo *algo = cinch_algo_find(CINCH_ALLREDUCE, "twostep");
    cinch_call call = {.nranks = graph->gpus, .bytes = bytes, .encoded = true};
    cinch_simulation out;
    ck_assert_int_eq(cinch_simulate(graph, algo, &call, options, &out), cinchSuccess);
    return out.us;
}

/* Where the wire is slow the codec's ratio counts, where it is fast the codec's own time: each rank
 * encodes its input and a part of the result, and decodes n parts of each. */
START_TEST(codecs_save_bytes_and_take_time) {
    for (int n = 2; n <= 8; n++) {
        cinch_graph graph = {0}, fast = {0};
        cinch_simulate_options o = cinch_simulate_defaults;
        double bytes = 1 << 28, crossing = 2.0 * (n - 1) / n * bytes / 10e3;
        make_star(&graph, n, 10);
        make_star(&fast, n, 1e6);
        o.ratio = 0.25;
        near(compressed(&graph, 1 << 28, &o), 0.25 * crossing, 0.05, "ratio 0.25", n);
        o.ratio = 0.5;
        near(compressed(&graph, 1 << 28, &o), 0.5 * crossing, 0.05, "ratio 0.5", n);
        o.encode_gbps = 2;
        near(compressed(&fast, 1 << 28, &o), bytes / 2e3, 0.05, "encoding", n);
        o.encode_gbps = 0;
        o.decode_gbps = 2; /* the own part is not decoded before the sum */
        near(compressed(&fast, 1 << 28, &o), bytes / 2e3 * (2.0 * n - 1) / n, 0.05, "decoding", n);
        cinch_graph_free(&graph);
        cinch_graph_free(&fast);
    }
}
END_TEST

/* ---- any schedule, any options ---- */

START_TEST(every_schedule_of_messages_ends) {
    static const uint64_t sizes[] = {4, 1000, 70000, 3000000};
    static const uint16_t host[] = {0, 1, 0, 1, 0, 1, 0, 1};
    int simulated = 0, hierarchical = 0;
    for (int n = 2; n <= 9; n++) {
        cinch_graph graph = {0};
        make_leaves(&graph, n, 2, 5);
        for (int i = 0; cinch_algo_at(i); i++) {
            const cinch_algo *algo = cinch_algo_at(i);
            cinch_call call = {.collective = algo->collective, .nranks = n, .root = n / 2};
            if (n % 2 == 0) call.host = host, call.hosts = 2, call.per_host = n / 2;
            for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
                cinch_simulate_options o = cinch_simulate_defaults;
                cinch_simulation one, two;
                call.bytes = sizes[k];
                call.encoded = strcmp(algo->name, "twostep") == 0;
                if (algo->supports(&call)) continue;
                o.ahead_bytes = k % 2 ? 0 : (size_t)1 << 30;
                o.chunk = (size_t)below(3) * 3000;
                o.message_us = below(2) * 0.3;
                o.memory_gbps = below(2) * 5;
                cinchResult_t result = cinch_simulate(&graph, algo, &call, &o, &one);
                ck_assert_msg(result == cinchSuccess, "%s on %d ranks: %s", algo->name, n,
                              cinch_last_error());
                ck_assert_double_gt(one.us, ALPHA);
                ck_assert_double_le(one.busy, 1 + 1e-9);
                ck_assert_int_eq(cinch_simulate(&graph, algo, &call, &o, &two), cinchSuccess);
                ck_assert_double_eq(one.us, two.us);
                ck_assert_double_eq(one.busy, two.busy);
                ck_assert_int_eq(one.busiest, two.busiest);
                ck_assert_uint_eq(one.messages, two.messages);
                simulated++;
                hierarchical += strncmp(algo->name, "hier", 4) == 0;
            }
        }
        cinch_graph_free(&graph);
    }
    ck_assert_int_gt(simulated, 400);
    ck_assert_int_gt(hierarchical, 8);
}
END_TEST

/* What a simulation of all rounds says, and one that stops before the end. */
START_TEST(what_is_not_simulated_goes_on_as_before) {
    cinch_graph graph = {0};
    cinch_simulation out;
    cinch_simulate_options o = cinch_simulate_defaults;
    make_leaves(&graph, 8, 4, 7);
    o.chunk = 16384;
    for (uint64_t bytes = (uint64_t)1 << 25; bytes <= (uint64_t)1 << 34; bytes *= 8) {
        ck_assert_int_eq(
            cinch_simulate_named(&graph, "ring", CINCH_PLAN_ALLREDUCE, 0, bytes, &o, &out),
            cinchSuccess);
        near(out.us, 2.0 * 7 / 8 * (double)bytes / 10e3 * 20 / 7, 0.02, "ring", 8);
        ck_assert_uint_le(out.simulated, out.rounds);
    }
    ck_assert_uint_lt(out.simulated, out.rounds);
    ck_assert(!out.rough);
    cinch_graph_free(&graph);
}
END_TEST

START_TEST(many_ranks_end_soon) {
    cinch_graph graph = {0};
    int n = 4096;
    make_star(&graph, n, 10);
    near(run(&graph, "tree", CINCH_PLAN_ALLREDUCE, 8, NULL), 2 * log_of(n) * ALPHA, 0.05, "tree",
         n);
    near(run(&graph, "halving", CINCH_PLAN_ALLREDUCE, 1 << 26, NULL),
         2.0 * (n - 1) / n * (1 << 26) / 10e3, 0.15, "halving", n);
    cinch_graph_free(&graph);
    n = 160;
    make_star(&graph, n, 10);
    near(run(&graph, "ring", CINCH_PLAN_ALLREDUCE, 8, NULL), 2 * (n - 1) * ALPHA, 0.05, "ring", n);
    cinch_graph_free(&graph);
}
END_TEST

/* More messages than can be simulated for long: an answer soon, and it says what it is worth. */
START_TEST(too_many_messages_are_a_rough_guess) {
    cinch_graph graph = {0};
    cinch_simulation out;
    uint64_t bytes = 8 * GIB;
    int n = 320;
    if (!getenv("CINCH_TEST_FULL")) return;
    make_star(&graph, n, 10);
    ck_assert_int_eq(
        cinch_simulate_named(&graph, "direct", CINCH_PLAN_ALLREDUCE, 0, bytes, NULL, &out),
        cinchSuccess);
    ck_assert(out.rough);
    near(out.us, 2.0 * (n - 1) / n * (double)bytes / 10e3, 0.1, "direct", n);
    cinch_graph_free(&graph);
}
END_TEST

/* ---- schedules of our own ---- */

static const char *supports_all(const cinch_call *call) {
    (void)call;
    return NULL;
}

enum { AHEAD, OTHER_MARK, NOT_SENT, CROSSED };

/* A broadcast from rank 0, the last three of them broken; call->root says which. */
static void build_own(cinch_builder *b, cinch_schedule *s, int rank, int n,
                      const cinch_call *call) {
    cinch_ref out = cinch_ref_of(CINCH_OUT, 0), in = cinch_ref_of(CINCH_IN, 0);
    cinch_ref one = cinch_ref_slot(CINCH_BOX, 0, 0), two = cinch_ref_slot(CINCH_BOX, 1, 0);
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    if (rank == 0) {
        if (call->root != NOT_SENT) cinch_build_send(b, 1, 0, in);
        if (call->root == CROSSED) cinch_build_send(b, 1, 1, in);
    } else if (call->root == CROSSED) {
        cinch_build_recv(b, 0, 1, two);
        cinch_build_copy(b, out, two);
        cinch_build_recv(b, 0, 0, one);
    } else {
        cinch_build_copy(b, two, in);
        cinch_build_recv(b, 0, call->root == OTHER_MARK, out);
    }
}

static const cinch_algo own = {.name = "own",
                               .collective = CINCH_BROADCAST,
                               .supports = supports_all,
                               .build = build_own,
                               .parts = cinch_parts_one,
                               .part_bytes = 65536,
                               .least_bytes = 65536};

static cinchResult_t run_own(int which, size_t rounds, size_t ahead, double *us) {
    cinch_graph graph = {0};
    cinch_simulate_options o = cinch_simulate_defaults;
    cinch_simulation out;
    cinch_call call = {CINCH_BROADCAST, .nranks = 2, .root = which, .bytes = rounds * 65536};
    make_star(&graph, 2, 10);
    o.ahead_bytes = ahead;
    o.chunk = 65536;
    o.memory_gbps = 5;
    cinchResult_t result = cinch_simulate(&graph, &own, &call, &o, &out);
    *us = out.us;
    cinch_graph_free(&graph);
    return result;
}

/* Rank 1 copies for twice as long as a message takes before it posts each receive. */
START_TEST(messages_go_ahead_as_far_as_there_is_room) {
    double us, message = ALPHA + 65536 / 10e3, copy = 65536 / 5e3;
    for (size_t rounds = 1; rounds < 20; rounds++) {
        ck_assert_int_eq(run_own(AHEAD, rounds, 0, &us), cinchSuccess);
        ck_assert_double_eq_tol(us, (double)rounds * copy + message, 1e-6);
        ck_assert_int_eq(run_own(AHEAD, rounds, 65535, &us), cinchSuccess);
        ck_assert_double_eq_tol(us, (double)rounds * copy + message, 1e-6);
        ck_assert_int_eq(run_own(AHEAD, rounds, 65536, &us), cinchSuccess);
        ck_assert_double_eq_tol(us, (double)rounds * copy, 1e-6);
    }
}
END_TEST

START_TEST(schedules_that_do_not_fit_are_found_out) {
    static const struct {
        int which;
        const char *word;
    } cases[] = {{OTHER_MARK, "rank 0 sends to rank 1 what that does not receive"},
                 {NOT_SENT, "what nobody sends"},
                 {CROSSED, "wait for ever"}};
    double us;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_int_eq(run_own(cases[i].which, 3, 0, &us), cinchInternalError);
        ck_assert_msg(strstr(cinch_last_error(), cases[i].word), "%s", cinch_last_error());
    }
    ck_assert_int_eq(run_own(CROSSED, 3, 1 << 20, &us), cinchSuccess); /* there is room for it */
}
END_TEST

/* ---- plans ---- */

/* Simulates a plan at 1 GiB: it takes what was predicted, and no less than its trees with parts in
 * place of weights can take. */
static void check_plan(const cinch_graph *graph, const char *name, cinch_plan_op op,
                       cinch_plan_kind kind) {
    cinch_plan_options how = {.kind = kind};
    cinch_simulate_options o = cinch_simulate_defaults;
    cinch_plan plan;
    cinch_simulation out;
    cinchResult_t made = cinch_plan_make(graph, op, 0, &how, &plan);
    if (kind != CINCH_PLAN_FOREST && made == cinchInvalidArgument) return; /* no such shape here */
    ck_assert_msg(made == cinchSuccess, "%s: %s", name, cinch_last_error());
    double algbw = plan.algbw, predicted = cinch_plan_us(&plan, (double)GIB, 0);
    if (kind != CINCH_PLAN_RING) {
        cinch_forest forest;
        ck_assert_int_eq(cinch_forest_make(graph, &plan, &forest), cinchSuccess);
        algbw = forest.algbw;
        cinch_forest_free(&forest);
    } else {
        o.chunk = 256 << 10; /* its own are short for links of 300 GB/s */
    }
    ck_assert_msg(cinch_simulate_plan(graph, &plan, GIB, &o, &out) == cinchSuccess, "%s: %s", name,
                  cinch_last_error());
    ck_assert_msg(out.us >= (double)GIB / (algbw * 1e3) * 0.995 && out.us <= predicted * 1.05,
                  "%s, %s by %s: simulated %g us, predicted %g", name, cinch_plan_op_name(op),
                  cinch_plan_kind_name(kind), out.us, predicted);
    ck_assert_double_le(out.busy, 1 + 1e-9);
    cinch_plan_free(&plan);
}

static void check_plans(const cinch_graph *graph, const char *name) {
    for (int op = 0; op < OPS; op++) {
        check_plan(graph, name, (cinch_plan_op)op, CINCH_PLAN_FOREST);
        check_plan(graph, name, (cinch_plan_op)op, CINCH_PLAN_RING);
    }
    check_plan(graph, name, CINCH_PLAN_ALLREDUCE, CINCH_PLAN_DOUBLE_TREE);
}

START_TEST(plans_keep_their_promise) {
    for (int i = 0; i < RANDOM_GRAPHS; i++) {
        cinch_graph graph = {0};
        seed = 0x5EEDu + (uint64_t)i * 0x9E3779B97F4A7C15u;
        make_random(&graph);
        check_plans(&graph, "random graph");
        cinch_graph_free(&graph);
    }
}
END_TEST

/* All-reduce; with CINCH_TEST_FULL all operations. */
START_TEST(plans_of_recorded_machines_keep_their_promise) {
    bool full = getenv("CINCH_TEST_FULL") != NULL;
    static const char *const names[] = {
        "c01_dgx1v",      "c02_dgx1v_sub_014", "c03_dgx1v_sub_0257",  "c05_a100x4_k4",
        "c06_hgx_h100",   "c08_pcie8_2sock",   "c09_a40_pairs_nps4",  "c10_dgxa100x2_8hdr",
        "c11_p4d_x2",     "c13_mi250_16gcd",   "c16_mixed_nic_4host", "c17_leafspine_4to1",
        "c19_summit_node"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        size_t length;
        cinch_graph graph = {0};
        snprintf(path, sizeof path, "graphs/%s.graph", names[i]);
        char *text = topology_text(path, &length);
        if (!text) continue;
        ck_assert_int_eq(cinch_graph_read(&graph, text, length, names[i]), cinchSuccess);
        for (int op = 0; op < (full ? OPS : 1); op++)
            check_plan(&graph, names[i], (cinch_plan_op)op, CINCH_PLAN_FOREST);
        cinch_graph_free(&graph);
        free(text);
    }
}
END_TEST

/* ---- what cannot be simulated ---- */

static void refused(cinchResult_t result, const char *word) {
    ck_assert_int_eq(result, cinchInvalidArgument);
    ck_assert_msg(strstr(cinch_last_error(), word), "%s", cinch_last_error());
}

START_TEST(what_cannot_be_simulated_is_refused) {
    cinch_graph graph = {0};
    cinch_simulation out;
    cinch_call call = {.nranks = 4, .bytes = 4096, .windows = true, .small_bytes = 1 << 18};
    make_star(&graph, 4, 10);
    refused(cinch_simulate(&graph, cinch_algo_find(CINCH_ALLREDUCE, "oneshot"), &call, NULL, &out),
            "each other's memory");
    refused(cinch_simulate(&graph, cinch_algo_find(CINCH_ALLREDUCE, "twoshot"), &call, NULL, &out),
            "each other's memory");
    call.encoded = true;
    refused(cinch_simulate(&graph, cinch_algo_find(CINCH_ALLREDUCE, "ring"), &call, NULL, &out),
            "quantize");
    call = (cinch_call){.nranks = 5, .bytes = 4096};
    refused(cinch_simulate(&graph, cinch_algo_find(CINCH_ALLREDUCE, "ring"), &call, NULL, &out),
            "5 ranks");
    refused(cinch_simulate_named(&graph, "tree", CINCH_PLAN_ALLGATHER, 0, 4096, NULL, &out),
            "no algorithm");
    cinch_simulate_options o = cinch_simulate_defaults;
    o.latency_us[CINCH_LINK_OTHER] = -1;
    refused(cinch_simulate_named(&graph, "ring", CINCH_PLAN_ALLREDUCE, 0, 4096, &o, &out),
            "latency");
    o = cinch_simulate_defaults;
    o.message_us = NAN;
    refused(cinch_simulate_named(&graph, "ring", CINCH_PLAN_ALLREDUCE, 0, 4096, &o, &out),
            "below 0");
    int lone = add_node(&graph, CINCH_NODE_GPU, "gpu", 4);
    add_link(&graph, lone, cinch_graph_gpu(&graph, 0), 10);
    refused(cinch_simulate_named(&graph, "ring", CINCH_PLAN_ALLREDUCE, 0, 4096, NULL, &out),
            "no way over switches from gpu3 to gpu4");
    cinch_graph_free(&graph);
}
END_TEST

START_TEST(nothing_takes_no_time) {
    cinch_graph graph = {0};
    make_star(&graph, 3, 10);
    ck_assert_double_eq(run(&graph, "ring", CINCH_PLAN_ALLREDUCE, 0, NULL), 0);
    cinch_graph_free(&graph);
    make_star(&graph, 1, 10);
    cinch_plan plan;
    cinch_simulation out;
    ck_assert_int_eq(cinch_plan_make(&graph, CINCH_PLAN_ALLREDUCE, -1, NULL, &plan), cinchSuccess);
    ck_assert_int_eq(cinch_simulate_plan(&graph, &plan, GIB, NULL, &out), cinchSuccess);
    ck_assert_double_eq(out.us, 0);
    cinch_plan_free(&plan);
    cinch_graph_free(&graph);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("simulate");
    TCase *cases = tcase_create("simulate");
    tcase_set_timeout(cases, 240);
    tcase_add_test(cases, short_messages_pay_latencies);
    tcase_add_test(cases, long_messages_pay_bandwidth);
    tcase_add_test(cases, a_shared_uplink_is_shared);
    tcase_add_test(cases, ranks_take_their_time);
    tcase_add_test(cases, codecs_save_bytes_and_take_time);
    tcase_add_test(cases, every_schedule_of_messages_ends);
    tcase_add_test(cases, what_is_not_simulated_goes_on_as_before);
    tcase_add_test(cases, many_ranks_end_soon);
    tcase_add_test(cases, too_many_messages_are_a_rough_guess);
    tcase_add_test(cases, messages_go_ahead_as_far_as_there_is_room);
    tcase_add_test(cases, schedules_that_do_not_fit_are_found_out);
    tcase_add_test(cases, plans_keep_their_promise);
    tcase_add_test(cases, plans_of_recorded_machines_keep_their_promise);
    tcase_add_test(cases, what_cannot_be_simulated_is_refused);
    tcase_add_test(cases, nothing_takes_no_time);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

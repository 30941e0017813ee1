/* SPDX-License-Identifier: Apache-2.0 */
/* Plans are valid by a judge that rejects broken ones, come near to what is possible on recorded
 * machines, on machines of our own and on random ones, and are the same whenever they are made. */
#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/topologies.h"
#include "topo/bounds.h"
#include "topo/plan.h"

enum { OPS = CINCH_PLAN_REDUCE + 1, RANDOM_GRAPHS = 250 };

/* ---- machines ---- */

static int add_node(cinch_graph *graph, cinch_node_kind kind, int host, const char *what, int a,
                    int b) {
    char name[64];
    int index = -1;
    snprintf(name, sizeof name, "%s%d_%d", what, a, b);
    ck_assert_int_eq(cinch_graph_add_node(graph, name, kind, CINCH_PART_OTHER, host, &index),
                     cinchSuccess);
    return index;
}

static void add_link(cinch_graph *graph, int a, int b, double gbps, double back) {
    ck_assert_int_eq(cinch_graph_add_link(graph, a, b, gbps, back, CINCH_LINK_OTHER), cinchSuccess);
}

/* Hosts whose GPUs hang from one switch at `inside`, and each from a NIC of its own at `nic`; the
 * NICs of all hosts meet in one network. */
static void make_hosts(cinch_graph *graph, int hosts, int gpus, double inside, double nic) {
    int net = add_node(graph, CINCH_NODE_SWITCH, -1, "net", 0, 0);
    for (int h = 0; h < hosts; h++) {
        int nvs = add_node(graph, CINCH_NODE_SWITCH, h, "nvs", h, 0);
        for (int i = 0; i < gpus; i++) {
            int gpu = add_node(graph, CINCH_NODE_GPU, h, "gpu", h, i);
            add_link(graph, gpu, nvs, inside, inside);
            if (hosts > 1) add_link(graph, gpu, net, nic, nic);
        }
    }
}

/* Eight GPUs below two PCIe switches of two sockets. */
static void make_pcie(cinch_graph *graph) {
    int cpu[2];
    for (int s = 0; s < 2; s++) {
        cpu[s] = add_node(graph, CINCH_NODE_SWITCH, 0, "cpu", s, 0);
        for (int i = 0; i < 2; i++) {
            int bridge = add_node(graph, CINCH_NODE_SWITCH, 0, "bridge", s, i);
            add_link(graph, bridge, cpu[s], 24, 24);
            for (int k = 0; k < 2; k++)
                add_link(graph, add_node(graph, CINCH_NODE_GPU, 0, "gpu", s, 2 * i + k), bridge, 24,
                         24);
        }
    }
    add_link(graph, cpu[0], cpu[1], 16, 16);
}

/* One GPU a host; a NIC each, and the i-th sends at out[i] and receives at in[i]. */
static void make_nics(cinch_graph *graph, int hosts, const double *out, const double *in) {
    int net = add_node(graph, CINCH_NODE_SWITCH, -1, "net", 0, 0);
    for (int h = 0; h < hosts; h++)
        add_link(graph, add_node(graph, CINCH_NODE_GPU, h, "gpu", h, 0), net, out[h], in[h]);
}

static uint64_t seed;

static int below(int n) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (int)(seed % (uint64_t)n);
}

/* Up to 8 GPUs and up to 5 switches, all joined, and as many links again between any two. */
static void make_random(cinch_graph *graph, bool symmetric) {
    static const double widths[] = {3.125, 10, 12.5, 25, 48.3, 50, 100, 300};
    int gpus = 2 + below(7), nodes = gpus + below(6);
    for (int i = 0; i < nodes; i++)
        add_node(graph, i < gpus ? CINCH_NODE_GPU : CINCH_NODE_SWITCH, i, "n", i, 0);
    for (int i = 1; i < 2 * nodes; i++) {
        int a = i < nodes ? i : below(nodes), b = i < nodes ? below(i) : below(nodes);
        double gbps = widths[below(8)], back = symmetric ? gbps : widths[below(8)];
        if (a != b) add_link(graph, a, b, gbps, back);
    }
}

/* ---- what is asked of a plan ---- */

static void assert_valid(const cinch_graph *graph, const cinch_plan *plan, const char *name) {
    ck_assert_msg(cinch_plan_check(graph, plan) == cinchSuccess, "%s %s %s: %s", name,
                  cinch_plan_op_name(plan->op), cinch_plan_kind_name(plan->kind),
                  cinch_last_error());
}

static double bound_of(const cinch_graph *graph, cinch_plan_op op, int root) {
    cinch_bounds bounds;
    ck_assert_int_eq(cinch_bounds_find(graph, root, &bounds), cinchSuccess);
    const double of[OPS] = {bounds.allreduce, bounds.allgather, bounds.reducescatter,
                            bounds.broadcast, bounds.reduce};
    return of[op];
}

/* Plans all operations; each reaches `part` of what the plan itself and bounds.c say is possible
 * (where `tight`: elsewhere no plan may attain the latter). */
static void assert_good(const cinch_graph *graph, const char *name, double part, bool tight) {
    for (int op = 0; op < OPS; op++) {
        int root = graph->gpus / 2;
        cinch_plan plan;
        ck_assert_msg(cinch_plan_make(graph, (cinch_plan_op)op, root, NULL, &plan) == cinchSuccess,
                      "%s: %s", name, cinch_last_error());
        assert_valid(graph, &plan, name);
        double bound = bound_of(graph, (cinch_plan_op)op, root);
        ck_assert_msg(plan.algbw <= bound * (1 + 1e-9), "%s %s: %g GB/s, and the bound is %g", name,
                      cinch_plan_op_name(plan.op), plan.algbw, bound);
        ck_assert_msg(plan.algbw <= plan.bound * (1 + 1e-9), "%s %s: %g GB/s of a bound of %g",
                      name, cinch_plan_op_name(plan.op), plan.algbw, plan.bound);
        if (!tight || plan.bound < bound) bound = plan.bound;
        ck_assert_msg(plan.algbw >= part * bound, "%s %s: %g GB/s of %g", name,
                      cinch_plan_op_name(plan.op), plan.algbw, bound);
        cinch_plan_free(&plan);
    }
}

START_TEST(own_machines_are_planned_well) {
    static const double out[] = {12.5, 12.5, 3.125, 6.25}, slow[] = {12.5, 12.5, 12.5, 6.25};
    cinch_graph graph = {0};
    make_hosts(&graph, 1, 8, 300, 0);
    assert_good(&graph, "one host", 0.99, true);
    cinch_graph_free(&graph);
    make_hosts(&graph, 4, 8, 300, 25);
    assert_good(&graph, "four hosts", 0.99, true);
    cinch_graph_free(&graph);
    make_pcie(&graph);
    assert_good(&graph, "PCIe", 0.99, true);
    cinch_graph_free(&graph);
    make_nics(&graph, 4, out, out);
    assert_good(&graph, "mixed NICs", 0.99, true);
    cinch_graph_free(&graph);
    make_nics(&graph, 4, out, slow);
    assert_good(&graph, "a slow way out", 0.99, false);
    cinch_graph_free(&graph);
}
END_TEST

/* A circle of links that are fast one way and a tenth as fast the other way. Mirrored trees would
 * load all links both ways, and get 2 * 3 / 2 = 3 GB/s; ways up and down along the circle get five
 * times that. */
START_TEST(ways_up_and_down_may_differ) {
    cinch_graph graph = {0};
    cinch_plan plan;
    int a = add_node(&graph, CINCH_NODE_GPU, 0, "a", 0, 0);
    int b = add_node(&graph, CINCH_NODE_GPU, 0, "b", 0, 0);
    int c = add_node(&graph, CINCH_NODE_GPU, 0, "c", 0, 0);
    add_link(&graph, a, b, 20, 2);
    add_link(&graph, b, c, 20, 2);
    add_link(&graph, c, a, 20, 2);
    ck_assert_int_eq(cinch_plan_make(&graph, CINCH_PLAN_ALLREDUCE, -1, NULL, &plan), cinchSuccess);
    assert_valid(&graph, &plan, "circle");
    ck_assert_double_gt(plan.algbw, 15);
    cinch_plan_free(&plan);
    cinch_graph_free(&graph);
}
END_TEST

START_TEST(random_machines_are_planned_well) {
    for (int i = 0; i < RANDOM_GRAPHS; i++) {
        char name[64];
        cinch_graph graph = {0};
        snprintf(name, sizeof name, "random graph %d", i);
        seed = 0x9E3779B97F4A7C15u * (uint64_t)(i + 1);
        make_random(&graph, i % 2);
        /* Bounds by cuts are attained where links are as wide both ways. */
        assert_good(&graph, name, 0.99, i % 2);
        cinch_graph_free(&graph);
    }
}
END_TEST

START_TEST(large_machines_are_planned_well) {
    cinch_graph graph = {0};
    make_hosts(&graph, 10, 8, 300, 25);
    for (int op = 0; op < OPS; op++) {
        cinch_plan plan;
        ck_assert_int_eq(cinch_plan_make(&graph, (cinch_plan_op)op, 3, NULL, &plan), cinchSuccess);
        assert_valid(&graph, &plan, "ten hosts");
        double bound = bound_of(&graph, (cinch_plan_op)op, 3);
        ck_assert_msg(plan.algbw >= 0.9 * bound && plan.algbw <= bound * (1 + 1e-9),
                      "ten hosts %s: %g GB/s of %g", cinch_plan_op_name(plan.op), plan.algbw,
                      bound);
        cinch_plan_free(&plan);
    }
    cinch_graph_free(&graph);
}
END_TEST

/* ---- recorded machines ---- */

static void check_recorded(const char *name, const double *optimum) {
    char file[128];
    cinch_graph graph = {0};
    size_t length;
    snprintf(file, sizeof file, "graphs/%s.graph", name);
    char *text = topology_text(file, &length);
    ck_assert_ptr_nonnull(text);
    ck_assert_msg(cinch_graph_read(&graph, text, length, name) == cinchSuccess, "%s: %s", name,
                  cinch_last_error());
    for (int op = 0; op < OPS; op++) {
        cinch_plan plan;
        ck_assert_int_eq(cinch_plan_make(&graph, (cinch_plan_op)op, 0, NULL, &plan), cinchSuccess);
        assert_valid(&graph, &plan, name);
        ck_assert_msg(plan.algbw >= 0.99 * optimum[op], "%s %s: %g GB/s of %g", name,
                      cinch_plan_op_name(plan.op), plan.algbw, optimum[op]);
        cinch_plan_free(&plan);
    }
    cinch_graph_free(&graph);
    free(text);
}

START_TEST(recorded_machines_are_planned_well) {
    size_t length;
    char *table = topology_text("graphs/OPTIMA.tsv", &length);
    if (!table) printf("no recorded machines are at hand\n");
    for (char *line = table ? strchr(table, '\n') : NULL; line; line = strchr(line + 1, '\n')) {
        char name[64];
        double allgather, broadcast, two_step, upper, attained;
        if (sscanf(line + 1, "%63s %*d %lf %lf %lf %lf %lf", name, &allgather, &broadcast,
                   &two_step, &upper, &attained) != 6)
            continue;
        /* Their links are as wide both ways: what is reversed is as fast. */
        double optimum[OPS] = {attained, allgather, allgather, broadcast, broadcast};
        check_recorded(name, optimum);
    }
    free(table);
}
END_TEST

/* ---- the same whenever ---- */

static size_t put(unsigned char *bytes, size_t at, const void *data, size_t length) {
    ck_assert_uint_le(at + length, (size_t)4 << 20);
    memcpy(bytes + at, data, length);
    return at + length;
}

static size_t put_half(unsigned char *bytes, size_t at, const cinch_plan_half *half, int ranks) {
    if (!half->parent) return at;
    at = put(bytes, at, half->parent, (size_t)ranks * sizeof(int));
    at = put(bytes, at, half->first, ((size_t)ranks + 1) * sizeof(int));
    return put(bytes, at, half->path, (size_t)half->first[ranks] * sizeof(int));
}

static size_t plan_bytes(const cinch_graph *graph, cinch_plan_op op, unsigned char *bytes) {
    cinch_plan plan;
    ck_assert_int_eq(cinch_plan_make(graph, op, 0, NULL, &plan), cinchSuccess);
    size_t at = put(bytes, 0, &plan.algbw, sizeof plan.algbw);
    at = put(bytes, at, &plan.bound, sizeof plan.bound);
    for (int t = 0; t < plan.trees; t++) {
        at = put(bytes, at, &plan.tree[t].root, sizeof(int));
        at = put(bytes, at, &plan.tree[t].weight, sizeof(double));
        at = put_half(bytes, at, &plan.tree[t].up, plan.ranks);
        at = put_half(bytes, at, &plan.tree[t].down, plan.ranks);
    }
    cinch_plan_free(&plan);
    return at;
}

/* The same nodes; arcs from the last to the first, those of odd number before the others. */
static void shuffle(const cinch_graph *from, cinch_graph *to) {
    for (int i = 0; i < from->nodes; i++) {
        int index;
        const cinch_node *node = &from->node[i];
        ck_assert_int_eq(
            cinch_graph_add_node(to, node->name, node->kind, node->part, node->host, &index),
            cinchSuccess);
    }
    for (int odd = 1; odd >= 0; odd--)
        for (int a = from->arcs - 1; a >= 0; a--)
            if (a % 2 == odd)
                ck_assert_int_eq(cinch_graph_add_arc(to, from->arc[a].from, from->arc[a].to,
                                                     from->arc[a].gbps, from->arc[a].link),
                                 cinchSuccess);
}

START_TEST(plans_are_the_same_whenever) {
    static unsigned char one[4 << 20], two[4 << 20];
    for (int i = 0; i < 24; i++) {
        cinch_graph graph = {0}, other = {0};
        seed = 77 + (uint64_t)i;
        if (i == 0)
            make_hosts(&graph, 2, 8, 300, 25);
        else if (i == 1)
            make_hosts(&graph, 10, 8, 300, 25);
        else
            make_random(&graph, i % 2);
        shuffle(&graph, &other);
        for (int op = 0; op < (i == 1 ? 2 : OPS); op++) {
            size_t length = plan_bytes(&graph, (cinch_plan_op)op, one);
            ck_assert_uint_eq(length, plan_bytes(&graph, (cinch_plan_op)op, two));
            ck_assert_mem_eq(one, two, length);
            ck_assert_uint_eq(length, plan_bytes(&other, (cinch_plan_op)op, two));
            ck_assert_mem_eq(one, two, length);
        }
        cinch_graph_free(&graph);
        cinch_graph_free(&other);
    }
}
END_TEST

/* ---- the number of trees, rings, double trees ---- */

START_TEST(fewer_trees_cost_what_they_cost) {
    cinch_graph graph = {0};
    make_hosts(&graph, 2, 8, 300, 25);
    double before = 0;
    for (int most = 1; most <= 16; most *= 2) {
        cinch_plan plan;
        cinch_plan_options options = {.most_trees = most};
        ck_assert_int_eq(cinch_plan_make(&graph, CINCH_PLAN_ALLREDUCE, -1, &options, &plan),
                         cinchSuccess);
        assert_valid(&graph, &plan, "two hosts");
        ck_assert_int_le(plan.trees, most);
        ck_assert_double_ge(plan.algbw, before * 0.99);
        before = plan.algbw;
        cinch_plan_free(&plan);
    }
    cinch_graph_free(&graph);
}
END_TEST

/* Four hosts with a GPU each behind NICs of 10: a ring takes every link once; of the double tree's
 * two trees each makes some host send half of the message twice, up and down. */
START_TEST(given_shapes_have_the_speed_they_have) {
    static const double wide[] = {10, 10, 10, 10};
    cinch_graph graph = {0};
    cinch_plan plan;
    make_nics(&graph, 4, wide, wide);
    for (int op = 0; op < OPS; op++)
        for (int kind = CINCH_PLAN_RING; kind <= CINCH_PLAN_RINGS; kind++) {
            static const double rate[OPS] = {10 / 1.5, 10 / 0.75, 10 / 0.75, 10, 10};
            cinch_plan_options options = {.kind = (cinch_plan_kind)kind};
            ck_assert_int_eq(cinch_plan_make(&graph, (cinch_plan_op)op, 2, &options, &plan),
                             cinchSuccess);
            assert_valid(&graph, &plan, "four NICs");
            ck_assert_double_eq_tol(plan.algbw, rate[op], 1e-9);
            ck_assert_int_eq(plan.hops, op == CINCH_PLAN_ALLREDUCE ? 6 : 3);
            ck_assert_double_eq_tol(cinch_plan_us(&plan, 1e6, 5), plan.hops * 5 + 1e3 / rate[op],
                                    1e-6);
            cinch_plan_free(&plan);
        }
    cinch_plan_options options = {.kind = CINCH_PLAN_DOUBLE_TREE};
    ck_assert_int_eq(cinch_plan_make(&graph, CINCH_PLAN_ALLREDUCE, -1, &options, &plan),
                     cinchSuccess);
    assert_valid(&graph, &plan, "four NICs");
    ck_assert_double_eq_tol(plan.algbw, 5, 1e-9);
    ck_assert_int_eq(plan.trees, 2);
    cinch_plan_free(&plan);
    cinch_graph_free(&graph);
}
END_TEST

/* Rings over four GPUs that are all joined in pairs: three of them use all links both ways. */
START_TEST(rings_use_the_links_that_there_are) {
    cinch_graph graph = {0};
    cinch_plan plan;
    cinch_plan_options options = {.kind = CINCH_PLAN_RINGS};
    int gpu[5];
    for (int i = 0; i < 5; i++) gpu[i] = add_node(&graph, CINCH_NODE_GPU, 0, "gpu", i, 0);
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < i; k++) add_link(&graph, gpu[i], gpu[k], 25, 25);
    ck_assert_int_eq(cinch_plan_make(&graph, CINCH_PLAN_ALLREDUCE, -1, &options, &plan),
                     cinchSuccess);
    assert_valid(&graph, &plan, "five GPUs");
    ck_assert_double_ge(plan.algbw, 3 * 25 / 1.6);
    cinch_plan_free(&plan);
    options.kind = CINCH_PLAN_RING;
    ck_assert_int_eq(cinch_plan_make(&graph, CINCH_PLAN_ALLREDUCE, -1, &options, &plan),
                     cinchSuccess);
    assert_valid(&graph, &plan, "five GPUs");
    ck_assert_double_eq_tol(plan.algbw, 25 / 1.6, 1e-9);
    cinch_plan_free(&plan);
    cinch_graph_free(&graph);
}
END_TEST

START_TEST(given_shapes_fit_random_machines) {
    int found = 0;
    for (int i = 0; i < RANDOM_GRAPHS / 4; i++) {
        cinch_graph graph = {0};
        seed = 0xC0FFEEu + (uint64_t)i * 0x9E3779B97F4A7C15u;
        make_random(&graph, i % 2);
        for (int kind = CINCH_PLAN_RING; kind <= CINCH_PLAN_DOUBLE_TREE; kind++)
            for (int op = 0; op < (kind == CINCH_PLAN_DOUBLE_TREE ? 1 : OPS); op++) {
                cinch_plan plan;
                cinch_plan_options options = {.kind = (cinch_plan_kind)kind};
                cinchResult_t result =
                    cinch_plan_make(&graph, (cinch_plan_op)op, 0, &options, &plan);
                if (result == cinchSuccess) {
                    assert_valid(&graph, &plan, "random graph");
                    ck_assert_double_le(plan.algbw,
                                        bound_of(&graph, (cinch_plan_op)op, 0) * (1 + 1e-9));
                    found++;
                } else {
                    ck_assert_int_eq(result, cinchInvalidArgument);
                    ck_assert_ptr_null(plan.tree);
                }
                cinch_plan_free(&plan);
            }
        cinch_graph_free(&graph);
    }
    ck_assert_int_gt(found, RANDOM_GRAPHS);
}
END_TEST

/* ---- mutants: each breaks a good plan where it must hurt ---- */

typedef void (*mutant)(cinch_plan *plan);

static cinch_plan_half *half_of(cinch_plan *plan) {
    return plan->tree[0].down.parent ? &plan->tree[0].down : &plan->tree[0].up;
}

/* A rank that is not the root, the last of them. */
static int some_rank(cinch_plan *plan) {
    int r = plan->ranks - 1;
    return r == plan->tree[0].root ? r - 1 : r;
}

static void promise_more(cinch_plan *plan) {
    plan->algbw *= 1.000001;
}
static void promise_less(cinch_plan *plan) {
    plan->algbw *= 0.9;
}
static void weigh_more(cinch_plan *plan) {
    plan->tree[0].weight *= 1.00001;
}
static void turn_root(cinch_plan *plan) {
    plan->tree[0].root = (plan->tree[0].root + 1) % plan->ranks;
}
static void two_roots(cinch_plan *plan) {
    half_of(plan)->parent[some_rank(plan)] = -1;
}
static void own_parent(cinch_plan *plan) {
    half_of(plan)->parent[some_rank(plan)] = some_rank(plan);
}
static void lose_end(cinch_plan *plan) {
    cinch_plan_half *half = half_of(plan);
    half->path[half->first[some_rank(plan)]]++;
}
static void leave_graph(cinch_plan *plan) {
    cinch_plan_half *half = half_of(plan);
    half->path[half->first[some_rank(plan)] + 1] = 1 << 20;
}
static void more_ranks(cinch_plan *plan) {
    plan->ranks--;
}
static void other_operation(cinch_plan *plan) {
    plan->op = plan->op == CINCH_PLAN_BROADCAST || plan->op == CINCH_PLAN_ALLGATHER
                   ? CINCH_PLAN_REDUCE
                   : CINCH_PLAN_BROADCAST;
}
static void no_trees(cinch_plan *plan) {
    plan->trees = 0;
}
static void circle(cinch_plan *plan) {
    cinch_plan_half *half = half_of(plan);
    int r = some_rank(plan), top = r;
    /* An ancestor below the root hangs from its own descendant. */
    while (half->parent[half->parent[top]] >= 0) top = half->parent[top];
    if (top == r)
        half->parent[r] = r;
    else
        half->parent[top] = r;
}

static const mutant mutants[] = {promise_more, promise_less,    weigh_more, turn_root,
                                 two_roots,    own_parent,      lose_end,   leave_graph,
                                 more_ranks,   other_operation, no_trees,   circle};

START_TEST(broken_plans_are_rejected) {
    cinch_graph graph = {0};
    make_hosts(&graph, 2, 4, 300, 25);
    for (size_t m = 0; m < sizeof mutants / sizeof *mutants; m++)
        for (int op = 0; op < OPS; op++) {
            cinch_plan plan;
            ck_assert_int_eq(cinch_plan_make(&graph, (cinch_plan_op)op, 0, NULL, &plan),
                             cinchSuccess);
            assert_valid(&graph, &plan, "two hosts");
            int trees = plan.trees;
            mutants[m](&plan);
            ck_assert_msg(cinch_plan_check(&graph, &plan) == cinchInternalError,
                          "mutant %zu of %s passes", m, cinch_plan_op_name((cinch_plan_op)op));
            plan.trees = trees;
            cinch_plan_free(&plan);
        }
    cinch_graph_free(&graph);
}
END_TEST

/* A ring that leaves a rank out, though every rank has a parent. */
START_TEST(broken_rings_are_rejected) {
    static const double wide[] = {10, 10, 10, 10};
    cinch_graph graph = {0};
    cinch_plan plan;
    cinch_plan_options options = {.kind = CINCH_PLAN_RING};
    make_nics(&graph, 4, wide, wide);
    ck_assert_int_eq(cinch_plan_make(&graph, CINCH_PLAN_ALLREDUCE, -1, &options, &plan),
                     cinchSuccess);
    assert_valid(&graph, &plan, "four NICs");
    /* The root's edge now comes from the root's child: a rho, not a ring. */
    cinch_plan_half *down = &plan.tree[0].down;
    int root = plan.tree[0].root, child = 0;
    while (down->parent[child] != root) child++;
    down->parent[root] = child;
    down->path[down->first[root]] = cinch_graph_gpu(&graph, child);
    ck_assert_int_eq(cinch_plan_check(&graph, &plan), cinchInternalError);
    ck_assert_msg(strstr(cinch_last_error(), "ring"), "%s", cinch_last_error());
    cinch_plan_free(&plan);
    cinch_graph_free(&graph);
}
END_TEST

/* ---- what cannot be planned ---- */

static void refused(const cinch_graph *graph, cinch_plan_op op, int root, cinch_plan_kind kind,
                    const char *word) {
    cinch_plan plan;
    cinch_plan_options options = {.kind = kind};
    ck_assert_int_eq(cinch_plan_make(graph, op, root, &options, &plan), cinchInvalidArgument);
    ck_assert_msg(strstr(cinch_last_error(), word), "%s", cinch_last_error());
    ck_assert_ptr_null(plan.tree);
}

START_TEST(what_cannot_be_planned_is_refused) {
    cinch_graph graph = {0};
    refused(&graph, CINCH_PLAN_ALLREDUCE, -1, CINCH_PLAN_FOREST, "no GPU");
    int a = add_node(&graph, CINCH_NODE_GPU, 0, "first", 0, 0);
    int b = add_node(&graph, CINCH_NODE_GPU, 0, "second", 0, 0);
    refused(&graph, CINCH_PLAN_ALLREDUCE, -1, CINCH_PLAN_FOREST, "from first0_0 to second0_0");
    ck_assert_int_eq(cinch_graph_add_arc(&graph, a, b, 1, CINCH_LINK_OTHER), cinchSuccess);
    refused(&graph, CINCH_PLAN_ALLREDUCE, -1, CINCH_PLAN_FOREST, "from second0_0 to first0_0");
    ck_assert_int_eq(cinch_graph_add_arc(&graph, b, a, 1, CINCH_LINK_OTHER), cinchSuccess);
    refused(&graph, CINCH_PLAN_BROADCAST, 2, CINCH_PLAN_FOREST, "root 2");
    refused(&graph, CINCH_PLAN_REDUCE, -1, CINCH_PLAN_RING, "root -1");
    refused(&graph, CINCH_PLAN_BROADCAST, 0, CINCH_PLAN_DOUBLE_TREE, "double tree");
    refused(&graph, (cinch_plan_op)9, 0, CINCH_PLAN_FOREST, "9");
    refused(&graph, CINCH_PLAN_ALLREDUCE, 0, (cinch_plan_kind)9, "9");
    /* A star whose middle is a GPU has no ring over switches, nor a way between its ends. */
    int c = add_node(&graph, CINCH_NODE_GPU, 0, "third", 0, 0);
    add_link(&graph, a, c, 1, 1);
    refused(&graph, CINCH_PLAN_ALLREDUCE, 0, CINCH_PLAN_RINGS, "no ring");
    cinch_graph_free(&graph);
}
END_TEST

START_TEST(one_rank_has_nothing_to_do) {
    cinch_graph graph = {0};
    add_node(&graph, CINCH_NODE_GPU, 0, "alone", 0, 0);
    for (int op = 0; op < OPS; op++) {
        cinch_plan plan;
        ck_assert_int_eq(cinch_plan_make(&graph, (cinch_plan_op)op, 0, NULL, &plan), cinchSuccess);
        assert_valid(&graph, &plan, "one rank");
        ck_assert_double_eq(cinch_plan_us(&plan, 1e9, 1), 0);
        cinch_plan_free(&plan);
    }
    cinch_graph_free(&graph);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("plan");
    TCase *cases = tcase_create("plan");
    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, own_machines_are_planned_well);
    tcase_add_test(cases, ways_up_and_down_may_differ);
    tcase_add_test(cases, random_machines_are_planned_well);
    tcase_add_test(cases, large_machines_are_planned_well);
    tcase_add_test(cases, recorded_machines_are_planned_well);
    tcase_add_test(cases, plans_are_the_same_whenever);
    tcase_add_test(cases, fewer_trees_cost_what_they_cost);
    tcase_add_test(cases, given_shapes_have_the_speed_they_have);
    tcase_add_test(cases, rings_use_the_links_that_there_are);
    tcase_add_test(cases, given_shapes_fit_random_machines);
    tcase_add_test(cases, broken_plans_are_rejected);
    tcase_add_test(cases, broken_rings_are_rejected);
    tcase_add_test(cases, what_cannot_be_planned_is_refused);
    tcase_add_test(cases, one_rank_has_nothing_to_do);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

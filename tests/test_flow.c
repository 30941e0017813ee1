/* SPDX-License-Identifier: Apache-2.0 */
/* Maximum flows against all cuts of small networks; bandwidths as whole numbers. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "topo/flow.h"
#include "topo/scale.h"

enum { MOST = 9 };

static uint64_t rng = 1;

static unsigned random_below(unsigned bound) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(rng >> 33) % bound;
}

static int random_node(int nodes) {
    return (int)random_below((unsigned)nodes);
}

typedef struct {
    int nodes;
    cinch_flow flow;
    int64_t capacity[MOST][MOST]; /* sums of the arcs from one node to another */
} network;

static void make_network(network *n, int64_t scale) {
    *n = (network){.nodes = 2 + random_node(MOST - 1)};
    ck_assert_int_eq(cinch_flow_make(&n->flow, n->nodes), cinchSuccess);
    for (int arcs = random_node(4 * n->nodes); arcs > 0; arcs--) {
        int from = random_node(n->nodes), to = random_node(n->nodes);
        int64_t capacity = random_below(8) * scale,
                back = random_below(2) * random_below(8) * scale;
        if (from == to) continue;
        ck_assert_int_eq(cinch_flow_add(&n->flow, from, to, capacity, back, NULL), cinchSuccess);
        n->capacity[from][to] += capacity;
        n->capacity[to][from] += back;
    }
}

/* The capacity out of a set of nodes, given as bits. */
static int64_t cut_of(const network *n, unsigned set) {
    int64_t sum = 0;
    for (int v = 0; v < n->nodes; v++)
        for (int w = 0; w < n->nodes; w++)
            if ((set >> v & 1) && !(set >> w & 1)) sum += n->capacity[v][w];
    return sum;
}

static int64_t least_cut(const network *n, int source, int sink) {
    int64_t least = INT64_MAX;
    for (unsigned set = 0; set < 1u << n->nodes; set++)
        if ((set >> source & 1) && !(set >> sink & 1) && cut_of(n, set) < least)
            least = cut_of(n, set);
    return least;
}

/* What leaves each node beyond what enters, and that no arc has more than it takes. */
static void assert_flow(const network *n, const int64_t *excess) {
    int64_t sum[MOST] = {0};
    const cinch_flow *f = &n->flow;
    for (int e = 0; e < f->arcs; e++) {
        ck_assert_int_ge(f->left[e], 0);
        ck_assert_int_eq(f->left[e] + f->left[e ^ 1], f->capacity[e] + f->capacity[e ^ 1]);
        sum[f->to[e ^ 1]] += f->capacity[e] - f->left[e];
    }
    for (int v = 0; v < n->nodes; v++) ck_assert_int_eq(sum[v], excess[v]);
}

static cinchResult_t push_or_pull(network *n, bool pull, int source, int sink, int64_t limit,
                                  int64_t *pushed) {
    return pull ? cinch_flow_pull(&n->flow, source, sink, limit, pushed)
                : cinch_flow_push(&n->flow, source, sink, limit, pushed);
}

START_TEST(all_cuts) {
    for (int round = 0; round < 4000; round++) {
        network n;
        make_network(&n, round % 2 ? 1 : (int64_t)1 << 50);
        for (int again = 0; again < 3; again++) {
            int source = random_node(n.nodes), sink = random_node(n.nodes);
            if (source == sink) continue;
            int64_t want = least_cut(&n, source, sink), part, rest;
            int64_t limit = random_below(3) ? 0 : want / (1 + random_below(4));
            bool pull = random_below(2);
            cinch_flow_reset(&n.flow, 1);
            /* In two goes. */
            ck_assert_int_eq(push_or_pull(&n, !pull, source, sink, limit, &part), cinchSuccess);
            ck_assert_int_eq(part, limit);
            ck_assert_int_eq(push_or_pull(&n, pull, source, sink, CINCH_FLOW_MOST, &rest),
                             cinchSuccess);
            ck_assert_int_eq(part + rest, want);
            int64_t excess[MOST] = {0};
            excess[source] = want;
            excess[sink] = -want;
            assert_flow(&n, excess);
            /* The near side is a minimum cut, and within every other. */
            unsigned near = 0, every = (1u << n.nodes) - 1;
            for (int v = 0; v < n.nodes; v++) near |= (unsigned)cinch_flow_near(&n.flow, v) << v;
            ck_assert_int_eq(cut_of(&n, pull ? every & ~near : near), want);
            for (unsigned set = 0; set <= every; set++)
                if ((set >> source & 1) && !(set >> sink & 1) && cut_of(&n, set) == want)
                    ck_assert_uint_eq(near & (pull ? set : ~set) & every, 0);
        }
        cinch_flow_free(&n.flow);
    }
}
END_TEST

/* Flow between several pairs on top of each other; a node more; capacities times something. */
START_TEST(on_top) {
    for (int round = 0; round < 2000; round++) {
        network n;
        make_network(&n, 3);
        int64_t excess[MOST] = {0}, pushed;
        for (int pair = 0; pair < 4; pair++) {
            int source = random_node(n.nodes), sink = random_node(n.nodes);
            if (source == sink) continue;
            ck_assert_int_eq(
                push_or_pull(&n, pair % 2, source, sink, 1 + random_below(20), &pushed),
                cinchSuccess);
            excess[source] += pushed;
            excess[sink] -= pushed;
            assert_flow(&n, excess);
        }
        int source = random_node(n.nodes), sink = (source + 1) % n.nodes;
        int64_t want = least_cut(&n, source, sink);
        cinch_flow_reset(&n.flow, 5);
        ck_assert_int_eq(cinch_flow_push(&n.flow, source, sink, CINCH_FLOW_MOST, &pushed),
                         cinchSuccess);
        ck_assert_int_eq(pushed, 5 * want);
        ck_assert_int_eq(cinch_flow_pull(&n.flow, source, source, 1, &pushed), cinchInternalError);
        cinch_flow_free(&n.flow);
    }
}
END_TEST

/* A grid whose arcs take 1 to 9: a few thousand nodes, both ways round the same. */
START_TEST(grid) {
    enum { SIDE = 60 };
    cinch_flow f;
    int64_t pushed, pulled;
    ck_assert_int_eq(cinch_flow_make(&f, SIDE * SIDE), cinchSuccess);
    for (int v = 0; v < SIDE * SIDE; v++) {
        if (v % SIDE + 1 < SIDE)
            ck_assert_int_eq(
                cinch_flow_add(&f, v, v + 1, 1 + random_below(9), 1 + random_below(9), NULL), 0);
        if (v / SIDE + 1 < SIDE)
            ck_assert_int_eq(
                cinch_flow_add(&f, v, v + SIDE, 1 + random_below(9), 1 + random_below(9), NULL), 0);
    }
    int source = SIDE + 1, sink = SIDE * (SIDE - 2) + SIDE - 2;
    ck_assert_int_eq(cinch_flow_push(&f, source, sink, CINCH_FLOW_MOST, &pushed), cinchSuccess);
    cinch_flow_reset(&f, 1);
    ck_assert_int_eq(cinch_flow_pull(&f, source, sink, CINCH_FLOW_MOST, &pulled), cinchSuccess);
    ck_assert_int_eq(pushed, pulled);
    ck_assert_int_ge(pushed, 4);
    cinch_flow_free(&f);
}
END_TEST

static cinch_graph path_of(const double *gbps, int count) {
    cinch_graph g = {0};
    char name[20];
    for (int i = 0; i <= count; i++) {
        snprintf(name, sizeof name, "n%d", i);
        ck_assert_int_eq(cinch_graph_add_node(&g, name, CINCH_NODE_GPU, CINCH_PART_OTHER, 0, NULL),
                         cinchSuccess);
        if (i > 0)
            ck_assert_int_eq(cinch_graph_add_arc(&g, i - 1, i, gbps[i - 1], CINCH_LINK_OTHER), 0);
    }
    return g;
}

START_TEST(scales_decimals) {
    static const struct {
        double gbps[3];
        int64_t capacity[3];
        double unit;
    } want[] = {
        {{450, 50, 25}, {18, 2, 1}, 25},
        {{12.5, 3.125, 6.25}, {4, 1, 2}, 3.125},
        {{20.6, 0.1 + 0.2, 1e-9}, {20600000000, 300000000, 1}, 1e-9},
        {{333.333333, 1, 1}, {333333333, 1000000, 1000000}, 1e-6},
        {{1e13, 2e12 + 1, 3e12}, {10000000000000, 2000000000001, 3000000000000}, 1},
        /* One more would be too large together: each is rounded up. */
        {{1e13, 2e12 + 1, 9e12}, {1250000000000, 250000000001, 1125000000000}, 8},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        cinch_graph g = path_of(want[i].gbps, 3);
        int64_t capacity[3];
        double unit;
        cinch_scale_capacities(&g, capacity, &unit);
        ck_assert_double_eq_tol(unit, want[i].unit, 1e-15 * unit);
        for (int j = 0; j < 3; j++) ck_assert_int_eq(capacity[j], want[i].capacity[j]);
        cinch_graph_free(&g);
    }
}
END_TEST

/* No decimals: rounded up, closely, and never too large together. */
START_TEST(scales_others) {
    static const double bases[] = {1.0 / 3, 1e300 / 7, 1e-300 / 7, 1.7e308, 1e13};
    for (int round = 0; round < 2000; round++) {
        double gbps[50], unit, base = bases[round % 5];
        int count = 1 + (int)random_below(50);
        for (int i = 0; i < count; i++)
            gbps[i] = base / (1 + random_below(1000)) / (round % 2 ? 1 : 1 + 1e6 * random_below(2));
        cinch_graph g = path_of(gbps, count);
        int64_t capacity[50], sum = 0;
        cinch_scale_capacities(&g, capacity, &unit);
        for (int i = 0; i < count; i++) {
            double got = (double)capacity[i] * unit, most = gbps[i] * (1 + 2e-14) + unit;
            ck_assert_msg(got >= gbps[i] * (1 - 2e-14) && got <= most, "%g %g", gbps[i], got);
            ck_assert_msg(unit <= 1e-2 * gbps[i] || got <= gbps[i] * (1 + 2e-14), "%g of %g", unit,
                          gbps[i]);
            sum += capacity[i];
        }
        ck_assert_int_le(sum, CINCH_SCALE_MOST);
        cinch_graph_free(&g);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("flow");
    TCase *flow = tcase_create("flow"), *scale = tcase_create("scale");
    tcase_set_timeout(flow, 60);
    tcase_add_test(flow, all_cuts);
    tcase_add_test(flow, on_top);
    tcase_add_test(flow, grid);
    suite_add_tcase(suite, flow);
    tcase_add_test(scale, scales_decimals);
    tcase_add_test(scale, scales_others);
    suite_add_tcase(suite, scale);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Ways through random graphs: of the fewest links, the widest of those, through switches only, the
 * same whatever the order of arcs. */
#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "topo/route.h"

enum { MOST_NODES = 14, GRAPHS = 300 };

static uint64_t seed;

static int below(int n) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (int)(seed % (uint64_t)n);
}

typedef struct arc {
    int from, to;
    double gbps;
} arc;

/* reversed: the arcs are added the other way round. */
static void make(cinch_graph *graph, int nodes, int gpus, const arc *list, int arcs,
                 bool reversed) {
    char name[16];
    for (int i = 0; i < nodes; i++) {
        snprintf(name, sizeof name, "n%d", i);
        ck_assert_int_eq(cinch_graph_add_node(graph, name,
                                              i < gpus ? CINCH_NODE_GPU : CINCH_NODE_SWITCH,
                                              CINCH_PART_OTHER, 0, NULL),
                         cinchSuccess);
    }
    for (int i = 0; i < arcs; i++) {
        const arc *a = &list[reversed ? arcs - 1 - i : i];
        ck_assert_int_eq(cinch_graph_add_arc(graph, a->from, a->to, a->gbps, CINCH_LINK_OTHER),
                         cinchSuccess);
    }
}

/* Follows the way from a node and compares it with best[hops][node], the widest way of so many
 * links. */
static void check_way(const cinch_routes *r, int from, double best[][MOST_NODES], int nodes) {
    int least = 0;
    while (least < nodes && best[least][from] == 0) least++;
    if (least == nodes) {
        ck_assert_int_eq(r->hops[from], -1);
        return;
    }
    ck_assert_int_eq(r->hops[from], least);
    double width = INFINITY;
    int node = from, next = MOST_NODES; /* the lowest that a best way may begin with */
    for (int i = 0; i < r->graph->arcs && least > 0; i++) {
        const cinch_arc *a = &r->graph->arc[i];
        bool through = a->to == r->to || r->graph->node[a->to].kind == CINCH_NODE_SWITCH;
        if (a->from != from || !through) continue;
        if (fmin(a->gbps, best[least - 1][a->to]) == best[least][from] && a->to < next)
            next = a->to;
    }
    if (least > 0) ck_assert_int_eq(r->graph->arc[r->arc[from]].to, next);
    for (int i = 0; i < least; i++) {
        const cinch_arc *a = &r->graph->arc[r->arc[node]];
        ck_assert_int_eq(a->from, node);
        ck_assert(i == 0 || r->graph->node[node].kind == CINCH_NODE_SWITCH);
        width = fmin(width, a->gbps);
        node = a->to;
    }
    ck_assert_int_eq(node, r->to);
    ck_assert_double_eq(width, best[least][from]);
}

/* best[h][v]: by trying all arcs, h times over. */
static void check_to(const cinch_graph *graph, cinch_routes *r, int to) {
    double best[MOST_NODES + 1][MOST_NODES] = {{0}};
    best[0][to] = INFINITY;
    for (int h = 1; h <= graph->nodes; h++)
        for (int i = 0; i < graph->arcs; i++) {
            const cinch_arc *a = &graph->arc[i];
            if (a->to != to && graph->node[a->to].kind == CINCH_NODE_GPU) continue;
            best[h][a->from] = fmax(best[h][a->from], fmin(a->gbps, best[h - 1][a->to]));
        }
    cinch_routes_to(r, to);
    for (int v = 0; v < graph->nodes; v++) check_way(r, v, best, graph->nodes);
}

START_TEST(ways_are_short_and_wide) {
    static const double widths[] = {1, 3.125, 10, 25};
    for (int run = 0; run < GRAPHS; run++) {
        cinch_graph graph = {0}, other = {0};
        cinch_routes routes, again;
        arc list[4 * MOST_NODES];
        seed = 0x0A7Eu + (uint64_t)run * 0x9E3779B97F4A7C15u;
        int nodes = 2 + below(MOST_NODES - 1), gpus = 1 + below(nodes), arcs = 0;
        for (int i = 0; i < 4 * nodes; i++) {
            arc a = {below(nodes), below(nodes), widths[below(4)]};
            if (a.from != a.to) list[arcs++] = a;
        }
        make(&graph, nodes, gpus, list, arcs, false);
        make(&other, nodes, gpus, list, arcs, true);
        ck_assert_int_eq(cinch_routes_make(&graph, &routes), cinchSuccess);
        ck_assert_int_eq(cinch_routes_make(&other, &again), cinchSuccess);
        for (int to = 0; to < nodes; to++) {
            check_to(&graph, &routes, to);
            cinch_routes_to(&again, to);
            for (int v = 0; v < nodes; v++) {
                ck_assert_int_eq(routes.hops[v], again.hops[v]);
                if (v != to && routes.hops[v] > 0)
                    ck_assert_int_eq(graph.arc[routes.arc[v]].to, other.arc[again.arc[v]].to);
            }
        }
        cinch_routes_free(&routes);
        cinch_routes_free(&again);
        cinch_graph_free(&graph);
        cinch_graph_free(&other);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("route");
    TCase *cases = tcase_create("route");
    tcase_set_timeout(cases, 60);
    tcase_add_test(cases, ways_are_short_and_wide);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

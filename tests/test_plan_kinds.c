/* SPDX-License-Identifier: Apache-2.0 */
/* Plans for machines of every kind are near to what is possible, and no deeper than is asked for.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "perf/random_machine.h"
#include "topo/bounds.h"
#include "topo/plan.h"

enum { OPS = CINCH_PLAN_REDUCE + 1 };

static double bound_of(const cinch_graph *graph, cinch_plan_op op, int root) {
    cinch_bounds bounds;
    ck_assert_int_eq(cinch_bounds_find(graph, root, &bounds), cinchSuccess);
    const double bound[] = {bounds.allreduce, bounds.allgather, bounds.reducescatter,
                            bounds.broadcast, bounds.reduce};
    return bound[op];
}

static void assert_valid(const cinch_graph *graph, const cinch_plan *plan, const char *name) {
    ck_assert_msg(cinch_plan_check(graph, plan) == cinchSuccess, "%s %s: %s", name,
                  cinch_plan_op_name(plan->op), cinch_last_error());
}

/* Hosts of eight GPUs on a switch, each GPU with a NIC; the NICs of all hosts meet in one network.
 */
static void make_hosts(cinch_graph *graph, int hosts, double inside, double nic) {
    int net = machine_node(graph, CINCH_NODE_SWITCH, -1, "net", 0, 0);
    for (int h = 0; h < hosts; h++) {
        int nvs = machine_node(graph, CINCH_NODE_SWITCH, h, "nvs", h, 0);
        for (int i = 0; i < 8; i++) {
            int gpu = machine_node(graph, CINCH_NODE_GPU, h, "gpu", h, i);
            machine_join(graph, gpu, nvs, inside, false, CINCH_LINK_NVLINK);
            machine_join(graph, gpu, net, nic, false, CINCH_LINK_NET);
        }
    }
}

/* Ten times as many, and the worst of them: bench_plan --random. */
START_TEST(machines_of_every_kind_are_planned_well) {
    static const int hard[] = {48, 219}; /* long programs, loose prices */
    for (int i = 0; i < 16; i++) {
        cinch_graph graph = {0};
        char name[32];
        int number = i < 14 ? i : hard[i - 14];
        random_machine(&graph, (uint64_t)number);
        snprintf(name, sizeof name, "machine %d", number);
        for (int op = i < 14 ? 0 : 1; op < (i < 14 ? OPS : 3); op++) {
            cinch_plan plan;
            ck_assert_int_eq(cinch_plan_make(&graph, (cinch_plan_op)op, 0, NULL, &plan),
                             cinchSuccess);
            assert_valid(&graph, &plan, name);
            ck_assert_double_le(plan.bound, bound_of(&graph, (cinch_plan_op)op, 0) * (1 + 1e-9));
            ck_assert_msg(plan.algbw >= 0.99 * plan.bound, "%s %s: %g GB/s of %g", name,
                          cinch_plan_op_name(plan.op), plan.algbw, plan.bound);
            cinch_plan_free(&plan);
        }
        cinch_graph_free(&graph);
    }
}
END_TEST

START_TEST(hops_can_be_limited) {
    static const int most[] = {0, 10, 40};
    double before[OPS] = {0};
    for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
        cinch_graph graph = {0};
        make_hosts(&graph, 10, 300, 25);
        for (int op = 0; op < OPS; op++) {
            cinch_plan_options options = {.most_hops = most[i]};
            cinch_plan plan;
            ck_assert_int_eq(cinch_plan_make(&graph, (cinch_plan_op)op, 3, &options, &plan),
                             cinchSuccess);
            assert_valid(&graph, &plan, "ten hosts");
            if (most[i]) ck_assert_int_le(plan.hops, most[i]);
            if (i > 1) ck_assert_double_ge(plan.algbw, 0.8 * before[op]);
            before[op] = plan.algbw;
            cinch_plan_free(&plan);
        }
        cinch_graph_free(&graph);
    }
    /* GPUs in a row have no other trees than deep ones. */
    cinch_graph graph = {0};
    for (int r = 0; r < 20; r++) {
        machine_node(&graph, CINCH_NODE_GPU, 0, "gpu", 0, r);
        if (r) machine_join(&graph, r - 1, r, 10, false, CINCH_LINK_OTHER);
    }
    cinch_plan_options options = {.most_hops = 4};
    cinch_plan plan;
    ck_assert_int_eq(cinch_plan_make(&graph, CINCH_PLAN_ALLREDUCE, 0, &options, &plan),
                     cinchSuccess);
    assert_valid(&graph, &plan, "a row");
    ck_assert_int_ge(plan.hops, 20);
    cinch_plan_free(&plan);
    cinch_graph_free(&graph);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("plan_kinds");
    TCase *cases = tcase_create("plan_kinds");
    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, machines_of_every_kind_are_planned_well);
    tcase_add_test(cases, hops_can_be_limited);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

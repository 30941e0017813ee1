/* SPDX-License-Identifier: Apache-2.0 */
/* Machines with a codec: plans over them are valid, compress slow links where that pays and only
 * those, and are as fast as the arithmetic of links and codecs says. */
#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "topo/bounds.h"
#include "topo/compressed.h"

enum { OPS = CINCH_PLAN_REDUCE + 1 };

static void must(cinchResult_t result) {
    ck_assert_msg(result == cinchSuccess, "%s", cinch_last_error());
}

static int add_node(cinch_graph *graph, cinch_node_kind kind, int host, const char *what, int a,
                    int b) {
    char name[64];
    int index = -1;
    snprintf(name, sizeof name, "%s%d_%d", what, a, b);
    must(cinch_graph_add_node(graph, name, kind, CINCH_PART_OTHER, host, &index));
    return index;
}

/* Hosts whose GPUs hang from one switch at `inside` and each from the network at `nic`, by way of a
 * PCI switch of the host where `pci` is above 0. */
static cinch_graph hosts_of(int hosts, int gpus, double inside, double pci, double nic) {
    cinch_graph graph = {0};
    int net = add_node(&graph, CINCH_NODE_SWITCH, hosts, "net", 0, 0);
    for (int h = 0; h < hosts; h++) {
        int nvs = gpus > 1 ? add_node(&graph, CINCH_NODE_SWITCH, h, "nvs", h, 0) : -1;
        int bridge = pci > 0 ? add_node(&graph, CINCH_NODE_SWITCH, h, "bridge", h, 0) : -1;
        for (int i = 0; i < gpus; i++) {
            int gpu = add_node(&graph, CINCH_NODE_GPU, h, "gpu", h, i);
            if (gpus > 1)
                must(cinch_graph_add_link(&graph, gpu, nvs, inside, inside, CINCH_LINK_NVLINK));
            if (pci > 0)
                must(cinch_graph_add_link(&graph, gpu, bridge, pci, pci, CINCH_LINK_PCI));
            else
                must(cinch_graph_add_link(&graph, gpu, net, nic, nic, CINCH_LINK_NET));
        }
        if (pci > 0) must(cinch_graph_add_link(&graph, bridge, net, nic, nic, CINCH_LINK_NET));
    }
    return graph;
}

static cinch_compressed_codec codec_of(double ratio, double encode, double decode) {
    return (cinch_compressed_codec){ratio, encode, decode, 0, false};
}

/* Plans over the graph with the codec, proves the plan, and returns what it reaches. */
static double plan_with(const cinch_graph *machine, const cinch_compressed_codec *codec,
                        cinch_plan_op op, double *share) {
    cinch_compressed made;
    cinch_plan plan;
    cinch_bounds bounds;
    must(cinch_compressed_make(machine, codec, &made));
    must(cinch_plan_make(&made.graph, op, 0, NULL, &plan));
    must(cinch_plan_check(&made.graph, &plan));
    must(cinch_bounds_find(&made.graph, 0, &bounds));
    const double bound[OPS] = {bounds.allreduce, bounds.allgather, bounds.reducescatter,
                               bounds.broadcast, bounds.reduce};
    ck_assert_msg(plan.algbw <= bound[op] * (1 + 1e-9), "%s: %g passes the bound %g",
                  cinch_plan_op_name(op), plan.algbw, bound[op]);
    ck_assert_double_le(plan.algbw, plan.bound * (1 + 1e-9));
    ck_assert_msg(plan.algbw >= 0.985 * plan.bound, "%s: %g of %g", cinch_plan_op_name(op),
                  plan.algbw, plan.bound);
    if (share) *share = cinch_compressed_share(&made, &plan);
    double algbw = plan.algbw;
    cinch_plan_free(&plan);
    cinch_compressed_free(&made);
    return algbw;
}

static double smallest(double a, double b, double c) {
    double least = a < b ? a : b;
    return least < c ? least : c;
}

/* One rank a host: everything crosses the network, so the gain is the formula's. */
START_TEST(gain_is_the_least_of_three) {
    static const double ratios[] = {0.25, 0.27, 0.5, 1}, speeds[] = {0.5, 1.5, 3, 100};
    for (int hosts = 2; hosts <= 4; hosts++)
        for (int c = 0; c < 4; c++)
            for (int e = 0; e < 4; e++)
                for (int d = 0; d < 4; d++)
                    for (int op = 0; op < OPS; op++) {
                        const double nic = 12.5;
                        cinch_graph graph = hosts_of(hosts, 1, 0, 0, nic);
                        cinch_compressed_codec codec =
                            codec_of(ratios[c], speeds[e] * nic, speeds[d] * nic);
                        double gain = smallest(1 / ratios[c], speeds[e], speeds[d]);
                        double without, with;
                        must(cinch_compressed_pays(&graph, (cinch_plan_op)op, 0, &codec, NULL,
                                                   &without, &with));
                        bool symmetric = e == d || op == CINCH_PLAN_ALLREDUCE;
                        ck_assert_msg(with >= 0.99 * gain * without,
                                      "%d hosts %s ratio %g encode %g decode %g: %g of %g", hosts,
                                      cinch_plan_op_name((cinch_plan_op)op), ratios[c], speeds[e],
                                      speeds[d], with, without);
                        /* A root's ranks do not all encode and decode as much. */
                        if (symmetric && op <= CINCH_PLAN_REDUCESCATTER)
                            ck_assert_double_le(with, 1.01 * gain * without);
                        if (op == CINCH_PLAN_ALLREDUCE)
                            ck_assert_int_eq(with > 1.02 * without, gain > 1.02);
                        cinch_graph_free(&graph);
                    }
}
END_TEST

/* Hosts of several GPUs: what is inside stays as it is, all that crosses is encoded, and the slow
 * cut gains. */
START_TEST(only_the_slow_cut_is_compressed) {
    for (int pci = 0; pci < 2; pci++) {
        cinch_graph graph = hosts_of(2, 4, 300, pci ? 24 : 0, pci ? 12.5 : 3.125);
        cinch_compressed_codec codec = codec_of(0.25, 100, 100);
        for (int op = 0; op < OPS; op++) {
            cinch_compressed made;
            cinch_plan plan;
            must(cinch_compressed_make(&graph, &codec, &made));
            must(cinch_plan_make(&made.graph, (cinch_plan_op)op, 0, NULL, &plan));
            must(cinch_plan_check(&made.graph, &plan));
            for (int t = 0; t < plan.trees; t++)
                for (int way = 0; way < 2; way++) {
                    const cinch_plan_half *half = way ? &plan.tree[t].down : &plan.tree[t].up;
                    for (int r = 0; r < 8 && half->parent; r++) {
                        if (half->parent[r] < 0) continue;
                        bool encoded = false, crosses = r / 4 != half->parent[r] / 4;
                        for (int i = half->first[r]; i < half->first[r + 1]; i++)
                            encoded |= made.encoded[half->path[i]];
                        ck_assert_int_eq(encoded, crosses);
                    }
                }
            ck_assert_double_eq(cinch_compressed_share(&made, &plan), 1);
            double without, with;
            must(
                cinch_compressed_pays(&graph, (cinch_plan_op)op, 0, &codec, NULL, &without, &with));
            ck_assert_double_eq(with, plan.algbw);
            ck_assert_msg(with > 3.9 * without && with < 4.01 * without, "%s: %g after %g",
                          cinch_plan_op_name((cinch_plan_op)op), with, without);
            cinch_plan_free(&plan);
            cinch_compressed_free(&made);
        }
        cinch_graph_free(&graph);
    }
}
END_TEST

/* A codec that is asked for everywhere is not used where links are faster than it. */
START_TEST(fast_links_stay_exact) {
    cinch_graph graph = hosts_of(2, 4, 300, 0, 3.125);
    cinch_compressed_codec codec = codec_of(0.25, 20, 20);
    codec.links = ~0u;
    codec.mixed = true;
    double all = plan_with(&graph, &codec, CINCH_PLAN_ALLREDUCE, NULL);
    codec.links = 0;
    codec.mixed = false;
    double cut = plan_with(&graph, &codec, CINCH_PLAN_ALLREDUCE, NULL);
    ck_assert_double_ge(all, 0.995 * cut);
    codec.links = 1u << CINCH_LINK_NVLINK;
    double without, with; /* slower than the links that it is for */
    must(cinch_compressed_pays(&graph, CINCH_PLAN_ALLREDUCE, 0, &codec, NULL, &without, &with));
    cinch_graph_free(&graph);
    graph = hosts_of(1, 8, 300, 0, 300);
    must(cinch_compressed_pays(&graph, CINCH_PLAN_ALLREDUCE, 0, &codec, NULL, &without, &with));
    ck_assert_double_lt(with, without);
    codec.links = 1u << CINCH_LINK_SYS; /* there are none: nothing changes */
    must(cinch_compressed_pays(&graph, CINCH_PLAN_ALLREDUCE, 0, &codec, NULL, &without, &with));
    ck_assert_double_eq(with, without);
    cinch_graph_free(&graph);
}
END_TEST

/* x as it is and y encoded over a link of B: x + ratio * y <= B, and y is what the codec can. */
START_TEST(mixed_traffic_shares_the_link) {
    static const double speeds[] = {0.1, 0.5, 1, 2, 3, 3.9, 8};
    for (size_t i = 0; i < sizeof speeds / sizeof *speeds; i++)
        for (int hosts = 2; hosts <= 3; hosts++) {
            const double nic = 10, ratio = 0.25, encode = speeds[i] * nic;
            cinch_graph graph = hosts_of(hosts, 1, 0, 0, nic);
            cinch_compressed_codec codec = {ratio, encode, encode, 0, true};
            double encoded = smallest(encode, nic / ratio, nic / ratio);
            double egress = nic + (1 - ratio) * encoded, share;
            double want = egress * hosts / (2 * (hosts - 1.0));
            double got = plan_with(&graph, &codec, CINCH_PLAN_ALLREDUCE, &share);
            ck_assert_msg(got >= 0.99 * want && got <= 1.0001 * want, "%d hosts, %g: %g, not %g",
                          hosts, speeds[i], got, want);
            ck_assert_msg(fabs(share - encoded / egress) < 0.02, "%g: a share of %g", speeds[i],
                          share);
            cinch_graph_free(&graph);
        }
}
END_TEST

static uint64_t seed;

static int below(int n) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (int)(seed % (uint64_t)n);
}

/* Hosts unlike each other: with some NICs, behind PCI or not, links that differ by direction. */
static cinch_graph random_hosts(void) {
    cinch_graph graph = {0};
    int hosts = 2 + below(3), net = add_node(&graph, CINCH_NODE_SWITCH, hosts, "net", 0, 0);
    for (int h = 0; h < hosts; h++) {
        int gpus = 1 + below(3), hub = add_node(&graph, CINCH_NODE_SWITCH, h, "hub", h, 0);
        for (int i = 0; i < gpus; i++) {
            int gpu = add_node(&graph, CINCH_NODE_GPU, h, "gpu", h, i);
            double out = 4 + below(30), in = below(2) ? out : 4 + below(30);
            must(cinch_graph_add_link(&graph, gpu, hub, out, in, CINCH_LINK_PCI));
            if (below(3) == 0) must(cinch_graph_add_link(&graph, gpu, net, 3, 3, CINCH_LINK_NET));
        }
        must(cinch_graph_add_link(&graph, hub, net, 1 + below(12), 1 + below(12), CINCH_LINK_NET));
    }
    return graph;
}

/* Choosing is never worse than either way alone, a faster codec never worse than a slower one, and
 * the plan is proven each time. */
START_TEST(choice_is_never_worse) {
    seed = 88172645463325252u;
    for (int trial = 0; trial < 40; trial++) {
        cinch_graph graph = random_hosts();
        cinch_plan_op op = (cinch_plan_op)(trial % OPS);
        cinch_compressed_codec codec = {0.2 + 0.1 * below(8), 1 + below(60), 1 + below(60), 0,
                                        false};
        double without, with;
        must(cinch_compressed_pays(&graph, op, 0, &codec, NULL, &without, &with));
        double forced = plan_with(&graph, &codec, op, NULL);
        ck_assert_double_eq(with, forced);
        codec.mixed = true;
        double mixed = plan_with(&graph, &codec, op, NULL);
        double better = with > without ? with : without;
        ck_assert_msg(mixed >= 0.985 * better, "trial %d %s: mixed %g, all or nothing %g", trial,
                      cinch_plan_op_name(op), mixed, better);
        codec.mixed = false;
        codec.encode_gbps *= 3;
        codec.decode_gbps *= 3;
        ck_assert_double_ge(plan_with(&graph, &codec, op, NULL), 0.985 * forced);
        cinch_graph_free(&graph);
    }
}
END_TEST

START_TEST(what_cannot_be_is_refused) {
    cinch_graph graph = hosts_of(2, 1, 0, 0, 10);
    static const cinch_compressed_codec bad[] = {
        {0, 1, 1, 0, 0},    {1.5, 1, 1, 0, 0}, {-1, 1, 1, 0, 0},        {0.5, 0, 1, 0, 0},
        {0.5, 1, -1, 0, 0}, {NAN, 1, 1, 0, 0}, {0.5, INFINITY, 1, 0, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cinch_compressed made;
        ck_assert_int_eq(cinch_compressed_make(&graph, &bad[i], &made), cinchInvalidArgument);
        ck_assert_int_eq(made.graph.nodes, 0);
    }
    cinch_compressed made;
    cinch_compressed_codec codec = codec_of(0.5, 10, 10);
    must(cinch_compressed_make(&graph, &codec, &made));
    cinch_plan_options ring = {.kind = CINCH_PLAN_RING};
    cinch_plan plan;
    ck_assert_int_eq(cinch_plan_make(&made.graph, CINCH_PLAN_ALLREDUCE, 0, &ring, &plan),
                     cinchInvalidArgument);
    ck_assert_ptr_nonnull(strstr(cinch_last_error(), "share links"));
    /* A plan that would be right if every arc were alone is not where they share. */
    codec.mixed = true;
    cinch_compressed_free(&made);
    must(cinch_compressed_make(&graph, &codec, &made));
    for (int a = 0; a < made.graph.arcs; a++) made.graph.arc[a].shared = 0;
    must(cinch_plan_make(&made.graph, CINCH_PLAN_ALLREDUCE, 0, NULL, &plan));
    must(cinch_plan_check(&made.graph, &plan));
    cinch_compressed_free(&made);
    must(cinch_compressed_make(&graph, &codec, &made));
    ck_assert_int_eq(cinch_plan_check(&made.graph, &plan), cinchInternalError);
    cinch_plan_free(&plan);
    cinch_compressed_free(&made);
    cinch_graph_free(&graph);
    /* Copies' names are no node's, whatever these are called. */
    must(cinch_graph_add_node(&graph, "a", CINCH_NODE_GPU, CINCH_PART_OTHER, 0, NULL));
    must(cinch_graph_add_node(&graph, "+out:a", CINCH_NODE_GPU, CINCH_PART_OTHER, 1, NULL));
    must(cinch_graph_add_link(&graph, 0, 1, 1, 1, CINCH_LINK_NET));
    ck_assert_double_gt(plan_with(&graph, &codec, CINCH_PLAN_ALLREDUCE, NULL), 1);
    cinch_graph_free(&graph);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("compressed_plan");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, gain_is_the_least_of_three);
    tcase_add_test(tc, only_the_slow_cut_is_compressed);
    tcase_add_test(tc, fast_links_stay_exact);
    tcase_add_test(tc, mixed_traffic_shares_the_link);
    tcase_add_test(tc, choice_is_never_worse);
    tcase_add_test(tc, what_cannot_be_is_refused);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}

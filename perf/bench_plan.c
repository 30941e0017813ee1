/* SPDX-License-Identifier: Apache-2.0 */
/* bench_plan [--all] [--fat] [--random COUNT] [FILE.graph...]: plans every operation on every
 * graph, and says how good the plan is beside what is possible at most, how many trees and hops it
 * has, and how long planning took. --all: rings and double trees too. --fat: a fat tree of 128
 * hosts with 8 GPUs each, which is generated. --random: as many machines of 2 to 32 GPUs, of hosts
 * with NVLink rings, meshes, switches or PCI trees, uneven NICs, rails, missing links and
 * directions that differ; only the worst of each operation are printed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "topo/bounds.h"
#include "topo/graph.h"
#include "topo/plan.h"

enum { HOSTS = 128, GPUS = 8, POD = 32, SPINES = 16 };

static int must(cinchResult_t result) {
    if (result == cinchSuccess) return 0;
    fprintf(stderr, "bench_plan: %s\n", cinch_last_error());
    exit(1);
}

static int node(cinch_graph *graph, cinch_node_kind kind, int host, const char *what, int a,
                int b) {
    char name[64];
    int index = -1;
    snprintf(name, sizeof name, "%s%d_%d", what, a, b);
    must(cinch_graph_add_node(graph, name, kind, CINCH_PART_OTHER, host, &index));
    return index;
}

/* NVSwitch hosts with a NIC for each GPU; the NICs of a pod with the same number share a leaf, and
 * spines have room for all of them. */
static void fat_tree(cinch_graph *graph) {
    int leaf[HOSTS / POD][GPUS], spine[SPINES];
    for (int i = 0; i < SPINES; i++)
        spine[i] = node(graph, CINCH_NODE_SWITCH, HOSTS, "spine", 0, i);
    for (int p = 0; p < HOSTS / POD; p++)
        for (int k = 0; k < GPUS; k++) {
            leaf[p][k] = node(graph, CINCH_NODE_SWITCH, HOSTS, "leaf", p, k);
            for (int i = 0; i < SPINES; i++)
                must(cinch_graph_add_link(graph, leaf[p][k], spine[i], POD * 50.0 / SPINES,
                                          POD * 50.0 / SPINES, CINCH_LINK_NET));
        }
    for (int h = 0; h < HOSTS; h++) {
        int nvs = node(graph, CINCH_NODE_SWITCH, h, "nvs", h, 0);
        for (int k = 0; k < GPUS; k++) {
            int gpu = node(graph, CINCH_NODE_GPU, h, "gpu", h, k);
            int nic = node(graph, CINCH_NODE_SWITCH, h, "nic", h, k);
            must(cinch_graph_add_link(graph, gpu, nvs, 450, 450, CINCH_LINK_NVLINK));
            must(cinch_graph_add_link(graph, gpu, nic, 64, 64, CINCH_LINK_PCI));
            must(cinch_graph_add_link(graph, nic, leaf[h / POD][k], 50, 50, CINCH_LINK_NET));
        }
    }
}

/* ---- random machines ---- */

static uint64_t seed;

static int below(int n) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (int)(seed % (uint64_t)n);
}

/* Wherever `uneven`, now and then another speed back. */
static void join(cinch_graph *graph, int a, int b, double gbps, bool uneven,
                 cinch_link_class link) {
    static const double part[] = {1, 0.5, 0.25, 0.9};
    double back = uneven && below(4) == 0 ? gbps * part[below(4)] : gbps;
    must(cinch_graph_add_link(graph, a, b, gbps, back, link));
}

/* What joins the GPUs of a host: returns false where they are joined by PCI alone. */
static bool join_inside(cinch_graph *graph, const int *gpu, int gpus, int host, bool uneven) {
    int shape = below(4);
    if (shape == 0 || gpus < 2) return false;
    if (shape == 1) {
        int nvs = node(graph, CINCH_NODE_SWITCH, host, "nvs", host, 0);
        double gbps = 150 + 75 * below(5);
        for (int i = 0; i < gpus; i++) /* one in ten has none, or half */
            if (below(10))
                join(graph, gpu[i], nvs, below(10) ? gbps : gbps / 2, uneven, CINCH_LINK_NVLINK);
        return true;
    }
    for (int i = 0; i < gpus; i++)
        for (int k = i + 1; k < gpus; k++) {
            bool ring = k == i + 1 || (i == 0 && k == gpus - 1);
            if (shape == 2 ? ring && below(12) : below(4) > 0)
                join(graph, gpu[i], gpu[k], 25.0 * (1 + below(3)), uneven, CINCH_LINK_NVLINK);
        }
    return true;
}

/* A host: two sockets, PCI switches, and NICs into `net`, or the i-th into the rail of that number.
 */
static void random_host(cinch_graph *graph, int host, int gpus, const int *rail, int rails,
                        double fast, bool uneven) {
    static const double speed[] = {1.25, 3.125, 6.25, 12.5, 12.5, 25, 25, 50};
    int gpu[32], cpu[2], bridge[4], nics = 1 + below(gpus);
    double pci = 6 << below(4);
    for (int s = 0; s < 2; s++) cpu[s] = node(graph, CINCH_NODE_SWITCH, host, "cpu", host, s);
    join(graph, cpu[0], cpu[1], 10 + below(30), uneven, CINCH_LINK_SYS);
    for (int b = 0; b < 4; b++) {
        bridge[b] = node(graph, CINCH_NODE_SWITCH, host, "pci", host, b);
        join(graph, bridge[b], cpu[b / 2], pci, uneven, CINCH_LINK_PCI);
    }
    for (int i = 0; i < gpus; i++) {
        gpu[i] = node(graph, CINCH_NODE_GPU, host, "gpu", host, i);
        join(graph, gpu[i], bridge[i * 4 / gpus], below(12) ? pci : pci / 4, uneven,
             CINCH_LINK_PCI);
    }
    join_inside(graph, gpu, gpus, host, uneven);
    double gbps = speed[below(8)] * fast;
    for (int i = 0; i < nics && rails; i++) {
        int nic = node(graph, CINCH_NODE_SWITCH, host, "nic", host, i);
        join(graph, nic, bridge[below(4)], pci, uneven, CINCH_LINK_PCI);
        join(graph, nic, rail[i % rails], below(5) ? gbps : speed[below(8)] * fast, uneven,
             CINCH_LINK_NET);
    }
}

static void random_machine(cinch_graph *graph) {
    int left = 2 + below(31), hosts = 0, rail[4], rails = 0;
    bool uneven = below(3) == 0, alone = below(3) == 0;
    double fast = 1 << below(4); /* the network, beside what is inside */
    if (!alone) rails = 1 + below(4);
    for (int i = 0; i < rails; i++) rail[i] = node(graph, CINCH_NODE_SWITCH, -1, "rail", 0, i);
    if (rails > 1) {
        int spine = node(graph, CINCH_NODE_SWITCH, -1, "spine", 0, 0);
        for (int i = 0; i < rails; i++)
            join(graph, rail[i], spine, fast * (10 << below(5)), uneven, CINCH_LINK_NET);
    }
    int per_host = alone ? left : 1 << below(4);
    for (; left > 0; hosts++) {
        int gpus = alone || below(4) ? per_host : 1 + below(8); /* now and then another number */
        if (gpus > left) gpus = left;
        random_host(graph, hosts, gpus, rail, rails, fast, uneven);
        left -= gpus;
    }
}

static void read_file(cinch_graph *graph, const char *path) {
    FILE *file = fopen(path, "r");
    static char text[1 << 22];
    size_t length = file ? fread(text, 1, sizeof text, file) : 0;
    if (!file || ferror(file)) {
        fprintf(stderr, "bench_plan: cannot read %s\n", path);
        exit(1);
    }
    fclose(file);
    must(cinch_graph_read(graph, text, length, path));
}

static void bench(const cinch_graph *graph, const char *name, cinch_plan_op op,
                  cinch_plan_kind kind, double bound) {
    cinch_plan_options options = {.kind = kind};
    cinch_plan plan;
    const char *slash = strrchr(name, '/');
    if (kind == CINCH_PLAN_DOUBLE_TREE && op != CINCH_PLAN_ALLREDUCE) return;
    uint64_t begin = cinch_now_ns();
    cinchResult_t result = cinch_plan_make(graph, op, 0, &options, &plan);
    double ms = (double)(cinch_now_ns() - begin) / 1e6;
    printf("%-26s %-13s %-11s", slash ? slash + 1 : name, cinch_plan_op_name(op),
           cinch_plan_kind_name(kind));
    if (result == cinchInvalidArgument && kind != CINCH_PLAN_FOREST) {
        printf(" does not fit\n");
        return;
    }
    must(result);
    must(cinch_plan_check(graph, &plan));
    if (plan.bound > 0 && plan.bound < bound) bound = plan.bound;
    printf(" %9.3f GB/s %6.2f %% of %9.3f %5d trees %4d hops %8.1f ms\n", plan.algbw,
           100 * plan.algbw / bound, bound, plan.trees, plan.hops, ms);
    fflush(stdout);
    cinch_plan_free(&plan);
}

static void bench_all(const cinch_graph *graph, const char *name, bool all) {
    cinch_bounds bounds;
    must(cinch_bounds_find(graph, 0, &bounds));
    const double bound[] = {bounds.allreduce, bounds.allgather, bounds.reducescatter,
                            bounds.broadcast, bounds.reduce};
    for (int op = 0; op <= CINCH_PLAN_REDUCE; op++)
        for (int kind = 0; kind <= (all ? CINCH_PLAN_DOUBLE_TREE : CINCH_PLAN_FOREST); kind++)
            bench(graph, name, (cinch_plan_op)op, (cinch_plan_kind)kind, bound[op]);
}

/* What is printed of random machines: the worst of each operation, by quality and by time. */
typedef struct {
    double part, ms, bound;
    int machine, ranks, slow_machine, slow_ranks;
    double sum;
    int low; /* plans below 99 % */
    int count;
} worst;

static void note(worst *w, const cinch_plan *plan, double bound, double ms, int machine) {
    if (plan->bound > 0 && plan->bound < bound) bound = plan->bound;
    double part = plan->algbw / bound;
    w->count++;
    w->sum += part;
    w->low += part < 0.99;
    if (part < w->part) w->part = part, w->machine = machine, w->ranks = plan->ranks;
    if (ms > w->ms) w->ms = ms, w->slow_machine = machine, w->slow_ranks = plan->ranks;
}

static void bench_random(int machines) {
    worst of[CINCH_PLAN_REDUCE + 1];
    for (int op = 0; op <= CINCH_PLAN_REDUCE; op++) of[op] = (worst){.part = 1e9};
    for (int m = 0; m < machines; m++) {
        cinch_graph graph = {0};
        cinch_bounds bounds;
        seed = 88172645463325252u + (uint64_t)m * 0x9e3779b97f4a7c15u;
        random_machine(&graph);
        must(cinch_bounds_find(&graph, 0, &bounds));
        const double bound[] = {bounds.allreduce, bounds.allgather, bounds.reducescatter,
                                bounds.broadcast, bounds.reduce};
        for (int op = 0; op <= CINCH_PLAN_REDUCE; op++) {
            cinch_plan plan;
            uint64_t begin = cinch_now_ns();
            must(cinch_plan_make(&graph, (cinch_plan_op)op, 0, NULL, &plan));
            double ms = (double)(cinch_now_ns() - begin) / 1e6;
            must(cinch_plan_check(&graph, &plan));
            note(&of[op], &plan, bound[op], ms, m);
            if (getenv("BENCH_PLAN_ALL"))
                printf("%d %d %s %d %d %.4f %.4f %.1f %d\n", m, plan.ranks,
                       cinch_plan_op_name((cinch_plan_op)op), graph.arcs, plan.trees,
                       plan.algbw / bound[op], plan.algbw / plan.bound, ms, plan.hops);
            cinch_plan_free(&plan);
        }
        cinch_graph_free(&graph);
    }
    for (int op = 0; op <= CINCH_PLAN_REDUCE; op++)
        printf("%-13s of %d: mean %6.2f %%, %d below 99 %%, worst %6.2f %% (machine %d, %d ranks), "
               "slowest %.1f ms (machine %d, %d ranks)\n",
               cinch_plan_op_name((cinch_plan_op)op), of[op].count, 100 * of[op].sum / of[op].count,
               of[op].low, 100 * of[op].part, of[op].machine, of[op].ranks, of[op].ms,
               of[op].slow_machine, of[op].slow_ranks);
}

int main(int argc, char **argv) {
    bool all = false;
    if (argc < 2) {
        fprintf(stderr, "usage: bench_plan [--all] [--fat] [--random COUNT] [FILE.graph...]\n");
        return 2;
    }
    for (int i = 1; i < argc; i++) {
        cinch_graph graph = {0};
        if (strcmp(argv[i], "--all") == 0) {
            all = true;
            continue;
        }
        if (strcmp(argv[i], "--random") == 0 && i + 1 < argc) {
            bench_random(atoi(argv[++i]));
            continue;
        }
        if (strcmp(argv[i], "--fat") == 0)
            fat_tree(&graph);
        else
            read_file(&graph, argv[i]);
        bench_all(&graph, argv[i], all);
        cinch_graph_free(&graph);
    }
    return 0;
}

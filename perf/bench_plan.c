/* SPDX-License-Identifier: Apache-2.0 */
/* bench_plan [--all] [--fat] [--hops N] [--random COUNT] [FILE.graph...]: plans every operation on
 * every graph, and says how good the plan is beside what is possible at most, how many trees and
 * hops it has, and what time of a CPU planning took. --all: rings and double trees too. --fat: a
 * fat tree of 128 hosts with 8 GPUs each, which is generated. --random: as many machines of
 * random_machine.h; only the worst of each operation are printed. --hops: plans of no more hops, as
 * far as there are any. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "perf/random_machine.h"
#include "topo/bounds.h"
#include "topo/graph.h"
#include "topo/plan.h"

static int most_hops;

enum { HOSTS = 128, GPUS = 8, POD = 32, SPINES = 16 };

/* NVSwitch hosts with a NIC for each GPU; the NICs of a pod with the same number share a leaf, and
 * spines have room for all of them. */
static void fat_tree(cinch_graph *graph) {
    int leaf[HOSTS / POD][GPUS], spine[SPINES];
    for (int i = 0; i < SPINES; i++)
        spine[i] = machine_node(graph, CINCH_NODE_SWITCH, HOSTS, "spine", 0, i);
    for (int p = 0; p < HOSTS / POD; p++)
        for (int k = 0; k < GPUS; k++) {
            leaf[p][k] = machine_node(graph, CINCH_NODE_SWITCH, HOSTS, "leaf", p, k);
            for (int i = 0; i < SPINES; i++)
                machine_must(cinch_graph_add_link(graph, leaf[p][k], spine[i], POD * 50.0 / SPINES,
                                                  POD * 50.0 / SPINES, CINCH_LINK_NET));
        }
    for (int h = 0; h < HOSTS; h++) {
        int nvs = machine_node(graph, CINCH_NODE_SWITCH, h, "nvs", h, 0);
        for (int k = 0; k < GPUS; k++) {
            int gpu = machine_node(graph, CINCH_NODE_GPU, h, "gpu", h, k);
            int nic = machine_node(graph, CINCH_NODE_SWITCH, h, "nic", h, k);
            machine_must(cinch_graph_add_link(graph, gpu, nvs, 450, 450, CINCH_LINK_NVLINK));
            machine_must(cinch_graph_add_link(graph, gpu, nic, 64, 64, CINCH_LINK_PCI));
            machine_must(
                cinch_graph_add_link(graph, nic, leaf[h / POD][k], 50, 50, CINCH_LINK_NET));
        }
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
    machine_must(cinch_graph_read(graph, text, length, path));
}

static void bench(const cinch_graph *graph, const char *name, cinch_plan_op op,
                  cinch_plan_kind kind, double bound) {
    cinch_plan_options options = {.kind = kind, .most_hops = most_hops};
    cinch_plan plan;
    const char *slash = strrchr(name, '/');
    if (kind == CINCH_PLAN_DOUBLE_TREE && op != CINCH_PLAN_ALLREDUCE) return;
    clock_t begin = clock();
    cinchResult_t result = cinch_plan_make(graph, op, 0, &options, &plan);
    double ms = 1e3 * (double)(clock() - begin) / CLOCKS_PER_SEC;
    printf("%-26s %-13s %-11s", slash ? slash + 1 : name, cinch_plan_op_name(op),
           cinch_plan_kind_name(kind));
    if (result == cinchInvalidArgument && kind != CINCH_PLAN_FOREST) {
        printf(" does not fit\n");
        return;
    }
    machine_must(result);
    machine_must(cinch_plan_check(graph, &plan));
    if (plan.bound > 0 && plan.bound < bound) bound = plan.bound;
    printf(" %9.3f GB/s %6.2f %% of %9.3f %5d trees %4d hops %8.1f ms\n", plan.algbw,
           100 * plan.algbw / bound, bound, plan.trees, plan.hops, ms);
    fflush(stdout);
    cinch_plan_free(&plan);
}

static void bench_all(const cinch_graph *graph, const char *name, bool all) {
    cinch_bounds bounds;
    machine_must(cinch_bounds_find(graph, 0, &bounds));
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
        random_machine(&graph, (uint64_t)m);
        machine_must(cinch_bounds_find(&graph, 0, &bounds));
        const double bound[] = {bounds.allreduce, bounds.allgather, bounds.reducescatter,
                                bounds.broadcast, bounds.reduce};
        for (int op = 0; op <= CINCH_PLAN_REDUCE; op++) {
            cinch_plan plan;
            clock_t begin = clock();
            machine_must(cinch_plan_make(&graph, (cinch_plan_op)op, 0, NULL, &plan));
            double ms = 1e3 * (double)(clock() - begin) / CLOCKS_PER_SEC;
            machine_must(cinch_plan_check(&graph, &plan));
            note(&of[op], &plan, bound[op], ms, m);
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
        fprintf(stderr,
                "usage: bench_plan [--all] [--fat] [--hops N] [--random COUNT] [FILE.graph...]\n");
        return 2;
    }
    for (int i = 1; i < argc; i++) {
        cinch_graph graph = {0};
        if (strcmp(argv[i], "--all") == 0) {
            all = true;
            continue;
        }
        if (strcmp(argv[i], "--hops") == 0 && i + 1 < argc) {
            most_hops = atoi(argv[++i]);
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

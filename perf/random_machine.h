/* SPDX-License-Identifier: Apache-2.0 */
/* Machines of 2 to 32 GPUs that are unlike each other, each by its number: hosts with NVLink rings,
 * meshes, switches or PCI trees, uneven NICs, rails, missing links, directions that differ. */
#ifndef CINCH_PERF_RANDOM_MACHINE_H_
#define CINCH_PERF_RANDOM_MACHINE_H_

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "topo/graph.h"

static inline void machine_must(cinchResult_t result) {
    if (result == cinchSuccess) return;
    fprintf(stderr, "a machine cannot be made: %s\n", cinch_last_error());
    exit(1);
}

static inline int machine_node(cinch_graph *graph, cinch_node_kind kind, int host, const char *what,
                               int a, int b) {
    char name[64];
    int index = -1;
    snprintf(name, sizeof name, "%s%d_%d", what, a, b);
    machine_must(cinch_graph_add_node(graph, name, kind, CINCH_PART_OTHER, host, &index));
    return index;
}

static uint64_t machine_seed;

static inline int machine_below(int n) {
    machine_seed ^= machine_seed << 13;
    machine_seed ^= machine_seed >> 7;
    machine_seed ^= machine_seed << 17;
    return (int)(machine_seed % (uint64_t)n);
}

/* Wherever `uneven`, now and then another speed back. */
static inline void machine_join(cinch_graph *graph, int a, int b, double gbps, bool uneven,
                                cinch_link_class link) {
    static const double part[] = {1, 0.5, 0.25, 0.9};
    double back = uneven && machine_below(4) == 0 ? gbps * part[machine_below(4)] : gbps;
    machine_must(cinch_graph_add_link(graph, a, b, gbps, back, link));
}

/* What joins the GPUs of a host beside PCI. */
static inline void machine_join_inside(cinch_graph *graph, const int *gpu, int gpus, int host,
                                       bool uneven) {
    int shape = machine_below(4);
    if (shape == 0 || gpus < 2) return;
    if (shape == 1) {
        int nvs = machine_node(graph, CINCH_NODE_SWITCH, host, "nvs", host, 0);
        double gbps = 150 + 75 * machine_below(5);
        for (int i = 0; i < gpus; i++) /* one in ten has none, or half */
            if (machine_below(10))
                machine_join(graph, gpu[i], nvs, machine_below(10) ? gbps : gbps / 2, uneven,
                             CINCH_LINK_NVLINK);
        return;
    }
    for (int i = 0; i < gpus; i++)
        for (int k = i + 1; k < gpus; k++) {
            bool ring = k == i + 1 || (i == 0 && k == gpus - 1);
            if (shape == 2 ? ring && machine_below(12) : machine_below(4) > 0)
                machine_join(graph, gpu[i], gpu[k], 25.0 * (1 + machine_below(3)), uneven,
                             CINCH_LINK_NVLINK);
        }
}

/* A host: two sockets, PCI switches, and NICs into `net`, or the i-th into the rail of that number.
 */
static inline void machine_host(cinch_graph *graph, int host, int gpus, const int *rail, int rails,
                                double fast, bool uneven) {
    static const double speed[] = {1.25, 3.125, 6.25, 12.5, 12.5, 25, 25, 50};
    int gpu[32], cpu[2], bridge[4], nics = 1 + machine_below(gpus);
    double pci = 6 << machine_below(4);
    for (int s = 0; s < 2; s++)
        cpu[s] = machine_node(graph, CINCH_NODE_SWITCH, host, "cpu", host, s);
    machine_join(graph, cpu[0], cpu[1], 10 + machine_below(30), uneven, CINCH_LINK_SYS);
    for (int b = 0; b < 4; b++) {
        bridge[b] = machine_node(graph, CINCH_NODE_SWITCH, host, "pci", host, b);
        machine_join(graph, bridge[b], cpu[b / 2], pci, uneven, CINCH_LINK_PCI);
    }
    for (int i = 0; i < gpus; i++) {
        gpu[i] = machine_node(graph, CINCH_NODE_GPU, host, "gpu", host, i);
        machine_join(graph, gpu[i], bridge[i * 4 / gpus], machine_below(12) ? pci : pci / 4, uneven,
                     CINCH_LINK_PCI);
    }
    machine_join_inside(graph, gpu, gpus, host, uneven);
    double gbps = speed[machine_below(8)] * fast;
    for (int i = 0; i < nics && rails; i++) {
        int nic = machine_node(graph, CINCH_NODE_SWITCH, host, "nic", host, i);
        machine_join(graph, nic, bridge[machine_below(4)], pci, uneven, CINCH_LINK_PCI);
        machine_join(graph, nic, rail[i % rails],
                     machine_below(5) ? gbps : speed[machine_below(8)] * fast, uneven,
                     CINCH_LINK_NET);
    }
}

static inline void random_machine(cinch_graph *graph, uint64_t number) {
    machine_seed = 88172645463325252u + number * 0x9e3779b97f4a7c15u;
    int left = 2 + machine_below(31), hosts = 0, rail[4], rails = 0;
    bool uneven = machine_below(3) == 0, alone = machine_below(3) == 0;
    double fast = 1 << machine_below(4); /* the network, beside what is inside */
    if (!alone) rails = 1 + machine_below(4);
    for (int i = 0; i < rails; i++)
        rail[i] = machine_node(graph, CINCH_NODE_SWITCH, -1, "rail", 0, i);
    if (rails > 1) {
        int spine = machine_node(graph, CINCH_NODE_SWITCH, -1, "spine", 0, 0);
        for (int i = 0; i < rails; i++)
            machine_join(graph, rail[i], spine, fast * (10 << machine_below(5)), uneven,
                         CINCH_LINK_NET);
    }
    int per_host = alone ? left : 1 << machine_below(4);
    for (; left > 0; hosts++) {
        int gpus = alone || machine_below(4)
                       ? per_host
                       : 1 + machine_below(8); /* now and then another number */
        if (gpus > left) gpus = left;
        machine_host(graph, hosts, gpus, rail, rails, fast, uneven);
        left -= gpus;
    }
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The machine that this process runs on, as a graph: what sysfs, hwloc, NVML and libibverbs tell of
 * it, as far as each is there. */
#ifndef CINCH_TOPO_DETECT_H_
#define CINCH_TOPO_DETECT_H_

#include "topo/readers.h"

typedef struct cinch_detect_options {
    const char *root; /* stands before /sys and /proc: a recorded machine; NULL: this one. Of a
                       * recorded one only its files are looked at, and NVML where it is named */
    const char *nvml; /* the library to load; NULL: libnvidia-ml.so.1; "": none */
} cinch_detect_options;

/* The machine is one host; GPUs are gpu0.. in the order of their PCI addresses, CPUs are NUMA
 * nodes, cpu0... There is at least one CPU, and what could not be seen is a warning. *t need not be
 * initialized, after an error it is empty. options NULL: this machine.
 * InvalidArgument: options->root is no folder, or more parts than CINCH_TOPOLOGY_MOST_PARTS;
 * SystemError: out of memory. */
cinchResult_t cinch_detect(const cinch_detect_options *options, cinch_topology *t);

/* The name of the CPU part of `graph` (as cinch_detect makes it) where the calling thread runs now,
 * "" where the graph has no CPU. A thread that is bound to one NUMA node stays there. */
void cinch_detect_place(const cinch_graph *graph, char at[CINCH_GRAPH_MOST_NAME + 1]);

#endif

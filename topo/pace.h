/* SPDX-License-Identifier: Apache-2.0 */
/* How long messages between the ranks of a machine take at most: the latency of their ways, and the
 * bandwidth of the slowest link that they cross. */
#ifndef CINCH_TOPO_PACE_H_
#define CINCH_TOPO_PACE_H_

#include "topo/graph.h"

enum { CINCH_LINK_CLASSES = CINCH_LINK_SHM + 1 };

/* Microseconds of a link, by its class. Where messages pass two links of a kind, together they are
 * what NCCL's tuner has for a hop of its low-latency protocol (tuning.cc): NVLink 0.6 us, PCI 1 us;
 * a way between hosts is four PCI links and two of the network, 5 us in its trees. Between CPUs:
 * UCX's 0.5 us (ucs_topo). Shared memory: half of what cinch_cost_step has without a graph. Links
 * of a `.graph` have no class. */
#define CINCH_LINK_LATENCIES                                                                       \
    {                                                                                              \
        [CINCH_LINK_OTHER] = 0.5, [CINCH_LINK_NVLINK] = 0.3, [CINCH_LINK_C2C] = 0.3,               \
        [CINCH_LINK_PCI] = 0.5, [CINCH_LINK_SYS] = 0.5, [CINCH_LINK_NET] = 1.5,                    \
        [CINCH_LINK_SHM] = 0.2                                                                     \
    }

/* Over all ways from a rank to another; ways are those of topo/route.h. */
typedef struct cinch_pace {
    double step_us;  /* the largest latency of a way: its links' */
    double byte_us;  /* of a byte on the narrowest link */
    double crossing; /* where every rank sends as much to every other, the busiest link is busy so
                        many times as long as the narrowest is with what one rank sends in all */
} cinch_pace;

/* All zero where there are less than two ranks, or no way between two. SystemError: out of memory.
 * The ways to at most so many ranks are looked at as take a moment. */
cinchResult_t cinch_pace_find(const cinch_graph *graph, cinch_pace *pace);

#endif

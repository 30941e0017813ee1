/* SPDX-License-Identifier: Apache-2.0 */
/* How fast a collective can be on a graph at most: bytes of the result over time, in GB/s.
 *
 * No plan is faster, whatever it does, as long as GPUs send what they have or have reduced, and
 * switches only forward: no latency is counted, and no multicast or reduction in the network. With
 * fewer than two GPUs nothing has to move: every bound is INFINITY. Where a GPU cannot be reached,
 * bounds are 0. */
#ifndef CINCH_TOPO_BOUNDS_H_
#define CINCH_TOPO_BOUNDS_H_

#include "topo/graph.h"

typedef struct cinch_bounds {
    double allgather, reducescatter; /* attained where every switch has as much in as out */
    double broadcast, reduce;        /* from and to one root */
    double allreduce;                /* any plan */
    double allreduce_two_step; /* a reduce-scatter, then an all-gather: not a bound on others */
} cinch_bounds;

/* All of them; `root` is a rank. InvalidArgument: no such rank; SystemError: out of memory. */
cinchResult_t cinch_bounds_find(const cinch_graph *graph, int root, cinch_bounds *bounds);

#endif

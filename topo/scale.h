/* SPDX-License-Identifier: Apache-2.0 */
/* A graph's bandwidths as whole numbers, for exact arithmetic. */
#ifndef CINCH_TOPO_SCALE_H_
#define CINCH_TOPO_SCALE_H_

#include <stdint.h>

#include "topo/graph.h"

/* All capacities together are at most this, so that they may be multiplied by a number of nodes. */
#define CINCH_SCALE_MOST ((int64_t)1 << 44)

/* capacity[i] = arc i's bandwidth in units of *unit GB/s.
 *
 * Where all bandwidths are decimal fractions of up to nine digits behind the point (and their sum
 * is small enough), the unit is the largest that makes them whole, and nothing is lost. Elsewhere
 * it is the smallest power of two that keeps the sum small enough, and capacities are rounded up,
 * so that a bound stays a bound. The same numbers on every machine. */
void cinch_scale_capacities(const cinch_graph *graph, int64_t *capacity, double *unit);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Ways through a graph for messages that no plan speaks of: through switches only, over the fewest
 * links, among those over the widest. Among equals the lowest node, so the way is the same
 * whatever the order of arcs. */
#ifndef CINCH_TOPO_ROUTE_H_
#define CINCH_TOPO_ROUTE_H_

#include "topo/graph.h"

/* All ways to one node. */
typedef struct cinch_routes {
    const cinch_graph *graph;
    int *first, *in; /* arcs that end in node v: in[first[v] .. first[v + 1]) */
    int *hops;       /* node: links to go; -1: there is no way */
    int *arc;        /* node: the first of them */
    double *width;   /* node: the narrowest of them, GB/s */
    int *queue;
    int to;
} cinch_routes;

/* SystemError: out of memory. */
cinchResult_t cinch_routes_make(const cinch_graph *graph, cinch_routes *routes);
void cinch_routes_free(cinch_routes *routes);

/* Finds the ways to a node from all others, in place of those found before. */
void cinch_routes_to(cinch_routes *routes, int node);

#endif

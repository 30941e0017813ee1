/* SPDX-License-Identifier: Apache-2.0 */
/* A machine as `cinch topo` shows it: its links as pairs, its parts by host, and what a file that
 * says neither hosts nor parts (`.graph`) lets one guess from names. Planning never looks here. */
#ifndef CINCH_PERF_TOPO_VIEW_H_
#define CINCH_PERF_TOPO_VIEW_H_

#include "base/status.h"
#include "topo/graph.h"

/* Both directions between two nodes, a < b. */
typedef struct cinch_view_link {
    int a, b;
    double gbps, back; /* from a to b, from b to a; 0: no link that way */
    cinch_link_class link;
} cinch_view_link;

/* A node's links: other ends and numbers of links, by ascending other end. */
typedef struct cinch_view_end {
    int node, link;
} cinch_view_end;

typedef struct cinch_view {
    const cinch_graph *graph;
    int hosts;
    int *host;        /* by node; -1: between hosts */
    cinch_part *part; /* by node; of a GPU without meaning */
    int *rank;        /* by node; -1: no GPU */
    cinch_view_link *link;
    int links;
    cinch_view_end *end; /* of node i: end[first[i]] up to end[first[i + 1]] */
    int *first;
} cinch_view;

/* The graph stays where it is while the view is used. SystemError: out of memory; then nothing
 * needs to be freed. */
cinchResult_t cinch_view_make(cinch_view *view, const cinch_graph *graph);
void cinch_view_free(cinch_view *view);

#endif

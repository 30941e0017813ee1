/* SPDX-License-Identifier: Apache-2.0 */
/* Breadth-first search backwards from where the ways lead. */
#include "topo/route.h"

#include <math.h>
#include <stdlib.h>

cinchResult_t cinch_routes_make(const cinch_graph *graph, cinch_routes *r) {
    size_t nodes = (size_t)graph->nodes;
    *r = (cinch_routes){.graph = graph, .to = -1};
    r->first = calloc(nodes + 2, sizeof *r->first);
    r->in = malloc(((size_t)graph->arcs + 1) * sizeof *r->in);
    r->hops = malloc((nodes + 1) * sizeof *r->hops);
    r->arc = malloc((nodes + 1) * sizeof *r->arc);
    r->width = malloc((nodes + 1) * sizeof *r->width);
    r->queue = malloc((nodes + 1) * sizeof *r->queue);
    if (!r->first || !r->in || !r->hops || !r->arc || !r->width || !r->queue) {
        cinch_routes_free(r);
        return cinch_fail(cinchSystemError, "out of memory for ways through %d nodes",
                          graph->nodes);
    }
    for (int a = 0; a < graph->arcs; a++) r->first[graph->arc[a].to + 2]++;
    for (int v = 0; v < graph->nodes; v++) r->first[v + 2] += r->first[v + 1];
    for (int a = 0; a < graph->arcs; a++) r->in[r->first[graph->arc[a].to + 1]++] = a;
    return cinchSuccess;
}

void cinch_routes_free(cinch_routes *r) {
    free(r->first);
    free(r->in);
    free(r->hops);
    free(r->arc);
    free(r->width);
    free(r->queue);
    *r = (cinch_routes){0};
}

/* Whether the way from an arc's start that begins with it is better than the one that is known. */
static bool better(const cinch_routes *r, const cinch_arc *arc, double width) {
    if (width != r->width[arc->from]) return width > r->width[arc->from];
    return arc->to < r->graph->arc[r->arc[arc->from]].to;
}

void cinch_routes_to(cinch_routes *r, int node) {
    const cinch_graph *graph = r->graph;
    int queued = 0;
    r->to = node;
    for (int v = 0; v < graph->nodes; v++) r->hops[v] = -1;
    r->hops[node] = 0;
    r->width[node] = INFINITY;
    r->queue[queued++] = node;
    for (int i = 0; i < queued; i++) {
        int at = r->queue[i];
        if (at != node && graph->node[at].kind == CINCH_NODE_GPU) continue; /* forwards nothing */
        for (int k = r->first[at]; k < r->first[at + 1]; k++) {
            const cinch_arc *arc = &graph->arc[r->in[k]];
            double width = fmin(r->width[at], arc->gbps);
            bool fresh = r->hops[arc->from] < 0;
            if (!fresh && (r->hops[arc->from] != r->hops[at] + 1 || !better(r, arc, width)))
                continue;
            if (fresh) r->queue[queued++] = arc->from;
            r->hops[arc->from] = r->hops[at] + 1;
            r->width[arc->from] = width;
            r->arc[arc->from] = r->in[k];
        }
    }
}

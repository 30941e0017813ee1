/* SPDX-License-Identifier: Apache-2.0 */
/* The slowest of all ways between ranks. */
#include "topo/pace.h"

#include <math.h>
#include <stdlib.h>

#include "topo/route.h"

static const double latency_us[] = CINCH_LINK_LATENCIES;
static const double MOST_LOOKS = 1 << 27; /* at nodes and arcs: less than a second */

typedef struct look {
    cinch_routes routes;
    double *latency; /* node: of its way */
    double *senders; /* node: ranks whose ways pass it, or begin there */
    double *load;    /* arc: ways that pass it */
    double step_us, narrowest;
} look;

/* All ways to a rank's node; false: there is none from another rank. */
static bool add_ways_to(look *l, int node) {
    const cinch_graph *g = l->routes.graph;
    int reached = 0;
    cinch_routes_to(&l->routes, node);
    for (int v = 0; v < g->nodes; v++) {
        reached += l->routes.hops[v] >= 0;
        l->senders[v] = 0;
    }
    l->latency[node] = 0;
    for (int i = 0; i < g->gpus; i++) {
        if (l->routes.hops[g->gpu[i]] < 0) return false;
        l->senders[g->gpu[i]] = 1;
    }
    for (int i = 1; i < reached; i++) { /* the queue is in the order of hops */
        int v = l->routes.queue[i];
        const cinch_arc *arc = &g->arc[l->routes.arc[v]];
        l->latency[v] = l->latency[arc->to] + latency_us[arc->link];
    }
    for (int i = reached - 1; i > 0; i--) {
        int v = l->routes.queue[i], a = l->routes.arc[v];
        l->load[a] += l->senders[v];
        l->senders[g->arc[a].to] += l->senders[v];
    }
    for (int i = 0; i < g->gpus; i++) {
        if (g->gpu[i] == node) continue;
        l->step_us = fmax(l->step_us, l->latency[g->gpu[i]]);
        l->narrowest = fmin(l->narrowest, l->routes.width[g->gpu[i]]);
    }
    return true;
}

static void add_all_ways(look *l, cinch_pace *pace) {
    const cinch_graph *g = l->routes.graph;
    double each = (double)g->nodes + g->arcs, busiest = 0, looked = 0;
    int stride = 1 + (int)(g->gpus * each / MOST_LOOKS);
    l->narrowest = INFINITY;
    for (int i = 0; i < g->gpus; i += stride, looked++)
        if (!add_ways_to(l, g->gpu[i])) return;
    for (int a = 0; a < g->arcs; a++) busiest = fmax(busiest, l->load[a] / g->arc[a].gbps);
    *pace = (cinch_pace){.step_us = l->step_us,
                         .byte_us = 1 / (l->narrowest * 1e3),
                         .crossing = busiest * (g->gpus / looked) * l->narrowest / (g->gpus - 1)};
}

cinchResult_t cinch_pace_find(const cinch_graph *graph, cinch_pace *pace) {
    look l = {0};
    *pace = (cinch_pace){0};
    if (graph->gpus < 2) return cinchSuccess;
    CINCH_TRY(cinch_routes_make(graph, &l.routes));
    l.latency = calloc((size_t)graph->nodes, sizeof *l.latency);
    l.senders = calloc((size_t)graph->nodes, sizeof *l.senders);
    l.load = calloc((size_t)graph->arcs + 1, sizeof *l.load);
    bool room = l.latency && l.senders && l.load;
    if (room) add_all_ways(&l, pace);
    cinch_routes_free(&l.routes);
    free(l.latency);
    free(l.senders);
    free(l.load);
    return room ? cinchSuccess
                : cinch_fail(cinchSystemError, "out of memory for ways between %d ranks",
                             graph->gpus);
}

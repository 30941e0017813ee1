/* SPDX-License-Identifier: Apache-2.0 */
/* The graph as the planner works on it: arcs in one order whatever order they were added in, and
 * every GPU reachable. */
#include <stdlib.h>
#include <string.h>

#include "topo/pack.h"

typedef struct {
    int from, to;
    double cap;
    int shared;
} sortable;

static int by_ends(const void *a, const void *b) {
    const sortable *x = a, *y = b;
    if (x->from != y->from) return x->from < y->from ? -1 : 1;
    return (x->to > y->to) - (x->to < y->to);
}

static cinchResult_t allocate(cinch_pack_net *net) {
    size_t arcs = (size_t)net->arcs + 1, nodes = (size_t)net->nodes + 1;
    net->from = malloc(arcs * sizeof(int));
    net->to = malloc(arcs * sizeof(int));
    net->twin = malloc(arcs * sizeof(int));
    net->in_arc = malloc(arcs * sizeof(int));
    net->cap = malloc(arcs * sizeof(double));
    net->shared = malloc(arcs * sizeof(int));
    net->out = calloc(nodes, sizeof(int));
    net->in = calloc(nodes, sizeof(int));
    net->rank = malloc(nodes * sizeof(int));
    net->place = malloc(nodes * sizeof(int));
    if (net->from && net->to && net->twin && net->in_arc && net->cap && net->shared && net->out &&
        net->in && net->rank && net->place)
        return cinchSuccess;
    return cinch_fail(cinchSystemError, "out of memory for a plan over %d nodes", net->nodes);
}

static cinchResult_t sort_arcs(const cinch_graph *graph, bool reversed, cinch_pack_net *net) {
    sortable *sorted = malloc(((size_t)net->arcs + 1) * sizeof *sorted);
    if (!sorted) return cinch_fail(cinchSystemError, "out of memory for a plan");
    for (int a = 0; a < net->arcs; a++) {
        const cinch_arc *arc = &graph->arc[a];
        sorted[a] = reversed ? (sortable){arc->to, arc->from, arc->gbps, arc->shared}
                             : (sortable){arc->from, arc->to, arc->gbps, arc->shared};
    }
    qsort(sorted, (size_t)net->arcs, sizeof *sorted, by_ends);
    for (int a = 0; a < net->arcs; a++) {
        net->from[a] = sorted[a].from;
        net->to[a] = sorted[a].to;
        net->cap[a] = sorted[a].cap;
        net->shared[a] = sorted[a].shared;
        net->shares |= sorted[a].shared > 0;
        net->out[sorted[a].from + 1]++;
        net->in[sorted[a].to + 1]++;
    }
    free(sorted);
    return cinchSuccess;
}

/* Marks what `from` reaches, over switches only; arcs backwards where `back`. */
static void reach(const cinch_pack_net *net, int from, bool back, bool *seen, int *queue) {
    int head = 0, tail = 0;
    memset(seen, 0, (size_t)net->nodes * sizeof *seen);
    queue[tail++] = from;
    seen[from] = true;
    while (head < tail) {
        int node = queue[head++];
        int begin = back ? net->in[node] : net->out[node];
        int end = back ? net->in[node + 1] : net->out[node + 1];
        for (int i = begin; i < end; i++) {
            int next = back ? net->from[net->in_arc[i]] : net->to[i];
            if (!seen[next]) {
                seen[next] = true;
                queue[tail++] = next;
            }
        }
    }
}

static cinchResult_t check_reach(const cinch_graph *graph, const cinch_pack_net *net) {
    bool *seen = malloc((size_t)net->nodes * sizeof *seen);
    int *queue = malloc((size_t)net->nodes * sizeof *queue);
    int lost = -1;
    bool back = false;
    if (seen && queue)
        for (int way = 0; way < 2 && lost < 0; way++) {
            back = way;
            reach(net, net->place[0], back, seen, queue);
            for (int r = 0; r < net->ranks && lost < 0; r++)
                if (!seen[net->place[r]]) lost = net->place[r];
        }
    bool had = seen && queue;
    free(seen);
    free(queue);
    if (!had) return cinch_fail(cinchSystemError, "out of memory for a plan");
    if (lost < 0) return cinchSuccess;
    const char *first = graph->node[net->place[0]].name, *other = graph->node[lost].name;
    return cinch_fail(cinchInvalidArgument,
                      "no links lead from %s to %s: a plan needs every GPU to reach every other",
                      back ? other : first, back ? first : other);
}

cinchResult_t cinch_pack_net_make(const cinch_graph *graph, bool reversed, cinch_pack_net *net) {
    *net = (cinch_pack_net){.nodes = graph->nodes, .arcs = graph->arcs};
    CINCH_TRY(allocate(net));
    CINCH_TRY(sort_arcs(graph, reversed, net));
    for (int i = 0; i < net->nodes; i++) {
        net->out[i + 1] += net->out[i];
        net->in[i + 1] += net->in[i];
        net->rank[i] = graph->node[i].kind == CINCH_NODE_GPU ? net->ranks : -1;
        if (net->rank[i] >= 0) net->place[net->ranks++] = i;
    }
    /* In the order of sources, since arcs are: each one's place is counted from its node's first.
     */
    for (int a = 0; a < net->arcs; a++) net->in_arc[net->in[net->to[a]]++] = a;
    for (int i = net->nodes; i > 0; i--) net->in[i] = net->in[i - 1];
    net->in[0] = 0;
    net->symmetric = !net->shares;
    for (int a = 0; a < net->arcs; a++) {
        int twin = net->twin[a] = cinch_pack_net_arc(net, net->to[a], net->from[a]);
        if (twin < 0 || net->cap[twin] != net->cap[a]) net->symmetric = false;
    }
    if (net->ranks < 1)
        return cinch_fail(cinchInvalidArgument,
                          "the graph has no GPU: a plan is for one rank or more");
    return check_reach(graph, net);
}

void cinch_pack_net_free(cinch_pack_net *net) {
    free(net->from);
    free(net->to);
    free(net->twin);
    free(net->cap);
    free(net->shared);
    free(net->out);
    free(net->in);
    free(net->in_arc);
    free(net->rank);
    free(net->place);
    *net = (cinch_pack_net){0};
}

int cinch_pack_net_arc(const cinch_pack_net *net, int from, int to) {
    int low = net->out[from], high = net->out[from + 1];
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (net->to[middle] < to)
            low = middle + 1;
        else
            high = middle;
    }
    return low < net->out[from + 1] && net->to[low] == to ? low : -1;
}

cinchResult_t cinch_pack_half_make(int ranks, size_t arcs, cinch_pack_half *half) {
    size_t n = (size_t)ranks;
    half->parent = malloc((2 * n + 1 + arcs) * sizeof(int));
    if (!half->parent) return cinch_fail(cinchSystemError, "out of memory for a plan's tree");
    half->first = half->parent + n;
    half->arc = half->first + n + 1;
    return cinchSuccess;
}

void cinch_pack_half_free(cinch_pack_half *half) {
    free(half->parent);
    *half = (cinch_pack_half){0};
}

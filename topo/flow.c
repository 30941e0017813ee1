/* SPDX-License-Identifier: Apache-2.0 */
/* Dinic's maximum flow (1970): shortest ways first, a blocking flow at a time, with current arcs.
 * It searches from one end only and stops at the other, so that a run costs no more than the part
 * of the network between them.
 *
 * Where many short ways end at the far node, each a little longer than the one before (supplies
 * along a ring), shortest ways alone would make a phase of each. So a run's later phases also take
 * ways that are longer, by 2, 4, 8...: along increasing distance, with the last arc to the far node
 * from anywhere. The shortest ways are among them, so their length still grows with each phase. */
#include "topo/flow.h"

#include <stdlib.h>
#include <string.h>

static cinchResult_t fail_memory(void) {
    return cinch_fail(cinchSystemError, "out of memory for a flow network");
}

static int *ints(int count) {
    return calloc((size_t)count + 1, sizeof(int));
}

cinchResult_t cinch_flow_make(cinch_flow *flow, int nodes) {
    *flow = (cinch_flow){.nodes = nodes};
    flow->first = ints(nodes + 1);
    flow->level = ints(nodes);
    flow->cursor = ints(nodes);
    flow->queue = ints(nodes);
    flow->path = ints(nodes);
    if (!flow->first || !flow->level || !flow->cursor || !flow->queue || !flow->path)
        return fail_memory();
    for (int v = 0; v < nodes; v++) flow->level[v] = -1;
    return cinchSuccess;
}

void cinch_flow_free(cinch_flow *flow) {
    free(flow->to);
    free(flow->left);
    free(flow->capacity);
    free(flow->first);
    free(flow->out);
    free(flow->level);
    free(flow->cursor);
    free(flow->queue);
    free(flow->path);
    memset(flow, 0, sizeof *flow);
}

static bool grow(void *array, int count, size_t size) {
    void *grown = realloc(*(void **)array, (size_t)count * size);
    if (grown) *(void **)array = grown;
    return grown != NULL;
}

cinchResult_t cinch_flow_add(cinch_flow *flow, int from, int to, int64_t capacity, int64_t back,
                             int *arc) {
    if (flow->arcs == flow->arc_room) {
        int more = flow->arc_room ? 2 * flow->arc_room : 64;
        if (!grow(&flow->to, more, sizeof *flow->to) ||
            !grow(&flow->left, more, sizeof *flow->left) ||
            !grow(&flow->capacity, more, sizeof *flow->capacity) ||
            !grow(&flow->out, more, sizeof *flow->out))
            return fail_memory();
        flow->arc_room = more;
    }
    int e = flow->arcs;
    flow->to[e] = to;
    flow->to[e + 1] = from;
    flow->capacity[e] = flow->left[e] = capacity;
    flow->capacity[e + 1] = flow->left[e + 1] = back;
    flow->arcs += 2;
    flow->listed = false;
    if (arc) *arc = e;
    return cinchSuccess;
}

cinchResult_t cinch_flow_of_graph(cinch_flow *flow, const cinch_graph *graph,
                                  const int64_t *capacity, int spare, int *arc) {
    CINCH_TRY(cinch_flow_make(flow, graph->nodes + spare));
    for (int i = 0; i < graph->arcs; i++) {
        const cinch_arc *a = &graph->arc[i];
        int back = cinch_graph_find_arc(graph, a->to, a->from), e = 0;
        if (back >= 0 && back < i) continue;
        CINCH_TRY(
            cinch_flow_add(flow, a->from, a->to, capacity[i], back < 0 ? 0 : capacity[back], &e));
        if (arc) arc[i] = e;
        if (arc && back >= 0) arc[back] = e ^ 1;
    }
    return cinchSuccess;
}

void cinch_flow_reset(cinch_flow *flow, int64_t times) {
    for (int e = 0; e < flow->arcs; e++) flow->left[e] = flow->capacity[e] * times;
}

/* Sorts the arcs by the node that they leave. */
static void list_arcs(cinch_flow *flow) {
    int *first = flow->first;
    memset(first, 0, (size_t)(flow->nodes + 1) * sizeof *first);
    for (int e = 0; e < flow->arcs; e++) first[flow->to[e ^ 1] + 1]++;
    for (int v = 0; v < flow->nodes; v++) first[v + 1] += first[v];
    for (int e = 0; e < flow->arcs; e++) flow->out[first[flow->to[e ^ 1]]++] = e;
    for (int v = flow->nodes; v > 0; v--) first[v] = first[v - 1];
    first[0] = 0;
    flow->listed = true;
}

static void reach(cinch_flow *flow, int node, int level) {
    flow->level[node] = level;
    flow->cursor[node] = flow->first[node];
    flow->queue[flow->queued++] = node;
}

/* Distances from the near end, up to the far one's and `longer` beyond; false: it cannot be
 * reached. An arc e out of a node is looked at as e ^ back: against its direction where the near
 * end is the sink. */
static bool search(cinch_flow *flow, int near, int far, int back, int longer) {
    for (int i = 0; i < flow->queued; i++) flow->level[flow->queue[i]] = -1;
    flow->queued = 0;
    reach(flow, near, 0);
    for (int i = 0; i < flow->queued; i++) {
        int v = flow->queue[i];
        if (v == far) continue;
        if (flow->level[far] >= 0 && flow->level[v] + 1 >= flow->level[far] + longer) return true;
        for (int j = flow->first[v]; j < flow->first[v + 1]; j++) {
            int e = flow->out[j], w = flow->to[e];
            if (flow->level[w] < 0 && flow->left[e ^ back] > 0) reach(flow, w, flow->level[v] + 1);
        }
    }
    return flow->level[far] >= 0;
}

/* The next arc of a way from v, -1: none is left. */
static int advance(cinch_flow *flow, int v, int far, int back, int most) {
    for (int *j = &flow->cursor[v]; *j < flow->first[v + 1]; ++*j) {
        int e = flow->out[*j], w = flow->to[e];
        if (flow->left[e ^ back] > 0 &&
            (w == far || (flow->level[w] == flow->level[v] + 1 && flow->level[w] < most)))
            return e;
    }
    return -1;
}

/* Pushes as much as a way of arcs takes; how many of its first arcs can take more. */
static int push_along(cinch_flow *flow, int length, int back, int64_t *limit) {
    int64_t amount = *limit;
    for (int i = 0; i < length; i++) {
        int64_t left = flow->left[flow->path[i] ^ back];
        if (left < amount) amount = left;
    }
    int keep = length;
    for (int i = length - 1; i >= 0; i--) {
        int e = flow->path[i] ^ back;
        flow->left[e] -= amount;
        flow->left[e ^ 1] += amount;
        if (flow->left[e] == 0) keep = i;
    }
    *limit -= amount;
    return keep;
}

/* Fills the ways until each has a full arc, or the limit is reached. */
static void block(cinch_flow *flow, int near, int far, int back, int longer, int64_t *limit) {
    int length = 0, v = near, most = flow->level[far] + longer;
    while (*limit > 0) {
        int e = v == far ? -1 : advance(flow, v, far, back, most);
        if (e >= 0) {
            flow->path[length++] = e;
            v = flow->to[e];
        } else if (v == far) {
            length = push_along(flow, length, back, limit);
            v = length > 0 ? flow->to[flow->path[length - 1]] : near;
        } else {
            if (length == 0) return;
            v = flow->to[flow->path[--length] ^ 1];
            flow->cursor[v]++; /* its way ended nowhere */
        }
    }
}

static cinchResult_t run(cinch_flow *flow, int near, int far, int back, int64_t limit,
                         int64_t *pushed) {
    int64_t left = limit;
    *pushed = 0;
    if (near == far) return cinch_fail(cinchInternalError, "a flow from node %d to itself", near);
    if (!flow->listed) list_arcs(flow);
    for (int longer = 0; left > 0 && search(flow, near, far, back, longer);) {
        block(flow, near, far, back, longer, &left);
        if (longer < flow->nodes) longer = longer ? 2 * longer : 2;
    }
    *pushed = limit - left;
    return cinchSuccess;
}

cinchResult_t cinch_flow_push(cinch_flow *flow, int source, int sink, int64_t limit,
                              int64_t *pushed) {
    return run(flow, source, sink, 0, limit, pushed);
}

cinchResult_t cinch_flow_pull(cinch_flow *flow, int source, int sink, int64_t limit,
                              int64_t *pushed) {
    return run(flow, sink, source, 1, limit, pushed);
}

bool cinch_flow_near(const cinch_flow *flow, int node) {
    return flow->level[node] >= 0;
}

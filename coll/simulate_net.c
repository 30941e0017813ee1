/* SPDX-License-Identifier: Apache-2.0 */
/* Ties the schedules of all ranks together. */
#include "coll/simulate_net.h"

#include <stdlib.h>

#include "topo/route.h"

enum { MOST_ENDS = 1 << 26 };

/* One end, to be sorted: those between a pair lie side by side, by their marks, in list order. */
typedef struct entry {
    uint32_t key; /* peer, mark */
    uint32_t end;
} entry;

static int peer_of(const entry *e) {
    return (int)(e->key >> 16);
}

static int by_key(const void *a, const void *b) {
    const entry *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->end < y->end ? -1 : 1;
}

/* Sends [0] and receives [1] of all ranks, each rank's sorted. */
typedef struct entries {
    entry *list[2];
    uint32_t *first[2]; /* [ranks + 1] */
} entries;

static void entries_free(entries *e) {
    for (int i = 0; i < 2; i++) {
        free(e->list[i]);
        free(e->first[i]);
    }
}

static cinchResult_t no_memory(const cinch_sim_net *net) {
    return cinch_fail(cinchSystemError, "out of memory for simulating %d ranks", net->ranks);
}

void cinch_sim_net_free(cinch_sim_net *net) {
    for (int r = 0; net->schedule && r < net->ranks; r++) cinch_schedule_free(&net->schedule[r]);
    free(net->schedule);
    free(net->first);
    free(net->end);
    free(net->flow);
    free(net->arcs);
    *net = (cinch_sim_net){0};
}

static cinchResult_t build_schedules(cinch_sim_net *net, const cinch_algo *algo,
                                     const cinch_call *call) {
    size_t ends = 0;
    net->schedule = calloc((size_t)net->ranks, sizeof *net->schedule);
    net->first = calloc((size_t)net->ranks + 1, sizeof *net->first);
    if (!net->schedule || !net->first) return no_memory(net);
    for (int r = 0; r < net->ranks; r++) {
        cinch_schedule *s = &net->schedule[r];
        CINCH_TRY(cinch_algo_build(algo, r, call, s));
        if (s->windowed || s->stage_slots)
            return cinch_fail_quiet(
                cinchInvalidArgument,
                "%s cannot be simulated: its ranks read each other's memory, and "
                "only messages are simulated",
                algo->name);
        ends += s->nmsg;
        if (ends > MOST_ENDS)
            return cinch_fail_quiet(
                cinchInvalidArgument,
                "%s on %d ranks cannot be simulated: it has more than %d messages "
                "in a round",
                algo->name, net->ranks, MOST_ENDS / 2);
        net->first[r + 1] = (uint32_t)ends;
    }
    net->ends = (uint32_t)ends;
    net->end = calloc(ends + 1, sizeof *net->end);
    return net->end ? cinchSuccess : no_memory(net);
}

/* ---- which receive belongs to which send ---- */

static cinchResult_t collect(cinch_sim_net *net, entries *e) {
    for (int i = 0; i < 2; i++) {
        e->list[i] = malloc(((size_t)net->ends + 1) * sizeof *e->list[i]);
        e->first[i] = calloc((size_t)net->ranks + 1, sizeof *e->first[i]);
        if (!e->list[i] || !e->first[i]) return no_memory(net);
    }
    uint32_t used[2] = {0};
    for (int r = 0; r < net->ranks; r++) {
        const cinch_schedule *s = &net->schedule[r];
        for (int i = 0; i < s->nitems; i++) {
            const cinch_item *item = &s->item[i];
            if (item->op != CINCH_DO_SEND && item->op != CINCH_DO_RECV) continue;
            int receives = item->op == CINCH_DO_RECV;
            uint32_t end = net->first[r] + item->msg;
            net->end[end].item = (uint32_t)i;
            e->list[receives][used[receives]++] =
                (entry){(uint32_t)item->peer << 16 | item->mark, end};
        }
        for (int i = 0; i < 2; i++) {
            e->first[i][r + 1] = used[i];
            qsort(e->list[i] + e->first[i][r], used[i] - e->first[i][r], sizeof(entry), by_key);
        }
    }
    return cinchSuccess;
}

/* The first receive of rank `to` that is from `from` or a higher rank. */
static uint32_t find_receive(const entries *e, int from, int to) {
    uint32_t low = e->first[1][to], high = e->first[1][to + 1];
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (peer_of(&e->list[1][middle]) < from)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static cinchResult_t add_flow(cinch_sim_net *net, int from, const entry *send) {
    if (net->flows == net->flow_room) {
        uint32_t room = net->flow_room ? 2 * net->flow_room : 256;
        cinch_sim_flow *flow = realloc(net->flow, room * sizeof *flow);
        if (!flow) return no_memory(net);
        net->flow = flow;
        net->flow_room = room;
    }
    net->flow[net->flows++] = (cinch_sim_flow){
        .from = (uint16_t)from, .to = (uint16_t)peer_of(send), .mark = (uint16_t)send->key};
    return cinchSuccess;
}

/* Where paths are given, each mark has its own, and its messages wait for no others. */
static cinchResult_t match(cinch_sim_net *net, const entries *e) {
    uint32_t matched = 0;
    for (int from = 0; from < net->ranks; from++) {
        int last = -1;
        uint32_t receive = 0, key = 0;
        for (uint32_t i = e->first[0][from]; i < e->first[0][from + 1]; i++) {
            const entry *send = &e->list[0][i];
            int to = peer_of(send);
            if (to >= net->ranks || to == from)
                return cinch_fail(cinchInternalError, "rank %d sends to rank %d of %d", from, to,
                                  net->ranks);
            if (to != last) receive = find_receive(e, from, to);
            const entry *r = &e->list[1][receive];
            if (receive == e->first[1][to + 1] ||
                r->key != ((uint32_t)from << 16 | (send->key & 0xffff)))
                return cinch_fail(cinchInternalError,
                                  "rank %d sends to rank %d what that does not receive", from, to);
            if (to != last || (net->options->path && send->key != key))
                CINCH_TRY(add_flow(net, from, send));
            net->end[send->end].flow = net->end[r->end].flow = net->flows - 1;
            net->end[send->end].peer = r->end;
            net->end[r->end].peer = send->end;
            last = to;
            key = send->key;
            receive++;
            matched++;
        }
    }
    if (matched != e->first[1][net->ranks])
        return cinch_fail(cinchInternalError, "ranks receive what nobody sends");
    return cinchSuccess;
}

/* ---- ways ---- */

static cinchResult_t add_arc(cinch_sim_net *net, int arc) {
    if (net->arcs_used == net->arcs_room) {
        size_t room = net->arcs_room ? 2 * net->arcs_room : 1024;
        int *arcs = realloc(net->arcs, room * sizeof *arcs);
        if (!arcs) return no_memory(net);
        net->arcs = arcs;
        net->arcs_room = room;
    }
    net->arcs[net->arcs_used++] = arc;
    return cinchSuccess;
}

static cinchResult_t given_path(cinch_sim_net *net, cinch_sim_flow *flow) {
    const int *node;
    int nodes = 0;
    CINCH_TRY(
        net->options->path(net->options->context, flow->from, flow->to, flow->mark, &node, &nodes));
    flow->route = (uint32_t)net->arcs_used;
    flow->hops = nodes - 1;
    for (int i = 0; i + 1 < nodes; i++) {
        int arc = cinch_graph_find_arc(net->graph, node[i], node[i + 1]);
        if (arc < 0) return cinch_fail(cinchInternalError, "a path runs where there is no link");
        CINCH_TRY(add_arc(net, arc));
    }
    return nodes > 1 ? cinchSuccess
                     : cinch_fail(cinchInternalError, "there is no path from rank %d to rank %d",
                                  flow->from, flow->to);
}

static cinchResult_t found_path(cinch_sim_net *net, const cinch_routes *routes,
                                cinch_sim_flow *flow) {
    int node = cinch_graph_gpu(net->graph, flow->from);
    flow->route = (uint32_t)net->arcs_used;
    flow->hops = routes->hops[node];
    if (flow->hops < 0)
        return cinch_fail_quiet(cinchInvalidArgument, "there is no way over switches from %s to %s",
                                net->graph->node[node].name, net->graph->node[routes->to].name);
    while (node != routes->to) {
        CINCH_TRY(add_arc(net, routes->arc[node]));
        node = net->graph->arc[routes->arc[node]].to;
    }
    return cinchSuccess;
}

/* By where they lead, so that what leads to one node is found at once and need not be kept. */
static cinchResult_t find_paths(cinch_sim_net *net, cinch_routes *routes, uint32_t *head) {
    for (int r = 0; r < net->ranks; r++) head[r] = UINT32_MAX;
    for (uint32_t i = net->flows; i-- > 0;) {
        net->flow[i].next = head[net->flow[i].to];
        head[net->flow[i].to] = i;
    }
    for (int r = 0; r < net->ranks; r++) {
        if (head[r] == UINT32_MAX) continue;
        cinch_routes_to(routes, cinch_graph_gpu(net->graph, r));
        for (uint32_t i = head[r]; i != UINT32_MAX; i = net->flow[i].next)
            CINCH_TRY(found_path(net, routes, &net->flow[i]));
    }
    return cinchSuccess;
}

static cinchResult_t route(cinch_sim_net *net) {
    if (net->options->path) {
        for (uint32_t i = 0; i < net->flows; i++) CINCH_TRY(given_path(net, &net->flow[i]));
        return cinchSuccess;
    }
    cinch_routes routes;
    CINCH_TRY(cinch_routes_make(net->graph, &routes));
    uint32_t *head = malloc((size_t)net->ranks * sizeof *head);
    cinchResult_t result = head ? find_paths(net, &routes, head) : no_memory(net);
    free(head);
    cinch_routes_free(&routes);
    return result;
}

cinchResult_t cinch_sim_net_make(const cinch_graph *graph, const cinch_algo *algo,
                                 const cinch_call *call, const cinch_simulate_options *options,
                                 cinch_sim_net *net) {
    entries e = {0};
    *net = (cinch_sim_net){.graph = graph, .options = options, .ranks = call->nranks};
    cinchResult_t result = build_schedules(net, algo, call);
    if (result == cinchSuccess) result = collect(net, &e);
    if (result == cinchSuccess) result = match(net, &e);
    entries_free(&e);
    if (result == cinchSuccess) result = route(net);
    if (result != cinchSuccess) cinch_sim_net_free(net);
    return result;
}

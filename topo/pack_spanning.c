/* SPDX-License-Identifier: Apache-2.0 */
/* The minimum spanning tree of the GPUs in the metric of paths over switches, from one search that
 * starts at all GPUs at once (Mehlhorn 1988: of the paths between two GPUs' neighbourhoods the
 * shortest is enough). */
#include <stdlib.h>
#include <string.h>

#include "topo/pack.h"
#include "topo/pack_heap.h"

struct cinch_pack_search {
    const cinch_pack_net *net;
    cinch_pack_heap heap;
    cinch_pack_item *bridge; /* arcs between neighbourhoods, with the length of the way over them */
    int bridges;
    double *distance; /* node: to its GPU */
    int *owner;       /* node: that GPU's rank, -1: none yet */
    int *before;      /* node: the arc that leads to it */
    int *set;         /* rank: of the sets that Kruskal's algorithm joins */
    int *chosen;      /* the tree's bridges */
    int *head, *link; /* rank: its first half-edge; half-edge: the next. Edge e has 2e and 2e + 1 */
    int *order;       /* ranks, parents before children */
    int *via;         /* rank: the half-edge from its parent */
};

cinchResult_t cinch_pack_search_make(const cinch_pack_net *net, cinch_pack_search **search) {
    size_t arcs = (size_t)net->arcs + 1, nodes = (size_t)net->nodes, ranks = (size_t)net->ranks;
    cinch_pack_search *s = *search = calloc(1, sizeof *s);
    if (s) {
        s->net = net;
        s->heap.item = malloc(arcs * sizeof *s->heap.item);
        s->bridge = malloc(arcs * sizeof *s->bridge);
        s->distance = malloc(nodes * sizeof(double));
        s->owner = malloc((2 * nodes + 7 * ranks) * sizeof(int));
    }
    if (!s || !s->heap.item || !s->bridge || !s->distance || !s->owner)
        return cinch_fail(cinchSystemError, "out of memory for a plan over %d nodes", net->nodes);
    s->before = s->owner + nodes;
    s->set = s->before + nodes;
    s->chosen = s->set + ranks;
    s->head = s->chosen + ranks;
    s->link = s->head + ranks;
    s->order = s->link + 2 * ranks;
    s->via = s->order + ranks;
    return cinchSuccess;
}

void cinch_pack_search_free(cinch_pack_search *search) {
    if (!search) return;
    free(search->heap.item);
    free(search->bridge);
    free(search->distance);
    free(search->owner);
    free(search);
}

static void expand(cinch_pack_search *s, const double *price, int node) {
    const cinch_pack_net *net = s->net;
    for (int a = net->out[node]; a < net->out[node + 1]; a++)
        if (net->twin[a] >= 0 && s->owner[net->to[a]] < 0)
            cinch_pack_heap_push(&s->heap, s->distance[node] + price[a] + price[net->twin[a]], a);
}

/* Every node's nearest GPU. */
static void neighbourhoods(cinch_pack_search *s, const double *price) {
    const cinch_pack_net *net = s->net;
    for (int i = 0; i < net->nodes; i++) {
        s->owner[i] = net->rank[i];
        s->distance[i] = 0;
        s->before[i] = -1;
    }
    s->heap.count = 0;
    for (int r = 0; r < net->ranks; r++) expand(s, price, net->place[r]);
    while (s->heap.count) {
        cinch_pack_item item = cinch_pack_heap_pop(&s->heap);
        int node = net->to[item.id];
        if (s->owner[node] >= 0) continue;
        s->owner[node] = s->owner[net->from[item.id]];
        s->distance[node] = item.key;
        s->before[node] = item.id;
        expand(s, price, node);
    }
}

static int by_key(const void *a, const void *b) {
    const cinch_pack_item *x = a, *y = b;
    return cinch_pack_heap_less(*x, *y) ? -1 : cinch_pack_heap_less(*y, *x);
}

static int set_of(int *set, int r) {
    while (set[r] != r) r = set[r] = set[set[r]];
    return r;
}

/* Kruskal's algorithm over the bridges; returns how many it chose. */
static int join(cinch_pack_search *s, const double *price, double *cost) {
    const cinch_pack_net *net = s->net;
    s->bridges = 0;
    for (int a = 0; a < net->arcs; a++) {
        int u = net->from[a], v = net->to[a];
        if (u > v || net->twin[a] < 0 || s->owner[u] < 0 || s->owner[u] == s->owner[v]) continue;
        double length = s->distance[u] + price[a] + price[net->twin[a]] + s->distance[v];
        s->bridge[s->bridges++] = (cinch_pack_item){length, a};
    }
    qsort(s->bridge, (size_t)s->bridges, sizeof *s->bridge, by_key);
    for (int r = 0; r < net->ranks; r++) {
        s->set[r] = r;
        s->head[r] = -1;
    }
    int chosen = 0;
    *cost = 0;
    for (int i = 0; i < s->bridges && chosen < net->ranks - 1; i++) {
        int a = s->bridge[i].id, u = s->owner[net->from[a]], v = s->owner[net->to[a]];
        int x = set_of(s->set, u), y = set_of(s->set, v);
        if (x == y) continue;
        s->set[x] = y;
        *cost += s->bridge[i].key;
        s->link[2 * chosen] = s->head[u]; /* the half-edge from u to v */
        s->head[u] = 2 * chosen;
        s->link[2 * chosen + 1] = s->head[v];
        s->head[v] = 2 * chosen + 1;
        s->chosen[chosen++] = a;
    }
    return chosen;
}

/* The rank at the far end of a half-edge. */
static int far_end(const cinch_pack_search *s, int half_edge) {
    int a = s->chosen[half_edge / 2];
    return s->owner[half_edge % 2 ? s->net->from[a] : s->net->to[a]];
}

/* Walks the tree from `root`: order, via; returns the rank that is reached last. */
static int walk(cinch_pack_search *s, int root) {
    int head = 0, tail = 0;
    s->order[tail++] = root;
    s->via[root] = -1;
    while (head < tail) {
        int r = s->order[head++];
        for (int h = s->head[r]; h >= 0; h = s->link[h])
            if (h != (s->via[r] ^ 1) || s->via[r] < 0) {
                int child = far_end(s, h);
                s->via[child] = h;
                s->order[tail++] = child;
            }
    }
    return s->order[tail - 1];
}

/* The middle of the longest path: two walks, and half of the way back. */
static int middle(cinch_pack_search *s) {
    int end = walk(s, walk(s, 0)), length = 0;
    for (int r = end; s->via[r] >= 0; r = far_end(s, s->via[r] ^ 1)) length++;
    for (; length > 1; length -= 2) end = far_end(s, s->via[end] ^ 1);
    return end;
}

/* The arcs of the way along a half-edge, into arc (where given); returns how many. */
static int way(const cinch_pack_search *s, int half_edge, int *arc) {
    const cinch_pack_net *net = s->net;
    int bridge = s->chosen[half_edge / 2], count = 0;
    if (half_edge % 2) bridge = net->twin[bridge];
    for (int n = net->from[bridge]; s->before[n] >= 0; n = net->from[s->before[n]]) count++;
    int before = count;
    if (arc)
        for (int n = net->from[bridge]; s->before[n] >= 0; n = net->from[s->before[n]])
            arc[--before] = s->before[n];
    if (arc) arc[count] = bridge;
    count++;
    for (int n = net->to[bridge]; s->before[n] >= 0; n = net->from[s->before[n]]) {
        if (arc) arc[count] = net->twin[s->before[n]];
        count++;
    }
    return count;
}

cinchResult_t cinch_pack_spanning(cinch_pack_search *search, const double *price,
                                  cinch_pack_half *down, double *cost) {
    int ranks = search->net->ranks;
    *down = (cinch_pack_half){0};
    neighbourhoods(search, price);
    if (join(search, price, cost) < ranks - 1) return cinchSuccess;
    walk(search, middle(search));
    size_t arcs = 0;
    for (int r = 0; r < ranks; r++)
        if (search->via[r] >= 0) arcs += (size_t)way(search, search->via[r], NULL);
    CINCH_TRY(cinch_pack_half_make(ranks, arcs, down));
    int at = 0;
    for (int r = 0; r < ranks; r++) {
        int via = search->via[r];
        down->parent[r] = via < 0 ? -1 : far_end(search, via ^ 1);
        down->first[r] = at;
        if (via >= 0) at += way(search, via, down->arc + at);
    }
    down->first[ranks] = at;
    return cinchSuccess;
}

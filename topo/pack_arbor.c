/* SPDX-License-Identifier: Apache-2.0 */
/* The cheapest arborescences over the GPUs, in the metric of paths over switches, for all roots at
 * once: Edmonds' contraction, which does not depend on the root where every GPU reaches every other
 * (Camerini, Fratta, Maffioli 1979), then an expansion around the root.
 *
 * A round finds for every GPU the nearest GPU outside its own cluster, with one search in which
 * each switch keeps the two nearest GPUs of different clusters; every cluster takes its cheapest
 * arc in, and cycles of clusters become clusters. A cluster that has its arc keeps it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "topo/pack.h"
#include "topo/pack_heap.h"

/* How a switch (two of them), or a GPU from outside its cluster, is reached. */
typedef struct {
    double distance;
    int source; /* rank */
    int arc;    /* the last arc */
    int entry;  /* of the node before, -1: it is the source */
} entry;

typedef struct {
    int parent, child, sibling; /* in the tree of clusters; the ranks are its leaves */
    bool chosen;
    int source, target; /* ranks: the arc in */
    double cost;        /* of it, less what clusters inside have paid */
    size_t path;        /* its arcs, in the order of travel, in the arena */
    int length;
} cluster;

struct cinch_pack_arbor {
    const cinch_pack_net *net;
    bool inward;
    cinch_pack_heap heap;
    entry *found;  /* node: two */
    int *count;    /* node: how many */
    int *top;      /* rank: its outermost cluster */
    double *paid;  /* rank: by the clusters around it */
    int *best;     /* cluster: the rank where its cheapest arc enters */
    int *mark;     /* cluster: which walk passed it */
    int *stack;    /* clusters */
    cluster *node; /* 2 * ranks - 1 */
    int clusters;
    int *arena;
    size_t used, room;
    double total; /* of all clusters' costs */
};

cinchResult_t cinch_pack_arbor_make(const cinch_pack_net *net, bool inward,
                                    cinch_pack_arbor **arbor) {
    size_t nodes = (size_t)net->nodes, ranks = (size_t)net->ranks;
    cinch_pack_arbor *a = *arbor = calloc(1, sizeof *a);
    if (a) {
        a->net = net;
        a->inward = inward;
        a->heap.item = malloc((2 * (size_t)net->arcs + 1) * sizeof *a->heap.item);
        a->found = malloc(2 * nodes * sizeof *a->found);
        a->count = malloc((nodes + 7 * ranks) * sizeof(int));
        a->paid = malloc(ranks * sizeof(double));
        a->node = malloc(2 * ranks * sizeof *a->node);
    }
    if (!a || !a->heap.item || !a->found || !a->count || !a->paid || !a->node)
        return cinch_fail(cinchSystemError, "out of memory for a plan over %d nodes", net->nodes);
    a->top = a->count + nodes;
    a->best = a->top + ranks;
    a->mark = a->best + 2 * ranks;
    a->stack = a->mark + 2 * ranks;
    return cinchSuccess;
}

void cinch_pack_arbor_free(cinch_pack_arbor *arbor) {
    if (!arbor) return;
    free(arbor->heap.item);
    free(arbor->found);
    free(arbor->count);
    free(arbor->paid);
    free(arbor->node);
    free(arbor->arena);
    free(arbor);
}

static int head_of(const cinch_pack_arbor *a, int arc) {
    return a->inward ? a->net->from[arc] : a->net->to[arc];
}

static int tail_of(const cinch_pack_arbor *a, int arc) {
    return a->inward ? a->net->to[arc] : a->net->from[arc];
}

/* Whether a way from this source's cluster is of use to the node. */
static bool wanted(const cinch_pack_arbor *a, int node, int source) {
    int label = a->top[source], rank = a->net->rank[node];
    if (rank >= 0) return a->count[node] == 0 && a->top[rank] != label;
    if (a->count[node] == 0) return true;
    return a->count[node] == 1 && a->top[a->found[2 * node].source] != label;
}

static void expand(cinch_pack_arbor *a, const double *price, int node, int slot, int source,
                   double distance) {
    const cinch_pack_net *net = a->net;
    const int *first = a->inward ? net->in : net->out;
    for (int i = first[node]; i < first[node + 1]; i++) {
        int arc = a->inward ? net->in_arc[i] : i;
        if (wanted(a, head_of(a, arc), source))
            cinch_pack_heap_push(&a->heap, distance + price[arc], 2 * arc + slot);
    }
}

static void nearest(cinch_pack_arbor *a, const double *price) {
    const cinch_pack_net *net = a->net;
    memset(a->count, 0, (size_t)net->nodes * sizeof(int));
    a->heap.count = 0;
    for (int r = 0; r < net->ranks; r++) expand(a, price, net->place[r], 0, r, 0);
    while (a->heap.count) {
        cinch_pack_item item = cinch_pack_heap_pop(&a->heap);
        int arc = item.id / 2, slot = item.id % 2, node = head_of(a, arc), from = tail_of(a, arc);
        int before = net->rank[from] >= 0 ? -1 : 2 * from + slot;
        int source = before < 0 ? net->rank[from] : a->found[before].source;
        if (!wanted(a, node, source)) continue;
        int mine = a->count[node]++;
        a->found[2 * node + mine] = (entry){item.key, source, arc, before};
        if (net->rank[node] < 0) expand(a, price, node, mine, source, item.key);
    }
}

/* Notes the way that ends at this rank as its cluster's arc in. */
static cinchResult_t choose(cinch_pack_arbor *a, int c, int rank) {
    int place = a->net->place[rank], length = 1;
    const entry *last = &a->found[2 * place];
    for (const entry *e = last; e->entry >= 0; e = &a->found[e->entry]) length++;
    if (a->used + (size_t)length > a->room) {
        size_t room = 2 * a->room + (size_t)length + 1024;
        int *arena = realloc(a->arena, room * sizeof(int));
        if (!arena) return cinch_fail(cinchSystemError, "out of memory for a plan");
        a->arena = arena;
        a->room = room;
    }
    cluster *node = &a->node[c];
    double cost = last->distance - a->paid[rank];
    node->chosen = true;
    node->source = last->source;
    node->target = rank;
    node->cost = cost > 0 ? cost : 0;
    node->path = a->used;
    node->length = length;
    int *arc = a->arena + a->used;
    a->used += (size_t)length;
    /* From the target back to the source is the order of travel where arcs are searched backwards.
     */
    const entry *e = last;
    for (int i = 0; i < length; i++) {
        arc[a->inward ? i : length - 1 - i] = e->arc;
        if (e->entry >= 0) e = &a->found[e->entry];
    }
    return cinchSuccess;
}

/* Every cluster without an arc in takes its cheapest. */
static cinchResult_t choose_all(cinch_pack_arbor *a) {
    for (int c = 0; c < a->clusters; c++) a->best[c] = -1;
    for (int r = 0; r < a->net->ranks; r++) {
        int c = a->top[r], place = a->net->place[r];
        if (a->node[c].chosen || a->count[place] == 0) continue;
        int b = a->best[c];
        if (b < 0 || a->found[2 * place].distance - a->paid[r] <
                         a->found[2 * a->net->place[b]].distance - a->paid[b])
            a->best[c] = r;
    }
    for (int c = 0; c < a->clusters; c++)
        if (a->best[c] >= 0) CINCH_TRY(choose(a, c, a->best[c]));
    return cinchSuccess;
}

/* Makes one cluster of the cycle that `c` is on. */
static void contract(cinch_pack_arbor *a, int c) {
    int outer = a->clusters++, next = c;
    a->node[outer] = (cluster){.parent = -1, .child = -1, .sibling = -1};
    do {
        int member = next;
        next = a->top[a->node[member].source];
        a->node[member].parent = outer;
        a->node[member].sibling = a->node[outer].child;
        a->node[outer].child = member;
    } while (next != c);
}

/* Finds the cycles among outermost clusters. */
static void contract_all(cinch_pack_arbor *a) {
    int before = a->clusters, ranks = a->net->ranks;
    for (int c = 0; c < before; c++) a->mark[c] = -1;
    for (int c = 0; c < before; c++) {
        if (a->node[c].parent >= 0 || a->mark[c] >= 0) continue;
        int at = c;
        while (a->mark[at] < 0) {
            a->mark[at] = c;
            at = a->top[a->node[at].source];
        }
        if (a->mark[at] == c) contract(a, at);
    }
    for (int r = 0; r < ranks; r++) {
        const cluster *inner = &a->node[a->top[r]];
        if (inner->parent < 0) continue;
        a->paid[r] += inner->cost;
        a->top[r] = inner->parent;
    }
}

cinchResult_t cinch_pack_arbor_contract(cinch_pack_arbor *a, const double *price) {
    int ranks = a->net->ranks;
    a->clusters = ranks;
    a->used = 0;
    a->total = 0;
    for (int r = 0; r < ranks; r++) {
        a->node[r] = (cluster){.parent = -1, .child = -1, .sibling = -1};
        a->top[r] = r;
        a->paid[r] = 0;
    }
    for (bool one = ranks == 1; !one;) {
        nearest(a, price);
        CINCH_TRY(choose_all(a));
        contract_all(a);
        one = true;
        for (int r = 1; r < ranks && one; r++) one = a->top[r] == a->top[0];
    }
    for (int c = 0; c < a->clusters; c++)
        if (a->node[c].chosen) a->total += a->node[c].cost;
    return cinchSuccess;
}

/* All clusters pay for their arcs but those that the root is in. */
double cinch_pack_arbor_cost(const cinch_pack_arbor *a, int root) {
    return a->total - a->paid[root];
}

/* From a leaf up to its ancestor `until`: the other members of every cluster on the way are to be
 * entered by arcs of their own. */
static void dismantle(const cinch_pack_arbor *a, int leaf, int until, int *stacked) {
    for (int at = leaf; at != until; at = a->node[at].parent)
        for (int c = a->node[a->node[at].parent].child; c >= 0; c = a->node[c].sibling)
            if (c != at) a->stack[(*stacked)++] = c;
}

cinchResult_t cinch_pack_arbor_tree(const cinch_pack_arbor *a, int root, cinch_pack_half *half) {
    int ranks = a->net->ranks, top = a->top[root], stacked = 0;
    size_t arcs = 0;
    /* best[rank]: the cluster whose arc enters it. */
    dismantle(a, root, top, &stacked);
    a->best[root] = -1;
    while (stacked) {
        int c = a->stack[--stacked], target = a->node[c].target;
        a->best[target] = c;
        arcs += (size_t)a->node[c].length;
        dismantle(a, target, c, &stacked);
    }
    CINCH_TRY(cinch_pack_half_make(ranks, arcs, half));
    int at = 0;
    for (int r = 0; r < ranks; r++) {
        const cluster *c = r == root ? NULL : &a->node[a->best[r]];
        half->parent[r] = c ? c->source : -1;
        half->first[r] = at;
        if (!c) continue;
        memcpy(half->arc + at, a->arena + c->path, (size_t)c->length * sizeof(int));
        at += c->length;
    }
    half->first[ranks] = at;
    return cinchSuccess;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Grows one tree while prices follow its own load: the next GPU is the one nearest to the tree, and
 * the links of its path get dearer before the one after is looked for. So a tree spreads by itself
 * where a minimum spanning tree would be a star around whoever is cheapest, and a few trees are
 * enough to balance a large machine.
 *
 * Distances are kept from step to step and corrected when they are met: they are never too long by
 * much, and a way that turns out to have become dearer is looked for again. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "topo/pack.h"
#include "topo/pack_heap.h"

enum { MOST_REPAIRS = 64, MOST_EXPONENT = 400 };

struct cinch_pack_grower {
    const cinch_pack *pack;
    cinch_pack_heap heap;
    int room;      /* of the heap */
    double *label; /* node: its distance from the tree, as far as known */
    int *before;   /* node: the last arc of that way */
    bool *joined;  /* node: a GPU of the tree */
    double *price; /* row: what one more use costs */
    int *arc;      /* ways, in the order in which ranks joined */
    size_t used, arc_room;
    size_t *start;         /* rank: its way */
    int *length;           /* rank: its arcs */
    int *source;           /* rank: where it joined */
    int *depth;            /* rank: edges to the root */
    int deepest;           /* that depth may be; 0: any */
    double share;          /* the tree's weight */
    double sharpness, aim; /* of the exponential; the load that is aimed at */
    double shift; /* what the exponents are less by, so that the largest is no more than 0 */
    bool inward;
};

cinchResult_t cinch_pack_grower_make(const cinch_pack *pack, cinch_pack_grower **made) {
    size_t nodes = (size_t)pack->net->nodes, ranks = (size_t)pack->net->ranks;
    cinch_pack_grower *g = *made = calloc(1, sizeof *g);
    if (g) {
        g->pack = pack;
        g->room = 2 * pack->net->arcs + 64;
        g->heap.item = malloc((size_t)g->room * sizeof *g->heap.item);
        g->label = malloc(nodes * sizeof(double));
        g->before = malloc(nodes * sizeof(int));
        g->joined = malloc(nodes * sizeof(bool));
        g->price = malloc(((size_t)pack->rows + 1) * sizeof(double));
        g->start = malloc(ranks * sizeof(size_t));
        g->length = malloc(3 * ranks * sizeof(int));
    }
    if (!g || !g->heap.item || !g->label || !g->before || !g->joined || !g->price || !g->start ||
        !g->length)
        return cinch_fail(cinchSystemError, "out of memory for a plan over %d nodes",
                          pack->net->nodes);
    g->source = g->length + ranks;
    g->depth = g->source + ranks;
    return cinchSuccess;
}

void cinch_pack_grower_free(cinch_pack_grower *g) {
    if (!g) return;
    free(g->heap.item);
    free(g->label);
    free(g->before);
    free(g->joined);
    free(g->price);
    free(g->start);
    free(g->length);
    free(g->arc);
    free(g);
}

static int head_of(const cinch_pack_grower *g, int arc) {
    return g->inward ? g->pack->net->from[arc] : g->pack->net->to[arc];
}

static int tail_of(const cinch_pack_grower *g, int arc) {
    return g->inward ? g->pack->net->to[arc] : g->pack->net->from[arc];
}

/* What the sum of exponentials grows by where one more edge of the tree uses the row. Beyond what
 * doubles can tell it goes on along a line, so that a dearer row stays dearer. */
static void set_price(cinch_pack_grower *g, const double *load, int row) {
    double jump = g->share / g->pack->room[row];
    double after = g->sharpness * ((load[row] + jump) / g->aim - 1) - g->shift;
    double before = g->sharpness * (load[row] / g->aim - 1) - g->shift;
    double price = after < MOST_EXPONENT
                       ? cinch_pack_exp(after) - cinch_pack_exp(before)
                       : cinch_pack_exp(MOST_EXPONENT) * (1 + after - MOST_EXPONENT);
    g->price[row] = price + 1e-12 * jump / g->aim;
}

static double length_of(const cinch_pack_grower *g, int arc) {
    return g->price[g->pack->row_of[arc]] * g->pack->scale[arc];
}

static bool leads_over(const cinch_pack_grower *g, int from, int node) {
    for (int at = from; at != node; at = tail_of(g, g->before[at]))
        if (g->before[at] < 0) return false;
    return true;
}

static cinchResult_t push(cinch_pack_grower *g, int node) {
    if (g->heap.count == g->room) {
        size_t room = 2 * (size_t)g->room;
        cinch_pack_item *item = realloc(g->heap.item, room * sizeof *item);
        if (!item || room > 1u << 30)
            return cinch_fail(cinchSystemError, "out of memory for a plan");
        g->heap.item = item;
        g->room = (int)room;
    }
    cinch_pack_heap_push(&g->heap, g->label[node], node);
    return cinchSuccess;
}

static cinchResult_t relax_from(cinch_pack_grower *g, int node) {
    const cinch_pack_net *net = g->pack->net;
    const int *first = g->inward ? net->in : net->out;
    for (int i = first[node]; i < first[node + 1]; i++) {
        int arc = g->inward ? net->in_arc[i] : i, next = head_of(g, arc);
        double distance = g->label[node] + length_of(g, arc);
        if (g->joined[next] || distance >= g->label[next] || leads_over(g, node, next)) continue;
        g->label[next] = distance;
        g->before[next] = arc;
        CINCH_TRY(push(g, next));
    }
    return cinchSuccess;
}

/* The cheapest way to a node by what its neighbours say. */
static void relabel(cinch_pack_grower *g, int node) {
    const cinch_pack_net *net = g->pack->net;
    const int *first = g->inward ? net->out : net->in;
    int old = g->before[node];
    double best = g->label[tail_of(g, old)] + length_of(g, old);
    for (int i = first[node]; i < first[node + 1]; i++) {
        int arc = g->inward ? i : net->in_arc[i], from = tail_of(g, arc);
        if (net->rank[from] >= 0 && !g->joined[from]) continue;
        double distance = g->label[from] + length_of(g, arc);
        if (distance < best && !leads_over(g, from, node)) {
            best = distance;
            g->before[node] = arc;
        }
    }
    g->label[node] = best;
}

/* Whether the way to a node costs what its label says; if not, its nodes are labelled anew, from
 * the tree on. */
static bool verify(cinch_pack_grower *g, int node, int *chain) {
    int count = 0;
    double cost = 0;
    for (int at = node; g->before[at] >= 0; at = tail_of(g, g->before[at])) chain[count++] = at;
    for (int i = count - 1; i >= 0; i--) cost += length_of(g, g->before[chain[i]]);
    if (cost <= g->label[node] * (1 + 1e-9)) return true;
    for (int i = count - 1; i >= 0; i--) relabel(g, chain[i]);
    return false;
}

/* Takes the way to a GPU into the tree. */
static cinchResult_t take(cinch_pack_grower *g, int node, double *load, int *chain) {
    const cinch_pack *pack = g->pack;
    int rank = pack->net->rank[node], count = 0, at = node;
    for (; g->before[at] >= 0; at = tail_of(g, g->before[at])) chain[count++] = g->before[at];
    if (g->used + (size_t)count > g->arc_room) {
        size_t room = 2 * g->arc_room + (size_t)count + 1024;
        int *arc = realloc(g->arc, room * sizeof *arc);
        if (!arc) return cinch_fail(cinchSystemError, "out of memory for a plan");
        g->arc = arc;
        g->arc_room = room;
    }
    g->start[rank] = g->used;
    g->length[rank] = count;
    g->source[rank] = pack->net->rank[at];
    for (int i = 0; i < count; i++) {
        int arc = chain[g->inward ? i : count - 1 - i], row = pack->row_of[arc];
        g->arc[g->used++] = arc;
        load[row] += g->share / pack->room[row] * pack->scale[arc];
        set_price(g, load, row);
    }
    return cinchSuccess;
}

static cinchResult_t join(cinch_pack_grower *g, int node) {
    int rank = g->pack->net->rank[node], source = g->source[rank];
    g->joined[node] = true;
    g->label[node] = 0;
    g->before[node] = -1;
    g->depth[rank] = source < 0 ? 0 : g->depth[source] + 1;
    if (g->deepest == 0 || g->depth[rank] < g->deepest) return relax_from(g, node);
    g->label[node] = HUGE_VAL; /* nothing hangs from it */
    return cinchSuccess;
}

/* False where not every GPU is near enough. */
static cinchResult_t grow(cinch_pack_grower *g, int root, double *load, int *chain, bool *whole) {
    const cinch_pack_net *net = g->pack->net;
    int repairs = 0, left = net->ranks - 1;
    g->source[root] = -1;
    g->length[root] = 0;
    CINCH_TRY(join(g, net->place[root]));
    while (left > 0 && g->heap.count) {
        cinch_pack_item item = cinch_pack_heap_pop(&g->heap);
        int node = item.id;
        if (g->joined[node] || item.key != g->label[node]) continue;
        if (net->rank[node] < 0) {
            CINCH_TRY(relax_from(g, node));
        } else if (repairs < MOST_REPAIRS && !verify(g, node, chain)) {
            repairs++;
            CINCH_TRY(push(g, node));
        } else {
            repairs = 0;
            left--;
            CINCH_TRY(take(g, node, load, chain));
            CINCH_TRY(join(g, node));
        }
    }
    *whole = left == 0;
    return cinchSuccess;
}

static cinchResult_t collect(const cinch_pack_grower *g, cinch_pack_half *half) {
    int ranks = g->pack->net->ranks, at = 0;
    CINCH_TRY(cinch_pack_half_make(ranks, g->used, half));
    for (int r = 0; r < ranks; r++) {
        half->parent[r] = g->source[r];
        half->first[r] = at;
        if (g->length[r])
            memcpy(half->arc + at, g->arc + g->start[r], (size_t)g->length[r] * sizeof(int));
        at += g->length[r];
    }
    half->first[ranks] = at;
    return cinchSuccess;
}

static cinchResult_t start(cinch_pack_grower *g, int root, double *load, int *chain, bool *whole) {
    g->used = 0;
    g->heap.count = 0;
    for (int r = 0; r < g->pack->rows; r++) set_price(g, load, r);
    for (int n = 0; n < g->pack->net->nodes; n++) {
        g->label[n] = HUGE_VAL;
        g->before[n] = -1;
        g->joined[n] = false;
    }
    return grow(g, root, load, chain, whole);
}

cinchResult_t cinch_pack_grow(cinch_pack_grower *g, int root, bool inward, double share,
                              double sharpness, double aim, int deepest, double *load,
                              cinch_pack_half *half) {
    const cinch_pack *pack = g->pack;
    int *chain = malloc(((size_t)pack->net->nodes + 1) * sizeof(int));
    if (!chain) return cinch_fail(cinchSystemError, "out of memory for a plan");
    g->inward = inward;
    g->share = share;
    g->sharpness = sharpness;
    g->aim = aim;
    g->deepest = deepest;
    g->shift = 0;
    for (int r = 0; r < pack->rows; r++) {
        double over = sharpness * (load[r] / aim - 1);
        if (over > g->shift) g->shift = over;
    }
    bool whole;
    cinchResult_t result = start(g, root, load, chain, &whole);
    /* What the first try has loaded only makes its ways dearer. */
    if (result == cinchSuccess && !whole && deepest > 0) {
        g->deepest = 0;
        result = start(g, root, load, chain, &whole);
    }
    free(chain);
    if (result == cinchSuccess && !whole)
        result = cinch_fail(cinchInternalError, "a tree that grows does not reach every GPU");
    if (result == cinchSuccess) result = collect(g, half);
    return result;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The trees of a plan: for all-reduce each up to its root and down again, with its parts of the
 * message; for the others one direction of them. Which trees, and who carries how much, is topo/'s
 * to say (topo/plan.h); here is when each rank does what. */
#include <stdlib.h>

#include "coll/algo.h"
#include "coll/forest.h"

static const char *supports(const cinch_call *call) {
    if (call->encoded) return "a plan's trees take no codec";
    if (call->nranks < 2) return "it needs two ranks or more";
    if (!call->forest)
        return "there is no plan: CINCH_ALGO=forest at the communicator's making, or a plan file "
               "in which it was measured, makes one";
    return NULL;
}

static double cost(const cinch_call *call) {
    int blocks = cinch_shape_blocks(cinch_shape_of(call->collective), call->nranks);
    return call->forest->steps * cinch_cost_step(call) +
           (double)call->bytes * blocks / (call->forest->algbw * 1e3);
}

static int parts(const cinch_call *call) {
    return call->forest->parts;
}

/* Two iterations a step, so that receives are posted before they are waited for; but no more than
 * this many rounds at once. With fewer than the steps ask for, a rank waits for the way up and down
 * again, and links lie idle meanwhile (`cinch topo --simulate`). */
enum { MOST_LAGS = 200 };

static int lags_of(const cinch_forest *f) {
    return 2 * f->steps < MOST_LAGS ? 2 * f->steps : MOST_LAGS;
}

/* Enough rounds to fill the trees from end to end, none so short that it is nothing but headers,
 * and no more scratch than SCRATCH for all rounds under way. A round is a piece of every block:
 * where each rank has one, it is that much shorter. */
static size_t round_bytes(const cinch_call *call) {
    enum { SCRATCH = 32 << 20 };
    bool blocks = cinch_shape_blocks(cinch_shape_of(call->collective), call->nranks) > 1;
    size_t least = (size_t)(blocks ? 16 : 64) << 10, most = (size_t)(blocks ? 256 : 1024) << 10;
    size_t rounds = 32 * (size_t)(call->forest->steps + 1), round = call->bytes / rounds;
    size_t room = SCRATCH / (size_t)(lags_of(call->forest) + 2);
    if (most > room) most = room;
    return round < least ? least : round > most ? most : round;
}

/* ---- what a rank does in a round, in the order of time ---- */

typedef enum { RECV_UP, REDUCE, SEND_UP, ROOT_COPY, RECV_DOWN, SEND_DOWN } deed_kind;

typedef struct deed {
    int time; /* in steps, counted alike by all ranks: so the two ends of a message agree on its
                 place among the others between them */
    int tree;
    deed_kind kind;
    int peer, slot;
} deed;

static int in_order(const void *a, const void *b) {
    const deed *x = a, *y = b;
    if (x->time != y->time) return x->time - y->time;
    if (x->tree != y->tree) return x->tree - y->tree;
    if (x->kind != y->kind) return (int)x->kind - (int)y->kind;
    return x->peer - y->peer;
}

typedef struct view {
    const cinch_call *call;
    const cinch_forest *forest;
    int rank;
    deed *deed;
    int deeds;
} view;

static void note(view *v, int time, int tree, deed_kind kind, int peer, int slot) {
    v->deed[v->deeds++] = (deed){time, tree, kind, peer, slot};
}

/* A rank's message up goes when the longest way below it is over. Scratch begins at slot `base`;
 * returns how many slots the tree has. */
static int note_up(view *v, int tree, int base) {
    const cinch_forest_half *up = &v->forest->tree[tree].up;
    int children = 0, me = v->rank;
    for (int q = 0; q < v->forest->ranks; q++)
        if (up->parent[q] == me) note(v, up->level[q], tree, RECV_UP, q, base + children++);
    if (children) note(v, up->level[me], tree, REDUCE, -1, base);
    if (up->parent[me] >= 0) note(v, up->level[me], tree, SEND_UP, up->parent[me], base);
    return children;
}

static void note_down(view *v, int tree) {
    const cinch_forest_tree *t = &v->forest->tree[tree];
    int me = v->rank, begin = t->up.parent ? t->up.level[t->root] : 0;
    int time = begin + t->down.level[me];
    if (t->down.parent[me] >= 0) note(v, time - 1, tree, RECV_DOWN, t->down.parent[me], 0);
    for (int q = 0; q < v->forest->ranks; q++)
        if (t->down.parent[q] == me) note(v, time, tree, SEND_DOWN, q, 0);
}

/* A tree's parts of the message, or of its root's block. */
static cinch_ref piece(const view *v, cinch_space space, int slot, int tree) {
    const cinch_forest_tree *t = &v->forest->tree[tree];
    const cinch_shape *shape = cinch_shape_of(v->call->collective);
    cinch_ref ref = cinch_ref_parts(cinch_ref_slot(space, slot, t->first), t->parts);
    bool blocks = (space == CINCH_IN && cinch_shape_in_blocks(shape, v->forest->ranks) > 1) ||
                  (space == CINCH_OUT && cinch_shape_out_blocks(shape, v->forest->ranks) > 1);
    return blocks ? cinch_ref_block(ref, t->root) : ref;
}

static void emit_up(cinch_builder *b, const view *v, const deed *d, int children) {
    const cinch_forest_half *up = &v->forest->tree[d->tree].up;
    cinch_ref in = piece(v, CINCH_IN, 0, d->tree), sum = piece(v, CINCH_TMP, d->slot, d->tree);
    if (d->kind == RECV_UP) {
        cinch_build_recv(b, d->peer, cinch_forest_mark(d->tree, false), sum);
    } else if (d->kind == SEND_UP) {
        cinch_build_send(b, d->peer, cinch_forest_mark(d->tree, false), children ? sum : in);
    } else {
        bool root = up->parent[v->rank] < 0;
        cinch_ref out = piece(v, CINCH_OUT, 0, d->tree), *src = b->list[0];
        src[0] = in;
        for (int c = 0; c < children; c++) src[1 + c] = piece(v, CINCH_TMP, d->slot + c, d->tree);
        cinch_build_reduce(b, root ? CINCH_FINAL : 0, root ? &out : &sum, 1, src, 1 + children);
    }
}

static void emit(cinch_builder *b, const view *v, const deed *d, const int *children) {
    bool own = !v->forest->tree[d->tree].up.parent && v->forest->tree[d->tree].root == v->rank;
    cinch_ref out = piece(v, CINCH_OUT, 0, d->tree), in = piece(v, CINCH_IN, 0, d->tree);
    int mark = cinch_forest_mark(d->tree, true);
    if (d->kind == ROOT_COPY)
        cinch_build_copy(b, out, in);
    else if (d->kind == RECV_DOWN)
        cinch_build_recv(b, d->peer, mark, out);
    else if (d->kind == SEND_DOWN)
        cinch_build_send(b, d->peer, mark, own ? in : out);
    else
        emit_up(b, v, d, children[d->tree]);
}

static void emit_all(cinch_builder *b, const view *v, const int *children) {
    int steps = v->forest->steps, lags = lags_of(v->forest);
    for (int i = 0; i < v->deeds; i++) {
        cinch_build_lag(b, steps ? v->deed[i].time * lags / steps : 0);
        emit(b, v, &v->deed[i], children);
    }
}

/* Trees of one root take different parts, and share scratch; those of another have their own. */
static void note_all(view *v, int *children) {
    const cinch_forest *f = v->forest;
    int base = 0, most = 0;
    for (int t = 0; t < f->trees; t++) {
        bool apart = f->collective == CINCH_REDUCESCATTER && t > 0;
        if (apart && f->tree[t].root != f->tree[t - 1].root) base += most, most = 0;
        if (f->tree[t].up.parent) {
            children[t] = note_up(v, t, base);
            if (children[t] > most) most = children[t];
        } else if (f->tree[t].root == v->rank) {
            note(v, f->steps, t, ROOT_COPY, -1, 0);
        }
        if (f->tree[t].down.parent) note_down(v, t);
    }
    qsort(v->deed, (size_t)v->deeds, sizeof *v->deed, in_order);
}

/* Messages of a round. */
static size_t count_edges(const cinch_forest *f, int rank) {
    size_t edges = 0;
    for (int t = 0; t < f->trees; t++) {
        const int *up = f->tree[t].up.parent, *down = f->tree[t].down.parent;
        for (int q = 0; q < f->ranks; q++) {
            edges += up && (q == rank || up[q] == rank);
            edges += down && (q == rank || down[q] == rank);
        }
    }
    return edges;
}

static void build(cinch_builder *b, cinch_schedule *s, int rank, int n, const cinch_call *call) {
    const cinch_forest *f = call->forest;
    if (!cinch_build_begin(b, s, rank, n, f->parts)) return;
    size_t most = 3 * (size_t)f->trees + count_edges(f, rank);
    view v = {call, f, rank, cinch_arena_take(&b->scratch, most * sizeof(deed)), 0};
    int *children = cinch_arena_take(&b->scratch, (size_t)f->trees * sizeof *children);
    b->failed |= !v.deed || !children;
    if (b->failed) return;
    for (int t = 0; t < f->trees; t++) children[t] = 0;
    note_all(&v, children);
    emit_all(b, &v, children);
}

#define ROW(NAME, COLLECTIVE)                                                                      \
    const cinch_algo cinch_algo_##NAME = {                                                         \
        .name = "forest",                                                                          \
        .collective = COLLECTIVE,                                                                  \
        .supports = supports,                                                                      \
        .cost = cost,                                                                              \
        .build = build,                                                                            \
        .parts = parts,                                                                            \
        .round_bytes = round_bytes,                                                                \
    }
ROW(forest, CINCH_ALLREDUCE);
ROW(reducescatter_forest, CINCH_REDUCESCATTER);
ROW(allgather_forest, CINCH_ALLGATHER);
ROW(broadcast_forest, CINCH_BROADCAST);
ROW(reduce_forest, CINCH_REDUCE);

/* SPDX-License-Identifier: Apache-2.0 */
/* Two binary trees, each for half of the message, the second with the ranks in reverse so that
 * the inner ranks of one are mostly leaves of the other (after Sanders, Speck and Traeff 2009).
 * 2 log2 n steps. */
#include "coll/algo.h"

static const char *supports(const cinch_call *call) {
    if (call->encoded) return "it would quantize once per level";
    if (call->nranks < 2) return "it needs two ranks or more";
    return NULL;
}

static int levels(int n) {
    int depth = 0;
    while (n >>= 1) depth++;
    return depth;
}

static double cost(const cinch_call *call) {
    return 2 * levels(call->nranks) * cinch_cost_step(call) +
           (call->nranks == 2 ? 2.0 : 3.0) * (double)call->bytes * cinch_cost_byte(call);
}

static int parts(const cinch_call *call) {
    (void)call;
    return 2;
}

/* One tree, of the ranks as heap indices. */
typedef struct place {
    int at, parent, child[2], children;
} place;

static place place_of(int at, int n) {
    place p = {.at = at, .parent = at ? (at - 1) / 2 : -1};
    for (int c = 2 * at + 1; c <= 2 * at + 2 && c < n; c++) p.child[p.children++] = c;
    return p;
}

/* Steps from the leaves below, and from the root. */
static int height_of(int at, int n) {
    int height = 0;
    while ((at = 2 * at + 1) < n) height++;
    return height;
}

/* What a rank does at a step of one tree: up as soon as all below it is there, down in the order of
 * depth. Both ends of a message count it at the same step, so they agree on its place among the
 * others between them. Two iterations a step: receives are posted before they are waited for, and
 * no iteration has to wait for what a rank does in that same iteration. */
static void build_step(cinch_builder *b, const place *p, int n, int tree, int step) {
    enum { UP = 0, DOWN = 1 };
    int top = height_of(0, n), depth = levels(p->at + 1), rank[2];
    bool root = p->parent < 0;
    int parent = tree ? n - 1 - p->parent : p->parent;
    cinch_ref in = cinch_ref_of(CINCH_IN, tree), out = cinch_ref_of(CINCH_OUT, tree);
    cinch_ref sum[3] = {in}, up = cinch_ref_slot(CINCH_TMP, 0, tree);
    for (int c = 0; c < p->children; c++) {
        rank[c] = tree ? n - 1 - p->child[c] : p->child[c];
        sum[1 + c] = cinch_ref_slot(CINCH_TMP, c, tree);
        if (step == height_of(p->child[c], n))
            cinch_build_recv(b, rank[c], UP * 2 + tree, sum[1 + c]);
    }
    if (step == height_of(p->at, n)) {
        if (p->children)
            cinch_build_reduce(b, root ? CINCH_FINAL : 0, root ? &out : &up, 1, sum,
                               1 + p->children);
        if (!root) cinch_build_send(b, parent, UP * 2 + tree, p->children ? up : in);
    }
    if (!root && step == top + depth - 1) cinch_build_recv(b, parent, DOWN * 2 + tree, out);
    for (int c = 0; c < p->children && step == top + depth; c++)
        cinch_build_send(b, rank[c], DOWN * 2 + tree, out);
}

static void build(cinch_builder *b, cinch_schedule *s, int rank, int n, const cinch_call *call) {
    (void)call;
    if (!cinch_build_begin(b, s, rank, n, 2)) return;
    place p[2] = {place_of(rank, n), place_of(n - 1 - rank, n)};
    for (int step = 0; step < 2 * height_of(0, n); step++) {
        cinch_build_lag(b, 2 * step);
        for (int tree = 0; tree < 2; tree++) build_step(b, &p[tree], n, tree, step);
    }
}

/* Broadcast and reduce: one tree, in the order of ranks from the root on. */
static double cost_one(const cinch_call *call) {
    return levels(call->nranks) * cinch_cost_step(call) +
           (call->nranks == 2 ? 1.0 : 2.0) * (double)call->bytes * cinch_cost_byte(call);
}

static void build_broadcast(cinch_builder *b, cinch_schedule *s, int rank, int n,
                            const cinch_call *call) {
    place p = place_of((rank - call->root + n) % n, n);
    cinch_ref out = cinch_ref_of(CINCH_OUT, 0), in = cinch_ref_of(CINCH_IN, 0);
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    if (p.parent >= 0) {
        cinch_build_recv(b, (p.parent + call->root) % n, 0, out);
        cinch_build_lag(b, 2); /* receives run ahead, so that the wire never waits */
    }
    for (int c = 0; c < p.children; c++)
        cinch_build_send(b, (p.child[c] + call->root) % n, 0, p.parent < 0 ? in : out);
    if (p.parent < 0) cinch_build_copy(b, out, in);
}

static void build_reduce(cinch_builder *b, cinch_schedule *s, int rank, int n,
                         const cinch_call *call) {
    place p = place_of((rank - call->root + n) % n, n);
    cinch_ref in = cinch_ref_of(CINCH_IN, 0), out = cinch_ref_of(CINCH_OUT, 0);
    cinch_ref sum[3] = {in}, up = cinch_ref_of(CINCH_BOX, 0);
    bool root = p.parent < 0;
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    for (int c = 0; c < p.children; c++) {
        sum[1 + c] = cinch_ref_slot(CINCH_BOX, c, 0);
        cinch_build_recv(b, (p.child[c] + call->root) % n, 0, sum[1 + c]);
    }
    if (p.children) {
        cinch_build_lag(b, 2);
        cinch_build_reduce(b, root ? CINCH_FINAL : 0, root ? &out : &up, 1, sum, 1 + p.children);
    }
    if (!root) cinch_build_send(b, (p.parent + call->root) % n, 0, p.children ? up : in);
}

const cinch_algo cinch_algo_tree = {
    .name = "tree",
    .supports = supports,
    .cost = cost,
    .build = build,
    .parts = parts,
    .part_bytes = (size_t)64 << 10,
    .least_bytes = (size_t)16 << 10,
};

#define ROW(NAME, COLLECTIVE)                                                                      \
    const cinch_algo cinch_algo_##NAME##_tree = {                                                  \
        .name = "tree",                                                                            \
        .collective = COLLECTIVE,                                                                  \
        .supports = supports,                                                                      \
        .cost = cost_one,                                                                          \
        .build = build_##NAME,                                                                     \
        .parts = cinch_parts_one,                                                                  \
        .part_bytes = (size_t)64 << 10,                                                            \
        .least_bytes = (size_t)16 << 10,                                                           \
    }
ROW(broadcast, CINCH_BROADCAST);
ROW(reduce, CINCH_REDUCE);

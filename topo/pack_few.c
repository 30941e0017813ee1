/* SPDX-License-Identifier: Apache-2.0 */
/* Large machines: a fixed number of trees of equal weight, each grown again in turn over the load
 * of the others (pack_grow.c). The best arrangement met on the way is kept. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "topo/pack.h"

typedef struct {
    double *load, *guess; /* row: of all slots; with the tree that grows */
    double aim;           /* the least that the largest load can be */
    cinch_pack_grower *grower;
    int *slot, *best; /* trees' numbers */
    int slots, deepest;
    double least; /* the best one's largest load */
} few;

static void add_load(const cinch_pack *pack, few *f, int tree, double weight) {
    const cinch_pack_tree *t = &pack->tree[tree];
    for (int i = 0; i < t->uses; i++) f->load[t->row[i]] += weight * t->use[i];
}

static double largest(const few *f, int rows) {
    double most = 0;
    for (int r = 0; r < rows; r++)
        if (f->load[r] > most) most = f->load[r];
    return most;
}

/* A tree for the slot, grown over the others' load. */
static cinchResult_t regrow(cinch_pack *pack, few *f, int slot, double sharpness) {
    int ranks = pack->net->ranks;
    bool up = pack->mode == CINCH_PACK_PAIR;
    /* Roots in turn, far from each other. */
    cinch_pack_tree tree = {.group = slot % pack->groups,
                            .root = (int)((long long)slot * ranks / f->slots)};
    double share = 1.0 / f->slots, *load = f->guess;
    if (pack->mode == CINCH_PACK_ROOTED) tree.root = pack->root;
    if (pack->mode == CINCH_PACK_ALL) tree.root = tree.group;
    memcpy(load, f->load, (size_t)pack->rows * sizeof(double));
    CINCH_TRY(cinch_pack_grow(f->grower, tree.root, false, share, sharpness, f->aim, f->deepest,
                              load, &tree.down));
    cinchResult_t result = cinchSuccess;
    if (up)
        result = cinch_pack_grow(f->grower, tree.root, true, share, sharpness, f->aim, f->deepest,
                                 load, &tree.up);
    if (result != cinchSuccess) {
        cinch_pack_half_free(&tree.down);
        return result;
    }
    return cinch_pack_add(pack, tree, &f->slot[slot]);
}

static cinchResult_t reroute(cinch_pack *pack, few *f, double sharpness) {
    double share = 1.0 / f->slots;
    for (int i = 0; i < f->slots; i++) {
        if (f->slot[i] >= 0) add_load(pack, f, f->slot[i], -share);
        CINCH_TRY(regrow(pack, f, i, sharpness));
        add_load(pack, f, f->slot[i], share);
        double most = largest(f, pack->rows);
        if (f->slot[f->slots - 1] >= 0 && most < f->least) {
            f->least = most;
            memcpy(f->best, f->slot, (size_t)f->slots * sizeof(int));
        }
    }
    return cinchSuccess;
}

/* Forgets the trees that are neither in use nor in the best arrangement. */
static cinchResult_t forget(cinch_pack *pack, few *f) {
    int *moved = malloc(((size_t)pack->trees + 1) * sizeof(int));
    if (!moved) return cinch_fail(cinchSystemError, "out of memory for a plan");
    for (int t = 0; t < pack->trees; t++) pack->tree[t].weight = 0;
    for (int i = 0; i < f->slots; i++) {
        pack->tree[f->slot[i]].weight = 1;
        pack->tree[f->best[i]].weight = 1;
    }
    cinch_pack_compact(pack, moved);
    for (int i = 0; i < f->slots; i++) {
        f->slot[i] = moved[f->slot[i]];
        f->best[i] = moved[f->best[i]];
    }
    free(moved);
    return cinchSuccess;
}

static cinchResult_t run(cinch_pack *pack, few *f, int rounds) {
    double sharpness = 12;
    f->least = HUGE_VAL;
    for (int t = 0; t < pack->trees; t++) pack->tree[t].weight = 0;
    memset(f->load, 0, (size_t)pack->rows * sizeof(double));
    for (int i = 0; i < f->slots; i++) f->slot[i] = -1;
    /* Rounds that were of no use. The few trees of an all-reduce get better by leaps, late ones
     * too.
     */
    bool leaps = pack->mode == CINCH_PACK_BOTH || pack->mode == CINCH_PACK_PAIR;
    int idle = 0;
    for (int i = 0; i < rounds && idle < 5 && f->least > 1.001 * f->aim; i++) {
        double before = f->least;
        CINCH_TRY(reroute(pack, f, sharpness));
        CINCH_TRY(forget(pack, f));
        idle = !leaps && f->least > 0.9995 * before ? idle + 1 : 0;
        if (sharpness < 80) sharpness *= 1.3;
    }
    for (int t = 0; t < pack->trees; t++) pack->tree[t].weight = 0;
    for (int i = 0; i < f->slots; i++) pack->tree[f->best[i]].weight += 1.0 / f->slots;
    return cinchSuccess;
}

cinchResult_t cinch_pack_few(cinch_pack *pack, int trees, int rounds, int deepest) {
    size_t rows = (size_t)pack->rows + 1, slots = (size_t)trees;
    few f = {.slots = trees, .deepest = deepest};
    f.load = malloc(2 * rows * sizeof(double));
    f.slot = malloc(2 * slots * sizeof(int));
    cinchResult_t result = cinchSuccess;
    if (f.load && f.slot) {
        f.guess = f.load + rows;
        f.best = f.slot + slots;
        f.aim = 1 / cinch_pack_bound(pack);
        result = cinch_pack_grower_make(pack, &f.grower);
        if (result == cinchSuccess) result = run(pack, &f, rounds);
    } else {
        result = cinch_fail(cinchSystemError, "out of memory for a plan");
    }
    cinch_pack_grower_free(f.grower);
    free(f.load);
    free(f.slot);
    return result;
}

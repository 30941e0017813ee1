/* SPDX-License-Identifier: Apache-2.0 */
/* Column generation: solves the program over the trees at hand, asks for the cheapest trees at its
 * prices, and again, until the best bound is near. The prices asked at lie between the program's
 * and those of the best bound (Wentges 1997), without which they jump about; and pruning, which is
 * the program over fewer trees. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "topo/pack.h"

/* The weights of every group made to sum to 1 / groups; false where a group has none. */
static bool normalize(cinch_pack *pack, double *sum) {
    for (int g = 0; g < pack->groups; g++) sum[g] = 0;
    for (int t = 0; t < pack->trees; t++) sum[pack->tree[t].group] += pack->tree[t].weight;
    for (int g = 0; g < pack->groups; g++)
        if (!(sum[g] > 0)) return false;
    for (int t = 0; t < pack->trees; t++)
        pack->tree[t].weight /= sum[pack->tree[t].group] * pack->groups;
    return true;
}

static void keep(const cinch_pack *pack, double *weight) {
    for (int t = 0; t < pack->trees; t++) weight[t] = pack->tree[t].weight;
}

static void restore(cinch_pack *pack, const double *weight, int trees) {
    for (int t = 0; t < pack->trees; t++) pack->tree[t].weight = t < trees ? weight[t] : 0;
}

/* Scratch: load and price and sum[groups], chosen[groups]. */
typedef struct {
    double *load, *price, *sum;
    int *chosen;
} scratch;

static cinchResult_t scratch_make(const cinch_pack *pack, scratch *s) {
    size_t rows = (size_t)pack->rows + 1, groups = (size_t)pack->groups;
    s->load = malloc((2 * rows + groups) * sizeof(double));
    s->chosen = malloc(groups * sizeof(int));
    if (!s->load || !s->chosen) return cinch_fail(cinchSystemError, "out of memory for a plan");
    s->price = s->load + rows;
    s->sum = s->price + rows;
    return cinchSuccess;
}

static void scratch_free(scratch *s) {
    free(s->load);
    free(s->chosen);
}

/* Prices between the program's, as a share of their sum, and the best bound's. */
static void mix(const cinch_pack *pack, double share_of_best, double *price) {
    double sum = 0;
    for (int r = 0; r < pack->rows; r++) sum += price[r];
    for (int r = 0; r < pack->rows; r++) {
        double own = sum > 0 ? price[r] / sum : 1.0 / pack->rows;
        price[r] = share_of_best * pack->best[r] + (1 - share_of_best) * own + 1e-9 / pack->rows;
    }
}

static cinchResult_t generate(cinch_pack *pack, cinch_pack_lp *lp, int rounds, double gap,
                              scratch *s) {
    double share = 0.6;
    for (int i = 0; i < rounds; i++) {
        CINCH_TRY(cinch_pack_lp_solve(lp, pack, NULL));
        cinch_pack_lp_weights(lp, pack);
        if (normalize(pack, s->sum)) {
            double algbw = 1 / cinch_pack_load(pack, s->load);
            if (algbw >= (1 - gap) * cinch_pack_bound(pack)) break;
        }
        if (cinch_pack_lp_tired(lp)) break;
        int before = pack->trees;
        double bound = pack->bound;
        cinch_pack_lp_price(lp, s->price);
        mix(pack, share, s->price);
        CINCH_TRY(cinch_pack_respond(pack, s->price, s->chosen));
        /* Nothing new, and no better bound: nearer to the program's own prices. */
        if (pack->trees == before && pack->bound >= bound) {
            if (share == 0) break;
            share = share > 0.05 ? share / 2 : 0;
        } else {
            share = pack->bound < bound ? 0.6 : share;
        }
    }
    return cinchSuccess;
}

cinchResult_t cinch_pack_by_column(cinch_pack *pack, int rounds, double gap) {
    scratch s = {0};
    cinch_pack_lp *lp = NULL;
    int trees = pack->trees;
    double *before = malloc(((size_t)trees + 1) * sizeof(double));
    cinchResult_t result = scratch_make(pack, &s);
    if (result == cinchSuccess && !before)
        result = cinch_fail(cinchSystemError, "out of memory for a plan");
    double old = 0;
    if (result == cinchSuccess) {
        keep(pack, before);
        old = 1 / cinch_pack_load(pack, s.load);
        result = cinch_pack_lp_make(pack, old, &lp);
    }
    if (result == cinchSuccess) result = generate(pack, lp, rounds, gap, &s);
    if (result == cinchSuccess) {
        cinch_pack_lp_weights(lp, pack);
        if (!normalize(pack, s.sum) || 1 / cinch_pack_load(pack, s.load) < old)
            restore(pack, before, trees);
    }
    cinch_pack_lp_free(lp);
    scratch_free(&s);
    free(before);
    return result;
}

/* ---- pruning ---- */

typedef struct {
    double weight;
    int tree;
} heavy;

static int by_weight(const void *a, const void *b) {
    const heavy *x = a, *y = b;
    if (x->weight != y->weight) return x->weight > y->weight ? -1 : 1;
    return (x->tree > y->tree) - (x->tree < y->tree);
}

/* The trees that have weight, the heaviest of every group first, then the others by weight. */
static int rank_trees(const cinch_pack *pack, heavy *order, int *heaviest) {
    int count = 0;
    for (int g = 0; g < pack->groups; g++) heaviest[g] = -1;
    for (int t = 0; t < pack->trees; t++) {
        int *h = &heaviest[pack->tree[t].group];
        if (pack->tree[t].weight <= 0) continue;
        order[count++] = (heavy){pack->tree[t].weight, t};
        if (*h < 0 || pack->tree[t].weight > pack->tree[*h].weight) *h = t;
    }
    for (int i = 0; i < count; i++)
        if (heaviest[pack->tree[order[i].tree].group] == order[i].tree) order[i].weight += 2;
    qsort(order, (size_t)count, sizeof *order, by_weight);
    return count;
}

/* Weights over the first `count` trees of the order; *algbw what they reach. */
static cinchResult_t solve_first(cinch_pack *pack, const heavy *order, int count, double scale,
                                 bool *allowed, scratch *s, double *algbw) {
    cinch_pack_lp *lp = NULL;
    for (int t = 0; t < pack->trees; t++) allowed[t] = false;
    for (int i = 0; i < count; i++) allowed[order[i].tree] = true;
    cinchResult_t result = cinch_pack_lp_make(pack, scale, &lp);
    if (result == cinchSuccess) result = cinch_pack_lp_solve(lp, pack, allowed);
    *algbw = 0;
    if (result == cinchSuccess) {
        cinch_pack_lp_weights(lp, pack);
        if (normalize(pack, s->sum)) *algbw = 1 / cinch_pack_load(pack, s->load);
    }
    cinch_pack_lp_free(lp);
    return result;
}

static cinchResult_t prune(cinch_pack *pack, int most, double loss, heavy *order, double *best,
                           bool *allowed, scratch *s) {
    int high = rank_trees(pack, order, s->chosen), low = pack->groups;
    double whole = 1 / cinch_pack_load(pack, s->load), algbw;
    keep(pack, best);
    if (most > 0 && high > most) {
        high = most > low ? most : low;
        CINCH_TRY(solve_first(pack, order, high, whole, allowed, s, &algbw));
        keep(pack, best);
        whole = whole < algbw ? whole : algbw;
    }
    while (low < high && loss > 0) {
        int middle = low + (high - low) / 2;
        CINCH_TRY(solve_first(pack, order, middle, whole, allowed, s, &algbw));
        if (algbw >= (1 - loss) * whole) {
            high = middle;
            keep(pack, best);
        } else {
            low = middle + 1;
        }
    }
    restore(pack, best, pack->trees);
    return cinchSuccess;
}

cinchResult_t cinch_pack_prune(cinch_pack *pack, int most, double loss) {
    scratch s = {0};
    heavy *order = malloc(((size_t)pack->trees + 1) * sizeof *order);
    double *best = malloc(((size_t)pack->trees + 1) * sizeof *best);
    bool *allowed = malloc(((size_t)pack->trees + 1) * sizeof *allowed);
    cinchResult_t result = scratch_make(pack, &s);
    if (result == cinchSuccess && (!order || !best || !allowed))
        result = cinch_fail(cinchSystemError, "out of memory for a plan");
    if (result == cinchSuccess) result = prune(pack, most, loss, order, best, allowed, &s);
    scratch_free(&s);
    free(order);
    free(best);
    free(allowed);
    return result;
}

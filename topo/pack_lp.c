/* SPDX-License-Identifier: Apache-2.0 */
/* The packing program over the trees at hand, by the revised simplex method with an explicit
 * inverse of the basis. In units where the answer is about 1: maximize x;  row a: sum(use * w) +
 * slack = 1;  group g: x / groups - sum(w) + slack = a bit. Nothing is equal by accident (the bits
 * differ), so it does not stall; the weights that come out are scaled to sums of 1 by whoever takes
 * them, so rounding costs a little bandwidth and no validity. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "topo/pack.h"

struct cinch_pack_lp {
    int rows, groups, size; /* size: rows + groups */
    double scale;           /* weights times this are in GB/s */
    double *inverse;        /* size * size, a row after the other */
    double *value;          /* of the basic variables */
    int *basis;             /* variables: [0, size) slacks, size: x, then the trees */
    int *place;             /* of the trees and the others in the basis, -1: not there */
    int places;
    double work;    /* so far: numbers looked at */
    double *column; /* scratch: the inverse times the one that enters */
    double *price;  /* x's row of the inverse, or zeros */
};

#define TINY 1e-9
#define MOST_WORK 3e9 /* about a second; then it stops at what it has */

cinchResult_t cinch_pack_lp_make(const cinch_pack *pack, double scale, cinch_pack_lp **made) {
    cinch_pack_lp *lp = *made = calloc(1, sizeof *lp);
    size_t size = (size_t)pack->rows + (size_t)pack->groups;
    if (lp) {
        lp->rows = pack->rows;
        lp->groups = pack->groups;
        lp->size = (int)size;
        lp->scale = scale;
        lp->inverse = calloc(size * size, sizeof(double));
        lp->value = malloc(3 * size * sizeof(double));
        lp->basis = malloc(size * sizeof(int));
        lp->place = malloc((size + 1) * sizeof(int));
    }
    if (!lp || !lp->inverse || !lp->value || !lp->basis || !lp->place)
        return cinch_fail(cinchSystemError, "out of memory for a plan's linear program");
    lp->column = lp->value + size;
    lp->price = lp->column + size;
    for (int i = 0; i < lp->size; i++) {
        lp->inverse[(size_t)i * size + (size_t)i] = 1;
        lp->basis[i] = lp->place[i] = i;
        lp->price[i] = 0;
        /* The bits: small beside what is asked for, large beside rounding. */
        lp->value[i] = i < lp->rows ? 1 + 1e-6 * (i % 97) / 97.0
                                    : 1e-6 * (1 + (double)(i - lp->rows) / lp->groups) / lp->groups;
    }
    lp->place[size] = -1;
    lp->places = (int)size + 1;
    return cinchSuccess;
}

void cinch_pack_lp_free(cinch_pack_lp *lp) {
    if (!lp) return;
    free(lp->inverse);
    free(lp->value);
    free(lp->basis);
    free(lp->place);
    free(lp);
}

/* What a variable would add to x for each unit of it. */
static double gain(const cinch_pack_lp *lp, const cinch_pack *pack, int variable) {
    if (variable < lp->size) return -lp->price[variable];
    double sum = 0;
    if (variable == lp->size) {
        for (int g = 0; g < lp->groups; g++) sum += lp->price[lp->rows + g];
        return 1 - sum / lp->groups;
    }
    const cinch_pack_tree *tree = &pack->tree[variable - lp->size - 1];
    for (int i = 0; i < tree->uses; i++) sum += tree->use[i] * lp->price[tree->row[i]];
    return lp->price[lp->rows + tree->group] - sum * lp->scale;
}

static void set_column(cinch_pack_lp *lp, const cinch_pack *pack, int variable) {
    size_t size = (size_t)lp->size;
    const cinch_pack_tree *tree = variable > lp->size ? &pack->tree[variable - lp->size - 1] : NULL;
    for (size_t i = 0; i < size; i++) {
        const double *row = lp->inverse + i * size;
        double sum = 0;
        if (tree) {
            for (int k = 0; k < tree->uses; k++) sum += tree->use[k] * row[tree->row[k]];
            sum = sum * lp->scale - row[lp->rows + tree->group];
        } else if (variable == lp->size) {
            for (int g = 0; g < lp->groups; g++) sum += row[lp->rows + g];
            sum /= lp->groups;
        } else {
            sum = row[variable];
        }
        lp->column[i] = sum;
    }
}

/* Which basic variable the column drives to zero first; -1: none. Among equals the largest pivot.
 */
static int leaving(const cinch_pack_lp *lp) {
    int best = -1;
    double least = HUGE_VAL;
    for (int i = 0; i < lp->size; i++) {
        if (lp->column[i] <= TINY) continue;
        double ratio = lp->value[i] / lp->column[i];
        if (ratio < least - 1e-12 ||
            (ratio < least + 1e-12 && best >= 0 && lp->column[i] > lp->column[best])) {
            if (ratio < least) least = ratio;
            best = i;
        }
    }
    return best;
}

static void pivot(cinch_pack_lp *lp, int out, int variable) {
    size_t size = (size_t)lp->size;
    double *pivot_row = lp->inverse + (size_t)out * size, by = 1 / lp->column[out];
    for (size_t k = 0; k < size; k++) pivot_row[k] *= by;
    lp->value[out] *= by;
    for (size_t i = 0; i < size; i++) {
        double factor = lp->column[i];
        if (i == (size_t)out || factor == 0) continue;
        double *row = lp->inverse + i * size;
        for (size_t k = 0; k < size; k++) row[k] -= factor * pivot_row[k];
        lp->value[i] -= factor * lp->value[out];
        if (lp->value[i] < 0) lp->value[i] = 0;
    }
    lp->place[lp->basis[out]] = -1;
    lp->basis[out] = variable;
    lp->place[variable] = out;
    int x = lp->place[lp->size];
    for (size_t k = 0; k < size; k++) lp->price[k] = x < 0 ? 0 : lp->inverse[(size_t)x * size + k];
}

static bool usable(const cinch_pack_lp *lp, int variable, const bool *allowed) {
    return variable <= lp->size || !allowed || allowed[variable - lp->size - 1];
}

cinchResult_t cinch_pack_lp_solve(cinch_pack_lp *lp, const cinch_pack *pack, const bool *allowed) {
    int variables = lp->size + 1 + pack->trees;
    if (variables > lp->places) {
        int *place = realloc(lp->place, (size_t)(variables + variables / 2) * sizeof(int));
        if (!place) return cinch_fail(cinchSystemError, "out of memory for a plan");
        lp->place = place;
        for (int i = lp->places; i < variables + variables / 2; i++) place[i] = -1;
        lp->places = variables + variables / 2;
    }
    /* Far more than it takes; rounding could make it go in circles. */
    for (int turns = 20 * lp->size + 1000; turns > 0; turns--) {
        int enter = -1;
        double most = TINY;
        if (lp->work > MOST_WORK) break;
        lp->work += (double)lp->size * lp->size + 16.0 * pack->trees;
        for (int v = 0; v < variables; v++) {
            if (lp->place[v] >= 0 || !usable(lp, v, allowed)) continue;
            double g = gain(lp, pack, v);
            if (g > most) {
                most = g;
                enter = v;
            }
        }
        if (enter < 0) break;
        set_column(lp, pack, enter);
        int out = leaving(lp);
        if (out < 0) break;
        pivot(lp, out, enter);
    }
    return cinchSuccess;
}

bool cinch_pack_lp_tired(const cinch_pack_lp *lp) {
    return lp->work > MOST_WORK;
}

void cinch_pack_lp_price(const cinch_pack_lp *lp, double *price) {
    for (int r = 0; r < lp->rows; r++) price[r] = lp->price[r] > 0 ? lp->price[r] : 0;
}

void cinch_pack_lp_weights(const cinch_pack_lp *lp, cinch_pack *pack) {
    for (int t = 0; t < pack->trees; t++) {
        int variable = lp->size + 1 + t, place = variable < lp->places ? lp->place[variable] : -1;
        pack->tree[t].weight = place >= 0 && lp->value[place] > 0 ? lp->value[place] : 0;
    }
}

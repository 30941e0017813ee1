/* SPDX-License-Identifier: Apache-2.0 */
/* Packing by prices that grow exponentially with the load (Plotkin, Shmoys, Tardos 1995; Bienstock
 * 2002): a step goes from the trees so far towards the cheapest tree, as far as it lowers the sum
 * of exponentials, which stands for the largest load and sharpens as the gap to the bound closes.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "topo/pack.h"

double cinch_pack_exp(double x) {
    if (x < -700) return 0;
    if (x > 700) x = 700;
    /* x = k ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts; then Taylor's series. */
    double k = x * 1.4426950408889634;
    k = (double)(int)(k < 0 ? k - 0.5 : k + 0.5);
    double r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10;
    double sum = 1 + r / 10;
    for (int i = 9; i > 0; i--) sum = 1 + r * sum / i;
    uint64_t bits = (uint64_t)(1023 + (int)k) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return sum * power;
}

enum { BISECTIONS = 12 };

/* How far to go from `load` towards `other`. */
static double step(const double *load, const double *other, int rows, double sharpness,
                   double most) {
    double low = 0, high = 1;
    for (int i = 0; i < BISECTIONS; i++) {
        double middle = (low + high) / 2, slope = 0, top = 0;
        for (int r = 0; r < rows; r++) {
            double at = load[r] + middle * (other[r] - load[r]);
            if (at > top) top = at;
        }
        for (int r = 0; r < rows; r++) {
            double at = load[r] + middle * (other[r] - load[r]);
            double exponent = sharpness * (at - top) / most;
            if (exponent > -40) slope += (other[r] - load[r]) * cinch_pack_exp(exponent);
        }
        if (slope > 0)
            high = middle;
        else
            low = middle;
    }
    return low;
}

static void set_prices(const double *load, int rows, double sharpness, double most, double *price) {
    for (int r = 0; r < rows; r++)
        price[r] = cinch_pack_exp(sharpness * (load[r] - most) / most) + 1e-9;
}

/* The load of the chosen trees together. */
static void load_chosen(const cinch_pack *pack, const int *chosen, double *load) {
    memset(load, 0, (size_t)pack->rows * sizeof *load);
    for (int g = 0; g < pack->groups; g++) {
        const cinch_pack_tree *tree = &pack->tree[chosen[g]];
        for (int i = 0; i < tree->uses; i++) load[tree->row[i]] += tree->use[i] / pack->groups;
    }
}

static void move(cinch_pack *pack, const int *chosen, double far, double *load,
                 const double *other) {
    for (int t = 0; t < pack->trees; t++) pack->tree[t].weight *= 1 - far;
    for (int g = 0; g < pack->groups; g++) pack->tree[chosen[g]].weight += far / pack->groups;
    for (int r = 0; r < pack->rows; r++) load[r] += far * (other[r] - load[r]);
}

static double largest(const double *load, int rows) {
    double most = 0;
    for (int r = 0; r < rows; r++)
        if (load[r] > most) most = load[r];
    return most;
}

static cinchResult_t run(cinch_pack *pack, int rounds, double gap, int *chosen, double *load,
                         double *other, double *price) {
    int rows = pack->rows;
    double logarithm = 1; /* of rows, to a bit */
    for (int n = rows; n > 1; n /= 2) logarithm += 0.693;
    for (int r = 0; r < rows; r++) price[r] = 1;
    CINCH_TRY(cinch_pack_respond(pack, price, chosen));
    for (int t = 0; t < pack->trees; t++) pack->tree[t].weight = 0;
    load_chosen(pack, chosen, other);
    memset(load, 0, (size_t)rows * sizeof *load);
    move(pack, chosen, 1, load, other);
    double boost = 1;
    for (int i = 0; i < rounds; i++) {
        double most = largest(load, rows), now = 1 - 1 / (most * cinch_pack_bound(pack));
        if (now <= gap) break;
        double sharpness = boost * 2 * logarithm / (now > gap ? now : gap);
        set_prices(load, rows, sharpness, most, price);
        CINCH_TRY(cinch_pack_respond(pack, price, chosen));
        load_chosen(pack, chosen, other);
        double far = step(load, other, rows, sharpness, most);
        move(pack, chosen, far, load, other);
        boost = far > 0 ? 1 : boost * 2; /* at rest for this sharpness */
        if (boost > 1024) break;
    }
    return cinchSuccess;
}

cinchResult_t cinch_pack_by_price(cinch_pack *pack, int rounds, double gap) {
    size_t rows = (size_t)pack->rows + 1;
    double *load = malloc(3 * rows * sizeof(double));
    int *chosen = malloc((size_t)pack->groups * sizeof(int));
    cinchResult_t result = cinchSuccess;
    if (load && chosen)
        result = run(pack, rounds, gap, chosen, load, load + rows, load + 2 * rows);
    else
        result = cinch_fail(cinchSystemError, "out of memory for a plan");
    free(load);
    free(chosen);
    return result;
}

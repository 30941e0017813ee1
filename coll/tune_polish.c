/* SPDX-License-Identifier: Apache-2.0 */
/* What times of several ways in several passes come to. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "coll/tune_time.h"

enum {
    ROUNDS = 10,
    CELLS = CINCH_MOST_WAYS * CINCH_MOST_PASSES,
    ENOUGH = 3 /* passes of a kind, before it has a say beside the other */
};
/* Where ranks outnumber CPUs, how they stand on them makes up to 1.5 (tune_time.h); beyond that
 * somebody else had a part in it. */
static const double LIKE_THE_BEST = 1.6;

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double cinch_timing_quantile(const double *value, int count, double part) {
    double sorted[CINCH_MOST_WAYS], at = part * (count - 1);
    memcpy(sorted, value, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, ascending);
    int below = (int)at, above = below + 1 < count ? below + 1 : below;
    return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}

/* Takes the median out of `count` values that lie `stride` apart, and gives it back. */
static double take_median(double *value, int count, int stride) {
    double row[CINCH_MOST_WAYS];
    for (int i = 0; i < count; i++) row[i] = value[i * stride];
    double median = cinch_timing_quantile(row, count, 0.5);
    for (int i = 0; i < count; i++) value[i * stride] -= median;
    return median;
}

/* The passes that nothing unusual slowed; how many. */
static int keep_usual(const double *of_pass, int passes, int *kept) {
    double best = cinch_timing_quantile(of_pass, passes, 0);
    int count = 0;
    for (int p = 0; p < passes; p++)
        if (of_pass[p] <= best + log(LIKE_THE_BEST)) kept[count++] = p;
    return count;
}

/* Passes of one kind: which[0..count) of all `passes`. out: logarithms. */
static void polish(const double *us, int ways, int passes, const int *which, int count,
                   double *out) {
    double left[CELLS], of_way[CINCH_MOST_WAYS] = {0}, of_pass[CINCH_MOST_PASSES] = {0};
    for (int w = 0; w < ways; w++)
        for (int k = 0; k < count; k++) left[w * count + k] = log(us[w * passes + which[k]]);
    for (int round = 0; round < ROUNDS; round++) {
        for (int w = 0; w < ways; w++) of_way[w] += take_median(&left[w * count], count, 1);
        for (int p = 0; p < count; p++) of_pass[p] += take_median(&left[p], ways, count);
    }
    int kept[CINCH_MOST_PASSES], usual = keep_usual(of_pass, count, kept);
    double effect[CINCH_MOST_PASSES];
    for (int k = 0; k < usual; k++) effect[k] = of_pass[kept[k]];
    double quiet = cinch_timing_quantile(effect, usual, 0.25);
    for (int w = 0; w < ways; w++) {
        double rest = 0;
        for (int k = 0; k < usual; k++) rest += left[w * count + kept[k]];
        out[w] = of_way[w] + rest / usual + quiet;
    }
}

/* How far each way is behind the best at worst, in the one kind of passes or in the other. */
static void raise(double *out, const double *other, int ways) {
    double best = cinch_timing_quantile(out, ways, 0);
    double best_other = cinch_timing_quantile(other, ways, 0);
    for (int w = 0; w < ways; w++) out[w] = best + fmax(out[w] - best, other[w] - best_other);
}

void cinch_timing_polish(const double *us, int ways, int passes, const bool *far, double *out) {
    int which[2][CINCH_MOST_PASSES] = {{0}}, count[2] = {0, 0};
    double other[CINCH_MOST_WAYS];
    for (int p = 0; p < passes; p++) {
        int kind = far && far[p];
        which[kind][count[kind]++] = p;
    }
    int first = count[0] ? 0 : 1;
    polish(us, ways, passes, which[first], count[first], out);
    if (first == 0 && count[1] >= ENOUGH) {
        polish(us, ways, passes, which[1], count[1], other);
        raise(out, other, ways);
    }
    for (int w = 0; w < ways; w++) out[w] = exp(out[w]);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What times of several ways in several passes come to. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "coll/tune_time.h"

enum { ROUNDS = 10, CELLS = CINCH_MOST_WAYS * CINCH_MOST_PASSES };
static const double LIKE_THE_BEST = 1.1; /* a pass slower than that has another order of ways */

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

/* The passes in which the machine was about as fast as it ever was; how many. */
static int keep_fast(const double *of_pass, int passes, int *kept) {
    double best = cinch_timing_quantile(of_pass, passes, 0);
    int count = 0;
    for (int p = 0; p < passes; p++)
        if (of_pass[p] <= best + log(LIKE_THE_BEST)) kept[count++] = p;
    return count;
}

void cinch_timing_polish(const double *us, int ways, int passes, double *out) {
    double left[CELLS], of_way[CINCH_MOST_WAYS] = {0}, of_pass[CINCH_MOST_PASSES] = {0};
    for (int i = 0; i < ways * passes; i++) left[i] = log(us[i]);
    for (int round = 0; round < ROUNDS; round++) {
        for (int w = 0; w < ways; w++) of_way[w] += take_median(&left[w * passes], passes, 1);
        for (int p = 0; p < passes; p++) of_pass[p] += take_median(&left[p], ways, passes);
    }
    int kept[CINCH_MOST_PASSES], count = keep_fast(of_pass, passes, kept);
    double effect[CINCH_MOST_PASSES];
    for (int k = 0; k < count; k++) effect[k] = of_pass[kept[k]];
    double quiet = cinch_timing_quantile(effect, count, 0.25);
    for (int w = 0; w < ways; w++) {
        double rest = 0;
        for (int k = 0; k < count; k++) rest += left[w * passes + kept[k]];
        out[w] = exp(of_way[w] + rest / count + quiet);
    }
}

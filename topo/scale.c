/* SPDX-License-Identifier: Apache-2.0 */
/* Bandwidths to whole numbers: by a decimal unit where one fits, else by a power of two. */
#include "topo/scale.h"

#include <math.h>

static const double most = (double)CINCH_SCALE_MOST;

/* Whether all bandwidths times `scale` are whole, but for what doubles cannot hold. */
static bool all_whole(const cinch_graph *graph, double scale, int64_t *capacity) {
    double sum = 0;
    for (int i = 0; i < graph->arcs; i++) {
        double scaled = graph->arc[i].gbps * scale, whole = rint(scaled);
        if (!(scaled < most) || fabs(scaled - whole) > 1e-14 * scaled) return false;
        capacity[i] = (int64_t)whole;
        sum += whole;
    }
    return sum <= most;
}

static int64_t common_divisor(int64_t a, int64_t b) {
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static bool scale_decimal(const cinch_graph *graph, int64_t *capacity, double *unit) {
    double scale = 1;
    int digits = 0;
    for (; digits <= 9 && !all_whole(graph, scale, capacity); digits++) scale *= 10;
    if (digits > 9) return false;
    int64_t divisor = 0;
    for (int i = 0; i < graph->arcs; i++) divisor = common_divisor(capacity[i], divisor);
    for (int i = 0; i < graph->arcs; i++) capacity[i] /= divisor;
    *unit = (double)(divisor ? divisor : 1) / scale;
    return true;
}

void cinch_scale_capacities(const cinch_graph *graph, int64_t *capacity, double *unit) {
    if (scale_decimal(graph, capacity, unit)) return;
    double largest = 0;
    for (int i = 0; i < graph->arcs; i++) largest = fmax(largest, graph->arc[i].gbps);
    double sum = 0; /* in units of the largest: the sum itself may not be finite */
    for (int i = 0; i < graph->arcs; i++) sum += graph->arc[i].gbps / largest;
    int sum_exponent, exponent;
    frexp(sum, &sum_exponent);
    frexp(largest, &exponent);
    /* largest < 2^exponent and sum < 2^sum_exponent; half of the room is for rounding up. */
    int shift = 43 - sum_exponent - exponent;
    if (shift > 1074) shift = 1074; /* the unit is not 0 */
    for (int i = 0; i < graph->arcs; i++)
        capacity[i] = (int64_t)fmax(1, ceil(ldexp(graph->arc[i].gbps, shift)));
    *unit = ldexp(1, -shift);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Ring: n-1 steps of reduce-scatter and n-1 of all-gather between neighbours (Patarasuk and Yuan
 * 2009). The fewest bytes, 2(n-1)/n of the message, over n connections that each carry one flow. */
#include "coll/algo.h"

static const char *supports(const cinch_call *call) {
    if (call->encoded) return "it would quantize once per step; twostep and exchange take codecs";
    if (call->nranks < 2) return "it needs two ranks or more";
    return NULL;
}

static double cost(const cinch_call *call) {
    double n = call->nranks, steps = 2 * (n - 1);
    return steps * cinch_cost_step(call) + steps / n * (double)call->bytes * cinch_cost_byte(call);
}

/* A step per iteration, but no more than this many rounds at once. */
enum { MOST_LAGS = 16 };

static void build(cinch_builder *b, cinch_schedule *s, int rank, int n, const cinch_call *call) {
    (void)call;
    int right = (rank + 1) % n, left = (rank + n - 1) % n, steps = 2 * (n - 1);
    if (!cinch_build_begin(b, s, rank, n, n)) return;
    for (int step = 0; step <= steps; step++) {
        cinch_build_lag(b, steps <= MOST_LAGS ? step : step * MOST_LAGS / steps);
        int part = (rank - step + 2 * n) % n; /* that arrived in the last step */
        cinch_ref in = cinch_ref_of(CINCH_IN, part), tmp = cinch_ref_of(CINCH_TMP, part);
        cinch_ref out = cinch_ref_of(CINCH_OUT, part), sum[2] = {tmp, in};
        bool reducing = step < n - 1, last = step == n - 1;
        if (step > 0 && step <= n - 1)
            cinch_build_reduce(b, last ? CINCH_FINAL : 0, last ? &out : &tmp, 1, sum, 2);
        if (step == steps) break;
        cinch_build_send(b, right, step, step == 0 ? in : reducing ? tmp : out);
        int next = (part + n - 1) % n;
        cinch_build_recv(b, left, step, cinch_ref_of(reducing ? CINCH_TMP : CINCH_OUT, next));
    }
}

const cinch_algo cinch_algo_ring = {
    .name = "ring",
    .supports = supports,
    .cost = cost,
    .build = build,
    .parts = cinch_parts_ranks,
    .part_bytes = (size_t)64 << 10,
    .least_bytes = (size_t)16 << 10,
};

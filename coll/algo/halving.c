/* SPDX-License-Identifier: Apache-2.0 */
/* Recursive halving and doubling (Rabenseifner 2004): log2 n steps of reduce-scatter, then log2 n
 * of all-gather. Ranks beyond the largest power of two first hand their input to a partner and get
 * the result from it. */
#include "coll/algo.h"

static const char *supports(const cinch_call *call) {
    if (call->encoded) return "it would quantize once per step; twostep and exchange take codecs";
    if (call->nranks < 2) return "it needs two ranks or more";
    return NULL;
}

static int power_below(int n) {
    int power = 1;
    while (2 * power <= n) power *= 2;
    return power;
}

static int log2_of(int power) {
    int log = 0;
    while (power >>= 1) log++;
    return log;
}

static int parts(const cinch_call *call) {
    return power_below(call->nranks);
}

static double cost(const cinch_call *call) {
    int power = power_below(call->nranks), steps = 2 * log2_of(power);
    double volume = 2.0 * (power - 1) / power;
    if (power < call->nranks) steps += 2, volume += 2;
    return steps * cinch_cost_step(call) +
           volume * (double)call->bytes * cinch_cost_byte(call) * cinch_cost_crossing(call);
}

static void build(cinch_builder *b, cinch_schedule *s, int rank, int n, const cinch_call *call) {
    (void)call;
    enum { FOLD = 1000, UNFOLD = 1001 };
    int power = power_below(n), extra = n - power, lag = 0, mark = 0;
    if (!cinch_build_begin(b, s, rank, n, power)) return;
    cinch_ref in = cinch_ref_parts(cinch_ref_of(CINCH_IN, 0), power);
    cinch_ref out = cinch_ref_parts(cinch_ref_of(CINCH_OUT, 0), power);
    cinch_ref fold = cinch_ref_parts(cinch_ref_slot(CINCH_TMP, 1, 0), power);
    if (rank >= power) { /* only gives and takes */
        cinch_build_send(b, rank - power, FOLD, in);
        cinch_build_lag(b, 1 + 2 * log2_of(power)); /* when the partner gives it */
        cinch_build_recv(b, rank - power, UNFOLD, out);
        return;
    }
    cinch_space current = CINCH_IN; /* where the sums so far are */
    if (rank < extra) {
        cinch_build_recv(b, rank + power, FOLD, fold);
        cinch_build_lag(b, ++lag);
        cinch_ref sum[2] = {in, fold}, tmp = cinch_ref_parts(cinch_ref_of(CINCH_TMP, 0), power);
        bool last = power == 1;
        cinch_build_reduce(b, last ? CINCH_FINAL : 0, last ? &out : &tmp, 1, sum, 2);
        current = CINCH_TMP;
    } else if (extra) {
        cinch_build_lag(b, ++lag);
    }
    int first = 0, width = power;
    for (int half = power / 2; half >= 1; half /= 2, mark++) {
        int peer = rank ^ half, keep = rank & half ? first + half : first;
        int give = rank & half ? first : first + half;
        cinch_ref got = cinch_ref_parts(cinch_ref_slot(CINCH_TMP, 1, keep), half);
        cinch_build_send(b, peer, mark, cinch_ref_parts(cinch_ref_of(current, give), half));
        cinch_build_recv(b, peer, mark, got);
        cinch_build_lag(b, ++lag);
        bool last = half == 1, lower = rank < peer;
        cinch_ref mine = cinch_ref_parts(cinch_ref_of(current, keep), half);
        cinch_ref sum[2] = {lower ? mine : got, lower ? got : mine};
        cinch_ref to = cinch_ref_parts(cinch_ref_of(last ? CINCH_OUT : CINCH_TMP, keep), half);
        cinch_build_reduce(b, last ? CINCH_FINAL : 0, &to, 1, sum, 2);
        current = CINCH_TMP;
        first = keep;
        width = half;
    }
    for (int half = 1; half < power; half *= 2, mark++) {
        int peer = rank ^ half, other = first ^ half;
        cinch_build_send(b, peer, mark, cinch_ref_parts(cinch_ref_of(CINCH_OUT, first), width));
        cinch_build_recv(b, peer, mark, cinch_ref_parts(cinch_ref_of(CINCH_OUT, other), width));
        cinch_build_lag(b, ++lag);
        first &= ~half;
        width *= 2;
    }
    if (rank < extra) cinch_build_send(b, rank + power, UNFOLD, out);
}

const cinch_algo cinch_algo_halving = {
    .name = "halving",
    .supports = supports,
    .cost = cost,
    .build = build,
    .parts = parts,
    .part_bytes = (size_t)32 << 10,
    .least_bytes = (size_t)16 << 10,
};

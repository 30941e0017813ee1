/* SPDX-License-Identifier: Apache-2.0 */
/* Ring: n-1 steps of reduce-scatter and n-1 of all-gather between neighbours (Patarasuk and Yuan
 * 2009). The fewest bytes, 2(n-1)/n of the message, over n connections that each carry one flow.
 * Broadcast and reduce go along the chain that begins or ends at the root. */
#include "coll/algo.h"

static const char *supports(const cinch_call *call) {
    if (call->encoded) return "it would quantize once per step";
    if (call->nranks < 2) return "it needs two ranks or more";
    return NULL;
}

static double cost(const cinch_call *call) {
    double n = call->nranks, steps = 2 * (n - 1);
    return steps * cinch_cost_step(call) + steps / n * (double)call->bytes * cinch_cost_byte(call);
}

/* A step per iteration, but no more than this many rounds at once. */
enum { MOST_LAGS = 16 };

static int lag_of(int step, int steps) {
    return steps <= MOST_LAGS ? step : step * MOST_LAGS / steps;
}

static void build(cinch_builder *b, cinch_schedule *s, int rank, int n, const cinch_call *call) {
    (void)call;
    int right = (rank + 1) % n, left = (rank + n - 1) % n, steps = 2 * (n - 1);
    if (!cinch_build_begin(b, s, rank, n, n)) return;
    for (int step = 0; step <= steps; step++) {
        cinch_build_lag(b, lag_of(step, steps));
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

static double cost_half(const cinch_call *call) {
    double steps = call->nranks - 1;
    return steps * cinch_cost_step(call) + steps * (double)call->bytes * cinch_cost_byte(call);
}

static double cost_chain(const cinch_call *call) {
    return (call->nranks - 1) * cinch_cost_step(call) + (double)call->bytes * cinch_cost_byte(call);
}

/* The sum of block b begins at rank b+1 and ends at rank b. */
static void build_reducescatter(cinch_builder *b, cinch_schedule *s, int rank, int n,
                                const cinch_call *call) {
    (void)call;
    int right = (rank + 1) % n, left = (rank + n - 1) % n, steps = n - 1;
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    for (int step = 0; step <= steps; step++) {
        cinch_build_lag(b, lag_of(step, steps));
        cinch_ref in = cinch_ref_block(cinch_ref_of(CINCH_IN, 0), (rank - 1 - step + 2 * n) % n);
        cinch_ref box = cinch_ref_slot(CINCH_BOX, step % 2, 0), sum[2] = {box, in};
        cinch_ref out = cinch_ref_of(CINCH_OUT, 0);
        if (step > 0)
            cinch_build_reduce(b, step == steps ? CINCH_FINAL : 0, step == steps ? &out : &box, 1,
                               sum, 2);
        if (step == steps) break;
        cinch_build_send(b, right, step, step == 0 ? in : box);
        cinch_build_recv(b, left, step, cinch_ref_slot(CINCH_BOX, (step + 1) % 2, 0));
    }
}

static void build_allgather(cinch_builder *b, cinch_schedule *s, int rank, int n,
                            const cinch_call *call) {
    (void)call;
    int right = (rank + 1) % n, left = (rank + n - 1) % n, steps = n - 1;
    cinch_ref out = cinch_ref_of(CINCH_OUT, 0), in = cinch_ref_of(CINCH_IN, 0);
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    cinch_build_copy(b, cinch_ref_block(out, rank), in);
    for (int step = 0; step < steps; step++) {
        cinch_build_lag(b, lag_of(step, steps));
        int block = (rank - step + n) % n;
        cinch_build_recv(b, left, step, cinch_ref_block(out, (block + n - 1) % n));
        cinch_build_send(b, right, step, step == 0 ? in : cinch_ref_block(out, block));
    }
}

/* at: steps from the root along the chain. */
static void build_broadcast(cinch_builder *b, cinch_schedule *s, int rank, int n,
                            const cinch_call *call) {
    int at = (rank - call->root + n) % n;
    cinch_ref out = cinch_ref_of(CINCH_OUT, 0), in = cinch_ref_of(CINCH_IN, 0);
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    if (at) cinch_build_recv(b, (rank + n - 1) % n, 0, out);
    if (at) cinch_build_lag(b, 2); /* receives run ahead, so that the wire never waits */
    if (at < n - 1) cinch_build_send(b, (rank + 1) % n, 0, at ? out : in);
    if (!at) cinch_build_copy(b, out, in);
}

static void build_reduce(cinch_builder *b, cinch_schedule *s, int rank, int n,
                         const cinch_call *call) {
    int at = (rank - call->root + n) % n;
    cinch_ref in = cinch_ref_of(CINCH_IN, 0), box = cinch_ref_of(CINCH_BOX, 0);
    cinch_ref out = cinch_ref_of(CINCH_OUT, 0), sum[2] = {in, box};
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    if (at < n - 1) {
        cinch_build_recv(b, (rank + 1) % n, 0, box);
        cinch_build_lag(b, 2);
        cinch_build_reduce(b, at ? 0 : CINCH_FINAL, at ? &box : &out, 1, sum, 2);
    }
    if (at) cinch_build_send(b, (rank + n - 1) % n, 0, at < n - 1 ? box : in);
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

#define ROW(NAME, COLLECTIVE, COST)                                                                \
    const cinch_algo cinch_algo_##NAME##_ring = {                                                  \
        .name = "ring",                                                                            \
        .collective = COLLECTIVE,                                                                  \
        .supports = supports,                                                                      \
        .cost = COST,                                                                              \
        .build = build_##NAME,                                                                     \
        .parts = cinch_parts_one,                                                                  \
        .part_bytes = (size_t)64 << 10,                                                            \
        .least_bytes = (size_t)16 << 10,                                                           \
    }
ROW(reducescatter, CINCH_REDUCESCATTER, cost_half);
ROW(allgather, CINCH_ALLGATHER, cost_half);
ROW(broadcast, CINCH_BROADCAST, cost_chain);
ROW(reduce, CINCH_REDUCE, cost_chain);

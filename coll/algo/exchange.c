/* SPDX-License-Identifier: Apache-2.0 */
/* Exchange, for two ranks: each gives the other its whole input and reduces in rank order. One
 * step, and as few bytes as any. With a codec: one quantization, and each decodes both. */
#include "coll/algo.h"

static const char *supports(const cinch_call *call) {
    return call->nranks == 2 ? NULL : "it is for two ranks";
}

static double cost(const cinch_call *call) {
    return cinch_cost_step(call) + (double)call->bytes * cinch_cost_byte(call);
}

static void build(cinch_builder *b, cinch_schedule *s, int rank, int n, const cinch_call *call) {
    int peer = 1 - rank;
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    cinch_ref in = cinch_ref_of(CINCH_IN, 0), out = cinch_ref_of(CINCH_OUT, 0);
    cinch_ref box = cinch_ref_slot(CINCH_BOX, 0, 0);
    cinch_ref mine = cinch_ref_slot(CINCH_WIRE, rank, 0);
    cinch_ref theirs = cinch_ref_slot(CINCH_WIRE, peer, 0);
    cinch_build_recv(b, peer, 0, call->encoded ? theirs : box);
    if (call->encoded) cinch_build_encode(b, 0, mine, in);
    cinch_build_send(b, peer, 0, call->encoded ? mine : in);
    cinch_build_lag(b, 3); /* sends run ahead, so that the wire never waits for a wake-up */
    if (call->encoded) {
        cinch_ref sum[2] = {cinch_ref_slot(CINCH_WIRE, 0, 0), cinch_ref_slot(CINCH_WIRE, 1, 0)};
        cinch_build_sum(b, CINCH_FINAL, out, sum, 2);
    } else {
        cinch_ref sum[2] = {rank == 0 ? in : box, rank == 0 ? box : in};
        cinch_build_reduce(b, CINCH_FINAL, &out, 1, sum, 2);
    }
}

const cinch_algo cinch_algo_exchange = {
    .name = "exchange",
    .supports = supports,
    .cost = cost,
    .build = build,
    .parts = cinch_parts_one,
    .part_bytes = (size_t)128 << 10,
    .least_bytes = (size_t)16 << 10,
};

/* SPDX-License-Identifier: Apache-2.0 */
/* Direct: each rank gets its part from all others at once, reduces in rank order, and gives the
 * result to all. Two steps and the fewest bytes, over n-1 flows at a time. */
#include "coll/algo.h"

static const char *supports(const cinch_call *call) {
    if (call->encoded) return "it works without a codec; twostep is the same with one";
    if (call->nranks < 2) return "it needs two ranks or more";
    return NULL;
}

static double cost(const cinch_call *call) {
    double n = call->nranks;
    return (2 + 0.25 * (n - 2)) * cinch_cost_step(call) + 2 * (n - 1) / n * (double)call->bytes *
                                                              cinch_cost_byte(call) *
                                                              (n > 8 ? 1 + 0.01 * (n - 8) : 1);
}

static void build(cinch_builder *b, cinch_schedule *s, int rank, int n, const cinch_call *call) {
    (void)call;
    enum { PART, RESULT };
    if (!cinch_build_begin(b, s, rank, n, n)) return;
    for (int i = 1; i < n; i++) { /* everyone begins at another peer */
        int to = (rank + i) % n, from = (rank + n - i) % n;
        cinch_build_recv(b, from, PART, cinch_ref_slot(CINCH_BOX, from, rank));
        cinch_build_send(b, to, PART, cinch_ref_of(CINCH_IN, to));
    }
    cinch_build_lag(b, 2); /* sends run ahead, so that the wire never waits for a wake-up */
    cinch_ref *src = b->list[0], out = cinch_ref_of(CINCH_OUT, rank);
    for (int q = 0; q < n; q++)
        src[q] = q == rank ? cinch_ref_of(CINCH_IN, q) : cinch_ref_slot(CINCH_BOX, q, rank);
    cinch_build_reduce(b, CINCH_FINAL, &out, 1, src, n);
    for (int i = 1; i < n; i++) {
        int to = (rank + i) % n, from = (rank + n - i) % n;
        cinch_build_send(b, to, RESULT, out);
        cinch_build_recv(b, from, RESULT, cinch_ref_of(CINCH_OUT, from));
    }
}

const cinch_algo cinch_algo_direct = {
    .name = "direct",
    .supports = supports,
    .cost = cost,
    .build = build,
    .parts = cinch_parts_ranks,
    .part_bytes = (size_t)64 << 10,
    .least_bytes = (size_t)16 << 10,
};

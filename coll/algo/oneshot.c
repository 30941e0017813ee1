/* SPDX-License-Identifier: Apache-2.0 */
/* One-shot: every rank shows its input in its window and reduces all of them. One synchronization,
 * n times the reading: for small messages. */
#include "coll/algo.h"

static const char *supports(const cinch_call *call) {
    if (!call->windows) return "it needs shared memory between all ranks";
    if (call->encoded) return "it works without a codec";
    return NULL;
}

/* Every byte is written to the window once and read there n-1 times; a line that another CPU had
 * costs about 0.03 ns a byte either way. */
static double cost(const cinch_call *call) {
    double bytes = (double)call->bytes, rounds = bytes / (double)call->small_bytes;
    return 0.15 + (rounds > 1 ? rounds : 0) + bytes * call->nranks * 3e-5;
}

static void build(cinch_builder *b, cinch_schedule *s, int rank, int n, const cinch_call *call) {
    (void)call;
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    s->stage_slots = 2; /* nobody posts round t+1 before it has read round t-1 */
    s->stage_region = CINCH_STAGE_SMALL;
    cinch_ref out = cinch_ref_of(CINCH_OUT, 0), in = cinch_ref_of(CINCH_IN, 0), *src = b->list[0];
    cinch_build_copy(b, cinch_ref_rank(CINCH_STAGE, rank, 0), in);
    cinch_build_post(b, 0);
    for (int q = 0; q < n; q++) {
        if (q != rank) cinch_build_wait(b, 0, q);
        src[q] = q == rank ? in : cinch_ref_rank(CINCH_STAGE, q, 0);
    }
    cinch_build_reduce(b, CINCH_FINAL, &out, 1, src, n);
}

const cinch_algo cinch_algo_oneshot = {
    .name = "oneshot",
    .supports = supports,
    .cost = cost,
    .build = build,
    .parts = cinch_parts_one,
    .part_bytes = CINCH_SMALL_SLOT,
    .least_bytes = CINCH_SMALL_SLOT,
    .round_most = CINCH_SMALL_SLOT,
};

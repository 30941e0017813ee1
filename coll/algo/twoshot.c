/* SPDX-License-Identifier: Apache-2.0 */
/* Two-shot: reduce-scatter and all-gather through windows, each rank reducing one part from all.
 *
 * Staged: (1) copy the others' parts into the own window; (2) reduce the own part, from the peers'
 * windows, into the result and the window; (3) copy the others' results. A part's place in the
 * window carries inputs first, then the owner's result, because the owner stages no input of its
 * own part.
 * A reduce is the same, but only the root copies results.
 * Mapped, where the peers' buffers can be reached: each rank reduces its part from all inputs and
 * writes it to all outputs, with no staging. */
#include "coll/algo.h"

static const char *supports(const cinch_call *call) {
    if (!call->windows) return "it needs shared memory between all ranks";
    if (call->encoded) return "it works without a codec";
    if (call->nranks < 2) return "it needs two ranks or more";
    return NULL;
}

/* Two synchronizations; every byte is written to the window once and 2(n-1)/n times read there. */
static double cost(const cinch_call *call) {
    double bytes = (double)call->bytes, n = call->nranks;
    if (call->mapped) return 0.5 + bytes * 2 * 2e-5;
    return 0.6 + bytes * (1 + 2 * (n - 1) / n) * 3e-5;
}

static void build_mapped(cinch_builder *b, cinch_schedule *s, int rank, int n) {
    if (!cinch_build_begin(b, s, rank, n, n)) return;
    s->entry_sync = true;
    cinch_ref *src = b->list[0], *dst = b->list[1];
    for (int q = 0; q < n; q++) {
        src[q] = q == rank ? cinch_ref_of(CINCH_IN, rank) : cinch_ref_rank(CINCH_PEER_IN, q, rank);
        dst[q] =
            q == rank ? cinch_ref_of(CINCH_OUT, rank) : cinch_ref_rank(CINCH_PEER_OUT, q, rank);
    }
    cinch_build_reduce(b, CINCH_FINAL, dst, n, src, n);
    cinch_build_post(b, 0);
    for (int q = 0; q < n; q++)
        if (q != rank) cinch_build_wait(b, 0, q);
}

static void build_staged(cinch_builder *b, cinch_schedule *s, int rank, int n, bool gets) {
    if (!cinch_build_begin(b, s, rank, n, n)) return;
    s->stage_slots = 4;
    s->stage_region = CINCH_STAGE_LARGE;
    cinch_ref *src = b->list[0], mine = cinch_ref_rank(CINCH_STAGE, rank, rank);
    cinch_ref dst[2] = {cinch_ref_of(CINCH_OUT, rank), mine};

    for (int q = 0; q < n; q++)
        if (q != rank)
            cinch_build_copy(b, cinch_ref_rank(CINCH_STAGE, rank, q), cinch_ref_of(CINCH_IN, q));
    cinch_build_post(b, 0);

    cinch_build_lag(b, 1);
    for (int q = 0; q < n; q++) {
        if (q != rank) cinch_build_wait(b, 0, q);
        src[q] = q == rank ? cinch_ref_of(CINCH_IN, q) : cinch_ref_rank(CINCH_STAGE, q, rank);
    }
    cinch_build_reduce(b, CINCH_FINAL, gets ? dst : &mine, gets ? 2 : 1, src, n);
    cinch_build_post(b, 1);

    cinch_build_lag(b, 2);
    for (int i = 1; i < n; i++) {
        int q = (rank + i) % n;
        cinch_build_wait(b, 1, q);
        if (gets)
            cinch_build_copy(b, cinch_ref_of(CINCH_OUT, q), cinch_ref_rank(CINCH_STAGE, q, q));
    }
}

static void build(cinch_builder *b, cinch_schedule *s, int rank, int n, const cinch_call *call) {
    if (call->mapped)
        build_mapped(b, s, rank, n);
    else
        build_staged(b, s, rank, n, true);
}

static void build_reduce(cinch_builder *b, cinch_schedule *s, int rank, int n,
                         const cinch_call *call) {
    build_staged(b, s, rank, n, rank == call->root);
}

static double cost_reduce(const cinch_call *call) {
    double bytes = (double)call->bytes, n = call->nranks;
    return 0.6 + bytes * (2 + (n - 1) / n) * 3e-5;
}

const cinch_algo cinch_algo_twoshot = {
    .name = "twoshot",
    .supports = supports,
    .cost = cost,
    .build = build,
    .parts = cinch_parts_ranks,
    .part_bytes = (size_t)128 << 10,
    .least_bytes = (size_t)16 << 10,
    .round_most = CINCH_LARGE_SLOT / 2,
    .maps_from = 1,
};

const cinch_algo cinch_algo_reduce_twoshot = {
    .name = "twoshot",
    .collective = CINCH_REDUCE,
    .supports = supports,
    .cost = cost_reduce,
    .build = build_reduce,
    .parts = cinch_parts_ranks,
    .part_bytes = (size_t)128 << 10,
    .least_bytes = (size_t)16 << 10,
    .round_most = CINCH_LARGE_SLOT / 2,
};

/* SPDX-License-Identifier: Apache-2.0 */
/* One-shot: every rank shows in its window what the others need of its input, and takes what it
 * needs from theirs. One synchronization; an all-reduce reads n times, so there it is for small
 * messages. */
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

/* The other collectives, all alike: what there is for others goes into the stage, one block for
 * each rank where each gets its own; then everyone waits for everyone. So nobody comes to round t+1
 * while another still reads round t-1, in whichever collective that was; and where some only give
 * and others only take, the givers are a round ahead.
 * Mapped: the peers' inputs are read where they are. */
static cinch_ref theirs(const cinch_call *call, const cinch_shape *shape, int from, int me) {
    int block = shape->in_n ? me : 0;
    if (from == me) return cinch_ref_block(cinch_ref_of(CINCH_IN, 0), block);
    return cinch_ref_block(cinch_ref_rank(call->mapped ? CINCH_PEER_IN : CINCH_STAGE, from, 0),
                           block);
}

static void show(cinch_builder *b, const cinch_shape *shape, int rank, int n, int root) {
    if (!cinch_shape_sends(shape, rank, root)) return;
    for (int block = 0; block < cinch_shape_in_blocks(shape, n); block++) {
        bool read = shape->in_n ? block != rank : !shape->out_root || rank != root;
        cinch_ref stage = cinch_ref_rank(CINCH_STAGE, rank, 0), in = cinch_ref_of(CINCH_IN, 0);
        if (read) cinch_build_copy(b, cinch_ref_block(stage, block), cinch_ref_block(in, block));
    }
}

static void take(cinch_builder *b, const cinch_shape *shape, int rank, int n,
                 const cinch_call *call) {
    cinch_ref out = cinch_ref_of(CINCH_OUT, 0), *src = b->list[0];
    if (shape->reduces) {
        for (int q = 0; q < n; q++) src[q] = theirs(call, shape, q, rank);
        cinch_build_reduce(b, CINCH_FINAL, &out, 1, src, n);
        return;
    }
    for (int i = 0; i < n; i++) { /* everyone begins at another peer */
        int q = (rank + i) % n;
        if (cinch_shape_sends(shape, q, call->root))
            cinch_build_copy(b, cinch_ref_block(out, shape->out_n ? q : 0),
                             theirs(call, shape, q, rank));
    }
}

static void build_any(cinch_builder *b, cinch_schedule *s, int rank, int n,
                      const cinch_call *call) {
    const cinch_shape *shape = cinch_shape_of(call->collective);
    bool gets = cinch_shape_gets(shape, rank, call->root);
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    if (call->mapped) {
        s->entry_sync = true;
        if (gets) take(b, shape, rank, n, call);
    } else {
        s->stage_slots = 2;
        s->stage_region = CINCH_STAGE_SMALL;
        s->stage_blocks = (uint16_t)cinch_shape_in_blocks(shape, n);
        show(b, shape, rank, n, call->root);
    }
    cinch_build_post(b, 0);
    for (int q = 0; q < n; q++)
        if (q != rank) cinch_build_wait(b, 0, q);
    if (gets && !call->mapped) take(b, shape, rank, n, call);
}

static double cost_any(const cinch_call *call) {
    const cinch_shape *shape = cinch_shape_of(call->collective);
    double all = (double)call->bytes * cinch_shape_blocks(shape, call->nranks);
    double rounds = all / (double)call->small_bytes;
    /* Where data go to or from a root alone, other algorithms do not wait for everyone. */
    bool patient = call->crowded && cinch_shape_rooted(shape);
    double wait = patient ? 0.6 * call->nranks : 0;
    if (call->mapped) return 0.4 + wait + all * 2e-5;
    return 0.15 + wait + 0.3 * (rounds > 1 ? rounds : 0) + all * call->nranks * 2e-5;
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

#define ROW(NAME, COLLECTIVE)                                                                      \
    const cinch_algo cinch_algo_##NAME##_oneshot = {                                               \
        .name = "oneshot",                                                                         \
        .collective = COLLECTIVE,                                                                  \
        .supports = supports,                                                                      \
        .cost = cost_any,                                                                          \
        .build = build_any,                                                                        \
        .parts = cinch_parts_one,                                                                  \
        .part_bytes = CINCH_SMALL_SLOT,                                                            \
        .least_bytes = CINCH_SMALL_SLOT,                                                           \
        .round_most = CINCH_SMALL_SLOT,                                                            \
        .maps_from = (size_t)16 << 10,                                                             \
    }
ROW(reducescatter, CINCH_REDUCESCATTER);
ROW(allgather, CINCH_ALLGATHER);
ROW(broadcast, CINCH_BROADCAST);
ROW(reduce, CINCH_REDUCE);
ROW(alltoall, CINCH_ALLTOALL);
ROW(gather, CINCH_GATHER);
ROW(scatter, CINCH_SCATTER);

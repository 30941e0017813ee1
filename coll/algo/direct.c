/* SPDX-License-Identifier: Apache-2.0 */
/* Direct: everyone sends to everyone what is for them, over n-1 flows at a time. An all-reduce does
 * so twice: each rank gets its part from all others, reduces in rank order, and gives the result to
 * all. The others are one step; with a codec an input is quantized once. */
#include "coll/algo.h"

static const char *supports(const cinch_call *call) {
    if (call->encoded) return "it works without a codec; twostep is the same with one";
    if (call->nranks < 2) return "it needs two ranks or more";
    return NULL;
}

static double cost(const cinch_call *call) {
    double n = call->nranks;
    return (2 + 0.25 * (n - 2)) * cinch_cost_step(call) +
           2 * (n - 1) / n * (double)call->bytes * cinch_cost_byte(call) *
               cinch_cost_crossing(call) * (n > 8 ? 1 + 0.01 * (n - 8) : 1);
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

static const char *supports_exact(const cinch_call *call) {
    if (call->encoded) return "it works without a codec";
    return call->nranks < 2 ? "it needs two ranks or more" : NULL;
}
static const char *supports_any(const cinch_call *call) {
    if (call->encoded && call->exact_between) return "with it a codec is used between hosts too";
    return call->nranks < 2 ? "it needs two ranks or more" : NULL;
}

static double cost_any(const cinch_call *call) {
    double n = call->nranks;
    return (1 + 0.25 * (n - 2)) * cinch_cost_step(call) +
           (n - 1) * (double)call->bytes * cinch_cost_byte(call) * cinch_cost_crossing(call) *
               (n > 8 ? 1 + 0.01 * (n - 8) : 1);
}

/* Where this rank's input for `to` is; and where what is from `from` goes. */
static cinch_ref input_for(const cinch_shape *shape, int to) {
    return cinch_ref_block(cinch_ref_of(CINCH_IN, 0), shape->in_n ? to : 0);
}
static cinch_ref output_from(const cinch_shape *shape, int from) {
    return cinch_ref_block(cinch_ref_of(CINCH_OUT, 0), shape->out_n ? from : 0);
}

static void build_any(cinch_builder *b, cinch_schedule *s, int rank, int n,
                      const cinch_call *call) {
    const cinch_shape *shape = cinch_shape_of(call->collective);
    bool sends = cinch_shape_sends(shape, rank, call->root);
    bool gets = cinch_shape_gets(shape, rank, call->root);
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    for (int i = 1; i < n; i++) { /* everyone begins at another peer */
        int to = (rank + i) % n, from = (rank + n - i) % n;
        cinch_ref box = cinch_ref_slot(CINCH_BOX, from, 0);
        if (gets && cinch_shape_sends(shape, from, call->root))
            cinch_build_recv(b, from, 0, shape->reduces ? box : output_from(shape, from));
        if (sends && cinch_shape_gets(shape, to, call->root))
            cinch_build_send(b, to, 0, input_for(shape, to));
    }
    if (!gets) return;
    if (!shape->reduces) {
        if (sends) cinch_build_copy(b, output_from(shape, rank), input_for(shape, rank));
        return;
    }
    cinch_build_lag(b, 2); /* sends run ahead, so that the wire never waits for a wake-up */
    cinch_ref *src = b->list[0], out = cinch_ref_of(CINCH_OUT, 0);
    for (int q = 0; q < n; q++)
        src[q] = q == rank ? input_for(shape, rank) : cinch_ref_slot(CINCH_BOX, q, 0);
    cinch_build_reduce(b, CINCH_FINAL, &out, 1, src, n);
}

/* WIRE slots: [0,n) from peers, [n,2n) to peers. */
static void build_reducescatter(cinch_builder *b, cinch_schedule *s, int rank, int n,
                                const cinch_call *call) {
    const cinch_shape *shape = cinch_shape_of(call->collective);
    if (!call->encoded) {
        build_any(b, s, rank, n, call);
        return;
    }
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    for (int i = 1; i < n; i++) {
        int from = (rank + n - i) % n;
        cinch_build_recv(b, from, 0, cinch_ref_slot(CINCH_WIRE, from, 0));
    }
    for (int i = 1; i < n; i++) {
        int to = (rank + i) % n;
        cinch_ref wire = cinch_ref_slot(CINCH_WIRE, n + to, 0);
        cinch_build_encode(b, 0, wire, input_for(shape, to));
        cinch_build_send(b, to, 0, wire);
    }
    cinch_build_lag(b, 2);
    cinch_ref *src = b->list[0];
    for (int q = 0; q < n; q++)
        src[q] = q == rank ? input_for(shape, rank) : cinch_ref_slot(CINCH_WIRE, q, 0);
    cinch_build_sum(b, CINCH_FINAL, cinch_ref_of(CINCH_OUT, 0), src, n);
}

/* Everyone, the owner included, decodes what the owner encoded. */
static void build_allgather(cinch_builder *b, cinch_schedule *s, int rank, int n,
                            const cinch_call *call) {
    const cinch_shape *shape = cinch_shape_of(call->collective);
    if (!call->encoded) {
        build_any(b, s, rank, n, call);
        return;
    }
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    cinch_ref mine = cinch_ref_slot(CINCH_WIRE, rank, 0);
    for (int i = 1; i < n; i++) {
        int from = (rank + n - i) % n;
        cinch_build_recv(b, from, 0, cinch_ref_slot(CINCH_WIRE, from, 0));
    }
    cinch_build_encode(b, 0, mine, cinch_ref_of(CINCH_IN, 0));
    for (int i = 1; i < n; i++) cinch_build_send(b, (rank + i) % n, 0, mine);
    cinch_build_lag(b, 2);
    for (int i = 0; i < n; i++) {
        int q = (rank + i) % n;
        cinch_ref wire = cinch_ref_slot(CINCH_WIRE, q, 0);
        cinch_build_sum(b, 0, output_from(shape, q), &wire, 1);
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

#define ROW(NAME, COLLECTIVE, SUPPORTS, BUILD)                                                     \
    const cinch_algo cinch_algo_##NAME##_direct = {                                                \
        .name = "direct",                                                                          \
        .collective = COLLECTIVE,                                                                  \
        .supports = SUPPORTS,                                                                      \
        .cost = cost_any,                                                                          \
        .build = BUILD,                                                                            \
        .parts = cinch_parts_one,                                                                  \
        .part_bytes = (size_t)64 << 10,                                                            \
        .least_bytes = (size_t)16 << 10,                                                           \
    }
ROW(reducescatter, CINCH_REDUCESCATTER, supports_any, build_reducescatter);
ROW(allgather, CINCH_ALLGATHER, supports_any, build_allgather);
ROW(broadcast, CINCH_BROADCAST, supports_exact, build_any);
ROW(reduce, CINCH_REDUCE, supports_exact, build_any);
ROW(alltoall, CINCH_ALLTOALL, supports_exact, build_any);
ROW(gather, CINCH_GATHER, supports_exact, build_any);
ROW(scatter, CINCH_SCATTER, supports_exact, build_any);

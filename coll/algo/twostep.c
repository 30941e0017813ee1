/* SPDX-License-Identifier: Apache-2.0 */
/* Two-step: direct with a codec. Each rank encodes the others' parts and sends them to their
 * owners; an owner adds what it gets to its own exact part, in rank order and fp32, encodes the sum
 * once and sends it to all; everyone, the owner included, decodes those bytes. Two quantizations
 * whatever n is. */
#include "coll/algo.h"

static const char *supports(const cinch_call *call) {
    if (!call->encoded) return "it needs a codec";
    if (call->nranks < 2) return "it needs two ranks or more";
    if (call->exact_between) return "with it a codec is used between hosts too";
    return NULL;
}

static double cost(const cinch_call *call) {
    return call->nranks == 2 ? 2e9 : 1e9;
}

static void build(cinch_builder *b, cinch_schedule *s, int rank, int n, const cinch_call *call) {
    (void)call;
    enum { PART, RESULT };
    if (!cinch_build_begin(b, s, rank, n, n)) return;
    /* WIRE slots: [0,n) to peers, own: the result; [n,2n) parts from peers; [2n,3n) results. */
    for (int i = 1; i < n; i++) {
        int from = (rank + n - i) % n;
        cinch_build_recv(b, from, PART, cinch_ref_slot(CINCH_WIRE, n + from, rank));
    }
    for (int i = 1; i < n; i++) {
        int to = (rank + i) % n;
        cinch_ref wire = cinch_ref_slot(CINCH_WIRE, to, to);
        cinch_build_encode(b, 0, wire, cinch_ref_of(CINCH_IN, to));
        cinch_build_send(b, to, PART, wire);
    }
    cinch_build_lag(b, 2); /* sends run ahead, so that the wire never waits for a wake-up */
    cinch_ref *src = b->list[0], sum = cinch_ref_slot(CINCH_BOX, 0, rank);
    cinch_ref result = cinch_ref_slot(CINCH_WIRE, rank, rank);
    for (int q = 0; q < n; q++)
        src[q] = q == rank ? cinch_ref_of(CINCH_IN, q) : cinch_ref_slot(CINCH_WIRE, n + q, rank);
    cinch_build_sum(b, CINCH_FINAL, sum, src, n);
    cinch_build_encode(b, CINCH_OWNER, result, sum);
    for (int i = 1; i < n; i++) {
        int to = (rank + i) % n, from = (rank + n - i) % n;
        cinch_build_send(b, to, RESULT, result);
        cinch_build_recv(b, from, RESULT, cinch_ref_slot(CINCH_WIRE, 2 * n + from, from));
    }
    cinch_build_lag(b, 4);
    for (int i = 0; i < n; i++) {
        int q = (rank + i) % n;
        cinch_ref from = q == rank ? result : cinch_ref_slot(CINCH_WIRE, 2 * n + q, q);
        cinch_build_sum(b, 0, cinch_ref_of(CINCH_OUT, q), &from, 1);
    }
}

const cinch_algo cinch_algo_twostep = {
    .name = "twostep",
    .supports = supports,
    .cost = cost,
    .build = build,
    .parts = cinch_parts_ranks,
    .part_bytes = (size_t)128 << 10,
    .least_bytes = (size_t)16 << 10,
};

/* SPDX-License-Identifier: Apache-2.0 */
/* Hierarchical, for hosts with equally many ranks: reduce-scatter inside each host, all-reduce of
 * each slice between the ranks that hold it on their hosts, all-gather inside. So every local rank
 * drives a slice of its own across the slow level, which carries 2(H-1)/H of the message per host
 * for H hosts. Between hosts the ranks exchange directly; with a codec it is used there alone, as
 * in exchange for two hosts (one quantization) and as in twostep for more (two). */
#include "coll/algo.h"

static const char *supports(const cinch_call *call) {
    if (call->hosts < 2 || call->per_host < 2)
        return "it needs two hosts or more, with two ranks or more on each and as many on all";
    if (call->encoded && call->both_levels) return "its inside of a host takes no codec";
    return NULL;
}

/* The ranks of a host share its network. */
static double cost(const cinch_call *call) {
    double h = call->hosts, bytes = (double)call->bytes;
    return 4 * cinch_cost_step(call) + bytes * 2.5e-4 +
           2 * (h - 1) / h * bytes * cinch_cost_byte(call);
}

/* This rank's place, and the parts of the message: slice l has one for each host. */
typedef struct view {
    const cinch_call *call;
    int rank, host, local, hosts, locals;
} view;

static int rank_at(const view *v, int host, int local) {
    for (int q = 0;; q++)
        if (v->call->host[q] == host && local-- == 0) return q;
}

static view view_of(const cinch_call *call, int rank) {
    view v = {call, rank, call->host[rank], 0, call->hosts, call->per_host};
    for (int q = 0; q < rank; q++) v.local += call->host[q] == v.host;
    return v;
}

/* A host's part of this rank's slice; in a slot. */
static cinch_ref part_in(const view *v, cinch_space space, int slot, int host) {
    return cinch_ref_slot(space, slot, v->local * v->hosts + host);
}
static cinch_ref part_of(const view *v, cinch_space space, int host) {
    return part_in(v, space, 0, host);
}
static cinch_ref slice_of(const view *v, cinch_space space, int slot, int local) {
    return cinch_ref_parts(cinch_ref_slot(space, slot, local * v->hosts), v->hosts);
}

enum { SCATTER, PART, RESULT, GATHER, PAIR }; /* marks; PAIR + h: part h of a pair's slice */
enum { SUM = 0 };                             /* TMP slots: the host's sum, then the locals' */

static void reduce_inside(cinch_builder *b, const view *v) {
    cinch_ref sum = slice_of(v, CINCH_TMP, SUM, v->local), *src = b->list[0];
    for (int i = 1; i < v->locals; i++) {
        int to = (v->local + i) % v->locals, from = (v->local + v->locals - i) % v->locals;
        cinch_build_recv(b, rank_at(v, v->host, from), SCATTER,
                         slice_of(v, CINCH_TMP, 1 + from, v->local));
        cinch_build_send(b, rank_at(v, v->host, to), SCATTER, slice_of(v, CINCH_IN, 0, to));
    }
    cinch_build_lag(b, 2); /* sends run ahead, so that the wire never waits for a wake-up */
    for (int j = 0; j < v->locals; j++)
        src[j] =
            j == v->local ? slice_of(v, CINCH_IN, 0, j) : slice_of(v, CINCH_TMP, 1 + j, v->local);
    cinch_build_reduce(b, 0, &sum, 1, src, v->locals);
}

static void between_exact(cinch_builder *b, const view *v) {
    cinch_ref out = part_of(v, CINCH_OUT, v->host), *src = b->list[0];
    for (int i = 1; i < v->hosts; i++) {
        int to = (v->host + i) % v->hosts, from = (v->host + v->hosts - i) % v->hosts;
        cinch_build_recv(b, rank_at(v, from, v->local), PART, part_in(v, CINCH_BOX, from, v->host));
        cinch_build_send(b, rank_at(v, to, v->local), PART, part_of(v, CINCH_TMP, to));
    }
    cinch_build_lag(b, 4);
    for (int h = 0; h < v->hosts; h++)
        src[h] = h == v->host ? part_of(v, CINCH_TMP, h) : part_in(v, CINCH_BOX, h, v->host);
    cinch_build_reduce(b, CINCH_FINAL, &out, 1, src, v->hosts);
    for (int i = 1; i < v->hosts; i++) {
        int to = (v->host + i) % v->hosts, from = (v->host + v->hosts - i) % v->hosts;
        cinch_build_send(b, rank_at(v, to, v->local), RESULT, out);
        cinch_build_recv(b, rank_at(v, from, v->local), RESULT, part_of(v, CINCH_OUT, from));
    }
}

/* WIRE slots: h, part h from here; 2 + h, from the other host. */
static void between_two(cinch_builder *b, const view *v) {
    int peer = rank_at(v, 1 - v->host, v->local);
    for (int h = 0; h < 2; h++) {
        cinch_ref mine = part_in(v, CINCH_WIRE, h, h);
        cinch_build_recv(b, peer, PAIR + h, part_in(v, CINCH_WIRE, 2 + h, h));
        cinch_build_encode(b, 0, mine, part_of(v, CINCH_TMP, h));
        cinch_build_send(b, peer, PAIR + h, mine);
    }
    cinch_build_lag(b, 4);
    for (int h = 0; h < 2; h++) {
        cinch_ref mine = part_in(v, CINCH_WIRE, h, h);
        cinch_ref theirs = part_in(v, CINCH_WIRE, 2 + h, h);
        cinch_ref src[2] = {v->host ? theirs : mine, v->host ? mine : theirs};
        cinch_build_sum(b, CINCH_FINAL, part_of(v, CINCH_OUT, h), src, 2);
    }
}

/* WIRE slots: [0,H) from hosts, [H,2H) to hosts, 2H the result, [2H+1,3H+1) results from hosts. */
static void between_many(cinch_builder *b, const view *v) {
    int n = v->hosts;
    cinch_ref sum = part_of(v, CINCH_BOX, v->host), *src = b->list[0];
    cinch_ref result = part_in(v, CINCH_WIRE, 2 * n, v->host);
    for (int i = 1; i < n; i++) {
        int to = (v->host + i) % n, from = (v->host + n - i) % n;
        cinch_ref wire = part_in(v, CINCH_WIRE, n + to, to);
        cinch_build_recv(b, rank_at(v, from, v->local), PART,
                         part_in(v, CINCH_WIRE, from, v->host));
        cinch_build_encode(b, 0, wire, part_of(v, CINCH_TMP, to));
        cinch_build_send(b, rank_at(v, to, v->local), PART, wire);
    }
    cinch_build_lag(b, 4);
    for (int h = 0; h < n; h++)
        src[h] = h == v->host ? part_of(v, CINCH_TMP, h) : part_in(v, CINCH_WIRE, h, v->host);
    cinch_build_sum(b, CINCH_FINAL, sum, src, n);
    cinch_build_encode(b, CINCH_OWNER, result, sum);
    for (int i = 1; i < n; i++) {
        int to = (v->host + i) % n, from = (v->host + n - i) % n;
        cinch_build_send(b, rank_at(v, to, v->local), RESULT, result);
        cinch_build_recv(b, rank_at(v, from, v->local), RESULT,
                         part_in(v, CINCH_WIRE, 2 * n + 1 + from, from));
    }
    cinch_build_lag(b, 6);
    for (int h = 0; h < n; h++) {
        cinch_ref wire = h == v->host ? result : part_in(v, CINCH_WIRE, 2 * n + 1 + h, h);
        cinch_build_sum(b, 0, part_of(v, CINCH_OUT, h), &wire, 1);
    }
}

static void build(cinch_builder *b, cinch_schedule *s, int rank, int n, const cinch_call *call) {
    view v = view_of(call, rank);
    if (!cinch_build_begin(b, s, rank, n, n)) return;
    reduce_inside(b, &v);
    if (!call->encoded)
        between_exact(b, &v);
    else if (v.hosts == 2)
        between_two(b, &v);
    else
        between_many(b, &v);
    cinch_build_lag(b, call->encoded && v.hosts == 2 ? 4 : 6);
    for (int i = 1; i < v.locals; i++) {
        int to = (v.local + i) % v.locals, from = (v.local + v.locals - i) % v.locals;
        cinch_build_send(b, rank_at(&v, v.host, to), GATHER, slice_of(&v, CINCH_OUT, 0, v.local));
        cinch_build_recv(b, rank_at(&v, v.host, from), GATHER, slice_of(&v, CINCH_OUT, 0, from));
    }
}

const cinch_algo cinch_algo_hier = {
    .name = "hier",
    .supports = supports,
    .cost = cost,
    .build = build,
    .parts = cinch_parts_ranks,
    .part_bytes = (size_t)64 << 10,
    .least_bytes = (size_t)16 << 10,
};

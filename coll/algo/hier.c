/* SPDX-License-Identifier: Apache-2.0 */
/* Hierarchical all-reduce: reduce-scatter inside each host, all-reduce of each slice between the
 * ranks that hold it on their hosts, all-gather inside. So local ranks drive a slice each across
 * the slow level, which carries 2(H-1)/H of the message per host for H hosts. Where hosts differ in
 * their ranks there are as many slices as the smallest has ranks, and the other ranks of larger
 * ones take part inside alone. Between hosts the ranks exchange directly; with a codec it is used
 * there alone, as in exchange for two hosts (one quantization) and as in twostep for more (two). */
#include "coll/algo/hier.h"

/* ---- what all hierarchical algorithms share ---- */

int cinch_hier_ranks(const cinch_call *call, int host) {
    int ranks = call->per_host;
    for (int q = 0; q < call->nranks && !call->per_host; q++) ranks += call->host[q] == host;
    return ranks;
}

int cinch_hier_slices(const cinch_call *call) {
    int least = call->per_host ? call->per_host : call->nranks;
    for (int h = 0; h < call->hosts && !call->per_host; h++) {
        int ranks = cinch_hier_ranks(call, h);
        if (ranks < least) least = ranks;
    }
    return least;
}

/* How far the places of a host are turned, so that the root has the first. */
static int turn_of(const cinch_hier *v, int host) {
    if (v->root < 0 || v->call->host[v->root] != host) return 0;
    int turn = 0;
    for (int q = 0; q < v->root; q++) turn += v->call->host[q] == host;
    return turn;
}

int cinch_hier_rank(const cinch_hier *v, int host, int local) {
    int turn = turn_of(v, host);
    if (turn) local = (local + turn) % cinch_hier_ranks(v->call, host);
    for (int q = 0;; q++)
        if (v->call->host[q] == host && local-- == 0) return q;
}

int cinch_hier_local(const cinch_hier *v, int rank) {
    int host = v->call->host[rank], turn = turn_of(v, host), local = 0;
    for (int q = 0; q < rank; q++) local += v->call->host[q] == host;
    if (!turn) return local;
    int ranks = cinch_hier_ranks(v->call, host);
    return (local + ranks - turn) % ranks;
}

cinch_hier cinch_hier_of(const cinch_call *call, int rank, int root) {
    cinch_hier v = {call, rank, call->host[rank], 0, call->hosts, 0, root};
    v.local = cinch_hier_local(&v, rank);
    v.locals = cinch_hier_ranks(call, v.host);
    return v;
}

const char *cinch_hier_supports(const cinch_call *call) {
    if (call->hosts < 2 || call->nranks <= call->hosts)
        return "it needs two hosts or more, one of them with two ranks or more";
    if (call->encoded && call->both_levels) return "its inside of a host takes no codec";
    return NULL;
}

const char *cinch_hier_supports_exact(const cinch_call *call) {
    return call->encoded ? "it works without a codec" : cinch_hier_supports(call);
}

/* The ranks of a host share its network. */
double cinch_hier_cost(const cinch_call *call, int steps, double crossing, double inside) {
    double bytes = (double)call->bytes;
    return steps * cinch_cost_step(call) + crossing * bytes * cinch_cost_byte(call) +
           inside * bytes * 1.25e-4;
}

/* ---- all-reduce ---- */

static double cost(const cinch_call *call) {
    double h = call->hosts;
    return cinch_hier_cost(call, 4, 2 * (h - 1) / h, 2);
}

static int parts(const cinch_call *call) {
    return cinch_hier_slices(call) * call->hosts;
}

/* A host's part of this rank's slice, which has one for each host; in a slot. */
static cinch_ref part_in(const cinch_hier *v, cinch_space space, int slot, int host) {
    return cinch_ref_slot(space, slot, v->local * v->hosts + host);
}
static cinch_ref part_of(const cinch_hier *v, cinch_space space, int host) {
    return part_in(v, space, 0, host);
}
static cinch_ref slice_of(const cinch_hier *v, cinch_space space, int slot, int local) {
    return cinch_ref_parts(cinch_ref_slot(space, slot, local * v->hosts), v->hosts);
}

enum { SCATTER, PART, RESULT, GATHER, PAIR }; /* marks; PAIR + h: part h of a pair's slice */
enum { SUM = 0 };                             /* TMP slots: the host's sum, then the locals' */

/* What this host has for part `host`. */
static cinch_ref host_sum(const cinch_hier *v, int host) {
    return v->locals > 1 ? part_in(v, CINCH_TMP, SUM, host) : part_of(v, CINCH_IN, host);
}

static void reduce_inside(cinch_builder *b, const cinch_hier *v, int slices) {
    cinch_ref sum = slice_of(v, CINCH_TMP, SUM, v->local), *src = b->list[0];
    for (int i = 1; i < v->locals; i++) {
        int to = (v->local + i) % v->locals, from = (v->local + v->locals - i) % v->locals;
        if (v->local < slices)
            cinch_build_recv(b, cinch_hier_rank(v, v->host, from), SCATTER,
                             slice_of(v, CINCH_TMP, 1 + from, v->local));
        if (to < slices)
            cinch_build_send(b, cinch_hier_rank(v, v->host, to), SCATTER,
                             slice_of(v, CINCH_IN, 0, to));
    }
    cinch_build_lag(b, 2); /* sends run ahead, so that the wire never waits for a wake-up */
    if (v->local >= slices || v->locals == 1) return;
    for (int j = 0; j < v->locals; j++)
        src[j] =
            j == v->local ? slice_of(v, CINCH_IN, 0, j) : slice_of(v, CINCH_TMP, 1 + j, v->local);
    cinch_build_reduce(b, 0, &sum, 1, src, v->locals);
}

static void between_exact(cinch_builder *b, const cinch_hier *v) {
    cinch_ref out = part_of(v, CINCH_OUT, v->host), *src = b->list[0];
    for (int i = 1; i < v->hosts; i++) {
        int to = (v->host + i) % v->hosts, from = (v->host + v->hosts - i) % v->hosts;
        cinch_build_recv(b, cinch_hier_rank(v, from, v->local), PART,
                         part_in(v, CINCH_BOX, from, v->host));
        cinch_build_send(b, cinch_hier_rank(v, to, v->local), PART, host_sum(v, to));
    }
    cinch_build_lag(b, 4);
    for (int h = 0; h < v->hosts; h++)
        src[h] = h == v->host ? host_sum(v, h) : part_in(v, CINCH_BOX, h, v->host);
    cinch_build_reduce(b, CINCH_FINAL, &out, 1, src, v->hosts);
    for (int i = 1; i < v->hosts; i++) {
        int to = (v->host + i) % v->hosts, from = (v->host + v->hosts - i) % v->hosts;
        cinch_build_send(b, cinch_hier_rank(v, to, v->local), RESULT, out);
        cinch_build_recv(b, cinch_hier_rank(v, from, v->local), RESULT,
                         part_of(v, CINCH_OUT, from));
    }
}

/* WIRE slots: h, part h from here; 2 + h, from the other host. */
static void between_two(cinch_builder *b, const cinch_hier *v) {
    int peer = cinch_hier_rank(v, 1 - v->host, v->local);
    for (int h = 0; h < 2; h++) {
        cinch_ref mine = part_in(v, CINCH_WIRE, h, h);
        cinch_build_recv(b, peer, PAIR + h, part_in(v, CINCH_WIRE, 2 + h, h));
        cinch_build_encode(b, 0, mine, host_sum(v, h));
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
static void between_many(cinch_builder *b, const cinch_hier *v) {
    int n = v->hosts;
    cinch_ref sum = part_of(v, CINCH_BOX, v->host), *src = b->list[0];
    cinch_ref result = part_in(v, CINCH_WIRE, 2 * n, v->host);
    for (int i = 1; i < n; i++) {
        int to = (v->host + i) % n, from = (v->host + n - i) % n;
        cinch_ref wire = part_in(v, CINCH_WIRE, n + to, to);
        cinch_build_recv(b, cinch_hier_rank(v, from, v->local), PART,
                         part_in(v, CINCH_WIRE, from, v->host));
        cinch_build_encode(b, 0, wire, host_sum(v, to));
        cinch_build_send(b, cinch_hier_rank(v, to, v->local), PART, wire);
    }
    cinch_build_lag(b, 4);
    for (int h = 0; h < n; h++)
        src[h] = h == v->host ? host_sum(v, h) : part_in(v, CINCH_WIRE, h, v->host);
    cinch_build_sum(b, CINCH_FINAL, sum, src, n);
    cinch_build_encode(b, CINCH_OWNER, result, sum);
    for (int i = 1; i < n; i++) {
        int to = (v->host + i) % n, from = (v->host + n - i) % n;
        cinch_build_send(b, cinch_hier_rank(v, to, v->local), RESULT, result);
        cinch_build_recv(b, cinch_hier_rank(v, from, v->local), RESULT,
                         part_in(v, CINCH_WIRE, 2 * n + 1 + from, from));
    }
    cinch_build_lag(b, 6);
    for (int h = 0; h < n; h++) {
        cinch_ref wire = h == v->host ? result : part_in(v, CINCH_WIRE, 2 * n + 1 + h, h);
        cinch_build_sum(b, 0, part_of(v, CINCH_OUT, h), &wire, 1);
    }
}

static void build(cinch_builder *b, cinch_schedule *s, int rank, int n, const cinch_call *call) {
    cinch_hier v = cinch_hier_of(call, rank, -1);
    int slices = cinch_hier_slices(call);
    if (!cinch_build_begin(b, s, rank, n, slices * v.hosts)) return;
    reduce_inside(b, &v, slices);
    if (v.local >= slices)
        ;
    else if (!call->encoded)
        between_exact(b, &v);
    else if (v.hosts == 2)
        between_two(b, &v);
    else
        between_many(b, &v);
    cinch_build_lag(b, call->encoded && v.hosts == 2 ? 4 : 6);
    for (int i = 1; i < v.locals; i++) {
        int to = (v.local + i) % v.locals, from = (v.local + v.locals - i) % v.locals;
        if (v.local < slices)
            cinch_build_send(b, cinch_hier_rank(&v, v.host, to), GATHER,
                             slice_of(&v, CINCH_OUT, 0, v.local));
        if (from < slices)
            cinch_build_recv(b, cinch_hier_rank(&v, v.host, from), GATHER,
                             slice_of(&v, CINCH_OUT, 0, from));
    }
}

const cinch_algo cinch_algo_hier = {
    .name = "hier",
    .supports = cinch_hier_supports,
    .cost = cost,
    .build = build,
    .parts = parts,
    .part_bytes = (size_t)64 << 10,
    .least_bytes = (size_t)16 << 10,
};

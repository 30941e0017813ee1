/* SPDX-License-Identifier: Apache-2.0 */
/* Hierarchical broadcast and reduce: of each slice the root's host gives another part to each other
 * host, and these exchange their parts. So no host sends or receives more than the message once,
 * whatever the number of hosts, and its ranks drive a slice each. Reduce is that in reverse. */
#include "coll/algo/hier.h"

static double cost(const cinch_call *call) {
    return cinch_hier_cost(call, call->hosts > 2 ? 4 : 3, 1, 1);
}

static int parts(const cinch_call *call) {
    return cinch_hier_slices(call) * (call->hosts - 1);
}

enum { INSIDE, ACROSS, AMONG, RESULT }; /* marks; AMONG: between hosts that are not the root's */

/* A slice has one part for each host but the root's. */
static cinch_ref part_of(const cinch_hier *v, cinch_space space, int slot, int host) {
    int before = host < v->call->host[v->root] ? host : host - 1;
    return cinch_ref_slot(space, slot, v->local * (v->hosts - 1) + before);
}
static cinch_ref slice_of(const cinch_hier *v, cinch_space space, int slot, int local) {
    return cinch_ref_parts(cinch_ref_slot(space, slot, local * (v->hosts - 1)), v->hosts - 1);
}

static bool at_root_host(const cinch_hier *v, int host) {
    return host == v->call->host[v->root];
}

/* ---- broadcast ---- */

/* What a driver gets from the root or its host, and from the other hosts. */
static void get_slice(cinch_builder *b, const cinch_hier *v) {
    int from = cinch_hier_rank(v, v->call->host[v->root], v->local);
    if (v->rank == v->root) return;
    if (at_root_host(v, v->host)) {
        cinch_build_recv(b, v->root, INSIDE, slice_of(v, CINCH_OUT, 0, v->local));
        return;
    }
    cinch_build_recv(b, from, ACROSS, part_of(v, CINCH_OUT, 0, v->host));
    for (int i = 1; i < v->hosts; i++) {
        int host = (v->host + v->hosts - i) % v->hosts;
        if (!at_root_host(v, host))
            cinch_build_recv(b, cinch_hier_rank(v, host, v->local), AMONG,
                             part_of(v, CINCH_OUT, 0, host));
    }
}

static void send_across(cinch_builder *b, const cinch_hier *v) {
    bool source = at_root_host(v, v->host);
    cinch_space space = v->rank == v->root ? CINCH_IN : CINCH_OUT;
    for (int i = 1; i < v->hosts; i++) {
        int host = (v->host + i) % v->hosts;
        if (!at_root_host(v, host))
            cinch_build_send(b, cinch_hier_rank(v, host, v->local), source ? ACROSS : AMONG,
                             part_of(v, space, 0, source ? host : v->host));
    }
}

static void send_inside(cinch_builder *b, const cinch_hier *v) {
    cinch_space space = v->rank == v->root ? CINCH_IN : CINCH_OUT;
    for (int i = 1; i < v->locals; i++) {
        int to = cinch_hier_rank(v, v->host, (v->local + i) % v->locals);
        if (to != v->root) cinch_build_send(b, to, RESULT, slice_of(v, space, 0, v->local));
    }
}

static void build_broadcast(cinch_builder *b, cinch_schedule *s, int rank, int n,
                            const cinch_call *call) {
    cinch_hier v = cinch_hier_of(call, rank, call->root);
    int slices = cinch_hier_slices(call);
    if (!cinch_build_begin(b, s, rank, n, slices * (v.hosts - 1))) return;
    bool drives = v.local < slices, is_root = rank == call->root;
    for (int to = 1; is_root && to < slices; to++)
        cinch_build_send(b, cinch_hier_rank(&v, v.host, to), INSIDE, slice_of(&v, CINCH_IN, 0, to));
    if (drives) get_slice(b, &v);
    for (int from = 0; from < slices && !is_root; from++)
        if (from != v.local)
            cinch_build_recv(b, cinch_hier_rank(&v, v.host, from), RESULT,
                             slice_of(&v, CINCH_OUT, 0, from));
    if (!is_root) cinch_build_lag(b, 2); /* receives run ahead, so that the wire never waits */
    if (drives) send_across(b, &v);
    if (!is_root && !at_root_host(&v, v.host)) cinch_build_lag(b, 4);
    if (drives) send_inside(b, &v);
    if (is_root)
        cinch_build_copy(b, cinch_ref_parts(cinch_ref_of(CINCH_OUT, 0), s->parts),
                         cinch_ref_parts(cinch_ref_of(CINCH_IN, 0), s->parts));
}

/* ---- reduce ---- */

enum { SUM = 0 }; /* TMP slots: the host's sum, then the locals' slices */

/* What this host has for part `host`. */
static cinch_ref host_sum(const cinch_hier *v, int host) {
    return part_of(v, v->locals > 1 ? CINCH_TMP : CINCH_IN, SUM, host);
}

static void gather_inside(cinch_builder *b, const cinch_hier *v, int slices) {
    for (int i = 1; i < v->locals; i++) {
        int to = (v->local + i) % v->locals, from = (v->local + v->locals - i) % v->locals;
        if (v->local < slices)
            cinch_build_recv(b, cinch_hier_rank(v, v->host, from), INSIDE,
                             slice_of(v, CINCH_TMP, 1 + from, v->local));
        if (to < slices)
            cinch_build_send(b, cinch_hier_rank(v, v->host, to), INSIDE,
                             slice_of(v, CINCH_IN, 0, to));
    }
}

/* A driver of another host: the host's sum, exchanged with the others', and its part to the root's
 * host. BOX slots: [0,H) from hosts, H the sum. */
static void reduce_away(cinch_builder *b, const cinch_hier *v) {
    cinch_ref sum = slice_of(v, CINCH_TMP, SUM, v->local), *src = b->list[0];
    cinch_ref whole = part_of(v, CINCH_BOX, v->hosts, v->host);
    int n = 0, to = cinch_hier_rank(v, v->call->host[v->root], v->local);
    for (int j = 0; j < v->locals; j++)
        src[j] =
            j == v->local ? slice_of(v, CINCH_IN, 0, j) : slice_of(v, CINCH_TMP, 1 + j, v->local);
    if (v->locals > 1) cinch_build_reduce(b, 0, &sum, 1, src, v->locals);
    for (int i = 1; i < v->hosts; i++) {
        int there = (v->host + i) % v->hosts, from = (v->host + v->hosts - i) % v->hosts;
        if (!at_root_host(v, from))
            cinch_build_recv(b, cinch_hier_rank(v, from, v->local), AMONG,
                             part_of(v, CINCH_BOX, from, v->host));
        if (!at_root_host(v, there))
            cinch_build_send(b, cinch_hier_rank(v, there, v->local), AMONG, host_sum(v, there));
    }
    cinch_build_lag(b, 4);
    for (int h = 0; h < v->hosts; h++)
        if (!at_root_host(v, h))
            src[n++] = h == v->host ? host_sum(v, h) : part_of(v, CINCH_BOX, h, v->host);
    if (n > 1) cinch_build_reduce(b, 0, &whole, 1, src, n);
    cinch_build_send(b, to, ACROSS, n > 1 ? whole : host_sum(v, v->host));
}

/* A driver beside the root, or that itself: its host's inputs and the other hosts' sums. */
static void reduce_here(cinch_builder *b, const cinch_hier *v) {
    bool is_root = v->rank == v->root;
    cinch_ref *src = b->list[0];
    for (int h = 0; h < v->hosts; h++)
        if (h != v->host)
            cinch_build_recv(b, cinch_hier_rank(v, h, v->local), ACROSS,
                             part_of(v, CINCH_BOX, h, h));
    cinch_build_lag(b, 6);
    for (int h = 0; h < v->hosts; h++) {
        if (h == v->host) continue;
        for (int j = 0; j < v->locals; j++)
            src[j] = part_of(v, j == v->local ? CINCH_IN : CINCH_TMP, j == v->local ? 0 : 1 + j, h);
        src[v->locals] = part_of(v, CINCH_BOX, h, h);
        cinch_ref to = part_of(v, is_root ? CINCH_OUT : CINCH_TMP, SUM, h);
        cinch_build_reduce(b, CINCH_FINAL, &to, 1, src, v->locals + 1);
    }
    if (!is_root) cinch_build_send(b, v->root, RESULT, slice_of(v, CINCH_TMP, SUM, v->local));
}

static void build_reduce(cinch_builder *b, cinch_schedule *s, int rank, int n,
                         const cinch_call *call) {
    cinch_hier v = cinch_hier_of(call, rank, call->root);
    int slices = cinch_hier_slices(call);
    if (!cinch_build_begin(b, s, rank, n, slices * (v.hosts - 1))) return;
    gather_inside(b, &v, slices);
    if (v.local < slices) {
        cinch_build_lag(b, 2); /* sends run ahead, so that the wire never waits for a wake-up */
        if (at_root_host(&v, v.host))
            reduce_here(b, &v);
        else
            reduce_away(b, &v);
    }
    for (int from = 1; rank == call->root && from < slices; from++)
        cinch_build_recv(b, cinch_hier_rank(&v, v.host, from), RESULT,
                         slice_of(&v, CINCH_OUT, 0, from));
}

#define ROW(NAME, COLLECTIVE)                                                                      \
    const cinch_algo cinch_algo_##NAME##_hier = {                                                  \
        .name = "hier",                                                                            \
        .collective = COLLECTIVE,                                                                  \
        .supports = cinch_hier_supports_exact,                                                     \
        .cost = cost,                                                                              \
        .build = build_##NAME,                                                                     \
        .parts = parts,                                                                            \
        .part_bytes = (size_t)64 << 10,                                                            \
        .least_bytes = (size_t)16 << 10,                                                           \
    }
ROW(broadcast, CINCH_BROADCAST);
ROW(reduce, CINCH_REDUCE);

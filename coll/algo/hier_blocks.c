/* SPDX-License-Identifier: Apache-2.0 */
/* Hierarchical reduce-scatter and all-gather: blocks cross the slow level once
 * for each pair of hosts, or of a block and a host, however many ranks a host
 * has. The host's part in block q is done by the rank whose place among its
 * ranks is that of q on its own host (modulo their number): so every rank has
 * its share of the crossing. A codec is used between hosts alone.
 *
 * Reduce-scatter: the driver of a block gathers the inputs of its host, adds
 * them and sends the sum to the block's owner, who adds the hosts' sums to the
 * inputs of its own host. All-gather is that in reverse: an owner sends to one
 * driver of each host, who passes the block on inside. */
#include "coll/algo/hier.h"

/* Who does this host's part in block q. */
static int driver_on(const cinch_hier *v, int host, int q) {
    int local = cinch_hier_local(v, q);
    if (v->call->host[q] != host) local %= cinch_hier_ranks(v->call, host);
    return cinch_hier_rank(v, host, local);
}

static cinch_ref block_of(cinch_space space, int q) {
    return cinch_ref_block(cinch_ref_of(space, 0), q);
}

/* ---- reduce-scatter ---- */

/* As each block of the message counts. */
static double cost(const cinch_call *call) {
    double n = call->nranks, here = n / call->hosts;
    return cinch_hier_cost(call, 3, n - here, n);
}

/* BOX slots: the inputs of locals for the k-th block that this rank drives, its
 * own the sum; behind them the other hosts' sums of its own block. */
static cinch_ref box_of(const cinch_hier *v, int k, int local, int q) {
    return cinch_ref_block(cinch_ref_slot(CINCH_BOX, k * v->locals + local, 0), q);
}

static cinch_ref host_sum(const cinch_hier *v, int k, int q) {
    return v->locals > 1 ? box_of(v, k, v->local, q) : block_of(CINCH_IN, q);
}

/* Inputs go to their drivers; the number of blocks that are driven here. */
static int gather_inputs(cinch_builder *b, const cinch_hier *v, int n) {
    int driven = 0;
    for (int q = 0; q < n; q++) driven += driver_on(v, v->host, q) == v->rank;
    for (int i = 1; i < v->locals; i++) {
        int to = cinch_hier_rank(v, v->host, (v->local + i) % v->locals);
        int place = (v->local + v->locals - i) % v->locals;
        int from = cinch_hier_rank(v, v->host, place);
        for (int q = 0, k = 0; q < n; q++) {
            int driver = driver_on(v, v->host, q);
            if (driver == v->rank) cinch_build_recv(b, from, q, box_of(v, k++, place, q));
            if (driver == to) cinch_build_send(b, to, q, block_of(CINCH_IN, q));
        }
    }
    return driven;
}

/* The inputs of this host for the k-th block; how many. */
static int inputs_of(const cinch_hier *v, int k, int q, cinch_ref *src) {
    for (int j = 0; j < v->locals; j++)
        src[j] = j == v->local ? block_of(CINCH_IN, q) : box_of(v, k, j, q);
    return v->locals;
}

/* WIRE slots: [0,H) from hosts; behind them, the k-th block's sum. */
static cinch_ref remote_sum(const cinch_hier *v, int driven, int host) {
    return v->call->encoded ? cinch_ref_slot(CINCH_WIRE, host, 0)
                            : cinch_ref_slot(CINCH_BOX, driven * v->locals + host, 0);
}

static void send_sum(cinch_builder *b, const cinch_hier *v, int k, int q) {
    cinch_ref sum = host_sum(v, k, q), wire = cinch_ref_slot(CINCH_WIRE, v->hosts + k, 0);
    if (v->locals > 1)
        cinch_build_reduce(b, 0, &sum, 1, b->list[0], inputs_of(v, k, q, b->list[0]));
    if (v->call->encoded) cinch_build_encode(b, 0, wire, sum);
    cinch_build_send(b, q, q, v->call->encoded ? wire : sum);
}

static void build_reducescatter(cinch_builder *b, cinch_schedule *s, int rank, int n,
                                const cinch_call *call) {
    cinch_hier v = cinch_hier_of(call, rank, -1);
    cinch_ref out = cinch_ref_of(CINCH_OUT, 0);
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    int driven = gather_inputs(b, &v, n), own = 0;
    for (int h = 0; h < v.hosts; h++)
        if (h != v.host)
            cinch_build_recv(b, driver_on(&v, h, rank), rank, remote_sum(&v, driven, h));
    cinch_build_lag(b, 2); /* sends run ahead, so that the wire never waits for a wake-up */
    for (int q = 0; q < rank; q++) own += driver_on(&v, v.host, q) == rank;
    for (int i = 1, k = own; i < n; i++) { /* everyone begins at another peer */
        int q = (rank + i) % n;
        if (q == 0) k = -1;
        if (driver_on(&v, v.host, q) == rank) send_sum(b, &v, ++k, q);
    }
    cinch_build_lag(b, 4);
    cinch_ref *src = b->list[0];
    int nsrc = inputs_of(&v, own, rank, src);
    for (int h = 0; h < v.hosts; h++)
        if (h != v.host) src[nsrc++] = remote_sum(&v, driven, h);
    if (call->encoded)
        cinch_build_sum(b, CINCH_FINAL, out, src, nsrc);
    else
        cinch_build_reduce(b, CINCH_FINAL, &out, 1, src, nsrc);
}

/* ---- all-gather ---- */

/* Exact: a block arrives where it belongs. With a codec everyone gets what the
 * owner's bytes decode to: from the wire between hosts, from who has decoded it
 * inside. */
static void send_own(cinch_builder *b, const cinch_hier *v) {
    cinch_ref in = cinch_ref_of(CINCH_IN, 0), out = block_of(CINCH_OUT, v->rank);
    cinch_ref wire = cinch_ref_slot(CINCH_WIRE, 0, 0);
    bool encoded = v->call->encoded;
    if (encoded) {
        cinch_build_encode(b, 0, wire, in);
        cinch_build_sum(b, 0, out, &wire, 1);
    } else {
        cinch_build_copy(b, out, in);
    }
    for (int i = 1; i < v->hosts; i++) {
        int host = (v->host + i) % v->hosts;
        cinch_build_send(b, driver_on(v, host, v->rank), v->rank, encoded ? wire : in);
    }
    for (int i = 1; i < v->locals; i++)
        cinch_build_send(b, cinch_hier_rank(v, v->host, (v->local + i) % v->locals), v->rank,
                         encoded ? out : in);
}

/* The blocks of the other hosts go on from here, or come from who drives them.
 */
static void pass_on(cinch_builder *b, const cinch_hier *v, int n) {
    for (int q = 0, k = 0; q < n; q++) {
        if (v->call->host[q] == v->host) continue;
        int driver = driver_on(v, v->host, q);
        cinch_ref out = block_of(CINCH_OUT, q);
        if (driver != v->rank) {
            cinch_build_recv(b, driver, q, out);
            continue;
        }
        cinch_ref wire = cinch_ref_slot(CINCH_WIRE, 1 + k++, 0);
        if (v->call->encoded) cinch_build_sum(b, 0, out, &wire, 1);
        for (int i = 1; i < v->locals; i++)
            cinch_build_send(b, cinch_hier_rank(v, v->host, (v->local + i) % v->locals), q, out);
    }
}

static void build_allgather(cinch_builder *b, cinch_schedule *s, int rank, int n,
                            const cinch_call *call) {
    cinch_hier v = cinch_hier_of(call, rank, -1);
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    for (int q = 0, k = 0; q < n; q++) {
        bool here = call->host[q] == v.host;
        if (q == rank || (!here && driver_on(&v, v.host, q) != rank)) continue;
        bool wire = call->encoded && !here;
        cinch_build_recv(b, q, q,
                         wire ? cinch_ref_slot(CINCH_WIRE, 1 + k++, 0) : block_of(CINCH_OUT, q));
    }
    send_own(b, &v);
    cinch_build_lag(b, 2);
    pass_on(b, &v, n);
}

#define ROW(NAME, COLLECTIVE)                                                                      \
    const cinch_algo cinch_algo_##NAME##_hier = {                                                  \
        .name = "hier",                                                                            \
        .collective = COLLECTIVE,                                                                  \
        .supports = cinch_hier_supports,                                                           \
        .cost = cost,                                                                              \
        .build = build_##NAME,                                                                     \
        .parts = cinch_parts_one,                                                                  \
        .part_bytes = (size_t)64 << 10,                                                            \
        .least_bytes = (size_t)16 << 10,                                                           \
    }
ROW(reducescatter, CINCH_REDUCESCATTER);
ROW(allgather, CINCH_ALLGATHER);

/* SPDX-License-Identifier: Apache-2.0 */
/* Hierarchical reduce-scatter and all-gather: each block goes along a tree of its own, so that it
 * crosses a slow level once for each host there, or site, however many ranks these have. The host's
 * part in block q is done by the rank whose place among its ranks is that of q on its own host
 * (modulo their number), and a site's by that rank of the host whose place is that of q's host: so
 * every rank has its share of the crossing. Codecs are used as in the all-reduce, level by level.
 *
 * Reduce-scatter: who does a host's part gathers the inputs of its host, adds them and hands the
 * sum to who does its site's part, who hands on the sum of those; the owner adds sums to the inputs
 * of its own host. All-gather is that in reverse. */
#include "coll/algo/hier.h"

/* Who does a host's part in block q. */
static int driver_on(const cinch_hier *v, int host, int q) {
    int local = cinch_hier_local(v, q);
    if (v->call->host[q] != host) local %= cinch_hier_ranks(v->call, host);
    return cinch_hier_rank(v, host, local);
}

/* The host whose driver of block q does the site's part; at q's own site that is q. */
static int host_for(const cinch_call *call, int site, int q) {
    int home = call->host[q];
    return cinch_hier_host_at(call, site,
                              cinch_hier_place(call, home) % cinch_hier_site_hosts(call, site));
}

/* To whom rank r hands what it has of block q; q itself at the end. */
static int parent_of(const cinch_hier *v, int r, int q) {
    int host = v->call->host[r], driver = driver_on(v, host, q);
    if (r != driver) return driver;
    int up = host_for(v->call, cinch_hier_site(v->call, host), q);
    return host == up ? q : driver_on(v, up, q);
}

/* Whether this rank does its site's part in a block of another site, for several hosts. */
static bool gathers_site(const cinch_hier *v, int q) {
    const cinch_call *call = v->call;
    int site = cinch_hier_site(call, v->host);
    return cinch_hier_site(call, call->host[q]) != site && cinch_hier_site_hosts(call, site) > 1 &&
           host_for(call, site, q) == v->host && driver_on(v, v->host, q) == v->rank;
}

static cinch_ref block_of(cinch_space space, int q) {
    return cinch_ref_block(cinch_ref_of(space, 0), q);
}

static bool coded_inside(const cinch_hier *v) {
    return v->call->encoded && v->call->inside;
}
static bool coded_between(const cinch_hier *v) {
    return v->call->encoded && !v->call->exact_between;
}

/* ---- reduce-scatter ---- */

/* As each block of the message counts, and the outermost level. */
static double cost(const cinch_call *call) {
    bool far = cinch_hier_sites(call) > 1;
    double n = call->nranks, here = n / (far ? cinch_hier_sites(call) : call->hosts);
    return cinch_hier_cost(call, far ? 4 : 3, n - here, n);
}

/* Where things are. BOX slots: for the k-th block that this rank drives the inputs of locals, its
 * own the sum; the other hosts' and the other sites' sums of its own block; for the j-th block of
 * which it does a site's part, the sums of the site's hosts, its own that of the site. WIRE slots:
 * from hosts; the k-th driven block's sum; with a codec inside, the inputs of locals for the k-th,
 * and its own for block q; from sites; for the j-th block as in BOXes. */
typedef struct spread {
    cinch_hier v;
    int n, driven; /* blocks that this rank drives */
    int sites, site_hosts, place;
} spread;

static int driven_by(const cinch_hier *v, int below) {
    int driven = 0;
    for (int q = 0; q < below; q++) driven += driver_on(v, v->host, q) == v->rank;
    return driven;
}

static spread spread_of(const cinch_call *call, int rank) {
    spread a = {.v = cinch_hier_of(call, rank, -1), .n = call->nranks};
    a.driven = driven_by(&a.v, a.n);
    a.sites = cinch_hier_sites(call);
    a.site_hosts = cinch_hier_site_hosts(call, cinch_hier_site(call, a.v.host));
    a.place = cinch_hier_place(call, a.v.host);
    return a;
}

static cinch_ref box_of(const spread *a, int k, int local, int q) {
    return cinch_ref_block(cinch_ref_slot(CINCH_BOX, k * a->v.locals + local, 0), q);
}
static cinch_ref wire_from(const spread *a, int k, int local) {
    return cinch_ref_slot(CINCH_WIRE, a->v.hosts + a->driven + k * a->v.locals + local, 0);
}
static cinch_ref wire_for(const spread *a, int q) {
    return cinch_ref_slot(CINCH_WIRE, a->v.hosts + a->driven * (1 + a->v.locals) + q, 0);
}

/* The sums of its own block, of a host, and of a site. */
static cinch_ref remote_sum(const spread *a, int host) {
    return coded_between(&a->v) ? cinch_ref_slot(CINCH_WIRE, host, 0)
                                : cinch_ref_slot(CINCH_BOX, a->driven * a->v.locals + host, 0);
}
static cinch_ref site_sum(const spread *a, int site) {
    if (!coded_between(&a->v)) return remote_sum(a, a->v.hosts + site);
    return wire_for(a, a->n + site);
}

/* For the j-th block of which it does its site's part. */
static cinch_ref part_box(const spread *a, int j, int place, int q) {
    int slot = a->driven * a->v.locals + a->v.hosts + a->sites + j * a->site_hosts + place;
    return cinch_ref_block(cinch_ref_slot(CINCH_BOX, slot, 0), q);
}
static cinch_ref part_wire(const spread *a, int j, int place) {
    return wire_for(a, a->n + a->sites + j * a->site_hosts + place);
}

/* The input of a local for the k-th driven block. */
static cinch_ref input_of(const spread *a, int k, int local, int q) {
    if (local == a->v.local) return block_of(CINCH_IN, q);
    return coded_inside(&a->v) ? wire_from(a, k, local) : box_of(a, k, local, q);
}

/* Inputs go to their drivers. */
static void gather_inputs(cinch_builder *b, const spread *a) {
    const cinch_hier *v = &a->v;
    for (int i = 1; i < v->locals; i++) {
        int to = cinch_hier_rank(v, v->host, (v->local + i) % v->locals);
        int place = (v->local + v->locals - i) % v->locals;
        int from = cinch_hier_rank(v, v->host, place);
        for (int q = 0, k = 0; q < a->n; q++) {
            int driver = driver_on(v, v->host, q);
            cinch_ref in = block_of(CINCH_IN, q), wire = wire_for(a, q);
            if (driver == v->rank) cinch_build_recv(b, from, q, input_of(a, k++, place, q));
            if (driver != to) continue;
            if (coded_inside(v)) cinch_build_encode(b, CINCH_INSIDE, wire, in);
            cinch_build_send(b, to, q, coded_inside(v) ? wire : in);
        }
    }
}

/* What comes from other hosts and sites: for the own block, and for those of other sites. Blocks
 * between two ranks are in the order of their numbers. */
static void receive_sums(cinch_builder *b, const spread *a) {
    const cinch_hier *v = &a->v;
    int site = cinch_hier_site(v->call, v->host);
    for (int q = 0, j = 0; q < a->n; q++) {
        bool own = q == v->rank, gathers = gathers_site(v, q);
        for (int h = 0; h < v->hosts && (own || gathers); h++) {
            if (h == v->host || cinch_hier_site(v->call, h) != site) continue;
            int place = cinch_hier_place(v->call, h);
            cinch_build_recv(b, driver_on(v, h, q), q,
                             own                ? remote_sum(a, h)
                             : coded_between(v) ? part_wire(a, j, place)
                                                : part_box(a, j, place, q));
        }
        j += gathers;
        for (int s = 0; s < a->sites && own; s++)
            if (s != site)
                cinch_build_recv(b, driver_on(v, host_for(v->call, s, q), q), q, site_sum(a, s));
    }
}

/* The inputs of this host for the k-th block; how many. */
static int inputs_of(const spread *a, int k, int q, cinch_ref *src) {
    for (int j = 0; j < a->v.locals; j++) src[j] = input_of(a, k, j, q);
    return a->v.locals;
}

/* The sum of this host for the k-th block, once it is made: fp32 where both levels have a codec. */
static cinch_ref host_sum(const spread *a, int k, int q) {
    if (a->v.locals == 1) return block_of(CINCH_IN, q);
    if (coded_inside(&a->v) && !coded_between(&a->v))
        return cinch_ref_block(cinch_ref_slot(CINCH_TMP, k, 0), q);
    return box_of(a, k, a->v.local, q);
}
static unsigned wide_sum(const spread *a) {
    return a->v.locals > 1 && coded_inside(&a->v) && coded_between(&a->v) ? CINCH_WIDE : 0;
}

static void make_sum(cinch_builder *b, const spread *a, int k, int q) {
    cinch_ref sum = host_sum(a, k, q), *src = b->list[0];
    if (a->v.locals == 1) return;
    int nsrc = inputs_of(a, k, q, src);
    if (coded_inside(&a->v))
        cinch_build_sum(b, CINCH_INSIDE, sum, src, nsrc);
    else
        cinch_build_reduce(b, 0, &sum, 1, src, nsrc);
}

/* The sums of driven blocks, each to who is next; but for those that a site's part is made of. */
static void send_sums(cinch_builder *b, const spread *a) {
    const cinch_hier *v = &a->v;
    int first = a->sites > 1 ? 0 : v->rank; /* everyone begins at another peer, where it may */
    for (int i = 0, k = driven_by(v, first); i < a->n; i++) {
        int q = (first + i) % a->n;
        if (q == 0) k = 0;
        if (driver_on(v, v->host, q) != v->rank) continue;
        int nth = k++;
        if (q == v->rank) continue;
        make_sum(b, a, nth, q);
        if (gathers_site(v, q)) continue;
        cinch_ref sum = host_sum(a, nth, q), wire = cinch_ref_slot(CINCH_WIRE, v->hosts + nth, 0);
        if (coded_between(v)) cinch_build_encode(b, wide_sum(a), wire, sum);
        cinch_build_send(b, parent_of(v, v->rank, q), q, coded_between(v) ? wire : sum);
    }
}

static void send_site_sums(cinch_builder *b, const spread *a) {
    const cinch_hier *v = &a->v;
    cinch_ref *src = b->list[0];
    for (int q = 0, k = 0, j = 0; q < a->n; q++) {
        if (driver_on(v, v->host, q) != v->rank) continue;
        int nth = k++;
        if (!gathers_site(v, q)) continue;
        cinch_ref sum = part_box(a, j, a->place, q), wire = part_wire(a, j, a->place);
        for (int p = 0; p < a->site_hosts; p++)
            src[p] = p == a->place      ? host_sum(a, nth, q)
                     : coded_between(v) ? part_wire(a, j, p)
                                        : part_box(a, j, p, q);
        j++;
        if (coded_between(v)) {
            cinch_build_sum(b, wide_sum(a), sum, src, a->site_hosts);
            cinch_build_encode(b, CINCH_WIDE, wire, sum);
        } else {
            cinch_build_reduce(b, 0, &sum, 1, src, a->site_hosts);
        }
        cinch_build_send(b, q, q, coded_between(v) ? wire : sum);
    }
}

/* The own block: the inputs of this host, or their sum where another codec follows, and the sums
 * of other hosts and sites. */
static void finish_own(cinch_builder *b, const spread *a) {
    const cinch_hier *v = &a->v;
    cinch_ref out = cinch_ref_of(CINCH_OUT, 0), *src = b->list[0];
    unsigned wide = wide_sum(a);
    int nsrc = 1, own = driven_by(v, v->rank), site = cinch_hier_site(v->call, v->host);
    if (wide) make_sum(b, a, own, v->rank);
    if (wide)
        src[0] = host_sum(a, own, v->rank);
    else
        nsrc = inputs_of(a, own, v->rank, src);
    for (int h = 0; h < v->hosts; h++)
        if (h != v->host && cinch_hier_site(v->call, h) == site) src[nsrc++] = remote_sum(a, h);
    for (int s = 0; s < a->sites; s++)
        if (s != site) src[nsrc++] = site_sum(a, s);
    if (!v->call->encoded)
        cinch_build_reduce(b, CINCH_FINAL, &out, 1, src, nsrc);
    else
        cinch_build_sum(b, CINCH_FINAL | wide | (coded_between(v) ? 0 : CINCH_INSIDE), out, src,
                        nsrc);
}

static void build_reducescatter(cinch_builder *b, cinch_schedule *s, int rank, int n,
                                const cinch_call *call) {
    spread a = spread_of(call, rank);
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    gather_inputs(b, &a);
    receive_sums(b, &a);
    cinch_build_lag(b, 2); /* sends run ahead, so that the wire never waits for a wake-up */
    send_sums(b, &a);
    if (a.sites > 1) {
        cinch_build_lag(b, 4);
        send_site_sums(b, &a);
    }
    cinch_build_lag(b, a.sites > 1 ? 6 : 4);
    finish_own(b, &a);
}

/* ---- all-gather ---- */

/* How many steps rank r is from the owner of block q. */
static int depth_of(const cinch_hier *v, int r, int q) {
    int depth = 0;
    for (; r != q; r = parent_of(v, r, q)) depth++;
    return depth;
}

/* Exact: a block arrives where it belongs. With a codec everyone gets what the owner's bytes decode
 * to: from the wire between hosts, and inside from who has decoded it; where the inside has a codec
 * too the owner's bytes go there as they are. WIRE slots: 0 its own; 1 + k, for the k-th block of
 * another host that it drives, or 1 + q. */
static cinch_ref wire_at(const cinch_hier *v, int k, int q) {
    return cinch_ref_slot(CINCH_WIRE, q == v->rank ? 0 : 1 + (coded_inside(v) ? q : k), 0);
}
static unsigned codec_of(const cinch_hier *v) {
    return coded_between(v) ? 0 : CINCH_INSIDE;
}

/* What arrives, or goes on, of block q between ranks of one host, or else. */
static cinch_ref copy_of(const cinch_hier *v, int k, int q, bool inside) {
    bool wire = v->call->encoded && (!inside || coded_inside(v));
    if (wire) return wire_at(v, k, q);
    return q == v->rank && !v->call->encoded ? cinch_ref_of(CINCH_IN, 0) : block_of(CINCH_OUT, q);
}

/* Block q to those for whom it comes from here: of other sites, of other hosts of this, and of this
 * host. */
static void hand_out(cinch_builder *b, const cinch_hier *v, int k, int q) {
    const cinch_call *call = v->call;
    int site = cinch_hier_site(call, v->host);
    cinch_ref far = copy_of(v, k, q, false);
    for (int s = 0; s < cinch_hier_sites(call) && q == v->rank; s++)
        if (s != site) cinch_build_send(b, driver_on(v, host_for(call, s, q), q), q, far);
    for (int i = 1; i < v->hosts; i++) {
        int host = (v->host + i) % v->hosts; /* everyone begins at another peer */
        if (cinch_hier_site(call, host) == site && host_for(call, site, q) == v->host)
            cinch_build_send(b, driver_on(v, host, q), q, far);
    }
    for (int i = 1; i < v->locals; i++)
        cinch_build_send(b, cinch_hier_rank(v, v->host, (v->local + i) % v->locals), q,
                         copy_of(v, k, q, true));
}

/* The own block is at hand. */
static void place_own(cinch_builder *b, const cinch_hier *v) {
    cinch_ref in = cinch_ref_of(CINCH_IN, 0), out = block_of(CINCH_OUT, v->rank);
    cinch_ref wire = wire_at(v, 0, v->rank);
    if (!v->call->encoded) {
        cinch_build_copy(b, out, in);
        return;
    }
    cinch_build_encode(b, codec_of(v), wire, in);
    cinch_build_sum(b, codec_of(v), out, &wire, 1);
}

/* What this rank gets from, or as, a rank so many steps from a block's owner. The two ends of every
 * message so agree on its lag. */
static void step(cinch_builder *b, const cinch_hier *v, int n, int depth) {
    for (int pass = 0; pass < 2; pass++) /* what is received, then what is sent */
        for (int q = 0, k = 0; q < n; q++) {
            bool here = v->call->host[q] == v->host, drives = driver_on(v, v->host, q) == v->rank;
            int nth = k;
            k += drives && !here;
            if (pass == 0 && q != v->rank) {
                int from = parent_of(v, v->rank, q);
                if (depth_of(v, from, q) == depth)
                    cinch_build_recv(b, from, q,
                                     copy_of(v, nth, q, v->call->host[from] == v->host));
            }
            if (pass == 0 || !drives || depth_of(v, v->rank, q) != depth) continue;
            cinch_ref wire = wire_at(v, nth, q);
            if (q == v->rank)
                place_own(b, v);
            else if (v->call->encoded && !coded_inside(v))
                cinch_build_sum(b, codec_of(v), block_of(CINCH_OUT, q), &wire, 1);
            hand_out(b, v, nth, q);
        }
}

static void build_allgather(cinch_builder *b, cinch_schedule *s, int rank, int n,
                            const cinch_call *call) {
    cinch_hier v = cinch_hier_of(call, rank, -1);
    int steps = cinch_hier_sites(call) > 1 ? 3 : 2;
    if (!cinch_build_begin(b, s, rank, n, 1)) return;
    for (int depth = 0; depth < steps; depth++) {
        cinch_build_lag(b, 2 * depth);
        step(b, &v, n, depth);
    }
    if (!coded_inside(&v)) return;
    cinch_build_lag(b, 2 * steps);
    for (int i = 1; i < n; i++) {
        int q = (rank + i) % n;
        cinch_ref wire = wire_at(&v, 0, q);
        cinch_build_sum(b, codec_of(&v), block_of(CINCH_OUT, q), &wire, 1);
    }
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

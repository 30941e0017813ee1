/* SPDX-License-Identifier: Apache-2.0 */
/* Hierarchical broadcast and reduce. Of each slice the root's host gives another share to each
 * other host of its site, and these exchange their shares; each hands every other site one part of
 * its share, and the sites exchange these parts. So no host of the root's site sends or receives
 * more than the message once within it, no site more than that between sites, whatever their
 * number; and the ranks of a host drive a slice each. Reduce is that in reverse. */
#include "coll/algo/hier.h"

/* Drivers: the hosts of a site that cross to others, each with its share of a slice. At the root's
 * site they are the other hosts, or the root's own where it is alone there. */
typedef struct rooted {
    cinch_hier v;
    int slices, drivers;
    int away;    /* sites but the root's, at least one: parts of a share */
    int home;    /* the root's site */
    int site;    /* this rank's */
    int place;   /* of its host among those that may be drivers; -1: the root's, not alone */
    bool drives; /* a slice of its host */
} rooted;

static bool is_root_host(const rooted *t, int host) {
    return host == t->v.call->host[t->v.root];
}

static bool alone_at_home(const cinch_call *call, int home) {
    return cinch_hier_site_hosts(call, home) == 1;
}

static int place_of(const rooted *t, int host) {
    const cinch_call *call = t->v.call;
    int root_host = call->host[t->v.root], place = cinch_hier_place(call, host);
    if (cinch_hier_site(call, host) != t->home || alone_at_home(call, t->home)) return place;
    if (host == root_host) return -1;
    return place - (root_host < host);
}

/* In how many shares a slice goes: as many as there are drivers at every site. */
static int drivers_of(const cinch_call *call) {
    int home = cinch_hier_site(call, call->host[call->root]), least = call->hosts;
    for (int s = 0; s < cinch_hier_sites(call); s++) {
        int hosts = cinch_hier_site_hosts(call, s);
        if (s == home && hosts > 1) hosts--;
        if (hosts < least) least = hosts;
    }
    return least;
}

static int away_of(const cinch_call *call) {
    int sites = cinch_hier_sites(call);
    return sites > 1 ? sites - 1 : 1;
}

static int parts(const cinch_call *call) {
    return cinch_hier_slices(call) * drivers_of(call) * away_of(call);
}

static double cost(const cinch_call *call) {
    int steps = (call->hosts > 2 ? 4 : 3) + (cinch_hier_sites(call) > 1 ? 2 : 0);
    return cinch_hier_cost(call, steps, 1, 1);
}

static rooted rooted_of(const cinch_call *call, int rank) {
    rooted t = {.v = cinch_hier_of(call, rank, call->root)};
    t.slices = cinch_hier_slices(call);
    t.drivers = drivers_of(call);
    t.away = away_of(call);
    t.home = cinch_hier_site(call, call->host[call->root]);
    t.site = cinch_hier_site(call, t.v.host);
    t.place = place_of(&t, t.v.host);
    t.drives = t.v.local < t.slices;
    return t;
}

/* The rank of another host with this one's slice. */
static int fellow(const rooted *t, int host) {
    return cinch_hier_rank(&t->v, host, t->v.local);
}

static int driver_at(const rooted *t, int site, int place) {
    const cinch_call *call = t->v.call;
    int host = cinch_hier_host_at(call, site, place);
    if (site == t->home && !alone_at_home(call, site) && host >= call->host[t->v.root])
        host = cinch_hier_host_at(call, site, place + 1);
    return fellow(t, host);
}

/* Whether the host is another one of this rank's site that may be a driver. */
static bool beside(const rooted *t, int host) {
    return host != t->v.host && cinch_hier_site(t->v.call, host) == t->site &&
           place_of(t, host) >= 0;
}

/* The how-manieth site it is but for the root's. */
static int nth_away(const rooted *t, int site) {
    return site < t->home ? site : site - 1;
}
static int site_away(const rooted *t, int nth) {
    return nth < t->home ? nth : nth + 1;
}

/* Whether there are other sites, and the n-th is not this one. */
static bool other_site(const rooted *t, int nth) {
    return cinch_hier_sites(t->v.call) > 1 && site_away(t, nth) != t->site;
}

/* Of this rank's slice the n-th part of a share, that share, and somebody's slice. */
static cinch_ref part_of(const rooted *t, cinch_space space, int slot, int share, int nth) {
    return cinch_ref_slot(space, slot, (t->v.local * t->drivers + share) * t->away + nth);
}
static cinch_ref share_of(const rooted *t, cinch_space space, int share) {
    return cinch_ref_parts(part_of(t, space, 0, share, 0), t->away);
}
static cinch_ref slice_of(const rooted *t, cinch_space space, int slot, int local) {
    int width = t->drivers * t->away;
    return cinch_ref_parts(cinch_ref_slot(space, slot, local * width), width);
}

/* Marks. No two ranks have messages of two kinds from one to the other, but for the root and those
 * beside it: so each kind may have its lag. */
enum {
    INSIDE, /* a slice between the root and who drives it beside it */
    SHARE,  /* between the root's host and a driver */
    AMONG,  /* a share between hosts of a site */
    ACROSS, /* a part between a driver of the root's site and one of another */
    FAR,    /* a part between drivers of sites that are not the root's */
    RESULT  /* a slice inside a host */
};

/* ---- broadcast ---- */

/* What a driver of another site gets of its share. */
static void get_parts(cinch_builder *b, const rooted *t) {
    for (int i = 0; i < t->away; i++) {
        int from = other_site(t, i) ? site_away(t, i) : t->home;
        cinch_build_recv(b, driver_at(t, from, t->place), from == t->home ? ACROSS : FAR,
                         part_of(t, CINCH_OUT, 0, t->place, i));
    }
}

static void get_slice(cinch_builder *b, const rooted *t) {
    const cinch_hier *v = &t->v;
    if (v->rank == v->root) return;
    if (is_root_host(t, v->host)) {
        cinch_build_recv(b, v->root, INSIDE, slice_of(t, CINCH_OUT, 0, v->local));
        return;
    }
    if (t->place < t->drivers && t->site == t->home)
        cinch_build_recv(b, fellow(t, v->call->host[v->root]), SHARE,
                         share_of(t, CINCH_OUT, t->place));
    else if (t->place < t->drivers)
        get_parts(b, t);
    for (int i = 1; i < v->hosts; i++) {
        int host = (v->host + v->hosts - i) % v->hosts;
        if (beside(t, host) && place_of(t, host) < t->drivers)
            cinch_build_recv(b, fellow(t, host), AMONG, share_of(t, CINCH_OUT, place_of(t, host)));
    }
}

/* A driver's share to the other sites: each its own part. */
static void send_parts(cinch_builder *b, const rooted *t, cinch_space space) {
    for (int i = 0; i < t->away; i++) {
        int nth = (t->place + i) % t->away; /* drivers begin at different sites */
        if (other_site(t, nth))
            cinch_build_send(b, driver_at(t, site_away(t, nth), t->place), ACROSS,
                             part_of(t, space, 0, t->place, nth));
    }
}

static void send_far(cinch_builder *b, const rooted *t) {
    for (int i = 0; i < t->away; i++)
        if (other_site(t, i))
            cinch_build_send(b, driver_at(t, site_away(t, i), t->place), FAR,
                             part_of(t, CINCH_OUT, 0, t->place, nth_away(t, t->site)));
}

static void send_among(cinch_builder *b, const rooted *t) {
    for (int i = 1; i < t->v.hosts; i++) {
        int host = (t->v.host + i) % t->v.hosts;
        if (beside(t, host))
            cinch_build_send(b, fellow(t, host), AMONG, share_of(t, CINCH_OUT, t->place));
    }
}

/* What a rank with a slice does for other hosts; the lag from which on it has all of that. */
static int send_out(cinch_builder *b, const rooted *t, int lag) {
    const cinch_hier *v = &t->v;
    cinch_space space = v->rank == v->root ? CINCH_IN : CINCH_OUT;
    for (int p = 0; t->place < 0 && p < t->drivers; p++) {
        int share = (v->local + p) % t->drivers;
        cinch_build_send(b, driver_at(t, t->home, share), SHARE, share_of(t, space, share));
    }
    if (t->place >= 0 && t->place < t->drivers && t->site == t->home) {
        send_parts(b, t, space);
        send_among(b, t);
    } else if (t->place >= 0 && t->place < t->drivers) {
        send_far(b, t);
        if (t->away > 1) cinch_build_lag(b, lag += 2);
        send_among(b, t);
    }
    return is_root_host(t, v->host) ? lag : lag + 2;
}

static void send_inside(cinch_builder *b, const rooted *t) {
    const cinch_hier *v = &t->v;
    cinch_space space = v->rank == v->root ? CINCH_IN : CINCH_OUT;
    for (int i = 1; i < v->locals; i++) {
        int to = cinch_hier_rank(v, v->host, (v->local + i) % v->locals);
        if (to != v->root) cinch_build_send(b, to, RESULT, slice_of(t, space, 0, v->local));
    }
}

static void build_broadcast(cinch_builder *b, cinch_schedule *s, int rank, int n,
                            const cinch_call *call) {
    rooted t = rooted_of(call, rank);
    if (!cinch_build_begin(b, s, rank, n, parts(call))) return;
    bool is_root = rank == call->root;
    int lag = is_root ? 0 : 2; /* receives run ahead, so that the wire never waits */
    for (int to = 1; is_root && to < t.slices; to++)
        cinch_build_send(b, cinch_hier_rank(&t.v, t.v.host, to), INSIDE,
                         slice_of(&t, CINCH_IN, 0, to));
    if (t.drives) get_slice(b, &t);
    for (int from = 0; from < t.slices && !is_root; from++)
        if (from != t.v.local)
            cinch_build_recv(b, cinch_hier_rank(&t.v, t.v.host, from), RESULT,
                             slice_of(&t, CINCH_OUT, 0, from));
    cinch_build_lag(b, lag);
    if (t.drives) {
        cinch_build_lag(b, send_out(b, &t, lag));
        send_inside(b, &t);
    }
    if (is_root)
        cinch_build_copy(b, cinch_ref_parts(cinch_ref_of(CINCH_OUT, 0), s->parts),
                         cinch_ref_parts(cinch_ref_of(CINCH_IN, 0), s->parts));
}

/* ---- reduce ---- */

enum { SUM = 0 }; /* TMP slots: the host's sum, then the locals' slices */

/* BOX slots: a share from each other host of the site, or of the root's; own sums of parts; parts
 * from other sites. */
static cinch_ref box_from(const rooted *t, int place, int share, int nth) {
    return part_of(t, CINCH_BOX, place * t->away + nth, share, nth);
}
static cinch_ref box_sum(const rooted *t, int share, int nth) {
    return box_from(t, t->v.hosts, share, nth);
}
static cinch_ref box_site(const rooted *t, int nth, int share, int part) {
    return part_of(t, CINCH_BOX, (t->v.hosts + 1) * t->away + nth, share, part);
}

/* What this host has for a part. */
static cinch_ref host_sum(const rooted *t, int share, int nth) {
    return part_of(t, t->v.locals > 1 ? CINCH_TMP : CINCH_IN, SUM, share, nth);
}

static void gather_inside(cinch_builder *b, const rooted *t) {
    const cinch_hier *v = &t->v;
    for (int i = 1; i < v->locals; i++) {
        int to = (v->local + i) % v->locals, from = (v->local + v->locals - i) % v->locals;
        if (t->drives)
            cinch_build_recv(b, cinch_hier_rank(v, v->host, from), INSIDE,
                             slice_of(t, CINCH_TMP, 1 + from, v->local));
        if (to < t->slices)
            cinch_build_send(b, cinch_hier_rank(v, v->host, to), INSIDE,
                             slice_of(t, CINCH_IN, 0, to));
    }
}

static void sum_host(cinch_builder *b, const rooted *t) {
    const cinch_hier *v = &t->v;
    cinch_ref sum = slice_of(t, CINCH_TMP, SUM, v->local), *src = b->list[0];
    for (int j = 0; j < v->locals; j++)
        src[j] =
            j == v->local ? slice_of(t, CINCH_IN, 0, j) : slice_of(t, CINCH_TMP, 1 + j, v->local);
    if (v->locals > 1) cinch_build_reduce(b, 0, &sum, 1, src, v->locals);
}

/* Shares of the host's sum to their drivers, and the own share from the other hosts. */
static void exchange_shares(cinch_builder *b, const rooted *t) {
    const cinch_hier *v = &t->v;
    for (int i = 1; i < v->hosts; i++) {
        int there = (v->host + i) % v->hosts, from = (v->host + v->hosts - i) % v->hosts;
        for (int k = 0; k < t->away; k++) {
            if (beside(t, from) && t->place < t->drivers)
                cinch_build_recv(b, fellow(t, from), AMONG,
                                 box_from(t, place_of(t, from), t->place, k));
            if (beside(t, there) && place_of(t, there) < t->drivers)
                cinch_build_send(b, fellow(t, there), AMONG, host_sum(t, place_of(t, there), k));
        }
    }
}

/* What the hosts of this site have for a part of the own share, in the order of hosts; how many. */
static int site_sources(const rooted *t, int nth, cinch_ref *src) {
    int n = 0;
    for (int h = 0; h < t->v.hosts; h++) {
        if (h == t->v.host) src[n++] = host_sum(t, t->place, nth);
        if (beside(t, h)) src[n++] = box_from(t, place_of(t, h), t->place, nth);
    }
    return n;
}

/* Adds up a part of the own share into its box, unless there is but one source; where it is. */
static cinch_ref add(cinch_builder *b, const rooted *t, int nth, int sources) {
    cinch_ref sum = box_sum(t, t->place, nth), *src = b->list[0];
    if (sources == 1) return src[0];
    cinch_build_reduce(b, 0, &sum, 1, src, sources);
    return sum;
}

/* A driver of another site: the site's sums, exchanged with the other sites', and its part to the
 * root's site. */
static void reduce_away(cinch_builder *b, const rooted *t) {
    int own = nth_away(t, t->site), sources = 0;
    cinch_ref mine = {0}, *src = b->list[0];
    for (int i = 0; i < t->away; i++)
        if (other_site(t, i))
            cinch_build_recv(b, driver_at(t, site_away(t, i), t->place), FAR,
                             box_site(t, i, t->place, own));
    cinch_build_lag(b, 4);
    for (int i = 0; i < t->away; i++) {
        cinch_ref sum = add(b, t, i, site_sources(t, i, src));
        if (i == own)
            mine = sum;
        else
            cinch_build_send(b, driver_at(t, site_away(t, i), t->place), FAR, sum);
    }
    if (t->away > 1) {
        cinch_build_lag(b, 6);
        for (int i = 0; i < t->away; i++)
            src[sources++] = i == own ? mine : box_site(t, i, t->place, own);
        mine = box_site(t, own, t->place, own);
        cinch_build_reduce(b, 0, &mine, 1, src, sources);
    }
    cinch_build_send(b, driver_at(t, t->home, t->place), ACROSS, mine);
}

static void receive_across(cinch_builder *b, const rooted *t) {
    for (int i = 0; i < t->away; i++)
        if (other_site(t, i))
            cinch_build_recv(b, driver_at(t, site_away(t, i), t->place), ACROSS,
                             box_site(t, i, t->place, i));
}

/* When the last site's parts are there. */
static int lag_of(const rooted *t) {
    return cinch_hier_sites(t->v.call) > 1 ? 8 : 4;
}

/* A driver of the root's site: its hosts' sums and those of the other sites, to the root's host. */
static void reduce_home(cinch_builder *b, const rooted *t) {
    cinch_ref *src = b->list[0];
    receive_across(b, t);
    cinch_build_lag(b, lag_of(t));
    for (int i = 0; i < t->away; i++) {
        int sources = site_sources(t, i, src);
        if (other_site(t, i)) src[sources++] = box_site(t, i, t->place, i);
        cinch_build_send(b, fellow(t, t->v.call->host[t->v.root]), SHARE, add(b, t, i, sources));
    }
}

/* A driver beside the root, or that itself: its host's inputs and what is summed elsewhere. */
static void reduce_here(cinch_builder *b, const rooted *t) {
    const cinch_hier *v = &t->v;
    bool is_root = v->rank == v->root, alone = t->place >= 0;
    cinch_ref *src = b->list[0];
    if (alone) receive_across(b, t);
    for (int p = 0; p < t->drivers && !alone; p++)
        for (int i = 0; i < t->away; i++)
            cinch_build_recv(b, driver_at(t, t->home, p), SHARE, box_from(t, p, p, i));
    cinch_build_lag(b, lag_of(t) + 2);
    for (int p = 0; p < t->drivers; p++)
        for (int i = 0; i < t->away; i++) {
            for (int j = 0; j < v->locals; j++)
                src[j] = part_of(t, j == v->local ? CINCH_IN : CINCH_TMP, j == v->local ? 0 : 1 + j,
                                 p, i);
            src[v->locals] = alone ? box_site(t, i, p, i) : box_from(t, p, p, i);
            cinch_ref to = part_of(t, is_root ? CINCH_OUT : CINCH_TMP, SUM, p, i);
            cinch_build_reduce(b, CINCH_FINAL, &to, 1, src, v->locals + 1);
        }
    if (!is_root) cinch_build_send(b, v->root, RESULT, slice_of(t, CINCH_TMP, SUM, v->local));
}

static void build_reduce(cinch_builder *b, cinch_schedule *s, int rank, int n,
                         const cinch_call *call) {
    rooted t = rooted_of(call, rank);
    if (!cinch_build_begin(b, s, rank, n, parts(call))) return;
    gather_inside(b, &t);
    cinch_build_lag(b, 2); /* sends run ahead, so that the wire never waits for a wake-up */
    if (t.drives && is_root_host(&t, t.v.host)) {
        reduce_here(b, &t);
    } else if (t.drives) {
        sum_host(b, &t);
        exchange_shares(b, &t);
        if (t.place < t.drivers) (t.site == t.home ? reduce_home : reduce_away)(b, &t);
    }
    for (int from = 1; rank == call->root && from < t.slices; from++)
        cinch_build_recv(b, cinch_hier_rank(&t.v, t.v.host, from), RESULT,
                         slice_of(&t, CINCH_OUT, 0, from));
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

/* SPDX-License-Identifier: Apache-2.0 */
/* Where a rank is among hosts and sites, and the levels that follow. */
#include "coll/algo/hier.h"

/* ---- ranks on hosts ---- */

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

/* ---- hosts at sites ---- */

int cinch_hier_sites(const cinch_call *call) {
    return call->site ? call->sites : 1;
}

int cinch_hier_site(const cinch_call *call, int host) {
    return call->site ? call->site[host] : 0;
}

int cinch_hier_site_hosts(const cinch_call *call, int site) {
    int hosts = 0;
    for (int h = 0; h < call->hosts; h++) hosts += cinch_hier_site(call, h) == site;
    return hosts;
}

static int least_hosts(const cinch_call *call) {
    int least = call->hosts;
    for (int s = 0; s < cinch_hier_sites(call); s++) {
        int hosts = cinch_hier_site_hosts(call, s);
        if (hosts < least) least = hosts;
    }
    return least;
}

int cinch_hier_host_at(const cinch_call *call, int site, int place) {
    for (int h = 0;; h++)
        if (cinch_hier_site(call, h) == site && place-- == 0) return h;
}

int cinch_hier_place(const cinch_call *call, int host) {
    int place = 0, site = cinch_hier_site(call, host);
    for (int h = 0; h < host; h++) place += cinch_hier_site(call, h) == site;
    return place;
}

/* ---- levels ---- */

int cinch_hier_parts(const cinch_call *call) {
    return cinch_hier_slices(call) * least_hosts(call) * cinch_hier_sites(call);
}

/* The level of that kind as this rank sees it, but for what it brings. */
static cinch_hier_level level_of(const cinch_hier_levels *p, int kind) {
    const cinch_call *call = p->v.call;
    cinch_hier_level level = {.kind = kind, .codec = kind == 0 ? CINCH_INSIDE : 0};
    level.encoded = call->encoded && (kind == 0 ? call->inside : !call->exact_between);
    if (kind == 0) {
        level.members = p->v.locals;
        level.me = p->v.local;
        level.owners = cinch_hier_slices(call);
    } else if (kind == 1) {
        level.members = cinch_hier_site_hosts(call, p->site);
        level.me = p->place;
        level.owners = least_hosts(call);
    } else {
        level.members = level.owners = cinch_hier_sites(call);
        level.me = p->site;
    }
    return level;
}

static bool exists(const cinch_call *call, int kind) {
    if (kind == 0) return call->nranks > call->hosts;
    return kind == 1 ? call->hosts > cinch_hier_sites(call) : cinch_hier_sites(call) > 1;
}

cinch_hier_levels cinch_hier_levels_of(const cinch_call *call, int rank) {
    cinch_hier_levels p = {.v = cinch_hier_of(call, rank, -1), .parts = cinch_hier_parts(call)};
    p.site = cinch_hier_site(call, p.v.host);
    p.place = cinch_hier_place(call, p.v.host);
    int first = 0, width = p.parts;
    bool owns = true; /* all that lies below */
    for (int kind = 0; kind < CINCH_HIER_LEVELS; kind++) {
        if (!exists(call, kind)) continue;
        cinch_hier_level level = level_of(&p, kind);
        level.first = first;
        level.width = width /= level.owners;
        p.at[p.count++] = level;
        if (!owns) continue;
        p.reached = p.count;
        owns = level.me < level.owners;
        first += level.me * width;
    }
    while (p.coded_from < p.count && !p.at[p.coded_from].encoded) p.coded_from++;
    return p;
}

int cinch_hier_member(const cinch_hier_levels *p, int level, int place) {
    const cinch_hier *v = &p->v;
    int kind = p->at[level].kind, host = v->host;
    if (kind == 1) host = cinch_hier_host_at(v->call, p->site, place);
    if (kind == 2) host = cinch_hier_host_at(v->call, place, p->place);
    return cinch_hier_rank(v, host, kind == 0 ? place : v->local);
}

/* ---- for the table ---- */

const char *cinch_hier_supports(const cinch_call *call) {
    int levels = 0;
    for (int kind = 0; kind < CINCH_HIER_LEVELS; kind++) levels += exists(call, kind);
    if (levels > 1 && call->hosts > 1) return NULL;
    return "it needs two hosts or more, one of them with two ranks or more, or sites of several "
           "hosts";
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

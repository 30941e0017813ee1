/* SPDX-License-Identifier: Apache-2.0 */
/* What the hierarchical algorithms share: where a rank is, the levels, and who drives what across
 * the slow ones. Slices of a message are driven by the ranks with the same place in their groups.
 */
#ifndef CINCH_COLL_ALGO_HIER_H_
#define CINCH_COLL_ALGO_HIER_H_

#include "coll/algo.h"

/* A rank's place: its host, and the how-manieth of the host's ranks it is. With a root, the places
 * of its host are counted from it on. */
typedef struct cinch_hier {
    const cinch_call *call;
    int rank, host, local;
    int hosts, locals; /* locals: ranks of its host */
    int root;          /* -1: none */
} cinch_hier;

cinch_hier cinch_hier_of(const cinch_call *call, int rank, int root);

int cinch_hier_ranks(const cinch_call *call, int host); /* on the host */
int cinch_hier_rank(const cinch_hier *v, int host, int local);
int cinch_hier_local(const cinch_hier *v, int rank);

/* Slices of a message that all hosts drive: as many as the smallest has ranks. */
int cinch_hier_slices(const cinch_call *call);

/* Sites: how many, a host's, its hosts, the host at a place there, and a host's place. */
int cinch_hier_sites(const cinch_call *call);
int cinch_hier_site(const cinch_call *call, int host);
int cinch_hier_site_hosts(const cinch_call *call, int site);
int cinch_hier_host_at(const cinch_call *call, int site, int place);
int cinch_hier_place(const cinch_call *call, int host);

/* ---- levels ---- */

/* Inside hosts, between the hosts of a site, between sites; a level whose groups have one member
 * each is left out. */
enum { CINCH_HIER_LEVELS = 3 };

/* A level, as one rank sees it. Of what a group brings to a level each of its owners takes a slice;
 * the others have nothing to do with further levels. */
typedef struct cinch_hier_level {
    int kind;        /* 0: inside a host, 1: between hosts, 2: between sites */
    int members, me; /* of the rank's group, and its place among them */
    int owners;      /* as many as the smallest group of the level has members */
    int first;       /* part of what the rank brings to the level */
    int width;       /* parts of a slice */
    bool encoded;
    unsigned codec; /* CINCH_INSIDE or 0, where encoded */
} cinch_hier_level;

typedef struct cinch_hier_levels {
    cinch_hier v;
    int site, place; /* the host's, and how-manieth host there it is */
    int count;       /* of levels */
    int reached;     /* of them, from the first, in which the rank takes part */
    int parts;       /* of the message */
    int coded_from;  /* the first level with a codec; count: there is none */
    cinch_hier_level at[CINCH_HIER_LEVELS];
} cinch_hier_levels;

cinch_hier_levels cinch_hier_levels_of(const cinch_call *call, int rank);
int cinch_hier_parts(const cinch_call *call);

/* The rank at that place of this rank's group. */
int cinch_hier_member(const cinch_hier_levels *p, int level, int place);

/* ---- for the table ---- */

/* Whether there are two levels, and what it costs: so many steps, so many blocks out of a host and
 * the rest inside. */
const char *cinch_hier_supports(const cinch_call *call);
const char *cinch_hier_supports_exact(const cinch_call *call); /* and without a codec */
double cinch_hier_cost(const cinch_call *call, int steps, double crossing, double inside);

#endif

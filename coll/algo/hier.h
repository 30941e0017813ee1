/* SPDX-License-Identifier: Apache-2.0 */
/* What the hierarchical algorithms share: where a rank is, and who drives what across the slow
 * level. Slices of a message are driven by the ranks with the same place on their hosts. */
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

/* Whether there are two levels, and what it costs: so many steps, so many blocks out of a host and
 * the rest inside. */
const char *cinch_hier_supports(const cinch_call *call);
const char *cinch_hier_supports_exact(const cinch_call *call);
double cinch_hier_cost(const cinch_call *call, int steps, double crossing, double inside);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* A plan of topo/ as the schedules of CINCH_ALGO=forest need it: trees over the ranks, each with a
 * whole number of a message's parts in place of a weight. */
#ifndef CINCH_COLL_FOREST_H_
#define CINCH_COLL_FOREST_H_

#include "coll/shape.h"
#include "topo/plan.h"

/* One direction of a tree. */
typedef struct cinch_forest_half {
    int *parent; /* [ranks], of the root -1; NULL: the tree has no such direction */
    int *level;  /* [ranks] up: edges below the rank, on the longest way; down: edges to the root */
} cinch_forest_half;

typedef struct cinch_forest_tree {
    int root;
    int first, parts; /* of the message; of the root's block where every rank has one */
    cinch_forest_half up, down;
} cinch_forest_tree;

typedef struct cinch_forest {
    cinch_collective collective;
    int ranks, root; /* root: as in the plan */
    int parts;       /* of the message, or of a block */
    int steps;       /* messages after each other on the longest way of a byte */
    cinch_forest_tree *tree;
    int trees;
    double algbw; /* GB/s of all blocks, with parts in place of weights */
} cinch_forest;

/* Parts are as few as keep 99 % of the plan's bandwidth, or as near to that as MOST_PARTS come.
 * InvalidArgument: a plan of rings, which has no trees; SystemError: out of memory. */
cinchResult_t cinch_forest_make(const cinch_graph *graph, const cinch_plan *plan,
                                cinch_forest *forest);
void cinch_forest_free(cinch_forest *forest);

/* What marks a tree's messages of one direction. Between two ranks there is at most one. */
static inline int cinch_forest_mark(int tree, bool down) {
    return 2 * tree + down;
}

#endif

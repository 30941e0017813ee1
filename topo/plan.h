/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: how a collective's bytes should travel over a machine. A plan is a forest of trees over
 * the ranks with weights, the share of the message that each carries; a tree's edge is a path
 * through switches. Rings and double binary trees are the same thing with a fixed shape, and so
 * compare.
 *
 * Times are those of a fluid: arcs carry what they can, nothing waits. Then an operation on M bytes
 * takes M times the largest (load / bandwidth) of an arc, and algbw is the inverse of that. */
#ifndef CINCH_TOPO_PLAN_H_
#define CINCH_TOPO_PLAN_H_

#include <stdbool.h>

#include "topo/graph.h"

typedef enum {
    CINCH_PLAN_ALLREDUCE,
    CINCH_PLAN_ALLGATHER, /* M: what every rank ends up with */
    CINCH_PLAN_REDUCESCATTER,
    CINCH_PLAN_BROADCAST,
    CINCH_PLAN_REDUCE
} cinch_plan_op;

typedef enum {
    CINCH_PLAN_FOREST,     /* whatever trees are best */
    CINCH_PLAN_RING,       /* one ring */
    CINCH_PLAN_RINGS,      /* several */
    CINCH_PLAN_DOUBLE_TREE /* chains inside hosts, two binary trees between them (all-reduce) */
} cinch_plan_kind;

/* One direction of a tree. The edge of rank r goes from its parent to r where the half is `down`,
 * from r to its parent where it is `up`, and runs over the nodes path[first[r] .. first[r + 1]),
 * both ends included. The root has neither parent nor path, except in a ring: there its edge closes
 * the circle. */
typedef struct cinch_plan_half {
    int *parent; /* a rank; -1: the root. NULL: the tree has no such direction */
    int *first;  /* ranks + 1 */
    int *path;   /* nodes of the graph */
} cinch_plan_half;

typedef struct cinch_plan_tree {
    int root;
    double weight; /* of the message; a plan's weights sum to 1 */
    cinch_plan_half up, down;
} cinch_plan_tree;

typedef struct cinch_plan {
    cinch_plan_op op;
    cinch_plan_kind kind;
    int ranks, root; /* root: -1 where the operation has none */
    cinch_plan_tree *tree;
    int trees;
    double algbw; /* GB/s that the trees reach */
    double bound; /* GB/s that no forest can pass, proven by the prices of links; 0: none known */
    int hops;     /* edges on the longest way of a byte, up and down: what latency multiplies */
} cinch_plan;

/* A zeroed one means the defaults. */
typedef struct cinch_plan_options {
    cinch_plan_kind kind;
    int most_trees; /* 0: as many as it takes. Rings: 0 is up to 8. All-gather and
                       reduce-scatter have one per rank at least */
    double loss;    /* what part of algbw may go for fewer trees; 0: 0.2 % */
    int most_hops;  /* forests: a plan of no more hops is preferred, whatever bandwidth that costs;
                       0: any number. Where none is found, the plan has what hops it has */
} cinch_plan_options;

/* Plans `op`. InvalidArgument: a root that is no rank, fewer than one GPU, a GPU that cannot be
 * reached from another, a kind that cannot serve the operation; SystemError: out of memory. The
 * plan depends on the graph's nodes and arcs, never on the order in which arcs were added, on time
 * or on chance. options: NULL is the defaults. */
cinchResult_t cinch_plan_make(const cinch_graph *graph, cinch_plan_op op, int root,
                              const cinch_plan_options *options, cinch_plan *plan);
void cinch_plan_free(cinch_plan *plan);

/* Proves a plan without the planner's code: every tree spans all ranks, paths exist in the graph
 * and pass through switches only, weights sum to 1, and no arc carries more than it can at the
 * algbw that is promised. InternalError, with a sentence. */
cinchResult_t cinch_plan_check(const cinch_graph *graph, const cinch_plan *plan);

const char *cinch_plan_op_name(cinch_plan_op op);
const char *cinch_plan_kind_name(cinch_plan_kind kind);

/* Microseconds for `bytes`, with alpha_us for every hop. */
double cinch_plan_us(const cinch_plan *plan, double bytes, double alpha_us);

#endif

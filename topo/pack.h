/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the planner share: the graph in a fixed order, trees as they are packed, and
 * the packing of trees by prices of links.
 *
 * Packing trees is a linear program: weights w >= 0 on trees, each group of trees (one, or one for
 * each root of an all-gather) has the same total, no arc carries more than it can. Its columns are
 * the trees, too many to write down; but for given prices of arcs the cheapest tree is found fast
 * (a minimum spanning tree or arborescence among the GPUs). pack_price.c moves prices with the load
 * to get good trees and prices; pack_column.c goes on with the program's exact prices (column
 * generation, pack_lp.c). And any prices prove a bound: sum(price * bandwidth) / cost(cheapest). */
#ifndef CINCH_TOPO_PACK_H_
#define CINCH_TOPO_PACK_H_

#include <stdbool.h>
#include <stddef.h>

#include "topo/graph.h"
#include "topo/plan.h"

/* The graph with its arcs sorted by (from, to). */
typedef struct cinch_pack_net {
    int nodes, arcs, ranks;
    int *from, *to;
    double *cap;
    int *shared;       /* arc: as in the graph */
    bool shares;       /* some do */
    int *twin;         /* the arc the other way, or -1 */
    int *out;          /* node: its first arc; nodes + 1 */
    int *in, *in_arc;  /* node: its first place in in_arc; nodes + 1, arcs */
    int *rank, *place; /* node: its rank or -1; rank: its node */
    bool symmetric;    /* every arc has a twin as wide */
} cinch_pack_net;

/* Every arc the other way round where `reversed`. Fails where a GPU does not reach another. */
cinchResult_t cinch_pack_net_make(const cinch_graph *graph, bool reversed, cinch_pack_net *net);
void cinch_pack_net_free(cinch_pack_net *net);
int cinch_pack_net_arc(const cinch_pack_net *net, int from, int to); /* -1: none */

/* One direction of a tree, paths as arcs in the order of travel (down: from the parent; up: to it).
 * One block of memory. */
typedef struct cinch_pack_half {
    int *parent, *first, *arc;
} cinch_pack_half;

cinchResult_t cinch_pack_half_make(int ranks, size_t arcs, cinch_pack_half *half);
void cinch_pack_half_free(cinch_pack_half *half);

/* ---- the cheapest tree for given prices of arcs ---- */

/* Scratch memory of both searches. */
typedef struct cinch_pack_search cinch_pack_search;
cinchResult_t cinch_pack_search_make(const cinch_pack_net *net, cinch_pack_search **search);
void cinch_pack_search_free(cinch_pack_search *search);

/* The minimum spanning tree of the GPUs, an edge costing the prices of both ways, over arcs that
 * have a twin; rooted at its middle. *cost: its length. *half is NULL in parent where some GPU
 * cannot be reached both ways. */
cinchResult_t cinch_pack_spanning(cinch_pack_search *search, const double *price,
                                  cinch_pack_half *down, double *cost);

/* The cheapest arborescences out of every root at once (into every root where `inward`):
 * contracts all GPUs to one. Then cost(root) and tree(root) are cheap, until the next contraction.
 */
typedef struct cinch_pack_arbor cinch_pack_arbor;
cinchResult_t cinch_pack_arbor_make(const cinch_pack_net *net, bool inward,
                                    cinch_pack_arbor **arbor);
void cinch_pack_arbor_free(cinch_pack_arbor *arbor);
cinchResult_t cinch_pack_arbor_contract(cinch_pack_arbor *arbor, const double *price);
double cinch_pack_arbor_cost(const cinch_pack_arbor *arbor, int root);
cinchResult_t cinch_pack_arbor_tree(const cinch_pack_arbor *arbor, int root, cinch_pack_half *half);

/* ---- the program ---- */

typedef enum {
    CINCH_PACK_BOTH,   /* all-reduce, links symmetric: a row is a link, a tree loads both ways */
    CINCH_PACK_PAIR,   /* all-reduce: an up tree and a down tree with one root */
    CINCH_PACK_ROOTED, /* broadcast */
    CINCH_PACK_ALL     /* all-gather: a group of trees for each root */
} cinch_pack_mode;

/* A tree, and its load on rows: use[i] of row[i]'s bandwidth for a weight of 1. */
typedef struct cinch_pack_tree {
    int group, root;
    cinch_pack_half down, up; /* up: only in PAIR */
    int uses, *row;
    double *use;
    double weight;
} cinch_pack_tree;

typedef struct cinch_pack {
    const cinch_pack_net *net;
    cinch_pack_mode mode;
    int root, groups, rows;
    int *row_of;   /* arc: its row */
    double *room;  /* row: its bandwidth, the least of its arcs' */
    double *scale; /* arc: its row's over its own, 1 where nothing is shared */
    cinch_pack_tree *tree;
    int trees, tree_room;
    int *bucket, buckets; /* trees by hash, to find equal ones; chains by `next` */
    int *next;
    double bound;      /* the best one proven by prices, in GB/s; HUGE_VAL at first */
    double cut;        /* one that cuts prove; HUGE_VAL: none is known */
    double *best;      /* the prices of rows that proved it */
    double *arc_price; /* scratch */
    double *dense;     /* scratch: one row's load each, zero between calls */
    cinch_pack_search *search;
    cinch_pack_arbor *outward, *inward;
} cinch_pack;

cinchResult_t cinch_pack_make(const cinch_pack_net *net, cinch_pack_mode mode, int root,
                              cinch_pack *pack);
void cinch_pack_free(cinch_pack *pack);

/* Adds the cheapest trees at these prices of rows (a price is for the whole of a row's bandwidth):
 * one for each group, into chosen[groups], numbers of trees old or new. Improves the bound. */
cinchResult_t cinch_pack_respond(cinch_pack *pack, const double *price, int *chosen);

/* Adds a tree, whose memory it takes whatever comes of it; *number: its own, or an equal one's. */
cinchResult_t cinch_pack_add(cinch_pack *pack, cinch_pack_tree tree, int *number);

/* Drops the trees of weight 0; moved[old number]: the new one, or -1. */
void cinch_pack_compact(cinch_pack *pack, int *moved);

/* The lesser of both bounds. */
double cinch_pack_bound(const cinch_pack *pack);

/* load[row]: the sum of weight * use; returns the largest. */
double cinch_pack_load(const cinch_pack *pack, double *load);

/* Rounds of prices that grow exponentially with the load, until within `gap` of the bound. Weights
 * of every group sum to 1 / groups. */
cinchResult_t cinch_pack_by_price(cinch_pack *pack, int rounds, double gap);

/* Column generation from the trees at hand, until within `gap`; at most `rounds` new answers. */
cinchResult_t cinch_pack_by_column(cinch_pack *pack, int rounds, double gap);

/* A fixed number of trees of equal weight, each rerouted in turn against the load of the others. */
cinchResult_t cinch_pack_few(cinch_pack *pack, int trees, int rounds, int deepest);

/* Down to `most` trees, and further while no more than `loss` is lost; 0: not looked for. */
cinchResult_t cinch_pack_prune(cinch_pack *pack, int most, double loss);

/* Grows a tree of weight `share` from a root, over prices that are exponentials of load / aim; adds
 * its own load to load[row] as it goes. No rank is more than `deepest` edges from the root (0: any
 * number), unless links leave no other way. */
typedef struct cinch_pack_grower cinch_pack_grower;
cinchResult_t cinch_pack_grower_make(const cinch_pack *pack, cinch_pack_grower **grower);
void cinch_pack_grower_free(cinch_pack_grower *grower);
cinchResult_t cinch_pack_grow(cinch_pack_grower *grower, int root, bool inward, double share,
                              double sharpness, double aim, int deepest, double *load,
                              cinch_pack_half *half);

/* exp(x), to 1e-9, 0 below -700 and no more than exp(700): the same bits on every machine, which
 * libm's need not be. */
double cinch_pack_exp(double x);

/* ---- the linear program, over trees at hand ---- */

typedef struct cinch_pack_lp cinch_pack_lp;
cinchResult_t cinch_pack_lp_make(const cinch_pack *pack, double scale, cinch_pack_lp **lp);
void cinch_pack_lp_free(cinch_pack_lp *lp);
/* Best weights over the pack's trees of now (those with allowed[tree], where given). */
cinchResult_t cinch_pack_lp_solve(cinch_pack_lp *lp, const cinch_pack *pack, const bool *allowed);
bool cinch_pack_lp_tired(const cinch_pack_lp *lp); /* it has worked as much as it may */
/* Prices of rows at the solution, and its weights, put into the pack. */
void cinch_pack_lp_price(const cinch_pack_lp *lp, double *price);
void cinch_pack_lp_weights(const cinch_pack_lp *lp, cinch_pack *pack);

/* ---- shapes ---- */

cinchResult_t cinch_pack_rings(const cinch_pack_net *net, int rings, cinch_plan *plan);
cinchResult_t cinch_pack_double_tree(const cinch_graph *graph, const cinch_pack_net *net,
                                     cinch_plan *plan);

#endif

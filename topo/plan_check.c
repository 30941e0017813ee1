/* SPDX-License-Identifier: Apache-2.0 */
/* The judge of plans: knows the graph and what a plan says, and nothing of how it was made. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "topo/plan.h"

#define TOLERANCE 1e-9

/* What a check needs: the graph's arcs in an order to search, and what each carries. */
typedef struct {
    const cinch_graph *graph;
    const cinch_plan *plan;
    int *order;   /* arcs by (from, to) */
    int *first;   /* node: its first place in order; nodes + 1 */
    double *load; /* arc: of a message of size 1 */
    double *part; /* by the arcs' `shared`: of what they share */
    int *gpu;     /* rank: its node */
} checker;

#define BROKEN(...) cinch_fail(cinchInternalError, "the plan is broken: " __VA_ARGS__)

static cinchResult_t open_checker(checker *c, const cinch_graph *graph, const cinch_plan *plan) {
    size_t nodes = (size_t)graph->nodes, arcs = (size_t)graph->arcs, ranks = (size_t)graph->gpus;
    int most = 0;
    *c = (checker){.graph = graph, .plan = plan};
    for (int a = 0; a < graph->arcs; a++)
        if (graph->arc[a].shared > most) most = graph->arc[a].shared;
    c->order = malloc((arcs + nodes + 2 + ranks) * sizeof(int));
    c->load = calloc(arcs + (size_t)most + 2, sizeof(double));
    if (!c->order || !c->load) return cinch_fail(cinchSystemError, "out of memory to check a plan");
    c->part = c->load + arcs + 1;
    c->first = c->order + arcs;
    c->gpu = c->first + nodes + 2;
    memset(c->first, 0, (nodes + 2) * sizeof(int));
    for (int a = 0; a < graph->arcs; a++) c->first[graph->arc[a].from + 2]++;
    for (int n = 0; n < graph->nodes; n++) c->first[n + 2] += c->first[n + 1];
    for (int a = 0; a < graph->arcs; a++) c->order[c->first[graph->arc[a].from + 1]++] = a;
    int rank = 0;
    for (int n = 0; n < graph->nodes; n++)
        if (graph->node[n].kind == CINCH_NODE_GPU) c->gpu[rank++] = n;
    return cinchSuccess;
}

static void close_checker(checker *c) {
    free(c->order);
    free(c->load);
}

static int find_arc(const checker *c, int from, int to) {
    for (int i = c->first[from]; i < c->first[from + 1]; i++)
        if (c->graph->arc[c->order[i]].to == to) return c->order[i];
    return -1;
}

static bool is_ring(const cinch_plan *plan) {
    return plan->kind == CINCH_PLAN_RING || plan->kind == CINCH_PLAN_RINGS;
}

/* A rank's edge: from one GPU to the other, over switches, along arcs that there are. */
static cinchResult_t check_path(checker *c, int tree, const cinch_plan_half *half, int rank,
                                bool up, double amount) {
    const cinch_graph *graph = c->graph;
    const int *path = half->path + half->first[rank];
    int count = half->first[rank + 1] - half->first[rank], parent = half->parent[rank];
    int from = c->gpu[up ? rank : parent], to = c->gpu[up ? parent : rank];
    if (count < 2 || path[0] != from || path[count - 1] != to)
        return BROKEN("in tree %d the path of rank %d does not join it and its parent", tree, rank);
    for (int i = 0; i + 1 < count; i++) {
        if (path[i + 1] < 0 || path[i + 1] >= graph->nodes)
            return BROKEN("in tree %d the path of rank %d leaves the graph", tree, rank);
        if (i > 0 && graph->node[path[i]].kind != CINCH_NODE_SWITCH)
            return BROKEN("in tree %d the path of rank %d goes through the GPU %s", tree, rank,
                          graph->node[path[i]].name);
        int arc = find_arc(c, path[i], path[i + 1]);
        if (arc < 0)
            return BROKEN("in tree %d the path of rank %d uses a link from %s to %s, and there is "
                          "none",
                          tree, rank, graph->node[path[i]].name, graph->node[path[i + 1]].name);
        c->load[arc] += amount;
    }
    return cinchSuccess;
}

/* Every rank leads to the root, in as many steps as there are ranks at most. */
static cinchResult_t check_shape(checker *c, int number, const cinch_plan_tree *tree,
                                 const cinch_plan_half *half) {
    int ranks = c->plan->ranks;
    bool ring = is_ring(c->plan);
    for (int r = 0; r < ranks; r++) {
        int parent = half->parent[r];
        if (parent >= ranks || parent < -1 || (parent < 0) != (r == tree->root && !ring) ||
            parent == r)
            return BROKEN("in tree %d rank %d has the parent %d", number, r, parent);
    }
    for (int r = 0; r < ranks; r++) {
        int at = r, steps = 0;
        for (; at != tree->root && steps < ranks; steps++) at = half->parent[at];
        if (at != tree->root) return BROKEN("in tree %d rank %d is on a circle", number, r);
    }
    /* On a ring the farthest rank is a whole circle from the root, so all are on one circle. */
    for (int r = 0, at = tree->root; ring && r < ranks; r++) {
        at = half->parent[at];
        if ((at == tree->root) != (r == ranks - 1))
            return BROKEN("ring %d does not go through all ranks", number);
    }
    return cinchSuccess;
}

/* What part of a tree's weight a rank's edge carries. */
static double carried(const checker *c, const cinch_plan_tree *tree, int rank) {
    const cinch_plan *plan = c->plan;
    double ranks = plan->ranks;
    if (is_ring(plan)) {
        if (plan->op == CINCH_PLAN_ALLREDUCE) return 2 * (ranks - 1) / ranks;
        if (plan->op == CINCH_PLAN_ALLGATHER || plan->op == CINCH_PLAN_REDUCESCATTER)
            return (ranks - 1) / ranks;
        /* A chain: out of the root, or into it. */
        return plan->op == CINCH_PLAN_BROADCAST ? rank != tree->root
                                                : tree->down.parent[rank] != tree->root;
    }
    return 1;
}

static cinchResult_t check_half(checker *c, int number, const cinch_plan_tree *tree, bool up) {
    const cinch_plan_half *half = up ? &tree->up : &tree->down;
    if (!half->first || !half->path || half->first[0] != 0)
        return BROKEN("tree %d has no paths", number);
    for (int r = 0; r < c->plan->ranks; r++)
        if (half->first[r + 1] < half->first[r])
            return BROKEN("in tree %d the path of rank %d has no length", number, r);
    CINCH_TRY(check_shape(c, number, tree, half));
    for (int r = 0; r < c->plan->ranks; r++)
        if (half->parent[r] >= 0)
            CINCH_TRY(check_path(c, number, half, r, up, tree->weight * carried(c, tree, r)));
    return cinchSuccess;
}

static cinchResult_t check_tree(checker *c, int number, double *weight_of_root) {
    const cinch_plan *plan = c->plan;
    const cinch_plan_tree *tree = &plan->tree[number];
    bool up = plan->op != CINCH_PLAN_BROADCAST && plan->op != CINCH_PLAN_ALLGATHER;
    bool down = plan->op != CINCH_PLAN_REDUCE && plan->op != CINCH_PLAN_REDUCESCATTER;
    if (is_ring(plan)) up = !(down = true);
    if (tree->root < 0 || tree->root >= plan->ranks ||
        (plan->root >= 0 && tree->root != plan->root))
        return BROKEN("tree %d has the root %d", number, tree->root);
    if (!(tree->weight > 0)) return BROKEN("tree %d has the weight %g", number, tree->weight);
    if (up != (tree->up.parent != NULL) || down != (tree->down.parent != NULL))
        return BROKEN("tree %d lacks a direction, or has one too many", number);
    if (up) CINCH_TRY(check_half(c, number, tree, true));
    if (down) CINCH_TRY(check_half(c, number, tree, false));
    for (int r = 0; r < plan->ranks; r++)
        if (is_ring(plan))
            weight_of_root[r] += tree->weight / plan->ranks;
        else if (r == tree->root)
            weight_of_root[r] += tree->weight;
    return cinchSuccess;
}

/* The whole message, and of an all-gather every rank's part, is carried; and nothing is overloaded.
 */
static cinchResult_t check_sums(checker *c, const double *weight_of_root) {
    const cinch_plan *plan = c->plan;
    double sum = 0;
    for (int r = 0; r < plan->ranks; r++) {
        sum += weight_of_root[r];
        if ((plan->op == CINCH_PLAN_ALLGATHER || plan->op == CINCH_PLAN_REDUCESCATTER) &&
            fabs(weight_of_root[r] * plan->ranks - 1) > TOLERANCE && plan->ranks > 1)
            return BROKEN("the trees of rank %d carry %.12g of its part", r,
                          weight_of_root[r] * plan->ranks);
    }
    if (fabs(sum - 1) > TOLERANCE) return BROKEN("the weights sum to %.12g", sum);
    if (plan->ranks > 1 && !(plan->algbw > 0 && isfinite(plan->algbw)))
        return BROKEN("it promises %g GB/s", plan->algbw);
    double most = 0;
    for (int a = 0; a < c->graph->arcs; a++) {
        const cinch_arc *arc = &c->graph->arc[a];
        double part = c->load[a] * plan->algbw / arc->gbps;
        if (arc->shared > 0) part = c->part[arc->shared] += part;
        if (part > 1 + TOLERANCE)
            return BROKEN("at %.9g GB/s the link from %s to %s carries %.9g of %.9g GB/s",
                          plan->algbw, c->graph->node[arc->from].name, c->graph->node[arc->to].name,
                          c->load[a] * plan->algbw, arc->gbps);
        if (part > most) most = part;
    }
    if (plan->ranks > 1 && most < 1 - 1e-6)
        return BROKEN("no link is busy at the %.9g GB/s that it promises", plan->algbw);
    return cinchSuccess;
}

cinchResult_t cinch_plan_check(const cinch_graph *graph, const cinch_plan *plan) {
    checker c;
    double *weight_of_root = calloc((size_t)graph->gpus + 1, sizeof *weight_of_root);
    cinchResult_t result = open_checker(&c, graph, plan);
    if (result == cinchSuccess && !weight_of_root)
        result = cinch_fail(cinchSystemError, "out of memory to check a plan");
    if (result == cinchSuccess && plan->ranks != graph->gpus)
        result = BROKEN("it is for %d ranks, and the graph has %d GPUs", plan->ranks, graph->gpus);
    if (result == cinchSuccess && plan->trees < 1) result = BROKEN("it has no trees");
    for (int t = 0; t < plan->trees && result == cinchSuccess; t++)
        result = check_tree(&c, t, weight_of_root);
    if (result == cinchSuccess) result = check_sums(&c, weight_of_root);
    close_checker(&c);
    free(weight_of_root);
    return result;
}

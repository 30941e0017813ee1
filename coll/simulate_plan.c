/* SPDX-License-Identifier: Apache-2.0 */
/* Simulates plans: which algorithm runs one, and which way its messages go. */
#include <stdlib.h>
#include <string.h>

#include "coll/forest.h"
#include "coll/simulate.h"

static const cinch_collective collectives[] = {[CINCH_PLAN_ALLREDUCE] = CINCH_ALLREDUCE,
                                               [CINCH_PLAN_ALLGATHER] = CINCH_ALLGATHER,
                                               [CINCH_PLAN_REDUCESCATTER] = CINCH_REDUCESCATTER,
                                               [CINCH_PLAN_BROADCAST] = CINCH_BROADCAST,
                                               [CINCH_PLAN_REDUCE] = CINCH_REDUCE};

static cinch_call call_of(cinch_plan_op op, int ranks, int root, uint64_t bytes) {
    cinch_collective collective = collectives[op];
    int blocks = cinch_shape_blocks(cinch_shape_of(collective), ranks);
    return (cinch_call){.collective = collective,
                        .nranks = ranks,
                        .root = root < 0 ? 0 : root,
                        .bytes = (size_t)(bytes / (uint64_t)blocks),
                        .small_bytes = CINCH_SMALL_SLOT,
                        .hosts = 1,
                        .per_host = ranks};
}

/* The edge of `child` in a half of a plan's tree. */
static void edge(const cinch_plan_half *half, int child, const int **node, int *nodes) {
    *node = half->path + half->first[child];
    *nodes = half->first[child + 1] - half->first[child];
}

/* ---- forests ---- */

typedef struct grove {
    const cinch_plan *plan;
    int *tree; /* of the plan, by the forest's */
} grove;

static bool same_half(const cinch_plan_half *a, const cinch_forest_half *b, int ranks) {
    if (!a->parent || !b->parent) return !a->parent && !b->parent;
    return memcmp(a->parent, b->parent, (size_t)ranks * sizeof *a->parent) == 0;
}

/* A forest has the plan's trees in their order, less those that are left out. */
static bool find_trees(const cinch_plan *plan, const cinch_forest *forest, int *tree) {
    int found = 0;
    for (int i = 0; i < plan->trees && found < forest->trees; i++)
        if (plan->tree[i].root == forest->tree[found].root &&
            same_half(&plan->tree[i].up, &forest->tree[found].up, plan->ranks) &&
            same_half(&plan->tree[i].down, &forest->tree[found].down, plan->ranks))
            tree[found++] = i;
    return found == forest->trees;
}

static cinchResult_t forest_path(void *context, int from, int to, int mark, const int **node,
                                 int *nodes) {
    const grove *g = context;
    const cinch_plan_tree *tree = &g->plan->tree[g->tree[mark / 2]];
    if (mark & 1)
        edge(&tree->down, to, node, nodes);
    else
        edge(&tree->up, from, node, nodes);
    return cinchSuccess;
}

static cinchResult_t run_forest(const cinch_graph *graph, const cinch_plan *plan,
                                const cinch_forest *forest, uint64_t bytes,
                                cinch_simulate_options *o, cinch_simulation *out) {
    cinch_call call = call_of(plan->op, plan->ranks, plan->root, bytes);
    const cinch_algo *algo = cinch_algo_find(call.collective, "forest");
    grove g = {plan, malloc(((size_t)forest->trees + 1) * sizeof *g.tree)};
    if (!g.tree)
        return cinch_fail(cinchSystemError, "out of memory for a forest of %d trees",
                          forest->trees);
    call.forest = forest;
    o->path = forest_path;
    o->context = &g;
    cinchResult_t result =
        find_trees(plan, forest, g.tree)
            ? cinch_simulate(graph, algo, &call, o, out)
            : cinch_fail(cinchInternalError, "a forest has trees that are not its plan's");
    free(g.tree);
    return result;
}

/* ---- rings ---- */

typedef struct circle {
    const cinch_plan_half *half;
    int *rank; /* by place on the ring, from the root on */
} circle;

/* Every edge of a ring runs from a rank's parent to it. */
static cinchResult_t ring_path(void *context, int from, int to, int mark, const int **node,
                               int *nodes) {
    const circle *c = context;
    (void)mark;
    if (c->half->parent[c->rank[to]] != c->rank[from])
        return cinch_fail(cinchInternalError, "ranks %d and %d are no neighbours on the ring",
                          c->rank[from], c->rank[to]);
    edge(c->half, c->rank[to], node, nodes);
    return cinchSuccess;
}

/* The algorithm passes messages on to the next place, but in a reduce to the one before. */
static void place_ranks(const cinch_plan *plan, int *rank) {
    int n = plan->ranks, at = plan->tree[0].root;
    bool reduce = plan->op == CINCH_PLAN_REDUCE;
    for (int i = 0; i < n; i++) {
        rank[reduce ? i : (n - i) % n] = at;
        at = plan->tree[0].down.parent[at];
    }
}

static cinchResult_t run_ring(const cinch_graph *graph, const cinch_plan *plan, uint64_t bytes,
                              cinch_simulate_options *o, cinch_simulation *out) {
    cinch_call call = call_of(plan->op, plan->ranks, 0, bytes);
    circle c = {&plan->tree[0].down, malloc((size_t)plan->ranks * sizeof *c.rank)};
    if (!c.rank)
        return cinch_fail(cinchSystemError, "out of memory for a ring of %d ranks", plan->ranks);
    place_ranks(plan, c.rank);
    o->path = ring_path;
    o->context = &c;
    cinchResult_t result =
        cinch_simulate(graph, cinch_algo_find(call.collective, "ring"), &call, o, out);
    free(c.rank);
    return result;
}

/* ---- both ---- */

cinchResult_t cinch_simulate_plan(const cinch_graph *graph, const cinch_plan *plan, uint64_t bytes,
                                  const cinch_simulate_options *options, cinch_simulation *out) {
    cinch_simulate_options o = options ? *options : cinch_simulate_defaults;
    cinch_forest forest = {0};
    *out = (cinch_simulation){.busiest = -1};
    if (plan->ranks < 2) return cinchSuccess;
    if (plan->kind == CINCH_PLAN_RING || (plan->kind == CINCH_PLAN_RINGS && plan->trees == 1))
        return run_ring(graph, plan, bytes, &o, out);
    if (plan->kind == CINCH_PLAN_RINGS)
        return cinch_fail_quiet(
            cinchInvalidArgument,
            "%d rings at once cannot be simulated, as no algorithm runs them: a "
            "forest, a double tree and one ring can",
            plan->trees);
    CINCH_TRY(cinch_forest_make(graph, plan, &forest));
    cinchResult_t result = run_forest(graph, plan, &forest, bytes, &o, out);
    cinch_forest_free(&forest);
    return result;
}

cinchResult_t cinch_simulate_named(const cinch_graph *graph, const char *name, cinch_plan_op op,
                                   int root, uint64_t bytes, const cinch_simulate_options *options,
                                   cinch_simulation *out) {
    cinch_call call = call_of(op, graph->gpus, root, bytes);
    const cinch_algo *algo = cinch_algo_find(call.collective, name);
    *out = (cinch_simulation){.busiest = -1};
    if (!algo)
        return cinch_fail_quiet(cinchInvalidArgument, "%s has no algorithm %s",
                                cinch_plan_op_name(op), name);
    return cinch_simulate(graph, algo, &call, options, out);
}

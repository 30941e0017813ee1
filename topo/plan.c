/* SPDX-License-Identifier: Apache-2.0 */
/* From a graph and an operation to a plan: which program to pack, how long to try, and the packed
 * trees as the plan's. */
#include "topo/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "topo/bounds.h"
#include "topo/pack.h"

/* Trees for a machine too large for an exact linear program, and at most where every rank has its
 * own; and how many arcs may be looked at while they are grown. */
enum { FEW = 32, MOST_TREES = 512, MOST_WORK = 20000000, MOST_PROGRAM = 1200 };
enum { FLAT = 64 }; /* hops, where there are more ranks */
#define GAP 0.001
#define GOOD 0.985 /* of the bound: no other way of packing is tried */
#define GROWN 0.992

const char *cinch_plan_op_name(cinch_plan_op op) {
    static const char *const name[] = {"allreduce", "allgather", "reducescatter", "broadcast",
                                       "reduce"};
    return (unsigned)op < 5 ? name[op] : "?";
}

const char *cinch_plan_kind_name(cinch_plan_kind kind) {
    static const char *const name[] = {"forest", "ring", "rings", "double_tree"};
    return (unsigned)kind < 4 ? name[kind] : "?";
}

double cinch_plan_us(const cinch_plan *plan, double bytes, double alpha_us) {
    double wire = plan->algbw > 0 ? bytes / (plan->algbw * 1e3) : 0;
    return plan->hops * alpha_us + wire;
}

static void free_half(cinch_plan_half *half) {
    free(half->parent); /* with the rest behind it */
}

void cinch_plan_free(cinch_plan *plan) {
    for (int t = 0; t < plan->trees; t++) {
        free_half(&plan->tree[t].up);
        free_half(&plan->tree[t].down);
    }
    free(plan->tree);
    *plan = (cinch_plan){0};
}

/* ---- packed trees as a plan's ---- */

/* Arcs as nodes; the other way round where `backwards`. */
static cinchResult_t convert_half(const cinch_pack_net *net, const cinch_pack_half *from,
                                  bool backwards, cinch_plan_half *to) {
    size_t ranks = (size_t)net->ranks, room = (size_t)from->first[ranks] + ranks;
    to->parent = malloc((2 * ranks + 1 + room) * sizeof(int));
    if (!to->parent) return cinch_fail(cinchSystemError, "out of memory for a plan");
    to->first = to->parent + ranks;
    to->path = to->first + ranks + 1;
    int at = 0;
    for (int r = 0; r < net->ranks; r++) {
        const int *arc = from->arc + from->first[r];
        int arcs = from->first[r + 1] - from->first[r];
        to->parent[r] = from->parent[r];
        to->first[r] = at;
        for (int i = 0; i <= arcs && arcs > 0; i++) {
            int k = backwards ? arcs - i : i;
            to->path[at++] = k == 0 ? net->from[arc[0]] : net->to[arc[k - 1]];
        }
    }
    to->first[net->ranks] = at;
    return cinchSuccess;
}

/* A net with its arcs reversed makes trees whose down half is really an up half. */
static cinchResult_t convert_tree(const cinch_pack *pack, const cinch_pack_tree *from,
                                  bool reversed, cinch_plan_tree *to) {
    bool mirror = pack->mode == CINCH_PACK_BOTH;
    *to = (cinch_plan_tree){.root = from->root, .weight = from->weight};
    if (!reversed || mirror) CINCH_TRY(convert_half(pack->net, &from->down, false, &to->down));
    if (reversed || mirror) CINCH_TRY(convert_half(pack->net, &from->down, true, &to->up));
    if (from->up.parent) CINCH_TRY(convert_half(pack->net, &from->up, false, &to->up));
    return cinchSuccess;
}

typedef struct {
    double weight;
    int root, tree;
} sortable;

/* By root, the heaviest first. */
static int by_root(const void *a, const void *b) {
    const sortable *x = a, *y = b;
    if (x->root != y->root) return x->root < y->root ? -1 : 1;
    if (x->weight != y->weight) return x->weight > y->weight ? -1 : 1;
    return (x->tree > y->tree) - (x->tree < y->tree);
}

static cinchResult_t convert(const cinch_pack *pack, bool reversed, cinch_plan *plan) {
    sortable *order = malloc(((size_t)pack->trees + 1) * sizeof *order);
    double *load = malloc(((size_t)pack->rows + 1) * sizeof *load);
    int count = 0;
    cinchResult_t result = cinchSuccess;
    if (order && load) {
        for (int t = 0; t < pack->trees; t++)
            if (pack->tree[t].weight > 0)
                order[count++] =
                    (sortable){pack->tree[t].weight, pack->groups > 1 ? pack->tree[t].root : 0, t};
        qsort(order, (size_t)count, sizeof *order, by_root);
        plan->tree = calloc((size_t)count + 1, sizeof *plan->tree);
        plan->algbw = 1 / cinch_pack_load(pack, load);
        plan->bound = cinch_pack_bound(pack);
    }
    if (!plan->tree) result = cinch_fail(cinchSystemError, "out of memory for a plan");
    for (int i = 0; i < count && result == cinchSuccess; i++) {
        plan->trees = i + 1;
        result = convert_tree(pack, &pack->tree[order[i].tree], reversed, &plan->tree[i]);
    }
    free(order);
    free(load);
    return result;
}

/* ---- hops ---- */

static int depth(const cinch_plan_half *half, int ranks) {
    int most = 0;
    for (int r = 0; r < ranks && half->parent; r++) {
        int steps = 0;
        for (int at = half->parent[r]; at >= 0; at = half->parent[at]) steps++;
        if (steps > most) most = steps;
    }
    return most;
}

static void count_hops(cinch_plan *plan) {
    plan->hops = 0;
    if (plan->kind == CINCH_PLAN_RING || plan->kind == CINCH_PLAN_RINGS) {
        plan->hops = (plan->op == CINCH_PLAN_ALLREDUCE ? 2 : 1) * (plan->ranks - 1);
        return;
    }
    for (int t = 0; t < plan->trees; t++) {
        int hops = depth(&plan->tree[t].up, plan->ranks) + depth(&plan->tree[t].down, plan->ranks);
        if (hops > plan->hops) plan->hops = hops;
    }
}

/* ---- packing ---- */

/* Trees of any weights, from the linear program. */
static cinchResult_t pack_exactly(cinch_pack *pack, const cinch_plan_options *options) {
    CINCH_TRY(cinch_pack_by_price(pack, pack->groups == 1 ? 150 : 30, GAP));
    CINCH_TRY(cinch_pack_by_column(pack, 300, GAP));
    return cinch_pack_prune(pack, options->most_trees, options->loss > 0 ? options->loss : 0.002);
}

static cinchResult_t reached(const cinch_pack *pack, double *algbw) {
    double *load = malloc(((size_t)pack->rows + 1) * sizeof *load);
    if (!load) return cinch_fail(cinchSystemError, "out of memory for a plan");
    *algbw = 1 / cinch_pack_load(pack, load);
    free(load);
    return cinchSuccess;
}

/* So many trees, of equal weight; where that is not enough they are what the linear program begins
 * with, if that is not too large. */
static cinchResult_t pack_grown(cinch_pack *pack, const cinch_plan_options *options) {
    /* From one root all the slack is needed, and a tree more or less on a link is to be little. */
    int slots = pack->mode == CINCH_PACK_ROOTED ? 8 * FEW : FEW;
    if (pack->mode == CINCH_PACK_ALL) slots = MOST_TREES;
    if (options->most_trees > 0) slots = options->most_trees;
    slots = slots > pack->groups ? slots / pack->groups * pack->groups : pack->groups;
    long long work = (long long)slots * pack->net->arcs;
    int rounds = work > MOST_WORK / 2 ? 2 : work < MOST_WORK / 12 ? 12 : (int)(MOST_WORK / work);
    CINCH_TRY(cinch_pack_by_price(pack, pack->groups == 1 ? 100 : 2, GAP));
    bool twice = pack->mode == CINCH_PACK_BOTH || pack->mode == CINCH_PACK_PAIR;
    int deepest = options->most_hops / (twice ? 2 : 1);
    if (options->most_hops == 1) deepest = 1;
    CINCH_TRY(cinch_pack_few(pack, slots, rounds, deepest));
    if (deepest) return cinchSuccess;
    double algbw = 0;
    CINCH_TRY(reached(pack, &algbw));
    if (algbw >= GROWN * cinch_pack_bound(pack) || pack->rows + pack->groups > MOST_PROGRAM)
        return cinchSuccess;
    CINCH_TRY(cinch_pack_by_column(pack, 300, GAP));
    return cinch_pack_prune(pack, slots, 0);
}

static cinch_pack_mode mode_of(const cinch_pack_net *net, cinch_plan_op op) {
    switch (op) {
    case CINCH_PLAN_ALLREDUCE:
        return net->symmetric ? CINCH_PACK_BOTH : CINCH_PACK_PAIR;
    case CINCH_PLAN_ALLGATHER:
    case CINCH_PLAN_REDUCESCATTER:
        return CINCH_PACK_ALL;
    default:
        return CINCH_PACK_ROOTED;
    }
}

/* What cuts prove of the operation. */
static cinchResult_t find_cut(const cinch_graph *graph, const cinch_plan *plan, double *cut) {
    cinch_bounds bounds;
    CINCH_TRY(cinch_bounds_find(graph, plan->root < 0 ? 0 : plan->root, &bounds));
    const double bound[] = {bounds.allreduce, bounds.allgather, bounds.reducescatter,
                            bounds.broadcast, bounds.reduce};
    *cut = bound[plan->op];
    return cinchSuccess;
}

/* Packs and converts, exactly or by growing. */
static cinchResult_t make_one(const cinch_pack_net *net, const cinch_plan_options *options,
                              bool reversed, double cut, bool exact, cinch_plan *plan) {
    cinch_pack pack;
    cinchResult_t result = cinch_pack_make(net, mode_of(net, plan->op), plan->root, &pack);
    pack.cut = cut;
    if (result == cinchSuccess)
        result = exact ? pack_exactly(&pack, options) : pack_grown(&pack, options);
    if (result == cinchSuccess) result = convert(&pack, reversed, plan);
    cinch_pack_free(&pack);
    if (result == cinchSuccess) count_hops(plan);
    return result;
}

/* Whether a is the plan to take: within the hops that are asked for, then by bandwidth. */
static bool better(const cinch_plan *a, const cinch_plan *b, int most_hops) {
    bool near = most_hops < 1 || a->hops <= most_hops;
    bool other_near = most_hops < 1 || b->hops <= most_hops;
    if (near != other_near) return near;
    return near ? a->algbw > b->algbw : a->hops < b->hops;
}

static cinchResult_t make_forest(const cinch_graph *graph, const cinch_pack_net *net,
                                 const cinch_plan_options *options, bool reversed,
                                 cinch_plan *plan) {
    bool all = plan->op == CINCH_PLAN_ALLGATHER || plan->op == CINCH_PLAN_REDUCESCATTER;
    int rows = net->symmetric && plan->op == CINCH_PLAN_ALLREDUCE ? net->arcs / 2 : net->arcs;
    cinch_plan grown = *plan;
    double cut;
    CINCH_TRY(find_cut(graph, plan, &cut));
    /* How large a program is solved in a second. */
    bool exact = rows + (all ? net->ranks : 1) <= (all ? 300 : 640);
    cinch_plan_options first = *options;
    /* Flat trees first: many an all-reduce of a large machine loses nothing by them. */
    bool flat =
        !exact && plan->op == CINCH_PLAN_ALLREDUCE && options->most_hops < 1 && net->ranks > FLAT;
    if (flat) first.most_hops = FLAT;
    CINCH_TRY(make_one(net, &first, reversed, cut, exact, plan));
    bool near = options->most_hops < 1 || plan->hops <= options->most_hops;
    if ((!exact && !flat) || (near && plan->algbw >= GOOD * plan->bound)) return cinchSuccess;
    cinchResult_t result = make_one(net, options, reversed, cut, false, &grown);
    if (plan->bound < grown.bound) grown.bound = plan->bound;
    if (result == cinchSuccess && better(&grown, plan, options->most_hops)) {
        cinch_plan other = *plan;
        *plan = grown;
        grown = other;
    }
    cinch_plan_free(&grown);
    return result;
}

/* One rank: a tree without edges, and nothing that takes time. */
static cinchResult_t make_alone(const cinch_pack_net *net, cinch_plan *plan) {
    cinch_pack_half half = {0};
    plan->tree = calloc(1, sizeof *plan->tree);
    if (!plan->tree) return cinch_fail(cinchSystemError, "out of memory for a plan");
    plan->trees = 1;
    plan->tree->weight = 1;
    CINCH_TRY(cinch_pack_half_make(1, 0, &half));
    half.parent[0] = -1;
    half.first[0] = half.first[1] = 0;
    cinchResult_t result = cinchSuccess;
    if (plan->op != CINCH_PLAN_REDUCE && plan->op != CINCH_PLAN_REDUCESCATTER)
        result = convert_half(net, &half, false, &plan->tree->down);
    if (result == cinchSuccess && plan->op != CINCH_PLAN_BROADCAST &&
        plan->op != CINCH_PLAN_ALLGATHER)
        result = convert_half(net, &half, false, &plan->tree->up);
    cinch_pack_half_free(&half);
    return result;
}

static cinchResult_t check_arguments(cinch_plan_op op, int root, cinch_plan_kind kind, int ranks) {
    bool rooted = op == CINCH_PLAN_BROADCAST || op == CINCH_PLAN_REDUCE;
    if ((unsigned)op > CINCH_PLAN_REDUCE)
        return cinch_fail(cinchInvalidArgument, "%d is no operation that can be planned", (int)op);
    if ((unsigned)kind > CINCH_PLAN_DOUBLE_TREE)
        return cinch_fail(cinchInvalidArgument, "%d is no kind of plan", (int)kind);
    if (rooted && (root < 0 || root >= ranks))
        return cinch_fail(cinchInvalidArgument, "the root %d is none of the ranks 0 to %d", root,
                          ranks - 1);
    if (kind == CINCH_PLAN_DOUBLE_TREE && op != CINCH_PLAN_ALLREDUCE)
        return cinch_fail(cinchInvalidArgument,
                          "a double tree serves allreduce, not %s: forest, ring and rings do",
                          cinch_plan_op_name(op));
    return cinchSuccess;
}

cinchResult_t cinch_plan_make(const cinch_graph *graph, cinch_plan_op op, int root,
                              const cinch_plan_options *options, cinch_plan *plan) {
    static const cinch_plan_options defaults;
    if (!options) options = &defaults;
    bool rooted = op == CINCH_PLAN_BROADCAST || op == CINCH_PLAN_REDUCE;
    bool reversed = options->kind == CINCH_PLAN_FOREST &&
                    (op == CINCH_PLAN_REDUCE || op == CINCH_PLAN_REDUCESCATTER);
    cinch_pack_net net;
    *plan = (cinch_plan){.op = op, .kind = options->kind, .root = rooted ? root : -1};
    cinchResult_t result = cinch_pack_net_make(graph, reversed, &net);
    if (result == cinchSuccess) result = check_arguments(op, root, options->kind, net.ranks);
    plan->ranks = net.ranks;
    if (result == cinchSuccess && net.shares && options->kind != CINCH_PLAN_FOREST)
        result = cinch_fail(cinchInvalidArgument,
                            "arcs of the graph share links, which only forests are planned for");
    if (result != cinchSuccess)
        ;
    else if (net.ranks == 1)
        result = make_alone(&net, plan);
    else if (options->kind == CINCH_PLAN_FOREST)
        result = make_forest(graph, &net, options, reversed, plan);
    else if (options->kind == CINCH_PLAN_DOUBLE_TREE)
        result = cinch_pack_double_tree(graph, &net, plan);
    else
        result = cinch_pack_rings(&net,
                                  options->kind == CINCH_PLAN_RING ? 1
                                  : options->most_trees > 0        ? options->most_trees
                                                                   : 8,
                                  plan);
    if (result == cinchSuccess) count_hops(plan);
    cinch_pack_net_free(&net);
    if (result != cinchSuccess) cinch_plan_free(plan);
    return result;
}

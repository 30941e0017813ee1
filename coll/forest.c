/* SPDX-License-Identifier: Apache-2.0 */
/* From a plan's weights to parts of a message. */
#include "coll/forest.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_PARTS = 512 };
static const double ENOUGH = 0.99; /* of the plan's bandwidth */

static const cinch_collective collectives[] = {[CINCH_PLAN_ALLREDUCE] = CINCH_ALLREDUCE,
                                               [CINCH_PLAN_ALLGATHER] = CINCH_ALLGATHER,
                                               [CINCH_PLAN_REDUCESCATTER] = CINCH_REDUCESCATTER,
                                               [CINCH_PLAN_BROADCAST] = CINCH_BROADCAST,
                                               [CINCH_PLAN_REDUCE] = CINCH_REDUCE};

/* What is worked with: a share is the trees that carry one block, or the whole message. */
typedef struct parting {
    const cinch_graph *graph;
    const cinch_plan *plan;
    int shares;
    double *weight;    /* [shares] of the trees in it together */
    int *used;         /* [shares] parts given away so far */
    double *load;      /* [arcs] */
    int *arc;          /* that trees use, tree after tree, one entry for each use */
    size_t *first;     /* [trees + 1] into arc */
    int *parts, *best; /* [trees] */
} parting;

static bool rooted_everywhere(const cinch_plan *plan) {
    return plan->op == CINCH_PLAN_ALLGATHER || plan->op == CINCH_PLAN_REDUCESCATTER;
}
static int share_of(const parting *p, int tree) {
    return p->shares > 1 ? p->plan->tree[tree].root : 0;
}

/* The largest remainders get what rounding down leaves; among equals the first tree. */
static void round_weights(parting *p, int parts) {
    const cinch_plan *plan = p->plan;
    memset(p->used, 0, (size_t)p->shares * sizeof *p->used);
    for (int t = 0; t < plan->trees; t++) {
        int share = share_of(p, t);
        p->parts[t] = (int)(plan->tree[t].weight / p->weight[share] * parts + 1e-9);
        p->used[share] += p->parts[t];
    }
    for (bool left = true; left;) {
        left = false;
        for (int share = 0; share < p->shares; share++) {
            if (p->used[share] >= parts) continue;
            int largest = -1;
            double most = 0;
            for (int t = 0; t < plan->trees; t++) {
                double rest = plan->tree[t].weight / p->weight[share] * parts - p->parts[t];
                if (share_of(p, t) == share && (largest < 0 || rest > most + 1e-9))
                    largest = t, most = rest;
            }
            p->parts[largest]++;
            left |= ++p->used[share] < parts;
        }
    }
}

static size_t list_arcs(const parting *p, const cinch_plan_half *half, int *arc) {
    size_t count = 0;
    for (int r = 0; half->parent && r < p->plan->ranks; r++)
        for (int i = half->first[r]; i + 1 < half->first[r + 1]; i++, count++)
            if (arc) arc[count] = cinch_graph_find_arc(p->graph, half->path[i], half->path[i + 1]);
    return count;
}

/* Once, as many numbers of parts are tried. */
static bool list_all_arcs(parting *p) {
    const cinch_plan *plan = p->plan;
    size_t used = 0;
    p->first = calloc((size_t)plan->trees + 1, sizeof *p->first);
    for (int t = 0; p->first && t < plan->trees; t++)
        p->first[t + 1] = p->first[t] + list_arcs(p, &plan->tree[t].up, NULL) +
                          list_arcs(p, &plan->tree[t].down, NULL);
    p->arc = p->first ? calloc(p->first[plan->trees] + 1, sizeof *p->arc) : NULL;
    for (int t = 0; p->arc && t < plan->trees; t++) {
        used += list_arcs(p, &plan->tree[t].up, p->arc + used);
        used += list_arcs(p, &plan->tree[t].down, p->arc + used);
    }
    return p->arc;
}

/* GB/s that the trees reach with so many parts each. */
static double bandwidth(parting *p, int parts) {
    double fullest = 0;
    memset(p->load, 0, (size_t)p->graph->arcs * sizeof *p->load);
    for (int t = 0; t < p->plan->trees; t++)
        for (size_t i = p->first[t]; i < p->first[t + 1]; i++)
            p->load[p->arc[i]] += (double)p->parts[t] / parts / p->shares;
    for (int i = 0; i < p->graph->arcs; i++)
        if (p->load[i] / p->graph->arc[i].gbps > fullest)
            fullest = p->load[i] / p->graph->arc[i].gbps;
    return fullest > 0 ? 1 / fullest : 0;
}

/* Returns how many; which tree gets how many is in p->best. */
static int choose_parts(parting *p, double *algbw) {
    int chosen = 0, trees = p->plan->trees;
    int least = (trees + p->shares - 1) / p->shares / 4 + 1;
    *algbw = 0;
    for (int parts = least; parts <= MOST_PARTS; parts++) {
        round_weights(p, parts);
        double reached = bandwidth(p, parts);
        if (chosen && reached <= *algbw) continue;
        *algbw = reached;
        chosen = parts;
        memcpy(p->best, p->parts, (size_t)trees * sizeof *p->best);
        if (reached >= ENOUGH * p->plan->algbw) break;
    }
    return chosen;
}

static bool copy_half(cinch_forest_half *to, const cinch_plan_half *from, int ranks, bool up) {
    if (!from->parent) return true;
    size_t bytes = (size_t)ranks * sizeof *to->parent;
    to->parent = malloc(bytes);
    to->level = calloc(1, bytes);
    if (!to->parent || !to->level) return false;
    memcpy(to->parent, from->parent, bytes);
    for (int r = 0; r < ranks; r++) {
        int steps = 0;
        for (int q = to->parent[r]; q >= 0; q = to->parent[q]) {
            steps++;
            if (up && to->level[q] < steps) to->level[q] = steps;
        }
        if (!up) to->level[r] = steps;
    }
    return true;
}

static int steps_of(const cinch_forest_tree *t, int ranks) {
    int deepest = 0;
    for (int r = 0; t->down.parent && r < ranks; r++)
        if (t->down.level[r] > deepest) deepest = t->down.level[r];
    return deepest + (t->up.parent ? t->up.level[t->root] : 0);
}

/* Trees without a part are left out. */
static bool fill(const parting *p, cinch_forest *f) {
    int *next = p->used; /* first part that is not given away yet, by share */
    memset(next, 0, (size_t)p->shares * sizeof *next);
    for (int i = 0; i < p->plan->trees; i++) {
        const cinch_plan_tree *from = &p->plan->tree[i];
        if (!p->best[i]) continue;
        cinch_forest_tree *t = &f->tree[f->trees++];
        *t = (cinch_forest_tree){
            .root = from->root, .first = next[share_of(p, i)], .parts = p->best[i]};
        next[share_of(p, i)] += t->parts;
        if (!copy_half(&t->up, &from->up, f->ranks, true) ||
            !copy_half(&t->down, &from->down, f->ranks, false))
            return false;
        int steps = steps_of(t, f->ranks);
        if (steps > f->steps) f->steps = steps;
    }
    return true;
}

static bool part_with(parting *p, cinch_forest *f) {
    const cinch_plan *plan = p->plan;
    size_t trees = (size_t)plan->trees;
    p->shares = rooted_everywhere(plan) ? plan->ranks : 1;
    p->weight = calloc((size_t)p->shares, sizeof *p->weight);
    p->used = calloc((size_t)p->shares, sizeof *p->used);
    p->load = calloc((size_t)p->graph->arcs + 1, sizeof *p->load);
    p->parts = calloc(trees, sizeof *p->parts);
    p->best = calloc(trees, sizeof *p->best);
    f->tree = calloc(trees, sizeof *f->tree);
    if (!p->weight || !p->used || !p->load || !p->parts || !p->best || !f->tree ||
        !list_all_arcs(p))
        return false;
    for (int t = 0; t < plan->trees; t++) p->weight[share_of(p, t)] += plan->tree[t].weight;
    f->parts = choose_parts(p, &f->algbw);
    return fill(p, f);
}

cinchResult_t cinch_forest_make(const cinch_graph *graph, const cinch_plan *plan,
                                cinch_forest *forest) {
    if (plan->kind == CINCH_PLAN_RING || plan->kind == CINCH_PLAN_RINGS)
        return cinch_fail(cinchInvalidArgument,
                          "a plan of kind %s has no trees to run: forest and "
                          "double_tree have",
                          cinch_plan_kind_name(plan->kind));
    *forest = (cinch_forest){
        .collective = collectives[plan->op], .ranks = plan->ranks, .root = plan->root};
    parting p = {.graph = graph, .plan = plan};
    bool good = part_with(&p, forest);
    free(p.weight);
    free(p.used);
    free(p.load);
    free(p.arc);
    free(p.first);
    free(p.parts);
    free(p.best);
    if (good) return cinchSuccess;
    cinch_forest_free(forest);
    return cinch_fail(cinchSystemError, "out of memory for a forest of %d trees", plan->trees);
}

void cinch_forest_free(cinch_forest *forest) {
    for (int t = 0; t < forest->trees; t++) {
        cinch_forest_half *half[2] = {&forest->tree[t].up, &forest->tree[t].down};
        for (int i = 0; i < 2; i++) {
            free(half[i]->parent);
            free(half[i]->level);
        }
    }
    free(forest->tree);
    *forest = (cinch_forest){0};
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Prints a plan's trees: a chain goes on to the right, further children stand below. */
#include "perf/topo_trees.h"

#include <stdlib.h>
#include <string.h>

enum { SHOWN_MOST = 16, RANKS_MOST = 32, LINE_ROOM = 16 * RANKS_MOST };

typedef struct weighted {
    double weight;
    int tree;
} weighted;

static int compare_weights(const void *x, const void *y) {
    const weighted *p = x, *q = y;
    if (p->weight != q->weight) return p->weight > q->weight ? -1 : 1;
    return (p->tree > q->tree) - (p->tree < q->tree);
}

cinchResult_t cinch_trees_by_weight(const cinch_plan *plan, int **order) {
    weighted *sorted = malloc(sizeof *sorted * (size_t)(plan->trees + 1));
    *order = malloc(sizeof **order * (size_t)(plan->trees + 1));
    if (!sorted || !*order) {
        free(sorted);
        free(*order);
        *order = NULL;
        return cinch_fail(cinchSystemError, "out of memory for showing %d trees", plan->trees);
    }
    for (int i = 0; i < plan->trees; i++) sorted[i] = (weighted){plan->tree[i].weight, i};
    qsort(sorted, (size_t)plan->trees, sizeof *sorted, compare_weights);
    for (int i = 0; i < plan->trees; i++) (*order)[i] = sorted[i].tree;
    free(sorted);
    return cinchSuccess;
}

bool cinch_trees_is_ring(const cinch_plan *plan) {
    return plan->kind == CINCH_PLAN_RING || plan->kind == CINCH_PLAN_RINGS;
}

const cinch_plan_half *cinch_trees_main(const cinch_plan_tree *tree) {
    return tree->down.parent ? &tree->down : &tree->up;
}

bool cinch_trees_mirrored(const cinch_plan *plan, const cinch_plan_tree *tree) {
    return tree->up.parent && tree->down.parent &&
           !memcmp(tree->up.parent, tree->down.parent, sizeof(int) * (size_t)plan->ranks);
}

const char *cinch_trees_directions(const cinch_plan *plan, const cinch_plan_tree *tree) {
    if (cinch_trees_is_ring(plan)) return "";
    if (cinch_trees_mirrored(plan, tree)) return "up and down";
    return tree->down.parent ? "down" : "up";
}

typedef struct drawing {
    FILE *f;
    int ranks, root;
    const int *parent;
    char line[LINE_ROOM]; /* what stands left of a further child: bars and spaces */
} drawing;

static int child_after(const drawing *d, int of, int after) {
    for (int r = after + 1; r < d->ranks; r++)
        if (d->parent[r] == of && r != d->root) return r;
    return -1;
}

/* A rank at a column, and all below it. Recursion goes as deep as there are ranks. */
static void draw_rank(drawing *d, int rank, int column) {
    int used = fprintf(d->f, "%d", rank);
    int child = child_after(d, rank, -1);
    for (bool first = true; child >= 0; first = false) {
        int following = child_after(d, rank, child);
        if (!first) fprintf(d->f, "\n%.*s%s", column, d->line, following >= 0 ? "+" : "`");
        int from = first ? column + used : column + 1;
        int dashes = column + used + 1 - from;
        if (first) fputc(' ', d->f), from++, dashes = 0;
        for (int i = 0; i < dashes; i++) fputc('-', d->f);
        fputs("-- ", d->f);
        from += dashes + 3;
        for (int i = column; i < from; i++) d->line[i] = ' ';
        if (following >= 0) d->line[column] = '|';
        draw_rank(d, child, from);
        child = following;
    }
}

static void draw_tree(FILE *f, const cinch_plan *plan, int root, const int *parent,
                      const char *label) {
    drawing d = {.f = f, .ranks = plan->ranks, .root = root, .parent = parent};
    int column = fprintf(f, "  %s", label);
    memset(d.line, ' ', sizeof d.line);
    draw_rank(&d, root, column);
    fputc('\n', f);
}

static void draw_ring(FILE *f, const cinch_plan *plan, const cinch_plan_tree *tree,
                      const char *label) {
    const int *parent = cinch_trees_main(tree)->parent;
    int at = tree->root;
    fprintf(f, "  %s", label);
    for (int i = 0; i < plan->ranks; i++) {
        int next = tree->root;
        fprintf(f, "%d -> ", at);
        for (int r = 0; r < plan->ranks; r++)
            if (parent[r] == at) next = r;
        at = next;
    }
    fprintf(f, "%d\n", tree->root);
}

static void tree_text(FILE *f, const cinch_plan *plan, const cinch_plan_tree *tree) {
    char label[64];
    double percent = 100 * tree->weight;
    const cinch_plan_half *half = cinch_trees_main(tree);
    if (cinch_trees_is_ring(plan)) {
        snprintf(label, sizeof label, "%5.1f %%  ", percent);
        draw_ring(f, plan, tree, label);
    } else {
        const char *directions = cinch_trees_directions(plan, tree);
        snprintf(label, sizeof label, "%5.1f %%  %s  ", percent, directions);
        draw_tree(f, plan, tree->root, half->parent, label);
        if (half == &tree->down && tree->up.parent && !cinch_trees_mirrored(plan, tree))
            draw_tree(f, plan, tree->root, tree->up.parent, "         up    ");
    }
}

cinchResult_t cinch_trees_text(FILE *f, const cinch_plan *plan) {
    int *order;
    double rest = 0;
    if (plan->ranks > RANKS_MOST) {
        fprintf(f, "  more than %d ranks are not drawn as text\n", RANKS_MOST);
        return cinchSuccess;
    }
    CINCH_TRY(cinch_trees_by_weight(plan, &order));
    for (int i = 0; i < plan->trees; i++) {
        if (i < SHOWN_MOST)
            tree_text(f, plan, &plan->tree[order[i]]);
        else
            rest += plan->tree[order[i]].weight;
    }
    if (plan->trees > SHOWN_MOST)
        fprintf(f, "  %5.1f %%  on %d more, each lighter or as light\n", 100 * rest,
                plan->trees - SHOWN_MOST);
    free(order);
    return cinchSuccess;
}

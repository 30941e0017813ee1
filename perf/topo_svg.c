/* SPDX-License-Identifier: Apache-2.0 */
/* Lays out the page: title, machine, legend, then a panel for each tree with the machine behind it
 * in grey. A panel each, because sixteen ranks' trees over one another cannot be told apart. */
#include "perf/topo_svg.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "perf/topo_draw.h"
#include "perf/topo_layout.h"
#include "perf/topo_trees.h"

enum { PANELS_MOST = 16, PANELS_WIDE_MOST = 4, TREE_COLOURS = 8 };

static const double PAGE = 16, HEAD = 30, LEAST_WIDTH = 620, WIDE = 1600, PANEL_HEAD = 22,
                    PANEL_GAP = 14, DISC = 9;

/* Dark enough on white; as different as eight can be, also to most colour-blind eyes. */
static const char *const tree_colours[TREE_COLOURS] = {"#0072b2", "#d55e00", "#007a5a", "#b5447f",
                                                       "#8a6d00", "#5b3fa0", "#a3162a", "#333333"};

typedef struct page {
    FILE *f;
    const cinch_view *view;
    const cinch_layout *layout;
    const cinch_draw_scale *scale;
    const cinch_plan *plan;
    int columns, panels;
    double width, height, panel_scale, panel_width, panel_height, radius;
} page;

static double mid_x(const cinch_box *b) {
    return b->x + b->w / 2;
}

static double mid_y(const cinch_box *b) {
    return b->y + b->h / 2;
}

/* How far up (< 0) or down an edge's curve goes: towards the farthest part that it runs through;
 * long edges farther than short ones, so that they nest. */
static double edge_reach(const page *p, const int *path, int nodes) {
    const cinch_box *box = p->layout->box, *from = &box[path[0]], *to = &box[path[nodes - 1]];
    double distance = fabs(mid_x(from) - mid_x(to)), far = 0;
    for (int i = 1; i + 1 < nodes; i++) {
        double y = mid_y(&box[path[i]]) - mid_y(from);
        if (fabs(y) > fabs(far)) far = y;
    }
    if (far == 0) return fmin(14 + 0.2 * distance, 170) + from->h / 2;
    /* Beyond what is near and below, as an NV switch is, the curves of long edges go on a little.
     */
    double nested = fabs(far) * (0.4 + 0.6 * fmin(1, distance / (0.6 * p->layout->width)));
    return far < 0 ? -nested : fmax(nested, fmin(26 + 0.16 * distance, far + 36));
}

static void draw_edge(const page *p, cinch_draw_at at, const int *path, int nodes, double aside,
                      const char *dash, int colour) {
    const cinch_box *a = &p->layout->box[path[0]], *b = &p->layout->box[path[nodes - 1]];
    double reach = at.scale * edge_reach(p, path, nodes), side = reach < 0 ? -1 : 1;
    double x0 = at.x + at.scale * mid_x(a) + aside, x1 = at.x + at.scale * mid_x(b) + aside;
    double y = at.y + at.scale * mid_y(a) + side * p->radius;
    double y1 = at.y + at.scale * mid_y(b) + side * p->radius;
    double bend = fmax(fabs(reach) - p->radius, 5) * side * 4 / 3;
    fprintf(p->f,
            "<path fill=\"none\" stroke=\"%s\" stroke-width=\"1.8\"%s "
            "marker-end=\"url(#t%d)\" d=\"M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f\"><title>",
            tree_colours[colour], dash, colour, x0, y, x0, y + bend, x1, y1 + bend, x1, y1);
    for (int i = 0; i < nodes; i++) {
        if (i) fputs(" - ", p->f);
        cinch_draw_text(p->f, p->view->graph->node[path[i]].name, 255);
    }
    fputs("</title></path>\n", p->f);
}

static void draw_half(const page *p, cinch_draw_at at, const cinch_plan_half *half, double aside,
                      const char *dash, int colour) {
    for (int r = 0; r < p->plan->ranks; r++) {
        int nodes = half->first[r + 1] - half->first[r];
        if (nodes >= 2) draw_edge(p, at, half->path + half->first[r], nodes, aside, dash, colour);
    }
}

static void draw_discs(const page *p, cinch_draw_at at, int root, int colour) {
    for (int i = 0; i < p->view->graph->nodes; i++) {
        const cinch_box *b = &p->layout->box[i];
        double x = at.x + at.scale * mid_x(b), y = at.y + at.scale * mid_y(b);
        if (p->view->rank[i] < 0) continue;
        bool is_root = p->view->rank[i] == root;
        fprintf(p->f,
                "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" stroke=\"%s\" "
                "stroke-width=\"1.3\" fill=\"%s\"/>"
                "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%.1f\" text-anchor=\"middle\" "
                "fill=\"%s\">%d</text>\n",
                x, y, p->radius, tree_colours[colour], is_root ? tree_colours[colour] : "#fff", x,
                y + 0.4 * p->radius, 1.15 * p->radius, is_root ? "#fff" : "#111", p->view->rank[i]);
    }
}

static void draw_panel(const page *p, int number, const cinch_plan_tree *tree, double x, double y) {
    bool ring = cinch_trees_is_ring(p->plan), mirrored = cinch_trees_mirrored(p->plan, tree);
    const cinch_plan_half *half = cinch_trees_main(tree);
    int colour = number % TREE_COLOURS;
    cinch_draw_at at = {x, y + PANEL_HEAD, p->panel_scale};
    fprintf(p->f,
            "<text x=\"%.1f\" y=\"%.1f\" font-size=\"12\" font-weight=\"bold\" fill=\"%s\">"
            "%s %d: %.3g %%</text><text x=\"%.1f\" y=\"%.1f\" font-size=\"11\">",
            x + 8, y + 15, tree_colours[colour], ring ? "ring" : "tree", number + 1,
            100 * tree->weight, x + 126, y + 15);
    if (!ring) fprintf(p->f, "root %d, %s", tree->root, cinch_trees_directions(p->plan, tree));
    if (!ring && half == &tree->down && tree->up.parent && !mirrored)
        fputs(" solid, up dashed", p->f);
    fputs("</text>\n", p->f);
    cinch_draw_ground(p->f, p->view, p->layout, at);
    draw_half(p, at, half, 0, "", colour);
    if (!mirrored && half == &tree->down && tree->up.parent)
        draw_half(p, at, &tree->up, 3, " stroke-dasharray=\"4 2.5\"", colour);
    draw_discs(p, at, ring ? -1 : tree->root, colour);
}

static void draw_panels(const page *p, const int *order, double y) {
    double rest = 0;
    for (int i = 0; i < p->panels; i++)
        draw_panel(p, i, &p->plan->tree[order[i]],
                   PAGE + i % p->columns * (p->panel_width + PANEL_GAP),
                   y + i / p->columns * (p->panel_height + PANEL_GAP));
    for (int i = p->panels; i < p->plan->trees; i++) rest += p->plan->tree[order[i]].weight;
    int rows = (p->panels + p->columns - 1) / p->columns;
    if (p->panels < p->plan->trees)
        fprintf(p->f,
                "<text x=\"%.1f\" y=\"%.1f\" font-size=\"11\">and %d more, each as light or "
                "lighter, with %.3g %% of the message</text>\n",
                PAGE, y + rows * (p->panel_height + PANEL_GAP) + 8, p->plan->trees - p->panels,
                100 * rest);
}

/* Panels in two columns, or as many as fit of a small machine. */
static void size_panels(page *p) {
    double room = p->width - 2 * PAGE, nearest = INFINITY;
    bool wide = p->layout->width > WIDE;
    int most = wide ? PANELS_WIDE_MOST : PANELS_MOST;
    p->panels = p->plan->trees < most ? p->plan->trees : most;
    p->columns = wide ? 1 : (int)fmax(2, floor(room / fmax(180, 0.6 * p->layout->width)));
    if (p->columns > p->panels && p->panels > 0) p->columns = p->panels;
    p->panel_scale =
        fmin(0.85, (room - (p->columns - 1) * PANEL_GAP) / p->columns / p->layout->width);
    p->panel_width = (room - (p->columns - 1) * PANEL_GAP) / p->columns;
    p->panel_height = PANEL_HEAD + p->panel_scale * p->layout->height;
    for (int i = 0; i < p->view->graph->nodes; i++)
        if (p->view->rank[i] >= 0) nearest = fmin(nearest, p->layout->box[i].w + 10);
    p->radius = fmin(DISC, 0.45 * nearest * p->panel_scale);
}

static void draw_page(page *p, const cinch_svg_page *text, const int *order) {
    double top = HEAD, machine_x = fmax(0, (p->width - p->layout->width) / 2);
    double legend_y = top + p->layout->height + 4, y;
    FILE *f = p->f;
    double legend =
        cinch_draw_legend(NULL, p->view, p->scale, PAGE + 4, legend_y, p->width - 2 * PAGE);
    p->height = legend_y + legend + PAGE;
    if (p->plan) {
        size_panels(p);
        p->height += HEAD +
                     (p->panels + p->columns - 1) / p->columns * (p->panel_height + PANEL_GAP) +
                     2 * PAGE;
    }
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
            "height=\"%.0f\" font-family=\"sans-serif\" font-size=\"12\">\n",
            p->width, p->height, p->width, p->height);
    cinch_draw_style(f, p->scale);
    for (int i = 0; i < TREE_COLOURS && p->plan; i++)
        fprintf(f,
                "<marker id=\"t%d\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" "
                "markerHeight=\"7\" markerUnits=\"userSpaceOnUse\" orient=\"auto\">"
                "<path d=\"M0 0L10 5L0 10z\" fill=\"%s\"/></marker>\n",
                i, tree_colours[i]);
    fputs("<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n", f);
    fprintf(f, "<text x=\"%.0f\" y=\"%.0f\" font-size=\"16\">", PAGE, PAGE + 14);
    cinch_draw_text(f, text->title, 200);
    fputs("</text>\n", f);
    cinch_draw_machine(f, p->view, p->layout, p->scale, (cinch_draw_at){machine_x, top, 1});
    y = legend_y + cinch_draw_legend(f, p->view, p->scale, PAGE + 4, legend_y, p->width - 2 * PAGE);
    if (p->plan) {
        fprintf(f, "<text x=\"%.0f\" y=\"%.1f\" font-size=\"14\">", PAGE, y + 24);
        cinch_draw_text(f, text->subtitle, 300);
        fputs("</text>\n", f);
        draw_panels(p, order, y + 24 + PANEL_GAP);
    }
    fputs("</svg>\n", f);
}

cinchResult_t cinch_svg_write(const char *path, const cinch_view *view,
                              const cinch_svg_page *text) {
    cinch_layout layout;
    cinch_draw_scale scale;
    int *order = NULL;
    page p = {.view = view, .layout = &layout, .scale = &scale, .plan = text->plan};
    CINCH_TRY(cinch_draw_scale_make(&scale, view));
    CINCH_TRY(cinch_layout_make(&layout, view));
    p.width = fmax(layout.width, LEAST_WIDTH);
    p.width = fmax(p.width, 2 * PAGE + 9.2 * (double)strlen(text->title));
    if (text->subtitle) p.width = fmax(p.width, 2 * PAGE + 7.6 * (double)strlen(text->subtitle));
    cinchResult_t result = cinchSuccess;
    if (text->plan) result = cinch_trees_by_weight(text->plan, &order);
    if (result == cinchSuccess) {
        p.f = fopen(path, "we");
        if (p.f) draw_page(&p, text, order);
        bool bad = !p.f || ferror(p.f);
        if (p.f && fclose(p.f) != 0) bad = true;
        if (bad) result = cinch_fail_errno(errno, "cannot write the picture %s", path);
    }
    free(order);
    cinch_layout_free(&layout);
    return result;
}

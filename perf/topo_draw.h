/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's drawing, and what the drawing of a plan shares with it. */
#ifndef CINCH_PERF_TOPO_DRAW_H_
#define CINCH_PERF_TOPO_DRAW_H_

#include <stdbool.h>
#include <stdio.h>

#include "perf/topo_layout.h"
#include "perf/topo_view.h"

/* Bandwidths in classes: each value its own where there are few, else ranges on a log scale. A
 * faster class is darker and wider, so that it reads in grey too. */
enum { CINCH_DRAW_CLASSES = 6 };
typedef struct cinch_draw_scale {
    double low[CINCH_DRAW_CLASSES], high[CINCH_DRAW_CLASSES]; /* of the values in it */
    int classes;
} cinch_draw_scale;

/* Where the layout lands on the page. */
typedef struct cinch_draw_at {
    double x, y, scale;
} cinch_draw_at;

cinchResult_t cinch_draw_scale_make(cinch_draw_scale *scale, const cinch_view *view);

void cinch_draw_text(FILE *f, const char *text, size_t most); /* escaped; at most so many bytes */

/* The style sheet and arrow heads that the drawings use: inside <svg>, first. */
void cinch_draw_style(FILE *f, const cinch_draw_scale *scale);
void cinch_draw_machine(FILE *f, const cinch_view *view, const cinch_layout *layout,
                        const cinch_draw_scale *scale, cinch_draw_at at);
/* The machine in pale grey, as the ground of a tree, with ranks as discs. */
void cinch_draw_ground(FILE *f, const cinch_view *view, const cinch_layout *layout,
                       cinch_draw_at at);
/* Colours and what they mean; returns its height. f NULL: only that. */
double cinch_draw_legend(FILE *f, const cinch_view *view, const cinch_draw_scale *scale, double x,
                         double y, double width);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Line charts as SVG files. */
#include "perf/plot.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 840, HEIGHT = 500, LEFT = 76, RIGHT = 190, TOP = 44, BOTTOM = 56, TICKS = 8 };

typedef struct axis {
    bool log, bytes;
    double low, high; /* of the values; their logarithms to base 10 or, for bytes, 2 where log */
    double step;      /* between ticks, in the same unit */
} axis;

static const char *const colours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd",
                                      "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f"};
enum { NCOLOURS = sizeof colours / sizeof *colours };

static bool drawable(const axis *a, double v) {
    return isfinite(v) && (!a->log || v > 0);
}

static double scaled(const axis *a, double v) {
    if (!a->log) return v;
    return a->bytes ? log2(v) : log10(v);
}

/* A round step that cuts the span into at most TICKS parts: 1, 2 or 5 times a power of ten. */
static double round_step(double span) {
    double power = pow(10, floor(log10(span / TICKS)));
    static const double factors[] = {1, 2, 5, 10};
    for (int i = 0; i < 4; i++)
        if (span / (factors[i] * power) <= TICKS) return factors[i] * power;
    return 10 * power;
}

static bool has_bound(const cinch_plot *plot) {
    return plot->bound_label && isfinite(plot->bound) && plot->bound > 0;
}

static void axis_fit(axis *a, const cinch_plot *plot, bool is_x) {
    a->low = INFINITY;
    a->high = -INFINITY;
    if (!is_x && has_bound(plot)) a->low = a->high = scaled(a, plot->bound);
    for (size_t s = 0; s < plot->count; s++)
        for (size_t i = 0; i < plot->series[s].count; i++) {
            double v = is_x ? plot->series[s].x[i] : plot->series[s].y[i];
            if (!drawable(a, v)) continue;
            a->low = fmin(a->low, scaled(a, v));
            a->high = fmax(a->high, scaled(a, v));
        }
    if (!(a->low <= a->high)) a->low = 0, a->high = 1;
    if (!is_x && !a->log && a->low > 0 && a->low < a->high / 2) a->low = 0;
    if (a->high - a->low < 1e-12 * (1 + fabs(a->high))) a->low -= 0.5, a->high += 0.5;
    a->step = round_step(a->high - a->low);
    if (a->log) a->step = fmax(1, ceil(a->step));
    if (!is_x) {
        a->low = floor(a->low / a->step) * a->step;
        a->high = ceil(a->high / a->step) * a->step;
    }
}

static double place_x(const axis *a, double v) {
    return LEFT + (scaled(a, v) - a->low) / (a->high - a->low) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const axis *a, double v) {
    return HEIGHT - BOTTOM - (scaled(a, v) - a->low) / (a->high - a->low) * (HEIGHT - TOP - BOTTOM);
}

static void escape(FILE *f, const char *text) {
    for (; text && *text; text++) {
        if (*text == '<')
            fputs("&lt;", f);
        else if (*text == '&')
            fputs("&amp;", f);
        else
            putc(*text, f);
    }
}

static void tick_label(const axis *a, double v, char *text, size_t room) {
    static const char units[] = {'\0', 'K', 'M', 'G', 'T'};
    int unit = 0;
    if (a->bytes)
        for (; unit < 4 && v >= 1024; unit++) v /= 1024;
    snprintf(text, room, fabs(v) < 1e-12 ? "0" : "%.6g%c", v, units[unit]);
}

static void draw_ticks(FILE *f, const axis *a, bool is_x) {
    for (double t = ceil(a->low / a->step - 1e-9) * a->step; t <= a->high + a->step * 1e-9;
         t += a->step) {
        double v = !a->log ? t : a->bytes ? exp2(t) : pow(10, t);
        char label[40];
        tick_label(a, v, label, sizeof label);
        double at = is_x ? place_x(a, v) : place_y(a, v);
        if (is_x)
            fprintf(f,
                    "<line class=\"g\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>"
                    "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
                    at, TOP, at, HEIGHT - BOTTOM, at, HEIGHT - BOTTOM + 18, label);
        else
            fprintf(f,
                    "<line class=\"g\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>"
                    "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                    LEFT, at, WIDTH - RIGHT, at, LEFT - 8, at + 4, label);
    }
}

static void draw_labels(FILE *f, const cinch_plot *plot) {
    int middle = (LEFT + WIDTH - RIGHT) / 2;
    fprintf(f, "<text x=\"%d\" y=\"26\" text-anchor=\"middle\" font-size=\"16\">", middle);
    escape(f, plot->title);
    fprintf(f, "</text>\n<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", middle, HEIGHT - 14);
    escape(f, plot->x_label);
    fprintf(f, "</text>\n<text transform=\"translate(18 %d) rotate(-90)\" text-anchor=\"middle\">",
            (TOP + HEIGHT - BOTTOM) / 2);
    escape(f, plot->y_label);
    fputs("</text>\n", f);
}

static void draw_series(FILE *f, const cinch_plot *plot, size_t s, const axis *x, const axis *y) {
    const cinch_plot_series *series = &plot->series[s];
    const char *colour = colours[s % NCOLOURS];
    const char *dash = s < NCOLOURS ? "" : s / NCOLOURS % 2 ? " stroke-dasharray=\"6 3\"" : "";
    bool pen_down = false;
    fprintf(f, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"1.8\"%s d=\"", colour, dash);
    for (size_t i = 0; i < series->count; i++) {
        bool good = drawable(x, series->x[i]) && drawable(y, series->y[i]);
        if (good)
            fprintf(f, "%c%.1f %.1f", pen_down ? 'L' : 'M', place_x(x, series->x[i]),
                    place_y(y, series->y[i]));
        pen_down = good;
    }
    fputs("\"/>\n", f);
    for (size_t i = 0; i < series->count && series->count <= 40; i++)
        if (drawable(x, series->x[i]) && drawable(y, series->y[i]))
            fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\" fill=\"%s\"/>\n",
                    place_x(x, series->x[i]), place_y(y, series->y[i]), colour);
    int left = WIDTH - RIGHT + 14, top = TOP + 10 + 17 * (int)s;
    if (top > HEIGHT - 10) return; /* the legend is full */
    fprintf(f,
            "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"%s\" stroke-width=\"1.8\"%s/>"
            "<text x=\"%d\" y=\"%d\">",
            left, top, left + 22, top, colour, dash, left + 28, top + 4);
    escape(f, series->label);
    fputs("</text>\n", f);
}

/* Across the whole chart, with its label on the line. */
static void draw_bound(FILE *f, const cinch_plot *plot, const axis *y) {
    double at = place_y(y, plot->bound);
    fprintf(f,
            "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#444\" "
            "stroke-width=\"1.4\" stroke-dasharray=\"8 4\"/><text x=\"%d\" y=\"%.1f\">",
            LEFT, at, WIDTH - RIGHT, at, LEFT + 8, at < TOP + 20 ? at + 15 : at - 5);
    escape(f, plot->bound_label);
    fputs("</text>\n", f);
}

static void draw(FILE *f, const cinch_plot *plot) {
    axis x = {plot->x_log, plot->x_bytes, 0, 0, 0}, y = {plot->y_log, false, 0, 0, 0};
    axis_fit(&x, plot, true);
    axis_fit(&y, plot, false);
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
            "height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n"
            "<style>.g{stroke:#ddd;stroke-width:1}</style>\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT);
    draw_ticks(f, &x, true);
    draw_ticks(f, &y, false);
    fprintf(f,
            "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#444\"/>\n",
            LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    draw_labels(f, plot);
    for (size_t s = 0; s < plot->count; s++) draw_series(f, plot, s, &x, &y);
    if (has_bound(plot)) draw_bound(f, plot, &y);
    fputs("</svg>\n", f);
}

static cinchResult_t cannot_write(const char *path) {
    return cinch_fail_quiet(cinchSystemError, "cannot write the plot %s: %s", path,
                            strerror(errno));
}

cinchResult_t cinch_plot_write(const char *path, const cinch_plot *plot) {
    FILE *f = fopen(path, "we");
    if (!f) return cannot_write(path);
    draw(f, plot);
    int bad = ferror(f);
    if (fclose(f) != 0 || bad) return cannot_write(path);
    return cinchSuccess;
}

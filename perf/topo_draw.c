/* SPDX-License-Identifier: Apache-2.0 */
/* Draws a machine as SVG: frames for hosts, boxes, bars, and links by their bandwidth. */
#include "perf/topo_draw.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "perf/topo_clean.h"

/* Light to dark, evenly in grey as well. */
static const char *const shades[CINCH_DRAW_CLASSES] = {"#9bbf2f", "#4fae6b", "#21918c",
                                                       "#31688e", "#414487", "#440154"};

static const struct {
    cinch_part part;
    const char *style, *fill, *label;
} parts[] = {{CINCH_PART_NET, "net", "#dbe6f6", "network"},
             {CINCH_PART_NIC, "nic", "#fbe0cc", "NIC"},
             {CINCH_PART_CPU, "cpu", "#f4ecc8", "CPU"},
             {CINCH_PART_PCI, "pci", "#e6e6e6", "PCI switch"},
             {CINCH_PART_OTHER, "oth", "#f0f0f0", "switch"},
             {CINCH_PART_NVSWITCH, "nvs", "#d9eedd", "NV switch"}};
enum { PARTS = sizeof parts / sizeof *parts };

static int compare_doubles(const void *x, const void *y) {
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

cinchResult_t cinch_draw_scale_make(cinch_draw_scale *scale, const cinch_view *view) {
    size_t n = 0;
    double *value = malloc(sizeof *value * (2 * (size_t)view->links + 1));
    if (!value)
        return cinch_fail(cinchSystemError, "out of memory for a picture of %d links", view->links);
    for (int i = 0; i < view->links; i++) {
        if (view->link[i].gbps > 0) value[n++] = view->link[i].gbps;
        if (view->link[i].back > 0) value[n++] = view->link[i].back;
    }
    qsort(value, n, sizeof *value, compare_doubles);
    memset(scale, 0, sizeof *scale);
    bool ranges = false;
    for (size_t i = 0; i < n && !ranges; i++) {
        int c = scale->classes;
        if (c && value[i] <= scale->low[c - 1] * 1.01)
            scale->high[c - 1] = value[i];
        else if (c == CINCH_DRAW_CLASSES)
            ranges = true;
        else
            scale->low[c] = scale->high[c] = value[i], scale->classes++;
    }
    if (ranges) {
        double step = (log(value[n - 1]) - log(value[0])) / CINCH_DRAW_CLASSES;
        int last = -1;
        scale->classes = 0;
        for (size_t i = 0; i < n; i++) {
            int bin = (int)((log(value[i]) - log(value[0])) / step);
            if (bin >= CINCH_DRAW_CLASSES) bin = CINCH_DRAW_CLASSES - 1;
            if (bin > last) scale->low[scale->classes++] = value[i], last = bin;
            scale->high[scale->classes - 1] = value[i];
        }
    }
    free(value);
    return cinchSuccess;
}

static int class_of(const cinch_draw_scale *scale, double gbps) {
    int c = 0;
    while (c + 1 < scale->classes && gbps > scale->high[c]) c++;
    return c;
}

static const char *shade_of(const cinch_draw_scale *scale, int c) {
    int n = scale->classes;
    return shades[n < 2 ? 3 : (c * (CINCH_DRAW_CLASSES - 1) + (n - 1) / 2) / (n - 1)];
}

static double width_of(const cinch_draw_scale *scale, int c) {
    return scale->classes < 2 ? 2.5 : 1.4 + 4.0 * c / (scale->classes - 1);
}

void cinch_draw_text(FILE *f, const char *text, size_t most) {
    char clean[1024];
    cinch_topo_clean(text, clean, most + 1 < sizeof clean ? most + 1 : sizeof clean);
    for (const char *c = clean; *c; c++) {
        if (*c == '<')
            fputs("&lt;", f);
        else if (*c == '>')
            fputs("&gt;", f);
        else if (*c == '&')
            fputs("&amp;", f);
        else if (*c == '"')
            fputs("&quot;", f);
        else
            putc(*c, f);
    }
}

void cinch_draw_style(FILE *f, const cinch_draw_scale *scale) {
    fputs("<style>\n.frame{fill:#fff;stroke:#666;stroke-width:1.2}\n"
          ".box{stroke:#333;stroke-width:1}\n.gpu{fill:#fff;stroke:#111;stroke-width:1.6}\n"
          ".name{font-size:8.5px;text-anchor:middle}\n"
          ".rank{font-size:13px;font-weight:bold;text-anchor:middle}\n"
          ".pale{fill:none;stroke:#d4d4d4;stroke-width:1}\n"
          ".ground{fill:#f3f3f3;stroke:#cfcfcf;stroke-width:1}\n"
          ".host{font-size:11px;paint-order:stroke;stroke:#fff;stroke-width:6px;"
          "stroke-linejoin:round}\n",
          f);
    for (int i = 0; i < PARTS; i++) fprintf(f, ".%s{fill:%s}\n", parts[i].style, parts[i].fill);
    for (int c = 0; c < scale->classes; c++)
        fprintf(f, ".w%d{fill:none;stroke:%s;stroke-width:%.1f}\n", c, shade_of(scale, c),
                width_of(scale, c));
    fputs("</style>\n", f);
    for (int c = 0; c < scale->classes; c++)
        fprintf(f,
                "<marker id=\"h%d\" viewBox=\"0 0 10 10\" refX=\"8\" refY=\"5\" markerWidth=\"9\" "
                "markerHeight=\"9\" markerUnits=\"userSpaceOnUse\" orient=\"auto\">"
                "<path d=\"M0 0L10 5L0 10z\" fill=\"%s\"/></marker>\n",
                c, shade_of(scale, c));
}

/* The path of a link, moved aside by so much and from its a to its b or the other way. */
static void wire_path(FILE *f, const cinch_wire *w, cinch_draw_at at, double aside, bool back) {
    double x0 = at.x + at.scale * w->x[back], y0 = at.y + at.scale * w->y[back];
    double x1 = at.x + at.scale * w->x[!back], y1 = at.y + at.scale * w->y[!back];
    double length = hypot(x1 - x0, y1 - y0), bend = at.scale * w->bend * 4 / 3;
    if (w->bend == 0 && length > 0) {
        double dx = -(y1 - y0) / length * aside, dy = (x1 - x0) / length * aside;
        fprintf(f, "M%.1f %.1fL%.1f %.1f", x0 + dx, y0 + dy, x1 + dx, y1 + dy);
        return;
    }
    double out = x0 < x1 ? aside : -aside;
    fprintf(f, "M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f", x0 - out, y0, x0 - out,
            y0 + bend + aside, x1 + out, y1 + bend + aside, x1 + out, y1);
}

static void draw_wire(FILE *f, const cinch_view *v, const cinch_layout *l, int i,
                      const cinch_draw_scale *scale, cinch_draw_at at) {
    const cinch_view_link *link = &v->link[i];
    int c[2] = {class_of(scale, link->gbps), class_of(scale, link->back)};
    bool same = link->gbps > 0 && link->back > 0 && c[0] == c[1];
    fputs("<g>", f);
    for (int back = 0; back < (same ? 1 : 2); back++) {
        if ((back ? link->back : link->gbps) <= 0) continue;
        bool both = link->gbps > 0 && link->back > 0;
        fprintf(f, "<path class=\"w%d\"", c[back]);
        if (!same) fprintf(f, " marker-end=\"url(#h%d)\"", c[back]);
        fputs(" d=\"", f);
        wire_path(f, &l->wire[i], at, both && !same ? 3.5 : 0, back == 1);
        fputs("\"/>", f);
    }
    fputs("<title>", f);
    cinch_draw_text(f, v->graph->node[link->a].name, 255);
    fputs(link->back <= 0 ? " -&gt; " : link->gbps <= 0 ? " &lt;- " : " - ", f);
    cinch_draw_text(f, v->graph->node[link->b].name, 255);
    fprintf(f, ": %.4g GB/s", link->gbps > 0 ? link->gbps : link->back);
    if (link->gbps > 0 && link->back > 0 && link->gbps != link->back)
        fprintf(f, ", back %.4g GB/s", link->back);
    fputs("</title></g>\n", f);
}

static const char *style_of(cinch_part part) {
    for (int i = 0; i < PARTS; i++)
        if (parts[i].part == part) return parts[i].style;
    return "oth";
}

/* The end of a name that does not fit says more than its beginning. */
static void draw_name(FILE *f, const char *name, double x, double y, double room) {
    name = cinch_layout_label(name);
    size_t length = strlen(name), most = (size_t)fmax(room / 5.2, CINCH_LAYOUT_LABEL);
    fprintf(f, "<text class=\"name\" x=\"%.1f\" y=\"%.1f\">", x, y);
    if (length > most) {
        name += length - (most - 2);
        while ((*name & 0xc0) == 0x80) name++;
        fputs("..", f);
    }
    cinch_draw_text(f, name, most);
    fputs("</text>", f);
}

static void draw_node(FILE *f, const cinch_view *v, const cinch_layout *l, int i,
                      cinch_draw_at at) {
    const cinch_box *b = &l->box[i];
    double x = at.x + b->x, y = at.y + b->y;
    bool gpu = v->rank[i] >= 0;
    fprintf(f,
            "<g><rect class=\"%s%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
            "rx=\"%d\"/>",
            gpu ? "gpu" : "box ", gpu ? "" : style_of(v->part[i]), x, y, b->w, b->h, gpu ? 6 : 3);
    if (gpu)
        fprintf(f, "<text class=\"rank\" x=\"%.1f\" y=\"%.1f\">%d</text>", x + b->w / 2, y + 15,
                v->rank[i]);
    draw_name(f, v->graph->node[i].name, x + b->w / 2, y + (gpu ? 26.5 : b->h / 2 + 3), b->w - 8);
    fputs("<title>", f);
    if (gpu) fprintf(f, "rank %d: ", v->rank[i]);
    cinch_draw_text(f, v->graph->node[i].name, 255);
    fputs("</title></g>\n", f);
}

void cinch_draw_machine(FILE *f, const cinch_view *view, const cinch_layout *layout,
                        const cinch_draw_scale *scale, cinch_draw_at at) {
    at.scale = 1;
    for (int h = 0; h < view->hosts; h++) {
        const cinch_box *b = &layout->frame[h];
        fprintf(f,
                "<rect class=\"frame\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
                "rx=\"8\"/>\n",
                at.x + b->x, at.y + b->y, b->w, b->h);
    }
    for (int i = 0; i < view->links; i++) draw_wire(f, view, layout, i, scale, at);
    for (int i = 0; i < view->graph->nodes; i++) draw_node(f, view, layout, i, at);
    for (int h = 0; h < view->hosts; h++)
        fprintf(f, "<text class=\"host\" x=\"%.1f\" y=\"%.1f\">host %d</text>\n",
                at.x + layout->frame[h].x + 8, at.y + layout->frame[h].y + 14, h);
}

void cinch_draw_ground(FILE *f, const cinch_view *view, const cinch_layout *layout,
                       cinch_draw_at at) {
    for (int h = 0; h < view->hosts; h++) {
        const cinch_box *b = &layout->frame[h];
        fprintf(f,
                "<rect class=\"pale\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
                "rx=\"5\"/>\n",
                at.x + at.scale * b->x, at.y + at.scale * b->y, at.scale * b->w, at.scale * b->h);
    }
    fputs("<path class=\"pale\" d=\"", f);
    for (int i = 0; i < view->links; i++) wire_path(f, &layout->wire[i], at, 0, false);
    fputs("\"/>\n", f);
    for (int i = 0; i < view->graph->nodes; i++) {
        const cinch_box *b = &layout->box[i];
        if (view->rank[i] >= 0) continue;
        fprintf(f,
                "<rect class=\"ground\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
                at.x + at.scale * b->x, at.y + at.scale * b->y, at.scale * b->w, at.scale * b->h);
    }
}

double cinch_draw_legend(FILE *f, const cinch_view *view, const cinch_draw_scale *scale, double x,
                         double y, double width) {
    double at = x, line = y + 12;
    for (int c = 0; c < scale->classes; c++) {
        char label[64];
        if (scale->high[c] <= scale->low[c] * 1.01)
            snprintf(label, sizeof label, "%.4g GB/s", scale->high[c]);
        else
            snprintf(label, sizeof label, "%.4g to %.4g GB/s", scale->low[c], scale->high[c]);
        double room = 40 + 6.4 * (double)strlen(label);
        if (at + room > x + width && at > x) at = x, line += 18;
        if (f)
            fprintf(f,
                    "<path class=\"w%d\" d=\"M%.1f %.1fh26\"/><text x=\"%.1f\" y=\"%.1f\" "
                    "font-size=\"11\">%s</text>\n",
                    c, at, line - 4, at + 31, line, label);
        at += room;
    }
    at = x, line += 22;
    for (int i = -1; i < PARTS; i++) {
        const char *label = i < 0 ? "GPU and its rank" : parts[i].label;
        bool there = i < 0;
        for (int n = 0; n < view->graph->nodes && !there; n++)
            there = view->rank[n] < 0 && view->part[n] == parts[i].part;
        if (!there) continue;
        double room = 34 + 6.4 * (double)strlen(label);
        if (at + room > x + width && at > x) at = x, line += 18;
        if (f)
            fprintf(
                f,
                "<rect class=\"%s%s\" x=\"%.1f\" y=\"%.1f\" width=\"18\" height=\"12\" rx=\"3\"/>"
                "<text x=\"%.1f\" y=\"%.1f\" font-size=\"11\">%s</text>\n",
                i < 0 ? "gpu" : "box ", i < 0 ? "" : parts[i].style, at, line - 10, at + 24, line,
                label);
        at += room;
    }
    return line + 6 - y;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Places a machine's parts in rows, then the links between them. */
#include "perf/topo_layout.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Rows from top to bottom. Networks have a row for each step away from the hosts, PCI switches one
 * for each step away from the CPUs. */
enum { NET_LEVELS = 8, PCI_LEVELS = 8 };
enum {
    ROW_NET,
    ROW_NIC = ROW_NET + NET_LEVELS,
    ROW_HUB, /* what joins CPUs only */
    ROW_CPU,
    ROW_PCI,
    ROW_OTHER = ROW_PCI + PCI_LEVELS,
    ROW_GPU,
    ROW_NVSWITCH,
    ROWS
};

static const double MARGIN = 16, PAD = 14, GAP = 10, FRAME_GAP = 22, BAR = 18, BOX = 32;
static const double ROW_SPACE = 26, LANE_SPACE = 12, FRAME_LABEL = 20;

typedef struct plan {
    const cinch_view *view;
    cinch_layout *layout;
    int *row, *lane; /* by node */
    int *list;       /* room for a row's nodes */
    int *queue, *distance;
    double *wish; /* by node: the middle of where it wants to stand; of bars, the left end */
    double *end, *end_wish; /* by lane: its right end; by end of a link: its order along an edge */
    int lanes[ROWS];
    double gpu_width;
    double deepest; /* of the curves between GPUs */
} plan;

void cinch_layout_free(cinch_layout *layout) {
    free(layout->box);
    free(layout->wire);
    free(layout->frame);
    memset(layout, 0, sizeof *layout);
}

static double middle(const cinch_box *b) {
    return b->x + b->w / 2;
}

const char *cinch_layout_label(const char *name) {
    const char *domain = strstr(name, "0000:");
    return domain && domain[5] ? domain + 5 : name;
}

static double label_width(const char *name) {
    size_t length = strlen(cinch_layout_label(name));
    return 5.2 * (double)(length < CINCH_LAYOUT_LABEL ? length : CINCH_LAYOUT_LABEL) + 6;
}

/* A network that only this NIC knows stands over it: the NIC is as wide. */
static double nic_width(const cinch_view *v, int nic) {
    double width = label_width(v->graph->node[nic].name);
    for (int e = v->first[nic]; e < v->first[nic + 1]; e++) {
        int to = v->end[e].node;
        if (v->host[to] < 0 && v->first[to + 1] - v->first[to] == 1)
            width = fmax(width, label_width(v->graph->node[to].name));
    }
    return width;
}

static bool is_bar(const plan *p, int node) {
    return p->row[node] != ROW_GPU && p->row[node] != ROW_NIC;
}

/* Steps from the nodes that stand in the queue with distance 0 through nodes of one part. */
static void spread(plan *p, int queued, cinch_part part) {
    const cinch_view *v = p->view;
    for (int i = 0; i < queued; i++)
        for (int e = v->first[p->queue[i]]; e < v->first[p->queue[i] + 1]; e++) {
            int to = v->end[e].node;
            if (p->distance[to] >= 0 || v->rank[to] >= 0 || v->part[to] != part) continue;
            p->distance[to] = p->distance[p->queue[i]] + 1;
            p->queue[queued++] = to;
        }
}

/* A CPU that joins others, as an I/O die does, and carries nothing itself. */
static bool is_hub(const plan *p, int node) {
    const cinch_view *v = p->view;
    if (p->row[node] != ROW_CPU || v->first[node + 1] - v->first[node] < 2) return false;
    for (int e = v->first[node]; e < v->first[node + 1]; e++)
        if (p->row[v->end[e].node] != ROW_CPU && p->row[v->end[e].node] != ROW_HUB) return false;
    return true;
}

static void choose_rows(plan *p) {
    const cinch_view *v = p->view;
    for (int part = CINCH_PART_NET;; part = CINCH_PART_PCI) {
        int queued = 0, nodes = v->graph->nodes;
        for (int i = 0; i < nodes; i++) {
            bool start = part == CINCH_PART_NET ? v->host[i] >= 0
                                                : v->rank[i] < 0 && v->part[i] == CINCH_PART_CPU;
            p->distance[i] = start ? 0 : -1;
            if (start) p->queue[queued++] = i;
        }
        spread(p, queued, (cinch_part)part);
        for (int i = 0; i < nodes; i++) {
            int d = p->distance[i] < 1 ? 0 : p->distance[i] - 1;
            if (v->rank[i] >= 0)
                p->row[i] = ROW_GPU;
            else if (v->host[i] < 0)
                p->row[i] = part == CINCH_PART_NET
                                ? ROW_NET + NET_LEVELS - 1 - (d < NET_LEVELS ? d : NET_LEVELS - 1)
                                : p->row[i];
            else if (v->part[i] == CINCH_PART_NIC)
                p->row[i] = ROW_NIC;
            else if (v->part[i] == CINCH_PART_CPU)
                p->row[i] = ROW_CPU;
            else if (v->part[i] == CINCH_PART_PCI)
                p->row[i] = ROW_PCI + (d < PCI_LEVELS ? d : PCI_LEVELS - 1);
            else
                p->row[i] = v->part[i] == CINCH_PART_NVSWITCH ? ROW_NVSWITCH : ROW_OTHER;
        }
        if (part == CINCH_PART_PCI) break;
    }
    for (int i = 0; i < v->graph->nodes; i++)
        if (is_hub(p, i)) p->row[i] = ROW_HUB;
}

/* The nearest node of one row, through the host's switches and without NV links; -1: none. */
static int nearest(plan *p, int from, int row) {
    const cinch_view *v = p->view;
    int queued = 1;
    memset(p->distance, -1, sizeof(int) * (size_t)v->graph->nodes);
    p->queue[0] = from;
    p->distance[from] = 0;
    for (int i = 0; i < queued; i++)
        for (int e = v->first[p->queue[i]]; e < v->first[p->queue[i] + 1]; e++) {
            int to = v->end[e].node;
            if (p->distance[to] >= 0 || v->host[to] != v->host[from]) continue;
            if (p->row[to] == row) return to;
            if (!is_bar(p, to) || p->row[to] == ROW_NVSWITCH) continue;
            p->distance[to] = 0;
            p->queue[queued++] = to;
        }
    return -1;
}

static int compare_wishes(const void *x, const void *y, void *wishes) {
    const double *wish = wishes;
    int a = *(const int *)x, b = *(const int *)y;
    if (wish[a] != wish[b]) return wish[a] < wish[b] ? -1 : 1;
    return (a > b) - (a < b);
}

static int row_of_host(plan *p, int row, int host) {
    int n = 0;
    for (int i = 0; i < p->view->graph->nodes; i++)
        if (p->row[i] == row && p->view->host[i] == host) p->list[n++] = i;
    return n;
}

static void sort_list(const plan *p, int n) {
    qsort_r(p->list, (size_t)n, sizeof *p->list, compare_wishes, p->wish);
}

/* GPUs stand in the order of ranks, but those of one CPU side by side, and in there those of one
 * PCI switch: each group at its lowest rank's place. */
static int order_gpus(plan *p, int host) {
    int n = row_of_host(p, ROW_GPU, host), nodes = p->view->graph->nodes;
    for (int i = 0; i < n; i++) {
        int gpu = p->list[i], cpu = nearest(p, gpu, ROW_CPU), above = -1;
        for (int e = p->view->first[gpu]; e < p->view->first[gpu + 1] && above < 0; e++) {
            int to = p->view->end[e].node;
            if (is_bar(p, to) && p->row[to] != ROW_NVSWITCH && p->view->host[to] == host)
                above = to;
        }
        /* The list is in the order of ranks: the first of a group names it. */
        if (cpu >= 0 && p->lane[cpu] < 0) p->lane[cpu] = i;
        if (above >= 0 && above != cpu && p->lane[above] < 0) p->lane[above] = i;
        double group = cpu >= 0 ? p->lane[cpu] : i, inner = above >= 0 ? p->lane[above] : i;
        p->wish[gpu] = (group * nodes + inner) * nodes + i;
    }
    sort_list(p, n);
    return n;
}

/* Boxes of one row: side by side, as near to their wishes as the room from left to right allows.
 * Pushed right and pushed left, where they touch; then the mean of both, set apart again. */
static void place_boxes(plan *p, int n, double left, double right) {
    double at = left;
    sort_list(p, n);
    for (int i = 0; i < n; i++) {
        cinch_box *b = &p->layout->box[p->list[i]];
        b->x = fmax(p->wish[p->list[i]] - b->w / 2, at);
        at = b->x + b->w + GAP;
    }
    at = INFINITY;
    for (int i = n - 1; i >= 0; i--) {
        cinch_box *b = &p->layout->box[p->list[i]];
        double x = fmin(p->wish[p->list[i]] - b->w / 2, at - b->w);
        at = x - GAP;
        b->x = (b->x + x) / 2;
    }
    at = left;
    for (int i = 0; i < n; i++) {
        cinch_box *b = &p->layout->box[p->list[i]];
        b->x = fmax(b->x, at);
        at = b->x + b->w + GAP;
    }
    at = right;
    for (int i = n - 1; i >= 0; i--) {
        cinch_box *b = &p->layout->box[p->list[i]];
        b->x = fmin(b->x, at - b->w);
        at = b->x - GAP;
    }
}

/* A bar lies over its neighbours in the rows that are placed already. */
static void place_bar(plan *p, int node, const bool *placed, double left) {
    const cinch_view *v = p->view;
    cinch_box *b = &p->layout->box[node];
    double low = INFINITY, high = -INFINITY;
    for (int e = v->first[node]; e < v->first[node + 1]; e++) {
        int to = v->end[e].node;
        if (!placed[p->row[to]] || p->row[to] == p->row[node]) continue;
        low = fmin(low, p->layout->box[to].x);
        high = fmax(high, p->layout->box[to].x + p->layout->box[to].w);
    }
    if (!(low <= high)) low = high = left + b->w / 2;
    double more = b->w - (high - low);
    b->x = more > 0 ? fmax(left, low - more / 2) : low;
    if (more < 0) b->w = high - low;
    b->h = BAR;
    p->wish[node] = b->x;
}

/* Gives the list's bars, which may lie over each other, lanes: the first where there is room. */
static void choose_lanes(plan *p, int n) {
    int used = 0;
    sort_list(p, n);
    for (int i = 0; i < n; i++) {
        const cinch_box *b = &p->layout->box[p->list[i]];
        int lane = 0;
        while (lane < used && p->end[lane] > b->x) lane++;
        if (lane == used) used++;
        p->end[lane] = b->x + b->w + GAP / 2;
        p->lane[p->list[i]] = lane;
    }
    if (n && used > p->lanes[p->row[p->list[0]]]) p->lanes[p->row[p->list[0]]] = used;
}

static void place_bars(plan *p, int row, int host, bool *placed, double left) {
    int n = row_of_host(p, row, host);
    for (int i = 0; i < n; i++) place_bar(p, p->list[i], placed, left);
    choose_lanes(p, n);
}

/* From left to right: a host's GPUs, evenly; its NICs, over the GPUs that are nearest to them; then
 * the bars, which follow from these. The host's right end. */
static double place_host(plan *p, int host, double left) {
    bool placed[ROWS] = {false};
    cinch_layout *l = p->layout;
    int gpus = order_gpus(p, host);
    double room = gpus * (p->gpu_width + GAP), nic_room = 0, right = left;
    for (int i = 0; i < p->view->graph->nodes; i++)
        if (p->row[i] == ROW_NIC && p->view->host[i] == host) nic_room += l->box[i].w + GAP;
    double width = fmax(fmax(room, nic_room), 96);
    for (int i = 0; i < gpus; i++) {
        l->box[p->list[i]].x = left + (i + 0.5) * width / gpus - p->gpu_width / 2;
        p->wish[p->list[i]] = middle(&l->box[p->list[i]]);
    }
    int nics = row_of_host(p, ROW_NIC, host);
    for (int i = 0; i < nics; i++) {
        int gpu = nearest(p, p->list[i], ROW_GPU);
        p->wish[p->list[i]] = gpu >= 0 ? p->wish[gpu] : left + width;
    }
    place_boxes(p, nics, left + GAP / 2, left + width - GAP / 2);
    placed[ROW_GPU] = placed[ROW_NIC] = true;
    static const int order[] = {ROW_OTHER, ROW_CPU, ROW_HUB, ROW_NVSWITCH};
    for (int level = PCI_LEVELS - 1; level >= 0; level--) {
        place_bars(p, ROW_PCI + level, host, placed, left);
        placed[ROW_PCI + level] = true;
    }
    for (int i = 0; i < 4; i++) {
        place_bars(p, order[i], host, placed, left);
        placed[order[i]] = true;
    }
    for (int i = 0; i < p->view->graph->nodes; i++)
        if (p->view->host[i] == host) right = fmax(right, l->box[i].x + l->box[i].w);
    l->frame[host].x = left - PAD;
    l->frame[host].w = fmax(right, left + width) - left + 2 * PAD;
    return l->frame[host].x + l->frame[host].w;
}

static void place_columns(plan *p) {
    const cinch_view *v = p->view;
    bool placed[ROWS] = {false};
    double at = MARGIN;
    for (int h = 0; h < v->hosts; h++) at = place_host(p, h, at + PAD) + FRAME_GAP;
    p->layout->width = at - FRAME_GAP + MARGIN;
    for (int row = ROW_NIC; row < ROWS; row++) placed[row] = true;
    for (int level = NET_LEVELS - 1; level >= 0; level--) {
        place_bars(p, ROW_NET + level, -1, placed, MARGIN);
        placed[ROW_NET + level] = true;
    }
    for (int i = 0; i < v->graph->nodes; i++)
        p->layout->width =
            fmax(p->layout->width, p->layout->box[i].x + p->layout->box[i].w + MARGIN);
}

/* How far down the curve between two GPUs goes. */
static double gpu_bend(double distance) {
    return fmin(14 + 0.2 * distance, 170);
}

static void place_rows(plan *p) {
    const cinch_view *v = p->view;
    cinch_layout *l = p->layout;
    double top[ROWS], at = MARGIN, frame_top = 0;
    for (int i = 0; i < v->links; i++)
        if (p->row[v->link[i].a] == ROW_GPU && p->row[v->link[i].b] == ROW_GPU)
            p->deepest =
                fmax(p->deepest,
                     gpu_bend(fabs(middle(&l->box[v->link[i].a]) - middle(&l->box[v->link[i].b]))));
    for (int row = 0; row < ROWS; row++) {
        bool boxes = row == ROW_NIC || row == ROW_GPU, any = false;
        if (row == ROW_NIC) frame_top = at, at += FRAME_LABEL;
        for (int i = 0; i < v->graph->nodes && boxes; i++) any = any || p->row[i] == row;
        top[row] = at;
        if (boxes && any) at += BOX + ROW_SPACE;
        if (p->lanes[row]) at += p->lanes[row] * (BAR + LANE_SPACE) - LANE_SPACE + ROW_SPACE;
        if (row == ROW_GPU && p->deepest > 0) at += p->deepest - ROW_SPACE / 2;
        /* Where a plan's edges pass through NV switches, their curves want room. */
        if (row == ROW_GPU && p->lanes[ROW_NVSWITCH]) at += ROW_SPACE / 2;
        if (row == ROW_NVSWITCH && p->lanes[row]) at += ROW_SPACE / 2;
    }
    for (int i = 0; i < v->graph->nodes; i++) {
        int row = p->row[i], lane = p->lane[i];
        /* Networks and CPUs: the first lane is the lowest, nearest to what hangs from it. */
        if (row < ROW_NIC || row == ROW_CPU || row == ROW_HUB) lane = p->lanes[row] - 1 - lane;
        l->box[i].y = top[row] + (is_bar(p, i) ? lane * (BAR + LANE_SPACE) : 0);
    }
    for (int h = 0; h < v->hosts; h++)
        l->frame[h].y = frame_top, l->frame[h].h = at - ROW_SPACE + PAD - frame_top;
    l->height = at - ROW_SPACE + PAD + MARGIN;
}

/* Whether a link leaves a box by its lower edge. Between GPUs it does on both sides. */
static bool leaves_down(const plan *p, int node, int to) {
    return p->row[node] == p->row[to] || p->layout->box[to].y > p->layout->box[node].y;
}

/* Where a box's links stand along an edge, such that they cross as little as can be: by the place
 * of the other end; curves to boxes of the same row nest, the nearest outermost on both sides. */
static double port_order(const plan *p, int node, int to) {
    const cinch_box *b = &p->layout->box[node], *o = &p->layout->box[to];
    double far = middle(o) - middle(b), width = p->layout->width;
    if (p->row[node] != p->row[to]) {
        double x = fmin(fmax(middle(b), o->x), o->x + o->w) - middle(b);
        return fmin(fmax(x, -width), width);
    }
    return far < 0 ? -4 * width - far : 4 * width - far;
}

static void place_ports(plan *p, int node) {
    const cinch_view *v = p->view;
    const cinch_box *b = &p->layout->box[node];
    for (int down = 0; down < 2; down++) {
        int n = 0;
        for (int e = v->first[node]; e < v->first[node + 1]; e++)
            if (leaves_down(p, node, v->end[e].node) == (down == 1)) p->list[n++] = e;
        /* Ends are numbered through all nodes: their wishes have room of their own. */
        for (int i = 0; i < n; i++)
            p->end_wish[p->list[i]] = port_order(p, node, v->end[p->list[i]].node);
        qsort_r(p->list, (size_t)n, sizeof *p->list, compare_wishes, p->end_wish);
        for (int i = 0; i < n; i++) {
            cinch_wire *w = &p->layout->wire[v->end[p->list[i]].link];
            int side = v->link[v->end[p->list[i]].link].a == node ? 0 : 1;
            w->x[side] = b->x + b->w * (i + 1) / (n + 1);
            w->y[side] = down ? b->y + b->h : b->y;
        }
    }
}

/* Whether another bar stands between two of one row and lane. */
static bool bars_between(const plan *p, int left, int right) {
    for (int i = 0; i < p->view->graph->nodes; i++)
        if (p->row[i] == p->row[left] && p->lane[i] == p->lane[left] &&
            p->layout->box[i].x > p->layout->box[left].x &&
            p->layout->box[i].x < p->layout->box[right].x)
            return true;
    return false;
}

static void join_bars(const plan *p, int a, int b, cinch_wire *w) {
    const cinch_box *p0 = &p->layout->box[a], *p1 = &p->layout->box[b];
    double low = fmax(p0->x, p1->x), high = fmin(p0->x + p0->w, p1->x + p1->w);
    if (p0->y == p1->y) { /* of one lane: beside each other */
        bool a_left = p0->x < p1->x;
        if (!bars_between(p, a_left ? a : b, a_left ? b : a)) {
            w->x[0] = a_left ? p0->x + p0->w : p0->x;
            w->x[1] = a_left ? p1->x : p1->x + p1->w;
            w->y[0] = w->y[1] = p0->y + p0->h / 2;
            return;
        }
        w->x[0] = middle(p0), w->x[1] = middle(p1);
        w->y[0] = w->y[1] = p0->y;
        w->bend = -fmin(10 + 0.04 * fabs(w->x[0] - w->x[1]), ROW_SPACE);
        return;
    }
    w->x[0] = w->x[1] = (low + high) / 2;
    if (low > high) {
        bool a_left = p0->x < p1->x;
        w->x[0] = a_left ? p0->x + p0->w - 4 : p0->x + 4;
        w->x[1] = a_left ? p1->x + 4 : p1->x + p1->w - 4;
    }
    w->y[0] = p0->y < p1->y ? p0->y + p0->h : p0->y;
    w->y[1] = p1->y < p0->y ? p1->y + p1->h : p1->y;
}

static void place_wires(plan *p) {
    const cinch_view *v = p->view;
    for (int i = 0; i < v->graph->nodes; i++)
        if (!is_bar(p, i)) place_ports(p, i);
    for (int i = 0; i < v->links; i++) {
        int end[2] = {v->link[i].a, v->link[i].b};
        cinch_wire *w = &p->layout->wire[i];
        bool bar[2] = {is_bar(p, end[0]), is_bar(p, end[1])};
        if (bar[0] && bar[1]) join_bars(p, end[0], end[1], w);
        for (int side = 0; side < 2; side++) {
            const cinch_box *b = &p->layout->box[end[side]];
            if (!bar[side] || bar[!side]) continue;
            w->x[side] = fmin(fmax(w->x[!side], b->x + 4), b->x + b->w - 4);
            w->y[side] = w->y[!side] < b->y ? b->y : b->y + b->h;
        }
        if (!bar[0] && !bar[1] && p->row[end[0]] == p->row[end[1]])
            w->bend =
                gpu_bend(fabs(middle(&p->layout->box[end[0]]) - middle(&p->layout->box[end[1]])));
    }
}

static cinchResult_t allocate(plan *p) {
    size_t nodes = (size_t)p->view->graph->nodes + 1, links = (size_t)p->view->links + 1;
    size_t list = nodes > 2 * links ? nodes : 2 * links;
    cinch_layout *l = p->layout;
    l->box = calloc(nodes, sizeof *l->box);
    l->wire = calloc(links, sizeof *l->wire);
    l->frame = calloc((size_t)p->view->hosts + 1, sizeof *l->frame);
    p->row = calloc(nodes, sizeof *p->row);
    p->lane = calloc(nodes, sizeof *p->lane);
    p->list = calloc(list, sizeof *p->list);
    p->queue = calloc(nodes, sizeof *p->queue);
    p->distance = calloc(nodes, sizeof *p->distance);
    p->wish = calloc(nodes, sizeof *p->wish);
    p->end = calloc(nodes, sizeof *p->end);
    p->end_wish = calloc(2 * links, sizeof *p->end_wish);
    if (l->box && l->wire && l->frame && p->row && p->lane && p->list && p->queue && p->distance &&
        p->wish && p->end && p->end_wish)
        return cinchSuccess;
    cinch_layout_free(l);
    return cinch_fail(cinchSystemError, "out of memory for a picture of %d parts",
                      p->view->graph->nodes);
}

cinchResult_t cinch_layout_make(cinch_layout *layout, const cinch_view *view) {
    plan p = {.view = view, .layout = layout, .gpu_width = 40};
    memset(layout, 0, sizeof *layout);
    if (view->graph->nodes > CINCH_LAYOUT_MOST_NODES)
        return cinch_fail(cinchInvalidArgument,
                          "the machine has %d parts; a picture shows at most %d",
                          view->graph->nodes, CINCH_LAYOUT_MOST_NODES);
    cinchResult_t result = allocate(&p);
    if (result == cinchSuccess) {
        for (int i = 0; i < view->graph->nodes; i++) {
            cinch_box *b = &layout->box[i];
            p.lane[i] = -1;
            b->w = label_width(view->graph->node[i].name);
            b->h = BOX;
            if (view->rank[i] < 0) {
                if (view->part[i] == CINCH_PART_NIC) b->w = nic_width(view, i);
                continue;
            }
            double links = view->first[i + 1] - view->first[i];
            p.gpu_width = fmax(p.gpu_width, fmax(b->w, fmin(9 * links + 4, 84)));
        }
        for (int i = 0; i < view->graph->nodes; i++)
            if (view->rank[i] >= 0) layout->box[i].w = p.gpu_width;
        choose_rows(&p);
        place_columns(&p);
        place_rows(&p);
        place_wires(&p);
    }
    free(p.row), free(p.lane), free(p.list), free(p.queue), free(p.distance);
    free(p.wish), free(p.end), free(p.end_wish);
    return result;
}

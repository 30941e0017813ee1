/* SPDX-License-Identifier: Apache-2.0 */
/* Prints a machine as a tree: CPUs and NV switches first, then what hangs from them. The links that
 * are no part of the tree stand behind a part's name, by bandwidth. */
#include "perf/topo_text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "perf/topo_clean.h"

enum { NAMES_MOST = 16, INDENT_MOST = 24, NAME_ROOM = 256 };

typedef struct off_tree {
    double out, in;
    int node, link;
} off_tree;

typedef struct printer {
    FILE *f;
    const cinch_view *view;
    int *parent, *link; /* by node: what it hangs from (-1: a root), by which link */
    int *child, *next;  /* by node: its first child, its parent's next one; -1: none */
    int *queue;
    bool *reached;
    off_tree *off;       /* room for one node's links */
    int *member, *start; /* nodes by host: host h's from start[h + 1] on, those of none first */
    int host;
} printer;

static const char *const part_names[] = {
    [CINCH_PART_OTHER] = "switch",       [CINCH_PART_CPU] = "CPU", [CINCH_PART_PCI] = "PCI switch",
    [CINCH_PART_NVSWITCH] = "NV switch", [CINCH_PART_NIC] = "NIC", [CINCH_PART_NET] = "network"};

static const char *name_of(const cinch_view *v, int node, char *room) {
    return cinch_topo_clean(v->graph->node[node].name, room, NAME_ROOM);
}

static bool is_part(const cinch_view *v, int node, cinch_part part) {
    return v->rank[node] < 0 && v->part[node] == part;
}

/* In a job a rank is called after its number, whether a GPU is its own or not. */
static bool is_rank(const cinch_view *v, int node) {
    char name[32];
    snprintf(name, sizeof name, "rank%d", v->rank[node]);
    return v->rank[node] >= 0 && strcmp(name, v->graph->node[node].name) == 0;
}

/* "25", or where the directions differ "25 (back 10)", seen from one end; 0 is no link. */
static void rate_text(const cinch_view *v, int link, int from, char *text, size_t room) {
    const cinch_view_link *l = &v->link[link];
    double out = l->a == from ? l->gbps : l->back, in = l->a == from ? l->back : l->gbps;
    if (out == in)
        snprintf(text, room, "%.4g", out);
    else
        snprintf(text, room, "%.4g (back %.4g)", out, in);
}

/* Whether `to` may hang from `from`: NICs carry nothing, GPUs carry NICs, and CPUs, NV switches and
 * networks stand for themselves. */
static bool may_hang(const printer *p, int from, int to) {
    const cinch_view *v = p->view;
    if (p->reached[to] || v->host[to] != p->host) return false;
    if (is_part(v, to, CINCH_PART_CPU) || is_part(v, to, CINCH_PART_NVSWITCH)) return false;
    if (is_part(v, from, CINCH_PART_NIC)) return false;
    if (v->rank[from] >= 0) return is_part(v, to, CINCH_PART_NIC);
    return true;
}

/* Everything of the host that hangs from these roots, nearest first, in the graph's order. */
static void grow(printer *p, int queued) {
    const cinch_view *v = p->view;
    for (int i = 0; i < queued; i++) {
        int from = p->queue[i], last = -1;
        for (int e = v->first[from]; e < v->first[from + 1]; e++) {
            int to = v->end[e].node;
            if (!may_hang(p, from, to)) continue;
            p->reached[to] = true;
            p->parent[to] = from;
            p->link[to] = v->end[e].link;
            if (last < 0)
                p->child[from] = to;
            else
                p->next[last] = to;
            last = to;
            p->queue[queued++] = to;
        }
    }
}

static int compare_ends(const void *x, const void *y) {
    const off_tree *p = x, *q = y;
    if (p->out != q->out) return p->out > q->out ? -1 : 1;
    if (p->in != q->in) return p->in > q->in ? -1 : 1;
    return (p->node > q->node) - (p->node < q->node);
}

/* "  -- g1, g2: 50; g3: 25": links that are no part of the tree, the fastest first. */
static void print_links(const printer *p, int node) {
    const cinch_view *v = p->view;
    char name[NAME_ROOM], rate[64];
    int n = 0;
    for (int e = v->first[node]; e < v->first[node + 1]; e++) {
        int to = v->end[e].node;
        const cinch_view_link *l = &v->link[v->end[e].link];
        if (p->parent[node] == to || p->parent[to] == node) continue;
        p->off[n++] = (off_tree){l->a == node ? l->gbps : l->back, l->a == node ? l->back : l->gbps,
                                 to, v->end[e].link};
    }
    qsort(p->off, (size_t)n, sizeof *p->off, compare_ends);
    for (int i = 0; i < n && i < NAMES_MOST; i++) {
        bool first =
            i == 0 || p->off[i].out != p->off[i - 1].out || p->off[i].in != p->off[i - 1].in;
        bool last = i + 1 == n || i + 1 == NAMES_MOST || p->off[i].out != p->off[i + 1].out ||
                    p->off[i].in != p->off[i + 1].in;
        fprintf(p->f, "%s%s",
                i == 0  ? "  -- "
                : first ? "; "
                        : ", ",
                name_of(v, p->off[i].node, name));
        rate_text(v, p->off[i].link, node, rate, sizeof rate);
        if (last) fprintf(p->f, ": %s", rate);
    }
    if (n > NAMES_MOST) fprintf(p->f, "; and %d more", n - NAMES_MOST);
}

static void print_node(printer *p, int node, int depth) {
    const cinch_view *v = p->view;
    char name[NAME_ROOM], rate[64];
    fprintf(p->f, "%*s", 2 * (depth < INDENT_MOST ? depth : INDENT_MOST), "");
    if (is_rank(v, node))
        fprintf(p->f, "rank %d", v->rank[node]);
    else if (v->rank[node] >= 0)
        fprintf(p->f, "GPU %s, rank %d", name_of(v, node, name), v->rank[node]);
    else
        fprintf(p->f, "%s %s", part_names[v->part[node]], name_of(v, node, name));
    if (p->parent[node] >= 0) {
        rate_text(v, p->link[node], node, rate, sizeof rate);
        fprintf(p->f, ": %s", rate);
    }
    print_links(p, node);
    putc('\n', p->f);
}

static void print_tree(printer *p, int root) {
    int node = root, depth = 1;
    while (node >= 0) {
        print_node(p, node, depth);
        if (p->child[node] >= 0) {
            node = p->child[node];
            depth++;
            continue;
        }
        while (node != root && p->next[node] < 0) node = p->parent[node], depth--;
        node = node == root ? -1 : p->next[node];
    }
}

static void print_count(FILE *f, int count, const char *what) {
    fprintf(f, "%d %s%s", count, what, count == 1 ? "" : "s");
}

/* The order of roots: the likeliest first. */
static int root_order(const cinch_view *v, int node) {
    static const int order[] = {
        [CINCH_PART_CPU] = 0,      [CINCH_PART_PCI] = 1, [CINCH_PART_OTHER] = 2,
        [CINCH_PART_NVSWITCH] = 3, [CINCH_PART_NET] = 3, [CINCH_PART_NIC] = 5};
    return v->rank[node] >= 0 ? 4 : order[v->part[node]];
}

static void print_host(printer *p) {
    const cinch_view *v = p->view;
    const int *member = p->member + p->start[p->host + 1];
    int n = p->start[p->host + 2] - p->start[p->host + 1], queued = 0, gpus = 0, nics = 0;
    bool job = false;
    for (int i = 0; i < n; i++) {
        job = job || is_rank(v, member[i]);
        gpus += v->rank[member[i]] >= 0;
        nics += is_part(v, member[i], CINCH_PART_NIC);
        /* All CPUs grow at once; what they do not reach, one root after the other. */
        if (root_order(v, member[i]) > 0) continue;
        p->reached[member[i]] = true;
        p->queue[queued++] = member[i];
    }
    fprintf(p->f, "host %d: ", p->host);
    print_count(p->f, gpus, job ? "rank" : "GPU");
    fputs(", ", p->f);
    print_count(p->f, nics, "NIC");
    putc('\n', p->f);
    grow(p, queued);
    for (int k = 1; k < 6; k++)
        for (int i = 0; i < n; i++) {
            if (p->reached[member[i]] || root_order(v, member[i]) != k) continue;
            p->reached[member[i]] = true;
            p->queue[0] = member[i];
            grow(p, 1);
        }
    for (int k = 0; k < 6; k++)
        for (int i = 0; i < n; i++)
            if (p->parent[member[i]] < 0 && root_order(v, member[i]) == k) print_tree(p, member[i]);
}

/* Nodes by host, in their own order. */
static void sort_by_host(printer *p) {
    const cinch_view *v = p->view;
    for (int i = 0; i < v->graph->nodes; i++) p->start[v->host[i] + 2]++;
    for (int h = 0; h <= v->hosts; h++) p->start[h + 1] += p->start[h];
    for (int i = 0; i < v->graph->nodes; i++) p->member[p->start[v->host[i] + 1]++] = i;
    for (int h = v->hosts + 1; h > 0; h--) p->start[h] = p->start[h - 1];
    p->start[0] = 0;
}

static void print_all(printer *p) {
    sort_by_host(p);
    for (p->host = 0; p->host < p->view->hosts; p->host++) print_host(p);
    if (p->start[1] > 0) fputs("networks\n", p->f);
    for (int i = 0; i < p->start[1]; i++) print_node(p, p->member[i], 1);
}

cinchResult_t cinch_text_machine(FILE *f, const cinch_view *view) {
    size_t nodes = (size_t)view->graph->nodes;
    printer p = {.f = f, .view = view};
    cinchResult_t result = cinchSuccess;
    int *room = calloc(6 * nodes + 1, sizeof *room);
    p.reached = calloc(nodes + 1, sizeof *p.reached);
    p.off = calloc(nodes + 1, sizeof *p.off);
    p.start = calloc((size_t)view->hosts + 3, sizeof *p.start);
    if (room && p.reached && p.off && p.start) {
        p.parent = room;
        p.link = room + nodes;
        p.child = room + 2 * nodes;
        p.next = room + 3 * nodes;
        p.queue = room + 4 * nodes;
        p.member = room + 5 * nodes;
        memset(room, -1, sizeof *room * 4 * nodes);
        print_all(&p);
    } else {
        result = cinch_fail(cinchSystemError, "out of memory for showing a graph of %d parts",
                            view->graph->nodes);
    }
    free(room);
    free(p.reached);
    free(p.off);
    free(p.start);
    return result;
}

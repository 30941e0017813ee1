/* SPDX-License-Identifier: Apache-2.0 */
/* Links as pairs, and hosts and parts guessed where a file does not say them. */
#include "perf/topo_view.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { GUESS_MOST = 4096 }; /* hosts: beyond, all is shown as one */

void cinch_view_free(cinch_view *view) {
    free(view->host);
    free(view->part);
    free(view->rank);
    free(view->link);
    free(view->end);
    free(view->first);
    memset(view, 0, sizeof *view);
}

/* No two are alike: a graph has at most one arc from a node to another. */
static int compare_links(const void *x, const void *y) {
    const cinch_view_link *p = x, *q = y;
    if (p->a != q->a) return p->a < q->a ? -1 : 1;
    if (p->b != q->b) return p->b < q->b ? -1 : 1;
    return (p->gbps > 0) < (q->gbps > 0) ? 1 : -1; /* a to b before b to a */
}

static void pair_arcs(cinch_view *view) {
    const cinch_graph *g = view->graph;
    for (int i = 0; i < g->arcs; i++) {
        const cinch_arc *arc = &g->arc[i];
        bool up = arc->from < arc->to;
        view->link[i] = (cinch_view_link){up ? arc->from : arc->to, up ? arc->to : arc->from,
                                          up ? arc->gbps : 0, up ? 0 : arc->gbps, arc->link};
    }
    qsort(view->link, (size_t)g->arcs, sizeof *view->link, compare_links);
    for (int i = 0; i < g->arcs; i++) {
        cinch_view_link *last = view->links ? &view->link[view->links - 1] : NULL;
        if (last && last->a == view->link[i].a && last->b == view->link[i].b)
            last->back += view->link[i].back;
        else
            view->link[view->links++] = view->link[i];
    }
}

/* Links are in ascending order of (a, b), so each node's ends come out by ascending other end. */
static void index_ends(cinch_view *view) {
    int nodes = view->graph->nodes, sum = 0;
    for (int i = 0; i < view->links; i++) {
        view->first[view->link[i].a]++;
        view->first[view->link[i].b]++;
    }
    for (int n = 0; n <= nodes; n++) {
        int count = view->first[n];
        view->first[n] = sum;
        sum += count;
    }
    /* Ends towards lower nodes first; first[] is moved on while filling, and back after. */
    for (int i = 0; i < view->links; i++)
        view->end[view->first[view->link[i].b]++] = (cinch_view_end){view->link[i].a, i};
    for (int i = 0; i < view->links; i++)
        view->end[view->first[view->link[i].a]++] = (cinch_view_end){view->link[i].b, i};
    for (int n = nodes; n > 0; n--) view->first[n] = view->first[n - 1];
    view->first[0] = 0;
}

/* The length of a name's beginning that can be a host's: letters, then digits, then more that does
 * not begin with a digit ("b0" of "b0g3", "host12" of "host12/gpu0"); 0: none. */
static size_t host_prefix(const char *name) {
    size_t n = 0, letters;
    while (isalpha((unsigned char)name[n])) n++;
    letters = n;
    while (isdigit((unsigned char)name[n])) n++;
    return letters > 0 && n > letters && name[n] ? n : 0;
}

/* Hosts by the beginnings of names, where every GPU has one and there are two at least. A switch
 * whose name begins as no GPU's stands between hosts. */
static void guess_hosts(cinch_view *view) {
    const cinch_graph *g = view->graph;
    int hosts = 0;
    int *sample = malloc(sizeof(int) * (size_t)(g->nodes + 1)); /* a node of each host */
    if (!sample) return;                                        /* one host, then */
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < g->nodes; i++) {
            const char *name = g->node[i].name;
            size_t n = host_prefix(name);
            if ((pass == 0) != (view->rank[i] >= 0)) continue;
            if (pass == 0 && n == 0) goto done;
            view->host[i] = -1;
            for (int h = 0; h < hosts && n && view->host[i] < 0; h++)
                if (host_prefix(g->node[sample[h]].name) == n &&
                    !strncmp(g->node[sample[h]].name, name, n))
                    view->host[i] = h;
            if (pass == 0 && view->host[i] < 0) {
                if (hosts == GUESS_MOST) goto done;
                sample[hosts] = i;
                view->host[i] = hosts++;
            }
        }
done:
    free(sample);
    if (hosts < 2 || hosts == GUESS_MOST)
        memset(view->host, 0, sizeof *view->host * (size_t)g->nodes);
    else
        view->hosts = hosts;
}

static cinch_part guess_part(const char *name) {
    static const struct {
        const char *word;
        cinch_part part;
    } words[] = {{"nvs", CINCH_PART_NVSWITCH}, {"nic", CINCH_PART_NIC},   {"hca", CINCH_PART_NIC},
                 {"cpu", CINCH_PART_CPU},      {"numa", CINCH_PART_CPU},  {"iod", CINCH_PART_CPU},
                 {"socket", CINCH_PART_CPU},   {"pci", CINCH_PART_PCI},   {"psw", CINCH_PART_PCI},
                 {"plx", CINCH_PART_PCI},      {"rail", CINCH_PART_NET},  {"leaf", CINCH_PART_NET},
                 {"spine", CINCH_PART_NET},    {"fabric", CINCH_PART_NET}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasestr(name, words[i].word)) return words[i].part;
    return CINCH_PART_OTHER;
}

static void fill_nodes(cinch_view *view) {
    const cinch_graph *g = view->graph;
    int rank = 0, most = 0;
    bool parts_said = false;
    for (int i = 0; i < g->nodes; i++) {
        view->rank[i] = g->node[i].kind == CINCH_NODE_GPU ? rank++ : -1;
        view->part[i] = g->node[i].part;
        view->host[i] = g->node[i].host;
        if (g->node[i].host > most) most = g->node[i].host;
        if (g->node[i].part != CINCH_PART_OTHER) parts_said = true;
    }
    view->hosts = most < g->nodes ? most + 1 : 1;
    if (most == 0 && !parts_said) guess_hosts(view);
    for (int i = 0; i < g->nodes; i++) {
        if (view->rank[i] < 0 && view->part[i] == CINCH_PART_OTHER)
            view->part[i] = guess_part(g->node[i].name);
        if (view->part[i] == CINCH_PART_NET && view->rank[i] < 0) view->host[i] = -1;
        if (view->host[i] >= view->hosts) view->host[i] = 0;
    }
}

cinchResult_t cinch_view_make(cinch_view *view, const cinch_graph *graph) {
    size_t nodes = (size_t)graph->nodes, arcs = (size_t)graph->arcs;
    *view = (cinch_view){.graph = graph, .hosts = 1};
    view->host = calloc(nodes + 1, sizeof *view->host);
    view->part = calloc(nodes + 1, sizeof *view->part);
    view->rank = calloc(nodes + 1, sizeof *view->rank);
    view->link = calloc(arcs + 1, sizeof *view->link);
    view->end = calloc(2 * arcs + 1, sizeof *view->end);
    view->first = calloc(nodes + 2, sizeof *view->first);
    if (!view->host || !view->part || !view->rank || !view->link || !view->end || !view->first) {
        cinch_view_free(view);
        return cinch_fail(cinchSystemError, "out of memory for showing a graph of %d parts",
                          graph->nodes);
    }
    pair_arcs(view);
    index_ends(view);
    fill_nodes(view);
    return cinchSuccess;
}

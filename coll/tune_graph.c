/* SPDX-License-Identifier: Apache-2.0 */
/* The graph that explains a measured network. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coll/tune.h"

/* How much measured values may differ, as measurements of one thing do. */
#define FITS 0.10  /* a pair from what its two hosts explain */
#define NEAR 0.07  /* a value from the largest, to be an attempt at the same */
#define EQUAL 0.05 /* neighbours in a row of values that are taken as equal: each off by 3 % */
#define WIDE 0.10  /* the last of them from the first */
#define MORE 0.05  /* a host's total over its best pair, to count as more */

/* Noise shall not make another plan: three digits are kept. */
static double round3(double value) {
    if (!(value > 0)) return 0;
    double scale = pow(10, 2 - floor(log10(value)));
    return round(value * scale) / scale;
}

typedef struct place {
    double value;
    int at;
} place;

static int ascending(const void *a, const void *b) {
    const place *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? -1 : 1;
    return x->at - y->at;
}

/* Takes nearly equal values as equal: their mean. */
static cinchResult_t settle(double *value, int n) {
    place *sorted = malloc((size_t)n * sizeof *sorted);
    if (!sorted) return cinch_fail(cinchSystemError, "out of memory for %d bandwidths", n);
    for (int i = 0; i < n; i++) sorted[i] = (place){value[i], i};
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    for (int first = 0, end; first < n; first = end) {
        double least = sorted[first].value, sum = least;
        for (end = first + 1; end < n; end++) {
            double v = sorted[end].value;
            if (v > sorted[end - 1].value * (1 + EQUAL) || v > least * (1 + WIDE)) break;
            sum += v;
        }
        for (int i = first; i < end; i++) value[sorted[i].at] = round3(sum / (end - first));
    }
    free(sorted);
    return cinchSuccess;
}

/* The largest of n values `step` apart: the mean of those near it, or the total where that is more.
 */
static double capacity(const double *value, int step, int n, double total) {
    double most = 0, sum = 0;
    int count = 0;
    for (int i = 0; i < n; i++) most = fmax(most, value[i * step]);
    for (int i = 0; i < n; i++)
        if (value[i * step] >= (1 - NEAR) * most) sum += value[i * step], count++;
    double mean = sum / count;
    return total > (1 + MORE) * mean ? total : mean;
}

/* What each host sends at most, then what each receives at most. */
static cinchResult_t find_capacities(const cinch_tune_net *net, double *cap) {
    int n = net->hosts;
    for (int h = 0; h < n; h++) {
        cap[h] = capacity(net->gbps + h * n, 1, n, net->out[h]);
        cap[n + h] = capacity(net->gbps + h, n, n, net->in[h]);
    }
    return settle(cap, 2 * n);
}

/* Whether the hosts' capacities explain every pair. */
static bool is_star(const cinch_tune_net *net, const double *cap) {
    int n = net->hosts;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            double told = net->gbps[i * n + j];
            if (i != j && fabs(fmin(cap[i], cap[n + j]) - told) > FITS * told) return false;
        }
    return true;
}

static cinchResult_t add(cinch_graph *graph, const char *name, int number, cinch_node_kind kind,
                         cinch_part part, int host, int *index) {
    char text[32];
    snprintf(text, sizeof text, "%s%d", name, number);
    return cinch_graph_add_node(graph, text, kind, part, host, index);
}

/* One network, in which hosts get in nobody's way. */
static cinchResult_t add_star(cinch_graph *graph, int hosts, const int *node, const double *cap) {
    int net;
    CINCH_TRY(cinch_graph_add_node(graph, "net", CINCH_NODE_SWITCH, CINCH_PART_NET, 0, &net));
    for (int h = 0; h < hosts; h++)
        CINCH_TRY(
            cinch_graph_add_link(graph, node[h], net, cap[h], cap[hosts + h], CINCH_LINK_NET));
    return cinchSuccess;
}

/* A link for each pair, between what the one sends in all and what the other receives in all. */
static cinchResult_t add_pairs(cinch_graph *graph, const cinch_tune_net *net, const int *node,
                               const double *cap, double *pair) {
    int n = net->hosts, first = graph->nodes, unused;
    memcpy(pair, net->gbps, (size_t)n * (size_t)n * sizeof *pair);
    CINCH_TRY(settle(pair, n * n));
    for (int h = 0; h < n; h++) {
        CINCH_TRY(add(graph, "out", h, CINCH_NODE_SWITCH, CINCH_PART_NIC, h, &unused));
        CINCH_TRY(add(graph, "in", h, CINCH_NODE_SWITCH, CINCH_PART_NIC, h, &unused));
    }
    for (int i = 0; i < n; i++) {
        int out = first + 2 * i, in = out + 1;
        CINCH_TRY(cinch_graph_add_arc(graph, node[i], out, cap[i], CINCH_LINK_OTHER));
        CINCH_TRY(cinch_graph_add_arc(graph, in, node[i], cap[n + i], CINCH_LINK_OTHER));
        for (int j = 0; j < n; j++)
            if (i != j)
                CINCH_TRY(cinch_graph_add_arc(graph, out, first + 2 * j + 1, pair[i * n + j],
                                              CINCH_LINK_NET));
    }
    return cinchSuccess;
}

/* A rank that has its host for itself shall not be held up there. */
static cinchResult_t add_ranks(cinch_graph *graph, const cinch_tune_net *net, int ranks,
                               const uint16_t *host, const int *node, const int *on,
                               const double *cap) {
    double inside = round3(net->shm_gbps);
    for (int r = 0; r < ranks; r++) {
        int h = host[r], rank;
        double gbps = on[h] > 1 && inside > 0 ? inside : 10 * fmax(cap[h], cap[net->hosts + h]);
        if (!(gbps > 0)) gbps = 1;
        CINCH_TRY(add(graph, "rank", r, CINCH_NODE_GPU, CINCH_PART_OTHER, h, &rank));
        CINCH_TRY(cinch_graph_add_link(graph, rank, node[h], gbps, gbps, CINCH_LINK_SHM));
    }
    return cinchSuccess;
}

typedef struct workspace {
    double *cap, *pair;
    int *node, *on;
} workspace;

static cinchResult_t make_graph(const cinch_tune_net *net, int ranks, const uint16_t *host,
                                const workspace *w, cinch_graph *graph) {
    int n = net->hosts;
    for (int r = 0; r < ranks; r++) w->on[host[r]]++;
    if (n > 1) CINCH_TRY(find_capacities(net, w->cap));
    for (int h = 0; h < n; h++)
        CINCH_TRY(add(graph, "host", h, CINCH_NODE_SWITCH, CINCH_PART_CPU, h, &w->node[h]));
    CINCH_TRY(add_ranks(graph, net, ranks, host, w->node, w->on, w->cap));
    if (n == 1) return cinchSuccess;
    if (is_star(net, w->cap)) return add_star(graph, n, w->node, w->cap);
    return add_pairs(graph, net, w->node, w->cap, w->pair);
}

cinchResult_t cinch_tune_graph(const cinch_tune_net *net, int ranks, const uint16_t *host,
                               cinch_graph *graph) {
    size_t n = (size_t)net->hosts;
    workspace w = {.cap = calloc(2 * n, sizeof *w.cap),
                   .pair = calloc(n * n, sizeof *w.pair),
                   .node = calloc(n, sizeof *w.node),
                   .on = calloc(n, sizeof *w.on)};
    cinchResult_t result = cinchSuccess;
    for (int r = 0; r < ranks; r++)
        if (host[r] >= net->hosts)
            result = cinch_fail(cinchInvalidArgument, "rank %d is on host %d of %d", r, host[r],
                                net->hosts);
    if (!w.cap || !w.pair || !w.node || !w.on)
        result = cinch_fail(cinchSystemError, "out of memory for a graph of %d hosts", net->hosts);
    if (result == cinchSuccess) result = make_graph(net, ranks, host, &w, graph);
    if (result != cinchSuccess) cinch_graph_free(graph);
    free(w.cap);
    free(w.pair);
    free(w.node);
    free(w.on);
    return result;
}

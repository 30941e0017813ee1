/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the graph of a machine with a codec. An encoded way goes from a rank's encoder over the
 * copies BEFORE, over one of the slow links to the copies BEHIND, and to a rank's decoder; so what
 * stays inside never passes the codec. */
#include "topo/compressed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Copies of a node: the machine's own; encoded, before and behind a slow link. A GPU is its encoder
 * and its decoder there, which nothing passes through. */
enum { PLAIN, BEFORE, BEHIND, COPIES };

typedef struct {
    const cinch_graph *machine;
    const cinch_compressed_codec *codec;
    cinch_compressed *made;
    int *copy[COPIES]; /* node of the machine: its copy, -1: not wanted */
    bool *use[COPIES]; /* node of the machine: an encoded way leads over this copy */
    int *queue;
    int plus; /* of these before a copy's name, which no node of the machine begins with */
} maker;

static bool is_slow(const cinch_graph *graph, unsigned links, const cinch_arc *arc) {
    if (links) return links >> arc->link & 1;
    return arc->link == CINCH_LINK_NET || graph->node[arc->from].host != graph->node[arc->to].host;
}

static bool is_gpu(const maker *m, int node) {
    return m->machine->node[node].kind == CINCH_NODE_GPU;
}

static cinchResult_t check_codec(const cinch_compressed_codec *codec) {
    if (!(codec->ratio > 0 && codec->ratio <= 1))
        return cinch_fail(cinchInvalidArgument,
                          "a codec of the ratio %g: above 0 and at most 1 is accepted",
                          codec->ratio);
    if (!(codec->encode_gbps > 0 && isfinite(codec->encode_gbps)) ||
        !(codec->decode_gbps > 0 && isfinite(codec->decode_gbps)))
        return cinch_fail(cinchInvalidArgument,
                          "a codec that encodes %g and decodes %g GB/s: finite speeds above 0 are "
                          "accepted",
                          codec->encode_gbps, codec->decode_gbps);
    return cinchSuccess;
}

static cinchResult_t out_of_memory(void) {
    return cinch_fail(cinchSystemError, "out of memory for a graph with a codec");
}

static cinchResult_t open_maker(maker *m) {
    size_t nodes = (size_t)m->machine->nodes + 1;
    int *ints = malloc((COPIES + 1) * nodes * sizeof(int));
    bool *bools = calloc(COPIES * nodes, sizeof(bool));
    m->copy[0] = ints;
    m->use[0] = bools;
    if (!ints || !bools) return out_of_memory();
    for (int c = 1; c < COPIES; c++) {
        m->copy[c] = ints + (size_t)c * nodes;
        m->use[c] = bools + (size_t)c * nodes;
    }
    m->queue = ints + COPIES * nodes;
    for (int n = 0; n < m->machine->nodes; n++) {
        int plus = (int)strspn(m->machine->node[n].name, "+");
        if (plus >= m->plus) m->plus = plus + 1;
    }
    return cinchSuccess;
}

/* ---- which copies an encoded way leads over ---- */

/* Spreads over arcs that are not slow, through switches: from what is in use in the copy, forwards
 * where BEFORE, backwards where BEHIND. As often as there are nodes at most. */
static void spread(maker *m, int copy) {
    const cinch_graph *g = m->machine;
    bool *use = m->use[copy], more = true;
    while (more) {
        more = false;
        for (int a = 0; a < g->arcs; a++) {
            int near = copy == BEFORE ? g->arc[a].from : g->arc[a].to;
            int far = copy == BEFORE ? g->arc[a].to : g->arc[a].from;
            if (!use[near] || use[far] || is_gpu(m, far)) continue;
            if (copy == BEFORE && is_slow(g, m->codec->links, &g->arc[a])) continue;
            use[far] = more = true;
        }
    }
}

/* ---- nodes and arcs ---- */

static cinchResult_t add_node(maker *m, int node, int copy) {
    static const char *const what[COPIES] = {"", "out:", "in:"};
    const cinch_node *from = &m->machine->node[node];
    char name[2 * CINCH_GRAPH_MOST_NAME + 16];
    memset(name, '+', (size_t)m->plus);
    strcpy(name + m->plus, what[copy]);
    strcat(name, from->name);
    int index;
    CINCH_TRY(cinch_graph_add_node(&m->made->graph, copy == PLAIN ? from->name : name,
                                   copy == PLAIN ? from->kind : CINCH_NODE_SWITCH, from->part,
                                   from->host, &index));
    m->copy[copy][node] = index;
    return cinchSuccess;
}

static cinchResult_t add_nodes(maker *m) {
    const cinch_graph *g = m->machine;
    int total = 0;
    for (int c = 0; c < COPIES; c++)
        for (int n = 0; n < g->nodes; n++) {
            m->copy[c][n] = -1;
            if (c != PLAIN && !m->use[c][n]) continue;
            CINCH_TRY(add_node(m, n, c));
            total++;
        }
    m->made->origin = malloc(((size_t)total + 1) * sizeof(int));
    m->made->encoded = malloc(((size_t)total + 1) * sizeof(bool));
    if (!m->made->origin || !m->made->encoded) return out_of_memory();
    for (int c = 0; c < COPIES; c++)
        for (int n = 0; n < g->nodes; n++)
            if (m->copy[c][n] >= 0) {
                m->made->origin[m->copy[c][n]] = n;
                m->made->encoded[m->copy[c][n]] = c != PLAIN;
            }
    return cinchSuccess;
}

/* An arc between copies, which shares the link with the others of the same arc of the machine. */
static cinchResult_t add_arc(maker *m, int arc, int from, int to) {
    cinch_graph *made = &m->made->graph;
    const cinch_arc *old = &m->machine->arc[arc];
    int tail = m->copy[from][old->from], head = m->copy[to][old->to];
    if (tail < 0 || head < 0) return cinchSuccess;
    double ratio = from == PLAIN ? 1 : m->codec->ratio;
    CINCH_TRY(cinch_graph_add_arc(made, tail, head, old->gbps / ratio, old->link));
    made->arc[made->arcs - 1].shared = old->shared > 0 ? m->machine->arcs + old->shared : arc + 1;
    return cinchSuccess;
}

static cinchResult_t add_arcs(maker *m, bool crosses) {
    const cinch_graph *g = m->machine;
    for (int a = 0; a < g->arcs; a++) {
        bool slow = is_slow(g, m->codec->links, &g->arc[a]);
        if (!slow || !crosses || m->codec->mixed) CINCH_TRY(add_arc(m, a, PLAIN, PLAIN));
        /* A decoder's way ends with it, and an encoder's begins there. */
        if (!slow && !is_gpu(m, g->arc[a].to)) CINCH_TRY(add_arc(m, a, BEFORE, BEFORE));
        if (slow) CINCH_TRY(add_arc(m, a, BEFORE, BEHIND));
        if (!is_gpu(m, g->arc[a].from)) CINCH_TRY(add_arc(m, a, BEHIND, BEHIND));
    }
    for (int n = 0; n < g->nodes; n++) {
        cinch_graph *made = &m->made->graph;
        if (!is_gpu(m, n)) continue;
        if (m->copy[BEFORE][n] >= 0)
            CINCH_TRY(cinch_graph_add_arc(made, n, m->copy[BEFORE][n], m->codec->encode_gbps,
                                          CINCH_LINK_OTHER));
        if (m->copy[BEHIND][n] >= 0)
            CINCH_TRY(cinch_graph_add_arc(made, m->copy[BEHIND][n], n, m->codec->decode_gbps,
                                          CINCH_LINK_OTHER));
    }
    return cinchSuccess;
}

static cinchResult_t make(maker *m) {
    const cinch_graph *g = m->machine;
    bool crosses = false;
    CINCH_TRY(open_maker(m));
    for (int n = 0; n < g->nodes; n++) m->use[BEFORE][n] = m->use[BEHIND][n] = is_gpu(m, n);
    for (int a = 0; a < g->arcs; a++) crosses |= is_slow(g, m->codec->links, &g->arc[a]);
    spread(m, BEFORE);
    spread(m, BEHIND);
    if (!crosses) memset(m->use[BEFORE], 0, 2 * ((size_t)g->nodes + 1) * sizeof(bool));
    CINCH_TRY(add_nodes(m));
    return add_arcs(m, crosses);
}

cinchResult_t cinch_compressed_make(const cinch_graph *machine, const cinch_compressed_codec *codec,
                                    cinch_compressed *made) {
    maker m = {.machine = machine, .codec = codec, .made = made, .plus = 1};
    *made = (cinch_compressed){.links = codec->links};
    CINCH_TRY(check_codec(codec));
    cinchResult_t result = make(&m);
    free(m.copy[0]);
    free(m.use[0]);
    if (result != cinchSuccess) cinch_compressed_free(made);
    return result;
}

void cinch_compressed_free(cinch_compressed *compressed) {
    cinch_graph_free(&compressed->graph);
    free(compressed->origin);
    free(compressed->encoded);
    *compressed = (cinch_compressed){0};
}

/* ---- plans ---- */

/* Adds the raw bytes that a tree's direction sends over slow links, encoded[true] and as they are.
 */
static void count_half(const cinch_compressed *c, const cinch_plan *plan,
                       const cinch_plan_half *half, double weight, double sent[2]) {
    for (int r = 0; r < plan->ranks && half->parent; r++)
        for (int i = half->first[r]; i + 1 < half->first[r + 1]; i++) {
            int from = half->path[i], to = half->path[i + 1];
            int arc = cinch_graph_find_arc(&c->graph, from, to);
            if (arc < 0 || c->origin[from] == c->origin[to]) continue;
            if (is_slow(&c->graph, c->links, &c->graph.arc[arc]))
                sent[c->encoded[from] && c->encoded[to]] += weight;
        }
}

double cinch_compressed_share(const cinch_compressed *compressed, const cinch_plan *plan) {
    double sent[2] = {0, 0};
    for (int t = 0; t < plan->trees; t++) {
        const cinch_plan_tree *tree = &plan->tree[t];
        count_half(compressed, plan, &tree->up, tree->weight, sent);
        count_half(compressed, plan, &tree->down, tree->weight, sent);
    }
    return sent[1] > 0 ? sent[1] / (sent[0] + sent[1]) : 0;
}

static cinchResult_t reach(const cinch_graph *graph, cinch_plan_op op, int root,
                           const cinch_plan_options *options, double *algbw) {
    cinch_plan plan;
    CINCH_TRY(cinch_plan_make(graph, op, root, options, &plan));
    *algbw = plan.algbw;
    cinch_plan_free(&plan);
    return cinchSuccess;
}

cinchResult_t cinch_compressed_pays(const cinch_graph *machine, cinch_plan_op op, int root,
                                    const cinch_compressed_codec *codec,
                                    const cinch_plan_options *options, double *without,
                                    double *with) {
    cinch_compressed made;
    CINCH_TRY(reach(machine, op, root, options, without));
    CINCH_TRY(cinch_compressed_make(machine, codec, &made));
    *with = *without;
    cinchResult_t result = cinchSuccess;
    if (made.graph.nodes > machine->nodes) result = reach(&made.graph, op, root, options, with);
    cinch_compressed_free(&made);
    return result;
}

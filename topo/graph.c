/* SPDX-License-Identifier: Apache-2.0 */
/* The capacity graph: its nodes and arcs, found by name and by ends. */
#include "topo/graph.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A crit-bit tree: a fork names the first bit at which the keys below it differ; its children are
 * forks (>= 0) or leaves (~leaf). Unlike a hash table it has no keys that make it slow. */
struct cinch_graph_fork {
    int bit, child[2];
};

/* A name with NULs behind it, or an arc's ends. */
typedef struct {
    const unsigned char *data;
    size_t bytes;
    unsigned char ends[4];
} key;

static void key_of_name(key *k, const char *name) {
    k->data = (const unsigned char *)name;
    k->bytes = strlen(name);
}

static void key_of_ends(key *k, int from, int to) {
    k->ends[0] = (unsigned char)(from >> 8);
    k->ends[1] = (unsigned char)from;
    k->ends[2] = (unsigned char)(to >> 8);
    k->ends[3] = (unsigned char)to;
    k->data = k->ends;
    k->bytes = sizeof k->ends;
}

static unsigned key_byte(const key *k, size_t i) {
    return i < k->bytes ? k->data[i] : 0;
}

static int key_bit(const key *k, int bit) {
    return key_byte(k, (size_t)bit / 8) >> (7 - bit % 8) & 1;
}

/* The first bit at which two keys differ, -1: none. */
static int key_differ(const key *a, const key *b) {
    size_t most = a->bytes > b->bytes ? a->bytes : b->bytes;
    for (size_t i = 0; i < most; i++) {
        unsigned differ = key_byte(a, i) ^ key_byte(b, i);
        if (differ) return (int)(8 * i) + __builtin_clz(differ) - 24;
    }
    return -1;
}

/* The only leaf that can have this key, -1: the index is empty. */
static int index_near(const cinch_graph_index *index, const key *k) {
    if (index->leaves == 0) return -1;
    int at = index->root;
    while (at >= 0) at = index->fork[at].child[key_bit(k, index->fork[at].bit)];
    return ~at;
}

/* Makes room for one more of what `*array` holds. */
static cinchResult_t room_for(void *array, int have, int *room, size_t size) {
    if (have < *room) return cinchSuccess;
    int more = *room ? 2 * *room : 16;
    void *grown = realloc(*(void **)array, (size_t)more * size);
    if (!grown) return cinch_fail(cinchSystemError, "out of memory for a graph of %d parts", more);
    *(void **)array = grown;
    *room = more;
    return cinchSuccess;
}

static cinchResult_t index_room(cinch_graph_index *index) {
    return room_for(&index->fork, index->forks, &index->fork_room, sizeof *index->fork);
}

/* Adds the next leaf, which differs from the one near it at `bit`; index_room was called. */
static void index_add(cinch_graph_index *index, const key *k, int bit) {
    int leaf = ~index->leaves++;
    if (leaf == ~0) {
        index->root = leaf;
        return;
    }
    int *at = &index->root;
    while (*at >= 0 && index->fork[*at].bit < bit)
        at = &index->fork[*at].child[key_bit(k, index->fork[*at].bit)];
    struct cinch_graph_fork *fork = &index->fork[index->forks];
    int side = key_bit(k, bit);
    fork->bit = bit;
    fork->child[side] = leaf;
    fork->child[!side] = *at;
    *at = index->forks++;
}

void cinch_graph_free(cinch_graph *graph) {
    for (int i = 0; i < graph->nodes; i++) free(graph->node[i].name);
    free(graph->node);
    free(graph->arc);
    free(graph->gpu);
    free(graph->names.fork);
    free(graph->links.fork);
    memset(graph, 0, sizeof *graph);
}

static bool name_is_plain(const char *name) {
    for (const unsigned char *c = (const unsigned char *)name; *c; c++)
        if (*c <= ' ' || *c == '#' || *c == 0x7f) return false;
    return *name != '\0';
}

cinchResult_t cinch_graph_add_node(cinch_graph *graph, const char *name, cinch_node_kind kind,
                                   cinch_part part, int host, int *index) {
    if (!name_is_plain(name) || strlen(name) > CINCH_GRAPH_MOST_NAME)
        return cinch_fail(cinchInvalidArgument,
                          "a node's name is 1 to %d bytes without white space, '#' and control "
                          "characters",
                          CINCH_GRAPH_MOST_NAME);
    key k, other;
    key_of_name(&k, name);
    int near = index_near(&graph->names, &k), bit = 0;
    if (near >= 0) {
        key_of_name(&other, graph->node[near].name);
        bit = key_differ(&k, &other);
    }
    if (bit < 0) return cinch_fail(cinchInvalidArgument, "two nodes are called \"%.80s\"", name);
    if (graph->nodes == CINCH_GRAPH_MOST_NODES)
        return cinch_fail(cinchSystemError, "a graph has at most %d nodes", CINCH_GRAPH_MOST_NODES);
    CINCH_TRY(room_for(&graph->node, graph->nodes, &graph->node_room, sizeof *graph->node));
    CINCH_TRY(room_for(&graph->gpu, graph->gpus, &graph->gpu_room, sizeof *graph->gpu));
    CINCH_TRY(index_room(&graph->names));
    char *copy = strdup(name);
    if (!copy) return cinch_fail(cinchSystemError, "out of memory for a graph's node");
    index_add(&graph->names, &k, bit);
    if (index) *index = graph->nodes;
    if (kind == CINCH_NODE_GPU) graph->gpu[graph->gpus++] = graph->nodes;
    graph->node[graph->nodes++] =
        (cinch_node){.name = copy, .kind = kind, .part = part, .host = host};
    return cinchSuccess;
}

static bool is_bandwidth(double gbps) {
    return isfinite(gbps) && gbps > 0;
}

static cinchResult_t check_ends(const cinch_graph *graph, int from, int to) {
    if (from < 0 || from >= graph->nodes || to < 0 || to >= graph->nodes)
        return cinch_fail(cinchInvalidArgument, "a link from node %d to %d in a graph of %d nodes",
                          from, to, graph->nodes);
    if (from == to)
        return cinch_fail(cinchInvalidArgument, "a link from \"%.80s\" to itself",
                          graph->node[from].name);
    return cinchSuccess;
}

static cinchResult_t fail_bandwidth(const cinch_graph *graph, int from, int to, double gbps) {
    return cinch_fail(cinchInvalidArgument,
                      "%g GB/s from \"%.80s\" to \"%.80s\": a bandwidth is finite and above 0",
                      gbps, graph->node[from].name, graph->node[to].name);
}

cinchResult_t cinch_graph_add_arc(cinch_graph *graph, int from, int to, double gbps,
                                  cinch_link_class link) {
    CINCH_TRY(check_ends(graph, from, to));
    if (!is_bandwidth(gbps)) return fail_bandwidth(graph, from, to, gbps);
    key k, other;
    key_of_ends(&k, from, to);
    int near = index_near(&graph->links, &k), bit = 0;
    if (near >= 0) {
        key_of_ends(&other, graph->arc[near].from, graph->arc[near].to);
        bit = key_differ(&k, &other);
    }
    if (bit < 0) {
        double sum = graph->arc[near].gbps + gbps;
        if (!is_bandwidth(sum)) return fail_bandwidth(graph, from, to, sum);
        graph->arc[near].gbps = sum;
        return cinchSuccess;
    }
    if (graph->arcs == CINCH_GRAPH_MOST_ARCS)
        return cinch_fail(cinchSystemError, "a graph has at most %d arcs (a link has two)",
                          CINCH_GRAPH_MOST_ARCS);
    CINCH_TRY(room_for(&graph->arc, graph->arcs, &graph->arc_room, sizeof *graph->arc));
    CINCH_TRY(index_room(&graph->links));
    index_add(&graph->links, &k, bit);
    graph->arc[graph->arcs++] = (cinch_arc){.from = from, .to = to, .gbps = gbps, .link = link};
    return cinchSuccess;
}

cinchResult_t cinch_graph_add_link(cinch_graph *graph, int a, int b, double gbps, double gbps_back,
                                   cinch_link_class link) {
    CINCH_TRY(check_ends(graph, a, b));
    /* Both are looked at before either is added. */
    if (!is_bandwidth(gbps) && !(gbps == 0 && is_bandwidth(gbps_back)))
        return fail_bandwidth(graph, a, b, gbps);
    if (!is_bandwidth(gbps_back) && gbps_back != 0) return fail_bandwidth(graph, b, a, gbps_back);
    if (gbps > 0) CINCH_TRY(cinch_graph_add_arc(graph, a, b, gbps, link));
    if (gbps_back > 0) CINCH_TRY(cinch_graph_add_arc(graph, b, a, gbps_back, link));
    return cinchSuccess;
}

int cinch_graph_find(const cinch_graph *graph, const char *name) {
    key k;
    key_of_name(&k, name);
    int near = index_near(&graph->names, &k);
    return near >= 0 && strcmp(graph->node[near].name, name) == 0 ? near : -1;
}

int cinch_graph_find_arc(const cinch_graph *graph, int from, int to) {
    if (from < 0 || from >= graph->nodes || to < 0 || to >= graph->nodes) return -1;
    key k;
    key_of_ends(&k, from, to);
    int near = index_near(&graph->links, &k);
    if (near < 0 || graph->arc[near].from != from || graph->arc[near].to != to) return -1;
    return near;
}

int cinch_graph_gpu(const cinch_graph *graph, int i) {
    return graph->gpu[i];
}

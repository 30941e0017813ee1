/* SPDX-License-Identifier: Apache-2.0 */
/* A machine, or a job of several, as a capacity graph: GPUs (ranks sit there) and switches (which
 * forward only: PCIe and NV switches, CPUs, NICs, networks), joined by directed links with a
 * bandwidth each. Everything in topo/ reads or makes one of these. */
#ifndef CINCH_TOPO_GRAPH_H_
#define CINCH_TOPO_GRAPH_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/status.h"

typedef enum { CINCH_NODE_GPU, CINCH_NODE_SWITCH } cinch_node_kind;

/* What a switch is, for reports and pictures; planning does not look at it. */
typedef enum {
    CINCH_PART_OTHER,
    CINCH_PART_CPU,
    CINCH_PART_PCI,
    CINCH_PART_NVSWITCH,
    CINCH_PART_NIC,
    CINCH_PART_NET
} cinch_part;

/* What a link is made of: the class of its latency. */
typedef enum {
    CINCH_LINK_OTHER,
    CINCH_LINK_NVLINK,
    CINCH_LINK_C2C,
    CINCH_LINK_PCI,
    CINCH_LINK_SYS, /* between CPUs */
    CINCH_LINK_NET,
    CINCH_LINK_SHM
} cinch_link_class;

typedef struct cinch_node {
    char *name;
    cinch_node_kind kind;
    cinch_part part;
    int host; /* 0.. */
} cinch_node;

/* One direction of a link. */
typedef struct cinch_arc {
    int from, to; /* nodes */
    double gbps;  /* 1e9 bytes a second, > 0 and finite */
    cinch_link_class link;
    int shared; /* arcs with the same number above 0 share a link: what parts of their bandwidths
                   they carry sums to 1 at most. Set behind cinch_graph_add_arc; bounds count each
                   arc as if it were alone, and texts do not tell */
} cinch_arc;

/* Finds a node by its name or an arc by its ends in time that no choice of names can spoil. */
typedef struct cinch_graph_index {
    struct cinch_graph_fork *fork;
    int forks, fork_room, leaves, root;
} cinch_graph_index;

/* Bandwidths may be changed in place; nodes and the ends of arcs may not. */
typedef struct cinch_graph {
    cinch_node *node;
    int nodes, node_room;
    cinch_arc *arc; /* no self-loops; at most one from a node to another: parallel ones are added */
    int arcs, arc_room;
    int *gpu; /* the nodes that are GPUs, in the order in which they were added */
    int gpus, gpu_room;
    cinch_graph_index names, links;
} cinch_graph;

enum {
    CINCH_GRAPH_MOST_NODES = 1 << 16,
    CINCH_GRAPH_MOST_ARCS = 1 << 20,
    CINCH_GRAPH_MOST_NAME = 255 /* bytes of a name */
};

/* A zeroed graph is an empty one. */
void cinch_graph_free(cinch_graph *graph);

/* Adds a node, whose name is copied; *index (NULL: not wanted) its number. InvalidArgument: the
 * name is empty, taken, too long, or has white space, '#' or a control character; SystemError: out
 * of memory, or more nodes than CINCH_GRAPH_MOST_NODES. */
cinchResult_t cinch_graph_add_node(cinch_graph *graph, const char *name, cinch_node_kind kind,
                                   cinch_part part, int host, int *index);

/* Adds capacity from one node to another, or both ways (0 for one of them: one way only); the class
 * of a link that is there stays. InvalidArgument: no such node, a self-loop, or a bandwidth (or
 * sum) that is not finite and above 0; SystemError: out of memory, or more than
 * CINCH_GRAPH_MOST_ARCS. */
cinchResult_t cinch_graph_add_arc(cinch_graph *graph, int from, int to, double gbps,
                                  cinch_link_class link);
cinchResult_t cinch_graph_add_link(cinch_graph *graph, int a, int b, double gbps, double gbps_back,
                                   cinch_link_class link);

int cinch_graph_find(const cinch_graph *graph, const char *name);     /* -1: none of that name */
int cinch_graph_find_arc(const cinch_graph *graph, int from, int to); /* -1: none */

/* The number of the i-th GPU's node, in the order in which they were added: rank i sits there. */
int cinch_graph_gpu(const cinch_graph *graph, int i);

/* Reads the text format into an empty graph: `gpu NAME`, `switch NAME`, `link A B GBPS [GBPS_BACK]`
 * (0: not that way), `#` comments; a link may stand before its nodes. What a part, a host and a
 * link's class are stands in comments that begin with `#:`, where it is told. `name` is what the
 * text is called in messages. InvalidArgument, with the line's number; the graph is then empty. */
cinchResult_t cinch_graph_read(cinch_graph *graph, const char *text, size_t length,
                               const char *name);
/* Writes that format, so that it reads as the same nodes and arcs. SystemError. */
cinchResult_t cinch_graph_write(const cinch_graph *graph, FILE *to);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Files that describe a machine: what reads them into a capacity graph, with counts of what was
 * found and warnings about what looks wrong; and the writer of NCCL's topology XML (`.graph` is
 * written by cinch_graph_write). */
#ifndef CINCH_TOPO_READERS_H_
#define CINCH_TOPO_READERS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/status.h"
#include "topo/graph.h"

typedef enum {
    CINCH_TOPOLOGY_AUTO, /* told apart by what the text holds */
    CINCH_TOPOLOGY_NCCL, /* topology XML of NCCL and RCCL */
    CINCH_TOPOLOGY_HWLOC,
    CINCH_TOPOLOGY_NVSMI, /* what `nvidia-smi topo -m` prints */
    CINCH_TOPOLOGY_GRAPH,
    CINCH_TOPOLOGY_FORMATS,
    CINCH_TOPOLOGY_DETECTED = CINCH_TOPOLOGY_FORMATS /* no file: cinch_detect */
} cinch_topology_format;

typedef struct cinch_topology {
    cinch_graph graph;
    cinch_topology_format format; /* what the text was, never AUTO after a read */
    int gpus, nics;
    char **warning; /* one sentence each */
    int warnings;
} cinch_topology;

enum {
    CINCH_TOPOLOGY_MOST_BYTES = 16 << 20,
    CINCH_TOPOLOGY_MOST_DEPTH = 64,        /* XML elements inside each other */
    CINCH_TOPOLOGY_MOST_ELEMENTS = 200000, /* XML elements in all */
    CINCH_TOPOLOGY_MOST_PARTS = 4096,      /* CPUs, PCI switches, GPUs, NICs and ports together */
    CINCH_TOPOLOGY_MOST_LINKS = 16384,     /* NVLink, xGMI */
    CINCH_TOPOLOGY_MOST_WARNINGS = 64
};

/* "auto", "nccl", "hwloc", "nvsmi", "graph"; InvalidArgument names what is accepted. */
cinchResult_t cinch_topology_format_parse(const char *text, cinch_topology_format *format);
const char *cinch_topology_format_name(cinch_topology_format format);

bool cinch_topology_reads_xml(void); /* false: built without expat */

/* *t need not be initialized; after an error it is empty, and nothing needs freeing.
 * `name` is what the text is called in messages. InvalidArgument: the text is malformed, not of
 * that format, too large, or refused; SystemError: the file cannot be read, or out of memory. */
cinchResult_t cinch_topology_read_file(const char *path, cinch_topology_format format,
                                       cinch_topology *t);
cinchResult_t cinch_topology_read(const char *text, size_t length, cinch_topology_format format,
                                  const char *name, cinch_topology *t);
void cinch_topology_free(cinch_topology *t); /* a zeroed one is empty */

/* Topology XML that NCCL and cinch_topology_read understand. A tree of PCI parts is written as
 * such; what that format cannot say (a link between NICs, a PCI part below two others) is an
 * InvalidArgument that names it. SystemError: the write failed. */
cinchResult_t cinch_topology_write_nccl(const cinch_graph *graph, FILE *to);

#endif

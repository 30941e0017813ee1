/* SPDX-License-Identifier: Apache-2.0 */
/* A job of several ranks as one graph, made of the graphs of the hosts on which they run and of
 * where each rank sits. */
#ifndef CINCH_TOPO_JOB_H_
#define CINCH_TOPO_JOB_H_

#include "topo/graph.h"

typedef struct cinch_job_rank {
    int host;                           /* an index into the hosts' graphs */
    char at[CINCH_GRAPH_MOST_NAME + 1]; /* a node of that graph: the GPU that the rank uses, or the
                                         * CPU on which it runs; "": the host's first CPU */
} cinch_job_rank;

/* How fast a rank that runs on a CPU moves bytes to another by shared memory, one core that copies:
 * what UCX assumes (UCX_SM_BW=12179MBs). */
#define CINCH_JOB_SHM_GBPS 12.179
/* Inside a GPU that ranks share: NCCL's LOC_BW. */
#define CINCH_JOB_DEVICE_GBPS 5000.0
/* Of a host whose NICs are not told, 10 Gbit/s. */
#define CINCH_JOB_NIC_GBPS 1.25

/* *job: an empty graph, in which GPU node i becomes rank i.
 *
 * A GPU of one rank is that rank's node and keeps its links; one that several share becomes a
 * switch that they hang from, and one without a rank is left out. A rank on a CPU is a node that
 * hangs from it. Switches keep their names, with `h1/` before them where there is more than one
 * host; then the networks behind all NICs are one switch, `network`, and a host without one gets a
 * NIC of CINCH_JOB_NIC_GBPS. The same input makes the same graph on every rank.
 *
 * InvalidArgument, with *job empty: a rank's host or node is not there, or two ranks cannot reach
 * each other. SystemError: out of memory. */
cinchResult_t cinch_job_graph(const cinch_graph *const *host, int hosts, const cinch_job_rank *rank,
                              int ranks, cinch_graph *job);

/* The text of a graph as cinch_graph_write has it, to send to another rank that gives it to
 * cinch_graph_read: nodes and arcs, parts, hosts and classes of links come out as they went in.
 * The caller frees *text. SystemError. */
cinchResult_t cinch_job_text(const cinch_graph *graph, char **text, size_t *length);

#endif

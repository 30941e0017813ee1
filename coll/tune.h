/* SPDX-License-Identifier: Apache-2.0 */
/* Measuring what a cinch_tuned holds. Everything here is collective over the communicator's ranks,
 * and all of them come to the same numbers. */
#ifndef CINCH_COLL_TUNE_H_
#define CINCH_COLL_TUNE_H_

#include "coll/comm.h"
#include "coll/tuned.h"

/* ---- the network ---- */

/* Between hosts, in 1e9 bytes a second and microseconds. */
typedef struct cinch_tune_net {
    int hosts;
    double *gbps;     /* [hosts * hosts] from host i to host j at i * hosts + j; 0 where i == j */
    double *alpha_us; /* [hosts * hosts] likewise */
    double *out, *in; /* [hosts] all that a host sends or receives at once; 0: not measured */
    double shm_gbps, shm_alpha_us; /* between two ranks of a host; 0: no host has two */
} cinch_tune_net;

cinchResult_t cinch_tune_net_make(cinch_tune_net *net, int hosts); /* zeroed; SystemError */
void cinch_tune_net_free(cinch_tune_net *net);

/* One rank of each host exchanges messages with one of each other host, both ways at once, pair
 * after pair up to 16 hosts; beyond, disjoint pairs at the same time. */
cinchResult_t cinch_tune_network(struct cinchComm *comm, cinch_tune_net *net);

/* In how many steps that is, and a host's partner in one of them, or -1. */
int cinch_tune_steps(int hosts);
int cinch_tune_partner(int hosts, int step, int host);

/* The graph that explains what was measured: ranks on hosts, hosts on one network where each pair
 * gets the smaller of what one host sends and the other receives, else a link for each pair. host:
 * [ranks], from 0 on. */
cinchResult_t cinch_tune_graph(const cinch_tune_net *net, int ranks, const uint16_t *host,
                               cinch_graph *graph);

/* ---- codecs ---- */

/* How fast this rank encodes with a codec, and decodes and adds. InvalidArgument: no such codec. */
cinchResult_t cinch_tune_codec(const char *spec, cinch_codec_speed *speed);

/* ---- curves ---- */

typedef struct cinch_tune_options {
    unsigned ops;         /* bit per cinch_collective */
    uint64_t first, last; /* bytes; the sizes between are four times the one before */
    double budget_ms;     /* of each size, all candidates together; 0: 4000 */
    /* NULL, or told on every rank what is measured next. */
    void (*progress)(void *arg, const char *what);
    void *arg;
} cinch_tune_options;

/* The codecs that are measured beside exact; ends with NULL. */
extern const char *const cinch_tune_codecs[];

/* Network, graph, codecs and curves, into a zeroed `tuned`; the network as it was measured into
 * `net`, which wants cinch_tune_net_free. The communicator has joined, and
 * nothing runs on it. */
cinchResult_t cinch_tune(struct cinchComm *comm, const cinch_tune_options *options,
                         cinch_tune_net *net, cinch_tuned *tuned);

/* A short measurement for CINCH_CODEC=auto where no plan file knows, into a zeroed `tuned`: for
 * each of the collectives, of which `ops` has a bit each, curves of an exact one and of one with
 * the codec that auto uses, by the algorithms that are chosen without this. The time is shared out
 * among them. Also in a join, once links and views are there. Where the codec is none, `tuned` gets
 * no curves. */
cinchResult_t cinch_tune_quick(struct cinchComm *comm, unsigned ops, cinch_tuned *tuned);

#endif

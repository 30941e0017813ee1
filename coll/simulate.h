/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a collective's schedules, those that the engine would run, for all ranks on a virtual clock
 * over a graph: how long would it take there? Links are shared, with latencies; the network is
 * transports/sim.
 *
 * A rank does what the engine does: items in list order, each when the messages that it depends on
 * are complete. A send is complete when its last byte has left the rank, a receive when it has
 * come. Messages of one connection go in order; one may go ahead of its receive as far as the
 * receiver has room (`ahead_bytes`), else it waits for it. */
#ifndef CINCH_COLL_SIMULATE_H_
#define CINCH_COLL_SIMULATE_H_

#include "coll/algo.h"
#include "topo/graph.h"
#include "topo/pace.h"
#include "topo/plan.h"

typedef struct cinch_simulate_options {
    double latency_us[CINCH_LINK_CLASSES]; /* of a link, by its class */
    double message_us;                     /* of a rank's own time for a message at either end */
    double memory_gbps; /* at which a rank copies and reduces, by bytes read; 0: in no time */
    size_t ahead_bytes;
    size_t chunk; /* bytes of a part; 0: as the algorithm likes */
    size_t esize; /* bytes of an element */
    /* Of a codec, where the call is encoded. */
    double ratio;                    /* bytes on the wire over bytes of the message */
    double encode_gbps, decode_gbps; /* of the message; 0: in no time */
    size_t granule;                  /* elements that are encoded together */
    /* The way of the messages with this mark from one rank to another, as nodes of the graph, both
     * ends included. NULL: as topo/route.h has it, rank i sitting at the graph's i-th GPU. */
    cinchResult_t (*path)(void *context, int from, int to, int mark, const int **node, int *nodes);
    void *context;
} cinch_simulate_options;

typedef struct cinch_simulation {
    double us;
    size_t rounds, simulated; /* fewer: of a long message the first so many rounds were simulated,
                                 and the rest takes as long each as the later half of those */
    bool rough;               /* and those were too few to tell well */
    uint64_t messages;        /* of the simulated rounds */
    int busiest;              /* the arc that was in use for the largest part of the time */
    double busy;              /* that part */
} cinch_simulation;

/* Latencies from a table with sources; no time for messages, memory and codecs; elements of 4
 * bytes; a codec of a quarter; 256 KiB ahead, as a ring of transports/shm has. */
extern const cinch_simulate_options cinch_simulate_defaults;

/* options: NULL is the defaults. InvalidArgument: the algorithm cannot serve the call; its ranks
 * read each other's memory, which is no message; there are more ranks than GPUs, or no way between
 * two of them; options that mean nothing. InternalError: schedules that do not fit each other.
 * SystemError: out of memory. */
cinchResult_t cinch_simulate(const cinch_graph *graph, const cinch_algo *algo,
                             const cinch_call *call, const cinch_simulate_options *options,
                             cinch_simulation *out);

/* Runs a plan for `bytes`, as cinch_plan_us counts them: its trees by the algorithm `forest`, one
 * ring by the algorithm `ring`, over the plan's own paths. InvalidArgument also: a plan of several
 * rings. options->path is not used. */
cinchResult_t cinch_simulate_plan(const cinch_graph *graph, const cinch_plan *plan, uint64_t bytes,
                                  const cinch_simulate_options *options, cinch_simulation *out);

/* The algorithm of that name for what is planned, ranks in the order of GPUs. InvalidArgument also:
 * the operation has none of that name. */
cinchResult_t cinch_simulate_named(const cinch_graph *graph, const char *name, cinch_plan_op op,
                                   int root, uint64_t bytes, const cinch_simulate_options *options,
                                   cinch_simulation *out);

#endif

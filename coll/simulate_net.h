/* SPDX-License-Identifier: Apache-2.0 */
/* All ranks' schedules, tied together: which receive belongs to which send, and which way each
 * message goes. Between simulate.c and simulate_net.c. */
#ifndef CINCH_COLL_SIMULATE_NET_H_
#define CINCH_COLL_SIMULATE_NET_H_

#include "coll/simulate.h"

/* A message of a rank's schedule, one end of it. Rounds are counted, as they come in order. */
typedef struct cinch_sim_end {
    uint32_t peer; /* the other end */
    uint32_t flow;
    uint32_t item; /* of its rank's schedule */
    uint32_t posted, started, done;
    bool empty; /* in the last round */
} cinch_sim_end;

/* A connection: messages that go one after the other along the same way. */
typedef struct cinch_sim_flow {
    uint16_t from, to;
    uint16_t mark;  /* of its messages, where ways depend on that */
    bool busy;      /* one is leaving */
    uint32_t route; /* into arcs */
    int hops;
    uint32_t next;       /* with the same end, while ways are sought; UINT32_MAX: the last */
    uint32_t head, tail; /* posted messages that wait, one past their index; 0: none */
    double ahead;        /* bytes on the way or there for receives that are not posted */
} cinch_sim_flow;

typedef struct cinch_sim_net {
    const cinch_graph *graph;
    const cinch_simulate_options *options;
    int ranks;
    cinch_schedule *schedule; /* [ranks] */
    uint32_t *first;          /* [ranks + 1] a rank's ends: end[first[rank] + item.msg] */
    cinch_sim_end *end;
    uint32_t ends, flows, flow_room;
    cinch_sim_flow *flow;
    int *arcs; /* of all ways */
    size_t arcs_used, arcs_room;
} cinch_sim_net;

/* Builds all schedules of a call and ties them. A failed one needs no free. */
cinchResult_t cinch_sim_net_make(const cinch_graph *graph, const cinch_algo *algo,
                                 const cinch_call *call, const cinch_simulate_options *options,
                                 cinch_sim_net *net);
void cinch_sim_net_free(cinch_sim_net *net);

#endif

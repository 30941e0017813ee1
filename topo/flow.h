/* SPDX-License-Identifier: Apache-2.0 */
/* Maximum flow in whole numbers, with its minimum cut.
 *
 * The flow stays between runs: more can be pushed on top of it, from and to other nodes, which is
 * what makes a thousand related cuts cost little more than one. */
#ifndef CINCH_TOPO_FLOW_H_
#define CINCH_TOPO_FLOW_H_

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "topo/graph.h"

/* The most that an arc, a limit or all flow together may be: twice it still fits. */
#define CINCH_FLOW_MOST ((int64_t)1 << 61)

/* Arc e goes from to[e ^ 1] to to[e]; e ^ 1 is its way back. */
typedef struct cinch_flow {
    int nodes, arcs, arc_room;
    int *to;
    int64_t *left;     /* what an arc can still take */
    int64_t *capacity; /* what it takes from the start */
    int *first, *out;  /* arcs out of node v: out[first[v]] to out[first[v + 1] - 1] */
    int *level, *cursor, *queue, *path;
    int queued;
    bool listed;
} cinch_flow;

/* A network of so many nodes, without arcs. SystemError: out of memory; free it in any case. */
cinchResult_t cinch_flow_make(cinch_flow *flow, int nodes);
void cinch_flow_free(cinch_flow *flow);

/* Adds an arc and its way back; *arc (NULL: not wanted) its number. SystemError: out of memory. */
cinchResult_t cinch_flow_add(cinch_flow *flow, int from, int to, int64_t capacity, int64_t back,
                             int *arc);

/* The nodes and arcs of a graph whose arcs can take `capacity[i]`, and `spare` nodes behind them;
 * arc[i] (NULL: not wanted) the number of arc i. SystemError: out of memory; free it in any case.
 */
cinchResult_t cinch_flow_of_graph(cinch_flow *flow, const cinch_graph *graph,
                                  const int64_t *capacity, int spare, int *arc);

/* Takes back all flow, and makes every capacity `times` what it was given as. */
void cinch_flow_reset(cinch_flow *flow, int64_t times);

/* Pushes more flow from source to sink, at most `limit`; *pushed is how much. Push looks around the
 * source and pull around the sink: the cheaper one is where the way is short. InternalError or
 * SystemError: out of memory. */
cinchResult_t cinch_flow_push(cinch_flow *flow, int source, int sink, int64_t limit,
                              int64_t *pushed);
cinchResult_t cinch_flow_pull(cinch_flow *flow, int source, int sink, int64_t limit,
                              int64_t *pushed);

/* After a push (pull) of less than its limit: whether a node is on the source's (sink's) side of
 * the minimum cut, the smallest such side. */
bool cinch_flow_near(const cinch_flow *flow, int node);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* `cinch topo --simulate`: how long a plan takes by the simulator, beside what was predicted and
 * what a ring and a tree in the order of ranks take. */
#ifndef CINCH_PERF_TOPO_SIMULATE_H_
#define CINCH_PERF_TOPO_SIMULATE_H_

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "coll/simulate.h"

typedef struct cinch_topo_run {
    const char *name;
    cinch_simulation result;
    char why[CINCH_ERROR_TEXT]; /* it could not be simulated; "": it was */
} cinch_topo_run;

typedef struct cinch_topo_simulated {
    cinch_topo_run plan;
    cinch_topo_run other[2];
    int others;
} cinch_topo_simulated;

/* others: also those that the plan is compared with. What cannot be simulated is no failure: it has
 * a sentence. */
cinchResult_t cinch_topo_simulate(const cinch_graph *graph, const cinch_plan *plan, uint64_t bytes,
                                  bool others, cinch_topo_simulated *simulated);

void cinch_topo_simulated_text(FILE *f, const cinch_graph *graph,
                               const cinch_topo_simulated *simulated, double predicted_us);

#endif

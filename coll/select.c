/* SPDX-License-Identifier: Apache-2.0 */
/* The table of algorithms and the choice among them. */
#include <string.h>

#include "coll/algo.h"
#include "topo/pace.h"

static const cinch_algo *const table[] = {
    &cinch_algo_oneshot,
    &cinch_algo_twoshot,
    &cinch_algo_ring,
    &cinch_algo_tree,
    &cinch_algo_halving,
    &cinch_algo_direct,
    &cinch_algo_exchange,
    &cinch_algo_twostep,
    &cinch_algo_hier,
    &cinch_algo_forest,
    &cinch_algo_reducescatter_oneshot,
    &cinch_algo_reducescatter_ring,
    &cinch_algo_reducescatter_direct,
    &cinch_algo_reducescatter_hier,
    &cinch_algo_reducescatter_forest,
    &cinch_algo_allgather_oneshot,
    &cinch_algo_allgather_ring,
    &cinch_algo_allgather_direct,
    &cinch_algo_allgather_hier,
    &cinch_algo_allgather_forest,
    &cinch_algo_broadcast_oneshot,
    &cinch_algo_broadcast_ring,
    &cinch_algo_broadcast_tree,
    &cinch_algo_broadcast_direct,
    &cinch_algo_broadcast_hier,
    &cinch_algo_broadcast_forest,
    &cinch_algo_reduce_oneshot,
    &cinch_algo_reduce_twoshot,
    &cinch_algo_reduce_ring,
    &cinch_algo_reduce_tree,
    &cinch_algo_reduce_direct,
    &cinch_algo_reduce_hier,
    &cinch_algo_reduce_forest,
    &cinch_algo_alltoall_oneshot,
    &cinch_algo_alltoall_direct,
    &cinch_algo_gather_oneshot,
    &cinch_algo_gather_direct,
    &cinch_algo_scatter_oneshot,
    &cinch_algo_scatter_direct,
};

int cinch_parts_one(const cinch_call *call) {
    (void)call;
    return 1;
}

int cinch_parts_ranks(const cinch_call *call) {
    return call->nranks;
}

const cinch_algo *cinch_algo_at(int index) {
    return index >= 0 && (size_t)index < sizeof table / sizeof *table ? table[index] : NULL;
}

const cinch_algo *cinch_algo_find(cinch_collective collective, const char *name) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i]->collective == collective && strcmp(table[i]->name, name) == 0)
            return table[i];
    return NULL;
}

const cinch_algo *cinch_algo_choose(const cinch_call *call) {
    const cinch_algo *best = NULL;
    double least = 0;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i]->collective != call->collective || table[i]->supports(call)) continue;
        double cost = table[i]->cost(call);
        if (!best || cost < least) best = table[i], least = cost;
    }
    return best;
}

cinchResult_t cinch_algo_build(const cinch_algo *algo, int rank, const cinch_call *call,
                               cinch_schedule *schedule) {
    cinch_builder b;
    algo->build(&b, schedule, rank, call->nranks, call);
    schedule->collective = call->collective;
    schedule->root = call->root;
    return cinch_build_end(&b);
}

/* Guesses for messages without a graph: shared memory rings where windows exist, else TCP on a fast
 * network. */
double cinch_cost_step(const cinch_call *call) {
    return call->pace ? call->pace->step_us : call->windows ? 0.4 : 10.0;
}
double cinch_cost_byte(const cinch_call *call) {
    return call->pace ? call->pace->byte_us : call->windows ? 1.2e-4 : 8e-4;
}

double cinch_cost_crossing(const cinch_call *call) {
    if (call->pace) return call->pace->crossing;
    if (call->per_host < 2 || call->hosts < 2) return 1;
    double n = call->nranks, here = call->per_host;
    return here * (n - here) / (n - 1);
}

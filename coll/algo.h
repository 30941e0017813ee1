/* SPDX-License-Identifier: Apache-2.0 */
/* The algorithms: a file each, and a row for each collective that it serves. */
#ifndef CINCH_COLL_ALGO_H_
#define CINCH_COLL_ALGO_H_

#include "coll/schedule.h"

/* What the selection knows of a call. */
typedef struct cinch_call {
    cinch_collective collective;
    int nranks, root;
    size_t bytes;         /* of a block */
    bool windows;         /* all ranks share a host and see each other's windows */
    bool mapped;          /* and each other's buffers */
    bool encoded;         /* with a codec; where hosts are several, as these two say: */
    bool inside;          /* one for the inside of hosts too */
    bool exact_between;   /* none between hosts */
    bool device;          /* the buffers are a device's memory */
    bool crowded;         /* more ranks than CPUs: who waits for all waits for the scheduler */
    size_t small_bytes;   /* room of a small stage slot */
    const uint16_t *host; /* [nranks] each rank's, from 0 on; NULL where they share one */
    int hosts, per_host;  /* ranks on each, 0 where hosts differ in that */
    const uint16_t *site; /* [hosts] each host's, from 0 on; NULL where they share one */
    int sites;            /* 0, 1: one */
    const struct cinch_forest *forest; /* the planned trees of the collective, or NULL */
    const struct cinch_pace *pace;     /* of the machine's graph; NULL: none is known */
} cinch_call;

typedef struct cinch_algo {
    const char *name; /* as in CINCH_ALGO */
    cinch_collective collective;

    /* NULL: can serve the call; else why not, as the end of "NAME cannot serve this call: ". */
    const char *(*supports)(const cinch_call *call);

    /* A guess in microseconds, good for ranking. */
    double (*cost)(const cinch_call *call);

    /* Fills b with what `rank` does; the caller begins and ends the schedule's building. */
    void (*build)(cinch_builder *b, cinch_schedule *s, int rank, int nranks,
                  const cinch_call *call);

    int (*parts)(const cinch_call *call); /* of its schedules */

    /* Bytes of a part: part_bytes in a long message, down to least_bytes in a short one, so that a
     * few rounds can overlap. round_most: 0, or the room of a round, all blocks of the send buffer
     * together. */
    size_t part_bytes, least_bytes, round_most;
    size_t (*round_bytes)(const cinch_call *call); /* of a round, in place of all that; or NULL */

    size_t
        maps_from; /* bytes from which it reaches into peers' buffers that are mapped; 0: never */
} cinch_algo;

/* For `parts`: one, and one for each rank. */
int cinch_parts_one(const cinch_call *call);
int cinch_parts_ranks(const cinch_call *call);

/* Rows of all-reduce, and of all others as far as the algorithm serves them. */
extern const cinch_algo cinch_algo_oneshot, cinch_algo_twoshot, cinch_algo_ring, cinch_algo_tree,
    cinch_algo_halving, cinch_algo_direct, cinch_algo_exchange, cinch_algo_twostep, cinch_algo_hier;
extern const cinch_algo cinch_algo_forest, cinch_algo_reducescatter_forest,
    cinch_algo_allgather_forest, cinch_algo_broadcast_forest, cinch_algo_reduce_forest;
extern const cinch_algo cinch_algo_reducescatter_oneshot, cinch_algo_allgather_oneshot,
    cinch_algo_broadcast_oneshot, cinch_algo_reduce_oneshot, cinch_algo_alltoall_oneshot,
    cinch_algo_gather_oneshot, cinch_algo_scatter_oneshot;
extern const cinch_algo cinch_algo_reduce_twoshot;
extern const cinch_algo cinch_algo_reducescatter_ring, cinch_algo_allgather_ring,
    cinch_algo_broadcast_ring, cinch_algo_reduce_ring;
extern const cinch_algo cinch_algo_broadcast_tree, cinch_algo_reduce_tree;
extern const cinch_algo cinch_algo_reducescatter_direct, cinch_algo_allgather_direct,
    cinch_algo_broadcast_direct, cinch_algo_reduce_direct, cinch_algo_alltoall_direct,
    cinch_algo_gather_direct, cinch_algo_scatter_direct;

extern const cinch_algo cinch_algo_reducescatter_hier, cinch_algo_allgather_hier,
    cinch_algo_broadcast_hier, cinch_algo_reduce_hier;

const cinch_algo *cinch_algo_at(int index); /* NULL past the end */

/* The collective's algorithm of that name, or NULL. */
const cinch_algo *cinch_algo_find(cinch_collective collective, const char *name);

/* The cheapest that can serve the call; NULL: a codec that none takes. */
const cinch_algo *cinch_algo_choose(const cinch_call *call);

/* Schedules of `rank` by `algo`. */
cinchResult_t cinch_algo_build(const cinch_algo *algo, int rank, const cinch_call *call,
                               cinch_schedule *schedule);

/* Bytes of a round of a block. chunk: of a part (CINCH_CHUNK), 0: as the algorithm likes. */
size_t cinch_algo_round_bytes(const cinch_algo *algo, const cinch_call *call, size_t chunk);

/* What the cost guesses count with: microseconds per step and per byte of the slowest link that a
 * call crosses, on the machine's graph where one is known. */
double cinch_cost_step(const cinch_call *call);
double cinch_cost_byte(const cinch_call *call);

/* Where every rank sends to every other: how much the ranks of a host, which share its network,
 * slow each other down. */
double cinch_cost_crossing(const cinch_call *call);

#endif

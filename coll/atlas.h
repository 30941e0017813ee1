/* SPDX-License-Identifier: Apache-2.0 */
/* The machine as a communicator knows it: one graph of all ranks' hosts, the same on every rank,
 * and the trees that are planned for it. */
#ifndef CINCH_COLL_ATLAS_H_
#define CINCH_COLL_ATLAS_H_

#include "coll/forest.h"
#include "coll/tuned.h"
#include "topo/pace.h"

struct cinchComm;
typedef struct cinch_atlas cinch_atlas;

/* Whether this rank's settings ask for it: CINCH_ALGO=forest, CINCH_TOPO_FILE, CINCH_TOPO_DUMP. */
bool cinch_atlas_asked(const struct cinchComm *comm);

/* Every rank looks at its host, and all put together what they see. A file in place of that is of
 * the whole job where it has a GPU for each rank, else of the host that reads it. Collective; a
 * rank that cannot is told to all, in one sentence. Host numbers must be known. */
cinchResult_t cinch_atlas_join(struct cinchComm *comm);

/* Puts a graph in force, which is copied: rank i is its GPU i. Plans of another are forgotten. No
 * operation may be under way. InvalidArgument: not as many GPUs as ranks. */
cinchResult_t cinch_atlas_use_graph(struct cinchComm *comm, const cinch_graph *graph);

/* The same with a measured table's graph; its latencies are what calls take a step. */
cinchResult_t cinch_atlas_use_tuned(struct cinchComm *comm, const cinch_tuned *tuned);

/* What the graph in force says of messages, for the cost guesses; NULL: there is none. */
const cinch_pace *cinch_atlas_pace(const struct cinchComm *comm);

/* The graph in force, or NULL. */
const cinch_graph *cinch_atlas_graph(const struct cinchComm *comm);

/* The trees for a collective, planned when first asked for; NULL where there is no graph, nobody
 * wants them (neither CINCH_ALGO nor a measured table), or planning failed, which is warned about
 * once. The same on every rank. */
const cinch_forest *cinch_atlas_forest(const struct cinchComm *comm, cinch_collective collective,
                                       int root);

/* GB/s of all blocks that no algorithm can pass on the graph; 0: not known, as where a graph comes
 * from detection, which has to assume some speeds. */
double cinch_atlas_bound(const struct cinchComm *comm, cinch_collective collective, int root);

void cinch_atlas_free(struct cinchComm *comm);

#endif

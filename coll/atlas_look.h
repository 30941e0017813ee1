/* SPDX-License-Identifier: Apache-2.0 */
/* How the ranks of a communicator put together what each sees of the machine. */
#ifndef CINCH_COLL_ATLAS_LOOK_H_
#define CINCH_COLL_ATLAS_LOOK_H_

#include "topo/graph.h"

struct cinchComm;

/* Collective. *graph: an empty one, in which GPU node i becomes rank i. A rank's failure is
 * everyone's, in the same sentence. */
cinchResult_t cinch_look_together(const struct cinchComm *comm, cinch_graph *graph);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What ranks tell each other of their machines and plan files. */
#ifndef CINCH_COLL_INFORCE_SHARE_H_
#define CINCH_COLL_INFORCE_SHARE_H_

#include "coll/comm.h"

/* Finds out what the ranks' machines are (comm->machine), and gives rank 0's CINCH_PLAN_FILE to
 * every rank: *text, on the heap, or NULL where rank 0 has none. A rank whose file is another one
 * is refused on every rank. Collective. */
cinchResult_t cinch_inforce_share(struct cinchComm *comm, char **text, size_t *length);

#endif

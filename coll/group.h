/* SPDX-License-Identifier: Apache-2.0 */
/* Groups, and the way of an operation to its stream. */
#ifndef CINCH_COLL_GROUP_H_
#define CINCH_COLL_GROUP_H_

#include "coll/engine.h"

/* How deep this thread is in groups; 0: outside. */
int cinch_group_depth(void);

/* Whether this thread's group has calls of the communicator. */
bool cinch_group_holds(const struct cinchComm *comm);

/* Takes them out of the group again, as if they had not been called. */
void cinch_group_forget(struct cinchComm *comm);

/* A call in this thread's group was refused with `code` and this thread's last sentence: the group
 * will end with that, and run nothing. */
void cinch_group_spoil(cinchResult_t code);

/* Queues the call in this thread's group, or outside of one launches it: on its stream, or where
 * that is NULL to its end; on a non-blocking communicator in its worker, with InProgress. */
cinchResult_t cinch_group_submit(const cinch_called *call);

/* Operations that were queued, with their messages. */
void cinch_group_free(cinch_op *ops);

/* Whether this thread's group has operations. */
bool cinch_group_has_operations(void);

#endif

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

/* Queues the call in this thread's group, or outside of one launches it: on its stream, or to its
 * end where that is NULL. */
cinchResult_t cinch_group_submit(const cinch_called *call);

/* Queues an init in this thread's group; config's text is copied. */
cinchResult_t cinch_group_submit_init(cinchComm_t *comm, int nranks, const cinchUniqueId *id,
                                      int rank, const cinchConfig_t *config);

/* Runs inits, each in a thread of its own because each waits for the others. */
typedef struct cinch_init {
    struct cinch_init *next;
    cinchComm_t *comm;
    int nranks, rank;
    cinchUniqueId id;
    cinchConfig_t config;
    bool configured;
    char name[64];
    cinchResult_t result;
    char why[CINCH_ERROR_TEXT];
    pthread_t thread;
} cinch_init;
cinchResult_t cinch_init_run(cinch_init *list);

#endif

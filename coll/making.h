/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that make communicators: inits, splits and shrinks. Each waits for other ranks; so those of
 * a group run in a thread each, and those of non-blocking communicators as jobs of a stream. */
#ifndef CINCH_COLL_MAKING_H_
#define CINCH_COLL_MAKING_H_

#include "base/device.h"
#include "coll/comm.h"

typedef enum { CINCH_MAKE_INIT, CINCH_MAKE_SPLIT, CINCH_MAKE_SHRINK } cinch_making_kind;

typedef struct cinch_making {
    cinch_job job;             /* first */
    struct cinch_making *next; /* in a group */
    cinch_making_kind kind;
    cinchComm_t *out;
    struct cinchComm *comm; /* new; NULL: a split without a color */
    cinch_refusal refusal;
    cinchUniqueId id;         /* init, */
    int rank, nranks;         /* too */
    struct cinchComm *parent; /* split, shrink */
    uint64_t number;          /* split: its operation's; shrink: that of the next one */
    int color, key;           /* split */
    uint8_t *left_out;        /* shrink: [parent's ranks]; it is freed */
    bool stops;               /* shrink: what runs on the parent */
    pthread_t thread;
    cinchResult_t result;
    char why[CINCH_ERROR_TEXT];
} cinch_making;

/* Runs a copy of the call: queues it in this thread's group, or gives it to a stream (InProgress),
 * or runs it to its end. What it owns is freed in any case. */
cinchResult_t cinch_make(const cinch_making *call);

/* Where an init fails before it joins, for want of something that the system did not give: the
 * other ranks are told this thread's last error, if they meet in this process. */
void cinch_making_excuse(const cinch_making *call, cinchResult_t result);

/* Gives result back; where such a call has failed in a group, that will run nothing. */
cinchResult_t cinch_making_refuse(cinchResult_t result);

/* Runs those calls, each in a thread of its own; what they own is freed. */
cinchResult_t cinch_make_all(cinch_making *list);

/* This thread's group: whether it has such calls, whether they are about the communicator, taking
 * those out again, and the end of the group, which runs them or does not. */
bool cinch_making_queued(void);
bool cinch_making_holds(const struct cinchComm *comm);
void cinch_making_forget(const struct cinchComm *comm);
cinchResult_t cinch_making_end(bool run);

/* split.c: what a split and a shrink do with the parent, which they need no more afterwards; then
 * the new communicator joins. */
cinchResult_t cinch_split_run(cinch_making *m);
cinchResult_t cinch_shrink_run(cinch_making *m);

#endif

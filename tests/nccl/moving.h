/* SPDX-License-Identifier: Apache-2.0 */
/* A stand-in for the real NCCL: moves data between ranks of one process, on the streams of the
 * emulated GPU, with NCCL's rules. Nothing starts before the outermost GroupEnd; what a group holds
 * for a communicator is one piece of work, at which its streams join; works of a communicator run
 * one after another; a communicator's first work waits on the host for all of its ranks, as
 * connecting does. What breaks a rule, or does not match on two ranks, ends the process. */
#ifndef CINCH_TESTS_NCCL_MOVING_H_
#define CINCH_TESTS_NCCL_MOVING_H_

#include "coll/nccl/forward.h"

extern const cinch_real moving_nccl;

/* Ranks 0 to n-1, of one communicator, on these devices (NULL: all on device 0). Handles of
 * communicators that are gone are given again. */
void moving_init(cinchComm_t *comms, int n, const int *devices);

/* What a rank of a communicator has called so far. */
typedef struct moving_seen {
    uint64_t allreduces, allgathers, reducescatters, sends, bytes; /* bytes: sent and gathered */
} moving_seen;
moving_seen moving_look(cinchComm_t comm);

/* From now on the communicator answers with InProgress for a while, as one does that does not
 * block. */
void moving_dawdle(cinchComm_t comm);

/* What GetAsyncError answers. */
void moving_break(cinchComm_t comm, cinchResult_t state);

/* Communicators that are there. */
int moving_held(void);

#endif

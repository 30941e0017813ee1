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
    uint64_t allreduces, allgathers, reducescatters, broadcasts, reduces, sends, recvs;
    uint64_t premuls; /* those of them with an operator that multiplies first */
    uint64_t bytes;   /* sent and gathered */
} moving_seen;
moving_seen moving_look(cinchComm_t comm);

/* From now on the communicator answers with InProgress for a while, as one does that does not
 * block. */
void moving_dawdle(cinchComm_t comm);

/* What GetAsyncError answers. */
void moving_break(cinchComm_t comm, cinchResult_t state);

/* ---- for libcinch's own communicators: moving_init.c, moving_real.c ---- */

/* How CommInitRankConfig goes, on one device or (-1) all: it returns the code and does nothing; or
 * (late) all ranks come, and then it fails. It lasts until moving_fine. */
void moving_refuse(int device, cinchResult_t code, bool late);

/* What loading it says, on one device: no library, or one of this version. */
void moving_library(int device, int version);
void moving_fine(void);

extern int moving_inits;  /* communicators that CommInitRankConfig has made */
extern int moving_loads;  /* how often the library was asked for */
extern int moving_aborts; /* communicators that were aborted */

/* As moving_look, of the newest communicator on the device, also after its end. */
moving_seen moving_look_at(int device);

/* The handle of the newest communicator on the device. */
cinchComm_t moving_newest(int device);

/* Communicators that are there. */
int moving_held(void);

#endif

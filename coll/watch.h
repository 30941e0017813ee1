/* SPDX-License-Identifier: Apache-2.0 */
/* A communicator under the monitor's eyes: what it says of itself, and whom it asks when it waits
 * for long. See transports/rendezvous.h for questions and answers. */
#ifndef CINCH_COLL_WATCH_H_
#define CINCH_COLL_WATCH_H_

#include "coll/engine.h"

/* From the join on: failures become the communicator's although nobody is in a call of it. */
cinchResult_t cinch_watch_begin(struct cinchComm *comm);
void cinch_watch_end(struct cinchComm *comm);

/* An operation has waited since idle->since_ns, and it is its turn: notes how far it came, asks who
 * is missing, warns, and gives it up when the time is over. Success, or the failure. */
cinchResult_t cinch_watch_wait(cinch_idle *idle, cinch_op *op, uint64_t now);

/* This rank has seen that `peer` called something else, as the sentence says. Returns InvalidUsage
 * with what all ranks are told: both sides of it. */
cinchResult_t cinch_watch_differs(struct cinchComm *comm, int peer, const char *sentence)
    __attribute__((cold));

/* The same after a link's failure, where that was it; else code. */
cinchResult_t cinch_watch_odd(struct cinchComm *comm, cinchResult_t code) __attribute__((cold));

#endif

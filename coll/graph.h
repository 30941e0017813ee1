/* SPDX-License-Identifier: Apache-2.0 */
/* Operations in a device's graphs: what is called on a captured stream runs again at every launch
 * of the graph.
 *
 * A launch is nothing that this library sees, until the graph comes to a call's gate. So operations
 * of a communicator with such calls have their number not from the call, but from when their
 * streams have come to them; and an event that each of them waits for and then records, in graphs
 * and outside of them, keeps them in the order in which calls and launches were made, which is the
 * same on all ranks. */
#ifndef CINCH_COLL_GRAPH_H_
#define CINCH_COLL_GRAPH_H_

#include "coll/engine.h"

/* What the operations' streams are captured into; 0: no graph. InvalidUsage: not all of them into
 * the same one, or the capture has failed. */
cinchResult_t cinch_graph_of(const cinch_op *ops, uint64_t *capture);

/* Puts them into that graph; the operations are its own now, be there a failure or not. After a
 * failure with something captured, the communicators have failed: the other ranks' graphs would
 * wait for this one's. */
cinchResult_t cinch_graph_record(cinch_op *ops, uint64_t capture);

/* ---- calls outside of graphs ---- */

/* Gives the operation its number, where it is known from the call; else op->late is set. Waits for
 * launches and calls on a device before it where the operation itself is on none. */
void cinch_graph_place(const cinch_op *ops, cinch_op *op);

/* The late ones' numbers, when their streams have come to them. */
void cinch_graph_number(cinch_op *ops);

/* Before and after the late ones are queued on their streams: their order among launches. */
cinchResult_t cinch_graph_before(const cinch_op *ops);
cinchResult_t cinch_graph_after(const cinch_op *ops);

/* ---- the communicator ---- */

/* Waits until all that was called and launched before is complete, or aborted; then all numbers
 * are given. Nothing to do in a communicator without calls in graphs. */
void cinch_graph_settle(struct cinchComm *comm);

/* Launches go on without the communicator: its calls in graphs, and those that were in a group with
 * them, do nothing any more. */
void cinch_graph_leave(struct cinchComm *comm);

#endif

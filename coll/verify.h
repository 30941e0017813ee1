/* SPDX-License-Identifier: Apache-2.0 */
/* Proves that schedules compute their collective: it runs all ranks' schedules on symbols instead
 * of numbers, over several rounds and two calls in a row. */
#ifndef CINCH_COLL_VERIFY_H_
#define CINCH_COLL_VERIFY_H_

#include "coll/schedule.h"

/* schedule[0..nranks). in_place: IN and OUT are the same memory. True, or false with a sentence in
 * why (CINCH_ERROR_TEXT bytes).
 *
 * What holds then, for any count, any timing of the ranks and transports that buffer nothing:
 *  - every block of every OUT that the collective fills has, in every part, the pieces that belong
 *    there and from each rank that belongs there exactly once; a sum has one FINAL;
 *  - no buffer is touched that the collective does not use on that rank, and IN is only read;
 *  - nothing is read before it is written, nor overwritten while someone may still read it; this
 *    covers messages under way and windows of peers, by vector clocks, across calls too;
 *  - messages pair up, and there is no deadlock;
 *  - who ends a call that uses flags knows that all ranks have begun it. */
bool cinch_verify(const cinch_schedule *schedule, int nranks, bool in_place, char *why);

#endif

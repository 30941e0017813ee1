/* SPDX-License-Identifier: Apache-2.0 */
/* The choice by measured curves: for every class of sizes which algorithm is best, and whether a
 * codec pays. Looked up without a search. */
#ifndef CINCH_COLL_CHOICE_H_
#define CINCH_COLL_CHOICE_H_

#include "coll/algo.h"
#include "coll/tuned.h"
#include "compress/codec.h"

typedef struct cinch_choice cinch_choice;

/* From the curves without a codec and with this one (vt NULL: none). SystemError. *choice NULL
 * where there are no curves. */
cinchResult_t cinch_choice_make(const cinch_tuned *tuned, const cinch_codec *codec,
                                cinch_choice **choice);
void cinch_choice_free(cinch_choice *choice); /* NULL is nothing */

/* The algorithm for the call out of those with a curve, or NULL: none of them can serve it, there
 * are no curves of its collective, or they begin with much longer messages. */
const cinch_algo *cinch_choice_find(const cinch_choice *choice, const cinch_call *call);

/* Whether the codec is predicted to be at least 3 % faster than exact, at so many bytes in all; not
 * below the least size that was measured with it. A reduce-scatter or all-gather without curves of
 * the codec goes by the all-reduce of as many bytes. */
bool cinch_choice_pays(const cinch_choice *choice, cinch_collective collective, uint64_t bytes);

/* Whether there are curves of the collective, exact or with the codec. */
bool cinch_choice_knows(const cinch_choice *choice, cinch_collective collective, bool encoded);

/* Whether a curve of the collective, with whatever codec, is the forest's. */
bool cinch_choice_has_forest(const cinch_choice *choice, cinch_collective collective);

/* The first size of the class that follows that of `bytes`. */
uint64_t cinch_choice_next(uint64_t bytes);

/* The algorithm's curve for the codec (NULL or vt NULL: exact), or NULL. */
const cinch_curve *cinch_choice_curve(const cinch_tuned *tuned, cinch_collective collective,
                                      const char *algo, const cinch_codec *codec);

#endif

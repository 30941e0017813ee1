/* SPDX-License-Identifier: Apache-2.0 */
/* CINCH_MAX_REL_ERROR: which codec stays inside it, and a look at whether the one in force does. */
#ifndef CINCH_COLL_BUDGET_H_
#define CINCH_COLL_BUDGET_H_

struct cinch_op;

/* What CINCH_CODEC=auto compresses with: the smallest codec whose error is within the limit (0:
 * there is none), "none" where no codec's is. */
const char *cinch_budget_codec(double limit);

/* Every so many compressed operations: encodes a piece of the rank's own input once more, and
 * warns, once for a communicator, where the error is beyond the limit. The operation is planned. */
void cinch_budget_look(struct cinch_op *op);

#endif

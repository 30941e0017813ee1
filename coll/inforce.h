/* SPDX-License-Identifier: Apache-2.0 */
/* The measured table that is in force on a communicator: from CINCH_PLAN_FILE, or measured at init
 * for CINCH_CODEC=auto. */
#ifndef CINCH_COLL_INFORCE_H_
#define CINCH_COLL_INFORCE_H_

#include "coll/comm.h"

/* The end of a join: what the ranks' machines are, the plan file, the codec of the level that the
 * communicator spans, measurements where `auto` wants some, CINCH_PLAN_DUMP. Collective. */
cinchResult_t cinch_inforce_join(struct cinchComm *comm);

/* Measures what `auto` needs and the table does not have. Collective. */
cinchResult_t cinch_inforce_measure(struct cinchComm *comm);

/* Fills the fields that say for whom a table is: machine, ranks, hosts, host. SystemError. */
cinchResult_t cinch_inforce_place(const struct cinchComm *comm, cinch_tuned *tuned);

/* Whether CINCH_PLAN_DUMP, if set, can be written; else a sentence in why (CINCH_ERROR_TEXT). */
bool cinch_inforce_writable(const cinch_settings *settings, char *why);

#endif

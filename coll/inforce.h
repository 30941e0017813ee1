/* SPDX-License-Identifier: Apache-2.0 */
/* The measured table that is in force on a communicator: from CINCH_PLAN_FILE, or measured at init
 * for CINCH_CODEC=auto. */
#ifndef CINCH_COLL_INFORCE_H_
#define CINCH_COLL_INFORCE_H_

#include "coll/comm.h"

/* The end of a join: what the ranks' machines are, the plan file, the codec of the level that the
 * communicator spans, measurements where `auto` wants some, CINCH_PLAN_DUMP. Collective. */
cinchResult_t cinch_inforce_join(struct cinchComm *comm);

/* For a new communicator of all the parent's ranks, in whatever order: keeps a copy of the curves
 * that the parent goes by. Of others, and where the new one has no `auto` or other transports,
 * nothing. No operation of the parent is under way. SystemError. */
cinchResult_t cinch_inforce_inherit(struct cinchComm *comm, const struct cinchComm *parent);

/* Takes what `auto` needs and the table does not have: what was inherited, where each rank's host
 * is what it was in the parent, else measures. Collective. */
cinchResult_t cinch_inforce_measure(struct cinchComm *comm);

/* Fills the fields that say for whom a table is: machine, ranks, hosts, host. SystemError. */
cinchResult_t cinch_inforce_place(const struct cinchComm *comm, cinch_tuned *tuned);

/* Whether CINCH_PLAN_DUMP, if set, can be written; else a sentence in why (CINCH_ERROR_TEXT). */
bool cinch_inforce_writable(const cinch_settings *settings, char *why);

#endif

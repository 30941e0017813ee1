/* SPDX-License-Identifier: Apache-2.0 */
/* What a communicator tells about itself. */
#ifndef CINCH_COLL_INTROSPECT_H_
#define CINCH_COLL_INTROSPECT_H_

#include "base/settings.h"

struct cinchComm;

/* Whether that file, if any, can be written; else a sentence in why (CINCH_ERROR_TEXT bytes). */
bool cinch_stats_writable(const cinch_settings *settings, char *why);

/* Appends the communicator's line to CINCH_STATS_FILE, where one is set. */
void cinch_stats_write(struct cinchComm *comm);

#endif

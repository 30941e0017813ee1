/* SPDX-License-Identifier: Apache-2.0 */
/* What a communicator tells about itself. */
#ifndef CINCH_COLL_INTROSPECT_H_
#define CINCH_COLL_INTROSPECT_H_

struct cinchComm;

/* Appends the communicator's line to CINCH_STATS_FILE, where one is set. */
void cinch_stats_write(struct cinchComm *comm);

#endif

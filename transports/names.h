/* SPDX-License-Identifier: Apache-2.0 */
/* The table of transports, and CINCH_TRANSPORT read against it. */
#ifndef CINCH_TRANSPORTS_NAMES_H_
#define CINCH_TRANSPORTS_NAMES_H_

#include "transports/transport.h"

#define CINCH_TRANSPORTS 4 /* rows of the table; the same in every build */

/* Indices into the table, the most wanted first. */
typedef struct cinch_transport_list {
    int count;
    int index[CINCH_TRANSPORTS];
    bool named; /* the user has named each */
} cinch_transport_list;

/* "auto": all. "tcp,shm": these, in this order; all of this build. "^shm": all others. False: a
 * clause in why. */
bool cinch_transport_list_parse(const char *text, cinch_transport_list *list, char *why,
                                size_t room);

#endif

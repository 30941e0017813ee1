/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that stays where it is until somebody says otherwise: what the caller has registered with
 * a communicator, and allocations of the process's heap. Only such memory may be made known to a
 * device or to a peer beyond a call: of any other, nobody tells that it was freed and that its
 * address means other pages now. */
#ifndef CINCH_TRANSPORTS_STEADY_H_
#define CINCH_TRANSPORTS_STEADY_H_

#include "transports/transport.h"

typedef struct cinch_steady {
    unsigned char *data;
    size_t bytes;
    uint64_t serial; /* of this registration or allocation: no other ever has the same */
} cinch_steady;

/* Notes that [data, data+bytes) stays until cinch_net_release with the same two. It may overlap
 * what is noted already. One thread uses a net at a time. SystemError: out of memory. */
cinchResult_t cinch_net_keep(cinch_net *net, void *data, size_t bytes);
void cinch_net_release(cinch_net *net, const void *data, size_t bytes);

/* The steady memory that has [data, data+bytes) in it; false: there is none. */
bool cinch_net_steady(const cinch_net *net, const void *data, size_t bytes, cinch_steady *out);

/* A number that changes when something stops being steady: what cinch_net_steady has told is good
 * as long as it stays the same. */
uint64_t cinch_net_steady_changes(const cinch_net *net);

/* Frees the list, at the net's end. */
void cinch_net_forget_steady(cinch_net *net);

#endif

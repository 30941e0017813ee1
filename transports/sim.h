/* SPDX-License-Identifier: Apache-2.0 */
/* A network on a virtual clock: links with a bandwidth and a latency, and messages that go along
 * routes over them. It knows no ranks and no graphs; who drives it says which message goes where
 * and hears when it has left and when it has arrived.
 *
 * A message is cut into segments. A link serves one segment at a time, in the order in which they
 * come to it. A byte that was served is at the next link after the latency, and goes on from there
 * without waiting for the rest of its segment: alone, a message takes the sum of the latencies and
 * what its narrowest link takes. A message offers its next segment when the first link has served
 * the one before, so messages that begin at the same link share it evenly. Between links nothing is
 * lost, and any number of segments waits. So the same calls give the same times on every machine:
 * what happens at the same moment happens in the order in which it was caused. */
#ifndef CINCH_TRANSPORTS_SIM_H_
#define CINCH_TRANSPORTS_SIM_H_

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct cinch_sim_link {
    double gbps; /* 1e9 bytes a second */
    double latency_us;
} cinch_sim_link;

typedef struct cinch_sim cinch_sim;

typedef enum {
    CINCH_SIM_LEFT,    /* the first link has carried all of the message */
    CINCH_SIM_ARRIVED, /* it is where its route ends */
    CINCH_SIM_WOKE     /* the moment has come that was asked for */
} cinch_sim_kind;

typedef struct cinch_sim_event {
    cinch_sim_kind kind;
    uint64_t tag; /* as given with the message or the moment */
} cinch_sim_event;

enum { CINCH_SIM_SEGMENTS = 8, CINCH_SIM_SEGMENT_LEAST = 4096 };

/* segments: the most per message; none but the only one is shorter than CINCH_SIM_SEGMENT_LEAST
 * bytes. InvalidArgument: a bandwidth that is not above 0, or a latency that is below; SystemError:
 * out of memory. */
cinchResult_t cinch_sim_make(const cinch_sim_link *link, int links, int segments, cinch_sim **sim);
void cinch_sim_free(cinch_sim *sim);

/* A message of so many bytes sets out along route[0..hops), one link or more, which stays where it
 * is until the message has arrived. InvalidArgument: no such link; SystemError: out of memory. */
cinchResult_t cinch_sim_send(cinch_sim *sim, const int *route, int hops, double bytes,
                             uint64_t tag);

/* Asks for an event when the clock is at a moment: now, where that is over. SystemError: out of
 * memory. */
cinchResult_t cinch_sim_wake(cinch_sim *sim, double at_us, uint64_t tag);

/* Moves the clock to the next event. False: there is none, nothing is under way. */
bool cinch_sim_next(cinch_sim *sim, cinch_sim_event *event);

double cinch_sim_now_us(const cinch_sim *sim);

/* Bytes that have come to a link: it has carried them, or will. */
double cinch_sim_carried(const cinch_sim *sim, int link);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The network on a virtual clock. An event is a segment that a link has served or that has come to
 * the next one; as links serve in order of arrival, the moment when one will have served a segment
 * is known when it comes, and no queue is kept but that of events.
 *
 * A link serves a segment without a break, at its full rate. So it begins no earlier than the first
 * byte is there, and no earlier than that it ends with the last byte: with `end` the moment when
 * that leaves the link before, end + latency - min(service there, service here). */
#include "transports/sim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct link {
    double us_per_byte, latency, free_at, carried;
} link;

/* A message under way, or a moment that was asked for: that has no hops. */
typedef struct parcel {
    const int *route;
    int hops;
    int segments, offered, arrived;
    double segment; /* bytes */
    uint64_t tag;
    uint32_t next_free;
} parcel;

/* hop 0: the first link has served a segment; else one comes to route[hop], or is at the end. */
typedef struct event {
    double at;
    uint64_t order;
    uint32_t parcel;
    int hop;
} event;

struct cinch_sim {
    double now;
    link *link;
    int links, most_segments;
    parcel *parcel;
    uint32_t parcels, parcel_room, free_parcel; /* free_parcel: one past its index, 0: none */
    event *heap;
    size_t events, event_room;
    size_t owed; /* events that parcels under way may have at once: room is made when they begin */
    uint64_t order;
};

cinchResult_t cinch_sim_make(const cinch_sim_link *from, int links, int segments,
                             cinch_sim **made) {
    *made = NULL;
    for (int i = 0; i < links; i++)
        if (!(from[i].gbps > 0) || !(from[i].latency_us >= 0) || !isfinite(from[i].latency_us))
            return cinch_fail(cinchInvalidArgument,
                              "link %d has %g GB/s and a latency of %g us: accepted are more than "
                              "0 and no less than 0",
                              i, from[i].gbps, from[i].latency_us);
    cinch_sim *sim = calloc(1, sizeof *sim);
    if (sim) sim->link = calloc((size_t)links + 1, sizeof *sim->link);
    if (!sim || !sim->link) {
        cinch_sim_free(sim);
        return cinch_fail(cinchSystemError, "out of memory for a simulated network of %d links",
                          links);
    }
    sim->links = links;
    sim->most_segments = segments < 1 ? 1 : segments;
    for (int i = 0; i < links; i++)
        sim->link[i] =
            (link){.us_per_byte = 1 / (from[i].gbps * 1e3), .latency = from[i].latency_us};
    *made = sim;
    return cinchSuccess;
}

void cinch_sim_free(cinch_sim *sim) {
    if (!sim) return;
    free(sim->link);
    free(sim->parcel);
    free(sim->heap);
    free(sim);
}

/* ---- events ---- */

static bool before(const event *a, const event *b) {
    return a->at < b->at || (a->at == b->at && a->order < b->order);
}

/* There is room: see cinch_sim.owed. */
static void push(cinch_sim *sim, double at, uint32_t index, int hop) {
    event fresh = {at, sim->order++, index, hop};
    size_t i = sim->events++;
    for (; i > 0 && before(&fresh, &sim->heap[(i - 1) / 2]); i = (i - 1) / 2)
        sim->heap[i] = sim->heap[(i - 1) / 2];
    sim->heap[i] = fresh;
}

static event pop(cinch_sim *sim) {
    event first = sim->heap[0], last = sim->heap[--sim->events];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < sim->events; i = child) {
        if (child + 1 < sim->events && before(&sim->heap[child + 1], &sim->heap[child])) child++;
        if (!before(&sim->heap[child], &last)) break;
        sim->heap[i] = sim->heap[child];
    }
    sim->heap[i] = last;
    return first;
}

/* ---- parcels ---- */

static cinchResult_t begin(cinch_sim *sim, size_t events, uint32_t *index) {
    if (sim->owed + events > sim->event_room) {
        size_t room = 2 * (sim->owed + events) + 64;
        event *heap = realloc(sim->heap, room * sizeof *heap);
        if (!heap) return cinch_fail(cinchSystemError, "out of memory for %zu events", room);
        sim->heap = heap;
        sim->event_room = room;
    }
    if (!sim->free_parcel && sim->parcels == sim->parcel_room) {
        size_t room = sim->parcel_room ? 2 * (size_t)sim->parcel_room : 64;
        parcel *parcels = room < UINT32_MAX ? realloc(sim->parcel, room * sizeof *parcels) : NULL;
        if (!parcels) return cinch_fail(cinchSystemError, "out of memory for %zu messages", room);
        sim->parcel = parcels;
        sim->parcel_room = (uint32_t)room;
    }
    if (sim->free_parcel) {
        *index = sim->free_parcel - 1;
        sim->free_parcel = sim->parcel[*index].next_free;
    } else {
        *index = sim->parcels++;
    }
    sim->owed += events;
    return cinchSuccess;
}

static void end(cinch_sim *sim, uint32_t index) {
    parcel *p = &sim->parcel[index];
    sim->owed -= (size_t)p->segments + 1;
    p->next_free = sim->free_parcel;
    sim->free_parcel = index + 1;
}

/* A segment joins the queue of route[hop]; the events are made of its having been served there, if
 * that is the first, and of its coming to the next. */
static void serve(cinch_sim *sim, uint32_t index, int hop) {
    const parcel *p = &sim->parcel[index];
    link *l = &sim->link[p->route[hop]];
    double service = p->segment * l->us_per_byte, early = 0;
    if (l->free_at < sim->now) l->free_at = sim->now;
    l->free_at += service;
    l->carried += p->segment;
    if (hop == 0) push(sim, l->free_at, index, 0);
    if (hop + 1 < p->hops)
        early = fmin(service, p->segment * sim->link[p->route[hop + 1]].us_per_byte);
    push(sim, fmax(sim->now, l->free_at + l->latency - early), index, hop + 1);
}

static void offer(cinch_sim *sim, uint32_t index) {
    sim->parcel[index].offered++;
    serve(sim, index, 0);
}

cinchResult_t cinch_sim_send(cinch_sim *sim, const int *route, int hops, double bytes,
                             uint64_t tag) {
    bool good = hops > 0 && bytes >= 0 && isfinite(bytes);
    for (int i = 0; good && i < hops; i++) good = route[i] >= 0 && route[i] < sim->links;
    if (!good)
        return cinch_fail(cinchInvalidArgument,
                          "a message of %g bytes over %d links, not all of which are among the %d",
                          bytes, hops, sim->links);
    double segments = fmin(sim->most_segments, fmax(1, floor(bytes / CINCH_SIM_SEGMENT_LEAST)));
    uint32_t index = 0;
    CINCH_TRY(begin(sim, (size_t)segments + 1, &index));
    sim->parcel[index] = (parcel){.route = route,
                                  .hops = hops,
                                  .segments = (int)segments,
                                  .segment = bytes / segments,
                                  .tag = tag};
    offer(sim, index);
    return cinchSuccess;
}

cinchResult_t cinch_sim_wake(cinch_sim *sim, double at_us, uint64_t tag) {
    uint32_t index = 0;
    CINCH_TRY(begin(sim, 1, &index));
    sim->parcel[index] = (parcel){.tag = tag};
    push(sim, at_us > sim->now ? at_us : sim->now, index, 0);
    return cinchSuccess;
}

/* True where the event is one for the caller. */
static bool handle(cinch_sim *sim, const event *e, cinch_sim_event *out) {
    parcel *p = &sim->parcel[e->parcel];
    out->tag = p->tag;
    if (p->hops == 0) {
        out->kind = CINCH_SIM_WOKE;
        end(sim, e->parcel);
        return true;
    }
    if (e->hop == 0) {
        out->kind = CINCH_SIM_LEFT;
        if (p->offered == p->segments) return true;
        offer(sim, e->parcel);
        return false;
    }
    if (e->hop < p->hops) {
        serve(sim, e->parcel, e->hop);
        return false;
    }
    out->kind = CINCH_SIM_ARRIVED;
    if (++p->arrived < p->segments) return false;
    end(sim, e->parcel);
    return true;
}

bool cinch_sim_next(cinch_sim *sim, cinch_sim_event *out) {
    while (sim->events > 0) {
        event e = pop(sim);
        sim->now = e.at;
        if (handle(sim, &e, out)) return true;
    }
    return false;
}

double cinch_sim_now_us(const cinch_sim *sim) {
    return sim->now;
}

double cinch_sim_carried(const cinch_sim *sim, int at) {
    return sim->link[at].carried;
}

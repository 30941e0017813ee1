/* SPDX-License-Identifier: Apache-2.0 */
/* The table of communicators, by the real library's handles. */
#include "coll/nccl/side.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"

static cinch_side *find(const cinch_forward *f, cinchComm_t comm) {
    cinch_side *side = f->sides;
    while (side && side->comm != comm) side = side->next;
    return side;
}

cinch_side *cinch_side_new(cinch_forward *f, cinchComm_t comm, int rank, int nranks, int device) {
    cinch_side *side = calloc(1, sizeof *side);
    if (!side) return NULL;
    side->forward = f;
    side->comm = comm;
    side->rank = rank;
    side->nranks = nranks;
    side->device = device;
    side->policy = f->policy;
    side->flat = (cinch_level){comm, rank, nranks};
    side->inside = (cinch_level){NULL, 0, 1};
    side->state = nranks > 1 ? CINCH_SIDE_NEW : CINCH_SIDE_EXACT;
    side->users = 1;
    return side;
}

/* The real library checks the handle. */
static cinch_side *make(cinch_forward *f, cinchComm_t comm) {
    int rank, nranks, device;
    cinchResult_t state = cinchSuccess;
    if (f->real.CommGetAsyncError(comm, &state) != cinchSuccess || state != cinchSuccess ||
        f->real.CommCount(comm, &nranks) != cinchSuccess ||
        f->real.CommUserRank(comm, &rank) != cinchSuccess ||
        f->real.CommCuDevice(comm, &device) != cinchSuccess || nranks < 1 || rank < 0 ||
        rank >= nranks)
        return NULL;
    return cinch_side_new(f, comm, rank, nranks, device);
}

cinch_side *cinch_side_get(cinch_forward *f, cinchComm_t comm, bool wanted) {
    pthread_mutex_lock(&f->lock);
    cinch_side *side = find(f, comm);
    if (side) side->users++;
    pthread_mutex_unlock(&f->lock);
    if (side || !wanted || !comm) return side;
    side = make(f, comm); /* one thread at a time calls collectives of a communicator */
    if (!side) return NULL;
    pthread_mutex_lock(&f->lock);
    side->next = f->sides;
    f->sides = side;
    side->users++;
    pthread_mutex_unlock(&f->lock);
    return side;
}

void cinch_side_leave(cinch_side *side) {
    cinch_forward *f = side->forward;
    pthread_mutex_lock(&f->lock);
    if (--side->users == 0) {
        side->next = f->graves;
        f->graves = side;
    }
    pthread_mutex_unlock(&f->lock);
}

cinch_side *cinch_side_bury(cinch_forward *f, cinchComm_t comm) {
    pthread_mutex_lock(&f->lock);
    cinch_side **at = &f->sides;
    while (*at && (*at)->comm != comm) at = &(*at)->next;
    cinch_side *side = *at;
    if (side) {
        *at = side->next;
        side->next = NULL;
        side->buried = true;
        atomic_store(&side->leaving, true);
    }
    pthread_mutex_unlock(&f->lock);
    return side;
}

void cinch_side_free(cinch_side *side) {
    const cinch_device_work *work = side->forward->work;
    cinch_event *events[] = {side->done, side->joined, side->kernels, side->moved[0],
                             side->moved[1]};
    cinch_residuals_free(side);
    while (side->scratch) {
        cinch_block *b = side->scratch;
        side->scratch = b->next;
        work->release(side->device, b->memory);
        free(b);
    }
    if (side->cards) work->release(side->device, side->cards);
    if (side->shown) work->release_pinned(side->device, side->shown);
    if (side->counts) work->release(side->device, side->counts);
    if (side->seen) work->release_pinned(side->device, side->seen);
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i]) work->event_close(events[i]);
    if (side->net) work->stream_close(side->device, side->net);
    free(side);
}

void cinch_side_reap(cinch_forward *f) {
    cinch_side *over = NULL;
    pthread_mutex_lock(&f->lock);
    for (cinch_side **at = &f->graves; *at;) {
        cinch_side *side = *at;
        if (side->busy && f->work->passed(side->done) == cinchInProgress) {
            at = &side->next;
            continue;
        }
        *at = side->next;
        side->next = over;
        over = side;
    }
    pthread_mutex_unlock(&f->lock);
    while (over) {
        cinch_side *side = over;
        over = side->next;
        cinch_side_free(side);
    }
}

cinchResult_t cinch_side_fail(cinch_side *side, cinchResult_t code) {
    if (atomic_load(&side->failed) == cinchSuccess) {
        strncpy(side->why, cinch_last_error(), sizeof side->why - 1);
        atomic_store(&side->failed, (int)code);
    }
    return code;
}

cinchResult_t cinch_side_state(const cinch_side *side) {
    const cinchComm_t comms[] = {side->comm, side->split[0].comm, side->split[1].comm};
    bool waits = false;
    for (size_t i = 0; i < sizeof comms / sizeof *comms; i++) {
        cinchResult_t state = cinchSuccess;
        if (!comms[i]) continue;
        CINCH_TRY(side->forward->real.CommGetAsyncError(comms[i], &state));
        if (state != cinchSuccess && state != cinchInProgress) return state;
        waits |= state == cinchInProgress;
    }
    return waits ? cinchInProgress : cinchSuccess;
}

/* A call takes some microseconds more, as a rule; only what connects ranks takes long. */
cinchResult_t cinch_side_settle(const cinch_side *side, cinchResult_t result) {
    enum { BRISK = 200 };
    const struct timespec nap = {.tv_nsec = 20000};
    uint64_t began = 0;
    for (int i = 0; result == cinchInProgress && !atomic_load(&side->leaving); i++) {
        result = cinch_side_state(side);
        if (result != cinchInProgress) break;
        if (i < BRISK) {
            sched_yield();
            continue;
        }
        if (!began) began = cinch_now_ns();
        if (side->watch) CINCH_TRY(side->watch(side->owner, cinch_now_ns() - began));
        nanosleep(&nap, NULL);
    }
    return result;
}

void cinch_side_settle_into(const cinch_side *side, cinchResult_t was, cinchResult_t *result) {
    if (was != cinchInProgress) return;
    cinchResult_t now = cinch_side_settle(side, was);
    if (*result == cinchSuccess || *result == cinchInProgress) *result = now;
}

cinchResult_t cinch_side_end(const cinch_side *side, cinchComm_t comm, const cinch_forward *f,
                             cinchResult_t (*by)(cinchComm_t comm)) {
    bool inner = side && side->splits && f->real.GroupStart() == cinchSuccess;
    cinchResult_t results[3] = {cinchSuccess, cinchSuccess, cinchSuccess};
    if (inner) results[1] = by(side->split[0].comm);
    if (inner) results[2] = by(side->split[1].comm);
    results[0] = by(comm);
    cinchResult_t result = results[0];
    for (int i = 1; i < 3 && result == cinchSuccess; i++) result = results[i];
    cinchResult_t ended = inner ? f->real.GroupEnd() : cinchSuccess;
    return result == cinchSuccess ? ended : result;
}

void *cinch_side_scratch(cinch_side *side, size_t bytes) {
    cinch_block *b = side->scratch;
    if (b && b->bytes >= bytes) return b->memory;
    size_t more = b ? 2 * b->bytes : 0; /* so all that is outgrown is no more than what is used */
    cinch_block *next = calloc(1, sizeof *next);
    if (!next) return NULL;
    next->bytes = bytes > more ? bytes : more;
    if (side->forward->work->alloc(side->device, next->bytes, &next->memory) != cinchSuccess) {
        free(next);
        return NULL;
    }
    next->next = b;
    side->scratch = next;
    return next->memory;
}

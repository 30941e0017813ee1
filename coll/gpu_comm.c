/* SPDX-License-Identifier: Apache-2.0 */
/* A communicator's part of a device: streams, events, and memory that is kept. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "coll/gpu.h"

#define STOP_NS ((uint64_t)10 * 1000 * 1000 * 1000)

/* Opens what every operation needs. What is open when it fails is closed by cinch_gpu_close. */
static cinchResult_t fill(cinch_gpu_comm *g) {
    for (int i = 0; i < CINCH_GPU_STREAMS; i++) {
        CINCH_TRY(g->work->stream_open(g->device, &g->stream[i]));
        CINCH_TRY(g->work->event_open(g->device, &g->end[i]));
    }
    CINCH_TRY(g->work->event_open(g->device, &g->sent));
    g->piece.pinned = g->bounce.pinned = g->mail_room.pinned = g->length_room.pinned = true;
    CINCH_TRY(cinch_gpu_reserve(g, &g->mail_room, sizeof *g->mail));
    CINCH_TRY(cinch_gpu_reserve(g, &g->counts_room, sizeof *g->counts));
    g->mail = g->mail_room.data;
    g->counts = g->counts_room.data;
    return cinchSuccess;
}

static cinchResult_t make(struct cinchComm *comm, const cinch_device_ops *on, int device) {
    const cinch_gpu *kernels = cinch_gpu_kernels();
    if (!on->work || !kernels)
        return cinch_fail(cinchInvalidUsage,
                          "this build has no kernels for memory of device "
                          "\"%s\"",
                          on->name);
    cinch_gpu_comm *g = calloc(1, sizeof *g);
    cinch_gpu_term *term = calloc((size_t)comm->nranks + 2, sizeof *term);
    if (!g || !term) {
        free(g);
        free(term);
        return cinch_fail(cinchSystemError, "out of memory for a device's streams");
    }
    g->work = on->work;
    g->kernels = kernels;
    g->device = device;
    g->term = term;
    cinchResult_t result = fill(g);
    if (result == cinchSuccess)
        comm->gpu = g;
    else
        cinch_gpu_close(g);
    return result;
}

cinchResult_t cinch_gpu_make(struct cinchComm *comm, const cinch_device_ops *on, int device) {
    cinchResult_t result = comm->gpu ? cinchSuccess : make(comm, on, device);
    if (result == cinchSuccess) result = cinch_gpu_warm(comm);
    if (result == cinchSuccess) cinch_gpu_peers_show(comm);
    /* The other ranks wait for this call. */
    return result == cinchSuccess ? result : cinch_comm_fail(comm, result);
}

void cinch_gpu_open(cinch_op *op) {
    cinch_gpu_comm *g = op->call.comm->gpu;
    op->gpu = g;
    g->ending = g->watching = g->queued = g->sent_there = g->planned = g->polling = false;
    g->at = NULL;
    g->receives = g->sends = g->unseen = g->owed = NULL;
    g->receives_end = &g->receives;
    g->sends_end = &g->sends;
    g->unseen_end = &g->unseen;
    g->owed_end = &g->owed;
    g->sender = g->owner = NULL;
}

static void release(const cinch_gpu_comm *g, const cinch_gpu_room *room) {
    if (room->data && room->pinned)
        g->work->release_pinned(g->device, room->data);
    else if (room->data)
        g->work->release(g->device, room->data);
}

void cinch_gpu_close(cinch_gpu_comm *g) {
    if (!g) return;
    const cinch_gpu_room *rooms[] = {&g->data,      &g->scaled,      &g->bounce, &g->piece,
                                     &g->mail_room, &g->counts_room, &g->warm,   &g->length_room};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) release(g, rooms[i]);
    for (int i = 0; i < g->nretired; i++) release(g, &g->retired[i]);
    for (size_t i = 0; i < g->ways; i++) {
        if (g->way[i].mark) g->work->event_close(g->way[i].mark);
        if (g->way[i].moved) g->work->event_close(g->way[i].moved);
    }
    for (int i = 0; i < CINCH_GPU_STREAMS; i++) {
        if (g->end[i]) g->work->event_close(g->end[i]);
        if (g->stream[i]) g->work->stream_close(g->device, g->stream[i]);
    }
    if (g->sent) g->work->event_close(g->sent);
    cinch_gpu_lengths_close(g);
    free(g->retired);
    free(g->way);
    free(g->offset);
    free(g->term);
    free(g);
}

/* ---- memory ---- */

cinchResult_t cinch_gpu_retire(cinch_gpu_comm *g, const cinch_gpu_room *room) {
    if (!room->data) return cinchSuccess;
    cinch_gpu_room *list = realloc(g->retired, ((size_t)g->nretired + 1) * sizeof *list);
    if (!list) return cinch_fail(cinchSystemError, "out of memory for a list");
    g->retired = list;
    g->retired[g->nretired++] = *room;
    return cinchSuccess;
}

/* One that was retired and fits, with at most half of it idle. */
static bool take_retired(cinch_gpu_comm *g, cinch_gpu_room *room, size_t bytes) {
    for (int i = 0; i < g->nretired; i++) {
        cinch_gpu_room *old = &g->retired[i];
        if (old->pinned != room->pinned || old->bytes < bytes || old->bytes / 2 > bytes) continue;
        *room = *old;
        *old = g->retired[--g->nretired];
        return true;
    }
    return false;
}

cinchResult_t cinch_gpu_reserve(cinch_gpu_comm *g, cinch_gpu_room *room, size_t bytes) {
    if (bytes <= room->bytes) return cinchSuccess;
    cinch_gpu_room fresh = {.pinned = room->pinned};
    if (!take_retired(g, &fresh, bytes)) {
        /* Half as much again as before, so that what was retired in all stays small. */
        fresh.bytes = bytes > room->bytes / 2 * 3 ? bytes : room->bytes / 2 * 3;
        CINCH_TRY(room->pinned ? g->work->alloc_pinned(g->device, fresh.bytes, &fresh.data)
                               : g->work->alloc(g->device, fresh.bytes, &fresh.data));
    }
    cinchResult_t result = cinch_gpu_retire(g, room);
    if (result == cinchSuccess)
        *room = fresh;
    else
        release(g, &fresh);
    return result;
}

/* ---- waiting, and what may ---- */

/* InProgress: the time is over. */
static cinchResult_t await(cinch_gpu_comm *g, int stream, uint64_t until_ns) {
    enum { YIELDS = 100 };
    const struct timespec rest = {0, 50000};
    CINCH_TRY(g->work->record(g->end[stream], g->stream[stream]));
    cinchResult_t state;
    for (int i = 0; (state = g->work->passed(g->end[stream])) == cinchInProgress; i++) {
        if (cinch_now_ns() >= until_ns) break;
        if (i < YIELDS)
            sched_yield();
        else
            nanosleep(&rest, NULL);
    }
    return state;
}

cinchResult_t cinch_gpu_sync(cinch_gpu_comm *g, int stream) {
    return await(g, stream, UINT64_MAX);
}

cinchResult_t cinch_gpu_view(cinch_gpu_comm *g, const void *from, size_t bytes,
                             const unsigned char **view) {
    CINCH_TRY(cinch_gpu_reserve(g, &g->piece, CINCH_GPU_PIECE));
    CINCH_TRY(g->work->copy(g->device, cinch_gpu_compute(g), g->piece.data, from, bytes));
    *view = g->piece.data;
    return cinch_gpu_sync(g, 0);
}

static size_t part_at(size_t done, size_t bytes) {
    return bytes - done < CINCH_GPU_PIECE ? bytes - done : CINCH_GPU_PIECE;
}

cinchResult_t cinch_gpu_fetch(cinch_gpu_comm *g, void *to, const void *from, size_t bytes) {
    const unsigned char *view;
    for (size_t done = 0; done < bytes; done += CINCH_GPU_PIECE) {
        size_t part = part_at(done, bytes);
        CINCH_TRY(cinch_gpu_view(g, (const unsigned char *)from + done, part, &view));
        memcpy((unsigned char *)to + done, view, part);
    }
    return cinchSuccess;
}

cinchResult_t cinch_gpu_store(cinch_gpu_comm *g, void *to, const void *from, size_t bytes) {
    CINCH_TRY(cinch_gpu_reserve(g, &g->piece, CINCH_GPU_PIECE));
    for (size_t done = 0; done < bytes; done += CINCH_GPU_PIECE) {
        size_t part = part_at(done, bytes);
        memcpy(g->piece.data, (const unsigned char *)from + done, part);
        CINCH_TRY(g->work->copy(g->device, cinch_gpu_compute(g), (unsigned char *)to + done,
                                g->piece.data, part));
        CINCH_TRY(cinch_gpu_sync(g, 0));
    }
    return cinchSuccess;
}

void cinch_gpu_stop(cinch_op *op) {
    uint64_t until = cinch_now_ns() + STOP_NS; /* a device that is stuck is not waited for */
    bool done = true;
    for (int i = 0; op->gpu && i < CINCH_GPU_STREAMS; i++)
        done &= await(op->gpu, i, until) == cinchSuccess;
    if (op->gpu) cinch_gpu_peer_stop(op, done);
}

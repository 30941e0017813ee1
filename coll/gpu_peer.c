/* SPDX-License-Identifier: Apache-2.0 */
/* Messages that one copy on the device carries: notes, and what their two ends know of each
 * other. */
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "coll/gpu.h"

#define STOP_NS ((uint64_t)1000 * 1000 * 1000) /* one thread may drive both ranks */

enum { MARK = 0x6e6f7465 };

/* ---- the sender ---- */

void cinch_gpu_peer_aim(cinch_op *op, cinch_gpu_way *way) {
    const cinch_gpu_peers *p = op->call.comm->gpu_peers;
    way->direct = way->pending = true;
    way->note = (cinch_gpu_note){.bytes = way->bytes, .mark = MARK};
    if (!way->stage) {
        way->note.at = (uint64_t)(uintptr_t)way->place;
        return;
    }
    way->note.stage = atomic_load_explicit(&p->card->stages, memory_order_relaxed) - 1;
    way->note.at = (uint64_t)(way->stage - (unsigned char *)p->stage[way->note.stage]);
}

void cinch_gpu_peer_sent(cinch_op *op, cinch_gpu_way *way) {
    cinch_gpu_comm *g = op->gpu;
    cinch_gpu_peers *p = op->call.comm->gpu_peers;
    way->number = ++p->peer[way->link->peer].sent;
    way->next = NULL;
    *g->unseen_end = way;
    g->unseen_end = &way->next;
    p->direct_bytes += way->bytes;
    op->call.comm->window_bytes += way->bytes;
}

/* What peers have copied is ours again. */
static void see_copied(cinch_op *op, bool *moved) {
    cinch_gpu_comm *g = op->gpu;
    const cinch_gpu_peers *p = op->call.comm->gpu_peers;
    for (cinch_gpu_way **at = &g->unseen; *at;) {
        cinch_gpu_way *way = *at;
        int q = way->link->peer;
        const cinch_gpu_answer *answer = &p->peer[q].card->answer[p->rank];
        if (atomic_load_explicit(&answer->copied, memory_order_acquire) < way->number) {
            g->polling = true;
            op->blocked_peer = q;
            at = &way->next;
            continue;
        }
        *at = way->next;
        way->pending = false;
        *moved = true;
    }
    g->unseen_end = &g->unseen;
    while (*g->unseen_end) g->unseen_end = &(*g->unseen_end)->next;
}

/* ---- the receiver ---- */

/* A place in the peer's stage, which is opened when it is first named. */
static cinchResult_t find_staged(cinch_op *op, int q, const cinch_gpu_note *note,
                                 const void **from) {
    cinch_gpu_peers *p = op->call.comm->gpu_peers;
    cinch_gpu_peer *peer = &p->peer[q];
    uint32_t stages = atomic_load_explicit(&peer->card->stages, memory_order_acquire);
    if (note->stage >= stages || stages > CINCH_GPU_STAGES ||
        note->at > peer->card->stage[note->stage].bytes ||
        note->bytes > peer->card->stage[note->stage].bytes - note->at)
        return cinch_fail(cinchRemoteError, "rank %d shows a place outside its device memory", q);
    if (!peer->stage[note->stage]) {
        const cinch_device_handle *handle = &peer->card->stage[note->stage].handle;
        if (p->work->open_shared(p->device, handle, &peer->stage[note->stage]) != cinchSuccess)
            return cinch_fail(cinchSystemError,
                              "more of the device memory of rank %d cannot be opened (%s); "
                              "CINCH_TRANSPORT=^shm does without",
                              q, cinch_last_error());
    }
    *from = (unsigned char *)peer->stage[note->stage] + note->at;
    return cinchSuccess;
}

/* From here on the peer waits, if it gives up, until that is copied or given back. */
static cinchResult_t begin_copy(cinch_gpu_peers *p, int q) {
    cinch_gpu_answer *answer = &p->card->answer[q];
    atomic_fetch_add(&answer->begun, 1);
    if (!atomic_load(&p->peer[q].card->stopped)) return cinchSuccess;
    atomic_fetch_sub(&answer->begun, 1);
    return cinch_fail_quiet(cinchRemoteError, "rank %d has given up", q);
}

cinchResult_t cinch_gpu_peer_take(cinch_op *op, cinch_gpu_way *way, const cinch_gpu_note *note) {
    cinch_gpu_peers *p = op->call.comm->gpu_peers;
    int q = way->link->peer;
    bool fits = way->length ? note->bytes <= way->bytes : note->bytes == way->bytes;
    if (note->mark != MARK || !fits)
        return cinch_fail(cinchRemoteError,
                          "rank %d sends %llu bytes of device memory where %zu are received", q,
                          (unsigned long long)note->bytes, way->bytes);
    way->bytes = note->bytes;
    way->across = p->peer[q].here && p->peer[q].card->device != p->device;
    if (p->peer[q].here)
        way->from = (const void *)(uintptr_t)note->at;
    else
        CINCH_TRY(find_staged(op, q, note, &way->from));
    return begin_copy(p, q);
}

cinchResult_t cinch_gpu_peer_copy(cinch_gpu_comm *g, const cinch_gpu_way *way, void *to) {
    return (way->direct && way->across ? g->work->copy_from : g->work->copy)(
        g->device, cinch_gpu_up(g), to, way->from, way->bytes);
}

void cinch_gpu_peer_taken(cinch_op *op, cinch_gpu_way *way) {
    cinch_gpu_comm *g = op->gpu;
    way->pending = true;
    way->next = NULL;
    *g->owed_end = way;
    g->owed_end = &way->next;
}

/* Copies end in the order in which they were queued: that is each peer's order too. */
static cinchResult_t tell_copied(cinch_op *op, bool *moved) {
    cinch_gpu_comm *g = op->gpu;
    cinch_gpu_peers *p = op->call.comm->gpu_peers;
    while (g->owed) {
        cinch_gpu_way *way = g->owed;
        cinchResult_t state = g->work->passed(way->moved);
        if (state == cinchInProgress) {
            g->watching = true;
            return cinchSuccess;
        }
        CINCH_TRY(state);
        g->owed = way->next;
        if (!g->owed) g->owed_end = &g->owed;
        way->pending = false;
        cinch_gpu_answer *answer = &p->card->answer[way->link->peer];
        atomic_fetch_add_explicit(&answer->copied, 1, memory_order_release);
        *moved = true;
    }
    return cinchSuccess;
}

cinchResult_t cinch_gpu_peer_look(cinch_op *op, bool *moved) {
    if (op->gpu->owed) CINCH_TRY(tell_copied(op, moved));
    if (op->gpu->unseen) see_copied(op, moved);
    return cinchSuccess;
}

cinchResult_t cinch_gpu_peer_fetch(struct cinchComm *comm, int q, void *data, size_t came,
                                   size_t bytes) {
    cinch_gpu_comm *g = comm->gpu;
    cinch_gpu_note note;
    cinch_op op = {.call = {.comm = comm}, .gpu = g};
    cinch_gpu_way way = {.link = comm->net->link[q], .bytes = bytes};
    if (came == bytes) return cinchSuccess;
    if (came != sizeof note)
        return cinch_fail(cinchRemoteError, "rank %d sends %zu bytes where %zu are received", q,
                          came, bytes);
    memcpy(&note, data, sizeof note);
    CINCH_TRY(cinch_gpu_peer_take(&op, &way, &note));
    way.direct = true;
    cinchResult_t result = cinch_gpu_peer_copy(g, &way, data);
    if (result == cinchSuccess) result = cinch_gpu_sync(g, 2);
    atomic_fetch_add(&comm->gpu_peers->card->answer[q].copied, 1);
    return result;
}

/* ---- after a failure ---- */

/* Whether a rank of this process still copies from this one's memory. Other processes copy from
 * stages, which stay until they have closed them. */
static bool any_copies(const cinch_gpu_peers *p) {
    for (int q = 0; q < p->nranks; q++) {
        if (!p->peer[q].card || !p->peer[q].here) continue;
        const cinch_gpu_answer *answer = &p->peer[q].card->answer[p->rank];
        if (atomic_load(&answer->begun) != atomic_load(&answer->copied)) return true;
    }
    return false;
}

void cinch_gpu_peer_stop(cinch_op *op, bool done) {
    const struct timespec rest = {0, 50000};
    uint64_t until = cinch_now_ns() + STOP_NS;
    cinch_gpu_peers *p = op->call.comm->gpu_peers;
    cinch_gpu_comm *g = op->gpu;
    bool sends = g->unseen != NULL;
    if (!p) return;
    for (int q = 0; done && q < p->nranks; q++)
        atomic_store(&p->card->answer[q].copied, atomic_load(&p->card->answer[q].begun));
    for (const cinch_gpu_way *way = g->sends; way; way = way->next) sends |= way->direct;
    if (!sends) return;
    atomic_store(&p->card->stopped, 1);
    while (any_copies(p) && cinch_now_ns() < until) nanosleep(&rest, NULL);
}

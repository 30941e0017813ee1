/* SPDX-License-Identifier: Apache-2.0 */
/* The engine on a device: queues a schedule's items in order, and lets messages move between
 * pinned memory and links meanwhile. */
#include <string.h>

#include "coll/gpu.h"

enum { SEND_NOW = 8192 }; /* bytes, as in coll/engine.c */

/* ---- places in streams ---- */

/* Where compute is now, for a copy that may begin later; NULL: nothing was queued. `spare` is
 * recorded where no event stands there yet. */
static cinchResult_t mark(cinch_gpu_comm *g, cinch_event *spare, const cinch_event **at) {
    if (!g->at && g->queued) {
        CINCH_TRY(g->work->record(spare, cinch_gpu_compute(g)));
        g->at = spare;
    }
    *at = g->at;
    return cinchSuccess;
}

/* Copies a message out when compute has come here, or at once; or notes that it has, where the
 * receiver copies it from its place. */
static cinchResult_t copy_out(cinch_gpu_comm *g, cinch_gpu_way *way, bool at_once) {
    void *to = way->direct ? way->stage : way->bounce;
    if (!to) return g->work->record(way->moved, at_once ? cinch_gpu_down(g) : cinch_gpu_compute(g));
    if (g->queued && !g->sent_there && !at_once) {
        CINCH_TRY(g->work->record(g->sent, cinch_gpu_compute(g)));
        CINCH_TRY(g->work->wait(cinch_gpu_down(g), g->sent));
        g->sent_there = true;
    }
    CINCH_TRY(g->work->copy(g->device, cinch_gpu_down(g), to, way->place, way->bytes));
    return g->work->record(way->moved, cinch_gpu_down(g));
}

/* Copies in what came, when compute has come to where it was posted. */
static cinchResult_t copy_in(cinch_gpu_comm *g, cinch_gpu_way *way) {
    if (way->after) CINCH_TRY(g->work->wait(cinch_gpu_up(g), (cinch_event *)way->after));
    CINCH_TRY(cinch_gpu_peer_copy(g, way, way->place));
    return g->work->record(way->moved, cinch_gpu_up(g));
}

/* ---- messages ---- */

static void post_send(cinch_gpu_comm *g, cinch_gpu_way *way) {
    way->state = CINCH_WAY_OPEN;
    way->receives = false;
    way->next = NULL;
    *g->sends_end = way;
    g->sends_end = &way->next;
}

static void post_receive(cinch_gpu_comm *g, cinch_gpu_way *way) {
    way->state = CINCH_WAY_OPEN;
    way->receives = true;
    way->next = NULL;
    *g->receives_end = way;
    g->receives_end = &way->next;
    way->link->ops->recv(way->link, way->msg);
}

/* Sends whose length is known by now; the device has encoded them then. */
static cinchResult_t copy_measured(cinch_op *op, bool *moved) {
    for (cinch_gpu_way *way = op->gpu->sends; way; way = way->next) {
        bool known = false;
        if (!way->unmeasured) continue;
        CINCH_TRY(cinch_gpu_length_known(op, way->slot, &known));
        if (!known) return cinchSuccess; /* compute comes to them in order */
        way->unmeasured = false;
        way->bytes = op->wire_length[way->slot];
        if (way->direct)
            cinch_gpu_peer_aim(op, way);
        else
            way->msg->bytes = way->bytes;
        CINCH_TRY(copy_out(op->gpu, way, true));
        *moved = true;
    }
    return cinchSuccess;
}

/* What was copied out goes to its link, in order. */
static cinchResult_t pass_sends(cinch_op *op, bool *moved) {
    cinch_gpu_comm *g = op->gpu;
    CINCH_TRY(copy_measured(op, moved));
    while (g->sends && !g->sends->unmeasured) {
        cinch_gpu_way *way = g->sends;
        cinchResult_t state = way->place ? g->work->passed(way->moved) : cinchSuccess;
        if (state == cinchInProgress) {
            g->watching = true;
            return cinchSuccess;
        }
        CINCH_TRY(state);
        g->sends = way->next;
        if (!g->sends) g->sends_end = &g->sends;
        way->link->ops->send(way->link, way->msg);
        if (way->direct)
            cinch_gpu_peer_sent(op, way);
        else if (way->place && op->call.comm->gpu_peers && way->bytes > sizeof way->note)
            op->call.comm->gpu_peers->link_bytes += way->bytes;
        /* The wire works meanwhile. A failure is kept by the link and met again. */
        if (way->msg->bytes >= SEND_NOW) (void)way->link->ops->progress(way->link);
        *moved = true;
    }
    return cinchSuccess;
}

/* A message of a pair may come as a note where this rank can follow it. */
static cinchResult_t take(cinch_op *op, cinch_gpu_way *way) {
    cinch_gpu_comm *g = op->gpu;
    cinch_gpu_note note = way->note;
    const cinch_msg *msg = way->msg;
    if (!way->direct && !msg->exact && !way->length && msg->bytes != way->bytes) {
        if (msg->bytes != sizeof note)
            return cinch_fail(cinchRemoteError, "rank %d sends %zu bytes where %zu are received",
                              way->link->peer, msg->bytes, way->bytes);
        memcpy(&note, msg->data, sizeof note);
        if (!way->place) way->place = msg->data;
        way->direct = true;
    }
    way->from = way->bounce;
    if (way->direct)
        CINCH_TRY(cinch_gpu_peer_take(op, way, &note));
    else
        way->bytes = msg->bytes;
    if (way->length) *way->length = way->bytes;
    way->state = way->place ? CINCH_WAY_COPIED : CINCH_WAY_NONE;
    if (way->place) CINCH_TRY(copy_in(g, way));
    if (way->direct) cinch_gpu_peer_taken(op, way);
    return cinchSuccess;
}

/* What came is copied to its place, in the order in which it was posted. */
static cinchResult_t take_receives(cinch_op *op, bool *moved) {
    cinch_gpu_comm *g = op->gpu;
    for (cinch_gpu_way **at = &g->receives; *at;) {
        cinch_gpu_way *way = *at;
        if (!way->msg->done) {
            at = &way->next;
            continue;
        }
        *at = way->next;
        if (!way->next) g->receives_end = at;
        CINCH_TRY(take(op, way));
        *moved = true;
    }
    return cinchSuccess;
}

/* Both ends see the same: what is longer than a note goes by one where the pair can. */
static bool goes_by_note(const cinch_op *op, const cinch_item *item, size_t room) {
    return room > sizeof(cinch_gpu_note) && cinch_gpu_direct(op->call.comm, item->peer);
}

static cinchResult_t start_message(cinch_op *op, const cinch_item *item, size_t round) {
    cinch_gpu_comm *g = op->gpu;
    const cinch_schedule *s = op->schedule;
    const cinch_ref *ref = &s->refs[item->ref];
    size_t at = round % s->depth * s->nmsg + item->msg, length;
    cinch_gpu_way *way = &g->way[at];
    cinch_msg *msg = &op->msg[at];
    bool wire = ref->space == CINCH_WIRE, receives = item->op == CINCH_DO_RECV;
    size_t slot = round % s->depth * s->nwire + ref->slot, *wire_length = &op->wire_length[slot];
    bool known = true;
    way->place = cinch_op_place(op, ref, round, &length);
    way->msg = msg;
    way->link = op->call.comm->net->link[item->peer];
    way->length = wire && receives ? wire_length : NULL;
    way->state = CINCH_WAY_NONE;
    way->direct = way->pending = false;
    if (wire && !receives) CINCH_TRY(cinch_gpu_length_known(op, slot, &known));
    way->unmeasured = !known;
    way->slot = slot;
    way->bytes = !wire ? length * op->esize : receives ? op->wire_bytes : *wire_length;
    *msg = (cinch_msg){.data = way->bounce,
                       .bytes = way->bytes,
                       .tag = cinch_op_tag(op, round, item->mark),
                       .exact = !wire,
                       .done = !length}; /* both sides know: nothing is sent */
    if (length && goes_by_note(op, item, wire ? op->wire_bytes : way->bytes)) {
        way->direct = true;
        msg->data = &way->note;
        msg->bytes = sizeof way->note;
        msg->exact = true;
    }
    if (!length) {
        if (way->length) *way->length = 0;
        return cinchSuccess;
    }
    if (receives) {
        CINCH_TRY(mark(g, way->mark, &way->after));
        post_receive(g, way);
    } else {
        if (way->direct && known) cinch_gpu_peer_aim(op, way);
        if (known) CINCH_TRY(copy_out(g, way, false));
        post_send(g, way);
    }
    return cinchSuccess;
}

cinchResult_t cinch_gpu_start_pair(cinch_op *op, cinch_p2p *p, cinch_gpu_way *way) {
    cinch_gpu_comm *g = op->gpu;
    way->place = p->on_device ? p->data : NULL;
    way->msg = &p->msg;
    way->link = op->call.comm->net->link[p->peer];
    way->length = NULL;
    way->after = NULL; /* no operation of the group may touch what another receives */
    way->bytes = p->bytes;
    way->direct = way->pending = way->unmeasured = false;
    if (p->on_device) p->msg.data = way->bounce;
    if (p->receives) {
        p->msg.exact = !cinch_gpu_may_note(op->call.comm, p->peer, p->bytes);
        post_receive(g, way);
        return cinchSuccess;
    }
    if (p->on_device && p->bytes > sizeof way->note && cinch_gpu_direct(op->call.comm, p->peer)) {
        cinch_gpu_peer_aim(op, way);
        p->msg.data = &way->note;
        p->msg.bytes = sizeof way->note;
    }
    if (p->on_device) CINCH_TRY(copy_out(g, way, false));
    post_send(g, way);
    return cinchSuccess;
}

/* ---- items ---- */

/* A receive; or a send that nothing is queued for, or its receiver copies from where it is. */
static bool on_its_way(const cinch_gpu_way *way) {
    if (way->receives) return way->state == CINCH_WAY_OPEN;
    return way->unmeasured || (way->pending && !way->stage);
}

/* Whether a round's memory for messages can be used anew. */
static cinchResult_t round_is_over(cinch_op *op, size_t round, bool *over) {
    cinch_gpu_comm *g = op->gpu;
    size_t nmsg = op->schedule->nmsg, first = round % op->schedule->depth * nmsg;
    *over = false;
    for (size_t i = first; i < first + nmsg; i++) {
        cinch_gpu_way *way = &g->way[i];
        if (!op->msg[i].done || on_its_way(way) || way->pending) return cinchSuccess;
        if (way->state != CINCH_WAY_COPIED) continue;
        cinchResult_t state = g->work->passed(way->moved);
        if (state == cinchInProgress) {
            g->watching = true;
            return cinchSuccess;
        }
        CINCH_TRY(state);
        way->state = CINCH_WAY_NONE;
    }
    *over = true;
    return cinchSuccess;
}

/* Whether the lengths of what a sum decodes are known: it is told them. */
static cinchResult_t measured(cinch_op *op, const cinch_item *item, size_t round, bool *yes) {
    const cinch_schedule *s = op->schedule;
    const cinch_ref *src = &s->refs[item->ref + item->ndst];
    for (int i = 0; item->op == CINCH_DO_SUM && i < item->nsrc && *yes; i++)
        if (src[i].space == CINCH_WIRE)
            CINCH_TRY(cinch_gpu_length_known(op, round % s->depth * s->nwire + src[i].slot, yes));
    return cinchSuccess;
}

/* Whether what the item needs has come. Copies that are queued, in either direction, compute waits
 * for: also where the item is a message itself, because later items do not name them again. */
static cinchResult_t ready(cinch_op *op, const cinch_item *item, size_t round, bool *yes) {
    const cinch_schedule *s = op->schedule;
    cinch_gpu_comm *g = op->gpu;
    cinch_gpu_way *way = &g->way[round % s->depth * s->nmsg];
    *yes = true;
    if (item == s->item && round >= s->depth) CINCH_TRY(round_is_over(op, round, yes));
    for (unsigned i = 0; i < item->ndep && *yes; i++)
        *yes = !on_its_way(&way[s->deps[item->dep + i]]);
    if (*yes) CINCH_TRY(measured(op, item, round, yes));
    for (unsigned i = 0; i < item->ndep && *yes; i++) {
        const cinch_gpu_way *dep = &way[s->deps[item->dep + i]];
        if (dep->state == CINCH_WAY_NONE) continue;
        CINCH_TRY(g->work->wait(cinch_gpu_compute(g), dep->moved));
        cinch_gpu_queued(g);
    }
    return cinchSuccess;
}

/* Queues items until one is not ready; *all: none is left. */
static cinchResult_t queue_items(cinch_op *op, bool *all, bool *moved) {
    const cinch_schedule *s = op->schedule;
    bool yes;
    *all = false;
    for (; op->iteration < op->cut.rounds + s->lags; op->iteration++, op->item = 0) {
        for (; op->item < s->nitems; op->item++) {
            const cinch_item *item = &s->item[op->item];
            if (item->lag > op->iteration) break; /* lags do not decrease */
            size_t round = op->iteration - item->lag;
            if (round >= op->cut.rounds) continue;
            CINCH_TRY(ready(op, item, round, &yes));
            if (!yes) return cinchSuccess;
            *moved = true;
            CINCH_TRY(item->msg != CINCH_NO_MSG ? start_message(op, item, round)
                                                : cinch_gpu_item(op, item, round));
        }
    }
    *all = true;
    return cinchSuccess;
}

/* ---- the end ---- */

/* All is queued: what is left is to wait for the streams, and to see what kernels have found. */
static cinchResult_t finish(cinch_op *op, bool *moved) {
    cinch_gpu_comm *g = op->gpu;
    if (!g->ending) {
        if (op->encoded)
            CINCH_TRY(g->work->copy(g->device, cinch_gpu_compute(g), &g->mail->counts, g->counts,
                                    sizeof *g->counts));
        for (int i = 0; i < CINCH_GPU_STREAMS; i++)
            CINCH_TRY(g->work->record(g->end[i], g->stream[i]));
        g->ending = *moved = true;
    }
    for (int i = 0; i < CINCH_GPU_STREAMS; i++) {
        cinchResult_t state = g->work->passed(g->end[i]);
        if (state != cinchInProgress) CINCH_TRY(state);
        if (state == cinchInProgress) {
            g->watching = true;
            return cinchSuccess;
        }
    }
    op->state = CINCH_OP_DONE;
    *moved = true;
    if (!op->encoded) return cinchSuccess;
    op->nonfinite += g->mail->counts.nonfinite;
    if (!g->mail->counts.malformed) return cinchSuccess;
    return cinch_fail(cinchRemoteError, "a peer's encoded message makes no sense: it is no "
                                        "encoding of so many elements");
}

static bool all_came(const cinch_op *op) {
    const cinch_schedule *s = op->schedule;
    size_t live = op->cut.rounds < s->depth ? op->cut.rounds : s->depth;
    for (size_t i = 0; i < live * s->nmsg; i++)
        if (!op->msg[i].done) return false;
    return true;
}

static bool all_pairs_came(const cinch_op *op) {
    for (const cinch_p2p *p = op->p2p; p; p = p->next)
        if (!p->done && !p->msg.done) return false;
    return true;
}

cinchResult_t cinch_gpu_progress(cinch_op *op, bool pairs, bool *moved) {
    cinch_gpu_comm *g = op->gpu;
    for (bool again = true; again;) {
        bool all = true;
        again = g->watching = g->polling = false;
        if (!g->planned) CINCH_TRY(cinch_gpu_begin(op));
        if (!g->planned) {
            g->polling = true;
            return cinchSuccess;
        }
        CINCH_TRY(cinch_gpu_peer_look(op, &again));
        CINCH_TRY(pass_sends(op, &again));
        CINCH_TRY(take_receives(op, &again));
        if (!pairs) CINCH_TRY(queue_items(op, &all, &again));
        if (all && !g->sends && !g->receives && !g->unseen && !g->owed &&
            (pairs ? all_pairs_came(op) : all_came(op)))
            CINCH_TRY(finish(op, &again));
        *moved |= again;
        if (op->state == CINCH_OP_DONE) return cinchSuccess;
        int peer = op->blocked_peer;
        if (op->call.comm->net) CINCH_TRY(cinch_op_pump(op->call.comm, &again, &peer));
        op->blocked_peer = peer;
    }
    return cinchSuccess;
}

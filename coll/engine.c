/* SPDX-License-Identifier: Apache-2.0 */
/* The engine: interprets schedules, item by item, for all rounds. */
#include "coll/engine.h"

#include <string.h>

#include "compress/dtype.h"

enum { SEND_NOW = 8192 }; /* bytes; shorter messages wait for what can go with them */

/* ---- memory ---- */

static size_t slot_at(const cinch_op *op, size_t round, size_t slots, unsigned slot) {
    return round % op->schedule->depth * slots + slot;
}

/* A part's place in a slot depends on its number alone, not on the round's length: the verifier's
 * proof that nobody overwrites what a peer still reads is about parts. */
static unsigned char *stage_at(const cinch_op *op, const cinch_ref *ref, size_t round) {
    const cinch_schedule *s = op->schedule;
    bool small = s->stage_region == CINCH_STAGE_SMALL;
    size_t slot = (op->base + round) % s->stage_slots;
    const cinch_window *window = &op->call.comm->net->shm->window[ref->rank];
    /* As in the fused executor: the rank at the other end may be running that. */
    if (small && s->stage_blocks == 1 && op->call.count * op->esize <= CINCH_SHM_INLINE_BYTES)
        return window->flag[(op->base + round) & 1].payload;
    size_t places = (size_t)s->parts * s->stage_blocks,
           room = small ? CINCH_SMALL_SLOT : CINCH_LARGE_SLOT;
    size_t place = (size_t)ref->block * s->parts + ref->part;
    return window->stage + (small ? 0 : 2 * CINCH_SMALL_SLOT) + slot * room +
           place * (room / places / 64 * 64);
}

/* Where ref's elements of the round are; *length: how many. */
static unsigned char *resolve(const cinch_op *op, const cinch_ref *ref, size_t round,
                              size_t *length) {
    const cinch_schedule *s = op->schedule;
    cinch_span span = cinch_cut_span(&op->cut, cinch_cut_length(&op->cut, round), ref);
    size_t user = (ref->block * op->call.count + round * op->cut.round + span.first) * op->esize;
    size_t part = span.first * op->esize;
    *length = span.length;
    switch (ref->space) {
    case CINCH_IN:
        return (unsigned char *)(uintptr_t)op->source + user;
    case CINCH_OUT:
        return (unsigned char *)op->call.recv + user;
    case CINCH_TMP:
        return op->tmp + slot_at(op, round, s->ntmp, ref->slot) * op->tmp_bytes + part;
    case CINCH_BOX:
        return op->box + slot_at(op, round, s->nbox, ref->slot) * op->box_bytes;
    case CINCH_WIRE:
        return op->wire + slot_at(op, round, s->nwire, ref->slot) * op->wire_bytes;
    case CINCH_PEER_IN:
        return op->peer_in[ref->rank] + user;
    case CINCH_PEER_OUT:
        return op->peer_out[ref->rank] + user;
    default:
        return stage_at(op, ref, round);
    }
}

/* What crosses between ranks through windows is counted where it is read, or written to a peer: a
 * byte that three peers read counts as often as one that is sent to three. */
static void count_window(cinch_op *op, const cinch_ref *ref, size_t length) {
    bool window = ref->space >= CINCH_STAGE && ref->rank != op->schedule->rank;
    if (window) op->call.comm->window_bytes += length * op->esize;
}

/* ---- items ---- */

/* Results go past the cache where they will not stay in it; what peers read next never does. */
static unsigned store_of(const cinch_op *op, const cinch_ref *dst, int ndst) {
    if (!op->stream_out || (dst->space != CINCH_OUT && dst->space != CINCH_PEER_OUT)) return 0;
    return ndst > 1 && dst[1].space == CINCH_STAGE ? CINCH_REDUCE_STREAM_FIRST
                                                   : CINCH_REDUCE_STREAM;
}

static void run_copy(cinch_op *op, const cinch_item *item, size_t round) {
    const cinch_ref *ref = &op->schedule->refs[item->ref];
    size_t length;
    void *dst = resolve(op, &ref[0], round, &length);
    const void *src = resolve(op, &ref[1], round, &length);
    if (dst != src && length)
        cinch_copy(dst, src, length * op->esize, store_of(op, ref, item->ndst));
    count_window(op, &ref[1], length);
}

static void run_reduce(cinch_op *op, const cinch_item *item, size_t round) {
    const cinch_ref *ref = &op->schedule->refs[item->ref];
    size_t length = 0;
    for (int i = 0; i < item->ndst; i++) {
        op->dst[i] = resolve(op, &ref[i], round, &length);
        count_window(op, &ref[i], length);
    }
    for (int i = 0; i < item->nsrc; i++) {
        op->src[i] = resolve(op, &ref[item->ndst + i], round, &length);
        count_window(op, &ref[item->ndst + i], length);
    }
    if (length)
        op->reduce(op->dst, item->ndst, op->src, item->nsrc, length, cinch_op_avg(op, item),
                   store_of(op, ref, item->ndst));
}

static cinch_msg *message_of(const cinch_op *op, unsigned index, size_t round) {
    return &op->msg[slot_at(op, round, op->schedule->nmsg, index)];
}

static uint64_t tag_of(const cinch_op *op, size_t round, unsigned mark) {
    /* Half a signature tells what differs in one of its fields. */
    uint64_t call = (op->signature ^ op->signature >> 16) & 0xffff;
    return (uint64_t)op->call.collective << 59 | (op->call.comm->sequence & 0x7ff) << 48 |
           call << 32 | (round & 0xffff) << 16 | mark;
}

static void run_message(cinch_op *op, const cinch_item *item, size_t round) {
    const cinch_ref *ref = &op->schedule->refs[item->ref];
    cinch_link *link = op->call.comm->net->link[item->peer];
    cinch_msg *msg = message_of(op, item->msg, round);
    size_t length, bytes;
    msg->data = resolve(op, ref, round, &length);
    bytes = length * op->esize;
    if (ref->space == CINCH_WIRE)
        bytes = item->op == CINCH_DO_SEND
                    ? op->wire_length[slot_at(op, round, op->schedule->nwire, ref->slot)]
                    : op->wire_bytes;
    msg->bytes = bytes;
    msg->exact = ref->space != CINCH_WIRE;
    msg->tag = tag_of(op, round, item->mark);
    msg->done = false;
    if (!length)
        msg->done = true; /* both sides know: nothing is sent */
    else if (item->op == CINCH_DO_RECV)
        link->ops->recv(link, msg);
    else {
        link->ops->send(link, msg);
        /* The wire works while we compute. A failure is kept by the link and met again. */
        if (bytes >= SEND_NOW) (void)link->ops->progress(link);
    }
}

static void run_encode(cinch_op *op, const cinch_item *item, size_t round) {
    const cinch_ref *ref = &op->schedule->refs[item->ref];
    bool owner = item->flags & CINCH_OWNER;
    const struct cinchComm *comm = op->call.comm;
    uint64_t began = cinch_ticks();
    size_t length;
    void *wire = resolve(op, &ref[0], round, &length);
    const void *src = resolve(op, &ref[1], round, &length);
    cinch_span span = cinch_cut_span(&op->cut, cinch_cut_length(&op->cut, round), &ref[1]);
    bool wide = item->flags & (CINCH_OWNER | CINCH_WIDE);
    cinchDataType_t dtype = wide ? cinchFloat32 : op->call.dtype;
    cinchCodecSite_t site = {.call = comm->calls,
                             .offset =
                                 ref[1].block * op->call.count + round * op->cut.round + span.first,
                             .rank = (uint32_t)comm->rank,
                             .phase = owner};
    size_t part_max = op->cut.round / (size_t)op->cut.parts;
    float *residual = NULL;
    if (op->ef) residual = owner ? op->ef->owner + round * part_max : op->ef->sender + site.offset;
    cinch_codec_index index = cinch_item_codec(item);
    const cinch_codec *codec = cinch_codec_in_force(comm, index);
    const void *state = op->codec_state[index];
    if (!codec->ef) residual = NULL;
    if (ref[1].space != CINCH_IN && length && cinch_codec_prepare_bytes(codec, length)) {
        /* The whole sum is never at hand: its share is all it sees. */
        unsigned char *own = op->work + cinch_codec_scratch(codec, cinchFloat32, part_max);
        own = (unsigned char *)(((uintptr_t)own + 63) / 64 * 64);
        cinch_codec_prepare(codec, &site, dtype, src, residual, length, own, op->work);
        state = own;
    }
    size_t *bytes = &op->wire_length[slot_at(op, round, op->schedule->nwire, ref[0].slot)];
    *bytes = length ? cinch_codec_encode(codec, &site, state, dtype, src, residual, length, wire,
                                         &op->nonfinite, op->work)
                    : 0;
    op->codec_ticks += cinch_ticks() - began;
}

static cinchResult_t run_sum(cinch_op *op, const cinch_item *item, size_t round) {
    const cinch_ref *ref = &op->schedule->refs[item->ref];
    uint64_t began = cinch_ticks();
    size_t length;
    for (int i = 0; i < item->nsrc; i++) {
        const cinch_ref *src = &ref[1 + i];
        void *data = resolve(op, src, round, &length);
        bool wire = src->space == CINCH_WIRE;
        size_t slot = slot_at(op, round, op->schedule->nwire, src->slot);
        op->term[i] = (cinch_codec_term){.wire = wire ? data : NULL,
                                         .bytes = wire ? op->wire_length[slot] : 0,
                                         .plain = wire ? NULL : data};
    }
    void *dst = resolve(op, &ref[0], round, &length);
    cinchDataType_t from = item->flags & CINCH_WIDE ? cinchFloat32 : op->call.dtype;
    cinchDataType_t to = ref[0].space == CINCH_BOX ? cinchFloat32 : op->call.dtype;
    cinchResult_t result = cinchSuccess;
    if (length)
        result =
            cinch_codec_sum(cinch_codec_in_force(op->call.comm, cinch_item_codec(item)), op->term,
                            item->nsrc, from, to, dst, length, cinch_op_avg(op, item), op->work);
    op->codec_ticks += cinch_ticks() - began;
    return result;
}

static cinch_flag *flag_of(const cinch_op *op, int rank, unsigned flag, size_t round) {
    return &op->call.comm->net->shm->window[rank].flag[2 * flag + ((op->base + round) & 1)];
}

/* ---- waiting for messages ---- */

/* Whether the message is complete; notes what arrived and what is waited for. */
static bool complete(cinch_op *op, unsigned index, size_t round) {
    cinch_msg *msg = message_of(op, index, round);
    const cinch_schedule *s = op->schedule;
    if (!msg->done) {
        op->blocked_flag = NULL;
        return false;
    }
    if (s->msg_wire[index] != CINCH_NO_MSG)
        op->wire_length[slot_at(op, round, s->nwire, s->msg_wire[index])] = msg->bytes;
    return true;
}

static bool ready(cinch_op *op, const cinch_item *item, size_t round) {
    const cinch_schedule *s = op->schedule;
    if (item == s->item && round >= s->depth) /* the scratch of an older round is used anew */
        for (unsigned i = 0; i < s->nmsg; i++)
            if (!complete(op, i, round)) return false;
    for (unsigned i = 0; i < item->ndep; i++)
        if (!complete(op, s->deps[item->dep + i], round)) return false;
    if (item->op != CINCH_DO_WAIT) return true;
    cinch_flag *flag = flag_of(op, item->peer, item->flag, round);
    uint64_t seen = cinch_flag_read(flag);
    if (seen >= op->base + round + 1) return true;
    op->blocked_flag = flag;
    op->blocked_value = seen;
    op->blocked_peer = item->peer;
    return false;
}

unsigned char *cinch_op_place(const cinch_op *op, const cinch_ref *ref, size_t round,
                              size_t *length) {
    return resolve(op, ref, round, length);
}

uint64_t cinch_op_tag(const cinch_op *op, size_t round, unsigned mark) {
    return tag_of(op, round, mark);
}

cinchResult_t cinch_op_pump(const struct cinchComm *comm, bool *some, int *peer) {
    uint64_t before = comm->net->finished; /* a link's progress may end others' messages too */
    for (int q = 0; q < comm->nranks; q++) {
        cinch_link *link = comm->net->link[q];
        if (!link || link->pending <= 0) continue;
        CINCH_TRY(link->ops->progress(link));
        if (link->pending > 0) *peer = q;
    }
    *some |= comm->net->finished != before;
    return cinchSuccess;
}

/* Runs items until one is not ready. 1: all ran. */
static int run_items(cinch_op *op, cinchResult_t *result, bool *moved) {
    const cinch_schedule *s = op->schedule;
    for (; op->iteration < op->cut.rounds + s->lags; op->iteration++, op->item = 0) {
        for (; op->item < s->nitems; op->item++) {
            const cinch_item *item = &s->item[op->item];
            if (item->lag > op->iteration) break; /* lags do not decrease */
            size_t round = op->iteration - item->lag;
            if (round >= op->cut.rounds) continue;
            if (!ready(op, item, round)) return 0;
            *moved = true;
            switch (item->op) {
            case CINCH_DO_COPY:
                run_copy(op, item, round);
                break;
            case CINCH_DO_REDUCE:
                run_reduce(op, item, round);
                break;
            case CINCH_DO_SEND:
            case CINCH_DO_RECV:
                run_message(op, item, round);
                break;
            case CINCH_DO_POST:
                atomic_store_explicit(
                    &flag_of(op, op->call.comm->rank, item->flag, round)->signature, op->signature,
                    memory_order_relaxed);
                cinch_flag_post(flag_of(op, op->call.comm->rank, item->flag, round),
                                op->base + round + 1);
                break;
            case CINCH_DO_ENCODE:
                run_encode(op, item, round);
                break;
            case CINCH_DO_SUM:
                *result = run_sum(op, item, round);
                if (*result != cinchSuccess) return 0;
                break;
            default: /* WAIT: ready() has seen the flag */
                if (atomic_load_explicit(&flag_of(op, item->peer, item->flag, round)->signature,
                                         memory_order_relaxed) == op->signature)
                    break;
                *result = cinch_called_differs(&op->call, item->peer);
                return 0;
            }
        }
    }
    size_t live = op->cut.rounds < s->depth ? op->cut.rounds : s->depth;
    for (size_t i = 0; i < live * s->nmsg; i++)
        if (!op->msg[i].done) {
            op->blocked_flag = NULL;
            return 0;
        }
    return 1;
}

cinchResult_t cinch_op_progress(cinch_op *op, bool *moved) {
    cinchResult_t result = cinchSuccess;
    for (bool again = true; again;) {
        again = false;
        if (run_items(op, &result, &again)) {
            op->state = CINCH_OP_DONE;
            *moved = true;
            return cinchSuccess;
        }
        *moved |= again;
        if (result != cinchSuccess) return result;
        int peer = op->blocked_peer;
        CINCH_TRY(cinch_op_pump(op->call.comm, &again, &peer));
        if (!op->blocked_flag) op->blocked_peer = peer;
    }
    return cinchSuccess;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Planning an operation on a device: codec states, the operator's scalar, memory for messages. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coll/gpu.h"
#include "compress/dtype.h"

static size_t padded(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

/* ---- codec ---- */

bool cinch_gpu_takes(const cinch_op *op, unsigned codecs, size_t input) {
    cinch_gpu_comm *g = op->gpu;
    for (int c = 0; c < CINCH_CODEC_COUNT; c++) {
        if (!(codecs >> c & 1)) continue;
        const cinch_codec *codec = cinch_codec_in_force(op->call.comm, (cinch_codec_index)c);
        const char *why = g->kernels->supports(codec);
        if (!why && g->kernels->state_bytes(codec, 1) && input > UINT32_MAX)
            why = "it selects among at most 4294967295 elements";
        if (!why) continue;
        if (!g->refused)
            cinch_warn("%s does not run on a GPU: %s; calls on device memory stay exact (said "
                       "once)",
                       codec->vt->name, why);
        g->refused = true;
        return false;
    }
    return true;
}

size_t cinch_gpu_state_bytes(const cinch_op *op, int codec, size_t count) {
    return op->gpu->kernels->state_bytes(
        cinch_codec_in_force(op->call.comm, (cinch_codec_index)codec), count);
}

typedef struct order {
    cinch_op *op;
    const cinch_codec *codec;
    const cinchCodecSite_t *site;
    void *to;
    const void *scalar;
    size_t count;
} order;

static cinchResult_t queue_prepare(void *arg) {
    const order *o = arg;
    const cinch_gpu_comm *g = o->op->gpu;
    const cinch_gpu_where where = {.stream = cinch_gpu_compute(g)};
    return g->kernels->prepare(&where, o->codec, o->site, o->op->call.dtype, o->op->source,
                               o->codec->ef ? g->sender : NULL, o->count, o->to);
}

cinchResult_t cinch_gpu_prepare_codecs(cinch_op *op, size_t input) {
    cinch_gpu_comm *g = op->gpu;
    const struct cinchComm *comm = op->call.comm;
    cinchCodecSite_t site = {.call = comm->calls, .rank = (uint32_t)comm->rank};
    CINCH_TRY(cinch_gpu_lengths_begin(op));
    CINCH_TRY(g->work->fill(g->device, cinch_gpu_compute(g), g->counts, 0, sizeof *g->counts));
    if (op->ef) CINCH_TRY(cinch_gpu_mirror(g, op->ef, &g->sender, &g->owner));
    cinch_gpu_queued(g);
    for (int c = 0; c < CINCH_CODEC_COUNT; c++) {
        order o = {.op = op,
                   .codec = cinch_codec_in_force(comm, (cinch_codec_index)c),
                   .site = &site,
                   .to = (void *)(uintptr_t)op->codec_state[c],
                   .count = input};
        if (o.to) CINCH_TRY(g->work->with(g->device, queue_prepare, &o));
    }
    return cinchSuccess;
}

/* ---- the operator's scalar ---- */

/* Where kernels find it. */
static cinchResult_t scalar_of(cinch_op *op, const void **at) {
    cinch_gpu_mail *mail = op->gpu->mail;
    const void *scalar = op->call.device_scalar;
    cinch_memory memory = {CINCH_MEMORY_HOST, -1};
    if (scalar) (void)cinch_device_of_pointer(scalar, &memory);
    *at = scalar;
    if (scalar && memory.kind != CINCH_MEMORY_HOST) return cinchSuccess;
    memcpy(mail->scalar, scalar ? scalar : op->call.scalar, cinch_dtype_size(op->call.dtype));
    *at = mail->scalar;
    return cinchSuccess;
}

static cinchResult_t queue_premul(void *arg) {
    const order *o = arg;
    const cinch_gpu_where where = {.stream = cinch_gpu_compute(o->op->gpu)};
    return o->op->gpu->kernels->premul(&where, o->op->call.dtype, o->to, o->op->call.send, o->count,
                                       o->scalar);
}

static cinchResult_t premul(cinch_op *op, void *to, size_t count) {
    order o = {.op = op, .to = to, .count = count};
    CINCH_TRY(scalar_of(op, &o.scalar));
    cinch_gpu_queued(op->gpu);
    return op->gpu->work->with(op->gpu->device, queue_premul, &o);
}

cinchResult_t cinch_gpu_scale(cinch_op *op, size_t count) {
    cinch_gpu_comm *g = op->gpu;
    void *scaled = op->call.recv;
    if (op->call.collective != CINCH_ALLREDUCE) {
        CINCH_TRY(cinch_gpu_reserve(g, &g->scaled, count * cinch_dtype_size(op->call.dtype)));
        scaled = g->scaled.data;
    }
    op->source = scaled;
    return premul(op, scaled, count);
}

static cinchResult_t queue_own(cinch_op *op, void *to, const void *from, size_t bytes) {
    cinch_gpu_queued(op->gpu);
    if (to == from || !bytes) return cinchSuccess;
    return op->gpu->work->copy(op->gpu->device, cinch_gpu_compute(op->gpu), to, from, bytes);
}

cinchResult_t cinch_gpu_alone(cinch_op *op) {
    const cinch_called *call = &op->call;
    size_t bytes = call->count * cinch_dtype_size(call->dtype);
    CINCH_TRY(call->premul ? premul(op, call->recv, call->count)
                           : queue_own(op, call->recv, call->send, bytes));
    return cinch_gpu_sync(op->gpu, 0);
}

cinchResult_t cinch_gpu_copy_pair(cinch_op *op, cinch_p2p *to, const cinch_p2p *from) {
    if (to->on_device || from->on_device) return queue_own(op, to->data, from->data, from->bytes);
    memmove(to->data, from->data, from->bytes);
    return cinchSuccess;
}

/* ---- messages ---- */

/* So many ways, with events; those that there are stay where they are needed no more. */
static cinchResult_t need_ways(cinch_gpu_comm *g, size_t count) {
    if (count > g->ways) {
        cinch_gpu_way *way = realloc(g->way, count * sizeof *way);
        if (!way) return cinch_fail(cinchSystemError, "out of memory for %zu messages", count);
        memset(way + g->ways, 0, (count - g->ways) * sizeof *way);
        g->way = way;
        g->ways = count;
    }
    for (size_t i = 0; i < count; i++) {
        g->way[i].state = CINCH_WAY_NONE;
        if (!g->way[i].mark) CINCH_TRY(g->work->event_open(g->device, &g->way[i].mark));
        if (!g->way[i].moved) CINCH_TRY(g->work->event_open(g->device, &g->way[i].moved));
    }
    return cinchSuccess;
}

/* For each message of a round a place in the memory for messages, and one in the stage. */
static cinchResult_t need_offsets(cinch_gpu_comm *g, size_t messages) {
    size_t count = 2 * messages;
    if (count <= g->offsets) return cinchSuccess;
    size_t *offset = realloc(g->offset, count * sizeof *offset);
    if (!offset) return cinch_fail(cinchSystemError, "out of memory for %zu messages", count);
    g->offset = offset;
    g->offsets = count;
    return cinchSuccess;
}

/* The most bytes of a message. */
static size_t room_of(const cinch_op *op, const cinch_ref *ref) {
    if (ref->space == CINCH_WIRE) return op->wire_bytes;
    size_t parts = ref->part == CINCH_ALL_PARTS ? (size_t)op->cut.parts : ref->parts;
    return padded(parts * cinch_cut_part_max(&op->cut) * op->esize);
}

/* Where a message goes by a note, short ones are still the link's. */
static size_t bounce_of(const cinch_op *op, const cinch_item *item) {
    size_t room = room_of(op, &op->schedule->refs[item->ref]);
    size_t most = padded(sizeof(cinch_gpu_note));
    return cinch_gpu_direct(op->call.comm, item->peer) && room > most ? most : room;
}

static bool is_staged(const struct cinchComm *comm, int q) {
    return cinch_gpu_direct(comm, q) && !comm->gpu_peers->peer[q].here;
}

enum { UNSTAGED = 1 }; /* no place that is aligned */

static cinchResult_t place_messages(cinch_op *op) {
    cinch_gpu_comm *g = op->gpu;
    const cinch_schedule *s = op->schedule;
    size_t live = s->depth < op->cut.rounds ? s->depth : op->cut.rounds, used = 0, staged = 0;
    unsigned char *stage;
    CINCH_TRY(need_offsets(g, s->nmsg));
    CINCH_TRY(need_ways(g, (size_t)s->depth * s->nmsg));
    for (int i = 0; i < s->nitems; i++) {
        const cinch_item *item = &s->item[i];
        if (item->msg == CINCH_NO_MSG) continue;
        bool stages = item->op == CINCH_DO_SEND && is_staged(op->call.comm, item->peer);
        g->offset[item->msg] = used;
        g->offset[s->nmsg + item->msg] = stages ? staged : UNSTAGED;
        used += bounce_of(op, item);
        if (stages) staged += room_of(op, &s->refs[item->ref]);
    }
    CINCH_TRY(cinch_gpu_reserve(g, &g->bounce, live * used + 64));
    CINCH_TRY(cinch_gpu_stage(op, live * staged, &stage));
    for (size_t i = 0; i < live * s->nmsg; i++) {
        size_t round = i / s->nmsg, at = g->offset[s->nmsg + i % s->nmsg];
        g->way[i].bounce = (unsigned char *)g->bounce.data + round * used + g->offset[i % s->nmsg];
        g->way[i].stage = at == UNSTAGED ? NULL : stage + round * staged + at;
    }
    return cinchSuccess;
}

cinchResult_t cinch_gpu_begin(cinch_op *op) {
    CINCH_TRY(cinch_gpu_peers_settle(op, &op->gpu->planned));
    return op->gpu->planned ? place_messages(op) : cinchSuccess;
}

static bool pair_is_staged(const cinch_op *op, const cinch_p2p *p) {
    return !p->done && !p->receives && p->on_device && p->bytes > sizeof(cinch_gpu_note) &&
           is_staged(op->call.comm, p->peer);
}

/* The way of each message, and memory for it. What has been found out of peers by now counts: who
 * sends decides for each message, and who receives sees which way it came. */
cinchResult_t cinch_gpu_p2p_begin(cinch_op *op) {
    cinch_gpu_comm *g = op->gpu;
    size_t count = 0, used = 0, staged = 0;
    unsigned char *stage;
    bool settled;
    CINCH_TRY(cinch_gpu_peers_settle(op, &settled));
    for (const cinch_p2p *p = op->p2p; p; p = p->next) {
        count++;
        used += p->on_device ? padded(p->bytes) : 0;
        staged += pair_is_staged(op, p) ? padded(p->bytes) : 0;
    }
    CINCH_TRY(need_ways(g, count));
    CINCH_TRY(cinch_gpu_reserve(g, &g->bounce, used + 64));
    CINCH_TRY(cinch_gpu_stage(op, staged, &stage));
    g->planned = true;
    used = staged = 0;
    for (cinch_p2p *p = op->p2p; p; p = p->next) {
        cinch_gpu_way *way = &g->way[--count];
        way->bounce = (unsigned char *)g->bounce.data + used;
        way->stage = pair_is_staged(op, p) ? stage + staged : NULL;
        used += p->on_device ? padded(p->bytes) : 0;
        staged += way->stage ? padded(p->bytes) : 0;
        if (p->done) continue; /* to itself */
        CINCH_TRY(cinch_gpu_start_pair(op, p, way));
    }
    return cinchSuccess;
}

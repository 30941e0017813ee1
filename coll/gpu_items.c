/* SPDX-License-Identifier: Apache-2.0 */
/* The items of schedules as kernels and copies: what coll/engine.c does on the host. */
#include "coll/gpu.h"

static size_t wire_slot(const cinch_op *op, const cinch_ref *ref, size_t round) {
    return round % op->schedule->depth * op->schedule->nwire + ref->slot;
}

static cinchResult_t queue_copy(cinch_op *op, const cinch_ref *ref, size_t round) {
    const cinch_gpu_comm *g = op->gpu;
    size_t length;
    void *dst = cinch_op_place(op, &ref[0], round, &length);
    const void *src = cinch_op_place(op, &ref[1], round, &length);
    if (dst == src || !length) return cinchSuccess;
    return g->work->copy(g->device, cinch_gpu_compute(g), dst, src, length * op->esize);
}

static cinchResult_t queue_reduce(cinch_op *op, const cinch_item *item, const cinch_ref *ref,
                                  size_t round) {
    const cinch_gpu_where where = {.stream = cinch_gpu_compute(op->gpu)};
    cinchRedOp_t redop = op->call.redop == cinchAvg ? cinchSum : op->call.redop;
    size_t length = 0;
    for (int i = 0; i < item->ndst; i++) op->dst[i] = cinch_op_place(op, &ref[i], round, &length);
    for (int i = 0; i < item->nsrc; i++)
        op->src[i] = cinch_op_place(op, &ref[item->ndst + i], round, &length);
    if (!length) return cinchSuccess;
    return op->gpu->kernels->reduce(&where, op->call.dtype, redop, op->dst, item->ndst, op->src,
                                    item->nsrc, length, cinch_op_avg(op, item));
}

static cinchResult_t queue_encode(cinch_op *op, const cinch_item *item, const cinch_ref *ref,
                                  size_t round) {
    cinch_gpu_comm *g = op->gpu;
    const struct cinchComm *comm = op->call.comm;
    const cinch_codec *codec = cinch_codec_in_force(comm, cinch_item_codec(item));
    const cinch_gpu_where where = {.stream = cinch_gpu_compute(g)};
    bool owner = item->flags & CINCH_OWNER, wide = item->flags & (CINCH_OWNER | CINCH_WIDE);
    size_t length;
    void *wire = cinch_op_place(op, &ref[0], round, &length);
    const void *src = cinch_op_place(op, &ref[1], round, &length);
    const void *state = op->codec_state[cinch_item_codec(item)];
    cinch_span span = cinch_cut_span(&op->cut, cinch_cut_length(&op->cut, round), &ref[1]);
    cinchDataType_t dtype = wide ? cinchFloat32 : op->call.dtype;
    cinchCodecSite_t site = {.call = comm->calls,
                             .offset =
                                 ref[1].block * op->call.count + round * op->cut.round + span.first,
                             .rank = (uint32_t)comm->rank,
                             .phase = owner};
    size_t share = round * cinch_cut_part_max(&op->cut);
    float *residual = NULL;
    if (op->ef && codec->ef) residual = owner ? g->owner + share : g->sender + site.offset;
    op->wire_length[wire_slot(op, &ref[0], round)] =
        length ? g->kernels->wire_bytes(codec, length) : 0;
    if (!length) return cinchSuccess;
    if (ref[1].space != CINCH_IN && g->kernels->state_bytes(codec, length)) {
        /* A share is all that it sees of the sum. */
        CINCH_TRY(
            g->kernels->prepare(&where, codec, &site, dtype, src, residual, length, op->work));
        state = op->work;
    }
    return g->kernels->encode(&where, codec, &site, state, dtype, src, residual, length, wire,
                              g->counts);
}

static cinchResult_t queue_sum(cinch_op *op, const cinch_item *item, const cinch_ref *ref,
                               size_t round) {
    cinch_gpu_comm *g = op->gpu;
    const cinch_gpu_where where = {.stream = cinch_gpu_compute(g)};
    size_t length;
    for (int i = 0; i < item->nsrc; i++) {
        const cinch_ref *src = &ref[1 + i];
        void *data = cinch_op_place(op, src, round, &length);
        bool wire = src->space == CINCH_WIRE;
        g->term[i] = (cinch_gpu_term){
            .wire = wire ? data : NULL,
            .plain = wire ? NULL : data,
            .bytes = wire ? op->wire_length[wire_slot(op, src, round)] : 0,
        };
    }
    void *dst = cinch_op_place(op, &ref[0], round, &length);
    cinchDataType_t from = item->flags & CINCH_WIDE ? cinchFloat32 : op->call.dtype;
    cinchDataType_t to = ref[0].space == CINCH_BOX ? cinchFloat32 : op->call.dtype;
    if (!length) return cinchSuccess;
    return g->kernels->sum(&where, cinch_codec_in_force(op->call.comm, cinch_item_codec(item)),
                           g->term, item->nsrc, from, to, dst, length, cinch_op_avg(op, item),
                           g->counts);
}

typedef struct order {
    cinch_op *op;
    const cinch_item *item;
    size_t round;
} order;

static cinchResult_t queue(void *arg) {
    const order *o = arg;
    cinch_op *op = o->op;
    const cinch_ref *ref = &op->schedule->refs[o->item->ref];
    switch (o->item->op) {
    case CINCH_DO_COPY:
        return queue_copy(op, ref, o->round);
    case CINCH_DO_REDUCE:
        return queue_reduce(op, o->item, ref, o->round);
    case CINCH_DO_ENCODE:
        return queue_encode(op, o->item, ref, o->round);
    case CINCH_DO_SUM:
        return queue_sum(op, o->item, ref, o->round);
    default: /* the schedules that are chosen for devices have no flags */
        return cinch_fail(cinchInternalError, "a schedule for device memory waits for flags");
    }
}

cinchResult_t cinch_gpu_item(cinch_op *op, const cinch_item *item, size_t round) {
    order o = {op, item, round};
    cinch_gpu_queued(op->gpu);
    return op->gpu->work->with(op->gpu->device, queue, &o);
}

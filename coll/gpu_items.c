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

/* ---- codecs ---- */

/* The terms of a sum, in the order of its sources. */
static void list_terms(cinch_op *op, const cinch_item *item, size_t round) {
    const cinch_ref *src = &op->schedule->refs[item->ref + item->ndst];
    size_t length;
    for (int i = 0; i < item->nsrc; i++, src++) {
        void *data = cinch_op_place(op, src, round, &length);
        bool wire = src->space == CINCH_WIRE;
        op->gpu->term[i] = (cinch_gpu_term){
            .wire = wire ? data : NULL,
            .plain = wire ? NULL : data,
            .bytes = wire ? op->wire_length[wire_slot(op, src, round)] : 0,
        };
    }
}

/* Whether the item reads what is in that slot of such memory. */
static bool reads(const cinch_schedule *s, const cinch_item *item, const cinch_ref *of) {
    const cinch_ref *src = &s->refs[item->ref + item->ndst];
    for (int i = 0; i < item->nsrc; i++)
        if (src[i].space == of->space && src[i].slot == of->slot) return true;
    return false;
}

/* Whether the sum is an owner's, which the next item encodes and nobody else reads, into memory
 * that is no term: then that does both in one pass. */
static bool encoded_next(const cinch_op *op, const cinch_item *sum) {
    const cinch_schedule *s = op->schedule;
    const cinch_item *encode = sum + 1;
    if (encode == s->item + s->nitems || sum->op != CINCH_DO_SUM || encode->op != CINCH_DO_ENCODE ||
        !(encode->flags & CINCH_OWNER) || encode->lag != sum->lag ||
        cinch_item_codec(encode) != cinch_item_codec(sum) || sum->nsrc > CINCH_GPU_FUSED_TERMS ||
        !op->gpu->kernels->fuses(cinch_codec_in_force(op->call.comm, cinch_item_codec(sum))))
        return false;
    const cinch_ref *box = &s->refs[sum->ref], *src = &s->refs[encode->ref + 1];
    if (box->space != CINCH_BOX || src->space != CINCH_BOX || src->slot != box->slot ||
        reads(s, sum, &s->refs[encode->ref]))
        return false;
    for (const cinch_item *item = s->item; item < s->item + s->nitems; item++)
        if (item != encode && reads(s, item, box)) return false;
    return true;
}

static cinchDataType_t plain_type(const cinch_op *op, const cinch_item *sum) {
    return sum->flags & CINCH_WIDE ? cinchFloat32 : op->call.dtype;
}

/* What the encode must have seen, where that is not the state of the whole input as it is: a share
 * is all that it sees of a sum; and blocks of an input may begin and end anywhere. */
static cinchResult_t prepare_part(cinch_op *op, const cinch_codec *codec,
                                  const cinchCodecSite_t *site, cinchDataType_t dtype,
                                  const cinch_ref *ref, const void *src, const float *residual,
                                  size_t length, const void **state) {
    const cinch_gpu *kernels = op->gpu->kernels;
    const cinch_gpu_where where = {.stream = cinch_gpu_compute(op->gpu)};
    const void *whole = *state;
    size_t granule = cinch_codec_granule(codec);
    if (!kernels->state_bytes(codec, length)) return cinchSuccess;
    const cinch_shape *shape = cinch_shape_of(op->call.collective);
    size_t blocks = (size_t)cinch_shape_in_blocks(shape, op->call.comm->nranks);
    bool whole_granules = length % granule == 0 || site->offset + length == blocks * op->call.count;
    if (ref->space == CINCH_IN && site->offset % granule == 0 && whole_granules)
        return cinchSuccess;
    *state = op->work;
    if (ref->space != CINCH_IN)
        return kernels->prepare(&where, codec, site, dtype, src, residual, length, op->work);
    return kernels->prepare_part(&where, codec, site, dtype, src, residual, length, whole,
                                 op->work);
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
    size_t share = round * cinch_cut_part_max(&op->cut), slot = wire_slot(op, &ref[0], round);
    float *residual = NULL;
    if (op->ef && codec->ef) residual = owner ? g->owner + share : g->sender + site.offset;
    op->wire_length[slot] = length ? g->kernels->wire_bytes(codec, length) : 0;
    if (!length) return cinchSuccess;
    if (item > op->schedule->item && encoded_next(op, item - 1)) {
        const cinch_item *sum = item - 1;
        list_terms(op, sum, round);
        return g->kernels->sum_encode(&where, codec, &site, g->term, sum->nsrc, plain_type(op, sum),
                                      residual, length, cinch_op_avg(op, sum), wire, op->call.dtype,
                                      NULL, g->counts);
    }
    CINCH_TRY(prepare_part(op, codec, &site, dtype, &ref[1], src, residual, length, &state));
    CINCH_TRY(g->kernels->encode(&where, codec, &site, state, dtype, src, residual, length, wire,
                                 g->counts));
    if (op->wire_length[slot]) return cinchSuccess;
    return cinch_gpu_length_ask(op, codec, wire, length, slot);
}

static cinchResult_t queue_sum(cinch_op *op, const cinch_item *item, const cinch_ref *ref,
                               size_t round) {
    cinch_gpu_comm *g = op->gpu;
    const cinch_gpu_where where = {.stream = cinch_gpu_compute(g)};
    size_t length;
    if (encoded_next(op, item)) return cinchSuccess;
    list_terms(op, item, round);
    void *dst = cinch_op_place(op, &ref[0], round, &length);
    cinchDataType_t from = plain_type(op, item);
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

/* SPDX-License-Identifier: Apache-2.0 */
/* One call on device memory, checked as one on the host. */
#ifndef CINCH_TESTS_GPU_CALL_H_
#define CINCH_TESTS_GPU_CALL_H_

#include "tests/cuda_ranks.h"

typedef struct copied { /* device memory of the same size and alignment as a block of the host's */
    unsigned char *block, *data;
    size_t room;
} copied;

static inline bool copied_make(seat *me, copied *d, const guarded *g, bool pinned,
                               cudaStream_t stream) {
    d->room = g->bytes + 2 * GUARD;
    void *block = take(d->room, pinned);
    TRY_CHECK(me, block);
    d->block = block;
    d->data = d->block + (g->data - g->block);
    TRY_CHECK(me,
              cudaMemcpyAsync(block, g->block, d->room, cudaMemcpyDefault, stream) == cudaSuccess);
    return true;
}

/* The buffers of a call: the host's copies, and the device's. */
typedef struct gpu_call {
    one_call c;
    guarded send, recv;
    copied on_send, on_recv;
    unsigned char *from, *to;
    bool sends, gets, in_place;
    unsigned char scalar[8];
    void *device_scalar;
    cinchRedOp_t op;
} gpu_call;

static inline bool gpu_call_make(seat *me, gpu_call *g, const one_call *c) {
    const cinch_shape *shape = cinch_shape_of(c->collective);
    size_t bytes = c->count * cinch_dtype_size(c->dtype);
    size_t in = bytes * (size_t)cinch_shape_in_blocks(shape, me->nranks);
    size_t out = bytes * (size_t)cinch_shape_out_blocks(shape, me->nranks);
    *g = (gpu_call){.c = *c, .op = (cinchRedOp_t)c->op};
    g->sends = cinch_shape_sends(shape, me->rank, c->root);
    g->gets = cinch_shape_gets(shape, me->rank, c->root);
    g->in_place = g->c.in_place = c->in_place && g->sends && g->gets &&
                                  !cinch_shape_never_in_place(shape) &&
                                  c->collective != CINCH_SENDRECV;
    TRY_CHECK(me, guarded_make(&g->send, in, c->offset, false));
    TRY_CHECK(me, guarded_make(&g->recv, g->in_place && in > out ? in : out, c->offset, false));
    size_t in_at = g->in_place ? bytes * (size_t)cinch_shape_in_base(shape, me->rank) : 0;
    size_t out_at =
        g->in_place ? bytes * (size_t)cinch_shape_out_base(shape, me->rank, me->nranks) : 0;
    exact_fill((g->in_place ? g->recv.data : g->send.data) + in_at, c->dtype, c->op, me->rank,
               me->nranks, c->seed, c->count * (in / (bytes ? bytes : 1)));
    /* `mapped` makes one of the two pinned. */
    bool pinned = c->mapped;
    if (!copied_make(me, &g->on_send, &g->send, pinned, c->stream)) return false;
    if (!copied_make(me, &g->on_recv, &g->recv, false, c->stream)) return false;
    g->from = (g->in_place ? g->on_recv.data : g->on_send.data) + in_at;
    g->to = g->on_recv.data + out_at;
    if (c->op != PREMUL || !c->device_scalar || c->seed % 2)
        return one_call_make_op(me, c, g->scalar, &g->op);
    one_call here = *c; /* the scalar in device memory, there before the call runs */
    here.device_scalar = false;
    unsigned char bits[8];
    if (!one_call_make_op(me, &here, bits, &g->op)) return false;
    TRY_CHECK(me, cinchRedOpDestroy(g->op, me->comm) == cinchSuccess);
    uint64_t scalar = cinch_dtype_is_float(c->dtype)
                          ? exact_encode(c->dtype, exact_scalar(me->rank))
                          : (uint64_t)(int64_t)exact_scalar(me->rank);
    memcpy(g->scalar, &scalar, 8);
    g->device_scalar = take(8, false);
    TRY_CHECK(me, g->device_scalar);
    TRY_CHECK(me, cudaMemcpyAsync(g->device_scalar, g->scalar, 8, cudaMemcpyDefault, c->stream) ==
                      cudaSuccess);
    TRY_CHECK(me, cinchRedOpCreatePreMulSum(&g->op, g->device_scalar, c->dtype, cinchScalarDevice,
                                            me->comm) == cinchSuccess);
    return true;
}

static inline bool gpu_call_start(seat *me, gpu_call *g) {
    TRY_CHECK(me,
              one_call_do(me, &g->c, g->sends ? g->from : NULL, g->gets ? (void *)g->to : NULL,
                          g->op) == cinchSuccess,
              "%s", cinch_shape_of(g->c.collective)->name);
    return true;
}

/* After the call, on its stream. */
static inline bool gpu_call_end(seat *me, gpu_call *g) {
    TRY_CHECK(me, cudaMemcpyAsync(g->send.block, g->on_send.block, g->on_send.room,
                                  cudaMemcpyDefault, g->c.stream) == cudaSuccess);
    TRY_CHECK(me, cudaMemcpyAsync(g->recv.block, g->on_recv.block, g->on_recv.room,
                                  cudaMemcpyDefault, g->c.stream) == cudaSuccess);
    TRY_CHECK(me, cinchStreamSynchronize(g->c.stream) == cinchSuccess);
    TRY_CHECK(me, cudaStreamSynchronize(g->c.stream) == cudaSuccess);
    if (g->op >= cinchNumOps) TRY_CHECK(me, cinchRedOpDestroy(g->op, me->comm) == cinchSuccess);
    if (g->in_place)
        memmove(g->recv.data, g->recv.data + (g->to - g->on_recv.data),
                g->c.count * cinch_dtype_size(g->c.dtype) *
                    (size_t)cinch_shape_out_blocks(cinch_shape_of(g->c.collective), me->nranks));
    bool good = one_call_check(me, &g->c, &g->send, &g->recv);
    guarded_free(&g->send);
    guarded_free(&g->recv);
    return good;
}

static inline bool gpu_call_run(seat *me, const one_call *c) {
    gpu_call g;
    return gpu_call_make(me, &g, c) && gpu_call_start(me, &g) && gpu_call_end(me, &g);
}

static inline one_call random_call(uint64_t dice, int nranks, cinch_collective collective,
                                   size_t most) {
    one_call c = {.collective = collective,
                  .root = (int)(dice & 15) % nranks,
                  .dtype = (cinchDataType_t)((dice >> 4) % cinchNumTypes),
                  .op = (int)((dice >> 12) % EXACT_OPS),
                  .count = 1 + (dice >> 20) % most,
                  .seed = dice,
                  .offset = dice >> 40 & 1 ? dice >> 41 & 31 : 0,
                  .in_place = dice >> 46 & 1,
                  .mapped = (dice >> 47 & 3) == 0,
                  .device_scalar = dice >> 49 & 1};
    /* Who has pinned memory alone works on the host, and then all have to. */
    if (c.in_place || cinch_shape_rooted(cinch_shape_of(collective))) c.mapped = false;
    return c;
}

#endif

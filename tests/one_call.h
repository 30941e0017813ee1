/* SPDX-License-Identifier: Apache-2.0 */
/* One checked collective: exact data, guards around both buffers, the send buffer as it was. */
#ifndef CINCH_TESTS_ONE_CALL_H_
#define CINCH_TESTS_ONE_CALL_H_

#include "coll/shape.h"
#include "tests/exact_data.h"
#include "tests/harness.h"

typedef struct one_call {
    cinch_collective collective; /* each sends to the next rank where it is CINCH_SENDRECV */
    int root;
    cinchDataType_t dtype;
    int op;       /* cinchRedOp_t or PREMUL */
    size_t count; /* of a block */
    uint64_t seed;
    size_t offset; /* bytes by which the buffers are off their alignment, up to 63 */
    bool in_place, mapped, grouped, device_scalar;
    cinchStream_t stream;
} one_call;

enum { GUARD = 128, GUARD_BYTE = 0xa5 };

typedef struct guarded {
    unsigned char *block, *data;
    size_t bytes;
    bool mapped;
} guarded;

static inline bool guarded_make(guarded *g, size_t bytes, size_t offset, bool mapped) {
    size_t room = bytes + 2 * GUARD;
    void *block = NULL;
    if (mapped) {
        if (cinchHostAlloc(&block, room) != cinchSuccess) return false;
    } else {
        block = aligned_alloc(64, (room + 63) / 64 * 64);
        if (!block) return false;
    }
    *g = (guarded){block, (unsigned char *)block + 64 + offset, bytes, mapped};
    memset(block, GUARD_BYTE, room);
    return true;
}

static inline bool guarded_intact(const guarded *g) {
    for (const unsigned char *p = g->block; p < g->data; p++)
        if (*p != GUARD_BYTE) return false;
    for (size_t i = 0; i < GUARD - 64 - (size_t)(g->data - g->block - 64); i++)
        if (g->data[g->bytes + i] != GUARD_BYTE) return false;
    return true;
}

static inline void guarded_free(guarded *g) {
    if (g->mapped)
        cinchHostFree(g->block);
    else
        free(g->block);
}

#define TRY_CHECK(me, condition, ...)                                                              \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            rank_note(me, __FILE__, __LINE__, #condition, " " __VA_ARGS__);                        \
            return false;                                                                          \
        }                                                                                          \
    } while (0)

static inline bool one_call_make_op(seat *me, const one_call *c, void *scalar, cinchRedOp_t *op) {
    *op = (cinchRedOp_t)c->op;
    if (c->op != PREMUL) return true;
    uint64_t bits = cinch_dtype_is_float(c->dtype) ? exact_encode(c->dtype, exact_scalar(me->rank))
                                                   : (uint64_t)(int64_t)exact_scalar(me->rank);
    memcpy(scalar, &bits, sizeof bits);
    cinchResult_t made = cinchRedOpCreatePreMulSum(
        op, scalar, c->dtype, c->device_scalar ? cinchScalarDevice : cinchScalarHostImmediate,
        me->comm);
    TRY_CHECK(me, made == cinchSuccess);
    if (!c->device_scalar) memset(scalar, 0x77, sizeof bits); /* it was read already */
    return true;
}

/* Whose input element i of block `block` of the receive buffer is (-1: everyone's, reduced), and
 * which element of that send buffer. */
static inline int one_call_source(const seat *me, const one_call *c, int block, size_t *i) {
    const cinch_shape *shape = cinch_shape_of(c->collective);
    if (c->collective == CINCH_SENDRECV) return (me->rank + me->nranks - 1) % me->nranks;
    if (shape->in_n) *i += (size_t)me->rank * c->count;
    return shape->reduces ? -1 : shape->out_n ? block : c->root;
}

static inline bool one_call_equal(cinchDataType_t t, uint64_t got, uint64_t want) {
    uint64_t sign = cinch_dtype_is_float(t) ? (exact_mask(t) >> 1) + 1 : 0;
    return got == want || (sign && (got & ~sign) == 0 && (want & ~sign) == 0);
}

static inline bool one_call_check(seat *me, const one_call *c, const guarded *send,
                                  const guarded *recv) {
    const cinch_shape *shape = cinch_shape_of(c->collective);
    int n = me->nranks;
    size_t size = cinch_dtype_size(c->dtype);
    int blocks = cinch_shape_gets(shape, me->rank, c->root) ? cinch_shape_out_blocks(shape, n) : 0;
    for (int b = 0; b < blocks; b++)
        for (size_t i = 0; i < c->count; i++) {
            size_t at = i;
            int from = one_call_source(me, c, b, &at);
            uint64_t want = from < 0 ? exact_result(c->dtype, c->op, n, c->seed, at)
                                     : exact_input(c->dtype, c->op, from, n, c->seed, at);
            uint64_t got = exact_get(recv->data, (size_t)b * c->count + i, size);
            TRY_CHECK(me, one_call_equal(c->dtype, got, want),
                      "%s %s op %d count %zu root %d%s%s offset %zu: element %zu of block %d is "
                      "%llx, not %llx",
                      shape->name, cinch_dtype_name(c->dtype), c->op, c->count, c->root,
                      c->in_place ? " in place" : "", c->mapped ? " mapped" : "", c->offset, i, b,
                      (unsigned long long)got, (unsigned long long)want);
        }
    TRY_CHECK(me, guarded_intact(recv), "%s %s op %d count %zu%s: recvbuff", shape->name,
              cinch_dtype_name(c->dtype), c->op, c->count, c->in_place ? " in place" : "");
    if (c->in_place) return true;
    TRY_CHECK(me, guarded_intact(send), "sendbuff");
    for (size_t i = 0; i < send->bytes / size; i++)
        TRY_CHECK(me,
                  exact_get(send->data, i, size) ==
                      exact_input(c->dtype, c->op, me->rank, n, c->seed, i),
                  "%s %s op %d count %zu: sendbuff was changed at %zu", shape->name,
                  cinch_dtype_name(c->dtype), c->op, c->count, i);
    return true;
}

static inline cinchResult_t one_call_do(seat *me, const one_call *c, const void *send, void *recv,
                                        cinchRedOp_t op) {
    cinchDataType_t t = c->dtype;
    cinchComm_t comm = me->comm;
    int n = me->nranks;
    switch (c->collective) {
    case CINCH_ALLREDUCE:
        return cinchAllReduce(send, recv, c->count, t, op, comm, c->stream);
    case CINCH_REDUCESCATTER:
        return cinchReduceScatter(send, recv, c->count, t, op, comm, c->stream);
    case CINCH_ALLGATHER:
        return cinchAllGather(send, recv, c->count, t, comm, c->stream);
    case CINCH_BROADCAST:
        return cinchBroadcast(send, recv, c->count, t, c->root, comm, c->stream);
    case CINCH_REDUCE:
        return cinchReduce(send, recv, c->count, t, op, c->root, comm, c->stream);
    case CINCH_ALLTOALL:
        return cinchAlltoAll(send, recv, c->count, t, comm, c->stream);
    case CINCH_GATHER:
        return cinchGather(send, recv, c->count, t, c->root, comm, c->stream);
    case CINCH_SCATTER:
        return cinchScatter(send, recv, c->count, t, c->root, comm, c->stream);
    default: {
        cinchResult_t result = cinchGroupStart(), end;
        if (result == cinchSuccess)
            result = cinchSend(send, c->count, t, (me->rank + 1) % n, comm, c->stream);
        if (result == cinchSuccess)
            result = cinchRecv(recv, c->count, t, (me->rank + n - 1) % n, comm, c->stream);
        end = cinchGroupEnd();
        return result == cinchSuccess ? end : result;
    }
    }
}

/* False: a failure was noted. */
static inline bool one_call_run(seat *me, const one_call *c) {
    const cinch_shape *shape = cinch_shape_of(c->collective);
    bool sends = cinch_shape_sends(shape, me->rank, c->root);
    bool gets = cinch_shape_gets(shape, me->rank, c->root);
    bool in_place = c->in_place && sends && gets && !cinch_shape_never_in_place(shape) &&
                    c->collective != CINCH_SENDRECV;
    size_t bytes = c->count * cinch_dtype_size(c->dtype);
    size_t in = bytes * (size_t)cinch_shape_in_blocks(shape, me->nranks);
    size_t out = bytes * (size_t)cinch_shape_out_blocks(shape, me->nranks);
    guarded send, recv;
    unsigned char scalar[8];
    cinchRedOp_t op;
    one_call here = *c;
    here.in_place = in_place;
    TRY_CHECK(me, guarded_make(&send, in, c->offset, c->mapped));
    TRY_CHECK(me, guarded_make(&recv, in_place && in > out ? in : out, c->offset, c->mapped));
    unsigned char *to = recv.data, *from = send.data;
    if (in_place) { /* the smaller buffer is a block of the larger, which is recv's memory */
        from = to + bytes * (size_t)cinch_shape_in_base(shape, me->rank);
        to += bytes * (size_t)cinch_shape_out_base(shape, me->rank, me->nranks);
    }
    exact_fill(from, c->dtype, c->op, me->rank, me->nranks, c->seed,
               c->count * (in / (bytes ? bytes : 1)));
    if (!one_call_make_op(me, c, scalar, &op)) return false;
    if (c->grouped) TRY_CHECK(me, cinchGroupStart() == cinchSuccess);
    TRY_CHECK(me,
              one_call_do(me, c, sends ? from : NULL, gets ? (void *)to : NULL, op) == cinchSuccess,
              "%s %s op %d count %zu", shape->name, cinch_dtype_name(c->dtype), c->op, c->count);
    if (c->op == PREMUL) TRY_CHECK(me, cinchRedOpDestroy(op, me->comm) == cinchSuccess);
    if (c->grouped) TRY_CHECK(me, cinchGroupEnd() == cinchSuccess);
    if (in_place && to != recv.data) memmove(recv.data, to, bytes); /* the result, for the check */
    bool good = one_call_check(me, &here, &send, &recv);
    guarded_free(&send);
    guarded_free(&recv);
    return good;
}

#endif

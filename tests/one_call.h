/* SPDX-License-Identifier: Apache-2.0 */
/* One checked all-reduce: exact data, guards around both buffers, the send buffer as it was. */
#ifndef CINCH_TESTS_ONE_CALL_H_
#define CINCH_TESTS_ONE_CALL_H_

#include "tests/exact_data.h"
#include "tests/harness.h"

typedef struct one_call {
    cinchDataType_t dtype;
    int op; /* cinchRedOp_t or PREMUL */
    size_t count;
    uint64_t seed;
    size_t offset; /* bytes by which the buffers are off their alignment, up to 63 */
    bool in_place, mapped, grouped, device_scalar;
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

static inline bool one_call_check(seat *me, const one_call *c, const guarded *send,
                                  const guarded *recv) {
    int n = me->nranks;
    size_t size = cinch_dtype_size(c->dtype);
    size_t bad = exact_difference(recv->data, c->dtype, c->op, n, c->seed, c->count);
    TRY_CHECK(me, bad == c->count,
              "%s op %d count %zu%s%s offset %zu: element %zu is %llx, not %llx",
              cinch_dtype_name(c->dtype), c->op, c->count, c->in_place ? " in place" : "",
              c->mapped ? " mapped" : "", c->offset, bad,
              (unsigned long long)exact_get(recv->data, bad, size),
              (unsigned long long)exact_result(c->dtype, c->op, n, c->seed, bad));
    TRY_CHECK(me, guarded_intact(recv), "%s op %d count %zu%s: recvbuff",
              cinch_dtype_name(c->dtype), c->op, c->count, c->in_place ? " in place" : "");
    if (c->in_place) return true;
    TRY_CHECK(me, guarded_intact(send), "sendbuff");
    for (size_t i = 0; i < c->count; i++)
        TRY_CHECK(me,
                  exact_get(send->data, i, size) ==
                      exact_input(c->dtype, c->op, me->rank, n, c->seed, i),
                  "%s op %d count %zu: sendbuff was changed at %zu", cinch_dtype_name(c->dtype),
                  c->op, c->count, i);
    return true;
}

/* False: a failure was noted. */
static inline bool one_call_run(seat *me, const one_call *c) {
    size_t bytes = c->count * cinch_dtype_size(c->dtype);
    guarded send, recv;
    unsigned char scalar[8];
    cinchRedOp_t op;
    TRY_CHECK(me, guarded_make(&send, bytes, c->offset, c->mapped));
    TRY_CHECK(me, guarded_make(&recv, bytes, c->offset, c->mapped));
    void *from = c->in_place ? recv.data : send.data;
    exact_fill(from, c->dtype, c->op, me->rank, me->nranks, c->seed, c->count);
    if (!one_call_make_op(me, c, scalar, &op)) return false;
    if (c->grouped) TRY_CHECK(me, cinchGroupStart() == cinchSuccess);
    TRY_CHECK(
        me, cinchAllReduce(from, recv.data, c->count, c->dtype, op, me->comm, NULL) == cinchSuccess,
        "%s op %d count %zu", cinch_dtype_name(c->dtype), c->op, c->count);
    if (c->op == PREMUL) TRY_CHECK(me, cinchRedOpDestroy(op, me->comm) == cinchSuccess);
    if (c->grouped) TRY_CHECK(me, cinchGroupEnd() == cinchSuccess);
    bool good = one_call_check(me, c, &send, &recv);
    guarded_free(&send);
    guarded_free(&recv);
    return good;
}

#endif

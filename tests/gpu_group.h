/* SPDX-License-Identifier: Apache-2.0 */
/* A group of calls on device memory, by whatever way they go. */
#ifndef CINCH_TESTS_GPU_GROUP_H_
#define CINCH_TESTS_GPU_GROUP_H_

#include "coll/comm.h"
#include "tests/cuda_ranks.h"

enum { GROUP_COUNT = 900, GROUP_OPS = 3 };

/* The calls: two communicators, three streams, messages of device, pinned and host memory, and one
 * from a rank to itself. */
static inline bool group_call(seat *me, cinchComm_t other, const cudaStream_t *stream,
                              int *const *at, int *in, int *out, int *plain, int *back) {
    int n = me->nranks, next = (me->rank + 1) % n, last = (me->rank + n - 1) % n;
    const size_t count = GROUP_COUNT;
    TRY_CHECK(me, !cinchGroupStart());
    for (int o = 0; o < GROUP_OPS; o++)
        TRY_CHECK(me, !cinchAllReduce(at[o], at[o], count, cinchInt, cinchSum,
                                      o == 1 ? other : me->comm, stream[o]));
    TRY_CHECK(me, !cinchSend(in, count, cinchInt, next, me->comm, stream[0]));
    TRY_CHECK(me, !cinchSend(plain, count, cinchInt, next, me->comm, stream[2]));
    TRY_CHECK(me, !cinchSend(in + count, count, cinchInt, me->rank, me->comm, stream[1]));
    TRY_CHECK(me, !cinchRecv(out, count, cinchInt, last, me->comm, stream[0]));
    TRY_CHECK(me, !cinchRecv(back, count, cinchInt, last, me->comm, stream[0]));
    TRY_CHECK(me, !cinchRecv(out + count, count, cinchInt, me->rank, me->comm, stream[1]));
    TRY_CHECK(me, !cinchGroupEnd());
    return true;
}

/* Collectives and messages on several streams in one group, some on host memory; what a rank sends
 * to itself; a second communicator. pinned: what is sent lies there. by_nccl: both communicators'
 * calls go that way afterwards. */
static inline bool group_run(seat *me, bool pinned, bool by_nccl) {
    enum { COUNT = GROUP_COUNT, OPS = GROUP_OPS };
    int n = me->nranks, last = (me->rank + n - 1) % n;
    cudaStream_t stream[OPS];
    cinchComm_t other;
    int *at[OPS], *in = take(2 * COUNT * 4, pinned), *out = take(2 * COUNT * 4, false);
    int host[OPS][COUNT], got[2 * COUNT], plain[COUNT], back[COUNT];
    TRY_CHECK(me, !cinchCommSplit(me->comm, 0, me->rank, &other, NULL));
    for (int o = 0; o < OPS; o++) {
        stream[o] = open_stream();
        at[o] = take(COUNT * 4, false);
        TRY_CHECK(me, stream[o] && at[o] && in && out);
        for (int i = 0; i < COUNT; i++) host[o][i] = 10 * o + me->rank + i;
        TRY_CHECK(me, !cudaMemcpyAsync(at[o], host[o], COUNT * 4, cudaMemcpyDefault, stream[o]));
    }
    for (int i = 0; i < 2 * COUNT; i++) got[i] = 1000 * me->rank + i;
    for (int i = 0; i < COUNT; i++) plain[i] = 7 * me->rank + i;
    TRY_CHECK(me, !cudaMemcpyAsync(in, got, sizeof got, cudaMemcpyDefault, stream[0]));
    if (!group_call(me, other, stream, at, in, out, plain, back)) return false;
    for (int o = 0; o < OPS; o++) {
        TRY_CHECK(me, !cudaMemcpyAsync(host[o], at[o], COUNT * 4, cudaMemcpyDefault, stream[o]));
        if (o == 0)
            TRY_CHECK(me, !cudaMemcpyAsync(got, out, sizeof got, cudaMemcpyDefault, stream[0]));
        TRY_CHECK(me, !cinchStreamSynchronize(stream[o]));
        for (int i = 0; i < COUNT; i++)
            TRY_CHECK(me, host[o][i] == n * (10 * o + i) + n * (n - 1) / 2, "op %d at %d", o, i);
    }
    for (int i = 0; i < COUNT; i++)
        TRY_CHECK(me, got[i] == 1000 * last + i && got[COUNT + i] == 1000 * me->rank + COUNT + i &&
                          back[i] == 7 * last + i);
    TRY_CHECK(me, (me->comm->inner_state == CINCH_INNER_MADE) == by_nccl);
    TRY_CHECK(me, (other->inner_state == CINCH_INNER_MADE) == by_nccl);
    for (int o = 0; o < OPS; o++) TRY_CHECK(me, !cudaStreamDestroy(stream[o]));
    TRY_CHECK(me, !cinchCommDestroy(other));
    return true;
}

#endif

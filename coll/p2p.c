/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between pairs of ranks: those of a group go out together, so that no order of the calls
 * can block. They need no schedule: what a rank does depends on its own calls alone. */
#include <stdlib.h>
#include <string.h>

#include "coll/gpu.h"
#include "compress/dtype.h"

/* The k-th message to a rank meets the k-th from here there. */
static uint64_t next_tag(struct cinchComm *comm, const cinch_p2p *p) {
    _Atomic uint32_t *count = &comm->p2p_count[2 * p->peer + p->receives];
    uint32_t index = atomic_load_explicit(count, memory_order_relaxed);
    atomic_store_explicit(count, index + 1, memory_order_relaxed);
    return (uint64_t)1 << 63 | (uint64_t)p->dtype << 32 | index;
}

/* A message to itself: the k-th send of the group and the k-th receive. */
static cinchResult_t copy_own(cinch_op *op) {
    int me = op->call.comm->rank;
    cinch_p2p *recv = op->p2p;
    for (cinch_p2p *send = op->p2p; send; send = send->next) {
        if (send->peer != me || send->receives) continue;
        while (recv && (recv->peer != me || !recv->receives)) recv = recv->next;
        if (!recv || recv->bytes != send->bytes || recv->dtype != send->dtype)
            return cinch_fail(cinchInvalidUsage,
                              "rank %d sends %zu bytes of %s to itself and receives %s: a send and "
                              "a receive of the same count and datatype in one group are accepted",
                              me, send->bytes, cinch_dtype_name(send->dtype),
                              recv ? "others" : "none");
        if (op->gpu)
            CINCH_TRY(cinch_gpu_copy_pair(op, recv, send));
        else
            memmove(recv->data, send->data, send->bytes);
        send->done = recv->done = true;
        recv = recv->next;
    }
    for (const cinch_p2p *p = op->p2p; p; p = p->next)
        if (p->peer == me && !p->done)
            return cinch_fail(cinchInvalidUsage,
                              "rank %d receives %zu bytes from itself that it does not send in the "
                              "same group",
                              me, p->bytes);
    return cinchSuccess;
}

cinchResult_t cinch_p2p_begin(cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    size_t counts = 2 * (size_t)comm->nranks;
    if (!comm->p2p_count) comm->p2p_count = calloc(counts, sizeof(_Atomic uint32_t));
    if (!comm->p2p_count)
        return cinch_fail(cinchSystemError, "out of memory for %zu counters", counts);
    CINCH_TRY(copy_own(op));
    op->state = CINCH_OP_RUNNING;
    for (cinch_p2p *p = op->p2p; p; p = p->next) {
        if (p->peer == comm->rank) continue;
        cinch_link *link = comm->net->link[p->peer];
        p->msg = (cinch_msg){.data = p->data, .bytes = p->bytes};
        p->msg.exact = !p->receives || !cinch_gpu_may_note(comm, p->peer, p->bytes);
        p->msg.tag = next_tag(comm, p);
        if (!op->gpu) (p->receives ? link->ops->recv : link->ops->send)(link, &p->msg);
    }
    if (op->gpu) return cinch_gpu_p2p_begin(op);
    return cinchSuccess;
}

cinchResult_t cinch_p2p_progress(cinch_op *op, bool *moved) {
    for (bool again = true; again;) {
        bool left = false;
        for (const cinch_p2p *p = op->p2p; p && !left; p = p->next)
            left = p->peer != op->call.comm->rank && !p->msg.done;
        if (!left) {
            for (const cinch_p2p *p = op->p2p; p; p = p->next)
                if (p->peer != op->call.comm->rank && !p->msg.exact)
                    CINCH_TRY(cinch_gpu_peer_fetch(op->call.comm, p->peer, p->data, p->msg.bytes,
                                                   p->bytes));
            op->state = CINCH_OP_DONE;
            *moved = true;
            return cinchSuccess;
        }
        again = false;
        CINCH_TRY(cinch_op_pump(op->call.comm, &again, &op->blocked_peer));
        *moved |= again;
    }
    return cinchSuccess;
}

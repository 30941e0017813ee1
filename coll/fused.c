/* SPDX-License-Identifier: Apache-2.0 */
/* The fused executor: the one-shot schedule for one round, written out without an interpreter. A
 * message that fits beside the flag travels in the flag's own cache lines. */
#include <string.h>

#include "base/cpu.h"
#include "base/fpu.h"
#include "coll/engine.h"
#include "coll/report.h"
#include "compress/dtype.h"

enum {
    BARE_SPINS = 64, /* a pause would delay what is about to come */
    SPINS = 164,     /* then some 2 microseconds of pauses */
    MOST = 64
};

/* The slow half of waiting: the engine's own, over an operation that stands for this one. */
static cinchResult_t wait_long(struct cinchComm *comm, cinch_flag *flag, uint64_t value, int peer,
                               size_t count) {
    cinch_op op = {.call = {.comm = comm, .count = count},
                   .number = atomic_load_explicit(&comm->turn, memory_order_relaxed),
                   .recorded = true,
                   .state = CINCH_OP_RUNNING,
                   .blocked_flag = flag,
                   .blocked_peer = peer};
    cinch_idle idle = {.yields = 1}; /* it has spun already */
    while (op.result == cinchSuccess && (op.blocked_value = cinch_flag_read(flag)) < value)
        cinch_idle_step(&idle, &op);
    if (op.result != cinchSuccess) cinch_report_describe(&op, idle.since_ns, true);
    return op.result;
}

static inline cinchResult_t wait_for(struct cinchComm *comm, cinch_flag *flag, uint64_t value,
                                     int peer, size_t count) {
    for (int spins = comm->crowded ? SPINS : 0; spins < SPINS; spins++) {
        if (cinch_flag_read(flag) >= value) return cinchSuccess;
        if (spins > BARE_SPINS) cinch_cpu_pause();
    }
    return wait_long(comm, flag, value, peer, count);
}

cinchResult_t cinch_fused_oneshot(const cinch_called *call) {
    struct cinchComm *comm = call->comm;
    const cinch_window *window = comm->net->shm->window;
    unsigned parity = comm->rounds & 1;
    uint64_t value = comm->rounds + 1;
    uint32_t signature = cinch_called_signature(call);
    size_t bytes = call->count * cinch_dtype_size(call->dtype);
    bool beside = bytes <= CINCH_SHM_INLINE_BYTES, avg = call->redop == cinchAvg;
    const void *src[MOST];

    cinch_flag *mine = &window[comm->rank].flag[parity];
    memcpy(beside ? mine->payload : window[comm->rank].stage + parity * CINCH_SMALL_SLOT,
           call->send, bytes);
    atomic_store_explicit(&mine->signature, signature, memory_order_relaxed);
    cinch_flag_post(mine, value);
    /* Here it costs nothing: the peers' flags take longer to come. */
    cinch_record_enter(&comm->record, CINCH_ALLREDUCE, call->count, call->dtype, (int)call->redop,
                       false, false, 0);
    for (int q = 0; q < comm->nranks; q++) {
        if (q == comm->rank) {
            src[q] = call->send;
            continue;
        }
        cinch_flag *flag = &window[q].flag[parity];
        CINCH_TRY(wait_for(comm, flag, value, q, call->count));
        if (atomic_load_explicit(&flag->signature, memory_order_relaxed) != signature)
            return cinch_called_differs(call, q);
        src[q] = beside ? flag->payload : window[q].stage + parity * CINCH_SMALL_SLOT;
    }
    /* Nobody reads the next call's line any more: have it here when that comes. */
    __builtin_prefetch(&window[comm->rank].flag[1 - parity], 1, 3);
    void *dst = call->recv;
    unsigned saved = cinch_fpu_enter();
    cinch_reduce_kernel(call->dtype, avg ? cinchSum : call->redop)(
        &dst, 1, src, comm->nranks, call->count, avg ? comm->nranks : 0, 0);
    cinch_fpu_leave(saved);
    comm->rounds = value;
    comm->window_bytes += bytes * (size_t)(comm->nranks - 1);
    return cinchSuccess;
}

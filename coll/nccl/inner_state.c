/* SPDX-License-Identifier: Apache-2.0 */
/* Error feedback of calls by NCCL, which is in device memory, to and from the communicator's store,
 * by which it is exported, imported and scaled. */
#include <time.h>

#include "base/clock.h"
#include "coll/gpu.h"
#include "coll/nccl/inner.h"

#define STOP_NS ((uint64_t)10 * 1000 * 1000 * 1000)

bool cinch_inner_await(const cinch_side *side) {
    const struct timespec rest = {.tv_nsec = 50000};
    const cinch_device_work *work = side->forward->work;
    uint64_t until = cinch_now_ns() + STOP_NS;
    while (side->busy && work->passed(side->done) == cinchInProgress) {
        if (cinch_now_ns() >= until) return false;
        nanosleep(&rest, NULL);
    }
    return true;
}

cinchResult_t cinch_inner_seed(void *owner, const cinch_ef_key *key, cinch_residual *r,
                               bool *seeded) {
    struct cinchComm *comm = ((cinch_inner *)owner)->comm;
    cinch_ef *ef;
    *seeded = false;
    if (!comm->ef.used && !comm->ef.imported) return cinchSuccess; /* as a rule */
    CINCH_TRY(cinch_ef_get(&comm->ef, key, r->nsender, r->nowner, comm->calls,
                           comm->settings.ef_max_bytes, &ef));
    if (!ef) return cinchSuccess;
    /* What the memory was for before may still be read. */
    if (!cinch_inner_await(((cinch_inner *)owner)->side))
        return cinch_fail(cinchUnhandledCudaError, "the device does not get to what was queued");
    *seeded = true;
    return cinch_gpu_store(comm->gpu, r->sender, ef->sender,
                           (r->nsender + r->nowner) * sizeof(float));
}

/* In the order of their first use, in which the store counts them. */
static cinch_residual *next_after(const cinch_side *side, const cinch_residual *last) {
    cinch_residual *next = NULL;
    for (cinch_residual *r = side->residuals.used; r; r = r->next)
        if ((!last || r->order > last->order) && (!next || r->order < next->order)) next = r;
    return next;
}

cinchResult_t cinch_inner_residuals_back(struct cinchComm *comm, bool for_good) {
    cinch_inner *inner = atomic_load(&comm->inner);
    if (!inner) return cinchSuccess;
    cinch_side *side = inner->side;
    if (!cinch_inner_await(side))
        return cinch_fail(cinchUnhandledCudaError, "the device does not get to what was queued");
    for (cinch_residual *r = NULL; (r = next_after(side, r));) {
        cinch_ef *ef;
        CINCH_TRY(cinch_ef_get(&comm->ef, &r->key, r->nsender, r->nowner, comm->calls,
                               comm->settings.ef_max_bytes, &ef));
        if (ef)
            CINCH_TRY(cinch_gpu_fetch(comm->gpu, ef->sender, r->sender,
                                      (r->nsender + r->nowner) * sizeof(float)));
    }
    if (for_good) cinch_residuals_drop(side);
    return cinchSuccess;
}

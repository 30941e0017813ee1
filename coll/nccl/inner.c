/* SPDX-License-Identifier: Apache-2.0 */
/* An inner communicator of NCCL: made, asked how it is, ended. */
#include "coll/nccl/inner.h"

#include <stdlib.h>
#include <time.h>

#include "coll/gpu.h"
#include "coll/nccl/steps.h"

/* While NCCL is waited for: whether that shall go on. */
static cinchResult_t watch(void *owner, uint64_t waited_ns) {
    struct cinchComm *comm = ((cinch_inner *)owner)->comm;
    long long most = (long long)comm->settings.timeout_ms;
    CINCH_TRY(cinch_comm_stopped(comm));
    CINCH_TRY(cinch_rendezvous_check(comm->meeting));
    if (most <= 0 || waited_ns / 1000000 < (uint64_t)most) return cinchSuccess;
    return cinch_fail(cinchRemoteError,
                      "NCCL, by which device memory goes, was not ready for a call in "
                      "CINCH_TIMEOUT_MS=%lld",
                      most);
}

cinchResult_t cinch_inner_make(struct cinchComm *comm, const cinch_real *real, cinchComm_t handle) {
    cinch_inner *inner = calloc(1, sizeof *inner);
    cinch_side *side =
        inner ? cinch_side_new(&inner->forward, handle, comm->rank, comm->nranks, comm->gpu->device)
              : NULL;
    if (!side) {
        free(inner);
        return cinch_fail(cinchSystemError, "out of memory for a communicator of NCCL");
    }
    inner->comm = comm;
    inner->side = side;
    inner->forward.real = *real;
    inner->forward.settings = comm->settings; /* lent */
    inner->forward.work = comm->gpu->work;
    inner->forward.gpu = comm->gpu->kernels;
    pthread_mutex_init(&inner->forward.lock, NULL);
    side->watch = watch;
    side->seed = cinch_inner_seed;
    side->owner = inner;
    atomic_store(&comm->inner, inner);
    return cinchSuccess;
}

void cinch_inner_look(struct cinchComm *comm) {
    cinch_inner *inner = atomic_load(&comm->inner);
    if (!inner || inner->ended || atomic_load(&comm->failed) != cinchSuccess) return;
    const cinch_real *real = &inner->forward.real;
    cinchResult_t state = cinch_side_state(inner->side);
    if (state != cinchSuccess && state != cinchInProgress) {
        cinch_comm_fail(comm, cinch_inner_told(real, state, "device memory goes by NCCL"));
        return;
    }
    cinchResult_t ours = cinch_side_look_back(inner->side);
    if (ours == cinchSuccess && cinch_comm_stopped(comm) == cinchSuccess)
        ours = cinch_rendezvous_check(comm->meeting); /* no operation of ours listens */
    if (ours != cinchSuccess) cinch_comm_fail(comm, ours);
}

void cinch_inner_count(const struct cinchComm *comm, cinchStats_t *stats) {
    const cinch_inner *inner = atomic_load(&comm->inner);
    if (!inner) return;
    const cinch_side *side = inner->side;
    stats->calls += inner->calls;
    stats->bytes += inner->bytes;
    stats->compressed_calls += side->compressed;
    stats->ef_bytes += side->residuals.bytes;
    stats->ef_dropped += side->residuals.dropped;
    if (side->seen) stats->nonfinite += __atomic_load_n(&side->seen->nonfinite, __ATOMIC_RELAXED);
}

/* ---- its end ---- */

static void nap(void) {
    const struct timespec rest = {.tv_nsec = 50000};
    nanosleep(&rest, NULL);
}

static void end(cinch_inner *inner, cinchResult_t (*by)(cinchComm_t comm)) {
    if (!inner->ended) (void)cinch_side_end(inner->side, inner->side->comm, &inner->forward, by);
    inner->ended = true;
}

void cinch_inner_stop(struct cinchComm *comm) {
    cinch_inner *inner = atomic_load(&comm->inner);
    if (inner) atomic_store(&inner->side->leaving, true);
    while (atomic_load(&comm->inner_calls)) nap();
    inner = atomic_load(&comm->inner); /* it may have come while its init was waited for */
    if (inner) end(inner, inner->forward.real.CommAbort);
}

void cinch_inner_close(struct cinchComm *comm) {
    cinch_inner *inner = atomic_load(&comm->inner);
    if (!inner) return;
    bool well = atomic_load(&comm->failed) == cinchSuccess && !atomic_load(&comm->aborted);
    end(inner, well ? inner->forward.real.CommDestroy : inner->forward.real.CommAbort);
    (void)cinch_inner_await(inner->side);
    cinch_side_free(inner->side);
    pthread_mutex_destroy(&inner->forward.lock);
    atomic_store(&comm->inner, NULL);
    free(inner);
}

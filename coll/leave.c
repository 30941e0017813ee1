/* SPDX-License-Identifier: Apache-2.0 */
/* How a communicator is stopped, left, and asked how it is. */
#include <stdlib.h>
#include <time.h>

#include "base/device.h"
#include "base/log.h"
#include "coll/graph.h"
#include "coll/group.h"
#include "coll/introspect.h"
#include "coll/making.h"
#include "coll/nccl/inner.h"

typedef struct last_job {
    cinch_job job;
    struct cinchComm *comm;
    uint64_t number;
} last_job;

/* Its turn has come when all before it is complete. */
static cinchResult_t run_finalize(cinch_job *job) {
    last_job last = *(last_job *)(void *)job;
    free(job);
    cinch_comm_await_turn(last.comm, last.number);
    cinch_comm_end_turn(last.comm, last.number);
    return cinchSuccess;
}

cinchResult_t cinchCommFinalize(cinchComm_t comm) {
    CINCH_TRY(cinch_comm_known(comm));
    if (atomic_load(&comm->revoked)) return cinch_comm_stopped(comm);
    if (cinch_group_holds(comm)) return cinch_comm_drain(comm);
    if (comm->worker) {
        last_job *last = calloc(1, sizeof *last);
        if (!last) return cinch_fail(cinchSystemError, "out of memory for an operation");
        last->job.run = run_finalize;
        last->comm = comm;
        last->number = cinch_comm_issue(comm);
        comm->finalized = true;
        CINCH_TRY(cinch_device_host.enqueue(comm->worker, &last->job));
        return cinchInProgress;
    }
    CINCH_TRY(cinch_comm_drain(comm));
    comm->finalized = true;
    comm->oneshot_most = 0; /* the fast path does not look at finalized */
    return cinchSuccess;
}

/* Until nothing of it runs any more. */
static void settle(struct cinchComm *comm) {
    const struct timespec rest = {0, 50000};
    cinch_graph_settle(comm);
    cinch_comm_await_turn(comm, atomic_load(&comm->issued));
    while (atomic_load(&comm->pending)) nanosleep(&rest, NULL);
    if (comm->worker) cinch_device_host.stream_synchronize(comm->worker);
}

cinchResult_t cinchCommDestroy(cinchComm_t comm) {
    CINCH_TRY(cinch_comm_known(comm));
    if (cinch_group_holds(comm)) return cinch_comm_drain(comm);
    settle(comm);
    int unused = cinch_ef_leftovers(&comm->ef);
    if (unused) cinch_warn("%d imported error-feedback entries found no call", unused);
    cinch_stats_write(comm);
    cinch_comm_release(comm);
    return cinchSuccess;
}

cinchResult_t cinchCommAbort(cinchComm_t comm) {
    CINCH_TRY(cinch_comm_known(comm));
    atomic_store(&comm->aborted, true);
    cinch_rendezvous *meeting = comm->meeting;
    if (meeting) cinch_rendezvous_abort(meeting, "it called cinchCommAbort");
    cinch_group_forget(comm);
    cinch_inner_stop(comm);
    settle(comm);
    cinch_comm_release(comm);
    return cinchSuccess;
}

cinchResult_t cinchCommRevoke(cinchComm_t comm, int revokeFlags) {
    CINCH_TRY(cinch_comm_check(comm));
    if (revokeFlags != CINCH_REVOKE_DEFAULT)
        return cinch_fail(cinchInvalidArgument, "revokeFlags %d: CINCH_REVOKE_DEFAULT is accepted",
                          revokeFlags);
    atomic_store(&comm->revoked, true);
    comm->oneshot_most = 0; /* nor at this */
    return cinchSuccess;
}

cinchResult_t cinchCommGetAsyncError(cinchComm_t comm, cinchResult_t *asyncError) {
    CINCH_TRY(cinch_comm_known(comm));
    if (!asyncError) return cinch_fail(cinchInvalidArgument, "asyncError is NULL");
    cinch_inner_look(comm);
    *asyncError = (cinchResult_t)atomic_load(&comm->failed);
    if (*asyncError != cinchSuccess || !comm->worker) return cinchSuccess;
    if (atomic_load(&comm->joining) || atomic_load(&comm->pending))
        *asyncError = cinchInProgress;
    else
        *asyncError = cinch_device_host.stream_query(comm->worker);
    return cinchSuccess;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The call itself: arguments, the fast path, and the operators made by the user. */
#include <string.h>

#include "base/device.h"
#include "coll/group.h"
#include "compress/dtype.h"

/* ---- operators ---- */

/* NULL, with a sentence, where op is none of the communicator's. */
static cinch_redop *find_redop(struct cinchComm *comm, cinchRedOp_t op) {
    int index = (int)op - (int)cinchNumOps;
    if (index >= 0 && index < CINCH_MOST_REDOPS && comm->redop[index].used)
        return &comm->redop[index];
    cinch_fail(cinchInvalidArgument,
               "op %d is none: sum, prod, max, min, avg and operators made by "
               "cinchRedOpCreatePreMulSum for this communicator are accepted",
               (int)op);
    return NULL;
}

cinchResult_t cinchRedOpCreatePreMulSum(cinchRedOp_t *op, void *scalar, cinchDataType_t datatype,
                                        cinchScalarResidence_t residence, cinchComm_t comm) {
    CINCH_TRY(cinch_comm_check(comm));
    size_t size = cinch_dtype_size(datatype);
    if (!op || !scalar || !size)
        return cinch_fail(cinchInvalidArgument, "%s",
                          !op       ? "op is NULL"
                          : !scalar ? "scalar is NULL"
                                    : "datatype is none of cinchDataType_t");
    if (residence != cinchScalarDevice && residence != cinchScalarHostImmediate)
        return cinch_fail(cinchInvalidArgument, "residence %d is none of cinchScalarResidence_t",
                          (int)residence);
    for (int i = 0; i < CINCH_MOST_REDOPS; i++) {
        cinch_redop *r = &comm->redop[i];
        if (r->used) continue;
        *r = (cinch_redop){.used = true, .dtype = datatype};
        if (residence == cinchScalarDevice)
            r->device_scalar = scalar;
        else
            memcpy(r->scalar, scalar, size);
        *op = (cinchRedOp_t)((int)cinchNumOps + i);
        return cinchSuccess;
    }
    return cinch_fail(cinchInvalidUsage, "a communicator has at most %d operators at a time",
                      CINCH_MOST_REDOPS);
}

cinchResult_t cinchRedOpDestroy(cinchRedOp_t op, cinchComm_t comm) {
    CINCH_TRY(cinch_comm_check(comm));
    cinch_redop *r = find_redop(comm, op);
    if (!r) return cinchInvalidArgument;
    r->used = false;
    return cinchSuccess;
}

/* ---- the call ---- */

static cinchResult_t check(const cinch_called *op) {
    size_t size = cinch_dtype_size(op->dtype);
    const unsigned char *send = op->send, *recv = op->recv;
    if (!size)
        return cinch_fail(cinchInvalidArgument, "datatype %d is none of cinchDataType_t",
                          (int)op->dtype);
    if (op->count > (size_t)PTRDIFF_MAX / size)
        return cinch_fail(cinchInvalidArgument, "count %zu is more than memory can hold",
                          op->count);
    if (op->count && (!send || !recv))
        return cinch_fail(cinchInvalidArgument, "%s is NULL", send ? "recvbuff" : "sendbuff");
    if (send != recv && send < recv + op->count * size && recv < send + op->count * size)
        return cinch_fail(cinchInvalidArgument,
                          "sendbuff and recvbuff overlap: they are the same or apart");
    if (op->stream && !cinch_device_of_stream(op->stream)) return cinchInvalidArgument;
    return cinchSuccess;
}

static cinchResult_t resolve_redop(cinch_called *op) {
    if (op->redop >= cinchSum && op->redop < cinchNumOps) return cinchSuccess;
    const cinch_redop *r = find_redop(op->comm, op->redop);
    if (!r) return cinchInvalidArgument;
    if (r->dtype != op->dtype)
        return cinch_fail(cinchInvalidArgument, "op %d was made for %s, the call is of %s",
                          (int)op->redop, cinch_dtype_name(r->dtype), cinch_dtype_name(op->dtype));
    op->redop = cinchSum;
    op->premul = true;
    memcpy(op->scalar, r->scalar, sizeof op->scalar);
    op->device_scalar = r->device_scalar;
    return cinchSuccess;
}

/* Small messages of ranks on one host, outside groups and streams, with nothing before them. */
static inline bool fused_serves(const cinch_called *op, size_t bytes) {
    const struct cinchComm *comm = op->comm;
    return bytes <= comm->oneshot_most && !op->premul && !op->stream &&
           atomic_load_explicit(&comm->turn, memory_order_acquire) ==
               atomic_load_explicit(&comm->issued, memory_order_relaxed) &&
           atomic_load_explicit(&comm->failed, memory_order_relaxed) == cinchSuccess &&
           cinch_group_depth() == 0;
}

static cinchResult_t run_fused(const cinch_called *op, size_t bytes) {
    struct cinchComm *comm = op->comm;
    uint64_t number = cinch_comm_issue(comm), began = cinch_ticks();
    cinchResult_t result = cinch_fused_oneshot(op);
    if (result != cinchSuccess) result = cinch_comm_fail(comm, result);
    comm->calls++;
    comm->bytes += bytes;
    comm->ticks += cinch_ticks() - began;
    atomic_store_explicit(&comm->turn, number + 1, memory_order_release);
    return result;
}

cinchResult_t cinchAllReduce(const void *sendbuff, void *recvbuff, size_t count,
                             cinchDataType_t datatype, cinchRedOp_t redop, cinchComm_t comm,
                             cinchStream_t stream) {
    CINCH_TRY(cinch_comm_check(comm));
    cinch_called called = {.comm = comm,
                           .send = sendbuff,
                           .recv = recvbuff,
                           .count = count,
                           .dtype = datatype,
                           .redop = redop,
                           .stream = stream};
    CINCH_TRY(check(&called));
    CINCH_TRY(resolve_redop(&called));
    if (!count) return cinch_comm_state(comm);
    size_t bytes = count * cinch_dtype_size(datatype);
    if (fused_serves(&called, bytes)) return run_fused(&called, bytes);
    return cinch_group_submit(&called);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The calls themselves: arguments, the fast path, and the operators made by the user. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/device.h"
#include "coll/gpu.h"
#include "coll/group.h"
#include "coll/watch.h"
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

/* ---- what a call is called ---- */

const char *cinch_called_text(const cinch_called *call, uint64_t number,
                              char text[CINCH_CALLED_TEXT]) {
    snprintf(text, CINCH_CALLED_TEXT, "%s number %llu (%zu of %s)",
             cinch_shape_of(call->collective)->name, (unsigned long long)number, call->count,
             cinch_dtype_name(call->dtype));
    return text;
}

cinchResult_t cinch_called_differs(const cinch_called *call, int peer) {
    char why[CINCH_ERROR_TEXT], doing[CINCH_DOING_TEXT];
    bool inside;
    snprintf(why, sizeof why, "rank %d called something else than rank %d, which %s", peer,
             call->comm->rank, cinch_record_doing(&call->comm->record, &inside, doing));
    return cinch_watch_differs(call->comm, peer, why);
}

/* ---- arguments ---- */

static cinchResult_t check_overlap(const cinch_called *op, size_t block) {
    const cinch_shape *shape = cinch_shape_of(op->collective);
    int rank = op->comm->rank, n = op->comm->nranks;
    uintptr_t in = (uintptr_t)op->send, out = (uintptr_t)op->recv;
    size_t in_bytes = block * (size_t)cinch_shape_in_blocks(shape, n);
    size_t out_bytes = block * (size_t)cinch_shape_out_blocks(shape, n);
    bool in_place = in - block * (size_t)cinch_shape_in_base(shape, rank) ==
                    out - block * (size_t)cinch_shape_out_base(shape, rank, n);
    if (in_place && !cinch_shape_never_in_place(shape)) return cinchSuccess;
    if (in >= out + out_bytes || out >= in + in_bytes) return cinchSuccess;
    return cinch_fail(cinchInvalidArgument, "%s: sendbuff and recvbuff overlap: %s", shape->name,
                      cinch_shape_never_in_place(shape) ? "apart is accepted"
                      : shape->in_n || shape->out_n
                          ? "apart, or one at its block of the other, is accepted"
                          : "they are the same or apart");
}

static cinchResult_t check(const cinch_called *op) {
    const cinch_shape *shape = cinch_shape_of(op->collective);
    const struct cinchComm *comm = op->comm;
    size_t size = cinch_dtype_size(op->dtype),
           blocks = (size_t)cinch_shape_blocks(shape, comm->nranks);
    bool pair = op->collective == CINCH_SENDRECV;
    bool sends = pair ? !op->receives : cinch_shape_sends(shape, comm->rank, op->root);
    bool gets = pair ? op->receives : cinch_shape_gets(shape, comm->rank, op->root);
    if (!size)
        return cinch_fail(cinchInvalidArgument, "datatype %d is none of cinchDataType_t",
                          (int)op->dtype);
    if (op->count > (size_t)PTRDIFF_MAX / size / blocks)
        return cinch_fail(cinchInvalidArgument, "count %zu is more than memory can hold",
                          op->count);
    if (op->root < 0 || op->root >= comm->nranks)
        return cinch_fail(cinchInvalidArgument, "%s %d: 0 to %d are accepted",
                          pair ? "peer" : "root", op->root, comm->nranks - 1);
    if (op->count && ((sends && !op->send) || (gets && !op->recv)))
        return cinch_fail(cinchInvalidArgument, "%s is NULL",
                          sends && !op->send ? "sendbuff" : "recvbuff");
    if (sends && gets) CINCH_TRY(check_overlap(op, op->count * size));
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

/* ---- the calls ---- */

/* Small messages of ranks on one host, outside groups and streams, with nothing before them. */
static inline bool fused_serves(const cinch_called *op, size_t bytes) {
    const struct cinchComm *comm = op->comm;
    return bytes <= comm->oneshot_most && op->collective == CINCH_ALLREDUCE && !op->premul &&
           !op->stream &&
           atomic_load_explicit(&comm->turn, memory_order_acquire) ==
               atomic_load_explicit(&comm->issued, memory_order_relaxed) &&
           atomic_load_explicit(&comm->failed, memory_order_relaxed) == cinchSuccess &&
           cinch_group_depth() == 0;
}

static cinchResult_t run_fused(const cinch_called *op, size_t bytes) {
    struct cinchComm *comm = op->comm;
    uint64_t number = cinch_comm_issue(comm), began = cinch_ticks();
    cinchResult_t result = cinch_fused_oneshot(op);
    cinch_record_leave(&comm->record, result != cinchSuccess);
    if (result != cinchSuccess) result = cinch_comm_fail(comm, result);
    comm->calls++;
    comm->bytes += bytes;
    comm->ticks += cinch_ticks() - began;
    atomic_store_explicit(&comm->turn, number + 1, memory_order_release);
    return result;
}

static inline cinchResult_t run(cinch_called *called) {
    CINCH_TRY(check(called));
    CINCH_TRY(resolve_redop(called));
    if (!called->count) return cinch_comm_state(called->comm);
    if (cinch_device_may_hold(called->send, called->recv)) CINCH_TRY(cinch_gpu_find(called));
    size_t bytes = called->count * cinch_dtype_size(called->dtype);
    if (fused_serves(called, bytes)) return run_fused(called, bytes);
    return cinch_group_submit(called);
}

/* A wrong argument in a group is told at once, and spoils the group. */
static inline cinchResult_t submit(cinch_called *called) {
    cinchResult_t result = cinch_comm_check(called->comm);
    if (result == cinchSuccess) result = run(called);
    if (__builtin_expect(result != cinchSuccess && cinch_group_depth() != 0, 0))
        cinch_group_spoil(result);
    return result;
}

static inline cinchResult_t call(cinch_collective collective, const void *send, void *recv,
                                 size_t count, cinchDataType_t dtype, cinchRedOp_t op, int root,
                                 cinchComm_t comm, cinchStream_t stream) {
    cinch_called called = {.comm = comm,
                           .collective = collective,
                           .root = root,
                           .send = send,
                           .recv = recv,
                           .count = count,
                           .dtype = dtype,
                           .redop = op,
                           .stream = stream};
    return submit(&called);
}

/* The operator of collectives that move data and leave it as it is, and the root of those that have
 * none. */
static const cinchRedOp_t NO_OP = cinchSum;
enum { NO_ROOT = 0 };

cinchResult_t cinchAllReduce(const void *sendbuff, void *recvbuff, size_t count,
                             cinchDataType_t datatype, cinchRedOp_t op, cinchComm_t comm,
                             cinchStream_t stream) {
    return call(CINCH_ALLREDUCE, sendbuff, recvbuff, count, datatype, op, NO_ROOT, comm, stream);
}

cinchResult_t cinchReduceScatter(const void *sendbuff, void *recvbuff, size_t recvcount,
                                 cinchDataType_t datatype, cinchRedOp_t op, cinchComm_t comm,
                                 cinchStream_t stream) {
    return call(CINCH_REDUCESCATTER, sendbuff, recvbuff, recvcount, datatype, op, NO_ROOT, comm,
                stream);
}

cinchResult_t cinchReduce(const void *sendbuff, void *recvbuff, size_t count,
                          cinchDataType_t datatype, cinchRedOp_t op, int root, cinchComm_t comm,
                          cinchStream_t stream) {
    return call(CINCH_REDUCE, sendbuff, recvbuff, count, datatype, op, root, comm, stream);
}

cinchResult_t cinchAllGather(const void *sendbuff, void *recvbuff, size_t sendcount,
                             cinchDataType_t datatype, cinchComm_t comm, cinchStream_t stream) {
    return call(CINCH_ALLGATHER, sendbuff, recvbuff, sendcount, datatype, NO_OP, NO_ROOT, comm,
                stream);
}

cinchResult_t cinchAlltoAll(const void *sendbuff, void *recvbuff, size_t count,
                            cinchDataType_t datatype, cinchComm_t comm, cinchStream_t stream) {
    return call(CINCH_ALLTOALL, sendbuff, recvbuff, count, datatype, NO_OP, NO_ROOT, comm, stream);
}

cinchResult_t cinchBroadcast(const void *sendbuff, void *recvbuff, size_t count,
                             cinchDataType_t datatype, int root, cinchComm_t comm,
                             cinchStream_t stream) {
    return call(CINCH_BROADCAST, sendbuff, recvbuff, count, datatype, NO_OP, root, comm, stream);
}

cinchResult_t cinchBcast(void *buff, size_t count, cinchDataType_t datatype, int root,
                         cinchComm_t comm, cinchStream_t stream) {
    return cinchBroadcast(buff, buff, count, datatype, root, comm, stream);
}

cinchResult_t cinchGather(const void *sendbuff, void *recvbuff, size_t count,
                          cinchDataType_t datatype, int root, cinchComm_t comm,
                          cinchStream_t stream) {
    return call(CINCH_GATHER, sendbuff, recvbuff, count, datatype, NO_OP, root, comm, stream);
}

cinchResult_t cinchScatter(const void *sendbuff, void *recvbuff, size_t count,
                           cinchDataType_t datatype, int root, cinchComm_t comm,
                           cinchStream_t stream) {
    return call(CINCH_SCATTER, sendbuff, recvbuff, count, datatype, NO_OP, root, comm, stream);
}

cinchResult_t cinchSend(const void *sendbuff, size_t count, cinchDataType_t datatype, int peer,
                        cinchComm_t comm, cinchStream_t stream) {
    return call(CINCH_SENDRECV, sendbuff, NULL, count, datatype, NO_OP, peer, comm, stream);
}

cinchResult_t cinchRecv(void *recvbuff, size_t count, cinchDataType_t datatype, int peer,
                        cinchComm_t comm, cinchStream_t stream) {
    cinch_called called = {.comm = comm,
                           .collective = CINCH_SENDRECV,
                           .root = peer,
                           .receives = true,
                           .recv = recvbuff,
                           .count = count,
                           .dtype = datatype,
                           .stream = stream};
    return submit(&called);
}

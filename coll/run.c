/* SPDX-License-Identifier: Apache-2.0 */
/* Running operations to their end: whose turn it is, what failure means, what is counted. */
#include <math.h>
#include <string.h>

#include "base/fpu.h"
#include "base/log.h"
#include "coll/gpu.h"
#include "coll/report.h"
#include "compress/dtype.h"

/* CINCH_NONFINITE=error: every rank decodes the same bytes, so every rank finds the same. */
static bool all_finite(const unsigned char *data, cinchDataType_t dtype, size_t count) {
    float tile[256];
    for (size_t i = 0; i < count; i += 256) {
        size_t length = count - i < 256 ? count - i : 256;
        cinch_widen(tile, data + i * cinch_dtype_size(dtype), dtype, length);
        for (size_t j = 0; j < length; j++)
            if (!isfinite(tile[j])) return false;
    }
    return true;
}

static cinchResult_t refuse_nonfinite(const cinch_op *op) {
    const cinch_shape *shape = cinch_shape_of(op->call.collective);
    size_t all = op->call.count * (size_t)cinch_shape_out_blocks(shape, op->call.comm->nranks);
    size_t most = op->gpu ? CINCH_GPU_PIECE / sizeof(double) : all;
    for (size_t i = 0; i < all; i += most) {
        size_t length = all - i < most ? all - i : most;
        const unsigned char *data = (const unsigned char *)op->call.recv + i * op->esize;
        if (op->gpu) CINCH_TRY(cinch_gpu_view(op->gpu, data, length * op->esize, &data));
        if (all_finite(data, op->call.dtype, length)) continue;
        return cinch_fail(cinchInvalidUsage,
                          "the compressed %s number %llu met NaN or Inf, and "
                          "CINCH_NONFINITE=error",
                          shape->name, (unsigned long long)op->number);
    }
    return cinchSuccess;
}

static void count(cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    for (const cinch_p2p *p = op->p2p; p; p = p->next) comm->calls++, comm->bytes += p->bytes;
    if (op->call.collective != CINCH_SENDRECV) {
        const cinch_shape *shape = cinch_shape_of(op->call.collective);
        comm->calls++;
        comm->bytes += op->call.count * cinch_dtype_size(op->call.dtype) *
                       (size_t)cinch_shape_blocks(shape, comm->nranks);
    }
    comm->ticks += cinch_ticks() - op->began;
    comm->codec_ticks += op->codec_ticks;
    comm->compressed_calls += op->encoded;
    comm->nonfinite += op->nonfinite;
}

static void forget_residuals(cinch_op *op) {
    if (!op->ef) return;
    cinch_ef_reset(op->ef);
    cinch_warn("the error feedback of the failed %s number %llu was reset",
               cinch_shape_of(op->call.collective)->name, (unsigned long long)op->number);
}

/* Memory of the failed call is its caller's again. */
static void stop_links(const struct cinchComm *comm) {
    for (int q = 0; comm->net && q < comm->nranks; q++) {
        cinch_link *link = comm->net->link[q];
        if (link && link->pending > 0 && link->ops->stop) link->ops->stop(link);
    }
}

/* The operation is over: the next one's turn. */
static void end(cinch_op *op, cinchResult_t result) {
    struct cinchComm *comm = op->call.comm;
    bool ours = op->state == CINCH_OP_NEW; /* failed before it touched anything */
    if (result == cinchSuccess) {
        if (op->schedule && op->schedule->windowed)
            comm->rounds += op->cut.rounds;
        else if (op->schedule)
            comm->sequence++;
        if (op->encoded && comm->settings.nonfinite) result = refuse_nonfinite(op);
        if (result != cinchSuccess) forget_residuals(op);
        count(op);
    } else {
        cinch_gpu_stop(op);
        forget_residuals(op);
        bool argument = result == cinchInvalidUsage || result == cinchInvalidArgument;
        if (!ours) cinch_report_describe(op, 0, true);
        if (!(ours && argument)) result = cinch_comm_fail(comm, result);
        if (!ours) stop_links(comm);
    }
    if (op->recorded) cinch_record_leave(&comm->record, result != cinchSuccess);
    op->result = result;
    op->state = CINCH_OP_DONE;
    atomic_store_explicit(&comm->turn, op->number + 1, memory_order_release);
}

/* One rank has nobody to talk to: every buffer is one block. */
static cinchResult_t alone(cinch_op *op) {
    size_t bytes = op->call.count * cinch_dtype_size(op->call.dtype);
    if (op->gpu) return cinch_gpu_alone(op);
    if (op->call.premul)
        cinch_premul(op->call.recv, op->call.send, op->call.dtype, op->call.count,
                     op->call.device_scalar ? op->call.device_scalar : op->call.scalar);
    else if (op->call.recv != op->call.send)
        memcpy(op->call.recv, op->call.send, bytes);
    return cinchSuccess;
}

/* The join's own operations are none of the caller's. */
static void note(cinch_op *op) {
    const cinch_called *call = &op->call;
    int pairs = 0;
    if (op->number == CINCH_TURN_INSIDE || (call->collective == CINCH_SENDRECV && !op->p2p)) return;
    for (const cinch_p2p *p = op->p2p; p && pairs < 255; p = p->next) pairs++;
    op->recorded = true;
    cinch_record_enter(&call->comm->record, (int)call->collective, call->count, call->dtype,
                       op->p2p ? pairs : (int)call->redop, call->premul, call->receives,
                       call->root);
}

static void begin(cinch_op *op) {
    op->began = cinch_ticks();
    note(op);
    cinchResult_t result = cinch_comm_state(op->call.comm);
    if (result == cinchSuccess && op->call.on) cinch_gpu_open(op);
    if (result == cinchSuccess && op->call.collective == CINCH_SENDRECV) {
        result = cinch_p2p_begin(op);
    } else if (result == cinchSuccess && op->call.comm->nranks == 1) {
        end(op, alone(op));
        return;
    } else if (result == cinchSuccess) {
        result = cinch_op_plan(op);
    }
    if (result != cinchSuccess) end(op, result);
}

/* Moves the operation as far as it goes. */
static void drive(cinch_op *op, bool *moved) {
    cinchResult_t result = op->result; /* set by the waiting where something failed meanwhile */
    if (op->state == CINCH_OP_NEW) {
        *moved = true;
        if (result == cinchSuccess)
            begin(op);
        else
            end(op, result); /* refused before it came here */
        if (op->state == CINCH_OP_DONE) return;
    }
    if (result == cinchSuccess && op->state == CINCH_OP_ENTERING)
        result = cinch_op_enter(op, moved);
    if (result == cinchSuccess && op->state == CINCH_OP_RUNNING) {
        bool pairs = op->call.collective == CINCH_SENDRECV;
        if (op->gpu)
            result = cinch_gpu_progress(op, pairs, moved);
        else
            result = pairs ? cinch_p2p_progress(op, moved) : cinch_op_progress(op, moved);
        if (result != cinchSuccess) result = cinch_comm_first_cause(op->call.comm, result);
    }
    if (result != cinchSuccess || op->state == CINCH_OP_DONE) {
        *moved = true;
        end(op, result);
    }
}

cinchResult_t cinch_engine_run(cinch_op *list) {
    unsigned saved = cinch_fpu_enter();
    cinch_idle idle = {0};
    for (bool left = true; left;) {
        bool moved = false;
        left = false;
        for (cinch_op *op = list; op; op = op->next) {
            if (op->state == CINCH_OP_DONE) continue;
            left = true;
            if (atomic_load_explicit(&op->call.comm->turn, memory_order_acquire) == op->number)
                drive(op, &moved);
        }
        if (moved)
            idle = (cinch_idle){0};
        else if (left)
            cinch_idle_step(&idle, list);
    }
    cinch_fpu_leave(saved);
    for (cinch_op *op = list; op; op = op->next)
        if (op->result != cinchSuccess) return op->result;
    return cinchSuccess;
}

cinchResult_t cinch_engine_run_inside(const cinch_called *call) {
    cinch_op op = {.call = *call, .number = CINCH_TURN_INSIDE};
    atomic_store(&call->comm->turn, CINCH_TURN_INSIDE); /* its end makes that none again */
    return cinch_engine_run(&op);
}

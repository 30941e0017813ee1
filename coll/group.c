/* SPDX-License-Identifier: Apache-2.0 */
/* Groups: operations queued per thread, launched together. */
#include "coll/group.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/device.h"
#include "coll/graph.h"
#include "coll/making.h"
#include "coll/nccl/inner.h"
#include "compress/dtype.h"

/* Operations in the order of their calls. */
typedef struct queue {
    cinch_op *first, **end; /* end is valid where there is a first */
} queue;

static _Thread_local struct {
    int depth;
    queue ops;   /* collectives */
    queue pairs; /* messages between pairs, an operation for each communicator; they run last */
    bool waits;  /* the communicators are blocking ones */
    cinchResult_t spoilt;
    char why[CINCH_ERROR_TEXT];
} group;

int cinch_group_depth(void) {
    return group.depth;
}

bool cinch_group_has_operations(void) {
    return group.ops.first || group.pairs.first;
}

static void append(queue *q, cinch_op *op) {
    if (!q->first) q->end = &q->first;
    *q->end = op;
    q->end = &op->next;
}

static bool holds(const queue *q, const struct cinchComm *comm) {
    for (const cinch_op *op = q->first; op; op = op->next)
        if (op->call.comm == comm) return true;
    return false;
}

bool cinch_group_holds(const struct cinchComm *comm) {
    return holds(&group.ops, comm) || holds(&group.pairs, comm) || cinch_making_holds(comm);
}

static void free_op(cinch_op *op) {
    while (op->p2p) {
        cinch_p2p *next = op->p2p->next;
        free(op->p2p);
        op->p2p = next;
    }
    free(op);
}

void cinch_group_free(cinch_op *ops) {
    while (ops) {
        cinch_op *next = ops->next;
        free_op(ops);
        ops = next;
    }
}

static void forget(queue *q, const struct cinchComm *comm) {
    cinch_op **at = &q->first;
    while (*at) {
        cinch_op *op = *at;
        if (op->call.comm != comm) {
            at = &op->next;
            continue;
        }
        *at = op->next;
        free_op(op);
    }
    q->end = at;
}

void cinch_group_forget(struct cinchComm *comm) {
    forget(&group.ops, comm);
    forget(&group.pairs, comm);
    cinch_making_forget(comm);
}

void cinch_group_spoil(cinchResult_t code) {
    if (group.spoilt != cinchSuccess) return;
    group.spoilt = code;
    snprintf(group.why, sizeof group.why, "%s", cinch_last_error());
}

/* ---- launching ---- */

/* Operations on several streams begin together when the last of the streams has come to them. */
typedef struct joint {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int expected, arrived, users;
    bool done;
    cinch_op *ops;
    cinchResult_t refused; /* a stream did not take its part */
    cinchResult_t result;
    char why[CINCH_ERROR_TEXT]; /* the sentence, for the threads that only waited */
} joint;

typedef struct member {
    cinch_job job;
    joint *joint;
    cinchStream_t stream;
} member;

/* Called with the lock held; gives it back. */
static cinchResult_t leave(joint *j) {
    cinchResult_t result = j->result;
    if (result != cinchSuccess) cinch_fail_quiet(result, "%s", j->why);
    bool last = --j->users == 0;
    pthread_mutex_unlock(&j->lock);
    if (last) {
        cinch_group_free(j->ops);
        pthread_cond_destroy(&j->changed);
        pthread_mutex_destroy(&j->lock);
        free(j);
    }
    return result;
}

static cinchResult_t wait_done(joint *j) {
    while (!j->done) pthread_cond_wait(&j->changed, &j->lock);
    return leave(j);
}

/* Called with the lock held, when all are here; gives it back. */
static cinchResult_t run_joint(joint *j) {
    if (j->refused != cinchSuccess) {
        for (cinch_op *op = j->ops; op; op = op->next) op->result = j->refused;
        cinch_fail_quiet(j->refused, "%s", j->why);
    }
    pthread_mutex_unlock(&j->lock);
    cinch_graph_number(j->ops);
    cinchResult_t result = cinch_engine_run(j->ops);
    pthread_mutex_lock(&j->lock);
    j->result = result;
    if (result != cinchSuccess) memcpy(j->why, cinch_last_error(), sizeof j->why);
    j->done = true;
    pthread_cond_broadcast(&j->changed);
    return leave(j);
}

static cinchResult_t run_member(cinch_job *job) {
    joint *j = ((member *)(void *)job)->joint;
    free(job);
    pthread_mutex_lock(&j->lock);
    return ++j->arrived < j->expected ? wait_done(j) : run_joint(j);
}

/* A stream did not take its part: the operations end with this thread's last sentence, when all the
 * other streams have come to them. */
static void refuse_member(member *m, cinchResult_t code) {
    joint *j = m->joint;
    free(m);
    pthread_mutex_lock(&j->lock);
    j->refused = code;
    snprintf(j->why, sizeof j->why, "%s", cinch_last_error());
    if (++j->arrived == j->expected) {
        run_joint(j);
        return;
    }
    j->users--;
    pthread_mutex_unlock(&j->lock);
}

/* Whether an operation before `op` has the same stream. */
static bool seen_stream(const cinch_op *list, const cinch_op *op) {
    for (; list != op; list = list->next)
        if (list->call.stream == op->call.stream) return true;
    return false;
}

/* A member for each stream of the operations, linked by job.next; NULL: out of memory. */
static member *make_members(joint *j, const cinch_op *ops) {
    member *list = NULL;
    for (const cinch_op *op = ops; op; op = op->next) {
        if (!op->call.stream || seen_stream(ops, op)) continue;
        member *m = malloc(sizeof *m);
        if (!m) {
            while (list) {
                member *next = (member *)(void *)list->job.next;
                free(list);
                list = next;
            }
            return NULL;
        }
        *m = (member){{list ? &list->job : NULL, run_member}, j, op->call.stream};
        list = m;
        j->expected++;
    }
    return list;
}

/* Every operation ends with this code when its turn comes: its number is taken. */
static cinchResult_t refuse(cinch_op *ops, cinchResult_t code) {
    for (cinch_op *op = ops; op; op = op->next) op->result = code;
    cinch_graph_number(ops);
    cinch_engine_run(ops);
    cinch_group_free(ops);
    return code;
}

static cinchResult_t launch_on_streams(cinch_op *ops, bool wait) {
    /* Groups that share streams take their places in the same order on all of them. */
    static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
    for (const cinch_op *op = ops; op; op = op->next) /* one may have been destroyed meanwhile */
        if (op->call.stream && !cinch_device_of_stream(op->call.stream))
            return refuse(ops, cinchInvalidArgument);
    joint *j = calloc(1, sizeof *j);
    member *list = j ? make_members(j, ops) : NULL;
    if (!list) {
        free(j);
        return refuse(ops, cinch_fail(cinchSystemError, "out of memory for a group"));
    }
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->changed, NULL);
    j->users = j->expected + 1; /* and the caller */
    j->ops = ops;
    member *refused = NULL;
    pthread_mutex_lock(&order);
    cinchResult_t ordered = cinch_graph_before(ops), queued = ordered;
    while (list) { /* the last one queued may free everything */
        member *next = (member *)(void *)list->job.next;
        cinchResult_t result =
            ordered != cinchSuccess
                ? ordered
                : cinch_device_of_stream(list->stream)->enqueue(list->stream, &list->job);
        if (result != cinchSuccess) {
            list->job.next = refused ? &refused->job : NULL;
            refused = list;
            queued = result;
        }
        list = next;
    }
    if (queued == cinchSuccess) queued = cinch_graph_after(ops);
    pthread_mutex_unlock(&order);
    while (refused) {
        member *next = (member *)(void *)refused->job.next;
        refuse_member(refused, queued);
        refused = next;
    }
    pthread_mutex_lock(&j->lock);
    if (wait) return wait_done(j);
    leave(j);
    return queued;
}

/* What would wait runs on the worker of a non-blocking communicator. */
static bool is_patient(const cinch_called *call) {
    return call->stream || !call->comm->worker;
}

/* What goes through the engine. */
static cinchResult_t launch_own(cinch_op *ops) {
    bool streams = false, inline_too = false, patient = true;
    uint64_t capture = 0;
    for (cinch_op *op = ops; op; op = op->next) {
        patient &= is_patient(&op->call);
        if (!op->call.stream) op->call.stream = op->call.comm->worker;
    }
    cinchResult_t refused = cinch_graph_of(ops, &capture);
    if (refused != cinchSuccess) {
        cinch_group_free(ops);
        return refused;
    }
    if (capture) return cinch_graph_record(ops, capture);
    for (cinch_op *op = ops; op; op = op->next) {
        cinch_graph_place(ops, op);
        streams |= op->call.stream != NULL;
        inline_too |= op->call.stream == NULL;
    }
    if (streams) {
        CINCH_TRY(launch_on_streams(ops, inline_too));
        return patient ? cinchSuccess : cinchInProgress;
    }
    cinchResult_t result = cinch_engine_run(ops);
    cinch_group_free(ops);
    return result;
}

/* Frees the operations, at the latest when they are complete. */
static cinchResult_t launch(cinch_op *ops) {
    cinchResult_t taken = cinch_inner_launch(&ops), own = ops ? launch_own(ops) : cinchSuccess;
    return taken == cinchSuccess ? own : taken;
}

/* ---- queueing ---- */

static cinch_p2p pair_of(const cinch_called *call) {
    return (cinch_p2p){
        .data = call->receives ? call->recv : (void *)(uintptr_t)call->send,
        .bytes = call->count * cinch_dtype_size(call->dtype),
        .dtype = call->dtype,
        .peer = call->root,
        .receives = call->receives,
        .on_device = call->on != NULL,
        .stream = call->stream,
    };
}

static cinchResult_t run_now(const cinch_called *call) {
    cinch_graph_settle(call->comm);
    cinch_op op = {.call = *call, .number = cinch_comm_issue(call->comm)};
    cinch_p2p pair;
    if (call->collective == CINCH_SENDRECV) {
        pair = pair_of(call);
        op.p2p = &pair;
    }
    return cinch_engine_run(&op);
}

/* The communicator's messages of the group so far, on that stream or any; or NULL. */
static cinch_op *pairs_of(const cinch_called *call, bool any_stream) {
    cinch_op *op = group.pairs.first;
    while (op && (op->call.comm != call->comm || (!any_stream && op->call.stream != call->stream)))
        op = op->next;
    return op;
}

/* The messages of a communicator are one operation, on the stream of the first; where there are
 * more streams, an operation without messages makes each of them wait for the group. */
static cinchResult_t queue_pair(const cinch_called *call) {
    cinch_op *all = pairs_of(call, true);
    bool known = all && pairs_of(call, false);
    cinch_p2p *pair = malloc(sizeof *pair);
    cinch_op *op = known ? NULL : calloc(1, sizeof *op);
    if (!pair || (!known && !op)) {
        free(pair);
        free(op);
        return cinch_fail(cinchSystemError, "out of memory for an operation");
    }
    *pair = pair_of(call);
    if (op) {
        op->call = *call;
        append(&group.pairs, op);
    }
    if (all && call->on) {
        all->call.on = call->on;
        all->call.device = call->device;
    }
    cinch_p2p **end = &(all ? all : op)->p2p;
    while (*end) end = &(*end)->next;
    *end = pair;
    return cinchSuccess;
}

static cinchResult_t queue_call(const cinch_called *call) {
    bool waits = !call->comm->worker;
    if ((group.ops.first || group.pairs.first) && group.waits != waits)
        return cinch_fail(cinchInvalidArgument,
                          "a group holds calls on blocking or on non-blocking communicators, not "
                          "both");
    group.waits = waits;
    if (call->collective == CINCH_SENDRECV) return queue_pair(call);
    cinch_op *op = calloc(1, sizeof *op);
    if (!op) return cinch_fail(cinchSystemError, "out of memory for an operation");
    op->call = *call;
    append(&group.ops, op);
    return cinchSuccess;
}

cinchResult_t cinch_group_submit(const cinch_called *call) {
    if (cinch_making_queued())
        return cinch_fail(cinchInvalidUsage, "a group holds collectives, or inits, splits and "
                                             "shrinks, not both");
    if (call->comm->finalized)
        return cinch_fail(cinchInvalidUsage, "the communicator was finalized by "
                                             "cinchCommFinalize: it can only be destroyed");
    if (group.depth) return queue_call(call);
    if (!call->stream && !call->comm->worker) return run_now(call);
    CINCH_TRY(queue_call(call));
    cinch_op *op = group.ops.first ? group.ops.first : group.pairs.first;
    group.ops.first = group.pairs.first = NULL;
    return launch(op);
}

cinchResult_t cinchGroupStart(void) {
    group.depth++;
    return cinchSuccess;
}

/* What the group holds is the caller's now. */
static cinch_op *take_group(void) {
    if (group.ops.first)
        *group.ops.end = group.pairs.first;
    else
        group.ops.first = group.pairs.first;
    cinch_op *ops = group.ops.first;
    group.ops.first = group.pairs.first = NULL;
    return ops;
}

static cinchResult_t leave_group(const char *name, bool *outermost) {
    if (!group.depth)
        return cinch_fail(cinchInvalidUsage, "%s without a cinchGroupStart before it", name);
    *outermost = --group.depth == 0;
    return cinchSuccess;
}

cinchResult_t cinchGroupEnd(void) {
    bool outermost = false;
    CINCH_TRY(leave_group("cinchGroupEnd", &outermost));
    if (!outermost) return cinchSuccess;
    cinchResult_t result = group.spoilt;
    cinch_op *ops = take_group();
    group.spoilt = cinchSuccess;
    if (result == cinchSuccess) return ops ? launch(ops) : cinch_making_end(true);
    cinch_group_free(ops);
    cinch_making_end(false);
    return cinch_fail_quiet(result, "the group was not run: %s", group.why);
}

/* Microseconds by the cost model. */
static double cost_of(const cinch_op *op) {
    const struct cinchComm *comm = op->call.comm;
    size_t size = cinch_dtype_size(op->call.dtype);
    cinch_call call =
        cinch_op_call(comm, op->call.collective, op->call.root, op->call.count * size);
    const cinch_algo *algo;
    cinch_cut cut;
    double us = 0;
    if (comm->nranks == 1) return 0;
    for (const cinch_p2p *p = op->p2p; p; p = p->next)
        us += cinch_cost_step(&call) + (double)p->bytes * cinch_cost_byte(&call);
    if (op->call.collective == CINCH_SENDRECV) return us;
    if (cinch_op_choose(comm, &call, op->call.dtype, &algo, &cut) != cinchSuccess) return 0;
    return algo->cost(&call);
}

#define SIM_INFO_MAGIC 0x74685283u /* of CINCH_SIM_INFO_INITIALIZER */

cinchResult_t cinchGroupSimulateEnd(cinchSimInfo_t *simInfo) {
    bool outermost = false;
    size_t room = offsetof(cinchSimInfo_t, estimatedTime) + sizeof simInfo->estimatedTime;
    CINCH_TRY(leave_group("cinchGroupSimulateEnd", &outermost));
    if (!outermost) return cinchSuccess;
    cinchResult_t result = group.spoilt;
    cinch_op *ops = take_group();
    group.spoilt = cinchSuccess;
    double us = 0;
    for (const cinch_op *op = ops; op; op = op->next) us += cost_of(op);
    cinch_group_free(ops);
    cinch_making_end(false);
    if (result != cinchSuccess) return cinch_fail_quiet(result, "%s", group.why);
    if (!simInfo) return cinchSuccess;
    if (simInfo->magic != SIM_INFO_MAGIC || simInfo->size < room)
        return cinch_fail(cinchInvalidArgument,
                          "simInfo was not begun with CINCH_SIM_INFO_INITIALIZER");
    simInfo->estimatedTime = (float)(us / 1e6);
    return cinchSuccess;
}

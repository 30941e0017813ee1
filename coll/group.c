/* SPDX-License-Identifier: Apache-2.0 */
/* Groups: operations queued per thread, launched together. */
#include "coll/group.h"

#include <stdlib.h>
#include <string.h>

#include "base/device.h"

static _Thread_local struct {
    int depth;
    cinch_op *ops, **ops_end;
    cinch_init *inits, **inits_end;
} group;

int cinch_group_depth(void) {
    return group.depth;
}

bool cinch_group_holds(const struct cinchComm *comm) {
    for (const cinch_op *op = group.ops; op; op = op->next)
        if (op->call.comm == comm) return true;
    return false;
}

void cinch_group_forget(struct cinchComm *comm) {
    cinch_op **at = &group.ops;
    while (*at) {
        cinch_op *op = *at;
        if (op->call.comm != comm) {
            at = &op->next;
            continue;
        }
        *at = op->next;
        free(op);
        atomic_fetch_sub(&comm->issued, 1); /* its numbers are the last ones given */
    }
    group.ops_end = at;
}

/* ---- launching ---- */

/* Operations on several streams begin together when the last of the streams has come to them. */
typedef struct joint {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int expected, arrived, users;
    bool done;
    cinch_op *ops;
    cinchResult_t result;
    char why[CINCH_ERROR_TEXT]; /* the sentence, for the threads that only waited */
} joint;

typedef struct member {
    cinch_job job;
    joint *joint;
    cinchStream_t stream;
} member;

static void free_ops(cinch_op *ops) {
    while (ops) {
        cinch_op *next = ops->next;
        free(ops);
        ops = next;
    }
}

/* Called with the lock held; gives it back. */
static cinchResult_t leave(joint *j) {
    cinchResult_t result = j->result;
    if (result != cinchSuccess) cinch_fail_quiet(result, "%s", j->why);
    bool last = --j->users == 0;
    pthread_mutex_unlock(&j->lock);
    if (last) {
        free_ops(j->ops);
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

static cinchResult_t run_member(cinch_job *job) {
    joint *j = ((member *)(void *)job)->joint;
    free(job);
    pthread_mutex_lock(&j->lock);
    if (++j->arrived < j->expected) return wait_done(j);
    pthread_mutex_unlock(&j->lock);
    cinchResult_t result = cinch_engine_run(j->ops);
    pthread_mutex_lock(&j->lock);
    j->result = result;
    if (result != cinchSuccess) memcpy(j->why, cinch_last_error(), sizeof j->why);
    j->done = true;
    pthread_cond_broadcast(&j->changed);
    return leave(j);
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
    cinch_engine_run(ops);
    free_ops(ops);
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
    j->users = j->expected + wait;
    j->ops = ops;
    pthread_mutex_lock(&order);
    while (list) { /* the last one queued may free everything */
        member *next = (member *)(void *)list->job.next;
        cinch_device_of_stream(list->stream)->enqueue(list->stream, &list->job);
        list = next;
    }
    pthread_mutex_unlock(&order);
    if (!wait) return cinchSuccess;
    pthread_mutex_lock(&j->lock);
    return wait_done(j);
}

static cinchResult_t launch(cinch_op *ops) {
    bool streams = false, inline_too = false;
    for (const cinch_op *op = ops; op; op = op->next) {
        streams |= op->call.stream != NULL;
        inline_too |= op->call.stream == NULL;
    }
    if (streams) return launch_on_streams(ops, inline_too);
    cinchResult_t result = cinch_engine_run(ops);
    free_ops(ops);
    return result;
}

/* ---- queueing ---- */

cinchResult_t cinch_group_submit(const cinch_called *call) {
    if (group.inits)
        return cinch_fail(cinchInvalidUsage, "a group holds inits or collectives, not both");
    if (call->comm->finalized)
        return cinch_fail(cinchInvalidUsage, "the communicator was finalized by "
                                             "cinchCommFinalize: it can only be destroyed");
    if (!group.depth && !call->stream) {
        cinch_op op = {.call = *call, .number = cinch_comm_issue(call->comm)};
        return cinch_engine_run(&op);
    }
    cinch_op *op = calloc(1, sizeof *op);
    if (!op) return cinch_fail(cinchSystemError, "out of memory for an operation");
    op->call = *call;
    op->number = cinch_comm_issue(call->comm);
    if (!group.depth) return launch(op);
    if (!group.ops) group.ops_end = &group.ops;
    *group.ops_end = op;
    group.ops_end = &op->next;
    return cinchSuccess;
}

/* Copies as much as the caller's structure has; one that was never begun is refused later. */
static void keep_config(cinch_init *init, const cinchConfig_t *config) {
    size_t head = offsetof(cinchConfig_t, blocking), size = sizeof *config;
    if (config->magic != CINCH_CONFIG_MAGIC || config->size < head)
        size = head;
    else if (config->size < size)
        size = config->size;
    memcpy(&init->config, config, size);
    if (!init->config.commName) return;
    strncpy(init->name, init->config.commName, sizeof init->name - 1);
    init->config.commName = init->name;
}

cinchResult_t cinch_group_submit_init(cinchComm_t *comm, int nranks, const cinchUniqueId *id,
                                      int rank, const cinchConfig_t *config) {
    if (group.ops)
        return cinch_fail(cinchInvalidUsage, "a group holds inits or collectives, not both");
    cinch_init *init = calloc(1, sizeof *init);
    if (!init) return cinch_fail(cinchSystemError, "out of memory for an init");
    init->comm = comm;
    init->nranks = nranks;
    init->rank = rank;
    init->id = *id;
    if (config) {
        init->configured = true;
        keep_config(init, config);
    }
    if (!group.inits) group.inits_end = &group.inits;
    *group.inits_end = init;
    group.inits_end = &init->next;
    return cinchSuccess;
}

cinchResult_t cinchGroupStart(void) {
    group.depth++;
    return cinchSuccess;
}

cinchResult_t cinchGroupEnd(void) {
    if (!group.depth)
        return cinch_fail(cinchInvalidUsage, "cinchGroupEnd without a cinchGroupStart before it");
    if (--group.depth) return cinchSuccess;
    cinch_op *ops = group.ops;
    cinch_init *inits = group.inits;
    group.ops = NULL;
    group.inits = NULL;
    if (inits) {
        cinchResult_t result = cinch_init_run(inits);
        while (inits) {
            cinch_init *next = inits->next;
            free(inits);
            inits = next;
        }
        return result;
    }
    return ops ? launch(ops) : cinchSuccess;
}

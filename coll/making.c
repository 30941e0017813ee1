/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that make communicators: in groups, in threads, on streams. */
#include "coll/making.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coll/graph.h"
#include "coll/group.h"

static _Thread_local struct {
    cinch_making *list, **end;
    bool started; /* some run on streams already */
} group;

/* ---- one call ---- */

static cinchStream_t worker_of(const cinch_making *m) {
    if (m->comm) return m->comm->worker;
    return m->parent ? m->parent->worker : NULL;
}

/* The call's place among the parent's operations. The parent's ranks all take part in a split, but
 * not in a shrink, so that this must not use up a number. */
static void take_place(cinch_making *m) {
    if (!m->parent) return;
    atomic_fetch_add(&m->parent->pending, 1);
    if (m->kind == CINCH_MAKE_SPLIT) cinch_graph_settle(m->parent);
    if (m->kind == CINCH_MAKE_SPLIT)
        m->number = cinch_comm_issue(m->parent);
    else
        m->number = atomic_load(&m->parent->issued);
}

static cinchResult_t run(cinch_making *m) {
    if (m->kind == CINCH_MAKE_SPLIT) return cinch_split_run(m);
    if (m->kind == CINCH_MAKE_SHRINK) return cinch_shrink_run(m);
    return cinch_comm_join(m->comm, &m->id, NULL, NULL, &m->refusal);
}

/* The caller gets what came about, or nothing. */
static cinchResult_t hand_out(cinch_making *m, cinchResult_t result) {
    if (result == cinchSuccess)
        *m->out = m->comm;
    else if (m->comm)
        cinch_comm_release(m->comm);
    return result;
}

static cinchResult_t run_job(cinch_job *job) {
    cinch_making *m = (cinch_making *)(void *)job;
    if (m->comm && !atomic_load(&m->comm->unsized)) cinch_log_rank(m->comm->rank);
    cinchResult_t result = run(m);
    free(m->left_out);
    free(m);
    return result;
}

static cinchResult_t queue(cinch_making *m) {
    if (!group.list) group.end = &group.list;
    *group.end = m;
    group.end = &m->next;
    return cinchSuccess;
}

static cinchResult_t drop(const cinch_making *call, cinchResult_t result) {
    if (call->comm) cinch_comm_release(call->comm);
    free(call->left_out);
    return cinch_making_refuse(result);
}

/* The other ranks wait for nobody whom the machine has failed; wrong arguments can be put right. */
void cinch_making_excuse(const cinch_making *call, cinchResult_t result) {
    if (call->kind == CINCH_MAKE_INIT && result == cinchSystemError)
        cinch_rendezvous_excuse(&call->id, call->rank, call->nranks);
}

cinchResult_t cinch_making_refuse(cinchResult_t result) {
    if (result != cinchSuccess && cinch_group_depth()) cinch_group_spoil(result);
    return result;
}

cinchResult_t cinch_make(const cinch_making *call) {
    if (cinch_group_has_operations())
        return drop(call, cinch_fail(cinchInvalidUsage,
                                     "a group holds collectives, or inits, splits and shrinks, "
                                     "not both"));
    cinch_making *m = malloc(sizeof *m);
    if (!m) {
        cinchResult_t result = cinch_fail(cinchSystemError, "out of memory for a communicator");
        cinch_making_excuse(call, result);
        return drop(call, result);
    }
    *m = *call;
    m->next = NULL;
    m->job.run = run_job;
    cinchStream_t worker = worker_of(m);
    if (worker) {
        take_place(m);
        *m->out = m->comm;
        group.started |= cinch_group_depth() > 0;
        cinchResult_t queued = cinch_device_host.enqueue(worker, &m->job);
        return queued == cinchSuccess ? cinchInProgress : queued;
    }
    if (cinch_group_depth()) return queue(m);
    take_place(m);
    if (m->kind == CINCH_MAKE_INIT) cinch_log_rank(m->comm->rank);
    cinchResult_t result = hand_out(m, run(m));
    free(m->left_out);
    free(m);
    return result;
}

/* ---- several ---- */

static void *run_thread(void *arg) {
    cinch_making *m = arg;
    if (m->kind == CINCH_MAKE_INIT) cinch_log_rank(m->comm->rank);
    m->result = run(m);
    if (m->result != cinchSuccess) strncpy(m->why, cinch_last_error(), sizeof m->why - 1);
    return NULL;
}

/* A call that got no thread: its parent goes on without it. */
static void give_up(cinch_making *m, cinchResult_t result) {
    m->result = result;
    cinch_making_excuse(m, result);
    if (!m->parent) return;
    cinch_comm_fail(m->parent, result);
    if (m->kind == CINCH_MAKE_SPLIT) {
        cinch_comm_await_turn(m->parent, m->number);
        cinch_comm_end_turn(m->parent, m->number);
    }
    atomic_fetch_sub(&m->parent->pending, 1);
}

cinchResult_t cinch_make_all(cinch_making *list) {
    cinchResult_t result = cinchSuccess;
    cinch_making *unstarted = list;
    for (cinch_making *m = list; m; m = m->next) take_place(m);
    for (; unstarted; unstarted = unstarted->next) {
        int err = pthread_create(&unstarted->thread, NULL, run_thread, unstarted);
        if (err != 0) {
            result = cinch_fail_errno(err, "cannot start a thread for an init");
            break;
        }
    }
    for (cinch_making *m = unstarted; m; m = m->next) give_up(m, result);
    for (cinch_making *m = list; m != unstarted; m = m->next) {
        pthread_join(m->thread, NULL);
        if (m->result != cinchSuccess && result == cinchSuccess)
            result = cinch_fail_quiet(m->result, "%s", m->why);
    }
    for (cinch_making *m = list; m; m = m->next) {
        if (result != cinchSuccess && m->result == cinchSuccess && m->comm) {
            cinchCommAbort(m->comm);
            m->comm = NULL;
        }
        hand_out(m, m->result);
        free(m->left_out);
        m->left_out = NULL;
    }
    return result;
}

/* ---- groups ---- */

bool cinch_making_queued(void) {
    return group.list || group.started;
}

bool cinch_making_holds(const struct cinchComm *comm) {
    for (const cinch_making *m = group.list; m; m = m->next)
        if (m->parent == comm) return true;
    return false;
}

static void drop_queued(const struct cinchComm *parent, bool all) {
    cinch_making **at = &group.list;
    while (*at) {
        cinch_making *m = *at;
        if (!all && m->parent != parent) {
            at = &m->next;
            continue;
        }
        *at = m->next;
        drop(m, cinchSuccess);
        free(m);
    }
    group.end = at;
}

void cinch_making_forget(const struct cinchComm *comm) {
    drop_queued(comm, false);
}

cinchResult_t cinch_making_end(bool run_them) {
    if (!run_them) drop_queued(NULL, true);
    cinch_making *list = group.list;
    bool started = group.started;
    group.list = NULL;
    group.started = false;
    cinchResult_t result = list ? cinch_make_all(list) : cinchSuccess;
    while (list) {
        cinch_making *next = list->next;
        free(list);
        list = next;
    }
    return result == cinchSuccess && started ? cinchInProgress : result;
}

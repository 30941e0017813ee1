/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that are captured into graphs, and the thread of a communicator that runs them at each
 * launch. */
#include "coll/graph.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/device.h"
#include "base/log.h"
#include "coll/group.h"

typedef struct recorded recorded;

/* A communicator's part: made by its first captured call. */
struct cinch_graphs {
    const cinch_device_work *work;
    int device;         /* the thread's */
    cinch_event *order; /* recorded after its last operation, in graphs and out of them; stays as
                           long as a graph has it, which may be launched without the communicator */
    cinch_event *inner; /* within one capture */
    uint64_t capture;   /* of its last captured call */

    /* The thread's, which frees this when `leaves` is set, it has nothing left and `users` is 0. */
    pthread_cond_t changed;
    int users; /* what is recorded with it */
    recorded *due, **due_end;
    bool leaves;
};

typedef struct stop { /* on one of the streams */
    cinch_gate gate;
    recorded *of;
} stop;

/* The operations of a group, or one outside of groups. */
struct recorded {
    recorded *next, **self; /* all there are */
    recorded *next_due;
    struct cinch_graphs *runner; /* the first one's communicator's; NULL: one of them is gone */
    const cinch_device_work *work;
    cinch_op *ops;
    struct cinch_graphs **with; /* its communicators', each once; behind the stops */
    int nwith;
    int stops, reached; /* by the launch that is on its way */
    int held;           /* by graphs, each of its gates */
    unsigned launches;  /* that have come here and not been run */
    bool queued, runs, told;
    stop stop[];
};

/* Of all that the driver's threads, callers and runners share; held for moments. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static recorded *all;

/* ---- the operations of a list ---- */

/* What works on its stream; NULL: the host. */
static const cinch_device_work *work_of(const cinch_op *op) {
    const cinch_device_ops *device =
        op->call.stream ? cinch_device_of_stream(op->call.stream) : NULL;
    return device ? device->work : NULL;
}

/* Whether one before it has the same communicator, or stream, or both. */
static bool seen_comm(const cinch_op *list, const cinch_op *op) {
    for (; list != op; list = list->next)
        if (list->call.comm == op->call.comm) return true;
    return false;
}

static bool seen_stream(const cinch_op *list, const cinch_op *op) {
    for (; list != op; list = list->next)
        if (list->call.stream == op->call.stream) return true;
    return false;
}

static bool seen_pair(const cinch_op *list, const cinch_op *op) {
    for (; list != op; list = list->next)
        if (list->call.comm == op->call.comm && list->call.stream == op->call.stream) return true;
    return false;
}

static bool has(const recorded *r, const struct cinchComm *comm) {
    for (const cinch_op *op = r->ops; op; op = op->next)
        if (op->call.comm == comm) return true;
    return false;
}

/* The last operation of that communicator on a stream of a device; NULL: there is none. */
static const cinch_op *last_on_device(const cinch_op *ops, const struct cinchComm *comm) {
    const cinch_op *last = NULL;
    for (; ops; ops = ops->next)
        if (ops->call.comm == comm && work_of(ops)) last = ops;
    return last;
}

cinchResult_t cinch_graph_of(const cinch_op *ops, uint64_t *capture) {
    bool first = true;
    *capture = 0;
    for (const cinch_op *op = ops; op; op = op->next) {
        uint64_t one = 0;
        if (seen_stream(ops, op)) continue;
        const cinch_device_work *work = work_of(op);
        if (work) CINCH_TRY(work->capture(op->call.stream, &one));
        if (!first && one != *capture)
            return cinch_fail(cinchInvalidUsage,
                              "a group has calls on a stream that is being captured and on one "
                              "that is not, or not into the same graph: all into one graph, or "
                              "none, is accepted");
        *capture = one;
        first = false;
    }
    return cinchSuccess;
}

/* ---- the thread ---- */

static void open_gates(recorded *r) {
    for (int i = 0; i < r->stops; i++) r->work->gate_open(&r->stop[i].gate);
}

/* With the lock held; frees it where no graph has it and nothing runs. */
static void let_go(recorded *r) {
    if (r->held || r->queued || r->runs) return;
    if (r->next) r->next->self = r->self;
    *r->self = r->next;
    for (int i = 0; i < r->nwith; i++)
        if (--r->with[i]->users == 0) pthread_cond_signal(&r->with[i]->changed);
    cinch_group_free(r->ops);
    free(r);
}

/* With the lock held: as if they had just been called. */
static void renew(recorded *r) {
    for (cinch_op *op = r->ops; op; op = op->next) {
        *op = (cinch_op){.call = op->call, .p2p = op->p2p, .next = op->next};
        op->number = atomic_fetch_add(&op->call.comm->issued, 1);
        for (cinch_p2p *p = op->p2p; p; p = p->next) p->done = false;
    }
}

/* Nobody synchronizes with what failed there, so that it is told as the communicator's. */
static void tell_failures(recorded *r) {
    for (cinch_op *op = r->ops; op && r->runner; op = op->next) {
        if (op->result == cinchSuccess || atomic_load(&op->call.comm->failed)) continue;
        cinch_comm_fail(op->call.comm, op->result);
        cinch_warn("in a graph: %s", cinch_last_error());
    }
}

/* With the lock held, but while it runs: one launch's. From then on its communicators may go as
 * soon as their operations are over. */
static void run_one(recorded *r) {
    r->queued = false;
    r->runs = r->runner;
    if (!r->runs && !r->told)
        cinch_warn("a graph has calls of a communicator that was destroyed: they do nothing (said "
                   "once for each call)");
    r->told |= !r->runs;
    if (r->runs) {
        renew(r);
        pthread_mutex_unlock(&lock);
        cinchResult_t result = cinch_engine_run(r->ops);
        pthread_mutex_lock(&lock);
        if (result != cinchSuccess) tell_failures(r);
    }
    r->runs = false;
    r->launches--;
    open_gates(r);
}

static void enqueue(struct cinch_graphs *g, recorded *r) {
    r->queued = true;
    r->next_due = NULL;
    *g->due_end = r;
    g->due_end = &r->next_due;
    pthread_cond_signal(&g->changed);
}

static void close_event(const struct cinch_graphs *g, cinch_event **event) {
    if (*event) g->work->event_close(*event);
    *event = NULL;
}

static cinchResult_t serve(void *arg) {
    struct cinch_graphs *g = arg;
    pthread_mutex_lock(&lock);
    while (g->due || !g->leaves || g->users) {
        recorded *r = g->due;
        if (!r) {
            pthread_cond_wait(&g->changed, &lock);
            continue;
        }
        g->due = r->next_due;
        if (!g->due) g->due_end = &g->due;
        run_one(r);
        if (r->launches)
            enqueue(g, r);
        else
            let_go(r);
    }
    pthread_mutex_unlock(&lock);
    close_event(g, &g->order);
    return cinchSuccess;
}

/* In the device's context, so that it need not be selected for every piece of work. */
static void *thread_main(void *arg) {
    struct cinch_graphs *g = arg;
    if (g->work->with(g->device, serve, g) != cinchSuccess) serve(g); /* also where that fails */
    pthread_cond_destroy(&g->changed);
    free(g);
    return NULL;
}

/* ---- by the driver's threads ---- */

/* The last of the group's streams has come there: the group is due. */
static void reached(cinch_gate *gate) {
    recorded *r = ((stop *)(void *)gate)->of;
    pthread_mutex_lock(&lock);
    if (++r->reached == r->stops) {
        r->reached = 0;
        r->launches++;
        if (!r->runner)
            run_one(r);
        else if (!r->queued && !r->runs)
            enqueue(r->runner, r);
    }
    pthread_mutex_unlock(&lock);
}

static void gone(cinch_gate *gate) {
    recorded *r = ((stop *)(void *)gate)->of;
    pthread_mutex_lock(&lock);
    r->held--;
    let_go(r);
    pthread_mutex_unlock(&lock);
}

/* ---- the communicator ---- */

static cinchResult_t start_thread(struct cinch_graphs *g) {
    pthread_t thread;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int err = pthread_create(&thread, &attr, thread_main, g);
    pthread_attr_destroy(&attr);
    return err == 0 ? cinchSuccess
                    : cinch_fail_errno(err, "cannot start the thread for calls in graphs");
}

static cinchResult_t open_events(struct cinch_graphs *g, cinchStream_t stream) {
    CINCH_TRY(g->work->event_open_by(stream, &g->order));
    return g->work->event_open_by(stream, &g->inner);
}

static cinchResult_t join_graphs(const cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    if (comm->graphs) return cinchSuccess;
    struct cinch_graphs *g = calloc(1, sizeof *g);
    if (!g) return cinch_fail(cinchSystemError, "out of memory for a call in a graph");
    g->work = work_of(op);
    g->device = comm->gpu_device - 1; /* -1: the buffers are the host's */
    g->due_end = &g->due;
    pthread_cond_init(&g->changed, NULL);
    cinchResult_t result = open_events(g, op->call.stream);
    if (result == cinchSuccess) result = start_thread(g);
    if (result == cinchSuccess) {
        comm->graphs = g;
        comm->oneshot_most = 0; /* the fast path does not look at graphs */
        return cinchSuccess;
    }
    close_event(g, &g->order);
    close_event(g, &g->inner);
    pthread_cond_destroy(&g->changed);
    free(g);
    return result;
}

void cinch_graph_settle(struct cinchComm *comm) {
    const struct timespec rest = {0, 50000};
    const struct cinch_graphs *g = comm->graphs;
    if (!g) return;
    while (!atomic_load(&comm->aborted) && g->work->passed(g->order) == cinchInProgress)
        nanosleep(&rest, NULL);
    while (atomic_load(&comm->unnumbered)) nanosleep(&rest, NULL);
}

void cinch_graph_leave(struct cinchComm *comm) {
    struct cinch_graphs *g = comm->graphs;
    if (!g) return;
    pthread_mutex_lock(&lock);
    for (recorded *r = all; r; r = r->next)
        if (r->runner && has(r, comm)) r->runner = NULL;
    pthread_mutex_unlock(&lock);
    /* What runs has its numbers, and does not look at the communicator after its turn. */
    cinch_comm_await_turn(comm, atomic_load(&comm->issued));
    close_event(g, &g->inner);
    pthread_mutex_lock(&lock);
    const cinch_device_work *work = g->work;
    cinch_event *order =
        g->users ? NULL : g->order; /* else the thread's, whom the last graph wakes */
    if (order) g->order = NULL;
    g->leaves = true;
    pthread_cond_signal(&g->changed);
    pthread_mutex_unlock(&lock);
    if (order) work->event_close(order);
    comm->graphs = NULL;
}

/* ---- capturing ---- */

/* Before the capture's first call of a communicator whatever was launched before, before the others
 * the one before. On every stream: two executable graphs may be made of one, and what of the one
 * comes to a gate is not to be taken for the other's. */
static cinchResult_t come_after(const cinch_op *ops, uint64_t capture) {
    for (const cinch_op *op = ops; op; op = op->next) {
        struct cinch_graphs *g = op->call.comm->graphs;
        CINCH_TRY(g->capture == capture ? g->work->wait(op->call.stream, g->inner)
                                        : g->work->wait_outside(op->call.stream, g->order));
    }
    return cinchSuccess;
}

/* A stream waits for all the others on which its communicator has calls there: all of its gates
 * have been passed then, and none is shut by the next launch before that. */
static cinchResult_t join_streams(const cinch_op *ops, const cinch_op *to) {
    const struct cinch_graphs *g = to->call.comm->graphs;
    for (const cinch_op *op = ops; op; op = op->next) {
        if (op->call.comm != to->call.comm || op->call.stream == to->call.stream ||
            seen_pair(ops, op))
            continue;
        CINCH_TRY(g->work->record(g->inner, op->call.stream));
        CINCH_TRY(g->work->wait(to->call.stream, g->inner));
    }
    return cinchSuccess;
}

static cinchResult_t come_before(const cinch_op *ops, uint64_t capture) {
    for (const cinch_op *op = ops; op; op = op->next) {
        struct cinch_graphs *g = op->call.comm->graphs;
        if (seen_comm(ops, op)) continue;
        CINCH_TRY(join_streams(ops, op));
        CINCH_TRY(g->work->record(g->inner, op->call.stream));
        CINCH_TRY(g->work->record_outside(g->order, op->call.stream));
        g->capture = capture;
    }
    return cinchSuccess;
}

/* The i-th stop's place, with `put` on its stream, else in the graph. */
static cinchResult_t each_gate(recorded *r, bool put) {
    const cinch_op *op = r->ops;
    for (int i = 0; i < r->stops; i++, op = op->next) {
        cinch_gate *gate = &r->stop[i].gate;
        while (seen_stream(r->ops, op)) op = op->next;
        CINCH_TRY((put ? r->work->gate_put : r->work->gate_hold)(op->call.stream, gate));
    }
    return cinchSuccess;
}

static recorded *make_recorded(cinch_op *ops) {
    size_t stops = 0, comms = 0;
    for (const cinch_op *op = ops; op; op = op->next) {
        stops += !seen_stream(ops, op);
        comms += !seen_comm(ops, op);
    }
    recorded *r = calloc(1, sizeof *r + stops * sizeof *r->stop + comms * sizeof(*r->with));
    if (!r) return NULL;
    r->with = (void *)(r->stop + stops);
    r->stops = (int)stops;
    r->held = (int)stops + 1; /* and by the call itself */
    for (size_t i = 0; i < stops; i++) r->stop[i] = (stop){{.reached = reached, .gone = gone}, r};
    r->ops = ops;
    r->work = work_of(ops);
    r->runner = ops->call.comm->graphs;
    pthread_mutex_lock(&lock);
    for (const cinch_op *op = ops; op; op = op->next) {
        if (seen_comm(ops, op)) continue;
        r->with[r->nwith++] = op->call.comm->graphs;
        op->call.comm->graphs->users++;
    }
    r->next = all;
    r->self = &all;
    if (all) all->self = &r->next;
    all = r;
    pthread_mutex_unlock(&lock);
    return r;
}

cinchResult_t cinch_graph_record(cinch_op *ops, uint64_t capture) {
    cinchResult_t result = cinchSuccess;
    for (const cinch_op *op = ops; op && result == cinchSuccess; op = op->next)
        result = join_graphs(op);
    recorded *r = result == cinchSuccess ? make_recorded(ops) : NULL;
    if (!r) {
        if (result == cinchSuccess)
            result = cinch_fail(cinchSystemError, "out of memory for a call in a graph");
        cinch_group_free(ops);
        return result;
    }
    result = each_gate(r, false); /* before the graph has anything of it: that it keeps then */
    if (result == cinchSuccess) result = come_after(ops, capture);
    if (result == cinchSuccess) result = each_gate(r, true);
    if (result == cinchSuccess) result = come_before(ops, capture);
    for (const cinch_op *op = ops; op && result != cinchSuccess; op = op->next)
        cinch_comm_fail(op->call.comm, result);
    pthread_mutex_lock(&lock);
    if (result != cinchSuccess) r->runner = NULL;
    for (int i = 0; i < r->stops; i++) r->held -= !r->stop[i].gate.held;
    r->held--;
    let_go(r);
    pthread_mutex_unlock(&lock);
    return result;
}

/* ---- calls outside of graphs ---- */

void cinch_graph_place(const cinch_op *ops, cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    op->late = comm->graphs && last_on_device(ops, comm);
    if (op->late) {
        atomic_fetch_add(&comm->unnumbered, 1);
        return;
    }
    cinch_graph_settle(comm);
    op->number = cinch_comm_issue(comm);
}

void cinch_graph_number(cinch_op *ops) {
    for (cinch_op *op = ops; op; op = op->next) {
        if (!op->late) continue;
        op->number = atomic_fetch_add(&op->call.comm->issued, 1);
        op->late = false;
        atomic_fetch_sub(&op->call.comm->unnumbered, 1);
    }
}

cinchResult_t cinch_graph_before(const cinch_op *ops) {
    for (const cinch_op *op = ops; op; op = op->next) {
        const struct cinch_graphs *g = op->call.comm->graphs;
        if (op->late && work_of(op)) CINCH_TRY(g->work->wait(op->call.stream, g->order));
    }
    return cinchSuccess;
}

cinchResult_t cinch_graph_after(const cinch_op *ops) {
    for (const cinch_op *op = ops; op; op = op->next) {
        const struct cinchComm *comm = op->call.comm;
        const cinch_op *last = comm->graphs ? last_on_device(ops, comm) : NULL;
        if (last && !seen_comm(ops, op))
            CINCH_TRY(comm->graphs->work->record(comm->graphs->order, last->call.stream));
    }
    return cinchSuccess;
}

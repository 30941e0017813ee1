/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting: spin for what comes soon, sleep for what does not, and notice what never will. */
#include <poll.h>
#include <sched.h>
#include <time.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "coll/gpu.h"
#include "coll/report.h"
#include "coll/watch.h"

enum {
    SPIN_TICKS = 6000,    /* some 2 microseconds of a time-stamp counter, or of nanoseconds */
    YIELD_TICKS = 150000, /* then, up to some 50, the CPU goes to whoever wants it: the peer may be
                             waiting for this very one */
    CROWDED_YIELDS = 16,  /* with more ranks than CPUs, at once and not for long */
    FLAG_SLEEP = 2000,    /* microseconds, also what bounds the race of cinch_flag_sleep */
    SHORT_SLEEP = 50,     /* where nothing can wake us */
    MOST_FDS = 64
};

static bool my_turn(const cinch_op *op) {
    return op->state != CINCH_OP_DONE &&
           atomic_load_explicit(&op->call.comm->turn, memory_order_acquire) == op->number;
}

static bool crowded(const cinch_op *list) {
    for (const cinch_op *op = list; op; op = op->next)
        if (op->call.comm->crowded) return true;
    return false;
}

/* Sleeps until a socket has something, or for a short while where flags, rings or another thread
 * are waited for. */
static void sleep_on_links(cinch_op *list) {
    struct pollfd fds[MOST_FDS];
    nfds_t count = 0;
    bool blind = false;
    for (cinch_op *op = list; op; op = op->next) {
        if (op->state == CINCH_OP_DONE) continue;
        if (!my_turn(op) || op->blocked_flag) blind = true;
        /* Nothing wakes us for an event, or for a card. */
        if (op->gpu && (op->gpu->watching || op->gpu->polling)) blind = true;
        const struct cinchComm *comm = op->call.comm;
        for (int q = 0; q < comm->nranks && my_turn(op); q++) {
            cinch_link *link = comm->net ? comm->net->link[q] : NULL;
            if (!link || link->pending <= 0) continue;
            struct pollfd *p = &fds[count];
            p->revents = 0;
            if (count < MOST_FDS - 1 && link->ops->poll_fd(link, &p->fd, &p->events))
                count++;
            else
                blind = true;
        }
        if (my_turn(op) && comm->meeting && count < MOST_FDS - 1)
            fds[count++] = (struct pollfd){cinch_rendezvous_fd(comm->meeting), POLLIN, 0};
    }
    struct timespec wait = {0, (blind ? SHORT_SLEEP : FLAG_SLEEP) * 1000};
    ppoll(fds, count, &wait, NULL);
}

static void sleep_a_little(cinch_op *list) {
    if (!list->next && list->blocked_flag && my_turn(list))
        cinch_flag_sleep(list->blocked_flag, list->blocked_value, FLAG_SLEEP);
    else
        sleep_on_links(list);
}

/* What can be wrong with an operation that does not move. */
static cinchResult_t check(cinch_idle *idle, cinch_op *op, uint64_t now) {
    struct cinchComm *comm = op->call.comm;
    if (cinch_report_asked(comm)) cinch_report_describe(op, idle->since_ns, false);
    CINCH_TRY(cinch_comm_stopped(comm));
    if (comm->meeting) CINCH_TRY(cinch_rendezvous_check(comm->meeting));
    return cinch_watch_wait(idle, op, now);
}

void cinch_idle_step(cinch_idle *idle, cinch_op *list) {
    if (!idle->began) idle->began = cinch_ticks();
    uint64_t waited = cinch_ticks() - idle->began;
    bool busy = crowded(list);
    if (!idle->yields && !busy && waited < SPIN_TICKS) {
        cinch_cpu_pause();
        return;
    }
    if (busy ? idle->yields < CROWDED_YIELDS : waited < YIELD_TICKS) {
        idle->yields++;
        sched_yield();
        return;
    }
    if (!idle->since_ns) idle->since_ns = cinch_now_ns();
    sleep_a_little(list);
    uint64_t now = cinch_now_ns();
    for (cinch_op *op = list; op; op = op->next)
        if (my_turn(op) && op->state != CINCH_OP_NEW) op->result = check(idle, op, now);
}

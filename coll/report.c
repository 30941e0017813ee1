/* SPDX-License-Identifier: Apache-2.0 */
/* When reports are written: the reporter's thread, the signal, and what operations say. */
#include "coll/report.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

/* How long the reporter waits for operations to say what they do: they sleep 2 ms at a time. */
enum { PATIENCE = 25, NAP_NS = 2000000 };

static struct {
    pthread_mutex_t life; /* the thread's beginning and end */
    pthread_mutex_t lock; /* the list; a report in it does not go while this is held */
    cinch_report *list;
    pid_t owner; /* a forked child has none of this */
    pthread_t thread;
    bool running, stop;
    unsigned files;
} self = {.life = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER};

/* What wakes the reporter. The descriptor stays for the process's life: a handler may be about to
 * write to it at any moment. */
static _Atomic int wake_fd = -1;
static _Atomic int wake_owner;
static _Atomic bool signalled;

static void wake(void) {
    const uint64_t one = 1;
    const int fd = atomic_load(&wake_fd);
    if (fd >= 0 && write(fd, &one, sizeof one) < 0) return; /* full: it is awake */
}

static void on_signal(int number) {
    const int before = errno;
    (void)number;
    if (atomic_load(&wake_owner) == (int)getpid()) {
        atomic_store(&signalled, true);
        wake();
    }
    errno = before;
}

/* Only where nobody else wants the signal. It stays: what came late would end the process. */
static void take_signal(void) {
    struct sigaction now, mine = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    if (sigaction(SIGUSR1, NULL, &now) != 0 || (now.sa_flags & SA_SIGINFO) ||
        now.sa_handler != SIG_DFL)
        return;
    sigemptyset(&mine.sa_mask);
    sigaction(SIGUSR1, &mine, NULL);
}

/* ---- the reporter ---- */

static void write_locked(cinch_report *report, const char *reason) {
    pthread_mutex_lock(&report->lock);
    cinch_report_write(report, reason);
    pthread_mutex_unlock(&report->lock);
}

/* Everything, by operations' own words where they come in time. self.lock is held. */
static void write_all(void) {
    bool wait = true;
    for (cinch_report *r = self.list; r; r = r->next) atomic_store(&r->asked, true);
    for (int i = 0; i < PATIENCE && wait; i++) {
        nanosleep(&(struct timespec){0, NAP_NS}, NULL);
        wait = false;
        for (const cinch_report *r = self.list; r; r = r->next) wait |= atomic_load(&r->asked);
    }
    for (cinch_report *r = self.list; r; r = r->next) {
        atomic_store(&r->asked, false);
        write_locked(r, "signal");
    }
}

static bool failed_unsaid(cinch_report *report) {
    return atomic_load(&report->comm->failed) != cinchSuccess && (!report->failed || report->fresh);
}

static void write_failed(cinch_report *report) {
    pthread_mutex_lock(&report->lock);
    if (failed_unsaid(report)) {
        report->failed = true;
        cinch_report_write(report, "failure");
        report->fresh = false;
    }
    pthread_mutex_unlock(&report->lock);
}

static void *reporter(void *arg) {
    (void)arg;
    for (;;) {
        uint64_t count;
        struct pollfd fd = {atomic_load(&wake_fd), POLLIN, 0};
        if (poll(&fd, 1, -1) < 0 && errno != EINTR) break;
        if (read(fd.fd, &count, sizeof count) < 0 && errno != EAGAIN && errno != EINTR) break;
        pthread_mutex_lock(&self.lock);
        const bool stop = self.stop;
        if (!stop && atomic_exchange(&signalled, false)) write_all();
        for (cinch_report *r = self.list; r && !stop; r = r->next) write_failed(r);
        pthread_mutex_unlock(&self.lock);
        if (stop) break;
    }
    return NULL;
}

/* self.life is held. */
static bool start(void) {
    sigset_t all, before;
    int fd = atomic_load(&wake_fd);
    if (fd < 0) fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return false;
    atomic_store(&wake_fd, fd);
    atomic_store(&wake_owner, (int)getpid());
    self.stop = false;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    self.running = pthread_create(&self.thread, NULL, reporter, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (self.running) take_signal();
    return self.running;
}

/* A forked child begins anew: its parent's thread, list and descriptor are not its own. */
static void own(void) {
    if (self.owner == getpid()) return;
    if (self.owner) {
        pthread_mutex_init(&self.life, NULL);
        pthread_mutex_init(&self.lock, NULL);
        self.list = NULL;
        self.running = false;
        atomic_store(&wake_fd, -1);
    }
    self.files = 0;
    self.owner = getpid();
}

void cinch_report_join(struct cinchComm *comm) {
    if (!comm->settings.report_dir[0]) return;
    cinch_report *report = calloc(1, sizeof *report);
    if (!report) return;
    report->comm = comm;
    pthread_mutex_init(&report->lock, NULL);
    own();
    pthread_mutex_lock(&self.life);
    const bool good = self.files < CINCH_REPORT_FILES && (self.running || start());
    if (good) {
        report->file = self.files++;
        pthread_mutex_lock(&self.lock);
        report->next = self.list;
        self.list = report;
        comm->report = report;
        pthread_mutex_unlock(&self.lock);
        wake(); /* it may have failed already */
    } else if (self.files < CINCH_REPORT_FILES) {
        cinch_warn("CINCH_REPORT_DIR: no reports: %s", strerror(errno));
    } else if (self.files == CINCH_REPORT_FILES) {
        self.files++;
        cinch_warn("CINCH_REPORT_DIR: further communicators of this process have no reports, "
                   "which has made %d",
                   CINCH_REPORT_FILES);
    }
    pthread_mutex_unlock(&self.life);
    if (good) return;
    pthread_mutex_destroy(&report->lock);
    free(report);
}

void cinch_report_leave(struct cinchComm *comm) {
    cinch_report *report = comm->report;
    if (!report) return;
    comm->report = NULL;
    if (self.owner != getpid()) return; /* the parent's */
    pthread_mutex_lock(&self.life);
    pthread_mutex_lock(&self.lock);
    write_failed(report);
    cinch_report **at = &self.list;
    while (*at != report) at = &(*at)->next;
    *at = report->next;
    const bool last = !self.list && self.running;
    self.stop |= last;
    pthread_mutex_unlock(&self.lock);
    if (last) {
        wake();
        pthread_join(self.thread, NULL);
        self.running = false;
    }
    pthread_mutex_unlock(&self.life);
    pthread_mutex_destroy(&report->lock);
    free(report);
}

void cinch_report_failed(struct cinchComm *comm) {
    if (comm->report && self.owner == getpid()) write_failed(comm->report);
}

void cinch_report_told(void) {
    if (atomic_load(&wake_owner) == (int)getpid()) wake();
}

/* ---- operations ---- */

static const char *const kinds[] = {"copy", "reduce", "send",   "recv",
                                    "post", "wait",   "encode", "sum"};

static void add(cinch_report_call *call, int index, const cinch_item *item, uint64_t round,
                const char *state) {
    if (call->items == CINCH_REPORT_ITEMS) return;
    const bool pairs =
        item->op == CINCH_DO_SEND || item->op == CINCH_DO_RECV || item->op == CINCH_DO_WAIT;
    call->item[call->items++] =
        (cinch_report_item){index, pairs ? item->peer : -1, round, kinds[item->op], state};
}

/* Whether the item has run for that round. */
static bool has_run(const cinch_op *op, int index, size_t round) {
    const size_t iteration = round + op->schedule->item[index].lag;
    return iteration < op->iteration || (iteration == op->iteration && index < op->item);
}

/* Messages that are posted and not complete, of all rounds that exist at once. */
static void add_messages(const cinch_op *op, cinch_report_call *call) {
    const cinch_schedule *s = op->schedule;
    for (int i = 0; i < s->nitems; i++) {
        const cinch_item *item = &s->item[i];
        if (item->op != CINCH_DO_SEND && item->op != CINCH_DO_RECV) continue;
        size_t round = op->iteration > s->depth ? op->iteration - s->depth : 0;
        for (; round < op->cut.rounds && has_run(op, i, round); round++) {
            if (round + s->depth < op->cut.rounds && has_run(op, i, round + s->depth)) continue;
            if (!op->msg[round % s->depth * s->nmsg + item->msg].done)
                add(call, i, item, round, "under way");
        }
    }
}

/* Then the items around the one that waits. */
static void add_items(const cinch_op *op, cinch_report_call *call) {
    enum { BEFORE = 12, BEHIND = 12 };
    const cinch_schedule *s = op->schedule;
    int from = op->item > BEFORE ? op->item - BEFORE : 0;
    for (int i = from; i < s->nitems && i < op->item + BEHIND; i++) {
        const cinch_item *item = &s->item[i];
        const bool message = item->op == CINCH_DO_SEND || item->op == CINCH_DO_RECV;
        const size_t round = op->iteration - item->lag;
        if (item->lag > op->iteration || round >= op->cut.rounds) continue;
        if (i > op->item)
            add(call, i, item, round, "later");
        else if (i == op->item)
            add(call, i, item, round, "waits");
        else if (!message || op->msg[round % s->depth * s->nmsg + item->msg].done)
            add(call, i, item, round, "done");
    }
}

static void add_pairs(const cinch_op *op, cinch_report_call *call) {
    int index = 0;
    for (const cinch_p2p *p = op->p2p; p && call->items < CINCH_REPORT_ITEMS; p = p->next, index++)
        call->item[call->items++] =
            (cinch_report_item){index, p->peer, 0, p->receives ? "recv" : "send",
                                p->done || p->msg.done ? "done" : "under way"};
}

void cinch_report_describe(const cinch_op *op, uint64_t since_ns, bool failed) {
    static const char *const states[] = {"begins", "enters", "runs", "is done"};
    const struct cinchComm *comm = op->call.comm;
    cinch_report *report = comm->report;
    if (!report) return;
    pthread_mutex_lock(&report->lock);
    cinch_report_call *call = &report->call;
    if (!since_ns && call->there && call->order == comm->record.calls - 1)
        since_ns = call->since_ns; /* as it has said before */
    *call = (cinch_report_call){.there = true,
                                .recorded = op->recorded,
                                .order = comm->record.calls - 1,
                                .algo = op->algo ? op->algo->name : NULL,
                                .state = states[op->state],
                                .iteration = op->iteration,
                                .waits_for = op->state == CINCH_OP_NEW ? -1 : op->blocked_peer,
                                .flag = op->blocked_flag != NULL,
                                .since_ns = since_ns};
    cinch_called_text(&op->call, op->number, call->text);
    const bool running = op->state == CINCH_OP_RUNNING && !op->gpu;
    if (op->call.collective == CINCH_SENDRECV) {
        add_pairs(op, call);
    } else if (running && op->schedule && op->msg) {
        call->iterations = op->cut.rounds + op->schedule->lags;
        add_messages(op, call);
        add_items(op, call);
    }
    report->fresh = failed;
    pthread_mutex_unlock(&report->lock);
    atomic_store(&report->asked, false);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's thread: seats that have something to read, and processes that end. */
#include "transports/monitor.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "transports/io.h"

#define MS ((uint64_t)1000000)
/* How long a process may be over before that is a failure: what it said last, a farewell perhaps,
 * comes by its own connection. */
enum { LAST_WORDS_MS = 400, STACK_BYTES = 256 << 10, EVENTS = 16 };

typedef struct watched {
    struct watched *next;
    cinch_rendezvous *seat;
    struct process **process; /* [nranks], NULL: not watched; or NULL */
    int nranks;
} watched;

typedef struct process {
    struct process *next;
    cinch_process who;
    int fd, uses;
    uint64_t ended_ns; /* 0: it lives */
    bool told;
} process;

typedef struct monitor {
    pthread_t thread;
    int epoll_fd, wake_fd, pid;
    bool stop;
    watched *seats;
    process *processes;
} monitor;

/* Held while the thread handles something, too: who removes a seat waits for that. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static monitor *current;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void before_fork(void) {
    pthread_mutex_lock(&lock);
}
static void after_fork(void) {
    pthread_mutex_unlock(&lock);
}

/* The descriptors' lock is taken inside ours, so its handlers are registered first: those of before
 * a fork run in the reverse order. */
static void watch_forks(void) {
    int fd;
    if (!cinch_eventfd(&fd)) cinch_close(fd);
    pthread_atfork(before_fork, after_fork, after_fork);
}

/* ---- processes ---- */

/* Field 22 of /proc/PID/stat, behind the name in parentheses: clock ticks from boot to its start.
 */
static uint64_t born(int pid) {
    char path[40], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

cinch_process cinch_process_self(void) {
    struct stat space;
    cinch_process self = {.pid = (int32_t)getpid()};
    if (stat("/proc/self/ns/pid", &space) == 0) self.space = (uint64_t)space.st_ino;
    self.born = born(self.pid);
    return self.space && self.born ? self : (cinch_process){0};
}

static bool same_process(const cinch_process *a, const cinch_process *b) {
    return a->pid == b->pid && a->born == b->born && a->space == b->space;
}

/* Locked. */
static process *find_process(const cinch_process *who) {
    for (process *p = current->processes; p; p = p->next)
        if (same_process(&p->who, who)) return p;
    return NULL;
}

/* Locked. NULL: it cannot be watched. */
static process *watch_process(const cinch_process *who) {
    process *p = find_process(who);
    if (p) {
        p->uses++;
        return p;
    }
    int fd;
    if (cinch_pidfd(who->pid, &fd)) return NULL;
    p = calloc(1, sizeof *p);
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};
    event.data.ptr = p;
    /* The number may be another process's by now. */
    if (!p || born(who->pid) != who->born ||
        epoll_ctl(current->epoll_fd, EPOLL_CTL_ADD, fd, &event)) {
        free(p);
        cinch_close(fd);
        return NULL;
    }
    *p = (process){.next = current->processes, .who = *who, .fd = fd, .uses = 1};
    current->processes = p;
    return p;
}

/* Locked. */
static void drop_process(monitor *m, process *p) {
    if (!p || --p->uses) return;
    for (process **at = &m->processes; *at; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    epoll_ctl(m->epoll_fd, EPOLL_CTL_DEL, p->fd, NULL);
    cinch_close(p->fd);
    free(p);
}

/* A rank of each communicator that had ranks in it is enough, the server's if that was there. */
static void tell_of(const monitor *m, const process *p) {
    for (const watched *w = m->seats; w; w = w->next) {
        int host = cinch_rendezvous_host(w->seat), rank = -1;
        for (int q = 0; w->process && q < w->nranks; q++)
            if (w->process[q] == p && (rank < 0 || q == host)) rank = q;
        if (rank >= 0) cinch_rendezvous_gone(w->seat, rank, rank == host);
    }
}

/* Locked. When to look again, 0: never. */
static uint64_t look_at_processes(const monitor *m) {
    uint64_t next = 0, now = cinch_now_ns();
    for (process *p = m->processes; p; p = p->next) {
        if (!p->ended_ns || p->told) continue;
        uint64_t due = p->ended_ns + LAST_WORDS_MS * MS;
        if (now >= due) {
            p->told = true;
            tell_of(m, p);
        } else if (!next || due < next) {
            next = due;
        }
    }
    return next;
}

/* ---- the thread ---- */

/* Locked. What the event is of may be gone meanwhile. */
static void handle(const monitor *m, const struct epoll_event *event) {
    uint64_t waste;
    if (!event->data.ptr) {
        while (read(m->wake_fd, &waste, sizeof waste) > 0) continue;
        return;
    }
    for (process *p = m->processes; p; p = p->next)
        if (p == event->data.ptr && !p->ended_ns) p->ended_ns = cinch_now_ns();
    for (watched *w = m->seats; w; w = w->next)
        if (w->seat == event->data.ptr) {
            cinch_log_rank(cinch_rendezvous_rank(w->seat));
            (void)cinch_rendezvous_tend(w->seat);
            cinch_log_rank(-1);
        }
}

static void *run(void *argument) {
    monitor *m = argument;
    struct epoll_event events[EVENTS];
    for (int count = 0;;) {
        pthread_mutex_lock(&lock);
        for (int i = 0; i < count; i++) handle(m, &events[i]);
        uint64_t next = look_at_processes(m), now = cinch_now_ns();
        bool stop = m->stop;
        pthread_mutex_unlock(&lock);
        if (stop) return NULL;
        int ms = !next ? -1 : next <= now ? 0 : (int)((next - now) / MS) + 1;
        count = epoll_wait(m->epoll_fd, events, EVENTS, ms);
    }
}

/* The thread takes no signals: they are the program's. */
static int start_thread(monitor *m) {
    pthread_attr_t attr;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attr);
    /* Where the program's thread-local data alone is larger than this, the default has to do. */
    int err = pthread_attr_setstacksize(&attr, STACK_BYTES);
    if (!err) err = pthread_create(&m->thread, &attr, run, m);
    if (err) err = pthread_create(&m->thread, NULL, run, m);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err;
}

static void free_monitor(monitor *m) {
    cinch_close(m->epoll_fd);
    cinch_close(m->wake_fd);
    free(m);
}

static void forget(monitor *m) {
    while (m && m->seats) {
        watched *next = m->seats->next;
        free(m->seats->process);
        free(m->seats);
        m->seats = next;
    }
    while (m && m->processes) {
        process *next = m->processes->next;
        free(m->processes);
        m->processes = next;
    }
    free(m);
}

/* Locked: begins it, where this process has none. 0 or errno. */
static int begin(void) {
    if (current && current->pid == (int)getpid()) return 0;
    forget(current); /* a forked child: the parent's thread is not here, its descriptors closed */
    current = NULL;
    monitor *m = calloc(1, sizeof *m);
    if (!m) return ENOMEM;
    struct epoll_event event = {.events = EPOLLIN};
    m->pid = (int)getpid();
    m->epoll_fd = m->wake_fd = -1;
    int err = cinch_epoll(&m->epoll_fd);
    if (!err) err = cinch_eventfd(&m->wake_fd);
    if (!err && epoll_ctl(m->epoll_fd, EPOLL_CTL_ADD, m->wake_fd, &event)) err = errno;
    if (!err) err = start_thread(m);
    if (err)
        free_monitor(m);
    else
        current = m;
    return err;
}

/* Locked: takes the monitor away where nothing is left of it; the caller ends it. */
static monitor *retire(void) {
    if (!current || current->seats) return NULL;
    monitor *m = current;
    uint64_t one = 1;
    current = NULL;
    m->stop = true;
    if (write(m->wake_fd, &one, sizeof one) < 0) return m; /* full: it is awake */
    return m;
}

static void end(monitor *m) {
    if (!m) return;
    pthread_join(m->thread, NULL);
    free_monitor(m);
}

cinchResult_t cinch_monitor_add(cinch_rendezvous *seat) {
    pthread_once(&fork_once, watch_forks);
    watched *w = calloc(1, sizeof *w);
    if (!w) return cinch_fail(cinchSystemError, "out of memory for the monitor");
    pthread_mutex_lock(&lock);
    int err = begin();
    monitor *idle = NULL;
    if (!err) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};
        event.data.ptr = w->seat = seat;
        w->next = current->seats;
        current->seats = w;
        cinch_rendezvous_tended_by(seat, current->epoll_fd, event.events);
        if (epoll_ctl(current->epoll_fd, EPOLL_CTL_ADD, cinch_rendezvous_fd(seat), &event)) {
            err = errno;
            current->seats = w->next;
            idle = retire();
        }
    }
    pthread_mutex_unlock(&lock);
    end(idle);
    if (!err) return cinchSuccess;
    free(w);
    return cinch_fail_errno(err, "no monitor for the communicator");
}

/* Locked. */
static watched **find(const cinch_rendezvous *seat) {
    static watched *none;
    if (!current || current->pid != (int)getpid()) return &none;
    watched **at = &current->seats;
    while (*at && (*at)->seat != seat) at = &(*at)->next;
    return at;
}

void cinch_monitor_processes(cinch_rendezvous *seat, const cinch_process *who, int nranks) {
    const cinch_process self = cinch_process_self();
    process **list = calloc((size_t)nranks, sizeof *list);
    pthread_mutex_lock(&lock);
    watched *w = *find(seat);
    if (list && w && self.pid) {
        for (int q = 0; q < nranks; q++)
            if (who[q].pid && who[q].space == self.space && !same_process(&who[q], &self))
                list[q] = watch_process(&who[q]);
        w->process = list;
        w->nranks = nranks;
        list = NULL;
    }
    pthread_mutex_unlock(&lock);
    free(list);
}

void cinch_monitor_remove(cinch_rendezvous *seat) {
    monitor *idle = NULL;
    pthread_mutex_lock(&lock);
    watched **at = find(seat), *w = *at;
    if (w) {
        *at = w->next;
        epoll_ctl(current->epoll_fd, EPOLL_CTL_DEL, cinch_rendezvous_fd(seat), NULL);
        for (int q = 0; w->process && q < w->nranks; q++) drop_process(current, w->process[q]);
        free(w->process);
        free(w);
        idle = retire();
    }
    pthread_mutex_unlock(&lock);
    end(idle);
}

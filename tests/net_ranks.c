/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks as threads, or as forked processes, each with a cinch_net over the real rendezvous. */
#include "tests/net_ranks.h"

#include <check.h>
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define WAIT_NS 20000000000u

void net_note(net_rank *me, const char *file, int line, const char *condition, const char *format,
              ...) {
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (me->failure[0]) return;
    snprintf(me->failure, sizeof me->failure, "%s:%d: rank %d: %s: %s [%.200s]", file, line,
             me->rank, condition, text, cinch_last_error());
}

bool net_wait(net_rank *me, cinch_msg *const *messages, int count) {
    uint64_t start = cinch_now_ns();
    int first = 0;
    for (unsigned spins = 1;; spins++) {
        while (first < count && messages[first]->done) first++;
        if (first == count) return true;
        for (int r = 0; r < me->nranks; r++) {
            cinch_link *link = me->net->link[r];
            if (link && link->pending > 0 && link->ops->progress(link) != cinchSuccess)
                return false;
        }
        if (spins % 64 != 0) continue;
        sched_yield();
        if (spins % 1024 != 0) continue;
        if (cinch_rendezvous_check(me->rendezvous) != cinchSuccess) return false;
        if (cinch_now_ns() - start > WAIT_NS) {
            cinch_fail_quiet(cinchInternalError, "%d messages of %d are still under way",
                             count - first, count);
            return false;
        }
    }
}

bool net_wait_one(net_rank *me, cinch_msg *message) {
    return net_wait(me, &message, 1);
}

bool net_barrier(net_rank *me) {
    unsigned char all[256], mine = 1;
    return cinch_rendezvous_allgather(me->rendezvous, &mine, 1, all) == cinchSuccess;
}

void net_fill(unsigned char *data, size_t bytes, uint64_t seed) {
    for (size_t i = 0; i < bytes; i++)
        data[i] = (unsigned char)((seed + i) * UINT64_C(0x9e3779b97f4a7c15) >> 56);
}

bool net_filled(const unsigned char *data, size_t bytes, uint64_t seed) {
    for (size_t i = 0; i < bytes; i++)
        if (data[i] != (unsigned char)((seed + i) * UINT64_C(0x9e3779b97f4a7c15) >> 56))
            return false;
    return true;
}

uint64_t net_random(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

int net_open_fds(void) {
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    if (!dir) return -1;
    while (readdir(dir)) count++;
    closedir(dir);
    return count;
}

static void replace(char **field, const char *text) {
    free(*field);
    *field = strdup(text);
}

typedef struct seat {
    net_rank me; /* first */
    const net_case *c;
    cinchUniqueId id;
} seat;

static void *run_rank(void *arg) {
    seat *s = arg;
    net_rank *me = &s->me;
    const net_case *c = s->c;
    char why[CINCH_ERROR_TEXT];
    cinch_log_rank(me->rank);
    cinch_settings_load(&me->settings, why);
    replace(&me->settings.transport, c->transports ? c->transports[me->rank] : c->transport);
    if (c->hostids) replace(&me->settings.hostid, c->hostids[me->rank]);
    me->settings.init_timeout_ms = 20000;
    if (!cinch_handshake_available()) me->settings.allow_unauthenticated = true; /* tcp as well */
    if (cinch_rendezvous_join(&me->settings, &s->id, me->rank, me->nranks, NULL, &me->rendezvous) !=
        cinchSuccess) {
        net_note(me, __FILE__, __LINE__, "join", "no rendezvous");
    } else {
        cinch_net_options options = c->options;
        if (c->setup) c->setup(me, &options);
        me->opened =
            cinch_net_open(&me->settings, me->rendezvous, me->rank, me->nranks, &options, &me->net);
        if (me->opened != cinchSuccess) strcpy(me->opening, cinch_last_error());
        if (me->opened != cinchSuccess && !c->may_fail)
            net_note(me, __FILE__, __LINE__, "cinch_net_open", "%s", "");
        else
            c->body(me);
        if (me->failure[0]) cinch_rendezvous_abort(me->rendezvous, me->failure);
    }
    cinch_net_close(me->net);
    cinch_rendezvous_leave(me->rendezvous);
    cinch_settings_free(&me->settings);
    return NULL;
}

static void run_threads(seat *seats, int n, char *failure) {
    pthread_t threads[256];
    for (int r = 0; r < n; r++)
        ck_assert_int_eq(pthread_create(&threads[r], NULL, run_rank, &seats[r]), 0);
    for (int r = 0; r < n; r++) pthread_join(threads[r], NULL);
    for (int r = n - 1; r >= 0; r--)
        if (seats[r].me.failure[0]) strcpy(failure, seats[r].me.failure);
}

static void run_processes(seat *seats, int n, char *failure) {
    pid_t children[256];
    int pipes[2];
    ck_assert_int_eq(pipe(pipes), 0);
    for (int r = 0; r < n; r++) {
        children[r] = fork();
        if (children[r] == 0) {
            run_rank(&seats[r]);
            const char *text = seats[r].me.failure;
            if (text[0] && write(pipes[1], text, strlen(text)) < 0) _exit(2);
            _exit(text[0] != '\0');
        }
    }
    close(pipes[1]);
    ssize_t got = read(pipes[0], failure, CINCH_ERROR_TEXT - 1);
    failure[got > 0 ? got : 0] = '\0';
    close(pipes[0]);
    for (int r = 0; r < n; r++) {
        int status;
        waitpid(children[r], &status, 0);
        if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
            snprintf(failure, CINCH_ERROR_TEXT, "rank %d died of signal %d", r, WTERMSIG(status));
    }
}

/* The rendezvous ends in the background, so a moment is allowed. */
static int settled_fds(int wanted) {
    int now = net_open_fds();
    for (int i = 0; i < 200 && now != wanted; i++) {
        nanosleep(&(struct timespec){0, 10000000}, NULL);
        now = net_open_fds();
    }
    return now;
}

void net_run(const net_case *c) {
    char why[CINCH_ERROR_TEXT], failure[CINCH_ERROR_TEXT] = "";
    int before = net_open_fds();
    seat *seats = calloc((size_t)c->nranks, sizeof *seats);
    cinch_settings settings;
    ck_assert(cinch_settings_load(&settings, why));
    cinchUniqueId id;
    ck_assert_int_eq(cinch_rendezvous_id(&settings, &id), cinchSuccess);
    for (int r = 0; r < c->nranks; r++) {
        seats[r].me.rank = r;
        seats[r].me.nranks = c->nranks;
        seats[r].me.shared = c->shared;
        seats[r].c = c;
        seats[r].id = id;
    }
    if (c->processes)
        run_processes(seats, c->nranks, failure);
    else
        run_threads(seats, c->nranks, failure);
    free(seats);
    cinch_settings_free(&settings);
    ck_assert_msg(failure[0] == '\0', "%s", failure);
    if (!c->processes) ck_assert_int_eq(settled_fds(before), before);
}

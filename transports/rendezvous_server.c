/* SPDX-License-Identifier: Apache-2.0 */
/* The servers of this process: starting, finding, ending them. */
#include "transports/rendezvous_server.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "transports/io.h"

#define MS ((uint64_t)1000000)
enum { STACK_BYTES = 512 << 10, UNIX_BIND_MS = 5000, BACKLOG = 1024 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static cinch_server *servers;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void before_fork(void) {
    pthread_mutex_lock(&lock);
}
static void after_fork(void) {
    pthread_mutex_unlock(&lock);
}

/* Handlers run before a fork in the reverse order of their registration: the descriptors' lock,
 * which is taken inside ours, has to be registered first. */
static void watch_forks(void) {
    int fd;
    if (!cinch_eventfd(&fd)) cinch_close(fd);
    pthread_atfork(before_fork, after_fork, after_fork);
}

static void wake(const cinch_server *server) {
    uint64_t one = 1;
    if (write(server->wake_fd, &one, sizeof one) < 0) return; /* full: it is awake */
}

/* Locked. A child of fork has its parent's list, but not the threads. */
static cinch_server *find(const uint8_t token[CINCH_TOKEN_BYTES]) {
    int pid = (int)getpid();
    for (cinch_server *server = servers; server; server = server->next)
        if (server->pid == pid && !memcmp(server->token, token, CINCH_TOKEN_BYTES)) return server;
    return NULL;
}

/* Servers of this process that have ended lately. */
enum { OVER = 256 };
static uint8_t over[OVER][CINCH_TOKEN_BYTES];
static unsigned overs;

bool cinch_server_is_over(const uint8_t token[CINCH_TOKEN_BYTES]) {
    bool found = false;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < OVER && i < overs && !found; i++)
        found = !memcmp(over[i], token, CINCH_TOKEN_BYTES);
    pthread_mutex_unlock(&lock);
    return found;
}

/* Locked. */
static void hand_over(cinch_server *server, cinch_conn *conn) {
    conn->next = server->handed;
    server->handed = conn;
    wake(server);
}

static cinch_conn *conn_for_thread(int fd) {
    cinch_conn *conn = calloc(1, sizeof *conn);
    if (!conn) return NULL;
    conn->fd = fd;
    conn->end_fd = -1;
    conn->memory = true;
    conn->state = CINCH_CONN_HELLO;
    conn->out_end = &conn->out;
    strcpy(conn->from, "this process");
    return conn;
}

bool cinch_server_enter(const uint8_t token[CINCH_TOKEN_BYTES], int *fd, cinch_server **server) {
    bool entered = false;
    pthread_once(&fork_once, watch_forks);
    pthread_mutex_lock(&lock);
    cinch_server *found = find(token);
    int pair[2];
    if (found && !cinch_socketpair(pair)) {
        cinch_conn *conn = conn_for_thread(pair[1]);
        if (conn) {
            hand_over(found, conn);
            found->seats_here++;
            *fd = pair[0];
            *server = found;
            entered = true;
        } else {
            cinch_close(pair[0]);
            cinch_close(pair[1]);
        }
    }
    pthread_mutex_unlock(&lock);
    return entered;
}

bool cinch_server_route(const cinch_server *from, const uint8_t token[CINCH_TOKEN_BYTES],
                        cinch_conn *conn) {
    pthread_mutex_lock(&lock);
    cinch_server *found = find(token);
    bool routed = found && found != from;
    if (routed) hand_over(found, conn);
    pthread_mutex_unlock(&lock);
    return routed;
}

cinch_conn *cinch_server_take_handed(cinch_server *server) {
    pthread_mutex_lock(&lock);
    cinch_conn *list = server->handed;
    server->handed = NULL;
    server->cancelled = server->cancel;
    pthread_mutex_unlock(&lock);
    return list;
}

void cinch_server_cancel(const uint8_t token[CINCH_TOKEN_BYTES], const char *why, int more) {
    pthread_mutex_lock(&lock);
    cinch_server *found = find(token);
    if (found) {
        if (!found->cancel && why) {
            snprintf(found->why, sizeof found->why, "%s", why);
            found->more = more;
        }
        found->cancel = true;
        wake(found);
    }
    pthread_mutex_unlock(&lock);
}

void cinch_server_shut(cinch_server *server) {
    pthread_mutex_lock(&lock);
    server->open = false;
    pthread_mutex_unlock(&lock);
}

static void free_server(cinch_server *server) {
    free(server->left_out);
    free(server->heard);
    free(server->quarrel);
    free(server->left_at);
    explicit_bzero(server->secret, sizeof server->secret);
    free(server);
}

bool cinch_server_finish(cinch_server *server) {
    pthread_mutex_lock(&lock);
    bool empty = !server->handed;
    if (empty) {
        for (cinch_server **at = &servers; *at; at = &(*at)->next)
            if (*at == server) {
                *at = server->next;
                break;
            }
        server->ended = true;
        memcpy(over[overs++ % OVER], server->token, CINCH_TOKEN_BYTES);
    }
    bool alone = server->seats_here == 0; /* else the last seat here waits for this thread */
    pthread_mutex_unlock(&lock);
    if (!empty) return false;

    cinch_server_close_listeners(server);
    cinch_rules_end(server);
    while (server->conns) {
        cinch_conn *conn = server->conns;
        server->conns = conn->next;
        cinch_conn_free(conn);
    }
    if (server->verdict) cinch_packet_drop(server->verdict);
    cinch_close(server->wake_fd);

    if (alone) {
        pthread_detach(pthread_self());
        free_server(server);
    }
    return true;
}

void cinch_server_exit(cinch_server *server) {
    if (server->pid != (int)getpid()) return; /* a forked child: it stays the parent's */
    pthread_mutex_lock(&lock);
    bool join = --server->seats_here == 0 && server->ended;
    pthread_mutex_unlock(&lock);
    if (join) {
        pthread_join(server->thread, NULL);
        free_server(server);
    }
}

/* Another job's server may still be about to end: waits a little for the name. */
static cinchResult_t listen_unix(cinch_server *server, uint64_t timeout_ms) {
    struct sockaddr_un address;
    socklen_t length = cinch_meeting_unix(server->token, &address);
    uint64_t wait_ms = timeout_ms < UNIX_BIND_MS ? timeout_ms : UNIX_BIND_MS;
    uint64_t until = cinch_now_ns() + wait_ms * MS;
    int err = cinch_socket(AF_UNIX, SOCK_STREAM, &server->unix_fd);
    if (err) return cinch_fail_errno(err, "no unix socket for the ranks to meet");
    while (bind(server->unix_fd, (struct sockaddr *)&address, length)) {
        err = errno;
        if (err != EADDRINUSE || cinch_now_ns() >= until)
            return cinch_fail_errno(err, "the meeting point's unix socket (%s) cannot be had",
                                    address.sun_path + 1);
        struct timespec rest = {.tv_nsec = 20 * 1000 * 1000};
        nanosleep(&rest, NULL);
    }
    if (listen(server->unix_fd, BACKLOG))
        return cinch_fail_errno(errno, "the meeting point's unix socket cannot listen");
    return cinchSuccess;
}

/* Addresses without a port are had now or never; those with one may become free later. */
static void listen_tcp(cinch_server *server, cinch_meeting *meeting) {
    char text[CINCH_ADDRESS_TEXT];
    int kept = 0;
    if (meeting->kind == CINCH_MEET_REUNION) { /* it has been listening all the time */
        int fd;
        if (!meeting->addresses || cinch_duplicate(meeting->listener, &fd)) return;
        server->listen[0] = meeting->address[0];
        server->listen_fd[0] = fd;
        server->listeners = 1;
        return;
    }
    for (int i = 0; i < meeting->addresses; i++) {
        cinch_address *address = &meeting->address[i];
        bool retry = cinch_address_port(address) != 0;
        int fd = -1, err = cinch_listen(address, BACKLOG, &fd);
        if (err) server->bind_error = err;
        if (err && !retry) {
            cinch_info("the meeting point cannot listen at %s: %s",
                       cinch_address_format(address, text), strerror(err));
            continue;
        }
        server->listen[kept] = meeting->address[kept] = *address;
        server->listen_fd[kept++] = fd;
        server->unbound += fd < 0;
    }
    server->listeners = meeting->addresses = kept;
}

/* The thread takes no signals: they are the program's. */
static int start_thread(cinch_server *server) {
    pthread_attr_t attr;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attr);
    /* Where the program's thread-local data alone is larger than this, the default has to do. */
    int err = pthread_attr_setstacksize(&attr, STACK_BYTES);
    if (!err) err = pthread_create(&server->thread, &attr, cinch_server_run, server);
    if (err) err = pthread_create(&server->thread, NULL, cinch_server_run, server);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err;
}

static cinchResult_t open_server(cinch_server *server, cinch_meeting *meeting,
                                 uint64_t timeout_ms) {
    int err = cinch_eventfd(&server->wake_fd);
    if (err) return cinch_fail_errno(err, "no event descriptor for the meeting point");
    CINCH_TRY(listen_unix(server, timeout_ms));
    listen_tcp(server, meeting);
    /* Under the lock, so that the thread cannot end before its number is stored. */
    pthread_mutex_lock(&lock);
    server->next = servers;
    servers = server;
    err = start_thread(server);
    if (err) servers = server->next;
    pthread_mutex_unlock(&lock);
    if (err) return cinch_fail_errno(err, "no thread for the meeting point");
    return cinchSuccess;
}

cinchResult_t cinch_server_start(cinch_meeting *meeting, uint64_t timeout_ms, const char *note) {
    pthread_once(&fork_once, watch_forks);
    bool again = meeting->kind == CINCH_MEET_REUNION;
    pthread_mutex_lock(&lock);
    cinch_server *before = find(meeting->token);
    bool there = before && (before->open || !again);
    if (before && !there) { /* its failure need not reach more ranks: they come here now */
        before->cancel = true;
        wake(before);
    }
    pthread_mutex_unlock(&lock);
    if (there) return cinchSuccess; /* rank 0 joins twice: the server will say so */

    cinch_server *server = calloc(1, sizeof *server);
    if (!server) return cinch_fail_errno(ENOMEM, "no memory for the meeting point");
    memcpy(server->token, meeting->token, sizeof server->token);
    memcpy(server->secret, meeting->secret, sizeof server->secret);
    snprintf(server->note, sizeof server->note, "%s", note);
    server->kind = meeting->kind;
    server->open = true;
    server->left_out = again ? strdup(meeting->left_out) : NULL;
    server->member = meeting->member;
    server->most = again ? (uint32_t)meeting->nranks : 0;
    server->pid = (int)getpid();
    server->unix_fd = server->wake_fd = -1;
    server->timeout_ms = timeout_ms;
    server->deadline_ns = cinch_now_ns() + timeout_ms * MS;
    cinchResult_t result = again && !server->left_out
                               ? cinch_fail_errno(ENOMEM, "no memory for the meeting point")
                               : open_server(server, meeting, timeout_ms);
    if (result != cinchSuccess) {
        cinch_server_close_listeners(server);
        cinch_close(server->wake_fd);
        free_server(server);
    }
    return result;
}

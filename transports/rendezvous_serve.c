/* SPDX-License-Identifier: Apache-2.0 */
/* The server's thread: accepts, proves, moves frames in and out. */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "transports/io.h"
#include "transports/rendezvous_server.h"

#define MS ((uint64_t)1000000)
enum { BIND_RETRY_MS = 50, SHORTAGE_MS = 100, ACCEPTS_AT_ONCE = 64, READS_AT_ONCE = 16 };

cinch_frame cinch_frame_make(cinch_frame_type type, uint64_t bytes) {
    cinch_frame head = {.magic = htole32(CINCH_FRAME_MAGIC),
                        .type = htole32((uint32_t)type),
                        .bytes = htole64(bytes)};
    return head;
}

cinch_packet *cinch_packet_make(cinch_frame_type type, size_t bytes) {
    cinch_packet *packet = malloc(sizeof *packet + sizeof(cinch_frame) + bytes);
    if (!packet) return NULL;
    cinch_frame head = cinch_frame_make(type, bytes);
    packet->uses = 1;
    packet->bytes = sizeof head + bytes;
    memcpy(packet->data, &head, sizeof head);
    return packet;
}

void cinch_packet_drop(cinch_packet *packet) {
    if (--packet->uses == 0) free(packet);
}

void cinch_conn_free(cinch_conn *conn) {
    cinch_close(conn->fd);
    if (conn->end_fd >= 0) cinch_close(conn->end_fd);
    while (conn->out) {
        cinch_queued *one = conn->out;
        conn->out = one->next;
        cinch_packet_drop(one->packet);
        free(one);
    }
    cinch_proof_wipe(&conn->proof);
    free(conn->body);
    free(conn->hello_body);
    free(conn->part);
    free(conn->sentence);
    free(conn->standing);
    free(conn);
}

void cinch_server_close_listeners(cinch_server *server) {
    cinch_close(server->unix_fd);
    server->unix_fd = -1;
    for (int i = 0; i < server->listeners; i++) cinch_close(server->listen_fd[i]);
    server->listeners = server->unbound = 0;
}

/* Who has proved nothing yet. One that has may take its time to say hello. */
static bool is_stranger(const cinch_conn *conn) {
    return conn->state == CINCH_CONN_PREFACE || conn->state == CINCH_CONN_PROOF;
}

static void welcome(cinch_conn *conn) {
    conn->state = CINCH_CONN_HELLO;
    conn->deadline_ns = 0;
}

/* Closes a connection that has not become a rank. */
static void dismiss(cinch_server *server, cinch_conn *conn, bool warn, const char *why) {
    conn->state = CINCH_CONN_DEAD;
    if (++server->stranger_lines > CINCH_STRANGER_LINES_MAX) return;
    cinch_log(warn ? CINCH_LOG_WARN : CINCH_LOG_INFO,
              "the meeting point closed a connection from %s: %s%s", conn->from, why,
              server->stranger_lines == CINCH_STRANGER_LINES_MAX ? "; more are not reported" : "");
}

/* A connection that can no longer be used. */
static void lost(cinch_server *server, cinch_conn *conn) {
    if (conn->state == CINCH_CONN_SEAT) {
        conn->state = CINCH_CONN_DEAD;
        cinch_rules_lost(server, conn);
    }
    conn->state = CINCH_CONN_DEAD;
}

/* Sends what the socket takes. False: the connection is broken. */
static bool flush(cinch_conn *conn) {
    while (conn->out) {
        cinch_queued *one = conn->out;
        ssize_t n = send(conn->fd, one->packet->data + one->sent, one->packet->bytes - one->sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
        one->sent += (size_t)n;
        if (one->sent < one->packet->bytes) continue;
        conn->out = one->next;
        if (!conn->out) conn->out_end = &conn->out;
        cinch_packet_drop(one->packet);
        free(one);
    }
    if (conn->state == CINCH_CONN_CLOSING && !conn->write_closed) {
        shutdown(conn->fd, SHUT_WR);
        conn->write_closed = true;
    }
    return true;
}

void cinch_conn_send(cinch_conn *conn, cinch_packet *packet) {
    cinch_queued *one = malloc(sizeof *one);
    if (!one) { /* the rank sees its connection end */
        shutdown(conn->fd, SHUT_RDWR);
        return;
    }
    *one = (cinch_queued){.packet = packet};
    packet->uses++;
    *conn->out_end = one;
    conn->out_end = &one->next;
    flush(conn); /* a broken connection shows up when it is read */
}

/* A whole preface is here: on with the proof, or to the server that it asks for. */
static void judge_preface(cinch_server *server, cinch_conn *conn) {
    uint8_t token[CINCH_TOKEN_BYTES];
    if (!cinch_preface_read(conn->preface, token))
        dismiss(server, conn, false, "it does not speak cinch's protocol");
    else if (memcmp(token, server->token, sizeof token) != 0)
        conn->state = CINCH_CONN_ASTRAY;
    else if (!cinch_handshake_available())
        welcome(conn);
    else if (cinch_proof_begin(&conn->proof, false, server->secret, server->token,
                               CINCH_TOKEN_BYTES))
        conn->state = CINCH_CONN_PROOF;
    else
        dismiss(server, conn, true, "this side cannot make a proof");
}

static void hear_preface(cinch_server *server, cinch_conn *conn) {
    ssize_t n = recv(conn->fd, conn->preface + conn->preface_got,
                     sizeof conn->preface - conn->preface_got, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        dismiss(server, conn, false, "it hung up");
        return;
    }
    conn->preface_got += (size_t)n;
    if (conn->preface_got == sizeof conn->preface) judge_preface(server, conn);
}

static void hear_proof(cinch_server *server, cinch_conn *conn) {
    cinch_proof_state state = cinch_proof_step(&conn->proof, conn->fd);
    conn->want_write = state == CINCH_PROOF_WRITE;
    if (state == CINCH_PROOF_READ || state == CINCH_PROOF_WRITE) return;
    cinch_proof_wipe(&conn->proof);
    if (state == CINCH_PROOF_HOLDS)
        welcome(conn);
    else if (state == CINCH_PROOF_REFUSED)
        dismiss(server, conn, true, "it does not know the secret");
    else if (state == CINCH_PROOF_FOREIGN)
        dismiss(server, conn, false, "it does not speak cinch's protocol");
    else
        dismiss(server, conn, false, "it hung up during the handshake");
}

/* Checks a whole head and makes room for the body. */
static bool begin_body(cinch_server *server, cinch_conn *conn) {
    conn->head.magic = le32toh(conn->head.magic);
    conn->head.type = le32toh(conn->head.type);
    conn->head.bytes = le64toh(conn->head.bytes);
    if (!cinch_frame_allowed(conn)) return false;
    conn->body = malloc(conn->head.bytes + 1);
    conn->body_got = 0;
    server->starved |= !conn->body && !conn->memory; /* a thread of this process tells it itself */
    return conn->body != NULL;
}

/* One read of a frame: false where there is nothing more to read now. */
static bool hear_frame(cinch_server *server, cinch_conn *conn) {
    bool in_head = conn->head_got < sizeof conn->head;
    unsigned char *to =
        in_head ? (unsigned char *)&conn->head + conn->head_got : conn->body + conn->body_got;
    size_t room =
        in_head ? sizeof conn->head - conn->head_got : (size_t)conn->head.bytes - conn->body_got;
    ssize_t n = room ? recv(conn->fd, to, room, MSG_DONTWAIT) : 0;
    if (n < 0 && errno == EINTR) return true;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
    if (n < 0 || (n == 0 && room)) {
        lost(server, conn);
        return false;
    }
    if (in_head) {
        conn->head_got += (size_t)n;
        if (conn->head_got < sizeof conn->head) return true;
        if (!begin_body(server, conn)) {
            cinch_warn("the meeting point got a frame that makes no sense from %s", conn->from);
            lost(server, conn);
            return false;
        }
    } else {
        conn->body_got += (size_t)n;
    }
    if (conn->body_got < conn->head.bytes) return true;
    conn->body[conn->body_got] = 0;
    cinch_rules_frame(server, conn);
    free(conn->body);
    conn->body = NULL;
    conn->head_got = 0;
    return true;
}

/* Reads and forgets what a rank still says after the verdict. */
static void hear_rest(cinch_conn *conn) {
    char waste[512];
    ssize_t n = recv(conn->fd, waste, sizeof waste, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) conn->state = CINCH_CONN_DEAD;
}

static void serve(cinch_server *server, cinch_conn *conn, short events) {
    bool broken = (events & POLLOUT) && !flush(conn);
    if (conn->state == CINCH_CONN_PREFACE)
        hear_preface(server, conn);
    else if (conn->state == CINCH_CONN_PROOF)
        hear_proof(server, conn);
    else if (conn->state == CINCH_CONN_CLOSING)
        hear_rest(conn);
    else if (broken || (events & (POLLIN | POLLHUP | POLLERR)))
        for (int i = 0; i < READS_AT_ONCE; i++) {
            if (conn->state != CINCH_CONN_HELLO && conn->state != CINCH_CONN_SEAT) break;
            if (!hear_frame(server, conn)) break;
        }
    /* A rank that has said goodbye closes its end: that was read first. */
    if (broken) lost(server, conn);
}

/* The stranger that has been here longest makes room: an honest one needs milliseconds. */
static void make_room(cinch_server *server) {
    cinch_conn *oldest = NULL;
    for (cinch_conn *conn = server->conns; conn; conn = conn->next)
        if (is_stranger(conn) && (!oldest || conn->deadline_ns <= oldest->deadline_ns))
            oldest = conn;
    if (oldest) dismiss(server, oldest, false, "too many others wait");
}

static void add_conn(cinch_server *server, cinch_conn *conn) {
    if (is_stranger(conn)) {
        if (server->strangers >= CINCH_STRANGERS_MAX) make_room(server);
        server->strangers++;
        conn->deadline_ns = cinch_now_ns() + cinch_rendezvous_tune.stranger_ms * MS;
    }
    conn->next = server->conns;
    server->conns = conn;
}

static void accept_from(cinch_server *server, int listener, bool tcp) {
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        int fd, err = cinch_accept(listener, &fd);
        if (err == EINTR || err == ECONNABORTED) continue;
        if (err && err != EAGAIN && err != EWOULDBLOCK)
            server->accept_after_ns = cinch_now_ns() + SHORTAGE_MS * MS;
        if (err) return;
        cinch_address peer = {0};
        socklen_t length = sizeof peer;
        cinch_conn *conn = calloc(1, sizeof *conn);
        if (!conn || (!tcp && cinch_peer_is_us(fd))) {
            free(conn);
            cinch_close(fd);
            continue;
        }
        conn->fd = fd;
        conn->pid = tcp ? 0 : cinch_peer_pid(fd);
        conn->end_fd = -1;
        conn->out_end = &conn->out;
        strcpy(conn->from, "this host");
        if (tcp) {
            cinch_socket_tune(fd);
            if (!getpeername(fd, &peer.any, &length)) cinch_address_format(&peer, conn->from);
        }
        add_conn(server, conn);
    }
}

static void bind_again(cinch_server *server) {
    char text[CINCH_ADDRESS_TEXT];
    for (int i = 0; i < server->listeners; i++) {
        if (server->listen_fd[i] >= 0) continue;
        int err = cinch_listen(&server->listen[i], 1024, &server->listen_fd[i]);
        if (!err) {
            server->unbound--;
            cinch_info("the meeting point listens at %s",
                       cinch_address_format(&server->listen[i], text));
        } else {
            server->listen_fd[i] = -1;
            server->bind_error = err;
        }
    }
}

/* Frees the dead, and moves those that ask for another server of this process: communicators that
 * form at the same time share a port. */
static void reap(cinch_server *server) {
    server->strangers = 0;
    for (cinch_conn **at = &server->conns; *at;) {
        cinch_conn *conn = *at;
        server->strangers += is_stranger(conn);
        if (conn->state != CINCH_CONN_DEAD && conn->state != CINCH_CONN_ASTRAY) {
            at = &conn->next;
            continue;
        }
        uint8_t token[CINCH_TOKEN_BYTES];
        *at = conn->next;
        cinch_preface_read(conn->preface, token);
        if (conn->state == CINCH_CONN_DEAD || !cinch_server_route(server, token, conn))
            cinch_conn_free(conn);
    }
}

static void check_strangers(cinch_server *server, uint64_t now) {
    for (cinch_conn *conn = server->conns; conn; conn = conn->next) {
        if (!conn->deadline_ns || now < conn->deadline_ns) continue;
        if (is_stranger(conn))
            dismiss(server, conn, false, "it stayed silent");
        else if (conn->state == CINCH_CONN_CLOSING)
            conn->state = CINCH_CONN_DEAD;
    }
}

static int timeout_of(const cinch_server *server, uint64_t now) {
    uint64_t next = cinch_rules_next(server);
    for (const cinch_conn *conn = server->conns; conn; conn = conn->next)
        if (conn->deadline_ns && (!next || conn->deadline_ns < next)) next = conn->deadline_ns;
    if (server->unbound && (!next || next > now + BIND_RETRY_MS * MS))
        next = now + BIND_RETRY_MS * MS;
    if (server->accept_after_ns && (!next || next > server->accept_after_ns))
        next = server->accept_after_ns;
    if (!next) return -1;
    if (next <= now) return 0;
    uint64_t ms = (next - now + MS - 1) / MS;
    return ms > 60000 ? 60000 : (int)ms;
}

/* Who is polled, in the order of slots: the wake-up, the listeners, the connections. */
typedef struct watch {
    struct pollfd *fds;
    size_t room, count;
} watch;

static size_t watch_one(watch *w, int fd, short events) {
    if (w->count == w->room) {
        size_t room = w->room ? w->room * 2 : 64;
        struct pollfd *fds = realloc(w->fds, room * sizeof *fds);
        if (!fds) return SIZE_MAX; /* looked at when memory is there again */
        w->fds = fds;
        w->room = room;
    }
    w->fds[w->count] = (struct pollfd){.fd = fd, .events = events};
    return w->count++;
}

/* Ranks watch one another's processes, but those that have left watch no more, and a child of one
 * that has died may hold its connection. From the first goodbye on this thread looks, too. Where
 * there are no pidfds all stays as it is. */
static void watch_process(const cinch_server *server, cinch_conn *conn) {
    if (!server->gone || conn->state != CINCH_CONN_SEAT || !conn->pid || conn->end_fd >= 0) return;
    int err = cinch_pidfd(conn->pid, &conn->end_fd);
    if (err) conn->end_fd = -1;
    if (err == ESRCH) shutdown(conn->fd, SHUT_RDWR); /* over: what it said is read, then the end */
    conn->pid = 0;
}

static void watch_all(watch *w, cinch_server *server, uint64_t now) {
    w->count = 0;
    watch_one(w, server->wake_fd, POLLIN);
    bool accepting = now >= server->accept_after_ns;
    if (accepting) server->accept_after_ns = 0;
    watch_one(w, accepting ? server->unix_fd : -1, POLLIN);
    for (int i = 0; i < server->listeners; i++)
        watch_one(w, accepting ? server->listen_fd[i] : -1, POLLIN);
    for (cinch_conn *conn = server->conns; conn; conn = conn->next) {
        short events = conn->want_write ? POLLOUT : POLLIN;
        if (conn->out) events |= POLLOUT;
        conn->slot = watch_one(w, conn->fd, events);
        watch_process(server, conn);
        conn->end_slot = watch_one(w, conn->end_fd, POLLIN);
    }
}

static short came(const watch *w, size_t slot) {
    return slot < w->count ? w->fds[slot].revents : 0;
}

static void take_handed(cinch_server *server) {
    uint64_t waste;
    while (read(server->wake_fd, &waste, sizeof waste) > 0) continue;
    for (cinch_conn *conn = cinch_server_take_handed(server), *next; conn; conn = next) {
        next = conn->next;
        if (!conn->memory) conn->state = CINCH_CONN_PREFACE;
        add_conn(server, conn);
        if (!conn->memory) judge_preface(server, conn);
    }
}

/* Its process is over: a last goodbye is read, and then the end. */
static void end_seat(cinch_conn *conn) {
    shutdown(conn->fd, SHUT_RDWR);
    cinch_close(conn->end_fd);
    conn->end_fd = -1;
}

/* Everything that is ready, once. */
static void serve_all(cinch_server *server, const watch *w) {
    /* What is accepted in this round is at the list's head and has not been polled. */
    cinch_conn *polled = server->conns;
    if (came(w, 0)) take_handed(server);
    if (came(w, 1)) accept_from(server, server->unix_fd, false);
    for (int i = 0; i < server->listeners; i++)
        if (came(w, 2 + (size_t)i)) accept_from(server, server->listen_fd[i], true);
    for (cinch_conn *conn = polled; conn; conn = conn->next) {
        short events = came(w, conn->slot);
        if (events && conn->state != CINCH_CONN_DEAD) serve(server, conn, events);
        if (came(w, conn->end_slot)) end_seat(conn);
    }
}

void *cinch_server_run(void *argument) {
    cinch_server *server = argument;
    watch w = {0};
    uint64_t bind_ns = 0;
    for (;;) {
        uint64_t now = cinch_now_ns();
        watch_all(&w, server, now);
        /* Without memory for the table the wake-up alone is watched, for a short while. */
        int ms = w.count ? timeout_of(server, now) : BIND_RETRY_MS;
        if (poll(w.fds, w.count, ms) < 0) w.count = 0;
        serve_all(server, &w);
        now = cinch_now_ns();
        if (server->unbound && now >= bind_ns) {
            bind_again(server);
            bind_ns = now + BIND_RETRY_MS * MS;
        }
        check_strangers(server, now);
        cinch_rules_time(server, now);
        if (cinch_rules_done(server, now) && cinch_server_finish(server)) break;
        reap(server);
    }
    free(w.fds);
    return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Connects the pairs of ranks that talk over tcp: every rank listens, the lower of a pair connects,
 * and both prove that they know the communicator's secret. One loop serves all sockets, so that a
 * stranger who connects and says nothing, or anything, holds nobody up. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "transports/address.h"
#include "transports/io.h"
#include "transports/tcp.h"

#define STRANGERS 64 /* accepted connections that have not said who they are */
#define ATTEMPTS 5   /* to connect to one peer */
#define RETRY_NS 200000000u
#define TICK_MS 100

typedef enum { UNUSED, WAITING, CONNECTING, GREETING, PROVING } phase;

typedef struct conn {
    phase phase;
    int fd;
    int peer; /* -1: has not said */
    bool outgoing;
    int attempts;
    uint64_t retry_at; /* outgoing */
    uint64_t since;    /* incoming: when it was accepted */
    size_t moved;      /* of the hello */
    cinch_tcp_hello hello;
    short events;
    cinch_proof proof;
} conn;

typedef struct connecting {
    const cinch_opening *job;
    int listener;
    int missing; /* pairs without a link */
    uint64_t deadline;
    const uint8_t *secret; /* NULL: no proof */
    cinch_tcp_card *cards; /* [nranks] */
    int conns;
    conn *conn;          /* one per peer above us, then STRANGERS and as many as are below us */
    struct pollfd *poll; /* [conns + 2] */
} connecting;

static const char *tcp_unusable(void) {
    return cinch_handshake_available()
               ? NULL
               : "built without libsodium, so ranks could not prove to each "
                 "other who they are";
}

/* ---- one connection ---- */

static void drop(conn *k) {
    cinch_close(k->fd);
    cinch_proof_wipe(&k->proof);
    k->phase = UNUSED;
    k->fd = -1;
}

/* A connection of ours that came to nothing is tried again; a stranger's is forgotten. */
static cinchResult_t give_up(connecting *c, conn *k, const char *reason) {
    bool outgoing = k->outgoing;
    drop(k);
    if (!outgoing) {
        cinch_debug("rank %d dropped a connection: %s", c->job->rank, reason);
        return cinchSuccess;
    }
    if (++k->attempts < ATTEMPTS) {
        k->phase = WAITING;
        k->retry_at = cinch_now_ns() + RETRY_NS;
        return cinchSuccess;
    }
    cinch_address address;
    char text[CINCH_ADDRESS_TEXT] = "an unknown address";
    if (cinch_address_unpack(c->cards[k->peer].address, &address))
        cinch_address_format(&address, text);
    return cinch_fail(cinchSystemError, "rank %d cannot connect to rank %d at %s: %s", c->job->rank,
                      k->peer, text, reason);
}

/* Both sides know who the other is: the socket becomes the pair's link. */
static cinchResult_t complete(connecting *c, conn *k) {
    if (c->job->net->link[k->peer]) { /* the same peer twice: it broke off and came again */
        drop(k);
        return cinchSuccess;
    }
    cinch_link *link = cinch_tcp_link_new(k->fd, c->job->rank, k->peer, c->job->options->checksum);
    if (!link)
        return cinch_fail(cinchSystemError, "rank %d is out of memory while connecting",
                          c->job->rank);
    c->job->net->link[k->peer] = link;
    c->missing--;
    k->fd = -1;
    drop(k);
    return cinchSuccess;
}

static cinchResult_t prove(connecting *c, conn *k) {
    switch (cinch_proof_step(&k->proof, k->fd)) {
    case CINCH_PROOF_HOLDS:
        return complete(c, k);
    case CINCH_PROOF_READ:
        k->events = POLLIN;
        return cinchSuccess;
    case CINCH_PROOF_WRITE:
        k->events = POLLOUT;
        return cinchSuccess;
    case CINCH_PROOF_REFUSED:
        return give_up(c, k, "the secrets of the communicator differ");
    case CINCH_PROOF_FOREIGN:
        return give_up(c, k, "what is there is no rank of this communicator");
    default:
        return give_up(c, k, "the connection broke during the handshake");
    }
}

static cinchResult_t begin_proof(connecting *c, conn *k) {
    if (!c->secret) return complete(c, k);
    int lower = k->outgoing ? c->job->rank : k->peer, upper = k->outgoing ? k->peer : c->job->rank;
    cinch_tcp_pair about = {CINCH_TCP_MAGIC,
                            {c->cards[lower].cookie, c->cards[upper].cookie},
                            (uint32_t)lower,
                            (uint32_t)upper};
    if (!cinch_proof_begin(&k->proof, k->outgoing, c->secret, &about, sizeof about))
        return give_up(c, k, "no random numbers");
    k->phase = PROVING;
    return prove(c, k);
}

static cinchResult_t say_hello(connecting *c, conn *k) {
    ssize_t n = send(k->fd, (char *)&k->hello + k->moved, sizeof k->hello - k->moved,
                     MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != EINTR) return give_up(c, k, strerror(errno));
    if (n > 0) k->moved += (size_t)n;
    k->events = POLLOUT;
    return k->moved == sizeof k->hello ? begin_proof(c, k) : cinchSuccess;
}

static cinchResult_t hear_hello(connecting *c, conn *k) {
    ssize_t n = recv(k->fd, (char *)&k->hello + k->moved, sizeof k->hello - k->moved, MSG_DONTWAIT);
    if (n == 0) return give_up(c, k, "it closed without a word");
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? cinchSuccess : give_up(c, k, strerror(errno));
    k->moved += (size_t)n;
    if (k->moved < sizeof k->hello) return cinchSuccess;
    uint32_t peer = k->hello.rank;
    if (k->hello.magic != CINCH_TCP_MAGIC || k->hello.cookie != c->cards[c->job->rank].cookie ||
        peer >= (uint32_t)c->job->rank || !c->job->want[peer] || c->job->net->link[peer])
        return give_up(c, k, "it is no rank that was expected");
    k->peer = (int)peer;
    return begin_proof(c, k);
}

static cinchResult_t start(connecting *c, conn *k) {
    cinch_address address;
    if (!cinch_address_unpack(c->cards[k->peer].address, &address)) {
        k->attempts = ATTEMPTS;
        return give_up(c, k, "its address is of no known kind");
    }
    int err = cinch_socket(address.any.sa_family, SOCK_STREAM, &k->fd);
    if (err) return give_up(c, k, strerror(err));
    cinch_socket_tune(k->fd);
    k->phase = CONNECTING;
    k->events = POLLOUT;
    k->moved = 0;
    k->hello =
        (cinch_tcp_hello){CINCH_TCP_MAGIC, c->cards[k->peer].cookie, (uint32_t)c->job->rank, 0};
    socklen_t length = address.any.sa_family == AF_INET6 ? sizeof address.v6 : sizeof address.v4;
    if (connect(k->fd, &address.any, length) == 0 || errno == EINPROGRESS || errno == EINTR)
        return cinchSuccess;
    return give_up(c, k, strerror(errno));
}

static cinchResult_t connected(connecting *c, conn *k) {
    int err = 0;
    socklen_t length = sizeof err;
    if (getsockopt(k->fd, SOL_SOCKET, SO_ERROR, &err, &length) != 0) err = errno;
    if (err) return give_up(c, k, strerror(err));
    k->phase = GREETING;
    return say_hello(c, k);
}

static cinchResult_t serve(connecting *c, conn *k) {
    switch (k->phase) {
    case CONNECTING:
        return connected(c, k);
    case GREETING:
        return k->outgoing ? say_hello(c, k) : hear_hello(c, k);
    case PROVING:
        return prove(c, k);
    default:
        return cinchSuccess;
    }
}

/* ---- all of them ---- */

/* A place for a new connection: an unused one, or that of who has got least far, longest ago. */
static conn *place(connecting *c) {
    conn *oldest = NULL;
    for (int i = 0; i < c->conns; i++) {
        conn *k = &c->conn[i];
        if (k->outgoing) continue;
        if (k->phase == UNUSED) return k;
        if (!oldest || k->phase < oldest->phase ||
            (k->phase == oldest->phase && k->since < oldest->since))
            oldest = k;
    }
    drop(oldest);
    return oldest;
}

static void accept_all(connecting *c) {
    int fd;
    while (cinch_accept(c->listener, &fd) == 0) {
        cinch_socket_tune(fd);
        conn *k = place(c);
        memset(k, 0, sizeof *k);
        k->phase = GREETING;
        k->fd = fd;
        k->peer = -1;
        k->events = POLLIN;
        k->since = cinch_now_ns();
    }
}

static cinchResult_t too_late(const connecting *c) {
    int peer = 0;
    while (!c->job->want[peer] || c->job->net->link[peer]) peer++;
    return cinch_fail(cinchRemoteError,
                      "rank %d has no connection to rank %d after %lld ms (CINCH_INIT_TIMEOUT_MS)",
                      c->job->rank, peer, (long long)c->job->settings->init_timeout_ms);
}

/* One round: waits until a socket is ready or a moment has passed, and serves those that are. */
static cinchResult_t serve_all(connecting *c) {
    uint64_t now = cinch_now_ns();
    if (now >= c->deadline) return too_late(c);
    struct pollfd *p = c->poll;
    p[0] = (struct pollfd){.fd = c->listener, .events = POLLIN};
    p[1] = (struct pollfd){.fd = cinch_rendezvous_fd(c->job->rendezvous), .events = POLLIN};
    for (int i = 0; i < c->conns; i++) {
        conn *k = &c->conn[i];
        if (k->phase == WAITING && now >= k->retry_at) CINCH_TRY(start(c, k));
        bool has_socket = k->phase != UNUSED && k->phase != WAITING;
        p[2 + i] = (struct pollfd){.fd = has_socket ? k->fd : -1, .events = k->events};
    }
    int ready = poll(p, (nfds_t)c->conns + 2, TICK_MS);
    CINCH_TRY(cinch_rendezvous_cancelled(c->job->rendezvous));
    if (ready == 0 || p[1].revents) CINCH_TRY(cinch_rendezvous_check(c->job->rendezvous));
    if (ready <= 0) return cinchSuccess;
    for (int i = 0; i < c->conns; i++)
        if (p[2 + i].revents) CINCH_TRY(serve(c, &c->conn[i]));
    if (p[0].revents) accept_all(c);
    return cinchSuccess;
}

/* Where peers can reach us: loopback where all who will are on this host. */
static cinchResult_t listen_here(connecting *c, cinch_tcp_card *mine) {
    cinch_address address = {
        .v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
    bool below = false, beyond = c->job->settings->hostid[0] != '\0';
    for (int r = 0; r < c->job->rank; r++) {
        below |= c->job->want[r];
        beyond |= c->job->want[r] && !c->job->net->local[r];
    }
    if (!below) return cinchSuccess;
    int count = 0;
    if (beyond && cinch_rendezvous_may_listen(c->job->rendezvous))
        CINCH_TRY(cinch_addresses_local(c->job->settings, &address, 1, &count));
    int err = cinch_listen(&address, c->job->nranks + STRANGERS, &c->listener);
    if (err) {
        char text[CINCH_ADDRESS_TEXT];
        return cinch_fail_errno(err, "rank %d cannot listen at %s", c->job->rank,
                                cinch_address_format(&address, text));
    }
    mine->listening = 1;
    cinch_address_pack(&address, mine->address);
    return cinchSuccess;
}

static cinchResult_t prepare(connecting *c) {
    int above = 0, below = 0;
    for (int r = 0; r < c->job->nranks; r++) {
        above += r > c->job->rank && c->job->want[r];
        below += r < c->job->rank && c->job->want[r];
    }
    c->missing = above + below;
    c->conns = above + below + STRANGERS;
    c->cards = calloc((size_t)c->job->nranks, sizeof *c->cards);
    c->conn = calloc((size_t)c->conns, sizeof *c->conn);
    c->poll = calloc((size_t)c->conns + 2, sizeof *c->poll);
    if (!c->cards || !c->conn || !c->poll)
        return cinch_fail(cinchSystemError, "rank %d is out of memory while connecting",
                          c->job->rank);
    for (int i = 0; i < c->conns; i++) c->conn[i].fd = -1;
    conn *k = c->conn;
    for (int r = c->job->rank + 1; r < c->job->nranks; r++) {
        if (!c->job->want[r]) continue;
        k->phase = WAITING;
        k->peer = r;
        k->outgoing = true;
        k++;
    }
    return cinchSuccess;
}

static cinchResult_t connect_all(connecting *c) {
    cinch_tcp_card mine = {0};
    CINCH_TRY(prepare(c));
    CINCH_TRY(cinch_random(&mine.cookie, sizeof mine.cookie));
    CINCH_TRY(listen_here(c, &mine));
    CINCH_TRY(cinch_rendezvous_allgather(c->job->rendezvous, &mine, sizeof mine, c->cards));
    c->deadline = cinch_now_ns() + (uint64_t)c->job->settings->init_timeout_ms * 1000000;
    while (c->missing > 0) CINCH_TRY(serve_all(c));
    return cinchSuccess;
}

static cinchResult_t tcp_open(const cinch_opening *job) {
    connecting c = {.job = job, .listener = -1};
    if (cinch_handshake_available()) c.secret = cinch_rendezvous_secret(job->rendezvous);
    cinchResult_t result = connect_all(&c);
    cinch_close(c.listener);
    for (int i = 0; c.conn && i < c.conns; i++) drop(&c.conn[i]);
    free(c.cards);
    free(c.conn);
    free(c.poll);
    return result;
}

const cinch_transport cinch_transport_tcp = {"tcp", tcp_unusable, tcp_open};

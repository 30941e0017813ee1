/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors exchanged between the ranks of a host, over unix sockets made for it. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "transports/io.h"
#include "transports/rendezvous.h"
#include "transports/rendezvous_wire.h"

#define MS ((uint64_t)1000000)
enum { WORD_BYTES = 16, TICK_MS = 100 };

/* What the all-gather carries: where a rank listens, and the word without which it does not. */
typedef struct card {
    uint8_t name[WORD_BYTES], word[WORD_BYTES];
} card;

/* What goes beside a descriptor. */
typedef struct note {
    uint8_t word[WORD_BYTES]; /* the receiver's */
    uint32_t rank;            /* the sender's */
} note;

typedef struct exchange {
    cinch_rendezvous *seat;
    int rank, nranks, fd, listener;
    const uint8_t *local;
    int *fds;
    card *cards;
    uint8_t *reached; /* [n][n]: row r: whom r has connected to */
    int *out;         /* [n]: our connections to higher ranks */
    int *in;          /* [n]: accepted ones that have not spoken yet */
    int awaited;      /* descriptors that are still to come */
    struct pollfd *polled;
    uint64_t deadline_ns, timeout_ms;
} exchange;

static socklen_t unix_name(const uint8_t name[WORD_BYTES], struct sockaddr_un *address) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    char *text = address->sun_path + 1;
    int used = snprintf(text, 16, "cinch-fd-");
    for (int i = 0; i < WORD_BYTES; i++)
        used += snprintf(text + used, sizeof address->sun_path - 1 - (size_t)used, "%02x", name[i]);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)used);
}

static cinchResult_t open_listener(exchange *x, card *mine) {
    struct sockaddr_un address;
    CINCH_TRY(cinch_random(mine, sizeof *mine));
    socklen_t length = unix_name(mine->name, &address);
    int err = cinch_socket(AF_UNIX, SOCK_STREAM, &x->listener);
    if (!err &&
        (bind(x->listener, (struct sockaddr *)&address, length) || listen(x->listener, x->nranks)))
        err = errno;
    return err ? cinch_fail_errno(err, "no unix socket to pass descriptors through") : cinchSuccess;
}

/* Connects to a higher rank: -1 where its socket is not to be seen from here (another network
 * namespace) or another user's. */
static int connect_to(const exchange *x, int peer) {
    struct sockaddr_un address;
    socklen_t length = unix_name(x->cards[peer].name, &address);
    int fd;
    if (cinch_socket(AF_UNIX, SOCK_STREAM, &fd)) return -1;
    while (connect(fd, (struct sockaddr *)&address, length)) {
        bool full = errno == EAGAIN || errno == EINTR;
        if (!full || cinch_now_ns() >= x->deadline_ns) {
            cinch_close(fd);
            return -1;
        }
        struct timespec rest = {.tv_nsec = 1000 * 1000};
        nanosleep(&rest, NULL);
    }
    note n = {.rank = (uint32_t)x->rank};
    memcpy(n.word, x->cards[peer].word, sizeof n.word);
    if (cinch_peer_is_us(fd) || cinch_send_fd(fd, &n, sizeof n, x->fd)) {
        cinch_close(fd);
        return -1;
    }
    return fd;
}

/* Notes a descriptor that came beside a note; false where it is not what was asked for. */
static bool keep(exchange *x, const note *n, int got, bool from_lower) {
    bool good = got >= 0 && n->rank < (uint32_t)x->nranks && (int)n->rank != x->rank &&
                ((int)n->rank < x->rank) == from_lower && x->local[n->rank] &&
                x->fds[n->rank] < 0 && !memcmp(n->word, x->cards[x->rank].word, sizeof n->word);
    if (good && from_lower)
        good = x->reached[(size_t)n->rank * (size_t)x->nranks + (size_t)x->rank];
    if (good) {
        x->fds[n->rank] = got;
        x->awaited--;
    } else if (got >= 0) {
        close(got);
    }
    return good;
}

/* An accepted connection speaks: answered with our descriptor, then closed. */
static cinchResult_t answer(exchange *x, int *slot) {
    note n;
    int got, fd = *slot;
    int err = cinch_recv_fd(fd, &n, sizeof n, &got);
    if (err == EAGAIN || err == EWOULDBLOCK) return cinchSuccess;
    if (!err && keep(x, &n, got, true)) {
        uint32_t peer = n.rank;
        memcpy(n.word, x->cards[peer].word, sizeof n.word);
        n.rank = (uint32_t)x->rank;
        err = cinch_send_fd(fd, &n, sizeof n, x->fd);
        if (err == EPIPE || err == ECONNRESET)
            return cinch_fail(cinchRemoteError, "rank %u broke off while descriptors were passed",
                              peer);
        if (err) return cinch_fail_errno(err, "cannot pass a descriptor to rank %u", peer);
    } /* else a stranger, whom nobody minds */
    cinch_close(fd);
    *slot = -1;
    return cinchSuccess;
}

/* A higher rank answers. */
static cinchResult_t take_answer(exchange *x, int peer) {
    note n;
    int got, err = cinch_recv_fd(x->out[peer], &n, sizeof n, &got);
    if (err == EAGAIN || err == EWOULDBLOCK) return cinchSuccess;
    bool good = !err && keep(x, &n, got, false) && (int)n.rank == peer;
    cinch_close(x->out[peer]);
    x->out[peer] = -1;
    if (good) return cinchSuccess;
    return cinch_fail(cinchRemoteError, "rank %d broke off while descriptors were passed", peer);
}

static void accept_all(exchange *x) {
    for (int slot = 0; slot < x->nranks; slot++) {
        if (x->in[slot] >= 0) continue;
        int fd;
        if (cinch_accept(x->listener, &fd)) return;
        if (cinch_peer_is_us(fd))
            cinch_close(fd);
        else
            x->in[slot] = fd;
    }
}

/* One round of waiting and working. polled: the seat, the listener, out[n], in[n]. */
static cinchResult_t turn(exchange *x) {
    size_t n = (size_t)x->nranks;
    struct pollfd *p = x->polled;
    p[0] = (struct pollfd){.fd = cinch_rendezvous_fd(x->seat), .events = POLLIN};
    p[1] = (struct pollfd){.fd = x->listener, .events = POLLIN};
    for (size_t r = 0; r < n; r++) {
        p[2 + r] = (struct pollfd){.fd = x->out[r], .events = POLLIN};
        p[2 + n + r] = (struct pollfd){.fd = x->in[r], .events = POLLIN};
    }
    uint64_t now = cinch_now_ns();
    if (now >= x->deadline_ns)
        return cinch_fail(cinchRemoteError,
                          "%d ranks of this host did not pass a descriptor within "
                          "%llu ms",
                          x->awaited, (unsigned long long)x->timeout_ms);
    uint64_t left_ms = (x->deadline_ns - now) / MS + 1;
    if (poll(p, 2 + 2 * n, left_ms < TICK_MS ? (int)left_ms : TICK_MS) <= 0)
        return cinch_rendezvous_cancelled(x->seat);
    if (p[1].revents) accept_all(x);
    for (size_t r = 0; r < n; r++) {
        if (p[2 + r].revents) CINCH_TRY(take_answer(x, (int)r));
        if (p[2 + n + r].revents) CINCH_TRY(answer(x, &x->in[r]));
    }
    /* Last: what peers have sent counts even where they have failed since. */
    return p[0].revents ? cinch_rendezvous_check(x->seat) : cinchSuccess;
}

static cinchResult_t run(exchange *x) {
    size_t n = (size_t)x->nranks;
    card mine;
    memset(&mine, 0, sizeof mine);
    for (size_t r = 0; r < n; r++)
        if (x->local[r] && (int)r != x->rank && x->listener < 0) CINCH_TRY(open_listener(x, &mine));
    CINCH_TRY(cinch_rendezvous_allgather(x->seat, &mine, sizeof mine, x->cards));
    uint8_t *row = calloc(n, 1);
    if (!row) return cinch_fail_errno(ENOMEM, "no memory to pass descriptors");
    for (size_t r = (size_t)x->rank + 1; r < n; r++)
        if (x->local[r]) row[r] = (x->out[r] = connect_to(x, (int)r)) >= 0;
    /* So that a rank does not wait for one that cannot reach it. */
    cinchResult_t result = cinch_rendezvous_allgather(x->seat, row, n, x->reached);
    free(row);
    if (result != cinchSuccess) return result;
    for (size_t r = 0; r < n; r++)
        x->awaited += (int)r > x->rank   ? x->out[r] >= 0
                      : (int)r < x->rank ? x->local[r] && x->reached[r * n + (size_t)x->rank]
                                         : 0;
    while (x->awaited > 0) CINCH_TRY(turn(x));
    return cinchSuccess;
}

cinchResult_t cinch_rendezvous_share_fd(cinch_rendezvous *seat, const uint8_t *local, int fd,
                                        int *fds) {
    exchange x = {.seat = seat, .fd = fd, .local = local, .fds = fds, .listener = -1};
    cinch_rendezvous_place(seat, &x.rank, &x.nranks, &x.timeout_ms);
    size_t n = (size_t)x.nranks;
    x.deadline_ns = cinch_now_ns() + x.timeout_ms * MS;
    x.cards = malloc(n * sizeof *x.cards);
    x.reached = malloc(n * n);
    x.out = malloc(n * sizeof *x.out);
    x.in = malloc(n * sizeof *x.in);
    x.polled = malloc((2 + 2 * n) * sizeof *x.polled);
    bool room = x.cards && x.reached && x.out && x.in && x.polled;
    for (size_t r = 0; r < n; r++) {
        fds[r] = -1;
        if (x.out) x.out[r] = -1;
        if (x.in) x.in[r] = -1;
    }
    cinchResult_t result =
        room ? run(&x) : cinch_fail_errno(ENOMEM, "no memory to pass descriptors");
    cinch_close(x.listener);
    for (size_t r = 0; r < n; r++) {
        if (x.out) cinch_close(x.out[r]);
        if (x.in) cinch_close(x.in[r]);
        if (result != cinchSuccess && fds[r] >= 0) {
            close(fds[r]);
            fds[r] = -1;
        }
    }
    free(x.cards);
    free(x.reached);
    free(x.out);
    free(x.in);
    free(x.polled);
    return result;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Message links over a stream socket: a header and its payload in one call, several short messages
 * together. A message is read only when its receive is posted; what is not posted stays in the
 * kernel, whose window holds the sender back. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "transports/io.h"
#include "transports/tcp.h"

#define BATCH 8             /* messages in one system call */
#define BUFFER_BYTES 65536u /* what was read beyond the message that was asked for */
#define GUESS_BYTES 32768u  /* read into a receive's memory before its header was seen */
#define PULL_BYTES 1048576u /* received in one call of progress, about */
#define PUSH_BYTES 262144u  /* sent in one: with more, both ways at once, caches are of no use */
#define LOST_NS 9000000000u /* without an acknowledgement for so long, a host is lost */

typedef struct tcp_link {
    cinch_link_core core; /* first */
    int fd;
    unsigned header_bytes;
    bool blocked; /* the socket took less than it was given */

    bool matched;  /* the first receive's header is here and fits */
    unsigned have; /* bytes of the next header */
    cinch_msg_header header;
    size_t begin, end; /* what is in the buffer */

    uint64_t idle_since; /* 0: the last call moved something */
    uint64_t wire_seen;
    unsigned char buffer[BUFFER_BYTES];
} tcp_link;

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

static void broken(tcp_link *link, int err) {
    if (err == ECONNRESET || err == EPIPE)
        cinch_link_lost(&link->core);
    else
        cinch_link_fail(&link->core, cinchRemoteError,
                        "the connection between ranks %d and %d is lost: %s", link->core.rank,
                        link->core.link.peer, strerror(err));
}

/* Lists what of the first messages goes next: header and payload of each. One that is cut short
 * fills the measure, so nothing follows it. */
static int gather(const tcp_link *link, struct iovec *part, cinch_msg_header *header,
                  size_t *total) {
    int parts = 0, messages = 0;
    for (const cinch_msg *msg = link->core.sends.first;
         msg && messages < BATCH && *total < PUSH_BYTES; msg = msg->next, messages++) {
        size_t at = msg->moved;
        if (at < link->header_bytes) {
            header[messages] = (cinch_msg_header){msg->tag, msg->bytes, msg->check, 0};
            part[parts++] = (struct iovec){(char *)&header[messages] + at, link->header_bytes - at};
            *total += link->header_bytes - at;
            at = link->header_bytes;
        }
        at -= link->header_bytes;
        if (at == msg->bytes) continue;
        size_t piece = least(msg->bytes - at, PUSH_BYTES);
        part[parts++] = (struct iovec){(char *)msg->data + at, piece};
        *total += piece;
    }
    return parts;
}

static void sent(tcp_link *link, size_t bytes) {
    link->core.link.wire_bytes += bytes;
    while (link->core.sends.first) {
        cinch_msg *msg = link->core.sends.first;
        size_t left = link->header_bytes + msg->bytes - msg->moved;
        msg->moved += least(left, bytes);
        if (bytes < left) return;
        bytes -= left;
        cinch_msg_finish(&link->core, &link->core.sends);
    }
}

static void push(tcp_link *link) {
    size_t gone = 0;
    while (link->core.sends.first && !link->blocked && gone < PUSH_BYTES) {
        struct iovec part[2 * BATCH];
        cinch_msg_header header[BATCH];
        size_t total = 0;
        struct msghdr call = {.msg_iov = part};
        call.msg_iovlen = (size_t)gather(link, part, header, &total);
        ssize_t n = sendmsg(link->fd, &call, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            gone += (size_t)n;
            sent(link, (size_t)n);
            link->blocked = (size_t)n < total;
        } else if (errno == EAGAIN) {
            link->blocked = true;
        } else if (errno != EINTR) {
            broken(link, errno);
            return;
        }
    }
}

/* Takes what the buffer has for the first receive. False: the link has failed. */
static bool take_buffered(tcp_link *link, cinch_msg *msg) {
    if (!link->matched) {
        size_t n = least(link->header_bytes - link->have, link->end - link->begin);
        memcpy((char *)&link->header + link->have, link->buffer + link->begin, n);
        link->have += (unsigned)n;
        link->begin += n;
        if (link->have < link->header_bytes) return true;
        if (link->header.zero) {
            cinch_link_fail(&link->core, cinchSystemError,
                            "a message from rank %d reached rank %d damaged: its header is no "
                            "header",
                            link->core.link.peer, link->core.rank);
            return false;
        }
        if (cinch_link_match(&link->core, msg, link->header.tag, link->header.bytes) !=
            cinchSuccess)
            return false;
        link->matched = true;
    }
    size_t n = least(msg->bytes - msg->moved, link->end - link->begin);
    if (n) memcpy((char *)msg->data + msg->moved, link->buffer + link->begin, n);
    msg->moved += n;
    link->begin += n;
    return true;
}

/* Reads, with the buffer empty. Result: bytes; 0: nothing is there, or the link has failed. */
static size_t read_parts(tcp_link *link, struct iovec *part, int parts, bool *drained) {
    size_t asked = 0;
    for (int i = 0; i < parts; i++) asked += part[i].iov_len;
    ssize_t n;
    do n = readv(link->fd, part, parts);
    while (n < 0 && errno == EINTR);
    *drained = n < (ssize_t)asked;
    if (n > 0) return (size_t)n;
    if (n == 0)
        cinch_link_lost(&link->core);
    else if (errno != EAGAIN)
        broken(link, errno);
    return 0;
}

static size_t read_payload(tcp_link *link, cinch_msg *msg, bool *drained) {
    size_t left = msg->bytes - msg->moved;
    struct iovec part[2] = {{(char *)msg->data + msg->moved, left}, {link->buffer, BUFFER_BYTES}};
    size_t n = read_parts(link, part, 2, drained);
    msg->moved += least(n, left);
    link->end = n - least(n, left);
    return n;
}

/* Reads a header, and in the same call what follows it to where it will be wanted if the message
 * is as long as the receive expects. What went to the wrong place is put into the buffer. */
static size_t read_header(tcp_link *link, cinch_msg *msg, bool *drained) {
    size_t missing = link->header_bytes - link->have, guess = least(msg->bytes, GUESS_BYTES);
    struct iovec part[3] = {{(char *)&link->header + link->have, missing},
                            {msg->data, guess},
                            {link->buffer, BUFFER_BYTES - GUESS_BYTES}};
    size_t n = read_parts(link, part, 3, drained), rest = n - least(n, missing);
    link->have += (unsigned)(n - rest);
    if (link->have < link->header_bytes) return n;
    if (cinch_link_match(&link->core, msg, link->header.tag, link->header.bytes) != cinchSuccess)
        return 0;
    link->matched = true;
    size_t placed = least(rest, guess);
    link->end = rest - placed;
    msg->moved = least(placed, msg->bytes);
    size_t surplus = placed - msg->moved;
    if (surplus) {
        memmove(link->buffer + surplus, link->buffer, link->end);
        memcpy(link->buffer, (char *)msg->data + msg->bytes, surplus);
        link->end += surplus;
    }
    return n;
}

/* Moves what is there for the posted receives; drained: without asking the socket. */
static void pull(tcp_link *link, bool drained) {
    size_t got = 0;
    while (link->core.recvs.first && link->core.failed == cinchSuccess) {
        cinch_msg *msg = link->core.recvs.first;
        if (!take_buffered(link, msg)) return;
        if (link->matched && msg->moved == msg->bytes) {
            if (cinch_link_verify(&link->core, msg, link->header.check) != cinchSuccess) return;
            link->have = 0;
            link->matched = false;
            cinch_msg_finish(&link->core, &link->core.recvs);
            continue;
        }
        if (drained || got >= PULL_BYTES) return;
        link->begin = link->end = 0;
        size_t n =
            link->matched ? read_payload(link, msg, &drained) : read_header(link, msg, &drained);
        if (n == 0) return;
        got += n;
        link->idle_since = 0;
    }
}

/* Keep-alive probes do not run while something of ours is unacknowledged, and the kernel would try
 * for a quarter of an hour. A peer that merely does not read does acknowledge. */
static void look_for_peer(tcp_link *link) {
    uint64_t now = cinch_now_ns();
    if (link->idle_since == 0 || link->wire_seen != link->core.link.wire_bytes) {
        link->idle_since = now;
        link->wire_seen = link->core.link.wire_bytes;
        return;
    }
    if (now - link->idle_since < LOST_NS) return;
    link->idle_since = now - LOST_NS + LOST_NS / 8; /* look again in a second */
    struct tcp_info info = {0};
    socklen_t length = sizeof info;
    if (getsockopt(link->fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_unacked > 0 &&
        info.tcpi_retransmits > 1 && info.tcpi_last_ack_recv > LOST_NS / 1000000)
        broken(link, ETIMEDOUT);
}

/* Asks the socket what it is ready for, where a send waits for room. */
static short ready_events(tcp_link *link) {
    if (!link->blocked) return POLLIN;
    short wanted = POLLOUT | (link->core.recvs.first ? POLLIN : 0);
    struct pollfd one = {.fd = link->fd, .events = wanted};
    if (poll(&one, 1, 0) <= 0) return 0;
    if (one.revents & (POLLOUT | POLLERR | POLLHUP)) link->blocked = false;
    return one.revents;
}

static cinchResult_t tcp_progress(cinch_link *head) {
    tcp_link *link = (tcp_link *)head;
    if (link->core.failed == cinchSuccess) {
        short ready = link->core.sends.first ? ready_events(link) : POLLIN;
        push(link);
        if (link->core.failed == cinchSuccess) pull(link, (ready & ~POLLOUT) == 0);
        if (link->core.failed == cinchSuccess && link->core.link.pending > 0) look_for_peer(link);
        if (link->core.failed == cinchSuccess) return cinchSuccess;
    }
    return cinch_link_failure(&link->core);
}

static void tcp_send(cinch_link *head, cinch_msg *msg) {
    cinch_link_core *core = cinch_link_core_of(head);
    msg->check = core->checksum ? cinch_msg_check(msg->tag, msg->data, msg->bytes) : 0;
    cinch_msg_post(core, &core->sends, msg);
}

/* Completes at once what the buffer has already; the socket is read by progress. */
static void tcp_recv(cinch_link *head, cinch_msg *msg) {
    tcp_link *link = (tcp_link *)head;
    cinch_msg_post(&link->core, &link->core.recvs, msg);
    if (link->core.recvs.first == msg && link->begin < link->end) pull(link, true);
}

static bool tcp_poll_fd(cinch_link *head, int *fd, short *events) {
    tcp_link *link = (tcp_link *)head;
    *fd = link->fd;
    *events =
        (short)((link->core.recvs.first ? POLLIN : 0) | (link->core.sends.first ? POLLOUT : 0));
    return true;
}

/* A socket that is closed with something unread takes back what it sent, so that is thrown away
 * first; the kernel then delivers the rest on its own. */
static void tcp_close(cinch_link *head) {
    tcp_link *link = (tcp_link *)head;
    for (int i = 0; i < 64; i++)
        if (recv(link->fd, link->buffer, BUFFER_BYTES, MSG_DONTWAIT) <= 0) break;
    shutdown(link->fd, SHUT_WR);
    cinch_close(link->fd);
    free(link);
}

static const cinch_link_ops tcp_ops = {"tcp",        tcp_send,    tcp_recv,
                                       tcp_progress, tcp_poll_fd, tcp_close};

cinch_link *cinch_tcp_link_new(int fd, int rank, int peer, bool checksum) {
    tcp_link *link = malloc(sizeof *link);
    if (!link) return NULL;
    cinch_link_init(&link->core, &tcp_ops, rank, peer, checksum);
    link->fd = fd;
    link->header_bytes = checksum ? sizeof(cinch_msg_header) : 16;
    link->blocked = link->matched = false;
    link->have = 0;
    link->header = (cinch_msg_header){0, 0, 0, 0};
    link->begin = link->end = 0;
    link->idle_since = link->wire_seen = 0;
    return &link->core.link;
}

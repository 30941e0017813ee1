/* SPDX-License-Identifier: Apache-2.0 */
/* What transports/tcp_link.c calls in place of sendmsg and readv, and transports/shm_link.c in
 * place of memcpy, which is how it fills and empties slots and rings. */
#include "tests/faults/wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

ssize_t wire_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t wire_readv(int fd, const struct iovec *part, int parts);
void *wire_memcpy(void *restrict to, const void *restrict from, size_t bytes);

enum { LATE_MS = 30 };

static _Thread_local wire *mine;

void wire_set(wire *wanted) {
    mine = wanted;
}

/* One more move: what is to be done with it. */
static wire_kind next_move(void) {
    if (!mine || atomic_fetch_add(&mine->moves, 1) + 1 != mine->at) return WIRE_FINE;
    atomic_store(&mine->spoilt, true);
    if (mine->kind == WIRE_DELAY) {
        struct timespec late = {.tv_nsec = LATE_MS * 1000000};
        nanosleep(&late, NULL);
    }
    return mine->kind;
}

static void flip(unsigned char *byte) {
    *byte ^= (unsigned char)(1u << (mine->random >> 40) % 8);
}

static size_t total_of(const struct iovec *part, size_t parts) {
    size_t total = 0;
    for (size_t i = 0; i < parts; i++) total += part[i].iov_len;
    return total;
}

/* The first `bytes` of a message of parts. */
static void send_some(int fd, const struct msghdr *msg, int flags, size_t bytes) {
    for (size_t i = 0; i < msg->msg_iovlen && bytes; i++) {
        size_t n = msg->msg_iov[i].iov_len < bytes ? msg->msg_iov[i].iov_len : bytes;
        if (send(fd, msg->msg_iov[i].iov_base, n, flags) < 0) return;
        bytes -= n;
    }
}

ssize_t wire_sendmsg(int fd, const struct msghdr *msg, int flags) {
    size_t total = total_of(msg->msg_iov, msg->msg_iovlen);
    switch (next_move()) {
    case WIRE_DROP:
        return (ssize_t)total;
    case WIRE_TRUNCATE:
        send_some(fd, msg, flags, total / 2);
        return (ssize_t)total;
    case WIRE_DUPLICATE:
        send_some(fd, msg, flags, total);
        break;
    case WIRE_CLOSE:
        shutdown(fd, SHUT_RDWR);
        break;
    case WIRE_CORRUPT: /* what comes is spoilt, not what goes: the next move */
        atomic_store(&mine->spoilt, false);
        mine->at++;
        break;
    default:
        break;
    }
    return sendmsg(fd, msg, flags);
}

ssize_t wire_readv(int fd, const struct iovec *part, int parts) {
    ssize_t n = readv(fd, part, parts);
    if (n <= 0) return n;
    if (next_move() != WIRE_CORRUPT) return n;
    size_t at = mine->random % (uint64_t)n;
    for (int i = 0; i < parts; i++) {
        if (at < part[i].iov_len) {
            flip((unsigned char *)part[i].iov_base + at);
            break;
        }
        at -= part[i].iov_len;
    }
    return n;
}

void *wire_memcpy(void *restrict to, const void *restrict from, size_t bytes) {
    switch (bytes ? next_move() : WIRE_FINE) {
    case WIRE_CORRUPT:
        memcpy(to, from, bytes);
        flip((unsigned char *)to + mine->random % bytes);
        return to;
    case WIRE_DROP:
    case WIRE_CLOSE:
        return to;
    case WIRE_TRUNCATE:
        return memcpy(to, from, bytes / 2);
    case WIRE_DUPLICATE:
        memcpy(to, from, bytes / 2);
        memcpy((unsigned char *)to + bytes / 2, from, bytes - bytes / 2);
        return to;
    default:
        return memcpy(to, from, bytes);
    }
}

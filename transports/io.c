/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets that forked children do not keep, and whole transfers up to a deadline. */
#include "transports/io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"

/* What forked children close: a bit per descriptor number. */
static pthread_mutex_t owned_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t *owned;
static size_t owned_words;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void before_fork(void) {
    pthread_mutex_lock(&owned_lock);
}

static void after_fork(void) {
    pthread_mutex_unlock(&owned_lock);
}

static void after_fork_in_child(void) {
    for (size_t word = 0; word < owned_words; word++) {
        for (uint64_t bits = owned[word]; bits; bits &= bits - 1)
            close((int)(word * 64) + __builtin_ctzll(bits));
        owned[word] = 0;
    }
    pthread_mutex_unlock(&owned_lock);
}

static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

/* The lock is held from before a descriptor is made until it is noted, so that no fork comes
 * between. */
static void lock_owned(void) {
    pthread_once(&fork_once, watch_forks);
    pthread_mutex_lock(&owned_lock);
}

/* False: memory is short. Locked. */
static bool note(int fd) {
    size_t need = (size_t)fd / 64 + 1;
    if (need > owned_words) {
        uint64_t *grown = realloc(owned, need * 2 * sizeof *owned);
        if (!grown) return false;
        memset(grown + owned_words, 0, (need * 2 - owned_words) * sizeof *owned);
        owned = grown;
        owned_words = need * 2;
    }
    owned[(size_t)fd / 64] |= (uint64_t)1 << (fd % 64);
    return true;
}

/* Notes a new descriptor, or closes it where memory is short; result is -1 where errno says why
 * there is none. Locked. */
static int own(int result, int *fd) {
    *fd = -1;
    if (result < 0) return errno;
    if (!note(result)) {
        close(result);
        return ENOMEM;
    }
    *fd = result;
    return 0;
}

static int unlock_owned(int err) {
    pthread_mutex_unlock(&owned_lock);
    return err;
}

int cinch_socket(int family, int type, int *fd) {
    lock_owned();
    return unlock_owned(own(socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), fd));
}

int cinch_accept(int listener, int *fd) {
    lock_owned();
    return unlock_owned(own(accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), fd));
}

int cinch_eventfd(int *fd) {
    lock_owned();
    return unlock_owned(own(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), fd));
}

int cinch_epoll(int *fd) {
    lock_owned();
    return unlock_owned(own(epoll_create1(EPOLL_CLOEXEC), fd));
}

int cinch_pidfd(int pid, int *fd) {
    lock_owned();
    return unlock_owned(own((int)syscall(SYS_pidfd_open, pid, 0), fd));
}

int cinch_duplicate(int fd, int *copy) {
    lock_owned();
    return unlock_owned(own(fcntl(fd, F_DUPFD_CLOEXEC, 0), copy));
}

int cinch_socketpair(int fds[2]) {
    int made[2] = {-1, -1};
    lock_owned();
    int err = 0, err2 = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, made)) err = errno;
    fds[0] = fds[1] = -1;
    if (!err) {
        err = own(made[0], &fds[0]);
        err2 = own(made[1], &fds[1]);
    }
    unlock_owned(0);
    if (!err && !err2) return 0;
    cinch_close(fds[0]);
    cinch_close(fds[1]);
    fds[0] = fds[1] = -1;
    return err ? err : err2;
}

static bool is_owned(int fd) {
    return (size_t)fd / 64 < owned_words && (owned[(size_t)fd / 64] >> (fd % 64) & 1);
}

void cinch_close(int fd) {
    if (fd < 0) return;
    lock_owned();
    /* Not ours any more: a forked child that tidies up what its parent had. */
    if (is_owned(fd)) {
        owned[(size_t)fd / 64] &= ~((uint64_t)1 << (fd % 64));
        close(fd);
    }
    pthread_mutex_unlock(&owned_lock);
}

int cinch_adopt(int fd) {
    if (fd < 0) return EBADF;
    lock_owned();
    return unlock_owned(note(fd) ? 0 : ENOMEM);
}

void cinch_disown(int fd) {
    if (fd < 0) return;
    lock_owned();
    if (is_owned(fd)) owned[(size_t)fd / 64] &= ~((uint64_t)1 << (fd % 64));
    unlock_owned(0);
}

int cinch_silence(int fd) {
    int idle, err = cinch_eventfd(&idle);
    if (err) return err;
    lock_owned();
    if (is_owned(fd) && dup3(idle, fd, O_CLOEXEC) < 0) err = errno;
    pthread_mutex_unlock(&owned_lock);
    cinch_close(idle);
    return err;
}

int cinch_wait(int fd, short events, uint64_t deadline_ns) {
    for (;;) {
        uint64_t now = cinch_now_ns();
        uint64_t left_ms = now < deadline_ns ? (deadline_ns - now + 999999) / 1000000 : 0;
        struct pollfd one = {.fd = fd, .events = events};
        int n = poll(&one, 1, left_ms > 1000 ? 1000 : (int)left_ms);
        if (n > 0) return 0;
        if (n < 0 && errno != EINTR && errno != EAGAIN) return errno;
        if (n == 0 && !left_ms) return ETIMEDOUT;
    }
}

int cinch_send_all(int fd, const void *bytes, size_t count, uint64_t deadline_ns) {
    const char *at = bytes;
    while (count) {
        ssize_t n = send(fd, at, count, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            at += n;
            count -= (size_t)n;
        } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            int err = cinch_wait(fd, POLLOUT, deadline_ns);
            if (err) return err;
        } else if (n < 0 && errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

int cinch_recv_all(int fd, void *bytes, size_t count, uint64_t deadline_ns) {
    char *at = bytes;
    while (count) {
        ssize_t n = recv(fd, at, count, MSG_DONTWAIT);
        if (n > 0) {
            at += n;
            count -= (size_t)n;
        } else if (n == 0) {
            return ECONNRESET;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            int err = cinch_wait(fd, POLLIN, deadline_ns);
            if (err) return err;
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

int cinch_send_fd(int fd, const void *bytes, size_t count, int passed) {
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = count};
    struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1};
    if (passed >= 0) {
        msg.msg_control = control.room;
        msg.msg_controllen = sizeof control.room;
        struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(head), &passed, sizeof(int));
    }
    for (;;) {
        ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n == (ssize_t)count) return 0;
        if (n >= 0) return EMSGSIZE; /* small messages go whole or not at all */
        if (errno != EINTR) return errno;
    }
}

int cinch_recv_fd(int fd, void *bytes, size_t count, int *passed) {
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(4 * sizeof(int))]; /* surplus ones are closed, not leaked */
    } control;
    struct iovec part = {.iov_base = bytes, .iov_len = count};
    struct msghdr msg = {.msg_iov = &part,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof control.room};
    *passed = -1;
    ssize_t n;
    do n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0) return errno;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(&msg); head; head = CMSG_NXTHDR(&msg, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
        size_t many = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < many; i++) {
            int got;
            memcpy(&got, CMSG_DATA(head) + i * sizeof got, sizeof got);
            if (*passed < 0)
                *passed = got;
            else
                close(got);
        }
    }
    if (n == (ssize_t)count) return 0;
    if (*passed >= 0) close(*passed);
    *passed = -1;
    return n == 0 ? ECONNRESET : EPROTO;
}

int cinch_peer_is_us(int fd) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length)) return errno;
    return peer.uid == geteuid() ? 0 : EPERM;
}

int cinch_peer_pid(int fd) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) ? 0 : (int)peer.pid;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The functions behind which the library's calls of malloc, open, send and their like are counted
 * and, one of them, made to fail. */
#include "tests/faults/faults.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static fault *_Atomic set;

void fault_set(fault *wanted) {
    atomic_store(&set, wanted);
}

static bool fails(fault_kind kind, const char *name, void *where) {
    fault *f = atomic_load(&set);
    if (!f || f->kind != kind || atomic_fetch_add(&f->calls, 1) + 1 != f->at) return false;
    snprintf(f->name, sizeof f->name, "%s", name);
    atomic_store(&f->where, where);
    return true;
}

/* FAULTY(kind, type, name, (parameters), (arguments), what a failure returns, its errno) */
#define FAULTY(kind, type, name, parameters, arguments, failed, error)                             \
    type faulty_##name parameters;                                                                 \
    type faulty_##name parameters {                                                                \
        if (fails(kind, #name, __builtin_return_address(0))) {                                     \
            errno = error;                                                                         \
            return failed;                                                                         \
        }                                                                                          \
        return name arguments;                                                                     \
    }

#define MEMORY(type, name, parameters, arguments)                                                  \
    FAULTY(FAULT_MEMORY, type, name, parameters, arguments, NULL, ENOMEM)
MEMORY(void *, malloc, (size_t bytes), (bytes))
MEMORY(void *, calloc, (size_t count, size_t bytes), (count, bytes))
MEMORY(void *, realloc, (void *old, size_t bytes), (old, bytes))
MEMORY(void *, aligned_alloc, (size_t align, size_t bytes), (align, bytes))
MEMORY(char *, strdup, (const char *text), (text))
MEMORY(FILE *, open_memstream, (char **text, size_t *length), (text, length))
FAULTY(FAULT_MEMORY, void *, mmap, (void *at, size_t n, int prot, int flags, int fd, off_t from),
       (at, n, prot, flags, fd, from), MAP_FAILED, ENOMEM)
FAULTY(FAULT_MEMORY, int, ftruncate, (int fd, off_t bytes), (fd, bytes), -1, ENOSPC)
FAULTY(FAULT_MEMORY, int, fallocate, (int fd, int mode, off_t from, off_t bytes),
       (fd, mode, from, bytes), -1, ENOSPC)
FAULTY(FAULT_MEMORY, int, pthread_create,
       (pthread_t * thread, const pthread_attr_t *attr, void *(*body)(void *), void *arg),
       (thread, attr, body, arg), EAGAIN, 0)

#define DESCRIPTOR(name, parameters, arguments)                                                    \
    FAULTY(FAULT_DESCRIPTORS, int, name, parameters, arguments, -1, EMFILE)
DESCRIPTOR(socket, (int family, int type, int protocol), (family, type, protocol))
DESCRIPTOR(socketpair, (int family, int type, int protocol, int *pair),
           (family, type, protocol, pair))
DESCRIPTOR(accept4, (int fd, struct sockaddr *at, socklen_t *room, int flags),
           (fd, at, room, flags))
DESCRIPTOR(eventfd, (unsigned from, int flags), (from, flags))
DESCRIPTOR(memfd_create, (const char *name, unsigned flags), (name, flags))
FAULTY(FAULT_DESCRIPTORS, FILE *, fopen, (const char *path, const char *mode), (path, mode), NULL,
       EMFILE)
FAULTY(FAULT_DESCRIPTORS, DIR *, opendir, (const char *path), (path), NULL, EMFILE)
FAULTY(FAULT_DESCRIPTORS, int, getifaddrs, (struct ifaddrs * *all), (all), -1, EMFILE)
FAULTY(FAULT_DESCRIPTORS, int, fstat, (int fd, struct stat *all), (fd, all), -1, EIO)

int faulty_open(const char *path, int flags, ...);
int faulty_open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (fails(FAULT_DESCRIPTORS, "open", __builtin_return_address(0))) {
        errno = EMFILE;
        return -1;
    }
    return open(path, flags, mode);
}

int faulty_fcntl(int fd, int command, ...);
int faulty_fcntl(int fd, int command, ...) {
    va_list more;
    va_start(more, command);
    long value = va_arg(more, long);
    va_end(more);
    if (fails(FAULT_DESCRIPTORS, "fcntl", __builtin_return_address(0))) {
        errno = EINVAL;
        return -1;
    }
    return fcntl(fd, command, value);
}

/* A futex that fails is none of the kernel's: it wakes, or says that the value had changed. */
long faulty_syscall(long number, ...);
long faulty_syscall(long number, ...) {
    long a[6];
    va_list more;
    va_start(more, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(more, long);
    va_end(more);
    if (number != SYS_futex && fails(FAULT_DESCRIPTORS, "syscall", __builtin_return_address(0))) {
        errno = EMFILE;
        return -1;
    }
    return syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

#define SOCKET(type, name, parameters, arguments, error)                                           \
    FAULTY(FAULT_SOCKETS, type, name, parameters, arguments, -1, error)
SOCKET(int, bind, (int fd, const struct sockaddr *at, socklen_t length), (fd, at, length),
       EADDRINUSE)
SOCKET(int, listen, (int fd, int waiting), (fd, waiting), EADDRINUSE)
SOCKET(int, connect, (int fd, const struct sockaddr *at, socklen_t length), (fd, at, length),
       ENETUNREACH)
SOCKET(ssize_t, send, (int fd, const void *data, size_t bytes, int flags), (fd, data, bytes, flags),
       ECONNRESET)
SOCKET(ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags), (fd, msg, flags),
       ECONNRESET)
SOCKET(ssize_t, recv, (int fd, void *data, size_t room, int flags), (fd, data, room, flags),
       ECONNRESET)
SOCKET(ssize_t, recvmsg, (int fd, struct msghdr *msg, int flags), (fd, msg, flags), ECONNRESET)
SOCKET(ssize_t, readv, (int fd, const struct iovec *part, int parts), (fd, part, parts), ECONNRESET)
SOCKET(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t length),
       (fd, level, name, value, length), ENOBUFS)
SOCKET(int, getsockopt, (int fd, int level, int name, void *value, socklen_t *length),
       (fd, level, name, value, length), ENOBUFS)
SOCKET(int, getsockname, (int fd, struct sockaddr *at, socklen_t *room), (fd, at, room), ENOBUFS)
SOCKET(int, getpeername, (int fd, struct sockaddr *at, socklen_t *room), (fd, at, room), ENOTCONN)
SOCKET(int, poll, (struct pollfd * fd, nfds_t count, int ms), (fd, count, ms), ENOMEM)
SOCKET(int, ppoll,
       (struct pollfd * fd, nfds_t count, const struct timespec *limit, const sigset_t *mask),
       (fd, count, limit, mask), ENOMEM)
SOCKET(ssize_t, getrandom, (void *data, size_t bytes, unsigned flags), (data, bytes, flags), EIO)
FAULTY(FAULT_SOCKETS, int, getaddrinfo,
       (const char *host, const char *port, const struct addrinfo *wanted, struct addrinfo **all),
       (host, port, wanted, all), EAI_MEMORY, ENOMEM)

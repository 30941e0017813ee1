/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets that forked children do not keep, and whole transfers up to a deadline.
 *
 * A descriptor made here is close-on-exec and is closed in every forked child too, so that a peer
 * sees the end of this process even where a child lives on. Close it with cinch_close. Functions
 * return 0 or an errno value, say nothing, work on blocking and non-blocking sockets alike, and
 * never raise SIGPIPE. Any thread. */
#ifndef CINCH_TRANSPORTS_IO_H_
#define CINCH_TRANSPORTS_IO_H_

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* Non-blocking, close-on-exec, closed in forked children. */
int cinch_socket(int family, int type, int *fd);
int cinch_accept(int listener, int *fd); /* EAGAIN: nobody waits */
int cinch_socketpair(int fds[2]);
int cinch_eventfd(int *fd);
int cinch_duplicate(int fd, int *copy);
int cinch_epoll(int *fd);
int cinch_pidfd(int pid, int *fd); /* readable when the process has ended */

/* A descriptor that somebody else has made, and will close: closed in forked children from here on,
 * until it is disowned. 0 or ENOMEM, and then they keep it. */
int cinch_adopt(int fd);
void cinch_disown(int fd);

/* Closes; -1 is nothing. */
void cinch_close(int fd);

/* Puts an idle descriptor in fd's place: its number stays, its peer sees it closed, and it never
 * becomes readable. */
int cinch_silence(int fd);

/* Waits for events of poll(2) until deadline_ns (cinch_now_ns): 0 or ETIMEDOUT. An error on the
 * descriptor counts as an event. */
int cinch_wait(int fd, short events, uint64_t deadline_ns);

/* All of it or an error: ETIMEDOUT; the end of the stream is ECONNRESET. */
int cinch_send_all(int fd, const void *bytes, size_t count, uint64_t deadline_ns);
int cinch_recv_all(int fd, void *bytes, size_t count, uint64_t deadline_ns);

/* One small message with a descriptor beside it, over a unix socket, without waiting (EAGAIN).
 * passed is -1 where none came; a received one is close-on-exec and the caller's (close(2)). */
int cinch_send_fd(int fd, const void *bytes, size_t count, int passed);
int cinch_recv_fd(int fd, void *bytes, size_t count, int *passed);

/* 0 where the peer of a connected unix socket runs as this process's uid; else EPERM. */
int cinch_peer_is_us(int fd);

/* The process that connected such a socket; 0: it is not known. */
int cinch_peer_pid(int fd);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a rank's seat: rendezvous.c joins and hears, rendezvous_ask.c asks and answers. */
#ifndef CINCH_TRANSPORTS_RENDEZVOUS_SEAT_H_
#define CINCH_TRANSPORTS_RENDEZVOUS_SEAT_H_

#include <pthread.h>

#include "transports/rendezvous.h"
#include "transports/rendezvous_wire.h"

struct cinch_rendezvous {
    int fd, rank, nranks, pid;
    cinch_meeting_kind kind;
    uint64_t timeout_ms;
    uint8_t secret[CINCH_SECRET_BYTES];
    bool may_listen;
    cinch_server *server; /* in this process, else NULL */
    int host_rank;        /* in the server's process; -1: none, or not known yet */
    bool spoken;          /* it has said hello */
    bool joined;
    bool parted;         /* the server's process may end */
    _Atomic bool deaf;   /* it has */
    _Atomic bool failed; /* who sees it may read code and why */
    cinchResult_t code;
    char why[CINCH_ERROR_TEXT];
    cinch_frame head; /* of the frame that is coming in */
    size_t head_got, body_got;
    char text[sizeof(uint32_t) + CINCH_ERROR_TEXT]; /* its body, where that is a small one */
    pthread_mutex_t send_lock; /* frames go whole, from any thread; and for deaf */
    pthread_mutex_t hear_lock; /* and are read by one thread at a time */
    const _Atomic bool *cancel;
    const _Atomic bool *also; /* this and the next change under hear_lock */
    cinch_rendezvous *parent; /* see cinch_joining */
    cinch_standby standby;

    cinch_watcher watcher;
    _Atomic bool said;     /* this rank has failed, and told the others: it knows */
    int epoll_fd;          /* the monitor's, -1: it does not watch this seat */
    uint32_t events;       /* to be given back there: */
    _Atomic bool owed;     /* by whoever reads now */
    _Atomic bool orphaned; /* the server's process has ended, whoever still holds the connection */

    pthread_mutex_t answer_lock;
    unsigned answers; /* to the last question */
    char answer[CINCH_ERROR_TEXT];
};

/* Fails the seat for good, logs it, tells the watcher. hear_lock. */
cinchResult_t cinch_seat_fail(cinch_rendezvous *seat, cinchResult_t code, const char *why);

/* The frame goes whole, or both ends see that the connection is of no use any more. send_lock. */
bool cinch_seat_send(const cinch_rendezvous *seat, cinch_frame_type type, const void *body,
                     size_t bytes, uint64_t deadline_ns);

/* Reads what is there. hear_lock. */
cinchResult_t cinch_seat_hear(cinch_rendezvous *seat);

/* A frame of rendezvous_ask.c's has come, its body in seat->text. hear_lock. */
void cinch_seat_act(cinch_rendezvous *seat, cinch_frame_type type);

/* Gives hear_lock back. */
void cinch_seat_release(cinch_rendezvous *seat);

#endif

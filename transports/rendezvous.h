/* SPDX-License-Identifier: Apache-2.0 */
/* Where the ranks of a communicator meet, and the control connections that stay.
 *
 * A unique id names a meeting point: a server thread in the process that made the id (or, with
 * CINCH_COMM_ID, in rank 0's), reached in memory from the same process, by an abstract unix socket
 * from the same host (the peer's uid is checked), by TCP with the mutual proof from elsewhere. It
 * collects all ranks, then serves their all-gathers, and passes on the first cause of a failure.
 * Each rank keeps its connection until it leaves, so a rank that dies is known to all. */
#ifndef CINCH_TRANSPORTS_RENDEZVOUS_H_
#define CINCH_TRANSPORTS_RENDEZVOUS_H_

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/settings.h"
#include "transports/address.h"
#include "transports/handshake.h"

typedef struct cinch_rendezvous cinch_rendezvous; /* one rank's seat */

/* See cinchGetUniqueId. */
cinchResult_t cinch_rendezvous_id(const cinch_settings *settings, cinchUniqueId *id);

/* Joins; blocks until all nranks are there, at most settings->init_timeout_ms. refusal: NULL, or
 * why this rank cannot go on (bad settings); then every rank's join fails with that sentence.
 * A timeout names the ranks that are missing, on every rank. */
cinchResult_t cinch_rendezvous_join(const cinch_settings *settings, const cinchUniqueId *id,
                                    int rank, int nranks, const char *refusal,
                                    cinch_rendezvous **out);

/* The same, with more. */
typedef struct cinch_reunion cinch_reunion;
typedef struct cinch_joining {
    const cinch_settings *settings;
    const cinchUniqueId *id;
    int rank, nranks;
    const char *refusal;
    const _Atomic bool *cancel; /* NULL, or looked at in all waits of the seat: once it is true they
                                   fail with InvalidUsage. It lives as long as the seat */
    const cinch_reunion *reunion; /* NULL, or where the id came from */
    cinch_rendezvous *parent; /* NULL, or the seat of a communicator that all ranks are in: until
                                 cinch_rendezvous_weaned its failure ends all waits, too */
} cinch_joining;
cinchResult_t cinch_rendezvous_join_as(const cinch_joining *joining, cinch_rendezvous **out);

/* Ends the meeting point of an id that this process has made and that nobody will use. Another
 * process's, or one whose ranks have all joined, is left alone. */
void cinch_rendezvous_forget(const cinchUniqueId *id);

/* The same from a rank that cannot join: the others are told this thread's last error. */
void cinch_rendezvous_excuse(const cinchUniqueId *id, int rank, int nranks);

/* A second such flag, or NULL, for what the calling thread does next; only that thread then uses
 * the seat. */
void cinch_rendezvous_also(cinch_rendezvous *rendezvous, const _Atomic bool *cancel);

/* The parent is not looked at any more. */
void cinch_rendezvous_weaned(cinch_rendezvous *rendezvous);

/* Success, or InvalidUsage where the seat's waits are cancelled, or why the parent has failed. */
cinchResult_t cinch_rendezvous_cancelled(const cinch_rendezvous *rendezvous);

/* ---- ranks that meet again without the others ----
 *
 * The meeting point lives in one process, which may be among the dead. So that any part of the
 * ranks can form a new communicator whatever has failed, the ranks know beforehand where their
 * lowest one can be met: on one host by a name that follows from the secret, else also at an
 * address that every rank listens at all the time. */

/* Opens this rank's address: bytes are for cinch_rendezvous_met_at, zero where there can be none.
 */
cinchResult_t cinch_rendezvous_stand_by(cinch_rendezvous *rendezvous,
                                        const cinch_settings *settings,
                                        uint8_t bytes[CINCH_ADDRESS_BYTES]);

/* Keeps rank's address. */
cinchResult_t cinch_rendezvous_met_at(cinch_rendezvous *rendezvous, int rank,
                                      const uint8_t bytes[CINCH_ADDRESS_BYTES]);

struct cinch_reunion {
    cinchUniqueId id; /* good in this process only */
    uint32_t member;  /* this rank's number among the old ones */
    int listener;     /* of the rank that will be 0, else -1 */
    char *left_out;   /* "1,4-6" */
};

/* Where the ranks with left_out[r] == 0 meet, this one among them. Needs nothing of the others, and
 * may be called while other threads use the seat. */
cinchResult_t cinch_rendezvous_reunite(const cinch_rendezvous *rendezvous, const uint8_t *left_out,
                                       cinch_reunion *reunion);
void cinch_reunion_free(cinch_reunion *reunion);

/* all[r*bytes ..] = rank r's mine. Collective; blocks, at most the init timeout. bytes is the same
 * on every rank (a difference is an error on every rank) and at most 1 MiB. */
cinchResult_t cinch_rendezvous_allgather(cinch_rendezvous *rendezvous, const void *mine,
                                         size_t bytes, void *all);

/* Gives fd to every rank r with local[r] and takes theirs: fds[r], own and others' -1; the caller
 * closes them. local is symmetric. Collective over all ranks. Over unix sockets whose peer's uid is
 * ours; -1, on both sides, also for a rank that they do not reach (another network namespace). */
cinchResult_t cinch_rendezvous_share_fd(cinch_rendezvous *rendezvous, const uint8_t *local, int fd,
                                        int *fds);

/* Looks, without blocking and at the cost of one system call, whether a rank has failed: success,
 * or the cause: RemoteError, or InvalidUsage where the ranks called different things. Any thread;
 * success too where another listens just now. */
cinchResult_t cinch_rendezvous_check(cinch_rendezvous *rendezvous);

/* ---- what ranks do ----
 *
 * Who waits for long asks the server, which asks every rank how it stands, and gets the answers of
 * whoever reads their seats: a waiting thread, or the monitor (transports/monitor.h). */

typedef enum {
    CINCH_ASK_WAITS = 1, /* who has not come? */
    CINCH_ASK_TIMEOUT,   /* the same, and all ranks fail with the sentence and that */
    CINCH_ASK_DIFFERS    /* `peer` has called something else, as was seen in what it sent */
} cinch_question;

/* How a rank stands. */
typedef struct cinch_standing {
    uint64_t calls; /* collective ones begun so far, which number them from 0 on */
    enum { CINCH_STANDS_OUTSIDE, CINCH_STANDS_INSIDE, CINCH_STANDS_IN_PAIRS } inside;
    int waits;      /* for this rank, -1: for none, or not known */
    bool receives;  /* in pairs: it waits for its message number `index` from that rank, else for */
    uint32_t index; /* one to it to be taken; counted from 0 over the communicator's life */
} cinch_standing;

/* Whose business it is. Called by any thread that reads the seat. */
typedef struct cinch_watcher {
    void *of;
    /* The text of the standing (rendezvous_wire.h), on the heap, or NULL. */
    char *(*describe)(void *of);
    /* The ranks have failed; once. */
    void (*failed)(void *of, cinchResult_t code, const char *why);
} cinch_watcher;

/* Before the monitor is told of the seat. */
void cinch_rendezvous_watch(cinch_rendezvous *rendezvous, const cinch_watcher *watcher);

/* Asks. Of a timeout and a difference every rank hears by failing, if the server lives; for the
 * rest there is an answer. Any thread. */
void cinch_rendezvous_ask(cinch_rendezvous *rendezvous, cinch_question question, int peer,
                          const char *sentence);

/* Whether the last question was answered, with the answer. */
bool cinch_rendezvous_answer(cinch_rendezvous *rendezvous, char text[CINCH_ERROR_TEXT]);

int cinch_rendezvous_rank(const cinch_rendezvous *rendezvous);

/* Whether there is a server that could answer: it ends with its process. */
bool cinch_rendezvous_lives(const cinch_rendezvous *rendezvous);

/* A rank in the server's process, -1: there is none. */
int cinch_rendezvous_host(const cinch_rendezvous *rendezvous);

/* For the monitor: reads what is there, where nobody else does. False: who does gives `events` of
 * the epoll descriptor back that was told, or nothing comes any more. */
bool cinch_rendezvous_tend(cinch_rendezvous *rendezvous);
void cinch_rendezvous_tended_by(cinch_rendezvous *rendezvous, int epoll_fd, uint32_t events);

/* For the monitor: the rank's process has ended, some time ago; with_server: the server's too. */
void cinch_rendezvous_gone(cinch_rendezvous *rendezvous, int rank, bool with_server);

/* The descriptor that becomes readable when check has something to say. */
int cinch_rendezvous_fd(const cinch_rendezvous *rendezvous);

/* Tells every rank that this one has failed, and why. The first cause wins. Any thread. */
void cinch_rendezvous_abort(cinch_rendezvous *rendezvous, const char *why);

/* Leaves in good order and frees the seat; NULL is nothing. The others may still be at work: in the
 * server's process it keeps serving them in the background. */
void cinch_rendezvous_leave(cinch_rendezvous *rendezvous);

/* The communicator's secret, for connections between ranks. */
const uint8_t *cinch_rendezvous_secret(const cinch_rendezvous *rendezvous);

/* Whether a listener beyond loopback is allowed here: there is a secret, or the user said so. */
bool cinch_rendezvous_may_listen(const cinch_rendezvous *rendezvous);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* A verbs link as its two files see it: verbs_queue.c has what it posts and what comes of that,
 * verbs_link.c what messages make of it. */
#ifndef CINCH_TRANSPORTS_VERBS_LINK_H_
#define CINCH_TRANSPORTS_VERBS_LINK_H_

#include "transports/verbs.h"

enum {
    CINCH_VERBS_SENDS = 128,  /* work requests of a queue pair */
    CINCH_VERBS_CONTROL = 32, /* of these, not for payload: credits and answers must not wait */
    CINCH_VERBS_PAGE = 4096
};

/* The kinds of immediate data; in its low 29 bits is a number. */
enum {
    CINCH_VERBS_SLOT, /* the slot of that number is written */
    CINCH_VERBS_END,  /* the direct message of that number is in place, as far as this rail goes */
    CINCH_VERBS_ANSWER,  /* the announcement of that number is answered, in the page */
    CINCH_VERBS_CREDIT,  /* so many slots have been read */
    CINCH_VERBS_FAREWELL /* the last word on this rail; so many slots were written */
};
#define CINCH_VERBS_NUMBER UINT32_C(0x1fffffff)

/* What a header in a slot begins. */
enum { CINCH_VERBS_WHOLE = 0, CINCH_VERBS_ANNOUNCED = 1 };

/* The answer to an announcement: where the message may be written, or that it shall come through
 * the ring. */
typedef struct cinch_verbs_answer {
    uint64_t address; /* 0: through the ring */
    uint32_t key[CINCH_VERBS_RAILS];
} cinch_verbs_answer;

typedef struct cinch_verbs_page {
    cinch_verbs_answer theirs[CINCH_VERBS_DIRECT]; /* written by the peer */
    uint64_t touched;                              /* likewise, to see whether we are there */
    cinch_verbs_answer ours[CINCH_VERBS_DIRECT];   /* on its way to the peer */
    uint64_t touch;
} cinch_verbs_page;
_Static_assert(sizeof(cinch_verbs_page) <= CINCH_VERBS_PAGE, "it is one page");

/* A queue pair, and what was posted and came over it. */
typedef struct cinch_verbs_queue {
    struct ibv_qp *pair;
    uint32_t inline_most;
    uint64_t posted, done;   /* work requests; those up to `done` are complete */
    uint64_t signaled;       /* the last that will say so */
    uint64_t arrived, ended; /* slots and ends that the peer has written */
    bool farewell;
} cinch_verbs_queue;

/* A message that goes, or comes, directly. */
typedef struct cinch_verbs_direct {
    cinch_msg *msg;
    bool answered, refused, posted; /* a sender's: posted as a whole */
    uint32_t local[CINCH_VERBS_RAILS];
    cinch_verbs_answer place;
    size_t at;                       /* posted so far */
    unsigned pieces;                 /* likewise */
    uint64_t end[CINCH_VERBS_RAILS]; /* a sender's: work request; a receiver's: end[0] is the number
                                        that END will have */
    uint32_t check;
} cinch_verbs_direct;

typedef struct cinch_verbs_link {
    cinch_link_core core; /* first */
    cinch_verbs *verbs;
    int place, rails;
    cinch_verbs_queue queue[CINCH_VERBS_RAILS];
    cinch_verbs_page *page;
    unsigned char *ring, *stage; /* what the peer writes into; what we write from */
    uint64_t peer_page, peer_ring;
    uint32_t peer_key[CINCH_VERBS_RAILS];
    size_t piece_bytes; /* the most that one work request writes */

    uint64_t sent, taken;                     /* slots written; of these, read by the peer */
    uint64_t stage_posted[CINCH_VERBS_SLOTS]; /* the work request that reads it */
    bool sending;                             /* the first send's header is in a slot */
    uint64_t announced, answered, placed;     /* direct messages: counts */
    uint64_t ends_sent;
    cinch_msg *last_announced; /* where announced != placed */
    cinch_verbs_direct out[CINCH_VERBS_DIRECT];

    uint64_t consumed, credited; /* slots read; of these, told */
    bool receiving;              /* the first receive has its header */
    uint32_t check;
    uint64_t heard; /* announcements read; those beyond `accepted` wait for their */
    cinch_msg_header held[CINCH_VERBS_DIRECT]; /* receives here */
    uint64_t accepted, received;               /* announcements answered; of these, complete */
    uint64_t ends_wanted;
    cinch_msg *last_accepted; /* where accepted != received */
    cinch_verbs_direct in[CINCH_VERBS_DIRECT];

    bool left; /* the peer has closed its end, having written `left_at` slots */
    uint64_t left_at;
    uint64_t quiet_since; /* 0: something came; else since when nothing did */
    uint64_t probe;       /* the work request that last asked whether it is there */
    uint64_t polls_seen;
} cinch_verbs_link;

/* Fails the link for good, and ends what the peer may do to our memory. */
cinchResult_t cinch_verbs_fail(cinch_verbs_link *link, cinchResult_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));

/* How many work requests a queue has room for. */
static inline uint64_t cinch_verbs_vacant(const cinch_verbs_link *link, int rail) {
    const cinch_verbs_queue *q = &link->queue[rail];
    return CINCH_VERBS_SENDS - (q->posted - q->done);
}

/* What is written, and where to. */
typedef struct cinch_verbs_write {
    const void *from;
    size_t bytes;
    uint32_t from_key;
    uint64_t to;
    uint32_t to_key;
    int kind;        /* of the immediate data; -1: none, the peer does not notice */
    uint64_t number; /* its low bits */
    bool signal;     /* a completion is wanted at once */
} cinch_verbs_write;

/* Posts it; there must be room. False: the link has failed. */
bool cinch_verbs_post(cinch_verbs_link *link, int rail, const cinch_verbs_write *write);

/* The same to the peer's page, from ours: bytes at this offset; a mere word where bytes is 0. */
bool cinch_verbs_tell(cinch_verbs_link *link, int rail, const void *from, size_t offset,
                      size_t bytes, int kind, uint64_t number);

/* Takes all completions there are and notes them with their links. */
void cinch_verbs_poll(cinch_verbs *verbs);

/* Makes the descriptor readable with the next completion. False: there are some already. */
bool cinch_verbs_arm(cinch_verbs *verbs);

extern const cinch_link_ops cinch_verbs_ops;

#endif

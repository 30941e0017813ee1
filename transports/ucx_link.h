/* SPDX-License-Identifier: Apache-2.0 */
/* A ucx link as its two files see it: ucx_link.c moves messages, ucx_close.c ends it. */
#ifndef CINCH_TRANSPORTS_UCX_LINK_H_
#define CINCH_TRANSPORTS_UCX_LINK_H_

#include "transports/ucx.h"

/* Of a message. HELD_BACK: its data is still at the peer. MOVING: UCX knows the caller's memory. */
typedef enum cinch_ucx_stage {
    CINCH_UCX_EMPTY,
    CINCH_UCX_HELD,
    CINCH_UCX_HELD_BACK,
    CINCH_UCX_MOVING,
    CINCH_UCX_MOVED
} cinch_ucx_stage;

typedef struct cinch_ucx_outgoing {
    cinch_ucx_link *link;
    cinch_msg *msg;
    uint64_t stamp;   /* done when so much work is flushed */
    bool needs_flush; /* once it has moved */
    uint64_t end;     /* sent_bytes with it */
    cinch_ucx_stage stage;
    cinch_ucx_header header;
} cinch_ucx_outgoing;

typedef struct cinch_ucx_incoming {
    cinch_ucx_link *link;
    void *data; /* UCX's, where held */
    size_t bytes;
    uint64_t stamp;
    cinch_ucx_stage stage;
    cinch_ucx_header header;
} cinch_ucx_incoming;

struct cinch_ucx_link {
    cinch_link_core core; /* first */
    cinch_ucx_worker *worker;
    ucp_ep_h ep;
    bool peer_mode, tcp;
    cinch_ucx_tokens tokens;

    cinch_msg *next_send; /* the first that is not under way */
    uint32_t sent;        /* messages that were given to UCX */
    uint32_t released;    /* of these, done */
    uint32_t taken;       /* of these, taken by the peer */
    uint64_t sent_bytes;  /* with an estimate of what they cost beside */
    uint64_t taken_bytes; /* of these, taken by the peer */
    uint32_t asked; /* one more than the last message that asked; as `taken`: no answer is due */
    uint64_t asked_bytes; /* sent_bytes with that one */
    cinch_ucx_outgoing out[CINCH_UCX_WINDOW];

    cinch_msg *next_recv; /* the first that is not matched */
    uint32_t matched;     /* messages that have met their receive */
    uint32_t received;    /* of these, done */
    uint32_t accepted;    /* what the peer is told: as `received`, or the next one too */
    /* With room for who answers at once to what it is told. */
    cinch_ucx_incoming in[2 * CINCH_UCX_WINDOW];

    bool noting; /* the note is under way */
    cinch_ucx_header note, pad;

    uint64_t work, flushed; /* what was begun that a flush must follow, and what one has followed */
    uint64_t flushing;      /* what the flush under way will have covered; 0: none */

    bool left, gone;    /* the peer has said so; its endpoint does not work any more, */
    ucs_status_t why;   /* for this reason */
    uint32_t left_with; /* so many messages it has sent in all */
    bool leaving;       /* closed here, and kept for what the peer still says */

    uint64_t seen; /* the worker's rounds at our last call of progress */
    bool busy;
    cinch_ucx_link *next_busy;
};

static inline bool cinch_ucx_works(const cinch_ucx_link *link) {
    return link->core.failed == cinchSuccess;
}

/* Sends a note; the one before it is through. */
void cinch_ucx_note(cinch_ucx_link *link, uint32_t flags);

/* Whether all work up to stamp is flushed; begins a flush where it is not. */
bool cinch_ucx_flushed(cinch_ucx_link *link, uint64_t stamp);

void cinch_ucx_stop(cinch_link *head);
void cinch_ucx_close(cinch_link *head);

#endif

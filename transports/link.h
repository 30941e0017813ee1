/* SPDX-License-Identifier: Apache-2.0 */
/* What the links of every transport have in common: queues of posted messages, the header's
 * meaning, and how a link fails. */
#ifndef CINCH_TRANSPORTS_LINK_H_
#define CINCH_TRANSPORTS_LINK_H_

#include "transports/transport.h"

typedef struct cinch_msg_queue {
    cinch_msg *first, *last; /* last is valid where first is */
} cinch_msg_queue;

/* The head of a transport's own link structure. */
typedef struct cinch_link_core {
    cinch_link link; /* first */
    int rank;        /* our own */
    bool checksum;
    uint64_t alone;       /* messages that are done, where the link is in no net */
    cinchResult_t failed; /* for good, where not cinchSuccess */
    cinch_msg_queue sends, recvs;
    char why[CINCH_ERROR_TEXT];
} cinch_link_core;

/* What goes ahead of a message's payload, in the byte order of the host. */
typedef struct cinch_msg_header {
    uint64_t tag;
    uint64_t bytes;
    uint32_t check; /* cinch_msg_check; over tcp this and `zero` go only with checksums */
    uint32_t zero;
} cinch_msg_header;
_Static_assert(sizeof(cinch_msg_header) == 24, "headers are bytes on a wire");

static inline cinch_link_core *cinch_link_core_of(cinch_link *link) {
    return (cinch_link_core *)link;
}

static inline void cinch_link_init(cinch_link_core *core, const cinch_link_ops *ops, int rank,
                                   int peer, bool checksum) {
    core->link = (cinch_link){.ops = ops, .peer = peer, .finished = &core->alone};
    core->alone = 0;
    core->rank = rank;
    core->checksum = checksum;
    core->failed = cinchSuccess;
    core->sends.first = core->recvs.first = NULL;
    core->why[0] = '\0';
}

static inline void cinch_msg_post(cinch_link_core *core, cinch_msg_queue *queue, cinch_msg *msg) {
    msg->moved = 0;
    msg->next = NULL;
    msg->done = false;
    if (queue->first)
        queue->last->next = msg;
    else
        queue->first = msg;
    queue->last = msg;
    core->link.pending++;
}

/* The first message is complete. After it is marked done it belongs to the caller again. */
static inline void cinch_msg_finish(cinch_link_core *core, cinch_msg_queue *queue) {
    cinch_msg *msg = queue->first;
    queue->first = msg->next;
    core->link.pending--;
    (*core->link.finished)++;
    msg->done = true;
}

/* CRC-32C of tag, size and payload. */
uint32_t cinch_msg_check(uint64_t tag, const void *data, size_t bytes);

/* Fails the link for good: keeps the sentence, logs it once, returns code. */
cinchResult_t cinch_link_fail(cinch_link_core *core, cinchResult_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));

/* The failure again, for a caller who asks again. */
cinchResult_t cinch_link_failure(const cinch_link_core *core) __attribute__((cold));

/* Holds what arrived against the receive that waits: sets msg->bytes, or fails the link. */
cinchResult_t cinch_link_match(cinch_link_core *core, cinch_msg *msg, uint64_t tag, uint64_t bytes);

/* Compares the payload with its check, where the link has checksums. */
cinchResult_t cinch_link_verify(cinch_link_core *core, const cinch_msg *msg, uint32_t check);

/* The peer has closed its end while something is posted here. */
cinchResult_t cinch_link_lost(cinch_link_core *core) __attribute__((cold));

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Message links through shared memory: slots for headers and short messages, a ring of bytes for
 * the rest. Everything that the peer wrote is checked before it is used as a size or a place. */
#include <stdlib.h>
#include <string.h>

#include "transports/region.h"

typedef struct shm_link {
    cinch_link_core core; /* first */
    cinch_mapping *ours, *theirs;
    cinch_channel *out, *in;

    uint32_t sent;       /* messages whose slot is written */
    uint32_t taken_seen; /* of these, taken as far as we know */
    bool sending;        /* the first send's slot is written, its payload not all */
    uint64_t tail;       /* our position in the outgoing ring */
    uint64_t head_seen;  /* the peer's, rounded down to 64 */

    uint32_t received;
    bool receiving;
    uint32_t check; /* of the message that is being received */
    uint64_t head;
    uint64_t tail_seen;
} shm_link;

static uint64_t round64(uint64_t position) {
    return (position + 63) & ~UINT64_C(63);
}

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

static void corrupt(shm_link *link, const char *what) {
    cinch_link_fail(&link->core, cinchRemoteError,
                    "the shared memory between ranks %d and %d is corrupt: %s", link->core.rank,
                    link->core.link.peer, what);
}

/* How many bytes of the ring are free, at least `want` unless the peer has not read that far. */
static size_t free_bytes(shm_link *link, size_t want) {
    uint64_t used = link->tail - link->head_seen;
    if (CINCH_CHANNEL_RING - used >= want) return CINCH_CHANNEL_RING - used;
    uint64_t head = atomic_load_explicit(&link->out->head, memory_order_acquire);
    if (head - link->head_seen > used) {
        corrupt(link, "its reader is ahead of its writer");
        return 0;
    }
    link->head_seen = head & ~UINT64_C(63);
    return CINCH_CHANNEL_RING - (link->tail - link->head_seen);
}

/* Copies the next piece into the ring; 0: no room. Pieces end where the ring does. */
static size_t write_piece(shm_link *link, cinch_msg *msg) {
    size_t left = msg->bytes - msg->moved;
    size_t piece = least(left, CINCH_CHANNEL_PIECE - link->tail % CINCH_CHANNEL_PIECE);
    piece = least(piece, free_bytes(link, piece));
    if (piece == 0) return 0;
    memcpy(link->out->ring + link->tail % CINCH_CHANNEL_RING, (char *)msg->data + msg->moved,
           piece);
    msg->moved += piece;
    link->core.link.wire_bytes += piece;
    link->tail += piece;
    if (piece == left) link->tail = round64(link->tail);
    return piece;
}

static bool slot_is_free(shm_link *link) {
    uint32_t under_way = link->sent - link->taken_seen;
    if (under_way < CINCH_CHANNEL_SLOTS) return true;
    uint32_t taken = atomic_load_explicit(&link->out->taken, memory_order_acquire);
    if (taken - link->taken_seen > under_way) {
        corrupt(link, "its reader took messages that were not sent");
        return false;
    }
    link->taken_seen = taken;
    return link->sent - taken < CINCH_CHANNEL_SLOTS;
}

/* Announces a message, with all of a short one or the first piece of a long one. */
static bool start_send(shm_link *link, cinch_msg *msg) {
    if (!slot_is_free(link)) return false;
    cinch_slot *slot = &link->out->slot[link->sent % CINCH_CHANNEL_SLOTS];
    if (msg->bytes <= CINCH_SLOT_INLINE) {
        if (msg->bytes) memcpy(slot->payload, msg->data, msg->bytes);
        msg->moved = msg->bytes;
        link->core.link.wire_bytes += msg->bytes;
    } else {
        if (write_piece(link, msg) == 0) return false;
        slot->tail = link->tail;
    }
    slot->check = link->core.checksum ? cinch_msg_check(msg->tag, msg->data, msg->bytes) : 0;
    slot->tag = msg->tag;
    slot->bytes = msg->bytes;
    link->sent++;
    atomic_store_explicit(&slot->turn, link->sent, memory_order_release);
    link->core.link.wire_bytes += sizeof(cinch_msg_header);
    link->sending = true;
    return true;
}

/* Moves what has room, but no more than a ring's worth, so that the caller gets to receive. */
static void push(shm_link *link) {
    size_t budget = CINCH_CHANNEL_RING;
    while (link->core.sends.first && link->core.failed == cinchSuccess) {
        cinch_msg *msg = link->core.sends.first;
        if (!link->sending && !start_send(link, msg)) return;
        while (msg->moved < msg->bytes) {
            size_t piece = write_piece(link, msg);
            if (piece == 0) return;
            atomic_store_explicit(&link->out->tail, link->tail, memory_order_release);
            if (budget <= piece && msg->moved < msg->bytes) return;
            budget -= least(budget, piece);
        }
        link->sending = false;
        cinch_msg_finish(&link->core, &link->core.sends);
    }
}

/* What of the ring is written and not read. The tail lags behind messages of one piece, which their
 * slot tells of. */
static size_t unread_bytes(shm_link *link) {
    if (link->tail_seen == link->head) {
        uint64_t tail = atomic_load_explicit(&link->in->tail, memory_order_acquire);
        if ((int64_t)(tail - link->head) <= 0) return 0;
        link->tail_seen = tail;
    }
    if (link->tail_seen - link->head <= CINCH_CHANNEL_RING) return link->tail_seen - link->head;
    corrupt(link, "its writer is beyond its end");
    return 0;
}

static bool read_piece(shm_link *link, cinch_msg *msg) {
    size_t left = msg->bytes - msg->moved;
    size_t piece = least(left, CINCH_CHANNEL_PIECE - link->head % CINCH_CHANNEL_PIECE);
    piece = least(piece, unread_bytes(link));
    if (piece == 0) return false;
    memcpy((char *)msg->data + msg->moved, link->in->ring + link->head % CINCH_CHANNEL_RING, piece);
    msg->moved += piece;
    link->head += piece;
    if (piece == left) link->head = round64(link->head);
    atomic_store_explicit(&link->in->head, link->head, memory_order_release);
    return true;
}

/* Takes the next message's slot, if it is there. */
static bool start_receive(shm_link *link, cinch_msg *msg) {
    cinch_slot *slot = &link->in->slot[link->received % CINCH_CHANNEL_SLOTS];
    if (atomic_load_explicit(&slot->turn, memory_order_acquire) != link->received + 1) return false;
    uint64_t bytes = slot->bytes, tail = slot->tail;
    link->check = slot->check;
    if (cinch_link_match(&link->core, msg, slot->tag, bytes) != cinchSuccess) return false;
    if (bytes <= CINCH_SLOT_INLINE) {
        if (bytes) memcpy(msg->data, slot->payload, bytes);
        msg->moved = bytes;
    } else {
        link->tail_seen = tail; /* checked where it is used */
    }
    link->received++;
    atomic_store_explicit(&link->in->taken, link->received, memory_order_release);
    link->receiving = true;
    return true;
}

static void pull(shm_link *link) {
    while (link->core.recvs.first && link->core.failed == cinchSuccess) {
        cinch_msg *msg = link->core.recvs.first;
        if (!link->receiving && !start_receive(link, msg)) return;
        while (msg->moved < msg->bytes)
            if (!read_piece(link, msg)) return;
        if (cinch_link_verify(&link->core, msg, link->check) != cinchSuccess) return;
        link->receiving = false;
        cinch_msg_finish(&link->core, &link->core.recvs);
    }
}

static void shm_send(cinch_link *head, cinch_msg *msg) {
    shm_link *link = (shm_link *)head;
    cinch_msg_post(&link->core, &link->core.sends, msg);
    if (link->core.sends.first == msg) push(link);
}

static void shm_recv(cinch_link *head, cinch_msg *msg) {
    shm_link *link = (shm_link *)head;
    cinch_msg_post(&link->core, &link->core.recvs, msg);
    if (link->core.recvs.first == msg) pull(link);
}

/* What the peer wrote before it left is still there: only who waits for more has lost it. */
static void look_for_peer(shm_link *link) {
    if (link->core.recvs.first &&
        atomic_load_explicit(&link->in->sender_gone, memory_order_acquire)) {
        pull(link);
        if (link->core.recvs.first && link->core.failed == cinchSuccess)
            cinch_link_lost(&link->core);
    }
    if (link->core.failed == cinchSuccess && link->core.sends.first &&
        atomic_load_explicit(&link->out->receiver_gone, memory_order_acquire))
        cinch_link_lost(&link->core);
}

static cinchResult_t shm_progress(cinch_link *head) {
    shm_link *link = (shm_link *)head;
    if (link->core.failed == cinchSuccess) {
        if (link->core.sends.first) push(link);
        if (link->core.recvs.first) pull(link);
        if (link->core.link.pending > 0 && link->core.failed == cinchSuccess) look_for_peer(link);
        if (link->core.failed == cinchSuccess) return cinchSuccess;
    }
    return cinch_link_failure(&link->core);
}

static bool shm_poll_fd(cinch_link *head, int *fd, short *events) {
    (void)head, (void)fd, (void)events;
    return false;
}

static void shm_close(cinch_link *head) {
    shm_link *link = (shm_link *)head;
    atomic_store_explicit(&link->out->sender_gone, 1, memory_order_release);
    atomic_store_explicit(&link->in->receiver_gone, 1, memory_order_release);
    cinch_mapping_drop(link->ours);
    cinch_mapping_drop(link->theirs);
    free(link);
}

static const cinch_link_ops shm_ops = {"shm",        shm_send,    shm_recv,
                                       shm_progress, shm_poll_fd, shm_close};

cinch_link *cinch_shm_link_new(int rank, int peer, bool checksum, cinch_mapping *ours,
                               cinch_channel *out, cinch_mapping *theirs, cinch_channel *in) {
    shm_link *link = calloc(1, sizeof *link);
    if (!link) return NULL;
    cinch_link_init(&link->core, &shm_ops, rank, peer, checksum);
    link->ours = cinch_mapping_keep(ours);
    link->theirs = cinch_mapping_keep(theirs);
    link->out = out;
    link->in = in;
    return &link->core.link;
}

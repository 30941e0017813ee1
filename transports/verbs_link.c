/* SPDX-License-Identifier: Apache-2.0 */
/* Messages over queue pairs. A short one, or one between memories of which nobody has said that
 * they stay, goes through slots of the receiver's ring, copied on both sides. A long one out of
 * steady memory is announced in a slot; where it goes to steady memory too, the receiver answers
 * with the address, and the sender writes there. Slots and pieces of long messages go over the
 * rails in turn.
 *
 * Nothing is buffered beyond the ring: slots are written while there is credit for them, and read
 * only for receives that are posted. */
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "transports/verbs_link.h"

enum {
    DIRECT_LEAST = 32768 /* below, a copy is cheaper than an announcement and its answer */
};
#define PROBE_NS 1000000000u /* so long without a sign of the peer, it is probed */
#define FLUSH_NS 2000000000u /* so long, in all, closing waits for what was sent */
#define FLUSH_STEP_NS 20000

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

/* ---- sending ---- */

/* Whether the next slot may be written: the peer has read it, what was in its place here has left,
 * and the queue has room. */
static bool slot_is_free(const cinch_verbs_link *link) {
    if (link->sent - link->taken >= CINCH_VERBS_SLOTS) return false;
    int rail = (int)(link->sent % (uint64_t)link->rails);
    /* A place may have been used on another rail before, where rails do not divide the slots. */
    uint64_t before = link->sent - CINCH_VERBS_SLOTS;
    int rail_before = (int)(before % (uint64_t)link->rails);
    if (link->sent >= CINCH_VERBS_SLOTS &&
        link->queue[rail_before].done < link->stage_posted[link->sent % CINCH_VERBS_SLOTS])
        return false;
    return cinch_verbs_vacant(link, rail) > CINCH_VERBS_CONTROL;
}

static unsigned char *slot_to_write(const cinch_verbs_link *link) {
    return link->stage + link->sent % CINCH_VERBS_SLOTS * link->verbs->slot_bytes;
}

static bool write_slot(cinch_verbs_link *link, size_t bytes) {
    int rail = (int)(link->sent % (uint64_t)link->rails);
    size_t slot = link->sent % CINCH_VERBS_SLOTS;
    cinch_verbs_write write = {.from = slot_to_write(link),
                               .bytes = bytes,
                               .from_key = link->verbs->rail[rail].mr->lkey,
                               .to = link->peer_ring + slot * link->verbs->slot_bytes,
                               .to_key = link->peer_key[rail],
                               .kind = CINCH_VERBS_SLOT,
                               .number = link->sent};
    if (!cinch_verbs_post(link, rail, &write)) return false;
    link->stage_posted[slot] = link->queue[rail].posted;
    link->sent++;
    link->core.link.wire_bytes += bytes;
    return true;
}

static size_t write_header(cinch_verbs_link *link, const cinch_msg *msg, uint32_t what) {
    cinch_msg_header header = {msg->tag, msg->bytes, msg->check, what};
    memcpy(slot_to_write(link), &header, sizeof header);
    return sizeof header;
}

/* Writes what is left of the first send into slots. False: not all of it yet. */
static bool send_by_ring(cinch_verbs_link *link, cinch_msg *msg) {
    while (!link->sending || msg->moved < msg->bytes) {
        if (!slot_is_free(link)) return false;
        size_t used = link->sending ? 0 : write_header(link, msg, CINCH_VERBS_WHOLE);
        size_t piece = least(msg->bytes - msg->moved, link->verbs->slot_bytes - used);
        if (piece) memcpy(slot_to_write(link) + used, (char *)msg->data + msg->moved, piece);
        if (!write_slot(link, used + piece)) return false;
        msg->moved += piece;
        link->sending = true;
    }
    link->sending = false;
    return true;
}

/* Announces the messages that come next and can go directly. */
static void announce(cinch_verbs_link *link) {
    while (!link->sending && link->announced - link->placed < CINCH_VERBS_DIRECT) {
        bool first = link->announced == link->placed;
        cinch_msg *msg = first ? link->core.sends.first : link->last_announced->next;
        if (!msg || msg->bytes < DIRECT_LEAST || !slot_is_free(link)) return;
        const cinch_verbs_memory *memory =
            cinch_verbs_memory_of(link->verbs, msg->data, msg->bytes);
        if (!memory) return;
        cinch_verbs_direct *direct = &link->out[link->announced % CINCH_VERBS_DIRECT];
        *direct = (cinch_verbs_direct){.msg = msg};
        for (int r = 0; r < link->rails; r++) direct->local[r] = memory->mr[r]->lkey;
        if (!write_slot(link, write_header(link, msg, CINCH_VERBS_ANNOUNCED))) return;
        link->last_announced = msg;
        link->announced++;
    }
}

static bool write_piece(cinch_verbs_link *link, cinch_verbs_direct *direct) {
    int rail = (int)(direct->pieces % (unsigned)link->rails);
    if (cinch_verbs_vacant(link, rail) <= CINCH_VERBS_CONTROL) return false;
    size_t left = direct->msg->bytes - direct->at;
    cinch_verbs_write write = {.from = (char *)direct->msg->data + direct->at,
                               .bytes = least(link->piece_bytes, left),
                               .from_key = direct->local[rail],
                               .to = direct->place.address + direct->at,
                               .to_key = direct->place.key[rail],
                               .kind = -1};
    if (!cinch_verbs_post(link, rail, &write)) return false;
    direct->at += write.bytes;
    direct->pieces++;
    link->core.link.wire_bytes += write.bytes;
    return true;
}

/* All of it, and its end on each rail. False: the queues are full. */
static bool write_direct(cinch_verbs_link *link, cinch_verbs_direct *direct) {
    while (direct->at < direct->msg->bytes)
        if (!write_piece(link, direct)) return false;
    for (int r = 0; r < link->rails; r++)
        if (cinch_verbs_vacant(link, r) <= CINCH_VERBS_CONTROL) return false;
    for (int r = 0; r < link->rails; r++) {
        if (!cinch_verbs_tell(link, r, NULL, 0, 0, CINCH_VERBS_END, link->ends_sent)) return false;
        direct->end[r] = link->queue[r].posted;
    }
    link->ends_sent++;
    return direct->posted = true;
}

/* Posts what was answered, in order. */
static void place(cinch_verbs_link *link) {
    for (uint64_t i = link->placed; i < link->answered; i++) {
        cinch_verbs_direct *direct = &link->out[i % CINCH_VERBS_DIRECT];
        if (!direct->answered) {
            memcpy(&direct->place, &link->page->theirs[i % CINCH_VERBS_DIRECT],
                   sizeof direct->place);
            direct->answered = true;
            direct->refused = direct->place.address == 0;
        }
        if (!direct->refused && !direct->posted && !write_direct(link, direct)) return;
    }
}

/* Whether the peer's device has all of it. */
static bool is_written(const cinch_verbs_link *link, const cinch_verbs_direct *direct) {
    if (!direct->posted) return false;
    for (int r = 0; r < link->rails; r++)
        if (link->queue[r].done < direct->end[r]) return false;
    return true;
}

/* A peer that has left in good order may say so before its device's word that it has the last
 * message is read here: it has. */
static bool is_through(const cinch_verbs_link *link, const cinch_verbs_direct *direct) {
    return is_written(link, direct) || (link->left && direct->posted);
}

static void push(cinch_verbs_link *link) {
    while (link->core.sends.first && link->core.failed == cinchSuccess) {
        if (!link->left) announce(link);
        if (!link->left) place(link);
        cinch_msg *msg = link->core.sends.first;
        bool announced = link->announced != link->placed;
        const cinch_verbs_direct *direct = &link->out[link->placed % CINCH_VERBS_DIRECT];
        if (link->core.failed != cinchSuccess || (announced && !direct->answered)) return;
        if (announced && !direct->refused) {
            if (!is_through(link, direct)) return;
        } else if (link->left || !send_by_ring(link, msg)) {
            return;
        }
        link->placed += announced;
        cinch_msg_finish(&link->core, &link->core.sends);
    }
}

/* ---- receiving ---- */

/* The next slot, where the peer has written it. */
static const unsigned char *slot_to_read(const cinch_verbs_link *link) {
    uint64_t rails = (uint64_t)link->rails;
    if (link->queue[link->consumed % rails].arrived <= link->consumed / rails) return NULL;
    return link->ring + link->consumed % CINCH_VERBS_SLOTS * link->verbs->slot_bytes;
}

static void give_credit(cinch_verbs_link *link) {
    if (link->consumed - link->credited < CINCH_VERBS_SLOTS / 4 || link->left) return;
    if (cinch_verbs_vacant(link, 0) == 0) return;
    if (cinch_verbs_tell(link, 0, NULL, 0, 0, CINCH_VERBS_CREDIT, link->consumed))
        link->credited = link->consumed;
}

static void read_slot(cinch_verbs_link *link) {
    link->consumed++;
    give_credit(link);
}

/* Tells where the announced message may go. */
static bool answer(cinch_verbs_link *link, cinch_msg *msg, uint32_t check) {
    size_t slot = link->accepted % CINCH_VERBS_DIRECT;
    cinch_verbs_direct *direct = &link->in[slot];
    const cinch_verbs_memory *memory = cinch_verbs_memory_of(link->verbs, msg->data, msg->bytes);
    cinch_verbs_answer *ours = &link->page->ours[slot];
    *direct = (cinch_verbs_direct){.msg = msg, .check = check, .refused = !memory};
    *ours = (cinch_verbs_answer){.address = memory ? (uintptr_t)msg->data : 0};
    for (int r = 0; memory && r < link->rails; r++) ours->key[r] = memory->mr[r]->rkey;
    direct->end[0] = link->ends_wanted;
    link->ends_wanted += !direct->refused;
    return cinch_verbs_tell(link, 0, ours, offsetof(cinch_verbs_page, theirs[slot]), sizeof *ours,
                            CINCH_VERBS_ANSWER, link->accepted);
}

/* An announcement belongs to the first receive that has none. False: that is not posted yet. */
static bool accept_one(cinch_verbs_link *link) {
    if (link->heard == link->accepted) return false;
    const cinch_msg_header *header = &link->held[link->accepted % CINCH_VERBS_DIRECT];
    uint64_t under_way = link->accepted - link->received;
    cinch_msg *msg = under_way ? link->last_accepted->next : link->core.recvs.first;
    if (!msg || under_way == CINCH_VERBS_DIRECT || cinch_verbs_vacant(link, 0) == 0) return false;
    if (cinch_link_match(&link->core, msg, header->tag, header->bytes) != cinchSuccess)
        return false;
    if (!answer(link, msg, header->check)) return false;
    link->last_accepted = msg;
    link->accepted++;
    return true;
}

/* Keeps an announcement aside: what was refused before it comes behind it in the ring. */
static bool hear(cinch_verbs_link *link, const cinch_msg_header *header) {
    if (link->heard - link->accepted >= CINCH_VERBS_DIRECT) {
        cinch_verbs_fail(link, cinchRemoteError, "rank %d announced too many messages to rank %d",
                         link->core.link.peer, link->core.rank);
        return false;
    }
    link->held[link->heard++ % CINCH_VERBS_DIRECT] = *header;
    read_slot(link);
    return true;
}

static void copy_out(cinch_verbs_link *link, cinch_msg *msg, const unsigned char *from,
                     size_t room) {
    size_t piece = least(msg->bytes - msg->moved, room);
    if (piece) memcpy((char *)msg->data + msg->moved, from, piece);
    msg->moved += piece;
    read_slot(link);
}

static bool finish(cinch_verbs_link *link, cinch_msg *msg, uint32_t check) {
    if (cinch_link_verify(&link->core, msg, check) != cinchSuccess) return false;
    link->received += link->accepted != link->received;
    cinch_msg_finish(&link->core, &link->core.recvs);
    return true;
}

/* Reads a slot for the first receive, or an announcement. False: there is none that can be. */
static bool take(cinch_verbs_link *link) {
    const unsigned char *slot = slot_to_read(link);
    cinch_msg *msg = link->core.recvs.first;
    size_t used = 0, room = link->verbs->slot_bytes;
    if (!slot || !msg) return false;
    if (!link->receiving) {
        cinch_msg_header header;
        memcpy(&header, slot, used = sizeof header);
        if (header.zero == CINCH_VERBS_ANNOUNCED) return hear(link, &header);
        bool accepted = link->accepted != link->received;
        if (!accepted && link->heard != link->accepted) return false;
        if (accepted && !link->in[link->received % CINCH_VERBS_DIRECT].refused) return false;
        if (cinch_link_match(&link->core, msg, header.tag, header.bytes) != cinchSuccess)
            return false;
        link->check = header.check;
        link->receiving = true;
    }
    copy_out(link, msg, slot + used, room - used);
    if (msg->moved < msg->bytes) return true;
    link->receiving = false;
    return finish(link, msg, link->check);
}

/* The first receive, where it was granted: whether it has arrived. */
static bool is_in_place(const cinch_verbs_link *link) {
    const cinch_verbs_direct *direct = &link->in[link->received % CINCH_VERBS_DIRECT];
    if (link->accepted == link->received || direct->refused) return false;
    for (int r = 0; r < link->rails; r++)
        if (link->queue[r].ended <= direct->end[0]) return false;
    return true;
}

static void pull(cinch_verbs_link *link) {
    while (link->core.recvs.first && link->core.failed == cinchSuccess) {
        if (is_in_place(link)) {
            const cinch_verbs_direct *direct = &link->in[link->received % CINCH_VERBS_DIRECT];
            direct->msg->moved = direct->msg->bytes;
            if (!finish(link, direct->msg, direct->check)) return;
        } else if (!accept_one(link) && (link->core.failed != cinchSuccess || !take(link))) {
            return;
        }
    }
}

/* ---- the link ---- */

static void verbs_send(cinch_link *head, cinch_msg *msg) {
    cinch_verbs_link *link = (cinch_verbs_link *)head;
    msg->check = link->core.checksum ? cinch_msg_check(msg->tag, msg->data, msg->bytes) : 0;
    cinch_msg_post(&link->core, &link->core.sends, msg);
    push(link);
}

static void verbs_recv(cinch_link *head, cinch_msg *msg) {
    cinch_verbs_link *link = (cinch_verbs_link *)head;
    cinch_msg_post(&link->core, &link->core.recvs, msg);
    pull(link);
}

/* Who only receives would never notice that the peer's machine is gone: after a while a word is
 * written there, which its device acknowledges. */
static void look_for_peer(cinch_verbs_link *link) {
    if (link->left) {
        cinch_link_lost(&link->core); /* what it had sent was taken: this it will not serve */
        return;
    }
    uint64_t now = cinch_now_ns();
    if (link->quiet_since == 0) link->quiet_since = now;
    if (now - link->quiet_since < PROBE_NS || cinch_verbs_vacant(link, 0) == 0) return;
    link->quiet_since = now;
    if (link->queue[0].done < link->probe) return; /* it has not come to an end yet */
    if (cinch_verbs_tell(link, 0, &link->page->touch, offsetof(cinch_verbs_page, touched),
                         sizeof link->page->touch, -1, 0))
        link->probe = link->queue[0].posted;
}

static cinchResult_t verbs_progress(cinch_link *head) {
    cinch_verbs_link *link = (cinch_verbs_link *)head;
    if (link->core.failed == cinchSuccess) {
        cinch_verbs_poll(link->verbs);
        link->polls_seen = link->verbs->polls;
        if (link->core.failed == cinchSuccess) give_credit(link);
        if (link->core.sends.first) push(link);
        if (link->core.recvs.first) pull(link);
        if (link->core.link.pending > 0 && link->core.failed == cinchSuccess) look_for_peer(link);
        if (link->core.failed == cinchSuccess) return cinchSuccess;
    }
    return cinch_link_failure(&link->core);
}

/* What another link's progress has found for this one is served before anybody sleeps. */
static bool verbs_poll_fd(cinch_link *head, int *fd, short *events) {
    cinch_verbs_link *link = (cinch_verbs_link *)head;
    *fd = link->verbs->fd;
    *events = POLLIN;
    return link->core.failed == cinchSuccess && cinch_verbs_arm(link->verbs) &&
           link->polls_seen == link->verbs->polls;
}

static bool all_is_out(const cinch_verbs_link *link) {
    for (int r = 0; r < link->rails; r++)
        if (link->queue[r].done != link->queue[r].posted) return false;
    return true;
}

/* Says farewell, and waits until the peer's device has that and all before it: a queue pair that is
 * destroyed sends nothing again that was lost, and that may belong to a message that is done. A
 * peer that has left too wants nothing any more; one that died is waited for in vain. */
static void take_leave(cinch_verbs_link *link) {
    cinch_verbs *verbs = link->verbs;
    cinch_verbs_poll(verbs);
    if (link->core.failed != cinchSuccess || link->left) return;
    uint64_t now = cinch_now_ns();
    if (!verbs->close_by) verbs->close_by = now + FLUSH_NS;
    for (int r = 0; r < link->rails; r++)
        if (cinch_verbs_vacant(link, r) == 0 ||
            !cinch_verbs_tell(link, r, NULL, 0, 0, CINCH_VERBS_FAREWELL, link->sent))
            return;
    while (!all_is_out(link) && !link->left && link->core.failed == cinchSuccess &&
           cinch_now_ns() < verbs->close_by) {
        nanosleep(&(struct timespec){0, FLUSH_STEP_NS}, NULL);
        cinch_verbs_poll(verbs);
    }
}

static void verbs_stop(cinch_link *head) {
    cinch_verbs_link *link = (cinch_verbs_link *)head;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    for (int r = 0; r < link->rails; r++) ibv_modify_qp(link->queue[r].pair, &attr, IBV_QP_STATE);
    if (link->core.failed != cinchSuccess) return;
    link->core.failed = cinchRemoteError;
    snprintf(link->core.why, sizeof link->core.why,
             "a call failed in the middle of its messages with rank %d", head->peer);
}

static void verbs_close(cinch_link *head) {
    cinch_verbs_link *link = (cinch_verbs_link *)head;
    cinch_verbs *verbs = link->verbs;
    if (verbs->process != getpid()) return; /* a forked child: all of it is its parent's */
    take_leave(link);
    cinch_verbs_link_free(link);
    if (--verbs->open == 0) cinch_verbs_free(verbs);
}

const cinch_link_ops cinch_verbs_ops = {"verbs",       verbs_send,  verbs_recv, verbs_progress,
                                        verbs_poll_fd, verbs_close, verbs_stop};

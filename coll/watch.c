/* SPDX-License-Identifier: Apache-2.0 */
/* What a communicator tells about itself, and what it asks when it waits for long. */
#include "coll/watch.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "coll/gpu.h"
#include "compress/dtype.h"
#include "transports/monitor.h"

#define MS ((uint64_t)1000000)
enum {
    ASK_AFTER_MS = 200, /* a call has waited: it asks who is missing, */
    ASK_EVERY_MS =
        500,           /* and again, as what the others call later is to be found within a second */
    STALLED_MS = 150,  /* and from here on it counts as one that waits */
    VERDICT_MS = 2000, /* for the meeting point's word on a failure; it gives ranks 500 */
    LINE = CINCH_PAST_TEXT + 24
};

/* ---- what it says ---- */

static int say_counts(const struct cinchComm *comm, char *text, size_t room) {
    _Atomic uint32_t *counts = comm->p2p_count;
    size_t used = 0;
    for (int i = 0; counts && i < 2 * comm->nranks && used + 16 < room; i++)
        used += (size_t)snprintf(text + used, room - used, "%" PRIu32 " ",
                                 atomic_load_explicit(&counts[i], memory_order_relaxed));
    return (int)used;
}

static cinch_standing stand(const struct cinchComm *comm, const cinch_past_call *last) {
    cinch_past_wait wait;
    cinch_standing at = {.waits = -1};
    if (!last) return at;
    bool pairs = last->kind == CINCH_SENDRECV;
    at.calls = last->number + !pairs;
    if (last->state != CINCH_CALL_ENTERED) return at;
    at.inside = pairs ? CINCH_STANDS_IN_PAIRS : CINCH_STANDS_INSIDE;
    if (!cinch_record_waits(&comm->record, &wait) || wait.order != last->order ||
        cinch_now_ns() < wait.since_ns + STALLED_MS * MS)
        return at;
    at.waits = wait.peer;
    at.receives = pairs && wait.flag;
    at.index = wait.item;
    return at;
}

static char *describe(void *of) {
    const struct cinchComm *comm = of;
    cinch_past_call calls[CINCH_RECORD_CALLS];
    char doing[CINCH_DOING_TEXT], call[CINCH_PAST_TEXT];
    bool inside;
    size_t room = 128 + CINCH_DOING_TEXT + CINCH_RECORD_CALLS * LINE +
                  (comm->p2p_count ? 24 * (size_t)comm->nranks : 0);
    char *text = malloc(room);
    if (!text) return NULL;
    int count = cinch_record_read(&comm->record, calls);
    cinch_standing at = stand(comm, count ? &calls[count - 1] : NULL);
    size_t used = (size_t)snprintf(text, room, "%" PRIu64 " %d %d %d %" PRIu32 "\n%s\n", at.calls,
                                   (int)at.inside, at.waits, at.receives, at.index,
                                   cinch_record_doing(&comm->record, &inside, doing));
    used += (size_t)say_counts(comm, text + used, room - used);
    used += (size_t)snprintf(text + used, room - used, "\n");
    for (int i = 0; i < count; i++)
        if (calls[i].kind != CINCH_SENDRECV)
            used += (size_t)snprintf(text + used, room - used, "%" PRIu64 " %s\n", calls[i].number,
                                     cinch_past_text(&calls[i], false, call));
    return text;
}

static void failed(void *of, cinchResult_t code, const char *why) {
    cinch_comm_told(of, code, why);
}

/* ---- begin and end ---- */

cinchResult_t cinch_watch_begin(struct cinchComm *comm) {
    cinch_watcher watcher = {comm, describe, failed};
    cinch_rendezvous_watch(comm->meeting, &watcher);
    return cinch_monitor_add(comm->meeting);
}

void cinch_watch_end(struct cinchComm *comm) {
    cinch_rendezvous *meeting = comm->meeting;
    if (meeting) cinch_monitor_remove(meeting);
}

/* ---- waiting ---- */

static void note_pairs(const cinch_op *op, cinch_past_wait *wait) {
    const cinch_p2p *first = NULL;
    for (const cinch_p2p *p = op->p2p; p; p = p->next) {
        bool done = p->peer == op->call.comm->rank || p->msg.done;
        wait->all++;
        wait->done += done;
        if (!done && !first) first = p;
    }
    if (!first) return;
    wait->peer = first->peer;
    wait->item = (uint32_t)first->msg.tag;
    wait->flag = first->receives;
}

static void note(const cinch_op *op, uint64_t since_ns) {
    cinch_past_wait wait = {.peer = op->blocked_peer, .since_ns = since_ns};
    if (op->number == CINCH_TURN_INSIDE) return;
    if (op->call.collective == CINCH_SENDRECV) {
        if (!op->p2p) return;
        note_pairs(op, &wait);
    } else if (op->schedule) {
        wait.done = (uint32_t)op->iteration;
        wait.all = (uint32_t)(op->cut.rounds + op->schedule->lags);
        wait.item = (uint32_t)op->item;
        wait.flag = op->blocked_flag != NULL;
    }
    cinch_record_wait(&op->call.comm->record, &wait);
}

/* The last call, which is the operation's: "allreduce number 4 (10 of float, sum)". */
static const char *name(const cinch_op *op, char text[CINCH_PAST_TEXT]) {
    cinch_past_call calls[CINCH_RECORD_CALLS];
    int count = cinch_record_read(&op->call.comm->record, calls);
    if (op->number != CINCH_TURN_INSIDE && count)
        return cinch_past_text(&calls[count - 1], true, text);
    return strcpy(text, "a measurement");
}

static const char *timeout_sentence(const cinch_op *op, char text[CINCH_ERROR_TEXT]) {
    char call[CINCH_PAST_TEXT], doing[CINCH_DOING_TEXT] = "";
    size_t steps = op->schedule ? op->cut.rounds + op->schedule->lags : 0;
    if (steps > 1) snprintf(doing, sizeof doing, " at step %zu of %zu", op->iteration + 1, steps);
    snprintf(text, CINCH_ERROR_TEXT, "%s made no progress for CINCH_TIMEOUT_MS=%lld on rank %d%s",
             name(op, call), (long long)op->call.comm->settings.timeout_ms, op->call.comm->rank,
             doing);
    return text;
}

static cinchResult_t give_up(const cinch_op *op, const char *who) {
    char text[CINCH_ERROR_TEXT];
    return cinch_fail(cinchRemoteError, "%.250s: %.250s", timeout_sentence(op, text), who);
}

/* Nobody can tell more. */
static cinchResult_t give_up_alone(const cinch_op *op) {
    char who[CINCH_ERROR_TEXT];
    snprintf(who, sizeof who, "it waits for rank %d, or for one that rank %d waits for",
             op->blocked_peer, op->blocked_peer);
    return give_up(op, who);
}

static void hung_server(const struct cinchComm *comm, char text[CINCH_ERROR_TEXT]) {
    int host = cinch_rendezvous_host(comm->meeting);
    if (host < 0)
        snprintf(text, CINCH_ERROR_TEXT,
                 "the meeting point does not answer: stopped, or its "
                 "machine hangs");
    else
        snprintf(text, CINCH_ERROR_TEXT,
                 "rank %d does not answer: stopped, or its machine hangs (its process has the "
                 "meeting point)",
                 host);
}

static cinchResult_t check_timeout(cinch_idle *idle, const cinch_op *op, uint64_t now) {
    struct cinchComm *comm = op->call.comm;
    char text[CINCH_ERROR_TEXT], call[CINCH_PAST_TEXT];
    if (op->gpu && op->gpu->watching)
        return cinch_fail(cinchUnhandledCudaError,
                          "%s made no progress for CINCH_TIMEOUT_MS=%lld: device %d does not get "
                          "to what was queued there",
                          name(op, call), (long long)comm->settings.timeout_ms, op->gpu->device);
    if (!comm->meeting || !cinch_rendezvous_lives(comm->meeting)) return give_up_alone(op);
    if (!idle->condemned_ns) {
        idle->condemned_ns = now;
        cinch_rendezvous_ask(comm->meeting, CINCH_ASK_TIMEOUT, -1, timeout_sentence(op, text));
    }
    if (now < idle->condemned_ns + VERDICT_MS * MS) return cinchSuccess;
    hung_server(comm, text);
    return give_up(op, text);
}

static void warn(cinch_idle *idle, const cinch_op *op, uint64_t stalled_ms) {
    const struct cinchComm *comm = op->call.comm;
    char text[CINCH_ERROR_TEXT], call[CINCH_PAST_TEXT];
    bool lives = comm->meeting && cinch_rendezvous_lives(comm->meeting);
    if (!lives)
        snprintf(text, sizeof text, "it waits for rank %d", op->blocked_peer);
    else if (!cinch_rendezvous_answer(comm->meeting, text)) {
        if (stalled_ms < (uint64_t)comm->settings.warn_ms + VERDICT_MS) return; /* it may come */
        hung_server(comm, text);
    }
    idle->warned = true;
    cinch_warn("%s has waited for %llu ms on rank %d: %s", name(op, call),
               (unsigned long long)stalled_ms, comm->rank, text);
}

cinchResult_t cinch_watch_wait(cinch_idle *idle, cinch_op *op, uint64_t now) {
    struct cinchComm *comm = op->call.comm;
    const cinch_settings *s = &comm->settings;
    uint64_t stalled_ms = (now - idle->since_ns) / MS;
    note(op, idle->since_ns);
    if (stalled_ms >= ASK_AFTER_MS && comm->meeting && !idle->condemned_ns &&
        now >= idle->asked_ns + ASK_EVERY_MS * MS) {
        idle->asked_ns = now;
        cinch_rendezvous_ask(comm->meeting, CINCH_ASK_WAITS, -1, "");
    }
    if (!idle->warned && s->warn_ms > 0 && stalled_ms >= (uint64_t)s->warn_ms &&
        stalled_ms > ASK_AFTER_MS)
        warn(idle, op, stalled_ms);
    if (s->timeout_ms > 0 && stalled_ms >= (uint64_t)s->timeout_ms)
        return check_timeout(idle, op, now);
    return cinchSuccess;
}

/* ---- what differs ---- */

cinchResult_t cinch_watch_differs(struct cinchComm *comm, int peer, const char *sentence) {
    char why[CINCH_ERROR_TEXT];
    snprintf(why, sizeof why, "%s", sentence); /* it may be the last error's */
    if (comm->meeting && cinch_rendezvous_lives(comm->meeting)) {
        uint64_t until = cinch_now_ns() + VERDICT_MS * MS;
        cinch_rendezvous_ask(comm->meeting, CINCH_ASK_DIFFERS, peer, why);
        while (cinch_now_ns() < until) {
            struct pollfd p = {cinch_rendezvous_fd(comm->meeting), POLLIN, 0};
            CINCH_TRY(cinch_rendezvous_check(comm->meeting));
            CINCH_TRY(cinch_comm_stopped(comm));
            poll(&p, 1, 5);
        }
    }
    return cinch_fail(cinchInvalidUsage, "%s", why);
}

static bool is_pair(uint64_t tag) {
    return tag >> 63;
}

/* "100 of float"; the tag of a message between a pair has its type. */
static void say_pair(uint64_t tag, uint64_t bytes, char *text, size_t room) {
    cinchDataType_t dtype = (cinchDataType_t)(tag >> 32 & 0xff);
    size_t size = cinch_dtype_size(dtype);
    snprintf(text, room, "%" PRIu64 " of %s", size ? bytes / size : bytes,
             size ? cinch_dtype_name(dtype) : "bytes");
}

static void say_odd(const struct cinchComm *comm, const cinch_link *link,
                    char why[CINCH_ERROR_TEXT]) {
    char doing[CINCH_DOING_TEXT], sent[64], room[64];
    bool inside;
    int kind = (int)(link->odd.tag >> 59 & 15);
    if (is_pair(link->odd.tag) && is_pair(link->odd.expected)) {
        say_pair(link->odd.tag, link->odd.bytes, sent, sizeof sent);
        say_pair(link->odd.expected, link->odd.room, room, sizeof room);
        snprintf(why, CINCH_ERROR_TEXT,
                 "the ranks called with different %s: of message number %" PRIu64
                 " from rank %d to rank %d, rank %d sends %s, rank %d receives %s",
                 link->odd.tag == link->odd.expected ? "sizes" : "datatypes",
                 link->odd.expected & 0xffffffff, link->peer, comm->rank, link->peer, sent,
                 comm->rank, room);
        return;
    }
    if (is_pair(link->odd.tag))
        say_pair(link->odd.tag, link->odd.bytes, sent, sizeof sent);
    else
        snprintf(sent, sizeof sent, "a part of %s", cinch_past_kind(kind));
    snprintf(why, CINCH_ERROR_TEXT, "rank %d sent %s, while rank %d %s", link->peer, sent,
             comm->rank, cinch_record_doing(&comm->record, &inside, doing));
}

cinchResult_t cinch_watch_odd(struct cinchComm *comm, cinchResult_t code) {
    char why[CINCH_ERROR_TEXT];
    for (int q = 0; comm->net && q < comm->nranks; q++) {
        const cinch_link *link = comm->net->link[q];
        if (!link || !link->odd.seen) continue;
        say_odd(comm, link, why);
        return cinch_watch_differs(comm, q, why);
    }
    return code;
}

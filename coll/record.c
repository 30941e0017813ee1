/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the last calls of a communicator, and putting them into words. */
#include "coll/record.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "compress/dtype.h"

void cinch_record_wait(cinch_record *record, const cinch_past_wait *wait) {
    uint64_t order = record->calls - 1;
    atomic_store_explicit(&record->wait.stamp, order * 2 + 1, memory_order_relaxed);
    atomic_store_explicit(&record->wait.progress, (uint64_t)wait->done << 32 | wait->all,
                          memory_order_release);
    atomic_store_explicit(&record->wait.place,
                          (uint64_t)wait->item << 32 | (uint32_t)(wait->peer + 1) << 1 | wait->flag,
                          memory_order_release);
    atomic_store_explicit(&record->wait.since_ns, wait->since_ns, memory_order_release);
    atomic_store_explicit(&record->wait.stamp, order * 2 + 2, memory_order_release);
}

bool cinch_record_waits(const cinch_record *record, cinch_past_wait *wait) {
    uint64_t stamp = atomic_load_explicit(&record->wait.stamp, memory_order_acquire);
    if (!stamp || stamp % 2) return false;
    uint64_t progress = atomic_load_explicit(&record->wait.progress, memory_order_acquire);
    uint64_t place = atomic_load_explicit(&record->wait.place, memory_order_acquire);
    wait->since_ns = atomic_load_explicit(&record->wait.since_ns, memory_order_acquire);
    wait->order = stamp / 2 - 1;
    wait->done = (uint32_t)(progress >> 32);
    wait->all = (uint32_t)progress;
    wait->item = (uint32_t)(place >> 32);
    wait->peer = (int)((uint32_t)place >> 1) - 1;
    wait->flag = place & 1;
    return atomic_load_explicit(&record->wait.stamp, memory_order_relaxed) == stamp;
}

static bool read_slot(const cinch_record_slot *slot, cinch_past_call *call) {
    uint64_t stamp = atomic_load_explicit(&slot->stamp, memory_order_acquire);
    if (!stamp) return false;
    call->number = atomic_load_explicit(&slot->number, memory_order_acquire);
    call->count = atomic_load_explicit(&slot->count, memory_order_acquire);
    uint64_t what = atomic_load_explicit(&slot->what, memory_order_acquire);
    uint64_t after = atomic_load_explicit(&slot->stamp, memory_order_relaxed);
    call->order = (stamp >> 2) - 1;
    call->state = (cinch_call_state)(after & 3);
    call->kind = (int)(what & 0xff);
    call->dtype = (cinchDataType_t)(what >> 8 & 0xff);
    call->redop = (cinchRedOp_t)(what >> 16 & 0xff);
    call->premul = what >> 24 & 1;
    call->receives = what >> 25 & 1;
    call->root = (int)(what >> 32);
    return after >> 2 == stamp >> 2; /* it may have been left meanwhile */
}

int cinch_record_read(const cinch_record *record, cinch_past_call calls[CINCH_RECORD_CALLS]) {
    int count = 0;
    for (int i = 0; i < CINCH_RECORD_CALLS; i++) {
        cinch_past_call call;
        if (!read_slot(&record->slot[i], &call)) continue;
        int at = count++;
        for (; at > 0 && calls[at - 1].order > call.order; at--) calls[at] = calls[at - 1];
        calls[at] = call;
    }
    return count;
}

const char *cinch_past_kind(int kind) {
    if (kind == CINCH_PAST_SPLIT) return "cinchCommSplit";
    if (kind == CINCH_PAST_SET_CODEC) return "cinchCommSetCodec";
    return kind >= 0 && kind < CINCH_COLLECTIVES ? cinch_shape_of((cinch_collective)kind)->name
                                                 : "?";
}

const char *cinch_past_redop(cinchRedOp_t redop, bool premul) {
    static const char *const names[] = {"sum", "prod", "max", "min", "avg"};
    if (premul) return "mulsum";
    return (unsigned)redop < sizeof names / sizeof *names ? names[redop] : "?";
}

static void say_pairs(const cinch_past_call *call, char text[CINCH_PAST_TEXT]) {
    int used = 0, more = (int)call->redop;
    if (more > 1)
        used =
            snprintf(text, CINCH_PAST_TEXT, "a group of %d sends and receives, the first a ", more);
    snprintf(text + used, CINCH_PAST_TEXT - (size_t)used, "%s of %zu %s %s rank %d",
             call->receives ? "receive" : "send", call->count, cinch_dtype_name(call->dtype),
             call->receives ? "from" : "to", call->root);
}

const char *cinch_past_text(const cinch_past_call *call, bool numbered,
                            char text[CINCH_PAST_TEXT]) {
    char number[32] = "", root[24] = "";
    if (call->kind == CINCH_SENDRECV) {
        say_pairs(call, text);
        return text;
    }
    if (numbered) snprintf(number, sizeof number, " number %llu", (unsigned long long)call->number);
    if (call->kind >= CINCH_COLLECTIVES) {
        snprintf(text, CINCH_PAST_TEXT, "%s%s", cinch_past_kind(call->kind), number);
        return text;
    }
    const cinch_shape *shape = cinch_shape_of((cinch_collective)call->kind);
    if (cinch_shape_rooted(shape))
        snprintf(root, sizeof root, ", %s rank %d", shape->in_root ? "from" : "to", call->root);
    snprintf(text, CINCH_PAST_TEXT, "%s%s (%zu of %s%s%s%s)", shape->name, number, call->count,
             cinch_dtype_name(call->dtype), shape->reduces ? ", " : "",
             shape->reduces ? cinch_past_redop(call->redop, call->premul) : "", root);
    return text;
}

static void say_wait(const cinch_past_wait *wait, bool pairs, char *text, size_t room) {
    int used = 0;
    if (wait->all)
        used = pairs ? snprintf(text, room, ", %u of %u messages through", wait->done, wait->all)
                     : snprintf(text, room, ", at step %u of %u", wait->done + 1, wait->all);
    if (wait->peer >= 0 && used >= 0 && (size_t)used < room)
        snprintf(text + used, room - (size_t)used, ", waits for rank %d", wait->peer);
}

const char *cinch_record_doing(const cinch_record *record, bool *inside,
                               char text[CINCH_DOING_TEXT]) {
    cinch_past_call calls[CINCH_RECORD_CALLS];
    cinch_past_wait wait;
    char call[CINCH_PAST_TEXT], progress[80] = "";
    int count = cinch_record_read(record, calls);
    const cinch_past_call *last = count ? &calls[count - 1] : NULL;
    *inside = last && last->state == CINCH_CALL_ENTERED;
    if (!last) return strcpy(text, "is outside of any call, and has made none");
    cinch_past_text(last, true, call);
    if (*inside && cinch_record_waits(record, &wait) && wait.order == last->order)
        say_wait(&wait, last->kind == CINCH_SENDRECV, progress, sizeof progress);
    if (*inside)
        snprintf(text, CINCH_DOING_TEXT, "is inside %s%s", call, progress);
    else
        snprintf(text, CINCH_DOING_TEXT, "is outside of any call, its last was %s%s", call,
                 last->state == CINCH_CALL_FAILED ? ", which failed" : "");
    return text;
}

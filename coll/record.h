/* SPDX-License-Identifier: Apache-2.0 */
/* The last calls of a communicator, kept for whoever asks what a rank does or did.
 *
 * Written by the thread whose operation has its turn, by a few stores without a lock; read by any
 * thread at any time. A slot that is written just then is left out by readers. */
#ifndef CINCH_COLL_RECORD_H_
#define CINCH_COLL_RECORD_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cinch/cinch.h"
#include "coll/shape.h"

enum { CINCH_RECORD_CALLS = 32, CINCH_PAST_TEXT = 112 };

/* What is recorded: a cinch_collective, CINCH_SENDRECV for the messages of a group, or one of
 * these, which are collective too. */
enum { CINCH_PAST_SPLIT = CINCH_COLLECTIVES, CINCH_PAST_SET_CODEC };

typedef enum { CINCH_CALL_ENTERED = 1, CINCH_CALL_LEFT, CINCH_CALL_FAILED } cinch_call_state;

/* One call, as it is read. */
typedef struct cinch_past_call {
    uint64_t order;  /* among all calls of this rank, from 0 on */
    uint64_t number; /* among those that all ranks make, the same on all ranks; of messages between
                        pairs: that of the next such call */
    cinch_call_state state;
    int kind; /* see above */
    size_t count;
    cinchDataType_t dtype;
    cinchRedOp_t
        redop; /* messages: how many there are, up to 255; count and so on are the first's */
    bool premul, receives;
    int root; /* messages: the peer */
} cinch_past_call;

/* How far the call of that order had come when it was last seen waiting; all == 0: it was not. */
typedef struct cinch_past_wait {
    uint64_t order;
    uint32_t done, all; /* iterations of its schedule; messages between pairs: how many */
    uint32_t item;      /* of the schedule, in that iteration; of messages: the number of this one
                           among those to or from the peer */
    int peer;           /* that it waits for, -1: not known */
    bool flag;          /* for a flag in shared memory; else for a message */
    uint64_t since_ns;  /* cinch_now_ns */
} cinch_past_wait;

/* stamp: 0 while it is written, else (order + 1) * 4 + state. */
typedef struct cinch_record_slot {
    _Atomic uint64_t stamp, number, count, what;
} cinch_record_slot;

typedef struct cinch_record {
    cinch_record_slot slot[CINCH_RECORD_CALLS];
    uint64_t calls, collectives; /* so far; only the writer's */
    struct {
        _Atomic uint64_t stamp; /* order * 2 + 1 while it is written, else + 2; 0: never */
        _Atomic uint64_t progress, place, since_ns;
    } wait;
} cinch_record;

/* The call begins: it stays the last one until the next begins. Its number, which only collective
 * ones use up. */
static inline uint64_t cinch_record_enter(cinch_record *record, int kind, size_t count,
                                          cinchDataType_t dtype, int redop, bool premul,
                                          bool receives, int root) {
    uint64_t order = record->calls++, number = record->collectives;
    cinch_record_slot *slot = &record->slot[order % CINCH_RECORD_CALLS];
    record->collectives += kind != CINCH_SENDRECV;
    uint64_t what = (uint64_t)kind | (uint64_t)dtype << 8 | (uint64_t)redop << 16 |
                    (uint64_t)premul << 24 | (uint64_t)receives << 25 | (uint64_t)root << 32;
    atomic_store_explicit(&slot->stamp, 0, memory_order_relaxed);
    /* Releases, which cost nothing on x86: nobody sees these before the stamp is gone. */
    atomic_store_explicit(&slot->number, number, memory_order_release);
    atomic_store_explicit(&slot->count, count, memory_order_release);
    atomic_store_explicit(&slot->what, what, memory_order_release);
    atomic_store_explicit(&slot->stamp, (order + 1) << 2 | CINCH_CALL_ENTERED,
                          memory_order_release);
    return number;
}

/* The last call that began is over. */
static inline void cinch_record_leave(cinch_record *record, bool failed) {
    uint64_t order = record->calls - 1;
    atomic_store_explicit(&record->slot[order % CINCH_RECORD_CALLS].stamp,
                          (order + 1) << 2 | (failed ? CINCH_CALL_FAILED : CINCH_CALL_LEFT),
                          memory_order_release);
}

/* The last call that began waits; order is set here. Its thread only. */
void cinch_record_wait(cinch_record *record, const cinch_past_wait *wait);

/* Copies the last calls, oldest first, at most CINCH_RECORD_CALLS; returns how many. Any thread. */
int cinch_record_read(const cinch_record *record, cinch_past_call calls[CINCH_RECORD_CALLS]);

/* The last wait; false: there was none, or it is written just now. Any thread. */
bool cinch_record_waits(const cinch_record *record, cinch_past_wait *wait);

/* "allreduce number 5 (1024 of float, sum)"; numbered false: "allreduce (1024 of float, sum)". */
const char *cinch_past_text(const cinch_past_call *call, bool numbered, char text[CINCH_PAST_TEXT]);

/* "allreduce", "cinchCommSplit"; "sum", "mulsum". */
const char *cinch_past_kind(int kind);
const char *cinch_past_redop(cinchRedOp_t redop, bool premul);

/* What a rank does: "is inside allreduce number 5 (1024 of float, sum), at step 3 of 17, waits for
 * rank 2" or "is outside of any call, its last was ..."; *inside tells which. */
enum { CINCH_DOING_TEXT = 2 * CINCH_PAST_TEXT + 80 };
const char *cinch_record_doing(const cinch_record *record, bool *inside,
                               char text[CINCH_DOING_TEXT]);

#endif

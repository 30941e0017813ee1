/* SPDX-License-Identifier: Apache-2.0 */
/* Reports: what a rank of a communicator does and did, as a JSON file in CINCH_REPORT_DIR, written
 * when the communicator fails and on SIGUSR1. `cinch info --report` merges those of all ranks.
 *
 * Nothing of this exists where the setting is empty: comm->report is NULL then, and no signal
 * handler is there. Else one thread of the process sleeps until the signal or the monitor wakes it.
 * What an operation waits for is known to the thread that runs it alone: asked, it writes that down
 * the next time it wakes up, and the reporter takes it from there. */
#ifndef CINCH_COLL_REPORT_H_
#define CINCH_COLL_REPORT_H_

#include "coll/engine.h"

enum {
    CINCH_REPORT_FILES = 64,   /* of a process, ever */
    CINCH_REPORT_ITEMS = 48,   /* of a schedule, and as many messages */
    CINCH_REPORT_PEERS = 1024, /* of the communicator */
    CINCH_REPORT_BYTES = 256 << 10
};

/* An item of a schedule, or a message, as it stood. */
typedef struct cinch_report_item {
    int index, peer; /* -1: none */
    uint64_t round;
    const char *kind;  /* "send", "recv", "wait", "reduce", ... */
    const char *state; /* "done", "under way", "waits", "later" */
} cinch_report_item;

/* What an operation was doing; written by its thread. */
typedef struct cinch_report_call {
    bool there, recorded;
    uint64_t order; /* in comm->record, where recorded */
    char text[CINCH_CALLED_TEXT];
    const char *algo; /* or NULL */
    const char *state;
    uint64_t iteration, iterations;
    int waits_for; /* rank, -1: nobody */
    bool flag;
    uint64_t since_ns;
    int items;
    cinch_report_item item[CINCH_REPORT_ITEMS];
} cinch_report_call;

typedef struct cinch_report {
    struct cinch_report *next;
    struct cinchComm *comm;
    unsigned file;      /* its number in this process */
    _Atomic bool asked; /* an operation shall say what it does */
    bool fresh;         /* `call` is of the failure, and not in a file yet */
    bool failed;        /* the failure is in a file */
    pthread_mutex_t lock;
    cinch_report_call call;
} cinch_report;

/* Where the setting is: from here on the communicator has reports, until leave. What is in the way
 * (memory, a thread) is a warning. */
void cinch_report_join(struct cinchComm *comm);
void cinch_report_leave(struct cinchComm *comm);

/* Whether somebody wants to know what the running operation does. */
static inline bool cinch_report_asked(const struct cinchComm *comm) {
    return comm->report && atomic_load_explicit(&comm->report->asked, memory_order_relaxed);
}

/* The operation's thread, which waits since then: writes down what for. failed: it ends by that. */
void cinch_report_describe(const cinch_op *op, uint64_t since_ns, bool failed);

/* The communicator has failed: writes the file, once, and again where an operation has said more.
 * Any thread, which is not the reporter. */
void cinch_report_failed(struct cinchComm *comm);

/* The same, by the reporter soon. */
void cinch_report_told(void);

/* Writes the file now. report->lock is held. */
void cinch_report_write(cinch_report *report, const char *reason);

#endif

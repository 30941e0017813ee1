/* SPDX-License-Identifier: Apache-2.0 */
/* A communicator, as the files of coll/ see it. */
#ifndef CINCH_COLL_COMM_H_
#define CINCH_COLL_COMM_H_

#include <pthread.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "base/device.h"
#include "base/heap.h"
#include "coll/algo.h"
#include "coll/atlas.h"
#include "coll/choice.h"
#include "coll/ef.h"
#include "coll/policy.h"
#include "coll/record.h"
#include "coll/tuned.h"
#include "compress/reduce.h"
#include "transports/shm.h"
#include "transports/transport.h"

enum { CINCH_MOST_REDOPS = 64 };

typedef struct cinch_redop { /* made by cinchRedOpCreatePreMulSum */
    bool used;
    cinchDataType_t dtype;
    const void *device_scalar; /* read when the collective runs, or NULL */
    unsigned char scalar[8];
} cinch_redop;

typedef struct cinch_tag {
    struct cinch_tag *next;
    const unsigned char *data;
    size_t bytes;
    uint64_t id;
    bool registered; /* by cinchCommRegister: the id is the order of that, apart from users' ids */
} cinch_tag;

struct cinchWindow_vidmem { /* what cinchWindow_t points to: nothing but a handle */
    struct cinchWindow_vidmem *next;
    void *data;
    size_t bytes;
};

struct cinchComm {
    uint64_t magic;
    int rank, nranks;
    char name[64];
    cinch_settings settings;
    cinch_policy policy;
    _Atomic(cinch_rendezvous *) meeting; /* NULL before the join and where that failed */
    cinch_net *net;
    uint16_t *host;              /* [nranks] each rank's, from 0 on; NULL where all share one */
    int hosts, per_host;         /* ranks on each, 0 where hosts differ in that */
    uint16_t *site;              /* [hosts] each host's, from 0 on; NULL where all share one */
    int sites;                   /* 0, 1: one */
    bool one_host;               /* every rank is on this host */
    bool all_local;              /* and all have windows on each other */
    bool heaps;                  /* and has mapped every rank's heap, on every rank */
    size_t llc_bytes;            /* last-level cache */
    char machine[256];           /* what the ranks' machines are, as in a plan file */
    cinch_tuned *tuned;          /* what was measured on them, or NULL */
    cinch_tuned *inherited;      /* what the parent's ranks, which are these, had; for `auto` */
    cinch_choice *choice;        /* what follows for algorithms and codec, or NULL */
    _Atomic bool crowded;        /* more ranks here than CPUs: wait without spinning */
    _Atomic size_t oneshot_most; /* up to here one-shot is chosen without looking further */

    /* A non-blocking communicator has a host stream of its own for what the caller does not wait
     * for, the join first; NULL in a blocking one. What the caller's thread may read meanwhile is
     * set before that is queued: rank, nranks and name; a split's sizes come later. */
    cinchStream_t worker;
    _Atomic bool joining, unsized;
    _Atomic int pending; /* splits and shrinks that still need this communicator */

    /* Operations run in the order of their numbers. */
    _Atomic uint64_t issued; /* numbers given, by the caller's thread */
    _Atomic uint64_t turn;   /* the number whose turn it is, CINCH_TURN_NONE until all ranks have
                                joined; raised last, the comm may go then */
    uint64_t rounds;         /* of window flags, over all operations: the same on all ranks */
    uint64_t sequence;       /* operations that went over links, likewise */

    cinch_record record;         /* of the last operations */
    struct cinch_report *report; /* NULL: none are wanted, see coll/report.h */

    /* Failure: the first cause stays. */
    _Atomic int failed;   /* a cinchResult_t */
    _Atomic bool aborted; /* ends all waits, and stays */
    _Atomic bool revoked; /* ends operations, not splits and shrinks */
    bool finalized;       /* by this rank: no calls come any more */
    bool derived;         /* out of another communicator, by a split or shrink */
    bool over_budget;     /* CINCH_MAX_REL_ERROR was passed, and that was said */
    pthread_mutex_t why_lock;
    char why[CINCH_ERROR_TEXT];

    struct cinch_graphs *graphs; /* calls in a device's graphs; NULL: there was none */
    _Atomic int unnumbered;      /* operations that get their number only when they begin */

    struct cinch_kept *kept;               /* schedules, built when first needed */
    cinch_atlas *atlas;                    /* the machine's graph; NULL: nobody asked */
    _Atomic(_Atomic uint32_t *) p2p_count; /* [2 * nranks] messages sent to and received from each,
                                              or NULL; see coll/watch.c */

    /* Scratch of the operation whose turn it is. */
    cinch_scratch data, messages, pointers, peers, scaled, sample;
    struct cinch_gpu_comm *gpu;        /* and on a device, from the first operation there on */
    int gpu_device;                    /* 1 + that of the calls so far, 0: there was none */
    struct cinch_gpu_peers *gpu_peers; /* whose memory there can be read; NULL: nobody's */

    /* Calls on device memory by the real NCCL (coll/nccl/inner.h). */
    bool may_nccl; /* every rank could try, and has a GPU of its own as far as that is known */
    bool homed;    /* a GPU was selected when it was made, this one: */
    unsigned char home[CINCH_DEVICE_ID];
    enum { CINCH_INNER_UNKNOWN, CINCH_INNER_NONE, CINCH_INNER_MADE } inner_state;
    _Atomic(struct cinch_inner *) inner;
    _Atomic int inner_calls; /* that threads are in */

    cinch_redop redop[CINCH_MOST_REDOPS];
    cinch_tag *tags;
    uint64_t registrations; /* ever */
    struct cinchWindow_vidmem *windows;
    cinch_ef_store ef;

    /* Counters; see cinchStats_t. Times are in ticks of cinch_ticks. */
    uint64_t calls_before; /* of calls: those that an imported state stands for */
    uint64_t calls, bytes, window_bytes, ticks, codec_ticks, compressed_calls, nonfinite;
    uint64_t born_ns, born_ticks;
};

#define CINCH_CONFIG_MAGIC 0xcafebeefu /* of CINCH_CONFIG_INITIALIZER */
#define CINCH_COMM_MAGIC 0x636f6d6d68636e63u
#define CINCH_TURN_NONE UINT64_MAX
#define CINCH_TURN_INSIDE (CINCH_TURN_NONE - 1) /* an operation of the join itself */

/* Zeroed memory for one, or NULL; and its end. A while after that the handle is still known to be
 * none. */
struct cinchComm *cinch_comm_memory(void);
void cinch_comm_bury(struct cinchComm *comm);

/* InvalidArgument where comm is no communicator, or one that a split has not sized yet. */
cinchResult_t cinch_comm_check(const struct cinchComm *comm);

/* The same, with those that are not sized yet. */
cinchResult_t cinch_comm_known(const struct cinchComm *comm);

/* Marks the communicator failed with this thread's last sentence, and tells the other ranks. */
cinchResult_t cinch_comm_fail(struct cinchComm *comm, cinchResult_t code);

/* After a link has failed: a rank that has heard of a failure closes its links, which may be seen
 * here before the cause is. That is on its way, and it is what everyone shall say. Returns the code
 * of what is now this thread's last sentence. */
cinchResult_t cinch_comm_first_cause(struct cinchComm *comm, cinchResult_t code);

/* The ranks have failed, as the others know: marks the communicator. Any thread. */
void cinch_comm_told(struct cinchComm *comm, cinchResult_t code, const char *why);

/* Success, or the failure that the communicator has had. */
cinchResult_t cinch_comm_state(struct cinchComm *comm);

/* Success, or why an operation that waits shall wait no longer: an abort or a revocation here. */
cinchResult_t cinch_comm_stopped(const struct cinchComm *comm);

/* Success, or why it serves for no split: it has failed, or was aborted or finalized. */
cinchResult_t cinch_comm_healthy(struct cinchComm *comm);

/* Puts a codec in force (automatic: only where it pays), and works out what is chosen then: by the
 * curves that there are, and up to where one-shot is. SystemError. */
cinchResult_t cinch_comm_use_codec(struct cinchComm *comm, const cinch_codec *codec,
                                   bool automatic);

/* The same for the inside of hosts, where there is one: not with a codec that is automatic. */
void cinch_comm_use_inside(struct cinchComm *comm, const cinch_codec *codec, bool automatic);

/* The next operation's number. */
static inline uint64_t cinch_comm_issue(struct cinchComm *comm) {
    uint64_t number = atomic_load_explicit(&comm->issued, memory_order_relaxed);
    atomic_store_explicit(&comm->issued, number + 1, memory_order_relaxed);
    return number;
}

/* Waits until all operations issued so far are complete. InvalidUsage where this thread has some in
 * a group that has not ended. */
cinchResult_t cinch_comm_drain(struct cinchComm *comm);

/* Waits until it is number's turn, or that is over; end gives the turn to the next one. */
void cinch_comm_await_turn(struct cinchComm *comm, uint64_t number);
void cinch_comm_end_turn(struct cinchComm *comm, uint64_t number);

/* Bytes handed to transports or shown to peers so far. */
uint64_t cinch_comm_wire_bytes(const struct cinchComm *comm);

/* The clock of the counters: the time-stamp counter where there is one, a few nanoseconds a look.
 */
static inline uint64_t cinch_ticks(void) {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
#endif
}

/* A communicator that has joined nothing yet. config NULL: parent's where there is one. What is
 * wrong with settings or config does not end here, because the other ranks shall hear of it: it is
 * told in refusal, with its code, else that is empty. */
typedef struct cinch_refusal {
    cinchResult_t code;
    char why[CINCH_ERROR_TEXT];
} cinch_refusal;
cinchResult_t cinch_comm_new(const cinchConfig_t *config, const struct cinchComm *parent,
                             cinch_refusal *refusal, struct cinchComm **out);

/* Meets the other ranks at the id; rank and nranks are set. reunion: NULL, or where that comes
 * from. parent: NULL, or a seat of all of them, whose failure ends the join. Afterwards operations
 * have their turn, or find the failure. */
cinchResult_t cinch_comm_join(struct cinchComm *comm, const cinchUniqueId *id,
                              const cinch_reunion *reunion, cinch_rendezvous *parent,
                              const cinch_refusal *refusal);

/* The end of a join that did not get so far. */
void cinch_comm_joined(struct cinchComm *comm, cinchResult_t result);

/* Frees it. Nothing of it runs any more. */
void cinch_comm_release(struct cinchComm *comm);

#endif

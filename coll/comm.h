/* SPDX-License-Identifier: Apache-2.0 */
/* A communicator, as the files of coll/ see it. */
#ifndef CINCH_COLL_COMM_H_
#define CINCH_COLL_COMM_H_

#include <pthread.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "base/heap.h"
#include "coll/algo.h"
#include "coll/ef.h"
#include "coll/policy.h"
#include "compress/reduce.h"
#include "transports/shm.h"
#include "transports/transport.h"

enum { CINCH_MOST_ALGOS = 16, CINCH_MOST_REDOPS = 64 };

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
} cinch_tag;

struct cinchComm {
    uint64_t magic;
    int rank, nranks;
    char name[64];
    cinch_settings settings;
    cinch_policy policy;
    cinch_rendezvous *meeting; /* NULL where there is one rank */
    cinch_net *net;
    bool one_host;       /* every rank is on this host */
    bool all_local;      /* and all have windows on each other */
    bool heaps;          /* and has mapped every rank's heap, on every rank */
    size_t llc_bytes;    /* last-level cache */
    bool crowded;        /* more ranks here than CPUs: wait without spinning */
    size_t oneshot_most; /* up to here one-shot is chosen without looking further */

    /* Operations run in the order of their numbers. */
    _Atomic uint64_t issued; /* numbers given, by the caller's thread */
    _Atomic uint64_t turn;   /* the number whose turn it is; raised last, the comm may go then */
    uint64_t rounds;         /* of window flags, over all operations: the same on all ranks */

    /* Failure: the first cause stays. */
    _Atomic int failed; /* a cinchResult_t */
    _Atomic bool aborted;
    bool finalized; /* by this rank: no calls come any more */
    pthread_mutex_t why_lock;
    char why[CINCH_ERROR_TEXT];

    /* Schedules, built when first needed: [algorithm][mapped][encoded]. */
    cinch_schedule schedule[CINCH_MOST_ALGOS][2][2];

    /* Scratch of the operation whose turn it is. */
    cinch_scratch data, messages, pointers, peers;

    cinch_redop redop[CINCH_MOST_REDOPS];
    cinch_tag *tags;
    cinch_ef_store ef;

    /* Counters; see cinchStats_t. Times are in ticks of cinch_ticks. */
    uint64_t calls, bytes, window_bytes, ticks, codec_ticks, compressed_calls, nonfinite;
    uint64_t born_ns, born_ticks;
};

#define CINCH_CONFIG_MAGIC 0xcafebeefu /* of CINCH_CONFIG_INITIALIZER */
#define CINCH_COMM_MAGIC 0x636f6d6d68636e63u

/* InvalidArgument where comm is no communicator. */
cinchResult_t cinch_comm_check(const struct cinchComm *comm);

/* Marks the communicator failed with this thread's last sentence, and tells the other ranks. */
cinchResult_t cinch_comm_fail(struct cinchComm *comm, cinchResult_t code);

/* After a link has failed: a rank that has heard of a failure closes its links, which may be seen
 * here before the cause is. That is on its way, and it is what everyone shall say. Returns the code
 * of what is now this thread's last sentence. */
cinchResult_t cinch_comm_first_cause(struct cinchComm *comm, cinchResult_t code);

/* Success, or the failure that the communicator has had. */
cinchResult_t cinch_comm_state(struct cinchComm *comm);

/* Puts a codec in force, and finds up to where one-shot is chosen then. */
void cinch_comm_use_codec(struct cinchComm *comm, const cinch_codec *codec);

/* The next operation's number. */
static inline uint64_t cinch_comm_issue(struct cinchComm *comm) {
    uint64_t number = atomic_load_explicit(&comm->issued, memory_order_relaxed);
    atomic_store_explicit(&comm->issued, number + 1, memory_order_relaxed);
    return number;
}

/* Waits until all operations issued so far are complete. InvalidUsage where this thread has some in
 * a group that has not ended. */
cinchResult_t cinch_comm_drain(struct cinchComm *comm);

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

/* Joins one rank; the thread behind cinchCommInitRank. */
cinchResult_t cinch_comm_create(struct cinchComm **out, int nranks, const cinchUniqueId *id,
                                int rank, const cinchConfig_t *config);

#endif

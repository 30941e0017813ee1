/* SPDX-License-Identifier: Apache-2.0 */
/* What forward mode keeps beside each communicator of the real library. */
#ifndef CINCH_COLL_NCCL_SIDE_H_
#define CINCH_COLL_NCCL_SIDE_H_

#include <pthread.h>
#include <stdatomic.h>

#include "base/device.h"
#include "coll/ef.h"
#include "coll/nccl/forward.h"
#include "compress/gpu.h"

/* Error feedback in device memory: as cinch_ef. */
typedef struct cinch_residual {
    struct cinch_residual *next; /* most recently used first */
    cinch_ef_key key;
    uint64_t last_call, order;    /* order: of first use */
    size_t nsender, nowner, room; /* room: floats there are */
    float *sender, *owner;
} cinch_residual;

typedef struct cinch_residuals {
    cinch_residual *used, *spare; /* spare: dropped, memory for the next */
    uint64_t bytes, dropped;      /* bytes: of both lists */
    uint64_t orders;
} cinch_residuals;

/* A communicator over which a compressed all-reduce goes, and this rank's place there. */
typedef struct cinch_level {
    cinchComm_t comm;
    int rank, n;
} cinch_level;

typedef struct cinch_side {
    struct cinch_side *next;
    cinch_forward *forward;
    cinchComm_t comm; /* the key: never looked behind */
    int rank, nranks, device;
    enum { CINCH_SIDE_NEW, CINCH_SIDE_EXACT, CINCH_SIDE_COMPRESSES, CINCH_SIDE_REFUSED } state;
    cinch_policy policy;  /* with the codec of the level that the communicator spans */
    cinch_level flat;     /* the ranks that exchange encoded messages */
    cinch_level inside;   /* this host's, n 1: nobody else is there */
    cinch_level split[2]; /* for these two, once there are any: what was split off `comm` */
    bool splits;          /* there are */

    int users;           /* the table is one; under forward's lock */
    bool buried;         /* the real communicator is gone, or on its way */
    atomic_bool leaving; /* and whoever waits for it shall wait no longer */
    atomic_int failed;   /* a cinchResult_t; `why` is written before */
    char why[CINCH_ERROR_TEXT];
    unsigned told; /* warnings, by bit */

    uint64_t calls, compressed; /* all-reduces */
    cinchStream_t net;          /* for transfers, where kernels shall run beside them */
    cinch_event *done;          /* of the last compressed all-reduce, in the caller's stream */
    cinch_event *joined;
    cinch_event *kernels, *moved[2]; /* of an iteration; moved by its parity */
    bool busy;                       /* done was recorded */
    cinch_gpu_counts *counts;        /* on the device */
    cinch_gpu_counts *seen;          /* pinned: what they were */
    struct cinch_block *scratch;     /* the newest and largest first */
    cinch_residuals residuals;
    void *cards, *shown; /* of the ranks' first meeting; shown: pinned */
    int wave;            /* of the list that is being run */

    /* NULL, or what looks now and then, while the real library is waited for, whether that shall go
     * on; waited_ns: for how long it has. */
    cinchResult_t (*watch)(void *owner, uint64_t waited_ns);
    /* NULL, or what knows what new residuals begin with, if not with zero. */
    cinchResult_t (*seed)(void *owner, const cinch_ef_key *key, cinch_residual *residual,
                          bool *seeded);
    void *owner;
} cinch_side;

/* Device memory, kept until the communicator ends: freeing may wait for the whole device. */
typedef struct cinch_block {
    struct cinch_block *next;
    void *memory;
    size_t bytes;
} cinch_block;

struct cinch_forward {
    cinch_real real;
    cinch_settings settings;
    cinch_policy policy;
    const cinch_device_work *work;
    const cinch_gpu *gpu;
    pthread_mutex_t lock;
    cinch_side *sides, *graves; /* in force; and gone, until their last work has ended */
};

/* The communicator's record, with one user more; made where there is none. NULL: the real library
 * does not know it, or memory ran out. */
cinch_side *cinch_side_get(cinch_forward *forward, cinchComm_t comm, bool make);
void cinch_side_leave(cinch_side *side);

/* Takes it out of the table and ends whoever waits for it; returns it, or NULL. Once the real
 * communicator is gone the caller leaves it. */
cinch_side *cinch_side_bury(cinch_forward *forward, cinchComm_t comm);

/* Frees what is in graves and has come to its end on the device. */
void cinch_side_reap(cinch_forward *forward);
void cinch_side_free(cinch_side *side);

/* Notes the thread's last sentence as the communicator's failure; returns code. */
cinchResult_t cinch_side_fail(cinch_side *side, cinchResult_t code);

/* The communicator's state, and that of those split off it: the first failure, else whether one is
 * not ready. */
cinchResult_t cinch_side_state(const cinch_side *side);

/* Ends a communicator of the real library, by its CommDestroy or CommAbort, and what is split off
 * it, where there is a record. All are told before any is waited for. */
cinchResult_t cinch_side_end(const cinch_side *side, cinchComm_t comm, const cinch_forward *forward,
                             cinchResult_t (*by)(cinchComm_t comm));

/* A call of the real library: InProgress, from a communicator that does not block, is waited out.
 */
cinchResult_t cinch_side_settle(const cinch_side *side, cinchResult_t result);

/* The same for several: where all were InProgress the result is that no more, but the first
 * failure. */
void cinch_side_settle_into(const cinch_side *side, cinchResult_t was, cinchResult_t *result);

/* Says it once per communicator. */
#define CINCH_SIDE_WARN(side, bit, ...)                                                            \
    do {                                                                                           \
        if (!((side)->told >> (bit)&1)) cinch_warn(__VA_ARGS__);                                   \
        (side)->told |= 1u << (bit);                                                               \
    } while (0)
enum { CINCH_TOLD_CAPTURE };

/* The hosts of a communicator, numbered in the order of their first ranks. */
typedef struct cinch_places {
    int hosts, per_host; /* per_host 0: hosts differ in that */
    int host, local;     /* this rank's, and its place there */
} cinch_places;

/* A record that is in no table, of one user. NULL: out of memory. */
cinch_side *cinch_side_new(cinch_forward *forward, cinchComm_t comm, int rank, int nranks,
                           int device);

/* Streams, events and counters for compressed calls, where there are none yet. */
cinchResult_t cinch_side_open(cinch_side *side);

/* Whether and where new communicators compress, by their policies: places[i] is where sides[i] is.
 * Collective, as hosts may have to be split off. Each one's state is then another. */
cinchResult_t cinch_side_decide(cinch_side *const *sides, const cinch_places *places, int count,
                                bool *ours);

/* What all ranks of new communicators must know of each other: settings, hosts. Collective; waits.
 * Each one's state is then another. */
cinchResult_t cinch_side_agree(cinch_side *const *sides, int count, bool *ours);

/* Scratch of so many bytes, or NULL. */
void *cinch_side_scratch(cinch_side *side, size_t bytes);

/* As cinch_ef_get; new residuals are zeroed on the stream. */
cinchResult_t cinch_residual_get(cinch_side *side, const cinch_ef_key *key, size_t nsender,
                                 size_t nowner, cinchStream_t stream, cinch_residual **out);
void cinch_residuals_drop(cinch_side *side); /* the memory is kept for others */
void cinch_residuals_free(cinch_side *side);

/* Why a codec's messages cannot go by NCCL, or NULL. */
const char *cinch_forward_unusable(const cinch_gpu *gpu, const cinch_codec *codec);

#endif

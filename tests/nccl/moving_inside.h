/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the stand-in for NCCL share. */
#ifndef CINCH_TESTS_NCCL_MOVING_INSIDE_H_
#define CINCH_TESTS_NCCL_MOVING_INSIDE_H_

#include <pthread.h>
#include <string.h>

#include "tests/cuda/emulate.h"
#include "tests/cuda/runtime/fake.h"
#include "tests/nccl/moving.h"

/* An operator's scalar; kept until the communicator ends, as work may need it. */
typedef struct moving_scalar {
    struct moving_scalar *next;
    cinchDataType_t dtype;
    unsigned char bits[8];
    const void *there; /* in device memory, in place of bits; or NULL */
    bool gone;
} moving_scalar;

enum { RANKS = 8, COMMS = 64, RING = 256, OPS = 512 };

typedef enum { ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, BROADCAST, REDUCE, SEND, RECV, SPLIT } kind;

typedef struct offer {
    kind what;
    const void *send;
    size_t count;
    cinchDataType_t dtype;
    cinchRedOp_t op;
    int root;
    const moving_scalar *premul; /* NULL: the input is not multiplied first */
} offer;

/* What the ranks of a communicator share. The words are pinned: streams wait for them. */
typedef struct clique {
    int n, alive, first[2]; /* first: ranks that came to their first work, and with messages */
    int made;               /* ranks that are there */
    bool aborted;
    struct words {
        uint32_t offered[RANKS], read[RANKS];             /* collectives */
        uint32_t sent[RANKS][RANKS], taken[RANKS][RANKS]; /* messages, by sender and receiver */
    } * words;
    offer collective[RING][RANKS], message[RANKS][RANKS][RING];
    struct {
        int came, color[RANKS], key[RANKS], rank[RANKS];
        struct clique *of[RANKS];
        int left;
    } split;
} clique;

typedef struct comm {
    bool there;
    clique *clique;
    int rank, device, dawdles;
    bool slow, launched[2];
    bool inits; /* made by ncclCommInitRankConfig, which waits for all ranks */
    moving_scalar *scalars;
    uint32_t collectives, sent[RANKS], received[RANKS];
    cudaEvent_t last;
    bool ran;
    cinchResult_t state;
    moving_seen seen;
} comm;

extern pthread_mutex_t moving_lock;
extern pthread_cond_t moving_changed;

#define CUDA_MUST(call)                                                                            \
    do {                                                                                           \
        cudaError_t err_ = (call);                                                                 \
        if (err_ != cudaSuccess) cinch_emulate_wrong("%s: %d", #call, (int)err_);                  \
    } while (0)

comm *moving_known(cinchComm_t handle); /* NULL: it is none */
comm *moving_new(clique *k, int rank, int device);
clique *moving_new_clique(int n);

void moving_forget(const clique *k); /* it goes; the lock is held (moving_init.c) */

/* Calls of moving_init.c. */
cinchResult_t moving_unique_id(cinchUniqueId *id);
cinchResult_t moving_init_rank(cinchComm_t *made, int n, cinchUniqueId id, int rank,
                               cinchConfig_t *config);
cinchResult_t moving_premul(cinchRedOp_t *op, void *scalar, cinchDataType_t dtype,
                            cinchScalarResidence_t residence, cinchComm_t handle);
cinchResult_t moving_premul_forget(cinchRedOp_t op, cinchComm_t handle);
const char *moving_last_error(cinchComm_t handle);

/* The operator's scalar, NULL: there is none, or not for that type. */
const moving_scalar *moving_scalar_of(const comm *c, cinchRedOp_t op, cinchDataType_t dtype);

#endif

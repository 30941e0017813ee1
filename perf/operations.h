/* SPDX-License-Identifier: Apache-2.0 */
/* The operations that `cinch perf` measures: a row each says how long buffers are, what the result
 * is and how it is called. */
#ifndef CINCH_PERF_OPERATIONS_H_
#define CINCH_PERF_OPERATIONS_H_

#include <stdbool.h>
#include <stddef.h>

#include "cinch/cinch.h"

/* A call as one rank makes it. The buffers are in blocks of `count` elements. */
typedef struct cinch_invocation {
    const void *send; /* NULL where the rank has none */
    void *recv;
    size_t count;
    cinchDataType_t dtype;
    cinchRedOp_t redop; /* of operations that reduce */
    int root;           /* of operations that have one */
    int rank, nranks;
    cinchStream_t stream;
} cinch_invocation;

typedef enum { CINCH_NO_BLOCK, CINCH_ONE_BLOCK, CINCH_ALL_BLOCKS } cinch_blocks;

/* Whose values a block of the result holds. */
typedef enum {
    CINCH_FROM_ALL,  /* the reduction of every rank's */
    CINCH_FROM_EACH, /* block b: rank b's */
    CINCH_FROM_ROOT,
    CINCH_FROM_LEFT /* rank - 1, around */
} cinch_source;

#define CINCH_EVERY_RANK (-1) /* in the place of a rank: the reduction of all */

typedef struct cinch_operation {
    const char *name;     /* as a user and cinchCommDescribePlan know it */
    cinch_blocks send[2]; /* of a rank; of the root, or where there is none the same */
    cinch_blocks recv[2]; /* likewise */
    cinch_source source;
    bool own_block; /* of the source's input, the block with this rank's number; else the first */
    bool rooted;
    bool in_place;     /* it may be called so */
    bool compressible; /* CINCH_CODEC_OPS may have it */
    int shares;        /* the bus carries shares * (n-1)/n of the bytes; 0: all of them */
    cinchResult_t (*call)(const cinch_invocation *call, cinchComm_t comm);
} cinch_operation;

extern const cinch_operation cinch_operations[];
extern const char *const cinch_operation_names[]; /* in the same order; ends with NULL */

/* Blocks of the buffers of `rank`. */
int cinch_send_blocks(const cinch_operation *operation, int rank, int nranks, int root);
int cinch_recv_blocks(const cinch_operation *operation, int rank, int nranks, int root);

/* Blocks that `bytes` counts, as nccl-tests has it: those of the longest buffer. */
int cinch_total_blocks(const cinch_operation *operation, int nranks);

/* Whether its result is a reduction, and whether every rank gets the same one. */
bool cinch_reduces(const cinch_operation *operation);
bool cinch_same_everywhere(const cinch_operation *operation);

/* What block `block` of rank's result is made of: the values of *source (or of CINCH_EVERY_RANK)
 * that stand in block *at of its input. */
void cinch_block_source(const cinch_operation *operation, int rank, int nranks, int root, int block,
                        int *source, int *at);

/* What the bandwidth of the algorithm is multiplied with to get that of the bus. */
double cinch_bus_factor(const cinch_operation *operation, int nranks);

#endif

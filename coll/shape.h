/* SPDX-License-Identifier: Apache-2.0 */
/* What each collective means: whose input goes where. Everything else that knows one collective
 * from another asks here. */
#ifndef CINCH_COLL_SHAPE_H_
#define CINCH_COLL_SHAPE_H_

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    CINCH_ALLREDUCE,
    CINCH_REDUCESCATTER,
    CINCH_ALLGATHER,
    CINCH_BROADCAST,
    CINCH_REDUCE,
    CINCH_ALLTOALL,
    CINCH_GATHER,
    CINCH_SCATTER,
    CINCH_SENDRECV, /* messages between pairs; it has no schedule */
    CINCH_COLLECTIVES
} cinch_collective;

typedef struct cinch_shape {
    const char *name; /* as in CINCH_ALGO and `cinch perf` */
    bool reduces;
    bool in_n, out_n;       /* the send or receive buffer has a block for each rank, else one */
    bool in_root, out_root; /* only the root's send or receive buffer is used */
} cinch_shape;

extern const cinch_shape cinch_shapes[CINCH_COLLECTIVES];

/* The collective of that name; CINCH_COLLECTIVES: there is none. */
cinch_collective cinch_collective_find(const char *name, size_t length);

static inline const cinch_shape *cinch_shape_of(cinch_collective collective) {
    return &cinch_shapes[collective];
}
static inline bool cinch_shape_rooted(const cinch_shape *shape) {
    return shape->in_root || shape->out_root;
}
static inline bool cinch_shape_sends(const cinch_shape *shape, int rank, int root) {
    return !shape->in_root || rank == root;
}
static inline bool cinch_shape_gets(const cinch_shape *shape, int rank, int root) {
    return !shape->out_root || rank == root;
}
static inline int cinch_shape_in_blocks(const cinch_shape *shape, int nranks) {
    return shape->in_n ? nranks : 1;
}
static inline int cinch_shape_out_blocks(const cinch_shape *shape, int nranks) {
    return shape->out_n ? nranks : 1;
}
/* Blocks of the message as `cinch perf` and NCCL's tests count its bytes. */
static inline int cinch_shape_blocks(const cinch_shape *shape, int nranks) {
    return shape->in_n || shape->out_n ? nranks : 1;
}

/* In place the buffers are one piece of memory, in which the send buffer begins at block in_base
 * and the receive buffer at out_base. An all-to-all is never in place: there they lie apart. */
static inline int cinch_shape_in_base(const cinch_shape *shape, int rank) {
    return shape->out_n && !shape->in_n ? rank : 0;
}
static inline int cinch_shape_out_base(const cinch_shape *shape, int rank, int nranks) {
    return shape->in_n ? (shape->out_n ? nranks : rank) : 0;
}
static inline bool cinch_shape_never_in_place(const cinch_shape *shape) {
    return shape->in_n && shape->out_n;
}

/* A number for the piece of the whole that is in block `block` of a rank's send or receive buffer:
 * who it is from, and for whom, where that makes a difference. */
static inline int cinch_shape_piece_in(const cinch_shape *shape, int rank, int block, int nranks) {
    return (shape->out_n ? rank : nranks) * (nranks + 1) + (shape->in_n ? block : nranks);
}
static inline int cinch_shape_piece_out(const cinch_shape *shape, int rank, int block, int nranks) {
    return (shape->out_n ? block : nranks) * (nranks + 1) + (shape->in_n ? rank : nranks);
}

/* Whether the input of rank `from` is in block `block` of a receive buffer. */
static inline bool cinch_shape_holds(const cinch_shape *shape, int block, int from, int root) {
    if (shape->reduces) return true;
    return shape->out_n ? from == block : from == root;
}

#endif

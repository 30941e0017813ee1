/* SPDX-License-Identifier: Apache-2.0 */
/* One operation of one rank, and the engine that runs schedules. */
#ifndef CINCH_COLL_ENGINE_H_
#define CINCH_COLL_ENGINE_H_

#include "coll/comm.h"

/* What was called. */
typedef struct cinch_called {
    struct cinchComm *comm;
    cinch_collective collective;
    int root;      /* where the collective has one; of a message between a pair: the peer */
    bool receives; /* a message between a pair: this rank's part of it */
    const void *send;
    void *recv;
    size_t count; /* of a block */
    cinchDataType_t dtype;
    cinchRedOp_t redop; /* sum, prod, max, min or avg */
    bool premul;        /* the input is multiplied by the scalar first */
    unsigned char scalar[8];
    const void *device_scalar; /* read when the operation runs, in place of scalar; or NULL */
    cinchStream_t stream;
    const struct cinch_device_ops *on; /* whose memory the buffers are; NULL: the host's */
    int device;                        /* which of that table's */
} cinch_called;

/* What ranks must agree on in a call, in 32 bits. */
static inline uint32_t cinch_called_signature(const cinch_called *call) {
    return (uint32_t)call->count * 2654435761u ^ (uint32_t)(call->count >> 32) ^
           (uint32_t)call->dtype << 8 ^ (uint32_t)call->redop << 4 ^ (uint32_t)call->premul ^
           (uint32_t)call->collective << 12 ^ (uint32_t)call->root << 16;
}

/* "allreduce number 5 (1024 of float)", for sentences. */
#define CINCH_CALLED_TEXT 96
const char *cinch_called_text(const cinch_called *call, uint64_t number,
                              char text[CINCH_CALLED_TEXT]);

/* InvalidUsage: the flag of `peer`, which has just been seen raised, belongs to another call. */
cinchResult_t cinch_called_differs(const cinch_called *call, int peer) __attribute__((cold));

/* One message between a pair of ranks. */
typedef struct cinch_p2p {
    struct cinch_p2p *next;
    void *data;
    size_t bytes;
    cinchDataType_t dtype;
    int peer;
    bool receives;
    bool on_device;
    bool done;            /* of a message to itself */
    cinchStream_t stream; /* of its call */
    cinch_msg msg;
} cinch_p2p;

typedef struct cinch_op {
    cinch_called call;
    cinch_p2p *p2p;  /* CINCH_SENDRECV: the messages of a group, in the order of their calls */
    uint64_t number; /* in the communicator's order */
    bool late;       /* that is not known so far: see coll/graph.h */
    bool recorded;   /* among the last calls of the communicator */
    struct cinch_op *next;

    /* how it stands */
    enum { CINCH_OP_NEW, CINCH_OP_ENTERING, CINCH_OP_RUNNING, CINCH_OP_DONE } state;
    cinchResult_t result;
    uint64_t began; /* ticks */

    /* how it runs, from cinch_op_plan on */
    const cinch_algo *algo;
    const cinch_schedule *schedule;
    const void *source; /* send, or recv where the input was multiplied into it */
    cinch_cut cut;
    size_t esize;
    bool encoded, mapped;
    uint8_t codecs; /* bit per CINCH_CODEC_* that the call is compressed with */
    cinch_reduce_fn reduce;
    bool stream_out;    /* the results will not stay in the cache */
    uint64_t base;      /* flags of round t are raised to base + t + 1 */
    uint32_t signature; /* shown beside every flag */
    size_t iteration;
    int item;
    cinch_msg *msg;                          /* [depth * nmsg] */
    unsigned char *tmp, *box, *wire, *work;  /* private scratch */
    size_t tmp_bytes, box_bytes, wire_bytes; /* of a slot */
    size_t *wire_length;                     /* [depth * nwire] encoded bytes in each */
    const void **src;                        /* [n + 2], for one item */
    void **dst;
    cinch_codec_term *term;              /* [n + 2] */
    unsigned char **peer_in, **peer_out; /* [n] where mapped */
    cinch_ef *ef;
    const void *codec_state[CINCH_CODEC_COUNT]; /* of the whole input, where the codec wants that */
    uint64_t codec_ticks, nonfinite;
    struct cinch_gpu_comm *gpu; /* where it runs on a device; see coll/gpu.h */

    /* what it waits for */
    cinch_flag *blocked_flag; /* NULL: a message */
    uint64_t blocked_value;   /* the value seen there */
    int blocked_peer;
} cinch_op;

/* By how many ranks the item divides its sum; 0: it does not. */
static inline int cinch_op_avg(const cinch_op *op, const cinch_item *item) {
    return op->call.redop == cinchAvg && (item->flags & CINCH_FINAL) ? op->call.comm->nranks : 0;
}

/* Chooses algorithm, cut and codec, and reserves scratch. Called when it is the operation's turn.
 */
cinchResult_t cinch_op_plan(cinch_op *op);

/* After a plan that ended in CINCH_OP_ENTERING: goes on once every rank has entered. */
cinchResult_t cinch_op_enter(cinch_op *op, bool *moved);

/* A call of the communicator as the algorithms see it. block: bytes of one. */
cinch_call cinch_op_call(const struct cinchComm *comm, cinch_collective collective, int root,
                         size_t block);

/* What cinch_op_plan would choose; nothing is reserved. */
cinchResult_t cinch_op_choose(const struct cinchComm *comm, const cinch_call *call,
                              cinchDataType_t dtype, const cinch_algo **algo, cinch_cut *cut);

/* With which codecs such a call is compressed: bits 1 << CINCH_CODEC_*; and what the algorithms are
 * told of that. */
unsigned cinch_op_codecs(const struct cinchComm *comm, const cinch_candidate *candidate);
void cinch_call_set_codecs(cinch_call *call, unsigned codecs);

/* A codec in force. */
static inline const cinch_codec *cinch_codec_in_force(const struct cinchComm *comm,
                                                      cinch_codec_index index) {
    return index == CINCH_CODEC_INSIDE ? &comm->policy.inside : &comm->policy.codec;
}

/* How long a collective of so many bytes, all blocks together, will take, in microseconds: by what
 * was measured, else by the guesses that rank algorithms; NaN where neither says anything. */
double cinch_op_predict(const struct cinchComm *comm, cinch_collective collective, size_t bytes,
                        bool encoded);

/* What the call's error feedback belongs to. */
cinch_ef_key cinch_op_key(const cinch_op *op);

/* Frees what was kept for the communicator's operations. */
void cinch_op_forget(struct cinchComm *comm);

/* Runs the schedule until it is done or must wait. *moved tells whether anything happened. */
cinchResult_t cinch_op_progress(cinch_op *op, bool *moved);

/* CINCH_SENDRECV, in place of the three above. Begin posts all messages. */
cinchResult_t cinch_p2p_begin(cinch_op *op);
cinchResult_t cinch_p2p_progress(cinch_op *op, bool *moved);

/* Where ref's elements of the round are, how many; and the tag of a message. */
unsigned char *cinch_op_place(const cinch_op *op, const cinch_ref *ref, size_t round,
                              size_t *length);
uint64_t cinch_op_tag(const cinch_op *op, size_t round, unsigned mark);

/* Lets the links of the communicator move. *some: a message was completed; *peer: one whose
 * messages are not. */
cinchResult_t cinch_op_pump(const struct cinchComm *comm, bool *some, int *peer);

/* Runs operations until all are complete; those of one communicator are in order of their numbers.
 * One whose result is a failure already ends with that. Every op's result is set; returns the first
 * failure. The calling thread does all the work. */
cinchResult_t cinch_engine_run(cinch_op *list);

/* Runs one operation as a part of the join, before any other has its turn. Collective. */
cinchResult_t cinch_engine_run_inside(const cinch_called *call);

/* The fused executor: one-shot for a message of one small slot, the same schedule written out. It
 * must be the operation's turn. */
cinchResult_t cinch_fused_oneshot(const cinch_called *call);

/* ---- waiting ---- */

typedef struct cinch_idle {
    uint64_t began; /* ticks, 0: just now */
    unsigned yields;
    uint64_t since_ns;               /* 0: not sleeping yet */
    uint64_t asked_ns, condemned_ns; /* see coll/watch.c */
    bool warned;
} cinch_idle;

/* One step of waiting: first spins, then sleeps, watching for aborts, failures of other ranks and
 * timeouts of the operations that stand at the head of the list. A failure ends in ops' results. */
void cinch_idle_step(cinch_idle *idle, cinch_op *list);

#endif

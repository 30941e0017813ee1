/* SPDX-License-Identifier: Apache-2.0 */
/* A compressed all-reduce above the real library, in steps, and several of them side by side. */
#ifndef CINCH_COLL_NCCL_STEPS_H_
#define CINCH_COLL_NCCL_STEPS_H_

#include "coll/nccl/side.h"
#include "coll/schedule.h"
#include "compress/cuda/kernels.h"

/* The most ranks that exchange encoded messages: as many terms as one launch sums. */
#define CINCH_WANTED_RANKS CINCH_CUDA_TERMS

/* An all-reduce of the caller's, and how it runs. */
typedef struct cinch_wanted {
    struct cinch_wanted *next;
    cinch_side *side;
    const void *send;
    void *recv;
    size_t count;
    cinchDataType_t dtype;
    cinchRedOp_t op;
    cinchStream_t stream; /* where it runs; of a group on several, the first's */
    cinchStream_t caller; /* as it was given */
    uint64_t call;        /* the communicator's number */
    bool compress;
    bool over, running;
    bool keyed; /* error feedback belongs to this key; else to the send pointer */
    cinch_ef_key key;

    /* From cinch_wanted_plan on. */
    size_t esize;
    const unsigned char *in; /* what the ranks of `flat` exchange, and where the result goes: the */
    unsigned char *out;      /* caller's, or the share that this host's ranks have left it */
    size_t length;           /* elements there */
    bool inside;             /* hosts are summed first */
    cinch_cut cut;
    cinchStream_t net;
    int parts, depth;                   /* depth: rounds whose messages exist at once */
    size_t slot;                        /* bytes of an encoded part */
    unsigned char *sent, *got, *result; /* [depth][parts][slot] each */
    unsigned char *share;
    float *box;
    cinch_residual *residual;
} cinch_wanted;

/* What the kernels counted up to the last call whose end the device has reached: Success, or the
 * communicator's failure. */
cinchResult_t cinch_side_look_back(cinch_side *side);

/* Whether a call of a communicator that compresses is one to be compressed; and whether its stream
 * is captured, in which case it is not, which is said once. */
bool cinch_wanted_eligible(const cinch_side *side, const cinch_wanted *w);
cinchResult_t cinch_wanted_captured(cinch_wanted *w, bool *is);

/* Runs the list's compressed all-reduces; the streams that a communicator has there join before and
 * part behind. *ours as in forward.h. */
cinchResult_t cinch_wanted_launch(cinch_wanted *list, bool *ours);

/* Runs the list's compressed all-reduces, a wave of one per communicator at a time: each step is
 * one group of the real library over all of them, as NCCL wants it where one thread drives several
 * ranks. *ours as in forward.h. */
cinchResult_t cinch_wanted_run(cinch_wanted *list, bool *ours);

#endif

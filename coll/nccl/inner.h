/* SPDX-License-Identifier: Apache-2.0 */
/* Communicators of libcinch's own whose calls on device memory go by the real NCCL: an inner
 * communicator of it beside each, made at the first such call where every rank has a GPU of its own
 * and the same NCCL. */
#ifndef CINCH_COLL_NCCL_INNER_H_
#define CINCH_COLL_NCCL_INNER_H_

#include "coll/engine.h"
#include "coll/nccl/side.h"

typedef struct cinch_inner {
    struct cinchComm *comm;
    cinch_forward forward;     /* of this communicator alone; its settings are the communicator's */
    cinch_side *side;          /* and the inner communicator with what is kept beside it */
    cinch_codec codec, inside; /* those in force when the side's codec was decided */
    bool automatic, decided;
    bool ended;            /* the inner communicator is gone */
    uint64_t calls, bytes; /* calls by NCCL, and bytes of their buffers */
} cinch_inner;

/* Whether this rank could try, by its settings and its build: what ranks tell each other when they
 * join. */
bool cinch_inner_possible(const struct cinchComm *comm);

/* When it is made, by the calling thread: on which GPU its calls will be, as far as that can be
 * told: the selected one, or that of the communicator out of which it is made. Afterwards, whether
 * this rank has a GPU and no NCCL, which loads it. */
void cinch_inner_note(struct cinchComm *comm, const struct cinchComm *parent);
bool cinch_inner_without(const struct cinchComm *comm);

/* Why no communicator of this process would go by NCCL, as a clause in `room`; NULL: it could.
 * Looks for the library and for GPUs: for tools. */
const char *cinch_inner_unusable(const cinch_settings *settings, char room[CINCH_ERROR_TEXT]);

/* Of a list that is to be launched: queues what goes by NCCL on its streams, takes it out of the
 * list and frees it. A communicator's first call on device memory waits until all its ranks have
 * come to theirs. What fails there is the communicators' failure. */
cinchResult_t cinch_inner_launch(cinch_op **ops);

/* What NCCL or kernels have found wrong since becomes the communicator's failure. Any thread. */
void cinch_inner_look(struct cinchComm *comm);

/* Adds its calls to the communicator's. */
void cinch_inner_count(const struct cinchComm *comm, cinchStats_t *stats);

/* Brings error feedback that is on the device to comm->ef; for_good: the device asks there again.
 * Blocks. (inner_state.c) */
cinchResult_t cinch_inner_residuals_back(struct cinchComm *comm, bool for_good);
cinchResult_t cinch_inner_seed(void *owner, const cinch_ef_key *key, cinch_residual *residual,
                               bool *seeded);

/* Until the device has come to the end of what was queued for compressed calls; false: it does not
 * in 10 s. */
bool cinch_inner_await(const cinch_side *side);

/* Ends the inner communicator at once, whatever hangs there, after the calls that other threads
 * are in. */
void cinch_inner_stop(struct cinchComm *comm);

/* Ends it, in good order where nothing has failed, and frees all of it. */
void cinch_inner_close(struct cinchComm *comm);

/* What came of the first call of each of so many communicators. Collective over the ranks of each;
 * blocks. (inner_meet.c) */
cinchResult_t cinch_inner_meet(struct cinchComm *const *comms, int count);

/* Makes what is beside `handle`, which is the inner communicator's from then on. (inner.c) */
cinchResult_t cinch_inner_make(struct cinchComm *comm, const cinch_real *real, cinchComm_t handle);

/* This thread's last sentence: what NCCL says of its failure `code`. Returns it. */
cinchResult_t cinch_inner_told(const cinch_real *real, cinchResult_t code, const char *what);

#endif

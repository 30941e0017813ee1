/* SPDX-License-Identifier: Apache-2.0 */
/* Forward mode with a codec: the real NCCL moves what cinch compresses. */
#ifndef CINCH_COLL_NCCL_FORWARD_H_
#define CINCH_COLL_NCCL_FORWARD_H_

#include "coll/nccl/real.h"
#include "coll/policy.h"

typedef struct cinch_forward cinch_forward;

/* Where the settings ask for a codec that forward mode can serve: *out, which owns the settings
 * from then on. Else Success with *out NULL and in `why` why nothing is compressed, as the end of a
 * sentence; InvalidUsage where a setting is wrong: `why` is the sentence. */
cinchResult_t cinch_forward_open(cinch_settings *settings, const cinch_real *real,
                                 cinch_forward **out, char why[CINCH_ERROR_TEXT]);

/* Frees it, with what is left of communicators that were never destroyed. */
void cinch_forward_close(cinch_forward *forward);

/* The calls that go by here, as the real library has them. *ours: a failure is not the real
 * library's, and this thread's sentence tells it. */
cinchResult_t cinch_forward_allreduce(cinch_forward *forward, const void *send, void *recv,
                                      size_t count, cinchDataType_t dtype, cinchRedOp_t op,
                                      cinchComm_t comm, cinchStream_t stream, bool *ours);
cinchResult_t cinch_forward_group_start(cinch_forward *forward);
cinchResult_t cinch_forward_group_end(cinch_forward *forward, bool *ours);
cinchResult_t cinch_forward_group_simulate(cinch_forward *forward, cinchSimInfo_t *info);
cinchResult_t cinch_forward_destroy(cinch_forward *forward, cinchComm_t comm);
cinchResult_t cinch_forward_abort(cinch_forward *forward, cinchComm_t comm);
cinchResult_t cinch_forward_async_error(cinch_forward *forward, cinchComm_t comm,
                                        cinchResult_t *state);

/* What went wrong on the communicator, of ours; NULL: nothing. Valid until it is destroyed. */
const char *cinch_forward_why(cinch_forward *forward, cinchComm_t comm);

/* For tests and tools: all-reduces of the communicator, those compressed, and residuals' bytes. */
typedef struct cinch_forward_stats {
    uint64_t calls, compressed, ef_bytes, ef_dropped;
} cinch_forward_stats;
bool cinch_forward_look(cinch_forward *forward, cinchComm_t comm, cinch_forward_stats *stats);

#endif

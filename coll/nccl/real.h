/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of the real NCCL that are called here. Handles and arguments are its own. */
#ifndef CINCH_COLL_NCCL_REAL_H_
#define CINCH_COLL_NCCL_REAL_H_

#include <stdbool.h>

#include "base/status.h"

/* By which compressed all-reduces go. */
#define CINCH_REAL_NEEDED(X)                                                                       \
    X(AllGather)                                                                                   \
    X(AllReduce)                                                                                   \
    X(CommAbort)                                                                                   \
    X(CommCount)                                                                                   \
    X(CommCuDevice)                                                                                \
    X(CommDestroy)                                                                                 \
    X(CommGetAsyncError)                                                                           \
    X(CommUserRank)                                                                                \
    X(GroupEnd)                                                                                    \
    X(GroupStart)                                                                                  \
    X(Recv)                                                                                        \
    X(ReduceScatter)                                                                               \
    X(Send)

/* And by which communicators of libcinch's own go. */
#define CINCH_REAL_INNER(X)                                                                        \
    X(Broadcast)                                                                                   \
    X(CommInitRankConfig)                                                                          \
    X(GetUniqueId)                                                                                 \
    X(RedOpCreatePreMulSum)                                                                        \
    X(RedOpDestroy)                                                                                \
    X(Reduce)

/* NULL where the library lacks it. */
#define CINCH_REAL_OPTIONAL(X)                                                                     \
    X(CommSplit)        /* since 2.18 */                                                           \
    X(GetLastError)     /* since 2.13 */                                                           \
    X(GroupSimulateEnd) /* since 2.22 */

typedef struct cinch_real {
#define X(name) __typeof__(cinch##name) *name;
    CINCH_REAL_NEEDED(X)
    CINCH_REAL_INNER(X)
    CINCH_REAL_OPTIONAL(X)
#undef X
} cinch_real;

/* The functions of the library that `handle` is; NULL each that it has not. */
void cinch_real_resolve(void *handle, cinch_real *out);

/* Finds and loads it, as find.h has it, once in a process; `chosen` is CINCH_NCCL_PATH. False: a
 * clause in why. *version as ncclGetVersion has it. Any thread. */
bool cinch_real_load(const char *chosen, cinch_real *out, int *version, char why[CINCH_ERROR_TEXT]);

#endif

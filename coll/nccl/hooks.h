/* SPDX-License-Identifier: Apache-2.0 */
/* The entries that forward mode with a codec takes for itself. */
#ifndef CINCH_COLL_NCCL_HOOKS_H_
#define CINCH_COLL_NCCL_HOOKS_H_

#include "base/settings.h"

typedef void (*cinch_nccl_function)(void);

/* As cinch_forward_open, with the functions of the library that `handle` is. True: they are in
 * force, and `settings` is theirs. InvalidUsage in *result: a setting is wrong. */
bool cinch_nccl_hooks_open(cinch_settings *settings, void *handle, cinchResult_t *result,
                           char why[CINCH_ERROR_TEXT]);

/* What takes calls of ncclNAME in place of the real library; NULL: nothing does. */
cinch_nccl_function cinch_nccl_hook(const char *name);

/* What went wrong on the communicator here; NULL: nothing. */
const char *cinch_nccl_hooks_why(cinchComm_t comm);

/* Of dropin.c: the call that fails now does so by us, not by the real library. */
void cinch_nccl_ours(void);

#endif

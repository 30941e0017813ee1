/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of a program that go by coll/nccl/forward.h. What the real library calls of itself while
 * we call it goes straight back to it. */
#include "coll/nccl/hooks.h"

#include <string.h>

#include "coll/nccl/forward.h"

static cinch_real real;
static cinch_forward *forward; /* NULL: nothing is hooked */
static _Thread_local bool inside;

static cinchResult_t leave(cinchResult_t result, bool ours) {
    inside = false;
    if (ours && result != cinchSuccess) cinch_nccl_ours();
    return result;
}

static cinchResult_t all_reduce(const void *send, void *recv, size_t count, cinchDataType_t dtype,
                                cinchRedOp_t op, cinchComm_t comm, cinchStream_t stream) {
    bool ours = false;
    if (inside) return real.AllReduce(send, recv, count, dtype, op, comm, stream);
    inside = true;
    cinchResult_t result =
        cinch_forward_allreduce(forward, send, recv, count, dtype, op, comm, stream, &ours);
    return leave(result, ours);
}

static cinchResult_t group_start(void) {
    if (inside) return real.GroupStart();
    inside = true;
    return leave(cinch_forward_group_start(forward), false);
}

static cinchResult_t group_end(void) {
    bool ours = false;
    if (inside) return real.GroupEnd();
    inside = true;
    cinchResult_t result = cinch_forward_group_end(forward, &ours);
    return leave(result, ours);
}

static cinchResult_t group_simulate(cinchSimInfo_t *info) {
    if (inside) return real.GroupSimulateEnd(info);
    inside = true;
    return leave(cinch_forward_group_simulate(forward, info), false);
}

static cinchResult_t comm_destroy(cinchComm_t comm) {
    if (inside) return real.CommDestroy(comm);
    inside = true;
    return leave(cinch_forward_destroy(forward, comm), false);
}

static cinchResult_t comm_abort(cinchComm_t comm) {
    if (inside) return real.CommAbort(comm);
    inside = true;
    return leave(cinch_forward_abort(forward, comm), false);
}

static cinchResult_t comm_async_error(cinchComm_t comm, cinchResult_t *state) {
    if (inside) return real.CommGetAsyncError(comm, state);
    inside = true;
    return leave(cinch_forward_async_error(forward, comm, state), false);
}

cinch_nccl_function cinch_nccl_hook(const char *name) {
    static const struct {
        const char *name;
        cinch_nccl_function function;
    } hooks[] = {{"ncclAllReduce", (cinch_nccl_function)all_reduce},
                 {"ncclGroupStart", (cinch_nccl_function)group_start},
                 {"ncclGroupEnd", (cinch_nccl_function)group_end},
                 {"ncclGroupSimulateEnd", (cinch_nccl_function)group_simulate},
                 {"ncclCommDestroy", (cinch_nccl_function)comm_destroy},
                 {"ncclCommAbort", (cinch_nccl_function)comm_abort},
                 {"ncclCommGetAsyncError", (cinch_nccl_function)comm_async_error}};
    for (size_t i = 0; forward && i < sizeof hooks / sizeof *hooks; i++)
        if (strcmp(name, hooks[i].name) == 0) return hooks[i].function;
    return NULL;
}

bool cinch_nccl_hooks_open(cinch_settings *settings, void *handle, cinchResult_t *result,
                           char why[CINCH_ERROR_TEXT]) {
    cinch_real_resolve(handle, &real);
    *result = cinch_forward_open(settings, &real, &forward, why);
    return forward != NULL;
}

const char *cinch_nccl_hooks_why(cinchComm_t comm) {
    return forward ? cinch_forward_why(forward, comm) : NULL;
}

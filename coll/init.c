/* SPDX-License-Identifier: Apache-2.0 */
/* Ids, inits, and what messages and logs say: functions that need no communicator. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coll/making.h"

cinchResult_t cinchGetVersion(int *version) {
    if (!version) return cinch_fail(cinchInvalidArgument, "version is NULL");
    *version = CINCH_VERSION_CODE;
    return cinchSuccess;
}

cinchResult_t cinchGetUniqueId(cinchUniqueId *uniqueId) {
    if (!uniqueId) return cinch_fail(cinchInvalidArgument, "uniqueId is NULL");
    cinch_settings settings;
    char why[CINCH_ERROR_TEXT];
    bool good = cinch_settings_load(&settings, why);
    /* A bad setting is told to all ranks when this one joins; here only what the id needs counts.
     */
    if (!good) cinch_debug("%s", why);
    cinchResult_t result = cinch_rendezvous_id(&settings, uniqueId);
    cinch_settings_free(&settings);
    return result;
}

static cinchResult_t check_init(cinchComm_t *comm, int nranks, int rank) {
    if (!comm) return cinch_fail(cinchInvalidArgument, "comm is NULL");
    *comm = NULL;
    if (nranks < 1 || rank < 0 || rank >= nranks)
        return cinch_fail(cinchInvalidArgument, "rank %d of %d: 0 <= rank < nranks is accepted",
                          rank, nranks);
    return cinchSuccess;
}

static cinchResult_t prepare(cinch_making *call, cinchComm_t *comm, int nranks,
                             const cinchUniqueId *id, int rank, const cinchConfig_t *config) {
    *call = (cinch_making){
        .kind = CINCH_MAKE_INIT, .out = comm, .id = *id, .rank = rank, .nranks = nranks};
    cinchResult_t result = cinch_comm_new(config, NULL, &call->refusal, &call->comm);
    cinch_making_excuse(call, result);
    CINCH_TRY(result);
    call->comm->nranks = nranks;
    call->comm->rank = rank;
    return cinchSuccess;
}

cinchResult_t cinchCommInitRankConfig(cinchComm_t *comm, int nranks, cinchUniqueId commId, int rank,
                                      cinchConfig_t *config) {
    cinch_making call;
    cinchResult_t result = check_init(comm, nranks, rank);
    if (result == cinchSuccess) result = prepare(&call, comm, nranks, &commId, rank, config);
    return result == cinchSuccess ? cinch_make(&call) : cinch_making_refuse(result);
}

cinchResult_t cinchCommInitRank(cinchComm_t *comm, int nranks, cinchUniqueId commId, int rank) {
    return cinchCommInitRankConfig(comm, nranks, commId, rank, NULL);
}

static cinchResult_t check_ids(int nranks, int count, const cinchUniqueId *ids) {
    if (!ids) return cinch_fail(cinchInvalidArgument, "commIds is NULL");
    if (count >= 1 && count <= nranks) return cinchSuccess;
    return cinch_fail(cinchInvalidArgument, "nId %d: 1 to nranks, %d, are accepted", count, nranks);
}

cinchResult_t cinchCommInitRankScalable(cinchComm_t *newcomm, int nranks, int myrank, int nId,
                                        cinchUniqueId *commIds, cinchConfig_t *config) {
    cinchResult_t result = check_init(newcomm, nranks, myrank);
    if (result == cinchSuccess) result = check_ids(nranks, nId, commIds);
    if (result != cinchSuccess) return cinch_making_refuse(result);
    for (int i = 1; i < nId; i++)
        if (memcmp(&commIds[i], &commIds[0], sizeof commIds[0]) != 0)
            cinch_rendezvous_forget(&commIds[i]);
    return cinchCommInitRankConfig(newcomm, nranks, commIds[0], myrank, config);
}

cinchResult_t cinchCommInitAll(cinchComm_t *comms, int ndev, const int *devlist) {
    (void)devlist; /* without CUDA devices there is nothing to choose */
    if (!comms || ndev < 1)
        return cinch_fail(cinchInvalidArgument,
                          comms ? "ndev %d: one or more is accepted" : "comms is NULL", ndev);
    cinch_making *list = calloc((size_t)ndev, sizeof *list);
    if (!list) return cinch_fail(cinchSystemError, "out of memory for %d ranks", ndev);
    cinch_settings settings;
    cinchUniqueId id;
    char why[CINCH_ERROR_TEXT];
    int made = 0;
    cinch_settings_load(&settings, why);
    settings.comm_id[0] = '\0'; /* all ranks are in this process: they meet here */
    cinchResult_t result = cinch_rendezvous_id(&settings, &id);
    cinch_settings_free(&settings);
    for (int i = 0; i < ndev; i++) comms[i] = NULL;
    for (; made < ndev && result == cinchSuccess; made += result == cinchSuccess) {
        result = prepare(&list[made], &comms[made], ndev, &id, made, NULL);
        if (result == cinchSuccess) list[made].comm->homed = false; /* each has its own later */
        if (made && result == cinchSuccess) list[made - 1].next = &list[made];
    }
    if (result == cinchSuccess)
        result = cinch_make_all(list);
    else
        for (int i = 0; i < made; i++) cinch_comm_release(list[i].comm);
    free(list);
    return result;
}

void cinchResetDebugInit(void) {
    cinch_settings settings;
    char why[CINCH_ERROR_TEXT];
    /* Loading them sets the log up; what is wrong with others is told where they matter. */
    if (!cinch_settings_load(&settings, why)) cinch_debug("%s", why);
    cinch_settings_free(&settings);
}

const char *cinchGetErrorString(cinchResult_t result) {
    switch (result) {
    case cinchSuccess:
        return "no error";
    case cinchUnhandledCudaError:
        return "unhandled cuda error";
    case cinchSystemError:
        return "unhandled system error";
    case cinchInternalError:
        return "internal error";
    case cinchInvalidArgument:
        return "invalid argument";
    case cinchInvalidUsage:
        return "invalid usage";
    case cinchRemoteError:
        return "remote process exited or there was a network error";
    case cinchInProgress:
        return "operation in progress";
    default:
        return "unknown result code";
    }
}

const char *cinchGetLastError(cinchComm_t comm) {
    if (comm && comm->magic == CINCH_COMM_MAGIC && atomic_load(&comm->failed) != cinchSuccess)
        return comm->why; /* written before `failed`, never again */
    return cinch_last_error();
}

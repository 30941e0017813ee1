/* SPDX-License-Identifier: Apache-2.0 */
/* Ids and inits: the public ways to a communicator. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coll/group.h"

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

cinchResult_t cinchCommInitRankConfig(cinchComm_t *comm, int nranks, cinchUniqueId commId, int rank,
                                      cinchConfig_t *config) {
    if (!comm) return cinch_fail(cinchInvalidArgument, "comm is NULL");
    *comm = NULL;
    if (nranks < 1 || rank < 0 || rank >= nranks)
        return cinch_fail(cinchInvalidArgument, "rank %d of %d: 0 <= rank < nranks is accepted",
                          rank, nranks);
    if (cinch_group_depth()) return cinch_group_submit_init(comm, nranks, &commId, rank, config);
    return cinch_comm_create(comm, nranks, &commId, rank, config);
}

cinchResult_t cinchCommInitRank(cinchComm_t *comm, int nranks, cinchUniqueId commId, int rank) {
    return cinchCommInitRankConfig(comm, nranks, commId, rank, NULL);
}

static void *init_thread(void *arg) {
    cinch_init *init = arg;
    init->result = cinch_comm_create(init->comm, init->nranks, &init->id, init->rank,
                                     init->configured ? &init->config : NULL);
    if (init->result != cinchSuccess) strncpy(init->why, cinch_last_error(), sizeof init->why - 1);
    return NULL;
}

cinchResult_t cinch_init_run(cinch_init *list) {
    cinchResult_t result = cinchSuccess;
    cinch_init *unstarted = list;
    for (; unstarted; unstarted = unstarted->next) {
        int err = pthread_create(&unstarted->thread, NULL, init_thread, unstarted);
        if (err != 0) {
            result = cinch_fail_errno(err, "cannot start a thread for an init");
            break;
        }
    }
    for (cinch_init *init = list; init != unstarted; init = init->next) {
        pthread_join(init->thread, NULL);
        if (init->result != cinchSuccess && result == cinchSuccess)
            result = cinch_fail_quiet(init->result, "%s", init->why);
    }
    if (result == cinchSuccess) return result;
    for (cinch_init *init = list; init != unstarted; init = init->next)
        if (init->result == cinchSuccess) {
            cinchCommAbort(*init->comm);
            *init->comm = NULL;
        }
    return result;
}

cinchResult_t cinchCommInitAll(cinchComm_t *comms, int ndev, const int *devlist) {
    (void)devlist; /* without CUDA devices there is nothing to choose */
    if (!comms || ndev < 1)
        return cinch_fail(cinchInvalidArgument,
                          comms ? "ndev %d: one or more is accepted" : "comms is NULL", ndev);
    cinch_init *list = calloc((size_t)ndev, sizeof *list);
    if (!list) return cinch_fail(cinchSystemError, "out of memory for %d ranks", ndev);
    cinch_settings settings;
    char why[CINCH_ERROR_TEXT];
    cinch_settings_load(&settings, why);
    settings.comm_id[0] = '\0'; /* all ranks are in this process: they meet here */
    cinchResult_t result = cinch_rendezvous_id(&settings, &list[0].id);
    cinch_settings_free(&settings);
    for (int i = 0; i < ndev; i++) {
        list[i].next = i + 1 < ndev ? &list[i + 1] : NULL;
        list[i].comm = &comms[i];
        list[i].nranks = ndev;
        list[i].rank = i;
        list[i].id = list[0].id;
        comms[i] = NULL;
    }
    if (result == cinchSuccess) result = cinch_init_run(list);
    free(list);
    return result;
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

/* SPDX-License-Identifier: Apache-2.0 */
/* A communicator as such: made, asked, failing, waited for, freed. */
#include "coll/comm.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/device.h"
#include "base/log.h"
#include "coll/engine.h"
#include "coll/gpu_peer.h"
#include "coll/graph.h"
#include "coll/group.h"
#include "coll/inforce.h"
#include "coll/introspect.h"
#include "coll/nccl/inner.h"
#include "coll/report.h"
#include "coll/watch.h"

cinchResult_t cinch_comm_known(const struct cinchComm *comm) {
    bool aligned = (uintptr_t)comm % _Alignof(struct cinchComm) == 0;
    if (comm && aligned && comm->magic == CINCH_COMM_MAGIC) return cinchSuccess;
    return cinch_fail(cinchInvalidArgument, comm ? "comm is no communicator" : "comm is NULL");
}

cinchResult_t cinch_comm_check(const struct cinchComm *comm) {
    CINCH_TRY(cinch_comm_known(comm));
    if (!atomic_load_explicit(&comm->unsized, memory_order_acquire)) return cinchSuccess;
    return cinch_fail(cinchInvalidArgument,
                      "the communicator is still being split off: it serves when "
                      "cinchCommGetAsyncError does not say cinchInProgress any more");
}

/* ---- failing ---- */

/* Whether the cause comes within so many looks. */
static bool cause_comes(struct cinchComm *comm, int looks, cinchResult_t *cause) {
    enum { LOOK_MS = 10 };
    char text[CINCH_ERROR_TEXT];
    for (int i = 0; i < looks; i++) {
        struct pollfd p = {cinch_rendezvous_fd(comm->meeting), POLLIN, 0};
        *cause = cinch_rendezvous_check(comm->meeting);
        if (*cause != cinchSuccess) return true;
        if (i >= 20 && cinch_rendezvous_answer(comm->meeting, text)) return false;
        poll(&p, 1, LOOK_MS);
    }
    return false;
}

cinchResult_t cinch_comm_first_cause(struct cinchComm *comm, cinchResult_t code) {
    char why[CINCH_ERROR_TEXT], text[CINCH_ERROR_TEXT];
    cinchResult_t cause;
    if (code == cinchInvalidUsage) return cinch_watch_odd(comm, code);
    if (!comm->meeting || (code != cinchRemoteError && code != cinchSystemError)) return code;
    snprintf(why, sizeof why, "%s", cinch_last_error());
    cinch_rendezvous_ask(comm->meeting, CINCH_ASK_WAITS, -1, "");
    if (cause_comes(comm, 100, &cause)) return cause;
    int host = cinch_rendezvous_host(comm->meeting);
    if (cinch_rendezvous_lives(comm->meeting) && !cinch_rendezvous_answer(comm->meeting, text) &&
        host >= 0)
        return cinch_fail(cinchRemoteError,
                          "rank %d does not answer: stopped, or its machine hangs (its process has "
                          "the meeting point; %.250s)",
                          host, why);
    return cinch_fail_quiet(code, "%s", why);
}

void cinch_comm_told(struct cinchComm *comm, cinchResult_t code, const char *why) {
    pthread_mutex_lock(&comm->why_lock);
    /* Who aborts hears of that too. */
    if (atomic_load(&comm->failed) == cinchSuccess && !atomic_load(&comm->aborted)) {
        snprintf(comm->why, sizeof comm->why, "%s", why);
        atomic_store(&comm->failed, (int)code); /* who sees it may read the sentence */
    }
    pthread_mutex_unlock(&comm->why_lock);
    cinch_report_told();
}

cinchResult_t cinch_comm_fail(struct cinchComm *comm, cinchResult_t code) {
    if (atomic_load(&comm->failed) != cinchSuccess) return code;
    /* What was revoked has not failed: its ranks may still split it. */
    if (code == cinchInvalidUsage && atomic_load(&comm->revoked)) return code;
    pthread_mutex_lock(&comm->why_lock);
    if (atomic_load(&comm->failed) == cinchSuccess) {
        strncpy(comm->why, cinch_last_error(), sizeof comm->why - 1);
        atomic_store(&comm->failed, (int)code); /* who sees it may read the sentence */
        if (comm->meeting) cinch_rendezvous_abort(comm->meeting, comm->why);
    }
    pthread_mutex_unlock(&comm->why_lock);
    cinch_report_failed(comm);
    return code;
}

cinchResult_t cinch_comm_stopped(const struct cinchComm *comm) {
    if (atomic_load_explicit(&comm->aborted, memory_order_relaxed))
        return cinch_fail_quiet(cinchInvalidUsage, "the communicator was aborted");
    if (atomic_load_explicit(&comm->revoked, memory_order_relaxed))
        return cinch_fail_quiet(cinchInvalidUsage, "the communicator was revoked");
    return cinchSuccess;
}

static cinchResult_t failure(struct cinchComm *comm) {
    int failed = atomic_load_explicit(&comm->failed, memory_order_acquire);
    if (failed == cinchSuccess) return cinchSuccess;
    pthread_mutex_lock(&comm->why_lock);
    cinchResult_t result =
        cinch_fail_quiet((cinchResult_t)failed, "the communicator has failed: %s", comm->why);
    pthread_mutex_unlock(&comm->why_lock);
    return result;
}

cinchResult_t cinch_comm_state(struct cinchComm *comm) {
    if (atomic_load_explicit(&comm->revoked, memory_order_relaxed)) return cinch_comm_stopped(comm);
    CINCH_TRY(failure(comm));
    return cinch_comm_stopped(comm);
}

cinchResult_t cinch_comm_healthy(struct cinchComm *comm) {
    if (comm->finalized)
        return cinch_fail(cinchInvalidUsage, "the communicator was finalized by "
                                             "cinchCommFinalize: it can only be destroyed");
    CINCH_TRY(failure(comm));
    return atomic_load(&comm->aborted) ? cinch_comm_stopped(comm) : cinchSuccess;
}

/* ---- waiting ---- */

static void nap(void) {
    struct timespec rest = {0, 50000};
    nanosleep(&rest, NULL);
}

void cinch_comm_await_turn(struct cinchComm *comm, uint64_t number) {
    for (;;) {
        uint64_t turn = atomic_load_explicit(&comm->turn, memory_order_acquire);
        if (turn < CINCH_TURN_INSIDE && turn >= number) return;
        nap();
    }
}

void cinch_comm_end_turn(struct cinchComm *comm, uint64_t number) {
    atomic_store_explicit(&comm->turn, number + 1, memory_order_release);
}

cinchResult_t cinch_comm_drain(struct cinchComm *comm) {
    if (cinch_group_holds(comm))
        return cinch_fail(cinchInvalidUsage,
                          "the communicator has calls in a group that has not ended");
    cinch_graph_settle(comm);
    cinch_comm_await_turn(comm, atomic_load_explicit(&comm->issued, memory_order_relaxed));
    return cinchSuccess;
}

uint64_t cinch_comm_wire_bytes(const struct cinchComm *comm) {
    uint64_t bytes = comm->window_bytes;
    for (int q = 0; comm->net && q < comm->nranks; q++)
        if (comm->net->link[q]) bytes += comm->net->link[q]->wire_bytes;
    return bytes;
}

/* ---- made and freed ---- */

static bool read_config(struct cinchComm *comm, const cinchConfig_t *config, int *blocking,
                        char *why) {
    if (config->magic != CINCH_CONFIG_MAGIC || config->size < offsetof(cinchConfig_t, blocking)) {
        strcpy(why, "config was not begun with CINCH_CONFIG_INITIALIZER");
        return false;
    }
    cinchConfig_t known = CINCH_CONFIG_INITIALIZER;
    memcpy(&known, config, config->size < sizeof known ? config->size : sizeof known);
    if (known.blocking != 0 && known.blocking != 1 && known.blocking != CINCH_CONFIG_UNDEF_INT) {
        sprintf(why, "config->blocking=%d: 0 and 1 are accepted", known.blocking);
        return false;
    }
    *blocking = known.blocking != 0;
    if (known.commName) strncpy(comm->name, known.commName, sizeof comm->name - 1);
    return true;
}

/* Settings, config and policy, as far as they are good. */
static void configure(struct cinchComm *comm, const cinchConfig_t *config,
                      const struct cinchComm *parent, cinch_refusal *refusal, int *blocking) {
    *blocking = 1;
    *refusal = (cinch_refusal){.code = cinchInvalidUsage};
    bool good = cinch_settings_load(&comm->settings, refusal->why);
    if (!config && parent) {
        memcpy(comm->name, parent->name, sizeof comm->name);
        *blocking = !parent->worker;
    } else if (config && good) {
        good = read_config(comm, config, blocking, refusal->why);
        if (!good) refusal->code = cinchInvalidArgument;
    }
    if (good && cinch_policy_load(&comm->settings, comm->name, &comm->policy, refusal->why) &&
        cinch_stats_writable(&comm->settings, refusal->why) &&
        cinch_inforce_writable(&comm->settings, refusal->why))
        refusal->why[0] = '\0';
}

cinchResult_t cinch_comm_new(const cinchConfig_t *config, const struct cinchComm *parent,
                             cinch_refusal *refusal, struct cinchComm **out) {
    struct cinchComm *comm = cinch_comm_memory();
    int blocking;
    if (!comm) return cinch_fail(cinchSystemError, "out of memory for a communicator");
    pthread_mutex_init(&comm->why_lock, NULL);
    comm->magic = CINCH_COMM_MAGIC;
    comm->born_ns = cinch_now_ns();
    comm->born_ticks = cinch_ticks();
    comm->derived = parent != NULL;
    atomic_store(&comm->turn, CINCH_TURN_NONE);
    (void)cinch_device_look(); /* calls ask no more than cinch_device_any */
    atomic_store(&comm->joining, true);
    configure(comm, config, parent, refusal, &blocking);
    cinchResult_t result = blocking ? cinchSuccess : cinch_device_host.stream_create(&comm->worker);
    if (result == cinchSuccess) {
        cinch_inner_note(comm, parent);
        *out = comm;
    } else {
        cinch_comm_release(comm);
    }
    return result;
}

void cinch_comm_release(struct cinchComm *comm) {
    cinch_watch_end(comm);
    cinch_report_leave(comm);
    cinch_graph_leave(comm);
    cinch_inner_close(comm);
    if (comm->worker) cinch_device_host.stream_destroy(comm->worker);
    cinch_gpu_peers_leave(comm);
    if (comm->net) cinch_net_close(comm->net);
    comm->net = NULL;
    cinch_rendezvous_leave(comm->meeting);
    cinch_op_forget(comm);
    cinch_atlas_free(comm);
    free(comm->host);
    free(comm->site);
    cinch_choice_free(comm->choice);
    if (comm->tuned) cinch_tuned_free(comm->tuned);
    if (comm->inherited) cinch_tuned_free(comm->inherited);
    free(comm->tuned);
    free(comm->inherited);
    while (comm->tags) {
        cinch_tag *next = comm->tags->next;
        free(comm->tags);
        comm->tags = next;
    }
    while (comm->windows) {
        struct cinchWindow_vidmem *next = comm->windows->next;
        free(comm->windows);
        comm->windows = next;
    }
    cinch_ef_clear(&comm->ef);
    cinch_settings_free(&comm->settings);
    pthread_mutex_destroy(&comm->why_lock);
    cinch_comm_bury(comm);
}

/* ---- asked ---- */

cinchResult_t cinchCommCount(const cinchComm_t comm, int *count) {
    CINCH_TRY(cinch_comm_check(comm));
    if (!count) return cinch_fail(cinchInvalidArgument, "count is NULL");
    *count = comm->nranks;
    return cinchSuccess;
}

cinchResult_t cinchCommUserRank(const cinchComm_t comm, int *rank) {
    CINCH_TRY(cinch_comm_check(comm));
    if (!rank) return cinch_fail(cinchInvalidArgument, "rank is NULL");
    *rank = comm->rank;
    return cinchSuccess;
}

cinchResult_t cinchCommCuDevice(const cinchComm_t comm, int *device) {
    CINCH_TRY(cinch_comm_check(comm));
    if (!device) return cinch_fail(cinchInvalidArgument, "device is NULL");
    return cinch_fail(cinchInvalidUsage,
                      "the communicator works on host memory and belongs to no CUDA device");
}

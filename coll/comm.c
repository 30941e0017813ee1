/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a communicator: joining, failing, leaving. */
#include "coll/comm.h"

#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/log.h"
#include "coll/engine.h"
#include "coll/group.h"
#include "coll/introspect.h"

cinchResult_t cinch_comm_check(const struct cinchComm *comm) {
    if (comm && comm->magic == CINCH_COMM_MAGIC) return cinchSuccess;
    return cinch_fail(cinchInvalidArgument, comm ? "comm is no communicator" : "comm is NULL");
}

cinchResult_t cinch_comm_first_cause(struct cinchComm *comm, cinchResult_t code) {
    enum { TRIES = 20, TRY_MS = 10 };
    char why[CINCH_ERROR_TEXT];
    if (!comm->meeting || (code != cinchRemoteError && code != cinchSystemError)) return code;
    snprintf(why, sizeof why, "%s", cinch_last_error());
    for (int i = 0; i < TRIES; i++) {
        struct pollfd p = {cinch_rendezvous_fd(comm->meeting), POLLIN, 0};
        if (cinch_rendezvous_check(comm->meeting) != cinchSuccess) return cinchRemoteError;
        poll(&p, 1, TRY_MS);
    }
    return cinch_fail_quiet(code, "%s", why);
}

cinchResult_t cinch_comm_fail(struct cinchComm *comm, cinchResult_t code) {
    if (atomic_load(&comm->failed) != cinchSuccess) return code;
    pthread_mutex_lock(&comm->why_lock);
    if (atomic_load(&comm->failed) == cinchSuccess) {
        strncpy(comm->why, cinch_last_error(), sizeof comm->why - 1);
        atomic_store(&comm->failed, (int)code); /* who sees it may read the sentence */
        if (comm->meeting) cinch_rendezvous_abort(comm->meeting, comm->why);
    }
    pthread_mutex_unlock(&comm->why_lock);
    return code;
}

cinchResult_t cinch_comm_state(struct cinchComm *comm) {
    int failed = atomic_load_explicit(&comm->failed, memory_order_acquire);
    if (failed == cinchSuccess && !atomic_load(&comm->aborted)) return cinchSuccess;
    if (failed == cinchSuccess)
        return cinch_fail_quiet(cinchInvalidUsage, "the communicator was aborted");
    pthread_mutex_lock(&comm->why_lock);
    cinchResult_t result =
        cinch_fail_quiet((cinchResult_t)failed, "the communicator has failed: %s", comm->why);
    pthread_mutex_unlock(&comm->why_lock);
    return result;
}

static void wait_for_turn(struct cinchComm *comm) {
    while (atomic_load_explicit(&comm->turn, memory_order_acquire) !=
           atomic_load_explicit(&comm->issued, memory_order_relaxed)) {
        struct timespec nap = {0, 50000};
        nanosleep(&nap, NULL);
    }
}

cinchResult_t cinch_comm_drain(struct cinchComm *comm) {
    if (cinch_group_holds(comm))
        return cinch_fail(cinchInvalidUsage,
                          "the communicator has calls in a group that has not ended");
    wait_for_turn(comm);
    return cinchSuccess;
}

uint64_t cinch_comm_wire_bytes(const struct cinchComm *comm) {
    uint64_t bytes = comm->window_bytes;
    for (int q = 0; comm->net && q < comm->nranks; q++)
        if (comm->net->link[q]) bytes += comm->net->link[q]->wire_bytes;
    return bytes;
}

/* ---- joining ---- */

static bool read_config(struct cinchComm *comm, const cinchConfig_t *config, char *why) {
    if (!config) return true;
    if (config->magic != CINCH_CONFIG_MAGIC || config->size < offsetof(cinchConfig_t, blocking)) {
        strcpy(why, "config was not begun with CINCH_CONFIG_INITIALIZER");
        return false;
    }
    cinchConfig_t known = CINCH_CONFIG_INITIALIZER;
    memcpy(&known, config, config->size < sizeof known ? config->size : sizeof known);
    if (known.blocking == 0) {
        strcpy(why, "config->blocking=0: known, not in this version; 1 is accepted");
        return false;
    }
    if (known.commName) strncpy(comm->name, known.commName, sizeof comm->name - 1);
    return true;
}

/* Settings, config and policy. False: this rank cannot go on, and why. */
static bool configure(struct cinchComm *comm, const cinchConfig_t *config, char *why) {
    bool good = cinch_settings_load(&comm->settings, why);
    return good && read_config(comm, config, why) &&
           cinch_policy_load(&comm->settings, comm->name, &comm->policy, why) &&
           cinch_stats_writable(&comm->settings, why);
}

/* What a rank sees of the others' memory; the least that any rank sees is what is used. */
typedef struct view {
    cpu_set_t cpus; /* on which it may run */
    uint8_t windows, heaps;
} view;

static void join_views(struct cinchComm *comm, const view *all) {
    cpu_set_t cpus; /* of all ranks on this host together: each may be bound to one */
    int here = 0;
    CPU_ZERO(&cpus);
    comm->one_host = comm->all_local = comm->heaps = true;
    for (int q = 0; q < comm->nranks; q++) {
        comm->all_local &= all[q].windows;
        comm->heaps &= all[q].heaps;
        comm->one_host &= comm->net->local[q] != 0;
        if (!comm->net->local[q]) continue;
        CPU_OR(&cpus, &cpus, &all[q].cpus);
        here++;
    }
    comm->heaps &= comm->all_local;
    comm->crowded = here > CPU_COUNT(&cpus);
}

static cinchResult_t agree_on_views(struct cinchComm *comm) {
    view mine = {.windows = comm->net->shm != NULL, .heaps = comm->net->shm != NULL};
    if (sched_getaffinity(0, sizeof mine.cpus, &mine.cpus) != 0)
        memset(&mine.cpus, 0xff, sizeof mine.cpus);
    for (int q = 0; comm->net->shm && q < comm->nranks; q++) {
        mine.windows &= comm->net->shm->window[q].flag != NULL;
        mine.heaps &= comm->net->shm->window[q].heap != NULL;
    }
    view *all = malloc((size_t)comm->nranks * sizeof *all);
    if (!all) return cinch_fail(cinchSystemError, "out of memory for %d ranks", comm->nranks);
    cinchResult_t result = cinch_rendezvous_allgather(comm->meeting, &mine, sizeof mine, all);
    if (result == cinchSuccess) join_views(comm, all);
    free(all);
    return result;
}

static bool chooses_oneshot(const struct cinchComm *comm, size_t bytes) {
    const cinch_algo *algo;
    cinch_cut cut;
    return cinch_op_choose(comm, bytes, cinchFloat32, false, comm->heaps, &algo, &cut) ==
               cinchSuccess &&
           algo == &cinch_algo_oneshot && cut.rounds == 1;
}

void cinch_comm_use_codec(struct cinchComm *comm, const cinch_codec *codec) {
    comm->policy.codec = *codec;
    comm->oneshot_most = 0;
    bool possible = !comm->policy.algo || comm->policy.algo == &cinch_algo_oneshot;
    if (!possible || !comm->all_local || comm->nranks > 64 || comm->nranks < 2) return;
    size_t most = CINCH_SMALL_SLOT, min = (size_t)comm->settings.codec_min_bytes;
    if (codec->vt && min <= most) most = min ? min - 1 : 0;
    size_t below = 0, above = most / 64 + 1; /* it is chosen up to some size, and not beyond */
    while (below + 1 < above) {
        size_t middle = (below + above) / 2;
        if (chooses_oneshot(comm, middle * 64))
            below = middle;
        else
            above = middle;
    }
    comm->oneshot_most = below * 64;
}

static cinchResult_t connect_ranks(struct cinchComm *comm) {
    cinch_net_options options = {
        .stage_bytes = CINCH_STAGE_BYTES, .checksum = comm->settings.checksum, .heap_fd = -1};
    cinch_heap heap;
    if (cinch_heap_get(&heap) == cinchSuccess) {
        options.heap = heap.data;
        options.heap_bytes = heap.bytes;
        options.heap_fd = heap.fd;
    }
    CINCH_TRY(cinch_net_open(&comm->settings, comm->meeting, comm->rank, comm->nranks, &options,
                             &comm->net));
    CINCH_TRY(agree_on_views(comm));
    comm->llc_bytes = cinch_cpu_llc_bytes();
    if (comm->one_host && comm->rank == 0 && comm->policy.inter.vt && !comm->policy.intra.vt)
        cinch_warn("CINCH_CODEC%s=%s has nothing to compress: all %d ranks share one host "
                   "(CINCH_CODEC_INTRA compresses inside a host)",
                   comm->settings.codec_inter[0] ? "_INTER" : "",
                   comm->settings.codec_inter[0] ? comm->settings.codec_inter
                                                 : comm->settings.codec,
                   comm->nranks);
    cinch_comm_use_codec(comm, comm->one_host ? &comm->policy.intra : &comm->policy.inter);
    return cinchSuccess;
}

static void release(struct cinchComm *comm) {
    if (comm->net) cinch_net_close(comm->net);
    cinch_rendezvous_leave(comm->meeting);
    for (int a = 0; a < CINCH_MOST_ALGOS; a++)
        for (int i = 0; i < 4; i++) cinch_schedule_free(&comm->schedule[a][i / 2][i % 2]);
    cinch_scratch_free(&comm->data);
    cinch_scratch_free(&comm->messages);
    cinch_scratch_free(&comm->pointers);
    cinch_scratch_free(&comm->peers);
    while (comm->tags) {
        cinch_tag *next = comm->tags->next;
        free(comm->tags);
        comm->tags = next;
    }
    cinch_ef_clear(&comm->ef);
    cinch_settings_free(&comm->settings);
    pthread_mutex_destroy(&comm->why_lock);
    comm->magic = 0;
    free(comm);
}

cinchResult_t cinch_comm_create(struct cinchComm **out, int nranks, const cinchUniqueId *id,
                                int rank, const cinchConfig_t *config) {
    struct cinchComm *comm = calloc(1, sizeof *comm);
    if (!comm) return cinch_fail(cinchSystemError, "out of memory for a communicator");
    pthread_mutex_init(&comm->why_lock, NULL);
    comm->magic = CINCH_COMM_MAGIC;
    comm->rank = rank;
    comm->nranks = nranks;
    comm->born_ns = cinch_now_ns();
    comm->born_ticks = cinch_ticks();
    cinch_log_rank(rank);
    char why[CINCH_ERROR_TEXT] = "";
    bool good = configure(comm, config, why);
    cinchResult_t result =
        cinch_rendezvous_join(&comm->settings, id, rank, nranks, good ? NULL : why, &comm->meeting);
    if (result == cinchSuccess && nranks > 1) result = connect_ranks(comm);
    if (result != cinchSuccess) {
        if (comm->meeting) cinch_rendezvous_abort(comm->meeting, cinch_last_error());
        release(comm);
        return result;
    }
    *out = comm;
    return cinchSuccess;
}

/* ---- leaving ---- */

cinchResult_t cinchCommFinalize(cinchComm_t comm) {
    CINCH_TRY(cinch_comm_check(comm));
    CINCH_TRY(cinch_comm_drain(comm));
    comm->finalized = true;
    comm->oneshot_most = 0; /* the fast path does not look at finalized */
    return cinchSuccess;
}

cinchResult_t cinchCommDestroy(cinchComm_t comm) {
    CINCH_TRY(cinch_comm_check(comm));
    CINCH_TRY(cinch_comm_drain(comm));
    int unused = cinch_ef_leftovers(&comm->ef);
    if (unused) cinch_warn("%d imported error-feedback entries found no call", unused);
    cinch_stats_write(comm);
    release(comm);
    return cinchSuccess;
}

cinchResult_t cinchCommAbort(cinchComm_t comm) {
    CINCH_TRY(cinch_comm_check(comm));
    atomic_store(&comm->aborted, true);
    if (comm->meeting) cinch_rendezvous_abort(comm->meeting, "it called cinchCommAbort");
    cinch_group_forget(comm);
    wait_for_turn(comm);
    release(comm);
    return cinchSuccess;
}

cinchResult_t cinchCommGetAsyncError(cinchComm_t comm, cinchResult_t *asyncError) {
    CINCH_TRY(cinch_comm_check(comm));
    if (!asyncError) return cinch_fail(cinchInvalidArgument, "asyncError is NULL");
    *asyncError = (cinchResult_t)atomic_load(&comm->failed);
    return cinchSuccess;
}

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

/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a communicator's calls on device memory go by NCCL: its ranks find out together, step by
 * step, and where one cannot go on none does. */
#include "coll/nccl/inner.h"

#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "coll/gpu.h"
#include "coll/nccl/choose.h"

/* Since 2.18 there is ncclCommSplit, which codecs between hosts need. */
enum { OLDEST = 21800 };

/* What a rank says after each step. */
typedef struct word {
    uint8_t good;
    uint8_t gpu[CINCH_DEVICE_ID];
    int32_t version;
    cinchUniqueId id; /* rank 0's */
    char why[200];
} word;

typedef struct meeting {
    struct cinchComm *comm;
    const cinch_device_work *work;
    int device;
    word mine, *all;
    cinch_real real;
    int version;
    cinchComm_t handle;
    char lack[CINCH_ERROR_TEXT]; /* not empty: what somebody lacks, the same on every rank */
    pthread_t thread;
    bool threaded;
    cinchResult_t result;
    char why[CINCH_ERROR_TEXT];
} meeting;

cinchResult_t cinch_inner_told(const cinch_real *real, cinchResult_t code, const char *what) {
    const char *text = real->GetLastError ? real->GetLastError(NULL) : NULL;
    return cinch_fail_quiet(code, "%s: NCCL says %s%s%.300s", what, cinchGetErrorString(code),
                            text && *text ? ", " : "", text ? text : "");
}

/* ---- what can be known without the others ---- */

static bool allows(const char *list) {
    bool exclude = list[0] == '^', named = false;
    if (strcmp(list, "auto") == 0) return true;
    for (const char *at = list + exclude; *at; at += strcspn(at, ","), at += *at == ',')
        named |= strcspn(at, ",") == 4 && strncmp(at, "nccl", 4) == 0;
    return named != exclude;
}

bool cinch_inner_possible(const struct cinchComm *comm) {
    return !comm->worker && cinch_device_cuda.work && cinch_gpu_kernels() &&
           allows(comm->settings.transport);
}

void cinch_inner_note(struct cinchComm *comm, const struct cinchComm *parent) {
    const cinch_device_work *work = cinch_device_cuda.work;
    int device = parent ? parent->gpu_device - 1 : -1;
    if (!cinch_device_any() || !cinch_inner_possible(comm)) return;
    if (parent && device < 0) {
        comm->homed = parent->homed;
        memcpy(comm->home, parent->home, sizeof comm->home);
    } else if (device >= 0 || work->current()) {
        comm->homed = work->identify(device, comm->home) == cinchSuccess;
    }
}

bool cinch_inner_without(const struct cinchComm *comm) {
    cinch_real real;
    char why[CINCH_ERROR_TEXT];
    int version;
    return comm->homed && cinch_inner_possible(comm) &&
           !cinch_real_load(comm->settings.nccl_path, &real, &version, why);
}

static bool complete(const cinch_real *real, int version, char *why, size_t room) {
    char text[32];
    cinch_nccl_version_text(version, text, sizeof text);
    if (version < OLDEST) {
        snprintf(why, room, "its NCCL is %s: 2.18 and newer are accepted", text);
        return false;
    }
#define X(name)                                                                                    \
    if (!real->name) {                                                                             \
        snprintf(why, room, "its NCCL %s has no nccl" #name, text);                                \
        return false;                                                                              \
    }
    CINCH_REAL_NEEDED(X)
    CINCH_REAL_INNER(X)
#undef X
    return true;
}

const char *cinch_inner_unusable(const cinch_settings *settings, char room[CINCH_ERROR_TEXT]) {
    cinch_real real;
    int version;
    if (!cinch_device_cuda.work || !cinch_gpu_kernels()) return "built without CUDA";
    if (!allows(settings->transport)) return "CINCH_TRANSPORT leaves it out";
    const char *why = cinch_nccl_no_gpu();
    if (why) return why;
    if (!cinch_real_load(settings->nccl_path, &real, &version, room)) return room;
    return complete(&real, version, room, CINCH_ERROR_TEXT) ? NULL : room;
}

/* ---- the steps ---- */

static void lacks(meeting *m, const char *why) {
    m->mine.good = 0;
    snprintf(m->mine.why, sizeof m->mine.why, "%.199s", why);
}

/* Everybody says how the step went. Success with m->lack: not everywhere. */
static cinchResult_t show(meeting *m) {
    struct cinchComm *comm = m->comm;
    CINCH_TRY(cinch_rendezvous_allgather(comm->meeting, &m->mine, sizeof m->mine, m->all));
    for (int q = 0; q < comm->nranks && !m->lack[0]; q++) {
        m->all[q].why[sizeof m->all[q].why - 1] = '\0';
        if (!m->all[q].good) snprintf(m->lack, sizeof m->lack, "rank %d: %s", q, m->all[q].why);
    }
    return cinchSuccess;
}

/* NCCL takes no two ranks on one GPU. */
static void compare_gpus(meeting *m) {
    for (int q = 1; q < m->comm->nranks && !m->lack[0]; q++)
        for (int p = 0; p < q && !m->lack[0]; p++)
            if (memcmp(m->all[p].gpu, m->all[q].gpu, sizeof m->all[p].gpu) == 0)
                snprintf(m->lack, sizeof m->lack, "ranks %d and %d are on one GPU", p, q);
}

static void compare_versions(meeting *m) {
    for (int q = 1; q < m->comm->nranks && !m->lack[0]; q++) {
        char first[32], other[32];
        if (m->all[q].version == m->all[0].version) continue;
        cinch_nccl_version_text(m->all[0].version, first, sizeof first);
        cinch_nccl_version_text(m->all[q].version, other, sizeof other);
        snprintf(m->lack, sizeof m->lack, "rank 0 has NCCL %s, rank %d has %s", first, q, other);
    }
}

static cinchResult_t begin_init(void *arg) {
    meeting *m = arg;
    cinchConfig_t config = CINCH_CONFIG_INITIALIZER;
    /* As of 2.14, which every later one takes. It does not block, so that it can be given up. */
    config.size = offsetof(cinchConfig_t, minCTAs);
    config.version = CINCH_VERSION(2, 14, 0);
    config.blocking = 0;
    return m->real.CommInitRankConfig(&m->handle, m->comm->nranks, m->all[0].id, m->comm->rank,
                                      &config);
}

/* Success, or what ends the wait for NCCL's init. */
static cinchResult_t await_init(meeting *m) {
    const struct timespec nap = {.tv_nsec = 200000};
    /* Less than a rank that has failed waits for the others to say how they got on. */
    uint64_t most_ms = (uint64_t)m->comm->settings.init_timeout_ms / 2;
    uint64_t end = cinch_now_ns() + most_ms * 1000000;
    cinchResult_t state = m->work->with(m->device, begin_init, m);
    while (state == cinchInProgress) {
        cinchResult_t asked = m->real.CommGetAsyncError(m->handle, &state);
        if (asked != cinchSuccess) state = asked;
        if (state != cinchInProgress) break;
        CINCH_TRY(cinch_comm_stopped(m->comm));
        if (cinch_now_ns() >= end)
            return cinch_fail_quiet(cinchSystemError, "NCCL's init was not done in %llu ms",
                                    (unsigned long long)most_ms);
        nanosleep(&nap, NULL);
    }
    return state == cinchSuccess ? state : cinch_inner_told(&m->real, state, "its init failed");
}

static void give_up(meeting *m) {
    if (m->handle) m->real.CommAbort(m->handle);
    m->handle = NULL;
}

/* Until the inner communicator is there on every rank, or m->lack says why it is on none. */
static cinchResult_t take_steps(meeting *m) {
    const struct cinchComm *comm = m->comm;
    char why[CINCH_ERROR_TEXT];
    m->mine.good = 1;
    if (m->work->identify(m->device, m->mine.gpu) != cinchSuccess) lacks(m, cinch_last_error());
    CINCH_TRY(show(m));
    compare_gpus(m);
    if (m->lack[0]) return cinchSuccess;

    if (!cinch_real_load(comm->settings.nccl_path, &m->real, &m->version, why)) lacks(m, why);
    if (m->mine.good && !complete(&m->real, m->version, why, sizeof why)) lacks(m, why);
    m->mine.version = m->version;
    CINCH_TRY(show(m));
    compare_versions(m);
    if (m->lack[0]) return cinchSuccess;

    cinchResult_t result = comm->rank == 0 ? m->real.GetUniqueId(&m->mine.id) : cinchSuccess;
    if (result != cinchSuccess) {
        cinch_inner_told(&m->real, result, "no unique id");
        lacks(m, cinch_last_error());
    }
    CINCH_TRY(show(m));
    if (m->lack[0]) return cinchSuccess;

    if (await_init(m) != cinchSuccess) lacks(m, cinch_last_error());
    if (!m->mine.good) give_up(m);
    CINCH_TRY(show(m));
    if (!m->lack[0]) return cinchSuccess;
    give_up(m); /* which may wait for whole devices: nobody goes on before all have */
    return show(m);
}

static cinchResult_t meet(meeting *m) {
    struct cinchComm *comm = m->comm;
    m->work = comm->gpu->work;
    m->device = comm->gpu->device;
    m->all = calloc((size_t)comm->nranks, sizeof *m->all);
    if (!m->all) return cinch_fail(cinchSystemError, "out of memory for %d ranks", comm->nranks);
    cinchResult_t result = take_steps(m);
    free(m->all);
    if (result == cinchSuccess && !m->lack[0]) {
        char version[32];
        cinch_nccl_version_text(m->version, version, sizeof version);
        result = cinch_inner_make(comm, &m->real, m->handle);
        if (result == cinchSuccess && comm->rank == 0)
            cinch_info("device memory goes by NCCL %s", version);
    } else if (result == cinchSuccess && comm->rank == 0) {
        cinch_info("device memory does not go by NCCL: %s", m->lack);
    }
    if (result != cinchSuccess || m->lack[0]) give_up(m);
    comm->inner_state = result == cinchSuccess && !m->lack[0] ? CINCH_INNER_MADE : CINCH_INNER_NONE;
    return result == cinchSuccess ? result : cinch_comm_fail(comm, result);
}

static void *meet_in_thread(void *arg) {
    meeting *m = arg;
    cinch_log_rank(m->comm->rank);
    m->result = meet(m);
    if (m->result != cinchSuccess) snprintf(m->why, sizeof m->why, "%s", cinch_last_error());
    return NULL;
}

cinchResult_t cinch_inner_meet(struct cinchComm *const *comms, int count) {
    cinchResult_t result = cinchSuccess;
    meeting *list = calloc((size_t)count, sizeof *list);
    if (!list) return cinch_fail(cinchSystemError, "out of memory for %d ranks", count);
    for (int i = 0; i < count; i++) { /* one thread may drive several ranks of a communicator */
        meeting *m = &list[i];
        m->comm = comms[i];
        int err = i + 1 < count ? pthread_create(&m->thread, NULL, meet_in_thread, m) : 0;
        m->threaded = i + 1 < count && !err;
        if (i + 1 == count)
            m->result = meet(m);
        else if (err)
            m->result = cinch_comm_fail(
                m->comm, cinch_fail_errno(err, "cannot start a thread for a first call"));
        if (!m->threaded && m->result != cinchSuccess)
            snprintf(m->why, sizeof m->why, "%s", cinch_last_error());
    }
    for (int i = 0; i < count; i++) {
        if (list[i].threaded) pthread_join(list[i].thread, NULL);
        if (list[i].result != cinchSuccess && result == cinchSuccess)
            result = cinch_fail_quiet(list[i].result, "%s", list[i].why);
    }
    free(list);
    return result;
}

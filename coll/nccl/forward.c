/* SPDX-License-Identifier: Apache-2.0 */
/* What goes by here in forward mode: which all-reduces are compressed, and when they run. */
#include "coll/nccl/forward.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coll/nccl/steps.h"
#include "compress/dtype.h"

/* A thread's group of the real library, as far as it was begun through us. */
static _Thread_local struct {
    int depth;
    cinch_wanted *first, **last;
} group;

/* ---- beginning and end ---- */

const char *cinch_forward_unusable(const cinch_gpu *gpu, const cinch_codec *codec) {
    const char *why = gpu->supports(codec);
    if (why) return why;
    if (!gpu->wire_bytes(codec, 1 << 16) || gpu->state_bytes(codec, 1 << 16))
        return "messages whose length depends on what is in them do not go by NCCL";
    return NULL;
}

/* Leaves in the policy only what forward mode serves; NULL, or why that is nothing. */
static const char *restrict_codecs(cinch_policy *policy, const cinch_gpu *gpu) {
    const char *why = NULL;
    struct {
        cinch_codec *codec;
        const bool *automatic;
    } levels[] = {{&policy->inter, &policy->auto_inter}, {&policy->intra, &policy->auto_intra}};
    for (int i = 0; i < 2; i++) {
        cinch_codec *codec = levels[i].codec;
        if (!codec->vt) continue;
        const char *lack = *levels[i].automatic
                               ? "auto goes by measured times, which forward mode has none of"
                               : cinch_forward_unusable(gpu, codec);
        if (!lack) continue;
        why = lack;
        codec->vt = NULL;
    }
    if (!(policy->ops >> CINCH_ALLREDUCE & 1)) return "CINCH_CODEC_OPS has no allreduce";
    if (policy->inter.vt || policy->intra.vt) return NULL;
    return why ? why : "none is asked for";
}

static const cinch_gpu *find_gpu(void) {
    return cinch_device_cuda.work ? cinch_gpu_kernels() : NULL;
}

cinchResult_t cinch_forward_open(cinch_settings *settings, const cinch_real *real,
                                 cinch_forward **out, char why[CINCH_ERROR_TEXT]) {
    const cinch_gpu *gpu = find_gpu();
    cinch_policy policy;
    *out = NULL;
    if (!cinch_policy_load(settings, "", &policy, why)) return cinchInvalidUsage;
    const char *lack = gpu ? restrict_codecs(&policy, gpu) : "this cinch was built without CUDA";
#define X(name)                                                                                    \
    if (!lack && !real->name) lack = "the NCCL that calls go to has no nccl" #name;
    CINCH_REAL_NEEDED(X)
#undef X
    cinch_forward *f = lack ? NULL : calloc(1, sizeof *f);
    if (!f) {
        snprintf(why, CINCH_ERROR_TEXT, "%s", lack ? lack : "out of memory");
        return cinchSuccess;
    }
    f->real = *real;
    f->settings = *settings;
    memset(settings, 0, sizeof *settings);
    f->policy = policy;
    f->work = cinch_device_cuda.work;
    f->gpu = gpu;
    pthread_mutex_init(&f->lock, NULL);
    *out = f;
    return cinchSuccess;
}

void cinch_forward_close(cinch_forward *f) {
    cinch_side *lists[] = {f->sides, f->graves};
    for (int i = 0; i < 2; i++)
        while (lists[i]) {
            cinch_side *side = lists[i];
            lists[i] = side->next;
            cinch_side_free(side);
        }
    pthread_mutex_destroy(&f->lock);
    cinch_settings_free(&f->settings);
    free(f);
}

/* ---- which calls go on as they are ---- */

/* Whether the call goes on as it is: the communicator stays exact, or the stream is captured. */
static cinchResult_t passes_by(cinch_side *side, cinch_wanted *w, bool *passes) {
    *passes = side->state == CINCH_SIDE_EXACT ||
              (side->state == CINCH_SIDE_COMPRESSES && !cinch_wanted_eligible(side, w));
    return *passes ? cinchSuccess : cinch_wanted_captured(w, passes);
}

/* ---- running ---- */

/* New communicators among them learn of their ranks: all at once, as one thread may drive several.
 */
static cinchResult_t agree(cinch_wanted *list, bool *ours) {
    int count = 0;
    for (const cinch_wanted *w = list; w; w = w->next) count++;
    cinch_side **sides = calloc((size_t)count, sizeof(cinch_side *));
    *ours = true;
    if (!sides) return cinch_fail(cinchSystemError, "out of memory for %d communicators", count);
    int some = 0;
    for (const cinch_wanted *w = list; w; w = w->next) {
        bool known = w->side->state != CINCH_SIDE_NEW;
        for (int i = 0; i < some; i++) known |= sides[i] == w->side;
        if (!known) sides[some++] = w->side;
    }
    cinchResult_t result = some ? cinch_side_agree(sides, some, ours) : cinchSuccess;
    free(sides);
    return result;
}

static cinchResult_t run_exact(cinch_wanted *list) {
    const cinch_real *real = &list->side->forward->real;
    cinchResult_t result = cinchSuccess;
    bool any = false;
    for (const cinch_wanted *w = list; w; w = w->next) any |= !w->compress;
    if (!any) return cinchSuccess;
    CINCH_TRY(real->GroupStart());
    for (const cinch_wanted *w = list; w && result == cinchSuccess; w = w->next) {
        if (w->compress) continue;
        result =
            real->AllReduce(w->send, w->recv, w->count, w->dtype, w->op, w->side->comm, w->caller);
        if (result == cinchInProgress) result = cinchSuccess;
    }
    cinchResult_t ended = real->GroupEnd(), was = result == cinchSuccess ? ended : result;
    result = was;
    for (const cinch_wanted *w = list; w; w = w->next)
        cinch_side_settle_into(w->side, was, &result);
    return result;
}

static cinchResult_t run(cinch_wanted *list, bool *ours) {
    CINCH_TRY(agree(list, ours));
    *ours = true;
    for (cinch_wanted *w = list; w; w = w->next) {
        CINCH_TRY(cinch_side_look_back(w->side));
        w->compress = w->side->state == CINCH_SIDE_COMPRESSES && cinch_wanted_eligible(w->side, w);
    }
    *ours = false;
    CINCH_TRY(run_exact(list));
    return cinch_wanted_launch(list, ours);
}

static cinchResult_t keep(const cinch_wanted *call) {
    cinch_wanted *w = malloc(sizeof *w);
    if (!w) return cinch_fail(cinchSystemError, "out of memory for a call in a group");
    *w = *call;
    if (!group.first) group.last = &group.first;
    *group.last = w;
    group.last = &w->next;
    return cinchSuccess;
}

cinchResult_t cinch_forward_allreduce(cinch_forward *f, const void *send, void *recv, size_t count,
                                      cinchDataType_t dtype, cinchRedOp_t op, cinchComm_t comm,
                                      cinchStream_t stream, bool *ours) {
    cinch_wanted w = {.send = send,
                      .recv = recv,
                      .count = count,
                      .dtype = dtype,
                      .op = op,
                      .stream = stream,
                      .caller = stream};
    *ours = false;
    w.side = count && send && recv ? cinch_side_get(f, comm, true) : NULL;
    if (!w.side) return f->real.AllReduce(send, recv, count, dtype, op, comm, stream);
    w.call = w.side->calls++;
    bool passes;
    *ours = true;
    cinchResult_t result = passes_by(w.side, &w, &passes);
    if (result == cinchSuccess && passes) {
        *ours = false;
        result = f->real.AllReduce(send, recv, count, dtype, op, comm, stream);
    } else if (result == cinchSuccess && group.depth > 0) {
        result = keep(&w);
        if (result == cinchSuccess) return result; /* the group has the side */
    } else if (result == cinchSuccess) {
        result = run(&w, ours);
    }
    cinch_side_leave(w.side);
    return result;
}

cinchResult_t cinch_forward_group_start(cinch_forward *f) {
    CINCH_TRY(f->real.GroupStart());
    group.depth++;
    return cinchSuccess;
}

static cinch_wanted *take_group(void) {
    cinch_wanted *list = group.first;
    group.first = NULL;
    return list;
}

static void drop(cinch_wanted *list) {
    while (list) {
        cinch_wanted *w = list;
        list = w->next;
        cinch_side_leave(w->side);
        free(w);
    }
}

cinchResult_t cinch_forward_group_end(cinch_forward *f, bool *ours) {
    cinchResult_t ended = f->real.GroupEnd(), result = ended;
    *ours = false;
    if (group.depth > 0) group.depth--;
    if (group.depth > 0) return ended;
    cinch_wanted *list = take_group();
    for (const cinch_wanted *w = list; w; w = w->next)
        cinch_side_settle_into(w->side, ended, &result);
    if (list && result == cinchSuccess) result = run(list, ours);
    if (result == cinchSuccess) result = ended;
    drop(list);
    cinch_side_reap(f);
    return result;
}

/* It ends the group without running it. */
cinchResult_t cinch_forward_group_simulate(cinch_forward *f, cinchSimInfo_t *info) {
    cinchResult_t result = f->real.GroupSimulateEnd(info);
    if (group.depth > 0 && --group.depth == 0) drop(take_group());
    return result;
}

/* ---- the communicator's end, and its state ---- */

static cinchResult_t end(cinch_forward *f, cinchComm_t comm,
                         cinchResult_t (*by)(cinchComm_t comm)) {
    cinch_side *side = cinch_side_bury(f, comm);
    cinchResult_t result = cinch_side_end(side, comm, f, by);
    if (side) cinch_side_leave(side);
    if (group.depth == 0) cinch_side_reap(f);
    return result;
}

cinchResult_t cinch_forward_destroy(cinch_forward *f, cinchComm_t comm) {
    return end(f, comm, f->real.CommDestroy);
}

cinchResult_t cinch_forward_abort(cinch_forward *f, cinchComm_t comm) {
    return end(f, comm, f->real.CommAbort);
}

cinchResult_t cinch_forward_async_error(cinch_forward *f, cinchComm_t comm, cinchResult_t *state) {
    CINCH_TRY(f->real.CommGetAsyncError(comm, state));
    if (!state || (*state != cinchSuccess && *state != cinchInProgress)) return cinchSuccess;
    cinch_side *side = cinch_side_get(f, comm, false);
    if (!side) return cinchSuccess;
    cinchResult_t ours = cinch_side_look_back(side);
    if (ours != cinchSuccess) *state = ours;
    cinch_side_leave(side);
    return cinchSuccess;
}

const char *cinch_forward_why(cinch_forward *f, cinchComm_t comm) {
    cinch_side *side = comm ? cinch_side_get(f, comm, false) : NULL;
    if (!side) return NULL;
    const char *why = atomic_load(&side->failed) != cinchSuccess ? side->why : NULL;
    cinch_side_leave(side);
    return why;
}

bool cinch_forward_look(cinch_forward *f, cinchComm_t comm, cinch_forward_stats *stats) {
    cinch_side *side = cinch_side_get(f, comm, false);
    if (!side) return false;
    *stats = (cinch_forward_stats){side->calls, side->compressed, side->residuals.bytes,
                                   side->residuals.dropped};
    cinch_side_leave(side);
    return true;
}

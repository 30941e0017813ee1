/* SPDX-License-Identifier: Apache-2.0 */
/* Which all-reduces are compressed, and how those of a group run together. */
#include "base/log.h"
#include "coll/nccl/steps.h"
#include "compress/dtype.h"

cinchResult_t cinch_side_look_back(cinch_side *side) {
    int failed = atomic_load(&side->failed);
    if (failed != cinchSuccess) return cinch_fail_quiet((cinchResult_t)failed, "%s", side->why);
    const cinch_gpu_counts *seen = side->seen;
    if (!seen) return cinchSuccess;
    if (__atomic_load_n(&seen->malformed, __ATOMIC_RELAXED))
        return cinch_side_fail(
            side, cinch_fail(cinchRemoteError, "rank %d of %d got a message that is no %s encoding",
                             side->rank, side->nranks, side->policy.codec.vt->name));
    if (side->forward->settings.nonfinite && __atomic_load_n(&seen->nonfinite, __ATOMIC_RELAXED))
        return cinch_side_fail(side, cinch_fail(cinchInvalidUsage,
                                                "a compressed allreduce met NaN or Inf on rank %d, "
                                                "and CINCH_NONFINITE=error",
                                                side->rank));
    return cinchSuccess;
}

bool cinch_wanted_eligible(const cinch_side *side, const cinch_wanted *w) {
    if (w->dtype >= cinchNumTypes || w->op >= cinchNumOps) return false;
    cinch_candidate candidate = {.collective = CINCH_ALLREDUCE,
                                 .bytes = w->count * cinch_dtype_size(w->dtype),
                                 .dtype = w->dtype,
                                 .redop = w->op,
                                 .in_place = w->send == w->recv};
    return w->count >= (size_t)side->inside.n && /* every rank of a host has a share */
           cinch_policy_compresses(&side->policy, &side->forward->settings, w->call, &candidate);
}

cinchResult_t cinch_wanted_captured(cinch_wanted *w, bool *is) {
    cinch_side *side = w->side;
    CINCH_TRY(side->forward->work->capturing(side->device, w->caller, is));
    if (*is)
        CINCH_SIDE_WARN(side, CINCH_TOLD_CAPTURE,
                        "all-reduces that are captured into a graph are not compressed");
    return cinchSuccess;
}

/* As NCCL has it: the streams that a communicator has in a group come to one point, the work runs
 * on the first, and all go on from its end. */
static cinchResult_t join_streams(cinch_wanted *list) {
    for (cinch_wanted *w = list; w; w = w->next) {
        if (!w->compress) continue;
        const cinch_device_work *work = w->side->forward->work;
        const cinch_wanted *first = list;
        while (first->side != w->side || !first->compress) first = first->next;
        w->stream = first->caller;
        if (w->stream == w->caller) continue;
        CINCH_TRY(work->record(w->side->joined, w->caller));
        CINCH_TRY(work->wait(w->stream, w->side->joined));
    }
    return cinchSuccess;
}

static cinchResult_t part_streams(cinch_wanted *list) {
    for (const cinch_wanted *w = list; w; w = w->next)
        if (w->compress && w->stream != w->caller)
            CINCH_TRY(w->side->forward->work->wait(w->caller, w->side->done));
    return cinchSuccess;
}

cinchResult_t cinch_wanted_launch(cinch_wanted *list, bool *ours) {
    *ours = true;
    CINCH_TRY(join_streams(list));
    CINCH_TRY(cinch_wanted_run(list, ours));
    *ours = true;
    return part_streams(list);
}

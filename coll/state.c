/* SPDX-License-Identifier: Apache-2.0 */
/* What the user changes about codecs after init: the codec itself, tags, and residuals. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coll/gpu.h"
#include "coll/inforce.h"
#include "coll/nccl/inner.h"

/* What one rank says of its cinchCommSetCodec: all must say the same. */
typedef struct wish {
    char spec[256];
    uint8_t good;
} wish;

static cinchResult_t all_agree(struct cinchComm *comm, const wish *mine) {
    if (comm->nranks == 1) return cinchSuccess;
    wish *all = malloc((size_t)comm->nranks * sizeof *all);
    if (!all) return cinch_fail(cinchSystemError, "out of memory for %d ranks", comm->nranks);
    cinchResult_t result = cinch_rendezvous_allgather(comm->meeting, mine, sizeof *mine, all);
    for (int q = 0; q < comm->nranks && result == cinchSuccess; q++) {
        if (!all[q].good)
            result = cinch_fail(cinchInvalidUsage, "rank %d cannot read the codec \"%.200s\"", q,
                                all[q].spec);
        else if (strcmp(all[q].spec, all[0].spec) != 0)
            result = cinch_fail(cinchInvalidUsage,
                                "cinchCommSetCodec: rank 0 asks for \"%.150s\", rank %d for "
                                "\"%.150s\"",
                                all[0].spec, q, all[q].spec);
    }
    free(all);
    return result;
}

static bool same_codec(const cinch_codec *a, const cinch_codec *b) {
    return a->vt == b->vt && a->ef == b->ef && memcmp(a->params, b->params, sizeof a->params) == 0;
}

cinchResult_t cinchCommSetCodec(cinchComm_t comm, const char *spec) {
    CINCH_TRY(cinch_comm_check(comm));
    CINCH_TRY(cinch_comm_drain(comm));
    CINCH_TRY(cinch_comm_state(comm));
    cinch_codec codec = comm->one_host ? comm->policy.intra : comm->policy.inter;
    bool automatic = comm->one_host ? comm->policy.auto_intra : comm->policy.auto_inter;
    wish mine = {.spec = "(the environment's)", .good = 1};
    char why[CINCH_ERROR_TEXT] = "";
    if (spec) {
        mine.good = strlen(spec) < sizeof mine.spec &&
                    cinch_policy_codec(&comm->settings, spec, &codec, &automatic, why, sizeof why);
        snprintf(mine.spec, sizeof mine.spec, "%s", spec);
    }
    cinch_record_enter(&comm->record, CINCH_PAST_SET_CODEC, 0, cinchInt8, 0, false, false, 0);
    cinchResult_t result = all_agree(comm, &mine);
    cinch_record_leave(&comm->record, result != cinchSuccess);
    if (!mine.good)
        return cinch_fail(cinchInvalidUsage, "codec \"%.100s\": %.300s", spec,
                          why[0] ? why : "at most 255 characters are accepted");
    CINCH_TRY(result);
    const cinch_codec inside = comm->policy.inside;
    cinch_comm_use_inside(comm, spec ? &codec : &comm->policy.intra,
                          spec ? automatic : comm->policy.auto_intra);
    if (!same_codec(&codec, &comm->policy.codec) || !same_codec(&inside, &comm->policy.inside))
        cinch_ef_clear(&comm->ef);
    CINCH_TRY(cinch_comm_use_codec(comm, &codec, automatic));
    return cinch_inforce_measure(comm);
}

cinchResult_t cinchCommTag(cinchComm_t comm, const void *ptr, size_t bytes, uint64_t id) {
    CINCH_TRY(cinch_comm_check(comm));
    if (!ptr) return cinch_fail(cinchInvalidArgument, "ptr is NULL");
    CINCH_TRY(cinch_comm_drain(comm));
    cinch_tag **at = &comm->tags;
    while (*at && !(*at)->registered && (*at)->data != ptr) at = &(*at)->next;
    bool there = *at && !(*at)->registered;
    if (!bytes) {
        cinch_tag *gone = there ? *at : NULL;
        if (gone) *at = gone->next;
        free(gone);
        return cinchSuccess;
    }
    if (!there) {
        cinch_tag *tag = calloc(1, sizeof *tag);
        if (!tag) return cinch_fail(cinchSystemError, "out of memory for a tag");
        tag->next = *at;
        *at = tag;
    }
    (*at)->data = ptr;
    (*at)->bytes = bytes;
    (*at)->id = id;
    return cinchSuccess;
}

cinchResult_t cinchCommExportState(cinchComm_t comm, void *buf, size_t *len) {
    CINCH_TRY(cinch_comm_check(comm));
    if (!len) return cinch_fail(cinchInvalidArgument, "len is NULL");
    CINCH_TRY(cinch_comm_drain(comm));
    CINCH_TRY(cinch_gpu_mirrors_back(comm));
    CINCH_TRY(cinch_inner_residuals_back(comm, false));
    size_t need = cinch_ef_export_size(&comm->ef), room = *len;
    *len = need;
    if (!buf) return cinchSuccess;
    if (room < need)
        return cinch_fail(cinchInvalidArgument, "the state needs %zu bytes, not %zu", need, room);
    comm->ef.calls = comm->calls;
    cinch_ef_export(&comm->ef, comm->rank, comm->nranks, buf);
    return cinchSuccess;
}

cinchResult_t cinchCommImportState(cinchComm_t comm, const void *buf, size_t len) {
    CINCH_TRY(cinch_comm_check(comm));
    if (!buf) return cinch_fail(cinchInvalidArgument, "buf is NULL");
    CINCH_TRY(cinch_comm_drain(comm));
    CINCH_TRY(cinch_ef_import(&comm->ef, comm->rank, comm->nranks, buf, len));
    comm->calls_before += comm->ef.calls - comm->calls;
    comm->calls = comm->ef.calls;
    return cinchSuccess;
}

cinchResult_t cinchCommScaleState(cinchComm_t comm, double factor) {
    CINCH_TRY(cinch_comm_check(comm));
    CINCH_TRY(cinch_comm_drain(comm));
    if (!isfinite(factor))
        return cinch_fail(cinchInvalidArgument, "factor %g: a finite number is accepted", factor);
    CINCH_TRY(cinch_gpu_mirrors_back(comm));
    CINCH_TRY(cinch_inner_residuals_back(comm, true));
    cinch_ef_scale(&comm->ef, factor);
    return cinchSuccess;
}

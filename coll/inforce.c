/* SPDX-License-Identifier: Apache-2.0 */
/* The table in force: rank 0's plan file on every rank, or what `auto` has measured. */
#include "coll/inforce.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "coll/atlas.h"
#include "coll/engine.h"
#include "coll/inforce_share.h"
#include "coll/planfile.h"
#include "coll/tune.h"

/* ---- for whom a table is ---- */

cinchResult_t cinch_inforce_place(const struct cinchComm *comm, cinch_tuned *tuned) {
    uint16_t *host = calloc((size_t)comm->nranks, sizeof *host);
    if (!host) return cinch_fail(cinchSystemError, "out of memory for %d ranks", comm->nranks);
    if (comm->host) memcpy(host, comm->host, (size_t)comm->nranks * sizeof *host);
    free(tuned->host);
    tuned->host = host;
    tuned->ranks = comm->nranks;
    tuned->hosts = comm->host ? comm->hosts : 1;
    memcpy(tuned->machine, comm->machine, sizeof tuned->machine);
    return cinchSuccess;
}

/* Refuses a table that was measured elsewhere. */
static cinchResult_t check_place(const struct cinchComm *comm, const cinch_tuned *t) {
    if (t->ranks != comm->nranks)
        return cinch_fail(cinchInvalidUsage, "CINCH_PLAN_FILE is for %d ranks, and these are %d",
                          t->ranks, comm->nranks);
    for (int q = 0; q < t->ranks; q++) {
        int here = comm->host ? comm->host[q] : 0;
        if (t->host[q] != here)
            return cinch_fail(cinchInvalidUsage,
                              "CINCH_PLAN_FILE is for another placement: rank %d is on host %d of "
                              "%d there, and on host %d of %d here",
                              q, t->host[q], t->hosts, here, comm->host ? comm->hosts : 1);
    }
    if (strcmp(t->machine, comm->machine) != 0)
        return cinch_fail(cinchInvalidUsage,
                          "CINCH_PLAN_FILE is for another machine: \"%.180s\" there, \"%.180s\" "
                          "here",
                          t->machine, comm->machine);
    return cinchSuccess;
}

/* The size of the launcher's world, 0: it does not say. */
static int world_of(const cinch_settings *settings) {
    static const char *const names[] = {"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"};
    int64_t size = settings->size;
    for (int i = 0; i < 2 && size < 1; i++) {
        const char *text = cinch_environment(names[i]);
        if (!text || !cinch_parse_count(text, &size)) size = 0;
    }
    return size > 0 && size <= CINCH_PLANFILE_MOST_RANKS ? (int)size : 0;
}

/* A part of the job makes a communicator of its own, and the file is for the whole. */
static bool is_part(const struct cinchComm *comm, const cinch_tuned *t) {
    static _Atomic bool said;
    if (t->ranks == comm->nranks || world_of(&comm->settings) != t->ranks ||
        comm->nranks > t->ranks)
        return false;
    if (!atomic_exchange(&said, true))
        cinch_info("CINCH_PLAN_FILE is for %d ranks and not used by a communicator of %d", t->ranks,
                   comm->nranks);
    return true;
}

static cinchResult_t take_file(struct cinchComm *comm, const char *text, size_t length) {
    cinch_tuned *t = calloc(1, sizeof *t);
    if (!t) return cinch_fail(cinchSystemError, "out of memory for a plan file");
    cinchResult_t result = cinch_planfile_parse(text, length, "CINCH_PLAN_FILE", t);
    if (result == cinchInvalidArgument) result = cinchInvalidUsage;
    bool use = result == cinchSuccess && !is_part(comm, t);
    if (use) result = check_place(comm, t);
    if (use && result == cinchSuccess && t->graph.gpus) result = cinch_atlas_use_tuned(comm, t);
    if (use && result == cinchSuccess) {
        comm->tuned = t;
        return cinchSuccess;
    }
    cinch_tuned_free(t);
    free(t);
    return result;
}

/* ---- auto ---- */

/* Adds the curves that the table does not have. */
static cinchResult_t add_curves(cinch_tuned *to, const cinch_tuned *from) {
    for (int i = 0; i < from->curves; i++) {
        const cinch_curve *c = &from->curve[i];
        cinch_curve *mine;
        CINCH_TRY(cinch_tuned_curve(to, c->collective, c->algo, c->codec, &mine));
        if (!mine->points) *mine = *c;
    }
    return cinchSuccess;
}

/* What goes over the wire meanwhile is not the caller's. */
static cinchResult_t measure_quietly(struct cinchComm *comm, unsigned ops, cinch_tuned *quick) {
    uint64_t *sent = calloc((size_t)comm->nranks, sizeof *sent);
    if (!sent) return cinch_fail(cinchSystemError, "out of memory for %d ranks", comm->nranks);
    for (int q = 0; q < comm->nranks; q++)
        if (comm->net->link[q]) sent[q] = comm->net->link[q]->wire_bytes;
    cinchResult_t result = cinch_tune_quick(comm, ops, quick);
    for (int q = 0; q < comm->nranks; q++)
        if (comm->net->link[q]) comm->net->link[q]->wire_bytes = sent[q];
    free(sent);
    return result;
}

static cinchResult_t measure_into(struct cinchComm *comm, unsigned ops) {
    cinch_tuned quick = {0};
    const cinch_codec codec = comm->policy.codec;
    cinchResult_t result = measure_quietly(comm, ops, &quick);
    if (result == cinchSuccess && !comm->tuned) {
        comm->tuned = calloc(1, sizeof *comm->tuned);
        result = comm->tuned ? cinch_inforce_place(comm, comm->tuned)
                             : cinch_fail(cinchSystemError, "out of memory for measured curves");
    }
    if (result == cinchSuccess) result = add_curves(comm->tuned, &quick);
    cinch_tuned_free(&quick);
    CINCH_TRY(result);
    return cinch_comm_use_codec(comm, &codec, true);
}

/* The collectives that may be compressed, and of which that is not measured; none where what is
 * known of all-reduces says enough (cinch_choice_pays). */
static unsigned unknown(const struct cinchComm *comm) {
    unsigned ops = 0;
    if (cinch_choice_knows(comm->choice, CINCH_ALLREDUCE, true)) return 0;
    for (int c = 0; c < CINCH_COLLECTIVES; c++) {
        if (!(comm->policy.ops >> c & 1) ||
            cinch_choice_knows(comm->choice, (cinch_collective)c, true))
            continue;
        cinch_call call = cinch_op_call(comm, (cinch_collective)c, 0, 1 << 20);
        call.encoded = true;
        if (cinch_algo_choose(&call)) ops |= 1u << c;
    }
    return ops;
}

cinchResult_t cinch_inforce_inherit(struct cinchComm *comm, const struct cinchComm *parent) {
    const cinch_tuned *theirs = parent->tuned;
    if (!theirs || comm->nranks != parent->nranks || theirs->ranks != parent->nranks ||
        !(comm->policy.auto_intra || comm->policy.auto_inter) ||
        strcmp(comm->settings.transport, parent->settings.transport) != 0)
        return cinchSuccess;
    cinch_tuned *copy = calloc(1, sizeof *copy);
    cinchResult_t result = copy ? cinch_inforce_place(parent, copy)
                                : cinch_fail(cinchSystemError, "out of memory for curves");
    if (result == cinchSuccess) result = add_curves(copy, theirs);
    if (result != cinchSuccess && copy) cinch_tuned_free(copy);
    if (result != cinchSuccess) free(copy);
    if (result == cinchSuccess) comm->inherited = copy;
    return result;
}

/* Ranks that were left out or come in another order may be other hosts'. */
static bool fits(const struct cinchComm *comm, const cinch_tuned *t) {
    if (t->ranks != comm->nranks || t->hosts != (comm->host ? comm->hosts : 1)) return false;
    for (int q = 0; q < t->ranks; q++)
        if (t->host[q] != (comm->host ? comm->host[q] : 0)) return false;
    return true;
}

static cinchResult_t take_inherited(struct cinchComm *comm) {
    const cinch_codec codec = comm->policy.codec;
    memcpy(comm->machine, comm->inherited->machine, sizeof comm->machine);
    comm->tuned = comm->inherited;
    comm->inherited = NULL;
    return cinch_comm_use_codec(comm, &codec, true);
}

/* Where all ranks share memory that is faster than any codec: `auto` is exact there. */
cinchResult_t cinch_inforce_measure(struct cinchComm *comm) {
    if (!comm->policy.automatic || !comm->policy.codec.vt || comm->all_local || comm->nranks < 2)
        return cinchSuccess;
    if (!comm->tuned && comm->inherited && fits(comm, comm->inherited))
        CINCH_TRY(take_inherited(comm));
    unsigned ops = unknown(comm);
    return ops ? measure_into(comm, ops) : cinchSuccess;
}

/* ---- joining ---- */

bool cinch_inforce_writable(const cinch_settings *settings, char *why) {
    char *path = settings->plan_dump[0] ? strdup(settings->plan_dump) : NULL;
    bool good = !path || access(dirname(path), W_OK | X_OK) == 0;
    if (!good)
        snprintf(why, CINCH_ERROR_TEXT,
                 "CINCH_PLAN_DUMP=%.300s: a file in a folder that can be written is accepted",
                 settings->plan_dump);
    free(path);
    return good;
}

static cinchResult_t dump(const struct cinchComm *comm) {
    cinch_tuned none = {0};
    if (!comm->settings.plan_dump[0] || comm->rank != 0) return cinchSuccess;
    if (comm->tuned) return cinch_planfile_write(comm->tuned, comm->settings.plan_dump);
    CINCH_TRY(cinch_inforce_place(comm, &none));
    cinchResult_t result = cinch_planfile_write(&none, comm->settings.plan_dump);
    cinch_tuned_free(&none);
    return result;
}

static cinchResult_t read_file(struct cinchComm *comm) {
    char *text;
    size_t length;
    CINCH_TRY(cinch_inforce_share(comm, &text, &length));
    if (!text) return cinchSuccess;
    cinchResult_t result = take_file(comm, text, length);
    free(text);
    return result;
}

cinchResult_t cinch_inforce_join(struct cinchComm *comm) {
    bool here = comm->one_host;
    const cinch_codec level = here ? comm->policy.intra : comm->policy.inter;
    if (!comm->derived) CINCH_TRY(read_file(comm));
    CINCH_TRY(cinch_comm_use_codec(comm, &level,
                                   here ? comm->policy.auto_intra : comm->policy.auto_inter));
    CINCH_TRY(cinch_inforce_measure(comm));
    return comm->derived ? cinchSuccess : dump(comm);
}

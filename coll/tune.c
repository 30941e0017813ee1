/* SPDX-License-Identifier: Apache-2.0 */
/* All that is measured of a machine: network, graph, codecs, and the curves of the algorithms. */
#include "coll/tune.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "coll/budget.h"
#include "coll/engine.h"
#include "coll/inforce.h"
#include "coll/tune_time.h"

const char *const cinch_tune_codecs[] = {"int8", "bf16", NULL};
static const char *const speeds[] = {"int8", "bf16", "topk"};

enum {
    MOST_TRIALS = 64,
    CODEC_FROM = 256 << 10, /* smaller messages gain nothing by a codec */
    OUT_FROM = 64 << 10,    /* below, who is slow for many steps may be fast later */
    BUDGET_MS = 2500
};
/* A trial so many times slower than the best at two sizes in a row, and not getting closer, is
 * measured no further. */
static const double FAR = 4, CLOSER = 0.9;

/* ---- curves ---- */

static void say(const cinch_tune_options *o, const char *format, const char *name, uint64_t bytes) {
    char text[96];
    snprintf(text, sizeof text, format, name, (unsigned long long)bytes);
    if (o->progress) o->progress(o->arg, text);
}

static cinchResult_t add_trial(cinch_timing *t, const cinch_algo *algo, const char *spec,
                               uint64_t from) {
    if (t->trials == MOST_TRIALS)
        return cinch_fail(cinchInternalError, "more than %d ways to measure", MOST_TRIALS);
    cinch_trial *trial = &t->trial[t->trials++];
    CINCH_TRY(cinch_timing_trial(t, trial, algo, spec));
    trial->from = from;
    return cinchSuccess;
}

/* Every algorithm of the collective, exact, and with each codec where calls may be compressed. */
static cinchResult_t list_trials(cinch_timing *t) {
    const char *none = "none";
    bool coded = t->policy.ops >> t->collective & 1;
    for (int c = -1; c < 0 || (coded && cinch_tune_codecs[c]); c++)
        for (int i = 0; cinch_algo_at(i); i++)
            if (cinch_algo_at(i)->collective == t->collective)
                CINCH_TRY(add_trial(t, cinch_algo_at(i), c < 0 ? none : cinch_tune_codecs[c],
                                    c < 0 ? 0 : CODEC_FROM));
    return cinchSuccess;
}

static cinchResult_t keep_point(cinch_tuned *tuned, const cinch_timing *t, const cinch_trial *trial,
                                uint64_t bytes) {
    cinch_curve *curve;
    CINCH_TRY(cinch_tuned_curve(tuned, t->collective, trial->algo->name, trial->spec, &curve));
    int last = curve->points - 1; /* sizes round to whole blocks, so two may be the same */
    if (last >= 0 && curve->point[last].bytes >= bytes) return cinchSuccess;
    if (curve->points == CINCH_CURVE_MOST) return cinchSuccess;
    curve->point[curve->points].bytes = bytes;
    curve->point[curve->points++].us = trial->us;
    return cinchSuccess;
}

static void give_up(cinch_timing *t, cinch_trial *trial, uint64_t bytes) {
    double best = 0;
    for (int i = 0; i < t->trials; i++) {
        const cinch_trial *other = &t->trial[i];
        if (other->able && strcmp(other->spec, trial->spec) == 0 && (best == 0 || other->us < best))
            best = other->us;
    }
    double ratio = trial->us / best;
    bool far = bytes >= OUT_FROM && ratio > FAR && ratio > CLOSER * trial->ratio;
    trial->slow = far ? trial->slow + 1 : 0;
    trial->ratio = ratio;
    trial->out = trial->slow >= 2;
}

static cinchResult_t one_size(cinch_timing *t, uint64_t bytes, cinch_tuned *tuned) {
    CINCH_TRY(cinch_timing_run(t, &bytes));
    for (int i = 0; i < t->trials; i++) {
        if (!t->trial[i].able) continue;
        CINCH_TRY(keep_point(tuned, t, &t->trial[i], bytes));
        give_up(t, &t->trial[i], bytes);
    }
    return cinchSuccess;
}

static cinchResult_t all_sizes(cinch_timing *t, const cinch_tune_options *o, cinch_tuned *tuned) {
    const char *name = cinch_shape_of(t->collective)->name;
    for (uint64_t bytes = o->first; bytes <= o->last; bytes *= 4) {
        say(o, "%s of %llu bytes", name, bytes);
        CINCH_TRY(one_size(t, bytes, tuned));
        if (bytes > UINT64_MAX / 4) break;
    }
    return cinchSuccess;
}

static cinchResult_t collective_curves(struct cinchComm *comm, cinch_collective collective,
                                       const cinch_tune_options *o, cinch_tuned *tuned) {
    cinch_timing t;
    cinch_trial *trial = calloc(MOST_TRIALS, sizeof *trial);
    if (!trial) return cinch_fail(cinchSystemError, "out of memory for %d trials", MOST_TRIALS);
    cinchResult_t result = cinch_timing_begin(&t, comm, collective, o->last);
    t.trial = trial;
    t.budget_us = 1e3 * (o->budget_ms > 0 ? o->budget_ms : BUDGET_MS);
    if (result == cinchSuccess) result = list_trials(&t);
    if (result == cinchSuccess) result = all_sizes(&t, o, tuned);
    cinchResult_t end = cinch_timing_end(&t);
    free(trial);
    return result == cinchSuccess ? end : result;
}

/* ---- the rest ---- */

/* Rank 0's figures are everyone's. */
static cinchResult_t share_speeds(struct cinchComm *comm, cinch_tuned *tuned) {
    size_t n = (size_t)comm->nranks;
    cinch_codec_speed mine[3] = {{{0}, 0, 0}};
    cinch_codec_speed *all = malloc(n * sizeof mine);
    if (!all) return cinch_fail(cinchSystemError, "out of memory for %zu ranks", n);
    cinchResult_t result = cinchSuccess;
    for (int i = 0; i < 3 && comm->rank == 0 && result == cinchSuccess; i++)
        result = cinch_tune_codec(speeds[i], &mine[i]);
    if (result == cinchSuccess)
        result = cinch_rendezvous_allgather(comm->meeting, mine, sizeof mine, all);
    if (result == cinchSuccess) memcpy(tuned->speed, all, sizeof mine);
    tuned->speeds = 3;
    free(all);
    return result;
}

static double middle_alpha(const cinch_tune_net *net) {
    double sum = 0;
    int n = net->hosts;
    for (int i = 0; i < n * n; i++) sum += net->alpha_us[i];
    return n > 1 ? sum / (n * (n - 1)) : 0;
}

static cinchResult_t network(struct cinchComm *comm, cinch_tune_net *net, cinch_tuned *tuned) {
    CINCH_TRY(cinch_tune_network(comm, net));
    tuned->shm_alpha_us = net->shm_alpha_us;
    tuned->shm_gbps = net->shm_gbps;
    tuned->net_alpha_us = middle_alpha(net);
    CINCH_TRY(cinch_tune_graph(net, comm->nranks, tuned->host, &tuned->graph));
    return cinch_atlas_use_graph(comm, &tuned->graph);
}

static cinchResult_t measure(struct cinchComm *comm, const cinch_tune_options *o,
                             cinch_tune_net *net, cinch_tuned *tuned) {
    CINCH_TRY(cinch_inforce_place(comm, tuned));
    if (o->progress) o->progress(o->arg, "the network");
    CINCH_TRY(network(comm, net, tuned));
    if (o->progress) o->progress(o->arg, "codecs");
    CINCH_TRY(share_speeds(comm, tuned));
    for (int c = 0; c < CINCH_COLLECTIVES; c++)
        if (o->ops >> c & 1) CINCH_TRY(collective_curves(comm, (cinch_collective)c, o, tuned));
    return cinchSuccess;
}

cinchResult_t cinch_tune(struct cinchComm *comm, const cinch_tune_options *options,
                         cinch_tune_net *net, cinch_tuned *tuned) {
    *net = (cinch_tune_net){0};
    CINCH_TRY(cinch_comm_drain(comm));
    CINCH_TRY(cinch_comm_state(comm));
    cinchResult_t result = measure(comm, options, net, tuned);
    if (result == cinchSuccess) return cinchSuccess;
    cinch_tune_net_free(net);
    cinch_tuned_free(tuned);
    return cinch_comm_fail(comm, result);
}

/* ---- a short look ---- */

enum {
    QUICK_LEAST = 256 << 10, /* bytes */
    QUICK_MOST = 16 << 20,
    QUICK_US = 2000000, /* about so long in all */
    QUICK_SIZE_US = 100000
};
/* One that is so much slower than the other stays so for longer messages. */
static const double CLEAR = 2;

static cinchResult_t quick_sizes(cinch_timing *t, uint64_t bytes, cinch_tuned *tuned) {
    struct cinchComm *comm = t->comm;
    for (int sizes = 1;; sizes++, bytes *= 4) {
        double before = t->spent_us;
        CINCH_TRY(cinch_timing_run(t, &bytes));
        for (int i = 0; i < 2; i++) {
            cinch_trial named = t->trial[i];
            cinch_cut cut;
            cinch_call call = cinch_op_call(comm, t->collective, t->count * sizeof(float));
            call.encoded = named.codec.vt != NULL;
            CINCH_TRY(cinch_op_choose(comm, &call, cinchFloat32, &named.algo, &cut));
            CINCH_TRY(keep_point(tuned, t, &named, bytes));
        }
        double ratio = t->trial[0].us / t->trial[1].us;
        bool clear = ratio > CLEAR || ratio < 1 / CLEAR;
        if (bytes >= QUICK_MOST || (clear && sizes >= 2)) return cinchSuccess;
        /* At the next size each call takes four times as long, and there are fewer of them. */
        double next = 4 * (t->trial[0].us + t->trial[1].us) * (2 + t->least);
        if (t->spent_us + next > QUICK_US || (clear && t->spent_us - before > QUICK_US / 8))
            return cinchSuccess;
    }
}

cinchResult_t cinch_tune_quick(struct cinchComm *comm, cinch_tuned *tuned) {
    const char *codec = cinch_budget_codec(comm->settings.max_rel_error);
    cinch_trial trial[2];
    cinch_timing t;
    CINCH_TRY(cinch_inforce_place(comm, tuned));
    if (strcmp(codec, "none") == 0) return cinchSuccess;
    uint64_t least = comm->settings.codec_min_bytes;
    least = least < QUICK_LEAST ? QUICK_LEAST : least > QUICK_MOST ? QUICK_MOST : least;
    cinchResult_t result = cinch_timing_begin(&t, comm, CINCH_ALLREDUCE, QUICK_MOST);
    t.trial = trial;
    t.trials = 2;
    t.budget_us = QUICK_SIZE_US;
    t.least = 3;
    t.most = 15;
    if (result == cinchSuccess) result = cinch_timing_trial(&t, &trial[0], NULL, "none");
    if (result == cinchSuccess) result = cinch_timing_trial(&t, &trial[1], NULL, codec);
    if (result == cinchSuccess) result = quick_sizes(&t, least, tuned);
    cinchResult_t end = cinch_timing_end(&t);
    if (result == cinchSuccess) result = end;
    if (result != cinchSuccess) cinch_tuned_free(tuned);
    return result;
}

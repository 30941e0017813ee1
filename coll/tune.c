/* SPDX-License-Identifier: Apache-2.0 */
/* All that is measured of a machine: network, graph, codecs, and the curves of the algorithms. */
#include "coll/tune.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "coll/budget.h"
#include "coll/engine.h"
#include "coll/inforce.h"
#include "coll/tune_time.h"

const char *const cinch_tune_codecs[] = {"int8", "bf16", NULL};
static const char *const speeds[] = {"int8", "bf16", "topk"};

enum {
    MOST_TRIALS = CINCH_MOST_WAYS,
    CODEC_FROM = 256 << 10, /* smaller messages gain nothing by a codec */
    OUT_FROM = 64 << 10,    /* below, who is slow for many steps may be fast later */
    BUDGET_MS = 4000,
    MOST_PASSES = CINCH_MOST_PASSES, /* over all sizes, as disturbances of a machine come and go; */
    LEAST_PASSES = 3,                /* of them so many at a size whose calls take very long, and */
    PASSES = 5,                      /* so many at one whose budget is too short for all */
    FAR_KEPT = 5,                    /* of those with CPUs far apart, where they came closer */
    MOST_SIZES = 32,
    SETTLE_US = 300000, /* until the scheduler has spread ranks over CPUs; then they stay there */
    WATCH_STEP_US = 500000,
    WATCH_MOST_US = 60000000
};
/* CPUs that share a cache are below it; a hypervisor moves virtual ones apart for up to a minute or
 * two, and then other algorithms are the best (cinch_timing_handover). */
static const double FAR_CPUS_NS = 150, MUCH_CLOSER = 0.67;
/* A trial so many times slower than the best at two sizes in a row, and not getting closer, is
 * measured no further. */
static const double FAR = 4, CLOSER = 0.9;

/* ---- curves ---- */

static void say(const cinch_tune_options *o, cinch_collective collective, int pass_number,
                uint64_t bytes) {
    char text[96];
    snprintf(text, sizeof text, "%s of %llu bytes, pass %d", cinch_shape_of(collective)->name,
             (unsigned long long)bytes, pass_number + 1);
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

static cinchResult_t keep_point(cinch_tuned *tuned, cinch_collective collective, const char *algo,
                                const char *spec, uint64_t bytes, double us) {
    cinch_curve *curve;
    CINCH_TRY(cinch_tuned_curve(tuned, collective, algo, spec, &curve));
    int last = curve->points - 1; /* sizes round to whole blocks, so two may be the same */
    if (last >= 0 && curve->point[last].bytes >= bytes) return cinchSuccess;
    if (curve->points == CINCH_CURVE_MOST) return cinchSuccess;
    curve->point[curve->points].bytes = bytes;
    curve->point[curve->points++].us = us;
    return cinchSuccess;
}

/* The median of the pass that was the last. */
static double last_of(const cinch_trial *trial) {
    return trial->samples->pass_us[trial->samples->passes - 1];
}

static void give_up(const cinch_timing *t, cinch_trial *trial, uint64_t bytes) {
    double best = 0, mine = last_of(trial);
    for (int i = 0; i < t->trials; i++) {
        const cinch_trial *other = &t->trial[i];
        if (!other->able || strcmp(other->spec, trial->spec) != 0) continue;
        if (best == 0 || last_of(other) < best) best = last_of(other);
    }
    double ratio = mine / best;
    bool far = bytes >= OUT_FROM && ratio > FAR && ratio > CLOSER * trial->ratio;
    trial->slow = far ? trial->slow + 1 : 0;
    trial->ratio = ratio;
    trial->out = trial->slow >= 2;
}

/* Every trial at every size. */
typedef struct sweep {
    cinch_timing timing;
    cinch_trial trial[MOST_TRIALS];
    cinch_samples samples[MOST_SIZES][MOST_TRIALS];
    uint64_t bytes[MOST_SIZES];
    double spent_us[MOST_SIZES], budget_us; /* of each */
    int done[MOST_SIZES];                   /* passes */
    bool far[MOST_SIZES][MOST_PASSES];      /* in a pass that was kept */
    int kept[MOST_SIZES];                   /* passes from when the CPUs were far apart */
    bool again;                             /* there are such */
    int sizes;
    double apart_ns; /* the CPUs at best; 0: not known */
} sweep;

/* Whether pass `number` is one of those that there is the time for at that size; they are spread
 * over all, because a machine may be a slow one for a minute. */
static bool takes_part(const sweep *w, int size, int number) {
    int done = w->done[size];
    if (w->kept[size] + done >= MOST_PASSES) return false;
    if (!done) return true;
    int room = (int)fmin(w->budget_us / w->spent_us[size] * done, MOST_PASSES);
    if (room < LEAST_PASSES) room = LEAST_PASSES;
    return done * (MOST_PASSES - 1) <= (room - 1) * number;
}

/* Rank 0's CPUs, on all ranks. */
static cinchResult_t handover(sweep *w, double *ns) {
    *ns = w->timing.comm->rank == 0 ? cinch_timing_handover() : 0;
    CINCH_TRY(cinch_timing_largest(&w->timing, ns));
    if (*ns > 0 && (w->apart_ns == 0 || *ns < w->apart_ns)) w->apart_ns = *ns;
    return cinchSuccess;
}

/* What is between hosts decides, not how far CPUs are apart. */
static bool alone(const sweep *w) {
    const struct cinchComm *comm = w->timing.comm;
    return comm->host && comm->hosts == comm->nranks;
}

static cinchResult_t pass(sweep *w, int number, const cinch_tune_options *o) {
    cinch_timing *t = &w->timing;
    bool all = number == 0 && !w->again;
    t->again = !all;
    for (int i = 0; i < t->trials; i++) t->trial[i].out = false;
    for (int k = 0; k < w->sizes; k++) {
        double before_us = t->spent_us, ns;
        if (!takes_part(w, k, number)) continue;
        CINCH_TRY(handover(w, &ns));
        w->far[k][w->kept[k] + w->done[k]] = ns >= FAR_CPUS_NS && !alone(w);
        say(o, t->collective, number, w->bytes[k]);
        for (int i = 0; i < t->trials; i++) t->trial[i].samples = &w->samples[k][i];
        CINCH_TRY(cinch_timing_run(t, &w->bytes[k]));
        for (int i = 0; i < t->trials && all; i++)
            if (t->trial[i].able) give_up(t, &t->trial[i], w->bytes[k]);
        w->spent_us[k] += t->spent_us - before_us;
        w->done[k]++;
    }
    return cinchSuccess;
}

/* What all passes at a size say, into the curves. */
static cinchResult_t keep_size(const sweep *w, int k, cinch_tuned *tuned) {
    const cinch_timing *t = &w->timing;
    double us[MOST_TRIALS * MOST_PASSES], out[MOST_TRIALS];
    int way[MOST_TRIALS], ways = 0, passes = 0;
    for (int i = 0; i < t->trials; i++) { /* who takes part at a size does so in all passes */
        const cinch_samples *s = &w->samples[k][i];
        if (!s->passes) continue;
        passes = s->passes;
        memcpy(&us[ways * passes], s->pass_us, (size_t)passes * sizeof *us);
        way[ways++] = i;
    }
    if (ways) cinch_timing_polish(us, ways, passes, w->far[k], out);
    for (int i = 0; i < ways; i++) {
        const cinch_trial *trial = &t->trial[way[i]];
        CINCH_TRY(
            keep_point(tuned, t->collective, trial->algo->name, trial->spec, w->bytes[k], out[i]));
    }
    return cinchSuccess;
}

static cinchResult_t all_passes(sweep *w, const cinch_tune_options *o) {
    for (int p = 0; p < MOST_PASSES; p++) CINCH_TRY(pass(w, p, o));
    return cinchSuccess;
}

/* Where the CPUs have been far from each other all the while, waits for them to come closer, for as
 * long as the passes took, but a minute at most. */
static cinchResult_t watch(sweep *w, const cinch_tune_options *o, bool *closer) {
    const struct timespec step = {WATCH_STEP_US / 1000000, WATCH_STEP_US % 1000000 * 1000};
    double left_us = 0, apart_ns = w->apart_ns;
    *closer = false;
    if (apart_ns < FAR_CPUS_NS || alone(w)) return cinchSuccess;
    for (int k = 0; k < w->sizes; k++) left_us += w->spent_us[k];
    if (o->progress) o->progress(o->arg, "whether CPUs that are far apart come closer");
    for (left_us = fmin(left_us, WATCH_MOST_US); left_us > 0 && !*closer;
         left_us -= WATCH_STEP_US) {
        double ns;
        nanosleep(&step, NULL);
        CINCH_TRY(handover(w, &ns));
        *closer = ns > 0 && ns < FAR_CPUS_NS && ns < MUCH_CLOSER * apart_ns;
    }
    return cinchSuccess;
}

/* The machine was another one: of what was measured some passes stay beside those to come. */
static void keep_some(sweep *w) {
    w->again = true;
    for (int k = 0; k < w->sizes; k++) {
        w->kept[k] = w->done[k] < FAR_KEPT ? w->done[k] : FAR_KEPT;
        for (int i = 0; i < w->timing.trials; i++)
            if (w->samples[k][i].passes) w->samples[k][i].passes = w->kept[k];
    }
    memset(w->spent_us, 0, sizeof w->spent_us);
    memset(w->done, 0, sizeof w->done);
}

static cinchResult_t run_sweep(sweep *w, const cinch_tune_options *o, cinch_tuned *tuned) {
    cinch_timing *t = &w->timing;
    bool closer;
    for (uint64_t b = o->first; b <= o->last && w->sizes < MOST_SIZES; b *= 4)
        w->bytes[w->sizes++] = b;
    CINCH_TRY(list_trials(t));
    CINCH_TRY(cinch_timing_settle(t, fmin(SETTLE_US, w->budget_us)));
    CINCH_TRY(all_passes(w, o));
    CINCH_TRY(watch(w, o, &closer));
    if (closer) {
        keep_some(w);
        CINCH_TRY(cinch_timing_settle(t, fmin(SETTLE_US, w->budget_us)));
        CINCH_TRY(all_passes(w, o));
    }
    for (int k = 0; k < w->sizes; k++) CINCH_TRY(keep_size(w, k, tuned));
    return cinchSuccess;
}

static cinchResult_t collective_curves(struct cinchComm *comm, cinch_collective collective,
                                       const cinch_tune_options *o, cinch_tuned *tuned) {
    sweep *w = calloc(1, sizeof *w);
    if (!w) return cinch_fail(cinchSystemError, "out of memory for %d trials", MOST_TRIALS);
    cinchResult_t result = cinch_timing_begin(&w->timing, comm, collective, o->last);
    w->timing.trial = w->trial;
    w->budget_us = 1e3 * (o->budget_ms > 0 ? o->budget_ms : BUDGET_MS);
    w->timing.budget_us = w->budget_us / PASSES;
    if (result == cinchSuccess) result = run_sweep(w, o, tuned);
    cinchResult_t end = cinch_timing_end(&w->timing);
    free(w);
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
    return cinch_atlas_use_tuned(comm, tuned);
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
    QUICK_FIRST = 64 << 10, /* bytes: what a slow line carries in the time */
    QUICK_MOST = 16 << 20,
    QUICK_US = 2000000, /* about so long in all */
    QUICK_SIZE_US = 100000
};
/* One that is so much slower than the other stays so for longer messages. */
static const double CLEAR = 2;

/* The exact one and the one with the codec, at one size; their times. */
static cinchResult_t quick_size(cinch_timing *t, uint64_t *bytes, cinch_tuned *tuned,
                                double us[2]) {
    cinch_samples samples[2] = {{0}};
    for (int i = 0; i < 2; i++) t->trial[i].samples = &samples[i];
    CINCH_TRY(cinch_timing_run(t, bytes));
    for (int i = 0; i < 2; i++) {
        const cinch_algo *algo;
        cinch_cut cut;
        cinch_call call = cinch_op_call(t->comm, t->collective, 0, t->count * sizeof(float));
        call.encoded = t->trial[i].codec.vt != NULL;
        CINCH_TRY(cinch_op_choose(t->comm, &call, cinchFloat32, &algo, &cut));
        us[i] = samples[i].pass_us[0];
        CINCH_TRY(keep_point(tuned, t->collective, algo->name, t->trial[i].spec, *bytes, us[i]));
        t->trial[i].samples = NULL;
    }
    return cinchSuccess;
}

/* Until the next size would take too long, or it is clear for messages that are compressed. A line
 * that lets the first bytes pass at once grows slow all of a sudden: what came last comes again. */
static cinchResult_t quick_sizes(cinch_timing *t, double most_us, cinch_tuned *tuned) {
    double last_us = INFINITY;
    for (uint64_t size = QUICK_FIRST;; size *= 4) {
        uint64_t bytes = size; /* less where blocks do not divide it */
        double us[2];
        CINCH_TRY(quick_size(t, &bytes, tuned, us));
        int calls = 4 * size < 1 << 20 ? 3 : 2; /* those that warm up, and one that counts */
        double ratio = us[0] / us[1], both_us = us[0] + us[1];
        double next = fmax(4, both_us / last_us) * both_us * calls;
        last_us = both_us;
        bool clear = (ratio > CLEAR || ratio < 1 / CLEAR) && size >= t->min_bytes;
        if (size >= QUICK_MOST || t->spent_us + next > most_us || clear) return cinchSuccess;
    }
}

/* share: of the time for all. */
static cinchResult_t quick_curves(struct cinchComm *comm, cinch_collective collective,
                                  const char *codec, double share, cinch_tuned *tuned) {
    cinch_trial trial[2];
    cinch_timing t;
    cinchResult_t result = cinch_timing_begin(&t, comm, collective, QUICK_MOST);
    t.trial = trial;
    t.trials = 2;
    t.budget_us = QUICK_SIZE_US * share;
    if (result == cinchSuccess) result = cinch_timing_trial(&t, &trial[0], NULL, "none");
    if (result == cinchSuccess) result = cinch_timing_trial(&t, &trial[1], NULL, codec);
    if (result == cinchSuccess) result = quick_sizes(&t, QUICK_US * share, tuned);
    cinchResult_t end = cinch_timing_end(&t);
    return result == cinchSuccess ? end : result;
}

cinchResult_t cinch_tune_quick(struct cinchComm *comm, unsigned ops, cinch_tuned *tuned) {
    const char *codec = cinch_budget_codec(comm->settings.max_rel_error);
    CINCH_TRY(cinch_inforce_place(comm, tuned));
    if (strcmp(codec, "none") == 0) return cinchSuccess;
    cinchResult_t result = cinchSuccess;
    for (int c = 0; c < CINCH_COLLECTIVES && result == cinchSuccess; c++)
        if (ops >> c & 1)
            result = quick_curves(comm, (cinch_collective)c, codec, 1.0 / __builtin_popcount(ops),
                                  tuned);
    if (result != cinchSuccess) cinch_tuned_free(tuned);
    return result;
}

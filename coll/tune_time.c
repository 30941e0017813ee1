/* SPDX-License-Identifier: Apache-2.0 */
/* Timing one call in several ways, in turn. */
#include "coll/tune_time.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "coll/engine.h"
#include "compress/codec.h"

/* As `cinch perf` has it: a sample is a batch of calls of at least a millisecond. */
#define SAMPLE_US 1000.0
#define BATCH_MOST (1u << 20)

/* A trial so many times slower than the best of its codec, by a few samples, is not measured more
 * exactly than that. */
#define FAR 4.0
enum { FEW = 3 };

#define SLOW_US 200000.0 /* a call that has no time for a warm-up that does not count */

enum { LONG_BYTES = 1 << 20 }; /* one call warms up, else two */

static void put_in_force(struct cinchComm *comm, cinch_collective c, const cinch_trial *trial) {
    snprintf(comm->policy.algo[c], sizeof comm->policy.algo[c], "%s",
             trial->algo ? trial->algo->name : "");
    comm->policy.codec = trial->codec;
    comm->policy.inside = (cinch_codec){0};
    comm->oneshot_most = trial->oneshot_most;
}

cinchResult_t cinch_timing_trial(cinch_timing *t, cinch_trial *trial, const cinch_algo *algo,
                                 const char *spec) {
    char why[CINCH_ERROR_TEXT];
    *trial = (cinch_trial){.algo = algo, .spec = spec};
    if (!cinch_codec_parse(spec, &trial->codec, why, sizeof why))
        return cinch_fail(cinchInvalidArgument, "codec \"%.100s\": %.300s", spec, why);
    put_in_force(t->comm, t->collective, trial);
    CINCH_TRY(cinch_comm_use_codec(t->comm, &trial->codec, false));
    trial->oneshot_most = t->comm->oneshot_most;
    if (t->rest.spec) put_in_force(t->comm, t->collective, &t->rest);
    return cinchSuccess;
}

/* ---- one call ---- */

static cinchResult_t run_joined(const cinch_called *c) {
    struct cinchComm *comm = c->comm;
    switch (c->collective) {
    case CINCH_ALLREDUCE:
        return cinchAllReduce(c->send, c->recv, c->count, c->dtype, c->redop, comm, NULL);
    case CINCH_REDUCESCATTER:
        return cinchReduceScatter(c->send, c->recv, c->count, c->dtype, c->redop, comm, NULL);
    case CINCH_ALLGATHER:
        return cinchAllGather(c->send, c->recv, c->count, c->dtype, comm, NULL);
    case CINCH_BROADCAST:
        return cinchBroadcast(c->send, c->recv, c->count, c->dtype, c->root, comm, NULL);
    case CINCH_REDUCE:
        return cinchReduce(c->send, c->recv, c->count, c->dtype, c->redop, c->root, comm, NULL);
    case CINCH_ALLTOALL:
        return cinchAlltoAll(c->send, c->recv, c->count, c->dtype, comm, NULL);
    case CINCH_GATHER:
        return cinchGather(c->send, c->recv, c->count, c->dtype, c->root, comm, NULL);
    case CINCH_SCATTER:
        return cinchScatter(c->send, c->recv, c->count, c->dtype, c->root, comm, NULL);
    default:
        return cinch_fail(cinchInternalError, "a sendrecv is not tuned");
    }
}

/* Here, to its end: also while ranks are joining, and where the communicator's calls do not wait.
 */
static cinchResult_t run(const cinch_called *called) {
    struct cinchComm *comm = called->comm;
    if (atomic_load(&comm->turn) == CINCH_TURN_NONE) return cinch_engine_run_inside(called);
    if (!comm->worker) return run_joined(called);
    cinch_op op = {.call = *called, .number = cinch_comm_issue(comm)};
    return cinch_engine_run(&op);
}

static cinchResult_t call(const cinch_timing *t) {
    cinch_called called = {.comm = t->comm,
                           .collective = t->collective,
                           .send = t->send,
                           .recv = t->recv,
                           .count = t->count,
                           .dtype = cinchFloat32,
                           .redop = cinchSum};
    return run(&called);
}

/* Also where ranks meet before the next batch. */
cinchResult_t cinch_timing_largest(const cinch_timing *t, double *value) {
    cinch_called called = {.comm = t->comm,
                           .collective = CINCH_ALLREDUCE,
                           .send = value,
                           .recv = value,
                           .count = 1,
                           .dtype = cinchFloat64,
                           .redop = cinchMax};
    return run(&called);
}

/* ---- samples ---- */

static double median(const cinch_samples *samples) {
    return samples->count ? cinch_timing_quantile(samples->us, samples->count, 0.5) : 0;
}

static cinchResult_t batch(const cinch_timing *t, unsigned calls, double *us) {
    uint64_t start = cinch_now_ns();
    for (unsigned i = 0; i < calls; i++) CINCH_TRY(call(t));
    *us = (double)(cinch_now_ns() - start) / 1e3;
    return cinchSuccess;
}

static cinchResult_t timed_batch(cinch_timing *t, const cinch_trial *trial, unsigned calls,
                                 double *us) {
    put_in_force(t->comm, t->collective, trial);
    cinchResult_t result = batch(t, calls, us);
    put_in_force(t->comm, t->collective, &t->rest);
    CINCH_TRY(result);
    CINCH_TRY(cinch_timing_largest(t, us));
    t->spent_us += *us;
    return cinchSuccess;
}

/* How many calls take long enough, by what some took. */
static unsigned batch_for(unsigned calls, double us) {
    double wanted = ceil(calls * fmin(1.25 * SAMPLE_US / us, 100));
    if (us / calls >= SAMPLE_US) return 1;
    return wanted < BATCH_MOST ? (unsigned)wanted : BATCH_MOST;
}

static cinchResult_t warm(cinch_timing *t, const cinch_trial *trial) {
    unsigned calls = t->count * sizeof(float) >= LONG_BYTES ? 1 : 2;
    double us;
    CINCH_TRY(timed_batch(t, trial, calls, &us));
    if (!trial->samples->batch) trial->samples->batch = batch_for(calls, us);
    if (us / calls >= SLOW_US) trial->samples->us[trial->samples->count++] = us / calls;
    return cinchSuccess;
}

/* One batch. It becomes a sample where it is long enough, else the next one is longer. */
static cinchResult_t take(cinch_timing *t, const cinch_trial *trial) {
    cinch_samples *s = trial->samples;
    double us;
    CINCH_TRY(timed_batch(t, trial, s->batch, &us));
    if (us >= SAMPLE_US || s->batch == BATCH_MOST)
        s->us[s->count++] = us / s->batch;
    else
        s->batch = batch_for(s->batch, us) + 1;
    return cinchSuccess;
}

static double best_of(const cinch_timing *t, const char *spec) {
    double best = 0;
    for (int i = 0; i < t->trials; i++) {
        const cinch_trial *trial = &t->trial[i];
        if (!trial->able || strcmp(trial->spec, spec) != 0) continue;
        double us = median(trial->samples);
        if (us > 0 && (best == 0 || us < best)) best = us;
    }
    return best;
}

/* Whether the trial needs one more sample. */
static bool wants_more(const cinch_timing *t, const cinch_trial *trial, double began_us) {
    if (!trial->able || trial->samples->count >= t->most) return false;
    if (!trial->samples->count) return true;
    if (t->spent_us - began_us >= t->budget_us) return false;
    return trial->samples->count < FEW || median(trial->samples) <= FAR * best_of(t, trial->spec);
}

/* Everything here depends on times that all ranks have, so all do the same. */
static cinchResult_t take_all(cinch_timing *t) {
    double began_us = t->spent_us;
    for (int i = 0; i < t->trials; i++)
        if (wants_more(t, &t->trial[i], began_us)) CINCH_TRY(warm(t, &t->trial[i]));
    for (bool more = true; more;) {
        more = false;
        for (int i = 0; i < t->trials; i++) {
            if (!wants_more(t, &t->trial[i], began_us)) continue;
            more = true;
            CINCH_TRY(take(t, &t->trial[i]));
        }
    }
    return cinchSuccess;
}

cinchResult_t cinch_timing_settle(cinch_timing *t, double for_us) {
    enum { BYTES = 64 << 10, CALLS = 16 };
    uint64_t bytes = t->room < BYTES ? t->room : BYTES;
    t->count = bytes / sizeof(float) / (size_t)t->comm->nranks;
    if (!t->count) t->count = 1;
    for (double us = 0, sum = 0; sum < for_us; sum += us) {
        CINCH_TRY(batch(t, CALLS, &us));
        CINCH_TRY(cinch_timing_largest(t, &us));
    }
    return cinchSuccess;
}

/* ---- a size ---- */

/* In force, as the trees of a forest are planned for who asks for them. */
static bool serves(const cinch_timing *t, const cinch_trial *trial, size_t block) {
    if (!trial->algo) return true;
    put_in_force(t->comm, t->collective, trial);
    cinch_call there = cinch_op_call(t->comm, t->collective, 0, block);
    put_in_force(t->comm, t->collective, &t->rest);
    there.encoded = trial->codec.vt != NULL;
    return !trial->algo->supports(&there);
}

cinchResult_t cinch_timing_run(cinch_timing *t, uint64_t *bytes) {
    size_t blocks = (size_t)cinch_shape_blocks(cinch_shape_of(t->collective), t->comm->nranks);
    t->count = *bytes / blocks / sizeof(float);
    if (!t->count) t->count = 1;
    *bytes = t->count * blocks * sizeof(float);
    for (int i = 0; i < t->trials; i++) {
        cinch_trial *trial = &t->trial[i];
        trial->able = !trial->out && *bytes >= trial->from &&
                      (!t->again || trial->samples->passes) &&
                      serves(t, trial, t->count * sizeof(float));
        trial->samples->count = 0;
    }
    CINCH_TRY(take_all(t));
    for (int i = 0; i < t->trials; i++) {
        cinch_samples *s = t->trial[i].samples;
        if (t->trial[i].able && s->passes < CINCH_MOST_PASSES) s->pass_us[s->passes++] = median(s);
    }
    return cinchSuccess;
}

/* Whole numbers, so that no codec meets subnormals. */
static void fill(unsigned char *data, uint64_t bytes) {
    for (uint64_t i = 0; i + sizeof(float) <= bytes; i += sizeof(float)) {
        float value = (float)(i / sizeof(float) % 255) - 127;
        memcpy(data + i, &value, sizeof value);
    }
}

static void keep_rules(cinch_timing *t) {
    struct cinchComm *comm = t->comm;
    t->policy = comm->policy;
    t->min_bytes = comm->settings.codec_min_bytes;
    t->warmup = comm->settings.codec_warmup;
    t->calls = comm->calls;
    t->bytes = comm->bytes;
    t->ticks = comm->ticks;
    t->codec_ticks = comm->codec_ticks;
    t->compressed_calls = comm->compressed_calls;
    t->nonfinite = comm->nonfinite;
    comm->policy.automatic = comm->policy.excluded = false;
    comm->policy.inside = (cinch_codec){0}; /* exact is exact everywhere */
    comm->policy.nexclusions = 0;
    comm->policy.ops |= 1u << t->collective;
    comm->policy.dtypes |= 1u << cinchFloat32;
    comm->settings.codec_min_bytes = 0;
    comm->settings.codec_warmup = 0;
}

cinchResult_t cinch_timing_end(cinch_timing *t) {
    struct cinchComm *comm = t->comm;
    free(t->send);
    free(t->recv);
    t->send = t->recv = NULL;
    comm->policy = t->policy;
    comm->settings.codec_min_bytes = t->min_bytes;
    comm->settings.codec_warmup = t->warmup;
    comm->calls = t->calls;
    comm->bytes = t->bytes;
    comm->ticks = t->ticks;
    comm->codec_ticks = t->codec_ticks;
    comm->compressed_calls = t->compressed_calls;
    comm->nonfinite = t->nonfinite;
    cinch_codec codec = comm->policy.codec;
    return cinch_comm_use_codec(comm, &codec, comm->policy.automatic);
}

cinchResult_t cinch_timing_begin(cinch_timing *t, struct cinchComm *comm,
                                 cinch_collective collective, uint64_t most_bytes) {
    uint64_t least = sizeof(float) * (uint64_t)comm->nranks;
    uint64_t room = most_bytes > least ? most_bytes : least;
    *t = (cinch_timing){.comm = comm, .collective = collective, .most = CINCH_MOST_SAMPLES};
    keep_rules(t);
    t->room = room;
    t->send = malloc(room);
    t->recv = malloc(room);
    if (!t->send || !t->recv)
        return cinch_fail(cinchSystemError, "out of memory for messages of %llu bytes",
                          (unsigned long long)room);
    fill(t->send, room);
    memset(t->recv, 0, room);
    cinchResult_t result = cinch_timing_trial(t, &t->rest, NULL, "none");
    if (result == cinchSuccess) put_in_force(comm, collective, &t->rest);
    return result;
}

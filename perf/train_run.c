/* SPDX-License-Identifier: Apache-2.0 */
/* The training: a run per codec, each the same but for the communicator that reduces gradients. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "perf/train_job.h"

/* This file does with cinch what any client can: it has its public header alone. */
#define TRY(expression)                                                                            \
    do {                                                                                           \
        const cinchResult_t tried = (expression);                                                  \
        if (tried != cinchSuccess) return tried;                                                   \
    } while (0)

enum { BUCKET_BYTES = 1 << 20 };

/* Of the learning rate: a linear rise over WARM of the run, then a cosine down to LEAST. */
static const double PEAK = 2e-3, WARM = 0.05, LEAST = 0.05;

static double learning_rate(int step, int steps) {
    const double at = (step + 1.0) / steps;
    if (at < WARM) return PEAK * at / WARM;
    const double turn = acos(-1) * (at - WARM) / (1 - WARM);
    return PEAK * (LEAST + (1 - LEAST) * (1 + cos(turn)) / 2);
}

static cinch_train_result *current(const cinch_trainer *t) {
    return &t->results[t->run];
}

cinchResult_t cinch_train_agree(const cinch_trainer *t, void *values, size_t count,
                                cinchDataType_t type, cinchRedOp_t op) {
    return cinchAllReduce(values, values, count, type, op, t->exact, NULL);
}

/* The ranks share the held-out windows out among them and add up. */
static cinchResult_t held_out_loss(cinch_trainer *t, double *loss) {
    const int count = cinch_text_held_count(&t->text, CINCH_TRAIN_CONTEXT);
    const int first = (int)((int64_t)count * t->place.rank / t->place.size);
    const int end = (int)((int64_t)count * (t->place.rank + 1) / t->place.size);
    double sum = 0;
    for (int i = first; i < end; i += CINCH_TRAIN_EVAL_WINDOWS) {
        const int here = end - i < CINCH_TRAIN_EVAL_WINDOWS ? end - i : CINCH_TRAIN_EVAL_WINDOWS;
        for (int j = 0; j < here; j++) {
            cinch_text_held_window(&t->text, CINCH_TRAIN_CONTEXT, i + j,
                                   t->input + j * CINCH_TRAIN_CONTEXT,
                                   t->target + j * CINCH_TRAIN_CONTEXT);
        }
        sum += cinch_model_forward(&t->model, t->input, t->target, here);
    }
    const cinchResult_t result = cinch_train_agree(t, &sum, 1, cinchFloat64, cinchSum);
    *loss = sum / ((double)count * CINCH_TRAIN_CONTEXT);
    return result;
}

static int bucket_count(const cinch_trainer *t) {
    const size_t whole = t->model.count * sizeof(float) / BUCKET_BYTES;
    return whole ? (int)whole : 1;
}

static size_t bucket_begin(const cinch_trainer *t, int bucket) {
    return t->model.count * (size_t)bucket / (size_t)bucket_count(t);
}

/* Gradients keep their names for error feedback, wherever the buffer may lie. */
static cinchResult_t name_buckets(cinch_trainer *t) {
    cinchResult_t result = cinchSuccess;
    for (int i = 0; result == cinchSuccess && i < bucket_count(t); i++) {
        const size_t begin = bucket_begin(t, i), end = bucket_begin(t, i + 1);
        result = cinchCommTag(t->comm, t->model.gradient + begin, (end - begin) * sizeof(float),
                              (uint64_t)i + 1);
    }
    return result;
}

/* Averages the gradients in place. The clock starts when all ranks are there, so that it shows
 * communication and not who computes slower. */
static cinchResult_t reduce_gradients(cinch_trainer *t) {
    float here = 1;
    cinchResult_t result = cinch_train_agree(t, &here, 1, cinchFloat32, cinchSum);
    const double began = cinch_train_seconds();
    for (int i = 0; result == cinchSuccess && i < bucket_count(t); i++) {
        float *at = t->model.gradient + bucket_begin(t, i);
        result = cinchAllReduce(at, at, bucket_begin(t, i + 1) - bucket_begin(t, i), cinchFloat32,
                                cinchAvg, t->comm, NULL);
    }
    current(t)->comm_s += cinch_train_seconds() - began;
    return result;
}

/* Reduces the last gradients a second time, exactly, before the run's own reduction. */
static cinchResult_t exact_gradients(cinch_trainer *t) {
    memcpy(t->check, t->model.gradient, t->model.count * sizeof *t->check);
    return cinch_train_agree(t, t->check, t->model.count, cinchFloat32, cinchAvg);
}

static double distance_from_exact(const cinch_trainer *t) {
    double error = 0, length = 0;
    for (size_t i = 0; i < t->model.count; i++) {
        const double exact = (double)t->check[i], off = (double)t->model.gradient[i] - exact;
        error += off * off;
        length += exact * exact;
    }
    return sqrt(error / length);
}

static cinchResult_t train_step(cinch_trainer *t) {
    const cinch_train_options *o = t->options;
    const bool last = t->done + 1 == o->steps;
    cinch_text_batch(&t->text, CINCH_TRAIN_CONTEXT, o->seed, (uint64_t)t->done, t->place.rank,
                     CINCH_TRAIN_WINDOWS, t->input, t->target);
    cinch_model_forward(&t->model, t->input, t->target, CINCH_TRAIN_WINDOWS);
    cinch_model_backward(&t->model, t->input, t->target, CINCH_TRAIN_WINDOWS);
    if (last) TRY(exact_gradients(t));
    TRY(reduce_gradients(t));
    if (last) current(t)->rel_l2_last_grad = distance_from_exact(t);
    cinch_adamw_step(&t->adamw, &t->model, t->model.gradient, learning_rate(t->done, o->steps));
    t->done++;
    return cinchSuccess;
}

/* How many points the curve has after so many steps. */
static int points_due(const cinch_trainer *t) {
    const int64_t due = (int64_t)t->done * CINCH_TRAIN_POINTS / t->options->steps;
    return 1 + (due < t->done ? (int)due : t->done);
}

/* A point of the curve, and a line for who is watching rank 0. */
static cinchResult_t record(cinch_trainer *t) {
    cinch_train_result *result = current(t);
    double loss;
    TRY(held_out_loss(t, &loss));
    result->at[result->points] = t->done;
    result->loss[result->points++] = loss;
    if (t->place.rank != 0) return cinchSuccess;
    const double all = (double)result->steps * t->options->codecs;
    const double behind = (double)cinch_train_position(t);
    fprintf(stderr, "%-16s step %5d of %d  held-out loss %.4f", result->codec, t->done,
            result->steps, loss);
    if (behind > t->ahead) {
        const double pace = (cinch_train_seconds() - t->began) / (behind - t->ahead);
        fprintf(stderr, "  %4.0f s left of all", pace * (all - behind));
    }
    fputc('\n', stderr);
    return cinchSuccess;
}

/* A hash of this rank's parameters: every rank got the same averages and did the same sums. */
static uint64_t fingerprint(const cinch_model *model) {
    uint64_t hash = 0;
    for (size_t i = 0; i < model->count; i++) {
        uint32_t bits;
        memcpy(&bits, &model->parameters[i], sizeof bits);
        hash = cinch_model_random(hash, bits, i);
    }
    return hash;
}

/* Fills in what is known at the end, each value the same on all ranks. Where it fails, nothing is
 * changed: it can be asked once more. */
static cinchResult_t conclude(cinch_trainer *t) {
    cinch_train_result *result = current(t);
    cinchStats_t stats = {.size = sizeof stats};
    TRY(cinchCommGetStats(t->comm, &stats));
    const double total_s = t->total_before + cinch_train_seconds() - t->run_began;
    double comm_s = result->comm_s;
    uint64_t most[2] = {t->wire_before + stats.wire_bytes, fingerprint(&t->model)};
    uint64_t least = most[1];
    TRY(cinch_train_agree(t, most, 2, cinchUint64, cinchMax));
    TRY(cinch_train_agree(t, &least, 1, cinchUint64, cinchMin));
    TRY(cinch_train_agree(t, &comm_s, 1, cinchFloat64, cinchAvg));
    result->wire_bytes = most[0];
    result->hash = most[1];
    result->ranks_identical = least == most[1];
    result->comm_s = comm_s;
    result->total_s = total_s;
    return cinchSuccess;
}

/* ---- runs ---- */

/* A communicator over all ranks that are left: the id of the job is for those that began. */
static cinchResult_t join_again(cinch_trainer *t) {
    if (t->exact == t->first) return cinch_train_join(t, &t->comm);
    return cinchCommSplit(t->exact, 0, t->place.rank, &t->comm, NULL);
}

/* The communicator of the run under way, with the error feedback that it had before. */
static cinchResult_t open_run(cinch_trainer *t) {
    TRY(join_again(t));
    TRY(cinchCommSetCodec(t->comm, t->options->codec[t->run]));
    TRY(name_buckets(t));
    if (!t->feedback) return cinchSuccess;
    TRY(cinchCommImportState(t->comm, t->feedback, t->feedback_bytes));
    free(t->feedback);
    t->feedback = NULL;
    return cinchSuccess;
}

static bool checkpoint_due(const cinch_trainer *t, int since) {
    const cinch_train_options *o = t->options;
    return o->checkpoint && t->done > since && t->done < o->steps &&
           t->done % o->checkpoint_every == 0;
}

/* From where the run is to its end. */
static cinchResult_t train(cinch_trainer *t) {
    const int from = t->done; /* this one is on the disk, where it was resumed */
    if (!t->comm) TRY(open_run(t));
    for (;;) {
        if (current(t)->points < points_due(t)) TRY(record(t));
        if (t->done == t->options->steps) break;
        if (checkpoint_due(t, from)) TRY(cinch_train_save(t));
        TRY(train_step(t));
    }
    TRY(conclude(t));
    const cinchResult_t result = cinchCommDestroy(t->comm);
    t->comm = NULL;
    return result;
}

/* The next run, from the seed; a number of runs that is not there is the end of all. */
static cinchResult_t begin_run(cinch_trainer *t, int run) {
    t->run = run;
    t->done = 0;
    t->total_before = 0;
    t->wire_before = 0;
    t->run_began = cinch_train_seconds();
    if (run == t->options->codecs) return cinchSuccess;
    *current(t) = (cinch_train_result){.codec = t->options->codec[run], .steps = t->options->steps};
    return cinch_train_fresh(t);
}

/* Ranks that meet again shall not wait long for one that died on the way there. */
static void hurry(void) {
    setenv("CINCH_INIT_TIMEOUT_MS", "10000", 0);
}

cinchResult_t cinch_train_all(cinch_trainer *t) {
    TRY(cinch_train_join(t, &t->exact));
    t->first = t->exact;
    TRY(cinchCommSetCodec(t->exact, "none"));
    TRY(begin_run(t, 0));
    if (t->options->checkpoint) TRY(cinch_train_resume(t));
    if (t->options->elastic) hurry();
    t->began = cinch_train_seconds();
    t->ahead = (double)cinch_train_position(t);
    while (t->run < t->options->codecs) {
        cinchResult_t result = train(t);
        if (result == cinchSuccess)
            result = begin_run(t, t->run + 1);
        else
            result = cinch_train_recover(t, result);
        TRY(result);
    }
    return cinchSuccess;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* One training run: the same for every codec but for the communicator that reduces gradients. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "perf/train_job.h"

/* The gradient of this model has 2.4 MiB. A rank's part of a batch is small, as where many ranks
 * share one, and learning goes on for long: error feedback holds small gradients back for about a
 * hundred steps at 1 %, and the run must be long against that. */
enum {
    CONTEXT = 64,
    REACH = 4,
    LAYERS = 3,
    WIDTH = 128,
    HEADS = 4,
    HIDDEN = 512,
    WINDOWS = 2,
    EVAL_WINDOWS = 8
};
enum { BUCKET_BYTES = 1 << 20 };

/* Of the learning rate: a linear rise over WARM of the run, then a cosine down to LEAST. */
static const double PEAK = 2e-3, WARM = 0.05, LEAST = 0.05;

/* No first moment: error feedback adds up what it holds back, and momentum on top of that moves on
 * long after a late gradient arrived (top-k at 1 % then learns half as much). */
static const double BETA1 = 0, BETA2 = 0.999;

typedef struct run {
    cinch_trainer *trainer;
    cinch_model model;
    cinch_adamw adamw;
    cinch_real *check; /* the exact sum of the last gradients */
    double comm_s, began;
    uint8_t input[EVAL_WINDOWS * CONTEXT], target[EVAL_WINDOWS * CONTEXT];
} run;

static double learning_rate(int step, int steps) {
    const double at = (step + 1.0) / steps;
    if (at < WARM) return PEAK * at / WARM;
    const double turn = acos(-1) * (at - WARM) / (1 - WARM);
    return PEAK * (LEAST + (1 - LEAST) * (1 + cos(turn)) / 2);
}

/* Everything that is measured travels on the exact communicator. */
static cinchResult_t agree(run *r, void *values, size_t count, cinchDataType_t type,
                           cinchRedOp_t op) {
    return cinchAllReduce(values, values, count, type, op, r->trainer->exact, NULL);
}

/* The ranks share the held-out windows out among them and add up. */
static cinchResult_t held_out_loss(run *r, double *loss) {
    const cinch_trainer *t = r->trainer;
    const int count = cinch_text_held_count(&t->text, CONTEXT);
    const int first = (int)((int64_t)count * t->place.rank / t->place.size);
    const int end = (int)((int64_t)count * (t->place.rank + 1) / t->place.size);
    double sum = 0;
    for (int i = first; i < end; i += EVAL_WINDOWS) {
        const int here = end - i < EVAL_WINDOWS ? end - i : EVAL_WINDOWS;
        for (int j = 0; j < here; j++) {
            cinch_text_held_window(&t->text, CONTEXT, i + j, r->input + j * CONTEXT,
                                   r->target + j * CONTEXT);
        }
        sum += cinch_model_forward(&r->model, r->input, r->target, here);
    }
    const cinchResult_t result = agree(r, &sum, 1, cinchFloat64, cinchSum);
    *loss = sum / ((double)count * CONTEXT);
    return result;
}

static int bucket_count(const run *r) {
    const size_t whole = r->model.count * sizeof(float) / BUCKET_BYTES;
    return whole ? (int)whole : 1;
}

static size_t bucket_begin(const run *r, int bucket) {
    return r->model.count * (size_t)bucket / (size_t)bucket_count(r);
}

/* Gradients keep their names for error feedback, wherever the buffer may lie. */
static cinchResult_t name_buckets(run *r) {
    cinchResult_t result = cinchSuccess;
    for (int i = 0; result == cinchSuccess && i < bucket_count(r); i++) {
        const size_t begin = bucket_begin(r, i), end = bucket_begin(r, i + 1);
        result = cinchCommTag(r->trainer->comm, r->model.gradient + begin,
                              (end - begin) * sizeof(float), (uint64_t)i + 1);
    }
    return result;
}

/* Averages the gradients in place. The clock starts when all ranks are there, so that it shows
 * communication and not who computes slower. */
static cinchResult_t reduce_gradients(run *r) {
    float here = 1;
    cinchResult_t result = agree(r, &here, 1, cinchFloat32, cinchSum);
    const double began = cinch_train_seconds();
    for (int i = 0; result == cinchSuccess && i < bucket_count(r); i++) {
        float *at = r->model.gradient + bucket_begin(r, i);
        result = cinchAllReduce(at, at, bucket_begin(r, i + 1) - bucket_begin(r, i), cinchFloat32,
                                cinchAvg, r->trainer->comm, NULL);
    }
    r->comm_s += cinch_train_seconds() - began;
    return result;
}

/* Reduces the last gradients a second time, exactly, before the run's own reduction. */
static cinchResult_t exact_gradients(run *r) {
    memcpy(r->check, r->model.gradient, r->model.count * sizeof *r->check);
    return agree(r, r->check, r->model.count, cinchFloat32, cinchAvg);
}

static double distance_from_exact(const run *r) {
    double error = 0, length = 0;
    for (size_t i = 0; i < r->model.count; i++) {
        const double exact = (double)r->check[i], off = (double)r->model.gradient[i] - exact;
        error += off * off;
        length += exact * exact;
    }
    return sqrt(error / length);
}

static cinchResult_t train_step(run *r, int step, bool last) {
    const cinch_trainer *t = r->trainer;
    const cinch_train_options *o = t->options;
    cinch_text_batch(&t->text, CONTEXT, o->seed, (uint64_t)step, t->place.rank, WINDOWS, r->input,
                     r->target);
    cinch_model_forward(&r->model, r->input, r->target, WINDOWS);
    cinch_model_backward(&r->model, r->input, r->target, WINDOWS);
    cinchResult_t result = last ? exact_gradients(r) : cinchSuccess;
    if (result == cinchSuccess) result = reduce_gradients(r);
    if (result == cinchSuccess)
        cinch_adamw_step(&r->adamw, &r->model, r->model.gradient, learning_rate(step, o->steps));
    return result;
}

/* A point of the curve, and a line for who is watching rank 0. */
static cinchResult_t record(run *r, cinch_train_result *result, int done) {
    const cinch_trainer *t = r->trainer;
    double loss;
    const cinchResult_t code = held_out_loss(r, &loss);
    if (code != cinchSuccess) return code;
    result->at[result->points] = done;
    result->loss[result->points++] = loss;
    if (t->place.rank != 0) return code;
    const double all = (double)result->steps * t->options->codecs;
    const double behind = (double)result->steps * t->runs_done + done;
    fprintf(stderr, "%-16s step %5d of %d  held-out loss %.4f", result->codec, done, result->steps,
            loss);
    if (done) {
        const double left = (cinch_train_seconds() - t->began) * (all - behind) / behind;
        fprintf(stderr, "  %4.0f s left of all", left);
    }
    fputc('\n', stderr);
    return code;
}

/* Fills in what is known at the end, each value the same on all ranks. */
static cinchResult_t conclude(run *r, cinch_train_result *result) {
    cinchStats_t stats = {.size = sizeof stats};
    cinchResult_t code = cinchCommGetStats(r->trainer->comm, &stats);
    result->wire_bytes = stats.wire_bytes;
    result->comm_s = r->comm_s;
    result->total_s = cinch_train_seconds() - r->began;
    if (code == cinchSuccess) code = agree(r, &result->wire_bytes, 1, cinchUint64, cinchMax);
    if (code == cinchSuccess) code = agree(r, &result->comm_s, 1, cinchFloat64, cinchAvg);
    result->rel_l2_last_grad = distance_from_exact(r);
    return code;
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

static cinchResult_t compare_ranks(run *r, cinch_train_result *result) {
    uint64_t least = fingerprint(&r->model), most = least;
    cinchResult_t code = agree(r, &least, 1, cinchUint64, cinchMin);
    if (code == cinchSuccess) code = agree(r, &most, 1, cinchUint64, cinchMax);
    result->ranks_identical = least == most;
    return code;
}

static cinchResult_t train(run *r, cinch_train_result *result) {
    const int64_t steps = result->steps, points = CINCH_TRAIN_POINTS;
    cinchResult_t code = record(r, result, 0);
    for (int step = 0; code == cinchSuccess && step < steps; step++) {
        code = train_step(r, step, step + 1 == steps);
        if (code == cinchSuccess && (step + 1) * points / steps != step * points / steps)
            code = record(r, result, step + 1);
    }
    if (code == cinchSuccess) code = conclude(r, result);
    return code == cinchSuccess ? compare_ranks(r, result) : code;
}

/* False after a sentence. */
static bool make_run(run *r) {
    const cinch_trainer *t = r->trainer;
    const cinch_model_shape shape = {.vocabulary = t->text.vocabulary,
                                     .context = CONTEXT,
                                     .reach = REACH,
                                     .layers = LAYERS,
                                     .width = WIDTH,
                                     .heads = HEADS,
                                     .hidden = HIDDEN,
                                     .windows = EVAL_WINDOWS};
    if (cinch_model_make(&r->model, &shape, t->options->seed) &&
        cinch_adamw_make(&r->adamw, &r->model, BETA1, BETA2) &&
        (r->check = calloc(r->model.count, sizeof *r->check)))
        return true;
    cinch_usage(&cinch_train_command, "rank %d: out of memory", t->place.rank);
    return false;
}

cinchResult_t cinch_train_run(cinch_trainer *trainer, const char *codec,
                              cinch_train_result *result) {
    run r = {.trainer = trainer, .began = cinch_train_seconds()};
    *result = (cinch_train_result){.codec = codec, .steps = trainer->options->steps};
    cinchResult_t code = make_run(&r) ? cinchSuccess : cinchSystemError;
    if (code == cinchSuccess) code = cinch_train_join(trainer, &trainer->comm);
    if (code == cinchSuccess) code = cinchCommSetCodec(trainer->comm, codec);
    if (code == cinchSuccess) code = name_buckets(&r);
    if (code == cinchSuccess) code = train(&r, result);
    if (code == cinchSuccess) { /* a failed one is left to be aborted */
        code = cinchCommDestroy(trainer->comm);
        trainer->comm = NULL;
    }
    cinch_adamw_free(&r.adamw);
    cinch_model_free(&r.model);
    free(r.check);
    return code;
}

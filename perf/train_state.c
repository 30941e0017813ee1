/* SPDX-License-Identifier: Apache-2.0 */
/* cinch train: all that a run consists of, as one block of bytes for checkpoints and for ranks that
 * meet again. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "perf/train_job.h"

/* No first moment: error feedback adds up what it holds back, and momentum on top of that moves on
 * long after a late gradient arrived (top-k at 1 % then learns half as much). */
static const double BETA1 = 0, BETA2 = 0.999;

/* The block begins with this; the results follow, parameters, and both moments. */
typedef struct place_in_job {
    int64_t run, done, adamw_step;
} place_in_job;

cinchResult_t cinch_train_fresh(cinch_trainer *t) {
    const cinch_model_shape shape = {.vocabulary = t->text.vocabulary,
                                     .context = CINCH_TRAIN_CONTEXT,
                                     .reach = CINCH_TRAIN_REACH,
                                     .layers = CINCH_TRAIN_LAYERS,
                                     .width = CINCH_TRAIN_WIDTH,
                                     .heads = CINCH_TRAIN_HEADS,
                                     .hidden = CINCH_TRAIN_HIDDEN,
                                     .windows = CINCH_TRAIN_EVAL_WINDOWS};
    cinch_train_free(t);
    if (cinch_model_make(&t->model, &shape, t->options->seed) &&
        cinch_adamw_make(&t->adamw, &t->model, BETA1, BETA2) &&
        (t->check = calloc(t->model.count, sizeof *t->check)))
        return cinchSuccess;
    return cinch_fail_quiet(cinchSystemError, "out of memory");
}

void cinch_train_free(cinch_trainer *t) {
    cinch_adamw_free(&t->adamw);
    cinch_model_free(&t->model);
    free(t->check);
    t->check = NULL;
}

static size_t results_bytes(const cinch_trainer *t) {
    return (size_t)t->options->codecs * sizeof *t->results;
}

static size_t tensor_bytes(const cinch_trainer *t) {
    return t->model.count * sizeof(cinch_real);
}

size_t cinch_train_state_bytes(const cinch_trainer *t) {
    return (sizeof(place_in_job) + results_bytes(t) + 3 * tensor_bytes(t) + 7) / 8 * 8;
}

uint64_t cinch_train_position(const cinch_trainer *t) {
    return (uint64_t)t->run * (uint64_t)t->options->steps + (uint64_t)t->done;
}

void cinch_train_state_take(cinch_trainer *t, void *state) {
    const place_in_job place = {t->run, t->done, t->adamw.step};
    cinch_train_result *results = t->results;
    unsigned char *at = state;
    const size_t tensor = tensor_bytes(t);
    memset(at + cinch_train_state_bytes(t) - 8, 0, 8);
    memcpy(at, &place, sizeof place);
    at += sizeof place;
    for (int i = 0; i < t->options->codecs; i++) {
        cinch_train_result copy = results[i];
        copy.codec = NULL; /* an address is nothing to keep */
        if (i == t->run) {
            copy.total_s = t->total_before + cinch_train_seconds() - t->run_began;
            copy.wire_bytes = t->wire_before;
        }
        memcpy(at, &copy, sizeof copy);
        at += sizeof copy;
    }
    memcpy(at, t->model.parameters, tensor);
    memcpy(at + tensor, t->adamw.first, tensor);
    memcpy(at + 2 * tensor, t->adamw.second, tensor);
}

cinchResult_t cinch_train_state_put(cinch_trainer *t, const void *state) {
    const cinch_train_options *o = t->options;
    const unsigned char *at = state;
    const size_t tensor = tensor_bytes(t);
    place_in_job place;
    memcpy(&place, at, sizeof place);
    at += sizeof place;
    if (place.run < 0 || place.run >= o->codecs || place.done < 0 || place.done > o->steps ||
        place.adamw_step != place.done)
        return cinch_fail_quiet(cinchInvalidUsage,
                                "the state is of run %" PRId64 ", step %" PRId64
                                ", and this job has %d runs of %d steps",
                                place.run + 1, place.done, o->codecs, o->steps);
    for (int i = 0; i < o->codecs; i++) {
        cinch_train_result result;
        memcpy(&result, at + (size_t)i * sizeof result, sizeof result);
        if (result.points < 0 || result.points > CINCH_TRAIN_POINTS + 1)
            return cinch_fail_quiet(cinchInvalidUsage,
                                    "the state has a curve of %d points, and at most %d are known",
                                    result.points, CINCH_TRAIN_POINTS + 1);
        result.codec = o->codec[i];
        result.steps = o->steps;
        t->results[i] = result;
    }
    at += results_bytes(t);
    t->run = (int)place.run;
    t->done = (int)place.done;
    t->adamw.step = place.adamw_step;
    memcpy(t->model.parameters, at, tensor);
    memcpy(t->adamw.first, at + tensor, tensor);
    memcpy(t->adamw.second, at + 2 * tensor, tensor);
    t->total_before = t->results[t->run].total_s;
    t->wire_before = t->results[t->run].wire_bytes;
    t->run_began = cinch_train_seconds();
    return cinchSuccess;
}

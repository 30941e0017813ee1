/* SPDX-License-Identifier: Apache-2.0 */
/* cinch train: which checkpoint all ranks write, and which one all of them go on from. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/hash.h"
#include "base/status.h"
#include "perf/train_job.h"

/* ---- agreeing ---- */

/* The ranks' worst result, of the lowest rank that has it: who is not that one is silent. */
static cinchResult_t settle(cinch_trainer *t, cinchResult_t mine) {
    int64_t worst = mine == cinchSuccess ? INT64_MAX : (int64_t)t->place.rank * 256 + (int64_t)mine;
    CINCH_TRY(cinch_train_agree(t, &worst, 1, cinchInt64, cinchMin));
    if (worst == INT64_MAX) return cinchSuccess;
    t->silent = worst / 256 != t->place.rank;
    t->agreed = true;
    return (cinchResult_t)(worst % 256);
}

cinchResult_t cinch_train_new_history(cinch_trainer *t) {
    uint64_t number = 0;
    if (t->place.rank == 0 && getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
        number = (uint64_t)(cinch_train_seconds() * 1e9);
    CINCH_TRY(cinch_train_agree(t, &number, 1, cinchUint64, cinchMax));
    t->history = number;
    return cinchSuccess;
}

static cinchResult_t fill_head(const cinch_trainer *t, cinch_checkpoint_head *head) {
    const cinch_train_options *o = t->options;
    const cinch_model_shape *s = &t->model.shape;
    *head = (cinch_checkpoint_head){.state_bytes = cinch_train_state_bytes(t),
                                    .position = cinch_train_position(t),
                                    .history = t->history,
                                    .ranks = (uint64_t)t->place.size,
                                    .rank = (uint64_t)t->place.rank,
                                    .seed = o->seed,
                                    .steps = (uint64_t)o->steps,
                                    .text_bytes = t->text.length,
                                    .text_hash = cinch_hash(t->text.symbol, t->text.length)};
    snprintf(head->model, sizeof head->model,
             "vocabulary %d, context %d, reach %d, layers %d, width %d, heads %d, hidden %d",
             s->vocabulary, s->context, s->reach, s->layers, s->width, s->heads, s->hidden);
    size_t used = 0;
    for (int i = 0; i < o->codecs && used < sizeof head->codecs; i++)
        used += (size_t)snprintf(head->codecs + used, sizeof head->codecs - used, i ? ",%s" : "%s",
                                 o->codec[i]);
    if (used < sizeof head->codecs) return cinchSuccess;
    return cinch_fail_quiet(cinchInvalidUsage,
                            "--checkpoint: the list of codecs has %zu bytes, and at most %zu are "
                            "accepted",
                            used, sizeof head->codecs - 1);
}

/* ---- saving ---- */

/* The state of this rank in one block, error feedback behind it. */
static cinchResult_t collect(cinch_trainer *t, unsigned char **block, size_t *feedback_bytes) {
    const size_t bytes = cinch_train_state_bytes(t);
    CINCH_TRY(cinchCommExportState(t->comm, NULL, feedback_bytes));
    *block = malloc(bytes + *feedback_bytes);
    if (!*block) return cinch_fail_quiet(cinchSystemError, "out of memory for a checkpoint");
    const cinchResult_t result = cinchCommExportState(t->comm, *block + bytes, feedback_bytes);
    cinchStats_t stats = {.size = sizeof stats};
    const uint64_t before = t->wire_before;
    if (result == cinchSuccess && cinchCommGetStats(t->comm, &stats) == cinchSuccess)
        t->wire_before += stats.wire_bytes;
    cinch_train_state_take(t, *block);
    t->wire_before = before;
    return result;
}

cinchResult_t cinch_train_save(cinch_trainer *t) {
    cinch_checkpoint_head head;
    unsigned char *block = NULL;
    size_t feedback_bytes = 0;
    cinchResult_t result = fill_head(t, &head);
    if (result == cinchSuccess) result = collect(t, &block, &feedback_bytes);
    head.feedback_bytes = feedback_bytes;
    if (result == cinchSuccess)
        result =
            cinch_checkpoint_write(t->options->checkpoint, &head, block, block + head.state_bytes);
    free(block);
    CINCH_TRY(settle(t, result));
    /* From here on all ranks have it, so nobody needs older ones any more. */
    cinch_checkpoint_sweep(t->options->checkpoint, head.rank, head.ranks, head.position);
    return cinchSuccess;
}

/* ---- resuming ---- */

/* What a rank's folder has, as ranks tell each other. */
typedef struct offer {
    uint64_t count, others, position[CINCH_CHECKPOINT_KEPT];
} offer;
enum { OFFER_NUMBERS = sizeof(offer) / sizeof(uint64_t) };

static bool has(const offer *o, uint64_t position) {
    for (uint64_t i = 0; i < o->count; i++)
        if (o->position[i] == position) return true;
    return false;
}

/* The newest position that all ranks have, or InvalidUsage with who has none in common with rank 0.
 */
static cinchResult_t newest_of_all(const cinch_trainer *t, const offer *all, uint64_t *position) {
    int lacks = 0;
    for (uint64_t i = 0; i < all[0].count; i++) {
        *position = all[0].position[i];
        lacks = 0;
        for (int q = 0; q < t->place.size && !lacks; q++)
            if (!has(&all[q], *position)) lacks = q;
        if (!lacks) return cinchSuccess;
    }
    if (all[0].count)
        return cinch_fail_quiet(cinchInvalidUsage,
                                "no checkpoint in %.200s is there for all ranks: rank %d has none "
                                "of step %" PRIu64 ", which rank 0 has",
                                t->options->checkpoint, lacks, *position);
    return cinch_fail_quiet(cinchInvalidUsage,
                            "no checkpoint in %.200s is there for all ranks: rank 0 has none, and "
                            "others have",
                            t->options->checkpoint);
}

/* Where all ranks go on; *begin: there is nothing to go on from. The same on every rank. */
static cinchResult_t choose(cinch_trainer *t, const offer *all, uint64_t *position, bool *begin) {
    const char *folder = t->options->checkpoint;
    uint64_t files = 0, others = 0;
    for (int q = 0; q < t->place.size; q++) {
        files += all[q].count;
        if (all[q].others) others = all[q].others;
    }
    *begin = !files && !others;
    t->silent = t->place.rank != 0;
    t->agreed = true;
    if (*begin) return cinchSuccess;
    if (!t->options->resume)
        return cinch_fail_quiet(cinchInvalidUsage,
                                "--checkpoint: the folder %.300s has checkpoints already: go on "
                                "from them by --resume, or name another one",
                                folder);
    if (!files)
        return cinch_fail_quiet(cinchInvalidUsage,
                                "the checkpoints in %.300s are of %" PRIu64
                                " ranks, and this run has %d",
                                folder, others, t->place.size);
    return newest_of_all(t, all, position);
}

/* Takes over what the file says; of the same history on all ranks. */
static cinchResult_t load(cinch_trainer *t, uint64_t position) {
    cinch_checkpoint_head want;
    cinch_checkpoint checkpoint = {0};
    cinchResult_t result = fill_head(t, &want);
    if (result == cinchSuccess)
        result = cinch_checkpoint_read(t->options->checkpoint, &want, position, &checkpoint);
    result = settle(t, result);
    uint64_t history[2] = {checkpoint.head.history, ~checkpoint.head.history};
    if (result == cinchSuccess) result = cinch_train_agree(t, history, 2, cinchUint64, cinchMin);
    if (result == cinchSuccess && history[0] != ~history[1]) {
        t->silent = t->place.rank != 0;
        t->agreed = true;
        result = cinch_fail_quiet(cinchInvalidUsage,
                                  "the checkpoints of step %" PRIu64
                                  " in %.300s are of several runs, which cannot be mixed",
                                  position, t->options->checkpoint);
    }
    if (result == cinchSuccess) {
        result = cinch_train_state_put(t, checkpoint.state);
        t->feedback_bytes = checkpoint.head.feedback_bytes;
        t->feedback = malloc(t->feedback_bytes + 1);
        if (result == cinchSuccess && !t->feedback)
            result = cinch_fail_quiet(cinchSystemError, "out of memory for a checkpoint");
        if (t->feedback) memcpy(t->feedback, checkpoint.feedback, t->feedback_bytes);
        result = settle(t, result);
    }
    cinch_checkpoint_free(&checkpoint);
    return result;
}

cinchResult_t cinch_train_resume(cinch_trainer *t) {
    const cinch_train_options *o = t->options;
    cinch_checkpoint_list list;
    bool begin = false;
    uint64_t position = 0;
    offer mine = {0};
    CINCH_TRY(settle(t, cinch_checkpoint_find(o->checkpoint, (uint64_t)t->place.rank,
                                              (uint64_t)t->place.size, &list)));
    mine.count = (uint64_t)list.count;
    mine.others = list.others;
    memcpy(mine.position, list.position, sizeof mine.position);
    offer *all = calloc((size_t)t->place.size, sizeof *all);
    if (!all) return cinch_fail_quiet(cinchSystemError, "out of memory for the ranks");
    cinchResult_t result = cinchAllGather(&mine, all, OFFER_NUMBERS, cinchUint64, t->exact, NULL);
    if (result == cinchSuccess) result = choose(t, all, &position, &begin);
    free(all);
    if (result == cinchSuccess) t->silent = t->agreed = false;
    if (result == cinchSuccess && !begin) result = load(t, position);
    CINCH_TRY(result);
    if (t->place.rank == 0 && o->resume && begin)
        fprintf(stderr, "cinch train: nothing in %s to go on from: this is the beginning\n",
                o->checkpoint);
    else if (t->place.rank == 0 && o->resume)
        fprintf(stderr, "cinch train: goes on from %s: %s, step %d of %d\n", o->checkpoint,
                o->codec[t->run], t->done, o->steps);
    return cinch_train_new_history(t);
}

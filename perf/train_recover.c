/* SPDX-License-Identifier: Apache-2.0 */
/* cinch train --elastic: ranks that are left after others were killed meet again and go on. */
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "base/status.h"
#include "perf/train_job.h"

/* The launcher sees a rank's end some milliseconds after the others do. Where ranks differ in whom
 * they count among the dead, or somebody dies while they meet, they try again. */
enum { NAPS = 200, NAP_MS = 10, TRIES = 50 };

static void nap(void) {
    nanosleep(&(struct timespec){0, NAP_MS * 1000000L}, NULL);
}

/* A rank's number among those that began. */
static int first_rank(const cinch_trainer *t) {
    int rank = 0;
    cinchCommUserRank(t->first, &rank);
    return rank;
}

/* Who has ended, out of those that began; this rank never has. */
static int list_dead(const cinch_trainer *t, int *list, int size) {
    int dead = 0;
    const int mine = first_rank(t);
    for (int r = 0; r < size; r++)
        if (r != mine && t->place.ended[r]) list[dead++] = r;
    return dead;
}

/* What the lost communicator has sent counts, too. */
static void close_broken(cinch_trainer *t) {
    cinchStats_t stats = {.size = sizeof stats};
    if (t->comm && cinchCommGetStats(t->comm, &stats) == cinchSuccess)
        t->wire_before += stats.wire_bytes;
    if (t->comm) cinchCommAbort(t->comm);
    if (t->exact != t->first) cinchCommAbort(t->exact);
    t->comm = t->exact = NULL;
}

/* The state of the lowest rank that is farthest: some may have ended the step in which others
 * failed. Between runs, the end of one is behind the start of the next. */
static cinchResult_t same_state(cinch_trainer *t) {
    const int64_t mine = (int64_t)t->run * (t->options->steps + 1) + t->done;
    int64_t most = mine, source;
    CINCH_TRY(cinch_train_agree(t, &most, 1, cinchInt64, cinchMax));
    source = mine == most ? t->place.rank : t->place.size;
    CINCH_TRY(cinch_train_agree(t, &source, 1, cinchInt64, cinchMin));
    const size_t bytes = cinch_train_state_bytes(t);
    void *state = malloc(bytes);
    if (!state) return cinch_fail_quiet(cinchSystemError, "out of memory for the ranks' state");
    cinch_train_state_take(t, state);
    cinchResult_t result = cinchBcast(state, bytes, cinchUint8, (int)source, t->exact, NULL);
    if (result == cinchSuccess) result = cinch_train_state_put(t, state);
    free(state);
    return result == cinchSuccess ? cinch_train_new_history(t) : result;
}

/* One try to meet without those in the list. */
static cinchResult_t meet(cinch_trainer *t, int *list, int dead) {
    cinchResult_t result =
        cinchCommShrink(t->first, list, dead, &t->exact, NULL, CINCH_SHRINK_ABORT);
    if (result != cinchSuccess) {
        t->exact = NULL;
        return result;
    }
    cinchCommUserRank(t->exact, &t->place.rank);
    cinchCommCount(t->exact, &t->place.size);
    result = cinchCommSetCodec(t->exact, "none");
    if (result == cinchSuccess) result = same_state(t);
    if (result == cinchSuccess) return result;
    cinchCommAbort(t->exact);
    t->exact = NULL;
    return result;
}

/* "rank 2 was lost", "ranks 1, 2 were lost". */
static void say(const cinch_trainer *t, const int *list, int dead) {
    if (t->place.rank != 0) return;
    fprintf(stderr, "cinch train: rank%s", dead > 1 ? "s" : "");
    for (int i = 0; i < dead; i++) fprintf(stderr, "%s%d", i ? ", " : " ", list[i]);
    fprintf(stderr,
            " %s lost: %d go on from step %d of %d (%s), with the data shared out anew and error "
            "feedback from zero\n",
            dead > 1 ? "were" : "was", t->place.size, t->done, t->options->steps,
            t->options->codec[t->run]);
}

cinchResult_t cinch_train_recover(cinch_trainer *t, cinchResult_t code) {
    int began = 0, dead = 0;
    if (!t->options->elastic || !t->first || code == cinchInvalidUsage ||
        cinchCommCount(t->first, &began) != cinchSuccess)
        return code;
    const int before = began - t->place.size;
    int *list = calloc((size_t)began, sizeof *list);
    if (!list) return code;
    for (int i = 0; i < NAPS && (dead = list_dead(t, list, began)) <= before; i++) nap();
    if (dead > before) {
        close_broken(t);
        free(t->feedback); /* what was kept of quantization belongs to the ranks that were */
        t->feedback = NULL;
        for (int i = 0; i < TRIES && (code = meet(t, list, dead)) != cinchSuccess; i++) {
            nap();
            dead = list_dead(t, list, began);
        }
        if (code == cinchSuccess) say(t, list, dead);
    }
    free(list);
    return code;
}

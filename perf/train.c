/* SPDX-License-Identifier: Apache-2.0 */
/* cinch train: one rank, from its place among the others to its exit status. */
#include "perf/train.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "perf/train_job.h"

double cinch_train_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

cinchResult_t cinch_train_join(const cinch_trainer *trainer, cinchComm_t *comm) {
    cinchUniqueId id;
    const cinchResult_t result = cinchGetUniqueId(&id);
    if (result != cinchSuccess) return result;
    return cinchCommInitRank(comm, trainer->place.size, id, trainer->place.rank);
}

/* Says what went wrong; the exit status. */
static int explain(const cinch_trainer *trainer, cinchResult_t result) {
    const char *sentence = cinchGetLastError(NULL);
    if (*sentence && !trainer->silent)
        cinch_usage(&cinch_train_command, "rank %d: %s", trainer->place.rank, sentence);
    return result == cinchInvalidUsage || result == cinchInvalidArgument ? 2 : 1;
}

/* One rank's work. */
static int work(cinch_trainer *trainer) {
    const cinch_train_options *o = trainer->options;
    char why[512];
    if (o->elastic && !trainer->place.ended)
        return cinch_usage(&cinch_train_command,
                           "--elastic: only with ranks that are started here, by -n");
    if (!cinch_text_load(&trainer->text, o->text, why, sizeof why))
        return cinch_usage(&cinch_train_command, "rank %d: %s", trainer->place.rank, why);
    trainer->results = calloc((size_t)o->codecs, sizeof *trainer->results);
    if (!trainer->results) {
        cinch_usage(&cinch_train_command, "out of memory");
        cinch_text_free(&trainer->text);
        return 1;
    }

    const cinchResult_t result = cinch_train_all(trainer);
    int status = result == cinchSuccess ? 0 : explain(trainer, result);
    /* After a failure the others may never come to a good end, unless all have it in common. */
    const bool stop = status && !trainer->agreed;
    if (trainer->comm) (stop ? cinchCommAbort : cinchCommDestroy)(trainer->comm);
    if (trainer->first && trainer->first != trainer->exact) cinchCommAbort(trainer->first);
    if (trainer->exact) (stop ? cinchCommAbort : cinchCommDestroy)(trainer->exact);
    if (!status && trainer->place.rank == 0 && !cinch_train_report(trainer)) status = 1;
    cinch_train_free(trainer);
    free(trainer->results);
    cinch_text_free(&trainer->text);
    return status;
}

int cinch_train_main(int argc, char **argv) {
    cinch_train_options options;
    cinch_trainer trainer = {.options = &options};
    int status = cinch_train_parse(argc, argv, &options);
    if (status < 0) {
        trainer.place.survive = options.elastic;
        if (options.transport) setenv("CINCH_TRANSPORT", options.transport, 1);
        status = cinch_place_find(&cinch_train_command, options.ranks, 4, argv, cinch_train_ready,
                                  &options, &trainer.place);
        if (status < 0) status = work(&trainer);
    }
    cinch_train_options_free(&options);
    return status;
}

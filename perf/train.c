/* SPDX-License-Identifier: Apache-2.0 */
/* cinch train: joins the ranks and trains once per codec. */
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

static cinchResult_t train_all(cinch_trainer *trainer, cinch_train_result *results) {
    cinchResult_t result = cinch_train_join(trainer, &trainer->exact);
    if (result == cinchSuccess) result = cinchCommSetCodec(trainer->exact, "none");
    trainer->began = cinch_train_seconds();
    for (int i = 0; result == cinchSuccess && i < trainer->options->codecs; i++) {
        result = cinch_train_run(trainer, trainer->options->codec[i], &results[i]);
        trainer->runs_done++;
    }
    return result;
}

/* One rank's work. */
static int work(cinch_trainer *trainer) {
    const cinch_train_options *o = trainer->options;
    char why[512];
    if (!cinch_text_load(&trainer->text, o->text, why, sizeof why))
        return cinch_usage(&cinch_train_command, "rank %d: %s", trainer->place.rank, why);
    cinch_train_result *results = calloc((size_t)o->codecs, sizeof *results);
    if (!results) {
        cinch_usage(&cinch_train_command, "out of memory");
        cinch_text_free(&trainer->text);
        return 1;
    }

    const cinchResult_t result = train_all(trainer, results);
    int status = 0;
    if (result != cinchSuccess) {
        const char *sentence = cinchGetLastError(NULL);
        if (*sentence)
            cinch_usage(&cinch_train_command, "rank %d: %s", trainer->place.rank, sentence);
        status = result == cinchInvalidUsage || result == cinchInvalidArgument ? 2 : 1;
    }
    /* After a failure the others may never come to a good end. */
    if (trainer->comm) (status ? cinchCommAbort : cinchCommDestroy)(trainer->comm);
    if (trainer->exact) (status ? cinchCommAbort : cinchCommDestroy)(trainer->exact);
    if (!status && trainer->place.rank == 0 && !cinch_train_report(trainer, results)) status = 1;
    free(results);
    cinch_text_free(&trainer->text);
    return status;
}

int cinch_train_main(int argc, char **argv) {
    cinch_train_options options;
    cinch_trainer trainer = {.options = &options};
    int status = cinch_train_parse(argc, argv, &options);
    if (status < 0) {
        if (options.transport) setenv("CINCH_TRANSPORT", options.transport, 1);
        status = cinch_place_find(&cinch_train_command, options.ranks, 4, argv, cinch_train_ready,
                                  &options, &trainer.place);
        if (status < 0) status = work(&trainer);
    }
    cinch_train_options_free(&options);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* cinch train: its options, a run, and what is reported of it. */
#ifndef CINCH_PERF_TRAIN_JOB_H_
#define CINCH_PERF_TRAIN_JOB_H_

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cinch/cinch.h"
#include "perf/launch.h"
#include "perf/model.h"
#include "perf/train_text.h"

enum { CINCH_TRAIN_CODECS = 16, CINCH_TRAIN_POINTS = 20 };

typedef struct cinch_train_options {
    int ranks;        /* -n; 0: not given */
    const char *text; /* NULL: the licence texts */
    const char *transport, *json, *plot;
    char *codec[CINCH_TRAIN_CODECS];
    int codecs;
    int steps;
    uint64_t seed;
} cinch_train_options;

extern const cinch_command cinch_train_command;

/* Reads argv, whose argv[0] is "train". -1: go on; else the exit status, after the help or a
 * sentence. Either way the options want cinch_train_options_free. */
int cinch_train_parse(int argc, char **argv, cinch_train_options *options);
void cinch_train_options_free(cinch_train_options *options);

/* Checks text, codecs, transport and output files: 0, or 2 after a sentence. For
 * cinch_place_find, so that no ranks are started for nothing. */
int cinch_train_ready(void *options);

/* What one run showed. */
typedef struct cinch_train_result {
    const char *codec;
    int steps, points;
    double at[CINCH_TRAIN_POINTS + 1];   /* the curve: steps, */
    double loss[CINCH_TRAIN_POINTS + 1]; /* and the held-out loss after them */
    uint64_t wire_bytes;                 /* the most of any rank */
    double comm_s;                       /* inside the all-reduces, mean over the ranks */
    double total_s;
    double rel_l2_last_grad;
    bool ranks_identical; /* the parameters at the end, bit for bit */
} cinch_train_result;

/* What a rank works with. */
typedef struct cinch_trainer {
    const cinch_train_options *options;
    cinch_place place;
    cinch_text text;
    cinchComm_t exact; /* for measurements only: outside the counters, never compressed */
    cinchComm_t comm;  /* of the run under way: reduces gradients */
    int runs_done;
    double began; /* the first run, seconds */
} cinch_trainer;

/* Trains from the seed with one codec. Collective. */
cinchResult_t cinch_train_run(cinch_trainer *trainer, const char *codec,
                              cinch_train_result *result);

/* A communicator over all ranks. */
cinchResult_t cinch_train_join(const cinch_trainer *trainer, cinchComm_t *comm);

double cinch_train_seconds(void);

/* The table, the JSON lines and the plot, by rank 0. Prints a sentence and returns false where a
 * file cannot be written or the ranks did not end alike. */
bool cinch_train_report(const cinch_trainer *trainer, const cinch_train_result *results);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* cinch train: its options, its state, and what is reported of it. */
#ifndef CINCH_PERF_TRAIN_JOB_H_
#define CINCH_PERF_TRAIN_JOB_H_

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cinch/cinch.h"
#include "perf/launch.h"
#include "perf/model.h"
#include "perf/train_checkpoint.h"
#include "perf/train_text.h"

enum { CINCH_TRAIN_CODECS = 16, CINCH_TRAIN_POINTS = 20 };

typedef struct cinch_train_options {
    int ranks;        /* -n; 0: not given */
    const char *text; /* NULL: the licence texts */
    const char *transport, *json, *plot;
    const char *checkpoint; /* a folder, or NULL */
    int checkpoint_every;   /* steps */
    bool resume, elastic;
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
    uint64_t hash;        /* of the parameters at the end */
    bool ranks_identical; /* the parameters at the end, bit for bit */
} cinch_train_result;

/* The gradient of this model has 2.4 MiB. A rank's part of a batch is small, as where many ranks
 * share one, and learning goes on for long: error feedback holds small gradients back for about a
 * hundred steps at 1 %, and the run must be long against that. */
enum {
    CINCH_TRAIN_CONTEXT = 64,
    CINCH_TRAIN_REACH = 4,
    CINCH_TRAIN_LAYERS = 3,
    CINCH_TRAIN_WIDTH = 128,
    CINCH_TRAIN_HEADS = 4,
    CINCH_TRAIN_HIDDEN = 512,
    CINCH_TRAIN_WINDOWS = 2,
    CINCH_TRAIN_EVAL_WINDOWS = 8
};

/* What a rank works with, and how far it has come. */
typedef struct cinch_trainer {
    const cinch_train_options *options;
    cinch_place place; /* among the ranks that are left */
    cinch_text text;
    cinchComm_t first; /* with --elastic: of all ranks that began */
    cinchComm_t exact; /* for measurements only: outside the counters, never compressed. It is the
                          first one until a rank is lost */
    cinchComm_t comm;  /* of the run under way: reduces gradients */
    double began;      /* seconds */
    double ahead;      /* steps that were done before that */

    cinch_train_result *results; /* [codecs] */
    int run, done;               /* the run under way, and its steps */
    cinch_model model;
    cinch_adamw adamw;
    cinch_real *check;              /* the exact sum of the last gradients */
    double run_began, total_before; /* seconds of this run, in this process and before */
    uint64_t wire_before;           /* bytes of this run by former communicators */
    void *feedback;                 /* out of a checkpoint, until the run's communicator is made */
    size_t feedback_bytes;
    uint64_t history; /* of the checkpoints that are written */
    bool agreed;      /* the failure is every rank's, at the same place: none waits for another */
    bool silent;      /* another rank says what is wrong */
    uint8_t input[CINCH_TRAIN_EVAL_WINDOWS * CINCH_TRAIN_CONTEXT];
    uint8_t target[CINCH_TRAIN_EVAL_WINDOWS * CINCH_TRAIN_CONTEXT];
} cinch_trainer;

/* Joins the ranks and trains once per codec. Collective. */
cinchResult_t cinch_train_all(cinch_trainer *trainer);

/* A communicator over all ranks. */
cinchResult_t cinch_train_join(const cinch_trainer *trainer, cinchComm_t *comm);

double cinch_train_seconds(void);

/* An all-reduce in place on the exact communicator, where everything that is not a gradient
 * travels. */
cinchResult_t cinch_train_agree(const cinch_trainer *trainer, void *values, size_t count,
                                cinchDataType_t type, cinchRedOp_t op);

/* ---- the state: where a run is, results so far, model and optimizer; the same on all ranks ----
 */

/* Makes model and optimizer as they are at the start. SystemError: out of memory. */
cinchResult_t cinch_train_fresh(cinch_trainer *trainer);
void cinch_train_free(cinch_trainer *trainer);

size_t cinch_train_state_bytes(const cinch_trainer *trainer);
void cinch_train_state_take(cinch_trainer *trainer, void *state);
/* InvalidUsage where the state cannot be one of this job. */
cinchResult_t cinch_train_state_put(cinch_trainer *trainer, const void *state);

/* Steps over all runs. */
uint64_t cinch_train_position(const cinch_trainer *trainer);

/* ---- checkpoints ---- */

/* Writes one, where the options say so; afterwards all ranks have it, and older ones go.
 * Collective.
 */
cinchResult_t cinch_train_save(cinch_trainer *trainer);

/* Goes on from the newest that all ranks have, or says why not; without --resume, makes sure that
 * there is none. Collective; the exact communicator is there. */
cinchResult_t cinch_train_resume(cinch_trainer *trainer);

/* A number for the checkpoints from here on. Collective. */
cinchResult_t cinch_train_new_history(cinch_trainer *trainer);

/* ---- ranks that are lost ---- */

/* After a failure with this code: where that was the death of ranks, and --elastic was given, the
 * others meet again, agree on a state, and go on. Else returns the code. */
cinchResult_t cinch_train_recover(cinch_trainer *trainer, cinchResult_t code);

/* The table, the JSON lines and the plot, by rank 0. Prints a sentence and returns false where a
 * file cannot be written or the ranks did not end alike. */
bool cinch_train_report(const cinch_trainer *trainer);

#endif

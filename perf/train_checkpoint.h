/* SPDX-License-Identifier: Apache-2.0 */
/* The files of `cinch train --checkpoint`: one per rank and position, whole or not there at all. */
#ifndef CINCH_PERF_TRAIN_CHECKPOINT_H_
#define CINCH_PERF_TRAIN_CHECKPOINT_H_

#include <stddef.h>
#include <stdint.h>

#include "cinch/cinch.h"

/* What a file says of itself, and what must be the same to go on with it. In the byte order of the
 * machine, as the state that cinchCommExportState gives. */
typedef struct cinch_checkpoint_head {
    char magic[8];
    uint64_t head_bytes, state_bytes, feedback_bytes;
    uint64_t position; /* steps done, over all runs */
    uint64_t history;  /* a random number: of one start of the job, the same on all ranks */
    uint64_t ranks, rank, seed, steps, text_bytes, text_hash;
    char model[96];
    char codecs[512];
} cinch_checkpoint_head;

typedef struct cinch_checkpoint {
    cinch_checkpoint_head head;
    void *state;    /* head.state_bytes of model, optimizer and results */
    void *feedback; /* head.feedback_bytes of cinchCommExportState */
    void *memory;   /* of both */
} cinch_checkpoint;

/* Writes a file into the folder, which is made where it is missing: under another name first, and
 * the data are on the disk before it gets its own. Fills in the head's magic and head_bytes.
 * SystemError with a sentence: it is not there then, and others of the folder are as they were. */
cinchResult_t cinch_checkpoint_write(const char *folder, cinch_checkpoint_head *head,
                                     const void *state, const void *feedback);

/* Reads the file of (want->rank, want->ranks) at the position. InvalidUsage with a sentence that
 * names the file, and both values where it belongs to another job than `want` says (its history
 * and feedback_bytes apart); nothing is held then. Else *out wants cinch_checkpoint_free. */
cinchResult_t cinch_checkpoint_read(const char *folder, const cinch_checkpoint_head *want,
                                    uint64_t position, cinch_checkpoint *out);
void cinch_checkpoint_free(cinch_checkpoint *checkpoint);

enum { CINCH_CHECKPOINT_KEPT = 4 };

/* What a folder has for a rank, by the names of the files. */
typedef struct cinch_checkpoint_list {
    uint64_t position[CINCH_CHECKPOINT_KEPT]; /* the newest first */
    int count;
    uint64_t others; /* a number of ranks that other files are of; 0: there are none */
} cinch_checkpoint_list;

/* InvalidUsage where the folder cannot be read; one that is not there is an empty one. */
cinchResult_t cinch_checkpoint_find(const char *folder, uint64_t rank, uint64_t ranks,
                                    cinch_checkpoint_list *list);

/* Removes the rank's files before the position, and those of another number of ranks up to it. */
void cinch_checkpoint_sweep(const char *folder, uint64_t rank, uint64_t ranks, uint64_t position);

#endif

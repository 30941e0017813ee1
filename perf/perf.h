/* SPDX-License-Identifier: Apache-2.0 */
/* cinch perf: its options, and what is known of one measurement. */
#ifndef CINCH_PERF_PERF_H_
#define CINCH_PERF_PERF_H_

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cinch/cinch.h"
#include "perf/data.h"
#include "perf/gpu.h"
#include "perf/launch.h"
#include "perf/operations.h"
#include "perf/overlap.h"

#define CINCH_PERF_RANKS 2 /* where nobody says how many */

#define CINCH_EVERY_ROOT (-1)

typedef struct cinch_perf_options {
    const cinch_operation *operation;
    int ranks; /* -n; 0: not given */
    int root;  /* of an operation that has one, else 0; or CINCH_EVERY_ROOT */
    uint64_t first, last, factor, step;
    int warmup, settle_ms, samples;
    unsigned dtypes, ops; /* a bit each */
    bool check, in_place, cold, mem_cinch, cuda, overlap;
    bool unaligned; /* buffers begin an element behind an aligned address; no option says so */
    const char *codec, *algo, *transport, *input, *json, *plot;
    cinch_data_kind data;
} cinch_perf_options;

/* Reads argv, whose argv[0] is "perf". -1: go on; else the exit status, after the help or a
 * sentence. */
int cinch_perf_parse(int argc, char **argv, cinch_perf_options *options);

/* The size of an element of the one type that goes with --input. */
size_t cinch_perf_input_element(const cinch_perf_options *options);

/* Checks what only the library can judge (codec, transport, algorithm, files): 0, or 2 after a
 * sentence. For cinch_place_find, so that no ranks are started for nothing. */
int cinch_perf_ready(void *options);

/* 0, or 2 after a sentence where -r names no rank. */
int cinch_perf_root_fits(const cinch_perf_options *options, int ranks);

extern const cinch_command cinch_perf_command;
extern const char *const cinch_op_names[]; /* ends with NULL, the name of CINCH_OP_NONE */

/* What is measured for one line of the report. */
typedef struct cinch_case {
    cinchDataType_t dtype;
    cinch_op op;
    int root; /* 0 where there is none */
    uint64_t bytes;
} cinch_case;

/* One line of the report. NaN and -1 are "not known": null. */
typedef struct cinch_row {
    uint64_t bytes, count;
    cinchDataType_t dtype;
    cinch_op op;
    int root;
    char algo[32], codec[128], transport[32];
    char codec_intra[32], codec_inter[32]; /* codec is the one, or "INTRA+INTER" */
    double time_us, time_min_us, predicted_us;
    uint64_t wire_bytes;
    bool checked, judged; /* without the first, all below is null; without the second, wrong is */
    uint64_t wrong;
    uint64_t spoilt; /* what lies around the result and was changed */
    double rel_l2, max_abs_err;
    bool shared; /* every rank gets the same result, so ranks_identical means something */
    bool ranks_identical, repeatable;
    uint64_t result_hash;
    bool overlapped; /* without it, what follows is null */
    cinch_overlap overlap;
} cinch_row;

/* What a rank works with. */
typedef struct cinch_bench {
    const cinch_perf_options *options;
    cinch_place place;
    cinchComm_t comm;  /* the one that is measured */
    cinchComm_t exact; /* for times, hashes and counts: never compressed, algorithm chosen freely */
    cinch_input input;
    cinch_perf_gpu gpu;
    cinchStream_t beside;  /* with --overlap: of the calls beside a computation */
    cinch_product product; /* which is this */
} cinch_bench;

/* Makes one more communicator of all ranks. Collective. */
cinchResult_t cinch_bench_join(const cinch_bench *bench, cinchComm_t *comm);

/* Measures and checks one size. Collective. *failed: this rank or another found the result wrong.
 */
cinchResult_t cinch_measure(cinch_bench *bench, const cinch_case *c, cinch_row *row, bool *failed);

/* The report, on rank 0: a table, JSON lines, a plot. */
typedef struct cinch_report {
    const cinch_perf_options *options;
    int ranks;
    FILE *table, *json; /* json NULL: none */
    cinch_row *rows;    /* kept for the plot and the footer */
    size_t count, room;
    size_t failed;
    double bound_GBps; /* algbw that the links allow, a line in the plot; NaN: not known */
} cinch_report;

/* Each prints a sentence and returns false where a file cannot be written. */
bool cinch_report_open(cinch_report *report, const cinch_perf_options *options, int ranks);
bool cinch_report_row(cinch_report *report, const cinch_row *row, bool failed);
bool cinch_report_close(cinch_report *report);

#endif

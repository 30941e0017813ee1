/* SPDX-License-Identifier: Apache-2.0 */
/* What the ranks put into a collective, so that any rank can make any rank's values at any index:
 * they come from a hash of (seed, rank, index) by plain arithmetic, the same bits on every
 * machine, or from files. */
#ifndef CINCH_PERF_DATA_H_
#define CINCH_PERF_DATA_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cinch/cinch.h"
#include "perf/options.h"

typedef enum {
    CINCH_DATA_EXACT,
    CINCH_DATA_GAUSS,
    CINCH_DATA_HEAVY,
    CINCH_DATA_NONFINITE
} cinch_data_kind;

/* nccl-tests' operators; mulsum multiplies rank r's values by cinch_data_scalar(r). */
typedef enum {
    CINCH_OP_SUM,
    CINCH_OP_PROD,
    CINCH_OP_MAX,
    CINCH_OP_MIN,
    CINCH_OP_AVG,
    CINCH_OP_MULSUM,
    CINCH_OP_COUNT,
    CINCH_OP_NONE = CINCH_OP_COUNT /* of operations that only move values */
} cinch_op;

/* The files of --input, mapped: one, or one per rank. */
typedef struct cinch_input {
    int count; /* 0: no files */
    const unsigned char **bytes;
    size_t *size;
} cinch_input;

#define CINCH_DATA_CHUNK 8192 /* the most elements of one call */

typedef struct cinch_data {
    cinch_data_kind kind;
    const cinch_input *input;
    int nranks;
    cinchDataType_t dtype;
    cinch_op op;
    uint64_t seed;
    /* of exact data: values are -span..span (0..span for unsigned types); where all ranks together
     * could leave what the type holds exactly, only `busy` ranks per element are not 0 (prod: not
     * 1 or -1) */
    int span, busy;
    bool is_unsigned;
    unsigned char table[256][8]; /* the element for each small value */
} cinch_data;

/* Opens what `pattern` names, with %r as the rank. Prints a sentence and returns false where a file
 * cannot be read, or is shorter than one element. */
bool cinch_input_open(const cinch_command *command, const char *pattern, int nranks, size_t element,
                      cinch_input *input);
void cinch_input_close(cinch_input *input);

/* Integer types get exact data whatever kind says. */
void cinch_data_setup(cinch_data *data, cinch_data_kind kind, const cinch_input *input, int nranks,
                      cinchDataType_t dtype, cinch_op op);

/* Whether the values are small whole numbers: cinch_data_small then gives them. */
bool cinch_data_is_exact(const cinch_data *data);

/* Rank's elements [start, start + count) in the data's type; any count. */
void cinch_data_fill(const cinch_data *data, int rank, size_t start, size_t count, void *dst);

/* The same as small numbers; count up to CINCH_DATA_CHUNK. Exact data only. */
void cinch_data_small(const cinch_data *data, int rank, size_t start, size_t count, int8_t *dst);

/* What mulsum multiplies rank's values by: 1 or 2, so exact. */
int cinch_data_scalar(int rank);

/* A fast 64-bit hash, to compare results. */
uint64_t cinch_data_hash(const void *bytes, size_t count);

#endif

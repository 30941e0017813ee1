/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a result is right: every rank makes all ranks' inputs and the reference itself, in fp64
 * or whole numbers, piece by piece, and no collective has a part in it. */
#ifndef CINCH_PERF_CHECK_H_
#define CINCH_PERF_CHECK_H_

#include "compress/codec.h"
#include "perf/data.h"
#include "perf/operations.h"

typedef struct cinch_check {
    const cinch_operation *operation;
    int rank, root; /* whose result it is */
    const cinch_data *data;
    const cinch_codec *codec;   /* what encoded the inputs; NULL: none */
    bool sum_encoded;           /* the sums were encoded as well as the inputs */
    const cinch_codec *then[2]; /* what encoded sums of some ranks before the last, in turn */
} cinch_check;

typedef struct cinch_verdict {
    bool judged;        /* false: the codec has no bound, so `wrong` means nothing */
    uint64_t wrong;     /* elements farther off than is allowed */
    double rel_l2;      /* over elements where result and reference are finite; NaN: reference 0 */
    double max_abs_err; /* over the same */
} cinch_verdict;

/* Checks the rank's result, of as many blocks of `count` elements as it gets: what was reduced as
 * the header says, what was only moved bit by bit. false: out of memory. */
bool cinch_check_result(const cinch_check *check, const void *got, size_t count,
                        cinch_verdict *verdict);

/* How many of got[0..count) are not, bit by bit, rank's elements from `start` on. */
uint64_t cinch_check_moved(const cinch_data *data, int rank, size_t start, const void *got,
                           size_t count);

/* For check.c and check_float.c. ----------------------------------------------------------------*/

typedef struct cinch_tally {
    uint64_t wrong;
    double err2, ref2, max_abs;
} cinch_tally;

/* Properties of a float type. */
typedef struct cinch_float_facts {
    double epsilon; /* from 1 to the next number */
    double largest;
    double least;     /* subnormal */
    int low_exponent; /* of the smallest normal number */
} cinch_float_facts;
cinch_float_facts cinch_float_facts_of(cinchDataType_t dtype);

/* dst[i] = src[i], exactly; any float type, count up to CINCH_DATA_CHUNK. */
void cinch_load_double(double *dst, const void *src, cinchDataType_t dtype, size_t count);

/* What a stretch of the result must be. */
typedef struct cinch_stretch {
    int source;   /* a rank's values, or CINCH_EVERY_RANK: their reduction */
    size_t start; /* of the inputs' elements */
    const void *got;
    size_t count;
} cinch_stretch;

/* Float types with data that is not exact, or with a codec. */
bool cinch_check_float(const cinch_check *check, const cinch_stretch *stretch, cinch_tally *tally,
                       bool *judged);

#endif

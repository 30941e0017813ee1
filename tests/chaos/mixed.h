/* SPDX-License-Identifier: Apache-2.0 */
/* A sequence of collectives of all kinds that follows from a seed, with every result checked. */
#ifndef CINCH_TESTS_CHAOS_MIXED_H_
#define CINCH_TESTS_CHAOS_MIXED_H_

#include <stddef.h>
#include <stdint.h>

#include "cinch/cinch.h"

/* How near a compressed sum has to come. */
typedef enum { MIXED_EXACT, MIXED_NEAR, MIXED_ANY } mixed_codec;

typedef struct mixed {
    cinchComm_t comm;
    int rank, nranks;
    uint64_t seed;
    mixed_codec codec;
    unsigned most_bits; /* counts are below 2^most_bits, at most 16 */
    cinchStream_t stream;
    unsigned char *in, *out;
    uint64_t hash;   /* of the last step's result where all ranks have the same one, else 0 */
    char wrong[300]; /* a result that is not right; else empty */
} mixed;

enum { MIXED_MOST_RANKS = 8 };

/* Buffers and a stream; 0 or -1. They serve for one communicator after the other. */
int mixed_open(mixed *m);
void mixed_close(mixed *m);

/* The i-th step, the same on all ranks: its result. Where that is success and the result is not
 * right, m->wrong says so. */
cinchResult_t mixed_step(mixed *m, uint64_t i);

/* Whether all ranks have the same number; an exact all-gather of its own. */
cinchResult_t mixed_same(mixed *m, uint64_t number);

#endif

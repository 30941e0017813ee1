/* SPDX-License-Identifier: Apache-2.0 */
/* How much of a collective's time a computation hides that runs beside it. */
#ifndef CINCH_PERF_OVERLAP_H_
#define CINCH_PERF_OVERLAP_H_

#include "perf/product.h"

/* What runs beside the product: one rank's calls. */
typedef struct cinch_overlap_calls {
    cinchResult_t (*start)(void *arg);  /* one call, queued on a stream */
    cinchResult_t (*finish)(void *arg); /* waits for all of them */
    void *arg;
    cinchComm_t exact; /* of the same ranks, for what they tell each other meanwhile */
} cinch_overlap_calls;

/* Times of a round, each the slowest rank's, of several rounds the median. */
typedef struct cinch_overlap {
    int calls, products;                     /* of a round */
    double comm_us, compute_us, together_us; /* calls alone, products alone, both */
    double beside_us;                        /* until the products were made, beside the calls */
    double hidden; /* of the calls' time: (alone + alone - both) / alone */
    double slowed; /* what products take longer beside calls: 0.1 is 10 % */
    bool sized;    /* calls take 0.5 to 1.0 of the products' time */
    bool right;    /* every rank's product */
} cinch_overlap;

/* Finds how many calls and products make rounds of some 20 ms, calls taking about three quarters of
 * the products' time, and measures them. Collective: all ranks get the same figures. */
cinchResult_t cinch_overlap_measure(const cinch_overlap_calls *calls, cinch_product *product,
                                    cinch_overlap *out);

#endif

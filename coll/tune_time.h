/* SPDX-License-Identifier: Apache-2.0 */
/* Timing one call in several ways, in turn, so that what disturbs the machine disturbs all alike.
 * Collective; every rank sees the same times. */
#ifndef CINCH_COLL_TUNE_TIME_H_
#define CINCH_COLL_TUNE_TIME_H_

#include "coll/comm.h"

enum { CINCH_TRIAL_SAMPLES = 31 };

/* One way to serve the call. */
typedef struct cinch_trial {
    const cinch_algo *algo; /* NULL: whatever is chosen */
    const char *spec;       /* of the codec; "none" */
    cinch_codec codec;
    size_t oneshot_most;
    uint64_t from; /* bytes; smaller messages are not its */
    bool out;      /* given up */
    /* at the size in hand */
    bool able;      /* it serves the call */
    unsigned batch; /* calls back to back */
    int samples;
    double sample[CINCH_TRIAL_SAMPLES];
    double us;    /* the median; 0: not measured */
    double ratio; /* to the best with the same codec, at the size before; 0: none yet */
    int slow;     /* sizes in a row at which it was far from the best */
} cinch_trial;

typedef struct cinch_timing {
    struct cinchComm *comm;
    cinch_collective collective;
    cinch_trial *trial;
    int trials;
    int least, most;  /* samples of each, the first where there is the time */
    double budget_us; /* of a size */
    double spent_us;  /* so far */
    unsigned char *send, *recv;
    size_t count;        /* floats of a block */
    cinch_trial rest;    /* what is in force between */
    cinch_policy policy; /* as it was, with all below */
    uint64_t min_bytes, calls, bytes, ticks, codec_ticks, compressed_calls, nonfinite;
    int64_t warmup;
} cinch_timing;

/* Where it fails, the end is to be called too. Buffers for messages of up to so many bytes, and an
 * exact free choice for what is between. The codec's rules (least size, warm-up, exclusions) are
 * off until the end, which leaves policy and counters as they were. */
cinchResult_t cinch_timing_begin(cinch_timing *t, struct cinchComm *comm,
                                 cinch_collective collective, uint64_t most_bytes);
cinchResult_t cinch_timing_end(cinch_timing *t);

/* Prepares a trial; the algorithm may be NULL, spec "none". InvalidArgument: no such codec. */
cinchResult_t cinch_timing_trial(cinch_timing *t, cinch_trial *trial, const cinch_algo *algo,
                                 const char *spec);

/* Measures every able trial at a size; *bytes becomes what that is in whole elements. The least of
 * samples is 1 for those that are far from the best. */
cinchResult_t cinch_timing_run(cinch_timing *t, uint64_t *bytes);

/* The median so far of the trial's samples. */
double cinch_trial_median(const cinch_trial *trial);

#endif

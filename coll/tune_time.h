/* SPDX-License-Identifier: Apache-2.0 */
/* Timing one call in several ways, in turn, so that what disturbs the machine disturbs all alike.
 * Collective; every rank sees the same times. */
#ifndef CINCH_COLL_TUNE_TIME_H_
#define CINCH_COLL_TUNE_TIME_H_

#include "coll/comm.h"

enum { CINCH_MOST_SAMPLES = 15, CINCH_MOST_PASSES = 15, CINCH_MOST_WAYS = 64 };

/* Of one way at one size; zeroed: none yet. */
typedef struct cinch_samples {
    unsigned batch; /* calls back to back; 0: not known yet */
    int count;      /* of this run */
    double us[CINCH_MOST_SAMPLES];
    int passes;                        /* runs so far, of which at most so many are kept: */
    double pass_us[CINCH_MOST_PASSES]; /* the median of each */
} cinch_samples;

/* One way to serve the call. */
typedef struct cinch_trial {
    const cinch_algo *algo; /* NULL: whatever is chosen */
    const char *spec;       /* of the codec; "none" */
    cinch_codec codec;
    size_t oneshot_most;
    uint64_t from;          /* bytes; smaller messages are not its */
    bool out;               /* given up */
    double ratio;           /* to the best with the same codec, at the size before; 0: none yet */
    int slow;               /* sizes in a row at which it was far from the best */
    cinch_samples *samples; /* at the size in hand, the caller's */
    bool able;              /* it serves the call at that size */
} cinch_trial;

typedef struct cinch_timing {
    struct cinchComm *comm;
    cinch_collective collective;
    cinch_trial *trial;
    int trials;
    int most;         /* samples of each, at least one, more where there is the time */
    bool again;       /* only of those that have some */
    double budget_us; /* of a run */
    double spent_us;  /* so far */
    unsigned char *send, *recv;
    uint64_t room;       /* of each, bytes */
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

/* Calls of what is in force between, for about so long: ranks that have slept, or are more than
 * there are CPUs, get their CPUs from the scheduler by and by, and keep them then. */
cinchResult_t cinch_timing_settle(cinch_timing *t, double for_us);

/* The largest of the ranks' values, on all of them. */
cinchResult_t cinch_timing_largest(const cinch_timing *t, double *value);

/* How long a cache line takes from the first to the second of the CPUs that this process may use,
 * in nanoseconds; 0: not known. Takes some milliseconds, at most 50, and a thread; the CPUs are
 * this thread's as before at the end. 75 and 340 were measured on one virtual machine (Zen 5) whose
 * hypervisor moves its CPUs together and apart. */
double cinch_timing_handover(void);

/* Measures every trial that serves a call of that size, which is rounded to whole elements. Those
 * that are far from the best get a few samples and no more. */
cinchResult_t cinch_timing_run(cinch_timing *t, uint64_t *bytes);

/* What passes say of ways that took turns in all of them: us[w * passes + p], each above 0, becomes
 * out[w]. A pass has its own disturbance, which all ways share: what Tukey's median polish of the
 * logarithms gives it (Exploratory Data Analysis, 1977, chapter 11). A way's time is the geometric
 * mean of its passes without it, so that one lucky pass makes no favourite and one that is
 * sometimes very slow pays for it; and of the disturbances counts the lower quartile, because they
 * only add. So passes in which ranks stand badly on too few CPUs count as often as they come,
 * because every process meets with them (all-reduces over TCP of 64 bytes, 4 ranks on 2 CPUs: 40 us
 * by tree, halving and direct where they stand best, else 40 to 54 by direct, 47 to 62 by tree and
 * 47 to 66 by halving). Only those that are slowed by more than 1.6 beside the fastest do not. far:
 * NULL, or of each pass whether the CPUs were far apart then, for which a hypervisor is the cause.
 * Passes of both kinds are looked at apart, as users meet both: out is then the time of the near
 * ones' best, times how far a way is behind the best at worst, near or far, if there are at least
 * three far ones. The least of it is the way whose worst case is best. */
void cinch_timing_polish(const double *us, int ways, int passes, const bool *far, double *out);

/* Of at most CINCH_MOST_WAYS values, at least one; part 0.5: the median. */
double cinch_timing_quantile(const double *value, int count, double part);

#endif

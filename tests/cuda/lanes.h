/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of the emulated GPU with jobs on them, whose order shows in what they pass on. */
#ifndef CINCH_TESTS_CUDA_LANES_H_
#define CINCH_TESTS_CUDA_LANES_H_

#include "base/device.h"
#include "tests/cuda/runtime/fake.h"
#include "tests/harness.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        cinchResult_t got_ = (call);                                                               \
        ck_assert_msg(got_ == cinchSuccess, "%s gave %d: %s", #call, got_,                         \
                      cinchGetLastError(NULL));                                                    \
    } while (0)
#define CU(call) ck_assert_msg((call) == cudaSuccess, "%s", #call)

enum { MARKS = 64 };

/* A lane: a stream, and pinned words that its work and its jobs pass on from one to the next. */
typedef struct lane {
    cinchStream_t stream;
    uint32_t *word; /* MARKS + 1 of them */
    int next;       /* step */
    _Atomic int ran, wrong;
} lane;

void lane_open(lane *l, cinchStream_t stream);

/* Before the job the stream writes its word, after it the stream copies what the job made of it. */
void lane_advance(lane *l);

/* Waits; all is as it should be. */
void lane_close(lane *l);

/* A job that looks at what the stream wrote before, writes what it takes on, and ends so. */
cinch_job *lane_step(lane *l, int at, cinchResult_t result);

/* Many lanes on streams of all kinds, so many steps on each, in an order by the seed. */
void lanes_run(uint64_t seed, int steps);

/* A word for which the stream waits: until the test opens it. */
uint32_t *gate_close(cinchStream_t stream);
void gate_open(uint32_t *gate);

#endif

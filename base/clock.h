/* SPDX-License-Identifier: Apache-2.0 */
/* The monotonic clock. */
#ifndef CINCH_BASE_CLOCK_H_
#define CINCH_BASE_CLOCK_H_

#include <stdint.h>
#include <time.h>

static inline uint64_t cinch_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of communicators that come out of each other share. */
#ifndef CINCH_TESTS_FAMILY_H_
#define CINCH_TESTS_FAMILY_H_

#include "tests/harness.h"

/* Waits until nothing is under way on a communicator: its state then. */
static inline cinchResult_t settled(cinchComm_t comm) {
    cinchResult_t state = cinchInProgress;
    for (uint64_t start = now_ms(); state == cinchInProgress && now_ms() - start < 30000;) {
        if (cinchCommGetAsyncError(comm, &state) != cinchSuccess) return cinchInternalError;
        if (state == cinchInProgress) sleep_ms(1);
    }
    return state;
}

/* Whether an all-reduce over the communicator adds all its ranks' numbers, small and large. */
static inline bool adds_up(cinchComm_t comm, int mine, int sum) {
    enum { MANY = 100000 };
    static _Thread_local int data[MANY];
    for (int large = 0; large < 2; large++) {
        int count = large ? MANY : 1;
        for (int i = 0; i < count; i++) data[i] = mine + i;
        int n = 0;
        cinchResult_t result =
            cinchAllReduce(data, data, (size_t)count, cinchInt, cinchSum, comm, NULL);
        if (result == cinchInProgress) result = settled(comm);
        if (result != cinchSuccess || cinchCommCount(comm, &n) != cinchSuccess) return false;
        for (int i = 0; i < count; i++)
            if (data[i] != sum + n * i) return false;
    }
    return true;
}

/* Whether the communicator has so many ranks and this is that one. */
static inline bool is_rank(cinchComm_t comm, int rank, int nranks) {
    int r = -1, n = -1;
    return cinchCommUserRank(comm, &r) == cinchSuccess &&
           cinchCommCount(comm, &n) == cinchSuccess && r == rank && n == nranks;
}

/* In a test without ranks. */
#define FAILS(call, code, comm, part)                                                              \
    do {                                                                                           \
        cinchResult_t got_ = (call);                                                               \
        ck_assert_msg(got_ == (code), "%s gave %d, not %s", #call, got_, #code);                   \
        ck_assert_msg(strstr(cinchGetLastError(comm), part) != NULL, "%s: \"%s\" has no \"%s\"",   \
                      #call, cinchGetLastError(comm), part);                                       \
    } while (0)
#define OK(call)                                                                                   \
    do {                                                                                           \
        cinchResult_t got_ = (call);                                                               \
        ck_assert_msg(got_ == cinchSuccess, "%s gave %d: %s", #call, got_,                         \
                      cinchGetLastError(NULL));                                                    \
    } while (0)

#endif

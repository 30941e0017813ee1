/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs, references and measures for compressed all-reduces. */
#ifndef CINCH_TESTS_LOSSY_H_
#define CINCH_TESTS_LOSSY_H_

#include <math.h>

#include "compress/dtype.h"
#include "tests/harness.h"

/* A standard normal value, the same on every rank that asks. */
static inline float gauss_at(uint64_t seed, int rank, size_t i) {
    uint64_t state = seed * 0x9e3779b97f4a7c15u + (uint64_t)rank * 0xd1342543de82ef95u + i;
    double u = ((double)(random64(&state) >> 11) + 0.5) * 0x1p-53;
    double v = (double)(random64(&state) >> 11) * 0x1p-53;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

/* Fills data (count elements of dtype) with rank's values, and floats with what dtype makes of
 * them. */
static inline void gauss_fill(void *data, float *floats, cinchDataType_t dtype, uint64_t seed,
                              int rank, size_t count) {
    for (size_t i = 0; i < count; i++) floats[i] = gauss_at(seed, rank, i);
    cinch_narrow(data, dtype, floats, count);
    cinch_widen(floats, data, dtype, count);
}

/* The sum over all ranks in fp64, times factor. */
static inline void gauss_sum(double *sum, cinchDataType_t dtype, uint64_t seed, int nranks,
                             size_t count, double factor) {
    float *floats = malloc(count * sizeof *floats);
    void *data = malloc(count * cinch_dtype_size(dtype));
    memset(sum, 0, count * sizeof *sum);
    for (int r = 0; r < nranks; r++) {
        gauss_fill(data, floats, dtype, seed, r, count);
        for (size_t i = 0; i < count; i++) sum[i] += floats[i] * factor;
    }
    free(floats);
    free(data);
}

/* |got - want| / |want|, of the elements that are finite in both. */
static inline double relative_error(const float *got, const double *want, size_t count) {
    double off = 0, all = 0;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(got[i]) || !isfinite(want[i])) continue;
        off += (got[i] - want[i]) * (got[i] - want[i]);
        all += want[i] * want[i];
    }
    return sqrt(off / (all > 0 ? all : 1));
}

#endif

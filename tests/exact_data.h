/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs whose reduction is the same bits in any order, for every datatype and operator, and that
 * reduction by definition: wide integers, or fp64. */
#ifndef CINCH_TESTS_EXACT_DATA_H_
#define CINCH_TESTS_EXACT_DATA_H_

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "cinch/cinch.h"
#include "compress/dtype.h"
#include "tests/dtype_oracle.h"

enum { PREMUL = cinchNumOps, EXACT_OPS }; /* an operator of cinchRedOpCreatePreMulSum */

static inline uint64_t mix(uint64_t a, uint64_t b, uint64_t c) {
    uint64_t z = a * 0x9e3779b97f4a7c15u + b * 0xd1342543de82ef95u + c * 0x2545f4914f6cdd1du;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline bool exact_is_signed(cinchDataType_t t) {
    return t == cinchInt8 || t == cinchInt32 || t == cinchInt64;
}

/* Bits of an element from its value, and back. */
static inline uint64_t exact_encode(cinchDataType_t t, double v) {
    if (oracle_of(t)) return oracle_encode(oracle_of(t), v);
    uint64_t bits = 0;
    float f = (float)v;
    if (isnan(v)) return t == cinchFloat32 ? 0x7fffffffu : 0x7fffffffffffffffu;
    if (t == cinchFloat32)
        memcpy(&bits, &f, sizeof f);
    else
        memcpy(&bits, &v, sizeof v);
    return bits;
}

/* The largest magnitude of summands: seven of them are exact in the type. */
static inline int exact_range(cinchDataType_t t) {
    switch (t) {
    case cinchFloat8e4m3:
        return 2;
    case cinchFloat8e5m2:
        return 1;
    case cinchBfloat16:
        return 30;
    case cinchFloat16:
        return 200;
    default:
        return 100000;
    }
}

/* Rank r's scalar of a PreMulSum, small and exact. */
static inline double exact_scalar(int rank) {
    static const double scalars[] = {1, 2, -1, 0.5, -2};
    return scalars[rank % 5];
}

/* Element i of rank r as a double, for float types. At most seven ranks give something other than
 * the neutral element, so that no sum or product leaves what the type holds exactly. */
static inline double exact_float(cinchDataType_t t, int op, int rank, int n, uint64_t seed,
                                 uint64_t i) {
    uint64_t all = mix(seed, i, 1000), own = mix(seed, i, (uint64_t)rank);
    int place = (int)(((uint64_t)rank + all) % (uint64_t)n);
    if (all % 61 == 0 && place == 0) return NAN;
    if (op == cinchProd) {
        static const double factors[] = {2, 0.5, -2, -1, 1};
        return place < 4 ? factors[own % 5] : own & 1 ? 1 : -1;
    }
    if (op == PREMUL) { /* even numbers: the scalar may halve them */
        int range = t == cinchFloat8e5m2 || t == cinchFloat8e4m3 ? 1 : exact_range(t) / 4;
        double v = 2 * (double)((int)(own % (uint64_t)(2 * range + 1)) - range);
        bool small = t == cinchFloat8e5m2 || t == cinchFloat8e4m3;
        return place < (small ? 1 : 7) ? v : 0;
    }
    int range = exact_range(t);
    double v = (double)((int)(own % (uint64_t)(2 * range + 1)) - range);
    if (op == cinchMax || op == cinchMin) return v == 0 ? 0.5 : v;
    return place < 7 ? v : 0;
}

static inline uint64_t exact_mask(cinchDataType_t t) {
    return UINT64_MAX >> (64 - 8 * cinch_dtype_size(t));
}

/* Bits of element i of rank r. */
static inline uint64_t exact_input(cinchDataType_t t, int op, int rank, int n, uint64_t seed,
                                   uint64_t i) {
    if (cinch_dtype_is_float(t)) return exact_encode(t, exact_float(t, op, rank, n, seed, i));
    return mix(seed, i, (uint64_t)rank + 77) & exact_mask(t);
}

static inline int64_t exact_signed(cinchDataType_t t, uint64_t v) {
    return t == cinchInt8 ? (int8_t)v : t == cinchInt32 ? (int32_t)v : (int64_t)v;
}

static inline uint64_t exact_integer(cinchDataType_t t, int op, int n, uint64_t seed, uint64_t i) {
    uint64_t r = 0, mask = exact_mask(t);
    for (int q = 0; q < n; q++) {
        uint64_t v = exact_input(t, op, q, n, seed, i);
        if (op == PREMUL) v = v * (uint64_t)(int64_t)exact_scalar(q) & mask;
        bool below = exact_is_signed(t) ? exact_signed(t, r) < exact_signed(t, v) : r < v;
        if (q == 0)
            r = v;
        else if (op == cinchProd)
            r = r * v & mask;
        else if (op == cinchMax)
            r = below ? v : r;
        else if (op == cinchMin)
            r = below ? r : v;
        else
            r = (r + v) & mask;
    }
    if (op != cinchAvg) return r;
    if (exact_is_signed(t)) return (uint64_t)(exact_signed(t, r) / n) & mask;
    return r / (uint64_t)n;
}

/* Bits of element i of the result. */
static inline uint64_t exact_result(cinchDataType_t t, int op, int n, uint64_t seed, uint64_t i) {
    if (!cinch_dtype_is_float(t)) return exact_integer(t, op, n, seed, i);
    double r = 0;
    for (int q = 0; q < n; q++) {
        double v = exact_float(t, op, q, n, seed, i);
        if (op == PREMUL) v *= exact_scalar(q);
        if (isnan(v)) return exact_encode(t, NAN);
        if (q == 0)
            r = v;
        else if (op == cinchProd)
            r *= v;
        else if (op == cinchMax)
            r = r > v ? r : v;
        else if (op == cinchMin)
            r = r < v ? r : v;
        else
            r += v;
    }
    if (op != cinchAvg) return exact_encode(t, r + 0.0); /* no -0: sums begin somewhere */
    if (t == cinchFloat64) return exact_encode(t, r * (1.0 / n));
    volatile float inverse = 1.0f / (float)n, product = (float)r * inverse;
    return exact_encode(t, product);
}

static inline void exact_put(void *p, size_t i, size_t size, uint64_t v) {
    memcpy((char *)p + i * size, &v, size); /* little endian */
}

static inline uint64_t exact_get(const void *p, size_t i, size_t size) {
    uint64_t v = 0;
    memcpy(&v, (const char *)p + i * size, size);
    return v;
}

static inline void exact_fill(void *p, cinchDataType_t t, int op, int rank, int n, uint64_t seed,
                              size_t count) {
    size_t size = cinch_dtype_size(t);
    for (size_t i = 0; i < count; i++) exact_put(p, i, size, exact_input(t, op, rank, n, seed, i));
}

/* The first element that is not as it shall be, or count. A zero's sign is nobody's promise where
 * -0 and +0 meet. */
static inline size_t exact_difference(const void *p, cinchDataType_t t, int op, int n,
                                      uint64_t seed, size_t count) {
    size_t size = cinch_dtype_size(t);
    uint64_t sign = cinch_dtype_is_float(t) ? (exact_mask(t) >> 1) + 1 : 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t got = exact_get(p, i, size), want = exact_result(t, op, n, seed, i);
        bool zeros = sign && (got & ~sign) == 0 && (want & ~sign) == 0;
        if (got != want && !zeros) return i;
    }
    return count;
}

#endif

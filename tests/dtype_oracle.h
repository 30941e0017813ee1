/* SPDX-License-Identifier: Apache-2.0 */
/* The small float formats by their definition, in fp64: slow, and written from nothing that the
 * library uses. */
#ifndef CINCH_TESTS_DTYPE_ORACLE_H_
#define CINCH_TESTS_DTYPE_ORACLE_H_

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "cinch/cinch.h"

typedef struct {
    cinchDataType_t dtype;
    int exponent_bits, mantissa_bits;
    bool has_inf; /* else the topmost pattern alone is NaN */
} oracle_format;

static const oracle_format oracle_formats[] = {
    {cinchFloat16, 5, 10, true},
    {cinchBfloat16, 8, 7, true},
    {cinchFloat8e4m3, 4, 3, false},
    {cinchFloat8e5m2, 5, 2, true},
};
enum { ORACLE_FORMATS = 4 };

static inline const oracle_format *oracle_of(cinchDataType_t dtype) {
    for (int i = 0; i < ORACLE_FORMATS; i++)
        if (oracle_formats[i].dtype == dtype) return &oracle_formats[i];
    return NULL;
}

static inline int oracle_bits(const oracle_format *f) {
    return 1 + f->exponent_bits + f->mantissa_bits;
}

/* The magnitude after the greatest finite one: Inf, or NaN where there is no Inf. */
static inline uint32_t oracle_beyond(const oracle_format *f) {
    uint32_t ones = (1u << (oracle_bits(f) - 1)) - 1;
    return f->has_inf ? ones - ((1u << f->mantissa_bits) - 1) : ones;
}

/* The value of a magnitude as if the exponent had no end. */
static inline double oracle_magnitude(const oracle_format *f, uint32_t code) {
    int bias = (1 << (f->exponent_bits - 1)) - 1;
    int e = (int)(code >> f->mantissa_bits);
    double m = code & ((1u << f->mantissa_bits) - 1), one = ldexp(1, f->mantissa_bits);
    return e ? ldexp(one + m, e - bias - f->mantissa_bits) : ldexp(m, 1 - bias - f->mantissa_bits);
}

static inline double oracle_decode(const oracle_format *f, uint32_t code) {
    uint32_t sign = code >> (oracle_bits(f) - 1), mag = code & ((1u << (oracle_bits(f) - 1)) - 1);
    double v = oracle_magnitude(f, mag);
    if (mag > oracle_beyond(f) || (mag == oracle_beyond(f) && !f->has_inf)) return NAN;
    if (mag == oracle_beyond(f)) v = INFINITY;
    return sign ? -v : v;
}

/* Nearest, ties to the even code, by bisection over the codes, which rise with the values. */
static inline uint32_t oracle_encode(const oracle_format *f, double x) {
    uint32_t nan = (1u << (oracle_bits(f) - 1)) - 1, sign = signbit(x) ? nan + 1 : 0;
    uint32_t lo = 0, hi = oracle_beyond(f);
    double a = fabs(x);
    if (isnan(x)) return nan;
    if (a < oracle_magnitude(f, hi)) {
        while (hi - lo > 1) {
            uint32_t mid = (lo + hi) / 2;
            if (oracle_magnitude(f, mid) <= a)
                lo = mid;
            else
                hi = mid;
        }
        double below = a - oracle_magnitude(f, lo), above = oracle_magnitude(f, hi) - a;
        if (below < above || (below == above && lo % 2 == 0)) hi = lo;
    }
    return hi == nan ? nan : sign | hi;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What one 32-byte register of each datatype does in a reduction: widen to accumulators, combine,
 * scale, narrow. x86/reduce_loop_avx2.h makes the kernels from these, by name. */
#ifndef CINCH_COMPRESS_X86_REDUCE_OPS_AVX2_H_
#define CINCH_COMPRESS_X86_REDUCE_OPS_AVX2_H_

#include "compress/x86/convert_avx2.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

typedef enum { OP_SUM, OP_PROD, OP_MAX, OP_MIN } op_kind;

/* What avg does at the end: n is 0 where it is not asked for. */
typedef struct {
    float f;
    double d;
    int n;
} finish_args;

/* fp32. NaN wins in max and min, and +0 is more than -0: MAXPS gives its second operand where the
 * two are equal or one is NaN, so max(a, b) & max(b, a) is right but for NaN. */
static ALWAYS_INLINE __m256 ps_op(__m256 a, __m256 b, op_kind op) {
    __m256 nan = _mm256_cmp_ps(a, b, _CMP_UNORD_Q);
    switch (op) {
    case OP_SUM:
        return _mm256_add_ps(a, b);
    case OP_PROD:
        return _mm256_mul_ps(a, b);
    case OP_MAX:
        return _mm256_or_ps(_mm256_and_ps(_mm256_max_ps(a, b), _mm256_max_ps(b, a)), nan);
    default:
        return _mm256_or_ps(_mm256_or_ps(_mm256_min_ps(a, b), _mm256_min_ps(b, a)), nan);
    }
}

static ALWAYS_INLINE __m256 ps_scale(__m256 v, finish_args args) {
    return args.n ? _mm256_mul_ps(v, _mm256_set1_ps(args.f)) : v;
}

typedef __m256 float_acc;
static ALWAYS_INLINE float_acc float_widen(__m256i r) {
    return _mm256_castsi256_ps(r);
}
static ALWAYS_INLINE __m256i float_narrow(float_acc v) {
    return _mm256_castps_si256(cinch_canon_ps(v));
}
#define float_op ps_op
#define float_scale ps_scale

typedef __m256d double_acc;
static ALWAYS_INLINE double_acc double_widen(__m256i r) {
    return _mm256_castsi256_pd(r);
}
static ALWAYS_INLINE __m256i double_narrow(double_acc v) {
    return _mm256_castpd_si256(cinch_canon_pd(v));
}
static ALWAYS_INLINE double_acc double_op(double_acc a, double_acc b, op_kind op) {
    __m256d nan = _mm256_cmp_pd(a, b, _CMP_UNORD_Q);
    switch (op) {
    case OP_SUM:
        return _mm256_add_pd(a, b);
    case OP_PROD:
        return _mm256_mul_pd(a, b);
    case OP_MAX:
        return _mm256_or_pd(_mm256_and_pd(_mm256_max_pd(a, b), _mm256_max_pd(b, a)), nan);
    default:
        return _mm256_or_pd(_mm256_or_pd(_mm256_min_pd(a, b), _mm256_min_pd(b, a)), nan);
    }
}
static ALWAYS_INLINE double_acc double_scale(double_acc v, finish_args args) {
    return args.n ? _mm256_mul_pd(v, _mm256_set1_pd(args.d)) : v;
}

/* The 16-bit types: two registers of fp32. */
static ALWAYS_INLINE cinch_f32x16 x16_op(cinch_f32x16 a, cinch_f32x16 b, op_kind op) {
    return (cinch_f32x16){ps_op(a.lo, b.lo, op), ps_op(a.hi, b.hi, op)};
}
static ALWAYS_INLINE cinch_f32x16 x16_scale(cinch_f32x16 v, finish_args args) {
    return (cinch_f32x16){ps_scale(v.lo, args), ps_scale(v.hi, args)};
}

typedef cinch_f32x16 half_acc;
#define half_widen cinch_half_widen_x16
#define half_narrow cinch_half_narrow_x16
#define half_op x16_op
#define half_scale x16_scale

typedef cinch_f32x16 bfloat16_acc;
#define bfloat16_widen cinch_bfloat16_split_x16
#define bfloat16_narrow cinch_bfloat16_join_x16
#define bfloat16_op x16_op
#define bfloat16_scale x16_scale

/* fp8: four registers of fp32. */
typedef struct {
    cinch_f32x16 lo, hi;
} f32x32;

#define F8_TYPE(name)                                                                              \
    typedef f32x32 name##_acc;                                                                     \
    static ALWAYS_INLINE f32x32 name##_widen(__m256i r) {                                          \
        return (f32x32){cinch_##name##_widen_x16(_mm256_castsi256_si128(r)),                       \
                        cinch_##name##_widen_x16(_mm256_extracti128_si256(r, 1))};                 \
    }                                                                                              \
    static ALWAYS_INLINE __m256i name##_narrow(f32x32 v) {                                         \
        return _mm256_set_m128i(cinch_##name##_narrow_x16(v.hi), cinch_##name##_narrow_x16(v.lo)); \
    }                                                                                              \
    static ALWAYS_INLINE f32x32 name##_op(f32x32 a, f32x32 b, op_kind op) {                        \
        return (f32x32){x16_op(a.lo, b.lo, op), x16_op(a.hi, b.hi, op)};                           \
    }                                                                                              \
    static ALWAYS_INLINE f32x32 name##_scale(f32x32 v, finish_args args) {                         \
        return (f32x32){x16_scale(v.lo, args), x16_scale(v.hi, args)};                             \
    }
F8_TYPE(f8e4m3)
F8_TYPE(f8e5m2)

/* Integers. Those of one size share sum and product, which wrap. */
static ALWAYS_INLINE __m256i mul_epi8(__m256i a, __m256i b) {
    __m256i even = _mm256_and_si256(_mm256_mullo_epi16(a, b), _mm256_set1_epi16(0xff));
    __m256i odd = _mm256_mullo_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
    return _mm256_or_si256(even, _mm256_slli_epi16(odd, 8));
}

static ALWAYS_INLINE __m256i mul_epi64(__m256i a, __m256i b) {
    __m256i cross = _mm256_add_epi64(_mm256_mul_epu32(_mm256_srli_epi64(a, 32), b),
                                     _mm256_mul_epu32(a, _mm256_srli_epi64(b, 32)));
    return _mm256_add_epi64(_mm256_mul_epu32(a, b), _mm256_slli_epi64(cross, 32));
}

#define mul_epi32 _mm256_mullo_epi32

static ALWAYS_INLINE __m256i max_epi64(__m256i a, __m256i b) {
    return _mm256_blendv_epi8(b, a, _mm256_cmpgt_epi64(a, b));
}
static ALWAYS_INLINE __m256i min_epi64(__m256i a, __m256i b) {
    return _mm256_blendv_epi8(a, b, _mm256_cmpgt_epi64(a, b));
}
static ALWAYS_INLINE __m256i above_epu64(__m256i a, __m256i b) {
    __m256i top = _mm256_set1_epi64x(INT64_MIN);
    return _mm256_cmpgt_epi64(_mm256_xor_si256(a, top), _mm256_xor_si256(b, top));
}
static ALWAYS_INLINE __m256i max_epu64(__m256i a, __m256i b) {
    return _mm256_blendv_epi8(b, a, above_epu64(a, b));
}
static ALWAYS_INLINE __m256i min_epu64(__m256i a, __m256i b) {
    return _mm256_blendv_epi8(a, b, above_epu64(a, b));
}

/* Division goes through F, in which x/n is off by less than 1/n, the least distance of a fraction
 * from the next integer, so that truncation gives the integer quotient; for 64 bits F is D, an
 * integer. D: what holds every element. */
#define INT_TYPE(name, T, bits, MAX, MIN, F, D)                                                    \
    typedef __m256i name##_acc;                                                                    \
    static ALWAYS_INLINE __m256i name##_widen(__m256i r) {                                         \
        return r;                                                                                  \
    }                                                                                              \
    static ALWAYS_INLINE __m256i name##_narrow(__m256i v) {                                        \
        return v;                                                                                  \
    }                                                                                              \
    static ALWAYS_INLINE __m256i name##_op(__m256i a, __m256i b, op_kind op) {                     \
        switch (op) {                                                                              \
        case OP_SUM:                                                                               \
            return _mm256_add_epi##bits(a, b);                                                     \
        case OP_PROD:                                                                              \
            return mul_epi##bits(a, b);                                                            \
        case OP_MAX:                                                                               \
            return MAX(a, b);                                                                      \
        default:                                                                                   \
            return MIN(a, b);                                                                      \
        }                                                                                          \
    }                                                                                              \
    static __attribute__((noinline)) __m256i name##_divide(__m256i v, int n) {                     \
        T x[32 / sizeof(T)];                                                                       \
        _mm256_storeu_si256((__m256i *)x, v);                                                      \
        for (size_t i = 0; i < 32 / sizeof(T); i++) x[i] = (T)(D)((F)x[i] / (F)n);                 \
        return _mm256_loadu_si256((const __m256i *)x);                                             \
    }                                                                                              \
    static ALWAYS_INLINE __m256i name##_scale(__m256i v, finish_args args) {                       \
        return args.n ? name##_divide(v, args.n) : v;                                              \
    }
INT_TYPE(int8, int8_t, 8, _mm256_max_epi8, _mm256_min_epi8, float, int32_t)
INT_TYPE(uint8, uint8_t, 8, _mm256_max_epu8, _mm256_min_epu8, float, int32_t)
INT_TYPE(int32, int32_t, 32, _mm256_max_epi32, _mm256_min_epi32, double, int32_t)
INT_TYPE(uint32, uint32_t, 32, _mm256_max_epu32, _mm256_min_epu32, double, uint32_t)
INT_TYPE(int64, int64_t, 64, max_epi64, min_epi64, int64_t, int64_t)
INT_TYPE(uint64, uint64_t, 64, max_epu64, min_epu64, uint64_t, uint64_t)

#endif

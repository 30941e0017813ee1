/* SPDX-License-Identifier: Apache-2.0 */
/* cinch_widen and cinch_narrow with AVX2 and F16C. */
#include <string.h>

#include "compress/kernels.h"
#include "compress/x86/convert_avx2.h"

enum { STEP = 16 };

typedef cinch_f32x16 (*widen_fn)(const void *src);
typedef void (*narrow_fn)(void *dst, cinch_f32x16 v);

/* Inlined with a constant `widen`: one loop per type. */
static inline __attribute__((always_inline)) void
widen_loop(float *dst, const char *src, size_t size, size_t count, widen_fn widen) {
    size_t i = 0;
    for (; i + STEP <= count; i += STEP) {
        cinch_f32x16 v = cinch_canon_x16(widen(src + i * size));
        _mm256_storeu_ps(dst + i, v.lo);
        _mm256_storeu_ps(dst + i + 8, v.hi);
    }
    if (i < count) {
        char in[2 * STEP] = {0};
        float out[STEP];
        memcpy(in, src + i * size, (count - i) * size);
        cinch_f32x16 v = cinch_canon_x16(widen(in));
        _mm256_storeu_ps(out, v.lo);
        _mm256_storeu_ps(out + 8, v.hi);
        memcpy(dst + i, out, (count - i) * sizeof *out);
    }
}

static inline __attribute__((always_inline)) void
narrow_loop(char *dst, size_t size, const float *src, size_t count, narrow_fn narrow) {
    size_t i = 0;
    for (; i + STEP <= count; i += STEP) {
        cinch_f32x16 v = {_mm256_loadu_ps(src + i), _mm256_loadu_ps(src + i + 8)};
        narrow(dst + i * size, v);
    }
    if (i < count) {
        float in[STEP] = {0};
        char out[2 * STEP];
        memcpy(in, src + i, (count - i) * sizeof *in);
        narrow(out, (cinch_f32x16){_mm256_loadu_ps(in), _mm256_loadu_ps(in + 8)});
        memcpy(dst + i * size, out, (count - i) * size);
    }
}

#define LOAD256(p) _mm256_loadu_si256((const __m256i *)(p))
#define LOAD128(p) _mm_loadu_si128((const __m128i *)(p))

static inline cinch_f32x16 half_in(const void *p) {
    return cinch_half_widen_x16(LOAD256(p));
}
static inline cinch_f32x16 bf16_in(const void *p) {
    return cinch_bfloat16_widen_x16(LOAD256(p));
}
static inline cinch_f32x16 e4m3_in(const void *p) {
    return cinch_f8e4m3_widen_x16(LOAD128(p));
}
static inline cinch_f32x16 e5m2_in(const void *p) {
    return cinch_f8e5m2_widen_x16(LOAD128(p));
}

static inline void half_out(void *p, cinch_f32x16 v) {
    _mm256_storeu_si256(p, cinch_half_narrow_x16(v));
}
static inline void bf16_out(void *p, cinch_f32x16 v) {
    _mm256_storeu_si256(p, cinch_bfloat16_narrow_x16(v));
}
static inline void e4m3_out(void *p, cinch_f32x16 v) {
    _mm_storeu_si128(p, cinch_f8e4m3_narrow_x16(v));
}
static inline void e5m2_out(void *p, cinch_f32x16 v) {
    _mm_storeu_si128(p, cinch_f8e5m2_narrow_x16(v));
}

void cinch_widen_avx2(float *dst, const void *src, cinchDataType_t dtype, size_t count) {
    switch ((int)dtype) {
    case cinchFloat16:
        widen_loop(dst, src, 2, count, half_in);
        break;
    case cinchBfloat16:
        widen_loop(dst, src, 2, count, bf16_in);
        break;
    case cinchFloat8e4m3:
        widen_loop(dst, src, 1, count, e4m3_in);
        break;
    case cinchFloat8e5m2:
        widen_loop(dst, src, 1, count, e5m2_in);
        break;
    default:
        break;
    }
}

void cinch_narrow_avx2(void *dst, cinchDataType_t dtype, const float *src, size_t count) {
    switch ((int)dtype) {
    case cinchFloat16:
        narrow_loop(dst, 2, src, count, half_out);
        break;
    case cinchBfloat16:
        narrow_loop(dst, 2, src, count, bf16_out);
        break;
    case cinchFloat8e4m3:
        narrow_loop(dst, 1, src, count, e4m3_out);
        break;
    case cinchFloat8e5m2:
        narrow_loop(dst, 1, src, count, e5m2_out);
        break;
    default:
        break;
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Half, bfloat16 and fp8 to fp32 and back, a register at a time; the same bits as convert.h. */
#ifndef CINCH_COMPRESS_X86_CONVERT_AVX2_H_
#define CINCH_COMPRESS_X86_CONVERT_AVX2_H_

#include <immintrin.h>

#include "compress/convert.h"

/* 16 elements in fp32. */
typedef struct {
    __m256 lo, hi;
} cinch_f32x16;

/* Any NaN becomes the canonical one. */
static inline __m256 cinch_canon_ps(__m256 v) {
    __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(CINCH_NAN_F32));
    return _mm256_blendv_ps(v, nan, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
}

static inline __m256d cinch_canon_pd(__m256d v) {
    __m256d nan = _mm256_castsi256_pd(_mm256_set1_epi64x(CINCH_NAN_F64));
    return _mm256_blendv_pd(v, nan, _mm256_cmp_pd(v, v, _CMP_UNORD_Q));
}

static inline cinch_f32x16 cinch_canon_x16(cinch_f32x16 v) {
    return (cinch_f32x16){cinch_canon_ps(v.lo), cinch_canon_ps(v.hi)};
}

/* The widening functions leave a NaN's other bits as they come. */
static inline cinch_f32x16 cinch_half_widen_x16(__m256i h) {
    return (cinch_f32x16){_mm256_cvtph_ps(_mm256_castsi256_si128(h)),
                          _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1))};
}

static inline __m256i cinch_half_narrow_x16(cinch_f32x16 v) {
    v = cinch_canon_x16(v);
    return _mm256_set_m128i(_mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT),
                            _mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT));
}

/* bfloat16 in a reduction: lo holds the elements of even index, hi the odd ones, so that no element
 * changes its 32-bit lane. */
static inline cinch_f32x16 cinch_bfloat16_split_x16(__m256i b) {
    return (cinch_f32x16){
        _mm256_castsi256_ps(_mm256_slli_epi32(b, 16)),
        _mm256_castsi256_ps(_mm256_and_si256(b, _mm256_set1_epi32((int)0xffff0000)))};
}

/* The rounded value in the upper 16 bits of each lane; the lower ones are rubbish. */
static inline __m256i cinch_bfloat16_round_x8(__m256 v) {
    __m256i u = _mm256_castps_si256(v);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(_mm256_add_epi32(u, odd), _mm256_set1_epi32(0x7fff));
    __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(CINCH_NAN_F32));
    __m256 is_nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(r), nan, is_nan));
}

static inline __m256i cinch_bfloat16_join_x16(cinch_f32x16 v) {
    __m256i even = _mm256_srli_epi32(cinch_bfloat16_round_x8(v.lo), 16);
    return _mm256_blend_epi16(even, cinch_bfloat16_round_x8(v.hi), 0xaa);
}

/* bfloat16 in order. */
static inline cinch_f32x16 cinch_bfloat16_widen_x16(__m256i b) {
    __m256i lo = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(b));
    __m256i hi = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(b, 1));
    return (cinch_f32x16){_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)),
                          _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
}

static inline __m256i cinch_bfloat16_narrow_x16(cinch_f32x16 v) {
    __m256i lo = _mm256_srli_epi32(cinch_bfloat16_round_x8(v.lo), 16);
    __m256i hi = _mm256_srli_epi32(cinch_bfloat16_round_x8(v.hi), 16);
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(lo, hi), 0xd8);
}

static inline cinch_f32x16 cinch_f8e4m3_widen_x16(__m128i b) {
    __m256i v = _mm256_cvtepu8_epi16(b), mag = _mm256_and_si256(v, _mm256_set1_epi16(0x7f));
    __m256i half = _mm256_or_si256(_mm256_slli_epi16(_mm256_andnot_si256(mag, v), 8),
                                   _mm256_slli_epi16(mag, 7));
    half = _mm256_or_si256(half, _mm256_cmpeq_epi16(mag, _mm256_set1_epi16(0x7f)));
    cinch_f32x16 f = cinch_half_widen_x16(half);
    __m256 scale = _mm256_set1_ps(256.0f);
    return (cinch_f32x16){_mm256_mul_ps(f.lo, scale), _mm256_mul_ps(f.hi, scale)};
}

static inline cinch_f32x16 cinch_f8e5m2_widen_x16(__m128i b) {
    return cinch_half_widen_x16(_mm256_slli_epi16(_mm256_cvtepu8_epi16(b), 8));
}

/* cinch_f8_round. */
static inline __m256i cinch_f8_round_x8(__m256i u, int mant, int bias, float magic) {
    int drop = 23 - mant;
    __m256 m = _mm256_set1_ps(magic);
    __m256i small = _mm256_castps_si256(_mm256_add_ps(_mm256_castsi256_ps(u), m));
    small = _mm256_sub_epi32(small, _mm256_castps_si256(m));
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, drop), _mm256_set1_epi32(1));
    __m256i r =
        _mm256_add_epi32(_mm256_add_epi32(u, odd), _mm256_set1_epi32((1 << (drop - 1)) - 1));
    r = _mm256_sub_epi32(_mm256_srli_epi32(r, drop), _mm256_set1_epi32((127 - bias) << mant));
    __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32((128 - bias) << 23), u);
    return _mm256_blendv_epi8(r, small, is_small);
}

static inline __m256i cinch_f8e4m3_narrow_x8(__m256 v) {
    __m256i bits = _mm256_castps_si256(v);
    __m256i u = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
    __m256i r = cinch_f8_round_x8(u, 3, 7, 0x1p14f);
    __m256i sign = _mm256_and_si256(_mm256_srli_epi32(bits, 24), _mm256_set1_epi32(0x80));
    return _mm256_blendv_epi8(_mm256_or_si256(r, sign), _mm256_set1_epi32(CINCH_NAN_8),
                              _mm256_cmpgt_epi32(r, _mm256_set1_epi32(0x7e)));
}

static inline __m256i cinch_f8e5m2_narrow_x8(__m256 v) {
    __m256i bits = _mm256_castps_si256(v);
    __m256i u = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
    __m256i r = cinch_f8_round_x8(u, 2, 15, 0x1p7f);
    r = _mm256_min_epi32(r, _mm256_set1_epi32(0x7c));
    __m256i sign = _mm256_and_si256(_mm256_srli_epi32(bits, 24), _mm256_set1_epi32(0x80));
    return _mm256_blendv_epi8(_mm256_or_si256(r, sign), _mm256_set1_epi32(CINCH_NAN_8),
                              _mm256_cmpgt_epi32(u, _mm256_set1_epi32(0x7f800000)));
}

/* Two registers of 32-bit lanes with values up to 255 to 16 bytes in order. */
static inline __m128i cinch_pack8_x16(__m256i lo, __m256i hi) {
    __m256i w = _mm256_permute4x64_epi64(_mm256_packus_epi32(lo, hi), 0xd8);
    return _mm_packus_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
}

static inline __m128i cinch_f8e4m3_narrow_x16(cinch_f32x16 v) {
    return cinch_pack8_x16(cinch_f8e4m3_narrow_x8(v.lo), cinch_f8e4m3_narrow_x8(v.hi));
}

static inline __m128i cinch_f8e5m2_narrow_x16(cinch_f32x16 v) {
    return cinch_pack8_x16(cinch_f8e5m2_narrow_x8(v.lo), cinch_f8e5m2_narrow_x8(v.hi));
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* AVX2 kernels of the int8 and bf16 codecs. Multiplications and additions stay separate, so that
 * the results are the reference's bits. */
#include <immintrin.h>
#include <math.h>

#include "compress/codec_kernels.h"

static inline __m256 load_value(const float *src, const float *residual, size_t i) {
    __m256 v = _mm256_loadu_ps(src + i);
    return residual ? _mm256_add_ps(v, _mm256_loadu_ps(residual + i)) : v;
}

/* The bits of the largest magnitude; len is a multiple of 32. */
static inline uint32_t largest(const float *src, const float *residual, size_t len) {
    const __m256i abs = _mm256_set1_epi32((int)CINCH_ABS_BITS);
    __m256i m0 = _mm256_setzero_si256(), m1 = m0, m2 = m0, m3 = m0;
    for (size_t i = 0; i < len; i += 32) {
        m0 = _mm256_max_epi32(
            m0, _mm256_and_si256(abs, _mm256_castps_si256(load_value(src, residual, i))));
        m1 = _mm256_max_epi32(
            m1, _mm256_and_si256(abs, _mm256_castps_si256(load_value(src, residual, i + 8))));
        m2 = _mm256_max_epi32(
            m2, _mm256_and_si256(abs, _mm256_castps_si256(load_value(src, residual, i + 16))));
        m3 = _mm256_max_epi32(
            m3, _mm256_and_si256(abs, _mm256_castps_si256(load_value(src, residual, i + 24))));
    }
    m0 = _mm256_max_epi32(_mm256_max_epi32(m0, m1), _mm256_max_epi32(m2, m3));
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(m0), _mm256_extracti128_si256(m0, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

/* What rounding needs to know of a block. */
typedef struct rounding {
    __m256 inverse, scale;
    __m256i key_low, key_high, index;
} rounding;

static inline rounding make_rounding(bool stochastic, const cinch_int8_random *random, float scale,
                                     float inverse) {
    rounding r = {.inverse = _mm256_set1_ps(inverse), .scale = _mm256_set1_ps(scale)};
    if (stochastic) {
        const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        uint64_t key = cinch_int8_block_key(random->key, random->index);
        r.key_low = _mm256_set1_epi32((int)(uint32_t)key);
        r.key_high = _mm256_set1_epi32((int)(uint32_t)(key >> 32));
        r.index = _mm256_add_epi32(lanes, _mm256_set1_epi32((int)(uint32_t)random->index));
    }
    return r;
}

/* floor(x + u) for the 8 elements from i on; see cinch_int8_random16 and round_random. */
static inline __m256i round_random(const rounding *r, __m256 x, size_t i) {
    __m256i h = _mm256_add_epi32(r->index, _mm256_set1_epi32((int)(uint32_t)i));
    h = _mm256_xor_si256(h, r->key_low);
    h = _mm256_xor_si256(h, _mm256_srli_epi32(h, 16));
    h = _mm256_mullo_epi32(h, _mm256_set1_epi32((int)CINCH_INT8_MUL1));
    h = _mm256_xor_si256(h, _mm256_srli_epi32(h, 13));
    h = _mm256_add_epi32(h, r->key_high);
    h = _mm256_mullo_epi32(h, _mm256_set1_epi32((int)CINCH_INT8_MUL2));
    __m256 u = _mm256_cvtepi32_ps(_mm256_srli_epi32(h, 16));
    u = _mm256_add_ps(_mm256_mul_ps(u, _mm256_set1_ps(0x1p-16f)), _mm256_set1_ps(0x1p-17f));
    __m256i q = _mm256_cvttps_epi32(_mm256_floor_ps(_mm256_add_ps(x, u)));
    q = _mm256_min_epi32(q, _mm256_set1_epi32(127));
    return _mm256_max_epi32(q, _mm256_set1_epi32(-127));
}

static inline __m256i quantize(const rounding *r, bool stochastic, const float *src,
                               float *residual, size_t i) {
    __m256 v = load_value(src, residual, i), x = _mm256_mul_ps(v, r->inverse);
    __m256i q = stochastic ? round_random(r, x, i) : _mm256_cvtps_epi32(x);
    if (residual) {
        __m256 sent = _mm256_mul_ps(_mm256_cvtepi32_ps(q), r->scale);
        _mm256_storeu_ps(residual + i, _mm256_sub_ps(v, sent));
    }
    return q;
}

static inline void encode_block(const rounding *r, bool stochastic, const float *src,
                                float *residual, size_t len, unsigned char *codes) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (size_t i = 0; i < len; i += 32) {
        __m256i a = quantize(r, stochastic, src, residual, i);
        __m256i b = quantize(r, stochastic, src, residual, i + 8);
        __m256i c = quantize(r, stochastic, src, residual, i + 16);
        __m256i d = quantize(r, stochastic, src, residual, i + 24);
        __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        packed = _mm256_permutevar8x32_epi32(packed, order);
        _mm256_storeu_si256((__m256i *)(codes + i), packed);
    }
}

static inline __m256 decode8(const unsigned char *codes, __m256 scale) {
    __m256i q = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)codes));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(q), scale);
}

static inline void put(const float *init, float *dst, size_t i, __m256 value) {
    if (init) value = _mm256_add_ps(_mm256_loadu_ps(init + i), value);
    _mm256_storeu_ps(dst + i, value);
}

/* 16 elements, by one shuffle for 8, which is cheaper than to extend their signs: the codes get to
 * the top of 32-bit lanes, where they are 2^24 times as large, and the scale as much smaller. */
static inline void decode_high(const unsigned char *codes, __m256 scale, const float *init,
                               float *dst) {
    const __m256i first =
        _mm256_setr_epi8(-1, -1, -1, 0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, 3, -1, -1, -1, 4,
                         -1, -1, -1, 5, -1, -1, -1, 6, -1, -1, -1, 7);
    const __m256i second = _mm256_or_si256(first, _mm256_set1_epi32(8 << 24));
    __m256i all = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)codes));
    __m256i a = _mm256_shuffle_epi8(all, first), b = _mm256_shuffle_epi8(all, second);
    put(init, dst, 0, _mm256_mul_ps(_mm256_cvtepi32_ps(a), scale));
    put(init, dst, 8, _mm256_mul_ps(_mm256_cvtepi32_ps(b), scale));
}

/* One encoding onto init, or alone. */
static inline void decode_one(uint32_t block, const unsigned char *codes,
                              const unsigned char *scales, size_t whole, const float *init,
                              float *dst) {
    for (size_t i = 0; i < whole; i += block, scales += 4) {
        float factor;
        memcpy(&factor, scales, 4);
        __m256 scale = _mm256_set1_ps(factor);
        size_t e = i, end = i + block;
        if (fabsf(factor) < 0x1p-102f) { /* 2^-24 of it may be inexact */
            for (; e < end; e += 8) put(init, dst, e, decode8(codes + e, scale));
            continue;
        }
        scale = _mm256_mul_ps(scale, _mm256_set1_ps(0x1p-24f));
        for (; e < end; e += 32) {
            decode_high(codes + e, scale, init ? init + e : NULL, dst + e);
            decode_high(codes + e + 16, scale, init ? init + e + 16 : NULL, dst + e + 16);
        }
    }
}

/* Several: 32 elements at a time through all of them. */
static void decode_many(uint32_t block, int n, const void *const *wire, size_t count, size_t first,
                        size_t whole, const float *init, float *dst) {
    for (size_t i = 0; i < whole; i += 32) {
        size_t at_scale = count + 4 * ((first + i) / block);
        __m256 sum[4];
        for (int v = 0; init && v < 4; v++) sum[v] = _mm256_loadu_ps(init + i + 8 * v);
        for (int j = 0; j < n; j++) {
            const unsigned char *in = wire[j];
            float factor;
            memcpy(&factor, in + at_scale, 4);
            __m256 scale = _mm256_set1_ps(factor);
            for (int v = 0; v < 4; v++) {
                __m256 value = decode8(in + first + i + 8 * v, scale);
                sum[v] = init || j ? _mm256_add_ps(sum[v], value) : value;
            }
        }
        for (int v = 0; v < 4; v++) _mm256_storeu_ps(dst + i + 8 * v, sum[v]);
    }
}

/* 8 rounded elements in the low halves of 32-bit lanes. */
static inline __m256i round_to_bf16(__m256 v) {
    __m256i bits = _mm256_castps_si256(v), high = _mm256_srli_epi32(bits, 16);
    __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    __m256i nan = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(_mm256_srli_epi32(up, 16), nan, is_nan);
}

/* Lanes whose bf16 is Inf or NaN. */
static inline __m256i is_nonfinite(__m256i half) {
    const __m256i exponent = _mm256_set1_epi32(0x7f80);
    return _mm256_cmpeq_epi32(_mm256_and_si256(half, exponent), exponent);
}

static inline __m256i encode8(const float *src, float *residual, size_t i, __m256i *nonfinite) {
    __m256 v = load_value(src, residual, i);
    __m256i half = round_to_bf16(v), bad = is_nonfinite(half);
    *nonfinite = _mm256_sub_epi32(*nonfinite, bad);
    if (residual) {
        __m256 left = _mm256_sub_ps(v, _mm256_castsi256_ps(_mm256_slli_epi32(half, 16)));
        left = _mm256_blendv_ps(left, _mm256_loadu_ps(residual + i), _mm256_castsi256_ps(bad));
        _mm256_storeu_ps(residual + i, left);
    }
    return half;
}

static inline size_t encode_bf16(const float *src, float *residual, size_t count,
                                 unsigned char *wire, uint64_t *nonfinite) {
    __m256i bad = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        __m256i a = encode8(src, residual, i, &bad), b = encode8(src, residual, i + 8, &bad);
        __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);
        _mm256_storeu_si256((__m256i *)(wire + 2 * i), packed);
    }
    uint32_t lane[8];
    _mm256_storeu_si256((__m256i *)lane, bad);
    for (int l = 0; l < 8; l++) *nonfinite += lane[l];
    return i;
}

#include "compress/x86/codec_loop.h"

static inline __m256 decode_bf16(const void *wire, size_t i) {
    __m128i halves = _mm_loadu_si128((const __m128i *)((const char *)wire + 2 * i));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

static void bf16_decode_add(int n, const void *const *wire, size_t first, size_t len,
                            const float *init, float *dst) {
    size_t i = 0;
    for (; i + 16 <= len; i += 16) {
        __m256 a = decode_bf16(wire[0], first + i), b = decode_bf16(wire[0], first + i + 8);
        if (init) {
            a = _mm256_add_ps(_mm256_loadu_ps(init + i), a);
            b = _mm256_add_ps(_mm256_loadu_ps(init + i + 8), b);
        }
        for (int j = 1; j < n; j++) {
            a = _mm256_add_ps(a, decode_bf16(wire[j], first + i));
            b = _mm256_add_ps(b, decode_bf16(wire[j], first + i + 8));
        }
        _mm256_storeu_ps(dst + i, a);
        _mm256_storeu_ps(dst + i + 8, b);
    }
    cinch_bf16_decode_add_reference(n, wire, first + i, len - i, init ? init + i : NULL, dst + i);
}

/* In topk_avx2.c. */
void cinch_topk_select_avx2(const float *src, float *residual, size_t len, size_t k,
                            unsigned char *index, unsigned char *value, uint64_t *nonfinite);

const cinch_codec_kernels cinch_codec_kernels_avx2 = {
    .isa = "avx2",
    .int8_encode = int8_encode,
    .int8_decode_add = int8_decode_add,
    .bf16_encode = bf16_encode,
    .bf16_decode_add = bf16_decode_add,
    .topk_select = cinch_topk_select_avx2,
};

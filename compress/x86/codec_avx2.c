/* SPDX-License-Identifier: Apache-2.0 */
/* AVX2 kernels of the int8 and bf16 codecs. Multiplications and additions stay separate, so that
 * the results are the reference's bits. */
#include <immintrin.h>

#include "compress/codec_kernels.h"

/* How far ahead of a block its successors are fetched: two reads of a block in a row keep the
 * hardware's own prefetcher from running ahead far enough. */
#define PREFETCH_BYTES 4096

static inline __m256 load_value(const float *src, const float *residual, size_t i) {
    __m256 v = _mm256_loadu_ps(src + i);
    return residual ? _mm256_add_ps(v, _mm256_loadu_ps(residual + i)) : v;
}

static inline void prefetch_block(const float *src, size_t len) {
    for (size_t i = 0; i < len; i += 16)
        _mm_prefetch((const char *)(src + i) + PREFETCH_BYTES, _MM_HINT_T0);
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

/* The next block's largest magnitude is looked for before this block is rounded: what it takes to
 * make a scale of it then runs beside the rounding. */
static inline void encode_blocks(const cinch_int8_params *params, bool stochastic,
                                 cinch_int8_random *random, const float *src, float *residual,
                                 size_t whole, unsigned char *codes, unsigned char *scales,
                                 uint64_t *nonfinite) {
    const size_t block = params->block;
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    uint32_t max = whole ? largest(src, residual, block) : 0, next = 0;
    for (size_t i = 0; i < whole; i += block, scales += 4, random->index += block, max = next) {
        float *left = residual ? residual + i : NULL;
        prefetch_block(src + i, block);
        if (residual) prefetch_block(left, block);
        if (i + block < whole)
            next = largest(src + i + block, residual ? left + block : NULL, block);
        float inverse, scale = cinch_int8_scale(max, &inverse);
        memcpy(scales, &scale, 4);
        if (__builtin_expect(max >= CINCH_INF_BITS, 0)) {
            memset(codes + i, 0, block);
            ++*nonfinite;
            continue;
        }
        rounding r = {.inverse = _mm256_set1_ps(inverse), .scale = _mm256_set1_ps(scale)};
        if (stochastic) {
            uint64_t key = cinch_int8_block_key(random->key, random->index);
            r.key_low = _mm256_set1_epi32((int)(uint32_t)key);
            r.key_high = _mm256_set1_epi32((int)(uint32_t)(key >> 32));
            r.index = _mm256_add_epi32(lanes, _mm256_set1_epi32((int)(uint32_t)random->index));
        }
        encode_block(&r, stochastic, src + i, left, block, codes + i);
    }
}

static void int8_encode(const cinch_int8_params *params, const cinch_int8_random *random,
                        const float *src, float *residual, size_t count, unsigned char *codes,
                        unsigned char *scales, uint64_t *nonfinite) {
    size_t whole = count - count % params->block;
    cinch_int8_random place = *random;
    if (params->stochastic)
        encode_blocks(params, true, &place, src, residual, whole, codes, scales, nonfinite);
    else if (residual)
        encode_blocks(params, false, &place, src, residual, whole, codes, scales, nonfinite);
    else
        encode_blocks(params, false, &place, src, NULL, whole, codes, scales, nonfinite);
    cinch_int8_encode_reference(params, &place, src + whole, residual ? residual + whole : NULL,
                                count - whole, codes + whole, scales + 4 * (whole / params->block),
                                nonfinite);
}

static inline __m256 decode8(const unsigned char *codes, __m256 scale) {
    __m256i q = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)codes));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(q), scale);
}

/* One encoding onto init, or alone. */
static inline void decode_one(uint32_t block, const unsigned char *codes,
                              const unsigned char *scales, size_t whole, const float *init,
                              float *dst) {
    for (size_t i = 0; i < whole; i += block, scales += 4) {
        float factor;
        memcpy(&factor, scales, 4);
        __m256 scale = _mm256_set1_ps(factor);
        for (size_t e = i; e < i + block; e += 32) {
            for (size_t v = e; v < e + 32; v += 8) {
                __m256 value = decode8(codes + v, scale);
                if (init) value = _mm256_add_ps(_mm256_loadu_ps(init + v), value);
                _mm256_storeu_ps(dst + v, value);
            }
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

static void int8_decode_add(uint32_t block, int n, const void *const *wire, size_t count,
                            size_t first, size_t len, const float *init, float *dst) {
    size_t whole = len - len % block;
    if (n == 1) {
        const unsigned char *codes = (const unsigned char *)wire[0] + first;
        const unsigned char *scales = (const unsigned char *)wire[0] + count + 4 * (first / block);
        if (init)
            decode_one(block, codes, scales, whole, init, dst);
        else
            decode_one(block, codes, scales, whole, NULL, dst);
    } else {
        decode_many(block, n, wire, count, first, whole, init, dst);
    }
    if (whole < len)
        cinch_int8_decode_add_reference(block, n, wire, count, first + whole, len - whole,
                                        init ? init + whole : NULL, dst + whole);
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

static void bf16_encode(const float *src, float *residual, size_t count, unsigned char *wire,
                        uint64_t *nonfinite) {
    size_t done = residual ? encode_bf16(src, residual, count, wire, nonfinite)
                           : encode_bf16(src, NULL, count, wire, nonfinite);
    cinch_bf16_encode_reference(src + done, residual ? residual + done : NULL, count - done,
                                wire + 2 * done, nonfinite);
}

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

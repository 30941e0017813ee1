/* SPDX-License-Identifier: Apache-2.0 */
/* AVX-512 kernels of the codecs, for CPUs with F, BW, DQ and VL: the AVX2 kernels in
 * twice as wide registers. Multiplications and additions stay separate, as there. */
#include <immintrin.h>

#include "compress/codec_kernels.h"
#include "compress/topk_fast.h"

static inline __m512 load_value(const float *src, const float *residual, size_t i) {
    __m512 v = _mm512_loadu_ps(src + i);
    return residual ? _mm512_add_ps(v, _mm512_loadu_ps(residual + i)) : v;
}

static inline __m512i magnitude(__m512 v) {
    return _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32((int)CINCH_ABS_BITS));
}

/* The bits of the largest magnitude; len is a multiple of 64. */
static inline uint32_t largest(const float *src, const float *residual, size_t len) {
    __m512i m0 = _mm512_setzero_si512(), m1 = m0, m2 = m0, m3 = m0;
    for (size_t i = 0; i < len; i += 64) {
        m0 = _mm512_max_epi32(m0, magnitude(load_value(src, residual, i)));
        m1 = _mm512_max_epi32(m1, magnitude(load_value(src, residual, i + 16)));
        m2 = _mm512_max_epi32(m2, magnitude(load_value(src, residual, i + 32)));
        m3 = _mm512_max_epi32(m3, magnitude(load_value(src, residual, i + 48)));
    }
    m0 = _mm512_max_epi32(_mm512_max_epi32(m0, m1), _mm512_max_epi32(m2, m3));
    __m256i h = _mm256_max_epi32(_mm512_castsi512_si256(m0), _mm512_extracti64x4_epi64(m0, 1));
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

/* What rounding needs to know of a block. */
typedef struct rounding {
    __m512 inverse, scale;
    __m512i key_low, key_high, index;
} rounding;

static inline rounding make_rounding(bool stochastic, const cinch_int8_random *random, float scale,
                                     float inverse) {
    rounding r = {.inverse = _mm512_set1_ps(inverse), .scale = _mm512_set1_ps(scale)};
    if (stochastic) {
        const __m512i lanes =
            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        uint64_t key = cinch_int8_block_key(random->key, random->index);
        r.key_low = _mm512_set1_epi32((int)(uint32_t)key);
        r.key_high = _mm512_set1_epi32((int)(uint32_t)(key >> 32));
        r.index = _mm512_add_epi32(lanes, _mm512_set1_epi32((int)(uint32_t)random->index));
    }
    return r;
}

/* floor(x + u) for the 16 elements from i on; see cinch_int8_random16 and round_random. */
static inline __m512i round_random(const rounding *r, __m512 x, size_t i) {
    __m512i h = _mm512_add_epi32(r->index, _mm512_set1_epi32((int)(uint32_t)i));
    h = _mm512_xor_si512(h, r->key_low);
    h = _mm512_xor_si512(h, _mm512_srli_epi32(h, 16));
    h = _mm512_mullo_epi32(h, _mm512_set1_epi32((int)CINCH_INT8_MUL1));
    h = _mm512_xor_si512(h, _mm512_srli_epi32(h, 13));
    h = _mm512_add_epi32(h, r->key_high);
    h = _mm512_mullo_epi32(h, _mm512_set1_epi32((int)CINCH_INT8_MUL2));
    __m512 u = _mm512_cvtepi32_ps(_mm512_srli_epi32(h, 16));
    u = _mm512_add_ps(_mm512_mul_ps(u, _mm512_set1_ps(0x1p-16f)), _mm512_set1_ps(0x1p-17f));
    __m512 y = _mm512_add_ps(x, u);
    __m512i q = _mm512_cvt_roundps_epi32(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    q = _mm512_min_epi32(q, _mm512_set1_epi32(127));
    return _mm512_max_epi32(q, _mm512_set1_epi32(-127));
}

static inline __m512i quantize(const rounding *r, bool stochastic, const float *src,
                               float *residual, size_t i) {
    __m512 v = load_value(src, residual, i), x = _mm512_mul_ps(v, r->inverse);
    __m512i q = stochastic ? round_random(r, x, i) : _mm512_cvtps_epi32(x);
    if (residual) {
        __m512 sent = _mm512_mul_ps(_mm512_cvtepi32_ps(q), r->scale);
        _mm512_storeu_ps(residual + i, _mm512_sub_ps(v, sent));
    }
    return q;
}

static inline void encode_block(const rounding *r, bool stochastic, const float *src,
                                float *residual, size_t len, unsigned char *codes) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (size_t i = 0; i < len; i += 64) {
        __m512i a = quantize(r, stochastic, src, residual, i);
        __m512i b = quantize(r, stochastic, src, residual, i + 16);
        __m512i c = quantize(r, stochastic, src, residual, i + 32);
        __m512i d = quantize(r, stochastic, src, residual, i + 48);
        __m512i packed = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
        _mm512_storeu_si512(codes + i, _mm512_permutexvar_epi32(order, packed));
    }
}

static inline __m512 decode16(const unsigned char *codes, __m512 scale) {
    __m512i q = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)codes));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(q), scale);
}

/* One encoding onto init, or alone. */
static inline void decode_one(uint32_t block, const unsigned char *codes,
                              const unsigned char *scales, size_t whole, const float *init,
                              float *dst) {
    for (size_t i = 0; i < whole; i += block, scales += 4) {
        float factor;
        memcpy(&factor, scales, 4);
        __m512 scale = _mm512_set1_ps(factor);
        for (size_t e = i; e < i + block; e += 32) {
            __m512 a = decode16(codes + e, scale), b = decode16(codes + e + 16, scale);
            if (init) {
                a = _mm512_add_ps(_mm512_loadu_ps(init + e), a);
                b = _mm512_add_ps(_mm512_loadu_ps(init + e + 16), b);
            }
            _mm512_storeu_ps(dst + e, a);
            _mm512_storeu_ps(dst + e + 16, b);
        }
    }
}

/* Several: 32 elements at a time through all of them. */
static void decode_many(uint32_t block, int n, const void *const *wire, size_t count, size_t first,
                        size_t whole, const float *init, float *dst) {
    for (size_t i = 0; i < whole; i += 32) {
        size_t at_scale = count + 4 * ((first + i) / block);
        __m512 a = _mm512_setzero_ps(), b = a;
        if (init) {
            a = _mm512_loadu_ps(init + i);
            b = _mm512_loadu_ps(init + i + 16);
        }
        for (int j = 0; j < n; j++) {
            const unsigned char *in = wire[j];
            float factor;
            memcpy(&factor, in + at_scale, 4);
            __m512 scale = _mm512_set1_ps(factor);
            __m512 c = decode16(in + first + i, scale), d = decode16(in + first + i + 16, scale);
            a = init || j ? _mm512_add_ps(a, c) : c;
            b = init || j ? _mm512_add_ps(b, d) : d;
        }
        _mm512_storeu_ps(dst + i, a);
        _mm512_storeu_ps(dst + i + 16, b);
    }
}

/* 16 elements rounded to bf16 in the low halves of 32-bit lanes. */
static inline __m512i round_to_bf16(__m512 v) {
    __m512i bits = _mm512_castps_si512(v), high = _mm512_srli_epi32(bits, 16);
    __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    __mmask16 is_nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_mask_or_epi32(_mm512_srli_epi32(up, 16), is_nan, high, _mm512_set1_epi32(0x40));
}

static inline size_t encode_bf16(const float *src, float *residual, size_t count,
                                 unsigned char *wire, uint64_t *nonfinite) {
    const __m512i exponent = _mm512_set1_epi32(0x7f80);
    __m512i bad_count = _mm512_setzero_si512();
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        __m512 v = load_value(src, residual, i);
        __m512i half = round_to_bf16(v);
        __mmask16 bad = _mm512_cmpeq_epi32_mask(_mm512_and_si512(half, exponent), exponent);
        bad_count = _mm512_mask_add_epi32(bad_count, bad, bad_count, _mm512_set1_epi32(1));
        if (residual) {
            __m512 sent = _mm512_castsi512_ps(_mm512_slli_epi32(half, 16));
            _mm512_mask_storeu_ps(residual + i, (__mmask16)~bad, _mm512_sub_ps(v, sent));
        }
        _mm256_storeu_si256((__m256i *)(wire + 2 * i), _mm512_cvtepi32_epi16(half));
    }
    *nonfinite += (uint32_t)_mm512_reduce_add_epi32(bad_count);
    return i;
}

#include "compress/x86/codec_loop.h"

/* Blocks of 32 are shorter than a step here. */
static void int8_encode_wide(const cinch_int8_params *params, const cinch_int8_random *random,
                             const float *src, float *residual, size_t count, unsigned char *codes,
                             unsigned char *scales, uint64_t *nonfinite) {
    if (params->block < 64)
        cinch_codec_kernels_avx2.int8_encode(params, random, src, residual, count, codes, scales,
                                             nonfinite);
    else
        int8_encode(params, random, src, residual, count, codes, scales, nonfinite);
}

static inline __m512 decode_bf16(const void *wire, size_t i) {
    __m256i halves = _mm256_loadu_si256((const __m256i *)((const char *)wire + 2 * i));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

static void bf16_decode_add(int n, const void *const *wire, size_t first, size_t len,
                            const float *init, float *dst) {
    size_t i = 0;
    for (; i + 32 <= len; i += 32) {
        __m512 a = decode_bf16(wire[0], first + i), b = decode_bf16(wire[0], first + i + 16);
        if (init) {
            a = _mm512_add_ps(_mm512_loadu_ps(init + i), a);
            b = _mm512_add_ps(_mm512_loadu_ps(init + i + 16), b);
        }
        for (int j = 1; j < n; j++) {
            a = _mm512_add_ps(a, decode_bf16(wire[j], first + i));
            b = _mm512_add_ps(b, decode_bf16(wire[j], first + i + 16));
        }
        _mm512_storeu_ps(dst + i, a);
        _mm512_storeu_ps(dst + i + 16, b);
    }
    cinch_bf16_decode_add_reference(n, wire, first + i, len - i, init ? init + i : NULL, dst + i);
}

static inline uint32_t scan_chunk(const float *src, float *residual, float *old, size_t len,
                                  uint32_t below, uint64_t *mask) {
    __m512i least = _mm512_set1_epi32((int)below), max = _mm512_setzero_si512();
    for (size_t i = 0; i < len; i += 64) {
        uint64_t word = 0;
        for (size_t e = 0; e < 64; e += 16) {
            __m512 v = load_value(src, residual, i + e);
            if (residual) {
                _mm512_storeu_ps(old + i + e, _mm512_loadu_ps(residual + i + e));
                _mm512_storeu_ps(residual + i + e, v);
            }
            __m512i m = magnitude(v);
            max = _mm512_max_epi32(max, m);
            word |= (uint64_t)_mm512_cmpgt_epi32_mask(m, least) << e;
        }
        mask[i / 64] = word;
    }
    return (uint32_t)_mm512_reduce_max_epi32(max);
}

static uint32_t scan(const float *src, float *residual, float *old, size_t len, uint32_t below,
                     uint64_t *mask) {
    return residual ? scan_chunk(src, residual, old, len, below, mask)
                    : scan_chunk(src, NULL, NULL, len, below, mask);
}

static void topk_select(const float *src, float *residual, size_t len, size_t k,
                        unsigned char *index, unsigned char *value, uint64_t *nonfinite) {
    cinch_topk_select_fast(scan, src, residual, len, k, index, value, nonfinite);
}

const cinch_codec_kernels cinch_codec_kernels_avx512 = {
    .isa = "avx512",
    .int8_encode = int8_encode_wide,
    .int8_decode_add = int8_decode_add,
    .bf16_encode = bf16_encode,
    .bf16_decode_add = bf16_decode_add,
    .topk_select = topk_select,
};

/* SPDX-License-Identifier: Apache-2.0 */
/* AVX2 scan of the topk codec. */
#include <immintrin.h>

#include "compress/codec_kernels.h"
#include "compress/topk_fast.h"

void cinch_topk_select_avx2(const float *src, float *residual, size_t len, size_t k,
                            unsigned char *index, unsigned char *value, uint64_t *nonfinite);

static inline uint64_t scan8(const float *src, float *residual, float *old, size_t i, __m256i below,
                             __m256i *max) {
    __m256 v = _mm256_loadu_ps(src + i);
    if (residual) {
        __m256 r = _mm256_loadu_ps(residual + i);
        v = _mm256_add_ps(v, r);
        _mm256_storeu_ps(old + i, r);
        _mm256_storeu_ps(residual + i, v);
    }
    __m256i m = _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32((int)CINCH_ABS_BITS));
    *max = _mm256_max_epi32(*max, m);
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(m, below)));
}

static inline uint32_t scan_chunk(const float *src, float *residual, float *old, size_t len,
                                  uint32_t below, uint64_t *mask) {
    __m256i least = _mm256_set1_epi32((int)below), max = _mm256_setzero_si256();
    for (size_t i = 0; i < len; i += 64) {
        uint64_t word = 0;
        for (size_t e = 0; e < 64; e += 8)
            word |= scan8(src, residual, old, i + e, least, &max) << e;
        mask[i / 64] = word;
    }
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

static uint32_t scan(const float *src, float *residual, float *old, size_t len, uint32_t below,
                     uint64_t *mask) {
    return residual ? scan_chunk(src, residual, old, len, below, mask)
                    : scan_chunk(src, NULL, NULL, len, below, mask);
}

void cinch_topk_select_avx2(const float *src, float *residual, size_t len, size_t k,
                            unsigned char *index, unsigned char *value, uint64_t *nonfinite) {
    cinch_topk_select_fast(scan, src, residual, len, k, index, value, nonfinite);
}

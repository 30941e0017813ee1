/* SPDX-License-Identifier: Apache-2.0 */
/* Which elements top-k takes: the k-th largest magnitude by counting digits, and the reference
 * kernel that sends what is above it.
 *
 * Magnitudes are compared as integers (the bits without the sign), so that NaN is above Inf and
 * above every number, and every machine agrees. Of equal magnitudes the lowest index is taken. */
#include "compress/codec_kernels.h"

/* Either bits, or src and perhaps residual. */
typedef struct magnitudes {
    const uint32_t *bits;
    const float *src, *residual;
    size_t count;
} magnitudes;

static inline uint32_t magnitude(const magnitudes *in, size_t i) {
    if (in->bits) return in->bits[i];
    float v = in->residual ? in->src[i] + in->residual[i] : in->src[i];
    return cinch_float_bits(v) & CINCH_ABS_BITS;
}

/* Three digits of 11, 10 and 10 bits from the top; each round keeps the values whose digit is that
 * of the k-th largest. */
static uint32_t threshold(const magnitudes *in, size_t k, size_t *ties) {
    static const int shifts[] = {20, 10, 0};
    uint32_t found = 0;
    for (int round = 0; round < 3; round++) {
        size_t bins[2048] = {0};
        int shift = shifts[round], above = round ? shifts[round - 1] : 31;
        uint32_t mask = (1u << (above - shift)) - 1, digit = mask;
        for (size_t i = 0; i < in->count; i++) {
            uint32_t m = magnitude(in, i);
            if (m >> above == found >> above) bins[m >> shift & mask]++;
        }
        while (bins[digit] < k) k -= bins[digit--];
        found |= digit << shift;
    }
    *ties = k;
    return found;
}

uint32_t cinch_topk_threshold(const float *src, const float *residual, size_t count, size_t k,
                              size_t *ties) {
    return threshold(&(magnitudes){.src = src, .residual = residual, .count = count}, k, ties);
}

uint32_t cinch_topk_threshold_bits(const uint32_t *bits, size_t count, size_t k, size_t *ties) {
    return threshold(&(magnitudes){.bits = bits, .count = count}, k, ties);
}

void cinch_topk_select_reference(const float *src, float *residual, size_t len, size_t k,
                                 unsigned char *index, unsigned char *value, uint64_t *nonfinite) {
    size_t ties;
    uint32_t least = cinch_topk_threshold(src, residual, len, k, &ties);
    for (size_t i = 0; i < len; i++) {
        float v = residual ? src[i] + residual[i] : src[i];
        uint32_t m = cinch_float_bits(v) & CINCH_ABS_BITS;
        bool finite = m < CINCH_INF_BITS;
        if (m > least || (m == least && ties && ties--)) {
            uint16_t at = (uint16_t)i;
            if (!finite) v = cinch_bits_float(CINCH_NAN_BITS);
            *nonfinite += !finite;
            memcpy(index, &at, 2);
            memcpy(value, &v, 4);
            index += 2;
            value += 4;
            v = 0;
        }
        if (residual && finite) residual[i] = v;
    }
}

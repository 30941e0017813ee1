/* SPDX-License-Identifier: Apache-2.0 */
/* One element from half, bfloat16 or fp8 to fp32 and back, in plain C: the definition that every
 * other kernel must meet bit by bit. */
#ifndef CINCH_COMPRESS_CONVERT_H_
#define CINCH_COMPRESS_CONVERT_H_

#include <math.h>
#include <stdint.h>
#include <string.h>

#define CINCH_NAN_F32 0x7fffffffu
#define CINCH_NAN_F64 0x7fffffffffffffffu
#define CINCH_NAN_16 0x7fffu /* half and bfloat16 */
#define CINCH_NAN_8 0x7fu    /* both fp8 types */

static inline float cinch_float_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t cinch_bits_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float cinch_half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, mag = h & 0x7fffu;
    if (mag > 0x7c00) return cinch_float_of(CINCH_NAN_F32);
    if (mag == 0x7c00) return cinch_float_of(sign | 0x7f800000u);
    if (mag >= 0x400) return cinch_float_of(sign | ((mag << 13) + (112u << 23)));
    float f = (float)mag * 0x1p-24f;
    return sign ? -f : f;
}

/* In integers, because VCVTPS2PH rounds to nearest even whatever MXCSR says. */
static inline uint16_t cinch_half_from_float(float f) {
    uint32_t bits = cinch_bits_of(f), u = bits & 0x7fffffffu, sign = (bits >> 16) & 0x8000u, r;
    if (u > 0x7f800000u) return CINCH_NAN_16;
    if (u >= 0x47800000u) { /* 2^16 and beyond */
        r = 0x7c00;
    } else if (u >= 0x38800000u) { /* a normal half; a carry out of the top one gives Inf */
        r = u - (112u << 23);
        r = (r + 0xfff + ((r >> 13) & 1)) >> 13;
    } else if (u >= 0x33000000u) { /* a denormal half, or the tie at 2^-25 */
        uint32_t shift = 126 - (u >> 23), m = (u & 0x7fffffu) | 0x800000u;
        uint32_t rest = m & ((1u << shift) - 1), tie = 1u << (shift - 1);
        r = m >> shift;
        r += rest > tie || (rest == tie && (r & 1));
    } else {
        r = 0;
    }
    return (uint16_t)(sign | r);
}

static inline float cinch_bfloat16_to_float(uint16_t b) {
    return cinch_float_of((b & 0x7fffu) > 0x7f80 ? CINCH_NAN_F32 : (uint32_t)b << 16);
}

static inline uint16_t cinch_bfloat16_from_float(float f) {
    uint32_t u = cinch_bits_of(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return CINCH_NAN_16;
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

/* An e4m3 is a half of eight binades below with its low mantissa bits cut off; only its NaN is not.
 */
static inline float cinch_f8e4m3_to_float(uint8_t v) {
    uint32_t sign = (uint32_t)(v & 0x80u) << 8, mag = v & 0x7fu;
    if (mag == 0x7f) return cinch_float_of(CINCH_NAN_F32);
    return cinch_half_to_float((uint16_t)(sign | (mag << 7))) * 256.0f;
}

static inline float cinch_f8e5m2_to_float(uint8_t v) {
    return cinch_half_to_float((uint16_t)((uint32_t)v << 8));
}

/* |f| rounded to an fp8 magnitude with `mant` mantissa bits, as if its exponent had no end.
 * Below the smallest normal number, adding `magic`, whose ulp is the smallest denormal, rounds. */
static inline uint32_t cinch_f8_round(uint32_t u, int mant, int bias, float magic) {
    int drop = 23 - mant;
    if (u < (uint32_t)(128 - bias) << 23)
        return cinch_bits_of(cinch_float_of(u) + magic) - cinch_bits_of(magic);
    uint32_t r = (u + (1u << (drop - 1)) - 1 + ((u >> drop) & 1)) >> drop;
    return r - ((uint32_t)(127 - bias) << mant);
}

static inline uint8_t cinch_f8e4m3_from_float(float f) {
    uint32_t bits = cinch_bits_of(f), u = bits & 0x7fffffffu;
    uint32_t r = cinch_f8_round(u, 3, 7, 0x1p14f);
    return (uint8_t)(r > 0x7e ? CINCH_NAN_8 : ((bits >> 24) & 0x80u) | r);
}

static inline uint8_t cinch_f8e5m2_from_float(float f) {
    uint32_t bits = cinch_bits_of(f), u = bits & 0x7fffffffu;
    if (u > 0x7f800000u) return CINCH_NAN_8;
    uint32_t r = cinch_f8_round(u, 2, 15, 0x1p7f);
    return (uint8_t)(((bits >> 24) & 0x80u) | (r > 0x7c ? 0x7c : r));
}

#endif

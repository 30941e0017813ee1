/* SPDX-License-Identifier: Apache-2.0 */
/* The inner loops of the built-in codecs: one table per instruction set, and the few expressions
 * that must be the same in all of them. What the bytes mean: compress/FORMAT.md. */
#ifndef CINCH_COMPRESS_CODEC_KERNELS_H_
#define CINCH_COMPRESS_CODEC_KERNELS_H_

#include <float.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cinch/codec.h"

#define CINCH_ABS_BITS 0x7fffffffu
#define CINCH_INF_BITS 0x7f800000u /* magnitudes from here on are Inf and NaN */
#define CINCH_NAN_BITS 0x7fc00000u /* the NaN that codecs send */
#define CINCH_TOPK_SEGMENT 65536u

static inline uint32_t cinch_float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float cinch_bits_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

typedef struct cinch_int8_params {
    uint32_t block;
    uint32_t stochastic;
    uint64_t seed;
} cinch_int8_params;

typedef struct cinch_topk_params {
    double ratio;
    bool global;
} cinch_topk_params;

/* Where random rounding draws from: a key per encode, and the place of src[0] in the buffer. */
typedef struct cinch_int8_random {
    uint64_t key;
    uint64_t index;
} cinch_int8_random;

/* A 64-bit mix in which every input bit reaches every output bit. */
static inline uint64_t cinch_mix64(uint64_t x) {
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
}

/* The key of an encode. */
static inline uint64_t cinch_int8_key(uint64_t seed, const cinchCodecSite_t *site) {
    uint64_t key = cinch_mix64(seed + 0x9e3779b97f4a7c15u);
    key = cinch_mix64(key + site->call);
    return cinch_mix64(key + ((uint64_t)site->rank << 32 | site->phase));
}

/* The key of the block whose first element is `index`. */
static inline uint64_t cinch_int8_block_key(uint64_t key, uint64_t index) {
    return cinch_mix64(key + (index >> 32));
}

/* 16 random bits for an element; the kernels do the same in vectors. */
#define CINCH_INT8_MUL1 0x85ebca6bu
#define CINCH_INT8_MUL2 0xc2b2ae35u
static inline uint32_t cinch_int8_random16(uint64_t block_key, uint32_t index) {
    uint32_t h = index ^ (uint32_t)block_key;
    h ^= h >> 16;
    h *= CINCH_INT8_MUL1;
    h ^= h >> 13;
    h += (uint32_t)(block_key >> 32);
    h *= CINCH_INT8_MUL2;
    return h >> 16;
}

/* The scale of a block from the bits of its largest magnitude, and what to multiply with before
 * rounding. Not finite: NaN. Below 2^-118, where 127/A nears Inf: 0. */
static inline float cinch_int8_scale(uint32_t max_bits, float *inverse) {
    *inverse = 0;
    if (max_bits >= CINCH_INF_BITS) return cinch_bits_float(CINCH_NAN_BITS);
    if (max_bits < 0x04800000u) return 0;
    float max = cinch_bits_float(max_bits), scale = max / 127.0f;
    *inverse = 127.0f / max;
    if (127.0f * scale > FLT_MAX) scale = cinch_bits_float(cinch_float_bits(scale) - 1);
    return scale;
}

/* Bytes: codes of `count` elements, then the scales of their blocks. */
static inline size_t cinch_int8_blocks(size_t count, size_t block) {
    return count / block + (count % block != 0);
}

typedef struct cinch_codec_kernels {
    const char *isa;

    /* residual may be NULL. random: only where params->stochastic. */
    void (*int8_encode)(const cinch_int8_params *params, const cinch_int8_random *random,
                        const float *src, float *residual, size_t count, unsigned char *codes,
                        unsigned char *scales, uint64_t *nonfinite);

    /* The elements [first, first + len) of n encodings of count; first is a multiple of block. */
    void (*int8_decode_add)(uint32_t block, int n, const void *const *wire, size_t count,
                            size_t first, size_t len, const float *init, float *dst);

    void (*bf16_encode)(const float *src, float *residual, size_t count, unsigned char *wire,
                        uint64_t *nonfinite);
    void (*bf16_decode_add)(int n, const void *const *wire, size_t first, size_t len,
                            const float *init, float *dst);

    /* The k largest magnitudes out of len <= CINCH_TOPK_SEGMENT, 0 < k <= len: 16-bit indices in
     * ascending order to index, their values to value. */
    void (*topk_select)(const float *src, float *residual, size_t len, size_t k,
                        unsigned char *index, unsigned char *value, uint64_t *nonfinite);
} cinch_codec_kernels;

extern const cinch_codec_kernels cinch_codec_kernels_reference;
#if defined(__x86_64__)
extern const cinch_codec_kernels cinch_codec_kernels_avx2;
extern const cinch_codec_kernels cinch_codec_kernels_avx512;
#endif

/* The fastest that this CPU runs. */
const cinch_codec_kernels *cinch_codec_kernels_get(void);

/* For tests: what get returns from now on; NULL: the fastest again. */
void cinch_codec_kernels_force(const cinch_codec_kernels *kernels);

/* Every table that this CPU runs, the reference first; NULL past the end. */
const cinch_codec_kernels *cinch_codec_kernels_at(int i);

/* The built-in codecs. */
extern const cinchCodec_t cinch_codec_bf16, cinch_codec_int8, cinch_codec_topk;

/* The reference kernels, which the others use for the ends of buffers. */
void cinch_int8_encode_reference(const cinch_int8_params *params, const cinch_int8_random *random,
                                 const float *src, float *residual, size_t count,
                                 unsigned char *codes, unsigned char *scales, uint64_t *nonfinite);
void cinch_int8_decode_add_reference(uint32_t block, int n, const void *const *wire, size_t count,
                                     size_t first, size_t len, const float *init, float *dst);
void cinch_bf16_encode_reference(const float *src, float *residual, size_t count,
                                 unsigned char *wire, uint64_t *nonfinite);
void cinch_bf16_decode_add_reference(int n, const void *const *wire, size_t first, size_t len,
                                     const float *init, float *dst);
void cinch_topk_select_reference(const float *src, float *residual, size_t len, size_t k,
                                 unsigned char *index, unsigned char *value, uint64_t *nonfinite);

/* The bits of the k-th largest magnitude of src + residual (residual may be NULL), 1 <= k <= count,
 * and in *ties how many elements of just that magnitude are among the k largest. */
uint32_t cinch_topk_threshold(const float *src, const float *residual, size_t count, size_t k,
                              size_t *ties);

/* The same for magnitudes given as bits. */
uint32_t cinch_topk_threshold_bits(const uint32_t *bits, size_t count, size_t k, size_t *ties);

#endif

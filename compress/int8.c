/* SPDX-License-Identifier: Apache-2.0 */
/* The int8 codec: blocks of codes in [-127, 127] with one fp32 scale each; reference kernels. */
#include "compress/codec_kernels.h"
#include "compress/codec_params.h"

/* Below 2^22 in magnitude, adding and taking away 1.5 * 2^23 rounds to nearest even, and the sum's
 * low byte is the code. */
#define ROUND_MAGIC 12582912.0f

static int round_nearest(float x) {
    return (int)cinch_float_bits(x + ROUND_MAGIC) - (int)cinch_float_bits(ROUND_MAGIC);
}

/* floor(x + u), u in (0, 1) from 16 random bits: on average x. The sums are exact where x is a
 * whole number, so these never move. */
static int round_random(float x, uint32_t random16) {
    float y = x + ((float)random16 * 0x1p-16f + 0x1p-17f);
    int q = (int)y;
    q -= (float)q > y;
    return q > 127 ? 127 : q < -127 ? -127 : q;
}

static void encode_block(const cinch_int8_params *params, const cinch_int8_random *random,
                         const float *src, float *residual, size_t len, unsigned char *codes,
                         unsigned char *scale_out, uint64_t *nonfinite) {
    uint32_t max = 0;
    for (size_t i = 0; i < len; i++) {
        float v = residual ? src[i] + residual[i] : src[i];
        uint32_t bits = cinch_float_bits(v) & CINCH_ABS_BITS;
        max = bits > max ? bits : max;
    }
    float inverse, scale = cinch_int8_scale(max, &inverse);
    memcpy(scale_out, &scale, sizeof scale);
    if (max >= CINCH_INF_BITS) {
        memset(codes, 0, len);
        ++*nonfinite;
        return;
    }
    uint64_t key = params->stochastic ? cinch_int8_block_key(random->key, random->index) : 0;
    for (size_t i = 0; i < len; i++) {
        float v = residual ? src[i] + residual[i] : src[i];
        float x = v * inverse;
        int q =
            params->stochastic
                ? round_random(x, cinch_int8_random16(key, (uint32_t)random->index + (uint32_t)i))
                : round_nearest(x);
        codes[i] = (unsigned char)q;
        if (residual) residual[i] = v - (float)q * scale;
    }
}

void cinch_int8_encode_reference(const cinch_int8_params *params, const cinch_int8_random *random,
                                 const float *src, float *residual, size_t count,
                                 unsigned char *codes, unsigned char *scales, uint64_t *nonfinite) {
    cinch_int8_random place = *random;
    for (size_t i = 0; i < count; i += params->block) {
        size_t len = count - i < params->block ? count - i : params->block;
        encode_block(params, &place, src + i, residual ? residual + i : NULL, len, codes + i,
                     scales, nonfinite);
        scales += 4;
        place.index += len;
    }
}

void cinch_int8_decode_add_reference(uint32_t block, int n, const void *const *wire, size_t count,
                                     size_t first, size_t len, const float *init, float *dst) {
    for (size_t i = 0; i < len; i += block) {
        size_t end = len - i < block ? len : i + block;
        for (int j = 0; j < n; j++) {
            const unsigned char *codes = (const unsigned char *)wire[j] + first;
            float scale;
            memcpy(&scale, (const unsigned char *)wire[j] + count + 4 * ((first + i) / block), 4);
            const float *base = j ? dst : init;
            for (size_t e = i; e < end; e++) {
                float value = (float)(signed char)codes[e] * scale;
                dst[e] = base ? base[e] + value : value;
            }
        }
    }
}

static const char *parse(const char *text, void *out) {
    static const char accepted[] =
        "block=N (a power of two from 32 to 4096), round=nearest|stochastic, seed=N";
    static const char *const rounds[] = {"nearest", "stochastic"};
    cinch_int8_params params = {.block = 256};
    cinch_param item;
    while (cinch_param_next(&text, &item)) {
        uint64_t number;
        int choice;
        if (cinch_param_is(&item, "block") && cinch_param_u64(&item, &number) && number >= 32 &&
            number <= 4096 && !(number & (number - 1)))
            params.block = (uint32_t)number;
        else if (cinch_param_is(&item, "seed") && cinch_param_u64(&item, &number))
            params.seed = number;
        else if (cinch_param_is(&item, "round") &&
                 (choice = cinch_param_choice(&item, rounds, 2)) >= 0)
            params.stochastic = (uint32_t)choice;
        else
            return accepted;
    }
    memcpy(out, &params, sizeof params);
    return NULL;
}

static size_t block_size(const void *params) {
    return ((const cinch_int8_params *)params)->block;
}

static size_t bound(const void *params, size_t count) {
    return count + 4 * cinch_int8_blocks(count, block_size(params));
}

/* Half a step, a whole one for random rounding, and room for the roundings of 127/A, A/127 and two
 * products. What is sent as zero is off by itself. */
static float step_bound(const void *params, float abs_max) {
    if (!(abs_max <= FLT_MAX)) return cinch_bits_float(CINCH_INF_BITS);
    if (abs_max < 0x1p-118f) return abs_max;
    float step = abs_max / (((const cinch_int8_params *)params)->stochastic ? 127.0f : 254.0f);
    return step + abs_max * 0x1p-21f;
}

static size_t encode(const void *params, const cinchCodecSite_t *site, const void *state,
                     const float *src, float *residual, size_t count, void *wire,
                     uint64_t *nonfinite) {
    (void)state;
    const cinch_int8_params *p = params;
    cinch_int8_random random = {.index = site->offset};
    if (p->stochastic) random.key = cinch_int8_key(p->seed, site);
    unsigned char *codes = wire;
    cinch_codec_kernels_get()->int8_encode(p, &random, src, residual, count, codes, codes + count,
                                           nonfinite);
    return bound(params, count);
}

static int decode_add(const void *params, int n, const void *const *wire, const size_t *bytes,
                      size_t count, size_t first, size_t len, const float *init, float *dst) {
    for (int j = 0; j < n; j++)
        if (bytes[j] != bound(params, count)) return -1;
    cinch_codec_kernels_get()->int8_decode_add(((const cinch_int8_params *)params)->block, n, wire,
                                               count, first, len, init, dst);
    return 0;
}

static int decode(const void *params, const void *wire, size_t bytes, size_t count, size_t first,
                  size_t len, float *dst) {
    return decode_add(params, 1, &wire, &bytes, count, first, len, NULL, dst);
}

const cinchCodec_t cinch_codec_int8 = {
    .size = sizeof(cinchCodec_t),
    .abi = CINCH_CODEC_ABI,
    .flags = CINCH_CODEC_FIXED_SIZE | CINCH_CODEC_DETERMINISTIC | CINCH_CODEC_EF,
    .name = "int8",
    .parse = parse,
    .granule = block_size,
    .bound = bound,
    .block = block_size,
    .step_bound = step_bound,
    .encode = encode,
    .decode = decode,
    .decode_add = decode_add,
};

/* SPDX-License-Identifier: Apache-2.0 */
/* The bf16 codec: every element rounded to 16 bits; reference kernels. */
#include "compress/codec_kernels.h"

static uint16_t round_to_bf16(float value) {
    uint32_t bits = cinch_float_bits(value);
    if ((bits & CINCH_ABS_BITS) > CINCH_INF_BITS) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void cinch_bf16_encode_reference(const float *src, float *residual, size_t count,
                                 unsigned char *wire, uint64_t *nonfinite) {
    for (size_t i = 0; i < count; i++) {
        float v = residual ? src[i] + residual[i] : src[i];
        uint16_t half = round_to_bf16(v);
        memcpy(wire + 2 * i, &half, 2);
        if ((half & 0x7f80) == 0x7f80)
            ++*nonfinite;
        else if (residual)
            residual[i] = v - cinch_bits_float((uint32_t)half << 16);
    }
}

void cinch_bf16_decode_add_reference(int n, const void *const *wire, size_t first, size_t len,
                                     const float *init, float *dst) {
    for (int j = 0; j < n; j++) {
        const unsigned char *in = (const unsigned char *)wire[j] + 2 * first;
        const float *base = j ? dst : init;
        for (size_t i = 0; i < len; i++) {
            uint16_t half;
            memcpy(&half, in + 2 * i, 2);
            float value = cinch_bits_float((uint32_t)half << 16);
            dst[i] = base ? base[i] + value : value;
        }
    }
}

static const char *parse(const char *text, void *params) {
    (void)params;
    return text && *text ? "no parameter" : NULL;
}

static size_t one(const void *params) {
    (void)params;
    return 1;
}

static size_t bound(const void *params, size_t count) {
    (void)params;
    return 2 * count;
}

/* Half a unit in the last of 8 bits; a magnitude that rounds to Inf is off by Inf. */
static float step_bound(const void *params, float abs_max) {
    (void)params;
    if (!(abs_max < 0x1.ffp127f)) return cinch_bits_float(CINCH_INF_BITS);
    float step = abs_max * 0x1p-8f;
    return step > 0x1p-134f ? step : 0x1p-134f;
}

static size_t encode(const void *params, const cinchCodecSite_t *site, const void *state,
                     const float *src, float *residual, size_t count, void *wire,
                     uint64_t *nonfinite) {
    (void)params, (void)site, (void)state;
    cinch_codec_kernels_get()->bf16_encode(src, residual, count, wire, nonfinite);
    return 2 * count;
}

static int decode_add(const void *params, int n, const void *const *wire, const size_t *bytes,
                      size_t count, size_t first, size_t len, const float *init, float *dst) {
    (void)params;
    for (int j = 0; j < n; j++)
        if (bytes[j] != 2 * count) return -1;
    cinch_codec_kernels_get()->bf16_decode_add(n, wire, first, len, init, dst);
    return 0;
}

static int decode(const void *params, const void *wire, size_t bytes, size_t count, size_t first,
                  size_t len, float *dst) {
    return decode_add(params, 1, &wire, &bytes, count, first, len, NULL, dst);
}

const cinchCodec_t cinch_codec_bf16 = {
    .size = sizeof(cinchCodec_t),
    .abi = CINCH_CODEC_ABI,
    .flags = CINCH_CODEC_FIXED_SIZE | CINCH_CODEC_DETERMINISTIC | CINCH_CODEC_EF,
    .name = "bf16",
    .parse = parse,
    .granule = one,
    .bound = bound,
    .block = one,
    .step_bound = step_bound,
    .encode = encode,
    .decode = decode,
    .decode_add = decode_add,
};

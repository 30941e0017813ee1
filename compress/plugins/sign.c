/* SPDX-License-Identifier: Apache-2.0 */
/* An example plug-in: of every element its sign, and per block the mean magnitude.
 *
 * A block of 1024 elements becomes 132 bytes, 31 times less. Alone that is too coarse to train
 * with; it wants error feedback, which the library keeps for codecs that do not: CINCH_CODEC=sign
 * has it on. block=N sets the block, a multiple of 8 up to 65536.
 *
 * Bytes of a segment: one fp32 scale per block, then one bit per element, the lowest bit of a byte
 * first, 1 for negative. A block with NaN or Inf has a NaN as its scale and decodes as NaN. */
#include <float.h>
#include <string.h>

#include "cinch/codec.h"

typedef struct sign_params {
    uint32_t block;
} sign_params;

static const char *sign_parse(const char *text, void *out) {
    static const char accepted[] = "block=N (a multiple of 8 from 8 to 65536)";
    sign_params *params = out;
    params->block = 1024;
    if (!text || !*text) return NULL;
    if (strncmp(text, "block=", 6) || strlen(text) < 7 || strlen(text) > 11) return accepted;
    params->block = 0;
    for (const char *digit = text + 6; *digit; digit++) {
        if (*digit < '0' || *digit > '9') return accepted;
        params->block = params->block * 10 + (uint32_t)(*digit - '0');
    }
    return params->block >= 8 && params->block <= 65536 && params->block % 8 == 0 ? NULL : accepted;
}

static size_t sign_granule(const void *params) {
    return ((const sign_params *)params)->block;
}

static size_t scale_bytes(const void *params, size_t count) {
    size_t block = sign_granule(params);
    return 4 * (count / block + (count % block != 0));
}

static size_t sign_bound(const void *params, size_t count) {
    return scale_bytes(params, count) + count / 8 + (count % 8 != 0);
}

/* The mean is taken in double, in order, so it is the same on every machine. */
static float mean_magnitude(const float *src, size_t len) {
    double sum = 0;
    for (size_t i = 0; i < len; i++) sum += src[i] < 0 ? -(double)src[i] : (double)src[i];
    return (float)(sum / (double)len);
}

static size_t sign_encode(const void *params, const cinchCodecSite_t *site, const void *state,
                          const float *src, float *residual, size_t count, void *wire,
                          uint64_t *nonfinite) {
    (void)site, (void)state, (void)residual;
    size_t block = sign_granule(params), bytes = sign_bound(params, count);
    unsigned char *scales = wire, *bits = scales + scale_bytes(params, count);
    memset(wire, 0, bytes);
    for (size_t at = 0; at < count; at += block, scales += 4) {
        size_t len = count - at < block ? count - at : block;
        float scale = mean_magnitude(src + at, len);
        if (!(scale <= FLT_MAX)) {
            uint32_t nan = 0x7fc00000u;
            memcpy(scales, &nan, 4);
            ++*nonfinite;
            continue;
        }
        memcpy(scales, &scale, 4);
        for (size_t i = at; i < at + len; i++)
            bits[i / 8] = (unsigned char)(bits[i / 8] | (src[i] < 0) << i % 8);
    }
    return bytes;
}

static int sign_decode(const void *params, const void *wire, size_t bytes, size_t count,
                       size_t first, size_t len, float *dst) {
    size_t block = sign_granule(params);
    const unsigned char *scales = wire, *bits = scales + scale_bytes(params, count);
    if (bytes != sign_bound(params, count)) return -1;
    for (size_t i = 0; i < len; i++) {
        size_t at = first + i;
        float scale;
        memcpy(&scale, scales + 4 * (at / block), 4);
        dst[i] = bits[at / 8] >> at % 8 & 1 ? -scale : scale;
    }
    return 0;
}

static const cinchCodec_t sign_codec = {
    .size = sizeof(cinchCodec_t),
    .abi = CINCH_CODEC_ABI,
    .flags = CINCH_CODEC_FIXED_SIZE | CINCH_CODEC_DETERMINISTIC | CINCH_CODEC_EF_DEFAULT,
    .name = "sign",
    .parse = sign_parse,
    .granule = sign_granule,
    .bound = sign_bound,
    .encode = sign_encode,
    .decode = sign_decode,
};

/* What the library looks up; visible though everything else is hidden. */
__attribute__((visibility("default"))) const cinchCodec_t *cinchCodec(uint32_t abi);

const cinchCodec_t *cinchCodec(uint32_t abi) {
    return abi == CINCH_CODEC_ABI ? &sign_codec : NULL;
}

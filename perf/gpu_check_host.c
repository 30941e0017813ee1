/* SPDX-License-Identifier: Apache-2.0 */
#include "perf/gpu_check_host.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "compress/codec.h"
#include "compress/codec_kernels.h"
#include "compress/dtype.h"
#include "compress/reduce.h"

#define TILE 4096

/* Random elements are drawn one by one up to here, and repeat from here on, out of step with blocks
 * and segments: drawing all would take most of the check's time. */
#define PERIOD ((size_t)4194319)

static uint32_t random32(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32) ^ (uint32_t)(*state >> 45);
}

static float draw(int kind, uint64_t *s) {
    uint32_t a = random32(s), b = random32(s);
    float g = (float)(int16_t)a + (float)(int16_t)(a >> 16) + (float)(int16_t)b;
    g *= 0x1p-15f;
    if (kind == GPU_HEAVY) {
        g = g * g * g * (b >> 24 ? 1.0f : 300.0f);
        if ((b >> 16 & 0xff) == 1) g *= 0x1p-125f;
    }
    if (kind == GPU_NONFINITE && (b >> 16 & 0x3ff) == 2) g = cinch_bits_float(a);
    if (kind == GPU_NONFINITE && b >> 20 == 3) g = b & 1 ? NAN : b & 2 ? INFINITY : -INFINITY;
    return g;
}

void gpu_host_fill(void *out, cinchDataType_t dtype, size_t count, int kind, uint64_t seed) {
    uint64_t s = seed * 977 + (uint64_t)kind;
    size_t size = cinch_dtype_size(dtype);
    size_t drawn = count < PERIOD ? count : PERIOD;
    float tile[TILE];
    for (size_t at = 0; at < drawn; at += TILE) {
        size_t n = drawn - at < TILE ? drawn - at : TILE;
        if (!cinch_dtype_is_float(dtype)) {
            for (size_t i = 0; i < n * size; i++)
                ((unsigned char *)out)[at * size + i] = (unsigned char)random32(&s);
            continue;
        }
        for (size_t i = 0; i < n; i++) tile[i] = draw(kind, &s);
        if (dtype == cinchFloat64)
            for (size_t i = 0; i < n; i++) ((double *)out)[at + i] = (double)tile[i] * 1.1;
        else
            cinch_narrow((char *)out + at * size, dtype, tile, n);
    }
    for (size_t at = drawn; at < count; at += PERIOD) {
        size_t n = count - at < PERIOD ? count - at : PERIOD;
        memcpy((char *)out + at * size, out, n * size);
    }
}

bool gpu_host_equal(const void *got, const void *want, cinchDataType_t dtype, size_t count) {
    size_t size = cinch_dtype_size(dtype);
    float a[TILE], b[TILE];
    if (memcmp(got, want, count * size) == 0) return true;
    if (!cinch_dtype_is_float(dtype) || dtype == cinchFloat64) return false;
    for (size_t at = 0; at < count; at += TILE) {
        size_t n = count - at < TILE ? count - at : TILE;
        cinch_widen(a, (const char *)got + at * size, dtype, n);
        cinch_widen(b, (const char *)want + at * size, dtype, n);
        for (size_t i = 0; i < n; i++)
            if (cinch_float_bits(a[i]) != cinch_float_bits(b[i]) && !(isnan(a[i]) && isnan(b[i])))
                return false;
    }
    return true;
}

void gpu_host_reduce(cinchDataType_t dtype, cinchRedOp_t op, void *dst, const void *const *src,
                     int nsrc, size_t count, int avg_n) {
    cinch_reduce_kernel(dtype, op)(&dst, 1, src, nsrc, count, avg_n, 0);
}

void gpu_host_premul(cinchDataType_t dtype, void *dst, const void *src, size_t count,
                     const void *scalar) {
    cinch_premul(dst, src, dtype, count, scalar);
}

uint64_t gpu_host_int8_key(uint64_t seed) {
    return cinch_mix64(cinch_mix64(cinch_mix64(seed + 0x9e3779b97f4a7c15u)));
}

/* The codec, and room to work in. */
static bool begin(const char *spec, cinchDataType_t dtype, size_t count, cinch_codec *codec,
                  void **scratch) {
    char why[512];
    if (!cinch_codec_parse(spec, codec, why, sizeof why)) {
        fprintf(stderr, "gpu_check: %s: %s\n", spec, why);
        return false;
    }
    size_t bytes = cinch_codec_scratch(codec, dtype, count);
    *scratch = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!*scratch) fprintf(stderr, "gpu_check: no memory for %zu bytes\n", bytes);
    return *scratch != NULL;
}

bool gpu_host_encode_to(const char *spec, cinchDataType_t dtype, const void *src, float *residual,
                        size_t count, void *wire, uint64_t *nonfinite, size_t *bytes) {
    const cinchCodecSite_t site = {0};
    cinch_codec codec;
    void *scratch;
    if (!begin(spec, dtype, count, &codec, &scratch)) return false;
    *bytes = cinch_codec_encode(&codec, &site, NULL, dtype, src, residual, count, wire, nonfinite,
                                scratch);
    free(scratch);
    return true;
}

bool gpu_host_encode(const char *spec, cinchDataType_t dtype, const void *src, float *residual,
                     size_t count, void *wire, uint64_t *nonfinite) {
    size_t bytes;
    return gpu_host_encode_to(spec, dtype, src, residual, count, wire, nonfinite, &bytes);
}

bool gpu_host_sum_of(const char *spec, const void *const *term, uint64_t plain, int n,
                     const size_t *bytes, cinchDataType_t src_dtype, cinchDataType_t dst_dtype,
                     void *dst, size_t count, int avg_n) {
    cinch_codec codec;
    cinch_codec_term terms[64] = {{0}};
    void *scratch;
    if (!begin(spec, src_dtype, count, &codec, &scratch)) return false;
    for (int j = 0; j < n && j < 64; j++) {
        if (plain >> j & 1)
            terms[j].plain = term[j];
        else
            terms[j] = (cinch_codec_term){.wire = term[j], .bytes = bytes[j]};
    }
    cinchResult_t result =
        cinch_codec_sum(&codec, terms, n, src_dtype, dst_dtype, dst, count, avg_n, scratch);
    free(scratch);
    if (result != cinchSuccess) fprintf(stderr, "gpu_check: %s: %s\n", spec, cinch_last_error());
    return result == cinchSuccess;
}

bool gpu_host_sum(const char *spec, const void *const *term, uint64_t plain, int n, size_t bytes,
                  cinchDataType_t src_dtype, cinchDataType_t dst_dtype, void *dst, size_t count,
                  int avg_n) {
    size_t all[64];
    for (int j = 0; j < 64; j++) all[j] = bytes;
    return gpu_host_sum_of(spec, term, plain, n, all, src_dtype, dst_dtype, dst, count, avg_n);
}

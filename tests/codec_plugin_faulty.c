/* SPDX-License-Identifier: Apache-2.0 */
/* A codec plug-in with the fault that CINCH_TEST_PLUGIN_FAULT names, which the loader must refuse;
 * without one, a codec that sends floats as they are. */
#include <stdlib.h>
#include <string.h>

#include "cinch/codec.h"

static const char *parse(const char *text, void *params) {
    (void)params;
    return text && *text ? "no parameter" : NULL;
}

static size_t granule(const void *params) {
    (void)params;
    const char *fault = getenv("CINCH_TEST_PLUGIN_FAULT");
    return fault && !strcmp(fault, "granule") ? 0 : 1;
}

static size_t bound(const void *params, size_t count) {
    (void)params;
    return 4 * count;
}

static size_t encode(const void *params, const cinchCodecSite_t *site, const void *state,
                     const float *src, float *residual, size_t count, void *wire,
                     uint64_t *nonfinite) {
    (void)params, (void)site, (void)state, (void)residual, (void)nonfinite;
    memcpy(wire, src, 4 * count);
    return 4 * count;
}

static int decode(const void *params, const void *wire, size_t bytes, size_t count, size_t first,
                  size_t len, float *dst) {
    (void)params;
    if (bytes != 4 * count) return -1;
    memcpy(dst, (const char *)wire + 4 * first, 4 * len);
    return 0;
}

static void prepare(const void *params, const cinchCodecSite_t *site, const float *src,
                    const float *residual, size_t count, void *state) {
    (void)params, (void)site, (void)src, (void)residual, (void)count, (void)state;
}

__attribute__((visibility("default"))) const cinchCodec_t *cinchCodec(uint32_t abi);

const cinchCodec_t *cinchCodec(uint32_t abi) {
    static cinchCodec_t table;
    const char *fault = getenv("CINCH_TEST_PLUGIN_FAULT");
    if (!fault) fault = "";
    table = (cinchCodec_t){
        .size = sizeof table,
        .abi = abi,
        .flags = CINCH_CODEC_FIXED_SIZE | CINCH_CODEC_DETERMINISTIC,
        .name = "asis",
        .parse = parse,
        .granule = granule,
        .bound = bound,
        .encode = encode,
        .decode = decode,
    };
    if (!strcmp(fault, "null")) return NULL;
    if (!strcmp(fault, "size")) table.size = 16;
    if (!strcmp(fault, "abi")) table.abi = abi + 1;
    if (!strcmp(fault, "no name")) table.name = NULL;
    if (!strcmp(fault, "bad name")) table.name = "as:is";
    if (!strcmp(fault, "long name")) table.name = "a-name-of-more-than-31-characters";
    if (!strcmp(fault, "int8")) table.name = "int8";
    if (!strcmp(fault, "none")) table.name = "none";
    if (!strcmp(fault, "sign")) table.name = "sign";
    if (!strcmp(fault, "flags")) table.flags |= 1u << 20;
    if (!strcmp(fault, "random")) table.flags &= ~CINCH_CODEC_DETERMINISTIC;
    if (!strcmp(fault, "decode")) table.decode = NULL;
    if (!strcmp(fault, "prepare")) table.prepare = prepare;
    return &table;
}

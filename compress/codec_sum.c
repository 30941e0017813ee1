/* SPDX-License-Identifier: Apache-2.0 */
/* Codecs over any float dtype: encode with error feedback for codecs that have none of their own,
 * and sums of encoded and plain terms, tile by tile so that partial sums stay in the cache. */
#include <string.h>

#include "base/status.h"
#include "compress/codec.h"
#include "compress/codec_kernels.h"
#include "compress/dtype.h"

#define TILE 4096    /* elements: 16 KiB of fp32 */
#define RUN_TERMS 16 /* encoded terms that are decoded in one pass */

/* A whole number of granules. */
static size_t tile_len(const cinch_codec *codec) {
    size_t granule = cinch_codec_granule(codec);
    return granule >= TILE ? granule : TILE - TILE % granule;
}

/* A tile's room in scratch, in elements. */
static size_t tile_room(const cinch_codec *codec, size_t count) {
    size_t tile = tile_len(codec);
    return tile > count ? (count + 15) / 16 * 16 : tile;
}

/* Two tiles, then a whole segment, which is used where the source is not fp32, has odd alignment,
 * or must be added to its residual. */
size_t cinch_codec_scratch(const cinch_codec *codec, cinchDataType_t dtype, size_t count) {
    (void)dtype;
    return (2 * tile_room(codec, count) + (codec->vt ? count : 0)) * sizeof(float);
}

static float *whole_scratch(const cinch_codec *codec, void *scratch, size_t count) {
    return (float *)scratch + 2 * tile_room(codec, count);
}

/* Whether the elements can be used as floats where they are. */
static bool are_floats(const void *elements, cinchDataType_t dtype) {
    return dtype == cinchFloat32 && (uintptr_t)elements % _Alignof(float) == 0;
}

/* src as fp32, in place or widened. */
static const float *as_floats(const cinch_codec *codec, cinchDataType_t dtype, const void *src,
                              size_t count, void *scratch) {
    if (are_floats(src, dtype)) return src;
    float *wide = whole_scratch(codec, scratch, count);
    cinch_widen(wide, src, dtype, count);
    return wide;
}

void cinch_codec_prepare(const cinch_codec *codec, const cinchCodecSite_t *site,
                         cinchDataType_t dtype, const void *src, const float *residual,
                         size_t count, void *state, void *scratch) {
    if (!cinch_codec_prepare_bytes(codec, count)) return;
    codec->vt->prepare(codec->params, site, as_floats(codec, dtype, src, count, scratch), residual,
                       count, state);
}

static bool is_finite(float v) {
    return (cinch_float_bits(v) & CINCH_ABS_BITS) < CINCH_INF_BITS;
}

/* Error feedback for a codec without it: encodes the sum, decodes it again, keeps the difference.
 * Where either is not finite the old residual stays. */
static size_t encode_feedback(const cinch_codec *codec, const cinchCodecSite_t *site,
                              const void *state, const float *src, float *residual, size_t count,
                              void *wire, uint64_t *nonfinite, void *scratch) {
    const cinchCodec_t *vt = codec->vt;
    float *sum = whole_scratch(codec, scratch, count), *sent = scratch;
    size_t tile = tile_len(codec);
    for (size_t i = 0; i < count; i++) sum[i] = src[i] + residual[i];
    size_t bytes = vt->encode(codec->params, site, state, sum, NULL, count, wire, nonfinite);
    for (size_t at = 0; at < count; at += tile) {
        size_t len = count - at < tile ? count - at : tile;
        if (vt->decode(codec->params, wire, bytes, count, at, len, sent)) break;
        for (size_t i = 0; i < len; i++)
            if (is_finite(sent[i]) && is_finite(sum[at + i]))
                residual[at + i] = sum[at + i] - sent[i];
    }
    return bytes;
}

size_t cinch_codec_encode(const cinch_codec *codec, const cinchCodecSite_t *site, const void *state,
                          cinchDataType_t dtype, const void *src, float *residual, size_t count,
                          void *wire, uint64_t *nonfinite, void *scratch) {
    if (count == 0) return 0;
    const float *in = as_floats(codec, dtype, src, count, scratch);
    if (residual && !(codec->vt->flags & CINCH_CODEC_EF))
        return encode_feedback(codec, site, state, in, residual, count, wire, nonfinite, scratch);
    return codec->vt->encode(codec->params, site, state, in, residual, count, wire, nonfinite);
}

/* One tile of a sum under way. */
typedef struct tile {
    size_t first, len, count;
    float *sum;        /* where partial sums are kept */
    const float *have; /* the sum so far, at sum or still at a source; NULL: none yet */
    float *spare;      /* a second tile */
} tile;

static void add(float *dst, const float *a, const float *b, size_t len) {
    for (size_t i = 0; i < len; i++) dst[i] = a[i] + b[i];
}

static void add_plain(tile *t, const void *plain, cinchDataType_t dtype) {
    const char *from = (const char *)plain + t->first * cinch_dtype_size(dtype);
    const float *in = (const void *)from;
    if (!are_floats(from, dtype)) {
        float *wide = t->have ? t->spare : t->sum;
        cinch_widen(wide, from, dtype, t->len);
        in = wide;
    }
    if (t->have) {
        add(t->sum, t->have, in, t->len);
        in = t->sum;
    }
    t->have = in;
}

/* Adds the encoded terms from term[0] on, up to the next plain one; returns how many, -1 where
 * one is malformed. */
static int add_encoded(const cinch_codec *codec, tile *t, const cinch_codec_term *term, int nterm) {
    const cinchCodec_t *vt = codec->vt;
    const void *wire[RUN_TERMS];
    size_t bytes[RUN_TERMS];
    int n = 0;
    for (; n < nterm && n < RUN_TERMS && term[n].wire; n++) {
        wire[n] = term[n].wire;
        bytes[n] = term[n].bytes;
    }
    if (vt->decode_add) {
        if (vt->decode_add(codec->params, n, wire, bytes, t->count, t->first, t->len, t->have,
                           t->sum))
            return -1;
        t->have = t->sum;
        return n;
    }
    for (int j = 0; j < n; j++) {
        float *out = t->have ? t->spare : t->sum;
        if (vt->decode(codec->params, wire[j], bytes[j], t->count, t->first, t->len, out))
            return -1;
        if (t->have) add(t->sum, t->have, out, t->len);
        t->have = t->sum;
    }
    return n;
}

/* Multiplies by 1/n and leaves the tile at its place in dst. */
static void finish_tile(const tile *t, cinchDataType_t dtype, void *dst, int avg_n) {
    const float *sum = t->have;
    if (avg_n) {
        float factor = 1.0f / (float)avg_n;
        for (size_t i = 0; i < t->len; i++) t->sum[i] = sum[i] * factor;
        sum = t->sum;
    }
    char *out = (char *)dst + t->first * cinch_dtype_size(dtype);
    if ((const char *)sum != out) cinch_narrow(out, dtype, sum, t->len);
}

cinchResult_t cinch_codec_sum(const cinch_codec *codec, const cinch_codec_term *term, int nterm,
                              cinchDataType_t src_dtype, cinchDataType_t dst_dtype, void *dst,
                              size_t count, int avg_n, void *scratch) {
    size_t step = tile_len(codec);
    bool own_sum = !are_floats(dst, dst_dtype);
    for (int j = 1; j < nterm; j++) own_sum |= !term[j].wire && term[j].plain == dst;
    for (size_t at = 0; at < count; at += step) {
        tile t = {.first = at, .len = count - at < step ? count - at : step, .count = count};
        t.spare = (float *)scratch + tile_room(codec, count);
        t.sum = own_sum ? scratch : (float *)dst + at;
        for (int j = 0; j < nterm;) {
            if (!term[j].wire) {
                add_plain(&t, term[j++].plain, src_dtype);
                continue;
            }
            int done = add_encoded(codec, &t, term + j, nterm - j);
            if (done < 0)
                return cinch_fail(cinchRemoteError,
                                  "a peer's message is no %s encoding of %zu elements",
                                  codec->vt->name, count);
            j += done;
        }
        finish_tile(&t, dst_dtype, dst, avg_n);
    }
    return cinchSuccess;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The codec registry and a codec with its parameters. What codecs are: include/cinch/codec.h. */
#ifndef CINCH_COMPRESS_CODEC_H_
#define CINCH_COMPRESS_CODEC_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cinch/cinch.h"
#include "cinch/codec.h"

/* A codec ready for use. Plain data: copy it freely. vt NULL is "none". */
typedef struct cinch_codec {
    const cinchCodec_t *vt;
    bool ef;
    bool inplace; /* an all-gather in place may be compressed */
    _Alignas(16) unsigned char params[CINCH_CODEC_PARAM_BYTES];
} cinch_codec;

/* Reads "none", "int8", "topk:ratio=0.01,ef=0", ... On failure `why` (room bytes) says what is
 * wrong and what is accepted: a clause without the variable's name, which the caller puts before
 * it. "auto" is no codec: it is read before this is asked. */
bool cinch_codec_parse(const char *spec, cinch_codec *out, char *why, size_t room);

/* The i-th registered codec, built-ins first, then plug-ins; NULL past the end. */
const cinchCodec_t *cinch_codec_at(int i);

/* Loads plug-ins from a comma-separated list of paths; each once per process. */
cinchResult_t cinch_codec_load_plugins(const char *paths);

/* The calls below widen and narrow other dtypes (float, half, bfloat16) tile by tile, and keep
 * residuals for codecs without CINCH_CODEC_EF. `scratch`: cinch_codec_scratch(codec, dtype, count)
 * bytes, aligned to 64, with the largest count and the dtype of the source that it will see. */
size_t cinch_codec_scratch(const cinch_codec *codec, cinchDataType_t dtype, size_t count);

size_t cinch_codec_granule(const cinch_codec *codec);
size_t cinch_codec_bound(const cinch_codec *codec, size_t count);

/* Whether every encoding of count elements has exactly cinch_codec_bound(count) bytes. */
bool cinch_codec_fixed_size(const cinch_codec *codec);

/* For checks of a result: how many elements share a quantization step (0: the codec has none), and
 * the largest |error| of one encode in a block with that abs-max (NaN: the codec has no bound). */
size_t cinch_codec_block(const cinch_codec *codec);
float cinch_codec_step_bound(const cinch_codec *codec, float block_abs_max);

/* What some codecs must see before the first segment: the whole buffer or a rank's share, which
 * begins at site->offset. State for the segments' encode calls: prepare_bytes bytes, aligned to 16;
 * 0: the codec wants none, and prepare does nothing. */
size_t cinch_codec_prepare_bytes(const cinch_codec *codec, size_t count);
void cinch_codec_prepare(const cinch_codec *codec, const cinchCodecSite_t *site,
                         cinchDataType_t dtype, const void *src, const float *residual,
                         size_t count, void *state, void *scratch);

/* Encodes one segment; returns its bytes. residual: NULL or count floats. */
size_t cinch_codec_encode(const cinch_codec *codec, const cinchCodecSite_t *site, const void *state,
                          cinchDataType_t dtype, const void *src, float *residual, size_t count,
                          void *wire, uint64_t *nonfinite, void *scratch);

/* One term of a sum: an encoded segment (wire), or plain elements of the call's dtype (plain). */
typedef struct cinch_codec_term {
    const void *wire; /* NULL: plain */
    size_t bytes;     /* of wire */
    const void *plain;
} cinch_codec_term;

/* dst[i] = (term 0 + term 1 + ...)[i] * (avg_n ? 1/avg_n : 1), in fp32, in this order; rounded once
 * to dst_dtype. plain terms have src_dtype. dst is none of the plain terms, or exactly one of them
 * with dst_dtype == src_dtype.
 * RemoteError: a term is no encoding of count elements. */
cinchResult_t cinch_codec_sum(const cinch_codec *codec, const cinch_codec_term *term, int nterm,
                              cinchDataType_t src_dtype, cinchDataType_t dst_dtype, void *dst,
                              size_t count, int avg_n, void *scratch);

/* The kernels in use, for `cinch info`: "avx512", "avx2" or "reference". */
const char *cinch_codec_isa(void);

#endif

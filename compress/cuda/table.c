/* SPDX-License-Identifier: Apache-2.0 */
/* The table of compress/gpu.h above the CUDA kernels: codecs by their parameters, and more sources
 * than a launch takes. */
#include <string.h>

#include "base/status.h"
#include "compress/codec_kernels.h"
#include "compress/cuda/kernels.h"
#include "compress/dtype.h"
#include "compress/gpu.h"

/* ---- reductions ---- */

/* Whether a sum under way can be left in elements of that type: it loses nothing there. */
static bool keeps_sums(cinchDataType_t dtype) {
    return !cinch_dtype_is_float(dtype) || dtype == cinchFloat32 || dtype == cinchFloat64;
}

/* A destination in which a result under way harms none of the sources still to come, or -1. */
static int find_carrier(void *const *dst, int ndst, const void *const *src, int from, int nsrc) {
    for (int d = 0; d < ndst; d++) {
        bool free_of_sources = true;
        for (int s = from; s < nsrc && free_of_sources; s++) free_of_sources = src[s] != dst[d];
        if (free_of_sources) return d;
    }
    return -1;
}

/* All destinations, eight a launch: the others are copies of the first. */
static cinchResult_t reduce_into(const cinch_cuda_where *where, cinchDataType_t dtype,
                                 cinchRedOp_t op, void *const *dst, int ndst,
                                 const void *const *src, int nsrc, size_t count, int avg_n) {
    const int most = CINCH_CUDA_DESTINATIONS;
    CINCH_TRY(cinch_cuda_reduce(where, dtype, op, dst, ndst < most ? ndst : most, src, nsrc, count,
                                avg_n));
    for (int d = most; d < ndst; d += most) {
        const void *result = dst[0];
        CINCH_TRY(cinch_cuda_reduce(where, dtype, cinchMax, dst + d,
                                    ndst - d < most ? ndst - d : most, &result, 1, count, 0));
    }
    return cinchSuccess;
}

static cinchResult_t reduce(const cinch_gpu_where *at, cinchDataType_t dtype, cinchRedOp_t op,
                            void *const *dst, int ndst, const void *const *src, int nsrc,
                            size_t count, int avg_n) {
    const cinch_cuda_where where = {.stream = at->stream, .blocks = at->blocks};
    if (nsrc <= CINCH_CUDA_TERMS)
        return reduce_into(&where, dtype, op, dst, ndst, src, nsrc, count, avg_n);
    int carrier = find_carrier(dst, ndst, src, CINCH_CUDA_TERMS, nsrc);
    if (!keeps_sums(dtype) || carrier < 0)
        return cinch_fail(cinchInvalidArgument,
                          "a reduction of %d sources of %s on a GPU; %d are accepted, and more for "
                          "integers, float and double where a destination is none of the sources",
                          nsrc, cinch_dtype_name(dtype), CINCH_CUDA_TERMS);
    const void *some[CINCH_CUDA_TERMS] = {dst[carrier]};
    CINCH_TRY(
        cinch_cuda_reduce(&where, dtype, op, dst + carrier, 1, src, CINCH_CUDA_TERMS, count, 0));
    for (int s = CINCH_CUDA_TERMS; s < nsrc; s += CINCH_CUDA_TERMS - 1) {
        int n = nsrc - s < CINCH_CUDA_TERMS - 1 ? nsrc - s : CINCH_CUDA_TERMS - 1;
        memcpy(some + 1, src + s, (size_t)n * sizeof *some);
        if (s + n < nsrc)
            CINCH_TRY(
                cinch_cuda_reduce(&where, dtype, op, dst + carrier, 1, some, n + 1, count, 0));
        else
            CINCH_TRY(reduce_into(&where, dtype, op, dst, ndst, some, n + 1, count, avg_n));
    }
    return cinchSuccess;
}

static cinchResult_t premul(const cinch_gpu_where *at, cinchDataType_t dtype, void *dst,
                            const void *src, size_t count, const void *scalar) {
    const cinch_cuda_where where = {.stream = at->stream, .blocks = at->blocks};
    return cinch_cuda_premul(&where, dtype, dst, src, count, scalar);
}

/* ---- codecs ---- */

/* A codec's parameters, read. */
typedef struct known {
    enum { INT8, BF16, TOPK, UNKNOWN } kind;
    cinch_int8_params int8;
    cinch_topk_params topk;
} known;

static known look_at(const cinch_codec *codec) {
    known k = {.kind = UNKNOWN};
    if (codec->vt == &cinch_codec_int8) {
        k.kind = INT8;
        memcpy(&k.int8, codec->params, sizeof k.int8);
    } else if (codec->vt == &cinch_codec_topk) {
        k.kind = TOPK;
        memcpy(&k.topk, codec->params, sizeof k.topk);
    } else if (codec->vt == &cinch_codec_bf16) {
        k.kind = BF16;
    }
    return k;
}

static const char *supports(const cinch_codec *codec) {
    return look_at(codec).kind == UNKNOWN ? "only the built-in codecs have kernels for a GPU"
                                          : NULL;
}

static cinchResult_t refuse(const cinch_codec *codec) {
    return cinch_fail(cinchInvalidArgument, "%s on a GPU: %s", codec->vt ? codec->vt->name : "none",
                      supports(codec));
}

static size_t wire_bytes(const cinch_codec *codec, size_t count) {
    return cinch_codec_fixed_size(codec) ? cinch_codec_bound(codec, count) : 0;
}

static size_t state_bytes(const cinch_codec *codec, size_t count) {
    known k = look_at(codec);
    return k.topk.global ? cinch_cuda_topk_state_bytes(k.topk.ratio, count) : 0;
}

static cinchResult_t prepare(const cinch_gpu_where *at, const cinch_codec *codec,
                             const cinchCodecSite_t *site, cinchDataType_t dtype, const void *src,
                             const float *residual, size_t count, void *state) {
    const cinch_cuda_where where = {.stream = at->stream, .blocks = at->blocks};
    known k = look_at(codec);
    if (!k.topk.global) return cinchSuccess;
    return cinch_cuda_topk_prepare(&where, k.topk.ratio, site->offset, dtype, src, residual, count,
                                   state);
}

static cinchResult_t prepare_part(const cinch_gpu_where *at, const cinch_codec *codec,
                                  const cinchCodecSite_t *site, cinchDataType_t dtype,
                                  const void *src, const float *residual, size_t count,
                                  const void *whole, void *state) {
    const cinch_cuda_where where = {.stream = at->stream, .blocks = at->blocks};
    if (!look_at(codec).topk.global) return cinchSuccess;
    return cinch_cuda_topk_prepare_part(&where, whole, site->offset, dtype, src, residual, count,
                                        state);
}

static cinch_cuda_int8 int8_at(const known *k, const cinchCodecSite_t *site) {
    cinch_cuda_int8 p = {.block = k->int8.block, .stochastic = k->int8.stochastic};
    p.index = site->offset;
    if (p.stochastic) p.key = cinch_int8_key(k->int8.seed, site);
    return p;
}

static cinchResult_t encode(const cinch_gpu_where *at, const cinch_codec *codec,
                            const cinchCodecSite_t *site, const void *state, cinchDataType_t dtype,
                            const void *src, float *residual, size_t count, void *wire,
                            cinch_gpu_counts *counts) {
    const cinch_cuda_where where = {.stream = at->stream, .blocks = at->blocks};
    known k = look_at(codec);
    if (supports(codec)) return refuse(codec);
    if (k.topk.global && !state && count)
        return cinch_fail(cinchInvalidArgument,
                          "topk with select=global encodes on a GPU only after "
                          "prepare");
    if (k.topk.global)
        return cinch_cuda_topk_encode_global(&where, state, site->offset, dtype, src, residual,
                                             count, wire, &counts->nonfinite);
    if (k.kind == INT8) {
        cinch_cuda_int8 p = int8_at(&k, site);
        return cinch_cuda_int8_encode(&where, &p, dtype, src, residual, count, wire,
                                      &counts->nonfinite);
    }
    if (k.kind == BF16)
        return cinch_cuda_bf16_encode(&where, dtype, src, residual, count, wire,
                                      &counts->nonfinite);
    return cinch_cuda_topk_encode(&where, k.topk.ratio, dtype, src, residual, count, wire,
                                  &counts->nonfinite);
}

/* ---- sums ---- */

/* As a launch takes them. */
typedef struct batch {
    cinch_cuda_terms terms;
    size_t bytes[CINCH_CUDA_TERMS];
} batch;

static cinchResult_t add_terms(batch *b, const cinch_codec *codec, const cinch_gpu_term *term,
                               int n, size_t count) {
    size_t fixed = wire_bytes(codec, count);
    cinch_cuda_terms *out = &b->terms;
    for (int j = 0; j < n; j++, out->n++) {
        b->bytes[out->n] = term[j].bytes;
        out->at[out->n] = term[j].wire ? term[j].wire : term[j].plain;
        if (!term[j].wire) out->plain[out->n / 64] |= (uint64_t)1 << out->n % 64;
        if (term[j].wire && fixed && term[j].bytes != fixed)
            return cinch_fail(cinchRemoteError,
                              "a peer's message of %zu bytes is no %s encoding of %zu elements",
                              term[j].bytes, codec->vt->name, count);
    }
    return cinchSuccess;
}

static cinchResult_t sum_once(const cinch_cuda_where *where, const cinch_codec *codec,
                              const batch *b, cinchDataType_t src_dtype, cinchDataType_t dst_dtype,
                              void *dst, size_t count, int avg_n, cinch_gpu_counts *counts) {
    const cinch_cuda_terms *terms = &b->terms;
    known k = look_at(codec);
    if (supports(codec)) return refuse(codec);
    if (k.topk.global)
        return cinch_cuda_topk_sum_global(where, terms, b->bytes, src_dtype, dst_dtype, dst, count,
                                          avg_n, &counts->malformed);
    if (k.kind == INT8)
        return cinch_cuda_int8_sum(where, k.int8.block, terms, src_dtype, dst_dtype, dst, count,
                                   avg_n);
    if (k.kind == BF16)
        return cinch_cuda_bf16_sum(where, terms, src_dtype, dst_dtype, dst, count, avg_n);
    return cinch_cuda_topk_sum(where, k.topk.ratio, terms, src_dtype, dst_dtype, dst, count, avg_n,
                               &counts->malformed);
}

static cinchResult_t too_many(const cinch_codec *codec, int n, cinchDataType_t dtype) {
    return cinch_fail(cinchInvalidArgument,
                      "a sum of %d terms of %s into %s on a GPU; %d are accepted, and more for "
                      "float where the destination is none of the terms",
                      n, codec->vt->name, cinch_dtype_name(dtype), CINCH_CUDA_TERMS);
}

/* Where a launch does not take all terms, the sum so far is a plain term of the next. */
static cinchResult_t sum(const cinch_gpu_where *at, const cinch_codec *codec,
                         const cinch_gpu_term *terms, int nterms, cinchDataType_t src_dtype,
                         cinchDataType_t dst_dtype, void *dst, size_t count, int avg_n,
                         cinch_gpu_counts *counts) {
    const cinch_cuda_where where = {.stream = at->stream, .blocks = at->blocks};
    const cinch_gpu_term so_far = {.plain = dst};
    for (int j = CINCH_CUDA_TERMS; j < nterms; j++)
        if (src_dtype != cinchFloat32 || dst_dtype != cinchFloat32 || terms[j].plain == dst)
            return too_many(codec, nterms, dst_dtype);
    for (int done = 0; done < nterms;) {
        batch part = {.terms.n = 0};
        if (done) CINCH_TRY(add_terms(&part, codec, &so_far, 1, count));
        int room = CINCH_CUDA_TERMS - part.terms.n, n = nterms - done < room ? nterms - done : room;
        CINCH_TRY(add_terms(&part, codec, terms + done, n, count));
        done += n;
        CINCH_TRY(sum_once(&where, codec, &part, src_dtype, dst_dtype, dst, count,
                           done == nterms ? avg_n : 0, counts));
    }
    return cinchSuccess;
}

static cinchResult_t measure(const cinch_gpu_where *at, const cinch_codec *codec, const void *wire,
                             size_t count, unsigned long long *bytes) {
    const cinch_cuda_where where = {.stream = at->stream, .blocks = at->blocks};
    if (!look_at(codec).topk.global)
        return cinch_fail(cinchInvalidArgument, "a message of %zu bytes needs no measuring",
                          wire_bytes(codec, count));
    return cinch_cuda_topk_measure(&where, wire, count, bytes);
}

static bool fuses(const cinch_codec *codec) {
    known k = look_at(codec);
    return k.kind == INT8 || k.kind == BF16;
}

_Static_assert(CINCH_GPU_FUSED_TERMS <= CINCH_CUDA_TERMS, "one launch takes them");

static cinchResult_t sum_encode(const cinch_gpu_where *at, const cinch_codec *codec,
                                const cinchCodecSite_t *site, const cinch_gpu_term *terms,
                                int nterms, cinchDataType_t src_dtype, float *residual,
                                size_t count, int avg_n, void *wire, cinchDataType_t dst_dtype,
                                void *dst, cinch_gpu_counts *counts) {
    const cinch_cuda_where where = {.stream = at->stream, .blocks = at->blocks};
    batch all = {.terms.n = 0};
    known k = look_at(codec);
    if (!fuses(codec))
        return cinch_fail(cinchInvalidArgument, "%s has no kernel that sums and encodes",
                          codec->vt ? codec->vt->name : "none");
    if (nterms > CINCH_CUDA_TERMS)
        return cinch_fail(cinchInvalidArgument,
                          "a sum of %d terms of %s, encoded again, on a GPU; %d are accepted",
                          nterms, codec->vt->name, CINCH_CUDA_TERMS);
    CINCH_TRY(add_terms(&all, codec, terms, nterms, count));
    if (k.kind == BF16)
        return cinch_cuda_bf16_sum_encode(&where, &all.terms, src_dtype, residual, count, avg_n,
                                          wire, dst_dtype, dst, &counts->nonfinite);
    cinch_cuda_int8 p = int8_at(&k, site);
    return cinch_cuda_int8_sum_encode(&where, &p, &all.terms, src_dtype, residual, count, avg_n,
                                      wire, dst_dtype, dst, &counts->nonfinite);
}

static const cinch_gpu table = {
    .reduce = reduce,
    .premul = premul,
    .supports = supports,
    .wire_bytes = wire_bytes,
    .state_bytes = state_bytes,
    .prepare = prepare,
    .prepare_part = prepare_part,
    .encode = encode,
    .sum = sum,
    .measure = measure,
    .fuses = fuses,
    .sum_encode = sum_encode,
};

const cinch_gpu *cinch_gpu_kernels(void) {
    return &table;
}

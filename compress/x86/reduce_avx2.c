/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions with AVX2: 32 bytes of each source at a time, accumulators in registers. */
#include <stdbool.h>
#include <string.h>

#include "compress/kernels.h"
#include "compress/x86/reduce_ops_avx2.h"

#define UNROLLED _Pragma("GCC unroll 8")

typedef enum { STORE_CACHED, STORE_FIRST_PAST, STORE_ALL_PAST } store_mode;

static ALWAYS_INLINE bool past_cache(store_mode mode, int d) {
    return mode == STORE_ALL_PAST || (mode == STORE_FIRST_PAST && d == 0);
}

static ALWAYS_INLINE __m256i load(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

static ALWAYS_INLINE void store(void *p, __m256i v, bool stream) {
    if (stream)
        _mm256_stream_si256((__m256i *)p, v);
    else
        _mm256_storeu_si256((__m256i *)p, v);
}

/* What a tile of `width` registers at p will want a few tiles later. */
static ALWAYS_INLINE void prefetch(const char *p, int width) {
    UNROLLED for (int k = 0; k < width; k += 2) _mm_prefetch(p + 1024 + 32 * k, _MM_HINT_T0);
}

/* A piece of 16, 8, 4, 2 or 1 bytes, zeros above it. */
static ALWAYS_INLINE __m256i load_piece(const void *p, size_t bytes) {
    uint64_t v = 0;
    if (bytes == 16) return _mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)p));
    memcpy(&v, p, bytes);
    return _mm256_zextsi128_si256(_mm_cvtsi64_si128((int64_t)v));
}

static ALWAYS_INLINE void store_piece(void *p, __m256i r, size_t bytes) {
    uint64_t v = (uint64_t)_mm_cvtsi128_si64(_mm256_castsi256_si128(r));
    if (bytes == 16)
        _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(r));
    else
        memcpy(p, &v, bytes);
}

static ALWAYS_INLINE finish_args make_args(int avg_n) {
    finish_args args = {1.0f, 1.0, avg_n};
    if (avg_n) {
        args.f = 1.0f / (float)avg_n;
        args.d = 1.0 / (double)avg_n;
    }
    return args;
}

/* Which destinations are stored past the cache, and in *head the bytes after which those are
 * aligned for it; they must then be whole elements. */
static ALWAYS_INLINE store_mode stream_head(void *const *dst, int ndst, size_t size, size_t bytes,
                                            unsigned flags, size_t *head) {
    if (!flags || bytes < CINCH_STREAM_MIN_BYTES) return STORE_CACHED;
    store_mode mode = flags & CINCH_REDUCE_STREAM ? STORE_ALL_PAST : STORE_FIRST_PAST;
    size_t first = -(uintptr_t)dst[0] & 31;
    for (int d = 1; mode == STORE_ALL_PAST && d < ndst; d++)
        if ((-(uintptr_t)dst[d] & 31) != first) return STORE_CACHED;
    if (first % size) return STORE_CACHED;
    *head = first;
    return mode;
}

#define TYPE int8
#define SIZE 1
#define UNROLL 4
#include "compress/x86/reduce_loop_avx2.h"

#define TYPE uint8
#define SIZE 1
#define UNROLL 4
#include "compress/x86/reduce_loop_avx2.h"

#define TYPE int32
#define SIZE 4
#define UNROLL 4
#include "compress/x86/reduce_loop_avx2.h"

#define TYPE uint32
#define SIZE 4
#define UNROLL 4
#include "compress/x86/reduce_loop_avx2.h"

#define TYPE int64
#define SIZE 8
#define UNROLL 4
#include "compress/x86/reduce_loop_avx2.h"

#define TYPE uint64
#define SIZE 8
#define UNROLL 4
#include "compress/x86/reduce_loop_avx2.h"

#define TYPE half
#define SIZE 2
#define UNROLL 2
#include "compress/x86/reduce_loop_avx2.h"

#define TYPE float
#define SIZE 4
#define UNROLL 4
#include "compress/x86/reduce_loop_avx2.h"

#define TYPE double
#define SIZE 8
#define UNROLL 4
#include "compress/x86/reduce_loop_avx2.h"

#define TYPE bfloat16
#define SIZE 2
#define UNROLL 2
#include "compress/x86/reduce_loop_avx2.h"

#define TYPE f8e4m3
#define SIZE 1
#define UNROLL 1
#include "compress/x86/reduce_loop_avx2.h"

#define TYPE f8e5m2
#define SIZE 1
#define UNROLL 1
#include "compress/x86/reduce_loop_avx2.h"

static void copy_stream(void *dst, const void *src, size_t bytes) {
    size_t at = -(uintptr_t)dst & 31;
    const char *from = src;
    char *to = dst;
    if (at > bytes) at = bytes;
    memcpy(to, from, at);
    for (; at + 128 <= bytes; at += 128) {
        _mm_prefetch(from + at + 512, _MM_HINT_NTA);
        _mm_prefetch(from + at + 576, _MM_HINT_NTA);
        __m256i a = load(from + at), b = load(from + at + 32);
        __m256i c = load(from + at + 64), d = load(from + at + 96);
        store(to + at, a, true);
        store(to + at + 32, b, true);
        store(to + at + 64, c, true);
        store(to + at + 96, d, true);
    }
    _mm_sfence();
    memcpy(to + at, from + at, bytes - at);
}

#define REDUCE_ROW(type, name) [type] = {sum_##name, prod_##name, max_##name, min_##name},
#define PREMUL_ROW(type, name) [type] = premul_##name,

const cinch_kernels cinch_kernels_avx2 = {
    .widen = cinch_widen_avx2,
    .narrow = cinch_narrow_avx2,
    .reduce = {CINCH_KERNEL_TYPES(REDUCE_ROW)},
    .premul = {CINCH_KERNEL_TYPES(PREMUL_ROW)},
    .copy_stream = copy_stream,
};

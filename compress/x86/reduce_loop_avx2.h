/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of one datatype. Included once per type by x86/reduce_avx2.c, with
 *   TYPE   the name that its functions of x86/reduce_ops_avx2.h begin with
 *   SIZE   bytes of an element
 *   UNROLL registers of elements in flight */

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define FN(name) JOIN(TYPE, name)
#define OP_FN(name) JOIN(name, TYPE)

/* One piece, as load_piece has it, at offset `at`. */
static ALWAYS_INLINE void FN(piece)(void *const *dst, int ndst, const void *const *src, int nsrc,
                                    size_t at, size_t bytes, op_kind op, finish_args args) {
    FN(acc) acc = FN(widen)(load_piece((const char *)src[0] + at, bytes));
    for (int s = 1; s < nsrc; s++)
        acc = FN(op)(acc, FN(widen)(load_piece((const char *)src[s] + at, bytes)), op);
    __m256i r = FN(narrow)(FN(scale)(acc, args));
    for (int d = 0; d < ndst; d++) store_piece((char *)dst[d] + at, r, bytes);
}

/* Less than 32 bytes at offset `at`, as pieces. */
static ALWAYS_INLINE void FN(rest)(void *const *dst, int ndst, const void *const *src, int nsrc,
                                   size_t bytes, int avg_n, size_t at, op_kind op) {
    finish_args args = make_args(op == OP_SUM ? avg_n : 0);
    UNROLLED for (size_t step = 16; step >= SIZE; step /= 2) {
        if (!(bytes & step)) continue;
        FN(piece)(dst, ndst, src, nsrc, at, step, op, args);
        at += step;
    }
}

/* `width` registers at offset `at`. All loads come before the first store, because a destination
 * may be a source. Two sources are left to the CPU's own prefetcher; with more it falls behind. */
static ALWAYS_INLINE void FN(tile)(void *const *dst, int ndst, const void *const *src, int nsrc,
                                   size_t at, int width, op_kind op, finish_args args,
                                   store_mode mode) {
    FN(acc) acc[UNROLL];
    __m256i out[UNROLL];
    const char *from = (const char *)src[0] + at;
    if (nsrc > 2) prefetch(from, width);
    UNROLLED for (int k = 0; k < width; k++) acc[k] = FN(widen)(load(from + 32 * k));
    for (int s = 1; s < nsrc; s++) {
        from = (const char *)src[s] + at;
        if (nsrc > 2) prefetch(from, width);
        UNROLLED for (int k = 0; k < width; k++) {
            acc[k] = FN(op)(acc[k], FN(widen)(load(from + 32 * k)), op);
        }
    }
    UNROLLED for (int k = 0; k < width; k++) out[k] = FN(narrow)(FN(scale)(acc[k], args));
    for (int d = 0; d < ndst; d++) {
        char *to = (char *)dst[d] + at;
        UNROLLED for (int k = 0; k < width; k++) store(to + 32 * k, out[k], past_cache(mode, d));
    }
}

/* Whole registers from `at` on; returns where it stopped. */
static ALWAYS_INLINE size_t FN(loop)(void *const *dst, int ndst, const void *const *src, int nsrc,
                                     size_t at, size_t end, op_kind op, finish_args args,
                                     store_mode mode) {
    for (; at + 32 * UNROLL <= end; at += 32 * UNROLL)
        FN(tile)(dst, ndst, src, nsrc, at, UNROLL, op, args, mode);
    for (; at + 32 <= end; at += 32) FN(tile)(dst, ndst, src, nsrc, at, 1, op, args, mode);
    return at;
}

/* The whole registers; in *at, where they begin and then where they end. */
static ALWAYS_INLINE void FN(whole)(void *const *dst, int ndst, const void *const *src, int nsrc,
                                    size_t end, int avg_n, size_t *at, store_mode mode,
                                    op_kind op) {
    finish_args args = make_args(op == OP_SUM ? avg_n : 0);
    if (nsrc == 2 && ndst <= 2) {
        /* The frequent cases, with the pointers in registers. */
        void *const to[] = {dst[0], dst[ndst - 1]};
        const void *const from[] = {src[0], src[1]};
        *at = ndst == 1 ? FN(loop)(to, 1, from, 2, *at, end, op, args, mode)
                        : FN(loop)(to, 2, from, 2, *at, end, op, args, mode);
    } else {
        *at = FN(loop)(dst, ndst, src, nsrc, *at, end, op, args, mode);
    }
    if (mode != STORE_CACHED) _mm_sfence();
}

/* Three functions, so that a few elements do not pay for the registers that many need. */
#define KERNEL(name, op)                                                                           \
    static __attribute__((noinline)) void OP_FN(name##_rest)(void *const *dst, int ndst,           \
                                                             const void *const *src, int nsrc,     \
                                                             size_t bytes, int avg_n, size_t at) { \
        FN(rest)(dst, ndst, src, nsrc, bytes, avg_n, at, op);                                      \
    }                                                                                              \
    static __attribute__((noinline)) void OP_FN(name##_long)(                                      \
        void *const *dst, int ndst, const void *const *src, int nsrc, size_t bytes, int avg_n,     \
        unsigned flags) {                                                                          \
        size_t at = 0;                                                                             \
        store_mode mode = stream_head(dst, ndst, SIZE, bytes, flags, &at);                         \
        if (at) OP_FN(name##_rest)(dst, ndst, src, nsrc, at, avg_n, 0);                            \
        FN(whole)(dst, ndst, src, nsrc, bytes, avg_n, &at, mode, op);                              \
        if (at < bytes) OP_FN(name##_rest)(dst, ndst, src, nsrc, bytes - at, avg_n, at);           \
    }                                                                                              \
    static void OP_FN(name)(void *const *dst, int ndst, const void *const *src, int nsrc,          \
                            size_t count, int avg_n, unsigned flags) {                             \
        if (count * SIZE < 32)                                                                     \
            OP_FN(name##_rest)(dst, ndst, src, nsrc, count * SIZE, avg_n, 0);                      \
        else                                                                                       \
            OP_FN(name##_long)(dst, ndst, src, nsrc, count * SIZE, avg_n, flags);                  \
    }
KERNEL(sum, OP_SUM)
KERNEL(prod, OP_PROD)
KERNEL(max, OP_MAX)
KERNEL(min, OP_MIN)

static void OP_FN(premul)(void *dst, const void *src, size_t count, const void *scalar) {
    char factors[32];
    for (size_t i = 0; i < 32; i += SIZE) memcpy(factors + i, scalar, SIZE);
    FN(acc) factor = FN(widen)(load(factors));
    size_t at = 0, end = count * SIZE;
    for (; at + 32 <= end; at += 32) {
        FN(acc) v = FN(widen)(load((const char *)src + at));
        store((char *)dst + at, FN(narrow)(FN(op)(v, factor, OP_PROD)), false);
    }
    if (at < end) {
        char last[32] = {0};
        memcpy(last, (const char *)src + at, end - at);
        store(last, FN(narrow)(FN(op)(FN(widen)(load(last)), factor, OP_PROD)), false);
        memcpy((char *)dst + at, last, end - at);
    }
}

#undef KERNEL
#undef OP_FN
#undef FN
#undef JOIN
#undef JOIN_
#undef TYPE
#undef SIZE
#undef UNROLL

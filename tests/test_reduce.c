/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions: the kernels of this CPU equal the reference bit by bit for every type, operator,
 * number of sources and destinations, size and alignment; and both equal an oracle in wide integers
 * or fp64. */
#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/cpu.h"
#include "compress/dtype.h"
#include "compress/kernels.h"
#include "compress/reduce.h"
#include "tests/dtype_oracle.h"

enum { MOST_SRC = 9, MOST_DST = 4, GUARD = 64 };
enum { SUM, PROD, MAX, MIN, OPS };

static uint64_t rng = 7;

static uint32_t random32(void) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 32);
}

/* ---- elements ---------------------------------------------------------------------------- */

static uint64_t get(const void *p, size_t i, size_t size) {
    uint64_t v = 0;
    memcpy(&v, (const char *)p + i * size, size); /* little endian */
    return v;
}

static void put(void *p, size_t i, size_t size, uint64_t v) {
    memcpy((char *)p + i * size, &v, size);
}

static uint64_t float_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static uint64_t double_bits(double d) {
    uint64_t u;
    memcpy(&u, &d, 8);
    return u;
}

/* A value as fp64. */
static double decode(cinchDataType_t dtype, uint64_t bits) {
    uint32_t low = (uint32_t)bits;
    float f;
    double d;
    if (oracle_of(dtype)) return oracle_decode(oracle_of(dtype), low);
    if (dtype == cinchFloat32) {
        memcpy(&f, &low, 4);
        return f;
    }
    memcpy(&d, &bits, 8);
    return d;
}

static uint64_t encode(cinchDataType_t dtype, double v) {
    if (oracle_of(dtype)) return oracle_encode(oracle_of(dtype), v);
    if (dtype == cinchFloat32) return isnan(v) ? 0x7fffffff : float_bits((float)v);
    return isnan(v) ? 0x7fffffffffffffff : double_bits(v);
}

/* Random bits, or a moderate number, or, one in eight, something special. */
static uint64_t random_element(cinchDataType_t dtype, int kind) {
    static const double special[] = {0.0,    -0.0,     INFINITY,  -INFINITY, 1.0,
                                     -1.0,   0x1p-130, -0x1p-149, 0x1p-24,   0x1p-1074,
                                     3.4e38, -65504,   448,       240,       57344};
    if (!cinch_dtype_is_float(dtype)) {
        uint64_t any = random32() | (uint64_t)random32() << 32;
        return random32() % 4 ? any : any % 3 + (any >> 63 ? UINT64_MAX : 0);
    }
    if (kind == 0) return random32() | (uint64_t)random32() << 32;
    if (kind == 1 && random32() % 8 == 0)
        return random32() % 8 == 0 ? UINT64_MAX - random32() % 2
                                   : encode(dtype, special[random32() % 15]);
    return encode(dtype, ((double)random32() - 0x1p31) * 0x1p-30);
}

/* ---- oracle ------------------------------------------------------------------------------ */

static int64_t as_signed(cinchDataType_t dtype, uint64_t v) {
    return dtype == cinchInt8 ? (int8_t)v : dtype == cinchInt32 ? (int32_t)v : (int64_t)v;
}

static uint64_t oracle_integer(cinchDataType_t dtype, int op, const uint64_t *x, int n, int avg_n) {
    size_t size = cinch_dtype_size(dtype);
    bool is_signed = dtype == cinchInt8 || dtype == cinchInt32 || dtype == cinchInt64;
    uint64_t mask = UINT64_MAX >> (64 - 8 * size), r = x[0] & mask;
    for (int s = 1; s < n; s++) {
        uint64_t v = x[s] & mask;
        bool below = is_signed ? as_signed(dtype, r) < as_signed(dtype, v) : r < v;
        if (op == SUM) r += v;
        if (op == PROD) r *= v;
        if ((op == MAX && below) || (op == MIN && !below)) r = v;
        r &= mask;
    }
    if (avg_n) r = is_signed ? (uint64_t)(as_signed(dtype, r) / avg_n) : r / (uint64_t)avg_n;
    return r & mask;
}

/* One fp32 operation made in fp64 and rounded: the same, as 53 bits are more than 2 * 24 + 1. For
 * double it is the plain operation, kept from the vectorizer by volatile. */
static double step(cinchDataType_t dtype, int op, double a, double b) {
    volatile double x = a, y = b, r;
    if (op == SUM) {
        r = x + y;
    } else if (op == PROD) {
        r = x * y;
    } else {
        bool above = x > y || (x == y && !signbit(x));
        if (isnan(x) || isnan(y)) return NAN;
        return above == (op == MAX) ? x : y;
    }
    return dtype == cinchFloat64 ? r : (double)(float)r;
}

static uint64_t oracle(cinchDataType_t dtype, int op, const uint64_t *x, int n, int avg_n) {
    if (!cinch_dtype_is_float(dtype)) return oracle_integer(dtype, op, x, n, avg_n);
    double r = decode(dtype, x[0]);
    for (int s = 1; s < n; s++) r = step(dtype, op, r, decode(dtype, x[s]));
    if (avg_n) {
        volatile double inverse = 1.0 / avg_n;
        r = step(dtype, PROD, r, dtype == cinchFloat64 ? inverse : (double)(1.0f / (float)avg_n));
    }
    return encode(dtype, r);
}

/* Whether n bytes at p are as they were filled. */
static bool untouched(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0x5c) return false;
    return true;
}

/* ---- one call ---------------------------------------------------------------------------- */

typedef struct {
    cinchDataType_t dtype;
    int op, nsrc, ndst, avg_n;
    unsigned flags;
    size_t count;
    char *src[MOST_SRC], *dst[MOST_DST];
    size_t src_shift[MOST_SRC], dst_shift[MOST_DST];
    int alias[MOST_DST]; /* the source that is this destination, or -1 */
} call;

/* With count bytes exactly at the end of each source's memory, so that ASan sees a read beyond. */
static void make_sources(call *c, int kind) {
    size_t size = cinch_dtype_size(c->dtype);
    for (int s = 0; s < c->nsrc; s++) {
        c->src[s] = malloc(c->src_shift[s] + c->count * size);
        for (size_t i = 0; i < c->count; i++)
            put(c->src[s] + c->src_shift[s], i, size, random_element(c->dtype, kind));
    }
}

static void run(call *c, cinch_reduce_fn fn, char **out) {
    size_t bytes = c->count * cinch_dtype_size(c->dtype);
    const void *src[MOST_SRC];
    void *dst[MOST_DST];
    for (int s = 0; s < c->nsrc; s++) src[s] = c->src[s] + c->src_shift[s];
    for (int d = 0; d < c->ndst; d++) {
        size_t room = bytes + c->dst_shift[d] + 2 * GUARD;
        out[d] = aligned_alloc(GUARD, (room + GUARD - 1) / GUARD * GUARD);
        memset(out[d], 0x5c, room);
        dst[d] = out[d] + GUARD + c->dst_shift[d];
        if (c->alias[d] >= 0) {
            if (bytes) memcpy(dst[d], src[c->alias[d]], bytes);
            src[c->alias[d]] = dst[d];
        }
    }
    fn(dst, c->ndst, src, c->nsrc, c->count, c->avg_n, c->flags);
}

static const char *describe(const call *c) {
    static char text[256];
    snprintf(text, sizeof text, "%s %s nsrc %d ndst %d avg_n %d flags %u count %zu, alias %d %d",
             cinch_dtype_name(c->dtype), cinch_redop_name((cinchRedOp_t)c->op), c->nsrc, c->ndst,
             c->avg_n, c->flags, c->count, c->alias[0], c->ndst > 1 ? c->alias[1] : -1);
    return text;
}

static void check_call(call *c, int kind) {
    size_t size = cinch_dtype_size(c->dtype), bytes = c->count * size;
    char *got[MOST_DST], *ref[MOST_DST];
    make_sources(c, kind);
    run(c, cinch_reduce_kernel(c->dtype, (cinchRedOp_t)c->op), got);
    run(c, cinch_reduce_reference(c->dtype, (cinchRedOp_t)c->op), ref);
    for (int d = 0; d < c->ndst; d++) {
        ck_assert_msg(memcmp(got[d], ref[d], bytes + c->dst_shift[d] + 2 * GUARD) == 0,
                      "kernel and reference differ: %s, destination %d", describe(c), d);
        ck_assert(untouched(got[d], GUARD + c->dst_shift[d]));
        ck_assert(untouched(got[d] + GUARD + c->dst_shift[d] + bytes, GUARD));
    }
    for (size_t i = 0; i < c->count; i++) {
        uint64_t x[MOST_SRC];
        for (int s = 0; s < c->nsrc; s++) x[s] = get(c->src[s] + c->src_shift[s], i, size);
        uint64_t want = oracle(c->dtype, c->op, x, c->nsrc, c->avg_n);
        for (int d = 0; d < c->ndst; d++) {
            uint64_t is = get(ref[d] + GUARD + c->dst_shift[d], i, size);
            if (is != want)
                ck_abort_msg("element %zu is %llx, should be %llx: %s", i, (unsigned long long)is,
                             (unsigned long long)want, describe(c));
        }
    }
    for (int s = 0; s < c->nsrc; s++) free(c->src[s]);
    for (int d = 0; d < c->ndst; d++) {
        free(got[d]);
        free(ref[d]);
    }
}

static call make_call(cinchDataType_t dtype, int op, int nsrc, int ndst, size_t count) {
    call c = {.dtype = dtype, .op = op, .nsrc = nsrc, .ndst = ndst, .count = count};
    for (int d = 0; d < MOST_DST; d++) c.alias[d] = -1;
    return c;
}

static int random_avg(int op) {
    static const int n[] = {0, 1, 2, 3, 7, 16, 1000, 123456789};
    return op == SUM ? n[random32() % 8] : 0;
}

/* ---- tests ------------------------------------------------------------------------------- */

START_TEST(has_avx2) {
#if defined(__x86_64__)
    ck_assert_msg(cinch_cpu_avx2(), "this CPU has no AVX2, FMA and F16C: its kernels go untested");
    for (int t = 0; t < cinchNumTypes; t++)
        for (int op = 0; op < OPS; op++)
            ck_assert_ptr_ne(cinch_reduce_kernel((cinchDataType_t)t, (cinchRedOp_t)op),
                             cinch_reduce_reference((cinchDataType_t)t, (cinchRedOp_t)op));
#endif
}
END_TEST

START_TEST(no_kernel) {
    ck_assert_ptr_null(cinch_reduce_kernel(cinchNumTypes, cinchSum));
    ck_assert_ptr_null(cinch_reduce_kernel((cinchDataType_t)-1, cinchSum));
    ck_assert_ptr_null(cinch_reduce_kernel(cinchFloat, cinchAvg));
    ck_assert_ptr_null(cinch_reduce_kernel(cinchFloat, cinchNumOps));
    ck_assert_ptr_null(cinch_reduce_reference(cinchFloat, (cinchRedOp_t)-1));
}
END_TEST

/* Every type, operator, nsrc and ndst, over all counts around the vector widths, in turn. */
START_TEST(every_shape) {
    cinchDataType_t dtype = (cinchDataType_t)_i;
    size_t count = 0;
    for (int round = 0; round < 3; round++)
        for (int op = 0; op < OPS; op++)
            for (int nsrc = 1; nsrc <= MOST_SRC; nsrc++)
                for (int ndst = 1; ndst <= MOST_DST; ndst++) {
                    call c = make_call(dtype, op, nsrc, ndst, count++ % 151);
                    for (int s = 0; s < nsrc; s++) c.src_shift[s] = random32() % 40;
                    for (int d = 0; d < ndst; d++) c.dst_shift[d] = random32() % 40;
                    c.avg_n = random_avg(op);
                    check_call(&c, round);
                }
}
END_TEST

/* The counts, all of them, for two sources and one or two destinations. */
START_TEST(every_small_count) {
    cinchDataType_t dtype = (cinchDataType_t)_i;
    for (int op = 0; op < OPS; op++)
        for (size_t count = 0; count <= 80; count++) {
            call c = make_call(dtype, op, 2, 1 + (int)(random32() % 2), count);
            c.src_shift[1] = random32() % 9;
            c.avg_n = random_avg(op);
            check_call(&c, (int)count % 3);
        }
}
END_TEST

/* A destination that is a source, and two that are two sources. */
START_TEST(in_place) {
    cinchDataType_t dtype = (cinchDataType_t)_i;
    for (int op = 0; op < OPS; op++)
        for (int nsrc = 1; nsrc <= 5; nsrc++)
            for (int first = 0; first < nsrc; first++) {
                size_t count = 1 + random32() % 300;
                call c = make_call(dtype, op, nsrc, 1, count);
                c.dst_shift[0] = random32() % 33;
                c.alias[0] = first;
                check_call(&c, 2);
                if (nsrc == 1) continue;
                c = make_call(dtype, op, nsrc, 2, count);
                c.alias[0] = first;
                c.alias[1] = (first + 1) % nsrc;
                c.flags = random32() % 2 ? CINCH_REDUCE_STREAM : 0;
                c.avg_n = random_avg(op);
                check_call(&c, 1);
            }
}
END_TEST

/* Non-temporal stores: destinations that can be aligned, and such that cannot. */
START_TEST(streamed) {
    cinchDataType_t dtype = (cinchDataType_t)_i;
    size_t size = cinch_dtype_size(dtype);
    for (int ndst = 1; ndst <= 3; ndst++)
        for (int trial = 0; trial < 24; trial++) {
            call c = make_call(dtype, (int)(random32() % OPS), 1 + trial % 4, ndst,
                               4096 / size + random32() % 200);
            c.flags = trial < 12 ? CINCH_REDUCE_STREAM : CINCH_REDUCE_STREAM_FIRST;
            size_t shift = trial % 3 ? size * (random32() % 32) : random32() % 40;
            for (int d = 0; d < ndst; d++)
                c.dst_shift[d] = trial % 4 == 3 ? random32() % 64 : shift;
            if (trial % 2) c.alias[0] = 0;
            check_call(&c, 2);
        }
}
END_TEST

/* Every pair of values of the 8-bit types; for the others every pair of a list of hard ones. */
START_TEST(every_pair) {
    static const double hard[] = {0.0,
                                  -0.0,
                                  INFINITY,
                                  -INFINITY,
                                  NAN,
                                  1,
                                  -1,
                                  0x1p-149,
                                  -0x1p-149,
                                  0x1p-126,
                                  0x1p-14,
                                  0x1p-24,
                                  -0x1p-25,
                                  65504,
                                  65519,
                                  -65520,
                                  3.3895313892515355e38,
                                  3.4028234663852886e38,
                                  -3.4028234663852886e38,
                                  0x1p-1074,
                                  1.7976931348623157e308,
                                  1.5,
                                  0x1.000002p0,
                                  -448};
    enum { HARD = sizeof hard / sizeof *hard };
    cinchDataType_t dtype = (cinchDataType_t)_i;
    size_t size = cinch_dtype_size(dtype), n = size == 1 ? 256 : HARD;
    for (int op = 0; op < OPS; op++) {
        call c = make_call(dtype, op, 2, 1, n * n);
        char *got[1], *ref[1];
        make_sources(&c, 0);
        for (size_t i = 0; i < n * n && (size == 1 || cinch_dtype_is_float(dtype)); i++) {
            put(c.src[0], i, size, size == 1 ? i / n : encode(dtype, hard[i / n]));
            put(c.src[1], i, size, size == 1 ? i % n : encode(dtype, hard[i % n]));
        }
        run(&c, cinch_reduce_kernel(dtype, (cinchRedOp_t)op), got);
        run(&c, cinch_reduce_reference(dtype, (cinchRedOp_t)op), ref);
        ck_assert_mem_eq(got[0], ref[0], n * n * size + 2 * GUARD);
        for (size_t i = 0; i < n * n; i++) {
            uint64_t x[2] = {get(c.src[0], i, size), get(c.src[1], i, size)};
            if (get(got[0] + GUARD, i, size) != oracle(dtype, op, x, 2, 0))
                ck_abort_msg("%s of %llx %llx", describe(&c), (unsigned long long)x[0],
                             (unsigned long long)x[1]);
        }
        free(c.src[0]);
        free(c.src[1]);
        free(got[0]);
        free(ref[0]);
    }
}
END_TEST

/* With denormals flushed and taken for zeros the bits are others, but still the same. */
START_TEST(denormals_off) {
#if defined(__x86_64__)
    cinchDataType_t dtype = (cinchDataType_t)_i;
    unsigned mode = _mm_getcsr();
    for (int op = 0; op < OPS; op++) {
        call c = make_call(dtype, op, 3, 1, 999);
        char *got[1], *ref[1];
        size_t bytes = c.count * cinch_dtype_size(dtype);
        make_sources(&c, 2);
        for (int s = 0; s < c.nsrc; s++)
            for (size_t i = 3; i < bytes; i += 4) { /* fp32 and bfloat16 around 2^-126 */
                if (random32() % 4 == 0) continue;
                c.src[s][i] = (char)(random32() & 0x80);
                if (dtype == cinchFloat64 && i % 8 == 7) c.src[s][i - 1] &= 0x1f;
            }
        _mm_setcsr(mode | 0x8040);
        run(&c, cinch_reduce_kernel(dtype, (cinchRedOp_t)op), got);
        run(&c, cinch_reduce_reference(dtype, (cinchRedOp_t)op), ref);
        _mm_setcsr(mode);
        ck_assert_mem_eq(got[0], ref[0], bytes + 2 * GUARD);
        for (int s = 0; s < c.nsrc; s++) free(c.src[s]);
        free(got[0]);
        free(ref[0]);
    }
#endif
}
END_TEST

/* avg of integers at the ends of their range, where a quotient through floats could be off by one.
 */
START_TEST(integer_avg) {
    static const cinchDataType_t types[] = {cinchInt8,   cinchUint8, cinchInt32,
                                            cinchUint32, cinchInt64, cinchUint64};
    cinchDataType_t dtype = types[_i];
    size_t size = cinch_dtype_size(dtype);
    enum { N = 67 };
    for (int trial = 0; trial < 400; trial++) {
        int n = trial < 130 ? trial + 1 : (int)(random32() >> (1 + random32() % 31)) | 1;
        uint64_t near = random32() | (uint64_t)random32() << 32, x;
        char src[N * 8], got[N * 8];
        void *dst = got;
        const void *from = src;
        if (trial % 3) near -= near % (unsigned)n; /* around a multiple, or the ends */
        if (trial % 5 == 0) near = (uint64_t)(trial % 2) << (8 * size - 1);
        for (size_t i = 0; i < N; i++) put(src, i, size, near + i - N / 2);
        cinch_reduce_kernel(dtype, cinchSum)(&dst, 1, &from, 1, N, n, 0);
        for (size_t i = 0; i < N; i++) {
            x = get(src, i, size);
            if (get(got, i, size) != oracle_integer(dtype, SUM, &x, 1, n))
                ck_abort_msg("%llx / %d is %llx", (unsigned long long)x, n,
                             (unsigned long long)get(got, i, size));
        }
    }
}
END_TEST

START_TEST(premul) {
    cinchDataType_t dtype = (cinchDataType_t)_i;
    size_t size = cinch_dtype_size(dtype);
    for (size_t count = 0; count < 200; count += 1 + count / 70) {
        size_t shift = random32() % 9, bytes = count * size;
        uint64_t scalar = random_element(dtype, 1 + (int)(count % 2));
        char *src = malloc(bytes + 1), *got = malloc(shift + bytes + GUARD),
             *ref = malloc(bytes + 1);
        for (size_t i = 0; i < count; i++)
            put(src, i, size, random_element(dtype, (int)(count % 3)));
        memset(got, 0x5c, shift + bytes + GUARD);
        cinch_premul(got + shift, src, dtype, count, &scalar);
        cinch_kernels_reference.premul[dtype](ref, src, count, &scalar);
        for (size_t i = 0; i < count; i++) {
            uint64_t x[2] = {get(src, i, size), scalar};
            uint64_t want = oracle(dtype, PROD, x, 2, 0);
            if (get(got + shift, i, size) != want || get(ref, i, size) != want)
                ck_abort_msg("%s: %llx times %llx is %llx and %llx", cinch_dtype_name(dtype),
                             (unsigned long long)x[0], (unsigned long long)scalar,
                             (unsigned long long)get(got + shift, i, size),
                             (unsigned long long)get(ref, i, size));
        }
        ck_assert(untouched(got, shift) && untouched(got + shift + bytes, GUARD));
        cinch_premul(src, src, dtype, count, &scalar);
        ck_assert(bytes == 0 || memcmp(src, ref, bytes) == 0);
        free(src);
        free(got);
        free(ref);
    }
}
END_TEST

START_TEST(copy) {
    static const size_t sizes[] = {0,    1,    7,    31,   32,    33,    4095,
                                   4096, 4097, 5000, 8191, 65536, 100003};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        for (unsigned flags = 0; flags < 2; flags++)
            for (size_t shift = 0; shift < 70; shift += 1 + shift / 8) {
                size_t n = sizes[k];
                char *src = malloc(n + 1), *dst = malloc(n + shift + GUARD);
                for (size_t i = 0; i < n; i++) src[i] = (char)random32();
                memset(dst, 0x5c, n + shift + GUARD);
                cinch_copy(dst + shift, src, n, flags);
                ck_assert(n == 0 || memcmp(dst + shift, src, n) == 0);
                ck_assert(untouched(dst, shift) && untouched(dst + shift + n, GUARD));
                free(src);
                free(dst);
            }
}
END_TEST

static void *first_use(void *arg) {
    *(cinch_reduce_fn *)arg = cinch_reduce_kernel(cinchFloat, cinchSum);
    return NULL;
}

/* First of all, so that the threads race for the choice. */
START_TEST(dispatch_from_threads) {
    pthread_t thread[4];
    cinch_reduce_fn got[4];
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, first_use, &got[i]), 0);
    for (int i = 0; i < 4; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < 4; i++) ck_assert(got[i] && got[i] == got[0]);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("reduce");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, dispatch_from_threads);
    tcase_add_test(tc, has_avx2);
    tcase_add_test(tc, no_kernel);
    tcase_add_loop_test(tc, every_shape, 0, cinchNumTypes);
    tcase_add_loop_test(tc, every_small_count, 0, cinchNumTypes);
    tcase_add_loop_test(tc, in_place, 0, cinchNumTypes);
    tcase_add_loop_test(tc, streamed, 0, cinchNumTypes);
    tcase_add_loop_test(tc, every_pair, 0, cinchNumTypes);
    tcase_add_loop_test(tc, denormals_off, 0, cinchNumTypes);
    tcase_add_loop_test(tc, integer_avg, 0, 6);
    tcase_add_loop_test(tc, premul, 0, cinchNumTypes);
    tcase_add_test(tc, copy);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

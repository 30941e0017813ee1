/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA kernels of reductions, emulated: the reference's bits for every type and operator, any
 * count, alignment, number of sources and shape of the launch, in any order of the threads. */
#include <stdio.h>

#include "base/status.h"
#include "compress/cuda/kernels.h"
#include "compress/dtype.h"
#include "compress/kernels.h"
#include "tests/codec_data.h"
#include "tests/cuda/emulate.h"

#define GUARD 0xa5
#define SIDE 64 /* bytes around a buffer */

static int rounds = 1;

/* Bits of any kind, and, so that sums stay numbers and values meet, small numbers. */
static void fill(unsigned char *out, cinchDataType_t dtype, size_t count, int kind, uint64_t seed) {
    size_t size = cinch_dtype_size(dtype);
    uint64_t s = seed;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits[2] = {random32(&s), random32(&s)};
        float small = (float)((int)(bits[0] % 17) - 8) * (bits[1] % 3 ? 1.0f : 0.37f);
        double wide = small;
        if (kind == 0 || bits[1] % 61 == 0)
            memcpy(out + i * size, bits, size);
        else if (dtype == cinchFloat64)
            memcpy(out + i * size, &wide, size);
        else if (cinch_dtype_is_float(dtype))
            cinch_narrow(out + i * size, dtype, &small, 1);
        else
            memset(out + i * size, (int)(bits[0] % 5), size);
    }
}

static unsigned char *buffer(size_t bytes, size_t shift) {
    unsigned char *p = alloc_ok(bytes + shift + 2 * SIDE);
    memset(p, GUARD, bytes + shift + 2 * SIDE);
    return p;
}

static void check_guards(const unsigned char *p, size_t bytes, size_t shift, const char *what) {
    for (size_t i = 0; i < SIDE; i++) {
        must(p[SIDE + shift - 1 - i] == GUARD, "%s: wrote before its buffer", what);
        must(p[SIDE + shift + bytes + i] == GUARD, "%s: wrote behind its buffer", what);
    }
}

typedef struct reduction {
    cinchDataType_t dtype;
    cinchRedOp_t op;
    int nsrc, ndst, avg_n, kind;
    size_t count, shift[4]; /* of destinations, and of sources in turn */
    bool inplace;
    unsigned blocks;
} reduction;

static void check_reduction(const reduction *r, uint64_t seed) {
    size_t bytes = r->count * cinch_dtype_size(r->dtype);
    unsigned char *src[CINCH_CUDA_TERMS], *dst[4], *want = buffer(bytes, 0);
    const void *from[CINCH_CUDA_TERMS];
    void *to[4];
    char what[160];
    snprintf(what, sizeof what, "%s %s of %d into %d, %zu elements, avg %d, shifts %zu %zu, %s",
             cinch_dtype_name(r->dtype), cinch_redop_name(r->op), r->nsrc, r->ndst, r->count,
             r->avg_n, r->shift[0], r->shift[2], r->inplace ? "in place" : "out of place");
    for (int s = 0; s < r->nsrc; s++) {
        src[s] = buffer(bytes, 16);
        from[s] = src[s] + SIDE + r->shift[2 + s % 2];
        fill(src[s] + SIDE + r->shift[2 + s % 2], r->dtype, r->count, r->kind, seed + (uint64_t)s);
    }
    for (int d = 0; d < r->ndst; d++) {
        dst[d] = buffer(bytes, r->shift[d % 2]);
        to[d] = dst[d] + SIDE + r->shift[d % 2];
    }
    void *host[] = {want + SIDE};
    cinch_reduce_reference(r->dtype, r->op)(host, 1, from, r->nsrc, r->count, r->avg_n, 0);
    if (r->inplace) to[0] = src[r->nsrc - 1] + SIDE + r->shift[2 + (r->nsrc - 1) % 2];
    const cinch_cuda_where where = {.blocks = r->blocks};
    must(cinch_cuda_reduce(&where, r->dtype, r->op, to, r->ndst, from, r->nsrc, r->count,
                           r->avg_n) == cinchSuccess,
         "%s: %s", what, cinch_last_error());
    for (int d = 0; d < r->ndst; d++) {
        must(memcmp(to[d], want + SIDE, bytes) == 0, "%s: destination %d is wrong", what, d);
        check_guards(dst[d], bytes, r->shift[d % 2], what);
        free(dst[d]);
    }
    for (int s = 0; s < r->nsrc; s++) free(src[s]);
    free(want);
}

static const size_t counts[] = {1, 2, 5, 15, 16, 17, 31, 33, 255, 1000, 1023, 4097, 9000, 20011};
#define COUNTS (sizeof counts / sizeof *counts)

START_TEST(reductions_agree) {
    uint64_t s = 40 + (uint64_t)_i;
    for (int op = 0; op < CINCH_REDUCE_OPS; op++)
        for (int round = 0; round < 14 * rounds; round++) {
            reduction r = {.dtype = (cinchDataType_t)_i, .op = (cinchRedOp_t)op};
            size_t size = cinch_dtype_size(r.dtype), unit = round % 3 ? size : 1;
            r.nsrc = round == 0 ? CINCH_CUDA_TERMS : 1 + (int)(random32(&s) % 5);
            r.ndst = 1 + round % 3 % 2;
            r.count = round == 0 ? 100 : counts[random32(&s) % COUNTS];
            r.avg_n = op == cinchSum && round % 2 ? 1 + (int)(random32(&s) % 200) : 0;
            r.kind = round % 4 != 0;
            for (int i = 0; i < 4; i++) r.shift[i] = random32(&s) % (16 / unit) * unit;
            if (round % 5 < 2) r.shift[1] = r.shift[2] = r.shift[3] = r.shift[0];
            r.inplace = round % 4 == 1;
            r.blocks = (unsigned)round % 4;
            cinch_emulate_order(round % CINCH_EMULATE_ORDERS);
            check_reduction(&r, s);
        }
}
END_TEST

START_TEST(premul_agrees) {
    cinchDataType_t dtype = (cinchDataType_t)_i;
    size_t size = cinch_dtype_size(dtype);
    uint64_t s = 900 + (uint64_t)_i;
    for (int round = 0; round < 16 * rounds; round++) {
        size_t count = counts[random32(&s) % COUNTS], bytes = count * size;
        size_t from = random32(&s) % 16, to = round % 2 ? from : random32(&s) % 16;
        unsigned char *src = buffer(bytes, from), *dst = buffer(bytes, to),
                      *want = buffer(bytes, 0);
        unsigned char scalar[16];
        fill(scalar + 1, dtype, 1, round % 3, s);
        fill(src + SIDE + from, dtype, count, round % 2, s + 1);
        cinch_kernels_reference.premul[dtype](want + SIDE, src + SIDE + from, count, scalar + 1);
        const cinch_cuda_where where = {.blocks = (unsigned)round % 3};
        cinch_emulate_order(round % CINCH_EMULATE_ORDERS);
        void *out = round % 4 == 3 ? src + SIDE + from : dst + SIDE + to;
        ck_assert_int_eq(
            cinch_cuda_premul(&where, dtype, out, src + SIDE + from, count, scalar + 1), 0);
        must(memcmp(out, want + SIDE, bytes) == 0, "%s: premul of %zu elements is wrong",
             cinch_dtype_name(dtype), count);
        check_guards(dst, bytes, to, "premul");
        free(src), free(dst), free(want);
    }
}
END_TEST

START_TEST(arguments_are_checked) {
    float data[4] = {0};
    void *dst[] = {data};
    const void *src[CINCH_CUDA_TERMS + 1] = {data};
    const cinch_cuda_where where = {0};
    uint64_t before = cinch_emulate_count().count;
#define REFUSED(...) ck_assert_int_eq(cinch_cuda_reduce(&where, __VA_ARGS__), cinchInvalidArgument)
    REFUSED(cinchFloat32, cinchSum, dst, 1, src, 0, 4, 0);
    REFUSED(cinchFloat32, cinchSum, dst, 1, src, CINCH_CUDA_TERMS + 1, 4, 0);
    REFUSED(cinchFloat32, cinchSum, dst, 0, src, 1, 4, 0);
    REFUSED(cinchFloat32, cinchAvg, dst, 1, src, 1, 4, 0);
    REFUSED((cinchDataType_t)99, cinchSum, dst, 1, src, 1, 4, 0);
    ck_assert_int_eq(cinch_cuda_premul(&where, (cinchDataType_t)-1, data, data, 4, data),
                     cinchInvalidArgument);
    ck_assert_int_eq(cinch_cuda_reduce(&where, cinchInt8, cinchMax, dst, 1, src, 1, 0, 0), 0);
    ck_assert_uint_eq(cinch_emulate_count().count, before);
}
END_TEST

/* blocks is a limit, and without one there are as many as there is work for. */
START_TEST(blocks_are_limited) {
    enum { COUNT = 100000 };
    float *data = alloc_ok(COUNT * 4);
    void *dst[] = {data};
    const void *src[] = {data};
    memset(data, 0, COUNT * 4);
    for (unsigned limit = 0; limit < 6; limit++) {
        const cinch_cuda_where where = {.blocks = limit};
        ck_assert_int_eq(
            cinch_cuda_reduce(&where, cinchFloat32, cinchSum, dst, 1, src, 1, COUNT, 0), 0);
        ck_assert_uint_eq(cinch_emulate_count().blocks, limit ? limit : COUNT / 2048 + 1);
    }
    free(data);
}
END_TEST

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "long") == 0) rounds = 6;
    (void)argv;
    TCase *t = tcase_create("cuda_reduce");
    tcase_add_loop_test(t, reductions_agree, 0, cinchNumTypes);
    tcase_add_loop_test(t, premul_agrees, 0, cinchNumTypes);
    tcase_add_test(t, arguments_are_checked);
    tcase_add_test(t, blocks_are_limited);
    return run_suite("cuda_reduce", t);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Datatypes: the table, and every conversion against its definition, the kernels against each
 * other bit by bit. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "compress/dtype.h"
#include "compress/kernels.h"
#include "tests/dtype_oracle.h"

static uint64_t rng = 1;

static uint32_t random32(void) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 32);
}

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static uint32_t code_at(const void *p, size_t i, size_t size) {
    return size == 1 ? ((const uint8_t *)p)[i] : ((const uint16_t *)p)[i];
}

START_TEST(table) {
    static const struct {
        cinchDataType_t dtype;
        size_t size;
        const char *name;
        bool is_float;
    } want[] = {
        {cinchInt8, 1, "int8", false},        {cinchUint8, 1, "uint8", false},
        {cinchInt32, 4, "int32", false},      {cinchUint32, 4, "uint32", false},
        {cinchInt64, 8, "int64", false},      {cinchUint64, 8, "uint64", false},
        {cinchFloat16, 2, "half", true},      {cinchFloat32, 4, "float", true},
        {cinchFloat64, 8, "double", true},    {cinchBfloat16, 2, "bfloat16", true},
        {cinchFloat8e4m3, 1, "f8e4m3", true}, {cinchFloat8e5m2, 1, "f8e5m2", true},
    };
    cinchDataType_t parsed;
    ck_assert_int_eq(sizeof want / sizeof *want, cinchNumTypes);
    for (int i = 0; i < cinchNumTypes; i++) {
        ck_assert_uint_eq(cinch_dtype_size(want[i].dtype), want[i].size);
        ck_assert_str_eq(cinch_dtype_name(want[i].dtype), want[i].name);
        ck_assert_int_eq(cinch_dtype_is_float(want[i].dtype), want[i].is_float);
        ck_assert(cinch_dtype_parse(want[i].name, &parsed));
        ck_assert_int_eq(parsed, want[i].dtype);
    }
    for (int bad = -1; bad <= cinchNumTypes; bad += cinchNumTypes + 1) {
        ck_assert_uint_eq(cinch_dtype_size((cinchDataType_t)bad), 0);
        ck_assert_str_eq(cinch_dtype_name((cinchDataType_t)bad), "?");
        ck_assert(!cinch_dtype_is_float((cinchDataType_t)bad));
    }
    ck_assert(!cinch_dtype_parse("", &parsed));
    ck_assert(!cinch_dtype_parse("int", &parsed));
    ck_assert(!cinch_dtype_parse("halfs", &parsed));
}
END_TEST

START_TEST(redop_names) {
    ck_assert_str_eq(cinch_redop_name(cinchSum), "sum");
    ck_assert_str_eq(cinch_redop_name(cinchProd), "prod");
    ck_assert_str_eq(cinch_redop_name(cinchMax), "max");
    ck_assert_str_eq(cinch_redop_name(cinchMin), "min");
    ck_assert_str_eq(cinch_redop_name(cinchAvg), "avg");
    ck_assert_str_eq(cinch_redop_name(cinchNumOps), "mulsum");
    ck_assert_str_eq(cinch_redop_name((cinchRedOp_t)1000), "mulsum");
    ck_assert_str_eq(cinch_redop_name((cinchRedOp_t)-1), "?");
}
END_TEST

/* Without AVX2 the comparison below would compare the reference with itself. */
START_TEST(has_avx2) {
#if defined(__x86_64__)
    ck_assert_msg(cinch_cpu_avx2(), "this CPU has no AVX2, FMA and F16C: its kernels go untested");
    ck_assert_ptr_eq(cinch_kernels_best(), &cinch_kernels_avx2);
#endif
}
END_TEST

START_TEST(oracle_knows_the_formats) {
    const oracle_format *e4m3 = oracle_of(cinchFloat8e4m3), *e5m2 = oracle_of(cinchFloat8e5m2);
    ck_assert_double_eq(oracle_decode(e4m3, 0x7e), 448);
    ck_assert_double_eq(oracle_decode(e4m3, 0x01), 0x1p-9);
    ck_assert(isnan(oracle_decode(e4m3, 0xff)));
    ck_assert_double_eq(oracle_decode(e5m2, 0x7b), 57344);
    ck_assert_double_eq(oracle_decode(e5m2, 0xfc), -INFINITY);
    ck_assert_double_eq(oracle_decode(oracle_of(cinchFloat16), 0x7bff), 65504);
    ck_assert_double_eq(oracle_decode(oracle_of(cinchBfloat16), 0x3f80), 1);
    ck_assert_uint_eq(oracle_encode(e4m3, 464), 0x7e);
    ck_assert_uint_eq(oracle_encode(e4m3, 464.0001), 0x7f);
    ck_assert_uint_eq(oracle_encode(e5m2, -61440), 0xfc);
    ck_assert_uint_eq(oracle_encode(e5m2, 61439), 0x7b);
    ck_assert_uint_eq(oracle_encode(oracle_of(cinchFloat16), 65519), 0x7bff);
    ck_assert_uint_eq(oracle_encode(oracle_of(cinchFloat16), 65520), 0x7c00);
}
END_TEST

/* Every value of every small format. */
START_TEST(widen_all) {
    const oracle_format *f = &oracle_formats[_i];
    size_t count = (size_t)1 << oracle_bits(f), size = cinch_dtype_size(f->dtype);
    uint16_t *src = malloc(count * 2);
    float *got = malloc(count * 4), *ref = malloc(count * 4);
    for (size_t i = 0; i < count; i++)
        if (size == 1)
            ((uint8_t *)src)[i] = (uint8_t)i;
        else
            src[i] = (uint16_t)i;
    cinch_widen(got, src, f->dtype, count);
    cinch_widen_reference(ref, src, f->dtype, count);
    for (size_t i = 0; i < count; i++) {
        double want = oracle_decode(f, (uint32_t)i);
        uint32_t bits = isnan(want) ? 0x7fffffff : bits_of((float)want);
        if (bits_of(got[i]) != bits || bits_of(ref[i]) != bits)
            ck_abort_msg("%s %zx: kernel %x, reference %x, should be %x",
                         cinch_dtype_name(f->dtype), i, bits_of(got[i]), bits_of(ref[i]), bits);
    }
    free(src);
    free(got);
    free(ref);
}
END_TEST

static void check_narrow(const oracle_format *f, const float *x, size_t count) {
    size_t size = cinch_dtype_size(f->dtype);
    uint16_t *got = malloc(count * 2), *ref = malloc(count * 2);
    cinch_narrow(got, f->dtype, x, count);
    cinch_narrow_reference(ref, f->dtype, x, count);
    for (size_t i = 0; i < count; i++) {
        uint32_t want = oracle_encode(f, x[i]);
        if (code_at(got, i, size) != want || code_at(ref, i, size) != want)
            ck_abort_msg("%s of %a: kernel %x, reference %x, should be %x",
                         cinch_dtype_name(f->dtype), (double)x[i], code_at(got, i, size),
                         code_at(ref, i, size), want);
    }
    free(got);
    free(ref);
}

/* Every value, every midpoint between two, and the floats next to these. */
START_TEST(narrow_neighbours) {
    const oracle_format *f = &oracle_formats[_i];
    uint32_t codes = oracle_beyond(f) + 1;
    float *x = malloc((size_t)codes * 12 * sizeof *x);
    size_t n = 0;
    for (uint32_t c = 0; c < codes; c++) {
        double at = oracle_magnitude(f, c), next = oracle_magnitude(f, c + 1);
        for (int mid = 0; mid < 2; mid++) {
            float v = (float)(mid ? at + (next - at) / 2 : at);
            float near[3] = {v, nextafterf(v, INFINITY), nextafterf(v, -INFINITY)};
            for (int k = 0; k < 3; k++) {
                x[n++] = near[k];
                x[n++] = -near[k];
            }
        }
    }
    check_narrow(f, x, n);
    free(x);
}
END_TEST

/* Floats from the whole range, NaNs with every kind of payload among them. */
START_TEST(narrow_everywhere) {
    const oracle_format *f = &oracle_formats[_i];
    enum { N = 1 << 18 };
    float *x = malloc(N * sizeof *x);
    size_t n = 0;
    static const uint32_t special[] = {0,          0x80000000, 0x00000001, 0x807fffff, 0x7f7fffff,
                                       0x7f800000, 0xff800000, 0x7f800001, 0x7f801fff, 0x7f80ffff,
                                       0x7fc00000, 0xffc00000, 0xffffffff, 0x7fffffff, 0xff800001};
    for (; n < sizeof special / sizeof *special; n++) x[n] = float_of(special[n]);
    for (; n < N / 2; n++) x[n] = float_of((uint32_t)n * 32771u);
    for (; n < N; n++) { /* where the format has its values */
        uint32_t e = 127 - (1u << (f->exponent_bits - 1)) - 12 + random32() % 44;
        if (f->exponent_bits == 8) e = random32() & 255;
        x[n] = float_of((random32() & 0x807fffff) | (e & 255) << 23);
    }
    check_narrow(f, x, N);
    free(x);
}
END_TEST

/* fp8 against a search over all codes. */
START_TEST(narrow_fp8_brute_force) {
    const oracle_format *f = &oracle_formats[_i];
    enum { N = 1 << 13 };
    for (int i = 0; i < N; i++) {
        float x = float_of((random32() & 0x807fffff) | (100 + random32() % 48) << 23);
        uint32_t best = 0;
        uint8_t got;
        for (uint32_t c = 1; c <= oracle_beyond(f); c++) {
            double was = fabs(fabs((double)x) - oracle_magnitude(f, best));
            double now = fabs(fabs((double)x) - oracle_magnitude(f, c));
            if (now < was || (now == was && c % 2 == 0)) best = c;
        }
        if (signbit(x) && best != 0x7f) best |= 0x80;
        cinch_narrow(&got, f->dtype, &x, 1);
        if (got != best)
            ck_abort_msg("%s of %a: %x, should be %x", cinch_dtype_name(f->dtype), (double)x, got,
                         best);
    }
}
END_TEST

/* Any count and alignment; nothing beyond the end is touched. */
START_TEST(edges) {
    enum { MOST = 70, ROOM = (MOST + 4) * 4 };
    static const cinchDataType_t types[] = {cinchFloat16, cinchBfloat16, cinchFloat8e4m3,
                                            cinchFloat8e5m2, cinchFloat32};
    cinchDataType_t dtype = types[_i];
    size_t size = cinch_dtype_size(dtype);
    for (size_t count = 0; count <= MOST; count++) {
        for (size_t shift = 0; shift < 8; shift++) {
            char wide[ROOM], back[ROOM], want[ROOM];
            char *src = malloc(count * size + 1);
            for (size_t i = 0; i < count * size; i++) src[i] = (char)random32();
            memset(wide, 0x5a, ROOM);
            memcpy(want, wide, ROOM);
            cinch_widen((float *)(void *)(wide + shift), src, dtype, count);
            if (dtype == cinchFloat32) memcpy(want + shift, src, count * 4);
            cinch_widen_reference((float *)(void *)(want + shift), src, dtype, count);
            ck_assert_mem_eq(wide, want, ROOM);
            memset(back, 0xa5, ROOM);
            memcpy(want, back, ROOM);
            cinch_narrow(back + shift / 2, dtype, (const float *)(void *)(wide + shift), count);
            if (dtype == cinchFloat32) memcpy(want + shift / 2, wide + shift, count * 4);
            cinch_narrow_reference(want + shift / 2, dtype, (const float *)(void *)(wide + shift),
                                   count);
            ck_assert_mem_eq(back, want, ROOM);
            free(src);
        }
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("dtype");
    TCase *names = tcase_create("names"), *values = tcase_create("values");
    tcase_add_test(names, table);
    tcase_add_test(names, redop_names);
    suite_add_tcase(suite, names);
    tcase_set_timeout(values, 120);
    tcase_add_test(values, has_avx2);
    tcase_add_test(values, oracle_knows_the_formats);
    tcase_add_loop_test(values, widen_all, 0, ORACLE_FORMATS);
    tcase_add_loop_test(values, narrow_neighbours, 0, ORACLE_FORMATS);
    tcase_add_loop_test(values, narrow_everywhere, 0, ORACLE_FORMATS);
    tcase_add_loop_test(values, narrow_fp8_brute_force, 2, ORACLE_FORMATS);
    tcase_add_loop_test(values, edges, 0, 5);
    suite_add_tcase(suite, values);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

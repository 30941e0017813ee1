/* SPDX-License-Identifier: Apache-2.0 */
/* Codec plug-ins: the example shrinks and conserves, and what is no proper plug-in is refused by a
 * sentence that says why. */
#include "tests/codec_data.h"

#include <pthread.h>

#include "base/status.h"

#define SIGN CINCH_TEST_PLUGINS "/cinch_codec_sign.so"
#define FAULTY CINCH_TEST_PLUGINS "/codec_plugin_faulty.so"

static void load_sign(void) {
    ck_assert_int_eq(cinch_codec_load_plugins(SIGN), cinchSuccess);
}

START_TEST(the_example_loads_once) {
    load_sign();
    load_sign();
    ck_assert_int_eq(cinch_codec_load_plugins(SIGN "," SIGN), cinchSuccess);
    ck_assert_str_eq(cinch_codec_at(3)->name, "sign");
    ck_assert_ptr_null(cinch_codec_at(4));
    cinch_codec codec = parse_ok("sign:block=512,ef=0"), feedback = parse_ok("sign");
    ck_assert_uint_eq(cinch_codec_granule(&codec), 512);
    ck_assert(!codec.ef && feedback.ef);
    ck_assert_uint_eq(cinch_codec_bound(&feedback, 1 << 20), (1 << 20) / 1024 * 132);
    ck_assert(isnan(cinch_codec_step_bound(&codec, 1)));
    ck_assert_uint_eq(cinch_codec_block(&codec), 0);
    char why[512];
    ck_assert(!cinch_codec_parse("sign:block=9", &codec, why, sizeof why));
    ck_assert_msg(strstr(why, "sign accepts ef=0|1, inplace=0|1 and block=N (a multiple of 8"),
                  "%s", why);
    ck_assert(!cinch_codec_parse("sing", &codec, why, sizeof why));
    ck_assert_msg(strstr(why, "none, bf16, int8, topk, sign"), "%s", why);
}
END_TEST

static void *load_in_thread(void *result) {
    *(cinchResult_t *)result = cinch_codec_load_plugins(SIGN);
    return NULL;
}

START_TEST(threads_load_once) {
    pthread_t thread[4];
    cinchResult_t result[4];
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, load_in_thread, &result[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        ck_assert_int_eq(result[i], cinchSuccess);
    }
    ck_assert_ptr_nonnull(cinch_codec_at(3));
    ck_assert_ptr_null(cinch_codec_at(4));
}
END_TEST

/* The library's error feedback around a codec that knows none. */
START_TEST(the_example_conserves) {
    enum { COUNT = 3000, STEPS = 1000 };
    load_sign();
    cinch_codec codec = parse_ok("sign:block=256");
    float *src = alloc_ok(COUNT * 4), *out = alloc_ok(COUNT * 4), *residual = alloc_ok(COUNT * 4);
    unsigned char *wire = alloc_ok(cinch_codec_bound(&codec, COUNT));
    void *scratch = alloc_ok(cinch_codec_scratch(&codec, cinchFloat32, COUNT));
    static double in[COUNT], sent[COUNT], magnitude[COUNT];
    memset(residual, 0, COUNT * 4);
    const cinchCodecSite_t site = {0};
    for (int step = 0; step < STEPS; step++) {
        uint64_t bad = 0;
        fill_data(src, COUNT, GAUSS, (uint64_t)step);
        size_t bytes = cinch_codec_encode(&codec, &site, NULL, cinchFloat32, src, residual, COUNT,
                                          wire, &bad, scratch);
        must(bytes == 12 * 4 + 375 && !bad, "wrong size");
        cinch_codec_term term = {.wire = wire, .bytes = bytes};
        must(cinch_codec_sum(&codec, &term, 1, cinchFloat32, cinchFloat32, out, COUNT, 0,
                             scratch) == cinchSuccess,
             "does not decode");
        for (int i = 0; i < COUNT; i++) {
            in[i] += (double)src[i];
            sent[i] += (double)out[i];
            magnitude[i] += fabs((double)src[i]);
        }
    }
    for (int i = 0; i < COUNT; i++) {
        double lost = fabs(in[i] - sent[i] - (double)residual[i]);
        must(lost <= STEPS * 0x1p-23 * magnitude[i], "element %d lost %g", i, lost);
    }
    free(src), free(out), free(residual), free(wire), free(scratch);
}
END_TEST

START_TEST(the_example_keeps_the_rules) {
    load_sign();
    cinch_codec codec = parse_ok("sign:block=8");
    float src[20] = {1, -3, 2, -2, 0, -0.0f, 4, 4}, residual[20] = {0}, out[20];
    unsigned char wire[15];
    const cinchCodecSite_t site = {0};
    void *scratch = alloc_ok(cinch_codec_scratch(&codec, cinchFloat32, 20));
    uint64_t bad = 0;
    src[9] = INFINITY;
    src[17] = -8;
    residual[10] = 5;
    ck_assert_uint_eq(cinch_codec_encode(&codec, &site, NULL, cinchFloat32, src, residual, 20, wire,
                                         &bad, scratch),
                      15);
    ck_assert_uint_eq(bad, 1);
    ck_assert_int_eq(codec.vt->decode(codec.params, wire, 15, 20, 0, 20, out), 0);
    for (int i = 0; i < 20; i++) {
        if (i / 8 == 1) {
            ck_assert(isnan(out[i]));
            ck_assert_float_eq(residual[i], i == 10 ? 5 : 0);
        } else {
            ck_assert_float_eq(out[i], src[i] < 0 ? -2 : 2);
            ck_assert_float_eq(residual[i], src[i] - out[i]);
        }
    }
    ck_assert_int_eq(codec.vt->decode(codec.params, wire, 14, 20, 0, 20, out), -1);
    free(scratch);
}
END_TEST

START_TEST(faults_are_named) {
    static const struct {
        const char *fault, *part;
    } faults[] = {
        {"null", "does not serve codec ABI 1"},
        {"size", "has a table of 16 bytes"},
        {"abi", "is built for codec ABI 2, this cinch has 1"},
        {"no name", "has no valid name"},
        {"bad name", "has no valid name"},
        {"long name", "has no valid name"},
        {"int8", "is named 'int8', which is taken"},
        {"none", "is named 'none', which is taken"},
        {"sign", "is named 'sign', which is taken"},
        {"flags", "has flags that this cinch does not know"},
        {"random", "CINCH_CODEC_DETERMINISTIC"},
        {"decode", "lacks the function decode"},
        {"prepare", "lacks the function prepare_bytes"},
    };
    load_sign();
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        setenv("CINCH_TEST_PLUGIN_FAULT", faults[i].fault, 1);
        ck_assert_int_eq(cinch_codec_load_plugins(FAULTY), cinchInvalidUsage);
        const char *why = cinch_last_error();
        ck_assert_msg(strstr(why, faults[i].part) && strstr(why, FAULTY), "%s: %s", faults[i].fault,
                      why);
        ck_assert_ptr_null(cinch_codec_at(4));
    }
    setenv("CINCH_TEST_PLUGIN_FAULT", "granule", 1);
    ck_assert_int_eq(cinch_codec_load_plugins(FAULTY), cinchSuccess);
    cinch_codec codec;
    char why[512];
    ck_assert(!cinch_codec_parse("asis", &codec, why, sizeof why));
    ck_assert_msg(strstr(why, "segments of 0 elements"), "%s", why);
    unsetenv("CINCH_TEST_PLUGIN_FAULT");
    parse_ok("asis");
}
END_TEST

START_TEST(wrong_files_are_named) {
    static const struct {
        const char *paths, *part;
    } wrong[] = {
        {"/nowhere/codec.so", "codec plug-in /nowhere/codec.so cannot be loaded: "},
        {"libm.so.6", "codec plug-in libm.so.6 does not export cinchCodec"},
        {SIGN ",,", "empty or too long path"},
        {",", "empty or too long path"},
    };
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(cinch_codec_load_plugins(wrong[i].paths), cinchInvalidUsage);
        ck_assert_msg(strstr(cinch_last_error(), wrong[i].part), "%s", cinch_last_error());
    }
    ck_assert_int_eq(cinch_codec_load_plugins(""), cinchSuccess);
    ck_assert_int_eq(cinch_codec_load_plugins(NULL), cinchSuccess);
}
END_TEST

int main(void) {
    TCase *t = tcase_create("codec_plugin");
    tcase_add_test(t, threads_load_once);
    tcase_add_test(t, the_example_loads_once);
    tcase_add_test(t, the_example_conserves);
    tcase_add_test(t, the_example_keeps_the_rules);
    tcase_add_test(t, faults_are_named);
    tcase_add_test(t, wrong_files_are_named);
    return run_suite("codec_plugin", t);
}

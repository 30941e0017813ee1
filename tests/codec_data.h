/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs for the codecs' tests, and comparisons by bits. */
#ifndef CINCH_TESTS_CODEC_DATA_H_
#define CINCH_TESTS_CODEC_DATA_H_

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/codec.h"
#include "compress/codec_kernels.h"

static inline uint32_t random32(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32) ^ (uint32_t)(*state >> 45);
}

static inline float random_unit(uint64_t *state) {
    return (float)(random32(state) >> 8) * 0x1p-24f;
}

/* For inner loops: ck_assert writes to a file whether it holds or not. */
#define must(condition, ...)                                                                       \
    do {                                                                                           \
        if (!(condition)) ck_abort_msg(__VA_ARGS__);                                               \
    } while (0)

/* Kinds of data; each meets other branches of the codecs. */
enum { GAUSS, HEAVY, TIES, ZEROS, TINY, HUGE_VALUES, NONFINITE, ANY_BITS, RISING, SPARSE, KINDS };

static inline void fill_data(float *out, size_t count, int kind, uint64_t seed) {
    uint64_t s = seed * 977 + (uint64_t)kind;
    for (size_t i = 0; i < count; i++) {
        float g = random_unit(&s) + random_unit(&s) + random_unit(&s) + random_unit(&s) - 2.0f;
        uint32_t dice = random32(&s);
        switch (kind) {
        case HEAVY:
            g = g * g * g * g * g * (dice % 50 ? 1.0f : 300.0f);
            break;
        case TIES:
            g = (float)((int)(dice % 7) - 3);
            break;
        case ZEROS:
            g = dice & 1 ? 0.0f : -0.0f;
            break;
        case TINY:
            g *= ldexpf(1, -100 - (int)(dice % 50));
            break;
        case HUGE_VALUES:
            g = dice % 3 ? g * 1.5e38f : dice & 1 ? 3.4028235e38f : -3.4028235e38f;
            break;
        case NONFINITE:
            if (dice % 400 == 0) g = cinch_bits_float(0x7fa12345u);
            if (dice % 400 == 1) g = dice & 1024 ? INFINITY : -INFINITY;
            break;
        case ANY_BITS:
            g = cinch_bits_float(dice);
            break;
        case RISING:
            g = (float)i;
            break;
        case SPARSE:
            g = dice % 1000 ? 0 : g;
            break;
        default:
            break;
        }
        out[i] = g;
    }
}

static inline cinch_codec parse_ok(const char *spec) {
    cinch_codec codec;
    char why[512] = "";
    bool ok = cinch_codec_parse(spec, &codec, why, sizeof why);
    must(ok, "%s: %s", spec, why);
    return codec;
}

static inline void *alloc_ok(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    must(p, "out of memory");
    memset(p, 0x5a, (bytes + 127) / 64 * 64);
    return p;
}

/* The same bits, or NaN on both sides: which NaN an addition of two gives is nobody's promise. */
static inline bool same_float(float a, float b) {
    return cinch_float_bits(a) == cinch_float_bits(b) || (isnan(a) && isnan(b));
}

static inline size_t first_difference(const float *a, const float *b, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!same_float(a[i], b[i])) return i;
    return count;
}

static inline int run_suite(const char *name, TCase *tcase) {
    Suite *suite = suite_create(name);
    tcase_set_timeout(tcase, 120);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The bounds by which `cinch perf` judges results of several codecs in turn. */
#include <check.h>
#include <stdlib.h>

#include "compress/dtype.h"
#include "perf/check.h"

enum { RANKS = 3, COUNT = 20000 };
static _Alignas(64) float input[RANKS][COUNT], result[COUNT];

/* As a hierarchical plan makes it of hosts {0, 1} and {2}: inputs by one codec, sums of hosts and
 * of all by another. */
static void levels_result(const cinch_data *data, const cinch_codec *inside,
                          const cinch_codec *between, size_t count) {
    static unsigned char wire[RANKS][COUNT * 8];
    static _Alignas(64) float sum[2][COUNT];
    static _Alignas(64) unsigned char scratch[1 << 22];
    cinchCodecSite_t site = {0};
    cinch_codec_term term[RANKS];
    uint64_t nonfinite = 0;
    ck_assert(cinch_codec_scratch(inside, data->dtype, count) <= sizeof scratch &&
              cinch_codec_scratch(between, cinchFloat32, count) <= sizeof scratch);
    for (int r = 0; r < 3; r++) {
        cinch_data_fill(data, r, 0, count, input[r]);
        term[r].plain = NULL;
        term[r].wire = wire[r];
        term[r].bytes = cinch_codec_encode(inside, &site, NULL, data->dtype, input[r], NULL, count,
                                           wire[r], &nonfinite, scratch);
    }
    for (int h = 0; h < 2; h++)
        cinch_codec_sum(inside, &term[2 * h], 2 - h, data->dtype, cinchFloat32, sum[h], count, 0,
                        scratch);
    for (int h = 0; h < 3; h++) { /* 2: the sum of both */
        if (h == 2)
            cinch_codec_sum(between, term, 2, cinchFloat32, cinchFloat32, sum[0], count, 0,
                            scratch);
        term[h % 2].wire = wire[h];
        term[h % 2].bytes = cinch_codec_encode(between, &site, NULL, cinchFloat32, sum[h % 2], NULL,
                                               count, wire[h], &nonfinite, scratch);
    }
    cinch_codec_sum(between, term, 1, data->dtype, data->dtype, result, count, 0, scratch);
}

START_TEST(bounds_of_levels) {
    static const char *const specs[][2] = {
        {"int8", "int8:block=64"}, {"bf16", "int8"}, {"int8:block=4096", "bf16"}, {"bf16", "bf16"}};
    for (int s = 0; s < (int)(sizeof specs / sizeof *specs); s++)
        for (int kind = CINCH_DATA_EXACT; kind <= CINCH_DATA_NONFINITE; kind++) {
            cinch_codec inside, between;
            cinch_data data;
            cinch_verdict verdict;
            char why[200];
            ck_assert(cinch_codec_parse(specs[s][0], &inside, why, sizeof why));
            ck_assert(cinch_codec_parse(specs[s][1], &between, why, sizeof why));
            cinch_data_setup(&data, (cinch_data_kind)kind, NULL, 3, cinchFloat32, CINCH_OP_SUM);
            levels_result(&data, &inside, &between, COUNT);
            cinch_check check = {cinch_operations, 0, 0, &data, &inside, true, {&between}};
            ck_assert(cinch_check_result(&check, result, COUNT, &verdict));
            ck_assert(verdict.judged);
            ck_assert_msg(verdict.wrong == 0, "%s and %s kind %d: %d", specs[s][0], specs[s][1],
                          kind, (int)verdict.wrong);
            if (kind != CINCH_DATA_GAUSS) continue;
            check.then[0] = NULL; /* a codec that nobody has told of is not allowed for */
            ck_assert(cinch_check_result(&check, result, COUNT, &verdict));
            ck_assert_msg(s != 1 || verdict.wrong > 0, "%s and %s", specs[s][0], specs[s][1]);
            result[6000] += 1;
            check.then[0] = &between;
            ck_assert(cinch_check_result(&check, result, COUNT, &verdict));
            ck_assert_int_eq((int)verdict.wrong, 1);
        }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("check_levels");
    TCase *tcase = tcase_create("bounds");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, bounds_of_levels);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}

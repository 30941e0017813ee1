/* SPDX-License-Identifier: Apache-2.0 */
/* cinch perf's own judge: it passes right results, and notices a wrong bit, a rank that was left
 * out, an error beyond the bound; and its data are what they claim to be. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/dtype.h"
#include "compress/reduce.h"
#include "perf/check.h"

enum { MOST_RANKS = 20, MOST_COUNT = 20000 };
static const int sizes[] = {1, 2, 3, 4, 7, 8, 16, 20};
static const size_t counts[] = {1, 2, 5, 255, 1000, 8193};
#define LENGTH(a) (int)(sizeof(a) / sizeof *(a))

static unsigned char input[MOST_RANKS][MOST_COUNT * 8], result[MOST_COUNT * 8];

/* What a right all-reduce of the ranks for which skip != rank would give. */
static void reduce(const cinch_data *data, size_t count, int skip) {
    const void *src[MOST_RANKS];
    void *dst = result;
    int n = 0;
    cinchRedOp_t op =
        data->op == CINCH_OP_MULSUM || data->op == CINCH_OP_AVG ? cinchSum : (cinchRedOp_t)data->op;
    for (int r = 0; r < data->nranks; r++) {
        cinch_data_fill(data, r, 0, count, input[r]);
        if (data->op == CINCH_OP_MULSUM)
            cinch_premul(input[r], input[r], data->dtype, count, data->table[cinch_data_scalar(r)]);
        if (r != skip) src[n++] = input[r];
    }
    cinch_reduce_reference(data->dtype, op)(&dst, 1, src, n, count,
                                            data->op == CINCH_OP_AVG ? data->nranks : 0, 0);
}

static uint64_t wrong(const cinch_data *data, size_t count) {
    cinch_check check = {.data = data};
    cinch_verdict verdict;
    ck_assert(cinch_check_result(&check, result, count, &verdict));
    ck_assert(verdict.judged);
    return verdict.wrong;
}

/* Calls f for every type, operator and number of ranks. */
static void for_all(cinch_data_kind kind, void (*f)(const cinch_data *data)) {
    for (int d = 0; d < cinchNumTypes; d++)
        for (int op = 0; op < CINCH_OP_COUNT; op++)
            for (int s = 0; s < LENGTH(sizes); s++) {
                cinch_data data;
                cinch_data_setup(&data, kind, NULL, sizes[s], (cinchDataType_t)d, (cinch_op)op);
                f(&data);
            }
}

#define WHERE "%s %d, %d ranks, %zu elements: %d"
#define HERE(n) cinch_dtype_name(data->dtype), (int)data->op, data->nranks, (n)

static void right_passes(const cinch_data *data) {
    for (int i = 0; i < LENGTH(counts); i++) {
        reduce(data, counts[i], -1);
        uint64_t n = wrong(data, counts[i]);
        ck_assert_msg(n == 0, WHERE, HERE(counts[i]), (int)n);
    }
}

START_TEST(right_results_pass) {
    for (int kind = CINCH_DATA_EXACT; kind <= CINCH_DATA_NONFINITE; kind++)
        for_all((cinch_data_kind)kind, right_passes);
}
END_TEST

/* One bit: of an integer any, of a float its sign, or the last where nothing may be off. */
static void bit_is_seen(const cinch_data *data) {
    size_t element = cinch_dtype_size(data->dtype), count = 1000, at = 700;
    bool is_float = cinch_dtype_is_float(data->dtype);
    bool last_bit = !is_float || (cinch_data_is_exact(data) && data->op != CINCH_OP_AVG);
    reduce(data, count, -1);
    double value;
    if (is_float) { /* not a zero's sign */
        for (at = 0; at < count; at++) {
            cinch_load_double(&value, result + at * element, data->dtype, 1);
            if (value != 0) break;
        }
        ck_assert(at < count);
    }
    result[last_bit ? at * element : (at + 1) * element - 1] ^= last_bit ? 1 : 0x80;
    uint64_t n = wrong(data, count);
    ck_assert_msg(n == 1, WHERE, HERE(count), (int)n);
}

START_TEST(one_bit_is_seen) {
    for_all(CINCH_DATA_EXACT, bit_is_seen);
}
END_TEST

static void loss_is_seen(const cinch_data *data) {
    size_t count = 2000;
    if (data->nranks == 1) return;
    for (int skip = 0; skip < data->nranks; skip += data->nranks - 1) {
        reduce(data, count, skip);
        ck_assert_msg(wrong(data, count) > 0, WHERE, HERE(count), skip);
    }
}

START_TEST(a_lost_rank_is_seen) {
    for_all(CINCH_DATA_EXACT, loss_is_seen);
}
END_TEST

static void codec_result(const cinch_data *data, const cinch_codec *codec, size_t from,
                         size_t count, bool sum_encoded) {
    static unsigned char wire[MOST_RANKS][MOST_COUNT * 8];
    size_t element = cinch_dtype_size(data->dtype);
    void *scratch =
        aligned_alloc(64, (cinch_codec_scratch(codec, data->dtype, count) + 64) / 64 * 64);
    cinch_codec_term term[MOST_RANKS];
    cinchCodecSite_t site = {.offset = from};
    uint64_t nonfinite = 0;
    int avg_n = data->op == CINCH_OP_AVG ? data->nranks : 0;
    for (int r = 0; r < data->nranks; r++) {
        cinch_data_fill(data, r, 0, from + count, input[r]);
        site.rank = (uint32_t)r;
        size_t bytes =
            cinch_codec_encode(codec, &site, NULL, data->dtype, input[r] + from * element, NULL,
                               count, wire[r], &nonfinite, scratch);
        term[r] = (cinch_codec_term){wire[r], bytes, NULL};
    }
    unsigned char *out = result + from * element;
    ck_assert_int_eq(cinch_codec_sum(codec, term, data->nranks, data->dtype, data->dtype, out,
                                     count, avg_n, scratch),
                     cinchSuccess);
    if (sum_encoded) {
        size_t bytes = cinch_codec_encode(codec, &site, NULL, data->dtype, out, NULL, count,
                                          wire[0], &nonfinite, scratch);
        term[0] = (cinch_codec_term){wire[0], bytes, NULL};
        cinch_codec_sum(codec, term, 1, data->dtype, data->dtype, out, count, 0, scratch);
    }
    free(scratch);
}

/* Results as the codec plans make them pass, wherever the ranks' shares begin; an element that is
 * off by some steps more does not. */
START_TEST(codec_bounds) {
    static const char *const specs[] = {"int8", "int8:block=64", "int8:block=4096",
                                        "int8:round=stochastic", "bf16"};
    static const cinchDataType_t dtypes[] = {cinchFloat32, cinchFloat16, cinchBfloat16};
    for (int s = 0; s < LENGTH(specs); s++)
        for (int d = 0; d < 3; d++)
            for (int kind = CINCH_DATA_EXACT; kind <= CINCH_DATA_NONFINITE; kind++)
                for (int avg = 0; avg < 2; avg++) {
                    cinch_codec codec;
                    cinch_data data;
                    cinch_verdict verdict;
                    char why[200];
                    size_t cut = 4567, count = MOST_COUNT;
                    ck_assert(cinch_codec_parse(specs[s], &codec, why, sizeof why));
                    cinch_data_setup(&data, (cinch_data_kind)kind, NULL, 3, dtypes[d],
                                     avg ? CINCH_OP_AVG : CINCH_OP_SUM);
                    cinch_check check = {&data, &codec, true};
                    codec_result(&data, &codec, 0, cut, true);
                    codec_result(&data, &codec, cut, count - cut, true);
                    ck_assert(cinch_check_result(&check, result, count, &verdict));
                    ck_assert(verdict.judged);
                    ck_assert_msg(verdict.wrong == 0, "%s %s kind %d avg %d: %d", specs[s],
                                  cinch_dtype_name(dtypes[d]), kind, avg, (int)verdict.wrong);
                    if (kind != CINCH_DATA_GAUSS) continue;
                    double value;
                    float off;
                    size_t element = cinch_dtype_size(dtypes[d]), at = 6000;
                    cinch_load_double(&value, result + at * element, dtypes[d], 1);
                    off =
                        (float)value +
                        0.4f; /* int8: 4 steps of about 0.015, rounded stochastically twice that */
                    cinch_narrow(result + at * element, dtypes[d], &off, 1);
                    ck_assert(cinch_check_result(&check, result, count, &verdict));
                    ck_assert_msg(verdict.wrong == 1, "%s: %d", specs[s], (int)verdict.wrong);
                }
}
END_TEST

START_TEST(codecs_without_a_bound_are_not_judged) {
    cinch_codec codec;
    cinch_data data;
    cinch_verdict verdict;
    char why[200];
    ck_assert(cinch_codec_parse("topk", &codec, why, sizeof why));
    cinch_data_setup(&data, CINCH_DATA_GAUSS, NULL, 2, cinchFloat32, CINCH_OP_SUM);
    cinch_check check = {&data, &codec, true};
    reduce(&data, 1000, -1);
    ck_assert(cinch_check_result(&check, result, 1000, &verdict));
    ck_assert(!verdict.judged);
    ck_assert(verdict.rel_l2 < 1e-6);
    memset(result, 0, 4000);
    ck_assert(cinch_check_result(&check, result, 1000, &verdict));
    ck_assert_double_eq_tol(verdict.rel_l2, 1, 1e-12);
}
END_TEST

/* Any piece of the data is what stands there in the whole. */
START_TEST(data_do_not_depend_on_pieces) {
    static unsigned char piece[MOST_COUNT * 8];
    for (int d = 0; d < cinchNumTypes; d++)
        for (int kind = CINCH_DATA_EXACT; kind <= CINCH_DATA_NONFINITE; kind++) {
            cinch_data data;
            size_t element = cinch_dtype_size((cinchDataType_t)d);
            cinch_data_setup(&data, (cinch_data_kind)kind, NULL, 9, (cinchDataType_t)d,
                             CINCH_OP_SUM);
            cinch_data_fill(&data, 3, 0, MOST_COUNT, result);
            for (size_t start = 0; start < 3000; start += 1 + start / 3) {
                size_t count = start * 5 + 1;
                cinch_data_fill(&data, 3, start, count, piece);
                ck_assert_mem_eq(piece, result + start * element, count * element);
            }
        }
}
END_TEST

/* N(0,1): moments, and the share of values beyond 1, 2 and 3. */
START_TEST(gauss_is_gauss) {
    static float v[MOST_COUNT];
    static const double share[] = {0.31731, 0.04550, 0.00270};
    cinch_data data;
    double moment[5] = {0}, beyond[3] = {0}, total = 0;
    cinch_data_setup(&data, CINCH_DATA_GAUSS, NULL, 1, cinchFloat32, CINCH_OP_SUM);
    for (int r = 0; r < 50; r++) {
        cinch_data_fill(&data, r, 0, MOST_COUNT, v);
        for (int i = 0; i < MOST_COUNT; i++) {
            for (int k = 1; k < 5; k++) moment[k] += pow(v[i], k);
            for (int k = 0; k < 3; k++) beyond[k] += fabsf(v[i]) > (float)(k + 1);
        }
        total += MOST_COUNT;
    }
    ck_assert_double_eq_tol(moment[1] / total, 0, 0.005);
    ck_assert_double_eq_tol(moment[2] / total, 1, 0.01);
    ck_assert_double_eq_tol(moment[3] / total, 0, 0.02);
    ck_assert_double_eq_tol(moment[4] / total, 3, 0.05);
    for (int k = 0; k < 3; k++)
        ck_assert_double_eq_tol(beyond[k] / total, share[k], 4 * sqrt(share[k] / total));
}
END_TEST

/* Ranks on different machines must make the same bits: this pins them. */
START_TEST(data_are_pinned) {
    static const uint64_t hashes[] = {0x003cc5073af2df90u, 0x3dd719c16e77490du, 0x5056497fef6546d1u,
                                      0xb16c715abd67e4e6u};
    for (int kind = CINCH_DATA_EXACT; kind <= CINCH_DATA_NONFINITE; kind++) {
        cinch_data data;
        cinch_data_setup(&data, (cinch_data_kind)kind, NULL, 3, cinchFloat32, CINCH_OP_SUM);
        cinch_data_fill(&data, 1, 0, MOST_COUNT, result);
        uint64_t hash = cinch_data_hash(result, MOST_COUNT * sizeof(float));
        ck_assert_msg(hash == hashes[kind], "kind %d: 0x%016llx", kind, (unsigned long long)hash);
    }
}
END_TEST

START_TEST(hash_sees_every_byte) {
    memset(result, 0, 200);
    for (size_t n = 0; n < 100; n++) {
        uint64_t hash = cinch_data_hash(result, n);
        ck_assert(hash != cinch_data_hash(result, n + 1));
        for (size_t i = 0; i < n; i++) {
            result[i] = 1;
            ck_assert(hash != cinch_data_hash(result, n));
            result[i] = 0;
        }
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("check");
    TCase *tcase = tcase_create("perf's judge");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, right_results_pass);
    tcase_add_test(tcase, one_bit_is_seen);
    tcase_add_test(tcase, a_lost_rank_is_seen);
    tcase_add_test(tcase, codec_bounds);
    tcase_add_test(tcase, codecs_without_a_bound_are_not_judged);
    tcase_add_test(tcase, data_do_not_depend_on_pieces);
    tcase_add_test(tcase, gauss_is_gauss);
    tcase_add_test(tcase, data_are_pinned);
    tcase_add_test(tcase, hash_sees_every_byte);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Measured curves and the choice by them: read between points, best at every size, few switches. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coll/choice.h"

static uint64_t random64(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static double random_unit(uint64_t *state) {
    return (double)(random64(state) >> 11) / 9007199254740992.0;
}

/* A curve of so many points from 4 bytes on, each 4 times the size of the one before. */
static cinch_curve *add(cinch_tuned *t, cinch_collective collective, const char *algo,
                        const char *codec, int points, const double *us) {
    cinch_curve *c;
    ck_assert_int_eq(cinch_tuned_curve(t, collective, algo, codec, &c), cinchSuccess);
    c->points = points;
    for (int i = 0; i < points; i++) {
        c->point[i].bytes = (uint64_t)4 << 2 * i;
        c->point[i].us = us[i];
    }
    return c;
}

/* ---- curves ---- */

START_TEST(curves_are_kept_by_name) {
    cinch_tuned t = {0};
    cinch_curve *c;
    char name[16];
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "a%d", i % 50);
        ck_assert_int_eq(cinch_tuned_curve(&t, i < 50 ? CINCH_ALLREDUCE : CINCH_REDUCE, name,
                                           i % 2 ? "int8" : "none", &c),
                         cinchSuccess);
        c->points = i;
    }
    ck_assert_int_eq(t.curves, 100);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "a%d", i % 50);
        cinch_tuned_curve(&t, i < 50 ? CINCH_ALLREDUCE : CINCH_REDUCE, name,
                          i % 2 ? "int8" : "none", &c);
        ck_assert_int_eq(c->points, i);
    }
    ck_assert_int_eq(t.curves, 100);
    cinch_tuned_curve(&t, CINCH_ALLREDUCE, "a0", "int8", &c); /* it has one with "none" */
    ck_assert_int_eq(t.curves, 101);
    cinch_tuned_free(&t);
    ck_assert(t.curves == 0 && t.curve == NULL);
}
END_TEST

START_TEST(a_curve_between_its_points) {
    cinch_tuned t = {0};
    double us[] = {3, 3.5, 4, 20, 19};
    cinch_curve *c = add(&t, CINCH_ALLREDUCE, "ring", "none", 5, us);
    for (int i = 0; i < 5; i++)
        ck_assert_double_eq_tol(cinch_curve_us(c, c->point[i].bytes), us[i], 1e-9);
    ck_assert_double_eq(cinch_curve_us(c, 0), 3);
    ck_assert_double_eq(cinch_curve_us(c, 1), 3);
    /* halfway in logarithms between 64 and 256 bytes: the geometric mean */
    ck_assert_double_eq_tol(cinch_curve_us(c, 128), sqrt(4 * 20), 1e-9);
    /* beyond: in proportion where the last slope is flatter, else by that slope */
    ck_assert_double_eq_tol(cinch_curve_us(c, 4096), 4 * 19, 1e-9);
    c->point[4].us = 160; /* eight times the time for four times the size */
    ck_assert_double_eq_tol(cinch_curve_us(c, 4096), 8 * 160, 1e-6);
    c->points = 1;
    ck_assert_double_eq_tol(cinch_curve_us(c, 16), 12, 1e-9);
    c->points = 0;
    ck_assert(isnan(cinch_curve_us(c, 16)));
    cinch_tuned_free(&t);
}
END_TEST

START_TEST(curves_stay_between_neighbours) {
    uint64_t state = 7;
    for (int round = 0; round < 200; round++) {
        cinch_tuned t = {0};
        double us[12];
        for (int i = 0; i < 12; i++) us[i] = exp(10 * random_unit(&state));
        cinch_curve *c = add(&t, CINCH_ALLREDUCE, "ring", "none", 12, us);
        for (int k = 0; k < 50; k++) {
            uint64_t bytes = 4 + random64(&state) % ((uint64_t)4 << 22);
            int i = 0;
            while (c->point[i + 1].bytes < bytes) i++;
            double got = cinch_curve_us(c, bytes), low = fmin(us[i], us[i + 1]);
            ck_assert(got >= low * (1 - 1e-9) && got <= fmax(us[i], us[i + 1]) * (1 + 1e-9));
        }
        cinch_tuned_free(&t);
    }
}
END_TEST

/* ---- the choice ---- */

static const char *const names[] = {"oneshot", "twoshot", "ring", "tree", "halving", "direct"};
enum { NAMES = 6, POINTS = 13 };

static const cinch_call any_call = {
    .collective = CINCH_ALLREDUCE, .nranks = 4, .windows = true, .small_bytes = 32768};

static void random_table(cinch_tuned *t, uint64_t *state, int first) {
    *t = (cinch_tuned){0};
    for (int a = first; a < NAMES; a++) {
        double us[POINTS], alpha = exp(3 * random_unit(state)), beta = 1e-4 * random_unit(state);
        for (int i = 0; i < POINTS; i++) /* with the noise of a measurement */
            us[i] = (alpha + beta * (double)((uint64_t)4 << 2 * i)) *
                    (0.97 + 0.06 * random_unit(state));
        add(t, CINCH_ALLREDUCE, names[a], "none", POINTS, us);
    }
}

static double best_us(const cinch_tuned *t, uint64_t bytes) {
    double least = INFINITY;
    for (int i = 0; i < t->curves; i++) least = fmin(least, cinch_curve_us(&t->curve[i], bytes));
    return least;
}

/* The fewest switches with which one can go through all classes and always be good. */
static int fewest_switches(const cinch_tuned *t, uint64_t most) {
    int cost[NAMES] = {0};
    for (uint64_t bytes = 1; bytes < most; bytes = cinch_choice_next(bytes)) {
        double least = best_us(t, bytes);
        int cheapest = 1 << 20, next[NAMES];
        for (int a = 0; a < t->curves; a++) cheapest = cost[a] < cheapest ? cost[a] : cheapest;
        for (int a = 0; a < t->curves; a++) {
            bool good = cinch_curve_us(&t->curve[a], bytes) <= 1.03 * least;
            int stay = cost[a], come = cheapest + (bytes > 1);
            next[a] = !good ? 1 << 20 : stay < come ? stay : come;
        }
        memcpy(cost, next, sizeof cost);
    }
    int fewest = 1 << 20;
    for (int a = 0; a < t->curves; a++) fewest = cost[a] < fewest ? cost[a] : fewest;
    return fewest;
}

START_TEST(a_forest_is_known_by_its_curves) {
    double us[] = {1, 2};
    cinch_tuned t = {0};
    cinch_choice *choice;
    cinch_codec none = {0};
    add(&t, CINCH_BROADCAST, "forest", "none", 2, us);
    add(&t, CINCH_REDUCE, "forest", "int8", 2, us);
    add(&t, CINCH_ALLREDUCE, "ring", "none", 2, us);
    ck_assert_int_eq(cinch_choice_make(&t, &none, &choice), cinchSuccess);
    for (int c = 0; c < CINCH_COLLECTIVES; c++)
        ck_assert(cinch_choice_has_forest(choice, (cinch_collective)c) ==
                  (c == CINCH_BROADCAST || c == CINCH_REDUCE));
    ck_assert(!cinch_choice_has_forest(NULL, CINCH_BROADCAST));
    cinch_choice_free(choice);
    cinch_tuned_free(&t);
}
END_TEST

START_TEST(the_best_with_few_switches) {
    uint64_t state = 42;
    int switched = 0;
    for (int round = 0; round < 60; round++) {
        cinch_tuned t;
        cinch_choice *choice;
        cinch_codec none = {0};
        random_table(&t, &state, 1); /* one-shot has a place of honour */
        ck_assert_int_eq(cinch_choice_make(&t, &none, &choice), cinchSuccess);
        const cinch_algo *last = NULL;
        int switches = -1;
        uint64_t most = (uint64_t)1 << 40;
        for (uint64_t bytes = 1; bytes < most; bytes = cinch_choice_next(bytes)) {
            cinch_call call = any_call;
            call.bytes = bytes;
            const cinch_algo *algo = cinch_choice_find(choice, &call);
            const cinch_curve *curve = cinch_choice_curve(&t, CINCH_ALLREDUCE, algo->name, NULL);
            ck_assert_msg(cinch_curve_us(curve, bytes) <= 1.03 * best_us(&t, bytes) * (1 + 1e-9),
                          "%s at %llu", algo->name, (unsigned long long)bytes);
            switches += algo != last;
            last = algo;
        }
        ck_assert_int_eq(switches, fewest_switches(&t, most));
        switched += switches;
        cinch_choice_free(choice);
        cinch_tuned_free(&t);
    }
    ck_assert_int_gt(switched, 30); /* the tables do cross */
}
END_TEST

/* Of two that are as good, the one that stays so. */
START_TEST(the_one_that_lasts) {
    cinch_tuned t = {0};
    cinch_choice *choice;
    cinch_codec none = {0};
    double ring[] = {1, 1, 9, 9, 9, 9}, tree[] = {9, 1.50, 1.50, 1.50, 9, 9},
           direct[] = {9, 1.53, 1.53, 1.53, 1.53, 1.53};
    add(&t, CINCH_ALLREDUCE, "ring", "none", 6, ring);
    add(&t, CINCH_ALLREDUCE, "tree", "none", 6, tree);
    add(&t, CINCH_ALLREDUCE, "direct", "none", 6, direct);
    cinch_choice_make(&t, &none, &choice);
    cinch_call call = any_call;
    for (call.bytes = 1; call.bytes <= 4096; call.bytes++) {
        const char *name = cinch_choice_find(choice, &call)->name;
        if (call.bytes <= 16) ck_assert_str_eq(name, "ring");
        if (call.bytes >= 64) ck_assert_str_eq(name, "direct");
        ck_assert_str_ne(name, "tree");
    }
    cinch_choice_free(choice);
    cinch_tuned_free(&t);
}
END_TEST

/* Sizes between the steps of the classes are not far off either. */
START_TEST(any_size) {
    uint64_t state = 99;
    for (int round = 0; round < 60; round++) {
        cinch_tuned t;
        cinch_choice *choice;
        cinch_codec none = {0};
        random_table(&t, &state, 0);
        cinch_choice_make(&t, &none, &choice);
        for (int k = 0; k < 200; k++) {
            cinch_call call = any_call;
            call.bytes = (size_t)exp(18 * random_unit(&state));
            const cinch_algo *algo = cinch_choice_find(choice, &call);
            const cinch_curve *curve = cinch_choice_curve(&t, CINCH_ALLREDUCE, algo->name, NULL);
            /* a class is an eighth of an octave or more: times differ by no more than sizes do */
            ck_assert_double_le(cinch_curve_us(curve, call.bytes),
                                1.03 * 1.13 * best_us(&t, call.bytes));
        }
        cinch_choice_free(choice);
        cinch_tuned_free(&t);
    }
}
END_TEST

START_TEST(one_shot_first_where_it_is_as_good) {
    cinch_tuned t = {0};
    cinch_choice *choice;
    cinch_codec none = {0};
    double one[] = {1.02, 1.02, 1.02, 1.5}, tree[] = {1, 1, 1, 1};
    add(&t, CINCH_ALLREDUCE, "oneshot", "none", 4, one);
    add(&t, CINCH_ALLREDUCE, "tree", "none", 4, tree);
    cinch_choice_make(&t, &none, &choice);
    cinch_call call = any_call;
    for (call.bytes = 1; call.bytes <= 64; call.bytes++)
        ck_assert_str_eq(cinch_choice_find(choice, &call)->name, "oneshot");
    call.bytes = 256;
    ck_assert_str_eq(cinch_choice_find(choice, &call)->name, "tree");
    /* one-shot serves those with windows alone, and no codec has a curve */
    call = any_call;
    call.bytes = 4;
    call.windows = false;
    ck_assert_str_eq(cinch_choice_find(choice, &call)->name, "tree");
    call.encoded = true;
    ck_assert_ptr_null(cinch_choice_find(choice, &call));
    call = any_call;
    call.collective = CINCH_BROADCAST;
    ck_assert_ptr_null(cinch_choice_find(choice, &call));
    ck_assert(cinch_choice_knows(choice, CINCH_ALLREDUCE, false));
    ck_assert(!cinch_choice_knows(choice, CINCH_ALLREDUCE, true));
    ck_assert(!cinch_choice_knows(choice, CINCH_BROADCAST, false));
    cinch_choice_free(choice);
    cinch_tuned_free(&t);
}
END_TEST

/* The sizes of a curve are those of all blocks together. */
START_TEST(blocks_count_together) {
    cinch_tuned t = {0};
    cinch_choice *choice;
    cinch_codec none = {0};
    double ring[] = {10, 10, 10, 10, 1, 1}, direct[] = {1, 1, 1, 10, 10, 10};
    add(&t, CINCH_ALLGATHER, "ring", "none", 6, ring);
    add(&t, CINCH_ALLGATHER, "direct", "none", 6, direct);
    cinch_choice_make(&t, &none, &choice);
    cinch_call call = any_call;
    call.collective = CINCH_ALLGATHER;
    call.bytes = 64 / 4; /* 64 in all */
    ck_assert_str_eq(cinch_choice_find(choice, &call)->name, "direct");
    call.bytes = 1024 / 4;
    ck_assert_str_eq(cinch_choice_find(choice, &call)->name, "ring");
    cinch_choice_free(choice);
    cinch_tuned_free(&t);
}
END_TEST

/* ---- codecs ---- */

static cinch_codec parsed(const char *spec) {
    cinch_codec codec;
    char why[256];
    ck_assert_msg(cinch_codec_parse(spec, &codec, why, sizeof why), "%s", why);
    return codec;
}

START_TEST(a_codec_has_its_own_curves) {
    cinch_tuned t = {0};
    cinch_codec plain = parsed("int8"), small = parsed("int8:block=64"), other = parsed("bf16");
    cinch_codec same = parsed("int8:block=256"), feedback = parsed("int8:ef=1");
    double us[] = {1, 2, 3};
    add(&t, CINCH_ALLREDUCE, "twostep", "none", 3, us);
    int of_128 = (int)(add(&t, CINCH_ALLREDUCE, "twostep", "int8:block=128", 3, us) - t.curve);
    ck_assert_ptr_eq(cinch_choice_curve(&t, CINCH_ALLREDUCE, "twostep", &plain), t.curve + of_128);
    int of_256 = (int)(add(&t, CINCH_ALLREDUCE, "twostep", "int8", 3, us) - t.curve);
    int of_64 = (int)(add(&t, CINCH_ALLREDUCE, "twostep", "int8:block=64", 3, us) - t.curve);
    ck_assert_ptr_eq(cinch_choice_curve(&t, CINCH_ALLREDUCE, "twostep", &plain), t.curve + of_256);
    ck_assert_ptr_eq(cinch_choice_curve(&t, CINCH_ALLREDUCE, "twostep", &same), t.curve + of_256);
    ck_assert_ptr_eq(cinch_choice_curve(&t, CINCH_ALLREDUCE, "twostep", &small), t.curve + of_64);
    ck_assert_ptr_nonnull(cinch_choice_curve(&t, CINCH_ALLREDUCE, "twostep", &feedback));
    ck_assert_ptr_null(cinch_choice_curve(&t, CINCH_ALLREDUCE, "twostep", &other));
    ck_assert_ptr_null(cinch_choice_curve(&t, CINCH_ALLREDUCE, "exchange", &plain));
    ck_assert_ptr_eq(cinch_choice_curve(&t, CINCH_ALLREDUCE, "twostep", NULL), t.curve);
    ck_assert_ptr_null(cinch_choice_curve(NULL, CINCH_ALLREDUCE, "twostep", NULL));
    cinch_tuned_free(&t);
}
END_TEST

/* Never where it is predicted to be slower, always where it is clearly faster. */
START_TEST(a_codec_pays) {
    uint64_t state = 5;
    int paid = 0, sizes = 0;
    cinch_codec int8 = parsed("int8");
    for (int round = 0; round < 60; round++) {
        cinch_tuned t;
        cinch_choice *choice;
        double us[POINTS];
        random_table(&t, &state, 0);
        int exact = t.curves;
        for (int i = 0; i < POINTS; i++)
            us[i] = best_us(&t, (uint64_t)4 << 2 * i) * (0.5 + random_unit(&state));
        cinch_curve coded = *add(&t, CINCH_ALLREDUCE, "twostep", "int8", POINTS, us);
        cinch_choice_make(&t, &int8, &choice);
        t.curves = exact;
        for (uint64_t bytes = 1; bytes < (uint64_t)1 << 40; bytes = cinch_choice_next(bytes)) {
            bool wins = bytes >= 4 && cinch_curve_us(&coded, bytes) * 1.03 <= best_us(&t, bytes);
            ck_assert_int_eq(cinch_choice_pays(choice, CINCH_ALLREDUCE, bytes), wins);
            ck_assert_int_eq(cinch_choice_pays(choice, CINCH_REDUCESCATTER, bytes), wins);
            ck_assert_int_eq(cinch_choice_pays(choice, CINCH_ALLGATHER, bytes), wins);
            ck_assert(!cinch_choice_pays(choice, CINCH_BROADCAST, bytes));
            paid += wins, sizes++;
        }
        cinch_choice_free(choice);
        cinch_tuned_free(&t);
    }
    ck_assert(paid > sizes / 10 && paid < sizes * 9 / 10);
    ck_assert(!cinch_choice_pays(NULL, CINCH_ALLREDUCE, 1 << 20));
}
END_TEST

/* What was measured with long messages alone says nothing of short ones, and a codec is taken only
 * where it was measured. */
START_TEST(curves_of_long_messages) {
    cinch_tuned t = {0};
    cinch_choice *choice;
    cinch_codec int8 = parsed("int8");
    double us[] = {400, 1600, 6400}, less[] = {40, 160, 640};
    cinch_curve *curves[] = {add(&t, CINCH_ALLREDUCE, "ring", "none", 3, us),
                             add(&t, CINCH_ALLREDUCE, "twostep", "int8", 3, less)};
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 3; k++) curves[i]->point[k].bytes <<= 16;
    cinch_choice_make(&t, &int8, &choice);
    cinch_call call = any_call;
    for (uint64_t bytes = 1; bytes < (uint64_t)1 << 30; bytes = cinch_choice_next(bytes)) {
        call.bytes = bytes;
        call.encoded = false;
        ck_assert_int_eq(cinch_choice_find(choice, &call) != NULL, bytes >= 4 << 16);
        call.encoded = true;
        ck_assert_int_eq(cinch_choice_find(choice, &call) != NULL, bytes >= 4 << 16);
        ck_assert_int_eq(cinch_choice_pays(choice, CINCH_ALLREDUCE, bytes), bytes >= 4 << 16);
    }
    cinch_choice_free(choice);
    cinch_tuned_free(&t);
}
END_TEST

START_TEST(classes_ascend) {
    uint64_t at = 1, before = 0;
    int classes = 0;
    for (; at != UINT64_MAX; at = cinch_choice_next(at)) {
        ck_assert_uint_gt(at, before);
        if (before >= 8) ck_assert_double_le((double)at / (double)before, 1.125 + 1e-9);
        ck_assert_uint_eq(cinch_choice_next(at - 1), at - 1 == 0 ? 1 : at);
        before = at;
        classes++;
    }
    ck_assert_int_gt(classes, 300);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("tuned");
    TCase *all = tcase_create("tuned");
    tcase_add_test(all, curves_are_kept_by_name);
    tcase_add_test(all, a_curve_between_its_points);
    tcase_add_test(all, curves_stay_between_neighbours);
    tcase_add_test(all, a_forest_is_known_by_its_curves);
    tcase_add_test(all, the_best_with_few_switches);
    tcase_add_test(all, the_one_that_lasts);
    tcase_add_test(all, any_size);
    tcase_add_test(all, one_shot_first_where_it_is_as_good);
    tcase_add_test(all, blocks_count_together);
    tcase_add_test(all, a_codec_has_its_own_curves);
    tcase_add_test(all, a_codec_pays);
    tcase_add_test(all, curves_of_long_messages);
    tcase_add_test(all, classes_ascend);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

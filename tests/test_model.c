/* SPDX-License-Identifier: Apache-2.0 */
/* The model of `cinch train`: products, gradients against finite differences, learning, text.
 * Built twice, with float and with double: the second checks gradients far more tightly. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "perf/model.h"
#include "perf/train_text.h"

static const double ULP = sizeof(cinch_real) == sizeof(float) ? FLT_EPSILON : DBL_EPSILON;

static double uniform(uint64_t seed, uint64_t i) { /* in [-1, 1) */
    return (double)(cinch_model_random(seed, i, 0) >> 11) * 0x1p-52 - 1;
}

static cinch_real *filled(size_t count, uint64_t seed) {
    cinch_real *at = malloc(count * sizeof *at);
    ck_assert_ptr_nonnull(at);
    for (size_t i = 0; i < count; i++) at[i] = (cinch_real)uniform(seed, i);
    return at;
}

/* One product of each kind against three plain loops, inside a larger matrix of marks. */
static void check_product(int m, int n, int k, uint64_t seed, cinch_real *scratch) {
    const int ldc = n + 3;
    cinch_real *a = filled((size_t)m * (size_t)k, seed),
               *b = filled((size_t)k * (size_t)n, seed + 1);
    cinch_real *c = malloc((size_t)(m + 1) * (size_t)ldc * sizeof *c);
    ck_assert_ptr_nonnull(c);
    for (int kind = 0; kind < 8; kind++) {
        const bool turn_a = kind & 1, turn_b = kind & 2, accumulate = kind & 4;
        const cinch_matrix ma = turn_a ? (cinch_matrix){a, 1, m} : (cinch_matrix){a, k, 1};
        const cinch_matrix mb = turn_b ? (cinch_matrix){b, 1, k} : (cinch_matrix){b, n, 1};
        for (int i = 0; i < (m + 1) * ldc; i++) c[i] = 7;
        cinch_gemm(c, ldc, ma, mb, m, n, k, accumulate, scratch);
        for (int i = 0; i <= m; i++) {
            for (int j = 0; j < ldc; j++) {
                const double got = (double)c[i * ldc + j];
                if (i == m || j >= n) {
                    ck_assert_msg(got == 7, "%dx%dx%d wrote outside", m, n, k);
                    continue;
                }
                double want = accumulate ? 7 : 0, size = want;
                for (int p = 0; p < k; p++) {
                    const double term = (double)ma.at[i * ma.row + p * ma.col] *
                                        (double)mb.at[p * mb.row + j * mb.col];
                    want += term;
                    size += fabs(term);
                }
                ck_assert_msg(fabs(got - want) <= ULP * (k + 2) * (size + 1e-30),
                              "%dx%dx%d kind %d (%d, %d): %g, not %g", m, n, k, kind, i, j, got,
                              want);
            }
        }
    }
    free(a);
    free(b);
    free(c);
}

START_TEST(products) {
    cinch_real *scratch = aligned_alloc(64, cinch_gemm_scratch() * sizeof *scratch);
    ck_assert_ptr_nonnull(scratch);
    for (int m = 1; m <= 14; m += 1) {
        for (int n = 1; n <= 35; n += 3)
            check_product(m, n, m + n, (uint64_t)(100 * m + n), scratch);
    }
    check_product(97, 257, 3, 1, scratch); /* beyond a block in each direction */
    check_product(5, 18, 513, 2, scratch);
    check_product(200, 33, 257, 3, scratch);
    free(scratch);
}
END_TEST

static const cinch_model_shape small = {.vocabulary = 11,
                                        .context = 7,
                                        .reach = 3,
                                        .layers = 2,
                                        .width = 12,
                                        .heads = 3,
                                        .hidden = 20,
                                        .windows = 3};
enum { SMALL_ROWS = 7 * 3 };

/* A small model away from its start, where gains are 1, and a batch for it. */
static void make_small(cinch_model *model, uint8_t *input, uint8_t *target) {
    ck_assert(cinch_model_make(model, &small, 5));
    for (size_t i = 0; i < model->count; i++)
        model->parameters[i] += (cinch_real)(0.3 * uniform(6, i));
    for (size_t i = 0; i < SMALL_ROWS; i++) {
        input[i] = (uint8_t)(cinch_model_random(7, i, 0) % 11);
        target[i] = (uint8_t)(cinch_model_random(8, i, 0) % 11);
    }
}

/* The mean loss with `step` times a direction added to one tensor. */
static double loss_at(cinch_model *model, const cinch_model_tensor *tensor,
                      const cinch_real *direction, double step, const uint8_t *input,
                      const uint8_t *target) {
    cinch_real *at = model->parameters + tensor->offset;
    cinch_real *kept = malloc(tensor->count * sizeof *kept);
    ck_assert_ptr_nonnull(kept);
    memcpy(kept, at, tensor->count * sizeof *kept);
    for (size_t i = 0; i < tensor->count; i++) at[i] += (cinch_real)step * direction[i];
    const double loss = cinch_model_forward(model, input, target, small.windows) / SMALL_ROWS;
    memcpy(at, kept, tensor->count * sizeof *kept);
    free(kept);
    return loss;
}

/* Along the gradient's own direction, where the difference is largest against rounding, and along
 * random ones, which every element takes part in. */
START_TEST(gradients) {
    const bool tight = sizeof(cinch_real) == sizeof(double);
    const double step = tight ? 1e-5 : 1e-2;
    cinch_model model;
    uint8_t input[SMALL_ROWS], target[SMALL_ROWS];
    make_small(&model, input, target);
    ck_assert_int_eq(model.tensors, 4 + 6 * 2);
    cinch_model_forward(&model, input, target, small.windows);
    cinch_model_backward(&model, input, target, small.windows);
    for (int t = 0; t < model.tensors; t++) {
        const cinch_model_tensor *tensor = &model.tensor[t];
        const cinch_real *gradient = model.gradient + tensor->offset;
        double length = 0;
        for (size_t i = 0; i < tensor->count; i++)
            length += (double)gradient[i] * (double)gradient[i];
        length = sqrt(length);
        ck_assert_msg(length > 1e-3, "%s of layer %d has no gradient", tensor->name, tensor->layer);
        for (int way = 0; way < 4; way++) {
            cinch_real *direction = filled(tensor->count, (uint64_t)(100 * t + way));
            double want = 0, norm = 0;
            for (size_t i = 0; i < tensor->count; i++) {
                if (way == 0) direction[i] = gradient[i];
                norm += (double)direction[i] * (double)direction[i];
            }
            for (size_t i = 0; i < tensor->count; i++) {
                direction[i] /= (cinch_real)sqrt(norm);
                want += (double)direction[i] * (double)gradient[i];
            }
            const double got = (loss_at(&model, tensor, direction, step, input, target) -
                                loss_at(&model, tensor, direction, -step, input, target)) /
                               (2 * step);
            ck_assert_msg(fabs(got - want) <= (tight ? 1e-7 : 1e-3) * (1 + length),
                          "%s of layer %d, direction %d: %g, not %g", tensor->name, tensor->layer,
                          way, want, got);
            free(direction);
        }
    }
    cinch_model_free(&model);
}
END_TEST

/* Every element by itself: only double has the digits for that. */
START_TEST(gradient_of_each_element) {
    cinch_model model;
    uint8_t input[SMALL_ROWS], target[SMALL_ROWS];
    if (sizeof(cinch_real) == sizeof(float)) return;
    make_small(&model, input, target);
    cinch_model_forward(&model, input, target, small.windows);
    cinch_model_backward(&model, input, target, small.windows);
    const double step = 1e-5;
    for (size_t i = 0; i < model.count; i++) {
        const cinch_real kept = model.parameters[i];
        model.parameters[i] = kept + (cinch_real)step;
        const double above = cinch_model_forward(&model, input, target, small.windows);
        model.parameters[i] = kept - (cinch_real)step;
        const double below = cinch_model_forward(&model, input, target, small.windows);
        model.parameters[i] = kept;
        const double got = (above - below) / (2 * step * SMALL_ROWS);
        ck_assert_msg(fabs(got - (double)model.gradient[i]) <= 1e-7 * (1 + fabs(got)),
                      "parameter %zu: %g, not %g", i, (double)model.gradient[i], got);
    }
    cinch_model_free(&model);
}
END_TEST

/* No symbol sees what stands behind it: a change there leaves its loss alone. */
START_TEST(causal) {
    cinch_model model;
    uint8_t input[SMALL_ROWS], target[SMALL_ROWS];
    make_small(&model, input, target);
    cinch_model_forward(&model, input, target, small.windows);
    enum { ROW = 11, BEFORE = 4 };
    cinch_real kept[(BEFORE + 1) * ROW];
    memcpy(kept, model.probability, sizeof kept);
    input[BEFORE] = (uint8_t)((input[BEFORE] + 1) % small.vocabulary);
    cinch_model_forward(&model, input, target, small.windows);
    const cinch_real *now = model.probability;
    ck_assert_mem_eq(now, kept, BEFORE * ROW * sizeof *kept);
    ck_assert_mem_ne(now + BEFORE * ROW, kept + BEFORE * ROW, ROW * sizeof *kept);
    cinch_model_free(&model);
}
END_TEST

/* Trains on a sentence over and over; returns the last loss and the parameters' bytes. */
static double learn(double *first, cinch_real *parameters, size_t room) {
    static const char sentence[] = "the same call, the same answer on every rank. ";
    enum { WINDOWS = 4, CONTEXT = 16, STEPS = 80 };
    const cinch_model_shape shape = {.vocabulary = 128,
                                     .context = CONTEXT,
                                     .reach = 1,
                                     .layers = 1,
                                     .width = 32,
                                     .heads = 2,
                                     .hidden = 64,
                                     .windows = WINDOWS};
    cinch_model model;
    cinch_adamw adamw;
    uint8_t input[WINDOWS * CONTEXT], target[WINDOWS * CONTEXT];
    double loss = 0;
    ck_assert(cinch_model_make(&model, &shape, 1));
    ck_assert(cinch_adamw_make(&adamw, &model, 0.9, 0.99));
    for (int step = 0; step < STEPS; step++) {
        for (size_t i = 0; i < WINDOWS * CONTEXT; i++) {
            const size_t at =
                cinch_model_random(3, (uint64_t)step, i / CONTEXT) % 1000 + i % CONTEXT;
            input[i] = (uint8_t)sentence[at % (sizeof sentence - 1)];
            target[i] = (uint8_t)sentence[(at + 1) % (sizeof sentence - 1)];
        }
        loss = cinch_model_forward(&model, input, target, WINDOWS) / (WINDOWS * CONTEXT);
        if (!step) *first = loss;
        cinch_model_backward(&model, input, target, WINDOWS);
        cinch_adamw_step(&adamw, &model, model.gradient, 5e-3);
    }
    ck_assert_uint_ge(room, model.count);
    memcpy(parameters, model.parameters, model.count * sizeof *parameters);
    cinch_adamw_free(&adamw);
    cinch_model_free(&model);
    return loss;
}

START_TEST(learns_and_repeats) {
    enum { ROOM = 30000 };
    cinch_real *one = calloc(ROOM, sizeof *one), *two = calloc(ROOM, sizeof *two);
    double first = 0;
    const double last = learn(&first, one, ROOM);
    ck_assert_double_eq_tol(first, log(128), 0.2);
    ck_assert_double_lt(last, first / 4);
    ck_assert_double_eq(last, learn(&first, two, ROOM));
    ck_assert_mem_eq(one, two, ROOM * sizeof *one);
    free(one);
    free(two);
}
END_TEST

/* Two steps of AdamW against its formula. */
START_TEST(optimizer) {
    cinch_model model;
    cinch_adamw adamw;
    ck_assert(cinch_model_make(&model, &small, 9));
    ck_assert(cinch_adamw_make(&adamw, &model, 0.8, 0.9));
    for (int t = 0; t < model.tensors; t += 2) { /* embed decays, a gain does not */
        const size_t i = model.tensor[t].offset;
        const double decay = model.tensor[t].spread > 0 ? 1 - 0.1 * adamw.decay : 1;
        double p = (double)model.parameters[i], m = 0, v = 0;
        memset(adamw.first, 0, model.count * sizeof *adamw.first);
        memset(adamw.second, 0, model.count * sizeof *adamw.second);
        adamw.step = 0;
        for (int step = 1; step <= 2; step++) {
            const double g = 0.5 * step;
            memset(model.gradient, 0, model.count * sizeof *model.gradient);
            model.gradient[i] = (cinch_real)g;
            m = 0.8 * m + 0.2 * g;
            v = 0.9 * v + 0.1 * g * g;
            p = p * decay -
                0.1 * (m / (1 - pow(0.8, step))) / (sqrt(v / (1 - pow(0.9, step))) + adamw.epsilon);
            cinch_adamw_step(&adamw, &model, model.gradient, 0.1);
        }
        ck_assert_double_eq_tol((double)model.parameters[i], p, 100 * ULP);
        model.parameters[i] = (cinch_real)p;
    }
    cinch_adamw_free(&adamw);
    cinch_model_free(&model);
}
END_TEST

/* After 15 tiny gradients a large one would move each element by almost 4 times the rate. */
START_TEST(optimizer_bound) {
    cinch_model model;
    cinch_adamw adamw;
    ck_assert(cinch_model_make(&model, &small, 9));
    ck_assert(cinch_adamw_make(&adamw, &model, 0, 0.99));
    adamw.decay = 0;
    const size_t last = model.count - 1;
    for (size_t i = 0; i < model.count; i++) model.gradient[i] = (cinch_real)1e-3;
    for (int step = 0; step < 15; step++) cinch_adamw_step(&adamw, &model, model.gradient, 0.1);
    const double before = (double)model.parameters[last];
    for (size_t i = 0; i < model.count; i++) model.gradient[i] = -1;
    cinch_adamw_step(&adamw, &model, model.gradient, 0.1);
    ck_assert_double_eq_tol((double)model.parameters[last] - before, 0.1 * adamw.bound, 200 * ULP);
    cinch_adamw_free(&adamw);
    cinch_model_free(&model);
}
END_TEST

/* A file of `length` bytes that differ from place to place, without a name of its own: path gets
 * one that holds until the descriptor, which is returned, is closed. */
static int write_text(char path[32], size_t length) {
    const int fd = memfd_create("text", MFD_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    for (size_t i = 0; i < length; i++) {
        const char byte = (char)('a' + cinch_model_random(4, i, 0) % 26);
        ck_assert_int_eq(write(fd, &byte, 1), 1);
    }
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return fd;
}

/* Batches come from the seed, step and rank, and never from what is held out. */
START_TEST(text_parts) {
    enum { LENGTH = 20000, CONTEXT = 10, WINDOWS = 50 };
    char path[32], why[512];
    uint8_t input[WINDOWS * CONTEXT], target[WINDOWS * CONTEXT], again[WINDOWS * CONTEXT];
    cinch_text text;
    const int fd = write_text(path, LENGTH);
    ck_assert_msg(cinch_text_load(&text, path, why, sizeof why), "%s", why);
    close(fd);
    ck_assert_int_eq(text.vocabulary, 26);
    ck_assert_uint_eq(text.length, LENGTH);

    /* With every symbol replaced by whether it is held out, no batch may show one, and every
     * held-out window only such. */
    const size_t stretch = LENGTH / CINCH_TEXT_STRETCHES;
    const int held = cinch_text_held_count(&text, CONTEXT);
    ck_assert_int_ge(held, LENGTH / 10 / CONTEXT * 8 / 10);
    cinch_text_batch(&text, CONTEXT, 1, 2, 3, WINDOWS, input, target);
    cinch_text_batch(&text, CONTEXT, 1, 2, 3, WINDOWS, again, target);
    ck_assert_mem_eq(input, again, sizeof input);
    ck_assert_mem_eq(input + 1, target, CONTEXT - 1);
    for (int other = 0; other < 3; other++) {
        cinch_text_batch(&text, CONTEXT, 1 + (other == 0), 2 + (other == 1), 3 + (other == 2),
                         WINDOWS, again, target);
        ck_assert_mem_ne(input, again, sizeof input);
    }
    for (size_t i = 0; i < LENGTH; i++) {
        text.symbol[i] =
            i % stretch >= stretch - stretch / 10 || i >= stretch * CINCH_TEXT_STRETCHES;
    }
    for (uint64_t step = 0; step < 200; step++) {
        cinch_text_batch(&text, CONTEXT, 1, step, 0, WINDOWS, input, target);
        for (int i = 0; i < WINDOWS * CONTEXT; i++) ck_assert(!input[i] && !target[i]);
    }
    for (int i = 0; i < held; i++) {
        cinch_text_held_window(&text, CONTEXT, i, input, target);
        for (int j = 0; j < CONTEXT; j++) ck_assert(input[j] && target[j]);
    }
    cinch_text_free(&text);
}
END_TEST

START_TEST(text_refused) {
    char path[32], why[512] = "";
    cinch_text text;
    const int fd = write_text(path, CINCH_TEXT_LEAST - 1);
    ck_assert(!cinch_text_load(&text, path, why, sizeof why));
    ck_assert_ptr_nonnull(strstr(why, path));
    ck_assert_ptr_nonnull(strstr(why, "16383 bytes: at least 16384"));
    close(fd);
    ck_assert(!cinch_text_load(&text, path, why, sizeof why));
    ck_assert_ptr_nonnull(strstr(why, "No such file"));
    ck_assert(!cinch_text_load(&text, "/", why, sizeof why));
    ck_assert_ptr_nonnull(strstr(why, "irectory"));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("model");
    TCase *tests = tcase_create("model");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, products);
    tcase_add_test(tests, gradients);
    tcase_add_test(tests, gradient_of_each_element);
    tcase_add_test(tests, causal);
    tcase_add_test(tests, learns_and_repeats);
    tcase_add_test(tests, optimizer);
    tcase_add_test(tests, optimizer_bound);
    tcase_add_test(tests, text_parts);
    tcase_add_test(tests, text_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The charts of `cinch perf --plot`: lines for what was measured, and one for what is possible. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/plot.h"

static const double x[] = {4, 1024, 1048576}, y[] = {0.5, 3, 7};

/* The chart as text; the caller frees it. */
static char *draw(const char *label, double bound) {
    cinch_plot_series series = {"float sum", x, y, 3};
    cinch_plot plot = {.title = "a <chart>",
                       .x_label = "bytes",
                       .y_label = "GB/s",
                       .x_log = true,
                       .x_bytes = true,
                       .series = &series,
                       .count = 1,
                       .bound_label = label,
                       .bound = bound};
    char path[] = "/tmp/cinch-plot-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    ck_assert_int_eq(cinch_plot_write(path, &plot), cinchSuccess);
    char *text = calloc(1, 1 << 16);
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_gt(fread(text, 1, (1 << 16) - 1, f), 0);
    fclose(f);
    unlink(path);
    return text;
}

/* Where the dashed line is, from the top; -1: there is none. */
static double bound_at(const char *svg) {
    const char *dashed = strstr(svg, "stroke-dasharray=\"8 4\""), *line = svg, *last = NULL;
    double at = -1;
    while (dashed && (line = strstr(line, "<line x1=")) && line < dashed) last = line++;
    if (last) ck_assert_int_eq(sscanf(last, "<line x1=\"%*d\" y1=\"%lf\"", &at), 1);
    return at;
}

/* The height of the measured line's highest point. */
static double highest(const char *svg) {
    double at = -1;
    const char *last = strstr(svg, "<circle");
    ck_assert_ptr_nonnull(last);
    for (const char *c = last; (c = strstr(c, "<circle")); c++) last = c;
    ck_assert_int_eq(sscanf(last, "<circle cx=\"%*f\" cy=\"%lf\"", &at), 1);
    return at;
}

START_TEST(a_bound_is_a_line_with_its_label) {
    static const double bounds[] = {7, 12.5, 400};
    double before = -1;
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        char *svg = draw("at most <so> much", bounds[i]);
        ck_assert_ptr_nonnull(strstr(svg, "at most &lt;so> much"));
        ck_assert_ptr_nonnull(strstr(svg, "float sum"));
        if (bounds[i] == 7)
            ck_assert_double_eq_tol(bound_at(svg), highest(svg), 0.11);
        else
            ck_assert_double_lt(bound_at(svg), highest(svg)); /* the axis begins at the bottom */
        ck_assert_double_gt(highest(svg), before);            /* and reaches to the bound */
        before = highest(svg);
        free(svg);
    }
}
END_TEST

START_TEST(no_bound_is_no_line) {
    char *plain = draw(NULL, 100);
    static const double none[] = {0, -1, NAN, INFINITY};
    ck_assert_double_eq(bound_at(plain), -1);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        char *svg = draw("at most", none[i]);
        ck_assert_str_eq(svg, plain);
        free(svg);
    }
    free(plain);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("plot");
    TCase *cases = tcase_create("plot");
    tcase_add_test(cases, a_bound_is_a_line_with_its_label);
    tcase_add_test(cases, no_bound_is_no_line);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

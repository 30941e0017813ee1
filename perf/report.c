/* SPDX-License-Identifier: Apache-2.0 */
/* cinch perf: the table, the JSON lines and the plot. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "compress/dtype.h"
#include "perf/json.h"
#include "perf/perf.h"
#include "perf/plot.h"

/* GB/s, of 1e9 bytes. */
static double algbw(const cinch_row *row) {
    return (double)row->bytes / (row->time_us * 1e3);
}

static double busbw(const cinch_report *report, const cinch_row *row) {
    return algbw(row) * cinch_bus_factor(report->options->operation, report->ranks);
}

static bool cannot_write(const char *path, int err) {
    cinch_usage(&cinch_perf_command, "cannot write %s: %s", path, strerror(err));
    return false;
}

bool cinch_report_open(cinch_report *report, const cinch_perf_options *o, int ranks) {
    bool json_on_stdout = o->json && !strcmp(o->json, "-");
    *report = (cinch_report){
        .options = o, .ranks = ranks, .bound_GBps = NAN, .table = json_on_stdout ? stderr : stdout};
    if (json_on_stdout)
        report->json = stdout;
    else if (o->json && !(report->json = fopen(o->json, "we")))
        return cannot_write(o->json, errno);
    return true;
}

static void print_head(const cinch_report *report) {
    const cinch_perf_options *o = report->options;
    fprintf(report->table,
            "# cinch %s  %s  %d ranks  %s, %s%s\n"
            "# %10s %11s %8s %6s %4s %9s %-10s %-9s %11s %11s %8s %8s %11s %8s %9s\n"
            "# %10s %11s %8s %6s %4s %9s %-10s %-9s %11s %11s %8s %8s %11s %8s %9s\n",
            CINCH_RELEASE, o->operation->name, report->ranks,
            o->in_place ? "in place" : "out of place",
            o->mem_cinch ? "cinch memory" : "malloc memory", o->cold ? ", cold" : "", "bytes",
            "count", "type", "redop", "root", "algo", "codec", "transport", "time", "predicted",
            "algbw", "busbw", "wire", "wrong", "rel_l2", "", "", "", "", "", "", "", "", "us", "us",
            "GB/s", "GB/s", "bytes", "", "");
}

static void print_overlap(const cinch_report *report, const cinch_overlap *o) {
    fprintf(report->table,
            "#   beside a computation: hidden %.2f; calls %.2f ms, computation %.2f ms, both"
            " %.2f ms, the computation slowed by %.1f %%%s%s\n",
            o->hidden, o->comm_us / 1e3, o->compute_us / 1e3, o->together_us / 1e3, 100 * o->slowed,
            o->sized ? "" : "; the two could not be brought to like times",
            o->right ? "" : "  THE COMPUTATION IS WRONG");
}

static void print_row(const cinch_report *report, const cinch_row *row) {
    char wrong[24] = "-", error[24] = "-", root[16] = "-", predicted[24] = "-";
    const char *redop = cinch_op_names[row->op];
    if (row->checked && row->judged) snprintf(wrong, sizeof wrong, "%" PRIu64, row->wrong);
    if (isfinite(row->predicted_us))
        snprintf(predicted, sizeof predicted, "%.2f", row->predicted_us);
    if (row->checked && isfinite(row->rel_l2)) snprintf(error, sizeof error, "%.2e", row->rel_l2);
    if (report->options->operation->rooted) snprintf(root, sizeof root, "%d", row->root);
    fprintf(report->table,
            "  %10" PRIu64 " %11" PRIu64 " %8s %6s %4s %9s %-10s %-9s %11.2f %11s %8.2f %8.2f"
            " %11" PRIu64 " %8s %9s%s%s%s\n",
            row->bytes, row->count, cinch_dtype_name(row->dtype), redop ? redop : "none", root,
            row->algo, row->codec, row->transport, row->time_us, predicted, algbw(row),
            busbw(report, row), row->wire_bytes, wrong, error,
            row->spoilt ? "  WROTE OUTSIDE THE RESULT" : "",
            row->shared && !row->ranks_identical ? "  RANKS DIFFER" : "",
            row->checked && !row->repeatable ? "  NOT REPEATABLE" : "");
    if (row->overlapped) print_overlap(report, &row->overlap);
    fflush(report->table);
}

/* JSON has null for it. */
static double unless(bool known, double number) {
    return known ? number : NAN;
}

static bool json_row(const cinch_report *report, const cinch_row *row) {
    const cinch_perf_options *o = report->options;
    cinch_json j;
    char hash[24];
    snprintf(hash, sizeof hash, "%016" PRIx64, row->result_hash);
    cinch_json_begin(&j, report->json);
    cinch_json_text(&j, "op", o->operation->name);
    cinch_json_count(&j, "bytes", row->bytes);
    cinch_json_count(&j, "count", row->count);
    cinch_json_text(&j, "dtype", cinch_dtype_name(row->dtype));
    cinch_json_text(&j, "redop", cinch_op_names[row->op]);
    cinch_json_count(&j, "ranks", (uint64_t)report->ranks);
    cinch_json_text(&j, "codec", row->codec);
    cinch_json_text(&j, "algo", row->algo);
    cinch_json_text(&j, "transport", row->transport);
    cinch_json_text(&j, "device", o->cuda ? "cuda" : "host");
    cinch_json_bool(&j, "in_place", o->in_place);
    cinch_json_number(&j, "time_us", row->time_us);
    cinch_json_number(&j, "time_min_us", row->time_min_us);
    cinch_json_number(&j, "algbw_GBps", algbw(row));
    cinch_json_number(&j, "busbw_GBps", busbw(report, row));
    cinch_json_count(&j, "wire_bytes", row->wire_bytes);
    if (row->checked && row->judged)
        cinch_json_count(&j, "wrong", row->wrong + row->spoilt);
    else
        cinch_json_null(&j, "wrong");
    if (row->checked) {
        cinch_json_number(&j, "rel_l2", row->rel_l2);
        cinch_json_number(&j, "max_abs_err", row->max_abs_err);
        if (row->shared)
            cinch_json_bool(&j, "ranks_identical", row->ranks_identical);
        else
            cinch_json_null(&j, "ranks_identical");
        cinch_json_bool(&j, "repeatable", row->repeatable);
        cinch_json_text(&j, "result_hash", hash);
    } else {
        static const char *const keys[] = {"rel_l2", "max_abs_err", "ranks_identical", "repeatable",
                                           "result_hash"};
        for (int i = 0; i < 5; i++) cinch_json_null(&j, keys[i]);
    }
    cinch_json_number(&j, "predicted_us", row->predicted_us);
    cinch_json_number(&j, "hidden_frac", unless(row->overlapped, row->overlap.hidden));
    cinch_json_text(&j, "mem", o->mem_cinch ? "cinch" : "malloc");
    if (o->operation->rooted)
        cinch_json_count(&j, "root", (uint64_t)row->root);
    else
        cinch_json_null(&j, "root");
    cinch_json_number(&j, "overlap_comm_us", unless(row->overlapped, row->overlap.comm_us));
    cinch_json_number(&j, "overlap_compute_us", unless(row->overlapped, row->overlap.compute_us));
    cinch_json_number(&j, "overlap_together_us", unless(row->overlapped, row->overlap.together_us));
    cinch_json_number(&j, "compute_slowed", unless(row->overlapped, row->overlap.slowed));
    return cinch_json_end(&j);
}

bool cinch_report_row(cinch_report *report, const cinch_row *row, bool failed) {
    if (report->count == 0) print_head(report);
    print_row(report, row);
    report->failed += failed;
    if (report->count == report->room) {
        size_t room = report->room ? 2 * report->room : 64;
        cinch_row *rows = realloc(report->rows, room * sizeof *rows);
        if (!rows) return cannot_write("the report", ENOMEM);
        report->rows = rows;
        report->room = room;
    }
    report->rows[report->count++] = *row;
    if (report->json && !json_row(report, row)) return cannot_write(report->options->json, errno);
    return true;
}

/* Whether the row begins a line of the plot: a line per type, operator and root. */
static bool begins_line(const cinch_row *row) {
    return row->dtype != row[-1].dtype || row->op != row[-1].op || row->root != row[-1].root;
}

static void label_line(const cinch_report *report, const cinch_row *row, char *label, size_t room) {
    const char *redop = cinch_op_names[row->op];
    int used = snprintf(label, room, "%s%s%s", cinch_dtype_name(row->dtype), redop ? " " : "",
                        redop ? redop : "");
    if (report->options->root == CINCH_EVERY_ROOT)
        snprintf(label + used, room - (size_t)used, " root %d", row->root);
}

static bool write_plot(const cinch_report *report) {
    size_t n = report->count, lines = 0;
    double *x = calloc(n + 1, sizeof *x), *y = calloc(n + 1, sizeof *y);
    cinch_plot_series *series = calloc(n + 1, sizeof *series);
    char(*labels)[48] = calloc(n + 1, sizeof *labels);
    bool good = x && y && series && labels;
    for (size_t i = 0; i < n && good; i++) {
        const cinch_row *row = &report->rows[i];
        x[i] = (double)row->bytes;
        y[i] = busbw(report, row);
        if (i == 0 || begins_line(row)) {
            label_line(report, row, labels[lines], sizeof *labels);
            series[lines] = (cinch_plot_series){labels[lines], x + i, y + i, 0};
            lines++;
        }
        series[lines - 1].count++;
    }
    char title[64], bound[64];
    double most = report->bound_GBps * cinch_bus_factor(report->options->operation, report->ranks);
    snprintf(title, sizeof title, "%s, %d ranks", report->options->operation->name, report->ranks);
    snprintf(bound, sizeof bound, "exact: at most %.4g GB/s, by the links", most);
    cinch_plot plot = {.title = title,
                       .x_label = "bytes",
                       .y_label = "bus bandwidth, GB/s",
                       .x_log = true,
                       .x_bytes = true,
                       .series = series,
                       .count = lines,
                       .bound_label = bound,
                       .bound = most};
    if (!good) {
        cannot_write(report->options->plot, ENOMEM);
    } else if (cinch_plot_write(report->options->plot, &plot) != cinchSuccess) {
        cinch_usage(&cinch_perf_command, "%s", cinch_last_error());
        good = false;
    }
    free(x);
    free(y);
    free(series);
    free(labels);
    return good;
}

bool cinch_report_close(cinch_report *report) {
    bool good = true;
    double sum = 0;
    if (report->count) {
        for (size_t i = 0; i < report->count; i++) sum += busbw(report, &report->rows[i]);
        fprintf(report->table, "# average bus bandwidth %.3f GB/s; ", sum / (double)report->count);
        if (!report->options->check)
            fputs("not checked\n", report->table);
        else if (report->failed)
            fprintf(report->table, "%zu of %zu lines FAILED\n", report->failed, report->count);
        else
            fprintf(report->table, "all %zu lines passed\n", report->count);
        if (report->options->plot) good = write_plot(report);
    }
    if (report->json && report->json != stdout && fclose(report->json) != 0)
        good = cannot_write(report->options->json, errno);
    free(report->rows);
    *report = (cinch_report){0};
    return good;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* cinch train: the table, the JSON lines and the plot. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "perf/json.h"
#include "perf/plot.h"
#include "perf/train_job.h"

static double final_loss(const cinch_train_result *r) {
    return r->loss[r->points - 1];
}

static void print_table(FILE *file, const cinch_trainer *t, const cinch_train_result *results) {
    const cinch_train_options *o = t->options;
    fprintf(file,
            "\ncinch %s  %d ranks, %d steps, seed %" PRIu64 ", text of %zu bytes (%d symbols)\n"
            "%-18s %10s %10s %12s %9s %9s %9s %10s\n",
            CINCH_RELEASE, t->place.size, o->steps, o->seed, t->text.length, t->text.vocabulary,
            "codec", "loss first", "loss final", "wire bytes", "of exact", "comm s", "total s",
            "grad error");
    const cinch_train_result *exact = NULL;
    for (int i = 0; i < o->codecs && !exact; i++)
        if (!strcmp(o->codec[i], "none")) exact = &results[i];
    for (int i = 0; i < o->codecs; i++) {
        const cinch_train_result *r = &results[i];
        char share[16] = "-";
        if (exact && exact->wire_bytes)
            snprintf(share, sizeof share, "%.4f",
                     (double)r->wire_bytes / (double)exact->wire_bytes);
        fprintf(file, "%-18s %10.4f %10.4f %12" PRIu64 " %9s %9.2f %9.1f %10.2e\n", r->codec,
                r->loss[0], final_loss(r), r->wire_bytes, share, r->comm_s, r->total_s,
                r->rel_l2_last_grad);
    }
}

static bool write_json(FILE *file, const cinch_train_result *r) {
    cinch_json j;
    char hash[24];
    snprintf(hash, sizeof hash, "%016" PRIx64, r->hash);
    cinch_json_begin(&j, file);
    cinch_json_text(&j, "codec", r->codec);
    cinch_json_count(&j, "steps", (uint64_t)r->steps);
    cinch_json_number(&j, "loss_first", r->loss[0]);
    cinch_json_number(&j, "loss_final", final_loss(r));
    cinch_json_count(&j, "wire_bytes", r->wire_bytes);
    cinch_json_number(&j, "comm_s", r->comm_s);
    cinch_json_number(&j, "total_s", r->total_s);
    cinch_json_number(&j, "rel_l2_last_grad", r->rel_l2_last_grad);
    cinch_json_text(&j, "result_hash", hash);
    return cinch_json_end(&j);
}

static bool report_json(const cinch_train_options *o, const cinch_train_result *results) {
    const bool on_stdout = !strcmp(o->json, "-");
    FILE *file = on_stdout ? stdout : fopen(o->json, "we");
    bool good = file;
    for (int i = 0; good && i < o->codecs; i++) good = write_json(file, &results[i]);
    if (file && !on_stdout && fclose(file)) good = false;
    if (!good) cinch_usage(&cinch_train_command, "cannot write %s: %s", o->json, strerror(errno));
    return good;
}

static bool report_plot(const cinch_trainer *t, const cinch_train_result *results) {
    const cinch_train_options *o = t->options;
    cinch_plot_series series[CINCH_TRAIN_CODECS];
    char title[80];
    snprintf(title, sizeof title, "Training over %d ranks, gradients exact and compressed",
             t->place.size);
    for (int i = 0; i < o->codecs; i++) {
        series[i] = (cinch_plot_series){results[i].codec, results[i].at, results[i].loss,
                                        (size_t)results[i].points};
    }
    const cinch_plot plot = {.title = title,
                             .x_label = "step",
                             .y_label = "held-out loss",
                             .series = series,
                             .count = (size_t)o->codecs};
    if (cinch_plot_write(o->plot, &plot) == cinchSuccess) return true;
    cinch_usage(&cinch_train_command, "%s", cinchGetLastError(NULL));
    return false;
}

bool cinch_train_report(const cinch_trainer *t) {
    const cinch_train_options *o = t->options;
    const cinch_train_result *results = t->results;
    print_table(o->json && !strcmp(o->json, "-") ? stderr : stdout, t, results);
    bool good = true;
    for (int i = 0; i < o->codecs; i++) {
        if (results[i].ranks_identical) continue;
        cinch_usage(&cinch_train_command, "codec %s: the ranks' parameters differ at the end",
                    results[i].codec);
        good = false;
    }
    if (o->json && !report_json(o, results)) good = false;
    if (o->plot && !report_plot(t, results)) good = false;
    return good;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Text and JSON of `cinch topo`. */
#include "perf/topo_report.h"

#include <math.h>
#include <string.h>

#include "perf/json.h"
#include "perf/topo_clean.h"
#include "perf/topo_text.h"
#include "perf/topo_trees.h"

static int add_count(char *text, size_t room, int used, int count, const char *what) {
    return used + snprintf(text + used, room - (size_t)used, "%s%d %s%s", used ? ", " : "", count,
                           what, count == 1 ? "" : "s");
}

/* Of the parts that are shown: a .graph has no NICs of its own word. */
static int nics_shown(const cinch_topo_report *report) {
    int nics = 0;
    for (int i = 0; i < report->topology.graph.nodes; i++)
        nics += report->view.rank[i] < 0 && report->view.part[i] == CINCH_PART_NIC;
    return report->topology.format == CINCH_TOPOLOGY_GRAPH ? nics : report->topology.nics;
}

void cinch_topo_counts(const cinch_topo_report *report, char *text, size_t room) {
    int ranks = report->topology.graph.gpus, used = 0;
    if (ranks != report->topology.gpus) used = add_count(text, room, used, ranks, "rank");
    used = add_count(text, room, used, report->topology.gpus, "GPU");
    used = add_count(text, room, used, nics_shown(report), "NIC");
    add_count(text, room, used, report->view.hosts, "host");
}

static void size_text(uint64_t bytes, char *text, size_t room) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    for (; unit < 4 && bytes >= 1024 && bytes % 1024 == 0; unit++) bytes /= 1024;
    snprintf(text, room, "%llu %s", (unsigned long long)bytes, units[unit]);
}

void cinch_topo_plan_line(const cinch_topo_report *report, char *text, size_t room) {
    const cinch_plan *plan = &report->plan;
    char size[32];
    double us = cinch_plan_us(plan, (double)report->bytes, 0);
    size_text(report->bytes, size, sizeof size);
    bool ring = cinch_trees_is_ring(plan);
    int used =
        snprintf(text, room, "%s of %s: %s%s%d %s%s, %.4g GB/s, %.4g %s",
                 cinch_plan_op_name(plan->op), size, ring ? "" : cinch_plan_kind_name(plan->kind),
                 ring ? "" : ", ", plan->trees, ring ? "ring" : "tree", plan->trees == 1 ? "" : "s",
                 plan->algbw, us < 1000 ? us : us / 1000, us < 1000 ? "us" : "ms");
    if (plan->bound > 0 && isfinite(plan->bound))
        snprintf(text + used, room - (size_t)used, "; at least %.2f %% of the best",
                 floor(fmin(1, plan->algbw / plan->bound) * 10000) / 100);
}

/* A bandwidth, or what it means that there is none. */
static const char *bound_text(double gbps, char *text, size_t room) {
    if (isfinite(gbps))
        snprintf(text, room, "%.6g GB/s", gbps);
    else
        snprintf(text, room, "nothing has to move");
    return text;
}

static void optimum_text(FILE *f, const cinch_bounds *b) {
    char text[64];
    fputs("\nat most, whatever the plan (no latency counted):\n", f);
    fprintf(f, "  allgather, reducescatter  %s\n", bound_text(b->allgather, text, sizeof text));
    fprintf(f, "  broadcast from rank 0     %s\n", bound_text(b->broadcast, text, sizeof text));
    fprintf(f, "  allreduce                 %s\n", bound_text(b->allreduce, text, sizeof text));
}

cinchResult_t cinch_topo_text(FILE *f, const cinch_topo_report *report) {
    char text[512];
    cinch_topo_counts(report, text, sizeof text);
    fprintf(f, "%s (%s): %s; GB/s each way\n", report->file,
            cinch_topology_format_name(report->topology.format), text);
    CINCH_TRY(cinch_text_machine(f, &report->view));
    for (int i = 0; i < report->topology.warnings; i++)
        fprintf(f, "%swarning: %s\n", i ? "" : "\n",
                cinch_topo_clean(report->topology.warning[i], text, sizeof text));
    if (report->optimum) optimum_text(f, &report->bounds);
    if (report->planned) {
        cinch_topo_plan_line(report, text, sizeof text);
        fprintf(f, "\n%s; planned in %.3g ms\n", text, report->plan_ms);
        CINCH_TRY(cinch_trees_text(f, &report->plan));
        if (report->simulated)
            cinch_topo_simulated_text(f, &report->topology.graph, &report->simulation,
                                      cinch_plan_us(&report->plan, (double)report->bytes, 0));
        if (report->coded) cinch_topo_coded_text(f, &report->codec, report->plan.algbw);
    }
    return cinchSuccess;
}

static void name_json(cinch_json *j, const cinch_topo_report *report, int node) {
    char name[CINCH_GRAPH_MOST_NAME + 1];
    cinch_json_text(j, NULL,
                    cinch_topo_clean(report->topology.graph.node[node].name, name, sizeof name));
}

/* Every rank's parent, and the way to or from it by names. */
static void half_json(cinch_json *j, const cinch_topo_report *report, const char *key,
                      const cinch_plan_half *half) {
    if (!half->parent) {
        cinch_json_null(j, key);
        return;
    }
    cinch_json_open(j, key, '{');
    cinch_json_open(j, "parents", '[');
    for (int r = 0; r < report->plan.ranks; r++) {
        if (half->parent[r] < 0)
            cinch_json_null(j, NULL);
        else
            cinch_json_count(j, NULL, (uint64_t)half->parent[r]);
    }
    cinch_json_close(j, ']');
    cinch_json_open(j, "paths", '[');
    for (int r = 0; r < report->plan.ranks; r++) {
        cinch_json_open(j, NULL, '[');
        for (int i = half->first[r]; i < half->first[r + 1]; i++)
            name_json(j, report, half->path[i]);
        cinch_json_close(j, ']');
    }
    cinch_json_close(j, ']');
    cinch_json_close(j, '}');
}

static void codec_json(cinch_json *j, const cinch_topo_coded *coded) {
    cinch_json_open(j, "with_codec", '{');
    cinch_json_text(j, "codec", coded->spec);
    cinch_json_number(j, "ratio", coded->codec.ratio);
    cinch_json_number(j, "encode_GBps", coded->codec.encode_gbps);
    cinch_json_number(j, "decode_GBps", coded->codec.decode_gbps);
    cinch_json_number(j, "algbw_GBps", coded->algbw);
    cinch_json_close(j, '}');
}

static void plan_json(cinch_json *j, const cinch_topo_report *report) {
    const cinch_plan *plan = &report->plan;
    cinch_json_open(j, "plan", '{');
    cinch_json_text(j, "op", cinch_plan_op_name(plan->op));
    cinch_json_text(j, "kind", cinch_plan_kind_name(plan->kind));
    cinch_json_number(j, "algbw_GBps", plan->algbw);
    cinch_json_number(j, "predicted_us", cinch_plan_us(plan, (double)report->bytes, 0));
    cinch_json_number(j, "simulated_us",
                      report->simulated && !report->simulation.plan.why[0]
                          ? report->simulation.plan.result.us
                          : NAN);
    cinch_json_number(j, "plan_ms", report->plan_ms);
    cinch_json_count(j, "bytes", report->bytes);
    cinch_json_number(j, "bound_GBps", plan->bound > 0 ? plan->bound : NAN);
    if (report->coded) codec_json(j, &report->codec);
    cinch_json_open(j, cinch_trees_is_ring(plan) ? "rings" : "trees", '[');
    for (int i = 0; i < plan->trees; i++) {
        const cinch_plan_tree *tree = &plan->tree[i];
        cinch_json_open(j, NULL, '{');
        cinch_json_number(j, "weight", tree->weight);
        cinch_json_count(j, "root", (uint64_t)tree->root);
        half_json(j, report, "down", &tree->down);
        half_json(j, report, "up", &tree->up);
        cinch_json_close(j, '}');
    }
    cinch_json_close(j, ']');
    cinch_json_close(j, '}');
}

bool cinch_topo_json(FILE *f, const cinch_topo_report *report) {
    char text[1024];
    cinch_json j;
    cinch_json_begin(&j, f);
    cinch_json_count(&j, "ranks", (uint64_t)report->topology.graph.gpus);
    cinch_json_count(&j, "gpus", (uint64_t)report->topology.gpus);
    cinch_json_count(&j, "nics", (uint64_t)report->topology.nics);
    cinch_json_open(&j, "warnings", '[');
    for (int i = 0; i < report->topology.warnings; i++)
        cinch_json_text(&j, NULL, cinch_topo_clean(report->topology.warning[i], text, sizeof text));
    cinch_json_close(&j, ']');
    if (report->optimum) {
        cinch_json_open(&j, "optimum", '{');
        cinch_json_number(&j, "allgather", report->bounds.allgather);
        cinch_json_number(&j, "broadcast", report->bounds.broadcast);
        cinch_json_number(&j, "allreduce_bound", report->bounds.allreduce);
        cinch_json_close(&j, '}');
    } else {
        cinch_json_null(&j, "optimum");
    }
    if (report->planned)
        plan_json(&j, report);
    else
        cinch_json_null(&j, "plan");
    return cinch_json_end(&j);
}

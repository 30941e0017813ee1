/* SPDX-License-Identifier: Apache-2.0 */
/* cinch topo: what a machine is made of, how fast collectives can be on it, and a plan for one. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/settings.h"
#include "perf/commands.h"
#include "perf/options.h"
#include "perf/topo_machine.h"
#include "perf/topo_report.h"
#include "perf/topo_svg.h"

enum { RANKS_MOST = 4096, TREES_MOST = 65536 };
enum {
    OPT_FILE,
    OPT_FORMAT,
    OPT_ROOT,
    OPT_RANKS,
    OPT_PLAN,
    OPT_KIND,
    OPT_TREES,
    OPT_BYTES,
    OPT_OPTIMUM,
    OPT_SIMULATE,
    OPT_CODEC,
    OPT_CODEC_GBPS,
    OPT_JSON,
    OPT_SVG,
    OPT_DUMP
};
static const cinch_option table[] = {
    [OPT_FILE] = {0, "file", "F",
                  "the file that describes the machine (CINCH_TOPO_FILE, else this one)"},
    [OPT_FORMAT] = {0, "format", "FORMAT", "of it: auto nccl hwloc nvsmi graph (auto)"},
    [OPT_ROOT] = {0, "root", "D", "without --file: D/sys and D/proc for those of this machine"},
    [OPT_RANKS] = {'n', NULL, "N", "without --file: N ranks on its CPUs, not on its GPUs"},
    [OPT_PLAN] = {0, "plan", "OP", "allreduce allgather reducescatter broadcast reduce"},
    [OPT_KIND] = {0, "kind", "KIND", "of plan: forest ring rings double_tree (forest)"},
    [OPT_TREES] = {0, "trees", "N", "of plan: at most so many (as many as it takes)"},
    [OPT_BYTES] = {0, "bytes", "S", "of the message that is planned, K M G binary (1G)"},
    [OPT_OPTIMUM] = {0, "optimum", NULL, "how fast collectives can be at most"},
    [OPT_SIMULATE] = {0, "simulate", NULL,
                      "run the plan on a virtual clock, and a ring and a tree"},
    [OPT_CODEC] = {0, "codec", "SPEC", "what the plan reaches with this codec between hosts"},
    [OPT_CODEC_GBPS] = {0, "codec-gbps", "E,D",
                        "how much a rank encodes and decodes (measured here)"},
    [OPT_JSON] = {0, "json", NULL, "one line of JSON"},
    [OPT_SVG] = {0, "svg", "F", "draw the machine, and the plan where there is one"},
    [OPT_DUMP] = {0, "dump", "F", "write the machine: F.xml as NCCL's topology, F.graph as graph"},
    {0},
};
static const cinch_command command = {
    "cinch topo", "[--file F] [OPTION]...",
    "Shows this machine, or the one that a file describes: NCCL's topology XML, hwloc's XML,\n"
    "what nvidia-smi topo -m prints, or .graph.\n",
    table, false};

typedef struct options {
    cinch_topo_machine machine;
    const char *svg, *dump, *codec;
    cinch_plan_op op;
    cinch_plan_kind kind;
    uint64_t bytes;
    int64_t trees;
    double encode_gbps, decode_gbps;
    bool formatted, plan, kinded, sized, optimum, simulate, json;
} options;

static const char *const plan_names[] = {"allreduce", "allgather", "reducescatter",
                                         "broadcast", "reduce",    NULL};
static const cinch_plan_op plan_ops[] = {CINCH_PLAN_ALLREDUCE, CINCH_PLAN_ALLGATHER,
                                         CINCH_PLAN_REDUCESCATTER, CINCH_PLAN_BROADCAST,
                                         CINCH_PLAN_REDUCE};
static const char *const plan_later[] = {"alltoall", "gather", "scatter", "sendrecv", NULL};
static const char *const kind_names[] = {"forest", "ring", "rings", "double_tree", NULL};
static const cinch_plan_kind plan_kinds[] = {CINCH_PLAN_FOREST, CINCH_PLAN_RING, CINCH_PLAN_RINGS,
                                             CINCH_PLAN_DOUBLE_TREE};
static const char *const format_names[] = {"auto", "nccl", "hwloc", "nvsmi", "graph", NULL};

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n > m && !strcmp(text + n - m, end);
}

static bool parse_speeds(const char *text, options *o) {
    char *end = NULL;
    o->encode_gbps = strtod(text, &end);
    if (*end == ',') o->decode_gbps = strtod(end + 1, &end);
    bool good = !*end && o->encode_gbps > 0 && o->decode_gbps > 0 && o->encode_gbps < 1e6 &&
                o->decode_gbps < 1e6;
    if (!good)
        cinch_usage(&command, "--codec-gbps \"%s\": two numbers above 0 and below 1e6 are accepted",
                    text);
    return good;
}

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, options *o) {
    const char *value;
    int option, index;
    int64_t ranks = 0;
    *o = (options){.bytes = 1 << 30};
    optind = 0;
    while ((option = cinch_option_next(&command, argc, argv, &value)) >= 0) {
        bool good = true;
        if (option == OPT_FILE) o->machine.file = value;
        if (option == OPT_ROOT) o->machine.root = value;
        if (option == OPT_SVG) o->svg = value;
        if (option == OPT_DUMP) o->dump = value;
        if (option == OPT_OPTIMUM) o->optimum = true;
        if (option == OPT_SIMULATE) o->simulate = true;
        if (option == OPT_JSON) o->json = true;
        if (option == OPT_CODEC) o->codec = value;
        if (option == OPT_CODEC_GBPS) good = parse_speeds(value, o);
        if (option == OPT_FORMAT) {
            good = cinch_option_choice(&command, "--format", value, format_names, NULL, &index);
            if (good) good = cinch_topology_format_parse(value, &o->machine.format) == cinchSuccess;
            o->formatted = true;
        }
        if (option == OPT_RANKS) {
            good = cinch_option_count(&command, "-n", value, 1, RANKS_MOST, &ranks);
            o->machine.ranks = (int)ranks;
        }
        if (option == OPT_PLAN) {
            o->plan = good =
                cinch_option_choice(&command, "--plan", value, plan_names, plan_later, &index);
            if (good) o->op = plan_ops[index];
        }
        if (option == OPT_KIND) {
            o->kinded = good =
                cinch_option_choice(&command, "--kind", value, kind_names, NULL, &index);
            if (good) o->kind = plan_kinds[index];
        }
        if (option == OPT_TREES)
            good = cinch_option_count(&command, "--trees", value, 1, TREES_MOST, &o->trees);
        if (option == OPT_BYTES)
            o->sized = good = cinch_option_size(&command, "--bytes", value, &o->bytes);
        if (!good) return 2;
    }
    if (option != CINCH_OPTION_END) return option == CINCH_OPTION_HELP ? 0 : 2;
    if (optind < argc) return cinch_usage(&command, "unexpected argument \"%s\"", argv[optind]);
    if (o->machine.file && (o->machine.root || o->machine.ranks))
        return cinch_usage(&command, "%s is for a machine without --file",
                           o->machine.root ? "--root" : "-n");
    if (o->formatted && !o->machine.file) return cinch_usage(&command, "--format is for --file F");
    if ((o->sized || o->kinded || o->trees || o->simulate || o->codec) && !o->plan)
        return cinch_usage(&command, "%s is for --plan OP",
                           o->sized      ? "--bytes"
                           : o->kinded   ? "--kind"
                           : o->trees    ? "--trees"
                           : o->simulate ? "--simulate"
                                         : "--codec");
    if (o->encode_gbps > 0 && !o->codec)
        return cinch_usage(&command, "--codec-gbps is for --codec SPEC");
    if (o->dump && !ends_with(o->dump, ".xml") && !ends_with(o->dump, ".graph"))
        return cinch_usage(
            &command, "--dump \"%s\": accepted is a name that ends in .xml or .graph", o->dump);
    return -1;
}

static int failed(int status) {
    cinch_say_failure(&command);
    return status;
}

/* Into memory first: a file that is there is replaced by a whole machine or not at all. */
static cinchResult_t dump_text(const char *path, const cinch_graph *graph, char **text,
                               size_t *length) {
    FILE *f = open_memstream(text, length);
    if (!f) return cinch_fail_errno(errno, "cannot write %s", path);
    cinchResult_t result =
        ends_with(path, ".xml") ? cinch_topology_write_nccl(graph, f) : cinch_graph_write(graph, f);
    if (fclose(f) != 0 && result == cinchSuccess)
        result = cinch_fail_errno(errno, "cannot write %s", path);
    return result;
}

static int write_dump(const char *path, const cinch_graph *graph) {
    char *text = NULL;
    size_t length = 0;
    int status = 0;
    if (dump_text(path, graph, &text, &length) != cinchSuccess) {
        status = failed(2);
    } else {
        FILE *f = fopen(path, "we");
        bool good = f && fwrite(text, 1, length, f) == length;
        if (f && fclose(f) != 0) good = false;
        if (!good) status = cinch_usage(&command, "cannot write %s: %s", path, strerror(errno));
    }
    free(text);
    return status;
}

static int write_picture(const options *o, const cinch_topo_report *report) {
    char title[512], counts[128], plan[512];
    const char *name = cinch_topo_machine_name(&o->machine), *base = strrchr(name, '/');
    cinch_topo_counts(report, counts, sizeof counts);
    snprintf(title, sizeof title, "%.300s: %s", base && base[1] ? base + 1 : name, counts);
    cinch_svg_page page = {.title = title};
    if (report->planned) {
        cinch_topo_plan_line(report, plan, sizeof plan);
        page.subtitle = plan;
        page.plan = &report->plan;
    }
    return cinch_svg_write(o->svg, &report->view, &page) == cinchSuccess ? 0 : failed(2);
}

static int make_plan(const options *o, cinch_topo_report *report) {
    int gpus = report->topology.graph.gpus;
    if (!o->machine.file && gpus < 2)
        return cinch_usage(&command,
                           "--plan %s: a plan needs two GPUs or more, and %s has %d; -n N plans "
                           "for N ranks on its CPUs",
                           cinch_plan_op_name(o->op), report->file, gpus) -
               1;
    uint64_t start = cinch_now_ns();
    cinch_plan_options how = {.kind = o->kind, .most_trees = (int)o->trees};
    bool rooted = o->op == CINCH_PLAN_BROADCAST || o->op == CINCH_PLAN_REDUCE;
    if (cinch_plan_make(&report->topology.graph, o->op, rooted ? 0 : -1, &how, &report->plan) !=
        cinchSuccess)
        return failed(1);
    report->plan_ms = (double)(cinch_now_ns() - start) / 1e6;
    report->planned = true;
    report->bytes = o->bytes;
    report->coded = o->codec != NULL;
    if (o->codec &&
        cinch_topo_code(&report->topology.graph, o->op, rooted ? 0 : -1, &how, o->codec,
                        o->encode_gbps, o->decode_gbps, o->bytes, &report->codec) != cinchSuccess)
        return failed(2);
    return 0;
}

static int find_bounds(cinch_topo_report *report) {
    const cinch_graph *graph = &report->topology.graph;
    report->optimum = true;
    /* Without a GPU nothing has to move, as with one; and there is no root. */
    report->bounds =
        (cinch_bounds){.allgather = INFINITY, .broadcast = INFINITY, .allreduce = INFINITY};
    if (graph->gpus > 0 && cinch_bounds_find(graph, 0, &report->bounds) != cinchSuccess)
        return failed(1);
    return 0;
}

static int report_all(const options *o, cinch_topo_report *report) {
    int status;
    if (cinch_view_make(&report->view, &report->topology.graph) != cinchSuccess) return failed(1);
    if (o->optimum && (status = find_bounds(report)) != 0) return status;
    if (o->plan && (status = make_plan(o, report)) != 0) return status;
    if (o->simulate) {
        report->simulated = true;
        if (cinch_topo_simulate(&report->topology.graph, &report->plan, o->bytes, !o->json,
                                &report->simulation) != cinchSuccess)
            return failed(1);
    }
    if (o->dump && (status = write_dump(o->dump, &report->topology.graph)) != 0) return status;
    if (o->svg && (status = write_picture(o, report)) != 0) return status;
    if (o->json)
        cinch_topo_json(stdout, report);
    else if (cinch_topo_text(stdout, report) != cinchSuccess)
        return failed(1);
    if (fflush(stdout) != 0 || ferror(stdout))
        return cinch_usage(&command, "cannot write to stdout: %s", strerror(errno)) - 1;
    return 0;
}

int cinch_topo_main(int argc, char **argv) {
    options o;
    char why[CINCH_ERROR_TEXT];
    cinch_settings settings;
    cinch_topo_report report = {0};
    int status = parse(argc, argv, &o);
    if (status >= 0) return status;
    bool good = cinch_settings_load(&settings, why);
    if (!o.machine.file && !o.machine.root && !o.machine.ranks && settings.topo_file[0])
        o.machine.file = settings.topo_file; /* it stands for this machine elsewhere too */
    if (!good)
        status = cinch_usage(&command, "%s", why);
    else if (cinch_topo_machine_get(&o.machine, &report.topology) != cinchSuccess)
        status = failed(2);
    if (status < 0) {
        report.file = cinch_topo_machine_name(&o.machine);
        status = report_all(&o, &report);
    }
    if (report.planned) cinch_plan_free(&report.plan);
    cinch_view_free(&report.view);
    cinch_topology_free(&report.topology);
    cinch_settings_free(&settings);
    return status;
}

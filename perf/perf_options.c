/* SPDX-License-Identifier: Apache-2.0 */
/* cinch perf: the command line. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/settings.h"
#include "base/status.h"
#include "coll/algo.h"
#include "compress/codec.h"
#include "compress/dtype.h"
#include "perf/perf.h"
#include "transports/transport.h"

enum {
    OPT_RANKS,
    OPT_FIRST,
    OPT_LAST,
    OPT_FACTOR,
    OPT_STEP,
    OPT_WARMUP,
    OPT_SETTLE,
    OPT_SAMPLES,
    OPT_DTYPE,
    OPT_OP,
    OPT_ROOT,
    OPT_CHECK,
    OPT_IN_PLACE,
    OPT_MEM,
    OPT_CODEC,
    OPT_ALGO,
    OPT_TRANSPORT,
    OPT_COLD,
    OPT_DATA,
    OPT_INPUT,
    OPT_JSON,
    OPT_PLOT,
    OPT_DEVICE,
    OPT_OVERLAP
};

static const cinch_option table[] = {
    [OPT_RANKS] = {'n', NULL, "N", "start N ranks here (else a launcher's ranks, else 2)"},
    [OPT_FIRST] = {'b', NULL, "SIZE", "first message size, K M G binary (4)"},
    [OPT_LAST] = {'e', NULL, "SIZE", "last message size (64M, or the first where that is larger)"},
    [OPT_FACTOR] = {'f', NULL, "FACTOR", "from size to size: times this (4)"},
    [OPT_STEP] = {'i', NULL, "SIZE", "from size to size: plus this, instead of -f"},
    [OPT_WARMUP] = {'w', NULL, "COUNT", "calls before anything is timed (5)"},
    [OPT_SETTLE] = {0, "settle", "MS", "calls for so long before the first size (0)"},
    [OPT_SAMPLES] = {'N', NULL, "COUNT", "samples, each of calls for at least 1 ms (20)"},
    [OPT_DTYPE] = {'d', NULL, "TYPE,...",
                   "int8 uint8 int32 uint32 int64 uint64 half float double\n"
                   "                           bfloat16 f8e4m3 f8e5m2, or all (float)"},
    [OPT_OP] = {'o', NULL, "REDOP,...",
                "sum prod max min avg mulsum, or all, where OP reduces (sum)"},
    [OPT_ROOT] = {'r', NULL, "RANK|all", "the root, where OP has one (0)"},
    [OPT_CHECK] = {'c', NULL, "0|1", "check results (1)"},
    [OPT_IN_PLACE] = {'p', NULL, "0|1", "in place (0)"},
    [OPT_MEM] = {0, "mem", "malloc|cinch", "buffers from malloc, or from cinchMemAlloc (malloc)"},
    [OPT_CODEC] = {0, "codec", "SPEC", "as CINCH_CODEC, inside a host and between hosts"},
    [OPT_ALGO] = {0, "algo", "NAME", "as CINCH_ALGO"},
    [OPT_TRANSPORT] = {0, "transport", "LIST", "as CINCH_TRANSPORT"},
    [OPT_COLD] = {0, "cold", NULL, "rotate through buffers larger than the cache"},
    [OPT_DATA] = {0, "data", "KIND", "exact gauss heavy nonfinite (exact; with a codec gauss)"},
    [OPT_INPUT] = {0, "input", "FILE", "raw values, one file or %r as the rank; repeated if short"},
    [OPT_JSON] = {0, "json", "FILE",
                  "a line of JSON per size; - is stdout, the table is on stderr"},
    [OPT_PLOT] = {0, "plot", "FILE.svg", "bus bandwidth by size"},
    [OPT_DEVICE] = {0, "device", "host|cuda",
                    "where the buffers are; ranks take GPUs in turn (host)"},
    [OPT_OVERLAP] = {0, "overlap", NULL,
                     "also beside a computation: how much of the communication hid"},
    {0},
};

const cinch_command cinch_perf_command = {
    "cinch perf", "OP [OPTION]...",
    "Measures a collective operation and checks every element against a reference. OP is one of\n"
    "  allreduce reducescatter allgather broadcast reduce alltoall gather scatter sendrecv\n"
    "A time is the maximum over the ranks per sample, then the median of the samples. GB is 1e9\n"
    "bytes; sizes are of the longest buffer, so of n blocks where OP has n; busbw is algbw times\n"
    "2(n-1)/n for allreduce, 1 for broadcast, reduce and sendrecv, (n-1)/n for the others.\n"
    "Exit status: 0 fine; 1 a check or the communication failed; 2 bad usage or setting.\n",
    table, false};
static const cinch_command *const me = &cinch_perf_command;

const char *const cinch_op_names[] = {"sum", "prod", "max", "min", "avg", "mulsum", NULL};
static const char *const data_names[] = {"exact", "gauss", "heavy", "nonfinite", NULL};
static const char *const yes_no[] = {"0", "1", NULL};
static const char *const mems[] = {"malloc", "cinch", NULL}, *const later_mems[] = {"registered",
                                                                                    NULL};
static const char *const device_names[] = {"host", "cuda", NULL};

/* "float,half" or "all" as bits. */
static bool read_set(const char *option, const char *text, const char *const *names,
                     unsigned *bits) {
    char item[32];
    int index;
    *bits = 0;
    if (!strcmp(text, "all")) {
        for (int i = 0; names[i]; i++) *bits |= 1u << i;
        return true;
    }
    while (cinch_list_next(&text, item, sizeof item)) {
        if (!cinch_option_choice(me, option, item, names, NULL, &index)) return false;
        *bits |= 1u << index;
    }
    return true;
}

static bool read_dtypes(const char *text, unsigned *bits) {
    const char *names[cinchNumTypes + 1] = {NULL};
    for (int i = 0; i < cinchNumTypes; i++) names[i] = cinch_dtype_name((cinchDataType_t)i);
    return read_set("-d", text, names, bits);
}

static bool read_count(const char *option, const char *text, int64_t least, int64_t most,
                       int *value) {
    int64_t v;
    if (!cinch_option_count(me, option, text, least, most, &v)) return false;
    *value = (int)v;
    return true;
}

static bool read_flag(const char *option, const char *text, bool *value) {
    int index;
    if (!cinch_option_choice(me, option, text, yes_no, NULL, &index)) return false;
    *value = index;
    return true;
}

static bool read_root(const char *text, int *root) {
    int64_t v = CINCH_EVERY_ROOT;
    bool all = !strcmp(text, "all");
    if (!all && !cinch_option_count(me, "-r", text, 0, CINCH_LAUNCH_MOST - 1, &v)) return false;
    *root = (int)v;
    return true;
}

typedef struct given {
    bool last, factor, data, root;
} given;

static bool read_option(int option, const char *text, cinch_perf_options *o, given *seen) {
    int index;
    int64_t count;
    switch (option) {
    case OPT_RANKS:
        return read_count("-n", text, 1, CINCH_LAUNCH_MOST, &o->ranks);
    case OPT_FIRST:
        return cinch_option_size(me, "-b", text, &o->first);
    case OPT_LAST:
        seen->last = true;
        return cinch_option_size(me, "-e", text, &o->last);
    case OPT_FACTOR:
        seen->factor = true;
        if (!cinch_option_count(me, "-f", text, 2, INT64_MAX, &count)) return false;
        o->factor = (uint64_t)count;
        return true;
    case OPT_STEP:
        if (!cinch_option_size(me, "-i", text, &o->step)) return false;
        if (o->step == 0) cinch_usage(me, "-i \"%s\": accepted is a size from 1 on", text);
        return o->step != 0;
    case OPT_WARMUP:
        return read_count("-w", text, 0, 1000000, &o->warmup);
    case OPT_SETTLE:
        return read_count("--settle", text, 0, 1000000, &o->settle_ms);
    case OPT_SAMPLES:
        return read_count("-N", text, 1, 1000000, &o->samples);
    case OPT_DTYPE:
        return read_dtypes(text, &o->dtypes);
    case OPT_OP:
        return read_set("-o", text, cinch_op_names, &o->ops);
    case OPT_ROOT:
        seen->root = true;
        return read_root(text, &o->root);
    case OPT_CHECK:
        return read_flag("-c", text, &o->check);
    case OPT_IN_PLACE:
        return read_flag("-p", text, &o->in_place);
    case OPT_MEM:
        if (!cinch_option_choice(me, "--mem", text, mems, later_mems, &index)) return false;
        o->mem_cinch = index;
        return true;
    case OPT_CODEC:
        o->codec = text;
        return true;
    case OPT_ALGO:
        o->algo = text;
        return true;
    case OPT_TRANSPORT:
        o->transport = text;
        return true;
    case OPT_COLD:
        o->cold = true;
        return true;
    case OPT_DATA:
        seen->data = true;
        if (!cinch_option_choice(me, "--data", text, data_names, NULL, &index)) return false;
        o->data = (cinch_data_kind)index;
        return true;
    case OPT_INPUT:
        o->input = text;
        return true;
    case OPT_JSON:
        o->json = text;
        return true;
    case OPT_PLOT:
        o->plot = text;
        return true;
    case OPT_OVERLAP:
        o->overlap = true;
        return true;
    default: /* OPT_DEVICE */
        if (!cinch_option_choice(me, "--device", text, device_names, NULL, &index)) return false;
        o->cuda = index;
        return true;
    }
}

/* Whether some codec is asked for, by option or by environment: then data are gauss unless said. */
static bool any_codec(const cinch_perf_options *o) {
    static const char *const variables[] = {"CINCH_CODEC", "CINCH_CODEC_INTRA",
                                            "CINCH_CODEC_INTER"};
    if (o->codec) return strcmp(o->codec, "none") != 0;
    for (int i = 0; i < 3; i++) {
        const char *text = cinch_environment(variables[i]);
        if (text && text[0] && strcmp(text, "none") != 0) return true;
    }
    return false;
}

/* What does not go with the operation. */
static int check_operation(const cinch_perf_options *o, const given *seen) {
    const char *name = o->operation->name;
    if (o->in_place && !o->operation->in_place)
        return cinch_usage(me, "-p 1: %s is never in place", name);
    if (seen->root && !o->operation->rooted) return cinch_usage(me, "-r: %s has no root", name);
    if (o->overlap && o->ranks == 1)
        return cinch_usage(me, "--overlap: one rank has no communication to hide");
    if (o->codec && strcmp(o->codec, "none") != 0 && !o->operation->compressible)
        return cinch_usage(me, "--codec %s: %s is never compressed", o->codec, name);
    return -1;
}

static int finish(cinch_perf_options *o, const given *seen) {
    if (seen->factor && o->step) return cinch_usage(me, "-f and -i exclude each other");
    if (!seen->last && o->last < o->first) o->last = o->first;
    if (o->last < o->first) return cinch_usage(me, "-e is smaller than -b");
    if (o->input && seen->data) return cinch_usage(me, "--input and --data exclude each other");
    if (o->input && o->dtypes & (o->dtypes - 1))
        return cinch_usage(me, "--input holds values of one type: give one with -d");
    if (o->cuda && o->mem_cinch)
        return cinch_usage(me, "--mem cinch is host memory, and --device cuda is asked for");
    if (!seen->data && any_codec(o)) o->data = CINCH_DATA_GAUSS;
    return check_operation(o, seen);
}

int cinch_perf_parse(int argc, char **argv, cinch_perf_options *o) {
    const char *value;
    int option, operation;
    given seen = {0};
    *o = (cinch_perf_options){.first = 4,
                              .last = 64u << 20,
                              .factor = 4,
                              .warmup = 5,
                              .samples = 20,
                              .dtypes = 1u << cinchFloat32,
                              .ops = 1u << CINCH_OP_SUM,
                              .check = true};
    optind = 0;
    while ((option = cinch_option_next(me, argc, argv, &value)) >= 0)
        if (!read_option(option, value, o, &seen)) return 2;
    if (option != CINCH_OPTION_END) return option == CINCH_OPTION_HELP ? 0 : 2;
    if (optind == argc) return cinch_usage(me, "which operation? --help lists them");
    if (!cinch_option_choice(me, "operation", argv[optind], cinch_operation_names, NULL,
                             &operation))
        return 2;
    o->operation = &cinch_operations[operation];
    if (optind + 1 < argc)
        return cinch_usage(me, "unexpected argument \"%s\" behind %s", argv[optind + 1],
                           argv[optind]);
    return finish(o, &seen);
}

/* "auto" and the names of one collective's algorithms, or of all, each once; ends with NULL. */
static void list_algos(cinch_collective only, const char **names, int room) {
    int used = 0;
    names[used++] = "auto";
    for (int i = 0; cinch_algo_at(i) && used < room - 1; i++) {
        const cinch_algo *algo = cinch_algo_at(i);
        bool listed = only != CINCH_COLLECTIVES && algo->collective != only;
        for (int k = 0; k < used; k++) listed |= !strcmp(names[k], algo->name);
        if (!listed) names[used++] = algo->name;
    }
    names[used] = NULL;
}

/* "ring", "broadcast:ring", "auto", or a comma-separated list of them. What stands alone is for the
 * operation that is measured. */
static int check_algo(const char *option, const char *list, const char *operation) {
    const char *names[32];
    char item[64];
    int index;
    bool alone = !strchr(list, ',');
    while (cinch_list_next(&list, item, sizeof item)) {
        const char *colon = strchr(item, ':'), *name = colon ? colon + 1 : item;
        cinch_collective only = CINCH_COLLECTIVES;
        if (colon)
            only = cinch_collective_find(item, (size_t)(colon - item));
        else if (alone)
            only = cinch_collective_find(operation, strlen(operation));
        if (colon && only == CINCH_COLLECTIVES)
            return cinch_usage(me, "%s %s: before the colon goes an operation's name", option,
                               item);
        list_algos(only, names, 32);
        if (!cinch_option_choice(me, option, name, names, NULL, &index)) return 2;
    }
    return 0;
}

/* name: as it stands before its value, "--codec " or "CINCH_CODEC=". */
static int check_codec(const char *name, const char *spec) {
    cinch_codec codec;
    char why[CINCH_ERROR_TEXT];
    if (!spec[0] || strcmp(spec, "auto") == 0 || cinch_codec_parse(spec, &codec, why, sizeof why))
        return 0;
    return cinch_usage(me, "%s%s: %s", name, spec, why);
}

size_t cinch_perf_input_element(const cinch_perf_options *o) {
    for (int d = 0; d < cinchNumTypes; d++)
        if (o->dtypes >> d & 1) return cinch_dtype_size((cinchDataType_t)d);
    return 1;
}

int cinch_perf_root_fits(const cinch_perf_options *o, int ranks) {
    if (o->root < ranks) return 0;
    return cinch_usage(me, "-r %d: accepted is all, or a rank from 0 to %d", o->root, ranks - 1);
}

static int check_input(const cinch_perf_options *o) {
    cinch_input input;
    int ranks = o->ranks ? o->ranks : CINCH_PERF_RANKS;
    if (!cinch_input_open(me, o->input, ranks, cinch_perf_input_element(o), &input)) return 2;
    cinch_input_close(&input);
    return 0;
}

int cinch_perf_ready(void *arg) {
    const cinch_perf_options *o = arg;
    char why[CINCH_ERROR_TEXT];
    cinch_settings settings;
    int devices, status = cinch_perf_root_fits(o, o->ranks ? o->ranks : CINCH_PERF_RANKS);
    if (status) return status;
    if (o->cuda && !cinch_perf_gpu_there(&devices))
        return cinch_usage(me, "--device cuda: %s", cinch_last_error());
    if (!cinch_settings_load(&settings, why)) status = cinch_usage(me, "%s", why);
    if (!status && cinch_codec_load_plugins(settings.codec_plugin) != cinchSuccess) status = 2;
    if (!status && o->codec) status = check_codec("--codec ", o->codec);
    if (!status && !o->codec) status = check_codec("CINCH_CODEC=", settings.codec);
    if (!status && !o->codec) status = check_codec("CINCH_CODEC_INTRA=", settings.codec_intra);
    if (!status && !o->codec) status = check_codec("CINCH_CODEC_INTER=", settings.codec_inter);
    if (!status && !cinch_transport_parse(settings.transport, why, sizeof why))
        status = cinch_usage(me, "%s%s: %s",
                             o->transport ? "--transport " : "CINCH_TRANSPORT=", settings.transport,
                             why);
    if (!status)
        status = check_algo(o->algo ? "--algo" : "CINCH_ALGO", settings.algo, o->operation->name);
    if (!status && o->input) status = check_input(o);
    cinch_settings_free(&settings);
    return status;
}

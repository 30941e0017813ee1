/* SPDX-License-Identifier: Apache-2.0 */
/* cinch tune: measures this machine, or these, and writes a plan file. */
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/settings.h"
#include "base/status.h"
#include "coll/planfile.h"
#include "coll/tune.h"
#include "perf/commands.h"
#include "perf/launch.h"
#include "perf/tune_report.h"
#include "transports/transport.h"

enum { RANKS = 2 /* where nobody says how many */ };
#define LAST_MOST ((uint64_t)1 << 32)

enum { OPT_RANKS, OPT_OPS, OPT_FIRST, OPT_LAST, OPT_TRANSPORT, OPT_OUT };
static const cinch_option table[] = {
    [OPT_RANKS] = {'n', NULL, "N", "start N ranks here (a launcher's, else 2)"},
    [OPT_OPS] = {0, "ops", "LIST", "collectives to measure, with commas between (allreduce)"},
    [OPT_FIRST] = {'b', NULL, "SIZE", "the first size, K M G binary (4)"},
    [OPT_LAST] = {'e', NULL, "SIZE", "the last size; each is four times the one before (64M)"},
    [OPT_TRANSPORT] = {0, "transport", "T", "as CINCH_TRANSPORT"},
    [OPT_OUT] = {'o', NULL, "FILE", "write the plan file, for CINCH_PLAN_FILE"},
    {0},
};
static const cinch_command command = {
    "cinch tune", "[-n N] [--ops LIST] [-b SIZE] [-e SIZE] [-o FILE]",
    "Measures the network between the ranks' hosts, codecs, and every algorithm at sizes from -b\n"
    "to -e. Runs with CINCH_PLAN_FILE=FILE then choose by what was measured; they have as many\n"
    "ranks, on the same machines.\n",
    table, false};

typedef struct options {
    int ranks;
    cinch_tune_options tune;
    const char *transport, *out;
} options;

static bool read_ops(const char *text, unsigned *ops) {
    static const char *const names[] = {"allreduce", "reducescatter", "allgather",
                                        "broadcast", "reduce",        "alltoall",
                                        "gather",    "scatter",       NULL};
    char item[32];
    *ops = 0;
    for (const char *at = text; cinch_list_next(&at, item, sizeof item);) {
        int index;
        if (!cinch_option_choice(&command, "--ops", item, names, NULL, &index)) return false;
        *ops |= 1u << cinch_collective_find(item, strlen(item));
    }
    return true;
}

static bool read_option(int option, const char *value, options *o) {
    int64_t ranks;
    switch (option) {
    case OPT_RANKS:
        if (!cinch_option_count(&command, "-n", value, 1, CINCH_LAUNCH_MOST, &ranks)) return false;
        o->ranks = (int)ranks;
        return true;
    case OPT_OPS:
        return read_ops(value, &o->tune.ops);
    case OPT_FIRST:
        return cinch_option_size(&command, "-b", value, &o->tune.first);
    case OPT_LAST:
        return cinch_option_size(&command, "-e", value, &o->tune.last);
    case OPT_TRANSPORT:
        o->transport = value;
        return true;
    default:
        o->out = value;
        return true;
    }
}

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, options *o) {
    const char *value;
    int option;
    *o = (options){.tune = {.ops = 1u << CINCH_ALLREDUCE, .first = 4, .last = 64 << 20}};
    optind = 0;
    while ((option = cinch_option_next(&command, argc, argv, &value)) >= 0)
        if (!read_option(option, value, o)) return 2;
    if (option == CINCH_OPTION_HELP) return 0;
    if (option != CINCH_OPTION_END) return 2;
    if (optind < argc) return cinch_usage(&command, "\"%s\": no operand is accepted", argv[optind]);
    if (!o->tune.first || o->tune.first > o->tune.last || o->tune.last > LAST_MOST)
        return cinch_usage(&command, "-b %llu -e %llu: accepted is 1 to 4G, -b not above -e",
                           (unsigned long long)o->tune.first, (unsigned long long)o->tune.last);
    return -1;
}

/* 0, or 2 after a sentence, where the plan file could not be written in the end. */
static int check_out(const char *path) {
    struct stat there;
    cinch_tuned empty = {0};
    char *text = NULL, *copy = path ? strdup(path) : NULL;
    size_t length;
    int status = 0;
    if (!path) return 0;
    const char *folder = copy ? dirname(copy) : ".";
    if (cinch_planfile_text(&empty, &text, &length) == cinchInvalidUsage)
        status = cinch_usage(&command, "%s", cinch_last_error());
    else if (access(folder, W_OK | X_OK) != 0)
        status = cinch_usage(&command, "-o %s: %s: %s", path, folder, strerror(errno));
    else if (!path[0] || path[strlen(path) - 1] == '/' ||
             (stat(path, &there) == 0 && !S_ISREG(there.st_mode)))
        status = cinch_usage(&command, "-o %s: it is no regular file", path);
    free(text);
    free(copy);
    return status;
}

static int ready(void *arg) {
    const options *o = arg;
    char why[CINCH_ERROR_TEXT];
    if (o->transport && !cinch_transport_parse(o->transport, why, sizeof why))
        return cinch_usage(&command, "--transport %s: %s", o->transport, why);
    return check_out(o->out);
}

/* Every way to serve a call is tried, whatever the environment asks for. */
static void apply(const options *o) {
    static const char *const ours[] = {"CINCH_ALGO",        "CINCH_CODEC",     "CINCH_CODEC_INTRA",
                                       "CINCH_CODEC_INTER", "CINCH_PLAN_FILE", "CINCH_PLAN_DUMP"};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) unsetenv(ours[i]);
    if (o->transport) setenv("CINCH_TRANSPORT", o->transport, 1);
}

static void progress(void *arg, const char *what) {
    const cinch_place *place = arg;
    if (place->rank == 0 && isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[Kmeasuring %s", what);
}

static cinchResult_t work(const options *o, cinchComm_t comm, const cinch_place *place) {
    cinch_tune_options tune = o->tune;
    cinch_tune_net net;
    cinch_tuned tuned = {0};
    tune.progress = progress;
    tune.arg = (void *)(uintptr_t)place;
    CINCH_TRY(cinch_tune(comm, &tune, &net, &tuned));
    cinchResult_t result = cinchSuccess;
    if (place->rank == 0) {
        if (isatty(STDERR_FILENO)) fputs("\r\033[K", stderr);
        cinch_tune_print(stdout, &net, &tuned);
        if (o->out) result = cinch_planfile_write(&tuned, o->out);
        if (o->out && result == cinchSuccess)
            printf("\n%s: %d curves; CINCH_PLAN_FILE=%s uses them\n", o->out, tuned.curves, o->out);
        if (fflush(stdout) != 0 && result == cinchSuccess)
            result = cinch_fail_errno(errno, "stdout cannot be written");
    }
    cinch_tune_net_free(&net);
    cinch_tuned_free(&tuned);
    return result;
}

static int run_rank(const options *o, const cinch_place *place) {
    cinchUniqueId id;
    cinchComm_t comm = NULL;
    /* Ranks that others have started come here unchecked; rank 0 alone writes. */
    int bad = place->rank == 0 ? check_out(o->out) : 0;
    cinchResult_t result = cinchGetUniqueId(&id);
    if (result == cinchSuccess) result = cinchCommInitRank(&comm, place->size, id, place->rank);
    if (result == cinchSuccess && !bad) result = work(o, comm, place);
    if (result != cinchSuccess) cinch_say_failure(&command);
    if (comm) (result == cinchSuccess && !bad ? cinchCommDestroy : cinchCommAbort)(comm);
    if (bad) return bad;
    if (result == cinchSuccess) return 0;
    return result == cinchInvalidUsage || result == cinchInvalidArgument ? 2 : 1;
}

int cinch_tune_main(int argc, char **argv) {
    options o;
    cinch_place place = {0};
    int status = parse(argc, argv, &o);
    if (status >= 0) return status;
    apply(&o);
    status = cinch_place_find(&command, o.ranks, RANKS, argv, ready, &o, &place);
    return status >= 0 ? status : run_rank(&o, &place);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* cinch perf: joins the ranks and runs the sweep of types, operators and sizes. */
#include "perf/perf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/settings.h"
#include "base/status.h"
#include "coll/atlas.h"
#include "perf/commands.h"

/* Options that are settings of the library go where the library reads them, on every rank. */
static void apply(const cinch_perf_options *o) {
    if (o->codec) {
        setenv("CINCH_CODEC", o->codec, 1);
        setenv("CINCH_CODEC_INTRA", o->codec, 1);
        setenv("CINCH_CODEC_INTER", o->codec, 1);
        if (o->operation->compressible) setenv("CINCH_CODEC_OPS", o->operation->name, 1);
    }
    if (o->algo) setenv("CINCH_ALGO", o->algo, 1);
    if (o->transport) setenv("CINCH_TRANSPORT", o->transport, 1);
}

cinchResult_t cinch_bench_join(const cinch_bench *bench, cinchComm_t *comm) {
    cinchUniqueId id;
    CINCH_TRY(cinchGetUniqueId(&id));
    return cinchCommInitRank(comm, bench->place.size, id, bench->place.rank);
}

/* The exact communicator is free in its choice of algorithm: one that is asked for by name may not
 * be able to serve its few bytes. */
static cinchResult_t connect_ranks(cinch_bench *bench) {
    const char *set = cinch_environment("CINCH_ALGO");
    char *algo = set ? strdup(set) : NULL;
    cinchResult_t result = cinch_bench_join(bench, &bench->comm);
    setenv("CINCH_ALGO", "auto", 1);
    if (result == cinchSuccess) result = cinch_bench_join(bench, &bench->exact);
    if (algo)
        setenv("CINCH_ALGO", algo, 1);
    else
        unsetenv("CINCH_ALGO");
    free(algo);
    CINCH_TRY(result);
    return cinchCommSetCodec(bench->exact, "none");
}

/* Where there are more ranks than CPUs, or ranks have just begun, it takes the scheduler some
 * tenths of a second to give each its place. All ranks stop at the same call. */
static cinchResult_t settle(const cinch_bench *bench) {
    enum { CALLS = 16, COUNT = 16 << 10 };
    static float data[COUNT];
    uint64_t until = cinch_now_ns() + (uint64_t)bench->options->settle_ms * 1000000;
    for (int more = bench->options->settle_ms > 0; more;) {
        for (int i = 0; i < CALLS; i++)
            CINCH_TRY(
                cinchAllReduce(data, data, COUNT, cinchFloat32, cinchSum, bench->exact, NULL));
        more = cinch_now_ns() < until;
        CINCH_TRY(cinchAllReduce(&more, &more, 1, cinchInt32, cinchMax, bench->exact, NULL));
    }
    return cinchSuccess;
}

/* What became of a sweep. */
typedef struct outcome {
    int failed;     /* sizes whose check failed */
    bool unwritten; /* the report could not be written */
} outcome;

static cinchResult_t sweep_sizes(cinch_bench *bench, cinch_report *report, cinch_case c,
                                 outcome *out) {
    const cinch_perf_options *o = bench->options;
    for (c.bytes = o->first; c.bytes <= o->last;) {
        cinch_row row;
        bool bad;
        CINCH_TRY(cinch_measure(bench, &c, &row, &bad));
        out->failed += bad;
        if (bench->place.rank == 0 && !cinch_report_row(report, &row, bad)) out->unwritten = true;
        uint64_t next = o->step ? c.bytes + o->step : c.bytes ? c.bytes * o->factor : 1;
        if (next <= c.bytes || (!o->step && c.bytes && next / c.bytes != o->factor)) break;
        c.bytes = next;
    }
    return cinchSuccess;
}

/* One after the other: types, operators where the operation reduces, roots, sizes. */
static cinchResult_t sweep(cinch_bench *bench, cinch_report *report, outcome *out) {
    const cinch_perf_options *o = bench->options;
    unsigned ops = cinch_reduces(o->operation) ? o->ops : 1u << CINCH_OP_NONE;
    int first = o->root == CINCH_EVERY_ROOT ? 0 : o->root;
    int last = o->root == CINCH_EVERY_ROOT ? bench->place.size - 1 : o->root;
    for (int d = 0; d < cinchNumTypes; d++)
        for (int op = 0; op <= CINCH_OP_NONE; op++)
            for (int root = first; root <= last; root++) {
                cinch_case c = {.dtype = (cinchDataType_t)d, .op = (cinch_op)op, .root = root};
                if (!(o->dtypes >> d & 1) || !(ops >> op & 1)) continue;
                CINCH_TRY(sweep_sizes(bench, report, c, out));
            }
    return cinchSuccess;
}

/* What the links of the machine allow, where it is known: a line in the plot. */
static double find_bound(const cinch_bench *bench) {
    const cinch_perf_options *o = bench->options;
    const char *name = o->operation->name;
    int root = o->root == CINCH_EVERY_ROOT ? 0 : o->root;
    double bound = cinch_atlas_bound(bench->comm, cinch_collective_find(name, strlen(name)), root);
    return bound > 0 ? bound : NAN;
}

/* On a GPU calls have a stream already. */
static cinchResult_t open_overlap(cinch_bench *bench) {
    CINCH_TRY(cinch_product_open(&bench->product, &bench->gpu));
    if (bench->gpu.work)
        bench->beside = bench->gpu.stream;
    else
        CINCH_TRY(cinchStreamCreate(&bench->beside));
    return cinchSuccess;
}

static void close_overlap(cinch_bench *bench) {
    cinch_product_close(&bench->product);
    if (bench->beside && !bench->gpu.work) cinchStreamDestroy(bench->beside);
}

/* What exit status a failed call means. */
static int status_of(cinchResult_t result) {
    if (result == cinchSuccess) return 0;
    return result == cinchInvalidUsage || result == cinchInvalidArgument ? 2 : 1;
}

/* One rank's work. */
static int work(cinch_bench *bench) {
    const cinch_perf_options *o = bench->options;
    cinch_report report = {0};
    outcome out = {0};
    if (cinch_perf_root_fits(o, bench->place.size)) return 2;
    if (o->input && !cinch_input_open(&cinch_perf_command, o->input, bench->place.size,
                                      cinch_perf_input_element(o), &bench->input))
        return 2;
    if (bench->place.rank == 0 && !cinch_report_open(&report, o, bench->place.size)) return 2;
    cinchResult_t result =
        o->cuda ? cinch_perf_gpu_open(&bench->gpu, bench->place.rank) : cinchSuccess;
    if (result == cinchSuccess) result = connect_ranks(bench);
    if (result == cinchSuccess && o->overlap) result = open_overlap(bench);
    if (result == cinchSuccess) result = settle(bench);
    if (result == cinchSuccess) result = sweep(bench, &report, &out);
    if (result == cinchSuccess && bench->place.rank == 0 && o->plot)
        report.bound_GBps = find_bound(bench);
    int status = status_of(result);
    if (status) cinch_say_failure(&cinch_perf_command);
    /* After a failure the others may never come to a good end. */
    if (bench->comm) (status ? cinchCommAbort : cinchCommDestroy)(bench->comm);
    if (bench->exact) (status ? cinchCommAbort : cinchCommDestroy)(bench->exact);
    close_overlap(bench);
    cinch_perf_gpu_close(&bench->gpu);
    if (bench->place.rank == 0 && !cinch_report_close(&report)) out.unwritten = true;
    cinch_input_close(&bench->input);
    if (status) return status;
    return out.failed || out.unwritten ? 1 : 0;
}

int cinch_perf_main(int argc, char **argv) {
    cinch_perf_options options;
    cinch_bench bench = {.options = &options};
    int status = cinch_perf_parse(argc, argv, &options);
    if (status >= 0) return status;
    apply(&options);
    bench.place.unbound = options.overlap; /* a rank then computes while another thread calls */
    status = cinch_place_find(&cinch_perf_command, options.ranks, CINCH_PERF_RANKS, argv,
                              cinch_perf_ready, &options, &bench.place);
    return status >= 0 ? status : work(&bench);
}

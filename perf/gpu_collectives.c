/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_collectives: every collective on device memory, checked as `cinch perf` checks it, for ranks
 * that are threads of this process and share the first GPU.
 *
 * Every operation, datatype and operator on 1, 2 and 4 ranks, in place and out of place, odd
 * counts, buffers aligned and an element off; then every codec. The ranks share a context, so
 * thousands of cases take seconds; processes that share a GPU are given it in turn
 * (gpu_check_collectives).
 *
 * Status 0: all is well; 1: something is wrong, or time ran out; 2: bad usage; 77: there is no GPU.
 */
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "compress/dtype.h"
#include "perf/json.h"
#include "perf/perf.h"

enum { RANKS_MAX = 4, GROUPS = 32, CODEC_EVERY = 17, EXACT_EVERY = 89 };

/* What is said of an operation, or of a codec. */
typedef struct group {
    char name[64];
    unsigned rows, wrong, uncompressed;
} group;

/* What runs with the same communicators. */
typedef struct team {
    int ranks;
    const char *codec; /* NULL: exact */
    pthread_barrier_t step;
    cinchUniqueId id;
    cinchResult_t made;
    uint64_t deadline; /* in ns */
    bool small, late;  /* small: a few of the cases */
    unsigned cases;
    atomic_uint bad; /* ranks that found the case wrong */
} team;

typedef struct seat {
    team *team;
    cinch_bench bench;
    cinch_perf_options options;
} seat;

static const char *const op_names[] = {"sum", "prod", "max", "min", "avg", "mulsum", "moved"};

/* The one team at a time: cinch_bench_join is told of no other. */
static team now;
static group groups[GROUPS];
static int group_count;

static group *group_of(const char *name) {
    for (int i = 0; i < group_count; i++)
        if (!strcmp(groups[i].name, name)) return &groups[i];
    group *g = &groups[group_count < GROUPS - 1 ? group_count++ : GROUPS - 1];
    snprintf(g->name, sizeof g->name, "%s", name);
    return g;
}

/* A rank that cannot go on leaves the others waiting: that ends the program. */
static void must(const seat *me, cinchResult_t result, const char *what) {
    if (result == cinchSuccess) return;
    fprintf(stderr, "gpu_collectives: rank %d of %d, codec %s, %s: %s\n", me->bench.place.rank,
            now.ranks, now.codec ? now.codec : "none", what, cinch_last_error());
    fflush(NULL);
    _Exit(1);
}

/* For measure.c, too: every rank calls it at the same place. */
cinchResult_t cinch_bench_join(const cinch_bench *bench, cinchComm_t *comm) {
    pthread_barrier_wait(&now.step);
    if (bench->place.rank == 0) now.made = cinchGetUniqueId(&now.id);
    pthread_barrier_wait(&now.step);
    CINCH_TRY(now.made);
    return cinchCommInitRank(comm, bench->place.size, now.id, bench->place.rank);
}

/* Rank 0 says whether there is time for one more case, and whether it is one of the few. */
static bool wanted(seat *me) {
    team *t = me->team;
    unsigned every = !t->small ? 1 : t->codec ? CODEC_EVERY : EXACT_EVERY;
    static bool go;
    pthread_barrier_wait(&t->step);
    if (me->bench.place.rank == 0) {
        if (cinch_now_ns() > t->deadline) t->late = true;
        go = !t->late && t->cases++ % every == 0;
    }
    pthread_barrier_wait(&t->step);
    return go;
}

static void measure(seat *me, const cinch_operation *operation, cinch_case c, size_t count) {
    team *t = me->team;
    cinch_row row;
    bool failed;
    if (!wanted(me)) return;
    me->options.operation = operation;
    c.bytes = count * cinch_dtype_size(c.dtype) * (size_t)cinch_total_blocks(operation, t->ranks);
    must(me, cinch_measure(&me->bench, &c, &row, &failed), operation->name);
    if (failed) atomic_fetch_add(&t->bad, 1);
    pthread_barrier_wait(&t->step);
    if (me->bench.place.rank != 0) return;
    group *g = group_of(t->codec ? t->codec : operation->name);
    bool packed = strcmp(row.codec, "none") != 0;
    g->rows++;
    g->uncompressed += t->codec && !packed;
    if (!atomic_exchange(&t->bad, 0)) return;
    if (!g->wrong++)
        printf(
            "%s on %d ranks, codec %s, %s, %s, %zu elements, %s, %s is wrong: %llu elements, %llu "
            "around them\n",
            operation->name, t->ranks, row.codec, cinch_dtype_name(c.dtype), op_names[c.op], count,
            me->options.in_place ? "in place" : "apart",
            me->options.unaligned ? "an element off" : "aligned", (unsigned long long)row.wrong,
            (unsigned long long)row.spoilt);
}

static void each_exact(seat *me, const cinch_operation *operation) {
    static const size_t counts[2][2] = {{1021, 16411}, {1, 1021}}; /* aligned, and not */
    bool reduces = cinch_reduces(operation);
    for (int d = 0; d < cinchNumTypes; d++)
        for (int op = reduces ? 0 : CINCH_OP_NONE; op < CINCH_OP_COUNT + !reduces; op++)
            for (int i = 0; i < 2; i++) {
                cinch_case c = {.dtype = (cinchDataType_t)d, .op = (cinch_op)op};
                if (operation->rooted) c.root = (d + op) % me->team->ranks;
                measure(me, operation, c, counts[me->options.unaligned][i]);
            }
}

/* Gaussian values, and some that are not finite. */
static void each_compressed(seat *me, const cinch_operation *operation) {
    static const cinchDataType_t dtypes[] = {cinchFloat32, cinchFloat16, cinchBfloat16};
    const size_t counts[] = {1021, me->team->small ? 30007 : 300007};
    if (!operation->compressible) return;
    if (me->options.in_place && !cinch_reduces(operation)) return; /* stays exact unless asked */
    for (int d = 0; d < 3; d++)
        for (int i = 0; i < 2; i++)
            for (int kind = 0; kind < 2; kind++) {
                bool reduces = cinch_reduces(operation);
                cinch_op op = (d + i) % 2 ? CINCH_OP_AVG : CINCH_OP_SUM;
                cinch_case c = {.dtype = dtypes[d], .op = reduces ? op : CINCH_OP_NONE};
                me->options.data = kind ? CINCH_DATA_NONFINITE : CINCH_DATA_GAUSS;
                measure(me, operation, c, counts[i]);
            }
}

static void *rank_main(void *arg) {
    seat *me = arg;
    team *t = me->team;
    must(me, cinch_perf_gpu_open(&me->bench.gpu, 0), "the GPU");
    must(me, cinch_bench_join(&me->bench, &me->bench.comm), "joining");
    must(me, cinch_bench_join(&me->bench, &me->bench.exact), "joining");
    must(me, cinchCommSetCodec(me->bench.exact, "none"), "no codec");
    for (int i = 0; cinch_operation_names[i]; i++)
        for (int variant = 0; variant < 4; variant++) {
            const cinch_operation *o = &cinch_operations[i];
            me->options.in_place = variant & 1;
            me->options.unaligned = variant >> 1;
            if (me->options.in_place && !o->in_place) continue;
            if (t->ranks == 1 && !strcmp(o->name, "sendrecv")) continue; /* nobody beside it */
            if (t->codec && variant && variant != 3) continue;
            if (t->codec)
                each_compressed(me, o);
            else
                each_exact(me, o);
        }
    must(me, cinchCommDestroy(me->bench.exact), "leaving");
    must(me, cinchCommDestroy(me->bench.comm), "leaving");
    cinch_perf_gpu_close(&me->bench.gpu);
    return NULL;
}

/* Settings are read when a communicator is made. */
static void apply(const char *codec) {
    static const char *const names[] = {"CINCH_CODEC", "CINCH_CODEC_INTRA", "CINCH_CODEC_INTER"};
    for (int i = 0; i < 3; i++) {
        if (codec)
            setenv(names[i], codec, 1);
        else
            unsetenv(names[i]);
    }
    setenv("CINCH_CODEC_OPS", "allreduce,reducescatter,allgather", 1);
    setenv("CINCH_CODEC_MIN_BYTES", "1", 1);
}

/* One number of ranks with one codec. */
static bool play(int ranks, const char *codec, bool small, uint64_t deadline) {
    static seat seats[RANKS_MAX];
    pthread_t thread[RANKS_MAX];
    now = (team){.ranks = ranks, .codec = codec, .small = small, .deadline = deadline};
    pthread_barrier_init(&now.step, NULL, (unsigned)ranks);
    apply(codec);
    for (int r = 0; r < ranks; r++) {
        seat *me = &seats[r];
        *me = (seat){.team = &now, .options = {.samples = 1, .check = true, .cuda = true}};
        me->options.codec = codec;
        me->bench.options = &me->options;
        me->bench.place = (cinch_place){.rank = r, .size = ranks};
        if (pthread_create(&thread[r], NULL, rank_main, me) != 0) {
            fprintf(stderr, "gpu_collectives: no thread for rank %d\n", r);
            _Exit(1);
        }
    }
    for (int r = 0; r < ranks; r++) pthread_join(thread[r], NULL);
    pthread_barrier_destroy(&now.step);
    return !now.late;
}

static bool passes(const group *g) {
    return g->rows && !g->wrong && !g->uncompressed;
}

static bool write_json(const char *path, bool late, bool pass) {
    FILE *file = fopen(path, "we");
    cinch_json j = {0};
    if (!file) {
        fprintf(stderr, "gpu_collectives: %s cannot be written\n", path);
        return false;
    }
    cinch_json_begin(&j, file);
    cinch_json_open(&j, "groups", '[');
    for (int i = 0; i < group_count; i++) {
        cinch_json_open(&j, NULL, '{');
        cinch_json_text(&j, "group", groups[i].name);
        cinch_json_count(&j, "rows", groups[i].rows);
        cinch_json_count(&j, "wrong", groups[i].wrong);
        cinch_json_count(&j, "not_compressed", groups[i].uncompressed);
        cinch_json_bool(&j, "pass", passes(&groups[i]));
        cinch_json_close(&j, '}');
    }
    cinch_json_close(&j, ']');
    cinch_json_bool(&j, "late", late);
    cinch_json_bool(&j, "pass", pass);
    bool written = cinch_json_end(&j);
    return fclose(file) == 0 && written;
}

/* All that there is time for; what there is so far is written after each. */
static bool sweep(bool small, int ranks, uint64_t deadline, const char *json) {
    static const char *const codecs[] = {"int8", "int8:round=stochastic,block=64", "bf16",
                                         "topk:ratio=0.02", "topk:ratio=0.02,select=global"};
    bool timely = true;
    if (small && !ranks) ranks = 2;
    int first = ranks ? ranks : 1, last = ranks ? ranks : RANKS_MAX;
    for (int n = first; n <= last; n *= 2) {
        timely = play(n, NULL, small, deadline) && timely;
        if (json && !write_json(json, true, false)) return false;
    }
    for (int n = first > 1 ? first : 2; n <= last; n *= 2)
        for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++) {
            timely = play(n, codecs[i], small, deadline) && timely;
            if (json && !write_json(json, true, false)) return false;
        }
    return timely;
}

static int usage(void) {
    fprintf(stderr, "usage: gpu_collectives [--small] [--ranks N] [--seconds S] [--json FILE]\n"
                    "--small: a few of the cases, on 2 ranks; --ranks: 1 to 4, and no others\n");
    return 2;
}

int main(int argc, char **argv) {
    static const struct option known[] = {{"small", no_argument, NULL, 's'},
                                          {"seconds", required_argument, NULL, 't'},
                                          {"ranks", required_argument, NULL, 'n'},
                                          {"json", required_argument, NULL, 'j'},
                                          {NULL, 0, NULL, 0}};
    const char *json = NULL;
    bool small = false;
    long ranks = 0;
    uint64_t seconds = 150;
    int which, devices;
    while ((which = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (which == 's') small = true;
        if (which == 't') seconds = strtoul(optarg, NULL, 10);
        if (which == 'n') ranks = strtol(optarg, NULL, 10);
        if (which == 'j') json = optarg;
        if (which == '?') return usage();
    }
    if (optind != argc || !seconds || ranks < 0 || ranks > RANKS_MAX) return usage();
    if (!cinch_perf_gpu_there(&devices)) {
        printf("gpu_collectives: there is no GPU: %s\n", cinch_last_error());
        return 77;
    }
    bool timely = sweep(small, (int)ranks, cinch_now_ns() + seconds * 1000000000u, json);
    bool pass = timely;
    for (int i = 0; i < group_count; i++) {
        const group *g = &groups[i];
        printf("%-38s %5u cases %4u wrong %4u not compressed  %s\n", g->name, g->rows, g->wrong,
               g->uncompressed, passes(g) ? "pass" : "FAIL");
        pass &= passes(g);
    }
    if (!timely) printf("gpu_collectives: not finished in time\n");
    if (json && !write_json(json, !timely, pass)) return 1;
    return pass ? 0 : 1;
}

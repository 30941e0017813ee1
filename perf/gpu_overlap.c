/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_overlap: how much of an all-reduce on device memory a matrix product hides that runs beside
 * it.
 *
 * What `cinch perf --device cuda --overlap` measures, but for ranks that are threads of this
 * process, all on the first GPU: processes that share one are given it in turn. Judged are what is
 * hidden and what the products are slowed by.
 *
 * Status 0: all is well; 1: something is wrong or too slow; 2: bad usage; 77: there is no GPU. */
#include <getopt.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "perf/json.h"
#include "perf/overlap.h"

enum { RANKS_MAX = 8, SMALL = 5000 };

#define HIDDEN_TARGET 0.90
#define SLOWED_TARGET 0.10

typedef struct bench {
    int ranks;
    size_t count; /* elements of the all-reduce */
    bool small;   /* only that all is right beside each other */
    bool report;  /* how much is hidden is not judged */
    cinchUniqueId id[2];
} bench;

typedef struct seat {
    const bench *bench;
    int rank;
    cinch_perf_gpu gpu;
    cinch_product product;
    cinchComm_t comm, exact;
    float *data, *host;
    cinch_overlap result;
    bool right;
    char why[CINCH_ERROR_TEXT];
} seat;

static cinchResult_t all_reduce(void *arg) {
    seat *me = arg;
    return cinchAllReduce(me->data, me->data, me->bench->count, cinchFloat32, cinchSum, me->comm,
                          me->gpu.stream);
}

static cinchResult_t finish(void *arg) {
    const seat *me = arg;
    return cinch_perf_gpu_finish(&me->gpu, me->comm);
}

static cinchResult_t open_seat(seat *me) {
    size_t bytes = me->bench->count * sizeof *me->data;
    void *at;
    CINCH_TRY(cinch_perf_gpu_open(&me->gpu, 0));
    CINCH_TRY(cinch_product_open(&me->product, &me->gpu));
    CINCH_TRY(cinchCommInitRank(&me->comm, me->bench->ranks, me->bench->id[0], me->rank));
    CINCH_TRY(cinchCommInitRank(&me->exact, me->bench->ranks, me->bench->id[1], me->rank));
    CINCH_TRY(me->gpu.work->alloc(me->gpu.device, bytes, &at));
    me->data = at;
    me->host = malloc(bytes);
    return me->host ? cinchSuccess
                    : cinch_fail(cinchSystemError, "out of memory: %zu bytes", bytes);
}

static cinchResult_t copy(const seat *me, void *to, const void *from) {
    CINCH_TRY(me->gpu.work->copy(me->gpu.device, me->gpu.stream, to, from,
                                 me->bench->count * sizeof *me->data));
    return cinchStreamSynchronize(me->gpu.stream);
}

/* Times mean something only where product and all-reduce are right while they run together: a sum
 * of ones. */
static cinchResult_t check_both(seat *me) {
    size_t count = me->bench->count;
    bool right;
    for (size_t i = 0; i < count; i++) me->host[i] = 1;
    CINCH_TRY(copy(me, me->data, me->host));
    CINCH_TRY(cinch_product_start(&me->product, 1));
    CINCH_TRY(all_reduce(me));
    CINCH_TRY(cinch_product_start(&me->product, 1));
    CINCH_TRY(finish(me));
    CINCH_TRY(cinch_product_finish(&me->product));
    CINCH_TRY(cinch_product_check(&me->product, &right));
    CINCH_TRY(copy(me, me->host, me->data));
    for (size_t i = 0; i < count; i++) right &= me->host[i] == (float)me->bench->ranks;
    for (size_t i = 0; i < count; i++) me->host[i] = 0; /* sums of sums would overflow */
    me->right = right;
    return copy(me, me->data, me->host);
}

static cinchResult_t run(seat *me) {
    const cinch_overlap_calls calls = {all_reduce, finish, me, NULL};
    cinch_overlap_calls mine = calls;
    CINCH_TRY(open_seat(me));
    mine.exact = me->exact;
    CINCH_TRY(check_both(me));
    if (me->bench->small) return cinchSuccess;
    CINCH_TRY(cinch_overlap_measure(&mine, &me->product, &me->result));
    me->right &= me->result.right;
    return cinchSuccess;
}

static void *rank_main(void *arg) {
    seat *me = arg;
    cinchResult_t result = run(me);
    if (result != cinchSuccess) snprintf(me->why, sizeof me->why, "%s", cinch_last_error());
    if (me->comm) (result ? cinchCommAbort : cinchCommDestroy)(me->comm);
    if (me->exact) (result ? cinchCommAbort : cinchCommDestroy)(me->exact);
    return NULL;
}

/* When no rank is at work any more: freeing may wait for the whole device. */
static void close_seat(seat *me) {
    if (me->data) me->gpu.work->release(me->gpu.device, me->data);
    cinch_product_close(&me->product);
    cinch_perf_gpu_close(&me->gpu);
    free(me->host);
}

static bool write_json(const char *path, const bench *b, const cinch_overlap *o, bool pass) {
    FILE *file = fopen(path, "we");
    cinch_json j = {0};
    if (!file) {
        fprintf(stderr, "gpu_overlap: %s cannot be written\n", path);
        return false;
    }
    cinch_json_begin(&j, file);
    cinch_json_count(&j, "ranks", (uint64_t)b->ranks);
    cinch_json_count(&j, "bytes", b->count * sizeof(float));
    cinch_json_count(&j, "calls", (uint64_t)o->calls);
    cinch_json_number(&j, "overlap_comm_us", o->comm_us);
    cinch_json_number(&j, "overlap_compute_us", o->compute_us);
    cinch_json_number(&j, "overlap_together_us", o->together_us);
    cinch_json_number(&j, "hidden_frac", o->hidden);
    cinch_json_number(&j, "hidden_target", HIDDEN_TARGET);
    cinch_json_number(&j, "compute_slowed", o->slowed);
    cinch_json_number(&j, "slowed_target", SLOWED_TARGET);
    cinch_json_bool(&j, "sized", o->sized);
    cinch_json_bool(&j, "pass", pass);
    bool written = cinch_json_end(&j);
    return fclose(file) == 0 && written;
}

static int usage(void) {
    fprintf(stderr,
            "usage: gpu_overlap [--small] [--report] [--ranks N] [--bytes B] [--json FILE]\n"
            "--small: only that all is right beside each other; nothing is timed\n"
            "--report: how much is hidden is measured and not judged\n");
    return 2;
}

static int judge(const bench *b, const seat *seats, const char *json) {
    const cinch_overlap *o = &seats[0].result;
    bool right = true;
    for (int r = 0; r < b->ranks; r++) {
        if (seats[r].why[0]) fprintf(stderr, "gpu_overlap: rank %d: %s\n", r, seats[r].why);
        right &= seats[r].right && !seats[r].why[0];
    }
    if (b->small || !right) {
        printf("gpu_overlap: the products and the sums are %s\n", right ? "right" : "wrong");
        return right ? 0 : 1;
    }
    bool pass = o->sized && o->hidden >= HIDDEN_TARGET && o->slowed <= SLOWED_TARGET;
    printf("%d all-reduces of %zu bytes on %d ranks: %.2f ms; products: %.2f ms; both: %.2f ms\n"
           "hidden %.2f (target %.2f), products slowed by %.1f%% (target %.0f%%)%s  %s\n",
           o->calls, b->count * sizeof(float), b->ranks, o->comm_us / 1e3, o->compute_us / 1e3,
           o->together_us / 1e3, o->hidden, HIDDEN_TARGET, 100 * o->slowed, 100 * SLOWED_TARGET,
           o->sized ? "" : ", the two could not be brought to like times",
           b->report ? "not judged"
           : pass    ? "pass"
                     : "FAIL");
    if (json && !write_json(json, b, o, pass)) return 1;
    return pass || b->report ? 0 : 1;
}

int main(int argc, char **argv) {
    static const struct option known[] = {
        {"small", no_argument, NULL, 's'},       {"report", no_argument, NULL, 'r'},
        {"ranks", required_argument, NULL, 'n'}, {"bytes", required_argument, NULL, 'b'},
        {"json", required_argument, NULL, 'j'},  {NULL, 0, NULL, 0}};
    bench b = {.ranks = 2, .count = (size_t)16 << 20};
    const char *json = NULL;
    int which, devices;
    while ((which = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (which == 's') b.small = true;
        if (which == 'r') b.report = true;
        if (which == 'n') b.ranks = (int)strtol(optarg, NULL, 10);
        if (which == 'b') b.count = strtoul(optarg, NULL, 10) / sizeof(float);
        if (which == 'j') json = optarg;
        if (which == '?') return usage();
    }
    if (optind != argc || b.ranks < 2 || b.ranks > RANKS_MAX || !b.count) return usage();
    if (b.small) b.count = SMALL;
    if (!cinch_perf_gpu_there(&devices)) {
        printf("gpu_overlap: there is no GPU: %s\n", cinch_last_error());
        return 77;
    }
    for (int i = 0; i < 2; i++)
        if (cinchGetUniqueId(&b.id[i]) != cinchSuccess) return 1;
    pthread_t thread[RANKS_MAX];
    seat seats[RANKS_MAX] = {{0}};
    for (int r = 0; r < b.ranks; r++) {
        seats[r].bench = &b;
        seats[r].rank = r;
        if (pthread_create(&thread[r], NULL, rank_main, &seats[r]) != 0) {
            fprintf(stderr, "gpu_overlap: no thread for rank %d\n", r);
            return 1; /* which ends the others too */
        }
    }
    for (int r = 0; r < b.ranks; r++) pthread_join(thread[r], NULL);
    for (int r = 0; r < b.ranks; r++) close_seat(&seats[r]);
    return judge(&b, seats, json);
}

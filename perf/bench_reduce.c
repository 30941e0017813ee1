/* SPDX-License-Identifier: Apache-2.0 */
/* bench_reduce [BYTES...]: the speed of the reduction kernels on one pinned core, beside memcpy.
 *
 * Every round times each case once, so that all see the same machine; a figure is the median of the
 * rounds. ns is the time of one call, GB/s the bytes that it reads and writes over that time. */
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "compress/dtype.h"
#include "compress/reduce.h"

enum { ROUNDS = 15, MOST_SRC = 4, MOST_DST = 2 };
#define BATCH_BYTES ((size_t)1 << 20) /* small calls are repeated up to so much */

typedef struct {
    const char *name;
    cinchDataType_t dtype;
    cinchRedOp_t op; /* cinchNumOps: a copy */
    int nsrc, ndst, avg_n;
    unsigned flags;
} bench_case;

#define STREAM CINCH_REDUCE_STREAM
static const bench_case cases[] = {
    {"copy", cinchInt8, cinchNumOps, 1, 1, 0, 0},
    {"copy stream", cinchInt8, cinchNumOps, 1, 1, 0, STREAM},
    {"float sum 2>1", cinchFloat, cinchSum, 2, 1, 0, 0},
    {"float sum 2>1 stream", cinchFloat, cinchSum, 2, 1, 0, STREAM},
    {"float sum 2>2", cinchFloat, cinchSum, 2, 2, 0, 0},
    {"float sum 2>2 stream", cinchFloat, cinchSum, 2, 2, 0, STREAM},
    {"float sum 3>1", cinchFloat, cinchSum, 3, 1, 0, 0},
    {"float sum 4>1", cinchFloat, cinchSum, 4, 1, 0, 0},
    {"float avg 2>1", cinchFloat, cinchSum, 2, 1, 2, 0},
    {"float max 2>1", cinchFloat, cinchMax, 2, 1, 0, 0},
    {"double sum 2>1", cinchDouble, cinchSum, 2, 1, 0, 0},
    {"half sum 2>1", cinchHalf, cinchSum, 2, 1, 0, 0},
    {"bfloat16 sum 2>1", cinchBfloat16, cinchSum, 2, 1, 0, 0},
    {"bfloat16 avg 4>1", cinchBfloat16, cinchSum, 4, 1, 4, 0},
    {"bfloat16 max 2>1", cinchBfloat16, cinchMax, 2, 1, 0, 0},
    {"f8e4m3 sum 2>1", cinchFloat8e4m3, cinchSum, 2, 1, 0, 0},
    {"f8e5m2 sum 2>1", cinchFloat8e5m2, cinchSum, 2, 1, 0, 0},
    {"int8 sum 2>1", cinchInt8, cinchSum, 2, 1, 0, 0},
    {"int8 avg 2>1", cinchInt8, cinchSum, 2, 1, 2, 0},
    {"int8 prod 2>1", cinchInt8, cinchProd, 2, 1, 0, 0},
    {"int32 sum 2>1", cinchInt32, cinchSum, 2, 1, 0, 0},
    {"int32 avg 2>1", cinchInt32, cinchSum, 2, 1, 2, 0},
    {"int64 prod 2>1", cinchInt64, cinchProd, 2, 1, 0, 0},
    {"int64 avg 2>1", cinchInt64, cinchSum, 2, 1, 2, 0},
};
#define CASES (int)(sizeof cases / sizeof *cases)

static char *src[MOST_SRC], *dst[MOST_DST];

/* Nanoseconds of one call. */
static double time_case(const bench_case *c, size_t bytes) {
    size_t count = bytes / cinch_dtype_size(c->dtype), calls = BATCH_BYTES / bytes + 1;
    cinch_reduce_fn fn = cinch_reduce_kernel(c->dtype, c->op);
    void *const to[] = {dst[0], dst[1]};
    const void *const from[] = {src[0], src[1], src[2], src[3]};
    uint64_t begin = cinch_now_ns();
    for (size_t i = 0; i < calls; i++) {
        if (fn)
            fn(to, c->ndst, from, c->nsrc, count, c->avg_n, c->flags);
        else
            cinch_copy(to[0], from[0], bytes, c->flags);
    }
    return (double)(cinch_now_ns() - begin) / (double)calls;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void bench(size_t bytes) {
    static double ns[CASES][ROUNDS];
    for (int i = 0; i < CASES; i++) time_case(&cases[i], bytes);
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < CASES; i++) ns[i][round] = time_case(&cases[i], bytes);
    printf("%zu bytes\n", bytes);
    for (int i = 0; i < CASES; i++) {
        qsort(ns[i], ROUNDS, sizeof ns[i][0], by_value);
        double median = ns[i][ROUNDS / 2];
        printf("  %-22s %12.1f ns %8.2f GB/s\n", cases[i].name, median,
               (double)bytes * (cases[i].nsrc + cases[i].ndst) / median);
    }
}

static void pin(void) {
    cpu_set_t set;
    int cpu = sched_getcpu();
    if (cpu < 0) return;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

int main(int argc, char **argv) {
    static const size_t usual[] = {16, 64, 4096, 65536, 1 << 20, 64 << 20};
    size_t sizes[16], n = 0, most = 0;
    for (int i = 1; i < argc && n < 16; i++) sizes[n++] = strtoull(argv[i], NULL, 0);
    for (size_t i = 0; argc < 2 && i < sizeof usual / sizeof *usual; i++) sizes[n++] = usual[i];
    for (size_t i = 0; i < n; i++) {
        if (sizes[i] < 1) {
            fprintf(stderr, "bench_reduce: sizes are bytes, 1 or more\n");
            return 2;
        }
        if (sizes[i] > most) most = sizes[i];
    }
    pin();
    for (int i = 0; i < MOST_SRC + MOST_DST; i++) {
        char *p = malloc(most);
        if (!p) {
            fprintf(stderr, "bench_reduce: out of memory\n");
            return 1;
        }
        memset(p, i + 1, most);
        if (i < MOST_SRC)
            src[i] = p;
        else
            dst[i - MOST_SRC] = p;
    }
    for (size_t i = 0; i < n; i++) bench(sizes[i]);
    for (int i = 0; i < MOST_SRC; i++) free(src[i]);
    for (int i = 0; i < MOST_DST; i++) free(dst[i]);
    return 0;
}

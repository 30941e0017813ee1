/* SPDX-License-Identifier: Apache-2.0 */
/* bench_codec: the speed of the codecs on one pinned core against memcpy of the same fp32 bytes.
 *
 * Every round times memcpy and then each case once, so that all see the same machine; a figure is
 * the median of the rounds. GB/s count fp32 bytes, whatever the codec makes of them. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "compress/codec.h"
#include "compress/codec_kernels.h"

#define ROUNDS_MAX 101
#define BATCH_BYTES ((size_t)4 << 20) /* small buffers are done over and over up to so much */

typedef enum { COPY, ENCODE, DECODE_ADD } operation;

static const struct {
    const char *name, *spec;
    operation op;
    bool feedback;
} cases[] = {
    {"memcpy", "none", COPY, false},
    {"int8 encode", "int8", ENCODE, false},
    {"int8 encode ef", "int8:ef=1", ENCODE, true},
    {"int8 decode-add", "int8", DECODE_ADD, false},
    {"int8 encode stochastic", "int8:round=stochastic", ENCODE, false},
    {"bf16 encode", "bf16", ENCODE, false},
    {"bf16 encode ef", "bf16:ef=1", ENCODE, true},
    {"bf16 decode-add", "bf16", DECODE_ADD, false},
    {"topk encode", "topk:ef=0", ENCODE, false},
    {"topk encode ef", "topk", ENCODE, true},
    {"topk decode-add", "topk", DECODE_ADD, false},
};
#define CASES (int)(sizeof cases / sizeof *cases)

typedef struct buffers {
    float *src, *dst, *residual;
    unsigned char *wire;
    size_t wire_room;
} buffers;

/* Sums of uniform numbers, near enough to a normal distribution, never all alike. */
static void fill(float *out, size_t count) {
    uint64_t state = 1;
    for (size_t i = 0; i < count; i++) {
        float sum = 0;
        for (int k = 0; k < 4; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sum += (float)(state >> 40) * 0x1p-24f - 0.5f;
        }
        out[i] = sum;
    }
}

/* Milliseconds of one batch, per pass over the buffer. */
static double time_case(int which, const cinch_codec *codec, const buffers *b, size_t count) {
    size_t bytes = count * sizeof(float), passes = bytes < BATCH_BYTES ? BATCH_BYTES / bytes : 1;
    const cinchCodecSite_t site = {0};
    uint64_t nonfinite = 0;
    float *residual = cases[which].feedback ? b->residual : NULL;
    size_t encoded = 0;
    if (cases[which].op == DECODE_ADD)
        encoded =
            codec->vt->encode(codec->params, &site, NULL, b->src, NULL, count, b->wire, &nonfinite);
    for (int warm = 1;; warm = 0) {
        uint64_t start = cinch_now_ns();
        for (size_t p = 0; p < (warm ? 1 : passes); p++) {
            const void *wire = b->wire;
            if (cases[which].op == COPY)
                memcpy(b->dst, b->src, bytes);
            else if (cases[which].op == ENCODE)
                codec->vt->encode(codec->params, &site, NULL, b->src, residual, count, b->wire,
                                  &nonfinite);
            else
                codec->vt->decode_add(codec->params, 1, &wire, &encoded, count, 0, count, b->dst,
                                      b->dst);
            __asm__ volatile("" ::: "memory");
        }
        if (!warm) return (double)(cinch_now_ns() - start) * 1e-6 / (double)passes;
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *value, int count) {
    qsort(value, (size_t)count, sizeof *value, by_value);
    return count % 2 ? value[count / 2] : (value[count / 2 - 1] + value[count / 2]) / 2;
}

static void measure(const cinch_codec *codec, const buffers *b, size_t bytes, int rounds) {
    static double ms[CASES][ROUNDS_MAX], ratio[CASES][ROUNDS_MAX];
    size_t count = bytes / sizeof(float);
    memset(b->residual, 0, bytes);
    memset(b->dst, 0, bytes);
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < CASES; i++) {
            ms[i][r] = time_case(i, &codec[i], b, count);
            ratio[i][r] = ms[0][r] / ms[i][r];
        }
    for (int i = 0; i < CASES; i++) {
        double speed = (double)bytes / median(ms[i], rounds) * 1e-6,
               share = median(ratio[i], rounds);
        printf("%10zu  %-24s %8.2f GB/s  %6.2f of memcpy\n", bytes, cases[i].name, speed, share);
        printf("{\"case\":\"%s\",\"codec\":\"%s\",\"bytes\":%zu,\"GBps\":%.3f,\"of_memcpy\":%.3f,"
               "\"rounds\":%d,\"isa\":\"%s\"}\n",
               cases[i].name, cases[i].spec, bytes, speed, share, rounds, cinch_codec_isa());
    }
    fflush(stdout);
}

static int usage(void) {
    fprintf(stderr, "usage: bench_codec [-c CPU] [-r ROUNDS] [-m LARGEST_MIB] [-k KERNELS]\n"
                    "ROUNDS: 15 to 101 (15); LARGEST_MIB: 1 to 256 (256); KERNELS: avx512, avx2,\n"
                    "reference, where this CPU has them (the fastest)\n");
    return 2;
}

static bool choose_kernels(const char *name) {
    const cinch_codec_kernels *kernels;
    for (int i = 0; (kernels = cinch_codec_kernels_at(i)); i++)
        if (!strcmp(kernels->isa, name)) {
            cinch_codec_kernels_force(kernels);
            return true;
        }
    return false;
}

int main(int argc, char **argv) {
    int cpu = 0, rounds = 15, option;
    size_t largest = 256;
    while ((option = getopt(argc, argv, "c:r:m:k:")) != -1) {
        if (option == 'c')
            cpu = atoi(optarg);
        else if (option == 'r')
            rounds = atoi(optarg);
        else if (option == 'm')
            largest = (size_t)atoi(optarg);
        else if (option != 'k' || !choose_kernels(optarg))
            return usage();
    }
    if (rounds < 15 || rounds > ROUNDS_MAX || largest < 1 || largest > 256 || optind < argc)
        return usage();
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set)) {
        perror("bench_codec: cannot stay on that CPU");
        return 2;
    }
    size_t bytes = largest << 20, wire_room = 0;
    cinch_codec codec[CASES];
    for (int i = 0; i < CASES; i++) {
        char why[512];
        if (!cinch_codec_parse(cases[i].spec, &codec[i], why, sizeof why)) {
            fprintf(stderr, "bench_codec: %s\n", why);
            return 2;
        }
        size_t room = cinch_codec_bound(&codec[i], bytes / sizeof(float));
        if (room > wire_room) wire_room = room;
    }
    buffers b = {malloc(bytes), malloc(bytes), malloc(bytes), malloc(wire_room), wire_room};
    bool enough = b.src && b.dst && b.residual && b.wire;
    if (enough) {
        fill(b.src, bytes / sizeof(float));
        memset(b.wire, 0, b.wire_room);
        static const size_t sizes[] = {16 << 10, 256 << 10, 1 << 20, 4 << 20, 64 << 20, 256 << 20};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes && sizes[i] <= bytes; i++)
            measure(codec, &b, sizes[i], rounds);
    } else {
        fprintf(stderr, "bench_codec: no memory for buffers of %zu MiB\n", largest);
    }
    free(b.src);
    free(b.dst);
    free(b.residual);
    free(b.wire);
    return enough ? 0 : 1;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* How fast codecs are on one core. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "coll/tune.h"
#include "compress/codec.h"

/* Beyond the second-level cache, as the parts of long messages are, and long enough for a clock. */
enum { COUNT = 1 << 18, LEAST_NS = 20000000 };

typedef struct bench {
    cinch_codec codec;
    float *in, *sum;
    unsigned char *wire, *work, *state;
    size_t bytes; /* in wire */
} bench;

static size_t padded(size_t bytes) {
    return (bytes + 64) / 64 * 64;
}

static bool bench_make(bench *b) {
    b->in = aligned_alloc(64, COUNT * sizeof *b->in);
    b->sum = aligned_alloc(64, COUNT * sizeof *b->sum);
    b->wire = aligned_alloc(64, padded(cinch_codec_bound(&b->codec, COUNT)));
    b->work = aligned_alloc(64, padded(cinch_codec_scratch(&b->codec, cinchFloat32, COUNT)));
    b->state = aligned_alloc(64, padded(cinch_codec_prepare_bytes(&b->codec, COUNT)));
    if (!b->in || !b->sum || !b->wire || !b->work || !b->state) return false;
    uint32_t x = 1;
    for (int i = 0; i < COUNT; i++) { /* numbers without order, of several magnitudes */
        x = x * 1664525 + 1013904223;
        b->in[i] = ((float)(x >> 8) / 8388608 - 1) * (float)(1 + (x >> 4) % 7);
        b->sum[i] = 0;
    }
    return true;
}

static void bench_free(bench *b) {
    free(b->in);
    free(b->sum);
    free(b->wire);
    free(b->work);
    free(b->state);
}

static void encode(bench *b) {
    cinchCodecSite_t site = {0};
    uint64_t nonfinite = 0;
    cinch_codec_prepare(&b->codec, &site, cinchFloat32, b->in, NULL, COUNT, b->state, b->work);
    b->bytes = cinch_codec_encode(&b->codec, &site, b->state, cinchFloat32, b->in, NULL, COUNT,
                                  b->wire, &nonfinite, b->work);
}

static cinchResult_t add(bench *b) {
    cinch_codec_term term[2] = {{.wire = b->wire, .bytes = b->bytes}, {.plain = b->sum}};
    return cinch_codec_sum(&b->codec, term, 2, cinchFloat32, cinchFloat32, b->sum, COUNT, 2,
                           b->work);
}

/* The fastest of many times: what else runs here only adds. */
static cinchResult_t time_both(bench *b, double *encode_ns, double *add_ns) {
    uint64_t start = cinch_now_ns();
    *encode_ns = *add_ns = 1e18;
    for (int i = 0; i < 3 || cinch_now_ns() - start < LEAST_NS; i++) {
        uint64_t t0 = cinch_now_ns();
        encode(b);
        uint64_t t1 = cinch_now_ns();
        CINCH_TRY(add(b));
        double t = (double)(t1 - t0), u = (double)(cinch_now_ns() - t1);
        if (t < *encode_ns) *encode_ns = t;
        if (u < *add_ns) *add_ns = u;
    }
    return cinchSuccess;
}

cinchResult_t cinch_tune_codec(const char *spec, cinch_codec_speed *speed) {
    char why[CINCH_ERROR_TEXT];
    bench b = {0};
    double encode_ns = 0, add_ns = 0;
    if (!cinch_codec_parse(spec, &b.codec, why, sizeof why))
        return cinch_fail(cinchInvalidArgument, "codec \"%.100s\": %.300s", spec, why);
    if (!b.codec.vt) return cinch_fail(cinchInvalidArgument, "\"%.100s\" encodes nothing", spec);
    cinchResult_t result = bench_make(&b) ? time_both(&b, &encode_ns, &add_ns)
                                          : cinch_fail(cinchSystemError, "out of memory");
    if (result == cinchSuccess) {
        *speed = (cinch_codec_speed){.encode_gbps = sizeof(float) * COUNT / encode_ns,
                                     .decode_gbps = sizeof(float) * COUNT / add_ns};
        snprintf(speed->codec, sizeof speed->codec, "%s", spec);
    }
    bench_free(&b);
    return result;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel once, before a communicator's first operation on a device.
 *
 * CUDA loads a kernel when it is first launched, and may wait for the whole device then: for ever,
 * where a stream waits for the very operation that launches it, or for that of another rank in this
 * process ("Lazy Loading", CUDA C++ Programming Guide). So kernels are launched here, by the thread
 * that calls, on a few bytes of their own. */
#include <stdatomic.h>

#include "coll/gpu.h"

enum { ELEMENTS = 64, ROOM = 16384, ROOMS = 6, MOST_DEVICES = 64 };

typedef struct warming {
    cinch_gpu_comm *g;
    const cinch_codec *codec;
} warming;

static unsigned char *at(const cinch_gpu_comm *g, int place) {
    return (unsigned char *)g->warm.data + place * ROOM;
}

static cinchResult_t warm_reductions(void *arg) {
    const cinch_gpu_comm *g = ((warming *)arg)->g;
    const cinch_gpu_where where = {.stream = cinch_gpu_compute(g)};
    void *dst = at(g, 0);
    const void *src[2] = {at(g, 1), at(g, 2)};
    for (int t = 0; t < cinchNumTypes; t++) {
        cinchDataType_t dtype = (cinchDataType_t)t;
        for (int op = cinchSum; op < cinchAvg; op++)
            CINCH_TRY(
                g->kernels->reduce(&where, dtype, (cinchRedOp_t)op, &dst, 1, src, 2, ELEMENTS, 0));
        CINCH_TRY(g->kernels->premul(&where, dtype, dst, src[0], ELEMENTS, src[1]));
    }
    return cinchSuccess;
}

static cinchResult_t warm_codec(void *arg) {
    static const cinchDataType_t types[] = {cinchFloat32, cinchFloat16, cinchBfloat16};
    const cinch_gpu_comm *g = ((warming *)arg)->g;
    const cinch_codec *codec = ((warming *)arg)->codec;
    const cinch_gpu_where where = {.stream = cinch_gpu_compute(g)};
    const cinchCodecSite_t site = {0};
    cinch_gpu_counts *counts = (void *)at(g, 0);
    float *residual = (void *)at(g, 2);
    void *wire = at(g, 3), *state = at(g, 4);
    for (int t = 0; t < 3; t++) {
        if (g->kernels->state_bytes(codec, ELEMENTS))
            CINCH_TRY(g->kernels->prepare(&where, codec, &site, types[t], at(g, 1), residual,
                                          ELEMENTS, state));
        CINCH_TRY(g->kernels->encode(&where, codec, &site, state, types[t], at(g, 1), residual,
                                     ELEMENTS, wire, counts));
        cinch_gpu_term term = {.wire = wire, .bytes = g->kernels->wire_bytes(codec, ELEMENTS)};
        if (!term.bytes) { /* its messages differ in length */
            CINCH_TRY(g->kernels->measure(&where, codec, wire, ELEMENTS, (void *)at(g, 5)));
            CINCH_TRY(g->kernels->prepare_part(&where, codec, &site, types[t], at(g, 1), residual,
                                               ELEMENTS, state, at(g, 5)));
        }
        if (g->kernels->fuses(codec))
            CINCH_TRY(g->kernels->sum_encode(&where, codec, &site, &term, 1, types[t], residual,
                                             ELEMENTS, 0, at(g, 4), types[t], NULL, counts));
        for (int to = 0; to < 3; to++) /* sums between levels are float */
            CINCH_TRY(g->kernels->sum(&where, codec, &term, 1, types[t], types[to], at(g, 1),
                                      ELEMENTS, 0, counts));
    }
    return cinchSuccess;
}

static bool runs(const cinch_gpu_comm *g, const cinch_codec *codec) {
    return codec->vt && !g->kernels->supports(codec) &&
           cinch_codec_bound(codec, ELEMENTS) <= ROOM &&
           g->kernels->state_bytes(codec, ELEMENTS) <= ROOM;
}

cinchResult_t cinch_gpu_warm(struct cinchComm *comm) {
    static atomic_bool warm[MOST_DEVICES];
    cinch_gpu_comm *g = comm->gpu;
    bool known = g->device < MOST_DEVICES && atomic_load(&warm[g->device]);
    bool joined = !atomic_load(&comm->joining); /* else nobody knows of a codec yet */
    warming w = {.g = g};
    const cinch_codec *codecs[CINCH_CODEC_COUNT] = {&comm->policy.codec, &comm->policy.inside};
    bool same = true;
    for (int c = 0; joined && c < CINCH_CODEC_COUNT; c++) same &= g->warmed[c] == codecs[c]->vt;
    if (known && same) return cinchSuccess;
    if (!g->warm.data) {
        CINCH_TRY(cinch_gpu_reserve(g, &g->warm, ROOMS * ROOM));
        CINCH_TRY(g->work->fill(g->device, cinch_gpu_compute(g), g->warm.data, 0, ROOMS * ROOM));
    }
    if (!known) CINCH_TRY(g->work->with(g->device, warm_reductions, &w));
    if (g->device < MOST_DEVICES) atomic_store(&warm[g->device], true);
    if (!joined) return cinchSuccess;
    for (int c = 0; c < CINCH_CODEC_COUNT; c++) {
        w.codec = codecs[c];
        if (runs(g, w.codec)) CINCH_TRY(g->work->with(g->device, warm_codec, &w));
        g->warmed[c] = w.codec->vt;
    }
    return cinchSuccess;
}

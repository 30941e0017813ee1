/* SPDX-License-Identifier: Apache-2.0 */
/* The error budget: codecs by their errors, and a sampled check of the codec in force. */
#include "coll/budget.h"

#include <math.h>

#include "base/log.h"
#include "coll/gpu.h"
#include "compress/dtype.h"

/* rel_l2 of a compressed all-reduce of normally distributed values, both quantizations, as `cinch
 * perf allreduce -n 8 -b 4M --codec CODEC --data gauss` measures it (0.0095, 0.0023), and some
 * room. Values with heavy tails have more with int8 (0.033 with --data heavy): the check below
 * finds it. */
static const struct {
    const char *codec;
    double error;
} codecs[] = {{"int8", 0.01}, {"bf16", 0.0025}};

const char *cinch_budget_codec(double limit) {
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++)
        if (limit == 0 || limit >= codecs[i].error) return codecs[i].codec;
    return "none";
}

enum {
    EVERY = 64,    /* operations */
    PIECE = 65536, /* elements: a segment of topk; int8 takes some 20 microseconds to encode it */
    LINE = 64
};

static size_t padded(size_t bytes) {
    return (bytes + LINE - 1) / LINE * LINE;
}

/* Room for a piece of `length` elements, from one piece of memory. */
typedef struct room {
    float *plain, *back;
    unsigned char *wire, *state, *work;
} room;

/* What the rank's input is encoded with. */
static const cinch_codec *codec_of(const cinch_op *op) {
    bool inside = op->schedule->inputs >> CINCH_CODEC_INSIDE & 1;
    return cinch_codec_in_force(op->call.comm, inside ? CINCH_CODEC_INSIDE : CINCH_CODEC_MAIN);
}

static bool make_room(cinch_op *op, size_t length, room *r) {
    struct cinchComm *comm = op->call.comm;
    const cinch_codec *codec = codec_of(op);
    size_t numbers = padded(length * sizeof(float)),
           wire = padded(cinch_codec_bound(codec, length));
    size_t state = padded(cinch_codec_prepare_bytes(codec, length));
    size_t here = cinch_codec_scratch(codec, op->call.dtype, length);
    size_t back = cinch_codec_scratch(codec, cinchFloat32, length);
    unsigned char *data = cinch_scratch_reserve(
        &comm->sample, 2 * numbers + wire + state + padded(here > back ? here : back));
    if (!data) return false;
    r->plain = (float *)(void *)data;
    r->back = (float *)(void *)(data + numbers);
    r->wire = data + 2 * numbers;
    r->state = r->wire + wire;
    r->work = r->state + state;
    return true;
}

/* The relative error of encoding the piece, NaN where it says nothing. */
static double error_of(cinch_op *op, size_t offset, size_t length) {
    const struct cinchComm *comm = op->call.comm;
    const cinch_codec *codec = codec_of(op);
    cinchDataType_t dtype = op->call.dtype;
    const unsigned char *source = (const unsigned char *)op->source + offset * op->esize;
    cinchCodecSite_t site = {.call = comm->calls, .offset = offset, .rank = (uint32_t)comm->rank};
    uint64_t nonfinite = 0;
    double wrong = 0, whole = 0;
    room r;
    if (!make_room(op, length, &r)) return NAN;
    if (op->gpu && cinch_gpu_view(op->gpu, source, length * op->esize, &source) != cinchSuccess)
        return NAN;
    if (cinch_codec_prepare_bytes(codec, length))
        cinch_codec_prepare(codec, &site, dtype, source, NULL, length, r.state, r.work);
    cinch_codec_term term = {.wire = r.wire};
    term.bytes = cinch_codec_encode(codec, &site, r.state, dtype, source, NULL, length, r.wire,
                                    &nonfinite, r.work);
    if (cinch_codec_sum(codec, &term, 1, dtype, cinchFloat32, r.back, length, 0, r.work) !=
        cinchSuccess)
        return NAN;
    cinch_widen(r.plain, source, dtype, length);
    for (size_t i = 0; i < length; i++) {
        double off = (double)r.back[i] - r.plain[i];
        wrong += off * off;
        whole += (double)r.plain[i] * r.plain[i];
    }
    return sqrt(wrong / whole); /* zeros: NaN */
}

void cinch_budget_look(cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    const cinch_shape *shape = cinch_shape_of(op->call.collective);
    double limit = comm->settings.max_rel_error;
    if (limit == 0 || comm->over_budget || comm->compressed_calls % EVERY) return;
    size_t count = op->call.count * (size_t)cinch_shape_in_blocks(shape, comm->nranks);
    size_t pieces = (count + PIECE - 1) / PIECE;
    size_t offset = comm->compressed_calls / EVERY % pieces * PIECE;
    size_t length = count - offset < PIECE ? count - offset : PIECE;
    double error = error_of(op, offset, length);
    if (!(error > limit) || isinf(error)) return;
    comm->over_budget = true;
    cinch_warn("CINCH_MAX_REL_ERROR=%g is passed: %s has an error of %.2g on rank %d's input of "
               "%s number %llu, in %zu elements from %zu on (said once)",
               limit, codec_of(op)->vt->name, error, comm->rank, shape->name,
               (unsigned long long)op->number, length, offset);
}

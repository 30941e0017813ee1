/* SPDX-License-Identifier: Apache-2.0 */
/* Two-step and exchange (coll/algo), where kernels encode and sum and the real library moves.
 *
 * Rounds overlap: in iteration i the kernels encode round i, the owner's sum of round i-1 is
 * encoded, one group of the real library moves the parts of round i and the sums of round i-1, and
 * meanwhile round i-2 is decoded. Kernels run on the caller's stream, transfers on one of the
 * communicator's own; a message of one round stays on the caller's. */
#include "coll/nccl/steps.h"

#include <string.h>

#include "base/log.h"
#include "compress/dtype.h"

/* DEPTH: rounds whose messages exist at once; each is read before the next but one writes there.
 * ROUNDS: of a message that LEAST_ROUND and MOST_ROUND leave alone. All three are guesses, to be
 * measured on a GPU: more rounds overlap more, and cost more launches. */
enum { DEPTH = 2, ROUNDS = 4 };
#define LEAST_ROUND ((size_t)2 << 20)
#define MOST_ROUND ((size_t)32 << 20)

static const cinch_codec *codec_of(const cinch_wanted *w) {
    return &w->side->policy.codec;
}
static const cinch_gpu *gpu_of(const cinch_wanted *w) {
    return w->side->forward->gpu;
}
static bool exchanges(const cinch_wanted *w) {
    return w->side->flat.n == 2;
}
static size_t align(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

/* ---- plan ---- */

static size_t round_bytes(const cinch_wanted *w) {
    size_t chunk = (size_t)w->side->forward->settings.chunk, bytes = w->length * w->esize / ROUNDS;
    if (chunk) return chunk * (size_t)w->parts;
    return bytes < LEAST_ROUND ? LEAST_ROUND : bytes > MOST_ROUND ? MOST_ROUND : bytes;
}

static unsigned char *take(unsigned char **at, size_t bytes) {
    unsigned char *here = *at;
    *at += align(bytes);
    return here;
}

static cinchResult_t lay_scratch(cinch_wanted *w) {
    const cinch_codec *codec = codec_of(w);
    size_t part = cinch_cut_part_max(&w->cut);
    w->slot = align(gpu_of(w)->wire_bytes(codec, part));
    size_t slots = (size_t)w->depth * (size_t)(exchanges(w) ? 1 : w->parts) * w->slot;
    size_t box = exchanges(w) || gpu_of(w)->fuses(codec) ? 0 : part * sizeof(float);
    size_t share = w->inside ? w->length * w->esize : 0;
    size_t all = 3 * align(slots) + align(box) + align(share);
    unsigned char *at = cinch_side_scratch(w->side, all);
    if (!at)
        return cinch_fail(cinchSystemError, "out of device memory for %zu bytes of scratch", all);
    w->sent = take(&at, slots);
    w->got = take(&at, slots);
    w->result = take(&at, slots);
    w->box = (float *)(void *)take(&at, box);
    w->share = take(&at, share);
    return cinchSuccess;
}

static cinchResult_t plan(cinch_wanted *w) {
    cinch_side *side = w->side;
    w->esize = cinch_dtype_size(w->dtype);
    w->inside = side->inside.n > 1;
    w->length = w->count / (size_t)side->inside.n;
    w->parts = exchanges(w) ? 1 : side->flat.n;
    w->cut = cinch_cut_make(w->length, w->parts, cinch_codec_granule(codec_of(w)),
                            round_bytes(w) / w->esize);
    w->depth = w->cut.rounds < DEPTH ? (int)w->cut.rounds : DEPTH;
    w->net = w->cut.rounds > 1 ? side->net : w->stream;
    CINCH_TRY(lay_scratch(w));
    w->in = w->inside ? w->share : w->send;
    w->out = w->inside ? w->share : w->recv;
    return cinchSuccess;
}

/* ---- pieces ---- */

static size_t length_of(const cinch_wanted *w, size_t round, int part, size_t *first) {
    cinch_ref ref = {.part = (uint16_t)part, .parts = 1};
    cinch_span span = cinch_cut_span(&w->cut, cinch_cut_length(&w->cut, round), &ref);
    *first = round * w->cut.round + span.first;
    return span.length;
}
static unsigned char *slot_of(const cinch_wanted *w, unsigned char *base, size_t round, int part) {
    size_t parts = exchanges(w) ? 1 : (size_t)w->parts;
    return base + ((round % (size_t)w->depth) * parts + (size_t)part) * w->slot;
}
/* Sums of a round lie close together, all as long as the longest. */
static size_t stride_of(const cinch_wanted *w, size_t round) {
    size_t first, length = length_of(w, round, 0, &first);
    return align(gpu_of(w)->wire_bytes(codec_of(w), length));
}
static unsigned char *result_of(const cinch_wanted *w, size_t round, int part) {
    return slot_of(w, w->result, round, 0) + (size_t)part * stride_of(w, round);
}

static cinchCodecSite_t site_of(const cinch_wanted *w, size_t first, unsigned phase) {
    size_t before = w->inside ? (size_t)w->side->inside.rank * w->length : 0;
    return (cinchCodecSite_t){
        .call = w->call, .offset = before + first, .rank = (uint32_t)w->side->rank, .phase = phase};
}

static int divisor(const cinch_wanted *w) {
    return w->op == cinchAvg ? w->side->nranks : 0;
}

static cinchResult_t encode_round(const cinch_wanted *w, size_t round) {
    const cinch_gpu_where where = {.stream = w->stream};
    int me = w->side->flat.rank;
    for (int i = 0; i < w->parts; i++) {
        int p = (me + i) % w->parts;
        size_t first, length = length_of(w, round, p, &first);
        if (!length || (p == me && !exchanges(w))) continue;
        cinchCodecSite_t site = site_of(w, first, 0);
        CINCH_TRY(
            gpu_of(w)->encode(&where, codec_of(w), &site, NULL, w->dtype, w->in + first * w->esize,
                              w->residual ? w->residual->sender + first : NULL, length,
                              slot_of(w, w->sent, round, exchanges(w) ? 0 : p), w->side->counts));
    }
    return cinchSuccess;
}

/* An owner's step: the sum of all ranks' terms in their order, its own one exact, encoded again. */
static cinchResult_t sum_round(const cinch_wanted *w, size_t round) {
    const cinch_gpu_where where = {.stream = w->stream};
    const cinch_gpu *gpu = gpu_of(w);
    const cinch_codec *codec = codec_of(w);
    cinch_gpu_counts *counts = w->side->counts;
    int me = w->side->flat.rank, n = w->side->flat.n;
    cinch_gpu_term term[CINCH_WANTED_RANKS];
    size_t first, length = length_of(w, round, me, &first);
    if (!length) return cinchSuccess;
    for (int q = 0; q < n; q++)
        term[q] = (cinch_gpu_term){.wire = q == me ? NULL : slot_of(w, w->got, round, q),
                                   .plain = q == me ? w->in + first * w->esize : NULL,
                                   .bytes = q == me ? 0 : gpu->wire_bytes(codec, length)};
    float *residual = w->residual ? w->residual->owner + round * cinch_cut_part_max(&w->cut) : NULL;
    cinchCodecSite_t site = site_of(w, first, 1);
    void *wire = result_of(w, round, me);
    if (gpu->fuses(codec))
        return gpu->sum_encode(&where, codec, &site, term, n, w->dtype, residual, length,
                               divisor(w), wire, w->dtype, NULL, counts);
    CINCH_TRY(gpu->sum(&where, codec, term, n, w->dtype, cinchFloat32, w->box, length, divisor(w),
                       counts));
    return gpu->encode(&where, codec, &site, NULL, cinchFloat32, w->box, residual, length, wire,
                       counts);
}

static cinchResult_t decode(const cinch_wanted *w, size_t round, int part,
                            const unsigned char *const *wire, int n, int avg_n) {
    const cinch_gpu_where where = {.stream = w->stream};
    cinch_gpu_term term[2];
    size_t first, length = length_of(w, round, part, &first);
    if (!length) return cinchSuccess;
    for (int q = 0; q < n; q++)
        term[q] =
            (cinch_gpu_term){.wire = wire[q], .bytes = gpu_of(w)->wire_bytes(codec_of(w), length)};
    return gpu_of(w)->sum(&where, codec_of(w), term, n, w->dtype, w->dtype,
                          w->out + first * w->esize, length, avg_n, w->side->counts);
}

/* What everyone has sent, or of two ranks both messages in rank order. */
static cinchResult_t decode_round(const cinch_wanted *w, size_t round) {
    if (exchanges(w)) {
        const unsigned char *both[2];
        int me = w->side->flat.rank;
        both[me] = slot_of(w, w->sent, round, 0);
        both[1 - me] = slot_of(w, w->got, round, 0);
        return decode(w, round, 0, both, 2, divisor(w));
    }
    for (int q = 0; q < w->parts; q++) {
        const unsigned char *one = result_of(w, round, q);
        CINCH_TRY(decode(w, round, q, &one, 1, 0));
    }
    return cinchSuccess;
}

/* ---- transfers ---- */

/* In a group a communicator that does not block says InProgress; the group's end is waited for. */
#define MOVE(call)                                                                                 \
    do {                                                                                           \
        cinchResult_t moved_ = (call);                                                             \
        if (moved_ != cinchSuccess && moved_ != cinchInProgress) return moved_;                    \
    } while (0)

static cinchResult_t move_parts(const cinch_wanted *w, size_t round) {
    const cinch_real *real = &w->side->forward->real;
    const cinch_gpu *gpu = gpu_of(w);
    const cinch_level *flat = &w->side->flat;
    for (int i = 1; i < flat->n; i++) {
        int to = (flat->rank + i) % flat->n, from = (flat->rank + flat->n - i) % flat->n;
        int part = exchanges(w) ? 0 : to, mine = exchanges(w) ? 0 : flat->rank;
        size_t first, out = length_of(w, round, part, &first),
                      in = length_of(w, round, mine, &first);
        if (out)
            MOVE(real->Send(slot_of(w, w->sent, round, part), gpu->wire_bytes(codec_of(w), out),
                            cinchUint8, to, flat->comm, w->net));
        if (in)
            MOVE(real->Recv(slot_of(w, w->got, round, exchanges(w) ? 0 : from),
                            gpu->wire_bytes(codec_of(w), in), cinchUint8, from, flat->comm,
                            w->net));
    }
    return cinchSuccess;
}

static cinchResult_t move_sums(const cinch_wanted *w, size_t round) {
    MOVE(w->side->forward->real.AllGather(result_of(w, round, w->side->flat.rank),
                                          result_of(w, round, 0), stride_of(w, round), cinchUint8,
                                          w->side->flat.comm, w->net));
    return cinchSuccess;
}

/* This host's ranks: each gets the sum of its share, and in the end everybody all shares. What the
 * shares leave over is a few elements, summed as they are by all ranks. */
static cinchResult_t reduce_inside(const cinch_wanted *w) {
    const cinch_side *side = w->side;
    const cinch_real *real = &side->forward->real;
    size_t done = w->length * (size_t)side->inside.n;
    MOVE(real->ReduceScatter(w->send, w->share, w->length, w->dtype, cinchSum, side->inside.comm,
                             w->stream));
    if (done == w->count) return cinchSuccess;
    MOVE(real->AllReduce((const char *)w->send + done * w->esize, (char *)w->recv + done * w->esize,
                         w->count - done, w->dtype, w->op, side->comm, w->stream));
    return cinchSuccess;
}
static cinchResult_t gather_inside(const cinch_wanted *w) {
    const cinch_real *real = &w->side->forward->real;
    MOVE(real->AllGather(w->share, w->recv, w->length, w->dtype, w->side->inside.comm, w->stream));
    return cinchSuccess;
}

/* ---- steps ---- */

/* Iterations: one per round, one more for the last owner's sum, and one for the last decode. */
static size_t iterations_of(const cinch_wanted *w) {
    return w->cut.rounds + (exchanges(w) ? 1 : 2);
}
/* Where hosts are summed first there is a step before the iterations and one behind. */
static size_t steps_of(const cinch_wanted *w) {
    return iterations_of(w) + (w->inside ? 2 : 0);
}
/* Whether step k is an iteration, and which. */
static bool is_iteration(const cinch_wanted *w, size_t k, size_t *i) {
    *i = k - w->inside;
    return k >= w->inside && *i < iterations_of(w);
}
/* Whether there is something `lag` rounds behind. */
static bool is_round(const cinch_wanted *w, size_t i, size_t lag, size_t *round) {
    *round = i - lag;
    return i >= lag && *round < w->cut.rounds;
}

static bool apart(const cinch_wanted *w) {
    return w->net != w->stream;
}

typedef struct step {
    cinch_wanted *w;
    size_t i;
} step;

static cinchResult_t launch_before(void *arg) {
    const step *s = arg;
    const cinch_wanted *w = s->w;
    const cinch_device_work *work = w->side->forward->work;
    size_t round;
    if (is_round(w, s->i, 0, &round)) CINCH_TRY(encode_round(w, round));
    if (apart(w) && s->i > 0 && !exchanges(w))
        CINCH_TRY(work->wait(w->stream, w->side->moved[(s->i - 1) % 2]));
    if (!exchanges(w) && is_round(w, s->i, 1, &round)) CINCH_TRY(sum_round(w, round));
    if (!apart(w)) return cinchSuccess;
    CINCH_TRY(work->record(w->side->kernels, w->stream));
    return work->wait(w->net, w->side->kernels);
}

static cinchResult_t launch_after(void *arg) {
    const step *s = arg;
    const cinch_wanted *w = s->w;
    const cinch_device_work *work = w->side->forward->work;
    size_t round;
    if (apart(w)) CINCH_TRY(work->record(w->side->moved[s->i % 2], w->net));
    if (apart(w) && s->i > 0 && exchanges(w))
        CINCH_TRY(work->wait(w->stream, w->side->moved[(s->i - 1) % 2]));
    return is_round(w, s->i, exchanges(w) ? 1 : 2, &round) ? decode_round(w, round) : cinchSuccess;
}

static cinchResult_t launch(cinch_wanted *w, size_t k, cinchResult_t (*run)(void *arg)) {
    step s = {.w = w};
    if (!is_iteration(w, k, &s.i)) return cinchSuccess;
    return w->side->forward->work->with(w->side->device, run, &s);
}

static cinchResult_t move(const cinch_wanted *w, size_t k) {
    size_t i, round;
    if (k >= steps_of(w)) return cinchSuccess;
    if (!is_iteration(w, k, &i)) return k == 0 ? reduce_inside(w) : gather_inside(w);
    if (is_round(w, i, 0, &round)) CINCH_TRY(move_parts(w, round));
    if (!exchanges(w) && is_round(w, i, 1, &round)) CINCH_TRY(move_sums(w, round));
    return cinchSuccess;
}

/* ---- several side by side ---- */

static cinchResult_t find_residual(cinch_wanted *w) {
    cinch_ef_key key = {.id = (uint64_t)(uintptr_t)w->send,
                        .count = w->count,
                        .kind = (uint32_t)w->dtype | (uint32_t)w->op << 8 |
                                (uint32_t)CINCH_ALLREDUCE << 16};
    if (w->keyed) key = w->key;
    size_t nowner = exchanges(w) ? 0 : cinch_cut_part_max(&w->cut) * w->cut.rounds;
    w->residual = NULL;
    if (!codec_of(w)->ef) return cinchSuccess;
    return cinch_residual_get(w->side, &key, w->length, nowner, w->stream, &w->residual);
}

/* The scratch and the residuals are free once the communicator's last one is over. */
static cinchResult_t start(cinch_wanted *w) {
    const cinch_side *side = w->side;
    CINCH_TRY(plan(w));
    if (side->busy) CINCH_TRY(side->forward->work->wait(w->stream, side->done));
    return find_residual(w);
}

static cinchResult_t finish(cinch_wanted *w) {
    cinch_side *side = w->side;
    const cinch_device_work *work = side->forward->work;
    CINCH_TRY(work->copy(side->device, w->stream, side->seen, side->counts, sizeof *side->seen));
    CINCH_TRY(work->record(side->done, w->stream));
    side->busy = true;
    side->compressed++;
    return cinchSuccess;
}

static cinchResult_t move_all(cinch_wanted *list, size_t k) {
    const cinch_real *real = &list->side->forward->real;
    cinchResult_t result = cinchSuccess;
    CINCH_TRY(real->GroupStart());
    for (cinch_wanted *w = list; w && result == cinchSuccess; w = w->next)
        if (w->running) result = move(w, k);
    cinchResult_t ended = real->GroupEnd(), was = result == cinchSuccess ? ended : result;
    result = was;
    for (cinch_wanted *w = list; w; w = w->next)
        if (w->running) cinch_side_settle_into(w->side, was, &result);
    return result;
}

static cinchResult_t run_steps(cinch_wanted *list, bool *ours) {
    size_t steps = 0;
    *ours = true;
    for (cinch_wanted *w = list; w; w = w->next) {
        if (!w->running) continue;
        CINCH_TRY(start(w));
        if (steps_of(w) > steps) steps = steps_of(w);
    }
    for (size_t k = 0; k < steps; k++) {
        for (cinch_wanted *w = list; w; w = w->next)
            if (w->running) CINCH_TRY(launch(w, k, launch_before));
        *ours = false;
        CINCH_TRY(move_all(list, k));
        *ours = true;
        for (cinch_wanted *w = list; w; w = w->next)
            if (w->running) CINCH_TRY(launch(w, k, launch_after));
    }
    for (cinch_wanted *w = list; w; w = w->next)
        if (w->running) CINCH_TRY(finish(w));
    return cinchSuccess;
}

/* What a failed one has half done is nothing to build on. */
static void forget(cinch_wanted *w, cinchResult_t result, bool ours) {
    const cinch_residual *r = w->residual;
    if (ours) cinch_side_fail(w->side, result);
    if (!r) return;
    size_t bytes = (r->nsender + r->nowner) * sizeof(float);
    if (w->side->forward->work->fill(w->side->device, w->stream, r->sender, 0, bytes) ==
        cinchSuccess)
        cinch_warn("the error feedback of the failed allreduce number %llu was reset",
                   (unsigned long long)w->call);
}

cinchResult_t cinch_wanted_run(cinch_wanted *list, bool *ours) {
    cinchResult_t result = cinchSuccess;
    int waves = 0;
    for (cinch_wanted *w = list; w; w = w->next) w->side->wave = 0;
    for (bool some = true; some && result == cinchSuccess;) {
        some = false;
        waves++;
        for (cinch_wanted *w = list; w; w = w->next) {
            w->running = w->compress && !w->over && w->side->wave != waves;
            if (!w->running) continue;
            some = w->over = true;
            w->side->wave = waves;
        }
        if (!some) break;
        result = run_steps(list, ours);
        for (cinch_wanted *w = list; w && result != cinchSuccess; w = w->next)
            if (w->running) forget(w, result, *ours);
    }
    return result;
}

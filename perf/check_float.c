/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a result of floats is right within the bounds of rounding, or of a codec.
 *
 * A codec's error depends on the largest value of a block, and blocks begin wherever a rank's share
 * begins. So elements are looked at in blocks counted from the stretch's start, and each is allowed
 * what the largest value in its block and both neighbours allows. What is only moved is a sum of
 * one rank's values. */
#include <math.h>
#include <stdlib.h>

#include "compress/dtype.h"
#include "perf/check.h"

typedef struct work {
    const cinch_check *check;
    const cinch_stretch *stretch;
    cinch_float_facts facts;
    size_t block; /* elements; 0: no codec with a bound */
    size_t piece; /* elements judged at once, a multiple of the block */
    size_t halo;  /* elements seen on either side of them, as many blocks as the windows need */
    double *ref, *size, *got;       /* [piece + 2 halo]: reference; sum of |x|, or prod's bound */
    unsigned char *raw;             /* [piece + 2 halo] elements */
    double *most, *step, *ref_most; /* [blocks]: of one rank; sum over ranks; of the reference */
    unsigned char *bad, *bad_rank;  /* [blocks]: some rank has NaN or Inf there; this rank */
} work;

static void work_free(work *w) {
    free(w->ref);
    free(w->size);
    free(w->got);
    free(w->raw);
    free(w->most);
    free(w->step);
    free(w->ref_most);
    free(w->bad);
    free(w->bad_rank);
}

/* The codecs of the call, one after the other; NULL past the last. */
static const cinch_codec *codec_at(const cinch_check *check, int i) {
    return i == 0 ? check->codec : i < 3 ? check->then[i - 1] : NULL;
}

/* Of all its codecs, whose blocks lie anywhere; 0: one has no bound, or there is none. */
static size_t largest_block(const cinch_check *check) {
    size_t most = 0;
    const cinch_codec *codec;
    for (int i = 0; (codec = codec_at(check, i)); i++) {
        size_t block = cinch_codec_block(codec);
        if (!block || !isfinite(cinch_codec_step_bound(codec, 1.0f))) return 0;
        if (block > most) most = block;
    }
    return most;
}

static bool work_init(work *w, const cinch_check *check, const cinch_stretch *stretch) {
    *w = (work){
        .check = check, .stretch = stretch, .facts = cinch_float_facts_of(check->data->dtype)};
    w->piece = CINCH_DATA_CHUNK;
    w->block = largest_block(check);
    if (w->block) {
        w->halo = 2 * w->block;
        w->piece = (w->piece + w->block - 1) / w->block * w->block;
    }
    size_t n = w->piece + 2 * w->halo, blocks = w->block ? n / w->block : 1;
    w->ref = malloc(n * sizeof *w->ref);
    w->size = malloc(n * sizeof *w->size);
    w->got = malloc(n * sizeof *w->got);
    w->raw = malloc(n * 8);
    w->most = malloc(blocks * sizeof *w->most);
    w->step = malloc(blocks * sizeof *w->step);
    w->ref_most = malloc(blocks * sizeof *w->ref_most);
    w->bad = malloc(blocks);
    w->bad_rank = malloc(blocks);
    return w->ref && w->size && w->got && w->raw && w->most && w->step && w->ref_most && w->bad &&
           w->bad_rank;
}

/* Rank's values for elements [start, start + n) of the stretch into w->got, as the reduction sees
 * them. */
static void load_rank(work *w, int rank, size_t start, size_t n) {
    const cinch_data *data = w->check->data;
    size_t element = cinch_dtype_size(data->dtype);
    double factor = data->op == CINCH_OP_MULSUM ? cinch_data_scalar(rank) : 1;
    cinch_data_fill(data, rank, w->stretch->start + start, n, w->raw);
    for (size_t i = 0; i < n; i += CINCH_DATA_CHUNK)
        cinch_load_double(w->got + i, w->raw + i * element, data->dtype,
                          n - i < CINCH_DATA_CHUNK ? n - i : CINCH_DATA_CHUNK);
    if (factor != 1)
        for (size_t i = 0; i < n; i++) w->got[i] *= factor;
}

static void combine(work *w, bool first, size_t n) {
    double *ref = w->ref, *size = w->size;
    const double *v = w->got;
    cinch_op op = w->check->data->op;
    for (size_t i = 0; i < n; i++) {
        double a = fabs(v[i]);
        if (op == CINCH_OP_PROD) a = a > 1 ? a : 1;
        if (first) {
            ref[i] = v[i];
            size[i] = a;
        } else if (op == CINCH_OP_PROD) {
            ref[i] *= v[i];
            size[i] *= a;
        } else if (op == CINCH_OP_MAX || op == CINCH_OP_MIN) {
            bool take = op == CINCH_OP_MAX ? v[i] > ref[i] : v[i] < ref[i];
            if (take || isnan(v[i])) ref[i] = isnan(ref[i]) ? ref[i] : v[i];
        } else {
            ref[i] += v[i];
            size[i] += a;
        }
    }
}

/* dst[b] = largest finite |v| of each block; bad[b]: something there is not finite. */
static void block_most(const work *w, const double *v, size_t n, double *dst, unsigned char *bad) {
    for (size_t b = 0; b * w->block < n; b++) {
        size_t end = (b + 1) * w->block < n ? (b + 1) * w->block : n;
        dst[b] = 0;
        bad[b] = 0;
        for (size_t i = b * w->block; i < end; i++) {
            double a = fabs(v[i]);
            if (isfinite(a))
                dst[b] = a > dst[b] ? a : dst[b];
            else
                bad[b] = 1;
        }
    }
}

static double window_most(const double *v, size_t b, size_t blocks) {
    double most = v[b];
    if (b > 0) most = fmax(most, v[b - 1]);
    if (b + 1 < blocks) most = fmax(most, v[b + 1]);
    return most;
}

/* The codec's bound for |value| up to `most`, on the safe side of rounding to fp32. A window may be
 * above the size below which int8 sends zeros while a block inside it is not: hence the second. */
static double step_bound(const cinch_codec *codec, double most) {
    double step = cinch_codec_step_bound(codec, nextafterf((float)most, INFINITY));
    return fmax(step, fmin(most, 0x1p-118));
}

/* One rank's share in the errors up to the last sum. The step of a sum of some ranks is at most
 * twice the sum of their steps: twice since bf16's are powers of two. */
static double steps_bound(const work *w, double most) {
    double step = step_bound(w->check->codec, most);
    const cinch_codec *codec;
    for (int i = 1; (codec = codec_at(w->check, i)); i++)
        step += 2 * step_bound(codec, most + step);
    return step;
}

/* Of the last sum. */
static double last_bound(const work *w, double most) {
    int last = 0;
    while (codec_at(w->check, last + 1)) last++;
    return step_bound(codec_at(w->check, last), most);
}

static void add_steps(work *w, size_t n, bool first) {
    size_t blocks = (n + w->block - 1) / w->block;
    block_most(w, w->got, n, w->most, w->bad_rank);
    for (size_t b = 0; b < blocks; b++) {
        double step = steps_bound(w, window_most(w->most, b, blocks));
        w->step[b] = first ? step : w->step[b] + step;
        w->bad[b] = first ? w->bad_rank[b] : w->bad[b] | w->bad_rank[b];
    }
}

static void tally_error(cinch_tally *tally, double got, double ref) {
    if (!isfinite(got) || !isfinite(ref)) return;
    double err = fabs(got - ref);
    tally->err2 += err * err;
    tally->ref2 += ref * ref;
    tally->max_abs = fmax(tally->max_abs, err);
}

/* Without a codec. scale: 1/n for avg. */
static bool plain_fine(const work *w, double got, double ref, double size, double scale) {
    const cinch_data *data = w->check->data;
    bool no_infinity = data->dtype == cinchFloat8e4m3;
    if (data->op == CINCH_OP_MAX || data->op == CINCH_OP_MIN)
        return got == ref || (isnan(got) && (isnan(ref) || (no_infinity && isinf(ref))));
    if (!isfinite(ref)) {
        if (data->op == CINCH_OP_PROD || no_infinity) return !isfinite(got);
        return isnan(ref) ? isnan(got) : got == ref;
    }
    double n = data->nranks;
    double bound = n * w->facts.epsilon * size * scale + w->facts.epsilon * fabs(ref) +
                   n * w->facts.least * (data->op == CINCH_OP_PROD ? size : 1);
    if (!isfinite(got)) /* the sum of some ranks may leave the type's range on the way */
        return size * (1 + n * w->facts.epsilon) > w->facts.largest;
    return fabs(got - ref) <= bound;
}

/* With a codec whose bound is known. The first term: quantization of the inputs and, in `step`, of
 * the sum; the others: fp32 additions and the last rounding. Where elements share nothing (bf16)
 * an infinity may stay one; so may that of a rank that adds its own input to its share unencoded.
 */
static bool codec_fine(const work *w, double got, double ref, double size, double scale,
                       double step, bool bad) {
    bool share = cinch_reduces(w->check->operation) && !cinch_same_everywhere(w->check->operation);
    if (!isfinite(ref)) return isnan(got) || ((w->block == 1 || share) && got == ref);
    if (isnan(got)) return bad;
    double n = w->check->data->nranks;
    double bound = step * scale + (n + 2) * 0x1p-23 * (size + step) * scale +
                   w->facts.epsilon * (fabs(ref) + step * scale) + w->facts.least;
    return fabs(got - ref) <= bound;
}

/* Judges elements [from, from + n) of the piece whose arrays have `seen` elements. */
static void judge(work *w, size_t from, size_t n, size_t seen, cinch_tally *tally) {
    const cinch_check *check = w->check;
    double scale = check->data->op == CINCH_OP_AVG ? 1.0 / check->data->nranks : 1;
    size_t blocks = w->block ? (seen + w->block - 1) / w->block : 0;
    if (w->block) block_most(w, w->ref, seen, w->ref_most, w->bad_rank);
    double step = 0;
    bool bad = false;
    for (size_t i = from; i < from + n; i++) {
        double ref = w->ref[i] * scale, got = w->got[i];
        tally_error(tally, got, ref);
        if (!w->block) {
            if (!check->codec) tally->wrong += !plain_fine(w, got, ref, w->size[i], scale);
            continue;
        }
        if (i == from || i % w->block == 0) {
            size_t b = i / w->block;
            step = w->step[b];
            if (check->sum_encoded)
                step += last_bound(w, window_most(w->ref_most, b, blocks) +
                                          window_most(w->step, b, blocks));
            bad = w->bad[b] || (b > 0 && w->bad[b - 1]) || (b + 1 < blocks && w->bad[b + 1]);
        }
        tally->wrong += !codec_fine(w, got, ref, w->size[i], scale, step, bad);
    }
}

bool cinch_check_float(const cinch_check *check, const cinch_stretch *stretch, cinch_tally *tally,
                       bool *judged) {
    work w;
    size_t element = cinch_dtype_size(check->data->dtype), count = stretch->count;
    const char *got = stretch->got;
    int first = stretch->source == CINCH_EVERY_RANK ? 0 : stretch->source;
    int last = stretch->source == CINCH_EVERY_RANK ? check->data->nranks - 1 : first;
    if (!work_init(&w, check, stretch)) {
        work_free(&w);
        return false;
    }
    *judged = !check->codec || w.block;
    for (size_t start = 0; start < count; start += w.piece) {
        size_t n = count - start < w.piece ? count - start : w.piece;
        size_t from = start < w.halo ? 0 : start - w.halo;
        size_t end = start + n + w.halo < count ? start + n + w.halo : count, seen = end - from;
        for (int r = first; r <= last; r++) {
            load_rank(&w, r, from, seen);
            combine(&w, r == first, seen);
            if (w.block) add_steps(&w, seen, r == first);
        }
        for (size_t i = 0; i < n; i += CINCH_DATA_CHUNK)
            cinch_load_double(w.got + (start - from) + i, got + (start + i) * element,
                              check->data->dtype,
                              n - i < CINCH_DATA_CHUNK ? n - i : CINCH_DATA_CHUNK);
        judge(&w, start - from, n, seen, tally);
    }
    work_free(&w);
    return true;
}

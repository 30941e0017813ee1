/* SPDX-License-Identifier: Apache-2.0 */
/* Top-k of a segment in one pass over memory.
 *
 * A sample gives a magnitude that a few more than k elements probably reach. The pass adds the
 * residual, leaves the sum in it, and collects the elements that reach the magnitude; the k largest
 * of these few are then found by counting. What comes out never depends on the guess: too many
 * candidates are thinned out to k on the way, and with too few the whole segment is counted. */
#include "compress/topk_fast.h"

#include "compress/codec_kernels.h"

#define SAMPLE 2048
#define SAMPLE_RUN 8 /* neighbours taken together: half a cache line */
#define CANDIDATES 8192

/* Elements that reach `least`, in ascending order. bits are a magnitude's; value is what to send,
 * and for an element that is not finite, which is sent as NaN, the residual that it keeps. */
typedef struct candidates {
    uint32_t least;
    size_t count;
    uint32_t bits[CANDIDATES];
    float value[CANDIDATES];
    uint16_t index[CANDIDATES];
} candidates;

static inline uint32_t magnitude(float v) {
    return cinch_float_bits(v) & CINCH_ABS_BITS;
}

/* A k-th largest magnitude: narrowed down to a bin of 1/1024 of the range, whose few members are
 * then counted to the end. few has room for all. */
static uint32_t kth_largest(const uint32_t *bits, size_t count, size_t k, size_t *ties,
                            uint32_t *few) {
    uint16_t bins[1024] = {0};
    uint32_t low = UINT32_MAX, high = 0;
    for (size_t i = 0; i < count; i++) {
        low = bits[i] < low ? bits[i] : low;
        high = bits[i] > high ? bits[i] : high;
    }
    int shift = 0;
    while ((high - low) >> shift >= 1024) shift++;
    for (size_t i = 0; i < count; i++) bins[(bits[i] - low) >> shift]++;
    uint32_t digit = (high - low) >> shift;
    while (bins[digit] < k) k -= bins[digit--];
    if (shift == 0) {
        *ties = k;
        return low + digit;
    }
    size_t members = 0;
    for (size_t i = 0; i < count; i++) {
        few[members] = bits[i];
        members += (bits[i] - low) >> shift == digit;
    }
    if (members < count / 2) return kth_largest(few, members, k, ties, few);
    return cinch_topk_threshold_bits(few, members, k, ties);
}

/* A magnitude that rather more than k out of len elements reach. Never above Inf, so that all that
 * is not finite is collected, and never 0, so that zeros are taken only if there is nothing else.
 */
static uint32_t guess(const float *src, const float *residual, size_t len, size_t k) {
    uint32_t sample[SAMPLE], few[SAMPLE];
    size_t wanted = k * SAMPLE / len, step = len / (SAMPLE / SAMPLE_RUN), n = 0, ties;
    wanted += wanted / 4 + 10;
    if (wanted > SAMPLE) wanted = SAMPLE;
    for (size_t i = 0; i < SAMPLE / SAMPLE_RUN; i++)
        for (size_t e = i * step; e < i * step + SAMPLE_RUN; e++)
            sample[n++] = magnitude(residual ? src[e] + residual[e] : src[e]);
    uint32_t bits = kth_largest(sample, SAMPLE, wanted, &ties, few);
    return bits > CINCH_INF_BITS ? CINCH_INF_BITS : bits ? bits : 1;
}

/* Keeps the k largest. The others' sums are in the residual already, except where those are not
 * finite. Ties go to the lowest index, so a later element must be larger than the least that is
 * kept. Without branches on the data, which nobody can foretell. */
static void thin_out(candidates *c, float *residual, size_t k) {
    uint32_t few[CANDIDATES];
    size_t ties, kept = 0;
    uint32_t least = kth_largest(c->bits, c->count, k, &ties, few);
    for (size_t i = 0; i < c->count; i++) {
        uint32_t bits = c->bits[i];
        bool tie = (bits == least) & (ties > 0), take = (bits > least) | tie;
        ties -= tie;
        if (__builtin_expect(!take && residual && bits >= CINCH_INF_BITS, 0))
            residual[c->index[i]] = c->value[i];
        c->bits[kept] = bits;
        c->value[kept] = c->value[i];
        c->index[kept] = c->index[i];
        kept += take;
    }
    c->count = kept;
    c->least = least + 1;
}

/* Appends the marked elements of a chunk; value[0] is element `base`. */
static void append_marked(candidates *c, const float *value, size_t base, size_t len,
                          const uint64_t *mask) {
    size_t n = c->count;
    for (size_t w = 0; w < len / 64; w++)
        for (uint64_t left = mask[w]; left; left &= left - 1) {
            size_t i = 64 * w + (size_t)__builtin_ctzll(left);
            c->bits[n] = magnitude(value[i]);
            c->value[n] = value[i];
            c->index[n++] = (uint16_t)(base + i);
        }
    c->count = n;
}

/* Element by element, for what is not finite and for the end of a segment. */
static void collect_slowly(candidates *c, const float *src, float *residual, size_t from,
                           size_t to) {
    for (size_t i = from; i < to; i++) {
        float v = residual ? src[i] + residual[i] : src[i];
        uint32_t bits = magnitude(v);
        if (bits >= c->least) {
            c->bits[c->count] = bits;
            c->value[c->count] = bits >= CINCH_INF_BITS && residual ? residual[i] : v;
            c->index[c->count++] = (uint16_t)i;
        }
        if (residual) residual[i] = v;
    }
}

/* The pass. Where a chunk proves to hold something that is not finite, it is put back and done
 * slowly, since such an element's old residual is still wanted. */
static void collect(cinch_topk_scan scan, candidates *c, const float *src, float *residual,
                    size_t len, size_t k) {
    uint64_t mask[CINCH_TOPK_CHUNK / 64];
    float old[CINCH_TOPK_CHUNK];
    for (size_t at = 0; at < len; at += CINCH_TOPK_CHUNK) {
        size_t part = len - at < CINCH_TOPK_CHUNK ? len - at : CINCH_TOPK_CHUNK;
        size_t whole = part / 64 * 64;
        float *sum = residual ? residual + at : NULL;
        if (c->count > CANDIDATES - CINCH_TOPK_CHUNK) thin_out(c, residual, k);
        if (scan(src + at, sum, old, whole, c->least - 1, mask) < CINCH_INF_BITS) {
            append_marked(c, sum ? sum : src + at, at, whole, mask);
        } else {
            if (sum) memcpy(sum, old, whole * sizeof(float));
            collect_slowly(c, src, residual, at, at + whole);
        }
        collect_slowly(c, src, residual, at + whole, at + part);
    }
}

static void send(const candidates *c, float *residual, unsigned char *index, unsigned char *value,
                 uint64_t *nonfinite) {
    for (size_t i = 0; i < c->count; i++) {
        bool finite = c->bits[i] < CINCH_INF_BITS;
        float v = finite ? c->value[i] : cinch_bits_float(CINCH_NAN_BITS);
        memcpy(index + 2 * i, &c->index[i], 2);
        memcpy(value + 4 * i, &v, 4);
        *nonfinite += !finite;
        if (residual) residual[c->index[i]] = finite ? 0 : c->value[i];
    }
}

/* With too few candidates: counts the sums, which are in the residual, and puts back afterwards
 * what elements that are not finite had there. */
static void select_counted(const candidates *c, float *residual, size_t len, size_t k,
                           unsigned char *index, unsigned char *value, uint64_t *nonfinite) {
    size_t ties;
    uint32_t least = cinch_topk_threshold(residual, NULL, len, k, &ties);
    for (size_t i = 0; i < len; i++) {
        float v = residual[i];
        uint32_t m = magnitude(v);
        if (m < least || (m == least && !(ties && ties--))) continue;
        uint16_t at = (uint16_t)i;
        if (m >= CINCH_INF_BITS) v = cinch_bits_float(CINCH_NAN_BITS);
        *nonfinite += m >= CINCH_INF_BITS;
        memcpy(index, &at, 2);
        memcpy(value, &v, 4);
        index += 2;
        value += 4;
        residual[i] = 0;
    }
    for (size_t i = 0; i < c->count; i++)
        if (c->bits[i] >= CINCH_INF_BITS) residual[c->index[i]] = c->value[i];
}

void cinch_topk_select_fast(cinch_topk_scan scan, const float *src, float *residual, size_t len,
                            size_t k, unsigned char *index, unsigned char *value,
                            uint64_t *nonfinite) {
    if (len < 2 * SAMPLE || k > CANDIDATES / 2) {
        cinch_topk_select_reference(src, residual, len, k, index, value, nonfinite);
        return;
    }
    candidates c;
    c.count = 0;
    c.least = guess(src, residual, len, k);
    collect(scan, &c, src, residual, len, k);
    if (c.count < k) {
        if (residual)
            select_counted(&c, residual, len, k, index, value, nonfinite);
        else
            cinch_topk_select_reference(src, NULL, len, k, index, value, nonfinite);
        return;
    }
    if (c.count > k) thin_out(&c, residual, k);
    send(&c, residual, index, value, nonfinite);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A block of threads on a segment of topk: reading it, finding a magnitude, sending what is chosen. The
 * law is compress/topk.c and topk_select.c.
 *
 * The k-th largest magnitude is found by counting digits, in shared memory. Bits set there, one for an
 * element, bring the chosen into their order, whatever the order was in which threads found them. */
#ifndef CINCH_COMPRESS_CUDA_SEGMENT_CUH_
#define CINCH_COMPRESS_CUDA_SEGMENT_CUH_

#include "compress/cuda/topk.cuh"

namespace cinch_cuda {

enum {
    TOPK_THREADS = 512,
    TOPK_RESIDENT = 2, /* blocks on a multiprocessor: one reads while others count */
    WARPS = TOPK_THREADS / 32,
    BINS = 2048,
    BINS_EACH = BINS / TOPK_THREADS,
    CANDIDATES = 3072, /* with the rest, within the 48 KiB that every device has */
    WORDS = CINCH_TOPK_SEGMENT / 32,
    WORDS_EACH = WORDS / TOPK_THREADS,
    AT_ONCE = 4, /* rows of four elements that a thread reads before it looks at them */
    SAMPLE = 4 * TOPK_THREADS
};

struct topk_shared {
    uint32_t bins[BINS];
    uint32_t magnitude[CANDIDATES]; /* of the candidates, in any order */
    uint16_t index[CANDIDATES];
    uint32_t chosen[WORDS], equal[WORDS]; /* one bit an element */
    uint32_t scan[WARPS + 1];
    uint32_t candidates, digit, want, flag;
    unsigned long long total;
};

struct segment {
    const void *src;
    float *residual; /* NULL: none */
    int dtype, even; /* even: rows of four are aligned */
    size_t start;    /* of its first element */
    uint32_t len;
};

CINCH_DEVICE uint32_t magnitude(float v) { return cinch_float_bits(v) & CINCH_ABS_BITS; }

CINCH_DEVICE float read_one(const segment &s, uint32_t at) {
    float v, old;
    get_plain<1>(&v, s.src, s.dtype, s.start + at);
    if (!s.residual) return v;
    get_row<float, 1>(&old, s.residual + s.start + at);
    return v + old;
}

/* f(first index, values, how many) over the segment by all threads, up to four elements each time. */
template <class F> CINCH_DEVICE void each_row(const segment &s, F f) {
    const uint32_t step = 4 * AT_ONCE * TOPK_THREADS;
#pragma unroll 1
    for (uint32_t base = 0; base < s.len; base += step) {
        uint32_t first = base + 4 * thread();
        if (s.even && s.len - base >= step) {
            rows<4, AT_ONCE, EVEN> b = {s.start + first, 4 * TOPK_THREADS, 0};
            float v[AT_ONCE][4];
            get_plain_rows<4, AT_ONCE, EVEN>(v, s.src, s.dtype, b);
            if (s.residual) {
                float old[AT_ONCE][4];
                get_rows<float, 4, AT_ONCE, EVEN>(old, s.residual, b);
#pragma unroll
                for (int i = 0; i < 4 * AT_ONCE; i++)
                    v[i / 4][i % 4] = v[i / 4][i % 4] + old[i / 4][i % 4];
            }
#pragma unroll
            for (int r = 0; r < AT_ONCE; r++) f(first + r * 4 * TOPK_THREADS, v[r], 4);
            continue;
        }
#pragma unroll 1
        for (uint32_t at = first; at < s.len && at < base + step; at += 4 * TOPK_THREADS) {
            float v[4] = {};
            int n = s.len - at < 4 ? (int)(s.len - at) : 4;
#pragma unroll 1
            for (int i = 0; i < n; i++) {
                float one = read_one(s, at + i);
                if (i == 0) v[0] = one;
                if (i == 1) v[1] = one;
                if (i == 2) v[2] = one;
                if (i == 3) v[3] = one;
            }
            f(at, v, n);
        }
    }
}

/* The sum of v over the threads before this one, and over all in *total. */
static CINCH_DEVICE uint32_t scan_block(topk_shared &t, uint32_t v, uint32_t *total) {
    unsigned lane = thread() % CINCH_WARP, warp = thread() / CINCH_WARP;
    uint32_t sum = v;
    for (unsigned by = 1; by < CINCH_WARP; by *= 2) {
        uint32_t other = lane_up(sum, by);
        if (lane >= by) sum += other;
    }
    if (lane == CINCH_WARP - 1) t.scan[warp] = sum;
    sync();
    if (warp == 0) {
        uint32_t mine = lane < WARPS ? t.scan[lane] : 0, upto = mine;
        for (unsigned by = 1; by < CINCH_WARP; by *= 2) {
            uint32_t other = lane_up(upto, by);
            if (lane >= by) upto += other;
        }
        if (lane < WARPS) t.scan[lane] = upto - mine;
        if (lane == CINCH_WARP - 1) t.scan[WARPS] = upto;
    }
    sync();
    sum += t.scan[warp] - v;
    *total = t.scan[WARPS];
    sync();
    return sum;
}

CINCH_DEVICE void clear(uint32_t *at, unsigned n) {
    for (unsigned i = thread(); i < n; i += TOPK_THREADS) at[i] = 0;
}

/* In t.digit the bin, from the top, in which the want-th value lies, in t.want how many of that bin
 * are wanted. */
static CINCH_DEVICE void find_digit(topk_shared &t, uint32_t want) {
    uint32_t total, top = BINS - 1 - BINS_EACH * thread(), own = 0;
    for (uint32_t i = 0; i < BINS_EACH; i++) own += t.bins[top - i];
    uint32_t before = scan_block(t, own, &total);
    if (before < want && want - before <= own) {
        uint32_t digit = top;
        want -= before;
        while (t.bins[digit] < want) want -= t.bins[digit--];
        t.digit = digit;
        t.want = want;
    }
    sync();
}

/* What a round of counting looks at: digits of 11, 10 and 10 bits. */
CINCH_DEVICE int round_bits(int round) { return round ? 10 : 11; }
CINCH_DEVICE int round_shift(int round) { return 20 - 10 * round; }

CINCH_DEVICE void count_digit(topk_shared &t, uint32_t m, uint32_t found, int round) {
    int shift = round_shift(round), bits = round_bits(round), above = shift + bits;
    if (m >> above == found >> above) atomic_add(&t.bins[m >> shift & ((1u << bits) - 1)], 1);
}

/* Puts what is at least `least` into the list, as far as there is room; t.candidates says how many there
 * are. */
static CINCH_DEVICE void collect(topk_shared &t, const segment &s, uint32_t least) {
    if (thread() == 0) t.candidates = 0;
    sync();
    each_row(s, [&](uint32_t at, const float *v, int n) {
        uint32_t take = 0;
#pragma unroll
        for (int i = 0; i < 4; i++)
            take |= (i < n && magnitude(v[i]) >= least ? 1u : 0u) << i;
        if (!take) return;
        uint32_t to = atomic_add(&t.candidates, (uint32_t)population(take));
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (!(take >> i & 1) || to >= CANDIDATES) continue;
            t.magnitude[to] = magnitude(v[i]);
            t.index[to++] = (uint16_t)(at + i);
        }
    });
    sync();
}

/* A magnitude that about as many elements reach as `rank` of SAMPLE say; nothing depends on it but time.
 * Not for fewer than 4 * SAMPLE elements. */
static CINCH_DEVICE uint32_t guess_least(topk_shared &t, const segment &s, uint32_t rank) {
    uint32_t found = 0, at = s.len / TOPK_THREADS / 4 * 4 * thread();
#pragma unroll
    for (int i = 0; i < 4; i++) t.magnitude[4 * thread() + i] = magnitude(read_one(s, at + i));
#pragma unroll 1
    for (int round = 0; round < 2; round++) {
        clear(t.bins, BINS);
        sync();
        for (uint32_t c = thread(); c < SAMPLE; c += TOPK_THREADS)
            count_digit(t, t.magnitude[c], found, round);
        sync();
        find_digit(t, rank);
        found |= t.digit << round_shift(round);
        rank = t.want;
        sync();
    }
    return found ? found : 1;
}

/* Marks in t.chosen the first `ties` of those in t.equal. */
static CINCH_DEVICE void choose_ties(topk_shared &t, uint32_t ties) {
    uint32_t word = WORDS_EACH * thread(), total, here = 0;
    for (uint32_t w = word; w < word + WORDS_EACH; w++) here += (uint32_t)population(t.equal[w]);
    uint32_t before = scan_block(t, here, &total);
    for (uint32_t w = word; w < word + WORDS_EACH; w++)
        for (uint32_t rest = t.equal[w]; rest && before < ties; rest &= rest - 1, before++)
            t.chosen[w] |= rest & (0u - rest);
    sync();
}

/* Entry i of k. */
CINCH_DEVICE void send_entry(const segment &s, uint32_t at, uint32_t i, uint32_t k,
                             unsigned char *out, uint32_t *nonfinite) {
    float v = read_one(s, at);
    if (magnitude(v) >= CINCH_INF_BITS) {
        v = cinch_bits_float(CINCH_NAN_BITS);
        ++*nonfinite;
    }
    put_one(out + 2 * (size_t)i, (uint16_t)at);
    put_one(out + 2 * (size_t)k + 4 * (size_t)i, v);
}

/* Indices and values of the k chosen, in order; the list is lost. */
static CINCH_DEVICE void send_chosen(topk_shared &t, const segment &s, uint32_t k,
                                     unsigned char *out, unsigned long long *counter) {
    uint32_t word = WORDS_EACH * thread(), total, nonfinite = 0, here = 0;
    for (uint32_t w = word; w < word + WORDS_EACH; w++) here += (uint32_t)population(t.chosen[w]);
    uint32_t to = scan_block(t, here, &total);
    for (uint32_t w = word; w < word + WORDS_EACH; w++)
        for (uint32_t rest = t.chosen[w]; rest; rest &= rest - 1, to++) {
            uint32_t at = 32 * w + (uint32_t)lowest(rest);
            if (k > CANDIDATES)
                send_entry(s, at, to, k, out, &nonfinite);
            else
                t.index[to] = (uint16_t)at;
        }
    sync();
    for (uint32_t i = thread(); k <= CANDIDATES && i < k; i += TOPK_THREADS)
        send_entry(s, t.index[i], i, k, out, &nonfinite);
    if (nonfinite) atomic_count(counter, nonfinite);
    sync();
}

/* What was not sent stays; what is not finite leaves the residual as it was. */
static CINCH_DEVICE void keep_rest(topk_shared &t, const segment &s) {
    float *residual = s.residual + s.start;
    each_row(s, [&](uint32_t at, const float *v, int n) {
        uint32_t bits = t.chosen[at / 32] >> at % 32;
        float left[4];
        bool finite = n == 4;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            left[i] = bits >> i & 1 ? 0 : v[i];
            finite = finite && magnitude(v[i]) < CINCH_INF_BITS;
        }
        if (finite)
            put_row<float, 4>(residual + at, left);
        else
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (i < n && magnitude(v[i]) < CINCH_INF_BITS) put_one(residual + at + i, left[i]);
    });
    sync();
}

/* A segment without indices. */
static CINCH_DEVICE void send_all(const segment &s, unsigned char *out,
                                  unsigned long long *counter) {
    uint32_t nonfinite = 0;
    float *residual = s.residual ? s.residual + s.start : NULL;
    each_row(s, [&](uint32_t at, const float *v, int n) {
        float sent[4], left[4] = {0, 0, 0, 0};
        uint32_t bad = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            bool finite = magnitude(v[i]) < CINCH_INF_BITS;
            bad += !finite && i < n;
            sent[i] = finite ? v[i] : cinch_bits_float(CINCH_NAN_BITS);
        }
        nonfinite += bad;
        if (n == 4 && !bad) {
            put_row<float, 4>(out + 4 * at, sent);
            if (residual) put_row<float, 4>(residual + at, left);
            return;
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i >= n) continue;
            put_one(out + 4 * (at + i), sent[i]);
            if (residual && magnitude(v[i]) < CINCH_INF_BITS) put_one(residual + at + i, 0.0f);
        }
    });
    if (nonfinite) atomic_count(counter, nonfinite);
}

} // namespace cinch_cuda

#endif

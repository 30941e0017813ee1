/* SPDX-License-Identifier: Apache-2.0 */
/* The topk codec's encode: one CUDA block takes a segment. The law is compress/topk.c and
 * topk_select.c.
 *
 * The k-th largest magnitude is found by counting digits. The first pass over memory counts the
 * upper 11 bits; where what is left as candidates then fits into shared memory, the second pass
 * puts them there and the rest is found among them. Otherwise every digit is a pass, which the
 * second-level cache serves. Bits set in shared memory, one for an element, bring the chosen into
 * their order, whatever the order was in which threads found them. */
#include "compress/cuda/topk.cuh"

using namespace cinch_cuda;

namespace {

enum {
    TOPK_THREADS = 1024,
    WARPS = TOPK_THREADS / 32,
    BINS = 2048,
    CANDIDATES = 3072, /* with the rest, within the 48 KiB that every device has */
    WORDS = CINCH_TOPK_SEGMENT / 32,
    AT_ONCE = 4 /* rows of four elements that a thread reads before it looks at them */
};

struct topk_args {
    topk_shape shape;
    const void *src;
    int dtype;
    float *residual;
    unsigned char *wire;
    unsigned long long *nonfinite;
};

struct topk_shared {
    uint32_t bins[BINS];
    uint32_t magnitude[CANDIDATES]; /* of the candidates, in any order */
    uint16_t index[CANDIDATES];
    uint32_t chosen[WORDS], equal[WORDS]; /* one bit an element */
    uint32_t scan[WARPS + 1];
    uint32_t candidates, digit, want;
};

struct segment {
    const topk_args *a;
    size_t start; /* of its first element */
    uint32_t len;
};

template <int N> CINCH_DEVICE void read_row(const segment &s, uint32_t at, float *v) {
    get_plain<N>(v, s.a->src, s.a->dtype, s.start + at);
    if (!s.a->residual) return;
    float old[N];
    get_row<float, N>(old, s.a->residual + s.start + at);
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = v[i] + old[i];
}

CINCH_DEVICE uint32_t magnitude(float v) { return cinch_float_bits(v) & CINCH_ABS_BITS; }

/* f(first index, values, how many) over the segment by all threads, up to four elements each time;
 * all threads make the same number of calls, some with none. */
template <class F> CINCH_DEVICE void each_row(const segment &s, F f) {
    for (uint32_t base = 0; base < s.len; base += 4 * AT_ONCE * TOPK_THREADS) {
        float v[AT_ONCE][4];
        int n[AT_ONCE];
#pragma unroll
        for (int r = 0; r < AT_ONCE; r++) {
            uint32_t at = base + 4 * (r * TOPK_THREADS + thread());
            n[r] = at + 4 <= s.len ? 4 : at < s.len ? (int)(s.len - at) : 0;
#pragma unroll
            for (int i = 0; i < 4; i++) v[r][i] = 0;
            if (n[r] == 4)
                read_row<4>(s, at, v[r]);
            else
#pragma unroll
                for (int i = 0; i < 3; i++)
                    if (i < n[r]) read_row<1>(s, at + i, &v[r][i]);
        }
#pragma unroll
        for (int r = 0; r < AT_ONCE; r++)
            f(base + 4 * (r * TOPK_THREADS + thread()), v[r], n[r]);
    }
}

/* The sum of v over the threads before this one, and over all in *total. */
CINCH_DEVICE uint32_t scan_block(topk_shared &t, uint32_t v, uint32_t *total) {
    unsigned lane = thread() % CINCH_WARP, warp = thread() / CINCH_WARP;
    uint32_t sum = v;
    for (unsigned by = 1; by < CINCH_WARP; by *= 2) {
        uint32_t other = lane_up(sum, by);
        if (lane >= by) sum += other;
    }
    if (lane == CINCH_WARP - 1) t.scan[warp] = sum;
    sync();
    if (warp == 0) {
        uint32_t mine = t.scan[lane], upto = mine;
        for (unsigned by = 1; by < CINCH_WARP; by *= 2) {
            uint32_t other = lane_up(upto, by);
            if (lane >= by) upto += other;
        }
        t.scan[lane] = upto - mine;
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
 * are wanted. Each thread looks at two bins. */
CINCH_DEVICE void find_digit(topk_shared &t, uint32_t want) {
    uint32_t total, top = BINS - 1 - 2 * thread(), own = t.bins[top] + t.bins[top - 1];
    uint32_t before = scan_block(t, own, &total);
    if (before < want && want <= before + own) {
        uint32_t digit = top;
        want -= before;
        while (t.bins[digit] < want) want -= t.bins[digit--];
        t.digit = digit;
        t.want = want;
    }
    sync();
}

/* Puts what is at least `least` into the list, where there is room for all of it. */
CINCH_DEVICE void collect(topk_shared &t, const segment &s, uint32_t least) {
    if (thread() == 0) t.candidates = 0;
    sync();
    each_row(s, [&](uint32_t at, const float *v, int n) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            bool take = i < n && magnitude(v[i]) >= least;
            uint32_t takers = vote(take), base = 0;
            if (!takers) continue;
            unsigned lane = thread() % CINCH_WARP;
            if ((int)lane == lowest(takers))
                base = atomic_add(&t.candidates, (uint32_t)population(takers));
            base = lane_get(base, lowest(takers));
            if (!take) continue;
            base += (uint32_t)population(takers & ((1u << lane) - 1));
            t.magnitude[base] = magnitude(v[i]);
            t.index[base] = (uint16_t)(at + i);
        }
    });
    sync();
}

/* f(index, magnitude) of all candidates: those in the list, or, where there is none, all elements. */
template <class F> CINCH_DEVICE void each_candidate(topk_shared &t, const segment &s, bool list, F f) {
    if (list) {
        for (uint32_t c = thread(); c < t.candidates; c += TOPK_THREADS)
            f(t.index[c], t.magnitude[c]);
        return;
    }
    each_row(s, [&](uint32_t at, const float *v, int n) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < n) f(at + i, magnitude(v[i]));
    });
}

/* The k-th largest magnitude, digit by digit from the top: 11 bits by all elements, then twice ten by
 * the candidates. In t.want how many of just that magnitude are wanted, in *list whether what is at
 * least as large, up to there, is in the list. */
CINCH_DEVICE uint32_t find_least(topk_shared &t, const segment &s, uint32_t k, bool *list) {
    uint32_t found = 0, want = k;
    int above = 31;
    *list = false;
#pragma unroll 1
    for (int round = 0; round < 3; round++) {
        int bits = round ? 10 : 11, shift = above - bits;
        clear(t.bins, BINS);
        sync();
        each_candidate(t, s, *list, [&](uint32_t, uint32_t m) {
            if (m >> above == found >> above)
                atomic_add(&t.bins[m >> shift & ((1u << bits) - 1)], 1);
        });
        sync();
        find_digit(t, want);
        found |= t.digit << shift;
        want = t.want;
        above = shift;
        bool fits = k - want + t.bins[t.digit] <= CANDIDATES;
        sync();
        if (round || !fits) continue;
        collect(t, s, found);
        *list = true;
    }
    return found;
}

/* Marks the k largest in t.chosen. */
CINCH_DEVICE void choose(topk_shared &t, const segment &s, uint32_t k) {
    bool list;
    clear(t.chosen, WORDS);
    clear(t.equal, WORDS);
    uint32_t least = find_least(t, s, k, &list);
    each_candidate(t, s, list, [&](uint32_t at, uint32_t m) {
        if (m > least) atomic_or(&t.chosen[at / 32], 1u << at % 32);
        if (m == least) atomic_or(&t.equal[at / 32], 1u << at % 32);
    });
    sync();
    /* Of those that equal it the first t.want. */
    uint32_t word = 2 * thread(), total, ties = t.want;
    uint32_t here = (uint32_t)(population(t.equal[word]) + population(t.equal[word + 1]));
    uint32_t before = scan_block(t, here, &total);
    for (uint32_t w = word; w < word + 2; w++)
        for (uint32_t rest = t.equal[w]; rest && before < ties; rest &= rest - 1, before++)
            t.chosen[w] |= rest & (0u - rest);
    sync();
}

/* Indices and values of the chosen, in order. */
CINCH_DEVICE void send(topk_shared &t, const segment &s, uint32_t k, unsigned char *out) {
    uint32_t word = 2 * thread(), total, nonfinite = 0;
    uint32_t here = (uint32_t)(population(t.chosen[word]) + population(t.chosen[word + 1]));
    uint32_t to = scan_block(t, here, &total);
    for (uint32_t w = word; w < word + 2; w++)
        for (uint32_t rest = t.chosen[w]; rest; rest &= rest - 1, to++) {
            uint32_t at = 32 * w + (uint32_t)lowest(rest);
            float v;
            read_row<1>(s, at, &v);
            if (magnitude(v) >= CINCH_INF_BITS) {
                v = cinch_bits_float(CINCH_NAN_BITS);
                nonfinite++;
            }
            put_one(out + 2 * to, (uint16_t)at);
            put_one(out + 2 * k + 4 * to, v);
        }
    if (nonfinite) atomic_count(s.a->nonfinite, nonfinite);
}

/* What was not sent stays; what is not finite leaves the residual as it was. */
CINCH_DEVICE void keep_rest(topk_shared &t, const segment &s) {
    float *residual = s.a->residual + s.start;
    each_row(s, [&](uint32_t at, const float *v, int n) {
        uint32_t bits = n ? t.chosen[at / 32] >> at % 32 : 0;
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
}

CINCH_DEVICE void send_all(const segment &s, unsigned char *out) {
    uint32_t nonfinite = 0;
    float *residual = s.a->residual ? s.a->residual + s.start : NULL;
    each_row(s, [&](uint32_t at, const float *v, int n) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i >= n) continue;
            bool finite = magnitude(v[i]) < CINCH_INF_BITS;
            nonfinite += !finite;
            put_one(out + 4 * (at + i), finite ? v[i] : cinch_bits_float(CINCH_NAN_BITS));
            if (finite && residual) put_one(residual + at + i, 0.0f);
        }
    });
    if (nonfinite) atomic_count(s.a->nonfinite, nonfinite);
}

CINCH_KERNEL(TOPK_THREADS) topk_kernel(CINCH_PARAMETER topk_args a) {
    CINCH_SHARED topk_shared t;
    size_t segments = (a.shape.count + CINCH_TOPK_SEGMENT - 1) / CINCH_TOPK_SEGMENT;
    for (size_t which = block(); which < segments; which += blocks()) {
        segment s = {&a, which * CINCH_TOPK_SEGMENT, (uint32_t)a.shape.length(which)};
        unsigned char *out = a.wire + a.shape.offset(which);
        uint32_t k = a.shape.entries(which);
        if (k == CINCH_TOPK_DENSE) {
            send_all(s, out);
            continue;
        }
        choose(t, s, k);
        send(t, s, k, out);
        sync();
        if (a.residual) keep_rest(t, s);
        sync();
    }
}

/* As compress/topk.c has it: the ratio as it was written. */
uint32_t entries_of(double ratio, size_t len) {
    double exact = ratio * (double)len * (1 - 1e-12);
    size_t k = (size_t)exact;
    k += (double)k < exact;
    if (k > len) k = len;
    return 6 * k >= 4 * len ? CINCH_TOPK_DENSE : (uint32_t)k;
}

size_t bytes_of(uint32_t entries, size_t len) {
    return entries == CINCH_TOPK_DENSE ? 4 * len : 6 * (size_t)entries;
}

} // namespace

cinchResult_t cinch_cuda::begin_topk(topk_shape *shape, double ratio, size_t count) {
    if (!(ratio > 0 && ratio <= 1))
        return cinch_fail(cinchInvalidArgument, "topk of a share of %g; above 0 to 1 is accepted",
                          ratio);
    shape->count = count;
    shape->whole = entries_of(ratio, CINCH_TOPK_SEGMENT);
    shape->last = entries_of(ratio, count % CINCH_TOPK_SEGMENT);
    return cinchSuccess;
}

size_t cinch_cuda_topk_bytes(double ratio, size_t count) {
    size_t last = count % CINCH_TOPK_SEGMENT;
    return count / CINCH_TOPK_SEGMENT *
               bytes_of(entries_of(ratio, CINCH_TOPK_SEGMENT), CINCH_TOPK_SEGMENT) +
           bytes_of(entries_of(ratio, last), last);
}

cinchResult_t cinch_cuda_topk_encode(const cinch_cuda_where *where, double ratio,
                                     cinchDataType_t dtype, const void *src, float *residual,
                                     size_t count, void *wire, unsigned long long *nonfinite) {
    topk_args a = {};
    cinch_cuda_terms terms = one_plain(src);
    sum_args checked;
    CINCH_TRY(begin_sum(&checked, &terms, dtype, dtype, NULL, count, 0));
    CINCH_TRY(begin_topk(&a.shape, ratio, count));
    if (count == 0) return cinchSuccess;
    a.src = src;
    a.dtype = dtype;
    a.residual = residual;
    a.wire = (unsigned char *)wire;
    a.nonfinite = nonfinite;
    unsigned segments =
        grid((count + CINCH_TOPK_SEGMENT - 1) / CINCH_TOPK_SEGMENT, where->blocks);
    return launch("topk encode", topk_kernel, segments, TOPK_THREADS, where->stream, a);
}

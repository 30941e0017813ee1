/* SPDX-License-Identifier: Apache-2.0 */
/* The topk codec's encode with select=segment: one CUDA block takes a segment.
 *
 * A sample says which magnitude a few more than k elements probably reach; one pass over memory puts
 * those into shared memory, and the rest is found among them. Where the guess was wrong, or shared memory
 * is too small, a first pass counts the upper 11 bits, and the second collects what is left; otherwise
 * every digit is a pass, which the second-level cache serves. */
#include "compress/cuda/segment.cuh"

using namespace cinch_cuda;

namespace {

struct topk_args {
    topk_shape shape;
    uint32_t rank_whole, rank_last; /* in a sample; 0: no guess */
    const void *src;
    int dtype, even;
    float *residual;
    unsigned char *wire;
    unsigned long long *nonfinite;
};

/* f(index, magnitude) of all candidates: those in the list, or, where there is none, all elements. */
template <class F>
CINCH_DEVICE void each_candidate(topk_shared &t, const segment &s, bool list, F f) {
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

/* The k-th largest magnitude, digit by digit from the top. In t.want how many of just that magnitude are
 * wanted, in *list whether what is at least as large, up to there, is in the list. */
CINCH_DEVICE uint32_t find_least(topk_shared &t, const segment &s, uint32_t k, bool *list) {
    uint32_t found = 0, want = k;
#pragma unroll 1
    for (int round = 0; round < 3; round++) {
        clear(t.bins, BINS);
        sync();
        each_candidate(t, s, *list,
                       [&](uint32_t, uint32_t m) { count_digit(t, m, found, round); });
        sync();
        find_digit(t, want);
        found |= t.digit << round_shift(round);
        want = t.want;
        bool fits = k - want + t.bins[t.digit] <= CANDIDATES;
        sync();
        if (round || *list || !fits) continue;
        collect(t, s, found);
        *list = true;
    }
    return found;
}

/* Marks the k largest in t.chosen. */
CINCH_DEVICE void choose(topk_shared &t, const segment &s, uint32_t k, uint32_t rank) {
    bool list = false;
    clear(t.chosen, WORDS);
    clear(t.equal, WORDS);
    if (rank) {
        collect(t, s, guess_least(t, s, rank));
        list = t.candidates >= k && t.candidates <= CANDIDATES;
        sync();
    }
    uint32_t least = find_least(t, s, k, &list);
    each_candidate(t, s, list, [&](uint32_t at, uint32_t m) {
        if (m > least) atomic_or(&t.chosen[at / 32], 1u << at % 32);
        if (m == least) atomic_or(&t.equal[at / 32], 1u << at % 32);
    });
    sync();
    choose_ties(t, t.want);
}

CINCH_KERNEL_OF(TOPK_THREADS, TOPK_RESIDENT) topk_kernel(CINCH_PARAMETER topk_args a) {
    CINCH_SHARED topk_shared t;
    size_t segments = (a.shape.count + CINCH_TOPK_SEGMENT - 1) / CINCH_TOPK_SEGMENT;
    for (size_t which = block(); which < segments; which += blocks()) {
        size_t start = which * CINCH_TOPK_SEGMENT;
        segment s = {a.src, a.residual, a.dtype, a.even, start, (uint32_t)a.shape.length(which)};
        unsigned char *out = a.wire + a.shape.offset(which);
        uint32_t k = a.shape.entries(which);
        if (k == CINCH_TOPK_DENSE) {
            send_all(s, out, a.nonfinite);
            continue;
        }
        choose(t, s, k, s.len == CINCH_TOPK_SEGMENT ? a.rank_whole : a.rank_last);
        send_chosen(t, s, k, out, a.nonfinite);
        if (a.residual) keep_rest(t, s);
    }
}

uint32_t rank_of_segment(uint32_t k, size_t len) {
    double reached;
    uint32_t rank = topk_rank(k, len, &reached);
    return k == CINCH_TOPK_DENSE || reached > 0.9 * CANDIDATES ? 0 : rank;
}

} // namespace

size_t cinch_cuda::topk_share(double ratio, size_t len) {
    double exact = ratio * (double)len * (1 - 1e-12);
    size_t k = (size_t)exact;
    k += (double)k < exact;
    return k > len ? len : k;
}

/* The expected rank of the k-th largest in a sample, and four standard deviations more. */
uint32_t cinch_cuda::topk_rank(size_t k, size_t count, double *reached) {
    if (count < 4 * SAMPLE) return 0;
    double expected = (double)k * SAMPLE / (double)count;
    double rank = expected + 4 * sqrt(expected) + 4;
    *reached = rank * (double)count / SAMPLE;
    return rank < SAMPLE ? (uint32_t)rank : 0;
}

cinchResult_t cinch_cuda::begin_topk(topk_shape *shape, double ratio, size_t count) {
    if (!(ratio > 0 && ratio <= 1))
        return cinch_fail(cinchInvalidArgument, "topk of a share of %g; above 0 to 1 is accepted",
                          ratio);
    shape->count = count;
    shape->whole = topk_entries(topk_share(ratio, CINCH_TOPK_SEGMENT), CINCH_TOPK_SEGMENT);
    shape->last = topk_entries(topk_share(ratio, count % CINCH_TOPK_SEGMENT),
                               count % CINCH_TOPK_SEGMENT);
    return cinchSuccess;
}

size_t cinch_cuda_topk_bytes(double ratio, size_t count) {
    topk_shape shape;
    if (begin_topk(&shape, ratio, count)) return 0;
    return count / CINCH_TOPK_SEGMENT * topk_body(shape.whole, CINCH_TOPK_SEGMENT) +
           topk_body(shape.last, count % CINCH_TOPK_SEGMENT);
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
    checked.residual = residual;
    find_even(&checked, 1);
    a.src = src;
    a.dtype = dtype;
    a.even = checked.even;
    a.residual = residual;
    a.wire = (unsigned char *)wire;
    a.nonfinite = nonfinite;
    a.rank_whole = rank_of_segment(a.shape.whole, CINCH_TOPK_SEGMENT);
    a.rank_last = rank_of_segment(a.shape.last, count % CINCH_TOPK_SEGMENT);
    unsigned segments =
        grid((count + CINCH_TOPK_SEGMENT - 1) / CINCH_TOPK_SEGMENT, where->blocks);
    return launch("topk encode", topk_kernel, segments, TOPK_THREADS, where->stream, a);
}

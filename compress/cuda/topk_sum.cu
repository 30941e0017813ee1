/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of topk messages and plain terms. The law is compress/topk.c and codec_sum.c.
 *
 * One CUDA block sums a range of a segment in shared memory, term after term, and writes it once: no
 * two threads ever add to one element, so the order is that of the terms. Where a message's entries
 * for the range begin and end is searched for, as its indices rise. The messages come from peers, so
 * that they rise is checked, and no index leads outside the range. With select=global one thread a term
 * first looks for the segment in its message, head by head, and goes on from there with the block's next
 * range: a block goes through the heads once at most. */
#include "compress/cuda/topk.cuh"

using namespace cinch_cuda;

namespace {

enum {
    RANGE = 8192, /* elements: 32 KiB of shared memory */
    RANGES = CINCH_TOPK_SEGMENT / RANGE,
    RANGE_THREADS = 512,
    RANGE_WARPS = RANGE_THREADS / 32
};

struct range_args {
    sum_args sum;
    topk_shape shape;
    unsigned *bad;
    int global;
    unsigned long long bytes[CINCH_CUDA_TERMS]; /* select=global: of the messages */
};

struct range_shared {
    alignas(16) float sum[RANGE]; /* rows of four at once: single ones would meet in their banks */
    const unsigned char *body[CINCH_CUDA_TERMS]; /* the segment's, behind its head */
    uint32_t entries[CINCH_CUDA_TERMS], bound[CINCH_CUDA_TERMS][2];
    size_t heads[CINCH_CUDA_TERMS], next[CINCH_CUDA_TERMS]; /* heads read, and where the next one is */
};

/* A range of a segment: elements [from, to) of it. */
struct range {
    size_t segment, start; /* start: of the segment's first element */
    uint32_t from, to, len, part, parts;
};

CINCH_DEVICE uint32_t index_at(const unsigned char *body, uint32_t i) {
    return get_one<uint16_t>(body + 2 * (size_t)i);
}

/* The first of n rising indices that is at least x, by all lanes of a warp. */
CINCH_DEVICE uint32_t first_from(const unsigned char *body, uint32_t n, uint32_t x) {
    uint32_t low = 0, high = n;
    while (low < high) {
        uint32_t step = (high - low + CINCH_WARP - 1) / CINCH_WARP;
        uint32_t at = low + thread() % CINCH_WARP * step;
        uint32_t below = (uint32_t)population(vote(at < high && index_at(body, at) < x));
        if (below == 0) break;
        uint32_t end = low + below * step;
        low += (below - 1) * step + 1;
        high = end < high ? end : high;
    }
    return low;
}

/* Looks through a message for the range's segment, by one thread; false where it is none. */
CINCH_DEVICE bool find_body(const range_args &a, const range &r, range_shared &t, int term) {
    const unsigned char *wire = (const unsigned char *)a.sum.terms.at[term];
    size_t bytes = a.bytes[term];
    for (size_t which; (which = t.heads[term]) <= r.segment; t.heads[term]++) {
        size_t len = a.shape.length(which), at = t.next[term];
        if (bytes - at < 4) return false;
        uint32_t entries = get_one<uint32_t>(wire + at);
        if (entries != CINCH_TOPK_DENSE && topk_entries(entries, len) == CINCH_TOPK_DENSE)
            return false;
        at += 4;
        size_t body = topk_body(entries, len);
        if (bytes - at < body) return false;
        t.entries[term] = entries;
        t.body[term] = wire + at;
        t.next[term] = at + body;
    }
    return (r.segment + 1) * CINCH_TOPK_SEGMENT < a.shape.count || t.next[term] == bytes;
}

/* Where all terms have the segment. */
CINCH_DEVICE void find_bodies(const range_args &a, const range &r, range_shared &t) {
    for (int j = thread(); j < a.sum.terms.n; j += RANGE_THREADS) {
        if (is_plain(a.sum.terms, j)) {
            t.entries[j] = CINCH_TOPK_DENSE;
        } else if (!a.global) {
            t.entries[j] = a.shape.entries(r.segment);
            t.body[j] = (const unsigned char *)a.sum.terms.at[j] + a.shape.offset(r.segment);
        } else if (!find_body(a, r, t, j)) {
            t.entries[j] = 0;
            t.body[j] = NULL;
            *a.bad = 1;
        }
    }
    sync();
}

/* The entries between the range's bounds; together the ranges of a segment go from the first to the last,
 * whatever the indices are, so that every entry is looked at. Where all rise the search is exact, so an
 * entry is outside its range only where another fault is found. What is read depends on no index. */
CINCH_DEVICE void add_sparse(const range_args &a, const range &r, range_shared &t, int term) {
    const unsigned char *body = t.body[term];
    uint32_t entries = t.entries[term], end = t.bound[term][1];
    bool bad = r.part == r.parts - 1 && end != entries;
    if (term == 0) {
        for (uint32_t i = thread(); i < r.to - r.from; i += RANGE_THREADS) t.sum[i] = 0;
        sync();
    }
    for (uint32_t i = t.bound[term][0] + thread(); i < end; i += RANGE_THREADS) {
        uint32_t at = index_at(body, i), before = index_at(body, i ? i - 1 : 0);
        float v = get_one<float>(body + 2 * (size_t)entries + 4 * (size_t)i);
        bool inside = at >= r.from && at < r.to;
        bad = bad || (i && before >= at);
        if (inside) t.sum[at - r.from] = term ? t.sum[at - r.from] + v : v;
    }
    if (bad) *a.bad = 1;
}

/* N elements from i on of a term that has all of them. */
template <int N>
CINCH_DEVICE void add_row(const range_args &a, const range &r, range_shared &t, int term,
                          uint32_t i) {
    float v[N], sum[N];
    if (is_plain(a.sum.terms, term))
        get_plain<N>(v, a.sum.terms.at[term], a.sum.src_dtype, r.start + r.from + i);
    else
        get_row<float, N>(v, t.body[term] + 4 * (size_t)(r.from + i));
    if (term) {
        get_row<float, N, true>(sum, &t.sum[i]);
#pragma unroll
        for (int e = 0; e < N; e++) v[e] = sum[e] + v[e];
    }
    put_row<float, N, true>(&t.sum[i], v);
}

template <int N> CINCH_DEVICE void put_sum(const range_args &a, const range &r, range_shared &t, uint32_t i) {
    float v[N];
    get_row<float, N, true>(v, &t.sum[i]);
#pragma unroll
    for (int e = 0; e < N; e++) v[e] = a.sum.avg ? v[e] * a.sum.factor : v[e];
    put_plain<N>(a.sum.dst, a.sum.dst_dtype, r.start + r.from + i, v);
}

CINCH_DEVICE void sum_range(const range_args &a, const range &r, range_shared &t) {
    uint32_t len = r.to - r.from, rows = len / 4 * 4;
    find_bodies(a, r, t);
    for (int j = thread() / CINCH_WARP; j < a.sum.terms.n; j += RANGE_WARPS) {
        if (t.entries[j] == CINCH_TOPK_DENSE) continue;
        uint32_t low = first_from(t.body[j], t.entries[j], r.from);
        uint32_t high = first_from(t.body[j], t.entries[j], r.to);
        if (thread() % CINCH_WARP) continue;
        t.bound[j][0] = low;
        t.bound[j][1] = high;
    }
    sync();
    for (int j = 0; j < a.sum.terms.n; j++) {
        if (t.entries[j] != CINCH_TOPK_DENSE) {
            add_sparse(a, r, t, j);
        } else {
            for (uint32_t i = 4 * thread(); i < rows; i += 4 * RANGE_THREADS)
                add_row<4>(a, r, t, j, i);
            if (rows + thread() < len) add_row<1>(a, r, t, j, rows + thread());
        }
        sync();
    }
    for (uint32_t i = 4 * thread(); i < rows; i += 4 * RANGE_THREADS) put_sum<4>(a, r, t, i);
    if (rows + thread() < len) put_sum<1>(a, r, t, rows + thread());
    sync();
}

CINCH_KERNEL(RANGE_THREADS) topk_sum_kernel(CINCH_PARAMETER range_args a) {
    CINCH_SHARED range_shared t;
    size_t all = (a.shape.count + RANGE - 1) / RANGE;
    for (int j = thread(); j < a.sum.terms.n; j += RANGE_THREADS) t.heads[j] = t.next[j] = 0;
    for (size_t which = block(); which < all; which += blocks()) {
        range r;
        r.segment = which / RANGES;
        r.start = r.segment * CINCH_TOPK_SEGMENT;
        r.len = (uint32_t)a.shape.length(r.segment);
        r.part = (uint32_t)(which % RANGES);
        r.parts = (r.len + RANGE - 1) / RANGE;
        r.from = r.part * RANGE;
        r.to = r.len - r.from < RANGE ? r.len : r.from + RANGE;
        sum_range(a, r, t);
    }
}

} // namespace

cinchResult_t cinch_cuda_topk_sum(const cinch_cuda_where *where, double ratio,
                                  const cinch_cuda_terms *terms, cinchDataType_t src_dtype,
                                  cinchDataType_t dst_dtype, void *dst, size_t count, int avg_n,
                                  unsigned *bad) {
    range_args a = {};
    CINCH_TRY(begin_sum(&a.sum, terms, src_dtype, dst_dtype, dst, count, avg_n));
    CINCH_TRY(begin_topk(&a.shape, ratio, count));
    if (count == 0) return cinchSuccess;
    a.bad = bad;
    return launch("topk sum", topk_sum_kernel, grid((count + RANGE - 1) / RANGE, where->blocks),
                  RANGE_THREADS, where->stream, a);
}

cinchResult_t cinch_cuda_topk_sum_global(const cinch_cuda_where *where,
                                         const cinch_cuda_terms *terms, const size_t *bytes,
                                         cinchDataType_t src_dtype, cinchDataType_t dst_dtype,
                                         void *dst, size_t count, int avg_n, unsigned *bad) {
    range_args a = {};
    CINCH_TRY(begin_sum(&a.sum, terms, src_dtype, dst_dtype, dst, count, avg_n));
    if (count == 0) return cinchSuccess;
    a.shape.count = count;
    a.global = 1;
    a.bad = bad;
    for (int j = 0; j < terms->n; j++) a.bytes[j] = bytes[j];
    return launch("topk sum", topk_sum_kernel, grid((count + RANGE - 1) / RANGE, where->blocks),
                  RANGE_THREADS, where->stream, a);
}

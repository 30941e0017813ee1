/* SPDX-License-Identifier: Apache-2.0 */
/* The topk codec's prepare and encode with select=global: the k largest of a whole buffer.
 *
 * prepare, one kernel after another on the stream: a sample says which magnitude a few more than k
 * elements probably reach; one pass over memory lists those, segment by segment, in the state; three
 * rounds count the digits of the k-th largest magnitude among the listed; the last says how many of each
 * segment are chosen and where those of just that magnitude end. A segment of which more are candidates
 * than have room is not listed, and read again instead; where the guess was wrong, none is. So an encode
 * knows every segment's place in its message before it begins, and reads the listed only, or, where there
 * is a residual to be kept, its segments once more.
 *
 * The last block to finish a round does what needs all of them. Counters are integers: no result depends
 * on the order of blocks. */
#include "compress/cuda/segment.cuh"

using namespace cinch_cuda;

namespace {

#define NOT_LISTED 0xffffffffu

struct piece {
    uint32_t listed, first; /* how many candidates, and where in the list */
    uint32_t above, equal;  /* elements above the least magnitude that is chosen, and of just that */
    uint32_t taken;
};

enum { STEP_COUNT = 3, STEPS = 4 }; /* of prepare, behind the rounds of counting */

struct topk_state;

/* Where the parts of a state lie. */
struct layout {
    topk_state *head;
    piece *pieces;
    uint32_t *magnitude; /* of the listed */
    uint16_t *index;
};

struct topk_state {
    layout parts;
    unsigned long long base, ties_end; /* places in the job: of element 0, and behind the last tie */
    uint32_t least, want;              /* the magnitude so far; how many of it are wanted */
    uint32_t guess, reached, room;     /* reached: elements that reach the guess; room: taken in list */
    uint32_t lists;                    /* whether they hold all that may be chosen */
    uint32_t done[STEPS];              /* blocks that have finished */
    uint32_t bins[BINS];
};

struct global_args {
    layout state;
    const topk_state *whole; /* part: what prepare has left */
    const void *src;
    float *residual; /* prepare does not write it */
    unsigned char *wire;
    unsigned long long *nonfinite; /* measure: the length */
    uint64_t offset;
    uint32_t k, rank, capacity;
    size_t count;
    int dtype, even, round;
};

CINCH_DEVICE segment segment_of(const global_args &a, size_t which) {
    size_t start = which * CINCH_TOPK_SEGMENT, rest = a.count - start;
    uint32_t len = (uint32_t)(rest < CINCH_TOPK_SEGMENT ? rest : CINCH_TOPK_SEGMENT);
    return {a.src, a.residual, a.dtype, a.even, start, len};
}

CINCH_DEVICE size_t segments_of(const global_args &a) {
    return (a.count + CINCH_TOPK_SEGMENT - 1) / CINCH_TOPK_SEGMENT;
}

CINCH_DEVICE bool lists_hold(const topk_state &s, uint32_t k) { return s.guess && s.reached >= k; }

/* f(index, magnitude) of a segment's candidates. */
template <class F>
CINCH_DEVICE void each_candidate(const layout &l, const piece &p, bool lists, const segment &s, F f) {
    if (lists && p.listed != NOT_LISTED) {
        for (uint32_t c = thread(); c < p.listed; c += TOPK_THREADS)
            f(l.index[p.first + c], l.magnitude[p.first + c]);
        return;
    }
    each_row(s, [&](uint32_t at, const float *v, int n) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < n) f(at + i, magnitude(v[i]));
    });
}

/* Whether this is the last block to come here in a step; it then sees what the others wrote. */
CINCH_DEVICE bool is_last(topk_shared &t, topk_state &s, int step) {
    fence();
    sync();
    if (thread() == 0) t.flag = atomic_add(&s.done[step], 1) == blocks() - 1;
    sync();
    fence();
    return t.flag != 0;
}

/* By one block. */
CINCH_KERNEL(TOPK_THREADS) start_kernel(CINCH_PARAMETER global_args a) {
    CINCH_SHARED topk_shared t;
    topk_state &s = *a.state.head;
    const segment all = {a.src, a.residual, a.dtype, a.even, 0, (uint32_t)a.count};
    uint32_t guess = 0;
    if (a.rank) guess = guess_least(t, all, a.rank);
    clear(s.bins, BINS);
    if (thread() < STEPS) s.done[thread()] = 0;
    if (thread() != 0) return;
    s.parts = a.state;
    s.base = a.offset;
    s.least = s.reached = s.room = s.lists = 0;
    s.want = a.k;
    s.guess = guess;
}

/* Lists what reaches the guess. */
CINCH_KERNEL_OF(TOPK_THREADS, TOPK_RESIDENT) list_kernel(CINCH_PARAMETER global_args a) {
    CINCH_SHARED topk_shared t;
    topk_state &s = *a.state.head;
    for (size_t which = block(); which < segments_of(a); which += blocks()) {
        piece &p = a.state.pieces[which];
        if (!s.guess) {
            if (thread() == 0) p.listed = NOT_LISTED;
            continue;
        }
        collect(t, segment_of(a, which), s.guess);
        uint32_t n = t.candidates;
        if (thread() == 0) {
            atomic_add(&s.reached, n);
            uint32_t first = n <= CANDIDATES ? atomic_add(&s.room, n) : a.capacity;
            bool fits = first <= a.capacity && n <= a.capacity - first;
            p.listed = fits ? n : NOT_LISTED;
            p.first = t.want = first;
            t.flag = fits;
        }
        sync();
        for (uint32_t c = thread(); t.flag && c < n; c += TOPK_THREADS) {
            a.state.magnitude[t.want + c] = t.magnitude[c];
            a.state.index[t.want + c] = t.index[c];
        }
        sync();
    }
}

/* A round of counting; the last block finds the digit. */
CINCH_KERNEL_OF(TOPK_THREADS, TOPK_RESIDENT) round_kernel(CINCH_PARAMETER global_args a) {
    CINCH_SHARED topk_shared t;
    topk_state &s = *a.state.head;
    bool lists = lists_hold(s, a.k);
    uint32_t found = s.least;
    clear(t.bins, BINS);
    sync();
    for (size_t which = block(); which < segments_of(a); which += blocks())
        each_candidate(a.state, a.state.pieces[which], lists, segment_of(a, which),
                       [&](uint32_t, uint32_t m) { count_digit(t, m, found, a.round); });
    sync();
    for (unsigned i = thread(); i < BINS; i += TOPK_THREADS)
        if (t.bins[i]) atomic_add(&s.bins[i], t.bins[i]);
    if (!is_last(t, s, a.round)) return;
    for (unsigned i = thread(); i < BINS; i += TOPK_THREADS) {
        t.bins[i] = load_fresh(&s.bins[i]);
        s.bins[i] = 0;
    }
    uint32_t want = s.want;
    sync();
    find_digit(t, want);
    if (thread() != 0) return;
    s.least = found | t.digit << round_shift(a.round);
    s.want = t.want;
}

/* By the last block: how many of each segment are chosen, and where the ties end. */
CINCH_DEVICE void share_ties(topk_shared &t, const global_args &a, bool lists) {
    topk_state &s = *a.state.head;
    size_t all = segments_of(a), each = (all + TOPK_THREADS - 1) / TOPK_THREADS;
    size_t first = each * thread(), end = first + each < all ? first + each : all;
    uint32_t own = 0, total, want = s.want;
    for (size_t p = first; p < end; p++) own += load_fresh(&a.state.pieces[p].equal);
    uint32_t left = scan_block(t, own, &total);
    left = left < want ? want - left : 0;
    for (size_t p = first; p < end; p++) {
        uint32_t equal = load_fresh(&a.state.pieces[p].equal);
        uint32_t ties = equal < left ? equal : left;
        a.state.pieces[p].taken = load_fresh(&a.state.pieces[p].above) + ties;
        if (ties && ties == left) {
            t.flag = (uint32_t)p;
            t.want = ties;
        }
        left -= ties;
    }
    clear(t.equal, WORDS);
    clear(t.chosen, WORDS);
    sync();
    size_t which = t.flag;
    uint32_t least = s.least;
    each_candidate(a.state, a.state.pieces[which], lists, segment_of(a, which),
                   [&](uint32_t at, uint32_t m) {
                       if (m == least) atomic_or(&t.equal[at / 32], 1u << at % 32);
                   });
    sync();
    choose_ties(t, t.want);
    for (uint32_t w = thread(); w < WORDS; w += TOPK_THREADS) {
        uint32_t end_here = 32 * w;
        for (uint32_t rest = t.chosen[w]; rest; rest &= rest - 1)
            end_here = 32 * w + (uint32_t)lowest(rest) + 1;
        bool last = t.chosen[w] != 0;
        for (uint32_t v = w + 1; last && v < WORDS; v++) last = t.chosen[v] == 0;
        if (last) s.ties_end = s.base + which * CINCH_TOPK_SEGMENT + end_here;
    }
}

CINCH_KERNEL_OF(TOPK_THREADS, TOPK_RESIDENT) count_kernel(CINCH_PARAMETER global_args a) {
    CINCH_SHARED topk_shared t;
    topk_state &s = *a.state.head;
    bool lists = lists_hold(s, a.k);
    uint32_t least = s.least;
    for (size_t which = block(); which < segments_of(a); which += blocks()) {
        uint32_t above = 0, equal = 0, total;
        each_candidate(a.state, a.state.pieces[which], lists, segment_of(a, which),
                       [&](uint32_t, uint32_t m) {
                           above += m > least;
                           equal += m == least;
                       });
        scan_block(t, above, &total);
        if (thread() == 0) a.state.pieces[which].above = total;
        scan_block(t, equal, &total);
        if (thread() == 0) a.state.pieces[which].equal = total;
    }
    if (!is_last(t, s, STEP_COUNT)) return;
    share_ties(t, a, lists);
    if (thread() == 0) s.lists = lists;
}

/* For an encode whose segments are none of prepare's: how many of each are chosen. */
CINCH_KERNEL_OF(TOPK_THREADS, TOPK_RESIDENT) part_kernel(CINCH_PARAMETER global_args a) {
    CINCH_SHARED topk_shared t;
    uint32_t least = a.whole->least;
    uint64_t ties_end = a.whole->ties_end;
    for (size_t which = block(); which < segments_of(a); which += blocks()) {
        uint32_t taken = 0, total;
        segment s = segment_of(a, which);
        uint64_t place = a.offset + s.start;
        each_candidate(a.state, a.state.pieces[which], false, s, [&](uint32_t at, uint32_t m) {
            taken += m > least || (m == least && place + at < ties_end);
        });
        scan_block(t, taken, &total);
        if (thread() == 0) a.state.pieces[which].taken = total;
    }
    if (block() != 0 || thread() != 0) return;
    topk_state &s = *a.state.head;
    s.parts = a.state;
    s.base = a.offset;
    s.least = least;
    s.ties_end = ties_end;
    s.lists = 0;
}

/* In t.total where segment `which` of the message begins. */
CINCH_DEVICE void find_place(topk_shared &t, const piece *pieces, size_t which) {
    if (thread() == 0) t.total = 0;
    sync();
    uint32_t bytes = 0; /* of at most some thousand segments */
    for (size_t p = thread(); p < which; p += TOPK_THREADS)
        bytes += 4 + (uint32_t)topk_body(topk_entries(pieces[p].taken, CINCH_TOPK_SEGMENT),
                                         CINCH_TOPK_SEGMENT);
    if (bytes) atomic_count(&t.total, bytes);
    sync();
}

CINCH_KERNEL_OF(TOPK_THREADS, TOPK_RESIDENT) global_kernel(CINCH_PARAMETER global_args a) {
    CINCH_SHARED topk_shared t;
    const topk_state &state = *a.state.head;
    const layout parts = state.parts;
    const piece *pieces = parts.pieces + (a.offset - state.base) / CINCH_TOPK_SEGMENT;
    uint32_t least = state.least;
    uint64_t ties_end = state.ties_end;
    for (size_t which = block(); which < segments_of(a); which += blocks()) {
        segment s = segment_of(a, which);
        find_place(t, pieces, which);
        unsigned char *out = a.wire + t.total;
        uint32_t k = pieces[which].taken, entries = topk_entries(k, s.len);
        if (thread() == 0) put_one(out, entries);
        if (entries == CINCH_TOPK_DENSE) {
            send_all(s, out + 4, a.nonfinite);
            sync();
            continue;
        }
        clear(t.chosen, WORDS);
        sync();
        uint64_t place = a.offset + s.start;
        each_candidate(parts, pieces[which], state.lists, s, [&](uint32_t at, uint32_t m) {
            if (m > least || (m == least && place + at < ties_end))
                atomic_or(&t.chosen[at / 32], 1u << at % 32);
        });
        sync();
        send_chosen(t, s, k, out + 4, a.nonfinite);
        if (a.residual) keep_rest(t, s);
    }
}

/* By one thread: where the next segment begins is only in the message. */
CINCH_KERNEL(CINCH_WARP) measure_kernel(CINCH_PARAMETER global_args a) {
    size_t at = 0;
    if (thread() != 0) return;
    for (size_t which = 0; which < segments_of(a); which++) {
        uint32_t len = segment_of(a, which).len, entries = get_one<uint32_t>(a.wire + at);
        at += 4 + topk_body(entries <= len || entries == CINCH_TOPK_DENSE ? entries : 0, len);
    }
    *a.nonfinite = at;
}

/* Candidates that the list has room for: a quarter more than are expected. */
uint32_t capacity_of(size_t k, size_t count, uint32_t *rank) {
    double reached = 0;
    *rank = topk_rank(k, count, &reached);
    double room = *rank ? reached * 1.25 + 4096 : 0;
    return room < (double)count / 4 ? (uint32_t)room : (*rank = 0);
}

size_t pieces_of(size_t count) {
    return (count + CINCH_TOPK_SEGMENT - 1) / CINCH_TOPK_SEGMENT;
}

size_t whole16(size_t bytes) {
    return (bytes + 15) / 16 * 16;
}

/* Where the parts of a state lie. */
layout lay_out(void *state, size_t count, uint32_t capacity) {
    char *at = (char *)state;
    layout l = {};
    l.head = (topk_state *)at;
    l.pieces = (piece *)(at += whole16(sizeof(topk_state)));
    l.magnitude = (uint32_t *)(at += whole16(pieces_of(count) * sizeof(piece)));
    l.index = (uint16_t *)(at + (size_t)4 * capacity);
    return l;
}

/* Checks what prepare and encode have in common, and begins the arguments. */
cinchResult_t begin_global(global_args *a, cinchDataType_t dtype, const void *src,
                           const float *residual, size_t count, uint64_t offset) {
    cinch_cuda_terms terms = one_plain(src);
    sum_args checked;
    CINCH_TRY(begin_sum(&checked, &terms, dtype, dtype, NULL, count, 0));
    if (count > UINT32_MAX)
        return cinch_fail(cinchInvalidArgument,
                          "topk with select=global of %zu elements on a GPU; %u are accepted", count,
                          UINT32_MAX);
    checked.residual = (float *)residual;
    find_even(&checked, 1);
    *a = global_args();
    a->src = src;
    a->residual = checked.residual;
    a->dtype = dtype;
    a->even = checked.even;
    a->count = count;
    a->offset = offset;
    return cinchSuccess;
}

} // namespace

size_t cinch_cuda_topk_state_bytes(double ratio, size_t count) {
    uint32_t rank;
    if (count == 0) return 0;
    return whole16(sizeof(topk_state)) + whole16(pieces_of(count) * sizeof(piece)) +
           whole16((size_t)6 * capacity_of(topk_share(ratio, count), count, &rank));
}

cinchResult_t cinch_cuda_topk_prepare(const cinch_cuda_where *where, double ratio, uint64_t offset,
                                      cinchDataType_t dtype, const void *src, const float *residual,
                                      size_t count, void *state) {
    global_args a;
    topk_shape checked;
    CINCH_TRY(begin_topk(&checked, ratio, count));
    CINCH_TRY(begin_global(&a, dtype, src, residual, count, offset));
    if (count == 0) return cinchSuccess;
    a.k = (uint32_t)topk_share(ratio, count);
    a.capacity = capacity_of(a.k, count, &a.rank);
    a.state = lay_out(state, count, a.capacity);
    unsigned blocks = grid(pieces_of(count), where->blocks);
    const unsigned width = TOPK_THREADS;
    CINCH_TRY(launch("topk sample", start_kernel, 1, width, where->stream, a));
    CINCH_TRY(launch("topk list", list_kernel, blocks, width, where->stream, a));
    for (int i = 0; i < 3; i++) {
        a.round = i;
        CINCH_TRY(launch("topk round", round_kernel, blocks, width, where->stream, a));
    }
    return launch("topk count", count_kernel, blocks, width, where->stream, a);
}

cinchResult_t cinch_cuda_topk_prepare_part(const cinch_cuda_where *where, const void *whole,
                                           uint64_t offset, cinchDataType_t dtype, const void *src,
                                           const float *residual, size_t count, void *state) {
    global_args a;
    CINCH_TRY(begin_global(&a, dtype, src, residual, count, offset));
    if (count == 0) return cinchSuccess;
    a.whole = (const topk_state *)whole;
    a.state = lay_out(state, count, 0);
    return launch("topk part", part_kernel, grid(pieces_of(count), where->blocks), TOPK_THREADS,
                  where->stream, a);
}

cinchResult_t cinch_cuda_topk_encode_global(const cinch_cuda_where *where, const void *state,
                                            uint64_t offset, cinchDataType_t dtype, const void *src,
                                            float *residual, size_t count, void *wire,
                                            unsigned long long *nonfinite) {
    global_args a;
    CINCH_TRY(begin_global(&a, dtype, src, residual, count, offset));
    if (count == 0) return cinchSuccess;
    a.state.head = (topk_state *)state;
    a.wire = (unsigned char *)wire;
    a.nonfinite = nonfinite;
    return launch("topk encode", global_kernel, grid(pieces_of(count), where->blocks), TOPK_THREADS,
                  where->stream, a);
}

cinchResult_t cinch_cuda_topk_measure(const cinch_cuda_where *where, const void *wire, size_t count,
                                      unsigned long long *bytes) {
    global_args a = {};
    a.wire = (unsigned char *)wire;
    a.count = count;
    a.nonfinite = bytes;
    return launch("topk measure", measure_kernel, 1, CINCH_WARP, where->stream, a);
}

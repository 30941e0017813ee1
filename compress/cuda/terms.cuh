/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of encoded and plain terms in registers, for the int8 and bf16 codecs. The law is
 * compress/codec_sum.c: terms in their order, in fp32, the first as it is; then 1/n. */
#ifndef CINCH_COMPRESS_CUDA_TERMS_CUH_
#define CINCH_COMPRESS_CUDA_TERMS_CUH_

#include "compress/cuda/kernels.h"
#include "compress/cuda/memory.cuh"

namespace cinch_cuda {

struct sum_args {
    cinch_cuda_terms terms;
    size_t count;
    int src_dtype, dst_dtype;
    int avg; /* whether the sum is multiplied by factor */
    float factor;
    unsigned shift; /* int8: log2 of the block */
    void *dst;      /* may be NULL where something is encoded */
    float *residual;
    unsigned char *wire;
    unsigned long long *nonfinite;
    uint64_t key, index; /* int8, with random rounding */
    int stochastic;
    int even; /* rows of four are aligned everywhere */
};

CINCH_DEVICE bool is_plain(const cinch_cuda_terms &terms, int j) {
    return terms.plain[j / 64] >> j % 64 & 1;
}

/* N elements of half, bfloat16 or float from element `at` on. */
template <int N> CINCH_DEVICE void get_plain(float *out, const void *from, int dtype, size_t at) {
    if (dtype == cinchFloat32) {
        get_row<float, N>(out, (const char *)from + 4 * at);
        return;
    }
    uint16_t v[N];
    get_row<uint16_t, N>(v, (const char *)from + 2 * at);
#pragma unroll
    for (int i = 0; i < N; i++)
        out[i] = dtype == cinchFloat16 ? half_to_float(v[i]) : cinch_bfloat16_to_float(v[i]);
}

template <int N, bool ALIGNED = false>
CINCH_DEVICE void put_plain(void *to, int dtype, size_t at, const float *in) {
    if (dtype == cinchFloat32) {
        put_row<float, N, ALIGNED>((char *)to + 4 * at, in);
        return;
    }
    uint16_t v[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        v[i] = dtype == cinchFloat16 ? half_from_float(in[i]) : bfloat16_from_float(in[i]);
    put_row<uint16_t, N, ALIGNED>((char *)to + 2 * at, v);
}

/* Rows of N elements that a thread works on, `stride` apart; those from `end` on are not there. EVEN:
 * all are there and everything is aligned, so that there is no branch between two accesses. */
enum access { EVEN, ANY };
template <int N, int R, access A> struct rows {
    size_t first, stride, end;

    CINCH_DEVICE size_t at(int r) const { return first + r * stride; }
    CINCH_DEVICE bool has(int r) const { return A == EVEN || at(r) < end; }
};

template <class T, int N, int R, access A>
CINCH_DEVICE void get_rows(T (*out)[N], const void *from, const rows<N, R, A> &b) {
#pragma unroll
    for (int r = 0; r < R; r++)
        if (b.has(r))
            get_row<T, N, A == EVEN>(out[r], (const char *)from + b.at(r) * sizeof(T));
}

/* Rows of half, bfloat16 or float, as floats. */
template <int N, int R, access A>
CINCH_DEVICE void get_plain_rows(float (*out)[N], const void *from, int dtype,
                                 const rows<N, R, A> &b) {
    if (dtype == cinchFloat32) {
        get_rows<float, N, R, A>(out, from, b);
        return;
    }
    uint16_t v[R][N] = {};
    get_rows<uint16_t, N, R, A>(v, from, b);
    if (dtype == cinchFloat16) {
#pragma unroll
        for (int i = 0; i < R * N; i++) out[i / N][i % N] = half_to_float(v[i / N][i % N]);
    } else {
#pragma unroll
        for (int i = 0; i < R * N; i++)
            out[i / N][i % N] = cinch_bfloat16_to_float(v[i / N][i % N]);
    }
}

/* How a codec's rows look on the wire and in registers; a row is all of one block. */
template <int N, int R> struct int8_wire {
    int8_t code[R][N] = {};
    float scale[R] = {};

    template <access A>
    CINCH_DEVICE void read(const sum_args &a, const void *wire, const rows<N, R, A> &b) {
        get_rows<int8_t, N, R, A>(code, wire, b);
#pragma unroll
        for (int r = 0; r < R; r++) {
            const char *at = (const char *)wire + a.count + 4 * (b.at(r) >> a.shift);
            if (b.has(r)) get_row<float, 1, A == EVEN>(&scale[r], at);
        }
    }
    CINCH_DEVICE float value(int r, int i) const { return (float)code[r][i] * scale[r]; }
};

template <int N, int R> struct bf16_wire {
    uint16_t code[R][N] = {};

    template <access A>
    CINCH_DEVICE void read(const sum_args &, const void *wire, const rows<N, R, A> &b) {
        get_rows<uint16_t, N, R, A>(code, wire, b);
    }
    CINCH_DEVICE float value(int r, int i) const {
        return cinch_bits_float((uint32_t)code[r][i] << 16);
    }
};

/* acc + v, or v where it is the first term. */
template <template <int, int> class W, int N, int R>
CINCH_DEVICE void add_wire(float (*acc)[N], const W<N, R> &w, bool first) {
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < N; i++) {
            float v = w.value(r, i);
            acc[r][i] = first ? v : acc[r][i] + v;
        }
}

/* The sum of all terms; what is not there is 0. Of two messages in a row both are read before the first
 * is added. */
template <template <int, int> class W, int N, int R, access A>
CINCH_DEVICE void add_terms(float (*acc)[N], const sum_args &a, const rows<N, R, A> &b) {
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < N; i++) acc[r][i] = 0;
#pragma unroll 1
    for (int j = 0; j < a.terms.n; j++) {
        if (is_plain(a.terms, j)) {
            float v[R][N] = {};
            get_plain_rows<N, R, A>(v, a.terms.at[j], a.src_dtype, b);
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < N; i++) acc[r][i] = j ? acc[r][i] + v[r][i] : v[r][i];
            continue;
        }
        W<N, R> one, two;
        bool both = j + 1 < a.terms.n && !is_plain(a.terms, j + 1), first = j == 0;
        one.template read<A>(a, a.terms.at[j], b);
        if (both) two.template read<A>(a, a.terms.at[j + 1], b);
        add_wire<W, N, R>(acc, one, first);
        if (!both) continue;
        add_wire<W, N, R>(acc, two, false);
        j++;
    }
    if (!a.avg) return;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < N; i++) acc[r][i] *= a.factor;
}

/* Four elements a row where all of them are there, else one by one: ROWS of both cover a piece of
 * PIECE elements, a thread's rows a block of threads apart. */
enum { SUM_THREADS = 256, SUM_ROWS = 4, SUM_PIECE = 4 * SUM_ROWS * SUM_THREADS };

/* F::run<N, R, A>(args, rows) over all pieces. */
template <class F> CINCH_DEVICE void each_piece(const sum_args &a) {
    size_t step = (size_t)blocks() * SUM_PIECE;
    for (size_t at = (size_t)block() * SUM_PIECE; at < a.count; at += step) {
        size_t first = at + 4 * thread();
        const size_t stride = 4 * SUM_THREADS;
        if (a.count - at < SUM_PIECE) {
#pragma unroll 1
            for (size_t e = at + thread(); e < a.count; e += SUM_THREADS)
                F::template run<1, 1, ANY>(a, rows<1, 1, ANY>{e, SUM_THREADS, a.count});
        } else if (a.even) {
            F::template run<4, SUM_ROWS, EVEN>(a, rows<4, SUM_ROWS, EVEN>{first, stride, a.count});
        } else {
#pragma unroll 1
            for (int r = 0; r < SUM_ROWS; r++)
                F::template run<4, 1, ANY>(a, rows<4, 1, ANY>{first + r * stride, stride, a.count});
        }
    }
}

/* W's sum into dst. */
template <template <int, int> class W> struct sum_to_dst {
    template <int N, int R, access A>
    static CINCH_DEVICE void run(const sum_args &a, const rows<N, R, A> &b) {
        float acc[R][N];
        add_terms<W, N, R, A>(acc, a, b);
#pragma unroll
        for (int r = 0; r < R; r++)
            if (b.has(r)) put_plain<N, A == EVEN>(a.dst, a.dst_dtype, b.at(r), acc[r]);
    }
};

template <template <int, int> class W>
CINCH_KERNEL(SUM_THREADS) sum_kernel(CINCH_PARAMETER sum_args a) {
    each_piece<sum_to_dst<W>>(a);
}

static inline bool is_codec_dtype(cinchDataType_t dtype) {
    return dtype == cinchFloat16 || dtype == cinchBfloat16 || dtype == cinchFloat32;
}

/* Checks what all calls have in common, and begins the arguments. */
cinchResult_t begin_sum(sum_args *a, const cinch_cuda_terms *terms, cinchDataType_t src_dtype,
                        cinchDataType_t dst_dtype, void *dst, size_t count, int avg_n);

/* Sets a->even, when all else is set. wire_size: bytes of a code. */
void find_even(sum_args *a, size_t wire_size);

/* The terms of an encode. */
cinch_cuda_terms one_plain(const void *src);

} // namespace cinch_cuda

#endif

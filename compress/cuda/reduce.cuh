/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of reductions, for any element type. The law is compress/reduce_ref.c. */
#ifndef CINCH_COMPRESS_CUDA_REDUCE_CUH_
#define CINCH_COMPRESS_CUDA_REDUCE_CUH_

#include "compress/cuda/kernels.h"
#include "compress/cuda/memory.cuh"

namespace cinch_cuda {

enum { REDUCE_THREADS = 256 };

struct reduce_args {
    const void *src[CINCH_CUDA_TERMS];
    void *dst[CINCH_CUDA_DESTINATIONS];
    size_t count, head; /* head: elements before the first whole 16 bytes of dst[0] */
    const void *scalar; /* of premul */
    int nsrc, ndst, avg_n;
    int even; /* all addresses are aligned to 16 behind the head */
};

/* What an element type is. T: in memory; A: the type of the arithmetic; S: of what avg does at the
 * end. Sums and products of integers wrap: they are made in U. */
template <class E, class U, class D> struct integer {
    typedef E T;
    typedef E A;
    typedef D S;
    static CINCH_DEVICE A widen(T v) { return v; }
    static CINCH_DEVICE T narrow(A v) { return v; }
    static CINCH_DEVICE S scale(int n) { return (S)n; }
    static CINCH_DEVICE A finish(A v, S by) { return (A)(v / by); }
    template <int OP> static CINCH_DEVICE A combine(A a, A b) {
        if (OP == cinchSum) return (A)(U)((U)a + (U)b);
        if (OP == cinchProd) return (A)(U)((U)a * (U)b);
        if (OP == cinchMax) return a > b ? a : b;
        return a < b ? a : b;
    }
};

/* NaN wins in max and min, and +0 is more than -0. B: as many bits; nan: the canonical one. */
template <int OP, class A, class B> CINCH_DEVICE A combine_floats(A a, A b, B nan) {
    B x, y;
    if (OP == cinchSum) return a + b;
    if (OP == cinchProd) return a * b;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    if (a != a || b != b)
        x = nan;
    else if (a == b)
        x = OP == cinchMax ? x & y : x | y;
    else if ((OP == cinchMax) == (a < b))
        x = y;
    memcpy(&a, &x, sizeof a);
    return a;
}

struct floats {
    typedef float A;
    typedef float S;
    static CINCH_DEVICE S scale(int n) { return 1.0f / (float)n; }
    static CINCH_DEVICE A finish(A v, S by) { return v * by; }
    template <int OP> static CINCH_DEVICE A combine(A a, A b) {
        return combine_floats<OP, float, uint32_t>(a, b, CINCH_NAN_F32);
    }
};

struct float32 : floats {
    typedef float T;
    static CINCH_DEVICE A widen(T v) { return v; }
    static CINCH_DEVICE T narrow(A v) { return v != v ? cinch_float_of(CINCH_NAN_F32) : v; }
};

struct float64 {
    typedef double T;
    typedef double A;
    typedef double S;
    static CINCH_DEVICE A widen(T v) { return v; }
    static CINCH_DEVICE T narrow(A v) {
        uint64_t nan = CINCH_NAN_F64;
        if (v != v) memcpy(&v, &nan, sizeof v);
        return v;
    }
    static CINCH_DEVICE S scale(int n) { return 1.0 / (double)n; }
    static CINCH_DEVICE A finish(A v, S by) { return v * by; }
    template <int OP> static CINCH_DEVICE A combine(A a, A b) {
        return combine_floats<OP, double, uint64_t>(a, b, CINCH_NAN_F64);
    }
};

struct half : floats {
    typedef uint16_t T;
    static CINCH_DEVICE A widen(T v) { return half_to_float(v); }
    static CINCH_DEVICE T narrow(A v) { return half_from_float(v); }
};

struct bfloat16 : floats {
    typedef uint16_t T;
    static CINCH_DEVICE A widen(T v) { return cinch_bfloat16_to_float(v); }
    static CINCH_DEVICE T narrow(A v) { return bfloat16_from_float(v); }
};

struct f8e4m3 : floats {
    typedef uint8_t T;
    /* Its exponent and mantissa as those of a float are the number over 2^120, denormals too. */
    static CINCH_DEVICE A widen(T v) {
        uint32_t mag = v & 0x7fu;
        float scaled = cinch_float_of((uint32_t)(v & 0x80u) << 24 | mag << 20) * 0x1p120f;
        return mag == 0x7f ? cinch_float_of(CINCH_NAN_F32) : scaled;
    }
    static CINCH_DEVICE T narrow(A v) { return cinch_f8e4m3_from_float(v); }
};

struct f8e5m2 : floats {
    typedef uint8_t T;
    static CINCH_DEVICE A widen(T v) { return half_to_float((uint16_t)((uint32_t)v << 8)); }
    static CINCH_DEVICE T narrow(A v) { return cinch_f8e5m2_from_float(v); }
};

/* Elements of 16 bytes, and how many such rows of a source a thread has under way: as many as leave
 * room in registers for two sources and for fp32 sums. */
template <class Y> struct shape {
    static const int row = 16 / (int)sizeof(typename Y::T);
    static const int rows = sizeof(typename Y::T) >= 2 ? 2 : 1;
};

/* How rows are read and written: EVEN, where all are there and aligned, has no branch between them. */
enum access { EVEN, ANY };

template <class Y, int N, int R, access A>
CINCH_DEVICE void read_rows(typename Y::T (*in)[N], const void *from, size_t first, size_t stride,
                            size_t end) {
#pragma unroll
    for (int r = 0; r < R; r++) {
        const char *at = (const char *)from + (first + r * stride) * sizeof(typename Y::T);
        if (A == EVEN)
            get_row<typename Y::T, N, true>(in[r], at);
        else if (first + r * stride < end)
            get_row<typename Y::T, N>(in[r], at);
    }
}

template <class Y, int N, int R, access A>
CINCH_DEVICE void write_rows(const typename Y::T (*out)[N], void *to, size_t first, size_t stride,
                             size_t end) {
#pragma unroll
    for (int r = 0; r < R; r++) {
        char *at = (char *)to + (first + r * stride) * sizeof(typename Y::T);
        if (A == EVEN)
            put_row<typename Y::T, N, true>(at, out[r]);
        else if (first + r * stride < end)
            put_row<typename Y::T, N>(at, out[r]);
    }
}

/* acc[][] op in[][], or in[][] where it is the first. */
template <class Y, int OP, int N, int R>
CINCH_DEVICE void combine_rows(typename Y::A (*acc)[N], const typename Y::T (*in)[N], bool first) {
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int e = 0; e < N; e++) {
            typename Y::A v = Y::widen(in[r][e]);
            acc[r][e] = first ? v : Y::template combine<OP>(acc[r][e], v);
        }
}

/* N elements of R rows, `stride` elements apart, those below `end`; two sources are read before the
 * first is used. */
template <class Y, int OP, int N, int R, access A>
CINCH_DEVICE void reduce_rows(const reduce_args &a, size_t first, size_t stride, size_t end) {
    typename Y::A acc[R][N] = {};
    typename Y::T in[R][N] = {}, next[R][N] = {};
#pragma unroll 1
    for (int s = 0; s < a.nsrc; s += 2) {
        bool both = s + 1 < a.nsrc;
        read_rows<Y, N, R, A>(in, a.src[s], first, stride, end);
        if (both) read_rows<Y, N, R, A>(next, a.src[s + 1], first, stride, end);
        combine_rows<Y, OP, N, R>(acc, in, s == 0);
        if (both) combine_rows<Y, OP, N, R>(acc, next, false);
    }
    if (OP == cinchSum && a.avg_n) {
        typename Y::S by = Y::scale(a.avg_n);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int e = 0; e < N; e++) acc[r][e] = Y::finish(acc[r][e], by);
    }
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int e = 0; e < N; e++) in[r][e] = Y::narrow(acc[r][e]);
#pragma unroll 1
    for (int d = 0; d < a.ndst; d++) write_rows<Y, N, R, A>(in, a.dst[d], first, stride, end);
}

template <class Y, int N, int R, access A>
CINCH_DEVICE void premul_rows(const reduce_args &a, size_t first, size_t stride, size_t end) {
    typename Y::A factor = Y::widen(get_one<typename Y::T>(a.scalar));
    typename Y::T in[R][N] = {};
    read_rows<Y, N, R, A>(in, a.src[0], first, stride, end);
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int e = 0; e < N; e++)
            in[r][e] = Y::narrow(Y::template combine<cinchProd>(Y::widen(in[r][e]), factor));
    write_rows<Y, N, R, A>(in, a.dst[0], first, stride, end);
}

/* What a kernel does with rows. OP: as in launch_reduce. */
template <class Y, int OP, int N, int R, access A>
CINCH_DEVICE void do_rows(const reduce_args &a, size_t first, size_t stride, size_t end) {
    if (OP == cinchNumOps)
        premul_rows<Y, N, R, A>(a, first, stride, end);
    else
        reduce_rows<Y, OP == cinchNumOps ? cinchSum : OP, N, R, A>(a, first, stride, end);
}

/* Whole rows by all blocks; the ends of the buffer, less than a row each, by the last. */
template <class Y, int OP> CINCH_KERNEL(REDUCE_THREADS) reduce_kernel(CINCH_PARAMETER reduce_args a) {
    const int N = shape<Y>::row, R = shape<Y>::rows;
    const size_t per = R * REDUCE_THREADS, stride = (size_t)REDUCE_THREADS * N;
    size_t rows = (a.count - a.head) / N, body = a.head + rows * N;
    for (size_t at = block() * per; at < rows; at += blocks() * per) {
        size_t first = a.head + (at + thread()) * N;
        if (a.even && at + per <= rows)
            do_rows<Y, OP, N, R, EVEN>(a, first, stride, body);
        else /* one row at a time: rare, and little code */
#pragma unroll 1
            for (int r = 0; r < R; r++)
                do_rows<Y, OP, N, 1, ANY>(a, first + r * stride, stride, body);
    }
    if (block() != blocks() - 1) return;
    if (thread() < a.head) do_rows<Y, OP, 1, 1, ANY>(a, thread(), 1, a.head);
    if (body + thread() < a.count) do_rows<Y, OP, 1, 1, ANY>(a, body + thread(), 1, a.count);
}

/* Whether 16 bytes can be moved at once everywhere behind the head. */
template <class Y> bool is_even(const reduce_args &a) {
    size_t head = a.head * sizeof(typename Y::T), odd = 0;
    for (int s = 0; s < a.nsrc; s++) odd |= (uintptr_t)a.src[s] + head;
    for (int d = 0; d < a.ndst; d++) odd |= (uintptr_t)a.dst[d] + head;
    return odd % 16 == 0;
}

/* op: sum, prod, max or min; cinchNumOps: premul. */
template <class Y>
cinchResult_t launch_reduce(const cinch_cuda_where *where, int op, reduce_args a) {
    const size_t size = sizeof(typename Y::T), row = shape<Y>::row;
    size_t off = (uintptr_t)a.dst[0] % 16;
    a.head = off % size ? 0 : (16 - off) % 16 / size;
    if (a.head > a.count) a.head = a.count;
    a.even = is_even<Y>(a);
    unsigned count = grid(a.count / (REDUCE_THREADS * shape<Y>::rows * row) + 1, where->blocks);
    switch (op) {
    case cinchSum:
        return launch("sum", reduce_kernel<Y, cinchSum>, count, REDUCE_THREADS, where->stream, a);
    case cinchProd:
        return launch("prod", reduce_kernel<Y, cinchProd>, count, REDUCE_THREADS, where->stream, a);
    case cinchMax:
        return launch("max", reduce_kernel<Y, cinchMax>, count, REDUCE_THREADS, where->stream, a);
    case cinchMin:
        return launch("min", reduce_kernel<Y, cinchMin>, count, REDUCE_THREADS, where->stream, a);
    default:
        return launch("premul", reduce_kernel<Y, cinchNumOps>, count, REDUCE_THREADS,
                      where->stream, a);
    }
}

/* The types are split over two files, that they compile side by side. */
cinchResult_t launch_integers(const cinch_cuda_where *where, cinchDataType_t dtype, int op,
                              const reduce_args &a);
cinchResult_t launch_floats(const cinch_cuda_where *where, cinchDataType_t dtype, int op,
                            const reduce_args &a);

} // namespace cinch_cuda

#endif

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
    /* A half of eight binades below, as in compress/convert.h. */
    static CINCH_DEVICE A widen(T v) {
        uint32_t sign = (uint32_t)(v & 0x80u) << 8, mag = v & 0x7fu;
        if (mag == 0x7f) return cinch_float_of(CINCH_NAN_F32);
        return half_to_float((uint16_t)(sign | (mag << 7))) * 256.0f;
    }
    static CINCH_DEVICE T narrow(A v) { return cinch_f8e4m3_from_float(v); }
};

struct f8e5m2 : floats {
    typedef uint8_t T;
    static CINCH_DEVICE A widen(T v) { return half_to_float((uint16_t)((uint32_t)v << 8)); }
    static CINCH_DEVICE T narrow(A v) { return cinch_f8e5m2_from_float(v); }
};

/* Elements of 16 bytes, and how many such rows a thread has under way. */
template <class Y> struct shape {
    static const int row = 16 / (int)sizeof(typename Y::T);
    static const int rows = sizeof(typename Y::T) >= 4 ? 4 : (int)sizeof(typename Y::T);
};

/* N elements of R rows, `stride` elements apart, those below `end`. */
template <class Y, int OP, int N, int R>
CINCH_DEVICE void reduce_rows(const reduce_args &a, size_t first, size_t stride, size_t end) {
    typedef typename Y::T T;
    typename Y::A acc[R][N] = {};
    for (int s = 0; s < a.nsrc; s++) {
        T in[R][N] = {};
        const char *src = (const char *)a.src[s];
#pragma unroll
        for (int r = 0; r < R; r++)
            if (first + r * stride < end)
                get_row<T, N>(in[r], src + (first + r * stride) * sizeof(T));
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int e = 0; e < N; e++) {
                typename Y::A v = Y::widen(in[r][e]);
                acc[r][e] = s ? Y::template combine<OP>(acc[r][e], v) : v;
            }
    }
    if (OP == cinchSum && a.avg_n) {
        typename Y::S by = Y::scale(a.avg_n);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int e = 0; e < N; e++) acc[r][e] = Y::finish(acc[r][e], by);
    }
    for (int d = 0; d < a.ndst; d++) {
        char *dst = (char *)a.dst[d];
#pragma unroll
        for (int r = 0; r < R; r++) {
            if (first + r * stride >= end) continue;
            T out[N];
#pragma unroll
            for (int e = 0; e < N; e++) out[e] = Y::narrow(acc[r][e]);
            put_row<T, N>(dst + (first + r * stride) * sizeof(T), out);
        }
    }
}

/* Whole rows by all blocks; the ends of the buffer, less than a row each, by the last. */
template <class Y, int OP> CINCH_KERNEL(REDUCE_THREADS) reduce_kernel(CINCH_PARAMETER reduce_args a) {
    const size_t row = shape<Y>::row, per = shape<Y>::rows * REDUCE_THREADS;
    size_t rows = (a.count - a.head) / row, body = a.head + rows * row;
    for (size_t at = block() * per; at < rows; at += blocks() * per)
        reduce_rows<Y, OP, shape<Y>::row, shape<Y>::rows>(
            a, a.head + (at + thread()) * row, REDUCE_THREADS * row, body);
    if (block() != blocks() - 1) return;
    if (thread() < a.head) reduce_rows<Y, OP, 1, 1>(a, thread(), 1, a.head);
    if (body + thread() < a.count) reduce_rows<Y, OP, 1, 1>(a, body + thread(), 1, a.count);
}

template <class Y, int N>
CINCH_DEVICE void premul_row(const reduce_args &a, size_t at, typename Y::A factor) {
    typename Y::T v[N];
    get_row<typename Y::T, N>(v, (const char *)a.src[0] + at * sizeof v[0]);
#pragma unroll
    for (int e = 0; e < N; e++)
        v[e] = Y::narrow(Y::template combine<cinchProd>(Y::widen(v[e]), factor));
    put_row<typename Y::T, N>((char *)a.dst[0] + at * sizeof v[0], v);
}

template <class Y> CINCH_KERNEL(REDUCE_THREADS) premul_kernel(CINCH_PARAMETER reduce_args a) {
    const size_t row = shape<Y>::row;
    typename Y::A factor = Y::widen(get_one<typename Y::T>(a.scalar));
    size_t rows = (a.count - a.head) / row, body = a.head + rows * row;
    size_t step = (size_t)blocks() * REDUCE_THREADS;
    for (size_t at = (size_t)block() * REDUCE_THREADS + thread(); at < rows; at += step)
        premul_row<Y, shape<Y>::row>(a, a.head + at * row, factor);
    if (block() != blocks() - 1) return;
    if (thread() < a.head) premul_row<Y, 1>(a, thread(), factor);
    if (body + thread() < a.count) premul_row<Y, 1>(a, body + thread(), factor);
}

/* op: sum, prod, max or min; cinchNumOps: premul. */
template <class Y>
cinchResult_t launch_reduce(const cinch_cuda_where *where, int op, reduce_args a) {
    const size_t size = sizeof(typename Y::T), row = shape<Y>::row;
    size_t off = (uintptr_t)a.dst[0] % 16;
    a.head = off % size ? 0 : (16 - off) % 16 / size;
    if (a.head > a.count) a.head = a.count;
    size_t per = REDUCE_THREADS * (op == cinchNumOps ? 1 : shape<Y>::rows) * row;
    unsigned count = grid(a.count / per + 1, where->blocks);
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
        return launch("premul", premul_kernel<Y>, count, REDUCE_THREADS, where->stream, a);
    }
}

/* The types are split over two files, that they compile side by side. */
cinchResult_t launch_integers(const cinch_cuda_where *where, cinchDataType_t dtype, int op,
                              const reduce_args &a);
cinchResult_t launch_floats(const cinch_cuda_where *where, cinchDataType_t dtype, int op,
                            const reduce_args &a);

} // namespace cinch_cuda

#endif

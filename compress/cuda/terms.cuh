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
};

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

template <int N> CINCH_DEVICE void put_plain(void *to, int dtype, size_t at, const float *in) {
    if (dtype == cinchFloat32) {
        put_row<float, N>((char *)to + 4 * at, in);
        return;
    }
    uint16_t v[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        v[i] = dtype == cinchFloat16 ? half_from_float(in[i]) : bfloat16_from_float(in[i]);
    put_row<uint16_t, N>((char *)to + 2 * at, v);
}

/* How a codec's N elements from `at` on, all of one block, look in registers. */
struct int8_wire {
    template <int N>
    static CINCH_DEVICE void get(float *out, const sum_args &a, const void *wire, size_t at) {
        int8_t code[N];
        get_row<int8_t, N>(code, (const char *)wire + at);
        float scale = get_one<float>((const char *)wire + a.count + 4 * (at >> a.shift));
#pragma unroll
        for (int i = 0; i < N; i++) out[i] = (float)code[i] * scale;
    }
};

struct bf16_wire {
    template <int N>
    static CINCH_DEVICE void get(float *out, const sum_args &, const void *wire, size_t at) {
        uint16_t v[N];
        get_row<uint16_t, N>(v, (const char *)wire + 2 * at);
#pragma unroll
        for (int i = 0; i < N; i++) out[i] = cinch_bits_float((uint32_t)v[i] << 16);
    }
};

/* The sum of R rows of N elements each, `stride` elements apart; what is not below `end` is 0. */
template <class W, int N, int R>
CINCH_DEVICE void add_terms(float (*acc)[N], const sum_args &a, size_t first, size_t stride,
                            size_t end) {
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < N; i++) acc[r][i] = 0;
    for (int j = 0; j < a.terms.n; j++) {
        const void *from = a.terms.at[j];
        bool plain = a.terms.plain >> j & 1;
        float v[R][N];
#pragma unroll
        for (int r = 0; r < R; r++) {
            size_t at = first + r * stride;
            if (at >= end) continue;
            if (plain)
                get_plain<N>(v[r], from, a.src_dtype, at);
            else
                W::template get<N>(v[r], a, from, at);
        }
#pragma unroll
        for (int r = 0; r < R; r++)
            if (first + r * stride < end)
#pragma unroll
                for (int i = 0; i < N; i++) acc[r][i] = j ? acc[r][i] + v[r][i] : v[r][i];
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

/* F::run<N>(args, first, stride, end) over all pieces. */
template <class F> CINCH_DEVICE void each_piece(const sum_args &a) {
    size_t step = (size_t)blocks() * SUM_PIECE;
    for (size_t at = (size_t)block() * SUM_PIECE; at < a.count; at += step) {
        if (a.count - at >= SUM_PIECE) {
            F::template run<4>(a, at + 4 * thread(), 4 * SUM_THREADS, a.count);
            continue;
        }
        for (size_t e = at + thread(); e < a.count; e += SUM_ROWS * SUM_THREADS)
            F::template run<1>(a, e, SUM_THREADS, a.count);
    }
}

/* W's sum into dst. */
template <class W> struct sum_to_dst {
    template <int N>
    static CINCH_DEVICE void run(const sum_args &a, size_t first, size_t stride, size_t end) {
        float acc[SUM_ROWS][N];
        add_terms<W, N, SUM_ROWS>(acc, a, first, stride, end);
#pragma unroll
        for (int r = 0; r < SUM_ROWS; r++)
            if (first + r * stride < end)
                put_plain<N>(a.dst, a.dst_dtype, first + r * stride, acc[r]);
    }
};

template <class W> CINCH_KERNEL(SUM_THREADS) sum_kernel(CINCH_PARAMETER sum_args a) {
    each_piece<sum_to_dst<W>>(a);
}

static inline bool is_codec_dtype(cinchDataType_t dtype) {
    return dtype == cinchFloat16 || dtype == cinchBfloat16 || dtype == cinchFloat32;
}

/* Checks what all calls have in common, and begins the arguments. */
cinchResult_t begin_sum(sum_args *a, const cinch_cuda_terms *terms, cinchDataType_t src_dtype,
                        cinchDataType_t dst_dtype, void *dst, size_t count, int avg_n);

/* The terms of an encode. */
cinch_cuda_terms one_plain(const void *src);

} // namespace cinch_cuda

#endif

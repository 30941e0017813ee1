/* SPDX-License-Identifier: Apache-2.0 */
/* The bf16 codec: sums, and encodes of sums. The law is compress/bf16.c. */
#include "compress/cuda/terms.cuh"

using namespace cinch_cuda;

namespace {

/* Unlike compress/convert.h this keeps the upper bits of a NaN. */
CINCH_DEVICE uint16_t round_to_bf16(float value) {
    uint32_t bits = cinch_float_bits(value);
    if ((bits & CINCH_ABS_BITS) > CINCH_INF_BITS) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Of a sum: the codes, what is left of it, and what a reader will see. */
template <int N, int R, access A>
CINCH_DEVICE void encode_rows(const sum_args &a, const rows<N, R, A> &b, float (*sum)[N]) {
    float old[R][N] = {};
    unsigned nonfinite = 0;
    if (a.residual) get_rows<float, N, R, A>(old, a.residual, b);
#pragma unroll
    for (int r = 0; r < R; r++) {
        if (!b.has(r)) continue;
        float seen[N];
        uint16_t code[N];
#pragma unroll
        for (int i = 0; i < N; i++) {
            float v = a.residual ? sum[r][i] + old[r][i] : sum[r][i];
            code[i] = round_to_bf16(v);
            seen[i] = cinch_bits_float((uint32_t)code[i] << 16);
            bool finite = (code[i] & 0x7f80) != 0x7f80;
            if (finite) old[r][i] = v - seen[i];
            nonfinite += !finite;
        }
        put_row<uint16_t, N, A == EVEN>(a.wire + 2 * b.at(r), code);
        if (a.residual) put_row<float, N, A == EVEN>(a.residual + b.at(r), old[r]);
        if (a.dst) put_plain<N, A == EVEN>(a.dst, a.dst_dtype, b.at(r), seen);
    }
    if (nonfinite) atomic_count(a.nonfinite, nonfinite);
}

struct sum_to_wire {
    template <int N, int R, access A>
    static CINCH_DEVICE void run(const sum_args &a, const rows<N, R, A> &b) {
        float acc[R][N];
        add_terms<bf16_wire, N, R, A>(acc, a, b);
        encode_rows<N, R, A>(a, b, acc);
    }
};

CINCH_KERNEL(SUM_THREADS) encode_kernel(CINCH_PARAMETER sum_args a) {
    each_piece<sum_to_wire>(a);
}

unsigned pieces_of(const cinch_cuda_where *where, size_t count) {
    return grid((count + SUM_PIECE - 1) / SUM_PIECE, where->blocks);
}

} // namespace

cinchResult_t cinch_cuda_bf16_sum(const cinch_cuda_where *where, const cinch_cuda_terms *terms,
                                  cinchDataType_t src_dtype, cinchDataType_t dst_dtype, void *dst,
                                  size_t count, int avg_n) {
    sum_args a;
    CINCH_TRY(begin_sum(&a, terms, src_dtype, dst_dtype, dst, count, avg_n));
    if (count == 0) return cinchSuccess;
    find_even(&a, 2);
    return launch("bf16 sum", sum_kernel<bf16_wire>, pieces_of(where, count), SUM_THREADS,
                  where->stream, a);
}

cinchResult_t cinch_cuda_bf16_sum_encode(const cinch_cuda_where *where,
                                         const cinch_cuda_terms *terms, cinchDataType_t src_dtype,
                                         float *residual, size_t count, int avg_n, void *wire,
                                         cinchDataType_t dst_dtype, void *dst,
                                         unsigned long long *nonfinite) {
    sum_args a;
    CINCH_TRY(begin_sum(&a, terms, src_dtype, dst_dtype, dst, count, avg_n));
    if (count == 0) return cinchSuccess;
    a.residual = residual;
    a.wire = (unsigned char *)wire;
    a.nonfinite = nonfinite;
    find_even(&a, 2);
    return launch("bf16 encode", encode_kernel, pieces_of(where, count), SUM_THREADS, where->stream,
                  a);
}

cinchResult_t cinch_cuda_bf16_encode(const cinch_cuda_where *where, cinchDataType_t dtype,
                                     const void *src, float *residual, size_t count, void *wire,
                                     unsigned long long *nonfinite) {
    cinch_cuda_terms terms = one_plain(src);
    return cinch_cuda_bf16_sum_encode(where, &terms, dtype, residual, count, 0, wire, cinchFloat32,
                                      NULL, nonfinite);
}

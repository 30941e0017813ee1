/* SPDX-License-Identifier: Apache-2.0 */
/* The int8 codec: sums, and encodes of sums. The law is compress/int8.c.
 *
 * A block of the codec is held in registers by a team of lanes, which is a part of a warp, a warp, or
 * all threads of a CUDA block; so memory is read once. A team's lane holds rows of four elements, so
 * that the lanes side by side read and write side by side. */
#include "compress/cuda/terms.cuh"

using namespace cinch_cuda;

namespace {

/* As in compress/int8.c. */
CINCH_DEVICE int round_nearest(float x) {
    const float magic = 12582912.0f;
    return (int)cinch_float_bits(x + magic) - (int)cinch_float_bits(magic);
}

CINCH_DEVICE int round_random(float x, uint32_t random16) {
    float y = x + ((float)random16 * 0x1p-16f + 0x1p-17f);
    int q = (int)y;
    q -= (float)q > y;
    return q > 127 ? 127 : q < -127 ? -127 : q;
}

/* The largest of a team's values. */
template <int LANES> CINCH_DEVICE uint32_t team_max(uint32_t v) {
    CINCH_SHARED uint32_t part[SUM_THREADS / CINCH_WARP];
    if (LANES < 32) {
#pragma unroll
        for (int mask = LANES / 2; mask; mask /= 2) {
            uint32_t other = lane_xor(v, mask);
            v = other > v ? other : v;
        }
        return v;
    }
    v = warp_max(v);
    if (LANES == 32) return v;
    if (thread() % CINCH_WARP == 0) part[thread() / CINCH_WARP] = v;
    sync();
    for (unsigned w = 0; w < SUM_THREADS / CINCH_WARP; w++) v = part[w] > v ? part[w] : v;
    sync();
    return v;
}

/* A lane's rows of a block, N elements each. */
template <int N, int R> struct rows {
    float v[R][N];
    size_t first, stride, end;

    CINCH_DEVICE size_t at(int r) const { return first + r * stride; }
    CINCH_DEVICE bool has(int r) const { return at(r) < end; }
};

/* The sum and its residual; returns the largest magnitude. */
template <int N, int R> CINCH_DEVICE uint32_t read_rows(const sum_args &a, rows<N, R> &b) {
    uint32_t max = 0;
    add_terms<int8_wire, N, R>(b.v, a, b.first, b.stride, b.end);
#pragma unroll
    for (int r = 0; r < R; r++) {
        if (!b.has(r)) continue;
        if (a.residual) {
            float old[N];
            get_row<float, N>(old, a.residual + b.at(r));
#pragma unroll
            for (int i = 0; i < N; i++) b.v[r][i] = b.v[r][i] + old[i];
        }
#pragma unroll
        for (int i = 0; i < N; i++) {
            uint32_t bits = cinch_float_bits(b.v[r][i]) & CINCH_ABS_BITS;
            max = bits > max ? bits : max;
        }
    }
    return max;
}

/* Codes, what is left of the elements, and what a reader will see. */
template <int N, int R>
CINCH_DEVICE void write_rows(const sum_args &a, const rows<N, R> &b, size_t start, uint32_t max) {
    float inverse, scale = cinch_int8_scale(max, &inverse);
    bool finite = max < CINCH_INF_BITS;
    uint64_t place = a.index + start;
    uint64_t key = a.stochastic ? cinch_int8_block_key(a.key, place) : 0;
#pragma unroll
    for (int r = 0; r < R; r++) {
        if (!b.has(r)) continue;
        int8_t code[N];
        float left[N], seen[N];
#pragma unroll
        for (int i = 0; i < N; i++) {
            float x = b.v[r][i] * inverse;
            uint32_t in_block = (uint32_t)(b.at(r) - start) + i;
            int q = 0;
            if (finite)
                q = a.stochastic
                        ? round_random(x, cinch_int8_random16(key, (uint32_t)place + in_block))
                        : round_nearest(x);
            code[i] = (int8_t)q;
            seen[i] = (float)code[i] * scale;
            left[i] = b.v[r][i] - seen[i];
        }
        put_row<int8_t, N>(a.wire + b.at(r), code);
        if (a.residual && finite) put_row<float, N>(a.residual + b.at(r), left);
        if (a.dst) put_plain<N>(a.dst, a.dst_dtype, b.at(r), seen);
    }
}

template <int LANES, int N, int R>
CINCH_DEVICE void encode_block(const sum_args &a, size_t which, unsigned lane, bool there) {
    const size_t size = (size_t)1 << a.shift, start = which * size;
    rows<N, R> b;
    b.first = start + lane * N;
    b.stride = LANES * N;
    b.end = !there ? 0 : a.count - start < size ? a.count : start + size;
    uint32_t max = team_max<LANES>(read_rows(a, b));
    if (!there) return;
    write_rows(a, b, start, max);
    if (lane != 0) return;
    float inverse;
    put_one(a.wire + a.count + 4 * which, cinch_int8_scale(max, &inverse));
    if (max >= CINCH_INF_BITS) atomic_count(a.nonfinite, 1);
}

/* Teams of LANES, R rows of 4 a lane: blocks of LANES * R * 4 elements. A last block that is not whole
 * is one of single elements. All threads of a CUDA block make the same steps, for the teams' sake. */
template <int LANES, int R> CINCH_KERNEL(SUM_THREADS) encode_kernel(CINCH_PARAMETER sum_args a) {
    const unsigned teams = SUM_THREADS / LANES, team = thread() / LANES, lane = thread() % LANES;
    size_t whole = a.count >> a.shift;
    for (size_t at = (size_t)block() * teams; at < whole; at += (size_t)blocks() * teams)
        encode_block<LANES, 4, R>(a, at + team, lane, at + team < whole);
    if (block() == blocks() - 1 && whole << a.shift < a.count)
        encode_block<LANES, 1, 4 * R>(a, whole, lane, team == 0);
}

template <int LANES, int R>
cinchResult_t start_encode(const cinch_cuda_where *where, const sum_args &a) {
    size_t blocks = cinch_int8_blocks(a.count, (size_t)1 << a.shift), teams = SUM_THREADS / LANES;
    unsigned count = grid((blocks + teams - 1) / teams, where->blocks);
    return launch("int8 encode", encode_kernel<LANES, R>, count, SUM_THREADS, where->stream, a);
}

cinchResult_t set_block(sum_args *a, uint32_t block) {
    if (block < 32 || block > 4096 || (block & (block - 1)))
        return cinch_fail(cinchInvalidArgument,
                          "int8 blocks of %u elements; powers of two from 32 to 4096 are accepted",
                          (unsigned)block);
    while (1u << a->shift < block) a->shift++;
    return cinchSuccess;
}

} // namespace

cinchResult_t cinch_cuda_int8_sum(const cinch_cuda_where *where, uint32_t block,
                                  const cinch_cuda_terms *terms, cinchDataType_t src_dtype,
                                  cinchDataType_t dst_dtype, void *dst, size_t count, int avg_n) {
    sum_args a;
    CINCH_TRY(begin_sum(&a, terms, src_dtype, dst_dtype, dst, count, avg_n));
    CINCH_TRY(set_block(&a, block));
    if (count == 0) return cinchSuccess;
    unsigned pieces = grid((count + SUM_PIECE - 1) / SUM_PIECE, where->blocks);
    return launch("int8 sum", sum_kernel<int8_wire>, pieces, SUM_THREADS, where->stream, a);
}

cinchResult_t cinch_cuda_int8_sum_encode(const cinch_cuda_where *where,
                                         const cinch_cuda_int8 *params,
                                         const cinch_cuda_terms *terms, cinchDataType_t src_dtype,
                                         float *residual, size_t count, int avg_n, void *wire,
                                         cinchDataType_t dst_dtype, void *dst,
                                         unsigned long long *nonfinite) {
    sum_args a;
    CINCH_TRY(begin_sum(&a, terms, src_dtype, dst_dtype, dst, count, avg_n));
    CINCH_TRY(set_block(&a, params->block));
    if (count == 0) return cinchSuccess;
    a.residual = residual;
    a.wire = (unsigned char *)wire;
    a.nonfinite = nonfinite;
    a.stochastic = params->stochastic != 0;
    a.key = params->key;
    a.index = params->index;
    switch (params->block) {
    case 32:
        return start_encode<8, 1>(where, a);
    case 64:
        return start_encode<16, 1>(where, a);
    case 128:
        return start_encode<32, 1>(where, a);
    case 256:
        return start_encode<32, 2>(where, a);
    case 512:
        return start_encode<32, 4>(where, a);
    case 1024:
        return start_encode<SUM_THREADS, 1>(where, a);
    case 2048:
        return start_encode<SUM_THREADS, 2>(where, a);
    default:
        return start_encode<SUM_THREADS, 4>(where, a);
    }
}

cinchResult_t cinch_cuda_int8_encode(const cinch_cuda_where *where, const cinch_cuda_int8 *params,
                                     cinchDataType_t dtype, const void *src, float *residual,
                                     size_t count, void *wire, unsigned long long *nonfinite) {
    cinch_cuda_terms terms = one_plain(src);
    return cinch_cuda_int8_sum_encode(where, params, &terms, dtype, residual, count, 0, wire,
                                      cinchFloat32, NULL, nonfinite);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The int8 codec: sums, and encodes of sums. The law is compress/int8.c.
 *
 * A block of the codec is held in registers by a team of lanes, which is a part of a warp, a warp, or
 * all threads of a CUDA block; so memory is read once. A team's lane holds two or four rows of four elements, of
 * one block or of two, and the lanes side by side read and write side by side. */
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

/* In max[b] the largest of a team's values, for B blocks. */
template <int LANES, int B> CINCH_DEVICE void team_max(uint32_t *max) {
    CINCH_SHARED uint32_t part[B][SUM_THREADS / CINCH_WARP];
#pragma unroll
    for (int b = 0; b < B; b++) {
        if (LANES >= 32) max[b] = warp_max(max[b]);
#pragma unroll
        for (int mask = LANES < 32 ? LANES / 2 : 0; mask; mask /= 2) {
            uint32_t other = lane_xor(max[b], mask);
            max[b] = other > max[b] ? other : max[b];
        }
    }
    if (LANES <= 32) return;
    if (thread() % CINCH_WARP == 0)
        for (int b = 0; b < B; b++) part[b][thread() / CINCH_WARP] = max[b];
    sync();
#pragma unroll
    for (int b = 0; b < B; b++)
        for (unsigned w = 0; w < SUM_THREADS / CINCH_WARP; w++)
            max[b] = part[b][w] > max[b] ? part[b][w] : max[b];
    sync();
}

/* The sum and its residual. */
template <int N, int R, access A>
CINCH_DEVICE void read_block(const sum_args &a, float (*v)[N], const rows<N, R, A> &b) {
    float old[R][N] = {};
    if (a.residual) get_rows<float, N, R, A>(old, a.residual, b);
    add_terms<int8_wire, N, R, A>(v, a, b);
    if (!a.residual) return;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < N; i++) v[r][i] = v[r][i] + old[r][i];
}

template <int N, int R, access A>
CINCH_DEVICE uint32_t largest(float (*v)[N], const rows<N, R, A> &b) {
    uint32_t max = 0;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < N; i++) {
            uint32_t bits = cinch_float_bits(v[r][i]) & CINCH_ABS_BITS;
            max = b.has(r) && bits > max ? bits : max;
        }
    return max;
}

/* The codes of rows that belong to the codec's block that begins at `start`. */
template <int N, int R, access A>
CINCH_DEVICE void round_rows(const sum_args &a, int8_t (*code)[N], const float (*v)[N],
                             const rows<N, R, A> &b, size_t start, float inverse, bool finite) {
    if (!a.stochastic) {
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int i = 0; i < N; i++)
                code[r][i] = finite ? (int8_t)round_nearest(v[r][i] * inverse) : 0;
        return;
    }
    uint64_t place = a.index + start, key = cinch_int8_block_key(a.key, place);
#pragma unroll
    for (int r = 0; r < R; r++) {
        uint32_t index = (uint32_t)(place + (b.at(r) - start));
#pragma unroll
        for (int i = 0; i < N; i++)
            code[r][i] = finite ? (int8_t)round_random(v[r][i] * inverse,
                                                       cinch_int8_random16(key, index + i))
                                : 0;
    }
}

/* Codes, what is left of the elements, and what a reader will see; returns the scale. */
template <int N, int R, access A>
CINCH_DEVICE float write_block(const sum_args &a, float (*v)[N], const rows<N, R, A> &b,
                              size_t start, uint32_t max) {
    float inverse, scale = cinch_int8_scale(max, &inverse);
    bool finite = max < CINCH_INF_BITS;
    int8_t code[R][N];
    round_rows<N, R, A>(a, code, v, b, start, inverse, finite);
#pragma unroll
    for (int r = 0; r < R; r++)
        if (b.has(r)) put_row<int8_t, N, A == EVEN>(a.wire + b.at(r), code[r]);
    if (a.residual && finite)
#pragma unroll
        for (int r = 0; r < R; r++) {
            float left[N];
#pragma unroll
            for (int i = 0; i < N; i++) left[i] = v[r][i] - (float)code[r][i] * scale;
            if (b.has(r)) put_row<float, N, A == EVEN>(a.residual + b.at(r), left);
        }
    if (a.dst)
#pragma unroll
        for (int r = 0; r < R; r++) {
            float seen[N];
#pragma unroll
            for (int i = 0; i < N; i++) seen[i] = (float)code[r][i] * scale;
            if (b.has(r)) put_plain<N, A == EVEN>(a.dst, a.dst_dtype, b.at(r), seen);
        }
    return scale;
}

CINCH_DEVICE void write_scale(const sum_args &a, size_t which, float scale) {
    put_one(a.wire + a.count + 4 * which, scale);
    if (scale != scale) atomic_count(a.nonfinite, 1);
}

/* B blocks of the codec from `which` on, Q rows of four elements a lane of each; all of them is there,
 * and aligned. */
template <int LANES, int Q, int B>
CINCH_DEVICE void encode_even(const sum_args &a, size_t which, unsigned lane) {
    const size_t size = LANES * Q * 4, start = which * size;
    float v[Q * B][4];
    uint32_t max[B];
    read_block<4, Q * B, EVEN>(a, v, {start + lane * 4, LANES * 4, a.count});
#pragma unroll
    for (int k = 0; k < B; k++) max[k] = largest<4, Q, EVEN>(v + k * Q, {0, 0, 0});
    team_max<LANES, B>(max);
#pragma unroll
    for (int k = 0; k < B; k++) {
        size_t begin = start + k * size;
        rows<4, Q, EVEN> b = {begin + lane * 4, LANES * 4, a.count};
        float scale = write_block<4, Q, EVEN>(a, v + k * Q, b, begin, max[k]);
        if (lane == 0) write_scale(a, which + k, scale);
    }
}

/* One block, of any length and alignment, N elements at a time. It is read twice: for its largest
 * element, and to be written. `there`: whether it is the team's; all threads make the same steps, for
 * the teams' sake. */
template <int LANES, int N>
CINCH_DEVICE void encode_any(const sum_args &a, size_t which, unsigned lane, bool there) {
    const size_t size = (size_t)1 << a.shift, start = which * size;
    size_t end = !there ? 0 : a.count - start < size ? a.count : start + size;
    uint32_t max[1] = {0};
    float v[1][N];
#pragma unroll 1
    for (size_t at = start + lane * N; at < end; at += LANES * N) {
        rows<N, 1, ANY> b = {at, 0, end};
        read_block<N, 1, ANY>(a, v, b);
        uint32_t one = largest<N, 1, ANY>(v, b);
        max[0] = one > max[0] ? one : max[0];
    }
    team_max<LANES, 1>(max);
#pragma unroll 1
    for (size_t at = start + lane * N; at < end; at += LANES * N) {
        rows<N, 1, ANY> b = {at, 0, end};
        read_block<N, 1, ANY>(a, v, b);
        write_block<N, 1, ANY>(a, v, b, start, max[0]);
    }
    float inverse;
    if (there && lane == 0) write_scale(a, which, cinch_int8_scale(max[0], &inverse));
}

/* Teams of LANES, blocks of LANES * Q * 4 elements, B of them a team at a time. Where less than that is
 * left, or not all is aligned, one block at a time; a last block that is not whole is one of single
 * elements. */
template <int LANES, int Q, int B>
CINCH_KERNEL_OF(SUM_THREADS, LANES * Q > SUM_THREADS ? 3 : 4) encode_kernel(CINCH_PARAMETER sum_args a) {
    const unsigned teams = SUM_THREADS / LANES, team = thread() / LANES, lane = thread() % LANES;
    size_t whole = a.count >> a.shift;
    for (size_t at = (size_t)block() * teams * B; at < whole; at += (size_t)blocks() * teams * B) {
        if (a.even && whole - at >= teams * B) {
            encode_even<LANES, Q, B>(a, at + team * B, lane);
            continue;
        }
#pragma unroll 1
        for (size_t one = at; one < whole && one < at + teams * B; one += teams)
            encode_any<LANES, 4>(a, one + team, lane, one + team < whole);
    }
    if (block() == blocks() - 1 && whole << a.shift < a.count)
        encode_any<LANES, 1>(a, whole, lane, team == 0);
}

template <int LANES, int Q>
cinchResult_t start_encode(const cinch_cuda_where *where, const sum_args &a) {
    const int B = Q == 4 ? 1 : 2;
    size_t blocks = cinch_int8_blocks(a.count, (size_t)1 << a.shift), step = SUM_THREADS / LANES * B;
    unsigned count = grid((blocks + step - 1) / step, where->blocks);
    return launch("int8 encode", encode_kernel<LANES, Q, B>, count, SUM_THREADS, where->stream, a);
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
    find_even(&a, 1);
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
    find_even(&a, 1);
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

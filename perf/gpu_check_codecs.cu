/* SPDX-License-Identifier: Apache-2.0 */
/* Calls the kernels of a codec by its description. */
#include "perf/gpu_check.cuh"

extern "C" {
#include "compress/codec_kernels.h"
}

size_t gpu_wire_bytes(const gpu_codec *codec, size_t count) {
    if (codec->ratio > 0) return cinch_cuda_topk_bytes(codec->ratio, count);
    if (codec->int8.block) return count + 4 * cinch_int8_blocks(count, codec->int8.block);
    return 2 * count;
}

cinchResult_t gpu_encode(const gpu_codec *codec, const cinch_cuda_where *where,
                         cinchDataType_t dtype, const void *src, float *residual, size_t count,
                         void *wire, unsigned long long *nonfinite) {
    if (codec->ratio > 0)
        return cinch_cuda_topk_encode(where, codec->ratio, dtype, src, residual, count, wire,
                                      nonfinite);
    if (codec->int8.block)
        return cinch_cuda_int8_encode(where, &codec->int8, dtype, src, residual, count, wire,
                                      nonfinite);
    return cinch_cuda_bf16_encode(where, dtype, src, residual, count, wire, nonfinite);
}

cinchResult_t gpu_sum(const gpu_codec *codec, const cinch_cuda_where *where,
                      const cinch_cuda_terms *terms, cinchDataType_t dtype, void *dst,
                      size_t count, int avg_n, unsigned *bad) {
    if (codec->ratio > 0)
        return cinch_cuda_topk_sum(where, codec->ratio, terms, dtype, dtype, dst, count, avg_n,
                                   bad);
    if (codec->int8.block)
        return cinch_cuda_int8_sum(where, codec->int8.block, terms, dtype, dtype, dst, count,
                                   avg_n);
    return cinch_cuda_bf16_sum(where, terms, dtype, dtype, dst, count, avg_n);
}

cinchResult_t gpu_sum_encode(const gpu_codec *codec, const cinch_cuda_where *where,
                             const cinch_cuda_terms *terms, cinchDataType_t dtype,
                             float *residual, size_t count, int avg_n, void *wire, void *dst,
                             unsigned long long *nonfinite) {
    if (codec->int8.block)
        return cinch_cuda_int8_sum_encode(where, &codec->int8, terms, dtype, residual, count, avg_n,
                                          wire, dtype, dst, nonfinite);
    return cinch_cuda_bf16_sum_encode(where, terms, dtype, residual, count, avg_n, wire, dtype, dst,
                                      nonfinite);
}

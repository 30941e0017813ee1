/* SPDX-License-Identifier: Apache-2.0 */
/* What all sums of terms check before they are launched. */
#include "compress/cuda/terms.cuh"

cinchResult_t cinch_cuda::begin_sum(sum_args *a, const cinch_cuda_terms *terms,
                                    cinchDataType_t src_dtype, cinchDataType_t dst_dtype, void *dst,
                                    size_t count, int avg_n) {
    if (terms->n < 1 || terms->n > CINCH_CUDA_TERMS)
        return cinch_fail(cinchInvalidArgument, "a CUDA sum of %d terms; 1 to %d are accepted",
                          terms->n, CINCH_CUDA_TERMS);
    if (!is_codec_dtype(src_dtype) || !is_codec_dtype(dst_dtype))
        return cinch_fail(cinchInvalidArgument,
                          "a CUDA codec from datatype %d to %d; half, bfloat16 and float are "
                          "accepted",
                          (int)src_dtype, (int)dst_dtype);
    *a = sum_args();
    a->terms = *terms;
    a->count = count;
    a->src_dtype = src_dtype;
    a->dst_dtype = dst_dtype;
    a->avg = avg_n != 0;
    a->factor = avg_n ? 1.0f / (float)avg_n : 1.0f;
    a->dst = dst;
    return cinchSuccess;
}

/* A row is four elements; scales, where there are any, follow `count` codes. */
void cinch_cuda::find_even(sum_args *a, size_t wire_size) {
    size_t src = a->src_dtype == cinchFloat32 ? 16 : 8, dst = a->dst_dtype == cinchFloat32 ? 16 : 8;
    size_t wire = 4 * wire_size;
    bool odd = a->shift && a->count % 4;
    for (int j = 0; j < a->terms.n; j++)
        odd |= (uintptr_t)a->terms.at[j] %
                   (a->terms.plain[j / 64] >> j % 64 & 1 ? src : wire) != 0;
    odd |= (uintptr_t)a->dst % dst || (uintptr_t)a->wire % wire || (uintptr_t)a->residual % 16;
    a->even = !odd;
}

cinch_cuda_terms cinch_cuda::one_plain(const void *src) {
    cinch_cuda_terms terms = {};
    terms.at[0] = src;
    terms.plain[0] = 1;
    terms.n = 1;
    return terms;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The shape of a topk message, by the expressions of compress/topk.c. */
#ifndef CINCH_COMPRESS_CUDA_TOPK_CUH_
#define CINCH_COMPRESS_CUDA_TOPK_CUH_

#include "compress/cuda/terms.cuh"

namespace cinch_cuda {

#define CINCH_TOPK_DENSE 0xffffffffu /* all values, no indices */

/* What a segment of `len` elements, k of them chosen, says that it has. */
static __host__ __device__ inline uint32_t topk_entries(size_t k, size_t len) {
    return 6 * k >= 4 * len ? CINCH_TOPK_DENSE : (uint32_t)k;
}

static __host__ __device__ inline size_t topk_body(uint32_t entries, size_t len) {
    return entries == CINCH_TOPK_DENSE ? 4 * len : 6 * (size_t)entries;
}

/* select=segment: entries of a segment: of all but the last, and of the last. */
struct topk_shape {
    size_t count;
    uint32_t whole, last;

    CINCH_DEVICE size_t length(size_t segment) const {
        size_t rest = count - segment * CINCH_TOPK_SEGMENT;
        return rest < CINCH_TOPK_SEGMENT ? rest : CINCH_TOPK_SEGMENT;
    }
    CINCH_DEVICE uint32_t entries(size_t segment) const {
        return length(segment) == CINCH_TOPK_SEGMENT ? whole : last;
    }
    CINCH_DEVICE size_t offset(size_t segment) const {
        return segment * (whole == CINCH_TOPK_DENSE ? (size_t)4 * CINCH_TOPK_SEGMENT
                                                    : (size_t)6 * whole);
    }
};

/* ceil(ratio * len), for the ratio as it was written. */
size_t topk_share(double ratio, size_t len);

/* The rank in a sample at which a magnitude lies that probably k of count elements reach, 0: none is
 * worth a guess; *reached: about how many reach it. */
uint32_t topk_rank(size_t k, size_t count, double *reached);

/* InvalidArgument where ratio is none. */
cinchResult_t begin_topk(topk_shape *shape, double ratio, size_t count);

} // namespace cinch_cuda

#endif

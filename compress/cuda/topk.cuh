/* SPDX-License-Identifier: Apache-2.0 */
/* The shape of a topk message (select=segment), by the expressions of compress/topk.c. */
#ifndef CINCH_COMPRESS_CUDA_TOPK_CUH_
#define CINCH_COMPRESS_CUDA_TOPK_CUH_

#include "compress/cuda/terms.cuh"

namespace cinch_cuda {

#define CINCH_TOPK_DENSE 0xffffffffu /* all values, no indices */

/* Entries of a segment: of all but the last, and of the last. */
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

/* InvalidArgument where ratio is none. */
cinchResult_t begin_topk(topk_shape *shape, double ratio, size_t count);

} // namespace cinch_cuda

#endif

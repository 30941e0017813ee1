/* SPDX-License-Identifier: Apache-2.0 */
/* Top-k of a segment in one pass over memory; an instruction set adds only the scan of a chunk. */
#ifndef CINCH_COMPRESS_TOPK_FAST_H_
#define CINCH_COMPRESS_TOPK_FAST_H_

#include <stddef.h>
#include <stdint.h>

#define CINCH_TOPK_CHUNK                                                                           \
    1024 /* elements of one scan: 4 KiB, so that what follows finds them in L1 */

/* Over a chunk's len elements, a multiple of 64: sets the bits of mask for the elements whose
 * magnitude is above `below`, the lowest bit first. Where residual is not NULL it is copied to old,
 * and src + residual is left in it. Returns the largest magnitude. */
typedef uint32_t (*cinch_topk_scan)(const float *src, float *residual, float *old, size_t len,
                                    uint32_t below, uint64_t *mask);

/* topk_select of cinch_codec_kernels by such a scan. */
void cinch_topk_select_fast(cinch_topk_scan scan, const float *src, float *residual, size_t len,
                            size_t k, unsigned char *index, unsigned char *value,
                            uint64_t *nonfinite);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions: one pass over n sources into one or more destinations.
 *
 * The result is a fixed expression, the same bits on every CPU: sources are combined in the order
 * given, ((s0 op s1) op s2) ...; half, bfloat16 and fp8 in fp32 with one rounding at the end;
 * integers wrap; no contraction. A NaN in any source gives the canonical NaN of compress/dtype.h,
 * in max and min too; there +0 is more than -0. */
#ifndef CINCH_COMPRESS_REDUCE_H_
#define CINCH_COMPRESS_REDUCE_H_

#include <stddef.h>

#include "cinch/cinch.h"

/* Flags: store past the cache, because all the destinations, or the first, are not read again soon.
 * No effect on less than 4 KiB, nor where those destinations cannot be aligned to 32 bytes
 * together. */
#define CINCH_REDUCE_STREAM 1u
#define CINCH_REDUCE_STREAM_FIRST 2u

/* dst[0..ndst)[i] = finish(src[0][i] op ... op src[nsrc-1][i]), nsrc >= 1, ndst >= 1.
 * avg_n, for sum only: 0, or the number of ranks by which the finished sum is divided: floats
 * multiply the fp32 (double: fp64) sum by 1/n before rounding, integers divide after the sum and
 * truncate.
 * A destination is the same address as a source or overlaps none. Any alignment. */
typedef void (*cinch_reduce_fn)(void *const *dst, int ndst, const void *const *src, int nsrc,
                                size_t count, int avg_n, unsigned flags);

/* The kernel for this CPU, or NULL where dtype or op is none. op: sum, prod, max, min; avg is sum
 * with avg_n on the last hop, and a PreMulSum is sum after cinch_premul. */
cinch_reduce_fn cinch_reduce_kernel(cinchDataType_t dtype, cinchRedOp_t op);

/* The reference kernel, plain C, for tests. */
cinch_reduce_fn cinch_reduce_reference(cinchDataType_t dtype, cinchRedOp_t op);

/* dst[i] = src[i] * *scalar, rounded to dtype (half, bfloat16 and fp8 through fp32; integers wrap).
 * scalar is one element of dtype. dst may be src. */
void cinch_premul(void *dst, const void *src, cinchDataType_t dtype, size_t count,
                  const void *scalar);

/* memcpy; with CINCH_REDUCE_STREAM past the cache, from 4 KiB on. dst may be src. */
void cinch_copy(void *dst, const void *src, size_t bytes, unsigned flags);

#endif

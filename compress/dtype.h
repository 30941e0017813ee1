/* SPDX-License-Identifier: Apache-2.0 */
/* Element types: sizes, names, and the way to fp32 and back.
 *
 * Every NaN that a conversion or a reduction makes is the canonical one, on every CPU: sign clear,
 * all other bits set (0x7fffffff, 0x7fff, 0x7f), which is also the one that CUDA's conversions
 * give. */
#ifndef CINCH_COMPRESS_DTYPE_H_
#define CINCH_COMPRESS_DTYPE_H_

#include <stdbool.h>
#include <stddef.h>

#include "cinch/cinch.h"

/* Bytes of one element; 0 for a value that is no datatype. */
size_t cinch_dtype_size(cinchDataType_t dtype);

/* nccl-tests' name ("float", "half", "f8e4m3", ...); "?" for a value that is no datatype. */
const char *cinch_dtype_name(cinchDataType_t dtype);
bool cinch_dtype_parse(const char *name, cinchDataType_t *dtype);

/* Half, bfloat16, float, double and the fp8 types. */
bool cinch_dtype_is_float(cinchDataType_t dtype);

/* nccl-tests' names: sum prod max min avg mulsum (the last for operators from cinchNumOps on); "?"
 * for a negative value. */
const char *cinch_redop_name(cinchRedOp_t op);

/* dst[i] = (float)src[i], exact. dtype: half, bfloat16, float (copied, NaNs as they are), f8e4m3,
 * f8e5m2. Any alignment; the buffers do not overlap. */
void cinch_widen(float *dst, const void *src, cinchDataType_t dtype, size_t count);

/* dst[i] = src[i] rounded to nearest even; NaN stays NaN; beyond the type's range: Inf, or NaN for
 * f8e4m3, which has no Inf. Same dtypes and rules as cinch_widen. */
void cinch_narrow(void *dst, cinchDataType_t dtype, const float *src, size_t count);

#endif

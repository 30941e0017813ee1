/* SPDX-License-Identifier: Apache-2.0 */
/* The host's headers in C++, their inline expressions compiled for the device too: what a scale is, how
 * a half is rounded and where random bits come from is written once for all kernels. */
#ifndef CINCH_COMPRESS_CUDA_SHARED_CUH_
#define CINCH_COMPRESS_CUDA_SHARED_CUH_

/* Before the keyword is given a wider meaning below. */
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include "base/status.h"
#include "cinch/cinch.h"
#include "cinch/codec.h"
#define inline __host__ __device__ inline
#include "compress/codec_kernels.h"
#include "compress/convert.h"
#undef inline
}

#endif

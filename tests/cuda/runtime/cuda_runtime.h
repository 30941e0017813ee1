/* SPDX-License-Identifier: Apache-2.0 */
/* The runtime for sources of kernels and gpu_check. */
#ifndef CINCH_TESTS_CUDA_RUNTIME_CUDA_RUNTIME_H_
#define CINCH_TESTS_CUDA_RUNTIME_CUDA_RUNTIME_H_

#include <stdlib.h>
#include <string.h>

#include "tests/cuda/runtime/cuda_runtime_api.h"

#endif

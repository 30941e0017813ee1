/* SPDX-License-Identifier: Apache-2.0 */
/* The product's kernel in a build without CUDA. */
#include "perf/gpu_product.h"

#include <stddef.h>

const cinch_gpu_product_fn cinch_gpu_product = NULL;

/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for a GPU in a build without them. */
#include "compress/gpu.h"

#include <stddef.h>

const cinch_gpu *cinch_gpu_kernels(void) {
    return NULL;
}

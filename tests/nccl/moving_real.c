/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in where libcinch looks for the real NCCL: in place of coll/nccl/real.c. */
#include <stdatomic.h>
#include <stdio.h>

#include "tests/cuda/runtime/fake.h"
#include "tests/nccl/moving.h"

static int version_on[CUDA_FAKE_DEVICES]; /* 0: as the others; -1: there is none */
int moving_loads;

void moving_library(int device, int version) {
    version_on[device] = version;
}

void moving_fine(void) {
    for (int d = 0; d < CUDA_FAKE_DEVICES; d++) version_on[d] = 0;
    moving_refuse(-1, cinchSuccess, false);
    moving_inits = moving_loads = moving_aborts = 0;
}

void cinch_real_resolve(void *handle, cinch_real *real) {
    (void)handle;
    *real = moving_nccl;
}

bool cinch_real_load(const char *chosen, cinch_real *real, int *version,
                     char why[CINCH_ERROR_TEXT]) {
    int device = 0;
    (void)chosen;
    __atomic_fetch_add(&moving_loads, 1, __ATOMIC_RELAXED);
    if (cudaGetDevice(&device) != cudaSuccess) device = 0;
    if (version_on[device] < 0) {
        snprintf(why, CINCH_ERROR_TEXT, "no library on device %d", device);
        return false;
    }
    *real = moving_nccl;
    *version = version_on[device] ? version_on[device] : 22809;
    return true;
}

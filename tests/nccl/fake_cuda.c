/* SPDX-License-Identifier: Apache-2.0 */
/* An imitation of libcuda.so.1: STARTS is what cuInit returns, DEVICES how many it has. */
#pragma GCC visibility push(default)

int cuInit(unsigned flags);
int cuInit(unsigned flags) {
    (void)flags;
    return STARTS;
}

int cuDeviceGetCount(int *count);
int cuDeviceGetCount(int *count) {
    *count = DEVICES;
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <cuda_runtime.h>
int main() { int n; return cudaGetDeviceCount(&n) == cudaSuccess && n > 0 ? 0 : 77; }

/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels use of CUDA, behind names of our own, and how they are launched. tests/cuda/emulate.cuh
 * defines the same names for a host compiler: kernels use nothing of CUDA that is not listed here.
 *
 * Arithmetic on floats is +, * and / with --fmad=false, which round once each, with denormals. */
#ifndef CINCH_COMPRESS_CUDA_DEVICE_CUH_
#define CINCH_COMPRESS_CUDA_DEVICE_CUH_

#ifndef CINCH_EMULATE

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "compress/cuda/shared.cuh"

#define CINCH_DEVICE __device__ __forceinline__
#define CINCH_DEVICE_CALL __device__ __noinline__
/* 1024 threads on a multiprocessor, that is 64 registers each, hide what memory takes. */
#define CINCH_KERNEL(threads) CINCH_KERNEL_OF(threads, 1024 / threads)
#define CINCH_KERNEL_OF(threads, resident) __global__ void __launch_bounds__(threads, resident)
#define CINCH_SHARED __shared__
#define CINCH_PARAMETER const __grid_constant__ /* large ones are read where they lie */

namespace cinch_cuda {

CINCH_DEVICE unsigned thread() { return threadIdx.x; }
CINCH_DEVICE unsigned threads() { return blockDim.x; }
CINCH_DEVICE unsigned block() { return blockIdx.x; }
CINCH_DEVICE unsigned blocks() { return gridDim.x; }

/* All threads of a block; all lanes of a warp. */
CINCH_DEVICE void sync() { __syncthreads(); }
CINCH_DEVICE uint32_t lane_xor(uint32_t v, int mask) {
    return __shfl_xor_sync(0xffffffffu, v, mask);
}
CINCH_DEVICE uint32_t lane_up(uint32_t v, unsigned by) { return __shfl_up_sync(0xffffffffu, v, by); }
CINCH_DEVICE uint32_t lane_get(uint32_t v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
CINCH_DEVICE uint32_t vote(bool v) { return __ballot_sync(0xffffffffu, v); }
CINCH_DEVICE uint32_t warp_max(uint32_t v) { return __reduce_max_sync(0xffffffffu, v); }

CINCH_DEVICE uint32_t atomic_add(uint32_t *at, uint32_t v) { return atomicAdd(at, v); }
CINCH_DEVICE void atomic_count(unsigned long long *at, unsigned v) { atomicAdd(at, v); }
CINCH_DEVICE void fence() { __threadfence(); } /* what is written before it is seen before */
CINCH_DEVICE void atomic_or(uint32_t *at, uint32_t v) { atomicOr(at, v); }
CINCH_DEVICE int population(uint32_t v) { return __popc(v); }
CINCH_DEVICE int lowest(uint32_t v) { return __ffs((int)v) - 1; }

/* One access; `at` is aligned to sizeof(T). */
template <class T> CINCH_DEVICE T load(const void *at) { return *(const T *)at; }
/* What other blocks of this launch have written. */
CINCH_DEVICE uint32_t load_fresh(const uint32_t *at) { return __ldcg(at); }
template <class T> CINCH_DEVICE void store(void *at, T v) { *(T *)at = v; }

/* The conversions of the hardware are those of compress/convert.h: to nearest even, and every NaN
 * becomes 0x7fff. For the way from half nobody says which NaN comes out. */
CINCH_DEVICE float half_to_float(uint16_t v) {
    if ((v & 0x7fff) > 0x7c00) return cinch_float_of(CINCH_NAN_F32);
    return __half2float(__ushort_as_half(v));
}
CINCH_DEVICE uint16_t half_from_float(float v) { return __half_as_ushort(__float2half_rn(v)); }
CINCH_DEVICE uint16_t bfloat16_from_float(float v) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(v));
}

template <class T> struct same {
    typedef T type;
};

/* cudaLaunchKernel says what is wrong with this launch alone, and leaves errors of others be. */
template <class... P>
cinchResult_t launch(const char *name, void (*kernel)(P...), unsigned count, unsigned width,
                     cinchStream_t stream, typename same<P>::type... args) {
    void *at[] = {(void *)&args...};
    cudaError_t err =
        cudaLaunchKernel((const void *)kernel, dim3(count), dim3(width), at, 0, stream);
    if (err == cudaSuccess) return cinchSuccess;
    return cinch_fail(cinchUnhandledCudaError, "the CUDA kernel for %s could not be started: %s",
                      name, cudaGetErrorString(err));
}

} // namespace cinch_cuda

#endif /* CINCH_EMULATE */

namespace cinch_cuda {

#define CINCH_WARP 32u

/* How many blocks of a launch: one for each piece of work, at most `limit` where that is not 0. */
static inline unsigned grid(size_t pieces, unsigned limit) {
    size_t most = limit ? limit : 0x7fffffffu;
    return (unsigned)(pieces < most ? pieces : most);
}

} // namespace cinch_cuda

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions of floats. */
#include "compress/cuda/reduce.cuh"

cinchResult_t cinch_cuda::launch_floats(const cinch_cuda_where *where, cinchDataType_t dtype, int op,
                                        const reduce_args &a) {
    switch ((int)dtype) {
    case cinchFloat16:
        return launch_reduce<half>(where, op, a);
    case cinchFloat32:
        return launch_reduce<float32>(where, op, a);
    case cinchFloat64:
        return launch_reduce<float64>(where, op, a);
    case cinchBfloat16:
        return launch_reduce<bfloat16>(where, op, a);
    case cinchFloat8e4m3:
        return launch_reduce<f8e4m3>(where, op, a);
    default:
        return launch_reduce<f8e5m2>(where, op, a);
    }
}

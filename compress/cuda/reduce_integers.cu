/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions of integers. The divisor of avg has the type of the element or, for 8 bits, whose n may
 * be larger, int. */
#include "compress/cuda/reduce.cuh"

cinchResult_t cinch_cuda::launch_integers(const cinch_cuda_where *where, cinchDataType_t dtype,
                                          int op, const reduce_args &a) {
    switch ((int)dtype) {
    case cinchInt8:
        return launch_reduce<integer<int8_t, uint8_t, int>>(where, op, a);
    case cinchUint8:
        return launch_reduce<integer<uint8_t, uint8_t, int>>(where, op, a);
    case cinchInt32:
        return launch_reduce<integer<int32_t, uint32_t, int32_t>>(where, op, a);
    case cinchUint32:
        return launch_reduce<integer<uint32_t, uint32_t, uint32_t>>(where, op, a);
    case cinchInt64:
        return launch_reduce<integer<int64_t, uint64_t, int64_t>>(where, op, a);
    default:
        return launch_reduce<integer<uint64_t, uint64_t, uint64_t>>(where, op, a);
    }
}

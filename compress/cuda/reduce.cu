/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions: checks arguments and finds the kernel for a type. */
#include "compress/cuda/reduce.cuh"

using namespace cinch_cuda;

static cinchResult_t start(const cinch_cuda_where *where, cinchDataType_t dtype, int op,
                           const reduce_args &a) {
    switch ((int)dtype) {
    case cinchInt8:
    case cinchUint8:
    case cinchInt32:
    case cinchUint32:
    case cinchInt64:
    case cinchUint64:
        return launch_integers(where, dtype, op, a);
    case cinchFloat16:
    case cinchFloat32:
    case cinchFloat64:
    case cinchBfloat16:
    case cinchFloat8e4m3:
    case cinchFloat8e5m2:
        return launch_floats(where, dtype, op, a);
    default:
        return cinch_fail(cinchInvalidArgument, "%d is no datatype", (int)dtype);
    }
}

cinchResult_t cinch_cuda_reduce(const cinch_cuda_where *where, cinchDataType_t dtype,
                                cinchRedOp_t op, void *const *dst, int ndst,
                                const void *const *src, int nsrc, size_t count, int avg_n) {
    reduce_args a = {};
    if (nsrc < 1 || nsrc > CINCH_CUDA_TERMS || ndst < 1 || ndst > CINCH_CUDA_DESTINATIONS)
        return cinch_fail(cinchInvalidArgument,
                          "a CUDA reduction of %d sources into %d destinations; 1 to %d and 1 to %d "
                          "are accepted",
                          nsrc, ndst, CINCH_CUDA_TERMS, CINCH_CUDA_DESTINATIONS);
    if ((unsigned)op > (unsigned)cinchMin)
        return cinch_fail(cinchInvalidArgument,
                          "a CUDA reduction by operator %d; sum, prod, max and min are accepted",
                          (int)op);
    if (count == 0) return cinchSuccess;
    for (int s = 0; s < nsrc; s++) a.src[s] = src[s];
    for (int d = 0; d < ndst; d++) a.dst[d] = dst[d];
    a.count = count;
    a.nsrc = nsrc;
    a.ndst = ndst;
    a.avg_n = op == cinchSum ? avg_n : 0;
    return start(where, dtype, op, a);
}

cinchResult_t cinch_cuda_premul(const cinch_cuda_where *where, cinchDataType_t dtype, void *dst,
                                const void *src, size_t count, const void *scalar) {
    reduce_args a = {};
    if (count == 0) return cinchSuccess;
    a.src[0] = src;
    a.dst[0] = dst;
    a.scalar = scalar;
    a.count = count;
    a.nsrc = a.ndst = 1;
    return start(where, dtype, cinchNumOps, a);
}

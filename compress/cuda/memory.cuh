/* SPDX-License-Identifier: Apache-2.0 */
/* Elements in memory of any alignment: bytes are moved in one access where the address allows it, else
 * in accesses of four, two or one. An address' alignment is the same for all threads, since they are
 * multiples of the access apart, so these branches do not diverge. But a branch between two loads makes
 * the second wait for the first; so whoever launches finds out whether all is aligned, and the kernel
 * then reads row after row with nothing between. */
#ifndef CINCH_COMPRESS_CUDA_MEMORY_CUH_
#define CINCH_COMPRESS_CUDA_MEMORY_CUH_

#include "compress/cuda/device.cuh"

namespace cinch_cuda {

/* So many bytes as one access moves, which registers hold. */
template <int BYTES> struct alignas(BYTES) bytes {
    uint8_t at[BYTES];
};
template <> struct alignas(16) bytes<16> {
    uint32_t at[4];
};
template <> struct alignas(8) bytes<8> {
    uint32_t at[2];
};
template <> struct alignas(4) bytes<4> {
    uint32_t at[1];
};
template <> struct alignas(2) bytes<2> {
    uint16_t at[1];
};

/* BYTES bytes in accesses of STEP. */
template <int BYTES, int STEP> CINCH_DEVICE bytes<BYTES> get_by(const void *from) {
    bytes<BYTES> v;
    bytes<STEP> part;
#pragma unroll
    for (int i = 0; i < BYTES; i += STEP) {
        part = load<bytes<STEP>>((const char *)from + i);
        memcpy((char *)&v + i, &part, STEP);
    }
    return v;
}

template <int BYTES, int STEP> CINCH_DEVICE void put_by(void *to, const bytes<BYTES> &v) {
    bytes<STEP> part;
#pragma unroll
    for (int i = 0; i < BYTES; i += STEP) {
        memcpy(&part, (const char *)&v + i, STEP);
        store((char *)to + i, part);
    }
}

/* Rare, and much code: calls, that it is there once. */
template <int BYTES> CINCH_DEVICE_CALL bytes<BYTES> get_misaligned(const void *from) {
    uintptr_t at = (uintptr_t)from;
    if (BYTES > 4 && at % 4 == 0) return get_by<BYTES, BYTES < 4 ? BYTES : 4>(from);
    if (BYTES > 2 && at % 2 == 0) return get_by<BYTES, BYTES < 2 ? BYTES : 2>(from);
    return get_by<BYTES, 1>(from);
}

template <int BYTES> CINCH_DEVICE_CALL void put_misaligned(void *to, bytes<BYTES> v) {
    uintptr_t at = (uintptr_t)to;
    if (BYTES > 4 && at % 4 == 0)
        put_by<BYTES, BYTES < 4 ? BYTES : 4>(to, v);
    else if (BYTES > 2 && at % 2 == 0)
        put_by<BYTES, BYTES < 2 ? BYTES : 2>(to, v);
    else
        put_by<BYTES, 1>(to, v);
}

template <int BYTES> CINCH_DEVICE bytes<BYTES> get(const void *from) {
    if ((uintptr_t)from % BYTES == 0) return get_by<BYTES, BYTES>(from);
    return get_misaligned<BYTES>(from);
}

template <int BYTES> CINCH_DEVICE void put(void *to, const bytes<BYTES> &v) {
    if ((uintptr_t)to % BYTES == 0)
        put_by<BYTES, BYTES>(to, v);
    else
        put_misaligned<BYTES>(to, v);
}

/* One element of any alignment. */
template <class T> CINCH_DEVICE T get_one(const void *from) {
    bytes<sizeof(T)> raw = get<sizeof(T)>(from);
    T v;
    memcpy(&v, &raw, sizeof v);
    return v;
}

template <class T> CINCH_DEVICE void put_one(void *to, T v) {
    bytes<sizeof(T)> raw;
    memcpy(&raw, &v, sizeof v);
    put<sizeof(T)>(to, raw);
}

/* N elements in a row, as bytes of one access. ALIGNED: the caller knows that one does. */
template <class T, int N, bool ALIGNED = false> CINCH_DEVICE void get_row(T *out, const void *from) {
    const int size = N * (int)sizeof(T);
    bytes<size> raw = ALIGNED ? get_by<size, size>(from) : get<size>(from);
    memcpy(out, &raw, sizeof raw);
}

template <class T, int N, bool ALIGNED = false> CINCH_DEVICE void put_row(void *to, const T *in) {
    const int size = N * (int)sizeof(T);
    bytes<size> raw;
    memcpy(&raw, in, sizeof raw);
    if (ALIGNED)
        put_by<size, size>(to, raw);
    else
        put<size>(to, raw);
}

} // namespace cinch_cuda

#endif

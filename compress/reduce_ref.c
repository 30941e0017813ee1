/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions in plain C: what every other kernel must equal bit by bit, and what CPUs without one
 * use. */
#include "compress/convert.h"
#include "compress/kernels.h"

enum { OP_SUM, OP_PROD, OP_MAX, OP_MIN };
enum { TILE = 256 }; /* elements whose accumulators are kept while the sources pass by */

/* Sum and product wrap: they are made in unsigned. */
#define INTEGER_OP(name, S, U)                                                                     \
    static inline S op_##name(S a, S b, int op) {                                                  \
        switch (op) {                                                                              \
        case OP_SUM:                                                                               \
            return (S)(U)((U)a + (U)b);                                                            \
        case OP_PROD:                                                                              \
            return (S)(U)((U)a * (U)b);                                                            \
        case OP_MAX:                                                                               \
            return a > b ? a : b;                                                                  \
        default:                                                                                   \
            return a < b ? a : b;                                                                  \
        }                                                                                          \
    }
INTEGER_OP(int8, int8_t, uint8_t)
INTEGER_OP(uint8, uint8_t, uint8_t)
INTEGER_OP(int32, int32_t, uint32_t)
INTEGER_OP(uint32, uint32_t, uint32_t)
INTEGER_OP(int64, int64_t, uint64_t)
INTEGER_OP(uint64, uint64_t, uint64_t)

/* NaN wins in max and min, and +0 is more than -0: equal numbers differ at most in a zero's sign.
 * Where the caller has denormals taken for zeros, they equal 0 here, and become zeros. */
#define FLOAT_OP(name, F, U, nan)                                                                  \
    static inline F op_##name(F a, F b, int op) {                                                  \
        U x, y;                                                                                    \
        if (op == OP_SUM) return a + b;                                                            \
        if (op == OP_PROD) return a * b;                                                           \
        memcpy(&x, &a, sizeof x);                                                                  \
        memcpy(&y, &b, sizeof y);                                                                  \
        if (a == 0) x &= ~(U)nan;                                                                  \
        if (b == 0) y &= ~(U)nan;                                                                  \
        if (a != a || b != b)                                                                      \
            x = nan;                                                                               \
        else if (a == b)                                                                           \
            x = op == OP_MAX ? x & y : x | y;                                                      \
        else if ((op == OP_MAX) == (a < b))                                                        \
            x = y;                                                                                 \
        memcpy(&a, &x, sizeof a);                                                                  \
        return a;                                                                                  \
    }                                                                                              \
    static inline F canon_##name(F a) {                                                            \
        U x = nan;                                                                                 \
        if (a != a) memcpy(&a, &x, sizeof a);                                                      \
        return a;                                                                                  \
    }
FLOAT_OP(f32, float, uint32_t, CINCH_NAN_F32)
FLOAT_OP(f64, double, uint64_t, CINCH_NAN_F64)

#define KEEP(v) (v)

#define KERNEL(name, op_name, op)                                                                  \
    static void op_name##_##name(void *const *dst, int ndst, const void *const *src, int nsrc,     \
                                 size_t count, int avg_n, unsigned flags) {                        \
        (void)flags;                                                                               \
        run_##name(dst, ndst, src, nsrc, count, op == OP_SUM ? avg_n : 0, op);                     \
    }

/* name: of the functions; T: an element in memory; A: the type of the arithmetic, whose operations
 * have the suffix A_OP; WIDEN, NARROW: from T to A and back; S, SCALE, APPLY: the type of what avg
 * does at the end, how it is made from n, and what it does. */
#define KERNELS(name, T, A, A_OP, WIDEN, NARROW, S, SCALE, APPLY)                                  \
    static inline void run_##name(void *const *dst, int ndst, const void *const *src, int nsrc,    \
                                  size_t count, int avg_n, int op) {                               \
        A acc[TILE];                                                                               \
        T part[TILE];                                                                              \
        S scale = avg_n ? SCALE(avg_n) : (S)1;                                                     \
        for (size_t at = 0; at < count; at += TILE) {                                              \
            size_t n = count - at < TILE ? count - at : TILE;                                      \
            memcpy(part, (const char *)src[0] + at * sizeof(T), n * sizeof(T));                    \
            for (size_t i = 0; i < n; i++) acc[i] = WIDEN(part[i]);                                \
            for (int s = 1; s < nsrc; s++) {                                                       \
                memcpy(part, (const char *)src[s] + at * sizeof(T), n * sizeof(T));                \
                for (size_t i = 0; i < n; i++) acc[i] = op_##A_OP(acc[i], WIDEN(part[i]), op);     \
            }                                                                                      \
            if (avg_n)                                                                             \
                for (size_t i = 0; i < n; i++) acc[i] = (A)(acc[i] APPLY scale);                   \
            for (size_t i = 0; i < n; i++) part[i] = NARROW(acc[i]);                               \
            for (int d = 0; d < ndst; d++)                                                         \
                memcpy((char *)dst[d] + at * sizeof(T), part, n * sizeof(T));                      \
        }                                                                                          \
    }                                                                                              \
    KERNEL(name, sum, OP_SUM)                                                                      \
    KERNEL(name, prod, OP_PROD)                                                                    \
    KERNEL(name, max, OP_MAX)                                                                      \
    KERNEL(name, min, OP_MIN)                                                                      \
    static void premul_##name(void *dst, const void *src, size_t count, const void *scalar) {      \
        T v;                                                                                       \
        memcpy(&v, scalar, sizeof v);                                                              \
        A factor = WIDEN(v);                                                                       \
        for (size_t i = 0; i < count; i++) {                                                       \
            memcpy(&v, (const char *)src + i * sizeof(T), sizeof v);                               \
            v = NARROW(op_##A_OP(WIDEN(v), factor, OP_PROD));                                      \
            memcpy((char *)dst + i * sizeof(T), &v, sizeof v);                                     \
        }                                                                                          \
    }

/* The divisor has the type of the element or, for int8, whose n may be larger, int. */
#define INTEGER(name, T, S) KERNELS(name, T, T, name, KEEP, KEEP, S, (S), /)
#define FLOAT(name, T, A, A_OP, WIDEN, NARROW)                                                     \
    KERNELS(name, T, A, A_OP, WIDEN, NARROW, A, (A)1 / (A), *)

INTEGER(int8, int8_t, int)
INTEGER(uint8, uint8_t, int)
INTEGER(int32, int32_t, int32_t)
INTEGER(uint32, uint32_t, uint32_t)
INTEGER(int64, int64_t, int64_t)
INTEGER(uint64, uint64_t, uint64_t)
FLOAT(half, uint16_t, float, f32, cinch_half_to_float, cinch_half_from_float)
FLOAT(float, float, float, f32, KEEP, canon_f32)
FLOAT(double, double, double, f64, KEEP, canon_f64)
FLOAT(bfloat16, uint16_t, float, f32, cinch_bfloat16_to_float, cinch_bfloat16_from_float)
FLOAT(f8e4m3, uint8_t, float, f32, cinch_f8e4m3_to_float, cinch_f8e4m3_from_float)
FLOAT(f8e5m2, uint8_t, float, f32, cinch_f8e5m2_to_float, cinch_f8e5m2_from_float)

static void copy(void *dst, const void *src, size_t bytes) {
    memcpy(dst, src, bytes);
}

#define REDUCE_ROW(type, name) [type] = {sum_##name, prod_##name, max_##name, min_##name},
#define PREMUL_ROW(type, name) [type] = premul_##name,

const cinch_kernels cinch_kernels_reference = {
    .widen = cinch_widen_reference,
    .narrow = cinch_narrow_reference,
    .reduce = {CINCH_KERNEL_TYPES(REDUCE_ROW)},
    .premul = {CINCH_KERNEL_TYPES(PREMUL_ROW)},
    .copy_stream = copy,
};

/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products for the model that `cinch train` trains. */
#ifndef CINCH_PERF_MODEL_GEMM_H_
#define CINCH_PERF_MODEL_GEMM_H_

#include <stdbool.h>
#include <stddef.h>

/* float; the tests build the model a second time with double, to check gradients tightly. */
#ifndef CINCH_MODEL_REAL
#define CINCH_MODEL_REAL float
#define CINCH_MODEL_REAL_IS_FLOAT 1
#endif
typedef CINCH_MODEL_REAL cinch_real;

/* A matrix, or its transpose, or a part of one: element (i, j) lies at at[i * row + j * col]. */
typedef struct cinch_matrix {
    const cinch_real *at;
    ptrdiff_t row;
    ptrdiff_t col;
} cinch_matrix;

/* Elements of scratch that cinch_gemm wants, aligned to 64 bytes. */
size_t cinch_gemm_scratch(void);

/* c[i * ldc + j] (+)= sum over p of a(i, p) * b(p, j), for i < m, j < n, p < k. c overlaps neither
 * a nor b. The order of additions depends on k and the CPU's kernel alone. */
void cinch_gemm(cinch_real *c, ptrdiff_t ldc, cinch_matrix a, cinch_matrix b, int m, int n, int k,
                bool accumulate, cinch_real *scratch);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* A blocked matrix product: pack panels of both factors, then multiply tiles in registers. */
#include "perf/model_gemm.h"

#include <string.h>

#if defined(CINCH_MODEL_REAL_IS_FLOAT) && defined(__x86_64__)
#include <immintrin.h>
#define HAVE_AVX2_TILE 1
#endif

/* A tile of TILE_M x TILE_N fills twelve of AVX2's sixteen registers; a panel of B stays in the L2
 * cache, a panel of A in half of it. */
enum { TILE_M = 6, TILE_N = 16, BLOCK_M = 96, BLOCK_N = 256, BLOCK_K = 256 };

/* Adds the product of a packed k x TILE_M panel and a packed k x TILE_N panel to a tile of C. */
typedef void (*tile_function)(int k, const cinch_real *a, const cinch_real *b, cinch_real *c,
                              ptrdiff_t ldc);

static void tile_plain(int k, const cinch_real *a, const cinch_real *b, cinch_real *c,
                       ptrdiff_t ldc) {
    cinch_real sum[TILE_M][TILE_N] = {{0}};
    for (int p = 0; p < k; p++, a += TILE_M, b += TILE_N) {
        for (int i = 0; i < TILE_M; i++) {
            for (int j = 0; j < TILE_N; j++) sum[i][j] += a[i] * b[j];
        }
    }
    for (int i = 0; i < TILE_M; i++) {
        for (int j = 0; j < TILE_N; j++) c[i * ldc + j] += sum[i][j];
    }
}

#ifdef HAVE_AVX2_TILE
__attribute__((target("avx2,fma"))) static void tile_avx2(int k, const float *a, const float *b,
                                                          float *c, ptrdiff_t ldc) {
    __m256 sum[TILE_M][2];
#pragma GCC unroll 6
    for (int i = 0; i < TILE_M; i++) sum[i][0] = sum[i][1] = _mm256_setzero_ps();
    for (int p = 0; p < k; p++, a += TILE_M, b += TILE_N) {
        const __m256 left = _mm256_load_ps(b), right = _mm256_load_ps(b + 8);
#pragma GCC unroll 6
        for (int i = 0; i < TILE_M; i++) {
            const __m256 x = _mm256_broadcast_ss(a + i);
            sum[i][0] = _mm256_fmadd_ps(x, left, sum[i][0]);
            sum[i][1] = _mm256_fmadd_ps(x, right, sum[i][1]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < TILE_M; i++, c += ldc) {
        _mm256_storeu_ps(c, _mm256_add_ps(_mm256_loadu_ps(c), sum[i][0]));
        _mm256_storeu_ps(c + 8, _mm256_add_ps(_mm256_loadu_ps(c + 8), sum[i][1]));
    }
}
#endif

static tile_function pick_tile(void) {
#ifdef HAVE_AVX2_TILE
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return tile_avx2;
#endif
    return tile_plain;
}

/* Copies `lines` x k elements into panels of `tile` lines, filled up with zeros: within a panel the
 * lines of one p stand side by side. `line` and `step` are the strides from line to line and from p
 * to p. */
static void pack(cinch_real *to, const cinch_real *from, ptrdiff_t line, ptrdiff_t step, int lines,
                 int k, int tile) {
    for (int first = 0; first < lines; first += tile, to += (ptrdiff_t)tile * k) {
        const int here = lines - first < tile ? lines - first : tile;
        const cinch_real *source = from + first * line;
        if (here < tile) memset(to, 0, (size_t)tile * (size_t)k * sizeof *to);
        if (line == 1) {
            for (int p = 0; p < k; p++) {
                for (int i = 0; i < here; i++) to[p * tile + i] = source[p * step + i];
            }
        } else {
            for (int i = 0; i < here; i++) {
                for (int p = 0; p < k; p++) to[p * tile + i] = source[i * line + p * step];
            }
        }
    }
}

/* One block of C, from packed panels. Tiles that stick out go through a buffer. */
static void block(tile_function tile, cinch_real *c, ptrdiff_t ldc, const cinch_real *a,
                  const cinch_real *b, int m, int n, int k) {
    for (int j = 0; j < n; j += TILE_N) {
        const cinch_real *right = b + (ptrdiff_t)j * k;
        for (int i = 0; i < m; i += TILE_M) {
            const cinch_real *left = a + (ptrdiff_t)i * k;
            cinch_real *at = c + i * ldc + j;
            if (m - i >= TILE_M && n - j >= TILE_N) {
                tile(k, left, right, at, ldc);
                continue;
            }
            cinch_real edge[TILE_M * TILE_N] = {0};
            tile(k, left, right, edge, TILE_N);
            for (int y = 0; y < TILE_M && i + y < m; y++) {
                for (int x = 0; x < TILE_N && j + x < n; x++) {
                    at[y * ldc + x] += edge[y * TILE_N + x];
                }
            }
        }
    }
}

size_t cinch_gemm_scratch(void) {
    return (size_t)BLOCK_K * (BLOCK_M + BLOCK_N);
}

void cinch_gemm(cinch_real *c, ptrdiff_t ldc, cinch_matrix a, cinch_matrix b, int m, int n, int k,
                bool accumulate, cinch_real *scratch) {
    const tile_function tile = pick_tile();
    cinch_real *const packed_b = scratch;
    cinch_real *const packed_a = scratch + (ptrdiff_t)BLOCK_K * BLOCK_N;
    if (!accumulate) {
        for (int i = 0; i < m; i++) memset(c + i * ldc, 0, (size_t)n * sizeof *c);
    }
    for (int j = 0; j < n; j += BLOCK_N) {
        const int wide = n - j < BLOCK_N ? n - j : BLOCK_N;
        for (int p = 0; p < k; p += BLOCK_K) {
            const int deep = k - p < BLOCK_K ? k - p : BLOCK_K;
            pack(packed_b, b.at + p * b.row + j * b.col, b.col, b.row, wide, deep, TILE_N);
            for (int i = 0; i < m; i += BLOCK_M) {
                const int high = m - i < BLOCK_M ? m - i : BLOCK_M;
                pack(packed_a, a.at + i * a.row + p * a.col, a.row, a.col, high, deep, TILE_M);
                block(tile, c + i * ldc + j, ldc, packed_a, packed_b, high, wide, deep);
            }
        }
    }
}

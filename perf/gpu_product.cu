/* SPDX-License-Identifier: Apache-2.0 */
/* A plain tiled matrix product in fp32, which keeps a GPU's multiprocessors busy beside a collective. */
#include "compress/cuda/device.cuh"

extern "C" {
#include "perf/gpu_product.h"
}

using namespace cinch_cuda;

namespace {

enum { TILE = 64, DEPTH = 16, GEMM_THREADS = 256 };

struct gemm_args {
    const float *a, *b;
    float *c;
    int n; /* a multiple of TILE */
};

/* c = a * b; a block makes a tile of 64 * 64, a thread 4 * 4 of it. */
CINCH_KERNEL(GEMM_THREADS) gemm_kernel(CINCH_PARAMETER gemm_args g) {
    CINCH_SHARED float left[DEPTH][TILE + 4], right[DEPTH][TILE + 4];
    int tiles = g.n / TILE, row = (int)block() / tiles * TILE, column = (int)block() % tiles * TILE;
    int x = (int)thread() % 16 * 4, y = (int)thread() / 16 * 4;
    float sum[4][4] = {};
    for (int k = 0; k < g.n; k += DEPTH) {
        for (int e = (int)thread(); e < DEPTH * TILE; e += GEMM_THREADS) {
            left[e % DEPTH][e / DEPTH] = g.a[(size_t)(row + e / DEPTH) * g.n + k + e % DEPTH];
            right[e / TILE][e % TILE] = g.b[(size_t)(k + e / TILE) * g.n + column + e % TILE];
        }
        sync();
        for (int d = 0; d < DEPTH; d++)
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) sum[i][j] += left[d][y + i] * right[d][x + j];
        sync();
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) g.c[(size_t)(row + y + i) * g.n + column + x + j] = sum[i][j];
}

cinchResult_t product(cinchStream_t stream, const float *a, const float *b, float *c, int n) {
    gemm_args g = {a, b, c, n};
    return launch("the product", gemm_kernel, (unsigned)(n / TILE * (n / TILE)), GEMM_THREADS, stream,
                  g);
}

} // namespace

extern "C" const cinch_gpu_product_fn cinch_gpu_product = product;

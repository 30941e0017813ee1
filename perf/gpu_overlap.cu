/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_overlap: how much of an all-reduce on device memory a matrix product hides that runs beside it.
 *
 * Ranks are threads of this process, all on the first GPU; the product is a plain tiled one in fp32, of
 * 1024 blocks. The all-reduce is sized to three quarters of the product's time. Both run alone, then
 * together: hidden is (t_comm + t_gemm - t_both) / t_comm, slowdown is what the product takes longer.
 *
 * Status 0: all is well; 1: something is wrong or too slow; 2: bad usage; 77: there is no GPU. */
#include <getopt.h>
#include <pthread.h>
#include <string.h>

#include <algorithm>

#include "compress/cuda/device.cuh"
#include "perf/gpu_check.cuh"

extern "C" {
#include "perf/json.h"
}

using namespace cinch_cuda;

namespace {

enum { RANKS_MAX = 8, TILE = 64, DEPTH = 16, GEMM_THREADS = 256, SAMPLES = 7, TRIES = 6 };
const double HIDDEN_TARGET = 0.90, SLOWDOWN_TARGET = 0.10;

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

/* Everything that a round of the measurement needs. */
struct bench {
    int ranks, n, repeats; /* repeats: products of a round */
    size_t count, room;    /* elements of the all-reduce, and that the buffers have */
    float *data[RANKS_MAX], *a, *b, *c;
    cinchComm_t comm[RANKS_MAX];
    cudaStream_t stream[RANKS_MAX], compute;
    cudaEvent_t begin, end[RANKS_MAX], computed;
    cinchUniqueId id;
    pthread_barrier_t turn;
    bool quit;
};

struct rank_arg {
    bench *b;
    int rank;
};

void all_reduce(bench *b, int r) {
    GPU_MUST(cudaStreamWaitEvent(b->stream[r], b->begin, 0));
    if (b->count)
        CINCH_MUST(cinchAllReduce(b->data[r], b->data[r], b->count, cinchFloat32, cinchSum,
                                  b->comm[r], (cinchStream_t)b->stream[r]));
    GPU_MUST(cudaEventRecord(b->end[r], b->stream[r]));
}

void *rank_main(void *p) {
    rank_arg *me = (rank_arg *)p;
    bench *b = me->b;
    GPU_MUST(cudaSetDevice(0));
    CINCH_MUST(cinchCommInitRank(&b->comm[me->rank], b->ranks, b->id, me->rank));
    for (;;) {
        pthread_barrier_wait(&b->turn);
        if (b->quit) break;
        all_reduce(b, me->rank);
        pthread_barrier_wait(&b->turn);
    }
    CINCH_MUST(cinchCommDestroy(b->comm[me->rank]));
    return NULL;
}

void queue_products(bench *b) {
    unsigned blocks = (unsigned)(b->n / TILE * (b->n / TILE));
    gemm_args g = {b->a, b->b, b->c, b->n};
    for (int i = 0; i < b->repeats; i++)
        CINCH_MUST(launch("the product", gemm_kernel, blocks, GEMM_THREADS,
                          (cinchStream_t)b->compute, g));
}

struct times {
    double all, compute, comm; /* ms from the common beginning to each end */
};

/* One round: the all-reduce of `count` elements, 0: none, and the products, if wanted. */
times round_once(bench *b, size_t count, bool products) {
    times t = {};
    float ms;
    b->count = count;
    GPU_MUST(cudaEventRecord(b->begin, b->compute));
    pthread_barrier_wait(&b->turn);
    if (products) queue_products(b);
    GPU_MUST(cudaEventRecord(b->computed, b->compute));
    pthread_barrier_wait(&b->turn);
    GPU_MUST(cudaEventSynchronize(b->computed));
    GPU_MUST(cudaEventElapsedTime(&ms, b->begin, b->computed));
    t.compute = ms;
    for (int r = 0; r < b->ranks; r++) {
        GPU_MUST(cudaEventSynchronize(b->end[r]));
        GPU_MUST(cudaEventElapsedTime(&ms, b->begin, b->end[r]));
        t.comm = std::max(t.comm, (double)ms);
    }
    t.all = std::max(t.comm, t.compute);
    return t;
}

/* The median of each time, after one round that is not counted. */
times measure(bench *b, size_t count, bool products) {
    times seen[SAMPLES];
    round_once(b, count, products);
    for (times &t : seen) t = round_once(b, count, products);
    double v[3][SAMPLES];
    for (int i = 0; i < SAMPLES; i++) {
        v[0][i] = seen[i].all;
        v[1][i] = seen[i].compute;
        v[2][i] = seen[i].comm;
    }
    for (double *one : v) std::sort(one, one + SAMPLES);
    return {v[0][SAMPLES / 2], v[1][SAMPLES / 2], v[2][SAMPLES / 2]};
}

void make(bench *b, int ranks, int n, size_t room, pthread_t *thread, rank_arg *arg) {
    size_t matrix = sizeof(float) * (size_t)n * (size_t)n;
    b->ranks = ranks;
    b->n = n;
    b->repeats = 1;
    b->room = room;
    GPU_MUST(cudaSetDevice(0));
    for (float **p : {&b->a, &b->b, &b->c}) {
        GPU_MUST(cudaMalloc((void **)p, matrix));
        GPU_MUST(cudaMemset(*p, 0, matrix));
    }
    GPU_MUST(cudaStreamCreateWithFlags(&b->compute, cudaStreamNonBlocking));
    GPU_MUST(cudaEventCreate(&b->begin));
    GPU_MUST(cudaEventCreate(&b->computed));
    CINCH_MUST(cinchGetUniqueId(&b->id));
    pthread_barrier_init(&b->turn, NULL, (unsigned)ranks + 1);
    for (int r = 0; r < ranks; r++) {
        GPU_MUST(cudaMalloc((void **)&b->data[r], room * sizeof(float)));
        GPU_MUST(cudaMemset(b->data[r], 0, room * sizeof(float)));
        GPU_MUST(cudaStreamCreateWithFlags(&b->stream[r], cudaStreamNonBlocking));
        GPU_MUST(cudaEventCreate(&b->end[r]));
    }
    GPU_MUST(cudaDeviceSynchronize());
    for (int r = 0; r < ranks; r++) {
        arg[r] = {b, r};
        if (pthread_create(&thread[r], NULL, rank_main, &arg[r])) gpu_must(1, "pthread_create", "");
    }
}

void release(bench *b, pthread_t *thread) {
    b->quit = true;
    pthread_barrier_wait(&b->turn);
    for (int r = 0; r < b->ranks; r++) pthread_join(thread[r], NULL);
    for (int r = 0; r < b->ranks; r++) {
        cudaFree(b->data[r]);
        cudaStreamDestroy(b->stream[r]);
        cudaEventDestroy(b->end[r]);
    }
    cudaFree(b->a), cudaFree(b->b), cudaFree(b->c);
    cudaEventDestroy(b->begin), cudaEventDestroy(b->computed);
    cudaStreamDestroy(b->compute);
    pthread_barrier_destroy(&b->turn);
}

/* What the numbers mean is worth something only where product and all-reduce are right while they run
 * together: a of ones times b of twos, and a sum of ones. */
bool both_are_right(bench *b, size_t count) {
    size_t n = (size_t)b->n, matrix = n * n;
    float *host = (float *)malloc(sizeof(float) * std::max(matrix, count));
    if (!host) gpu_must(1, "malloc", "no memory");
    auto fill = [&](float *to, float v, size_t elements) {
        std::fill(host, host + elements, v);
        GPU_MUST(cudaMemcpy(to, host, sizeof(float) * elements, cudaMemcpyHostToDevice));
    };
    auto holds = [&](const float *from, float v, size_t elements) {
        GPU_MUST(cudaMemcpy(host, from, sizeof(float) * elements, cudaMemcpyDeviceToHost));
        return std::count(host, host + elements, v) == (ptrdiff_t)elements;
    };
    fill(b->a, 1, matrix);
    fill(b->b, 2, matrix);
    for (int r = 0; r < b->ranks; r++) fill(b->data[r], 1, count);
    round_once(b, count, true);
    bool right = holds(b->c, 2.0f * (float)n, matrix);
    if (!right) fprintf(stderr, "gpu_overlap: the product is wrong\n");
    for (int r = 0; r < b->ranks; r++)
        if (!holds(b->data[r], (float)b->ranks, count)) {
            fprintf(stderr, "gpu_overlap: rank %d's sum is wrong\n", r);
            right = false;
        }
    free(host);
    return right;
}

struct outcome {
    bool right, sized; /* sized: the all-reduce takes 0.5 to 1.0 of the product's time */
    size_t bytes;
    double gemm, comm, both, gemm_beside, hidden, slowdown;
};

/* A product of at least 20 ms, and an all-reduce of three quarters of that. */
void size_both(bench *b, outcome *o) {
    o->gemm = measure(b, 0, true).compute;
    b->repeats = std::max(1, (int)(20 / o->gemm + 1));
    o->gemm = measure(b, 0, true).compute;
    size_t count = std::min(b->room, (size_t)4 << 20);
    for (int i = 0; i < TRIES && !o->sized; i++) {
        o->comm = measure(b, count, false).comm;
        o->bytes = count * sizeof(float);
        o->sized = o->comm >= 0.5 * o->gemm && o->comm <= o->gemm;
        if (o->sized) break;
        if (count == b->room && o->comm < o->gemm) { /* too fast for the room: a shorter product */
            if (b->repeats == 1) break;
            b->repeats = std::max(1, (int)(b->repeats * o->comm / (0.75 * o->gemm)));
            o->gemm = measure(b, 0, true).compute;
            continue;
        }
        double want = (double)count * 0.75 * o->gemm / o->comm;
        count = std::max((size_t)1024, std::min(b->room, (size_t)want / 1024 * 1024));
    }
}

void judge(bench *b, outcome *o) {
    size_both(b, o);
    times t = measure(b, o->bytes / sizeof(float), true);
    o->both = t.all;
    o->gemm_beside = t.compute;
    o->hidden = (o->comm + o->gemm - o->both) / o->comm;
    o->slowdown = o->gemm_beside / o->gemm - 1;
}

bool passes(const outcome &o) {
    return o.right && o.sized && o.hidden >= HIDDEN_TARGET && o.slowdown <= SLOWDOWN_TARGET;
}

bool write_json(const char *path, const bench &b, const outcome &o) {
    FILE *file = fopen(path, "w");
    cinch_json j = {};
    if (!file) {
        fprintf(stderr, "gpu_overlap: %s cannot be written\n", path);
        return false;
    }
    cinch_json_begin(&j, file);
    cinch_json_count(&j, "ranks", (uint64_t)b.ranks);
    cinch_json_count(&j, "bytes", o.bytes);
    cinch_json_number(&j, "gemm_ms", o.gemm);
    cinch_json_number(&j, "comm_ms", o.comm);
    cinch_json_number(&j, "both_ms", o.both);
    cinch_json_number(&j, "gemm_beside_ms", o.gemm_beside);
    cinch_json_number(&j, "hidden", o.hidden);
    cinch_json_number(&j, "hidden_target", HIDDEN_TARGET);
    cinch_json_number(&j, "slowdown", o.slowdown);
    cinch_json_number(&j, "slowdown_target", SLOWDOWN_TARGET);
    cinch_json_bool(&j, "right", o.right);
    cinch_json_bool(&j, "pass", passes(o));
    bool written = cinch_json_end(&j);
    return fclose(file) == 0 && written;
}

int usage() {
    fprintf(stderr, "usage: gpu_overlap [--small] [--ranks N] [--json FILE]\n"
                    "--small: only that all is right beside each other; nothing is timed\n");
    return 2;
}

} // namespace

int main(int argc, char **argv) {
    static const option known[] = {{"small", no_argument, NULL, 's'},
                                   {"ranks", required_argument, NULL, 'n'},
                                   {"json", required_argument, NULL, 'j'},
                                   {NULL, 0, NULL, 0}};
    static bench b;
    outcome o = {};
    bool small = false;
    const char *json = NULL;
    int which, ranks = 2, devices = 0;
    while ((which = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (which == 's') small = true;
        if (which == 'n') ranks = atoi(optarg);
        if (which == 'j') json = optarg;
        if (which == '?') return usage();
    }
    if (optind != argc || ranks < 2 || ranks > RANKS_MAX) return usage();
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices < 1) {
        printf("gpu_overlap: there is no GPU\n");
        return 77;
    }
    pthread_t thread[RANKS_MAX];
    rank_arg arg[RANKS_MAX];
    make(&b, ranks, small ? TILE : 2048, small ? 5000 : (size_t)64 << 20, thread, arg);
    o.right = both_are_right(&b, small ? 5000 : 1000003);
    if (!small) judge(&b, &o);
    release(&b, thread);
    if (small) {
        printf("gpu_overlap: the product and the sums are %s\n", o.right ? "right" : "wrong");
        return o.right ? 0 : 1;
    }
    printf("all-reduce of %zu bytes on %d ranks: %.2f ms; products: %.2f ms; both: %.2f ms\n"
           "hidden %.2f (target %.2f), products slowed by %.1f%% (target %.0f%%)%s  %s\n",
           o.bytes, ranks, o.comm, o.gemm, o.both, o.hidden, HIDDEN_TARGET, 100 * o.slowdown,
           100 * SLOWDOWN_TARGET, o.sized ? "" : ", the all-reduce could not be sized",
           passes(o) ? "pass" : "FAIL");
    if (json && !write_json(json, b, o)) return 1;
    return passes(o) ? 0 : 1;
}

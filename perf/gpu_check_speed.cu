/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels' bandwidth beside that of a copy on the device. Counted are the bytes that each must read
 * and write; the buffers are larger than any second-level cache. */
#include <algorithm>

#include "perf/gpu_check.cuh"
#include "perf/gpu_check_host.h"

extern "C" {
#include "compress/dtype.h"
}

namespace {

/* A sample is of some launches in a row, so that what surrounds a launch counts for little. Before the
 * first the GPU works for WARM_MS: its clocks have slept while the host made data. */
enum { WARM_MS = 60, SAMPLES = 11, IN_A_ROW = 4 };

struct bench {
    size_t bytes; /* of fp32 elements */
    char *src[GPU_TERMS], *dst, *residual, *wire[GPU_TERMS + 1];
    unsigned long long *nonfinite;
    cudaEvent_t begin, end;
    cinch_cuda_where where;
};

/* What is timed, and the bytes that it moves. */
enum operation { COPY, REDUCE, ENCODE, SUM, SUM_ENCODE };
struct speed_case {
    const char *name;
    operation op;
    cinchDataType_t dtype;
    cinchRedOp_t redop;
    int n; /* sources or terms */
    bool feedback;
    gpu_codec codec;
    double target;
};

const gpu_codec none = {}, int8 = {"int8", 0, {256}}, bf16 = {"bf16", 0, {}},
                topk = {"topk", 0.01, {}};

const speed_case cases[] = {
    {"copy", COPY, cinchFloat32, cinchSum, 1, false, none, 0},
    {"sum of 2 float", REDUCE, cinchFloat32, cinchSum, 2, false, none, 0.85},
    {"sum of 4 float", REDUCE, cinchFloat32, cinchSum, 4, false, none, 0.85},
    {"max of 2 float", REDUCE, cinchFloat32, cinchMax, 2, false, none, 0.85},
    {"sum of 2 half", REDUCE, cinchFloat16, cinchSum, 2, false, none, 0.85},
    {"sum of 2 bfloat16", REDUCE, cinchBfloat16, cinchSum, 2, false, none, 0.85},
    {"sum of 2 double", REDUCE, cinchFloat64, cinchSum, 2, false, none, 0.85},
    {"sum of 2 int8", REDUCE, cinchInt8, cinchSum, 2, false, none, 0.85},
    {"sum of 2 int64", REDUCE, cinchInt64, cinchSum, 2, false, none, 0.85},
    {"sum of 2 f8e4m3", REDUCE, cinchFloat8e4m3, cinchSum, 2, false, none, 0.85},
    {"sum of 2 f8e5m2", REDUCE, cinchFloat8e5m2, cinchSum, 2, false, none, 0.85},
    {"int8 encode", ENCODE, cinchFloat32, cinchSum, 1, false, int8, 0.85},
    {"int8 encode, feedback", ENCODE, cinchFloat32, cinchSum, 1, true, int8, 0.85},
    {"int8 encode of bfloat16", ENCODE, cinchBfloat16, cinchSum, 1, false, int8, 0.85},
    {"int8 decode-add of 4", SUM, cinchFloat32, cinchSum, 4, false, int8, 0.85},
    {"int8 decode-add-encode of 4", SUM_ENCODE, cinchFloat32, cinchSum, 4, false, int8, 0.85},
    {"bf16 encode", ENCODE, cinchFloat32, cinchSum, 1, false, bf16, 0.85},
    {"bf16 decode-add of 4", SUM, cinchFloat32, cinchSum, 4, false, bf16, 0.85},
    {"bf16 decode-add-encode of 4", SUM_ENCODE, cinchFloat32, cinchSum, 4, false, bf16, 0.85},
    {"topk encode", ENCODE, cinchFloat32, cinchSum, 1, false, topk, 0.60},
    {"topk encode, feedback", ENCODE, cinchFloat32, cinchSum, 1, true, topk, 0.60},
    {"topk decode-add of 4", SUM, cinchFloat32, cinchSum, 4, false, topk, 0.60},
};

size_t count_of(const bench &b, const speed_case &c) {
    return c.op == REDUCE || c.op == COPY ? b.bytes / cinch_dtype_size(c.dtype) : b.bytes / 4;
}

/* Reads and writes. */
double moved(const bench &b, const speed_case &c) {
    double elements = (double)count_of(b, c), size = (double)cinch_dtype_size(c.dtype);
    double wire = c.op > REDUCE ? (double)gpu_wire_bytes(&c.codec, count_of(b, c)) : 0;
    double residual = c.feedback ? 8 * elements : 0;
    if (c.op == COPY || c.op == REDUCE) return (c.n + 1) * elements * size;
    if (c.op == ENCODE) return elements * size + residual + wire;
    if (c.op == SUM) return c.n * wire + elements * size;
    return (c.n + 1) * wire + residual;
}

void start(const bench &b, const speed_case &c) {
    size_t count = count_of(b, c);
    void *dst = b.dst;
    float *residual = c.feedback ? (float *)b.residual : NULL;
    cinch_cuda_terms terms = {};
    terms.n = c.n;
    for (int j = 0; j < c.n; j++) terms.at[j] = b.wire[j];
    if (c.op == COPY)
        GPU_MUST(cudaMemcpyAsync(dst, b.src[0], b.bytes, cudaMemcpyDeviceToDevice,
                                 (cudaStream_t)b.where.stream));
    else if (c.op == REDUCE)
        CINCH_MUST(cinch_cuda_reduce(&b.where, c.dtype, c.redop, &dst, 1,
                                     (const void *const *)b.src, c.n, count, 0));
    else if (c.op == ENCODE)
        CINCH_MUST(gpu_encode(&c.codec, &b.where, c.dtype, b.src[0], residual, count,
                              b.wire[GPU_TERMS], b.nonfinite));
    else if (c.op == SUM)
        CINCH_MUST(gpu_sum(&c.codec, &b.where, &terms, c.dtype, dst, count, 0,
                           (unsigned *)(b.nonfinite + 1)));
    else
        CINCH_MUST(gpu_sum_encode(&c.codec, &b.where, &terms, c.dtype, residual, count, 0,
                                  b.wire[GPU_TERMS], NULL, b.nonfinite));
}

/* So many launches, in ms. */
float time_row(const bench &b, const speed_case &c) {
    float ms;
    GPU_MUST(cudaEventRecord(b.begin, (cudaStream_t)b.where.stream));
    for (int i = 0; i < IN_A_ROW; i++) start(b, c);
    GPU_MUST(cudaEventRecord(b.end, (cudaStream_t)b.where.stream));
    GPU_MUST(cudaEventSynchronize(b.end));
    GPU_MUST(cudaEventElapsedTime(&ms, b.begin, b.end));
    return ms;
}

/* The medians in GB/s, of the case and of a copy in between. */
double measure(const bench &b, const speed_case &c, double *copy) {
    float ms[SAMPLES], copied[SAMPLES];
    const speed_case &other = cases[0];
    for (float spent = 0; spent < WARM_MS;) spent += time_row(b, c) + time_row(b, other);
    for (int i = 0; i < SAMPLES; i++) {
        ms[i] = time_row(b, c);
        copied[i] = time_row(b, other);
    }
    std::sort(ms, ms + SAMPLES);
    std::sort(copied, copied + SAMPLES);
    *copy = moved(b, other) * IN_A_ROW / copied[SAMPLES / 2] * 1e-6;
    return moved(b, c) * IN_A_ROW / ms[SAMPLES / 2] * 1e-6;
}

/* Gaussian data in what a case reads, and messages made of it. */
void prepare(bench &b, const speed_case &c, char *host) {
    size_t count = count_of(b, c);
    if (c.op == COPY) return;
    gpu_host_fill(host, c.dtype, count, GPU_RANDOM, 3);
    for (int j = 0; j < GPU_TERMS; j++)
        GPU_MUST(cudaMemcpy(b.src[j], host, count * cinch_dtype_size(c.dtype),
                            cudaMemcpyHostToDevice));
    for (int j = 0; c.op > ENCODE && j < c.n; j++)
        CINCH_MUST(gpu_encode(&c.codec, &b.where, c.dtype, b.src[j], NULL, count, b.wire[j],
                              b.nonfinite));
    GPU_MUST(cudaMemset(b.residual, 0, b.bytes));
    GPU_MUST(cudaDeviceSynchronize());
}

} // namespace

int gpu_check_speed(size_t bytes, double *copy, gpu_line *line, int room) {
    bench b = {};
    int lines = 0;
    char *host = (char *)malloc(bytes);
    if (!host) gpu_must(1, "malloc", "no memory");
    b.bytes = bytes;
    for (char *&p : b.src) GPU_MUST(cudaMalloc((void **)&p, bytes));
    for (char *&p : b.wire) GPU_MUST(cudaMalloc((void **)&p, bytes));
    GPU_MUST(cudaMalloc((void **)&b.dst, bytes));
    GPU_MUST(cudaMalloc((void **)&b.residual, bytes));
    GPU_MUST(cudaMalloc((void **)&b.nonfinite, 64));
    GPU_MUST(cudaEventCreate(&b.begin));
    GPU_MUST(cudaEventCreate(&b.end));
    cudaStream_t stream;
    GPU_MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    b.where.stream = (cinchStream_t)stream;
    for (const speed_case &c : cases) {
        double beside;
        prepare(b, c, host);
        double gbps = measure(b, c, &beside);
        if (c.op == COPY) *copy = gbps;
        if (c.op == COPY || lines == room) continue;
        gpu_line *l = &line[lines++];
        *l = gpu_line();
        snprintf(l->kernel, sizeof l->kernel, "%s", c.name);
        l->gbps = gbps;
        l->fraction = gbps / beside;
        l->target = c.target;
    }
    for (char *p : b.src) cudaFree(p);
    for (char *p : b.wire) cudaFree(p);
    cudaFree(b.dst), cudaFree(b.residual), cudaFree(b.nonfinite);
    cudaStreamDestroy(stream), cudaEventDestroy(b.begin), cudaEventDestroy(b.end);
    free(host);
    return lines;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* topk with select=global: its bits against the host's, and its bandwidth. A message's length is
 * measured on the device, as a transfer would have it. */
#include <algorithm>
#include <string.h>

#include "perf/gpu_check.cuh"
#include "perf/gpu_check_host.h"

extern "C" {
#include "compress/dtype.h"
}

namespace {

/* The clocks are awake after so many. */
enum { SLACK = 64, WARM = 100, SAMPLES = 11, IN_A_ROW = 4 };

struct share {
    const char *spec;
    double ratio;
};
const share shares[] = {{"topk:select=global,ratio=0.01", 0.01},
                        {"topk:select=global,ratio=0.2", 0.2}};

struct room {
    size_t count;
    char *host, *want, *got, *residual, *left;                 /* host */
    char *src, *wire[2], *dst, *device_residual, *state;        /* device */
    unsigned long long *counts; /* device: not finite, malformed, length */
};

char *on_host(size_t bytes) {
    char *p = (char *)calloc(1, bytes + SLACK);
    if (!p) gpu_must(1, "calloc", "no memory");
    return p;
}

char *on_device(size_t bytes) {
    char *p;
    GPU_MUST(cudaMalloc((void **)&p, bytes + SLACK));
    GPU_MUST(cudaMemset(p, 0, bytes + SLACK));
    return p;
}

room make(size_t count) {
    room r = {};
    size_t bytes = 4 * count, wire = bytes + bytes / 1024, state = 0;
    for (const share &s : shares)
        state = std::max(state, cinch_cuda_topk_state_bytes(s.ratio, count));
    r.count = count;
    for (char **p : {&r.host, &r.want, &r.got, &r.residual, &r.left}) *p = on_host(wire);
    for (char **p : {&r.src, &r.wire[0], &r.wire[1], &r.dst, &r.device_residual})
        *p = on_device(wire);
    r.state = on_device(state);
    r.counts = (unsigned long long *)on_device(64);
    return r;
}

void release(room *r) {
    for (char *p : {r->host, r->want, r->got, r->residual, r->left}) free(p);
    for (char *p : {r->src, r->wire[0], r->wire[1], r->dst, r->device_residual, r->state})
        cudaFree(p);
    cudaFree(r->counts);
}

void queue(const room *r, const share &s, const cinch_cuda_where *where, cinchDataType_t dtype,
           const char *src, size_t count, bool feedback, char *wire) {
    float *residual = feedback ? (float *)r->device_residual : NULL;
    CINCH_MUST(
        cinch_cuda_topk_prepare(where, s.ratio, 0, dtype, src, residual, count, r->state));
    CINCH_MUST(cinch_cuda_topk_encode_global(where, r->state, 0, dtype, src, residual, count, wire,
                                             r->counts));
}

/* One encode, compared; the message stays in wire[feedback]. Returns its bytes, 0 where it is wrong. */
size_t check_encode(const room *r, const share &s, cinchDataType_t dtype, int kind, size_t off,
                    size_t count, bool feedback) {
    const cinch_cuda_where where = {};
    unsigned long long seen[3];
    uint64_t nonfinite = 0;
    size_t bytes = 0, size = cinch_dtype_size(dtype);
    gpu_host_fill(r->host, dtype, count, kind, 40 + (uint64_t)feedback);
    gpu_host_fill(r->residual, cinchFloat32, count, GPU_HEAVY, 6);
    GPU_MUST(cudaMemcpy(r->src + off, r->host, count * size, cudaMemcpyHostToDevice));
    GPU_MUST(cudaMemcpy(r->device_residual, r->residual, 4 * count, cudaMemcpyHostToDevice));
    GPU_MUST(cudaMemset(r->counts, 0, 64));
    if (!gpu_host_encode_to(s.spec, dtype, r->host, feedback ? (float *)r->residual : NULL, count,
                            r->want, &nonfinite, &bytes))
        exit(1);
    queue(r, s, &where, dtype, r->src + off, count, feedback, r->wire[feedback] + off);
    CINCH_MUST(cinch_cuda_topk_measure(&where, r->wire[feedback] + off, count, r->counts + 2));
    GPU_MUST(cudaDeviceSynchronize());
    GPU_MUST(cudaMemcpy(seen, r->counts, sizeof seen, cudaMemcpyDeviceToHost));
    if (seen[0] != nonfinite || seen[2] != bytes) return 0;
    GPU_MUST(cudaMemcpy(r->got, r->wire[feedback] + off, bytes, cudaMemcpyDeviceToHost));
    GPU_MUST(cudaMemcpy(r->left, r->device_residual, 4 * count, cudaMemcpyDeviceToHost));
    bool same = memcmp(r->got, r->want, bytes) == 0 &&
                gpu_host_equal(r->left, r->residual, cinchFloat32, count);
    return same ? bytes : 0;
}

/* Two messages, which both sides have, and a plain term between them. */
bool check_sum(const room *r, const share &s, cinchDataType_t dtype, size_t off, size_t count,
               const size_t *bytes) {
    const cinch_cuda_where where = {};
    size_t size = cinch_dtype_size(dtype);
    size_t length[3] = {bytes[0], 0, bytes[1]};
    cinch_cuda_terms terms = {};
    terms.n = 3;
    terms.plain[0] = 2;
    terms.at[0] = r->wire[0] + off;
    terms.at[1] = r->src + off;
    terms.at[2] = r->wire[1] + off;
    unsigned bad = 0, *bad_at = (unsigned *)(r->counts + 1);
    GPU_MUST(cudaMemcpy(r->got, r->wire[0] + off, bytes[0], cudaMemcpyDeviceToHost));
    GPU_MUST(cudaMemcpy(r->left, r->wire[1] + off, bytes[1], cudaMemcpyDeviceToHost));
    const void *host[3] = {r->got, r->host, r->left};
    if (!gpu_host_sum_of(s.spec, host, 2, 3, length, dtype, dtype, r->want, count, 3)) exit(1);
    CINCH_MUST(cinch_cuda_topk_sum_global(&where, &terms, length, dtype, dtype, r->dst + off, count,
                                          3, bad_at));
    GPU_MUST(cudaDeviceSynchronize());
    GPU_MUST(cudaMemcpy(r->got, r->dst + off, count * size, cudaMemcpyDeviceToHost));
    GPU_MUST(cudaMemcpy(&bad, bad_at, sizeof bad, cudaMemcpyDeviceToHost));
    return !bad && gpu_host_equal(r->got, r->want, dtype, count);
}

/* The median, in GB/s of 4N, the residual, and the message. */
double measure(const room *r, const share &s, bool feedback, cudaStream_t stream) {
    float ms[SAMPLES];
    cudaEvent_t begin, end;
    unsigned long long length;
    const cinch_cuda_where where = {(cinchStream_t)stream, 0};
    GPU_MUST(cudaEventCreate(&begin));
    GPU_MUST(cudaEventCreate(&end));
    for (int i = -WARM; i < SAMPLES; i++) {
        GPU_MUST(cudaEventRecord(begin, stream));
        for (int row = 0; row < IN_A_ROW; row++)
            queue(r, s, &where, cinchFloat32, r->src, r->count, feedback, r->wire[0]);
        GPU_MUST(cudaEventRecord(end, stream));
        GPU_MUST(cudaEventSynchronize(end));
        if (i >= 0) GPU_MUST(cudaEventElapsedTime(&ms[i], begin, end));
    }
    CINCH_MUST(cinch_cuda_topk_measure(&where, r->wire[0], r->count, r->counts + 2));
    GPU_MUST(cudaDeviceSynchronize());
    GPU_MUST(cudaMemcpy(&length, r->counts + 2, sizeof length, cudaMemcpyDeviceToHost));
    cudaEventDestroy(begin), cudaEventDestroy(end);
    std::sort(ms, ms + SAMPLES);
    double moved = (feedback ? 12.0 : 4.0) * (double)r->count + (double)length;
    return moved * IN_A_ROW / ms[SAMPLES / 2] * 1e-6;
}

} // namespace

int gpu_check_global_bits(size_t bytes, gpu_line *line, int lines) {
    static const cinchDataType_t dtypes[] = {cinchFloat32, cinchFloat16, cinchBfloat16};
    room r = make(bytes / 4);
    int n = 0;
    for (const share &s : shares) {
        if (n == lines) break;
        gpu_line *l = &line[n++];
        *l = gpu_line();
        snprintf(l->kernel, sizeof l->kernel, "%s", s.spec);
        for (int d = 0; d < 3; d++)
            for (int kind = 0; kind < GPU_KINDS; kind++) {
                size_t off = (d + kind) % 3 == 0 ? 0 : (d + kind) % 3 == 1 ? 4 : 1;
                size_t count = r.count - (size_t)(d + kind) % 3, length[2];
                for (int feedback = 0; feedback < 2; feedback++) {
                    length[feedback] =
                        check_encode(&r, s, dtypes[d], kind, off, count, feedback != 0);
                    l->cases++;
                    l->wrong += length[feedback] == 0;
                }
                if (!length[0] || !length[1]) continue;
                l->cases++;
                l->wrong += !check_sum(&r, s, dtypes[d], off, count, length);
            }
    }
    release(&r);
    return n;
}

int gpu_check_global_speed(size_t bytes, double copy, gpu_line *line, int lines) {
    static const char *const names[] = {"topk select=global", "topk select=global, feedback"};
    room r = make(bytes / 4);
    int n = 0;
    cudaStream_t stream;
    GPU_MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    gpu_host_fill(r.host, cinchFloat32, r.count, GPU_RANDOM, 3);
    GPU_MUST(cudaMemcpy(r.src, r.host, bytes, cudaMemcpyHostToDevice));
    for (int feedback = 0; feedback < 2 && n < lines; feedback++) {
        gpu_line *l = &line[n++];
        *l = gpu_line();
        snprintf(l->kernel, sizeof l->kernel, "%s", names[feedback]);
        l->gbps = measure(&r, shares[0], feedback != 0, stream);
        l->fraction = l->gbps / copy;
        l->target = 0.35;
    }
    cudaStreamDestroy(stream);
    release(&r);
    return n;
}

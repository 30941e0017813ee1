/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels' results against the host's, bit by bit; where two NaN were added, any NaN will do.
 * Every case runs three times: aligned, an element off, and a byte off with an odd count. */
#include <string.h>

#include "perf/gpu_check.cuh"
#include "perf/gpu_check_host.h"

extern "C" {
#include "compress/dtype.h"
}

namespace {

enum { SLACK = 256, SHIFTS = 3 };

/* The same buffers on both sides: three sources, a residual, results. */
struct buffers {
    size_t bytes;
    char *host[GPU_TERMS], *device[GPU_TERMS];
    char *want, *got, *residual, *left, *sum;      /* host */
    char *out, *device_residual, *wire;            /* device */
    char *message[GPU_TERMS], *device_message[GPU_TERMS];
    unsigned long long *nonfinite; /* device, and the flag of bad messages behind it */
};

char *host_room(size_t bytes) {
    char *p = (char *)aligned_alloc(64, (bytes + SLACK + 63) / 64 * 64);
    if (!p) gpu_must(1, "aligned_alloc", "no memory");
    memset(p, 0, (bytes + SLACK + 63) / 64 * 64);
    return p;
}

char *device_room(size_t bytes) {
    char *p;
    GPU_MUST(cudaMalloc((void **)&p, bytes + SLACK));
    GPU_MUST(cudaMemset(p, 0, bytes + SLACK));
    return p;
}

/* 16-bit elements widen to twice the bytes. */
void make(buffers *b, size_t bytes) {
    b->bytes = bytes;
    for (int i = 0; i < GPU_TERMS; i++) {
        b->host[i] = host_room(bytes);
        b->device[i] = device_room(bytes);
        b->message[i] = host_room(bytes + bytes / 4);
        b->device_message[i] = device_room(bytes + bytes / 4);
    }
    b->want = host_room(2 * bytes);
    b->got = host_room(2 * bytes);
    b->residual = host_room(2 * bytes);
    b->left = host_room(2 * bytes);
    b->sum = host_room(2 * bytes);
    b->out = device_room(2 * bytes);
    b->device_residual = device_room(2 * bytes);
    b->wire = device_room(2 * bytes);
    b->nonfinite = (unsigned long long *)device_room(64);
}

void release(buffers *b) {
    for (int i = 0; i < GPU_TERMS; i++) {
        free(b->host[i]), free(b->message[i]);
        cudaFree(b->device[i]), cudaFree(b->device_message[i]);
    }
    free(b->want), free(b->got), free(b->residual), free(b->left), free(b->sum);
    cudaFree(b->out), cudaFree(b->device_residual), cudaFree(b->wire), cudaFree(b->nonfinite);
}

void up(void *device, const void *host, size_t bytes) {
    GPU_MUST(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
}

void down(void *host, const void *device, size_t bytes) {
    GPU_MUST(cudaDeviceSynchronize());
    GPU_MUST(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
}

size_t shift_of(int which, size_t size) {
    return which == 0 ? 0 : which == 1 ? size : 1;
}

/* One more case of a line. */
void count_case(gpu_line *line, bool good, const char *what, int kind, int shift) {
    line->cases++;
    if (good) return;
    if (!line->wrong++)
        fprintf(stderr, "gpu_check: %s: %s is wrong, data %d, shift %d\n", line->kernel, what, kind,
                shift);
}

/* ---- reductions ---- */

void check_reduce(buffers *b, gpu_line *line, cinchDataType_t dtype, int kind, int shift) {
    size_t size = cinch_dtype_size(dtype), off = shift_of(shift, size);
    size_t count = b->bytes / size - (shift == 2);
    const void *host[GPU_TERMS], *device[GPU_TERMS];
    for (int i = 0; i < GPU_TERMS; i++) {
        gpu_host_fill(b->host[i], dtype, count, kind, 10 + (uint64_t)i);
        up(b->device[i] + off, b->host[i], count * size);
        host[i] = b->host[i];
        device[i] = b->device[i] + off;
    }
    const cinch_cuda_where where = {};
    for (int op = 0; op <= 5; op++) { /* 4: avg; 5: premul */
        int avg_n = op == 4 ? 3 : 0, nsrc = 2 + op % 3;
        cinchRedOp_t as = (cinchRedOp_t)(op == 4 ? 0 : op);
        void *dst = b->out + off;
        if (op == 5) {
            gpu_host_premul(dtype, b->want, host[0], count, host[1]);
            CINCH_MUST(cinch_cuda_premul(&where, dtype, dst, device[0], count, device[1]));
        } else {
            gpu_host_reduce(dtype, as, b->want, host, nsrc, count, avg_n);
            CINCH_MUST(
                cinch_cuda_reduce(&where, dtype, as, &dst, 1, device, nsrc, count, avg_n));
        }
        down(b->got, dst, count * size);
        count_case(line, memcmp(b->got, b->want, count * size) == 0,
                   op == 5 ? "premul" : cinch_redop_name((cinchRedOp_t)op), kind, shift);
    }
}

/* ---- codecs ---- */

struct codec_case {
    buffers *b;
    gpu_line *line;
    const gpu_codec *codec;
    cinchDataType_t dtype;
    int kind, shift;
    size_t count, off, bytes;
};

unsigned long long take_count(buffers *b) {
    unsigned long long n;
    down(&n, b->nonfinite, sizeof n);
    GPU_MUST(cudaMemset(b->nonfinite, 0, 16));
    return n;
}

/* The residual of both sides before a step, and whether both are the same after it. */
void set_residual(const codec_case *c) {
    gpu_host_fill(c->b->residual, cinchFloat32, c->count, GPU_HEAVY, 5);
    up(c->b->device_residual, c->b->residual, 4 * c->count);
}

bool same_residual(const codec_case *c) {
    down(c->b->left, c->b->device_residual, 4 * c->count);
    return gpu_host_equal(c->b->left, c->b->residual, cinchFloat32, c->count);
}

/* A sum of NaN may be in a bf16 message. */
bool same_message(const codec_case *c, const void *got, const void *want) {
    if (c->codec->int8.block || c->codec->ratio > 0) return memcmp(got, want, c->bytes) == 0;
    return gpu_host_equal(got, want, cinchBfloat16, c->count);
}

/* Encodes the sources; the messages stay on both sides for the sums. */
void check_encode(const codec_case *c) {
    buffers *b = c->b;
    const cinch_cuda_where where = {};
    for (int i = 0; i < GPU_TERMS; i++) {
        bool feedback = i % 2 == 1;
        uint64_t nonfinite = 0;
        set_residual(c);
        gpu_host_fill(b->host[i], c->dtype, c->count, c->kind, 20 + (uint64_t)i);
        up(b->device[i] + c->off, b->host[i], c->count * cinch_dtype_size(c->dtype));
        if (!gpu_host_encode(c->codec->spec, c->dtype, b->host[i],
                             feedback ? (float *)b->residual : NULL, c->count, b->message[i],
                             &nonfinite))
            exit(1);
        CINCH_MUST(gpu_encode(c->codec, &where, c->dtype, b->device[i] + c->off,
                              feedback ? (float *)b->device_residual : NULL, c->count,
                              b->device_message[i] + c->off, b->nonfinite));
        down(b->got, b->device_message[i] + c->off, c->bytes);
        bool good = same_message(c, b->got, b->message[i]) && same_residual(c);
        good = take_count(b) == nonfinite && good;
        count_case(c->line, good, feedback ? "encode with feedback" : "encode", c->kind, c->shift);
        up(b->device_message[i] + c->off, b->message[i], c->bytes);
    }
}

/* Three messages and, second, one source as it is. */
void check_sum(const codec_case *c) {
    buffers *b = c->b;
    const cinch_cuda_where where = {};
    const void *host[GPU_TERMS];
    cinch_cuda_terms terms = {};
    terms.plain[0] = 2;
    terms.n = GPU_TERMS;
    for (int i = 0; i < GPU_TERMS; i++) {
        host[i] = i == 1 ? b->host[i] : b->message[i];
        terms.at[i] = (i == 1 ? b->device[i] : b->device_message[i]) + c->off;
    }
    unsigned bad = 0, *bad_at = (unsigned *)(b->nonfinite + 1);
    size_t size = cinch_dtype_size(c->dtype);
    if (!gpu_host_sum(c->codec->spec, host, terms.plain[0], terms.n, c->bytes, c->dtype, c->dtype,
                      b->want, c->count, 3))
        exit(1);
    CINCH_MUST(gpu_sum(c->codec, &where, &terms, c->dtype, b->out + c->off, c->count, 3, bad_at));
    down(b->got, b->out + c->off, c->count * size);
    bool good = gpu_host_equal(b->got, b->want, c->dtype, c->count);
    down(&bad, bad_at, sizeof bad);
    count_case(c->line, good && !bad, "decode-add", c->kind, c->shift);
    if (c->codec->ratio > 0) return;

    uint64_t nonfinite = 0;
    set_residual(c);
    if (!gpu_host_sum(c->codec->spec, host, terms.plain[0], terms.n, c->bytes, c->dtype, cinchFloat32,
                      b->sum, c->count, 0) ||
        !gpu_host_encode(c->codec->spec, cinchFloat32, b->sum, (float *)b->residual, c->count,
                         b->want, &nonfinite))
        exit(1);
    CINCH_MUST(gpu_sum_encode(c->codec, &where, &terms, c->dtype, (float *)b->device_residual,
                              c->count, 0, b->wire + c->off, b->out + c->off, b->nonfinite));
    down(b->got, b->wire + c->off, c->bytes);
    good = same_message(c, b->got, b->want) && same_residual(c);
    good = take_count(b) == nonfinite && good;
    const void *encoded = b->want;
    if (!gpu_host_sum(c->codec->spec, &encoded, 0, 1, c->bytes, c->dtype, c->dtype, b->sum,
                      c->count, 0))
        exit(1);
    down(b->got, b->out + c->off, c->count * size);
    good = gpu_host_equal(b->got, b->sum, c->dtype, c->count) && good;
    count_case(c->line, good, "decode-add-encode", c->kind, c->shift);
}

void check_codec(buffers *b, gpu_line *line, const gpu_codec *codec) {
    static const cinchDataType_t dtypes[] = {cinchFloat32, cinchFloat16, cinchBfloat16};
    for (int d = 0; d < 3; d++)
        for (int kind = 0; kind < GPU_KINDS; kind++) {
            /* All data aligned in fp32; the rest in turn. */
            for (int shift = 0; shift < SHIFTS; shift++) {
                if (shift != (d + kind) % SHIFTS && (d || shift)) continue;
                codec_case c = {b, line, codec, dtypes[d], kind, shift};
                c.count = b->bytes / 4 - (shift == 2);
                c.off = shift_of(shift, cinch_dtype_size(dtypes[d]));
                c.bytes = gpu_wire_bytes(codec, c.count);
                check_encode(&c);
                check_sum(&c);
            }
        }
}

} // namespace

int gpu_check_bits(size_t bytes, gpu_line *line, int room) {
    gpu_codec codecs[] = {{"int8", 0, {256}},
                          {"int8:block=32", 0, {32}},
                          {"int8:block=4096", 0, {4096}},
                          {"int8:round=stochastic,seed=9", 0, {256, 1}},
                          {"bf16", 0, {}},
                          {"topk:ratio=0.01", 0.01, {}},
                          {"topk:ratio=0.3", 0.3, {}}};
    codecs[3].int8.key = gpu_host_int8_key(9);
    buffers b;
    int lines = 0;
    make(&b, bytes);
    b.bytes = bytes / 4;
    for (int t = 0; t < cinchNumTypes && lines < room; t++) {
        gpu_line *l = &line[lines++];
        cinchDataType_t dtype = (cinchDataType_t)t;
        *l = gpu_line();
        snprintf(l->kernel, sizeof l->kernel, "reduce %s", cinch_dtype_name(dtype));
        for (int kind = 0; kind < (cinch_dtype_is_float(dtype) ? GPU_KINDS : 1); kind++)
            check_reduce(&b, l, dtype, kind, kind);
        if (!cinch_dtype_is_float(dtype)) check_reduce(&b, l, dtype, 0, 2);
    }
    for (const gpu_codec &codec : codecs) {
        if (lines == room) break;
        gpu_line *l = &line[lines++];
        *l = gpu_line();
        snprintf(l->kernel, sizeof l->kernel, "%s", codec.spec);
        bool main = !strcmp(codec.spec, "int8") || codec.spec == codecs[4].spec ||
                    codec.spec == codecs[5].spec;
        b.bytes = main ? bytes : bytes / 8; /* variants: less, for the host's time */
        check_codec(&b, l, &codec);
    }
    release(&b);
    return lines;
}

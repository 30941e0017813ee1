/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA kernels of codecs, emulated: the bytes, residuals, counts and sums of compress/codec.h
 * with its reference kernels, for every kind of data, and no harm by bytes from a peer. */
#include <stdio.h>

#include "base/status.h"
#include "compress/cuda/kernels.h"
#include "compress/dtype.h"
#include "tests/codec_data.h"
#include "tests/cuda/emulate.h"

#define SIDE 64 /* guarded bytes around a buffer */
#define GUARD 0xa5
#define TERMS_MAX 9

static int rounds = 1;

static const struct {
    const char *spec;
    double ratio;
    uint32_t block, stochastic;
    uint64_t seed;
} codecs[] = {
    {"int8", 0, 256, 0, 0},
    {"int8:block=32", 0, 32, 0, 0},
    {"int8:block=64,round=stochastic", 0, 64, 1, 0},
    {"int8:block=128", 0, 128, 0, 0},
    {"int8:round=stochastic,seed=7", 0, 256, 1, 7},
    {"int8:block=512", 0, 512, 0, 0},
    {"int8:block=1024", 0, 1024, 0, 0},
    {"int8:block=2048,round=stochastic,seed=3", 0, 2048, 1, 3},
    {"int8:block=4096", 0, 4096, 0, 0},
    {"bf16", 0, 0, 0, 0},
    {"topk:ratio=0.01", 0.01, 0, 0, 0},
    {"topk:ratio=0.07", 0.07, 0, 0, 0},
    {"topk:ratio=0.3", 0.3, 0, 0, 0},
    {"topk:ratio=0.0001", 0.0001, 0, 0, 0},
    {"topk:ratio=1", 1, 0, 0, 0},
};
#define CODECS (int)(sizeof codecs / sizeof *codecs)

static const cinchDataType_t dtypes[] = {cinchFloat32, cinchFloat16, cinchBfloat16};

/* Within some buffers the place's upper half changes. */
static const cinchCodecSite_t site = {
    .call = 3, .offset = 65536 * 65536ull * 3 - 8192, .rank = 2, .phase = 1};

/* One call: what is summed, what of it is encoded, and how the kernel is launched. */
typedef struct job {
    int which;
    cinch_codec codec;
    cinchDataType_t src_dtype, dst_dtype;
    size_t count;
    bool feedback, decode_too, inplace;
    int avg_n;
    cinch_cuda_terms terms;
    cinch_codec_term host[TERMS_MAX];
    void *hold[TERMS_MAX];
    cinch_cuda_where where;
    size_t shift;
    char what[200];
} job;

static unsigned char *guarded(size_t bytes) {
    unsigned char *p = malloc(bytes + 3 * SIDE);
    must(p, "out of memory");
    memset(p, GUARD, bytes + 3 * SIDE);
    return p;
}

static void check_guards(const unsigned char *p, size_t shift, size_t bytes, const job *j) {
    for (size_t i = 0; i < SIDE; i++)
        must(p[SIDE + shift - 1 - i] == GUARD && p[SIDE + shift + bytes + i] == GUARD,
             "%s: wrote outside its buffer", j->what);
}

static cinch_cuda_int8 int8_params(int which) {
    cinch_cuda_int8 p = {.block = codecs[which].block, .stochastic = codecs[which].stochastic};
    p.index = site.offset;
    p.key = cinch_mix64(codecs[which].seed + 0x9e3779b97f4a7c15u);
    p.key = cinch_mix64(p.key + site.call);
    p.key = cinch_mix64(p.key + ((uint64_t)site.rank << 32 | site.phase));
    return p;
}

static cinchResult_t device_encode(const job *j, const void *src, float *residual, void *wire,
                                   unsigned long long *nonfinite) {
    cinch_cuda_int8 p = int8_params(j->which);
    if (p.block)
        return cinch_cuda_int8_encode(&j->where, &p, j->src_dtype, src, residual, j->count, wire,
                                      nonfinite);
    if (codecs[j->which].ratio > 0)
        return cinch_cuda_topk_encode(&j->where, codecs[j->which].ratio, j->src_dtype, src,
                                      residual, j->count, wire, nonfinite);
    return cinch_cuda_bf16_encode(&j->where, j->src_dtype, src, residual, j->count, wire,
                                  nonfinite);
}

static cinchResult_t device_sum(const job *j, void *dst, unsigned *bad) {
    if (codecs[j->which].block)
        return cinch_cuda_int8_sum(&j->where, codecs[j->which].block, &j->terms, j->src_dtype,
                                   j->dst_dtype, dst, j->count, j->avg_n);
    if (codecs[j->which].ratio > 0)
        return cinch_cuda_topk_sum(&j->where, codecs[j->which].ratio, &j->terms, j->src_dtype,
                                   j->dst_dtype, dst, j->count, j->avg_n, bad);
    return cinch_cuda_bf16_sum(&j->where, &j->terms, j->src_dtype, j->dst_dtype, dst, j->count,
                               j->avg_n);
}

static void fill_typed(void *out, cinchDataType_t dtype, size_t count, int kind, uint64_t seed) {
    float *wide = alloc_ok(count * 4);
    fill_data(wide, count, kind, seed);
    if (kind == ANY_BITS) /* NaN of all sorts */
        memcpy(out, wide, count * cinch_dtype_size(dtype));
    else
        cinch_narrow(out, dtype, wide, count);
    free(wide);
}

static job new_job(int which, size_t count, uint64_t *s) {
    job j = {.which = which, .codec = parse_ok(codecs[which].spec), .count = count};
    j.src_dtype = dtypes[random32(s) % 3];
    j.dst_dtype = random32(s) % 4 ? j.src_dtype : cinchFloat32;
    j.feedback = random32(s) % 2;
    j.decode_too = random32(s) % 2;
    j.avg_n = random32(s) % 2 ? 1 + (int)(random32(s) % 9) : 0;
    j.where.blocks = random32(s) % 4;
    j.shift = random32(s) % 2 ? random32(s) % 16 : 0;
    j.inplace = random32(s) % 3 == 0;
    int order = (int)(random32(s) % CINCH_EMULATE_ORDERS);
    cinch_emulate_order(order);
    snprintf(j.what, sizeof j.what,
             "%s, %zu elements from %s to %s, feedback %d, avg %d, shift %zu, order %d",
             codecs[which].spec, count, cinch_dtype_name(j.src_dtype),
             cinch_dtype_name(j.dst_dtype), j.feedback, j.avg_n, j.shift, order);
    return j;
}

static size_t wire_bytes(const job *j) {
    return cinch_codec_bound(&j->codec, j->count);
}

static size_t host_encode(const job *j, cinchDataType_t dtype, const void *src, float *residual,
                          void *wire, uint64_t *nonfinite) {
    void *scratch = alloc_ok(cinch_codec_scratch(&j->codec, dtype, j->count));
    size_t bytes = cinch_codec_encode(&j->codec, &site, NULL, dtype, src, residual, j->count, wire,
                                      nonfinite, scratch);
    free(scratch);
    return bytes;
}

static cinchResult_t host_sum(const job *j, cinchDataType_t dst_dtype, void *dst) {
    void *scratch = alloc_ok(cinch_codec_scratch(&j->codec, j->src_dtype, j->count));
    cinchResult_t result = cinch_codec_sum(&j->codec, j->host, j->terms.n, j->src_dtype, dst_dtype,
                                           dst, j->count, j->avg_n, scratch);
    free(scratch);
    return result;
}

/* Equal, or NaN on both sides. */
static void check_equal(const job *j, const char *part, cinchDataType_t dtype, const void *got,
                        const void *want, size_t count) {
    size_t size = cinch_dtype_size(dtype);
    if (memcmp(got, want, count * size) == 0) return;
    float *a = alloc_ok(count * 4), *b = alloc_ok(count * 4);
    cinch_widen(a, got, dtype, count);
    cinch_widen(b, want, dtype, count);
    size_t at = first_difference(a, b, count);
    must(at == count, "%s: %s, element %zu is %a, not %a", j->what, part, at, (double)a[at],
         (double)b[at]);
    free(a);
    free(b);
}

/* A message: bf16 may carry the NaN of a sum. */
static void check_wire(const job *j, const void *got, const void *want, bool summed) {
    if (summed && !codecs[j->which].block && codecs[j->which].ratio == 0)
        check_equal(j, "message", cinchBfloat16, got, want, j->count);
    else
        must(memcmp(got, want, wire_bytes(j)) == 0, "%s: the message is another", j->what);
}

/* n terms, encoded or plain at random, from data of a kind. */
static void make_terms(job *j, int n, int kind, uint64_t *s) {
    size_t size = cinch_dtype_size(j->src_dtype);
    j->terms.n = n;
    for (int t = 0; t < n; t++) {
        size_t shift = j->shift && random32(s) % 2 ? random32(s) % 16 : 0;
        unsigned char *p = j->hold[t] = guarded(wire_bytes(j) + j->count * size);
        p += SIDE + shift;
        j->terms.at[t] = p;
        if (random32(s) % 3 == 0) {
            fill_typed(p, j->src_dtype, j->count, kind, random32(s));
            j->terms.plain[0] |= (uint64_t)1 << t;
            j->host[t].plain = p;
            continue;
        }
        float *src = alloc_ok(j->count * 4);
        uint64_t nonfinite = 0;
        fill_data(src, j->count, kind, random32(s));
        j->host[t].wire = p;
        j->host[t].bytes = host_encode(j, cinchFloat32, src, NULL, p, &nonfinite);
        free(src);
    }
}

static void free_terms(job *j) {
    for (int t = 0; t < j->terms.n; t++) free(j->hold[t]);
}

static const size_t counts[] = {1,    3,    31,   100,   255,   257,   1000, 4095,
                                4097, 8192, 8193, 12345, 16384, 20484, 40001};

static size_t any_count(int which, int round, uint64_t *s) {
    size_t count = counts[random32(s) % (sizeof counts / sizeof *counts)];
    if (codecs[which].ratio > 0 && round % 8 == 7) count += 65536;
    if (codecs[which].ratio > 0 && round % 8 == 3) count = 65536;
    return count;
}

/* Segments take longest, and the address sanitizer wipes a stack at every switch of fibers. */
#ifdef __SANITIZE_ADDRESS__
enum { OFTEN = 1, SELDOM = 2 };
#else
enum { OFTEN = 4, SELDOM = 1 };
#endif

static int rounds_of(int which) {
    return codecs[which].ratio > 0 ? KINDS * rounds / SELDOM : OFTEN * KINDS * rounds;
}

/* Large where topk's sample looks, so that its guess is too high. */
static void fill_deceiving(float *out, size_t count, uint64_t seed) {
    fill_data(out, count, GAUSS, seed);
    for (size_t i = 0; i < count; i++)
        if (i % 65536 % 128 < 4) out[i] += 100;
}

START_TEST(encodes_agree) {
    uint64_t s = 7000 + (uint64_t)_i;
    cinch_codec_kernels_force(&cinch_codec_kernels_reference);
    for (int round = 0; round < rounds_of(_i); round++) {
        job j = new_job(_i, any_count(_i, round, &s), &s);
        size_t bytes = wire_bytes(&j), size = cinch_dtype_size(j.src_dtype);
        unsigned char *src = guarded(j.count * size), *got = guarded(bytes), *want = guarded(bytes);
        unsigned char *left = guarded(4 * j.count);
        float *residual = alloc_ok(4 * j.count);
        size_t at = SIDE + j.shift / 4 * 4;
        uint64_t nonfinite = 5;
        unsigned long long counted = 5;
        fill_typed(src + SIDE + j.shift, j.src_dtype, j.count, round % KINDS, random32(&s));
        if (round % 8 == 3 && j.src_dtype == cinchFloat32 && j.shift % 4 == 0)
            fill_deceiving((float *)(void *)(src + SIDE + j.shift), j.count, random32(&s));
        fill_data(residual, j.count, round % KINDS == TIES ? ZEROS : GAUSS, random32(&s));
        memcpy(left + at, residual, 4 * j.count);
        host_encode(&j, j.src_dtype, src + SIDE + j.shift, j.feedback ? residual : NULL,
                    want + SIDE, &nonfinite);
        must(device_encode(&j, src + SIDE + j.shift, j.feedback ? (float *)(left + at) : NULL,
                           got + SIDE + j.shift, &counted) == cinchSuccess,
             "%s: %s", j.what, cinch_last_error());
        check_wire(&j, got + SIDE + j.shift, want + SIDE, j.feedback);
        check_equal(&j, "residual", cinchFloat32, left + at, residual, j.count);
        check_guards(got, j.shift, bytes, &j);
        check_guards(left, at - SIDE, 4 * j.count, &j);
        must(counted == nonfinite, "%s: %llu not finite, not %llu", j.what, counted,
             (unsigned long long)nonfinite);
        free(src), free(got), free(want), free(left), free(residual);
    }
}
END_TEST

/* Where the sum goes: one of its plain terms of the same type, or a place of its own. */
static unsigned char *destination(const job *j, unsigned char *own) {
    for (int t = 0; j->inplace && j->src_dtype == j->dst_dtype && t < j->terms.n; t++)
        if (j->terms.plain[0] >> t & 1)
            return (unsigned char *)j->hold[t] +
                   ((const unsigned char *)j->terms.at[t] - (const unsigned char *)j->hold[t]);
    return own + SIDE + j->shift;
}

START_TEST(sums_agree) {
    uint64_t s = 8000 + (uint64_t)_i;
    cinch_codec_kernels_force(&cinch_codec_kernels_reference);
    for (int round = 0; round < rounds_of(_i); round++) {
        job j = new_job(_i, any_count(_i, round, &s), &s);
        make_terms(&j, 1 + (int)(random32(&s) % TERMS_MAX), round % KINDS, &s);
        size_t bytes = j.count * cinch_dtype_size(j.dst_dtype);
        unsigned char *own = guarded(bytes), *want = guarded(bytes);
        unsigned bad = 0;
        ck_assert_int_eq(host_sum(&j, j.dst_dtype, want + SIDE), cinchSuccess);
        unsigned char *dst = destination(&j, own);
        must(device_sum(&j, dst, &bad) == cinchSuccess, "%s: %s", j.what, cinch_last_error());
        check_equal(&j, "sum", j.dst_dtype, dst, want + SIDE, j.count);
        must(bad == 0, "%s: good messages are refused", j.what);
        check_guards(own, j.shift, bytes, &j);
        free_terms(&j);
        free(own), free(want);
    }
}
END_TEST

/* The owner's step in one kernel is the sum, then the encode, then the decode. */
static void check_owner(job *j, uint64_t *s) {
    size_t bytes = wire_bytes(j), room = j->count * cinch_dtype_size(j->dst_dtype);
    unsigned char *got = guarded(bytes), *want = guarded(bytes), *own = guarded(room);
    unsigned char *decoded = guarded(room), *left = guarded(4 * j->count);
    float *sum = alloc_ok(4 * j->count), *residual = alloc_ok(4 * j->count);
    uint64_t nonfinite = 0;
    unsigned long long counted = 0;
    fill_data(residual, j->count, GAUSS, random32(s));
    memcpy(left + SIDE, residual, 4 * j->count);
    ck_assert_int_eq(host_sum(j, cinchFloat32, sum), cinchSuccess);
    size_t encoded =
        host_encode(j, cinchFloat32, sum, j->feedback ? residual : NULL, want + SIDE, &nonfinite);
    job back = *j;
    back.host[0] = (cinch_codec_term){.wire = want + SIDE, .bytes = encoded};
    back.terms.n = 1;
    back.avg_n = 0;
    ck_assert_int_eq(host_sum(&back, j->dst_dtype, decoded + SIDE), cinchSuccess);
    unsigned char *dst = j->decode_too ? destination(j, own) : NULL;
    float *kept = j->feedback ? (float *)(left + SIDE) : NULL;
    cinch_cuda_int8 p = int8_params(j->which);
    cinchResult_t result =
        p.block ? cinch_cuda_int8_sum_encode(&j->where, &p, &j->terms, j->src_dtype, kept, j->count,
                                             j->avg_n, got + SIDE + j->shift, j->dst_dtype, dst,
                                             &counted)
                : cinch_cuda_bf16_sum_encode(&j->where, &j->terms, j->src_dtype, kept, j->count,
                                             j->avg_n, got + SIDE + j->shift, j->dst_dtype, dst,
                                             &counted);
    must(result == cinchSuccess, "%s: %s", j->what, cinch_last_error());
    check_wire(j, got + SIDE + j->shift, want + SIDE, true);
    check_equal(j, "residual", cinchFloat32, left + SIDE, residual, j->count);
    if (dst) check_equal(j, "decoded sum", j->dst_dtype, dst, decoded + SIDE, j->count);
    check_guards(got, j->shift, bytes, j);
    check_guards(own, j->shift, room, j);
    must(counted == nonfinite, "%s: %llu not finite, not %llu", j->what, counted,
         (unsigned long long)nonfinite);
    free(got), free(want), free(own), free(decoded), free(left), free(sum), free(residual);
}

START_TEST(owners_agree) {
    uint64_t s = 9000 + (uint64_t)_i;
    if (codecs[_i].ratio > 0) return;
    cinch_codec_kernels_force(&cinch_codec_kernels_reference);
    for (int round = 0; round < rounds_of(_i); round++) {
        job j = new_job(_i, any_count(_i, round, &s), &s);
        make_terms(&j, 1 + (int)(random32(&s) % TERMS_MAX), round % KINDS, &s);
        check_owner(&j, &s);
        free_terms(&j);
    }
}
END_TEST

/* Anything in a topk message: the host refuses it where the kernel says that it is bad, and nothing
 * else is written or read. Messages have exactly their bytes, for the address sanitizer. */
START_TEST(garbage_does_no_harm) {
    uint64_t s = 77;
    for (int round = 0; round < 40 * rounds / SELDOM; round++) {
        int which = 10 + round % 4;
        job j = new_job(which, any_count(which, round, &s), &s);
        size_t bytes = wire_bytes(&j), room = 4 * j.count;
        unsigned char *wire = malloc(bytes), *own = guarded(room), *want = guarded(room);
        float *src = alloc_ok(room);
        uint64_t nonfinite = 0;
        unsigned bad = 0;
        ck_assert_ptr_nonnull(wire);
        fill_data(src, j.count, GAUSS, (uint64_t)round);
        host_encode(&j, cinchFloat32, src, NULL, wire, &nonfinite);
        for (uint32_t i = 0; i < (round % 3 ? 1 : bytes); i++)
            wire[random32(&s) % (round % 2 ? bytes / 3 + 1 : bytes)] = (unsigned char)random32(&s);
        j.dst_dtype = cinchFloat32;
        j.terms = (cinch_cuda_terms){.at = {wire}, .n = 1};
        j.host[0] = (cinch_codec_term){.wire = wire, .bytes = bytes};
        cinchResult_t fine = host_sum(&j, cinchFloat32, want + SIDE);
        ck_assert_int_eq(device_sum(&j, own + SIDE, &bad), cinchSuccess);
        must((bad != 0) == (fine != cinchSuccess), "%s: bad is %u", j.what, bad);
        if (!bad) check_equal(&j, "sum", cinchFloat32, own + SIDE, want + SIDE, j.count);
        check_guards(own, 0, room, &j);
        free(wire), free(own), free(want), free(src);
    }
}
END_TEST

/* The smallest faults: an index twice, two swapped, one just outside. */
START_TEST(bad_indices_are_refused) {
    enum { COUNT = 20000, K = 200 };
    uint64_t s = 3, nonfinite = 0;
    job j = new_job(10, COUNT, &s);
    unsigned char *wire = guarded(6 * K), *dst = guarded(4 * COUNT);
    float *src = alloc_ok(4 * COUNT);
    fill_data(src, COUNT, GAUSS, 4);
    host_encode(&j, cinchFloat32, src, NULL, wire, &nonfinite);
    j.src_dtype = j.dst_dtype = cinchFloat32;
    j.terms = (cinch_cuda_terms){.at = {wire}, .n = 1};
    for (int fault = 0; fault < 3; fault++)
        for (int i = fault == 2 ? K - 1 : 1; i < K; i++) {
            uint16_t pair[2], bad_pair[2];
            unsigned bad = 0;
            memcpy(pair, wire + 2 * (i - 1), 4);
            bad_pair[0] = fault == 1 ? pair[1] : pair[0];
            bad_pair[1] = fault == 2 ? COUNT : pair[0];
            memcpy(wire + 2 * (i - 1), bad_pair, 4);
            ck_assert_int_eq(device_sum(&j, dst + SIDE, &bad), cinchSuccess);
            must(bad == 1, "fault %d at index %d is not seen", fault, i);
            check_guards(dst, 0, 4 * COUNT, &j);
            memcpy(wire + 2 * (i - 1), pair, 4);
        }
    free(wire), free(dst), free(src);
}
END_TEST

START_TEST(arguments_are_checked) {
    float data[64] = {0};
    unsigned bad = 0;
    unsigned long long nonfinite = 0;
    const cinch_cuda_where where = {0};
    const cinch_cuda_terms none = {0}, one = {.at = {data}, .plain = {1}, .n = 1};
    const cinch_cuda_int8 odd = {.block = 33}, fine = {.block = 32};
    const cinchDataType_t f = cinchFloat32, d = cinchFloat64;
#define REFUSED(call) ck_assert_int_eq(call, cinchInvalidArgument)
    REFUSED(cinch_cuda_int8_encode(&where, &odd, f, data, NULL, 32, data, &nonfinite));
    REFUSED(cinch_cuda_int8_encode(&where, &fine, d, data, NULL, 32, data, &nonfinite));
    REFUSED(cinch_cuda_int8_sum(&where, 16, &one, f, f, data, 32, 0));
    REFUSED(cinch_cuda_int8_sum(&where, 32, &none, f, f, data, 32, 0));
    REFUSED(cinch_cuda_bf16_sum(&where, &one, f, cinchInt8, data, 32, 0));
    REFUSED(cinch_cuda_topk_encode(&where, 0, f, data, NULL, 32, data, &nonfinite));
    REFUSED(cinch_cuda_topk_sum(&where, 1.5, &one, f, f, data, 32, 0, &bad));
    ck_assert_int_eq(cinch_cuda_topk_sum(&where, 0.5, &one, f, f, data, 0, 0, &bad), 0);
    for (int c = 0; c < CODECS; c++) {
        cinch_codec codec = parse_ok(codecs[c].spec);
        for (size_t n = 0; codecs[c].ratio > 0 && n < 200000; n = n * 3 + 1)
            ck_assert_uint_eq(cinch_cuda_topk_bytes(codecs[c].ratio, n),
                              cinch_codec_bound(&codec, n));
    }
}
END_TEST

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "long") == 0) rounds = 6;
    TCase *t = tcase_create("cuda_codec");
    tcase_add_loop_test(t, encodes_agree, 0, CODECS);
    tcase_add_loop_test(t, sums_agree, 0, CODECS);
    tcase_add_loop_test(t, owners_agree, 0, CODECS);
    tcase_add_test(t, garbage_does_no_harm);
    tcase_add_test(t, bad_indices_are_refused);
    tcase_add_test(t, arguments_are_checked);
    return run_suite("cuda_codec", t);
}

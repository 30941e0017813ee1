/* SPDX-License-Identifier: Apache-2.0 */
/* compress/gpu.h above emulated kernels: what the engine queues for a GPU gives the bits of what it
 * calls on the host, for every codec by its specification, at any place in a job, and for more
 * sources than a launch takes. */
#include <stdio.h>

#include "base/status.h"
#include "compress/cuda/kernels.h"
#include "compress/dtype.h"
#include "compress/gpu.h"
#include "compress/reduce.h"
#include "tests/codec_data.h"
#include "tests/cuda/emulate.h"

static int rounds = 1;

/* The address sanitizer wipes a stack at every switch of fibers. */
#ifdef __SANITIZE_ADDRESS__
enum { STEP = 5 };
#else
enum { STEP = 1 };
#endif

static const cinch_gpu_where where = {.blocks = 3};

static const char *const specs[] = {"int8",
                                    "int8:block=64,round=stochastic,seed=5",
                                    "int8:block=1024,round=stochastic",
                                    "bf16",
                                    "topk:ratio=0.02",
                                    "topk:ratio=0.5",
                                    "topk:ratio=1"};
#define SPECS (int)(sizeof specs / sizeof *specs)

static const cinchDataType_t dtypes[] = {cinchFloat32, cinchFloat16, cinchBfloat16};

static void fill_typed(void *out, cinchDataType_t dtype, size_t count, uint64_t seed) {
    float *wide = alloc_ok(count * 4);
    fill_data(wide, count, seed % 5 ? GAUSS : HEAVY, seed);
    cinch_narrow(out, dtype, wide, count);
    free(wide);
}

static size_t host_encode(const cinch_codec *codec, const cinchCodecSite_t *site, const void *state,
                          cinchDataType_t dtype, const void *src, float *residual, size_t count,
                          void *wire, uint64_t *nonfinite) {
    void *scratch = alloc_ok(cinch_codec_scratch(codec, dtype, count));
    size_t bytes = cinch_codec_encode(codec, site, state, dtype, src, residual, count, wire,
                                      nonfinite, scratch);
    free(scratch);
    return bytes;
}

START_TEST(encodes_agree) {
    cinch_codec codec = parse_ok(specs[_i]);
    const cinch_gpu *gpu = cinch_gpu_kernels();
    uint64_t s = 70 + (uint64_t)_i;
    ck_assert_ptr_null(gpu->supports(&codec));
    for (int round = 0; round < 6 * rounds; round++) {
        cinchDataType_t dtype = dtypes[round % 3];
        size_t count = 1 + random32(&s) % 9000, bytes = cinch_codec_bound(&codec, count);
        const cinchCodecSite_t site = {.call = random32(&s),
                                       .offset = (uint64_t)random32(&s) << 16,
                                       .rank = random32(&s) % 9,
                                       .phase = random32(&s) % 2};
        void *src = alloc_ok(4 * count);
        float *left = alloc_ok(4 * count), *residual = alloc_ok(4 * count);
        unsigned char *got = alloc_ok(bytes), *want = alloc_ok(bytes);
        uint64_t nonfinite = 0;
        cinch_gpu_counts counts = {0};
        fill_typed(src, dtype, count, random32(&s));
        fill_data(residual, count, GAUSS, random32(&s));
        memcpy(left, residual, 4 * count);
        bool feedback = round % 2;
        ck_assert_uint_eq(gpu->wire_bytes(&codec, count), bytes);
        ck_assert_uint_eq(gpu->state_bytes(&codec, count), 0);
        ck_assert_uint_eq(host_encode(&codec, &site, NULL, dtype, src, feedback ? residual : NULL,
                                      count, want, &nonfinite),
                          bytes);
        ck_assert_int_eq(gpu->encode(&where, &codec, &site, NULL, dtype, src,
                                     feedback ? left : NULL, count, got, &counts),
                         0);
        must(memcmp(got, want, bytes) == 0, "%s: the message is another", specs[_i]);
        must(memcmp(left, residual, 4 * count) == 0, "%s: the residual is another", specs[_i]);
        ck_assert_uint_eq(counts.nonfinite, nonfinite);
        free(src), free(left), free(residual), free(got), free(want);
    }
}
END_TEST

/* n terms of a sum, encoded or plain, on both sides. */
typedef struct terms {
    int n;
    cinch_gpu_term *gpu;
    cinch_codec_term *host;
} terms;

static terms make_terms(const cinch_codec *codec, cinchDataType_t dtype, int n, size_t count,
                        uint64_t *s) {
    terms t = {.n = n, .gpu = alloc_ok(sizeof *t.gpu * (size_t)n)};
    t.host = alloc_ok(sizeof *t.host * (size_t)n);
    for (int j = 0; j < n; j++) {
        void *at = alloc_ok(cinch_codec_bound(codec, count) + 4 * count), *src = at;
        t.gpu[j] = (cinch_gpu_term){.plain = at};
        t.host[j] = (cinch_codec_term){.plain = at};
        if (random32(s) % 3 == 0) {
            fill_typed(at, dtype, count, random32(s));
            continue;
        }
        uint64_t nonfinite = 0;
        const cinchCodecSite_t site = {.rank = (uint32_t)j};
        src = alloc_ok(4 * count);
        fill_typed(src, cinchFloat32, count, random32(s));
        size_t bytes =
            host_encode(codec, &site, NULL, cinchFloat32, src, NULL, count, at, &nonfinite);
        t.gpu[j] = (cinch_gpu_term){.wire = at, .bytes = bytes};
        t.host[j] = (cinch_codec_term){.wire = at, .bytes = bytes};
        free(src);
    }
    return t;
}

static void free_terms(terms *t) {
    for (int j = 0; j < t->n; j++)
        free((void *)(uintptr_t)(t->host[j].wire ? t->host[j].wire : t->host[j].plain));
    free(t->gpu), free(t->host);
}

static void host_sum(const cinch_codec *codec, const terms *t, cinchDataType_t src_dtype,
                     cinchDataType_t dst_dtype, void *dst, size_t count, int avg_n) {
    void *scratch = alloc_ok(cinch_codec_scratch(codec, src_dtype, count));
    ck_assert_int_eq(
        cinch_codec_sum(codec, t->host, t->n, src_dtype, dst_dtype, dst, count, avg_n, scratch), 0);
    free(scratch);
}

START_TEST(sums_agree) {
    cinch_codec codec = parse_ok(specs[_i]);
    const cinch_gpu *gpu = cinch_gpu_kernels();
    const int most = CINCH_CUDA_TERMS;
    const int sizes[] = {1, 2, 5, most, most + 1, 2 * most - 1, 2 * most, 3 * most + 7};
    uint64_t s = 170 + (uint64_t)_i;
    for (int round = 0; round < 8; round++) {
        int n = sizes[round], avg_n = round % 2 ? n : 0;
        cinchDataType_t dtype = n > most ? cinchFloat32 : dtypes[round % 3];
        size_t count = 1 + random32(&s) % (n > 5 ? 300 : 5000);
        terms t = make_terms(&codec, dtype, n, count, &s);
        void *got = alloc_ok(4 * count), *want = alloc_ok(4 * count);
        cinch_gpu_counts counts = {0};
        host_sum(&codec, &t, dtype, dtype, want, count, avg_n);
        must(gpu->sum(&where, &codec, t.gpu, n, dtype, dtype, got, count, avg_n, &counts) == 0,
             "%s", cinch_last_error());
        must(memcmp(got, want, count * cinch_dtype_size(dtype)) == 0, "%s: a sum of %d is wrong",
             specs[_i], n);
        ck_assert_uint_eq(counts.malformed, 0);
        free_terms(&t);
        free(got), free(want);
    }
}
END_TEST

/* The owner's step is sum, encode and sum. */
START_TEST(owners_agree) {
    cinch_codec codec = parse_ok(specs[_i]);
    const cinch_gpu *gpu = cinch_gpu_kernels();
    uint64_t s = 270 + (uint64_t)_i;
    bool fuses = strncmp(specs[_i], "topk", 4) != 0;
    ck_assert_int_eq(gpu->fuses(&codec), fuses);
    for (int round = 0; fuses && round < 6 * rounds; round++) {
        cinchDataType_t dtype = dtypes[round % 3];
        size_t count = 1 + random32(&s) % 5000, bytes = cinch_codec_bound(&codec, count);
        const cinchCodecSite_t site = {.call = 9, .offset = 1 << 20, .rank = 3, .phase = 1};
        terms t = make_terms(&codec, dtype, 1 + round, count, &s);
        unsigned char *got = alloc_ok(bytes), *want = alloc_ok(bytes);
        float *total = alloc_ok(4 * count), *sent = alloc_ok(4 * count),
              *seen = alloc_ok(4 * count);
        float *left = alloc_ok(4 * count), *residual = alloc_ok(4 * count);
        uint64_t nonfinite = 0;
        cinch_gpu_counts counts = {0};
        fill_data(residual, count, GAUSS, random32(&s));
        memcpy(left, residual, 4 * count);
        host_sum(&codec, &t, dtype, cinchFloat32, total, count, 3);
        host_encode(&codec, &site, NULL, cinchFloat32, total, residual, count, want, &nonfinite);
        cinch_codec_term back = {.wire = want, .bytes = bytes};
        host_sum(&codec, &(terms){.n = 1, .host = &back}, dtype, dtype, seen, count, 0);
        ck_assert_int_eq(gpu->sum_encode(&where, &codec, &site, t.gpu, t.n, dtype, left, count, 3,
                                         got, dtype, sent, &counts),
                         0);
        must(memcmp(got, want, bytes) == 0, "%s: the message is another", specs[_i]);
        must(memcmp(left, residual, 4 * count) == 0, "%s: the residual is another", specs[_i]);
        must(memcmp(sent, seen, count * cinch_dtype_size(dtype)) == 0, "%s: seen otherwise",
             specs[_i]);
        free_terms(&t);
        free(got), free(want), free(total), free(sent), free(seen), free(left), free(residual);
    }
}
END_TEST

/* Any number of sources and destinations; the last destination is one of the sources. */
START_TEST(reductions_agree) {
    const cinch_gpu *gpu = cinch_gpu_kernels();
    const cinchDataType_t types[] = {cinchFloat32, cinchFloat64, cinchInt8, cinchUint64};
    const int many[] = {
        1,  CINCH_CUDA_TERMS, CINCH_CUDA_TERMS + 1, 2 * CINCH_CUDA_TERMS - 1, 2 * CINCH_CUDA_TERMS,
        700};
    enum { COUNT = 41, MOST = 700, DST = 19 };
    static unsigned char src[MOST][8 * COUNT], dst[DST][8 * COUNT], want[8 * COUNT];
    for (int round = 0; round < 4 * 6 * 4; round++) {
        cinchDataType_t dtype = types[round % 4];
        cinchRedOp_t op = (cinchRedOp_t)(round / 4 % 4);
        int n = many[round / 16], ndst = 1 + round % 3 * 9;
        int avg_n = op == cinchSum && round % 2 ? 7 : 0;
        const void *from[MOST];
        void *to[DST], *expected = want;
        uint64_t s = (uint64_t)round;
        for (int j = 0; j < n; j++) {
            for (size_t i = 0; i < sizeof src[j]; i++) src[j][i] = (unsigned char)random32(&s);
            if (dtype == cinchFloat32) fill_data((float *)(void *)src[j], COUNT, GAUSS, s);
            from[j] = src[j];
        }
        for (int d = 0; d < ndst; d++) to[d] = dst[d];
        cinch_reduce_reference(dtype, op)(&expected, 1, from, n, COUNT, avg_n, 0);
        if (ndst > 1) to[0] = src[n - 1];
        must(gpu->reduce(&where, dtype, op, to, ndst, from, n, COUNT, avg_n) == 0, "%s",
             cinch_last_error());
        for (int d = 0; d < ndst; d++)
            must(memcmp(to[d], want, COUNT * cinch_dtype_size(dtype)) == 0,
                 "%s %s of %d: destination %d of %d is wrong", cinch_dtype_name(dtype),
                 cinch_redop_name(op), n, d, ndst);
    }
}
END_TEST

/* ---- select=global ---- */

static const char *const globals[] = {
    "topk:select=global,ratio=0.01", "topk:select=global,ratio=0.0003",
    "topk:select=global,ratio=0.1", "topk:select=global,ratio=0.5", "topk:select=global,ratio=1"};
#define GLOBALS (int)(sizeof globals / sizeof *globals)

/* A buffer on both sides, prepared; then its chunks are encoded. */
typedef struct whole {
    cinch_codec codec;
    cinchDataType_t dtype;
    cinchCodecSite_t site;
    size_t count;
    unsigned char *src;
    float *residual, *left; /* the host's and the GPU's; NULL: none */
    void *host_state, *gpu_state;
    uint64_t nonfinite;
    cinch_gpu_counts counts;
} whole;

/* kind KINDS: one segment larger than all others, so that no list holds it. */
static whole new_whole(const char *spec, int kind, size_t count, bool feedback, int dtype,
                       uint64_t seed) {
    const cinch_gpu *gpu = cinch_gpu_kernels();
    whole w = {.codec = parse_ok(spec), .dtype = dtypes[dtype], .count = count};
    w.site = (cinchCodecSite_t){.offset = (uint64_t)65536 * (seed % 100000), .rank = 1};
    float *wide = alloc_ok(4 * count);
    fill_data(wide, count, kind % KINDS, seed);
    for (size_t i = count / 2; kind == KINDS && i < count && i < count / 2 + 30000; i++)
        wide[i] = 1000 + wide[i];
    w.src = alloc_ok(4 * count + 16);
    w.src += seed % 3 == 0 ? 4 : 0;
    cinch_narrow(w.src, w.dtype, wide, count);
    if (feedback) {
        w.residual = alloc_ok(4 * count);
        w.left = alloc_ok(4 * count);
        fill_data(w.residual, count, kind == TIES ? ZEROS : GAUSS, seed + 1);
        memcpy(w.left, w.residual, 4 * count);
    }
    void *scratch = alloc_ok(cinch_codec_scratch(&w.codec, w.dtype, count));
    w.host_state = alloc_ok(cinch_codec_prepare_bytes(&w.codec, count));
    w.gpu_state = alloc_ok(gpu->state_bytes(&w.codec, count));
    cinch_codec_prepare(&w.codec, &w.site, w.dtype, w.src, w.residual, count, w.host_state,
                        scratch);
    ck_assert_int_eq(
        gpu->prepare(&where, &w.codec, &w.site, w.dtype, w.src, w.left, count, w.gpu_state), 0);
    free(scratch), free(wide);
    return w;
}

static void free_whole(whole *w) {
    free((void *)((uintptr_t)w->src & ~(uintptr_t)63));
    free(w->residual), free(w->left), free(w->host_state), free(w->gpu_state);
}

/* Encodes [first, first + count) on both sides; the message is in *wire. Returns its bytes. */
static size_t check_chunk(whole *w, size_t first, size_t count, unsigned char **wire) {
    const cinch_gpu *gpu = cinch_gpu_kernels();
    size_t room = cinch_codec_bound(&w->codec, count);
    unsigned char *got = alloc_ok(room + 1), *want = alloc_ok(room);
    const unsigned char *src = w->src + first * cinch_dtype_size(w->dtype);
    cinchCodecSite_t site = w->site;
    unsigned long long measured = 0;
    site.offset += first;
    memset(got, 0xa5, room + 1);
    void *state = w->gpu_state;
    if (first % 65536 || (count % 65536 && first + count < w->count)) {
        state = alloc_ok(gpu->state_bytes(&w->codec, count));
        ck_assert_int_eq(gpu->prepare_part(&where, &w->codec, &site, w->dtype, src,
                                           w->left ? w->left + first : NULL, count, w->gpu_state,
                                           state),
                         0);
    }
    size_t bytes =
        host_encode(&w->codec, &site, w->host_state, w->dtype, src,
                    w->residual ? w->residual + first : NULL, count, want, &w->nonfinite);
    ck_assert_int_eq(gpu->encode(&where, &w->codec, &site, state, w->dtype, src,
                                 w->left ? w->left + first : NULL, count, got, &w->counts),
                     0);
    ck_assert_int_eq(gpu->measure(&where, &w->codec, got, count, &measured), 0);
    must(measured == bytes, "a message of %llu bytes, not %zu", measured, bytes);
    must(memcmp(got, want, bytes) == 0, "the message is another");
    for (size_t i = bytes; i <= room; i++) must(got[i] == 0xa5, "byte %zu is written", i);
    must(!w->left || memcmp(w->left + first, w->residual + first, 4 * count) == 0,
         "the residual is another");
    ck_assert_uint_eq(w->counts.nonfinite, w->nonfinite);
    if (state != w->gpu_state) free(state);
    free(want);
    *wire = got;
    return bytes;
}

/* All kinds of data, whole, in chunks of some segments, and in such as begin anywhere. */
START_TEST(global_encodes_agree) {
    static const size_t counts[] = {1, 300, 65536, 65537, 3 * 65536 + 4097, 200000};
    uint64_t s = 370 + (uint64_t)_i;
    for (int round = _i % STEP; round < (KINDS + 1) * rounds; round += STEP) {
        int kind = round % (KINDS + 1);
        size_t count = counts[(size_t)(round + _i) % 6];
        if (kind == KINDS || kind == GAUSS) count = 200000;
        cinch_emulate_order(round % CINCH_EMULATE_ORDERS);
        whole w = new_whole(globals[_i], kind, count, round % 2, round % 3, random32(&s));
        size_t chunk = round % 4 ? 65536 * (size_t)(1 + round % 2) : count;
        if (round % 4 == 3) chunk += random32(&s) % 9001;
        for (size_t at = 0; at < count; at += chunk) {
            unsigned char *wire;
            check_chunk(&w, at, count - at < chunk ? count - at : chunk, &wire);
            free(wire);
        }
        free_whole(&w);
    }
}
END_TEST

/* Messages of all lengths, and plain elements between them; then with bytes that are wrong.
 * Messages have exactly their bytes, for the address sanitizer. */
START_TEST(global_sums_agree) {
    enum { N = 4 };
    const cinch_gpu *gpu = cinch_gpu_kernels();
    uint64_t s = 470 + (uint64_t)_i;
    for (int round = _i % STEP; round < 12 * rounds; round += STEP) {
        size_t count = round % 2 ? 65536 + 1 + random32(&s) % 30000 : 1 + random32(&s) % 9000;
        cinch_gpu_term device[N] = {{0}};
        cinch_codec_term host[N] = {{0}};
        unsigned char *hold[N];
        cinch_codec codec = parse_ok(globals[_i]);
        for (int j = 0; j < N; j++) {
            whole w = new_whole(globals[_i], j ? GAUSS : SPARSE, count, false, 0, random32(&s));
            unsigned char *wire;
            size_t bytes = check_chunk(&w, 0, count, &wire);
            hold[j] = malloc(j == 2 ? 4 * count : bytes + (round % 8 == 3));
            ck_assert_ptr_nonnull(hold[j]);
            memcpy(hold[j], j == 2 ? w.src : wire, j == 2 ? 4 * count : bytes);
            device[j] = (cinch_gpu_term){.wire = hold[j], .bytes = bytes};
            host[j] = (cinch_codec_term){.wire = hold[j], .bytes = bytes};
            if (j == 2) {
                device[j] = (cinch_gpu_term){.plain = hold[j]};
                host[j] = (cinch_codec_term){.plain = hold[j]};
            }
            free(wire);
            free_whole(&w);
        }
        if (round % 4 > 1) { /* heads above all */
            size_t which = random32(&s) % 2 ? random32(&s) % 4 : random32(&s) % device[1].bytes;
            hold[1][which] ^= (unsigned char)(1 + random32(&s) % 255);
        }
        if (round % 8 == 7) host[3].bytes = --device[3].bytes;
        if (round % 8 == 3) host[3].bytes = ++device[3].bytes;
        float *got = alloc_ok(4 * count), *want = alloc_ok(4 * count);
        void *scratch = alloc_ok(cinch_codec_scratch(&codec, cinchFloat32, count));
        cinch_gpu_counts counts = {0};
        bool fine = cinch_codec_sum(&codec, host, N, cinchFloat32, cinchFloat32, want, count, 3,
                                    scratch) == cinchSuccess;
        ck_assert_int_eq(
            gpu->sum(&where, &codec, device, N, cinchFloat32, cinchFloat32, got, count, 3, &counts),
            0);
        must(fine == (counts.malformed == 0), "%s, round %d: malformed is %u", globals[_i], round,
             counts.malformed);
        must(!fine || first_difference(got, want, count) == count, "%s: a sum is wrong",
             globals[_i]);
        for (int j = 0; j < N; j++) free(hold[j]);
        free(got), free(want), free(scratch);
    }
}
END_TEST

/* What cannot be done is said, before anything is queued. */
START_TEST(limits_are_told) {
    enum { N = CINCH_CUDA_TERMS + 1 };
    const cinch_gpu *gpu = cinch_gpu_kernels();
    float data[8] = {0}, more[8] = {0};
    const void *src[N];
    cinch_gpu_term t[N] = {{0}};
    void *dst = data;
    cinch_gpu_counts counts = {0};
    cinch_codec int8 = parse_ok("int8"), none = parse_ok("none"), plugin = int8;
    cinchCodec_t foreign = *int8.vt;
    plugin.vt = &foreign;
    for (int j = 0; j < N; j++) src[j] = t[j].plain = more;
    uint64_t before = cinch_emulate_count().count;
    ck_assert_ptr_nonnull(gpu->supports(&none));
    ck_assert_ptr_nonnull(gpu->supports(&plugin));
    const cinchDataType_t f = cinchFloat32, h = cinchFloat16;
    const cinchCodecSite_t site = {0};
#define REFUSED(call) ck_assert_int_eq(call, cinchInvalidArgument)
    REFUSED(gpu->encode(&where, &plugin, &site, NULL, f, data, NULL, 8, more, &counts));
    REFUSED(gpu->sum(&where, &plugin, t, 1, f, f, data, 8, 0, &counts));
    REFUSED(gpu->sum(&where, &int8, t, N, h, h, data, 8, 0, &counts));
    REFUSED(gpu->sum_encode(&where, &int8, &site, t, N, f, NULL, 8, 0, more, f, data, &counts));
    REFUSED(gpu->reduce(&where, h, cinchSum, &dst, 1, src, N, 8, 0));
    cinch_codec global = parse_ok("topk:select=global");
    REFUSED(gpu->encode(&where, &global, &site, NULL, f, data, NULL, 8, more, &counts));
    src[N - 1] = t[N - 1].plain = data;
    REFUSED(gpu->reduce(&where, f, cinchSum, &dst, 1, src, N, 8, 0));
    REFUSED(gpu->sum(&where, &int8, t, N, f, f, data, 8, 0, &counts));
    t[0] = (cinch_gpu_term){.wire = more, .bytes = 11};
    ck_assert_int_eq(gpu->sum(&where, &int8, t, 1, f, f, data, 8, 0, &counts), cinchRemoteError);
    ck_assert_uint_eq(cinch_emulate_count().count, before);
}
END_TEST

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "long") == 0) rounds = 6;
    TCase *t = tcase_create("cuda_table");
    tcase_add_loop_test(t, encodes_agree, 0, SPECS);
    tcase_add_loop_test(t, sums_agree, 0, SPECS);
    tcase_add_loop_test(t, owners_agree, 0, SPECS);
    tcase_add_loop_test(t, global_encodes_agree, 0, GLOBALS);
    tcase_add_loop_test(t, global_sums_agree, 0, GLOBALS);
    tcase_add_test(t, reductions_agree);
    tcase_add_test(t, limits_are_told);
    return run_suite("cuda_table", t);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The codecs' kernels: every instruction set gives the reference's bits, for any size and
 * alignment; top-k takes what a plain sort takes; and no bytes from a peer lead astray. */
#include "tests/codec_data.h"

#define GUARD 0xa5

static const char *const specs[] = {
    "int8",
    "int8:block=32",
    "int8:block=64",
    "int8:block=4096",
    "int8:round=stochastic,seed=7",
    "int8:round=stochastic,block=32",
    "bf16",
    "topk",
    "topk:ratio=0.3",
    "topk:ratio=1",
    "topk:ratio=0.0001",
    "topk:ratio=0.08",
    "topk:select=global",
    "topk:select=global,ratio=0.2",
};
#define SPECS (int)(sizeof specs / sizeof *specs)

START_TEST(avx2_is_there) {
#if defined(__x86_64__)
    ck_assert_msg(cinch_codec_kernels_at(1) && !strcmp(cinch_codec_kernels_at(1)->isa, "avx2"),
                  "this machine has no AVX2: its kernels cannot be tested");
#endif
    const cinch_codec_kernels *last = NULL;
    for (int i = 0; cinch_codec_kernels_at(i); i++) last = cinch_codec_kernels_at(i);
    ck_assert_ptr_eq(cinch_codec_kernels_get(), last);
    ck_assert_str_eq(cinch_codec_isa(), last->isa);
}
END_TEST

typedef struct outcome {
    unsigned char *wire;
    float *residual, *alone, *sum;
    size_t bytes;
    uint64_t nonfinite;
} outcome;

/* Encodes, decodes and adds up with one table of kernels, everything shifted off alignment. */
static void run(const cinch_codec *codec, const cinch_codec_kernels *kernels, const float *src,
                const float *old, size_t count, size_t shift, outcome *out) {
    const cinchCodecSite_t site = {.call = 3, .offset = 65536 * 3, .rank = 2, .phase = 1};
    size_t room = cinch_codec_bound(codec, count);
    cinch_codec_kernels_force(kernels);
    out->wire = alloc_ok(room + shift + 1);
    out->residual = alloc_ok((count + shift) * 4);
    out->alone = alloc_ok((count + shift) * 4);
    out->sum = alloc_ok((count + shift) * 4);
    out->nonfinite = 0;
    unsigned char *wire = out->wire + shift;
    float *residual = old ? out->residual + shift : NULL;
    if (old) memcpy(residual, old, count * 4);
    wire[room] = GUARD;
    _Alignas(16) unsigned char state[64] = {0};
    ck_assert_uint_le(cinch_codec_prepare_bytes(codec, count), sizeof state);
    cinch_codec_prepare(codec, &site, cinchFloat32, src, residual, count, state, NULL);
    out->bytes = codec->vt->encode(codec->params, &site,
                                   cinch_codec_prepare_bytes(codec, count) ? state : NULL, src,
                                   residual, count, wire, &out->nonfinite);
    ck_assert_uint_le(out->bytes, room);
    if (cinch_codec_fixed_size(codec)) ck_assert_uint_eq(out->bytes, room);
    ck_assert_uint_eq(wire[room], GUARD);
    float *alone = out->alone + shift, *sum = out->sum + shift;
    ck_assert_int_eq(codec->vt->decode(codec->params, wire, out->bytes, count, 0, count, alone), 0);
    const void *wires[] = {wire, wire, wire};
    size_t bytes[] = {out->bytes, out->bytes, out->bytes};
    fill_data(sum, count, GAUSS, 99);
    ck_assert_int_eq(
        codec->vt->decode_add(codec->params, 3, wires, bytes, count, 0, count, sum, sum), 0);
    ck_assert_int_eq(
        codec->vt->decode_add(codec->params, 1, wires, bytes, count, 0, count, sum, sum), 0);
    cinch_codec_kernels_force(NULL);
}

static void release(outcome *out) {
    free(out->wire);
    free(out->residual);
    free(out->alone);
    free(out->sum);
}

/* What decode_add should have made of it, from the decoded values. */
static void check_sum(const cinch_codec *codec, const outcome *out, size_t count, size_t shift) {
    float *want = alloc_ok(count * 4);
    fill_data(want, count, GAUSS, 99);
    for (size_t i = 0; i < count; i++)
        for (int j = 0; j < 4; j++) want[i] += out->alone[shift + i];
    ck_assert_uint_eq(first_difference(want, out->sum + shift, count), count);
    free(want);
    (void)codec;
}

static void compare(const char *spec, int kind, size_t count, size_t shift, bool feedback) {
    cinch_codec codec = parse_ok(spec);
    float *src = alloc_ok((count + 1) * 4), *old = alloc_ok((count + 1) * 4);
    fill_data(src, count, kind, count + 1);
    fill_data(old, count, kind == TIES ? ZEROS : GAUSS, 5);
    outcome want, got;
    run(&codec, &cinch_codec_kernels_reference, src, feedback ? old : NULL, count, shift, &want);
    check_sum(&codec, &want, count, shift);
    for (int k = 1; cinch_codec_kernels_at(k); k++) {
        const cinch_codec_kernels *kernels = cinch_codec_kernels_at(k);
        run(&codec, kernels, src, feedback ? old : NULL, count, shift, &got);
        ck_assert_uint_eq(got.bytes, want.bytes);
        ck_assert_uint_eq(got.nonfinite, want.nonfinite);
        size_t at = first_difference(got.sum + shift, want.sum + shift, count);
        ck_assert_msg(
            !memcmp(got.wire + shift, want.wire + shift, want.bytes) &&
                !memcmp(got.alone + shift, want.alone + shift, count * 4) &&
                (!feedback || !memcmp(got.residual + shift, want.residual + shift, count * 4)) &&
                at == count,
            "%s differs from the reference: %s, kind %d, %zu elements, shift %zu, ef %d",
            kernels->isa, spec, kind, count, shift, feedback);
        release(&got);
    }
    release(&want);
    free(src);
    free(old);
}

START_TEST(small_sizes_agree) {
    for (size_t count = 0; count <= 70; count++)
        for (int f = 0; f < 2; f++) compare(specs[_i], (int)(count % KINDS), count, count % 5, f);
}
END_TEST

START_TEST(all_kinds_agree) {
    static const size_t counts[] = {255, 256, 1023, 4097, 9001};
    for (int c = 0; c < 5; c++)
        for (int kind = 0; kind < KINDS; kind++)
            for (int f = 0; f < 2; f++) compare(specs[_i], kind, counts[c], (size_t)(c + f) % 4, f);
}
END_TEST

START_TEST(segments_agree) {
    static const size_t counts[] = {65535, 65536, 65537, 131072 + 4097};
    for (int c = 0; c < 4; c++)
        for (int kind = c % 2; kind < KINDS; kind += 2)
            compare(specs[_i], kind, counts[c], (size_t)c, (kind + c) / 2 % 2);
}
END_TEST

/* ---- top-k against a sort ---- */

typedef struct entry {
    uint32_t magnitude;
    uint32_t index;
} entry;

static int larger_first(const void *a, const void *b) {
    const entry *x = a, *y = b;
    if (x->magnitude != y->magnitude) return x->magnitude < y->magnitude ? 1 : -1;
    return (x->index > y->index) - (x->index < y->index);
}

static void check_topk(const cinch_codec_kernels *kernels, int kind, size_t len, size_t k,
                       bool ef) {
    float *src = alloc_ok(len * 4), *old = alloc_ok(len * 4), *residual = alloc_ok(len * 4);
    entry *all = alloc_ok(len * sizeof *all);
    unsigned char *index = alloc_ok(2 * k), *value = alloc_ok(4 * k), *chosen = alloc_ok(len);
    fill_data(src, len, kind, 11 + len);
    fill_data(old, len, kind == TIES ? TIES : GAUSS, 12);
    memcpy(residual, old, len * 4);
    memset(chosen, 0, len);
    for (size_t i = 0; i < len; i++) {
        float v = ef ? src[i] + old[i] : src[i];
        all[i] = (entry){cinch_float_bits(v) & CINCH_ABS_BITS, (uint32_t)i};
    }
    qsort(all, len, sizeof *all, larger_first);
    for (size_t i = 0; i < k; i++) chosen[all[i].index] = 1;
    uint64_t nonfinite = 0, want_nonfinite = 0;
    kernels->topk_select(src, ef ? residual : NULL, len, k, index, value, &nonfinite);
    size_t at = 0;
    for (size_t i = 0; i < len; i++) {
        float v = ef ? src[i] + old[i] : src[i], left = old[i];
        bool finite = isfinite(v);
        if (finite && ef) left = chosen[i] ? 0 : v;
        must(cinch_float_bits(residual[i]) == cinch_float_bits(left),
             "%s: residual %zu of %zu is wrong, k %zu, kind %d", kernels->isa, i, len, k, kind);
        if (!chosen[i]) continue;
        uint16_t got_index;
        float got;
        memcpy(&got_index, index + 2 * at, 2);
        memcpy(&got, value + 4 * at, 4);
        uint32_t want = finite ? cinch_float_bits(v) : CINCH_NAN_BITS;
        must(got_index == i && cinch_float_bits(got) == want,
             "%s: entry %zu is wrong, %zu elements, k %zu, kind %d", kernels->isa, at, len, k,
             kind);
        want_nonfinite += !finite;
        at++;
    }
    ck_assert_uint_eq(nonfinite, want_nonfinite);
    free(src), free(old), free(residual), free(all), free(index), free(value), free(chosen);
}

START_TEST(topk_takes_the_largest) {
    static const size_t lens[] = {1, 2, 17, 1000, 4096, 4111, 10000, 65536};
    for (int t = 0; cinch_codec_kernels_at(t); t++)
        for (int l = 0; l < 8; l++)
            for (int kind = 0; kind < KINDS; kind++) {
                if (lens[l] > 20000 && kind % 3 != _i) continue;
                size_t len = lens[l], ks[] = {1, (len + 99) / 100, (len + 15) / 16, len};
                for (int k = 0; k < 4; k++)
                    check_topk(cinch_codec_kernels_at(t), kind, len, ks[k], (k + l + _i) % 2);
            }
}
END_TEST

/* ---- bytes from a peer ---- */

static void try_bytes(const cinch_codec *codec, const unsigned char *wire, size_t bytes,
                      size_t count) {
    /* Exactly so many bytes on the heap: a read beyond is seen by the address sanitizer. */
    unsigned char *exact = malloc(bytes ? bytes : 1);
    float *dst = alloc_ok(count * 4);
    const void *wires[] = {exact};
    ck_assert_ptr_nonnull(exact);
    memcpy(exact, wire, bytes);
    fill_data(dst, count, GAUSS, 1);
    (void)codec->vt->decode(codec->params, exact, bytes, count, 0, count, dst);
    (void)codec->vt->decode_add(codec->params, 1, wires, &bytes, count, 0, count, dst, dst);
    free(exact);
    free(dst);
}

START_TEST(garbage_does_no_harm) {
    cinch_codec codec = parse_ok(specs[_i]);
    static const size_t counts[] = {1, 300, 4097, 65536 + 100};
    uint64_t s = 77;
    for (int c = 0; c < 4; c++) {
        size_t count = counts[c], room = cinch_codec_bound(&codec, count);
        unsigned char *wire = alloc_ok(room + 64);
        for (int round = 0; round < 12; round++) {
            for (size_t i = 0; i < room + 64; i++)
                wire[i] = (unsigned char)(random32(&s) & (round % 3 ? 0xff : 0x01));
            try_bytes(&codec, wire, round < 6 ? room : random32(&s) % (room + 64), count);
        }
        float *dst = alloc_ok(count * 4);
        if (cinch_codec_fixed_size(&codec)) {
            ck_assert_int_eq(codec.vt->decode(codec.params, wire, room - 1, count, 0, count, dst),
                             -1);
            ck_assert_int_eq(codec.vt->decode(codec.params, wire, room + 1, count, 0, count, dst),
                             -1);
        }
        ck_assert_int_eq(codec.vt->decode(codec.params, wire, 0, count, 0, count, dst), -1);
        free(dst);
        free(wire);
    }
}
END_TEST

/* Indices that do not rise or lie outside, and counts beyond the segment, are refused. */
START_TEST(bad_sparse_messages_are_refused) {
    cinch_codec codec = parse_ok("topk:ratio=0.1"), global = parse_ok("topk:select=global");
    const cinchCodecSite_t site = {0};
    enum { COUNT = 100, K = 10 };
    float src[COUNT], dst[COUNT];
    unsigned char wire[COUNT * 8];
    uint64_t nonfinite = 0;
    fill_data(src, COUNT, GAUSS, 3);
    size_t bytes = codec.vt->encode(codec.params, &site, NULL, src, NULL, COUNT, wire, &nonfinite);
    ck_assert_uint_eq(bytes, 6 * K);
    ck_assert_int_eq(codec.vt->decode(codec.params, wire, bytes, COUNT, 0, COUNT, dst), 0);
    uint16_t index[2];
    memcpy(index, wire, 4);
    memcpy(wire + 2, index, 2);
    ck_assert_int_eq(codec.vt->decode(codec.params, wire, bytes, COUNT, 0, COUNT, dst), -1);
    memcpy(wire, index, 4);
    uint16_t outside = COUNT;
    memcpy(wire + 2 * (K - 1), &outside, 2);
    ck_assert_int_eq(codec.vt->decode(codec.params, wire, bytes, COUNT, 0, COUNT, dst), -1);

    bytes = global.vt->encode(global.params, &site, NULL, src, NULL, COUNT, wire, &nonfinite);
    ck_assert_uint_eq(bytes, 4 + 6);
    ck_assert_int_eq(global.vt->decode(global.params, wire, bytes, COUNT, 0, COUNT, dst), 0);
    ck_assert_int_eq(global.vt->decode(global.params, wire, bytes + 1, COUNT, 0, COUNT, dst), -1);
    uint32_t heads[] = {0, 2, 67, 101, 0x7fffffff, 0xfffffffe, 0xffffffff};
    for (int i = 0; i < 7; i++) {
        memcpy(wire, &heads[i], 4);
        ck_assert_int_eq(global.vt->decode(global.params, wire, bytes, COUNT, 0, COUNT, dst), -1);
    }
}
END_TEST

int main(void) {
    TCase *t = tcase_create("codec_kernels");
    tcase_add_test(t, avx2_is_there);
    tcase_add_loop_test(t, small_sizes_agree, 0, SPECS);
    tcase_add_loop_test(t, all_kinds_agree, 0, SPECS);
    tcase_add_loop_test(t, segments_agree, 0, SPECS);
    tcase_add_loop_test(t, topk_takes_the_largest, 0, 3);
    tcase_add_loop_test(t, garbage_does_no_harm, 0, SPECS);
    tcase_add_test(t, bad_sparse_messages_are_refused);
    return run_suite("codec_kernels", t);
}

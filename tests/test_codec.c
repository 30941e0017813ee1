/* SPDX-License-Identifier: Apache-2.0 */
/* Codecs as the collectives use them: specifications, error bounds, error feedback, sums. */
#include "tests/codec_data.h"

#include "compress/dtype.h"

static const cinchCodecSite_t origin = {0};

/* ---- specifications ---- */

START_TEST(good_specs) {
    static const struct {
        const char *spec, *name;
        bool ef;
        size_t granule, bytes; /* of 1000 elements */
    } good[] = {
        {"int8", "int8", false, 256, 1016},
        {"int8:block=32,ef=1", "int8", true, 32, 1128},
        {"int8:ef=0,seed=18446744073709551615,round=stochastic", "int8", false, 256, 1016},
        {"bf16", "bf16", false, 1, 2000},
        {"bf16:ef=1", "bf16", true, 1, 2000},
        {"topk", "topk", true, 65536, 60},
        {"topk:ef=0", "topk", false, 65536, 60},
        {"topk:ratio=0.07", "topk", true, 65536, 420},
        {"topk:ratio=1e-2", "topk", true, 65536, 60},
        {"topk:ratio=.5", "topk", true, 65536, 3000},
        {"topk:ratio=0.7,select=segment", "topk", true, 65536, 4000},
        {"topk:ratio=1", "topk", true, 65536, 4000},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cinch_codec codec = parse_ok(good[i].spec);
        ck_assert_str_eq(codec.vt->name, good[i].name);
        ck_assert_int_eq(codec.ef, good[i].ef);
        ck_assert_uint_eq(cinch_codec_granule(&codec), good[i].granule);
        ck_assert_uint_eq(cinch_codec_bound(&codec, 1000), good[i].bytes);
        ck_assert(cinch_codec_fixed_size(&codec));
    }
    /* 0.07 * 100 is more than 7 in doubles. */
    cinch_codec seven = parse_ok("topk:ratio=0.07");
    ck_assert_uint_eq(cinch_codec_bound(&seven, 100), 7 * 6);
    ck_assert_uint_eq(cinch_codec_bound(&seven, 101), 8 * 6);
    ck_assert_ptr_null(parse_ok("none").vt);
    cinch_codec global = parse_ok("topk:select=global");
    ck_assert(!cinch_codec_fixed_size(&global));
    ck_assert_uint_gt(cinch_codec_prepare_bytes(&global, 1000), 0);
}
END_TEST

START_TEST(bad_specs) {
    static const struct {
        const char *spec, *part;
    } bad[] = {
        {"", "none, bf16, int8, topk"},
        {"int9", "'int9' names no codec: accepted are auto, none, bf16, int8, topk"},
        {"INT8", "names no codec"},
        {"none:ef=1", "names no codec"},
        {"auto", "names no codec"}, /* its caller knows it */
        {"auto:x=1", "names no codec"},
        {"int8:block=31", "block=N (a power of two from 32 to 4096)"},
        {"int8:block=48", "power of two"},
        {"int8:block=8192", "power of two"},
        {"int8:block=", "power of two"},
        {"int8:block=+64", "power of two"},
        {"int8:block", "no key=value: int8 accepts ef=0|1, inplace=0|1 and block=N"},
        {"int8:block=64,", "ends with a comma"},
        {"int8:,block=64", "no key=value"},
        {"int8:block=64,block=64", "gives a key twice"},
        {"int8:ef=1,ef=1", "gives a key twice"},
        {"int8:ef=2", "wrong value of ef"},
        {"int8:ef=", "wrong value of ef"},
        {"int8:round=up", "round=nearest|stochastic"},
        {"int8:seed=18446744073709551616", "seed=N"},
        {"int8:seed=-1", "seed=N"},
        {"bf16:block=64", "bf16 accepts ef=0|1, inplace=0|1 and no parameter"},
        {"topk:ratio=0", "ratio=R (above 0, at most 1)"},
        {"topk:ratio=1.01", "ratio=R"},
        {"topk:ratio=-0.1", "ratio=R"},
        {"topk:ratio=0,01", "no key=value"},
        {"topk:ratio=nan", "ratio=R"},
        {"topk:ratio=.", "ratio=R"},
        {"topk:ratio=1e", "ratio=R"},
        {"topk:ratio=0x1p-3", "ratio=R"},
        {"topk:select=all", "select=segment|global"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cinch_codec codec;
        char why[512] = "";
        ck_assert_msg(!cinch_codec_parse(bad[i].spec, &codec, why, sizeof why), "%s", bad[i].spec);
        ck_assert_msg(strstr(why, bad[i].part), "%s: %s", bad[i].spec, why);
    }
    char why[16], longest[2000] = "int8:seed=";
    memset(longest + 10, '1', 1900);
    cinch_codec codec;
    ck_assert(!cinch_codec_parse(longest, &codec, why, sizeof why));
    ck_assert_uint_lt(strnlen(why, sizeof why), sizeof why);
}
END_TEST

START_TEST(registry) {
    static const char *const names[] = {"bf16", "int8", "topk"};
    for (int i = 0; i < 3; i++) ck_assert_str_eq(cinch_codec_at(i)->name, names[i]);
    ck_assert_ptr_null(cinch_codec_at(3));
    ck_assert_ptr_null(cinch_codec_at(-1));
}
END_TEST

/* ---- errors of one encode ---- */

static void round_trip(const cinch_codec *codec, const float *src, size_t count, float *out,
                       uint64_t *nonfinite) {
    void *wire = alloc_ok(cinch_codec_bound(codec, count));
    size_t bytes =
        codec->vt->encode(codec->params, &origin, NULL, src, NULL, count, wire, nonfinite);
    ck_assert_int_eq(codec->vt->decode(codec->params, wire, bytes, count, 0, count, out), 0);
    free(wire);
}

START_TEST(errors_stay_in_bounds) {
    static const char *const specs[] = {"int8", "int8:block=32", "int8:block=4096",
                                        "int8:round=stochastic", "bf16"};
    cinch_codec codec = parse_ok(specs[_i]);
    size_t block = cinch_codec_block(&codec);
    ck_assert_uint_eq(block, _i == 4 ? 1 : cinch_codec_granule(&codec));
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t count = 1; count < 12000; count = count * 3 + 1) {
            float *src = alloc_ok(count * 4), *out = alloc_ok(count * 4);
            uint64_t nonfinite = 0, bad_blocks = 0;
            fill_data(src, count, kind, count);
            round_trip(&codec, src, count, out, &nonfinite);
            for (size_t b = 0; b < count; b += block) {
                size_t end = b + block < count ? b + block : count;
                float max = 0;
                bool finite = true;
                for (size_t i = b; i < end; i++) {
                    finite = finite && isfinite(src[i]);
                    max = fabsf(src[i]) > max ? fabsf(src[i]) : max;
                }
                double bound = cinch_codec_step_bound(&codec, finite ? max : NAN);
                bad_blocks += !finite || (block == 1 && !isfinite(out[b]));
                for (size_t i = b; i < end; i++) {
                    double error = fabs((double)out[i] - (double)src[i]);
                    bool fine = finite ? error <= bound : !isfinite(out[i]);
                    must(fine, "%s kind %d: %g became %g, abs-max %g, bound %g", specs[_i], kind,
                         src[i], out[i], max, bound);
                }
            }
            ck_assert_uint_eq(nonfinite, bad_blocks);
            free(src), free(out);
        }
}
END_TEST

START_TEST(int8_corners) {
    cinch_codec codec = parse_ok("int8:block=32");
    float src[64], out[64];
    static const float tops[] = {3.4028235e38f, 3.4e38f,   1.7e38f,        0x1p-118f,
                                 0x1.8p-118f,   0x1p-100f, 1e-30f,         1.0f,
                                 127.0f,        3.1e-36f,  0x1.fffffep-1f, 0x1.000002p0f};
    for (size_t t = 0; t < sizeof tops / sizeof *tops; t++) {
        uint64_t nonfinite = 0;
        for (int i = 0; i < 64; i++) src[i] = tops[t] * ((float)(i - 32) / 32);
        src[0] = tops[t];
        src[40] = -tops[t];
        round_trip(&codec, src, 64, out, &nonfinite);
        ck_assert_uint_eq(nonfinite, 0);
        for (int i = 0; i < 64; i++)
            must(fabs((double)out[i] - (double)src[i]) <= tops[t] / 254.0 * 1.0001,
                 "top %g: %g became %g", tops[t], src[i], out[i]);
    }
    /* Below 2^-118: zero, and error feedback keeps it all. */
    float residual[64] = {0};
    unsigned char wire[80];
    uint64_t nonfinite = 0;
    for (int i = 0; i < 64; i++) src[i] = i % 2 ? -0x1.fffffep-119f : 1e-44f;
    codec.vt->encode(codec.params, &origin, NULL, src, residual, 64, wire, &nonfinite);
    ck_assert_int_eq(codec.vt->decode(codec.params, wire, 72, 64, 0, 64, out), 0);
    for (int i = 0; i < 64; i++) {
        ck_assert(out[i] == 0);
        ck_assert(residual[i] == src[i]);
    }
    ck_assert_uint_eq(nonfinite, 0);
    ck_assert(isnan(cinch_codec_step_bound(&(cinch_codec){.vt = &cinch_codec_topk}, 1)));
}
END_TEST

/* One bad element spoils its block and no other; the old residual stays. */
START_TEST(nonfinite_blocks) {
    static const uint32_t bad[] = {0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffffffff};
    static const char *const specs[] = {"int8:block=64,ef=1", "bf16:ef=1", "topk:ratio=0.02"};
    cinch_codec codec = parse_ok(specs[_i]);
    enum { COUNT = 6000, AT = 777 };
    float *src = alloc_ok(COUNT * 4), *old = alloc_ok(COUNT * 4), *residual = alloc_ok(COUNT * 4),
          *out = alloc_ok(COUNT * 4);
    unsigned char *wire = alloc_ok(cinch_codec_bound(&codec, COUNT));
    for (int b = 0; b < 5; b++) {
        uint64_t nonfinite = 0;
        fill_data(src, COUNT, GAUSS, 4);
        fill_data(old, COUNT, GAUSS, 5);
        memcpy(residual, old, COUNT * 4);
        src[AT] = cinch_bits_float(bad[b]);
        size_t bytes = cinch_codec_encode(&codec, &origin, NULL, cinchFloat32, src, residual, COUNT,
                                          wire, &nonfinite, NULL);
        ck_assert_int_eq(codec.vt->decode(codec.params, wire, bytes, COUNT, 0, COUNT, out), 0);
        ck_assert_uint_eq(nonfinite, 1);
        size_t block = _i == 0 ? 64 : 1;
        for (size_t i = 0; i < COUNT; i++) {
            bool spoilt = i / block == AT / block;
            must(spoilt == !isfinite(out[i]), "%s: element %zu", specs[_i], i);
            must(!spoilt || residual[i] == old[i], "%s: residual %zu", specs[_i], i);
            must(spoilt || residual[i] == (src[i] + old[i]) - out[i], "%s: residual %zu", specs[_i],
                 i);
        }
    }
    free(src), free(old), free(residual), free(out), free(wire);
}
END_TEST

/* ---- error feedback ---- */

/* Everything put in is sent or in the residual. */
static void conserve(cinch_codec codec, cinchDataType_t dtype, const char *what, size_t count) {
    enum { STEPS = 1000 };
    size_t size = cinch_dtype_size(dtype);
    float *src = alloc_ok(count * 4), *wide = alloc_ok(count * 4), *out = alloc_ok(count * 4);
    float *residual = alloc_ok(count * 4);
    unsigned char *wire = alloc_ok(cinch_codec_bound(&codec, count)),
                  *typed = alloc_ok(count * size);
    void *scratch = alloc_ok(cinch_codec_scratch(&codec, dtype, count));
    double *in = calloc(count, sizeof *in), *sent = calloc(count, sizeof *in);
    double *magnitude = calloc(count, sizeof *in);
    must(in && sent && magnitude, "out of memory");
    memset(residual, 0, count * 4);
    _Alignas(16) unsigned char state[64];
    for (uint64_t step = 0; step < STEPS; step++) {
        cinchCodecSite_t site = {.call = step};
        uint64_t nonfinite = 0;
        fill_data(src, count, step % 3 ? GAUSS : HEAVY, step);
        cinch_narrow(typed, dtype, src, count);
        cinch_widen(wide, typed, dtype, count);
        cinch_codec_prepare(&codec, &site, dtype, typed, residual, count, state, scratch);
        size_t bytes = cinch_codec_encode(&codec, &site, state, dtype, typed, residual, count, wire,
                                          &nonfinite, scratch);
        int failed = codec.vt->decode(codec.params, wire, bytes, count, 0, count, out);
        must(!failed && !nonfinite, "%s: does not decode", what);
        for (size_t i = 0; i < count; i++) {
            in[i] += (double)wide[i];
            sent[i] += (double)out[i];
            magnitude[i] += fabs((double)wide[i]);
        }
    }
    double largest = 0;
    for (size_t i = 0; i < count; i++) {
        double lost = fabs(in[i] - sent[i] - (double)residual[i]);
        must(lost <= STEPS * 0x1p-23 * magnitude[i], "%s: element %zu lost %g", what, i, lost);
        largest = fabs(sent[i]) > largest ? fabs(sent[i]) : largest;
    }
    must(largest > 0, "%s: nothing was sent", what);
    free(src), free(wide), free(out), free(residual), free(wire), free(typed), free(scratch);
    free(in), free(sent), free(magnitude);
}

static const char *const feedback_specs[] = {
    "int8:ef=1", "int8:ef=1,round=stochastic,block=64", "bf16:ef=1", "topk", "topk:select=global",
};

START_TEST(nothing_gets_lost) {
    conserve(parse_ok(feedback_specs[_i]), cinchFloat32, feedback_specs[_i], 4200);
    conserve(parse_ok(feedback_specs[_i]), cinchBfloat16, feedback_specs[_i], 300);
}
END_TEST

/* The library's own error feedback does what the codec's does: the same bytes and residuals. */
START_TEST(feedback_without_the_codec) {
    cinch_codec codec = parse_ok(feedback_specs[_i]), plain = codec;
    cinchCodec_t vt = *codec.vt;
    vt.flags &= ~CINCH_CODEC_EF;
    vt.decode_add = NULL;
    plain.vt = &vt;
    for (size_t count = 1; count < 150000; count = count * 5 + 3) {
        float *src = alloc_ok(count * 4), *a = alloc_ok(count * 4), *b = alloc_ok(count * 4);
        size_t room = cinch_codec_bound(&codec, count);
        unsigned char *wire_a = alloc_ok(room), *wire_b = alloc_ok(room);
        void *scratch = alloc_ok(cinch_codec_scratch(&plain, cinchFloat32, count));
        uint64_t bad_a = 0, bad_b = 0;
        fill_data(a, count, HEAVY, 8);
        fill_data(b, count, HEAVY, 8);
        for (int step = 0; step < 4; step++) {
            fill_data(src, count, step == 2 ? NONFINITE : GAUSS, (uint64_t)step + 30);
            size_t bytes = cinch_codec_encode(&codec, &origin, NULL, cinchFloat32, src, a, count,
                                              wire_a, &bad_a, scratch);
            ck_assert_uint_eq(cinch_codec_encode(&plain, &origin, NULL, cinchFloat32, src, b, count,
                                                 wire_b, &bad_b, scratch),
                              bytes);
            ck_assert(!memcmp(wire_a, wire_b, bytes));
            ck_assert_uint_eq(bad_a, bad_b);
            /* -0 and 0 are the same residual. */
            for (size_t i = 0; i < count; i++)
                must(a[i] == b[i], "%s: residual %zu of %zu", feedback_specs[_i], i, count);
        }
        free(src), free(a), free(b), free(wire_a), free(wire_b), free(scratch);
    }
}
END_TEST

/* ---- random rounding ---- */

/* A buffer gives the same codes however it is cut, and others for another place in the job. */
START_TEST(random_rounding_is_keyed) {
    cinch_codec codec = parse_ok("int8:round=stochastic,seed=5");
    enum { COUNT = 4096, CUT = 1024 };
    float src[COUNT];
    unsigned char whole[COUNT + 64], part[CUT + 16], other[COUNT + 64];
    uint64_t bad = 0;
    fill_data(src, COUNT, GAUSS, 2);
    const cinchCodecSite_t site = {.call = 9, .offset = 0xfffff800u, .rank = 1};
    codec.vt->encode(codec.params, &site, NULL, src, NULL, COUNT, whole, &bad);
    for (size_t at = 0; at < COUNT; at += CUT) {
        cinchCodecSite_t piece = site;
        piece.offset += at;
        codec.vt->encode(codec.params, &piece, NULL, src + at, NULL, CUT, part, &bad);
        ck_assert(!memcmp(part, whole + at, CUT));
        ck_assert(!memcmp(part + CUT, whole + COUNT + at / 64, CUT / 64));
    }
    cinchCodecSite_t places[5] = {site, site, site, site, site};
    places[0].call++, places[1].rank++, places[2].phase++, places[3].offset += 256;
    for (int p = 0; p < 5; p++) {
        cinch_codec seeded = p == 4 ? parse_ok("int8:round=stochastic,seed=6") : codec;
        codec.vt->encode(seeded.params, &places[p], NULL, src, NULL, COUNT, other, &bad);
        int same = 0;
        for (int i = 0; i < COUNT; i++) same += other[i] == whole[i];
        ck_assert_int_gt(same, COUNT / 2);
        ck_assert_int_lt(same, COUNT * 3 / 4);
    }
}
END_TEST

START_TEST(random_rounding_is_unbiased) {
    cinch_codec codec = parse_ok("int8:round=stochastic,block=64");
    enum { COUNT = 64, CALLS = 20000 };
    float src[COUNT], out[COUNT];
    double sum[COUNT] = {0}, product = 0;
    unsigned char wire[COUNT + 4];
    uint64_t bad = 0;
    fill_data(src, COUNT, GAUSS, 2);
    src[0] = 127;
    src[1] = 0;
    src[2] = -5; /* on the grid: never moves */
    for (int i = 3; i < COUNT; i++) src[i] *= 20;
    for (uint64_t call = 0; call < CALLS; call++) {
        cinchCodecSite_t site = {.call = call / 2, .rank = (uint32_t)call % 2};
        codec.vt->encode(codec.params, &site, NULL, src, NULL, COUNT, wire, &bad);
        codec.vt->decode(codec.params, wire, sizeof wire, COUNT, 0, COUNT, out);
        must(out[0] == 127 && out[1] == 0 && out[2] == -5, "an exact value moved");
        for (int i = 0; i < COUNT; i++) sum[i] += (double)(out[i] - src[i]);
        product += (double)(out[3] - src[3]) * (double)(out[4] - src[4]);
    }
    /* A step is 1, so the error's deviation is at most 0.5: five of them for the means. */
    for (int i = 0; i < COUNT; i++)
        must(fabs(sum[i]) < 5 * 0.5 * sqrt(CALLS), "element %d is off by %g", i, sum[i] / CALLS);
    ck_assert_double_lt(fabs(product), 5 * 0.25 * sqrt(CALLS));
}
END_TEST

/* ---- sums ---- */

/* A term's value as the reference sees it. */
static void term_value(const cinch_codec *codec, const cinch_codec_term *term,
                       cinchDataType_t dtype, size_t count, float *out) {
    if (!term->wire)
        cinch_widen(out, term->plain, dtype, count);
    else
        ck_assert_int_eq(
            codec->vt->decode(codec->params, term->wire, term->bytes, count, 0, count, out), 0);
}

/* kinds: 'w' encoded, 'p' plain, 'd' the plain term that is dst. */
static void check_sum(const cinch_codec *codec, const char *kinds, cinchDataType_t src_dtype,
                      cinchDataType_t dst_dtype, size_t count, int avg_n, size_t shift) {
    int n = (int)strlen(kinds);
    cinch_codec_term term[40] = {{0}};
    void *memory[40];
    size_t size = cinch_dtype_size(src_dtype), dst_size = cinch_dtype_size(dst_dtype);
    char *dst = (char *)alloc_ok(count * dst_size + shift) + shift;
    char *want = alloc_ok(count * dst_size);
    float *sum = alloc_ok(count * 4), *value = alloc_ok(count * 4);
    void *scratch = alloc_ok(cinch_codec_scratch(codec, src_dtype, count));
    uint64_t bad = 0;
    for (int j = 0; j < n; j++) {
        fill_data(value, count, j % 2 ? HEAVY : GAUSS, (uint64_t)j + 50);
        memory[j] = alloc_ok(cinch_codec_bound(codec, count) + count * size + 8);
        char *at = kinds[j] == 'd' ? dst : (char *)memory[j] + shift;
        if (kinds[j] == 'w') {
            term[j].bytes = cinch_codec_encode(codec, &origin, NULL, cinchFloat32, value, NULL,
                                               count, at, &bad, NULL);
            term[j].wire = at;
        } else {
            cinch_narrow(at, src_dtype, value, count);
            term[j].plain = at;
        }
    }
    for (int j = 0; j < n; j++) {
        term_value(codec, &term[j], src_dtype, count, value);
        for (size_t i = 0; i < count; i++) sum[i] = j ? sum[i] + value[i] : value[i];
    }
    if (avg_n)
        for (size_t i = 0; i < count; i++) sum[i] *= 1.0f / (float)avg_n;
    cinch_narrow(want, dst_dtype, sum, count);
    ck_assert_int_eq(
        cinch_codec_sum(codec, term, n, src_dtype, dst_dtype, dst, count, avg_n, scratch),
        cinchSuccess);
    ck_assert_msg(!memcmp(dst, want, count * dst_size), "%s: %s, %s to %s, %zu elements, avg %d",
                  codec->vt->name, kinds, cinch_dtype_name(src_dtype), cinch_dtype_name(dst_dtype),
                  count, avg_n);
    for (int j = 0; j < n; j++) free(memory[j]);
    free(dst - shift), free(want), free(sum), free(value), free(scratch);
}

static const char *const sum_specs[] = {"int8:block=64", "bf16", "topk:ratio=0.2",
                                        "topk:select=global,ratio=0.1"};

START_TEST(sums_are_in_order) {
    static const char *const kinds[] = {"w",
                                        "p",
                                        "d",
                                        "ww",
                                        "pw",
                                        "wp",
                                        "dw",
                                        "wd",
                                        "wpw",
                                        "wdw",
                                        "pwp",
                                        "wwwww",
                                        "dwwww",
                                        "wwdww",
                                        "pdw",
                                        "wwwwwwwwwwwwwwwwwwww",
                                        "wwwwwwwwwwwwwwwwwwdww"};
    static const cinchDataType_t dtypes[] = {cinchFloat32, cinchFloat16, cinchBfloat16};
    static const size_t counts[] = {1, 63, 4095, 4096, 9001, 66000};
    cinch_codec codec = parse_ok(sum_specs[_i]), slow = codec;
    cinchCodec_t vt = *codec.vt;
    vt.decode_add = NULL;
    slow.vt = &vt;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (size_t c = 0; c < 6; c++) {
            if (counts[c] > 60000 && k % 4 != 3) continue;
            cinchDataType_t a = dtypes[(k + c) % 3], b = dtypes[(k / 2 + c) % 3];
            if (strchr(kinds[k], 'd')) b = a;
            int avg = c % 2 ? (int)strlen(kinds[k]) : 0;
            check_sum(&codec, kinds[k], a, b, counts[c], avg, (k + c) % 4);
            check_sum(&codec, kinds[k], cinchFloat32, cinchFloat32, counts[c], avg, 0);
            check_sum(&slow, kinds[k], a, b, counts[c], avg, 0);
        }
}
END_TEST

START_TEST(malformed_terms_are_errors) {
    cinch_codec codec = parse_ok("int8");
    unsigned char wire[200] = {0};
    float dst[100];
    void *scratch = alloc_ok(cinch_codec_scratch(&codec, cinchFloat32, 100));
    cinch_codec_term term = {.wire = wire, .bytes = 105};
    ck_assert_int_eq(
        cinch_codec_sum(&codec, &term, 1, cinchFloat32, cinchFloat32, dst, 100, 0, scratch),
        cinchRemoteError);
    term.bytes = 104;
    ck_assert_int_eq(
        cinch_codec_sum(&codec, &term, 1, cinchFloat32, cinchFloat32, dst, 100, 0, scratch),
        cinchSuccess);
    free(scratch);
}
END_TEST

/* A source of any dtype and alignment encodes as its fp32 values do. */
START_TEST(sources_are_widened) {
    static const cinchDataType_t dtypes[] = {cinchFloat32, cinchFloat16, cinchBfloat16};
    cinch_codec codec = parse_ok(sum_specs[_i]);
    for (int d = 0; d < 3; d++)
        for (size_t count = 1; count < 10000; count = count * 7 + 2)
            for (size_t shift = 0; shift < 4; shift++) {
                size_t room = cinch_codec_bound(&codec, count);
                float *values = alloc_ok(count * 4), *wide = alloc_ok(count * 4);
                char *typed = alloc_ok(count * 4 + shift);
                unsigned char *want = alloc_ok(room), *got = alloc_ok(room + shift);
                void *scratch = alloc_ok(cinch_codec_scratch(&codec, dtypes[d], count));
                uint64_t bad = 0;
                fill_data(values, count, HEAVY, count);
                cinch_narrow(typed + shift, dtypes[d], values, count);
                cinch_widen(wide, typed + shift, dtypes[d], count);
                size_t bytes =
                    codec.vt->encode(codec.params, &origin, NULL, wide, NULL, count, want, &bad);
                ck_assert_uint_eq(cinch_codec_encode(&codec, &origin, NULL, dtypes[d],
                                                     typed + shift, NULL, count, got + shift, &bad,
                                                     scratch),
                                  bytes);
                ck_assert(!memcmp(want, got + shift, bytes));
                free(values), free(wide), free(typed), free(want), free(got), free(scratch);
            }
}
END_TEST

/* A range decodes as the same part of the whole. */
START_TEST(ranges_decode) {
    cinch_codec codec = parse_ok(sum_specs[_i]);
    size_t granule = cinch_codec_granule(&codec), count = 3 * granule + granule / 2 + 1;
    float *src = alloc_ok(count * 4), *whole = alloc_ok(count * 4), *part = alloc_ok(count * 4);
    unsigned char *wire = alloc_ok(cinch_codec_bound(&codec, count));
    uint64_t bad = 0;
    fill_data(src, count, HEAVY, 3);
    size_t bytes = codec.vt->encode(codec.params, &origin, NULL, src, NULL, count, wire, &bad);
    ck_assert_int_eq(codec.vt->decode(codec.params, wire, bytes, count, 0, count, whole), 0);
    for (size_t first = 0; first < count; first += granule)
        for (size_t end = first + granule;; end += granule) {
            if (end > count) end = count;
            ck_assert_int_eq(
                codec.vt->decode(codec.params, wire, bytes, count, first, end - first, part), 0);
            ck_assert(!memcmp(part, whole + first, (end - first) * 4));
            if (end == count) break;
        }
    free(src), free(whole), free(part), free(wire);
}
END_TEST

/* ---- global selection ---- */

/* Segments together send exactly ceil(ratio * count) elements, the largest of the whole buffer. */
START_TEST(global_takes_the_largest_of_all) {
    cinch_codec codec = parse_ok("topk:select=global,ratio=0.01");
    enum { COUNT = 3 * 65536 + 1000, WANT = 1977 };
    float *src = alloc_ok(COUNT * 4), *out = alloc_ok(COUNT * 4);
    unsigned char *wire = alloc_ok(cinch_codec_bound(&codec, COUNT));
    for (int kind = 0; kind < 3; kind++) {
        fill_data(src, COUNT, kind ? TIES : HEAVY, 21);
        for (size_t i = 0; kind == 2 && i < COUNT; i++) src[i] = 1;
        _Alignas(16) unsigned char state[64];
        cinchCodecSite_t site = {.offset = 65536};
        uint64_t bad = 0;
        cinch_codec_prepare(&codec, &site, cinchFloat32, src, NULL, COUNT, state, NULL);
        for (size_t at = 0; at < COUNT; at += 65536) {
            size_t len = COUNT - at < 65536 ? COUNT - at : 65536;
            site.offset = 65536 + at;
            size_t bytes =
                codec.vt->encode(codec.params, &site, state, src + at, NULL, len, wire, &bad);
            ck_assert_int_eq(codec.vt->decode(codec.params, wire, bytes, len, 0, len, out + at), 0);
        }
        size_t sent = 0, last = 0, passed_over = COUNT;
        float least = INFINITY, left = 0;
        for (size_t i = 0; i < COUNT; i++)
            if (out[i] != 0) {
                sent++;
                last = i;
                least = fabsf(out[i]) < least ? fabsf(out[i]) : least;
            } else {
                left = fabsf(src[i]) > left ? fabsf(src[i]) : left;
            }
        for (size_t i = COUNT; i-- > 0;)
            if (out[i] == 0 && fabsf(src[i]) == least) passed_over = i;
        ck_assert_uint_eq(sent, WANT);
        ck_assert_float_ge(least, left);
        if (kind) ck_assert_uint_lt(last, passed_over);
    }
    free(src), free(out), free(wire);
}
END_TEST

int main(void) {
    TCase *t = tcase_create("codec");
    tcase_add_test(t, good_specs);
    tcase_add_test(t, bad_specs);
    tcase_add_test(t, registry);
    tcase_add_loop_test(t, errors_stay_in_bounds, 0, 5);
    tcase_add_test(t, int8_corners);
    tcase_add_loop_test(t, nonfinite_blocks, 0, 3);
    tcase_add_loop_test(t, nothing_gets_lost, 0, 5);
    tcase_add_loop_test(t, feedback_without_the_codec, 0, 5);
    tcase_add_test(t, random_rounding_is_keyed);
    tcase_add_test(t, random_rounding_is_unbiased);
    tcase_add_loop_test(t, sums_are_in_order, 0, 4);
    tcase_add_test(t, malformed_terms_are_errors);
    tcase_add_loop_test(t, sources_are_widened, 0, 4);
    tcase_add_loop_test(t, ranges_decode, 0, 4);
    tcase_add_test(t, global_takes_the_largest_of_all);
    return run_suite("codec", t);
}

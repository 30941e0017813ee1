/* SPDX-License-Identifier: Apache-2.0 */
/* The codecs' bytes are those that compress/FORMAT.md describes, with every set of kernels: golden
 * vectors by an implementation of its own. */
#include "tests/codec_data.h"

enum { COUNT_MAX = 70, BYTES_MAX = 300 };

static const struct {
    const char *spec;
    size_t count, bytes;
    bool feedback;
    uint32_t src[COUNT_MAX], residual[COUNT_MAX], left[COUNT_MAX], decoded[COUNT_MAX];
    unsigned char wire[BYTES_MAX];
} golden[] = {
#include "tests/golden/codec_golden.inc"
};
#define GOLDEN (int)(sizeof golden / sizeof *golden)

START_TEST(bytes_are_golden) {
    const cinchCodecSite_t site = {.call = 5, .offset = 0xffffffe0u, .rank = 3, .phase = 1};
    for (int k = 0; cinch_codec_kernels_at(k); k++) {
        cinch_codec codec = parse_ok(golden[_i].spec);
        size_t count = golden[_i].count;
        float src[COUNT_MAX], residual[COUNT_MAX], out[COUNT_MAX];
        unsigned char wire[BYTES_MAX + 100];
        uint64_t nonfinite = 0;
        cinch_codec_kernels_force(cinch_codec_kernels_at(k));
        memcpy(src, golden[_i].src, sizeof src);
        memcpy(residual, golden[_i].residual, sizeof residual);
        size_t bytes =
            codec.vt->encode(codec.params, &site, NULL, src, golden[_i].feedback ? residual : NULL,
                             count, wire, &nonfinite);
        ck_assert_uint_eq(bytes, golden[_i].bytes);
        for (size_t i = 0; i < bytes; i++)
            must(wire[i] == golden[_i].wire[i], "%s: byte %zu is %#x, not %#x", golden[_i].spec, i,
                 wire[i], golden[_i].wire[i]);
        ck_assert_int_eq(
            codec.vt->decode(codec.params, golden[_i].wire, bytes, count, 0, count, out), 0);
        for (size_t i = 0; i < count; i++) {
            uint32_t value = cinch_float_bits(out[i]), left = cinch_float_bits(residual[i]);
            must(value == golden[_i].decoded[i] || (out[i] == 0 && !(golden[_i].decoded[i] << 1)),
                 "%s: element %zu is %#x, not %#x", golden[_i].spec, i, value,
                 golden[_i].decoded[i]);
            must(!golden[_i].feedback || left == golden[_i].left[i],
                 "%s: residual %zu is %#x, not %#x", golden[_i].spec, i, left, golden[_i].left[i]);
        }
    }
}
END_TEST

int main(void) {
    TCase *t = tcase_create("codec_golden");
    tcase_add_loop_test(t, bytes_are_golden, 0, GOLDEN);
    return run_suite("codec_golden", t);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding what a peer sent, under a fuzzer: any bytes of any length, taken for an encoding of any
 * count, by every codec and all kernels; an error or a result, and all kernels agree. The bytes are
 * the input's own, or an honest encoding with some of them changed. */
#include <math.h>

#include "base/log.h"
#include "base/status.h"
#include "compress/codec.h"
#include "compress/codec_kernels.h"
#include "tests/fuzz/fuzz.h"

static const char *const specs[] = {"int8",
                                    "int8:block=32",
                                    "int8:block=4096",
                                    "bf16",
                                    "topk",
                                    "topk:ratio=1",
                                    "topk:ratio=0.3",
                                    "topk:select=global,ratio=0.2",
                                    "topk:ratio=0.0001"};
enum { SPECS = sizeof specs / sizeof *specs, MOST = 70000, TERMS = 3 };

typedef struct message {
    uint8_t *bytes;
    size_t count;
} message;

static void *get(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 64) / 64 * 64);
    fuzz_expect(p != NULL, "no memory");
    return p;
}

/* An honest encoding, and as many changes as the input has. */
static message honest(fuzz_input *in, const cinch_codec *codec, size_t count) {
    const cinchCodecSite_t site = {.call = 1};
    float *src = get(count * sizeof *src);
    void *scratch = get(cinch_codec_scratch(codec, cinchFloat32, count));
    size_t room = cinch_codec_bound(codec, count);
    uint8_t *wire = get(room);
    _Alignas(16) unsigned char state[64] = {0};
    uint64_t nonfinite = 0;
    for (size_t i = 0; i < count; i++) src[i] = (float)((i * 2654435761u >> 7) % 1000) - 500.5f;
    if (count > 3) src[3] = INFINITY;
    fuzz_expect(cinch_codec_prepare_bytes(codec, count) <= sizeof state, "a state's room");
    cinch_codec_prepare(codec, &site, cinchFloat32, src, NULL, count, state, scratch);
    size_t bytes =
        cinch_codec_encode(codec, &site, cinch_codec_prepare_bytes(codec, count) ? state : NULL,
                           cinchFloat32, src, NULL, count, wire, &nonfinite, scratch);
    for (int change = 0; change < 64 && in->left && bytes; change++) {
        size_t at = (fuzz_two(in) | (size_t)fuzz_byte(in) << 16) % bytes;
        wire[at] ^= (uint8_t)fuzz_byte(in);
    }
    free(src);
    free(scratch);
    fuzz_input all = {wire, bytes};
    message m = {fuzz_copy(&all, bytes), bytes};
    free(wire);
    return m;
}

static int decode_all(const cinch_codec *codec, message m, size_t count, float *dst) {
    return codec->vt->decode(codec->params, m.bytes, m.count, count, 0, count, dst);
}

static void parts_and_sums(const cinch_codec *codec, message m, size_t count, unsigned choice) {
    size_t granule = cinch_codec_granule(codec), first = choice * granule % (count + 1);
    const cinch_codec_term terms[TERMS] = {
        {.wire = m.bytes, .bytes = m.count}, {.plain = NULL}, {.wire = m.bytes, .bytes = m.count}};
    const void *wires[TERMS] = {m.bytes, m.bytes, m.bytes};
    const size_t bytes[TERMS] = {m.count, m.count, m.count};
    first -= first % granule;
    float *part = get((count - first) * sizeof *part);
    codec->vt->decode(codec->params, m.bytes, m.count, count, first, count - first, part);
    for (size_t i = 0; i < count - first; i++) part[i] = 1;
    if (codec->vt->decode_add) {
        codec->vt->decode_add(codec->params, TERMS, wires, bytes, count, first, count - first,
                              choice & 1 ? part : NULL, part);
    }
    free(part);

    static const cinchDataType_t types[] = {cinchFloat32, cinchFloat16, cinchBfloat16};
    cinchDataType_t type = types[choice % 3];
    void *scratch = get(cinch_codec_scratch(codec, type, count));
    float *plain = get(count * sizeof *plain), *dst = get(count * sizeof *dst);
    memset(plain, 0, count * sizeof *plain);
    cinch_codec_term all[TERMS];
    memcpy(all, terms, sizeof all);
    all[1].plain = plain;
    cinchResult_t result = cinch_codec_sum(codec, all, 1 + (int)(choice % TERMS), type, type, dst,
                                           count, choice & 8 ? 2 : 0, scratch);
    fuzz_expect(result == cinchSuccess || *cinch_last_error(), "no sentence");
    free(scratch);
    free(plain);
    free(dst);
}

static void all_kernels(const cinch_codec *codec, message m, size_t count) {
    float *first = get(count * sizeof *first), *other = get(count * sizeof *other);
    int good = 0;
    const cinch_codec_kernels *kernels;
    for (int i = 0; (kernels = cinch_codec_kernels_at(i)); i++) {
        cinch_codec_kernels_force(kernels);
        memset(i ? other : first, 0, count * sizeof *first);
        int result = decode_all(codec, m, count, i ? other : first);
        fuzz_expect(!i || result == good, "kernels that differ in what they take");
        good = result;
        fuzz_expect(!i || good || memcmp(first, other, count * sizeof *first) == 0,
                    "kernels that differ");
    }
    cinch_codec_kernels_force(NULL);
    free(first);
    free(other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    char why[CINCH_ERROR_TEXT];
    cinch_codec codec;
    unsigned flags = fuzz_byte(&in), choice = fuzz_byte(&in);
    cinch_log_threshold = CINCH_LOG_NONE;
    fuzz_expect(cinch_codec_parse(specs[flags % SPECS], &codec, why, sizeof why), "a codec");
    size_t count = fuzz_two(&in) | (size_t)(choice & 1) << 16;
    count = count % MOST + 1;
    message m;
    if (choice & 128) {
        m = honest(&in, &codec, count);
        if (choice & 64 && m.count) m.count -= choice % m.count; /* cut short */
    } else {
        m.count = in.left;
        m.bytes = fuzz_copy(&in, m.count);
    }
    all_kernels(&codec, m, count);
    parts_and_sums(&codec, m, count, choice);
    free(m.bytes);
    return 0;
}

size_t fuzz_seed(int k, uint8_t *out) {
    static const uint16_t counts[] = {1, 31, 300, 4097, 65535};
    if (k >= SPECS * 10) return 0;
    int spec = k % SPECS, kind = k / SPECS;
    uint16_t count = counts[kind % 5];
    memset(out, 0, 64);
    out[0] = (uint8_t)spec;
    out[1] = kind < 5 ? 128 : 128 + 64 + 3;
    memcpy(out + 2, &count, sizeof count);
    return kind < 5 ? 4 : 24;
}

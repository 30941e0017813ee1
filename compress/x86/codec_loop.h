/* SPDX-License-Identifier: Apache-2.0 */
/* What the int8 and bf16 kernels of every instruction set have in common. Included once by each of
 * codec_avx2.c and codec_avx512.c, below their largest, make_rounding, encode_block, decode_one,
 * decode_many and encode_bf16. */

/* How far ahead of a block its successors are fetched: two reads of a block in a row keep the
 * hardware's own prefetcher from running ahead far enough. */
#define PREFETCH_BYTES 4096

static inline void prefetch_block(const float *src, size_t len) {
    for (size_t i = 0; i < len; i += 16)
        _mm_prefetch((const char *)(src + i) + PREFETCH_BYTES, _MM_HINT_T0);
}

/* The next block's largest magnitude is looked for before this block is rounded: what it takes to
 * make a scale of it then runs beside the rounding. */
static inline void encode_blocks(const cinch_int8_params *params, bool stochastic,
                                 cinch_int8_random *random, const float *src, float *residual,
                                 size_t whole, unsigned char *codes, unsigned char *scales,
                                 uint64_t *nonfinite) {
    const size_t block = params->block;
    uint32_t max = whole ? largest(src, residual, block) : 0, next = 0;
    for (size_t i = 0; i < whole; i += block, scales += 4, random->index += block, max = next) {
        float *left = residual ? residual + i : NULL;
        prefetch_block(src + i, block);
        if (residual) prefetch_block(left, block);
        if (i + block < whole)
            next = largest(src + i + block, residual ? left + block : NULL, block);
        float inverse, scale = cinch_int8_scale(max, &inverse);
        memcpy(scales, &scale, 4);
        if (__builtin_expect(max >= CINCH_INF_BITS, 0)) {
            memset(codes + i, 0, block);
            ++*nonfinite;
            continue;
        }
        rounding r = make_rounding(stochastic, random, scale, inverse);
        encode_block(&r, stochastic, src + i, left, block, codes + i);
    }
}

static void int8_encode(const cinch_int8_params *params, const cinch_int8_random *random,
                        const float *src, float *residual, size_t count, unsigned char *codes,
                        unsigned char *scales, uint64_t *nonfinite) {
    size_t whole = count - count % params->block;
    cinch_int8_random place = *random;
    if (params->stochastic)
        encode_blocks(params, true, &place, src, residual, whole, codes, scales, nonfinite);
    else if (residual)
        encode_blocks(params, false, &place, src, residual, whole, codes, scales, nonfinite);
    else
        encode_blocks(params, false, &place, src, NULL, whole, codes, scales, nonfinite);
    cinch_int8_encode_reference(params, &place, src + whole, residual ? residual + whole : NULL,
                                count - whole, codes + whole, scales + 4 * (whole / params->block),
                                nonfinite);
}

static void int8_decode_add(uint32_t block, int n, const void *const *wire, size_t count,
                            size_t first, size_t len, const float *init, float *dst) {
    size_t whole = len - len % block;
    if (n == 1) {
        const unsigned char *codes = (const unsigned char *)wire[0] + first;
        const unsigned char *scales = (const unsigned char *)wire[0] + count + 4 * (first / block);
        if (init)
            decode_one(block, codes, scales, whole, init, dst);
        else
            decode_one(block, codes, scales, whole, NULL, dst);
    } else {
        decode_many(block, n, wire, count, first, whole, init, dst);
    }
    if (whole < len)
        cinch_int8_decode_add_reference(block, n, wire, count, first + whole, len - whole,
                                        init ? init + whole : NULL, dst + whole);
}

static void bf16_encode(const float *src, float *residual, size_t count, unsigned char *wire,
                        uint64_t *nonfinite) {
    size_t done = residual ? encode_bf16(src, residual, count, wire, nonfinite)
                           : encode_bf16(src, NULL, count, wire, nonfinite);
    cinch_bf16_encode_reference(src + done, residual ? residual + done : NULL, count - done,
                                wire + 2 * done, nonfinite);
}

#undef PREFETCH_BYTES

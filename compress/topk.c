/* SPDX-License-Identifier: Apache-2.0 */
/* The topk codec: of every segment of 65536 elements, the largest and where they are. */
#include "compress/codec_kernels.h"
#include "compress/codec_params.h"

typedef cinch_topk_params topk_params;

/* select=global: what prepare found out about the whole buffer. */
typedef struct topk_state {
    uint64_t ties_end; /* elements of just that magnitude are taken before this index */
    uint32_t least;    /* the magnitude from which elements are taken */
    uint32_t unused;
} topk_state;

_Static_assert(sizeof(topk_params) <= CINCH_CODEC_PARAM_BYTES, "topk parameters fit");

/* select=global: before each segment, how many elements follow, or that all do. */
#define DENSE UINT32_MAX

static const char *parse(const char *text, void *out) {
    static const char accepted[] = "ratio=R (above 0, at most 1), select=segment|global";
    static const char *const selects[] = {"segment", "global"};
    topk_params params = {.ratio = 0.01};
    cinch_param item;
    while (cinch_param_next(&text, &item)) {
        int choice;
        double number;
        if (cinch_param_is(&item, "ratio") && cinch_param_double(&item, &number) && number > 0 &&
            number <= 1)
            params.ratio = number;
        else if (cinch_param_is(&item, "select") &&
                 (choice = cinch_param_choice(&item, selects, 2)) >= 0)
            params.global = choice == 1;
        else
            return accepted;
    }
    memcpy(out, &params, sizeof params);
    return NULL;
}

/* ceil(ratio * len), for the ratio as it was written: 0.07 of 100 is 7, though the product of the
 * doubles is a little more. */
static size_t share(const topk_params *params, size_t len) {
    double exact = params->ratio * (double)len * (1 - 1e-12);
    size_t k = (size_t)exact;
    k += (double)k < exact;
    return k > len ? len : k;
}

static bool is_dense(size_t k, size_t len) {
    return 6 * k >= 4 * len;
}

static size_t segment_len(size_t at, size_t count) {
    return count - at < CINCH_TOPK_SEGMENT ? count - at : CINCH_TOPK_SEGMENT;
}

/* select=segment: bytes of a segment. */
static size_t segment_bytes(const topk_params *params, size_t len) {
    size_t k = share(params, len);
    return is_dense(k, len) ? 4 * len : 6 * k;
}

static size_t granule(const void *params) {
    (void)params;
    return CINCH_TOPK_SEGMENT;
}

static size_t bound(const void *params, size_t count) {
    const topk_params *p = params;
    size_t whole = count / CINCH_TOPK_SEGMENT, rest = count % CINCH_TOPK_SEGMENT;
    if (p->global) return 4 * count + 4 * (whole + (rest != 0));
    return whole * segment_bytes(p, CINCH_TOPK_SEGMENT) + segment_bytes(p, rest);
}

static int fixed_size(const void *params) {
    return !((const topk_params *)params)->global;
}

static size_t prepare_bytes(const void *params, size_t count) {
    return ((const topk_params *)params)->global && count ? sizeof(topk_state) : 0;
}

static void prepare(const void *params, const cinchCodecSite_t *site, const float *src,
                    const float *residual, size_t count, void *out) {
    const topk_params *p = params;
    if (!prepare_bytes(params, count)) return;
    size_t ties, i = 0;
    topk_state state = {0};
    state.least = cinch_topk_threshold(src, residual, count, share(p, count), &ties);
    for (; ties; i++) {
        float v = residual ? src[i] + residual[i] : src[i];
        ties -= (cinch_float_bits(v) & CINCH_ABS_BITS) == state.least;
    }
    state.ties_end = site->offset + i;
    memcpy(out, &state, sizeof state);
}

static void encode_dense(const float *src, float *residual, size_t len, unsigned char *wire,
                         uint64_t *nonfinite) {
    for (size_t i = 0; i < len; i++) {
        float v = residual ? src[i] + residual[i] : src[i];
        if ((cinch_float_bits(v) & CINCH_ABS_BITS) >= CINCH_INF_BITS) {
            v = cinch_bits_float(CINCH_NAN_BITS);
            ++*nonfinite;
        } else if (residual) {
            residual[i] = 0;
        }
        memcpy(wire + 4 * i, &v, 4);
    }
}

static bool taken(const topk_state *state, float v, uint64_t at) {
    uint32_t m = cinch_float_bits(v) & CINCH_ABS_BITS;
    return m > state->least || (m == state->least && at < state->ties_end);
}

/* One segment by the whole buffer's threshold; returns its bytes. */
static size_t encode_global(const topk_state *state, uint64_t offset, const float *src,
                            float *residual, size_t len, unsigned char *wire, uint64_t *nonfinite) {
    size_t k = 0;
    for (size_t i = 0; i < len; i++)
        k += taken(state, residual ? src[i] + residual[i] : src[i], offset + i);
    uint32_t head = is_dense(k, len) ? DENSE : (uint32_t)k;
    memcpy(wire, &head, 4);
    wire += 4;
    if (head == DENSE) {
        encode_dense(src, residual, len, wire, nonfinite);
        return 4 + 4 * len;
    }
    unsigned char *value = wire + 2 * k;
    for (size_t i = 0; i < len; i++) {
        float v = residual ? src[i] + residual[i] : src[i];
        bool finite = (cinch_float_bits(v) & CINCH_ABS_BITS) < CINCH_INF_BITS;
        if (taken(state, v, offset + i)) {
            uint16_t at = (uint16_t)i;
            if (!finite) v = cinch_bits_float(CINCH_NAN_BITS);
            *nonfinite += !finite;
            memcpy(wire, &at, 2);
            memcpy(value, &v, 4);
            wire += 2;
            value += 4;
            v = 0;
        }
        if (residual && finite) residual[i] = v;
    }
    return 4 + 6 * k;
}

static size_t encode(const void *params, const cinchCodecSite_t *site, const void *prepared,
                     const float *src, float *residual, size_t count, void *wire,
                     uint64_t *nonfinite) {
    const topk_params *p = params;
    const cinch_codec_kernels *kernels = cinch_codec_kernels_get();
    topk_state state = {0};
    if (p->global && prepared)
        memcpy(&state, prepared, sizeof state);
    else
        prepare(params, site, src, residual, count, &state);
    unsigned char *out = wire;
    for (size_t at = 0; at < count; at += CINCH_TOPK_SEGMENT) {
        size_t len = segment_len(at, count), k = share(p, len);
        const float *in = src + at;
        float *left = residual ? residual + at : NULL;
        if (p->global) {
            out += encode_global(&state, site->offset + at, in, left, len, out, nonfinite);
            continue;
        }
        if (is_dense(k, len))
            encode_dense(in, left, len, out, nonfinite);
        else
            kernels->topk_select(in, left, len, k, out, out + 2 * k, nonfinite);
        out += segment_bytes(p, len);
    }
    return (size_t)(out - (unsigned char *)wire);
}

/* A reader of one message, segment by segment. */
typedef struct reader {
    const unsigned char *at, *end;
} reader;

/* Steps over one segment and leaves where it is and its k, DENSE for all. */
static bool next_segment(const topk_params *params, reader *in, size_t len,
                         const unsigned char **body, uint32_t *k) {
    size_t room = (size_t)(in->end - in->at);
    if (params->global) {
        if (room < 4) return false;
        memcpy(k, in->at, 4);
        in->at += 4;
        room -= 4;
        if (*k != DENSE && (*k > len || is_dense(*k, len))) return false;
    } else {
        size_t fixed = share(params, len);
        *k = is_dense(fixed, len) ? DENSE : (uint32_t)fixed;
    }
    size_t bytes = *k == DENSE ? 4 * len : 6 * (size_t)*k;
    if (room < bytes) return false;
    *body = in->at;
    in->at += bytes;
    return true;
}

/* Indices must rise, so that none counts twice. */
static bool scatter(const unsigned char *body, size_t k, size_t len, bool add, float *dst) {
    const unsigned char *value = body + 2 * k;
    size_t least = 0;
    for (size_t i = 0; i < k; i++) {
        uint16_t at;
        float v;
        memcpy(&at, body + 2 * i, 2);
        memcpy(&v, value + 4 * i, 4);
        if (at < least || at >= len) return false;
        least = (size_t)at + 1;
        dst[at] = add ? dst[at] + v : v;
    }
    return true;
}

/* One segment of one message into dst; base NULL: as it is, else added to base. */
static bool decode_segment(const unsigned char *body, uint32_t k, size_t len, const float *base,
                           float *dst) {
    if (k != DENSE) {
        if (!base)
            memset(dst, 0, 4 * len);
        else if (base != dst)
            memcpy(dst, base, 4 * len);
        return scatter(body, k, len, base != NULL, dst);
    }
    for (size_t i = 0; i < len; i++) {
        float v;
        memcpy(&v, body + 4 * i, 4);
        dst[i] = base ? base[i] + v : v;
    }
    return true;
}

/* Places a reader at element `first`. */
static bool seek(const topk_params *params, const void *wire, size_t bytes, size_t count,
                 size_t first, reader *in) {
    *in = (reader){wire, (const unsigned char *)wire + bytes};
    if (!params->global) {
        if (bytes != bound(params, count)) return false;
        in->at += first / CINCH_TOPK_SEGMENT * segment_bytes(params, CINCH_TOPK_SEGMENT);
        return true;
    }
    const unsigned char *body;
    uint32_t k;
    for (size_t at = 0; at < first; at += CINCH_TOPK_SEGMENT)
        if (!next_segment(params, in, segment_len(at, count), &body, &k)) return false;
    return true;
}

/* Message by message: what a message touches of a range fits the cache, for the caller asks for a
 * segment or so at a time. */
static int decode_add(const void *params, int n, const void *const *wire, const size_t *bytes,
                      size_t count, size_t first, size_t len, const float *init, float *dst) {
    for (int j = 0; j < n; j++) {
        const float *base = j ? dst : init;
        reader in;
        if (!seek(params, wire[j], bytes[j], count, first, &in)) return -1;
        for (size_t at = 0; at < len; at += CINCH_TOPK_SEGMENT) {
            size_t part = segment_len(at, len);
            const unsigned char *body;
            uint32_t k;
            if (!next_segment(params, &in, part, &body, &k) ||
                !decode_segment(body, k, part, base ? base + at : NULL, dst + at))
                return -1;
        }
        if (first + len == count && in.at != in.end) return -1;
    }
    return 0;
}

static int decode(const void *params, const void *wire, size_t bytes, size_t count, size_t first,
                  size_t len, float *dst) {
    return decode_add(params, 1, &wire, &bytes, count, first, len, NULL, dst);
}

const cinchCodec_t cinch_codec_topk = {
    .size = sizeof(cinchCodec_t),
    .abi = CINCH_CODEC_ABI,
    .flags = CINCH_CODEC_FIXED_SIZE | CINCH_CODEC_DETERMINISTIC | CINCH_CODEC_EF |
             CINCH_CODEC_EF_DEFAULT,
    .name = "topk",
    .parse = parse,
    .granule = granule,
    .bound = bound,
    .fixed_size = fixed_size,
    .prepare_bytes = prepare_bytes,
    .prepare = prepare,
    .encode = encode,
    .decode = decode,
    .decode_add = decode_add,
};

/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a result is right: whole numbers, that is integer types, and exact data of float types,
 * where nothing may be off by a bit (an average of floats: 2 units in the last place). */
#include "perf/check.h"

#include <math.h>
#include <string.h>

#include "compress/dtype.h"

enum { PIECE = 4096 };

cinch_float_facts cinch_float_facts_of(cinchDataType_t dtype) {
    switch (dtype) {
    case cinchFloat8e4m3:
        return (cinch_float_facts){0x1p-3, 448, 0x1p-9, -6};
    case cinchFloat8e5m2:
        return (cinch_float_facts){0x1p-2, 57344, 0x1p-16, -14};
    case cinchFloat16:
        return (cinch_float_facts){0x1p-10, 65504, 0x1p-24, -14};
    case cinchBfloat16:
        return (cinch_float_facts){0x1p-7, 0x1.fep127, 0x1p-133, -126};
    case cinchFloat32:
        return (cinch_float_facts){0x1p-23, 0x1.fffffep127, 0x1p-149, -126};
    default:
        return (cinch_float_facts){0x1p-52, 0x1.fffffffffffffp1023, 0x1p-1074, -1022};
    }
}

void cinch_load_double(double *dst, const void *src, cinchDataType_t dtype, size_t count) {
    float f[CINCH_DATA_CHUNK];
    if (dtype == cinchFloat64) {
        memcpy(dst, src, count * sizeof *dst);
        return;
    }
    cinch_widen(f, src, dtype, count);
    for (size_t i = 0; i < count; i++) dst[i] = f[i];
}

/* Integers of the type at src, with their sign; uint64 as the same bits. */
static void load_whole(int64_t *dst, const void *src, cinchDataType_t dtype, size_t count) {
#define LOAD(tag, type)                                                                            \
    case tag:                                                                                      \
        for (size_t i = 0; i < count; i++) {                                                       \
            type v;                                                                                \
            memcpy(&v, (const char *)src + i * sizeof v, sizeof v);                                \
            dst[i] = (int64_t)v;                                                                   \
        }                                                                                          \
        break;
    switch (dtype) {
        LOAD(cinchInt8, int8_t)
        LOAD(cinchUint8, uint8_t)
        LOAD(cinchInt32, int32_t)
        LOAD(cinchUint32, uint32_t)
        LOAD(cinchInt64, int64_t)
    default:
        LOAD(cinchUint64, uint64_t)
    }
#undef LOAD
}

/* What is left of a wide number in the type: integers wrap. */
static int64_t wrapped(int64_t v, cinchDataType_t dtype) {
    switch (dtype) {
    case cinchInt8:
        return (int8_t)v;
    case cinchUint8:
        return (uint8_t)v;
    case cinchInt32:
        return (int32_t)v;
    case cinchUint32:
        return (uint32_t)v;
    default:
        return v;
    }
}

static void load_rank(const cinch_data *data, int rank, size_t start, size_t count, int64_t *dst) {
    union {
        int8_t small[PIECE];
        unsigned char raw[8 * PIECE];
    } u;
    if (cinch_data_is_exact(data)) {
        cinch_data_small(data, rank, start, count, u.small);
        for (size_t i = 0; i < count; i++) dst[i] = u.small[i];
    } else {
        cinch_data_fill(data, rank, start, count, u.raw);
        load_whole(dst, u.raw, data->dtype, count);
    }
    if (data->op == CINCH_OP_MULSUM && cinch_data_scalar(rank) == 2)
        for (size_t i = 0; i < count; i++) dst[i] = wrapped(dst[i] * 2, data->dtype);
}

/* acc = acc op v; unsigned arithmetic, because it may wrap. */
static void combine(const cinch_data *data, int64_t *acc, const int64_t *v, size_t count) {
    bool large = data->dtype == cinchUint64;
    int64_t flip = large ? INT64_MIN : 0; /* unsigned order as signed order */
    switch (data->op) {
    case CINCH_OP_PROD:
        for (size_t i = 0; i < count; i++) acc[i] = (int64_t)((uint64_t)acc[i] * (uint64_t)v[i]);
        break;
    case CINCH_OP_MAX:
        for (size_t i = 0; i < count; i++)
            if ((v[i] ^ flip) > (acc[i] ^ flip)) acc[i] = v[i];
        break;
    case CINCH_OP_MIN:
        for (size_t i = 0; i < count; i++)
            if ((v[i] ^ flip) < (acc[i] ^ flip)) acc[i] = v[i];
        break;
    default:
        for (size_t i = 0; i < count; i++) acc[i] = (int64_t)((uint64_t)acc[i] + (uint64_t)v[i]);
    }
}

static void compare_integers(const cinch_data *data, const int64_t *acc, const int64_t *got,
                             size_t count, cinch_tally *tally) {
    int n = data->nranks;
    bool large = data->dtype == cinchUint64;
    for (size_t i = 0; i < count; i++) {
        int64_t want = wrapped(acc[i], data->dtype);
        if (data->op == CINCH_OP_AVG)
            want = large ? (int64_t)((uint64_t)want / (uint64_t)n) : want / n;
        double ref = large ? (double)(uint64_t)want : (double)want;
        tally->ref2 += ref * ref;
        if (got[i] == want) continue;
        double err = fabs((large ? (double)(uint64_t)got[i] : (double)got[i]) - ref);
        tally->wrong++;
        tally->err2 += err * err;
        tally->max_abs = fmax(tally->max_abs, err);
    }
}

/* Two units in the last place of ref. */
static double two_ulp(const cinch_float_facts *facts, double ref) {
    int exponent = ref == 0 ? facts->low_exponent : ilogb(ref);
    if (exponent < facts->low_exponent) exponent = facts->low_exponent;
    return 2 * ldexp(facts->epsilon, exponent);
}

static void compare_floats(const cinch_data *data, const int64_t *acc, const double *got,
                           size_t count, cinch_tally *tally) {
    cinch_float_facts facts = cinch_float_facts_of(data->dtype);
    for (size_t i = 0; i < count; i++) {
        double ref = (double)acc[i];
        if (data->op == CINCH_OP_AVG) ref /= data->nranks;
        tally->ref2 += ref * ref;
        if (got[i] == ref) continue;
        double err = fabs(got[i] - ref);
        bool fine = data->op == CINCH_OP_AVG && err <= two_ulp(&facts, ref);
        tally->wrong += !fine;
        if (!isfinite(err)) continue;
        tally->err2 += err * err;
        tally->max_abs = fmax(tally->max_abs, err);
    }
}

static void check_whole(const cinch_data *data, const cinch_stretch *stretch, cinch_tally *tally) {
    union {
        int64_t whole[PIECE];
        double real[PIECE];
    } result;
    int64_t acc[PIECE], v[PIECE];
    bool is_float = cinch_dtype_is_float(data->dtype);
    size_t element = cinch_dtype_size(data->dtype);
    for (size_t at = 0; at < stretch->count; at += PIECE) {
        size_t n = stretch->count - at < PIECE ? stretch->count - at : PIECE;
        const char *piece = (const char *)stretch->got + at * element;
        load_rank(data, 0, stretch->start + at, n, acc);
        for (int r = 1; r < data->nranks; r++) {
            load_rank(data, r, stretch->start + at, n, v);
            combine(data, acc, v, n);
        }
        if (is_float) {
            cinch_load_double(result.real, piece, data->dtype, n);
            compare_floats(data, acc, result.real, n, tally);
        } else {
            load_whole(result.whole, piece, data->dtype, n);
            compare_integers(data, acc, result.whole, n, tally);
        }
    }
}

/* Any type's elements, count up to PIECE; large integers rounded. */
static void load_any(double *dst, const void *src, cinchDataType_t dtype, size_t count) {
    int64_t whole[PIECE];
    if (cinch_dtype_is_float(dtype)) {
        cinch_load_double(dst, src, dtype, count);
        return;
    }
    load_whole(whole, src, dtype, count);
    for (size_t i = 0; i < count; i++)
        dst[i] = dtype == cinchUint64 ? (double)(uint64_t)whole[i] : (double)whole[i];
}

/* What was only moved: bit by bit, NaN and the sign of zero too. */
static void check_moved(const cinch_data *data, const cinch_stretch *stretch, cinch_tally *tally) {
    unsigned char want[8 * PIECE];
    double ref[PIECE], got[PIECE];
    size_t element = cinch_dtype_size(data->dtype);
    for (size_t at = 0; at < stretch->count; at += PIECE) {
        size_t n = stretch->count - at < PIECE ? stretch->count - at : PIECE;
        const unsigned char *piece = (const unsigned char *)stretch->got + at * element;
        cinch_data_fill(data, stretch->source, stretch->start + at, n, want);
        bool same = memcmp(piece, want, n * element) == 0;
        load_any(ref, want, data->dtype, n);
        load_any(got, piece, data->dtype, n);
        for (size_t i = 0; i < n; i++) {
            if (isfinite(ref[i])) tally->ref2 += ref[i] * ref[i];
            if (same || memcmp(piece + i * element, want + i * element, element) == 0) continue;
            tally->wrong++;
            double err = fabs(got[i] - ref[i]);
            if (!isfinite(err)) continue;
            tally->err2 += err * err;
            tally->max_abs = fmax(tally->max_abs, err);
        }
    }
}

uint64_t cinch_check_moved(const cinch_data *data, int rank, size_t start, const void *got,
                           size_t count) {
    cinch_tally tally = {0};
    check_moved(data, &(cinch_stretch){rank, start, got, count}, &tally);
    return tally.wrong;
}

bool cinch_check_result(const cinch_check *check, const void *got, size_t count,
                        cinch_verdict *verdict) {
    const cinch_data *data = check->data;
    cinch_tally tally = {0};
    int n = data->nranks, rank = check->rank, root = check->root;
    bool reduces = cinch_reduces(check->operation), is_float = cinch_dtype_is_float(data->dtype);
    bool bounds = is_float && (check->codec || (reduces && !cinch_data_is_exact(data)));
    verdict->judged = true;
    for (int b = 0; b < cinch_recv_blocks(check->operation, rank, n, root); b++) {
        size_t block_bytes = count * cinch_dtype_size(data->dtype);
        cinch_stretch stretch = {.got = (const char *)got + (size_t)b * block_bytes,
                                 .count = count};
        int block;
        cinch_block_source(check->operation, rank, n, root, b, &stretch.source, &block);
        stretch.start = (size_t)block * count;
        if (!bounds)
            (reduces ? check_whole : check_moved)(data, &stretch, &tally);
        else if (!cinch_check_float(check, &stretch, &tally, &verdict->judged))
            return false;
    }
    verdict->wrong = tally.wrong;
    verdict->max_abs_err = tally.max_abs;
    verdict->rel_l2 = tally.ref2 > 0 ? sqrt(tally.err2 / tally.ref2) : tally.err2 == 0 ? 0 : NAN;
    return true;
}

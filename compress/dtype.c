/* SPDX-License-Identifier: Apache-2.0 */
/* The table of datatypes, and conversions in plain C. */
#include "compress/dtype.h"

#include <string.h>

#include "compress/convert.h"
#include "compress/kernels.h"

static const struct {
    const char *name;
    unsigned char size;
    bool is_float;
} dtypes[cinchNumTypes] = {
    [cinchInt8] = {"int8", 1, false},        [cinchUint8] = {"uint8", 1, false},
    [cinchInt32] = {"int32", 4, false},      [cinchUint32] = {"uint32", 4, false},
    [cinchInt64] = {"int64", 8, false},      [cinchUint64] = {"uint64", 8, false},
    [cinchFloat16] = {"half", 2, true},      [cinchFloat32] = {"float", 4, true},
    [cinchFloat64] = {"double", 8, true},    [cinchBfloat16] = {"bfloat16", 2, true},
    [cinchFloat8e4m3] = {"f8e4m3", 1, true}, [cinchFloat8e5m2] = {"f8e5m2", 1, true},
};

static bool known(cinchDataType_t dtype) {
    return (unsigned)dtype < cinchNumTypes;
}

size_t cinch_dtype_size(cinchDataType_t dtype) {
    return known(dtype) ? dtypes[dtype].size : 0;
}

const char *cinch_dtype_name(cinchDataType_t dtype) {
    return known(dtype) ? dtypes[dtype].name : "?";
}

bool cinch_dtype_parse(const char *name, cinchDataType_t *dtype) {
    for (int i = 0; i < cinchNumTypes; i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            *dtype = (cinchDataType_t)i;
            return true;
        }
    }
    return false;
}

bool cinch_dtype_is_float(cinchDataType_t dtype) {
    return known(dtype) && dtypes[dtype].is_float;
}

const char *cinch_redop_name(cinchRedOp_t op) {
    static const char *const names[cinchNumOps] = {"sum", "prod", "max", "min", "avg"};
    if ((int)op < 0) return "?";
    return op < cinchNumOps ? names[op] : "mulsum";
}

/* Element i of an array of any alignment. */
static uint16_t get16(const void *p, size_t i) {
    uint16_t v;
    memcpy(&v, (const char *)p + 2 * i, 2);
    return v;
}

static void put16(void *p, size_t i, uint16_t v) {
    memcpy((char *)p + 2 * i, &v, 2);
}

static void put32(void *p, size_t i, float v) {
    memcpy((char *)p + 4 * i, &v, 4);
}

static float get32(const void *p, size_t i) {
    float v;
    memcpy(&v, (const char *)p + 4 * i, 4);
    return v;
}

void cinch_widen_reference(float *dst, const void *src, cinchDataType_t dtype, size_t count) {
    const uint8_t *bytes = src;
    switch ((int)dtype) {
    case cinchFloat16:
        for (size_t i = 0; i < count; i++) put32(dst, i, cinch_half_to_float(get16(src, i)));
        break;
    case cinchBfloat16:
        for (size_t i = 0; i < count; i++) put32(dst, i, cinch_bfloat16_to_float(get16(src, i)));
        break;
    case cinchFloat8e4m3:
        for (size_t i = 0; i < count; i++) put32(dst, i, cinch_f8e4m3_to_float(bytes[i]));
        break;
    case cinchFloat8e5m2:
        for (size_t i = 0; i < count; i++) put32(dst, i, cinch_f8e5m2_to_float(bytes[i]));
        break;
    default:
        break;
    }
}

void cinch_narrow_reference(void *dst, cinchDataType_t dtype, const float *src, size_t count) {
    uint8_t *bytes = dst;
    switch ((int)dtype) {
    case cinchFloat16:
        for (size_t i = 0; i < count; i++) put16(dst, i, cinch_half_from_float(get32(src, i)));
        break;
    case cinchBfloat16:
        for (size_t i = 0; i < count; i++) put16(dst, i, cinch_bfloat16_from_float(get32(src, i)));
        break;
    case cinchFloat8e4m3:
        for (size_t i = 0; i < count; i++) bytes[i] = cinch_f8e4m3_from_float(get32(src, i));
        break;
    case cinchFloat8e5m2:
        for (size_t i = 0; i < count; i++) bytes[i] = cinch_f8e5m2_from_float(get32(src, i));
        break;
    default:
        break;
    }
}

void cinch_widen(float *dst, const void *src, cinchDataType_t dtype, size_t count) {
    if (dtype != cinchFloat32)
        cinch_kernels_best()->widen(dst, src, dtype, count);
    else if (count)
        memcpy(dst, src, count * sizeof *dst);
}

void cinch_narrow(void *dst, cinchDataType_t dtype, const float *src, size_t count) {
    if (dtype != cinchFloat32)
        cinch_kernels_best()->narrow(dst, dtype, src, count);
    else if (count)
        memcpy(dst, src, count * sizeof *src);
}

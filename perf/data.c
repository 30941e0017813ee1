/* SPDX-License-Identifier: Apache-2.0 */
/* What the ranks put into a collective. */
#include "perf/data.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compress/dtype.h"

/* A bijection of 64 bits in which every input bit reaches every output bit. */
static inline uint64_t mix(uint64_t x) {
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

static inline uint64_t stream_key(const cinch_data *data, int rank, unsigned stream) {
    return mix(data->seed * 0x9e3779b97f4a7c15u + (uint64_t)(unsigned)rank * 8 + stream);
}

static inline uint64_t word_at(uint64_t key, uint64_t index) {
    return mix(key + index * 0x9e3779b97f4a7c15u);
}

int cinch_data_scalar(int rank) {
    return 1 + (rank & 1);
}

bool cinch_data_is_exact(const cinch_data *data) {
    return data->kind == CINCH_DATA_EXACT && !data->input;
}

/* The largest L such that all whole numbers up to L are exact: no order of additions whose absolute
 * values sum to at most L can round. */
static int exact_limit(cinchDataType_t dtype) {
    switch (dtype) {
    case cinchFloat8e5m2:
        return 8;
    case cinchFloat8e4m3:
        return 16;
    case cinchBfloat16:
        return 256;
    case cinchFloat16:
        return 2048;
    case cinchInt8:
    case cinchUint8:
        return 127;
    default:
        return 1 << 24;
    }
}

static void store_small(cinchDataType_t dtype, int value, void *dst) {
    float f = (float)value;
    double d = value;
    int64_t i = value; /* little or big endian: narrower integers are stored by their own types */
    int32_t i32 = value;
    int8_t i8 = (int8_t)value;
    switch (dtype) {
    case cinchFloat64:
        memcpy(dst, &d, 8);
        break;
    case cinchInt64:
    case cinchUint64:
        memcpy(dst, &i, 8);
        break;
    case cinchInt32:
    case cinchUint32:
        memcpy(dst, &i32, 4);
        break;
    case cinchInt8:
    case cinchUint8:
        memcpy(dst, &i8, 1);
        break;
    default:
        cinch_narrow(dst, dtype, &f, 1);
    }
}

void cinch_data_setup(cinch_data *data, cinch_data_kind kind, const cinch_input *input, int nranks,
                      cinchDataType_t dtype, cinch_op op) {
    bool is_float = cinch_dtype_is_float(dtype);
    *data = (cinch_data){.kind = is_float ? kind : CINCH_DATA_EXACT,
                         .input = input && input->count ? input : NULL,
                         .nranks = nranks,
                         .dtype = dtype,
                         .op = op,
                         .seed = 1};
    data->is_unsigned = dtype == cinchUint8 || dtype == cinchUint32 || dtype == cinchUint64;
    int limit = exact_limit(dtype);
    data->span = 8;
    data->busy = nranks;
    if (op == CINCH_OP_PROD) {
        data->busy = 3; /* factors of 2: the product is 8 */
    } else if (op == CINCH_OP_NONE) {
        data->span = limit < 127 ? limit : 127;
    } else if (op != CINCH_OP_MAX && op != CINCH_OP_MIN) {
        if (op == CINCH_OP_MULSUM) limit /= 2;
        if (limit / nranks < data->span) data->span = limit / nranks;
        if (data->span == 0) data->span = 1;
        if (limit < nranks) data->busy = limit;
    }
    for (int v = -128; v < 128; v++) store_small(dtype, v, data->table[(uint8_t)v]);
}

/* pick[i], below nranks: the first of the `busy` ranks of an element, the same on every rank. */
static void pick_first(const cinch_data *data, size_t start, size_t count, int *pick) {
    uint64_t key = stream_key(data, -1, 0);
    for (size_t i = 0; i < count; i++)
        pick[i] = (int)((word_at(key, start + i) >> 48) * (uint64_t)data->nranks >> 16);
}

void cinch_data_small(const cinch_data *data, int rank, size_t start, size_t count, int8_t *dst) {
    union {
        uint64_t word[CINCH_DATA_CHUNK / 8 + 2];
        uint8_t byte[CINCH_DATA_CHUNK + 16];
    } random;
    int pick[CINCH_DATA_CHUNK];
    uint64_t key = stream_key(data, rank, 0);
    size_t first = start / 8, last = (start + count + 7) / 8;
    for (size_t w = first; w < last; w++) random.word[w - first] = word_at(key, w);
    const uint8_t *byte = random.byte + start % 8;
    bool sparse = data->op == CINCH_OP_PROD || data->busy < data->nranks;
    if (sparse) pick_first(data, start, count, pick);
    int span = data->span, low = data->is_unsigned ? 0 : -span, values = span - low + 1;
    if (data->op == CINCH_OP_PROD) {
        for (size_t i = 0; i < count; i++) {
            int turn = rank - pick[i], size;
            size = (turn < 0 ? turn + data->nranks : turn) < data->busy ? 2 : 1;
            dst[i] = (int8_t)(!data->is_unsigned && (byte[i] & 1) ? -size : size);
        }
        return;
    }
    for (size_t i = 0; i < count; i++) dst[i] = (int8_t)((byte[i] * values >> 8) + low);
    if (!sparse) return;
    for (size_t i = 0; i < count; i++) {
        int turn = rank - pick[i];
        if ((turn < 0 ? turn + data->nranks : turn) >= data->busy) dst[i] = 0;
    }
}

/* Natural logarithm of x in (0, 1], about 1e-10 off. Not libm's, which differs between hosts. */
static inline double plain_log(double x) {
    union {
        double d;
        uint64_t u;
    } v = {x};
    int exponent = (int)(v.u >> 52) - 1023;
    v.u = (v.u & 0x000fffffffffffffu) | 0x3ff0000000000000u;
    double t = (v.d - 1) / (v.d + 1), q = t * t, sum = 1.0 / 17;
    for (int k = 15; k > 0; k -= 2) sum = sum * q + 1.0 / k;
    return exponent * 0.69314718055994531 + 2 * t * sum;
}

/* Two independent N(0,1) values out of 64 random bits (Box and Muller). */
static inline void gauss_pair(uint64_t bits, double *a, double *b) {
    double u = ((double)(bits >> 32) + 0.5) / 4294967296.0;
    uint32_t angle = (uint32_t)bits;
    /* the angle within an eighth turn on either side of its quadrant's middle */
    double x = ((double)(angle & 0x3fffffffu) / 1073741824.0 - 0.5) * 1.5707963267948966;
    double q = x * x;
    double sine = x * (1 - q / 6 * (1 - q / 20 * (1 - q / 42 * (1 - q / 72))));
    double cosine = 1 - q / 2 * (1 - q / 12 * (1 - q / 30 * (1 - q / 56 * (1 - q / 90))));
    double radius = sqrt(-2 * plain_log(u));
    unsigned quadrant = angle >> 30;
    double s = quadrant & 1 ? cosine : sine, c = quadrant & 1 ? -sine : cosine;
    *a = quadrant & 2 ? -radius * c : radius * c;
    *b = quadrant & 2 ? -radius * s : radius * s;
}

/* heavy: the scale changes by powers of ten every 100 elements, across the codecs' blocks, and one
 * element in 128 is thirty times larger. */
static void make_heavy(const cinch_data *data, int rank, size_t start, size_t count, double *v) {
    static const double powers[] = {1e-3, 1e-2, 1e-1, 1, 1e1, 1e2, 1e3};
    bool fp8 = data->dtype == cinchFloat8e4m3 || data->dtype == cinchFloat8e5m2;
    int reach = fp8 ? 1 : data->dtype == cinchFloat16 ? 2 : 3; /* what the type can hold */
    uint64_t key = stream_key(data, rank, 2);
    for (size_t i = 0; i < count; i++) {
        uint64_t run = word_at(key, (start + i) / 100);
        v[i] *= powers[3 - reach + (int)((run >> 40) % (unsigned)(2 * reach + 1))];
        if (!fp8 && word_at(~key, start + i) >> 57 == 0) v[i] *= 30;
    }
}

static double least_subnormal(cinchDataType_t dtype) {
    switch (dtype) {
    case cinchFloat8e5m2:
        return 0x1p-16;
    case cinchFloat8e4m3:
        return 0x1p-9;
    case cinchFloat16:
        return 0x1p-24;
    case cinchBfloat16:
        return 0x1p-133;
    case cinchFloat32:
        return 0x1p-149;
    default:
        return 0x1p-1074;
    }
}

/* nonfinite: every 1009 elements one rank has NaN, Inf or -Inf, and next to it opposite infinities
 * meet; one element in 64 is subnormal. */
static void make_nonfinite(const cinch_data *data, int rank, size_t start, size_t count,
                           double *v) {
    static const double special[] = {NAN, INFINITY, -INFINITY};
    uint64_t key = stream_key(data, rank, 3);
    double least = least_subnormal(data->dtype);
    for (size_t i = 0; i < count; i++) {
        size_t at = (start + i) % 1009, lap = (start + i) / 1009;
        uint64_t bits = word_at(key, start + i);
        if (bits >> 58 == 0) v[i] = (double)((int)(bits & 6) - 3) * least;
        if (at == 5 && (size_t)rank == lap % (size_t)data->nranks) v[i] = special[lap % 3];
        if (at == 6 && lap % 2) v[i] = rank == 0 ? INFINITY : -INFINITY;
    }
}

/* v[i] for [start, start + count), start even. */
static void make_values(const cinch_data *data, int rank, size_t start, size_t count, double *v) {
    uint64_t key = stream_key(data, rank, 1);
    for (size_t i = 0; i < count; i += 2)
        gauss_pair(word_at(key, (start + i) / 2), &v[i], &v[i + 1]);
    if (data->kind == CINCH_DATA_HEAVY) make_heavy(data, rank, start, count, v);
    if (data->kind == CINCH_DATA_NONFINITE) make_nonfinite(data, rank, start, count, v);
}

static void fill_values(const cinch_data *data, int rank, size_t start, size_t count, void *dst) {
    enum { PIECE = 1024 };
    double v[PIECE + 2];
    float f[PIECE];
    size_t element = cinch_dtype_size(data->dtype);
    unsigned char *out = dst;
    for (size_t done = 0; done < count;) {
        size_t n = count - done < PIECE ? count - done : PIECE, odd = (start + done) & 1;
        make_values(data, rank, start + done - odd, n + odd, v);
        if (data->dtype == cinchFloat64) {
            memcpy(out, v + odd, n * element);
        } else {
            for (size_t i = 0; i < n; i++) f[i] = (float)v[odd + i];
            cinch_narrow(out, data->dtype, f, n);
        }
        out += n * element;
        done += n;
    }
}

static void fill_exact(const cinch_data *data, int rank, size_t start, size_t count, void *dst) {
    int8_t small[CINCH_DATA_CHUNK];
    size_t element = cinch_dtype_size(data->dtype);
    unsigned char *out = dst;
    while (count) {
        size_t n = count < CINCH_DATA_CHUNK ? count : CINCH_DATA_CHUNK;
        cinch_data_small(data, rank, start, n, small);
        switch (element) {
#define FILL(bytes)                                                                                \
    case bytes:                                                                                    \
        for (size_t i = 0; i < n; i++)                                                             \
            memcpy(out + i * bytes, data->table[(uint8_t)small[i]], bytes);                        \
        break;
            FILL(1)
            FILL(2)
            FILL(4)
            FILL(8)
#undef FILL
        }
        out += n * element;
        start += n;
        count -= n;
    }
}

/* The file's values, again and again where the message is longer. */
static void fill_input(const cinch_data *data, int rank, size_t start, size_t count, void *dst) {
    const cinch_input *input = data->input;
    int file = input->count == 1 ? 0 : rank;
    size_t element = cinch_dtype_size(data->dtype), room = input->size[file] / element;
    unsigned char *out = dst;
    for (size_t at = start % room; count; at = 0) {
        size_t n = count < room - at ? count : room - at;
        memcpy(out, input->bytes[file] + at * element, n * element);
        out += n * element;
        count -= n;
    }
}

void cinch_data_fill(const cinch_data *data, int rank, size_t start, size_t count, void *dst) {
    if (data->input)
        fill_input(data, rank, start, count, dst);
    else if (data->kind == CINCH_DATA_EXACT)
        fill_exact(data, rank, start, count, dst);
    else
        fill_values(data, rank, start, count, dst);
}

/* pattern with %r as the rank. */
static void input_path(const char *pattern, int rank, char *path, size_t room) {
    size_t used = 0;
    for (const char *p = pattern; *p && used + 1 < room; p++) {
        if (p[0] == '%' && p[1] == 'r') {
            used += (size_t)snprintf(path + used, room - used, "%d", rank);
            p++;
        } else {
            path[used++] = *p;
        }
    }
    path[used < room ? used : room - 1] = '\0';
}

bool cinch_input_open(const cinch_command *command, const char *pattern, int nranks, size_t element,
                      cinch_input *input) {
    int files = strstr(pattern, "%r") ? nranks : 1;
    *input = (cinch_input){0};
    input->bytes = calloc((size_t)files, sizeof *input->bytes);
    input->size = calloc((size_t)files, sizeof *input->size);
    if (!input->bytes || !input->size) {
        cinch_input_close(input);
        cinch_usage(command, "--input %s: out of memory", pattern);
        return false;
    }
    for (int i = 0; i < files; i++) {
        char path[4096];
        struct stat st;
        void *bytes = MAP_FAILED;
        input_path(pattern, i, path, sizeof path);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        bool opened = fd >= 0 && fstat(fd, &st) == 0;
        bool enough = opened && (size_t)st.st_size >= element;
        if (enough) bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        int err = errno;
        if (fd >= 0) close(fd);
        if (bytes == MAP_FAILED) {
            cinch_usage(command, "--input %s: %s", path,
                        opened && !enough ? "shorter than one element" : strerror(err));
            cinch_input_close(input);
            return false;
        }
        input->bytes[i] = bytes;
        input->size[i] = (size_t)st.st_size;
        input->count = i + 1;
    }
    return true;
}

void cinch_input_close(cinch_input *input) {
    for (int i = 0; i < input->count; i++) munmap((void *)input->bytes[i], input->size[i]);
    free(input->bytes);
    free(input->size);
    *input = (cinch_input){0};
}

uint64_t cinch_data_hash(const void *bytes, size_t count) {
    const unsigned char *p = bytes;
    uint64_t lane[4] = {1, 2, 3, 4}, word;
    size_t left = count;
    for (; left >= 32; left -= 32, p += 32)
        for (int i = 0; i < 4; i++) {
            memcpy(&word, p + 8 * i, 8);
            lane[i] = (lane[i] ^ word) * 0x9e3779b97f4a7c15u;
            lane[i] ^= lane[i] >> 29;
        }
    uint64_t hash = mix(count);
    for (int i = 0; i < 4; i++) hash = mix(hash ^ lane[i]) + (uint64_t)i;
    for (; left; left--, p++) hash = mix(hash ^ *p) + 1;
    return hash;
}

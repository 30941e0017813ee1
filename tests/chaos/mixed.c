/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of such a sequence. Inputs are small integers, so that every sum is exact in every
 * type, and a compressed one has a bound that is easily said. */
#include "tests/chaos/mixed.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"

enum { MOST_BITS = 16, PARTS = 3 };
#define ROOM ((size_t)8 << MOST_BITS)

typedef enum {
    ALLREDUCE,
    REDUCESCATTER,
    ALLGATHER,
    BROADCAST,
    REDUCE,
    ALLTOALL,
    EXCHANGE, /* send and receive, around */
    GROUP,    /* several all-reduces at once */
    STREAM,   /* two on a stream */
    KINDS
} kind;

typedef struct step {
    uint64_t key; /* the inputs follow from it */
    kind kind;
    size_t count;
    cinchDataType_t dtype;
    cinchRedOp_t op;
    int root;
} step;

static const cinchDataType_t types[] = {cinchFloat, cinchFloat,    cinchInt32, cinchInt64,
                                        cinchHalf,  cinchBfloat16, cinchInt8,  cinchDouble};

static size_t bytes_of(cinchDataType_t dtype) {
    switch (dtype) {
    case cinchInt8:
        return 1;
    case cinchHalf:
    case cinchBfloat16:
        return 2;
    case cinchInt64:
    case cinchDouble:
        return 8;
    default:
        return 4;
    }
}

static step make_step(const mixed *m, uint64_t i) {
    uint64_t state = m->seed ^ (i * 0x9e3779b97f4a7c15u), pick = random64(&state);
    unsigned bits = (unsigned)(random64(&state) % (m->most_bits + 1));
    step s = {.key = random64(&state),
              .kind = (kind)(pick % KINDS),
              .count = 1 + (size_t)(random64(&state) % (1u << bits)),
              .dtype = types[random64(&state) % 8],
              .op = random64(&state) % 4 ? cinchSum : cinchMax,
              .root = (int)(random64(&state) % (uint64_t)m->nranks)};
    if (s.kind == GROUP) s.count = 1 + s.count / 4;
    return s;
}

/* -8 to 8, less than that for bytes, of which eight are added at most. */
static int value(const step *s, int rank, size_t j) {
    uint64_t x = (s->key ^ (j * 0xff51afd7ed558ccdu)) + (uint64_t)rank * 0xc4ceb9fe1a85ec53u;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9u;
    return (int)((x >> 40) % 17) - 8;
}

static uint16_t half_of(int v) {
    uint16_t sign = v < 0 ? 0x8000 : 0;
    unsigned a = (unsigned)abs(v), e = 0;
    if (!a) return 0;
    while (a >> (e + 1)) e++;
    return (uint16_t)(sign | (e + 15) << 10 | ((a << (10 - e)) & 0x3ff));
}

static double from_half(uint16_t h) {
    int e = h >> 10 & 31;
    double f = h & 0x3ff, size = e ? ldexp(1024 + f, e - 25) : ldexp(f, -24);
    return e == 31 ? NAN : h & 0x8000 ? -size : size;
}

static void put(cinchDataType_t dtype, unsigned char *data, size_t j, int v) {
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    switch (dtype) {
    case cinchInt8:
        ((int8_t *)data)[j] = (int8_t)v;
        break;
    case cinchHalf:
        ((uint16_t *)(void *)data)[j] = half_of(v);
        break;
    case cinchBfloat16:
        ((uint16_t *)(void *)data)[j] = (uint16_t)(bits >> 16);
        break;
    case cinchInt32:
        ((int32_t *)(void *)data)[j] = v;
        break;
    case cinchInt64:
        ((int64_t *)(void *)data)[j] = v;
        break;
    case cinchDouble:
        ((double *)(void *)data)[j] = v;
        break;
    default:
        ((float *)(void *)data)[j] = f;
    }
}

static double get(cinchDataType_t dtype, const unsigned char *data, size_t j) {
    uint32_t bits;
    float f;
    switch (dtype) {
    case cinchInt8:
        return ((const int8_t *)data)[j];
    case cinchHalf:
        return from_half(((const uint16_t *)(const void *)data)[j]);
    case cinchBfloat16:
        bits = (uint32_t)((const uint16_t *)(const void *)data)[j] << 16;
        memcpy(&f, &bits, sizeof f);
        return (double)f;
    case cinchInt32:
        return ((const int32_t *)(const void *)data)[j];
    case cinchInt64:
        return (double)((const int64_t *)(const void *)data)[j];
    case cinchDouble:
        return ((const double *)(const void *)data)[j];
    default:
        return (double)((const float *)(const void *)data)[j];
    }
}

int mixed_open(mixed *m) {
    m->in = malloc(MIXED_MOST_RANKS * ROOM);
    m->out = malloc(MIXED_MOST_RANKS * ROOM);
    return m->in && m->out && cinchStreamCreate(&m->stream) == cinchSuccess ? 0 : -1;
}

void mixed_close(mixed *m) {
    if (m->stream) cinchStreamDestroy(m->stream);
    free(m->in);
    free(m->out);
    m->in = m->out = NULL;
    m->stream = NULL;
}

/* ---- running ---- */

static size_t inputs(const mixed *m, const step *s) {
    switch (s->kind) {
    case REDUCESCATTER:
    case ALLTOALL:
        return s->count * (size_t)m->nranks;
    case GROUP:
        return s->count * PARTS;
    case STREAM:
        return s->count * 2;
    default:
        return s->count;
    }
}

static cinchResult_t several(const mixed *m, const step *s, int parts, cinchStream_t stream) {
    size_t part = s->count * bytes_of(s->dtype);
    for (int p = 0; p < parts; p++) {
        cinchResult_t result = cinchAllReduce(m->in + (size_t)p * part, m->out + (size_t)p * part,
                                              s->count, s->dtype, s->op, m->comm, stream);
        if (result != cinchSuccess) return result;
    }
    return cinchSuccess;
}

static cinchResult_t run(const mixed *m, const step *s) {
    int n = m->nranks, next = (m->rank + 1) % n, before = (m->rank + n - 1) % n;
    cinchResult_t result, end;
    switch (s->kind) {
    case ALLREDUCE:
        return several(m, s, 1, NULL);
    case REDUCESCATTER:
        return cinchReduceScatter(m->in, m->out, s->count, s->dtype, s->op, m->comm, NULL);
    case ALLGATHER:
        return cinchAllGather(m->in, m->out, s->count, s->dtype, m->comm, NULL);
    case BROADCAST:
        return cinchBroadcast(m->in, m->out, s->count, s->dtype, s->root, m->comm, NULL);
    case REDUCE:
        return cinchReduce(m->in, m->out, s->count, s->dtype, s->op, s->root, m->comm, NULL);
    case ALLTOALL:
        return cinchAlltoAll(m->in, m->out, s->count, s->dtype, m->comm, NULL);
    case EXCHANGE:
        cinchGroupStart();
        result = cinchSend(m->in, s->count, s->dtype, next, m->comm, NULL);
        if (result == cinchSuccess)
            result = cinchRecv(m->out, s->count, s->dtype, before, m->comm, NULL);
        end = cinchGroupEnd();
        return result == cinchSuccess ? end : result;
    case GROUP:
        cinchGroupStart();
        result = several(m, s, PARTS, NULL);
        end = cinchGroupEnd();
        return result == cinchSuccess ? end : result;
    default:
        result = several(m, s, 2, m->stream);
        end = cinchStreamSynchronize(m->stream);
        return result == cinchSuccess ? end : result;
    }
}

/* ---- what comes out ---- */

static size_t outputs(const mixed *m, const step *s) {
    switch (s->kind) {
    case ALLGATHER:
    case ALLTOALL:
        return s->count * (size_t)m->nranks;
    case GROUP:
        return s->count * PARTS;
    case STREAM:
        return s->count * 2;
    case REDUCE:
        return m->rank == s->root ? s->count : 0;
    default:
        return s->count;
    }
}

static double reduced(const mixed *m, const step *s, size_t j) {
    int sum = 0, most = -100;
    for (int r = 0; r < m->nranks; r++) {
        int v = value(s, r, j);
        sum += v;
        most = v > most ? v : most;
    }
    return s->op == cinchSum ? sum : most;
}

static double wanted(const mixed *m, const step *s, size_t j) {
    size_t mine = (size_t)m->rank * s->count;
    switch (s->kind) {
    case REDUCESCATTER:
        return reduced(m, s, mine + j);
    case ALLGATHER:
        return value(s, (int)(j / s->count), j % s->count);
    case BROADCAST:
        return value(s, s->root, j);
    case ALLTOALL:
        return value(s, (int)(j / s->count), mine + j % s->count);
    case EXCHANGE:
        return value(s, (m->rank + m->nranks - 1) % m->nranks, j);
    default:
        return reduced(m, s, j);
    }
}

static bool adds(const step *s) {
    bool reduces = s->kind == ALLREDUCE || s->kind == REDUCESCATTER || s->kind == REDUCE ||
                   s->kind == GROUP || s->kind == STREAM;
    return reduces && s->op == cinchSum;
}

/* Two quantizations by 8-bit steps of at most 8/127 and 8n/127, each off by half a step, and again
 * as much where error feedback adds the last call's: below that by half. */
static double slack_of(const mixed *m, const step *s) {
    if (m->codec == MIXED_EXACT || !adds(s)) return 0;
    if (s->dtype != cinchFloat && s->dtype != cinchHalf && s->dtype != cinchBfloat16) return 0;
    double bound = 2 * 0.5 * (m->nranks * 8 + 8 * m->nranks) / 127.0;
    return m->codec == MIXED_ANY ? INFINITY : 1.5 * bound + 0.25; /* half and bf16 round it, too */
}

static void check(mixed *m, const step *s, uint64_t i) {
    static const char *const names[KINDS] = {
        "all-reduce", "reduce-scatter",   "all-gather", "broadcast",        "reduce",
        "all-to-all", "send and receive", "a group",    "calls on a stream"};
    double slack = slack_of(m, s);
    for (size_t j = 0; j < outputs(m, s); j++) {
        double is = get(s->dtype, m->out, j), want = wanted(m, s, j);
        if (fabs(is - want) <= slack || (isinf(slack) && isfinite(is))) continue;
        snprintf(m->wrong, sizeof m->wrong,
                 "step %llu, %s of %zu elements of type %d on rank %d of %d: element %zu is %g, "
                 "not %g (within %g)",
                 (unsigned long long)i, names[s->kind], s->count, (int)s->dtype, m->rank, m->nranks,
                 j, is, want, slack);
        return;
    }
}

cinchResult_t mixed_step(mixed *m, uint64_t i) {
    step s = make_step(m, i);
    size_t in = inputs(m, &s);
    for (size_t j = 0; j < in; j++) put(s.dtype, m->in, j, value(&s, m->rank, j));
    memset(m->out, 0x5a, outputs(m, &s) * bytes_of(s.dtype));
    cinchResult_t result = run(m, &s);
    m->hash = 0;
    if (result != cinchSuccess) return result;
    check(m, &s, i);
    if (s.kind == ALLREDUCE || s.kind == GROUP || s.kind == STREAM)
        m->hash = hash_bytes(1, m->out, outputs(m, &s) * bytes_of(s.dtype));
    return result;
}

cinchResult_t mixed_same(mixed *m, uint64_t number) {
    uint64_t all[MIXED_MOST_RANKS];
    cinchResult_t result = cinchAllGather(&number, all, 1, cinchUint64, m->comm, NULL);
    for (int r = 0; r < m->nranks && result == cinchSuccess; r++)
        if (all[r] != number)
            snprintf(m->wrong, sizeof m->wrong, "rank %d has %016llx where rank %d has %016llx", r,
                     (unsigned long long)all[r], m->rank, (unsigned long long)number);
    return result;
}

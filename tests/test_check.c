/* SPDX-License-Identifier: Apache-2.0 */
/* cinch perf's own judge: it passes right results of every operation, and notices a wrong bit, a
 * rank that was left out, blocks at the wrong place, a wrong root, an error beyond the bound, a
 * byte written outside; and its data are what they claim to be. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/dtype.h"
#include "compress/reduce.h"
#include "perf/buffers.h"
#include "perf/check.h"

enum { MOST_RANKS = 20, MOST_COUNT = 20000 };
static const int sizes[] = {1, 2, 3, 4, 7, 8, 16, 20};
static const size_t counts[] = {1, 2, 5, 255, 1000, 8193};
#define LENGTH(a) (int)(sizeof(a) / sizeof *(a))

static unsigned char input[MOST_RANKS][MOST_COUNT * 8], result[MOST_COUNT * 8];

/* What a right all-reduce of the ranks for which skip != rank would give. */
static void reduce(const cinch_data *data, size_t count, int skip) {
    const void *src[MOST_RANKS];
    void *dst = result;
    int n = 0;
    cinchRedOp_t op =
        data->op == CINCH_OP_MULSUM || data->op == CINCH_OP_AVG ? cinchSum : (cinchRedOp_t)data->op;
    for (int r = 0; r < data->nranks; r++) {
        cinch_data_fill(data, r, 0, count, input[r]);
        if (data->op == CINCH_OP_MULSUM)
            cinch_premul(input[r], input[r], data->dtype, count, data->table[cinch_data_scalar(r)]);
        if (r != skip) src[n++] = input[r];
    }
    cinch_reduce_reference(data->dtype, op)(&dst, 1, src, n, count,
                                            data->op == CINCH_OP_AVG ? data->nranks : 0, 0);
}

static uint64_t wrong(const cinch_data *data, size_t count) {
    cinch_check check = {.operation = cinch_operations, .data = data};
    cinch_verdict verdict;
    ck_assert(cinch_check_result(&check, result, count, &verdict));
    ck_assert(verdict.judged);
    return verdict.wrong;
}

/* Calls f for every type, operator and number of ranks. */
static void for_all(cinch_data_kind kind, void (*f)(const cinch_data *data)) {
    for (int d = 0; d < cinchNumTypes; d++)
        for (int op = 0; op < CINCH_OP_COUNT; op++)
            for (int s = 0; s < LENGTH(sizes); s++) {
                cinch_data data;
                cinch_data_setup(&data, kind, NULL, sizes[s], (cinchDataType_t)d, (cinch_op)op);
                f(&data);
            }
}

#define WHERE "%s %d, %d ranks, %zu elements: %d"
#define HERE(n) cinch_dtype_name(data->dtype), (int)data->op, data->nranks, (n)

static void right_passes(const cinch_data *data) {
    for (int i = 0; i < LENGTH(counts); i++) {
        reduce(data, counts[i], -1);
        uint64_t n = wrong(data, counts[i]);
        ck_assert_msg(n == 0, WHERE, HERE(counts[i]), (int)n);
    }
}

START_TEST(right_results_pass) {
    for (int kind = CINCH_DATA_EXACT; kind <= CINCH_DATA_NONFINITE; kind++)
        for_all((cinch_data_kind)kind, right_passes);
}
END_TEST

/* One bit: of an integer any, of a float its sign, or the last where nothing may be off. */
static void bit_is_seen(const cinch_data *data) {
    size_t element = cinch_dtype_size(data->dtype), count = 1000, at = 700;
    bool is_float = cinch_dtype_is_float(data->dtype);
    bool last_bit = !is_float || (cinch_data_is_exact(data) && data->op != CINCH_OP_AVG);
    reduce(data, count, -1);
    double value;
    if (is_float) { /* not a zero's sign */
        for (at = 0; at < count; at++) {
            cinch_load_double(&value, result + at * element, data->dtype, 1);
            if (value != 0) break;
        }
        ck_assert(at < count);
    }
    result[last_bit ? at * element : (at + 1) * element - 1] ^= last_bit ? 1 : 0x80;
    uint64_t n = wrong(data, count);
    ck_assert_msg(n == 1, WHERE, HERE(count), (int)n);
}

START_TEST(one_bit_is_seen) {
    for_all(CINCH_DATA_EXACT, bit_is_seen);
}
END_TEST

static void loss_is_seen(const cinch_data *data) {
    size_t count = 2000;
    if (data->nranks == 1) return;
    for (int skip = 0; skip < data->nranks; skip += data->nranks - 1) {
        reduce(data, count, skip);
        ck_assert_msg(wrong(data, count) > 0, WHERE, HERE(count), skip);
    }
}

START_TEST(a_lost_rank_is_seen) {
    for_all(CINCH_DATA_EXACT, loss_is_seen);
}
END_TEST

/* plain: a rank that does not encode its input, or -1. */
static void codec_result(const cinch_data *data, const cinch_codec *codec, size_t from,
                         size_t count, bool sum_encoded, int plain) {
    static unsigned char wire[MOST_RANKS][MOST_COUNT * 8];
    size_t element = cinch_dtype_size(data->dtype);
    void *scratch =
        aligned_alloc(64, (cinch_codec_scratch(codec, data->dtype, count) + 64) / 64 * 64);
    cinch_codec_term term[MOST_RANKS];
    cinchCodecSite_t site = {.offset = from};
    uint64_t nonfinite = 0;
    int avg_n = data->op == CINCH_OP_AVG ? data->nranks : 0;
    for (int r = 0; r < data->nranks; r++) {
        cinch_data_fill(data, r, 0, from + count, input[r]);
        site.rank = (uint32_t)r;
        size_t bytes =
            cinch_codec_encode(codec, &site, NULL, data->dtype, input[r] + from * element, NULL,
                               count, wire[r], &nonfinite, scratch);
        term[r] = (cinch_codec_term){wire[r], bytes, NULL};
        if (r == plain) term[r] = (cinch_codec_term){NULL, 0, input[r] + from * element};
    }
    unsigned char *out = result + from * element;
    ck_assert_int_eq(cinch_codec_sum(codec, term, data->nranks, data->dtype, data->dtype, out,
                                     count, avg_n, scratch),
                     cinchSuccess);
    if (sum_encoded) {
        size_t bytes = cinch_codec_encode(codec, &site, NULL, data->dtype, out, NULL, count,
                                          wire[0], &nonfinite, scratch);
        term[0] = (cinch_codec_term){wire[0], bytes, NULL};
        cinch_codec_sum(codec, term, 1, data->dtype, data->dtype, out, count, 0, scratch);
    }
    free(scratch);
}

/* Results as the codec plans make them pass, wherever the ranks' shares begin; an element that is
 * off by some steps more does not. */
START_TEST(codec_bounds) {
    static const char *const specs[] = {"int8", "int8:block=64", "int8:block=4096",
                                        "int8:round=stochastic", "bf16"};
    static const cinchDataType_t dtypes[] = {cinchFloat32, cinchFloat16, cinchBfloat16};
    for (int s = 0; s < LENGTH(specs); s++)
        for (int d = 0; d < 3; d++)
            for (int kind = CINCH_DATA_EXACT; kind <= CINCH_DATA_NONFINITE; kind++)
                for (int avg = 0; avg < 2; avg++) {
                    cinch_codec codec;
                    cinch_data data;
                    cinch_verdict verdict;
                    char why[200];
                    size_t cut = 4567, count = MOST_COUNT;
                    ck_assert(cinch_codec_parse(specs[s], &codec, why, sizeof why));
                    cinch_data_setup(&data, (cinch_data_kind)kind, NULL, 3, dtypes[d],
                                     avg ? CINCH_OP_AVG : CINCH_OP_SUM);
                    cinch_check check = {cinch_operations, 0, 0, &data, &codec, true};
                    codec_result(&data, &codec, 0, cut, true, -1);
                    codec_result(&data, &codec, cut, count - cut, true, -1);
                    ck_assert(cinch_check_result(&check, result, count, &verdict));
                    ck_assert(verdict.judged);
                    ck_assert_msg(verdict.wrong == 0, "%s %s kind %d avg %d: %d", specs[s],
                                  cinch_dtype_name(dtypes[d]), kind, avg, (int)verdict.wrong);
                    if (kind != CINCH_DATA_GAUSS) continue;
                    double value;
                    float off;
                    size_t element = cinch_dtype_size(dtypes[d]), at = 6000;
                    cinch_load_double(&value, result + at * element, dtypes[d], 1);
                    off =
                        (float)value +
                        0.4f; /* int8: 4 steps of about 0.015, rounded stochastically twice that */
                    cinch_narrow(result + at * element, dtypes[d], &off, 1);
                    ck_assert(cinch_check_result(&check, result, count, &verdict));
                    ck_assert_msg(verdict.wrong == 1, "%s: %d", specs[s], (int)verdict.wrong);
                }
}
END_TEST

START_TEST(codecs_without_a_bound_are_not_judged) {
    cinch_codec codec;
    cinch_data data;
    cinch_verdict verdict;
    char why[200];
    ck_assert(cinch_codec_parse("topk", &codec, why, sizeof why));
    cinch_data_setup(&data, CINCH_DATA_GAUSS, NULL, 2, cinchFloat32, CINCH_OP_SUM);
    cinch_check check = {cinch_operations, 0, 0, &data, &codec, true};
    reduce(&data, 1000, -1);
    ck_assert(cinch_check_result(&check, result, 1000, &verdict));
    ck_assert(!verdict.judged);
    ck_assert(verdict.rel_l2 < 1e-6);
    memset(result, 0, 4000);
    ck_assert(cinch_check_result(&check, result, 1000, &verdict));
    ck_assert_double_eq_tol(verdict.rel_l2, 1, 1e-12);
}
END_TEST

/* ------------------------------------------------------------------------------------------------
 * Every operation
 * ------------------------------------------------------------------------------------------------
 */

/* One rank's part in an operation. */
typedef struct role {
    const cinch_operation *operation;
    const cinch_data *data;
    int rank, root;
    size_t count;
} role;

/* The right result of the role, written down apart from the table that is on trial. lost: a rank
 * that is left out of a reduction. Returns the elements of the result. */
static size_t perform(const role *r, int lost) {
    const char *name = r->operation->name;
    int n = r->data->nranks;
    size_t count = r->count, block = count * cinch_dtype_size(r->data->dtype);
    bool root = r->rank == r->root, blocks = true;
    if (!strcmp(name, "allreduce") || !strcmp(name, "reduce") || !strcmp(name, "reducescatter")) {
        bool share = !strcmp(name, "reducescatter");
        reduce(r->data, share ? (size_t)n * count : count, lost);
        if (share) memmove(result, result + (size_t)r->rank * block, block);
        return strcmp(name, "reduce") || root ? count : 0;
    }
    for (int q = 0; q < n; q++) cinch_data_fill(r->data, q, 0, (size_t)n * count, input[q]);
    for (int b = 0; b < n; b++) {
        const unsigned char *from = NULL;
        if (!strcmp(name, "allgather") || !strcmp(name, "gather")) from = input[b];
        if (!strcmp(name, "alltoall")) from = input[b] + (size_t)r->rank * block;
        if (from) memcpy(result + (size_t)b * block, from, block);
        blocks = blocks && from;
    }
    if (!strcmp(name, "broadcast")) memcpy(result, input[r->root], block);
    if (!strcmp(name, "scatter")) memcpy(result, input[r->root] + (size_t)r->rank * block, block);
    if (!strcmp(name, "sendrecv")) memcpy(result, input[(r->rank + n - 1) % n], block);
    if (!blocks) return count;
    return strcmp(name, "gather") || root ? (size_t)n * count : 0;
}

static uint64_t wrong_of(const role *r) {
    cinch_check check = {
        .operation = r->operation, .rank = r->rank, .root = r->root, .data = r->data};
    cinch_verdict verdict;
    ck_assert(cinch_check_result(&check, result, r->count, &verdict));
    ck_assert(verdict.judged);
    ck_assert(verdict.wrong == 0 ? verdict.rel_l2 == 0 : verdict.max_abs_err > 0);
    return verdict.wrong;
}

/* Calls f for every operation, rank, root, some types, and the operators that matter. */
static void for_roles(void (*f)(const role *r)) {
    static const cinchDataType_t dtypes[] = {cinchInt8, cinchUint64, cinchFloat16, cinchFloat32,
                                             cinchFloat8e4m3};
    static const int nranks[] = {2, 3, 8};
    for (const char *const *name = cinch_operation_names; *name; name++)
        for (int d = 0; d < LENGTH(dtypes); d++)
            for (int s = 0; s < LENGTH(nranks); s++)
                for (int at = 0; at < nranks[s] * nranks[s]; at++) {
                    const cinch_operation *o = &cinch_operations[name - cinch_operation_names];
                    cinch_data data;
                    role r = {o, &data, at % nranks[s], at / nranks[s], 300};
                    if (r.root && !o->rooted) continue;
                    ck_assert_str_eq(o->name, *name);
                    cinch_data_setup(&data, CINCH_DATA_EXACT, NULL, nranks[s], dtypes[d],
                                     cinch_reduces(o) ? CINCH_OP_SUM : CINCH_OP_NONE);
                    f(&r);
                }
}

#define ROLE "%s %s, rank %d of %d, root %d"
#define ROLE_OF(r)                                                                                 \
    r->operation->name, cinch_dtype_name(r->data->dtype), r->rank, r->data->nranks, r->root

static void right_role(const role *r) {
    size_t elements = perform(r, -1), element = cinch_dtype_size(r->data->dtype);
    int blocks = cinch_recv_blocks(r->operation, r->rank, r->data->nranks, r->root);
    ck_assert_msg(elements == (size_t)blocks * r->count, ROLE, ROLE_OF(r));
    ck_assert_msg(wrong_of(r) == 0, ROLE, ROLE_OF(r));
    for (size_t at = 0; at < elements; at += 299) { /* the last bit of the first, the 300th, ... */
        result[at * element] ^= 1;
        ck_assert_msg(wrong_of(r) == 1, ROLE, ROLE_OF(r));
        result[at * element] ^= 1;
    }
}

START_TEST(every_operation_passes) {
    for_roles(right_role);
}
END_TEST

static void wrong_role(const role *r) {
    size_t block = r->count * cinch_dtype_size(r->data->dtype);
    size_t elements = perform(r, -1), element = cinch_dtype_size(r->data->dtype);
    int n = r->data->nranks;
    if (elements == 0) return;
    /* off by an element */
    memmove(result, result + element, (elements - 1) * element);
    ck_assert_msg(wrong_of(r) > 0, ROLE, ROLE_OF(r));
    /* blocks in another order */
    for (int b = 1; elements > r->count && b < n; b++) {
        static unsigned char first[MOST_COUNT];
        perform(r, -1);
        memcpy(first, result, block);
        memcpy(result, result + (size_t)b * block, block);
        memcpy(result + (size_t)b * block, first, block);
        ck_assert_msg(wrong_of(r) > 0, ROLE, ROLE_OF(r));
    }
    /* a contribution that is missing */
    for (int lost = 0; cinch_reduces(r->operation) && lost < n; lost++) {
        perform(r, lost);
        ck_assert_msg(wrong_of(r) > 0, ROLE, ROLE_OF(r));
    }
    /* what another rank should get, or what another root would have sent: the same only where all
     * ranks get the same, and where the operation does not ask who the root is */
    role other = *r;
    other.rank = (r->rank + 1) % n;
    if (!cinch_same_everywhere(r->operation) && perform(&other, -1) == elements)
        ck_assert_msg(wrong_of(r) > 0, ROLE, ROLE_OF(r));
    other.rank = r->rank;
    other.root = (r->root + 1) % n;
    if (r->operation->source == CINCH_FROM_ROOT && perform(&other, -1) == elements)
        ck_assert_msg(wrong_of(r) > 0, ROLE, ROLE_OF(r));
}

START_TEST(wrong_operations_are_seen) {
    for_roles(wrong_role);
}
END_TEST

/* What only moves is judged bit by bit: the sign of zero, and which NaN. */
START_TEST(moves_keep_every_bit) {
    static const float values[] = {0.0f, NAN}, others[] = {-0.0f, -NAN};
    cinch_data data;
    const unsigned char *bytes[] = {(const unsigned char *)values};
    size_t size[] = {sizeof values};
    cinch_input file = {1, bytes, size};
    role r = {&cinch_operations[2], &data, 0, 0, 2};
    cinch_data_setup(&data, CINCH_DATA_EXACT, &file, 2, cinchFloat32, CINCH_OP_NONE);
    perform(&r, -1);
    cinch_check check = {.operation = r.operation, .data = &data};
    cinch_verdict verdict;
    ck_assert(cinch_check_result(&check, result, 2, &verdict));
    ck_assert_uint_eq(verdict.wrong, 0);
    memcpy(result + sizeof values, others, sizeof others);
    ck_assert(cinch_check_result(&check, result, 2, &verdict));
    ck_assert_uint_eq(verdict.wrong, 2);
}
END_TEST

/* Buffers as the operation has them; what is written outside of the result is counted. */
static void role_buffers(const role *r) {
    size_t element = cinch_dtype_size(r->data->dtype), block = r->count * element;
    int n = r->data->nranks;
    for (int in_place = 0; in_place <= r->operation->in_place; in_place++) {
        cinch_buffers_shape shape = {r->operation, r->rank,  n,     r->root, r->count,
                                     element,      in_place, false, false};
        cinch_buffers b;
        ck_assert_int_eq(cinch_buffers_make(&b, &shape), cinchSuccess);
        ck_assert_uint_eq(b.send_bytes,
                          block * (size_t)cinch_send_blocks(r->operation, r->rank, n, r->root));
        size_t elements = perform(r, -1);
        ck_assert_uint_eq(b.recv_bytes, elements * element);
        bool both = b.send_bytes && b.recv_bytes;
        if (in_place && both && b.send_bytes < b.recv_bytes)
            ck_assert_ptr_eq(b.send, b.recv + (size_t)r->rank * block);
        else if (in_place && both && b.send_bytes > b.recv_bytes)
            ck_assert_ptr_eq(b.recv, b.send + (size_t)r->rank * block);
        else if (in_place)
            ck_assert_ptr_eq(b.recv, b.send);
        else
            ck_assert((b.send != NULL) == (b.send_bytes > 0) &&
                      (b.recv != NULL) == (b.recv_bytes > 0));
        cinch_buffers_prepare(&b, r->data);
        ck_assert_uint_eq(cinch_buffers_spoilt(&b, r->data), 0);
        if (elements) memcpy(b.recv, result, elements * element);
        ck_assert_msg(cinch_buffers_spoilt(&b, r->data) == 0, ROLE, ROLE_OF(r));
        /* one byte before, behind, and in every block of the input that is to stay */
        unsigned char *first = b.send < b.recv || !b.recv ? b.send : b.recv;
        if (!first) first = b.recv;
        first[-1]++;
        ck_assert_msg(cinch_buffers_spoilt(&b, r->data) == 1, ROLE, ROLE_OF(r));
        first[-1]--;
        if (b.recv_bytes && (!both || b.recv_bytes >= b.send_bytes || !in_place)) {
            b.recv[b.recv_bytes]++;
            ck_assert_msg(cinch_buffers_spoilt(&b, r->data) == 1, ROLE, ROLE_OF(r));
            b.recv[b.recv_bytes]--;
        }
        for (size_t at = 0; at < b.send_bytes; at += block) {
            bool kept = !in_place || !b.recv_bytes ||
                        (b.send_bytes > b.recv_bytes && at != (size_t)r->rank * block);
            b.send[at + block - 1]++;
            ck_assert_msg(cinch_buffers_spoilt(&b, r->data) == kept, ROLE, ROLE_OF(r));
            b.send[at + block - 1]--;
        }
        cinch_buffers_free(&b);
    }
}

START_TEST(what_is_written_outside_is_seen) {
    for_roles(role_buffers);
}
END_TEST

/* nccl-tests' factors and counts. */
START_TEST(factors) {
    static const double factor[] = {1.5, 0.75, 0.75, 1, 1, 0.75, 0.75, 0.75, 1};
    static const int blocks[] = {1, 4, 4, 1, 1, 4, 4, 4, 1};
    for (int i = 0; cinch_operation_names[i]; i++) {
        ck_assert_double_eq(cinch_bus_factor(&cinch_operations[i], 4), factor[i]);
        ck_assert_int_eq(cinch_total_blocks(&cinch_operations[i], 4), blocks[i]);
    }
}
END_TEST

/* Whether the judge passes `rank`'s result at got. */
static uint64_t wrong_encoded(const cinch_operation *o, int rank, const cinch_data *data,
                              const cinch_codec *codec, const void *got, size_t count) {
    cinch_check check = {o, rank, 0, data, codec, false};
    cinch_verdict verdict;
    ck_assert(cinch_check_result(&check, got, count, &verdict));
    ck_assert(verdict.judged);
    return verdict.wrong;
}

/* What all ranks get of rank's values. */
static void encode_once(const cinch_data *data, const cinch_codec *codec, int rank, size_t count,
                        unsigned char *out) {
    static unsigned char wire[MOST_COUNT * 8];
    void *scratch =
        aligned_alloc(64, (cinch_codec_scratch(codec, data->dtype, count) + 64) / 64 * 64);
    cinchCodecSite_t site = {.rank = (uint32_t)rank};
    uint64_t nonfinite = 0;
    cinch_data_fill(data, rank, 0, count, input[0]);
    size_t bytes = cinch_codec_encode(codec, &site, NULL, data->dtype, input[0], NULL, count, wire,
                                      &nonfinite, scratch);
    cinch_codec_term term = {wire, bytes, NULL};
    ck_assert_int_eq(
        cinch_codec_sum(codec, &term, 1, data->dtype, data->dtype, out, count, 0, scratch),
        cinchSuccess);
    free(scratch);
}

/* Shares and blocks that were encoded once are within the bound of one quantization; an error that
 * a second one would explain is beyond it. */
START_TEST(codecs_of_shares_and_blocks) {
    static const char *const specs[] = {"int8", "int8:block=64", "bf16"};
    static const cinchDataType_t dtypes[] = {cinchFloat32, cinchFloat16, cinchBfloat16};
    const cinch_operation *share = &cinch_operations[1], *gather = &cinch_operations[2];
    for (int i = 0; i < LENGTH(specs) * 3 * (CINCH_DATA_NONFINITE + 1); i++) {
        cinch_codec codec;
        cinch_data data;
        char why[200];
        cinchDataType_t dtype = dtypes[i % 3];
        cinch_data_kind kind = (cinch_data_kind)(i / 3 % (CINCH_DATA_NONFINITE + 1));
        size_t count = 5000, element = cinch_dtype_size(dtype), at = 3333;
        ck_assert(cinch_codec_parse(specs[i / 12], &codec, why, sizeof why));
        cinch_data_setup(&data, kind, NULL, 3, dtype, CINCH_OP_SUM);
        for (int r = 0; r < 3; r++) {
            unsigned char *got = result + (size_t)r * count * element;
            for (int plain = -1; plain <= r; plain += r + 1) { /* the owner's own, or none */
                codec_result(&data, &codec, (size_t)r * count, count, false, plain);
                ck_assert_msg(wrong_encoded(share, r, &data, &codec, got, count) == 0, "%s",
                              specs[i / 12]);
            }
        }
        if (kind == CINCH_DATA_GAUSS && dtype == cinchFloat32 && i / 12 == 0) {
            /* int8: half a step per rank, of at most 4.5 / 127, is 0.053; a second quantization
             * could add half a step of a sum, of at least 4 / 127 */
            float *got = (float *)(void *)(result + 2 * count * element), exact = 0, one;
            for (int r = 0; r < 3; r++) {
                cinch_data_fill(&data, r, 2 * count + at, 1, &one);
                exact += one;
            }
            got[at] = exact + 0.058f;
            ck_assert_uint_eq(wrong_encoded(share, 2, &data, &codec, got, count), 1);
        }
        cinch_data_setup(&data, kind, NULL, 3, dtype, CINCH_OP_NONE);
        for (int r = 0; r < 3; r++)
            encode_once(&data, &codec, r, count, result + (size_t)r * count * element);
        ck_assert_msg(wrong_encoded(gather, 1, &data, &codec, result, count) == 0, "%s",
                      specs[i / 12]);
        memcpy(result, result + count * element, count * element);
        ck_assert(wrong_encoded(gather, 1, &data, &codec, result, count) > 0);
    }
}
END_TEST

/* Any piece of the data is what stands there in the whole. */
START_TEST(data_do_not_depend_on_pieces) {
    static unsigned char piece[MOST_COUNT * 8];
    for (int d = 0; d < cinchNumTypes; d++)
        for (int kind = CINCH_DATA_EXACT; kind <= CINCH_DATA_NONFINITE; kind++) {
            cinch_data data;
            size_t element = cinch_dtype_size((cinchDataType_t)d);
            cinch_data_setup(&data, (cinch_data_kind)kind, NULL, 9, (cinchDataType_t)d,
                             CINCH_OP_SUM);
            cinch_data_fill(&data, 3, 0, MOST_COUNT, result);
            for (size_t start = 0; start < 3000; start += 1 + start / 3) {
                size_t count = start * 5 + 1;
                cinch_data_fill(&data, 3, start, count, piece);
                ck_assert_mem_eq(piece, result + start * element, count * element);
            }
        }
}
END_TEST

/* N(0,1): moments, and the share of values beyond 1, 2 and 3. */
START_TEST(gauss_is_gauss) {
    static float v[MOST_COUNT];
    static const double share[] = {0.31731, 0.04550, 0.00270};
    cinch_data data;
    double moment[5] = {0}, beyond[3] = {0}, total = 0;
    cinch_data_setup(&data, CINCH_DATA_GAUSS, NULL, 1, cinchFloat32, CINCH_OP_SUM);
    for (int r = 0; r < 50; r++) {
        cinch_data_fill(&data, r, 0, MOST_COUNT, v);
        for (int i = 0; i < MOST_COUNT; i++) {
            for (int k = 1; k < 5; k++) moment[k] += pow(v[i], k);
            for (int k = 0; k < 3; k++) beyond[k] += fabsf(v[i]) > (float)(k + 1);
        }
        total += MOST_COUNT;
    }
    ck_assert_double_eq_tol(moment[1] / total, 0, 0.005);
    ck_assert_double_eq_tol(moment[2] / total, 1, 0.01);
    ck_assert_double_eq_tol(moment[3] / total, 0, 0.02);
    ck_assert_double_eq_tol(moment[4] / total, 3, 0.05);
    for (int k = 0; k < 3; k++)
        ck_assert_double_eq_tol(beyond[k] / total, share[k], 4 * sqrt(share[k] / total));
}
END_TEST

/* Ranks on different machines must make the same bits: this pins them. */
START_TEST(data_are_pinned) {
    static const uint64_t hashes[] = {0x003cc5073af2df90u, 0x3dd719c16e77490du, 0x5056497fef6546d1u,
                                      0xb16c715abd67e4e6u};
    for (int kind = CINCH_DATA_EXACT; kind <= CINCH_DATA_NONFINITE; kind++) {
        cinch_data data;
        cinch_data_setup(&data, (cinch_data_kind)kind, NULL, 3, cinchFloat32, CINCH_OP_SUM);
        cinch_data_fill(&data, 1, 0, MOST_COUNT, result);
        uint64_t hash = cinch_data_hash(result, MOST_COUNT * sizeof(float));
        ck_assert_msg(hash == hashes[kind], "kind %d: 0x%016llx", kind, (unsigned long long)hash);
    }
}
END_TEST

START_TEST(hash_sees_every_byte) {
    memset(result, 0, 200);
    for (size_t n = 0; n < 100; n++) {
        uint64_t hash = cinch_data_hash(result, n);
        ck_assert(hash != cinch_data_hash(result, n + 1));
        for (size_t i = 0; i < n; i++) {
            result[i] = 1;
            ck_assert(hash != cinch_data_hash(result, n));
            result[i] = 0;
        }
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("check");
    TCase *tcase = tcase_create("perf's judge");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, right_results_pass);
    tcase_add_test(tcase, one_bit_is_seen);
    tcase_add_test(tcase, a_lost_rank_is_seen);
    tcase_add_test(tcase, codec_bounds);
    tcase_add_test(tcase, codecs_without_a_bound_are_not_judged);
    tcase_add_test(tcase, every_operation_passes);
    tcase_add_test(tcase, wrong_operations_are_seen);
    tcase_add_test(tcase, moves_keep_every_bit);
    tcase_add_test(tcase, what_is_written_outside_is_seen);
    tcase_add_test(tcase, factors);
    tcase_add_test(tcase, codecs_of_shares_and_blocks);
    tcase_add_test(tcase, data_do_not_depend_on_pieces);
    tcase_add_test(tcase, gauss_is_gauss);
    tcase_add_test(tcase, data_are_pinned);
    tcase_add_test(tcase, hash_sees_every_byte);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

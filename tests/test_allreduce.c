/* SPDX-License-Identifier: Apache-2.0 */
/* All-reduce through the public interface: right for every datatype, operator, size, alignment and
 * kind of memory, the same bits on all ranks and from run to run. */
#include "tests/harness.h"
#include "tests/one_call.h"

static const int sizes_of_jobs[] = {1, 2, 3, 4, 5, 7, 8, 11, 16};
enum { JOBS = sizeof sizes_of_jobs / sizeof *sizes_of_jobs };

/* Around everything that is cut: a flag's payload, a chunk, a part, a slot. */
static const size_t counts[] = {1,   2,    3,    7,    8,    15,   16,   17,   28,   29,
                                31,  33,   63,   64,   100,  111,  112,  113,  255,  256,
                                257, 1000, 1023, 1025, 2047, 4099, 8191, 8193, 16385};
enum { COUNTS = sizeof counts / sizeof *counts };

static void every_dtype_and_op(seat *me) {
    uint64_t state = 5; /* the same on all ranks */
    for (int t = 0; t < cinchNumTypes; t++)
        for (int op = 0; op < EXACT_OPS; op++)
            for (int i = 0; i < 3; i++) {
                uint64_t dice = random64(&state);
                one_call c = {.dtype = (cinchDataType_t)t,
                              .op = op,
                              .count = counts[i == 0 ? dice % 14 : dice % COUNTS],
                              .seed = dice >> 8,
                              .offset = dice >> 32 & 1 ? dice >> 33 & 63 : 0,
                              .in_place = dice >> 40 & 1,
                              .grouped = (dice >> 41 & 7) == 0,
                              .device_scalar = dice >> 44 & 1};
                if (!one_call_run(me, &c)) return;
            }
}

START_TEST(dtypes_and_ops_as_threads) {
    for (int i = 0; i < JOBS; i++)
        ranks_run(&(ranks_case){.nranks = sizes_of_jobs[i], .body = every_dtype_and_op});
}
END_TEST

START_TEST(dtypes_and_ops_as_processes) {
    ranks_run(&(ranks_case){.nranks = 2, .processes = true, .body = every_dtype_and_op});
    ranks_run(&(ranks_case){
        .nranks = 3, .processes = true, .host_apart = true, .body = every_dtype_and_op});
    ranks_run(&(ranks_case){.nranks = 2,
                            .processes = true,
                            .env = "CINCH_TRANSPORT=tcp CINCH_CHECKSUM=1",
                            .body = every_dtype_and_op});
}
END_TEST

/* All ranks' buffers can be mapped, or those of some ranks only. */
static void memories(seat *me) {
    uint64_t state = 11;
    for (int i = 0; i < 40; i++) {
        uint64_t dice = random64(&state);
        size_t count = i % 3 ? counts[dice % COUNTS] : dice % 60000;
        one_call c = {.dtype = dice & 1 ? cinchFloat32 : cinchInt8,
                      .op = cinchSum,
                      .count = count,
                      .seed = dice,
                      .offset = dice >> 20 & 63,
                      .in_place = dice >> 30 & 1,
                      .mapped = i % 4 != 3 || me->rank % 2 == 0};
        if (dice >> 31 & 1) c.op = i % 2 ? PREMUL : cinchMax;
        if (!one_call_run(me, &c)) return;
    }
}

START_TEST(mapped_and_half_mapped) {
    for (int i = 1; i < JOBS; i += 2) {
        ranks_run(&(ranks_case){.nranks = sizes_of_jobs[i], .body = memories});
        ranks_run(&(ranks_case){
            .nranks = sizes_of_jobs[i], .body = memories, .env = "CINCH_ALGO=twoshot"});
    }
    ranks_run(&(ranks_case){.nranks = 3, .processes = true, .body = memories});
}
END_TEST

/* One is in place, one in a group, one off alignment: how a rank calls is its own affair. */
static void differing_calls(seat *me) {
    uint64_t state = 17;
    for (int i = 0; i < 120; i++) {
        uint64_t dice = random64(&state), own = mix(dice, 3, (uint64_t)me->rank);
        one_call c = {.dtype = cinchFloat32,
                      .op = cinchSum,
                      .count = 1 + dice % (i % 2 ? 60 : 9000),
                      .seed = dice,
                      .offset = own & 31,
                      .in_place = own >> 8 & 1,
                      .grouped = own >> 9 & 1,
                      .mapped = own >> 10 & 1};
        if (!one_call_run(me, &c)) return;
    }
}

START_TEST(ranks_may_call_differently) {
    for (int n = 2; n <= 5; n++) ranks_run(&(ranks_case){.nranks = n, .body = differing_calls});
}
END_TEST

/* ---- the fused way and the schedule ---- */

static void gauss(float *out, size_t count, uint64_t seed, int rank) {
    uint64_t state = seed * 64 + (uint64_t)rank;
    for (size_t i = 0; i < count; i++) {
        double sum = 0;
        for (int j = 0; j < 4; j++) sum += (double)(random64(&state) >> 11) * 0x1p-53;
        out[i] = (float)((sum - 2) * 1.7);
    }
}

static bool fused_equals_looped(seat *me, cinchDataType_t t, cinchRedOp_t op, size_t count) {
    enum { MOST = 40000 };
    static _Thread_local float data[MOST];
    static _Thread_local unsigned char in[4 * MOST], plain[4 * MOST], grouped[4 * MOST];
    size_t bytes = count * cinch_dtype_size(t);
    if (!cinch_dtype_is_float(t)) {
        uint64_t state = count * 64 + (uint64_t)me->rank;
        for (size_t i = 0; i < bytes; i++) in[i] = (unsigned char)random64(&state);
    } else {
        gauss(data, count, count, me->rank);
        cinch_narrow(in, t, data, count);
    }
    memset(plain, 1, bytes);
    memset(grouped, 2, bytes);
    TRY_CHECK(me, cinchAllReduce(in, plain, count, t, op, me->comm, NULL) == cinchSuccess);
    TRY_CHECK(me, cinchGroupStart() == cinchSuccess);
    TRY_CHECK(me, cinchAllReduce(in, grouped, count, t, op, me->comm, NULL) == cinchSuccess);
    TRY_CHECK(me, cinchGroupEnd() == cinchSuccess);
    TRY_CHECK(me, memcmp(plain, grouped, bytes) == 0, "%s op %d count %zu", cinch_dtype_name(t),
              (int)op, count);
    return true;
}

static void fused_and_looped(seat *me) {
    static const cinchDataType_t types[] = {cinchFloat16, cinchFloat32, cinchInt8, cinchBfloat16};
    for (size_t bytes = 1; bytes <= 256; bytes++)
        if (!fused_equals_looped(me, cinchUint8, (cinchRedOp_t)(bytes % 5), bytes)) return;
    for (size_t count = 1; count <= 64; count++)
        if (!fused_equals_looped(me, types[count % 4], (cinchRedOp_t)(count / 4 % 5), count))
            return;
    static const size_t large[] = {1000, 2049, 8191, 8192, 8193, 12000, 16384};
    for (int i = 0; i < 7; i++)
        if (!fused_equals_looped(me, types[i % 2], cinchSum, large[i])) return;
}

START_TEST(fused_and_looped_give_the_same_bits) {
    for (int n = 2; n <= 7; n += n == 4 ? 3 : 1)
        ranks_run(
            &(ranks_case){.nranks = n, .body = fused_and_looped, .env = "CINCH_ALGO=oneshot"});
    ranks_run(&(ranks_case){.nranks = 3, .body = fused_and_looped});
}
END_TEST

/* ---- the same bits everywhere and again ---- */

typedef struct hashes {
    uint64_t of[MOST_RANKS];
} hashes;

static void hash_results(seat *me) {
    static const cinchDataType_t types[] = {cinchFloat16, cinchFloat32, cinchBfloat16,
                                            cinchFloat64};
    static const size_t sizes[] = {5, 1000, 20011, 150000};
    enum { MOST = 150000 };
    float *data = malloc(MOST * sizeof *data);
    unsigned char *in = malloc(8 * MOST), *out = malloc(8 * MOST);
    hashes *all = me->shared;
    uint64_t hash = 1;
    for (int i = 0; i < 16; i++) {
        cinchDataType_t t = types[i % 4];
        size_t count = sizes[i / 4];
        gauss(data, count, (uint64_t)i, me->rank);
        for (size_t j = 0; t == cinchFloat64 && j < count; j++) {
            double v = (double)data[j] / 3;
            memcpy(in + 8 * j, &v, 8);
        }
        if (t != cinchFloat64) cinch_narrow(in, t, data, count);
        CHECK_OK(me,
                 cinchAllReduce(in, out, count, t, i % 3 ? cinchSum : cinchAvg, me->comm, NULL));
        hash = hash_bytes(hash, out, count * cinch_dtype_size(t));
    }
    all->of[me->rank] = hash;
    free(data);
    free(in);
    free(out);
}

START_TEST(same_bits_on_all_ranks_and_again) {
    static const char *const envs[] = {NULL, "CINCH_TRANSPORT=tcp", "CINCH_CHUNK=4K"};
    hashes *all = shared_memory(sizeof *all);
    for (int e = 0; e < 3; e++)
        for (int n = 2; n <= 8; n += n < 4 ? 1 : 2) {
            uint64_t first = 0;
            for (int run = 0; run < 2; run++) {
                ranks_run(&(ranks_case){
                    .nranks = n, .body = hash_results, .env = envs[e], .shared = all});
                if (!run) first = all->of[0];
                for (int r = 0; r < n; r++)
                    ck_assert_msg(all->of[r] == first, "n=%d %s: rank %d run %d", n,
                                  envs[e] ? envs[e] : "", r, run);
            }
        }
}
END_TEST

int main(void) {
    const TTest *const tests[] = {dtypes_and_ops_as_threads,
                                  dtypes_and_ops_as_processes,
                                  mapped_and_half_mapped,
                                  ranks_may_call_differently,
                                  fused_and_looped_give_the_same_bits,
                                  same_bits_on_all_ranks_and_again};
    return run_tests("allreduce", tests, sizeof tests / sizeof *tests, 120);
}

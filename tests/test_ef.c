/* SPDX-License-Identifier: Apache-2.0 */
/* Error feedback: nothing is lost over many steps, and residuals belong to what their keys say,
 * across moves, drops, checkpoints and changes of scale. */
#include "tests/lossy.h"

/* The exported form, as coll/ef.c says. */
typedef struct state_head {
    char magic[8];
    uint32_t rank, nranks;
    uint64_t entries;
    uint64_t calls;
} state_head;
typedef struct state_record {
    uint64_t id, count, order, nsender, nowner;
    uint32_t dtype, tagged;
} state_record;

static void *export_state(seat *me, size_t *len) {
    *len = 0;
    if (cinchCommExportState(me->comm, NULL, len) != cinchSuccess) return NULL;
    void *state = malloc(*len);
    if (cinchCommExportState(me->comm, state, len) != cinchSuccess) return NULL;
    return state;
}

static cinchStats_t stats_of(seat *me) {
    cinchStats_t stats = {.size = sizeof stats};
    cinchCommGetStats(me->comm, &stats);
    return stats;
}

/* ---- conservation ---- */

enum { COUNT = 700, STEPS = 1000, FEWER = 250 };

typedef struct ledger {
    const char *codec;
    cinchDataType_t dtype;
    cinchRedOp_t op;
    int steps;
    double in[MOST_RANKS][COUNT];   /* sum over the steps */
    double size[MOST_RANKS][COUNT]; /* of magnitudes */
    double out[COUNT], out_size[COUNT];
    double held[MOST_RANKS][COUNT]; /* residuals at the end, in units of the inputs */
} ledger;

/* Adds up this rank's residuals, element by element. An owner's is of the sum that is sent to all:
 * with avg it is divided by n already. */
static void read_residuals(seat *me, ledger *l) {
    size_t len;
    char plan[512], *at;
    size_t room = sizeof plan, esize = cinch_dtype_size(l->dtype), part = 0, rounds = 0;
    unsigned char *state = export_state(me, &len);
    CHECK(me, state);
    state_head head;
    state_record record;
    memcpy(&head, state, sizeof head);
    memcpy(&record, state + sizeof head, sizeof record);
    CHECK(me, head.entries == 1 && head.rank == (uint32_t)me->rank && record.nsender == COUNT);
    const unsigned char *floats = state + sizeof head + sizeof record;
    CHECK(me, len == sizeof head + sizeof record + 4 * (record.nsender + record.nowner));
    CHECK_OK(me,
             cinchCommDescribePlan(me->comm, "allreduce", COUNT * esize, l->dtype, plan, &room));
    if ((at = strstr(plan, "\"chunk_bytes\":"))) part = strtoul(at + 14, NULL, 10) / esize;
    if ((at = strstr(plan, "\"rounds\":"))) rounds = strtoul(at + 9, NULL, 10);
    CHECK(me, part && rounds, "%s", plan);
    for (size_t i = 0; i < COUNT; i++) {
        float value;
        memcpy(&value, floats + 4 * i, 4);
        l->held[me->rank][i] = value;
    }
    if (me->nranks > 2) CHECK(me, record.nowner == part * rounds, "%s", plan);
    for (size_t i = 0; i < record.nowner; i++) {
        size_t place = i / part * part * (size_t)me->nranks + (size_t)me->rank * part + i % part;
        float value;
        memcpy(&value, floats + 4 * (COUNT + i), 4);
        if (place < COUNT)
            l->held[me->rank][place] += l->op == cinchAvg ? value * me->nranks : value;
        else
            CHECK(me, value == 0, "beyond the end");
    }
    free(state);
}

static void many_steps(seat *me) {
    ledger *l = me->shared;
    float in[COUNT], out[COUNT];
    unsigned char wire_in[4 * COUNT], wire_out[4 * COUNT];
    double factor = l->op == cinchAvg ? me->nranks : 1;
    uint64_t state = (uint64_t)me->rank + 1;
    CHECK_OK(me, cinchCommSetCodec(me->comm, l->codec));
    for (int k = 0; k < l->steps; k++) {
        for (size_t i = 0; i < COUNT; i++) {
            uint64_t dice = random64(&state);
            float g = (float)(int32_t)dice * 0x1p-31f;
            in[i] = g * (i % 7 ? 1.0f : 0.01f) + (i % 50 == 3 ? 0.02f : 0.0f);
        }
        cinch_narrow(wire_in, l->dtype, in, COUNT);
        cinch_widen(in, wire_in, l->dtype, COUNT);
        CHECK_OK(me, cinchAllReduce(wire_in, wire_out, COUNT, l->dtype, l->op, me->comm, NULL));
        cinch_widen(out, wire_out, l->dtype, COUNT);
        for (size_t i = 0; i < COUNT; i++) {
            l->in[me->rank][i] += in[i];
            l->size[me->rank][i] += fabsf(in[i]);
            if (me->rank) continue;
            l->out[i] += out[i] * factor;
            l->out_size[i] += fabs(out[i] * factor);
        }
    }
    CHECK(me, stats_of(me).compressed_calls == (uint64_t)l->steps);
    read_residuals(me, l);
}

static void conserve(const char *codec, cinchDataType_t t, cinchRedOp_t op, int n, int steps,
                     const char *env) {
    static ledger *l;
    if (!l) l = shared_memory(sizeof *l);
    *l = (ledger){.codec = codec, .dtype = t, .op = op, .steps = steps};
    char all[200];
    snprintf(all, sizeof all, "CINCH_CODEC_MIN_BYTES=16 %s", env);
    ranks_run(&(ranks_case){.nranks = n, .env = all, .body = many_steps, .shared = l});
    /* What a step sends is fp32; half results are rounded once more, which no residual holds. */
    double eps = t == cinchFloat32 ? 0 : 0x1p-11;
    for (size_t i = 0; i < COUNT; i++) {
        double left = -l->out[i], size = 0;
        for (int r = 0; r < n; r++) {
            left += l->in[r][i] - l->held[r][i];
            size += l->size[r][i];
        }
        double bound = n * 0x1p-23 * size + eps * l->out_size[i] + steps * (eps > 0 ? 0x1p-25 : 0);
        ck_assert_msg(fabs(left) <= bound,
                      "%s n=%d %s op %d %s: element %zu lacks %g of %g (bound %g)", codec, n,
                      cinch_dtype_name(t), (int)op, env, i, left, size, bound);
    }
}

START_TEST(nothing_is_lost_topk) {
    conserve("topk:ratio=0.02", cinchFloat32, cinchSum, 2, STEPS, "");
    conserve("topk:ratio=0.02", cinchFloat32, cinchAvg, 2, FEWER, "");
    conserve("topk:ratio=0.02", cinchHalf, cinchSum, 2, FEWER, "");
    conserve("topk:ratio=0.02", cinchFloat32, cinchSum, 4, FEWER, "");
    conserve("topk:ratio=0.02", cinchFloat32, cinchAvg, 4, STEPS, "");
    conserve("topk:ratio=0.02", cinchHalf, cinchAvg, 4, FEWER, "");
    conserve("topk:ratio=0.02,select=global", cinchFloat32, cinchSum, 3, FEWER, "");
}
END_TEST

START_TEST(nothing_is_lost_int8) {
    conserve("int8:ef=1", cinchFloat32, cinchSum, 2, FEWER, "");
    conserve("int8:ef=1", cinchFloat32, cinchAvg, 2, STEPS, "");
    conserve("int8:ef=1", cinchHalf, cinchAvg, 2, FEWER, "");
    conserve("int8:ef=1", cinchFloat32, cinchSum, 4, STEPS, "");
    conserve("int8:ef=1", cinchFloat32, cinchAvg, 4, FEWER, "");
    conserve("int8:ef=1", cinchHalf, cinchSum, 4, FEWER, "");
    conserve("int8:block=32,ef=1", cinchFloat32, cinchAvg, 3, FEWER, "CINCH_CHUNK=256");
    conserve("int8:ef=1", cinchFloat32, cinchAvg, 2, FEWER, "CINCH_ALGO=twostep");
    conserve("bf16:ef=1", cinchFloat32, cinchSum, 3, FEWER, "");
}
END_TEST

/* The residuals of the test above are not all zero: what it holds is not an empty statement. */
START_TEST(residuals_are_large) {
    ledger *l = shared_memory(sizeof *l);
    *l =
        (ledger){.codec = "topk:ratio=0.02", .dtype = cinchFloat32, .op = cinchSum, .steps = FEWER};
    ranks_run(&(ranks_case){
        .nranks = 2, .env = "CINCH_CODEC_MIN_BYTES=16", .body = many_steps, .shared = l});
    double held = 0;
    for (size_t i = 0; i < COUNT; i++) held = fmax(held, fabs(l->held[0][i]));
    ck_assert_msg(held > 1, "residuals are at most %g", held);
}
END_TEST

/* ---- keys ---- */

enum { N = 2000 };

static bool step(seat *me, float *in, float *out, uint64_t seed, uint64_t *hash) {
    for (size_t i = 0; i < N; i++) in[i] = gauss_at(seed, me->rank, i);
    cinchResult_t result = cinchAllReduce(in, out, N, cinchFloat32, cinchSum, me->comm, NULL);
    if (result != cinchSuccess) {
        rank_note(me, __FILE__, __LINE__, "step", " gave %d", (int)result);
        return false;
    }
    *hash = hash_bytes(*hash, out, N * sizeof *out);
    return true;
}

typedef struct moves {
    bool move, tag;
    uint64_t hash;
    uint64_t ef_bytes;
} moves;

static void moving_buffer(seat *me) {
    moves *m = me->shared;
    float *in[3], out[N];
    uint64_t hash = 1;
    CHECK_OK(me, cinchCommSetCodec(me->comm, "topk"));
    for (int i = 0; i < 3; i++) in[i] = calloc(N + 50, sizeof(float));
    for (int k = 0; k < 9; k++) {
        float *at = in[m->move ? k % 3 : 0];
        /* The call begins inside of what is named. */
        if (m->tag) CHECK_OK(me, cinchCommTag(me->comm, at, (N + 50) * sizeof(float), 42));
        if (!step(me, at + 50, out, (uint64_t)k, &hash)) return;
        if (m->tag) CHECK_OK(me, cinchCommTag(me->comm, at, 0, 0));
    }
    if (me->rank == 0) m->hash = hash, m->ef_bytes = stats_of(me).ef_bytes;
    for (int i = 0; i < 3; i++) free(in[i]);
}

START_TEST(a_tag_follows_a_buffer) {
    moves m[4] = {{false, false}, {true, true}, {true, false}, {false, true}};
    for (int i = 0; i < 4; i++)
        ranks_run(&(ranks_case){.nranks = 3,
                                .env = "CINCH_CODEC_MIN_BYTES=16",
                                .body = moving_buffer,
                                .shared = &m[i]});
    ck_assert_uint_eq(m[0].hash, m[1].hash);
    ck_assert_uint_eq(m[0].hash, m[3].hash);
    ck_assert_uint_ne(m[0].hash, m[2].hash);
    ck_assert_uint_eq(m[0].ef_bytes, m[1].ef_bytes);
    ck_assert_uint_eq(3 * m[0].ef_bytes, m[2].ef_bytes);
}
END_TEST

/* Names, as a list: given twice it is the last that counts, taken away it is the pointer again. */
static void tags_change(seat *me) {
    float *in = calloc(2 * N, sizeof *in), out[N];
    uint64_t hash = 0;
    CHECK_OK(me, cinchCommSetCodec(me->comm, "topk"));
    CHECK_OK(me, cinchCommTag(me->comm, in, N * sizeof *in, 1));
    if (!step(me, in, out, 1, &hash)) return;
    uint64_t one = stats_of(me).ef_bytes;
    CHECK_OK(me, cinchCommTag(me->comm, in, N * sizeof *in, 2));
    if (!step(me, in, out, 2, &hash)) return;
    CHECK(me, stats_of(me).ef_bytes == 2 * one);
    CHECK_OK(me, cinchCommTag(me->comm, in, 0, 0));
    CHECK_OK(me, cinchCommTag(me->comm, in + 7, 0, 0)); /* there is none */
    if (!step(me, in, out, 3, &hash)) return;
    CHECK(me, stats_of(me).ef_bytes == 3 * one);
    CHECK_OK(me, cinchCommTag(me->comm, in + N, 4 * N, 2)); /* another buffer, the second name */
    if (!step(me, in + N, out, 4, &hash)) return;
    CHECK(me, stats_of(me).ef_bytes == 3 * one && stats_of(me).ef_dropped == 0);
    free(in);
}

START_TEST(tags_can_change) {
    ranks_run(&(ranks_case){.nranks = 2, .env = "CINCH_CODEC_MIN_BYTES=16", .body = tags_change});
}
END_TEST

static void unused_keys(seat *me) {
    float *in = calloc(3 * N, sizeof *in), out[N];
    uint64_t hash = 0;
    CHECK_OK(me, cinchCommSetCodec(me->comm, "int8:ef=1"));
    if (!step(me, in, out, 1, &hash)) return;
    uint64_t one = stats_of(me).ef_bytes;
    if (!step(me, in + N, out, 2, &hash)) return;
    CHECK(me, stats_of(me).ef_bytes == 2 * one);
    for (int k = 0; k < 998; k++) /* the first key's age is 1 + 998 */
        CHECK_OK(me, cinchAllReduce(in + N, out, N, cinchFloat32, cinchSum, me->comm, NULL));
    CHECK(me, stats_of(me).ef_dropped == 0 && stats_of(me).ef_bytes == 2 * one);
    for (int k = 0; k < 4; k++)
        CHECK_OK(me, cinchAllReduce(in + N, out, N, cinchFloat32, cinchSum, me->comm, NULL));
    CHECK(me, stats_of(me).ef_dropped == 1 && stats_of(me).ef_bytes == one, "dropped %d",
          (int)stats_of(me).ef_dropped);
    free(in);
}

START_TEST(a_key_unused_for_1000_calls_goes) {
    ranks_run(&(ranks_case){.nranks = 3, .env = "CINCH_CODEC_MIN_BYTES=16", .body = unused_keys});
}
END_TEST

static void capped(seat *me) {
    float *in = calloc(3 * N, sizeof *in), out[N];
    uint64_t hash = 0;
    CHECK_OK(me, cinchCommSetCodec(me->comm, "int8:ef=1"));
    for (int k = 0; k < 6; k++) { /* room for two of the three */
        if (!step(me, in + k % 3 * N, out, (uint64_t)k, &hash)) return;
        CHECK(me, stats_of(me).ef_bytes <= 20000);
    }
    CHECK(me, stats_of(me).ef_dropped == 4, "%d", (int)stats_of(me).ef_dropped);
    free(in);
}

static void no_room_at_all(seat *me) {
    float *in = calloc(N, sizeof *in), out[N];
    double *want = calloc(N, sizeof *want);
    uint64_t hash = 0;
    CHECK_OK(me, cinchCommSetCodec(me->comm, "int8:ef=1"));
    for (int k = 0; k < 3; k++) {
        if (!step(me, in, out, (uint64_t)k, &hash)) return;
        gauss_sum(want, cinchFloat32, (uint64_t)k, me->nranks, N, 1);
        CHECK(me, relative_error(out, want, N) < 0.011);
    }
    CHECK(me, stats_of(me).ef_bytes == 0 && stats_of(me).ef_dropped == 3);
    free(in);
    free(want);
}

START_TEST(residuals_have_a_cap) {
    ranks_run(&(ranks_case){
        .nranks = 2, .env = "CINCH_CODEC_MIN_BYTES=16 CINCH_EF_MAX_BYTES=20000", .body = capped});
    ranks_run(&(ranks_case){.nranks = 3,
                            .env = "CINCH_CODEC_MIN_BYTES=16 CINCH_EF_MAX_BYTES=7K",
                            .body = no_room_at_all});
}
END_TEST

/* A huge chunk does not make huge residuals. */
static void huge_chunk(seat *me) {
    float *in = calloc(N, sizeof *in), out[N];
    uint64_t hash = 0;
    CHECK_OK(me, cinchCommSetCodec(me->comm, "int8:ef=1"));
    if (!step(me, in, out, 1, &hash)) return;
    CHECK(me, stats_of(me).ef_bytes <= 4 * (2 * N + 256), "%d", (int)stats_of(me).ef_bytes);
    free(in);
}

START_TEST(residuals_are_as_large_as_the_message) {
    ranks_run(&(ranks_case){
        .nranks = 3, .env = "CINCH_CODEC_MIN_BYTES=16 CINCH_CHUNK=1G", .body = huge_chunk});
}
END_TEST

static void codec_changes(seat *me) {
    float *in = calloc(N, sizeof *in), out[N];
    uint64_t hash = 0;
    CHECK_OK(me, cinchCommSetCodec(me->comm, "topk"));
    if (!step(me, in, out, 1, &hash)) return;
    uint64_t bytes = stats_of(me).ef_bytes;
    CHECK(me, bytes > 0);
    CHECK_OK(me, cinchCommSetCodec(me->comm, "topk"));
    CHECK(me, stats_of(me).ef_bytes == bytes, "the same codec");
    CHECK_OK(me, cinchCommSetCodec(me->comm, "topk:ratio=0.02"));
    CHECK(me, stats_of(me).ef_bytes == 0, "another codec");
    free(in);
}

START_TEST(another_codec_begins_anew) {
    ranks_run(&(ranks_case){.nranks = 2, .env = "CINCH_CODEC_MIN_BYTES=16", .body = codec_changes});
}
END_TEST

/* ---- checkpoints ---- */

typedef struct checkpoint {
    bool tagged, stop; /* stop: export, destroy, import in the middle */
    bool early_drop;   /* a key that is gone by then was used first */
    cinchUniqueId second;
    meeting_point ready, left;
    uint64_t hash;
} checkpoint;

/* Four buffers in turn; two of them of one size, so that order alone tells them apart. */
static bool train(seat *me, checkpoint *c, float *memory, int from, int to, uint64_t *hash) {
    float out[N];
    for (int k = from; k < to; k++) {
        size_t offset = (size_t)(k % 4) * N, count = k % 4 < 2 ? N : N - 100 * (size_t)(k % 4);
        float *in = memory + offset;
        if (c->tagged && cinchCommTag(me->comm, in, 4 * N, (uint64_t)(k % 4) + 7) != cinchSuccess)
            return false;
        for (size_t i = 0; i < count; i++) in[i] = gauss_at((uint64_t)k, me->rank, i);
        if (cinchAllReduce(in, out, count, cinchFloat32, cinchSum, me->comm, NULL) != cinchSuccess)
            return false;
        *hash = hash_bytes(*hash, out, count * sizeof *out);
    }
    return true;
}

static void checkpointed(seat *me) {
    checkpoint *c = me->shared;
    float *memory = calloc(4 * N, sizeof *memory), *after = calloc(5 * N, sizeof *after), out[N];
    uint64_t hash = 5, ignored = 0;
    size_t len;
    CHECK_OK(me, cinchCommSetCodec(me->comm, "topk"));
    if (c->early_drop) {
        if (!step(me, after + 4 * N, out, 99, &ignored)) return;
        for (int k = 0; k < 1002; k += 2) {
            memset(memory, 0, N * sizeof *memory); /* zeros leave the others as they are */
            CHECK_OK(me, cinchAllReduce(memory, out, N, cinchFloat32, cinchSum, me->comm, NULL));
            CHECK_OK(me,
                     cinchAllReduce(memory + N, out, N, cinchFloat32, cinchSum, me->comm, NULL));
        }
        CHECK(me, stats_of(me).ef_dropped == 1);
    }
    CHECK(me, train(me, c, memory, 0, 12, &hash));
    float *used = memory;
    if (c->stop) {
        void *state = export_state(me, &len);
        CHECK(me, state);
        if (me->rank == 0) CHECK_OK(me, cinchGetUniqueId(&c->second));
        CHECK(me, wait_for_all(&c->ready, me->nranks));
        CHECK_OK(me, cinchCommDestroy(me->comm));
        CHECK_OK(me, cinchCommInitRank(&me->comm, me->nranks, c->second, me->rank));
        CHECK_OK(me, cinchCommSetCodec(me->comm, "topk"));
        CHECK_OK(me, cinchCommImportState(me->comm, state, len));
        size_t again_len;
        void *again = export_state(me, &again_len); /* a checkpoint right after the restart */
        CHECK(me, again && again_len == len, "%zu bytes, then %zu", len, again_len);
        CHECK_OK(me, cinchCommImportState(me->comm, again, again_len));
        free(state);
        free(again);
        used = after; /* the buffers are elsewhere now */
    }
    CHECK(me, train(me, c, used, 12, 24, &hash));
    if (me->rank == 0) c->hash = hash;
    free(memory);
    free(after);
}

START_TEST(a_checkpoint_continues_bit_by_bit) {
    checkpoint *c = shared_memory(sizeof *c);
    for (int tagged = 0; tagged < 2; tagged++)
        for (int drop = 0; drop < 2; drop++)
            for (int n = drop ? 3 : 2; n <= 3; n++) {
                uint64_t hash = 0;
                for (int stop = 0; stop < 2; stop++) {
                    *c = (checkpoint){.tagged = tagged, .stop = stop, .early_drop = drop};
                    ranks_run(&(ranks_case){.nranks = n,
                                            .env = "CINCH_CODEC_MIN_BYTES=16",
                                            .body = checkpointed,
                                            .shared = c,
                                            .logs = tagged && drop && stop ? "found no call" : ""});
                    if (!stop) hash = c->hash;
                    ck_assert_msg(c->hash == hash, "tagged %d, drop %d, n=%d", tagged, drop, n);
                }
            }
}
END_TEST

static void imports(seat *me) {
    float *in = calloc(2 * N, sizeof *in), out[N];
    uint64_t hash = 0;
    size_t len, scaled_len;
    CHECK_OK(me, cinchCommSetCodec(me->comm, "topk"));
    if (!step(me, in, out, 1, &hash) || !step(me, in + N, out, 2, &hash)) return;
    unsigned char *state = export_state(me, &len), *scaled;
    CHECK(me, state);
    CHECK_OK(me, cinchCommScaleState(me->comm, 0.5));
    scaled = export_state(me, &scaled_len);
    CHECK(me, scaled && scaled_len == len);
    state_record record;
    memcpy(&record, state + sizeof(state_head), sizeof record);
    size_t at = sizeof(state_head) + sizeof record, other = 0;
    for (size_t i = 0; i < record.nsender + record.nowner; i++) {
        float a, b;
        memcpy(&a, state + at + 4 * i, 4);
        memcpy(&b, scaled + at + 4 * i, 4);
        CHECK(me, b == a / 2);
        other += a != 0;
    }
    CHECK(me, other > N / 2);
    CHECK_FAILS(me, cinchCommScaleState(me->comm, NAN), cinchInvalidArgument, NULL, "factor");
    /* Wrong ones are refused and leave what is there. */
    state_head head;
    memcpy(&head, state, sizeof head);
    for (size_t cut = 0; cut < len; cut += cut < 100 ? 1 : 997)
        CHECK(me, cinchCommImportState(me->comm, state, cut) == cinchInvalidArgument, "%zu", cut);
    state[8] ^= 1;
    CHECK_FAILS(me, cinchCommImportState(me->comm, state, len), cinchInvalidArgument, NULL,
                "was exported by rank");
    state[8] ^= 1;
    state[16] ^= 4; /* entries */
    CHECK(me, cinchCommImportState(me->comm, state, len) == cinchInvalidArgument);
    state[16] ^= 4;
    memset(state + sizeof head + 24, 0xff, 16); /* nsender, nowner */
    CHECK(me, cinchCommImportState(me->comm, state, len) == cinchInvalidArgument);
    CHECK(me, stats_of(me).ef_bytes == 4 * 2 * (record.nsender + record.nowner));
    CHECK_OK(me, cinchCommImportState(me->comm, scaled, len));
    if (!step(me, in, out, 3, &hash)) return; /* the second entry finds no call */
    free(state);
    free(scaled);
    free(in);
}

START_TEST(imports_are_checked) {
    ranks_run(&(ranks_case){.nranks = 2,
                            .env = "CINCH_CODEC_MIN_BYTES=16",
                            .body = imports,
                            .logs =
                                "1 imported error-feedback entries found no call|?exported|?cut "
                                "off|?factor"});
}
END_TEST

int main(void) {
    const TTest *const tests[] = {nothing_is_lost_topk,      nothing_is_lost_int8,
                                  residuals_are_large,       a_tag_follows_a_buffer,
                                  tags_can_change,           a_key_unused_for_1000_calls_goes,
                                  residuals_have_a_cap,      residuals_are_as_large_as_the_message,
                                  another_codec_begins_anew, a_checkpoint_continues_bit_by_bit,
                                  imports_are_checked};
    return run_tests("ef", tests, sizeof tests / sizeof *tests, 120);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Every algorithm is right for every number of ranks, by the verifier; and the verifier rejects
 * broken mutants of each. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coll/algo.h"
#include "coll/verify.h"

enum { MOST = 64 };

static cinch_schedule schedule[MOST];

/* What a call is like. */
typedef struct kind {
    bool mapped, encoded;
    bool levels; /* hosts at two sites, and a codec for the inside of hosts where there is one */
} kind;

static kind kind_of(int index) {
    return (kind){index & 1, index & 2, index & 4};
}

static const char *text_of(kind k) {
    static char text[64];
    snprintf(text, sizeof text, "%s%s%s", k.mapped ? " mapped" : "", k.encoded ? " encoded" : "",
             k.levels ? " at all levels" : "");
    return text;
}

/* The schedules of others do not depend on levels, nor those of exact calls on windows. */
static bool is_another(const cinch_algo *algo, kind k) {
    return (!k.mapped || algo->maps_from) && (!k.levels || strcmp(algo->name, "hier") == 0);
}

/* Builds all ranks' schedules; false where the algorithm does not serve n. */
static bool build_all(const cinch_algo *algo, int n, int root, kind k) {
    static uint16_t site[MOST];
    cinch_call call = {.collective = algo->collective,
                       .nranks = n,
                       .root = root,
                       .bytes = 1 << 20,
                       .windows = true,
                       .mapped = k.mapped,
                       .encoded = k.encoded,
                       .inside = k.encoded && k.levels,
                       .exact_between = k.encoded && k.levels && n % 5 == 1,
                       .small_bytes = 32768};
    /* Where that is possible, on two or more hosts: one after the other, or in turn. */
    static uint16_t host[MOST];
    int per_host = n % 2 == 0 && n > 4 && root % 2 ? n / 2 : 2;
    for (int q = 0; q < n; q++) host[q] = (uint16_t)(n % 4 ? q / per_host : q % (n / per_host));
    call.host = host;
    call.hosts = (n + per_host - 1) / per_host;
    call.per_host = n % per_host ? 0 : per_host;
    for (int h = 0; h < call.hosts; h++) site[h] = (uint16_t)(h > 1 && h % 3 != 2);
    if (k.levels && call.hosts > 2) call.site = site, call.sites = call.hosts > 3 ? 2 : 1;
    if (algo->supports(&call)) return false;
    for (int r = 0; r < n; r++)
        ck_assert_int_eq(cinch_algo_build(algo, r, &call, &schedule[r]), cinchSuccess);
    return true;
}

static void free_all(int n) {
    for (int r = 0; r < n; r++) cinch_schedule_free(&schedule[r]);
}

static int sizes_from(const char *list, int *sizes) {
    int n = 0;
    while (*list) sizes[n++] = (int)strtol(list, (char **)&list, 10);
    return n;
}

static void check_all(const cinch_algo *algo, int n, int root, kind k) {
    if (!build_all(algo, n, root, k)) return;
    for (int in_place = 0; in_place < 2; in_place++) {
        char why[CINCH_ERROR_TEXT];
        bool right = cinch_verify(schedule, n, in_place, why);
        ck_assert_msg(right, "%s %s n=%d root=%d%s%s: %s", cinch_shape_of(algo->collective)->name,
                      algo->name, n, root, text_of(k), in_place ? " in place" : "", why);
    }
    free_all(n);
}

START_TEST(every_algorithm_is_right) {
    const cinch_algo *algo = cinch_algo_at(_i / 8);
    kind k = kind_of(_i);
    bool full = getenv("CINCH_TEST_FULL") != NULL;
    int sizes[MOST], count = MOST - 1;
    if (!is_another(algo, k)) return;
    for (int i = 0; i < count; i++) sizes[i] = i + 2;
#ifdef CINCH_SANITIZED
    const char *some = "2 3 4 5 8 11";
#else
    const char *some = "2 3 4 5 6 7 8 9 11 16 23 32";
#endif
    if (!full)
        count = sizes_from(some, sizes);
    else if (algo->collective != CINCH_ALLREDUCE)
        count = sizes_from("2 3 4 5 6 7 8 9 10 11 12 13 15 16 17 23 31 32 48 63 64", sizes);
    bool rooted = cinch_shape_rooted(cinch_shape_of(algo->collective));
    for (int i = 0; i < count; i++) {
        int n = sizes[i], step = n > 8 ? n / 2 : 1;
        for (int root = 0; root < (rooted ? n : 1); root += step) check_all(algo, n, root, k);
    }
}
END_TEST

/* ---- mutants: each breaks one rank's schedule where it must hurt ---- */

static cinch_item *find(cinch_schedule *s, cinch_do op, int skip) {
    for (int i = 0; i < s->nitems; i++)
        if (s->item[i].op == op && skip-- == 0) return &s->item[i];
    return NULL;
}

static bool drop(cinch_schedule *s, cinch_item *item) {
    if (!item) return false;
    size_t after = (size_t)(s->item + s->nitems - item - 1);
    memmove(item, item + 1, after * sizeof *item);
    s->nitems--;
    return true;
}

static cinch_item *summing(cinch_schedule *s) {
    cinch_item *item = find(s, CINCH_DO_REDUCE, 0);
    return item ? item : find(s, CINCH_DO_SUM, 0);
}

/* Whether others read what this rank shows; and whether it reads what others show. */
static bool is_read(const cinch_schedule *s) {
    const cinch_shape *shape = cinch_shape_of(s->collective);
    return shape->in_root ? s->rank == s->root : !shape->out_root || s->rank != s->root;
}
static bool reads(const cinch_schedule *s) {
    const cinch_shape *shape = cinch_shape_of(s->collective);
    return shape->in_root ? s->rank != s->root : !shape->out_root || s->rank == s->root;
}

static bool drop_sum_or_copy(cinch_schedule *s) {
    cinch_item *item = summing(s);
    return drop(s, item ? item : find(s, CINCH_DO_COPY, 0));
}

static bool drop_send_or_post(cinch_schedule *s) {
    cinch_item *item = find(s, CINCH_DO_SEND, 0);
    return drop(s, item ? item : find(s, CINCH_DO_POST, 0));
}

static bool drop_receive_or_wait(cinch_schedule *s) {
    cinch_item *item = find(s, CINCH_DO_RECV, 0);
    if (!item && s->entry_sync && !is_read(s)) return false; /* it waits for others' sake */
    return drop(s, item ? item : find(s, CINCH_DO_WAIT, 0));
}

static bool count_twice(cinch_schedule *s) {
    cinch_item *item = summing(s);
    if (!item || item->nsrc < 2) return false;
    s->refs[item->ref + item->ndst + 1u] = s->refs[item->ref + item->ndst];
    return true;
}

static bool leave_one_out(cinch_schedule *s) {
    cinch_item *item = summing(s);
    if (!item || item->nsrc < 2) return false;
    item->nsrc--;
    return true;
}

static bool never_final(cinch_schedule *s) {
    bool any = false;
    for (int i = 0; i < s->nitems; i++) {
        any |= s->item[i].flags & CINCH_FINAL;
        s->item[i].flags &= (uint8_t)~CINCH_FINAL;
    }
    return any;
}

static bool wrong_place(cinch_schedule *s) {
    for (int i = 0; i < s->nitems; i++)
        for (int d = 0; d < s->item[i].ndst; d++) {
            cinch_ref *ref = &s->refs[s->item[i].ref + (uint32_t)d];
            if (ref->space != CINCH_OUT && ref->space != CINCH_PEER_OUT) continue;
            ref->space = CINCH_BOX; /* the result never gets to where it belongs */
            ref->slot = 0;
            s->nbox = s->nbox ? s->nbox : 1;
            return true;
        }
    return false;
}

/* Takes or gives the neighbour's block. */
static bool wrong_block(cinch_schedule *s) {
    const cinch_shape *shape = cinch_shape_of(s->collective);
    if (!shape->in_n && !shape->out_n) return false;
    for (int i = 0; i < s->nitems; i++)
        for (int k = 0; k < s->item[i].ndst + s->item[i].nsrc; k++) {
            cinch_ref *ref = &s->refs[s->item[i].ref + (uint32_t)k];
            bool in = ref->space == CINCH_IN || ref->space == CINCH_PEER_IN;
            if (!(in ? shape->in_n : ref->space == CINCH_OUT && shape->out_n)) continue;
            ref->block = (uint16_t)((ref->block + 1) % s->nranks);
            return true;
        }
    return false;
}

/* Touches a buffer that the collective only reads. */
static bool writes_input(cinch_schedule *s) {
    for (int i = 0; i < s->nitems; i++)
        for (int d = 0; d < s->item[i].ndst; d++) {
            cinch_ref *ref = &s->refs[s->item[i].ref + (uint32_t)d];
            if (ref->space != CINCH_OUT) continue;
            ref->space = CINCH_IN;
            return true;
        }
    return false;
}

/* The scratch, or the stage, is used anew too early; where there is neither, the peers are not
 * waited for before the first reading. */
static bool too_shallow(cinch_schedule *s) {
    if (s->stage_slots) {
        s->stage_slots = 1;
        return s->lags > 0 || drop(s, find(s, CINCH_DO_WAIT, 0));
    }
    if (!s->nmsg) {
        s->entry_sync = false;
        return reads(s);
    }
    bool any = false;
    for (int i = 0; i < s->nitems; i++) {
        if (s->item[i].op == CINCH_DO_COPY) continue; /* of the own block, which matters in place */
        any |= s->item[i].ndep > 0;
        s->item[i].ndep = 0;
    }
    return any;
}

static bool other_codec_encodes(cinch_schedule *s) {
    cinch_item *item = find(s, CINCH_DO_ENCODE, 0);
    if (item) item->flags ^= CINCH_INSIDE;
    return item != NULL;
}

static bool has_wire(const cinch_schedule *s, const cinch_item *item) {
    for (int i = 0; i < item->nsrc; i++)
        if (s->refs[item->ref + item->ndst + (uint32_t)i].space == CINCH_WIRE) return true;
    return false;
}

static bool other_codec_decodes(cinch_schedule *s) {
    for (int i = s->nitems - 1; i >= 0; i--) {
        if (s->item[i].op != CINCH_DO_SUM || !has_wire(s, &s->item[i])) continue;
        s->item[i].flags ^= CINCH_INSIDE;
        return true;
    }
    return false;
}

static bool other_width(cinch_schedule *s) {
    for (int i = 0; i < s->nitems; i++) {
        cinch_item *item = &s->item[i];
        bool codes = item->op == CINCH_DO_ENCODE && !(item->flags & CINCH_OWNER);
        bool plain = false;
        for (int k = 0; item->op == CINCH_DO_SUM && k < item->nsrc; k++)
            plain |= s->refs[item->ref + item->ndst + (uint32_t)k].space != CINCH_WIRE;
        if (!codes && !plain) continue;
        item->flags ^= CINCH_WIDE;
        return true;
    }
    return false;
}

/* What is to be encoded first goes out as it is. */
static bool sends_wide(cinch_schedule *s) {
    for (int i = 0; i + 1 < s->nitems; i++) {
        cinch_item *encode = &s->item[i], *send = encode + 1;
        if (encode->op != CINCH_DO_ENCODE || send->op != CINCH_DO_SEND) continue;
        if (!(encode->flags & (CINCH_WIDE | CINCH_OWNER))) continue;
        s->refs[send->ref] = s->refs[encode->ref + 1u];
        return true;
    }
    return false;
}

enum { ALWAYS, WHERE_IT_REDUCES, WHERE_IT_CAN };
static const struct {
    const char *name;
    bool (*apply)(cinch_schedule *s);
    int must; /* apply to one rank at least */
} mutants[] = {
    {"drops a sum or a copy", drop_sum_or_copy, ALWAYS},
    {"drops a send or a post", drop_send_or_post, ALWAYS},
    {"drops a receive or a wait", drop_receive_or_wait, ALWAYS},
    {"counts an input twice", count_twice, WHERE_IT_REDUCES},
    {"leaves an input out", leave_one_out, WHERE_IT_REDUCES},
    {"never finishes the sum", never_final, WHERE_IT_REDUCES},
    {"puts the result elsewhere", wrong_place, ALWAYS},
    {"takes the neighbour's block", wrong_block, WHERE_IT_CAN},
    {"writes to its input", writes_input, ALWAYS},
    {"waits for too little", too_shallow, WHERE_IT_CAN},
    {"encodes with the other codec", other_codec_encodes, WHERE_IT_CAN},
    {"decodes with the other codec", other_codec_decodes, WHERE_IT_CAN},
    {"takes elements for a sum in fp32, or the reverse", other_width, WHERE_IT_CAN},
    {"sends a sum in fp32", sends_wide, WHERE_IT_CAN},
};
enum { MUTANTS = sizeof mutants / sizeof *mutants };

START_TEST(mutants_are_rejected) {
    const cinch_algo *algo = cinch_algo_at(_i / 8);
    kind k = kind_of(_i);
    static const int sizes[] = {2, 3, 4, 7, 8, 16};
    if (!is_another(algo, k)) return;
    /* In place, where nothing is reduced, the own block is where it belongs from the start. */
    bool in_place = cinch_shape_of(algo->collective)->reduces;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int m = 0; m < MUTANTS; m++) {
            int n = sizes[i], applied = 0;
            for (int victim = 0; victim < n; victim++) {
                if (!build_all(algo, n, 0, k)) continue;
                if (mutants[m].apply(&schedule[victim])) {
                    char why[CINCH_ERROR_TEXT];
                    applied++;
                    ck_assert_msg(!cinch_verify(schedule, n, in_place, why),
                                  "%s %s n=%d%s: not rejected though rank %d %s",
                                  cinch_shape_of(algo->collective)->name, algo->name, n, text_of(k),
                                  victim, mutants[m].name);
                    ck_assert_msg(why[0] != '\0', "rejected without a reason");
                }
                free_all(n);
            }
            cinch_call call = {
                .nranks = n, .windows = true, .mapped = k.mapped, .encoded = k.encoded};
            const cinch_shape *shape = cinch_shape_of(algo->collective);
            bool must = mutants[m].must == ALWAYS ||
                        (mutants[m].must == WHERE_IT_REDUCES && shape->reduces);
            ck_assert_msg(applied || !must || algo->supports(&call),
                          "%s %s n=%d: mutant \"%s\" never applied", shape->name, algo->name, n,
                          mutants[m].name);
        }
}
END_TEST

START_TEST(cuts_cover_the_message) {
    srand(1);
    for (int trial = 0; trial < 20000; trial++) {
        size_t count = (size_t)(rand() % 5000), granule = (size_t)1 << rand() % 9;
        int parts = 1 + rand() % 16;
        cinch_cut cut = cinch_cut_make(count, parts, granule, (size_t)(1 + rand() % 3000));
        size_t covered = 0;
        for (size_t t = 0; t < cut.rounds; t++) {
            size_t length = cinch_cut_length(&cut, t), at = 0;
            ck_assert_uint_gt(length, 0);
            for (int p = 0; p < parts; p++) {
                cinch_ref ref = cinch_ref_of(CINCH_IN, p);
                cinch_span span = cinch_cut_span(&cut, length, &ref);
                ck_assert_uint_eq(span.first, at);
                ck_assert_uint_le(span.length, cinch_cut_part_max(&cut));
                ck_assert_uint_eq(span.length ? span.first % granule : 0, 0);
                at += span.length;
            }
            ck_assert_uint_eq(at, length);
            covered += length;
        }
        ck_assert_uint_eq(covered, count);
    }
}
END_TEST

int main(void) {
    int algos = 0;
    while (cinch_algo_at(algos)) algos++;
    Suite *suite = suite_create("verify");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 600);
    tcase_add_loop_test(tc, every_algorithm_is_right, 0, 8 * algos);
    tcase_add_loop_test(tc, mutants_are_rejected, 0, 8 * algos);
    tcase_add_test(tc, cuts_cover_the_message);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}

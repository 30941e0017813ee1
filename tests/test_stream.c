/* SPDX-License-Identifier: Apache-2.0 */
/* Host streams: order, overlap, joint points, failures and the end of a stream. */
#include <pthread.h>

#include "tests/harness.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        cinchResult_t got_ = (call);                                                               \
        ck_assert_msg(got_ == cinchSuccess, "%s gave %d: %s", #call, got_,                         \
                      cinchGetLastError(NULL));                                                    \
    } while (0)

static void quiet(const char *env) {
    clean_environment();
    setenv("CINCH_DEBUG", "none", 1);
    set_environment(env);
}

static cinchResult_t sum(int *value, cinchComm_t comm, cinchStream_t stream) {
    return cinchAllReduce(value, value, 1, cinchInt, cinchSum, comm, stream);
}

/* ---- order ---- */

/* Each call reads what the one before wrote. */
static void a_chain(seat *me) {
    enum { LINKS = 30 };
    static const size_t counts[] = {3, 5000};
    cinchStream_t stream;
    CHECK_OK(me, cinchStreamCreate(&stream));
    CHECK(me, cinchStreamQuery(stream) == cinchSuccess);
    for (int k = 0; k < 2; k++) {
        double *data = calloc(counts[k] * (LINKS + 1), sizeof *data);
        for (size_t i = 0; i < counts[k]; i++) data[i] = 1;
        for (int l = 0; l < LINKS; l++)
            CHECK_OK(me, cinchAllReduce(data + (size_t)l * counts[k],
                                        data + (size_t)(l + 1) * counts[k], counts[k], cinchDouble,
                                        cinchSum, me->comm, stream));
        CHECK_OK(me, cinchStreamSynchronize(stream));
        CHECK(me, cinchStreamQuery(stream) == cinchSuccess);
        double want = 1;
        for (int l = 0; l < LINKS; l++) want *= me->nranks;
        for (size_t i = 0; i < counts[k]; i++)
            CHECK(me, data[LINKS * counts[k] + i] == want, "count %zu at %zu", counts[k], i);
        free(data);
    }
    CHECK_OK(me, cinchStreamDestroy(stream));
}

START_TEST(calls_of_a_stream_are_in_order) {
    for (int n = 1; n <= 3; n++) ranks_run(&(ranks_case){.nranks = n, .body = a_chain});
}
END_TEST

/* Calls with and without a stream, each on what the one before made: the order of calling counts,
 * and without a stream a call is complete on return. */
static void mixed(seat *me) {
    cinchStream_t s[2];
    CHECK_OK(me, cinchStreamCreate(&s[0]));
    CHECK_OK(me, cinchStreamCreate(&s[1]));
    uint64_t state = 9;
    for (int i = 0; i < 60; i++) {
        uint64_t dice = random64(&state), own = dice + (uint64_t)me->rank;
        size_t count = dice % 3 ? 7 : 30000;
        int *data = malloc(2 * count * sizeof *data);
        for (size_t j = 0; j < 2 * count; j++) data[j] = me->rank + (int)j;
        /* Which way each rank goes is its own affair. */
        CHECK_OK(me, cinchAllReduce(data, data, count, cinchInt, cinchSum, me->comm,
                                    own % 4 ? s[own & 1] : NULL));
        CHECK_OK(me, cinchAllReduce(data + count, data + count, count, cinchInt, cinchSum, me->comm,
                                    NULL));
        int n = me->nranks, ranks = n * (n - 1) / 2;
        for (size_t j = 0; j < 2 * count; j++)
            CHECK(me, data[j] == n * (int)j + ranks, "call %d at %zu of %zu: %d, not %d", i, j,
                  count, data[j], n * (int)j + ranks);
        free(data);
    }
    CHECK_OK(me, cinchStreamDestroy(s[0]));
    CHECK_OK(me, cinchStreamDestroy(s[1]));
}

START_TEST(streams_and_none_on_one_communicator) {
    for (int n = 1; n <= 3; n++) ranks_run(&(ranks_case){.nranks = n, .body = mixed});
    ranks_run(&(ranks_case){.nranks = 3, .body = mixed, .env = "CINCH_TRANSPORT=tcp"});
}
END_TEST

/* ---- overlap ---- */

START_TEST(streams_overlap) {
    quiet(NULL);
    cinchComm_t a[2], b[2];
    cinchStream_t s, t;
    int value[4] = {1, 2, 10, 20};
    OK(cinchCommInitAll(a, 2, NULL));
    OK(cinchCommInitAll(b, 2, NULL));
    OK(cinchStreamCreate(&s));
    OK(cinchStreamCreate(&t));
    OK(sum(&value[0], a[0], s)); /* waits for its other rank */
    OK(cinchGroupStart());
    OK(sum(&value[2], b[0], t));
    OK(sum(&value[3], b[1], t));
    OK(cinchGroupEnd());
    OK(cinchStreamSynchronize(t)); /* b is done while a waits */
    ck_assert_int_eq(value[2], 30);
    ck_assert_int_eq(cinchStreamQuery(s), cinchInProgress);
    OK(sum(&value[1], a[1], NULL));
    ck_assert_int_eq(value[1], 3);
    OK(cinchStreamSynchronize(s));
    ck_assert_int_eq(cinchStreamQuery(s), cinchSuccess);
    ck_assert_int_eq(value[0], 3);
    OK(cinchStreamDestroy(s));
    OK(cinchStreamDestroy(t));
    for (int r = 0; r < 2; r++) OK(cinchCommDestroy(a[r]));
    for (int r = 0; r < 2; r++) OK(cinchCommDestroy(b[r]));
}
END_TEST

START_TEST(a_group_over_two_streams_is_one_point) {
    quiet(NULL);
    cinchComm_t a[2], b[2], c[2];
    cinchStream_t s, t, other[3];
    int va[2] = {1, 2}, vb[2] = {3, 4}, vc[2] = {5, 6};
    OK(cinchCommInitAll(a, 2, NULL));
    OK(cinchCommInitAll(b, 2, NULL));
    OK(cinchCommInitAll(c, 2, NULL));
    OK(cinchStreamCreate(&s));
    OK(cinchStreamCreate(&t));
    for (int i = 0; i < 3; i++) OK(cinchStreamCreate(&other[i]));
    OK(sum(&vc[0], c[0], t)); /* holds t up */
    OK(cinchGroupStart());
    OK(sum(&va[0], a[0], s));
    OK(sum(&vb[0], b[0], t));
    OK(cinchGroupEnd());
    OK(sum(&va[1], a[1], other[0]));
    OK(sum(&vb[1], b[1], other[1]));
    sleep_ms(60);
    ck_assert_int_eq(cinchStreamQuery(s), cinchInProgress);
    ck_assert_int_eq(cinchStreamQuery(other[0]), cinchInProgress); /* a has not begun */
    ck_assert_int_eq(va[0], 1);
    OK(sum(&vc[1], c[1], other[2]));
    for (int i = 0; i < 3; i++) OK(cinchStreamSynchronize(other[i]));
    OK(cinchStreamSynchronize(s));
    OK(cinchStreamSynchronize(t));
    ck_assert(va[0] == 3 && va[1] == 3 && vb[0] == 7 && vb[1] == 7 && vc[0] == 11 && vc[1] == 11);

    /* With a call without a stream in it, the group is complete when its end returns. */
    OK(cinchGroupStart());
    OK(sum(&va[0], a[0], s));
    OK(sum(&va[1], a[1], NULL));
    OK(cinchGroupEnd());
    ck_assert(va[0] == 6 && va[1] == 6);
    OK(cinchStreamDestroy(s));
    OK(cinchStreamDestroy(t));
    for (int i = 0; i < 3; i++) OK(cinchStreamDestroy(other[i]));
    for (int r = 0; r < 2; r++) {
        OK(cinchCommDestroy(a[r]));
        OK(cinchCommDestroy(b[r]));
        OK(cinchCommDestroy(c[r]));
    }
}
END_TEST

/* Two threads whose groups take the same two streams in opposite order. */
typedef struct crossing {
    cinchComm_t comm;
    cinchStream_t first, second;
    cinchResult_t result;
} crossing;

static void *cross(void *arg) {
    crossing *c = arg;
    for (int i = 0; i < 2000 && c->result == cinchSuccess; i++) {
        int a = 1, b = 2;
        c->result = cinchGroupStart();
        if (c->result == cinchSuccess) c->result = sum(&a, c->comm, c->first);
        if (c->result == cinchSuccess) c->result = sum(&b, c->comm, c->second);
        if (c->result == cinchSuccess) c->result = cinchGroupEnd();
        if (c->result == cinchSuccess) c->result = cinchStreamSynchronize(c->first);
        if (c->result == cinchSuccess) c->result = cinchStreamSynchronize(c->second);
    }
    return NULL;
}

START_TEST(groups_that_cross_do_not_lock) {
    quiet(NULL);
    cinchStream_t s, t;
    crossing c[2];
    pthread_t thread[2];
    OK(cinchStreamCreate(&s));
    OK(cinchStreamCreate(&t));
    c[0] = (crossing){.first = s, .second = t};
    c[1] = (crossing){.first = t, .second = s};
    for (int i = 0; i < 2; i++) OK(cinchCommInitAll(&c[i].comm, 1, NULL));
    for (int i = 0; i < 2; i++) ck_assert_int_eq(pthread_create(&thread[i], NULL, cross, &c[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < 2; i++) {
        OK(c[i].result);
        OK(cinchCommDestroy(c[i].comm));
    }
    OK(cinchStreamDestroy(s));
    OK(cinchStreamDestroy(t));
}
END_TEST

/* ---- failures ---- */

START_TEST(the_first_failure_stays) {
    cinchComm_t a[2], b[2];
    cinchStream_t s[2], t;
    int value[2] = {1, 2};
    quiet(NULL);
    OK(cinchCommInitAll(b, 2, NULL));
    quiet("CINCH_ALGO=oneshot CINCH_TRANSPORT=tcp");
    OK(cinchCommInitAll(a, 2, NULL));
    for (int r = 0; r < 2; r++) OK(cinchStreamCreate(&s[r]));
    OK(cinchStreamCreate(&t));
    for (int r = 0; r < 2; r++) OK(sum(&value[r], a[r], s[r]));
    for (int r = 0; r < 2; r++) {
        ck_assert_int_eq(cinchStreamSynchronize(s[r]), cinchInvalidUsage);
        ck_assert_msg(strstr(cinchGetLastError(NULL), "oneshot cannot serve") != NULL, "\"%s\"",
                      cinchGetLastError(NULL));
        ck_assert_int_eq(cinchStreamQuery(s[r]), cinchInvalidUsage);
        cinchResult_t state;
        OK(cinchCommGetAsyncError(a[r], &state));
        ck_assert_int_eq(state, cinchSuccess); /* nobody had begun anything */
    }
    OK(cinchCommAbort(b[1]));
    OK(sum(&value[0], b[0], s[0])); /* another failure */
    OK(sum(&value[0], b[0], t));
    ck_assert_int_eq(cinchStreamSynchronize(t), cinchRemoteError);
    ck_assert_msg(strstr(cinchGetLastError(NULL), "cinchCommAbort") != NULL, "\"%s\"",
                  cinchGetLastError(NULL));
    ck_assert_int_eq(cinchStreamSynchronize(s[0]), cinchInvalidUsage);
    ck_assert_int_eq(cinchStreamQuery(s[0]), cinchInvalidUsage);
    ck_assert(strstr(cinchGetLastError(NULL), "oneshot cannot serve") != NULL);
    for (int r = 0; r < 2; r++) ck_assert_int_eq(cinchStreamDestroy(s[r]), cinchInvalidUsage);
    ck_assert_int_eq(cinchStreamDestroy(t), cinchRemoteError);
    for (int r = 0; r < 2; r++) OK(cinchCommDestroy(a[r]));
    OK(cinchCommDestroy(b[0]));
}
END_TEST

/* A group's failure is told with its sentence also where another thread has run it. */
START_TEST(a_joint_failure_has_its_sentence) {
    quiet("CINCH_ALGO=oneshot CINCH_TRANSPORT=tcp");
    cinchComm_t a[2];
    cinchStream_t s;
    int value[2] = {1, 2};
    OK(cinchCommInitAll(a, 2, NULL));
    OK(cinchStreamCreate(&s));
    OK(cinchGroupStart());
    OK(sum(&value[0], a[0], s));
    OK(sum(&value[1], a[1], NULL));
    ck_assert_int_eq(cinchGroupEnd(), cinchInvalidUsage);
    ck_assert_msg(strstr(cinchGetLastError(NULL), "oneshot cannot serve") != NULL, "\"%s\"",
                  cinchGetLastError(NULL));
    cinchStreamDestroy(s);
    for (int r = 0; r < 2; r++) OK(cinchCommDestroy(a[r]));
}
END_TEST

/* ---- the end ---- */

START_TEST(destroying_waits) {
    quiet(NULL);
    cinchComm_t a[2];
    cinchStream_t s[2];
    enum { CALLS = 50, COUNT = 4000 };
    int *data = calloc(2 * COUNT, sizeof *data);
    OK(cinchCommInitAll(a, 2, NULL));
    for (int r = 0; r < 2; r++) OK(cinchStreamCreate(&s[r]));
    for (int i = 0; i < 2 * COUNT; i++) data[i] = 1;
    for (int k = 0; k < CALLS; k++)
        for (int r = 0; r < 2; r++)
            OK(cinchAllReduce(data + r * COUNT, data + r * COUNT, COUNT, cinchInt, cinchSum, a[r],
                              s[r]));
    for (int r = 0; r < 2; r++) OK(cinchStreamDestroy(s[r]));
    for (int i = 0; i < 2 * COUNT; i++) /* 2^50 in 32 bits */
        if (data[i] != 0) ck_abort_msg("element %d is %d", i, data[i]);
    ck_assert_int_eq(cinchStreamSynchronize(s[0]), cinchInvalidArgument);
    ck_assert_int_eq(cinchStreamDestroy(s[0]), cinchInvalidArgument);
    ck_assert_int_eq(sum(data, a[0], s[0]), cinchInvalidArgument);
    for (int r = 0; r < 2; r++) OK(cinchCommDestroy(a[r]));
    free(data);
}
END_TEST

/* The communicator's end waits for what its streams have. */
START_TEST(destroying_the_communicator_waits) {
    quiet(NULL);
    cinchComm_t a[2];
    cinchStream_t s;
    int value[2] = {1, 2};
    OK(cinchCommInitAll(a, 2, NULL));
    OK(cinchStreamCreate(&s));
    for (int i = 0; i < 20; i++) {
        OK(cinchGroupStart());
        for (int r = 0; r < 2; r++) OK(sum(&value[r], a[r], s));
        OK(cinchGroupEnd());
    }
    for (int r = 0; r < 2; r++) OK(cinchCommDestroy(a[r]));
    ck_assert_int_eq(value[0], 3 << 19);
    OK(cinchStreamDestroy(s));
}
END_TEST

/* A stream that ends while a group still names it: refused at the group's end, and the communicator
 * goes on. */
START_TEST(a_group_with_an_ended_stream) {
    quiet(NULL);
    cinchComm_t comm;
    cinchStream_t s;
    int value = 4;
    OK(cinchCommInitAll(&comm, 1, NULL));
    OK(cinchStreamCreate(&s));
    OK(cinchGroupStart());
    OK(sum(&value, comm, s));
    OK(cinchStreamDestroy(s));
    ck_assert_int_eq(cinchGroupEnd(), cinchInvalidArgument);
    ck_assert(strstr(cinchGetLastError(NULL), "stream") != NULL);
    OK(cinchStreamSynchronize(NULL));
    OK(cinchStreamQuery(NULL));
    OK(cinchCommDestroy(comm));
}
END_TEST

int main(void) {
    const TTest *const tests[] = {calls_of_a_stream_are_in_order,
                                  streams_and_none_on_one_communicator,
                                  streams_overlap,
                                  a_group_over_two_streams_is_one_point,
                                  groups_that_cross_do_not_lock,
                                  the_first_failure_stays,
                                  a_joint_failure_has_its_sentence,
                                  destroying_waits,
                                  destroying_the_communicator_waits,
                                  a_group_with_an_ended_stream};
    return run_tests("stream", tests, sizeof tests / sizeof *tests, 20);
}

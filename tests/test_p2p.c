/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between pairs, and groups: what cannot deadlock does not, whatever the order of calls,
 * and what does not fit together is told. */
#include "tests/harness.h"

enum { BIG = 3 << 20 }; /* bytes; more than any transport takes in before the receiver comes */

static void fill(unsigned char *p, size_t bytes, int from, int to, int k) {
    for (size_t i = 0; i < bytes; i++)
        p[i] = (unsigned char)(i * 7 + (size_t)(from * 31 + to * 17 + k));
}

static bool filled(const unsigned char *p, size_t bytes, int from, int to, int k) {
    for (size_t i = 0; i < bytes; i++)
        if (p[i] != (unsigned char)(i * 7 + (size_t)(from * 31 + to * 17 + k))) return false;
    return true;
}

static void over_both(int n, void (*body)(seat *me), bool processes) {
    ranks_run(&(ranks_case){.nranks = n, .body = body, .processes = processes});
    ranks_run(&(ranks_case){
        .nranks = n, .body = body, .processes = processes, .env = "CINCH_TRANSPORT=tcp"});
}

/* ---- rings and crowds ---- */

static void ring(seat *me) {
    int n = me->nranks, right = (me->rank + 1) % n, left = (me->rank + n - 1) % n;
    unsigned char *out = malloc(BIG), *in = malloc(BIG);
    CHECK(me, out && in);
    for (int k = 0; k < 3; k++) {
        size_t bytes = k == 1 ? 5 : BIG - (size_t)k;
        fill(out, bytes, me->rank, right, k);
        CHECK_OK(me, cinchGroupStart());
        if (k % 2) CHECK_OK(me, cinchRecv(in, bytes, cinchUint8, left, me->comm, NULL));
        CHECK_OK(me, cinchSend(out, bytes, cinchUint8, right, me->comm, NULL));
        if (!(k % 2)) CHECK_OK(me, cinchRecv(in, bytes, cinchUint8, left, me->comm, NULL));
        CHECK_OK(me, cinchGroupEnd());
        CHECK(me, filled(in, bytes, left, me->rank, k), "k %d", k);
    }
    free(out);
    free(in);
}

START_TEST(rings_of_blocking_sizes) {
    over_both(8, ring, false);
    over_both(3, ring, true);
    over_both(1, ring, false); /* to itself */
}
END_TEST

/* Everyone to everyone, itself included, several messages each, in orders that differ. */
static void crowd(seat *me) {
    enum { PER_PAIR = 3, BYTES = 70000 };
    int n = me->nranks;
    size_t pairs = (size_t)n * PER_PAIR;
    unsigned char *out = malloc(pairs * BYTES), *in = malloc(pairs * BYTES);
    CHECK(me, out && in);
    for (int q = 0; q < n; q++)
        for (int k = 0; k < PER_PAIR; k++)
            fill(out + (size_t)(q * PER_PAIR + k) * BYTES, BYTES, me->rank, q, k);
    CHECK_OK(me, cinchGroupStart());
    for (int i = 0; i < n; i++) {
        int q = me->rank % 2 ? n - 1 - i : i;
        for (int k = 0; k < PER_PAIR; k++) {
            size_t at = (size_t)(q * PER_PAIR + k) * BYTES, bytes = BYTES - (size_t)k * 30000;
            CHECK_OK(me, cinchSend(out + at, bytes, cinchUint8, q, me->comm, NULL));
            CHECK_OK(me, cinchRecv(in + at, bytes, cinchUint8, q, me->comm, NULL));
        }
    }
    CHECK_OK(me, cinchGroupEnd());
    for (int q = 0; q < n; q++)
        for (int k = 0; k < PER_PAIR; k++)
            CHECK(me,
                  filled(in + (size_t)(q * PER_PAIR + k) * BYTES, BYTES - (size_t)k * 30000, q,
                         me->rank, k),
                  "from %d, message %d", q, k);
    free(out);
    free(in);
}

START_TEST(everyone_to_everyone) {
    over_both(5, crowd, false);
    over_both(2, crowd, true);
}
END_TEST

/* Outside of groups, along a chain; and with collectives in one group, which go first. */
static void chain(seat *me) {
    int n = me->nranks, token = 40, sum = me->rank;
    if (me->rank > 0) CHECK_OK(me, cinchRecv(&token, 1, cinchInt, me->rank - 1, me->comm, NULL));
    token++;
    if (me->rank < n - 1)
        CHECK_OK(me, cinchSend(&token, 1, cinchInt, me->rank + 1, me->comm, NULL));
    CHECK(me, token == 41 + me->rank);
    CHECK_OK(me, cinchGroupStart());
    if (me->rank == 0) CHECK_OK(me, cinchSend(&token, 1, cinchInt, n - 1, me->comm, NULL));
    CHECK_OK(me, cinchAllReduce(&sum, &sum, 1, cinchInt, cinchSum, me->comm, NULL));
    if (me->rank == n - 1) CHECK_OK(me, cinchRecv(&token, 1, cinchInt, 0, me->comm, NULL));
    CHECK_OK(me, cinchGroupEnd());
    CHECK(me, sum == n * (n - 1) / 2);
    CHECK(me, token == (me->rank == n - 1 ? 41 : 41 + me->rank));
    CHECK_OK(me, cinchSend(&token, 0, cinchInt, me->rank, me->comm, NULL)); /* nothing is nothing */
}

START_TEST(chains_and_mixed_groups) {
    over_both(4, chain, false);
    over_both(2, chain, true);
}
END_TEST

/* ---- what does not fit ---- */

static void counts_differ(seat *me) {
    int32_t data[64] = {0};
    const int *shorter = me->shared;
    size_t count = me->rank == *shorter ? 60 : 64;
    cinchResult_t result;
    if (me->rank)
        result = cinchRecv(data, count, cinchInt32, 0, me->comm, NULL);
    else
        result = cinchSend(data, count, cinchInt32, 1, me->comm, NULL);
    if (me->rank) CHECK(me, result == cinchInvalidUsage, "%d", result);
    if (me->rank) CHECK(me, strstr(cinchGetLastError(me->comm), "different sizes"));
}

static void dtypes_differ(seat *me) {
    int32_t data[64] = {0};
    if (!me->rank) {
        cinchSend(data, 4, cinchInt32, 1, me->comm, NULL);
        return;
    }
    CHECK_FAILS(me, cinchRecv(data, 4, cinchFloat, 0, me->comm, NULL), cinchInvalidUsage, me->comm,
                "different");
}

START_TEST(both_ends_must_agree) {
    const char *env[] = {"CINCH_TRANSPORT=shm", "CINCH_TRANSPORT=tcp"};
    for (int i = 0; i < 2; i++) {
        for (int shorter = 0; shorter < 2; shorter++)
            ranks_run(&(ranks_case){.nranks = 2,
                                    .body = counts_differ,
                                    .env = env[i],
                                    .shared = &shorter,
                                    .logs = "*"});
        ranks_run(&(ranks_case){.nranks = 2, .body = dtypes_differ, .env = env[i], .logs = "*"});
    }
}
END_TEST

static void arguments(seat *me) {
    int x = 0;
    CHECK_FAILS(me, cinchSend(&x, 1, cinchInt, 2, me->comm, NULL), cinchInvalidArgument, NULL,
                "peer 2: 0 to 1 are accepted");
    CHECK_FAILS(me, cinchRecv(&x, 1, cinchInt, -1, me->comm, NULL), cinchInvalidArgument, NULL,
                "peer -1");
    CHECK_FAILS(me, cinchSend(NULL, 1, cinchInt, 0, me->comm, NULL), cinchInvalidArgument, NULL,
                "sendbuff is NULL");
    CHECK_FAILS(me, cinchRecv(NULL, 1, cinchInt, 0, me->comm, NULL), cinchInvalidArgument, NULL,
                "recvbuff is NULL");
    CHECK_FAILS(me, cinchSend(&x, 1, cinchNumTypes, 0, me->comm, NULL), cinchInvalidArgument, NULL,
                "datatype 12");
    CHECK_OK(me, cinchGroupStart());
    CHECK_FAILS(me, cinchSend(&x, 1, cinchInt, 5, me->comm, NULL), cinchInvalidArgument, NULL,
                "peer 5");
    CHECK_FAILS(me, cinchGroupEnd(), cinchInvalidArgument, NULL, "peer 5");
}

static void lonely_send(seat *me) {
    int x = 0;
    CHECK_FAILS(me, cinchSend(&x, 1, cinchInt, me->rank, me->comm, NULL), cinchInvalidUsage, NULL,
                "to itself");
}
static void lonely_receive(seat *me) {
    int x = 0;
    CHECK_FAILS(me, cinchRecv(&x, 1, cinchInt, me->rank, me->comm, NULL), cinchInvalidUsage, NULL,
                "does not send");
}

START_TEST(wrong_arguments) {
    ranks_run(&(ranks_case){.nranks = 2, .body = arguments, .logs = "*"});
    ranks_run(&(ranks_case){.nranks = 1, .body = lonely_send, .logs = "to itself"});
    ranks_run(&(ranks_case){.nranks = 1, .body = lonely_receive, .logs = "from itself"});
}
END_TEST

/* ---- groups over communicators and streams ---- */

START_TEST(one_thread_drives_all_ranks) {
    enum { N = 5, BYTES = 600000 };
    cinchComm_t comms[N];
    ck_assert_int_eq(cinchCommInitAll(comms, N, NULL), cinchSuccess);
    unsigned char *out[N], *in[N];
    int sum[N];
    for (int round = 0; round < 3; round++) {
        ck_assert_int_eq(cinchGroupStart(), cinchSuccess);
        for (int r = 0; r < N; r++) {
            if (!round) out[r] = malloc(BYTES), in[r] = malloc(BYTES);
            fill(out[r], BYTES, r, (r + 1) % N, round);
            sum[r] = r;
            int left = (r + N - 1) % N;
            ck_assert_int_eq(cinchRecv(in[r], BYTES, cinchUint8, left, comms[r], NULL), 0);
            ck_assert_int_eq(cinchSend(out[r], BYTES, cinchUint8, (r + 1) % N, comms[r], NULL), 0);
            ck_assert_int_eq(
                cinchAllReduce(&sum[r], &sum[r], 1, cinchInt, cinchSum, comms[r], NULL), 0);
            ck_assert_int_eq(cinchBcast(&sum[r], 1, cinchInt, N - 1, comms[r], NULL), 0);
        }
        ck_assert_int_eq(cinchGroupEnd(), cinchSuccess);
        for (int r = 0; r < N; r++) {
            ck_assert(filled(in[r], BYTES, (r + N - 1) % N, r, round));
            ck_assert_int_eq(sum[r], N * (N - 1) / 2);
        }
    }
    for (int r = 0; r < N; r++) {
        free(out[r]);
        free(in[r]);
        ck_assert_int_eq(cinchCommDestroy(comms[r]), cinchSuccess);
    }
}
END_TEST

/* Two communicators, each on a stream of its own, driven in orders that differ by rank. */
static void two_streams(seat *me) {
    enum { COUNT = 30000 };
    cinchComm_t comm[2] = {me->comm, NULL};
    cinchStream_t stream[2];
    float *data[2];
    CHECK_OK(me, cinchCommSplit(me->comm, 0, -me->rank, &comm[1], NULL));
    for (int i = 0; i < 2; i++) {
        CHECK_OK(me, cinchStreamCreate(&stream[i]));
        data[i] = malloc(COUNT * sizeof *data[i]);
        CHECK(me, data[i]);
        for (int k = 0; k < COUNT; k++) data[i][k] = (float)(i + 1);
    }
    for (int round = 0; round < 4; round++)
        for (int i = 0; i < 2; i++) {
            int which = (me->rank + round) % 2 ? 1 - i : i;
            CHECK_OK(me, cinchAllReduce(data[which], data[which], COUNT, cinchFloat, cinchSum,
                                        comm[which], stream[which]));
        }
    for (int i = 0; i < 2; i++) CHECK_OK(me, cinchStreamSynchronize(stream[i]));
    float grown = 1;
    for (int round = 0; round < 4; round++) grown *= (float)me->nranks;
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < COUNT; k++) CHECK(me, data[i][k] == grown * (float)(i + 1));
        CHECK_OK(me, cinchStreamDestroy(stream[i]));
        free(data[i]);
    }
    CHECK_OK(me, cinchCommDestroy(comm[1]));
}

START_TEST(two_communicators_two_streams) {
    over_both(3, two_streams, false);
    over_both(2, two_streams, true);
}
END_TEST

/* A send on one stream and the receive on another, in one group, are still one. */
static void streams_of_a_group(seat *me) {
    int n = me->nranks;
    unsigned char *out = malloc(BIG), *in = malloc(BIG);
    cinchStream_t a, b;
    CHECK(me, out && in);
    CHECK_OK(me, cinchStreamCreate(&a));
    CHECK_OK(me, cinchStreamCreate(&b));
    fill(out, BIG, me->rank, (me->rank + 1) % n, 0);
    CHECK_OK(me, cinchGroupStart());
    CHECK_OK(me, cinchSend(out, BIG, cinchUint8, (me->rank + 1) % n, me->comm, a));
    CHECK_OK(me, cinchRecv(in, BIG, cinchUint8, (me->rank + n - 1) % n, me->comm, b));
    CHECK_OK(me, cinchGroupEnd());
    CHECK_OK(me, cinchStreamSynchronize(b));
    CHECK(me, filled(in, BIG, (me->rank + n - 1) % n, me->rank, 0));
    CHECK_OK(me, cinchStreamSynchronize(a));
    CHECK_OK(me, cinchStreamDestroy(a));
    CHECK_OK(me, cinchStreamDestroy(b));
    free(out);
    free(in);
}

START_TEST(a_group_over_streams_is_one) {
    over_both(3, streams_of_a_group, false);
}
END_TEST

/* ---- simulated groups ---- */

static void simulate(seat *me) {
    static float data[1 << 18];
    cinchSimInfo_t small = CINCH_SIM_INFO_INITIALIZER, large = CINCH_SIM_INFO_INITIALIZER;
    CHECK_OK(me, cinchGroupStart());
    CHECK_OK(me, cinchAllReduce(data, data, 16, cinchFloat, cinchSum, me->comm, NULL));
    CHECK_OK(me, cinchGroupSimulateEnd(&small));
    CHECK(me, small.estimatedTime > 0);
    CHECK_OK(me, cinchGroupStart());
    CHECK_OK(me, cinchAllReduce(data, data, 1 << 18, cinchFloat, cinchSum, me->comm, NULL));
    CHECK_OK(me, cinchGroupStart());
    CHECK_OK(me, cinchSend(data, 1 << 18, cinchFloat, (me->rank + 1) % me->nranks, me->comm, NULL));
    CHECK_OK(me, cinchGroupEnd()); /* only the outermost end counts, and nothing runs */
    CHECK_OK(me, cinchGroupSimulateEnd(&large));
    CHECK(me, large.estimatedTime > 10 * small.estimatedTime);
    CHECK_OK(me, cinchGroupStart());
    CHECK_OK(me, cinchGroupSimulateEnd(NULL));
    small.magic = 0;
    CHECK_OK(me, cinchGroupStart());
    CHECK_FAILS(me, cinchGroupSimulateEnd(&small), cinchInvalidArgument, NULL,
                "CINCH_SIM_INFO_INITIALIZER");
    CHECK_FAILS(me, cinchGroupSimulateEnd(&large), cinchInvalidUsage, NULL,
                "without a cinchGroupStart");
    data[0] = 1;
    CHECK_OK(me, cinchAllReduce(data, data, 1, cinchFloat, cinchSum, me->comm, NULL));
    CHECK(me, data[0] == (float)me->nranks);
}

START_TEST(simulated_groups) {
    ranks_run(&(ranks_case){.nranks = 2, .body = simulate, .logs = "*", .processes = true});
}
END_TEST

int main(void) {
    const TTest *const tests[] = {rings_of_blocking_sizes,
                                  everyone_to_everyone,
                                  chains_and_mixed_groups,
                                  both_ends_must_agree,
                                  wrong_arguments,
                                  one_thread_drives_all_ranks,
                                  two_communicators_two_streams,
                                  a_group_over_streams_is_one,
                                  simulated_groups};
    return run_tests("p2p", tests, sizeof tests / sizeof *tests, 120);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The network on a virtual clock: what one message takes, what sharing costs, and that links carry
 * what they are given, in order, and never more than they can. */
#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "transports/sim.h"

enum { MOST_LINKS = 12, MOST_HOPS = 6, MESSAGES = 400, RUNS = 150 };

static uint64_t seed;

static int below(int n) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (int)(seed % (uint64_t)n);
}

static cinch_sim *make(const cinch_sim_link *link, int links) {
    cinch_sim *sim;
    ck_assert_int_eq(cinch_sim_make(link, links, CINCH_SIM_SEGMENTS, &sim), cinchSuccess);
    return sim;
}

static void send(cinch_sim *sim, const int *route, int hops, double bytes, uint64_t tag) {
    ck_assert_int_eq(cinch_sim_send(sim, route, hops, bytes, tag), cinchSuccess);
}

/* Until nothing is under way: when the last message arrived. */
static double drain(cinch_sim *sim) {
    cinch_sim_event event;
    double last = 0;
    while (cinch_sim_next(sim, &event))
        if (event.kind == CINCH_SIM_ARRIVED) last = cinch_sim_now_us(sim);
    return last;
}

/* ---- one message ---- */

START_TEST(a_short_message_pays_every_link) {
    static const cinch_sim_link link[] = {{10, 1}, {2, 0}, {5, 2.5}, {1000, 0.25}};
    static const int route[] = {0, 1, 2, 3};
    for (int hops = 1; hops <= 4; hops++)
        for (double bytes = 0; bytes <= 4096; bytes += 512) {
            cinch_sim *sim = make(link, 4);
            double us = bytes / (hops == 1 ? 10e3 : 2e3); /* the narrowest, and every latency */
            for (int i = 0; i < hops; i++) us += link[i].latency_us;
            send(sim, route, hops, bytes, 7);
            ck_assert_double_eq_tol(drain(sim), us, 1e-9);
            cinch_sim_free(sim);
        }
}
END_TEST

START_TEST(a_message_leaves_and_arrives_once) {
    static const cinch_sim_link link[] = {{1, 3}, {1, 4}};
    static const int route[] = {0, 1};
    cinch_sim *sim = make(link, 2);
    cinch_sim_event event;
    send(sim, route, 2, 1e6, 99);
    ck_assert(cinch_sim_next(sim, &event));
    ck_assert_int_eq(event.kind, CINCH_SIM_LEFT);
    ck_assert_uint_eq(event.tag, 99);
    ck_assert_double_eq_tol(cinch_sim_now_us(sim), 1000, 1e-6);
    ck_assert(cinch_sim_next(sim, &event));
    ck_assert_int_eq(event.kind, CINCH_SIM_ARRIVED);
    ck_assert_uint_eq(event.tag, 99);
    ck_assert_double_eq_tol(cinch_sim_now_us(sim), 1000 + 7, 1e-6);
    ck_assert(!cinch_sim_next(sim, &event));
    cinch_sim_free(sim);
}
END_TEST

/* Many messages one after the other keep every link of the way at work: the narrowest decides. */
START_TEST(a_stream_of_messages_is_as_fast_as_its_narrowest_link) {
    static const cinch_sim_link link[] = {{10, 1}, {3, 2}, {7, 1}};
    static const int route[] = {0, 1, 2};
    cinch_sim *sim = make(link, 3);
    for (int i = 0; i < 200; i++) send(sim, route, 3, 1 << 16, (uint64_t)i);
    double us = drain(sim), least = 200.0 * (1 << 16) / 3e3;
    ck_assert_double_ge(us, least);
    ck_assert_double_le(us, least * 1.01);
    cinch_sim_free(sim);
}
END_TEST

/* ---- sharing ---- */

/* So many at once take so many times as long, and none is much before the others. */
START_TEST(messages_share_a_link_evenly) {
    for (int flows = 1; flows <= 16; flows++) {
        cinch_sim_link link[17] = {{2, 1}};
        int route[16][2];
        for (int i = 0; i < flows; i++) {
            link[1 + i] = (cinch_sim_link){50, 1};
            route[i][0] = 0;
            route[i][1] = 1 + i;
        }
        cinch_sim *sim = make(link, flows + 1);
        for (int i = 0; i < flows; i++) send(sim, route[i], 2, 1e6, (uint64_t)i);
        double first = 0, last = 0, alone = 1e6 / 2e3;
        cinch_sim_event event;
        while (cinch_sim_next(sim, &event)) {
            if (event.kind != CINCH_SIM_ARRIVED) continue;
            last = cinch_sim_now_us(sim);
            if (first == 0) first = last;
        }
        ck_assert_double_eq_tol(last, flows * alone + 2, 1e-6);
        ck_assert_double_ge(first, last - alone / CINCH_SIM_SEGMENTS * (flows + 1));
        cinch_sim_free(sim);
    }
}
END_TEST

/* Those that come to a link from different sides share it too: nobody waits for a whole message. */
START_TEST(messages_from_different_sides_share_a_link) {
    static const cinch_sim_link link[] = {{4, 0}, {4, 0}, {4, 0}};
    static const int route[2][2] = {{0, 2}, {1, 2}};
    cinch_sim *sim = make(link, 3);
    cinch_sim_event event;
    for (int i = 0; i < 2; i++) send(sim, route[i], 2, 1e6, (uint64_t)i);
    int arrived = 0;
    while (cinch_sim_next(sim, &event)) {
        if (event.kind != CINCH_SIM_ARRIVED) continue;
        arrived++;
        ck_assert_double_ge(cinch_sim_now_us(sim), 250 * (2 - 1.001 / CINCH_SIM_SEGMENTS));
        ck_assert_double_le(cinch_sim_now_us(sim), 250 * 2.001);
    }
    ck_assert_int_eq(arrived, 2);
    cinch_sim_free(sim);
}
END_TEST

START_TEST(what_does_not_share_does_not_wait) {
    static const cinch_sim_link link[] = {{1, 1}, {1, 1}};
    static const int one[] = {0}, other[] = {1};
    cinch_sim *sim = make(link, 2);
    for (int i = 0; i < 10; i++) send(sim, one, 1, 1000, 0);
    send(sim, other, 1, 1000, 1);
    cinch_sim_event event;
    do ck_assert(cinch_sim_next(sim, &event));
    while (event.kind != CINCH_SIM_ARRIVED || event.tag != 1);
    ck_assert_double_eq_tol(cinch_sim_now_us(sim), 2, 1e-9);
    ck_assert_double_eq_tol(drain(sim), 11, 1e-9);
    cinch_sim_free(sim);
}
END_TEST

START_TEST(moments_come_when_they_were_asked_for) {
    cinch_sim *sim = make(NULL, 0);
    cinch_sim_event event;
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(cinch_sim_wake(sim, (i * 37) % 100, (uint64_t)((i * 37) % 100)),
                         cinchSuccess);
    for (int i = 0; i < 100; i++) {
        ck_assert(cinch_sim_next(sim, &event));
        ck_assert_int_eq(event.kind, CINCH_SIM_WOKE);
        ck_assert_uint_eq(event.tag, (uint64_t)i);
        ck_assert_double_eq(cinch_sim_now_us(sim), i);
    }
    ck_assert_int_eq(cinch_sim_wake(sim, 5, 0), cinchSuccess); /* that is over: now */
    ck_assert(cinch_sim_next(sim, &event));
    ck_assert_double_eq(cinch_sim_now_us(sim), 99);
    cinch_sim_free(sim);
}
END_TEST

/* ---- random networks ---- */

typedef struct flight {
    int route[MOST_HOPS], hops;
    double bytes, sent, left, arrived;
    uint64_t nth_left, nth_arrived; /* of all events */
} flight;

typedef struct world {
    cinch_sim_link link[MOST_LINKS];
    int links, flights;
    flight flight[MESSAGES];
    double end;
} world;

/* Messages set out at random moments. most: bytes. */
static void fly(world *w, double most) {
    memset(w, 0, sizeof *w);
    w->links = 1 + below(MOST_LINKS);
    w->flights = 1 + below(MESSAGES);
    for (int i = 0; i < w->links; i++)
        w->link[i] = (cinch_sim_link){0.5 + below(40), below(3) ? below(100) / 10.0 : 0};
    cinch_sim *sim = make(w->link, w->links);
    for (int i = 0; i < w->flights; i++) {
        flight *f = &w->flight[i];
        f->hops = 1 + below(MOST_HOPS);
        for (int k = 0; k < f->hops; k++) f->route[k] = below(w->links);
        f->bytes = below((int)most);
        ck_assert_int_eq(cinch_sim_wake(sim, below(3000), (uint64_t)(w->flights + i)),
                         cinchSuccess);
    }
    cinch_sim_event event;
    double before = 0;
    for (uint64_t nth = 1; cinch_sim_next(sim, &event); nth++) {
        double now = cinch_sim_now_us(sim);
        ck_assert_double_ge(now, before);
        before = now;
        if (event.kind == CINCH_SIM_WOKE) {
            flight *f = &w->flight[event.tag - (uint64_t)w->flights];
            f->sent = now;
            send(sim, f->route, f->hops, f->bytes, event.tag - (uint64_t)w->flights);
            continue;
        }
        flight *f = &w->flight[event.tag];
        bool left = event.kind == CINCH_SIM_LEFT;
        ck_assert_uint_eq(left ? f->nth_left : f->nth_arrived, 0);
        *(left ? &f->nth_left : &f->nth_arrived) = nth;
        *(left ? &f->left : &f->arrived) = now;
    }
    w->end = before;
    for (int l = 0; l < w->links; l++) {
        double bytes = 0;
        for (int i = 0; i < w->flights; i++)
            for (int k = 0; k < w->flight[i].hops; k++)
                if (w->flight[i].route[k] == l) bytes += w->flight[i].bytes;
        ck_assert_double_eq_tol(cinch_sim_carried(sim, l), bytes, 1e-6 * (1 + bytes));
        ck_assert_double_le(bytes, w->link[l].gbps * 1e3 * w->end + 1e-6);
    }
    cinch_sim_free(sim);
}

START_TEST(nothing_is_lost_and_nothing_is_too_fast) {
    static world w;
    for (int run = 0; run < RUNS; run++) {
        seed = 0x51Du + (uint64_t)run * 0x9E3779B97F4A7C15u;
        fly(&w, run % 2 ? 4096 : 300000);
        double whole = 3000;
        for (int i = 0; i < w.flights; i++) {
            const flight *f = &w.flight[i];
            double narrowest = INFINITY, latency = 0;
            for (int k = 0; k < f->hops; k++) {
                const cinch_sim_link *l = &w.link[f->route[k]];
                narrowest = fmin(narrowest, l->gbps);
                latency += l->latency_us;
                whole += l->latency_us + f->bytes / (l->gbps * 1e3);
            }
            ck_assert_uint_gt(f->nth_left, 0);
            ck_assert_uint_gt(f->nth_arrived, f->nth_left);
            double first = f->bytes / (w.link[f->route[0]].gbps * 1e3);
            ck_assert_double_ge(f->left, f->sent + first - 1e-6);
            ck_assert_double_ge(f->arrived,
                                f->sent + latency + f->bytes / (narrowest * 1e3) - 1e-6);
        }
        ck_assert_double_le(w.end, whole + 1e-6); /* something moves as long as anything waits */
    }
}
END_TEST

static int by_arrival(const void *a, const void *b) {
    const flight *x = *(flight *const *)a, *y = *(flight *const *)b;
    return x->nth_arrived < y->nth_arrived ? -1 : x->nth_arrived > y->nth_arrived;
}

/* Of messages that are one segment each: what comes out of a link between any two of its arrivals
 * is no more than it carries in that time. */
START_TEST(no_link_carries_more_than_it_can) {
    static world w;
    for (int run = 0; run < RUNS; run++) {
        seed = 0xBEEu + (uint64_t)run * 0x9E3779B97F4A7C15u;
        fly(&w, 2 * CINCH_SIM_SEGMENT_LEAST - 1);
        for (int l = 0; l < w.links; l++) {
            flight *out[MESSAGES];
            size_t n = 0;
            for (int i = 0; i < w.flights; i++)
                if (w.flight[i].route[w.flight[i].hops - 1] == l) out[n++] = &w.flight[i];
            qsort(out, n, sizeof *out, by_arrival);
            for (size_t i = 1; i < n; i++)
                ck_assert_double_le(out[i]->bytes / (w.link[l].gbps * 1e3),
                                    out[i]->arrived - out[i - 1]->arrived + 1e-6);
        }
    }
}
END_TEST

START_TEST(messages_of_one_way_keep_their_order) {
    for (int run = 0; run < RUNS; run++) {
        cinch_sim_link link[MOST_LINKS];
        int route[MOST_HOPS], hops = 1 + below(MOST_HOPS);
        seed = 0xF1F0u + (uint64_t)run * 0x9E3779B97F4A7C15u;
        for (int i = 0; i < MOST_LINKS; i++)
            link[i] = (cinch_sim_link){1 + below(20), below(50) / 10.0};
        for (int i = 0; i < hops; i++) route[i] = below(MOST_LINKS);
        cinch_sim *sim = make(link, MOST_LINKS);
        for (int i = 0; i < 100; i++)
            send(sim, route, hops, below(2 * CINCH_SIM_SEGMENT_LEAST - 1), (uint64_t)i);
        cinch_sim_event event;
        uint64_t next = 0;
        while (cinch_sim_next(sim, &event))
            if (event.kind == CINCH_SIM_ARRIVED) ck_assert_uint_eq(event.tag, next++);
        ck_assert_uint_eq(next, 100);
        cinch_sim_free(sim);
    }
}
END_TEST

START_TEST(the_same_calls_give_the_same_times) {
    static world one, two;
    for (int run = 0; run < RUNS / 3; run++) {
        seed = 0xABCu + (uint64_t)run * 0x9E3779B97F4A7C15u;
        uint64_t start = seed;
        fly(&one, 300000);
        seed = start;
        fly(&two, 300000);
        ck_assert_mem_eq(&one, &two, sizeof one);
    }
}
END_TEST

/* ---- what is refused ---- */

START_TEST(what_means_nothing_is_refused) {
    static const cinch_sim_link bad[] = {{0, 1},    {-1, 1},       {NAN, 1},
                                         {1, -0.1}, {1, INFINITY}, {1, NAN}};
    static const cinch_sim_link good = {1, 1};
    static const int none[] = {1}, below_all[] = {-1}, some[] = {0};
    cinch_sim *sim;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_int_eq(cinch_sim_make(&bad[i], 1, 4, &sim), cinchInvalidArgument);
        ck_assert_ptr_null(sim);
    }
    sim = make(&good, 1);
    ck_assert_int_eq(cinch_sim_send(sim, none, 1, 8, 0), cinchInvalidArgument);
    ck_assert_int_eq(cinch_sim_send(sim, below_all, 1, 8, 0), cinchInvalidArgument);
    ck_assert_int_eq(cinch_sim_send(sim, some, 0, 8, 0), cinchInvalidArgument);
    ck_assert_int_eq(cinch_sim_send(sim, some, 1, -8, 0), cinchInvalidArgument);
    ck_assert_int_eq(cinch_sim_send(sim, some, 1, NAN, 0), cinchInvalidArgument);
    cinch_sim_event event;
    ck_assert(!cinch_sim_next(sim, &event));
    cinch_sim_free(sim);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("sim");
    TCase *cases = tcase_create("sim");
    tcase_set_timeout(cases, 60);
    tcase_add_test(cases, a_short_message_pays_every_link);
    tcase_add_test(cases, a_message_leaves_and_arrives_once);
    tcase_add_test(cases, a_stream_of_messages_is_as_fast_as_its_narrowest_link);
    tcase_add_test(cases, messages_share_a_link_evenly);
    tcase_add_test(cases, messages_from_different_sides_share_a_link);
    tcase_add_test(cases, what_does_not_share_does_not_wait);
    tcase_add_test(cases, moments_come_when_they_were_asked_for);
    tcase_add_test(cases, nothing_is_lost_and_nothing_is_too_fast);
    tcase_add_test(cases, no_link_carries_more_than_it_can);
    tcase_add_test(cases, messages_of_one_way_keep_their_order);
    tcase_add_test(cases, the_same_calls_give_the_same_times);
    tcase_add_test(cases, what_means_nothing_is_refused);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

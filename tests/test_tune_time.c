/* SPDX-License-Identifier: Apache-2.0 */
/* One time out of many passes, some of them disturbed, and how far CPUs are apart. */
#include <math.h>
#include <sched.h>

#include "coll/tune_time.h"
#include "tests/family.h"

static double dice(uint64_t *state) {
    return (double)(random64(state) >> 11) / 9007199254740992.0;
}

/* What all ways suffer alike is no matter: the times are those of a quiet pass. */
START_TEST(common_disturbances_cancel) {
    for (uint64_t seed = 1; seed <= 200; seed++) {
        uint64_t state = seed;
        int ways = 1 + (int)(random64(&state) % CINCH_MOST_WAYS);
        int passes = 1 + (int)(random64(&state) % CINCH_MOST_PASSES);
        double us[CINCH_MOST_WAYS * CINCH_MOST_PASSES], out[CINCH_MOST_WAYS];
        double way[CINCH_MOST_WAYS], pass[CINCH_MOST_PASSES];
        for (int w = 0; w < ways; w++) way[w] = 1 + 1e4 * dice(&state);
        for (int p = 0; p < passes; p++) /* at least a quarter of the passes are quiet */
            pass[p] = p <= 1 + (passes - 1) / 4 ? 1 : 1 + 3 * dice(&state);
        for (int w = 0; w < ways; w++)
            for (int p = 0; p < passes; p++) us[w * passes + p] = way[w] * pass[p];
        cinch_timing_polish(us, ways, passes, NULL, out);
        for (int w = 0; w < ways; w++)
            ck_assert_msg(fabs(out[w] / way[w] - 1) < 1e-9, "seed %llu: %d of %d: %g, not %g",
                          (unsigned long long)seed, w, ways, out[w], way[w]);
    }
}
END_TEST

/* A way that is usually slower by a fifth, in one pass much faster, and one that is a little faster
 * but sometimes four times slower: the steady one is the best, whatever the least and the median
 * say. Each pass has its own disturbance, of up to twice. */
START_TEST(luck_makes_no_favourite) {
    enum { STEADY, LUCKY, SPOILT, WAYS = 5, PASSES = 15 };
    for (uint64_t seed = 1; seed <= 200; seed++) {
        uint64_t state = seed;
        double us[WAYS * PASSES], out[WAYS];
        int lucky = (int)(random64(&state) % PASSES);
        for (int p = 0; p < PASSES; p++) {
            double disturbed = p % 3 ? 1 + dice(&state) : 1;
            for (int w = 0; w < WAYS; w++) {
                double time = w == STEADY ? 100 : w == SPOILT ? 97 : w == LUCKY ? 120 : 150;
                if (w == LUCKY && p == lucky) time = 60;
                if (w == SPOILT && p % 5 == 0) time *= 4;
                us[w * PASSES + p] = time * disturbed * (1 + 0.02 * dice(&state));
            }
        }
        cinch_timing_polish(us, WAYS, PASSES, NULL, out);
        for (int w = 1; w < WAYS; w++)
            ck_assert_msg(out[STEADY] < out[w], "seed %llu: %d has %g, the steady one %g",
                          (unsigned long long)seed, w, out[w], out[STEADY]);
        ck_assert(out[STEADY] > 98 && out[STEADY] < 106);
    }
}
END_TEST

/* Few passes of a kind have no say beside the other. */
enum { ENOUGH = 3 };

/* How far a way is behind the best of its kind at worst, times the best of the near ones. */
static double at_worst(const double kind[][4], int near, int far, int way) {
    double least[2] = {INFINITY, INFINITY}, behind = 1;
    for (int k = 0; k < 2; k++)
        for (int w = 0; w < 4; w++) least[k] = fmin(least[k], kind[k][w]);
    if (near) behind = fmax(behind, kind[0][way] / least[0]);
    if (!near || far >= ENOUGH) behind = fmax(behind, kind[1][way] / least[1]);
    return behind * least[near ? 0 : 1];
}

/* As measured with 4 ranks on 2 CPUs at 1 MiB and 256 KiB, in microseconds: with the CPUs near each
 * other, far from each other, and with three ranks on one of them, which is told by nothing but the
 * times. Of near and far the worse counts for each way, whatever part of the passes is of which
 * kind; passes that were slower by far do not. */
START_TEST(the_worse_of_near_and_far_counts) {
    enum { TWOSHOT, ONESHOT = 1, WAYS = 4, FAR = 1, UNEVEN };
    static const double kind[2][3][WAYS] = {
        {{108, 150, 157, 175}, {206, 202, 176, 195}, {180, 302, 400, 500}},
        {{34.1, 37.5, 41.1, 41.5}, {100, 66.2, 76, 68.6}, {80, 90, 110, 210}}};
    static const int best[2] = {TWOSHOT, ONESHOT};
    for (uint64_t seed = 1; seed <= 300; seed++) {
        uint64_t state = seed;
        int passes = 3 + (int)(random64(&state) % (CINCH_MOST_PASSES - 2)), which = seed % 2;
        int count[3] = {0};
        bool far[CINCH_MOST_PASSES];
        double us[WAYS * CINCH_MOST_PASSES], out[WAYS];
        for (int p = 0; p < passes; p++) {
            int k = p == 0 ? seed % 4 == 0 : (int)(random64(&state) % 3);
            if (k == UNEVEN && !count[0]) k = FAR; /* nothing tells that it is slow */
            count[k]++;
            far[p] = k == FAR;
            for (int w = 0; w < WAYS; w++)
                us[w * passes + p] = kind[which][k][w] * (1 + 0.02 * dice(&state));
        }
        cinch_timing_polish(us, WAYS, passes, far, out);
        for (int w = 0; w < WAYS; w++) {
            double wanted = 1.01 * at_worst(kind[which], count[0], count[FAR], w);
            ck_assert_msg(fabs(out[w] / wanted - 1) < 0.04,
                          "seed %llu, %d near, %d far: way %d has %g, not %g",
                          (unsigned long long)seed, count[0], count[FAR], w, out[w], wanted);
            if (count[0] && count[FAR] >= ENOUGH && w != best[which])
                ck_assert(out[best[which]] < out[w]);
        }
    }
}
END_TEST

/* As measured over TCP with 64 bytes, 4 ranks on 2 CPUs: all are as fast where ranks stand well on
 * their CPUs, which is now and then. What they are where not, decides. */
START_TEST(what_mostly_is_decides) {
    enum { DIRECT, TREE, HALVING, WAYS };
    static const double well[WAYS] = {40.9, 40.1, 39.7}, badly[WAYS] = {53, 55, 63};
    for (uint64_t seed = 1; seed <= 300; seed++) {
        uint64_t state = seed;
        double us[WAYS * CINCH_MOST_PASSES], out[WAYS];
        for (int p = 0; p < CINCH_MOST_PASSES; p++) {
            double part = p == 3 ? 0 : p % 5 == 0 ? 1 : 0.6;
            for (int w = 0; w < WAYS; w++)
                us[w * CINCH_MOST_PASSES + p] =
                    (well[w] + part * (badly[w] - well[w])) * (1 + 0.02 * dice(&state));
        }
        cinch_timing_polish(us, WAYS, CINCH_MOST_PASSES, NULL, out);
        ck_assert_msg(out[DIRECT] < out[TREE] && out[TREE] < out[HALVING], "seed %llu: %g %g %g",
                      (unsigned long long)seed, out[DIRECT], out[TREE], out[HALVING]);
    }
}
END_TEST

/* The thread may run where it might before. */
START_TEST(cpus_have_a_distance) {
    cpu_set_t before, after, one;
    ck_assert_int_eq(sched_getaffinity(0, sizeof before, &before), 0);
    double ns = cinch_timing_handover();
    ck_assert_int_eq(sched_getaffinity(0, sizeof after, &after), 0);
    ck_assert(CPU_EQUAL(&before, &after));
    ck_assert(CPU_COUNT(&before) > 1 ? ns == 0 || (ns > 1 && ns < 1e6) : ns == 0);
    CPU_ZERO(&one); /* with one CPU there is no other */
    for (int cpu = 0; cpu < CPU_SETSIZE && !CPU_COUNT(&one); cpu++)
        if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
    ck_assert(cinch_timing_handover() == 0);
    ck_assert_int_eq(sched_setaffinity(0, sizeof before, &before), 0);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {common_disturbances_cancel, luck_makes_no_favourite,
                                  the_worse_of_near_and_far_counts, what_mostly_is_decides,
                                  cpus_have_a_distance};
    return run_tests("tune_time", tests, sizeof tests / sizeof *tests, 120);
}

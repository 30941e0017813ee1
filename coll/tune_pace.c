/* SPDX-License-Identifier: Apache-2.0 */
/* How far two CPUs are from each other: what it takes to hand a cache line over. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "coll/tune_time.h"

enum { TURNS = 200, BATCHES = 20, LEAVE = -1 };
#define DEADLINE_NS 50000000u /* where somebody else has the CPU */

typedef struct table {
    _Alignas(64) _Atomic int ball; /* odd: theirs, even: ours */
    cpu_set_t theirs;
} table;

static void *answer(void *arg) {
    table *t = arg;
    int ball;
    pthread_setaffinity_np(pthread_self(), sizeof t->theirs, &t->theirs);
    while ((ball = atomic_load_explicit(&t->ball, memory_order_acquire)) != LEAVE)
        if (ball & 1) /* it may have become LEAVE */
            atomic_compare_exchange_strong(&t->ball, &ball, ball + 1);
        else
            cinch_cpu_pause();
    return NULL;
}

/* There and back; false: it takes too long. */
static bool turn(table *t, uint64_t end_ns) {
    int back = atomic_load_explicit(&t->ball, memory_order_relaxed) + 2;
    atomic_store_explicit(&t->ball, back - 1, memory_order_release);
    for (unsigned spins = 1; atomic_load_explicit(&t->ball, memory_order_acquire) != back; spins++)
        if (spins % 4096 == 0 && cinch_now_ns() > end_ns) return false;
    return true;
}

/* The best of some batches, for one way; 0: there was none in time. */
static double play(table *t) {
    uint64_t begin = cinch_now_ns(), end = begin + DEADLINE_NS;
    double best = 0;
    for (int b = 0; b < BATCHES; b++) {
        uint64_t start = cinch_now_ns();
        for (int i = 0; i < TURNS; i++)
            if (!turn(t, end)) return best;
        double ns = (double)(cinch_now_ns() - start) / (2 * TURNS);
        if (b > 0 && (best == 0 || ns < best)) best = ns; /* the first waits for the thread */
    }
    return best;
}

double cinch_timing_handover(void) {
    cpu_set_t mine, first;
    table t = {.ball = 0};
    pthread_t thread;
    int found = 0;
    double ns = 0;
    CPU_ZERO(&first);
    CPU_ZERO(&t.theirs);
    if (sched_getaffinity(0, sizeof mine, &mine) != 0) return 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++)
        if (CPU_ISSET(cpu, &mine)) CPU_SET(cpu, found++ ? &t.theirs : &first);
    if (found < 2 || pthread_create(&thread, NULL, answer, &t) != 0) return 0;
    if (sched_setaffinity(0, sizeof first, &first) == 0) {
        ns = play(&t);
        sched_setaffinity(0, sizeof mine, &mine);
    }
    atomic_store(&t.ball, LEAVE);
    pthread_join(thread, NULL);
    return ns;
}

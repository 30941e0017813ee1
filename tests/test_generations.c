/* SPDX-License-Identifier: Apache-2.0 */
/* A thousand splits, shrinks and destroys leave no descriptor, thread, mapping or byte behind. */
#include <malloc.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/family.h"

enum { RANKS = 3, WARM = 60, ROUNDS = 1000, SLACK = 8192 };

typedef struct board {
    meeting_point point[6];
    holdings before;
    size_t bytes;
} board;

/* Every kind of descendant, one after the other. */
static void one_generation(seat *me, int i) {
    cinchComm_t child = NULL, grandchild = NULL;
    cinchConfig_t config = CINCH_CONFIG_INITIALIZER;
    int last[] = {RANKS - 1}, n = me->nranks;
    config.blocking = i % 4 != 3;
    config.commName = "a generation";
    if (i % 2 == 0) {
        int color = i % 8 == 0 && me->rank == 0 ? CINCH_SPLIT_NOCOLOR : me->rank % 2;
        cinchResult_t result = cinchCommSplit(me->comm, color, i % 3, &child, NULL);
        CHECK_OK(me, result);
        if (!child) return;
        cinchCommCount(child, &n);
    } else if (me->rank != last[0]) {
        cinchResult_t result = cinchCommShrink(me->comm, last, 1, &child, &config,
                                               i % 8 == 1 ? CINCH_SHRINK_DEFAULT : 0);
        CHECK(me, result == (config.blocking ? cinchSuccess : cinchInProgress));
        CHECK(me, settled(child) == cinchSuccess, "round %d: %s", i, cinchGetLastError(child));
        n--;
    } else {
        return;
    }
    if (i % 16 == 2) {
        CHECK_OK(me, cinchCommShrink(child, NULL, 0, &grandchild, NULL, CINCH_SHRINK_ABORT));
        CHECK(me, adds_up(grandchild, 1, n));
        CHECK_OK(me, cinchCommDestroy(grandchild));
    } else if (i % 5 == 0) {
        CHECK(me, adds_up(child, 1, n));
    }
    if (i % 32 == 9) { /* only when all have seen theirs made: an abort reaches them at once */
        CHECK(me, wait_for_all(&((board *)me->shared)->point[4], (i / 32 + 1) * (RANKS - 1)));
        CHECK_OK(me, cinchCommAbort(child));
    } else {
        CHECK_OK(me, cinchCommDestroy(child));
    }
}

/* What the program holds, when nothing moves any more. */
static bool settles_to(const board *b, char *why, size_t room) {
    size_t bytes = 0;
    if (!holdings_settle(&b->before, true, why, room)) return false;
    for (int i = 0; i < 300; i++, sleep_ms(10)) {
        bytes = mallinfo2().uordblks;
        if (bytes <= b->bytes + SLACK) return true; /* less than ten a round */
    }
    snprintf(why, room, "bytes in use: %zu -> %zu", b->bytes, bytes);
    return false;
}

static void generations(seat *me) {
    board *b = me->shared;
    char why[200];
    for (int i = 0; i < WARM + ROUNDS; i++) {
        if (i == WARM) {
            CHECK(me, wait_for_all(&b->point[0], RANKS));
            sleep_ms(300);
            if (me->rank == 0) {
                b->before = hold_now();
                b->before.maps += 16; /* of the allocator, which a program cannot order about */
                b->bytes = mallinfo2().uordblks;
            }
            CHECK(me, wait_for_all(&b->point[1], RANKS));
        }
        one_generation(me, i);
        if (me->failure[0]) return;
    }
    CHECK(me, wait_for_all(&b->point[2], RANKS));
    if (me->rank == 0) CHECK(me, settles_to(b, why, sizeof why), "%s", why);
    CHECK(me, wait_for_all(&b->point[3], RANKS));
    CHECK(me, adds_up(me->comm, 1, RANKS));
}

static void run(const char *env) {
    board *b = calloc(1, sizeof *b);
    ranks_run(&(ranks_case){.nranks = RANKS,
                            .env = env,
                            .body = generations,
                            .shared = b,
                            .logs = "?CINCH_SHRINK_ABORT|?cinchCommAbort|?aborted"});
    free(b);
}

START_TEST(generations_over_shm) {
    run(NULL);
}
END_TEST

START_TEST(generations_over_tcp) {
    run("CINCH_TRANSPORT=tcp CINCH_HOSTID=here");
}
END_TEST

/* Begins again with an allocator that keeps nothing for threads. */
static void without_caches(char **argv) {
    if (getenv("GLIBC_TUNABLES")) return;
    setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1", 1);
    execv("/proc/self/exe", argv);
    perror("execv");
}

int main(int argc, char **argv) {
    (void)argc;
    without_caches(argv);
    const TTest *const tests[] = {generations_over_shm, generations_over_tcp};
    return run_tests("generations", tests, sizeof tests / sizeof *tests, 600);
}

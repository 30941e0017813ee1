/* SPDX-License-Identifier: Apache-2.0 */
/* All kinds of calls for a long time, with codecs that change, splits, shrinks, groups, streams and
 * communicators that come and go: every result is right, and memory, descriptors and threads stay
 * what they were.
 *
 *   test_soak [--epochs N | --seconds N] [--seed S] [--transport shm|tcp] [--verbose 1]
 *
 * Memory: whenever all communicators are gone, what this process has allocated and what it maps of
 * the library's memory are as they were when that was so for the second time. Those are bytes in
 * use, not resident ones: a sanitizer keeps what is freed for a while. In a long run without one,
 * the most that was resident in the last tenth of the time is also compared with the most in the
 * first fifth, which shows what piles up while a communicator lives. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/chaos/mixed.h"
#include "tests/chaos/stage.h"
#include "tests/harness.h"

enum { N = 4, EPOCH = 60, LONG_MS = 60000 };
/* The C library counts as used what it keeps for a thread, up to 7 chunks of each of 64 sizes; a
 * sanitizer counts exactly. What is resident settles slowly, as a heap's fragments do. */
enum { SLACK_BYTES = 128 << 10, SLACK_SANITIZED = 4 << 10, SLACK_RESIDENT_KIB = 8192 };

typedef struct rank_state {
    char failure[500];
    uint64_t steps, epochs, communicators, compressed;
    long first_kib, last_kib; /* most resident, in the first fifth and the last tenth */
    stage_bytes first, last;  /* with no communicator there */
    uint64_t rests;           /* how often that was so */
} rank_state;

typedef struct scene {
    cinchUniqueId id;
    _Atomic int id_number; /* ids made so far */
    _Atomic bool failed;
    rank_state rank[N];
} scene;

static scene *s;
static uint64_t seed, milliseconds, epochs, life; /* life: a communicator's epochs */
static const char *transport;
static bool verbose;

#define FAIL(me, ...)                                                                              \
    do {                                                                                           \
        if (!(me)->failure[0]) snprintf((me)->failure, sizeof(me)->failure, __VA_ARGS__);          \
        atomic_store(&s->failed, true);                                                            \
    } while (0)

static long resident_kib(void) {
    char line[200];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmRSS: %ld", &kib) == 1) break;
    if (file) fclose(file);
    return kib;
}

/* What fails says so; false ends the run. */
static bool good(rank_state *me, const mixed *m, cinchResult_t result, const char *what) {
    if (m && m->wrong[0]) FAIL(me, "%s: %s", what, m->wrong);
    if (result != cinchSuccess)
        FAIL(me, "%s gave %d: %.300s", what, (int)result, cinchGetLastError(m ? m->comm : NULL));
    return result == cinchSuccess && !me->failure[0];
}

static bool steps(rank_state *me, mixed *m, uint64_t from, uint64_t count, const char *what) {
    for (uint64_t i = 0; i < count; i++) {
        if (!good(me, m, mixed_step(m, from + i), what)) return false;
        me->steps++;
        if (m->hash && i % 8 == 0 && !good(me, m, mixed_same(m, m->hash), "the same bits"))
            return false;
    }
    return true;
}

static bool use_codec(rank_state *me, mixed *m, uint64_t random) {
    static const char *const specs[] = {"none",           "int8",
                                        "int8:ef=1",      "bf16",
                                        "topk:ratio=0.1", "int8:block=64,round=stochastic,seed=5"};
    static const mixed_codec near[] = {MIXED_EXACT, MIXED_NEAR, MIXED_NEAR,
                                       MIXED_EXACT, MIXED_ANY,  MIXED_ANY};
    size_t which = random % (sizeof specs / sizeof *specs);
    cinchResult_t result = cinchCommSetCodec(m->comm, specs[which]);
    m->codec = near[which];
    return good(me, m, result, specs[which]);
}

/* A communicator out of this one, its steps, its end. */
static bool visit(rank_state *me, const mixed *m, cinchComm_t child, uint64_t random) {
    mixed c = *m;
    c.comm = child;
    c.seed = random;
    c.codec = MIXED_EXACT;
    cinchCommUserRank(child, &c.rank);
    cinchCommCount(child, &c.nranks);
    me->communicators++;
    bool fine = random % 2 ? use_codec(me, &c, random >> 8) : true;
    fine = fine && steps(me, &c, 0, 8, "in a part of the ranks");
    return good(me, NULL, cinchCommDestroy(child), "cinchCommDestroy") && fine;
}

static bool split(rank_state *me, const mixed *m, uint64_t random) {
    cinchComm_t child = NULL;
    int color = (int)((random >> (4 * m->rank)) % 3), key = (int)(random >> (16 + m->rank)) % 5;
    if (color == 2 && random % 2) color = CINCH_SPLIT_NOCOLOR;
    if (!good(me, NULL, cinchCommSplit(m->comm, color, key, &child, NULL), "cinchCommSplit"))
        return false;
    return child ? visit(me, m, child, random) : true;
}

static bool shrink(rank_state *me, const mixed *m, uint64_t random) {
    cinchComm_t child = NULL;
    int without = (int)(random % N);
    if (m->rank == without) return true;
    if (!good(me, NULL, cinchCommShrink(m->comm, &without, 1, &child, NULL, CINCH_SHRINK_DEFAULT),
              "cinchCommShrink"))
        return false;
    return visit(me, m, child, random);
}

static bool begin(rank_state *me, mixed *m, int number) {
    if (m->rank == 0) {
        if (!good(me, NULL, cinchGetUniqueId(&s->id), "cinchGetUniqueId")) return false;
        atomic_store(&s->id_number, number);
    }
    while (atomic_load(&s->id_number) < number && !atomic_load(&s->failed)) sleep_ms(1);
    m->codec = MIXED_EXACT;
    me->communicators++;
    return good(me, NULL, cinchCommInitRank(&m->comm, N, s->id, m->rank), "cinchCommInitRank");
}

static void note_resident(rank_state *me, uint64_t since_ms) {
    if (milliseconds < LONG_MS) return;
    long kib = resident_kib();
    uint64_t part = (now_ms() - since_ms) * 10 / milliseconds;
    if (part < 2 && kib > me->first_kib) me->first_kib = kib;
    if (part >= 9 && kib > me->last_kib) me->last_kib = kib;
}

static bool grew(const rank_state *me) {
    size_t slack = me->last.sanitized ? SLACK_SANITIZED : SLACK_BYTES;
    return me->last.heap > me->first.heap + slack || me->last.mapped > me->first.mapped;
}

/* No communicator is there: all is as it was. What ends beside this thread gets its time. */
static bool at_rest(rank_state *me, const holdings *before) {
    char why[200];
    if (!holdings_settle(before, false, why, sizeof why)) FAIL(me, "%s", why);
    me->last = stage_bytes_now();
    if (++me->rests <= 2) me->first = me->last;
    for (int i = 0; i < 100 && grew(me); i++, sleep_ms(10)) me->last = stage_bytes_now();
    if (grew(me))
        FAIL(me, "with no communicator left: %zu bytes allocated, then %zu; %zu mapped, then %zu",
             me->first.heap, me->last.heap, me->first.mapped, me->last.mapped);
    return !me->failure[0];
}

/* Rank 0's clock says when it is over, or the number of epochs. */
static bool goes_on(rank_state *me, mixed *m, uint64_t since_ms, uint64_t next, bool *more) {
    bool in_time = milliseconds ? now_ms() - since_ms < milliseconds : next < epochs;
    int32_t yes = in_time && !atomic_load(&s->failed);
    cinchResult_t result = cinchBroadcast(&yes, &yes, 1, cinchInt32, 0, m->comm, NULL);
    *more = yes;
    return good(me, m, result, "asking whether to go on");
}

static bool epoch(rank_state *me, mixed *m, uint64_t number, holdings *rest) {
    uint64_t state = seed + number * 0x9e3779b97f4a7c15u;
    if (!use_codec(me, m, random64(&state))) return false;
    if (!steps(me, m, number * EPOCH, EPOCH, "all ranks")) return false;
    if (random64(&state) % 2 && !split(me, m, random64(&state))) return false;
    if (random64(&state) % 2 && !shrink(me, m, random64(&state))) return false;
    cinchStats_t stats = {.size = sizeof stats};
    if (cinchCommGetStats(m->comm, &stats) == cinchSuccess) me->compressed = stats.compressed_calls;
    if (number % life == life / 2 || number % life == life - 1) {
        char why[200];
        bool was = rest->fds;
        if (was && !holdings_settle(rest, false, why, sizeof why)) FAIL(me, "%s", why);
        for (int i = 0; i < 10 && !was; i++, sleep_ms(10)) { /* what ends, has ended */
            holdings now = hold_now();
            if (!rest->fds || now.fds + now.threads <= rest->fds + rest->threads) *rest = now;
        }
    }
    me->epochs++;
    return !me->failure[0];
}

/* The memory of the last 64 destroyed communicators is kept (coll/handles.c): that many come and go
 * before anything is counted. */
static bool use_up_kept(rank_state *me) {
    bool fine = true;
    for (int i = 0; i < 8 && fine; i++) {
        cinchComm_t alone[8] = {NULL};
        fine = good(me, NULL, cinchCommInitAll(alone, 8, NULL), "cinchCommInitAll");
        for (int k = 0; k < 8; k++)
            if (alone[k]) cinchCommDestroy(alone[k]);
    }
    return fine;
}

static void run_rank(int rank) {
    rank_state *me = &s->rank[rank];
    mixed m = {.rank = rank, .nranks = N, .seed = seed, .most_bits = 14};
    uint64_t since = now_ms();
    holdings rest = {0};
    bool more = true;
    void *heap = NULL;
    clean_environment();
    setenv("CINCH_TRANSPORT", transport, 1);
    setenv("CINCH_CODEC_MIN_BYTES", "512", 1);
    setenv("CINCH_EF_MAX_BYTES", "8M", 1);
    setenv("CINCH_TIMEOUT_MS", "60000", 1);
    setenv("CINCH_INIT_TIMEOUT_MS", "60000", 1);
    setenv("CINCH_DEBUG", "none", 1);
    cinchResetDebugInit();
    if (cinchHostAlloc(&heap, 1) == cinchSuccess) cinchHostFree(heap); /* kept for good */
    bool fine = mixed_open(&m) == 0 && use_up_kept(me);
    holdings before = hold_now();
    fine = fine && begin(me, &m, 1);
    for (uint64_t number = 0; fine && more; number++) {
        fine = epoch(me, &m, number, &rest) && goes_on(me, &m, since, number + 1, &more);
        note_resident(me, since);
        if (!fine || (more && number % life != life - 1)) continue;
        /* All anew, with a meeting point of its own. */
        fine = good(me, NULL, cinchCommDestroy(m.comm), "cinchCommDestroy");
        m.comm = NULL;
        rest = (holdings){0};
        fine = fine && at_rest(me, &before);
        fine = fine && (!more || begin(me, &m, 2 + (int)(number / life)));
    }
    if (m.comm) cinchCommAbort(m.comm);
    mixed_close(&m);
    _exit(0);
}

static int judge(int rank) {
    rank_state *me = &s->rank[rank];
    bool resident = !me->first.sanitized && me->last_kib > me->first_kib + SLACK_RESIDENT_KIB;
    if (resident) FAIL(me, "resident memory grew");
    if (!me->failure[0] && me->rests < 3) FAIL(me, "it was at rest %d times", (int)me->rests);
    if (me->failure[0] || verbose || rank == 0)
        printf("%srank %d: %llu steps, %llu epochs, %llu communicators; %llu times without one, "
               "bytes allocated then %zu to %zu, mapped %zu to %zu; KiB resident %ld to %ld; %s\n",
               me->failure[0] ? "FAILED: " : "", rank, (unsigned long long)me->steps,
               (unsigned long long)me->epochs, (unsigned long long)me->communicators,
               (unsigned long long)me->rests, me->first.heap, me->last.heap, me->first.mapped,
               me->last.mapped, me->first_kib, me->last_kib, me->failure);
    return me->failure[0] != '\0';
}

int main(int argc, char **argv) {
    pid_t pid[N];
    int bad = 0;
    seed = stage_number(argc, argv, "seed", now_ms() * 2654435761u);
    milliseconds = stage_number(argc, argv, "seconds", 0) * 1000;
    epochs = stage_number(argc, argv, "epochs", 48);
    life = milliseconds >= LONG_MS ? 32 : 8;
    transport = stage_option(argc, argv, "transport", "shm");
    verbose = stage_number(argc, argv, "verbose", 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    stage_isolate();
    s = stage_memory(sizeof *s);
    printf("seed %llu, %llu %s over %s\n", (unsigned long long)seed,
           (unsigned long long)(milliseconds ? milliseconds / 1000 : epochs),
           milliseconds ? "s" : "epochs", transport);
    for (int r = 0; r < N; r++)
        if ((pid[r] = stage_fork()) == 0) run_rank(r);
    uint64_t deadline = now_ms() + milliseconds + 180000;
    for (int r = 0; r < N; r++) {
        int status = 0;
        if (!stage_await(pid[r], deadline, &status)) {
            printf("FAILED: rank %d hangs after %llu steps\n", r,
                   (unsigned long long)s->rank[r].steps);
            stage_tell_threads(pid[r]);
            kill(pid[r], SIGKILL);
            waitpid(pid[r], &status, 0);
            bad++;
            continue;
        }
        if (status) printf("FAILED: rank %d ended with status %#x\n", r, (unsigned)status);
        bad += status != 0;
        bad += judge(r);
    }
    return bad ? 1 : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that are killed, that end, or that are stopped, at random moments: every other rank is told
 * which one it was, none hangs, nothing is left over, and those that are left go on without it.
 *
 *   test_deaths [--rounds N] [--seed S] [--round R] [--kinds kill,leave,exit,stop]
 *               [--phases work,init,split,shrink,destroy] [--transports shm,tcp] [--keepers 1]
 *               [--verbose 1]
 *
 * All that is random in a round follows from the seed and the round's number. */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/chaos/mixed.h"
#include "tests/chaos/stage.h"
#include "tests/harness.h"

enum { N = 4, AFTERWARDS = 100, INIT_MS = 2000, TIMEOUT_MS = 1000 };
enum { SLACK_MS = 6000, HANG_MS = 30000 }; /* this machine may be busy with other things */

typedef enum { KILL, LEAVE, EXIT, STOP, KINDS } kind;
typedef enum { WORK, INIT, SPLIT, SHRINK, DESTROY, PHASES } phase;
static const char *const kind_name[KINDS] = {"kill", "leave", "exit", "stop"};
static const char *const phase_name[PHASES] = {"work", "init", "split", "shrink", "destroy"};

/* What happens in a round. */
typedef struct plan {
    uint64_t seed;
    kind kind;
    phase phase;
    int victim, first; /* first: who dies before a shrink, or -1 */
    bool tcp, compressed, apart, renumbered, keeper;
    unsigned delay_us;
} plan;

/* What a rank tells. */
typedef struct note {
    _Atomic bool begun;
    _Atomic bool joined;       /* it was let in */
    _Atomic bool played;       /* it has destroyed what it had */
    _Atomic uint64_t heard_ms; /* of the victim's end */
    int code;
    char why[512];     /* the sentence */
    char failure[600]; /* what was not as it has to be */
    int steps;
} note;

typedef struct theatre {
    cinchUniqueId id;
    _Atomic bool id_ready, over;
    _Atomic int leave; /* 1 + the rank that shall end itself */
    _Atomic pid_t keeper;
    note rank[N];
} theatre;

static theatre *t;
static plan p;

/* ---- in a rank ---- */

#define FAIL(me, ...)                                                                              \
    do {                                                                                           \
        if (!(me)->failure[0]) snprintf((me)->failure, sizeof(me)->failure, __VA_ARGS__);          \
    } while (0)

/* Ends the process, from beside whatever its ranks do. */
static void *end_on_demand(void *arg) {
    int rank = (int)(intptr_t)arg;
    while (atomic_load(&t->leave) != 1 + rank) {
        struct timespec rest = {.tv_nsec = 20000};
        nanosleep(&rest, NULL);
    }
    if (p.kind == LEAVE) _exit(0);
    exit(0);
}

/* A child that has all that its parent has, as no handler of fork runs: it holds the sockets open
 * when its parent is dead. */
static void fork_keeper(void) {
    pid_t pid = (pid_t)syscall(SYS_fork);
    if (pid == 0)
        for (;;) pause();
    atomic_store(&t->keeper, pid);
}

static void hear(note *me, cinchResult_t result, cinchComm_t comm) {
    if (atomic_load(&me->heard_ms)) return;
    me->code = (int)result;
    snprintf(me->why, sizeof me->why, "%s", cinchGetLastError(comm));
    atomic_store(&me->heard_ms, now_ms());
}

static void begin(note *me) {
    atomic_store(&me->begun, true);
}

static mixed steps_on(cinchComm_t comm, uint64_t seed) {
    mixed m = {.comm = comm,
               .seed = seed,
               .codec = p.compressed ? MIXED_NEAR : MIXED_EXACT,
               .most_bits = 15};
    cinchCommUserRank(comm, &m.rank);
    cinchCommCount(comm, &m.nranks);
    return m;
}

/* Steps until one fails; its result. */
static cinchResult_t work(note *me, cinchComm_t comm, uint64_t most) {
    mixed m = steps_on(comm, p.seed);
    cinchResult_t result = mixed_open(&m) ? cinchSystemError : cinchSuccess;
    for (uint64_t i = 0; i < most && result == cinchSuccess && !m.wrong[0]; i++) {
        result = mixed_step(&m, i);
        me->steps += result == cinchSuccess;
        if (i == 1) begin(me);
    }
    if (m.wrong[0]) FAIL(me, "before anything happened: %s", m.wrong);
    if (result != cinchSuccess) hear(me, result, comm);
    mixed_close(&m);
    return result;
}

/* The others go on: all of the next calls are right. */
static void go_on(note *me, cinchComm_t comm, int nranks) {
    mixed m = steps_on(comm, p.seed + 1);
    if (m.nranks != nranks) FAIL(me, "the shrunk communicator has %d ranks", m.nranks);
    cinchResult_t result = mixed_open(&m) ? cinchSystemError : cinchSuccess;
    for (uint64_t i = 0; i < AFTERWARDS && result == cinchSuccess && !m.wrong[0]; i++)
        result = mixed_step(&m, i);
    if (result != cinchSuccess)
        FAIL(me, "a call after the shrink gave %d: %.300s", (int)result, cinchGetLastError(comm));
    if (m.wrong[0]) FAIL(me, "after the shrink: %s", m.wrong);
    mixed_close(&m);
}

static void shrink_and_go_on(note *me, cinchComm_t comm, int *without, int count) {
    cinchComm_t child = NULL;
    cinchResult_t result = cinchCommShrink(comm, without, count, &child, NULL, CINCH_SHRINK_ABORT);
    if (result != cinchSuccess) {
        FAIL(me, "cinchCommShrink gave %d: %.400s", (int)result, cinchGetLastError(NULL));
        return;
    }
    go_on(me, child, N - count);
    if (cinchCommDestroy(child) != cinchSuccess) FAIL(me, "the shrunk communicator stays");
}

/* Splits and splits again, until that or a call on what comes out fails. */
static void split(note *me, int rank, cinchComm_t comm) {
    cinchResult_t result = cinchSuccess;
    for (uint64_t i = 0; result == cinchSuccess && !me->failure[0]; i++) {
        cinchComm_t child = NULL;
        int color = p.renumbered ? rank % 2 : 0, key = p.renumbered ? -rank : rank;
        if (i == 1) begin(me);
        result = cinchCommSplit(comm, color, key, &child, NULL);
        if (result != cinchSuccess) {
            hear(me, result, NULL);
            break;
        }
        result = work(me, child, 2);
        cinchCommDestroy(child);
    }
}

static bool survives(int rank) {
    return rank != p.victim && rank != p.first;
}

/* The first death is not of interest; the second comes while the others shrink. */
static void shrink(note *me, cinchComm_t comm) {
    cinchComm_t child = NULL;
    work(me, comm, UINT64_MAX);
    atomic_store(&me->heard_ms, 0);
    begin(me);
    cinchResult_t result = cinchCommShrink(comm, &p.first, 1, &child, NULL, CINCH_SHRINK_ABORT);
    if (result != cinchSuccess) {
        hear(me, result, NULL);
        return;
    }
    atomic_store(&me->joined, true);
    work(me, child, UINT64_MAX);
    cinchCommDestroy(child);
}

static void play(note *me, int rank) {
    cinchComm_t comm = NULL;
    if (p.phase == INIT) { /* they come one after the other */
        uint64_t state = p.seed + (uint64_t)rank;
        begin(me);
        sleep_ms((unsigned)(random64(&state) % 8));
    }
    cinchResult_t result = cinchCommInitRank(&comm, N, t->id, rank);
    atomic_store(&me->joined, result == cinchSuccess);
    if (result != cinchSuccess) {
        hear(me, result, NULL);
        if (p.phase != INIT) FAIL(me, "init gave %d: %.400s", (int)result, cinchGetLastError(NULL));
        return;
    }
    int without[2] = {p.victim, p.first};
    if (rank == p.victim && p.keeper) fork_keeper();
    if (p.phase == SPLIT)
        split(me, rank, comm);
    else if (p.phase == SHRINK)
        shrink(me, comm);
    else
        work(me, comm, p.phase == DESTROY ? 3 : UINT64_MAX);
    bool goes_on = p.phase == WORK || p.phase == SPLIT || p.phase == SHRINK;
    if (goes_on && survives(rank) && !me->failure[0])
        shrink_and_go_on(me, comm, without, p.phase == SHRINK ? 2 : 1);
    result = cinchCommDestroy(comm);
    if (result != cinchSuccess) FAIL(me, "cinchCommDestroy gave %d", (int)result);
}

static void set_up(int rank) {
    clean_environment();
    char host[20];
    setenv("CINCH_TRANSPORT", p.tcp ? "tcp" : "shm", 1);
    setenv("CINCH_CODEC_INTRA", p.compressed ? "int8:ef=1" : "none", 1);
    setenv("CINCH_CODEC_INTER", p.compressed ? "int8" : "none", 1);
    setenv("CINCH_CODEC_MIN_BYTES", "1024", 1);
    snprintf(host, sizeof host, "%d", INIT_MS);
    setenv("CINCH_INIT_TIMEOUT_MS", host, 1);
    snprintf(host, sizeof host, "%d", p.kind == STOP ? TIMEOUT_MS : 30000);
    setenv("CINCH_TIMEOUT_MS", host, 1);
    setenv("CINCH_DEBUG", getenv("CHAOS_DEBUG") ? getenv("CHAOS_DEBUG") : "none", 1);
    snprintf(host, sizeof host, "host-%d", rank / 2);
    if (p.tcp && p.apart) setenv("CINCH_HOSTID", host, 1); /* two hosts of two */
    cinchResetDebugInit();
}

static void run_rank(int rank) {
    note *me = &t->rank[rank];
    char why[200];
    void *heap = NULL;
    pthread_t thread;
    set_up(rank);
    if (cinchHostAlloc(&heap, 1) == cinchSuccess) cinchHostFree(heap); /* kept for good */
    bool ends = rank == p.victim && (p.kind == LEAVE || p.kind == EXIT);
    if (ends) pthread_create(&thread, NULL, end_on_demand, (void *)(intptr_t)rank);
    holdings before = hold_now();
    if (rank == 0 && !p.apart) {
        if (cinchGetUniqueId(&t->id) != cinchSuccess) FAIL(me, "no id");
        atomic_store(&t->id_ready, true);
    }
    while (!atomic_load(&t->id_ready)) sleep_ms(1);
    play(me, rank);
    begin(me);
    atomic_store(&me->played, true);
    if (!holdings_settle(&before, false, why, sizeof why)) FAIL(me, "%s", why);
    if (ends) /* it had nothing to die of */
        while (!atomic_load(&t->over)) sleep_ms(1);
    _exit(0);
}

/* ---- the round ---- */

static bool fork_ranks(pid_t pid[N + 1]) {
    for (int r = 0; r <= N; r++) {
        pid[r] = -1;
        if (r == N && !p.apart) break;
        pid[r] = stage_fork();
        if (pid[r] == 0 && r < N) run_rank(r);
        if (pid[r] == 0) { /* the id's process, which is no rank */
            set_up(0);
            if (cinchGetUniqueId(&t->id) == cinchSuccess) atomic_store(&t->id_ready, true);
            while (!atomic_load(&t->over)) sleep_ms(1);
            _exit(0);
        }
        if (pid[r] < 0) return false;
    }
    return true;
}

static bool await_begin(const pid_t *pid) {
    uint64_t deadline = now_ms() + HANG_MS;
    bool killed = p.first < 0;
    for (int r = 0; r < N; r++) {
        while (!atomic_load(&t->rank[r].begun) && (r != p.first || !killed)) {
            if (now_ms() > deadline) return false;
            sleep_ms(1);
        }
        if (r == N - 1 && !killed) { /* the first death of two; then all begin anew */
            killed = true;
            for (int q = 0; q < N; q++) atomic_store(&t->rank[q].begun, false);
            kill(pid[p.first], SIGKILL);
            r = -1;
        }
    }
    return true;
}

static void strike(pid_t victim) {
    struct timespec rest = {.tv_nsec = (long)p.delay_us * 1000};
    nanosleep(&rest, NULL);
    if (p.kind == KILL) kill(victim, SIGKILL);
    if (p.kind == STOP) kill(victim, SIGSTOP);
    if (p.kind == LEAVE || p.kind == EXIT) atomic_store(&t->leave, 1 + p.victim);
}

/* The victim was let in before it ended: who died earlier is known by the init timeout only. */
static bool sentence_names(const char *why) {
    if (p.phase != SHRINK && !(p.phase == SPLIT && p.renumbered)) return stage_names(why, p.victim);
    /* The rank in the communicator that it was about, the new one or the old. */
    int renumbered = p.phase == SPLIT ? (p.victim % 2 ? (3 - p.victim) / 2 : (2 - p.victim) / 2)
                                      : p.victim - (p.victim > p.first);
    return stage_names(why, p.victim) || stage_names(why, renumbered);
}

static int worst_ms;

static bool judge_survivor(int rank, uint64_t struck_ms, char *why, size_t room) {
    const note *me = &t->rank[rank];
    if (me->failure[0]) {
        snprintf(why, room, "rank %d: %.590s", rank, me->failure);
        return false;
    }
    uint64_t heard = atomic_load(&me->heard_ms);
    if (!heard) {
        if (p.phase == DESTROY) return true; /* it needed nobody any more */
        snprintf(why, room, "rank %d was told of nothing", rank);
        return false;
    }
    int late = heard > struck_ms ? (int)(heard - struck_ms) : 0;
    int most = SLACK_MS + (p.kind == STOP ? TIMEOUT_MS : 0);
    /* Who died before it joined is missed by the init timeout. */
    if (p.phase == INIT || p.phase == SPLIT || p.phase == SHRINK) most += INIT_MS;
    if (p.phase != INIT && p.phase != SHRINK && p.kind != STOP && late > worst_ms) worst_ms = late;
    if (me->code != cinchRemoteError || late > most || !sentence_names(me->why)) {
        snprintf(why, room, "rank %d was told after %d ms: %d \"%s\"", rank, late, me->code,
                 me->why);
        return false;
    }
    return true;
}

/* A rank that stands still before its goodbye has not left, and the meeting point waits for it: it
 * goes on when the others have destroyed theirs, before they count what they hold. */
static bool resume_last(pid_t victim, char *why, size_t room) {
    uint64_t deadline = now_ms() + HANG_MS;
    for (int r = 0; r < N; r++)
        while (survives(r) && !atomic_load(&t->rank[r].played)) {
            if (now_ms() > deadline) {
                snprintf(why, room, "rank %d does not get past a rank that is stopped", r);
                return false;
            }
            sleep_ms(1);
        }
    kill(victim, SIGCONT);
    return true;
}

/* Ends whoever is there still; false: somebody had to be ended. */
static bool await_survivors(pid_t *pid, char *why, size_t room) {
    uint64_t deadline = now_ms() + HANG_MS;
    bool good = true;
    for (int r = 0; r < N; r++) {
        int status = 0;
        if (!survives(r) || pid[r] < 0) continue;
        if (!stage_await(pid[r], deadline, &status)) {
            if (good) snprintf(why, room, "rank %d hangs (%d steps)", r, t->rank[r].steps);
            stage_tell_threads(pid[r]);
            good = false;
            continue;
        }
        pid[r] = -1;
        if (status && good) {
            snprintf(why, room, "rank %d ended with status %#x", r, (unsigned)status);
            good = false;
        }
    }
    return good;
}

/* A stopped rank goes on: it finds that it was given up, and ends well. */
static bool resume(pid_t *victim, char *why, size_t room) {
    int status = 0;
    kill(*victim, SIGCONT);
    if (!stage_await(*victim, now_ms() + HANG_MS, &status)) {
        snprintf(why, room, "the rank that was stopped hangs");
        stage_tell_threads(*victim);
        return false;
    }
    *victim = -1;
    const note *me = &t->rank[p.victim];
    if (!status && !me->failure[0]) return true;
    snprintf(why, room, "the rank that was stopped ended with status %#x: %.400s", (unsigned)status,
             me->failure);
    return false;
}

static void clear(pid_t *pid) {
    int status;
    for (int r = 0; r <= N; r++)
        if (pid[r] > 0) {
            kill(pid[r], SIGKILL);
            waitpid(pid[r], &status, 0);
        }
    pid_t keeper = atomic_load(&t->keeper);
    if (keeper <= 0) return;
    kill(keeper, SIGKILL); /* orphans are this process's */
    waitpid(keeper, &status, 0);
}

static bool run_round(char *why, size_t room) {
    pid_t pid[N + 1];
    char names[1000], before[1000];
    memset(t, 0, sizeof *t);
    stage_leftovers(before, sizeof before);
    bool good = fork_ranks(pid) && await_begin(pid);
    if (!good) snprintf(why, room, "the round did not begin");
    for (int r = 0; r < N && !good; r++)
        printf("    rank %d: %s %s\n", r, t->rank[r].failure, t->rank[r].why);
    if (good) strike(pid[p.victim]);
    uint64_t struck_ms = now_ms();
    if (good && p.kind == STOP && p.phase == DESTROY) good = resume_last(pid[p.victim], why, room);
    good = good && await_survivors(pid, why, room);
    for (int r = 0; r < N && good; r++)
        good = !survives(r) || judge_survivor(r, struck_ms, why, room);
    if (good && p.kind == STOP) good = resume(&pid[p.victim], why, room);
    atomic_store(&t->over, true);
    clear(pid);
    stage_leftovers(names, sizeof names);
    if (good && strcmp(names, before) != 0) {
        snprintf(why, room, "left over:%s", names);
        good = false;
    }
    return good;
}

/* ---- all rounds ---- */

static int choose(const char *list, const char *const *names, int count, uint64_t random) {
    int allowed[8], many = 0;
    for (int i = 0; i < count; i++)
        if (strstr(list, names[i])) allowed[many++] = i;
    return many ? allowed[random % (uint64_t)many] : 0;
}

static void make_plan(uint64_t seed, const char *kinds, const char *phases, const char *transports,
                      bool keepers) {
    static const char *const transport_name[] = {"shm", "tcp"};
    static const unsigned most_us[PHASES] = {30000, 15000, 30000, 15000, 3000};
    uint64_t s = seed;
    p = (plan){.seed = seed, .first = -1};
    p.kind = (kind)choose(kinds, kind_name, KINDS, random64(&s));
    p.phase = (phase)choose(phases, phase_name, PHASES, random64(&s));
    p.tcp = choose(transports, transport_name, 2, random64(&s)) == 1;
    p.victim = (int)(random64(&s) % N);
    if (p.phase == SHRINK) p.first = (int)((uint64_t)(p.victim + 1) + random64(&s) % (N - 1)) % N;
    p.compressed = random64(&s) % 2;
    p.apart = random64(&s) % 3 == 0;
    p.renumbered = random64(&s) % 2;
    p.keeper = random64(&s) % 4 == 0 && keepers;
    p.delay_us = (unsigned)(random64(&s) % most_us[p.phase]);
}

int main(int argc, char **argv) {
    uint64_t seed = stage_number(argc, argv, "seed", now_ms() * 2654435761u);
    uint64_t rounds = stage_number(argc, argv, "rounds", 30);
    uint64_t only = stage_number(argc, argv, "round", UINT64_MAX);
    uint64_t most_ms = stage_number(argc, argv, "seconds", 1u << 20) * 1000;
    const char *kinds = stage_option(argc, argv, "kinds", "kill,leave,exit");
    const char *phases = stage_option(argc, argv, "phases", "work,init");
    const char *transports = stage_option(argc, argv, "transports", "shm,tcp");
    bool keepers = stage_number(argc, argv, "keepers", 0);
    bool verbose = stage_number(argc, argv, "verbose", 0);
    uint64_t start_ms = now_ms(), run = 0, bad = 0;
    char why[1300] = "";
    setvbuf(stdout, NULL, _IOLBF, 0);
    bool alone = stage_isolate();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    t = stage_memory(sizeof *t);
    printf("seed %llu%s\n", (unsigned long long)seed,
           alone ? "" : "; without namespaces of its own");
    for (uint64_t round = only == UINT64_MAX ? 0 : only; round < rounds || round == only; round++) {
        if (only != UINT64_MAX && round > only) break;
        if (now_ms() - start_ms > most_ms) break;
        uint64_t state = seed + round * 0x9e3779b97f4a7c15u;
        make_plan(random64(&state), kinds, phases, transports, keepers);
        uint64_t began = now_ms();
        bool good = run_round(why, sizeof why);
        run++;
        bad += !good;
        if (!good || verbose)
            printf("%s round %llu: %s rank %d in %s after %u us over %s%s%s%s%s%s, %d ms: %s\n",
                   good ? "ok" : "FAILED", (unsigned long long)round, kind_name[p.kind], p.victim,
                   phase_name[p.phase], p.delay_us, p.tcp ? "tcp" : "shm",
                   p.compressed ? ", int8" : "", p.apart ? ", id from elsewhere" : "",
                   p.renumbered ? ", renumbered" : "", p.keeper ? ", child" : "",
                   p.first >= 0 ? ", second death" : "", (int)(now_ms() - began),
                   good ? t->rank[(p.victim + 1) % N].why : why);
    }
    printf("%llu rounds, %llu failed; told after at most %d ms in work, split and destroy\n",
           (unsigned long long)run, (unsigned long long)bad, worst_ms);
    return bad ? 1 : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks as threads or processes, and what they leave behind. */
#include "tests/harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#endif

extern char **environ;

/* What the ranks of a case share. */
typedef struct stage {
    seat rank[MOST_RANKS];
    cinchUniqueId id;
    _Atomic int id_ready, id_over;
    _Atomic int failures; /* the first one is the one to tell */
    int first_failed;
} stage;

static stage *the_stage;
static const ranks_case *running;
static char log_path[256];

void sleep_ms(unsigned ms) {
    struct timespec rest = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&rest, NULL);
}

uint64_t now_ms(void) {
    return cinch_now_ns() / 1000000;
}

uint64_t random64(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t hash_bytes(uint64_t seed, const void *data, size_t bytes) {
    const unsigned char *at = data;
    uint64_t hash = seed ^ 14695981039346656037u;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ at[i]) * 1099511628211u;
    return hash;
}

void *shared_memory(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(at, MAP_FAILED);
    return at;
}

bool wait_for_all(meeting_point *point, int nranks) {
    atomic_fetch_add(&point->arrived, 1);
    for (uint64_t start = now_ms(); now_ms() - start < 20000; sleep_ms(1))
        if (atomic_load(&point->arrived) >= nranks) return true;
    return false;
}

/* ---- environment and log ---- */

void clean_environment(void) {
    char name[128];
    for (char **e = environ; *e;) {
        size_t length = strcspn(*e, "=");
        if (strncmp(*e, "CINCH_", 6) != 0 || length >= sizeof name) {
            e++;
            continue;
        }
        memcpy(name, *e, length);
        name[length] = '\0';
        unsetenv(name); /* moves the rest down */
    }
    if (log_path[0]) setenv("CINCH_DEBUG_FILE", log_path, 1);
}

void set_environment(const char *env) {
    char copy[4096];
    char *rest;
    snprintf(copy, sizeof copy, "%s", env ? env : "");
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *value = strchr(word, '=');
        *value = '\0';
        setenv(word, value + 1, 1);
    }
}

char *read_log(void) {
    enum { ROOM = 1 << 20 };
    char *text = calloc(1, ROOM);
    int fd = open(log_path, O_RDONLY | O_CLOEXEC);
    ck_assert(text && fd >= 0);
    size_t used = 0;
    for (ssize_t got; used < ROOM - 1 && (got = read(fd, text + used, ROOM - 1 - used)) > 0;)
        used += (size_t)got;
    close(fd);
    return text;
}

void empty_log(void) {
    ck_assert_int_eq(truncate(log_path, 0), 0);
}

/* The next part of a list by '|', or false. */
static bool next_part(const char **list, char *part, size_t room) {
    if (!**list) return false;
    size_t length = strcspn(*list, "|");
    snprintf(part, room, "%.*s", (int)length, *list);
    *list += length + ((*list)[length] == '|');
    return true;
}

/* Whether the line is of no concern or one of those in the list. */
static bool expected_line(const char *line, const char *list) {
    char part[256];
    if (!strstr(line, " warning: ") && !strstr(line, " error: ")) return true;
    while (next_part(&list, part, sizeof part))
        if (strstr(line, part[0] == '?' ? part + 1 : part)) return true;
    return false;
}

static void check_log(const ranks_case *c) {
    char part[256];
    const char *list = c->logs ? c->logs : "";
    if (strcmp(list, "*") == 0) return;
    char *text = read_log();
    for (const char *rest = list; next_part(&rest, part, sizeof part);)
        ck_assert_msg(part[0] == '?' || strstr(text, part), "the log has no \"%s\":\n%s", part,
                      text);
    char *rest;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        ck_assert_msg(expected_line(line, list), "n=%d %s: in the log: %s", c->nranks,
                      c->env ? c->env : "", line);
    free(text);
}

/* ---- what is left over ---- */

static int count_entries(const char *path) {
    DIR *dir = opendir(path);
    int count = -1; /* the one that looks */
    if (!dir) return 0;
    for (struct dirent *one; (one = readdir(dir));) count += one->d_name[0] != '.';
    closedir(dir);
    return count;
}

static int count_maps(void) {
    FILE *file = fopen("/proc/self/maps", "re");
    int lines = 0;
    if (!file) return 0;
    for (int c; (c = getc(file)) != EOF;) lines += c == '\n';
    fclose(file);
    return lines;
}

holdings hold_now(void) {
    return (holdings){count_entries("/proc/self/fd"), count_entries("/proc/self/task") + 1,
                      count_maps()};
}

bool holdings_settle(const holdings *before, bool maps, char *why, size_t room) {
    holdings now = *before;
    for (int i = 0; i < 800; i++, sleep_ms(10)) {
        now = hold_now();
#ifdef SANITIZED
        now.maps = before->maps;       /* shadow memory comes and goes, */
        now.threads = before->threads; /* and ThreadSanitizer starts threads of its own */
#endif
        if (now.fds == before->fds && now.threads == before->threads &&
            (!maps || now.maps <= before->maps))
            return true;
    }
    snprintf(why, room, "left over: descriptors %d -> %d, threads %d -> %d, mappings %d -> %d",
             before->fds, now.fds, before->threads, now.threads, before->maps, now.maps);
    return false;
}

/* ---- ranks ---- */

void rank_note(seat *me, const char *file, int line, const char *condition, const char *format,
               ...) {
    char more[300];
    va_list args;
    if (me->failure[0]) return;
    va_start(args, format);
    vsnprintf(more, sizeof more, format, args);
    va_end(args);
    const char *base = strrchr(file, '/');
    snprintf(me->failure, sizeof me->failure, "%s:%d: rank %d of %d: %.200s%s (last error: %.250s)",
             base ? base + 1 : file, line, me->rank, me->nranks, condition, more,
             cinchGetLastError(NULL));
    if (atomic_fetch_add(&the_stage->failures, 1) == 0) the_stage->first_failed = me->rank;
}

static void get_id(seat *me) {
    if (running->processes) {
        if (me->rank == 0 && !running->host_apart) {
            CHECK_OK(me, cinchGetUniqueId(&the_stage->id));
            atomic_store(&the_stage->id_ready, 1);
        }
        for (int i = 0; i < 20000 && !atomic_load(&the_stage->id_ready); i++) sleep_ms(1);
        CHECK(me, atomic_load(&the_stage->id_ready), "nobody made an id");
    }
    me->id = the_stage->id;
}

static void *run_rank(void *arg) {
    seat *me = arg;
    const ranks_case *c = running;
    cinch_log_rank(me->rank);
    if (!c->no_id) get_id(me);
    if (me->failure[0]) return NULL;
    if (!c->bare) {
        me->init = cinchCommInitRank(&me->comm, c->nranks, me->id, me->rank);
        if (me->init != cinchSuccess)
            snprintf(me->why, sizeof me->why, "%s", cinchGetLastError(NULL));
        if (me->init != cinchSuccess && !c->may_fail)
            rank_note(me, __FILE__, __LINE__, "init", " gave %d", (int)me->init);
    }
    if (!me->failure[0]) c->body(me);
    if (!me->comm || me->gone) return NULL;
    /* The others may wait for a rank whose check did not hold. */
    if (me->failure[0])
        cinchCommAbort(me->comm);
    else if (cinchCommDestroy(me->comm) != cinchSuccess)
        rank_note(me, __FILE__, __LINE__, "cinchCommDestroy", " failed");
    return NULL;
}

static void run_threads(const ranks_case *c) {
    pthread_t thread[MOST_RANKS];
    cinchResult_t result = c->no_id ? cinchSuccess : cinchGetUniqueId(&the_stage->id);
    ck_assert_msg(c->bare || result == cinchSuccess, "%s", cinchGetLastError(NULL));
    for (int i = 0; i < c->nranks; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, run_rank, &the_stage->rank[i]), 0);
    for (int i = 0; i < c->nranks; i++) pthread_join(thread[i], NULL);
}

/* What a process makes once and keeps: the heap, the log's descriptor. */
static void warm_up(void) {
    void *p = NULL;
    cinch_log_setup(CINCH_LOG_WARN, log_path);
    ck_assert_int_eq(cinchHostAlloc(&p, 1), cinchSuccess);
    ck_assert_int_eq(cinchHostFree(p), cinchSuccess);
}

static void run_child(seat *me) {
    char why[200];
    if (running->env_of) running->env_of(me);
    warm_up();
    holdings before = hold_now();
    run_rank(me);
    if (!me->failure[0] && !me->dies && !holdings_settle(&before, false, why, sizeof why))
        rank_note(me, __FILE__, __LINE__, "nothing is left over", " %s", why);
}

/* A process that makes the id and is no rank. */
static pid_t start_host(void) {
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid != 0) return pid;
    if (cinchGetUniqueId(&the_stage->id) == cinchSuccess) atomic_store(&the_stage->id_ready, 1);
    for (int i = 0; i < 60000 && !atomic_load(&the_stage->id_over); i++) sleep_ms(1);
    _exit(0);
}

/* A sanitizer's own locks do not survive a fork beside a thread that is at work: those of the ranks
 * before have to be gone. */
static void await_rest(int threads) {
#ifdef SANITIZED
    for (int i = 0; i < 100 && hold_now().threads > threads; i++) sleep_ms(5);
#else
    (void)threads;
#endif
}

static void run_processes(const ranks_case *c) {
    pid_t pid[MOST_RANKS];
    fflush(NULL);
    pid_t host = c->host_apart ? start_host() : -1;
    for (int i = 0; i < c->nranks; i++) {
        pid[i] = fork();
        ck_assert_int_ge(pid[i], 0);
        if (pid[i] == 0) {
            run_child(&the_stage->rank[i]);
            fflush(NULL);
            _exit(0);
        }
    }
    for (int i = 0; i < c->nranks; i++) {
        int status;
        ck_assert_int_eq(waitpid(pid[i], &status, 0), pid[i]);
        seat *r = &the_stage->rank[i];
        if (!r->dies && status != 0 && !r->failure[0])
            snprintf(r->failure, sizeof r->failure, "rank %d of %d ended with %s %d", i, c->nranks,
                     WIFSIGNALED(status) ? "signal" : "status",
                     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    atomic_store(&the_stage->id_over, 1);
    if (host > 0) ck_assert_int_eq(waitpid(host, NULL, 0), host);
}

void ranks_run(const ranks_case *c) {
    static int threads_at_rest; /* a sanitizer may have one of its own */
    char why[200];
    ck_assert_int_le(c->nranks, MOST_RANKS);
    if (!threads_at_rest) threads_at_rest = hold_now().threads;
    if (!the_stage) the_stage = shared_memory(sizeof *the_stage);
    memset(the_stage, 0, sizeof *the_stage);
    for (int i = 0; i < c->nranks; i++)
        the_stage->rank[i] = (seat){.rank = i, .nranks = c->nranks, .shared = c->shared};
    running = c;
    clean_environment();
    set_environment(c->env);
    empty_log();
    warm_up();
    holdings before = hold_now();
    if (c->processes) {
        await_rest(threads_at_rest);
        run_processes(c);
    } else {
        run_threads(c);
    }
    if (atomic_load(&the_stage->failures))
        ck_abort_msg("%s: %s", c->env ? c->env : "",
                     the_stage->rank[the_stage->first_failed].failure);
    for (int i = 0; i < c->nranks; i++)
        ck_assert_msg(!the_stage->rank[i].failure[0], "%s: %s", c->env ? c->env : "",
                      the_stage->rank[i].failure);
    check_log(c);
    ck_assert_msg(holdings_settle(&before, false, why, sizeof why), "n=%d %s: %s", c->nranks,
                  c->env ? c->env : "", why);
}

int run_tests(const char *name, const TTest *const *tests, int count, int timeout_s) {
    const char *dir = getenv("TMPDIR");
    snprintf(log_path, sizeof log_path, "%s/cinch-test-%s-%d.log", dir ? dir : "/tmp", name,
             (int)getpid());
    int fd = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        perror(log_path);
        return EXIT_FAILURE;
    }
    close(fd);
    clean_environment();
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, timeout_s);
    for (int i = 0; i < count; i++) tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    unlink(log_path);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

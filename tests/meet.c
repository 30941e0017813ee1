/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks at a rendezvous, as threads or as forked processes. */
#include "tests/meet.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static meet_rank *last_ranks;
static meet *running;

void meet_sleep(unsigned ms) {
    struct timespec rest = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&rest, NULL);
}

static int count_entries(const char *path) {
    DIR *dir = opendir(path);
    int count = 0;
    if (!dir) return -1;
    for (struct dirent *one; (one = readdir(dir));) count += one->d_name[0] != '.';
    closedir(dir);
    return count;
}

int meet_open_fds(void) {
    return count_entries("/proc/self/fd");
}

/* ThreadSanitizer starts threads of its own when it likes. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif
#ifdef __SANITIZE_THREAD__
/* Ranks that were forked beside a server's thread start threads of their own. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
    return "die_after_fork=0";
}
#endif

int meet_threads(void) {
#ifdef __SANITIZE_THREAD__
    return MEET_THREADS_UNKNOWN;
#else
    return count_entries("/proc/self/task");
#endif
}

bool meet_settles(int fds, int threads) {
    for (int i = 0; i < 800; i++, meet_sleep(10))
        if (meet_open_fds() == fds && meet_threads() == threads) return true;
    return false;
}

/* Below the ports that the kernel gives to connections, any of which may come in between. */
int meet_free_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    for (int tries = 0; tries < 1000; tries++) {
        uint16_t random;
        ck_assert_int_eq(cinch_random(&random, sizeof random), cinchSuccess);
        int port = 15000 + random % 17000, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        address.sin_port = htons((uint16_t)port);
        int busy = bind(fd, (struct sockaddr *)&address, sizeof address);
        close(fd);
        if (!busy) return port;
    }
    ck_abort_msg("no free port");
    return 0;
}

const char *meet_secret(void) {
    static char text[34];
    uint8_t bytes[16];
    ck_assert_int_eq(cinch_random(bytes, sizeof bytes), cinchSuccess);
    text[0] = '#';
    for (int i = 0; i < 16; i++) snprintf(text + 1 + 2 * i, 3, "%02x", bytes[i]);
    return text;
}

void meet_file(const char *path, char file[300]) {
    unsigned index = cinch_meeting_next_index();
    if (index)
        snprintf(file, 300, "%s.%u", path, index);
    else
        snprintf(file, 300, "%s", path);
}

void *meet_shared(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(at, MAP_FAILED);
    return at;
}

void meet_note(meet_rank *me, const char *file, int line, const char *condition) {
    if (!me->failure[0])
        snprintf(me->failure, sizeof me->failure, "%.100s:%d: rank %d: %.150s (%.200s)", file, line,
                 me->rank, condition, cinch_last_error());
}

void meet_set(meet_rank *me, cinch_setting_index index, char **field, const char *text) {
    free(*field);
    free(me->settings.value[index]);
    *field = strdup(text);
    me->settings.value[index] = strdup(text);
}

uint64_t meet_await_failure(meet_rank *me, unsigned ms) {
    uint64_t start = cinch_now_ns();
    while (cinch_now_ns() - start < ms * MS) {
        if (cinch_rendezvous_check(me->seat) != cinchSuccess) return cinch_now_ns() - start;
        meet_sleep(2);
    }
    return UINT64_MAX;
}

static void *run_rank(void *argument) {
    meet_rank *me = argument;
    const meet *m = running;
    char why[CINCH_ERROR_TEXT];
    cinch_settings_load(&me->settings, why);
    me->settings.init_timeout_ms = m->timeout_ms ? m->timeout_ms : 20000;
    me->calls = 1;
    if (m->comm_id) meet_set(me, CINCH_SET_comm_id, &me->settings.comm_id, m->comm_id);
    if (m->prepare) m->prepare(me);
    me->joined = cinchSuccess;
    /* Calls count per process: threads are given theirs. */
    if (m->comm_id && m->processes)
        for (int call = 0; call < me->calls && me->joined == cinchSuccess; call++)
            me->joined = cinch_rendezvous_id(&me->settings, &me->id);
    uint64_t start = cinch_now_ns();
    if (me->joined == cinchSuccess)
        me->joined = cinch_rendezvous_join(&me->settings, &me->id, me->rank, me->nranks,
                                           me->refusal[0] ? me->refusal : NULL, &me->seat);
    me->took_ns = cinch_now_ns() - start;
    snprintf(me->why, sizeof me->why, "%s", me->joined == cinchSuccess ? "" : cinch_last_error());
    if (me->joined == cinchSuccess && m->body) m->body(me);
    if (me->joined == cinchSuccess && !me->stay) cinch_rendezvous_leave(me->seat);
    cinch_settings_free(&me->settings);
    return NULL;
}

/* An id that every thread of this process can use: made once. */
static void make_id(const meet *m, meet_rank *ranks) {
    cinch_settings settings;
    cinchUniqueId id;
    char why[CINCH_ERROR_TEXT];
    cinch_settings_load(&settings, why);
    settings.init_timeout_ms = m->timeout_ms ? m->timeout_ms : 20000;
    if (m->comm_id) {
        free(settings.comm_id);
        settings.comm_id = strdup(m->comm_id);
    }
    cinchResult_t result = cinch_rendezvous_id(&settings, &id);
    cinch_settings_free(&settings);
    ck_assert_msg(result == cinchSuccess, "%s", cinch_last_error());
    for (int i = 0; i < m->nranks; i++) ranks[i].id = id;
}

static void run_threads(meet *m) {
    pthread_t threads[MEET_MAX];
    if (m->comm_id) make_id(m, m->ranks);
    for (int i = 0; i < m->nranks; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_rank, &m->ranks[i]), 0);
    for (int i = 0; i < m->nranks; i++) pthread_join(threads[i], NULL);
}

static void run_processes(meet *m) {
    fflush(NULL);
    /* The sanitizers' own locks do not survive a fork beside a thread that is at work: the server's
     * has come to rest, and gets no work before the last fork. */
    static _Atomic int *gate;
    if (!gate) gate = meet_shared(sizeof *gate);
    *gate = 0;
    meet_sleep(meet_threads() == 1 ? 0 : 10);
    for (int i = 0; i < m->nranks; i++) {
        m->pids[i] = fork();
        ck_assert_int_ge(m->pids[i], 0);
        if (m->pids[i] == 0) {
            while (!*gate) meet_sleep(1);
            int fds = meet_open_fds(), threads = meet_threads();
            run_rank(&m->ranks[i]);
            if (!m->ranks[i].stay && !meet_settles(fds, threads))
                meet_note(&m->ranks[i], __FILE__, __LINE__, "nothing is left over");
            fflush(NULL);
            _exit(0);
        }
    }
    *gate = 1;
    for (int i = 0; i < m->nranks; i++) {
        int status;
        ck_assert_int_eq(waitpid(m->pids[i], &status, 0), m->pids[i]);
        m->ranks[i].exit_signal = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    }
}

void meet_run(meet *m) {
    int fds = meet_open_fds(), threads = meet_threads();
    ck_assert_int_le(m->nranks, MEET_MAX);
    if (!last_ranks) last_ranks = meet_shared(MEET_MAX * sizeof *last_ranks);
    memset(last_ranks, 0, MEET_MAX * sizeof *last_ranks);
    m->ranks = last_ranks;
    running = m;
    for (int i = 0; i < m->nranks; i++) {
        m->ranks[i].index = m->ranks[i].rank = i;
        m->ranks[i].nranks = m->nranks;
    }
    cinch_rendezvous_tune.hide = m->hide;
    if (!m->comm_id) make_id(m, m->ranks);
    if (m->processes)
        run_processes(m);
    else
        run_threads(m);
    cinch_rendezvous_tune.hide = 0;
    for (int i = 0; i < m->nranks; i++)
        ck_assert_msg(!m->ranks[i].failure[0], "n=%d: %s", m->nranks, m->ranks[i].failure);
    ck_assert_msg(meet_settles(fds, threads),
                  "n=%d: %d descriptors before, %d after; %d threads "
                  "before, %d after",
                  m->nranks, fds, meet_open_fds(), threads, meet_threads());
}

void meet_all_joined(const meet *m) {
    for (int i = 0; i < m->nranks; i++) {
        ck_assert_msg(m->ranks[i].joined == cinchSuccess, "rank %d of %d: %s", i, m->nranks,
                      m->ranks[i].why);
        ck_assert_int_eq(m->ranks[i].exit_signal, 0);
    }
}

void meet_all_failed(const meet *m, cinchResult_t code, const char *sentence) {
    for (int i = 0; i < m->nranks; i++) {
        ck_assert_msg(m->ranks[i].joined == code, "rank %d: %d \"%s\"", i, m->ranks[i].joined,
                      m->ranks[i].why);
        ck_assert_msg(strstr(m->ranks[i].why, sentence) != NULL, "rank %d: \"%s\"", i,
                      m->ranks[i].why);
    }
}

int meet_main(Suite *suite) {
    setenv("CINCH_DEBUG", "none", 0);
    cinch_rendezvous_tune.linger_ms = 100;
    cinch_rendezvous_tune.settle_ms = 100;
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

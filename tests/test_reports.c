/* SPDX-License-Identifier: Apache-2.0 */
/* Reports of ranks: made in situations with a known culprit, merged by `cinch info --report`, which
 * must name that one and nobody else; and files that anybody could have put there. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "perf/info_reports.h"
#include "tests/family.h"
#include "tests/run_program.h"

/* The thread sanitizer's runtime holds signals back until a thread calls into it, and has a thread
 * of its own: what goes by SIGUSR1 and by numbers of threads is tested without it. */
#if defined(__SANITIZE_THREAD__)
#define SIGNALS_COME 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SIGNALS_COME 0
#endif
#endif
#ifndef SIGNALS_COME
#define SIGNALS_COME 1
#endif

enum { RANKS = 4, VICTIM = 2 };
static char folder[64];
static program output;

static void make_folder(void) {
    snprintf(folder, sizeof folder, "/tmp/cinch-reports-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    clean_environment();
    setenv("CINCH_DEBUG", "none", 1);
}

static void remove_folder(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

static int reports_there(void) {
    int count = 0;
    const struct dirent *entry;
    DIR *dir = opendir(folder);
    ck_assert_ptr_nonnull(dir);
    while ((entry = readdir(dir))) count += !strncmp(entry->d_name, "cinch-rank-", 11);
    closedir(dir);
    return count;
}

static const char *merge(const char *options) {
    char line[200];
    snprintf(line, sizeof line, "info --report %s %s", folder, options);
    program_run(&output, "", line);
    return output.text[OUT];
}

static void expect(const char *words) {
    ck_assert_msg(strstr(output.text[OUT], words) != NULL, "\"%s\" is not in: %s%s", words,
                  output.text[OUT], output.text[ERR]);
}

/* Both pages name the culprits, a list as in JSON. */
static void expect_culprit(const char *list, const char *words) {
    char json[64];
    merge("");
    ck_assert_int_eq(output.status, 0);
    expect(words);
    merge("--json");
    snprintf(json, sizeof json, "\"culprits\":[%s]", list);
    expect(json);
    ck_assert_int_eq(lines_in(output.text[OUT]), 1);
}

/* ---- ranks ---- */

typedef enum { NEVER_CALLS, STOPPED, MISMATCH, KILLED, HEALTHY } situation;

/* One rank, in a process of its own: five all-reduces, then what the situation has; returns when it
 * is told to. 0: all was as it should be. */
static int rank_main(situation what, const cinchUniqueId *id, int rank, int ready, int go) {
    cinchComm_t comm;
    float data[256] = {1};
    char byte = 'r';
    if (cinchCommInitRank(&comm, RANKS, *id, rank) != cinchSuccess) return 10;
    for (int i = 0; i < 5; i++)
        if (cinchAllReduce(data, data, 256, cinchFloat, cinchSum, comm, NULL) != cinchSuccess)
            return 11;
    if (write(ready, &byte, 1) != 1) return 12;
    cinchResult_t result = cinchSuccess;
    if (rank == VICTIM && what == KILLED) kill(getpid(), SIGKILL);
    if (what == HEALTHY || (rank == VICTIM && (what == NEVER_CALLS || what == STOPPED))) {
        if (read(go, &byte, 1) != 0) return 13; /* until the parent has seen enough */
        if (what != HEALTHY) return 0;
    } else {
        const size_t count = what == MISMATCH && rank == VICTIM ? 128 : 256;
        result = cinchAllReduce(data, data, count, cinchFloat, cinchSum, comm, NULL);
        if (result == cinchSuccess) return 14;
    }
    if (result != cinchSuccess)
        cinchCommAbort(comm);
    else
        cinchCommDestroy(comm);
    return 0;
}

typedef struct family {
    pid_t pid[RANKS];
    int ready, go;
} family;

static void start_family(family *f, situation what, const char *transport) {
    int ready[2], go[2];
    char byte;
    cinchUniqueId id;
    setenv("CINCH_REPORT_DIR", folder, 1);
    setenv("CINCH_TRANSPORT", transport, 1);
    setenv("CINCH_COMM_ID", "127.0.0.1:0#00112233445566778899aabbccddeeff", 1);
    setenv("CINCH_HOSTID", "here", 1);
    if (what != NEVER_CALLS && what != STOPPED)
        setenv("CINCH_TIMEOUT_MS", "10000", 1);
    else
        unsetenv("CINCH_TIMEOUT_MS");
    ck_assert(pipe(ready) == 0 && pipe(go) == 0);
    for (int r = 0; r < RANKS; r++) {
        f->pid[r] = fork();
        ck_assert(f->pid[r] >= 0);
        if (f->pid[r] == 0) {
            close(go[1]);
            _exit(cinchGetUniqueId(&id) != cinchSuccess ? 20
                                                        : rank_main(what, &id, r, ready[1], go[0]));
        }
    }
    close(ready[1]);
    close(go[0]);
    f->ready = ready[0];
    f->go = go[1];
    for (int r = 0; r < RANKS; r++) ck_assert_int_eq(read(f->ready, &byte, 1), 1);
}

static void end_family(family *f, int victim_status) {
    close(f->go);
    for (int r = 0; r < RANKS; r++) {
        int status;
        ck_assert_int_eq(waitpid(f->pid[r], &status, 0), f->pid[r]);
        if (victim_status < 0) continue;
        const int want = r == VICTIM ? victim_status : 0;
        ck_assert_msg(status == want, "rank %d ended with %#x", r, (unsigned)status);
    }
    close(f->ready);
}

static void kill_family(family *f) {
    for (int r = 0; r < RANKS; r++) kill(f->pid[r], SIGKILL);
    end_family(f, -1);
}

/* Until there are so many reports. */
static void await_reports(int count) {
    for (int i = 0; i < 1000 && reports_there() < count; i++) sleep_ms(10);
    ck_assert_int_eq(reports_there(), count);
}

static void signal_family(const family *f) {
    for (int r = 0; r < RANKS; r++) kill(f->pid[r], SIGUSR1);
}

static const char *const transports[] = {"shm", "tcp"};

START_TEST(a_rank_that_never_calls_is_named) {
    family f;
    make_folder();
    start_family(&f, NEVER_CALLS, transports[_i]);
    sleep_ms(1500); /* what waits for less may be on its way */
    signal_family(&f);
    await_reports(RANKS);
    expect_culprit("2", "culprit: rank 2");
    expect("is outside of any call, its last was allreduce number 4");
    expect("is inside allreduce number 5");
    kill_family(&f);
    remove_folder();
}
END_TEST

START_TEST(a_stopped_rank_leaves_no_report) {
    family f;
    make_folder();
    start_family(&f, STOPPED, transports[_i]);
    kill(f.pid[VICTIM], SIGSTOP);
    sleep_ms(1500);
    signal_family(&f);
    await_reports(RANKS - 1);
    expect_culprit("2", "culprit: rank 2: 3 ranks wait for rank 2, which left no report");
    expect("\"missing\":[2]");
    kill_family(&f);
    remove_folder();
}
END_TEST

START_TEST(a_mismatch_is_told) {
    family f;
    make_folder();
    start_family(&f, MISMATCH, transports[_i]);
    end_family(&f, 0);
    ck_assert_int_eq(reports_there(), RANKS);
    /* One of the others may have heard of it before it called. */
    expect_culprit("2", "in collective call number 5 rank 2 called allreduce (128 of float, sum), "
                        "and ");
    expect(" ranks allreduce (256 of float, sum)");
    remove_folder();
}
END_TEST

START_TEST(a_killed_rank_is_named) {
    family f;
    make_folder();
    start_family(&f, KILLED, transports[_i]);
    end_family(&f, SIGKILL);
    ck_assert_int_eq(reports_there(), RANKS - 1);
    expect_culprit("2", "culprit: rank 2");
    expect("\"missing\":[2]");
    expect("\"failed\":true");
    remove_folder();
}
END_TEST

START_TEST(healthy_ranks_have_no_culprit) {
    family f;
    make_folder();
    start_family(&f, HEALTHY, transports[_i]);
    ck_assert_int_eq(reports_there(), 0);
    signal_family(&f);
    await_reports(RANKS);
    expect_culprit("", "no culprit");
    end_family(&f, 0);
    ck_assert_int_eq(reports_there(), RANKS); /* leaving well writes nothing */
    remove_folder();
}
END_TEST

/* ---- the setting, the signal ---- */

static volatile sig_atomic_t heard;
static void hear(int number) {
    heard = number;
}

static void one_rank(cinchComm_t *comm) {
    cinchUniqueId id;
    ck_assert_int_eq(cinchGetUniqueId(&id), cinchSuccess);
    ck_assert_int_eq(cinchCommInitRank(comm, 1, id, 0), cinchSuccess);
}

static int threads_here(void) {
    int count = 0;
    DIR *dir = opendir("/proc/self/task");
    ck_assert_ptr_nonnull(dir);
    for (const struct dirent *e; (e = readdir(dir));) count += e->d_name[0] != '.';
    closedir(dir);
    return count;
}

/* Without the setting the signal is left alone, and so is one that the application takes. */
START_TEST(the_application_comes_first) {
    struct sigaction now;
    cinchComm_t comm;
    make_folder();
    one_rank(&comm);
    ck_assert(sigaction(SIGUSR1, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
    cinchCommDestroy(comm);
    setenv("CINCH_REPORT_DIR", folder, 1);
    signal(SIGUSR1, hear);
    one_rank(&comm);
    raise(SIGUSR1);
    ck_assert_int_eq(heard, SIGUSR1);
    sleep_ms(100);
    ck_assert_int_eq(reports_there(), 0);
    cinchCommDestroy(comm);
    remove_folder();
}
END_TEST

/* The thread goes with the last communicator; a child that forks and destroys is not held up. */
START_TEST(nothing_stays) {
    cinchComm_t comm;
    make_folder();
    const int before = threads_here();
    setenv("CINCH_REPORT_DIR", folder, 1);
    for (int i = 0; i < 70; i++) { /* more than a process has reports of */
        one_rank(&comm);
        const pid_t pid = i == 0 ? fork() : 1;
        ck_assert(pid >= 0);
        if (pid == 0) {
            raise(SIGUSR1);
            cinchCommDestroy(comm);
            _exit(7);
        }
        int status;
        if (i == 0) ck_assert(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7);
        raise(SIGUSR1);
        if (i == 0) await_reports(1);
        ck_assert_int_eq(cinchCommDestroy(comm), cinchSuccess);
    }
    raise(SIGUSR1); /* late, and of no harm */
    ck_assert_int_eq(threads_here(), before);
    ck_assert_int_le(reports_there(), 64);
    remove_folder();
}
END_TEST

/* No secret, and what is needed is there. */
START_TEST(a_report_tells_no_secret) {
    char path[400], *text = calloc(1, 1 << 20);
    family f;
    make_folder();
    start_family(&f, KILLED, "tcp");
    end_family(&f, SIGKILL);
    DIR *dir = opendir(folder);
    ck_assert(dir && text);
    for (const struct dirent *e; (e = readdir(dir));) {
        if (strncmp(e->d_name, "cinch-rank-", 11) != 0) continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        const int fd = open(path, O_RDONLY);
        const ssize_t got = read(fd, text, (1 << 20) - 1);
        ck_assert_int_gt(got, 0);
        text[got] = '\0';
        close(fd);
        ck_assert_ptr_null(strstr(text, "00112233"));
        ck_assert_ptr_nonnull(strstr(text, "\"CINCH_COMM_ID\":\"127.0.0.1:0\""));
        ck_assert_ptr_nonnull(strstr(text, "\"transport\":\"tcp\""));
        ck_assert_ptr_nonnull(strstr(text, "\"wire_bytes\":"));
        ck_assert_ptr_nonnull(strstr(text, "\"kind\":\"recv\",\"peer\":"));
        cinch_rank_report r;
        char why[CINCH_REPORT_WHY];
        ck_assert_msg(cinch_rank_report_parse(text, (size_t)got, &r, why), "%s", why);
        ck_assert_int_eq(r.ranks, RANKS);
        ck_assert_int_gt(r.items_open, 0);
        /* Cut off anywhere, and with any byte changed, it is refused or read, never worse. */
        for (ssize_t cut = 0; cut < got - 2; cut += 13)
            ck_assert(!cinch_rank_report_parse(text, (size_t)cut, &r, why) && why[0]);
        for (ssize_t at = 0; at < got; at++) {
            const char kept = text[at];
            text[at] = (char)(kept ^ (1 << at % 8));
            if (cinch_rank_report_parse(text, (size_t)got, &r, why))
                ck_assert(r.rank >= 0 && r.rank < r.ranks && r.peer < r.ranks && r.calls <= 32);
            text[at] = kept;
        }
    }
    closedir(dir);
    free(text);
    remove_folder();
}
END_TEST

/* ---- files of anybody ---- */

static void put_file(const char *name, const char *text, size_t bytes) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ck_assert(fd >= 0 && write(fd, text, bytes) == (ssize_t)bytes);
    close(fd);
}

static void put_text(const char *name, const char *text) {
    put_file(name, text, strlen(text));
}

#define HEAD "\"cinch_report\":1,\"comm\":\"aa\",\"ranks\":2,\"failed\":0,\"pid\":1,\"time_ms\":1,"
#define TAIL "\"collectives\":0,\"calls\":[],\"wait\":{\"peer\":-1},\"peers\":[]"

START_TEST(hostile_files_are_left_out) {
    enum { DEEP = 200000 };
    char *deep = malloc(DEEP), path[200];
    ck_assert_ptr_nonnull(deep);
    memset(deep, '[', DEEP);
    make_folder();
    put_text("cinch-rank-0-of-2.1.0.json", "{" HEAD "\"rank\":0," TAIL "}");
    put_text("cinch-rank-1-of-2.1.1.json", "\x7f\x45\x4c\x46 garbage");
    put_text("cinch-rank-1-of-2.1.2.json", "");
    put_file("cinch-rank-1-of-2.1.3.json", deep, DEEP);
    put_text("cinch-rank-1-of-2.1.4.json", "{" HEAD "\"rank\":2," TAIL "}");
    put_text("cinch-rank-1-of-2.1.5.json", "{" HEAD "\"rank\":\"1\"," TAIL "}");
    put_text("cinch-rank-1-of-2.1.6.json", "{\"cinch_report\":1,\"ranks\":100000000,\"rank\":1}");
    put_text("cinch-rank-1-of-2.1.7.json", "{\"cinch_report\":2}");
    snprintf(path, sizeof path, "%s/cinch-rank-1-of-2.1.8.json", folder);
    ck_assert_int_eq(symlink("/etc/passwd", path), 0);
    snprintf(path, sizeof path, "%s/cinch-rank-1-of-2.1.9.json", folder);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    put_text("cinch-rank-1-of-2.2.0.json", "{}");
    snprintf(path, sizeof path, "%s/cinch-rank-1-of-2.2.0.json", folder);
    ck_assert_int_eq(truncate(path, (off_t)1 << 40), 0);
    put_text("notes.json", "not looked at");
    expect_culprit("", "no culprit");
    expect("\"left_out\":10");
    ck_assert_msg(lines_in(output.text[ERR]) == 10, "%s", output.text[ERR]);
    ck_assert_ptr_nonnull(strstr(output.text[ERR], "a link"));
    ck_assert_ptr_nonnull(strstr(output.text[ERR], "too large"));
    ck_assert_ptr_null(strstr(output.text[ERR], "notes"));
    /* Control characters do not get to a terminal. */
    put_text("cinch-rank-1-of-2.2.1.json",
             "{" HEAD "\"rank\":1,\"doing\":\"\\u001b[2J\\u00e9\"," TAIL "}");
    merge("");
    ck_assert_ptr_null(strchr(output.text[OUT], 27));
    expect("?[2J?");
    remove_folder();
    make_folder();
    put_text("cinch-rank-1-of-2.1.1.json", "garbage");
    merge("");
    ck_assert_int_eq(output.status, 2);
    free(deep);
    remove_folder();
}
END_TEST

/* Rings, rings with one that is behind, and long ways to the root. */
START_TEST(the_root_of_the_graph_is_found) {
    static const struct {
        int peer[5], calls[5];
        const char *culprits, *words;
    } graph[] = {{{1, 2, 3, 4, -1}, {5, 5, 5, 5, 5}, "4", "4 ranks wait for rank 4"},
                 {{1, 2, 0, -1, -1}, {5, 5, 5, 5, 5}, "", "wait for each other"},
                 {{1, 2, 0, 0, 3}, {6, 5, 6, 6, 6}, "1", "5 ranks wait for rank 1"},
                 {{4, 4, -1, 2, -1}, {5, 5, 5, 5, 4}, "4", "2 ranks wait for rank 4"}};
    make_folder();
    for (size_t g = 0; g < sizeof graph / sizeof *graph; g++) {
        for (int r = 0; r < 5; r++) {
            char name[64], text[500];
            snprintf(name, sizeof name, "cinch-rank-%d-of-5.1.0.json", r);
            snprintf(text, sizeof text,
                     "{\"cinch_report\":1,\"comm\":\"b\",\"rank\":%d,\"ranks\":5,\"failed\":0,"
                     "\"pid\":%d,\"time_ms\":5,\"collectives\":%d,\"inside\":%s,\"calls\":[],"
                     "\"wait\":{\"peer\":%d,\"ms\":2000},\"peers\":[]}",
                     r, r + 1, graph[g].calls[r], graph[g].peer[r] < 0 ? "false" : "true",
                     graph[g].peer[r]);
            put_text(name, text);
        }
        expect_culprit(graph[g].culprits, graph[g].words);
    }
    remove_folder();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("reports");
    TCase *made = tcase_create("situations"), *files = tcase_create("files");
    const int ways = (int)(sizeof transports / sizeof *transports);
    tcase_set_timeout(made, 60);
    if (SIGNALS_COME) tcase_add_loop_test(made, a_rank_that_never_calls_is_named, 0, ways);
    if (SIGNALS_COME) tcase_add_loop_test(made, a_stopped_rank_leaves_no_report, 0, ways);
    tcase_add_loop_test(made, a_mismatch_is_told, 0, ways);
    tcase_add_loop_test(made, a_killed_rank_is_named, 0, ways);
    if (SIGNALS_COME) tcase_add_loop_test(made, healthy_ranks_have_no_culprit, 0, ways);
    tcase_add_test(made, the_application_comes_first);
    if (SIGNALS_COME) tcase_add_test(made, nothing_stays);
    tcase_add_test(made, a_report_tells_no_secret);
    tcase_set_timeout(files, 60);
    tcase_add_test(files, hostile_files_are_left_out);
    tcase_add_test(files, the_root_of_the_graph_is_found);
    suite_add_tcase(suite, made);
    suite_add_tcase(suite, files);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

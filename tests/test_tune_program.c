/* SPDX-License-Identifier: Apache-2.0 */
/* cinch tune, as a user runs it: what it prints and writes, its sentences and statuses. */
#include <check.h>
#include <dirent.h>

#include "coll/planfile.h"
#include "tests/run_program.h"

static program p;
static char folder[] = "/tmp/cinch-tune-XXXXXX";

static int entries(void) {
    int count = 0;
    DIR *dir = opendir(folder);
    for (const struct dirent *e; (e = readdir(dir)) != NULL;) count += e->d_name[0] != '.';
    closedir(dir);
    return count;
}

static const char *line_of(const char *format) {
    static char line[1024];
    snprintf(line, sizeof line, format, folder, folder, folder);
    return line;
}

static void remove_all(void) {
    program_run_script(&p, line_of("rm -f %s/*"));
}

START_TEST(a_plan_file_is_written) {
    cinch_tuned tuned = {0};
    char why[256];
    size_t length;
    program_run(&p, "CINCH_ALGO=ring CINCH_PLAN_FILE=/none CINCH_CODEC=topk",
                line_of("tune -n 3 --ops allreduce,broadcast -b 4 -e 64 -o %s/p.json"));
    ck_assert_msg(p.status == 0, "%s", p.text[ERR]);
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "3 ranks on 1 host"));
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "allreduce: microseconds"));
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "broadcast: microseconds"));
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "p.json"));
    ck_assert_str_eq(p.text[ERR], "");
    char *text = cinch_planfile_load(line_of("%s/p.json"), &length, why, sizeof why);
    ck_assert_msg(text != NULL, "%s", why);
    ck_assert_int_eq(cinch_planfile_parse(text, length, "p.json", &tuned), cinchSuccess);
    ck_assert_int_eq(tuned.ranks, 3);
    ck_assert_int_gt(tuned.curves, 4);
    ck_assert_int_eq(tuned.curve[0].points, 3); /* 4, 16, 64 */
    cinch_tuned_free(&tuned);
    free(text);
    char environment[128];
    snprintf(environment, sizeof environment, "CINCH_PLAN_FILE=%s/p.json", folder);
    program_run(&p, environment, "perf allreduce -n 3 -b 64 -e 64 -N 1");
    ck_assert_msg(p.status == 0, "%s", p.text[ERR]);
    ck_assert_int_eq(entries(), 1);
    remove_all();
}
END_TEST

START_TEST(hosts_are_measured_in_pairs) {
    program_run_script(&p, line_of("for r in 0 1 2; do CINCH_RANK=$r CINCH_SIZE=3 CINCH_HOSTID=h$r "
                                   "CINCH_COMM_ID=file:%s/meet " CINCH_PROGRAM
                                   " tune -b 4 -e 4 & done; wait"));
    ck_assert_str_eq(p.text[ERR], "");
    ck_assert_msg(strstr(p.text[OUT], "3 ranks on 3 hosts") != NULL, "%s", p.text[OUT]);
    ck_assert_msg(strstr(p.text[OUT], "between hosts") != NULL, "%s", p.text[OUT]);
    ck_assert_msg(strstr(p.text[OUT], "in all") != NULL, "%s", p.text[OUT]);
    remove_all();
}
END_TEST

/* One sentence that names the culprit, status 2, and nothing was measured. */
START_TEST(bad_usage) {
    static const struct {
        const char *line, *culprit;
    } cases[] = {
        {"tune --ops frob", "frob"},
        {"tune --ops allreduce,sendrecv", "sendrecv"},
        {"tune -b 0", "-b"},
        {"tune -b 64 -e 4", "-e"},
        {"tune -e 1T", "-e"},
        {"tune -n 0", "-n"},
        {"tune --transport pigeon", "pigeon"},
        {"tune extra", "extra"},
        {"tune -o /none/p.json", "/none"},
        {"tune -o %s", "no regular file"},
        {"tune -o ''", "regular file"},
        {"tune -o p.json/", "regular file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[256];
        snprintf(line, sizeof line, cases[i].line, folder);
        program_run(&p, "", line);
        ck_assert_msg(p.status == 2, "%s: status %d", line, p.status);
        ck_assert_msg(strstr(p.text[ERR], cases[i].culprit) != NULL, "%s: %s", line, p.text[ERR]);
        ck_assert_msg(lines_in(p.text[ERR]) == 1, "%s: %s", line, p.text[ERR]);
        ck_assert_str_eq(p.text[OUT], "");
    }
    program_run(&p, "", "run -n 2 " CINCH_PROGRAM " tune -o /none/p.json");
    ck_assert_int_ne(p.status, 0);
    ck_assert_ptr_nonnull(strstr(p.text[ERR], "/none"));
    ck_assert_str_eq(p.text[OUT], "");
}
END_TEST

START_TEST(an_interrupt_leaves_nothing) {
    program_start(&p, "", line_of("tune -n 2 -o %s/p.json"));
    usleep(700000);
    ck_assert_int_eq(kill(p.pid, SIGINT), 0);
    program_end(&p, 20); /* all that it has started too */
    ck_assert_int_ne(p.status, 0);
    ck_assert_int_ne(p.status, -1);
    ck_assert_int_eq(entries(), 0);
}
END_TEST

int main(void) {
    if (!mkdtemp(folder)) return EXIT_FAILURE;
    Suite *suite = suite_create("tune_program");
    TCase *tcase = tcase_create("tune_program");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, a_plan_file_is_written);
    tcase_add_test(tcase, hosts_are_measured_in_pairs);
    tcase_add_test(tcase, bad_usage);
    tcase_add_test(tcase, an_interrupt_leaves_nothing);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    remove_all();
    rmdir(folder);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

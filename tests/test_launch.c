/* SPDX-License-Identifier: Apache-2.0 */
/* cinch run: what ranks get, whose exit status counts, and that nothing of them remains. */
#include <check.h>
#include <stdbool.h>

#include "tests/run_program.h"

static program p;

START_TEST(ranks_know_their_place) {
    char seen[5] = {0}, first[200] = "", again[200];
    for (int run = 0; run < 2; run++) {
        program_run(&p, "", "run -n 5 -- sh -c 'echo $CINCH_RANK/$CINCH_SIZE=$CINCH_COMM_ID'");
        ck_assert_int_eq(p.status, 0);
        ck_assert_int_eq(lines_in(p.text[OUT]), 5);
        memset(seen, 0, sizeof seen);
        char id[5][200];
        int i = 0;
        for (char *line = strtok(p.text[OUT], "\n"); line; line = strtok(NULL, "\n"), i++) {
            int rank, size;
            ck_assert_int_eq(sscanf(line, "%d/%d=%199s", &rank, &size, id[i]), 3);
            ck_assert(rank >= 0 && rank < 5 && size == 5 && !seen[rank]);
            seen[rank] = 1;
            ck_assert_str_eq(id[i], id[0]);
        }
        snprintf(run ? again : first, sizeof first, "%s", id[0]);
    }
    ck_assert_ptr_eq(strstr(first, "127.0.0.1:0#"), first);
    ck_assert_uint_eq(strspn(first + 12, "0123456789abcdef"), 64);
    ck_assert_uint_eq(strlen(first), 12 + 64);
    ck_assert_str_ne(first, again);
}
END_TEST

START_TEST(variables_are_set) {
    program_run(&p, "A=0 CINCH_RANK=7 CINCH_SIZE=9",
                "run -n 1 -x A=1 -x 'B=x y=z' -x CINCH_COMM_ID=h:1 sh -c "
                "'echo \"$A|$B|$CINCH_COMM_ID|$CINCH_RANK|$CINCH_SIZE\"'");
    ck_assert_str_eq(p.text[OUT], "1|x y=z|h:1|0|1\n");
    ck_assert_int_eq(p.status, 0);
}
END_TEST

START_TEST(options_end_at_the_program) {
    program_run(&p, "", "run -n 1 echo -n 3 --help");
    ck_assert_str_eq(p.text[OUT], "3 --help");
    program_run(&p, "", "run -n 1 -- echo -x");
    ck_assert_str_eq(p.text[OUT], "-x\n");
}
END_TEST

START_TEST(stdin_goes_to_rank_0) {
    program_run(&p, "", "run -n 2 -- sh -c 'read x; echo $CINCH_RANK:$x' <<EOF\nhello\nEOF\n");
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "0:hello\n"));
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "1:\n"));
}
END_TEST

START_TEST(first_failure_decides) {
    static const struct {
        const char *what;
        int status;
    } cases[] = {
        {"exit 0", 0},
        {"exit 7", 7},
        {"[ $CINCH_RANK != 2 ] || exit 9", 9},
        {"kill -9 $$", 137},
        {"[ $CINCH_RANK = 1 ] || exec sleep 100; exit 3", 3},
        {"[ $CINCH_RANK = 1 ] || exec sleep 100; kill -ABRT $$", 134},
        {"[ $CINCH_RANK = 1 ] && exit 3; sleep 0.1; exit 4", 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[300];
        snprintf(line, sizeof line, "run -n 3 -- sh -c '%s'", cases[i].what);
        program_run(&p, "", line);
        ck_assert_msg(p.status == cases[i].status, "%s: %d", cases[i].what, p.status);
        ck_assert_msg(p.seconds < 2.5, "%s: %f s", cases[i].what, p.seconds);
        bool told = strstr(p.text[ERR], "was killed by signal") != NULL;
        ck_assert_msg(told == (p.status > 128), "%s: \"%s\"", cases[i].what, p.text[ERR]);
    }
}
END_TEST

/* A rank that ignores TERM, and what it has started, get KILL 2 s later. */
START_TEST(survivors_are_killed) {
    program_run(&p, "",
                "run -n 2 -- sh -c '[ $CINCH_RANK = 1 ] && exit 5; trap \"\" TERM; "
                "while :; do sleep 1; done'");
    ck_assert_int_eq(p.status, 5);
    ck_assert_msg(p.seconds > 1.9 && p.seconds < 5, "%f s", p.seconds);
}
END_TEST

/* Survivors have a moment to say what they have seen before they are terminated. */
START_TEST(survivors_may_speak) {
    program_run(&p, "", "run -n 2 -- sh -c '[ $CINCH_RANK = 1 ] && exit 5; sleep 0.1; echo seen'");
    ck_assert_int_eq(p.status, 5);
    ck_assert_str_eq(p.text[OUT], "seen\n");
}
END_TEST

START_TEST(signals_are_passed_on) {
    static const struct {
        int signal;
        const char *name;
    } cases[] = {{SIGINT, "INT"}, {SIGTERM, "TERM"}, {SIGHUP, "HUP"}};
    for (int i = 0; i < 3; i++) {
        char line[300];
        /* Sleep in small pieces: a shell runs its trap when the command before it has ended. */
        snprintf(line, sizeof line,
                 "run -n 2 -- sh -c 'trap \"echo got; exit 0\" %s; echo on; "
                 "while :; do sleep 0.05; done'",
                 cases[i].name);
        program_start(&p, "", line);
        ck_assert_int_eq(program_read(&p, "on\non\n", 20), 0);
        kill(p.pid, cases[i].signal);
        program_end(&p, 20);
        ck_assert_int_eq(p.status, 128 + cases[i].signal);
        ck_assert_str_eq(p.text[OUT], "on\non\ngot\ngot\n");
    }
}
END_TEST

START_TEST(a_deaf_rank_is_killed_after_a_signal) {
    program_start(&p, "", "run -n 2 -- sh -c 'trap \"\" INT; echo on; while :; do sleep 1; done'");
    ck_assert_int_eq(program_read(&p, "on\non\n", 20), 0);
    kill(p.pid, SIGINT);
    program_end(&p, 20);
    ck_assert_int_eq(p.status, 137);
    ck_assert(p.seconds < 5);
}
END_TEST

/* The pipe's end says that no process is left, the ranks' own children included. */
START_TEST(nothing_remains_of_a_killed_launcher) {
    program_start(&p, "", "run -n 3 -- sh -c 'sleep 1000 & sleep 1000 & echo on; wait'");
    ck_assert_int_eq(program_read(&p, "on\non\non\n", 20), 0);
    kill(p.pid, SIGKILL);
    program_end(&p, 5);
    ck_assert_int_eq(p.status, 137);
}
END_TEST

START_TEST(what_cannot_be_executed) {
    program_run(&p, "", "run -n 3 /no/such/program");
    ck_assert_int_eq(p.status, 127);
    ck_assert_int_eq(lines_in(p.text[ERR]), 1);
    ck_assert_ptr_nonnull(strstr(p.text[ERR], "/no/such/program"));
    program_run(&p, "", "run -n 3 /etc/passwd");
    ck_assert_int_eq(p.status, 126);
    ck_assert_int_eq(lines_in(p.text[ERR]), 1);
}
END_TEST

START_TEST(bad_usage) {
    static const char *const lines[] = {"run",
                                        "run -n",
                                        "run -n 2",
                                        "run -n 0 true",
                                        "run -n x true",
                                        "run -n -1 true",
                                        "run -n 99999 true",
                                        "run true",
                                        "run -q true",
                                        "run --foo true",
                                        "run -n 2 -x A true",
                                        "run -n 2 -x =1 true",
                                        "run -n 2 -x CINCH_RANK=1 true"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        program_run(&p, "", lines[i]);
        ck_assert_msg(p.status == 2, "%s: %d", lines[i], p.status);
        ck_assert_msg(lines_in(p.text[ERR]) == 1, "%s: %s", lines[i], p.text[ERR]);
        ck_assert_ptr_eq(strstr(p.text[ERR], "cinch run: "), p.text[ERR]);
        ck_assert_str_eq(p.text[OUT], "");
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("launch");
    TCase *tcase = tcase_create("run");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, ranks_know_their_place);
    tcase_add_test(tcase, variables_are_set);
    tcase_add_test(tcase, options_end_at_the_program);
    tcase_add_test(tcase, stdin_goes_to_rank_0);
    tcase_add_test(tcase, first_failure_decides);
    tcase_add_test(tcase, survivors_are_killed);
    tcase_add_test(tcase, survivors_may_speak);
    tcase_add_test(tcase, signals_are_passed_on);
    tcase_add_test(tcase, a_deaf_rank_is_killed_after_a_signal);
    tcase_add_test(tcase, nothing_remains_of_a_killed_launcher);
    tcase_add_test(tcase, what_cannot_be_executed);
    tcase_add_test(tcase, bad_usage);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

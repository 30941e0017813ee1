/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that mpirun, srun and torchrun start, by their variables: who is who, and where they meet.
 */
#include <check.h>
#include <stdbool.h>

#include "tests/run_program.h"

static program p;

#define PERF "perf allreduce -b 1K -e 1K -N 1 -w 0 -i 1 -c 1"
#define SOME_ID "CINCH_COMM_ID=127.0.0.1:0#00112233445566778899aabbccddee%02x "

/* A launcher's variables: those of a rank, then how many ranks are here, and which job it is. */
static const struct launcher {
    const char *name, *rank, *size, *here, *job;
} launchers[] = {
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE=%d",
     "PMIX_NAMESPACE=test%d PMIX_SERVER_URI2=test.0;tcp4://127.0.0.1:%d"},
    {"MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS=%d", "PMI_PORT=test%d:%d"},
    {"Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES=1 SLURM_LOCALID=%d",
     "SLURM_STEP_ID=%d SLURM_JOB_ID=%d"},
};
enum { LAUNCHERS = sizeof launchers / sizeof *launchers, OPEN_MPI = 0, SLURM = 2 };

/* Appends ranks 0 to n-1, in the background, each with what precedes its variables. */
static size_t add_ranks(char *script, size_t used, size_t room, const struct launcher *l, int n,
                        const char *before, const char *line) {
    for (int r = n - 1; r >= 0; r--)
        used += (size_t)snprintf(script + used, room - used,
                                 "env %s %s=%d %s=%d " CINCH_PROGRAM " %s & p%d=$!\n", before,
                                 l->rank, r, l->size, n, line, r);
    return used;
}

/* Waits for them all: prints their statuses in order. */
static void add_wait(char *script, size_t used, size_t room, int n) {
    for (int r = 0; r < n; r++)
        used += (size_t)snprintf(script + used, room - used, "wait $p%d; echo status $?\n", r);
}

static void run_ranks(const struct launcher *l, int n, const char *before, const char *line) {
    char script[4096];
    size_t used = add_ranks(script, 0, sizeof script, l, n, before, line);
    add_wait(script, used, sizeof script, n);
    program_run_script(&p, script);
}

static int times_in(const char *text, const char *what) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++) n++;
    return n;
}

/* Variables of a job on this machine alone, with n ranks. */
static const char *on_this_host(const struct launcher *l, int n, int job) {
    static char text[400], here[80], work[160];
    snprintf(here, sizeof here, l->here, n);
    snprintf(work, sizeof work, l->job, job, (int)getpid());
    snprintf(text, sizeof text, "%s '%s' ", here, work);
    /* Each assignment has quotes of its own. */
    for (char *at = strchr(text, '\''); at && (at = strchr(at, ' ')) && at[1];) {
        memmove(at + 3, at + 1, strlen(at + 1) + 1);
        memcpy(at, "' '", 3);
        at += 3;
    }
    return text;
}

START_TEST(ranks_meet_with_an_id) {
    char before[200];
    const struct launcher *l = &launchers[_i];
    snprintf(before, sizeof before, SOME_ID "%s", _i,
             _i == SLURM ? "SLURM_STEP_ID=0 SLURM_STEP_NUM_NODES=3" : "");
    run_ranks(l, 3, before, PERF);
    ck_assert_msg(times_in(p.text[OUT], "status 0") == 3, "%s: %s", l->name, p.text[ERR]);
    ck_assert_int_eq(times_in(p.text[OUT], "3 ranks"), 1); /* rank 0 alone prints */
    ck_assert_int_eq(times_in(p.text[OUT], "all 1 lines passed"), 1);
    ck_assert_str_eq(p.text[ERR], "");
}
END_TEST

START_TEST(ranks_meet_without_an_id) {
    const struct launcher *l = &launchers[_i];
    run_ranks(l, 3, on_this_host(l, 3, _i), PERF);
    ck_assert_msg(times_in(p.text[OUT], "status 0") == 3, "%s: %s", l->name, p.text[ERR]);
    ck_assert_int_eq(times_in(p.text[OUT], "3 ranks"), 1);
    ck_assert_str_eq(p.text[ERR], "");
}
END_TEST

START_TEST(several_machines_need_an_id) {
    static const char *const elsewhere[] = {
        "OMPI_COMM_WORLD_LOCAL_SIZE=1 PMIX_NAMESPACE=x", "MPI_LOCALNRANKS=1 PMI_PORT=a:1",
        "SLURM_STEP_ID=1 SLURM_JOB_ID=1 SLURM_STEP_NUM_NODES=2"};
    static const char *const nameless[] = {"OMPI_COMM_WORLD_LOCAL_SIZE=2",
                                           "MPI_LOCALNRANKS=2 PMI_FD=77",
                                           "SLURM_STEP_ID=1 SLURM_STEP_NUM_NODES=1"};
    for (int k = 0; k < 2; k++) {
        run_ranks(&launchers[_i], 2, k ? nameless[_i] : elsewhere[_i], PERF);
        ck_assert_str_eq(p.text[OUT], "status 2\nstatus 2\n");
        ck_assert_int_eq(lines_in(p.text[ERR]), 1);
        ck_assert_ptr_nonnull(strstr(p.text[ERR], launchers[_i].name));
        ck_assert_ptr_nonnull(
            strstr(p.text[ERR], k ? "tells this job from others" : "not all on one machine"));
        ck_assert_ptr_nonnull(strstr(p.text[ERR], "set CINCH_COMM_ID=HOST:PORT#HEXSECRET"));
    }
}
END_TEST

/* Two jobs at once, of different sizes: neither gets a rank of the other. */
START_TEST(two_jobs_at_once) {
    const struct launcher *l = &launchers[_i];
    char script[6000] = "( ";
    for (int job = 0; job < 2; job++) {
        size_t used = strlen(script);
        used =
            add_ranks(script, used, sizeof script, l, 2 + job, on_this_host(l, 2 + job, job), PERF);
        add_wait(script, used, sizeof script, 2 + job);
        strcat(script, job ? ")" : ") & ( ");
    }
    strcat(script, "; wait");
    program_run_script(&p, script);
    ck_assert_msg(times_in(p.text[OUT], "status 0") == 5, "%s: %s", l->name, p.text[ERR]);
    ck_assert_int_eq(times_in(p.text[OUT], " 2 ranks"), 1);
    ck_assert_int_eq(times_in(p.text[OUT], " 3 ranks"), 1);
}
END_TEST

/* One command after the other by the same launcher: each rank of the second finds the second. */
START_TEST(one_job_after_the_other) {
    char script[4096];
    const struct launcher *l = &launchers[OPEN_MPI];
    int used = 0;
    for (int r = 2; r >= 0; r--)
        used += snprintf(script + used, sizeof script - (size_t)used,
                         "env %s %s=%d %s=3 sh -c 'for i in 1 2 3 4 5; do " CINCH_PROGRAM " " PERF
                         " || exit 1; done' & p%d=$!\n",
                         on_this_host(l, 3, 9), l->rank, r, l->size, r);
    add_wait(script, (size_t)used, sizeof script, 3);
    program_run_script(&p, script);
    ck_assert_msg(times_in(p.text[OUT], "status 0") == 3, "%s", p.text[ERR]);
    ck_assert_int_eq(times_in(p.text[OUT], "all 1 lines passed"), 5);
}
END_TEST

/* What a killed job leaves behind, processes that wait for their rank 0, is not met by the next. */
START_TEST(a_job_after_a_killed_one) {
    char script[4096] = "env ";
    const struct launcher *l = &launchers[OPEN_MPI];
    strcat(script, on_this_host(l, 2, 20));
    size_t used = strlen(script);
    used += (size_t)snprintf(script + used, sizeof script - used,
                             "%s=1 %s=2 CINCH_INIT_TIMEOUT_MS=5000 " CINCH_PROGRAM " " PERF
                             " 2>/dev/null & late=$!\n",
                             l->rank, l->size);
    used = add_ranks(script, used, sizeof script, l, 2, on_this_host(l, 2, 21), PERF);
    add_wait(script, used, sizeof script, 2);
    strcat(script, "kill -9 $late; wait $late; echo status $?\n");
    program_run_script(&p, script);
    ck_assert_msg(times_in(p.text[OUT], "status 0") == 2, "%s", p.text[ERR]);
    ck_assert_int_eq(times_in(p.text[OUT], "status 137"), 1);
}
END_TEST

/* ---- what counts, and what does not ---- */

static void expect_ranks(const char *environment, const char *line, const char *ranks) {
    program_run(&p, environment, line);
    ck_assert_msg(p.status == 0, "%s: %s", environment, p.text[ERR]);
    ck_assert_msg(times_in(p.text[OUT], ranks) == 1, "%s: %s", environment, p.text[OUT]);
}

START_TEST(no_launch_at_all) {
    static const char *const none[] = {
        "OMPI_COMM_WORLD_SIZE=1 OMPI_COMM_WORLD_RANK=0",
        "PMI_SIZE=1 PMI_RANK=0",
        "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0",
        "SLURM_JOB_ID=7 SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_NNODES=1 SLURM_LOCALID=0",
        "SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=4 SLURM_STEP_ID=4294967291",
        "WORLD_SIZE=1 RANK=0",
        "OMPI_COMM_WORLD_SIZE=many PMI_SIZE= SLURM_STEP_ID=x"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) expect_ranks(none[i], PERF, " 2 ranks");
}
END_TEST

START_TEST(an_explicit_count_wins) {
    expect_ranks("OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=1", PERF " -n 3", " 3 ranks");
    expect_ranks("PMI_SIZE=4 PMI_RANK=2", PERF " -n 2", " 2 ranks");
    expect_ranks("SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4", PERF " -n 3", " 3 ranks");
}
END_TEST

START_TEST(which_launcher_counts) {
    static const struct {
        const char *environment, *says;
    } cases[] = {
        {"CINCH_RANK=1 CINCH_SIZE=2 OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4", "1/2"},
        {"OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4 PMI_RANK=4 PMI_SIZE=5", "3/4"},
        {"OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4 SLURM_STEP_ID=0 SLURM_PROCID=0 "
         "SLURM_STEP_NUM_TASKS=2",
         "3/4"},
        {"PMI_RANK=4 PMI_SIZE=5 MPI_LOCALNRANKS=5 SLURM_STEP_ID=0 SLURM_PROCID=0 "
         "SLURM_STEP_NUM_TASKS=2",
         "4/5"},
        {"PMI_RANK=5 PMI_SIZE=6 SLURM_STEP_ID=0 SLURM_PROCID=5 SLURM_STEP_NUM_TASKS=6", "5/6"},
        {"RANK=6 WORLD_SIZE=7 MASTER_ADDR=h MASTER_PORT=1 SLURM_STEP_ID=0 SLURM_PROCID=0 "
         "SLURM_STEP_NUM_TASKS=2",
         "6/7"},
        {"WORLD_SIZE=7 MASTER_ADDR=h MASTER_PORT=1 SLURM_STEP_ID=0 SLURM_PROCID=1 "
         "SLURM_STEP_NUM_TASKS=2",
         "1/2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char environment[400];
        snprintf(environment, sizeof environment, SOME_ID "%s", 0, cases[i].environment);
        program_run(&p, environment, "run sh -c 'echo $CINCH_RANK/$CINCH_SIZE'");
        ck_assert_msg(strncmp(p.text[OUT], cases[i].says, 3) == 0, "%s: %s%s", environment,
                      p.text[OUT], p.text[ERR]);
    }
}
END_TEST

START_TEST(wrong_values) {
    static const struct {
        const char *environment, *says;
    } cases[] = {
        {"OMPI_COMM_WORLD_SIZE=4", "OMPI_COMM_WORLD_RANK=(not set)"},
        {"OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=4", "accepted is 0 to 3"},
        {"PMI_SIZE=4 PMI_RANK=-1", "PMI_RANK=-1 beside PMI_SIZE=4"},
        {"PMI_SIZE=99999 PMI_RANK=0", "at most 4096"},
        {"SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=9", "SLURM_PROCID=9"},
        {"WORLD_SIZE=4", "MASTER_ADDR"},
        {"WORLD_SIZE=4 RANK=0 MASTER_PORT=65535 MASTER_ADDR=x", "MASTER_PORT=65535"},
        {"WORLD_SIZE=4 RANK=4 MASTER_PORT=1 MASTER_ADDR=x", "RANK=4"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        program_run(&p, cases[i].environment, PERF);
        ck_assert_msg(p.status == 2, "%s: %d", cases[i].environment, p.status);
        ck_assert_int_eq(lines_in(p.text[ERR]), 1);
        if (i != 5) ck_assert_msg(strstr(p.text[ERR], cases[i].says), "%s", p.text[ERR]);
    }
}
END_TEST

/* ---- programs of the user's own ---- */

/* `cinch run` without -n becomes the program, with a place and where to meet. */
START_TEST(run_becomes_a_rank) {
    const struct launcher *l = &launchers[_i];
    run_ranks(l, 2, on_this_host(l, 2, 30),
              "run -x A=b sh -c 'echo $CINCH_RANK/$CINCH_SIZE $A $CINCH_COMM_ID; exit "
              "$((CINCH_RANK + 5))'");
    char id[100], again[100];
    const char *zero = strstr(p.text[OUT], "0/2 b 127.0.0.1:0#");
    const char *one = strstr(p.text[OUT], "1/2 b 127.0.0.1:0#");
    ck_assert_msg(zero && one, "%s%s", p.text[OUT], p.text[ERR]);
    ck_assert_int_eq(sscanf(zero, "0/2 b %99s", id), 1);
    ck_assert_int_eq(sscanf(one, "1/2 b %99s", again), 1);
    ck_assert_str_eq(id, again);
    ck_assert_uint_eq(strlen(id), 12 + 64);
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "status 5\n"));
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "status 6\n"));
}
END_TEST

START_TEST(run_without_a_launcher) {
    program_run(&p, "", "run true");
    ck_assert_int_eq(p.status, 2);
    ck_assert_ptr_nonnull(strstr(p.text[ERR], "-n N is required"));
    program_run(&p,
                "CINCH_COMM_ID=127.0.0.1:0#00112233445566778899aabbccddeeff "
                "PMI_RANK=0 PMI_SIZE=2",
                "run /no/such/program");
    ck_assert_int_eq(p.status, 127);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("launchers");
    TCase *tests = tcase_create("launchers");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, ranks_meet_with_an_id, 0, LAUNCHERS);
    tcase_add_loop_test(tests, ranks_meet_without_an_id, 0, LAUNCHERS);
    tcase_add_loop_test(tests, several_machines_need_an_id, 0, LAUNCHERS);
    tcase_add_loop_test(tests, two_jobs_at_once, 0, LAUNCHERS);
    tcase_add_test(tests, one_job_after_the_other);
    tcase_add_test(tests, a_job_after_a_killed_one);
    tcase_add_test(tests, no_launch_at_all);
    tcase_add_test(tests, an_explicit_count_wins);
    tcase_add_test(tests, which_launcher_counts);
    tcase_add_test(tests, wrong_values);
    tcase_add_loop_test(tests, run_becomes_a_rank, 0, LAUNCHERS);
    tcase_add_test(tests, run_without_a_launcher);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

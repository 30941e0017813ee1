/* SPDX-License-Identifier: Apache-2.0 */
/* cinch topo --simulate and --codec, as a user runs them: simulated times stand beside predicted
 * ones, and what has none has a sentence and is no failure; what a codec gains is the formula's. */
#include <check.h>
#include <stdbool.h>

#include "tests/run_program.h"

static program p;
static char folder[] = "/tmp/cinch-simulate-XXXXXX";

static const struct {
    const char *name, *text;
} graphs[] = {
    {"chain", "gpu a\ngpu b\nswitch s\nlink a s 10\nlink s b 10\n"},
    {"star", "gpu a\ngpu b\ngpu c\nswitch s\nlink a s 9\nlink b s 9\nlink c s 9\n"},
    {"line", "gpu a\ngpu b\ngpu c\nlink a b 1\nlink b c 1\n"},
    {"hosts", "gpu a\ngpu b\ngpu c #: host=1\ngpu d #: host=1\n"
              "switch s\nswitch t #: host=1\nswitch net #: host=2\n"
              "link a s 100\nlink b s 100\nlink c t 100\nlink d t 100\n"
              "link s net 10\nlink t net 10\n"},
    {"triangle", "gpu a\ngpu b\ngpu c\nlink a b 1\nlink b c 1\nlink c a 1\n"},
};

static void write_graphs(void) {
    for (size_t i = 0; i < sizeof graphs / sizeof *graphs; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s.graph", folder, graphs[i].name);
        FILE *f = fopen(path, "w");
        ck_assert_ptr_nonnull(f);
        ck_assert_int_ge(fputs(graphs[i].text, f), 0);
        ck_assert_int_eq(fclose(f), 0);
    }
}

/* Status 0 and nothing on stderr; what is on stdout. */
static const char *run(const char *graph, const char *how, const char *options) {
    char line[512];
    snprintf(line, sizeof line, "topo --file %s/%s.graph %s --plan %s", folder, graph, how,
             options);
    program_run(&p, "", line);
    ck_assert_msg(p.status == 0, "%s: %d, %s%s", options, p.status, p.text[ERR], p.text[OUT]);
    ck_assert_str_eq(p.text[ERR], "");
    return p.text[OUT];
}

static const char *topo(const char *graph, const char *options) {
    return run(graph, "--simulate", options);
}

static void has(const char *text, const char *part) {
    ck_assert_msg(strstr(text, part) != NULL, "no %s in:\n%.1500s", part, text);
}

static double number(const char *json, const char *key) {
    char pattern[64];
    snprintf(pattern, sizeof pattern, "\"%s\":", key);
    const char *found = strstr(json, pattern);
    ck_assert_msg(found != NULL, "no %s in %.1500s", key, json);
    return atof(found + strlen(pattern));
}

/* The chain's two latencies of half a microsecond are what the prediction lacks. */
START_TEST(latencies_count) {
    const char *json = topo("chain", "broadcast --bytes 1000 --json");
    ck_assert_double_eq_tol(number(json, "predicted_us"), 0.1, 1e-9);
    ck_assert_double_eq_tol(number(json, "simulated_us"), 1.1, 1e-3);
    has(topo("chain", "broadcast --bytes 1000"), "\nsimulated: 1.1 us, predicted without latenc");
}
END_TEST

START_TEST(long_messages_are_as_fast_as_predicted) {
    static const char *const plans[] = {"allreduce",
                                        "allgather",
                                        "reducescatter",
                                        "broadcast",
                                        "reduce",
                                        "allreduce --kind ring",
                                        "broadcast --kind ring",
                                        "reduce --kind ring",
                                        "allreduce --kind double_tree"};
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        char options[128];
        snprintf(options, sizeof options, "%s --json", plans[i]);
        const char *json = topo("star", options);
        double part = number(json, "simulated_us") / number(json, "predicted_us");
        ck_assert_msg(part >= 0.999 && part <= 1.05, "%s: %g", plans[i], part);
    }
}
END_TEST

START_TEST(a_ring_and_a_tree_stand_beside_it) {
    const char *text = topo("star", "allreduce");
    has(text, "\nsimulated: ");
    has(text, "; the busiest link, ");
    has(text, "\n  one ring: ");
    has(text, "\n  a tree in the order of ranks: ");
    text = topo("star", "allgather --kind ring");
    ck_assert_ptr_null(strstr(text, "one ring: "));
    ck_assert_ptr_null(strstr(text, "a tree in"));
}
END_TEST

START_TEST(what_has_no_time_has_a_sentence) {
    has(topo("line", "allreduce"), "\n  one ring: no ring through all 3 GPUs");
    has(p.text[OUT], "\n  a tree in the order of ranks: there is no way over switches");
    has(topo("triangle", "allreduce --kind rings"), "\nsimulated: no: 2 rings at once");
    has(topo("triangle", "allreduce --kind rings --json"), "\"simulated_us\":null");
}
END_TEST

START_TEST(it_is_for_plans) {
    char line[256];
    snprintf(line, sizeof line, "topo --file %s/star.graph --simulate", folder);
    program_run(&p, "", line);
    ck_assert_int_eq(p.status, 2);
    has(p.text[ERR], "--simulate is for --plan");
    snprintf(line, sizeof line, "topo --file %s/star.graph --plan allreduce --json", folder);
    program_run(&p, "", line);
    has(p.text[OUT], "\"simulated_us\":null");
}
END_TEST

/* Four ranks on two hosts of 10 GB/s: the ratio of int8 is that of its blocks of 256, and codecs
 * that are too slow are told. */
START_TEST(what_a_codec_gains) {
    static const char *const cases[][3] = {
        {"int8", "60,80", "39.38 GB/s, 3.94 times the exact plan"},
        {"bf16", "60,80", "20 GB/s, 2 times the exact plan"},
        {"bf16", "8,8", "16 GB/s, 1.6 times the exact plan"},
        {"int8", "4,80", "does not pay, 8 GB/s beside 10"},
    };
    char how[128];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(how, sizeof how, "--codec %s --codec-gbps %s", cases[i][0], cases[i][1]);
        has(run("hosts", how, "allreduce"), cases[i][2]);
    }
    has(run("hosts", "--codec bf16 --codec-gbps 60,80 --json", "allreduce"),
        "\"with_codec\":{\"codec\":\"bf16\",\"ratio\":0.5,\"encode_GBps\":60,"
        "\"decode_GBps\":80,\"algbw_GBps\":20}");
    has(run("hosts", "--codec int8", "allreduce"), /* its speed is measured here */
        "int8 between hosts (0.254 of the bytes; a rank encodes ");
    has(run("star", "--codec int8 --codec-gbps 60,80", "allreduce"),
        "int8: nothing is between hosts");
}
END_TEST

START_TEST(bad_codecs) {
    static const char *const cases[][2] = {
        {"--codec int8", "--codec is for --plan"},
        {"--plan reduce --codec-gbps 1,2", "--codec-gbps is for --codec"},
        {"--plan reduce --codec int8 --codec-gbps 6", "--codec-gbps \"6\""},
        {"--plan reduce --codec int7", "int7"},
        {"--plan reduce --codec topk:select=global", "a fixed length"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[256];
        snprintf(line, sizeof line, "topo --file %s/star.graph %s", folder, cases[i][0]);
        program_run(&p, "", line);
        ck_assert_msg(p.status == 2, "%s: %d", line, p.status);
        has(p.text[ERR], cases[i][1]);
        ck_assert_str_eq(p.text[OUT], "");
    }
}
END_TEST

int main(void) {
    char script[256];
    if (!mkdtemp(folder)) return 1;
    Suite *suite = suite_create("topo_simulate");
    TCase *tests = tcase_create("topo_simulate");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, write_graphs, NULL);
    tcase_add_test(tests, latencies_count);
    tcase_add_test(tests, long_messages_are_as_fast_as_predicted);
    tcase_add_test(tests, a_ring_and_a_tree_stand_beside_it);
    tcase_add_test(tests, what_has_no_time_has_a_sentence);
    tcase_add_test(tests, it_is_for_plans);
    tcase_add_test(tests, what_a_codec_gains);
    tcase_add_test(tests, bad_codecs);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    snprintf(script, sizeof script, "rm -rf %s", folder);
    return system(script) != 0 || failed ? 1 : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Plan files: what is written is read again, and whatever else a file holds is refused in a
 * sentence that names the place. `--corpus FOLDER` writes the texts for the fuzz target. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "coll/planfile.h"

static uint64_t random64(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static double random_number(uint64_t *state) {
    double unit = (double)(random64(state) >> 11) / 9007199254740992.0;
    return exp(20 * unit - 5);
}

#define HEAD "{\"cinch_plans\":1,\"machine\":\"m\",\"ranks\":2,\"hosts\":[0,0]"
#define CURVE(op, algo, points)                                                                    \
    HEAD ",\"curves\":[{\"op\":\"" op "\",\"algo\":\"" algo                                        \
         "\",\"codec\":\"none\",\"points\":" points "}]}"

static const char *const good[] = {
    HEAD "}",
    HEAD ",\"curves\":[]}",
    CURVE("allreduce", "ring", "[[4,1.5]]"),
    CURVE("broadcast", "tree", "[[4,1],[16,2],[64,1e6]]"),
    HEAD ",\"graph\":[\"gpu a\",\"gpu b\",\"link a b 3\"]}",
    HEAD ",\"codecs\":[{\"codec\":\"int8\",\"encode_gbps\":1,\"decode_gbps\":2}]}",
    HEAD ",\"links\":{\"shm_gbps\":4}}",
    /* what a later version may add */
    HEAD ",\"weather\":{\"sun\":[1,2,{}]},\"links\":{\"rdma\":null},\"release\":7}",
    HEAD ",\"curves\":[{\"op\":\"reduce\",\"algo\":\"ring\",\"codec\":\"a plug-in's\",\"note\":1,"
         "\"points\":[[9,9]]}]}",
};

static const struct bad {
    const char *text, *says;
} bad[] = {
    {"", "line 1"},
    {"[", "line 1"},
    {"null", "line 1"},
    {"[1]", "no plan file"},
    {"{}", "no plan file"},
    {"{\"cinch_plans\":\"1\"}", "no plan file"},
    {"{\"cinch_plans\":2}", "\"cinch_plans\" is 2, and this version reads 1"},
    {"{\"cinch_plans\":1}", "\"ranks\" is no whole number from 1 to 65535"},
    {"{\"cinch_plans\":1,\"ranks\":0}", "\"ranks\""},
    {"{\"cinch_plans\":1,\"ranks\":2.5}", "\"ranks\""},
    {"{\"cinch_plans\":1,\"ranks\":65536}", "\"ranks\""},
    {"{\"cinch_plans\":1,\"ranks\":99999999999999999999}", "too big"},
    {"{\"cinch_plans\":1,\"ranks\":2}", "\"machine\" is no string"},
    {"{\"cinch_plans\":1,\"ranks\":2,\"machine\":\"m\"}", "\"hosts\" has 0 items for 2 ranks"},
    {"{\"cinch_plans\":1,\"ranks\":2,\"machine\":\"a\\nb\",\"hosts\":[0,0]}", "control character"},
    {"{\"cinch_plans\":1,\"ranks\":2,\"machine\":\"a\\u0000b\",\"hosts\":[0,0]}", "line 1"},
    {"{\"cinch_plans\":1,\"ranks\":2,\"machine\":\"m\",\"hosts\":[1,0]}", "hosts[0]"},
    {"{\"cinch_plans\":1,\"ranks\":2,\"machine\":\"m\",\"hosts\":[0,2]}", "hosts[1]"},
    {"{\"cinch_plans\":1,\"ranks\":2,\"machine\":\"m\",\"hosts\":[0,-1]}", "hosts[1]"},
    {"{\"cinch_plans\":1,\"ranks\":2,\"machine\":\"m\",\"hosts\":[0,0,0]}", "3 items for 2 ranks"},
    {"{\"cinch_plans\":1,\"ranks\":2,\"machine\":\"m\",\"hosts\":{}}", "\"hosts\" is no array"},
    {"{\"cinch_plans\":1,\"cinch_plans\":1}", "duplicate"},
    {HEAD ",\"links\":[]}", "\"links\" is no object"},
    {HEAD ",\"links\":{\"shm_gbps\":-1}}", "\"shm_gbps\" is no number from 0"},
    {HEAD ",\"links\":{\"shm_alpha_us\":\"1\"}}", "\"shm_alpha_us\""},
    {HEAD ",\"links\":{\"net_alpha_us\":1e999}}", "overflow"},
    {HEAD ",\"links\":{\"net_alpha_us\":NaN}}", "line 1"},
    {HEAD ",\"graph\":[1]}", "graph[0]: no string"},
    {HEAD ",\"graph\":[\"gpu a\",\"gpu a\"]}", "graph, line 2"},
    {HEAD ",\"graph\":[\"gpu a\"]}", "\"graph\" has 1 GPUs for 2 ranks"},
    {HEAD ",\"graph\":[\"gpu a\",\"gpu b\",\"link a b 1e999\"]}", "graph, line 3"},
    {HEAD ",\"codecs\":[{}]}", "codecs[0]: \"codec\" is no string"},
    {HEAD ",\"codecs\":[{},{},{},{},{}]}", "\"codecs\" has 5 items, and at most 4"},
    {HEAD ",\"codecs\":[{\"codec\":\"int8\",\"encode_gbps\":null}]}", "codecs[0]: \"encode_gbps\""},
    {HEAD ",\"curves\":{}}", "\"curves\" is no array"},
    {HEAD ",\"curves\":[7]}", "curves[0]: \"op\" is no string"},
    {CURVE("allreduse", "ring", "[[4,1]]"), "curves[0]: \"allreduse\" is no operation"},
    {CURVE("allreduce", "rings", "[[4,1]]"), "\"rings\" is no algorithm of allreduce"},
    {CURVE("alltoall", "ring", "[[4,1]]"), "\"ring\" is no algorithm of alltoall"},
    {CURVE("sendrecv", "direct", "[[4,1]]"), "\"direct\" is no algorithm of sendrecv"},
    {CURVE("allreduce", "a-name-of-more-than-it-takes", "[[4,1]]"), "at most 15 are accepted"},
    {CURVE("allreduce", "ring", "[]"), "curves[0]: it has no points"},
    {CURVE("allreduce", "ring", "{}"), "\"points\" is no array"},
    {CURVE("allreduce", "ring", "[4]"), "curves[0].points[0]: no pair"},
    {CURVE("allreduce", "ring", "[[4,1,1]]"), "curves[0].points[0]: no pair"},
    {CURVE("allreduce", "ring", "[[0,1]]"), "curves[0].points[0]: the bytes"},
    {CURVE("allreduce", "ring", "[[4,1],[4,2]]"), "curves[0].points[1]: the bytes"},
    {CURVE("allreduce", "ring", "[[4.5,1]]"), "curves[0].points[0]: the bytes"},
    {CURVE("allreduce", "ring", "[[4,0]]"), "curves[0].points[0]: the microseconds"},
    {CURVE("allreduce", "ring", "[[4,-1]]"), "curves[0].points[0]: the microseconds"},
    {CURVE("allreduce", "ring", "[[4,1e16]]"), "curves[0].points[0]: the microseconds"},
    {CURVE("allreduce", "ring", "[[4,\"1\"]]"), "curves[0].points[0]: the microseconds"},
    {HEAD ",\"curves\":[{\"op\":\"reduce\",\"algo\":\"ring\",\"codec\":\"x\",\"points\":[[4,1]]},"
          "{\"op\":\"reduce\",\"algo\":\"ring\",\"codec\":\"x\",\"points\":[[4,1]]}]}",
     "curves[1]: a second curve of reduce by ring with codec x"},
    {HEAD "} {}", "line 1"},
};
enum { GOOD = sizeof good / sizeof *good, BAD = sizeof bad / sizeof *bad };

static cinchResult_t parse(const char *text, size_t length, cinch_tuned *t) {
    char *exact = malloc(length ? length : 1); /* a sanitizer sees what is read beyond it */
    memcpy(exact, text, length);
    *t = (cinch_tuned){0};
    cinchResult_t result = cinch_planfile_parse(exact, length, "p.json", t);
    free(exact);
    return result;
}

static bool is_empty(const cinch_tuned *t) {
    static const cinch_tuned none;
    return memcmp(t, &none, sizeof none) == 0;
}

/* Every text that is accepted is written, and read as the same. */
static void write_and_read(const cinch_tuned *t) {
    char *once, *twice;
    size_t length, again;
    cinch_tuned back;
    ck_assert_int_eq(cinch_planfile_text(t, &once, &length), cinchSuccess);
    ck_assert_msg(parse(once, length, &back) == cinchSuccess, "%s\n%s", cinch_last_error(), once);
    ck_assert_int_eq(cinch_planfile_text(&back, &twice, &again), cinchSuccess);
    ck_assert_str_eq(once, twice);
    ck_assert_uint_eq(length, strlen(once));
    ck_assert_int_eq(back.curves, t->curves);
    cinch_tuned_free(&back);
    free(once);
    free(twice);
}

START_TEST(accepts) {
    cinch_tuned t;
    ck_assert_msg(parse(good[_i], strlen(good[_i]), &t) == cinchSuccess, "%s: %s", good[_i],
                  cinch_last_error());
    ck_assert(t.ranks == 2 && t.hosts == 1);
    write_and_read(&t);
    cinch_tuned_free(&t);
}
END_TEST

START_TEST(refuses) {
    cinch_tuned t;
    ck_assert_msg(parse(bad[_i].text, strlen(bad[_i].text), &t) == cinchInvalidArgument, "%s",
                  bad[_i].text);
    ck_assert_msg(strstr(cinch_last_error(), bad[_i].says) != NULL, "%s: \"%s\" has no \"%s\"",
                  bad[_i].text, cinch_last_error(), bad[_i].says);
    ck_assert_msg(strncmp(cinch_last_error(), "p.json", 6) == 0, "%s", cinch_last_error());
    ck_assert(is_empty(&t));
}
END_TEST

/* ---- round trips ---- */

static void random_table(cinch_tuned *t, uint64_t *state) {
    static const char *const names[] = {"oneshot", "twoshot", "ring", "tree", "direct"};
    static const char *const codecs[] = {"none", "int8", "topk:ratio=0.01,ef=1"};
    *t = (cinch_tuned){.ranks = 1 + (int)(random64(state) % 40)};
    snprintf(t->machine, sizeof t->machine, "2 x \"quoted\" \\ \xc3\xa9 / %d", t->ranks);
    t->host = calloc((size_t)t->ranks, sizeof *t->host);
    t->hosts = 1;
    for (int i = 1; i < t->ranks; i++) {
        t->host[i] = (uint16_t)(random64(state) % (uint64_t)(t->hosts + 1));
        t->hosts += t->host[i] == t->hosts;
    }
    t->shm_gbps = random_number(state);
    t->net_alpha_us = random_number(state);
    t->speeds = (int)(random64(state) % 5);
    for (int i = 0; i < t->speeds; i++)
        t->speed[i] = (cinch_codec_speed){"int8", random_number(state), random_number(state)};
    for (int i = 0; i < 12; i++) {
        cinch_curve *c;
        cinch_tuned_curve(t, CINCH_ALLREDUCE, names[random64(state) % 5],
                          codecs[random64(state) % 3], &c);
        if (c->points) continue;
        uint64_t bytes = 0;
        c->points = 1 + (int)(random64(state) % CINCH_CURVE_MOST);
        for (int k = 0; k < c->points; k++) {
            c->point[k].bytes = bytes += 1 + random64(state) % ((uint64_t)1 << (k + 20));
            c->point[k].us = random_number(state);
        }
    }
}

static void random_graph(cinch_tuned *t, uint64_t *state) {
    char name[16];
    for (int i = 0; i < t->ranks; i++) {
        snprintf(name, sizeof name, "r%d", i);
        cinch_graph_add_node(&t->graph, name, CINCH_NODE_GPU, CINCH_PART_OTHER, 0, NULL);
    }
    for (int i = 1; i < t->ranks; i++)
        cinch_graph_add_link(&t->graph, i, (int)(random64(state) % (uint64_t)i),
                             random_number(state), random_number(state), CINCH_LINK_OTHER);
}

START_TEST(round_trips) {
    uint64_t state = 31;
    for (int round = 0; round < 100; round++) {
        cinch_tuned t, back;
        char *text;
        size_t length;
        random_table(&t, &state);
        if (round % 2) random_graph(&t, &state);
        ck_assert_int_eq(cinch_planfile_text(&t, &text, &length), cinchSuccess);
        ck_assert_msg(parse(text, length, &back) == cinchSuccess, "%s", cinch_last_error());
        ck_assert_str_eq(t.machine, back.machine);
        ck_assert(t.ranks == back.ranks && t.hosts == back.hosts && t.curves == back.curves);
        ck_assert(memcmp(t.host, back.host, (size_t)t.ranks * sizeof *t.host) == 0);
        ck_assert(t.speeds == back.speeds && t.graph.arcs == back.graph.arcs);
        ck_assert_double_eq_tol(t.shm_gbps, back.shm_gbps, 1e-8 * t.shm_gbps);
        ck_assert_double_eq_tol(t.net_alpha_us, back.net_alpha_us, 1e-8 * t.net_alpha_us);
        for (int i = 0; i < t.curves; i++) {
            const cinch_curve *a = &t.curve[i], *b = &back.curve[i];
            ck_assert(a->collective == b->collective && a->points == b->points);
            ck_assert_str_eq(a->algo, b->algo);
            ck_assert_str_eq(a->codec, b->codec);
            for (int k = 0; k < a->points; k++) {
                ck_assert_uint_eq(a->point[k].bytes, b->point[k].bytes);
                ck_assert_double_eq_tol(a->point[k].us, b->point[k].us, 1e-8 * a->point[k].us);
            }
        }
        write_and_read(&t);
        free(text);
        cinch_tuned_free(&t);
        cinch_tuned_free(&back);
    }
}
END_TEST

/* ---- hostile texts ---- */

START_TEST(mutants) {
    uint64_t state = 17;
    int accepted = 0;
    cinch_tuned t, from;
    char *text;
    size_t length;
    random_table(&from, &state);
    from.curves = 3;
    random_graph(&from, &state);
    ck_assert_int_eq(cinch_planfile_text(&from, &text, &length), cinchSuccess);
    cinch_tuned_free(&from);
    for (int round = 0; round < 3000; round++) {
        char *copy = malloc(length + 1);
        memcpy(copy, text, length + 1);
        for (uint64_t k = 1 + random64(&state) % 3; k; k--) {
            static const char likely[] = "0123456789-.e,:[]{}\"n \\";
            copy[random64(&state) % length] = random64(&state) % 8
                                                  ? likely[random64(&state) % (sizeof likely - 1)]
                                                  : (char)random64(&state);
        }
        size_t cut = random64(&state) % 8 ? length : random64(&state) % length;
        cinchResult_t result = parse(copy, cut, &t);
        if (result == cinchSuccess) {
            accepted++;
            write_and_read(&t);
            cinch_tuned_free(&t);
        } else {
            ck_assert_int_eq(result, cinchInvalidArgument);
            ck_assert(cinch_last_error()[0] && is_empty(&t));
        }
        free(copy);
    }
    ck_assert(accepted > 30 && accepted < 2970);
    free(text);
}
END_TEST

START_TEST(deep_and_long) {
    cinch_tuned t;
    size_t most = CINCH_PLANFILE_MOST_BYTES + 1;
    char *text = malloc(most);
    memset(text, '[', most);
    ck_assert_int_eq(parse(text, most - 1, &t), cinchInvalidArgument);
    ck_assert_int_eq(parse(text, most, &t), cinchInvalidArgument);
    ck_assert_ptr_nonnull(strstr(cinch_last_error(), "at most 8388608 are accepted"));
    for (size_t i = 0; i < most; i++) text[i] = "{\"a\":"[i % 5];
    ck_assert_int_eq(parse(text, most - 1, &t), cinchInvalidArgument);
    /* many of everything */
    static const char *const lists[] = {"hosts", "graph", "curves", "codecs"};
    for (int k = 0; k < 4; k++) {
        int used = sprintf(text, "{\"cinch_plans\":1,\"machine\":\"m\",\"ranks\":1,%s\"%s\":[",
                           k ? "\"hosts\":[0]," : "", lists[k]);
        for (; used < CINCH_PLANFILE_MOST_BYTES - 8; used += 2) memcpy(text + used, "0,", 2);
        memcpy(text + used, "0]}", 3);
        ck_assert_int_eq(parse(text, (size_t)used + 3, &t), cinchInvalidArgument);
    }
    free(text);
}
END_TEST

/* ---- files ---- */

static char folder[] = "/tmp/cinch_planfile_XXXXXX";

static void in_folder(char path[64], const char *name) {
    snprintf(path, 64, "%s/%s", folder, name);
}

START_TEST(files) {
    cinch_tuned t, back = {0};
    char path[64], other[64], why[128], *text;
    size_t length;
    uint64_t state = 3;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    in_folder(path, "plans.json");
    random_table(&t, &state);
    ck_assert_int_eq(cinch_planfile_write(&t, path), cinchSuccess);
    ck_assert_int_eq(cinch_planfile_write(&t, path), cinchSuccess); /* in place of the first */
    text = cinch_planfile_load(path, &length, why, sizeof why);
    ck_assert_msg(text && text[length] == '\0', "%s", why);
    ck_assert_int_eq(cinch_planfile_parse(text, length, path, &back), cinchSuccess);
    ck_assert_int_eq(back.curves, t.curves);
    cinch_tuned_free(&back);
    free(text);
    /* what cannot be written leaves the old file, and nothing beside it */
    t.shm_gbps = NAN;
    ck_assert_int_eq(cinch_planfile_write(&t, path), cinchInvalidArgument);
    t.shm_gbps = 1;
    t.curve[0].point[0].us = INFINITY;
    ck_assert_int_eq(cinch_planfile_write(&t, path), cinchInvalidArgument);
    t.curve[0].point[0].us = 1;
    strcpy(t.machine, "\xff\xfe");
    ck_assert_int_eq(cinch_planfile_write(&t, path), cinchInvalidArgument);
    strcpy(t.machine, "m");
    ck_assert_int_eq(cinch_planfile_write(&t, "/nonexistent/plans.json"), cinchSystemError);
    in_folder(other, "folder");
    ck_assert_int_eq(mkdir(other, 0755), 0);
    ck_assert_int_eq(cinch_planfile_write(&t, other), cinchSystemError);
    ck_assert_ptr_null(cinch_planfile_load(other, &length, why, sizeof why));
    ck_assert_str_eq(why, "it is no regular file");
    ck_assert_int_eq(rmdir(other), 0);
    ck_assert_int_eq(mkfifo(other, 0600), 0); /* without a writer: it must not wait */
    ck_assert_ptr_null(cinch_planfile_load(other, &length, why, sizeof why));
    unlink(other);
    ck_assert_int_eq(truncate(path, CINCH_PLANFILE_MOST_BYTES + 1), 0);
    ck_assert_ptr_null(cinch_planfile_load(path, &length, why, sizeof why));
    ck_assert_ptr_nonnull(strstr(why, "at most 8388608"));
    unlink(path);
    ck_assert_ptr_null(cinch_planfile_load(path, &length, why, sizeof why));
    ck_assert_str_eq(why, "No such file or directory");
    ck_assert_int_eq(rmdir(folder), 0); /* it is empty */
    cinch_tuned_free(&t);
}
END_TEST

static int write_corpus(const char *to_folder) {
    for (int i = 0; i < GOOD + BAD; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%d", to_folder, i);
        FILE *to = fopen(path, "w");
        if (!to || fputs(i < GOOD ? good[i] : bad[i - GOOD].text, to) < 0 || fclose(to) != 0)
            return 2;
    }
    return 0;
}

/* Without Jansson there is one answer. */
static bool reads_plans(void) {
    cinch_tuned t = {0};
    bool reads = cinch_planfile_parse(good[0], strlen(good[0]), "p", &t) == cinchSuccess;
    cinch_tuned_free(&t);
    return reads || !strstr(cinch_last_error(), "no Jansson");
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--corpus") == 0) return write_corpus(argv[2]);
    cinch_log_threshold = CINCH_LOG_NONE;
    Suite *suite = suite_create("planfile");
    TCase *all = tcase_create("planfile");
    tcase_set_timeout(all, 60);
    if (reads_plans()) {
        tcase_add_loop_test(all, accepts, 0, GOOD);
        tcase_add_loop_test(all, refuses, 0, BAD);
        tcase_add_test(all, round_trips);
        tcase_add_test(all, mutants);
        tcase_add_test(all, deep_and_long);
        tcase_add_test(all, files);
    }
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

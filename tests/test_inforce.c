/* SPDX-License-Identifier: Apache-2.0 */
/* Plan files in force: what made-up curves say is what is done; files of others are refused; parts
 * of a job do without; what is in force can be dumped. */
#include <math.h>

#include "tests/tables.h"

/* ---- the choice ---- */

/* tree to 1 KiB, halving at 32 KiB, direct at 1 MiB, ring at 32 MiB; broadcasts go directly */
static void add_choice(cinch_tuned *t) {
    static const double tree[] = {10, 300, 3000, 90000}, halving[] = {30, 100, 3000, 90000},
                        direct[] = {30, 300, 1000, 90000}, ring[] = {30, 300, 3000, 30000};
    add(t, CINCH_ALLREDUCE, "tree", "none", tree);
    add(t, CINCH_ALLREDUCE, "halving", "none", halving);
    add(t, CINCH_ALLREDUCE, "direct", "none", direct);
    add(t, CINCH_ALLREDUCE, "ring", "none", ring);
    add(t, CINCH_BROADCAST, "direct", "none", direct);
    add(t, CINCH_BROADCAST, "ring", "none", tree);
}

static void follows(seat *me) {
    CHECK_OK(me, me->init);
    CHECK_PLAN(me, "allreduce", 4, "algo", "tree");
    CHECK_PLAN(me, "allreduce", 1024, "algo", "tree");
    CHECK_PLAN(me, "allreduce", 32 << 10, "algo", "halving");
    CHECK_PLAN(me, "allreduce", 1 << 20, "algo", "direct");
    CHECK_PLAN(me, "allreduce", 32 << 20, "algo", "ring");
    CHECK_PLAN(me, "allreduce", 1 << 30, "algo", "ring");
    CHECK_PLAN(me, "broadcast", 1024, "algo", "ring");
    CHECK_PLAN(me, "broadcast", 1 << 20, "algo", "direct");
    CHECK_PLAN(me, "allreduce", 1024, "predicted_us", "10");
    CHECK_PLAN(me, "allreduce", 32 << 20, "predicted_us", "30000");
    CHECK_PLAN(me, "broadcast", 1 << 20, "predicted_us", "1000");
    CHECK_PLAN(me, "sendrecv", 1 << 20, "predicted_us", "null");
    double guess = cinch_op_predict(me->comm, CINCH_ALLTOALL, 1 << 20, false);
    CHECK(me, guess > 0 && isfinite(guess), "%g", guess); /* by the model */
    CHECK(me, isnan(cinch_op_predict(me->comm, CINCH_ALLREDUCE, 1 << 20, true)));
    CHECK(me, adds_up(me->comm, me->rank, me->nranks * (me->nranks - 1) / 2));
}

static void follows_not(seat *me) {
    CHECK_OK(me, me->init);
    CHECK_PLAN(me, "allreduce", 1 << 20, "algo", "ring");
    CHECK_PLAN(me, "allreduce", 1 << 20, "predicted_us", "3000");
    CHECK(me, adds_up(me->comm, me->rank, me->nranks * (me->nranks - 1) / 2));
}

START_TEST(selection_follows_the_table) {
    for (int hosts = 1; hosts <= 2; hosts++) {
        char path[96], copy[96];
        cinch_tuned t = table_of(4, hosts);
        add_choice(&t);
        write_table(&t, path, "plans.json");
        write_table(&t, copy, "copy.json");
        give(4, path);
        run(4, "", follows);
        run(4, "CINCH_ALGO=allreduce:ring", follows_not); /* a name wins */
        give(1, path);                                    /* rank 0's counts */
        run(4, "", follows);
        give(4, path); /* by what is in it, not by its name */
        snprintf(b->own[1], sizeof b->own[1], "%s", copy);
        snprintf(b->own[2], sizeof b->own[2], "/nonexistent/plans.json");
        run(4, "", follows);
        cinch_tuned_free(&t);
    }
}
END_TEST

/* Trees are planned where the table has a curve of theirs, and for that alone; calls without a
 * curve are guessed at by the table's graph and latency. */
static void has_trees(seat *me) {
    CHECK_OK(me, me->init);
    CHECK_PLAN(me, "broadcast", 1 << 20, "algo", "forest");
    CHECK_PLAN(me, "broadcast", 1 << 20, "predicted_us", "700");
    CHECK(me, cinch_atlas_forest(me->comm, CINCH_BROADCAST, 0) != NULL);
    CHECK(me, cinch_atlas_forest(me->comm, CINCH_ALLREDUCE, 0) == NULL);
    CHECK(me, cinch_atlas_forest(me->comm, CINCH_REDUCE, 0) == NULL);
    const cinch_pace *pace = cinch_atlas_pace(me->comm);
    CHECK(me, pace && pace->step_us == 33 && fabs(pace->byte_us - 0.01) < 1e-9);
    CHECK(me, adds_up(me->comm, me->rank, me->nranks * (me->nranks - 1) / 2));
}

START_TEST(trees_where_they_were_measured) {
    static const char star[] = "gpu a\ngpu b\ngpu c\ngpu d\nswitch s\nlink a s 5\nlink b s 5\n"
                               "link c s 0.1\nlink d s 5\n";
    static const double trees[] = {10, 100, 700, 20000};
    char path[96];
    cinch_tuned t = table_of(4, 2);
    add_choice(&t);
    add(&t, CINCH_BROADCAST, "forest", "none", trees);
    t.net_alpha_us = 33;
    cinch_graph_free(&t.graph);
    OK(cinch_graph_read(&t.graph, star, strlen(star), "a star"));
    write_table(&t, path, "plans.json");
    give(4, path);
    run(4, "", has_trees);
    cinch_tuned_free(&t);
}
END_TEST

/* The fast path goes as far as one-shot is within 3 % of the best, and no further. */
static void fast_path(seat *me) {
    CHECK_OK(me, me->init);
    CHECK(me, me->comm->oneshot_most == (size_t)me->comm->settings.warn_ms, "%zu",
          (size_t)me->comm->oneshot_most);
    CHECK(me, adds_up(me->comm, me->rank, me->nranks * (me->nranks - 1) / 2));
}

START_TEST(the_fast_path_ends_where_the_table_says) {
    /* in CINCH_WARN_MS: what is expected of the case */
    static const struct {
        double one[4];
        const char *env;
    } cases[] = {
        {{1, 1, 1, 1}, "CINCH_WARN_MS=262144"},  /* as far as it ever goes */
        {{1.02, 4, 4, 4}, "CINCH_WARN_MS=1151"}, /* to where the first class ends */
        {{1.02, 1.02, 4, 4}, "CINCH_WARN_MS=36863"},
        {{1.05, 1, 1, 1}, "CINCH_WARN_MS=0"}, /* never */
    };
    static const double tree[] = {1, 1, 1, 1};
    for (int i = 0; i < 4; i++) {
        char path[96];
        cinch_tuned t = table_of(3, 1);
        add(&t, CINCH_ALLREDUCE, "oneshot", "none", cases[i].one);
        add(&t, CINCH_ALLREDUCE, "tree", "none", tree);
        write_table(&t, path, "plans.json");
        give(3, path);
        run(3, cases[i].env, fast_path);
        cinch_tuned_free(&t);
    }
}
END_TEST

/* ---- refused ---- */

static void note(seat *me) {
    board *shared = me->shared;
    shared->code[me->rank] = me->init;
    snprintf(shared->why[me->rank], sizeof shared->why[0], "%s", me->why);
    shared->used[me->rank] = me->comm && me->comm->tuned;
}

static void refused(int nranks, const char *env, const char *says) {
    run_logs(nranks, env, note, "*");
    for (int r = 0; r < nranks; r++) {
        ck_assert_msg(b->code[r] == cinchInvalidUsage, "%s: rank %d: %d \"%s\"", says, r,
                      b->code[r], b->why[r]);
        ck_assert_msg(strstr(b->why[r], says) != NULL, "rank %d: \"%s\" has no \"%s\"", r,
                      b->why[r], says);
        ck_assert_str_eq(b->why[r], b->why[0]);
    }
}

static void write_text(char path[96], const char *name, const char *text) {
    path_of(path, name);
    FILE *to = fopen(path, "w");
    ck_assert(to && fputs(text, to) >= 0 && fclose(to) == 0);
}

START_TEST(files_of_others_are_refused) {
    char path[96], other[96];
    cinch_tuned t = table_of(4, 2);
    add_choice(&t);
    write_table(&t, path, "plans.json");
    t.curve[0].point[0].us += 1;
    write_table(&t, other, "other.json");
    t.curve[0].point[0].us -= 1;
    give(4, path);
    snprintf(b->own[2], sizeof b->own[2], "%s", other);
    refused(4, "", "the plan files of rank 0 and rank 2 differ");
    give(4, path);
    b->own[0][0] = '\0';
    refused(4, "", "rank 1 has a plan file and rank 0, whose counts, has none");
    give(4, "/nonexistent/plans.json");
    refused(4, "", "CINCH_PLAN_FILE=/nonexistent/plans.json: No such file or directory (rank 0)");
    give(4, folder);
    refused(4, "", "it is no regular file (rank 0)");
    give(3, path);
    refused(3, "", "CINCH_PLAN_FILE is for 4 ranks, and these are 3");
    give(4, path);
    b->hosts = 1;
    refused(4, "",
            "CINCH_PLAN_FILE is for another placement: rank 1 is on host 1 of 2 there, and "
            "on host 0 of 1 here");
    b->hosts = 2;
    b->apart = true;
    refused(4, "", "; sites 0,1\" here");
    b->apart = false;
    refused(4, "CINCH_TRANSPORT=tcp", "for another machine: \"2 x 2 ranks on ");
    write_text(other, "other.json", "{\"cinch_plans\":1,\"ranks\":4,");
    give(4, other);
    refused(4, "", "CINCH_PLAN_FILE: line 1");
    write_text(other, "other.json", "{\"cinch_plans\":9}");
    give(1, other);
    refused(4, "", "\"cinch_plans\" is 9");
    strcpy(t.machine, "2 x 2 ranks on an abacus");
    write_table(&t, other, "other.json");
    give(4, other);
    refused(4, "", "CINCH_PLAN_FILE is for another machine: \"2 x 2 ranks on an abacus\" there, ");
    cinch_tuned_free(&t);
}
END_TEST

static void expect_part(seat *me) {
    CHECK_OK(me, me->init);
    CHECK(me, me->comm->tuned == NULL);
    CHECK(me, adds_up(me->comm, me->rank, me->nranks * (me->nranks - 1) / 2));
}

static void split_it(seat *me) {
    CHECK_OK(me, me->init);
    CHECK(me, me->comm->tuned != NULL);
    cinchComm_t half, all;
    CHECK_OK(me, cinchCommSplit(me->comm, me->rank / 2, 0, &half, NULL));
    CHECK(me, half->tuned == NULL && adds_up(half, 1, 2));
    CHECK_OK(me, cinchCommDestroy(half));
    CHECK_OK(me, cinchCommSplit(me->comm, 0, -me->rank, &all, NULL));
    CHECK(me, all->tuned == NULL && adds_up(all, 1, 4));
    CHECK_OK(me, cinchCommDestroy(all));
}

START_TEST(parts_of_a_job_do_without) {
    char path[96], text[128];
    cinch_tuned t = table_of(4, 2);
    add_choice(&t);
    write_table(&t, path, "plans.json");
    give(4, path);
    run(4, "", split_it);
    run(2, "CINCH_SIZE=4", expect_part);
    setenv("WORLD_SIZE", "4", 1);
    run(3, "", expect_part);
    setenv("WORLD_SIZE", "5", 1); /* the file is of another job */
    refused(3, "", "for 4 ranks, and these are 3");
    unsetenv("WORLD_SIZE");
    snprintf(text, sizeof text, "CINCH_SIZE=3");
    refused(3, text, "for 4 ranks, and these are 3");
    cinch_tuned_free(&t);
}
END_TEST

START_TEST(what_is_in_force_is_dumped) {
    char path[96], out[96], env[160], why[160], *in_force, *given;
    size_t a, c;
    cinch_tuned t = table_of(4, 2);
    add_choice(&t);
    write_table(&t, path, "plans.json");
    path_of(out, "out.json");
    give(4, path);
    snprintf(env, sizeof env, "CINCH_PLAN_DUMP=%s", out);
    run(4, env, do_nothing);
    given = cinch_planfile_load(path, &a, why, sizeof why);
    in_force = cinch_planfile_load(out, &c, why, sizeof why);
    ck_assert_str_eq(given, in_force);
    free(given);
    free(in_force);
    cinch_tuned_free(&t);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {selection_follows_the_table,
                                  trees_where_they_were_measured,
                                  the_fast_path_ends_where_the_table_says,
                                  files_of_others_are_refused,
                                  parts_of_a_job_do_without,
                                  what_is_in_force_is_dumped};
    return run_table_tests("inforce", tests, sizeof tests / sizeof *tests);
}

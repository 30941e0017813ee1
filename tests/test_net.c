/* SPDX-License-Identifier: Apache-2.0 */
/* Which transport each pair of ranks gets, and what happens where none is left. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/net_ranks.h"
#include "transports/names.h"
#include "transports/shm.h"

/* ---- CINCH_TRANSPORT ---- */

/* order: the transports in order, as the first letters of their names; NULL: refused. What is not
 * in this build can be left out, and be in the lists that name nothing. */
static const struct {
    const char *text, *order, *says;
} lists[] = {
    {"auto", "svut", NULL},
    {"shm", "s", NULL},
    {"tcp", "t", NULL},
    {"shm,tcp", "st", NULL},
    {"tcp,shm", "ts", NULL},
    {"tcp,tcp", "t", NULL},
    {"^tcp", "svu", NULL},
    {"^shm", "vut", NULL},
    {"^ucx,verbs", "st", NULL},
    {"^verbs,tcp", "su", NULL},
    {"^nccl,ucx,tcp", "sv", NULL},
    {"^shm,tcp,ucx,verbs", NULL, "leaves no transport"},
    {"", NULL, "an empty name"},
    {"^", NULL, "an empty name"},
    {"shm,", NULL, "an empty name"},
    {",shm", NULL, "an empty name"},
    {"shm,auto", NULL, "\"auto\" is no transport"},
    {"SHM", NULL, "\"SHM\" is no transport; accepted: auto, or a list out of shm,verbs,ucx,tcp"},
    {"shm tcp", NULL, "no transport"},
    {"^x", NULL, "\"x\" is no transport"},
    {"nccl", NULL, "\"nccl\" leaves no transport"},
    {"a-name-that-is-much-longer-than-any-transport-should-have-and-goes-on-and-on-and-on-and-on",
     NULL, "no transport"},
};

START_TEST(test_lists) {
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        cinch_transport_list list;
        char why[200] = "", got[8] = "";
        bool good = cinch_transport_list_parse(lists[i].text, &list, why, sizeof why);
        ck_assert_msg(good == (lists[i].order != NULL), "%s: %s", lists[i].text, why);
        ck_assert(cinch_transport_parse(lists[i].text, why, sizeof why) == good);
        for (int k = 0; good && k < list.count; k++)
            got[k] = cinch_transport_at(list.index[k])->name[0];
        if (good)
            ck_assert_str_eq(got, lists[i].order);
        else
            ck_assert_msg(strstr(why, lists[i].says) != NULL, "%s: %s", lists[i].text, why);
    }
}
END_TEST

START_TEST(test_table) {
    static const char *const names[] = {"shm", "verbs", "ucx", "tcp"};
    int rows = 0;
    for (const cinch_transport *t; (t = cinch_transport_at(rows)); rows++) {
        cinch_transport_list list;
        char why[200];
        ck_assert_str_eq(t->name, names[rows]);
        ck_assert(cinch_transport_list_parse(t->name, &list, why, sizeof why) == (t->open != NULL));
        if (t->open) continue;
        ck_assert_ptr_nonnull(strstr(t->unusable(), "not in this build"));
        ck_assert_ptr_nonnull(strstr(why, t->unusable()));
    }
    ck_assert_int_eq(rows, CINCH_TRANSPORTS);
    ck_assert_ptr_null(cinch_transport_at(-1));
    ck_assert_ptr_null(cinch_transport_at(0)->unusable());
}
END_TEST

/* ---- hosts ---- */

/* A case: hosts by a letter per rank, and what rank 0's and others' links must be. */
static const struct hosts {
    const char *transport, *hosts; /* hosts NULL: all on this one, really */
} layouts[] = {
    {"auto", NULL},      {"tcp", NULL},       {"^shm", NULL},   {"tcp,shm", NULL}, {"auto", "aa"},
    {"auto", "ab"},      {"auto", "aab"},     {"auto", "abab"}, {"auto", "aabbc"}, {"tcp", "aab"},
    {"tcp,shm", "aabb"}, {"shm,tcp", "aabb"}, {"shm", "aaa"},   {"auto", "a"},
};

static void check_links(net_rank *me) {
    const struct hosts *layout = me->shared;
    bool shm_first = strcmp(layout->transport, "tcp") != 0 &&
                     strcmp(layout->transport, "^shm") != 0 &&
                     strcmp(layout->transport, "tcp,shm") != 0;
    int sharing = 0;
    NET_CHECK(me, me->net->rank == me->rank && me->net->nranks == me->nranks);
    for (int r = 0; r < me->nranks; r++) {
        bool local = !layout->hosts || layout->hosts[r] == layout->hosts[me->rank];
        cinch_link *link = me->net->link[r];
        NET_CHECK(me, me->net->local[r] == local, "rank %d", r);
        NET_CHECK(me, (link == NULL) == (r == me->rank));
        if (!link) continue;
        NET_CHECK(me, link->peer == r && link->pending == 0 && link->wire_bytes == 0);
        bool shm = local && shm_first;
        sharing += shm;
        NET_CHECK(me, strcmp(link->ops->name, shm ? "shm" : "tcp") == 0, "rank %d", r);
    }
    NET_CHECK(me, (me->net->shm != NULL) == (sharing > 0));
    for (int r = 0; me->net->shm && r < me->nranks; r++)
        NET_CHECK(me, (me->net->shm->window[r].flag != NULL) == me->net->local[r]);
    NET_CHECK(me, net_barrier(me));
}

START_TEST(test_hosts) {
    const struct hosts *layout = &layouts[_i];
    char names[8][2];
    const char *hostids[8];
    for (int r = 0; layout->hosts && layout->hosts[r]; r++) {
        snprintf(names[r], sizeof names[r], "%c", layout->hosts[r]);
        hostids[r] = names[r];
    }
    net_run(&(net_case){.nranks = layout->hosts ? (int)strlen(layout->hosts) : 3,
                        .transport = layout->transport,
                        .hostids = layout->hosts ? hostids : NULL,
                        .options = {.stage_bytes = 4096},
                        .body = check_links,
                        .shared = (void *)(uintptr_t)layout});
}
END_TEST

/* ---- refusals, the same on every rank ---- */

static void check_sentence(net_rank *me) {
    const char *says = me->shared;
    NET_CHECK(me, me->net == NULL && me->opened != cinchSuccess);
    NET_CHECK(me, strstr(me->opening, says), "%s", me->opening);
}

static void check_refusal(net_rank *me) {
    NET_CHECK(me, me->opened == cinchInvalidUsage, "%d", me->opened);
    check_sentence(me);
}

static void refuse(const char *const *transports, const char *const *hostids, const char *says) {
    net_run(&(net_case){.nranks = 3,
                        .transports = transports,
                        .hostids = hostids,
                        .options = {.stage_bytes = 4096},
                        .body = check_refusal,
                        .may_fail = true,
                        .shared = (void *)(uintptr_t)says});
}

START_TEST(test_refusals) {
    refuse((const char *[]){"shm", "shm", "shm"}, (const char *[]){"a", "a", "b"},
           "ranks 0 and 2 have no transport between them (shm: they are on different hosts; "
           "verbs: left out by CINCH_TRANSPORT; ucx: left out by CINCH_TRANSPORT; tcp: left out by "
           "CINCH_TRANSPORT)");
    refuse((const char *[]){"auto", "nccl", "auto"}, NULL,
           "rank 1: CINCH_TRANSPORT: \"nccl\" leaves no transport");
    refuse((const char *[]){"auto", "auto", "tcp"}, NULL,
           "ranks 0 and 2 have different values of CINCH_TRANSPORT");
    refuse((const char *[]){"shm,tcp", "tcp,shm", "shm,tcp"}, NULL,
           "ranks 0 and 1 have different values of CINCH_TRANSPORT");
}
END_TEST

static void other_checksum(net_rank *me, cinch_net_options *options) {
    options->checksum = me->rank == 1;
}

static void other_stage(net_rank *me, cinch_net_options *options) {
    options->stage_bytes += (size_t)me->rank;
}

START_TEST(test_different_options) {
    net_case c = {.nranks = 3,
                  .transport = "auto",
                  .options = {.stage_bytes = 4096},
                  .setup = other_checksum,
                  .body = check_refusal,
                  .may_fail = true,
                  .shared =
                      (void *)(uintptr_t) "ranks 0 and 1 have different values of CINCH_CHECKSUM"};
    net_run(&c);
    c.setup = other_stage;
    c.body = check_sentence;
    c.shared = (void *)(uintptr_t) "rank 0 has a stage of 4096 bytes, rank 1 one of 4097";
    net_run(&c);
}
END_TEST

/* A rank that never comes to the net, and says why, ends the others' wait. */
static void give_up(net_rank *me, cinch_net_options *options) {
    (void)options;
    if (me->rank == 2) cinch_rendezvous_abort(me->rendezvous, "rank 2 gave up");
}

START_TEST(test_abort_reaches_all) {
    net_run(&(net_case){.nranks = 3,
                        .transport = "auto",
                        .options = {.stage_bytes = 4096},
                        .setup = give_up,
                        .body = check_sentence,
                        .may_fail = true,
                        .shared = (void *)(uintptr_t) "rank 2 gave up"});
}
END_TEST

/* What fails on one rank alone, in the middle of connecting, reaches the others at once. */
static void have_no_interface(net_rank *me, cinch_net_options *options) {
    (void)options;
    if (me->rank != 1) return;
    free(me->settings.socket_ifname);
    me->settings.socket_ifname = strdup("=no-such-interface");
}

START_TEST(test_failure_of_one_reaches_all) {
    net_run(&(net_case){.nranks = 3,
                        .transport = "auto",
                        .hostids = (const char *[]){"a", "b", "c"},
                        .options = {.stage_bytes = 4096},
                        .setup = have_no_interface,
                        .body = check_sentence,
                        .may_fail = true,
                        .shared = (void *)(uintptr_t) "no-such-interface"});
}
END_TEST

int main(void) {
    Suite *suite = suite_create("net");
    TCase *tests = tcase_create("net");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_lists);
    tcase_add_test(tests, test_table);
    tcase_add_loop_test(tests, test_hosts, 0, (int)(sizeof layouts / sizeof *layouts));
    tcase_add_test(tests, test_refusals);
    tcase_add_test(tests, test_different_options);
    tcase_add_test(tests, test_abort_reaches_all);
    tcase_add_test(tests, test_failure_of_one_reaches_all);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks of different builds: one lacks a transport that the others have, and whose opening would
 * need all ranks. The table of transports is this program's own, and each rank sees it its way. */
#include <check.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "tests/net_ranks.h"
#include "transports/names.h"
#include "transports/tcp.h"

static _Thread_local bool lacking;
static _Atomic int opened;

static const char *usable(void) {
    return NULL;
}

static const char *not_built(void) {
    return "not in this build";
}

static cinchResult_t novel_open(const cinch_opening *job) {
    uint8_t all[16], mine = 1;
    atomic_fetch_add(&opened, 1);
    return cinch_rendezvous_allgather(job->rendezvous, &mine, 1, all);
}

const cinch_transport *cinch_transport_at(int index) {
    static const cinch_transport novel = {"novel", usable, novel_open, NULL};
    static const cinch_transport none = {"novel", not_built, NULL, NULL};
    if (index < 0 || index >= CINCH_TRANSPORTS) return NULL;
    return index > 0 ? &cinch_transport_tcp : lacking ? &none : &novel;
}

bool cinch_transport_list_parse(const char *text, cinch_transport_list *list, char *why,
                                size_t room) {
    (void)text, (void)why, (void)room;
    *list = (cinch_transport_list){.count = 2, .index = {0, 1}};
    return true;
}

bool cinch_transport_parse(const char *list, char *why, size_t room) {
    (void)list, (void)why, (void)room;
    return true;
}

static void choose(net_rank *me, cinch_net_options *options) {
    (void)options;
    lacking = me->rank == *(const int *)me->shared;
}

/* All pairs have tcp; where nobody lacks the other, it was asked first, and carried nothing. */
static void check_links(net_rank *me) {
    for (int r = 0; r < me->nranks; r++)
        NET_CHECK(me, r == me->rank || strcmp(me->net->link[r]->ops->name, "tcp") == 0);
    NET_CHECK(me, net_barrier(me));
    bool somebody = *(const int *)me->shared < me->nranks;
    NET_CHECK(me, atomic_load(&opened) == (somebody ? 0 : me->nranks), "%d", atomic_load(&opened));
    NET_CHECK(me, net_barrier(me));
}

/* The one that lacks it is the first, the last, or none. */
START_TEST(who_lacks_one_leaves_it_to_nobody) {
    int who = _i;
    net_run(&(net_case){.nranks = 3,
                        .transport = "auto",
                        .options = {.stage_bytes = 4096},
                        .setup = choose,
                        .body = check_links,
                        .shared = &who});
}
END_TEST

int main(void) {
    Suite *suite = suite_create("lacking");
    TCase *tests = tcase_create("lacking");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, who_lacks_one_leaves_it_to_nobody, 0, 4);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

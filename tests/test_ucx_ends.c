/* SPDX-License-Identifier: Apache-2.0 */
/* The ucx transport where something ends or is missing: links that are closed or stopped with
 * messages posted, a peer that dies after its messages, a child that closes its parent's links,
 * ranks that want no link, and a window full of bytes. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/net_ranks.h"
#include "transports/ucx.h"

extern const cinch_transport cinch_transport_ucx;

static void run(int nranks, bool processes, void (*body)(net_rank *me), void *shared) {
    net_run(&(net_case){.nranks = nranks,
                        .transport = "ucx",
                        .options = {.stage_bytes = 4096},
                        .body = body,
                        .processes = processes,
                        .shared = shared});
}

static void post(cinch_link *link, bool sends, cinch_msg *msg, void *data, size_t bytes,
                 uint64_t tag) {
    *msg = (cinch_msg){.data = data, .bytes = bytes, .tag = tag};
    (sends ? link->ops->send : link->ops->recv)(link, msg);
}

static void progress_for(cinch_link *link, uint64_t ns) {
    for (uint64_t end = cinch_now_ns() + ns; cinch_now_ns() < end;)
        if (link->ops->progress(link) != cinchSuccess) return;
}

/* Until the link fails; false after 10 s. */
static bool fails(cinch_link *link) {
    for (uint64_t end = cinch_now_ns() + 10000000000u; cinch_now_ns() < end;)
        if (link->ops->progress(link) != cinchSuccess) return true;
    return false;
}

/* Both ways between each pair; what is here is here for this number only. */
static bool exchange(net_rank *me, size_t bytes, uint64_t number) {
    unsigned char *out = malloc(bytes), *in = malloc(bytes * (size_t)me->nranks);
    cinch_msg msg[16], *all[16];
    int count = 0;
    net_fill(out, bytes, number * 100 + (uint64_t)me->rank);
    for (int r = 0; r < me->nranks; r++) {
        if (r == me->rank) continue;
        all[count] = &msg[count];
        post(me->net->link[r], true, all[count++], out, bytes, number);
        all[count] = &msg[count];
        post(me->net->link[r], false, all[count++], in + (size_t)r * bytes, bytes, number);
    }
    bool good = net_wait(me, all, count);
    for (int r = 0; good && r < me->nranks; r++)
        good =
            r == me->rank || net_filled(in + (size_t)r * bytes, bytes, number * 100 + (uint64_t)r);
    free(out);
    free(in);
    return good;
}

/* ---- what was sent before an end ---- */

enum { BEFORE = 3, BEFORE_BYTES = 3000, UNREAD = 20, UNREAD_BYTES = 4000 };

/* Rank 1's messages are done; then it closes with others posted, some of which UCX has begun, and
 * with messages of rank 0 unread. Rank 0 looks only afterwards, and sends before it does; not where
 * UCX has a long message under way that nobody answers in time: that closes the socket. */
static void close_behind_messages(net_rank *me) {
    bool *large = me->shared;
    cinch_link *link = me->net->link[1 - me->rank];
    unsigned char(*data)[BEFORE_BYTES] = calloc(BEFORE, BEFORE_BYTES);
    unsigned char *other = calloc(1, 1 << 20);
    cinch_msg msg[BEFORE], *all[BEFORE], begun[2], never, unread[UNREAD], vain[3];
    for (int i = 0; i < BEFORE; i++) all[i] = &msg[i];
    if (me->rank == 0) {
        for (int i = 0; i < UNREAD; i++)
            post(link, true, &unread[i], other, UNREAD_BYTES, (uint64_t)i);
        NET_CHECK(me, net_wait_one(me, &unread[UNREAD - 1]));
        NET_CHECK(me, net_barrier(me) && net_barrier(me));
        for (int i = 0; i < 3 && !*large;
             i++) { /* which nobody hears; where the socket is closed, the next */
            post(link, true, &vain[i], other, UNREAD_BYTES, UNREAD + (uint64_t)i); /* fails */
            nanosleep(&(struct timespec){0, 2000000}, NULL);
        }
        for (int i = 0; i < BEFORE; i++)
            post(link, false, &msg[i], data[i], BEFORE_BYTES, (uint64_t)i);
        NET_CHECK(me, net_wait(me, all, BEFORE), "what was sent before the end");
        for (int i = 0; i < BEFORE; i++)
            NET_CHECK(me, net_filled(data[i], BEFORE_BYTES, (uint64_t)i));
        post(link, false, &never, other, 1 << 20, BEFORE);
        NET_CHECK(me, fails(link));
        NET_CHECK(me, strstr(cinch_last_error(), "rank 1"));
    } else {
        NET_CHECK(me, net_barrier(me));
        for (int i = 0; i < BEFORE; i++) {
            net_fill(data[i], BEFORE_BYTES, (uint64_t)i);
            post(link, true, &msg[i], data[i], BEFORE_BYTES, (uint64_t)i);
        }
        while (!msg[BEFORE - 1].done) NET_CHECK(me, link->ops->progress(link) == cinchSuccess);
        post(link, false, &begun[0], other, UNREAD_BYTES, 0);
        post(link, false, &never, other, 1 << 20, 1);
        if (*large) post(link, true, &begun[1], other, 1 << 20, BEFORE);
        uint64_t start = cinch_now_ns();
        cinch_net_close(me->net);
        me->net = NULL;
        NET_CHECK(me, cinch_now_ns() - start < 5000000000u);
        memset(other, 0xff, 1 << 20);
        NET_CHECK(me, net_barrier(me));
    }
    free(data);
    free(other);
}

START_TEST(messages_outlive_a_close_behind_them) {
    bool large = _i;
    for (int i = 0; i < 5; i++) run(2, false, close_behind_messages, &large);
}
END_TEST

/* Rank 1 dies when its messages are with the system; rank 0 finds them and the end at once. */
static void die_behind_messages(net_rank *me) {
    cinch_link *link = me->net->link[1 - me->rank];
    unsigned char data[BEFORE][BEFORE_BYTES], more;
    cinch_msg msg[BEFORE], never;
    for (int i = 0; i < BEFORE && me->rank == 1; i++) {
        net_fill(data[i], BEFORE_BYTES, (uint64_t)i);
        post(link, true, &msg[i], data[i], BEFORE_BYTES, (uint64_t)i);
    }
    if (me->rank == 1) {
        while (!msg[BEFORE - 1].done) NET_CHECK(me, link->ops->progress(link) == cinchSuccess);
        raise(SIGKILL);
    }
    for (uint64_t end = cinch_now_ns() + 10000000000u;
         cinch_rendezvous_check(me->rendezvous) == cinchSuccess && cinch_now_ns() < end;)
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    for (int i = 0; i < BEFORE; i++) post(link, false, &msg[i], data[i], BEFORE_BYTES, (uint64_t)i);
    while (!msg[BEFORE - 1].done) NET_CHECK(me, link->ops->progress(link) == cinchSuccess);
    for (int i = 0; i < BEFORE; i++) NET_CHECK(me, net_filled(data[i], BEFORE_BYTES, (uint64_t)i));
    post(link, false, &never, &more, 1, BEFORE);
    NET_CHECK(me, fails(link));
    NET_CHECK(me, strstr(cinch_last_error(), "rank 1"));
}

START_TEST(messages_outlive_their_dead_sender) {
    for (int i = 0; i < 3; i++) run(2, true, die_behind_messages, NULL);
}
END_TEST

/* ---- a link that is stopped ---- */

/* Rank 0's call has failed: what it had posted is other memory now. The worker goes on for its link
 * to rank 2 while rank 1 sends. */
static void stop_one(net_rank *me) {
    enum { BYTES = 300000 };
    unsigned char *data = malloc(BYTES), *out = calloc(1, BYTES);
    cinch_msg recv, send;
    if (me->rank == 0) {
        cinch_link *link = me->net->link[1];
        post(link, false, &recv, data, BYTES, 1);
        link->ops->stop(link);
        memset(data, 0x5a, BYTES);
        NET_CHECK(me, net_barrier(me));
        post(me->net->link[2], false, &send, out, BYTES, 2);
        progress_for(me->net->link[2], 100000000);
        NET_CHECK(me, net_barrier(me));
        progress_for(me->net->link[2], 20000000);
        while (!send.done)
            NET_CHECK(me, me->net->link[2]->ops->progress(me->net->link[2]) == cinchSuccess);
        for (size_t i = 0; i < BYTES; i++) NET_CHECK(me, data[i] == 0x5a, "byte %zu", i);
        NET_CHECK(me, !recv.done && link->ops->progress(link) != cinchSuccess);
    } else {
        NET_CHECK(me, net_barrier(me));
        cinch_link *link = me->net->link[0];
        if (me->rank == 1) {
            post(link, true, &send, out, BYTES, 1);
            progress_for(link, 50000000); /* the rendezvous is what tells it */
        }
        NET_CHECK(me, net_barrier(me));
        if (me->rank == 2) {
            post(link, true, &send, out, BYTES, 2);
            NET_CHECK(me, net_wait_one(me, &send));
        }
    }
    NET_CHECK(me, net_barrier(me));
    cinch_net_close(me->net); /* before the memory goes */
    me->net = NULL;
    free(data);
    free(out);
}

START_TEST(a_stopped_link_writes_nothing) {
    run(3, false, stop_one, NULL);
}
END_TEST

/* ---- a forked child ---- */

/* What the child closes is its parent's, who goes on. */
static void fork_and_close(net_rank *me) {
    for (uint64_t i = 0; i < 4; i++) {
        NET_CHECK(me, exchange(me, 100 + i * 20000, i), "round %d", (int)i);
        if (i >= 2 || (int)i != me->rank) continue;
        int status = 1;
        pid_t child = fork();
        if (child == 0) {
            cinch_net_close(me->net);
            _exit(0);
        }
        NET_CHECK(me, child > 0 && waitpid(child, &status, 0) == child && status == 0, "%x",
                  (unsigned)status);
    }
    NET_CHECK(me, net_barrier(me));
}

START_TEST(a_child_leaves_its_parents_links) {
    run(2, true, fork_and_close, NULL);
}
END_TEST

/* ---- who wants no link ---- */

/* Ranks 0 and 1 want each other, rank 2 nobody: it takes part, and needs nothing of UCX for it,
 * which could not be opened there. */
static void some_want(net_rank *me) {
    uint8_t want[3] = {me->rank == 1, me->rank == 0, 0};
    cinch_link *links[3] = {NULL};
    cinch_net net = *me->net;
    const cinch_net_options options = {.stage_bytes = 4096};
    net.link = links;
    if (me->rank == 2) setenv("UCX_TLS", "no-such-thing", 1);
    NET_CHECK(me,
              cinch_transport_ucx.open(&(cinch_opening){&me->settings, me->rendezvous, &options,
                                                        &net, me->rank, 3, want}) == cinchSuccess);
    for (int r = 0; r < 3; r++) NET_CHECK(me, (links[r] != NULL) == want[r], "to rank %d", r);
    if (me->rank != 2) {
        unsigned char out = 7, in = 0;
        cinch_msg send, recv;
        post(links[1 - me->rank], true, &send, &out, 1, 1);
        post(links[1 - me->rank], false, &recv, &in, 1, 1);
        while (!send.done || !recv.done)
            NET_CHECK(me, links[1 - me->rank]->ops->progress(links[1 - me->rank]) == cinchSuccess);
        NET_CHECK(me, in == 7);
    }
    for (int r = 0; r < 3; r++)
        if (links[r]) links[r]->ops->close(links[r]);
    NET_CHECK(me, net_barrier(me));
}

START_TEST(who_wants_no_link_has_no_worker) {
    net_run(&(net_case){.nranks = 3,
                        .transport = "tcp",
                        .options = {.stage_bytes = 4096},
                        .body = some_want,
                        .processes = true});
}
END_TEST

/* ---- a window full of bytes ---- */

/* The first question is of small messages, and its answer frees few bytes: as long as another one
 * is asked about what fills the window then, the sender is told. */
static void fill_the_window(net_rank *me) {
    enum { SMALL = CINCH_UCX_WINDOW / 2 + 1, LARGE = 40, BYTES = 262144 };
    cinch_link *link = me->net->link[1 - me->rank];
    unsigned char *data = malloc((size_t)BYTES);
    cinch_msg msg[SMALL + LARGE], *all[SMALL + LARGE];
    net_fill(data, BYTES, 9);
    if (me->rank == 1) NET_CHECK(me, net_barrier(me));
    for (int i = 0; i < SMALL + LARGE; i++) {
        all[i] = &msg[i];
        post(link, me->rank == 0, all[i], data, i < SMALL ? 1 : BYTES, (uint64_t)i);
        if (me->rank == 0 && i == SMALL + 8) progress_for(link, 50000000);
    }
    if (me->rank == 0) {
        progress_for(link, 100000000);
        NET_CHECK(me, net_barrier(me));
    }
    NET_CHECK(me, net_wait(me, all, SMALL + LARGE));
    NET_CHECK(me, net_filled(data, BYTES, 9));
    NET_CHECK(me, net_barrier(me));
    free(data);
}

START_TEST(a_window_of_bytes_is_asked_about) {
    run(2, false, fill_the_window, NULL);
}
END_TEST

int main(void) {
    if (NET_THREAD_SANITIZED) {
        puts("skipped: the thread sanitizer cannot see into UCX");
        return 77;
    }
    setenv("UCX_TLS", "tcp,self", 1); /* the way between hosts */
    Suite *suite = suite_create("ucx ends");
    TCase *tests = tcase_create("links");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, messages_outlive_a_close_behind_them, 0, 2);
    tcase_add_test(tests, a_stopped_link_writes_nothing);
    tcase_add_test(tests, a_window_of_bytes_is_asked_about);
    if (!NET_SANITIZED) { /* its allocator may be locked by another thread at the fork */
        tcase_add_test(tests, messages_outlive_their_dead_sender);
        tcase_add_test(tests, a_child_leaves_its_parents_links);
        tcase_add_test(tests, who_wants_no_link_has_no_worker);
    }
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

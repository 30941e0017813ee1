/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that are missing, contradict each other, die, give up or leave: what the others hear. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/meet.h"
#include "transports/io.h"
#include "transports/rendezvous_server.h"

#define SECRET "#00112233445566778899aabbccddeeff"

/* How ranks reach each other; comm_id: a port of its own for every case. */
typedef struct way {
    bool processes, comm_id;
    int hide;
} way;
static const way ways[] = {
    {false, false, 0}, {true, false, 0}, {true, false, 1}, {false, false, 2}, {true, true, 1}};
enum { WAYS = sizeof ways / sizeof *ways, LOCAL_WAYS = 2 };

/* For cases that wait: in memory, and by TCP where that is there. */
static int slow_way(int index) {
    return index == 0 || !cinch_handshake_available() ? index : 2;
}

static int ways_here(void) {
    return cinch_handshake_available() ? WAYS : LOCAL_WAYS;
}

static meet by_way(int index, int nranks, char text[100]) {
    const way *w = &ways[index];
    snprintf(text, 100, "127.0.0.1:%d" SECRET, meet_free_port());
    return (meet){.nranks = nranks,
                  .processes = w->processes,
                  .hide = w->hide,
                  .comm_id = w->comm_id ? text : NULL};
}

static void all_quicker_than(const meet *m, unsigned ms) {
    for (int i = 0; i < m->nranks; i++)
        ck_assert_msg(m->ranks[i].took_ns < ms * MS, "rank %d took %llu ms", i,
                      (unsigned long long)(m->ranks[i].took_ns / MS));
}

static void two_more(meet_rank *me) {
    me->nranks += 2;
}

START_TEST(missing_ranks_are_named) {
    char text[100];
    meet m = by_way(slow_way(_i), 2, text);
    m.timeout_ms = 400;
    m.prepare = two_more;
    meet_run(&m);
    meet_all_failed(&m, cinchRemoteError, "ranks 2,3 of 4 did not join within 400 ms");
    all_quicker_than(&m, 1500);
}
END_TEST

static void with_holes(meet_rank *me) {
    static const int ranks[] = {0, 3, 4, 8};
    me->rank = ranks[me->index];
    me->nranks = 12;
}

START_TEST(missing_ranks_as_ranges) {
    meet m = {.nranks = 4, .timeout_ms = 300, .prepare = with_holes};
    meet_run(&m);
    meet_all_failed(&m, cinchRemoteError, "ranks 1,2,5-7,9-11 of 12 did not join within 300 ms");
}
END_TEST

static void of_many(meet_rank *me) {
    me->rank = me->index * 1000 + 1;
    me->nranks = 60000;
}

START_TEST(many_missing_ranks_fit_the_sentence) {
    meet m = {.nranks = 40, .timeout_ms = 300, .prepare = of_many};
    meet_run(&m);
    meet_all_failed(&m, cinchRemoteError, ",... of 60000 did not join within 300 ms");
    meet_all_failed(&m, cinchRemoteError, "ranks 0,2-1000,1002-2000,");
}
END_TEST

static void one_up(meet_rank *me) {
    me->rank++;
    me->nranks++;
}

START_TEST(a_missing_rank_0_is_named) {
    char text[100];
    snprintf(text, sizeof text, "127.0.0.1:%d" SECRET, meet_free_port());
    meet m = {.nranks = 2,
              .processes = true,
              .comm_id = text,
              .hide = _i,
              .timeout_ms = 300,
              .prepare = one_up};
    meet_run(&m);
    meet_all_failed(&m, cinchRemoteError, "rank 0 is missing: CINCH_COMM_ID 127.0.0.1:");
    meet_all_failed(&m, cinchRemoteError, "was not reached within 300 ms");
    meet_all_failed(&m, cinchRemoteError,
                    cinch_handshake_available() ? "Connection refused" : "has no libsodium");
    all_quicker_than(&m, 1000);
}
END_TEST

static void last_is_1_again(meet_rank *me) {
    if (me->index == me->nranks - 1) me->rank = 1;
}

START_TEST(a_rank_that_joins_twice) {
    char text[100];
    meet m = by_way(_i, 4, text);
    m.prepare = last_is_1_again;
    meet_run(&m);
    meet_all_failed(&m, cinchInvalidUsage, "rank 1 of 4 joined twice");
    all_quicker_than(&m, 3000);
}
END_TEST

static void last_says_one_more(meet_rank *me) {
    if (me->index == 2) me->nranks = 4;
}

static void last_says_one_less(meet_rank *me) {
    if (me->index == 1) me->nranks = 2;
}

START_TEST(ranks_that_count_differently) {
    char text[100];
    meet m = by_way(slow_way(_i), 3, text);
    m.prepare = last_says_one_more;
    meet_run(&m);
    meet_all_failed(&m, cinchInvalidUsage, "rank 2 says there are 4 ranks, rank 0 says 3");
    all_quicker_than(&m, 3000);
    m = by_way(slow_way(_i), 3, text);
    m.prepare = last_says_one_less;
    meet_run(&m);
    meet_all_failed(&m, cinchInvalidUsage, "rank 1 says there are 2 ranks, rank 0 says 3");
}
END_TEST

#define REFUSAL "CINCH_CODEC=int9: none, auto, bf16, int8, topk are accepted"

static void one_refuses(meet_rank *me) {
    if (me->rank == 1) strcpy(me->refusal, REFUSAL);
    if (me->rank == 2) meet_sleep(100);
}

static void all_refuse(meet_rank *me) {
    strcpy(me->refusal, REFUSAL);
}

START_TEST(a_refusal_reaches_every_rank) {
    char text[100];
    meet m = by_way(_i, 3, text);
    m.prepare = one_refuses;
    meet_run(&m);
    meet_all_failed(&m, cinchInvalidUsage, "rank 1: " REFUSAL);
    for (int n = 1; n < 4; n++) {
        m = by_way(_i, n, text);
        m.prepare = all_refuse;
        meet_run(&m);
        meet_all_failed(&m, cinchInvalidUsage, REFUSAL);
        ck_assert_str_eq(m.ranks[0].why, REFUSAL);
    }
}
END_TEST

static void other_algo(meet_rank *me) {
    if (me->rank == 2) meet_set(me, CINCH_SET_algo, &me->settings.algo, "ring");
}

START_TEST(settings_that_differ_are_named) {
    char text[100];
    meet m = by_way(_i, 4, text);
    m.prepare = other_algo;
    meet_run(&m);
    meet_all_failed(&m, cinchInvalidUsage, "CINCH_ALGO=auto on rank 0, CINCH_ALGO=ring on rank 2");
}
END_TEST

/* A rank that ends while it waits for others. */
static void *kill_soon(void *unused) {
    meet_sleep(100);
    raise(SIGKILL);
    return unused;
}

static void second_dies(meet_rank *me) {
    pthread_t thread;
    me->nranks++;
    if (me->rank == 1) pthread_create(&thread, NULL, kill_soon, NULL);
}

START_TEST(a_death_while_joining_is_told_at_once) {
    meet m = {.nranks = 3, .processes = true, .hide = _i, .prepare = second_dies};
    meet_run(&m);
    ck_assert_int_eq(m.ranks[1].exit_signal, SIGKILL);
    for (int rank = 0; rank < 3; rank += 2) {
        ck_assert_ptr_ne(strstr(m.ranks[rank].why, "rank 1 is gone: its process ended"), NULL);
        ck_assert_uint_lt(m.ranks[rank].took_ns, 1500 * MS);
    }
}
END_TEST

/* When the victim died; in memory that forked ranks share. */
static _Atomic uint64_t *died_ns;
static int victim;
static bool with_child;

static void victim_dies(meet_rank *me) {
    int number = me->rank, all[MEET_MAX];
    MEET_CHECK(me,
               cinch_rendezvous_allgather(me->seat, &number, sizeof number, all) == cinchSuccess);
    if (me->rank == victim) {
        if (with_child && fork() == 0) {
            meet_sleep(3000); /* a data loader that outlives its parent */
            _exit(0);
        }
        meet_sleep(100); /* the meeting point's process has passed on what it gathered */
        *died_ns = cinch_now_ns();
        raise(SIGKILL);
    }
    MEET_CHECK(me, meet_await_failure(me, 5000) != UINT64_MAX);
    MEET_CHECK(me, cinch_now_ns() - *died_ns < 1000 * MS);
    MEET_CHECK(me, cinch_rendezvous_check(me->seat) == cinchRemoteError);
    char expected[100];
    snprintf(expected, sizeof expected,
             victim == 0 ? "rank 0's process (the meeting point) is gone"
                         : "rank %d is gone: its process ended or its connection broke",
             victim);
    MEET_CHECK(me, strstr(cinch_last_error(), expected) != NULL);
    /* What failed stays so. */
    MEET_CHECK(me, cinch_rendezvous_allgather(me->seat, &number, sizeof number, all) ==
                       cinchRemoteError);
    MEET_CHECK(me, strstr(cinch_last_error(), expected) != NULL);
}

START_TEST(a_death_is_known_within_a_second) {
    char text[100];
    died_ns = meet_shared(sizeof *died_ns);
    for (int hide = 0; hide <= cinch_handshake_available(); hide++)
        for (victim = 0; victim < 4; victim += 2) {
            snprintf(text, sizeof text, "127.0.0.1:%d" SECRET, meet_free_port());
            with_child = _i;
            meet m = {
                .nranks = 4, .processes = true, .hide = hide, .comm_id = text, .body = victim_dies};
            meet_run(&m);
            for (int rank = 0; rank < 4; rank++)
                ck_assert_int_eq(m.ranks[rank].exit_signal, rank == victim ? SIGKILL : 0);
        }
}
END_TEST

static void second_aborts(meet_rank *me) {
    int number = me->rank, all[MEET_MAX];
    if (me->rank == 1) {
        meet_sleep(50);
        cinch_rendezvous_abort(me->seat, "the disk is full");
        cinch_rendezvous_abort(me->seat, "a second cause that nobody hears of");
        MEET_CHECK(me, meet_await_failure(me, 2000) != UINT64_MAX);
    } else if (me->rank == 2) {
        MEET_CHECK(me, meet_await_failure(me, 2000) != UINT64_MAX);
    } else {
        MEET_CHECK(me, cinch_rendezvous_allgather(me->seat, &number, sizeof number, all) ==
                           cinchRemoteError);
    }
    MEET_CHECK(me, !strcmp(cinch_last_error(), "rank 1 failed: the disk is full"));
}

START_TEST(an_abort_reaches_every_rank) {
    char text[100];
    meet m = by_way(_i, 4, text);
    m.body = second_aborts;
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

static void *abort_soon(void *argument) {
    meet_sleep(50);
    cinch_rendezvous_abort(argument, "stopped by another thread");
    return NULL;
}

static void aborted_from_aside(meet_rank *me) {
    int number = me->rank, all[MEET_MAX];
    pthread_t thread;
    if (me->rank == 0) {
        /* The others are not in it, so that this waits until it is aborted. */
        MEET_CHECK(me, !pthread_create(&thread, NULL, abort_soon, me->seat));
        cinchResult_t result = cinch_rendezvous_allgather(me->seat, &number, sizeof number, all);
        pthread_join(thread, NULL);
        MEET_CHECK(me, result == cinchRemoteError);
    } else {
        MEET_CHECK(me, meet_await_failure(me, 2000) != UINT64_MAX);
    }
    MEET_CHECK(me, strstr(cinch_last_error(), "rank 0 failed: stopped by another thread") != NULL);
}

START_TEST(any_thread_may_abort) {
    char text[100];
    meet m = by_way(_i, 3, text);
    m.body = aborted_from_aside;
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

/* Rank 0, whose process is the meeting point, leaves first, and its process ends. */
static void rank_0_leaves(meet_rank *me) {
    struct pollfd p = {.fd = cinch_rendezvous_fd(me->seat), .events = POLLIN};
    int number = me->rank, all[MEET_MAX];
    if (me->rank == 0) {
        cinch_rendezvous_leave(me->seat);
        me->stay = true;
        return;
    }
    for (int i = 0; i < 15; i++, meet_sleep(20))
        MEET_CHECK(me, cinch_rendezvous_check(me->seat) == cinchSuccess);
    MEET_CHECK(me, poll(&p, 1, 0) == 0);
    if (me->rank != 2) return;
    meet_sleep(200);
    cinch_rendezvous_abort(me->seat, "nobody hears this");
    MEET_CHECK(me, cinch_rendezvous_allgather(me->seat, &number, sizeof number, all) ==
                       cinchRemoteError);
}

/* As rank_0_leaves, in one process, where the meeting point lives on. */
static void rank_0_leaves_threads(meet_rank *me) {
    int number = me->rank, all[MEET_MAX];
    if (me->rank == 0) return;
    if (me->rank == 1) {
        meet_sleep(100);
        MEET_CHECK(me, cinch_rendezvous_check(me->seat) == cinchSuccess);
        MEET_CHECK(me, cinch_rendezvous_allgather(me->seat, &number, sizeof number, all) ==
                           cinchRemoteError);
    } else {
        MEET_CHECK(me, meet_await_failure(me, 2000) != UINT64_MAX);
    }
    MEET_CHECK(me, strstr(cinch_last_error(), "rank 0 has left the communicator") != NULL);
}

START_TEST(an_early_leave_of_rank_0_is_no_error) {
    char text[100];
    snprintf(text, sizeof text, "127.0.0.1:%d" SECRET, meet_free_port());
    meet m = {.nranks = 4, .processes = true, .comm_id = text, .hide = _i, .body = rank_0_leaves};
    meet_run(&m);
    meet_all_joined(&m);
    meet t = {.nranks = 3, .body = rank_0_leaves_threads};
    meet_run(&t);
    meet_all_joined(&t);
}
END_TEST

/* A rank of `server` that the test plays at *fd. */
static cinch_conn *play_rank(cinch_server *server, uint32_t rank, int *fd) {
    int pair[2];
    cinch_conn *conn = calloc(1, sizeof *conn);
    ck_assert(conn && !cinch_socketpair(pair));
    conn->fd = pair[1];
    conn->state = CINCH_CONN_SEAT;
    conn->out_end = &conn->out;
    conn->hello.rank = rank;
    conn->next = server->conns;
    server->conns = conn;
    *fd = pair[0];
    return conn;
}

static void say_goodbye(int fd) {
    cinch_frame leave = cinch_frame_make(CINCH_FRAME_LEAVE, 0);
    ck_assert_int_eq(send(fd, &leave, sizeof leave, 0), sizeof leave);
}

/* Something is on its way to rank 1, which has closed its end, with (1) or without (0) a goodbye
 * that is not read yet. */
START_TEST(a_goodbye_counts_though_sending_fails) {
    int fd[2];
    char heard[CINCH_ERROR_TEXT] = {0};
    cinch_server server = {
        .state = CINCH_FORMED, .nranks = 2, .seats_here = 1, .unix_fd = -1, .pid = (int)getpid()};
    ck_assert_int_eq(cinch_eventfd(&server.wake_fd), 0);
    play_rank(&server, 0, &fd[0]);
    cinch_conn *leaver = play_rank(&server, 1, &fd[1]);
    if (_i == 1) say_goodbye(fd[1]);
    cinch_close(fd[1]);
    cinch_packet *packet = cinch_packet_make(CINCH_FRAME_GATHERED, 0);
    cinch_conn_send(leaver, packet);
    cinch_packet_drop(packet);
    ck_assert_ptr_ne(leaver->out, NULL);
    say_goodbye(fd[0]); /* so that the server ends, after it has served rank 1 */
    shutdown(fd[0], SHUT_WR);
    cinch_server_run(&server);
    free(server.left_at);
    ssize_t bytes = recv(fd[0], heard, sizeof heard - 1, 0), head = sizeof(cinch_frame) + 4;
    cinch_close(fd[0]);
    if (_i == 1)
        ck_assert_int_eq(bytes, 0);
    else
        ck_assert(bytes > head && strstr(heard + head, "rank 1 is gone: its process ended"));
}
END_TEST

/* The process that made the id is no rank: it may end when all have joined. */
static void maker_ends(meet_rank *me) {
    int all[MEET_MAX];
    MEET_CHECK(me, cinch_rendezvous_allgather(me->seat, &me->rank, sizeof me->rank, all) ==
                       cinchSuccess);
    for (int i = 0; i < 20; i++, meet_sleep(20))
        MEET_CHECK(me, cinch_rendezvous_check(me->seat) == cinchSuccess);
}

START_TEST(the_maker_of_the_id_may_end) {
    cinchUniqueId *id = meet_shared(sizeof *id);
    meet_rank *ranks = meet_shared(3 * sizeof *ranks);
    int pids[3], status;
    for (int i = 0; i < 3; i++) {
        pids[i] = fork();
        if (pids[i]) continue;
        meet_rank *me = &ranks[i];
        char why[CINCH_ERROR_TEXT];
        cinch_settings_load(&me->settings, why);
        me->rank = i - 1;
        if (i == 0) {
            cinch_rendezvous_id(&me->settings, id);
            ranks[0].calls = 1;
            meet_sleep(200);
            _exit(0);
        }
        while (!*(volatile int *)&ranks[0].calls) meet_sleep(5);
        me->joined = cinch_rendezvous_join(&me->settings, id, me->rank, 2, NULL, &me->seat);
        if (me->joined == cinchSuccess) maker_ends(me);
        _exit(0);
    }
    for (int i = 0; i < 3; i++) waitpid(pids[i], &status, 0);
    for (int i = 1; i < 3; i++) {
        ck_assert_int_eq(ranks[i].joined, cinchSuccess);
        ck_assert_msg(!ranks[i].failure[0], "%s", ranks[i].failure);
    }
}
END_TEST

static void gathers_differ(meet_rank *me) {
    char mine[16] = {0}, all[16 * MEET_MAX];
    MEET_CHECK(me, cinch_rendezvous_allgather(me->seat, mine, me->rank == 2 ? 16 : 8, all) ==
                       cinchInvalidUsage);
    MEET_CHECK(me, strstr(cinch_last_error(), "to an all-gather, rank ") != NULL);
    MEET_CHECK(me, strstr(cinch_last_error(), "rank 2 gives 16") != NULL);
}

START_TEST(gathers_of_different_sizes) {
    char text[100];
    meet m = by_way(_i, 3, text);
    m.body = gathers_differ;
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

static void rank_2_does_not_gather(meet_rank *me) {
    int all[MEET_MAX];
    if (me->rank == 2)
        MEET_CHECK(me, meet_await_failure(me, 5000) != UINT64_MAX);
    else
        MEET_CHECK(me, cinch_rendezvous_allgather(me->seat, &me->rank, sizeof me->rank, all) ==
                           cinchRemoteError);
    MEET_CHECK(me, strstr(cinch_last_error(),
                          "rank 2 of 4 did not take part in an all-gather within 300 ms") != NULL);
}

START_TEST(a_gather_that_a_rank_misses) {
    char text[100];
    meet m = by_way(slow_way(_i), 4, text);
    m.timeout_ms = 300;
    m.body = rank_2_does_not_gather;
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

static void joins_again(meet_rank *me) {
    cinch_rendezvous *seat;
    if (me->rank != 1) return;
    MEET_CHECK(me, cinch_rendezvous_join(&me->settings, &me->id, 1, 2, NULL, &seat) ==
                       cinchInvalidUsage);
    MEET_CHECK(me, strstr(cinch_last_error(), "the unique id was used before") != NULL);
}

START_TEST(an_id_serves_once) {
    meet m = {.nranks = 2, .body = joins_again};
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

/* A child that tidies up what its parent had must not disturb it. */
static void forks(meet_rank *me) {
    int all[MEET_MAX], status, pid = fork();
    if (pid == 0) {
        cinch_rendezvous_abort(me->seat, "a child's opinion");
        cinch_rendezvous_leave(me->seat);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    MEET_CHECK(me, WIFEXITED(status) && WEXITSTATUS(status) == 0);
    MEET_CHECK(me, cinch_rendezvous_allgather(me->seat, &me->rank, sizeof me->rank, all) ==
                       cinchSuccess);
}

START_TEST(forked_children_do_not_disturb) {
    char text[100];
    meet m = by_way(_i, 3, text);
    m.body = forks;
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

int main(void) {
    int all = ways_here();
    Suite *suite = suite_create("rendezvous_fail");
    TCase *tcase = tcase_create("failing");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, missing_ranks_are_named, 0, 2);
    tcase_add_test(tcase, missing_ranks_as_ranges);
    tcase_add_test(tcase, many_missing_ranks_fit_the_sentence);
    tcase_add_loop_test(tcase, a_missing_rank_0_is_named, 0, all > LOCAL_WAYS ? 2 : 1);
    tcase_add_loop_test(tcase, a_rank_that_joins_twice, 0, all);
    tcase_add_loop_test(tcase, ranks_that_count_differently, 0, 2);
    tcase_add_loop_test(tcase, a_refusal_reaches_every_rank, 0, all);
    tcase_add_loop_test(tcase, settings_that_differ_are_named, 0, all);
    tcase_add_loop_test(tcase, a_death_while_joining_is_told_at_once, 0, all > LOCAL_WAYS ? 2 : 1);
    tcase_add_loop_test(tcase, a_death_is_known_within_a_second, 0, 2);
    tcase_add_loop_test(tcase, an_abort_reaches_every_rank, 0, all);
    tcase_add_loop_test(tcase, any_thread_may_abort, 0, all);
    tcase_add_loop_test(tcase, an_early_leave_of_rank_0_is_no_error, 0, all > LOCAL_WAYS ? 2 : 1);
    tcase_add_loop_test(tcase, a_goodbye_counts_though_sending_fails, 0, 2);
    tcase_add_test(tcase, the_maker_of_the_id_may_end);
    tcase_add_loop_test(tcase, gathers_of_different_sizes, 0, all);
    tcase_add_loop_test(tcase, a_gather_that_a_rank_misses, 0, 2);
    tcase_add_test(tcase, an_id_serves_once);
    tcase_add_loop_test(tcase, forked_children_do_not_disturb, 0, all);
    suite_add_tcase(suite, tcase);
    return meet_main(suite);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The ucx transport alone: what it keeps for receives that are not posted, how it ends, what it
 * does with headers that no rank sends, with other transports of UCX beneath, and without UCX. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/net_ranks.h"
#include "transports/ucx.h"

static void run(int nranks, const char *transport, bool checksum, bool processes,
                void (*body)(net_rank *me)) {
    net_run(&(net_case){.nranks = nranks,
                        .transport = transport,
                        .options = {.stage_bytes = 4096, .checksum = checksum},
                        .body = body,
                        .processes = processes});
}

/* ---- what is kept ---- */

/* Short enough for UCX to take along on all of its transports. */
enum { FLOOD = 400, FLOOD_BYTES = 500 };

/* Rank 0 sends to rank 1, which looks after its messages of rank 2 only. */
static void flood(net_rank *me) {
    unsigned char *data = malloc((size_t)FLOOD * FLOOD_BYTES), last = 0;
    cinch_msg *msg = calloc(FLOOD, sizeof *msg), *all[FLOOD], late = {.data = &last, .bytes = 1};
    cinch_link *link = me->rank == 2 ? me->net->link[1] : me->net->link[1 - me->rank];
    for (int i = 0; i < FLOOD; i++) {
        msg[i] =
            (cinch_msg){.data = data + i * FLOOD_BYTES, .bytes = FLOOD_BYTES, .tag = (uint64_t)i};
        all[i] = &msg[i];
    }
    if (me->rank == 0) {
        unsigned done = 0;
        net_fill(data, (size_t)FLOOD * FLOOD_BYTES, 5);
        for (int i = 0; i < FLOOD; i++) link->ops->send(link, &msg[i]);
        for (uint64_t end = cinch_now_ns() + 150000000u; cinch_now_ns() < end;)
            NET_CHECK(me, link->ops->progress(link) == cinchSuccess);
        for (int i = 0; i < FLOOD; i++) done += msg[i].done;
        NET_CHECK(me, done > 0 && done <= CINCH_UCX_WINDOW, "%u of them are done", done);
        NET_CHECK(me, net_barrier(me));
        NET_CHECK(me, net_wait(me, all, FLOOD));
    } else if (me->rank == 2) {
        NET_CHECK(me, net_barrier(me));
        link->ops->send(link, &late);
        NET_CHECK(me, net_wait_one(me, &late));
    } else {
        cinch_link *other = me->net->link[2];
        other->ops->recv(other, &late);
        for (uint64_t end = cinch_now_ns() + 150000000u; cinch_now_ns() < end;)
            NET_CHECK(me, other->ops->progress(other) == cinchSuccess);
        NET_CHECK(me, net_barrier(me));
        NET_CHECK(me, net_wait_one(me, &late));
        for (int i = 0; i < FLOOD; i++) link->ops->recv(link, &msg[i]);
        NET_CHECK(me, net_wait(me, all, FLOOD));
        NET_CHECK(me, net_filled(data, (size_t)FLOOD * FLOOD_BYTES, 5));
    }
    free(msg);
    free(data);
}

START_TEST(test_nothing_is_kept_without_bound) {
    run(3, "ucx", false, false, flood);
}
END_TEST

/* ---- the end ---- */

enum { UNREAD = 30, UNREAD_BYTES = 500 };

/* Rank 0 is gone when rank 1 begins to read. */
static void leave_unread(net_rank *me) {
    cinch_link *link = me->net->link[1 - me->rank];
    unsigned char data[UNREAD][UNREAD_BYTES];
    cinch_msg msg[UNREAD], *all[UNREAD];
    for (int i = 0; i < UNREAD; i++) {
        msg[i] = (cinch_msg){.data = data[i], .bytes = UNREAD_BYTES, .tag = (uint64_t)i};
        all[i] = &msg[i];
        if (me->rank == 0) net_fill(data[i], UNREAD_BYTES, (uint64_t)i);
        if (me->rank == 0) link->ops->send(link, &msg[i]);
    }
    if (me->rank == 0) {
        NET_CHECK(me, net_wait(me, all, UNREAD));
        uint64_t start = cinch_now_ns();
        cinch_net_close(me->net);
        me->net = NULL;
        NET_CHECK(me, cinch_now_ns() - start < 3000000000u);
        NET_CHECK(me, net_barrier(me));
        return;
    }
    NET_CHECK(me, net_barrier(me));
    for (int i = 0; i < UNREAD; i++) link->ops->recv(link, &msg[i]);
    NET_CHECK(me, net_wait(me, all, UNREAD));
    for (int i = 0; i < UNREAD; i++) NET_CHECK(me, net_filled(data[i], UNREAD_BYTES, (uint64_t)i));
}

START_TEST(test_unread_messages_outlive_their_sender) {
    for (int i = 0; i < 5; i++) run(2, "ucx", false, false, leave_unread);
}
END_TEST

/* Both long messages are under way when the peer dies; this rank's memory is its own again when its
 * links are closed. */
static void lose_the_peer(net_rank *me) {
    enum { BYTES = 16 << 20 };
    cinch_link *link = me->net->link[1 - me->rank];
    unsigned char *out = calloc(1, BYTES), *in = calloc(1, BYTES), word = 1;
    cinch_msg first = {.data = &word, .bytes = 1, .tag = 1};
    cinch_msg send = {.data = out, .bytes = BYTES, .tag = 2};
    cinch_msg recv = {.data = in, .bytes = BYTES, .tag = 2};
    cinch_msg never = {.data = out, .bytes = BYTES, .tag = 3};
    if (me->rank == 1) {
        link->ops->recv(link, &first);
        link->ops->send(link, &send);
        while (!first.done) link->ops->progress(link);
        link->ops->recv(link, &recv);
        for (int i = 0; i < 50; i++) link->ops->progress(link);
        raise(SIGKILL);
    }
    link->ops->recv(link, &recv);
    link->ops->send(link, &first);
    link->ops->send(link, &send);
    link->ops->send(link, &never);
    uint64_t start = cinch_now_ns();
    cinch_msg *all[] = {&send, &recv, &never};
    NET_CHECK(me, !net_wait(me, all, 3));
    NET_CHECK(me, strstr(cinch_last_error(), "rank 1"));
    cinch_net_close(me->net);
    me->net = NULL;
    NET_CHECK(me, cinch_now_ns() - start < 5000000000u);
    memset(out, 0xff, BYTES);
    free(out);
    free(in);
}

START_TEST(test_death_in_the_middle) {
    for (int i = 0; i < 3; i++) run(2, "ucx", false, true, lose_the_peer);
}
END_TEST

/* ---- other transports of UCX ---- */

static void exchange_some(net_rank *me) {
    static const size_t sizes[] = {0, 1, 33, 4096, 8193, 32768, 32769, 262145, 3 << 20};
    unsigned char *out = malloc(3 << 20), *in = malloc(3 << 20);
    bool good = true;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int step = 1; step < me->nranks; step++) {
            int to = (me->rank + step) % me->nranks;
            int from = (me->rank + me->nranks - step) % me->nranks;
            cinch_msg send = {.data = out, .bytes = sizes[i], .tag = i};
            cinch_msg recv = {.data = in, .bytes = sizes[i], .tag = i, .exact = true};
            cinch_msg *both[] = {&send, &recv};
            net_fill(out, sizes[i], (uint64_t)me->rank + i);
            me->net->link[to]->ops->send(me->net->link[to], &send);
            me->net->link[from]->ops->recv(me->net->link[from], &recv);
            NET_CHECK(me, net_wait(me, both, 2), "%zu bytes", sizes[i]);
            good &= net_filled(in, sizes[i], (uint64_t)from + i);
        }
    NET_CHECK(me, good);
    free(out);
    free(in);
}

/* UCX 1.13 refuses to tell of failures over shared memory, and is used without. */
static const char *const beneath[] = {"tcp,self", "posix,self", "sysv,cma,self"};

START_TEST(test_transports_beneath) {
    setenv("UCX_TLS", beneath[_i], 1);
    run(3, "ucx", true, false, exchange_some);
    if (!NET_SANITIZED) run(3, "ucx", false, true, exchange_some);
}
END_TEST

START_TEST(test_ends_beneath) {
    setenv("UCX_TLS", beneath[_i], 1);
    run(2, "ucx", false, false, leave_unread);
    run(3, "ucx", false, false, flood);
    if (!NET_SANITIZED) run(2, "ucx", false, true, lose_the_peer);
}
END_TEST

/* ---- headers that no rank sends ---- */

enum { FOREIGN_TOKEN = 77, OWN_TOKEN = 78 };

static cinch_ucx_link *lonely_link(cinch_ucx_worker *w) {
    ucp_worker_attr_t attr = {.field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS};
    ucp_ep_h ep;
    ck_assert_int_eq(w->ucx->ucp_worker_query(w->worker, &attr), UCS_OK);
    ck_assert_int_eq(cinch_ucx_ep_open(w, 1, attr.address, true, &ep), UCS_OK);
    w->ucx->ucp_worker_release_address(w->worker, attr.address);
    cinch_ucx_link *link =
        cinch_ucx_link_new(w, 1, ep, true, (cinch_ucx_tokens){FOREIGN_TOKEN, OWN_TOKEN});
    ck_assert_ptr_nonnull(link);
    return link;
}

static void hear(cinch_ucx_worker *w, cinch_ucx_header h, size_t bytes) {
    const ucp_am_recv_param_t param = {0};
    ck_assert_int_eq(cinch_ucx_on_message(w, &h, bytes, NULL, 0, &param), UCS_OK);
}

static cinchResult_t state_of(cinch_ucx_link *link) {
    cinch_link *head = (cinch_link *)link;
    return head->ops->progress(head);
}

START_TEST(test_foreign_headers) {
    cinch_ucx_worker *w;
    cinch_ucx_header good = {.token = OWN_TOKEN, .rank = 1}, h = good;
    ck_assert_int_eq(cinch_ucx_worker_new(0, 2, false, &w), cinchSuccess);
    cinch_ucx_link *link = lonely_link(w);
    hear(w, good, sizeof good - 1);
    h.token = FOREIGN_TOKEN;
    hear(w, h, sizeof h);
    for (uint32_t rank = 0; rank < 100; rank += rank ? 1 : 2) {
        h = good;
        h.rank = rank;
        hear(w, h, sizeof h);
        h.rank = ~rank;
        hear(w, h, sizeof h);
    }
    ck_assert_int_eq(state_of(link), cinchSuccess);
    hear(w, good, sizeof good); /* the first that counts, so it is the only one with this number */
    ck_assert_int_eq(state_of(link), cinchSuccess);
    switch (_i) {
    case 0: /* the same again */
        break;
    case 1:
        good.number = CINCH_UCX_WINDOW + 1;
        break;
    case 2:
        good.number = (uint32_t)-1;
        break;
    default:
        good.number = 1;
        good.taken = 1; /* nothing was sent */
    }
    hear(w, good, sizeof good);
    ck_assert_int_eq(state_of(link), cinchRemoteError);
    ck_assert_ptr_nonnull(strstr(cinch_last_error(), "rank 1 sent rank 0 what no rank sends"));
    ((cinch_link *)link)->ops->close((cinch_link *)link);
    cinch_ucx_worker_drop(w);
}
END_TEST

/* Whatever comes with the right token: an error or a message, no access out of bounds. */
START_TEST(test_random_headers) {
    uint64_t state = 17;
    for (int round = 0; round < 20; round++) {
        cinch_ucx_worker *w;
        ck_assert_int_eq(cinch_ucx_worker_new(0, 2, false, &w), cinchSuccess);
        cinch_ucx_link *link = lonely_link(w);
        for (int i = 0; i < 200; i++) {
            cinch_ucx_header h = {.token = OWN_TOKEN, .rank = 1};
            uint64_t r = net_random(&state);
            h.number = r & 1 ? (uint32_t)i : (uint32_t)(r >> 8);
            h.taken = r & 14 ? 0 : (uint32_t)(r >> 32);
            h.rank |= (uint32_t)(r >> 16 & 0xff) << 24;
            const ucp_am_recv_param_t param = {0};
            if (r & 16)
                cinch_ucx_on_note(w, &h, sizeof h, NULL, 0, &param);
            else
                hear(w, h, sizeof h);
            if ((r & 96) == 0 && state_of(link) != cinchSuccess) break;
        }
        ((cinch_link *)link)->ops->close((cinch_link *)link);
        cinch_ucx_worker_drop(w);
    }
}
END_TEST

/* ---- without UCX ---- */

static bool is_loaded(void) {
    char line[512];
    bool found = false;
    FILE *file = fopen("/proc/self/maps", "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof line, file))
        found |= strstr(line, "libucp") || strstr(line, "libucs");
    fclose(file);
    return found;
}

/* Who does not ask for it does not have it in the process. */
START_TEST(test_is_loaded_when_it_is_wanted) {
    run(3, "auto", false, false, exchange_some);
    run(3, "tcp", false, false, exchange_some);
    ck_assert(!is_loaded());
    run(2, "ucx", false, false, exchange_some);
    ck_assert(is_loaded());
}
END_TEST

static void wants(const char *folder, const char *version, const char *wanted) {
    char command[1024], out[16384];
    snprintf(command, sizeof command, "FAKE_UCP_VERSION=%s LD_LIBRARY_PATH=%s %s info 2>&1",
             version, folder, CINCH_PROGRAM);
    FILE *pipe = popen(command, "r");
    ck_assert_ptr_nonnull(pipe);
    size_t got = fread(out, 1, sizeof out - 1, pipe);
    out[got] = '\0';
    ck_assert_msg(pclose(pipe) == 0, "%s", out);
    ck_assert_msg(strstr(out, wanted) != NULL, "%s", out);
}

START_TEST(test_unusable) {
    char folder[] = "/tmp/cinch-ucx-XXXXXX", path[64];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/libucp.so.0", folder);
    FILE *file = fopen(path, "we");
    fputs("no library", file);
    fclose(file);
    wants(folder, "", "ucx: UCX could not be loaded: ");
    remove(path);
    rmdir(folder);
    wants(FAKE_UCP, "1.12", "ucx: libucp.so.0 is UCX 1.12.0: 1.13 or newer is needed");
    wants(FAKE_UCP, "2.0", "ucx: libucp.so.0 is UCX 2.0.0: 1.13 or newer is needed");
    wants(FAKE_UCP, "1.13", "ucx: libucp.so.0 lacks ucp_");
}
END_TEST

int main(void) {
    if (NET_THREAD_SANITIZED) {
        puts("skipped: the thread sanitizer cannot see into UCX");
        return 77;
    }
    Suite *suite = suite_create("ucx");
    TCase *tests = tcase_create("links");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_nothing_is_kept_without_bound);
    tcase_add_test(tests, test_unread_messages_outlive_their_sender);
    /* The address sanitizer's allocator may be locked by another thread at the fork, and UCX is
     * loaded after it: the child then waits without end. */
    if (!NET_SANITIZED) tcase_add_test(tests, test_death_in_the_middle);
    tcase_add_loop_test(tests, test_transports_beneath, 0, 3);
    tcase_add_loop_test(tests, test_ends_beneath, 0, 3);
    tcase_add_loop_test(tests, test_foreign_headers, 0, 4);
    tcase_add_test(tests, test_random_headers);
    tcase_add_test(tests, test_is_loaded_when_it_is_wanted);
    tcase_add_test(tests, test_unusable);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

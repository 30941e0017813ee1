/* SPDX-License-Identifier: Apache-2.0 */
/* What every transport's links must do, tried on each of them with the same tests. */
#include <check.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "tests/net_ranks.h"

/* The thread sanitizer cannot see into UCX. */
static const char *transports[] = {
    "shm",
    "tcp",
#if CINCH_HAS_UCX && !NET_THREAD_SANITIZED
    "ucx",
#endif
};
static size_t all_transports = sizeof transports / sizeof *transports;
static const int sizes_of_groups[] = {2, 3, 5, 8};

static uint64_t seed_of(int from, int to, uint64_t number) {
    return ((uint64_t)from << 40 ^ (uint64_t)to << 32 ^ number) * UINT64_C(0xd1342543de82ef95);
}

/* Runs the body for each transport and each number of ranks. */
static void over_all(void (*body)(net_rank *me), bool checksum) {
    for (size_t t = 0; t < all_transports; t++)
        for (size_t g = 0; g < 4; g++)
            net_run(&(net_case){.nranks = sizes_of_groups[g],
                                .transport = transports[t],
                                .options = {.stage_bytes = 4096, .checksum = checksum},
                                .body = body});
}

static void each_transport(int nranks, void (*body)(net_rank *me), void *shared) {
    for (size_t t = 0; t < all_transports; t++)
        net_run(&(net_case){.nranks = nranks,
                            .transport = transports[t],
                            .options = {.stage_bytes = 4096},
                            .body = body,
                            .shared = shared});
}

/* ---- sizes ---- */

/* Every pair exchanges a message of that size, both directions at once. */
static void exchange(net_rank *me, size_t bytes, uint64_t number) {
    int n = me->nranks;
    cinch_msg send[16], recv[16], *all[32] = {0};
    unsigned char *out[16] = {0}, *in[16] = {0};
    int count = 0;
    bool good = true;
    for (int r = 0; r < n; r++) {
        if (r == me->rank) continue;
        out[r] = malloc(bytes + 1);
        in[r] = malloc(bytes + 1);
        net_fill(out[r], bytes, seed_of(me->rank, r, number));
        in[r][bytes] = 0xa5;
        recv[r] = (cinch_msg){.data = bytes ? in[r] : NULL, .bytes = bytes, .tag = number};
        send[r] = (cinch_msg){.data = bytes ? out[r] : NULL, .bytes = bytes, .tag = number};
        me->net->link[r]->ops->recv(me->net->link[r], &recv[r]);
        me->net->link[r]->ops->send(me->net->link[r], &send[r]);
        all[count++] = &recv[r];
        all[count++] = &send[r];
    }
    bool waited = net_wait(me, all, count);
    for (int r = 0; r < n; r++) {
        if (r == me->rank) continue;
        good &= recv[r].bytes == bytes && net_filled(in[r], bytes, seed_of(r, me->rank, number)) &&
                in[r][bytes] == 0xa5;
        if (waited) { /* a link that is still at work may read and write these */
            free(out[r]);
            free(in[r]);
        }
    }
    NET_CHECK(me, waited, "%zu bytes", bytes);
    NET_CHECK(me, good, "%zu bytes", bytes);
}

static void exchange_sizes(net_rank *me) {
    static const size_t sizes[] = {0,     1,     3,     15,    16,    17,     31,     32,
                                   33,    63,    64,    65,    4095,  4096,   4097,   16383,
                                   16384, 16385, 65535, 65536, 65537, 262143, 262144, 262145};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && !me->failure[0]; i++)
        exchange(me, sizes[i], i);
    if (me->nranks > 3) return;
    for (size_t bytes = (1 << 20) - 3; bytes <= (1 << 20) + 3 && !me->failure[0]; bytes += 3)
        exchange(me, bytes, bytes);
}

START_TEST(test_sizes) {
    over_all(exchange_sizes, false);
}
END_TEST

START_TEST(test_sizes_with_checksums) {
    over_all(exchange_sizes, true);
}
END_TEST

static void exchange_large(net_rank *me) {
    exchange(me, NET_SANITIZED ? 16 << 20 : 64 << 20, 1);
}

START_TEST(test_large) {
    each_transport(2, exchange_large, NULL);
}
END_TEST

/* ---- order, and many at once ---- */

enum { MANY = 300 };

static size_t many_bytes(int i) {
    return (size_t)(i * 37 % 400);
}

static void post_many(net_rank *me) {
    int peer = 1 - me->rank;
    cinch_link *link = me->net->link[peer];
    cinch_msg *send = calloc(MANY, sizeof *send), *recv = calloc(MANY, sizeof *recv);
    unsigned char(*out)[400] = malloc(MANY * sizeof *out), (*in)[400] = malloc(MANY * sizeof *in);
    cinch_msg *all[2 * MANY];
    bool good = true;
    for (int i = 0; i < MANY; i++) {
        net_fill(out[i], many_bytes(i), seed_of(me->rank, peer, (uint64_t)i));
        send[i] = (cinch_msg){.data = out[i], .bytes = many_bytes(i), .tag = (uint64_t)i};
        link->ops->send(link, &send[i]);
        all[i] = &send[i];
    }
    for (int i = 0; i < MANY; i++) { /* with more room than is needed */
        recv[i] = (cinch_msg){.data = in[i], .bytes = 400, .tag = (uint64_t)i};
        link->ops->recv(link, &recv[i]);
        all[MANY + i] = &recv[i];
    }
    NET_CHECK(me, net_wait(me, all, 2 * MANY));
    NET_CHECK(me, link->pending == 0);
    uint64_t payload = 0;
    for (int i = 0; i < MANY; i++) {
        payload += many_bytes(i);
        good &= recv[i].bytes == many_bytes(i) &&
                net_filled(in[i], many_bytes(i), seed_of(peer, me->rank, (uint64_t)i));
    }
    NET_CHECK(me, good);
    bool tcp = strcmp(link->ops->name, "tcp") == 0, ucx = strcmp(link->ops->name, "ucx") == 0;
    uint64_t header = tcp ? 16 : ucx ? 32 : 24, least = payload + MANY * header;
    /* Over ucx also notes that say what was taken. */
    uint64_t most = ucx ? least + MANY * header : least;
    NET_CHECK(me, link->wire_bytes >= least && link->wire_bytes <= most, "%llu on the wire",
              (unsigned long long)link->wire_bytes);
    free(send);
    free(recv);
    free(out);
    free(in);
}

START_TEST(test_many_posted) {
    each_transport(2, post_many, NULL);
}
END_TEST

/* ---- receives that come late ---- */

enum { LATE = 12, LATE_BYTES = 600000 };

static void receive_late(net_rank *me) {
    cinch_link *link = me->net->link[1 - me->rank];
    unsigned char *data = malloc((size_t)LATE * LATE_BYTES);
    cinch_msg msg[LATE], *all[LATE];
    for (int i = 0; i < LATE; i++) {
        msg[i] =
            (cinch_msg){.data = data + i * LATE_BYTES, .bytes = LATE_BYTES, .tag = (uint64_t)i};
        all[i] = &msg[i];
    }
    if (me->rank == 0) {
        net_fill(data, (size_t)LATE * LATE_BYTES, 7);
        for (int i = 0; i < LATE; i++) link->ops->send(link, &msg[i]);
        NET_CHECK(me, net_wait(me, all, LATE));
    } else {
        for (int i = 0; i < LATE; i++) {
            nanosleep(&(struct timespec){0, 10000000}, NULL);
            link->ops->recv(link, &msg[i]);
            NET_CHECK(me, net_wait_one(me, &msg[i]), "message %d", i);
        }
        NET_CHECK(me, net_filled(data, (size_t)LATE * LATE_BYTES, 7));
    }
    free(data);
}

START_TEST(test_late_receives) {
    each_transport(2, receive_late, NULL);
}
END_TEST

/* ---- a random mix, held against what the seed says ---- */

enum { MIX_WINDOW = 6, MIX_MAX = 70000 };

/* One direction of one pair: `count` messages, of which some are under way. */
typedef struct flow {
    cinch_link *link;
    bool sends;
    uint64_t seed, state;
    int posted, finished;
    size_t bytes[MIX_WINDOW];
    cinch_msg msg[MIX_WINDOW];
    unsigned char *data[MIX_WINDOW];
} flow;

static size_t mixed_bytes(uint64_t *state) {
    uint64_t r = net_random(state);
    return (size_t)((r >> 8) % ((r & 7) == 0 ? MIX_MAX : (r & 7) < 4 ? 64 : 3000));
}

static void flow_post(flow *f) {
    int at = f->posted % MIX_WINDOW;
    size_t bytes = f->bytes[at] = mixed_bytes(&f->state);
    uint64_t tag = f->seed + (uint64_t)f->posted;
    if (f->sends) net_fill(f->data[at], bytes, tag);
    size_t spare = f->sends ? 0 : (tag * 31) % 100;
    f->msg[at] = (cinch_msg){.data = f->data[at], .bytes = bytes + spare, .tag = tag};
    f->posted++;
    if (f->sends)
        f->link->ops->send(f->link, &f->msg[at]);
    else
        f->link->ops->recv(f->link, &f->msg[at]);
}

/* False: what came is not what the seed says. */
static bool flow_reap(flow *f) {
    while (f->finished < f->posted && f->msg[f->finished % MIX_WINDOW].done) {
        int at = f->finished % MIX_WINDOW;
        if (f->msg[at].bytes != f->bytes[at]) return false;
        if (!f->sends && !net_filled(f->data[at], f->bytes[at], f->seed + (uint64_t)f->finished))
            return false;
        f->finished++;
    }
    return true;
}

static void random_mix(net_rank *me) {
    int n = me->nranks, flows = 0, count = NET_SANITIZED ? 60 : 200;
    uint64_t state = 99 + (uint64_t)me->rank, start = cinch_now_ns();
    flow *f = calloc(2 * (size_t)n, sizeof *f);
    for (int i = 0; i < 2 * n; i++) {
        int peer = i / 2;
        if (peer == me->rank) continue;
        flow *one = &f[flows++];
        one->link = me->net->link[peer];
        one->sends = i % 2;
        one->seed = one->sends ? seed_of(me->rank, peer, 5) : seed_of(peer, me->rank, 5);
        one->state = one->seed;
        for (int k = 0; k < MIX_WINDOW; k++) one->data[k] = malloc(MIX_MAX + 100);
    }
    unsigned rounds = 0;
    for (int left = 1; left > 0;) {
        flow *one = &f[net_random(&state) % (uint64_t)flows];
        if (one->posted < count && one->posted - one->finished < MIX_WINDOW) flow_post(one);
        if (one->link->pending > 0 && net_random(&state) % 4 == 0)
            NET_CHECK(me, one->link->ops->progress(one->link) == cinchSuccess);
        left = 0;
        for (int i = 0; i < flows; i++) {
            NET_CHECK(me, flow_reap(&f[i]), "message %d", f[i].finished);
            left += count - f[i].finished;
        }
        if (++rounds % 64 != 0) continue;
        sched_yield();
        NET_CHECK(me, cinch_now_ns() - start < 60000000000u);
        if (rounds % 1024 == 0)
            NET_CHECK(me, cinch_rendezvous_check(me->rendezvous) == cinchSuccess);
    }
    for (int i = 0; i < flows; i++)
        for (int k = 0; k < MIX_WINDOW; k++) free(f[i].data[k]);
    free(f);
}

START_TEST(test_random_mix) {
    over_all(random_mix, _i == 1);
}
END_TEST

/* ---- many connections ---- */

static void exchange_small(net_rank *me) {
    int n = me->nranks, count = 0;
    cinch_msg msg[256], *all[256] = {0};
    uint64_t in[128], out = (uint64_t)me->rank;
    for (int r = 0; r < n; r++) {
        if (r == me->rank) continue;
        cinch_link *link = me->net->link[r];
        msg[r] = (cinch_msg){.data = &in[r], .bytes = sizeof out, .tag = 1};
        msg[128 + r] = (cinch_msg){.data = &out, .bytes = sizeof out, .tag = 1};
        link->ops->recv(link, &msg[r]);
        link->ops->send(link, &msg[128 + r]);
        all[count++] = &msg[r];
        all[count++] = &msg[128 + r];
    }
    NET_CHECK(me, net_wait(me, all, count));
    for (int r = 0; r < n; r++) NET_CHECK(me, r == me->rank || in[r] == (uint64_t)r);
}

START_TEST(test_connections) {
    each_transport(12, exchange_small, NULL);
    if (!NET_SANITIZED) each_transport(65, exchange_small, NULL);
}
END_TEST

/* ---- an orderly end ---- */

/* A send may wait for its receive where the message is long: over ucx from 8 KiB on in shared
 * memory, or where UCX_* says. */
static void leave_early(net_rank *me) {
    cinch_link *link = me->net->link[1 - me->rank];
    size_t bytes = strcmp(link->ops->name, "ucx") == 0 ? 4000 : 200000;
    unsigned char *data = malloc(bytes);
    cinch_msg msg = {.data = data, .bytes = bytes, .tag = 3};
    if (me->rank == 0) {
        net_fill(data, bytes, 3);
        link->ops->send(link, &msg);
        NET_CHECK(me, net_wait_one(me, &msg));
        cinch_net_close(me->net);
        me->net = NULL;
        net_barrier(me);
    } else {
        net_barrier(me); /* the sender is gone */
        link->ops->recv(link, &msg);
        NET_CHECK(me, net_wait_one(me, &msg));
        NET_CHECK(me, net_filled(data, bytes, 3));
    }
    free(data);
}

START_TEST(test_close_loses_nothing) {
    each_transport(2, leave_early, NULL);
}
END_TEST

static void miss_the_peer(net_rank *me) {
    cinch_link *link = me->net->link[1 - me->rank];
    unsigned char data[64];
    cinch_msg msg = {.data = data, .bytes = sizeof data, .tag = 3};
    if (me->rank == 0) {
        cinch_net_close(me->net);
        me->net = NULL;
        net_barrier(me);
        return;
    }
    net_barrier(me);
    uint64_t start = cinch_now_ns();
    link->ops->recv(link, &msg);
    NET_CHECK(me, !net_wait_one(me, &msg));
    NET_CHECK(me, link->ops->progress(link) == cinchRemoteError); /* and stays so */
    NET_CHECK(me, strstr(cinch_last_error(), "rank 0 closed its connection to rank 1"));
    NET_CHECK(me, cinch_now_ns() - start < 1000000000u);
}

START_TEST(test_closed_peer_is_an_error) {
    each_transport(2, miss_the_peer, NULL);
}
END_TEST

/* ---- disagreement ---- */

static void disagree(net_rank *me) {
    const char *what = me->shared;
    bool by_tag = strcmp(what, "tag") == 0;
    cinch_link *link = me->net->link[1 - me->rank];
    unsigned char data[5000];
    memset(data, 1, sizeof data);
    cinch_msg msg = {.data = data, .bytes = me->rank == 0 ? 5000 : by_tag ? 5000 : 4999};
    msg.tag = by_tag && me->rank == 0 ? 0xab : 0xac;
    if (me->rank == 0) {
        link->ops->send(link, &msg);
        NET_CHECK(me, net_wait_one(me, &msg));
        net_barrier(me);
        return;
    }
    link->ops->recv(link, &msg);
    bool arrived = net_wait_one(me, &msg);
    const char *wanted =
        by_tag ? "rank 1 expected message 0xac, rank 0 sent 0xab: the ranks called different"
               : "rank 0 sent 5000 bytes as message 0xac, rank 1 has room for 4999";
    NET_CHECK(me, !arrived);
    NET_CHECK(me, strstr(cinch_last_error(), wanted));
    NET_CHECK(me, link->ops->progress(link) == cinchInvalidUsage);
    net_barrier(me);
}

START_TEST(test_disagreement) {
    static char *const what[] = {"tag", "room"};
    each_transport(2, disagree, what[_i]);
}
END_TEST

/* ---- processes, and their death ---- */

/* UCX is loaded after the fork, and the address sanitizer's allocator may have been locked by
 * another thread at it: the child would wait without end. */
static bool forks(const char *transport) {
    return !NET_SANITIZED || strcmp(transport, "ucx") != 0;
}

START_TEST(test_processes) {
    for (size_t t = 0; t < all_transports; t++)
        if (forks(transports[t]))
            net_run(&(net_case){.nranks = 3,
                                .transport = transports[t],
                                .options = {.stage_bytes = 4096},
                                .body = exchange_sizes,
                                .processes = true});
}
END_TEST

/* Rank 1 dies with a message behind it that it has taken, and one before it that it has not. */
static void die(net_rank *me) {
    enum { BYTES = 64 << 20 }; /* more than the kernel holds between two sockets */
    cinch_link *link = me->net->link[1 - me->rank];
    unsigned char *data = calloc(1, BYTES);
    cinch_msg first = {.data = data, .bytes = 1 << 20, .tag = 1};
    cinch_msg second = {.data = data, .bytes = BYTES, .tag = 2};
    if (me->rank == 1) {
        link->ops->recv(link, &first);
        while (!first.done) link->ops->progress(link);
        raise(SIGKILL);
    }
    link->ops->send(link, &first);
    link->ops->send(link, &second);
    uint64_t start = cinch_now_ns();
    NET_CHECK(me, !net_wait_one(me, &second));
    NET_CHECK(me, strstr(cinch_last_error(), "rank 1"));
    NET_CHECK(me, cinch_now_ns() - start < 1000000000u);
    free(data);
}

START_TEST(test_death) {
    for (size_t t = 0; t < all_transports; t++)
        if (forks(transports[t]))
            net_run(&(net_case){.nranks = 2,
                                .transport = transports[t],
                                .options = {.stage_bytes = 4096},
                                .body = die,
                                .processes = true});
}
END_TEST

int main(int argc, char **argv) {
    /* `test_transport long` adds what is too slow for every commit; a transport's name: over that
     * one alone. */
    bool all = argc > 1 && strcmp(argv[argc - 1], "long") == 0;
    if (argc > 1 + all) {
        transports[0] = argv[1];
        all_transports = 1;
    }
    Suite *suite = suite_create("transport");
    TCase *tests = tcase_create("links");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_sizes);
    tcase_add_test(tests, test_many_posted);
    tcase_add_test(tests, test_late_receives);
    tcase_add_loop_test(tests, test_random_mix, 0, 1);
    tcase_add_test(tests, test_close_loses_nothing);
    tcase_add_test(tests, test_closed_peer_is_an_error);
    tcase_add_loop_test(tests, test_disagreement, 0, 2);
    if (all) {
        tcase_add_test(tests, test_sizes_with_checksums);
        tcase_add_loop_test(tests, test_random_mix, 1, 2);
        tcase_add_test(tests, test_large);
        tcase_add_test(tests, test_connections);
    }
    suite_add_tcase(suite, tests);
    TCase *processes = tcase_create("processes");
    tcase_set_timeout(processes, 300);
    tcase_add_test(processes, test_processes);
    tcase_add_test(processes, test_death);
    suite_add_tcase(suite, processes);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

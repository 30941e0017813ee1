/* SPDX-License-Identifier: Apache-2.0 */
/* What every transport must do, beside what test_transport tries: all sizes, connections by the
 * dozen, closing in the middle, deaths, meeting again, and senders far ahead of their receivers.
 *
 *   test_conform [TRANSPORT] [large]
 *
 * Without a name: over each that this build has, natively. large: messages of up to 1 GiB, 256 MiB
 * over ucx, and 64 ranks. CINCH_TEST_MOST=BYTES is the largest message, CINCH_TEST_PART=PERCENT
 * what part of the amounts is done, for slow machines. Status 77: it cannot be used here. */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/family.h"
#include "tests/net_ranks.h"
#include "transports/names.h"

static const char *transport;
static int part = 100; /* percent */
static size_t most = 4 << 20;
static char devices[400]; /* " CINCH_IB_...=..." of the environment */

static const cinch_net_options plain = {.stage_bytes = 4096};

static void run(int nranks, bool processes, void (*body)(net_rank *), void *shared) {
    net_run(&(net_case){.nranks = nranks,
                        .transport = transport,
                        .options = plain,
                        .body = body,
                        .processes = processes,
                        .shared = shared});
}

static int amount(int full) {
    int some = (int)((int64_t)full * part / 100);
    return some < 2 ? 2 : some;
}

static uint64_t seed_of(int from, int to, uint64_t number) {
    return ((uint64_t)from << 40 ^ (uint64_t)to << 32 ^ number) * UINT64_C(0xd1342543de82ef95);
}

static void post(cinch_link *link, bool sends, cinch_msg *msg, void *data, size_t bytes,
                 uint64_t tag) {
    *msg = (cinch_msg){.data = data, .bytes = bytes, .tag = tag};
    (sends ? link->ops->send : link->ops->recv)(link, msg);
}

/* A large message on a busy machine may take longer than net_wait has patience. */
static bool wait_long(net_rank *me, cinch_msg *const *messages, int count) {
    for (int i = 0; i < 10; i++)
        if (net_wait(me, messages, count))
            return true;
        else if (!strstr(cinch_last_error(), "still under way"))
            return false;
    return false;
}

/* ---- sizes ---- */

enum { GUARD = 64 };

/* Both directions at once, in guarded memory that is not aligned: the receive of every other
 * message comes first, and has room to spare in every third. */
static bool both_ways(net_rank *me, size_t bytes, uint64_t number) {
    int peer = 1 - me->rank;
    cinch_link *link = me->net->link[peer];
    size_t spare = number % 3 == 0 && bytes < 1 << 20 ? 40 : 0, skew = number % 7;
    unsigned char *in = malloc(bytes + spare + skew + 2 * GUARD), *out = malloc(bytes + skew + 1);
    unsigned char *data = in + GUARD + skew;
    cinch_msg send, recv;
    memset(in, 0xa5, GUARD + skew);
    memset(data + bytes + spare, 0xa5, GUARD);
    net_fill(out + skew, bytes, seed_of(me->rank, peer, number));
    uint64_t tag = number << 48 | bytes;
    if (number % 2) post(link, false, &recv, data, bytes + spare, tag);
    post(link, true, &send, out + skew, bytes, tag);
    if (number % 2 == 0) post(link, false, &recv, data, bytes + spare, tag);
    if (!wait_long(me, (cinch_msg *[]){&send, &recv}, 2)) return false;
    bool good = recv.bytes == bytes && net_filled(data, bytes, seed_of(peer, me->rank, number)) &&
                net_filled(out + skew, bytes, seed_of(me->rank, peer, number));
    for (size_t i = 0; i < GUARD; i++) good &= in[i] == 0xa5 && data[bytes + spare + i] == 0xa5;
    free(in);
    free(out);
    if (!good) cinch_fail_quiet(cinchInternalError, "what came is not what was sent");
    return good;
}

/* Every power of two and what is beside it, and some in between. */
static void all_sizes(net_rank *me) {
    uint64_t number = 0, state = 5;
    NET_CHECK(me, both_ways(me, 0, number++));
    for (size_t power = 1; power <= most; power *= 2) {
        for (size_t bytes = power - 1; bytes <= power + 1 && bytes <= most; bytes++)
            NET_CHECK(me, both_ways(me, bytes, number++), "%zu bytes", bytes);
        size_t bytes = power + (size_t)(net_random(&state) % power);
        if (bytes <= most) NET_CHECK(me, both_ways(me, bytes, number++), "%zu bytes", bytes);
    }
}

START_TEST(sizes) {
    run(2, false, all_sizes, NULL);
}
END_TEST

static void large_sizes(net_rank *me) {
    NET_CHECK(me, both_ways(me, most / 16 - 3, 1));
    NET_CHECK(me, both_ways(me, most, 2), "%zu bytes", most);
}

START_TEST(sizes_large) {
    run(2, false, large_sizes, NULL);
}
END_TEST

/* ---- many connections ---- */

enum { EACH = 6, MOST_OF_EACH = 9000 };

static size_t odd_bytes(uint64_t number) {
    uint64_t state = number;
    uint64_t r = net_random(&state);
    return (size_t)(r >> 8) % (r % 4 ? 200 : MOST_OF_EACH);
}

/* Every rank exchanges several messages with every other, all of them posted at once. */
static void everybody(net_rank *me) {
    int n = me->nranks, count = 0;
    size_t all_bytes = (size_t)n * EACH * MOST_OF_EACH;
    unsigned char *in = malloc(all_bytes), *out = malloc(all_bytes);
    cinch_msg *msg = calloc((size_t)n * EACH * 2, sizeof *msg);
    cinch_msg **all = calloc((size_t)n * EACH * 2, sizeof *all);
    for (uint64_t i = 0; i < EACH; i++)
        for (int step = 1; step < n; step++) {
            int r = (me->rank + step) % n;
            size_t at = ((size_t)r * EACH + i) * MOST_OF_EACH;
            uint64_t to = seed_of(me->rank, r, i), from = seed_of(r, me->rank, i);
            net_fill(out + at, odd_bytes(to), to);
            all[count] = &msg[count];
            post(me->net->link[r], true, all[count++], out + at, odd_bytes(to), to);
            all[count] = &msg[count];
            post(me->net->link[r], false, all[count++], in + at, MOST_OF_EACH, from);
        }
    NET_CHECK(me, wait_long(me, all, count));
    bool good = true;
    for (int k = 1; k < count; k += 2)
        good &= all[k]->bytes == odd_bytes(all[k]->tag) &&
                net_filled(all[k]->data, all[k]->bytes, all[k]->tag);
    NET_CHECK(me, good);
    free(in);
    free(out);
    free(msg);
    free(all);
}

/* 12 ranks have 66 connections between them. */
START_TEST(connections) {
    run(12, false, everybody, NULL);
}
END_TEST

START_TEST(connections_large) {
    if (!NET_SANITIZED) run(64, false, everybody, NULL);
}
END_TEST

/* ---- closing with messages posted, and meeting again ---- */

enum { UNDER_WAY = 4, SOME_BYTES = 300000 };

static bool reopen(net_rank *me) {
    cinch_net_close(me->net);
    me->net = NULL;
    return net_barrier(me) && cinch_net_open(&me->settings, me->rendezvous, me->rank, me->nranks,
                                             &plain, &me->net) == cinchSuccess;
}

/* Drives the link until it fails; false where it does not within 10 s. */
static bool fails(net_rank *me, cinch_link *link) {
    uint64_t start = cinch_now_ns();
    (void)me;
    while (cinch_now_ns() - start < 10000000000u)
        if (link->ops->progress(link) != cinchSuccess) return true;
    return false;
}

/* One side closes after so many rounds of progress, and uses its memory for other things at once.
 * Nothing is written there any more; the other side, which waits for more than ever comes, is told
 * who left, after it has had all that was sent before; and the two connect anew. */
static void cancel(net_rank *me) {
    for (int turn = 0; turn < 6; turn++) {
        cinch_link *link = me->net->link[1 - me->rank];
        bool closes = turn % 2 == me->rank;
        size_t all_bytes = (size_t)UNDER_WAY * SOME_BYTES;
        unsigned char *in = malloc(all_bytes), *out = calloc(1, all_bytes);
        cinch_msg send[UNDER_WAY], recv[UNDER_WAY];
        for (int i = 0; i < UNDER_WAY; i++) {
            size_t at = (size_t)i * SOME_BYTES;
            if (!closes || i < UNDER_WAY - 1)
                post(link, true, &send[i], out + at, SOME_BYTES, (uint64_t)i);
            post(link, false, &recv[i], in + at, SOME_BYTES, (uint64_t)i);
        }
        if (closes) {
            for (int i = 0; i < turn * turn * 10; i++)
                NET_CHECK(me, link->ops->progress(link) == cinchSuccess);
            cinch_net_close(me->net);
            me->net = NULL;
            memset(in, 0x5a, all_bytes);
            memset(out, 0x5a, all_bytes);
        } else {
            NET_CHECK(me, fails(me, link));
            NET_CHECK(me, strstr(cinch_last_error(), me->rank ? "rank 0" : "rank 1"));
            NET_CHECK(me, !recv[UNDER_WAY - 1].done);
        }
        NET_CHECK(me, reopen(me));
        for (size_t i = 0; closes && i < all_bytes; i++) NET_CHECK(me, in[i] == 0x5a, "at %zu", i);
        NET_CHECK(me, both_ways(me, 70001, (uint64_t)turn), "after turn %d", turn);
        free(in);
        free(out);
    }
}

START_TEST(closing_cancels) {
    run(2, false, cancel, NULL);
}
END_TEST

/* ---- disagreement ---- */

typedef struct disagreement {
    const char *says;
    size_t sent, room;
    bool exact, other_tag;
    _Atomic bool over;
} disagreement;

static disagreement disagreements[] = {
    {NULL, 5000, 5000, true, false},
    {NULL, 4999, 5000, false, false},
    {"rank 1 expected message 0x9, rank 0 sent 0x1000000000000002", 5000, 5000, false, true},
    {"rank 1 expected message 0x9, rank 0 sent 0x1000000000000002", 0, 0, false, true},
    {"rank 0 sent 5001 bytes", 5001, 5000, false, false},
    {"rank 0 sent 300000 bytes", 300000, 299999, false, false},
    {"rank 0 sent 1 bytes", 1, 0, false, false},
    {"rank 0 sent 4999 bytes", 4999, 5000, true, false},
    {"rank 0 sent 0 bytes", 0, 1, true, false},
};

/* Two messages that fit, then the one that may not. */
static void differ(net_rank *me) {
    disagreement *d = me->shared;
    cinch_link *link = me->net->link[1 - me->rank];
    unsigned char *data = calloc(3, 300000);
    cinch_msg msg[3];
    NET_CHECK(me, data != NULL);
    for (int i = 0; i < 3; i++) {
        bool last = i == 2;
        uint64_t tag = (uint64_t)1 << 60 | (unsigned)i;
        if (last && me->rank) NET_CHECK(me, net_wait(me, (cinch_msg *[]){&msg[0], &msg[1]}, 2));
        msg[i] = (cinch_msg){.data = data + (size_t)i * 300000, .bytes = 700, .tag = tag};
        if (last) msg[i].bytes = me->rank ? d->room : d->sent;
        if (last && me->rank) msg[i].exact = d->exact;
        if (last && me->rank && d->other_tag) msg[i].tag = 9;
        (me->rank ? link->ops->recv : link->ops->send)(link, &msg[i]);
    }
    if (me->rank) {
        NET_CHECK(me, net_wait_one(me, &msg[2]) == !d->says);
        NET_CHECK(me, !d->says || strstr(cinch_last_error(), d->says));
        NET_CHECK(me, !d->says || link->ops->progress(link) == cinchInvalidUsage);
        NET_CHECK(me, d->says || msg[2].bytes == d->sent);
        atomic_store(&d->over, true);
    }
    while (!atomic_load(&d->over)) { /* the receiver may no longer take it */
        if (link->pending > 0) (void)link->ops->progress(link);
        NET_CHECK(me, cinch_rendezvous_check(me->rendezvous) == cinchSuccess);
    }
    NET_CHECK(me, net_barrier(me));
    cinch_net_close(me->net); /* before the memory goes */
    me->net = NULL;
    free(data);
}

START_TEST(what_does_not_fit) {
    run(2, false, differ, &disagreements[_i]);
}
END_TEST

/* ---- a sender far ahead ---- */

typedef struct flood {
    int count;
    size_t bytes;
    bool held; /* so much that no buffers on the way can have it all */
    _Atomic bool seen;
} flood;

static size_t resident_bytes(void) {
    char text[200] = "";
    unsigned long pages = 0;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0 || sscanf(text, "%*u %lu", &pages) != 1) return 0;
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* All messages are posted before the first receive is; both ranks are in this process. */
static void run_ahead(net_rank *me) {
    flood *f = me->shared;
    cinch_link *link = me->net->link[1 - me->rank];
    unsigned char *data = malloc(f->bytes);
    NET_CHECK(me, net_barrier(me));
    if (me->rank == 0) {
        cinch_msg *msg = malloc((size_t)f->count * sizeof *msg);
        memset(msg, 1, (size_t)f->count * sizeof *msg);
        net_fill(data, f->bytes, 3);
        size_t before = resident_bytes();
        uint64_t start = cinch_now_ns();
        for (int i = 0; i < f->count; i++) post(link, true, &msg[i], data, f->bytes, (uint64_t)i);
        while (cinch_now_ns() - start < 300000000u && link->pending > 0)
            NET_CHECK(me, link->ops->progress(link) == cinchSuccess);
        size_t now = resident_bytes(), grown = now > before ? now - before : 0;
        NET_CHECK(me, !f->held || link->pending > 0, "all was taken without a receive");
        atomic_store(&f->seen, true);
        printf("# %s: %d messages of %zu bytes ahead: %zu KiB more in memory, %d not gone\n",
               transport, f->count, f->bytes, grown >> 10, link->pending);
        NET_CHECK(me, NET_SANITIZED || grown < 32 << 20, "%zu bytes more", grown);
        NET_CHECK(me, net_wait_one(me, &msg[f->count - 1]));
        free(msg);
    } else {
        while (!atomic_load(&f->seen)) {
            nanosleep(&(struct timespec){0, 1000000}, NULL);
            NET_CHECK(me, cinch_rendezvous_check(me->rendezvous) == cinchSuccess);
        }
        for (int i = 0; i < f->count; i++) {
            cinch_msg msg;
            post(link, false, &msg, data, f->bytes, (uint64_t)i);
            NET_CHECK(me, net_wait_one(me, &msg) && msg.bytes == f->bytes, "message %d", i);
            if (i % 16 == 0) NET_CHECK(me, net_filled(data, f->bytes, 3), "message %d", i);
        }
    }
    NET_CHECK(me, net_barrier(me));
    free(data);
}

START_TEST(senders_wait) {
    flood small = {.count = amount(20000), .bytes = 100};
    flood large = {.count = amount(512), .bytes = 256 << 10, .held = true};
    run(2, false, run_ahead, &small);
    run(2, false, run_ahead, &large);
}
END_TEST

/* ---- a death ---- */

/* Rank 2 is killed with messages on their way to and from both others. They are told who it was,
 * and their own link goes on. */
static void die(net_rank *me) {
    enum { BYTES = 8 << 20 };
    unsigned char *data = calloc(3, BYTES);
    cinch_msg msg[4];
    int count = 0;
    for (int r = 0; r < 3; r++) {
        if (r == me->rank || (me->rank != 2 && r != 2)) continue;
        post(me->net->link[r], true, &msg[count++], data, BYTES, 1);
        post(me->net->link[r], false, &msg[count++], data + (size_t)(1 + r / 2) * BYTES, BYTES, 1);
    }
    if (me->rank == 2) {
        for (int i = 0; i < 50; i++)
            for (int r = 0; r < 2; r++) me->net->link[r]->ops->progress(me->net->link[r]);
        raise(SIGKILL);
    }
    cinch_link *dead = me->net->link[2], *alive = me->net->link[1 - me->rank];
    uint64_t start = cinch_now_ns();
    cinchResult_t result = cinchSuccess;
    for (unsigned i = 0; result == cinchSuccess && cinch_now_ns() - start < 10000000000u; i++) {
        result = dead->ops->progress(dead);
        if (result == cinchSuccess && i % 64 == 0) result = cinch_rendezvous_check(me->rendezvous);
    }
    NET_CHECK(me, result != cinchSuccess, "it went unnoticed");
    NET_CHECK(me, strstr(cinch_last_error(), "rank 2"));
    post(alive, true, &msg[2], data, BYTES, 2);
    post(alive, false, &msg[3], data + BYTES, BYTES, 2);
    while (!msg[2].done || !msg[3].done) {
        NET_CHECK(me, alive->ops->progress(alive) == cinchSuccess);
        NET_CHECK(me, cinch_now_ns() - start < 20000000000u);
    }
    /* Neither is to leave while the other still reads. */
    char name[64];
    snprintf(name, sizeof name, "%s%d", (const char *)me->shared, me->rank);
    close(open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    snprintf(name, sizeof name, "%s%d", (const char *)me->shared, 1 - me->rank);
    while (access(name, F_OK) != 0 && cinch_now_ns() - start < 20000000000u)
        NET_CHECK(me, alive->pending == 0);
    free(data);
}

START_TEST(a_death_is_named) {
    char folder[] = "/tmp/conform.XXXXXX", name[64];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(name, sizeof name, "%s/", folder);
    run(3, true, die, name);
    for (int r = 0; r < 2; r++) {
        snprintf(name, sizeof name, "%s/%d", folder, r);
        unlink(name);
    }
    rmdir(folder);
}
END_TEST

/* The same from above: an all-reduce fails, naming the rank, and the survivors go on without it. */
static void lose_one(seat *me) {
    static float data[50000];
    int victim = 1;
    cinchComm_t child = NULL;
    cinchResult_t result = cinchSuccess;
    me->dies = me->rank == victim;
    for (int i = 0; result == cinchSuccess; i++) {
        if (me->dies && i == 20) kill(getpid(), SIGKILL);
        result = cinchAllReduce(data, data, 50000, cinchFloat, cinchSum, me->comm, NULL);
    }
    CHECK(me, result == cinchRemoteError, "%d", (int)result);
    CHECK(me, strstr(cinchGetLastError(me->comm), "rank 1"), "%s", cinchGetLastError(me->comm));
    CHECK_OK(me, cinchCommShrink(me->comm, &victim, 1, &child, NULL, CINCH_SHRINK_ABORT));
    CHECK(me, is_rank(child, me->rank / 2, 2));
    CHECK_OK(me, cinchCommDestroy(me->comm));
    me->comm = child;
    for (int i = 0; i < 5; i++) CHECK(me, adds_up(child, 1, 2));
}

START_TEST(survivors_connect_anew) {
    char env[500];
    snprintf(env, sizeof env, "CINCH_TRANSPORT=%s%s", transport, devices);
    ranks_run(
        &(ranks_case){.nranks = 3, .processes = true, .env = env, .body = lose_one, .logs = "*"});
}
END_TEST

/* ---- all of them ---- */

static Suite *make_suite(bool large) {
    Suite *suite = suite_create(transport);
    TCase *links = tcase_create("links"), *processes = tcase_create("processes");
    tcase_set_timeout(links, 300);
    tcase_set_timeout(processes, 120);
    if (large) {
        tcase_add_test(links, sizes_large);
        tcase_add_test(links, connections_large);
    } else {
        tcase_add_test(links, sizes);
        tcase_add_test(links, connections);
        tcase_add_test(links, closing_cancels);
        tcase_add_loop_test(links, what_does_not_fit, 0,
                            (int)(sizeof disagreements / sizeof *disagreements));
        tcase_add_test(links, senders_wait);
        tcase_add_test(processes, a_death_is_named);
    }
    suite_add_tcase(suite, links);
    suite_add_tcase(suite, processes);
    return suite;
}

/* The variables that say which devices there are: others are cleared before some tests. */
static void keep_devices(void) {
    for (char **e = environ; *e; e++)
        if (strncmp(*e, "CINCH_IB_", 9) == 0 && strlen(devices) + strlen(*e) + 2 < sizeof devices) {
            strcat(devices, " ");
            strcat(devices, *e);
        }
}

static int run_over(const cinch_transport *t, bool large) {
    const TTest *const again[] = {survivors_connect_anew};
    transport = t->name;
    if (large && !getenv("CINCH_TEST_MOST")) {
        bool plain_bytes = strcmp(transport, "shm") == 0 || strcmp(transport, "tcp") == 0;
        most = NET_SANITIZED ? 64 << 20 : plain_bytes ? 1 << 30 : 256 << 20;
    }
    SRunner *runner = srunner_create(make_suite(large));
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed + (large ? 0 : run_tests("conform", again, 1, 120));
}

/* In a process of its own: some tests clear the environment. */
static bool passes(const cinch_transport *t, bool large) {
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) exit(run_over(t, large) ? 1 : 0);
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

int main(int argc, char **argv) {
    bool large = argc > 1 && strcmp(argv[argc - 1], "large") == 0;
    const char *asked = argc > 1 + large ? argv[1] : NULL, *text;
    int failed = 0, ran = 0;
    if ((text = getenv("CINCH_TEST_PART"))) part = atoi(text);
    if ((text = getenv("CINCH_TEST_MOST"))) most = (size_t)strtoull(text, NULL, 0);
    keep_devices();
    for (int i = 0; cinch_transport_at(i); i++) {
        const cinch_transport *t = cinch_transport_at(i);
        if (asked ? strcmp(t->name, asked) != 0 : !t->open) continue;
        /* The thread sanitizer cannot see into UCX. */
        if (!asked && NET_THREAD_SANITIZED && strcmp(t->name, "ucx") == 0) continue;
        const char *why = t->unusable();
        if (why && (asked || strcmp(t->name, "tcp") != 0)) {
            printf("skipped: %s cannot be used here: %s\n", t->name, why);
            continue;
        }
        failed += !passes(t, large);
        ran++;
    }
    return failed ? 1 : ran ? 0 : 77;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs transport does beyond what every transport does: direct placement and what it may
 * not remember, rails, sleeping, limits, a line that loses packets or is cut.
 *
 *   test_verbs [alone|pair|rails|loss|cut|limit]
 *
 * alone: on the devices that CINCH_IB_HCA names. The others are for the guest of tests/guest, where
 * rxa and rxb are at the two ends of a line. */
#include <check.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/heap.h"
#include "tests/net_ranks.h"
#include "transports/verbs.h"

/* ---- who is where ---- */

static void use(net_rank *me, const char *hca) {
    free(me->settings.ib_hca);
    me->settings.ib_hca = strdup(hca);
}

/* The ranks at the two ends of the line. */
static void at_the_ends(net_rank *me, cinch_net_options *options) {
    (void)options;
    use(me, me->rank % 2 ? "=rxb" : "=rxa");
}

/* Each rank has both devices, as a rail each, in an order that lets both cross the line. */
static void on_both(net_rank *me, cinch_net_options *options) {
    (void)options;
    use(me, me->rank % 2 ? "rxb,rxa" : "=rxa:1,rxb");
}

static const char *const apart[] = {"a", "b", "c", "d"};

static void run(int nranks, void (*body)(net_rank *me),
                void (*setup)(net_rank *me, cinch_net_options *options), bool checksum) {
    net_run(&(net_case){.nranks = nranks,
                        .transport = "verbs",
                        .hostids = setup == on_both ? apart : NULL,
                        .options = {.stage_bytes = 4096, .checksum = checksum},
                        .setup = setup,
                        .body = body});
}

/* ---- one message ---- */

/* Rank 0 sends, rank 1 receives; false: it came to nothing, or what came is wrong. */
static bool pass(net_rank *me, unsigned char *data, size_t bytes, uint64_t number) {
    cinch_link *link = me->net->link[1 - me->rank];
    cinch_msg msg = {.data = data, .bytes = bytes, .tag = number};
    if (me->rank == 0) {
        net_fill(data, bytes, number);
        link->ops->send(link, &msg);
        return net_wait_one(me, &msg);
    }
    memset(data, 0x5a, bytes);
    link->ops->recv(link, &msg);
    return net_wait_one(me, &msg) && net_filled(data, bytes, number);
}

static unsigned char *heap_bytes(size_t bytes) {
    void *data = NULL;
    return cinch_heap_alloc(&data, bytes) == cinchSuccess ? data : NULL;
}

/* Its descriptor stays, and is not left over by a test. */
static void make_heap(void) {
    cinch_heap heap;
    ck_assert_int_eq(cinch_heap_get(&heap), cinchSuccess);
}

/* ---- memory that changes ---- */

enum { PART = 200000, TIMES = 10 };

/* On both ranks several times running, then on either, on none, on both. */
static const char registered[2][TIMES + 1] = {"1111010011", "1110101011"};

/* The heap gives the same address again, with other pages. */
static void same_address_of_the_heap(net_rank *me) {
    unsigned char *first = NULL;
    for (uint64_t i = 0; i < TIMES; i++) {
        NET_CHECK(me, net_barrier(me)); /* both ranks are threads, and share the heap */
        unsigned char *data = me->rank == 0 ? heap_bytes(PART) : NULL;
        NET_CHECK(me, net_barrier(me));
        if (me->rank == 1) data = heap_bytes(PART);
        if (!first) first = data;
        NET_CHECK(me, data == first, "the test wants the same address");
        NET_CHECK(me, pass(me, data, PART, i), "round %d", (int)i);
        NET_CHECK(me, net_barrier(me));
        if (me->rank == 1) NET_CHECK(me, cinch_heap_release(data) == cinchSuccess);
        NET_CHECK(me, net_barrier(me));
        if (me->rank == 0) NET_CHECK(me, cinch_heap_release(data) == cinchSuccess);
    }
}

/* The caller maps its own memory anew, registered or not. */
static void same_address_mapped_anew(net_rank *me) {
    size_t bytes = 1 << 18;
    unsigned char *at = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NET_CHECK(me, at != MAP_FAILED);
    for (uint64_t i = 0; i < TIMES; i++) {
        bool keep = registered[me->rank][i] == '1';
        NET_CHECK(me, mmap(at, bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
        if (keep) NET_CHECK(me, cinch_net_keep(me->net, at, bytes) == cinchSuccess);
        NET_CHECK(me, pass(me, at + 77, PART, i), "round %d", (int)i);
        NET_CHECK(me, pass(me, at, bytes, i + 100), "round %d", (int)i);
        if (keep) cinch_net_release(me->net, at, bytes);
        NET_CHECK(me, munmap(at, bytes) == 0);
    }
}

START_TEST(memory_that_is_another) {
    run(2, same_address_of_the_heap, NULL, false);
    run(2, same_address_mapped_anew, NULL, false);
}
END_TEST

/* ---- registering once ---- */

enum { BUFFERS = 50, ROUNDS = 1000, BUFFER_BYTES = 40000 };

static void many_times(net_rank *me) {
    unsigned char *all = malloc((size_t)BUFFERS * BUFFER_BYTES);
    for (int b = 0; b < BUFFERS; b++)
        NET_CHECK(me,
                  cinch_net_keep(me->net, all + b * BUFFER_BYTES, BUFFER_BYTES) == cinchSuccess);
    uint64_t before = cinch_verbs_registrations();
    NET_CHECK(me, net_barrier(me));
    for (uint64_t i = 0; i < ROUNDS; i++)
        NET_CHECK(me, pass(me, all + i % BUFFERS * BUFFER_BYTES, BUFFER_BYTES, i), "%d", (int)i);
    NET_CHECK(me, net_barrier(me));
    uint64_t made = cinch_verbs_registrations() - before; /* of both ranks */
    NET_CHECK(me, made == 2 * BUFFERS, "%d registrations", (int)made);
    NET_CHECK(me, net_barrier(me));
    free(all);
}

START_TEST(each_buffer_is_registered_once) {
    run(2, many_times, NULL, false);
}
END_TEST

/* ---- a random mix of memories and sizes ---- */

enum { WINDOW = 7, LARGEST = 150000 };

typedef struct flow {
    cinch_link *link;
    bool sends;
    uint64_t seed, state;
    int posted, finished;
    size_t bytes[WINDOW];
    cinch_msg msg[WINDOW];
    unsigned char *steady[WINDOW], *other[WINDOW];
} flow;

static void flow_post(flow *f, uint64_t where) {
    int at = f->posted % WINDOW;
    uint64_t r = net_random(&f->state), tag = f->seed + (uint64_t)f->posted;
    size_t bytes = f->bytes[at] = (size_t)((r >> 8) % (r % 3 == 0   ? LARGEST
                                                       : r % 3 == 1 ? 64
                                                                    : 40000));
    unsigned char *data = where % 3 ? f->steady[at] : f->other[at];
    if (f->sends) net_fill(data, bytes, tag);
    f->msg[at] = (cinch_msg){.data = data, .bytes = bytes + (f->sends ? 0 : r % 50), .tag = tag};
    f->posted++;
    if (f->sends)
        f->link->ops->send(f->link, &f->msg[at]);
    else
        f->link->ops->recv(f->link, &f->msg[at]);
}

static bool flow_reap(flow *f) {
    for (; f->finished < f->posted && f->msg[f->finished % WINDOW].done; f->finished++) {
        int at = f->finished % WINDOW;
        const cinch_msg *msg = &f->msg[at];
        if (f->sends) continue;
        if (msg->bytes != f->bytes[at]) return false;
        if (!net_filled(msg->data, msg->bytes, f->seed + (uint64_t)f->finished)) return false;
    }
    return true;
}

static void mix(net_rank *me) {
    int n = me->nranks, flows = 0, count = 60;
    uint64_t state = 5 + (uint64_t)me->rank, start = cinch_now_ns();
    flow *f = calloc(2 * (size_t)n, sizeof *f);
    for (int i = 0; i < 2 * n; i++) {
        int peer = i / 2;
        if (peer == me->rank) continue;
        flow *one = &f[flows++];
        one->link = me->net->link[peer];
        one->sends = i % 2;
        int from = one->sends ? me->rank : peer, to = one->sends ? peer : me->rank;
        one->state = one->seed = (uint64_t)(from * 100 + to) * 1000003;
        for (int k = 0; k < WINDOW; k++) {
            one->steady[k] = heap_bytes(LARGEST + 50);
            one->other[k] = malloc(LARGEST + 50);
            NET_CHECK(me, one->steady[k] && one->other[k]);
        }
    }
    for (int left = 1, rounds = 0; left > 0; rounds++) {
        flow *one = &f[net_random(&state) % (uint64_t)flows];
        if (one->posted < count && one->posted - one->finished < WINDOW)
            flow_post(one, net_random(&state));
        if (one->link->pending > 0)
            NET_CHECK(me, one->link->ops->progress(one->link) == cinchSuccess);
        left = 0;
        for (int i = 0; i < flows; i++) {
            NET_CHECK(me, flow_reap(&f[i]), "message %d", f[i].finished);
            left += count - f[i].finished;
        }
        if (rounds % 256 != 0) continue;
        NET_CHECK(me, cinch_now_ns() - start < 60000000000u);
        NET_CHECK(me, cinch_rendezvous_check(me->rendezvous) == cinchSuccess);
    }
    NET_CHECK(me, net_barrier(me));
    for (int i = 0; i < flows; i++)
        for (int k = 0; k < WINDOW; k++) {
            free(f[i].other[k]);
            cinch_heap_release(f[i].steady[k]);
        }
    free(f);
}

START_TEST(mixed_memories) {
    run(2, mix, NULL, true);
    run(4, mix, NULL, false);
}
END_TEST

/* ---- large ones, straight to where they belong ---- */

static void large(net_rank *me) {
    size_t bytes = *(const size_t *)me->shared;
    unsigned char *data = heap_bytes(bytes);
    cinch_link *link = me->net->link[1 - me->rank];
    uint64_t before = cinch_verbs_registrations();
    NET_CHECK(me, data && net_barrier(me));
    NET_CHECK(me, pass(me, data, bytes, 1));
    NET_CHECK(me, pass(me, data + 1, bytes - 1, 2));
    NET_CHECK(me, cinch_verbs_registrations() > before); /* it did not go through the ring */
    if (me->rank == 0) NET_CHECK(me, link->wire_bytes >= 2 * bytes - 1 + 48);
    NET_CHECK(me, net_barrier(me));
    cinch_heap_release(data);
}

static void run_large(size_t bytes, void (*setup)(net_rank *me, cinch_net_options *options)) {
    net_run(&(net_case){.nranks = 2,
                        .transport = "verbs",
                        .hostids = setup == on_both ? apart : NULL,
                        .options = {.stage_bytes = 4096, .checksum = true},
                        .setup = setup,
                        .body = large,
                        .shared = &bytes});
}

START_TEST(sixteen_megabytes) {
    run_large((16 << 20) + 3, NULL);
}
END_TEST

/* ---- sleeping ---- */

enum { WAKES = 60 };

static void sleep_for_each(net_rank *me) {
    cinch_link *link = me->net->link[1 - me->rank];
    uint64_t state = 3, value = 0;
    int late = 0;
    for (uint64_t i = 0; i < WAKES; i++) {
        cinch_msg msg = {.data = &value, .bytes = sizeof value, .tag = i};
        if (me->rank == 0) {
            value = i;
            nanosleep(&(struct timespec){0, (long)(net_random(&state) % 20000000)}, NULL);
            link->ops->send(link, &msg);
            NET_CHECK(me, net_wait_one(me, &msg));
            continue;
        }
        link->ops->recv(link, &msg);
        while (!msg.done) {
            struct pollfd one = {0};
            NET_CHECK(me, link->ops->progress(link) == cinchSuccess);
            if (msg.done || !link->ops->poll_fd(link, &one.fd, &one.events)) continue;
            late += poll(&one, 1, 2000) == 0;
        }
        NET_CHECK(me, value == i);
    }
    NET_CHECK(me, late == 0, "%d of %d came without waking anybody", late, WAKES);
}

START_TEST(sleepers_are_woken) {
    run(2, sleep_for_each, NULL, false);
}
END_TEST

/* ---- children ---- */

/* Whether this process holds a descriptor of an RDMA device. */
static bool has_device(void) {
    bool found = false;
    for (int fd = 0; fd < 256; fd++) {
        char name[40], target[80] = "";
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        if (readlink(name, target, sizeof target - 1) > 0)
            found |= strstr(target, "uverbs") || strstr(target, "infiniband");
    }
    return found;
}

/* A child has no descriptor of the device, and what it closes is its parent's, who goes on. */
static void fork_in_between(net_rank *me) {
    unsigned char *data = heap_bytes(PART);
    NET_CHECK(me, has_device());
    for (uint64_t i = 0; i < 6; i++) {
        int status = 0;
        pid_t child = i % 2 == 0 ? fork() : -1;
        if (child == 0) {
            bool device = has_device();
            cinch_net_close(me->net);
            _exit(device ? 3 : 0);
        }
        NET_CHECK(me, pass(me, i < 3 ? data : data + 9, i < 3 ? PART : 1000, i));
        if (child > 0)
            NET_CHECK(me, waitpid(child, &status, 0) == child && status == 0, "%x",
                      (unsigned)status);
    }
    NET_CHECK(me, net_barrier(me));
    cinch_heap_release(data);
}

START_TEST(children_take_nothing_along) {
    run(2, fork_in_between, NULL, false);
}
END_TEST

/* ---- announcements ---- */

/* Four messages are announced. The first goes through the ring, behind the other three
 * announcements, whose receives are posted only when it is there. */
static void refuse_the_first(net_rank *me) {
    cinch_link *link = me->net->link[1 - me->rank];
    unsigned char *steady[CINCH_VERBS_DIRECT], *other = malloc(PART);
    cinch_msg msg[CINCH_VERBS_DIRECT], *all[CINCH_VERBS_DIRECT];
    NET_CHECK(me, other != NULL);
    for (int i = 0; i < CINCH_VERBS_DIRECT; i++) {
        all[i] = &msg[i];
        NET_CHECK(me, (steady[i] = heap_bytes(PART)) != NULL);
        unsigned char *data = me->rank == 1 && i == 0 ? other : steady[i];
        msg[i] = (cinch_msg){.data = data, .bytes = PART, .tag = (uint64_t)i};
        if (me->rank == 0) net_fill(data, PART, (uint64_t)i);
        if (me->rank == 0) link->ops->send(link, &msg[i]);
    }
    if (me->rank == 0) NET_CHECK(me, net_wait(me, all, CINCH_VERBS_DIRECT));
    for (int i = 0; i < CINCH_VERBS_DIRECT && me->rank == 1; i++) {
        link->ops->recv(link, &msg[i]);
        NET_CHECK(me, net_wait_one(me, &msg[i]), "message %d", i);
        NET_CHECK(me, net_filled(msg[i].data, PART, (uint64_t)i), "message %d", i);
    }
    NET_CHECK(me, net_barrier(me));
    for (int i = 0; i < CINCH_VERBS_DIRECT; i++) cinch_heap_release(steady[i]);
    free(other);
}

START_TEST(announcements_hold_up_no_message) {
    run(2, refuse_the_first, NULL, false);
}
END_TEST

static void progress_for(cinch_link *link, uint64_t ns) {
    for (uint64_t end = cinch_now_ns() + ns; cinch_now_ns() < end;)
        if (link->ops->progress(link) != cinchSuccess) return;
}

/* Rank 1 has been told where its message goes when rank 0's call fails: it does not go there. */
static void stop_the_granted(net_rank *me) {
    cinch_link *link = me->net->link[1 - me->rank];
    unsigned char *data = heap_bytes(PART);
    cinch_msg msg = {.data = data, .bytes = PART};
    NET_CHECK(me, data);
    memset(data, me->rank ? 7 : 0x5a, PART);
    if (me->rank == 1) link->ops->send(link, &msg); /* which announces it */
    NET_CHECK(me, net_barrier(me));
    if (me->rank == 0) {
        link->ops->recv(link, &msg);
        progress_for(link, 300000000);
        link->ops->stop(link);
        NET_CHECK(me, net_barrier(me));
    } else {
        NET_CHECK(me, net_barrier(me) && !net_wait_one(me, &msg));
        NET_CHECK(me, strstr(cinch_last_error(), "ranks 1 and 0") ||
                          strstr(cinch_last_error(), "rank 0"));
    }
    NET_CHECK(me, net_barrier(me));
    for (size_t i = 0; i < PART && me->rank == 0; i++) NET_CHECK(me, data[i] == 0x5a, "at %zu", i);
    NET_CHECK(me, me->rank || link->ops->progress(link) != cinchSuccess);
    cinch_net_close(me->net);
    me->net = NULL;
    cinch_heap_release(data);
}

static void impatient(net_rank *me, cinch_net_options *options) {
    (void)options;
    me->settings.ib_timeout = 14;
}

START_TEST(a_stopped_link_takes_nothing) {
    run(2, stop_the_granted, impatient, false);
}
END_TEST

/* ---- over a line ---- */

START_TEST(over_the_line) {
    run(2, mix, at_the_ends, true);
    run_large(4 << 20, at_the_ends);
}
END_TEST

/* Where one end of the line loses packets, one rail is often ahead of the other. */
START_TEST(over_two_rails) {
    run(3, mix, on_both, true);
    run_large((3 << 20) + 1, on_both);
}
END_TEST

START_TEST(over_a_line_that_loses) {
    run(2, mix, at_the_ends, false);
    run_large(4 << 20, at_the_ends);
}
END_TEST

/* One side closes in the middle of messages; the other is told that, also where the first word of
 * it is lost. */
static void leave_in_the_middle(net_rank *me) {
    cinch_link *link = me->net->link[1 - me->rank];
    unsigned char *data = heap_bytes(PART);
    cinch_msg msg = {.data = data, .bytes = PART};
    NET_CHECK(me, data && net_barrier(me));
    link->ops->recv(link, &msg);
    if (me->rank == 1) {
        NET_CHECK(me, !net_wait_one(me, &msg));
        NET_CHECK(me, strstr(cinch_last_error(), "rank 0 closed its connection to rank 1"));
    }
    cinch_net_close(me->net);
    me->net = NULL;
    NET_CHECK(me, net_barrier(me));
    cinch_heap_release(data);
}

START_TEST(leaving_over_a_line_that_loses) {
    for (int i = 0; i < 8; i++) run(2, leave_in_the_middle, at_the_ends, false);
}
END_TEST

typedef struct cut {
    const char *command, *mended;
    bool steady;
} cut;

static const cut cuts[] = {
    {"tc qdisc add dev veth0 root netem loss 100%", "tc qdisc del dev veth0 root", true},
    {"ip link set veth1 down", "ip link set veth1 up", false}};

/* One sends and one receives when the line is cut. Neither has anybody else to ask. */
static void be_cut_off(net_rank *me) {
    enum { BYTES = 1 << 20 };
    cinch_link *link = me->net->link[1 - me->rank];
    const cut *how = me->shared;
    unsigned char *data = how->steady ? heap_bytes(BYTES) : malloc(BYTES);
    cinch_msg msg = {.data = data, .bytes = BYTES};
    NET_CHECK(me, data);
    memset(data, 0, BYTES);
    for (uint64_t i = 0; i < 3; i++) NET_CHECK(me, pass(me, data, BYTES, i));
    NET_CHECK(me, net_barrier(me));
    if (me->rank == 0) NET_CHECK(me, system(how->command) == 0);
    uint64_t start = cinch_now_ns();
    bool failed = false;
    for (msg.tag = 7; !failed && msg.tag < 1000; msg.tag++) {
        if (me->rank == 0)
            link->ops->send(link, &msg);
        else
            link->ops->recv(link, &msg);
        failed = !net_wait_one(me, &msg);
    }
    NET_CHECK(me, failed);
    NET_CHECK(me, cinch_now_ns() - start < 10000000000u);
    NET_CHECK(me, strstr(cinch_last_error(), "the connection between ranks"));
    NET_CHECK(me, net_barrier(me)); /* the other has failed on its own too */
    if (me->rank == 0) NET_CHECK(me, system(how->mended) == 0);
    if (!how->steady) free(data);
}

START_TEST(a_line_that_is_cut) {
    cut how = cuts[_i];
    net_run(&(net_case){.nranks = 2,
                        .transport = "verbs",
                        .options = {.stage_bytes = 4096},
                        .setup = at_the_ends,
                        .body = be_cut_off,
                        .shared = &how});
}
END_TEST

/* ---- little memory may be pinned ---- */

static void limit_pinned(net_rank *me, cinch_net_options *options) {
    const struct rlimit little = {1 << 16, 1 << 16};
    (void)options;
    if (setrlimit(RLIMIT_MEMLOCK, &little) != 0 || setresuid(65534, 65534, 65534) != 0)
        net_note(me, __FILE__, __LINE__, "setrlimit", "%s", "");
}

static void pass_by_tcp(net_rank *me) {
    unsigned char data[5000];
    NET_CHECK(me, strcmp(me->net->link[1 - me->rank]->ops->name, "tcp") == 0);
    NET_CHECK(me, pass(me, data, sizeof data, 1));
}

/* What the log then says is for who calls this. */
START_TEST(little_memory) {
    net_run(&(net_case){.nranks = 2,
                        .transport = "verbs,tcp",
                        .options = {.stage_bytes = 4096},
                        .setup = limit_pinned,
                        .body = pass_by_tcp,
                        .processes = true});
}
END_TEST

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "alone";
    if (cinch_verbs_unusable()) {
        printf("skipped: %s\n", cinch_verbs_unusable());
        return 77;
    }
    Suite *suite = suite_create("verbs");
    TCase *tests = tcase_create(what);
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, make_heap, NULL);
    if (strcmp(what, "alone") == 0) {
        tcase_add_test(tests, memory_that_is_another);
        tcase_add_test(tests, each_buffer_is_registered_once);
        tcase_add_test(tests, mixed_memories);
        tcase_add_test(tests, sixteen_megabytes);
        tcase_add_test(tests, sleepers_are_woken);
        tcase_add_test(tests, children_take_nothing_along);
        tcase_add_test(tests, announcements_hold_up_no_message);
        tcase_add_test(tests, a_stopped_link_takes_nothing);
    } else if (strcmp(what, "pair") == 0) {
        tcase_add_test(tests, over_the_line);
    } else if (strcmp(what, "rails") == 0) {
        tcase_add_test(tests, over_two_rails);
    } else if (strcmp(what, "loss") == 0) {
        tcase_add_test(tests, over_a_line_that_loses);
        tcase_add_test(tests, leaving_over_a_line_that_loses);
    } else if (strcmp(what, "cut") == 0) {
        tcase_add_loop_test(tests, a_line_that_is_cut, 0, 2);
    } else if (strcmp(what, "limit") == 0) {
        tcase_add_test(tests, little_memory);
    }
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner), ran = srunner_ntests_run(runner);
    srunner_free(runner);
    return failed > 0 || ran == 0;
}

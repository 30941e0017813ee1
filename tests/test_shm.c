/* SPDX-License-Identifier: Apache-2.0 */
/* Shared memory: windows, flags, heaps, sealed files, and a peer that writes nonsense. */
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/heap.h"
#include "tests/net_ranks.h"
#include "transports/crc32c.h"
#include "transports/region.h"

/* ---- files ---- */

START_TEST(test_memfd) {
    int fd = cinch_memfd_create("cinch-test", 10000);
    ck_assert_int_ge(fd, 0);
    ck_assert(cinch_memfd_holds(fd, 10000));
    ck_assert(!cinch_memfd_holds(fd, 10001));
    ck_assert_int_ne(ftruncate(fd, 5000), 0);
    ck_assert_int_ne(ftruncate(fd, 20000), 0);
    ck_assert_int_ne(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    cinch_mapping *a = cinch_mapping_open(fd, 10000), *b = cinch_mapping_open(fd, 10000);
    ck_assert_ptr_nonnull(a);
    ck_assert_ptr_eq(a, b);
    cinch_mapping_drop(a);
    b->data[9999] = 1; /* still there */
    cinch_mapping_drop(b);
    close(fd);

    int open_file = memfd_create("cinch-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ck_assert_int_eq(ftruncate(open_file, 10000), 0);
    ck_assert(!cinch_memfd_holds(open_file, 10000)); /* its owner could cut it short */
    close(open_file);
    int pipes[2];
    ck_assert_int_eq(pipe(pipes), 0);
    ck_assert(!cinch_memfd_holds(pipes[0], 0));
    close(pipes[0]);
    close(pipes[1]);
}
END_TEST

START_TEST(test_crc32c) {
    ck_assert_uint_eq(cinch_crc32c(0, "123456789", 9), 0xe3069283u);
    unsigned char data[300];
    net_fill(data, sizeof data, 1);
    for (size_t bytes = 0; bytes <= 256; bytes++)
        for (size_t at = 0; at < 9; at++) {
            uint32_t whole = cinch_crc32c(0, data + at, bytes);
            ck_assert_uint_eq(whole, cinch_crc32c_table(0, data + at, bytes));
            uint32_t half = cinch_crc32c(0, data + at, bytes / 2);
            ck_assert_uint_eq(whole, cinch_crc32c(half, data + at + bytes / 2, bytes - bytes / 2));
        }
}
END_TEST

/* ---- flags ---- */

static void *post_later(void *arg) {
    nanosleep(&(struct timespec){0, 30000000}, NULL);
    cinch_flag_post(arg, 5);
    return NULL;
}

START_TEST(test_flag) {
    cinch_flag *flag = aligned_alloc(128, sizeof *flag);
    memset(flag, 0, sizeof *flag);
    uint64_t start = cinch_now_ns();
    cinch_flag_sleep(flag, 0, 20000);
    ck_assert_uint_ge(cinch_now_ns() - start, 15000000);
    start = cinch_now_ns();
    cinch_flag_sleep(flag, 1, 5000000); /* has changed already */
    ck_assert_uint_lt(cinch_now_ns() - start, 1000000000);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, post_later, flag), 0);
    start = cinch_now_ns();
    while (cinch_flag_read(flag) != 5) cinch_flag_sleep(flag, 0, 5000000);
    ck_assert_uint_lt(cinch_now_ns() - start, 2000000000);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(atomic_load(&flag->sleepers), 0);
    free(flag);
}
END_TEST

/* ---- windows ---- */

enum { STAGE = 100000, HEAP_BYTES = 50000 };

static void offer_heap(net_rank *me, cinch_net_options *options) {
    cinch_heap heap;
    if (cinch_heap_get(&heap) != cinchSuccess) {
        net_note(me, __FILE__, __LINE__, "cinch_heap_get", " ");
        return;
    }
    options->heap = heap.data;
    options->heap_bytes = heap.bytes;
    options->heap_fd = heap.fd;
}

/* Every rank writes its stage, its flag and a piece of its heap, and reads all others'. */
static void read_windows(net_rank *me) {
    cinch_shm *shm = me->net->shm;
    size_t offset = 0, offsets[16];
    void *mine = NULL;
    NET_CHECK(me, shm && shm->stage_bytes == STAGE);
    NET_CHECK(me, cinch_heap_alloc(&mine, HEAP_BYTES) == cinchSuccess);
    NET_CHECK(me, cinch_heap_offset(mine, HEAP_BYTES, &offset));
    NET_CHECK(me, cinch_rendezvous_allgather(me->rendezvous, &offset, sizeof offset, offsets) ==
                      cinchSuccess);
    net_fill(shm->window[me->rank].stage, STAGE, (uint64_t)me->rank);
    net_fill(mine, HEAP_BYTES, 1000 + (uint64_t)me->rank);
    cinch_flag *flag = &shm->window[me->rank].flag[CINCH_SHM_FLAGS - 1];
    memset(flag->payload, me->rank, sizeof flag->payload);
    cinch_flag_post(flag, 1);
    for (int r = 0; r < me->nranks; r++) {
        cinch_window *window = &shm->window[r];
        flag = &window->flag[CINCH_SHM_FLAGS - 1];
        while (cinch_flag_read(flag) == 0) cinch_flag_sleep(flag, 0, 1000);
        NET_CHECK(me, flag->payload[0] == r && flag->payload[CINCH_SHM_INLINE_BYTES - 1] == r);
        NET_CHECK(me, (uintptr_t)window->stage % 4096 == 0 && (uintptr_t)flag % 128 == 0);
        NET_CHECK(me, net_filled(window->stage, STAGE, (uint64_t)r), "stage of %d", r);
        NET_CHECK(me, window->heap && window->heap_bytes >= offsets[r] + HEAP_BYTES);
        NET_CHECK(me, net_filled(window->heap + offsets[r], HEAP_BYTES, 1000 + (uint64_t)r),
                  "heap of %d", r);
    }
    NET_CHECK(me, net_barrier(me));
    NET_CHECK(me, cinch_heap_release(mine) == cinchSuccess);
}

START_TEST(test_windows) {
    cinch_heap heap; /* the process keeps its heap, so it is no descriptor that was left over */
    ck_assert_int_eq(cinch_heap_get(&heap), cinchSuccess);
    for (int n = 2; n <= 5; n++)
        net_run(&(net_case){.nranks = n,
                            .transport = "shm",
                            .options = {.stage_bytes = STAGE},
                            .setup = offer_heap,
                            .body = read_windows,
                            .processes = _i == 1});
}
END_TEST

static void offer_heap_but_one(net_rank *me, cinch_net_options *options) {
    if (me->rank != 1) offer_heap(me, options);
}

static void see_heaps_but_one(net_rank *me) {
    for (int r = 0; r < me->nranks; r++)
        NET_CHECK(me, (me->net->shm->window[r].heap != NULL) == (r != 1));
}

START_TEST(test_heap_of_some) {
    cinch_heap heap;
    ck_assert_int_eq(cinch_heap_get(&heap), cinchSuccess);
    net_run(&(net_case){.nranks = 3,
                        .transport = "shm",
                        .options = {.stage_bytes = STAGE},
                        .setup = offer_heap_but_one,
                        .body = see_heaps_but_one});
}
END_TEST

/* ---- ranks that cannot map ---- */

static size_t address_space(void) {
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file || fscanf(file, "%lu", &pages) != 1) pages = 0;
    if (file) fclose(file);
    return pages * 4096;
}

/* Rank 2 has address space for its own region and no other. */
static void be_narrow(net_rank *me, cinch_net_options *options) {
    if (me->rank != 2) return;
    size_t bytes = address_space() + options->stage_bytes + options->stage_bytes / 2;
    setrlimit(RLIMIT_AS, &(struct rlimit){bytes, bytes});
}

static void expect_mixture(net_rank *me) {
    for (int r = 0; r < me->nranks; r++) {
        if (r == me->rank) continue;
        const char *wanted = r == 2 || me->rank == 2 ? "tcp" : "shm";
        NET_CHECK(me, strcmp(me->net->link[r]->ops->name, wanted) == 0, "link to %d", r);
    }
    NET_CHECK(me, me->net->shm == NULL); /* windows are for all of a host or none */
    uint64_t in[4] = {0}, out = (uint64_t)me->rank;
    cinch_msg recv[4], send[4], *all[8] = {0};
    int count = 0;
    for (int r = 0; r < me->nranks; r++) {
        if (r == me->rank) continue;
        cinch_link *link = me->net->link[r];
        recv[r] = (cinch_msg){.data = &in[r], .bytes = 8};
        send[r] = (cinch_msg){.data = &out, .bytes = 8};
        link->ops->recv(link, all[count++] = &recv[r]);
        link->ops->send(link, all[count++] = &send[r]);
    }
    NET_CHECK(me, net_wait(me, all, count));
    for (int r = 0; r < me->nranks; r++) NET_CHECK(me, r == me->rank || in[r] == (uint64_t)r);
    NET_CHECK(me, net_barrier(me));
}

static void expect_refusal(net_rank *me) {
    NET_CHECK(me, me->opened == cinchInvalidUsage);
    NET_CHECK(me, strstr(me->opening, "ranks 0 and 2 have no transport between them"), "%s",
              me->opening);
}

START_TEST(test_cannot_map) {
    net_case c = {.nranks = 3,
                  .transport = _i == 0 ? "auto" : "shm",
                  .options = {.stage_bytes = (size_t)1 << 30},
                  .setup = be_narrow,
                  .body = _i == 0 ? expect_mixture : expect_refusal,
                  .may_fail = true,
                  .processes = true};
    net_run(&c);
}
END_TEST

/* ---- a peer that writes nonsense ---- */

/* The channel from a rank to another, found behind the windows. */
static cinch_channel *channel(net_rank *me, int from, int to) {
    unsigned char *region = (unsigned char *)me->net->shm->window[from].flag - CINCH_REGION_FLAGS;
    cinch_mapping mapping = {region, 0};
    return cinch_region_channel(&mapping, me->net->shm->stage_bytes, to);
}

typedef struct nonsense {
    const char *name, *says;
    bool checksum, to_sender;
    void (*spoil)(cinch_channel *channel);
} nonsense;

static void flip_payload(cinch_channel *c) {
    c->ring[1000] ^= 4;
}
static void flip_inline(cinch_channel *c) {
    c->slot[0].payload[5] ^= 1;
}
static void huge_bytes(cinch_channel *c) {
    c->slot[0].bytes = UINT64_MAX - 7;
}
static void huge_slot_tail(cinch_channel *c) {
    c->slot[0].tail = UINT64_MAX / 2;
}
static void huge_tail(cinch_channel *c) {
    atomic_store(&c->tail, UINT64_C(1) << 40);
}
static void head_beyond(cinch_channel *c) {
    atomic_store(&c->head, UINT64_C(1) << 40);
}

static const nonsense all_nonsense[] = {
    {"flipped byte", "reached rank 1 damaged", true, false, flip_payload},
    {"flipped byte, short", "reached rank 1 damaged", true, false, flip_inline},
    {"huge message", "rank 1 has room for", false, false, huge_bytes},
    {"slot's tail", "corrupt", false, false, huge_slot_tail},
    {"tail", "corrupt", false, false, huge_tail},
    {"head", "corrupt", false, true, head_beyond},
};
enum { NONSENSE = sizeof all_nonsense / sizeof *all_nonsense };

/* Rank 0 sends, the memory is spoiled, and one of the two must see it. */
static void see_nonsense(net_rank *me) {
    const nonsense *what = me->shared;
    bool is_short = what->spoil == flip_inline;
    size_t bytes = is_short ? 20 : what->to_sender || what->spoil == huge_tail ? 600000 : 10000;
    cinch_link *link = me->net->link[1 - me->rank];
    unsigned char *data = calloc(1, bytes);
    cinch_msg msg = {.data = data, .bytes = bytes, .tag = 1};
    if (me->rank == 0) {
        link->ops->send(link, &msg);
        what->spoil(channel(me, 0, 1));
    }
    NET_CHECK(me, net_barrier(me));
    if (what->to_sender == (me->rank == 0)) {
        if (me->rank == 1) link->ops->recv(link, &msg);
        NET_CHECK(me, !net_wait_one(me, &msg), "%s", what->name);
        NET_CHECK(me, strstr(cinch_last_error(), what->says), "%s", what->name);
    }
    NET_CHECK(me, net_barrier(me));
    free(data);
}

START_TEST(test_nonsense) {
    const nonsense *what = &all_nonsense[_i];
    net_run(&(net_case){.nranks = 2,
                        .transport = "shm",
                        .options = {.stage_bytes = 4096, .checksum = what->checksum},
                        .body = see_nonsense,
                        .shared = (void *)(uintptr_t)what});
}
END_TEST

int main(void) {
    Suite *suite = suite_create("shm");
    TCase *tests = tcase_create("shm");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_memfd);
    tcase_add_test(tests, test_crc32c);
    tcase_add_test(tests, test_flag);
    tcase_add_loop_test(tests, test_windows, 0, 2);
    tcase_add_test(tests, test_heap_of_some);
    if (!NET_SANITIZED) tcase_add_loop_test(tests, test_cannot_map, 0, 2);
    tcase_add_loop_test(tests, test_nonsense, 0, NONSENSE);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

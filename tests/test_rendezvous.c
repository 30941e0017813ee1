/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that meet: as threads, as processes, by TCP, by CINCH_COMM_ID, and what they then do. */
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/meet.h"
#include "transports/address.h"

#define SECRET "#00112233445566778899aabbccddeeff"
static const int sizes[] = {1, 2, 3, 5, 8, 16};
enum { SIZES = sizeof sizes / sizeof *sizes };

static unsigned char byte_of(int rank, size_t at, size_t bytes) {
    return (unsigned char)(rank * 37 + at * 11 + bytes * 3 + (at >> 8));
}

static void gather(meet_rank *me, size_t bytes) {
    size_t n = (size_t)me->nranks;
    unsigned char *mine = malloc(bytes + 1), *all = malloc(n * bytes + 1);
    for (size_t i = 0; i < bytes; i++) mine[i] = byte_of(me->rank, i, bytes);
    all[n * bytes] = 0xa5;
    cinchResult_t result = cinch_rendezvous_allgather(me->seat, mine, bytes, all);
    bool good = result == cinchSuccess && all[n * bytes] == 0xa5;
    for (size_t r = 0; r < n && good; r++)
        for (size_t i = 0; i < bytes && good; i++)
            good = all[r * bytes + i] == byte_of((int)r, i, bytes);
    free(mine);
    free(all);
    MEET_CHECK(me, result == cinchSuccess);
    MEET_CHECK(me, good);
}

/* Every rank offers a memfd with its number, and reads those of its peers. */
static void share(meet_rank *me, bool odd_even) {
    int n = me->nranks, fds[MEET_MAX], number = me->rank + 1000;
    uint8_t local[MEET_MAX];
    for (int r = 0; r < n; r++) local[r] = !odd_even || r % 2 == me->rank % 2;
    int fd = memfd_create("cinch-test", MFD_CLOEXEC);
    MEET_CHECK(me, fd >= 0 && write(fd, &number, sizeof number) == (ssize_t)sizeof number);
    cinchResult_t result = cinch_rendezvous_share_fd(me->seat, local, fd, fds);
    close(fd);
    MEET_CHECK(me, result == cinchSuccess);
    for (int r = 0; r < n; r++) {
        bool wanted = local[r] && r != me->rank;
        MEET_CHECK(me, wanted == (fds[r] >= 0));
        if (!wanted) continue;
        int got = 0;
        MEET_CHECK(me, pread(fds[r], &got, sizeof got, 0) == (ssize_t)sizeof got);
        MEET_CHECK(me, got == r + 1000);
        close(fds[r]);
    }
}

static void work(meet_rank *me) {
    static const size_t lengths[] = {0, 1, 8, 1000, 4080, 4096, 4097, 65536};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) gather(me, lengths[i]);
    if (me->nranks <= 3) gather(me, CINCH_GATHER_MAX_BYTES);
    share(me, false);
    share(me, true);
    gather(me, 24);
    MEET_CHECK(me, cinch_rendezvous_check(me->seat) == cinchSuccess);
    MEET_CHECK(me, cinch_rendezvous_may_listen(me->seat));
}

START_TEST(threads_meet_in_memory) {
    meet m = {.nranks = sizes[_i], .body = work};
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

START_TEST(processes_meet_by_unix_sockets) {
    meet m = {.nranks = sizes[_i], .processes = true, .body = work};
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

START_TEST(processes_meet_by_tcp) {
    meet m = {.nranks = sizes[_i], .processes = true, .hide = 1, .body = work};
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

START_TEST(threads_meet_by_tcp) {
    meet m = {.nranks = sizes[_i], .hide = 2, .body = work};
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

static void work_little(meet_rank *me) {
    gather(me, 100);
    share(me, false);
}

/* 0: unix sockets may be used; 1: processes by TCP; 2: threads by TCP. */
START_TEST(comm_id_with_a_port) {
    char text[100];
    snprintf(text, sizeof text, "127.0.0.1:%d" SECRET, meet_free_port());
    for (int n = 1; n <= 5; n++) {
        meet m = {
            .nranks = n, .processes = _i < 2, .hide = _i, .comm_id = text, .body = work_little};
        meet_run(&m);
        meet_all_joined(&m);
    }
}
END_TEST

/* Whether the name leads to an address that sockets can be bound to; says so if not. */
static bool reachable(const char *name) {
    struct addrinfo *found = NULL, want = {.ai_socktype = SOCK_STREAM};
    bool good = getaddrinfo(name, NULL, &want, &found) == 0;
    if (good) {
        int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        good = fd >= 0 && bind(fd, found->ai_addr, found->ai_addrlen) == 0;
        if (fd >= 0) close(fd);
        freeaddrinfo(found);
    }
    if (!good) printf("%s is no address of this machine: meeting there is not tested\n", name);
    return good;
}

START_TEST(comm_id_of_ipv6_and_names) {
    char text[100];
    if (!reachable(_i ? "localhost" : "::1")) return;
    snprintf(text, sizeof text, _i ? "localhost:%d" SECRET : "[::1]:%d" SECRET, meet_free_port());
    meet m = {.nranks = 3, .processes = true, .hide = 1, .comm_id = text, .body = work_little};
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

START_TEST(comm_id_with_port_0) {
    char text[100];
    snprintf(text, sizeof text, "127.0.0.1:0%s", meet_secret());
    meet m = {.nranks = 4, .processes = _i == 0, .comm_id = text, .body = work_little};
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

static void late_rank_0(meet_rank *me) {
    if (me->rank == 0) meet_sleep(300);
}

START_TEST(rank_0_may_come_last) {
    char text[100];
    snprintf(text, sizeof text, "127.0.0.1:%d" SECRET, meet_free_port());
    meet m = {.nranks = 3,
              .processes = true,
              .hide = _i,
              .comm_id = text,
              .prepare = late_rank_0,
              .body = work_little};
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

static char *temporary(const char *name) {
    static char path[200];
    const char *dir = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/cinch-test-%d-%s", dir && dir[0] ? dir : "/tmp", (int)getpid(),
             name);
    return path;
}

START_TEST(comm_id_with_a_file) {
    char text[300], path[200], file[300];
    snprintf(path, sizeof path, "%s", temporary("meet"));
    snprintf(text, sizeof text, "file:%s", path);
    for (int hide = 0; hide < 2; hide++) {
        meet_file(path, file);
        meet m = {.nranks = 4,
                  .processes = true,
                  .hide = hide,
                  .comm_id = text,
                  .prepare = late_rank_0,
                  .body = work_little};
        meet_run(&m);
        meet_all_joined(&m);
        ck_assert_int_ne(access(file, F_OK), 0);
    }
    /* What a killed run left is replaced. */
    meet_file(path, file);
    cinch_meeting stale = {.kind = CINCH_MEET_FILE};
    snprintf(stale.path, sizeof stale.path, "%s", file);
    ck_assert_int_eq(cinch_meeting_publish(&stale), cinchSuccess);
    struct stat info;
    ck_assert_int_eq(stat(file, &info), 0);
    ck_assert_int_eq(info.st_mode & 0777, 0600);
    meet m = {.nranks = 3, .processes = true, .comm_id = text, .prepare = late_rank_0};
    meet_run(&m);
    meet_all_joined(&m);
    ck_assert_int_ne(access(file, F_OK), 0);
}
END_TEST

/* The k-th call gives the k-th meeting point; they are met in any order. */
static void several(meet_rank *me) {
    cinchUniqueId ids[3], own = me->id;
    for (int k = 0; k < 3; k++)
        MEET_CHECK(me, cinch_rendezvous_id(&me->settings, &ids[k]) == cinchSuccess);
    for (int k = 0; k < 3; k++) MEET_CHECK(me, memcmp(&ids[k], &own, sizeof own) != 0);
    cinch_rendezvous *first = me->seat, *seats[3];
    for (int k = 2; k >= 0; k--) {
        MEET_CHECK(me, cinch_rendezvous_join(&me->settings, &ids[k], me->rank, me->nranks, NULL,
                                             &seats[k]) == cinchSuccess);
        me->seat = seats[k];
        gather(me, 16);
    }
    for (int k = 0; k < 3; k++) {
        MEET_CHECK(me, memcmp(cinch_rendezvous_secret(seats[k]), cinch_rendezvous_secret(first),
                              CINCH_SECRET_BYTES) != 0);
        cinch_rendezvous_leave(seats[k]);
    }
    me->seat = first;
    gather(me, 16);
}

START_TEST(several_ids_of_a_process) {
    char text[300];
    if (_i < 2)
        snprintf(text, sizeof text, "127.0.0.1:%d" SECRET, meet_free_port());
    else
        snprintf(text, sizeof text, "file:%s", temporary("several"));
    meet m = {.nranks = 3, .processes = true, .hide = _i % 2, .comm_id = text, .body = several};
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

/* Two communicators that form at the same time, at one port; nobody meets by another way. */
typedef struct joiner {
    cinch_settings *settings;
    cinchUniqueId id;
    int rank;
    _Atomic int *joined; /* ranks of the second communicator */
    bool second;
    bool last; /* comes when both of them have joined */
    cinch_rendezvous *seat;
    cinchResult_t result;
} joiner;

static void *join_later(void *argument) {
    joiner *j = argument;
    for (int i = 0; j->last && *j->joined < 2 && i < 5000; i++) meet_sleep(1);
    if (j->last && *j->joined < 2) return NULL;
    j->result = cinch_rendezvous_join(j->settings, &j->id, j->rank, 2, NULL, &j->seat);
    if (j->result == cinchSuccess && j->second) ++*j->joined;
    return NULL;
}

START_TEST(communicators_share_a_port) {
    cinch_settings settings;
    char why[CINCH_ERROR_TEXT], text[100];
    pthread_t threads[4];
    int fds = meet_open_fds(), count = meet_threads();
    snprintf(text, sizeof text, "127.0.0.1:%d" SECRET, meet_free_port());
    ck_assert(cinch_settings_load(&settings, why));
    free(settings.comm_id);
    settings.comm_id = strdup(text);
    settings.init_timeout_ms = 10000;
    _Atomic int joined = 0;
    joiner j[4];
    cinch_rendezvous_tune.hide = 2;
    for (int comm = 0; comm < 2; comm++) {
        cinchUniqueId id;
        ck_assert_int_eq(cinch_rendezvous_id(&settings, &id), cinchSuccess);
        /* Rank 1 of the first comes only when the second has had to form at the first's port. */
        for (int rank = 0; rank < 2; rank++)
            j[2 * comm + rank] = (joiner){.settings = &settings,
                                          .id = id,
                                          .rank = rank,
                                          .joined = &joined,
                                          .second = comm == 1,
                                          .last = comm == 0 && rank == 1,
                                          .result = cinchInternalError};
    }
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, join_later, &j[i]), 0);
        if (i == 0) meet_sleep(100); /* the first communicator has the port */
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_msg(j[i].result == cinchSuccess, "%d", i);
    }
    cinch_rendezvous_tune.hide = 0;
    for (int i = 0; i < 4; i++) cinch_rendezvous_leave(j[i].seat);
    cinch_settings_free(&settings);
    ck_assert(meet_settles(fds, count));
}
END_TEST

/* Every leave in turn of threads and the server's end with the last: nothing is left at once. */
START_TEST(the_last_leave_leaves_nothing) {
    for (int round = 0; round < 20; round++) {
        cinch_settings settings;
        cinchUniqueId id;
        char why[CINCH_ERROR_TEXT];
        cinch_rendezvous *seat;
        int fds = meet_open_fds(), threads = meet_threads();
        ck_assert(cinch_settings_load(&settings, why));
        ck_assert_int_eq(cinch_rendezvous_id(&settings, &id), cinchSuccess);
        if (threads != MEET_THREADS_UNKNOWN) ck_assert_int_eq(meet_threads(), threads + 1);
        ck_assert_int_eq(cinch_rendezvous_join(&settings, &id, 0, 1, NULL, &seat), cinchSuccess);
        uint64_t start = cinch_now_ns();
        cinch_rendezvous_leave(seat);
        ck_assert_uint_lt(cinch_now_ns() - start, 200 * MS);
        ck_assert_int_eq(meet_open_fds(), fds);
        /* A joined thread is listed a moment longer: the kernel wakes who joins it first. */
        ck_assert(meet_settles(fds, threads));
        cinch_settings_free(&settings);
    }
    cinch_rendezvous_leave(NULL);
}
END_TEST

static void check_ifname(const char *rules, const char *yes, const char *no) {
    ck_assert_msg(cinch_ifname_matches(rules, yes), "%s %s", rules, yes);
    if (no) ck_assert_msg(!cinch_ifname_matches(rules, no), "%s %s", rules, no);
}

START_TEST(interface_rules) {
    check_ifname("", "eth0", NULL);
    check_ifname("eth", "eth0", "ib0");
    check_ifname("eth,ib", "ib1", "docker0");
    check_ifname("=eth0", "eth0", "eth01");
    check_ifname("=eth0,ib0", "ib0", "ib");
    check_ifname("^docker,lo", "eth0", "lo");
    check_ifname("^docker,lo", "eth0", "docker0");
    check_ifname("^=lo", "lo1", "lo");
    check_ifname("^", "lo", NULL);
    cinch_settings settings;
    cinch_address found[8];
    char why[CINCH_ERROR_TEXT];
    int count;
    ck_assert(cinch_settings_load(&settings, why));
    ck_assert_int_eq(cinch_addresses_local(&settings, found, 8, &count), cinchSuccess);
    ck_assert_int_gt(count, 0);
    free(settings.socket_ifname);
    settings.socket_ifname = strdup("lo");
    settings.socket_family = 1;
    ck_assert_int_eq(cinch_addresses_local(&settings, found, 8, &count), cinchSuccess);
    for (int i = 0; i < count; i++) ck_assert_int_eq(found[i].any.sa_family, AF_INET);
    free(settings.socket_ifname);
    settings.socket_ifname = strdup("=nosuch0");
    ck_assert_int_eq(cinch_addresses_local(&settings, found, 8, &count), cinchInvalidUsage);
    ck_assert_ptr_ne(strstr(cinch_last_error(), "nosuch0"), NULL);
    cinch_settings_free(&settings);
}
END_TEST

START_TEST(addresses_as_text_and_bytes) {
    static const char *const good[] = {"10.1.2.3:0", "[::1]:65535", "host-name.org:5000"};
    static const char *const bad[] = {"",           "host",      ":5",         "host:", "host:x",
                                      "host:65536", "::1:5000",  "[::1]",      "[]:5",  "host:5 ",
                                      "host:-1",    "[::1:5000", "host:000005"};
    char host[64];
    uint16_t port;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        ck_assert_msg(cinch_host_port_parse(good[i], host, sizeof host, &port), "%s", good[i]);
    ck_assert_str_eq(host, "host-name.org");
    ck_assert_uint_eq(port, 5000);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(!cinch_host_port_parse(bad[i], host, sizeof host, &port), "%s", bad[i]);
    for (int v6 = 0; v6 < 2; v6++) {
        cinch_address address = {0}, back;
        uint8_t bytes[CINCH_ADDRESS_BYTES];
        char text[CINCH_ADDRESS_TEXT];
        address.any.sa_family = v6 ? AF_INET6 : AF_INET;
        if (v6)
            address.v6.sin6_addr = in6addr_loopback;
        else
            address.v4.sin_addr.s_addr = htonl(0x7f000102);
        cinch_address_set_port(&address, 4711);
        cinch_address_pack(&address, bytes);
        ck_assert(cinch_address_unpack(bytes, &back));
        ck_assert_mem_eq(&address, &back, sizeof back);
        ck_assert(cinch_address_is_loopback(&back));
        ck_assert_str_eq(cinch_address_format(&back, text), v6 ? "[::1]:4711" : "127.0.1.2:4711");
        bytes[0] = 9;
        ck_assert(!cinch_address_unpack(bytes, &back));
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("rendezvous");
    TCase *tcase = tcase_create("meeting");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, threads_meet_in_memory, 0, SIZES);
    tcase_add_loop_test(tcase, processes_meet_by_unix_sockets, 0, SIZES);
    tcase_add_loop_test(tcase, comm_id_with_port_0, 0, 2);
    if (cinch_handshake_available()) {
        tcase_add_loop_test(tcase, processes_meet_by_tcp, 0, SIZES);
        tcase_add_loop_test(tcase, threads_meet_by_tcp, 0, SIZES);
        tcase_add_loop_test(tcase, comm_id_with_a_port, 0, 3);
        tcase_add_loop_test(tcase, comm_id_of_ipv6_and_names, 0, 2);
        tcase_add_loop_test(tcase, rank_0_may_come_last, 0, 2);
        tcase_add_test(tcase, comm_id_with_a_file);
        tcase_add_loop_test(tcase, several_ids_of_a_process, 0, 4);
        tcase_add_test(tcase, communicators_share_a_port);
    } else {
        puts("without libsodium: what goes by TCP is not tested");
    }
    tcase_add_test(tcase, the_last_leave_leaves_nothing);
    tcase_add_test(tcase, interface_rules);
    tcase_add_test(tcase, addresses_as_text_and_bytes);
    suite_add_tcase(suite, tcase);
    return meet_main(suite);
}

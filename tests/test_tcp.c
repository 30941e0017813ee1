/* SPDX-License-Identifier: Apache-2.0 */
/* The tcp transport alone: a stream cut anywhere, and strangers while ranks connect. */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/net_ranks.h"
#include "transports/io.h"
#include "transports/tcp.h"

/* ---- the stream ---- */

enum { MESSAGES = 120, MOST = 150000 };

typedef struct stream {
    unsigned header_bytes;
    size_t bytes[MESSAGES];
    unsigned char *data; /* headers and payloads, as they go over the wire */
    size_t length;
} stream;

static size_t some_bytes(uint64_t *state) {
    uint64_t r = net_random(state);
    switch (r & 7) {
    case 0:
        return (size_t)(r >> 8) % MOST;
    case 1:
        return 0;
    case 2:
        return 30000 + (size_t)(r >> 8) % 10000;
    default:
        return (size_t)(r >> 8) % 300;
    }
}

static stream make_stream(bool checksum, uint64_t *state) {
    stream s = {.header_bytes = checksum ? 24 : 16};
    s.data = malloc((size_t)MESSAGES * (MOST + 24));
    for (int i = 0; i < MESSAGES; i++) {
        unsigned char *header = s.data + s.length, *payload = header + s.header_bytes;
        s.bytes[i] = some_bytes(state);
        net_fill(payload, s.bytes[i], (uint64_t)i);
        cinch_msg_header h = {(uint64_t)i, s.bytes[i], 0, 0};
        h.check = cinch_msg_check(h.tag, payload, s.bytes[i]);
        memcpy(header, &h, s.header_bytes);
        s.length += s.header_bytes + s.bytes[i];
    }
    return s;
}

/* What a link receives does not depend on where the stream is cut, nor on when receives are posted
 * and how much room they have. */
START_TEST(test_cut_anywhere) {
    uint64_t state = (uint64_t)_i;
    bool checksum = _i % 2;
    stream s = make_stream(checksum, &state);
    int fds[2], posted = 0, done = 0;
    ck_assert_int_eq(cinch_socketpair(fds), 0);
    cinch_link *link = cinch_tcp_link_new(fds[0], 1, 0, checksum);
    unsigned char *data[MESSAGES];
    cinch_msg msg[MESSAGES];
    for (size_t at = 0; done < MESSAGES;) {
        uint64_t r = net_random(&state);
        if (r % 4 < 2 && at < s.length) {
            size_t piece = (r >> 8) % ((r >> 4) % 4 == 0 ? 100000 : 40) + 1;
            if (piece > s.length - at) piece = s.length - at;
            ssize_t n = send(fds[1], s.data + at, piece, MSG_DONTWAIT);
            if (n > 0) at += (size_t)n;
        } else if (r % 4 == 2 && posted < MESSAGES && posted - done < 5) {
            size_t room = s.bytes[posted] + (r >> 8) % ((r >> 4) % 2 ? 100000 : 20);
            data[posted] = malloc(room + 1);
            msg[posted] = (cinch_msg){.data = data[posted], .bytes = room};
            msg[posted].tag = (uint64_t)posted;
            link->ops->recv(link, &msg[posted++]);
        } else {
            ck_assert_msg(link->ops->progress(link) == cinchSuccess, "%s", cinch_last_error());
        }
        for (; done < posted && msg[done].done; done++) {
            ck_assert_uint_eq(msg[done].bytes, s.bytes[done]);
            ck_assert(net_filled(data[done], s.bytes[done], (uint64_t)done));
            free(data[done]);
        }
    }
    ck_assert_int_eq(link->pending, 0);
    link->ops->close(link);
    cinch_close(fds[1]);
    free(s.data);
}
END_TEST

/* What a link sends is that stream, however little the socket takes at a time. */
START_TEST(test_sends_the_stream) {
    uint64_t state = (uint64_t)_i;
    bool checksum = _i % 2;
    stream s = make_stream(checksum, &state);
    int fds[2], small = 4096, posted = 0;
    ck_assert_int_eq(cinch_socketpair(fds), 0);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    cinch_link *link = cinch_tcp_link_new(fds[0], 1, 0, checksum);
    cinch_msg msg[MESSAGES];
    unsigned char *got = malloc(s.length), *next = s.data;
    for (size_t at = 0; at < s.length;) {
        uint64_t r = net_random(&state);
        if (r % 3 == 0) {
            ssize_t n = recv(fds[1], got + at, s.length - at, MSG_DONTWAIT);
            if (n > 0) at += (size_t)n;
        } else if (r % 3 == 1 && posted < MESSAGES) {
            unsigned char *payload = next + s.header_bytes;
            msg[posted] = (cinch_msg){.data = payload, .bytes = s.bytes[posted]};
            msg[posted].tag = (uint64_t)posted;
            next = payload + s.bytes[posted];
            link->ops->send(link, &msg[posted++]);
        } else {
            ck_assert_msg(link->ops->progress(link) == cinchSuccess, "%s", cinch_last_error());
        }
    }
    ck_assert_int_eq(link->pending, 0);
    for (int i = 0; i < MESSAGES; i++) ck_assert(msg[i].done);
    ck_assert_mem_eq(got, s.data, s.length);
    ck_assert_uint_eq(link->wire_bytes, s.length);
    link->ops->close(link);
    cinch_close(fds[1]);
    free(got);
    free(s.data);
}
END_TEST

static cinchResult_t receive_raw(const void *bytes, size_t count, bool checksum) {
    int fds[2];
    unsigned char data[64];
    ck_assert_int_eq(cinch_socketpair(fds), 0);
    cinch_link *link = cinch_tcp_link_new(fds[0], 1, 0, checksum);
    cinch_msg msg = {.data = data, .bytes = sizeof data, .tag = 7};
    link->ops->recv(link, &msg);
    ck_assert_int_eq(send(fds[1], bytes, count, 0), (ssize_t)count);
    cinch_close(fds[1]);
    cinchResult_t result = cinchSuccess;
    for (int i = 0; i < 3 && result == cinchSuccess; i++) result = link->ops->progress(link);
    ck_assert(!(result == cinchSuccess && !msg.done));
    link->ops->close(link);
    return result;
}

START_TEST(test_damage) {
    struct {
        cinch_msg_header header;
        unsigned char payload[40];
    } wire = {{7, 40, 0, 0}, {1, 2, 3}};
    wire.header.check = cinch_msg_check(7, wire.payload, 40);
    ck_assert_int_eq(receive_raw(&wire, sizeof wire, true), cinchSuccess);
    wire.payload[39] ^= 0x80;
    ck_assert_int_eq(receive_raw(&wire, sizeof wire, true), cinchSystemError);
    ck_assert_ptr_nonnull(strstr(cinch_last_error(), "message 0x7 of 40 bytes from rank 0"));
    ck_assert_int_eq(receive_raw(&wire, sizeof wire - 1, true), cinchRemoteError); /* cut off */
    ck_assert_int_eq(receive_raw(&wire, 5, true), cinchRemoteError);
    ck_assert_int_eq(receive_raw(&wire, 0, true), cinchRemoteError);
}
END_TEST

/* What came along with an earlier message is not in the socket any more, so nobody would wake who
 * sleeps on that: its receive is done when it is posted. */
START_TEST(test_nothing_is_left_in_the_buffer) {
    cinch_msg_header wire[3] = {{1, 0, 0, 0}, {2, 0, 0, 0}, {3, 0, 0, 0}};
    int fds[2];
    ck_assert_int_eq(cinch_socketpair(fds), 0);
    cinch_link *link = cinch_tcp_link_new(fds[0], 1, 0, true);
    for (int i = 0; i < 3; i++) wire[i].check = cinch_msg_check(wire[i].tag, NULL, 0);
    ck_assert_int_eq(send(fds[1], wire, sizeof wire, 0), (ssize_t)sizeof wire);
    cinch_msg first = {.tag = 1}, second = {.tag = 2}, third = {.tag = 3};
    link->ops->recv(link, &first);
    ck_assert_int_eq(link->ops->progress(link), cinchSuccess);
    ck_assert(first.done);
    link->ops->recv(link, &second);
    ck_assert(second.done);
    link->ops->recv(link, &third);
    ck_assert(third.done);
    link->ops->close(link);
    cinch_close(fds[1]);
}
END_TEST

/* ---- connecting: rank 1 is real, rank 0 is played by the test ---- */

typedef struct party {
    cinch_settings settings;
    cinchUniqueId id;
    cinch_rendezvous *seat;
    cinch_link *links[2];
    uint8_t local[2], want[2];
    cinch_net net;
    cinch_net_options options;
    int rank;
    cinchResult_t result;
    char error[CINCH_ERROR_TEXT];
    pthread_t thread;
} party;

static void party_join(party *p, int rank, const cinchUniqueId *id, int timeout_ms) {
    char why[CINCH_ERROR_TEXT];
    memset(p, 0, sizeof *p);
    cinch_settings_load(&p->settings, why);
    p->settings.init_timeout_ms = timeout_ms;
    p->id = *id;
    p->rank = rank;
    p->want[1 - rank] = p->local[0] = p->local[1] = 1;
    p->net = (cinch_net){.rank = rank, .nranks = 2, .link = p->links, .local = p->local};
}

static void *party_open(void *arg) {
    party *p = arg;
    p->result = cinch_rendezvous_join(&p->settings, &p->id, p->rank, 2, NULL, &p->seat);
    if (p->result == cinchSuccess)
        p->result = cinch_transport_tcp.open(
            &(cinch_opening){&p->settings, p->seat, &p->options, &p->net, p->rank, 2, p->want});
    if (p->result != cinchSuccess) strcpy(p->error, cinch_last_error());
    return NULL;
}

/* Starts the real one, and takes the played one's seat. */
static void meet(party *real, party *played, int real_rank, int timeout_ms) {
    cinchUniqueId id;
    char why[CINCH_ERROR_TEXT];
    cinch_settings settings;
    ck_assert(cinch_settings_load(&settings, why));
    ck_assert_int_eq(cinch_rendezvous_id(&settings, &id), cinchSuccess);
    cinch_settings_free(&settings);
    party_join(real, real_rank, &id, timeout_ms);
    party_join(played, 1 - real_rank, &id, 20000);
    ck_assert_int_eq(pthread_create(&real->thread, NULL, party_open, real), 0);
    ck_assert_int_eq(
        cinch_rendezvous_join(&played->settings, &id, 1 - real_rank, 2, NULL, &played->seat),
        cinchSuccess);
}

static void part(party *real, party *played) {
    for (int r = 0; r < 2; r++) {
        if (real->links[r]) real->links[r]->ops->close(real->links[r]);
        if (played->links[r]) played->links[r]->ops->close(played->links[r]);
    }
    cinch_rendezvous_leave(real->seat);
    cinch_rendezvous_leave(played->seat);
    cinch_settings_free(&real->settings);
    cinch_settings_free(&played->settings);
}

static int knock(const cinch_tcp_card *card) {
    cinch_address address;
    int fd = -1;
    ck_assert(cinch_address_unpack(card->address, &address));
    ck_assert(cinch_address_is_loopback(&address)); /* all ranks are on this host */
    ck_assert_int_eq(cinch_connect(&address, cinch_now_ns() + 5000000000u, &fd), 0);
    return fd;
}

static void say(int fd, const void *bytes, size_t count) {
    ck_assert_int_eq(send(fd, bytes, count, MSG_NOSIGNAL), (ssize_t)count);
}

static bool hung_up(int fd) {
    char byte;
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, 3000) == 1 && recv(fd, &byte, 1, MSG_DONTWAIT) <= 0;
}

static bool prove(int fd, const uint8_t *secret, const cinch_tcp_card *cards) {
    cinch_tcp_pair about = {CINCH_TCP_MAGIC, {cards[0].cookie, cards[1].cookie}, 0, 1};
    return cinch_handshake(fd, true, secret, &about, sizeof about, cinch_now_ns() + 3000000000u) ==
           cinchSuccess;
}

START_TEST(test_strangers) {
    enum { SILENT = 150 };
    int before = net_open_fds(), silent[SILENT];
    party real, played;
    meet(&real, &played, 1, 20000);
    cinch_tcp_card mine = {.cookie = 5}, cards[2];
    ck_assert_int_eq(cinch_rendezvous_allgather(played.seat, &mine, sizeof mine, cards),
                     cinchSuccess);
    ck_assert(cards[1].listening);
    const uint8_t *secret = cinch_rendezvous_secret(played.seat);
    uint8_t wrong[CINCH_SECRET_BYTES] = {1};
    unsigned char garbage[1024];
    net_fill(garbage, sizeof garbage, 1);
    cinch_tcp_hello good = {CINCH_TCP_MAGIC, cards[1].cookie, 0, 0};

    int fd = knock(&cards[1]); /* garbage */
    say(fd, garbage, sizeof garbage);
    ck_assert(hung_up(fd));
    cinch_close(fd);
    cinch_close(knock(&cards[1])); /* nothing at all */
    cinch_tcp_hello bad[3] = {good, good, good};
    bad[0].cookie++;
    bad[1].rank = 1; /* itself */
    bad[2].rank = 77;
    for (int i = 0; i < 3; i++) {
        fd = knock(&cards[1]);
        say(fd, &bad[i], sizeof bad[i]);
        ck_assert(hung_up(fd));
        cinch_close(fd);
    }
    fd = knock(&cards[1]); /* knows the cookie, not the secret */
    say(fd, &good, sizeof good);
    ck_assert(!prove(fd, wrong, cards));
    cinch_close(fd);
    fd = knock(&cards[1]); /* a proof for another pair */
    say(fd, &good, sizeof good);
    cinch_tcp_card others[2] = {{.cookie = 6}, cards[1]};
    ck_assert(!prove(fd, secret, others));
    cinch_close(fd);
    fd = knock(&cards[1]);
    say(fd, &good, sizeof good);
    say(fd, garbage, sizeof garbage);
    ck_assert(hung_up(fd) || hung_up(fd));
    cinch_close(fd);
    for (int i = 0; i < SILENT; i++) silent[i] = knock(&cards[1]);

    fd = knock(&cards[1]); /* and the one who is expected, a byte at a time */
    for (size_t i = 0; i < sizeof good; i++) {
        say(fd, (char *)&good + i, 1);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    ck_assert(prove(fd, secret, cards));
    pthread_join(real.thread, NULL);
    ck_assert_msg(real.result == cinchSuccess, "%s", real.error);
    for (int i = 0; i < SILENT; i++) cinch_close(silent[i]);

    played.links[1] = cinch_tcp_link_new(fd, 0, 1, false);
    int out = 12, in = 0;
    cinch_msg send = {.data = &out, .bytes = sizeof out}, recv = {.data = &in, .bytes = sizeof in};
    played.links[1]->ops->send(played.links[1], &send);
    real.links[0]->ops->recv(real.links[0], &recv);
    for (int i = 0; i < 1000000 && !recv.done; i++) {
        ck_assert_int_eq(played.links[1]->ops->progress(played.links[1]), cinchSuccess);
        ck_assert_int_eq(real.links[0]->ops->progress(real.links[0]), cinchSuccess);
    }
    ck_assert_int_eq(in, 12);
    part(&real, &played);
    for (int i = 0; i < 200 && net_open_fds() != before; i++)
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    ck_assert_int_eq(net_open_fds(), before);
}
END_TEST

START_TEST(test_refused) {
    party real, played;
    uint64_t start = cinch_now_ns();
    meet(&real, &played, 0, 20000);
    cinch_address nobody = {.v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)}};
    cinch_address_set_port(&nobody, 1);
    cinch_tcp_card mine = {.listening = 1, .cookie = 5}, cards[2];
    cinch_address_pack(&nobody, mine.address);
    ck_assert_int_eq(cinch_rendezvous_allgather(played.seat, &mine, sizeof mine, cards),
                     cinchSuccess);
    pthread_join(real.thread, NULL);
    ck_assert_int_eq(real.result, cinchSystemError);
    ck_assert_ptr_nonnull(strstr(real.error, "rank 0 cannot connect to rank 1 at 127.0.0.1:1: "));
    ck_assert_uint_lt(cinch_now_ns() - start, 5000000000u);
    part(&real, &played);
}
END_TEST

static void wait_for_nobody(int timeout_ms, const char *abort_with, const char *says) {
    party real, played;
    uint64_t start = cinch_now_ns();
    meet(&real, &played, 1, timeout_ms);
    cinch_tcp_card mine = {.cookie = 5}, cards[2];
    ck_assert_int_eq(cinch_rendezvous_allgather(played.seat, &mine, sizeof mine, cards),
                     cinchSuccess);
    if (abort_with) cinch_rendezvous_abort(played.seat, abort_with);
    pthread_join(real.thread, NULL);
    ck_assert_int_eq(real.result, cinchRemoteError);
    ck_assert_msg(strstr(real.error, says) != NULL, "%s", real.error);
    ck_assert_uint_lt(cinch_now_ns() - start, 3000000000u);
    part(&real, &played);
}

START_TEST(test_aborted) {
    wait_for_nobody(20000, "the sky fell", "the sky fell");
}
END_TEST

START_TEST(test_timeout) {
    wait_for_nobody(300, NULL, "rank 1 has no connection to rank 0 after 300 ms");
}
END_TEST

int main(void) {
    Suite *suite = suite_create("tcp");
    TCase *tests = tcase_create("tcp");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, test_cut_anywhere, 0, 20);
    tcase_add_loop_test(tests, test_sends_the_stream, 0, 6);
    tcase_add_test(tests, test_damage);
    tcase_add_test(tests, test_nothing_is_left_in_the_buffer);
    if (cinch_handshake_available()) tcase_add_test(tests, test_strangers);
    if (cinch_handshake_available()) tcase_add_test(tests, test_refused);
    tcase_add_test(tests, test_aborted);
    tcase_add_test(tests, test_timeout);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

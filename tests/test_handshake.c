/* SPDX-License-Identifier: Apache-2.0 */
/* The mutual proof: passes with the same secret and context, and with nothing else. */
#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "transports/handshake.h"

#define MS ((uint64_t)1000000)

typedef struct side {
    int fd;
    bool initiator;
    uint8_t secret[CINCH_SECRET_BYTES];
    const char *context;
    unsigned ms;
    cinchResult_t result;
} side;

static void *run_side(void *argument) {
    side *s = argument;
    s->result = cinch_handshake(s->fd, s->initiator, s->secret, s->context, strlen(s->context),
                                cinch_now_ns() + s->ms * MS);
    shutdown(s->fd, SHUT_RDWR);
    return NULL;
}

/* Both at once; a closes last, so that neither sees the other's end too early. */
static void run_both(side *a, side *b) {
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, run_side, b), 0);
    run_side(a);
    pthread_join(thread, NULL);
}

static void make_pair(side *initiator, side *acceptor, int fds[2]) {
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    *initiator = (side){.fd = fds[0], .initiator = true, .context = "c", .ms = 5000};
    *acceptor = (side){.fd = fds[1], .context = "c", .ms = 5000};
}

static void close_pair(int fds[2]) {
    close(fds[0]);
    close(fds[1]);
}

START_TEST(same_secret_holds) {
    for (int round = 0; round < 20; round++) {
        side a, b;
        int fds[2];
        make_pair(&a, &b, fds);
        memset(a.secret, round, sizeof a.secret);
        memset(b.secret, round, sizeof b.secret);
        run_both(&a, &b);
        ck_assert_int_eq(a.result, cinchSuccess);
        ck_assert_int_eq(b.result, cinchSuccess);
        close_pair(fds);
    }
}
END_TEST

START_TEST(each_bit_of_the_secret_counts) {
    for (int bit = 0; bit < 8 * CINCH_SECRET_BYTES; bit += 5) {
        side a, b;
        int fds[2];
        make_pair(&a, &b, fds);
        b.secret[bit / 8] ^= (uint8_t)(1 << (bit % 8));
        run_both(&a, &b);
        ck_assert_int_eq(a.result, cinchRemoteError);
        ck_assert_int_eq(b.result, cinchRemoteError);
        close_pair(fds);
    }
}
END_TEST

START_TEST(other_context_is_refused) {
    static const char *const others[] = {"", "d", "cc", "c "};
    for (size_t i = 0; i < 4; i++) {
        side a, b;
        int fds[2];
        make_pair(&a, &b, fds);
        b.context = others[i];
        run_both(&a, &b);
        ck_assert_int_eq(a.result, cinchRemoteError);
        ck_assert_int_eq(b.result, cinchRemoteError);
        close_pair(fds);
    }
}
END_TEST

/* What stands between two honest ends: passes bytes on, flips one of them, keeps a record. */
typedef struct middle {
    int fds[2];   /* towards initiator, acceptor */
    long flip[2]; /* which byte from there; -1: none */
    uint8_t seen[2][256];
    size_t count[2];
} middle;

static void *run_middle(void *argument) {
    middle *m = argument;
    bool open[2] = {true, true};
    while (open[0] || open[1]) {
        struct pollfd p[2] = {{.fd = open[0] ? m->fds[0] : -1, .events = POLLIN},
                              {.fd = open[1] ? m->fds[1] : -1, .events = POLLIN}};
        poll(p, 2, 1000);
        for (int from = 0; from < 2; from++) {
            uint8_t byte[64];
            if (!p[from].revents) continue;
            ssize_t n = recv(m->fds[from], byte, sizeof byte, 0);
            if (n <= 0) {
                open[from] = false;
                shutdown(m->fds[1 - from], SHUT_WR);
                continue;
            }
            for (ssize_t i = 0; i < n; i++) {
                m->seen[from][m->count[from]] = byte[i];
                if ((long)m->count[from]++ == m->flip[from]) byte[i] ^= 1;
            }
            send(m->fds[1 - from], byte, (size_t)n, MSG_NOSIGNAL);
        }
    }
    return NULL;
}

static void run_through(middle *m, side *a, side *b) {
    int left[2], right[2];
    pthread_t thread;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, left), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, right), 0);
    *a = (side){.fd = left[0], .initiator = true, .context = "c", .ms = 5000};
    *b = (side){.fd = right[0], .context = "c", .ms = 5000};
    m->fds[0] = left[1];
    m->fds[1] = right[1];
    m->count[0] = m->count[1] = 0;
    ck_assert_int_eq(pthread_create(&thread, NULL, run_middle, m), 0);
    run_both(a, b);
    pthread_join(thread, NULL);
    close_pair(left);
    close_pair(right);
}

enum { SIDE_BYTES = CINCH_PROOF_HELLO_BYTES + CINCH_PROOF_ANSWER_BYTES };

START_TEST(a_changed_byte_never_passes) {
    for (int from = 0; from < 2; from++)
        for (long at = 0; at < SIDE_BYTES; at++) {
            middle m = {.flip = {-1, -1}};
            side a, b;
            m.flip[from] = at;
            run_through(&m, &a, &b);
            /* The acceptor's last word comes after it has made up its mind. */
            bool last_word = from == 1 && at >= CINCH_PROOF_HELLO_BYTES;
            ck_assert_msg(a.result != cinchSuccess, "byte %ld of side %d", at, from);
            ck_assert_msg(last_word == (b.result == cinchSuccess), "byte %ld of side %d", at, from);
        }
}
END_TEST

/* The recorded words of an honest end, said again to a fresh one, as one piece or byte by byte. */
START_TEST(a_replay_is_refused) {
    middle m = {.flip = {-1, -1}};
    side a, b;
    run_through(&m, &a, &b);
    ck_assert_int_eq(a.result, cinchSuccess);
    ck_assert_int_eq(b.result, cinchSuccess);
    ck_assert_uint_eq(m.count[0], SIDE_BYTES);
    ck_assert_uint_eq(m.count[1], SIDE_BYTES);
    for (int role = 0; role < 2; role++) {
        int fds[2];
        side fresh = {.initiator = role == 1, .context = "c", .ms = 5000};
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        fresh.fd = fds[1];
        ck_assert_int_eq(send(fds[0], m.seen[role], SIDE_BYTES, 0), SIDE_BYTES);
        run_side(&fresh);
        ck_assert_int_eq(fresh.result, cinchRemoteError);
        close_pair(fds);
    }
}
END_TEST

/* Plays the acceptor with a nonce of its own, and says the initiator's answer back to it. */
static void *parrot(void *argument) {
    int fd = *(int *)argument;
    uint8_t hello[CINCH_PROOF_HELLO_BYTES], answer[CINCH_PROOF_ANSWER_BYTES];
    if (recv(fd, hello, sizeof hello, MSG_WAITALL) == (ssize_t)sizeof hello) {
        hello[sizeof hello - 1] ^= 1;
        send(fd, hello, sizeof hello, MSG_NOSIGNAL);
        if (recv(fd, answer, sizeof answer, MSG_WAITALL) == (ssize_t)sizeof answer)
            send(fd, answer, sizeof answer, MSG_NOSIGNAL);
    }
    return NULL;
}

static void *echo(void *argument) {
    int fd = *(int *)argument;
    uint8_t bytes[256];
    ssize_t n;
    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0) send(fd, bytes, (size_t)n, MSG_NOSIGNAL);
    return NULL;
}

START_TEST(a_reflection_is_refused) {
    /* An echo; only the end that speaks first can be met with one. */
    int fds[2];
    pthread_t thread;
    side a = {.initiator = true, .context = "c", .ms = 5000};
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    a.fd = fds[0];
    ck_assert_int_eq(pthread_create(&thread, NULL, echo, &fds[1]), 0);
    run_side(&a);
    ck_assert_int_eq(a.result, cinchInvalidUsage);
    pthread_join(thread, NULL);
    close_pair(fds);

    a = (side){.initiator = true, .context = "c", .ms = 5000};
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    a.fd = fds[0];
    ck_assert_int_eq(pthread_create(&thread, NULL, parrot, &fds[1]), 0);
    run_side(&a);
    ck_assert_int_eq(a.result, cinchRemoteError);
    pthread_join(thread, NULL);
    close_pair(fds);

    /* Two ends of the same role, who both know the secret, shown to each other. */
    side b;
    make_pair(&a, &b, fds);
    b.initiator = true;
    run_both(&a, &b);
    ck_assert_int_eq(a.result, cinchRemoteError);
    ck_assert_int_eq(b.result, cinchRemoteError);
    close_pair(fds);
}
END_TEST

START_TEST(garbage_is_refused_at_once) {
    unsigned seed = 7;
    for (int round = 0; round < 20; round++) {
        int fds[2];
        uint8_t bytes[1024];
        for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)rand_r(&seed);
        side s = {.initiator = round % 2, .context = "c", .ms = 5000};
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        s.fd = fds[0];
        ck_assert_int_eq(send(fds[1], bytes, sizeof bytes, 0), (ssize_t)sizeof bytes);
        uint64_t start = cinch_now_ns();
        run_side(&s);
        ck_assert_int_eq(s.result, cinchInvalidUsage);
        ck_assert_uint_lt(cinch_now_ns() - start, 1000 * MS);
        close_pair(fds);
    }
}
END_TEST

START_TEST(silence_ends_at_the_deadline) {
    for (int role = 0; role < 2; role++)
        for (int hang_up = 0; hang_up < 2; hang_up++) {
            int fds[2];
            side s = {.initiator = role, .context = "c", .ms = 200};
            ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
            s.fd = fds[0];
            if (hang_up) shutdown(fds[1], SHUT_WR);
            uint64_t start = cinch_now_ns();
            run_side(&s);
            uint64_t took = cinch_now_ns() - start;
            ck_assert_int_eq(s.result, cinchSystemError);
            ck_assert_msg(hang_up ? took < 150 * MS : took >= 190 * MS && took < 1500 * MS,
                          "%llu ns", (unsigned long long)took);
            close_pair(fds);
        }
}
END_TEST

START_TEST(random_bytes_and_hashes_differ) {
    uint8_t a[64] = {0}, b[64] = {0}, zero[64] = {0};
    ck_assert_int_eq(cinch_random(a, sizeof a), cinchSuccess);
    ck_assert_int_eq(cinch_random(b, sizeof b), cinchSuccess);
    ck_assert_mem_ne(a, b, sizeof a);
    ck_assert_mem_ne(a + 32, zero, 32);
    /* A byte that moves from one part to the other, or another label, is another hash. */
    ck_assert(cinch_derive(a, 32, "x", "ab", 2, "c", 1));
    ck_assert(cinch_derive(b, 32, "x", "a", 1, "bc", 2));
    ck_assert_mem_ne(a, b, 32);
    ck_assert(cinch_derive(b, 32, "y", "ab", 2, "c", 1));
    ck_assert_mem_ne(a, b, 32);
    ck_assert(cinch_derive(b, 32, "x", "ab", 2, "c", 1));
    ck_assert_mem_eq(a, b, 32);
}
END_TEST

/* Carries messages between two proofs that come and go whole; spoil: the one whose byte is changed.
 */
static void carry(cinch_proof *a, cinch_proof *b, int spoil, cinch_proof_state last[2]) {
    cinch_proof *end[2] = {a, b};
    uint8_t message[CINCH_PROOF_HELLO_BYTES];
    for (int i = 0, from = 0; i < 4; i++, from = !from) {
        size_t bytes = cinch_proof_give(end[from], message);
        ck_assert_uint_gt(bytes, 0);
        last[from] = cinch_proof_stand(end[from]);
        if (i == spoil) message[bytes - 1] ^= 1;
        last[!from] = cinch_proof_take(end[!from], message, bytes);
        if (last[!from] == CINCH_PROOF_FOREIGN) return;
    }
}

START_TEST(whole_messages_prove_the_same) {
    uint8_t secret[CINCH_SECRET_BYTES] = {1, 2, 3}, other[CINCH_SECRET_BYTES] = {1, 2, 4};
    uint8_t message[CINCH_PROOF_HELLO_BYTES] = {0};
    cinch_proof a, b;
    cinch_proof_state last[2];
    for (int spoil = -2; spoil < 4; spoil++) { /* -2: another secret; -1: nothing is wrong */
        ck_assert(cinch_proof_begin(&a, true, secret, "c", 1));
        ck_assert(cinch_proof_begin(&b, false, spoil == -2 ? other : secret, "c", 1));
        ck_assert_uint_eq(cinch_proof_give(&b, message), 0); /* not its turn */
        carry(&a, &b, spoil, last);
        ck_assert_int_eq(last[0] == CINCH_PROOF_HOLDS && last[1] == CINCH_PROOF_HOLDS, spoil == -1);
        if (spoil != 3) ck_assert_int_eq(last[1] == CINCH_PROOF_HOLDS, spoil == -1);
        ck_assert_int_eq(last[0] == CINCH_PROOF_HOLDS, spoil == -1);
    }
    ck_assert(cinch_proof_begin(&a, true, secret, "c", 1));
    ck_assert_int_eq(cinch_proof_take(&a, message, 40), CINCH_PROOF_FOREIGN); /* out of turn */
    ck_assert_uint_eq(cinch_proof_give(&a, message), 40);
    ck_assert_int_eq(cinch_proof_take(&a, message, 40), CINCH_PROOF_FOREIGN); /* an echo */
    ck_assert_int_eq(cinch_proof_take(&a, message, 32), CINCH_PROOF_FOREIGN);
    ck_assert_int_eq(cinch_proof_stand(&a), CINCH_PROOF_READ);
    cinch_proof_wipe(&a);
    cinch_proof_wipe(&b);
}
END_TEST

int main(void) {
    if (!cinch_handshake_available()) {
        puts("skipped: this build has no libsodium");
        return 77;
    }
    Suite *suite = suite_create("handshake");
    TCase *tcase = tcase_create("proof");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, same_secret_holds);
    tcase_add_test(tcase, each_bit_of_the_secret_counts);
    tcase_add_test(tcase, other_context_is_refused);
    tcase_add_test(tcase, whole_messages_prove_the_same);
    tcase_add_test(tcase, a_changed_byte_never_passes);
    tcase_add_test(tcase, a_replay_is_refused);
    tcase_add_test(tcase, a_reflection_is_refused);
    tcase_add_test(tcase, garbage_is_refused_at_once);
    tcase_add_test(tcase, silence_ends_at_the_deadline);
    tcase_add_test(tcase, random_bytes_and_hashes_differ);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

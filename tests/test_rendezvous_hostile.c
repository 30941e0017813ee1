/* SPDX-License-Identifier: Apache-2.0 */
/* Strangers at the meeting point, wrong secrets, ports and files that cannot be used: honest ranks
 * meet all the same, and who cannot join is told why. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/meet.h"
#include "transports/address.h"
#include "transports/io.h"

#define SECRET "#00112233445566778899aabbccddeeff"
#define OTHER_SECRET "#00112233445566778899aabbccddeefe"

static uint64_t in_ms(unsigned ms) {
    return cinch_now_ns() + ms * MS;
}

/* Where a stranger finds the server of me->id, and the token, which is public. */
static bool spy(meet_rank *me, cinch_meeting *meeting) {
    return cinch_meeting_of(&me->settings, &me->id, meeting) == cinchSuccess &&
           meeting->addresses > 0;
}

static int intrude(const cinch_meeting *meeting) {
    int fd = -1;
    return cinch_connect(&meeting->address[0], in_ms(2000), &fd) ? -1 : fd;
}

/* The server hangs up; true also says that it sent nothing but `bytes` first. */
static bool hung_up_after(int fd, size_t bytes, unsigned ms) {
    uint8_t waste[512];
    size_t got = 0;
    uint64_t deadline = in_ms(ms);
    for (;;) {
        ssize_t n = recv(fd, waste, sizeof waste, MSG_DONTWAIT);
        if (n > 0) got += (size_t)n;
        if (n == 0 || (n < 0 && errno == ECONNRESET)) return got <= bytes;
        if (n < 0 && cinch_wait(fd, POLLIN, deadline)) return false;
    }
}

enum { CROWD = 300 }; /* more than the server keeps */
static int crowd[CROWD];

static void stay_in_the_way(meet_rank *me) {
    cinch_meeting meeting;
    uint8_t garbage[1024], preface[CINCH_PREFACE_BYTES];
    unsigned seed = 5;
    if (me->rank != 1) return;
    MEET_CHECK(me, spy(me, &meeting));
    cinch_preface_make(meeting.token, preface);
    for (int i = 0; i < CROWD; i++) {
        crowd[i] = intrude(&meeting);
        MEET_CHECK(me, crowd[i] >= 0);
        for (size_t at = 0; at < sizeof garbage; at++) garbage[at] = (uint8_t)rand_r(&seed);
        if (i % 4 == 1) send(crowd[i], garbage, sizeof garbage, MSG_NOSIGNAL);
        if (i % 4 >= 2) send(crowd[i], preface, sizeof preface, MSG_NOSIGNAL);
        if (i % 4 == 3) send(crowd[i], garbage, sizeof garbage, MSG_NOSIGNAL);
    }
}

static void go_away(meet_rank *me) {
    int all[MEET_MAX];
    MEET_CHECK(me, cinch_rendezvous_allgather(me->seat, &me->rank, sizeof me->rank, all) ==
                       cinchSuccess);
    if (me->rank == 1)
        for (int i = 0; i < CROWD; i++) cinch_close(crowd[i]);
}

START_TEST(a_crowd_of_strangers_stops_nobody) {
    cinch_rendezvous_tune.stranger_ms = 30000; /* they do not go by themselves */
    meet m = {
        .nranks = 3, .processes = true, .hide = 1, .prepare = stay_in_the_way, .body = go_away};
    meet_run(&m);
    meet_all_joined(&m);
    for (int i = 0; i < 3; i++) ck_assert_uint_lt(m.ranks[i].took_ns, 3000 * MS);
}
END_TEST

static void be_dropped(meet_rank *me) {
    cinch_meeting meeting;
    uint8_t bytes[1024], preface[CINCH_PREFACE_BYTES];
    if (me->rank != 1) return;
    MEET_CHECK(me, spy(me, &meeting));
    cinch_preface_make(meeting.token, preface);

    /* What cannot be a preface is met at once, with nothing; what cannot be a proof too. */
    int fd = intrude(&meeting);
    memset(bytes, 'G', sizeof bytes);
    send(fd, bytes, sizeof bytes, MSG_NOSIGNAL);
    MEET_CHECK(me, hung_up_after(fd, 0, 1000));
    cinch_close(fd);
    fd = intrude(&meeting);
    send(fd, preface, sizeof preface, MSG_NOSIGNAL);
    send(fd, bytes, sizeof bytes, MSG_NOSIGNAL);
    MEET_CHECK(me, hung_up_after(fd, 0, 1000));
    cinch_close(fd);

    /* A token that nobody here serves. */
    fd = intrude(&meeting);
    preface[CINCH_PREFACE_BYTES - 1] ^= 1;
    send(fd, preface, sizeof preface, MSG_NOSIGNAL);
    MEET_CHECK(me, hung_up_after(fd, 0, 1000));
    cinch_close(fd);

    /* Silence, and one byte at a time, end when the server's patience does. */
    int silent = intrude(&meeting), slow = intrude(&meeting);
    uint64_t start = cinch_now_ns();
    for (int i = 0; i < 12; i++, meet_sleep(50)) send(slow, preface, 1, MSG_NOSIGNAL);
    MEET_CHECK(me, hung_up_after(silent, 0, 2000));
    MEET_CHECK(me, hung_up_after(slow, 0, 2000));
    MEET_CHECK(me, cinch_now_ns() - start < 1500 * MS);
    cinch_close(silent);
    cinch_close(slow);
}

START_TEST(strangers_are_dropped) {
    cinch_rendezvous_tune.stranger_ms = 400;
    meet m = {.nranks = 3, .processes = true, .hide = 1, .prepare = be_dropped};
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

/* Runs an honest handshake with the server through this thread, which notes what the client says.
 */
typedef struct client {
    int fd;
    const cinch_meeting *meeting;
    cinchResult_t result;
} client;

static void *run_client(void *argument) {
    client *c = argument;
    c->result = cinch_handshake(c->fd, true, c->meeting->secret, c->meeting->token,
                                CINCH_TOKEN_BYTES, in_ms(3000));
    shutdown(c->fd, SHUT_RDWR);
    return NULL;
}

static size_t record(const cinch_meeting *meeting, uint8_t *said, size_t room) {
    int pair[2], server = intrude(meeting);
    uint8_t bytes[256];
    size_t count = CINCH_PREFACE_BYTES;
    pthread_t thread;
    if (server < 0 || cinch_socketpair(pair)) return 0;
    cinch_preface_make(meeting->token, said);
    send(server, said, count, MSG_NOSIGNAL);
    client c = {.fd = pair[0], .meeting = meeting};
    if (pthread_create(&thread, NULL, run_client, &c)) return 0;
    for (bool open = true; open;) {
        struct pollfd p[2] = {{.fd = pair[1], .events = POLLIN}, {.fd = server, .events = POLLIN}};
        poll(p, 2, 1000);
        ssize_t n = recv(pair[1], bytes, sizeof bytes, MSG_DONTWAIT);
        open = n != 0;
        if (n > 0 && count + (size_t)n <= room) {
            memcpy(said + count, bytes, (size_t)n);
            count += (size_t)n;
            send(server, bytes, (size_t)n, MSG_NOSIGNAL);
        }
        n = recv(server, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n > 0) send(pair[1], bytes, (size_t)n, MSG_NOSIGNAL);
    }
    pthread_join(thread, NULL);
    cinch_close(pair[0]);
    cinch_close(pair[1]);
    cinch_close(server);
    return c.result == cinchSuccess ? count : 0;
}

static void replay_and_reflect(meet_rank *me) {
    cinch_meeting meeting;
    uint8_t said[512], theirs[512];
    if (me->rank != 1) return;
    MEET_CHECK(me, spy(me, &meeting));
    size_t count = record(&meeting, said, sizeof said);
    size_t hello = CINCH_PREFACE_BYTES + CINCH_PROOF_HELLO_BYTES;
    MEET_CHECK(me, count == hello + CINCH_PROOF_ANSWER_BYTES);

    /* The replay gets the server's nonce, and zeros in place of its proof. */
    int fd = intrude(&meeting);
    send(fd, said, count, MSG_NOSIGNAL);
    MEET_CHECK(me, !cinch_recv_all(fd, theirs, CINCH_PROOF_HELLO_BYTES, in_ms(1000)));
    MEET_CHECK(me, !cinch_recv_all(fd, theirs, CINCH_PROOF_ANSWER_BYTES, in_ms(1000)));
    for (int i = 0; i < CINCH_PROOF_ANSWER_BYTES; i++) MEET_CHECK(me, theirs[i] == 0);
    MEET_CHECK(me, hung_up_after(fd, 0, 1000));
    cinch_close(fd);

    /* Its own words, as far as it says any, said back to it on the same and on another connection.
     */
    int other = intrude(&meeting);
    fd = intrude(&meeting);
    send(fd, said, hello, MSG_NOSIGNAL);
    MEET_CHECK(me, !cinch_recv_all(fd, theirs, CINCH_PROOF_HELLO_BYTES, in_ms(1000)));
    send(fd, theirs, CINCH_PROOF_ANSWER_BYTES, MSG_NOSIGNAL);
    MEET_CHECK(me, hung_up_after(fd, CINCH_PROOF_ANSWER_BYTES, 1000));
    send(other, said, CINCH_PREFACE_BYTES, MSG_NOSIGNAL);
    send(other, theirs, CINCH_PROOF_HELLO_BYTES, MSG_NOSIGNAL);
    MEET_CHECK(me, !cinch_recv_all(other, theirs, CINCH_PROOF_HELLO_BYTES, in_ms(1000)));
    send(other, theirs, CINCH_PROOF_ANSWER_BYTES, MSG_NOSIGNAL);
    MEET_CHECK(me, hung_up_after(other, CINCH_PROOF_ANSWER_BYTES, 1000));
    cinch_close(fd);
    cinch_close(other);
}

START_TEST(replay_and_reflection_get_nowhere) {
    meet m = {.nranks = 3, .processes = true, .hide = 1, .prepare = replay_and_reflect};
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

static char text[400];

static void rank_2_guesses(meet_rank *me) {
    char wrong[400];
    if (me->rank != 2) return;
    snprintf(wrong, sizeof wrong, "%s", text);
    strcpy(strchr(wrong, '#'), OTHER_SECRET);
    meet_set(me, CINCH_SET_comm_id, &me->settings.comm_id, wrong);
}

START_TEST(a_wrong_secret_is_told_to_who_has_it) {
    snprintf(text, sizeof text, "127.0.0.1:%d" SECRET, meet_free_port());
    meet m = {.nranks = 3,
              .processes = true,
              .hide = _i,
              .timeout_ms = 600,
              .comm_id = text,
              .prepare = rank_2_guesses};
    meet_run(&m);
    for (int rank = 0; rank < 2; rank++) {
        ck_assert_int_eq(m.ranks[rank].joined, cinchRemoteError);
        ck_assert_msg(strstr(m.ranks[rank].why, "rank 2 of 3 did not join within 600 ms") != NULL,
                      "%s", m.ranks[rank].why);
    }
    ck_assert_int_eq(m.ranks[2].joined, cinchInvalidUsage);
    ck_assert_msg(strstr(m.ranks[2].why, "the secret of this rank (2) is not that of rank 0") !=
                      NULL,
                  "%s", m.ranks[2].why);
    ck_assert_ptr_ne(strstr(m.ranks[2].why, "CINCH_COMM_ID"), NULL);
    ck_assert_ptr_eq(strstr(m.ranks[2].why, "00112233"), NULL);
    ck_assert_uint_lt(m.ranks[2].took_ns, 500 * MS);
}
END_TEST

START_TEST(without_a_secret_loopback_alone_is_used) {
    snprintf(text, sizeof text, "127.0.0.1:%d", meet_free_port());
    meet m = {.nranks = 2, .processes = true, .hide = 1, .comm_id = text};
    meet_run(&m);
    meet_all_joined(&m);
    /* 192.0.2.0/24 is for documentation: nobody is there, and nothing may be sent there. */
    snprintf(text, sizeof text, "192.0.2.77:%d", meet_free_port());
    m = (meet){.nranks = 2, .processes = true, .hide = 1, .timeout_ms = 300, .comm_id = text};
    meet_run(&m);
    meet_all_failed(&m, cinchRemoteError, "without a secret nothing beyond loopback is used");
    meet_all_failed(&m, cinchRemoteError, "CINCH_ALLOW_UNAUTHENTICATED=1");
    ck_assert_ptr_ne(strstr(m.ranks[0].why, "rank 1 of 2 did not join within 300 ms"), NULL);
}
END_TEST

START_TEST(a_port_in_use) {
    int port = meet_free_port(), fd;
    cinch_address address = {
        .v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
    cinch_address_set_port(&address, (uint16_t)port);
    ck_assert_int_eq(cinch_listen(&address, 5, &fd), 0);
    snprintf(text, sizeof text, "127.0.0.1:%d" SECRET, port);
    /* Ranks of one host do not need it. */
    meet m = {.nranks = 3, .processes = true, .comm_id = text};
    meet_run(&m);
    meet_all_joined(&m);
    m = (meet){.nranks = 2, .processes = true, .hide = 1, .timeout_ms = 400, .comm_id = text};
    meet_run(&m);
    ck_assert_msg(strstr(m.ranks[0].why, "rank 1 of 2 did not join within 400 ms (rank 0 cannot "
                                         "listen at 127.0.0.1:") != NULL,
                  "%s", m.ranks[0].why);
    ck_assert_ptr_ne(strstr(m.ranks[0].why, "Address already in use"), NULL);
    ck_assert_ptr_ne(strstr(m.ranks[1].why, "rank 0 is missing"), NULL);
    cinch_close(fd);
}
END_TEST

/* Frames that make no sense, from one who has proved the secret: only that connection ends. */
static void say_nonsense(meet_rank *me) {
    if (me->rank != 1) return;
    for (int kind = 0; kind < 7; kind++) {
        int fd;
        cinch_server *server;
        unsigned char body[sizeof(cinch_hello) + 2] = {0};
        cinch_meeting meeting;
        cinch_frame head = cinch_frame_make(CINCH_FRAME_HELLO, sizeof body);
        cinch_hello hello = {.protocol = 1, .rank = 2, .nranks = 3, .left_ms = 9999};
        MEET_CHECK(me, cinch_meeting_of(&me->settings, &me->id, &meeting) == cinchSuccess);
        MEET_CHECK(me, cinch_server_enter(meeting.token, &fd, &server));
        if (kind == 0) head.magic++;
        if (kind == 1) head.type = CINCH_FRAME_GATHER;
        if (kind == 2) head.bytes = UINT64_MAX;
        if (kind == 3) head.bytes = sizeof(cinch_hello);
        if (kind == 4) hello.rank = 3;
        if (kind == 5) hello.nranks = 0;
        memcpy(body, &hello, sizeof hello);
        if (kind == 6) body[sizeof body - 1] = 'x';
        send(fd, &head, sizeof head, MSG_NOSIGNAL);
        send(fd, body, sizeof body, MSG_NOSIGNAL);
        MEET_CHECK(me, hung_up_after(fd, 0, 1000));
        cinch_close(fd);
        cinch_server_exit(server);
    }
}

START_TEST(nonsense_from_a_friend_ends_its_connection_only) {
    meet m = {.nranks = 3, .prepare = say_nonsense};
    meet_run(&m);
    meet_all_joined(&m);
}
END_TEST

/* Rank 1 is played by hand: it says another release, and gets the sentence too. */
static void speak_as_rank_1(const cinch_meeting *meeting, char *heard, size_t room) {
    int fd;
    cinch_server *server;
    struct {
        cinch_frame head;
        cinch_hello hello;
        char texts[2];
    } said = {.head = cinch_frame_make(CINCH_FRAME_HELLO, sizeof(cinch_hello) + 2),
              .hello = {.protocol = CINCH_PROTOCOL,
                        .rank = 1,
                        .nranks = 2,
                        .left_ms = 9999,
                        .release = "0.0.1"}};
    ck_assert(cinch_server_enter(meeting->token, &fd, &server));
    ck_assert_int_eq(
        cinch_send_all(fd, &said, sizeof said.head + sizeof said.hello + 2, in_ms(1000)), 0);
    cinch_frame head;
    uint32_t code;
    ck_assert_int_eq(cinch_recv_all(fd, &head, sizeof head, in_ms(3000)), 0);
    ck_assert_uint_eq(head.type, CINCH_FRAME_FAILED);
    ck_assert_int_eq(cinch_recv_all(fd, &code, sizeof code, in_ms(3000)), 0);
    size_t length = (size_t)head.bytes - sizeof code;
    ck_assert_uint_lt(length, room);
    ck_assert_int_eq(cinch_recv_all(fd, heard, length, in_ms(3000)), 0);
    heard[length] = 0;
    cinch_close(fd);
    cinch_server_exit(server);
}

typedef struct rank_0 {
    cinch_settings *settings;
    cinchUniqueId id;
    cinchResult_t result;
    char why[CINCH_ERROR_TEXT];
} rank_0;

static void *join_as_rank_0(void *argument) {
    rank_0 *me = argument;
    cinch_rendezvous *seat;
    me->result = cinch_rendezvous_join(me->settings, &me->id, 0, 2, NULL, &seat);
    snprintf(me->why, sizeof me->why, "%s", cinch_last_error());
    return NULL;
}

START_TEST(releases_must_agree) {
    cinch_settings settings;
    cinch_meeting meeting;
    char why[CINCH_ERROR_TEXT], heard[CINCH_ERROR_TEXT];
    pthread_t thread;
    int fds = meet_open_fds(), threads = meet_threads();
    ck_assert(cinch_settings_load(&settings, why));
    rank_0 me = {.settings = &settings};
    ck_assert_int_eq(cinch_rendezvous_id(&settings, &me.id), cinchSuccess);
    ck_assert_int_eq(cinch_meeting_of(&settings, &me.id, &meeting), cinchSuccess);
    ck_assert_int_eq(pthread_create(&thread, NULL, join_as_rank_0, &me), 0);
    speak_as_rank_1(&meeting, heard, sizeof heard);
    pthread_join(thread, NULL);
    ck_assert_int_eq(me.result, cinchInvalidUsage);
    ck_assert_str_eq(me.why, heard);
    ck_assert_msg(strstr(heard, "rank 1 runs cinch 0.0.1 (protocol ") &&
                      strstr(heard, "), rank 0 runs " CINCH_RELEASE),
                  "%s", heard);
    cinch_settings_free(&settings);
    ck_assert(meet_settles(fds, threads));
}
END_TEST

/* Values that are refused, each with a part of the sentence. */
START_TEST(bad_comm_ids) {
    static const char *const cases[][2] = {
        {"nohost", "CINCH_COMM_ID \"nohost\" is no meeting point"},
        {"host:", "is no meeting point"},
        {":5000", "is no meeting point"},
        {"host:70000", "is no meeting point"},
        {"::1:5000", "is no meeting point"},
        {"file:relative", "CINCH_COMM_ID \"file:relative\" is no meeting point"},
        {"host:1#", "CINCH_COMM_ID host:1#...: the secret is not 16 to 256 bytes in hex"},
        {"host:1#0011", "the secret is not 16 to 256 bytes in hex"},
        {"host:1#00112233445566778899aabbccddeef", "the secret is not"},
        {"host:1#00112233445566778899aabbccddeefg", "the secret is not"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cinch_settings settings;
        cinchUniqueId id;
        char why[CINCH_ERROR_TEXT];
        ck_assert(cinch_settings_load(&settings, why));
        free(settings.comm_id);
        settings.comm_id = strdup(cases[i][0]);
        ck_assert_int_eq(cinch_rendezvous_id(&settings, &id), cinchInvalidUsage);
        ck_assert_msg(strstr(cinch_last_error(), cases[i][1]) != NULL, "%s", cinch_last_error());
        ck_assert_ptr_eq(strstr(cinch_last_error(), "0011"), NULL);
        cinch_settings_free(&settings);
    }
}
END_TEST

static char *temporary(void) {
    static char path[200];
    const char *dir = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/cinch-test-%d", dir && dir[0] ? dir : "/tmp", (int)getpid());
    return path;
}

static void write_file(const char *path, const char *content, int mode) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, content, strlen(content)), (ssize_t)strlen(content));
    fchmod(fd, (mode_t)mode);
    close(fd);
}

START_TEST(secret_files) {
    static const struct {
        const char *content;
        int mode;
        const char *why; /* NULL: accepted */
    } cases[] = {
        {"00112233445566778899aabbccddeeff\n", 0600, NULL},
        {"00112233445566778899AABBCCDDEEFF", 0400, NULL},
        {"00112233445566778899aabbccddeeff\n", 0644, "can be read by others"},
        {"00112233445566778899aabbccddeeff\n", 0620, "can be read by others"},
        {"0011\n", 0600, "does not hold a secret"},
        {"", 0600, "does not hold a secret"},
        {"00112233445566778899aabbccddee zz\n", 0600, "does not hold a secret"},
    };
    cinchUniqueId first;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cinch_settings settings;
        cinchUniqueId id;
        char why[CINCH_ERROR_TEXT];
        ck_assert(cinch_settings_load(&settings, why));
        free(settings.comm_id);
        free(settings.secret_file);
        settings.comm_id = strdup("127.0.0.1:1");
        settings.secret_file = strdup(temporary());
        write_file(settings.secret_file, cases[i].content, cases[i].mode);
        cinchResult_t result = cinch_rendezvous_id(&settings, &id);
        ck_assert_int_eq(result, cases[i].why ? cinchInvalidUsage : cinchSuccess);
        if (cases[i].why)
            ck_assert_msg(strstr(cinch_last_error(), cases[i].why) != NULL, "%s",
                          cinch_last_error());
        if (i == 0) first = id;
        unlink(settings.secret_file);
        if (i == 0) { /* gone: an error that names it */
            ck_assert_int_eq(cinch_rendezvous_id(&settings, &id), cinchSystemError);
            ck_assert_ptr_ne(strstr(cinch_last_error(), "CINCH_SECRET_FILE"), NULL);
        }
        cinch_settings_free(&settings);
    }
    ck_assert_mem_ne(&first, "", 1);
}
END_TEST

static void not_rank_0(meet_rank *me) {
    me->rank++;
    me->nranks++;
}

START_TEST(meeting_files_that_are_not_trusted) {
    char path[300], target[320];
    snprintf(text, sizeof text, "file:%s", temporary());
    for (int kind = 0; kind < 3; kind++) {
        cinch_meeting meeting = {.kind = CINCH_MEET_FILE};
        meet_file(temporary(), path);
        snprintf(meeting.path, sizeof meeting.path, "%s", path);
        ck_assert_int_eq(cinch_meeting_publish(&meeting), cinchSuccess);
        if (kind == 0) chmod(path, 0640);
        if (kind == 1) write_file(path, "something else", 0600);
        if (kind == 2) {
            snprintf(target, sizeof target, "%s.target", path);
            ck_assert_int_eq(rename(path, target), 0);
            ck_assert_int_eq(symlink(target, path), 0);
        }
        meet m = {.nranks = 1, .processes = true, .comm_id = text, .prepare = not_rank_0};
        meet_run(&m);
        static const char *const why[] = {"others can read or write it; its mode must be 0600",
                                          "is not what rank 0 of this release writes",
                                          "cannot be read"};
        ck_assert_msg(strstr(m.ranks[0].why, why[kind]) != NULL, "%s", m.ranks[0].why);
        ck_assert_ptr_ne(strstr(m.ranks[0].why, path), NULL);
        ck_assert_uint_lt(m.ranks[0].took_ns, 500 * MS);
        unlink(path);
        if (kind == 2) unlink(target);
    }
    /* A folder that is not there: rank 0 says so at once. */
    snprintf(text, sizeof text, "file:%s/nowhere/meet", temporary());
    meet m = {.nranks = 1, .processes = true, .comm_id = text};
    meet_run(&m);
    meet_all_failed(&m, cinchSystemError, "cannot be made: No such file or directory");
}
END_TEST

START_TEST(ids_and_ranks_that_make_no_sense) {
    cinch_settings settings;
    cinchUniqueId id;
    char why[CINCH_ERROR_TEXT];
    cinch_rendezvous *seat = NULL;
    ck_assert(cinch_settings_load(&settings, why));
    memset(&id, 0, sizeof id);
    ck_assert_int_eq(cinch_rendezvous_join(&settings, &id, 0, 1, NULL, &seat),
                     cinchInvalidArgument);
    memset(&id, 0xff, sizeof id);
    ck_assert_int_eq(cinch_rendezvous_join(&settings, &id, 0, 1, NULL, &seat),
                     cinchInvalidArgument);
    static const int wrong[][2] = {{-1, 2}, {2, 2}, {0, 0}, {0, -1}, {0, CINCH_RANKS_MAX + 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        ck_assert_int_eq(
            cinch_rendezvous_join(&settings, &id, wrong[i][0], wrong[i][1], NULL, &seat),
            cinchInvalidArgument);
    ck_assert_ptr_eq(seat, NULL);
    cinch_settings_free(&settings);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("rendezvous_hostile");
    TCase *tcase = tcase_create("hostile");
    tcase_set_timeout(tcase, 60);
    if (cinch_handshake_available()) {
        tcase_add_test(tcase, a_crowd_of_strangers_stops_nobody);
        tcase_add_test(tcase, strangers_are_dropped);
        tcase_add_test(tcase, replay_and_reflection_get_nowhere);
        tcase_add_loop_test(tcase, a_wrong_secret_is_told_to_who_has_it, 0, 2);
        tcase_add_test(tcase, without_a_secret_loopback_alone_is_used);
        tcase_add_test(tcase, a_port_in_use);
    }
    tcase_add_test(tcase, nonsense_from_a_friend_ends_its_connection_only);
    tcase_add_test(tcase, releases_must_agree);
    tcase_add_test(tcase, bad_comm_ids);
    tcase_add_test(tcase, secret_files);
    tcase_add_test(tcase, meeting_files_that_are_not_trusted);
    tcase_add_test(tcase, ids_and_ranks_that_make_no_sense);
    suite_add_tcase(suite, tcase);
    return meet_main(suite);
}

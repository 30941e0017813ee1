/* SPDX-License-Identifier: Apache-2.0 */
/* The meeting point's server under a fuzzer: up to four connections of threads of its process or of
 * strangers, which say what makes sense, nearly makes sense or makes none, in any order. It must
 * come to its end, with everything freed, when they have hung up.
 *
 * Its loop runs in this thread. Each time that it polls, the next steps of the input happen. */
#include <endian.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "tests/fuzz/fuzz.h"
#include "transports/io.h"
#include "transports/rendezvous_server.h"

enum { CONNS = 4, STEPS = 3, POLLS_MOST = 3000 };
enum { HELLO, CHANGED_HELLO, GATHER, ABORT, LEAVE, RAW, HEAD, PREFACE, HANG_UP, OPS };

static struct {
    fuzz_input in;
    int fd[CONNS], polls;
    uint8_t token[CINCH_TOKEN_BYTES];
} script;

static void say(int conn, const void *data, size_t bytes) {
    if (script.fd[conn] < 0 || !bytes) return;
    if (send(script.fd[conn], data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return;
}

static void say_frame(int conn, cinch_frame_type type, const void *body, size_t bytes) {
    cinch_frame head = cinch_frame_make(type, bytes);
    say(conn, &head, sizeof head);
    say(conn, body, bytes);
}

static void say_hello(int conn, int changed) {
    fuzz_input *in = &script.in;
    struct {
        cinch_hello hello;
        char text[64];
    } said = {.hello = {.protocol = CINCH_PROTOCOL,
                        .rank = (uint32_t)conn,
                        .nranks = CONNS,
                        .left_ms = 5,
                        .timeout_ms = 5}};
    size_t bytes = sizeof said.hello + 3;
    snprintf(said.hello.release, sizeof said.hello.release, "%s", CINCH_RELEASE);
    if (changed) {
        said.hello.rank = fuzz_byte(in) % 6;
        said.hello.nranks = fuzz_byte(in) % 8;
        said.hello.member = fuzz_byte(in);
        if (fuzz_byte(in) & 1) fuzz_take(in, &said.hello.left_ms, 16);
        if (fuzz_byte(in) & 1) said.hello.release[0] ^= 1;
        bytes = sizeof said.hello + fuzz_byte(in) % sizeof said.text;
        fuzz_take(in, said.text, fuzz_byte(in) % sizeof said.text);
    }
    say_frame(conn, CINCH_FRAME_HELLO, &said, bytes);
}

static void hang_up(int conn) {
    if (script.fd[conn] >= 0) close(script.fd[conn]);
    script.fd[conn] = -1;
}

static void step(void) {
    fuzz_input *in = &script.in;
    uint8_t data[256];
    unsigned op = fuzz_byte(in);
    int conn = (int)(op >> 6);
    size_t bytes;
    cinch_frame head;
    switch (op % 64 % OPS) {
    case HELLO:
    case CHANGED_HELLO:
        say_hello(conn, op % 64 % OPS == CHANGED_HELLO);
        break;
    case GATHER:
        bytes = fuzz_byte(in) % 32;
        fuzz_take(in, data, bytes);
        say_frame(conn, CINCH_FRAME_GATHER, data, bytes);
        break;
    case ABORT:
        bytes = fuzz_byte(in) % sizeof data;
        fuzz_take(in, data, bytes);
        say_frame(conn, CINCH_FRAME_ABORT, data, bytes);
        break;
    case LEAVE:
        say_frame(conn, CINCH_FRAME_LEAVE, NULL, 0);
        break;
    case RAW:
        bytes = fuzz_byte(in);
        fuzz_take(in, data, bytes);
        say(conn, data, bytes);
        break;
    case HEAD:
        head = cinch_frame_make((cinch_frame_type)fuzz_byte(in), 0);
        fuzz_take(in, &head.bytes, fuzz_byte(in) % 9);
        say(conn, &head, sizeof head);
        break;
    case PREFACE:
        cinch_preface_make(script.token, data);
        say(conn, data, CINCH_PREFACE_BYTES);
        break;
    default:
        hang_up(conn);
    }
}

int __real_poll(struct pollfd *fds, nfds_t count, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t count, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t count, int ms) {
    for (int i = 0; i < STEPS && script.in.left; i++) step();
    for (int conn = 0; conn < CONNS && !script.in.left; conn++) hang_up(conn);
    if (!script.in.left) fuzz_expect(++script.polls < POLLS_MOST, "the server does not end");
    return __real_poll(fds, count, script.in.left ? 0 : ms < 0 || ms > 1 ? 1 : ms);
}

static cinch_conn *make_conn(int i, int stranger) {
    int pair[2];
    cinch_conn *conn = calloc(1, sizeof *conn);
    fuzz_expect(conn && !cinch_socketpair(pair), "no connection");
    script.fd[i] = dup(pair[0]);
    cinch_close(pair[0]);
    conn->fd = pair[1];
    conn->memory = !stranger;
    conn->state = stranger ? CINCH_CONN_PREFACE : CINCH_CONN_HELLO;
    conn->deadline_ns = stranger ? cinch_now_ns() + 20000000 : 0;
    conn->out_end = &conn->out;
    snprintf(conn->from, sizeof conn->from, "a fuzzer");
    return conn;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cinch_log_threshold = CINCH_LOG_NONE;
    cinch_rendezvous_tune.stranger_ms = 20;
    cinch_rendezvous_tune.linger_ms = cinch_rendezvous_tune.settle_ms = 1;
    memset(&script, 0, sizeof script);
    script.in = (fuzz_input){data, size};
    unsigned flags = fuzz_byte(&script.in);
    cinch_server *server = calloc(1, sizeof *server);
    fuzz_expect(server && !cinch_eventfd(&server->wake_fd), "no server");
    memset(script.token, 0x77, sizeof script.token);
    memcpy(server->token, script.token, sizeof server->token);
    server->kind = flags & 16 ? CINCH_MEET_REUNION : CINCH_MEET_OWN;
    server->left_out = flags & 16 ? strdup("4-5") : NULL;
    server->most = flags & 16 ? CONNS : 0;
    server->open = true;
    server->pid = (int)getpid();
    server->unix_fd = -1;
    server->timeout_ms = 3;
    server->deadline_ns = cinch_now_ns() + 500000;
    server->seats_here = 1; /* the one that frees it */
    for (int i = 0; i < CONNS; i++) {
        cinch_conn *conn = make_conn(i, flags >> i & 1);
        conn->next = server->conns;
        server->conns = conn;
    }
    cinch_server_run(server);
    for (int i = 0; i < CONNS; i++) hang_up(i);
    free(server->left_out);
    free(server->heard);
    free(server);
    return 0;
}

static size_t all_of(int op, uint8_t *out) {
    for (int conn = 0; conn < CONNS; conn++) out[conn] = (uint8_t)(conn << 6 | op);
    return CONNS;
}

/* Ranks that join, gather and leave; with a stranger among them; in a reunion; and one that fails.
 */
size_t fuzz_seed(int k, uint8_t *out) {
    size_t n = 1;
    memset(out, 0, 64);
    out[0] = (uint8_t)(k == 1 ? 1 : k == 2 ? 16 : 0);
    if (k > 4) return 0;
    n += all_of(HELLO, out + n);
    for (int conn = 0; conn < CONNS; conn++) {
        out[n++] = (uint8_t)(conn << 6 | GATHER);
        out[n++] = 2;
        n += 2;
    }
    if (k == 3) out[n++] = 1 << 6 | ABORT, out[n++] = 3, n += 3;
    if (k == 4) out[n++] = 1 << 6 | HANG_UP;
    n += all_of(LEAVE, out + n);
    return n;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A link under a fuzzer: receives and sends are posted, and the peer does what it likes. Over tcp
 * it sends any bytes, honest messages among them; in shared memory it writes anything anywhere in
 * the channels that both map. No access out of bounds, and a link that has failed stays failed.
 *
 * FUZZ_SHM: through shared memory, else over a socket. */
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/fuzz/fuzz.h"
#include "transports/io.h"
#include "transports/region.h"
#include "transports/tcp.h"

#ifndef FUZZ_SHM
#define FUZZ_SHM 0
#endif

enum { POST_RECV, POST_SEND, HONEST, RAW, PROGRESS, WRITE, POSITION, OPS };
enum { MESSAGES = 24, LONGEST = 300000 };

typedef struct state {
    fuzz_input in;
    cinch_link *link, *peer; /* peer: shared memory's honest other end */
    int peer_fd;
    cinch_channel *channel[2]; /* to the peer, and from it */
    cinch_msg msg[2 * MESSAGES];
    int posted, sent;
    bool checksum, failed;
} state;

/* Mostly short, some beyond a ring. */
static size_t a_length(fuzz_input *in) {
    unsigned n = fuzz_byte(in);
    return n < 200 ? n % 80 : (size_t)fuzz_two(in) * (n - 199) % LONGEST;
}

static cinch_msg *a_message(state *s, cinch_msg *msg) {
    size_t bytes = a_length(&s->in);
    *msg = (cinch_msg){.data = calloc(1, bytes ? bytes : 1), .bytes = bytes};
    fuzz_expect(msg->data != NULL, "no memory");
    msg->tag = fuzz_byte(&s->in) % 3;
    return msg;
}

static void progress(state *s) {
    cinchResult_t result = s->link->ops->progress(s->link);
    fuzz_expect(result == cinchSuccess || *cinch_last_error(), "no sentence");
    fuzz_expect(result != cinchSuccess || !s->failed, "a failed link that works again");
    s->failed |= result != cinchSuccess;
    if (s->peer) s->peer->ops->progress(s->peer);
}

static void honest(state *s) {
    if (s->sent >= MESSAGES) return;
    cinch_msg *msg = a_message(s, &s->msg[MESSAGES + s->sent++]);
    if (s->peer) {
        s->peer->ops->send(s->peer, msg);
        return;
    }
    cinch_msg_header head = {.tag = msg->tag, .bytes = msg->bytes};
    head.check = s->checksum ? cinch_msg_check(msg->tag, msg->data, msg->bytes) : 0;
    if (send(s->peer_fd, &head, s->checksum ? sizeof head : 16, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ||
        !msg->bytes)
        return;
    if (send(s->peer_fd, msg->data, msg->bytes, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return;
}

static void raw(state *s) {
    uint8_t data[256];
    size_t bytes = fuzz_byte(&s->in);
    fuzz_take(&s->in, data, bytes);
    if (s->peer_fd >= 0 && bytes && send(s->peer_fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return;
}

/* Bytes of the channels: among the first slots, or one of the positions behind them. */
static void write_bytes(state *s, bool position) {
    if (!s->channel[0]) return;
    unsigned which = fuzz_byte(&s->in);
    cinch_channel *c = s->channel[which & 1];
    unsigned char *at = (unsigned char *)c;
    uint8_t data[8];
    size_t count = which >> 4 & 7, place = fuzz_two(&s->in);
    if (position) {
        void *const places[] = {&c->tail, &c->head,        &c->taken,         &c->sender_gone,
                                &c->ring, &c->slot[0].tag, &c->receiver_gone, &c->slot[0].bytes};
        at = places[place % 8];
    } else {
        at += place % (8 * sizeof(cinch_slot));
    }
    fuzz_take(&s->in, data, count + 1);
    memcpy(at, data, count + 1);
}

static void step(state *s) {
    cinch_msg *msg;
    switch (fuzz_byte(&s->in) % OPS) {
    case POST_RECV:
    case POST_SEND:
        if (s->posted >= MESSAGES) return;
        bool out = s->in.at[-1] % OPS == POST_SEND;
        msg = a_message(s, &s->msg[s->posted++]);
        if (out) {
            s->link->ops->send(s->link, msg);
        } else {
            msg->exact = fuzz_byte(&s->in) & 1;
            s->link->ops->recv(s->link, msg);
        }
        break;
    case HONEST:
        honest(s);
        break;
    case RAW:
        raw(s);
        break;
    case WRITE:
    case POSITION:
        write_bytes(s, s->in.at[-1] % OPS == POSITION);
        break;
    default:
        progress(s);
    }
}

static cinch_mapping *map_channel(void) {
    int fd = cinch_memfd_create("cinch fuzz", sizeof(cinch_channel));
    cinch_mapping *mapping = fd < 0 ? NULL : cinch_mapping_open(fd, sizeof(cinch_channel));
    fuzz_expect(mapping != NULL, "no shared memory");
    close(fd);
    return mapping;
}

static void open_links(state *s, cinch_mapping *map[2]) {
    int pair[2];
    s->peer_fd = -1;
    if (FUZZ_SHM) {
        for (int i = 0; i < 2; i++) {
            map[i] = map_channel();
            s->channel[i] = (cinch_channel *)(void *)map[i]->data;
        }
        s->link =
            cinch_shm_link_new(0, 1, s->checksum, map[0], s->channel[0], map[1], s->channel[1]);
        s->peer =
            cinch_shm_link_new(1, 0, s->checksum, map[1], s->channel[1], map[0], s->channel[0]);
        fuzz_expect(s->link && s->peer, "no link");
    } else {
        fuzz_expect(!cinch_socketpair(pair), "no connection");
        s->peer_fd = pair[0];
        s->link = cinch_tcp_link_new(pair[1], 0, 1, s->checksum);
        fuzz_expect(s->link != NULL, "no link");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    state s = {.in = {data, size}};
    cinch_mapping *map[2] = {NULL, NULL};
    cinch_log_threshold = CINCH_LOG_NONE;
    unsigned flags = fuzz_byte(&s.in);
    s.checksum = flags & 1;
    open_links(&s, map);
    for (int i = 0; i < 200 && s.in.left; i++) step(&s);
    if (s.peer_fd >= 0) shutdown(s.peer_fd, SHUT_WR);
    for (int i = 0; i < 4; i++) progress(&s);
    s.link->ops->close(s.link);
    if (s.peer) s.peer->ops->close(s.peer);
    cinch_close(s.peer_fd);
    for (int i = 0; i < 2; i++) cinch_mapping_drop(map[i]);
    for (int i = 0; i < 2 * MESSAGES; i++) free(s.msg[i].data);
    return 0;
}

/* Messages that fit their receives, of several lengths, early and late; then with a place in the
 * channel overwritten. */
size_t fuzz_seed(int k, uint8_t *out) {
    static const uint8_t lengths[] = {0, 5, 33, 79, 201, 255};
    if (k >= 24) return 0;
    size_t n = 0;
    out[n++] = (uint8_t)(k & 1);
    for (int i = 0; i < 6; i++) {
        uint8_t length = lengths[(i + k / 4) % 6], order = (uint8_t)(k / 2 % 2);
        for (int half = 0; half < 2; half++) {
            out[n++] = half == order ? POST_RECV : HONEST;
            out[n++] = length;
            if (length >= 200) out[n++] = 0x34, out[n++] = 0x12;
            out[n++] = 1; /* the tag */
            if (half == order) out[n++] = 0;
        }
        if (k >= 12) {
            out[n++] = k & 4 ? POSITION : WRITE;
            out[n++] = (uint8_t)(k % 2 + 48);
            out[n++] = (uint8_t)(k * 3 + i);
            for (int b = 0; b < 5; b++) out[n++] = (uint8_t)b;
        }
        out[n++] = PROGRESS;
    }
    return n;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The mutual proof under a fuzzer, in both roles and in both forms: a peer who knows the secret, or
 * does not, and whose messages are changed, cut, repeated, thrown back or replaced on their way.
 * Only untouched messages of a peer who knows secret and context may make a proof hold. */
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/fuzz/fuzz.h"
#include "transports/handshake.h"

/* Nonces that are the same in every run, and never twice in one. */
static uint64_t nonces;
ssize_t __wrap_getrandom(void *data, size_t bytes, unsigned flags);
ssize_t __wrap_getrandom(void *data, size_t bytes, unsigned flags) {
    (void)flags;
    memset(data, 0, bytes);
    nonces++;
    memcpy(data, &nonces, bytes < sizeof nonces ? bytes : sizeof nonces);
    return (ssize_t)bytes;
}

enum { HONEST, FLIP, CUT, TWICE, REFLECT, RAW, KINDS };

enum { ALL = CINCH_PROOF_HELLO_BYTES + CINCH_PROOF_ANSWER_BYTES };

typedef struct wire {
    uint8_t bytes[CINCH_PROOF_HELLO_BYTES * 4];
    size_t count;
    uint8_t said[ALL], heard[ALL]; /* by the peer, and by us */
    size_t said_count, heard_count;
} wire;

static void note(uint8_t *all, size_t *count, const uint8_t *data, size_t bytes) {
    for (size_t i = 0; i < bytes && *count < ALL; i++) all[(*count)++] = data[i];
}

/* What becomes of a message on its way to us; back: what we said last. */
static void carry(fuzz_input *in, wire *w, const uint8_t *said, size_t count, const uint8_t *back,
                  size_t back_count) {
    w->count = 0;
    unsigned kind = fuzz_byte(in) % KINDS, at;
    memcpy(w->bytes, said, count);
    w->count = count;
    switch (kind) {
    case FLIP:
        at = fuzz_byte(in) % (unsigned)count;
        w->bytes[at] ^= (uint8_t)(1u << fuzz_byte(in) % 8);
        break;
    case CUT:
        w->count = fuzz_byte(in) % count;
        break;
    case TWICE:
        memcpy(w->bytes + count, said, count);
        w->count = 2 * count;
        break;
    case REFLECT:
        memcpy(w->bytes, back, back_count);
        w->count = back_count;
        break;
    case RAW:
        w->count = fuzz_byte(in) % sizeof w->bytes;
        fuzz_take(in, w->bytes, w->count);
        break;
    default:
        break;
    }
}

/* One exchange after the other until the proof is decided; over a socket or by whole messages. */
static void exchange(fuzz_input *in, cinch_proof *us, cinch_proof *peer, int over_socket,
                     int knows) {
    uint8_t said[CINCH_PROOF_HELLO_BYTES], ours[CINCH_PROOF_HELLO_BYTES];
    int pair[2];
    size_t said_count, ours_count = 0;
    wire w = {.count = 0};
    cinch_proof_state state;
    fuzz_expect(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), "no socketpair");
    for (int turn = 0; turn < 12; turn++) {
        /* What we have to say goes to the peer as it is. */
        if (over_socket) {
            state = cinch_proof_step(us, pair[0]);
            ssize_t n = recv(pair[1], ours, sizeof ours, MSG_DONTWAIT);
            if (n > 0) ours_count = (size_t)n;
            if (n > 0) cinch_proof_take(peer, ours, (size_t)n);
        } else {
            size_t n;
            while ((n = cinch_proof_give(us, ours))) {
                ours_count = n;
                cinch_proof_take(peer, ours, n);
            }
            state = cinch_proof_stand(us);
        }
        if (state != CINCH_PROOF_READ) break;
        said_count = cinch_proof_give(peer, said);
        if (!said_count) { /* it is confused: zeros of its own making */
            memset(said, 0, sizeof said);
            said_count = CINCH_PROOF_ANSWER_BYTES;
        } else {
            note(w.said, &w.said_count, said, said_count);
        }
        carry(in, &w, said, said_count, ours, ours_count ? ours_count : 1);
        note(w.heard, &w.heard_count, w.bytes, w.count);
        if (!over_socket) {
            state = cinch_proof_take(us, w.bytes, w.count);
            if (state != CINCH_PROOF_READ && state != CINCH_PROOF_WRITE) break;
        } else if (w.count && send(pair[1], w.bytes, w.count, MSG_NOSIGNAL) < 0) {
            break;
        }
    }
    if (state == CINCH_PROOF_HOLDS)
        fuzz_expect(knows && w.said_count == ALL && memcmp(w.said, w.heard, ALL) == 0,
                    "a proof that does not hold");
    close(pair[0]);
    close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    cinch_proof us, peer;
    uint8_t secret[CINCH_SECRET_BYTES], other[CINCH_SECRET_BYTES];
    unsigned flags = fuzz_byte(&in);
    nonces = 0;
    cinch_log_threshold = CINCH_LOG_NONE;
    if (!cinch_handshake_available()) return 0;
    memset(secret, 0x5a, sizeof secret);
    memcpy(other, secret, sizeof other);
    if (flags & 4) other[fuzz_byte(&in) % sizeof other] ^= 1;
    const char *context = flags & 8 ? "ranks 0 and 2" : "ranks 0 and 1";
    fuzz_expect(cinch_proof_begin(&us, flags & 1, secret, "ranks 0 and 1", 13), "no proof");
    fuzz_expect(cinch_proof_begin(&peer, !(flags & 1), other, context, 13), "no proof");
    exchange(&in, &us, &peer, flags & 2, !(flags & 12));
    return 0;
}

size_t fuzz_seed(int k, uint8_t *out) {
    if (k >= 16 + KINDS * 4) return 0;
    memset(out, 0, 64);
    if (k < 16) { /* each role, form and lack of knowledge, honest */
        out[0] = (uint8_t)k;
        return 8;
    }
    out[0] = (uint8_t)((k - 16) % 4);
    out[1 + (k & 1)] = (uint8_t)((k - 16) / 4);
    out[3] = 17;
    return 64;
}

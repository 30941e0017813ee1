/* SPDX-License-Identifier: Apache-2.0 */
/* The mutual proof that two ends of a socket know the same secret, which never crosses the wire. */
#include "transports/handshake.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "transports/io.h"

#ifdef HAVE_SODIUM
#include <sodium.h>
#endif

static const uint8_t magic[8] = {'c', 'i', 'n', 'c', 'h', 'P', 'r', '1'};

enum { INITIATOR = 1, ACCEPTOR = 2 };

bool cinch_handshake_available(void) {
#ifdef HAVE_SODIUM
    return sodium_init() >= 0;
#else
    return false;
#endif
}

cinchResult_t cinch_random(void *bytes, size_t count) {
    char *at = bytes;
    while (count) {
        ssize_t n = getrandom(at, count, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return cinch_fail_errno(errno, "the kernel gave no random bytes");
        at += n;
        count -= (size_t)n;
    }
    return cinchSuccess;
}

bool cinch_derive(uint8_t *out, size_t out_bytes, const char *label, const void *part,
                  size_t part_bytes, const void *part2, size_t part2_bytes) {
#ifdef HAVE_SODIUM
    crypto_generichash_state state;
    uint64_t length = part_bytes; /* so that a byte cannot move from one part to the other */
    uint8_t prefix[8];
    for (int i = 0; i < 8; i++) prefix[i] = (uint8_t)(length >> (8 * i));
    uint8_t key[crypto_generichash_KEYBYTES];
    if (crypto_generichash(key, sizeof key, (const uint8_t *)label, strlen(label), NULL, 0) ||
        crypto_generichash_init(&state, key, sizeof key, out_bytes) ||
        crypto_generichash_update(&state, prefix, sizeof prefix) ||
        (part_bytes && crypto_generichash_update(&state, part, part_bytes)) ||
        (part2_bytes && crypto_generichash_update(&state, part2, part2_bytes)))
        return false;
    bool ok = !crypto_generichash_final(&state, out, out_bytes);
    sodium_memzero(&state, sizeof state);
    return ok;
#else
    (void)out, (void)out_bytes, (void)label, (void)part;
    (void)part_bytes, (void)part2, (void)part2_bytes;
    return false;
#endif
}

void cinch_proof_wipe(cinch_proof *proof) {
    explicit_bzero(proof, sizeof *proof);
}

bool cinch_proof_begin(cinch_proof *proof, bool initiator, const uint8_t secret[CINCH_SECRET_BYTES],
                       const void *context, size_t context_bytes) {
    memset(proof, 0, sizeof *proof);
    if (!cinch_handshake_available()) return false;
    proof->initiator = initiator;
    memcpy(proof->secret, secret, sizeof proof->secret);
    memcpy(proof->mine, magic, sizeof magic);
    return cinch_derive(proof->context, sizeof proof->context, "cinch proof context", context,
                        context_bytes, NULL, 0) &&
           cinch_random(proof->mine + sizeof magic, sizeof proof->mine - sizeof magic) ==
               cinchSuccess;
}

#ifdef HAVE_SODIUM
static void keyed_answer(const cinch_proof *proof, uint8_t role, uint8_t *out) {
    const uint8_t *first = proof->initiator ? proof->mine : proof->theirs;
    const uint8_t *second = proof->initiator ? proof->theirs : proof->mine;
    crypto_generichash_state state;
    crypto_generichash_init(&state, proof->secret, sizeof proof->secret, CINCH_PROOF_ANSWER_BYTES);
    crypto_generichash_update(&state, &role, 1);
    crypto_generichash_update(&state, first, CINCH_PROOF_HELLO_BYTES);
    crypto_generichash_update(&state, second, CINCH_PROOF_HELLO_BYTES);
    crypto_generichash_update(&state, proof->context, sizeof proof->context);
    crypto_generichash_final(&state, out, CINCH_PROOF_ANSWER_BYTES);
    sodium_memzero(&state, sizeof state);
}

/* Both nonces are known. False: the peer sent what no honest one does. */
static bool read_hello(cinch_proof *proof) {
    if (memcmp(proof->theirs, magic, sizeof magic) != 0) return false;
    if (memcmp(proof->theirs, proof->mine, sizeof proof->mine) == 0) return false; /* an echo */
    keyed_answer(proof, proof->initiator ? INITIATOR : ACCEPTOR, proof->answer);
    keyed_answer(proof, proof->initiator ? ACCEPTOR : INITIATOR, proof->expected);
    return true;
}

/* A wrong answer is met with zeros, which no answer is, so that the peer knows why. */
static void read_answer(cinch_proof *proof) {
    proof->wrong = sodium_memcmp(proof->got, proof->expected, sizeof proof->got) != 0;
    if (proof->wrong) memset(proof->answer, 0, sizeof proof->answer);
}
#else
static bool read_hello(cinch_proof *proof) {
    return proof->initiator && false;
}
static void read_answer(cinch_proof *proof) {
    proof->wrong = true;
}
#endif

/* What the messages of the two roles are, in order. */
typedef enum { SAY_HELLO, HEAR_HELLO, SAY_ANSWER, HEAR_ANSWER, END } action;
static const action script[2][5] = {
    {HEAR_HELLO, SAY_HELLO, HEAR_ANSWER, SAY_ANSWER, END},
    {SAY_HELLO, HEAR_HELLO, SAY_ANSWER, HEAR_ANSWER, END},
};

/* Moves one message: HOLDS when all of it has moved. */
static cinch_proof_state move(cinch_proof *proof, int fd, uint8_t *bytes, size_t count, bool out) {
    while (proof->done < count) {
        size_t left = count - proof->done;
        ssize_t n = out ? send(fd, bytes + proof->done, left, MSG_NOSIGNAL | MSG_DONTWAIT)
                        : recv(fd, bytes + proof->done, left, MSG_DONTWAIT);
        if (n > 0)
            proof->done = (uint8_t)(proof->done + n);
        else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return out ? CINCH_PROOF_WRITE : CINCH_PROOF_READ;
        else if (n == 0 || errno != EINTR)
            return CINCH_PROOF_BROKEN;
    }
    return CINCH_PROOF_HOLDS;
}

cinch_proof_state cinch_proof_step(cinch_proof *proof, int fd) {
    for (;; proof->step++, proof->done = 0) {
        cinch_proof_state state;
        switch (script[proof->initiator][proof->step]) {
        case SAY_HELLO:
            state = move(proof, fd, proof->mine, sizeof proof->mine, true);
            break;
        case HEAR_HELLO:
            state = move(proof, fd, proof->theirs, sizeof proof->theirs, false);
            if (state == CINCH_PROOF_HOLDS && !read_hello(proof)) return CINCH_PROOF_FOREIGN;
            break;
        case SAY_ANSWER:
            state = move(proof, fd, proof->answer, sizeof proof->answer, true);
            break;
        case HEAR_ANSWER:
            state = move(proof, fd, proof->got, sizeof proof->got, false);
            if (state == CINCH_PROOF_HOLDS) read_answer(proof);
            break;
        default:
            return proof->wrong ? CINCH_PROOF_REFUSED : CINCH_PROOF_HOLDS;
        }
        if (state != CINCH_PROOF_HOLDS) return state;
    }
}

size_t cinch_proof_give(cinch_proof *proof, uint8_t out[CINCH_PROOF_HELLO_BYTES]) {
    action now = script[proof->initiator][proof->step];
    if (now != SAY_HELLO && now != SAY_ANSWER) return 0;
    size_t count = now == SAY_HELLO ? sizeof proof->mine : sizeof proof->answer;
    memcpy(out, now == SAY_HELLO ? proof->mine : proof->answer, count);
    proof->step++;
    return count;
}

cinch_proof_state cinch_proof_take(cinch_proof *proof, const void *in, size_t count) {
    action now = script[proof->initiator][proof->step];
    if (now == HEAR_HELLO && count == sizeof proof->theirs) {
        memcpy(proof->theirs, in, count);
        if (!read_hello(proof)) return CINCH_PROOF_FOREIGN;
    } else if (now == HEAR_ANSWER && count == sizeof proof->got) {
        memcpy(proof->got, in, count);
        read_answer(proof);
    } else {
        return CINCH_PROOF_FOREIGN;
    }
    proof->step++;
    return cinch_proof_stand(proof);
}

cinch_proof_state cinch_proof_stand(const cinch_proof *proof) {
    switch (script[proof->initiator][proof->step]) {
    case SAY_HELLO:
    case SAY_ANSWER:
        return CINCH_PROOF_WRITE;
    case HEAR_HELLO:
    case HEAR_ANSWER:
        return CINCH_PROOF_READ;
    default:
        return proof->wrong ? CINCH_PROOF_REFUSED : CINCH_PROOF_HOLDS;
    }
}

cinchResult_t cinch_handshake(int fd, bool initiator, const uint8_t secret[CINCH_SECRET_BYTES],
                              const void *context, size_t context_bytes, uint64_t deadline_ns) {
    cinch_proof proof;
    if (!cinch_proof_begin(&proof, initiator, secret, context, context_bytes))
        return cinchInternalError;
    cinch_proof_state state;
    for (;;) {
        state = cinch_proof_step(&proof, fd);
        if (state != CINCH_PROOF_READ && state != CINCH_PROOF_WRITE) break;
        if (cinch_wait(fd, state == CINCH_PROOF_READ ? POLLIN : POLLOUT, deadline_ns)) break;
        /* A peer that trickles keeps the socket readable without end. */
        if (cinch_now_ns() >= deadline_ns) break;
    }
    cinch_proof_wipe(&proof);
    switch (state) {
    case CINCH_PROOF_HOLDS:
        return cinchSuccess;
    case CINCH_PROOF_REFUSED:
        return cinchRemoteError;
    case CINCH_PROOF_FOREIGN:
        return cinchInvalidUsage;
    default:
        return cinchSystemError;
    }
}

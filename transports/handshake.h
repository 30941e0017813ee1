/* SPDX-License-Identifier: Apache-2.0 */
/* The mutual proof that two ends of a socket know the same secret, which never crosses the wire.
 *
 * Each side sends a fresh nonce and answers the other's with a keyed hash (libsodium's BLAKE2b)
 * over both nonces, its own role and the context, so that neither a replayed nor a reflected answer
 * passes. The end that connected proves first: a stranger learns nothing but a nonce. All messages
 * have a fixed size; nothing else is read from the peer before its proof holds. */
#ifndef CINCH_TRANSPORTS_HANDSHAKE_H_
#define CINCH_TRANSPORTS_HANDSHAKE_H_

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define CINCH_SECRET_BYTES 32

/* Whether this build has libsodium. Without it the proofs fail, and only local sockets, whose
 * peer's uid is checked, can be used. */
bool cinch_handshake_available(void);

/* Runs the proof on a connected socket, blocking or not, until deadline_ns (cinch_now_ns).
 * context: what this connection is for, the same bytes on both sides, e.g. communicator and ranks.
 * initiator: true at the end that connected. Failures are quiet, the caller decides what to say:
 * RemoteError: the peer does not know the secret, or says that we do not. InvalidUsage: what
 * answers there does not speak this protocol. SystemError: the connection broke, or the deadline
 * passed. InternalError: no libsodium, or no random bytes. */
cinchResult_t cinch_handshake(int fd, bool initiator, const uint8_t secret[CINCH_SECRET_BYTES],
                              const void *context, size_t context_bytes, uint64_t deadline_ns);

/* The same in steps, for a thread that serves many sockets. */
typedef enum {
    CINCH_PROOF_READ,    /* step again when the socket is readable */
    CINCH_PROOF_WRITE,   /* ... writable */
    CINCH_PROOF_HOLDS,   /* done: the peer knows the secret */
    CINCH_PROOF_REFUSED, /* the peer does not know it, or says that we do not */
    CINCH_PROOF_FOREIGN, /* the peer does not speak this protocol */
    CINCH_PROOF_BROKEN   /* the connection ended, or no libsodium */
} cinch_proof_state;

#define CINCH_PROOF_HELLO_BYTES 40  /* magic and nonce */
#define CINCH_PROOF_ANSWER_BYTES 32 /* keyed hash */

typedef struct cinch_proof {
    bool initiator, wrong;
    uint8_t step, done; /* which message, how much of it has moved */
    uint8_t mine[CINCH_PROOF_HELLO_BYTES], theirs[CINCH_PROOF_HELLO_BYTES];
    uint8_t answer[CINCH_PROOF_ANSWER_BYTES], expected[CINCH_PROOF_ANSWER_BYTES];
    uint8_t got[CINCH_PROOF_ANSWER_BYTES];
    uint8_t secret[CINCH_SECRET_BYTES], context[32];
} cinch_proof;

/* False where there is no libsodium or the kernel gave no random bytes. */
bool cinch_proof_begin(cinch_proof *proof, bool initiator, const uint8_t secret[CINCH_SECRET_BYTES],
                       const void *context, size_t context_bytes);
cinch_proof_state cinch_proof_step(cinch_proof *proof, int fd);
void cinch_proof_wipe(cinch_proof *proof);

/* The same where messages come and go whole, over what is no socket. give: the next message to
 * send, its bytes; 0: it is the peer's turn, or the end. take: what came; WRITE where give has the
 * next. FOREIGN also for a message of another length, and out of turn. */
size_t cinch_proof_give(cinch_proof *proof, uint8_t out[CINCH_PROOF_HELLO_BYTES]);
cinch_proof_state cinch_proof_take(cinch_proof *proof, const void *in, size_t count);
cinch_proof_state cinch_proof_stand(const cinch_proof *proof); /* what is next, or the end */

/* Fills with random bytes from the kernel. */
cinchResult_t cinch_random(void *bytes, size_t count);

/* out = a hash of the parts, keyed by label; false without libsodium. */
bool cinch_derive(uint8_t *out, size_t out_bytes, const char *label, const void *part,
                  size_t part_bytes, const void *part2, size_t part2_bytes);

#endif

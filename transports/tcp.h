/* SPDX-License-Identifier: Apache-2.0 */
/* The two halves of the tcp transport: connecting all pairs, and carrying messages. */
#ifndef CINCH_TRANSPORTS_TCP_H_
#define CINCH_TRANSPORTS_TCP_H_

#include "transports/address.h"
#include "transports/link.h"

/* How a rank can be reached, told to all by the rendezvous. */
typedef struct cinch_tcp_card {
    uint8_t listening;
    uint8_t address[CINCH_ADDRESS_BYTES];
    uint32_t unused;
    uint64_t cookie; /* random: who knows it was told by the rendezvous, or has listened in */
} cinch_tcp_card;
_Static_assert(sizeof(cinch_tcp_card) == 32, "cards are bytes on a wire");

/* The first that a connecting rank says. It is believed only when the proof holds. */
typedef struct cinch_tcp_hello {
    uint64_t magic, cookie; /* the listener's cookie */
    uint32_t rank, unused;
} cinch_tcp_hello;
#define CINCH_TCP_MAGIC UINT64_C(0x317063746e694368)

/* What a proof is about: no other pair, direction or communicator has the same. */
typedef struct cinch_tcp_pair {
    uint64_t magic, cookies[2]; /* of the lower and the upper rank */
    uint32_t lower, upper;
} cinch_tcp_pair;

/* A link over a connected, non-blocking stream socket of transports/io.h, which it owns from here
 * on. NULL: out of memory, and the socket is still the caller's. */
cinch_link *cinch_tcp_link_new(int fd, int rank, int peer, bool checksum);

/* The tcp transport's row. */
extern const cinch_transport cinch_transport_tcp;

#endif

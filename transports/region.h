/* SPDX-License-Identifier: Apache-2.0 */
/* The layout of the shared memory that a rank offers to the ranks of its host.
 *
 *   0                header
 *   1024             flags
 *   4096             stage, rounded up to whole pages
 *   then             a channel to each rank of the communicator, in rank order
 *
 * Pages that nobody touches do not exist, so channels that are not used, to ranks on other hosts
 * for one, cost nothing. */
#ifndef CINCH_TRANSPORTS_REGION_H_
#define CINCH_TRANSPORTS_REGION_H_

#include "transports/link.h"
#include "transports/mapping.h"
#include "transports/shm.h"

#define CINCH_REGION_MAGIC UINT64_C(0x31686e6963486d53) /* also the layout's version */
#define CINCH_REGION_FLAGS 1024
#define CINCH_REGION_STAGE 4096

typedef struct cinch_region_header {
    uint64_t magic;
    uint64_t proof; /* random; the owner tells it on another way too */
    uint64_t bytes;
} cinch_region_header;

#define CINCH_CHANNEL_SLOTS 64 /* messages under way; a power of two */
#define CINCH_CHANNEL_RING 262144u
#define CINCH_CHANNEL_PIECE 32768u /* at most this much is copied before the peer is told */
#define CINCH_SLOT_INLINE 32

/* A message's header and, where it is short, all of it: one cache line, so that the receiver who
 * waits for `turn` has everything with one transfer. Slots hold nothing but slots, so an old turn
 * is never mistaken for a new one. */
typedef struct cinch_slot {
    _Alignas(64) _Atomic uint32_t turn; /* the message's number, from 1; written last */
    uint32_t check;
    uint64_t tag;
    uint64_t bytes;
    uint64_t tail; /* long messages: how much of the ring was written with this slot */
    unsigned char payload[CINCH_SLOT_INLINE];
} cinch_slot;
_Static_assert(sizeof(cinch_slot) == 64, "a slot is one cache line");

/* Messages of one direction. Payloads that do not fit a slot go through the ring, each from a
 * position that is a multiple of 64. tail and head count bytes from the beginning of time. */
typedef struct cinch_channel {
    cinch_slot slot[CINCH_CHANNEL_SLOTS];
    _Alignas(128) _Atomic uint64_t tail; /* written by the sender */
    _Atomic uint32_t sender_gone;
    _Alignas(128) _Atomic uint64_t head; /* written by the receiver */
    _Atomic uint32_t taken;              /* messages whose slot is free again */
    _Atomic uint32_t receiver_gone;
    _Alignas(4096) unsigned char ring[CINCH_CHANNEL_RING];
} cinch_channel;

static inline size_t cinch_region_pages(size_t bytes) {
    return (bytes + 4095) / 4096 * 4096;
}
static inline size_t cinch_region_channels(size_t stage_bytes) {
    return CINCH_REGION_STAGE + cinch_region_pages(stage_bytes);
}
static inline size_t cinch_region_bytes(size_t stage_bytes, int nranks) {
    return cinch_region_channels(stage_bytes) + (size_t)nranks * sizeof(cinch_channel);
}
/* The channel from the region's owner to a rank. */
static inline cinch_channel *cinch_region_channel(const cinch_mapping *region, size_t stage_bytes,
                                                  int rank) {
    return (cinch_channel *)(void *)(region->data + cinch_region_channels(stage_bytes)) + rank;
}

/* A link that writes to `out` in our region and reads from `in` in the peer's; keeps both
 * mappings. NULL: out of memory. */
cinch_link *cinch_shm_link_new(int rank, int peer, bool checksum, cinch_mapping *ours,
                               cinch_channel *out, cinch_mapping *theirs, cinch_channel *in);

/* The shm transport's row, and the end of what it leaves in net->shm. NULL is nothing. */
extern const cinch_transport cinch_transport_shm;
void cinch_shm_close(cinch_shm *shm);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between ranks whose GPU is the same, or reaches the other's: by one copy on the device
 * in place of two through the host and a link between them.
 *
 * The link carries a note that says where the message lies, and the receiver's stream copies it
 * from there. Within a process that is the sender's own memory. Another process may open only what
 * was taken by cudaMalloc, so the sender copies the message to a stage first, memory of the
 * communicator's own. That a message was copied the receiver writes on its card, a page of the
 * mappable heap (base/heap.h), and the sender looks there. No stream ever waits for a peer.
 *
 * Whether a pair goes this way its two ranks find out before their first collective on a device:
 * each tries to read the other's memory and writes down on its card what came of it; where either
 * cannot, neither does. Without windows (transports/shm.h) there are no cards. */
#ifndef CINCH_COLL_GPU_PEER_H_
#define CINCH_COLL_GPU_PEER_H_

#include <stdatomic.h>
#include <sys/types.h>

#include "base/device.h"

struct cinchComm;
struct cinch_op;
struct cinch_gpu_way;
struct cinch_gpu_comm;

/* A stage that is too small is followed by one of at least twice its size, and kept. The least is
 * what CUDA takes for small allocations at once, of which a handle shows the whole. */
enum { CINCH_GPU_STAGES = 40, CINCH_GPU_STAGE_LEAST = 2 << 20 };

typedef enum {
    CINCH_PEER_UNKNOWN,
    CINCH_PEER_REACHED, /* this rank's copies read the peer's memory */
    CINCH_PEER_APART
} cinch_gpu_verdict;

/* What a rank tells one peer. */
typedef struct cinch_gpu_answer {
    _Atomic uint64_t begun;  /* so many of the peer's messages are being copied, or were */
    _Atomic uint64_t copied; /* so many were: their memory may be written again */
    _Atomic uint32_t verdict;
} cinch_gpu_answer;

/* A rank's page. Only its owner writes here, but for `users`. */
typedef struct cinch_gpu_card {
    _Atomic uint32_t users; /* other ranks that may still look here or have stages open; the page
                               and the stages go when there are none */
    _Atomic uint32_t ready; /* what is below is there: 1, or 2 where other processes get no stage */
    _Atomic uint32_t stopped; /* nothing more of the owner's memory is to be copied */
    _Atomic uint32_t stages;
    int32_t device;
    uint64_t probe[2]; /* what the first stage begins with, so far */
    struct {
        cinch_device_handle handle;
        uint64_t bytes;
    } stage[CINCH_GPU_STAGES];
    cinch_gpu_answer answer[]; /* [nranks] */
} cinch_gpu_card;

/* In place of a message. */
typedef struct cinch_gpu_note {
    uint64_t at; /* within the process an address, else a place in the stage */
    uint64_t bytes;
    uint32_t stage, mark;
} cinch_gpu_note;

typedef struct cinch_gpu_peer {
    cinch_gpu_card *card; /* NULL: none is seen */
    bool here;            /* in this process */
    bool direct;          /* each of the two reads the other's memory, as far as is known */
    uint64_t sent;        /* messages to it that go this way */
    void *stage[CINCH_GPU_STAGES];
} cinch_gpu_peer;

typedef struct cinch_gpu_peers {
    struct cinch_gpu_peers *next; /* of those whose communicator is gone */
    pid_t process;
    int rank, nranks;
    cinch_gpu_card *card;
    bool met, settled, refused;
    _Atomic uint32_t shown; /* the card has all that its owner writes at first, or will have */
    const cinch_device_work *work; /* from the first operation there on */
    int device;
    void *stage[CINCH_GPU_STAGES];
    uint64_t direct_bytes, link_bytes; /* of messages longer than a note, by the way they went */
    cinch_gpu_peer peer[];             /* [nranks] */
} cinch_gpu_peers;

/* ---- the communicator (gpu_meet.c) ---- */

/* When it is made: a card, and its place in the heap, one more than the offset; 0: none. Then each
 * other rank's; and the end, after the last operation and before the windows are closed. */
void cinch_gpu_peers_offer(struct cinchComm *comm, uint64_t *where);
void cinch_gpu_peers_meet(struct cinchComm *comm, int q, uint64_t where);
void cinch_gpu_peers_leave(struct cinchComm *comm);

/* By the calling thread, before the first operation on a device is queued: what the card shows.
 * Takes memory, and that may wait for what is queued on the device. */
void cinch_gpu_peers_show(struct cinchComm *comm);

/* Goes on finding out about peers. *settled: all is known, of them by this rank and the other way
 * round; that needs all ranks to come here. */
cinchResult_t cinch_gpu_peers_settle(struct cinch_op *op, bool *settled);

/* Whether this rank's messages to and from q go this way, as it was found when the operation began.
 * Once settled, q says the same. */
bool cinch_gpu_direct(const struct cinchComm *comm, int q);

/* Whether q may send a note where this rank receives so many bytes in a message of a pair. */
bool cinch_gpu_may_note(const struct cinchComm *comm, int q, size_t bytes);

/* A stage of so many bytes at least, which becomes the last. */
cinchResult_t cinch_gpu_stage(struct cinch_op *op, size_t bytes, unsigned char **stage);

/* ---- messages (gpu_peer.c) ---- */

/* A way of which place, bytes, link and stage are set goes without the host: its note. */
void cinch_gpu_peer_aim(struct cinch_op *op, struct cinch_gpu_way *way);
void cinch_gpu_peer_sent(struct cinch_op *op, struct cinch_gpu_way *way);

/* Where the message of a note is, so that it can be copied: from, bytes. RemoteError: the note
 * makes no sense, or its sender has given up. Then its copy, also of what came over a link; and
 * that it is queued. */
cinchResult_t cinch_gpu_peer_take(struct cinch_op *op, struct cinch_gpu_way *way,
                                  const cinch_gpu_note *note);
cinchResult_t cinch_gpu_peer_copy(struct cinch_gpu_comm *g, const struct cinch_gpu_way *way,
                                  void *to);
void cinch_gpu_peer_taken(struct cinch_op *op, struct cinch_gpu_way *way);

/* Tells peers what was copied here, and sees what they have copied. */
cinchResult_t cinch_gpu_peer_look(struct cinch_op *op, bool *moved);

/* A message of a pair that came into host memory as a note: copies it there. Blocks. */
cinchResult_t cinch_gpu_peer_fetch(struct cinchComm *comm, int q, void *data, size_t came,
                                   size_t bytes);

/* After a failure, when this rank's streams are at rest (done) or are not waited for any more: no
 * copies of its memory begin. Waits until those that have begun are done, at most a second. */
void cinch_gpu_peer_stop(struct cinch_op *op, bool done);

#endif

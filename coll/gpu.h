/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on a device's memory: the same schedules, but copies, sums and codecs are queued on
 * streams of the communicator's own, and messages pass through pinned memory of the host.
 *
 * Items are queued on one stream, `compute`, in the schedule's order. What is sent is copied out on
 * `down` when compute has come there, and goes to its link when that copy is over; what came is
 * copied in on `up` when compute has come to where the receive was posted, and compute waits for
 * that copy where an item needs the message. Between some ranks messages do without the host:
 * coll/gpu_peer.h. Nothing here blocks but what says so. */
#ifndef CINCH_COLL_GPU_H_
#define CINCH_COLL_GPU_H_

#include "base/device.h"
#include "coll/engine.h"
#include "coll/gpu_peer.h"
#include "compress/gpu.h"

/* A message under way, between the device and its link. */
typedef struct cinch_gpu_way {
    struct cinch_gpu_way *next;
    cinch_msg *msg;
    cinch_link *link;
    unsigned char *place; /* in the device's memory; NULL: the message is in the host's */
    unsigned char *bounce;
    size_t bytes;         /* of the message, whatever the link carries; a receive: the room */
    bool direct;          /* the link carries a note in its place */
    bool pending;         /* which the receiver has not copied yet, or not said so */
    unsigned char *stage; /* a send: where it is put for another process, else NULL */
    const void *from;     /* a receive: where the message is copied from */
    bool across;          /* and that is on another device of this process */
    uint64_t number;      /* a send: so manieth to that peer */
    cinch_gpu_note note;
    size_t *length;           /* where the length of what came is noted, or NULL */
    bool unmeasured;          /* a send: its length is not known so far, nothing is queued */
    size_t slot;              /* then: of the wire memory */
    const cinch_event *after; /* compute has come to where it was posted; NULL: at once */
    cinch_event *mark, *moved;
    bool receives;
    enum {
        CINCH_WAY_NONE,  /* nothing travels */
        CINCH_WAY_OPEN,  /* on the link, or before it */
        CINCH_WAY_COPIED /* a receive: the copy to its place is queued, and `moved` after it */
    } state;
} cinch_gpu_way;

/* The length of an encoding, while the device finds it out. */
typedef struct cinch_gpu_length {
    cinch_event *there;
    bool open;
} cinch_gpu_length;

/* Memory that only grows. */
typedef struct cinch_gpu_room {
    void *data;
    size_t bytes;
    bool pinned;
} cinch_gpu_room;

/* What the host and kernels exchange, in pinned memory. */
typedef struct cinch_gpu_mail {
    unsigned char scalar[8];
    cinch_gpu_counts counts;
    uint64_t probe[2];
} cinch_gpu_mail;

enum { CINCH_GPU_STREAMS = 3, CINCH_GPU_PIECE = 1 << 20 };

/* A communicator's part of a device, from its first operation there on. */
typedef struct cinch_gpu_comm {
    const cinch_device_work *work;
    const cinch_gpu *kernels;
    int device;
    cinchStream_t stream[CINCH_GPU_STREAMS];
    cinch_event *end[CINCH_GPU_STREAMS];
    cinch_event *sent; /* compute has come to where the last message was to be copied out */
    cinch_gpu_room data, scaled, bounce, piece, mail_room, counts_room, warm, length_room;
    cinch_gpu_room
        *retired; /* rooms that were too small: freeing waits for all streams there are */
    int nretired;
    cinch_gpu_mail *mail;
    cinch_gpu_counts *counts;
    const cinchCodec_t *warmed[CINCH_CODEC_COUNT]; /* these codecs' kernels are loaded */
    bool refused; /* that the codec is not for a GPU has been said */

    /* of the operation that runs */
    cinch_gpu_way *way;
    size_t ways;
    cinch_gpu_way *sends, **sends_end, *receives, **receives_end;
    cinch_gpu_way *unseen, **unseen_end; /* sent as notes, not known to be copied */
    cinch_gpu_way *owed, **owed_end;     /* being copied; their senders wait for that */
    bool planned;                        /* there is memory for messages */
    bool polling;                        /* a peer's card is waited for */
    const cinch_event *at;               /* where compute is, if nothing was queued since */
    bool queued;                         /* anything on compute at all */
    bool sent_there;                     /* down has waited for what is queued on compute so far */
    bool watching;                       /* an event is waited for */
    bool ending;
    cinch_gpu_length *length; /* [lengths] as op->wire_length */
    size_t lengths;
    size_t *offset; /* [offsets] of a message's place in a round's bounce memory */
    size_t offsets;
    cinch_gpu_term *term;  /* [nranks + 2] */
    void *state, *own;     /* what a codec has seen of the input, and of an owner's share */
    float *sender, *owner; /* residuals, or NULL */
} cinch_gpu_comm;

/* The streams. */
static inline cinchStream_t cinch_gpu_compute(const cinch_gpu_comm *g) {
    return g->stream[0];
}
static inline cinchStream_t cinch_gpu_down(const cinch_gpu_comm *g) {
    return g->stream[1];
}
static inline cinchStream_t cinch_gpu_up(const cinch_gpu_comm *g) {
    return g->stream[2];
}

/* ---- a call ---- */

/* Finds out whose memory the call's buffers are, and on which stream it runs then. InvalidUsage:
 * memory or streams that do not go together. */
cinchResult_t cinch_gpu_find(cinch_called *call);

/* ---- the communicator's part of the device (gpu_comm.c) ---- */

/* By the calling thread, before the operation is queued: makes it where there is none, and loads
 * kernels (gpu_warm.c). A failure is the communicator's. */
cinchResult_t cinch_gpu_make(struct cinchComm *comm, const cinch_device_ops *on, int device);
cinchResult_t cinch_gpu_warm(struct cinchComm *comm);

void cinch_gpu_open(cinch_op *op);       /* when it is the operation's turn: sets op->gpu */
void cinch_gpu_close(cinch_gpu_comm *g); /* NULL is fine */

/* At least so many bytes, contents lost; what was there before is retired. */
cinchResult_t cinch_gpu_reserve(cinch_gpu_comm *g, cinch_gpu_room *room, size_t bytes);
cinchResult_t cinch_gpu_retire(cinch_gpu_comm *g, const cinch_gpu_room *room);

/* Waits until the stream has done all that is queued there. Blocks. */
cinchResult_t cinch_gpu_sync(cinch_gpu_comm *g, int stream);

/* At most a CINCH_GPU_PIECE of the device's memory where the host can read it, until the next
 * call of these three; and between pageable and the device's memory, piece by piece. Block. */
cinchResult_t cinch_gpu_view(cinch_gpu_comm *g, const void *from, size_t bytes,
                             const unsigned char **view);
cinchResult_t cinch_gpu_fetch(cinch_gpu_comm *g, void *to, const void *from, size_t bytes);
cinchResult_t cinch_gpu_store(cinch_gpu_comm *g, void *to, const void *from, size_t bytes);

/* ---- planning (gpu_plan.c) ---- */

/* Whether a GPU can run these codecs (bits 1 << CINCH_CODEC_*) on so many elements of input; where
 * not, says so once. */
bool cinch_gpu_takes(const cinch_op *op, unsigned codecs, size_t input);

/* The input times the operator's scalar, in op->source. */
cinchResult_t cinch_gpu_scale(cinch_op *op, size_t count);

/* Bytes of device memory for what a codec has to see of so many elements. */
size_t cinch_gpu_state_bytes(const cinch_op *op, int codec, size_t count);

/* Residuals on the device, and what codecs see of the input before its first segment. */
cinchResult_t cinch_gpu_prepare_codecs(cinch_op *op, size_t input);

/* When all else is planned: memory for messages, as soon as it is known how they go: then
 * gpu->planned is set, else it is to be called again. */
cinchResult_t cinch_gpu_begin(cinch_op *op);

/* ---- running (gpu_engine.c, gpu_items.c) ---- */

/* Runs the operation, messages between pairs too, until it is done or must wait. */
cinchResult_t cinch_gpu_progress(cinch_op *op, bool pairs, bool *moved);

/* Posts messages between pairs, and copies one that a rank sends to itself. */
cinchResult_t cinch_gpu_p2p_begin(cinch_op *op);
cinchResult_t cinch_gpu_copy_pair(cinch_op *op, cinch_p2p *to, const cinch_p2p *from);

/* For one rank, whose every buffer is one block. */
cinchResult_t cinch_gpu_alone(cinch_op *op);

/* After a failure: until nothing touches the caller's memory any more, or for 10 s, after which the
 * device is taken for stuck. Blocks. */
void cinch_gpu_stop(cinch_op *op);

/* Posts a message between a pair. */
cinchResult_t cinch_gpu_start_pair(cinch_op *op, cinch_p2p *p, cinch_gpu_way *way);

/* Queues copy, reduce, encode and sum on compute. */
cinchResult_t cinch_gpu_item(cinch_op *op, const cinch_item *item, size_t round);

/* Something is queued on compute from now on. */
static inline void cinch_gpu_queued(cinch_gpu_comm *g) {
    g->at = NULL;
    g->queued = true;
    g->sent_there = false;
}

/* ---- lengths that depend on data (gpu_length.c) ---- */

/* For one operation; what an older one has left open counts no more. */
cinchResult_t cinch_gpu_lengths_begin(cinch_op *op);
void cinch_gpu_lengths_close(cinch_gpu_comm *g);

/* Has the device measure what was encoded at wire: op->wire_length[slot] counts from when *known
 * tells so. */
cinchResult_t cinch_gpu_length_ask(cinch_op *op, const cinch_codec *codec, const void *wire,
                                   size_t elements, size_t slot);
cinchResult_t cinch_gpu_length_known(cinch_op *op, size_t slot, bool *known);

/* ---- residuals on a device (gpu_ef.c) ---- */

/* The entry's floats on the device, nsender and nowner of them. */
cinchResult_t cinch_gpu_mirror(cinch_gpu_comm *g, cinch_ef *ef, float **sender, float **owner);

/* Brings what the device has changed back to the host's floats; blocks. After that the device asks
 * the host again. */
cinchResult_t cinch_gpu_mirrors_back(struct cinchComm *comm);
cinchResult_t cinch_gpu_mirror_back(cinch_ef *ef);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* A collective as data: what one rank does, in order.
 *
 * A message of `count` elements is cut into rounds, and each round into `parts`; a schedule is the
 * list of items that a rank runs for one round, so it depends on the number of ranks and the
 * algorithm, not on count. Where a buffer has a block of `count` elements for each rank, all blocks
 * are cut alike, and a round is the same piece of all of them. Rounds overlap by lags: iteration i
 * runs, in list order, each item for round i - lag. Lags do not decrease along the list. So the
 * order in which a rank does everything is fixed, the same in the engine and in the verifier.
 *
 * SEND and RECV are posted and complete later; an item whose memory they touch names them in its
 * deps and waits for them. All other items are done when they have run. */
#ifndef CINCH_COLL_SCHEDULE_H_
#define CINCH_COLL_SCHEDULE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "coll/shape.h"

typedef enum {
    CINCH_DO_COPY,   /* dst = src */
    CINCH_DO_REDUCE, /* every dst = src op src op ..., in this order */
    CINCH_DO_SEND,   /* src to peer */
    CINCH_DO_RECV,   /* dst from peer */
    CINCH_DO_POST,   /* raise own flag to this round */
    CINCH_DO_WAIT,   /* until peer's flag has reached this round */
    CINCH_DO_ENCODE, /* dst (WIRE) = src encoded */
    CINCH_DO_SUM     /* dst = the sum of encoded (WIRE) and plain srcs, in this order */
} cinch_do;

typedef enum {
    CINCH_IN,      /* the send buffer at this block, round and part; read only */
    CINCH_OUT,     /* the receive buffer; in place the same memory as IN */
    CINCH_TMP,     /* private scratch of a whole round, by slot, addressed by part */
    CINCH_BOX,     /* private scratch of one part, by slot; what is in it has the part's length */
    CINCH_WIRE,    /* private scratch for one part encoded, by slot */
    CINCH_STAGE,   /* a rank's shared window: a fixed place for each block and part; see stage_slots
                    */
    CINCH_PEER_IN, /* a local peer's send buffer, mapped */
    CINCH_PEER_OUT
} cinch_space;

#define CINCH_ALL_PARTS 0xffff

/* One piece of memory, for whichever round. */
typedef struct cinch_ref {
    uint16_t space;
    uint16_t slot;
    uint16_t part;  /* the first, or CINCH_ALL_PARTS */
    uint16_t parts; /* how many, adjacent */
    uint16_t rank;  /* whose, for STAGE and PEER_* */
    uint16_t block; /* of a user's buffer, or of the stage; in private scratch: of which block what
                       is encoded from there is a part, so that residuals are kept apart */
} cinch_ref;

/* flags of an item */
#define CINCH_FINAL 1u  /* the sum is complete: avg divides here */
#define CINCH_OWNER 2u  /* ENCODE: of the owner's sum (fp32, in a BOX), not of the rank's input */
#define CINCH_WIDE 4u   /* ENCODE, SUM: plain sources are sums, fp32, each in a BOX */
#define CINCH_INSIDE 8u /* ENCODE, SUM: with the codec for the inside of hosts */

/* A SUM into a BOX is fp32, and nothing but an ENCODE or a SUM takes it; everything else is of the
 * call's datatype. */

/* The codecs of a call: that of the level which the communicator spans, or between hosts; and that
 * for the inside of hosts where it spans several. */
typedef enum { CINCH_CODEC_MAIN, CINCH_CODEC_INSIDE, CINCH_CODEC_COUNT } cinch_codec_index;

#define CINCH_NO_MSG 0xffff

typedef struct cinch_item {
    uint8_t op;
    uint8_t lag;
    uint8_t flags;
    uint8_t flag;  /* POST, WAIT: which */
    uint16_t peer; /* SEND, RECV, WAIT */
    uint16_t mark; /* SEND, RECV: the same number on both sides */
    uint16_t msg;  /* SEND, RECV: index of its message */
    uint16_t ndst, nsrc;
    uint16_t ndep;
    uint32_t ref; /* into refs: ndst destinations, then nsrc sources */
    uint32_t dep; /* into deps: messages of this round that must be complete */
} cinch_item;

/* Which part of every rank's window a schedule's STAGE means: two small slots, which one-shot
 * takes in turn, or four large ones. */
typedef enum { CINCH_STAGE_SMALL, CINCH_STAGE_LARGE } cinch_stage_region;
#define CINCH_SMALL_SLOT ((size_t)256 << 10)
#define CINCH_LARGE_SLOT ((size_t)1 << 20)
#define CINCH_STAGE_BYTES (2 * CINCH_SMALL_SLOT + 4 * CINCH_LARGE_SLOT)

typedef struct cinch_schedule {
    int rank, nranks;
    cinch_collective collective; /* what it computes: all-reduce where nobody says otherwise */
    int root;
    uint16_t parts;
    uint16_t stage_blocks; /* of the stage; 1 where nobody says otherwise */
    uint8_t lags;          /* the largest lag */
    uint8_t depth;         /* rounds whose private scratch and messages exist at once, > lags */
    uint8_t stage_slots;   /* rounds whose STAGE exists at once; 0: no STAGE */
    uint8_t stage_region;
    bool windowed;   /* it posts: then no rank ends a round before all have come to it */
    bool entry_sync; /* every rank has entered the call before any runs its first item */
    bool encoded;    /* has ENCODE and SUM */
    bool owner;      /* and encodes sums, so that the owner has a residual */
    uint8_t codecs;  /* bit per codec (CINCH_CODEC_*) that it has */
    uint8_t inputs;  /* and that encodes the rank's input */
    uint16_t nmsg;
    uint16_t ntmp, nbox, nwire;
    int nitems;
    cinch_item *item;
    cinch_ref *refs;
    uint16_t *deps;
    uint16_t *msg_wire; /* [nmsg] the WIRE slot that a receive fills, or CINCH_NO_MSG */
    cinch_arena arena;
} cinch_schedule;

void cinch_schedule_free(cinch_schedule *schedule);

/* Builders: an algorithm calls these in the order in which the rank shall do things. Memory that
 * runs out is remembered and reported by cinch_build_end. */
typedef struct cinch_builder {
    cinch_schedule *s;
    cinch_arena scratch;
    int room_items, room_refs, nrefs;
    uint8_t lag;
    bool failed;
    cinch_ref *list[2]; /* room for nranks refs each, for the algorithm's use */
} cinch_builder;

/* False where memory ran out: build nothing then. */
bool cinch_build_begin(cinch_builder *b, cinch_schedule *s, int rank, int nranks, int parts);
void cinch_build_lag(cinch_builder *b, int lag); /* of the items from here on */

cinch_ref cinch_ref_of(cinch_space space, int part);
cinch_ref cinch_ref_slot(cinch_space space, int slot, int part);
cinch_ref cinch_ref_rank(cinch_space space, int rank, int part);
cinch_ref cinch_ref_parts(cinch_ref ref, int parts);
cinch_ref cinch_ref_block(cinch_ref ref, int block);

void cinch_build_copy(cinch_builder *b, cinch_ref dst, cinch_ref src);
void cinch_build_reduce(cinch_builder *b, unsigned flags, const cinch_ref *dst, int ndst,
                        const cinch_ref *src, int nsrc);
void cinch_build_send(cinch_builder *b, int peer, int mark, cinch_ref src);
void cinch_build_recv(cinch_builder *b, int peer, int mark, cinch_ref dst);
void cinch_build_post(cinch_builder *b, int flag);
void cinch_build_wait(cinch_builder *b, int flag, int peer);
void cinch_build_encode(cinch_builder *b, unsigned flags, cinch_ref dst, cinch_ref src);
void cinch_build_sum(cinch_builder *b, unsigned flags, cinch_ref dst, const cinch_ref *src,
                     int nsrc);

/* Finds the deps, counts slots, sets the depth. SystemError: out of memory. */
cinchResult_t cinch_build_end(cinch_builder *b);

/* Which codec an ENCODE or SUM is with. */
static inline cinch_codec_index cinch_item_codec(const cinch_item *item) {
    return item->flags & CINCH_INSIDE ? CINCH_CODEC_INSIDE : CINCH_CODEC_MAIN;
}

/* How a message is cut. */
typedef struct cinch_cut {
    size_t count;   /* elements of the message */
    size_t round;   /* elements of a round, a multiple of granule */
    size_t granule; /* parts begin at its multiples */
    size_t rounds;
    int parts;
} cinch_cut;

/* Rounds of nearly round_elements each and nearly alike, rounded up so that every part of a full
 * round is whole granules; none is longer than round_elements so rounded. count 0 makes no rounds.
 */
cinch_cut cinch_cut_make(size_t count, int parts, size_t granule, size_t round_elements);

/* The most elements of a part. */
size_t cinch_cut_part_max(const cinch_cut *cut);

/* First element, counted from the round's, and length of parts [part, part+parts) in a round of
 * `length` elements. */
typedef struct cinch_span {
    size_t first, length;
} cinch_span;

static inline size_t cinch_cut_length(const cinch_cut *cut, size_t round) {
    size_t left = cut->count - round * cut->round;
    return left < cut->round ? left : cut->round;
}

/* A part is at the same place in every round, also in a shorter last one: what a round leaves in a
 * shared window is then overwritten only by the same part of a later one. */
static inline cinch_span cinch_cut_span(const cinch_cut *cut, size_t length, const cinch_ref *ref) {
    if (ref->part == CINCH_ALL_PARTS) return (cinch_span){0, length};
    size_t piece = cut->round / (size_t)cut->parts;
    size_t first = ref->part * piece, last = (size_t)(ref->part + ref->parts) * piece;
    if (first > length) first = length;
    if (last > length) last = length;
    return (cinch_span){first, last - first};
}

#endif

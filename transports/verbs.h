/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the verbs transport: its ports, what a communicator has on them, its links.
 *
 * A rail is a port of an HCA with a completion queue of its own. A link has a reliable connection
 * (a queue pair) per rail, and on each side a page of words, a ring of slots that the peer writes
 * into, and as much to send from. Every write that the peer shall notice carries 32 bits of
 * immediate data: what kind it is, and a number that must be the expected one. */
#ifndef CINCH_TRANSPORTS_VERBS_H_
#define CINCH_TRANSPORTS_VERBS_H_

#include <infiniband/verbs.h>
#include <sys/types.h>

#include "transports/link.h"
#include "transports/steady.h"

enum {
    CINCH_VERBS_RAILS = 4,    /* the most that a link uses */
    CINCH_VERBS_SLOTS = 32,   /* of a ring */
    CINCH_VERBS_DIRECT = 4,   /* messages placed directly that are under way */
    CINCH_VERBS_RECEIVES = 64 /* posted per queue pair: more than what a peer may have under way,
                                 which is its slots, an end, a grant and a refusal for each direct
                                 message, credits for each quarter of a ring, and the farewell */
};

/* What a rail can do beyond its port's attributes, and what this communicator has there. */
typedef struct cinch_verbs_rail {
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    struct ibv_mr *mr; /* of the block */
    bool armed;        /* the channel will tell of the next completion */
    uint8_t port;
    int gid_index;
    union ibv_gid gid;
    struct ibv_port_attr about;
    char name[72]; /* "mlx5_0:1" */
} cinch_verbs_rail;

/* A steady memory that is registered with all rails. */
typedef struct cinch_verbs_memory {
    cinch_steady steady;
    struct ibv_mr *mr[CINCH_VERBS_RAILS];
} cinch_verbs_memory;

/* A rank's part of a communicator. Its links share it. */
struct cinch_verbs_link;
typedef struct cinch_verbs {
    const cinch_net *net;
    pid_t process;       /* that opened it */
    int rank, rails, fd; /* fd: readable where a channel has something */
    cinch_verbs_rail rail[CINCH_VERBS_RAILS];

    unsigned char *block; /* the links' pages, rings and places to send from */
    size_t block_bytes, link_bytes, slot_bytes;
    struct cinch_verbs_link **link; /* [links]; NULL: closed */
    int links, open;
    uint64_t polls;          /* that found something */
    uint64_t close_by;       /* until when closing waits for what was sent; 0: nobody closes */
    bool refused;            /* memory could not be registered, and that was said */
    size_t memories, room;   /* registered; of the array */
    uint64_t memory_changes; /* when they were compared with what is steady */
    cinch_verbs_memory *memory;
} cinch_verbs;

/* ---- ports ---- */

/* NULL, or why no port here can be used. */
const char *cinch_verbs_unusable(void);

/* Opens the ports that the settings name and this rank shall use: of `sharers` ranks on this host
 * it is number `index`. InvalidUsage: a setting that is none; SystemError: there is no such port,
 * or it cannot be opened. The caller closes what is open even so. */
cinchResult_t cinch_verbs_open_rails(cinch_verbs *verbs, const cinch_settings *settings, int index,
                                     int sharers);
void cinch_verbs_close_rails(cinch_verbs *verbs);

/* ---- memory ---- */

/* The registrations of the steady memory that has [data, data+bytes) in it, made where there are
 * none yet; NULL: it is not steady, or cannot be registered. Good until the next call. */
const cinch_verbs_memory *cinch_verbs_memory_of(cinch_verbs *verbs, const void *data, size_t bytes);
void cinch_verbs_forget_memory(cinch_verbs *verbs);

/* How often this process has registered callers' memory, a rail each time. Any thread. */
uint64_t cinch_verbs_registrations(void);

/* What to do about a registration that failed with errno err: a clause. */
const char *cinch_verbs_advice(int err);

/* ---- links ---- */

/* What a rank tells a peer of its end of their link. */
typedef struct cinch_verbs_end {
    uint32_t place; /* of the link's memory in the block, in units of its size */
    uint32_t number[CINCH_VERBS_RAILS], first_psn[CINCH_VERBS_RAILS];
} cinch_verbs_end;

/* And all peers of itself. */
typedef struct cinch_verbs_card {
    uint64_t block;
    uint32_t link_bytes;
    uint8_t rails; /* 0: it has none, and why says so */
    struct {
        uint32_t key, max_message;
        uint16_t lid;
        uint8_t mtu, ethernet;
        union ibv_gid gid;
    } rail[CINCH_VERBS_RAILS];
    char why[200];
} cinch_verbs_card;

/* A link of queue pairs that wait to be connected, place verbs->link[place]. NULL: a sentence says
 * why. */
struct cinch_verbs_link *cinch_verbs_link_new(cinch_verbs *verbs, const cinch_settings *settings,
                                              int place, int peer, bool checksum,
                                              cinch_verbs_end *end);

/* Connects it to the peer's end: false with a sentence. */
bool cinch_verbs_link_connect(struct cinch_verbs_link *link, const cinch_settings *settings,
                              const cinch_verbs_card *card, const cinch_verbs_end *mine,
                              const cinch_verbs_end *theirs);
cinch_link *cinch_verbs_link_head(struct cinch_verbs_link *link);

/* Frees it, without a word to the peer. */
void cinch_verbs_link_free(struct cinch_verbs_link *link);

/* Frees all, with the links that are left. */
void cinch_verbs_free(cinch_verbs *verbs);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the rendezvous share: meeting points, frames, and the server's entrances. */
#ifndef CINCH_TRANSPORTS_RENDEZVOUS_WIRE_H_
#define CINCH_TRANSPORTS_RENDEZVOUS_WIRE_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transports/address.h"
#include "transports/handshake.h"

#define CINCH_TOKEN_BYTES 16
#define CINCH_ID_ADDRESSES 3
#define CINCH_MEETING_ADDRESSES 8
#define CINCH_GATHER_MAX_BYTES (1u << 20)
#define CINCH_RANKS_MAX 65536

typedef enum {
    CINCH_MEET_OWN = 1, /* in the process that made the id */
    CINCH_MEET_HOST,    /* CINCH_COMM_ID: in rank 0's, as in the following */
    CINCH_MEET_FILE,
    CINCH_MEET_REUNION /* of ranks that were together before: may be used again and again */
} cinch_meeting_kind;

/* A meeting point: what a unique id names. The token is public, the secret is not. */
typedef struct cinch_meeting {
    cinch_meeting_kind kind;
    uint32_t index; /* of cinchGetUniqueId calls with CINCH_COMM_ID */
    bool has_secret;
    uint8_t token[CINCH_TOKEN_BYTES];
    uint8_t secret[CINCH_SECRET_BYTES];
    char host[256]; /* CINCH_MEET_HOST */
    uint16_t port;  /* CINCH_MEET_HOST; 0: this host only */
    char path[512]; /* CINCH_MEET_FILE */
    cinch_address address[CINCH_MEETING_ADDRESSES];
    int addresses;
    /* CINCH_MEET_REUNION, what the server needs. */
    int nranks, listener;
    uint32_t member;
    const char *left_out;
} cinch_meeting;

/* The meeting point of an id; host and path come from the settings, as on every rank. */
cinchResult_t cinch_meeting_of(const cinch_settings *settings, const cinchUniqueId *id,
                               cinch_meeting *meeting);

/* An id of a reunion. */
void cinch_meeting_write(const cinch_meeting *meeting, cinchUniqueId *id);

/* out follows from label and parts, and tells nothing about them. */
void cinch_meeting_hash(uint8_t *out, size_t out_bytes, const char *label, const void *part,
                        size_t part_bytes, const void *part2, size_t part2_bytes);

/* The number of the next id that CINCH_COMM_ID gives in this process. */
uint32_t cinch_meeting_next_index(void);

/* Whether this rank may listen or connect beyond loopback. */
bool cinch_meeting_may_listen(const cinch_settings *settings, const cinch_meeting *meeting);

/* CINCH_INIT_TIMEOUT_MS, small enough to be added to a time. */
uint64_t cinch_meeting_timeout_ms(const cinch_settings *settings);

/* Looks up the addresses of CINCH_MEET_HOST that may be used; host: for listening. What is in the
 * way is said in note ("" if nothing). */
#define CINCH_NOTE_TEXT 256
void cinch_meeting_resolve(const cinch_settings *settings, cinch_meeting *meeting, bool host,
                           char note[CINCH_NOTE_TEXT]);

/* CINCH_MEET_FILE: writes token, secret and addresses for the others; forget removes the file. */
cinchResult_t cinch_meeting_publish(const cinch_meeting *meeting);
void cinch_meeting_forget(const cinch_meeting *meeting);

/* Reads that file: *found is false where it is not there yet. Fails where it cannot be trusted. */
cinchResult_t cinch_meeting_read(cinch_meeting *meeting, bool *found);

/* For the error texts: "CINCH_COMM_ID 10.0.0.1:5000", never with the secret. */
const char *cinch_meeting_name(const cinch_meeting *meeting, char *text, size_t room);

/* Frames: a head and a body, all numbers little-endian. */
#define CINCH_FRAME_MAGIC 0x31565243u /* CRV1 */
typedef enum {
    CINCH_FRAME_HELLO = 1, /* rank to server: cinch_hello, settings text, refusal, and in a reunion
                              who is left out, each with NUL */
    CINCH_FRAME_GATHER,    /* rank to server: this rank's part */
    CINCH_FRAME_ABORT,     /* rank to server: why, no NUL */
    CINCH_FRAME_LEAVE,     /* rank to server: how many collective calls it has made, no NUL */
    CINCH_FRAME_GO,        /* server to rank: cinch_go */
    CINCH_FRAME_FAILED,    /* server to rank: code (4 bytes), sentence, no NUL; InProgress: come
                              again, in a reunion */
    CINCH_FRAME_GATHERED,  /* server to rank: all parts */
    CINCH_FRAME_PARTING,   /* server to rank: its process may now end in good order */
    CINCH_FRAME_ASK,       /* rank to server: cinch_ask, and a sentence, no NUL */
    CINCH_FRAME_STANDING,  /* rank to server: the round (8 bytes), and its standing, no NUL */
    CINCH_FRAME_GONE,      /* rank to server: a rank (4 bytes) whose process has ended */
    CINCH_FRAME_QUERY,     /* server to rank: the round (8 bytes): how does it stand? */
    CINCH_FRAME_ANSWER     /* server to rank: what came of its question, no NUL */
} cinch_frame_type;

typedef struct cinch_frame {
    uint32_t magic, type;
    uint64_t bytes; /* of the body */
} cinch_frame;

#define CINCH_PROTOCOL 2
typedef struct cinch_hello {
    uint32_t protocol, rank, nranks;
    uint32_t member;              /* in a reunion: the old rank */
    uint64_t left_ms, timeout_ms; /* until this rank gives up; its whole time */
    char release[16];
} cinch_hello;

typedef struct cinch_go {
    int32_t host_rank; /* a rank in the server's process; -1: none, and the process may end */
    uint32_t unused;
    uint8_t salt[16]; /* tells the secrets of repeated reunions apart */
} cinch_go;

typedef struct cinch_ask {
    uint32_t kind; /* cinch_question */
    int32_t peer;  /* with whom something is wrong, -1: nobody in particular */
} cinch_ask;

/* A standing is text: a line of numbers, CALLS INSIDE WAITS RECEIVES INDEX (see cinch_standing); a
 * line that says what the rank does; one with how many messages it has posted, to rank 0 and from
 * it, to rank 1 and so on, or nothing; and a line for each of its last collective calls, its number
 * and what it was. */
#define CINCH_STANDING_MAX_BYTES (1u << 18)

_Static_assert(sizeof(cinch_frame) == 16 && sizeof(cinch_hello) == 48 && sizeof(cinch_go) == 24,
               "wire layouts have no padding");

#define CINCH_HELLO_MAX_BYTES (1u << 18)

/* What a connection by unix socket or TCP begins with. */
#define CINCH_PREFACE_BYTES 24
void cinch_preface_make(const uint8_t token[CINCH_TOKEN_BYTES],
                        uint8_t preface[CINCH_PREFACE_BYTES]);
bool cinch_preface_read(const uint8_t preface[CINCH_PREFACE_BYTES],
                        uint8_t token[CINCH_TOKEN_BYTES]);

cinch_frame cinch_frame_make(cinch_frame_type type, uint64_t bytes);

/* The abstract unix name of a meeting point for this uid; returns the address's length. */
struct sockaddr_un;
socklen_t cinch_meeting_unix(const uint8_t token[CINCH_TOKEN_BYTES], struct sockaddr_un *address);

/* The server: a thread in this process that ends by itself. It listens at the meeting's addresses:
 * those without a port get one, or are dropped; those with one are tried until all ranks have
 * joined. note: what else to say where ranks stay missing. */
typedef struct cinch_server cinch_server;
cinchResult_t cinch_server_start(cinch_meeting *meeting, uint64_t timeout_ms, const char *note);

/* Ends this process's server for the token, where its ranks have not all joined yet, or still waits
 * for ranks that shall hear of its failure. why: what ranks are told, of which `more` are on their
 * way, or NULL. */
void cinch_server_cancel(const uint8_t token[CINCH_TOKEN_BYTES], const char *why, int more);

/* Takes a seat with this process's server for the token: a connected descriptor, and *server, which
 * wants cinch_server_exit after that was closed. False: there is no such server here. */
bool cinch_server_enter(const uint8_t token[CINCH_TOKEN_BYTES], int *fd, cinch_server **server);

/* Whether this process had a server for the token, which has ended: nobody can meet there again. */
bool cinch_server_is_over(const uint8_t token[CINCH_TOKEN_BYTES]);

/* Gives the seat up; where it was the last of all, the server's thread has ended on return. */
void cinch_server_exit(cinch_server *server);

struct cinch_rendezvous;

/* Connects to the meeting point, again and again until deadline_ns. fd (cinch_close), and server
 * where it is in this process, else NULL. rank is for the sentences. seat: NULL, or it ends when
 * the seat's waits are cancelled. */
cinchResult_t cinch_meeting_reach(const cinch_settings *settings, cinch_meeting *meeting, int rank,
                                  uint64_t deadline_ns, const struct cinch_rendezvous *seat,
                                  int *fd, cinch_server **server);

/* The one sentence about that. */
cinchResult_t cinch_meeting_cancelled(void);

/* What a seat keeps for reunions. */
typedef struct cinch_standby {
    int listener;                            /* -1: none */
    uint8_t (*address)[CINCH_ADDRESS_BYTES]; /* [nranks], or NULL: nobody has one */
} cinch_standby;
struct cinch_rendezvous;
cinch_standby *cinch_rendezvous_standby(const struct cinch_rendezvous *rendezvous);

/* For the exchange of descriptors. */
void cinch_rendezvous_place(const struct cinch_rendezvous *rendezvous, int *rank, int *nranks,
                            uint64_t *timeout_ms);

/* What tests change. */
typedef struct cinch_rendezvous_tuning {
    int hide; /* 1: unix sockets, as another network namespace does; 2: in-memory seats too */
    unsigned stranger_ms; /* how long a connection may take to prove the secret and say hello */
    unsigned linger_ms;   /* how long late ranks may still come and hear why it failed */
    unsigned settle_ms;   /* the same, for more ranks than the smallest count that one names */
} cinch_rendezvous_tuning;
extern cinch_rendezvous_tuning cinch_rendezvous_tune;

#endif

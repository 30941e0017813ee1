/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the meeting point's server: its connections, and the rules that they follow.
 *
 * rendezvous_server.c starts and ends servers, rendezvous_serve.c moves bytes, and
 * rendezvous_rules.c decides what frames mean. Everything but `handed`, `seats_here`, `ended`,
 * `cancel`, `why` and `more` belongs to the server's thread. */
#ifndef CINCH_TRANSPORTS_RENDEZVOUS_SERVER_H_
#define CINCH_TRANSPORTS_RENDEZVOUS_SERVER_H_

#include <pthread.h>

#include "transports/rendezvous_wire.h"

enum {
    CINCH_STRANGERS_MAX = 128,    /* connections that have proved nothing yet */
    CINCH_STRANGER_LINES_MAX = 10 /* log lines about them */
};

/* Bytes on their way to one or more ranks. */
typedef struct cinch_packet {
    int uses;
    size_t bytes;
    unsigned char data[];
} cinch_packet;

typedef struct cinch_queued {
    struct cinch_queued *next;
    cinch_packet *packet;
    size_t sent;
} cinch_queued;

typedef enum {
    CINCH_CONN_PREFACE, /* waits for the token */
    CINCH_CONN_PROOF,   /* proves the secret */
    CINCH_CONN_HELLO,   /* may say hello */
    CINCH_CONN_SEAT,    /* is a rank */
    CINCH_CONN_ASTRAY,  /* asks for another server */
    CINCH_CONN_CLOSING, /* gets what is queued, then nothing */
    CINCH_CONN_DEAD
} cinch_conn_state;

typedef struct cinch_conn {
    struct cinch_conn *next;
    int fd;
    size_t slot;     /* in the table of poll(2) */
    int pid, end_fd; /* of a process of this host: 0 where it is not known, and its pidfd or -1 */
    size_t end_slot;
    cinch_conn_state state;
    bool memory;          /* a thread of this process */
    bool want_write;      /* the proof waits to write */
    bool write_closed;    /* CLOSING: all is sent */
    uint64_t deadline_ns; /* 0: none */
    char from[CINCH_ADDRESS_TEXT];
    uint8_t preface[CINCH_PREFACE_BYTES];
    size_t preface_got;
    cinch_proof proof;

    /* The frame that is coming in. The body is allocated when the head was checked. */
    cinch_frame head;
    size_t head_got, body_got;
    unsigned char *body;

    cinch_queued *out, **out_end;

    /* From the hello on. settings and what follows point into hello_body. */
    cinch_hello hello;
    unsigned char *hello_body;
    const char *settings, *refusal, *left_out;
    unsigned char *part; /* of the all-gather under way; NULL: not given yet */
    uint64_t part_bytes;

    /* See rendezvous_judge.c. */
    int question;     /* that it has asked, 0: none */
    int peer;         /* of it */
    uint64_t asked;   /* the first round that can tell */
    char *sentence;   /* of the question */
    char *standing;   /* its answer in this round */
    bool unanswered;  /* it was asked how it stands, and has not said so */
    uint64_t queried; /* the round of that */
} cinch_conn;

typedef enum { CINCH_FORMING, CINCH_FORMED, CINCH_FAILED } cinch_server_state;

struct cinch_server {
    struct cinch_server *next; /* all servers of this process */
    uint8_t token[CINCH_TOKEN_BYTES], secret[CINCH_SECRET_BYTES];
    cinch_meeting_kind kind;
    char note[CINCH_NOTE_TEXT];
    pthread_t thread;
    int pid, wake_fd;
    uint32_t member; /* a reunion: the old number of the rank that hosts it, */
    char *left_out;  /* and whom that leaves out; else NULL */
    uint32_t *heard; /* and the old numbers of those that were told of its failure */
    size_t heards;

    /* Under the process's lock. */
    cinch_conn *handed;
    int seats_here;
    bool open; /* neither formed nor failed */
    bool ended, cancel;
    char why[CINCH_ERROR_TEXT]; /* of the cancelling; empty: none was given */
    int more;                   /* ranks that shall hear it */

    bool cancelled; /* the thread has seen it */
    bool starved;   /* there was no memory for what a rank says */
    int unix_fd;
    cinch_address listen[CINCH_MEETING_ADDRESSES];
    int listen_fd[CINCH_MEETING_ADDRESSES];
    int listeners, unbound; /* unbound: those that are still tried */
    int bind_error;
    uint64_t accept_after_ns; /* a pause, where descriptors are short */

    cinch_server_state state;
    cinch_conn *conns;
    int strangers, stranger_lines;
    uint64_t deadline_ns, timeout_ms; /* of the rank that gives up first */
    int hellos;                       /* ranks that said hello, also those that are gone */
    uint32_t fewest, most;            /* what they say about nranks */
    uint64_t settled_ns;              /* when `fewest` have come, but not `most` */
    int nranks;                       /* formed */
    int gone;                         /* of them have left */
    int last_gone;                    /* rank */
    int gathered;                     /* parts that are here */
    bool parted;                      /* PARTING was sent */
    uint64_t gather_ns;               /* when their all-gather is given up */
    cinch_packet *verdict;            /* failed: for those that come later */
    int awaited;                      /* how many those are */
    uint64_t linger_ns;               /* until when they are waited for */
    uint64_t round;    /* of asking all ranks how they stand: the last one's number */
    uint64_t round_ns; /* until when it waits; 0: none is under way */
    uint64_t rest_ns;  /* before then no other begins without need */
    char *quarrel;     /* something differs, as the server itself has seen; or NULL */
    uint64_t *left_at; /* [nranks] 1 + calls of a rank that has left, 0: it is there */
};

/* rendezvous_serve.c: the thread. */
void *cinch_server_run(void *server);
void cinch_conn_free(cinch_conn *conn);

/* Queues a packet and sends what goes at once; the packet is not consumed. */
void cinch_conn_send(cinch_conn *conn, cinch_packet *packet);
cinch_packet *cinch_packet_make(cinch_frame_type type, size_t bytes); /* body: data + the head */
void cinch_packet_drop(cinch_packet *packet);
void cinch_server_close_listeners(cinch_server *server);

/* rendezvous_rules.c. */
bool cinch_frame_allowed(const cinch_conn *conn);                /* by its head */
void cinch_rules_frame(cinch_server *server, cinch_conn *conn);  /* a whole frame is here */
void cinch_rules_lost(cinch_server *server, cinch_conn *conn);   /* a rank's connection ended */
void cinch_rules_time(cinch_server *server, uint64_t now);       /* once per round */
uint64_t cinch_rules_next(const cinch_server *server);           /* the next such; 0: none */
void cinch_rules_end(cinch_server *server);                      /* nothing comes after it */
bool cinch_rules_done(const cinch_server *server, uint64_t now); /* nobody is left */

/* rendezvous_server.c: moves a connection to another server of this process whose token it shows;
 * false where there is none. */
bool cinch_server_route(const cinch_server *from, const uint8_t token[CINCH_TOKEN_BYTES],
                        cinch_conn *conn);
cinch_conn *cinch_server_take_handed(cinch_server *server);

/* rendezvous_judge.c: who has not come, and who calls what the others do not. */
void cinch_judge_ask(cinch_server *server, cinch_conn *conn);      /* a frame of a rank */
void cinch_judge_standing(cinch_server *server, cinch_conn *conn); /* likewise */
void cinch_judge_left(cinch_server *server, const cinch_conn *conn);
void cinch_judge_differs(cinch_server *server, const char *sentence); /* the server's own finding */
void cinch_judge_time(cinch_server *server, uint64_t now);
uint64_t cinch_judge_next(const cinch_server *server); /* 0: none */

/* Every rank fails with the sentence. */
void cinch_rules_fail(cinch_server *server, cinchResult_t code, const char *sentence);

/* "rank 2", "ranks 2,5-7", of the numbers that are in the order. */
void cinch_ranks_list(const uint32_t *ranks, size_t count, char *text, size_t room);

/* Nobody can join any more: a reunion's next server may begin. */
void cinch_server_shut(cinch_server *server);

/* Ends, unless something was handed over just now: false. On true all is closed and the server may
 * not be touched any more. */
bool cinch_server_finish(cinch_server *server);

#endif

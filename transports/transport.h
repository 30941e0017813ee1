/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between two ranks, whatever carries them.
 *
 * A link is one rank's end of the connection to one peer, for one communicator. Messages of a
 * direction arrive in the order in which they were sent, and the receiver posts its receives in
 * the same order; tags are compared, so that a difference is an error instead of garbage. */
#ifndef CINCH_TRANSPORTS_TRANSPORT_H_
#define CINCH_TRANSPORTS_TRANSPORT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/settings.h"
#include "transports/rendezvous.h"

/* One message. The caller's memory, from the post until done; data too. Not initialized beyond the
 * fields that the caller sets. */
typedef struct cinch_msg {
    void *data;   /* set by the caller */
    size_t bytes; /* set by the caller; a receive: the room, and when done what came */
    uint64_t tag; /* set by the caller */
    bool exact;   /* set by the caller; a receive: less than the room is an error too */
    size_t moved; /* the transport's, as all below but done */
    struct cinch_msg *next;
    uint32_t check;
    bool done; /* set by the transport */
} cinch_msg;

typedef struct cinch_link cinch_link;

typedef struct cinch_link_ops {
    const char *name; /* of the transport: "shm", "tcp" */

    /* Posts a message; never blocks, never allocates, may complete it at once, or leave all to
     * progress. A send is done when its data may be overwritten; bytes may be 0. A receive's memory
     * may be written beyond what comes, up to its room. */
    void (*send)(cinch_link *link, cinch_msg *msg);
    void (*recv)(cinch_link *link, cinch_msg *msg);

    /* Moves what can be moved now. Success where there was nothing to do; else the link has failed
     * for good and the sentence says why, naming the peer. */
    cinchResult_t (*progress)(cinch_link *link);

    /* For sleeping until progress can move something: fills fd and events for poll(2), or returns
     * false where the link has no descriptor (the caller then sleeps a short while only). */
    bool (*poll_fd)(cinch_link *link, int *fd, short *events);

    void (*close)(cinch_link *link); /* frees; posted messages are forgotten */

    /* A call has failed: what is posted is its caller's again, and neither the peer nor a device
     * may touch it from here on. The link is of no use any more. NULL: only progress touches it. */
    void (*stop)(cinch_link *link);
} cinch_link_ops;

/* The head of every link; transports put their own fields behind it. */
struct cinch_link {
    const cinch_link_ops *ops;
    int peer;
    int pending; /* posted and not done, both directions: progress is called only where > 0 */
    uint64_t wire_bytes; /* handed over so far, our headers included */
    uint64_t *finished;  /* counts messages that are done: the net's, or one of the link's own */

    /* It failed because of a message that was not the expected one. */
    struct {
        bool seen;
        uint64_t expected, tag, room, bytes;
    } odd;
};

/* All of one rank's links, and the shared-memory window where local ranks have one. */
struct cinch_shm;
struct cinch_steady_list;
typedef struct cinch_net {
    int rank, nranks;
    cinch_link **link;                /* [nranks], own is NULL */
    uint64_t finished;                /* messages that are done, of all links */
    uint8_t *local;                   /* [nranks]: 1 for ranks on this host, itself included */
    struct cinch_shm *shm;            /* windows of the local ranks; NULL where there are none */
    struct cinch_steady_list *steady; /* what was registered, see transports/steady.h; or NULL */
} cinch_net;

typedef struct cinch_net_options {
    size_t stage_bytes; /* of the window that each rank offers, see transports/shm.h */
    bool checksum;      /* CINCH_CHECKSUM */
    void *heap;         /* this process's heap of mappable memory (base/heap.h), or NULL */
    size_t heap_bytes;
    int heap_fd;
} cinch_net_options;

/* Connects to all ranks: finds out who is on this host (settings->hostid), and opens for each pair
 * the first transport of settings->transport ("auto", "shm,tcp", "^tcp", ...) that can carry it.
 * Collective. InvalidUsage: no transport is left for a pair, or a name that is none. */
cinchResult_t cinch_net_open(const cinch_settings *settings, cinch_rendezvous *rendezvous, int rank,
                             int nranks, const cinch_net_options *options, cinch_net **out);
void cinch_net_close(cinch_net *net);

/* Of this host (CINCH_HOSTID): the same number on all of its ranks, another elsewhere. */
uint64_t cinch_net_host(const cinch_settings *settings);

/* Checks a CINCH_TRANSPORT value without opening anything: a clause in why on failure. */
bool cinch_transport_parse(const char *list, char *why, size_t room);

/* What a transport opens links for. */
typedef struct cinch_opening {
    const cinch_settings *settings;
    cinch_rendezvous *rendezvous;
    const cinch_net_options *options;
    cinch_net *net; /* rank, nranks and local are filled */
    int rank, nranks;
    const uint8_t *want; /* [nranks] */
} cinch_opening;

/* The transports, a row each. */
typedef struct cinch_transport {
    const char *name;
    const char *(*unusable)(void); /* NULL: usable here; else why not, for `cinch info` */

    /* Opens links to every peer with want[peer], into net->link[peer]. Collective over all ranks of
     * the communicator, also where want is all 0. */
    cinchResult_t (*open)(
        const cinch_opening *job); /* NULL: not in this build, and unusable says so */

    /* Why it is used here only where CINCH_TRANSPORT names it, or NULL, as for no function: nothing
     * speaks against it. */
    const char *(*unwanted)(void);
} cinch_transport;
const cinch_transport *
cinch_transport_at(int index); /* in order of preference; NULL past the end */

#endif

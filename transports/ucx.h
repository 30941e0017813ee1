/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the ucx transport: the library that is loaded, a communicator's worker, its links.
 *
 * libcinch is built against UCX's headers and does not depend on libucp: who never uses this
 * transport never has UCX, its threads and its hooks in the process.
 *
 * A message is one active message of UCX, with a cinch_ucx_header ahead. A short one comes with its
 * data, a long one as an announcement that the receiver answers when the receive is posted, so that
 * its data goes into place. Messages that came before their receive are kept by UCX; how many there
 * can be is bounded by CINCH_UCX_WINDOW, how much each has by CINCH_UCX_EAGER. */
#ifndef CINCH_TRANSPORTS_UCX_H_
#define CINCH_TRANSPORTS_UCX_H_

#include <ucp/api/ucp.h>

#include "transports/link.h"

/* ---- the library ---- */

#define CINCH_UCX_FUNCTIONS(X)                                                                     \
    X(ucp_get_version)                                                                             \
    X(ucp_config_read)                                                                             \
    X(ucp_config_print)                                                                            \
    X(ucp_config_modify)                                                                           \
    X(ucp_config_release)                                                                          \
    X(ucp_init_version)                                                                            \
    X(ucp_cleanup)                                                                                 \
    X(ucp_context_print_info)                                                                      \
    X(ucp_worker_create)                                                                           \
    X(ucp_worker_destroy)                                                                          \
    X(ucp_worker_query)                                                                            \
    X(ucp_worker_release_address)                                                                  \
    X(ucp_worker_progress)                                                                         \
    X(ucp_worker_get_efd)                                                                          \
    X(ucp_worker_arm)                                                                              \
    X(ucp_worker_set_am_recv_handler)                                                              \
    X(ucp_ep_create)                                                                               \
    X(ucp_ep_print_info)                                                                           \
    X(ucp_ep_close_nbx)                                                                            \
    X(ucp_ep_flush_nbx)                                                                            \
    X(ucp_am_send_nbx)                                                                             \
    X(ucp_am_recv_data_nbx)                                                                        \
    X(ucp_am_data_release)                                                                         \
    X(ucp_request_check_status)                                                                    \
    X(ucp_request_free)                                                                            \
    X(ucs_status_string)

typedef struct cinch_ucx_library {
#define X(name) __typeof__(&name) name;
    CINCH_UCX_FUNCTIONS(X)
#undef X
} cinch_ucx_library;

/* Loads libucp.so.0, once in a process: NULL where that fails, or it is older than 1.13; why is
 * then a sentence that lasts. Any thread. */
const cinch_ucx_library *cinch_ucx_load(const char **why);

/* A context of this process, with UCX's own settings; but where sockets are all that goes beyond
 * this host, with ucx_library.c's for them where the user has left them open. The caller's,
 * ucp_cleanup. */
ucs_status_t cinch_ucx_context(const cinch_ucx_library *ucx, ucp_context_h *context);

/* What an object of UCX uses, read from what it prints of itself. */
typedef struct cinch_ucx_means {
    bool tcp;    /* sockets: what is sent may stay in this process until it calls UCX again */
    bool better; /* anything beyond sockets and the memory of one host */
} cinch_ucx_means;
cinch_ucx_means cinch_ucx_context_means(const cinch_ucx_library *ucx, ucp_context_h context);
cinch_ucx_means cinch_ucx_ep_means(const cinch_ucx_library *ucx, ucp_ep_h ep);

/* ---- what goes over the wire ---- */

#define CINCH_UCX_WINDOW 32u     /* messages sent that the peer has not taken; a power of two */
#define CINCH_UCX_EAGER 32768u   /* longer ones wait for their receive; not over sockets */
#define CINCH_UCX_RANKS 0xffffff /* what the field has room for */

enum { CINCH_UCX_MESSAGE, CINCH_UCX_NOTE, CINCH_UCX_PROOF, CINCH_UCX_IDS };

/* Flags. A message that ASKs is answered, when it is taken, by a note with TAKEN or by a message of
 * the peer's that tells of it, whichever comes first. BYE: there is nothing beyond `number`. */
enum { CINCH_UCX_ASK = 1, CINCH_UCX_BYE = 2 };

typedef struct cinch_ucx_header {
    uint64_t tag;
    uint64_t token; /* of this direction of this link, known to nobody who has not proved himself */
    uint32_t number; /* of this message, counted from 0 */
    uint32_t taken;  /* so many of the peer's have been taken */
    uint32_t rank;   /* the sender's, with flags above it */
    uint32_t check;
} cinch_ucx_header;
_Static_assert(sizeof(cinch_ucx_header) == 32, "headers are bytes on a wire");

/* ---- a communicator's worker ---- */

typedef struct cinch_ucx_link cinch_ucx_link;

/* What an endpoint's callback for errors is given. */
typedef struct cinch_ucx_end {
    struct cinch_ucx_worker *worker;
    int peer;
    ucs_status_t broken; /* UCS_OK: not */
} cinch_ucx_end;

/* Shared by the links, and by whoever opens them; the last of them ends it, once all peers have
 * left too. One thread at a time. */
typedef struct cinch_ucx_worker {
    const cinch_ucx_library *ucx;
    ucp_context_h context;
    ucp_worker_h worker;
    int users;
    struct cinch_ucx_worker *next; /* among those that wait for their peers to leave */
    uint64_t since;
    pid_t process;
    int rank, nranks;
    bool checksum;
    int fd;                          /* readable when UCX has something to do, once it was armed */
    int always;                      /* a descriptor that is always readable */
    uint64_t rounds;                 /* of progress */
    cinch_ucx_link **link;           /* [nranks] */
    cinch_ucx_link *busy;            /* what callbacks found to do */
    cinch_ucx_end *end;              /* [nranks] */
    ucp_am_recv_callback_t on_proof; /* while the transport opens */
    void *proofs;
} cinch_ucx_worker;

cinchResult_t cinch_ucx_worker_new(int rank, int nranks, bool checksum, cinch_ucx_worker **out);
void cinch_ucx_worker_drop(cinch_ucx_worker *w); /* NULL is nothing */

/* Lets UCX work, and all links after it. Must not be called in a callback of UCX. */
void cinch_ucx_worker_progress(cinch_ucx_worker *w);

/* For poll(2): a descriptor that becomes readable when there is something to do. */
int cinch_ucx_worker_fd(cinch_ucx_worker *w);

/* Closes an endpoint; at_once: what is under way is given up, and the peer is not waited for.
 * Returns after at most about a second. */
void cinch_ucx_ep_close(cinch_ucx_worker *w, ucp_ep_h ep, bool at_once);

/* An endpoint to a peer; peer_mode: with its failures told. */
ucs_status_t cinch_ucx_ep_open(cinch_ucx_worker *w, int peer, const void *address, bool peer_mode,
                               ucp_ep_h *ep);

/* ---- links ---- */

/* UCX's callbacks on the worker: a message or a note, by the header's sender. */
ucs_status_t cinch_ucx_on_message(void *worker, const void *header, size_t header_bytes, void *data,
                                  size_t bytes, const ucp_am_recv_param_t *param);
ucs_status_t cinch_ucx_on_note(void *worker, const void *header, size_t header_bytes, void *data,
                               size_t bytes, const ucp_am_recv_param_t *param);

/* The rest of a link's work, outside of callbacks. */
void cinch_ucx_link_step(cinch_ucx_link *link);
cinch_ucx_link *cinch_ucx_link_next_busy(cinch_ucx_link *link); /* takes it out of the list */

/* Whether a closed link's peer has left too. */
bool cinch_ucx_link_over(const cinch_ucx_link *link);

/* Closes its endpoint; its memory stays until UCX has nothing more to say of it. */
void cinch_ucx_link_end(cinch_ucx_link *link);

/* The endpoint's failure, as its callback told. */
void cinch_ucx_link_broken(cinch_ucx_link *link, ucs_status_t status);

/* A link over an endpoint whose peer has proved itself; both are the link's from here on, the
 * worker as one of its users. NULL: out of memory, and nothing has changed hands. */
typedef struct cinch_ucx_tokens {
    uint64_t out, in;
} cinch_ucx_tokens;
cinch_ucx_link *cinch_ucx_link_new(cinch_ucx_worker *w, int peer, ucp_ep_h ep, bool peer_mode,
                                   cinch_ucx_tokens tokens);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Connects the pairs of ranks that talk over UCX: workers' addresses go through the rendezvous, and
 * over each new endpoint both sides prove that they know the communicator's secret. */
#include <dirent.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "transports/ucx.h"

#define ADDRESS_MOST 65536u     /* bytes of a worker's address */
#define CONNECT_NS 60000000000u /* for all pairs; then who is missing counts as out of reach */
#define TICK_MS 100

typedef struct card {
    uint64_t cookie; /* random: who knows it was told by the rendezvous, or has listened in */
    uint64_t address_bytes;
} card;

typedef struct proof_header {
    uint64_t cookie; /* the receiver's */
    uint32_t rank;
    uint32_t settled; /* 1: not of the proof; all that UCX had to do for the pair is done here */
} proof_header;

/* What ranks tell each other of a pair. */
enum { OUT_OF_REACH, WITHOUT_ERRORS, WITH_ERRORS };

/* PROVED: the peer is who it is said to be. SETTLED: and nothing is left to be done for the pair
 * that would need this process. */
typedef enum { UNUSED, PROVING, PROVED, SETTLED, BROKEN } phase;

enum { TURNS = 2 }; /* messages of each side of a proof */

typedef struct pair {
    ucp_ep_h ep;
    bool peer_mode;
    phase phase;
    int waits; /* requests of UCX under way */
    cinch_proof proof;
    proof_header header, last;
    bool settled; /* the peer */
    uint8_t out[TURNS][CINCH_PROOF_HELLO_BYTES], in[TURNS][CINCH_PROOF_HELLO_BYTES];
    size_t in_bytes[TURNS];
    int said, heard, read;
    const cinch_ucx_library *ucx;
} pair;

typedef struct opening {
    const cinch_opening *job;
    bool named; /* whatever it uses, the user wants it */
    const cinch_ucx_library *ucx;
    cinch_ucx_worker *worker;
    card *cards;        /* [nranks] */
    uint8_t *addresses; /* [nranks][longest] */
    size_t longest;
    uint8_t *reach;  /* [nranks] */
    uint8_t *matrix; /* [nranks][nranks]: all ranks' `reach` */
    pair *pairs;     /* [nranks] */
} opening;

/* ---- whether to use it ---- */

static const char *ucx_unusable(void) {
    const char *why;
    if (!cinch_handshake_available())
        return "built without libsodium, so ranks could not prove to each other who they are";
    cinch_ucx_load(&why);
    return why;
}

static bool any_device(void) {
    DIR *dir = opendir("/sys/class/infiniband");
    bool found = false;
    if (!dir) return false;
    for (const struct dirent *one; !found && (one = readdir(dir));) found = one->d_name[0] != '.';
    closedir(dir);
    return found;
}

/* UCX puts hooks into the process's memory functions: it is not loaded for the question alone. */
static const char *ucx_unwanted(void) {
    if (!any_device()) return "there is no RDMA device here for UCX to use";
    const cinch_ucx_library *ucx = cinch_ucx_load(NULL);
    ucp_context_h context;
    if (!ucx || cinch_ucx_context(ucx, &context) != UCS_OK) return "UCX cannot be opened here";
    bool better = cinch_ucx_context_means(ucx, context).better;
    ucx->ucp_cleanup(context);
    return better ? NULL : "UCX has found nothing here that is better than tcp";
}

/* ---- endpoints ---- */

static cinchResult_t no_memory(const opening *o) {
    return cinch_fail(cinchSystemError, "rank %d is out of memory while connecting", o->job->rank);
}

static cinchResult_t ucx_failed(const opening *o, const char *what, ucs_status_t status) {
    return cinch_fail(cinchSystemError, "rank %d %s: UCX says %s", o->job->rank, what,
                      o->ucx->ucs_status_string(status));
}

/* Who wants nobody takes part in what ranks tell each other, and needs no UCX for that. */
static bool wants(const opening *o) {
    return memchr(o->job->want, 1, (size_t)o->job->nranks) != NULL;
}

/* All ranks' addresses, each padded to the longest; none of a rank without a worker. */
static cinchResult_t exchange_addresses(opening *o) {
    ucp_worker_attr_t attr = {.field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS |
                                            UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER};
    ucs_status_t status = o->worker ? o->ucx->ucp_worker_query(o->worker->worker, &attr) : UCS_OK;
    if (status != UCS_OK) return ucx_failed(o, "has no address", status);
    card mine = {.address_bytes = attr.address_length};
    uint8_t *padded = NULL;
    cinchResult_t result = cinch_random(&mine.cookie, sizeof mine.cookie);
    if (result == cinchSuccess)
        result = cinch_rendezvous_allgather(o->job->rendezvous, &mine, sizeof mine, o->cards);
    o->longest = 1;
    for (int r = 0; r < o->job->nranks && result == cinchSuccess; r++) {
        size_t bytes = o->cards[r].address_bytes;
        if (bytes > ADDRESS_MOST)
            result =
                cinch_fail(cinchSystemError, "rank %d's address has %zu bytes, %u are possible", r,
                           bytes, ADDRESS_MOST);
        else if (bytes > o->longest)
            o->longest = bytes;
    }
    if (result == cinchSuccess) {
        free(o->addresses);
        o->addresses = calloc((size_t)o->job->nranks, o->longest);
        padded = calloc(1, o->longest);
        if (!o->addresses || !padded) result = no_memory(o);
    }
    if (result == cinchSuccess) {
        if (o->worker) memcpy(padded, attr.address, attr.address_length);
        result = cinch_rendezvous_allgather(o->job->rendezvous, padded, o->longest, o->addresses);
    }
    free(padded);
    if (!o->worker) return result;
    o->ucx->ucp_worker_release_address(o->worker->worker, attr.address);
    if (result == cinchSuccess && attr.max_am_header < sizeof(cinch_ucx_header))
        return cinch_fail(cinchSystemError, "UCX has no room for a header of %zu bytes here",
                          sizeof(cinch_ucx_header));
    return result;
}

static void close_pair(opening *o, pair *p, bool at_once) {
    if (p->ep) cinch_ucx_ep_close(o->worker, p->ep, at_once && p->peer_mode);
    p->ep = NULL;
    p->phase = UNUSED;
}

/* How the pair can go, as both sides see it. */
static uint8_t common(const opening *o, int a, int b) {
    size_t n = (size_t)o->job->nranks;
    uint8_t one = o->matrix[(size_t)a * n + (size_t)b],
            other = o->matrix[(size_t)b * n + (size_t)a];
    return one < other ? one : other;
}

/* Opens an endpoint in that way, and says which way there is. */
static uint8_t try_endpoint(opening *o, int peer, bool peer_mode) {
    pair *p = &o->pairs[peer];
    p->peer_mode = peer_mode;
    ucs_status_t status = cinch_ucx_ep_open(
        o->worker, peer, o->addresses + (size_t)peer * o->longest, peer_mode, &p->ep);
    if (status != UCS_OK) {
        p->ep = NULL;
        cinch_debug("rank %d has no endpoint to rank %d %s: UCX says %s", o->job->rank, peer,
                    peer_mode ? "that tells of failures" : "at all",
                    o->ucx->ucs_status_string(status));
        return peer_mode ? WITHOUT_ERRORS : OUT_OF_REACH;
    }
    if (o->named || cinch_ucx_ep_means(o->ucx, p->ep).better)
        return peer_mode ? WITH_ERRORS : WITHOUT_ERRORS;
    close_pair(o, p, true);
    return OUT_OF_REACH;
}

static cinchResult_t open_worker(opening *o) {
    if (wants(o))
        CINCH_TRY(cinch_ucx_worker_new(o->job->rank, o->job->nranks, o->job->options->checksum,
                                       &o->worker));
    return exchange_addresses(o);
}

static cinchResult_t share_reach(opening *o) {
    return cinch_rendezvous_allgather(o->job->rendezvous, o->reach, (size_t)o->job->nranks,
                                      o->matrix);
}

/* Endpoints tell of failures where all of a pair's transports can. Where one cannot (UCX 1.13's
 * shared memory), that shows on one side only, maybe, and two endpoints to one peer are one too
 * many: so all ranks begin anew, knowing which pairs go without. */
static cinchResult_t open_endpoints(opening *o) {
    CINCH_TRY(open_worker(o));
    /* Where there is memory only, UCX would not just refuse, but say so on the user's terminal. */
    cinch_ucx_means means = {0};
    if (o->worker) means = cinch_ucx_context_means(o->ucx, o->worker->context);
    bool memory_only = !means.tcp && !means.better;
    for (int r = 0; r < o->job->nranks; r++)
        if (o->job->want[r]) o->reach[r] = memory_only ? WITHOUT_ERRORS : try_endpoint(o, r, true);
    CINCH_TRY(share_reach(o));
    bool anew = false;
    for (int a = 0; a < o->job->nranks; a++)
        for (int b = 0; b < a; b++) anew |= common(o, a, b) == WITHOUT_ERRORS;
    if (!anew) return cinchSuccess;
    for (int r = 0; r < o->job->nranks; r++) close_pair(o, &o->pairs[r], true);
    cinch_ucx_worker_drop(o->worker);
    o->worker = NULL;
    CINCH_TRY(open_worker(o));
    for (int r = 0; r < o->job->nranks; r++) {
        uint8_t way = o->job->want[r] ? common(o, o->job->rank, r) : OUT_OF_REACH;
        o->reach[r] = OUT_OF_REACH;
        if (way != OUT_OF_REACH && try_endpoint(o, r, way == WITH_ERRORS) == way) o->reach[r] = way;
    }
    return share_reach(o);
}

/* ---- proofs ---- */

static ucs_status_t on_proof(void *arg, const void *header, size_t header_bytes, void *data,
                             size_t bytes, const ucp_am_recv_param_t *param) {
    opening *o = arg;
    proof_header h;
    if (header_bytes != sizeof h || bytes > CINCH_PROOF_HELLO_BYTES ||
        (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV))
        return UCS_OK;
    memcpy(&h, header, sizeof h);
    if (h.cookie != o->cards[o->job->rank].cookie || h.rank >= (uint32_t)o->job->nranks)
        return UCS_OK;
    pair *p = &o->pairs[h.rank];
    p->settled |= h.settled;
    if (h.settled || p->phase != PROVING || p->heard == TURNS) return UCS_OK;
    memcpy(p->in[p->heard], data, bytes);
    p->in_bytes[p->heard++] = bytes;
    return UCS_OK;
}

static void on_request(void *request, ucs_status_t status, void *arg) {
    pair *p = arg;
    p->ucx->ucp_request_free(request);
    p->waits--;
    if (status != UCS_OK && p->phase != UNUSED) p->phase = BROKEN;
}

static void await(pair *p, ucs_status_ptr_t request) {
    if (UCS_PTR_IS_ERR(request))
        p->phase = BROKEN;
    else
        p->waits += request != NULL;
}

static ucp_request_param_t awaited(pair *p) {
    return (ucp_request_param_t){.op_attr_mask =
                                     UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
                                 .cb.send = on_request,
                                 .user_data = p};
}

/* UCX connects its ways one after the other, each with words of both sides, and some of them only
 * when something is sent that is not short. So a long message goes out, which the peer drops, and a
 * flush, which waits for the peer too: what comes later needs nothing of it. */
static void connect_ways(pair *p) {
    ucp_request_param_t param = awaited(p);
    await(p, p->ucx->ucp_ep_flush_nbx(p->ep, &param));
    param.op_attr_mask |= UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_AM_SEND_FLAG_RNDV;
    await(p, p->ucx->ucp_am_send_nbx(p->ep, CINCH_UCX_PROOF, &p->header, sizeof p->header, p->out,
                                     sizeof p->out, &param));
}

static void say(pair *p) {
    ucp_request_param_t param = awaited(p);
    size_t bytes = cinch_proof_give(&p->proof, p->out[p->said]);
    if (!bytes) return;
    await(p, p->ucx->ucp_am_send_nbx(p->ep, CINCH_UCX_PROOF, &p->header, sizeof p->header,
                                     p->out[p->said], bytes, &param));
    p->said++;
}

static cinchResult_t begin_proof(opening *o, int peer) {
    pair *p = &o->pairs[peer];
    int lower = o->job->rank < peer ? o->job->rank : peer,
        upper = o->job->rank < peer ? peer : o->job->rank;
    struct {
        uint64_t cookies[2];
        uint32_t lower, upper;
    } about = {{o->cards[lower].cookie, o->cards[upper].cookie}, (uint32_t)lower, (uint32_t)upper};
    p->ucx = o->ucx;
    p->phase = PROVING;
    p->header = (proof_header){o->cards[peer].cookie, (uint32_t)o->job->rank, 0};
    p->last = (proof_header){o->cards[peer].cookie, (uint32_t)o->job->rank, 1};
    if (!cinch_proof_begin(&p->proof, o->job->rank == lower,
                           cinch_rendezvous_secret(o->job->rendezvous), &about, sizeof about))
        return cinch_fail(cinchSystemError, "rank %d has no random numbers", o->job->rank);
    say(p);
    return cinchSuccess;
}

/* All is connected here; and before this rank turns to other things, there too. Where the second
 * word could begin, the first is out. */
static void settle(pair *p) {
    ucp_request_param_t param = awaited(p);
    p->phase = SETTLED;
    for (int i = 0; i < 2 && p->phase == SETTLED; i++)
        await(p, p->ucx->ucp_am_send_nbx(p->ep, CINCH_UCX_PROOF, &p->last, sizeof p->last, NULL, 0,
                                         &param));
}

/* One more step, where there is one. */
static cinchResult_t prove(opening *o, int peer) {
    pair *p = &o->pairs[peer];
    while (p->phase == PROVING && p->read < p->heard) {
        bool foreign = cinch_proof_take(&p->proof, p->in[p->read], p->in_bytes[p->read]) ==
                       CINCH_PROOF_FOREIGN;
        p->read++;
        if (!foreign) say(p); /* also to who is wrong, so that he knows */
        cinch_proof_state state = foreign ? CINCH_PROOF_FOREIGN : cinch_proof_stand(&p->proof);
        if (state == CINCH_PROOF_REFUSED || state == CINCH_PROOF_FOREIGN)
            return cinch_fail(cinchRemoteError,
                              "over UCX rank %d cannot prove to rank %d that it is of this "
                              "communicator",
                              peer, o->job->rank);
        if (state == CINCH_PROOF_HOLDS && p->phase == PROVING) {
            p->phase = PROVED;
            connect_ways(p);
        }
    }
    if (p->phase == PROVED && p->waits == 0) settle(p);
    if (o->worker->end[peer].broken != UCS_OK && p->phase != UNUSED) p->phase = BROKEN;
    return cinchSuccess;
}

static bool under_way(const pair *p) {
    return p->phase == PROVING || p->phase == PROVED ||
           (p->phase == SETTLED && (p->waits > 0 || !p->settled));
}

/* Sleeps until UCX or the rendezvous has something. */
static cinchResult_t wait_a_while(opening *o) {
    struct pollfd p[2] = {{.fd = cinch_ucx_worker_fd(o->worker), .events = POLLIN},
                          {.fd = cinch_rendezvous_fd(o->job->rendezvous), .events = POLLIN}};
    int ready = poll(p, 2, TICK_MS);
    CINCH_TRY(cinch_rendezvous_cancelled(o->job->rendezvous));
    if (ready == 0 || p[1].revents) CINCH_TRY(cinch_rendezvous_check(o->job->rendezvous));
    return cinchSuccess;
}

static cinchResult_t prove_all(opening *o) {
    if (!o->worker) return cinchSuccess;
    uint64_t deadline = cinch_now_ns() + CONNECT_NS;
    o->worker->on_proof = on_proof;
    o->worker->proofs = o;
    for (int r = 0; r < o->job->nranks; r++)
        if (o->pairs[r].ep && common(o, o->job->rank, r) != OUT_OF_REACH)
            CINCH_TRY(begin_proof(o, r));
    for (int r = 0; r < o->job->nranks; r++) /* closing lets UCX work: all must listen by then */
        if (o->pairs[r].ep && common(o, o->job->rank, r) == OUT_OF_REACH)
            close_pair(o, &o->pairs[r], true);
    for (bool left = true; left;) {
        left = false;
        cinch_ucx_worker_progress(o->worker);
        for (int r = 0; r < o->job->nranks; r++) {
            CINCH_TRY(prove(o, r));
            left |= under_way(&o->pairs[r]);
        }
        if (left) CINCH_TRY(wait_a_while(o));
        if (cinch_now_ns() > deadline) break;
    }
    return cinchSuccess;
}

/* ---- links ---- */

/* Each direction has its own, which follows from the secret and both nonces. */
static uint64_t token_of(const opening *o, const pair *p, bool by_initiator) {
    struct {
        uint8_t nonces[2][CINCH_PROOF_HELLO_BYTES], by_initiator;
    } about;
    uint64_t token = 0;
    memcpy(about.nonces[0], p->proof.initiator ? p->proof.mine : p->proof.theirs,
           sizeof about.nonces[0]);
    memcpy(about.nonces[1], p->proof.initiator ? p->proof.theirs : p->proof.mine,
           sizeof about.nonces[1]);
    about.by_initiator = by_initiator;
    cinch_derive((uint8_t *)&token, sizeof token, "cinch UCX link",
                 cinch_rendezvous_secret(o->job->rendezvous), CINCH_SECRET_BYTES, &about,
                 sizeof about);
    return token;
}

static cinchResult_t make_links(opening *o) {
    for (int r = 0; r < o->job->nranks; r++) {
        o->reach[r] = o->pairs[r].phase == SETTLED && !under_way(&o->pairs[r]);
        if (o->pairs[r].phase != UNUSED && !o->reach[r])
            cinch_info("rank %d cannot reach rank %d over UCX: %s", o->job->rank, r,
                       o->worker->end[r].broken == UCS_OK
                           ? "no answer"
                           : o->ucx->ucs_status_string(o->worker->end[r].broken));
    }
    CINCH_TRY(share_reach(o));
    for (int r = 0; r < o->job->nranks; r++) {
        pair *p = &o->pairs[r];
        if (!p->ep || !common(o, o->job->rank, r)) continue;
        cinch_ucx_tokens tokens = {token_of(o, p, p->proof.initiator),
                                   token_of(o, p, !p->proof.initiator)};
        cinch_ucx_link *link = cinch_ucx_link_new(o->worker, r, p->ep, p->peer_mode, tokens);
        if (!link) return no_memory(o);
        o->job->net->link[r] = (cinch_link *)link;
        p->ep = NULL;
    }
    return cinchSuccess;
}

static cinchResult_t connect_all(opening *o) {
    size_t n = (size_t)o->job->nranks;
    const char *why;
    o->ucx = cinch_ucx_load(&why);
    if (!o->ucx && wants(o)) return cinch_fail(cinchSystemError, "rank %d: %s", o->job->rank, why);
    o->cards = calloc(n, sizeof *o->cards);
    o->reach = calloc(n, 1);
    o->matrix = calloc(n, n);
    o->pairs = calloc(n, sizeof *o->pairs);
    if (!o->cards || !o->reach || !o->matrix || !o->pairs) return no_memory(o);
    CINCH_TRY(open_endpoints(o));
    CINCH_TRY(prove_all(o));
    return make_links(o);
}

static cinchResult_t ucx_open(const cinch_opening *job) {
    opening o = {.job = job,
                 .named = strcmp(job->settings->transport, "auto") != 0 &&
                          job->settings->transport[0] != '^'};
    cinchResult_t result = connect_all(&o);
    for (int r = 0; o.pairs && r < job->nranks; r++) {
        cinch_proof_wipe(&o.pairs[r].proof);
        close_pair(&o, &o.pairs[r], true);
    }
    bool asked = false; /* an endpoint that did not close in time may answer yet: see on_request */
    for (int r = 0; o.pairs && r < job->nranks; r++) asked |= o.pairs[r].waits > 0;
    if (o.worker) o.worker->on_proof = NULL;
    cinch_ucx_worker_drop(o.worker);
    free(o.cards);
    free(o.addresses);
    free(o.reach);
    free(o.matrix);
    if (!asked) free(o.pairs);
    return result;
}

extern const cinch_transport cinch_transport_ucx;
const cinch_transport cinch_transport_ucx = {"ucx", ucx_unusable, ucx_open, ucx_unwanted};

/* SPDX-License-Identifier: Apache-2.0 */
/* Message links over UCX: active messages, numbered, of which at most a window is under way.
 *
 * UCX's callbacks only note what has happened; what follows from it is done by a link's step, after
 * UCX has returned. Two things need care:
 * - UCX keeps what comes before its receive is posted, without a bound of its own. So a sender
 *   stops after CINCH_UCX_WINDOW messages that were not taken, and none of them carries more than
 *   CINCH_UCX_EAGER bytes along; over sockets SOCKET_EAGER, and WINDOW_BYTES all together.
 * - UCX may call an operation complete while something of it is still in this process, to go out
 *   with the next call, which may be far away: over tcp the end of a message that the socket did
 *   not take, elsewhere the receiver's word that a long message has arrived. Such an operation is
 *   done only when that is out. Over tcp a flush of the endpoint would wait for the peer's own
 *   calls; but UCX begins no message there before the one ahead of it has left, so a second, empty
 *   one tells. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "transports/ucx_link.h"

/* What a socket surely takes, of messages that the peer has not taken; it needs memory for each.
 * The least that Linux gives a socket to send from is tcp_wmem's default, 16 KiB. */
#define SOCKET_BYTES 16384u
#define SOCKET_MESSAGE_BYTES 1024u
#define SHORT_BYTES 4096u /* over tcp UCX takes at least these along */
/* Over sockets an answer to an announcement would stand in line behind all that is under way, so
 * longer messages come unasked there; and fewer of them. */
#define SOCKET_EAGER 262144u
#define WINDOW_BYTES 4194304u

static void mark_busy(cinch_ucx_link *link) {
    if (link->busy) return;
    link->busy = true;
    link->next_busy = link->worker->busy;
    link->worker->busy = link;
}

cinch_ucx_link *cinch_ucx_link_next_busy(cinch_ucx_link *link) {
    link->busy = false;
    return link->next_busy;
}

static void corrupt(cinch_ucx_link *link, const char *what) {
    cinch_link_fail(&link->core, cinchRemoteError, "rank %d sent rank %d what no rank sends: %s",
                    link->core.link.peer, link->core.rank, what);
}

/* The link's step sees whether anything is lost by it: what had come before may be all there is. */
void cinch_ucx_link_broken(cinch_ucx_link *link, ucs_status_t status) {
    if (!link->gone) link->why = status;
    link->gone = true;
    mark_busy(link);
}

/* ---- sending ---- */

static void fill_header(cinch_ucx_link *link, cinch_ucx_header *header, uint32_t flags) {
    header->token = link->tokens.out;
    header->number = link->sent;
    header->taken = link->accepted;
    header->rank = (uint32_t)link->core.rank | flags << 24;
    link->core.link.wire_bytes += sizeof *header;
}

/* UCX is through with it, which is not to say that all of it is on its way. */
static void moved(cinch_ucx_link *link, uint64_t *stamp, bool needs_flush) {
    if (needs_flush) *stamp = ++link->work;
}

static void on_sent(void *request, ucs_status_t status, void *arg) {
    cinch_ucx_outgoing *o = arg;
    cinch_ucx_link *link = o->link;
    link->worker->ucx->ucp_request_free(request);
    if (o->stage != CINCH_UCX_MOVING) return;
    if (status == UCS_OK) {
        o->stage = CINCH_UCX_MOVED;
        moved(link, &o->stamp, o->needs_flush);
    } else {
        cinch_ucx_link_broken(link, status);
    }
    mark_busy(link);
}

static size_t eager_most(const cinch_ucx_link *link) {
    return link->tcp ? SOCKET_EAGER : CINCH_UCX_EAGER;
}

static uint64_t untaken(const cinch_ucx_link *link) {
    return link->sent_bytes - link->taken_bytes;
}

static void send_one(cinch_ucx_link *link, cinch_msg *msg) {
    cinch_ucx_outgoing *o = &link->out[link->sent % CINCH_UCX_WINDOW];
    bool announced = msg->bytes > eager_most(link);
    link->sent_bytes += SOCKET_MESSAGE_BYTES + (announced ? 0 : msg->bytes);
    bool half =
        link->sent - link->taken >= CINCH_UCX_WINDOW / 2 || untaken(link) >= WINDOW_BYTES / 2;
    /* What was asked last may be taken without its answer freeing many bytes. */
    bool ask = half && (link->asked == link->taken ||
                        link->sent_bytes - link->asked_bytes >= WINDOW_BYTES / 2);
    *o = (cinch_ucx_outgoing){.link = link, .msg = msg, .stage = CINCH_UCX_MOVING};
    o->header.tag = msg->tag;
    o->header.check = msg->check;
    o->end = link->sent_bytes;
    o->needs_flush =
        link->tcp ? msg->bytes > SHORT_BYTES || untaken(link) > SOCKET_BYTES : announced;
    fill_header(link, &o->header, ask ? CINCH_UCX_ASK : 0);
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK |
                                                 UCP_OP_ATTR_FIELD_USER_DATA |
                                                 UCP_OP_ATTR_FIELD_FLAGS,
                                 .flags = announced   ? UCP_AM_SEND_FLAG_RNDV
                                          : link->tcp ? UCP_AM_SEND_FLAG_EAGER
                                                      : 0,
                                 .cb.send = on_sent,
                                 .user_data = o};
    link->sent++;
    if (ask) {
        link->asked = link->sent;
        link->asked_bytes = link->sent_bytes;
    }
    link->core.link.wire_bytes += msg->bytes;
    ucs_status_ptr_t request = link->worker->ucx->ucp_am_send_nbx(
        link->ep, CINCH_UCX_MESSAGE, &o->header, sizeof o->header, msg->data, msg->bytes, &param);
    if (UCS_PTR_IS_PTR(request)) return;
    if (UCS_PTR_IS_ERR(request)) {
        cinch_ucx_link_broken(link, UCS_PTR_STATUS(request));
        return;
    }
    o->stage = CINCH_UCX_MOVED;
    moved(link, &o->stamp, o->needs_flush);
}

/* True where something was sent. */
static bool send_all(cinch_ucx_link *link) {
    uint32_t before = link->sent;
    while (link->next_send && cinch_ucx_works(link) && !link->left && !link->gone &&
           link->sent - link->released < CINCH_UCX_WINDOW &&
           link->sent - link->taken < CINCH_UCX_WINDOW) {
        cinch_msg *msg = link->next_send;
        if (link->sent != link->taken && msg->bytes <= eager_most(link) &&
            untaken(link) + msg->bytes > WINDOW_BYTES)
            break;
        link->next_send = msg->next;
        send_one(link, msg);
    }
    return link->sent != before;
}

static void on_noted(void *request, ucs_status_t status, void *arg) {
    cinch_ucx_link *link = arg;
    link->worker->ucx->ucp_request_free(request);
    link->noting = false;
    if (status != UCS_OK) cinch_ucx_link_broken(link, status);
    mark_busy(link);
}

void cinch_ucx_note(cinch_ucx_link *link, uint32_t flags) {
    if (link->gone) return;
    link->note = (cinch_ucx_header){0};
    fill_header(link, &link->note, flags);
    ucp_request_param_t param = {.op_attr_mask =
                                     UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
                                 .cb.send = on_noted,
                                 .user_data = link};
    ucs_status_ptr_t request = link->worker->ucx->ucp_am_send_nbx(
        link->ep, CINCH_UCX_NOTE, &link->note, sizeof link->note, NULL, 0, &param);
    link->noting = UCS_PTR_IS_PTR(request);
    if (UCS_PTR_IS_ERR(request)) cinch_ucx_link_broken(link, UCS_PTR_STATUS(request));
}

/* ---- flushing ---- */

static void on_flushed(void *request, ucs_status_t status, void *arg) {
    cinch_ucx_link *link = arg;
    link->worker->ucx->ucp_request_free(request);
    if (status == UCS_OK)
        link->flushed = link->flushing;
    else
        cinch_ucx_link_broken(link, status);
    link->flushing = 0;
    mark_busy(link);
}

bool cinch_ucx_flushed(cinch_ucx_link *link, uint64_t stamp) {
    if (link->flushed >= stamp) return true;
    if (link->flushing || link->gone) return false;
    ucp_request_param_t param = {.op_attr_mask =
                                     UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
                                 .cb.send = on_flushed,
                                 .user_data = link};
    uint64_t covers = link->work;
    ucs_status_ptr_t request;
    if (link->tcp) {
        fill_header(link, &link->pad, 0);
        request = link->worker->ucx->ucp_am_send_nbx(link->ep, CINCH_UCX_NOTE, &link->pad,
                                                     sizeof link->pad, NULL, 0, &param);
    } else {
        request = link->worker->ucx->ucp_ep_flush_nbx(link->ep, &param);
    }
    if (UCS_PTR_IS_PTR(request)) {
        link->flushing = covers;
        return false;
    }
    if (UCS_PTR_IS_ERR(request)) {
        cinch_ucx_link_broken(link, UCS_PTR_STATUS(request));
        return false;
    }
    link->flushed = covers;
    return true;
}

/* ---- receiving ---- */

static void on_fetched(void *request, ucs_status_t status, size_t bytes, void *arg) {
    cinch_ucx_incoming *in = arg;
    (void)bytes;
    in->link->worker->ucx->ucp_request_free(request);
    if (in->stage != CINCH_UCX_MOVING) return;
    if (status == UCS_OK) {
        in->stage = CINCH_UCX_MOVED;
        moved(in->link, &in->stamp, !in->link->tcp);
    } else {
        cinch_ucx_link_broken(in->link, status);
    }
    mark_busy(in->link);
}

/* What a long message's sender holds goes straight to its place. What UCX keeps of a short one goes
 * through UCX too, which knows what kind of memory the place is. */
static void fetch(cinch_ucx_link *link, cinch_ucx_incoming *in, cinch_msg *msg) {
    ucp_request_param_t param = {.op_attr_mask =
                                     UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
                                 .cb.recv_am = on_fetched,
                                 .user_data = in};
    const cinch_ucx_library *ucx = link->worker->ucx;
    bool long_one = in->stage == CINCH_UCX_HELD_BACK;
    void *data = in->data;
    in->data = NULL;
    in->stage = CINCH_UCX_MOVING;
    ucs_status_ptr_t request =
        ucx->ucp_am_recv_data_nbx(link->worker->worker, data, msg->data, in->bytes, &param);
    if (!long_one) ucx->ucp_am_data_release(link->worker->worker, data);
    if (UCS_PTR_IS_PTR(request)) return;
    if (UCS_PTR_IS_ERR(request)) {
        cinch_ucx_link_broken(link, UCS_PTR_STATUS(request));
        return;
    }
    in->stage = CINCH_UCX_MOVED;
    moved(link, &in->stamp, long_one && !link->tcp);
}

/* Brings together what has come and what was posted. */
static void match_all(cinch_ucx_link *link) {
    while (link->next_recv && cinch_ucx_works(link)) {
        cinch_ucx_incoming *in = &link->in[link->matched % (2 * CINCH_UCX_WINDOW)];
        cinch_msg *msg = link->next_recv;
        if (in->stage != CINCH_UCX_HELD && (in->stage != CINCH_UCX_HELD_BACK || link->gone)) return;
        if (cinch_link_match(&link->core, msg, in->header.tag, in->bytes) != cinchSuccess) return;
        link->next_recv = msg->next;
        link->matched++;
        if (in->data)
            fetch(link, in, msg);
        else
            in->stage = CINCH_UCX_MOVED;
    }
}

static bool is_ours(const cinch_ucx_link *link, const cinch_ucx_header *header) {
    return link && header->token == link->tokens.in;
}

/* The link that a header belongs to; NULL: what has come is not for us. */
static cinch_ucx_link *sender_of(const cinch_ucx_worker *w, const void *data, size_t bytes,
                                 cinch_ucx_header *header) {
    if (bytes != sizeof *header) return NULL;
    memcpy(header, data, sizeof *header);
    uint32_t rank = header->rank & CINCH_UCX_RANKS;
    cinch_ucx_link *link = rank < (uint32_t)w->nranks ? w->link[rank] : NULL;
    if (!is_ours(link, header)) {
        cinch_debug("rank %d dropped a message that no rank of the communicator sent", w->rank);
        return NULL;
    }
    if (!cinch_ucx_works(link)) return NULL;
    uint32_t more = header->taken - link->taken;
    mark_busy(link);
    if ((int32_t)more < 0) return link; /* overtaken by one that went another way */
    if (more > link->sent - link->taken) {
        corrupt(link, "it has taken more than it was sent");
        return NULL;
    }
    if (link->asked - link->taken <= more) link->asked = header->taken;
    if (more) link->taken_bytes = link->out[(header->taken - 1) % CINCH_UCX_WINDOW].end;
    link->taken = header->taken;
    return link;
}

ucs_status_t cinch_ucx_on_note(void *worker, const void *header, size_t header_bytes, void *data,
                               size_t bytes, const ucp_am_recv_param_t *param) {
    (void)data, (void)bytes, (void)param;
    cinch_ucx_header note;
    cinch_ucx_link *link = sender_of(worker, header, header_bytes, &note);
    if (link && note.rank >> 24 & CINCH_UCX_BYE) {
        link->left = true;
        link->left_with = note.number;
    }
    return UCS_OK;
}

ucs_status_t cinch_ucx_on_message(void *worker, const void *header, size_t header_bytes, void *data,
                                  size_t bytes, const ucp_am_recv_param_t *param) {
    cinch_ucx_header mine;
    bool long_one = param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV;
    cinch_ucx_link *link = sender_of(worker, header, header_bytes, &mine);
    if (!link || link->leaving) return long_one ? UCS_ERR_CANCELED : UCS_OK;
    cinch_ucx_incoming *in = &link->in[mine.number % (2 * CINCH_UCX_WINDOW)];
    if (mine.number - link->received > CINCH_UCX_WINDOW || in->stage != CINCH_UCX_EMPTY) {
        corrupt(link, "more messages than there is room for, or one twice");
        return long_one ? UCS_ERR_CANCELED : UCS_OK;
    }
    *in = (cinch_ucx_incoming){.link = link, .bytes = bytes, .header = mine};
    in->stage = long_one ? CINCH_UCX_HELD_BACK : CINCH_UCX_HELD;
    if (!long_one && bytes == 0) return UCS_OK;
    in->data = data;
    return UCS_INPROGRESS;
}

/* ---- a link's step ---- */

/* What the peer has taken needs no flush. */
static bool is_taken(const cinch_ucx_link *link, uint32_t number) {
    return link->sent - number > link->sent - link->taken;
}

static void finish_sends(cinch_ucx_link *link) {
    while (link->released != link->sent && cinch_ucx_works(link)) {
        cinch_ucx_outgoing *o = &link->out[link->released % CINCH_UCX_WINDOW];
        if (o->stage != CINCH_UCX_MOVED) return;
        if (!is_taken(link, link->released) && !cinch_ucx_flushed(link, o->stamp)) return;
        o->stage = CINCH_UCX_EMPTY;
        link->released++;
        cinch_msg_finish(&link->core, &link->core.sends);
    }
}

/* A message that asks is answered before it is done: afterwards nobody may come by here for long.
 */
static bool answer(cinch_ucx_link *link, cinch_ucx_incoming *in) {
    if (!(in->header.rank >> 24 & CINCH_UCX_ASK)) return true;
    if (link->accepted == link->received) { /* the peer is not told of it yet */
        if (link->noting) return false;
        link->accepted++;
        cinch_ucx_note(link, 0);
        moved(link, &in->stamp, link->tcp);
    }
    return !link->noting && cinch_ucx_flushed(link, in->stamp);
}

static void finish_recvs(cinch_ucx_link *link) {
    while (link->received != link->matched && cinch_ucx_works(link)) {
        cinch_ucx_incoming *in = &link->in[link->received % (2 * CINCH_UCX_WINDOW)];
        if (in->stage != CINCH_UCX_MOVED) return;
        if (!link->left && !link->gone &&
            (!cinch_ucx_flushed(link, in->stamp) || !answer(link, in)))
            return;
        if (cinch_link_verify(&link->core, link->core.recvs.first, in->header.check) !=
            cinchSuccess)
            return;
        in->stage = CINCH_UCX_EMPTY;
        link->accepted = ++link->received;
        cinch_msg_finish(&link->core, &link->core.recvs);
    }
}

/* What the peer sent before it left is there: only who waits for more has lost it. */
static void look_for_peer(cinch_ucx_link *link) {
    bool waits = link->next_recv && link->matched == link->left_with;
    bool sends = link->next_send != NULL;
    if (link->released != link->sent && !is_taken(link, link->released))
        sends |=
            link->gone || link->out[link->released % CINCH_UCX_WINDOW].stage == CINCH_UCX_MOVING;
    if (link->core.link.pending > 0 && (waits || sends)) cinch_link_lost(&link->core);
}

/* Nothing more comes or goes. */
static void look_for_loss(cinch_ucx_link *link) {
    if (link->core.link.pending == 0) return;
    if (link->left || link->why == UCS_ERR_CONNECTION_RESET || link->why == UCS_ERR_CANCELED)
        cinch_link_lost(&link->core);
    else
        cinch_link_fail(&link->core, cinchRemoteError,
                        "rank %d has lost its connection to rank %d: UCX says %s", link->core.rank,
                        link->core.link.peer, link->worker->ucx->ucs_status_string(link->why));
}

void cinch_ucx_link_step(cinch_ucx_link *link) {
    do {
        match_all(link);
        finish_recvs(link);
        finish_sends(link);
    } while (send_all(link));
    if (link->left && cinch_ucx_works(link)) look_for_peer(link);
    if (link->gone && cinch_ucx_works(link)) look_for_loss(link);
}

/* ---- the operations ---- */

static void ucx_send(cinch_link *head, cinch_msg *msg) {
    cinch_ucx_link *link = (cinch_ucx_link *)head;
    msg->check = link->core.checksum ? cinch_msg_check(msg->tag, msg->data, msg->bytes) : 0;
    cinch_msg_post(&link->core, &link->core.sends, msg);
    if (!link->next_send) link->next_send = msg;
    if (link->next_send == msg) cinch_ucx_link_step(link);
}

static void ucx_recv(cinch_link *head, cinch_msg *msg) {
    cinch_ucx_link *link = (cinch_ucx_link *)head;
    cinch_msg_post(&link->core, &link->core.recvs, msg);
    if (!link->next_recv) link->next_recv = msg;
    if (link->next_recv == msg) cinch_ucx_link_step(link);
}

/* UCX is called once for all links: the next call is due when the same link is asked again. */
static cinchResult_t ucx_progress(cinch_link *head) {
    cinch_ucx_link *link = (cinch_ucx_link *)head;
    if (cinch_ucx_works(link)) {
        if (link->seen == link->worker->rounds) cinch_ucx_worker_progress(link->worker);
        link->seen = link->worker->rounds;
        if (cinch_ucx_works(link) && (link->busy || link->left || link->gone))
            cinch_ucx_link_step(link);
    }
    return cinch_ucx_works(link) ? cinchSuccess : cinch_link_failure(&link->core);
}

static bool ucx_poll_fd(cinch_link *head, int *fd, short *events) {
    cinch_ucx_link *link = (cinch_ucx_link *)head;
    *fd = cinch_ucx_works(link) ? cinch_ucx_worker_fd(link->worker) : link->worker->always;
    *events = POLLIN;
    return true;
}

static const cinch_link_ops ucx_ops = {"ucx",       ucx_send,        ucx_recv,      ucx_progress,
                                       ucx_poll_fd, cinch_ucx_close, cinch_ucx_stop};

cinch_ucx_link *cinch_ucx_link_new(cinch_ucx_worker *w, int peer, ucp_ep_h ep, bool peer_mode,
                                   cinch_ucx_tokens tokens) {
    cinch_ucx_link *link = calloc(1, sizeof *link);
    if (!link) return NULL;
    cinch_link_init(&link->core, &ucx_ops, w->rank, peer, w->checksum);
    link->worker = w;
    link->ep = ep;
    link->peer_mode = peer_mode;
    link->tcp = cinch_ucx_ep_means(w->ucx, ep).tcp;
    link->tokens = tokens;
    w->link[peer] = link;
    w->users++;
    return link;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Queue pairs of a link: made, connected, posted to, polled. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "transports/handshake.h"
#include "transports/verbs_link.h"

enum {
    INLINE_BYTES = 220,  /* asked for; what a small message and its header have */
    SIGNAL_EVERY = 8,    /* work requests; each completion tells of all before it */
    RNR_RETRIES = 6,     /* 7 is for ever */
    RNR_TIMER = 12,      /* 0.64 ms, by the InfiniBand specification's table */
    PIECE_BYTES = 65536, /* of a long message: rxe counts its retries by work request, and where one
                            packet in twenty is lost, 1 MiB is lost more often than six times */
    BATCH = 16
};
#define SEND_MARK (UINT64_C(1) << 63)
#define COUNT_MASK UINT64_C(0xffffffff)

static uint64_t mark_of(const cinch_verbs_link *link, int rail) {
    return (uint64_t)rail << 56 | (uint64_t)link->place << 32;
}

cinchResult_t cinch_verbs_fail(cinch_verbs_link *link, cinchResult_t code, const char *format,
                               ...) {
    char why[CINCH_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    for (int r = 0; r < link->rails; r++) ibv_modify_qp(link->queue[r].pair, &attr, IBV_QP_STATE);
    return cinch_link_fail(&link->core, code, "%s", why);
}

/* ---- posting ---- */

static int post_receive(cinch_verbs_link *link, int rail) {
    struct ibv_recv_wr *bad, request = {.wr_id = mark_of(link, rail)};
    return ibv_post_recv(link->queue[rail].pair, &request, &bad);
}

bool cinch_verbs_post(cinch_verbs_link *link, int rail, const cinch_verbs_write *write) {
    cinch_verbs_queue *q = &link->queue[rail];
    struct ibv_sge part = {(uintptr_t)write->from, (uint32_t)write->bytes, write->from_key};
    q->posted++;
    struct ibv_send_wr *bad,
        request = {.wr_id = SEND_MARK | mark_of(link, rail) | (q->posted & COUNT_MASK),
                   .sg_list = &part,
                   .num_sge = write->bytes > 0,
                   .opcode = write->kind < 0 ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_WRITE_WITH_IMM,
                   .wr.rdma = {write->to, write->to_key}};
    if (write->kind >= 0)
        request.imm_data =
            htobe32((uint32_t)write->kind << 29 | ((uint32_t)write->number & CINCH_VERBS_NUMBER));
    if (write->bytes <= q->inline_most) request.send_flags |= IBV_SEND_INLINE;
    if (write->signal || q->posted - q->signaled >= SIGNAL_EVERY) {
        request.send_flags |= IBV_SEND_SIGNALED;
        q->signaled = q->posted;
    }
    int err = ibv_post_send(q->pair, &request, &bad);
    if (err)
        cinch_verbs_fail(link, cinchSystemError, "rank %d cannot send to rank %d over %s: %s",
                         link->core.rank, link->core.link.peer, link->verbs->rail[rail].name,
                         strerror(err));
    return err == 0;
}

bool cinch_verbs_tell(cinch_verbs_link *link, int rail, const void *from, size_t offset,
                      size_t bytes, int kind, uint64_t number) {
    cinch_verbs_write write = {.from = from,
                               .bytes = bytes,
                               .from_key = link->verbs->rail[rail].mr->lkey,
                               .to = link->peer_page + offset,
                               .to_key = link->peer_key[rail],
                               .kind = kind,
                               .number = number,
                               .signal = kind < 0 || kind == CINCH_VERBS_END ||
                                         kind == CINCH_VERBS_FAREWELL};
    return cinch_verbs_post(link, rail, &write);
}

/* ---- completions ---- */

static void confused(cinch_verbs_link *link, const char *what, uint32_t number) {
    cinch_verbs_fail(link, cinchRemoteError,
                     "rank %d does not keep to the protocol towards rank %d: %s (%u)",
                     link->core.link.peer, link->core.rank, what, number);
}

static bool same(uint64_t count, uint32_t number) {
    return ((uint32_t)count & CINCH_VERBS_NUMBER) == number;
}

/* The peer has written something. */
static void notice(cinch_verbs_link *link, int rail, uint32_t word) {
    cinch_verbs_queue *q = &link->queue[rail];
    uint32_t number = word & CINCH_VERBS_NUMBER;
    uint64_t slot = q->arrived * (uint64_t)link->rails + (uint64_t)rail, more;
    switch (word >> 29) {
    case CINCH_VERBS_SLOT:
        if (!same(slot, number) || slot - link->consumed >= CINCH_VERBS_SLOTS)
            confused(link, "a slot that it had no credit for", number);
        q->arrived++;
        break;
    case CINCH_VERBS_END:
        if (!same(q->ended, number) || q->ended >= link->ends_wanted)
            confused(link, "the end of a message that was not granted", number);
        q->ended++;
        break;
    case CINCH_VERBS_ANSWER:
        if (!same(link->answered, number) || link->answered >= link->announced)
            confused(link, "an answer to what was not announced", number);
        link->answered++;
        break;
    case CINCH_VERBS_CREDIT:
        more = (number - (uint32_t)link->taken) & CINCH_VERBS_NUMBER;
        if (more > link->sent - link->taken) confused(link, "a credit for too much", number);
        link->taken += more;
        break;
    case CINCH_VERBS_FAREWELL:
        q->farewell = link->left = true;
        link->left_at = number;
        for (int r = 0; r < link->rails; r++) link->left &= link->queue[r].farewell;
        break;
    default:
        confused(link, "an unknown word", word);
    }
}

/* What a failed work request says about the peer. Once one has failed, all others come back too. */
static void broken(cinch_verbs_link *link, int rail, const struct ibv_wc *wc) {
    const char *name = link->verbs->rail[rail].name;
    int rank = link->core.rank, peer = link->core.link.peer;
    if (link->left || link->queue[rail].farewell) return; /* there is nobody any more */
    switch (wc->status) {
    case IBV_WC_RETRY_EXC_ERR:
    case IBV_WC_RNR_RETRY_EXC_ERR:
    case IBV_WC_RESP_TIMEOUT_ERR:
        cinch_verbs_fail(link, cinchRemoteError,
                         "the connection between ranks %d and %d is lost: rank %d does not answer "
                         "over %s (%s; CINCH_IB_TIMEOUT, CINCH_IB_RETRY_CNT)",
                         rank, peer, peer, name, ibv_wc_status_str(wc->status));
        break;
    case IBV_WC_REM_ACCESS_ERR:
    case IBV_WC_REM_INV_REQ_ERR:
    case IBV_WC_REM_OP_ERR:
    case IBV_WC_REM_ABORT_ERR:
        cinch_verbs_fail(link, cinchRemoteError,
                         "rank %d refused what rank %d wrote over %s (%s): it has failed, or its "
                         "memory is no longer registered",
                         peer, rank, name, ibv_wc_status_str(wc->status));
        break;
    default:
        cinch_verbs_fail(link, cinchSystemError,
                         "the connection between ranks %d and %d over %s has failed: %s (vendor "
                         "error %#x)",
                         rank, peer, name, ibv_wc_status_str(wc->status), wc->vendor_err);
    }
}

static void handle(cinch_verbs *verbs, const struct ibv_wc *wc) {
    int rail = wc->wr_id >> 56 & 0x7f, place = wc->wr_id >> 32 & 0xffffff;
    cinch_verbs_link *link = verbs->link[place];
    if (!link || link->core.failed != cinchSuccess) return;
    cinch_verbs_queue *q = &link->queue[rail];
    link->quiet_since = 0;
    if (wc->status != IBV_WC_SUCCESS) {
        broken(link, rail, wc);
    } else if (wc->wr_id & SEND_MARK) {
        q->done += (wc->wr_id - q->done) & COUNT_MASK;
    } else {
        notice(link, rail, be32toh(wc->imm_data));
        if (!q->farewell && link->core.failed == cinchSuccess) {
            int err = post_receive(link, rail);
            if (err)
                cinch_verbs_fail(link, cinchSystemError, "rank %d cannot receive over %s: %s",
                                 verbs->rank, verbs->rail[rail].name, strerror(err));
        }
    }
}

void cinch_verbs_poll(cinch_verbs *verbs) {
    struct ibv_wc done[BATCH];
    for (int r = 0; r < verbs->rails; r++) {
        int n;
        do {
            n = ibv_poll_cq(verbs->rail[r].cq, BATCH, done);
            for (int i = 0; i < n; i++) handle(verbs, &done[i]);
            verbs->polls += n > 0;
        } while (n == BATCH);
        for (int i = 0; n < 0 && i < verbs->links; i++)
            if (verbs->link[i] && verbs->link[i]->core.failed == cinchSuccess)
                cinch_verbs_fail(verbs->link[i], cinchSystemError,
                                 "rank %d cannot poll the completions of %s", verbs->rank,
                                 verbs->rail[r].name);
    }
}

/* A completion between a look at the queue and its arming makes no event, so it is looked at once
 * more. */
bool cinch_verbs_arm(cinch_verbs *verbs) {
    uint64_t before = verbs->polls;
    for (int r = 0; r < verbs->rails; r++) {
        cinch_verbs_rail *rail = &verbs->rail[r];
        struct ibv_cq *cq;
        void *context;
        while (rail->armed && ibv_get_cq_event(rail->channel, &cq, &context) == 0) {
            ibv_ack_cq_events(cq, 1);
            rail->armed = false;
        }
        if (!rail->armed) rail->armed = ibv_req_notify_cq(rail->cq, 0) == 0;
        if (!rail->armed) return false;
    }
    cinch_verbs_poll(verbs);
    return verbs->polls == before;
}

/* ---- making and connecting ---- */

static bool make_queue(cinch_verbs_link *link, int rail, const cinch_settings *settings) {
    cinch_verbs_rail *on = &link->verbs->rail[rail];
    cinch_verbs_queue *q = &link->queue[rail];
    struct ibv_qp_init_attr wanted = {
        .send_cq = on->cq,
        .recv_cq = on->cq,
        .qp_type = IBV_QPT_RC,
        .cap = {CINCH_VERBS_SENDS, CINCH_VERBS_RECEIVES, 1, 1, INLINE_BYTES}};
    struct ibv_qp_init_attr given = wanted;
    q->pair = ibv_create_qp(on->pd, &given);
    if (!q->pair) { /* not every device sends anything inline */
        given = wanted;
        given.cap.max_inline_data = 0;
        q->pair = ibv_create_qp(on->pd, &given);
    }
    int err = q->pair ? 0 : errno;
    if (!err) {
        q->inline_most = given.cap.max_inline_data;
        struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT,
                                   .port_num = on->port,
                                   .pkey_index = (uint16_t)settings->ib_pkey,
                                   .qp_access_flags = IBV_ACCESS_REMOTE_WRITE};
        err = ibv_modify_qp(q->pair, &attr,
                            IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    }
    for (int i = 0; !err && i < CINCH_VERBS_RECEIVES; i++) err = post_receive(link, rail);
    if (err)
        cinch_fail_quiet(cinchSystemError, "%s: no queue pair towards rank %d: %s", on->name,
                         link->core.link.peer, cinch_verbs_advice(err));
    return !err;
}

cinch_verbs_link *cinch_verbs_link_new(cinch_verbs *verbs, const cinch_settings *settings,
                                       int place, int peer, bool checksum, cinch_verbs_end *end) {
    cinch_verbs_link *link = calloc(1, sizeof *link);
    if (!link) {
        cinch_fail_quiet(cinchSystemError, "out of memory for a link");
        return NULL;
    }
    cinch_link_init(&link->core, &cinch_verbs_ops, verbs->rank, peer, checksum);
    unsigned char *memory = verbs->block + (size_t)place * verbs->link_bytes;
    link->verbs = verbs;
    link->place = place;
    link->rails = verbs->rails;
    link->page = (cinch_verbs_page *)(void *)memory;
    link->ring = memory + CINCH_VERBS_PAGE;
    link->stage = link->ring + CINCH_VERBS_SLOTS * verbs->slot_bytes;
    end->place = (uint32_t)place;
    bool good = cinch_random(end->first_psn, sizeof end->first_psn) == cinchSuccess;
    for (int r = 0; good && r < link->rails; r++) {
        good = make_queue(link, r, settings);
        if (good) end->number[r] = link->queue[r].pair->qp_num;
        end->first_psn[r] &= 0xffffff;
    }
    if (good) return link;
    cinch_verbs_link_free(link);
    return NULL;
}

static int connect_queue(cinch_verbs_link *link, int r, const cinch_settings *settings,
                         const cinch_verbs_card *card, const cinch_verbs_end *mine,
                         const cinch_verbs_end *theirs) {
    const cinch_verbs_rail *on = &link->verbs->rail[r];
    struct ibv_qp *pair = link->queue[r].pair;
    uint8_t mtu = card->rail[r].mtu, own = (uint8_t)on->about.active_mtu;
    bool far = on->about.link_layer == IBV_LINK_LAYER_ETHERNET || card->rail[r].lid == 0 ||
               on->gid.global.subnet_prefix != card->rail[r].gid.global.subnet_prefix;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR,
                               .path_mtu = (enum ibv_mtu)(mtu < own ? mtu : own),
                               .dest_qp_num = theirs->number[r],
                               .rq_psn = theirs->first_psn[r],
                               .max_dest_rd_atomic = 1,
                               .min_rnr_timer = RNR_TIMER,
                               .ah_attr = {.dlid = card->rail[r].lid,
                                           .sl = (uint8_t)settings->ib_sl,
                                           .is_global = far,
                                           .port_num = on->port}};
    if (far) {
        attr.ah_attr.grh.dgid = card->rail[r].gid;
        attr.ah_attr.grh.sgid_index = (uint8_t)on->gid_index;
        attr.ah_attr.grh.hop_limit = 255;
        attr.ah_attr.grh.traffic_class = (uint8_t)settings->ib_tc;
    }
    int err = ibv_modify_qp(pair, &attr,
                            IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                                IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
    if (err) return err;
    attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS,
                                .timeout = (uint8_t)settings->ib_timeout,
                                .retry_cnt = (uint8_t)settings->ib_retry_cnt,
                                .rnr_retry = RNR_RETRIES,
                                .sq_psn = mine->first_psn[r],
                                .max_rd_atomic = 1};
    return ibv_modify_qp(pair, &attr,
                         IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                             IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

bool cinch_verbs_link_connect(cinch_verbs_link *link, const cinch_settings *settings,
                              const cinch_verbs_card *card, const cinch_verbs_end *mine,
                              const cinch_verbs_end *theirs) {
    int rank = link->core.rank, peer = link->core.link.peer, most = link->rails;
    link->rails = card->rails < most ? card->rails : most;
    link->peer_page = card->block + (uint64_t)theirs->place * card->link_bytes;
    link->peer_ring = link->peer_page + CINCH_VERBS_PAGE;
    link->piece_bytes = PIECE_BYTES;
    for (int r = 0; r < most; r++) {
        if (r >= link->rails) { /* the peer has no such rail */
            ibv_destroy_qp(link->queue[r].pair);
            link->queue[r].pair = NULL;
            continue;
        }
        const cinch_verbs_rail *on = &link->verbs->rail[r];
        link->peer_key[r] = card->rail[r].key;
        size_t all = card->rail[r].max_message < on->about.max_msg_sz ? card->rail[r].max_message
                                                                      : on->about.max_msg_sz;
        if (all < link->piece_bytes) link->piece_bytes = all;
        bool ethernet = on->about.link_layer == IBV_LINK_LAYER_ETHERNET;
        int err = connect_queue(link, r, settings, card, mine, theirs);
        if (!err && ethernet == (bool)card->rail[r].ethernet) continue;
        cinch_fail_quiet(cinchSystemError, "rank %d cannot connect %s to rank %d: %s", rank,
                         on->name, peer,
                         err ? strerror(err) : "one is Ethernet, the other InfiniBand");
        return false;
    }
    return true;
}

cinch_link *cinch_verbs_link_head(cinch_verbs_link *link) {
    return &link->core.link;
}

void cinch_verbs_link_free(cinch_verbs_link *link) {
    for (int r = 0; r < CINCH_VERBS_RAILS; r++)
        if (link->queue[r].pair) ibv_destroy_qp(link->queue[r].pair);
    if (link->verbs->link[link->place] == link) link->verbs->link[link->place] = NULL;
    free(link);
}

void cinch_verbs_free(cinch_verbs *verbs) {
    for (int i = 0; verbs->link && i < verbs->links; i++)
        if (verbs->link[i]) cinch_verbs_link_free(verbs->link[i]);
    cinch_verbs_forget_memory(verbs);
    cinch_verbs_close_rails(verbs);
    if (verbs->block) munmap(verbs->block, verbs->block_bytes);
    free(verbs->link);
    free(verbs);
}

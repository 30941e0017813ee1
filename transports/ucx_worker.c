/* SPDX-License-Identifier: Apache-2.0 */
/* A communicator's worker of UCX: one for all of its links, driven by whoever drives the
 * communicator. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "transports/io.h"
#include "transports/ucx.h"

#define ROUNDS_AT_ONCE 8            /* of UCX's progress, while each found something */
#define CLOSE_NS 1000000000u        /* for UCX to close an endpoint */
#define CLOSE_TOGETHER_NS 20000000u /* ranks that end together see each other's end */
#define LOOK_NS 2000000u
#define WAIT_NS 60000000000u

static ucs_status_t on_proof(void *arg, const void *header, size_t header_bytes, void *data,
                             size_t bytes, const ucp_am_recv_param_t *param) {
    cinch_ucx_worker *w = arg;
    if (!w->on_proof) return UCS_OK;
    return w->on_proof(w->proofs, header, header_bytes, data, bytes, param);
}

static ucs_status_t set_handler(cinch_ucx_worker *w, unsigned id, ucp_am_recv_callback_t callback,
                                uint32_t flags) {
    ucp_am_handler_param_t param = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                      UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG,
        .id = id,
        .flags = UCP_AM_FLAG_WHOLE_MSG | flags,
        .cb = callback,
        .arg = w};
    return w->ucx->ucp_worker_set_am_recv_handler(w->worker, &param);
}

static ucs_status_t create(cinch_ucx_worker *w) {
    /* One thread at a time, and not always the same one. */
    ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                  .thread_mode = UCS_THREAD_MODE_SERIALIZED};
    ucs_status_t status = cinch_ucx_context(w->ucx, &w->context);
    if (status == UCS_OK) status = w->ucx->ucp_worker_create(w->context, &params, &w->worker);
    if (status == UCS_OK) status = w->ucx->ucp_worker_get_efd(w->worker, &w->fd);
    if (status == UCS_OK)
        status =
            set_handler(w, CINCH_UCX_MESSAGE, cinch_ucx_on_message, UCP_AM_FLAG_PERSISTENT_DATA);
    if (status == UCS_OK) status = set_handler(w, CINCH_UCX_NOTE, cinch_ucx_on_note, 0);
    if (status == UCS_OK) status = set_handler(w, CINCH_UCX_PROOF, on_proof, 0);
    return status;
}

static void destroy(cinch_ucx_worker *w) {
    for (int r = 0; r < w->nranks; r++)
        if (w->link[r]) cinch_ucx_link_end(w->link[r]);
    if (w->worker) w->ucx->ucp_worker_destroy(w->worker);
    if (w->context) w->ucx->ucp_cleanup(w->context);
    for (int r = 0; r < w->nranks; r++) free(w->link[r]);
    cinch_close(w->always);
    free(w->end);
    free(w->link);
    free(w);
}

/* Whether all peers have left; waits for it that long. */
static bool is_over(cinch_ucx_worker *w, uint64_t wait_ns) {
    for (uint64_t end = cinch_now_ns() + wait_ns;;) {
        bool over = true;
        for (int r = 0; r < w->nranks; r++) over &= !w->link[r] || cinch_ucx_link_over(w->link[r]);
        if (over || cinch_now_ns() > end) return over;
        cinch_ucx_worker_progress(w);
        sched_yield();
    }
}

/* Workers that are closed here and whose peers have not left. They are looked at whenever a net
 * opens or closes, a minute long. */
static pthread_mutex_t waiting_lock = PTHREAD_MUTEX_INITIALIZER;
static cinch_ucx_worker *waiting;

static void look_at_waiting(uint64_t wait_ns) {
    pthread_mutex_lock(&waiting_lock);
    for (cinch_ucx_worker **at = &waiting; *at;) {
        cinch_ucx_worker *w = *at;
        bool ours = w->process == getpid(); /* UCX's state in a forked child is of no use */
        if (ours && !is_over(w, wait_ns) && cinch_now_ns() - w->since < WAIT_NS) {
            at = &w->next;
        } else {
            *at = w->next;
            if (ours) destroy(w);
        }
    }
    pthread_mutex_unlock(&waiting_lock);
}

void cinch_ucx_worker_drop(cinch_ucx_worker *w) {
    if (!w || --w->users > 0) return;
    if (is_over(w, CLOSE_TOGETHER_NS)) {
        destroy(w);
    } else {
        pthread_mutex_lock(&waiting_lock);
        w->since = cinch_now_ns();
        w->next = waiting;
        waiting = w;
        pthread_mutex_unlock(&waiting_lock);
    }
    look_at_waiting(LOOK_NS);
}

cinchResult_t cinch_ucx_worker_new(int rank, int nranks, bool checksum, cinch_ucx_worker **out) {
    const char *why;
    look_at_waiting(0);
    cinch_ucx_worker *w = calloc(1, sizeof *w);
    cinch_ucx_link **links = calloc((size_t)nranks, sizeof(cinch_ucx_link *));
    cinch_ucx_end *ends = calloc((size_t)nranks, sizeof *ends);
    if (!w || !links || !ends) {
        free(w);
        free(links);
        free(ends);
        return cinch_fail(cinchSystemError, "rank %d is out of memory while connecting", rank);
    }
    *w = (cinch_ucx_worker){.users = 1,
                            .process = getpid(),
                            .rank = rank,
                            .nranks = nranks,
                            .checksum = checksum,
                            .fd = -1,
                            .always = -1,
                            .link = links,
                            .end = ends};
    for (int r = 0; r < nranks; r++) ends[r] = (cinch_ucx_end){.worker = w, .peer = r};
    w->ucx = cinch_ucx_load(&why);
    cinchResult_t result = cinchSuccess;
    int err = cinch_eventfd(&w->always);
    if (!w->ucx) {
        result = cinch_fail(cinchSystemError, "rank %d: %s", rank, why);
    } else if (err || eventfd_write(w->always, 1)) {
        result = cinch_fail_errno(err, "rank %d has no descriptor for UCX", rank);
    } else {
        ucs_status_t status = create(w);
        if (status != UCS_OK)
            result = cinch_fail(cinchSystemError, "rank %d cannot open UCX: %s", rank,
                                w->ucx->ucs_status_string(status));
    }
    if (result == cinchSuccess)
        *out = w;
    else
        cinch_ucx_worker_drop(w);
    return result;
}

void cinch_ucx_worker_progress(cinch_ucx_worker *w) {
    w->rounds++;
    for (int i = 0; i < ROUNDS_AT_ONCE; i++)
        if (w->ucx->ucp_worker_progress(w->worker) == 0) break;
    while (w->busy) {
        cinch_ucx_link *link = w->busy;
        w->busy = cinch_ucx_link_next_busy(link);
        cinch_ucx_link_step(link);
    }
}

/* UCX's descriptor tells of what comes after it was armed, and cannot be armed while something is
 * there already. */
int cinch_ucx_worker_fd(cinch_ucx_worker *w) {
    if (w->busy || w->ucx->ucp_worker_arm(w->worker) != UCS_OK) return w->always;
    return w->fd;
}

static void on_error(void *arg, ucp_ep_h ep, ucs_status_t status) {
    cinch_ucx_end *end = arg;
    cinch_ucx_link *link = end->worker->link[end->peer];
    (void)ep;
    end->broken = status;
    if (link) cinch_ucx_link_broken(link, status);
}

ucs_status_t cinch_ucx_ep_open(cinch_ucx_worker *w, int peer, const void *address, bool peer_mode,
                               ucp_ep_h *ep) {
    ucp_ep_params_t params = {
        .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER,
        .address = address,
        .err_mode = peer_mode ? UCP_ERR_HANDLING_MODE_PEER : UCP_ERR_HANDLING_MODE_NONE,
        .err_handler = {on_error, &w->end[peer]}};
    w->end[peer].broken = UCS_OK;
    return w->ucx->ucp_ep_create(w->worker, &params, ep);
}

/* False: it is still under way after a second. */
static bool close_by(cinch_ucx_worker *w, ucp_ep_h ep, uint32_t flags) {
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = flags};
    ucs_status_ptr_t request = w->ucx->ucp_ep_close_nbx(ep, &param);
    if (!UCS_PTR_IS_PTR(request)) return true;
    uint64_t deadline = cinch_now_ns() + CLOSE_NS;
    bool open = true;
    while (open && cinch_now_ns() < deadline) {
        cinch_ucx_worker_progress(w);
        open = w->ucx->ucp_request_check_status(request) == UCS_INPROGRESS;
    }
    w->ucx->ucp_request_free(request);
    return !open;
}

void cinch_ucx_ep_close(cinch_ucx_worker *w, ucp_ep_h ep, bool at_once) {
    if (!close_by(w, ep, at_once ? UCP_EP_CLOSE_FLAG_FORCE : 0))
        cinch_debug("rank %d gave up waiting for an endpoint of UCX to close", w->rank);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Which ranks' device memory this one can read: cards, stages, probes. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/hash.h"
#include "base/heap.h"
#include "base/log.h"
#include "coll/gpu.h"

enum { READY = 1, READY_WITHOUT_STAGE = 2, PROBE_ROOM = 512 };
enum { SHOWING = 1, SHOWN = 2 };

/* ---- made and left ---- */

static size_t card_bytes(int nranks) {
    return sizeof(cinch_gpu_card) + (size_t)nranks * sizeof(cinch_gpu_answer);
}

/* Another rank's heap that this one sees, and that sees this one's. */
static bool sees(const struct cinchComm *comm, int q) {
    const cinch_shm *shm = comm->net->shm;
    return shm && shm->window[comm->rank].heap && shm->window[q].heap;
}

/* A copy on the device checks no payloads: with CINCH_CHECKSUM=1 all go over links. */
static bool wanted(const struct cinchComm *comm) {
    bool any = false;
    for (int q = 0; q < comm->nranks; q++) any |= q != comm->rank && sees(comm, q);
    return any && cinch_gpu_kernels() && !comm->settings.checksum;
}

void cinch_gpu_peers_offer(struct cinchComm *comm, uint64_t *where) {
    size_t n = (size_t)comm->nranks, offset;
    void *card = NULL;
    *where = 0;
    if (!wanted(comm)) return;
    cinch_gpu_peers *p = calloc(1, sizeof *p + n * sizeof *p->peer);
    if (!p || cinch_heap_try(&card, card_bytes(comm->nranks)) != cinchSuccess ||
        !cinch_heap_offset(card, card_bytes(comm->nranks), &offset)) {
        static atomic_bool said;
        if (!atomic_exchange(&said, true))
            cinch_info("messages on devices go through the host's memory (%s)",
                       p ? cinch_last_error() : "out of memory");
        free(p);
        return;
    }
    p->process = getpid();
    p->rank = comm->rank;
    p->nranks = comm->nranks;
    p->card = card;
    comm->gpu_peers = p;
    *where = offset + 1;
}

void cinch_gpu_peers_meet(struct cinchComm *comm, int q, uint64_t where) {
    cinch_gpu_peers *p = comm->gpu_peers;
    if (!p) return;
    p->met = true;
    if (q == p->rank || !where || !sees(comm, q)) return;
    const cinch_window *w = &comm->net->shm->window[q];
    size_t bytes = card_bytes(p->nranks);
    if (where - 1 > w->heap_bytes || bytes > w->heap_bytes - (where - 1)) return;
    p->peer[q].card = (cinch_gpu_card *)(void *)(w->heap + (where - 1));
    p->peer[q].here = w->heap == comm->net->shm->window[p->rank].heap;
    atomic_fetch_add(&p->card->users, 1); /* it may have left already */
}

/* What peers may still have open. Memory of a device is freed where a communicator's is anyway:
 * that waits for the device. */
static void sweep(cinch_gpu_peers *more) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static cinch_gpu_peers *list;
    cinch_gpu_peers *over = NULL;
    pthread_mutex_lock(&lock);
    if (more) {
        more->next = list;
        list = more;
    }
    for (cinch_gpu_peers **at = &list; *at;) {
        cinch_gpu_peers *p = *at;
        bool ours = p->process == getpid(); /* else the heap and the device are the parent's */
        if (ours && (!p->met || atomic_load(&p->card->users))) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        p->next = over;
        over = p;
    }
    pthread_mutex_unlock(&lock);
    while (over) { /* which may wait for the device, and so for other ranks of this process */
        cinch_gpu_peers *p = over;
        bool ours = p->process == getpid();
        over = p->next;
        for (int i = 0; ours && i < CINCH_GPU_STAGES; i++)
            if (p->stage[i]) p->work->release(p->device, p->stage[i]);
        if (ours) (void)cinch_heap_release(p->card);
        free(p);
    }
}

void cinch_gpu_peers_leave(struct cinchComm *comm) {
    cinch_gpu_peers *p = comm->gpu_peers;
    if (!p) return;
    for (int q = 0; q < p->nranks && p->process == getpid(); q++) { /* else it is the parent's */
        cinch_gpu_peer *peer = &p->peer[q];
        for (int i = 0; i < CINCH_GPU_STAGES; i++)
            if (peer->stage[i]) p->work->close_shared(p->device, peer->stage[i]);
        if (peer->card) atomic_fetch_sub(&peer->card->users, 1);
    }
    comm->gpu_peers = NULL;
    sweep(p);
}

/* ---- stages ---- */

static cinchResult_t add_stage(cinch_gpu_peers *p, cinch_gpu_comm *g, size_t bytes) {
    uint32_t last = atomic_load(&p->card->stages);
    if (last == CINCH_GPU_STAGES)
        return cinch_fail(cinchInternalError, "%d stages are not enough", CINCH_GPU_STAGES);
    size_t least = last ? 2 * p->card->stage[last - 1].bytes : CINCH_GPU_STAGE_LEAST;
    bytes = (bytes + CINCH_GPU_STAGE_LEAST - 1) / CINCH_GPU_STAGE_LEAST * CINCH_GPU_STAGE_LEAST;
    if (bytes < least) bytes = least;
    CINCH_TRY(g->work->alloc(g->device, bytes, &p->stage[last]));
    CINCH_TRY(g->work->share(g->device, p->stage[last], &p->card->stage[last].handle));
    p->card->stage[last].bytes = bytes;
    atomic_store(&p->card->stages, last + 1);
    return cinchSuccess;
}

cinchResult_t cinch_gpu_stage(cinch_op *op, size_t bytes, unsigned char **stage) {
    cinch_gpu_peers *p = op->call.comm->gpu_peers;
    *stage = NULL;
    if (!bytes) return cinchSuccess;
    uint32_t stages = atomic_load(&p->card->stages);
    bytes += PROBE_ROOM; /* peers may still have to look at that */
    if (bytes > p->card->stage[stages - 1].bytes) CINCH_TRY(add_stage(p, op->gpu, bytes));
    *stage = (unsigned char *)p->stage[atomic_load(&p->card->stages) - 1] + PROBE_ROOM;
    return cinchSuccess;
}

/* ---- finding out ---- */

static void say_refused(const char *what, int q) {
    cinch_info("%s %d: their messages on the device go through the host's memory (%s)", what, q,
               cinch_last_error());
}

/* What reads as garbage elsewhere. */
static void draw_probe(const cinch_gpu_peers *p, uint64_t probe[2]) {
    struct {
        const void *card;
        uint64_t now;
        pid_t process;
        int rank;
    } seed;
    memset(&seed, 0, sizeof seed);
    seed.card = p->card;
    seed.now = cinch_ticks();
    seed.process = p->process;
    seed.rank = p->rank;
    probe[0] = cinch_hash(&seed, sizeof seed);
    seed.now = ~seed.now;
    probe[1] = cinch_hash(&seed, sizeof seed);
}

static cinchResult_t make_stage(cinch_gpu_peers *p, cinch_gpu_comm *g) {
    size_t bytes = sizeof g->mail->probe;
    CINCH_TRY(add_stage(p, g, CINCH_GPU_STAGE_LEAST));
    draw_probe(p, p->card->probe);
    memcpy(g->mail->probe, p->card->probe, bytes);
    CINCH_TRY(g->work->copy(g->device, cinch_gpu_down(g), p->stage[0], g->mail->probe, bytes));
    return g->work->record(g->end[1], cinch_gpu_down(g));
}

void cinch_gpu_peers_show(struct cinchComm *comm) {
    cinch_gpu_peers *p = comm->gpu_peers;
    uint32_t none = 0;
    bool elsewhere = false;
    if (atomic_load(&comm->joining) || !p || atomic_load(&p->shown) == SHOWN) return;
    if (!atomic_compare_exchange_strong(&p->shown, &none, SHOWING)) return;
    p->work = comm->gpu->work;
    p->device = p->card->device = comm->gpu->device;
    for (int q = 0; q < p->nranks; q++) elsewhere |= p->peer[q].card && !p->peer[q].here;
    if (elsewhere && make_stage(p, comm->gpu) != cinchSuccess) {
        p->refused = true;
        say_refused("other processes cannot read the device memory of rank", p->rank);
    }
    atomic_store(&p->shown, SHOWN);
}

/* Whether peers may look at the card: the first stage begins as it shall. */
static cinchResult_t is_ready(cinch_op *op, bool *ready) {
    cinch_gpu_peers *p = op->call.comm->gpu_peers;
    cinch_gpu_comm *g = op->gpu;
    *ready = atomic_load(&p->card->ready) != 0;
    if (*ready) return cinchSuccess;
    cinch_gpu_peers_show(op->call.comm);
    if (atomic_load(&p->shown) != SHOWN) return cinchSuccess; /* the caller's thread is at it */
    cinchResult_t state = p->stage[0] ? g->work->passed(g->end[1]) : cinchSuccess;
    if (state == cinchInProgress) return cinchSuccess;
    CINCH_TRY(state);
    atomic_store(&p->card->ready, p->refused ? READY_WITHOUT_STAGE : READY);
    *ready = true;
    return cinchSuccess;
}

/* Opens the first stage of a rank in another process and reads what stands there. It is closed with
 * the communicator: that may wait for the device, and so for the operation that runs here. */
static cinchResult_t try_stage(cinch_op *op, int q) {
    cinch_gpu_peers *p = op->call.comm->gpu_peers;
    cinch_gpu_peer *peer = &p->peer[q];
    cinch_gpu_comm *g = op->gpu;
    uint64_t *seen = g->mail->probe;
    CINCH_TRY(p->work->open_shared(p->device, &peer->card->stage[0].handle, &peer->stage[0]));
    memset(seen, 0, sizeof g->mail->probe);
    cinchResult_t result =
        g->work->copy(g->device, cinch_gpu_up(g), seen, peer->stage[0], sizeof g->mail->probe);
    if (result == cinchSuccess) result = cinch_gpu_sync(g, 2);
    if (result == cinchSuccess && memcmp(seen, peer->card->probe, sizeof g->mail->probe) != 0)
        result = cinch_fail_quiet(cinchSystemError, "what was opened is other memory");
    return result;
}

static void look_at(cinch_op *op, int q) {
    cinch_gpu_peers *p = op->call.comm->gpu_peers;
    const cinch_gpu_peer *peer = &p->peer[q];
    uint32_t ready = atomic_load_explicit(&peer->card->ready, memory_order_acquire);
    if (!ready) return;
    bool reached = peer->here ? p->work->reaches(p->device, peer->card->device)
                              : ready == READY && try_stage(op, q) == cinchSuccess;
    if (!reached && ready == READY && !p->refused) {
        p->refused = true;
        say_refused("this rank cannot read the device memory of rank", q);
    }
    atomic_store_explicit(&p->card->answer[q].verdict,
                          reached ? CINCH_PEER_REACHED : CINCH_PEER_APART, memory_order_release);
}

static uint32_t verdict_of(const cinch_gpu_card *card, int q) {
    return atomic_load_explicit(&card->answer[q].verdict, memory_order_acquire);
}

cinchResult_t cinch_gpu_peers_settle(cinch_op *op, bool *settled) {
    cinch_gpu_peers *p = op->call.comm->gpu_peers;
    *settled = !p || p->settled;
    if (*settled) return cinchSuccess;
    bool ready;
    CINCH_TRY(is_ready(op, &ready));
    if (!ready) return cinchSuccess;
    p->settled = true;
    for (int q = 0; q < p->nranks; q++) {
        if (!p->peer[q].card) continue;
        if (!verdict_of(p->card, q)) look_at(op, q);
        uint32_t ours = verdict_of(p->card, q), theirs = verdict_of(p->peer[q].card, p->rank);
        p->peer[q].direct = ours == CINCH_PEER_REACHED && theirs == CINCH_PEER_REACHED;
        if (ours && theirs) continue;
        p->settled = false;
        op->blocked_peer = q;
    }
    *settled = p->settled;
    return cinchSuccess;
}

bool cinch_gpu_direct(const struct cinchComm *comm, int q) {
    const cinch_gpu_peers *p = comm->gpu_peers;
    return p && p->peer[q].direct;
}

bool cinch_gpu_may_note(const struct cinchComm *comm, int q, size_t bytes) {
    const cinch_gpu_peers *p = comm->gpu_peers;
    return p && p->peer[q].card && bytes > sizeof(cinch_gpu_note) &&
           verdict_of(p->card, q) == CINCH_PEER_REACHED;
}

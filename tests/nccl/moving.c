/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in: each work posts what the rank offers, waits for its peers' offers, reads them into
 * memory of its own, waits until its peers have read what it offered, and writes its results. */
#include <stdlib.h>
#include <time.h>

#include "compress/dtype.h"
#include "compress/reduce.h"
#include "tests/nccl/moving_inside.h"

static comm all[COMMS], *last_on[CUDA_FAKE_DEVICES];
int moving_aborts;
pthread_mutex_t moving_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t moving_changed = PTHREAD_COND_INITIALIZER;

typedef struct called {
    comm *comm;
    offer offer;
    void *recv;
    int peer;
    cudaStream_t stream;
    int color, key;
    cinchComm_t *made;
} called;

static _Thread_local struct {
    int depth, count;
    called op[OPS];
} group;

#define CUDA CUDA_MUST

comm *moving_known(cinchComm_t handle) {
    comm *c = (comm *)(void *)handle;
    return c >= all && c < all + COMMS && c->there ? c : NULL;
}
#define COMM(handle)                                                                               \
    comm *c = moving_known(handle);                                                                \
    if (!c) return cinchInvalidArgument

/* ---- works ---- */

typedef struct piece {
    called op;
    uint32_t number; /* of the collective, or the message of its pair */
    unsigned char *result;
    size_t bytes;
} piece;

typedef struct job {
    comm *comm;
    clique *clique;
    int rank, count;
    uint32_t offered; /* of the communicator after it */
    piece piece[];
} job;

static void raise(uint32_t *word, uint32_t to) {
    if ((int32_t)(to - __atomic_load_n(word, __ATOMIC_RELAXED)) > 0)
        __atomic_store_n(word, to, __ATOMIC_RELEASE);
}

static void post_offers(void *arg) {
    job *j = *(job **)arg;
    struct words *w = j->clique->words;
    raise(&w->offered[j->rank], j->offered);
    for (int i = 0; i < j->count; i++)
        if (j->piece[i].op.offer.what == SEND)
            raise(&w->sent[j->rank][j->piece[i].op.peer], j->piece[i].number + 1);
}

static void post_reads(void *arg) {
    job *j = *(job **)arg;
    struct words *w = j->clique->words;
    raise(&w->read[j->rank], j->offered);
    for (int i = 0; i < j->count; i++)
        if (j->piece[i].op.offer.what == RECV)
            raise(&w->taken[j->piece[i].op.peer][j->rank], j->piece[i].number + 1);
}

static void check_same(const offer *a, const offer *b, int q) {
    if (a->what != b->what || a->count != b->count || a->dtype != b->dtype || a->op != b->op ||
        a->root != b->root || !a->premul != !b->premul)
        cinch_emulate_wrong("rank %d calls collective %d of %zu, another %d of %zu", q,
                            (int)b->what, b->count, (int)a->what, a->count);
}

/* What rank q puts into a sum; where that is multiplied first, in memory for that. */
static const void *term_of(const job *j, const offer *theirs, size_t count, unsigned char **own) {
    size_t esize = cinch_dtype_size(theirs->dtype);
    const char *from = theirs->send;
    if (theirs->what == REDUCE_SCATTER) from += (size_t)j->rank * count * esize;
    if (!theirs->premul) return from;
    *own = malloc(count * esize);
    cinch_premul(*own, from, theirs->dtype, count,
                 theirs->premul->there ? theirs->premul->there : theirs->premul->bits);
    return *own;
}

static void read_sum(const job *j, piece *p, const offer *every) {
    const offer *mine = &p->op.offer;
    const void *src[RANKS];
    unsigned char *own[RANKS] = {NULL};
    bool avg = mine->op == cinchAvg;
    for (int q = 0; q < j->clique->n; q++) src[q] = term_of(j, &every[q], mine->count, &own[q]);
    void *dst = p->result;
    cinch_reduce_fn reduce = cinch_reduce_kernel(mine->dtype, avg ? cinchSum : mine->op);
    reduce(&dst, 1, src, j->clique->n, mine->count, avg ? j->clique->n : 0, 0);
    for (int q = 0; q < j->clique->n; q++) free(own[q]);
}

static void read_collective(const job *j, piece *p) {
    const offer *mine = &p->op.offer, *every = j->clique->collective[p->number % RING];
    size_t n = (size_t)j->clique->n, block = mine->count * cinch_dtype_size(mine->dtype);
    for (int q = 0; q < j->clique->n; q++) check_same(mine, &every[q], q);
    if (mine->what == REDUCE && mine->root != j->rank) return;
    p->bytes = mine->what == ALL_GATHER ? n * block : block;
    p->result = malloc(p->bytes);
    if (mine->what == BROADCAST) {
        memcpy(p->result, every[mine->root].send, block);
    } else if (mine->what == ALL_GATHER) {
        for (size_t q = 0; q < n; q++) memcpy(p->result + q * block, every[q].send, block);
    } else {
        read_sum(j, p, every);
    }
}

static void read_message(const job *j, piece *p) {
    const offer *theirs = &j->clique->message[p->op.peer][j->rank][p->number % RING];
    p->bytes = p->op.offer.count * cinch_dtype_size(p->op.offer.dtype);
    if (theirs->count * cinch_dtype_size(theirs->dtype) != p->bytes)
        cinch_emulate_wrong("rank %d sends %zu to rank %d, which expects %zu", p->op.peer,
                            theirs->count, j->rank, p->op.offer.count);
    p->result = malloc(p->bytes);
    memcpy(p->result, theirs->send, p->bytes);
}

static void read_offers(void *arg) {
    job *j = *(job **)arg;
    bool aborted = __atomic_load_n(&j->clique->aborted, __ATOMIC_ACQUIRE);
    for (int i = 0; i < j->count && !aborted; i++)
        if (j->piece[i].op.offer.what == RECV)
            read_message(j, &j->piece[i]);
        else if (j->piece[i].op.offer.what != SEND)
            read_collective(j, &j->piece[i]);
}

static void write_results(void *arg) {
    job *j = *(job **)arg;
    for (int i = 0; i < j->count; i++) {
        if (j->piece[i].result) memcpy(j->piece[i].op.recv, j->piece[i].result, j->piece[i].bytes);
        free(j->piece[i].result);
    }
    free(j);
}

static void queue(cudaStream_t stream, void (*body)(void *arg), job *j) {
    CUDA((cudaError_t)cinch_emulate_launch(stream, 1, 1, body, &j, sizeof j));
}

static void await(cudaStream_t stream, const uint32_t *word, uint32_t value) {
    CUDA((cudaError_t)cuda_fake_wait_value(stream, (CUdeviceptr)(uintptr_t)word, value,
                                           CU_STREAM_WAIT_VALUE_GEQ));
}

static void count_call(comm *c, const called *op) {
    size_t bytes = op->offer.count * cinch_dtype_size(op->offer.dtype);
    c->seen.allreduces += op->offer.what == ALL_REDUCE;
    c->seen.allgathers += op->offer.what == ALL_GATHER;
    c->seen.reducescatters += op->offer.what == REDUCE_SCATTER;
    c->seen.broadcasts += op->offer.what == BROADCAST;
    c->seen.reduces += op->offer.what == REDUCE;
    c->seen.sends += op->offer.what == SEND;
    c->seen.recvs += op->offer.what == RECV;
    c->seen.premuls += op->offer.premul != NULL;
    if (op->offer.what == SEND || op->offer.what == ALL_GATHER) c->seen.bytes += bytes;
}

static job *make_job(comm *c, const called *ops, int count) {
    job *j = calloc(1, sizeof *j + (size_t)count * sizeof(piece));
    j->comm = c;
    j->clique = c->clique;
    j->rank = c->rank;
    pthread_mutex_lock(&moving_lock);
    for (int i = 0; i < count; i++) {
        if (ops[i].comm != c || ops[i].offer.what == SPLIT) continue;
        piece *p = &j->piece[j->count++];
        p->op = ops[i];
        count_call(c, &ops[i]);
        if (ops[i].offer.what == SEND) {
            p->number = c->sent[ops[i].peer]++;
            c->clique->message[c->rank][ops[i].peer][p->number % RING] = ops[i].offer;
        } else if (ops[i].offer.what == RECV) {
            p->number = c->received[ops[i].peer]++;
        } else {
            p->number = c->collectives++;
            c->clique->collective[p->number % RING][c->rank] = ops[i].offer;
        }
    }
    j->offered = c->collectives;
    pthread_mutex_unlock(&moving_lock);
    return j;
}

/* Streams of the work come to one point, and go on from its end. */
static void join(const comm *c, const called *ops, int count, cudaStream_t stream, bool after) {
    for (int i = 0; i < count; i++) {
        cudaStream_t other = ops[i].stream;
        if (ops[i].comm != c || ops[i].offer.what == SPLIT || other == stream) continue;
        cudaEvent_t event;
        CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
        CUDA(cudaEventRecord(event, after ? stream : other));
        CUDA(cudaStreamWaitEvent(after ? other : stream, event, 0));
        CUDA(cudaEventDestroy(event));
    }
}

static bool is_captured(cudaStream_t stream) {
    enum cudaStreamCaptureStatus status;
    CUDA(cudaStreamIsCapturing(stream, &status));
    return status != cudaStreamCaptureStatusNone;
}

static void launch(comm *c, const called *ops, int count) {
    int before;
    job *j = make_job(c, ops, count);
    cudaStream_t stream = j->count ? j->piece[0].op.stream : NULL;
    if (!j->count || is_captured(stream)) { /* no graph of the emulation is ever run */
        free(j);
        return;
    }
    struct words *w = c->clique->words;
    CUDA(cudaGetDevice(&before));
    CUDA(cudaSetDevice(c->device));
    join(c, ops, count, stream, false);
    if (c->ran) CUDA(cudaStreamWaitEvent(stream, c->last, 0));
    queue(stream, post_offers, j);
    for (int i = 0; i < j->count; i++) {
        const piece *p = &j->piece[i];
        if (p->op.offer.what == RECV) await(stream, &w->sent[p->op.peer][c->rank], p->number + 1);
        for (int q = 0; p->op.offer.what < SEND && q < c->clique->n; q++)
            await(stream, &w->offered[q], p->number + 1);
    }
    queue(stream, read_offers, j);
    queue(stream, post_reads, j);
    for (int i = 0; i < j->count; i++) {
        const piece *p = &j->piece[i];
        if (p->op.offer.what == SEND) await(stream, &w->taken[c->rank][p->op.peer], p->number + 1);
        for (int q = 0; p->op.offer.what < SEND && q < c->clique->n; q++)
            await(stream, &w->read[q], p->number + 1);
    }
    queue(stream, write_results, j);
    CUDA(cudaEventRecord(c->last, stream));
    c->ran = true;
    join(c, ops, count, stream, true);
    CUDA(cudaSetDevice(before));
}

/* ---- groups ---- */

static int compare_keys(const clique *k, int a, int b) {
    return k->split.key[a] != k->split.key[b] ? k->split.key[a] - k->split.key[b] : a - b;
}

comm *moving_new(clique *k, int rank, int device) {
    comm *c = all;
    while (c < all + COMMS && c->there) c++;
    if (c == all + COMMS) cinch_emulate_wrong("too many communicators");
    int before;
    *c = (comm){.there = true, .clique = k, .rank = rank, .device = device};
    last_on[device] = c;
    CUDA(cudaGetDevice(&before));
    CUDA(cudaSetDevice(device));
    CUDA(cudaEventCreateWithFlags(&c->last, cudaEventDisableTiming));
    CUDA(cudaSetDevice(before));
    return c;
}

clique *moving_new_clique(int n) {
    clique *k = calloc(1, sizeof *k);
    k->n = k->alive = n; /* ranks that have not ended, whether they came or not */
    CUDA(cudaHostAlloc((void **)&k->words, sizeof *k->words, cudaHostAllocPortable));
    memset(k->words, 0, sizeof *k->words);
    return k;
}

/* The last rank divides them all; everybody takes what is its own. The lock is held. */
static void divide(clique *k) {
    for (int r = 0; r < k->n; r++) {
        int members = 0, rank = 0;
        clique *of = NULL;
        for (int q = 0; q < k->n; q++) {
            if (k->split.color[q] != k->split.color[r]) continue;
            members++;
            rank += compare_keys(k, q, r) < 0;
            if (q < r) of = k->split.of[q];
        }
        k->split.of[r] = of ? of : moving_new_clique(members);
        k->split.rank[r] = rank;
    }
    k->split.left = k->n;
}

static void split_all(void) {
    pthread_mutex_lock(&moving_lock);
    for (int i = 0; i < group.count; i++) {
        const called *op = &group.op[i];
        if (op->offer.what != SPLIT) continue;
        clique *k = op->comm->clique;
        while (k->split.left) pthread_cond_wait(&moving_changed, &moving_lock);
        k->split.color[op->comm->rank] = op->color;
        k->split.key[op->comm->rank] = op->key;
        if (++k->split.came == k->n) divide(k);
        pthread_cond_broadcast(&moving_changed);
    }
    for (int i = 0; i < group.count; i++) {
        const called *op = &group.op[i];
        if (op->offer.what != SPLIT) continue;
        clique *k = op->comm->clique;
        while (!k->split.left) pthread_cond_wait(&moving_changed, &moving_lock);
        int r = op->comm->rank;
        comm *made = moving_new(k->split.of[r], k->split.rank[r], op->comm->device);
        made->slow = op->comm->slow;
        made->dawdles = made->slow ? 3 : 0;
        *op->made = (cinchComm_t)(void *)made;
        if (--k->split.left == 0) k->split.came = 0;
        pthread_cond_broadcast(&moving_changed);
    }
    pthread_mutex_unlock(&moving_lock);
}

/* A communicator's first work, and its first with messages, wait for all ranks: of all that the
 * group holds at once. */
static void connect_all(void) {
    bool comes[OPS][2] = {{false}};
    pthread_mutex_lock(&moving_lock);
    for (int i = 0; i < group.count; i++) {
        comm *c = group.op[i].comm;
        int which = group.op[i].offer.what >= SEND;
        if (c->launched[which] || group.op[i].offer.what == SPLIT) continue;
        c->launched[which] = true;
        comes[i][which] = !c->slow; /* one that does not block says InProgress meanwhile */
        c->clique->first[which]++;
        pthread_cond_broadcast(&moving_changed);
    }
    for (int i = 0; i < group.count; i++)
        for (int which = 0; which < 2; which++) {
            const clique *k = group.op[i].comm->clique;
            while (comes[i][which] && k->first[which] < k->n)
                pthread_cond_wait(&moving_changed, &moving_lock);
        }
    pthread_mutex_unlock(&moving_lock);
}

static cinchResult_t group_start(void) {
    group.depth++;
    return cinchSuccess;
}

static cinchResult_t group_end(void) {
    bool slow = false;
    if (group.depth < 1) return cinchInvalidUsage;
    if (--group.depth > 0) return cinchSuccess;
    split_all();
    connect_all();
    for (int i = 0; i < group.count; i++) {
        bool first = true;
        for (int k = 0; k < i; k++) first &= group.op[k].comm != group.op[i].comm;
        if (first) launch(group.op[i].comm, group.op, group.count);
        slow |= group.op[i].comm->slow;
        if (group.op[i].comm->slow) group.op[i].comm->dawdles = 3;
    }
    group.count = 0;
    return slow ? cinchInProgress : cinchSuccess;
}

static cinchResult_t group_simulate(cinchSimInfo_t *info) {
    (void)info;
    if (group.depth < 1) return cinchInvalidUsage;
    if (--group.depth == 0) group.count = 0;
    return cinchSuccess;
}

static cinchResult_t add(called op) {
    if (op.comm->dawdles) return cinchInvalidArgument; /* the last call has not ended */
    if (group.count == OPS) cinch_emulate_wrong("too many calls in a group");
    group.depth++;
    group.op[group.count++] = op;
    return group_end();
}

/* ---- calls ---- */

static cinchResult_t all_reduce(const void *send, void *recv, size_t count, cinchDataType_t dtype,
                                cinchRedOp_t op, cinchComm_t handle, cinchStream_t stream) {
    COMM(handle);
    offer o = {ALL_REDUCE, send, count, dtype, op, 0, moving_scalar_of(c, op, dtype)};
    if (o.premul) o.op = cinchSum;
    if (o.op >= cinchNumOps) return cinchInvalidArgument;
    return add((called){.comm = c, .offer = o, .recv = recv, .stream = stream});
}

static cinchResult_t all_gather(const void *send, void *recv, size_t count, cinchDataType_t dtype,
                                cinchComm_t handle, cinchStream_t stream) {
    COMM(handle);
    offer o = {ALL_GATHER, send, count, dtype, 0, 0, NULL};
    return add((called){.comm = c, .offer = o, .recv = recv, .stream = stream});
}

static cinchResult_t reduce_scatter(const void *send, void *recv, size_t count,
                                    cinchDataType_t dtype, cinchRedOp_t op, cinchComm_t handle,
                                    cinchStream_t stream) {
    COMM(handle);
    offer o = {REDUCE_SCATTER, send, count, dtype, op, 0, moving_scalar_of(c, op, dtype)};
    if (o.premul) o.op = cinchSum;
    if (o.op >= cinchNumOps) return cinchInvalidArgument;
    return add((called){.comm = c, .offer = o, .recv = recv, .stream = stream});
}

static cinchResult_t broadcast(const void *send, void *recv, size_t count, cinchDataType_t dtype,
                               int root, cinchComm_t handle, cinchStream_t stream) {
    COMM(handle);
    offer o = {BROADCAST, send, count, dtype, 0, root, NULL};
    return add((called){.comm = c, .offer = o, .recv = recv, .stream = stream});
}

static cinchResult_t reduce_to(const void *send, void *recv, size_t count, cinchDataType_t dtype,
                               cinchRedOp_t op, int root, cinchComm_t handle,
                               cinchStream_t stream) {
    COMM(handle);
    offer o = {REDUCE, send, count, dtype, op, root, moving_scalar_of(c, op, dtype)};
    if (o.premul) o.op = cinchSum;
    if (o.op >= cinchNumOps) return cinchInvalidArgument;
    return add((called){.comm = c, .offer = o, .recv = recv, .stream = stream});
}

static cinchResult_t send_to(const void *send, size_t count, cinchDataType_t dtype, int peer,
                             cinchComm_t handle, cinchStream_t stream) {
    COMM(handle);
    offer o = {SEND, send, count, dtype, 0, 0, NULL};
    return add((called){.comm = c, .offer = o, .peer = peer, .stream = stream});
}

static cinchResult_t recv_from(void *recv, size_t count, cinchDataType_t dtype, int peer,
                               cinchComm_t handle, cinchStream_t stream) {
    COMM(handle);
    offer o = {RECV, NULL, count, dtype, 0, 0, NULL};
    return add((called){.comm = c, .offer = o, .recv = recv, .peer = peer, .stream = stream});
}

static cinchResult_t comm_split(cinchComm_t handle, int color, int key, cinchComm_t *made,
                                cinchConfig_t *config) {
    COMM(handle);
    (void)config;
    offer o = {.what = SPLIT};
    return add((called){.comm = c, .offer = o, .color = color, .key = key, .made = made});
}

static cinchResult_t comm_count(const cinchComm_t handle, int *count) {
    COMM(handle);
    *count = c->clique->n;
    return cinchSuccess;
}
static cinchResult_t comm_rank(const cinchComm_t handle, int *rank) {
    COMM(handle);
    *rank = c->rank;
    return cinchSuccess;
}
static cinchResult_t comm_device(const cinchComm_t handle, int *device) {
    COMM(handle);
    *device = c->device;
    return cinchSuccess;
}

/* Whether a communicator that does not block waits for other ranks. */
static bool connects(const comm *c) {
    pthread_mutex_lock(&moving_lock);
    bool waits = c->inits && c->clique->made < c->clique->n;
    for (int which = 0; which < 2; which++)
        waits |= c->slow && c->launched[which] && c->clique->first[which] < c->clique->n;
    pthread_mutex_unlock(&moving_lock);
    return waits;
}

static cinchResult_t async_error(cinchComm_t handle, cinchResult_t *state) {
    COMM(handle);
    bool waits = connects(c) || (c->state == cinchSuccess && c->dawdles);
    *state = waits ? cinchInProgress : c->state;
    if (c->dawdles) c->dawdles--;
    return cinchSuccess;
}

/* Lets go of what waits for others. */
static void release_all(clique *k) {
    enum { BEYOND = 0x7f000000 };
    uint32_t *word = (uint32_t *)k->words;
    __atomic_store_n(&k->aborted, true, __ATOMIC_RELEASE);
    for (size_t i = 0; i < sizeof *k->words / sizeof *word; i++) raise(&word[i], BEYOND);
}

/* Waits for the communicator's work, as NCCL's does. */
static cinchResult_t comm_destroy(cinchComm_t handle) {
    COMM(handle);
    if (c->ran) CUDA(cudaEventSynchronize(c->last));
    CUDA(cudaEventDestroy(c->last));
    while (c->scalars) {
        moving_scalar *next = c->scalars->next;
        free(c->scalars);
        c->scalars = next;
    }
    pthread_mutex_lock(&moving_lock);
    c->there = false;
    if (--c->clique->alive == 0) {
        moving_forget(c->clique);
        CUDA(cudaFreeHost(c->clique->words));
        free(c->clique);
    }
    pthread_mutex_unlock(&moving_lock);
    return cinchSuccess;
}

static cinchResult_t comm_abort(cinchComm_t handle) {
    COMM(handle);
    release_all(c->clique);
    moving_aborts++;
    return comm_destroy(handle);
}

const cinch_real moving_nccl = {.AllGather = all_gather,
                                .AllReduce = all_reduce,
                                .Broadcast = broadcast,
                                .CommAbort = comm_abort,
                                .CommCount = comm_count,
                                .CommCuDevice = comm_device,
                                .CommDestroy = comm_destroy,
                                .CommGetAsyncError = async_error,
                                .CommInitRankConfig = moving_init_rank,
                                .CommUserRank = comm_rank,
                                .GroupEnd = group_end,
                                .GetLastError = moving_last_error,
                                .GetUniqueId = moving_unique_id,
                                .GroupStart = group_start,
                                .Recv = recv_from,
                                .RedOpCreatePreMulSum = moving_premul,
                                .RedOpDestroy = moving_premul_forget,
                                .Reduce = reduce_to,
                                .ReduceScatter = reduce_scatter,
                                .Send = send_to,
                                .CommSplit = comm_split,
                                .GroupSimulateEnd = group_simulate};

void moving_init(cinchComm_t *comms, int n, const int *devices) {
    pthread_mutex_lock(&moving_lock);
    clique *k = moving_new_clique(n);
    for (int r = 0; r < n; r++)
        comms[r] = (cinchComm_t)(void *)moving_new(k, r, devices ? devices[r] : 0);
    pthread_mutex_unlock(&moving_lock);
}

moving_seen moving_look(cinchComm_t comm_handle) {
    return moving_known(comm_handle)->seen;
}
moving_seen moving_look_at(int device) {
    return last_on[device] ? last_on[device]->seen : (moving_seen){0};
}
cinchComm_t moving_newest(int device) {
    return (cinchComm_t)(void *)last_on[device];
}
void moving_dawdle(cinchComm_t comm_handle) {
    moving_known(comm_handle)->slow = true;
}
void moving_break(cinchComm_t comm_handle, cinchResult_t state) {
    moving_known(comm_handle)->state = state;
}

int moving_held(void) {
    int held = 0;
    for (int i = 0; i < COMMS; i++) held += all[i].there;
    return held;
}

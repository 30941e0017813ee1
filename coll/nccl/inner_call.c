/* SPDX-License-Identifier: Apache-2.0 */
/* Calls on device memory by an inner communicator of NCCL, on the callers' streams. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coll/gpu.h"
#include "coll/group.h"
#include "coll/nccl/inner.h"
#include "coll/nccl/steps.h"
#include "compress/dtype.h"

/* What a list's calls are about. */
typedef struct calling {
    struct cinchComm **comms; /* each once */
    int count;
    cinch_op *ops;        /* those that go by NCCL */
    cinch_wanted *wanted; /* the compressed ones */
    cinch_wanted **end;
} calling;

static cinch_inner *inner_of(const struct cinchComm *comm) {
    return atomic_load_explicit(&comm->inner, memory_order_relaxed);
}

/* ---- who ---- */

static bool note(calling *c, struct cinchComm *comm) {
    for (int i = 0; i < c->count; i++)
        if (c->comms[i] == comm) return true;
    struct cinchComm **more = realloc(c->comms, (size_t)(c->count + 1) * sizeof *more);
    if (!more) return false;
    c->comms = more;
    more[c->count++] = comm;
    atomic_fetch_add(&comm->inner_calls, 1);
    return true;
}

/* A first call that is captured does not tell: nothing can be waited for then. Nor do those after
 * it: launches of its graph may be on their way, beside which ranks cannot meet. */
static cinchResult_t concerns(const cinch_op *op, bool *yes) {
    const struct cinchComm *comm = op->call.comm;
    *yes = op->call.on && comm->may_nccl && comm->inner_state != CINCH_INNER_NONE;
    if (!*yes || comm->inner_state == CINCH_INNER_MADE) return cinchSuccess;
    *yes = !comm->graphs && op->call.collective != CINCH_SENDRECV; /* to which not all ranks come */
    if (!*yes) return cinchSuccess;
    bool captured;
    cinchResult_t result = comm->gpu->work->capturing(op->call.device, op->call.stream, &captured);
    if (result != cinchSuccess) /* the other ranks wait for this one */
        return cinch_comm_fail(op->call.comm, result);
    *yes = !captured;
    return cinchSuccess;
}

/* The communicators with calls that go by NCCL, or may do so. */
static cinchResult_t find_comms(calling *c, const cinch_op *ops) {
    for (const cinch_op *op = ops; op; op = op->next) {
        bool yes;
        CINCH_TRY(concerns(op, &yes));
        if (yes && !note(c, op->call.comm))
            return cinch_fail(cinchSystemError, "out of memory for a group");
    }
    return cinchSuccess;
}

/* A split or shrink that the caller does not wait for speaks by the same connections. */
static cinchResult_t await_makings(const struct cinchComm *comm) {
    const struct timespec rest = {.tv_nsec = 50000};
    while (atomic_load(&comm->pending)) {
        CINCH_TRY(cinch_comm_stopped(comm));
        nanosleep(&rest, NULL);
    }
    return cinchSuccess;
}

static cinchResult_t meet(const calling *c) {
    struct cinchComm **fresh = malloc((size_t)c->count * sizeof(struct cinchComm *));
    cinchResult_t result = cinchSuccess;
    int count = 0;
    if (!fresh) return cinch_fail(cinchSystemError, "out of memory for a group");
    for (int i = 0; i < c->count; i++) {
        if (c->comms[i]->inner_state == CINCH_INNER_UNKNOWN) fresh[count++] = c->comms[i];
    }
    for (int i = 0; i < count && result == cinchSuccess; i++) result = await_makings(fresh[i]);
    if (result == cinchSuccess && count) result = cinch_inner_meet(fresh, count);
    free(fresh);
    return result;
}

/* ---- what ---- */

/* Of a communicator's messages between pairs those on device memory: *taken has them, and `op` the
 * others. */
static cinchResult_t take_pairs(cinch_op *op, cinch_op **taken) {
    cinch_p2p **from = &op->p2p, **to;
    *taken = calloc(1, sizeof **taken);
    if (!*taken) return cinch_fail(cinchSystemError, "out of memory for an operation");
    (*taken)->call = op->call;
    to = &(*taken)->p2p;
    while (*from) {
        cinch_p2p *p = *from;
        if (!p->on_device) {
            from = &p->next;
            continue;
        }
        *from = p->next;
        p->next = NULL;
        *to = p;
        to = &p->next;
    }
    op->call.on = NULL;
    return cinchSuccess;
}

static bool has_pairs(const cinch_op *list, const struct cinchComm *comm) {
    for (; list; list = list->next)
        if (list->call.comm == comm && list->p2p) return true;
    return false;
}

/* Operations without messages made streams wait for a group's messages; where all went by NCCL it
 * does so itself. */
static void drop_idle(cinch_op **ops) {
    cinch_op *gone = NULL;
    for (cinch_op **at = ops; *at;) {
        cinch_op *op = *at;
        const struct cinchComm *comm = op->call.comm;
        if (op->call.collective != CINCH_SENDRECV || comm->inner_state != CINCH_INNER_MADE ||
            has_pairs(*ops, comm)) {
            at = &op->next;
            continue;
        }
        *at = op->next;
        op->next = gone;
        gone = op;
    }
    cinch_group_free(gone);
}

static cinchResult_t take(calling *c, cinch_op **ops) {
    cinch_op **end = &c->ops;
    cinchResult_t result = cinchSuccess;
    for (cinch_op **at = ops; *at && result == cinchSuccess;) {
        cinch_op *op = *at, *pairs = NULL;
        if (!op->call.on || op->call.comm->inner_state != CINCH_INNER_MADE) {
            at = &op->next;
        } else if (op->call.collective == CINCH_SENDRECV) {
            result = take_pairs(op, &pairs);
            if (pairs) *end = pairs, end = &pairs->next;
            at = &op->next;
        } else {
            *at = op->next;
            op->next = NULL;
            *end = op;
            end = &op->next;
        }
    }
    if (c->ops) drop_idle(ops);
    return result;
}

/* ---- codecs ---- */

static bool same_codec(const cinch_codec *a, const cinch_codec *b) {
    return a->vt == b->vt && a->ef == b->ef && memcmp(a->params, b->params, sizeof a->params) == 0;
}

/* Gives the side the codecs that are in force now, as far as they can go by NCCL. */
static void refresh(cinch_inner *inner) {
    const cinch_policy *now = &inner->comm->policy;
    cinch_side *side = inner->side;
    if (inner->decided && inner->automatic == now->automatic &&
        same_codec(&inner->codec, &now->codec) && same_codec(&inner->inside, &now->inside))
        return;
    bool one = !inner->comm->host;
    inner->codec = now->codec;
    inner->inside = now->inside;
    inner->automatic = now->automatic;
    inner->decided = true;
    side->policy = *now;
    cinch_codec *levels[] = {&side->policy.inter, &side->policy.intra};
    side->policy.inter = now->codec;
    side->policy.intra = one ? now->codec : now->inside;
    side->policy.inside = (cinch_codec){0};
    for (int l = 0; l < 2; l++)
        if (levels[l]->vt &&
            (now->automatic || cinch_forward_unusable(inner->forward.gpu, levels[l])))
            levels[l]->vt = NULL;
    cinch_residuals_drop(side);
    side->state =
        side->policy.inter.vt || side->policy.intra.vt ? CINCH_SIDE_NEW : CINCH_SIDE_EXACT;
}

static cinch_places place_of(const struct cinchComm *comm) {
    cinch_places p = {1, comm->nranks, 0, comm->rank};
    if (!comm->host) return p;
    p = (cinch_places){comm->hosts, comm->per_host, comm->host[comm->rank], 0};
    for (int q = 0; q < comm->rank; q++) p.local += comm->host[q] == comm->host[comm->rank];
    return p;
}

/* Where a codec is new to a communicator, all its ranks are here. */
static cinchResult_t decide(const calling *c, bool *ours) {
    cinch_side **sides = calloc((size_t)c->count, sizeof(cinch_side *));
    cinch_places *places = calloc((size_t)c->count, sizeof *places);
    cinchResult_t result = cinchSuccess;
    int count = 0;
    if (!sides || !places) result = cinch_fail(cinchSystemError, "out of memory for a group");
    for (int i = 0; i < c->count && result == cinchSuccess; i++) {
        cinch_inner *inner = inner_of(c->comms[i]);
        if (!inner) continue;
        refresh(inner);
        if (inner->side->state != CINCH_SIDE_NEW) continue;
        result = cinch_side_open(inner->side);
        places[count] = place_of(c->comms[i]);
        sides[count++] = inner->side;
    }
    if (count && result == cinchSuccess) result = cinch_side_decide(sides, places, count, ours);
    free(sides);
    free(places);
    return result;
}

/* Keeps an all-reduce that is to be compressed. */
static cinchResult_t want(calling *c, const cinch_op *op, bool *yes) {
    const cinch_called *call = &op->call;
    cinch_side *side = inner_of(call->comm)->side;
    cinch_wanted w = {.side = side,
                      .send = call->send,
                      .recv = call->recv,
                      .count = call->count,
                      .dtype = call->dtype,
                      .op = call->redop,
                      .stream = call->stream,
                      .caller = call->stream,
                      .call = inner_of(call->comm)->calls,
                      .compress = true,
                      .keyed = true,
                      .key = cinch_op_key(op)};
    *yes = call->collective == CINCH_ALLREDUCE && !call->premul &&
           side->state == CINCH_SIDE_COMPRESSES && cinch_wanted_eligible(side, &w);
    if (!*yes) return cinchSuccess;
    bool captured;
    CINCH_TRY(cinch_wanted_captured(&w, &captured));
    *yes = !captured;
    if (captured) return cinchSuccess;
    cinch_wanted *kept = malloc(sizeof *kept);
    if (!kept) return cinch_fail(cinchSystemError, "out of memory for a call in a group");
    *kept = w;
    *c->end = kept;
    c->end = &kept->next;
    return cinchSuccess;
}

/* ---- exact calls ---- */

/* A communicator that does not block may say so already in a group, whose end is waited for. */
#define QUEUE(call)                                                                                \
    do {                                                                                           \
        cinchResult_t queued_ = (call);                                                            \
        if (queued_ != cinchSuccess && queued_ != cinchInProgress) return queued_;                 \
    } while (0)

typedef struct blocks {
    const cinch_real *real;
    const cinch_called *call;
    cinchComm_t to;
    size_t bytes; /* of one */
} blocks;

static cinchResult_t send_block(const blocks *b, int at, int peer) {
    const char *from = (const char *)b->call->send + (size_t)at * b->bytes;
    QUEUE(b->real->Send(from, b->call->count, b->call->dtype, peer, b->to, b->call->stream));
    return cinchSuccess;
}
static cinchResult_t recv_block(const blocks *b, int at, int peer) {
    char *to = (char *)b->call->recv + (size_t)at * b->bytes;
    QUEUE(b->real->Recv(to, b->call->count, b->call->dtype, peer, b->to, b->call->stream));
    return cinchSuccess;
}

/* Those that older releases lack: a message for each block, and a copy of the rank's own. */
static cinchResult_t move_blocks(const blocks *b) {
    const cinch_called *call = b->call;
    const struct cinchComm *comm = call->comm;
    const cinch_shape *shape = cinch_shape_of(call->collective);
    bool sends = cinch_shape_sends(shape, comm->rank, call->root),
         gets = cinch_shape_gets(shape, comm->rank, call->root);
    for (int i = 1; i < comm->nranks; i++) {
        int to = (comm->rank + i) % comm->nranks,
            from = (comm->rank + comm->nranks - i) % comm->nranks;
        if (sends && (!shape->out_root || to == call->root))
            CINCH_TRY(send_block(b, shape->in_n ? to : 0, to));
        if (gets && (!shape->in_root || from == call->root))
            CINCH_TRY(recv_block(b, shape->out_n ? from : 0, from));
    }
    const char *mine = (const char *)call->send + (shape->in_n ? (size_t)comm->rank : 0) * b->bytes;
    char *place = (char *)call->recv + (shape->out_n ? (size_t)comm->rank : 0) * b->bytes;
    if (!sends || !gets || mine == place) return cinchSuccess;
    return comm->gpu->work->copy(call->device, call->stream, place, mine, b->bytes);
}

static cinchResult_t queue_pairs(const cinch_real *real, const cinch_op *op, cinchComm_t to) {
    for (const cinch_p2p *p = op->p2p; p; p = p->next)
        if (p->receives)
            QUEUE(real->Recv(p->data, p->bytes, cinchUint8, p->peer, to, p->stream));
        else
            QUEUE(real->Send(p->data, p->bytes, cinchUint8, p->peer, to, p->stream));
    return cinchSuccess;
}

static cinchResult_t queue_as(const cinch_real *real, const cinch_called *call, cinchRedOp_t op,
                              cinchComm_t to) {
    switch (call->collective) {
    case CINCH_ALLREDUCE:
        return real->AllReduce(call->send, call->recv, call->count, call->dtype, op, to,
                               call->stream);
    case CINCH_REDUCESCATTER:
        return real->ReduceScatter(call->send, call->recv, call->count, call->dtype, op, to,
                                   call->stream);
    case CINCH_REDUCE:
        return real->Reduce(call->send, call->recv, call->count, call->dtype, op, call->root, to,
                            call->stream);
    case CINCH_ALLGATHER:
        return real->AllGather(call->send, call->recv, call->count, call->dtype, to, call->stream);
    case CINCH_BROADCAST:
        return real->Broadcast(call->send, call->recv, call->count, call->dtype, call->root, to,
                               call->stream);
    default: {
        blocks b = {real, call, to, call->count * cinch_dtype_size(call->dtype)};
        return move_blocks(&b);
    }
    }
}

/* The operator that multiplies by a scalar first. NCCL may be told to forget it before it runs. */
static cinchResult_t queue_premul(const cinch_real *real, const cinch_called *call,
                                  cinchComm_t to) {
    cinch_memory memory = {CINCH_MEMORY_HOST, -1};
    const void *there = call->device_scalar;
    cinchRedOp_t op;
    if (there) (void)cinch_device_of_pointer(there, &memory);
    bool on_device = there && memory.kind != CINCH_MEMORY_HOST;
    const void *scalar = there ? there : call->scalar;
    CINCH_TRY(real->RedOpCreatePreMulSum(&op, (void *)(uintptr_t)scalar, call->dtype,
                                         on_device ? cinchScalarDevice : cinchScalarHostImmediate,
                                         to));
    cinchResult_t result = queue_as(real, call, op, to), gone = real->RedOpDestroy(op, to);
    return result == cinchSuccess || result == cinchInProgress ? gone : result;
}

static cinchResult_t queue_call(const cinch_op *op) {
    const cinch_inner *inner = inner_of(op->call.comm);
    const cinch_real *real = &inner->forward.real;
    cinchComm_t to = inner->side->comm;
    if (op->call.collective == CINCH_SENDRECV)
        QUEUE(queue_pairs(real, op, to));
    else if (op->call.premul)
        QUEUE(queue_premul(real, &op->call, to));
    else
        QUEUE(queue_as(real, &op->call, op->call.redop, to));
    return cinchSuccess;
}

/* All in one group of NCCL's, as they were called. */
static cinchResult_t run_exact(const cinch_op *exact) {
    if (!exact) return cinchSuccess;
    const cinch_real *real = &inner_of(exact->call.comm)->forward.real;
    cinchResult_t result = cinchSuccess;
    CINCH_TRY(real->GroupStart());
    for (const cinch_op *op = exact; op && result == cinchSuccess; op = op->next)
        result = queue_call(op);
    cinchResult_t ended = real->GroupEnd(), was = result == cinchSuccess ? ended : result;
    result = was;
    for (const cinch_op *op = exact; op; op = op->next)
        cinch_side_settle_into(inner_of(op->call.comm)->side, was, &result);
    return result;
}

/* ---- all of it ---- */

static void count(const cinch_op *op) {
    cinch_inner *inner = inner_of(op->call.comm);
    const cinch_shape *shape = cinch_shape_of(op->call.collective);
    for (const cinch_p2p *p = op->p2p; p; p = p->next) inner->calls++, inner->bytes += p->bytes;
    if (op->call.collective == CINCH_SENDRECV) return;
    inner->calls++;
    if (op->call.collective == CINCH_ALLREDUCE) inner->side->calls++; /* residuals age by it */
    inner->bytes += op->call.count * cinch_dtype_size(op->call.dtype) *
                    (size_t)cinch_shape_blocks(shape, op->call.comm->nranks);
}

/* Whether the communicators are well; the compressed calls leave c->ops. */
static cinchResult_t prepare(calling *c, bool *ours) {
    *ours = true;
    for (const cinch_op *op = c->ops; op; op = op->next) {
        CINCH_TRY(cinch_comm_state(op->call.comm));
        CINCH_TRY(cinch_side_look_back(inner_of(op->call.comm)->side));
    }
    CINCH_TRY(decide(c, ours));
    *ours = true;
    for (cinch_op **at = &c->ops; *at;) {
        cinch_op *op = *at;
        bool compressed;
        CINCH_TRY(want(c, op, &compressed));
        count(op);
        if (!compressed) {
            at = &op->next;
            continue;
        }
        *at = op->next;
        op->next = NULL;
        cinch_group_free(op);
    }
    return cinchSuccess;
}

static cinchResult_t run(calling *c) {
    const cinch_real *real = &inner_of(c->ops->call.comm)->forward.real;
    bool ours;
    cinchResult_t result = prepare(c, &ours);
    if (result == cinchSuccess) {
        ours = false;
        result = run_exact(c->ops);
    }
    if (result == cinchSuccess && c->wanted) result = cinch_wanted_launch(c->wanted, &ours);
    if (result != cinchSuccess && !ours && result != cinchRemoteError)
        cinch_inner_told(real, result, "a call on device memory");
    while (c->wanted) {
        cinch_wanted *next = c->wanted->next;
        free(c->wanted);
        c->wanted = next;
    }
    return result;
}

cinchResult_t cinch_inner_launch(cinch_op **ops) {
    calling c = {NULL, 0, NULL, NULL, NULL};
    c.end = &c.wanted;
    cinchResult_t result = find_comms(&c, *ops);
    if (result == cinchSuccess && c.count) result = meet(&c);
    if (result == cinchSuccess && c.count) result = take(&c, ops);
    if (result == cinchSuccess && c.ops) result = run(&c);
    for (int i = 0; i < c.count; i++) {
        struct cinchComm *comm = c.comms[i];
        if (result != cinchSuccess) cinch_comm_fail(comm, result);
        atomic_fetch_sub(&comm->inner_calls, 1);
    }
    cinch_group_free(c.ops);
    free(c.comms);
    return result;
}

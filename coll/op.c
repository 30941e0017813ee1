/* SPDX-License-Identifier: Apache-2.0 */
/* Planning an operation: algorithm, cut, codec and scratch. */
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "coll/engine.h"
#include "compress/dtype.h"

static cinch_call call_of(const struct cinchComm *comm, size_t bytes, bool encoded, bool mapped) {
    return (cinch_call){.nranks = comm->nranks,
                        .bytes = bytes,
                        .windows = comm->all_local,
                        .mapped = mapped,
                        .encoded = encoded,
                        .small_bytes = CINCH_SMALL_SLOT};
}

static cinchResult_t cannot(const cinch_algo *algo, const cinch_call *call) {
    char list[128] = "";
    for (int i = 0; cinch_algo_at(i); i++)
        if (!cinch_algo_at(i)->supports(call)) {
            size_t used = strlen(list);
            snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "",
                     cinch_algo_at(i)->name);
        }
    return cinch_fail(cinchInvalidUsage,
                      "CINCH_ALGO=%s cannot serve an allreduce of %zu bytes on %d ranks: %s; these "
                      "can: %s",
                      algo->name, call->bytes, call->nranks, algo->supports(call), list);
}

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}
static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* Bytes of a round. */
static size_t round_bytes(const struct cinchComm *comm, const cinch_algo *algo, size_t bytes,
                          bool encoded, bool mapped) {
    if (mapped && algo->maps) return bytes;
    size_t parts = (size_t)algo->parts(comm->nranks), part = comm->settings.chunk;
    if (!part) { /* a codec leaves less for the wire, which wants long messages */
        part = encoded ? 4 * algo->part_bytes : algo->part_bytes;
        part = smaller(part, larger(bytes / 4 / parts, algo->least_bytes));
    }
    return algo->round_most ? smaller(part * parts, algo->round_most) : part * parts;
}

cinchResult_t cinch_op_choose(const struct cinchComm *comm, size_t bytes, cinchDataType_t dtype,
                              bool encoded, bool mapped, const cinch_algo **algo, cinch_cut *cut) {
    cinch_call call = call_of(comm, bytes, encoded, mapped);
    *algo = comm->policy.algo ? comm->policy.algo : cinch_algo_choose(&call);
    if ((*algo)->supports(&call)) return cannot(*algo, &call);
    size_t esize = cinch_dtype_size(dtype);
    size_t granule = encoded ? cinch_codec_granule(&comm->policy.codec) : 64 / esize;
    size_t round = round_bytes(comm, *algo, bytes, encoded, mapped) / esize;
    *cut = cinch_cut_make(bytes / esize, (*algo)->parts(comm->nranks), granule, round);
    return cinchSuccess;
}

static cinchResult_t get_schedule(struct cinchComm *comm, const cinch_algo *algo, bool mapped,
                                  bool encoded, const cinch_schedule **out) {
    int index = 0;
    while (cinch_algo_at(index) != algo) index++;
    cinch_schedule *s = &comm->schedule[index][mapped][encoded];
    if (!s->item) {
        cinch_call call = call_of(comm, 0, encoded, mapped);
        CINCH_TRY(cinch_algo_build(algo, comm->rank, &call, s));
    }
    *out = s;
    return cinchSuccess;
}

/* ---- scratch ---- */

/* Lays things out one after the other, each aligned to 64. Twice: to measure, then to place. */
typedef struct layout {
    unsigned char *base;
    size_t used;
} layout;

static void *place(layout *l, size_t bytes) {
    void *at = l->base ? l->base + l->used : NULL;
    l->used += (bytes + 63) / 64 * 64;
    return at;
}

static void lay_pointers(cinch_op *op, layout *l) {
    size_t n = (size_t)op->call.comm->nranks;
    const cinch_schedule *s = op->schedule;
    op->src = place(l, (n + 2) * sizeof *op->src);
    op->dst = place(l, (n + 2) * sizeof *op->dst);
    op->term = place(l, (n + 2) * sizeof *op->term);
    op->wire_length = place(l, (size_t)s->depth * s->nwire * sizeof *op->wire_length);
}

static void lay_data(cinch_op *op, layout *l) {
    const cinch_schedule *s = op->schedule;
    const cinch_codec *codec = &op->call.comm->policy.codec;
    size_t part = cinch_cut_part_max(&op->cut), depth = smaller(s->depth, op->cut.rounds);
    op->tmp_bytes = part * (size_t)op->cut.parts * op->esize;
    op->box_bytes = part * (op->encoded ? larger(op->esize, sizeof(float)) : op->esize);
    op->wire_bytes = op->encoded ? (cinch_codec_bound(codec, part) + 63) / 64 * 64 : 0;
    op->tmp = place(l, depth * s->ntmp * op->tmp_bytes);
    op->box = place(l, depth * s->nbox * op->box_bytes);
    op->wire = place(l, depth * s->nwire * op->wire_bytes);
    if (!op->encoded) return;
    size_t state = cinch_codec_prepare_bytes(codec, op->cut.count), full = op->cut.round;
    size_t share = full / (size_t)op->cut.parts;
    size_t work = larger(cinch_codec_scratch(codec, op->call.dtype, state ? op->cut.count : share),
                         cinch_codec_scratch(codec, cinchFloat32, share) + 128 +
                             cinch_codec_prepare_bytes(codec, share));
    op->work = place(l, work);
    op->codec_state = state ? place(l, state) : NULL;
}

static cinchResult_t reserve(cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    layout pointers = {0}, data = {0};
    lay_pointers(op, &pointers);
    lay_data(op, &data);
    size_t messages = (size_t)op->schedule->depth * op->schedule->nmsg * sizeof *op->msg;
    pointers.base = cinch_scratch_reserve(&comm->pointers, pointers.used + 64);
    data.base = cinch_scratch_reserve(&comm->data, data.used + 64);
    op->msg = cinch_scratch_reserve(&comm->messages, messages + 64);
    if (!pointers.base || !data.base || !op->msg)
        return cinch_fail(cinchSystemError, "out of memory for %zu bytes of scratch",
                          pointers.used + data.used + messages);
    pointers.used = data.used = 0;
    lay_pointers(op, &pointers);
    lay_data(op, &data);
    return cinchSuccess;
}

/* ---- codec ---- */

static cinch_ef_key key_of(const cinch_op *op) {
    const unsigned char *send = op->call.send;
    cinch_ef_key key = {.id = (uint64_t)(uintptr_t)send,
                        .count = op->call.count,
                        .kind = (uint32_t)op->call.dtype | (uint32_t)op->call.redop << 8};
    for (const cinch_tag *t = op->call.comm->tags; t && !key.tagged; t = t->next)
        if (send >= t->data && send < t->data + t->bytes) key.tagged = true, key.id = t->id;
    return key;
}

static cinchResult_t prepare_codec(cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    const cinch_codec *codec = &comm->policy.codec;
    if (codec->ef) {
        cinch_ef_key key = key_of(op);
        size_t share = op->cut.round / (size_t)op->cut.parts * op->cut.rounds;
        size_t nowner = op->schedule->owner ? share : 0;
        CINCH_TRY(cinch_ef_get(&comm->ef, &key, op->call.count, nowner, comm->calls,
                               comm->settings.ef_max_bytes, &op->ef));
    }
    if (op->codec_state) {
        cinchCodecSite_t site = {.call = comm->calls, .rank = (uint32_t)comm->rank};
        uint64_t began = cinch_ticks();
        cinch_codec_prepare(codec, &site, op->call.dtype, op->source,
                            op->ef ? op->ef->sender : NULL, op->call.count,
                            (void *)(uintptr_t)op->codec_state, op->work);
        op->codec_ticks += cinch_ticks() - began;
    }
    return cinchSuccess;
}

/* ---- entering: every rank shows where its buffers are ---- */

enum { ENTRY_FLAG = 2 };
static const uint64_t NOWHERE = UINT64_MAX;

static cinch_flag *entry_flag(const struct cinchComm *comm, int rank) {
    return &comm->net->shm->window[rank].flag[2 * ENTRY_FLAG + (comm->rounds & 1)];
}

static void show_buffers(cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    size_t bytes = op->call.count * op->esize, in, out;
    uint64_t where[2] = {NOWHERE, NOWHERE};
    if (cinch_heap_offset(op->source, bytes, &in) && cinch_heap_offset(op->call.recv, bytes, &out))
        where[0] = in, where[1] = out;
    cinch_flag *flag = entry_flag(comm, comm->rank);
    memcpy(flag->payload, where, sizeof where);
    atomic_store_explicit(&flag->signature, op->signature, memory_order_relaxed);
    cinch_flag_post(flag, comm->rounds + 1);
    op->state = CINCH_OP_ENTERING;
}

/* True when all have entered; op->mapped says whether all buffers can be reached. */
static bool entered(cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    for (int q = 0; q < comm->nranks; q++) {
        cinch_flag *flag = entry_flag(comm, q);
        uint64_t seen = cinch_flag_read(flag);
        if (seen >= comm->rounds + 1) continue;
        op->blocked_flag = flag;
        op->blocked_value = seen;
        op->blocked_peer = q;
        return false;
    }
    return true;
}

static cinchResult_t find_buffers(cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    size_t n = (size_t)comm->nranks, bytes = op->call.count * op->esize;
    op->mapped = true;
    for (int q = 0; q < comm->nranks; q++) {
        uint64_t where[2];
        memcpy(where, entry_flag(comm, q)->payload, sizeof where);
        if (atomic_load_explicit(&entry_flag(comm, q)->signature, memory_order_relaxed) !=
            op->signature)
            return cinch_called_differs(&op->call, q);
        op->mapped &= where[0] != NOWHERE;
    }
    if (!op->mapped) return cinchSuccess;
    unsigned char **peers = cinch_scratch_reserve(&comm->peers, 2 * n * sizeof *peers);
    if (!peers) return cinch_fail(cinchSystemError, "out of memory for %zu pointers", 2 * n);
    op->peer_in = peers;
    op->peer_out = peers + n;
    for (int q = 0; q < comm->nranks; q++) {
        const cinch_window *w = &comm->net->shm->window[q];
        uint64_t where[2];
        memcpy(where, entry_flag(comm, q)->payload, sizeof where);
        for (int i = 0; i < 2; i++)
            if (where[i] > w->heap_bytes || bytes > w->heap_bytes - where[i])
                return cinch_fail(cinchRemoteError, "rank %d shows a buffer outside its heap", q);
        op->peer_in[q] = w->heap + where[0];
        op->peer_out[q] = w->heap + where[1];
    }
    return cinchSuccess;
}

/* ---- the plan ---- */

static bool outgrows_cache(const cinch_op *op) {
    if (op->schedule->nmsg) return false; /* what messages brought in is sent on, or read again */
    size_t touched = 2 * op->call.count * op->esize * (size_t)op->call.comm->nranks;
    return touched > op->call.comm->llc_bytes;
}

static cinchResult_t prepare_run(cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    CINCH_TRY(cinch_op_choose(comm, op->call.count * op->esize, op->call.dtype, op->encoded,
                              op->mapped, &op->algo, &op->cut));
    CINCH_TRY(get_schedule(comm, op->algo, op->mapped, op->encoded, &op->schedule));
    CINCH_TRY(reserve(op));
    if (op->encoded) CINCH_TRY(prepare_codec(op));
    op->stream_out = outgrows_cache(op);
    op->base = comm->rounds;
    op->iteration = 0;
    op->item = 0;
    op->state = CINCH_OP_RUNNING;
    return cinchSuccess;
}

/* Whether, with all buffers mapped, peers would be reached directly. */
static cinchResult_t may_map(cinch_op *op, bool *may) {
    const cinch_algo *algo;
    cinch_cut cut;
    *may = false;
    if (!op->call.comm->all_local || !op->call.comm->heaps || op->encoded) return cinchSuccess;
    CINCH_TRY(cinch_op_choose(op->call.comm, op->call.count * op->esize, op->call.dtype, false,
                              true, &algo, &cut));
    *may = algo->maps;
    return cinchSuccess;
}

cinchResult_t cinch_op_plan(cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    op->esize = cinch_dtype_size(op->call.dtype);
    op->source = op->call.send;
    op->signature = cinch_called_signature(&op->call);
    op->reduce =
        cinch_reduce_kernel(op->call.dtype, op->call.redop == cinchAvg ? cinchSum : op->call.redop);
    if (op->call.premul) {
        const void *scalar = op->call.device_scalar ? op->call.device_scalar : op->call.scalar;
        cinch_premul(op->call.recv, op->call.send, op->call.dtype, op->call.count, scalar);
        op->source = op->call.recv;
    }
    op->encoded =
        !op->call.premul &&
        cinch_policy_compresses(&comm->policy, &comm->settings, comm->calls,
                                op->call.count * op->esize, op->call.dtype, op->call.redop);
    bool may;
    CINCH_TRY(may_map(op, &may));
    if (!may) return prepare_run(op);
    show_buffers(op);
    return cinchSuccess;
}

cinchResult_t cinch_op_enter(cinch_op *op, bool *moved) {
    if (!entered(op)) return cinchSuccess;
    *moved = true;
    CINCH_TRY(find_buffers(op));
    op->call.comm->rounds++;
    return prepare_run(op);
}

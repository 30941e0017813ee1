/* SPDX-License-Identifier: Apache-2.0 */
/* Planning an operation: algorithm, cut, codec and scratch. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "coll/budget.h"
#include "coll/gpu.h"
#include "compress/dtype.h"
#include "transports/steady.h"

/* A schedule that was built, and for which calls. */
typedef struct cinch_kept {
    struct cinch_kept *next;
    const cinch_algo *algo;
    bool mapped;
    uint8_t codecs;
    int root;
    cinch_schedule schedule;
} cinch_kept;

cinch_call cinch_op_call(const struct cinchComm *comm, cinch_collective collective, int root,
                         size_t block) {
    return (cinch_call){.collective = collective,
                        .root = root,
                        .nranks = comm->nranks,
                        .bytes = block,
                        .windows = comm->all_local,
                        .crowded = comm->crowded,
                        .host = comm->host,
                        .hosts = comm->hosts,
                        .per_host = comm->per_host,
                        .site = comm->site,
                        .sites = comm->sites,
                        .small_bytes = CINCH_SMALL_SLOT,
                        .forest = cinch_atlas_forest(comm, collective, root),
                        .pace = cinch_atlas_pace(comm)};
}

void cinch_call_set_codecs(cinch_call *call, unsigned codecs) {
    call->encoded = codecs != 0;
    call->inside = codecs >> CINCH_CODEC_INSIDE & 1;
    call->exact_between = codecs && !(codecs >> CINCH_CODEC_MAIN & 1);
}

static cinch_call call_of(const cinch_op *op, bool mapped) {
    cinch_call call = cinch_op_call(op->call.comm, op->call.collective, op->call.root,
                                    op->call.count * op->esize);
    cinch_call_set_codecs(&call, op->codecs);
    call.mapped = mapped;
    call.device = op->gpu != NULL;
    if (op->gpu) call.windows = false; /* what is there is no device's memory */
    return call;
}

static cinchResult_t cannot(const char *name, const cinch_algo *algo, const cinch_call *call) {
    char list[128] = "";
    for (int i = 0; cinch_algo_at(i); i++)
        if (cinch_algo_at(i)->collective == call->collective && !cinch_algo_at(i)->supports(call)) {
            size_t used = strlen(list);
            snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "",
                     cinch_algo_at(i)->name);
        }
    const char *op = cinch_shape_of(call->collective)->name;
    return cinch_fail(cinchInvalidUsage,
                      "CINCH_ALGO=%s cannot serve %s %s of %zu bytes on %d ranks: %s; these can: "
                      "%s",
                      name, strchr("aeiou", op[0]) ? "an" : "a", op, call->bytes, call->nranks,
                      algo ? algo->supports(call) : "it has none of that name", list);
}

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}
static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

size_t cinch_algo_round_bytes(const cinch_algo *algo, const cinch_call *call, size_t chunk) {
    if (call->mapped && algo->maps_from) return call->bytes;
    size_t parts = (size_t)algo->parts(call), part = chunk;
    if (!part && algo->round_bytes) return algo->round_bytes(call);
    if (!part) { /* a codec leaves less for the wire, which wants long messages; copies to and from
                  * a device take some microseconds each (guessed, not measured on one) */
        part = (call->device ? 8 : call->encoded ? 4 : 1) * algo->part_bytes;
        part = smaller(part, larger(call->bytes / 4 / parts, algo->least_bytes));
    }
    if (!algo->round_most) return part * parts;
    int blocks = cinch_shape_in_blocks(cinch_shape_of(call->collective), call->nranks);
    return smaller(part * parts, algo->round_most / (size_t)blocks / 64 * 64);
}

/* By name, by what was measured, else by guesses; buffers that peers reach are not measured. */
static const cinch_algo *pick(const struct cinchComm *comm, const cinch_call *call) {
    const char *name = comm->policy.algo[call->collective];
    if (name[0]) return cinch_algo_find(call->collective, name);
    const cinch_algo *measured = call->mapped ? NULL : cinch_choice_find(comm->choice, call);
    return measured && !measured->supports(call) ? measured : cinch_algo_choose(call);
}

cinchResult_t cinch_op_choose(const struct cinchComm *comm, const cinch_call *call,
                              cinchDataType_t dtype, const cinch_algo **algo, cinch_cut *cut) {
    const char *name = comm->policy.algo[call->collective];
    *algo = pick(comm, call);
    if (!*algo || (*algo)->supports(call)) return cannot(name, *algo, call);
    size_t esize = cinch_dtype_size(dtype);
    const cinch_codec none = {0}, *main = call->exact_between ? &none : &comm->policy.codec;
    size_t granule = call->encoded
                         ? cinch_policy_granule(main, call->inside ? &comm->policy.inside : &none)
                         : 64 / esize;
    size_t round = cinch_algo_round_bytes(*algo, call, comm->settings.chunk) / esize;
    *cut = cinch_cut_make(call->bytes / esize, (*algo)->parts(call), granule, round);
    return cinchSuccess;
}

static cinchResult_t get_schedule(cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    cinch_call call = call_of(op, op->mapped);
    for (cinch_kept *k = comm->kept; k; k = k->next) {
        op->schedule = &k->schedule;
        if (k->algo == op->algo && k->mapped == op->mapped && k->codecs == op->codecs &&
            k->root == call.root)
            return cinchSuccess;
    }
    cinch_kept *k = calloc(1, sizeof *k);
    if (!k) return cinch_fail(cinchSystemError, "out of memory for a schedule");
    *k = (cinch_kept){comm->kept, op->algo, op->mapped, op->codecs, call.root, {0}};
    cinchResult_t result = cinch_algo_build(op->algo, comm->rank, &call, &k->schedule);
    if (result != cinchSuccess) {
        free(k);
        return result;
    }
    comm->kept = k;
    op->schedule = &k->schedule;
    return cinchSuccess;
}

void cinch_op_forget(struct cinchComm *comm) {
    while (comm->kept) {
        cinch_kept *k = comm->kept;
        comm->kept = k->next;
        cinch_schedule_free(&k->schedule);
        free(k);
    }
    cinch_ef_clear(&comm->ef);
    cinch_gpu_close(comm->gpu);
    comm->gpu = NULL;
    if (comm->net && comm->data.data)
        cinch_net_release(comm->net, comm->data.data, comm->data.bytes);
    cinch_scratch *scratch[] = {&comm->data,  &comm->messages, &comm->pointers,
                                &comm->peers, &comm->scaled,   &comm->sample};
    for (size_t i = 0; i < sizeof scratch / sizeof *scratch; i++) cinch_scratch_free(scratch[i]);
    free((void *)(uintptr_t)comm->p2p_count);
    comm->p2p_count = NULL;
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

/* Elements of the send buffer. */
static size_t input_count(const cinch_op *op) {
    const cinch_shape *shape = cinch_shape_of(op->call.collective);
    return op->call.count * (size_t)cinch_shape_in_blocks(shape, op->call.comm->nranks);
}

static void lay_pointers(cinch_op *op, layout *l) {
    size_t n = (size_t)op->call.comm->nranks;
    const cinch_schedule *s = op->schedule;
    op->src = place(l, (n + 2) * sizeof *op->src);
    op->dst = place(l, (n + 2) * sizeof *op->dst);
    op->term = place(l, (n + 2) * sizeof *op->term);
    op->wire_length = place(l, (size_t)s->depth * s->nwire * sizeof *op->wire_length);
}

static size_t wire_bound(const cinch_op *op, int codec, size_t part) {
    const struct cinchComm *comm = op->call.comm;
    size_t bytes = cinch_codec_bound(cinch_codec_in_force(comm, (cinch_codec_index)codec), part);
    return (bytes + 63) / 64 * 64;
}

/* On a device: what a codec has seen of the input, and of a share. */
static void lay_states(cinch_op *op, layout *l) {
    const cinch_schedule *s = op->schedule;
    size_t work = 0;
    for (int c = 0; c < CINCH_CODEC_COUNT; c++) {
        op->codec_state[c] = NULL;
        if (!(s->codecs >> c & 1)) continue;
        size_t all = s->inputs >> c & 1 ? cinch_gpu_state_bytes(op, c, input_count(op)) : 0;
        if (all) op->codec_state[c] = place(l, all);
        work = larger(work, cinch_gpu_state_bytes(op, c, cinch_cut_part_max(&op->cut)));
    }
    op->work = place(l, work);
}

static void lay_data(cinch_op *op, layout *l) {
    const cinch_schedule *s = op->schedule;
    size_t part = cinch_cut_part_max(&op->cut), depth = smaller(s->depth, op->cut.rounds);
    op->tmp_bytes = part * (size_t)op->cut.parts * op->esize;
    op->box_bytes = part * (op->encoded ? larger(op->esize, sizeof(float)) : op->esize);
    op->wire_bytes = 0;
    for (int c = 0; c < CINCH_CODEC_COUNT; c++)
        if (s->codecs >> c & 1) op->wire_bytes = larger(op->wire_bytes, wire_bound(op, c, part));
    op->tmp = place(l, depth * s->ntmp * op->tmp_bytes);
    op->box = place(l, depth * s->nbox * op->box_bytes);
    op->wire = place(l, depth * s->nwire * op->wire_bytes);
    if (op->gpu) {
        lay_states(op, l);
        return;
    }
    size_t work = 0;
    for (int c = 0; c < CINCH_CODEC_COUNT; c++) {
        op->codec_state[c] = NULL;
        if (!(s->codecs >> c & 1)) continue;
        const cinch_codec *codec = cinch_codec_in_force(op->call.comm, (cinch_codec_index)c);
        size_t input = input_count(op), share = op->cut.round / (size_t)op->cut.parts;
        size_t state = s->inputs >> c & 1 ? cinch_codec_prepare_bytes(codec, input) : 0;
        work = larger(work, cinch_codec_scratch(codec, op->call.dtype, state ? input : share));
        work = larger(work, cinch_codec_scratch(codec, cinchFloat32, share) + 128 +
                                cinch_codec_prepare_bytes(codec, share));
        if (state) op->codec_state[c] = place(l, state);
    }
    op->work = place(l, work);
}

/* Messages may be placed in it directly, as in what callers register. */
static cinchResult_t reserve_data(struct cinchComm *comm, size_t bytes) {
    cinch_scratch before = comm->data;
    if (!cinch_scratch_reserve(&comm->data, bytes))
        return cinch_fail(cinchSystemError, "out of memory for %zu bytes of scratch", bytes);
    if (comm->data.bytes == before.bytes || !comm->net) return cinchSuccess;
    if (before.data) cinch_net_release(comm->net, before.data, before.bytes);
    return cinch_net_keep(comm->net, comm->data.data, comm->data.bytes);
}

static cinchResult_t reserve(cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    layout pointers = {0}, data = {0};
    lay_pointers(op, &pointers);
    lay_data(op, &data);
    size_t messages = (size_t)op->schedule->depth * op->schedule->nmsg * sizeof *op->msg;
    pointers.base = cinch_scratch_reserve(&comm->pointers, pointers.used + 64);
    if (op->gpu) CINCH_TRY(cinch_gpu_reserve(op->gpu, &op->gpu->data, data.used + 64));
    if (!op->gpu) CINCH_TRY(reserve_data(comm, data.used + 64));
    data.base = op->gpu ? op->gpu->data.data : comm->data.data;
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

cinch_ef_key cinch_op_key(const cinch_op *op) {
    const unsigned char *send = op->call.send;
    cinch_ef_key key = {.id = (uint64_t)(uintptr_t)send,
                        .count = op->call.count,
                        .kind = (uint32_t)op->call.dtype | (uint32_t)op->call.redop << 8 |
                                (uint32_t)op->call.collective << 16};
    for (const cinch_tag *t = op->call.comm->tags; t && !key.tagged; t = t->next)
        if (send >= t->data && send < t->data + t->bytes) {
            key.tagged = true;
            key.id = t->id;
            if (t->registered) key.kind |= CINCH_EF_REGISTERED;
        }
    return key;
}

static cinchResult_t prepare_codec(cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    cinch_ef_key key = cinch_op_key(op);
    bool ef = false;
    for (int c = 0; c < CINCH_CODEC_COUNT; c++)
        ef |= op->schedule->codecs >> c & 1 && cinch_codec_in_force(comm, (cinch_codec_index)c)->ef;
    /* Gradient buckets stay where they are; other buffers' addresses tell nothing. */
    if (ef && (key.tagged || op->call.collective == CINCH_ALLREDUCE)) {
        size_t share = op->cut.round / (size_t)op->cut.parts * op->cut.rounds;
        size_t nowner = op->schedule->owner ? share : 0;
        CINCH_TRY(cinch_ef_get(&comm->ef, &key, input_count(op), nowner, comm->calls,
                               comm->settings.ef_max_bytes, &op->ef));
    }
    if (op->gpu) return cinch_gpu_prepare_codecs(op, input_count(op));
    if (op->ef) CINCH_TRY(cinch_gpu_mirror_back(op->ef));
    for (int c = 0; c < CINCH_CODEC_COUNT; c++) {
        const cinch_codec *codec = cinch_codec_in_force(comm, (cinch_codec_index)c);
        if (!op->codec_state[c]) continue;
        cinchCodecSite_t site = {.call = comm->calls, .rank = (uint32_t)comm->rank};
        uint64_t began = cinch_ticks();
        cinch_codec_prepare(codec, &site, op->call.dtype, op->source,
                            op->ef && codec->ef ? op->ef->sender : NULL, input_count(op),
                            (void *)(uintptr_t)op->codec_state[c], op->work);
        op->codec_ticks += cinch_ticks() - began;
    }
    return cinchSuccess;
}

/* ---- entering: every rank shows where its buffers are ---- */

enum { ENTRY_FLAG = 2 };
static const uint64_t NOWHERE = UINT64_MAX, UNUSED = UINT64_MAX - 1;

static cinch_flag *entry_flag(const struct cinchComm *comm, int rank) {
    return &comm->net->shm->window[rank].flag[2 * ENTRY_FLAG + (comm->rounds & 1)];
}

/* Where in the heap it is, or NOWHERE. */
static uint64_t where_is(const void *data, size_t bytes) {
    size_t offset;
    return cinch_heap_offset(data, bytes, &offset) ? offset : NOWHERE;
}

/* Peers read inputs; only an all-reduce writes to outputs. */
static void show_buffers(cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    const cinch_shape *shape = cinch_shape_of(op->call.collective);
    uint64_t where[2] = {UNUSED, UNUSED};
    if (cinch_shape_sends(shape, comm->rank, op->call.root))
        where[0] = where_is(op->source, input_count(op) * op->esize);
    if (op->call.collective == CINCH_ALLREDUCE)
        where[1] = where_is(op->call.recv, op->call.count * op->esize);
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

/* A place that rank q has shown, of so many bytes, here; NULL where nobody reaches for it. */
static cinchResult_t reach(const struct cinchComm *comm, int q, uint64_t where, size_t bytes,
                           unsigned char **at) {
    const cinch_window *w = &comm->net->shm->window[q];
    *at = NULL;
    if (where == UNUSED) return cinchSuccess;
    if (where > w->heap_bytes || bytes > w->heap_bytes - where)
        return cinch_fail(cinchRemoteError, "rank %d shows a buffer outside its heap", q);
    *at = w->heap + where;
    return cinchSuccess;
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
        op->mapped &= where[0] != NOWHERE && where[1] != NOWHERE;
    }
    if (!op->mapped) return cinchSuccess;
    unsigned char **peers = cinch_scratch_reserve(&comm->peers, 2 * n * sizeof *peers);
    if (!peers) return cinch_fail(cinchSystemError, "out of memory for %zu pointers", 2 * n);
    op->peer_in = peers;
    op->peer_out = peers + n;
    for (int q = 0; q < comm->nranks; q++) {
        uint64_t where[2];
        memcpy(where, entry_flag(comm, q)->payload, sizeof where);
        CINCH_TRY(reach(comm, q, where[0], input_count(op) * op->esize, &op->peer_in[q]));
        CINCH_TRY(reach(comm, q, where[1], bytes, &op->peer_out[q]));
    }
    return cinchSuccess;
}

/* ---- the plan ---- */

static bool outgrows_cache(const cinch_op *op) {
    if (op->schedule->nmsg) return false; /* what messages brought in is sent on, or read again */
    const cinch_shape *shape = cinch_shape_of(op->call.collective);
    size_t n = (size_t)op->call.comm->nranks, blocks = (size_t)cinch_shape_blocks(shape, (int)n);
    size_t touched = 2 * op->call.count * op->esize * blocks * n;
    return touched > op->call.comm->llc_bytes;
}

static cinchResult_t prepare_run(cinch_op *op) {
    struct cinchComm *comm = op->call.comm;
    cinch_call call = call_of(op, op->mapped);
    CINCH_TRY(cinch_op_choose(comm, &call, op->call.dtype, &op->algo, &op->cut));
    CINCH_TRY(get_schedule(op));
    CINCH_TRY(reserve(op));
    if (op->encoded) CINCH_TRY(prepare_codec(op));
    if (op->encoded) cinch_budget_look(op);
    op->stream_out = outgrows_cache(op);
    op->base = comm->rounds;
    op->iteration = 0;
    op->item = 0;
    if (op->gpu) CINCH_TRY(cinch_gpu_begin(op));
    op->state = CINCH_OP_RUNNING;
    return cinchSuccess;
}

/* Whether, with all buffers mapped, peers would be reached directly. */
static cinchResult_t may_map(cinch_op *op, bool *may) {
    const cinch_algo *algo;
    cinch_cut cut;
    *may = false;
    if (op->gpu || !op->call.comm->all_local || !op->call.comm->heaps || op->encoded)
        return cinchSuccess;
    cinch_call call = call_of(op, true);
    CINCH_TRY(cinch_op_choose(op->call.comm, &call, op->call.dtype, &algo, &cut));
    *may = algo->maps_from && call.bytes >= algo->maps_from;
    return cinchSuccess;
}

/* The input times the operator's scalar: in the receive buffer where that has the room. */
static cinchResult_t scale_input(cinch_op *op) {
    if (op->gpu) return cinch_gpu_scale(op, input_count(op));
    const void *scalar = op->call.device_scalar ? op->call.device_scalar : op->call.scalar;
    void *scaled = op->call.collective == CINCH_ALLREDUCE
                       ? op->call.recv
                       : cinch_scratch_reserve(&op->call.comm->scaled, input_count(op) * op->esize);
    if (!scaled)
        return cinch_fail(cinchSystemError, "out of memory for %zu elements", input_count(op));
    cinch_premul(scaled, op->call.send, op->call.dtype, input_count(op), scalar);
    op->source = scaled;
    return cinchSuccess;
}

/* Whether `auto` takes the codec: where it pays, and an algorithm asked for by name takes one. */
static bool pays(const struct cinchComm *comm, const cinch_candidate *candidate) {
    cinch_collective collective = candidate->collective;
    const char *name = comm->policy.algo[collective];
    size_t blocks = (size_t)cinch_shape_blocks(cinch_shape_of(collective), comm->nranks);
    if (!cinch_choice_pays(comm->choice, collective, candidate->bytes)) return false;
    cinch_call call = cinch_op_call(comm, collective, 0, candidate->bytes / blocks);
    cinch_call_set_codecs(&call, 1u << CINCH_CODEC_MAIN);
    const cinch_algo *algo = name[0] ? cinch_algo_find(collective, name) : NULL;
    return !name[0] || (algo && !algo->supports(&call));
}

unsigned cinch_op_codecs(const struct cinchComm *comm, const cinch_candidate *candidate) {
    unsigned codecs = 0;
    if (!cinch_policy_compresses(&comm->policy, &comm->settings, comm->calls, candidate)) return 0;
    if (comm->policy.codec.vt && (!comm->policy.automatic || pays(comm, candidate)))
        codecs |= 1u << CINCH_CODEC_MAIN;
    if (comm->policy.inside.vt) codecs |= 1u << CINCH_CODEC_INSIDE;
    return codecs;
}

double cinch_op_predict(const struct cinchComm *comm, cinch_collective collective, size_t bytes,
                        bool encoded) {
    if (comm->nranks < 2 || collective == CINCH_SENDRECV) return NAN;
    size_t blocks = (size_t)cinch_shape_blocks(cinch_shape_of(collective), comm->nranks);
    cinch_call call = cinch_op_call(comm, collective, 0, bytes / blocks);
    call.encoded = encoded;
    const cinch_algo *algo = pick(comm, &call);
    if (!algo || algo->supports(&call)) return NAN;
    const cinch_curve *curve = cinch_choice_curve(comm->tuned, collective, algo->name,
                                                  encoded ? &comm->policy.codec : NULL);
    if (curve) return cinch_curve_us(curve, bytes);
    return encoded ? NAN : algo->cost(&call); /* of codecs the guesses know nothing */
}

static unsigned codecs_of(const cinch_op *op) {
    const struct cinchComm *comm = op->call.comm;
    const cinch_shape *shape = cinch_shape_of(op->call.collective);
    size_t block = op->call.count * op->esize;
    const unsigned char *out = op->call.recv;
    cinch_candidate call = {
        .collective = op->call.collective,
        .bytes = block * (size_t)cinch_shape_blocks(shape, comm->nranks),
        .dtype = op->call.dtype,
        .redop = op->call.redop,
        .in_place = op->call.send == out + block * (size_t)cinch_shape_in_base(shape, comm->rank)};
    unsigned codecs = op->call.premul ? 0 : cinch_op_codecs(comm, &call);
    return !op->gpu || cinch_gpu_takes(op, codecs, input_count(op)) ? codecs : 0;
}

cinchResult_t cinch_op_plan(cinch_op *op) {
    op->esize = cinch_dtype_size(op->call.dtype);
    op->source = op->call.send;
    op->signature = cinch_called_signature(&op->call);
    op->reduce =
        cinch_reduce_kernel(op->call.dtype, op->call.redop == cinchAvg ? cinchSum : op->call.redop);
    if (op->call.premul) CINCH_TRY(scale_input(op));
    op->codecs = (uint8_t)codecs_of(op);
    op->encoded = op->codecs != 0;
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

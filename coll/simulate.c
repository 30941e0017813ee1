/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's semantics on a virtual clock: ranks go through their items until one must wait, and
 * what they send moves in transports/sim. */
#include "coll/simulate.h"

#include <math.h>
#include <stdlib.h>

#include "coll/simulate_net.h"
#include "transports/sim.h"

const cinch_simulate_options cinch_simulate_defaults = {.latency_us = CINCH_LINK_LATENCIES,
                                                        .ahead_bytes = (size_t)256 << 10,
                                                        .esize = 4,
                                                        .ratio = 0.25,
                                                        .granule = 256};

enum {
    MOST_EVENTS = 1 << 22, /* less than a second */
    MANY_EVENTS = 1 << 25, /* some ten seconds: never more, but of one round */
    FEW_SEGMENTS = 2,      /* of a message where there would be more events than that */
    STEADY = 48            /* rounds, and twice as many as are under way at once */
};

typedef struct rank_state {
    size_t iteration;
    int item;
    uint32_t scan;         /* of its messages that are checked one by one: how far it is */
    uint32_t blocked;      /* one past the end that it waits for; 0: none */
    uint32_t blocked_done; /* and how many rounds of that must be complete */
    bool paid;             /* the time that the item takes is over */
    bool finished;
} rank_state;

typedef struct post {
    uint32_t end, next; /* one past the next post's index, 0: none */
} post;

typedef struct machine {
    cinch_sim_net net;
    const cinch_simulate_options *options;
    cinch_sim *sim;
    cinch_cut cut;
    rank_state *rank;
    int running;
    post *post;
    uint32_t posts, post_room, free_post;
    int *past;       /* [rounds + lags] ranks that are past an iteration */
    double *past_us; /* and when all were */
    size_t iterations;
    bool rough; /* too few rounds to tell how it goes on */
    uint64_t messages;
} machine;

static cinchResult_t no_memory(const machine *m) {
    return cinch_fail(cinchSystemError, "out of memory for simulating %d ranks", m->net.ranks);
}

/* ---- bytes ---- */

static double elements_of(const machine *m, const cinch_ref *ref, size_t round) {
    return (double)cinch_cut_span(&m->cut, cinch_cut_length(&m->cut, round), ref).length;
}

static const cinch_item *item_of(const machine *m, int rank, const cinch_sim_end *end) {
    return &m->net.schedule[rank].item[end->item];
}

static double message_bytes(const machine *m, int rank, const cinch_item *item, size_t round) {
    const cinch_ref *ref = &m->net.schedule[rank].refs[item->ref];
    double bytes = elements_of(m, ref, round) * (double)m->options->esize;
    return ref->space == CINCH_WIRE ? ceil(bytes * m->options->ratio) : bytes;
}

static double us_at(double bytes, double gbps) {
    return gbps > 0 ? bytes / (gbps * 1e3) : 0;
}

/* How long a rank is busy with an item. */
static double item_us(const machine *m, int rank, const cinch_item *item, size_t round) {
    const cinch_simulate_options *o = m->options;
    const cinch_ref *ref = &m->net.schedule[rank].refs[item->ref];
    double bytes = elements_of(m, ref, round) * (double)o->esize, us = 0;
    switch (item->op) {
    case CINCH_DO_SEND:
    case CINCH_DO_RECV:
        return bytes > 0 ? o->message_us : 0;
    case CINCH_DO_ENCODE:
        return us_at(bytes, o->encode_gbps);
    default:
        for (int i = 0; i < item->nsrc; i++)
            us += us_at(bytes,
                        ref[item->ndst + i].space == CINCH_WIRE ? o->decode_gbps : o->memory_gbps);
        return us;
    }
}

/* ---- messages ---- */

/* Sends what waits at the head of a connection, if it may. */
static cinchResult_t start(machine *m, uint32_t index) {
    cinch_sim_flow *flow = &m->net.flow[index];
    if (flow->busy || !flow->head) return cinchSuccess;
    post *p = &m->post[flow->head - 1];
    cinch_sim_end *send = &m->net.end[p->end], *receive = &m->net.end[send->peer];
    double bytes = message_bytes(m, flow->from, item_of(m, flow->from, send), send->started);
    if (receive->posted <= send->started) {
        if (flow->ahead + bytes > (double)m->options->ahead_bytes) return cinchSuccess;
        flow->ahead += bytes;
    }
    uint32_t end = p->end, freed = flow->head;
    flow->head = p->next;
    if (!flow->head) flow->tail = 0;
    p->next = m->free_post;
    m->free_post = freed;
    flow->busy = true;
    send->started++;
    m->messages++;
    return cinch_sim_send(m->sim, m->net.arcs + flow->route, flow->hops, bytes, end);
}

static cinchResult_t post_send(machine *m, uint32_t index) {
    cinch_sim_end *send = &m->net.end[index];
    cinch_sim_flow *flow = &m->net.flow[send->flow];
    if (!m->free_post && m->posts == m->post_room) {
        size_t room = m->post_room ? 2 * (size_t)m->post_room : 256;
        post *posts = room < UINT32_MAX ? realloc(m->post, room * sizeof *posts) : NULL;
        if (!posts) return no_memory(m);
        m->post = posts;
        m->post_room = (uint32_t)room;
    }
    uint32_t at = m->free_post ? m->free_post : ++m->posts;
    if (m->free_post) m->free_post = m->post[at - 1].next;
    m->post[at - 1] = (post){index, 0};
    if (flow->tail)
        m->post[flow->tail - 1].next = at;
    else
        flow->head = at;
    flow->tail = at;
    send->posted++;
    return start(m, send->flow);
}

static cinchResult_t post_receive(machine *m, uint32_t index) {
    cinch_sim_end *receive = &m->net.end[index], *send = &m->net.end[receive->peer];
    cinch_sim_flow *flow = &m->net.flow[receive->flow];
    uint32_t round = receive->posted++;
    if (send->started > round)
        flow->ahead -= message_bytes(m, flow->from, item_of(m, flow->from, send), round);
    return start(m, receive->flow);
}

/* ---- ranks ---- */

/* Whether a message of a rank is complete; else the rank waits for it. */
static bool complete(machine *m, int rank, uint32_t msg, size_t round) {
    rank_state *state = &m->rank[rank];
    uint32_t index = m->net.first[rank] + msg;
    const cinch_sim_end *end = &m->net.end[index];
    if (end->done > round || (end->empty && round + 1 == m->cut.rounds)) return true;
    state->blocked = index + 1;
    state->blocked_done = (uint32_t)round + 1;
    return false;
}

/* All messages of a round. What was complete stays so: `scan` remembers how far that is. */
static bool all_complete(machine *m, int rank, size_t round) {
    rank_state *state = &m->rank[rank];
    for (; state->scan < m->net.schedule[rank].nmsg; state->scan++)
        if (!complete(m, rank, state->scan, round)) return false;
    state->scan = 0;
    return true;
}

static bool ready(machine *m, int rank, const cinch_item *item, size_t round) {
    const cinch_schedule *s = &m->net.schedule[rank];
    if (m->rank[rank].paid) return true;
    if (item == s->item && round >= s->depth && !all_complete(m, rank, round - s->depth))
        return false;
    for (unsigned i = 0; i < item->ndep; i++)
        if (!complete(m, rank, s->deps[item->dep + i], round)) return false;
    return true;
}

/* Runs an item. *waits: it takes time first. */
static cinchResult_t run_item(machine *m, int rank, const cinch_item *item, size_t round,
                              bool *waits) {
    rank_state *state = &m->rank[rank];
    double us = state->paid ? 0 : item_us(m, rank, item, round);
    *waits = us > 0;
    state->paid = *waits;
    if (*waits) return cinch_sim_wake(m->sim, cinch_sim_now_us(m->sim) + us, (uint64_t)rank);
    if (item->op != CINCH_DO_SEND && item->op != CINCH_DO_RECV) return cinchSuccess;
    uint32_t index = m->net.first[rank] + item->msg;
    if (m->net.end[index].empty && round + 1 == m->cut.rounds) return cinchSuccess;
    return item->op == CINCH_DO_SEND ? post_send(m, index) : post_receive(m, index);
}

/* Whether the messages of the rounds that may still be under way are complete. */
static bool finish(machine *m, int rank) {
    size_t rounds = m->cut.rounds, depth = m->net.schedule[rank].depth;
    for (size_t round = rounds < depth ? 0 : rounds - depth; round < rounds; round++)
        if (!all_complete(m, rank, round)) return false;
    m->rank[rank].finished = true;
    m->running--;
    return true;
}

/* Until an item must wait. */
static cinchResult_t run(machine *m, int rank) {
    const cinch_schedule *s = &m->net.schedule[rank];
    rank_state *state = &m->rank[rank];
    state->blocked = 0;
    for (; state->iteration < m->cut.rounds + s->lags; state->iteration++, state->item = 0) {
        for (; state->item < s->nitems; state->item++) {
            const cinch_item *item = &s->item[state->item];
            bool waits;
            if (item->lag > state->iteration) break; /* lags do not decrease */
            size_t round = state->iteration - item->lag;
            if (round >= m->cut.rounds) continue;
            if (!ready(m, rank, item, round)) return cinchSuccess;
            CINCH_TRY(run_item(m, rank, item, round, &waits));
            if (waits) return cinchSuccess;
        }
        if (state->iteration < m->iterations && ++m->past[state->iteration] == m->net.ranks)
            m->past_us[state->iteration] = cinch_sim_now_us(m->sim);
    }
    if (!state->finished) finish(m, rank);
    return cinchSuccess;
}

static cinchResult_t count_done(machine *m, int rank, uint32_t index) {
    uint32_t done = ++m->net.end[index].done;
    const rank_state *state = &m->rank[rank];
    bool awaited = state->blocked == index + 1 && done >= state->blocked_done;
    return awaited ? run(m, rank) : cinchSuccess;
}

static cinchResult_t handle(machine *m, const cinch_sim_event *event) {
    if (event->kind == CINCH_SIM_WOKE) return run(m, (int)event->tag);
    uint32_t index = (uint32_t)event->tag;
    const cinch_sim_end *send = &m->net.end[index];
    cinch_sim_flow *flow = &m->net.flow[send->flow];
    if (event->kind == CINCH_SIM_ARRIVED) return count_done(m, flow->to, send->peer);
    flow->busy = false;
    CINCH_TRY(start(m, send->flow));
    return count_done(m, flow->from, index);
}

static cinchResult_t run_all(machine *m) {
    cinch_sim_event event;
    m->running = m->net.ranks;
    for (int r = 0; r < m->net.ranks; r++) CINCH_TRY(run(m, r));
    while (m->running > 0 && cinch_sim_next(m->sim, &event)) CINCH_TRY(handle(m, &event));
    if (m->running == 0) return cinchSuccess;
    return cinch_fail(cinchInternalError, "%d of %d ranks wait for ever", m->running, m->net.ranks);
}

/* ---- before and after ---- */

/* Events of a round whose messages have at most so many segments. */
static double events_of_round(const machine *m, int segments) {
    double events = 0;
    for (int r = 0; r < m->net.ranks; r++)
        for (uint32_t i = m->net.first[r]; i < m->net.first[r + 1]; i++) {
            const cinch_item *item = item_of(m, r, &m->net.end[i]);
            if (item->op != CINCH_DO_SEND) continue;
            double bytes = message_bytes(m, r, item, 0);
            double pieces = fmax(1, fmin(segments, floor(bytes / CINCH_SIM_SEGMENT_LEAST)));
            events += pieces * (m->net.flow[m->net.end[i].flow].hops + 1);
        }
    return events;
}

/* Cuts a message whose simulation would take long to as many rounds as show how it goes on. */
static int limit(machine *m) {
    size_t under_way = 0;
    for (int r = 0; r < m->net.ranks; r++)
        if (m->net.schedule[r].depth > under_way) under_way = m->net.schedule[r].depth;
    size_t least = STEADY + 2 * under_way;
    int segments = CINCH_SIM_SEGMENTS;
    double events = events_of_round(m, segments);
    if (events * (double)m->cut.rounds <= MOST_EVENTS) return segments;
    if (events * (double)(m->cut.rounds < least ? m->cut.rounds : least) > MOST_EVENTS) {
        segments = FEW_SEGMENTS;
        events = events_of_round(m, segments);
    }
    size_t enough = (size_t)(MOST_EVENTS / events), many = (size_t)(MANY_EVENTS / events);
    if (enough < least) enough = least;
    if (enough > many) enough = many < 3 ? 3 : many;
    m->rough = enough < least;
    if (enough < m->cut.rounds) {
        m->cut.rounds = enough;
        m->cut.count = enough * m->cut.round;
    }
    return segments;
}

static void mark_empty(machine *m) {
    for (int r = 0; r < m->net.ranks && m->cut.rounds > 0; r++)
        for (uint32_t i = m->net.first[r]; i < m->net.first[r + 1]; i++) {
            const cinch_ref *ref = &m->net.schedule[r].refs[item_of(m, r, &m->net.end[i])->ref];
            m->net.end[i].empty = elements_of(m, ref, m->cut.rounds - 1) == 0;
        }
}

static cinchResult_t make_network(machine *m, int segments) {
    const cinch_graph *graph = m->net.graph;
    cinch_sim_link *link = calloc((size_t)graph->arcs + 1, sizeof *link);
    if (!link) return no_memory(m);
    for (int a = 0; a < graph->arcs; a++)
        link[a] = (cinch_sim_link){graph->arc[a].gbps, m->options->latency_us[graph->arc[a].link]};
    cinchResult_t result = cinch_sim_make(link, graph->arcs, segments, &m->sim);
    free(link);
    return result;
}

static cinchResult_t prepare(machine *m) {
    int segments = limit(m);
    size_t lags = 0;
    for (int r = 0; r < m->net.ranks; r++)
        if (m->net.schedule[r].lags > lags) lags = m->net.schedule[r].lags;
    mark_empty(m);
    m->iterations = m->cut.rounds + lags;
    m->rank = calloc((size_t)m->net.ranks, sizeof *m->rank);
    m->past = calloc(m->iterations + 1, sizeof *m->past);
    m->past_us = calloc(m->iterations + 1, sizeof *m->past_us);
    if (!m->rank || !m->past || !m->past_us) return no_memory(m);
    return make_network(m, segments);
}

/* What was not simulated takes as long a round as the later half of what was. */
static void tell(const machine *m, const cinch_cut *whole, cinch_simulation *out) {
    size_t last = m->cut.rounds - 1, middle = last / 2;
    *out = (cinch_simulation){.us = cinch_sim_now_us(m->sim),
                              .rounds = whole->rounds,
                              .simulated = m->cut.rounds,
                              .messages = m->messages,
                              .busiest = -1};
    const cinch_graph *graph = m->net.graph;
    for (int a = 0; a < graph->arcs && out->us > 0; a++) {
        double busy = us_at(cinch_sim_carried(m->sim, a), graph->arc[a].gbps) / out->us;
        if (busy > out->busy) out->busy = busy, out->busiest = a;
    }
    if (m->cut.rounds == whole->rounds) return;
    out->rough = m->rough;
    double slope = (m->past_us[last] - m->past_us[middle]) / (double)(last - middle);
    out->us += slope * (double)(whole->count - m->cut.count) / (double)m->cut.round;
}

static void machine_free(machine *m) {
    cinch_sim_free(m->sim);
    cinch_sim_net_free(&m->net);
    free(m->rank);
    free(m->post);
    free(m->past);
    free(m->past_us);
}

static cinchResult_t check(const cinch_graph *graph, const cinch_algo *algo, const cinch_call *call,
                           const cinch_simulate_options *o) {
    const char *why = algo->supports(call);
    if (why)
        return cinch_fail_quiet(cinchInvalidArgument, "%s cannot serve this call: %s", algo->name,
                                why);
    if (call->nranks > graph->gpus)
        return cinch_fail_quiet(cinchInvalidArgument,
                                "%d ranks cannot be simulated on a machine of %d GPUs",
                                call->nranks, graph->gpus);
    if (o->esize < 1 || !(o->ratio > 0) || !(o->message_us >= 0) || !(o->memory_gbps >= 0) ||
        !(o->encode_gbps >= 0) || !(o->decode_gbps >= 0))
        return cinch_fail_quiet(
            cinchInvalidArgument,
            "the options of a simulation have a time or a rate below 0, or no size "
            "of an element");
    return cinchSuccess;
}

cinchResult_t cinch_simulate(const cinch_graph *graph, const cinch_algo *algo,
                             const cinch_call *call, const cinch_simulate_options *options,
                             cinch_simulation *out) {
    if (!options) options = &cinch_simulate_defaults;
    *out = (cinch_simulation){.busiest = -1};
    CINCH_TRY(check(graph, algo, call, options));
    size_t granule = call->encoded && options->granule ? options->granule : 64 / options->esize;
    size_t round = cinch_algo_round_bytes(algo, call, options->chunk) / options->esize;
    cinch_cut cut = cinch_cut_make(call->bytes / options->esize, algo->parts(call),
                                   granule ? granule : 1, round);
    if (cut.rounds == 0) return cinchSuccess;
    machine m = {.options = options, .cut = cut};
    CINCH_TRY(cinch_sim_net_make(graph, algo, call, options, &m.net));
    cinchResult_t result = prepare(&m);
    if (result == cinchSuccess) result = run_all(&m);
    if (result == cinchSuccess) tell(&m, &cut, out);
    machine_free(&m);
    return result;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The verifier: a symbolic machine of n ranks.
 *
 * A cell stands for one part of one round in one buffer. Its value says how often each rank's input
 * is in it. Vector clocks order the accesses (Fidge 1988, Mattern 1989; race rule as in FastTrack,
 * Flanagan and Freund 2009). A message moves when both sides have posted it, so a schedule that
 * needs buffering in between deadlocks here. */
#include "coll/verify.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CALLS = 2 };

typedef struct value {
    int piece;       /* see cinch_shape_piece_in */
    int part, round; /* what it is a piece of; round counts over calls, -1: nothing written yet */
    bool encoded;
    uint8_t codec; /* with which, where encoded */
    bool wide;     /* a sum in fp32 */
    uint8_t finals;
} value;

typedef struct cell {
    value is;
    uint8_t *counts;   /* [n] how often each rank's input is in it */
    uint32_t *read_at; /* [n] each rank's clock at its last read */
    uint32_t wrote_at; /* the writer's clock */
    int writer;
    int sends, recvs; /* messages under way that read or write it */
} cell;

typedef struct post { /* a message that was posted */
    bool posted, matched;
    int item, round;
    int next;        /* in the channel's queue, -1: the last */
    uint32_t *clock; /* the sender's, at the post */
} post;

typedef struct rank_state {
    const cinch_schedule *s;
    cell *cells;
    uint32_t *clock;
    int call, iteration, item; /* where it stands */
    bool done;
    int *raised;            /* [flags] rounds raised so far */
    uint32_t **raised_at;   /* [flags * rounds] clocks */
    post *posts;            /* [depth * nmsg] */
    int *head[2], *tail[2]; /* per peer: queues of sends to it and recvs from it; -1: empty */
    uint32_t *ended;        /* its clock at the end of its last call */
    uint32_t begun[CALLS];  /* its own count when it began each */
} rank_state;

enum { FLAGS = 8 };

typedef struct machine {
    int n, rounds; /* rounds of one call */
    const cinch_shape *shape;
    int root;
    bool in_place;
    rank_state *rank;
    char *why;
    bool bad;
    cinch_arena arena;
} machine;

static void *take(machine *m, size_t bytes) {
    void *p = cinch_arena_take(&m->arena, bytes + 1);
    if (!p && !m->bad) {
        m->bad = true;
        snprintf(m->why, CINCH_ERROR_TEXT, "out of memory");
    }
    return p;
}

static bool wrong(machine *m, const rank_state *r, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static bool wrong(machine *m, const rank_state *r, const char *format, ...) {
    if (m->bad) return false;
    m->bad = true;
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(m->why, CINCH_ERROR_TEXT, "rank %d of %d, call %d, iteration %d, item %d: %s",
             (int)(r - m->rank), m->n, r->call, r->iteration, r->item, text);
    return false;
}

/* ---- memory ---- */

/* Cells of a block of the user's, and of both buffers, laid out as in place or apart. */
static size_t block_cells(const machine *m, const cinch_schedule *s) {
    return (size_t)m->rounds * s->parts;
}
static size_t user_cells(const machine *m, const cinch_schedule *s) {
    return (size_t)(cinch_shape_in_blocks(m->shape, m->n) +
                    cinch_shape_out_blocks(m->shape, m->n)) *
           block_cells(m, s);
}
static int user_block(const machine *m, const cinch_schedule *s, const cinch_ref *ref) {
    bool in = ref->space == CINCH_IN || ref->space == CINCH_PEER_IN;
    if (!m->in_place) return ref->block + (in ? cinch_shape_out_blocks(m->shape, m->n) : 0);
    return ref->block + (in ? cinch_shape_in_base(m->shape, s->rank)
                            : cinch_shape_out_base(m->shape, s->rank, m->n));
}

static size_t cell_count(const machine *m, const cinch_schedule *s) {
    size_t parts = s->parts;
    return user_cells(m, s) + s->depth * ((size_t)s->ntmp * parts + s->nbox + s->nwire) +
           (size_t)s->stage_slots * s->stage_blocks * parts;
}

/* The cell of ref's part `part` for round t (of this call), seen from rank r. */
static cell *find(machine *m, rank_state *r, const cinch_ref *ref, int part, int t) {
    const cinch_schedule *s = r->s;
    size_t parts = s->parts, private = user_cells(m, s);
    size_t deep = (size_t)(t % s->depth);
    rank_state *owner = ref->space >= CINCH_STAGE ? &m->rank[ref->rank] : r;
    size_t at = 0;
    switch (ref->space) {
    case CINCH_IN:
    case CINCH_OUT:
    case CINCH_PEER_IN:
    case CINCH_PEER_OUT:
        at = (size_t)user_block(m, owner->s, ref) * block_cells(m, s) + (size_t)t * parts +
             (size_t)part;
        break;
    case CINCH_TMP:
        at = private + (deep * s->ntmp + ref->slot) * parts + (size_t)part;
        break;
    case CINCH_BOX:
        at = private + (size_t)s->depth * s->ntmp * parts + deep * s->nbox + ref->slot;
        break;
    case CINCH_WIRE:
        at = private + s->depth * ((size_t)s->ntmp * parts + s->nbox) + deep * s->nwire + ref->slot;
        break;
    default:
        at = private + s->depth * ((size_t)s->ntmp * parts + s->nbox + s->nwire) +
             ((size_t)((r->call * m->rounds + t) % s->stage_slots) * s->stage_blocks + ref->block) *
                 parts +
             (size_t)part;
    }
    return &owner->cells[at];
}

/* Whether the collective uses what ref names: a rank has no buffers but those. */
static bool exists(machine *m, rank_state *r, const cinch_ref *ref) {
    bool in = ref->space == CINCH_IN || ref->space == CINCH_PEER_IN;
    bool peer = ref->space >= CINCH_STAGE;
    int rank = peer ? ref->rank : r->s->rank, most = 1;
    if (rank >= m->n) return wrong(m, r, "names rank %d", rank);
    bool used = true;
    if (ref->space == CINCH_STAGE) {
        most = r->s->stage_blocks;
    } else if (ref->space >= CINCH_TMP && ref->space <= CINCH_WIRE) {
        most = cinch_shape_in_blocks(m->shape, m->n);
    } else if (in) {
        used = cinch_shape_sends(m->shape, rank, m->root);
        most = cinch_shape_in_blocks(m->shape, m->n);
    } else if (ref->space == CINCH_OUT || ref->space == CINCH_PEER_OUT) {
        used = cinch_shape_gets(m->shape, rank, m->root);
        most = cinch_shape_out_blocks(m->shape, m->n);
    }
    if (!used) return wrong(m, r, "uses a buffer that rank %d does not have", rank);
    return ref->block < most || wrong(m, r, "uses block %d of %d", ref->block, most);
}

static int first_part(const cinch_ref *ref) {
    return ref->part == CINCH_ALL_PARTS ? 0 : ref->part;
}
static int end_part(const rank_state *r, const cinch_ref *ref) {
    return ref->part == CINCH_ALL_PARTS ? r->s->parts : ref->part + ref->parts;
}

static bool may_read(machine *m, rank_state *r, cell *c) {
    int me = (int)(r - m->rank);
    if (c->recvs) return wrong(m, r, "reads what a receive under way may be writing");
    if (c->writer != me && c->wrote_at > r->clock[c->writer])
        return wrong(m, r, "reads what rank %d may still be writing", c->writer);
    c->read_at[me] = r->clock[me];
    return true;
}

static bool may_write(machine *m, rank_state *r, cell *c) {
    int me = (int)(r - m->rank);
    if (c->recvs || c->sends) return wrong(m, r, "writes what a message under way uses");
    if (c->writer != me && c->wrote_at > r->clock[c->writer])
        return wrong(m, r, "overwrites what rank %d may still be writing", c->writer);
    for (int q = 0; q < m->n; q++)
        if (q != me && c->read_at[q] > r->clock[q])
            return wrong(m, r, "overwrites what rank %d may still be reading", q);
    c->writer = me;
    c->wrote_at = r->clock[me];
    return true;
}

static bool holds(machine *m, rank_state *r, const cell *c, int t) {
    if (c->is.round < 0) return wrong(m, r, "reads what was never written");
    if (c->is.round != r->call * m->rounds + t)
        return wrong(m, r, "reads round %d in place of %d", c->is.round, r->call * m->rounds + t);
    return true;
}

/* dst := the value. */
static bool put(machine *m, rank_state *r, const cinch_ref *ref, int part, int t, value v,
                const uint8_t *counts) {
    if (!exists(m, r, ref)) return false;
    if (ref->space == CINCH_IN || ref->space == CINCH_PEER_IN)
        return wrong(m, r, "writes to a send buffer");
    cell *c = find(m, r, ref, part, t);
    /* Also where one place serves all parts: their lengths differ in a last round. */
    if (v.part != part) return wrong(m, r, "puts part %d where part %d goes", v.part, part);
    if ((ref->space == CINCH_WIRE) != v.encoded)
        return wrong(m, r, "mixes encoded and plain memory");
    c->is = v;
    memcpy(c->counts, counts, (size_t)m->n);
    return true;
}

/* ---- items ---- */

/* Whether the item can take the value from there. */
static bool fits(machine *m, rank_state *r, const cinch_item *item, const cinch_ref *src,
                 const value *v) {
    if (v->encoded != (item->op == CINCH_DO_SUM && src->space == CINCH_WIRE))
        return wrong(m, r, "takes encoded bytes for plain elements, or the reverse");
    if (v->encoded && v->codec != cinch_item_codec(item))
        return wrong(m, r, "decodes with codec %d what codec %d encoded", cinch_item_codec(item),
                     v->codec);
    bool wide = item->op == CINCH_DO_ENCODE ? item->flags & (CINCH_OWNER | CINCH_WIDE)
                                            : item->op == CINCH_DO_SUM && item->flags & CINCH_WIDE;
    return v->encoded || v->wide == wide ||
           wrong(m, r, "takes a sum in fp32 for elements, or the reverse");
}

/* COPY, REDUCE, ENCODE and SUM: dst = the sum of the sources. */
static bool combine(machine *m, rank_state *r, const cinch_item *item, int t) {
    const cinch_ref *dst = &r->s->refs[item->ref], *src = dst + item->ndst;
    bool summing = item->op == CINCH_DO_REDUCE || item->op == CINCH_DO_SUM;
    int base = first_part(&src[0]), width = end_part(r, &src[0]) - base;
    uint8_t counts[256];
    for (int w = 0; w < width; w++) {
        /* In place some copies are of a block to itself, which is to do nothing. */
        if (item->op == CINCH_DO_COPY && exists(m, r, dst) && exists(m, r, src) &&
            find(m, r, dst, first_part(dst) + w, t) == find(m, r, src, base + w, t))
            continue;
        value sum = {.part = -1, .round = r->call * m->rounds + t};
        memset(counts, 0, (size_t)m->n);
        for (int i = 0; i < item->nsrc; i++) {
            if (!exists(m, r, &src[i])) return false;
            cell *c = find(m, r, &src[i], first_part(&src[i]) + w, t);
            if (!may_read(m, r, c) || !holds(m, r, c, t)) return false;
            if (!fits(m, r, item, &src[i], &c->is)) return false;
            if (c->is.part != first_part(&src[i]) + w)
                return wrong(m, r, "takes part %d for part %d", c->is.part,
                             first_part(&src[i]) + w);
            if (sum.part >= 0 && sum.part != c->is.part)
                return wrong(m, r, "combines part %d with part %d", sum.part, c->is.part);
            if (sum.part >= 0 && sum.piece != c->is.piece)
                return wrong(m, r, "combines what belongs to different blocks");
            if (c->is.finals && item->nsrc > 1) return wrong(m, r, "adds to a finished sum");
            sum.part = c->is.part;
            sum.piece = c->is.piece;
            sum.finals = c->is.finals;
            for (int q = 0; q < m->n; q++) counts[q] = (uint8_t)(counts[q] + c->counts[q]);
        }
        sum.encoded = item->op == CINCH_DO_ENCODE;
        sum.codec = sum.encoded ? (uint8_t)cinch_item_codec(item) : 0;
        sum.wide = item->op == CINCH_DO_SUM && dst->space == CINCH_BOX;
        if (summing && (item->flags & CINCH_FINAL)) sum.finals++;
        for (int i = 0; i < item->ndst; i++) {
            int part = first_part(&dst[i]) + w;
            if (!exists(m, r, &dst[i])) return false;
            cell *c = find(m, r, &dst[i], part, t);
            if (!may_write(m, r, c) || !put(m, r, &dst[i], part, t, sum, counts)) return false;
        }
    }
    return true;
}

static void merge(machine *m, uint32_t *into, const uint32_t *clock) {
    for (int q = 0; q < m->n; q++)
        if (into[q] < clock[q]) into[q] = clock[q];
}

static post *pop(rank_state *r, int recv, int peer) {
    post *p = &r->posts[r->head[recv][peer]];
    r->head[recv][peer] = p->next;
    return p;
}

static void push(rank_state *r, int recv, int peer, int index) {
    int *head = &r->head[recv][peer], *tail = &r->tail[recv][peer];
    if (*head < 0)
        *head = index;
    else
        r->posts[*tail].next = index;
    *tail = index;
    r->posts[index].next = -1;
}

/* Moves the messages of the channel from -> to that both ends have posted. */
static bool match(machine *m, rank_state *from, rank_state *to) {
    int source = (int)(from - m->rank), target = (int)(to - m->rank);
    while (from->head[0][target] >= 0 && to->head[1][source] >= 0) {
        post *a = pop(from, 0, target), *b = pop(to, 1, source);
        const cinch_item *send = &from->s->item[a->item], *recv = &to->s->item[b->item];
        const cinch_ref *src = &from->s->refs[send->ref], *dst = &to->s->refs[recv->ref];
        int width = end_part(from, src) - first_part(src);
        if (send->mark != recv->mark || a->round != b->round || from->call != to->call)
            return wrong(m, to, "expects message %d of round %d, rank %d sent %d of %d", recv->mark,
                         b->round, source, send->mark, a->round);
        if (width != end_part(to, dst) - first_part(dst))
            return wrong(m, to, "receives as many parts as rank %d does not send", source);
        for (int w = 0; w < width; w++) {
            cell *c = find(m, from, src, first_part(src) + w, a->round);
            if (!holds(m, from, c, a->round)) return false;
            if (c->is.wide) return wrong(m, from, "sends a sum in fp32 for elements");
            if (!put(m, to, dst, first_part(dst) + w, b->round, c->is, c->counts)) return false;
        }
        memcpy(b->clock, a->clock, (size_t)m->n * sizeof *b->clock);
        a->matched = b->matched = true;
    }
    return true;
}

static bool start(machine *m, rank_state *r, const cinch_item *item, int t) {
    int me = (int)(r - m->rank), recv = item->op == CINCH_DO_RECV;
    const cinch_ref *ref = &r->s->refs[item->ref];
    if (!exists(m, r, ref)) return false;
    for (int part = first_part(ref); part < end_part(r, ref); part++) {
        cell *c = find(m, r, ref, part, t);
        if (recv ? !may_write(m, r, c) : !may_read(m, r, c)) return false;
        if (recv)
            c->recvs++;
        else
            c->sends++;
    }
    int index = t % r->s->depth * r->s->nmsg + item->msg;
    post *p = &r->posts[index];
    if (p->posted) return wrong(m, r, "posts a message whose last round is not complete");
    p->posted = true;
    p->matched = false;
    p->item = (int)(item - r->s->item);
    p->round = t;
    memcpy(p->clock, r->clock, (size_t)m->n * sizeof *p->clock);
    if (item->peer >= m->n || item->peer == me) return wrong(m, r, "has no such peer");
    push(r, recv, item->peer, index);
    rank_state *peer = &m->rank[item->peer];
    return recv ? match(m, peer, r) : match(m, r, peer);
}

/* The program has waited for the message. 1: complete, 0: not yet. */
static int finish(machine *m, rank_state *r, post *p) {
    if (!p->posted) return 1;
    if (!p->matched) return 0;
    const cinch_item *item = &r->s->item[p->item];
    const cinch_ref *ref = &r->s->refs[item->ref];
    for (int part = first_part(ref); part < end_part(r, ref); part++) {
        cell *c = find(m, r, ref, part, p->round);
        if (item->op == CINCH_DO_RECV)
            c->recvs--;
        else
            c->sends--;
    }
    if (item->op == CINCH_DO_RECV) merge(m, r->clock, p->clock);
    p->posted = false;
    return 1;
}

static bool raise_flag(machine *m, rank_state *r, const cinch_item *item, int t) {
    int round = r->call * m->rounds + t;
    if (item->flag >= FLAGS) return wrong(m, r, "has no flag %d", item->flag);
    if (r->raised[item->flag] != round) return wrong(m, r, "raises a flag out of order");
    uint32_t *at = r->raised_at[item->flag * CALLS * m->rounds + round];
    memcpy(at, r->clock, (size_t)m->n * sizeof *at);
    r->raised[item->flag]++;
    return true;
}

/* 1: ran, 0: blocked, -1: wrong. */
static int run_item(machine *m, rank_state *r, const cinch_item *item, int t) {
    const cinch_schedule *s = r->s;
    for (int i = 0; i < s->nmsg && item == s->item + 0; i++) /* the round's scratch is used anew */
        if (!finish(m, r, &r->posts[t % s->depth * s->nmsg + i])) return 0;
    for (int i = 0; i < item->ndep; i++)
        if (!finish(m, r, &r->posts[t % s->depth * s->nmsg + s->deps[item->dep + (uint32_t)i]]))
            return 0;
    if (item->op == CINCH_DO_WAIT) {
        rank_state *peer = &m->rank[item->peer];
        int round = r->call * m->rounds + t;
        if (peer->raised[item->flag] <= round) return 0;
        merge(m, r->clock, peer->raised_at[item->flag * CALLS * m->rounds + round]);
        return 1;
    }
    r->clock[r - m->rank]++;
    if (item->op == CINCH_DO_POST) return raise_flag(m, r, item, t) ? 1 : -1;
    if (item->op == CINCH_DO_SEND || item->op == CINCH_DO_RECV)
        return start(m, r, item, t) ? 1 : -1;
    return combine(m, r, item, t) ? 1 : -1;
}

/* ---- calls ---- */

static void fill_inputs(machine *m, rank_state *r) {
    int me = (int)(r - m->rank);
    if (!cinch_shape_sends(m->shape, me, m->root)) return;
    for (int b = 0; b < cinch_shape_in_blocks(m->shape, m->n); b++)
        for (int t = 0; t < m->rounds; t++)
            for (int part = 0; part < r->s->parts; part++) {
                cinch_ref in = {.space = CINCH_IN, .block = (uint16_t)b};
                cell *c = find(m, r, &in, part, t);
                c->is = (value){.piece = cinch_shape_piece_in(m->shape, me, b, m->n),
                                .part = part,
                                .round = r->call * m->rounds + t};
                memset(c->counts, 0, (size_t)m->n);
                c->counts[me] = 1;
            }
}

/* The caller may now touch every block of the buffer. */
static bool check_free(machine *m, rank_state *r, cinch_space space, int blocks) {
    for (int b = 0; b < blocks; b++)
        for (int t = 0; t < m->rounds; t++)
            for (int part = 0; part < r->s->parts; part++) {
                cinch_ref ref = {.space = (uint16_t)space, .block = (uint16_t)b};
                if (!may_write(m, r, find(m, r, &ref, part, t))) return false;
            }
    return true;
}

static bool check_cell(machine *m, rank_state *r, const cell *c, int block, int part) {
    int me = (int)(r - m->rank);
    if (c->is.piece != cinch_shape_piece_out(m->shape, me, block, m->n))
        return wrong(m, r, "has in block %d of the result what belongs elsewhere", block);
    for (int q = 0; q < m->n; q++)
        if (c->counts[q] != cinch_shape_holds(m->shape, block, q, m->root))
            return wrong(m, r, "has rank %d's input %d times in block %d, part %d of the result", q,
                         c->counts[q], block, part);
    if (c->is.finals != m->shape->reduces)
        return wrong(m, r, "finished part %d %d times", part, c->is.finals);
    return true;
}

/* Flags and stages serve all collectives of a communicator in turn, which is safe if whoever ends a
 * call with them knows that all ranks have begun it, and so have ended the one before. */
static bool check_together(machine *m, rank_state *r) {
    for (int q = 0; r->s->windowed && q < m->n; q++)
        if (m->rank[q].call < r->call || r->clock[q] <= m->rank[q].begun[r->call])
            return wrong(m, r, "ends a call that rank %d may not have begun", q);
    return true;
}

/* At the end of a call: the result is right, and the caller may now touch both buffers. */
static bool check_outputs(machine *m, rank_state *r) {
    int me = (int)(r - m->rank);
    bool gets = cinch_shape_gets(m->shape, me, m->root);
    int blocks = gets ? cinch_shape_out_blocks(m->shape, m->n) : 0;
    r->clock[me]++;
    for (int b = 0; b < blocks; b++)
        for (int t = 0; t < m->rounds; t++)
            for (int part = 0; part < r->s->parts; part++) {
                cinch_ref out = {.space = CINCH_OUT, .block = (uint16_t)b};
                cell *c = find(m, r, &out, part, t);
                if (!may_read(m, r, c) || !holds(m, r, c, t) || !check_cell(m, r, c, b, part))
                    return false;
            }
    bool sends = cinch_shape_sends(m->shape, me, m->root);
    return check_free(m, r, CINCH_OUT, blocks) &&
           check_free(m, r, CINCH_IN, sends ? cinch_shape_in_blocks(m->shape, m->n) : 0);
}

/* Runs rank r until it blocks. 1: moved, 0: not, -1: wrong. */
static int advance(machine *m, rank_state *r) {
    const cinch_schedule *s = r->s;
    int moved = 0;
    while (!r->done) {
        if (r->iteration == m->rounds + s->lags) {
            for (int i = 0; i < s->depth * s->nmsg; i++)
                if (!finish(m, r, &r->posts[i])) return moved;
            if (!check_outputs(m, r) || !check_together(m, r)) return -1;
            memcpy(r->ended, r->clock, (size_t)m->n * sizeof *r->ended);
            r->iteration = r->item = 0;
            r->done = ++r->call == CALLS;
            if (!r->done) r->begun[r->call] = r->clock[r - m->rank], fill_inputs(m, r);
            return 1;
        }
        const cinch_item *item = &s->item[r->item];
        int t = s->nitems ? r->iteration - item->lag : -1;
        if (t >= 0 && t < m->rounds) {
            int ran = run_item(m, r, item, t);
            if (ran < 0) return -1;
            if (ran == 0) return moved;
        }
        moved = 1;
        if (++r->item >= s->nitems) r->item = 0, r->iteration++;
    }
    return moved;
}

static bool set_up(machine *m, const cinch_schedule *schedule) {
    int n = m->n;
    size_t clock = (size_t)n * sizeof(uint32_t);
    m->rank = take(m, (size_t)n * sizeof *m->rank);
    for (int i = 0; i < n && !m->bad; i++) {
        rank_state *r = &m->rank[i];
        r->s = &schedule[i];
        size_t cells = cell_count(m, r->s), posts = (size_t)r->s->depth * r->s->nmsg;
        r->cells = take(m, cells * sizeof *r->cells);
        uint8_t *counts = take(m, cells * (size_t)n);
        uint32_t *reads = take(m, cells * clock);
        r->clock = take(m, clock);
        r->raised = take(m, FLAGS * sizeof *r->raised);
        r->raised_at = take(m, FLAGS * CALLS * (size_t)m->rounds * sizeof *r->raised_at);
        uint32_t *raised = take(m, FLAGS * CALLS * (size_t)m->rounds * clock);
        r->posts = take(m, posts * sizeof *r->posts);
        uint32_t *clocks = take(m, posts * clock);
        for (int d = 0; d < 2; d++) {
            r->head[d] = take(m, (size_t)n * sizeof(int));
            r->tail[d] = take(m, (size_t)n * sizeof(int));
            if (!m->bad) memset(r->head[d], -1, (size_t)n * sizeof(int));
        }
        r->ended = take(m, clock);
        if (m->bad) return false;
        for (size_t c = 0; c < cells; c++) {
            r->cells[c].counts = counts + c * (size_t)n;
            r->cells[c].read_at = reads + c * (size_t)n;
            r->cells[c].is.round = -1;
        }
        for (int f = 0; f < FLAGS * CALLS * m->rounds; f++) r->raised_at[f] = raised + f * n;
        for (size_t p = 0; p < posts; p++) r->posts[p].clock = clocks + p * (size_t)n;
    }
    return !m->bad;
}

/* With entry_sync nobody begins a call before all have ended the last. */
static bool may_begin(machine *m, const rank_state *r) {
    if (!r->s->entry_sync || r->iteration || r->item || r->done) return true;
    for (int q = 0; q < m->n; q++)
        if (m->rank[q].call < r->call) return false;
    for (int q = 0; q < m->n; q++) merge(m, r->clock, m->rank[q].ended);
    return true;
}

bool cinch_verify(const cinch_schedule *schedule, int nranks, bool in_place, char *why) {
    const cinch_shape *shape = cinch_shape_of(schedule->collective);
    machine m = {.n = nranks,
                 .shape = shape,
                 .root = schedule->root,
                 .in_place = in_place && !cinch_shape_never_in_place(shape),
                 .why = why};
    /* Enough rounds that every slot is used anew at least once while the pipeline is full. */
    for (int i = 0; i < nranks; i++) {
        int rounds = schedule[i].depth + schedule[i].stage_slots + schedule[i].lags + 2;
        if (m.rounds < rounds) m.rounds = rounds;
    }
    why[0] = '\0';
    if (nranks > 256) snprintf(why, CINCH_ERROR_TEXT, "more than 256 ranks"), m.bad = true;
    if (!m.bad && set_up(&m, schedule)) {
        for (int i = 0; i < nranks; i++) fill_inputs(&m, &m.rank[i]);
        int moved = 1, left = nranks;
        while (moved && left && !m.bad) {
            moved = left = 0;
            for (int i = 0; i < nranks && !m.bad; i++) {
                rank_state *r = &m.rank[i];
                if (may_begin(&m, r)) moved |= advance(&m, r) > 0;
                left += !r->done;
            }
        }
        for (int i = 0; left && i < nranks && !m.bad; i++)
            if (!m.rank[i].done) wrong(&m, &m.rank[i], "waits for ever");
    }
    cinch_arena_free(&m.arena);
    return !m.bad;
}

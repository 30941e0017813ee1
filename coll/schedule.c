/* SPDX-License-Identifier: Apache-2.0 */
/* Building schedules: items are collected, then dependencies and sizes are derived. */
#include "coll/schedule.h"

#include <string.h>

void cinch_schedule_free(cinch_schedule *s) {
    cinch_arena_free(&s->arena);
    memset(s, 0, sizeof *s);
}

bool cinch_build_begin(cinch_builder *b, cinch_schedule *s, int rank, int nranks, int parts) {
    *b = (cinch_builder){.s = s};
    *s = (cinch_schedule){
        .rank = rank, .nranks = nranks, .parts = (uint16_t)parts, .stage_blocks = 1};
    for (int i = 0; i < 2; i++) {
        b->list[i] = cinch_arena_take(&b->scratch, (size_t)nranks * sizeof *b->list[i]);
        b->failed |= !b->list[i];
    }
    return !b->failed;
}

void cinch_build_lag(cinch_builder *b, int lag) {
    b->lag = (uint8_t)lag;
    if (b->lag > b->s->lags) b->s->lags = b->lag;
}

cinch_ref cinch_ref_of(cinch_space space, int part) {
    return cinch_ref_slot(space, 0, part);
}

cinch_ref cinch_ref_slot(cinch_space space, int slot, int part) {
    return (cinch_ref){
        .space = (uint16_t)space, .slot = (uint16_t)slot, .part = (uint16_t)part, .parts = 1};
}

cinch_ref cinch_ref_rank(cinch_space space, int rank, int part) {
    cinch_ref ref = cinch_ref_slot(space, 0, part);
    ref.rank = (uint16_t)rank;
    return ref;
}

cinch_ref cinch_ref_parts(cinch_ref ref, int parts) {
    ref.parts = (uint16_t)parts;
    return ref;
}

cinch_ref cinch_ref_block(cinch_ref ref, int block) {
    ref.block = (uint16_t)block;
    return ref;
}

/* Room for one more of `size` bytes in an array from the scratch arena. */
static void *grow(cinch_builder *b, void *array, int used, int *room, size_t size) {
    if (used < *room) return array;
    int more = *room ? 2 * *room : 64;
    void *bigger = cinch_arena_take(&b->scratch, (size_t)more * size);
    if (!bigger) {
        b->failed = true;
        return NULL;
    }
    if (used) memcpy(bigger, array, (size_t)used * size);
    *room = more;
    return bigger;
}

static cinch_item *add(cinch_builder *b, cinch_do op, const cinch_ref *dst, int ndst,
                       const cinch_ref *src, int nsrc) {
    static cinch_item nowhere; /* what a builder without memory writes to */
    cinch_schedule *s = b->s;
    if (b->failed) return &nowhere;
    cinch_item *items = grow(b, s->item, s->nitems, &b->room_items, sizeof *items);
    if (!items) return &nowhere;
    s->item = items;
    uint32_t first = (uint32_t)b->nrefs;
    for (int i = 0; i < ndst + nsrc; i++) {
        cinch_ref *refs = grow(b, s->refs, b->nrefs, &b->room_refs, sizeof *refs);
        if (!refs) return &nowhere;
        s->refs = refs;
        refs[b->nrefs++] = i < ndst ? dst[i] : src[i - ndst];
    }
    cinch_item *item = &s->item[s->nitems++];
    *item = (cinch_item){.op = (uint8_t)op,
                         .lag = b->lag,
                         .ref = first,
                         .ndst = (uint16_t)ndst,
                         .nsrc = (uint16_t)nsrc,
                         .msg = CINCH_NO_MSG};
    return item;
}

void cinch_build_copy(cinch_builder *b, cinch_ref dst, cinch_ref src) {
    add(b, CINCH_DO_COPY, &dst, 1, &src, 1);
}

void cinch_build_reduce(cinch_builder *b, unsigned flags, const cinch_ref *dst, int ndst,
                        const cinch_ref *src, int nsrc) {
    add(b, CINCH_DO_REDUCE, dst, ndst, src, nsrc)->flags = (uint8_t)flags;
}

static void message(cinch_builder *b, cinch_item *item, int peer, int mark) {
    item->peer = (uint16_t)peer;
    item->mark = (uint16_t)mark;
    item->msg = b->s->nmsg++;
}

void cinch_build_send(cinch_builder *b, int peer, int mark, cinch_ref src) {
    message(b, add(b, CINCH_DO_SEND, NULL, 0, &src, 1), peer, mark);
}

void cinch_build_recv(cinch_builder *b, int peer, int mark, cinch_ref dst) {
    message(b, add(b, CINCH_DO_RECV, &dst, 1, NULL, 0), peer, mark);
}

void cinch_build_post(cinch_builder *b, int flag) {
    add(b, CINCH_DO_POST, NULL, 0, NULL, 0)->flag = (uint8_t)flag;
    b->s->windowed = true;
}

void cinch_build_wait(cinch_builder *b, int flag, int peer) {
    cinch_item *item = add(b, CINCH_DO_WAIT, NULL, 0, NULL, 0);
    item->flag = (uint8_t)flag;
    item->peer = (uint16_t)peer;
}

static void coded(cinch_builder *b, cinch_item *item, unsigned flags) {
    item->flags = (uint8_t)flags;
    b->s->encoded = true;
    b->s->codecs |= (uint8_t)(1u << cinch_item_codec(item));
}

void cinch_build_encode(cinch_builder *b, unsigned flags, cinch_ref dst, cinch_ref src) {
    cinch_item *item = add(b, CINCH_DO_ENCODE, &dst, 1, &src, 1);
    coded(b, item, flags);
    b->s->owner |= (flags & CINCH_OWNER) != 0;
    if (src.space == CINCH_IN) b->s->inputs |= (uint8_t)(1u << cinch_item_codec(item));
}

void cinch_build_sum(cinch_builder *b, unsigned flags, cinch_ref dst, const cinch_ref *src,
                     int nsrc) {
    coded(b, add(b, CINCH_DO_SUM, &dst, 1, src, nsrc), flags);
}

/* The block of the user's memory, when in place. */
static int joint_block(const cinch_schedule *s, const cinch_ref *ref) {
    const cinch_shape *shape = cinch_shape_of(s->collective);
    return ref->block + (ref->space == CINCH_IN ? cinch_shape_in_base(shape, s->rank)
                                                : cinch_shape_out_base(shape, s->rank, s->nranks));
}

/* Whether two refs of one rank and round may share memory. IN and OUT do when in place. */
static bool overlap(const cinch_schedule *s, const cinch_ref *a, const cinch_ref *b) {
    bool user_a = a->space <= CINCH_OUT, user_b = b->space <= CINCH_OUT;
    if (user_a != user_b || (!user_a && a->space != b->space)) return false;
    if (user_a && joint_block(s, a) != joint_block(s, b)) return false;
    if (a->slot != b->slot || a->rank != b->rank) return false;
    if (a->space == CINCH_STAGE && a->block != b->block) return false;
    if (a->space == CINCH_BOX || a->space == CINCH_WIRE) return true; /* parts share the slot */
    if (a->part == CINCH_ALL_PARTS || b->part == CINCH_ALL_PARTS) return true;
    return a->part < b->part + b->parts && b->part < a->part + a->parts;
}

/* Whether `later` must wait for the message of `earlier`. */
static bool conflicts(const cinch_schedule *s, const cinch_item *earlier, const cinch_item *later) {
    bool writes = earlier->op == CINCH_DO_RECV;
    const cinch_ref *touched = &s->refs[earlier->ref];
    for (int i = 0; i < later->ndst + later->nsrc; i++)
        if ((writes || i < later->ndst) && overlap(s, touched, &s->refs[later->ref + (uint32_t)i]))
            return true;
    return false;
}

static void count_slots(cinch_schedule *s, int nrefs) {
    for (int i = 0; i < nrefs; i++) {
        const cinch_ref *r = &s->refs[i];
        uint16_t *n = r->space == CINCH_TMP    ? &s->ntmp
                      : r->space == CINCH_BOX  ? &s->nbox
                      : r->space == CINCH_WIRE ? &s->nwire
                                               : NULL;
        if (n && *n < r->slot + 1) *n = (uint16_t)(r->slot + 1);
    }
}

/* Moves the arrays into the schedule's own arena and adds the deps of every item. */
static bool settle(cinch_builder *b) {
    cinch_schedule *s = b->s;
    cinch_item *items = cinch_arena_take(&s->arena, (size_t)s->nitems * sizeof *items + 1);
    cinch_ref *refs = cinch_arena_take(&s->arena, (size_t)b->nrefs * sizeof *refs + 1);
    uint16_t *open = cinch_arena_take(&b->scratch, ((size_t)s->nitems + 1) * sizeof *open);
    if (!items || !refs || !open) return false;
    if (s->nitems) memcpy(items, s->item, (size_t)s->nitems * sizeof *items);
    if (b->nrefs) memcpy(refs, s->refs, (size_t)b->nrefs * sizeof *refs);
    s->item = items;
    s->refs = refs;
    uint16_t *deps = NULL;
    int ndeps = 0, room = 0, nopen = 0; /* open: message items not yet waited for */
    for (int i = 0; i < s->nitems; i++) {
        cinch_item *item = &items[i];
        item->dep = (uint32_t)ndeps;
        int kept = 0;
        for (int j = 0; j < nopen; j++) {
            if (!conflicts(s, &items[open[j]], item)) {
                open[kept++] = open[j];
                continue;
            }
            deps = grow(b, deps, ndeps, &room, sizeof *deps);
            if (!deps) return false;
            deps[ndeps++] = items[open[j]].msg;
            item->ndep++;
        }
        nopen = kept;
        if (item->msg != CINCH_NO_MSG) open[nopen++] = (uint16_t)i;
    }
    s->deps = cinch_arena_take(&s->arena, (size_t)ndeps * sizeof *deps + 1);
    s->msg_wire = cinch_arena_take(&s->arena, (size_t)s->nmsg * sizeof *s->msg_wire + 1);
    if (!s->deps || !s->msg_wire) return false;
    if (ndeps) memcpy(s->deps, deps, (size_t)ndeps * sizeof *deps);
    for (int i = 0; i < s->nitems; i++) {
        const cinch_ref *ref = &refs[items[i].ref];
        if (items[i].msg == CINCH_NO_MSG) continue;
        bool fills = items[i].op == CINCH_DO_RECV && ref->space == CINCH_WIRE;
        s->msg_wire[items[i].msg] = fills ? ref->slot : CINCH_NO_MSG;
    }
    return true;
}

cinchResult_t cinch_build_end(cinch_builder *b) {
    cinch_schedule *s = b->s;
    bool good = !b->failed && settle(b);
    cinch_arena_free(&b->scratch);
    if (!good) {
        cinch_schedule_free(s);
        return cinch_fail(cinchSystemError, "out of memory for a schedule");
    }
    count_slots(s, b->nrefs);
    s->depth = (uint8_t)(s->nmsg ? s->lags + 2 : 1); /* a round more lets sends linger */
    return cinchSuccess;
}

static size_t round_up(size_t value, size_t unit) {
    return (value + unit - 1) / unit * unit;
}

cinch_cut cinch_cut_make(size_t count, int parts, size_t granule, size_t round_elements) {
    size_t unit = (size_t)parts * granule;
    size_t most = round_up(round_elements < count ? round_elements : count, unit);
    if (most < unit) most = unit;
    size_t rounds = (count + most - 1) / most;
    size_t round = rounds ? round_up((count + rounds - 1) / rounds, unit) : unit;
    return (cinch_cut){count, round, granule, (count + round - 1) / round, parts};
}

size_t cinch_cut_part_max(const cinch_cut *cut) {
    return cut->round / (size_t)cut->parts;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Hierarchical all-reduce: at every level, from the inside of hosts outwards, a reduce-scatter in
 * each group, then all-gathers back. So the members of a group drive a slice each across the slower
 * levels, of which the outermost carries 2(G-1)/G of the message per group for G groups. Where
 * groups of a level differ in size there are as many slices as the smallest has members, and the
 * other members of larger ones take part up to that level alone.
 *
 * With a codec at a level its steps go encoded: a member encodes what it gives to another's slice,
 * the owner adds it all in the order of places, in fp32, and takes that sum on to the next level
 * where that is encoded too. What the owner of a part has in the end it encodes once, with the
 * codec of the outermost level that has one, and those bytes go back as far as there are levels
 * with a codec; everyone decodes them, the owner included. Two groups at the only such level need
 * no owner: each gives the other all it has, as in exchange (one quantization less). */
#include "coll/algo/hier.h"

typedef struct plan {
    cinch_hier_levels p;
    int top;        /* the last level */
    bool pair;      /* two groups at the top exchange all */
    unsigned codec; /* of the owner's result */
    int box_got[CINCH_HIER_LEVELS], box_sum[CINCH_HIER_LEVELS];     /* first BOX slots */
    int wire_got[CINCH_HIER_LEVELS], wire_given[CINCH_HIER_LEVELS]; /* first WIRE slots */
    int wire_result;
} plan;

enum { MARK_GIVE, MARK_RESULT, MARK_PAIR }; /* PAIR + h: part h of a pair's slice */
enum { TMP_SUM, TMP_GOT };                  /* slots; GOT + k: from the k-th other member */

/* ---- what is where ---- */

static plan plan_of(const cinch_call *call, int rank) {
    plan a = {.p = cinch_hier_levels_of(call, rank)};
    int box = 0, wire = 0;
    a.top = a.p.count - 1;
    a.pair = a.p.at[a.top].members == 2 && a.p.coded_from == a.top;
    for (int l = 0; l < a.p.count; l++) {
        const cinch_hier_level *at = &a.p.at[l];
        if (at->encoded) a.codec = at->codec;
        a.box_got[l] = box;
        a.box_sum[l] = box += (at->members - 1) * at->width;
        box += at->width;
        a.wire_got[l] = wire;
        a.wire_given[l] = wire += (at->members - 1) * at->width;
        wire += at->owners * at->width;
    }
    a.wire_result = wire;
    return a;
}

/* The first part of an owner's slice. */
static int slice_first(const plan *a, int l, int owner) {
    return a->p.at[l].first + owner * a->p.at[l].width;
}
static int own_first(const plan *a, int l) {
    return slice_first(a, l, a->p.at[l].me);
}

/* A place among the others of the group. */
static int among_others(const cinch_hier_level *at, int place) {
    return place < at->me ? place : place - 1;
}

/* Where a member's share of an own part arrives. */
static cinch_ref got(const plan *a, int l, int from, int part) {
    const cinch_hier_level *at = &a->p.at[l];
    int other = among_others(at, from), nth = other * at->width + part - own_first(a, l);
    if (at->encoded) return cinch_ref_slot(CINCH_WIRE, a->wire_got[l] + nth, part);
    if (at->kind == 0) return cinch_ref_slot(CINCH_TMP, TMP_GOT + other, part);
    return cinch_ref_slot(CINCH_BOX, a->box_got[l] + nth, part);
}

/* Whether the level's sum goes on in fp32. */
static bool is_wide(const plan *a, int l) {
    return l >= 0 && l < a->top && a->p.at[l].encoded && a->p.at[l + 1].encoded;
}

/* The last level below l that has summed anything here; -1: none. */
static int summed_below(const plan *a, int l) {
    while (--l >= 0 && a->p.at[l].members == 1) continue;
    return l;
}

/* The level's sum of an own part, below the top. */
static cinch_ref sum_at(const plan *a, int l, int part) {
    const cinch_hier_level *at = &a->p.at[l];
    if (!is_wide(a, l) && (at->kind == 0 || at->encoded))
        return cinch_ref_slot(CINCH_TMP, TMP_SUM, part);
    return cinch_ref_slot(CINCH_BOX, a->box_sum[l] + part - own_first(a, l), part);
}

/* What the rank brings to level l of a part, and whether that is fp32 in a BOX. */
static cinch_ref brought(const plan *a, int l, int part) {
    int below = summed_below(a, l);
    return below < 0 ? cinch_ref_of(CINCH_IN, part) : sum_at(a, below, part);
}
static unsigned wide_brought(const plan *a, int l) {
    return is_wide(a, summed_below(a, l)) ? CINCH_WIDE : 0;
}

static cinch_ref result_wire(const plan *a, int part) {
    return cinch_ref_slot(CINCH_WIRE, a->wire_result + part - a->p.at[a->p.coded_from].first, part);
}

/* ---- down: reduce-scatter ---- */

/* Whether the parts of a slice go as one message: not those that have places of their own. */
static bool in_one(const plan *a, int l) {
    return !a->p.at[l].encoded && a->p.at[l].kind == 0;
}

static void take(cinch_builder *b, const plan *a, int l, int from) {
    int first = own_first(a, l), width = a->p.at[l].width, peer = cinch_hier_member(&a->p, l, from);
    if (in_one(a, l)) {
        cinch_build_recv(b, peer, MARK_GIVE, cinch_ref_parts(got(a, l, from, first), width));
        return;
    }
    for (int part = first; part < first + width; part++)
        cinch_build_recv(b, peer, MARK_GIVE, got(a, l, from, part));
}

static void give(cinch_builder *b, const plan *a, int l, int to) {
    const cinch_hier_level *at = &a->p.at[l];
    int first = slice_first(a, l, to), peer = cinch_hier_member(&a->p, l, to);
    if (in_one(a, l)) {
        cinch_build_send(b, peer, MARK_GIVE, cinch_ref_parts(brought(a, l, first), at->width));
        return;
    }
    for (int k = 0; k < at->width; k++) {
        cinch_ref from = brought(a, l, first + k);
        if (at->encoded) {
            cinch_ref wire =
                cinch_ref_slot(CINCH_WIRE, a->wire_given[l] + to * at->width + k, first + k);
            cinch_build_encode(b, at->codec | wide_brought(a, l), wire, from);
            from = wire;
        }
        cinch_build_send(b, peer, MARK_GIVE, from);
    }
}

static void exchange_shares(cinch_builder *b, const plan *a, int l) {
    const cinch_hier_level *at = &a->p.at[l];
    for (int i = 1; i < at->members; i++) { /* everyone begins at another peer */
        int to = (at->me + i) % at->members, from = (at->me + at->members - i) % at->members;
        if (at->me < at->owners) take(b, a, l, from);
        if (to < at->owners) give(b, a, l, to);
    }
}

/* The group's shares of a part, in the order of places. */
static int shares(const plan *a, int l, int part, cinch_ref *src) {
    const cinch_hier_level *at = &a->p.at[l];
    for (int m = 0; m < at->members; m++)
        src[m] = m == at->me ? brought(a, l, part) : got(a, l, m, part);
    return at->members;
}

/* The sum of an own slice, below the top. */
static void sum_slice(cinch_builder *b, const plan *a, int l) {
    const cinch_hier_level *at = &a->p.at[l];
    int first = own_first(a, l), step = in_one(a, l) ? at->width : 1;
    if (at->members == 1) return;
    for (int part = first; part < first + at->width; part += step) {
        cinch_ref sum = cinch_ref_parts(sum_at(a, l, part), step);
        int n = shares(a, l, part, b->list[0]);
        for (int i = 0; i < n; i++) b->list[0][i].parts = (uint16_t)step;
        if (at->encoded)
            cinch_build_sum(b, at->codec | wide_brought(a, l), sum, b->list[0], n);
        else
            cinch_build_reduce(b, 0, &sum, 1, b->list[0], n);
    }
}

/* ---- the top ---- */

/* Two groups: each encodes both parts, and has the sums at once. */
static void pair(cinch_builder *b, const plan *a) {
    const cinch_hier_level *at = &a->p.at[a->top];
    int peer = cinch_hier_member(&a->p, a->top, 1 - at->me);
    cinch_ref wire[2][2]; /* [whose][part] */
    for (int h = 0; h < 2; h++) {
        int part = slice_first(a, a->top, h);
        for (int who = 0; who < 2; who++)
            wire[who][h] = cinch_ref_slot(CINCH_WIRE, (who == at->me ? 0 : 2) + h, part);
        cinch_build_recv(b, peer, MARK_PAIR + h, wire[1 - at->me][h]);
        cinch_build_encode(b, at->codec, wire[at->me][h], brought(a, a->top, part));
        cinch_build_send(b, peer, MARK_PAIR + h, wire[at->me][h]);
    }
    cinch_build_lag(b, 2 * a->p.count);
    for (int h = 0; h < 2; h++) {
        cinch_ref src[2] = {wire[0][h], wire[1][h]};
        cinch_build_sum(b, at->codec | CINCH_FINAL,
                        cinch_ref_of(CINCH_OUT, slice_first(a, a->top, h)), src, 2);
    }
}

/* The result of the own part. Where nothing but levels below are encoded the sum is one of plain
 * shares alone, in fp32 all the same. */
static void finish(cinch_builder *b, const plan *a) {
    int part = own_first(a, a->top), n = shares(a, a->top, part, b->list[0]);
    if (a->p.coded_from == a->p.count) {
        cinch_ref out = cinch_ref_of(CINCH_OUT, part);
        cinch_build_reduce(b, CINCH_FINAL, &out, 1, b->list[0], n);
        return;
    }
    cinch_ref sum = cinch_ref_slot(CINCH_BOX, a->box_sum[a->top], part);
    cinch_build_sum(b, CINCH_FINAL | a->codec | wide_brought(a, a->top), sum, b->list[0], n);
    cinch_build_encode(b, CINCH_OWNER | a->codec, result_wire(a, part), sum);
}

/* ---- up: all-gather ---- */

/* An owner's slice of the result, to or from a member. */
static void pass(cinch_builder *b, const plan *a, int l, int owner, int peer, bool sends) {
    int first = slice_first(a, l, owner), width = a->p.at[l].width;
    bool encoded = l >= a->p.coded_from;
    for (int part = first; part < first + width; part += encoded ? 1 : width) {
        cinch_ref ref =
            encoded ? result_wire(a, part) : cinch_ref_parts(cinch_ref_of(CINCH_OUT, part), width);
        if (sends)
            cinch_build_send(b, peer, MARK_RESULT, ref);
        else
            cinch_build_recv(b, peer, MARK_RESULT, ref);
    }
}

static void gather(cinch_builder *b, const plan *a, int l) {
    const cinch_hier_level *at = &a->p.at[l];
    for (int i = 1; i < at->members; i++) {
        int to = (at->me + i) % at->members, from = (at->me + at->members - i) % at->members;
        if (at->me < at->owners) pass(b, a, l, at->me, cinch_hier_member(&a->p, l, to), true);
        if (from < at->owners) pass(b, a, l, from, cinch_hier_member(&a->p, l, from), false);
    }
}

static void decode(cinch_builder *b, const plan *a, int l) {
    const cinch_hier_level *at = &a->p.at[l];
    for (int part = at->first; part < at->first + at->owners * at->width; part++) {
        cinch_ref wire = result_wire(a, part);
        cinch_build_sum(b, a->codec, cinch_ref_of(CINCH_OUT, part), &wire, 1);
    }
}

/* ---- all of it ---- */

/* The lags depend on the levels alone: a rank that reaches fewer has the same for what it does. */
static void build(cinch_builder *b, cinch_schedule *s, int rank, int n, const cinch_call *call) {
    plan a = plan_of(call, rank);
    bool drives = a.p.reached == a.p.count; /* some parts, to the top */
    if (!cinch_build_begin(b, s, rank, n, a.p.parts)) return;
    for (int l = 0; l < a.p.reached; l++) {
        cinch_build_lag(b, 2 * l); /* sends run ahead, so that the wire never waits for a wake-up */
        if (l > 0) sum_slice(b, &a, l - 1);
        if (l == a.top && a.pair)
            pair(b, &a);
        else
            exchange_shares(b, &a, l);
    }
    int lag = 2 * a.p.count, from = a.pair ? a.top - 1 : a.top;
    cinch_build_lag(b, lag);
    if (drives && !a.pair) finish(b, &a);
    for (int l = from; l >= 0; l--, lag += 2) {
        cinch_build_lag(b, lag);
        if (l < a.p.reached) gather(b, &a, l);
        if (l != a.p.coded_from) continue;
        cinch_build_lag(b, lag + 2);
        if (l < a.p.reached) decode(b, &a, l);
    }
}

/* The outermost level counts. */
static double cost(const cinch_call *call) {
    bool far = cinch_hier_sites(call) > 1;
    double groups = far ? cinch_hier_sites(call) : call->hosts;
    return cinch_hier_cost(call, far ? 6 : 4, 2 * (groups - 1) / groups, 2);
}

const cinch_algo cinch_algo_hier = {
    .name = "hier",
    .supports = cinch_hier_supports,
    .cost = cost,
    .build = build,
    .parts = cinch_hier_parts,
    .part_bytes = (size_t)64 << 10,
    .least_bytes = (size_t)16 << 10,
};

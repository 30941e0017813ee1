/* SPDX-License-Identifier: Apache-2.0 */
/* Communicators made out of another: split, and shrink. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coll/graph.h"
#include "coll/group.h"
#include "coll/inforce.h"
#include "coll/making.h"
#include "coll/nccl/inner.h"

/* ---- split ---- */

typedef struct wish {
    int32_t color, key;
} wish;

typedef struct offer { /* of the lowest rank of a color, to the others */
    cinchUniqueId id;
    char why[256]; /* not empty: it could not make one */
} offer;

/* This rank's place among those of its color; *leader: the parent's number of the lowest. */
static void find_place(const struct cinchComm *parent, const wish *all, int *rank, int *nranks,
                       int *leader) {
    const wish *mine = &all[parent->rank];
    *rank = *nranks = 0;
    *leader = parent->rank;
    for (int q = 0; q < parent->nranks; q++) {
        if (all[q].color != mine->color) continue;
        ++*nranks;
        *rank += all[q].key < mine->key || (all[q].key == mine->key && q < parent->rank);
        if (all[q].key < all[*leader].key || (all[q].key == all[*leader].key && q < *leader))
            *leader = q;
    }
}

/* All ranks of the new communicator were in one that has met: they meet as that does, in the
 * leader's process, whatever CINCH_COMM_ID says. */
static void make_offer(struct cinchComm *comm, offer *mine) {
    char *comm_id = comm->settings.comm_id, none[1] = "";
    comm->settings.comm_id = none;
    if (cinch_rendezvous_id(&comm->settings, &mine->id) != cinchSuccess)
        snprintf(mine->why, sizeof mine->why, "%s", cinch_last_error());
    comm->settings.comm_id = comm_id;
}

typedef struct splitting {
    cinch_making *m;
    wish *wishes;
    offer *offers;
    bool offered; /* an id that nobody knows of until the second all-gather */
} splitting;

/* Who is with whom, and where they meet. */
static cinchResult_t agree(splitting *s) {
    cinch_making *m = s->m;
    struct cinchComm *parent = m->parent;
    size_t n = (size_t)parent->nranks;
    int rank = 0, nranks = 0, leader = 0;
    CINCH_TRY(cinch_comm_healthy(parent));
    s->wishes = calloc(n, sizeof *s->wishes);
    s->offers = calloc(n, sizeof *s->offers);
    offer mine = {.why = ""};
    if (!s->wishes || !s->offers)
        return cinch_fail(cinchSystemError, "out of memory for %zu ranks", n);
    wish wanted = {m->comm ? m->color : CINCH_SPLIT_NOCOLOR, m->key};
    CINCH_TRY(cinch_rendezvous_allgather(parent->meeting, &wanted, sizeof wanted, s->wishes));
    if (m->comm) {
        find_place(parent, s->wishes, &rank, &nranks, &leader);
        m->comm->rank = rank;
        m->comm->nranks = nranks;
        if (leader == parent->rank) {
            make_offer(m->comm, &mine);
            s->offered = !mine.why[0];
        }
    }
    cinchResult_t result =
        cinch_rendezvous_allgather(parent->meeting, &mine, sizeof mine, s->offers);
    if (result != cinchSuccess && s->offered) cinch_rendezvous_forget(&mine.id);
    CINCH_TRY(result);
    if (!m->comm) return cinchSuccess;
    m->id = s->offers[leader].id;
    return cinchSuccess;
}

/* Every rank of the color says the same of an offer that came to nothing. */
static cinchResult_t check_offer(const splitting *s, int leader) {
    const char *why = s->offers[leader].why;
    return why[0] ? cinch_fail_quiet(cinchSystemError, "rank %d made no meeting point: %.250s",
                                     leader, why)
                  : cinchSuccess;
}

/* A rank that cannot still joins the others, to say so. */
static void inherit(cinch_making *m) {
    cinchResult_t result = cinch_inforce_inherit(m->comm, m->parent);
    if (result == cinchSuccess || m->refusal.why[0]) return;
    m->refusal.code = result;
    snprintf(m->refusal.why, sizeof m->refusal.why, "%s", cinch_last_error());
}

cinchResult_t cinch_split_run(cinch_making *m) {
    splitting s = {.m = m};
    struct cinchComm *parent = m->parent;
    const _Atomic bool *also = m->comm ? &m->comm->aborted : NULL;
    cinch_comm_await_turn(parent, m->number);
    if (parent->meeting) cinch_rendezvous_also(parent->meeting, also);
    cinch_record_enter(&parent->record, CINCH_PAST_SPLIT, 0, cinchInt8, 0, false, false, 0);
    cinchResult_t result = agree(&s), common = cinchSuccess;
    cinch_record_leave(&parent->record, result != cinchSuccess);
    if (parent->meeting) cinch_rendezvous_also(parent->meeting, NULL);
    if (result != cinchSuccess) cinch_comm_fail(parent, result);
    if (result == cinchSuccess && m->comm) {
        int rank, nranks, leader;
        find_place(parent, s.wishes, &rank, &nranks, &leader);
        common = check_offer(&s, leader);
        inherit(m);
    }
    free(s.wishes);
    free(s.offers);
    cinch_comm_end_turn(parent, m->number);
    if (result == cinchSuccess) result = common;
    /* A rank that dies before it joins is known from the parent only. */
    if (m->comm && result == cinchSuccess)
        result = cinch_comm_join(m->comm, &m->id, NULL, parent->meeting, &m->refusal);
    else if (m->comm)
        cinch_comm_joined(m->comm, result);
    atomic_fetch_sub(&parent->pending, 1); /* it may go now */
    return result;
}

static cinchResult_t begin_split(cinch_making *call, const cinchConfig_t *config) {
    CINCH_TRY(cinch_comm_check(call->parent));
    if (!call->out) return cinch_fail(cinchInvalidArgument, "newcomm is NULL");
    if (call->color < 0 && call->color != CINCH_SPLIT_NOCOLOR)
        return cinch_fail(cinchInvalidArgument,
                          "color %d: 0 and more, or CINCH_SPLIT_NOCOLOR, are accepted",
                          call->color);
    CINCH_TRY(cinch_comm_healthy(call->parent));
    if (call->color == CINCH_SPLIT_NOCOLOR) return cinchSuccess;
    CINCH_TRY(cinch_comm_new(config, call->parent, &call->refusal, &call->comm));
    atomic_store(&call->comm->unsized, true);
    return cinchSuccess;
}

cinchResult_t cinchCommSplit(cinchComm_t comm, int color, int key, cinchComm_t *newcomm,
                             cinchConfig_t *config) {
    cinch_making call = {
        .kind = CINCH_MAKE_SPLIT, .out = newcomm, .parent = comm, .color = color, .key = key};
    if (newcomm) *newcomm = NULL;
    cinchResult_t result = begin_split(&call, config);
    return result == cinchSuccess ? cinch_make(&call) : cinch_making_refuse(result);
}

/* ---- shrink ---- */

/* Stops what runs, in all ranks that are left and those that are not. Who hears of it first is also
 * told whom it is about: some rank may know of a death from another communicator. */
static void stop(const cinch_making *m) {
    struct cinchComm *parent = m->parent;
    char why[CINCH_ERROR_TEXT / 2];
    size_t used = (size_t)snprintf(
        why, sizeof why, "it called cinchCommShrink with CINCH_SHRINK_ABORT, to go on without");
    int count = 0;
    for (int q = 0; q < parent->nranks; q++) {
        if (!m->left_out[q]) continue;
        if (used + 24 < sizeof why)
            used +=
                (size_t)snprintf(why + used, sizeof why - used, "%s rank %d", count ? "," : "", q);
        count++;
    }
    if (!count) snprintf(why + used, sizeof why - used, " nobody less");
    atomic_store(&parent->aborted, true);
    parent->oneshot_most = 0;
    cinch_rendezvous *meeting = parent->meeting;
    if (meeting) cinch_rendezvous_abort(meeting, why);
    cinch_inner_stop(parent);
}

/* Where the others are met. */
static cinchResult_t meet_again(const cinch_making *m, cinch_reunion *reunion) {
    struct cinchComm *parent = m->parent;
    if (m->stops) stop(m);
    cinch_graph_settle(parent);
    cinch_comm_await_turn(parent, parent->graphs ? atomic_load(&parent->issued) : m->number);
    if (!m->stops) CINCH_TRY(cinch_comm_healthy(parent));
    if (!parent->meeting)
        return cinch_fail(cinchInvalidUsage,
                          "the communicator cannot be shrunk: its ranks have never met");
    return cinch_rendezvous_reunite(parent->meeting, m->left_out, reunion);
}

cinchResult_t cinch_shrink_run(cinch_making *m) {
    cinch_reunion reunion = {.listener = -1};
    cinchResult_t result = meet_again(m, &reunion);
    atomic_fetch_sub(&m->parent->pending, 1); /* it may go now */
    if (result == cinchSuccess)
        result = cinch_comm_join(m->comm, &reunion.id, &reunion, NULL, &m->refusal);
    else
        cinch_comm_joined(m->comm, result);
    cinch_reunion_free(&reunion);
    return result;
}

/* Who is left out, a byte a rank, on the heap. */
static cinchResult_t read_list(const struct cinchComm *comm, const int *list, int count,
                               uint8_t **out) {
    uint8_t *left_out = calloc((size_t)comm->nranks, 1);
    cinchResult_t result = cinchSuccess;
    if (!left_out) return cinch_fail(cinchSystemError, "out of memory for %d ranks", comm->nranks);
    for (int i = 0; i < count && result == cinchSuccess; i++) {
        if (list[i] < 0 || list[i] >= comm->nranks)
            result = cinch_fail(cinchInvalidArgument,
                                "excludeRanksList has rank %d: 0 to %d are accepted", list[i],
                                comm->nranks - 1);
        else if (list[i] == comm->rank)
            result = cinch_fail(cinchInvalidArgument,
                                "excludeRanksList has rank %d, which is this one: only ranks that "
                                "stay call cinchCommShrink",
                                list[i]);
        else if (left_out[list[i]]++)
            result =
                cinch_fail(cinchInvalidArgument, "excludeRanksList has rank %d twice", list[i]);
    }
    if (result == cinchSuccess)
        *out = left_out;
    else
        free(left_out);
    return result;
}

static cinchResult_t begin_shrink(cinch_making *call, const int *list, int count,
                                  const cinchConfig_t *config, int flags) {
    struct cinchComm *parent = call->parent;
    CINCH_TRY(cinch_comm_check(parent));
    if (!call->out) return cinch_fail(cinchInvalidArgument, "newcomm is NULL");
    if (flags != CINCH_SHRINK_DEFAULT && flags != CINCH_SHRINK_ABORT)
        return cinch_fail(
            cinchInvalidArgument,
            "shrinkFlags %d: CINCH_SHRINK_DEFAULT and CINCH_SHRINK_ABORT are accepted", flags);
    if (count < 0 || (count && !list))
        return cinch_fail(cinchInvalidArgument,
                          count < 0 ? "excludeRanksCount %d: 0 and more are accepted"
                                    : "excludeRanksList is NULL, and excludeRanksCount %d",
                          count);
    call->stops = flags == CINCH_SHRINK_ABORT;
    if (!call->stops) CINCH_TRY(cinch_comm_healthy(parent));
    CINCH_TRY(read_list(parent, list, count, &call->left_out));
    CINCH_TRY(cinch_comm_new(config, parent, &call->refusal, &call->comm));
    for (int q = 0; q < parent->nranks; q++) {
        call->comm->nranks += !call->left_out[q];
        call->comm->rank += q < parent->rank && !call->left_out[q];
    }
    return cinchSuccess;
}

cinchResult_t cinchCommShrink(cinchComm_t comm, int *excludeRanksList, int excludeRanksCount,
                              cinchComm_t *newcomm, cinchConfig_t *config, int shrinkFlags) {
    cinch_making call = {.kind = CINCH_MAKE_SHRINK, .out = newcomm, .parent = comm};
    if (newcomm) *newcomm = NULL;
    cinchResult_t result =
        begin_shrink(&call, excludeRanksList, excludeRanksCount, config, shrinkFlags);
    if (result == cinchSuccess) return cinch_make(&call);
    free(call.left_out);
    return cinch_making_refuse(result);
}

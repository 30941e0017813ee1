/* SPDX-License-Identifier: Apache-2.0 */
/* Error-feedback residuals in device memory. Dropped ones are kept for the next key that they are
 * large enough for, because freeing may wait for everything that runs on the device. */
#include <stdlib.h>

#include "coll/nccl/side.h"

enum { UNUSED_CALLS = 1000 };

static bool same_key(const cinch_ef_key *a, const cinch_ef_key *b) {
    return a->id == b->id && a->count == b->count && a->kind == b->kind && a->tagged == b->tagged;
}

static cinch_residual *unlink_at(cinch_residual **at) {
    cinch_residual *r = *at;
    *at = r->next;
    return r;
}

static void drop_at(cinch_residuals *all, cinch_residual **at) {
    cinch_residual *r = unlink_at(at);
    r->next = all->spare;
    all->spare = r;
    all->dropped++;
}

static cinch_residual *find(cinch_residuals *all, const cinch_ef_key *key, uint64_t call) {
    cinch_residual *found = NULL;
    for (cinch_residual **at = &all->used; *at;) {
        if (same_key(&(*at)->key, key))
            found = unlink_at(at);
        else if (call - (*at)->last_call > UNUSED_CALLS)
            drop_at(all, at);
        else
            at = &(*at)->next;
    }
    return found;
}

/* The smallest spare with that room. */
static cinch_residual *take_spare(cinch_residuals *all, size_t room) {
    cinch_residual **best = NULL;
    for (cinch_residual **at = &all->spare; *at; at = &(*at)->next)
        if ((*at)->room >= room && (!best || (*at)->room < (*best)->room)) best = at;
    return best ? unlink_at(best) : NULL;
}

static cinchResult_t create(cinch_side *side, size_t room, cinch_residual **out) {
    cinch_residual *r = calloc(1, sizeof *r);
    if (!r) return cinch_fail(cinchSystemError, "out of memory for error feedback");
    void *memory;
    cinchResult_t result = side->forward->work->alloc(side->device, room * sizeof(float), &memory);
    if (result != cinchSuccess) {
        free(r);
        return result;
    }
    r->room = room;
    r->sender = memory;
    side->residuals.bytes += room * sizeof(float);
    *out = r;
    return cinchSuccess;
}

/* Memory for so many floats: one that was dropped, a new one where the cap has room, or the least
 * recently used that is large enough. NULL: none of these. */
static cinchResult_t find_memory(cinch_side *side, size_t room, cinch_residual **out) {
    cinch_residuals *all = &side->residuals;
    uint64_t most = side->forward->settings.ef_max_bytes, bytes = room * sizeof(float);
    *out = take_spare(all, room);
    if (*out) return cinchSuccess;
    if (bytes <= most && all->bytes <= most - bytes) return create(side, room, out);
    cinch_residual **last = NULL;
    for (cinch_residual **at = &all->used; *at; at = &(*at)->next)
        if ((*at)->room >= room) last = at;
    if (last) drop_at(all, last);
    *out = take_spare(all, room);
    return cinchSuccess;
}

/* New residuals: zero, on the stream, or what somebody knows of them. */
static cinchResult_t begin(cinch_side *side, cinch_residual *r, cinchStream_t stream) {
    bool seeded = false;
    if (side->seed) CINCH_TRY(side->seed(side->owner, &r->key, r, &seeded));
    size_t bytes = (r->nsender + r->nowner) * sizeof(float);
    return seeded ? cinchSuccess
                  : side->forward->work->fill(side->device, stream, r->sender, 0, bytes);
}

cinchResult_t cinch_residual_get(cinch_side *side, const cinch_ef_key *key, size_t nsender,
                                 size_t nowner, cinchStream_t stream, cinch_residual **out) {
    cinch_residuals *all = &side->residuals;
    cinch_residual *r = find(all, key, side->calls);
    *out = NULL;
    if (!r) {
        CINCH_TRY(find_memory(side, nsender + nowner, &r));
        if (!r) {
            all->dropped++;
            return cinchSuccess;
        }
        r->key = *key;
        r->nsender = nsender;
        r->nowner = nowner;
        r->owner = r->sender + nsender;
        r->order = all->orders++;
        cinchResult_t result = begin(side, r, stream);
        if (result != cinchSuccess) {
            r->next = all->spare;
            all->spare = r;
            return result;
        }
    }
    r->last_call = side->calls;
    r->next = all->used;
    all->used = r;
    *out = r;
    return cinchSuccess;
}

void cinch_residuals_drop(cinch_side *side) {
    while (side->residuals.used) drop_at(&side->residuals, &side->residuals.used);
}

static void free_list(const cinch_side *side, cinch_residual *list) {
    while (list) {
        cinch_residual *r = list;
        list = r->next;
        side->forward->work->release(side->device, r->sender);
        free(r);
    }
}

void cinch_residuals_free(cinch_side *side) {
    free_list(side, side->residuals.used);
    free_list(side, side->residuals.spare);
    side->residuals = (cinch_residuals){0};
}

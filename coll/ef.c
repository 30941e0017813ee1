/* SPDX-License-Identifier: Apache-2.0 */
/* The store of residuals: a short list in order of use. */
#include "coll/ef.h"

#include <stdlib.h>
#include <string.h>

enum { UNUSED_CALLS = 1000 };

/* The exported form: this head, then per entry this record and its floats, in order of first use.
 * Host byte order: a checkpoint goes back to the machine type that wrote it. */
typedef struct head {
    char magic[8];
    uint32_t rank, nranks;
    uint64_t entries;
    uint64_t calls; /* of the communicator so far: random rounding and warm-up go by it */
} head;
typedef struct record {
    uint64_t id, count, order, nsender, nowner;
    uint32_t kind, tagged;
} record;
static const char magic[8] = {'C', 'I', 'N', 'C', 'H', 'E', 'F', '2'};

static size_t floats(const cinch_ef *ef) {
    return ef->nsender + ef->nowner;
}
static size_t size_of(const cinch_ef *ef) {
    return floats(ef) * sizeof(float);
}

static cinch_ef *create(const cinch_ef_key *key, size_t nsender, size_t nowner) {
    if (nsender > (size_t)-1 / 16 || nowner > (size_t)-1 / 16) return NULL;
    cinch_ef *ef = calloc(1, sizeof *ef);
    float *data = calloc(nsender + nowner ? nsender + nowner : 1, sizeof *data);
    if (!ef || !data) {
        free(ef);
        free(data);
        return NULL;
    }
    ef->key = *key;
    ef->nsender = nsender;
    ef->nowner = nowner;
    ef->sender = data;
    ef->owner = data + nsender;
    return ef;
}

static void discard(cinch_ef *ef) {
    cinch_ef_mirror_drop(ef->mirror);
    free(ef->sender);
    free(ef);
}

static bool same_key(const cinch_ef_key *a, const cinch_ef_key *b) {
    return a->tagged == b->tagged && a->id == b->id && a->count == b->count && a->kind == b->kind;
}

/* Takes the entry behind *at out of its list. */
static cinch_ef *unlink_at(cinch_ef **at) {
    cinch_ef *ef = *at;
    *at = ef->next;
    return ef;
}

static void drop_at(cinch_ef_store *store, cinch_ef **at) {
    cinch_ef *ef = unlink_at(at);
    store->bytes -= size_of(ef);
    store->dropped++;
    discard(ef);
}

/* The imported entry for this first use, or NULL. */
static cinch_ef *claim(cinch_ef_store *store, const cinch_ef_key *key, size_t nsender,
                       size_t nowner) {
    for (cinch_ef **at = &store->imported; *at; at = &(*at)->next) {
        const cinch_ef *ef = *at;
        bool named = key->tagged ? ef->key.tagged && ef->key.id == key->id
                                 : !ef->key.tagged && ef->order == store->orders;
        if (named && ef->key.count == key->count && ef->key.kind == key->kind &&
            ef->nsender == nsender && ef->nowner == nowner) {
            cinch_ef *claimed = unlink_at(at);
            claimed->key = *key;
            store->bytes -= size_of(claimed); /* counted anew as used */
            return claimed;
        }
    }
    return NULL;
}

/* Makes room for `bytes` more by dropping what was imported and found no call yet, then from the
 * end of the list. */
static bool make_room(cinch_ef_store *store, size_t bytes, uint64_t most_bytes) {
    if (bytes > most_bytes) return false;
    while (store->bytes + bytes > most_bytes && (store->imported || store->used)) {
        cinch_ef **last = store->imported ? &store->imported : &store->used;
        while ((*last)->next) last = &(*last)->next;
        drop_at(store, last);
    }
    return store->bytes + bytes <= most_bytes;
}

cinchResult_t cinch_ef_get(cinch_ef_store *store, const cinch_ef_key *key, size_t nsender,
                           size_t nowner, uint64_t call, uint64_t most_bytes, cinch_ef **out) {
    cinch_ef *ef = NULL;
    for (cinch_ef **at = &store->used; *at;) {
        if (same_key(&(*at)->key, key) && (*at)->nsender == nsender && (*at)->nowner == nowner) {
            ef = unlink_at(at);
            continue;
        }
        if (call - (*at)->last_call > UNUSED_CALLS)
            drop_at(store, at);
        else
            at = &(*at)->next;
    }
    if (!ef) {
        ef = claim(store, key, nsender, nowner);
        *out = NULL;
        if (!make_room(store, (nsender + nowner) * sizeof(float), most_bytes)) {
            if (ef) discard(ef);
            store->dropped++;
            return cinchSuccess;
        }
        if (!ef) ef = create(key, nsender, nowner);
        if (!ef)
            return cinch_fail(cinchSystemError, "out of memory for %zu floats of error feedback",
                              nsender + nowner);
        ef->order = store->orders++;
        store->bytes += size_of(ef);
    }
    ef->last_call = call;
    ef->next = store->used;
    store->used = ef;
    *out = ef;
    return cinchSuccess;
}

void cinch_ef_reset(cinch_ef *ef) {
    memset(ef->sender, 0, size_of(ef));
    cinch_ef_mirror_behind(ef->mirror);
}

static void clear_list(cinch_ef **list) {
    while (*list) discard(unlink_at(list));
}

void cinch_ef_clear(cinch_ef_store *store) {
    clear_list(&store->used);
    clear_list(&store->imported);
    store->bytes = store->orders = 0;
}

void cinch_ef_scale(cinch_ef_store *store, double factor) {
    for (int list = 0; list < 2; list++)
        for (cinch_ef *ef = list ? store->imported : store->used; ef; ef = ef->next)
            for (size_t i = 0; i < floats(ef); i++)
                ef->sender[i] = (float)((double)ef->sender[i] * factor);
}

/* Whether an imported entry can still find its call. */
static bool waits(const cinch_ef_store *store, const cinch_ef *ef) {
    return ef->key.tagged || ef->order >= store->orders;
}

size_t cinch_ef_export_size(const cinch_ef_store *store) {
    size_t bytes = sizeof(head);
    for (const cinch_ef *ef = store->used; ef; ef = ef->next) bytes += sizeof(record) + size_of(ef);
    for (const cinch_ef *ef = store->imported; ef; ef = ef->next)
        if (waits(store, ef)) bytes += sizeof(record) + size_of(ef);
    return bytes;
}

/* The entry of the list with the least order from `from` on, or NULL. */
static const cinch_ef *next_in_order(const cinch_ef *list, uint64_t from) {
    const cinch_ef *next = NULL;
    for (const cinch_ef *ef = list; ef; ef = ef->next)
        if (ef->order >= from && (!next || ef->order < next->order)) next = ef;
    return next;
}

void cinch_ef_export(const cinch_ef_store *store, int rank, int nranks, void *buf) {
    unsigned char *at = (unsigned char *)buf + sizeof(head);
    head h = {.rank = (uint32_t)rank, .nranks = (uint32_t)nranks, .calls = store->calls};
    memcpy(h.magic, magic, sizeof magic);
    for (int list = 0; list < 2; list++) { /* used ones, then those that still wait */
        const cinch_ef *ef, *all = list ? store->imported : store->used;
        for (uint64_t from = 0; (ef = next_in_order(all, from)); from = ef->order + 1) {
            if (list && !waits(store, ef)) continue;
            /* Numbered anew: the order of those that are gone is nobody's any more. */
            record r = {ef->key.id, ef->key.count, h.entries++,   ef->nsender,
                        ef->nowner, ef->key.kind,  ef->key.tagged};
            memcpy(at, &r, sizeof r);
            memcpy(at + sizeof r, ef->sender, size_of(ef));
            at += sizeof r + size_of(ef);
        }
    }
    memcpy(buf, &h, sizeof h);
}

static cinchResult_t read_entry(cinch_ef **list, uint64_t number, const unsigned char **at,
                                size_t *left) {
    record r;
    if (*left < sizeof r) return cinch_fail(cinchInvalidArgument, "the state to import is cut off");
    memcpy(&r, *at, sizeof r);
    size_t room = (*left - sizeof r) / sizeof(float);
    if (r.nsender > room || r.nowner > room - r.nsender)
        return cinch_fail(cinchInvalidArgument, "the state to import is cut off");
    if (r.order != number) /* export numbers them so, and counts on it */
        return cinch_fail(cinchInvalidArgument, "the state to import is out of order");
    cinch_ef_key key = {r.tagged != 0, r.id, r.count, r.kind};
    cinch_ef *ef = create(&key, r.nsender, r.nowner);
    if (!ef) return cinch_fail(cinchSystemError, "out of memory for the state to import");
    ef->order = r.order;
    memcpy(ef->sender, *at + sizeof r, size_of(ef));
    ef->next = *list;
    *list = ef;
    *at += sizeof r + size_of(ef);
    *left -= sizeof r + size_of(ef);
    return cinchSuccess;
}

cinchResult_t cinch_ef_import(cinch_ef_store *store, int rank, int nranks, const void *buf,
                              size_t len) {
    head h;
    if (len < sizeof h || memcmp(buf, magic, sizeof magic) != 0)
        return cinch_fail(cinchInvalidArgument, "what is to be imported is no exported state");
    memcpy(&h, buf, sizeof h);
    if (h.rank != (uint32_t)rank || h.nranks != (uint32_t)nranks)
        return cinch_fail(cinchInvalidArgument,
                          "the state was exported by rank %u of %u, this is rank %d of %d", h.rank,
                          h.nranks, rank, nranks);
    const unsigned char *at = (const unsigned char *)buf + sizeof h;
    size_t left = len - sizeof h;
    cinch_ef *list = NULL;
    for (uint64_t i = 0; i < h.entries; i++) {
        cinchResult_t result = read_entry(&list, i, &at, &left);
        if (result != cinchSuccess) {
            clear_list(&list);
            return result;
        }
    }
    cinch_ef_clear(store);
    store->imported = list;
    store->calls = h.calls;
    for (const cinch_ef *ef = list; ef; ef = ef->next) store->bytes += size_of(ef);
    return cinchSuccess;
}

int cinch_ef_leftovers(const cinch_ef_store *store) {
    int count = 0;
    for (const cinch_ef *ef = store->imported; ef; ef = ef->next) count++;
    return count;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Error-feedback residuals of one communicator: what quantization has not sent yet. */
#ifndef CINCH_COLL_EF_H_
#define CINCH_COLL_EF_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define CINCH_EF_REGISTERED (UINT32_C(1) << 31)

/* What a residual belongs to. */
typedef struct cinch_ef_key {
    bool tagged;
    uint64_t id; /* the tag's, or the send pointer */
    uint64_t count;
    uint32_t kind; /* datatype and operator; CINCH_EF_REGISTERED: id is a registration's */
} cinch_ef_key;

typedef struct cinch_ef {
    struct cinch_ef *next; /* most recently used first */
    cinch_ef_key key;
    uint64_t order;     /* of first use */
    uint64_t last_call; /* the communicator's count when it was used */
    size_t nsender, nowner;
    float *sender, *owner;          /* nsender and nowner floats in one block behind this */
    struct cinch_ef_mirror *mirror; /* the same in a device's memory, or NULL */
} cinch_ef;

typedef struct cinch_ef_store {
    cinch_ef *used;     /* keyed by what this process has called with */
    cinch_ef *imported; /* waiting for their first call */
    uint64_t bytes, dropped, orders;
    uint64_t calls; /* of the communicator: set before export and by import */
} cinch_ef_store;

/* Residuals under the key, zero where new, imported ones where they match; *out NULL where
 * most_bytes leaves no room (counted as dropped). Drops keys unused for 1000 calls, and the least
 * recently used where room is needed. */
cinchResult_t cinch_ef_get(cinch_ef_store *store, const cinch_ef_key *key, size_t nsender,
                           size_t nowner, uint64_t call, uint64_t most_bytes, cinch_ef **out);

/* Of an entry that goes, and of one whose floats count again; NULL is fine (gpu_ef.c). */
void cinch_ef_mirror_drop(struct cinch_ef_mirror *mirror);
void cinch_ef_mirror_behind(struct cinch_ef_mirror *mirror);

/* Back to zero, after a call that failed halfway. */
void cinch_ef_reset(cinch_ef *ef);

void cinch_ef_clear(cinch_ef_store *store); /* frees everything; counters stay */
void cinch_ef_scale(cinch_ef_store *store, double factor);

/* Serialized form: see cinchCommExportState. */
size_t cinch_ef_export_size(const cinch_ef_store *store);
void cinch_ef_export(const cinch_ef_store *store, int rank, int nranks, void *buf);
cinchResult_t cinch_ef_import(cinch_ef_store *store, int rank, int nranks, const void *buf,
                              size_t len);

/* How many imported entries found no call so far. */
int cinch_ef_leftovers(const cinch_ef_store *store);

#endif

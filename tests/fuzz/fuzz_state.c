/* SPDX-License-Identifier: Apache-2.0 */
/* Importing error feedback under a fuzzer: any bytes, an error with a sentence or a state that is
 * the same when it is exported and imported again. */
#include "base/log.h"
#include "coll/ef.h"
#include "tests/fuzz/fuzz.h"

enum { RANK = 1, RANKS = 4 };

static uint8_t *export_all(const cinch_ef_store *store, size_t *bytes) {
    *bytes = cinch_ef_export_size(store);
    uint8_t *out = malloc(*bytes);
    fuzz_expect(out != NULL, "no memory");
    cinch_ef_export(store, RANK, RANKS, out);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cinch_ef_store store = {0}, again = {0};
    cinch_log_threshold = CINCH_LOG_NONE;
    if (cinch_ef_import(&store, RANK, RANKS, data, size) != cinchSuccess) {
        fuzz_expect(*cinch_last_error(), "no sentence");
        fuzz_expect(!store.used && !store.imported && !store.bytes, "something is left");
        return 0;
    }
    size_t bytes, more;
    uint8_t *once = export_all(&store, &bytes);
    fuzz_expect(cinch_ef_import(&again, RANK, RANKS, once, bytes) == cinchSuccess,
                cinch_last_error());
    uint8_t *twice = export_all(&again, &more);
    fuzz_expect(bytes == more && memcmp(once, twice, bytes) == 0, "another state");
    /* A call that may fit one of them. */
    for (cinch_ef *ef = store.imported; ef; ef = ef->next) {
        cinch_ef_key key = ef->key;
        cinch_ef *found;
        size_t sender = ef->nsender, owner = ef->nowner;
        if (cinch_ef_get(&store, &key, sender, owner, 1, 1 << 20, &found) == cinchSuccess && found)
            for (size_t i = 0; i < sender; i++) found->sender[i] = 1;
        break;
    }
    cinch_ef_scale(&store, 0.5);
    cinch_ef_clear(&store);
    cinch_ef_clear(&again);
    free(once);
    free(twice);
    return 0;
}

/* Exported states with none, one and several entries. */
size_t fuzz_seed(int k, uint8_t *out) {
    cinch_ef_store store = {0};
    if (k >= 6) return 0;
    for (int i = 0; i < k; i++) {
        cinch_ef_key key = {.tagged = i & 1, .id = 100 + (uint64_t)i, .count = 8, .kind = 7};
        cinch_ef *ef;
        if (cinch_ef_get(&store, &key, (size_t)(8 + i), (size_t)i, 1, 1 << 20, &ef) != cinchSuccess)
            return 0;
        for (int j = 0; j < 8; j++) ef->sender[j] = (float)(i + j);
    }
    size_t bytes = cinch_ef_export_size(&store);
    fuzz_expect(bytes <= FUZZ_SEED_MOST, "a seed's length");
    cinch_ef_export(&store, RANK, RANKS, out);
    cinch_ef_clear(&store);
    return bytes;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* An arena: memory that grows while something is built and goes all at once. */
#ifndef CINCH_BASE_ARENA_H_
#define CINCH_BASE_ARENA_H_

#include <stddef.h>

typedef struct cinch_arena {
    struct cinch_arena_block *block; /* the newest */
} cinch_arena;

/* Zeroed memory aligned to 64 bytes, or NULL. */
void *cinch_arena_take(cinch_arena *arena, size_t bytes);
void cinch_arena_free(cinch_arena *arena);

/* A buffer that only grows: returns at least `bytes`, aligned to 4096, contents lost; NULL: out of
 * memory, the old buffer stays. Pages are touched here, not on the hot path. */
typedef struct cinch_scratch {
    void *data;
    size_t bytes;
} cinch_scratch;
void *cinch_scratch_reserve(cinch_scratch *scratch, size_t bytes);
void cinch_scratch_free(cinch_scratch *scratch);

#endif

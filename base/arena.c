/* SPDX-License-Identifier: Apache-2.0 */
/* Arenas: a list of blocks, each at least twice as large as the one before. */
#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

struct cinch_arena_block {
    struct cinch_arena_block *older;
    size_t used, bytes;
    _Alignas(64) unsigned char data[];
};

void *cinch_arena_take(cinch_arena *arena, size_t bytes) {
    struct cinch_arena_block *block = arena->block;
    if (bytes > (size_t)-1 / 4) return NULL;
    bytes = (bytes + 63) / 64 * 64;
    if (!block || block->bytes - block->used < bytes) {
        size_t size = block ? block->bytes * 2 : 4096;
        while (size < bytes) size *= 2;
        struct cinch_arena_block *fresh =
            aligned_alloc(64, sizeof *fresh + size); /* the head is a multiple of 64 */
        if (!fresh) return NULL;
        fresh->older = block;
        fresh->used = 0;
        fresh->bytes = size;
        arena->block = block = fresh;
    }
    void *taken = block->data + block->used;
    block->used += bytes;
    return memset(taken, 0, bytes);
}

void cinch_arena_free(cinch_arena *arena) {
    while (arena->block) {
        struct cinch_arena_block *older = arena->block->older;
        free(arena->block);
        arena->block = older;
    }
}

void *cinch_scratch_reserve(cinch_scratch *scratch, size_t bytes) {
    if (bytes <= scratch->bytes) return scratch->data;
    if (bytes > (size_t)-1 / 2) return NULL;
    bytes = (bytes + 4095) / 4096 * 4096;
    void *data = aligned_alloc(4096, bytes);
    if (!data) return NULL;
    memset(data, 0, bytes);
    free(scratch->data);
    scratch->data = data;
    scratch->bytes = bytes;
    return data;
}

void cinch_scratch_free(cinch_scratch *scratch) {
    free(scratch->data);
    *scratch = (cinch_scratch){0};
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The process's heap of memory that local peers can map: one sparse memfd, as large as the
 * machine's memory, of which pages exist only where they are allocated and touched. A peer maps it
 * once, when it meets this process, and then knows any buffer by its offset. */
#ifndef CINCH_BASE_HEAP_H_
#define CINCH_BASE_HEAP_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct cinch_heap {
    unsigned char *data;
    size_t bytes;
    int fd; /* belongs to the heap */
} cinch_heap;

/* The heap, made at the first call; a forked child gets one of its own. */
cinchResult_t cinch_heap_get(cinch_heap *heap);

/* Zeroed pages. See cinchHostAlloc. */
cinchResult_t cinch_heap_alloc(void **ptr, size_t bytes);

/* The same, for who can do without: a full heap makes no line in the log. */
cinchResult_t cinch_heap_try(void **ptr, size_t bytes);
cinchResult_t cinch_heap_release(void *ptr);

/* Whether [ptr, ptr+bytes) lies inside the heap, and where. */
bool cinch_heap_offset(const void *ptr, size_t bytes, size_t *offset);

/* The allocation that [ptr, ptr+bytes) lies in, and its number, which no other allocation of this
 * process ever has; false: it lies in none. What was found is good as long as releases, the number
 * of allocations given back so far, stays the same. Any thread. */
bool cinch_heap_find(const void *ptr, size_t bytes, void **begin, size_t *length, uint64_t *number);
uint64_t cinch_heap_releases(void);

#endif

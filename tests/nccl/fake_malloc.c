/* SPDX-License-Identifier: Apache-2.0 */
/* An allocator to be preloaded: libc's own, whose blocks libc's free must not get. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern void *__libc_malloc(size_t size);
extern void __libc_free(void *block);

#pragma GCC visibility push(default)

enum { BEFORE = 64 }; /* keeps the alignment, and the size */

void *malloc(size_t size);
void *malloc(size_t size) {
    size_t *block = size < SIZE_MAX - BEFORE ? __libc_malloc(size + BEFORE) : NULL;
    if (!block) return NULL;
    *block = size;
    return (char *)block + BEFORE;
}

void free(void *block);
void free(void *block) {
    if (block) __libc_free((char *)block - BEFORE);
}

void *calloc(size_t count, size_t size);
void *calloc(size_t count, size_t size) {
    if (size && count > SIZE_MAX / size) return NULL;
    unsigned char *block = malloc(count * size);
    for (size_t i = 0; block && i < count * size; i++) ((volatile unsigned char *)block)[i] = 0;
    return block;
}

void *realloc(void *block, size_t size);
void *realloc(void *block, size_t size) {
    void *more = malloc(size);
    if (!more || !block) return more;
    size_t old = *(const size_t *)((const char *)block - BEFORE);
    memcpy(more, block, old < size ? old : size);
    free(block);
    return more;
}

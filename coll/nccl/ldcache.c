/* SPDX-License-Identifier: Apache-2.0 */
/* Reads glibc's /etc/ld.so.cache, because dlopen("libnccl.so.2") finds the drop-in itself. */
#include <stdint.h>
#include <string.h>

#include "coll/nccl/find.h"

static const char magic[] = "glibc-ld.so.cache1.1";

typedef struct header { /* all offsets count from here */
    char magic[20];
    uint32_t entries;
    uint32_t string_bytes;
    uint32_t other[5];
} header;

typedef struct entry {
    int32_t flags;
    uint32_t name, path; /* offsets of strings */
    uint32_t os;
    uint64_t hwcap;
} entry;

/* The string at the offset, or NULL where it does not end inside. */
static const char *string_at(const char *cache, size_t length, uint32_t offset) {
    if (offset >= length || !memchr(cache + offset, '\0', length - offset)) return NULL;
    return cache + offset;
}

const char *cinch_nccl_cached(const char *cache, size_t length, const char *name, size_t *at) {
    header head;
    if (length < sizeof head) return NULL;
    memcpy(&head, cache, sizeof head);
    if (memcmp(head.magic, magic, sizeof head.magic) != 0) return NULL;
    size_t most = (length - sizeof head) / sizeof(entry);
    if (head.entries < most) most = head.entries;
    while (*at < most) {
        entry e;
        memcpy(&e, cache + sizeof head + (*at)++ * sizeof e, sizeof e);
        const char *key = string_at(cache, length, e.name);
        const char *path = string_at(cache, length, e.path);
        if (key && path && strcmp(key, name) == 0) return path;
    }
    return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A hash that tells texts apart that are not made to collide: FNV-1a, 64 bits. */
#ifndef CINCH_BASE_HASH_H_
#define CINCH_BASE_HASH_H_

#include <stddef.h>
#include <stdint.h>

static inline uint64_t cinch_hash(const void *data, size_t bytes) {
    const unsigned char *at = data;
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ at[i]) * 0x100000001b3u;
    return hash;
}

#endif

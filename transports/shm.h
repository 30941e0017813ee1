/* SPDX-License-Identifier: Apache-2.0 */
/* Windows: memory of the ranks of one host that all of them have mapped.
 *
 * Each rank makes one memfd with flags, a stage and channels, and maps those of its peers; the
 * memory goes when the last of them does, however they end. */
#ifndef CINCH_TRANSPORTS_SHM_H_
#define CINCH_TRANSPORTS_SHM_H_

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define CINCH_SHM_FLAGS 8          /* flags of one rank */
#define CINCH_SHM_INLINE_BYTES 112 /* payload beside a flag */

/* A counter that one rank raises and its peers watch, in a pair of cache lines of its own. Its low
 * half is also a futex word: `sleepers` counts who waits in the kernel. The payload is written
 * before the value is raised, and read after it was seen. */
typedef struct cinch_flag {
    _Alignas(128) _Atomic uint64_t value;
    _Atomic uint32_t sleepers;
    _Atomic uint32_t signature; /* of the call that raises it: who differs is found out */
    unsigned char payload[CINCH_SHM_INLINE_BYTES];
} cinch_flag;
_Static_assert(sizeof(cinch_flag) == 128, "a flag is one pair of cache lines");

/* What one rank sees of another, itself included. All ranks of a host see the same: where one
 * cannot map another's memory none of them has windows, and where one cannot map another's heap
 * none sees that heap. Ranks in one process have the same addresses. */
typedef struct cinch_window {
    cinch_flag *flag;     /* [CINCH_SHM_FLAGS]; NULL: not on this host */
    unsigned char *stage; /* stage_bytes, aligned to 4096 */
    unsigned char *heap;  /* the rank's mappable heap, here; NULL: none */
    size_t heap_bytes;
} cinch_window;

typedef struct cinch_shm {
    size_t stage_bytes;
    cinch_window *window; /* [nranks] */
} cinch_shm;

/* Raises the flag to value, release; wakes sleepers. Only its owner calls this. */
void cinch_flag_wake(cinch_flag *flag); /* the slow half */
static inline void cinch_flag_post(cinch_flag *flag, uint64_t value) {
    atomic_store_explicit(&flag->value, value, memory_order_release);
    if (__builtin_expect(atomic_load_explicit(&flag->sleepers, memory_order_relaxed) != 0, 0))
        cinch_flag_wake(flag);
}
static inline uint64_t cinch_flag_read(const cinch_flag *flag) {
    return atomic_load_explicit(&flag->value, memory_order_acquire);
}

/* Sleeps until the value is no longer `seen`, or timeout_us have passed; returns early at times.
 * A poster that stores while its look at `sleepers` is still ahead may miss a sleeper, so the
 * timeout is also what bounds that race: keep it at some milliseconds. */
void cinch_flag_sleep(cinch_flag *flag, uint64_t seen, unsigned timeout_us);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation by whole pages, first fit, over a list sorted by address. Allocating is rare (buffers
 * are kept), so the list is short and a lock is fine. */
#include "base/heap.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u

typedef struct piece {
    struct piece *next;
    size_t offset, bytes;
    uint64_t number;
} piece;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static cinch_heap the_heap = {NULL, 0, -1};
static piece *pieces; /* what is allocated */
static uint64_t numbers, releases;

/* A child shares its parent's pages: it leaves them alone and begins anew. */
static void forget_in_child(void) {
    pthread_mutex_init(&lock, NULL);
    if (the_heap.fd >= 0) close(the_heap.fd);
    the_heap = (cinch_heap){NULL, 0, -1};
    while (pieces) {
        piece *next = pieces->next;
        free(pieces);
        pieces = next;
    }
}

static void register_fork_handler(void) {
    pthread_atfork(NULL, NULL, forget_in_child);
}

static size_t heap_bytes(void) {
#if defined(__SANITIZE_THREAD__)
    return (size_t)1 << 30; /* its shadow is several times as large */
#else
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    size_t bytes = pages > 0 && page > 0 ? (size_t)pages * (size_t)page : (size_t)4 << 30;
    return bytes / PAGE * PAGE;
#endif
}

static cinchResult_t create(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (the_heap.data) return cinchSuccess;
    pthread_once(&once, register_fork_handler);
    size_t bytes = heap_bytes();
    int fd = memfd_create("cinch-heap", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return cinch_fail_errno(errno, "cannot make the heap of shared memory");
    void *data = MAP_FAILED;
    if (ftruncate(fd, (off_t)bytes) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (data == MAP_FAILED) {
        int err = errno;
        close(fd);
        return cinch_fail_errno(err, "cannot map %zu bytes for the heap of shared memory", bytes);
    }
    madvise(data, bytes, MADV_HUGEPAGE); /* where shared memory may have huge pages */
    the_heap = (cinch_heap){data, bytes, fd};
    return cinchSuccess;
}

cinchResult_t cinch_heap_get(cinch_heap *heap) {
    pthread_mutex_lock(&lock);
    cinchResult_t result = create();
    *heap = the_heap;
    pthread_mutex_unlock(&lock);
    return result;
}

static cinchResult_t take(void **ptr, size_t bytes, bool quiet) {
    CINCH_TRY(create());
    piece **at = &pieces;
    size_t offset = 0;
    for (; *at && (*at)->offset - offset < bytes; at = &(*at)->next)
        offset = (*at)->offset + (*at)->bytes;
    piece *fresh = the_heap.bytes - offset >= bytes ? malloc(sizeof *fresh) : NULL;
    if (!fresh)
        return (quiet ? cinch_fail_quiet : cinch_fail)(
            cinchSystemError, "no room for %zu bytes in the heap of %zu", bytes, the_heap.bytes);
    *fresh = (piece){*at, offset, bytes, numbers++};
    *at = fresh;
    *ptr = the_heap.data + offset;
    return cinchSuccess;
}

static cinchResult_t alloc(void **ptr, size_t bytes, bool quiet) {
    if (bytes > (size_t)-1 / 2)
        return cinch_fail(cinchInvalidArgument, "cannot allocate %zu bytes", bytes);
    pthread_mutex_lock(&lock);
    cinchResult_t result = take(ptr, (bytes + PAGE - 1) / PAGE * PAGE, quiet);
    pthread_mutex_unlock(&lock);
    return result;
}

cinchResult_t cinch_heap_alloc(void **ptr, size_t bytes) {
    return alloc(ptr, bytes, false);
}

cinchResult_t cinch_heap_try(void **ptr, size_t bytes) {
    return alloc(ptr, bytes, true);
}

cinchResult_t cinch_heap_release(void *ptr) {
    pthread_mutex_lock(&lock);
    piece **at = &pieces;
    while (*at && the_heap.data + (*at)->offset != (unsigned char *)ptr) at = &(*at)->next;
    piece *gone = *at;
    if (gone) {
        *at = gone->next;
        __atomic_fetch_add(&releases, 1, __ATOMIC_RELEASE);
        /* Gives the memory back, and makes it zero for the next owner. */
        fallocate(the_heap.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)gone->offset,
                  (off_t)gone->bytes);
    }
    pthread_mutex_unlock(&lock);
    if (!gone)
        return cinch_fail(cinchInvalidArgument,
                          "%p was not allocated by cinchHostAlloc or cinchMemAlloc", ptr);
    free(gone);
    return cinchSuccess;
}

bool cinch_heap_offset(const void *ptr, size_t bytes, size_t *offset) {
    /* Set once, before the caller can have a pointer into it. */
    const unsigned char *data = __atomic_load_n(&the_heap.data, __ATOMIC_RELAXED);
    size_t at = (size_t)((const unsigned char *)ptr - data);
    *offset = at;
    return data && (const unsigned char *)ptr >= data && at <= the_heap.bytes &&
           bytes <= the_heap.bytes - at;
}

bool cinch_heap_find(const void *ptr, size_t bytes, void **begin, size_t *length,
                     uint64_t *number) {
    size_t offset;
    bool found = false;
    if (!cinch_heap_offset(ptr, bytes, &offset)) return false;
    pthread_mutex_lock(&lock);
    for (const piece *p = pieces; p && p->offset <= offset && !found; p = p->next) {
        if (offset - p->offset > p->bytes || bytes > p->bytes - (offset - p->offset)) continue;
        *begin = the_heap.data + p->offset;
        *length = p->bytes;
        *number = p->number;
        found = true;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

uint64_t cinch_heap_releases(void) {
    return __atomic_load_n(&releases, __ATOMIC_ACQUIRE);
}

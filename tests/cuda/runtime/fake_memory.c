/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the emulated GPU: one range of addresses for all devices, closed but to the executing
 * thread; and host memory that CUDA knows. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/cuda/runtime/inside.h"

#define PAGE ((size_t)4096)
#define FENCE ((size_t)512) /* behind each allocation, which as CUDA's is aligned to 512 */
enum { GARBAGE = 0xa5, FENCED = 0xc6 };

typedef struct block {
    struct block *next; /* by address */
    char *at;
    size_t bytes;
    fake_memory kind;
    int device;
    bool pools;
} block;

static block *blocks;
static char *arena;
static int arena_fd = -1;
static size_t used; /* of the arena, by pages, since the start */
static bool is_open;

void fake_wrong(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("emulated CUDA: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

void fake_open_memory(bool open) {
    if (used && open != is_open &&
        mprotect(arena, used, open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0)
        fake_wrong("device memory cannot be %s", open ? "opened" : "closed");
    if (open != is_open) fake_ipc_open(open);
    is_open = open;
}

static size_t rounded(size_t bytes) {
    return (bytes + FENCE - 1) / FENCE * FENCE + FENCE;
}

/* The first gap between blocks of the arena that is large enough. */
static char *find_gap(size_t bytes) {
    char *at = arena;
    for (const block *b = blocks; b; b = b->next) {
        if (b->kind != FAKE_DEVICE) continue;
        if ((size_t)(b->at - at) >= bytes) return at;
        at = b->at + rounded(b->bytes);
    }
    return (size_t)(arena + FAKE_ARENA - at) >= bytes ? at : NULL;
}

/* What is written through the fence was written beside the allocation. */
static void check_fence(const block *b) {
    for (size_t i = b->bytes; i < rounded(b->bytes); i++)
        if ((unsigned char)b->at[i] != FENCED)
            fake_wrong("%zu bytes at %p: something was written %zu bytes behind their end",
                       b->bytes, (void *)b->at, i - b->bytes);
}

/* Beforehand, so that tests may count descriptors; a child has a GPU of its own. */
void fake_arena_begin(void) {
    if (arena) return;
    int fd = memfd_create("emulated-gpu", MFD_CLOEXEC);
    if (fd < 0) return;
    if (arena_fd < 0) {
        arena_fd = fd;
    } else {
        dup3(fd, arena_fd, O_CLOEXEC);
        close(fd);
    }
}

static bool make_arena(void) {
    size_t bytes = FAKE_ARENA + FAKE_ARENA_TABLE;
    if (arena_fd < 0 || ftruncate(arena_fd, (off_t)bytes) != 0) return false;
    char *range = mmap(NULL, bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, arena_fd, 0);
    if (range == MAP_FAILED ||
        mprotect(range + FAKE_ARENA, FAKE_ARENA_TABLE, PROT_READ | PROT_WRITE) != 0)
        return false;
    arena = range;
    return true;
}

void *fake_arena_table(void) {
    return arena + FAKE_ARENA;
}

bool fake_arena_place(const void *memory, uint64_t *offset, uint64_t *bytes, int *fd, int *device) {
    const block *b = blocks;
    while (b && (b->at != memory || b->kind != FAKE_DEVICE)) b = b->next;
    if (!b || b->pools) return false;
    *offset = (uint64_t)(b->at - arena);
    *bytes = b->bytes;
    *fd = arena_fd;
    *device = b->device;
    return true;
}

/* The device memory may be open for the executing thread meanwhile, and then stays so. */
static cudaError_t take_device(size_t bytes, char **at) {
    if (!arena && !make_arena()) return cudaErrorMemoryAllocation;
    *at = find_gap(rounded(bytes));
    if (!*at) return cudaErrorMemoryAllocation;
    size_t end = (size_t)(*at + rounded(bytes) - arena);
    bool was_open = is_open;
    if (end > used) {
        size_t pages = (end + PAGE - 1) / PAGE * PAGE;
        if (is_open) mprotect(arena + used, pages - used, PROT_READ | PROT_WRITE);
        used = pages;
    }
    fake_open_memory(true);
    memset(*at, GARBAGE, bytes);
    memset(*at + bytes, FENCED, rounded(bytes) - bytes);
    fake_open_memory(was_open);
    return cudaSuccess;
}

static cudaError_t obtain(fake_memory kind, void *given, size_t bytes, char **at) {
    if (kind == FAKE_DEVICE) return take_device(bytes, at);
    if (kind == FAKE_REGISTERED || kind == FAKE_IMPORTED) {
        *at = given;
        return cudaSuccess;
    }
    *at = aligned_alloc(FENCE, (bytes + FENCE - 1) / FENCE * FENCE);
    if (!*at) return cudaErrorMemoryAllocation;
    memset(*at, GARBAGE, bytes);
    return cudaSuccess;
}

cudaError_t fake_take(fake_memory kind, int device, void *given, size_t bytes, void **memory) {
    char *at = NULL;
    block *b = bytes ? malloc(sizeof *b) : NULL;
    if (memory) *memory = NULL;
    if (!b) return bytes ? cudaErrorMemoryAllocation : cudaSuccess;
    cudaError_t err = obtain(kind, given, bytes, &at);
    if (err != cudaSuccess) {
        free(b);
        return err;
    }
    block **place = &blocks;
    while (*place && (*place)->at < at) place = &(*place)->next;
    *b = (block){*place, at, bytes, kind, device, false};
    *place = b;
    if (memory) *memory = at;
    return cudaSuccess;
}

cudaError_t fake_give(void *memory, fake_memory kind, fake_memory or_kind) {
    block **at = &blocks;
    while (*at && (*at)->at != memory) at = &(*at)->next;
    block *b = *at;
    if (!b || (b->kind != kind && b->kind != or_kind)) return cudaErrorInvalidValue;
    *at = b->next;
    if (b->kind == FAKE_DEVICE) {
        bool was_open = is_open;
        fake_open_memory(true);
        check_fence(b);
        fake_ipc_freed((uint64_t)(b->at - arena));
        memset(b->at, GARBAGE, b->bytes);
        fake_open_memory(was_open);
    } else if (b->kind != FAKE_REGISTERED && b->kind != FAKE_IMPORTED) {
        free(b->at);
    }
    free(b);
    return cudaSuccess;
}

fake_memory fake_memory_of(const void *at, size_t bytes, int *device, bool *torn) {
    const char *from = at;
    *torn = false;
    for (const block *b = blocks; b; b = b->next) {
        if (from < b->at || from >= b->at + b->bytes) continue;
        *torn = bytes > (size_t)(b->at + b->bytes - from);
        *device = b->device;
        return b->kind;
    }
    *torn = arena && from >= arena && from < arena + FAKE_ARENA; /* nothing that is allocated */
    return FAKE_NONE;
}

static block *block_of(const void *at) {
    block *b = blocks;
    while (b && ((const char *)at < b->at || (const char *)at >= b->at + b->bytes)) b = b->next;
    return b;
}

void fake_pool(const void *at) {
    block_of(at)->pools = true;
}

bool fake_is_pools(const void *at) {
    const block *b = block_of(at);
    return b && b->pools;
}

int fake_blocks(void) {
    int count = 0;
    for (const block *b = blocks; b; b = b->next) count++;
    return count;
}

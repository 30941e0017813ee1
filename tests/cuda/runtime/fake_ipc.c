/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory between processes, and between the emulated GPUs of one. Each process has an
 * emulated GPU of its own, whose memory is a memfd; another maps it by /proc/PID/fd. Behind the
 * memory lies a table of what was handed out, which all of them see: memory that is freed while
 * another process still has it open is found out. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/cuda/runtime/inside.h"

enum { SHARED_AT_ONCE = 500, IMPORTS = 64 };

/* A row of the table: an allocation, by its place, and how many processes have it open. */
typedef struct row {
    _Atomic uint64_t offset, bytes; /* bytes 0: the row is free */
    _Atomic int users;
} row;

typedef struct handle { /* what stands in a cudaIpcMemHandle_t */
    uint64_t offset, bytes;
    int pid, fd, row, device;
} handle;

static struct import {
    row *table, *at;
    char *memory;
    size_t bytes;
    handle of;
} imports[IMPORTS];

static cuda_fake_ipc_mode ipc;
static bool apart;

void cuda_fake_ipc(cuda_fake_ipc_mode mode) {
    pthread_mutex_lock(&fake_lock);
    ipc = mode;
    pthread_mutex_unlock(&fake_lock);
}

void cuda_fake_peers(bool reach) {
    apart = !reach;
}

static size_t page_up(size_t bytes) {
    return (bytes + 4095) / 4096 * 4096;
}

/* ---- in the owner's process ---- */

static row *find_row(uint64_t offset) {
    row *table = fake_arena_table();
    for (int i = 0; i < SHARED_AT_ONCE; i++)
        if (table[i].bytes && table[i].offset == offset) return &table[i];
    return NULL;
}

void fake_ipc_freed(uint64_t offset) {
    row *r = find_row(offset);
    if (!r) return;
    if (r->users) fake_wrong("memory is freed that %d other processes have open", (int)r->users);
    r->bytes = 0;
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *out, void *memory) {
    cudaError_t err = fake_begin(false);
    handle h = {.pid = getpid()};
    if (err == cudaSuccess && ipc == CUDA_FAKE_IPC_NO_EXPORT) err = cudaErrorNotSupported;
    if (err == cudaSuccess && !fake_arena_place(memory, &h.offset, &h.bytes, &h.fd, &h.device))
        err = cudaErrorInvalidValue;
    if (err == cudaSuccess) {
        row *table = fake_arena_table();
        row *known = find_row(h.offset);
        while (!known && h.row < SHARED_AT_ONCE && table[h.row].bytes) h.row++;
        if (known) h.row = (int)(known - table);
        if (h.row == SHARED_AT_ONCE) fake_wrong("too much memory is handed out");
        table[h.row].offset = h.offset;
        table[h.row].bytes = h.bytes;
        memset(out, 0, sizeof *out);
        memcpy(out, &h, sizeof h);
    }
    return fake_end(err);
}

/* ---- in another ---- */

static cudaError_t map(const handle *h, struct import *in) {
    char path[64];
    size_t skipped = h->offset % 4096;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", h->pid, h->fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return cudaErrorMapBufferObjectFailed;
    in->bytes = page_up(skipped + h->bytes);
    in->table = mmap(NULL, FAKE_ARENA_TABLE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, FAKE_ARENA);
    in->memory = mmap(NULL, in->bytes, PROT_NONE, MAP_SHARED, fd, (off_t)(h->offset - skipped));
    close(fd);
    if (in->table == MAP_FAILED || in->memory == MAP_FAILED) fake_wrong("no room for a mapping");
    in->at = &in->table[h->row];
    if (in->at->offset == h->offset && in->at->bytes == h->bytes) return cudaSuccess;
    munmap(in->table, FAKE_ARENA_TABLE); /* its owner has freed it */
    munmap(in->memory, in->bytes);
    in->memory = NULL;
    return cudaErrorMapBufferObjectFailed;
}

cudaError_t cudaIpcOpenMemHandle(void **memory, cudaIpcMemHandle_t given, unsigned flags) {
    cudaError_t err = fake_begin(true);
    handle h;
    int i = 0;
    memcpy(&h, &given, sizeof h);
    if (err == cudaSuccess && (flags != cudaIpcMemLazyEnablePeerAccess || h.pid == getpid()))
        err = cudaErrorInvalidValue;
    if (err == cudaSuccess && ipc == CUDA_FAKE_IPC_NO_OPEN) err = cudaErrorMapBufferObjectFailed;
    while (i < IMPORTS && imports[i].memory) i++;
    if (err == cudaSuccess && i == IMPORTS) fake_wrong("too much memory is open");
    if (err == cudaSuccess) err = map(&h, &imports[i]);
    for (int k = 0; err == cudaSuccess && k < IMPORTS; k++)
        if (k != i && imports[k].memory && memcmp(&imports[k].of, &h, sizeof h) == 0)
            fake_wrong("a process opens memory twice");
    if (err == cudaSuccess) imports[i].of = h;
    if (err == cudaSuccess) {
        char *at = imports[i].memory + h.offset % 4096;
        /* A mapping that shows something else, as a wrong GPU's would. */
        if (ipc == CUDA_FAKE_IPC_WRONG_MEMORY) at += 512, h.bytes -= 512;
        imports[i].at->users++;
        err = fake_take(FAKE_IMPORTED, fake_device(), at, h.bytes, memory);
    }
    return fake_end(err);
}

cudaError_t cudaIpcCloseMemHandle(void *memory) {
    cudaError_t err = fake_begin(true);
    int i = 0;
    while (i < IMPORTS && (!imports[i].memory || (char *)memory < imports[i].memory ||
                           (char *)memory >= imports[i].memory + imports[i].bytes))
        i++;
    if (err == cudaSuccess && i == IMPORTS) err = cudaErrorInvalidValue;
    if (err == cudaSuccess) err = fake_drain(NULL, -1);
    if (err == cudaSuccess) err = fake_give(memory, FAKE_IMPORTED, FAKE_IMPORTED);
    if (err == cudaSuccess) {
        struct import *in = &imports[i];
        in->at->users--;
        munmap(in->memory, in->bytes);
        munmap(in->table, FAKE_ARENA_TABLE);
        in->memory = NULL;
    }
    return fake_end(err);
}

void fake_ipc_open(bool open) {
    for (int i = 0; i < IMPORTS; i++)
        if (imports[i].memory && mprotect(imports[i].memory, imports[i].bytes,
                                          open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0)
            fake_wrong("another process's memory cannot be %s", open ? "opened" : "closed");
}

/* ---- GPUs of one process ---- */

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
    cudaError_t err = fake_begin(false);
    int count = 0;
    cudaGetDeviceCount(&count);
    if (err == cudaSuccess && (device < 0 || device >= count || peer < 0 || peer >= count))
        err = cudaErrorInvalidDevice;
    if (err == cudaSuccess) *can = device != peer && !apart;
    return fake_end(err);
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
    static bool enabled[CUDA_FAKE_DEVICES][CUDA_FAKE_DEVICES];
    cudaError_t err = fake_begin(false);
    int device = fake_device();
    if (err == cudaSuccess && (flags || peer < 0 || peer >= CUDA_FAKE_DEVICES || peer == device))
        err = cudaErrorInvalidDevice;
    if (err == cudaSuccess && apart) err = cudaErrorPeerAccessUnsupported;
    if (err == cudaSuccess && enabled[device][peer]) err = cudaErrorPeerAccessAlreadyEnabled;
    if (err == cudaSuccess) enabled[device][peer] = true;
    return fake_end(err);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The buffers of one measurement. */
#include "perf/buffers.h"

#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/status.h"
#include "perf/check.h"

enum {
    MARGIN = 4096, /* before the first slot and behind the last; keeps the alignment */
    APART = 4096 + 64,
    GUARD = 0x5c,
    GARBAGE = 0xa5
};

/* Two pools (in place: one) that together are twice the last-level cache, in slots with a page and
 * a line between them, so that neither a neighbour's prefetch nor one cache set serves them all. */
static void lay_out_slots(cinch_buffers *b) {
    size_t bytes = b->pool[0].bytes > b->pool[1].bytes ? b->pool[0].bytes : b->pool[1].bytes;
    b->slots = 1;
    b->stride = bytes;
    if (!b->shape.cold) return;
    size_t pool = cinch_cpu_llc_bytes() * (b->pool[0].bytes && b->pool[1].bytes ? 1 : 2);
    b->stride = (bytes + 4095) / 4096 * 4096 + APART;
    b->slots = pool / b->stride + 2;
}

size_t cinch_buffers_size(const cinch_buffers *b) {
    return MARGIN + b->shape.shift + b->slots * b->stride + MARGIN;
}

static cinchResult_t allocate(cinch_buffers *b, cinch_pool *pool) {
    size_t size = cinch_buffers_size(b);
    void *p = NULL;
    if (!pool->bytes) return cinchSuccess;
    if (b->shape.mem_cinch)
        CINCH_TRY(cinchMemAlloc(&p, size));
    else
        p = malloc(size);
    if (!p) return cinch_fail(cinchSystemError, "out of memory: a buffer of %zu bytes", size);
    memset(p, 0, size); /* touched: nobody measures page faults, nor the kernel's zero page */
    pool->memory = p;
    return cinchSuccess;
}

cinchResult_t cinch_buffers_make(cinch_buffers *b, const cinch_buffers_shape *shape) {
    size_t block = shape->count * shape->element;
    *b = (cinch_buffers){.shape = *shape};
    b->send_bytes = block * (size_t)cinch_send_blocks(shape->operation, shape->rank, shape->nranks,
                                                      shape->root);
    b->recv_bytes = block * (size_t)cinch_recv_blocks(shape->operation, shape->rank, shape->nranks,
                                                      shape->root);
    if (shape->in_place) {
        b->pool[0].bytes = b->send_bytes > b->recv_bytes ? b->send_bytes : b->recv_bytes;
    } else {
        b->pool[0].bytes = b->send_bytes;
        b->pool[1].bytes = b->recv_bytes;
    }
    lay_out_slots(b);
    CINCH_TRY(allocate(b, &b->pool[0]));
    CINCH_TRY(allocate(b, &b->pool[1]));
    if (b->pool[0].memory) b->send = b->pool[0].memory + MARGIN + shape->shift;
    if (b->pool[1].memory) b->recv = b->pool[1].memory + MARGIN + shape->shift;
    if (!shape->in_place) return cinchSuccess;
    /* The shorter one is the rank's own block of the longer, or is not used at all. */
    size_t own = (size_t)shape->rank * block;
    b->recv = b->send;
    if (b->send_bytes && b->recv_bytes && b->send_bytes < b->recv_bytes) b->send += own;
    if (b->send_bytes && b->recv_bytes && b->send_bytes > b->recv_bytes) b->recv += own;
    return cinchSuccess;
}

void cinch_buffers_free(cinch_buffers *b) {
    for (int i = 0; i < 2; i++) {
        if (b->shape.mem_cinch && b->pool[i].memory)
            cinchMemFree(b->pool[i].memory);
        else
            free(b->pool[i].memory);
        b->pool[i].memory = NULL;
    }
}

void cinch_buffers_fill(cinch_buffers *b, const cinch_data *data) {
    if (!b->send_bytes) return;
    cinch_data_fill(data, b->shape.rank, 0, b->send_bytes / b->shape.element, b->send);
    for (size_t s = 1; s < b->slots; s++) memcpy(b->send + s * b->stride, b->send, b->send_bytes);
}

void cinch_buffers_prepare(cinch_buffers *b, const cinch_data *data) {
    for (int i = 0; i < 2; i++) {
        unsigned char *memory = b->pool[i].memory;
        if (!memory) continue;
        memset(memory, GUARD, MARGIN + b->shape.shift);
        memory += b->shape.shift;
        memset(memory + MARGIN, GARBAGE, b->pool[i].bytes);
        memset(memory + MARGIN + b->pool[i].bytes, GUARD, MARGIN);
    }
    if (b->send_bytes)
        cinch_data_fill(data, b->shape.rank, 0, b->send_bytes / b->shape.element, b->send);
}

static uint64_t count_changed(const unsigned char *guard) {
    uint64_t changed = 0;
    for (size_t i = 0; i < MARGIN; i++) changed += guard[i] != GUARD;
    return changed;
}

uint64_t cinch_buffers_spoilt(const cinch_buffers *b, const cinch_data *data) {
    uint64_t changed = 0;
    size_t count = b->shape.count, block = count * b->shape.element;
    for (int i = 0; i < 2; i++) {
        const unsigned char *memory = b->pool[i].memory;
        if (!memory) continue;
        memory += b->shape.shift;
        changed += count_changed(memory);
        changed += count_changed(memory + MARGIN + b->pool[i].bytes);
    }
    for (size_t at = 0; at < b->send_bytes; at += block) {
        const unsigned char *input = b->send + at;
        if ((uintptr_t)input - (uintptr_t)b->recv < b->recv_bytes) continue; /* a result is here */
        changed += cinch_check_moved(data, b->shape.rank, at / b->shape.element, input, count);
    }
    return changed;
}

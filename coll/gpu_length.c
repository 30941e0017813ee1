/* SPDX-License-Identifier: Apache-2.0 */
/* The lengths of messages that depend on what is in them: kernels leave them in pinned memory, and
 * the host reads them when the device has come there. Whoever needs one waits for it, so the queue
 * runs dry meanwhile; other codecs have none of this. */
#include <stdlib.h>
#include <string.h>

#include "coll/gpu.h"

/* Whether a codec of the operation makes such messages. */
static bool differs(const cinch_op *op) {
    for (int c = 0; c < CINCH_CODEC_COUNT; c++)
        if (op->schedule->codecs >> c & 1 &&
            !op->gpu->kernels->wire_bytes(cinch_codec_in_force(op->call.comm, (cinch_codec_index)c),
                                          1))
            return true;
    return false;
}

cinchResult_t cinch_gpu_lengths_begin(cinch_op *op) {
    cinch_gpu_comm *g = op->gpu;
    size_t count = (size_t)op->schedule->depth * op->schedule->nwire;
    for (size_t i = 0; i < g->lengths; i++) g->length[i].open = false;
    if (!differs(op)) return cinchSuccess;
    if (count > g->lengths) {
        cinch_gpu_length *length = realloc(g->length, count * sizeof *length);
        if (!length) return cinch_fail(cinchSystemError, "out of memory for %zu lengths", count);
        memset(length + g->lengths, 0, (count - g->lengths) * sizeof *length);
        g->length = length;
        g->lengths = count;
    }
    for (size_t i = 0; i < count; i++)
        if (!g->length[i].there) CINCH_TRY(g->work->event_open(g->device, &g->length[i].there));
    return cinch_gpu_reserve(g, &g->length_room, count * sizeof(unsigned long long));
}

cinchResult_t cinch_gpu_length_ask(cinch_op *op, const cinch_codec *codec, const void *wire,
                                   size_t elements, size_t slot) {
    cinch_gpu_comm *g = op->gpu;
    const cinch_gpu_where where = {.stream = cinch_gpu_compute(g)};
    unsigned long long *bytes = (unsigned long long *)g->length_room.data + slot;
    CINCH_TRY(g->kernels->measure(&where, codec, wire, elements, bytes));
    CINCH_TRY(g->work->record(g->length[slot].there, cinch_gpu_compute(g)));
    g->length[slot].open = true;
    return cinchSuccess;
}

cinchResult_t cinch_gpu_length_known(cinch_op *op, size_t slot, bool *known) {
    cinch_gpu_comm *g = op->gpu;
    *known = true;
    if (slot >= g->lengths || !g->length[slot].open) return cinchSuccess;
    cinchResult_t state = g->work->passed(g->length[slot].there);
    if (state == cinchInProgress) {
        g->watching = true;
        *known = false;
        return cinchSuccess;
    }
    CINCH_TRY(state);
    unsigned long long bytes = ((unsigned long long *)g->length_room.data)[slot];
    if (bytes > op->wire_bytes)
        return cinch_fail(cinchInternalError, "an encoding of %llu bytes where %zu have room",
                          bytes, op->wire_bytes);
    op->wire_length[slot] = (size_t)bytes;
    g->length[slot].open = false;
    return cinchSuccess;
}

void cinch_gpu_lengths_close(cinch_gpu_comm *g) {
    for (size_t i = 0; i < g->lengths; i++)
        if (g->length[i].there) g->work->event_close(g->length[i].there);
    free(g->length);
}

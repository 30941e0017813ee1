/* SPDX-License-Identifier: Apache-2.0 */
/* The buffers of one measurement: as long as the operation has them on this rank, in place or
 * apart, and what must not be written to around them. */
#ifndef CINCH_PERF_BUFFERS_H_
#define CINCH_PERF_BUFFERS_H_

#include <stdint.h>

#include "perf/data.h"
#include "perf/operations.h"

typedef struct cinch_buffers_shape {
    const cinch_operation *operation;
    int rank, nranks, root;
    size_t count; /* elements of a block */
    size_t element;
    bool in_place;
    bool cold;      /* rotate through more than the cache holds */
    bool mem_cinch; /* by cinchMemAlloc */
    size_t shift;   /* bytes that the buffers begin behind an aligned address */
} cinch_buffers_shape;

typedef struct cinch_pool {
    unsigned char *memory; /* NULL: none */
    unsigned char *on_gpu; /* the same there; NULL: none */
    size_t bytes;          /* of a slot, without what is around it */
} cinch_pool;

typedef struct cinch_buffers {
    cinch_buffers_shape shape;
    unsigned char *send, *recv;    /* of slot 0. NULL: this rank has none, and is not in place */
    size_t send_bytes, recv_bytes; /* 0: this rank has none */
    size_t slots, stride;          /* more than one slot only where cold */
    cinch_pool pool[2];            /* in place: the first holds both */
} cinch_buffers;

/* All memory is touched, and zero. After a failure too the buffers want cinch_buffers_free. */
cinchResult_t cinch_buffers_make(cinch_buffers *buffers, const cinch_buffers_shape *shape);
void cinch_buffers_free(cinch_buffers *buffers);

/* Bytes of a pool, with all that is around its slots. */
size_t cinch_buffers_size(const cinch_buffers *buffers);

/* The rank's input into every slot. */
void cinch_buffers_fill(cinch_buffers *buffers, const cinch_data *data);

/* Makes slot 0 ready for a check: fresh input, elsewhere what no result looks like. */
void cinch_buffers_prepare(cinch_buffers *buffers, const cinch_data *data);

/* How much of slot 0's surroundings a call has changed since: bytes before and behind the buffers,
 * elements of the input where no result belongs. */
uint64_t cinch_buffers_spoilt(const cinch_buffers *buffers, const cinch_data *data);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Where buffers live and what streams belong to it. The host is one device; others are one more
 * table each. */
#ifndef CINCH_BASE_DEVICE_H_
#define CINCH_BASE_DEVICE_H_

#include <stdbool.h>

#include "base/status.h"

/* Work for a stream. The runner owns it from cinch_device_ops.enqueue on. */
typedef struct cinch_job {
    struct cinch_job *next;                      /* the stream's */
    cinchResult_t (*run)(struct cinch_job *job); /* frees it */
} cinch_job;

typedef struct cinch_device_ops {
    const char *name;
    bool (*owns_pointer)(const void *pointer);
    bool (*owns_stream)(cinchStream_t stream);
    cinchResult_t (*stream_create)(cinchStream_t *stream);
    cinchResult_t (*stream_destroy)(cinchStream_t stream);
    cinchResult_t (*stream_synchronize)(cinchStream_t stream);
    cinchResult_t (*stream_query)(cinchStream_t stream);
    cinchResult_t (*enqueue)(cinchStream_t stream,
                             cinch_job *job); /* in order, after what is there */
} cinch_device_ops;

/* The host: every pointer that no other device knows. */
extern const cinch_device_ops cinch_device_host;

const cinch_device_ops *cinch_device_of_pointer(const void *pointer);

/* NULL, with a sentence for cinchGetLastError, where no device knows the stream. */
const cinch_device_ops *cinch_device_of_stream(cinchStream_t stream);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Where buffers live and what streams belong to it. The host is one device; others are one more
 * table each. */
#ifndef CINCH_BASE_DEVICE_H_
#define CINCH_BASE_DEVICE_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Work for a stream. The runner owns it from cinch_device_ops.enqueue on, where that succeeds. */
typedef struct cinch_job {
    struct cinch_job *next;                      /* the stream's */
    cinchResult_t (*run)(struct cinch_job *job); /* frees it */
} cinch_job;

/* Whose memory a buffer is. */
typedef enum {
    CINCH_MEMORY_HOST,   /* pageable, or unknown to every other device */
    CINCH_MEMORY_PINNED, /* the host's, which the device's copies and kernels reach too */
    CINCH_MEMORY_DEVICE  /* managed memory included: only copies and kernels touch it */
} cinch_memory_kind;

typedef struct cinch_memory {
    cinch_memory_kind kind;
    int device; /* which of that table's; -1: none in particular */
} cinch_memory;

typedef struct cinch_event cinch_event; /* a place in a stream, to be recorded again and again */

/* What another process of this host opens device memory with. */
typedef struct cinch_device_handle {
    unsigned char bytes[64];
} cinch_device_handle;

enum { CINCH_DEVICE_ID = 16 }; /* bytes that tell a device from all others, of other hosts too */

/* A place in a graph. Each time that a launch of the graph comes there, `reached` is called, and
 * what follows waits until the gate is opened for it; it stands shut again for the next launch.
 * Once no graph has it any more, `gone` is called. Both come from threads of the device's driver,
 * and must neither wait nor use a device. */
typedef struct cinch_gate {
    void (*reached)(struct cinch_gate *gate);
    void (*gone)(struct cinch_gate *gate);
    bool held;              /* by a graph: `gone` will be called, be there a failure or not */
    _Atomic uint32_t *word; /* the device's own */
} cinch_gate;

/* How the engine works on memory that it cannot touch. Every function may be called from any
 * thread, selects the device that it needs and leaves the thread's selection as it was; those that
 * take a stream queue there and return. Failures have a sentence. */
typedef struct cinch_device_work {
    /* Device memory, and host memory that kernels reach at the same address. Slow: kept, never
     * taken on a call's way twice. */
    cinchResult_t (*alloc)(int device, size_t bytes, void **memory);
    cinchResult_t (*alloc_pinned)(int device, size_t bytes, void **memory);
    void (*release)(int device, void *memory);
    void (*release_pinned)(int device, void *memory);

    /* An internal stream, which waits for no other by itself. */
    cinchResult_t (*stream_open)(int device, cinchStream_t *stream);
    void (*stream_close)(int device, cinchStream_t stream);

    cinchResult_t (*event_open)(int device, cinch_event **event);
    void (*event_close)(cinch_event *event);
    cinchResult_t (*record)(cinch_event *event, cinchStream_t stream);
    cinchResult_t (*wait)(cinchStream_t stream, cinch_event *event); /* the stream, not the host */
    /* Success: the stream has passed it; InProgress: not yet. What failed on the device fails. */
    cinchResult_t (*passed)(cinch_event *event);

    /* Between memory of any kind. */
    cinchResult_t (*copy)(int device, cinchStream_t stream, void *to, const void *from,
                          size_t bytes);
    /* The same from memory of another device of this process, however it was allocated there. */
    cinchResult_t (*copy_from)(int device, cinchStream_t stream, void *to, const void *from,
                               size_t bytes);
    cinchResult_t (*fill)(int device, cinchStream_t stream, void *to, int byte, size_t bytes);

    /* A handle of what `alloc` has given; the same memory in another process, once for each handle
     * in a process however often it is asked for, each to be closed before its owner releases it;
     * and whether the device's copies reach the memory of another one of this process without the
     * host. That there is no such way is told and makes no line in the log. */
    cinchResult_t (*share)(int device, void *memory, cinch_device_handle *handle);
    cinchResult_t (*open_shared)(int device, const cinch_device_handle *handle, void **memory);
    void (*close_shared)(int device, void *memory);
    bool (*reaches)(int device, int other);

    /* How many devices there are; and which one of all that are anywhere (-1: of the selected). */
    cinchResult_t (*count)(int *devices);
    cinchResult_t (*identify)(int device, unsigned char id[CINCH_DEVICE_ID]);

    /* Whether the calling thread has a device selected. */
    bool (*current)(void);
    /* run(arg) with the device selected: for what launches kernels. */
    cinchResult_t (*with)(int device, cinchResult_t (*run)(void *arg), void *arg);
    /* Whether what is queued there now becomes part of a graph, or would end a capture. */
    cinchResult_t (*capturing)(int device, cinchStream_t stream, bool *is);

    /* ---- graphs ---- */

    /* What the stream is captured into: a number, of which no two captures have the same; 0: it is
     * not captured. InvalidUsage: the capture has failed, or what is queued there would end one. */
    cinchResult_t (*capture)(cinchStream_t stream, uint64_t *capture);

    /* Gives the gate to the graph that the stream is captured into; puts it on the stream; and
     * opens it for the launch that waits there. */
    cinchResult_t (*gate_hold)(cinchStream_t stream, cinch_gate *gate);
    cinchResult_t (*gate_put)(cinchStream_t stream, cinch_gate *gate);
    void (*gate_open)(cinch_gate *gate);

    /* An event of the stream's device, captured or not; and as `record` and `wait`, but on a
     * captured stream whenever a launch comes there, seen also from outside of the graph. */
    cinchResult_t (*event_open_by)(cinchStream_t stream, cinch_event **event);
    cinchResult_t (*record_outside)(cinch_event *event, cinchStream_t stream);
    cinchResult_t (*wait_outside)(cinchStream_t stream, cinch_event *event);
} cinch_device_work;

typedef struct cinch_device_ops {
    const char *name;
    const cinch_device_work *work; /* NULL: the engine touches the memory itself */
    /* Whether the device knows the memory; *memory then says of what kind it is. */
    bool (*knows)(const void *pointer, cinch_memory *memory);
    bool (*owns_stream)(cinchStream_t stream);
    cinchResult_t (*stream_create)(cinchStream_t *stream);
    cinchResult_t (*stream_destroy)(cinchStream_t stream);
    cinchResult_t (*stream_synchronize)(cinchStream_t stream);
    cinchResult_t (*stream_query)(cinchStream_t stream);
    /* In order, after what is there. A failure: it was not queued, and is the caller's still. */
    cinchResult_t (*enqueue)(cinchStream_t stream, cinch_job *job);
} cinch_device_ops;

/* The host: every pointer that no other device knows. */
extern const cinch_device_ops cinch_device_host;

/* CUDA: streams and memory of its runtime. In a build without it, or where no driver is loaded in
 * this process, it knows nothing, at the cost of a look at a flag. */
extern const cinch_device_ops cinch_device_cuda;

/* Whether any device but the host can be met in this process: one look at a flag, which
 * cinch_device_look sets; true stays true. */
extern atomic_bool cinch_device_found;
static inline bool cinch_device_any(void) {
    return atomic_load_explicit(&cinch_device_found, memory_order_relaxed);
}

/* Looks whether the application has loaded a device's driver by now: where it has loaded nothing
 * since the last look, one question to the loader. of_pointer and of_stream do it by themselves. */
bool cinch_device_look(void);

/* Whether one of these may be a device's memory. Where no driver was loaded so far it looks for
 * one, but not again for pages that the thread asked about lately: they were the host's. A page has
 * one place in the table, by its number's product with 2^64 over the golden ratio (Knuth, The Art
 * of Computer Programming 3, 6.4), so that buffers a power of two apart do not share one. */
enum { CINCH_DEVICE_PAGES_LOG2 = 7, CINCH_DEVICE_PAGES = 1 << CINCH_DEVICE_PAGES_LOG2 };
extern _Thread_local uintptr_t cinch_device_host_pages[CINCH_DEVICE_PAGES];
static inline size_t cinch_device_page_slot(const void *at) {
    return (size_t)(((uint64_t)(uintptr_t)at >> 12) * UINT64_C(0x9e3779b97f4a7c15) >>
                    (64 - CINCH_DEVICE_PAGES_LOG2));
}
bool cinch_device_look_for(const void *a, const void *b);
static inline bool cinch_device_may_hold(const void *a, const void *b) {
    if (!cinch_device_any() &&
        (uintptr_t)a >> 12 == cinch_device_host_pages[cinch_device_page_slot(a)] &&
        (uintptr_t)b >> 12 == cinch_device_host_pages[cinch_device_page_slot(b)])
        return false;
    return cinch_device_look_for(a, b);
}

/* "built with 13.0, no driver here": what there is of CUDA. May start the driver: for tools. */
#define CINCH_DEVICE_TEXT 160
const char *cinch_device_cuda_text(char text[CINCH_DEVICE_TEXT]);

const cinch_device_ops *cinch_device_of_pointer(const void *pointer, cinch_memory *memory);

/* NULL, with a sentence for cinchGetLastError, where no device knows the stream. */
const cinch_device_ops *cinch_device_of_stream(cinchStream_t stream);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* An emulated GPU and its runtime, and what tests set of it.
 *
 * One thread executes what all streams hold, one piece at a time, in an order that is drawn at
 * random among those that streams, events and values allow: what no event orders comes in the wrong
 * order soon. Device memory is closed to everybody while that thread executes nothing, so that host
 * code that touches it ends with SIGSEGV; it is garbage at first, and what is written beside an
 * allocation is found when it is freed. As CUDA may do, cudaFree and cudaFreeHost wait for the
 * whole device, and a copy from or to pageable memory waits until it is done. */
#ifndef CINCH_TESTS_CUDA_RUNTIME_FAKE_H_
#define CINCH_TESTS_CUDA_RUNTIME_FAKE_H_

#include <stdbool.h>
#include <stdint.h>

#include "tests/cuda/runtime/cuda.h"
#include "tests/cuda/runtime/cuda_runtime_api.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CUDA_FAKE_DEVICES = 4 };

/* The order from now on; at first 1, or CUDA_FAKE_SEED in the environment. */
void cuda_fake_seed(uint64_t seed);

/* How many GPUs there are; 1 at first. */
void cuda_fake_devices(int count);

/* Whether the application has loaded the driver; at first it has. */
void cuda_fake_loaded(bool loaded);

/* Whether streams can wait for values; at first they can. */
void cuda_fake_wait_values(bool there);

/* Whether the driver tells streams' ids, asked when it is found; at first it does. */
void cuda_fake_stream_ids(bool there);

/* Streams of one priority are in so many queues, in which a wait for a value holds up what was
 * queued after it, of whichever stream. At first 0, or CUDA_FAKE_QUEUES in the environment: each
 * stream is on its own. */
void cuda_fake_queues(int count);

/* Whether the GPUs of the process reach each other; at first they do. */
void cuda_fake_peers(bool reach);

/* What becomes of memory between processes, from this one's point of view; at first it works. */
typedef enum {
    CUDA_FAKE_IPC_WORKS,
    CUDA_FAKE_IPC_NO_EXPORT,
    CUDA_FAKE_IPC_NO_OPEN,
    CUDA_FAKE_IPC_WRONG_MEMORY
} cuda_fake_ipc_mode;
void cuda_fake_ipc(cuda_fake_ipc_mode mode);

/* The k-th call that can fail from now on (1: the next one) fails so, once; 0: none. */
void cuda_fake_fail(int k, cudaError_t err);

/* The device breaks: what is queued is dropped, and every call says so, until cudaSuccess. */
void cuda_fake_break(cudaError_t err);

/* Calls that queue work from this thread onto that stream wait for values by this. */
CUresult cuda_fake_wait_value(CUstream stream, CUdeviceptr at, cuuint32_t value, unsigned flags);

/* The thread's device, -1 where it has chosen none. */
int cuda_fake_selected(void);

/* Pieces of work executed, and work that a stream took while it was captured. */
uint64_t cuda_fake_executed(void);
uint64_t cuda_fake_captured(void);

/* Allocations, streams and events that are there: for finding what is left over. */
int cuda_fake_held(void);
int cuda_fake_allocations(void); /* memory alone, other processes' that is open included */

#ifdef __cplusplus
}
#endif

#endif

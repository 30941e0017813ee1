/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the CUDA side of base/device share.
 *
 * libcinch holds a runtime of its own (cudart, linked statically), so that what its calls leave
 * behind for cudaGetLastError is not the application's. The runtime is called only where the
 * application has loaded the driver, and then on the context that is already there. */
#ifndef CINCH_BASE_CUDA_H_
#define CINCH_BASE_CUDA_H_

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "base/device.h"

/* The driver's functions that the runtime has no equal of: the runtime would make a context where
 * there is none, or switch from one that is not its own. The last three may be missing. */
typedef struct cinch_cuda_driver {
    CUresult (*context)(CUcontext *context);
    CUresult (*select)(CUcontext context);
    CUresult (*device)(CUdevice *device);
    CUresult (*attributes)(unsigned count, CUpointer_attribute *which, void **values,
                           CUdeviceptr at);
    CUresult (*stream_context)(CUstream stream, CUcontext *context);
    CUresult (*stream_id)(CUstream stream, unsigned long long *id);
    CUresult (*wait_value)(CUstream stream, CUdeviceptr at, cuuint32_t value, unsigned flags);
    CUresult (*capture_info)(CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id,
                             CUgraph *graph, const CUgraphNode **after, size_t *nafter);
} cinch_cuda_driver;

/* NULL where the application has loaded no driver so far. */
const cinch_cuda_driver *cinch_cuda_driver_found(void);

/* UnhandledCudaError: "<what>: <CUDA's text>". Also of CUresult, whose numbers are the same. */
cinchResult_t cinch_cuda_fail(int err, const char *what) __attribute__((cold));

/* The calling thread's selection, kept while cinch selects what it needs. In between, calls that
 * a capture elsewhere in the process forbids are allowed: they have nothing to do with it. */
typedef struct cinch_cuda_guard {
    CUcontext saved;
    bool switched;
    enum cudaStreamCaptureMode mode;
} cinch_cuda_guard;

/* device -1: the current one. After a failure there is nothing to leave. */
cinchResult_t cinch_cuda_enter(cinch_cuda_guard *guard, int device);
cinchResult_t cinch_cuda_enter_stream(cinch_cuda_guard *guard, cinchStream_t stream);
void cinch_cuda_leave(const cinch_cuda_guard *guard);

/* NULL and the two default streams are other streams in every context. */
bool cinch_cuda_is_default(cinchStream_t stream);

extern const cinch_device_work cinch_cuda_work;

/* Of that table (cuda_ipc.c). */
cinchResult_t cinch_cuda_share(int device, void *memory, cinch_device_handle *handle);
cinchResult_t cinch_cuda_open_shared(int device, const cinch_device_handle *handle, void **memory);
void cinch_cuda_close_shared(int device, void *memory);
bool cinch_cuda_reaches(int device, int other);

cinchResult_t cinch_cuda_enqueue(cinchStream_t stream, cinch_job *job);

/* As in cinch_device_work (cuda_graph.c). */
cinchResult_t cinch_cuda_capture(cinchStream_t stream, uint64_t *capture);
cinchResult_t cinch_cuda_gate_hold(cinchStream_t stream, cinch_gate *gate);
cinchResult_t cinch_cuda_gate_put(cinchStream_t stream, cinch_gate *gate);
void cinch_cuda_gate_open(cinch_gate *gate);

/* The first failure among the jobs of that stream, its sentence now the thread's. */
cinchResult_t cinch_cuda_jobs_failed(cinchStream_t stream);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Memory and streams, as the public functions give them. */
#include "base/device.h"
#include "base/heap.h"

cinchResult_t cinchHostAlloc(void **ptr, size_t size) {
    if (!ptr) return cinch_fail(cinchInvalidArgument, "ptr is NULL");
    *ptr = NULL;
    return size ? cinch_heap_alloc(ptr, size) : cinchSuccess;
}

cinchResult_t cinchHostFree(void *ptr) {
    return ptr ? cinch_heap_release(ptr) : cinchSuccess;
}

/* Of the current device where there is one. */
cinchResult_t cinchMemAlloc(void **ptr, size_t size) {
    const cinch_device_work *work = cinch_device_look() ? cinch_device_cuda.work : NULL;
    if (!ptr || !size || !work || !work->current()) return cinchHostAlloc(ptr, size);
    *ptr = NULL;
    return work->alloc(-1, size, ptr);
}

cinchResult_t cinchMemFree(void *ptr) {
    cinch_memory memory = {CINCH_MEMORY_HOST, -1};
    const cinch_device_ops *ops = ptr ? cinch_device_of_pointer(ptr, &memory) : NULL;
    if (memory.kind != CINCH_MEMORY_DEVICE) return cinchHostFree(ptr);
    ops->work->release(memory.device, ptr);
    return cinchSuccess;
}

cinchResult_t cinchStreamCreate(cinchStream_t *stream) {
    if (!stream) return cinch_fail(cinchInvalidArgument, "stream is NULL");
    return cinch_device_host.stream_create(stream);
}

cinchResult_t cinchStreamDestroy(cinchStream_t stream) {
    const cinch_device_ops *device = cinch_device_of_stream(stream);
    return device ? device->stream_destroy(stream) : cinchInvalidArgument;
}

/* What no stream was given was complete on return, unless it was in a device's memory: that has a
 * default stream, where the thread has a device at all. */
static bool has_default_stream(void) {
    return cinch_device_look() && cinch_device_cuda.work && cinch_device_cuda.work->current();
}

cinchResult_t cinchStreamSynchronize(cinchStream_t stream) {
    if (!stream)
        return has_default_stream() ? cinch_device_cuda.stream_synchronize(NULL) : cinchSuccess;
    const cinch_device_ops *device = cinch_device_of_stream(stream);
    return device ? device->stream_synchronize(stream) : cinchInvalidArgument;
}

cinchResult_t cinchStreamQuery(cinchStream_t stream) {
    if (!stream) return has_default_stream() ? cinch_device_cuda.stream_query(NULL) : cinchSuccess;
    const cinch_device_ops *device = cinch_device_of_stream(stream);
    return device ? device->stream_query(stream) : cinchInvalidArgument;
}

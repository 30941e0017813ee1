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

cinchResult_t cinchMemAlloc(void **ptr, size_t size) {
    return cinchHostAlloc(ptr, size);
}
cinchResult_t cinchMemFree(void *ptr) {
    return cinchHostFree(ptr);
}

cinchResult_t cinchStreamCreate(cinchStream_t *stream) {
    if (!stream) return cinch_fail(cinchInvalidArgument, "stream is NULL");
    return cinch_device_host.stream_create(stream);
}

cinchResult_t cinchStreamDestroy(cinchStream_t stream) {
    const cinch_device_ops *device = cinch_device_of_stream(stream);
    return device ? device->stream_destroy(stream) : cinchInvalidArgument;
}

cinchResult_t cinchStreamSynchronize(cinchStream_t stream) {
    if (!stream) return cinchSuccess; /* what it was given was complete on return */
    const cinch_device_ops *device = cinch_device_of_stream(stream);
    return device ? device->stream_synchronize(stream) : cinchInvalidArgument;
}

cinchResult_t cinchStreamQuery(cinchStream_t stream) {
    if (!stream) return cinchSuccess;
    const cinch_device_ops *device = cinch_device_of_stream(stream);
    return device ? device->stream_query(stream) : cinchInvalidArgument;
}

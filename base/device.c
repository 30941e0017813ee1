/* SPDX-License-Identifier: Apache-2.0 */
/* The table of devices; the host is last because it takes any pointer. */
#include "base/device.h"

#include <stddef.h>

static const cinch_device_ops *const devices[] = {&cinch_device_cuda, &cinch_device_host};

const cinch_device_ops *cinch_device_of_pointer(const void *pointer, cinch_memory *memory) {
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        if (devices[i]->knows(pointer, memory)) return devices[i];
    return &cinch_device_host;
}

const cinch_device_ops *cinch_device_of_stream(cinchStream_t stream) {
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        if (devices[i]->owns_stream(stream)) return devices[i];
    cinch_fail(cinchInvalidArgument,
               "stream %p is not one: NULL and streams of cinchStreamCreate are accepted",
               (void *)stream);
    return NULL;
}

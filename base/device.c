/* SPDX-License-Identifier: Apache-2.0 */
/* The table of devices; the host is last because it takes any pointer. */
#include "base/device.h"

#include <stddef.h>
#include <string.h>

static const cinch_device_ops *const devices[] = {&cinch_device_cuda, &cinch_device_host};

atomic_bool cinch_device_found;
_Thread_local uintptr_t cinch_device_host_pages[CINCH_DEVICE_PAGES];

bool cinch_device_look_for(const void *a, const void *b) {
    static _Thread_local unsigned pages;
    if (cinch_device_look()) return true;
    if (++pages % (8 * CINCH_DEVICE_PAGES) == 0) /* none is taken for the host's for ever */
        memset(cinch_device_host_pages, 0, sizeof cinch_device_host_pages);
    cinch_device_host_pages[cinch_device_page_slot(a)] = (uintptr_t)a >> 12;
    cinch_device_host_pages[cinch_device_page_slot(b)] = (uintptr_t)b >> 12;
    return false;
}

const cinch_device_ops *cinch_device_of_pointer(const void *pointer, cinch_memory *memory) {
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        if (devices[i]->knows(pointer, memory)) return devices[i];
    return &cinch_device_host;
}

const cinch_device_ops *cinch_device_of_stream(cinchStream_t stream) {
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        if (devices[i]->owns_stream(stream)) return devices[i];
    cinch_fail(
        cinchInvalidArgument,
        "stream %p is not one: NULL, streams of cinchStreamCreate and, where the application "
        "has loaded its driver, CUDA's are accepted",
        (void *)stream);
    return NULL;
}

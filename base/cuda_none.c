/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA in a build without it. */
#include <stdio.h>

#include "base/device.h"

static bool knows_no_memory(const void *pointer, cinch_memory *memory) {
    (void)pointer, (void)memory;
    return false;
}
static bool owns_no_stream(cinchStream_t stream) {
    (void)stream;
    return false;
}

const cinch_device_ops cinch_device_cuda = {
    .name = "cuda", .knows = knows_no_memory, .owns_stream = owns_no_stream};

bool cinch_device_look(void) {
    return false;
}

const char *cinch_device_cuda_text(char text[CINCH_DEVICE_TEXT]) {
    snprintf(text, CINCH_DEVICE_TEXT, "no: GPU memory is not known");
    return text;
}

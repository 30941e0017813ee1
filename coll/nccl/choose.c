/* SPDX-License-Identifier: Apache-2.0 */
/* CINCH_NCCL_MODE, and what auto makes of the machine. */
#include "coll/nccl/choose.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

const char *cinch_nccl_no_gpu(void) {
    int (*init)(unsigned), (*count)(int *), devices = 0;
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!driver) return "there is no CUDA driver";
    *(void **)&init = dlsym(driver, "cuInit");
    *(void **)&count = dlsym(driver, "cuDeviceGetCount");
    if (!init || !count) {
        dlclose(driver);
        return "libcuda.so.1 is no CUDA driver";
    }
    if (init(0) != 0) return "the CUDA driver does not start";
    if (count(&devices) != 0 || devices < 1) return "there is no CUDA device";
    return NULL;
}

const char *cinch_nccl_mode_name(cinch_nccl_mode mode) {
    return mode == CINCH_NCCL_FORWARD ? "forward" : mode == CINCH_NCCL_NATIVE ? "native" : "none";
}

void cinch_nccl_choose(const cinch_settings *settings, cinch_nccl_choice *choice) {
    cinch_nccl_mode asked = (cinch_nccl_mode)settings->nccl_mode;
    char *why = choice->why;
    memset(choice, 0, sizeof *choice);
    choice->mode = CINCH_NCCL_NATIVE;
    if (asked == CINCH_NCCL_NATIVE) {
        snprintf(why, CINCH_ERROR_TEXT, "CINCH_NCCL_MODE=native");
        return;
    }
    const char *cpu_only = asked == CINCH_NCCL_AUTO ? cinch_nccl_no_gpu() : NULL;
    if (cpu_only) {
        snprintf(why, CINCH_ERROR_TEXT, "%s", cpu_only);
        return;
    }
    bool found = cinch_nccl_load(settings->nccl_path, &choice->real, why);
    if (found) {
        choice->mode = CINCH_NCCL_FORWARD;
        snprintf(why, CINCH_ERROR_TEXT,
                 asked == CINCH_NCCL_AUTO ? "a CUDA device and the real library are there"
                                          : "CINCH_NCCL_MODE=forward");
    } else if (asked == CINCH_NCCL_FORWARD || settings->nccl_path[0]) {
        choice->mode = CINCH_NCCL_NEITHER;
    }
}

void cinch_nccl_asked_codec(const cinch_settings *settings, char *text, size_t room) {
    static const cinch_setting_index codecs[] = {CINCH_SET_codec, CINCH_SET_codec_intra,
                                                 CINCH_SET_codec_inter};
    text[0] = '\0';
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs && !text[0]; i++) {
        const char *value = settings->value[codecs[i]];
        if (value && value[0] && strcmp(value, "none") != 0)
            snprintf(text, room, "%s=%s", cinch_setting_at((int)codecs[i])->name, value);
    }
}

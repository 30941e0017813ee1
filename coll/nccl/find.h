/* SPDX-License-Identifier: Apache-2.0 */
/* The real NCCL: where the loader would have found it, had nobody put a drop-in before it. */
#ifndef CINCH_COLL_NCCL_FIND_H_
#define CINCH_COLL_NCCL_FIND_H_

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef struct cinch_nccl_library {
    void *handle; /* NULL: none was loaded */
    int version;  /* as ncclGetVersion has it; 0 where it does not say */
    char path[4096];
} cinch_nccl_library;

/* Loads it, to stay. `chosen` is CINCH_NCCL_PATH, a file or a folder with libnccl.so.2 in it; where
 * that is empty the places are, in this order: what the process has loaded under that name by a
 * path; per loaded object that needs libnccl.so.2 its RPATH, LD_LIBRARY_PATH and its RUNPATH, as
 * the loader has it; LD_LIBRARY_PATH; the loader's cache; the system's folders. A drop-in of ours
 * is never taken. False: why says where it was looked for. */
bool cinch_nccl_load(const char *chosen, cinch_nccl_library *out, char why[CINCH_ERROR_TEXT]);

/* "2.28.9" for 22809. */
void cinch_nccl_version_text(int version, char *text, size_t room);

/* The next path that a loader's cache of `length` bytes has for the name; *at is 0 at first. NULL
 * at the end, or where the bytes are no such cache. */
const char *cinch_nccl_cached(const char *cache, size_t length, const char *name, size_t *at);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The real NCCL's functions, by their names. */
#include "coll/nccl/real.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "coll/nccl/find.h"

void cinch_real_resolve(void *handle, cinch_real *out) {
#define X(name) *(void **)&out->name = dlsym(handle, "nccl" #name);
    CINCH_REAL_NEEDED(X)
    CINCH_REAL_INNER(X)
    CINCH_REAL_OPTIONAL(X)
#undef X
}

bool cinch_real_load(const char *chosen, cinch_real *out, int *version,
                     char why[CINCH_ERROR_TEXT]) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static cinch_nccl_library library;
    pthread_mutex_lock(&lock);
    bool there = library.handle || cinch_nccl_load(chosen, &library, why);
    pthread_mutex_unlock(&lock);
    if (!there) return false;
    cinch_real_resolve(library.handle, out);
    *version = library.version;
    return true;
}

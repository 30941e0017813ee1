/* SPDX-License-Identifier: Apache-2.0 */
/* Residuals of error feedback in a device's memory. The host's floats are what is exported, scaled
 * and dropped; a mirror is ahead of them while the device works with it. */
#include <stdlib.h>
#include <string.h>

#include "coll/gpu.h"

typedef struct cinch_ef_mirror {
    cinch_gpu_comm *gpu;
    cinch_gpu_room room;
    bool ahead; /* else the host's floats count */
} cinch_ef_mirror;

void cinch_ef_mirror_behind(cinch_ef_mirror *mirror) {
    if (mirror) mirror->ahead = false;
}

/* The memory is kept for the next one: freeing it would wait for the whole device. */
void cinch_ef_mirror_drop(cinch_ef_mirror *mirror) {
    if (mirror) (void)cinch_gpu_retire(mirror->gpu, &mirror->room);
    free(mirror);
}

cinchResult_t cinch_gpu_mirror(cinch_gpu_comm *g, cinch_ef *ef, float **sender, float **owner) {
    size_t bytes = (ef->nsender + ef->nowner) * sizeof(float);
    if (!ef->mirror) {
        cinch_ef_mirror *m = calloc(1, sizeof *m);
        if (!m) return cinch_fail(cinchSystemError, "out of memory for error feedback");
        m->gpu = g;
        cinchResult_t result = cinch_gpu_reserve(g, &m->room, bytes ? bytes : 1);
        if (result != cinchSuccess) {
            free(m);
            return result;
        }
        ef->mirror = m;
    }
    if (!ef->mirror->ahead) CINCH_TRY(cinch_gpu_store(g, ef->mirror->room.data, ef->sender, bytes));
    ef->mirror->ahead = true;
    *sender = ef->mirror->room.data;
    *owner = *sender + ef->nsender;
    return cinchSuccess;
}

cinchResult_t cinch_gpu_mirror_back(cinch_ef *ef) {
    if (!ef->mirror || !ef->mirror->ahead) return cinchSuccess;
    CINCH_TRY(cinch_gpu_fetch(ef->mirror->gpu, ef->sender, ef->mirror->room.data,
                              (ef->nsender + ef->nowner) * sizeof(float)));
    ef->mirror->ahead = false;
    return cinchSuccess;
}

cinchResult_t cinch_gpu_mirrors_back(struct cinchComm *comm) {
    for (cinch_ef *ef = comm->ef.used; ef; ef = ef->next) CINCH_TRY(cinch_gpu_mirror_back(ef));
    return cinchSuccess;
}

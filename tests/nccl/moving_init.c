/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in's ids and inits, which wait for all ranks, and its operators with a scalar. */
#include <stdlib.h>

#include "compress/dtype.h"
#include "tests/nccl/moving_inside.h"

enum { IDS = 256 };

static clique *met[IDS]; /* by the number in an id; NULL: nobody has come */
static uint32_t ids;
int moving_inits;

static struct {
    cinchResult_t code;
    bool late;
} refusal[CUDA_FAKE_DEVICES];

void moving_refuse(int device, cinchResult_t code, bool late) {
    for (int d = 0; d < CUDA_FAKE_DEVICES; d++) {
        if (device >= 0 && d != device) continue;
        refusal[d].code = code;
        refusal[d].late = late;
    }
}

cinchResult_t moving_unique_id(cinchUniqueId *id) {
    memset(id, 0, sizeof *id);
    pthread_mutex_lock(&moving_lock);
    uint32_t number = ids++ % IDS;
    met[number] = NULL;
    pthread_mutex_unlock(&moving_lock);
    memcpy(id->internal, &number, sizeof number);
    return cinchSuccess;
}

void moving_forget(const clique *k) {
    for (int i = 0; i < IDS; i++)
        if (met[i] == k) met[i] = NULL;
}

/* Only what a program of NCCL 2.14 would give, and that it does not block. */
static void check_config(const cinchConfig_t *config) {
    if (config->magic != 0xcafebeef || config->size != 24 || config->version != 21400 ||
        config->blocking != 0)
        cinch_emulate_wrong("a config of size %zu, version %u, blocking %d", config->size,
                            config->version, config->blocking);
}

cinchResult_t moving_init_rank(cinchComm_t *made, int n, cinchUniqueId id, int rank,
                               cinchConfig_t *config) {
    uint32_t number;
    int device;
    check_config(config);
    CUDA_MUST(cudaGetDevice(&device));
    if (refusal[device].code != cinchSuccess && !refusal[device].late) return refusal[device].code;
    memcpy(&number, id.internal, sizeof number);
    pthread_mutex_lock(&moving_lock);
    clique *k = met[number];
    if (!k) {
        k = met[number] = moving_new_clique(n);
        k->alive = 0;
    }
    if (k->n != n || rank >= n) cinch_emulate_wrong("rank %d of %d, and of %d", rank, n, k->n);
    comm *c = moving_new(k, rank, device);
    c->slow = c->inits = true;
    c->state = refusal[device].code;
    k->made++;
    k->alive++;
    moving_inits++;
    pthread_mutex_unlock(&moving_lock);
    *made = (cinchComm_t)(void *)c;
    return cinchInProgress;
}

cinchResult_t moving_premul(cinchRedOp_t *op, void *scalar, cinchDataType_t dtype,
                            cinchScalarResidence_t residence, cinchComm_t handle) {
    comm *c = moving_known(handle);
    int number = cinchNumOps;
    if (!c || c->dawdles) return cinchInvalidArgument;
    moving_scalar *m = calloc(1, sizeof *m), **at = &c->scalars;
    while (*at) at = &(*at)->next, number++;
    *at = m;
    m->dtype = dtype;
    if (residence == cinchScalarDevice)
        m->there = scalar;
    else
        memcpy(m->bits, scalar, cinch_dtype_size(dtype));
    *op = (cinchRedOp_t)number;
    return cinchSuccess;
}

static moving_scalar *find(const comm *c, cinchRedOp_t op) {
    moving_scalar *m = op >= cinchNumOps ? c->scalars : NULL;
    for (int number = cinchNumOps; m && number < (int)op; number++) m = m->next;
    return m && !m->gone ? m : NULL;
}

cinchResult_t moving_premul_forget(cinchRedOp_t op, cinchComm_t handle) {
    comm *c = moving_known(handle);
    moving_scalar *m = c ? find(c, op) : NULL;
    if (!m) return cinchInvalidArgument;
    m->gone = true; /* for calls from now on */
    return cinchSuccess;
}

const moving_scalar *moving_scalar_of(const comm *c, cinchRedOp_t op, cinchDataType_t dtype) {
    const moving_scalar *m = find(c, op);
    return m && m->dtype == dtype ? m : NULL;
}

const char *moving_last_error(cinchComm_t handle) {
    (void)handle;
    return "what the stand-in said last";
}

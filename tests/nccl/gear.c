/* SPDX-License-Identifier: Apache-2.0 */
/* A rank of forward mode with a codec, on an emulated GPU. */
#include "tests/nccl/gear.h"

#include <pthread.h>

#include "compress/dtype.h"
#include "tests/cuda/runtime/fake.h"

void meet(gear *g) {
    ck_assert(wait_for_all(&g->s->point[g->points++], g->me->nranks));
}

/* Sets "A=x B=y" and leaves what was there before in old, or puts that back. */
enum { MOST_OWN = 4 };
static void set_own(const char *env, char old[MOST_OWN][128], bool back) {
    char name[64], value[128];
    for (int i = 0; env && *env; i++) {
        int split = (int)strcspn(env, "="), end = (int)strcspn(env, " ");
        ck_assert_int_lt(i, MOST_OWN);
        snprintf(name, sizeof name, "%.*s", split, env);
        snprintf(value, sizeof value, "%.*s", end - split - 1, env + split + 1);
        const char *was = getenv(name);
        if (!back) snprintf(old[i], 128, "%s", was ? was : "");
        setenv(name, back ? old[i] : value, 1);
        if (back && !old[i][0]) unsetenv(name);
        env += end;
        env += strspn(env, " ");
    }
}

/* A forward mode with the case's settings and this rank's own. */
static cinch_forward *open_forward(const char *env, char why[CINCH_ERROR_TEXT]) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    cinch_settings settings;
    cinch_forward *forward = NULL;
    char old[MOST_OWN][128];
    pthread_mutex_lock(&lock);
    set_own(env, old, false);
    bool good = cinch_settings_load(&settings, why);
    set_own(env, old, true);
    pthread_mutex_unlock(&lock);
    if (good && cinch_forward_open(&settings, &moving_nccl, &forward, why) != cinchSuccess)
        forward = NULL;
    cinch_settings_free(&settings);
    return forward;
}

void open_gear(seat *me, gear *g) {
    static const int devices[RANKS] = {0, 1, 2, 3, 0, 1};
    char why[CINCH_ERROR_TEXT];
    *g = (gear){.me = me, .s = me->shared};
    CUDA(cudaSetDevice(devices[me->rank]));
    if (me->rank == 0) moving_init(g->s->comm, me->nranks, devices);
    meet(g);
    g->comm = g->s->comm[me->rank];
    g->forward = open_forward(g->s->env[me->rank], why);
    ck_assert_msg(g->forward != NULL, "%s", why);
    CUDA(cudaStreamCreateWithFlags(&g->stream, cudaStreamNonBlocking));
    for (int i = 0; i < 2; i++) {
        void *at;
        CUDA(cudaMalloc(&at, ROOM * 4));
        g->device[i] = at;
        g->host[i] = malloc(ROOM * 4);
    }
    g->got = malloc(ROOM * 4);
    g->s->gear[me->rank] = g;
    meet(g);
}

void close_gear(gear *g) {
    CUDA(cudaStreamSynchronize(g->stream));
    meet(g);
    if (g->comm) ck_assert_int_eq(cinch_forward_destroy(g->forward, g->comm), cinchSuccess);
    cinch_forward_close(g->forward);
    for (int i = 0; i < 2; i++) {
        CUDA(cudaFree(g->device[i]));
        free(g->host[i]);
    }
    free(g->got);
    CUDA(cudaStreamDestroy(g->stream));
}

void make_data(void *to, cinchDataType_t dtype, size_t count, uint64_t seed) {
    uint64_t state = seed;
    for (size_t i = 0; i < count; i++) {
        uint64_t dice = random64(&state);
        float f = (float)(int32_t)dice * 0x1p-31f * (dice >> 60 ? 1.0f : 40.0f);
        cinch_narrow((char *)to + i * cinch_dtype_size(dtype), dtype, &f, 1);
    }
}

cinchResult_t forward_it(gear *g, const spec *c, cudaStream_t stream) {
    size_t at = c->offset * cinch_dtype_size(c->dtype);
    bool ours;
    return cinch_forward_allreduce(g->forward, g->device[c->in_place] + at, g->device[1] + at,
                                   c->count, c->dtype, c->op, g->comm, stream, &ours);
}

void give(gear *g, const spec *c) {
    size_t at = c->offset * cinch_dtype_size(c->dtype),
           bytes = c->count * cinch_dtype_size(c->dtype);
    make_data(g->host[c->in_place] + at, c->dtype, c->count, c->seed * 16 + (uint64_t)g->me->rank);
    CUDA(cudaMemcpy(g->device[c->in_place] + at, g->host[c->in_place] + at, bytes,
                    cudaMemcpyDefault));
}

void take(gear *g, const spec *c) {
    size_t at = c->offset * cinch_dtype_size(c->dtype),
           bytes = c->count * cinch_dtype_size(c->dtype);
    CUDA(cudaStreamSynchronize(g->stream));
    CUDA(cudaMemcpy(g->got, g->device[1] + at, bytes, cudaMemcpyDefault));
}

/* The same all-reduce on host memory gives the same bits. */
bool same_as_host(gear *g, const spec *c) {
    size_t at = c->offset * cinch_dtype_size(c->dtype),
           bytes = c->count * cinch_dtype_size(c->dtype);
    give(g, c);
    cinchResult_t result = forward_it(g, c, g->stream);
    if (result != cinchSuccess ||
        cinchAllReduce(g->host[c->in_place] + at, g->host[1] + at, c->count, c->dtype, c->op,
                       g->me->comm, NULL) != cinchSuccess) {
        rank_note(g->me, __FILE__, __LINE__, "the calls succeed", " %d", (int)result);
        return false;
    }
    take(g, c);
    size_t i = 0;
    while (i < bytes && g->got[i] == g->host[1][at + i]) i++;
    if (i == bytes) return true;
    rank_note(g->me, __FILE__, __LINE__, "the bits are those on the host",
              " dtype %d op %d count %zu in place %d: byte %zu", (int)c->dtype, (int)c->op,
              c->count, c->in_place, i);
    return false;
}

uint64_t compressed(const gear *g) {
    cinch_forward_stats stats = {0};
    cinch_forward_look(g->forward, g->comm, &stats);
    return stats.compressed;
}

/* The call has gone on to NCCL as it was. */
void exact(gear *g, const spec *c) {
    size_t bytes = c->count * cinch_dtype_size(c->dtype);
    uint64_t before = moving_look(g->comm).allreduces;
    memset(g->host[0], g->me->rank + 1, bytes);
    CUDA(cudaMemcpy(g->device[0], g->host[0], bytes, cudaMemcpyDefault));
    CHECK_OK(g->me, forward_it(g, c, g->stream));
    CUDA(cudaStreamSynchronize(g->stream));
    CHECK(g->me, moving_look(g->comm).allreduces == before + 1, "dtype %d op %d count %zu",
          (int)c->dtype, (int)c->op, c->count);
}

void alone_on_host(seat *me) {
    gear g;
    open_gear(me, &g);
    const spec c = {.dtype = cinchFloat32, .count = 5000};
    for (int i = 0; i < 3; i++) exact(&g, &c);
    close_gear(&g);
}

/* One host, with a codec inside it: as the host's own library has it. */
void run_case(int nranks, const char *env, void (*body)(seat *me), uint64_t seed,
              const char *const *own, const char *logs) {
    static stand s;
    memset(&s, 0, sizeof s);
    s.seed = seed;
    for (int r = 0; own && r < nranks; r++) s.env[r] = own[r];
    cuda_fake_devices(GPUS);
    cuda_fake_seed(seed);
    ranks_run(
        &(ranks_case){.nranks = nranks, .env = env, .body = body, .shared = &s, .logs = logs});
    ck_assert_int_eq(moving_held(), 0);
    ck_assert_int_eq(cuda_fake_held(), 0);
}

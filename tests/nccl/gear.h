/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks of forward mode with a codec, each on an emulated GPU, beside the same ranks on host
 * memory: what the tests of coll/nccl/forward.h share. */
#ifndef CINCH_TESTS_NCCL_GEAR_H_
#define CINCH_TESTS_NCCL_GEAR_H_

#include "tests/cuda/runtime/fake.h"
#include "tests/harness.h"
#include "tests/nccl/moving.h"

enum { RANKS = 6, GPUS = 4, ROOM = 200000, POINTS = 64 };

/* What the ranks of a case share. */
typedef struct stand {
    cinchComm_t comm[RANKS];
    const char *env[RANKS]; /* a rank's own settings, on top of the case's; or NULL */
    meeting_point point[POINTS];
    uint64_t seed;
    struct gear *gear[RANKS];
    float result[ROOM];
} stand;

/* What a rank has. */
typedef struct gear {
    seat *me;
    stand *s;
    cinch_forward *forward;
    cinchComm_t comm;
    cudaStream_t stream;
    char *device[2], *host[2], *got; /* send and receive buffers */
    int points;
} gear;

#define CUDA(call) ck_assert_int_eq((int)(call), cudaSuccess)

void open_gear(seat *me, gear *g);
void close_gear(gear *g); /* ends the communicator, where that is not NULL */
void meet(gear *g);       /* all ranks of the case */

typedef struct spec {
    cinchDataType_t dtype;
    cinchRedOp_t op;
    size_t count, offset; /* offset: elements by which buffers are moved */
    bool in_place;
    uint64_t seed;
} spec;

/* Elements that do not repeat, of both signs, some forty times as large as most. */
void make_data(void *to, cinchDataType_t dtype, size_t count, uint64_t seed);

/* Fills the input, on the host and on the GPU; calls; brings the result to g->got. */
void give(gear *g, const spec *c);
cinchResult_t forward_it(gear *g, const spec *c, cudaStream_t stream);
void take(gear *g, const spec *c);

/* All that: the same all-reduce on host memory gives the same bits. */
bool same_as_host(gear *g, const spec *c);

/* How many all-reduces were compressed. */
uint64_t compressed(const gear *g);

/* The call goes on to NCCL as it is. */
void exact(gear *g, const spec *c);
void alone_on_host(seat *me); /* a body: all of them do */

/* Runs body on as many ranks, with settings for all (env) and some ranks' own. logs as in
 * ranks_case. Nothing is left over. */
void run_case(int nranks, const char *env, void (*body)(seat *me), uint64_t seed,
              const char *const *own, const char *logs);

/* Settings by which host memory is compressed as GPUs' is. */
#define HOST_TOO(codec) "CINCH_CODEC_INTRA=" codec " CINCH_CODEC_MIN_BYTES=1 CINCH_CHUNK=32K"
#define SHORT(codec) HOST_TOO(codec) " CINCH_CHUNK=8K"

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Streams with jobs on them. */
#include "tests/cuda/lanes.h"

enum { LANES = 9 };

typedef struct step {
    cinch_job job;
    lane *lane;
    int at;
    cinchResult_t result;
} step;

/* Looks at what the stream wrote before and writes what it takes on. */
static cinchResult_t take_step(cinch_job *job) {
    step s = *(step *)(void *)job;
    free(job);
    if (s.lane->ran++ != s.at) s.lane->wrong++;
    if (s.lane->word[s.at] != (uint32_t)s.at * 0x01010101u) s.lane->wrong++;
    if (s.at % 3 == 0) sleep_ms(0);
    s.lane->word[s.at] = 1000 + (uint32_t)s.at;
    if (s.result == cinchSuccess) return cinchSuccess;
    return cinch_fail_quiet(s.result, "step %d is to fail", s.at);
}

cinch_job *lane_step(lane *l, int at, cinchResult_t result) {
    step *s = malloc(sizeof *s);
    ck_assert_ptr_nonnull(s);
    *s = (step){{NULL, take_step}, l, at, result};
    return &s->job;
}

void lane_open(lane *l, cinchStream_t stream) {
    *l = (lane){.stream = stream};
    CU(cudaMallocHost((void **)&l->word, (MARKS + 1) * sizeof *l->word));
    memset(l->word, 0xff, (MARKS + 1) * sizeof *l->word);
}

void lane_advance(lane *l) {
    int at = l->next++;
    const cinch_device_ops *cuda = cinch_device_of_stream(l->stream);
    ck_assert_ptr_eq(cuda, &cinch_device_cuda);
    CU(cudaMemsetAsync(&l->word[at], at, sizeof *l->word, l->stream));
    OK(cuda->enqueue(l->stream, lane_step(l, at, cinchSuccess)));
    CU(cudaMemcpyAsync(&l->word[MARKS], &l->word[at], sizeof *l->word, cudaMemcpyDefault,
                       l->stream));
}

void lane_close(lane *l) {
    OK(cinchStreamSynchronize(l->stream));
    ck_assert_int_eq(cinchStreamQuery(l->stream), cinchSuccess);
    ck_assert_int_eq(l->ran, l->next);
    ck_assert_int_eq(l->wrong, 0);
    ck_assert_uint_eq(l->word[MARKS], 1000 + (uint32_t)l->next - 1);
    CU(cudaFreeHost(l->word));
}

void lanes_run(uint64_t seed, int steps) {
    lane l[LANES];
    cinchStream_t stream[LANES] = {cudaStreamLegacy, cudaStreamPerThread};
    uint64_t state = seed;
    cuda_fake_seed(seed);
    for (int i = 0; i < LANES; i++) {
        if (i > 1)
            CU(cudaStreamCreateWithFlags(&stream[i],
                                         i % 2 ? cudaStreamDefault : cudaStreamNonBlocking));
        lane_open(&l[i], stream[i]);
    }
    for (int left = LANES * steps; left;) {
        lane *one = &l[random64(&state) % LANES];
        if (one->next == steps) continue;
        lane_advance(one);
        left--;
    }
    for (int i = 0; i < LANES; i++) lane_close(&l[i]);
    for (int i = 2; i < LANES; i++) CU(cudaStreamDestroy(stream[i]));
}

uint32_t *gate_close(cinchStream_t stream) {
    uint32_t *gate;
    CU(cudaMallocHost((void **)&gate, sizeof *gate));
    *gate = 0;
    ck_assert_int_eq(cuda_fake_wait_value(stream, (CUdeviceptr)(uintptr_t)gate, 1, 0), 0);
    return gate;
}

void gate_open(uint32_t *gate) {
    __atomic_store_n(gate, 1, __ATOMIC_RELEASE);
}

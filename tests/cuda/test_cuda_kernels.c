/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels as work of streams: the whole emulated GPU, through base/device.h and compress/gpu.h. */
#include <check.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/device.h"
#include "compress/gpu.h"
#include "tests/cuda/runtime/fake.h"

#define OK(call) ck_assert_msg((call) == cinchSuccess, "%s: %s", #call, cinch_last_error())

enum { COUNT = 700, STREAMS = 5, ROUNDS = 40 };

/* What is sent from stream to stream arrives, whatever the order of all else. */
START_TEST(kernels_run_in_the_order_of_streams_and_events) {
    const cinch_device_work *work = cinch_device_cuda.work;
    const cinch_gpu *gpu = cinch_gpu_kernels();
    int32_t *in, *out, *on_device[STREAMS];
    cinchStream_t stream[STREAMS];
    cinch_event *event[STREAMS];
    ck_assert_ptr_nonnull(gpu);
    for (uint64_t seed = 0; seed < ROUNDS; seed++) {
        cuda_fake_seed(seed);
        OK(work->alloc_pinned(0, COUNT * sizeof *in, (void **)&in));
        OK(work->alloc_pinned(0, COUNT * sizeof *out, (void **)&out));
        for (int i = 0; i < COUNT; i++) in[i] = i + (int)seed;
        for (int s = 0; s < STREAMS; s++) {
            OK(work->alloc(0, COUNT * sizeof *in, (void **)&on_device[s]));
            OK(work->stream_open(0, &stream[s]));
            OK(work->event_open(0, &event[s]));
        }
        OK(work->copy(0, stream[0], on_device[0], in, COUNT * sizeof *in));
        for (int s = 0; s < STREAMS; s++) { /* each the double of the one before */
            const cinch_gpu_where where = {.stream = stream[s], .blocks = 3};
            const void *src[] = {on_device[s ? s - 1 : 0], on_device[s ? s - 1 : 0]};
            void *dst[] = {on_device[s]};
            if (s) OK(work->wait(stream[s], event[s - 1]));
            OK(gpu->reduce(&where, cinchInt32, cinchSum, dst, 1, src, 2, COUNT, 0));
            OK(work->record(event[s], stream[s]));
        }
        OK(work->copy(0, stream[STREAMS - 1], out, on_device[STREAMS - 1], COUNT * sizeof *in));
        OK(work->record(event[0], stream[STREAMS - 1]));
        cinchResult_t passed;
        while ((passed = work->passed(event[0])) == cinchInProgress) {
        }
        OK(passed);
        for (int i = 0; i < COUNT; i++) ck_assert_int_eq(out[i], (i + (int)seed) << STREAMS);
        for (int s = 0; s < STREAMS; s++) {
            work->release(0, on_device[s]);
            work->stream_close(0, stream[s]);
            work->event_close(event[s]);
        }
        work->release_pinned(0, in);
        work->release_pinned(0, out);
        ck_assert_int_eq(cuda_fake_held(), 0);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cuda_kernels");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 30);
    tcase_add_test(tcase, kernels_run_in_the_order_of_streams_and_events);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

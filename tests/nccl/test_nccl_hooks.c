/* SPDX-License-Identifier: Apache-2.0 */
/* The entries that forward mode takes for itself, as the drop-in calls them: a program's calls come
 * by us, those that the real library makes of itself while we call it do not. */
#include <check.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "coll/nccl/hooks.h"
#include "tests/cuda/runtime/fake.h"
#include "tests/nccl/moving.h"

static const char *missing; /* a function that the library lacks */
static int told;            /* failures that were said to be ours */
void cinch_nccl_ours(void) {
    told++;
}

/* A library that calls its own function by its name, which is ours. */
static cinchResult_t calls_itself(const void *send, void *recv, size_t count, cinchDataType_t dtype,
                                  cinchRedOp_t op, cinchComm_t comm, cinchStream_t stream) {
    __typeof__(cinchAllReduce) *again = NULL;
    static bool deep;
    if (deep) return moving_nccl.AllReduce(send, recv, count, dtype, op, comm, stream);
    cinch_nccl_function entry = cinch_nccl_hook("ncclAllReduce");
    memcpy(&again, &entry, sizeof again);
    deep = true;
    cinchResult_t result = again(send, recv, count, dtype, op, comm, stream);
    deep = false;
    return result;
}

static void *find(void *handle, const char *name) {
    void *found = NULL;
    ck_assert_ptr_eq(handle, &missing);
    if (missing && strcmp(name, missing) == 0) return NULL;
#define X(word)                                                                                    \
    if (strcmp(name, "nccl" #word) == 0) memcpy(&found, &moving_nccl.word, sizeof found);
    CINCH_REAL_NEEDED(X)
    CINCH_REAL_OPTIONAL(X)
#undef X
    __typeof__(cinchAllReduce) *other = calls_itself;
    if (strcmp(name, "ncclAllReduce") == 0) memcpy(&found, &other, sizeof found);
    return found;
}

/* Both with that library in place of a loaded one. */
#define dlsym find
#include "coll/nccl/hooks.c" /* NOLINT */
#include "coll/nccl/real.c"  /* NOLINT: a test of what is static there */
#undef dlsym

static bool open_with(const char *variable, const char *value, cinchResult_t *result,
                      char why[CINCH_ERROR_TEXT]) {
    cinch_settings settings;
    setenv(variable, value, 1);
    ck_assert(cinch_settings_load(&settings, why));
    unsetenv(variable);
    bool opened = cinch_nccl_hooks_open(&settings, &missing, result, why);
    cinch_settings_free(&settings);
    return opened;
}

START_TEST(only_with_a_codec) {
    cinchResult_t result;
    char why[CINCH_ERROR_TEXT];
    ck_assert(!open_with("CINCH_CODEC", "none", &result, why));
    ck_assert_int_eq(result, cinchSuccess);
    ck_assert_ptr_null(cinch_nccl_hook("ncclAllReduce"));
    ck_assert(!open_with("CINCH_CODEC", "auto", &result, why));
    ck_assert_ptr_nonnull(strstr(why, "measured times"));
    missing = "ncclSend";
    ck_assert(!open_with("CINCH_CODEC", "int8", &result, why));
    ck_assert_int_eq(result, cinchSuccess);
    ck_assert_ptr_nonnull(strstr(why, "has no ncclSend"));
    missing = NULL;
    ck_assert(!open_with("CINCH_CODEC", "int9", &result, why));
    ck_assert_int_eq(result, cinchInvalidUsage);
    ck_assert_ptr_nonnull(strstr(why, "CINCH_CODEC=int9"));
}
END_TEST

START_TEST(calls_come_by_us) {
    static const char *const names[] = {"ncclAllReduce",        "ncclGroupStart",  "ncclGroupEnd",
                                        "ncclGroupSimulateEnd", "ncclCommDestroy", "ncclCommAbort",
                                        "ncclCommGetAsyncError"};
    cinchResult_t result, state = cinchInternalError;
    char why[CINCH_ERROR_TEXT];
    cinchComm_t comms[2];
    cinch_forward_stats stats;
    void *memory;
    ck_assert(open_with("CINCH_CODEC", "int8", &result, why));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ck_assert_ptr_nonnull(cinch_nccl_hook(names[i]));
    ck_assert_ptr_null(cinch_nccl_hook("ncclBroadcast"));
    ck_assert_int_eq(cudaMalloc(&memory, 4000), cudaSuccess);
    moving_init(comms, 1, NULL);
    ck_assert_int_eq(
        all_reduce(memory, memory, 1000, cinchFloat32, cinchSum, comms[0], cudaStreamPerThread),
        cinchSuccess);
    ck_assert(cinch_forward_look(forward, comms[0], &stats));
    ck_assert_int_eq((int)stats.calls, 1); /* not what came back from the library */
    ck_assert_int_eq(comm_async_error(comms[0], &state), cinchSuccess);
    ck_assert_int_eq(state, cinchSuccess);
    ck_assert_int_eq(comm_destroy(comms[0]), cinchSuccess);
    ck_assert_int_eq(group_start(), cinchSuccess);
    ck_assert_int_eq(group_end(), cinchSuccess);

    moving_init(comms, 2, NULL); /* what fails before it has begun is not NCCL's */
    cuda_fake_fail(1, cudaErrorMemoryAllocation);
    ck_assert_int_eq(
        all_reduce(memory, memory, 1000, cinchFloat32, cinchSum, comms[0], cudaStreamPerThread),
        cinchUnhandledCudaError);
    cuda_fake_fail(0, cudaSuccess);
    ck_assert_int_eq(told, 1);
    ck_assert_int_eq((int)moving_look(comms[0]).allreduces, 0);
    ck_assert_ptr_null(cinch_nccl_hooks_why(comms[0])); /* it may be tried again */
    cuda_fake_fail(3, cudaErrorMemoryAllocation);       /* when it has begun */
    ck_assert_int_eq(
        all_reduce(memory, memory, 1000, cinchFloat32, cinchSum, comms[0], cudaStreamPerThread),
        cinchUnhandledCudaError);
    cuda_fake_fail(0, cudaSuccess);
    ck_assert_int_eq(told, 2);
    ck_assert_ptr_nonnull(cinch_nccl_hooks_why(comms[0]));
    ck_assert_int_eq(comm_async_error(comms[0], &state), cinchSuccess);
    ck_assert_int_eq(state, cinchUnhandledCudaError);
    for (int i = 0; i < 2; i++) ck_assert_int_eq(comm_abort(comms[i]), cinchSuccess);
    cinch_forward_close(forward);
    forward = NULL;
    ck_assert_int_eq(cudaFree(memory), cudaSuccess);
    ck_assert_int_eq(moving_held(), 0);
    ck_assert_int_eq(cuda_fake_held(), 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("nccl_hooks");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 30);
    tcase_add_test(tcase, only_with_a_codec);
    tcase_add_test(tcase, calls_come_by_us);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Registrations, windows, the device of a communicator, log settings that are read again; ids that
 * nobody uses. */
#include <sys/resource.h>

#include "base/log.h"
#include "tests/family.h"
#include "transports/rendezvous.h"

static void quiet(void) {
    clean_environment();
    setenv("CINCH_DEBUG", "none", 1);
    cinch_log_setup(CINCH_LOG_NONE, NULL);
}

START_TEST(arguments_of_registrations) {
    quiet();
    cinchComm_t comm, other;
    char data[100];
    void *handle = data, *second = NULL;
    OK(cinchCommInitAll(&comm, 1, NULL));
    OK(cinchCommInitAll(&other, 1, NULL));
    FAILS(cinchCommRegister(NULL, data, 1, &handle), cinchInvalidArgument, NULL, "comm is NULL");
    FAILS(cinchCommRegister(comm, NULL, 1, &handle), cinchInvalidArgument, NULL, "buff is NULL");
    FAILS(cinchCommRegister(comm, data, 0, &handle), cinchInvalidArgument, NULL, "size is 0");
    FAILS(cinchCommRegister(comm, data, 1, NULL), cinchInvalidArgument, NULL, "handle is NULL");
    OK(cinchCommRegister(comm, data, 100, &handle));
    OK(cinchCommRegister(comm, data, 100, &second)); /* the same again is another one */
    ck_assert_ptr_ne(handle, second);
    FAILS(cinchCommDeregister(NULL, handle), cinchInvalidArgument, NULL, "comm is NULL");
    FAILS(cinchCommDeregister(other, handle), cinchInvalidArgument, NULL, "is none that");
    FAILS(cinchCommDeregister(comm, data), cinchInvalidArgument, NULL, "is none that");
    FAILS(cinchCommDeregister(comm, NULL), cinchInvalidArgument, NULL, "is none that");
    OK(cinchCommDeregister(comm, handle));
    FAILS(cinchCommDeregister(comm, handle), cinchInvalidArgument, NULL, "is none that");
    OK(cinchCommDestroy(comm)); /* with the second one */
    OK(cinchCommDestroy(other));
}
END_TEST

START_TEST(arguments_of_windows) {
    quiet();
    cinchComm_t comm, other;
    cinchWindow_t win = NULL, second = NULL;
    static char data[3 * 4096];
    char *page = data + 4096 - (uintptr_t)data % 4096;
    OK(cinchCommInitAll(&comm, 1, NULL));
    OK(cinchCommInitAll(&other, 1, NULL));
    FAILS(cinchCommWindowRegister(NULL, page, 1, &win, 0), cinchInvalidArgument, NULL,
          "comm is NULL");
    FAILS(cinchCommWindowRegister(comm, NULL, 1, &win, 0), cinchInvalidArgument, NULL,
          "buff is NULL");
    FAILS(cinchCommWindowRegister(comm, page, 0, &win, 0), cinchInvalidArgument, NULL, "size is 0");
    FAILS(cinchCommWindowRegister(comm, page, 1, NULL, 0), cinchInvalidArgument, NULL,
          "win is NULL");
    FAILS(cinchCommWindowRegister(comm, page, 1, &win, 2), cinchInvalidArgument, NULL,
          "winFlags 2");
    FAILS(cinchCommWindowRegister(comm, page + 64, 1, &win, 0), cinchInvalidArgument, NULL,
          "not aligned to CINCH_WIN_REQUIRED_ALIGNMENT, 4096 bytes");
    ck_assert_ptr_null(win);
    OK(cinchCommWindowRegister(comm, page, 4096, &win, CINCH_WIN_DEFAULT));
    OK(cinchCommWindowRegister(comm, page, 4096, &second, CINCH_WIN_COLL_SYMMETRIC));
    ck_assert(win && second && win != second);
    FAILS(cinchCommWindowDeregister(other, win), cinchInvalidArgument, NULL, "is none that");
    FAILS(cinchCommWindowDeregister(comm, NULL), cinchInvalidArgument, NULL, "is none that");
    FAILS(cinchCommWindowDeregister(comm, (cinchWindow_t)(void *)page), cinchInvalidArgument, NULL,
          "is none that");
    OK(cinchCommWindowDeregister(comm, win));
    FAILS(cinchCommWindowDeregister(comm, win), cinchInvalidArgument, NULL, "is none that");
    OK(cinchCommDestroy(comm));
    OK(cinchCommDestroy(other));
}
END_TEST

START_TEST(there_is_no_device) {
    quiet();
    cinchComm_t comm;
    int device = 7;
    OK(cinchCommInitAll(&comm, 1, NULL));
    FAILS(cinchCommCuDevice(NULL, &device), cinchInvalidArgument, NULL, "comm is NULL");
    FAILS(cinchCommCuDevice(comm, NULL), cinchInvalidArgument, NULL, "device is NULL");
    FAILS(cinchCommCuDevice(comm, &device), cinchInvalidUsage, NULL, "no CUDA device");
    ck_assert_int_eq(device, 7);
    OK(cinchCommDestroy(comm));
}
END_TEST

/* ---- error feedback follows the registration ---- */

enum { MANY = 4096 };

static uint64_t residuals(cinchComm_t comm) {
    cinchStats_t stats = {.size = sizeof stats};
    return cinchCommGetStats(comm, &stats) == cinchSuccess ? stats.ef_bytes : 0;
}

/* Two buffers in turn, under the same order of registration: one residual. A tag with that number
 * is something else, and counts before a registration. */
static void registered(seat *me) {
    static _Thread_local float buffer[2][MANY], out[MANY];
    void *handle;
    for (int b = 0; b < 2; b++)
        for (int i = 0; i < MANY; i++) buffer[b][i] = (float)(i + me->rank) / 3;
    CHECK_OK(me, cinchAllReduce(buffer[0], out, MANY, cinchFloat, cinchSum, me->comm, NULL));
    uint64_t one = residuals(me->comm);
    CHECK(me, one > 0);
    CHECK_OK(me, cinchCommRegister(me->comm, buffer[0], sizeof buffer[0], &handle)); /* 0 */
    for (int i = 0; i < 3; i++)
        CHECK_OK(me, cinchAllReduce(buffer[0], out, MANY, cinchFloat, cinchSum, me->comm, NULL));
    CHECK(me, residuals(me->comm) == 2 * one);
    CHECK_OK(me, cinchCommTag(me->comm, buffer[1], sizeof buffer[1], 0));
    CHECK_OK(me, cinchAllReduce(buffer[1], out, MANY, cinchFloat, cinchSum, me->comm, NULL));
    CHECK(me, residuals(me->comm) == 3 * one);
    CHECK_OK(me, cinchCommTag(me->comm, buffer[0], sizeof buffer[0], 0)); /* and buffer[1]'s */
    CHECK_OK(me, cinchAllReduce(buffer[0], out, MANY, cinchFloat, cinchSum, me->comm, NULL));
    CHECK(me, residuals(me->comm) == 3 * one);
    CHECK_OK(me, cinchCommTag(me->comm, buffer[0], 0, 0));
    CHECK_OK(me, cinchAllReduce(buffer[0], out, MANY, cinchFloat, cinchSum, me->comm, NULL));
    CHECK(me, residuals(me->comm) == 3 * one);
    CHECK_OK(me, cinchCommDeregister(me->comm, handle));
    CHECK_OK(me, cinchCommRegister(me->comm, buffer[0], sizeof buffer[0], &handle)); /* 1 */
    CHECK_OK(me, cinchAllReduce(buffer[0], out, MANY, cinchFloat, cinchSum, me->comm, NULL));
    CHECK(me, residuals(me->comm) == 4 * one);
}

START_TEST(residuals_follow_registrations) {
    ranks_run(&(ranks_case){.nranks = 2,
                            .env = "CINCH_CODEC_INTRA=int8:ef=1 CINCH_CODEC_MIN_BYTES=0",
                            .body = registered});
}
END_TEST

/* ---- the rest ---- */

START_TEST(log_settings_are_read_again) {
    clean_environment();
    setenv("CINCH_DEBUG", "none", 1);
    cinchResetDebugInit();
    ck_assert_int_eq(cinch_log_threshold, CINCH_LOG_NONE);
    setenv("CINCH_DEBUG", "info", 1);
    cinchResetDebugInit();
    ck_assert_int_eq(cinch_log_threshold, CINCH_LOG_INFO);
    setenv("CINCH_DEBUG", "none", 1);
    setenv("CINCH_CHECKSUM", "perhaps", 1); /* this has nothing to do with it */
    cinchResetDebugInit();
    ck_assert_int_eq(cinch_log_threshold, CINCH_LOG_NONE);
}
END_TEST

/* A thousand ids of which one is used: where descriptors run out the call says so, and ids that
 * were made serve as ever. */
START_TEST(many_ids_and_one_communicator) {
    quiet();
    struct rlimit limit;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 1024 < limit.rlim_max ? 1024 : limit.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    static cinchUniqueId id[1000];
    cinchComm_t comm;
    char why[200];
    int made = 0;
    OK(cinchCommInitAll(&comm, 1, NULL));
    OK(cinchCommDestroy(comm));
    holdings before = hold_now();
    while (made < 1000 && cinchGetUniqueId(&id[made]) == cinchSuccess) made++;
    if (made < 1000) ck_assert(strstr(cinchGetLastError(NULL), "Too many open files"));
    ck_assert_int_ge(made, 100);
    for (int i = 0; i < made; i += made / 7) { /* each lets go of the ids up to the next */
        int next = i + made / 7 < made ? i + made / 7 : made;
        for (int j = i + 1; j < next; j++) cinch_rendezvous_forget(&id[j]);
        OK(cinchCommInitRank(&comm, 1, id[i], 0));
        OK(cinchCommDestroy(comm));
    }
    ck_assert_msg(holdings_settle(&before, false, why, sizeof why), "%s", why);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {arguments_of_registrations,  arguments_of_windows,
                                  there_is_no_device,          residuals_follow_registrations,
                                  log_settings_are_read_again, many_ids_and_one_communicator};
    return run_tests("register", tests, sizeof tests / sizeof *tests, 60);
}

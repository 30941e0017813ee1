/* SPDX-License-Identifier: Apache-2.0 */
/* The ground floor: settings, the heap that peers map, arenas, log lines and error sentences. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/heap.h"
#include "base/log.h"
#include "base/settings.h"
#include "tests/harness.h"

/* ---- settings ---- */

START_TEST(sizes) {
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},
                {"1", 1},
                {"64K", 65536},
                {"64k", 65536},
                {"3M", 3 << 20},
                {"2G", 2ull << 30},
                {"1t", 1ull << 40},
                {"18446744073709551615", UINT64_MAX},
                {"16777215T", 16777215ull << 40}};
    static const char *const bad[] = {"",
                                      "K",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1KB",
                                      "1.5M",
                                      "0x10",
                                      "1Ki",
                                      "16777216T",
                                      "1e3",
                                      "18446744073709551616"};
    uint64_t bytes;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        ck_assert_msg(cinch_parse_size(good[i].text, &bytes), "%s", good[i].text);
        ck_assert_msg(bytes == good[i].bytes, "%s is %llu", good[i].text,
                      (unsigned long long)bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(!cinch_parse_size(bad[i], &bytes), "\"%s\"", bad[i]);
    int64_t value;
    ck_assert(cinch_parse_count("9223372036854775807", &value) && value == INT64_MAX);
    ck_assert(!cinch_parse_count("9223372036854775808", &value));
    ck_assert(!cinch_parse_count("-1", &value) && !cinch_parse_count("1K", &value));
}
END_TEST

static cinch_settings load(bool good, char *why) {
    cinch_settings s;
    bool result = cinch_settings_load(&s, why);
    ck_assert_msg(result == good, "%s", why);
    return s;
}

START_TEST(loading) {
    char why[CINCH_ERROR_TEXT] = "";
    clean_environment();
    cinch_settings s = load(true, why);
    ck_assert_str_eq(s.codec, "none");
    ck_assert_uint_eq(s.codec_min_bytes, 1 << 20);
    ck_assert_int_eq(s.timeout_ms, 1800000);
    ck_assert_int_eq(s.rank, -1);
    ck_assert(!s.checksum && s.nonfinite == 0);
    ck_assert_str_eq(s.source[CINCH_SET_codec], "default");
    cinch_settings_free(&s);

    set_environment("CINCH_CODEC_MIN_BYTES=2K CINCH_CHECKSUM=1 CINCH_NONFINITE=Error CINCH_RANK=7 "
                    "CINCH_TRANSPORT= CINCH_CHUNK=");
    s = load(true, why);
    ck_assert_uint_eq(s.codec_min_bytes, 2048);
    ck_assert(s.checksum && s.nonfinite == 1 && s.rank == 7 && s.chunk == 0);
    ck_assert_str_eq(s.transport, ""); /* an empty text is a text; an empty number is the default */
    ck_assert_str_eq(s.source[CINCH_SET_codec_min_bytes], "environment");
    ck_assert_str_eq(s.value[CINCH_SET_codec_min_bytes], "2K");
    cinch_settings_free(&s);

    clean_environment(); /* the first wrong one is named; it and the others have usable values */
    set_environment("CINCH_CHUNK=big CINCH_CHECKSUM=2");
    s = load(false, why);
    ck_assert_str_eq(why, "CINCH_CHUNK=big: a size such as 65536, 64K, 16M or 1G is accepted");
    ck_assert(s.chunk == 0 && !s.checksum);
    cinch_settings_free(&s);
    cinch_settings_free(&s); /* twice is fine */
    clean_environment();
}
END_TEST

START_TEST(twins) {
    char why[CINCH_ERROR_TEXT] = "";
    clean_environment();
    setenv("NCCL_SOCKET_IFNAME", "eth7", 1);
    setenv("NCCL_SOCKET_FAMILY", "AF_INET6", 1);
    setenv("NCCL_COMM_ID", "host:1", 1);
    setenv("NCCL_DEBUG", "VERSION", 1);
    cinch_settings s = load(true, why);
    ck_assert_str_eq(s.socket_ifname, "eth7");
    ck_assert_str_eq(s.comm_id, "host:1");
    ck_assert_int_eq(s.socket_family, 2);
    ck_assert_int_eq(s.debug, CINCH_LOG_WARN);
    ck_assert_str_eq(s.source[CINCH_SET_socket_ifname], "NCCL_SOCKET_IFNAME");
    cinch_settings_free(&s);
    set_environment("CINCH_SOCKET_IFNAME=lo CINCH_SOCKET_FAMILY=AF_INET CINCH_DEBUG=error");
    s = load(true, why);
    ck_assert_str_eq(s.socket_ifname, "lo");
    ck_assert_int_eq(s.socket_family, 1);
    ck_assert_int_eq(s.debug, CINCH_LOG_ERROR);
    cinch_settings_free(&s);
    static const char *const names[] = {"NCCL_SOCKET_IFNAME", "NCCL_SOCKET_FAMILY", "NCCL_COMM_ID",
                                        "NCCL_DEBUG"};
    for (int i = 0; i < 4; i++) unsetenv(names[i]);
    clean_environment();
}
END_TEST

static char *agreed(const char *env) {
    char why[CINCH_ERROR_TEXT];
    clean_environment();
    set_environment(env);
    cinch_settings s = load(true, why);
    size_t need = cinch_settings_agreed(&s, NULL, 0);
    char *text = malloc(need), tight[8] = "1234567";
    ck_assert_uint_eq(cinch_settings_agreed(&s, text, need), need);
    ck_assert_uint_eq(strlen(text) + 1, need);
    ck_assert_uint_eq(cinch_settings_agreed(&s, tight, 4), need);
    ck_assert(strlen(tight) < 4 && tight[4] == '5'); /* no further than the room */
    cinch_settings_free(&s);
    clean_environment();
    return text;
}

START_TEST(agreeing) {
    static const char *const envs[] = {"CINCH_CODEC=int8",
                                       "CINCH_CODEC=",
                                       "CINCH_STATS_FILE=/x",
                                       "CINCH_CODEC_MIN_BYTES=1024K",
                                       "CINCH_CODEC_MIN_BYTES=1025K",
                                       "CINCH_NONFINITE=PROPAGATE",
                                       "CINCH_SIZE=4"};
    static const bool same[] = {false, false, true, true, false, true, false};
    char *plain = agreed(NULL), why[CINCH_ERROR_TEXT];
    for (int i = 0; i < 7; i++) {
        char *other = agreed(envs[i]);
        ck_assert_msg(cinch_settings_compare(plain, 0, other, 3, why) == same[i], "%s: %s", envs[i],
                      why);
        ck_assert_msg(cinch_settings_compare(other, 3, plain, 0, why) == same[i], "%s", envs[i]);
        if (i == 0) ck_assert_msg(strstr(why, "CINCH_CODEC=int8 on rank 3") != NULL, "%s", why);
        free(other);
    }
    /* What a peer sends may be anything. */
    ck_assert(!cinch_settings_compare(plain, 0, "", 1, why));
    ck_assert(!cinch_settings_compare("", 0, plain, 1, why));
    ck_assert(!cinch_settings_compare(plain, 0, "\n\n=\n====\n", 1, why));
    ck_assert(cinch_settings_compare("", 0, "", 1, why));
    free(plain);
}
END_TEST

/* ---- heap ---- */

START_TEST(heap_pieces) {
    enum { MANY = 60 };
    unsigned char *piece[MANY] = {0};
    size_t bytes[MANY] = {0};
    uint64_t state = 4;
    for (int round = 0; round < 3000; round++) {
        uint64_t dice = random64(&state);
        int i = (int)(dice % MANY);
        if (piece[i]) {
            ck_assert(piece[i][0] == (unsigned char)i &&
                      piece[i][bytes[i] - 1] == (unsigned char)i);
            ck_assert_int_eq(cinch_heap_release(piece[i]), cinchSuccess);
            piece[i] = NULL;
            continue;
        }
        void *p;
        bytes[i] = 1 + (dice >> 8) % 20000;
        ck_assert_int_eq(cinch_heap_alloc(&p, bytes[i]), cinchSuccess);
        piece[i] = p;
        ck_assert_uint_eq((uintptr_t)p % 4096, 0);
        for (size_t j = 0; j < bytes[i]; j++)
            if (piece[i][j]) ck_abort_msg("byte %zu of %zu is not zero", j, bytes[i]);
        memset(piece[i], i, bytes[i]);
        for (int k = 0; k < MANY; k++) { /* nobody's neighbour */
            if (k == i || !piece[k]) continue;
            ck_assert(piece[k] + bytes[k] <= piece[i] || piece[i] + bytes[i] <= piece[k]);
        }
    }
    for (int i = 0; i < MANY; i++)
        if (piece[i]) cinch_heap_release(piece[i]);
}
END_TEST

START_TEST(heap_offsets_and_limits) {
    cinch_heap heap;
    void *p, *huge = NULL;
    size_t offset;
    clean_environment();
    cinch_log_setup(CINCH_LOG_NONE, NULL);
    ck_assert_int_eq(cinch_heap_get(&heap), cinchSuccess);
    ck_assert_int_eq(cinch_heap_alloc(&p, 10000), cinchSuccess);
    ck_assert(cinch_heap_offset(p, 10000, &offset) && heap.data + offset == p);
    ck_assert(cinch_heap_offset((char *)p + 5, 1, &offset) &&
              heap.data + offset == (unsigned char *)p + 5);
    ck_assert(!cinch_heap_offset(&heap, 1, &offset));
    ck_assert(!cinch_heap_offset(p, heap.bytes + 1, &offset));
    ck_assert(!cinch_heap_offset(p, SIZE_MAX, &offset));
    ck_assert(!cinch_heap_offset(heap.data - 1, 1, &offset));
    ck_assert(!cinch_heap_offset(heap.data + heap.bytes, 1, &offset));
    ck_assert_int_ne(cinch_heap_alloc(&huge, heap.bytes + 1), cinchSuccess);
    ck_assert_int_ne(cinch_heap_alloc(&huge, SIZE_MAX), cinchSuccess);
    ck_assert_int_eq(cinch_heap_release((char *)p + 4096), cinchInvalidArgument);
    memset(p, 1, 10000);
    ck_assert_int_eq(cinch_heap_release(p), cinchSuccess);
    struct stat info; /* what is freed costs no memory */
    ck_assert_int_eq(fstat(heap.fd, &info), 0);
    ck_assert_int_eq(info.st_blocks, 0);
    /* Nobody can make it shorter under those who map it. */
    ck_assert_int_ne(ftruncate(heap.fd, 0), 0);
}
END_TEST

/* A child has a heap of its own and leaves its parent's alone. */
START_TEST(heap_after_fork) {
    cinch_heap mine, theirs;
    void *p;
    ck_assert_int_eq(cinch_heap_alloc(&p, 4096), cinchSuccess);
    ck_assert_int_eq(cinch_heap_get(&mine), cinchSuccess);
    strcpy(p, "parent");
    pid_t pid = fork();
    if (pid == 0) {
        void *q;
        bool good = cinch_heap_alloc(&q, 4096) == cinchSuccess &&
                    cinch_heap_get(&theirs) == cinchSuccess && q != p && theirs.data != mine.data;
        if (good) strcpy(q, "child");
        _exit(good && strcmp(p, "parent") == 0 ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert_str_eq(p, "parent");
    ck_assert_int_eq(cinch_heap_release(p), cinchSuccess);
}
END_TEST

/* ---- arenas ---- */

START_TEST(arenas) {
    cinch_arena arena = {0};
    enum { MANY = 300 };
    unsigned char *at[MANY];
    size_t bytes[MANY];
    for (int i = 0; i < MANY; i++) {
        bytes[i] = (size_t)(i * 37 % 5000);
        at[i] = cinch_arena_take(&arena, bytes[i]);
        ck_assert_ptr_nonnull(at[i]);
        ck_assert_uint_eq((uintptr_t)at[i] % 64, 0);
        for (size_t j = 0; j < bytes[i]; j++)
            if (at[i][j]) ck_abort_msg("byte %zu of piece %d is not zero", j, i);
        memset(at[i], i, bytes[i]);
    }
    for (int i = 0; i < MANY; i++)
        for (size_t j = 0; j < bytes[i]; j++)
            if (at[i][j] != (unsigned char)i) ck_abort_msg("piece %d was overwritten", i);
    ck_assert_ptr_null(cinch_arena_take(&arena, SIZE_MAX));
    ck_assert_ptr_null(cinch_arena_take(&arena, SIZE_MAX - 63));
    ck_assert_ptr_nonnull(cinch_arena_take(&arena, 1 << 20));
    cinch_arena_free(&arena);
    cinch_arena_free(&arena);

    cinch_scratch scratch = {0};
    void *first = cinch_scratch_reserve(&scratch, 100);
    ck_assert_ptr_nonnull(first);
    ck_assert_uint_eq((uintptr_t)first % 4096, 0);
    ck_assert_ptr_eq(cinch_scratch_reserve(&scratch, 4096), first);
    ck_assert_ptr_nonnull(cinch_scratch_reserve(&scratch, 1 << 20));
    ck_assert_ptr_null(cinch_scratch_reserve(&scratch, SIZE_MAX));
    ck_assert_ptr_nonnull(cinch_scratch_reserve(&scratch, 1 << 20)); /* the old one stays */
    cinch_scratch_free(&scratch);
}
END_TEST

/* ---- log and sentences ---- */

static void *many_lines(void *arg) {
    cinch_log_rank(*(int *)arg);
    for (int i = 0; i < 200; i++)
        cinch_warn("line %d of a thread %s", i, "that is long enough to mix");
    return NULL;
}

START_TEST(log_lines) {
    char path[100], real[200];
    pthread_t thread[3];
    int rank[3] = {0, 1, 2}, whole = 0;
    snprintf(path, sizeof path, "/tmp/cinch-test-log-%%p-%d", (int)getpid());
    snprintf(real, sizeof real, "/tmp/cinch-test-log-%d-%d", (int)getpid(), (int)getpid());
    ck_assert_int_eq(cinch_log_setup(CINCH_LOG_WARN, path), 0);
    for (int i = 0; i < 3; i++) pthread_create(&thread[i], NULL, many_lines, &rank[i]);
    for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
    cinch_info("not at this level");
    char *longest = malloc(5000);
    memset(longest, 'z', 4999);
    longest[4999] = '\0';
    cinch_warn("%s", longest);
    FILE *file = fopen(real, "r");
    ck_assert_ptr_nonnull(file);
    static char line[8000];
    bool cut = false;
    while (fgets(line, sizeof line, file)) {
        ck_assert_ptr_null(strstr(line, "not at this level"));
        if (strstr(line, "zzz")) cut = line[strlen(line) - 1] == '\n';
        whole += strstr(line, " warning: line ") && strstr(line, "long enough to mix\n");
    }
    fclose(file);
    ck_assert_int_eq(whole, 600);
    ck_assert(cut);
    unlink(real);
    /* A file that cannot be opened: the lines go where they went. */
    ck_assert_int_eq(cinch_log_setup(CINCH_LOG_NONE, "/nonexistent/log"), ENOENT);
    free(longest);
}
END_TEST

static void *other_thread(void *arg) {
    (void)arg;
    return (void *)(uintptr_t)(cinch_last_error()[0] == '\0');
}

START_TEST(sentences) {
    cinch_log_setup(CINCH_LOG_NONE, NULL);
    ck_assert_int_eq(cinch_fail(cinchSystemError, "%s %d", "one", 2), cinchSystemError);
    ck_assert_str_eq(cinch_last_error(), "one 2");
    cinch_fail_quiet(cinchInternalError, "again: %s", cinch_last_error()); /* into itself */
    ck_assert_str_eq(cinch_last_error(), "again: one 2");
    ck_assert_int_eq(cinch_fail_errno(ENOENT, "cannot"), cinchSystemError);
    ck_assert_str_eq(cinch_last_error(), "cannot: No such file or directory");
    char longest[2000];
    memset(longest, 'y', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    cinch_fail_errno(ENOENT, "%s", longest);
    ck_assert_uint_eq(strlen(cinch_last_error()), CINCH_ERROR_TEXT - 1);
    pthread_t thread;
    void *empty;
    pthread_create(&thread, NULL, other_thread, NULL);
    pthread_join(thread, &empty);
    ck_assert_ptr_nonnull(empty); /* each thread has its own */
}
END_TEST

int main(void) {
    const TTest *const tests[] = {
        sizes,           loading, twins,     agreeing, heap_pieces, heap_offsets_and_limits,
        heap_after_fork, arenas,  log_lines, sentences};
    return run_tests("base", tests, sizeof tests / sizeof *tests, 30);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of the loader's cache, which the drop-in uses: what it finds, and bytes of any kind.
 */
#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "coll/nccl/find.h"

#define NAME "libnccl.so.2"
enum { HEAD = 48, ENTRY = 24 };

static void put32(unsigned char *at, uint32_t value) {
    memcpy(at, &value, sizeof value);
}

static const char *const entries[][2] = {
    {"libm.so.6", "/lib/libm.so.6"},   {NAME, "/opt/a/" NAME},   {NAME ".1", "/opt/b/" NAME},
    {"libnccl.so", "/opt/libnccl.so"}, {NAME, "/usr/lib/" NAME},
};
enum { ENTRIES = sizeof entries / sizeof *entries };

/* A cache of the entries, in memory that ends where it does. */
static unsigned char *make_cache(size_t *length) {
    size_t text = HEAD + ENTRIES * ENTRY;
    unsigned char *cache = calloc(1, 4096);
    memcpy(cache, "glibc-ld.so.cache1.1", 20);
    put32(cache + 20, ENTRIES);
    for (size_t i = 0; i < ENTRIES; i++)
        for (size_t j = 0; j < 2; j++) {
            put32(cache + HEAD + i * ENTRY + 4 + 4 * j, (uint32_t)text);
            strcpy((char *)cache + text, entries[i][j]);
            text += strlen(entries[i][j]) + 1;
        }
    *length = text;
    return realloc(cache, text);
}

static const char *next(const unsigned char *cache, size_t length, size_t *at) {
    return cinch_nccl_cached((const char *)cache, length, NAME, at);
}

START_TEST(finds_every_entry_of_the_name) {
    size_t length, at = 0;
    unsigned char *cache = make_cache(&length);
    ck_assert_str_eq(next(cache, length, &at), "/opt/a/" NAME);
    ck_assert_str_eq(next(cache, length, &at), "/usr/lib/" NAME);
    ck_assert_ptr_null(next(cache, length, &at));
    ck_assert_ptr_null(next(cache, length, &at));
    put32(cache + HEAD + ENTRY + 8, UINT32_MAX); /* the first one's path lies nowhere */
    at = 0;
    ck_assert_str_eq(next(cache, length, &at), "/usr/lib/" NAME);
    put32(cache + 20, ENTRIES - 1); /* and the last is not counted */
    at = 0;
    ck_assert_ptr_null(next(cache, length, &at));
    free(cache);
    cache = make_cache(&length);
    cache[19] = '0'; /* another format */
    at = 0;
    ck_assert_ptr_null(next(cache, length, &at));
    free(cache);
}
END_TEST

/* What is found lies inside, and ends there. */
static void read_all(const unsigned char *bytes, size_t length) {
    unsigned char *exact = malloc(length ? length : 1);
    memcpy(exact, bytes, length);
    const char *found;
    size_t at = 0, most = 0;
    while ((found = next(exact, length, &at))) {
        const unsigned char *begin = (const unsigned char *)found;
        ck_assert(begin >= exact && begin < exact + length);
        ck_assert_ptr_nonnull(memchr(found, '\0', length - (size_t)(begin - exact)));
        ck_assert_uint_le(++most, length);
    }
    free(exact);
}

START_TEST(any_bytes_are_harmless) {
    size_t length;
    uint64_t random = 88172645463325252u;
    unsigned char *cache = make_cache(&length), *changed = malloc(length);
    for (size_t cut = 0; cut <= length; cut++) read_all(cache, cut);
    for (int round = 0; round < 20000; round++) {
        memcpy(changed, cache, length);
        for (int i = 0; i < 3; i++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            changed[20 + random % (length - 20)] = (unsigned char)(random >> 32);
        }
        read_all(changed, length);
    }
    for (size_t i = 20; i < HEAD + ENTRIES * ENTRY; i += 4) {
        memcpy(changed, cache, length);
        put32(changed + i, UINT32_MAX);
        read_all(changed, length);
    }
    free(changed);
    free(cache);
}
END_TEST

START_TEST(versions_are_written_as_nccl_does) {
    char text[32];
    cinch_nccl_version_text(22809, text, sizeof text);
    ck_assert_str_eq(text, "2.28.9");
    cinch_nccl_version_text(2708, text, sizeof text);
    ck_assert_str_eq(text, "2.7.8");
    cinch_nccl_version_text(21003, text, sizeof text);
    ck_assert_str_eq(text, "2.10.3");
}
END_TEST

int main(void) {
    Suite *suite = suite_create("nccl_cache");
    TCase *tests = tcase_create("cache");
    tcase_add_test(tests, finds_every_entry_of_the_name);
    tcase_add_test(tests, any_bytes_are_harmless);
    tcase_add_test(tests, versions_are_written_as_nccl_does);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Which memory is steady: what was registered, until it is released, and allocations of the heap.
 * An address never has its old number again. */
#include <check.h>
#include <stdlib.h>

#include "base/heap.h"
#include "transports/steady.h"

static unsigned char memory[10000];

START_TEST(registered) {
    cinch_net net = {0};
    cinch_steady got, again;
    ck_assert(!cinch_net_steady(&net, memory, 1, &got));
    uint64_t changes = cinch_net_steady_changes(&net);
    ck_assert_int_eq(cinch_net_keep(&net, memory + 100, 1000), cinchSuccess);
    ck_assert(cinch_net_steady_changes(&net) != changes); /* heap memory may be registered too */
    changes = cinch_net_steady_changes(&net);
    ck_assert(cinch_net_steady(&net, memory + 100, 1000, &got));
    ck_assert(got.data == memory + 100 && got.bytes == 1000);
    ck_assert(cinch_net_steady(&net, memory + 1099, 1, &again) && again.serial == got.serial);
    ck_assert(!cinch_net_steady(&net, memory + 99, 1, &again));
    ck_assert(!cinch_net_steady(&net, memory + 1099, 2, &again));
    ck_assert(!cinch_net_steady(&net, memory + 200, (size_t)-1, &again));
    ck_assert(cinch_net_steady(&net, memory + 1100, 0, &again));
    cinch_net_release(&net, memory + 100, 999); /* that is none */
    ck_assert(cinch_net_steady_changes(&net) == changes);
    cinch_net_release(&net, memory + 100, 1000);
    ck_assert(cinch_net_steady_changes(&net) != changes);
    ck_assert(!cinch_net_steady(&net, memory + 100, 1, &again));
    ck_assert_int_eq(cinch_net_keep(&net, memory + 100, 1000), cinchSuccess);
    ck_assert(cinch_net_steady(&net, memory + 100, 1, &again) && again.serial != got.serial);
    cinch_net_forget_steady(&net);
}
END_TEST

/* Many ranges over and in each other, against a list that is searched plainly. */
START_TEST(overlapping) {
    enum { MANY = 60 };
    cinch_net net = {0};
    struct {
        size_t at, bytes;
        bool kept;
    } range[MANY] = {{0, 0, false}};
    uint64_t state = 11;
    for (int step = 0; step < 4000; step++) {
        state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
        int i = (int)(state >> 33) % MANY;
        size_t at = (size_t)(state >> 20) % 9000, bytes = 1 + (size_t)(state >> 40) % 900;
        if (range[i].kept)
            cinch_net_release(&net, memory + range[i].at, range[i].bytes);
        else
            ck_assert_int_eq(cinch_net_keep(&net, memory + at, bytes), cinchSuccess);
        if (!range[i].kept) range[i].at = at, range[i].bytes = bytes;
        range[i].kept = !range[i].kept;
        size_t from = (size_t)(state >> 12) % 9500, length = 1 + (size_t)(state >> 50) % 500;
        bool wanted = false;
        for (int k = 0; k < MANY; k++)
            wanted |= range[k].kept && from >= range[k].at &&
                      from + length <= range[k].at + range[k].bytes;
        cinch_steady got;
        ck_assert(cinch_net_steady(&net, memory + from, length, &got) == wanted);
        if (wanted) ck_assert(memory + from >= got.data && from + length <= 10000);
    }
    cinch_net_forget_steady(&net);
}
END_TEST

START_TEST(of_the_heap) {
    cinch_net net = {0};
    cinch_steady got, other;
    void *a, *b, *c;
    ck_assert_int_eq(cinch_heap_alloc(&a, 10000), cinchSuccess);
    ck_assert_int_eq(cinch_heap_alloc(&b, 10000), cinchSuccess);
    ck_assert(cinch_net_steady(&net, (char *)a + 5000, 5000, &got));
    ck_assert(got.data == a && got.bytes >= 10000);
    ck_assert(cinch_net_steady(&net, b, 10000, &other) && other.serial != got.serial);
    ck_assert(!cinch_net_steady(&net, a, (size_t)((char *)b - (char *)a) + 1, &other)); /* two */
    uint64_t changes = cinch_net_steady_changes(&net);
    ck_assert_int_eq(cinch_heap_release(a), cinchSuccess);
    ck_assert(cinch_net_steady_changes(&net) != changes);
    ck_assert(!cinch_net_steady(&net, a, 1, &other));
    ck_assert_int_eq(cinch_heap_alloc(&c, 10000), cinchSuccess);
    ck_assert(c == a);
    ck_assert(cinch_net_steady(&net, c, 1, &other) && other.serial != got.serial);
    /* Numbers of the heap are none of registrations. */
    for (int i = 0; i < 8; i++) {
        ck_assert_int_eq(cinch_net_keep(&net, memory + i, 1), cinchSuccess);
        ck_assert(cinch_net_steady(&net, memory + i, 1, &got) && got.serial != other.serial);
    }
    cinch_net_forget_steady(&net);
    ck_assert_int_eq(cinch_heap_release(b), cinchSuccess);
    ck_assert_int_eq(cinch_heap_release(c), cinchSuccess);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("steady");
    TCase *tests = tcase_create("steady");
    tcase_add_test(tests, registered);
    tcase_add_test(tests, overlapping);
    tcase_add_test(tests, of_the_heap);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Sleeping on a flag, and waking who sleeps: a futex on the half of the value that changes. */
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "transports/shm.h"

static uint32_t *low_half(cinch_flag *flag) {
    uint32_t *half = (uint32_t *)(void *)&flag->value;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    half++;
#endif
    return half;
}

void cinch_flag_wake(cinch_flag *flag) {
    syscall(SYS_futex, low_half(flag), FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void cinch_flag_sleep(cinch_flag *flag, uint64_t seen, unsigned timeout_us) {
    struct timespec limit = {timeout_us / 1000000, (long)(timeout_us % 1000000) * 1000};
    atomic_fetch_add(&flag->sleepers, 1);
    if (atomic_load(&flag->value) == seen) /* else it changed before we could be seen */
        syscall(SYS_futex, low_half(flag), FUTEX_WAIT, (uint32_t)seen, &limit, NULL, 0);
    atomic_fetch_sub(&flag->sleepers, 1);
}

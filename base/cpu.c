/* SPDX-License-Identifier: Apache-2.0 */
/* CPU features, counts and caches. */
#include "base/cpu.h"

#include <sched.h>
#include <stdio.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

bool cinch_cpu_avx2(void) {
#if defined(__x86_64__)
    unsigned a, b, c, d; /* F16C has no name in every compiler's list; FMA's OS support covers it */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
#else
    return false;
#endif
}

const char *cinch_cpu_features(void) {
#if defined(__x86_64__)
    if (!cinch_cpu_avx2()) return "x86-64";
    return __builtin_cpu_supports("avx512f") ? "x86-64 avx2 fma f16c avx512f"
                                             : "x86-64 avx2 fma f16c";
#elif defined(__aarch64__)
    return "aarch64";
#else
    return "generic";
#endif
}

int cinch_cpu_count(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

/* The size of CPU 0's cache of that level. sysconf is no help: it knows the socket's total, or what
 * the hypervisor's CPUID says. */
static size_t cache(int level, size_t fallback) {
    for (int index = 0; index < 8; index++) {
        char path[80], type[16] = "", unit = 0;
        int this_level = 0;
        unsigned long size = 0;
        static const char *const names[] = {"level", "type", "size"};
        for (int i = 0; i < 3; i++) {
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", index,
                     names[i]);
            FILE *file = fopen(path, "re");
            if (!file) return fallback;
            int got = i == 0   ? fscanf(file, "%d", &this_level)
                      : i == 1 ? fscanf(file, "%15s", type)
                               : fscanf(file, "%lu%c", &size, &unit);
            fclose(file);
            if (got < 1) return fallback;
        }
        if (this_level == level && type[0] != 'I')
            return size << (unit == 'M' ? 20 : unit == 'K' ? 10 : 0);
    }
    return fallback;
}

size_t cinch_cpu_llc_bytes(void) {
    return cache(3, (size_t)8 << 20);
}
size_t cinch_cpu_l2_bytes(void) {
    return cache(2, (size_t)512 << 10);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What this CPU and machine offer. Compiled without ISA flags, so that it runs anywhere. */
#ifndef CINCH_BASE_CPU_H_
#define CINCH_BASE_CPU_H_

#include <stdbool.h>
#include <stddef.h>

/* AVX2, FMA and F16C, and an operating system that saves their registers. CINCH's AVX2 kernels ask
 * for all three. */
bool cinch_cpu_avx2(void);

/* Names of the features found, space-separated, for `cinch info`. */
const char *cinch_cpu_features(void);

int cinch_cpu_count(void);        /* CPUs that this process may run on */
size_t cinch_cpu_llc_bytes(void); /* last-level cache, 8 MiB where unknown */
size_t cinch_cpu_l2_bytes(void);  /* 512 KiB where unknown */

static inline void cinch_cpu_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif

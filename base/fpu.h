/* SPDX-License-Identifier: Apache-2.0 */
/* Arithmetic as IEEE 754 has it, whatever the caller's thread is set to: many programs flush
 * denormals, and results must be the same bits on every rank. */
#ifndef CINCH_BASE_FPU_H_
#define CINCH_BASE_FPU_H_

/* What to give back to cinch_fpu_leave. */
static inline unsigned cinch_fpu_enter(void) {
#if defined(__x86_64__)
    unsigned saved = __builtin_ia32_stmxcsr(), plain = 0x1f80; /* all masked, to nearest */
    if (__builtin_expect((saved & ~0x3fu) != plain, 0)) __builtin_ia32_ldmxcsr(plain);
    return saved;
#else
    return 0;
#endif
}

static inline void cinch_fpu_leave(unsigned saved) {
#if defined(__x86_64__)
    if (__builtin_expect((saved & ~0x3fu) != 0x1f80, 0)) __builtin_ia32_ldmxcsr(saved);
#else
    (void)saved;
#endif
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The entries of libnccl.so.2: one per name, which jumps to what stands in the name's slot and
 * leaves every argument where the caller put it, whatever the prototype is. Until the first call
 * each slot holds `resolve`. The register between entry and target (r11, x17) holds the slot's
 * address, which says what name was called where that matters. */

#define OURS(name, ...) entry nccl##name, pnccl##name
#define LACKS(name, ...) entry nccl##name, pnccl##name
#define ONLY(name, ...) entry nccl##name

        .set    at, 0 /* the slot's offset */

        .macro  entry name, twin
        trampoline \name
        .ifnb   \twin
        trampoline \twin
        .else
        .set    at, at + 8
        .endif
        .endm

#if defined(__x86_64__)

/* With IBT on, what is jumped to begins with endbr64, a no-op elsewhere. */
#ifdef __CET__
#include <cet.h>
#endif

        .macro  begin name
        .type   \name, @function
        .p2align 4
\name:
        .cfi_startproc
        endbr64
        .endm

        .macro  end name
        .cfi_endproc
        .size   \name, . - \name
        .endm

        .macro  trampoline name
        .globl  \name
        begin   \name
        leaq    cinch_nccl_slots + at(%rip), %r11
        jmp     *(%r11)
        end     \name
        .set    at, at + 8
        .endm

        .text

/* A first call: the slots are filled while the arguments wait, those in registers saved. The
 * instructions after the test leave the flags alone. */
        begin   resolve
        pushq   %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset rbp, -16
        movq    %rsp, %rbp
        .cfi_def_cfa_register rbp
        subq    $208, %rsp
        andq    $-16, %rsp
        movq    %rdi, 0(%rsp)
        movq    %rsi, 8(%rsp)
        movq    %rdx, 16(%rsp)
        movq    %rcx, 24(%rsp)
        movq    %r8, 32(%rsp)
        movq    %r9, 40(%rsp)
        movq    %rax, 48(%rsp)
        movq    %r10, 56(%rsp)
        movq    %r11, 64(%rsp)
        movaps  %xmm0, 80(%rsp)
        movaps  %xmm1, 96(%rsp)
        movaps  %xmm2, 112(%rsp)
        movaps  %xmm3, 128(%rsp)
        movaps  %xmm4, 144(%rsp)
        movaps  %xmm5, 160(%rsp)
        movaps  %xmm6, 176(%rsp)
        movaps  %xmm7, 192(%rsp)
        call    cinch_nccl_resolve
        testb   %al, %al
        movq    0(%rsp), %rdi
        movq    8(%rsp), %rsi
        movq    16(%rsp), %rdx
        movq    24(%rsp), %rcx
        movq    32(%rsp), %r8
        movq    40(%rsp), %r9
        movq    48(%rsp), %rax
        movq    56(%rsp), %r10
        movq    64(%rsp), %r11
        movaps  80(%rsp), %xmm0
        movaps  96(%rsp), %xmm1
        movaps  112(%rsp), %xmm2
        movaps  128(%rsp), %xmm3
        movaps  144(%rsp), %xmm4
        movaps  160(%rsp), %xmm5
        movaps  176(%rsp), %xmm6
        movaps  192(%rsp), %xmm7
        leave
        .cfi_def_cfa rsp, 8
        jz      cinch_nccl_refuse
        jmp     *(%r11)
        end     resolve

/* The target of names that cannot be served. */
        .hidden cinch_nccl_refuse
        .globl  cinch_nccl_refuse
        begin   cinch_nccl_refuse
        movq    %r11, %rdi
        jmp     cinch_nccl_refused
        end     cinch_nccl_refuse

#elif defined(__aarch64__)

/* hint 34 is `bti c`, a no-op where there is no such check; a jump through x16 or x17 may land there.
 * The slot is read with acquire: what was written before it was filled is seen behind it. */
        .macro  begin name
        .type   \name, %function
        .p2align 4
\name:
        .cfi_startproc
        hint    #34
        .endm

        .macro  end name
        .cfi_endproc
        .size   \name, . - \name
        .endm

        .macro  trampoline name
        .globl  \name
        begin   \name
        adrp    x17, cinch_nccl_slots + at
        add     x17, x17, :lo12:cinch_nccl_slots + at
        ldar    x16, [x17]
        br      x16
        end     \name
        .set    at, at + 8
        .endm

        .text

/* A first call: the slots are filled while the arguments wait, those in registers saved: x0 to x7,
 * x8 (where a structure is returned), and the vector registers. */
        begin   resolve
        stp     x29, x30, [sp, #-240]!
        .cfi_def_cfa_offset 240
        .cfi_offset x29, -240
        .cfi_offset x30, -232
        mov     x29, sp
        stp     x0, x1, [sp, #16]
        stp     x2, x3, [sp, #32]
        stp     x4, x5, [sp, #48]
        stp     x6, x7, [sp, #64]
        stp     x8, x17, [sp, #80]
        stp     q0, q1, [sp, #96]
        stp     q2, q3, [sp, #128]
        stp     q4, q5, [sp, #160]
        stp     q6, q7, [sp, #192]
        bl      cinch_nccl_resolve
        and     w16, w0, #1
        ldp     x0, x1, [sp, #16]
        ldp     x2, x3, [sp, #32]
        ldp     x4, x5, [sp, #48]
        ldp     x6, x7, [sp, #64]
        ldp     x8, x17, [sp, #80]
        ldp     q0, q1, [sp, #96]
        ldp     q2, q3, [sp, #128]
        ldp     q4, q5, [sp, #160]
        ldp     q6, q7, [sp, #192]
        ldp     x29, x30, [sp], #240
        .cfi_def_cfa_offset 0
        .cfi_restore x29
        .cfi_restore x30
        cbz     w16, cinch_nccl_refuse
        ldar    x16, [x17]
        br      x16
        end     resolve

/* The target of names that cannot be served. */
        .hidden cinch_nccl_refuse
        .globl  cinch_nccl_refuse
        begin   cinch_nccl_refuse
        mov     x0, x17
        b       cinch_nccl_refused
        end     cinch_nccl_refuse

#else
#error "no entries for this processor"
#endif

#include "coll/nccl/names.inc"

        .data
        .hidden cinch_nccl_slots
        .globl  cinch_nccl_slots
        .type   cinch_nccl_slots, %object
        .p2align 3
cinch_nccl_slots:
        .rept   at / 8
        .quad   resolve
        .endr
        .size   cinch_nccl_slots, . - cinch_nccl_slots

        .section .note.GNU-stack, "", %progbits

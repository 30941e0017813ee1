/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the k-th call of a kind fail, of those that the library makes in this process: what it asks
 * of the C library and the kernel goes through functions of faults.c (see faults.syms). */
#ifndef CINCH_TESTS_FAULTS_FAULTS_H_
#define CINCH_TESTS_FAULTS_FAULTS_H_

#include <stdatomic.h>

typedef enum { FAULT_MEMORY, FAULT_DESCRIPTORS, FAULT_SOCKETS, FAULT_KINDS } fault_kind;

typedef struct fault {
    fault_kind kind;
    int at;              /* the call that fails, from 1 on; 0: none, they are counted only */
    _Atomic int calls;   /* so far */
    char name[24];       /* of the function that failed */
    void *_Atomic where; /* its caller */
} fault;

/* From now on, by all threads of this process; it stays the caller's. NULL ends it. */
void fault_set(fault *wanted);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* A wire that does harm: the links over sockets and in shared memory, compiled once more so that
 * what they move goes through wire.c, where the k-th move of a rank is spoilt. */
#ifndef CINCH_TESTS_FAULTS_WIRE_H_
#define CINCH_TESTS_FAULTS_WIRE_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum {
    WIRE_FINE,      /* moves are counted only */
    WIRE_CORRUPT,   /* a bit is another one when it arrives */
    WIRE_DROP,      /* nothing is sent, though it looks so */
    WIRE_TRUNCATE,  /* the first half only */
    WIRE_DUPLICATE, /* twice; in shared memory: in the wrong place */
    WIRE_CLOSE,     /* the connection ends; in shared memory the same as WIRE_DROP */
    WIRE_DELAY,     /* it comes late */
    WIRE_KINDS
} wire_kind;

typedef struct wire {
    wire_kind kind;
    int at;              /* the move that is spoilt, from 1 on */
    uint64_t random;     /* which bit */
    _Atomic int moves;   /* so far */
    _Atomic bool spoilt; /* it has happened */
} wire;

/* For what the calling thread moves from now on; NULL ends it. */
void wire_set(wire *wanted);

#endif

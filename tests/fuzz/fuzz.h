/* SPDX-License-Identifier: Apache-2.0 */
/* What fuzz targets share: taking an input apart, and what every run must hold. */
#ifndef CINCH_TESTS_FUZZ_FUZZ_H_
#define CINCH_TESTS_FUZZ_FUZZ_H_

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FUZZ_SEED_MOST 8192

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Writes the k-th input to begin with, at most FUZZ_SEED_MOST bytes; 0: there are no more. */
size_t fuzz_seed(int k, uint8_t *out);

static inline void fuzz_expect(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

/* What of the input is left; beyond its end there are zeros. */
typedef struct fuzz_input {
    const uint8_t *at;
    size_t left;
} fuzz_input;

static inline size_t fuzz_take(fuzz_input *in, void *to, size_t count) {
    size_t n = count < in->left ? count : in->left;
    memset(to, 0, count);
    if (n) memcpy(to, in->at, n);
    in->at += n;
    in->left -= n;
    return n;
}

static inline unsigned fuzz_byte(fuzz_input *in) {
    uint8_t byte;
    fuzz_take(in, &byte, 1);
    return byte;
}

static inline unsigned fuzz_two(fuzz_input *in) {
    unsigned low = fuzz_byte(in);
    return low | fuzz_byte(in) << 8;
}

/* A copy of its exact size, so that a sanitizer sees a read beyond it; the caller frees it. */
static inline uint8_t *fuzz_copy(fuzz_input *in, size_t count) {
    uint8_t *copy = malloc(count ? count : 1);
    fuzz_expect(copy != NULL, "no memory");
    fuzz_take(in, copy, count);
    return copy;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The text that `cinch train` learns: its bytes as symbols, a tenth of it held out, batches. */
#ifndef CINCH_PERF_TRAIN_TEXT_H_
#define CINCH_PERF_TRAIN_TEXT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CINCH_TEXT_LEAST = 16 * 1024,       /* bytes */
    CINCH_TEXT_MOST = 64 * 1024 * 1024, /* what is behind stays unread */
    CINCH_TEXT_STRETCHES = 16,          /* each trains with nine tenths and holds out the last */
    CINCH_TEXT_HELD_WINDOWS = 512       /* at most so many measure the loss */
};

typedef struct cinch_text {
    uint8_t *symbol; /* below vocabulary, in the order of the byte values that occur */
    size_t length;
    int vocabulary;
} cinch_text;

/* Reads `path`, or with NULL the licence texts of a Debian system. On failure `why` is a sentence
 * that names the file. */
bool cinch_text_load(cinch_text *text, const char *path, char *why, size_t room);
void cinch_text_free(cinch_text *text);

/* `windows` windows of `context` symbols out of the training part, chosen by (seed, step, rank);
 * a target is the symbol after its input. */
void cinch_text_batch(const cinch_text *text, int context, uint64_t seed, uint64_t step, int rank,
                      int windows, uint8_t *input, uint8_t *target);

/* How many windows the held-out part measures the loss with, and the i-th of them. */
int cinch_text_held_count(const cinch_text *text, int context);
void cinch_text_held_window(const cinch_text *text, int context, int index, uint8_t *input,
                            uint8_t *target);

#endif

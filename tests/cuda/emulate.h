/* SPDX-License-Identifier: Apache-2.0 */
/* Runs CUDA kernels on the host, so that their logic can be tested without a GPU.
 *
 * The threads of a block are fibers of one host thread; blocks run one after another. A fiber runs
 * until it waits for its block or its warp, then the next one runs; the order in which they do, and
 * that of the blocks, is a setting, and no result may depend on it. What is found wrong ends the
 * process with a sentence: threads that wait for different things, some that are gone while others
 * wait, accesses that are not aligned. */
#ifndef CINCH_TESTS_CUDA_EMULATE_H_
#define CINCH_TESTS_CUDA_EMULATE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { CINCH_EMULATE_UPWARD, CINCH_EMULATE_DOWNWARD, CINCH_EMULATE_SHUFFLED, CINCH_EMULATE_ORDERS };

/* The order from now on; UPWARD at first. */
void cinch_emulate_order(int order);

/* Launches since the start, and the blocks and threads of the last one. */
typedef struct cinch_emulate_launches {
    uint64_t count;
    unsigned blocks, threads;
} cinch_emulate_launches;
cinch_emulate_launches cinch_emulate_count(void);

/* Runs body(arg) as every thread of every block. */
void cinch_emulate_run(unsigned blocks, unsigned threads, void (*body)(void *arg), void *arg);

/* A launch is run at once, or goes to an emulated runtime that has streams, which runs it when its
 * turn comes, with a copy of the argument. 0, or an error of CUDA's. */
typedef int (*cinch_emulate_queue)(void *stream, unsigned blocks, unsigned threads,
                                   void (*body)(void *arg), const void *arg, size_t bytes);
void cinch_emulate_queue_by(cinch_emulate_queue queue);
int cinch_emulate_launch(void *stream, unsigned blocks, unsigned threads, void (*body)(void *arg),
                         void *arg, size_t bytes);

/* For the running thread: its place, and the barriers of CUDA. `what` names the caller's place. */
unsigned cinch_emulate_thread(void), cinch_emulate_threads(void);
unsigned cinch_emulate_block(void), cinch_emulate_blocks(void);
void cinch_emulate_sync(const char *what);

/* Gives v to the warp and returns what all 32 lanes gave at this step. */
const uint32_t *cinch_emulate_warp(uint32_t v, const char *what);

/* Ends the process with a sentence. */
void cinch_emulate_wrong(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#ifdef __cplusplus
}
#endif

#endif

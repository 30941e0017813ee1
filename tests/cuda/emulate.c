/* SPDX-License-Identifier: Apache-2.0 */
/* Fibers for emulate.h: makecontext begins one, setjmp and longjmp switch, for swapcontext makes
 * two system calls each time. */
#undef _FORTIFY_SOURCE /* its longjmp refuses to go to another stack */
#include "tests/cuda/emulate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#define ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADDRESS_SANITIZER 1
#endif
#endif
#ifdef ADDRESS_SANITIZER
#include <sanitizer/common_interface_defs.h>
#endif

#define WARP 32u
#define THREADS_MAX 1024u
#define STACK ((size_t)24 << 10) /* small: the address sanitizer wipes all of it at a switch */

typedef enum { READY, AT_SYNC, AT_WARP, GONE } state;

typedef struct fiber {
    jmp_buf at;
    ucontext_t first;
    bool started;
    state state;
    const char *what; /* it waits for */
} fiber;

typedef struct warp {
    uint32_t given[WARP], seen[WARP];
} warp;

static struct {
    fiber fiber[THREADS_MAX];
    warp warp[THREADS_MAX / WARP];
    char *stacks;
    jmp_buf scheduler;
    ucontext_t entry;
    unsigned threads, blocks, thread, block;
    int order;
    void (*body)(void *arg);
    void *arg;
    cinch_emulate_launches launches;
    cinch_emulate_queue queue;
    const void *main_stack; /* the scheduler's, as the address sanitizer sees it */
    size_t main_size;
} e;

void cinch_emulate_wrong(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "emulated kernel, block %u, thread %u: ", e.block, e.thread);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

void cinch_emulate_order(int order) {
    e.order = order;
}

cinch_emulate_launches cinch_emulate_count(void) {
    return e.launches;
}

unsigned cinch_emulate_thread(void) {
    return e.thread;
}

unsigned cinch_emulate_threads(void) {
    return e.threads;
}

unsigned cinch_emulate_block(void) {
    return e.block;
}

unsigned cinch_emulate_blocks(void) {
    return e.blocks;
}

/* The address sanitizer is told of every change of stacks. fake: of the stack that is left, NULL
 * where it is left for good. */
static void leave(void **fake, const void *stack, size_t size) {
#ifdef ADDRESS_SANITIZER
    __sanitizer_start_switch_fiber(fake, stack, size);
#else
    (void)fake, (void)stack, (void)size;
#endif
}

static void arrive(void *fake, const void **from, size_t *size) {
#ifdef ADDRESS_SANITIZER
    __sanitizer_finish_switch_fiber(fake, from, size);
#else
    (void)fake, (void)from, (void)size;
#endif
}

/* Back to the scheduler, until it is this fiber's turn again. */
static void wait_for(state what, const char *name) {
    fiber *f = &e.fiber[e.thread];
    void *fake = NULL;
    f->state = what;
    f->what = name;
    leave(&fake, e.main_stack, e.main_size);
    if (_setjmp(f->at) == 0) _longjmp(e.scheduler, 1);
    arrive(fake, NULL, NULL);
}

void cinch_emulate_sync(const char *what) {
    wait_for(AT_SYNC, what);
}

const uint32_t *cinch_emulate_warp(uint32_t v, const char *what) {
    warp *w = &e.warp[e.thread / WARP];
    w->given[e.thread % WARP] = v;
    wait_for(AT_WARP, what);
    return w->seen;
}

static void begin(void) {
    arrive(NULL, &e.main_stack, &e.main_size);
    e.body(e.arg);
    e.fiber[e.thread].state = GONE;
    e.fiber[e.thread].what = "its end";
    leave(NULL, e.main_stack, e.main_size);
    _longjmp(e.scheduler, 1);
}

static void resume(unsigned thread) {
    fiber *f = &e.fiber[thread];
    char *stack = e.stacks + thread * STACK;
    void *fake = NULL;
    e.thread = thread;
    f->state = READY;
    leave(&fake, stack, STACK);
    if (_setjmp(e.scheduler) == 0) {
        if (f->started) _longjmp(f->at, 1);
        f->started = true;
        if (getcontext(&f->first) != 0) abort();
        f->first.uc_stack.ss_sp = stack;
        f->first.uc_stack.ss_size = STACK;
        f->first.uc_link = NULL;
        makecontext(&f->first, begin, 0);
        setcontext(&f->first);
        abort();
    }
    arrive(fake, NULL, NULL);
}

/* The i-th of n in the order that is set; the shuffle is one of a fixed step. */
static unsigned turn(unsigned i, unsigned n) {
    if (e.order == CINCH_EMULATE_DOWNWARD) return n - 1 - i;
    if (e.order != CINCH_EMULATE_SHUFFLED) return i;
    unsigned step = n % 7 ? 7 : n % 11 ? 11 : 1;
    return (unsigned)(((uint64_t)i * step + n / 3) % n);
}

/* Whether all of [first, first + n) wait for the same thing; wrong where they never will. */
static bool together(unsigned first, unsigned n, state what) {
    unsigned there = 0;
    for (unsigned t = first; t < first + n; t++) there += e.fiber[t].state == what;
    if (there < n) return false;
    for (unsigned t = first + 1; t < first + n; t++) {
        e.thread = t;
        if (strcmp(e.fiber[t].what, e.fiber[first].what) != 0)
            cinch_emulate_wrong("waits at %s, thread %u at %s", e.fiber[t].what, first,
                                e.fiber[first].what);
    }
    return true;
}

/* Runs all fibers of a warp until they wait for the block or are gone. */
static void run_warp(unsigned first) {
    warp *w = &e.warp[first / WARP];
    unsigned n = e.threads - first < WARP ? e.threads - first : WARP;
    do {
        for (unsigned i = 0; i < n; i++) {
            unsigned t = first + turn(i, n);
            if (e.fiber[t].state == READY) resume(t);
        }
        if (!together(first, n, AT_WARP)) break;
        memcpy(w->seen, w->given, sizeof w->seen);
        for (unsigned t = first; t < first + n; t++) e.fiber[t].state = READY;
    } while (true);
    for (unsigned t = first; t < first + n; t++) {
        e.thread = t;
        if (e.fiber[t].state == AT_WARP)
            cinch_emulate_wrong("waits at %s, others of its warp do not", e.fiber[t].what);
    }
}

static void run_block(void) {
    unsigned warps = (e.threads + WARP - 1) / WARP;
    for (unsigned t = 0; t < e.threads; t++) {
        e.fiber[t].started = false;
        e.fiber[t].state = READY;
    }
    do {
        for (unsigned i = 0; i < warps; i++) run_warp(turn(i, warps) * WARP);
        if (together(0, e.threads, GONE)) break;
        if (!together(0, e.threads, AT_SYNC))
            cinch_emulate_wrong("some threads of the block are gone, others wait");
        for (unsigned t = 0; t < e.threads; t++) e.fiber[t].state = READY;
    } while (true);
    for (e.thread = 0; e.thread < e.threads; e.thread++)
        if (*(const uint64_t *)(const void *)(e.stacks + e.thread * STACK))
            cinch_emulate_wrong("its stack of %zu bytes was too small", STACK);
}

void cinch_emulate_run(unsigned blocks, unsigned threads, void (*body)(void *arg), void *arg) {
    if (!e.stacks) {
        e.stacks = mmap(NULL, THREADS_MAX * STACK, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (e.stacks == MAP_FAILED) abort();
    }
    if (blocks == 0 || threads == 0 || threads > THREADS_MAX)
        cinch_emulate_wrong("a launch of %u blocks of %u threads", blocks, threads);
    e.launches.count++;
    e.launches.blocks = e.blocks = blocks;
    e.launches.threads = e.threads = threads;
    e.body = body;
    e.arg = arg;
    for (unsigned b = 0; b < blocks; b++) {
        e.block = turn(b, blocks);
        run_block();
    }
}

void cinch_emulate_queue_by(cinch_emulate_queue queue) {
    e.queue = queue;
}

int cinch_emulate_launch(void *stream, unsigned blocks, unsigned threads, void (*body)(void *arg),
                         void *arg, size_t bytes) {
    if (e.queue) return e.queue(stream, blocks, threads, body, arg, bytes);
    cinch_emulate_run(blocks, threads, body, arg);
    return 0;
}

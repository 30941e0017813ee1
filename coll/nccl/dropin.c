/* SPDX-License-Identifier: Apache-2.0 */
/* libnccl.so.2, behind its entries: fills their slots at the first call, and answers where nobody
 * else can. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "coll/nccl/choose.h"
#include "coll/nccl/hooks.h"

typedef cinch_nccl_function function;

/* What a caller gets from a function that cannot be served, whatever it returns: integers and
 * pointers are in the first register, a team (three ints) is in both. */
typedef struct answer {
    uint64_t first, second;
} answer;

/* Known to trampolines.S. */
extern function cinch_nccl_slots[];
void cinch_nccl_refuse(void);
bool cinch_nccl_resolve(void);
answer cinch_nccl_refused(const function *slot);

/* By this a drop-in knows another; its value is the release. */
extern const char cinchNcclDropin[] __attribute__((visibility("default")));
const char cinchNcclDropin[] = CINCH_RELEASE;

typedef enum { RESULT, TEXT, RANK, COUNT, TEAM, NOTHING } returns;

typedef struct name {
    const char *twin; /* pnccl...; without the p the name */
    function native;  /* NULL: cinch has none */
    returns kind;
    const char *since; /* the NCCL that has it, where cinch has none */
    bool alone;        /* there is no twin */
} name;

/* A name has two slots, its own and its twin's. */
static const name names[] = {
#define OURS(name, kind) {"pnccl" #name, (function)cinch##name, kind, NULL, false},
#define ONLY(name, kind, of) {"pnccl" #name, (function)cinch##of, kind, NULL, true},
#define LACKS(name, kind, since) {"pnccl" #name, NULL, kind, since, false},
#include "coll/nccl/names.inc"
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static cinch_nccl_choice choice;
static const char *(*real_last_error)(cinchComm_t);

/* This thread is choosing; what that loads may call us. */
static _Thread_local bool choosing;

/* The last call that failed by us on this thread, and what the real library's last error was then:
 * once it is another, it came later. */
static _Thread_local bool has_refused;
static _Thread_local char real_before[1024];

static void fill(void);

static const char *forward_last_error(cinchComm_t comm) {
    pthread_once(&once, fill); /* what another thread has chosen */
    const char *real = real_last_error ? real_last_error(comm) : NULL;
    const char *ours = cinch_nccl_hooks_why(comm);
    if (ours) return ours;
    if (!real) real = "";
    if (has_refused && strncmp(real, real_before, sizeof real_before - 1) == 0)
        return cinch_last_error();
    has_refused = false;
    return real;
}

void cinch_nccl_ours(void) {
    const char *real = real_last_error ? real_last_error(NULL) : NULL;
    snprintf(real_before, sizeof real_before, "%s", real ? real : "");
    has_refused = true;
}

static function in_library(const char *symbol) {
    function found;
    *(void **)&found = dlsym(choice.real.handle, symbol);
    return found;
}

static function target(const name *n, const char *symbol) {
    if (choice.mode == CINCH_NCCL_FORWARD) {
        if (n->native == (function)cinchGetLastError) return (function)forward_last_error;
        function hook = cinch_nccl_hook(n->twin + 1), real = in_library(symbol);
        if (real) return hook ? hook : real;
    }
    /* What returns no code serves in every mode: texts of codes, the last sentence. */
    bool serves = choice.mode == CINCH_NCCL_NATIVE || n->kind != RESULT;
    return n->native && serves ? n->native : cinch_nccl_refuse;
}

static void tell(void) {
    char version[32];
    if (choice.mode == CINCH_NCCL_FORWARD) {
        cinch_nccl_version_text(choice.real.version, version, sizeof version);
        cinch_info("calls go to NCCL %s, %s (%s)", version, choice.real.path, choice.why);
    } else {
        cinch_info("calls are served by cinch alone (%s)", choice.why);
    }
}

/* Where a codec is asked for, some calls go by us. */
static void hook(cinch_settings *settings) {
    char asked[256], why[CINCH_ERROR_TEXT];
    cinchResult_t result;
    cinch_nccl_asked_codec(settings, asked, sizeof asked);
    if (!asked[0]) return;
    if (cinch_nccl_hooks_open(settings, choice.real.handle, &result, why)) {
        cinch_info("%s compresses all-reduces that go to NCCL", asked);
    } else if (result == cinchSuccess) {
        cinch_warn("%s has no effect on what is forwarded to NCCL: %s", asked, why);
    } else {
        choice.mode = CINCH_NCCL_NEITHER;
        memcpy(choice.why, why, sizeof why);
    }
}

static void fill(void) {
    cinch_settings settings;
    char wrong[CINCH_ERROR_TEXT];
    choosing = true;
    bool good = cinch_settings_load(&settings, wrong);
    cinch_nccl_choose(&settings, &choice);
    /* A rank of cinch tells all others of its bad setting when it joins them. */
    if (!good && (choice.mode == CINCH_NCCL_FORWARD || strncmp(wrong, "CINCH_NCCL_", 11) == 0)) {
        choice.mode = CINCH_NCCL_NEITHER;
        memcpy(choice.why, wrong, sizeof wrong);
    }
    if (choice.mode == CINCH_NCCL_FORWARD)
        real_last_error = (const char *(*)(cinchComm_t))in_library("ncclGetLastError");
    tell();
    if (choice.mode == CINCH_NCCL_FORWARD) hook(&settings);
    cinch_settings_free(&settings);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const name *n = &names[i];
        function *slot = &cinch_nccl_slots[2 * i];
        __atomic_store_n(&slot[0], target(n, n->twin + 1), __ATOMIC_RELEASE);
        if (!n->alone) __atomic_store_n(&slot[1], target(n, n->twin), __ATOMIC_RELEASE);
    }
    choosing = false;
}

/* False where the call comes out of the choice itself. */
bool cinch_nccl_resolve(void) {
    if (choosing) return false;
    pthread_once(&once, fill);
    return true;
}

static void say_refused(const char *called, const name *n) {
    char version[32];
    if (choosing) {
        cinch_fail_quiet(cinchInvalidUsage, "%s was called while the real NCCL was being loaded",
                         called);
        return;
    }
    pthread_once(&once, fill);
    if (choice.mode == CINCH_NCCL_NATIVE) {
        cinch_fail(cinchInvalidUsage,
                   "%s, of NCCL %s, is not in cinch, which serves calls itself in native mode (%s)",
                   called, n->since, choice.why);
    } else if (choice.mode == CINCH_NCCL_FORWARD) {
        cinch_nccl_ours();
        cinch_nccl_version_text(choice.real.version, version, sizeof version);
        cinch_fail(cinchInvalidUsage, "%s is not in the NCCL that calls go to: %s, version %s",
                   called, choice.real.path, version);
    } else {
        cinch_fail(cinchInvalidUsage, "%s: %s", called, choice.why);
    }
}

answer cinch_nccl_refused(const function *slot) {
    size_t index = (size_t)(slot - cinch_nccl_slots);
    const name *n = &names[index / 2];
    say_refused(n->twin + (index % 2 == 0), n);
    switch (n->kind) {
    case RESULT:
        return (answer){cinchInvalidUsage, 0};
    case TEXT:
        return (answer){(uintptr_t)cinch_last_error(), 0};
    case RANK:
        return (answer){(uint64_t)-1, 0};
    default: /* none: a team of no ranks, rank 0, stride 0 */
        return (answer){0, 0};
    }
}

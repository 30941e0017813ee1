/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks of a communicator, as threads or as forked processes, for tests of the public interface.
 *
 * A case fails with the first check that did not hold on any rank, with a warning or error in the
 * log that was not expected, and with a descriptor, thread or mapping that is left over. */
#ifndef CINCH_TESTS_HARNESS_H_
#define CINCH_TESTS_HARNESS_H_

#include <check.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cinch/cinch.h"

enum { MOST_RANKS = 32, FAILURE_TEXT = 900 };

/* One rank; in memory that forked children share. */
typedef struct seat {
    int rank, nranks;
    cinchUniqueId id;
    cinchComm_t comm;   /* NULL where the init failed or is the body's own */
    cinchResult_t init; /* its result */
    char why[512];      /* its sentence */
    bool gone;          /* the body has destroyed or aborted the communicator */
    bool dies;          /* a process that is killed: whatever ends it is fine */
    void *shared;       /* as given in the case */
    char failure[FAILURE_TEXT];
} seat;

typedef struct ranks_case {
    int nranks;
    bool processes;           /* forked children in place of threads */
    bool host_apart;          /* processes: one that is no rank makes the id, not rank 0 */
    bool bare;                /* no init: the body does it from me->id */
    bool no_id;               /* and without that */
    bool may_fail;            /* the body runs although the init failed */
    const char *env;          /* "CINCH_A=x CINCH_B=y", on top of an environment without CINCH_* */
    void (*env_of)(seat *me); /* processes: more settings of one rank, before its init */
    void (*body)(seat *me);
    void *shared;
    /* Parts of the warnings and errors that the log must hold, by '|'; one that begins with '?' may
     * be there. NULL: none at all. "*": anything. */
    const char *logs;
} ranks_case;

void ranks_run(const ranks_case *c);

/* In a body: notes the failure with the calling thread's last sentence, and leaves the function. */
#define CHECK(me, condition, ...)                                                                  \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            rank_note(me, __FILE__, __LINE__, #condition, " " __VA_ARGS__);                        \
            return;                                                                                \
        }                                                                                          \
    } while (0)
#define CHECK_OK(me, call) CHECK(me, (call) == cinchSuccess)
void rank_note(seat *me, const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* The call fails with this code, and the last error of `comm` (NULL: the thread's) has this part.
 */
#define CHECK_FAILS(me, call, code, comm, part)                                                    \
    do {                                                                                           \
        cinchResult_t got_ = (call);                                                               \
        CHECK(me, got_ == (code) && strstr(cinchGetLastError(comm), part), "%d, not %d", got_,     \
              (code));                                                                             \
    } while (0)

/* Memory that forked children share, zeroed; for the life of the test. */
void *shared_memory(size_t bytes);

/* Waits, without any collective, until all nranks have called it; false after 20 s. */
typedef struct meeting_point {
    _Atomic int arrived;
} meeting_point;
bool wait_for_all(meeting_point *point, int nranks);

void sleep_ms(unsigned ms);
uint64_t now_ms(void);

uint64_t random64(uint64_t *state);
uint64_t hash_bytes(uint64_t seed, const void *data, size_t bytes);

/* The environment of the tests: all CINCH_* removed, the log to a file of its own. */
void clean_environment(void);
void set_environment(const char *env);
char *read_log(void); /* what is in the log now; the caller frees it */
void empty_log(void);

/* What this process holds: descriptors, threads, mappings. */
typedef struct holdings {
    int fds, threads, maps;
} holdings;
holdings hold_now(void);
bool holdings_settle(const holdings *before, bool maps, char *why, size_t room);

/* Runs the tests of one program. */
int run_tests(const char *suite, const TTest *const *tests, int count, int timeout_s);

#endif

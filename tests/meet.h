/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks at a rendezvous, as threads or as forked processes, with what each of them got. */
#ifndef CINCH_TESTS_MEET_H_
#define CINCH_TESTS_MEET_H_

#include <check.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "transports/rendezvous.h"
#include "transports/rendezvous_wire.h"

#define MS ((uint64_t)1000000)
#define MEET_MAX 40

/* One rank. All of them lie in memory that forked children share. */
typedef struct meet_rank {
    int index;        /* in the case; also the rank, unless `prepare` says otherwise */
    int rank, nranks; /* as said to join */
    int calls;        /* processes with comm_id: of cinch_rendezvous_id; the last one counts */
    char refusal[CINCH_ERROR_TEXT];
    cinch_settings settings;
    cinchUniqueId id;
    cinch_rendezvous *seat;
    cinchResult_t joined;
    char why[CINCH_ERROR_TEXT]; /* why joining failed */
    uint64_t took_ns;           /* joining */
    char failure[CINCH_ERROR_TEXT];
    int exit_signal; /* processes: what ended it */
    bool stay;       /* the body has left by itself, or nobody shall */
} meet_rank;

typedef struct meet {
    int nranks;
    bool processes;
    int hide;            /* cinch_rendezvous_tune.hide */
    const char *comm_id; /* CINCH_COMM_ID; NULL: an id made by whoever runs the case */
    int timeout_ms;      /* 0: 20 s */
    void (*prepare)(meet_rank *me);
    void (*body)(meet_rank *me); /* after a join that succeeded */
    meet_rank *ranks;            /* the results, until the next case */
    int pids[MEET_MAX];
} meet;

/* Runs the case to its end; fails where a rank's check did, where a descriptor or a thread of this
 * process is left over after a while. */
void meet_run(meet *m);

/* All ranks have joined. */
void meet_all_joined(const meet *m);

/* All failed with this sentence (a part of it). */
void meet_all_failed(const meet *m, cinchResult_t code, const char *sentence);

/* In a body or prepare: notes the failure and leaves the function. */
#define MEET_CHECK(me, condition)                                                                  \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            meet_note(me, __FILE__, __LINE__, #condition);                                         \
            return;                                                                                \
        }                                                                                          \
    } while (0)
void meet_note(meet_rank *me, const char *file, int line, const char *condition);

/* Sets a text and its value as the environment would. */
void meet_set(meet_rank *me, cinch_setting_index index, char **field, const char *text);

/* Waits for check to fail; the time it took, or UINT64_MAX after `ms`. */
uint64_t meet_await_failure(meet_rank *me, unsigned ms);

void meet_sleep(unsigned ms);
int meet_free_port(void);
const char *meet_secret(void); /* "#HEX", another one with each call */
int meet_open_fds(void);
#define MEET_THREADS_UNKNOWN (-1)
int meet_threads(void);
bool meet_settles(int fds, int threads); /* back to these numbers within 8 s */

/* The file behind the next id of file:PATH in a child that is forked now. */
void meet_file(const char *path, char file[300]);

/* Memory that forked children share, zeroed; for the life of the test. */
void *meet_shared(size_t bytes);

int meet_main(Suite *suite);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Starting ranks as processes on this host, and finding out which rank this process is. */
#ifndef CINCH_PERF_LAUNCH_H_
#define CINCH_PERF_LAUNCH_H_

#include <stdbool.h>

#include "perf/options.h"

#define CINCH_LAUNCH_MOST 4096 /* ranks */

typedef struct cinch_launch {
    const char *name; /* begins messages: "cinch run" */
    int ranks;
    const char *file;  /* what to execute; NULL: argv[0], looked up in PATH */
    char *const *argv; /* ends with NULL */
    char *const *set;  /* VAR=VALUE for every rank, before CINCH_RANK and the others */
    int nset;
    bool bind;    /* each rank to a CPU of its own, where there are enough */
    bool survive; /* ranks that a signal kills do not end the others */
    bool refused; /* a rank's status 2 wins over an earlier 1: the others failed because of it */
} cinch_launch;

/* Starts the ranks and waits for all of them. Each gets CINCH_RANK, CINCH_SIZE, and, unless `set`
 * has one, a CINCH_COMM_ID with a fresh secret that is good on this host only.
 *
 * Returns the exit status: 0, or that of the first rank that failed (128 + signal where one killed
 * it); then the others have half a second to end by themselves, get TERM, and 2 s later KILL.
 * INT, TERM and HUP are passed on, and KILL follows 2 s later. 127 where the program is not found,
 * 126 where it cannot be executed, 1 where no process can be made, after a sentence on stderr.
 * With `survive`, 0 where the ranks that nothing killed ended well; a byte per rank, at a
 * descriptor that CINCH_LAUNCH_BOARD names, then tells them which of them have ended. However this
 * process ends, its ranks end too. *signalled: the signal that was passed on, or 0. */
int cinch_launch_run(const cinch_launch *launch, int *signalled);

#define CINCH_LAUNCH_BOARD "_CINCH_BOARD"

typedef struct cinch_place {
    int rank, size;
    bool survive; /* set before: ranks that are started here outlive others, see cinch_launch */
    bool unbound; /* set before: they are bound to no CPU */
    const volatile unsigned char *ended; /* then [size] not 0: it has ended; else NULL. It stays
                                            mapped until this process ends */
} cinch_place;

/* Finds this process's place among the ranks of a command that runs on all of them.
 *
 * asked: the value of -n, 0 where it was not given. With -n, or where no launcher has made more
 * than one rank, starts asked (or fallback) ranks of this very command here, waits for them and
 * returns the exit status. Otherwise fills in *place and returns -1. argv is the command's own, so
 * that argv[0] is its name ("perf"). *place: zero, but for what is set before. ready, if not NULL,
 * is called before ranks are started here, and a result other than 0 is returned in their stead:
 * for checks that want one sentence only.
 *
 * CINCH_RANK and CINCH_SIZE win over the other launchers (perf/launcher.h). */
int cinch_place_find(const cinch_command *command, int asked, int fallback, char **argv,
                     int (*ready)(void *), void *arg, cinch_place *place);

/* The place that CINCH_RANK and CINCH_SIZE, or else a launcher, gives this process, where there is
 * more than one rank: 1; 0: none does; 2: what they say is wrong, after a sentence on stderr. Sets
 * CINCH_COMM_ID where neither that nor NCCL_COMM_ID is: torchrun's MASTER_ADDR and MASTER_PORT + 1,
 * or, where a launcher says that all ranks are on one host, a place there that no other job has. */
int cinch_place_given(const cinch_command *command, cinch_place *place);

#endif

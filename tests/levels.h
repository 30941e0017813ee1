/* SPDX-License-Identifier: Apache-2.0 */
/* Runs of ranks on hosts and sites that are made up. */
#ifndef CINCH_TESTS_LEVELS_H_
#define CINCH_TESTS_LEVELS_H_

#include "coll/comm.h"
#include "tests/harness.h"

/* Ranks on hosts on sites, a letter each: "AABBC" are five ranks on three hosts, "xxy" these hosts'
 * sites. */
typedef struct job {
    const char *hosts, *sites;
    cinchDataType_t dtype;
    size_t count;
    const char *want; /* a part of the plan's description, or NULL */
    /* results */
    double error[MOST_RANKS];
    uint64_t hash[MOST_RANKS], again[MOST_RANKS], shm_bytes[MOST_RANKS], tcp_bytes[MOST_RANKS];
} job;

static inline job *board(job j) {
    static job *shared;
    if (!shared) shared = shared_memory(sizeof *shared);
    *shared = j;
    return shared;
}

static inline void place_of(seat *me) {
    const job *j = me->shared;
    char host[2] = {j->hosts[me->rank]}, site[2] = {""};
    if (j->sites) site[0] = j->sites[host[0] - 'A'];
    setenv("CINCH_HOSTID", host, 1);
    if (site[0]) setenv("CINCH_SITEID", site, 1);
}

static inline void run_logged(job *j, void (*body)(seat *me), const char *env, const char *logs) {
    ranks_run(&(ranks_case){.nranks = (int)strlen(j->hosts),
                            .processes = true,
                            .env = env,
                            .env_of = place_of,
                            .body = body,
                            .may_fail = logs != NULL,
                            .shared = j,
                            .logs = logs});
}
static inline void run(job *j, void (*body)(seat *me), const char *env) {
    run_logged(j, body, env, NULL);
}

/* Three levels, two where a site has but one host, and hosts of one rank each. */
static const char *const maps[][2] = {{"AABBCCDD", "xxyy"}, {"ABCDABC", "xyyx"}, {"AABBBC", "xyx"},
                                      {"ABCD", "xxyy"},     {"ABABCC", "xyz"},   {"AAABB", NULL}};
enum { MAPS = sizeof maps / sizeof *maps };

#endif

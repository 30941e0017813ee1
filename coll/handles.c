/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of communicators. A handle that was destroyed can still be passed in; its memory stays
 * readable, so that it is found out by its magic number. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "coll/comm.h"

enum { KEPT = 64 }; /* destroyed ones; the oldest beyond that are used anew */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct cinchComm *grave[KEPT];
static unsigned buried; /* ever; grave[buried % KEPT] is the oldest */

struct cinchComm *cinch_comm_memory(void) {
    pthread_mutex_lock(&lock);
    struct cinchComm *comm = grave[buried % KEPT];
    grave[buried % KEPT] = NULL;
    pthread_mutex_unlock(&lock);
    if (!comm) return calloc(1, sizeof *comm);
    memset(comm, 0, sizeof *comm);
    return comm;
}

void cinch_comm_bury(struct cinchComm *comm) {
    comm->magic = 0;
    pthread_mutex_lock(&lock);
    struct cinchComm *oldest = grave[buried % KEPT];
    grave[buried++ % KEPT] = comm;
    pthread_mutex_unlock(&lock);
    free(oldest);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor: one thread of the process, asleep in epoll, for all its communicators.
 *
 * It reads the seats when nobody else does, so that failures are heard and questions answered by
 * ranks that are outside of any call, and it watches the processes of ranks on this host: one that
 * is killed is noticed though a child of it still holds its connections. It begins with the first
 * seat and is joined with the last; ranks that are threads of one process share it; a forked child
 * has none. It takes no signals. */
#ifndef CINCH_TRANSPORTS_MONITOR_H_
#define CINCH_TRANSPORTS_MONITOR_H_

#include "transports/rendezvous.h"

/* A process, as it tells others about itself: all zero where it cannot. */
typedef struct cinch_process {
    uint64_t space; /* of process numbers: numbers compare only inside one */
    uint64_t born;  /* tells it from a later process of the same number */
    int32_t pid, unused;
} cinch_process;
cinch_process cinch_process_self(void);

/* Watches the seat from here on. SystemError: out of memory, descriptors or threads. */
cinchResult_t cinch_monitor_add(cinch_rendezvous *rendezvous);

/* And the processes of ranks that are on this host. Those that cannot be watched are left out; the
 * ends of their connections are noticed all the same. */
void cinch_monitor_processes(cinch_rendezvous *rendezvous, const cinch_process *process,
                             int nranks);

/* No longer; on return nothing of the seat is used by the monitor. Before the seat is left. */
void cinch_monitor_remove(cinch_rendezvous *rendezvous);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Which machine `cinch topo` shows. */
#ifndef CINCH_PERF_TOPO_MACHINE_H_
#define CINCH_PERF_TOPO_MACHINE_H_

#include "topo/readers.h"

typedef struct cinch_topo_machine {
    const char *file; /* that describes it; NULL: this one, as it is detected */
    cinch_topology_format format;
    const char *root; /* of a recorded /sys and /proc, where there is no file; NULL: these */
    int ranks;        /* on its CPUs, where there is no file; 0: its GPUs are the ranks */
} cinch_topo_machine;

/* *t need not be initialized; after an error it is empty. */
cinchResult_t cinch_topo_machine_get(const cinch_topo_machine *machine, cinch_topology *t);
const char *cinch_topo_machine_name(const cinch_topo_machine *machine);

#endif

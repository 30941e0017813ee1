/* SPDX-License-Identifier: Apache-2.0 */
/* What the variables of torchrun, Open MPI, MPICH and Slurm say of this process. */
#ifndef CINCH_PERF_LAUNCHER_H_
#define CINCH_PERF_LAUNCHER_H_

#include <stdbool.h>

#include "perf/options.h"

typedef struct cinch_launcher {
    const char *name; /* "Open MPI" */
    int rank, size;
    bool one_host;  /* it says that all ranks are on one */
    char job[1024]; /* what the job's ranks have in common and no other job has; "": nothing */
    char meet[300]; /* HOST:PORT where the ranks can meet; "": it names none */
} cinch_launcher;

/* Finds the launcher that has made more than one rank, this process among them.
 *
 * torchrun (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) comes first, since mpirun and srun often
 * start one torchrun per host; then Open MPI (OMPI_COMM_WORLD_*), MPICH's Hydra (PMI_*), Slurm.
 * Slurm counts only where srun has launched this step (SLURM_STEP_ID): a batch script has a rank
 * and a number of tasks too. Never allocates. 1: found; 0: none; 2: after a sentence on stderr. */
int cinch_launcher_find(const cinch_command *command, cinch_launcher *launcher);

#endif

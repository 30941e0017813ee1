/* SPDX-License-Identifier: Apache-2.0 */
/* The machine from a file, or this one by detection, with ranks on its CPUs where they are asked
 * for. */
#include "perf/topo_machine.h"

#include <stdlib.h>
#include <string.h>

#include "topo/detect.h"
#include "topo/job.h"

/* Ranks in blocks over the CPUs, as a launcher that fills one after the other places them. */
static void place_ranks(const cinch_graph *graph, cinch_job_rank *rank, int ranks) {
    int cpus = 0, cpu = 0;
    for (int i = 0; i < graph->nodes; i++) cpus += graph->node[i].part == CINCH_PART_CPU;
    for (int i = 0; i < graph->nodes; i++) {
        if (graph->node[i].part != CINCH_PART_CPU) continue;
        for (int r = 0; r < ranks; r++)
            if ((int)((long)r * cpus / ranks) == cpu)
                snprintf(rank[r].at, sizeof rank[r].at, "%s", graph->node[i].name);
        cpu++;
    }
}

static cinchResult_t add_ranks(cinch_topology *t, int ranks) {
    cinch_graph job = {0};
    const cinch_graph *host = &t->graph;
    cinch_job_rank *rank = calloc((size_t)ranks, sizeof *rank);
    if (!rank) return cinch_fail(cinchSystemError, "out of memory for %d ranks", ranks);
    place_ranks(&t->graph, rank, ranks);
    cinchResult_t result = cinch_job_graph(&host, 1, rank, ranks, &job);
    free(rank);
    if (result != cinchSuccess) return result;
    cinch_graph_free(&t->graph);
    t->graph = job;
    return cinchSuccess;
}

cinchResult_t cinch_topo_machine_get(const cinch_topo_machine *machine, cinch_topology *t) {
    if (machine->file) return cinch_topology_read_file(machine->file, machine->format, t);
    cinch_detect_options options = {.root = machine->root};
    CINCH_TRY(cinch_detect(&options, t));
    cinchResult_t result = machine->ranks > 0 ? add_ranks(t, machine->ranks) : cinchSuccess;
    if (result != cinchSuccess) cinch_topology_free(t);
    return result;
}

const char *cinch_topo_machine_name(const cinch_topo_machine *machine) {
    if (machine->file) return machine->file;
    return machine->root ? machine->root : "this machine";
}

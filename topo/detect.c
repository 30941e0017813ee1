/* SPDX-License-Identifier: Apache-2.0 */
/* Detection as a whole: CPUs, GPUs and NICs are collected, mended as what a file tells is, and
 * become a graph. */
#include "topo/detect.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "topo/detect_parts.h"
#include "topo/sane.h"

static cinchResult_t open_root(cinch_detector *d, const char *root) {
    char found[PATH_MAX];
    if (!root) return cinchSuccess;
    if (!realpath(root, found) || strlen(found) >= sizeof d->root)
        return cinch_fail(cinchInvalidArgument, "there is no recorded machine at %.300s: %s", root,
                          strerror(errno));
    if (strcmp(found, "/") != 0) memcpy(d->root, found, strlen(found) + 1);
    d->recorded = true;
    return cinchSuccess;
}

static void warn_assumed(const cinch_detector *d) {
    if (d->unread > 0)
        cinch_topology_warn(d->m->t,
                            "PCI links without a readable speed and width: %d, the first of them "
                            "that of %s: %g GB/s, as of x16 of generation 3, is planned with",
                            d->unread, d->first_unread, CINCH_PCI_GBPS_UNKNOWN);
    if (d->homeless > 0)
        cinch_topology_warn(d->m->t,
                            "PCI parts that do not tell which CPU they are at: %d: taken to be at "
                            "the first",
                            d->homeless);
}

static cinchResult_t collect(cinch_detector *d) {
    CINCH_TRY(cinch_detect_cpus(d));
    CINCH_TRY(cinch_detect_gpus(d));
    CINCH_TRY(cinch_detect_nics(d));
    warn_assumed(d);
    cinch_machine_mend(d->m);
    return cinch_machine_graph(d->m);
}

cinchResult_t cinch_detect(const cinch_detect_options *options, cinch_topology *t) {
    cinch_machine m = {.t = t, .name = "this machine", .hosts = 1, .seen = true};
    cinch_detector d = {.m = &m, .nvml = options ? options->nvml : NULL};
    memset(t, 0, sizeof *t);
    t->format = CINCH_TOPOLOGY_DETECTED;
    CINCH_TRY(open_root(&d, options ? options->root : NULL));
    cinch_detect_hwloc_open(&d);
    cinchResult_t result = collect(&d);
    cinch_detect_hwloc_close(&d);
    cinch_machine_free(&m);
    if (result != cinchSuccess) cinch_topology_free(t);
    return result;
}

void cinch_detect_place(const cinch_graph *graph, char at[CINCH_GRAPH_MOST_NAME + 1]) {
    unsigned cpu, node;
    int found = -1;
    if (getcpu(&cpu, &node) == 0) {
        snprintf(at, CINCH_GRAPH_MOST_NAME + 1, "cpu%u", node);
        found = cinch_graph_find(graph, at);
        if (found >= 0 && graph->node[found].part != CINCH_PART_CPU) found = -1;
    }
    for (int i = 0; i < graph->nodes && found < 0; i++)
        if (graph->node[i].part == CINCH_PART_CPU) found = i;
    snprintf(at, CINCH_GRAPH_MOST_NAME + 1, "%s", found >= 0 ? graph->node[found].name : "");
}

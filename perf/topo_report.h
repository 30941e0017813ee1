/* SPDX-License-Identifier: Apache-2.0 */
/* What `cinch topo` has found out, and its two ways to say it. */
#ifndef CINCH_PERF_TOPO_REPORT_H_
#define CINCH_PERF_TOPO_REPORT_H_

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "perf/topo_codec.h"
#include "perf/topo_simulate.h"
#include "perf/topo_view.h"
#include "topo/bounds.h"
#include "topo/plan.h"
#include "topo/readers.h"

typedef struct cinch_topo_report {
    const char *file;
    cinch_topology topology;
    cinch_view view;
    bool optimum, planned, simulated, coded;
    cinch_bounds bounds; /* where optimum */
    cinch_plan plan;     /* where planned */
    uint64_t bytes;      /* that the plan is for */
    double plan_ms;
    cinch_topo_simulated simulation; /* where simulated */
    cinch_topo_coded codec;          /* where coded */
} cinch_topo_report;

/* "8 GPUs, 1 NIC, 2 hosts". */
void cinch_topo_counts(const cinch_topo_report *report, char *text, size_t room);
/* One line: what is planned, how, how fast. */
void cinch_topo_plan_line(const cinch_topo_report *report, char *text, size_t room);

cinchResult_t cinch_topo_text(FILE *f, const cinch_topo_report *report);
bool cinch_topo_json(FILE *f, const cinch_topo_report *report); /* false: f could not take it */

#endif

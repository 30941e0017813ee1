/* SPDX-License-Identifier: Apache-2.0 */
/* What text and pictures of a plan share: which trees come first, and their shape. */
#ifndef CINCH_PERF_TOPO_TREES_H_
#define CINCH_PERF_TOPO_TREES_H_

#include <stdbool.h>
#include <stdio.h>

#include "base/status.h"
#include "perf/topo_view.h"
#include "topo/plan.h"

/* Numbers of trees by falling weight, equal ones in the plan's order; free() it. SystemError. */
cinchResult_t cinch_trees_by_weight(const cinch_plan *plan, int **order);

bool cinch_trees_is_ring(const cinch_plan *plan);

/* The direction that is shown first; and whether the other one has the same shape, so that one
 * picture is both. */
const cinch_plan_half *cinch_trees_main(const cinch_plan_tree *tree);
bool cinch_trees_mirrored(const cinch_plan *plan, const cinch_plan_tree *tree);

/* "up and down", "down", "up": what a half of the tree carries; "" for a ring. */
const char *cinch_trees_directions(const cinch_plan *plan, const cinch_plan_tree *tree);

/* The plan as text: its trees drawn sideways, a share of the message each. */
cinchResult_t cinch_trees_text(FILE *f, const cinch_plan *plan);

#endif

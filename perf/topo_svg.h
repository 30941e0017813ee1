/* SPDX-License-Identifier: Apache-2.0 */
/* The picture of `cinch topo --svg`: a machine, and beneath it the trees of a plan. */
#ifndef CINCH_PERF_TOPO_SVG_H_
#define CINCH_PERF_TOPO_SVG_H_

#include "base/status.h"
#include "perf/topo_view.h"
#include "topo/plan.h"

typedef struct cinch_svg_page {
    const char *title;
    const char *subtitle;   /* of the plan; NULL: none */
    const cinch_plan *plan; /* NULL: none */
} cinch_svg_page;

/* Replaces the file. InvalidArgument: too large for a picture; SystemError: the file cannot be
 * written, or out of memory. */
cinchResult_t cinch_svg_write(const char *path, const cinch_view *view, const cinch_svg_page *page);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Line charts as SVG files, for --plot. */
#ifndef CINCH_PERF_PLOT_H_
#define CINCH_PERF_PLOT_H_

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

/* One line. A point that is not finite, or not above 0 on a logarithmic axis, breaks the line. */
typedef struct cinch_plot_series {
    const char *label;
    const double *x, *y;
    size_t count;
} cinch_plot_series;

typedef struct cinch_plot {
    const char *title, *x_label, *y_label;
    bool x_log, y_log;
    bool x_bytes; /* label x with K M G, ticks at powers of two where x_log */
    const cinch_plot_series *series;
    size_t count;
    const char *bound_label; /* of a line across at y = bound; NULL: there is none */
    double bound;            /* drawn where it is finite and above 0 */
} cinch_plot;

/* Writes the chart to path, replacing the file. SystemError: it cannot be written; the
 * sentence is left for cinchGetLastError and not logged. */
cinchResult_t cinch_plot_write(const char *path, const cinch_plot *plot);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Where the parts and links of a machine stand in its picture. GPUs and NICs are boxes; switches
 * and CPUs are bars over what hangs from them, as in a schematic of buses. From top to bottom:
 * networks, then a frame for each host with NICs, CPUs, PCI switches, GPUs, NV switches. */
#ifndef CINCH_PERF_TOPO_LAYOUT_H_
#define CINCH_PERF_TOPO_LAYOUT_H_

#include "base/status.h"
#include "perf/topo_view.h"

typedef struct cinch_box {
    double x, y, w, h; /* of the upper left corner; all in the picture's units */
} cinch_box;

typedef struct cinch_wire {
    double x[2], y[2]; /* at the link's a, at its b */
    double bend;       /* 0: a straight line; else a curve that goes so far down (or, < 0, up) */
} cinch_wire;

typedef struct cinch_layout {
    cinch_box *box;   /* by node */
    cinch_wire *wire; /* by link */
    cinch_box *frame; /* by host */
    double width, height;
} cinch_layout;

enum { CINCH_LAYOUT_MOST_NODES = 4096, CINCH_LAYOUT_LABEL = 12 /* characters shown of a name */ };

/* What is shown of a name: of a PCI address the part behind the domain 0000. */
const char *cinch_layout_label(const char *name);

/* InvalidArgument: more nodes than fit a picture; SystemError: out of memory. */
cinchResult_t cinch_layout_make(cinch_layout *layout, const cinch_view *view);
void cinch_layout_free(cinch_layout *layout);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* A machine as text. */
#ifndef CINCH_PERF_TOPO_TEXT_H_
#define CINCH_PERF_TOPO_TEXT_H_

#include <stdio.h>

#include "base/status.h"
#include "perf/topo_view.h"

/* Host by host a tree of its parts, with the bandwidth of each to what it hangs from; the links
 * beside that tree; the networks. SystemError: out of memory. */
cinchResult_t cinch_text_machine(FILE *f, const cinch_view *view);

#endif

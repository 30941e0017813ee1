/* SPDX-License-Identifier: Apache-2.0 */
/* `cinch topo --plan OP --codec SPEC`: what the plan would reach with a codec between hosts, and
 * whether that pays. */
#ifndef CINCH_PERF_TOPO_CODEC_H_
#define CINCH_PERF_TOPO_CODEC_H_

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "topo/compressed.h"

typedef struct cinch_topo_coded {
    char spec[64];
    cinch_compressed_codec codec;
    double algbw; /* of the best plan where all that crosses between hosts is encoded */
    bool crosses; /* anything does */
} cinch_topo_coded;

/* The codec's ratio is that of a message of so many bytes of float; encode_gbps: of a rank, 0: both
 * speeds are measured here, on one core. Invalid codecs, and those whose messages have no fixed
 * length, are InvalidArgument. */
cinchResult_t cinch_topo_code(const cinch_graph *graph, cinch_plan_op op, int root,
                              const cinch_plan_options *how, const char *spec, double encode_gbps,
                              double decode_gbps, uint64_t bytes, cinch_topo_coded *coded);

/* exact: GB/s of the plan without. */
void cinch_topo_coded_text(FILE *f, const cinch_topo_coded *coded, double exact);

#endif

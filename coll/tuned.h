/* SPDX-License-Identifier: Apache-2.0 */
/* What was measured on a machine with its ranks placed as they are: the time that each algorithm
 * takes for each collective over the size of the message, how fast the network and the codecs are,
 * and the graph that follows from it. `cinch tune` measures it, a plan file keeps it, and the
 * selection reads it. */
#ifndef CINCH_COLL_TUNED_H_
#define CINCH_COLL_TUNED_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "coll/shape.h"
#include "topo/graph.h"

enum { CINCH_CURVE_MOST = 32 };

/* Time over size, of one algorithm. */
typedef struct cinch_curve {
    cinch_collective collective;
    char algo[16];
    char codec[48]; /* "none", or a spec as in CINCH_CODEC */
    int points;
    struct {
        uint64_t bytes; /* of the message, all blocks together, as `cinch perf` counts them */
        double us;      /* the slowest rank's; sizes ascend */
    } point[CINCH_CURVE_MOST];
} cinch_curve;

typedef struct cinch_codec_speed {
    char codec[48];
    double encode_gbps, decode_gbps; /* 1e9 bytes of fp32 a second, one rank at a time */
} cinch_codec_speed;

typedef struct cinch_tuned {
    char machine[256]; /* what the ranks' machines are: one for whom this differs is another */
    int ranks, hosts;
    uint16_t *host;                /* [ranks] each rank's host, from 0 on */
    double shm_alpha_us, shm_gbps; /* between two ranks of a host, 0: not measured */
    double net_alpha_us;           /* between two hosts */
    cinch_graph graph;             /* GPU node i is rank i; empty: none */
    cinch_codec_speed speed[4];
    int speeds;
    cinch_curve *curve;
    int curves, curve_room;
} cinch_tuned;

/* A zeroed one is empty. */
void cinch_tuned_free(cinch_tuned *tuned);

/* The curve of that name, added where there is none. SystemError: out of memory. */
cinchResult_t cinch_tuned_curve(cinch_tuned *tuned, cinch_collective collective, const char *algo,
                                const char *codec, cinch_curve **curve);

/* Microseconds by a curve: between two points along a straight line in logarithms, below the first
 * as the first, above the last by the last two points' slope but no less than in proportion. */
double cinch_curve_us(const cinch_curve *curve, uint64_t bytes);

#endif

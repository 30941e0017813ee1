/* SPDX-License-Identifier: Apache-2.0 */
/* Where compression pays: a machine and a codec as one graph, that bounds and planner work on as on
 * any other.
 *
 * Beside the machine stand copies of its switches, on which bytes travel encoded: a link is wider
 * there, by the codec's ratio. A rank gets there through a vertex of its own that carries what it
 * can encode, and back through another that carries what it can decode and add. An encoded way
 * leads over at least one of the links that were asked for. The copies of a link share it: a link
 * of B GB/s with x as it is and y encoded, both counted raw, has x + ratio * y <= B.
 *
 * What this counts: every edge of a tree encodes and decodes anew, so a rank that passes encoded
 * bytes on (in a broadcast or all-gather) is taken for slower than it need be; encoding and
 * decoding run at the same time. */
#ifndef CINCH_TOPO_COMPRESSED_H_
#define CINCH_TOPO_COMPRESSED_H_

#include "topo/plan.h"

typedef struct cinch_compressed_codec {
    double ratio;       /* encoded bytes over raw ones, above 0 and at most 1 */
    double encode_gbps; /* of a rank, raw bytes */
    double decode_gbps; /* with the addition */
    unsigned links;     /* bit per cinch_link_class; 0: what joins hosts, that is CINCH_LINK_NET and
                           links whose ends are on different hosts */
    bool mixed; /* these links may carry raw bytes too; else all that crosses them is encoded */
} cinch_compressed_codec;

typedef struct cinch_compressed {
    cinch_graph graph; /* ranks as in the machine */
    int *origin;       /* node: of the machine, which it is or stands for */
    bool *encoded;     /* node: what is on it is encoded */
    unsigned links;    /* as in the codec */
} cinch_compressed;

/* InvalidArgument: a codec that has no such ratio or speed; SystemError: out of memory, or too
 * large. Where no link is one of those asked for, what comes is the machine alone. */
cinchResult_t cinch_compressed_make(const cinch_graph *machine, const cinch_compressed_codec *codec,
                                    cinch_compressed *made);
void cinch_compressed_free(cinch_compressed *compressed);

/* What part of the bytes that a plan over the graph sends over the links asked for is encoded; 0
 * where it uses none. */
double cinch_compressed_share(const cinch_compressed *compressed, const cinch_plan *plan);

/* What plans for the operation reach without and with the codec, in GB/s: it pays where `with` is
 * the larger. Where a machine has none of the links, both are the same. */
cinchResult_t cinch_compressed_pays(const cinch_graph *machine, cinch_plan_op op, int root,
                                    const cinch_compressed_codec *codec,
                                    const cinch_plan_options *options, double *without,
                                    double *with);

#endif

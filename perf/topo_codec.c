/* SPDX-License-Identifier: Apache-2.0 */
/* A plan with a codec, beside the exact one. */
#include "perf/topo_codec.h"

#include "coll/tune.h"
#include "compress/codec.h"

static cinchResult_t plan_coded(const cinch_graph *graph, cinch_plan_op op, int root,
                                const cinch_plan_options *how, cinch_topo_coded *coded) {
    cinch_compressed made;
    cinch_plan plan;
    CINCH_TRY(cinch_compressed_make(graph, &coded->codec, &made));
    coded->crosses = made.graph.nodes > graph->nodes;
    cinchResult_t result = cinch_plan_make(&made.graph, op, root, how, &plan);
    if (result == cinchSuccess) {
        coded->algbw = plan.algbw;
        cinch_plan_free(&plan);
    }
    cinch_compressed_free(&made);
    return result;
}

cinchResult_t cinch_topo_code(const cinch_graph *graph, cinch_plan_op op, int root,
                              const cinch_plan_options *how, const char *spec, double encode_gbps,
                              double decode_gbps, uint64_t bytes, cinch_topo_coded *coded) {
    char why[CINCH_ERROR_TEXT];
    cinch_codec codec;
    size_t count = (size_t)(bytes / sizeof(float));
    *coded = (cinch_topo_coded){0};
    snprintf(coded->spec, sizeof coded->spec, "%s", spec);
    if (!cinch_codec_parse(spec, &codec, why, sizeof why))
        return cinch_fail(cinchInvalidArgument, "--codec \"%.100s\": %.300s", spec, why);
    if (!codec.vt || !cinch_codec_fixed_size(&codec) || count < 1)
        return cinch_fail(cinchInvalidArgument,
                          "--codec \"%.100s\": codecs whose messages have a fixed length, of "
                          "--bytes 4 or more, are accepted",
                          spec);
    coded->codec.ratio = (double)cinch_codec_bound(&codec, count) / (double)(count * sizeof(float));
    if (coded->codec.ratio > 1) coded->codec.ratio = 1; /* a few elements: nothing is gained */
    if (encode_gbps > 0) {
        coded->codec.encode_gbps = encode_gbps;
        coded->codec.decode_gbps = decode_gbps;
    } else {
        cinch_codec_speed speed;
        CINCH_TRY(cinch_tune_codec(spec, &speed));
        coded->codec.encode_gbps = speed.encode_gbps;
        coded->codec.decode_gbps = speed.decode_gbps;
    }
    return plan_coded(graph, op, root, how, coded);
}

void cinch_topo_coded_text(FILE *f, const cinch_topo_coded *coded, double exact) {
    if (!coded->crosses) {
        fprintf(f, "%s: nothing is between hosts, all ranks share one\n", coded->spec);
        return;
    }
    fprintf(f, "%s between hosts (%.3g of the bytes; a rank encodes %.3g, decodes %.3g GB/s): ",
            coded->spec, coded->codec.ratio, coded->codec.encode_gbps, coded->codec.decode_gbps);
    if (coded->algbw > exact)
        fprintf(f, "%.4g GB/s, %.3g times the exact plan\n", coded->algbw, coded->algbw / exact);
    else
        fprintf(f, "does not pay, %.4g GB/s beside %.4g\n", coded->algbw, exact);
}

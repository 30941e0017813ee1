/* SPDX-License-Identifier: Apache-2.0 */
/* The readers of topology files under a fuzzer: whatever the bytes, an error with a sentence or a
 * machine that is sound; and what the writer makes of that machine is read again.
 *
 * FUZZ_FORMAT names the format; 0 leaves it to the bytes. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "topo/readers.h"

#ifndef FUZZ_FORMAT
#define FUZZ_FORMAT CINCH_TOPOLOGY_AUTO
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(int true_it_is, const char *what) {
    if (true_it_is) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

static void check(const cinch_topology *t) {
    expect(t->gpus == t->graph.gpus && t->nics >= 0, "counts");
    for (int i = 0; i < t->graph.arcs; i++) {
        const cinch_arc *a = &t->graph.arc[i];
        expect(a->from != a->to && a->gbps > 0 && isfinite(a->gbps), "an arc");
    }
}

static void write_and_read(const cinch_topology *t) {
    cinch_topology back;
    char *text = NULL;
    size_t length = 0;
    FILE *to = open_memstream(&text, &length);
    if (!to) return;
    cinchResult_t result = cinch_topology_write_nccl(&t->graph, to);
    fclose(to);
    if (result == cinchSuccess && length <= CINCH_TOPOLOGY_MOST_BYTES) {
        result = cinch_topology_read(text, length, CINCH_TOPOLOGY_NCCL, "again", &back);
        if (t->graph.nodes > 0 && t->format != CINCH_TOPOLOGY_GRAPH)
            expect(result == cinchSuccess, cinch_last_error());
        if (result == cinchSuccess) {
            expect(back.gpus == t->gpus, "GPUs when read again");
            cinch_topology_free(&back);
        }
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cinch_topology t;
    cinch_log_threshold = CINCH_LOG_NONE;
    cinchResult_t result = cinch_topology_read((const char *)data, size, FUZZ_FORMAT, "fuzzed", &t);
    if (result != cinchSuccess) {
        expect(*cinch_last_error() != '\0', "no sentence");
        expect(t.graph.nodes == 0 && t.warnings == 0, "something is left after an error");
        return 0;
    }
    check(&t);
    write_and_read(&t);
    cinch_topology_free(&t);
    return 0;
}

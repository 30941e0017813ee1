/* SPDX-License-Identifier: Apache-2.0 */
/* The measured curves: kept, found by name, and read between their points. */
#include "coll/tuned.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cinch_tuned_free(cinch_tuned *tuned) {
    free(tuned->host);
    free(tuned->curve);
    cinch_graph_free(&tuned->graph);
    *tuned = (cinch_tuned){0};
}

cinchResult_t cinch_tuned_curve(cinch_tuned *tuned, cinch_collective collective, const char *algo,
                                const char *codec, cinch_curve **curve) {
    for (int i = 0; i < tuned->curves; i++) {
        cinch_curve *c = &tuned->curve[i];
        *curve = c;
        if (c->collective == collective && strcmp(c->algo, algo) == 0 &&
            strcmp(c->codec, codec) == 0)
            return cinchSuccess;
    }
    if (tuned->curves == tuned->curve_room) {
        int room = tuned->curve_room ? 2 * tuned->curve_room : 16;
        cinch_curve *more = realloc(tuned->curve, (size_t)room * sizeof *more);
        if (!more) return cinch_fail(cinchSystemError, "out of memory for %d curves", room);
        tuned->curve = more;
        tuned->curve_room = room;
    }
    cinch_curve *c = &tuned->curve[tuned->curves++];
    *c = (cinch_curve){.collective = collective};
    snprintf(c->algo, sizeof c->algo, "%s", algo);
    snprintf(c->codec, sizeof c->codec, "%s", codec);
    *curve = c;
    return cinchSuccess;
}

double cinch_curve_us(const cinch_curve *curve, uint64_t bytes) {
    int last = curve->points - 1, to = 1;
    if (last < 0) return NAN;
    if (bytes <= curve->point[0].bytes) return curve->point[0].us;
    double size = (double)bytes;
    double proportion = curve->point[last].us * (size / (double)curve->point[last].bytes);
    if (last == 0) return proportion;
    while (to < last && curve->point[to].bytes < bytes) to++;
    double x0 = log((double)curve->point[to - 1].bytes), x1 = log((double)curve->point[to].bytes);
    double y0 = log(curve->point[to - 1].us), y1 = log(curve->point[to].us);
    double us = exp(y0 + (y1 - y0) * (log(size) - x0) / (x1 - x0));
    return bytes > curve->point[last].bytes ? fmax(us, proportion) : us;
}

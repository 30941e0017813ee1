/* SPDX-License-Identifier: Apache-2.0 */
/* Text of what was measured: the network, codecs, and who is best at each size. */
#include "perf/tune_report.h"

#include <inttypes.h>
#include <string.h>

enum { HOSTS_SHOWN = 16 };

static void print_network(FILE *to, const cinch_tune_net *net, const cinch_tuned *tuned) {
    int n = net->hosts;
    fprintf(to, "%d rank%s on %d host%s\n", tuned->ranks, tuned->ranks == 1 ? "" : "s", n,
            n == 1 ? "" : "s");
    if (net->shm_gbps > 0)
        fprintf(to, "inside a host: %.1f us, %.2f GB/s each way at once\n", net->shm_alpha_us,
                net->shm_gbps);
    if (n < 2) return;
    fprintf(to, "between hosts: %.1f us on average; MB/s from the row's host to the column's\n",
            tuned->net_alpha_us);
    fprintf(to, "%8s", "");
    for (int j = 0; j < n && j < HOSTS_SHOWN; j++) fprintf(to, " %8d", j);
    fprintf(to, "%s %9s\n", n > HOSTS_SHOWN ? " ..." : "", n > 2 ? "in all" : "");
    for (int i = 0; i < n && i < HOSTS_SHOWN; i++) {
        fprintf(to, "%8d", i);
        for (int j = 0; j < n && j < HOSTS_SHOWN; j++)
            if (i == j)
                fprintf(to, " %8s", "-");
            else
                fprintf(to, " %8.1f", 1e3 * net->gbps[i * n + j]);
        if (net->out[i] > 0)
            fprintf(to, "%s %9.1f", n > HOSTS_SHOWN ? " ..." : "", 1e3 * net->out[i]);
        fputc('\n', to);
    }
}

static void print_codecs(FILE *to, const cinch_tuned *tuned) {
    if (!tuned->speeds) return;
    fputs("codecs on one core, GB/s of float:", to);
    for (int i = 0; i < tuned->speeds; i++)
        fprintf(to, "%s %s encodes %.2f, decodes and adds %.2f", i ? ";" : "",
                tuned->speed[i].codec, tuned->speed[i].encode_gbps, tuned->speed[i].decode_gbps);
    fputc('\n', to);
}

static double us_at(const cinch_curve *curve, uint64_t bytes) {
    for (int i = 0; i < curve->points; i++)
        if (curve->point[i].bytes == bytes) return curve->point[i].us;
    return 0;
}

/* The fastest algorithm with that codec at that size, NULL: none was measured. */
static const cinch_curve *fastest(const cinch_tuned *t, cinch_collective collective,
                                  const char *codec, uint64_t bytes, double *us) {
    const cinch_curve *best = NULL;
    for (int i = 0; i < t->curves; i++) {
        const cinch_curve *c = &t->curve[i];
        double here = us_at(c, bytes);
        if (c->collective != collective || strcmp(c->codec, codec) != 0 || here <= 0) continue;
        if (!best || here < *us) best = c, *us = here;
    }
    return best;
}

/* The next larger size that any curve has; 0: none. */
static uint64_t next_size(const cinch_tuned *t, cinch_collective collective, uint64_t after) {
    uint64_t next = 0;
    for (int i = 0; i < t->curves; i++)
        for (int k = 0; k < t->curve[i].points && t->curve[i].collective == collective; k++) {
            uint64_t bytes = t->curve[i].point[k].bytes;
            if (bytes > after && (!next || bytes < next)) next = bytes;
        }
    return next;
}

static bool has_codec(const cinch_tuned *t, cinch_collective collective, const char *codec) {
    for (int i = 0; i < t->curves; i++)
        if (t->curve[i].collective == collective && strcmp(t->curve[i].codec, codec) == 0)
            return true;
    return false;
}

static void print_collective(FILE *to, const cinch_tuned *t, cinch_collective collective) {
    const char *column[8] = {"none"};
    int columns = 1;
    for (int i = 0; cinch_tune_codecs[i] && columns < 8; i++)
        if (has_codec(t, collective, cinch_tune_codecs[i]))
            column[columns++] = cinch_tune_codecs[i];
    if (!next_size(t, collective, 0)) return;
    fprintf(to, "\n%s: microseconds by the fastest algorithm\n%12s",
            cinch_shape_of(collective)->name, "bytes");
    for (int k = 0; k < columns; k++) fprintf(to, "  %-22s", k ? column[k] : "exact");
    fputc('\n', to);
    for (uint64_t bytes = 0; (bytes = next_size(t, collective, bytes)) != 0;) {
        fprintf(to, "%12" PRIu64, bytes);
        for (int k = 0; k < columns; k++) {
            double us = 0;
            const cinch_curve *best = fastest(t, collective, column[k], bytes, &us);
            if (best)
                fprintf(to, "  %11.2f %-10s", us, best->algo);
            else
                fprintf(to, "  %11s %-10s", "-", "");
        }
        fputc('\n', to);
    }
}

void cinch_tune_print(FILE *to, const cinch_tune_net *net, const cinch_tuned *tuned) {
    print_network(to, net, tuned);
    print_codecs(to, tuned);
    for (int c = 0; c < CINCH_COLLECTIVES; c++) print_collective(to, tuned, (cinch_collective)c);
}

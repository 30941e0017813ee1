/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics, the description of plans, and the codec in force. */
#include "coll/introspect.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "coll/engine.h"
#include "coll/nccl/inner.h"
#include "compress/dtype.h"

static double microseconds(const struct cinchComm *comm, uint64_t ticks) {
    uint64_t passed = cinch_ticks() - comm->born_ticks;
    double us = (double)(cinch_now_ns() - comm->born_ns) / 1e3;
    return passed ? (double)ticks * us / (double)passed : 0;
}

static void fill(const struct cinchComm *comm, cinchStats_t *s) {
    *s = (cinchStats_t){.size = sizeof *s,
                        .calls = comm->calls - comm->calls_before,
                        .bytes = comm->bytes,
                        .wire_bytes = cinch_comm_wire_bytes(comm),
                        .comm_us = microseconds(comm, comm->ticks),
                        .codec_us = microseconds(comm, comm->codec_ticks),
                        .compressed_calls = comm->compressed_calls,
                        .nonfinite = comm->nonfinite,
                        .ef_bytes = comm->ef.bytes,
                        .ef_dropped = comm->ef.dropped};
    cinch_inner_count(comm, s);
}

cinchResult_t cinchCommGetStats(cinchComm_t comm, cinchStats_t *stats) {
    CINCH_TRY(cinch_comm_check(comm));
    if (!stats || stats->size < sizeof stats->size)
        return cinch_fail(cinchInvalidArgument,
                          stats ? "stats->size is not set to sizeof(cinchStats_t)"
                                : "stats is NULL");
    cinchStats_t full;
    size_t size = stats->size;
    CINCH_TRY(cinch_comm_drain(comm));
    fill(comm, &full);
    memcpy(stats, &full, size < sizeof full ? size : sizeof full);
    stats->size = size;
    return cinchSuccess;
}

static const char *transport_of(const struct cinchComm *comm) {
    const char *name = "none";
    for (int q = 0; comm->net && q < comm->nranks; q++) {
        if (!comm->net->link[q]) continue;
        const char *this_name = comm->net->link[q]->ops->name;
        name = strcmp(name, "none") == 0 || strcmp(name, this_name) == 0 ? this_name : "shm,tcp";
    }
    return name;
}

static cinchResult_t choose(const struct cinchComm *comm, cinch_collective collective, size_t bytes,
                            cinchDataType_t dtype, unsigned *codecs, const cinch_algo **algo,
                            cinch_cut *cut) {
    size_t blocks = (size_t)cinch_shape_blocks(cinch_shape_of(collective), comm->nranks);
    cinch_candidate candidate = {collective, bytes, dtype, cinchSum, false};
    cinch_call call = cinch_op_call(comm, collective, 0, bytes / blocks);
    *codecs = cinch_op_codecs(comm, &candidate);
    cinch_call_set_codecs(&call, *codecs);
    return cinch_op_choose(comm, &call, dtype, algo, cut);
}

/* Of the codecs inside hosts, which is returned, and between them; where ranks share one host, both
 * are the one there is. What does not go by levels uses the second everywhere. */
static const char *codec_names(const struct cinchComm *comm, const cinch_algo *algo,
                               unsigned codecs, const char **between) {
    bool main = codecs >> CINCH_CODEC_MAIN & 1, inside = codecs >> CINCH_CODEC_INSIDE & 1;
    bool levels = algo && comm->hosts > 1 && strcmp(algo->name, cinch_algo_hier.name) == 0;
    *between = main ? comm->policy.codec.vt->name : "none";
    if (!levels) return *between;
    return inside ? comm->policy.inside.vt->name : "none";
}

cinchResult_t cinchCommDescribePlan(cinchComm_t comm, const char *op, size_t bytes,
                                    cinchDataType_t dtype, char *json, size_t *len) {
    CINCH_TRY(cinch_comm_check(comm));
    cinch_collective collective = op ? cinch_collective_find(op, strlen(op)) : CINCH_COLLECTIVES;
    if (collective == CINCH_COLLECTIVES || !len || !cinch_dtype_size(dtype))
        return cinch_fail(
            cinchInvalidArgument,
            "cinchCommDescribePlan takes an operation of `cinch perf`, a datatype and "
            "a length");
    const cinch_algo *algo = NULL;
    cinch_cut cut = {.parts = 1, .rounds = 1, .round = bytes / cinch_dtype_size(dtype)};
    unsigned codecs = 0;
    if (comm->nranks > 1 && collective != CINCH_SENDRECV)
        CINCH_TRY(choose(comm, collective, bytes, dtype, &codecs, &algo, &cut));
    char text[512], predicted[32] = "null";
    bool inner = comm->inner_state == CINCH_INNER_MADE; /* then calls on a device go by NCCL */
    double us = inner || codecs >> CINCH_CODEC_INSIDE & 1
                    ? NAN /* nobody has measured that */
                    : cinch_op_predict(comm, collective, bytes, codecs);
    const char *between, *inside = codec_names(comm, algo, codecs, &between);
    if (isfinite(us)) snprintf(predicted, sizeof predicted, "%.6g", us);
    int wrote =
        snprintf(text, sizeof text,
                 "{\"op\":\"%s\",\"bytes\":%zu,\"dtype\":\"%s\",\"algo\":\"%s\",\"codec\":\"%s\","
                 "\"codec_intra\":\"%s\",\"transport\":\"%s\",\"chunk_bytes\":%zu,\"rounds\":%zu,"
                 "\"predicted_us\":%s}",
                 op, bytes, cinch_dtype_name(dtype),
                 inner              ? "nccl"
                 : algo             ? algo->name
                 : comm->nranks > 1 ? "direct"
                                    : "copy",
                 between, inside, inner ? "nccl" : transport_of(comm),
                 cut.round / (size_t)cut.parts * cinch_dtype_size(dtype), cut.rounds, predicted);
    size_t need = (size_t)wrote + 1, room = *len;
    *len = need;
    if (!json) return cinchSuccess;
    if (room < need)
        return cinch_fail(cinchInvalidArgument, "the plan's description needs %zu bytes, not %zu",
                          need, room);
    memcpy(json, text, need);
    return cinchSuccess;
}

static int open_stats(const cinch_settings *settings) {
    char path[1024];
    cinch_log_path(settings->stats_file, path, sizeof path);
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

bool cinch_stats_writable(const cinch_settings *settings, char *why) {
    if (!settings->stats_file[0]) return true;
    int fd = open_stats(settings);
    if (fd < 0)
        snprintf(why, CINCH_ERROR_TEXT,
                 "CINCH_STATS_FILE=%.300s: %s; a file that can be written is accepted",
                 settings->stats_file, strerror(errno));
    else
        close(fd);
    return fd >= 0;
}

void cinch_stats_write(struct cinchComm *comm) {
    if (!comm->settings.stats_file[0]) return;
    char line[640], name[2 * sizeof comm->name];
    size_t used = 0;
    for (const char *c = comm->name; *c; c++) {
        if (*c == '"' || *c == '\\') name[used++] = '\\';
        name[used++] = (unsigned char)*c < 32 ? '?' : *c;
    }
    name[used] = '\0';
    cinchStats_t s;
    fill(comm, &s);
    int wrote = snprintf(
        line, sizeof line,
        "{\"comm\":\"%s\",\"rank\":%d,\"ranks\":%d,\"calls\":%llu,\"bytes\":%llu,"
        "\"wire_bytes\":%llu,\"comm_us\":%.1f,\"codec_us\":%.1f,\"compressed_calls\":%llu,"
        "\"nonfinite\":%llu,\"ef_bytes\":%llu,\"ef_dropped\":%llu}\n",
        name, comm->rank, comm->nranks, (unsigned long long)s.calls, (unsigned long long)s.bytes,
        (unsigned long long)s.wire_bytes, s.comm_us, s.codec_us,
        (unsigned long long)s.compressed_calls, (unsigned long long)s.nonfinite,
        (unsigned long long)s.ef_bytes, (unsigned long long)s.ef_dropped);
    int fd = open_stats(&comm->settings);
    if (fd < 0 || write(fd, line, (size_t)wrote) != wrote)
        cinch_warn("CINCH_STATS_FILE=%s cannot be written", comm->settings.stats_file);
    if (fd >= 0) close(fd);
}

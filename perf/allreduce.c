/* SPDX-License-Identifier: Apache-2.0 */
/* Measures and checks one all-reduce: one size, type and operator. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/status.h"
#include "coll/comm.h"
#include "compress/dtype.h"
#include "perf/check.h"
#include "perf/perf.h"

#define SAMPLE_US 1000.0 /* the least duration of a sample */
#define BATCH_MOST (1u << 24)

typedef struct job {
    cinch_bench *bench;
    cinch_data data;
    cinchRedOp_t redop;
    size_t count, bytes;
    size_t slots, stride;       /* more than one slot only with --cold */
    size_t next;                /* slot */
    unsigned char *send, *recv; /* the same in place */
} job;

/* Two pools (in place: one) that together are twice the last-level cache, in slots with a page and
 * a line between them, so that neither a neighbour's prefetch nor one cache set serves them all. */
static void lay_out(job *j) {
    j->slots = 1;
    j->stride = j->bytes;
    if (!j->bench->options->cold) return;
    size_t pool = cinch_cpu_llc_bytes() * (j->bench->options->in_place ? 2 : 1);
    j->stride = (j->bytes + 4095) / 4096 * 4096 + 4096 + 64;
    j->slots = pool / j->stride + 2;
}

static cinchResult_t allocate(const job *j, unsigned char **buffer) {
    size_t size = j->slots * j->stride;
    void *p = NULL;
    if (j->bench->options->mem_cinch)
        CINCH_TRY(cinchMemAlloc(&p, size));
    else
        p = malloc(size);
    if (!p) return cinch_fail(cinchSystemError, "out of memory: a buffer of %zu bytes", size);
    memset(p, 0, size); /* touched: nobody measures page faults, nor the kernel's zero page */
    *buffer = p;
    return cinchSuccess;
}

static void release(const job *j, unsigned char *buffer) {
    if (j->bench->options->mem_cinch && buffer)
        cinchMemFree(buffer);
    else
        free(buffer);
}

static cinchResult_t make_redop(job *j) {
    static const cinchRedOp_t redops[] = {cinchSum, cinchProd, cinchMax, cinchMin, cinchAvg};
    if (j->data.op != CINCH_OP_MULSUM) {
        j->redop = redops[j->data.op];
        return cinchSuccess;
    }
    int scalar = cinch_data_scalar(j->bench->place.rank);
    return cinchRedOpCreatePreMulSum(&j->redop, j->data.table[scalar], j->data.dtype,
                                     cinchScalarHostImmediate, j->bench->comm);
}

static void job_end(job *j) {
    if (j->redop >= cinchNumOps) cinchRedOpDestroy(j->redop, j->bench->comm);
    if (j->send != j->recv) release(j, j->send);
    release(j, j->recv);
}

/* In place, repeated calls would feed on their own results until those overflow, and infinities and
 * subnormals have other speeds: so in place the timed calls work on zeros. */
static cinchResult_t job_begin(job *j, cinch_bench *bench, cinchDataType_t dtype, cinch_op op,
                               uint64_t bytes) {
    const cinch_perf_options *o = bench->options;
    size_t element = cinch_dtype_size(dtype);
    *j = (job){.bench = bench};
    j->count = bytes / element ? bytes / element : 1;
    j->bytes = j->count * element;
    cinch_data_setup(&j->data, o->data, &bench->input, bench->place.size, dtype, op);
    lay_out(j);
    CINCH_TRY(make_redop(j));
    CINCH_TRY(allocate(j, &j->recv));
    if (o->in_place) {
        j->send = j->recv;
        return cinchSuccess;
    }
    CINCH_TRY(allocate(j, &j->send));
    cinch_data_fill(&j->data, bench->place.rank, 0, j->count, j->send);
    for (size_t s = 1; s < j->slots; s++) memcpy(j->send + s * j->stride, j->send, j->bytes);
    return cinchSuccess;
}

static inline cinchResult_t call(job *j) {
    size_t at = j->next * j->stride;
    if (++j->next == j->slots) j->next = 0;
    return cinchAllReduce(j->send + at, j->recv + at, j->count, j->data.dtype, j->redop,
                          j->bench->comm, NULL);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Takes the samples. A batch grows until a sample is long enough; every rank sees the same times,
 * so that all grow it alike. */
static cinchResult_t take_samples(job *j, double *sample) {
    const cinch_perf_options *o = j->bench->options;
    unsigned batch = 1;
    for (int i = 0; i < o->warmup; i++) CINCH_TRY(call(j));
    for (int n = 0; n < o->samples;) {
        uint64_t start = cinch_now_ns();
        for (unsigned i = 0; i < batch; i++) CINCH_TRY(call(j));
        double us = (double)(cinch_now_ns() - start) / 1e3;
        CINCH_TRY(cinchAllReduce(&us, &us, 1, cinchFloat64, cinchMax, j->bench->exact, NULL));
        if (us >= SAMPLE_US || batch == BATCH_MOST) {
            sample[n++] = us / batch;
        } else {
            double wanted = batch * fmin(1.25 * SAMPLE_US / us, 100) + 1;
            batch = wanted < BATCH_MOST ? (unsigned)wanted : BATCH_MOST;
        }
    }
    return cinchSuccess;
}

static cinchResult_t time_calls(job *j, cinch_row *row) {
    int n = j->bench->options->samples;
    double *sample = malloc((size_t)n * sizeof *sample);
    if (!sample) return cinch_fail(cinchSystemError, "out of memory: %d samples", n);
    cinchResult_t result = take_samples(j, sample);
    if (result == cinchSuccess) {
        qsort(sample, (size_t)n, sizeof *sample, ascending);
        row->time_us = (sample[n / 2] + sample[(n - 1) / 2]) / 2;
        row->time_min_us = sample[0];
    }
    free(sample);
    return result;
}

/* The text of "key":"..." in what cinchCommDescribePlan wrote; "" where there is none. */
static void plan_text(const char *json, const char *key, char *text, size_t room) {
    char pattern[32];
    snprintf(pattern, sizeof pattern, "\"%s\":\"", key);
    const char *found = strstr(json, pattern);
    text[0] = '\0';
    if (found) {
        found += strlen(pattern);
        snprintf(text, room, "%.*s", (int)strcspn(found, "\""), found);
    }
}

static cinchResult_t read_plan(job *j, cinch_row *row) {
    char json[1024];
    size_t room = sizeof json;
    CINCH_TRY(
        cinchCommDescribePlan(j->bench->comm, "allreduce", j->bytes, j->data.dtype, json, &room));
    plan_text(json, "algo", row->algo, sizeof row->algo);
    plan_text(json, "codec", row->codec, sizeof row->codec);
    plan_text(json, "transport", row->transport, sizeof row->transport);
    return cinchSuccess;
}

/* What really ran, and the bytes of one call. The description knows no operator, and only sum and
 * avg are compressed: where the counters say that the call was not, it is asked again without. */
static cinchResult_t find_plan(job *j, cinch_row *row) {
    cinchStats_t before = {.size = sizeof before}, after = {.size = sizeof after};
    cinchComm_t comm = j->bench->comm;
    CINCH_TRY(cinchCommGetStats(comm, &before));
    CINCH_TRY(call(j));
    CINCH_TRY(cinchCommGetStats(comm, &after));
    row->wire_bytes = after.wire_bytes - before.wire_bytes;
    CINCH_TRY(read_plan(j, row));
    if (!strcmp(row->codec, "none") || after.compressed_calls > before.compressed_calls)
        return cinchSuccess;
    CINCH_TRY(cinchCommSetCodec(comm, "none"));
    CINCH_TRY(read_plan(j, row));
    return cinchCommSetCodec(comm, NULL);
}

static cinchResult_t fresh_call_on(job *j, cinchComm_t comm, uint64_t *hash) {
    if (j->send == j->recv)
        cinch_data_fill(&j->data, j->bench->place.rank, 0, j->count, j->recv);
    else
        memset(j->recv, 0xa5, j->bytes); /* an earlier result must not pass for this one's */
    CINCH_TRY(cinchAllReduce(j->send, j->recv, j->count, j->data.dtype, j->redop, comm, NULL));
    *hash = cinch_data_hash(j->recv, j->bytes);
    return cinchSuccess;
}

/* One call on fresh data from a fresh state. Codecs keep residuals, and round at random by a count
 * of calls: with one, a fresh state is a new communicator, past the calls that stay exact. */
static cinchResult_t fresh_call(job *j, bool compressed, uint64_t *hash) {
    cinchComm_t comm = NULL;
    float one = 1;
    if (!compressed) return fresh_call_on(j, j->bench->comm, hash);
    CINCH_TRY(cinch_bench_join(j->bench, &comm));
    cinchResult_t result = cinchSuccess;
    for (int64_t i = 0; i < comm->settings.codec_warmup && result == cinchSuccess; i++)
        result = cinchAllReduce(&one, &one, 1, cinchFloat32, cinchMax, comm, NULL);
    if (result == cinchSuccess) result = fresh_call_on(j, comm, hash);
    if (result == cinchSuccess) return cinchCommDestroy(comm);
    cinchCommAbort(comm);
    return result;
}

/* Brings the ranks' verdicts together. What this rank has seen counts even where the all-reduce
 * that does so is as wrong as the one on trial. */
static cinchResult_t agree(job *j, cinch_row *row, cinch_verdict *mine, bool repeatable,
                           bool *failed) {
    enum { HASH, NOT_HASH, WRONG, WIRE, NOT_REPEATABLE, NOT_JUDGED, WORDS };
    uint64_t hash = row->result_hash;
    uint64_t word[WORDS] = {hash, ~hash, mine->wrong, row->wire_bytes, !repeatable, !mine->judged};
    double error[2] = {mine->rel_l2, mine->max_abs_err};
    cinchComm_t exact = j->bench->exact;
    CINCH_TRY(cinchAllReduce(word, word, WORDS, cinchUint64, cinchMax, exact, NULL));
    CINCH_TRY(cinchAllReduce(error, error, 2, cinchFloat64, cinchMax, exact, NULL));
    row->wire_bytes = word[WIRE];
    if (!row->checked) return cinchSuccess;
    row->judged = !word[NOT_JUDGED];
    row->wrong = word[WRONG];
    row->rel_l2 = error[0];
    row->max_abs_err = error[1];
    row->ranks_identical = word[HASH] == hash && word[NOT_HASH] == ~hash;
    row->repeatable = !word[NOT_REPEATABLE];
    *failed = (mine->judged && mine->wrong) || !repeatable || (row->judged && row->wrong) ||
              !row->ranks_identical || !row->repeatable;
    return cinchSuccess;
}

static cinchResult_t check_result(job *j, cinch_row *row, bool *failed) {
    cinch_verdict verdict = {.judged = true};
    uint64_t again = 0;
    bool compressed = strcmp(row->codec, "none") != 0;
    row->checked = j->bench->options->check;
    if (!row->checked) return agree(j, row, &verdict, true, failed);
    /* The plan tells the codec's name; its parameters, which the bound wants, are not public. */
    cinch_check check = {&j->data, compressed ? &j->bench->comm->policy.codec : NULL,
                         strcmp(row->algo, "exchange") != 0};
    CINCH_TRY(fresh_call(j, compressed, &row->result_hash));
    if (!cinch_check_result(&check, j->recv, j->count, &verdict))
        return cinch_fail(cinchSystemError, "out of memory: checking %zu elements", j->count);
    CINCH_TRY(fresh_call(j, compressed, &again));
    return agree(j, row, &verdict, again == row->result_hash, failed);
}

cinchResult_t cinch_allreduce_measure(cinch_bench *bench, cinchDataType_t dtype, cinch_op op,
                                      uint64_t bytes, cinch_row *row, bool *failed) {
    job j;
    *failed = false;
    cinchResult_t result = job_begin(&j, bench, dtype, op, bytes);
    *row = (cinch_row){.bytes = j.bytes, .count = j.count, .dtype = dtype, .op = op};
    if (result == cinchSuccess) result = time_calls(&j, row);
    if (result == cinchSuccess) result = find_plan(&j, row);
    if (result == cinchSuccess) result = check_result(&j, row, failed);
    job_end(&j);
    return result;
}

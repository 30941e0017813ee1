/* SPDX-License-Identifier: Apache-2.0 */
/* Measures and checks one operation: one size, type, operator and root. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "coll/comm.h"
#include "compress/dtype.h"
#include "perf/buffers.h"
#include "perf/check.h"
#include "perf/perf.h"

#define SAMPLE_US 1000.0 /* the least duration of a sample */
#define BATCH_MOST (1u << 24)

typedef struct job {
    cinch_bench *bench;
    const cinch_operation *operation;
    cinch_data data;
    cinch_invocation call; /* on slot 0 */
    size_t bytes;          /* as reported: of the longest buffer */
    size_t result_bytes;   /* of this rank's */
    cinch_buffers buffers;
    size_t next; /* slot */
} job;

static cinchResult_t make_redop(job *j) {
    static const cinchRedOp_t redops[] = {cinchSum, cinchProd, cinchMax, cinchMin, cinchAvg};
    if (j->data.op == CINCH_OP_NONE) return cinchSuccess;
    if (j->data.op != CINCH_OP_MULSUM) {
        j->call.redop = redops[j->data.op];
        return cinchSuccess;
    }
    int scalar = cinch_data_scalar(j->bench->place.rank);
    return cinchRedOpCreatePreMulSum(&j->call.redop, j->data.table[scalar], j->data.dtype,
                                     cinchScalarHostImmediate, j->bench->comm);
}

static void job_end(job *j) {
    if (j->call.redop >= cinchNumOps) cinchRedOpDestroy(j->call.redop, j->bench->comm);
    cinch_perf_gpu_forget(&j->bench->gpu, &j->buffers);
    cinch_buffers_free(&j->buffers);
}

/* In place, repeated calls would feed on their own results until those overflow, and infinities and
 * subnormals have other speeds: so in place the timed calls work on zeros. */
static cinchResult_t job_begin(job *j, cinch_bench *bench, const cinch_case *c) {
    const cinch_perf_options *o = bench->options;
    int n = bench->place.size, rank = bench->place.rank;
    size_t element = cinch_dtype_size(c->dtype);
    size_t blocks = (size_t)cinch_total_blocks(o->operation, n);
    size_t count = c->bytes / blocks / element ? c->bytes / blocks / element : 1;
    *j = (job){.bench = bench, .operation = o->operation, .bytes = blocks * count * element};
    j->call = (cinch_invocation){.count = count,
                                 .dtype = c->dtype,
                                 .redop = cinchSum,
                                 .root = c->root,
                                 .rank = rank,
                                 .nranks = n};
    cinch_buffers_shape shape = {.operation = o->operation,
                                 .rank = rank,
                                 .nranks = n,
                                 .root = c->root,
                                 .count = count,
                                 .element = element,
                                 .in_place = o->in_place,
                                 .cold = o->cold,
                                 .mem_cinch = o->mem_cinch,
                                 .shift = o->unaligned ? element : 0};
    cinch_data_setup(&j->data, o->data, &bench->input, n, c->dtype, c->op);
    CINCH_TRY(make_redop(j));
    CINCH_TRY(cinch_buffers_make(&j->buffers, &shape));
    CINCH_TRY(cinch_perf_gpu_mirror(&bench->gpu, &j->buffers));
    j->call.send = cinch_perf_gpu_at(&j->buffers, j->buffers.send);
    j->call.recv = cinch_perf_gpu_at(&j->buffers, j->buffers.recv);
    j->call.stream = bench->gpu.stream;
    j->result_bytes = j->buffers.recv_bytes;
    if (!o->in_place) cinch_buffers_fill(&j->buffers, &j->data);
    return cinch_perf_gpu_put(&bench->gpu, &j->buffers);
}

static inline cinchResult_t call(job *j) {
    if (j->buffers.slots == 1) return j->operation->call(&j->call, j->bench->comm);
    cinch_invocation at = j->call;
    size_t skip = j->next * j->buffers.stride;
    if (++j->next == j->buffers.slots) j->next = 0;
    if (at.send) at.send = (const unsigned char *)at.send + skip;
    if (at.recv) at.recv = (unsigned char *)at.recv + skip;
    return j->operation->call(&at, j->bench->comm);
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
    CINCH_TRY(cinch_perf_gpu_finish(&j->bench->gpu, j->bench->comm));
    for (int n = 0; n < o->samples;) {
        uint64_t start = cinch_now_ns();
        for (unsigned i = 0; i < batch; i++) CINCH_TRY(call(j));
        CINCH_TRY(cinch_perf_gpu_finish(&j->bench->gpu, j->bench->comm));
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

/* ---- beside a computation ---- */

static cinchResult_t call_beside(void *arg) {
    return call(arg);
}

static cinchResult_t finish_beside(void *arg) {
    const job *j = arg;
    if (j->bench->gpu.work) return cinch_perf_gpu_finish(&j->bench->gpu, j->bench->comm);
    return cinchStreamSynchronize(j->call.stream);
}

/* One rank communicates with nobody. */
static cinchResult_t measure_overlap(job *j, cinch_row *row) {
    cinch_bench *bench = j->bench;
    if (!bench->options->overlap || bench->place.size == 1) return cinchSuccess;
    const cinch_overlap_calls calls = {call_beside, finish_beside, j, bench->exact};
    cinchStream_t before = j->call.stream;
    j->call.stream = bench->beside;
    row->overlapped = true;
    cinchResult_t result = cinch_overlap_measure(&calls, &bench->product, &row->overlap);
    j->call.stream = before;
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

/* The number of "key":NUMBER there, NaN for null. */
static double plan_number(const char *json, const char *key) {
    char pattern[32], *end;
    snprintf(pattern, sizeof pattern, "\"%s\":", key);
    const char *found = strstr(json, pattern);
    if (!found) return NAN;
    double number = strtod(found + strlen(pattern), &end);
    return end == found + strlen(pattern) ? NAN : number;
}

static cinchResult_t read_plan(job *j, cinch_row *row) {
    char json[1024];
    size_t room = sizeof json;
    CINCH_TRY(cinchCommDescribePlan(j->bench->comm, j->operation->name, j->bytes, j->data.dtype,
                                    json, &room));
    plan_text(json, "algo", row->algo, sizeof row->algo);
    plan_text(json, "codec", row->codec_inter, sizeof row->codec_inter);
    plan_text(json, "codec_intra", row->codec_intra, sizeof row->codec_intra);
    bool one = !strcmp(row->codec_intra, "none") || !strcmp(row->codec_intra, row->codec_inter);
    snprintf(row->codec, sizeof row->codec, "%s%s%s", one ? "" : row->codec_intra, one ? "" : "+",
             row->codec_inter);
    plan_text(json, "transport", row->transport, sizeof row->transport);
    row->predicted_us = plan_number(json, "predicted_us");
    return cinchSuccess;
}

/* What really ran, and the bytes of one call. The description knows no operator, and only sum and
 * avg are compressed: where the counters say that the call was not, it is asked again without. */
static cinchResult_t find_plan(job *j, cinch_row *row) {
    cinchStats_t before = {.size = sizeof before}, after = {.size = sizeof after};
    cinchComm_t comm = j->bench->comm;
    CINCH_TRY(cinchCommGetStats(comm, &before));
    CINCH_TRY(call(j));
    CINCH_TRY(cinch_perf_gpu_finish(&j->bench->gpu, comm));
    CINCH_TRY(cinchCommGetStats(comm, &after));
    row->wire_bytes = after.wire_bytes - before.wire_bytes;
    CINCH_TRY(read_plan(j, row));
    if (!strcmp(row->codec, "none") || after.compressed_calls > before.compressed_calls)
        return cinchSuccess;
    CINCH_TRY(cinchCommSetCodec(comm, "none"));
    CINCH_TRY(read_plan(j, row));
    return cinchCommSetCodec(comm, NULL);
}

/* *hash: of this rank's result. */
static cinchResult_t fresh_call_on(job *j, cinchComm_t comm, uint64_t *hash) {
    cinch_buffers_prepare(&j->buffers, &j->data);
    CINCH_TRY(cinch_perf_gpu_put(&j->bench->gpu, &j->buffers));
    CINCH_TRY(j->operation->call(&j->call, comm));
    CINCH_TRY(cinch_perf_gpu_finish(&j->bench->gpu, comm));
    CINCH_TRY(cinch_perf_gpu_get(&j->bench->gpu, &j->buffers));
    *hash = cinch_data_hash(j->buffers.recv, j->result_bytes);
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

/* One hash for all results. Where they are not the same, every rank's goes into it. */
static cinchResult_t hash_all(job *j, cinch_row *row) {
    uint64_t part[2] = {row->result_hash, (uint64_t)j->call.rank}, sum = 0;
    if (cinch_same_everywhere(j->operation)) return cinchSuccess;
    if (j->result_bytes) sum = cinch_data_hash(part, sizeof part);
    CINCH_TRY(cinchAllReduce(&sum, &sum, 1, cinchUint64, cinchSum, j->bench->exact, NULL));
    row->result_hash = sum;
    return cinchSuccess;
}

/* Brings the ranks' verdicts together. What this rank has seen counts even where the all-reduce
 * that does so is as wrong as the one on trial. */
static cinchResult_t agree(job *j, cinch_row *row, cinch_verdict *mine, bool repeatable,
                           bool *failed) {
    enum { HASH, NOT_HASH, WRONG, WIRE, SPOILT, NOT_REPEATABLE, NOT_JUDGED, WORDS };
    uint64_t hash = row->result_hash;
    uint64_t word[WORDS] = {hash,        ~hash,       mine->wrong,  row->wire_bytes,
                            row->spoilt, !repeatable, !mine->judged};
    double error[2] = {mine->rel_l2, mine->max_abs_err};
    cinchComm_t exact = j->bench->exact;
    *failed = (mine->judged && mine->wrong) || row->spoilt || !repeatable;
    CINCH_TRY(cinchAllReduce(word, word, WORDS, cinchUint64, cinchMax, exact, NULL));
    CINCH_TRY(cinchAllReduce(error, error, 2, cinchFloat64, cinchMax, exact, NULL));
    row->wire_bytes = word[WIRE];
    if (!row->checked) return cinchSuccess;
    row->judged = !word[NOT_JUDGED];
    row->wrong = word[WRONG];
    row->spoilt = word[SPOILT];
    row->rel_l2 = error[0];
    row->max_abs_err = error[1];
    row->shared = cinch_same_everywhere(j->operation);
    row->ranks_identical = row->shared && word[HASH] == hash && word[NOT_HASH] == ~hash;
    row->repeatable = !word[NOT_REPEATABLE];
    *failed |= (row->judged && row->wrong) || row->spoilt || !row->repeatable ||
               (row->shared && !row->ranks_identical);
    return hash_all(j, row);
}

/* Whether a codec of all-reduce rounds twice: at the inputs, and at the sums. What is scattered or
 * gathered is encoded once. */
static bool encodes_sums(const job *j, const cinch_row *row) {
    return cinch_reduces(j->operation) && cinch_same_everywhere(j->operation) &&
           strcmp(row->algo, "exchange") != 0;
}

/* What is encoded in turn: inputs, then sums of hosts and of sites. The plan tells the codecs'
 * names; their parameters, which the bound wants, are not public. */
static void name_codecs(const job *j, const cinch_row *row, cinch_check *check) {
    const struct cinchComm *comm = j->bench->comm;
    const cinch_codec *list[4] = {NULL};
    bool between = strcmp(row->codec_inter, "none") != 0, levels = strcmp(row->algo, "hier") == 0;
    bool inside = levels && strcmp(row->codec_intra, "none") != 0;
    int n = 0;
    if (inside && (cinch_reduces(j->operation) || !between)) list[n++] = &comm->policy.inside;
    if (between) list[n++] = &comm->policy.codec;
    if (between && levels && comm->sites > 1 && cinch_reduces(j->operation))
        list[n++] = &comm->policy.codec;
    check->codec = list[0];
    check->then[0] = list[1];
    check->then[1] = list[2];
}

static cinchResult_t check_result(job *j, cinch_row *row, bool *failed) {
    cinch_verdict verdict = {.judged = true};
    uint64_t again = 0;
    bool compressed = strcmp(row->codec, "none") != 0;
    row->checked = j->bench->options->check;
    if (!row->checked) return agree(j, row, &verdict, true, failed);
    cinch_check check = {.operation = j->operation,
                         .rank = j->call.rank,
                         .root = j->call.root,
                         .data = &j->data,
                         .sum_encoded = encodes_sums(j, row)};
    name_codecs(j, row, &check);
    CINCH_TRY(fresh_call(j, compressed, &row->result_hash));
    if (!cinch_check_result(&check, j->buffers.recv, j->call.count, &verdict))
        return cinch_fail(cinchSystemError, "out of memory: checking %zu elements", j->call.count);
    row->spoilt = cinch_buffers_spoilt(&j->buffers, &j->data);
    CINCH_TRY(fresh_call(j, compressed, &again));
    return agree(j, row, &verdict, again == row->result_hash, failed);
}

cinchResult_t cinch_measure(cinch_bench *bench, const cinch_case *c, cinch_row *row, bool *failed) {
    job j;
    *failed = false;
    cinchResult_t result = job_begin(&j, bench, c);
    *row = (cinch_row){
        .bytes = j.bytes, .count = j.call.count, .dtype = c->dtype, .op = c->op, .root = c->root};
    if (result == cinchSuccess) result = time_calls(&j, row);
    if (result == cinchSuccess) result = measure_overlap(&j, row);
    if (result == cinchSuccess) result = find_plan(&j, row);
    if (result == cinchSuccess) result = check_result(&j, row, failed);
    job_end(&j);
    *failed |= row->overlapped && !row->overlap.right;
    return result;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What each rank sees of its host, gathered and joined to one graph. */
#include "coll/atlas_look.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "coll/comm.h"
#include "topo/detect.h"
#include "topo/job.h"

enum { STEP_BYTES = 16 << 10 };

/* What a rank tells the others first. */
typedef struct card {
    uint64_t hash, length; /* of its host as text */
    uint32_t host;
    uint32_t gpus; /* in the file that it read; 0: it looked for itself */
    uint32_t code; /* a cinchResult_t: it could not */
    char why[CINCH_ERROR_TEXT];
    char at[CINCH_GRAPH_MOST_NAME + 1]; /* where it sits */
} card;

typedef struct look {
    const struct cinchComm *comm;
    card mine, *all;
    char *text;
    char **texts; /* [nranks] of each rank that is the first with that text, else NULL */
} look;

static bool same_text(const card *a, const card *b) {
    return a->hash == b->hash && a->length == b->length;
}
static int host_of(const struct cinchComm *comm, int rank) {
    return comm->host ? comm->host[rank] : 0;
}

/* ---- this rank's view ---- */

/* A file of the whole job has a GPU for each rank, one of a host for each of its ranks; where it
 * has none, ranks run on its CPUs. */
static cinchResult_t sit_in_file(look *l, const cinch_topology *t) {
    const struct cinchComm *comm = l->comm;
    int before = 0, here = 0;
    for (int q = 0; q < comm->nranks; q++) {
        bool mate = host_of(comm, q) == host_of(comm, comm->rank);
        before += mate && q < comm->rank;
        here += mate;
    }
    l->mine.gpus = (uint32_t)t->graph.gpus;
    int gpu = t->graph.gpus == comm->nranks ? comm->rank : before;
    if (t->graph.gpus == 0) {
        cinch_detect_place(&t->graph, l->mine.at);
        return cinchSuccess;
    }
    if (t->graph.gpus != comm->nranks && t->graph.gpus < here)
        return cinch_fail(cinchInvalidUsage,
                          "CINCH_TOPO_FILE=%.200s has %d GPUs: %d, one for each rank, or at least "
                          "%d, for those of a host, are accepted",
                          comm->settings.topo_file, t->graph.gpus, comm->nranks, here);
    strcpy(l->mine.at, t->graph.node[cinch_graph_gpu(&t->graph, gpu)].name);
    return cinchSuccess;
}

static void tell_warnings(const look *l, const cinch_topology *t) {
    for (int i = 0; i < t->warnings && l->comm->rank == 0; i++)
        cinch_info("the machine: %s", t->warning[i]);
}

static cinchResult_t look_here(look *l) {
    const char *file = l->comm->settings.topo_file;
    cinch_topology t;
    size_t length = 0;
    if (file[0])
        CINCH_TRY(cinch_topology_read_file(file, CINCH_TOPOLOGY_AUTO, &t));
    else
        CINCH_TRY(cinch_detect(NULL, &t));
    tell_warnings(l, &t);
    cinchResult_t result = cinchSuccess;
    if (file[0])
        result = sit_in_file(l, &t);
    else
        cinch_detect_place(&t.graph, l->mine.at);
    if (result == cinchSuccess) result = cinch_job_text(&t.graph, &l->text, &length);
    cinch_topology_free(&t);
    l->mine.length = length;
    l->mine.hash = cinch_hash(l->text ? l->text : "", length);
    return result;
}

/* ---- all views ---- */

static cinchResult_t share_cards(look *l) {
    int n = l->comm->nranks;
    cinchResult_t result = look_here(l);
    l->mine.host = (uint32_t)host_of(l->comm, l->comm->rank);
    if (result != cinchSuccess) {
        l->mine.code = (uint32_t)result;
        strncpy(l->mine.why, cinch_last_error(), sizeof l->mine.why - 1);
    }
    l->all = malloc((size_t)n * sizeof *l->all);
    if (!l->all) return cinch_fail(cinchSystemError, "out of memory for %d ranks", n);
    CINCH_TRY(cinch_rendezvous_allgather(l->comm->meeting, &l->mine, sizeof l->mine, l->all));
    for (int q = 0; q < n; q++) {
        card *c = &l->all[q];
        c->why[sizeof c->why - 1] = c->at[sizeof c->at - 1] = '\0';
        if (c->code)
            return cinch_fail((cinchResult_t)c->code, "rank %d knows no machine: %s", q, c->why);
        if (c->length > CINCH_TOPOLOGY_MOST_BYTES)
            return cinch_fail(cinchRemoteError, "rank %d describes its host in %llu bytes", q,
                              (unsigned long long)c->length);
    }
    return cinchSuccess;
}

static int first_with(const look *l, int rank) {
    int first = 0;
    while (!same_text(&l->all[first], &l->all[rank])) first++;
    return first;
}

/* The piece of its text that a rank hands round: those who have the same one share it out. */
static size_t piece_of(const look *l, int rank, size_t *begin) {
    size_t holders = 0, before = 0, length = l->all[rank].length;
    for (int q = 0; q < l->comm->nranks; q++) {
        bool same = same_text(&l->all[q], &l->all[rank]);
        before += same && q < rank;
        holders += same;
    }
    size_t piece = (length + holders - 1) / holders;
    *begin = before * piece < length ? before * piece : length;
    return length - *begin < piece ? length - *begin : piece;
}

/* Copies what rank q hands round from `done` on, at most `step` bytes. */
static void copy_step(const look *l, int q, size_t done, size_t step, const char *from) {
    size_t begin, piece = piece_of(l, q, &begin);
    if (done >= piece) return;
    size_t bytes = piece - done < step ? piece - done : step;
    memcpy(l->texts[first_with(l, q)] + begin + done, from, bytes);
}

static cinchResult_t share_texts(look *l) {
    size_t n = (size_t)l->comm->nranks, begin, most = 0;
    l->texts = calloc(n, sizeof *l->texts);
    if (!l->texts) return cinch_fail(cinchSystemError, "out of memory for %zu ranks", n);
    for (int q = 0; q < (int)n; q++) {
        size_t piece = piece_of(l, q, &begin);
        if (piece > most) most = piece;
        if (first_with(l, q) != q) continue;
        l->texts[q] = malloc(l->all[q].length + 1);
        if (!l->texts[q])
            return cinch_fail(cinchSystemError, "out of memory for a description of a host");
    }
    size_t step = most < STEP_BYTES ? most : STEP_BYTES;
    char *mine = calloc(1, step + 1), *all = malloc(n * step + 1);
    cinchResult_t result =
        mine && all ? cinchSuccess : cinch_fail(cinchSystemError, "out of memory");
    size_t piece = piece_of(l, l->comm->rank, &begin);
    for (size_t done = 0; result == cinchSuccess && done < most; done += step) {
        size_t bytes = piece > done ? piece - done : 0;
        memcpy(mine, l->text + begin + (bytes ? done : 0), bytes < step ? bytes : step);
        result = cinch_rendezvous_allgather(l->comm->meeting, mine, step, all);
        for (size_t q = 0; q < n && result == cinchSuccess; q++)
            copy_step(l, (int)q, done, step, all + q * step);
    }
    free(mine);
    free(all);
    return result;
}

/* ---- one graph ---- */

/* Whether a file describes the whole job: every rank has read it. */
static bool one_file(const look *l) {
    for (int q = 0; q < l->comm->nranks; q++)
        if (l->all[q].gpus != (uint32_t)l->comm->nranks || !same_text(&l->all[q], &l->all[0]))
            return false;
    return true;
}

static cinchResult_t read_hosts(const look *l, cinch_graph *host, cinch_job_rank *rank) {
    int hosts = 0;
    for (int q = 0; q < l->comm->nranks; q++) {
        const card *c = &l->all[q];
        int first = first_with(l, q);
        rank[q].host = host_of(l->comm, q);
        strcpy(rank[q].at, c->at);
        if (rank[q].host != hosts) continue; /* hosts are numbered by their first ranks */
        CINCH_TRY(cinch_graph_read(&host[hosts++], l->texts[first], c->length, "a host"));
    }
    return cinchSuccess;
}

static cinchResult_t join_hosts(const look *l, cinch_graph *graph) {
    int n = l->comm->nranks, hosts = l->comm->host ? l->comm->hosts : 1;
    cinch_graph *host = calloc((size_t)hosts, sizeof *host);
    const cinch_graph **each = calloc((size_t)hosts, sizeof *each);
    cinch_job_rank *rank = calloc((size_t)n, sizeof *rank);
    cinchResult_t result =
        host && each && rank ? cinchSuccess : cinch_fail(cinchSystemError, "out of memory");
    for (int h = 0; result == cinchSuccess && h < hosts; h++) each[h] = &host[h];
    if (result == cinchSuccess) result = read_hosts(l, host, rank);
    if (result == cinchSuccess) result = cinch_job_graph(each, hosts, rank, n, graph);
    for (int h = 0; host && h < hosts; h++) cinch_graph_free(&host[h]);
    free(host);
    free(each);
    free(rank);
    return result;
}

cinchResult_t cinch_look_together(const struct cinchComm *comm, cinch_graph *graph) {
    look l = {.comm = comm};
    cinchResult_t result = share_cards(&l);
    if (result == cinchSuccess) result = share_texts(&l);
    if (result == cinchSuccess)
        result = one_file(&l) ? cinch_graph_read(graph, l.texts[0], l.all[0].length, "the machine")
                              : join_hosts(&l, graph);
    for (int q = 0; l.texts && q < comm->nranks; q++) free(l.texts[q]);
    free(l.texts);
    free(l.text);
    free(l.all);
    return result;
}

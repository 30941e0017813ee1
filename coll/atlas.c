/* SPDX-License-Identifier: Apache-2.0 */
/* The graph in force, and what was planned on it. */
#include "coll/atlas.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coll/atlas_look.h"
#include "coll/engine.h"
#include "topo/bounds.h"
#include "topo/job.h"
#include "topo/readers.h"

typedef struct planned {
    struct planned *next;
    cinch_collective collective;
    int root;
    bool failed;
    cinch_forest forest;
} planned;

struct cinch_atlas {
    cinch_graph graph;
    cinch_pace pace;
    bool certain; /* from a file or measured: detection assumes some of its numbers */
    planned *plans;
};

static const struct {
    cinch_collective collective;
    cinch_plan_op op;
} planned_ops[] = {{CINCH_ALLREDUCE, CINCH_PLAN_ALLREDUCE},
                   {CINCH_ALLGATHER, CINCH_PLAN_ALLGATHER},
                   {CINCH_REDUCESCATTER, CINCH_PLAN_REDUCESCATTER},
                   {CINCH_BROADCAST, CINCH_PLAN_BROADCAST},
                   {CINCH_REDUCE, CINCH_PLAN_REDUCE}};

/* -1: trees do not serve it. */
static int plan_op_of(cinch_collective collective) {
    for (size_t i = 0; i < sizeof planned_ops / sizeof *planned_ops; i++)
        if (planned_ops[i].collective == collective) return (int)planned_ops[i].op;
    return -1;
}

static void forget_plans(cinch_atlas *atlas) {
    while (atlas->plans) {
        planned *p = atlas->plans;
        atlas->plans = p->next;
        cinch_forest_free(&p->forest);
        free(p);
    }
}

void cinch_atlas_free(struct cinchComm *comm) {
    if (!comm->atlas) return;
    forget_plans(comm->atlas);
    cinch_graph_free(&comm->atlas->graph);
    free(comm->atlas);
    comm->atlas = NULL;
}

/* With sockets a message takes longer than its way: so much that the usual way, which is 5 us by
 * CINCH_LINK_LATENCIES, makes the 10 us that cinch_cost_step has without a graph. */
static const double SOCKETS_US = 5;

/* What links tell nothing of: sockets take longer, and in shared memory each byte is copied twice,
 * by two ranks that nobody else slows down. */
static void add_transport(const struct cinchComm *comm, cinch_pace *pace) {
    cinch_call plain = {.windows = comm->all_local};
    double least_us = cinch_cost_byte(&plain);
    if (pace->byte_us == 0) return;
    if (!comm->all_local) {
        pace->step_us += SOCKETS_US;
    } else if (pace->byte_us < least_us) {
        pace->crossing = fmax(pace->crossing * pace->byte_us / least_us, 1);
        pace->byte_us = least_us;
    }
}

/* Takes the graph over. */
static cinchResult_t put_in_force(struct cinchComm *comm, cinch_graph *graph, bool certain) {
    if (graph->gpus != comm->nranks)
        return cinch_fail(cinchInvalidArgument, "a graph of %d GPUs is not one of %d ranks",
                          graph->gpus, comm->nranks);
    cinch_pace pace;
    CINCH_TRY(cinch_pace_find(graph, &pace));
    cinch_atlas *atlas = calloc(1, sizeof *atlas);
    if (!atlas) return cinch_fail(cinchSystemError, "out of memory for a graph");
    cinch_atlas_free(comm);
    cinch_op_forget(comm);
    atlas->graph = *graph;
    atlas->certain = certain;
    *graph = (cinch_graph){0};
    atlas->pace = pace;
    add_transport(comm, &atlas->pace);
    comm->atlas = atlas;
    return cinchSuccess;
}

cinchResult_t cinch_atlas_use_graph(struct cinchComm *comm, const cinch_graph *graph) {
    cinch_graph copy = {0};
    char *text;
    size_t length;
    CINCH_TRY(cinch_job_text(graph, &text, &length));
    cinchResult_t result = cinch_graph_read(&copy, text, length, "a graph");
    free(text);
    if (result == cinchSuccess) result = put_in_force(comm, &copy, true);
    cinch_graph_free(&copy);
    return result;
}

cinchResult_t cinch_atlas_use_tuned(struct cinchComm *comm, const cinch_tuned *tuned) {
    double alpha_us = tuned->hosts > 1 ? tuned->net_alpha_us : tuned->shm_alpha_us;
    CINCH_TRY(cinch_atlas_use_graph(comm, &tuned->graph));
    if (alpha_us > 0) comm->atlas->pace.step_us = alpha_us;
    return cinchSuccess;
}

const cinch_pace *cinch_atlas_pace(const struct cinchComm *comm) {
    return comm->atlas && comm->atlas->pace.byte_us > 0 ? &comm->atlas->pace : NULL;
}

const cinch_graph *cinch_atlas_graph(const struct cinchComm *comm) {
    return comm->atlas ? &comm->atlas->graph : NULL;
}

/* ---- plans ---- */

static bool forced(const struct cinchComm *comm, cinch_collective collective) {
    return strcmp(comm->policy.algo[collective], "forest") == 0;
}

static bool wanted(const struct cinchComm *comm, cinch_collective collective) {
    return forced(comm, collective) || cinch_choice_has_forest(comm->choice, collective);
}

static cinchResult_t make_plan(const struct cinchComm *comm, planned *p, int root) {
    const cinch_graph *graph = &comm->atlas->graph;
    int64_t most = comm->settings.trees;
    cinch_plan_options options = {.most_trees = most < INT_MAX ? (int)most : INT_MAX};
    cinch_plan plan;
    cinch_plan_op op = (cinch_plan_op)plan_op_of(p->collective);
    CINCH_TRY(cinch_plan_make(graph, op, root, &options, &plan));
    cinchResult_t result = cinch_forest_make(graph, &plan, &p->forest);
    cinch_plan_free(&plan);
    return result;
}

const cinch_forest *cinch_atlas_forest(const struct cinchComm *comm, cinch_collective collective,
                                       int root) {
    cinch_atlas *atlas = comm->atlas;
    if (!atlas || plan_op_of(collective) < 0) return NULL;
    if (!cinch_shape_rooted(cinch_shape_of(collective))) root = -1;
    for (planned *p = atlas->plans; p; p = p->next)
        if (p->collective == collective && p->root == root) return p->failed ? NULL : &p->forest;
    if (!wanted(comm, collective)) return NULL;
    planned *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    *p = (planned){.next = atlas->plans, .collective = collective, .root = root};
    p->failed = make_plan(comm, p, root) != cinchSuccess;
    if (p->failed)
        cinch_warn("no trees for %s: %s", cinch_shape_of(collective)->name, cinch_last_error());
    atlas->plans = p;
    return p->failed ? NULL : &p->forest;
}

double cinch_atlas_bound(const struct cinchComm *comm, cinch_collective collective, int root) {
    cinch_bounds bounds;
    int op = plan_op_of(collective);
    if (!comm->atlas || !comm->atlas->certain || op < 0 ||
        cinch_bounds_find(&comm->atlas->graph, root, &bounds) != cinchSuccess)
        return 0;
    const double of[] = {[CINCH_PLAN_ALLREDUCE] = bounds.allreduce,
                         [CINCH_PLAN_ALLGATHER] = bounds.allgather,
                         [CINCH_PLAN_REDUCESCATTER] = bounds.reducescatter,
                         [CINCH_PLAN_BROADCAST] = bounds.broadcast,
                         [CINCH_PLAN_REDUCE] = bounds.reduce};
    return of[op];
}

/* ---- joining ---- */

static cinchResult_t write_graph(const cinch_graph *graph, const char *path) {
    size_t length = strlen(path);
    bool xml = length > 4 && strcmp(path + length - 4, ".xml") == 0;
    FILE *to = fopen(path, "we");
    if (!to)
        return cinch_fail(cinchInvalidUsage,
                          "CINCH_TOPO_DUMP=%.300s: %s; a file that can be written is accepted",
                          path, strerror(errno));
    cinchResult_t result =
        xml ? cinch_topology_write_nccl(graph, to) : cinch_graph_write(graph, to);
    if (fclose(to) != 0 && result == cinchSuccess)
        result = cinch_fail_errno(errno, "CINCH_TOPO_DUMP=%.300s cannot be written", path);
    return result;
}

bool cinch_atlas_asked(const struct cinchComm *comm) {
    bool asked = comm->settings.topo_file[0] || comm->settings.topo_dump[0];
    for (int c = 0; c < CINCH_COLLECTIVES; c++) asked |= forced(comm, (cinch_collective)c);
    return asked;
}

cinchResult_t cinch_atlas_join(struct cinchComm *comm) {
    const char *dump = comm->settings.topo_dump;
    cinch_graph graph = {0};
    CINCH_TRY(cinch_look_together(comm, &graph));
    cinchResult_t result = put_in_force(comm, &graph, comm->settings.topo_file[0]);
    cinch_graph_free(&graph);
    if (result == cinchSuccess && comm->rank == 0 && dump[0] &&
        write_graph(&comm->atlas->graph, dump) != cinchSuccess)
        cinch_warn("%s", cinch_last_error());
    return result;
}

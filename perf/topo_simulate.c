/* SPDX-License-Identifier: Apache-2.0 */
/* Simulates a plan and what it is compared with, and prints the times. */
#include "perf/topo_simulate.h"

#include "base/log.h"
#include "perf/topo_clean.h"

/* Schedules of a ring have 2n steps for each of n ranks: building those of 1024 ranks takes many
 * seconds, and a plan of that size is made in less. */
enum { RING_MOST = 512 };

/* A refusal becomes the run's sentence. */
static cinchResult_t note(cinch_topo_run *run, cinchResult_t result) {
    if (result != cinchInvalidArgument) return result;
    snprintf(run->why, sizeof run->why, "%s", cinch_last_error());
    return cinchSuccess;
}

/* The best ring that there is, as only neighbours on it need have a way to each other. */
static cinchResult_t run_ring(const cinch_graph *graph, const cinch_plan *plan, uint64_t bytes,
                              cinch_topo_run *run) {
    cinch_plan_options options = {.kind = CINCH_PLAN_RING};
    cinch_plan ring;
    *run = (cinch_topo_run){.name = "one ring"};
    if (plan->ranks > RING_MOST) {
        snprintf(run->why, sizeof run->why, "simulated for comparison up to %d ranks", RING_MOST);
        return cinchSuccess;
    }
    cinch_log_level level = cinch_log_threshold;
    cinch_log_threshold = CINCH_LOG_NONE; /* that there is none is an answer, not a failure */
    cinchResult_t result = cinch_plan_make(graph, plan->op, plan->root, &options, &ring);
    cinch_log_threshold = level;
    if (result != cinchSuccess) return note(run, result);
    result = note(run, cinch_simulate_plan(graph, &ring, bytes, NULL, &run->result));
    cinch_plan_free(&ring);
    return result;
}

static cinchResult_t run_tree(const cinch_graph *graph, const cinch_plan *plan, uint64_t bytes,
                              cinch_topo_run *run) {
    *run = (cinch_topo_run){.name = "a tree in the order of ranks"};
    return note(
        run, cinch_simulate_named(graph, "tree", plan->op, plan->root, bytes, NULL, &run->result));
}

cinchResult_t cinch_topo_simulate(const cinch_graph *graph, const cinch_plan *plan, uint64_t bytes,
                                  bool others, cinch_topo_simulated *s) {
    bool trees = plan->op != CINCH_PLAN_ALLGATHER && plan->op != CINCH_PLAN_REDUCESCATTER;
    *s = (cinch_topo_simulated){.plan = {.name = "the plan"}};
    CINCH_TRY(note(&s->plan, cinch_simulate_plan(graph, plan, bytes, NULL, &s->plan.result)));
    if (!others || plan->ranks < 2) return cinchSuccess;
    if (plan->kind != CINCH_PLAN_RING)
        CINCH_TRY(run_ring(graph, plan, bytes, &s->other[s->others++]));
    if (trees) CINCH_TRY(run_tree(graph, plan, bytes, &s->other[s->others++]));
    return cinchSuccess;
}

static void print_us(FILE *f, double us) {
    if (us < 1000)
        fprintf(f, "%.4g us", us);
    else
        fprintf(f, "%.4g ms", us / 1000);
}

static void print_busiest(FILE *f, const cinch_graph *graph, const cinch_simulation *result) {
    char from[CINCH_GRAPH_MOST_NAME + 1], to[CINCH_GRAPH_MOST_NAME + 1];
    if (result->busiest < 0) return;
    const cinch_arc *arc = &graph->arc[result->busiest];
    fprintf(f, "; the busiest link, %s to %s, is in use for %.1f %% of the time",
            cinch_topo_clean(graph->node[arc->from].name, from, sizeof from),
            cinch_topo_clean(graph->node[arc->to].name, to, sizeof to), 100 * result->busy);
}

void cinch_topo_simulated_text(FILE *f, const cinch_graph *graph, const cinch_topo_simulated *s,
                               double predicted_us) {
    const cinch_simulation *plan = &s->plan.result;
    if (s->plan.why[0]) {
        fprintf(f, "simulated: no: %s\n", s->plan.why);
    } else {
        fputs("simulated: ", f);
        print_us(f, plan->us);
        fputs(", predicted without latencies: ", f);
        print_us(f, predicted_us);
        print_busiest(f, graph, plan);
        if (plan->simulated < plan->rounds)
            fprintf(f, "; %zu of %zu rounds, the rest in proportion%s", plan->simulated,
                    plan->rounds, plan->rough ? ", roughly" : "");
        putc('\n', f);
    }
    for (int i = 0; i < s->others; i++) {
        fprintf(f, "  %s: ", s->other[i].name);
        if (s->other[i].why[0])
            fputs(s->other[i].why, f);
        else
            print_us(f, s->other[i].result.us);
        putc('\n', f);
    }
}

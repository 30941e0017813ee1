/* SPDX-License-Identifier: Apache-2.0 */
/* How fast messages are on a machine, and what follows for the choice of algorithms without a plan
 * file: on random machines against ways walked one by one, on made-up ones by hand, and on
 * communicators with a topology file. */
#include <math.h>
#include <unistd.h>

#include "coll/algo.h"
#include "coll/comm.h"
#include "coll/simulate.h"
#include "perf/random_machine.h"
#include "tests/family.h"
#include "topo/pace.h"
#include "topo/route.h"

static bool near(double a, double b) {
    return fabs(a - b) <= 1e-9 * fabs(b);
}

/* ---- against every way, link by link ---- */

static void walk_all(const cinch_graph *g, cinch_pace *pace) {
    cinch_routes r;
    double *load = calloc((size_t)g->arcs, sizeof *load), step = 0, narrowest = INFINITY, most = 0;
    OK(cinch_routes_make(g, &r));
    for (int to = 0; to < g->gpus; to++) {
        cinch_routes_to(&r, g->gpu[to]);
        for (int from = 0; from < g->gpus; from++) {
            double us = 0;
            for (int v = g->gpu[from]; v != g->gpu[to]; v = g->arc[r.arc[v]].to) {
                const cinch_arc *a = &g->arc[r.arc[v]];
                us += cinch_simulate_defaults.latency_us[a->link];
                narrowest = fmin(narrowest, a->gbps);
                load[r.arc[v]]++;
            }
            step = fmax(step, us);
        }
    }
    for (int a = 0; a < g->arcs; a++) most = fmax(most, load[a] / g->arc[a].gbps);
    *pace = (cinch_pace){step, 1e-3 / narrowest, most * narrowest / (g->gpus - 1)};
    cinch_routes_free(&r);
    free(load);
}

START_TEST(random_machines_have_their_slowest_way) {
    for (int number = 1; number <= 150; number++) {
        cinch_graph g = {0};
        cinch_pace pace, walked;
        random_machine(&g, (uint64_t)number);
        OK(cinch_pace_find(&g, &pace));
        walk_all(&g, &walked);
        ck_assert_msg(near(pace.step_us, walked.step_us) && near(pace.byte_us, walked.byte_us) &&
                          near(pace.crossing, walked.crossing),
                      "machine %d: %g %g %g, not %g %g %g", number, pace.step_us, pace.byte_us,
                      pace.crossing, walked.step_us, walked.byte_us, walked.crossing);
        cinch_graph_free(&g);
    }
}
END_TEST

/* Hosts on one network, a link each; inside, ranks on a bus. */
static void star(cinch_graph *g, int hosts, int here, const double *net_gbps, double bus_gbps) {
    int net, host, rank;
    *g = (cinch_graph){0};
    OK(cinch_graph_add_node(g, "net", CINCH_NODE_SWITCH, CINCH_PART_NET, 0, &net));
    for (int h = 0; h < hosts; h++) {
        char name[32];
        snprintf(name, sizeof name, "host%d", h);
        OK(cinch_graph_add_node(g, name, CINCH_NODE_SWITCH, CINCH_PART_CPU, h, &host));
        OK(cinch_graph_add_link(g, host, net, net_gbps[h], net_gbps[h], CINCH_LINK_NET));
        for (int r = 0; r < here; r++) {
            snprintf(name, sizeof name, "rank%d.%d", h, r);
            OK(cinch_graph_add_node(g, name, CINCH_NODE_GPU, CINCH_PART_OTHER, h, &rank));
            OK(cinch_graph_add_link(g, rank, host, bus_gbps, bus_gbps, CINCH_LINK_SHM));
        }
    }
}

START_TEST(a_network_is_what_counts) {
    const double even[] = {2, 2, 2, 2, 2, 2, 2, 2}, uneven[] = {2, 0.5, 2, 2};
    for (int hosts = 2; hosts <= 8; hosts++)
        for (int here = 1; here <= 8; here++) {
            cinch_graph g;
            cinch_pace pace;
            star(&g, hosts, here, even, 100);
            OK(cinch_pace_find(&g, &pace));
            ck_assert(near(pace.step_us, 2 * 1.5 + 2 * 0.2) && near(pace.byte_us, 1e-3 / 2));
            /* the same as the formula for hosts whose ranks share a network */
            cinch_call call = {.nranks = hosts * here, .hosts = hosts, .per_host = here};
            ck_assert(near(pace.crossing, cinch_cost_crossing(&call)));
            cinch_graph_free(&g);
        }
    cinch_graph g;
    cinch_pace pace;
    star(&g, 4, 1, uneven, 100);
    OK(cinch_pace_find(&g, &pace));
    ck_assert(near(pace.byte_us, 1e-3 / 0.5) && near(pace.crossing, 1));
    cinch_graph_free(&g);
    star(&g, 1, 4, even, 8); /* one host: the network is on no way */
    OK(cinch_pace_find(&g, &pace));
    ck_assert(near(pace.step_us, 2 * 0.2) && near(pace.byte_us, 1e-3 / 8));
    cinch_graph_free(&g);
}
END_TEST

START_TEST(where_no_way_is_nothing_is_known) {
    cinch_graph g = {0};
    cinch_pace pace = {1, 1, 1};
    OK(cinch_pace_find(&g, &pace));
    ck_assert(pace.byte_us == 0 && pace.step_us == 0);
    for (int i = 0; i < 3; i++) {
        char name[8];
        snprintf(name, sizeof name, "r%d", i);
        OK(cinch_graph_add_node(&g, name, CINCH_NODE_GPU, CINCH_PART_OTHER, 0, NULL));
    }
    OK(cinch_graph_add_link(&g, 0, 1, 1, 1, CINCH_LINK_OTHER));
    OK(cinch_graph_add_arc(&g, 1, 2, 1, CINCH_LINK_OTHER)); /* and none back */
    pace.byte_us = 1;
    OK(cinch_pace_find(&g, &pace));
    ck_assert(pace.byte_us == 0);
    cinch_graph_free(&g);
}
END_TEST

/* ---- what is chosen ---- */

static const char *chosen(cinch_collective collective, int nranks, size_t bytes,
                          const cinch_pace *pace) {
    cinch_call call = {
        .collective = collective, .nranks = nranks, .bytes = bytes, .pace = pace, .hosts = nranks};
    return cinch_algo_choose(&call)->name;
}

/* Many short messages or few long ones: what is better hangs on how many bytes a latency is worth.
 */
START_TEST(slow_links_and_long_latencies_choose_otherwise) {
    const cinch_pace gigabit = {10, 8.5e-3, 1}, fast = {2, 4e-5, 1}, far = {500, 8e-4, 1},
                     crowded = {2, 4e-5, 8};
    const size_t size = 512 << 10;
    ck_assert_str_eq(chosen(CINCH_ALLREDUCE, 15, size, NULL), "direct");
    ck_assert_str_eq(chosen(CINCH_ALLREDUCE, 15, size, &gigabit), "ring");
    ck_assert_str_eq(chosen(CINCH_ALLREDUCE, 15, size, &fast), "direct");
    ck_assert_str_eq(chosen(CINCH_ALLREDUCE, 15, size, &crowded), "tree");
    ck_assert_str_eq(chosen(CINCH_ALLREDUCE, 15, 8 << 20, NULL), "ring");
    ck_assert_str_eq(chosen(CINCH_ALLREDUCE, 15, 8 << 20, &far), "direct");
    for (int i = 0; cinch_algo_at(i); i++) { /* every cost goes by it that knows of messages */
        const cinch_algo *algo = cinch_algo_at(i);
        cinch_call call = {.collective = algo->collective, .nranks = 16, .bytes = size};
        if (algo->supports(&call)) continue;
        double before = algo->cost(&call);
        call.pace = &gigabit;
        if (before < 1e8) ck_assert_msg(algo->cost(&call) > 2 * before, "%s", algo->name);
    }
}
END_TEST

/* ---- communicators ---- */

static char path[64];

static double predicted(seat *me, const char *op, size_t bytes) {
    char json[1024];
    size_t room = sizeof json;
    if (cinchCommDescribePlan(me->comm, op, bytes, cinchFloat, json, &room) != cinchSuccess)
        return NAN;
    const char *found = strstr(json, "\"predicted_us\":");
    return found ? strtod(found + 15, NULL) : NAN;
}

static bool ring_takes(seat *me, double step_us, double byte_us) {
    for (size_t bytes = 4096; bytes <= 4 << 20; bytes *= 32) {
        double us = 6 * (step_us + (double)(bytes / 4) * byte_us);
        if (fabs(predicted(me, "allreduce", bytes) / us - 1) > 0.001) return false;
    }
    return true;
}

static void with_a_graph(seat *me) {
    const cinch_pace *pace = cinch_atlas_pace(me->comm);
    CHECK(me, pace && near(pace->byte_us, 0.01) && near(pace->crossing, 1));
    CHECK(me, ring_takes(me, 6, 0.01));
    CHECK(me, adds_up(me->comm, me->rank, 6));
}

/* Links of 100 GB/s, and of 1: copies take longer than those, and these longer than copies. */
static void over_fast_memory(seat *me) {
    CHECK(me, me->comm->all_local && cinch_atlas_pace(me->comm));
    CHECK(me, near(cinch_atlas_pace(me->comm)->crossing, 1));
    CHECK(me, ring_takes(me, 1, 1.2e-4));
}
static void over_slow_memory(seat *me) {
    CHECK(me, ring_takes(me, 1, 1e-3));
}

static void without(seat *me) {
    CHECK(me, !cinch_atlas_pace(me->comm));
    CHECK(me, ring_takes(me, 10, 8e-4));
}

static void own_host(seat *me) {
    char name[16];
    snprintf(name, sizeof name, "h%d", me->rank);
    setenv("CINCH_HOSTID", name, 1);
}

static void write_star(const char *gbps, const char *of_one) {
    FILE *to = fopen(path, "w");
    ck_assert_ptr_nonnull(to);
    fputs("switch s\n", to);
    for (int r = 0; r < 4; r++)
        fprintf(to, "gpu g%d\nlink g%d s %s\n", r, r, r == 2 ? of_one : gbps);
    ck_assert_int_eq(fclose(to), 0);
}

START_TEST(communicators_go_by_their_graph) {
    char env[128];
    write_star("5", "0.1");
    snprintf(env, sizeof env, "CINCH_ALGO=ring CINCH_TOPO_FILE=%s", path);
    ranks_case job = {
        .nranks = 4, .processes = true, .env = env, .env_of = own_host, .body = with_a_graph};
    ranks_run(&job);
    job.env = "CINCH_ALGO=ring";
    job.body = without;
    ranks_run(&job);
    job.env = env;
    job.env_of = NULL;
    job.body = over_fast_memory;
    write_star("100", "100");
    ranks_run(&job);
    job.body = over_slow_memory;
    write_star("100", "1");
    ranks_run(&job);
    unlink(path);
}
END_TEST

int main(void) {
    snprintf(path, sizeof path, "/tmp/cinch-pace-%d.graph", (int)getpid());
    const TTest *const tests[] = {random_machines_have_their_slowest_way, a_network_is_what_counts,
                                  where_no_way_is_nothing_is_known,
                                  slow_links_and_long_latencies_choose_otherwise,
                                  communicators_go_by_their_graph};
    return run_tests("pace", tests, sizeof tests / sizeof *tests, 60);
}

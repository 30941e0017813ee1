/* SPDX-License-Identifier: Apache-2.0 */
/* Measuring: the graph that explains a network, the network over loopback between hosts told apart
 * by CINCH_HOSTID, curves, and plan files that come of them. */
#include <math.h>
#include <signal.h>
#include <unistd.h>

#include "coll/engine.h"
#include "coll/planfile.h"
#include "coll/tune.h"
#include "tests/family.h"
#include "topo/plan.h"

/* ---- graphs of made-up networks ---- */

enum { MOST_HOSTS = 24 };

typedef struct made_up {
    int hosts, per_host;
    double up[MOST_HOSTS], down[MOST_HOSTS]; /* MB/s */
    int leaf;                                /* hosts on a leaf; 0: one switch */
    double across;                           /* between leaves, each pair */
    double noise;
    uint64_t seed;
} made_up;

static double told(const made_up *m, int from, int to) {
    double rate = fmin(m->up[from], m->down[to]);
    return m->leaf && from / m->leaf != to / m->leaf ? fmin(rate, m->across) : rate;
}

/* What would be measured, and the graph that is made of it. */
static void infer(const made_up *m, cinch_graph *graph) {
    cinch_tune_net net;
    uint64_t state = m->seed;
    uint16_t host[4 * MOST_HOSTS];
    int n = m->hosts, ranks = n * m->per_host;
    OK(cinch_tune_net_make(&net, n));
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            double dice = (double)(random64(&state) >> 11) / 9007199254740992.0 * 2 - 1;
            if (i != j) net.gbps[i * n + j] = told(m, i, j) / 1e3 * (1 + m->noise * dice);
        }
    for (int i = 0; i < n && n > 2; i++) {
        double out = 0, in = 0;
        for (int j = 0; j < n; j++)
            if (i != j) out += told(m, i, j), in += told(m, j, i);
        net.out[i] = fmin(out, m->up[i]) / 1e3;
        net.in[i] = fmin(in, m->down[i]) / 1e3;
    }
    net.shm_gbps = m->per_host > 1 ? 5 : 0;
    for (int r = 0; r < ranks; r++) host[r] = (uint16_t)(r / m->per_host);
    *graph = (cinch_graph){0};
    OK(cinch_tune_graph(&net, ranks, host, graph));
    ck_assert_int_eq(graph->gpus, ranks);
    for (int r = 0; r < ranks; r++) ck_assert_int_eq(graph->node[graph->gpu[r]].host, host[r]);
    cinch_tune_net_free(&net);
}

/* MB/s on the way from one host to another, and of its narrowest link. */
static double arc(const cinch_graph *g, const char *from, const char *to) {
    int a = cinch_graph_find(g, from), b = cinch_graph_find(g, to);
    int index = a < 0 || b < 0 ? -1 : cinch_graph_find_arc(g, a, b);
    return index < 0 ? 0 : 1e3 * g->arc[index].gbps;
}

static double carried(const cinch_graph *g, int i, int j) {
    char from[16], to[16], out[16], in[16];
    snprintf(from, sizeof from, "host%d", i);
    snprintf(to, sizeof to, "host%d", j);
    if (cinch_graph_find(g, "net") >= 0) return fmin(arc(g, from, "net"), arc(g, "net", to));
    snprintf(out, sizeof out, "out%d", i);
    snprintf(in, sizeof in, "in%d", j);
    return fmin(arc(g, out, in), fmin(arc(g, from, out), arc(g, in, to)));
}

/* Every pair is explained within so much, and plans can be made. */
static void explains(const made_up *m, const cinch_graph *g, double within) {
    cinch_plan plan;
    for (int i = 0; i < m->hosts; i++)
        for (int j = 0; j < m->hosts; j++)
            if (i != j)
                ck_assert_msg(fabs(carried(g, i, j) / told(m, i, j) - 1) <= within,
                              "seed %llu: %d to %d is %g, not %g", (unsigned long long)m->seed, i,
                              j, carried(g, i, j), told(m, i, j));
    OK(cinch_plan_make(g, CINCH_PLAN_ALLREDUCE, -1, NULL, &plan));
    OK(cinch_plan_check(g, &plan));
    cinch_plan_free(&plan);
}

START_TEST(uneven_links_are_a_star) {
    for (uint64_t seed = 1; seed <= 40; seed++) {
        made_up m = {.hosts = 4,
                     .per_host = 1 + (int)(seed % 2),
                     .up = {1000, 1000, 250, 500},
                     .down = {1000, 1000, 250, 500},
                     .noise = seed == 1  ? 0
                              : seed % 3 ? 0.02
                                         : 0.03,
                     .seed = seed};
        cinch_graph g;
        infer(&m, &g);
        ck_assert_int_ge(cinch_graph_find(&g, "net"), 0);
        explains(&m, &g, 0.06);
        /* What is the same and only measured differently is the same in the graph. */
        if (m.noise < 0.03) ck_assert(arc(&g, "host0", "net") == arc(&g, "net", "host1"));
        if (m.noise < 0.03) ck_assert(arc(&g, "host2", "net") == arc(&g, "net", "host2"));
        if (seed == 1) ck_assert(arc(&g, "host3", "net") == 500);
        cinch_graph_free(&g);
    }
}
END_TEST

START_TEST(noise_makes_no_other_machine) {
    for (uint64_t seed = 1; seed <= 20; seed++) {
        made_up m = {.hosts = 3 + (int)seed, .per_host = 1, .noise = 0.03, .seed = seed};
        cinch_graph g;
        for (int h = 0; h < m.hosts; h++) m.up[h] = m.down[h] = 1175;
        infer(&m, &g);
        explains(&m, &g, 0.03);
        for (int h = 0; h < m.hosts; h++) {
            char host[16];
            snprintf(host, sizeof host, "host%d", h);
            ck_assert(arc(&g, host, "net") == arc(&g, "host0", "net"));
            ck_assert(arc(&g, "net", host) == arc(&g, "host0", "net"));
        }
        cinch_graph_free(&g);
    }
}
END_TEST

START_TEST(totals_tell_more_than_pairs) {
    made_up m = {.hosts = 4,
                 .per_host = 1,
                 .up = {700, 250, 250, 250},
                 .down = {800, 250, 250, 250},
                 .seed = 1};
    cinch_graph g;
    infer(&m, &g);
    explains(&m, &g, 0.001);
    ck_assert(arc(&g, "host0", "net") == 700);
    ck_assert(arc(&g, "net", "host0") == 750); /* more than the others can send is not seen */
    cinch_graph_free(&g);
}
END_TEST

START_TEST(directions_may_differ) {
    for (uint64_t seed = 1; seed <= 40; seed++) {
        made_up m = {.per_host = 1, .noise = seed % 2 ? 0 : 0.03, .seed = seed};
        uint64_t state = seed;
        cinch_graph g;
        m.hosts = 2 + (int)(random64(&state) % 7);
        for (int h = 0; h < m.hosts; h++) {
            m.up[h] = 100 * (double)(1 + random64(&state) % 9);
            m.down[h] = 100 * (double)(1 + random64(&state) % 9);
        }
        infer(&m, &g);
        ck_assert_int_ge(cinch_graph_find(&g, "net"), 0);
        explains(&m, &g, m.noise > 0 ? 0.08 : 0.06); /* 700 and 750 may become one value */
        cinch_graph_free(&g);
    }
}
END_TEST

START_TEST(slow_uplinks_are_no_star) {
    for (uint64_t seed = 1; seed <= 20; seed++) {
        made_up m = {.hosts = 6,
                     .per_host = 1,
                     .leaf = seed % 2 ? 2 : 3,
                     .across = 250,
                     .noise = seed == 1 ? 0 : 0.03,
                     .seed = seed};
        cinch_graph g;
        for (int h = 0; h < m.hosts; h++) m.up[h] = m.down[h] = 1000;
        infer(&m, &g);
        ck_assert_int_lt(cinch_graph_find(&g, "net"), 0);
        explains(&m, &g, 0.06);
        ck_assert(fabs(arc(&g, "host0", "out0") - 1000) < 60);
        cinch_graph_free(&g);
    }
}
END_TEST

START_TEST(ranks_hang_on_their_hosts) {
    cinch_tune_net net;
    cinch_graph g = {0};
    const uint16_t host[] = {1, 0, 1};
    OK(cinch_tune_net_make(&net, 2));
    net.gbps[1] = net.gbps[2] = 8;
    net.shm_gbps = 3;
    OK(cinch_tune_graph(&net, 3, host, &g));
    ck_assert(arc(&g, "rank0", "host1") == 3000 && arc(&g, "host1", "rank2") == 3000);
    ck_assert(arc(&g, "rank1", "host0") > 8000); /* alone on its host: not held up there */
    ck_assert(arc(&g, "rank1", "host1") == 0);
    cinch_graph_free(&g);
    FAILS(cinch_tune_graph(&net, 3, (const uint16_t[]){0, 1, 2}, &g), cinchInvalidArgument, NULL,
          "rank 2");
    ck_assert_int_eq(g.nodes, 0);
    cinch_tune_net_free(&net);
}
END_TEST

/* ---- who measures with whom ---- */

START_TEST(everybody_meets_everybody_once) {
    for (int hosts = 1; hosts <= 40; hosts++) {
        int met[40][40] = {{0}};
        for (int s = 0; s < cinch_tune_steps(hosts); s++) {
            int pairs = 0;
            for (int h = 0; h < hosts; h++) {
                int partner = cinch_tune_partner(hosts, s, h);
                if (partner < 0) continue;
                ck_assert_int_ne(partner, h);
                ck_assert_int_eq(cinch_tune_partner(hosts, s, partner), h);
                met[h][partner]++;
                pairs++;
            }
            ck_assert_int_ge(pairs, hosts <= 16 ? 2 : hosts - 1);
            if (hosts <= 16) ck_assert_int_eq(pairs, 2); /* a pair, seen from both */
        }
        for (int a = 0; a < hosts; a++)
            for (int b = 0; b < hosts; b++) ck_assert_int_eq(met[a][b], a != b);
    }
}
END_TEST

/* ---- the network, for real ---- */

typedef struct job {
    int hosts;
    char path[64];
    double gbps[16], alpha_us[16], total[8];
    char text[2][1 << 16];
} job;

static job *board(int hosts) {
    static job *shared;
    if (!shared) shared = shared_memory(sizeof *shared);
    *shared = (job){.hosts = hosts};
    return shared;
}

static void host_of(seat *me) {
    const job *j = me->shared;
    char name[16];
    snprintf(name, sizeof name, "h%d", me->rank % j->hosts);
    setenv("CINCH_HOSTID", name, 1);
}

static void run(job *j, int ranks, const char *env, void (*body)(seat *me)) {
    ranks_run(&(ranks_case){.nranks = ranks,
                            .processes = true,
                            .env = env,
                            .env_of = j->hosts > 1 ? host_of : NULL,
                            .body = body,
                            .shared = j});
}

static void network(seat *me) {
    job *j = me->shared;
    cinch_tune_net net;
    CHECK_OK(me, cinch_tune_network(me->comm, &net));
    CHECK(me, net.hosts == j->hosts);
    CHECK(me, me->nranks == j->hosts ? net.shm_gbps == 0 : net.shm_gbps > 0.01);
    int n = net.hosts;
    for (int i = 0; i < n * n; i++) {
        bool self = i / n == i % n;
        CHECK(me, self ? net.gbps[i] == 0 : net.gbps[i] > 0.001 && net.gbps[i] < 1000);
        CHECK(me, self ? net.alpha_us[i] == 0 : net.alpha_us[i] > 0.1 && net.alpha_us[i] < 1e6);
        CHECK(me, net.alpha_us[i] == net.alpha_us[i % n * n + i / n]);
    }
    for (int h = 0; h < n; h++)
        CHECK(me, n > 2 ? net.out[h] > 0 && net.in[h] > 0 : net.out[h] == 0 && net.in[h] == 0);
    if (me->rank == 0) memcpy(j->gbps, net.gbps, (size_t)(n * n) * sizeof *net.gbps);
    if (me->rank == 0) memcpy(j->total, net.out, (size_t)n * sizeof *net.out);
    CHECK(me, adds_up(me->comm, me->rank, me->nranks * (me->nranks - 1) / 2));
    CHECK(me, memcmp(j->gbps, net.gbps, (size_t)(n * n) * sizeof *net.gbps) == 0);
    CHECK(me, memcmp(j->total, net.out, (size_t)n * sizeof *net.out) == 0);
    cinch_tune_net_free(&net);
}

START_TEST(a_network_is_measured) {
    run(board(3), 3, NULL, network);
    run(board(2), 4, NULL, network);
    run(board(1), 2, NULL, network);
    run(board(1), 1, NULL, network);
}
END_TEST

static void vanishes(seat *me) {
    cinch_tune_net net;
    if (me->rank == 1) raise(SIGKILL);
    CHECK(me, cinch_tune_network(me->comm, &net) == cinchRemoteError);
    CHECK(me, net.gbps == NULL);
    me->gone = true;
    cinchCommAbort(me->comm);
}

static void dies(seat *me) {
    host_of(me);
    me->dies = me->rank == 1;
}

START_TEST(a_rank_that_vanishes_ends_it) {
    ranks_run(&(ranks_case){.nranks = 3,
                            .processes = true,
                            .env_of = dies,
                            .body = vanishes,
                            .shared = board(3),
                            .logs = "*"});
}
END_TEST

/* ---- curves ---- */

static bool sane(const cinch_curve *c) {
    for (int i = 0; i < c->points; i++) {
        if (!(c->point[i].us > 0) || !(c->point[i].us < 1e8)) return false;
        if (i && c->point[i].bytes <= c->point[i - 1].bytes) return false;
    }
    return c->points > 0 && cinch_algo_find(c->collective, c->algo) != NULL;
}

static const cinch_curve *find(const cinch_tuned *t, cinch_collective c, const char *algo,
                               const char *codec) {
    for (int i = 0; i < t->curves; i++)
        if (t->curve[i].collective == c && strcmp(t->curve[i].algo, algo) == 0 &&
            strcmp(t->curve[i].codec, codec) == 0)
            return &t->curve[i];
    return NULL;
}

static void curves(seat *me) {
    job *j = me->shared;
    cinch_tune_options o = {.ops = 1u << CINCH_ALLREDUCE | 1u << CINCH_REDUCESCATTER |
                                   1u << CINCH_BROADCAST,
                            .first = 1 << 14,
                            .last = 1 << 18, /* from where codecs are measured */
                            .budget_ms = 1};
    cinch_tuned tuned = {0};
    cinch_tune_net net;
    cinchStats_t before = {.size = sizeof before}, after = {.size = sizeof after};
    cinch_policy policy = me->comm->policy;
    uint64_t low, high;
    CHECK_OK(me, cinchCommGetStats(me->comm, &before));
    CHECK_OK(me, cinch_tune(me->comm, &o, &net, &tuned));
    CHECK_OK(me, cinchCommGetStats(me->comm, &after));
    CHECK(me, before.calls == after.calls && after.compressed_calls == 0);
    CHECK(me, memcmp(&policy, &me->comm->policy, sizeof policy) == 0);
    low = high = me->comm->oneshot_most; /* it goes by the graph that was measured */
    CHECK_OK(me, cinchAllReduce(&low, &low, 1, cinchUint64, cinchMin, me->comm, NULL));
    CHECK_OK(me, cinchAllReduce(&high, &high, 1, cinchUint64, cinchMax, me->comm, NULL));
    CHECK(me, low == high);
    CHECK(me, tuned.ranks == me->nranks && tuned.hosts == j->hosts && tuned.speeds == 3);
    CHECK(me, tuned.graph.gpus == me->nranks);
    for (int i = 0; i < tuned.curves; i++) CHECK(me, sane(&tuned.curve[i]), "%d", i);
    for (int i = 0; i < tuned.speeds; i++)
        CHECK(me, tuned.speed[i].encode_gbps > 0.01 && tuned.speed[i].decode_gbps > 0.01);
    for (int i = 0; cinch_algo_at(i); i++) { /* all that can serve, and no other */
        const cinch_algo *algo = cinch_algo_at(i);
        if (!(o.ops >> algo->collective & 1)) continue;
        cinch_call call = cinch_op_call(me->comm, algo->collective, 0, 1 << 14);
        if (strcmp(algo->name, "forest") == 0) continue;
        bool able = !algo->supports(&call);
        const cinch_curve *c = find(&tuned, algo->collective, algo->name, "none");
        CHECK(me, able == (c != NULL), "%s", algo->name);
        uint64_t first = 1 << 14, whole = first - 4 * (uint64_t)me->nranks;
        CHECK(me, !c || (c->points == 3 && c->point[0].bytes <= first && c->point[0].bytes > whole),
              "%s", algo->name);
    }
    CHECK(me, find(&tuned, CINCH_ALLREDUCE, "forest", "none") != NULL);
    CHECK(me, find(&tuned, CINCH_BROADCAST, "forest", "none") != NULL);
    const char *codec = me->nranks == 2 ? "exchange" : "twostep";
    CHECK(me, find(&tuned, CINCH_ALLREDUCE, codec, "int8") != NULL);
    CHECK(me, find(&tuned, CINCH_ALLREDUCE, codec, "bf16")->point[0].bytes == 1 << 18);
    char *text;
    size_t length;
    CHECK_OK(me, cinch_planfile_text(&tuned, &text, &length));
    CHECK(me, length < sizeof j->text[0]);
    if (me->rank < 2) memcpy(j->text[me->rank], text, length + 1);
    if (me->rank == 0 && j->path[0]) CHECK_OK(me, cinch_planfile_write(&tuned, j->path));
    free(text);
    cinch_tune_net_free(&net);
    cinch_tuned_free(&tuned);
    CHECK(me, adds_up(me->comm, me->rank, me->nranks * (me->nranks - 1) / 2));
}

START_TEST(curves_are_the_same_on_all_ranks) {
    static const int cases[][2] = {{1, 2}, {3, 3}};
    for (int i = 0; i < 2; i++) {
        job *j = board(cases[i][0]);
        run(j, cases[i][1], NULL, curves);
        ck_assert_int_gt(strlen(j->text[0]), 100);
        ck_assert_str_eq(j->text[0], j->text[1]);
    }
}
END_TEST

/* The table that was read is the one that was written, and decides. */
static void reads_again(seat *me) {
    job *j = me->shared;
    char json[1024], *text;
    size_t length, len = sizeof json;
    CHECK(me, me->comm->tuned != NULL);
    CHECK_OK(me, cinch_planfile_text(me->comm->tuned, &text, &length));
    CHECK(me, strcmp(text, j->text[0]) == 0);
    free(text);
    CHECK_OK(me, cinchCommDescribePlan(me->comm, "allreduce", 1 << 16, cinchFloat, json, &len));
    CHECK(me, strstr(json, "\"algo\""));
    CHECK(me, adds_up(me->comm, me->rank, me->nranks * (me->nranks - 1) / 2));
}

START_TEST(a_plan_file_is_written_and_read) {
    char env[128];
    job *j = board(2);
    snprintf(j->path, sizeof j->path, "/tmp/cinch-tune-%d.json", (int)getpid());
    run(j, 4, NULL, curves);
    snprintf(env, sizeof env, "CINCH_PLAN_FILE=%s", j->path);
    run(j, 4, env, reads_again);
    unlink(j->path);
}
END_TEST

/* ---- the short look ---- */

static void quick(seat *me) {
    cinchStats_t stats = {.size = sizeof stats};
    const cinch_tuned *t = me->comm->tuned;
    CHECK(me, t != NULL);
    int exact = 0, coded = 0;
    for (int i = 0; i < t->curves; i++) {
        CHECK(me, sane(&t->curve[i]));
        exact += strcmp(t->curve[i].codec, "none") == 0;
        coded += strcmp(t->curve[i].codec, "int8") == 0;
    }
    CHECK(me, exact > 0 && coded > 0 && exact + coded == t->curves);
    CHECK_OK(me, cinchCommGetStats(me->comm, &stats));
    CHECK(me, stats.calls == 0 && stats.bytes == 0 && stats.compressed_calls == 0);
    CHECK(me, me->comm->settings.codec_min_bytes == 1 << 20);
    job *j = me->shared;
    if (me->rank == 0) j->gbps[0] = t->curve[0].point[0].us;
    CHECK(me, adds_up(me->comm, me->rank, me->nranks * (me->nranks - 1) / 2));
    CHECK(me, t->curve[0].point[0].us == j->gbps[0]);
}

START_TEST(auto_takes_a_short_look) {
    run(board(2), 3, "CINCH_CODEC=auto", quick);
}
END_TEST

START_TEST(codecs_have_speeds) {
    cinch_codec_speed speed;
    OK(cinch_tune_codec("int8:block=64", &speed));
    ck_assert_str_eq(speed.codec, "int8:block=64");
    ck_assert(speed.encode_gbps > 0.01 && speed.decode_gbps > 0.01);
    FAILS(cinch_tune_codec("int9", &speed), cinchInvalidArgument, NULL, "int9");
    FAILS(cinch_tune_codec("none", &speed), cinchInvalidArgument, NULL, "none");
}
END_TEST

int main(void) {
    const TTest *const tests[] = {uneven_links_are_a_star,
                                  noise_makes_no_other_machine,
                                  totals_tell_more_than_pairs,
                                  directions_may_differ,
                                  slow_uplinks_are_no_star,
                                  ranks_hang_on_their_hosts,
                                  everybody_meets_everybody_once,
                                  a_network_is_measured,
                                  a_rank_that_vanishes_ends_it,
                                  curves_are_the_same_on_all_ranks,
                                  a_plan_file_is_written_and_read,
                                  auto_takes_a_short_look,
                                  codecs_have_speeds};
    return run_tests("tune", tests, sizeof tests / sizeof *tests, 120);
}

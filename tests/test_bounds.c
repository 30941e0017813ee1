/* SPDX-License-Identifier: Apache-2.0 */
/* Bounds against every cut and every partition of small graphs, against plans of trees packed by
 * another method, and on machines whose bounds are known. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/topologies.h"
#include "topo/bounds.h"

enum { MOST_GPUS = 7, MOST_NODES = 11, MOST_ARCS = MOST_NODES * (MOST_NODES - 1) };

static uint64_t rng = 1;

static unsigned random_below(unsigned bound) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(rng >> 33) % bound;
}

static void add_node(cinch_graph *g, char letter, int number) {
    char name[20];
    snprintf(name, sizeof name, "%c%d", letter, number);
    ck_assert_int_eq(cinch_graph_add_node(g, name,
                                          letter == 'g' ? CINCH_NODE_GPU : CINCH_NODE_SWITCH,
                                          CINCH_PART_OTHER, 0, NULL),
                     cinchSuccess);
}

static void add_link(cinch_graph *g, int a, int b, double gbps, double back) {
    ck_assert_int_eq(cinch_graph_add_link(g, a, b, gbps, back, CINCH_LINK_OTHER), cinchSuccess);
}

static cinch_graph read_text(const char *text) {
    cinch_graph g = {0};
    ck_assert_int_eq(cinch_graph_read(&g, text, strlen(text), "text"), cinchSuccess);
    return g;
}

static cinch_bounds bounds_of(const cinch_graph *g, int root) {
    cinch_bounds b;
    ck_assert_msg(cinch_bounds_find(g, root, &b) == cinchSuccess, "%s", cinch_last_error());
    return b;
}

static void assert_near(double got, double want, const char *what) {
    ck_assert_msg(got == want || fabs(got - want) <= 1e-10 * fabs(want), "%s: %.17g, not %.17g",
                  what, got, want);
}

static void assert_same(cinch_bounds got, cinch_bounds want) {
    assert_near(got.allgather, want.allgather, "all-gather");
    assert_near(got.reducescatter, want.reducescatter, "reduce-scatter");
    assert_near(got.broadcast, want.broadcast, "broadcast");
    assert_near(got.reduce, want.reduce, "reduce");
    assert_near(got.allreduce, want.allreduce, "all-reduce");
    assert_near(got.allreduce_two_step, want.allreduce_two_step, "all-reduce in two steps");
}

typedef enum { SYMMETRIC, BOTH_WAYS, ONE_WAY } style;

/* GPUs and switches in any order, any links; whole, decimal or any bandwidths. */
static cinch_graph random_graph(style s, int most_gpus, int most_switches) {
    cinch_graph g = {0};
    int gpus = 2 + (int)random_below((unsigned)most_gpus - 1);
    int nodes = gpus + (int)random_below((unsigned)most_switches + 1);
    for (int i = 0, left = gpus; i < nodes; i++) {
        bool gpu = (int)random_below((unsigned)(nodes - i)) < left;
        left -= gpu;
        add_node(&g, gpu ? 'g' : 's', i);
    }
    static const double units[] = {25, 0.25, 1.0 / 3};
    double unit = units[random_below(3)];
    unsigned dense = 1 + random_below(4);
    for (int a = 0; a < nodes; a++) {
        for (int b = 0; b < a; b++) {
            double there = unit * (1 + random_below(10)), back = unit * (1 + random_below(10));
            if (random_below(5) >= dense && random_below((unsigned)nodes) > 0) continue;
            if (s == ONE_WAY && random_below(2)) back = 0;
            if (random_below(2))
                add_link(&g, a, b, there, s == SYMMETRIC ? there : back);
            else
                add_link(&g, b, a, there, s == SYMMETRIC ? there : back);
        }
    }
    return g;
}

/* By brute force. */

typedef struct {
    const cinch_graph *g;
    double cut[1 << MOST_GPUS]; /* least capacity out of a set of nodes with just these GPUs */
    double cut_in[1 << MOST_GPUS];
} cuts;

static unsigned gpus_of(const cinch_graph *g, unsigned nodes) {
    unsigned set = 0;
    for (int i = 0; i < g->gpus; i++) set |= (nodes >> cinch_graph_gpu(g, i) & 1) << i;
    return set;
}

static void find_cuts(cuts *c, const cinch_graph *g) {
    c->g = g;
    for (int i = 0; i < 1 << MOST_GPUS; i++) c->cut[i] = c->cut_in[i] = INFINITY;
    for (unsigned set = 0; set < 1u << g->nodes; set++) {
        double out = 0, in = 0;
        for (int i = 0; i < g->arcs; i++) {
            bool from = set >> g->arc[i].from & 1, to = set >> g->arc[i].to & 1;
            if (from && !to) out += g->arc[i].gbps;
            if (to && !from) in += g->arc[i].gbps;
        }
        unsigned gpus = gpus_of(g, set);
        c->cut[gpus] = fmin(c->cut[gpus], out);
        c->cut_in[gpus] = fmin(c->cut_in[gpus], in);
    }
}

/* The least sum of cuts over (parts - 1), over all partitions: GPU i on goes to a part of `part` or
 * to a new one. */
static double least_partition(const double *cut, int gpus, int i, unsigned *part, int parts) {
    double least = INFINITY, sum = 0;
    if (i == gpus) {
        for (int p = 0; p < parts; p++) sum += cut[part[p]];
        return parts > 1 ? sum / (parts - 1) : INFINITY;
    }
    for (int p = 0; p <= parts; p++) {
        part[p] |= 1u << i;
        least = fmin(least, least_partition(cut, gpus, i + 1, part, parts + (p == parts)));
        part[p] &= ~(1u << i);
    }
    return least;
}

static cinch_bounds brute_force(const cinch_graph *g, int root) {
    static cuts c;
    unsigned part[MOST_GPUS + 1] = {0}, every = (1u << g->gpus) - 1;
    find_cuts(&c, g);
    double out = least_partition(c.cut, g->gpus, 0, part, 0);
    double in = least_partition(c.cut_in, g->gpus, 0, part, 0);
    cinch_bounds b = {out, in, out, in, fmin(out, in) / 2, 0};
    for (unsigned set = 1; set < every; set++) {
        double share = (double)g->gpus / __builtin_popcount(set);
        b.allgather = fmin(b.allgather, c.cut[set] * share);
        b.reducescatter = fmin(b.reducescatter, c.cut_in[set] * share);
        if (set >> root & 1) b.broadcast = fmin(b.broadcast, c.cut[set]);
        if (set >> root & 1) b.reduce = fmin(b.reduce, c.cut_in[set]);
        b.allreduce = fmin(b.allreduce, fmin(c.cut[set], c.cut_in[set]));
    }
    if (b.allgather > 0 && b.reducescatter > 0)
        b.allreduce_two_step = 1 / (1 / b.allgather + 1 / b.reducescatter);
    return b;
}

static void every_partition(style s, int rounds) {
    int positive = 0, better = 0;
    for (int round = 0; round < rounds; round++) {
        cinch_graph g = random_graph(s, MOST_GPUS, MOST_NODES - MOST_GPUS);
        int root = (int)random_below((unsigned)g.gpus);
        cinch_bounds b = bounds_of(&g, root);
        assert_same(b, brute_force(&g, root));
        ck_assert(b.allreduce_two_step <= b.allreduce * (1 + 1e-10));
        positive += b.allreduce > 0;
        better += b.allreduce > b.allreduce_two_step * 1.01;
        cinch_graph_free(&g);
    }
    /* The graphs are neither all disconnected nor all alike. */
    ck_assert_int_gt(positive, rounds / 4);
    ck_assert_int_gt(better, rounds / 10);
}

START_TEST(every_partition_symmetric) {
    every_partition(SYMMETRIC, 1500);
}
END_TEST

START_TEST(every_partition_asymmetric) {
    every_partition(BOTH_WAYS, 1000);
    every_partition(ONE_WAY, 1000);
}
END_TEST

/* Plans: trees between GPUs whose edges are shortest ways under prices that grow with the load
 * (multiplicative weights: Plotkin, Shmoys, Tardos 1991; Garg, Könemann 1998). */

typedef struct {
    const cinch_graph *g;
    double load[MOST_ARCS], use[MOST_ARCS], price[MOST_ARCS];
    double length[MOST_NODES][MOST_NODES];
    int next[MOST_NODES][MOST_NODES]; /* the arc to take from one node on the way to another */
} packing;

static void find_ways(packing *p) {
    const cinch_graph *g = p->g;
    for (int v = 0; v < g->nodes; v++)
        for (int w = 0; w < g->nodes; w++) p->length[v][w] = v == w ? 0 : INFINITY;
    for (int i = 0; i < g->arcs; i++) {
        p->length[g->arc[i].from][g->arc[i].to] = p->price[i];
        p->next[g->arc[i].from][g->arc[i].to] = i;
    }
    for (int k = 0; k < g->nodes; k++) {
        for (int v = 0; v < g->nodes; v++) {
            for (int w = 0; w < g->nodes; w++) {
                if (p->length[v][k] + p->length[k][w] >= p->length[v][w]) continue;
                p->length[v][w] = p->length[v][k] + p->length[k][w];
                p->next[v][w] = p->next[v][k];
            }
        }
    }
}

static void load_way(packing *p, int from, int to, double amount) {
    for (int v = from; v != to; v = p->g->arc[p->next[v][to]].to) p->use[p->next[v][to]] += amount;
}

/* Grows a tree from a root by the cheapest edge, and loads it away from the root, towards it, or
 * both. False: a GPU cannot be reached. */
static bool load_tree(packing *p, int root, bool down, bool up, double amount) {
    bool in[MOST_GPUS] = {false};
    in[root] = true;
    for (int edge = 1; edge < p->g->gpus; edge++) {
        double least = INFINITY;
        int a = 0, b = 0;
        for (int i = 0; i < p->g->gpus; i++) {
            for (int j = 0; j < p->g->gpus; j++) {
                int v = cinch_graph_gpu(p->g, i), w = cinch_graph_gpu(p->g, j);
                double cost = (down ? p->length[v][w] : 0) + (up ? p->length[w][v] : 0);
                if (!in[i] || in[j] || cost >= least) continue;
                least = cost;
                a = i;
                b = j;
            }
        }
        if (least == INFINITY) return false;
        in[b] = true;
        int v = cinch_graph_gpu(p->g, a), w = cinch_graph_gpu(p->g, b);
        if (down) load_way(p, v, w, amount);
        if (up) load_way(p, w, v, amount);
    }
    return true;
}

/* The rate of the plan that so many rounds make; `root` -1: each GPU roots 1/n of it. */
static double plan_rate(const cinch_graph *g, int root, bool down, bool up, int rounds) {
    packing p = {.g = g};
    double total = 0, most = 0;
    for (int round = 0; round < rounds; round++) {
        double fullest = 0;
        for (int i = 0; i < g->arcs; i++)
            p.price[i] = exp(0.1 * (p.load[i] - most)) / g->arc[i].gbps;
        find_ways(&p);
        memset(p.use, 0, sizeof p.use);
        for (int i = 0; i < g->gpus; i++)
            if ((root < 0 || i == root) &&
                !load_tree(&p, i, down, up, root < 0 ? 1.0 / g->gpus : 1))
                return 0;
        for (int i = 0; i < g->arcs; i++) fullest = fmax(fullest, p.use[i] / g->arc[i].gbps);
        for (int i = 0; i < g->arcs; i++) {
            p.load[i] += p.use[i] / g->arc[i].gbps / fullest;
            most = fmax(most, p.load[i]);
        }
        total += 1 / fullest;
    }
    return total / most;
}

/* No plan beats a bound; where links are symmetric, all-reduce plans come close to theirs. */
static void no_plan_beats(style s, int graphs) {
    double sum = 0, worst = 1;
    int counted = 0;
    for (int n = 0; n < graphs; n++) {
        cinch_graph g = random_graph(s, 6, 3);
        cinch_bounds b = bounds_of(&g, 0);
        static const double over = 1 + 1e-9;
        ck_assert(plan_rate(&g, -1, true, false, 60) <= b.allgather * over);
        ck_assert(plan_rate(&g, -1, false, true, 60) <= b.reducescatter * over);
        ck_assert(plan_rate(&g, 0, true, false, 60) <= b.broadcast * over);
        ck_assert(plan_rate(&g, 0, false, true, 60) <= b.reduce * over);
        double rate = plan_rate(&g, 0, true, true, 2400);
        ck_assert_msg(rate <= b.allreduce * over, "a plan of %g beats %g", rate, b.allreduce);
        if (b.allreduce > 0) {
            sum += rate / b.allreduce;
            worst = fmin(worst, rate / b.allreduce);
            counted++;
        }
        cinch_graph_free(&g);
    }
    printf("%d all-reduce plans: %.3f of the bound, %.3f at the least\n", counted, sum / counted,
           worst);
    if (s == SYMMETRIC) ck_assert_msg(worst > 0.95 && sum > 0.99 * counted, "%g", worst);
}

START_TEST(no_plan_beats_symmetric) {
    no_plan_beats(SYMMETRIC, 200);
}
END_TEST

START_TEST(no_plan_beats_asymmetric) {
    no_plan_beats(BOTH_WAYS, 200);
    no_plan_beats(ONE_WAY, 200);
}
END_TEST

/* Larger graphs: what must not change a bound, or change it in a known way. */
START_TEST(transformed) {
    for (int round = 0; round < 60; round++) {
        cinch_graph g = random_graph((style)(round % 3), 40, 20), turned = {0}, shuffled = {0};
        int order[64], place[64];
        for (int i = 0; i < g.nodes; i++) order[i] = i;
        for (int i = g.nodes - 1; i > 0; i--) {
            int j = (int)random_below((unsigned)i + 1), keep = order[i];
            order[i] = order[j];
            order[j] = keep;
        }
        for (int i = 0; i < g.nodes; i++) {
            add_node(&turned, g.node[i].name[0], i);
            add_node(&shuffled, g.node[order[i]].name[0], i);
            place[order[i]] = i;
        }
        for (int i = g.arcs - 1; i >= 0; i--) {
            const cinch_arc *a = &g.arc[i];
            add_link(&turned, a->to, a->from, a->gbps, 0);
            add_link(&shuffled, place[a->from], place[a->to], 8 * a->gbps, 0);
        }
        int root = 0;
        while (place[cinch_graph_gpu(&g, 0)] != cinch_graph_gpu(&shuffled, root)) root++;
        cinch_bounds b = bounds_of(&g, 0), t = bounds_of(&turned, 0),
                     s = bounds_of(&shuffled, root);
        assert_same((cinch_bounds){t.reducescatter, t.allgather, t.reduce, t.broadcast, t.allreduce,
                                   t.allreduce_two_step},
                    b);
        assert_same((cinch_bounds){s.allgather / 8, s.reducescatter / 8, s.broadcast / 8,
                                   s.reduce / 8, s.allreduce / 8, s.allreduce_two_step / 8},
                    b);
        cinch_graph_free(&g);
        cinch_graph_free(&turned);
        cinch_graph_free(&shuffled);
    }
}
END_TEST

/* n GPUs on one switch: what leaves each GPU decides. */
START_TEST(stars) {
    for (int n = 2; n <= 40; n++) {
        cinch_graph g = {0};
        add_node(&g, 's', n);
        for (int i = 0; i < n; i++) {
            add_node(&g, 'g', i);
            add_link(&g, 0, i + 1, i == n - 1 ? 5 : 30, i == n - 1 ? 5 : 30); /* one is weak */
        }
        double sum = 30.0 * (n - 1) + 5, most = sum / (2 * (n - 1));
        double gather = fmin(5.0 * n / (n - 1), 30.0 * n / (n - 1));
        double reduced = n == 2 ? 5 : fmin(5, most);
        assert_same(bounds_of(&g, 0), (cinch_bounds){gather, gather, 5, 5, reduced, gather / 2});
        g.arc[cinch_graph_find_arc(&g, 0, n)].gbps = 30; /* the weak one only sends slowly */
        cinch_bounds b = bounds_of(&g, n - 1);
        assert_near(b.broadcast, 5, "broadcast from the weak one");
        assert_near(b.reduce, 30, "reduce to the weak one");
        assert_near(b.allgather, fmin(5.0 * n, sum / (n - 1)), "all-gather");
        cinch_graph_free(&g);
    }
}
END_TEST

/* Machines in words, with bounds worked out by hand. */
START_TEST(by_hand) {
    static const struct {
        const char *text;
        cinch_bounds want;
    } machines[] = {
        /* A chain; a cycle; one without a way back: sends only. */
        {"gpu a\ngpu b\ngpu c\nlink a b 10\nlink b c 10", {15, 15, 10, 10, 10, 7.5}},
        {"gpu a\ngpu b\ngpu c\nlink a b 10\nlink b c 10\nlink c a 10", {30, 30, 20, 20, 15, 15}},
        {"gpu a\ngpu b\nlink a b 10 0", {0, 0, 10, 0, 0, 0}},
        /* A ring one way round. */
        {"gpu a\ngpu b\ngpu c\nlink a b 10 0\nlink b c 10 0\nlink c a 10 0",
         {15, 15, 10, 10, 7.5, 7.5}},
        /* Two by two: hosts of 100 inside, 10 between; a switch that nobody needs. */
        {"gpu a\ngpu b\ngpu c\ngpu d\nlink a b 100\nlink c d 100\nswitch n\nlink a n 10\nlink c n "
         "10\n"
         "switch idle\nlink idle a 7",
         {20, 20, 10, 10, 10, 10}},
        /* All receive twice as fast as they send: what is sent in all counts, not each cut. */
        {"gpu a\ngpu b\ngpu c\ngpu d\nswitch s\nlink a s 10 20\nlink b s 10 20\nlink c s 10 20\n"
         "link d s 10 20",
         {40.0 / 3, 40.0 / 3, 10, 10, 20.0 / 3, 20.0 / 3}},
        /* Only one sends: a switch does not copy. */
        {"gpu a\ngpu b\ngpu c\ngpu d\nswitch s\nlink a s 10 0\nlink s b 10 0\nlink s c 10 0\n"
         "link s d 10 0",
         {0, 0, 10.0 / 3, 0, 0, 0}},
        {"gpu a\ngpu b\nswitch s", {0, 0, 0, 0, 0, 0}},
    };
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        cinch_graph g = read_text(machines[i].text);
        assert_same(bounds_of(&g, 0), machines[i].want);
        cinch_graph_free(&g);
    }
}
END_TEST

START_TEST(edges) {
    cinch_graph g = {0};
    cinch_bounds b;
    ck_assert_int_eq(cinch_bounds_find(&g, 0, &b), cinchInvalidArgument);
    add_node(&g, 'g', 0);
    b = bounds_of(&g, 0);
    ck_assert(b.allgather == INFINITY && b.allreduce == INFINITY && b.broadcast == INFINITY);
    ck_assert_int_eq(cinch_bounds_find(&g, 1, &b), cinchInvalidArgument);
    ck_assert_int_eq(cinch_bounds_find(&g, -1, &b), cinchInvalidArgument);
    add_node(&g, 'g', 1);
    static const double links[][2] = {
        {1e300, 1e-300}, {1e308, 1e308}, {5e-324, 5e-324}, {1.0 / 3, 7}};
    for (int i = 0; i < 4; i++) {
        cinch_graph two = {0};
        add_node(&two, 'g', 0);
        add_node(&two, 'g', 1);
        add_link(&two, 0, 1, links[i][0], links[i][1]);
        b = bounds_of(&two, 0);
        ck_assert(b.broadcast >= links[i][0] && b.broadcast <= links[i][0] * (1 + 1e-11));
        ck_assert(b.allreduce >= fmin(links[i][0], links[i][1]));
        cinch_graph_free(&two);
    }
    cinch_graph_free(&g);
}
END_TEST

/* Hosts of 8 GPUs with a NIC each, 8 hosts to a leaf, 8 spines. */
static cinch_graph fat_tree(int hosts, double nic, bool uneven) {
    cinch_graph g = {0};
    int leaves = (hosts + 7) / 8, spine = leaves;
    for (int i = 0; i < leaves + 8; i++) add_node(&g, 's', i);
    for (int i = 0; i < leaves; i++)
        for (int j = 0; j < 8; j++) add_link(&g, i, spine + j, 8 * nic, 8 * nic);
    for (int h = 0; h < hosts; h++) {
        int inner = g.nodes;
        add_node(&g, 's', inner);
        for (int i = 0; i < 8; i++) {
            int gpu = g.nodes, slow = uneven && random_below(4) == 0;
            add_node(&g, 'g', gpu);
            add_node(&g, 's', gpu + 1);
            add_link(&g, gpu, inner, 450, 450);
            add_link(&g, gpu, gpu + 1, 64, 64);
            add_link(&g, gpu + 1, h / 8, slow ? nic / 2 : nic,
                     slow && random_below(2) ? nic / 4 : nic);
        }
    }
    return g;
}

static double cpu_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

START_TEST(thousand_ranks) {
    cinch_graph g = fat_tree(128, 50, false);
    ck_assert_int_eq(g.gpus, 1024);
    double start = cpu_ms();
    cinch_bounds b = bounds_of(&g, 0);
    double ms = cpu_ms() - start;
    /* A host of 8 lets out 400; all others enter it. */
    double gather = 400 * 1024.0 / 1016, most = 400 * 128.0 / (2 * 127);
    assert_same(b, (cinch_bounds){gather, gather, 400, 400, most, gather / 2});
    cinch_graph_free(&g);
    g = fat_tree(128, 50, true);
    start = cpu_ms();
    b = bounds_of(&g, 0);
    double uneven = cpu_ms() - start;
    ck_assert(b.allreduce > 1.1 * b.allreduce_two_step && b.allreduce < 200);
    printf("1024 GPUs: %.0f ms, with uneven NICs %.0f ms\n", ms, uneven);
    ck_assert_msg(ms + uneven < 5000, "%g ms and %g ms", ms, uneven);
    cinch_graph_free(&g);
}
END_TEST

/* Graphs with proven optima, rounded to three digits behind the point, in a table beside them. */
START_TEST(proven) {
    size_t length;
    char *table = topology_text("graphs/OPTIMA.tsv", &length), *rest = NULL;
    if (!table) {
        printf("the graphs with proven optima are not at hand: not compared\n");
        return;
    }
    int cases = 0;
    strtok_r(table, "\n", &rest);
    for (char *line; (line = strtok_r(NULL, "\n", &rest)) != NULL; cases++) {
        char name[100], path[200];
        double gather, broadcast, two_step, most;
        ck_assert_int_eq(
            sscanf(line, "%99s %*d %lf %lf %lf %lf", name, &gather, &broadcast, &two_step, &most),
            5);
        snprintf(path, sizeof path, "graphs/%s.graph", name);
        char *text = topology_text(path, &length);
        ck_assert_ptr_nonnull(text);
        cinch_graph g = {0};
        ck_assert_int_eq(cinch_graph_read(&g, text, length, path), cinchSuccess);
        cinch_bounds b = bounds_of(&g, 0);
        const double got[] = {b.allgather, b.reducescatter,      b.broadcast,
                              b.reduce,    b.allreduce_two_step, b.allreduce};
        const double want[] = {gather, gather, broadcast, broadcast, two_step, most};
        for (int i = 0; i < 6; i++)
            ck_assert_msg(fabs(got[i] - want[i]) <= fmax(1e-4 * want[i], 5.01e-4),
                          "%s, column %d: %g, not %g", name, i, got[i], want[i]);
        cinch_graph_free(&g);
        free(text);
    }
    free(table);
    ck_assert_int_eq(cases, 13);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("bounds");
    TCase *small = tcase_create("small"), *machines = tcase_create("machines");
    tcase_set_timeout(small, 120);
    tcase_add_test(small, every_partition_symmetric);
    tcase_add_test(small, every_partition_asymmetric);
    tcase_add_test(small, no_plan_beats_symmetric);
    tcase_add_test(small, no_plan_beats_asymmetric);
    suite_add_tcase(suite, small);
    tcase_set_timeout(machines, 120);
    tcase_add_test(machines, transformed);
    tcase_add_test(machines, stars);
    tcase_add_test(machines, by_hand);
    tcase_add_test(machines, edges);
    tcase_add_test(machines, thousand_ranks);
    tcase_add_test(machines, proven);
    suite_add_tcase(suite, machines);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

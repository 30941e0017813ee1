/* SPDX-License-Identifier: Apache-2.0 */
/* Shapes that are given: rings, one after the other over links that get dearer with their load, and
 * the double binary tree between hosts (Sanders, Speck, Traeff 2009) with chains inside. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "topo/pack.h"
#include "topo/pack_heap.h"

/* How often a ring may take a GPU before it is given up; up to how many ranks every start is tried.
 */
enum { MOST_STEPS = 1 << 14, MOST_STARTS = 32 };

typedef struct {
    const cinch_pack_net *net;
    cinch_pack_heap heap;
    double *distance; /* node: from where the search began */
    int *before;      /* node: the arc that leads to it */
    bool *done;       /* node */
    double *load;     /* arc: ways over it, over its bandwidth */
    double unit;      /* the largest bandwidth, so that loads are about 1 */
    bool *visited;    /* rank */
    bool *tried;      /* depth * ranks + rank */
    int *order;       /* the ring so far */
    size_t *start;    /* depth: where its way begins in `way`, the one that enters order[depth] */
    int *way;         /* arcs */
    size_t room;
} router;

static void router_free(router *r) {
    free(r->heap.item);
    free(r->distance);
    free(r->before);
    free(r->done);
    free(r->load);
    free(r->visited);
    free(r->tried);
    free(r->order);
    free(r->start);
    free(r->way);
}

static cinchResult_t router_make(const cinch_pack_net *net, bool rings, router *r) {
    size_t nodes = (size_t)net->nodes, arcs = (size_t)net->arcs + 1, ranks = (size_t)net->ranks;
    *r = (router){.net = net, .room = nodes * 4};
    r->heap.item = malloc(arcs * sizeof *r->heap.item);
    r->distance = malloc(nodes * sizeof(double));
    r->before = malloc(nodes * sizeof(int));
    r->done = malloc(nodes * sizeof(bool));
    r->load = calloc(arcs, sizeof(double));
    r->visited = malloc(ranks * sizeof(bool));
    r->tried = malloc((rings ? ranks * ranks : 1) * sizeof(bool));
    r->order = malloc((ranks + 1) * sizeof(int));
    r->start = malloc((ranks + 2) * sizeof(size_t));
    r->way = malloc(r->room * sizeof(int));
    if (!r->heap.item || !r->distance || !r->before || !r->done || !r->load || !r->visited ||
        !r->tried || !r->order || !r->start || !r->way)
        return cinch_fail(cinchSystemError, "out of memory for a plan over %d nodes", net->nodes);
    for (int a = 0; a < net->arcs; a++)
        if (net->cap[a] > r->unit) r->unit = net->cap[a];
    return cinchSuccess;
}

/* What one more way costs: the growth of the sum of sixth powers of loads. */
static double price(const router *r, int arc) {
    double now = r->load[arc], then = now + r->unit / r->net->cap[arc];
    double before = now * now * now, after = then * then * then;
    return after * after - before * before;
}

/* The nearest rank out of `from` that is `wanted` (-1: any of the unvisited that has not been tried
 * at this depth) over switches; -1: none. Among equally near
 * ones it is the next by number, around: so that rings leave a host by different GPUs. */
static int nearest(router *r, int from, int wanted, const bool *tried) {
    const cinch_pack_net *net = r->net;
    memset(r->done, 0, (size_t)net->nodes * sizeof(bool));
    for (int n = 0; n < net->nodes; n++) r->distance[n] = HUGE_VAL;
    int node = net->place[from], base = node;
    r->heap.count = 0;
    r->distance[node] = 0;
    r->before[node] = -1;
    r->done[node] = true;
    for (;;) {
        for (int a = net->out[node]; a < net->out[node + 1]; a++) {
            int next = net->to[a];
            double distance = r->distance[node] + price(r, a);
            if (r->done[next] || distance >= r->distance[next]) continue;
            r->distance[next] = distance;
            r->before[next] = a;
            cinch_pack_heap_push(&r->heap, distance, (next - base + net->nodes) % net->nodes);
        }
        do {
            if (!r->heap.count) return -1;
            node = (cinch_pack_heap_pop(&r->heap).id + base) % net->nodes;
            int rank = net->rank[node];
            if (r->done[node]) continue;
            r->done[node] = true;
            if (rank < 0) break;
            if (wanted >= 0 ? rank == wanted : !r->visited[rank] && !tried[rank]) return rank;
        } while (true);
    }
}

/* Appends the way to a rank that `nearest` found, as depth's; and loads it. */
static cinchResult_t append(router *r, int depth, int to) {
    int count = 0, *way;
    for (int n = r->net->place[to]; r->before[n] >= 0; n = r->net->from[r->before[n]]) count++;
    if (r->start[depth] + (size_t)count > r->room) {
        size_t room = 2 * r->room + (size_t)count;
        way = realloc(r->way, room * sizeof(int));
        if (!way) return cinch_fail(cinchSystemError, "out of memory for a plan");
        r->way = way;
        r->room = room;
    }
    r->start[depth + 1] = r->start[depth] + (size_t)count;
    way = r->way + r->start[depth + 1];
    for (int n = r->net->place[to]; r->before[n] >= 0; n = r->net->from[r->before[n]]) {
        *--way = r->before[n];
        r->load[*way] += r->unit / r->net->cap[*way];
    }
    return cinchSuccess;
}

static void unload(router *r, size_t begin, size_t end) {
    for (size_t i = begin; i < end; i++) r->load[r->way[i]] -= r->unit / r->net->cap[r->way[i]];
}

/* A ring from `start` into order and way: the nearest rank that is left, then the next; where there
 * is none, back. order[ranks] is the start again. *found: whether there is one; its load stays. */
static cinchResult_t find_ring(router *r, int start, bool *found) {
    int ranks = r->net->ranks, depth = 0;
    size_t n = (size_t)ranks;
    memset(r->visited, 0, n * sizeof(bool));
    memset(r->tried, 0, n * sizeof(bool));
    r->order[0] = start;
    r->visited[start] = true;
    r->start[0] = r->start[1] = 0;
    *found = false;
    for (int steps = MOST_STEPS + ranks; steps > 0; steps--) {
        bool last = depth == ranks - 1;
        bool *tried = r->tried + (size_t)depth * n;
        int next = nearest(r, r->order[depth], last ? start : -1, tried);
        if (next >= 0) {
            CINCH_TRY(append(r, depth + 1, next));
            r->order[++depth] = next;
            if (last) {
                *found = true;
                return cinchSuccess;
            }
            tried[next] = r->visited[next] = true;
            memset(r->tried + (size_t)depth * n, 0, n * sizeof(bool));
        } else {
            if (depth == 0) break;
            unload(r, r->start[depth], r->start[depth + 1]);
            r->visited[r->order[depth--]] = false;
        }
    }
    unload(r, 0, r->start[depth + 1]);
    return cinchSuccess;
}

static double largest(const router *r) {
    double most = 0;
    for (int a = 0; a < r->net->arcs; a++)
        if (r->load[a] > most) most = r->load[a];
    return most;
}

/* The sum of sixth powers of loads, in units of the largest one's before a ring was added. */
static double powers(const router *r, double unit) {
    double sum = 0;
    for (int a = 0; a < r->net->arcs; a++) {
        double x = r->load[a] / unit, cube = x * x * x;
        sum += cube * cube;
    }
    return sum;
}

/* The ring that adds the least to the loads' powers, over all starts. */
static cinchResult_t best_ring(router *r, bool *found) {
    int starts = r->net->ranks <= MOST_STARTS ? r->net->ranks : 1, best = -1;
    double least = HUGE_VAL, unit = largest(r) + 1;
    for (int s = 0; s < starts; s++) {
        CINCH_TRY(find_ring(r, s, found));
        if (!*found) continue;
        double most = powers(r, unit);
        unload(r, 0, r->start[r->net->ranks + 1]);
        if (most < least * (1 - 1e-9)) {
            least = most;
            best = s;
        }
    }
    *found = false;
    return best < 0 ? cinchSuccess : find_ring(r, best, found);
}

/* ---- as a plan's trees ---- */

static cinchResult_t make_half(const router *r, size_t arcs, cinch_plan_half *half) {
    size_t n = (size_t)r->net->ranks;
    half->parent = malloc((3 * n + 1 + arcs) * sizeof(int));
    if (!half->parent) return cinch_fail(cinchSystemError, "out of memory for a plan");
    half->first = half->parent + n;
    half->path = half->first + n + 1;
    return cinchSuccess;
}

/* The way that depth has, as nodes. */
static int put_way(const router *r, int depth, int *path) {
    const int *way = r->way + r->start[depth];
    int arcs = (int)(r->start[depth + 1] - r->start[depth]);
    for (int i = 0; i <= arcs && arcs > 0; i++)
        path[i] = i == 0 ? r->net->from[way[0]] : r->net->to[way[i - 1]];
    return arcs ? arcs + 1 : 0;
}

static cinchResult_t put_ring(const router *r, int root, cinch_plan_tree *tree) {
    int ranks = r->net->ranks, at = 0;
    *tree = (cinch_plan_tree){.root = root};
    CINCH_TRY(make_half(r, r->start[ranks + 1], &tree->down));
    int *depth = tree->down.first; /* rank: where on the ring, until it is overwritten */
    for (int d = 1; d <= ranks; d++) {
        depth[r->order[d]] = d;
        tree->down.parent[r->order[d]] = r->order[d - 1];
    }
    for (int rank = 0; rank < ranks; rank++) {
        int d = depth[rank];
        tree->down.first[rank] = at;
        at += put_way(r, d, tree->down.path + at);
    }
    tree->down.first[ranks] = at;
    return cinchSuccess;
}

/* What part of a ring's weight the edge into a rank carries. */
static double carried(const cinch_plan *plan, const cinch_plan_tree *ring, int rank) {
    double ranks = plan->ranks;
    switch (plan->op) {
    case CINCH_PLAN_ALLREDUCE:
        return 2 * (ranks - 1) / ranks;
    case CINCH_PLAN_BROADCAST:
        return rank != ring->root;
    case CINCH_PLAN_REDUCE:
        return ring->down.parent[rank] != ring->root;
    default:
        return (ranks - 1) / ranks;
    }
}

static void add_half(const cinch_pack_net *net, const cinch_plan_half *half, int rank,
                     double amount, double *load) {
    for (int i = half->first[rank]; i + 1 < half->first[rank + 1]; i++) {
        int arc = cinch_pack_net_arc(net, half->path[i], half->path[i + 1]);
        load[arc] += amount / net->cap[arc];
    }
}

static double inverse_of_largest(const double *load, int arcs) {
    double most = 0;
    for (int a = 0; a < arcs; a++)
        if (load[a] > most) most = load[a];
    return 1 / most;
}

cinchResult_t cinch_pack_rings(const cinch_pack_net *net, int rings, cinch_plan *plan) {
    router r;
    double *load = calloc((size_t)net->arcs + 1, sizeof *load);
    int best = 0;
    cinchResult_t result = router_make(net, true, &r);
    plan->tree = calloc((size_t)rings, sizeof *plan->tree);
    if (result == cinchSuccess && (!load || !plan->tree))
        result = cinch_fail(cinchSystemError, "out of memory for a plan");
    for (bool found = true; plan->trees < rings && result == cinchSuccess;) {
        result = best_ring(&r, &found);
        if (result != cinchSuccess || !found) break;
        cinch_plan_tree *ring = &plan->tree[plan->trees++];
        result = put_ring(&r, plan->root < 0 ? 0 : plan->root, ring);
        for (int rank = 0; rank < net->ranks && result == cinchSuccess; rank++)
            add_half(net, &ring->down, rank, carried(plan, ring, rank), load);
        double algbw = plan->trees * inverse_of_largest(load, net->arcs);
        if (algbw > plan->algbw * (1 + 1e-9)) {
            plan->algbw = algbw;
            best = plan->trees;
        }
    }
    if (result == cinchSuccess && best == 0)
        result = cinch_fail(cinchInvalidArgument,
                            "no ring through all %d GPUs was found: a forest serves every graph",
                            net->ranks);
    for (; plan->trees > best; plan->trees--) free(plan->tree[plan->trees - 1].down.parent);
    for (int t = 0; t < best; t++) plan->tree[t].weight = 1.0 / best;
    free(load);
    router_free(&r);
    return result;
}

/* ---- double binary tree ---- */

/* Hosts in a binary tree whose leaves are the even numbers (every other host): the parent of host i
 * out of n, -1 for the root. */
static int host_parent(int i, int n) {
    int bit = 1;
    if (i == 0) return -1;
    while (!(i & bit)) bit *= 2;
    int up = (i ^ bit) | (2 * bit);
    return up < n ? up : i ^ bit;
}

/* The parent of a rank: the one before it in its host's chain, or for the chain's first the first
 * one of the parent host; the second tree mirrors both. */
static int rank_parent(const int *rank_at, const int *first, int hosts, int host, int i,
                       bool mirrored) {
    int count = first[host + 1] - first[host];
    if (i != (mirrored ? count - 1 : 0)) return rank_at[first[host] + i + (mirrored ? 1 : -1)];
    int parent = host_parent(mirrored ? hosts - 1 - host : host, hosts);
    if (parent < 0) return -1;
    if (mirrored) parent = hosts - 1 - parent;
    return rank_at[mirrored ? first[parent + 1] - 1 : first[parent]];
}

/* Ranks host by host, and where each host's begin; returns how many hosts there are. */
static int list_hosts(const cinch_graph *graph, const cinch_pack_net *net, int *rank_at,
                      int *first) {
    int hosts = 0, listed = 0;
    for (int r = 0; r < net->ranks; r++) {
        int host = graph->node[net->place[r]].host;
        bool seen = false;
        for (int i = 0; i < listed && !seen; i++)
            seen = graph->node[net->place[rank_at[i]]].host == host;
        if (seen) continue;
        first[hosts++] = listed;
        for (int other = r; other < net->ranks; other++)
            if (graph->node[net->place[other]].host == host) rank_at[listed++] = other;
    }
    first[hosts] = listed;
    return hosts;
}

static cinchResult_t route_half(router *r, bool up, const int *parent, cinch_plan_half *half) {
    int ranks = r->net->ranks, at = 0;
    r->start[0] = 0;
    for (int rank = 0; rank < ranks; rank++) {
        r->start[rank + 1] = r->start[rank];
        if (parent[rank] < 0) continue;
        int from = up ? rank : parent[rank], to = up ? parent[rank] : rank;
        if (nearest(r, from, to, NULL) < 0)
            return cinch_fail(cinchInvalidArgument,
                              "a double tree joins ranks %d and %d, and no switches do: a forest "
                              "serves every graph",
                              from, to);
        CINCH_TRY(append(r, rank, to));
    }
    CINCH_TRY(make_half(r, r->start[ranks], half));
    for (int rank = 0; rank < ranks; rank++) {
        half->parent[rank] = parent[rank];
        half->first[rank] = at;
        at += put_way(r, rank, half->path + at);
    }
    half->first[ranks] = at;
    return cinchSuccess;
}

cinchResult_t cinch_pack_double_tree(const cinch_graph *graph, const cinch_pack_net *net,
                                     cinch_plan *plan) {
    router r;
    int ranks = net->ranks, *rank_at = malloc((3 * (size_t)ranks + 1) * sizeof(int));
    cinchResult_t result = router_make(net, false, &r);
    plan->tree = calloc(2, sizeof *plan->tree);
    if (result == cinchSuccess && (!rank_at || !plan->tree))
        result = cinch_fail(cinchSystemError, "out of memory for a plan");
    for (int t = 0; t < 2 && result == cinchSuccess; t++) {
        int *parent = rank_at + ranks, *first = parent + ranks;
        int hosts = list_hosts(graph, net, rank_at, first);
        cinch_plan_tree *tree = &plan->tree[plan->trees++];
        tree->weight = 0.5;
        for (int h = 0; h < hosts; h++)
            for (int i = 0; i < first[h + 1] - first[h]; i++) {
                int rank = rank_at[first[h] + i];
                parent[rank] = rank_parent(rank_at, first, hosts, h, i, t == 1);
                if (parent[rank] < 0) tree->root = rank;
            }
        result = route_half(&r, true, parent, &tree->up);
        if (result == cinchSuccess) result = route_half(&r, false, parent, &tree->down);
    }
    /* The router's loads are of trees of weight 1, in units of the widest link. */
    if (result == cinchSuccess) plan->algbw = 2 * r.unit / largest(&r);
    free(rank_at);
    router_free(&r);
    return result;
}

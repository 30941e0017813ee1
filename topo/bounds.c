/* SPDX-License-Identifier: Apache-2.0 */
/* Bounds by minimum cuts, exact in whole numbers.
 *
 * Out(S) is the capacity of the arcs that leave the set S of nodes, N the number of GPUs.
 *
 * All-gather. Each GPU's 1/N of the result has to leave every set S that lacks a GPU: a set with k
 * GPUs lets out k/N of it over Out(S), so algbw <= N * x* with x* = min Out(S)/k. (Zhao et al.,
 * ForestColl, 2024, attain it where every switch has as much in as out.)
 *
 * Broadcast. All of it passes every cut between the root and another GPU.
 *
 * Partitions. Take any partition of the GPUs into k >= 2 parts. A message from part to part leaves
 * every set S of nodes whose GPUs are those of its part p, whatever way it takes through switches;
 * so p sends at most egress(p) = min Out(S) over such S, and receives at most ingress(p), likewise.
 * Hence where an element costs m messages between parts, algbw is at most sum of egress(p) / m and
 * sum of ingress(p) / m. An all-gather, reduce-scatter, broadcast or reduce has m >= k-1. An
 * all-reduce has m >= 2(k-1): let p be the part that is first to know a value to which every part
 * has contributed. Until then each other part has sent a message, k-1 or more; at that moment no
 * other part knows all, so each must still receive one, k-1 more. Besides, each part sends and
 * receives at least once: algbw <= egress(p), ingress(p); for two parts the smaller direction. The
 * bound is the minimum over all partitions.
 *
 * So no bound is below another collective's that contains it, links symmetric or not: for a set S
 * with k GPUs, an all-gather and a reduce-scatter put k/N + (N-k)/N of the result over Out(S). */
#include "topo/bounds.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "topo/flow.h"
#include "topo/scale.h"

/* A graph as a flow network, with a node behind it that is the source or the sink of many. */
typedef struct {
    const cinch_graph *graph;
    cinch_flow flow;
    int hub;
    int *spoke;        /* per GPU: the arc from the hub to it */
    int64_t *in, *out; /* per node: the capacity of all its arcs */
    int *part;         /* per GPU: a union-find forest */
    bool symmetric;
    double unit; /* GB/s */
} net;

typedef struct {
    int64_t above, below;
} ratio;

static bool ratio_less(ratio a, ratio b) {
    return (__int128)a.above * b.below < (__int128)b.above * a.below;
}

static ratio ratio_min(ratio a, ratio b) {
    return ratio_less(b, a) ? b : a;
}

static void sum_capacities(net *n) {
    for (int v = 0; v <= n->hub; v++) n->in[v] = n->out[v] = 0;
    for (int e = 0; e < n->flow.arcs; e++) {
        n->out[n->flow.to[e ^ 1]] += n->flow.capacity[e];
        n->in[n->flow.to[e]] += n->flow.capacity[e];
    }
}

static cinchResult_t net_fill(net *n, int64_t *capacity) {
    const cinch_graph *graph = n->graph;
    cinch_scale_capacities(graph, capacity, &n->unit);
    CINCH_TRY(cinch_flow_of_graph(&n->flow, graph, capacity, 1, NULL));
    n->symmetric = true;
    for (int e = 0; e < n->flow.arcs; e += 2)
        n->symmetric &= n->flow.capacity[e] == n->flow.capacity[e + 1];
    for (int i = 0; i < graph->gpus; i++)
        CINCH_TRY(cinch_flow_add(&n->flow, n->hub, cinch_graph_gpu(graph, i), 0, 0, &n->spoke[i]));
    n->in = calloc((size_t)n->hub + 1, sizeof *n->in);
    n->out = calloc((size_t)n->hub + 1, sizeof *n->out);
    if (!n->in || !n->out) return cinch_fail(cinchSystemError, "out of memory for bounds");
    sum_capacities(n);
    return cinchSuccess;
}

static cinchResult_t net_open(net *n, const cinch_graph *graph) {
    *n = (net){.graph = graph, .hub = graph->nodes};
    int64_t *capacity = calloc((size_t)graph->arcs + 1, sizeof *capacity);
    n->spoke = calloc((size_t)graph->gpus, sizeof *n->spoke);
    n->part = calloc((size_t)graph->gpus, sizeof *n->part);
    cinchResult_t result = capacity && n->spoke && n->part
                               ? net_fill(n, capacity)
                               : cinch_fail(cinchSystemError, "out of memory for bounds");
    free(capacity);
    return result;
}

static void net_close(net *n) {
    cinch_flow_free(&n->flow);
    free(n->spoke);
    free(n->part);
    free(n->in);
    free(n->out);
}

/* Every arc the other way. */
static void net_turn(net *n) {
    for (int e = 0; e < n->flow.arcs; e += 2) {
        int64_t capacity = n->flow.capacity[e];
        n->flow.capacity[e] = n->flow.capacity[e + 1];
        n->flow.capacity[e + 1] = capacity;
    }
    sum_capacities(n);
}

/* What an arc between the hub and a GPU can take from now on, in its two directions. */
static void set_spoke(net *n, int i, int64_t out, int64_t back) {
    n->flow.left[n->spoke[i]] = out;
    n->flow.left[n->spoke[i] ^ 1] = back;
}

/* Out(S)/k, where S is what a pull that fell short left on the hub's side. */
static ratio cut_ratio(const net *n) {
    ratio cut = {0, 0};
    for (int e = 0; e < n->flow.arcs; e++)
        if (!cinch_flow_near(&n->flow, n->flow.to[e ^ 1]) &&
            cinch_flow_near(&n->flow, n->flow.to[e]))
            cut.above += n->flow.capacity[e];
    for (int i = 0; i < n->graph->gpus; i++)
        cut.below += !cinch_flow_near(&n->flow, cinch_graph_gpu(n->graph, i));
    return cut;
}

/* No flow; GPUs before `done` have an endless supply, the others x each, all in 1/x.below. */
static void load_supplies(net *n, ratio x, int done) {
    cinch_flow_reset(&n->flow, x.below);
    for (int i = 0; i < n->graph->gpus; i++)
        set_spoke(n, i, i < done ? CINCH_FLOW_MOST : x.above, 0);
}

/* x* of the all-gather. A supply of x at every GPU fits iff N x can flow to each GPU in turn; a cut
 * that forbids it gives the next, smaller x (Newton's, or Dinkelbach's, method). What is proven for
 * one GPU stays so when x shrinks, and no later cut need separate it from the supply: so it becomes
 * part of the source, the flow stays, and the next GPU finds most of what it needs next door. */
static cinchResult_t find_allgather(net *n, ratio *x) {
    int gpus = n->graph->gpus;
    *x = (ratio){n->out[cinch_graph_gpu(n->graph, 0)], 1};
    for (int i = 0; i < gpus; i++) {
        int v = cinch_graph_gpu(n->graph, i);
        *x = ratio_min(*x, ratio_min((ratio){n->out[v], 1}, (ratio){n->in[v], gpus - 1}));
    }
    load_supplies(n, *x, 0);
    for (int i = 0; i < gpus && x->above > 0;) {
        int64_t need = gpus * x->above, found;
        CINCH_TRY(cinch_flow_pull(&n->flow, n->hub, cinch_graph_gpu(n->graph, i), need, &found));
        if (found == need) {
            set_spoke(n, i++, CINCH_FLOW_MOST, 0);
            continue;
        }
        ratio cut = cut_ratio(n);
        if (cut.below == 0 || !ratio_less(cut, *x))
            return cinch_fail(cinchInternalError, "a cut that forbids a flow allows it");
        *x = cut;
        load_supplies(n, *x, i);
    }
    return cinchSuccess;
}

/* The least maximum flow from the root to another GPU; those that were looked at join the root. */
static cinchResult_t find_broadcast(net *n, int root, int64_t *least) {
    *least = n->out[cinch_graph_gpu(n->graph, root)];
    cinch_flow_reset(&n->flow, 1);
    set_spoke(n, root, CINCH_FLOW_MOST, 0);
    for (int i = 0; i<n->graph->gpus && * least> 0; i++) {
        if (i == root) continue;
        CINCH_TRY(cinch_flow_pull(&n->flow, n->hub, cinch_graph_gpu(n->graph, i), *least, least));
        set_spoke(n, i, CINCH_FLOW_MOST, 0);
    }
    return cinchSuccess;
}

static int part_of(net *n, int i) {
    while (n->part[i] != i) i = n->part[i] = n->part[n->part[i]];
    return i;
}

/* One GPU's step in find_partition: *y is its share. The hub is the sink of GPUs that are not yet
 * taken, without limit, and of taken ones with a negative y, up to -y; a positive y is a supply
 * that has been pushed and stays so. */
static cinchResult_t take_gpu(net *n, int i, int64_t lambda, int64_t *y) {
    int v = cinch_graph_gpu(n->graph, i);
    int64_t net_out = -n->flow.left[n->spoke[i]], pushed, back; /* what ended here */
    set_spoke(n, i, 0, 0);
    CINCH_TRY(cinch_flow_push(&n->flow, v, n->hub, CINCH_FLOW_MOST, &pushed));
    if (pushed == CINCH_FLOW_MOST)
        return cinch_fail(cinchInternalError, "a GPU's flow has no limit");
    for (int j = 0; j < i; j++)
        if (cinch_flow_near(&n->flow, cinch_graph_gpu(n->graph, j)))
            n->part[part_of(n, j)] = part_of(n, i);
    net_out += pushed;
    *y = net_out - lambda;
    int64_t keep = *y > 0 ? *y : 0;
    if (net_out > keep) {
        CINCH_TRY(cinch_flow_pull(&n->flow, n->hub, v, net_out - keep, &back));
        if (back != net_out - keep)
            return cinch_fail(cinchInternalError, "a flow cannot be taken back");
        net_out = keep;
    }
    if (*y < 0) set_spoke(n, i, -net_out, -*y + net_out);
    return cinchSuccess;
}

/* Lowers *lambda to the least sum of egress(p) / (k-1) over all partitions into k >= 2 parts, if
 * that is less.
 *
 * egress is submodular on sets of GPUs, because it is a minimum of Out over what the switches do.
 * So for a given lambda the least sum of (egress(p) - lambda) over partitions is the greedy sum of
 * y(v) = min { egress(X) - lambda - y(X - v) : v in X, X within the GPUs up to v } (Dilworth
 * truncation: Edmonds 1970; Cunningham, Optimal attack and reinforcement of a network, 1985; Cheng
 * & Cunningham 1994), each y a minimum cut, and blocks of GPUs whose minimizers overlap form the
 * partition. All GPUs in one part give -lambda; if nothing gives less, lambda holds, else the
 * partition found gives a smaller lambda. */
static cinchResult_t find_partition(net *n, ratio *lambda) {
    int gpus = n->graph->gpus;
    for (;;) {
        int64_t sum = 0, y = 0, parts = 0;
        cinch_flow_reset(&n->flow, lambda->below);
        for (int i = 0; i < gpus; i++) set_spoke(n, i, 0, CINCH_FLOW_MOST);
        for (int i = 0; i < gpus; i++) n->part[i] = i;
        for (int i = 0; i < gpus; i++) {
            CINCH_TRY(take_gpu(n, i, lambda->above, &y));
            sum += y;
        }
        if (sum >= -lambda->above) return cinchSuccess;
        for (int i = 0; i < gpus; i++) parts += part_of(n, i) == i;
        sum += parts * lambda->above;
        ratio next = {sum / lambda->below, parts - 1};
        if (sum % lambda->below != 0 || parts < 2 || !ratio_less(next, *lambda))
            return cinch_fail(cinchInternalError, "a partition that is less is not");
        *lambda = next;
    }
}

static double gbps(const net *n, int64_t times, ratio x) {
    return (double)times * (double)x.above / (double)x.below * n->unit;
}

/* What holds in one direction: all-gather, broadcast, and the partitions' egress. */
typedef struct {
    double gather, cast, parts;
} one_way;

static cinchResult_t find_one_way(net *n, int root, one_way *b) {
    int gpus = n->graph->gpus;
    ratio x, lambda = {0, gpus - 1}; /* each GPU a part, to begin with */
    int64_t least;
    CINCH_TRY(find_allgather(n, &x));
    CINCH_TRY(find_broadcast(n, root, &least));
    for (int i = 0; i < gpus; i++) lambda.above += n->out[cinch_graph_gpu(n->graph, i)];
    CINCH_TRY(find_partition(n, &lambda));
    *b = (one_way){gbps(n, gpus, x), gbps(n, 1, (ratio){least, 1}), gbps(n, 1, lambda)};
    return cinchSuccess;
}

static cinchResult_t find_all(net *n, int root, cinch_bounds *b) {
    one_way there, back;
    CINCH_TRY(find_one_way(n, root, &there));
    back = there;
    if (!n->symmetric) {
        net_turn(n);
        CINCH_TRY(find_one_way(n, root, &back));
    }
    b->allgather = fmin(there.gather, there.parts);
    b->reducescatter = fmin(back.gather, back.parts);
    b->broadcast = fmin(there.cast, there.parts);
    b->reduce = fmin(back.cast, back.parts);
    b->allreduce = fmin(fmin(there.cast, back.cast), fmin(there.parts, back.parts) / 2);
    if (b->allgather > 0 && b->reducescatter > 0)
        b->allreduce_two_step = 1 / (1 / b->allgather + 1 / b->reducescatter);
    return cinchSuccess;
}

cinchResult_t cinch_bounds_find(const cinch_graph *graph, int root, cinch_bounds *bounds) {
    if (root < 0 || root >= graph->gpus)
        return cinch_fail(cinchInvalidArgument, "root %d in a graph of %d GPUs", root, graph->gpus);
    *bounds = (cinch_bounds){0};
    if (graph->gpus < 2) {
        *bounds = (cinch_bounds){INFINITY, INFINITY, INFINITY, INFINITY, INFINITY, INFINITY};
        return cinchSuccess;
    }
    net n;
    cinchResult_t result = net_open(&n, graph);
    if (result == cinchSuccess) result = find_all(&n, root, bounds);
    net_close(&n);
    return result;
}

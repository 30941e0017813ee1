/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts' graphs and the ranks' places to one graph of the job. */
#include "topo/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const cinch_graph *const *host;
    int hosts;
    const cinch_job_rank *rank;
    int ranks;
    cinch_graph *job;
    int *first;   /* by host: its nodes are node[first[h]] up to node[first[h + 1]] */
    int *sitting; /* by node of all hosts: ranks there */
    int *node;    /* by node of all hosts: the node in the job, -1: left out */
    int *seat;    /* by rank: the node of all hosts */
    int network;
} merger;

static bool is_switch(const cinch_graph *g, int node, cinch_part part) {
    return g->node[node].kind == CINCH_NODE_SWITCH && g->node[node].part == part;
}

static int first_cpu(const cinch_graph *g) {
    for (int i = 0; i < g->nodes; i++)
        if (is_switch(g, i, CINCH_PART_CPU)) return i;
    return -1;
}

static cinchResult_t seat_rank(merger *m, int r) {
    const cinch_job_rank *rank = &m->rank[r];
    if (rank->host < 0 || rank->host >= m->hosts)
        return cinch_fail(cinchInvalidArgument, "rank %d is on host %d of %d", r, rank->host,
                          m->hosts);
    const cinch_graph *g = m->host[rank->host];
    int at = rank->at[0] ? cinch_graph_find(g, rank->at) : first_cpu(g);
    if (at < 0)
        return cinch_fail(cinchInvalidArgument, "rank %d is at \"%.80s\", which host %d has not", r,
                          rank->at[0] ? rank->at : "a CPU", rank->host);
    m->seat[r] = m->first[rank->host] + at;
    m->sitting[m->seat[r]]++;
    return cinchSuccess;
}

static cinchResult_t add_ranks(merger *m) {
    char name[32];
    for (int r = 0; r < m->ranks; r++) {
        int node;
        CINCH_TRY(seat_rank(m, r));
        snprintf(name, sizeof name, "rank%d", r);
        CINCH_TRY(cinch_graph_add_node(m->job, name, CINCH_NODE_GPU, CINCH_PART_OTHER,
                                       m->rank[r].host, &node));
    }
    return cinchSuccess;
}

/* A switch under its name; one that is taken (a rank's) gets a number behind it. */
static cinchResult_t add_switch(merger *m, int host, const char *name, cinch_part part, int *node) {
    char full[CINCH_GRAPH_MOST_NAME + 64];
    int length = m->hosts > 1 ? snprintf(full, sizeof full, "h%d/%s", host, name)
                              : snprintf(full, sizeof full, "%s", name);
    for (int again = m->job->nodes; cinch_graph_find(m->job, full) >= 0; again++)
        snprintf(full + length, sizeof full - (size_t)length, "~%d", again);
    return cinch_graph_add_node(m->job, full, CINCH_NODE_SWITCH, part, host, node);
}

static cinchResult_t add_host_nodes(merger *m, int h) {
    const cinch_graph *g = m->host[h];
    for (int i = 0; i < g->nodes; i++) {
        int *node = &m->node[m->first[h] + i], ranks = m->sitting[m->first[h] + i];
        bool gpu = g->node[i].kind == CINCH_NODE_GPU;
        *node = -1;
        /* One rank's GPU is the rank's node; the network comes when all hosts are there. */
        if ((gpu && ranks < 2) || (m->hosts > 1 && is_switch(g, i, CINCH_PART_NET))) continue;
        CINCH_TRY(
            add_switch(m, h, g->node[i].name, gpu ? CINCH_PART_OTHER : g->node[i].part, node));
    }
    return cinchSuccess;
}

static cinchResult_t join_ranks(merger *m) {
    for (int r = 0; r < m->ranks; r++) {
        const cinch_graph *g = m->host[m->rank[r].host];
        int seat = m->seat[r], at = seat - m->first[m->rank[r].host];
        bool gpu = g->node[at].kind == CINCH_NODE_GPU;
        if (gpu && m->sitting[seat] == 1) {
            m->node[seat] = r;
            continue;
        }
        double gbps = gpu ? CINCH_JOB_DEVICE_GBPS : CINCH_JOB_SHM_GBPS;
        CINCH_TRY(cinch_graph_add_link(m->job, r, m->node[seat], gbps, gbps, CINCH_LINK_SHM));
    }
    return cinchSuccess;
}

static cinchResult_t add_network(merger *m) {
    if (m->hosts < 2) return cinchSuccess;
    CINCH_TRY(
        cinch_graph_add_node(m->job, "network", CINCH_NODE_SWITCH, CINCH_PART_NET, 0, &m->network));
    for (int h = 0; h < m->hosts; h++)
        for (int i = 0; i < m->host[h]->nodes; i++)
            if (is_switch(m->host[h], i, CINCH_PART_NET)) m->node[m->first[h] + i] = m->network;
    return cinchSuccess;
}

/* Where nothing tells of a NIC, one at the host's first CPU, or without that at each of its ranks.
 */
static cinchResult_t add_nic(merger *m, int h) {
    const double gbps = CINCH_JOB_NIC_GBPS;
    int nic, cpu = first_cpu(m->host[h]);
    CINCH_TRY(add_switch(m, h, "nic", CINCH_PART_NIC, &nic));
    CINCH_TRY(cinch_graph_add_link(m->job, nic, m->network, gbps, gbps, CINCH_LINK_NET));
    if (cpu >= 0)
        return cinch_graph_add_link(m->job, m->node[m->first[h] + cpu], nic, gbps, gbps,
                                    CINCH_LINK_PCI);
    for (int r = 0; r < m->ranks; r++)
        if (m->rank[r].host == h)
            CINCH_TRY(cinch_graph_add_link(m->job, r, nic, gbps, gbps, CINCH_LINK_PCI));
    return cinchSuccess;
}

static cinchResult_t add_host_arcs(merger *m, int h) {
    const cinch_graph *g = m->host[h];
    bool in = false, out = false, ranks = false;
    for (int i = 0; i < g->arcs; i++) {
        const cinch_arc *a = &g->arc[i];
        int from = m->node[m->first[h] + a->from], to = m->node[m->first[h] + a->to];
        if (from < 0 || to < 0 || from == to) continue;
        in = in || from == m->network;
        out = out || to == m->network;
        CINCH_TRY(cinch_graph_add_arc(m->job, from, to, a->gbps, a->link));
    }
    for (int i = m->first[h]; i < m->first[h + 1]; i++) ranks = ranks || m->sitting[i] > 0;
    return m->hosts > 1 && ranks && !(in && out) ? add_nic(m, h) : cinchSuccess;
}

/* ---- whether all can reach each other ---- */

/* Marks what is reached from rank 0 along the arcs, or against them. */
static cinchResult_t mark_reached(const cinch_graph *g, bool against, bool *reached) {
    int *first = calloc((size_t)g->nodes + 2, sizeof *first);
    int *other = malloc(((size_t)g->arcs + 1) * sizeof *other);
    int *queue = malloc((size_t)g->nodes * sizeof *queue);
    if (!first || !other || !queue) {
        free(first), free(other), free(queue);
        return cinch_fail(cinchSystemError, "out of memory for a job of %d ranks", g->gpus);
    }
    for (int i = 0; i < g->arcs; i++) first[(against ? g->arc[i].to : g->arc[i].from) + 2]++;
    for (int i = 0; i < g->nodes; i++) first[i + 2] += first[i + 1];
    for (int i = 0; i < g->arcs; i++) {
        const cinch_arc *a = &g->arc[i];
        other[first[(against ? a->to : a->from) + 1]++] = against ? a->from : a->to;
    }
    memset(reached, 0, (size_t)g->nodes * sizeof *reached);
    int head = 0, tail = 0;
    queue[tail++] = 0;
    reached[0] = true;
    for (; head < tail; head++)
        for (int i = first[queue[head]]; i < first[queue[head] + 1]; i++)
            if (!reached[other[i]]) {
                reached[other[i]] = true;
                queue[tail++] = other[i];
            }
    free(first), free(other), free(queue);
    return cinchSuccess;
}

static cinchResult_t check_reached(const merger *m) {
    const cinch_graph *g = m->job;
    bool *reached = malloc((size_t)g->nodes * sizeof *reached);
    if (!reached)
        return cinch_fail(cinchSystemError, "out of memory for a job of %d ranks", m->ranks);
    cinchResult_t result = cinchSuccess;
    for (int pass = 0; pass < 2 && result == cinchSuccess; pass++) {
        result = mark_reached(g, pass == 1, reached);
        for (int r = 1; r < m->ranks && result == cinchSuccess; r++)
            if (!reached[r])
                result = cinch_fail(cinchInvalidArgument,
                                    "no way leads from rank %d to rank %d, at \"%.80s\" of host %d",
                                    pass ? r : 0, pass ? 0 : r, m->rank[r].at, m->rank[r].host);
    }
    free(reached);
    return result;
}

/* ---- the whole ---- */

static cinchResult_t merge(merger *m) {
    CINCH_TRY(add_ranks(m));
    for (int h = 0; h < m->hosts; h++) CINCH_TRY(add_host_nodes(m, h));
    CINCH_TRY(join_ranks(m));
    CINCH_TRY(add_network(m));
    for (int h = 0; h < m->hosts; h++) CINCH_TRY(add_host_arcs(m, h));
    return check_reached(m);
}

cinchResult_t cinch_job_graph(const cinch_graph *const *host, int hosts, const cinch_job_rank *rank,
                              int ranks, cinch_graph *job) {
    merger m = {.host = host, .hosts = hosts, .rank = rank, .ranks = ranks, .job = job};
    m.network = -1;
    if (hosts < 1 || ranks < 1)
        return cinch_fail(cinchInvalidArgument, "a job of %d ranks on %d hosts", ranks, hosts);
    m.first = malloc(((size_t)hosts + 1) * sizeof *m.first);
    size_t nodes = 0;
    for (int h = 0; h < hosts; h++) nodes += (size_t)host[h]->nodes;
    m.sitting = calloc(nodes + 1, sizeof *m.sitting);
    m.node = malloc((nodes + 1) * sizeof *m.node);
    m.seat = malloc((size_t)ranks * sizeof *m.seat);
    cinchResult_t result = cinchSuccess;
    if (!m.first || !m.sitting || !m.node || !m.seat) {
        result = cinch_fail(cinchSystemError, "out of memory for a job of %d ranks", ranks);
    } else {
        m.first[0] = 0;
        for (int h = 0; h < hosts; h++) m.first[h + 1] = m.first[h] + host[h]->nodes;
        result = merge(&m);
    }
    free(m.first), free(m.sitting), free(m.node), free(m.seat);
    if (result != cinchSuccess) cinch_graph_free(job);
    return result;
}

cinchResult_t cinch_job_text(const cinch_graph *graph, char **text, size_t *length) {
    *text = NULL;
    FILE *to = open_memstream(text, length);
    if (!to) return cinch_fail_errno(errno, "out of memory for the text of a graph");
    cinchResult_t result = cinch_graph_write(graph, to);
    if (fclose(to) != 0 && result == cinchSuccess)
        result = cinch_fail_errno(errno, "out of memory for the text of a graph");
    if (result != cinchSuccess) {
        free(*text);
        *text = NULL;
    }
    return result;
}

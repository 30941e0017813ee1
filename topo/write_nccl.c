/* SPDX-License-Identifier: Apache-2.0 */
/* NCCL's topology XML from a graph: the PCI tree below each CPU, GPUs with their links, NICs with
 * their ports. Bandwidths that the format gives by generation, lanes and counts only stand exactly
 * in attributes gbps="" beside these, which NCCL passes over and cinch reads. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "topo/readers.h"

typedef struct {
    const cinch_graph *g;
    FILE *to;
    int *up;       /* by node: the arc to what it hangs from, -1: none */
    int *down;     /* by node: the first node that hangs from it, -1 */
    int *next;     /* by node: the next that hangs from the same */
    int *rank;     /* by node: a GPU's rank */
    int *first;    /* by node: its first arc out in `arc` */
    int *arc;      /* arcs sorted by where they come from, in their order */
    bool *reached; /* by node: written */
} writer;

static cinchResult_t fail_part(const writer *w, int node, const char *why) {
    return cinch_fail(cinchInvalidArgument, "NCCL's topology XML cannot hold %.80s: %s",
                      w->g->node[node].name, why);
}

static void sort_arcs(writer *w) {
    const cinch_graph *g = w->g;
    for (int i = 0; i < g->arcs; i++) w->first[g->arc[i].from + 1]++;
    for (int i = 0; i < g->nodes; i++) w->first[i + 1] += w->first[i];
    for (int i = 0; i < g->arcs; i++) w->arc[w->first[g->arc[i].from]++] = i;
    for (int i = g->nodes; i > 0; i--) w->first[i] = w->first[i - 1];
    w->first[0] = 0;
}

/* ---- the tree ---- */

/* How far from the CPU the parts of a bus stand that is written as a tree. */
static int depth_of(cinch_part part, cinch_node_kind kind) {
    if (kind == CINCH_NODE_GPU) return 2;
    return part == CINCH_PART_CPU ? 0 : part == CINCH_PART_PCI ? 1 : 2;
}

/* Adding a part in the order of distance from CPUs, each hangs from the one that reached it first;
 * a second way to it is no tree. */
static cinchResult_t hang(writer *w, int *queue) {
    const cinch_graph *g = w->g;
    int head = 0, tail = 0;
    for (int i = 0; i < g->nodes; i++)
        if (g->node[i].part == CINCH_PART_CPU && g->node[i].kind == CINCH_NODE_SWITCH)
            queue[tail++] = i;
    for (; head < tail; head++) {
        int at = queue[head], last = -1;
        for (int i = w->first[at]; i < w->first[at + 1]; i++) {
            const cinch_arc *a = &g->arc[w->arc[i]];
            if (a->link != CINCH_LINK_PCI || (w->up[at] >= 0 && g->arc[w->up[at]].to == a->to))
                continue;
            const cinch_node *n = &g->node[a->to];
            bool is_cpu = depth_of(n->part, n->kind) == 0;
            if (is_cpu && depth_of(g->node[at].part, g->node[at].kind) == 0)
                return fail_part(w, at, "a PCI link from CPU to CPU");
            if (is_cpu || w->up[a->to] >= 0)
                return fail_part(w, a->to, "it hangs from two PCI parts");
            if (depth_of(g->node[at].part, g->node[at].kind) == 2)
                return fail_part(w, a->to, "it hangs from a GPU or a NIC");
            for (int k = w->first[a->to]; k < w->first[a->to + 1]; k++)
                if (g->arc[w->arc[k]].to == at) w->up[a->to] = w->arc[k];
            if (w->up[a->to] < 0) return fail_part(w, a->to, "its PCI link goes one way only");
            if (last < 0)
                w->down[at] = a->to;
            else
                w->next[last] = a->to;
            last = a->to;
            queue[tail++] = a->to;
        }
    }
    return cinchSuccess;
}

/* ---- elements ---- */

static void indent(const writer *w, int depth) {
    fprintf(w->to, "%*s", 2 * depth, "");
}

/* Text in an attribute. */
static void put_text(const writer *w, const char *text) {
    for (; *text; text++) {
        if (strchr("&<>\"'", *text))
            fprintf(w->to, "&#%d;", *text);
        else
            fputc(*text, w->to);
    }
}

/* A PCI address, from the node's name where it holds one (and `~` with a number where there are
 * several of it), else made of the node's number. */
static void put_bus(const writer *w, int node) {
    const char *name = w->g->node[node].name;
    unsigned domain, bus, device, function;
    int end = 0;
    if (sscanf(name, "pci:%8x:%2x:%2x.%1x%n", &domain, &bus, &device, &function, &end) == 4 &&
        (!name[end] || name[end] == '~'))
        fprintf(w->to, "%.*s", end - 4, name + 4);
    else
        fprintf(w->to, "%04x:%02x:00.0", 0x1000 + (node >> 8), node & 255);
}

/* The nearest generation and lanes that are not less, for readers that do not know gbps="". */
static void put_pci(const writer *w, int node, unsigned class, int depth) {
    static const struct {
        double gbps;
        const char *speed;
        int width;
    } links[] = {{0.1875, "2.5 GT/s", 1},    {0.75, "8 GT/s", 1},       {3, "8 GT/s", 4},
                 {6, "8 GT/s", 8},           {12, "8 GT/s", 16},        {24, "16.0 GT/s PCIe", 16},
                 {48, "32.0 GT/s PCIe", 16}, {96, "64.0 GT/s PCIe", 16}};
    double gbps = w->g->arc[w->up[node]].gbps;
    size_t i = 0;
    while (i + 1 < sizeof links / sizeof *links && links[i].gbps < gbps) i++;
    indent(w, depth);
    fputs("<pci busid=\"", w->to);
    put_bus(w, node);
    fprintf(w->to, "\" class=\"0x%06x\" link_speed=\"%s\" link_width=\"%d\" gbps=\"%.17g\">\n",
            class, links[i].speed, links[i].width, gbps);
}

static cinchResult_t put_nvlink(const writer *w, const cinch_arc *a, int depth) {
    const cinch_node *to = &w->g->node[a->to];
    if (a->link == CINCH_LINK_C2C) {
        indent(w, depth);
        fprintf(w->to, "<c2c bw=\"%.17g\" count=\"1\"/>\n", a->gbps * 1000);
        return cinchSuccess;
    }
    bool nvswitch = to->part == CINCH_PART_NVSWITCH, cpu = to->part == CINCH_PART_CPU;
    if (to->kind != CINCH_NODE_GPU && !nvswitch && !cpu)
        return fail_part(w, a->from, "an NVLink to neither a GPU, a switch of NVLinks nor a CPU");
    int count = (int)fmin(1024, fmax(1, round(a->gbps / 20)));
    indent(w, depth);
    fputs("<nvlink target=\"", w->to);
    put_bus(w, a->to);
    fprintf(w->to, "\" count=\"%d\" tclass=\"%s\" gbps=\"%.17g\"/>\n", count,
            nvswitch ? "0x068000"
            : cpu    ? "0x068001"
                     : "0x030200",
            a->gbps);
    return cinchSuccess;
}

static cinchResult_t put_gpu(writer *w, int node, int depth) {
    put_pci(w, node, 0x030200, depth);
    indent(w, depth + 1);
    fprintf(w->to, "<gpu dev=\"%d\" sm=\"80\" rank=\"%d\" gdr=\"1\">\n", w->rank[node],
            w->rank[node]);
    for (int i = w->first[node]; i < w->first[node + 1]; i++) {
        const cinch_arc *a = &w->g->arc[w->arc[i]];
        if (a->link == CINCH_LINK_PCI) continue;
        if (a->link != CINCH_LINK_NVLINK && a->link != CINCH_LINK_C2C)
            return fail_part(w, node, "a link that is neither PCI, NVLink nor C2C");
        CINCH_TRY(put_nvlink(w, a, depth + 2));
    }
    indent(w, depth + 1);
    fputs("</gpu>\n", w->to);
    indent(w, depth);
    fputs("</pci>\n", w->to);
    return cinchSuccess;
}

/* A NIC's ports are what it has networks for; their names are the networks' without `net:`. */
static cinchResult_t put_nic(writer *w, int node, int depth) {
    int ports = 0;
    put_pci(w, node, 0x020000, depth);
    indent(w, depth + 1);
    fputs("<nic>\n", w->to);
    for (int i = w->first[node]; i < w->first[node + 1]; i++) {
        const cinch_arc *a = &w->g->arc[w->arc[i]];
        if (a->link == CINCH_LINK_PCI) continue;
        const cinch_node *net = &w->g->node[a->to];
        if (a->link != CINCH_LINK_NET || net->part != CINCH_PART_NET)
            return fail_part(w, node, "a NIC's link that is neither PCI nor to a network");
        w->reached[a->to] = true;
        indent(w, depth + 2);
        fputs("<net name=\"", w->to);
        put_text(w, strncmp(net->name, "net:", 4) == 0 ? net->name + 4 : w->g->node[node].name);
        fprintf(w->to, "\" dev=\"%d\" speed=\"%.0f\" port=\"%d\" gdr=\"1\" gbps=\"%.17g\"/>\n",
                node, ceil(a->gbps * 8000), ++ports, a->gbps);
    }
    if (ports == 0) return fail_part(w, node, "a NIC without a network");
    indent(w, depth + 1);
    fputs("</nic>\n", w->to);
    indent(w, depth);
    fputs("</pci>\n", w->to);
    return cinchSuccess;
}

static cinchResult_t put_below(writer *w, int node, int depth) {
    if (depth > CINCH_TOPOLOGY_MOST_DEPTH - 4)
        return fail_part(w, node, "more PCI switches above each other than are read");
    for (int at = w->down[node]; at >= 0; at = w->next[at]) {
        const cinch_node *n = &w->g->node[at];
        w->reached[at] = true;
        if (n->kind == CINCH_NODE_GPU) {
            CINCH_TRY(put_gpu(w, at, depth));
        } else if (n->part == CINCH_PART_NIC) {
            CINCH_TRY(put_nic(w, at, depth));
        } else {
            put_pci(w, at, 0x060400, depth);
            CINCH_TRY(put_below(w, at, depth + 1));
            indent(w, depth);
            fputs("</pci>\n", w->to);
        }
    }
    return cinchSuccess;
}

/* A CPU's link to the others, as the model of processor that has it. */
static void put_cpu(writer *w, int node, int numa, int hosts) {
    static const struct {
        double gbps;
        const char *arch, *vendor;
        int family, model;
    } models[] = {{6, "arm64", "", 0, 0},
                  {10, "x86_64", "GenuineIntel", 6, 85},
                  {16, "x86_64", "AuthenticAMD", 25, 1},
                  {22, "x86_64", "GenuineIntel", 6, 143},
                  {32, "ppc64", "", 0, 0},
                  {40, "x86_64", "GenuineIntel", 6, 207}};
    double gbps = 0;
    for (int i = w->first[node]; i < w->first[node + 1]; i++)
        if (w->g->arc[w->arc[i]].link == CINCH_LINK_SYS)
            gbps = fmax(gbps, w->g->arc[w->arc[i]].gbps);
    size_t i = 0;
    while (i + 1 < sizeof models / sizeof *models && models[i].gbps < gbps) i++;
    fprintf(w->to, "  <cpu numaid=\"%d\" arch=\"%s\" vendor=\"%s\" familyid=\"%d\" modelid=\"%d\"",
            numa, models[i].arch, models[i].vendor, models[i].family, models[i].model);
    if (hosts > 1) fprintf(w->to, " host_hash=\"0x%x\"", w->g->node[node].host + 1);
    if (gbps > 0) fprintf(w->to, " gbps=\"%.17g\"", gbps);
    fputs(">\n", w->to);
}

/* The format joins all CPUs of a host, and no others. */
static cinchResult_t check_cpus(const writer *w, int node) {
    const cinch_graph *g = w->g;
    for (int i = 0; i < g->nodes; i++) {
        if (g->node[i].part != CINCH_PART_CPU || i == node) continue;
        bool joined = cinch_graph_find_arc(g, node, i) >= 0;
        if (joined != (g->node[i].host == g->node[node].host))
            return fail_part(w, node,
                             "CPUs are joined to all others of their host, and to no more");
    }
    return cinchSuccess;
}

static cinchResult_t put_system(writer *w) {
    const cinch_graph *g = w->g;
    int hosts = 1, cpus = 0;
    for (int i = 0; i < g->nodes; i++)
        if (g->node[i].host >= hosts) hosts = g->node[i].host + 1;
    for (int i = 0; i < g->gpus; i++) w->rank[cinch_graph_gpu(g, i)] = i;
    fputs("<system version=\"1\">\n", w->to);
    for (int i = 0; i < g->nodes; i++) {
        if (g->node[i].part != CINCH_PART_CPU || g->node[i].kind != CINCH_NODE_SWITCH) continue;
        int numa = cpus++, end = 0;
        const char *name = strstr(g->node[i].name, "cpu");
        if (name && (sscanf(name, "cpu%6d%n", &numa, &end) != 1 || name[end])) numa = cpus - 1;
        w->reached[i] = true;
        CINCH_TRY(check_cpus(w, i));
        put_cpu(w, i, numa, hosts);
        CINCH_TRY(put_below(w, i, 2));
        fputs("  </cpu>\n", w->to);
    }
    fputs("</system>\n", w->to);
    for (int i = 0; i < g->nodes; i++)
        if (!w->reached[i] &&
            (g->node[i].part != CINCH_PART_NVSWITCH || g->node[i].kind == CINCH_NODE_GPU))
            return fail_part(w, i, "no PCI links lead from a CPU to it");
    return cinchSuccess;
}

/* Nothing is written before all of it is known to go. */
static cinchResult_t write_all(writer *w, FILE *to) {
    char *text = NULL;
    size_t length = 0;
    w->to = open_memstream(&text, &length);
    if (!w->to) return cinch_fail_errno(errno, "cannot make a topology's XML");
    cinchResult_t result = put_system(w);
    if (fclose(w->to) != 0 && result == cinchSuccess)
        result = cinch_fail(cinchSystemError, "out of memory for a topology's XML");
    if (result == cinchSuccess && (fwrite(text, 1, length, to) != length || fflush(to) != 0))
        result = cinch_fail_errno(errno, "cannot write a topology's XML");
    free(text);
    return result;
}

cinchResult_t cinch_topology_write_nccl(const cinch_graph *graph, FILE *to) {
    size_t nodes = (size_t)graph->nodes, arcs = (size_t)graph->arcs;
    int *memory = malloc((6 * nodes + arcs + 2) * sizeof *memory);
    bool *reached = calloc(nodes + 1, sizeof *reached);
    cinchResult_t result = cinchSystemError;
    if (memory && reached) {
        for (size_t i = 0; i < 6 * nodes + arcs + 2; i++) memory[i] = -1;
        writer w = {.g = graph, .reached = reached};
        w.up = memory;
        w.down = w.up + nodes;
        w.next = w.down + nodes;
        w.rank = w.next + nodes;
        int *queue = w.rank + nodes;
        w.first = queue + nodes;
        w.arc = w.first + nodes + 1;
        memset(w.first, 0, (nodes + 1) * sizeof *w.first);
        sort_arcs(&w);
        result = hang(&w, queue);
        if (result == cinchSuccess) result = write_all(&w, to);
    } else {
        result = cinch_fail(cinchSystemError, "out of memory for a topology's XML");
    }
    free(memory);
    free(reached);
    return result;
}

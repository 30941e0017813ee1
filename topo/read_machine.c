/* SPDX-License-Identifier: Apache-2.0 */
/* Parts and links of a machine as they are collected, the table of bandwidths, and the graph that
 * is made of them. */
#include "topo/read_machine.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void cinch_topology_warn(cinch_topology *t, const char *format, ...) {
    if (t->warnings > CINCH_TOPOLOGY_MOST_WARNINGS) return;
    bool last = t->warnings == CINCH_TOPOLOGY_MOST_WARNINGS;
    char text[CINCH_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, last ? "there are more warnings than are kept" : format, args);
    va_end(args);
    char *copy = strdup(text);
    char **grown =
        copy ? realloc(t->warning, ((size_t)t->warnings + 1) * sizeof *t->warning) : NULL;
    if (!grown) { /* a warning less is not worth failing for */
        free(copy);
        return;
    }
    t->warning = grown;
    t->warning[t->warnings++] = copy;
}

void cinch_machine_free(cinch_machine *m) {
    free(m->part);
    free(m->link);
    m->part = NULL;
    m->link = NULL;
    m->parts = m->links = m->part_room = m->link_room = 0;
}

static cinchResult_t room_for(cinch_machine *m, void *array, int have, int *room, size_t size) {
    if (have < *room) return cinchSuccess;
    int more = *room ? 2 * *room : 64;
    void *grown = realloc(*(void **)array, (size_t)more * size);
    if (!grown) return cinch_fail(cinchSystemError, "out of memory for %.200s", m->name);
    *(void **)array = grown;
    *room = more;
    return cinchSuccess;
}

static void copy_name(char *to, size_t room, const char *from) {
    size_t n = 0;
    for (; from[n] && n < room - 1; n++) {
        unsigned char c = (unsigned char)from[n];
        to[n] = c <= ' ' || c == '#' || c >= 0x7f ? '_' : (char)c;
    }
    to[n] = '\0';
}

cinchResult_t cinch_machine_add(cinch_machine *m, cinch_machine_kind kind, const char *name,
                                int parent, int *part) {
    if (m->parts == CINCH_TOPOLOGY_MOST_PARTS)
        return cinch_fail(cinchInvalidArgument, "%.200s has more than %d parts", m->name,
                          CINCH_TOPOLOGY_MOST_PARTS);
    if (kind == CINCH_MACHINE_CPU && m->cpus++ == CINCH_MACHINE_MOST_CPUS)
        return cinch_fail(cinchInvalidArgument, "%.200s has more than %d CPUs", m->name,
                          CINCH_MACHINE_MOST_CPUS);
    CINCH_TRY(room_for(m, &m->part, m->parts, &m->part_room, sizeof *m->part));
    cinch_machine_part *p = &m->part[m->parts];
    *p = (cinch_machine_part){.kind = kind, .parent = parent, .rank = -1};
    p->host = parent >= 0 ? m->part[parent].host : 0;
    copy_name(p->name, sizeof p->name - 16, *name ? name : "unnamed"); /* room for a suffix */
    *part = m->parts++;
    return cinchSuccess;
}

cinchResult_t cinch_machine_add_link(cinch_machine *m, int from, int to, int count, double gbps) {
    if (m->links == CINCH_TOPOLOGY_MOST_LINKS)
        return cinch_fail(cinchInvalidArgument, "%.200s has more than %d links between GPUs",
                          m->name, CINCH_TOPOLOGY_MOST_LINKS);
    CINCH_TRY(room_for(m, &m->link, m->links, &m->link_room, sizeof *m->link));
    m->link[m->links++] =
        (cinch_machine_link){.from = from, .to = to, .count = count, .gbps = gbps};
    return cinchSuccess;
}

int cinch_machine_nvswitch(const cinch_machine *m) {
    for (int i = 0; i < m->parts; i++)
        if (m->part[i].kind == CINCH_MACHINE_NVSWITCH) return i;
    return -1;
}

/* ---- bandwidths ---- */

/* A lane's gigabits a second that payload gets; below generation 3 the line code takes a fifth. */
static const struct {
    double gts, gbits;
} generation[] = {{2.5, 1.5}, {5, 3}, {8, 6}, {16, 12}, {32, 24}, {64, 48}};

double cinch_pci_gbps(double gts, int lanes) {
    for (size_t i = 0; i < sizeof generation / sizeof *generation; i++)
        if (generation[i].gts == gts && lanes > 0) return generation[i].gbits * lanes / 8;
    return 0;
}

bool cinch_pci_raw_is_old(double raw) {
    /* Lanes of generations 1 and 2 carry 0.25 and 0.5, those after them 128/130 of a GB per 8 GT.
     * As the lanes are a power of two, the first kind is told by its digits. */
    double lanes = raw / 0.25;
    return lanes == exp2(round(log2(lanes)));
}

double cinch_pci_gbps_of_raw(double raw) {
    return cinch_pci_raw_is_old(raw) ? raw * 0.75 : raw * 0.75 * 130 / 128;
}

double cinch_nvlink_gbps(int sm) {
    if (sm >= 100) return 40.1;
    if (sm >= 90) return 20.6;
    if (sm == 86) return 12;
    return sm >= 70 ? 20 : 18;
}

double cinch_xgmi_gbps(const char *gcn) {
    if (strncmp(gcn, "gfx", 3) == 0) gcn += 3;
    if (strncmp(gcn, "94", 2) == 0 || strncmp(gcn, "95", 2) == 0) return 48;
    return strncmp(gcn, "91", 2) == 0 || strncmp(gcn, "90a", 3) == 0 ? 36 : 24;
}

double cinch_cpu_gbps(const char *arch, const char *vendor, int family, int model) {
    if (strncmp(arch, "ppc", 3) == 0) return 32;
    if (strcmp(arch, "arm64") == 0 || strcmp(arch, "aarch64") == 0) return 6;
    if (strcmp(vendor, "AuthenticAMD") == 0) return 16;
    if (strcmp(vendor, "GenuineIntel") != 0 || family != 6) return 10;
    if (model >= 0xcf) return 40;  /* Emerald Rapids */
    if (model >= 0x8f) return 22;  /* Sapphire Rapids */
    return model >= 0x55 ? 10 : 6; /* Skylake, Broadwell */
}

bool cinch_read_int(const char *text, int base, long least, long most, bool tail, int *value) {
    char *end;
    if (!text) return false;
    errno = 0;
    long read = strtol(text, &end, base);
    if (end == text || errno || read < least || read > most || (!tail && *end)) return false;
    *value = (int)read;
    return true;
}

bool cinch_read_double(const char *text, bool tail, double *value) {
    char *end;
    if (!text || !isdigit((unsigned char)*text)) return false;
    double read = strtod(text, &end);
    if (end == text || !isfinite(read) || (!tail && *end)) return false;
    *value = read;
    return true;
}

/* ---- the graph ---- */

/* The GPUs' parts in the order of ranks. */
static int gpus_in_order(const cinch_machine *m, int *order) {
    int gpus = 0;
    bool ranked = true;
    for (int i = 0; i < m->parts; i++)
        if (m->part[i].kind == CINCH_MACHINE_GPU) {
            order[gpus++] = i;
            ranked = ranked && m->part[i].rank >= 0;
        }
    if (!ranked) return gpus;
    for (int i = 1; i < gpus; i++) { /* stable, by insertion */
        int part = order[i], at = i;
        for (; at > 0 && m->part[order[at - 1]].rank > m->part[part].rank; at--)
            order[at] = order[at - 1];
        order[at] = part;
    }
    return gpus;
}

/* Adds a part's node; a name that is taken gets a number behind it. */
static cinchResult_t add_node(cinch_machine *m, cinch_machine_part *p) {
    static const cinch_part parts[] = {CINCH_PART_CPU, CINCH_PART_PCI, CINCH_PART_OTHER,
                                       CINCH_PART_NIC, CINCH_PART_NET, CINCH_PART_NVSWITCH};
    cinch_graph *g = &m->t->graph;
    size_t length = strlen(p->name);
    /* By its own number, so that many of one name take no time. */
    for (int again = (int)(p - m->part); cinch_graph_find(g, p->name) >= 0; again += m->parts)
        snprintf(p->name + length, sizeof p->name - length, "~%d", again);
    cinch_node_kind kind = p->kind == CINCH_MACHINE_GPU ? CINCH_NODE_GPU : CINCH_NODE_SWITCH;
    return cinch_graph_add_node(g, p->name, kind, parts[p->kind], p->host, &p->node);
}

static cinchResult_t add_gpus(cinch_machine *m) {
    int *order = malloc(((size_t)m->parts + 1) * sizeof *order);
    if (!order) return cinch_fail(cinchSystemError, "out of memory for %.200s", m->name);
    int gpus = gpus_in_order(m, order);
    cinchResult_t result = cinchSuccess;
    for (int i = 0; i < gpus && result == cinchSuccess; i++) {
        cinch_machine_part *gpu = &m->part[order[i]];
        snprintf(gpu->name, sizeof gpu->name, "gpu%d", i);
        result = add_node(m, gpu);
    }
    free(order);
    return result;
}

static cinchResult_t add_bus(cinch_machine *m, const cinch_machine_part *p) {
    cinch_graph *g = &m->t->graph;
    int up = m->part[p->parent].node;
    if (p->kind == CINCH_MACHINE_PORT)
        return cinch_graph_add_link(g, up, p->node, p->gbps, p->gbps, CINCH_LINK_NET);
    CINCH_TRY(cinch_graph_add_link(g, p->node, up, p->gbps, p->gbps, CINCH_LINK_PCI));
    if (p->c2c <= 0) return cinchSuccess;
    int cpu = p->parent;
    while (m->part[cpu].parent >= 0) cpu = m->part[cpu].parent;
    int node = m->part[cpu].node;
    return cinch_graph_add_link(g, p->node, node, p->c2c, p->c2c, CINCH_LINK_C2C);
}

/* Between all CPUs of a host, as fast as the slower of two. */
static cinchResult_t add_cpu_links(cinch_machine *m) {
    for (int a = 0; a < m->parts; a++) {
        if (m->part[a].kind != CINCH_MACHINE_CPU) continue;
        for (int b = a + 1; b < m->parts; b++) {
            if (m->part[b].kind != CINCH_MACHINE_CPU || m->part[a].host != m->part[b].host)
                continue;
            double gbps = fmin(m->part[a].gbps, m->part[b].gbps);
            CINCH_TRY(cinch_graph_add_link(&m->t->graph, m->part[a].node, m->part[b].node, gbps,
                                           gbps, CINCH_LINK_SYS));
        }
    }
    return cinchSuccess;
}

/* Ports of one host end in a node each, as nothing is known behind them; the ports of several hosts
 * meet in one. */
static cinchResult_t add_network(cinch_machine *m) {
    int network = -1;
    for (int i = 0; i < m->parts; i++) {
        cinch_machine_part *p = &m->part[i];
        if (p->kind != CINCH_MACHINE_PORT) continue;
        m->t->nics++;
        if (m->hosts < 2 || network < 0) {
            if (m->hosts > 1) copy_name(p->name, sizeof p->name - 16, "network");
            CINCH_TRY(add_node(m, p));
            network = p->node;
        }
        p->node = network;
        if (m->hosts < 2) network = -1;
    }
    return cinchSuccess;
}

cinchResult_t cinch_machine_graph(cinch_machine *m) {
    CINCH_TRY(add_gpus(m));
    for (int i = 0; i < m->parts; i++)
        if (m->part[i].kind != CINCH_MACHINE_GPU && m->part[i].kind != CINCH_MACHINE_PORT)
            CINCH_TRY(add_node(m, &m->part[i]));
    CINCH_TRY(add_network(m));
    for (int i = 0; i < m->parts; i++)
        if (m->part[i].parent >= 0) CINCH_TRY(add_bus(m, &m->part[i]));
    CINCH_TRY(add_cpu_links(m));
    for (int i = 0; i < m->links; i++) {
        const cinch_machine_link *l = &m->link[i];
        if (l->gbps > 0)
            CINCH_TRY(cinch_graph_add_arc(&m->t->graph, m->part[l->from].node, m->part[l->to].node,
                                          l->gbps, CINCH_LINK_NVLINK));
    }
    m->t->gpus = m->t->graph.gpus;
    return cinchSuccess;
}

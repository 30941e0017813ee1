/* SPDX-License-Identifier: Apache-2.0 */
/* CPUs: a NUMA node that has one is a part, and every PCI part is at one of them. */
#include <stdlib.h>
#include <string.h>

#include "topo/detect_parts.h"

#define NODES "/sys/devices/system/node"

/* A line `KEY : VALUE` of /proc/cpuinfo, the first of that key; "" none. */
static void cpuinfo_value(const char *text, const char *key, char *value, size_t room) {
    size_t length = strlen(key);
    value[0] = '\0';
    for (const char *line = text; *line; line += *line == '\n') {
        const char *colon = strncmp(line, key, length) == 0 ? line + length : "";
        colon += strspn(colon, " \t");
        if (*colon == ':') {
            colon++;
            colon += strspn(colon, " \t");
            snprintf(value, room, "%.*s", (int)strcspn(colon, "\n"), colon);
            return;
        }
        line += strcspn(line, "\n");
    }
}

/* To another CPU of the host. */
static double between_cpus(const cinch_detector *d) {
    char text[4096], vendor[64], value[64];
    int family = 0, model = 0;
    cinch_detect_text(d, "/proc/cpuinfo", text, sizeof text);
    cpuinfo_value(text, "vendor_id", vendor, sizeof vendor);
    cpuinfo_value(text, "cpu family", value, sizeof value);
    cinch_read_int(value, 10, 0, 1 << 20, false, &family);
    cpuinfo_value(text, "model", value, sizeof value);
    cinch_read_int(value, 10, 0, 1 << 20, false, &model);
    cpuinfo_value(text, "CPU implementer", value, sizeof value);
    const char *arch = value[0] ? "aarch64" : "x86_64";
    cpuinfo_value(text, "cpu", value, sizeof value);
    if (strncmp(value, "POWER", 5) == 0) arch = "ppc64";
    return cinch_cpu_gbps(arch, vendor, family, model);
}

static int sysfs_nodes(const cinch_detector *d, const cinch_detect_names *names, int *node,
                       int most) {
    int nodes = 0;
    for (int i = 0; i < names->names && nodes < most; i++) {
        char path[CINCH_DETECT_PATH], cpus[64];
        if (strncmp(names->name[i], "node", 4) != 0 ||
            !cinch_read_int(names->name[i] + 4, 10, 0, 1 << 20, false, &node[nodes]))
            continue;
        snprintf(path, sizeof path, NODES "/%s", names->name[i]);
        /* Nodes of memory alone have an empty list. */
        if (cinch_detect_file(d, path, "cpulist", cpus, sizeof cpus) && cpus[0]) nodes++;
    }
    return nodes;
}

cinchResult_t cinch_detect_cpus(cinch_detector *d) {
    cinch_detect_names names;
    int part;
    char name[32];
    d->numas = cinch_detect_hwloc_nodes(d, d->numa, CINCH_MACHINE_MOST_CPUS);
    if (d->numas == 0) {
        CINCH_TRY(cinch_detect_list(d, NODES, &names));
        d->numas = sysfs_nodes(d, &names, d->numa, CINCH_MACHINE_MOST_CPUS);
        free(names.name);
    }
    if (d->numas == CINCH_MACHINE_MOST_CPUS)
        cinch_topology_warn(d->m->t, "of the NUMA nodes %d are taken", d->numas);
    if (!cinch_detect_there(d, "/sys/devices"))
        cinch_topology_warn(d->m->t,
                            "/sys cannot be seen: one CPU is assumed, and nothing is known "
                            "of GPUs and NICs");
    else if (d->numas == 0)
        cinch_topology_warn(d->m->t, "NUMA nodes cannot be seen: one CPU is assumed");
    if (d->numas == 0) d->numa[d->numas++] = 0;
    double gbps = between_cpus(d);
    for (int i = 0; i < d->numas; i++) {
        snprintf(name, sizeof name, "cpu%d", d->numa[i]);
        CINCH_TRY(cinch_machine_add(d->m, CINCH_MACHINE_CPU, name, -1, &part));
        d->m->part[part].gbps = gbps;
    }
    return cinchSuccess;
}

static int part_of_node(const cinch_detector *d, long node) {
    for (int i = 0; i < d->numas; i++)
        if (d->numa[i] == node) return i;
    return -1;
}

/* By the CPUs that are near: the node that has the first of them. */
static int part_of_cpus(const cinch_detector *d, const char *path) {
    char list[64], link[CINCH_DETECT_PATH];
    int first;
    if (!cinch_detect_file(d, path, "local_cpulist", list, sizeof list) ||
        !cinch_read_int(list, 10, 0, 1 << 20, true, &first))
        return -1;
    /* All CPUs are near where nothing is known. */
    char online[64];
    if (cinch_detect_text(d, "/sys/devices/system/cpu/online", online, sizeof online) &&
        strcmp(online, list) == 0)
        return -1;
    for (int i = 0; i < d->numas; i++) {
        snprintf(link, sizeof link, NODES "/node%d/cpu%d", d->numa[i], first);
        if (cinch_detect_there(d, link)) return i;
    }
    return -1;
}

int cinch_detect_cpu_of(cinch_detector *d, const char *path, const char *bus) {
    long node = -1;
    if (d->numas == 1) return 0;
    int part = part_of_node(d, cinch_detect_hwloc_node_of(d, bus));
    if (part < 0 && cinch_detect_long(d, path, "numa_node", &node) && node >= 0)
        part = part_of_node(d, node);
    if (part < 0) part = part_of_cpus(d, path);
    if (part < 0) d->homeless++;
    return part < 0 ? 0 : part;
}

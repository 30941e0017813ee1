/* SPDX-License-Identifier: Apache-2.0 */
/* NICs: the ports through which this machine reaches others, each once, however many names the
 * system has for it. */
#include <stdlib.h>
#include <string.h>

#include "topo/detect_parts.h"

#define CLASS "/sys/class/net"
#define UNKNOWN_MBITS 10000.0 /* as NCCL assumes */

enum { ETHERNET = 1, INFINIBAND = 32 }; /* types, ARPHRD_... of <net/if_arp.h> */

typedef struct {
    char master[CINCH_DETECT_NAME];   /* the interface that it is a member of, "" none */
    char function[CINCH_DETECT_PATH]; /* of a virtual function the device that it is one of */
} relation;

typedef struct {
    cinch_detector *d;
    cinch_detect_line *line;
    relation *of; /* by line */
    int lines;
    int fabric; /* lines of InfiniBand devices, the first ones */
    int down, beside;
    char first_down[CINCH_DETECT_NAME];
} finder;

static bool has_type(const cinch_detector *d, const char *folder) {
    long type;
    return !cinch_detect_long(d, folder, "type", &type) || type == ETHERNET || type == INFINIBAND;
}

static bool is_down(const cinch_detector *d, const char *folder) {
    char state[32];
    cinch_detect_file(d, folder, "operstate", state, sizeof state);
    return strcmp(state, "down") == 0 || strcmp(state, "lowerlayerdown") == 0 ||
           strcmp(state, "notpresent") == 0 || strcmp(state, "dormant") == 0;
}

/* The side in the host of a virtual function, which shares the line of the NIC's own interface. */
static bool is_representor(const cinch_detector *d, const char *folder) {
    char port[64];
    cinch_detect_file(d, folder, "phys_port_name", port, sizeof port);
    return strstr(port, "vf") || strstr(port, "sf");
}

/* A member of a bond that only one member carries, when it is not that one. */
static bool is_idle_member(finder *f, const char *name, const char *master) {
    char folder[CINCH_DETECT_PATH], mode[64], active[CINCH_DETECT_NAME];
    snprintf(folder, sizeof folder, CLASS "/%s/bonding", master);
    if (!cinch_detect_file(f->d, folder, "mode", mode, sizeof mode)) return false;
    cinch_detect_file(f->d, folder, "active_slave", active, sizeof active);
    bool idle = strncmp(mode, "active-backup", 13) == 0 && strcmp(active, name) != 0;
    cinch_topology_warn(f->d->m->t,
                        idle ? "the NIC %.60s is the spare of the bond %.60s: left out"
                             : "the NIC %.60s is in the bond %.60s: it is planned with at its own "
                               "speed",
                        name, master);
    return idle;
}

static void add_interface(finder *f, const char *name, const char *folder, const char *real) {
    char path[CINCH_DETECT_PATH + 16], found[CINCH_DETECT_PATH];
    long mbits;
    cinch_detect_line *l = &f->line[f->lines];
    relation *of = &f->of[f->lines];
    if (f->lines == CINCH_DETECT_MOST_LINES) return;
    *l = (cinch_detect_line){0};
    *of = (relation){0};
    snprintf(l->name, sizeof l->name, "%s", name);
    snprintf(l->real, sizeof l->real, "%s", real);
    if (cinch_detect_long(f->d, folder, "speed", &mbits) && mbits > 0 && mbits < 100000000)
        l->mbits = (double)mbits;
    snprintf(path, sizeof path, "%s/master", folder);
    if (cinch_detect_real(f->d, path, found))
        snprintf(of->master, sizeof of->master, "%.63s", strrchr(found, '/') + 1);
    snprintf(path, sizeof path, "%s/device/physfn", folder);
    if (cinch_detect_real(f->d, path, found)) memcpy(of->function, found, sizeof found);
    if (of->master[0] && is_idle_member(f, name, of->master)) return;
    f->lines++;
}

/* An interface with a device behind it. */
static void look_at(finder *f, const char *name) {
    char folder[128], path[160], real[CINCH_DETECT_PATH];
    snprintf(folder, sizeof folder, CLASS "/%s", name);
    snprintf(path, sizeof path, "%s/device", folder);
    if (!cinch_detect_real(f->d, path, real) || !has_type(f->d, folder) ||
        is_representor(f->d, folder))
        return;
    for (int i = 0; i < f->fabric; i++)
        if (strcmp(f->line[i].real, real) == 0) return; /* the same, by another name */
    if (is_down(f->d, folder)) {
        if (f->down++ == 0) snprintf(f->first_down, sizeof f->first_down, "%s", name);
    } else if (f->fabric > 0) {
        f->beside++;
    } else {
        add_interface(f, name, folder, real);
    }
}

/* In a container interfaces have no device: one whose other end is another interface leads out. */
static void look_at_virtual(finder *f, const char *name) {
    char folder[CINCH_DETECT_PATH];
    long index, other;
    snprintf(folder, sizeof folder, CLASS "/%s", name);
    if (!has_type(f->d, folder) || is_down(f->d, folder) ||
        !cinch_detect_long(f->d, folder, "ifindex", &index) ||
        !cinch_detect_long(f->d, folder, "iflink", &other) || index == other)
        return;
    add_interface(f, name, folder, "");
}

/* What carries the same bytes as another line: an interface that another one is a member of, and a
 * virtual function beside the function itself. */
static bool is_double(const finder *f, int line) {
    for (int i = 0; i < f->lines; i++) {
        if (i == line) continue;
        if (strcmp(f->of[i].master, f->line[line].name) == 0) return true;
        if (f->of[line].function[0] && strcmp(f->of[line].function, f->line[i].real) == 0)
            return true;
    }
    return false;
}

static cinchResult_t find_lines(finder *f) {
    cinch_detect_names names;
    CINCH_TRY(cinch_detect_infiniband(f->d, f->line, CINCH_DETECT_MOST_LINES, &f->lines));
    f->fabric = f->lines;
    CINCH_TRY(cinch_detect_list(f->d, CLASS, &names));
    for (int i = 0; i < names.names; i++) look_at(f, names.name[i]);
    if (f->lines == 0) {
        for (int i = 0; i < names.names; i++) look_at_virtual(f, names.name[i]);
        if (f->lines > 0)
            cinch_topology_warn(f->d->m->t,
                                "network interfaces are virtual, as in a container, the first of "
                                "them %.60s: what is behind them is not known",
                                f->line[0].name);
    }
    free(names.name);
    return cinchSuccess;
}

/* ---- parts ---- */

/* Functions of a card share its slot. */
static int find_card(const cinch_machine *m, const char *bus) {
    size_t slot = strcspn(bus, ".");
    for (int i = 0; i < m->parts && bus[0]; i++)
        if (m->part[i].kind == CINCH_MACHINE_NIC && strncmp(m->part[i].bus, bus, slot + 1) == 0)
            return i;
    return -1;
}

static cinchResult_t add_line(finder *f, const cinch_detect_line *l) {
    char path[CINCH_DETECT_PATH], bus[CINCH_MACHINE_BUS], name[CINCH_MACHINE_NAME];
    cinch_machine *m = f->d->m;
    bool pci = cinch_detect_pci_of(l->real, path, bus);
    int card = pci ? find_card(m, bus) : -1, port;
    if (card < 0 && pci)
        CINCH_TRY(cinch_detect_add_pci(f->d, CINCH_MACHINE_NIC, l->name, path, &card));
    else if (card < 0)
        CINCH_TRY(cinch_detect_add_loose(f->d, CINCH_MACHINE_NIC, l->name, &card));
    snprintf(name, sizeof name, "net:%.51s", l->name);
    CINCH_TRY(cinch_machine_add(m, CINCH_MACHINE_PORT, name, card, &port));
    if (l->mbits <= 0)
        cinch_topology_warn(m->t, "the NIC %.60s has no readable speed: 10 Gb/s is planned with",
                            l->name);
    m->part[port].gbps = (l->mbits > 0 ? l->mbits : UNKNOWN_MBITS) / 8000;
    return cinchSuccess;
}

/* A card in two slots, for two CPUs, has one line and tells of two. */
static void compare_cards(const finder *f) {
    char path[CINCH_DETECT_PATH], bus[CINCH_MACHINE_BUS], other[CINCH_MACHINE_BUS];
    for (int i = 0; i < f->fabric; i++)
        for (int j = 0; j < i; j++) {
            if (!f->line[i].card[0] || strcmp(f->line[i].card, f->line[j].card) != 0) continue;
            if (!cinch_detect_pci_of(f->line[i].real, path, bus) ||
                !cinch_detect_pci_of(f->line[j].real, path, other) ||
                strncmp(bus, other, strcspn(bus, ".")) == 0)
                continue;
            cinch_topology_warn(f->d->m->t,
                                "the NICs %.60s and %.60s are one card in two slots: if they share "
                                "a port, it is counted twice",
                                f->line[j].name, f->line[i].name);
        }
}

static cinchResult_t add_nics(finder *f) {
    CINCH_TRY(find_lines(f));
    for (int i = 0; i < f->lines; i++)
        if (!is_double(f, i)) CINCH_TRY(add_line(f, &f->line[i]));
    compare_cards(f);
    if (f->down > 0)
        cinch_topology_warn(f->d->m->t,
                            "network interfaces that are down: %d, the first of them "
                            "%.60s: left out",
                            f->down, f->first_down);
    if (f->beside > 0)
        cinch_topology_warn(f->d->m->t,
                            "network interfaces left out: %d, as others have an OpenFabrics device",
                            f->beside);
    return cinchSuccess;
}

cinchResult_t cinch_detect_nics(cinch_detector *d) {
    finder f = {.d = d};
    f.line = calloc(CINCH_DETECT_MOST_LINES + 1, sizeof *f.line);
    f.of = calloc(CINCH_DETECT_MOST_LINES + 1, sizeof *f.of);
    cinchResult_t result =
        f.line && f.of ? add_nics(&f)
                       : cinch_fail(cinchSystemError, "out of memory for %.200s", d->m->name);
    free(f.line);
    free(f.of);
    return result;
}

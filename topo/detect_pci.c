/* SPDX-License-Identifier: Apache-2.0 */
/* PCI: what hangs from what is in a part's path, how fast its links can be in sysfs. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "topo/detect_parts.h"

/* The PCI parts of a path, from the root port down; end[i]: where the i-th ends in it. */
typedef struct {
    const char *path;
    int parts;
    int end[CINCH_DETECT_MOST_DEEP];
    char bus[CINCH_DETECT_MOST_DEEP][CINCH_MACHINE_BUS];
} chain;

bool cinch_detect_bus(const char *text, char bus[CINCH_MACHINE_BUS]) {
    unsigned domain, number, device, function;
    int length = 0;
    bus[0] = '\0';
    if (sscanf(text, "%8x:%2x:%2x.%1x%n", &domain, &number, &device, &function, &length) != 4 ||
        (text[length] && text[length] != '/'))
        return false;
    snprintf(bus, CINCH_MACHINE_BUS, "%04x:%02x:%02x.%x", domain, number, device, function);
    return true;
}

static void find_chain(const char *path, chain *c) {
    *c = (chain){.path = path};
    for (const char *at = path; (at = strchr(at, '/')) && c->parts < CINCH_DETECT_MOST_DEEP;) {
        at++;
        if (!cinch_detect_bus(at, c->bus[c->parts])) continue;
        c->end[c->parts++] = (int)(at - path) + (int)strcspn(at, "/");
    }
}

bool cinch_detect_pci_of(const char *real, char path[CINCH_DETECT_PATH],
                         char bus[CINCH_MACHINE_BUS]) {
    chain c;
    find_chain(real, &c);
    if (c.parts == 0) return false;
    snprintf(path, CINCH_DETECT_PATH, "%.*s", c.end[c.parts - 1], real);
    memcpy(bus, c.bus[c.parts - 1], CINCH_MACHINE_BUS);
    return true;
}

/* ---- how fast ---- */

static void read_link(const cinch_detector *d, const chain *c, int i, double *gts, int *lanes) {
    char path[CINCH_DETECT_PATH], text[64];
    int width;
    double speed;
    snprintf(path, sizeof path, "%.*s", c->end[i], c->path);
    if (cinch_detect_file(d, path, "max_link_speed", text, sizeof text) &&
        cinch_read_double(text, true, &speed) && speed > 0)
        *gts = *gts > 0 ? fmin(*gts, speed) : speed;
    /* 255 is what a device says that knows none. */
    if (cinch_detect_file(d, path, "max_link_width", text, sizeof text) &&
        cinch_read_int(text, 10, 1, 32, false, &width))
        *lanes = *lanes > 0 && *lanes < width ? *lanes : width;
}

/* The slower of what both ends can, as built: what a link does now it does when it idles, too. */
static void set_link(cinch_detector *d, int part, const chain *c, int i) {
    cinch_machine_part *p = &d->m->part[part];
    memcpy(p->bus, c->bus[i], sizeof p->bus);
    read_link(d, c, i, &p->gts, &p->lanes);
    if (i > 0) read_link(d, c, i - 1, &p->gts, &p->lanes);
    p->gbps = cinch_pci_gbps(p->gts, p->lanes);
    if (p->gbps > 0) return;
    p->gbps = CINCH_PCI_GBPS_UNKNOWN;
    p->gts = 0, p->lanes = 0;
    if (d->unread++ == 0) memcpy(d->first_unread, p->bus, sizeof d->first_unread);
}

/* A link that came up narrower than both of its ends are: a card that sits badly, or a riser. */
static void compare_width(cinch_detector *d, int part, const char *path) {
    const cinch_machine_part *p = &d->m->part[part];
    long now;
    if (p->lanes > 1 && cinch_detect_long(d, path, "current_link_width", &now) && now > 0 &&
        now < p->lanes)
        cinch_topology_warn(d->m->t,
                            "the PCI link of %s runs x%ld now and can x%d: x%d is planned with",
                            p->bus, now, p->lanes, p->lanes);
}

/* ---- what hangs from what ---- */

static int find_switch(const cinch_machine *m, const char *bus) {
    for (int i = 0; i < m->parts; i++)
        if (m->part[i].kind == CINCH_MACHINE_SWITCH && strcmp(m->part[i].bus, bus) == 0) return i;
    return -1;
}

/* What the bridge i of the chain leads down from. The first is the CPU's own (a root port); of the
 * others two in a row are a switch, the port towards the CPU and one away from it, and it has the
 * name of the first. */
static cinchResult_t find_parent(cinch_detector *d, const chain *c, int i, int *parent) {
    char name[CINCH_MACHINE_NAME];
    if (i <= 0) {
        char path[CINCH_DETECT_PATH];
        int last = c->parts - 1;
        snprintf(path, sizeof path, "%.*s", c->end[last], c->path);
        *parent = cinch_detect_cpu_of(d, path, c->bus[last]);
        return cinchSuccess;
    }
    int up = i > 1 ? i - 1 : 1, above;
    *parent = find_switch(d->m, c->bus[up]);
    if (*parent >= 0) return cinchSuccess;
    CINCH_TRY(find_parent(d, c, up - 1, &above));
    snprintf(name, sizeof name, "pci:%s", c->bus[up]);
    CINCH_TRY(cinch_machine_add(d->m, CINCH_MACHINE_SWITCH, name, above, parent));
    set_link(d, *parent, c, up);
    return cinchSuccess;
}

cinchResult_t cinch_detect_add_pci(cinch_detector *d, cinch_machine_kind kind, const char *name,
                                   const char *path, int *part) {
    chain c;
    int parent;
    find_chain(path, &c);
    if (c.parts == 0) return cinch_detect_add_loose(d, kind, name, part);
    CINCH_TRY(find_parent(d, &c, c.parts - 2, &parent));
    CINCH_TRY(cinch_machine_add(d->m, kind, name, parent, part));
    set_link(d, *part, &c, c.parts - 1);
    compare_width(d, *part, path);
    return cinchSuccess;
}

cinchResult_t cinch_detect_add_loose(cinch_detector *d, cinch_machine_kind kind, const char *name,
                                     int *part) {
    CINCH_TRY(cinch_machine_add(d->m, kind, name, 0, part));
    d->m->part[*part].gbps = CINCH_PCI_GBPS_UNKNOWN;
    return cinchSuccess;
}
